//! Margin softmax: cross-entropy over the cosines of features and class weights, the target's made worse by a margin.

pub mod backward;
mod chunks;
mod config;
mod kernels;
mod plan;
pub mod reference;
mod shapes;

pub use backward::{
    MarginSoftmaxBackward, MarginSoftmaxBackwardInputs, MarginSoftmaxBackwardShapes, MarginSoftmaxGradients,
};
pub use config::{Arc, GradientForm, Margin, MarginSoftmaxConfig};
#[doc(hidden)]
pub use kernels::specializations;
pub use shapes::MarginSoftmaxShapes;

use crate::Reduction;
use crate::op::op;
use crate::operand::{Fill, operands};

operands! {
    /// The tensors that the loss reads.
    ///
    /// | field | shape | dtype | |
    /// |---|---|---|---|
    /// | `features` | `[rows, dim]` | float | |
    /// | `weights` | `[class_rows, dim]` | float | a list of tensors that are one along the classes, each of whole classes and in a binding of its own; the centres of class j are the rows from j · centres on |
    /// | `labels` | `[rows]` | u32 | the class of each row; `u32::MAX` is none |
    /// | `bias` | `[classes]` | float | added to the logits |
    /// | `class_weights` | `[classes]` | float | factors of the losses of rows, by their labels; finite |
    /// | `class_margins` | `[classes]` | float | in place of the m of [`Margin::Cosine`], [`Margin::Angular`] or [`Margin::Metric`], by a row's label |
    /// | `row_margins` | `[rows]` | float | the same by the row |
    /// | `sampled` | `[sampled]` | u32 | the classes that take part, in ascending order, each once; without it all do |
    ///
    /// `classes` is `class_rows` over [`MarginSoftmaxConfig::centres`]. Norms lie between 10⁻¹⁸ and 10¹⁸, their products not below
    /// 10⁻³⁰; or they are 0: the cosines of such a row or class are 0.
    ///
    /// NaN in a row of features, or in any class weight or bias, comes out of the rows whose logits it is in; so do logits that are
    /// infinite, and the weight or margin of a row's class that is NaN, or an angle outside [0, π]. WGSL lets a driver assume that
    /// there is none; those on which this is tested do not.
    ///
    /// With `sampled`, the loss is that of the listed classes as if there were no others, and the C of label smoothing is their number.
    /// The caller lists the classes of the batch's labels: one that is not listed is a label that is no class. A number that is no
    /// class counts as a class weight that is NaN. In another order some labels may not be found, a class that is listed twice counts
    /// twice, and which of its gradients is kept is not said.
    ///
    /// A float is f32, f16 or bf16, of each tensor as its caller likes; sums are f32.
    MarginSoftmaxInputs {
        /// Features, class weights and labels.
        pub fn new(features: 2, weights: list 2, labels: index 1);
        /// Features.
        features: required float ["rows", "dim"];
        /// Class weights.
        weights: list float ["class_rows", "dim"];
        /// The class of each row.
        labels: required index ["rows"];
        /// What is added to each class's logit.
        bias: optional float ["classes"];
        /// How much the rows of each class count.
        class_weights: optional float ["classes"].without_gradient().filled(Fill::Positive);
        /// The margin of each class.
        class_margins: optional float ["classes"].without_gradient().filled(Fill::Constant(0.25));
        /// The margin of each row.
        row_margins: optional float ["rows"].without_gradient().filled(Fill::Constant(0.25));
        /// The classes that take part.
        sampled: optional index ["sampled"];
    }
    /// The tensors that the loss writes.
    ///
    /// | field | shape | dtype | |
    /// |---|---|---|---|
    /// | `loss` | `[rows]`, or `[1]` if reduced | f32 | nats |
    /// | `lse` | `[rows]` | f32 | log-sum-exp of the row's logits, natural log |
    /// | `entropy` | `[rows]` | f32 | of their softmax, in nats |
    /// | `predicted` | `[rows]` | u32 | the class of the largest logit without a margin, the first of equals; `u32::MAX` where one is NaN |
    /// | `others` | `[rows]` | f32 | log-sum-exp of the logits of all but the row's class, less that of its class: 1 − p_t is σ(others), however small; −∞ where there is no other class, or no label |
    /// | `logits` | `[rows, classes]` | float | without a margin, for inference; the one tensor that is so large; not with `sampled` |
    ///
    /// A row whose label is none has loss 0, and the lse and the entropy of logits without a margin; in the mean it does not count.
    /// A label that is no class makes the row's loss, lse, entropy and others NaN, and the mean and the sum with them.
    MarginSoftmaxOutputs {
        /// The loss alone.
        pub fn new(loss: 1);
        /// The loss.
        loss: required statistic ["losses"];
        /// Log-sum-exp of each row's logits.
        lse: optional statistic ["rows"];
        /// The entropy of their softmax.
        entropy: optional statistic ["rows"];
        /// The class of each row's largest logit.
        predicted: optional index ["rows"];
        /// How far the other classes are above each row's own.
        others: optional statistic ["rows"];
        /// Every logit.
        logits: optional float ["rows", "classes"];
    }
    /// The inputs of the loss in host memory; see [`MarginSoftmaxInputs`] for shapes. The class weights are one tensor here.
    HostInputs {}
}

