//! The loss of softmax and cross-entropy for many labels a row, from hard or soft labels, and what it predicts.

pub mod backward;
mod config;
mod kernels;
mod plan;
pub mod reference;
mod shapes;

pub use backward::{
    MultilabelSoftmaxBackward, MultilabelSoftmaxBackwardInputs, MultilabelSoftmaxBackwardShapes,
    MultilabelSoftmaxGradients,
};
pub use config::{Labels, MultilabelSoftmaxConfig, Threshold};
#[doc(hidden)]
pub use kernels::specializations;
pub use shapes::MultilabelSoftmaxShapes;

use crate::Reduction;
use crate::TensorView;
use crate::op::op;
use crate::operand::{Fill, operands};

operands! {
    /// The tensors that the loss reads: the scores, and of the labels what [`Labels`] names.
    ///
    /// | field | shape | dtype | |
    /// |---|---|---|---|
    /// | `scores` | `[rows, classes]` | float | any real numbers; those beyond ±10³⁷ count as ±10³⁷, and so do infinities |
    /// | `labels` | `[rows, classes]` | bool | [`Labels::Bitmap`]: zero is a negative class |
    /// | `label_indices` | `[rows, width]` | u32 | [`Labels::Indices`]: the positive classes in any order, `u32::MAX` is none |
    /// | `label_list` | `[listed]` | u32 | [`Labels::Offsets`]: the positive classes of all rows, one row after the other |
    /// | `label_offsets` | `[rows + 1]` | u32 | [`Labels::Offsets`]: row r's are those from offset r to offset r + 1 |
    /// | `soft_labels` | `[rows, classes]` | float | [`Labels::Soft`]: 0 to 1; below 2⁻¹¹⁵ counts as 0 |
    /// | `mask` | `[rows, classes]` | bool | zero leaves the class out of the row, whatever its score and label hold |
    /// | `threshold` | `[1]` or `[classes]` | float | given if and only if the config has [`Threshold::Tensor`] |
    ///
    /// NaN in a score or in its threshold, a soft label that is NaN or outside of 0 to 1, an index that is neither below `classes` nor
    /// `u32::MAX`, and offsets that fall or pass the list's end make the row's loss, its logarithms and its gradients NaN, and those of no
    /// other row; a loss reduced over rows is then NaN too.
    ///
    /// A float is f32, f16 or bf16, of each tensor as its caller likes; sums are f32.
    MultilabelSoftmaxInputs {
        /// The scores, and no labels yet.
        pub fn new(scores: 2);
        /// Scores.
        scores: required float ["rows", "classes"];
        /// Hard labels, a byte a class.
        labels: optional mask ["rows", "classes"];
        /// Hard labels, the positive classes of each row.
        label_indices: optional index ["rows", "width"];
        /// Hard labels, the positive classes of all rows.
        label_list: optional index ["listed"];
        /// Where each row's begin in the list, and the list's end.
        label_offsets: optional lengths ["offsets"];
        /// Soft labels.
        soft_labels: optional float ["rows", "classes"].filled(Fill::Constant(0.25));
        /// Which classes take part.
        mask: optional mask ["rows", "classes"];
        /// What a score must pass to be positive.
        threshold: optional float ["thresholds"];
    }
    /// The tensors that the loss writes.
    ///
    /// | field | shape | dtype | |
    /// |---|---|---|---|
    /// | `loss` | `[rows]`, or `[1]` if reduced | f32 | nats; required with labels |
    /// | `lse_neg`, `lse_pos` | `[rows]` | f32 | the two logarithms that the loss is the sum of; both or neither; backward reads them |
    /// | `predictions` | `[rows, classes]` | float | 1 where the score is above the threshold, or else 0 |
    /// | `probabilities` | `[rows, classes]` | float | σ(2(score − threshold)), what a soft label is at the loss's minimum |
    ///
    /// In a row of which no class takes part the loss is 0, unless its list is broken. With no rows nothing is written. A masked class has a prediction and a probability of 0; where the score
    /// or its threshold is NaN, both are.
    MultilabelSoftmaxOutputs {
        /// No output yet.
        pub fn none();
        /// The loss.
        loss: optional statistic ["losses"];
        /// log(1 + Σ over negative classes).
        lse_neg: optional statistic ["rows"];
        /// log(1 + Σ over positive classes).
        lse_pos: optional statistic ["rows"];
        /// The classes that are predicted.
        predictions: optional float ["rows", "classes"];
        /// How probable each class is.
        probabilities: optional float ["rows", "classes"];
    }
    /// The inputs of the loss in host memory; see [`MultilabelSoftmaxInputs`] for shapes.
    HostInputs {}
}

