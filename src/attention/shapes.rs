//! The sizes of a softmax attention problem, checked once for the GPU and the CPU twin alike.

use super::config::{AttentionConfig, UNBOUNDED};
use crate::op::shapes;
use crate::tensor::{expect_groups, expect_rows, expect_within};
use crate::{Error, Result};

shapes! {
    /// The sizes of a softmax attention problem and which optional tensors it has. Rows of q and rows of k, over all sequences and
    /// heads, are at most 2³² − 1 each.
    pub struct AttentionShapes {
        /// Sequences; 0 is nothing to do.
        batch: u32 = "batch",
        /// Heads of q, at least 1.
        q_heads: u32 = "q_heads",
        /// Heads of k and v; divides `q_heads`.
        kv_heads: u32 = "kv_heads",
        /// Queries per sequence, at most 2³⁰ − 1; 0 is nothing to do.
        q_len: u32 = "q_len",
        /// Keys per sequence, at most 2³⁰ − 1; of 0, an empty cache, no row sees one.
        kv_len: u32 = "kv_len",
        /// Width of q and k, 1 to 256.
        head_dim: u32 = "head_dim",
        /// Width of v and o, 1 to 256.
        v_dim: u32 = "v_dim",
        /// Whether `kv_lens` is given.
        kv_lens: bool = "kv_lens",
        /// Whether `bias` is given.
        bias: bool = "bias",
        /// Whether `mask` is given.
        mask: bool = "mask",
        /// Whether `row_scale` is given.
        row_scale: bool = "row_scale",
        /// Whether `lse` is asked for.
        lse: bool = "lse",
        /// Whether `entropy` is asked for.
        entropy: bool = "entropy",
    }
}

/// The widest head the kernels take.
const MAX_HEAD_DIM: u32 = 256;

impl AttentionShapes {
    /// Self-attention of `heads` heads over `len` tokens, nothing optional.
    #[must_use]
    pub fn new(batch: u32, heads: u32, len: u32, head_dim: u32) -> Self {
        Self {
            batch,
            q_heads: heads,
            kv_heads: heads,
            q_len: len,
            kv_len: len,
            head_dim,
            v_dim: head_dim,
            ..Self::default()
        }
    }

    /// Whether there is nothing to compute.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.batch == 0 || self.q_len == 0
    }

    pub(crate) fn check(&self) -> Result<()> {
        expect_within("q", "q_heads", self.q_heads, 1..=u32::MAX)?;
        expect_within("k", "kv_heads", self.kv_heads, 1..=u32::MAX)?;
        expect_rows("q", [self.batch, self.q_heads, self.q_len])?;
        expect_rows("k", [self.batch, self.kv_heads, self.kv_len])?;
        expect_groups(self.q_heads, self.kv_heads)?;
        expect_within("q", "head_dim", self.head_dim, 1..=MAX_HEAD_DIM)?;
        expect_within("v", "v_dim", self.v_dim, 1..=MAX_HEAD_DIM)?;
        for (what, len) in [("q: q_len", self.q_len), ("k: kv_len", self.kv_len)] {
            if len >= UNBOUNDED as u32 {
                return Err(Error::LimitExceeded {
                    what: what.into(),
                    needed: len.into(),
                    limit: UNBOUNDED as u64 - 1,
                });
            }
        }
        Ok(())
    }

    /// Pairs of query and visible key, over the whole batch; per-batch lengths and masks not counted.
    pub(crate) fn visible_pairs(&self, config: &AttentionConfig) -> u64 {
        config
            .visibility()
            .pairs(self.q_len, self.kv_len)
            .saturating_mul(u64::from(self.batch) * u64::from(self.q_heads))
    }
}
