//! The caller's device: what it can do, the pipelines compiled on it, and the workspace that records share.

mod capabilities;

use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

pub use capabilities::Capabilities;
pub use capabilities::ContextOptions;

use crate::pipelines::{Pipeline, Pipelines, lock};
use crate::tuning::Tuning;
use crate::wgsl::Specialization;
use crate::{Error, Result};

/// A [`wgpu::Device`] and its [`wgpu::Queue`], with everything this crate keeps for them.
///
/// Cheap to clone; clones share the pipeline cache and the workspace. Creating one touches no GPU state, and
/// nothing this crate records submits, polls or blocks.
///
/// Buffers belong to the device that made them. Where a call is given one of another device, wgpu reports a validation error as the
/// call is recorded, which ends in a panic unless the app has a handler
/// ([`on_uncaptured_error`](wgpu::Device::on_uncaptured_error)) or an error scope. It sees that among devices of one
/// [`wgpu::Instance`], as those of all headless contexts are. Buffers and devices of two instances it cannot tell apart and may
/// take for each other, without a word: an app that has two instances keeps what belongs to them apart itself.
///
/// ```
/// # fn embed(device: wgpu_attention::wgpu::Device, queue: wgpu_attention::wgpu::Queue) {
/// let context = wgpu_attention::Context::new(device, queue);
/// # let _ = context;
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Context {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    device: wgpu::Device,
    queue: wgpu::Queue,
    capabilities: Capabilities,
    compiling: Compiling,
    tuning: Option<Tuning>,
    shared: Arc<Shared>,
}

/// What contexts that differ in nothing but their tuning have in common.
#[derive(Debug, Default)]
struct Shared {
    pipelines: Pipelines,
    workspace: Mutex<Option<wgpu::Buffer>>,
}

/// How kernels are compiled.
#[derive(Clone, Debug)]
struct Compiling {
    bounds_checks: bool,
    cache: Option<wgpu::PipelineCache>,
}

impl Context {
    /// Wraps a device and its queue with default [`ContextOptions`].
    #[must_use]
    pub fn new(device: wgpu::Device, queue: wgpu::Queue) -> Self {
        Self::with_options(device, queue, ContextOptions::default())
    }

    /// Wraps a device and its queue.
    #[must_use]
    pub fn with_options(device: wgpu::Device, queue: wgpu::Queue, options: ContextOptions) -> Self {
        let capabilities = Capabilities::new(&device, options);
        let compiling = Compiling { bounds_checks: true, cache: None };
        let (tuning, shared) = (None, Arc::default());
        Self { inner: Arc::new(Inner { device, queue, capabilities, compiling, tuning, shared }) }
    }

    /// A context of the same device that has compiled nothing yet.
    fn compiling(&self, compiling: Compiling) -> Self {
        let Inner { device, queue, capabilities, tuning, .. } = &*self.inner;
        let (device, queue, capabilities) = (device.clone(), queue.clone(), capabilities.clone());
        let (tuning, shared) = (tuning.clone(), Arc::default());
        Self { inner: Arc::new(Inner { device, queue, capabilities, compiling, tuning, shared }) }
    }

    /// A context of the same device with the same pipelines and workspace.
    pub(crate) fn tuned_by(&self, tuning: Option<Tuning>) -> Self {
        let Inner { device, queue, capabilities, compiling, shared, .. } = &*self.inner;
        let (device, queue, capabilities) = (device.clone(), queue.clone(), capabilities.clone());
        let (compiling, shared) = (compiling.clone(), shared.clone());
        Self { inner: Arc::new(Inner { device, queue, capabilities, compiling, tuning, shared }) }
    }

    /// A context of the same device, sharing pipelines and workspace, whose plans take what a tuning has measured.
    ///
    /// Ops made from `self` keep their plans. Sums are taken in other orders by other kernels, so results may differ from
    /// those of `self` in their last bits.
    ///
    /// ```no_run
    /// # #[cfg(feature = "serde")]
    /// # fn load(context: wgpu_attention::Context, text: &str) -> Result<(), Box<dyn std::error::Error>> {
    /// let tuning: wgpu_attention::Tuning = serde_json::from_str(text)?;
    /// // A tuning of another driver or version is refused: go on without one, and measure again when there is time.
    /// let context = context.with_tuning(tuning).unwrap_or(context);
    /// # let _ = context;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Tuning`] if it was measured on another adapter, backend or driver, or by another version of this crate.
    pub fn with_tuning(&self, tuning: Tuning) -> Result<Self> {
        tuning.check(&self.device().adapter_info())?;
        Ok(self.tuned_by(Some(tuning)))
    }

