//! What a device can do, as far as plans ask, and what the caller lets them.

use crate::matrices::{MatrixSizes, MatrixSubgroups};
use crate::quirks;

/// Bounds on what a plan may do and a context may keep, for [`Context::with_options`](crate::Context::with_options).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ContextOptions {
    /// Floating-point operations that one dispatch may hold before the work is split over several. Drivers end a
    /// dispatch that runs for seconds. Default 2³⁵, a third of a second at 100 GFLOP/s.
    pub max_flops_per_dispatch: u64,
    /// Bytes of workspace that one plan may ask for. Default 256 MiB.
    pub max_workspace_bytes: u64,
    /// Keys that one attention workgroup walks before the rest goes to another, whose results are then combined.
    /// Default: no bound but those of the driver, of `max_flops_per_dispatch`, and of what keeps the adapter busy.
    pub max_keys_per_split: Option<u32>,
    /// Compiled kernels that the context keeps; past that, the one used longest ago goes, and its memory with the last plan that
    /// holds it. Default 128; on llvmpipe a kernel takes about 9 MiB.
    pub max_pipelines: usize,
    /// Plan as if the adapter were a GPU. Software drivers have kernels of their own; this runs the others on them, slowly.
    pub assume_gpu: bool,
    /// Whether the GPU has at most 128 registers for an invocation, so that tiles are smaller. Default: by its vendor.
    pub few_registers: Option<bool>,
    /// The adapter's cooperative matrices, for configs that ask for [`Matrices::F16`](crate::Matrices). Default: none known.
    pub matrix_sizes: MatrixSizes,
    /// The size of the subgroups that multiply them, where the adapter has several or reports a wrong one. Default: none is told, and
    /// it is the device's if it has one size.
    pub matrix_subgroups: MatrixSubgroups,
}

impl Default for ContextOptions {
    fn default() -> Self {
        Self {
            max_flops_per_dispatch: 1 << 35,
            max_workspace_bytes: 256 << 20,
            max_keys_per_split: None,
            max_pipelines: 128,
            assume_gpu: false,
            few_registers: None,
            matrix_sizes: MatrixSizes::default(),
            matrix_subgroups: MatrixSubgroups::default(),
        }
    }
}

/// What a plan knows of the device: plain data, so that choosing a kernel can be tested without one.
#[derive(Clone, Debug)]
#[doc(hidden)]
pub struct Capabilities {
    pub limits: wgpu::Limits,
    pub features: wgpu::Features,
    /// A software driver: invocations run on CPU cores.
    pub is_cpu: bool,
    /// Loop iterations after which the driver silently ends every loop of an invocation.
    pub loop_cap: Option<u32>,
    /// The driver takes minutes to compile a kernel with large private arrays.
    pub slow_arrays: bool,
    /// The driver is llvmpipe, whose reads of private arrays cost more than the arithmetic on them.
    pub is_llvmpipe: bool,
    /// An invocation of the GPU has at most 128 registers.
    pub few_registers: bool,
    /// Invocations in a subgroup, where the device grants subgroups and they have one size.
    pub subgroup_size: Option<u32>,
    /// The fewest invocations in a subgroup, where the device grants subgroups. All sizes are powers of two.
    pub min_subgroup_size: Option<u32>,
    pub options: ContextOptions,
}

impl Capabilities {
    pub(crate) fn new(device: &wgpu::Device, options: ContextOptions) -> Self {
        let info = device.adapter_info();
        let min_subgroup_size = device.features().contains(wgpu::Features::SUBGROUP).then_some(info.subgroup_min_size);
        Self {
            limits: device.limits(),
            features: device.features(),
            is_cpu: quirks::is_software(&info) && !options.assume_gpu,
            loop_cap: quirks::loop_cap(&info),
            slow_arrays: quirks::slow_arrays(&info),
            is_llvmpipe: quirks::is_llvmpipe(&info) && !options.assume_gpu,
            few_registers: options.few_registers.unwrap_or_else(|| quirks::few_registers(&info)),
            subgroup_size: min_subgroup_size.and_then(|_| quirks::subgroup_size(&info)),
            min_subgroup_size,
            options,
        }
    }

    /// Bytes of workspace that one plan may take in one binding.
    pub(crate) fn workspace_room(&self) -> u64 {
        let most = self.limits.max_storage_buffer_binding_size.min(self.limits.max_buffer_size);
        most.min(self.options.max_workspace_bytes)
    }
}

#[cfg(test)]
impl Capabilities {
    /// A GPU with what every device has.
    pub fn plain() -> Self {
        Self {
            limits: wgpu::Limits::default(),
            features: wgpu::Features::empty(),
            is_cpu: false,
            loop_cap: None,
            slow_arrays: false,
            is_llvmpipe: false,
            few_registers: false,
            subgroup_size: None,
            min_subgroup_size: None,
            options: ContextOptions::default(),
        }
    }
}
