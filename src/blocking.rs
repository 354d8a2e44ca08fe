//! A device without a window, and calls that upload, run and read back in one go (feature `blocking`).

use std::sync::OnceLock;

use bytemuck::Pod;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::context::Capabilities;
use crate::dispatch::Prepared;
use crate::dtype::{DType, Element};
use crate::host::HostView;
use crate::matrices::{MatrixSizes, MatrixSubgroups, MatrixTier};
use crate::quirks;
use crate::{Context, ContextOptions, Error, Result, TensorView};

/// The adapters that every headless context of the process chooses from.
///
/// wgpu tells devices and buffers apart by numbers that it gives out per instance, so that two contexts of two instances could
/// take each other's buffers for their own. And two adapters of OpenGL that came of two searches of one instance share a GL
/// context, which two threads may not both use: hence one search.
struct Host {
    adapters: Vec<wgpu::Adapter>,
    /// The first that fits, by its index.
    first: std::result::Result<usize, String>,
}

impl Host {
    fn get() -> &'static Self {
        static HOST: OnceLock<Host> = OnceLock::new();
        HOST.get_or_init(|| pollster::block_on(Self::find()))
    }

    async fn find() -> Self {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
        let adapters = instance.enumerate_adapters(wgpu::Backends::all()).await;
        let options = wgpu::RequestAdapterOptions {
            power_preference: wgpu::PowerPreference::HighPerformance,
            ..Default::default()
        };
        let first = match instance.request_adapter(&options).await {
            Ok(first) => {
                let found = adapters.iter().position(|adapter| adapter.get_info() == first.get_info());
                found.ok_or_else(|| format!("`{}` is gone again", first.get_info().name))
            }
            Err(error) => Err(error.to_string()),
        };
        Self { adapters, first }
    }

    /// The first adapter that fits, or the first whose name contains `name`, ignoring case.
    fn adapter(&self, name: &str) -> Result<&wgpu::Adapter> {
        let index = if name.is_empty() {
            self.first.clone().map_err(Error::NoDevice)?
        } else {
            let names: Vec<String> = self.adapters.iter().map(|adapter| adapter.get_info().name).collect();
            let wanted = name.to_lowercase();
            let found = names.iter().position(|name| name.to_lowercase().contains(&wanted));
            found.ok_or_else(|| Error::NoDevice(format!("no adapter is called `{name}`; there are {names:?}")))?
        };
        Ok(&self.adapters[index])
    }
}

impl Context {
    /// A context on the first adapter that fits, without a surface, with every limit the adapter has.
    ///
    /// `WGPU_BACKEND` and `WGPU_ADAPTER_NAME` choose among several, as everywhere in wgpu. Each call makes a device of its own;
    /// adapters are looked for once in a process, with `WGPU_BACKEND` as it is then.
    ///
    /// # Errors
    /// [`Error::NoDevice`].
    pub fn headless() -> Result<Self> {
        let name = std::env::var("WGPU_ADAPTER_NAME").unwrap_or_default();
        Self::headless_with(&name, ContextOptions::default())
    }

    /// As [`headless`](Self::headless), on an adapter whose name contains `name`, ignoring case, and with options.
    ///
    /// # Errors
    /// [`Error::NoDevice`], which lists the adapters there are.
    pub fn headless_with(name: &str, options: ContextOptions) -> Result<Self> {
        let wanted = wgpu::Features::TIMESTAMP_QUERY | wgpu::Features::SUBGROUP | wgpu::Features::SHADER_F16;
        Self::headless_device(name, options, wanted, wgpu::ExperimentalFeatures::disabled())
    }

