//! The sizes of a margin softmax, checked once for the GPU and the CPU twin alike.

use crate::op::shapes;
use crate::tensor::expect_within;
use crate::{Error, Result};

shapes! {
    /// The sizes of a margin softmax, and which optional tensors there are.
    pub struct MarginSoftmaxShapes {
        /// Rows, at most 2³⁰; of 0, a reduced loss is 0.
        rows: u32 = "rows",
        /// Classes; 1 to 2³⁰.
        classes: u32 = "classes",
        /// Numbers in a row of features; 1 to 65536.
        dim: u32 = "dim",
        /// Whether `lse` is wanted.
        lse: bool = "lse",
        /// Whether `entropy` is wanted.
        entropy: bool = "entropy",
        /// Whether `predicted` is wanted.
        predicted: bool = "predicted",
    }
}

/// No extent is larger, so that a tile beyond the end is still indexed by 32 bits.
const MOST: u32 = 1 << 30;
const MAX_DIM: u32 = 1 << 16;

impl MarginSoftmaxShapes {
    /// The loss alone.
    #[must_use]
    pub fn new(rows: u32, classes: u32, dim: u32) -> Self {
        Self { rows, classes, dim, ..Self::default() }
    }

    /// Of no rows there is still the reduced loss.
    #[expect(clippy::unused_self, reason = "as other sizes have it")]
    pub(crate) fn is_empty(&self) -> bool {
        false
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.rows > MOST {
            let what = "features: rows".into();
            return Err(Error::LimitExceeded { what, needed: self.rows.into(), limit: MOST.into() });
        }
        expect_within("weights", "classes", self.classes, 1..=MOST)?;
        expect_within("features", "dim", self.dim, 1..=MAX_DIM)
    }
}
