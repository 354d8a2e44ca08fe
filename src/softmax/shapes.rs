//! The sizes of a softmax and of its backward pass, checked once for the GPU and the CPU twins alike.

use super::SoftmaxConfig;
use crate::op::shapes;
use crate::tensor::{expect_rows, expect_within};
use crate::{Error, Result};

shapes! {
    /// The sizes of a softmax, and which optional tensors it has.
    pub struct SoftmaxShapes {
        /// Rows; 0 is nothing to do.
        rows: u32 = "rows",
        /// Columns of a row, 1 to 2³⁰.
        columns: u32 = "columns",
        /// Whether `mask` is given.
        mask: bool = "mask",
        /// How many numbers `row_scale` has, if it is given: one, or one a row.
        row_scale: Option<u32> = "scales",
        /// How many numbers `alpha` has, if it is given: one, or one a row.
        alpha: Option<u32> = "alphas",
        /// Whether `labels` is given.
        labels: bool = "labels",
        /// Whether `lse` is asked for.
        lse: bool = "lse",
        /// Whether `entropy` is asked for.
        entropy: bool = "entropy",
        /// Whether `loss` is asked for.
        loss: bool = "loss",
        /// Whether `support` is asked for.
        support: bool = "support",
    }
}

shapes! {
    /// The sizes of a softmax's backward pass, and which optional tensors it has.
    pub struct SoftmaxBackwardShapes {
        /// Rows; 0 is nothing to do, but for `drow_scale` of one number, which is then 0.
        rows: u32 = "rows",
        /// Columns of a row, 1 to 2³⁰.
        columns: u32 = "columns",
        /// Whether `mask` is given.
        mask: bool = "mask",
        /// How many numbers `row_scale` has, if it is given: one, or one a row.
        row_scale: Option<u32> = "scales",
        /// How many numbers `alpha` has, if it is given: one, or one a row.
        alpha: Option<u32> = "alphas",
        /// Whether `labels` is given.
        labels: bool = "labels",
        /// Whether `dp` is given.
        dp: bool = "dp",
        /// Whether `dlse` is given.
        dlse: bool = "dlse",
        /// Whether `dentropy` is given.
        dentropy: bool = "dentropy",
        /// Whether `dloss` is given.
        dloss: bool = "dloss",
        /// Whether `dx` is asked for.
        dx: bool = "dx",
        /// Whether `drow_scale` is asked for.
        drow_scale: bool = "drow_scale",
        /// Whether `dalpha` is asked for.
        dalpha: bool = "dalpha",
    }
}

/// The widest row: indices of columns, and of those a step further, stay within 32 bits.
const MAX_COLUMNS: u32 = 1 << 30;

/// Refuses sizes that do not fit together or the kernels.
pub(super) fn check(
    config: &SoftmaxConfig,
    [rows, columns]: [u32; 2],
    [scales, alphas]: [Option<u32>; 2],
) -> Result<()> {
    expect_within("x", "columns", columns, 1..=MAX_COLUMNS)?;
    expect_rows("x", [rows, 1, 1])?;
    for (tensor, axis, count) in [("row_scale", "scales", scales), ("alpha", "alphas", alphas)] {
        if let Some(got) = count.filter(|&got| got != 1 && got != rows) {
            let expected = format!("1, or {rows} (the rows of x)");
            return Err(Error::Shape { tensor, axis, expected, got: got.into() });
        }
    }
    match config.kind.top_k() {
        Some(k) => expect_within("x", "columns", columns, k..=MAX_COLUMNS),
        None => Ok(()),
    }
}

impl SoftmaxShapes {
    /// Rows of so many columns, nothing optional.
    #[must_use]
    pub fn new(rows: u32, columns: u32) -> Self {
        Self { rows, columns, ..Self::default() }
    }

    /// Whether there is nothing to compute.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }
}

impl SoftmaxBackwardShapes {
    /// From the gradient of p of so many rows and columns to that of x, nothing else.
    #[must_use]
    pub fn new(rows: u32, columns: u32) -> Self {
        Self { rows, columns, dp: true, dx: true, ..Self::default() }
    }

    /// Whether there is nothing to compute.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let sums = self.drow_scale && self.row_scale == Some(1) || self.dalpha && self.alpha == Some(1);
        self.rows == 0 && !sums
    }
}
