//! Softmax and log-softmax of rows, with every entropy-invariant scale, log-sum-exp and entropy; and what flows back through it.

pub mod backward;
mod config;
mod kernels;
mod plan;
pub mod reference;
mod shapes;
mod sparse;

pub use backward::{SoftmaxBackward, SoftmaxBackwardInputs, SoftmaxGradients};
pub use config::{SoftmaxConfig, SoftmaxKind, SoftmaxScale};
#[doc(hidden)]
pub use kernels::specializations;
pub use shapes::{SoftmaxBackwardShapes, SoftmaxShapes};

use crate::op::op;
use crate::operand::{Fill, operands};

operands! {
    /// The tensors that a softmax reads.
    ///
    /// | field | shape | dtype | |
    /// |---|---|---|---|
    /// | `x` | `[rows, columns]` | float | −∞ is a column of p = 0, which n counts |
    /// | `mask` | `[rows, columns]` | bool | false: the column has p = 0, whatever x holds there, and n does not count it |
    /// | `row_scale` | `[rows]` or `[1]` | float | a factor of the scale, of either sign |
    /// | `alpha` | `[rows]` or `[1]` | float | α of an entmax, in place of the config's; a row whose α is not above 1 and at most 2 is NaN |
    /// | `labels` | `[rows]` | u32 | the column of each row's label: required with `loss` |
    ///
    /// Rows of more axes than one are a view where one stride steps through them; where none does, the caller calls once for each of
    /// the outermost. A row stride of 0 repeats a row of x or of the mask.
    ///
    /// NaN that a row sees in x, or in its row_scale, makes all that the row sees NaN, its lse and its entropy too; so does +∞ by a scale above 0, by one below it counts as the lowest score. Other
    /// rows do not notice. WGSL lets a driver assume that there is none; those on which this is tested do not. Scaled
    /// scores are to lie below 10³⁸; what lies below −10³⁸ counts as that, so that masks made of the lowest float leave a softmax.
    SoftmaxInputs {
        /// Rows, and nothing optional.
        pub fn new(x: 2);
        /// Scores.
        x: required float ["rows", "columns"];
        /// Boolean mask, true where a column takes part.
        mask: optional mask ["rows", "columns"].broadcast();
        /// A factor of the scale for each row, or one for all.
        row_scale: optional float ["scales"].planned_as_f32().filled(Fill::Constant(1.0));
        /// α of an entmax.
        alpha: optional float ["alphas"].planned_as_f32().filled(Fill::Constant(1.5));
        /// The column of each row's label.
        labels: optional index ["rows"];
    }
    /// The tensors that a softmax writes.
    ///
    /// | field | shape | dtype | |
    /// |---|---|---|---|
    /// | `p` | `[rows, columns]` | float | or log p, by [`SoftmaxConfig::log`]; p is 0, log p −∞, in a column that takes no part |
    /// | `lse` | `[rows]` | f32 | natural log, of the scaled scores; −∞ in a row without a column |
    /// | `entropy` | `[rows]` | f32 | −Σ p log p in nats, where 0 log 0 is 0; 0 in a row without a column |
    /// | `loss` | `[rows]` | f32 | the Fenchel-Young loss of a softmax, a sparsemax or an entmax: ⟨p − y, s⟩ + (1 − Σ p^α)/(α(α−1)), y 1 at the label and 0 elsewhere, s the scaled scores; of a softmax lse − s_y |
    /// | `support` | `[rows]` | u32 | how many p of a sparsemax or an entmax are above 0; 0 in a row that is NaN |
    ///
    /// Sparsemax and entmax have no `lse`: of their scores no exponential is summed. The loss of a label that is `u32::MAX` is 0, of one that is no
    /// column NaN, and of one whose column takes no part +∞. Top-k and Taylor softmax have no loss here.
    ///
    /// A float is f32, f16 or bf16: rounded to nearest even, once, from f32. No output may lie in a buffer of an input, even beside it.
    SoftmaxOutputs {
        /// p alone.
        pub fn new(p: 2);
        /// p, or log p.
        p: required float ["rows", "columns"];
        /// Log-sum-exp of each row's scaled scores.
        lse: optional statistic ["rows"];
        /// Entropy of each row's p.
        entropy: optional statistic ["rows"];
        /// Fenchel-Young loss of each row's label.
        loss: optional statistic ["rows"];
        /// How many p of each row are above 0.
        support: optional index ["rows"];
    }
    /// The inputs of a softmax in host memory; see [`SoftmaxInputs`] for shapes.
    HostInputs {}
}

op! {
    /// The softmax of rows on one device.
    ///
    /// ```text
    /// s_j = λ x_j;   lse = log Σ exp s_j;   log p_j = s_j − lse;   entropy = −Σ p_j log p_j
    /// ```
    ///
    /// Of another [`SoftmaxKind`], exp is another function. λ is what the [`SoftmaxScale`] says, times `row_scale`, and the sums are over the columns that take part. A row of at most 4096
    /// columns is read once, a longer one twice, of a sparsemax or an entmax eight times; of a top-k softmax six to eight times more, for each byte of a score and of
    /// a column's number; p is written once. Few long rows are split over workgroups.
    ///
    /// ```no_run
    /// use wgpu_attention::{Context, Softmax, SoftmaxConfig, SoftmaxInputs, SoftmaxOutputs, SoftmaxScale, TensorView};
    /// # fn record(device: wgpu::Device, queue: wgpu::Queue, encoder: &mut wgpu::CommandEncoder,
    /// #     [x, p, entropy]: [&wgpu::Buffer; 3]) -> wgpu_attention::Result<()> {
    /// let context = Context::new(device, queue);
    /// let softmax = Softmax::new(&context, SoftmaxConfig::new().scale(SoftmaxScale::Temperature(0.7)))?;
    /// let shape = [32, 50_257];
    /// let mut outputs = SoftmaxOutputs::new(TensorView::f32(p, shape));
    /// outputs.entropy = Some(TensorView::f32(entropy, [32]));
    /// softmax.record(encoder, SoftmaxInputs::new(TensorView::f32(x, shape)), outputs)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Source
    /// Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018, section 3; of the scales, see [`SoftmaxScale`].
    pub struct Softmax: SoftmaxConfig, SoftmaxShapes, SoftmaxInputs => SoftmaxOutputs;
    /// Picks the kernels for contiguous tensors of these shapes and compiles them, with x and p stored as `dtype`.
    plan;
}
