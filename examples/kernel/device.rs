//! A device that a plan is made on: one of wgpu's that computes nothing and has what is asked for; `found` has the machine's.

use std::fmt;
use std::str::FromStr;

use anyhow::{Result, ensure};
use clap::ValueEnum;
use wgpu_attention::{Context, ContextOptions, MatrixSizes, MatrixSubgroups, wgpu};

/// What a device that is not there is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Assume {
    /// A GPU
    Gpu,
    /// A software driver, with no habits that are known
    Cpu,
}

/// Invocations in a subgroup: the fewest and the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subgroup {
    min: u32,
    max: u32,
}

impl FromStr for Subgroup {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (min, max) = text.split_once("..").unwrap_or((text, text));
        let [min, max] = [min.parse::<u32>()?, max.parse::<u32>()?];
        let (least, most) = (wgpu::MINIMUM_SUBGROUP_MIN_SIZE, wgpu::MAXIMUM_SUBGROUP_MAX_SIZE);
        let fits = |size: u32| size.is_power_of_two() && (least..=most).contains(&size);
        ensure!(fits(min) && fits(max), "expected powers of two from {least} to {most}");
        ensure!(min <= max, "expected the fewest first");
        Ok(Self { min, max })
    }
}

/// What an assumed device has beyond WebGPU's defaults.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct Granted {
    /// The assumed device has subgroup operations, and subgroups of so many invocations: one number, or the fewest and the most
    #[arg(long, value_name = "MIN..MAX", requires = "assume")]
    pub subgroup: Option<Subgroup>,
    /// The assumed device grants so much workgroup memory. Default: 16
    #[arg(long, value_name = "KIB", requires = "assume", value_parser = clap::value_parser!(u32).range(16..=1024))]
    pub workgroup_kib: Option<u32>,
    /// The assumed device has cooperative matrices of 16 x 16, for configs that ask for them, and multiplies them by its largest subgroups
    #[arg(long, requires = "subgroup")]
    pub matrices: bool,
    /// The assumed device has at most 128 registers for an invocation
    #[arg(long, requires = "assume")]
    pub few_registers: bool,
}

/// The largest buffer of an assumed device, in bytes, which is all that wgpu allows: with the 128 MiB that WebGPU promises, long calls
/// would be refused that GPUs take.
const BUFFER: u64 = (2 << 30) - 4;

/// A context, and what of its device plans go by, by its `Display`.
pub struct Device {
    pub context: Context,
    pub(super) name: String,
}

impl Device {
    /// wgpu's device that computes nothing.
    #[expect(unsafe_code, reason = "wgpu asks so for an experimental feature")]
    pub fn assumed(assume: Assume, granted: &Granted) -> Result<Self> {
        let Granted { subgroup, workgroup_kib, matrices, few_registers } = *granted;
        let mut features = if subgroup.is_some() { wgpu::Features::SUBGROUP } else { wgpu::Features::empty() };
        if matrices {
            features |= wgpu::Features::SHADER_F16 | wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX;
        }
        let noop = wgpu::NoopBackendOptions {
            features: Some(features),
            subgroup_min_size: subgroup.map(|sizes| sizes.min),
            subgroup_max_size: subgroup.map(|sizes| sizes.max),
            ..wgpu::NoopBackendOptions::enabled()
        };
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
            backends: wgpu::Backends::NOOP,
            backend_options: wgpu::BackendOptions { noop, ..Default::default() },
            ..wgpu::InstanceDescriptor::new_without_display_handle()
        });
        let mut required_limits =
            wgpu::Limits { max_buffer_size: BUFFER, max_storage_buffer_binding_size: BUFFER, ..Default::default() };
        if let Some(kib) = workgroup_kib {
            required_limits.max_compute_workgroup_storage_size = kib << 10;
        }
        if matrices {
            // As all grant that have them.
            required_limits.max_compute_invocations_per_workgroup = 1024;
            required_limits.max_compute_workgroup_size_x = 1024;
        }
        let descriptor = wgpu::DeviceDescriptor {
            required_features: features,
            required_limits,
            // SAFETY: nothing runs on this device.
            experimental_features: unsafe { wgpu::ExperimentalFeatures::enabled() },
            ..Default::default()
        };
        let (device, queue) = pollster::block_on(async {
            let adapter = instance.request_adapter(&wgpu::RequestAdapterOptions::default()).await?;
            anyhow::Ok(adapter.request_device(&descriptor).await?)
        })?;
        use wgpu::CooperativeScalarType::{F16, F32};
        let [m_size, n_size, k_size] = [16; 3];
        let (ab_type, cr_type, saturating_accumulation) = (F16, F32, false);
        let sixteen =
            wgpu::CooperativeMatrixProperties { m_size, n_size, k_size, ab_type, cr_type, saturating_accumulation };
        let matrix_sizes = if matrices { MatrixSizes::new(&[sixteen]) } else { MatrixSizes::default() };
        let matrix_subgroups = subgroup.map_or_else(Default::default, |sizes| MatrixSubgroups::all(sizes.max));
        let options = ContextOptions {
            assume_gpu: assume == Assume::Gpu,
            few_registers: Some(few_registers),
            matrix_sizes,
            matrix_subgroups,
            ..Default::default()
        };
        let name = if assume == Assume::Gpu { "an assumed GPU" } else { "an assumed CPU" };
        Ok(Self { context: Context::with_options(device, queue, options), name: name.into() })
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let device = self.context.device();
        let kib = device.limits().max_compute_workgroup_storage_size >> 10;
        write!(f, "{}: {kib} KiB of workgroup memory, ", self.name)?;
        let info = device.adapter_info();
        match [info.subgroup_min_size, info.subgroup_max_size] {
            _ if !device.features().contains(wgpu::Features::SUBGROUP) => f.write_str("no subgroups"),
            [min, max] if min == max => write!(f, "subgroups of {min}"),
            [min, max] => write!(f, "subgroups of {min} to {max}"),
        }?;
        let matrices = device.features().contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX);
        f.write_str(if matrices { ", matrices" } else { "" })
    }
}
