//! The sizes of a backward pass.

use super::super::config::GatedAttentionConfig;
use super::super::shapes::GatedAttentionShapes;
use crate::Result;
use crate::op::shapes;
use crate::tensor::expect;

shapes! {
    /// The sizes of a backward pass, and which optional tensors there are. Limits are those of
    /// [`GatedAttentionShapes`](crate::GatedAttentionShapes).
    pub struct GatedAttentionBackwardShapes {
        /// Sequences; 0 is nothing to do, but for gradients of maps, which are 0 then.
        batch: u32 = "batch",
        /// Heads of q, or of z, at least 1.
        q_heads: u32 = "q_heads",
        /// Heads of k and v; divides `q_heads`, and equals it with z.
        kv_heads: u32 = "kv_heads",
        /// Queries per sequence; 0 is a sum of nothing.
        q_len: u32 = "q_len",
        /// Keys per sequence. Equals `q_len` with z and in mixed chunks.
        kv_len: u32 = "kv_len",
        /// Width s of q and k, or of z, 1 to 256.
        key_dim: u32 = "key_dim",
        /// Width e of v, u and o.
        v_dim: u32 = "v_dim",
        /// Rows of the maps of z: as many as heads, or 1 for all; 0 without z.
        map_heads: u32 = "map_heads",
        /// Whether q and k are affine maps of one z, rather than given.
        shared_z: bool = "z",
        /// Whether the gate `u` is given.
        gate: bool = "u",
        /// Whether `kv_lens` is given.
        kv_lens: bool = "kv_lens",
        /// Whether the gradient of the gate is wanted.
        du: bool = "du",
        /// Whether that of the values is wanted; it is where no other is.
        dv: bool = "dv",
        /// Whether that of z is wanted.
        dz: bool = "dz",
        /// Whether that of q is wanted.
        dq: bool = "dq",
        /// Whether that of k is wanted.
        dk: bool = "dk",
        /// Whether that of q_lin is wanted.
        dq_lin: bool = "dq_lin",
        /// Whether that of k_lin is wanted.
        dk_lin: bool = "dk_lin",
        /// Whether those of the maps are wanted.
        dmaps: bool = "dgamma_q",
    }
}

impl GatedAttentionBackwardShapes {
    /// All gradients of self-attention of `heads` heads over `len` tokens with q and k given, without a gate; not in mixed chunks.
    #[must_use]
    pub fn new(batch: u32, heads: u32, len: u32, key_dim: u32, v_dim: u32) -> Self {
        let sizes =
            Self { batch, q_heads: heads, kv_heads: heads, q_len: len, kv_len: len, key_dim, v_dim, ..Self::default() };
        Self { dv: true, dq: true, dk: true, ..sizes }
    }

    /// All gradients of the gated attention unit: one z for q and k, and a gate.
    #[must_use]
    pub fn gau(batch: u32, heads: u32, len: u32, key_dim: u32, v_dim: u32) -> Self {
        let sizes = Self::new(batch, heads, len, key_dim, v_dim);
        let shared = Self { dq: false, dk: false, map_heads: heads, shared_z: true, gate: true, ..sizes };
        Self { du: true, dz: true, dmaps: true, ..shared }
    }

    /// Of no tokens there are still gradients of maps, and of no queries those of keys and values.
    pub(crate) fn is_empty(&self) -> bool {
        let none = self.batch == 0 || self.q_len == 0 && self.kv_len == 0;
        none && self.map_heads == 0
    }

    pub(crate) fn check(&self, config: &GatedAttentionConfig) -> Result<()> {
        if self.shared_z && self.map_heads != 1 {
            expect("gamma_q", "heads", self.map_heads, self.q_heads, "the heads of z, or 1 for all")?;
        }
        self.forward().check(config)
    }

    /// Those of the forward pass.
    pub(crate) fn forward(&self) -> GatedAttentionShapes {
        let Self { batch, q_heads, kv_heads, q_len, kv_len, key_dim, v_dim, shared_z, gate, kv_lens, .. } = *self;
        GatedAttentionShapes { batch, q_heads, kv_heads, q_len, kv_len, key_dim, v_dim, shared_z, gate, kv_lens }
    }
}
