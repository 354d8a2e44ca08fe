//! The sizes of a matrix product, checked once for the GPU and the CPU twin alike.

use crate::tensor::{expect, expect_rows};
use crate::{Error, Result};

/// The sizes of a batch of matrix products, how its operands lie, and whether there is a bias. m, n and k are at most 2³⁰; rows
/// of a, and columns of b, over the whole batch, at most 2³² − 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MatMulShapes {
    /// Outer batch; 0 is nothing to do.
    pub batch: u32,
    /// Inner batch; 0 is nothing to do.
    pub heads: u32,
    /// Rows of a and c; 0 is nothing to do.
    pub m: u32,
    /// Columns of b and c; 0 is nothing to do.
    pub n: u32,
    /// Columns of a, rows of b; of 0, the product is 0.
    pub k: u32,
    /// Whether neighbours along m, not k, are neighbours in a's memory.
    pub a_transposed: bool,
    /// Whether neighbours along k, not n, are neighbours in b's memory.
    pub b_transposed: bool,
    /// Whether `bias` is given.
    pub bias: bool,
}

/// No extent is larger, so that a tile beyond the end is still indexed by 32 bits.
const MOST: u32 = 1 << 30;

impl MatMulShapes {
    /// One product of row-major matrices, without a bias.
    #[must_use]
    pub fn new(m: u32, n: u32, k: u32) -> Self {
        Self { batch: 1, heads: 1, m, n, k, a_transposed: false, b_transposed: false, bias: false }
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
        crate::tensor::product([2, self.batch, self.heads, self.m, self.n, self.k])
    }
}

/// The shapes of every tensor of a call.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TensorShapes {
    pub a: [u32; 4],
    pub b: [u32; 4],
    pub bias: Option<[u32; 4]>,
    pub c: Option<[u32; 4]>,
}

impl TensorShapes {
    pub fn check(&self) -> Result<MatMulShapes> {
        let [batch, heads, m, k] = self.a;
        let [b_batch, b_heads, b_k, n] = self.b;
        expect("b", "batch", b_batch, batch, "the batch of a")?;
        expect("b", "heads", b_heads, heads, "the heads of a")?;
        expect("b", "k", b_k, k, "the k of a")?;
        let shapes = MatMulShapes { batch, heads, bias: self.bias.is_some(), ..MatMulShapes::new(m, n, k) };
        shapes.check()?;
        for (tensor, shape) in [("bias", self.bias), ("c", self.c)] {
            let Some(shape) = shape else { continue };
            for (axis, (name, expected)) in
                [("batch", batch), ("heads", heads), ("m", m), ("n", n)].into_iter().enumerate()
            {
                expect(tensor, name, shape[axis], expected, "as a and b have it")?;
            }
        }
        Ok(shapes)
    }
}