    /// As [`headless_with`](Self::headless_with), with what [`Matrices::F16`](crate::Matrices) needs, as far as the adapter has
    /// it; `options.matrix_sizes` is filled in. Where the adapter has subgroups of several sizes, so is `options.matrix_subgroups`, if it
    /// says nothing: by [`matrix_subgroups`](Self::matrix_subgroups), which takes a few compilations.
    ///
    /// Cooperative matrices are an experimental feature of wgpu, which is why nothing else asks for them.
    ///
    /// # Errors
    /// [`Error::NoDevice`]; that the adapter has no cooperative matrices is no error here, but one of the plans that ask for
    /// them. Those of [`matrix_subgroups`](Self::matrix_subgroups).
    #[allow(unsafe_code, reason = "wgpu asks for a word that its experimental features are known to be that")]
    pub fn headless_with_matrices(name: &str, options: ContextOptions) -> Result<Self> {
        let wanted = wgpu::Features::TIMESTAMP_QUERY | MatrixTier::FEATURES;
        // SAFETY: the one experimental feature asked for is used by this crate's own kernels alone, unless the caller takes the
        // device and uses it too: they load and store matrices in workgroup memory only, at places that depend on constants and
        // on the subgroup's number (`shaders/*/*cooperative.wgsl`, `shaders/attention/backward_matrices.wgsl`).
        let experimental = unsafe { wgpu::ExperimentalFeatures::enabled() };
        let context = Self::headless_device(name, options, wanted, experimental)?;
        let &Capabilities { subgroup_size, options, .. } = context.capabilities();
        let told = options.matrix_subgroups != MatrixSubgroups::default();
        if subgroup_size.is_some() || options.matrix_sizes.is_empty() || told {
            return Ok(context);
        }
        let options = ContextOptions { matrix_subgroups: context.matrix_subgroups()?, ..options };
        Ok(Self::with_options(context.device().clone(), context.queue().clone(), options))
    }

    fn headless_device(
        name: &str,
        mut options: ContextOptions,
        mut wanted: wgpu::Features,
        experimental_features: wgpu::ExperimentalFeatures,
    ) -> Result<Self> {
        let adapter = Host::get().adapter(name)?;
        pollster::block_on(async {
            if quirks::lists_matrices_in_vain(&adapter.get_info()) {
                wanted.remove(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX);
            }
            if wanted.contains(MatrixTier::FEATURES) {
                options.matrix_sizes = MatrixSizes::new(&adapter.cooperative_matrix_properties());
            }
            let descriptor = wgpu::DeviceDescriptor {
                label: Some("wgpu-attention"),
                required_features: adapter.features() & wanted,
                required_limits: adapter.limits(),
                experimental_features,
                ..Default::default()
            };
            let (device, queue) =
                adapter.request_device(&descriptor).await.map_err(|error| Error::NoDevice(error.to_string()))?;
            Ok(Self::with_options(device, queue, options))
        })
    }

    /// A storage buffer holding `data`, padded to a multiple of four bytes.
    ///
    /// Where the device has no room for it, the buffer is empty, and the op that is given it refuses it as too small. Where the
    /// device is lost, the buffer holds nothing, and every call that is given it says [`Error::DeviceLost`].
    #[must_use]
    pub fn upload<T: bytemuck::NoUninit>(&self, data: &[T]) -> wgpu::Buffer {
        let bytes: &[u8] = bytemuck::cast_slice(data);
        self.storage(bytes.len() as u64, bytes)
    }

    /// A storage buffer for `elements` numbers of 32 bits, zeroed; without room or a device as with [`upload`](Self::upload).
    #[must_use]
    pub fn allocate(&self, elements: usize) -> wgpu::Buffer {
        self.storage((elements as u64).saturating_mul(4), &[])
    }

