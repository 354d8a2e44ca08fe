//! What of a device kernels may use, and a context that has just that.

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use wgpu_attention::{Attention, AttentionConfig, AttentionShapes, Context, ContextOptions, DType, Matrices, wgpu};

/// What of the device kernels may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Tier {
    /// No optional feature, and the limits that WebGPU promises on any device, but for the size of buffers
    Portable,
    /// Whatever else the device grants: what one without subgroup operations gets unasked
    #[value(skip)]
    Granted,
    /// Subgroup operations, and f16 where the device has it
    Subgroup,
    /// Cooperative matrices with factors in f16, where an op has them
    Cooperative,
}

impl Tier {
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Granted => "granted",
            Self::Subgroup => "subgroup",
            Self::Cooperative => "cooperative",
        }
    }

    pub fn matrices(self) -> Matrices {
        if self == Self::Cooperative { Matrices::F16 } else { Matrices::None }
    }
}

/// A context on the adapter whose name contains `adapter`, with the tier asked for or what the adapter has.
pub fn open(adapter: &str, asked: Option<Tier>) -> Result<(Context, Tier)> {
    let from_env = || std::env::var("WGPU_ADAPTER_NAME").unwrap_or_default();
    let (name, options) = (if adapter.is_empty() { from_env() } else { adapter.to_owned() }, ContextOptions::default());
    let context = Context::headless_with(&name, options);
    let context =
        context.context("there is no adapter to measure; on Linux, scripts/compare installs a software one")?;
    let subgroups = context.device().features().contains(wgpu::Features::SUBGROUP);
    let info = context.device().adapter_info();
    match asked {
        None => Ok((context, if subgroups { Tier::Subgroup } else { Tier::Granted })),
        Some(Tier::Granted) => Ok((context, Tier::Granted)),
        Some(Tier::Subgroup) if subgroups => Ok((context, Tier::Subgroup)),
        Some(Tier::Subgroup) => bail!("--tier subgroup: {} has no subgroup operations", info.name),
        Some(Tier::Portable) => {
            let portable = pollster::block_on(portable(&info)).context("--tier portable")?;
            Ok((portable, Tier::Portable))
        }
        Some(Tier::Cooperative) => {
            let context = Context::headless_with_matrices(&name, options)?;
            let attention = Attention::new(&context, AttentionConfig::new().matrices(Matrices::F16))?;
            let planned = attention.plan(&AttentionShapes::new(1, 1, 16, 16), DType::F32);
            planned.with_context(|| format!("--tier cooperative on {}", info.name))?;
            Ok((context, Tier::Cooperative))
        }
    }
}

/// The same adapter's device with nothing optional but timestamps.
async fn portable(info: &wgpu::AdapterInfo) -> Result<Context> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
    let adapters = instance.enumerate_adapters(wgpu::Backends::all()).await;
    let found = adapters.into_iter().find(|adapter| {
        let other = adapter.get_info();
        (&other.name, other.backend, &other.driver_info) == (&info.name, info.backend, &info.driver_info)
    });
    let adapter = found.with_context(|| format!("{} is gone", info.name))?;
    let granted = adapter.limits();
    let required_limits = wgpu::Limits {
        max_buffer_size: granted.max_buffer_size,
        max_storage_buffer_binding_size: granted.max_storage_buffer_binding_size,
        ..wgpu::Limits::default().or_worse_values_from(&granted)
    };
    let required_features = adapter.features() & wgpu::Features::TIMESTAMP_QUERY;
    let descriptor = wgpu::DeviceDescriptor { required_features, required_limits, ..Default::default() };
    let (device, queue) = adapter.request_device(&descriptor).await?;
    Ok(Context::new(device, queue))
}
