//! The gradients of linear attention.

mod kernels;
mod plan;
pub mod reference;
mod rounds;

#[doc(hidden)]
pub use kernels::specializations;

use super::{LinearAttentionConfig, LinearAttentionShapes};
use crate::TensorView;
use crate::op::{op, shapes};
use crate::operand::{Fill, operands};

operands! {
    /// The tensors that the backward pass reads: what forward read, nothing that it wrote, and the gradients that come in. A state that
    /// forward updated in place is no longer the one that came in: keep that.
    ///
    /// | field | shape | dtype | |
    /// |---|---|---|---|
    /// | `q` … `state_max` | | | as [`LinearAttentionInputs`](crate::LinearAttentionInputs) has them: `state_…` is the state that came in |
    /// | `dout` | `[batch, q_heads, q_len, v_dim]` | float | the gradient of `o`; a row of zeros, repeated by strides of 0, where none comes through it |
    /// | `dstate_s` | `[batch, kv_heads, features, v_dim]` | float | the gradient of the final `state_s` |
    /// | `dstate_z` | `[batch, kv_heads, features]` | float | the gradient of the final `state_z`; both of them or neither |
    LinearAttentionBackwardInputs {
        /// What every call has.
        pub fn new(q: 4, k: 4, v: 4, dout: 4);
        /// Queries.
        q: required float ["batch", "q_heads", "q_len", "head_dim"];
        /// Keys.
        k: required float ["batch", "kv_heads", "kv_len", "head_dim"];
        /// Values.
        v: required float ["batch", "kv_heads", "kv_len", "v_dim"];
        /// The rows of FAVOR+.
        projection: optional float ["features=projection_rows", "head_dim"].without_gradient();
        /// Visible keys per batch, in tokens.
        kv_lens: optional lengths ["batch"];
        /// The state that came in: sums of ψ(k) vᵀ.
        state_s: optional float ["batch", "kv_heads", "features", "v_dim"].planned_as_f32();
        /// The state that came in: sums of ψ(k).
        state_z: optional float ["batch", "kv_heads", "features"].planned_as_f32().filled(Fill::Positive);
        /// The state that came in: running maxima.
        state_max: optional statistic ["batch", "kv_heads", "features:max_features"].filled(Fill::Constant(0.0));
        /// The gradient of o.
        dout: required float ["batch", "q_heads", "q_len", "v_dim"];
        /// The gradient of the final state's sums of ψ(k) vᵀ.
        dstate_s: optional float ["batch", "kv_heads", "features", "v_dim"].state();
        /// The gradient of the final state's sums of ψ(k).
        dstate_z: optional float ["batch", "kv_heads", "features"].state();
    }
    /// The gradients, of which at least one is given.
    ///
    /// | field | shape | dtype | |
    /// |---|---|---|---|
    /// | `dq`, `dk`, `dv` | as `q`, `k`, `v` | float | `dk` and `dv` summed over the query heads of a key head; 0 in a key that no row sees |
    /// | `dstate_s`, `dstate_z` | as in [`LinearAttentionBackwardInputs`] | float | the gradients of the state that came in; both of them or neither |
    ///
    /// Sums are f32, always in the same order, and rounded once. A gradient that is not given costs nothing. The gradient of a state may
    /// be written where that of the final one was read (give the same views), or beside it in the same buffer. No other output may lie
    /// in a buffer of an input, even beside it.
    ///
    /// NaN that forward makes NaN of makes gradients NaN: of dout and q, that row's `dq` and the `dk` and `dv` of all keys it sees. What no
    /// row sees may hold anything.
    LinearAttentionGradients {
        /// None yet.
        pub fn none();
        /// Of the queries.
        dq: optional float ["batch", "q_heads", "q_len", "head_dim"];
        /// Of the keys.
        dk: optional float ["batch", "kv_heads", "kv_len", "head_dim"];
        /// Of the values.
        dv: optional float ["batch", "kv_heads", "kv_len", "v_dim"];
        /// Of the state that came in: of its sums of ψ(k) vᵀ.
        dstate_s: optional float ["batch", "kv_heads", "features", "v_dim"].state();
        /// Of the state that came in: of its sums of ψ(k).
        dstate_z: optional float ["batch", "kv_heads", "features"].state();
    }
    /// The inputs of the backward pass in host memory; see [`LinearAttentionBackwardInputs`] for shapes.
    HostInputs {}
}

impl<'a> LinearAttentionGradients<'a> {
    /// Those of queries, keys and values.
    #[must_use]
    pub fn new(dq: TensorView<'a, 4>, dk: TensorView<'a, 4>, dv: TensorView<'a, 4>) -> Self {
        Self { dq: Some(dq), dk: Some(dk), dv: Some(dv), ..Self::none() }
    }
}

