//! The sizes of a matrix product, checked once for the GPU and the CPU twin alike.

use crate::op::shapes;
use crate::tensor::{expect_rows, product};
use crate::{Error, Result};

shapes! {
    /// The sizes of a batch of matrix products, how its operands lie, and whether there is a bias, and a gradient of c. m, n and k are
    /// at most 2³⁰; rows of a, and columns of b, over the whole batch, at most 2³² − 1.
    pub struct MatMulShapes {
        /// Outer batch; 0 is nothing to do.
        batch: u32 = "batch",
        /// Inner batch; 0 is nothing to do.
        heads: u32 = "heads",
        /// Rows of a and c; 0 is nothing to do.
        m: u32 = "m",
        /// Columns of b and c; 0 is nothing to do.
        n: u32 = "n",
        /// Columns of a, rows of b; of 0, the product is 0.
        k: u32 = "k",
        /// Whether neighbours along m, not k, are neighbours in a's memory.
        a_transposed: bool = "a transposed",
        /// Whether neighbours along k, not n, are neighbours in b's memory.
        b_transposed: bool = "b transposed",
        /// Whether `bias` is given.
        bias: bool = "bias",
        /// Whether `dc` is given.
        dc: bool = "dc",
    }
    "a" stands transposed: a_transposed;
    "b" stands transposed: b_transposed;
}

/// No extent is larger, so that a tile beyond the end is still indexed by 32 bits.
const MOST: u32 = 1 << 30;

impl MatMulShapes {
    /// One product of row-major matrices, without a bias.
    #[must_use]
    pub fn new(m: u32, n: u32, k: u32) -> Self {
        Self { batch: 1, heads: 1, m, n, k, ..Self::default() }
    }

    /// Whether there is nothing to compute.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        [self.batch, self.heads, self.m, self.n].contains(&0)
    }

    pub(crate) fn check(&self) -> Result<()> {
        expect_rows("a", [self.batch, self.heads, self.m])?;
        expect_rows("b", [self.batch, self.heads, self.n])?;
        for (what, extent) in [("a: m", self.m), ("b: n", self.n), ("a: k", self.k)] {
            if extent > MOST {
                return Err(Error::LimitExceeded { what: what.into(), needed: extent.into(), limit: MOST.into() });
            }
        }
        Ok(())
    }

    /// Two for each multiply-add.
    pub(crate) fn flops(&self) -> u64 {
        product([2, self.batch, self.heads, self.m, self.n, self.k])
    }
}
