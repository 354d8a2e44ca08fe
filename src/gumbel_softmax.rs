//! Gumbel-softmax and Gumbel-max: samples of categorical distributions, relaxed or not, whose noise is a function of a key.

pub mod backward;
mod config;
mod kernels;
mod plan;
pub mod reference;
mod shapes;

pub use backward::{GumbelSoftmaxBackward, GumbelSoftmaxBackwardInputs, GumbelSoftmaxGradients};
pub use config::{GumbelKind, GumbelSoftmaxConfig};
#[doc(hidden)]
pub use kernels::specializations;
pub use shapes::{GumbelSoftmaxBackwardShapes, GumbelSoftmaxShapes};

use crate::TensorView;
use crate::op::op;
use crate::operand::operands;

operands! {
    /// The tensors that Gumbel-softmax reads.
    ///
    /// | field | shape | dtype | |
    /// |---|---|---|---|
    /// | `logits` | `[rows, columns]` | float | within ±10³⁸; −∞ hides its class |
    /// | `key` | `[5]` | u32 | seed (low word, high word), stream, step, row offset |
    /// | `mask` | `[rows, columns]` | bool | false hides the class; may repeat over rows |
    /// | `tau` | `[1]` or `[rows]` | f32 | the temperature, in place of the config's |
    /// | `seeds` | `[rows]` | u32 | a seed per row, in place of the key's low word |
    /// | `row_ids` | `[rows]` | u32 | what the row's noise knows it by |
    ///
    /// The noise of a class is a function of the row's seed, of its id + row offset (modulo 2³²), of stream and step, and of the
    /// class: of nothing else, so neither of the device nor of the row's place in the batch. The id is that of `row_ids`; without
    /// those the row's place, or 0 where `seeds` is given, so that a row with a seed of its own is known by that and the row offset alone.
    ///
    /// A float is f32, f16 or bf16, of each tensor as its caller likes.
    GumbelSoftmaxInputs {
        /// Logits and the key of the noise.
        pub fn new(logits: 2, key: bits 1);
        /// Unnormalized logarithms of probabilities.
        logits: required float ["rows", "columns"];
        /// The key of the noise.
        key: required bits ["words"];
        /// Which classes take part.
        mask: optional mask ["rows", "columns"].broadcast();
        /// The temperature.
        tau: optional statistic ["taus"].filled(crate::operand::Fill::Constant(1.0));
        /// A seed per row.
        seeds: optional bits ["rows"];
        /// Ids of rows.
        row_ids: optional bits ["rows"];
    }
    /// The tensors that Gumbel-softmax writes.
    ///
    /// | field | shape | dtype | |
    /// |---|---|---|---|
    /// | `y` | `[rows, columns]` | float | the sample; required, but for [`GumbelKind::Sample`], which has none |
    /// | `index` | `[rows]` | u32 | the class drawn; required by [`GumbelKind::Sample`] |
    /// | `noise` | `[rows, columns]` | f32 | the Gumbel noise, of hidden classes as well |
    ///
    /// A row of which no class takes part is 0, its index `u32::MAX`. A row with NaN or +∞ among the logits that the mask leaves, or
    /// whose `tau` is not a normal number above 0, is NaN, its index `u32::MAX`.
    GumbelSoftmaxOutputs {
        /// No output, to be filled.
        pub fn none();
        /// The sample.
        y: optional float ["rows", "columns"];
        /// The class drawn.
        index: optional index ["rows"];
        /// The noise.
        noise: optional statistic ["rows", "columns"];
    }
    /// The inputs of Gumbel-softmax in host memory; see [`GumbelSoftmaxInputs`] for shapes.
    HostInputs {}
}

impl<'a> GumbelSoftmaxOutputs<'a> {
    /// The sample alone.
    #[must_use]
    pub fn new(y: TensorView<'a, 2>) -> Self {
        Self { y: Some(y), ..Self::none() }
    }

    /// The class drawn alone.
    #[must_use]
    pub fn of_index(index: TensorView<'a, 1>) -> Self {
        Self { index: Some(index), ..Self::none() }
    }
}

/// Words of the operand `key`: a seed, which of the streams that do not overlap, the step of training, and what is added to the ids of rows.
///
/// ```
/// assert_eq!(wgpu_attention::gumbel_softmax::key(1 << 32 | 7, 2, 3, 4), [7, 1, 2, 3, 4]);
/// ```
#[must_use]
pub fn key(seed: u64, stream: u32, step: u32, row_offset: u32) -> [u32; 5] {
    [seed as u32, (seed >> 32) as u32, stream, step, row_offset]
}

op! {
    /// Gumbel-softmax on one device, and sampling by Gumbel-max.
    ///
    /// ```text
    /// g = −log E,   E = −log(1 − v),   v = (x + ½)·2⁻³² rounded to f32, at most 1 − 2⁻²⁴
    /// s = logits + g;   y = softmax(s / τ), or the one-hot of argmax s;   index = argmax s
    /// ```
    ///
    /// The x of four classes 4c to 4c + 3 are the words of one block of Philox4x32-10, with the seed as its key and (c, id + row
    /// offset, stream, step) as its counter. Bits and v are the same on every device, the noise up to its logarithms. Seeds, streams
    /// and steps lie in a tensor: a plan serves all of them. Of equal scores the lowest column wins.
    ///
    /// ```no_run
    /// use wgpu_attention::{
    ///     Context, GumbelSoftmax, GumbelSoftmaxConfig, GumbelSoftmaxInputs, GumbelSoftmaxOutputs, TensorView, gumbel_softmax,
    /// };
    /// # fn record(context: &Context, encoder: &mut wgpu::CommandEncoder,
    /// #     [logits, key, y]: [&wgpu::Buffer; 3]) -> wgpu_attention::Result<()> {
    /// let draw = GumbelSoftmax::new(context, GumbelSoftmaxConfig::new().tau(0.5))?;
    /// context.queue().write_buffer(key, 0, bytemuck::cast_slice(&gumbel_softmax::key(42, 0, 17, 0)));
    /// draw.record(
    ///     encoder,
    ///     GumbelSoftmaxInputs::new(
    ///         TensorView::f32(logits, [512, 1000]),
    ///         TensorView::new(key, wgpu_attention::DType::U32, [5]),
    ///     ),
    ///     GumbelSoftmaxOutputs::new(TensorView::f32(y, [512, 1000])),
    /// )?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Source
    /// Jang, Gu and Poole, "Categorical Reparameterization with Gumbel-Softmax", 2017, equations 1 and 2; Maddison, Mnih and Teh, "The
    /// Concrete Distribution", 2017. Bits: Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011.
    pub struct GumbelSoftmax: GumbelSoftmaxConfig, GumbelSoftmaxShapes, GumbelSoftmaxInputs => GumbelSoftmaxOutputs;
    /// Picks the kernels for contiguous tensors of these shapes and compiles them, with logits and y stored as `dtype`.
    plan;
}
