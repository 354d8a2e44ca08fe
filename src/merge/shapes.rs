//! The sizes of a merge, checked once for the GPU and the CPU twin alike.

use crate::op::shapes;
use crate::tensor::{expect_within, product};
use crate::{Error, Result};

shapes! {
    /// The sizes of a merge, and which optional tensors there are. Rows of o, which are batch · heads · len, are at most 2³⁰.
    pub struct MergeShapes {
        /// Partial results, at most 2³⁰; of 0, rows are those that see no key, or what the outputs hold.
        parts: u32 = "parts",
        /// Batch; 0 is nothing to do.
        batch: u32 = "batch",
        /// Query heads; 0 is nothing to do.
        heads: u32 = "heads",
        /// Tokens; 0 is nothing to do.
        len: u32 = "len",
        /// Numbers in a row of o; 1 to 65536.
        v_dim: u32 = "v_dim",
        /// Whether the merged `lse` is wanted.
        lse: bool = "lse",
        /// Whether the parts have an entropy, and the merged one is wanted.
        entropy: bool = "entropy_parts",
    }
}

const MAX_V_DIM: u32 = 1 << 16;
/// More rows than this no buffer holds, and indices of workgroups stay within 32 bits.
const MOST_ROWS: u64 = 1 << 30;

impl MergeShapes {
    /// Parts of attention over `[batch, heads, len]` queries, to o and lse.
    #[must_use]
    pub fn new(parts: u32, batch: u32, heads: u32, len: u32, v_dim: u32) -> Self {
        Self { parts, batch, heads, len, v_dim, lse: true, entropy: false }
    }

    /// Whether there is nothing to compute.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        [self.batch, self.heads, self.len].contains(&0)
    }

    pub(crate) fn check(&self) -> Result<()> {
        let rows = product([self.batch, self.heads, self.len]);
        for (what, needed) in [("o: rows", rows), ("o_parts: parts", self.parts.into())] {
            if needed > MOST_ROWS {
                return Err(Error::LimitExceeded { what: what.into(), needed, limit: MOST_ROWS });
            }
        }
        expect_within("o_parts", "v_dim", self.v_dim, 1..=MAX_V_DIM)
    }
}
