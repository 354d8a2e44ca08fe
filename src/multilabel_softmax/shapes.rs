//! The sizes of the multi-label loss, checked once for the GPU and the CPU twin alike.

use crate::op::shapes;
use crate::tensor::expect_within;
use crate::{Error, Result};

use super::{MultilabelSoftmaxConfig, Threshold};

shapes! {
    /// The sizes of a loss, and which optional tensors there are besides those that the config names.
    pub struct MultilabelSoftmaxShapes {
        /// Rows, at most 2³⁰; 0 is nothing to do.
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
        /// Whether `lse_neg` and `lse_pos` are wanted.
        lse: bool = "lse_neg",
        /// Whether `predictions` are wanted.
        predictions: bool = "predictions",
        /// Whether `probabilities` are wanted.
        probabilities: bool = "probabilities",
    }
}

const MOST: u32 = 1 << 30;

impl MultilabelSoftmaxShapes {
    /// The loss of so many rows, with one threshold.
    #[must_use]
    pub fn new(rows: u32, classes: u32) -> Self {
        Self { rows, classes, thresholds: 1, ..Self::default() }
    }

    /// Whether there is nothing to compute.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }
}

/// Refuses sizes that no kernel takes.
pub(super) fn check(config: &MultilabelSoftmaxConfig, rows: u32, classes: u32, thresholds: u32) -> Result<()> {
    if rows > MOST {
        return Err(Error::LimitExceeded { what: "scores: rows".into(), needed: rows.into(), limit: MOST.into() });
    }
    expect_within("scores", "classes", classes, 1..=MOST)?;
    if config.threshold == Threshold::Tensor && thresholds != 1 && thresholds != classes {
        let expected = format!("1 or {classes} (the classes of scores)");
        return Err(Error::Shape { tensor: "threshold", axis: "thresholds", expected, got: thresholds.into() });
    }
    Ok(())
}
