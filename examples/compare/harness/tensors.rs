//! The tensors that every variant of one length shares.

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand_distr::{Distribution, StandardNormal};
use wgpu_attention::{Context, DType, HostView, Matrices, TensorView, wgpu};

use super::Failure;
use super::stored::{allocate, round};

/// The sizes of one case, and how it is computed. Every variant gets the same, so that their times compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub batch: u32,
    pub heads: u32,
    pub kv_heads: u32,
    /// Keys and values.
    pub len: u32,
    /// Queries: as many, or one in decoding.
    pub q_len: u32,
    pub head_dim: u32,
    pub causal: bool,
    /// What the tensors are stored as.
    pub dtype: DType,
    /// For the ops that have them.
    pub matrices: Matrices,
}

impl Shape {
    /// Eight heads, every key visible, in f32.
    pub fn new(len: u32, head_dim: u32) -> Self {
        let (dtype, matrices) = (DType::F32, Matrices::None);
        Self { batch: 1, heads: 8, kv_heads: 8, len, q_len: len, head_dim, causal: false, dtype, matrices }
    }

    /// One query over the keys so far.
    pub fn is_decoding(&self) -> bool {
        self.q_len != self.len
    }

    pub fn q(&self) -> [u32; 4] {
        [self.batch, self.heads, self.q_len, self.head_dim]
    }

    pub fn kv(&self) -> [u32; 4] {
        [self.batch, self.kv_heads, self.len, self.head_dim]
    }

    /// Rows of the output: `[batch, q_heads, q_len]`.
    pub fn rows(&self) -> [u32; 3] {
        [self.batch, self.heads, self.q_len]
    }
}

/// Numbers from N(0, 1).
pub fn normal(seed: u64, count: usize) -> Vec<f32> {
    StandardNormal.sample_iter(StdRng::seed_from_u64(seed)).take(count).collect()
}

/// `[batch, heads, len, head_dim]` in host memory.
pub struct HostTensors {
    pub q: Vec<f32>,
    pub k: Vec<f32>,
    pub v: Vec<f32>,
}

impl HostTensors {
    /// Independent numbers from N(0, 1), the same on every run.
    pub fn random(shape: &Shape) -> Self {
        let tensor = |seed, extents| normal(seed, elements(extents));
        Self { q: tensor(1, shape.q()), k: tensor(2, shape.kv()), v: tensor(3, shape.kv()) }
    }
}

/// The tensors on the device, with the numbers that they hold for the twin.
pub struct Tensors {
    pub shape: Shape,
    pub host: HostTensors,
    q: wgpu::Buffer,
    k: wgpu::Buffer,
    v: wgpu::Buffer,
    pub o: wgpu::Buffer,
    pub entropy: wgpu::Buffer,
}

impl Tensors {
    /// Whether the device can hold and bind tensors of this shape.
    pub fn check(context: &Context, shape: &Shape) -> Result<(), Failure> {
        let limits = context.device().limits();
        let limit = limits.max_buffer_size.min(limits.max_storage_buffer_binding_size);
        for (name, extents) in [("q", shape.q()), ("k", shape.kv())] {
            let bytes =
                extents.iter().fold(shape.dtype.size(), |product, &extent| product.saturating_mul(extent.into()));
            if bytes > limit {
                return Err(Failure::Refused(format!("{name} is {bytes} bytes, the device binds at most {limit}")));
            }
        }
        Ok(())
    }

    pub fn upload(context: &Context, shape: Shape, mut host: HostTensors) -> Result<Self, Failure> {
        let dtype = shape.dtype;
        [&mut host.q, &mut host.k, &mut host.v].into_iter().for_each(|data| round(data, dtype));
        within_memory(context, || {
            let upload = |data| context.upload_as(data, dtype);
            let (q, k, v) = (upload(&host.q)?, upload(&host.k)?, upload(&host.v)?);
            let o = allocate(context, elements(shape.q()), dtype);
            let entropy = context.allocate(elements(shape.rows()));
            Ok(Self { shape, host, q, k, v, o, entropy })
        })
    }

    /// Zeroes the outputs, so that a call that writes nothing is not taken for the call before it.
    pub fn clear_outputs(&self, context: &Context) {
        clear(context, [&self.o, &self.entropy]);
    }

    pub fn q(&self) -> TensorView<'_, 4> {
        TensorView::new(&self.q, self.shape.dtype, self.shape.q())
    }

    pub fn k(&self) -> TensorView<'_, 4> {
        TensorView::new(&self.k, self.shape.dtype, self.shape.kv())
    }

    pub fn v(&self) -> TensorView<'_, 4> {
        TensorView::new(&self.v, self.shape.dtype, self.shape.kv())
    }

    pub fn o(&self) -> TensorView<'_, 4> {
        TensorView::new(&self.o, self.shape.dtype, self.shape.q())
    }

    /// A tensor of a variant's own, stored as the others are, and the numbers that it holds.
    pub fn own(&self, context: &Context, mut host: Vec<f32>) -> wgpu_attention::Result<(Vec<f32>, wgpu::Buffer)> {
        round(&mut host, self.shape.dtype);
        let buffer = context.upload_as(&host, self.shape.dtype)?;
        Ok((host, buffer))
    }

    pub fn host_q(&self) -> HostView<'_, f32, 4> {
        view(&self.host.q, self.shape.q())
    }

    pub fn host_k(&self) -> HostView<'_, f32, 4> {
        view(&self.host.k, self.shape.kv())
    }

    pub fn host_v(&self) -> HostView<'_, f32, 4> {
        view(&self.host.v, self.shape.kv())
    }
}

/// Zeroes buffers.
pub fn clear<'a>(context: &Context, buffers: impl IntoIterator<Item = &'a wgpu::Buffer>) {
    let mut encoder = context.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    buffers.into_iter().for_each(|buffer| encoder.clear_buffer(buffer, 0, None));
    context.queue().submit([encoder.finish()]);
}

/// Buffers, or that the device has no memory for them.
pub fn within_memory<T>(context: &Context, make: impl FnOnce() -> wgpu_attention::Result<T>) -> Result<T, Failure> {
    let scope = context.device().push_error_scope(wgpu::ErrorFilter::OutOfMemory);
    let made = make();
    // On native backends a scope is ready as soon as it is popped.
    let mut popped = std::pin::pin!(scope.pop());
    let mut waker = std::task::Context::from_waker(std::task::Waker::noop());
    if let std::task::Poll::Ready(Some(error)) = popped.as_mut().poll(&mut waker) {
        return Err(Failure::Refused(error.to_string()));
    }
    Ok(made?)
}

/// A view of host data that was made for this shape.
pub fn view<const RANK: usize>(data: &[f32], shape: [u32; RANK]) -> HostView<'_, f32, RANK> {
    HostView::new(data, shape.map(|extent| extent as usize)).expect("the data was made for this shape")
}

pub fn elements<const RANK: usize>(shape: [u32; RANK]) -> usize {
    shape.iter().map(|&extent| extent as usize).product()
}
