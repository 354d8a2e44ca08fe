//! The gradients of margin softmax.

mod kernels;
mod plan;
pub mod reference;

#[doc(hidden)]
pub use kernels::specializations;

use super::MarginSoftmaxConfig;
use crate::op::{op, shapes};
use crate::operand::{Fill, operands};

operands! {
    /// The tensors that the backward pass reads: those of the loss, what it saved, and the gradients of its results.
    ///
    /// | field | shape | dtype | |
    /// |---|---|---|---|
    /// | `features` … `sampled` | | | as [`MarginSoftmaxInputs`](crate::MarginSoftmaxInputs) has them |
    /// | `lse`, `others` | `[rows]` | f32 | as the loss wrote them; NaN in a row that is broken |
    /// | `entropy` | `[rows]` | f32 | the same, where `dentropy` is given |
    /// | `dloss` | `[rows]`, or `[1]` if reduced | f32 | the gradient of the loss |
    /// | `dlse`, `dentropy` | `[rows]` | f32 | those of the other results |
    MarginSoftmaxBackwardInputs {
        /// What every call has.
        pub fn new(features: 2, weights: list 2, labels: index 1, lse: 1, others: 1, dloss: 1);
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
        /// Log-sum-exp of each row's logits.
        lse: required statistic ["rows"].filled(Fill::Constant(200.0));
        /// How far the other classes are above each row's own.
        others: required statistic ["rows"].filled(Fill::Constant(9.0));
        /// The entropy of each row's softmax.
        entropy: optional statistic ["rows"];
        /// The gradient of the loss.
        dloss: required statistic ["losses"];
        /// The gradient of each row's lse.
        dlse: optional statistic ["rows"];
        /// The gradient of each row's entropy.
        dentropy: optional statistic ["rows"];
    }
    /// The gradients, of which at least one is given.
    ///
    /// | field | shape | dtype | |
    /// |---|---|---|---|
    /// | `dfeatures` | `[rows, dim]` | float | |
    /// | `dweights` | `[class_rows, dim]` | float | a list of as many tensors as the class weights are, each as long as its own |
    /// | `dbias` | `[classes]` | float | where there is a bias |
    ///
    /// Sums are f32, always in the same order, and rounded once. Through a norm of 0 the gradient is 0. Of a broken row (see
    /// [`MarginSoftmaxInputs`](crate::MarginSoftmaxInputs)) `dfeatures` is NaN, and it adds nothing to the others; a class weight that
    /// is NaN gets none. A row without a label has those gradients alone that come through `dlse` and `dentropy`. Of classes that are
    /// not listed in `sampled`, `dweights` and `dbias` are 0.
    MarginSoftmaxGradients {
        /// No gradient yet.
        pub fn none();
        /// Of the features.
        dfeatures: optional float ["rows", "dim"];
        /// Of the class weights.
        dweights: optional_list float ["class_rows", "dim"];
        /// Of the bias.
        dbias: optional float ["classes"];
    }
    /// The inputs in host memory; see [`MarginSoftmaxBackwardInputs`] for shapes. The class weights are one tensor here, and what the
    /// loss saved is computed again.
    HostInputs {}
}

shapes! {
    /// The sizes of a backward pass, and which optional tensors there are.
    pub struct MarginSoftmaxBackwardShapes {
        /// Rows, at most 2³⁰; of 0, gradients of class weights and bias are 0.
        rows: u32 = "rows",
        /// Rows of the class weights: the centres of all classes; 1 to 2³⁰.
        class_rows: u32 = "class_rows",
        /// Numbers in a row of features; 1 to 65536.
        dim: u32 = "dim",
        /// Whether there is a `bias`.
        bias: bool = "bias",
        /// Whether there are `class_weights`.
        class_weights: bool = "class_weights",
        /// Whether there are `class_margins`.
        class_margins: bool = "class_margins",
        /// Whether there are `row_margins`.
        row_margins: bool = "row_margins",
        /// How many classes are listed to take part, if not all do; 1 to all.
        sampled: Option<u32> = "sampled",
        /// Whether there is an `entropy`.
        entropy: bool = "entropy",
        /// Whether a gradient of lse comes in.
        dlse: bool = "dlse",
        /// Whether one of the entropy comes in.
        dentropy: bool = "dentropy",
        /// Whether the gradient of features is wanted; it is where no other is.
        dfeatures: bool = "dfeatures",
        /// Whether that of class weights is wanted.
        dweights: bool = "dweights",
        /// Whether that of the bias is wanted.
        dbias: bool = "dbias",
    }
}

impl MarginSoftmaxBackwardShapes {
    /// The gradients of features and class weights.
    #[must_use]
    pub fn new(rows: u32, class_rows: u32, dim: u32) -> Self {
        Self { rows, class_rows, dim, dfeatures: true, dweights: true, ..Self::default() }
    }

    /// Of no rows there are still gradients of class weights.
    #[expect(clippy::unused_self, reason = "as other sizes have it")]
    pub(crate) fn is_empty(&self) -> bool {
        false
    }
}

op! {
    /// The gradients of [`MarginSoftmax`](crate::MarginSoftmax) with respect to features, class weights and bias.
    ///
    /// ```text
    /// dl_j = g v_t (p_j (1 + 2 ζ lse) − ε / C − (1 − ε) [j = t]) + p_j dlse − p_j (log p_j + H) dH
    /// dc_j = s dl_j for j ≠ t,   dc_t = s ψ′(c_t) dl_t,   db_j = Σ dl_j over rows
    /// df = (a − f̂ (f̂ · a)) / |f| for a = Σ dc_j ŵ_j,   and so dw over rows
    /// ```
    ///
    /// g is the row's `dloss`, or the one of all rows, and of a mean over the sum of the weights of rows that have a label. p_t − 1 is
    /// −σ(others), so that it does not cancel. Of several centres the one whose cosine is the largest has the gradient, the first of
    /// equals. Where norms are not gone through ([`MarginSoftmaxConfig::through_norm`]), df is a; where they are not divided out, the
    /// same without hats.
    ///
    /// Two derivatives have no bound: that of cos(m₁θ + m₂) at θ = 0 and π, and that of √(1 − c) at c = 1. 1 − c² and 1 − c count as
    /// at least 10⁻⁶ there, and where c, not being a cosine, is further outside, neither root changes.
    ///
    /// The logits are made again, in chunks; [`GradientForm`](super::GradientForm) says how often. The workspace does not depend on the
    /// number of classes, and by [`Recompute`](super::GradientForm::Recompute) not on that of rows either. Where the device has no room
    /// for that of [`Workspace`](super::GradientForm::Workspace), products are made again too.
    ///
    /// # Errors
    /// Of [`prepare`](Self::prepare): no gradient at all; that of a bias that is not given; `dweights` divided in another way than
    /// `weights`; `dentropy` without `entropy`.
    ///
    /// # Source
    /// As [`MarginSoftmax`](crate::MarginSoftmax).
    pub struct MarginSoftmaxBackward:
        MarginSoftmaxConfig, MarginSoftmaxBackwardShapes, MarginSoftmaxBackwardInputs => MarginSoftmaxGradients;
    /// Picks the kernels for contiguous tensors of these shapes, floats stored as `dtype`, and compiles them; class weights that one
    /// binding does not hold are taken to come in as few as hold them.
    plan;
}