shapes! {
    /// The sizes of a backward pass, and which optional tensors there are; what [`LinearAttentionShapes`] says of theirs holds of these.
    pub struct LinearAttentionBackwardShapes {
        /// Sequences; 0 is nothing to do.
        batch: u32 = "batch",
        /// Heads of q, at least 1.
        q_heads: u32 = "q_heads",
        /// Heads of k and v; divides `q_heads`.
        kv_heads: u32 = "kv_heads",
        /// Queries per sequence; of 0, gradients come from the final state alone.
        q_len: u32 = "q_len",
        /// Keys per sequence: in causal mode as many as queries.
        kv_len: u32 = "kv_len",
        /// Width of q and k, 1 to 256.
        head_dim: u32 = "head_dim",
        /// Width of v and o, 1 to 256.
        v_dim: u32 = "v_dim",
        /// Rows of `projection`, 1 to 1024; for FAVOR+ and no other map.
        projection_rows: Option<u32> = "projection_rows",
        /// Whether `kv_lens` is given; in full mode only.
        kv_lens: bool = "kv_lens",
        /// Whether a state came in.
        state: bool = "state_s",
        /// Whether a gradient of the final state comes in.
        dstate_in: bool = "state_in",
        /// Whether that of the state that came in is wanted.
        dstate_out: bool = "state_out",
        /// Whether the gradient of queries is wanted; it is where no other is.
        dq: bool = "dq",
        /// Whether that of keys is wanted.
        dk: bool = "dk",
        /// Whether that of values is wanted.
        dv: bool = "dv",
    }
}

impl LinearAttentionBackwardShapes {
    /// The gradients of queries, keys and values of self-attention of `heads` heads over `len` tokens.
    #[must_use]
    pub fn new(batch: u32, heads: u32, len: u32, head_dim: u32) -> Self {
        let [q_heads, kv_heads, q_len, kv_len, v_dim] = [heads, heads, len, len, head_dim];
        let (dq, dk, dv) = (true, true, true);
        Self { batch, q_heads, kv_heads, q_len, kv_len, head_dim, v_dim, dq, dk, dv, ..Self::default() }
    }

    /// Those of the forward pass; its final state, as far as it has a gradient.
    #[must_use]
    pub fn forward(&self) -> LinearAttentionShapes {
        let Self { batch, q_heads, kv_heads, q_len, kv_len, head_dim, v_dim, projection_rows, kv_lens, .. } = *self;
        let (state_in, state_out) = (self.state, self.dstate_in || self.dstate_out);
        LinearAttentionShapes {
            batch,
            q_heads,
            kv_heads,
            q_len,
            kv_len,
            head_dim,
            v_dim,
            projection_rows,
            kv_lens,
            state_in,
            state_out,
        }
    }

    /// Whether there is nothing to compute.
    pub(crate) fn is_empty(&self) -> bool {
        self.batch == 0
    }
}

op! {
    /// The backward pass of a [`LinearAttention`](crate::LinearAttention) of the same config.
    ///
    /// ```text
    /// w_i = φ(q_i)·z_i + eps;   dn_i = do_i / w_i;   dw_i = −(do_i·o_i) / w_i
    /// dφ(q_i) = S_i dn_i + dw_i z_i
    /// G_j = dS + Σ φ(q_i) dn_iᵀ;   h_j = dz + Σ dw_i φ(q_i)   (over the rows i that see key j)
    /// dψ(k_j) = G_j v_j + h_j;   dv_j = G_jᵀ ψ(k_j);   dS₀ = G₀,   dz₀ = h₀
    /// ```
    ///
    /// and through the map to q and k. Not normalised, dn is do and dw 0. S and z are made again, chunk by chunk; G and h are the same
    /// sums from the last token to the first. All is O(n): where the states of all chunks do not fit the workspace, groups of chunks
    /// follow each other, each from a state that is kept. The rows' o, which is not asked for, is made again too, in f32.
    ///
    /// A running maximum has no gradient: it is a unit in which a state's sums are told. A sequence cut anywhere into calls, each of which
    /// gives its `dstate_s` and `dstate_z` to the call before it, has the gradients of one call.
    ///
    /// ```no_run
    /// use wgpu_attention::{Context, LinearAttentionBackward, LinearAttentionBackwardInputs, LinearAttentionConfig};
    /// use wgpu_attention::{LinearAttentionGradients, LinearMode, TensorView};
    /// # fn record(context: &Context, encoder: &mut wgpu::CommandEncoder, [q, k, v, dout, dq, dk, dv]: [&wgpu::Buffer; 7])
    /// # -> wgpu_attention::Result<()> {
    /// let backward = LinearAttentionBackward::new(context, LinearAttentionConfig::new().mode(LinearMode::Causal))?;
    /// let view = |buffer| TensorView::f32(buffer, [1, 8, 16384, 64]); // batch, heads, len, head_dim
    /// backward.record(
    ///     encoder,
    ///     LinearAttentionBackwardInputs::new(view(q), view(k), view(v), view(dout)),
    ///     LinearAttentionGradients::new(view(dq), view(dk), view(dv)),
    /// )?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Of [`prepare`](Self::prepare): no gradient at all; that of a state that did not come in; what forward refuses.
    ///
    /// # Source
    /// Katharopoulos et al., "Transformers are RNNs", 2020, eqs. 13 to 15; the rest are the derivatives of the formulas of
    /// [`LinearAttention`](crate::LinearAttention).
    pub struct LinearAttentionBackward:
        LinearAttentionConfig, LinearAttentionBackwardShapes, LinearAttentionBackwardInputs => LinearAttentionGradients;
    /// Picks the kernels for contiguous tensors of these shapes, with q, k, v, projection and their gradients stored as `dtype` and
    /// states as f32, and compiles them.
    plan;
}
