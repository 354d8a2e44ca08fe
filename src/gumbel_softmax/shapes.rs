//! The sizes of Gumbel-softmax and of its backward pass, checked once for the GPU and the CPU twins alike.

use super::GumbelSoftmaxConfig;
use crate::op::shapes;
use crate::tensor::expect_within;
use crate::{Error, Result};

shapes! {
    /// The sizes of Gumbel-softmax and which optional tensors it has. Whether there is a y, the config says.
    pub struct GumbelSoftmaxShapes {
        /// Distributions, at most 2³⁰; 0 is nothing to do.
        rows: u32 = "rows",
        /// Classes, 1 to 2³⁰.
        columns: u32 = "columns",
        /// Whether `mask` is given.
        mask: bool = "mask",
        /// Numbers in `tau`, if that is given: 1, or one a row.
        taus: Option<u32> = "taus",
        /// Whether `seeds` is given.
        seeds: bool = "seeds",
        /// Whether `row_ids` is given.
        row_ids: bool = "row_ids",
        /// Whether `index` is asked for, besides y; a sample is nothing else.
        index: bool = "index",
        /// Whether `noise` is asked for.
        noise: bool = "noise",
    }
}

shapes! {
    /// The sizes of the backward pass of Gumbel-softmax and which optional tensors it has.
    pub struct GumbelSoftmaxBackwardShapes {
        /// Distributions, at most 2³⁰; 0 is nothing to do, but for a `dtau` of one number, which has no rows to come from then.
        rows: u32 = "rows",
        /// Classes, 1 to 2³⁰.
        columns: u32 = "columns",
        /// Whether `mask` is given.
        mask: bool = "mask",
        /// Numbers in `tau`, if that is given: 1, or one a row.
        taus: Option<u32> = "taus",
        /// Whether `seeds` is given.
        seeds: bool = "seeds",
        /// Whether `row_ids` is given.
        row_ids: bool = "row_ids",
        /// Whether `dlogits` is asked for.
        dlogits: bool = "dlogits",
        /// Whether `dtau` is asked for.
        dtau: bool = "dtau",
    }
}

/// More rows than this no buffer holds, and indices of workgroups stay within 32 bits.
const MOST_ROWS: u32 = 1 << 30;
/// More columns than this no buffer holds, and the first past a row's end stays within 32 bits.
const MOST_COLUMNS: u32 = 1 << 30;

impl GumbelSoftmaxShapes {
    /// So many rows of so many classes, nothing optional.
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

impl GumbelSoftmaxBackwardShapes {
    /// So many rows of so many classes, nothing optional but dlogits.
    #[must_use]
    pub fn new(rows: u32, columns: u32) -> Self {
        Self { rows, columns, dlogits: true, ..Self::default() }
    }

    /// Whether there is nothing to compute.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }
}

pub(super) fn check(config: &GumbelSoftmaxConfig, rows: u32, columns: u32, taus: Option<u32>) -> Result<()> {
    expect_within("logits", "rows", rows, 0..=MOST_ROWS)?;
    expect_within("logits", "columns", columns, 1..=MOST_COLUMNS)?;
    if let Some(k) = config.top_k {
        expect_within("logits", "columns", columns, k..=MOST_COLUMNS)?;
    }
    match taus {
        Some(taus) if taus != 1 && taus != rows => {
            let expected = format!("1, or {rows} (the rows of logits)");
            Err(Error::Shape { tensor: "tau", axis: "taus", expected, got: taus.into() })
        }
        _ => Ok(()),
    }
}