impl<'a> MultilabelSoftmaxOutputs<'a> {
    /// The loss alone.
    #[must_use]
    pub fn new(loss: TensorView<'a, 1>) -> Self {
        Self { loss: Some(loss), ..Self::none() }
    }

    /// The loss, and `lse_neg` and `lse_pos`, which its backward pass reads.
    #[must_use]
    pub fn saved(loss: TensorView<'a, 1>, lse_neg: TensorView<'a, 1>, lse_pos: TensorView<'a, 1>) -> Self {
        Self { lse_neg: Some(lse_neg), lse_pos: Some(lse_pos), ..Self::new(loss) }
    }
}

op! {
    /// Softmax and cross-entropy for any number of labels a row (ZLPR): scores of positive classes are pushed above a threshold, those
    /// of negative ones below it, each row with the strength of its worst class, so that few positives among many classes need no
    /// weights.
    ///
    /// ```text
    /// x = s − s₀;   lse_neg = log(1 + Σ (1 − t) eˣ);   lse_pos = log(1 + Σ t e⁻ˣ);   loss = lse_neg + lse_pos
    /// ```
    ///
    /// t is 1 for a positive class and 0 for a negative one, or a soft label between them; the threshold s₀ is one number or one a
    /// class. A class is predicted where s > s₀; the minimum of the soft form lies at t = σ(2x), which is hence the probability that a
    /// score stands for. Nothing is subtracted, so that |s| of 10⁴, no positive class and all of them are as exact as any row.
    ///
    /// The divergence of a prediction b from a prediction a is L(σ(2a), b) − L(σ(2a), a), at least 0 and 0 only where they agree: two
    /// calls with [`Labels::Soft`], whose labels are the `probabilities` of a.
    ///
    /// ```no_run
    /// use wgpu_attention::multilabel_softmax::Labels;
    /// use wgpu_attention::{
    ///     Context, DType, MultilabelSoftmax, MultilabelSoftmaxConfig, MultilabelSoftmaxInputs, MultilabelSoftmaxOutputs, TensorView,
    /// };
    /// # fn record(device: wgpu::Device, queue: wgpu::Queue, encoder: &mut wgpu::CommandEncoder,
    /// #     [scores, indices, loss]: [&wgpu::Buffer; 3]) -> wgpu_attention::Result<()> {
    /// let context = Context::new(device, queue);
    /// // Up to 8 of 10 000 classes are right; a row with fewer is padded with u32::MAX.
    /// let op = MultilabelSoftmax::new(&context, MultilabelSoftmaxConfig::new().labels(Labels::Indices))?;
    /// let mut inputs = MultilabelSoftmaxInputs::new(TensorView::f32(scores, [64, 10_000]));
    /// inputs.label_indices = Some(TensorView::new(indices, DType::U32, [64, 8]));
    /// op.record(encoder, inputs, MultilabelSoftmaxOutputs::new(TensorView::f32(loss, [64])))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Of [`prepare`](Self::prepare): labels other than the config names; a threshold where it has none; an output that needs labels
    /// where there are none; no output at all.
    ///
    /// # Source
    /// Su Jianlin, "Softmax plus cross-entropy, generalised to multi-label classification", 2020, kexue.fm/archives/7359; "The soft
    /// version of multi-label softmax plus cross-entropy", 2022, kexue.fm/archives/9064. As ZLPR: Su et al., 2022, arXiv 2208.02955.
    pub struct MultilabelSoftmax: MultilabelSoftmaxConfig, MultilabelSoftmaxShapes, MultilabelSoftmaxInputs => MultilabelSoftmaxOutputs;
    /// Picks the kernels for contiguous tensors of these shapes and compiles them, with all floats stored as `dtype`.
    plan;
}