    /// [`upload`](Self::upload) of numbers that are stored as f32, f16 or bf16: rounded to nearest even.
    ///
    /// # Errors
    /// [`Error::DType`] for a type that is none of them.
    pub fn upload_as(&self, data: &[f32], dtype: DType) -> Result<wgpu::Buffer> {
        fn halves<T: Pod>(data: &[f32]) -> Vec<T>
        where
            [T]: HalfFloatSliceExt,
        {
            let mut halves = vec![T::zeroed(); data.len()];
            halves.convert_from_f32_slice(data);
            halves
        }
        match dtype {
            DType::F32 => Ok(self.upload(data)),
            DType::F16 => Ok(self.upload(&halves::<f16>(data))),
            DType::BF16 => Ok(self.upload(&halves::<bf16>(data))),
            DType::U32 | DType::Bool => Err(Error::DType { tensor: "upload", expected: DType::FLOATS, got: dtype }),
        }
    }

    /// [`download`](Self::download) of numbers that are stored as f32, f16 or bf16. An odd number of halves comes with the
    /// one that fills the last word.
    ///
    /// # Errors
    /// As [`download`](Self::download), and [`Error::DType`] for a type that is none of them.
    pub fn download_as(&self, buffer: &wgpu::Buffer, dtype: DType) -> Result<Vec<f32>> {
        match dtype {
            DType::F32 => self.download(buffer),
            DType::F16 => Ok(self.read_back::<f16>(buffer)?.to_f32_vec()),
            DType::BF16 => Ok(self.read_back::<bf16>(buffer)?.to_f32_vec()),
            DType::U32 | DType::Bool => Err(Error::DType { tensor: "download", expected: DType::FLOATS, got: dtype }),
        }
    }