op! {
    /// Margin softmax on one device.
    ///
    /// ```text
    /// c_j = max over the centres w of class j of f · w / (|f| |w|)
    /// l_j = s c_j + b_j for j ≠ t,   l_t = s ψ(c_t) + b_t,   lse = log Σ exp l_j
    /// loss = v_t ((1 − ε) (lse − l_t) + ε (lse − mean l) + ζ lse²)
    /// ```
    ///
    /// t is the row's label, ψ the [`Margin`], b the bias and v the class weights, ε the label smoothing and ζ the factor of the z-loss.
    /// The product is made in chunks of rows and classes, by the kernels of [`MatMul`](crate::MatMul): nothing of the size rows ×
    /// classes is stored, and the workspace does not depend on the number of classes. The target's logit is no term of the others'
    /// sum, so that neither a loss near 0 nor a large common offset cancels: lse − l_t = log(1 + exp others).
    ///
    /// With [`MarginSoftmaxConfig::normalize`] off and no margin this is the cross-entropy of a linear layer without its logits. Over a
    /// list of [`sampled`](MarginSoftmaxInputs::sampled) classes it is PartialFC's loss: chunks of their weights are copied together, and
    /// work goes with the length of the list.
    ///
    /// ```no_run
    /// use wgpu_attention::margin_softmax::Margin;
    /// use wgpu_attention::{Context, DType, MarginSoftmax, MarginSoftmaxConfig, MarginSoftmaxInputs, MarginSoftmaxOutputs, TensorView};
    /// # fn record(device: wgpu::Device, queue: wgpu::Queue, encoder: &mut wgpu::CommandEncoder,
    /// #     [features, first, second, labels, loss]: [&wgpu::Buffer; 5]) -> wgpu_attention::Result<()> {
    /// let context = Context::new(device, queue);
    /// let config = MarginSoftmaxConfig::new().margin(Margin::Cosine { m: 0.35 }).scale(30.0);
    /// let op = MarginSoftmax::new(&context, config)?;
    /// // 100 000 classes in two buffers.
    /// let weights = [TensorView::f32(first, [60_000, 512]), TensorView::f32(second, [40_000, 512])];
    /// let labels = TensorView::new(labels, DType::U32, [256]);
    /// op.record(
    ///     encoder,
    ///     MarginSoftmaxInputs::new(TensorView::f32(features, [256, 512]), &weights, labels),
    ///     MarginSoftmaxOutputs::new(TensorView::f32(loss, [256])),
    /// )?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Source
    /// Wang and others, "Additive Margin Softmax for Face Verification", 2018, equation 6, and kexue.fm/archives/5743; Deng and others,
    /// "ArcFace", 2019, equations 3 and 4; Liu and others, "SphereFace", 2017, equation 7; kexue.fm/archives/8656. The loss without
    /// logits: Wijmans and others, "Cut Your Losses in Large-Vocabulary Language Models", 2024. Listed classes: An and others, "Killing
    /// Two Birds with One Stone: Efficient and Robust Training of Face Recognition CNNs by Partial FC", 2022.
    pub struct MarginSoftmax: MarginSoftmaxConfig, MarginSoftmaxShapes, MarginSoftmaxInputs => MarginSoftmaxOutputs;
    /// Picks the kernels for contiguous tensors of these shapes, floats stored as `dtype`, and compiles them; class weights that one
    /// binding does not hold are taken to come in as few as hold them.
    plan;
}
