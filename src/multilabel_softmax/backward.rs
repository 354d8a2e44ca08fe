//! The gradients of the multi-label loss.

pub(super) mod plan;
pub mod reference;

pub use plan::specializations;

use super::MultilabelSoftmaxConfig;
use crate::op::{op, shapes};
use crate::operand::{Fill, operands};

operands! {
    /// The tensors that the backward pass reads: those of the loss, what it saved, and the gradient of its result.
    ///
    /// | field | shape | dtype | |
    /// |---|---|---|---|
    /// | `scores` … `threshold` | | | as [`MultilabelSoftmaxInputs`](crate::MultilabelSoftmaxInputs) has them |
    /// | `lse_neg`, `lse_pos` | `[rows]` | f32 | as the loss wrote them; NaN in a row that is broken |
    /// | `dloss` | `[rows]`, or `[1]` if reduced | float | the gradient of the loss |
    MultilabelSoftmaxBackwardInputs {
        /// All but labels, mask and threshold.
        pub fn new(scores: 2, lse_neg: 1, lse_pos: 1, dloss: 1);
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
        /// log(1 + Σ over negative classes).
        lse_neg: required statistic ["rows"].filled(Fill::Constant(9.0));
        /// log(1 + Σ over positive classes).
        lse_pos: required statistic ["rows"].filled(Fill::Constant(9.0));
        /// The gradient of the loss.
        dloss: required float ["losses"];
    }
    /// The gradients, of which at least one is given.
    ///
    /// | field | shape | dtype | |
    /// |---|---|---|---|
    /// | `dscores` | `[rows, classes]` | float | 0 in a class that takes no part |
    /// | `dsoft_labels` | `[rows, classes]` | float | with [`Labels::Soft`](super::Labels::Soft); 0 in a class that takes no part |
    /// | `dthreshold` | `[1]` or `[classes]` | float | with [`Threshold::Tensor`](super::Threshold::Tensor); sums over rows, always in the same order |
    ///
    /// A broken row's are NaN but for classes that take no part, and it adds nothing to `dthreshold`.
    MultilabelSoftmaxGradients {
        /// No gradient yet.
        pub fn none();
        /// Of the scores.
        dscores: optional float ["rows", "classes"];
        /// Of soft labels.
        dsoft_labels: optional float ["rows", "classes"];
        /// Of the threshold.
        dthreshold: optional float ["thresholds"];
    }
    /// The inputs in host memory; see [`MultilabelSoftmaxBackwardInputs`] for shapes. The twin computes both logarithms itself.
    HostInputs {}
}

shapes! {
    /// The sizes of a backward pass, and which optional tensors there are besides those that the config names.
    pub struct MultilabelSoftmaxBackwardShapes {
        /// Rows, at most 2³⁰; 0 is nothing to do, and a threshold's gradient then stays as it is.
        rows: u32 = "rows",
        /// Classes of a row; 1 to 2³⁰.
        classes: u32 = "classes",
        /// Indices of a row, of [`Labels::Indices`](super::Labels::Indices).
        width: u32 = "width",
        /// Indices of all rows, of [`Labels::Offsets`](super::Labels::Offsets).
        listed: u32 = "listed",
        /// Numbers of a threshold that is a tensor: 1, or one a class.
        thresholds: u32 = "thresholds",
        /// Whether some classes are masked.
        mask: bool = "mask",
        /// Whether the gradient of scores is wanted; it is where no other is.
        dscores: bool = "dscores",
        /// Whether that of soft labels is wanted.
        dsoft_labels: bool = "dsoft_labels",
        /// Whether that of the threshold is wanted.
        dthreshold: bool = "dthreshold",
    }
}

impl MultilabelSoftmaxBackwardShapes {
    /// The gradient of the scores of so many rows, with one threshold.
    #[must_use]
    pub fn new(rows: u32, classes: u32) -> Self {
        Self { rows, classes, thresholds: 1, dscores: true, ..Self::default() }
    }

    /// Whether there is nothing to compute.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }
}

op! {
    /// The gradients of [`MultilabelSoftmax`](crate::MultilabelSoftmax), with respect to scores, soft labels and threshold.
    ///
    /// ```text
    /// ds = g ((1 − t) e^(x − lse_neg) − t e^(−x − lse_pos));   dt = g (e^(−x − lse_pos) − e^(x − lse_neg));   ds₀ = −Σ ds
    /// ```
    ///
    /// g is the row's `dloss`, or the one of all rows; of a mean, over the number of rows. One threshold's gradient needs no class:
    /// Σ over rows of g (e^−lse_neg − e^−lse_pos). That of a soft label of 0 or 1 grows without bound where the score says the
    /// opposite; exponents above 80 count as 80.
    ///
    /// # Errors
    /// Of [`prepare`](Self::prepare): labels other than the config names; a threshold where it has none; a gradient of what is not
    /// given; no gradient at all. [`new`](Self::new) refuses a config without labels.
    ///
    /// # Source
    /// As [`MultilabelSoftmax`](crate::MultilabelSoftmax).
    pub struct MultilabelSoftmaxBackward:
        MultilabelSoftmaxConfig, MultilabelSoftmaxBackwardShapes, MultilabelSoftmaxBackwardInputs => MultilabelSoftmaxGradients;
    /// Picks the kernels for contiguous tensors of these shapes and compiles them, with all floats stored as `dtype`.
    plan;
}
