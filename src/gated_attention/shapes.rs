//! The sizes of a gated attention problem, checked once for the GPU and the CPU twin alike.

use super::config::{GatedAttentionConfig, GauMode};
use crate::attention::{UNBOUNDED, config_error};
use crate::op::shapes;
use crate::tensor::{expect, expect_groups, expect_rows, expect_within};
use crate::{Causal, Error, Result};

shapes! {
    /// The sizes of a gated attention problem and which optional tensors it has. Rows of q (or z) and of k, over all sequences and
    /// heads, are at most 2³² − 1 each.
    pub struct GatedAttentionShapes {
        /// Sequences; 0 is nothing to do.
        batch: u32 = "batch",
        /// Heads of q, or of z, at least 1.
        q_heads: u32 = "q_heads",
        /// Heads of k and v; divides `q_heads`, and equals it with z.
        kv_heads: u32 = "kv_heads",
        /// Queries per sequence, at most 2³⁰; 0 is nothing to do.
        q_len: u32 = "q_len",
        /// Keys per sequence, at most 2³⁰; of 0, no row sees one. Equals `q_len` with z and in mixed chunks.
        kv_len: u32 = "kv_len",
        /// Width s of q and k, or of z, 1 to 256.
        key_dim: u32 = "key_dim",
        /// Width e of v, u and o, 1 to 2³⁰.
        v_dim: u32 = "v_dim",
        /// Whether q and k are affine maps of one z, rather than given.
        shared_z: bool = "z",
        /// Whether the gate `u` is given.
        gate: bool = "u",
        /// Whether `kv_lens` is given.
        kv_lens: bool = "kv_lens",
    }
}

/// The widest keys the kernels take.
const MAX_KEY_DIM: u32 = 256;

impl GatedAttentionShapes {
    /// Self-attention of `heads` heads over `len` tokens with q and k given, without a gate.
    #[must_use]
    pub fn new(batch: u32, heads: u32, len: u32, key_dim: u32, v_dim: u32) -> Self {
        Self { batch, q_heads: heads, kv_heads: heads, q_len: len, kv_len: len, key_dim, v_dim, ..Self::default() }
    }

    /// The gated attention unit: one z for q and k, and a gate.
    #[must_use]
    pub fn gau(batch: u32, heads: u32, len: u32, key_dim: u32, v_dim: u32) -> Self {
        Self { shared_z: true, gate: true, ..Self::new(batch, heads, len, key_dim, v_dim) }
    }

    /// Whether there is nothing to compute.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.batch == 0 || self.q_len == 0
    }

    pub(crate) fn check(&self, config: &GatedAttentionConfig) -> Result<()> {
        let (queries, keys) = if self.shared_z { ("z", "z") } else { ("q", "k") };
        let any = 1..=u32::MAX;
        expect_within(queries, if self.shared_z { "heads" } else { "q_heads" }, self.q_heads, any.clone())?;
        expect_within(keys, "kv_heads", self.kv_heads, any.clone())?;
        expect_within("v", "v_dim", self.v_dim, any)?;
        expect_rows(queries, [self.batch, self.q_heads, self.q_len])?;
        expect_rows(keys, [self.batch, self.kv_heads, self.kv_len])?;
        expect_groups(self.q_heads, self.kv_heads)?;
        expect_within(queries, "key_dim", self.key_dim, 1..=MAX_KEY_DIM)?;
        for (what, len) in [(queries, self.q_len), (keys, self.kv_len), ("v: v_dim", self.v_dim)] {
            let limit = UNBOUNDED as u64;
            if u64::from(len) > limit {
                return Err(Error::LimitExceeded { what: format!("{what}: length"), needed: len.into(), limit });
            }
        }
        if self.shared_z {
            expect("v", "kv_heads", self.kv_heads, self.q_heads, "the heads of z")?;
            expect("v", "kv_len", self.kv_len, self.q_len, "the length of z")?;
        }
        if let GauMode::MixedChunk { .. } = config.mode {
            expect("k", "kv_len", self.kv_len, self.q_len, "the q_len of q: mixed_chunk is self-attention")?;
            if self.kv_lens && config.causal == Causal::BottomRight {
                let expected = "with mixed_chunk and kv_lens, none or top_left (bottom_right would move the chunks)";
                return Err(config_error("causal", expected, "bottom_right"));
            }
        }
        Ok(())
    }

    /// Floating-point operations of the two products (and, in mixed chunks, of the states), two per multiply-add;
    /// per-batch lengths not counted.
    pub(crate) fn flops(&self, config: &GatedAttentionConfig) -> u64 {
        let (s, e, len) = (u64::from(self.key_dim), u64::from(self.v_dim), u64::from(self.q_len));
        let visibility = config.visibility();
        let per_head = match config.chunk() {
            None => visibility.pairs(self.q_len, self.kv_len).saturating_mul(2 * (s + e)),
            Some(chunk) => {
                let last = self.q_len % chunk;
                let pairs = u64::from(self.q_len / chunk) * visibility.pairs(chunk, chunk);
                let inside = pairs.saturating_add(visibility.pairs(last, last)).saturating_mul(2 * (s + e));
                inside.saturating_add(4 * len * s * e)
            }
        };
        per_head.saturating_mul(u64::from(self.batch) * u64::from(self.q_heads))
    }
}
