//! The sizes of a backward pass, checked once for the GPU and the CPU twin alike.

use super::super::AttentionShapes;
use crate::op::shapes;
use crate::{Error, Result};

shapes! {
    /// The sizes of a backward pass, and which optional tensors it has: as [`AttentionShapes`](crate::AttentionShapes) are limited.
    pub struct AttentionBackwardShapes {
        /// Sequences; of 0, what is summed over them is 0.
        batch: u32 = "batch",
        /// Heads of q, at least 1.
        q_heads: u32 = "q_heads",
        /// Heads of k and v; divides `q_heads`.
        kv_heads: u32 = "kv_heads",
        /// Queries per sequence; of 0, gradients of keys and values are 0.
        q_len: u32 = "q_len",
        /// Keys per sequence; of 0, gradients of queries are 0.
        kv_len: u32 = "kv_len",
        /// Width of q and k, 1 to 256.
        head_dim: u32 = "head_dim",
        /// Width of v and o, 1 to 256.
        v_dim: u32 = "v_dim",
        /// Sequences of `bias`, if it is given: 1, or all.
        bias_batches: Option<u32> = "bias_batches",
        /// Its heads: 1, or those of q.
        bias_heads: Option<u32> = "bias_heads",
        /// Its rows: 1, or one for each query.
        bias_rows: Option<u32> = "bias_rows",
        /// Sequences of `row_scale`, if it is given: 1, or all.
        scale_batches: Option<u32> = "scale_batches",
        /// Its heads: 1, or those of q.
        scale_heads: Option<u32> = "scale_heads",
        /// Its rows: 1, or one for each query.
        scale_rows: Option<u32> = "scale_rows",
        /// Whether `kv_lens` is given.
        kv_lens: bool = "kv_lens",
        /// Whether `mask` is given.
        mask: bool = "mask",
        /// Whether `entropy` is given.
        entropy: bool = "entropy",
        /// Whether `dout` comes in.
        dout: bool = "dout",
        /// Whether `dlse` comes in.
        dlse: bool = "dlse",
        /// Whether `dentropy` comes in.
        dentropy: bool = "dentropy",
        /// Whether `dq` is asked for.
        dq: bool = "dq",
        /// Whether `dk` is asked for.
        dk: bool = "dk",
        /// Whether `dv` is asked for.
        dv: bool = "dv",
        /// Whether `dbias` is asked for.
        dbias: bool = "dbias",
        /// Whether `drow_scale` is asked for.
        drow_scale: bool = "drow_scale",
        /// Whether `dscale` is asked for.
        dscale: bool = "dscale",
    }
}

impl AttentionBackwardShapes {
    /// Self-attention of `heads` heads over `len` tokens: from the gradient of o to those of q, k and v.
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
            dout: true,
            dq: true,
            dk: true,
            dv: true,
            ..Self::default()
        }
    }

    /// Of no rows there are still gradients of keys.
    #[expect(clippy::unused_self, reason = "as other sizes have it")]
    pub(crate) fn is_empty(&self) -> bool {
        false
    }

    /// The same of forward.
    pub(crate) fn forward(&self) -> AttentionShapes {
        let Self { batch, q_heads, kv_heads, q_len, kv_len, head_dim, v_dim, kv_lens, mask, .. } = *self;
        let [bias, row_scale] = [self.bias_rows.is_some(), self.scale_rows.is_some()];
        let sizes = AttentionShapes { q_heads, kv_heads, q_len, kv_len, head_dim, v_dim, ..AttentionShapes::default() };
        AttentionShapes { batch, kv_lens, bias, mask, row_scale, ..sizes }
    }

    /// Of what may be repeated along them: sequences, heads, rows.
    fn repeated(&self) -> [(&'static str, [Option<u32>; 3]); 2] {
        [
            ("bias", [self.bias_batches, self.bias_heads, self.bias_rows]),
            ("row_scale", [self.scale_batches, self.scale_heads, self.scale_rows]),
        ]
    }

    pub(crate) fn check(&self) -> Result<()> {
        self.forward().check()?;
        for (tensor, extents) in self.repeated() {
            if extents.iter().all(Option::is_none) {
                continue;
            }
            let axes = [("batch", self.batch), ("q_heads", self.q_heads), ("q_len", self.q_len)];
            for (got, (axis, whole)) in extents.into_iter().zip(axes) {
                let got = got.unwrap_or(0);
                if got != 1 && got != whole {
                    let expected = format!("{whole}, or 1 that is repeated");
                    return Err(Error::Shape { tensor, axis, expected, got: got.into() });
                }
            }
        }
        Ok(())
    }
}