    /// The tuning that plans look their calls up in.
    #[must_use]
    pub fn tuning(&self) -> Option<&Tuning> {
        self.inner.tuning.as_ref()
    }

    /// A context of the same device that has compiled nothing, for measuring: no tuning, and nothing kept.
    #[cfg(feature = "blocking")]
    pub(crate) fn untuned(&self) -> Self {
        self.compiling(self.inner.compiling.clone()).tuned_by(None)
    }

    /// A context of the same device whose pipelines are compiled through `cache`, which the app saves and loads.
    ///
    /// It shares nothing with `self`. The cache belongs to a device with
    /// [`PIPELINE_CACHE`](wgpu::Features::PIPELINE_CACHE), which Vulkan has; on a device without it, it is ignored. Desktop
    /// drivers keep caches of their own, those of phones often do not.
    ///
    /// ```no_run
    /// # fn embed(adapter: &wgpu::Adapter, device: wgpu::Device, queue: wgpu::Queue) -> std::io::Result<()> {
    /// use wgpu_attention::{Context, wgpu};
    ///
    /// let context = Context::new(device, queue);
    /// // Data of other devices and drivers goes by other names; without the feature there is no name.
    /// let Some(name) = wgpu::util::pipeline_cache_key(&adapter.get_info()) else { return Ok(()) };
    /// let data = std::fs::read(&name).ok();
    /// let descriptor = wgpu::PipelineCacheDescriptor { label: None, data: data.as_deref(), fallback: true };
    /// // SAFETY: nobody else writes to the file.
    /// let cache = unsafe { context.device().create_pipeline_cache(&descriptor) };
    /// let context = context.with_pipeline_cache(cache.clone());
    /// // ... plan what the app will run, then:
    /// if let Some(data) = cache.get_data() {
    ///     let unfinished = format!("{name}.new");
    ///     std::fs::write(&unfinished, data)?;
    ///     std::fs::rename(unfinished, name)?;
    /// }
    /// # let _ = context;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_pipeline_cache(self, cache: wgpu::PipelineCache) -> Self {
        let granted = self.inner.capabilities.features.contains(wgpu::Features::PIPELINE_CACHE);
        self.compiling(Compiling { cache: granted.then_some(cache), ..self.inner.compiling })
    }

    /// A context of the same device whose kernels are compiled without wgpu's bounds checks.
    ///
    /// It shares nothing with `self`, and ops made from `self` keep their checks. What this saves depends on the driver.
    /// On DX12, and on Vulkan with `robustBufferAccess2`, only accesses to private and
    /// workgroup arrays lose a check; on Metal every access does; on OpenGL none, for wgpu adds none there.
    ///
    /// # Safety
    /// For every call that is recorded from the new context, the caller makes sure that no kernel of this version of the
    /// crate reads or writes outside its bindings and arrays; an access that does so is undefined behaviour.
    ///
    /// What stands behind that without the caller: every index is computed from shapes, strides and offsets, which are
    /// checked against the buffers before anything is recorded, from `kv_lens`, which kernels clamp to the length of
    /// k, and from `label_indices`, `label_list` and `label_offsets`, which they compare with the classes and the list; no
    /// other content of a buffer becomes an index. That is tested (with guards around every tensor, and to the
    /// same bits with and without the checks), not proven.
    ///
    /// ```no_run
    /// # fn embed(device: wgpu::Device, queue: wgpu::Queue) {
    /// use wgpu_attention::Context;
    /// // SAFETY: the shapes of this app are fixed, and its tests ran each of them with the checks on.
    /// let context = unsafe { Context::new(device, queue).without_bounds_checks() };
    /// # let _ = context;
    /// # }
    /// ```
    #[must_use]
    #[allow(unsafe_code, reason = "it hands a promise that the crate cannot make to the caller")]
    pub unsafe fn without_bounds_checks(self) -> Self {
        self.compiling(Compiling { bounds_checks: false, cache: self.inner.compiling.cache.clone() })
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> &wgpu::Device {
        &self.inner.device
    }

    /// The queue.
    #[must_use]
    pub fn queue(&self) -> &wgpu::Queue {
        &self.inner.queue
    }

    #[doc(hidden)]
    #[must_use]
    pub fn capabilities(&self) -> &Capabilities {
        &self.inner.capabilities
    }

    /// How many compiled kernels are kept: at most [`ContextOptions::max_pipelines`].
    #[must_use]
    pub fn pipeline_count(&self) -> usize {
        self.inner.shared.pipelines.len()
    }

    /// Forgets all compiled kernels, as for an app that is done with one model and loads another.
    ///
    /// A kernel's memory is freed with the last plan that holds it. An op lets go of such plans when it makes a new one, and
    /// when it is dropped; until then the shapes it has met are not compiled anew.
    pub fn clear_pipelines(&self) {
        self.inner.shared.pipelines.clear();
    }

    /// What is kept of what was compiled.
    #[doc(hidden)]
    #[must_use]
    pub fn compiled(&self) -> Vec<Specialization> {
        self.inner.shared.pipelines.specializations()
    }

    /// The pipelines that are kept.
    pub(crate) fn pipelines(&self) -> &Pipelines {
        &self.inner.shared.pipelines
    }

    /// The pipeline of a specialization, compiled on first use. No lock is held while compiling.
    pub(crate) fn pipeline(&self, specialization: &Specialization) -> Result<Arc<Pipeline>> {
        let pipelines = self.pipelines();
        if let Some(found) = pipelines.get(specialization) {
            return Ok(found);
        }
        let most = self.inner.capabilities.options.max_pipelines;
        Ok(pipelines.keep(specialization, self.compile(specialization)?, most))
    }

    fn compile(&self, specialization: &Specialization) -> Result<Pipeline> {
        let label = specialization.to_string();
        let text = specialization.wgsl();
        let device = &self.inner.device;
        let descriptor =
            wgpu::ShaderModuleDescriptor { label: Some(&label), source: wgpu::ShaderSource::Wgsl(text.into()) };
        let mut checks = wgpu::ShaderRuntimeChecks::checked();
        checks.force_loop_bounding = false;
        checks.int_div_checks = false;
        checks.bounds_checks = self.inner.compiling.bounds_checks;
        let fail = |message: String| Error::Pipeline { label: label.clone(), message };
        #[allow(unsafe_code, reason = "the one way to leave out checks that cost much and that no kernel here needs")]
        let module = self.scoped(
            || {
                // SAFETY: three kinds of check are left out.
                // Loop bounding: every loop under `shaders/` counts by a constant to an end that is computed before it
                // starts and that no iteration changes; lengths end at 2^30, so no counter wraps before its end. (The
                // two `while` loops of the Taylor map subtract at least 1 from a number that they keep above 0.)
                // Integer division: every divisor is a constant above 0 or an unsigned field of the uniform in which
                // `PlanBuilder::dispatch` refuses a zero; `tests/shaders.rs` finds every division. As no divisor is
                // negative, none overflows.
                // Matrices: wgpu checks the first number of one that is loaded or stored, not the others. All lie in workgroup memory,
                // at places made of constants, of loop counters that end at constants, and of the subgroup's number.
                // Bounds: off only in a context of `without_bounds_checks`, whose caller answers for them.
                // The text is the crate's own, so that no other can get here.
                unsafe { device.create_shader_module_trusted(descriptor, checks) }
            },
            |message| fail(locate(specialization, &message)),
        )?;
        let (pipeline, layout) = self.scoped(
            || {
                let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                    label: Some(&label),
                    layout: None,
                    module: &module,
                    entry_point: Some("main"),
                    compilation_options: wgpu::PipelineCompilationOptions {
                        zero_initialize_workgroup_memory: false,
                        ..Default::default()
                    },
                    cache: self.inner.compiling.cache.as_ref(),
                });
                let layout = pipeline.get_bind_group_layout(0);
                (pipeline, layout)
            },
            fail,
        )?;
        Ok(Pipeline::new(label, pipeline, layout, specialization.clone()))
    }

    /// Whether the device is lost; asks no driver, and takes under a microsecond.
    ///
    /// wgpu tells of a loss by a callback, of which a device has one, and that is the app's. But on a lost device it reports no
    /// error any more, not even for a query set that is larger than any may be.
    pub(crate) fn is_lost(&self) -> bool {
        let device = &self.inner.device;
        let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
        drop(device.create_query_set(&wgpu::QuerySetDescriptor {
            label: None,
            ty: wgpu::QueryType::Occlusion,
            count: u32::MAX,
        }));
        matches!(poll_once(scope.pop()), Poll::Ready(None))
    }

    /// Refuses to go on with a lost device.
    pub(crate) fn expect_device(&self) -> Result<()> {
        if self.is_lost() { Err(Error::DeviceLost) } else { Ok(()) }
    }

    /// Runs calls of wgpu and hands back what the device says of them, if that is not that it is lost: then what they made is of
    /// no use, though wgpu reports nothing. It needs no executor: on native backends an error scope is ready once it is popped.
    ///
    /// Whatever uses what was just made belongs into the same scope: of an invalid object wgpu complains anew.
    pub(crate) fn scoped<T>(&self, calls: impl FnOnce() -> T, fail: impl FnOnce(String) -> Error) -> Result<T> {
        let device = &self.inner.device;
        let scopes = [wgpu::ErrorFilter::Validation, wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Internal]
            .map(|filter| device.push_error_scope(filter));
        let made = calls();
        let mut error = None;
        for scope in scopes.into_iter().rev() {
            if let Poll::Ready(found) = poll_once(scope.pop()) {
                error = error.or(found);
            }
        }
        self.expect_device()?;
        error.map_or(Ok(made), |error| Err(fail(error.to_string())))
    }

    /// The workspace that recorded passes share; a larger one replaces a smaller, which lives until its last use.
    pub(crate) fn workspace(&self) -> Option<wgpu::Buffer> {
        lock(&self.inner.shared.workspace).clone()
    }

    /// Makes [`workspace`](Self::workspace) at least this large.
    pub(crate) fn reserve_workspace(&self, bytes: u64) -> Result<()> {
        if self.workspace().is_some_and(|buffer| buffer.size() >= bytes) {
            return Ok(());
        }
        let larger = self.create_workspace(bytes)?;
        let mut slot = lock(&self.inner.shared.workspace);
        // Another thread may have been faster.
        if slot.as_ref().is_none_or(|buffer| buffer.size() < bytes) {
            *slot = Some(larger);
        }
        Ok(())
    }

    pub(crate) fn create_workspace(&self, bytes: u64) -> Result<wgpu::Buffer> {
        self.create_buffer("workspace", bytes, wgpu::BufferUsages::STORAGE, &[])
    }

    /// An immutable uniform buffer holding `bytes`.
    pub(crate) fn uniform(&self, bytes: &[u8]) -> Result<wgpu::Buffer> {
        self.create_buffer("params", bytes.len().next_multiple_of(16) as u64, wgpu::BufferUsages::UNIFORM, bytes)
    }

    /// A buffer that starts with `content`.
    pub(crate) fn create_buffer(
        &self,
        what: &str,
        size: u64,
        usage: wgpu::BufferUsages,
        content: &[u8],
    ) -> Result<wgpu::Buffer> {
        let fail = |message: String| Error::Buffer { what: what.into(), size, message };
        let label = format!("wgpu-attention {what}");
        let mapped_at_creation = !content.is_empty();
        let descriptor = wgpu::BufferDescriptor { label: Some(&label), size, usage, mapped_at_creation };
        let create = || {
            let buffer = self.inner.device.create_buffer(&descriptor);
            if mapped_at_creation {
                let mut view = buffer.slice(..).get_mapped_range_mut()?;
                view.slice(..content.len()).copy_from_slice(content);
                drop(view);
                buffer.unmap();
            }
            Ok(buffer)
        };
        self.scoped(create, fail)?.map_err(|error: wgpu::MapRangeError| fail(error.to_string()))
    }
}

/// Where a future stands that is ready or will not be soon.
fn poll_once<T>(future: impl Future<Output = T>) -> Poll<T> {
    std::pin::pin!(future).poll(&mut std::task::Context::from_waker(Waker::noop()))
}

/// Rewrites `wgsl:LINE:COLUMN` in a compiler message as the file under `shaders/` that the line stands in.
fn locate(specialization: &Specialization, message: &str) -> String {
    let mut located = String::new();
    for line in message.lines() {
        let place = line.split_once("wgsl:").and_then(|(head, tail)| {
            let (number, rest) = tail.split_once(':')?;
            let (path, number) = specialization.locate(number.parse().ok()?);
            Some(format!("{head}shaders/{path}.wgsl:{number}:{rest}"))
        });
        located.push_str(place.as_deref().unwrap_or(line));
        located.push('\n');
    }
    located
}
