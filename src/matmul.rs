//! Matrix products: c = activation(a b + bias), batched, with transposes by stride.

mod config;
mod gradients;
mod kernels;
mod offers;
mod plan;
mod product;
pub mod reference;
mod shapes;

pub use config::{Activation, MatMulConfig};
#[doc(hidden)]
pub use kernels::specializations;
pub(crate) use product::{Matrix, Product};
pub use shapes::MatMulShapes;

use crate::op::op;
use crate::operand::operands;

operands! {
    /// The tensors that a matrix product reads.
    ///
    /// | field | shape | dtype | |
    /// |---|---|---|---|
    /// | `a` | `[batch, heads, m, k]` | float | either of the last two axes has stride 1 |
    /// | `b` | `[batch, heads, k, n]` | float | the same; `batch` and `heads` may have stride 0, as in `a` |
    /// | `bias` | `[batch, heads, m, n]` | float | any outer axis may have stride 0: `[1, 1, 1, n]` broadcast is a bias per column |
    /// | `dc` | `[batch, heads, m, n]` | float | the same |
    ///
    /// `k` may be 0: the product is 0 then, as in BLAS and NumPy, and c is the activated bias.
    ///
    /// NaN in a row of a, a column of b or a bias comes out of every sum it is in, and of every activation. WGSL lets a driver assume
    /// that there is none; the six on which this is tested do not.
    ///
    /// A transposed matrix is a view with its last two axes swapped: q kᵀ takes `k.swap_axes(2, 3)` as `b`.
    MatMulInputs {
        /// Two factors, and no bias.
        pub fn new(a: 4, b: 4);
        /// Left factor.
        a: required float ["batch", "heads", "m", "k"].broadcast().either_order();
        /// Right factor.
        b: required float ["batch", "heads", "k", "n"].broadcast().either_order();
        /// Added to the product before the activation.
        bias: optional float ["batch", "heads", "m", "n"].broadcast();
        /// The gradient of c: given, what is written is that of a b + bias.
        dc: optional float ["batch", "heads", "m", "n"].broadcast();
    }
    /// The tensor that a matrix product writes.
    ///
    /// | field | shape | dtype | |
    /// |---|---|---|---|
    /// | `c` | `[batch, heads, m, n]` | float | the last axis has stride 1 |
    ///
    /// It may not lie in a buffer of an input, even beside it.
    MatMulOutputs {
        /// The product.
        pub fn new(c: 4);
        /// The product.
        c: required float ["batch", "heads", "m", "n"];
    }
    /// The inputs of a matrix product in host memory; see [`MatMulInputs`] for shapes.
    HostInputs {}
}

op! {
    /// Matrix products on one device.
    ///
    /// ```text
    /// c = activation(a b + bias)
    /// c = dc · activation′(a b + bias)     element by element, with an input dc
    /// ```
    ///
    /// The second is the gradient of s = a b + bias where dc is that of activation(s). s is made again, so that nothing but a, b and the
    /// bias need be kept from one pass to the next; the slope of relu is 0 at 0.
    ///
    /// A float is f32, f16 or bf16, for each tensor its own; see [`DType`](crate::DType). Accumulation is f32; the same call on the same device gives the same bits.
    ///
    /// ```no_run
    /// use wgpu_attention::{Activation, Context, MatMul, MatMulConfig, MatMulInputs, MatMulOutputs, TensorView};
    /// # fn record(device: wgpu::Device, queue: wgpu::Queue, encoder: &mut wgpu::CommandEncoder,
    /// #     [x, weight, bias, c]: [&wgpu::Buffer; 4]) -> wgpu_attention::Result<()> {
    /// let context = Context::new(device, queue);
    /// let matmul = MatMul::new(&context, MatMulConfig::new().activation(Activation::Silu))?;
    /// let (tokens, width, out) = (512, 768, 1536);
    /// // A linear layer whose weight is stored [out, width].
    /// let mut inputs = MatMulInputs::new(
    ///     TensorView::f32(x, [1, 1, tokens, width]),
    ///     TensorView::f32(weight, [1, 1, out, width]).swap_axes(2, 3),
    /// );
    /// inputs.bias = Some(TensorView::f32(bias, [1, 1, 1, out]).broadcast_to([1, 1, tokens, out]));
    /// matmul.record(encoder, inputs, MatMulOutputs { c: TensorView::f32(c, [1, 1, tokens, out]) })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Source
    /// Volkov and Demmel, "Benchmarking GPUs to Tune Dense Linear Algebra", 2008, section 5.
    pub struct MatMul: MatMulConfig, MatMulShapes, MatMulInputs => MatMulOutputs;
    /// Picks the kernel for contiguous tensors of these shapes, all stored as `dtype`, and compiles it.
    plan;
}
