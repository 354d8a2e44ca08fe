//! The sizes of a linear attention problem, checked once for the GPU and the CPU twin alike.

use super::config::{FeatureMap, LinearAttentionConfig, LinearMode};
use crate::op::shapes;
use crate::tensor::{expect, expect_groups, expect_rows, expect_within};
use crate::{Error, Result};

shapes! {
    /// The sizes of a linear attention problem and which optional tensors it has. Rows of q and rows of k, over all sequences and
    /// heads, are at most 2³² − 1 each; so are the numbers of o, and those of `state_s` where the state is asked for.
    pub struct LinearAttentionShapes {
        /// Sequences; 0 is nothing to do.
        batch: u32 = "batch",
        /// Heads of q, at least 1.
        q_heads: u32 = "q_heads",
        /// Heads of k and v, each with a state of its own; divides `q_heads`.
        kv_heads: u32 = "kv_heads",
        /// Queries per sequence, at most 2³⁰; 0 is nothing to do unless the state is asked for.
        q_len: u32 = "q_len",
        /// Keys per sequence, at most 2³⁰: in causal mode as many as queries. Of 0, the incoming state is all that is seen.
        kv_len: u32 = "kv_len",
        /// Width of q and k, 1 to 256.
        head_dim: u32 = "head_dim",
        /// Width of v and o, 1 to 256.
        v_dim: u32 = "v_dim",
        /// Rows of `projection`, 1 to 1024; for FAVOR+ and no other map.
        projection_rows: Option<u32> = "projection_rows",
        /// Whether `kv_lens` is given; in full mode only.
        kv_lens: bool = "kv_lens",
        /// Whether a state comes in.
        state_in: bool = "state_in",
        /// Whether the state is asked for.
        state_out: bool = "state_out",
    }
}

/// The widest head the kernels take.
const MAX_HEAD_DIM: u32 = 256;
/// The most features of FAVOR+.
const MAX_PROJECTION_ROWS: u32 = 1024;

impl LinearAttentionShapes {
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

    /// How many features a map has here: the rows of a state.
    #[must_use]
    pub fn features(&self, feature_map: FeatureMap) -> u32 {
        feature_map.features(self.head_dim, self.projection_rows)
    }

    /// Whether there is nothing to compute.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.batch == 0 || (self.q_len == 0 && !self.state_out)
    }

    pub(crate) fn check(&self, config: &LinearAttentionConfig) -> Result<()> {
        expect_within("q", "q_heads", self.q_heads, 1..=u32::MAX)?;
        expect_within("k", "kv_heads", self.kv_heads, 1..=u32::MAX)?;
        expect_rows("q", [self.batch, self.q_heads, self.q_len])?;
        expect_rows("k", [self.batch, self.kv_heads, self.kv_len])?;
        expect_groups(self.q_heads, self.kv_heads)?;
        expect_within("q", "head_dim", self.head_dim, 1..=MAX_HEAD_DIM)?;
        expect_within("v", "v_dim", self.v_dim, 1..=MAX_HEAD_DIM)?;
        if config.mode == LinearMode::Causal {
            expect("k", "kv_len", self.kv_len, self.q_len, "the q_len of q, as the mode is causal")?;
        }
        // Positions stay well within 32 bits when rounded up to tiles.
        for (what, len) in [("q: q_len", self.q_len), ("k: kv_len", self.kv_len)] {
            if len > 1 << 30 {
                return Err(Error::LimitExceeded { what: what.into(), needed: len.into(), limit: 1 << 30 });
            }
        }
        let elements = |heads: u32, rows: u32| {
            [heads, rows, self.v_dim].iter().fold(u64::from(self.batch), |n, &extent| n.saturating_mul(extent.into()))
        };
        let state_rows = if self.state_out { self.features(config.feature_map) } else { 0 };
        let outputs = [("o", elements(self.q_heads, self.q_len)), ("state_s", elements(self.kv_heads, state_rows))];
        for (tensor, needed) in outputs {
            let limit = u32::MAX.into();
            if needed > limit {
                let what = format!("{tensor}: elements addressed by a 32-bit index");
                return Err(Error::LimitExceeded { what, needed, limit });
            }
        }
        self.projection_rows
            .map_or(Ok(()), |rows| expect_within("projection", "features", rows, 1..=MAX_PROJECTION_ROWS))
    }
}