    fn storage(&self, bytes: u64, content: &[u8]) -> wgpu::Buffer {
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let size = bytes.max(4).checked_next_multiple_of(4).unwrap_or(u64::MAX - 3);
        let create = |size| {
            let descriptor = wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false };
            self.device().create_buffer(&descriptor)
        };
        self.create_buffer("tensor", size, usage, content).unwrap_or_else(|error| match error {
            // Of its full size, so that whoever takes it says that the device is lost, and not that it is too small.
            Error::DeviceLost => create(size),
            _ => create(0),
        })
    }

    /// Waits for everything submitted and copies a buffer's contents back. The buffer needs `COPY_SRC`.
    ///
    /// # Errors
    /// [`Error::Usage`]; [`Error::Readback`], for a destroyed buffer too; [`Error::DeviceLost`].
    pub fn download(&self, buffer: &wgpu::Buffer) -> Result<Vec<f32>> {
        self.read_back(buffer)
    }

    /// [`download`](Self::download) of lengths, or of numbers of classes.
    ///
    /// # Errors
    /// As [`download`](Self::download).
    pub fn download_u32(&self, buffer: &wgpu::Buffer) -> Result<Vec<u32>> {
        self.read_back(buffer)
    }

    pub(crate) fn read_back<T: Pod>(&self, buffer: &wgpu::Buffer) -> Result<Vec<T>> {
        let missing = wgpu::BufferUsages::COPY_SRC - buffer.usage();
        if !missing.is_empty() {
            return Err(Error::Usage { tensor: "download", missing });
        }
        let fail = |error: &dyn std::fmt::Display| Error::Readback(error.to_string());
        if !buffer.size().is_multiple_of(4) {
            return Err(fail(&format_args!("the buffer's {} bytes are no multiple of 4", buffer.size())));
        }
        let (sender, receiver) = futures_intrusive::channel::shared::oneshot_channel();
        let copy = || {
            let staging = self.device().create_buffer(&wgpu::BufferDescriptor {
                label: Some("wgpu-attention readback"),
                size: buffer.size(),
                usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            });
            let mut encoder = self.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            encoder.copy_buffer_to_buffer(buffer, 0, &staging, 0, buffer.size());
            let submission = self.queue().submit([encoder.finish()]);
            staging.slice(..).map_async(wgpu::MapMode::Read, move |result| {
                // The receiver is gone only if this call has already failed.
                let _ = sender.send(result);
            });
            (staging, submission)
        };
        let (staging, submission) = self.scoped(copy, Error::Readback)?;
        self.wait(submission)?;
        let mapped = pollster::block_on(receiver.receive());
        let view = match mapped {
            Some(Ok(())) => staging.slice(..).get_mapped_range().map_err(|error| error.to_string()),
            Some(Err(error)) => Err(error.to_string()),
            None => Err("wgpu dropped the mapping".into()),
        };
        let view = view.map_err(|message| self.lost_or(Error::Readback(message)))?;
        Ok(bytemuck::pod_collect_to_vec(&view))
    }

    /// Waits until a submission of this device is done.
    pub(crate) fn wait(&self, submission: wgpu::SubmissionIndex) -> Result<()> {
        let poll = || self.device().poll(wgpu::PollType::Wait { submission_index: Some(submission), timeout: None });
        // Where the driver loses the device during the wait, wgpu 30 panics, after it has let go of all locks.
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(poll)) {
            Ok(Ok(_)) => Ok(()),
            // A submission that a lost device did not take is not there to be waited for.
            Ok(Err(error)) => Err(self.lost_or(Error::Readback(error.to_string()))),
            Err(_) if self.is_lost() => Err(Error::DeviceLost),
            // Some callback of the app's, which ran during the wait.
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// That the device is lost, where it is, for the cause of another error.
    fn lost_or(&self, error: Error) -> Error {
        self.expect_device().err().unwrap_or(error)
    }

    /// Records and submits a call piece by piece, so that no submit is long, and waits for it.
    ///
    /// # Errors
    /// [`Error::Buffer`] if there is no workspace, [`Error::Readback`] if wgpu refuses what is recorded, as it does with a
    /// destroyed buffer, [`Error::DeviceLost`].
    pub fn run(&self, prepared: &Prepared<'_>) -> Result<()> {
        let workspace = prepared.workspace()?;
        let submit = |piece| {
            let mut encoder = self.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            prepared.record_piece(&mut pass, piece, &workspace)?;
            drop(pass);
            Ok(self.queue().submit([encoder.finish()]))
        };
        let mut last = None;
        for piece in 0..prepared.plan().dispatches() {
            last = Some(self.scoped(|| submit(piece), Error::Readback)??);
        }
        last.map_or_else(|| self.expect_device(), |submission| self.wait(submission))
    }

    /// Uploads a host tensor as it lies in memory and views it with the same shape and strides.
    ///
    /// # Errors
    /// [`Error::Shape`] for an extent that 32 bits do not hold.
    pub fn upload_view<T: Element, const RANK: usize>(&self, view: &HostView<'_, T, RANK>) -> Result<Uploaded<RANK>> {
        let ((data, strides), shape) = (view.parts(), view.shape_u32()?);
        Ok(Uploaded { buffer: self.upload(data), dtype: T::DTYPE, shape, strides })
    }

    /// As [`upload_view`](Self::upload_view), of numbers that are stored as f32, f16 or bf16.
    ///
    /// # Errors
    /// As [`upload_view`](Self::upload_view) and [`upload_as`](Self::upload_as).
    pub fn upload_view_as<const RANK: usize>(
        &self,
        view: &HostView<'_, f32, RANK>,
        dtype: DType,
    ) -> Result<Uploaded<RANK>> {
        let ((data, strides), shape) = (view.parts(), view.shape_u32()?);
        Ok(Uploaded { buffer: self.upload_as(data, dtype)?, dtype, shape, strides })
    }
}

/// A host tensor on the device; see [`Context::upload_view`].
#[derive(Debug)]
pub struct Uploaded<const RANK: usize> {
    buffer: wgpu::Buffer,
    dtype: DType,
    shape: [u32; RANK],
    strides: [u64; RANK],
}

impl<const RANK: usize> Uploaded<RANK> {
    /// The tensor as an op takes it.
    #[must_use]
    pub fn view(&self) -> TensorView<'_, RANK> {
        TensorView::new(&self.buffer, self.dtype, self.shape).with_strides(self.strides)
    }
}
