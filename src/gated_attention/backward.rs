//! The gradients of gated attention.

mod kernels;
mod plan;
pub mod reference;
mod shapes;
mod tiles;

#[doc(hidden)]
pub use kernels::specializations;
pub use shapes::GatedAttentionBackwardShapes;

use super::GatedAttentionConfig;
use crate::op::op;
use crate::operand::operands;
use crate::{HostView, TensorView};

operands! {
    /// The tensors that the backward pass reads: those of [`GatedAttentionInputs`](crate::GatedAttentionInputs), and the gradient of
    /// what [`GatedAttention`](crate::GatedAttention) made of them.
    ///
    /// | field | shape | dtype | |
    /// |---|---|---|---|
    /// | `z` … `k_lin` | | | as forward |
    /// | `gamma_q` … `beta_k_lin` | `[heads or 1, key_dim]` | float | as forward; an axis of 1 is repeated, and the gradients are summed over it. All have as many rows |
    /// | `o` | `[batch, q_heads, q_len, v_dim]` | float | as forward wrote it, gated; required by gradients of q, k, z and maps where weights add up to one (the row sum of relu², and softmax), else not read |
    /// | `dout` | `[batch, q_heads, q_len, v_dim]` | float | the gradient of o |
    ///
    /// Maps of one row that forward took by stride 0 this pass takes so as well: they have a gradient for each head then.
    ///
    /// Keys and values that no row sees, and memory between rows, may hold anything, NaN included. NaN in a row that sees keys, or in
    /// its `dout`, reaches its own gradients, and those of these keys.
    GatedAttentionBackwardInputs {
        /// Values and the gradient of o alone.
        fn of_values(v: 4, dout: 4);
        /// What q and k are affine maps of.
        z: optional float ["batch", "heads=q_heads=kv_heads", "len=q_len=kv_len", "key_dim"];
        /// Queries, unless z is given.
        q: optional float ["batch", "q_heads", "q_len", "key_dim"].or("z");
        /// Keys, unless z is given.
        k: optional float ["batch", "kv_heads", "kv_len", "key_dim"].or("z");
        /// Values.
        v: required float ["batch", "kv_heads", "kv_len", "v_dim"];
        /// The gate.
        u: optional float ["batch", "q_heads", "q_len", "v_dim"];
        /// Visible keys per batch, in tokens.
        kv_lens: optional lengths ["batch"];
        /// Queries of the linear part of mixed chunks, unless z is given.
        q_lin: optional float ["batch", "q_heads", "q_len", "key_dim"].or("z");
        /// Keys of the linear part of mixed chunks, unless z is given.
        k_lin: optional float ["batch", "kv_heads", "kv_len", "key_dim"].or("z");
        /// Factor of z in q.
        gamma_q: optional float ["heads:map_heads", "key_dim"];
        /// Term of q.
        beta_q: optional float ["heads:map_heads", "key_dim"].or("gamma_q");
        /// Factor of z in k.
        gamma_k: optional float ["heads:map_heads", "key_dim"];
        /// Term of k.
        beta_k: optional float ["heads:map_heads", "key_dim"].or("gamma_k");
        /// Factor of z in q_lin.
        gamma_q_lin: optional float ["heads:map_heads", "key_dim"];
        /// Term of q_lin.
        beta_q_lin: optional float ["heads:map_heads", "key_dim"].or("gamma_q_lin");
        /// Factor of z in k_lin.
        gamma_k_lin: optional float ["heads:map_heads", "key_dim"];
        /// Term of k_lin.
        beta_k_lin: optional float ["heads:map_heads", "key_dim"].or("gamma_k_lin");
        /// The output.
        o: optional float ["batch", "q_heads", "q_len", "v_dim"];
        /// The gradient of the output.
        dout: required float ["batch", "q_heads", "q_len", "v_dim"];
    }
    /// The gradients that the backward pass writes, of which at least one is asked for, each of what is given.
    ///
    /// | field | shape | dtype | |
    /// |---|---|---|---|
    /// | `du` | `[batch, q_heads, q_len, v_dim]` | float | of the gate; 0 in a row that sees no key |
    /// | `dv` | `[batch, kv_heads, kv_len, v_dim]` | float | summed over the query heads that share the kv head; 0 where no row sees the key |
    /// | `dz` | `[batch, heads, len, key_dim]` | float | through all maps |
    /// | `dgamma_q` … `dbeta_k_lin` | `[heads or 1, key_dim]`, as the maps | float | summed over batch and tokens, and over heads where one row stands for all |
    /// | `dq`, `dq_lin` | `[batch, q_heads, q_len, key_dim]` | float | 0 in a row that sees no key |
    /// | `dk`, `dk_lin` | `[batch, kv_heads, kv_len, key_dim]` | float | as `dv` |
    ///
    /// A float is f32, f16 or bf16: rounded to nearest even, once, from f32. Sums are in an order that never changes: the same call
    /// gives the same bits. A gradient that is not asked for costs nothing. No output may lie in a buffer of an input, even beside it.
    GatedAttentionGradients {
        /// No gradient yet.
        pub fn none();
        /// Of the gate.
        du: optional float ["batch", "q_heads", "q_len", "v_dim"];
        /// Of the values.
        dv: optional float ["batch", "kv_heads", "kv_len", "v_dim"];
        /// Of z.
        dz: optional float ["batch", "heads=q_heads=kv_heads", "len=q_len=kv_len", "key_dim"];
        /// Of the queries.
        dq: optional float ["batch", "q_heads", "q_len", "key_dim"];
        /// Of the keys.
        dk: optional float ["batch", "kv_heads", "kv_len", "key_dim"];
        /// Of the queries of the linear part.
        dq_lin: optional float ["batch", "q_heads", "q_len", "key_dim"];
        /// Of the keys of the linear part.
        dk_lin: optional float ["batch", "kv_heads", "kv_len", "key_dim"];
        /// Of γ_q.
        dgamma_q: optional float ["heads:map_heads", "key_dim"];
        /// Of β_q.
        dbeta_q: optional float ["heads:map_heads", "key_dim"];
        /// Of γ_k.
        dgamma_k: optional float ["heads:map_heads", "key_dim"];
        /// Of β_k.
        dbeta_k: optional float ["heads:map_heads", "key_dim"];
        /// Of γ_q_lin.
        dgamma_q_lin: optional float ["heads:map_heads", "key_dim"];
        /// Of β_q_lin.
        dbeta_q_lin: optional float ["heads:map_heads", "key_dim"];
        /// Of γ_k_lin.
        dgamma_k_lin: optional float ["heads:map_heads", "key_dim"];
        /// Of β_k_lin.
        dbeta_k_lin: optional float ["heads:map_heads", "key_dim"];
    }
    /// The inputs in host memory; see [`GatedAttentionBackwardInputs`] for shapes. What forward wrote is computed again.
    HostInputs {}
}

impl<'a> GatedAttentionBackwardInputs<'a> {
    /// Queries, keys and values, the gradient of o, and nothing optional.
    #[must_use]
    pub fn new(q: TensorView<'a, 4>, k: TensorView<'a, 4>, v: TensorView<'a, 4>, dout: TensorView<'a, 4>) -> Self {
        Self { q: Some(q), k: Some(k), ..Self::of_values(v, dout) }
    }

    /// One z, its maps to q and k, values, and the gradient of o; nothing optional.
    #[must_use]
    pub fn shared(
        z: TensorView<'a, 4>,
        gamma_q: TensorView<'a, 2>,
        gamma_k: TensorView<'a, 2>,
        v: TensorView<'a, 4>,
        dout: TensorView<'a, 4>,
    ) -> Self {
        Self { z: Some(z), gamma_q: Some(gamma_q), gamma_k: Some(gamma_k), ..Self::of_values(v, dout) }
    }
}

impl<'a> GatedAttentionGradients<'a> {
    /// Those of queries, keys and values.
    #[must_use]
    pub fn new(dq: TensorView<'a, 4>, dk: TensorView<'a, 4>, dv: TensorView<'a, 4>) -> Self {
        Self { dq: Some(dq), dk: Some(dk), dv: Some(dv), ..Self::none() }
    }

    /// Those of z, of its maps' factors, and of values.
    #[must_use]
    pub fn shared(
        dz: TensorView<'a, 4>,
        dgamma_q: TensorView<'a, 2>,
        dgamma_k: TensorView<'a, 2>,
        dv: TensorView<'a, 4>,
    ) -> Self {
        Self { dz: Some(dz), dgamma_q: Some(dgamma_q), dgamma_k: Some(dgamma_k), dv: Some(dv), ..Self::none() }
    }
}

impl<'a> HostInputs<'a> {
    /// Queries, keys and values, the gradient of o, and nothing optional.
    #[must_use]
    pub fn new(
        q: HostView<'a, f32, 4>,
        k: HostView<'a, f32, 4>,
        v: HostView<'a, f32, 4>,
        dout: HostView<'a, f32, 4>,
    ) -> Self {
        Self { q: Some(q), k: Some(k), ..Self::of_values(v, dout) }
    }

    /// One z, its maps to q and k, values, and the gradient of o; nothing optional.
    #[must_use]
    pub fn shared(
        z: HostView<'a, f32, 4>,
        gamma_q: HostView<'a, f32, 2>,
        gamma_k: HostView<'a, f32, 2>,
        v: HostView<'a, f32, 4>,
        dout: HostView<'a, f32, 4>,
    ) -> Self {
        Self { z: Some(z), gamma_q: Some(gamma_q), gamma_k: Some(gamma_k), ..Self::of_values(v, dout) }
    }
}

op! {
    /// The backward pass of a [`GatedAttention`](crate::GatedAttention) of the same config.
    ///
    /// ```text
    /// du = dout ⊙ (A v);   dA_ij = (u_i ⊙ dout_i)·v_j;   dv = Aᵀ (u ⊙ dout)
    /// relu²:   dS_ij = 2 relu(q_i·k_j) (dA_ij − δ_i) / divisor_i
    /// softmax: dS_ij = scale_i A_ij (dA_ij − δ_i);   δ_i = dout_i·o_i where weights add up to one (softmax, row sum), else 0
    /// dq = dS k;   dk = dSᵀ q;   dz = γ_q ⊙ dq + γ_k ⊙ dk;   dγ_q = Σ dq ⊙ z;   dβ_q = Σ dq      (over batch and tokens)
    /// ```
    ///
    /// In mixed chunks the same within chunks, and of the sums M of states k_linᵀ v, with n what the linear part is divided by:
    ///
    /// ```text
    /// dq_lin_i = M (u_i ⊙ dout_i) / n_i;   dM = Σ q_lin_iᵀ (u_i ⊙ dout_i) / n_i;   dk_lin_j = dM v_j;   dv_j += k_lin_j dM
    /// ```
    ///
    /// du is forward's own kernel with dout for a gate: A v is made again, not divided by u, which may be 0. The row's sum, or the
    /// largest score and the sum of a softmax, are made again too: of what forward wrote, o is read for δ, and nothing else. dq takes one
    /// kernel over tiles of queries, dk and dv one each over tiles of keys, as values of a gated attention unit are too wide to stay in registers beside dk.
    /// No buffer of length × length is made. The workspace holds four numbers a row; sums of the size of dq and dk where they go through
    /// maps; in mixed chunks states, as forward does; and partial sums where few tiles would leave a GPU idle.
    ///
    /// Products are of f32, whatever the config's `matrices`, which lets forward round them.
    ///
    /// ```no_run
    /// use wgpu_attention::{Context, GatedAttentionBackward, GatedAttentionBackwardInputs, GatedAttentionConfig};
    /// use wgpu_attention::{GatedAttentionGradients, TensorView};
    /// # fn record(context: &Context, encoder: &mut wgpu::CommandEncoder, [z, gamma_q, gamma_k]: [&wgpu::Buffer; 3],
    /// #     [dz, dgamma_q, dgamma_k]: [&wgpu::Buffer; 3], [u, v, dout, du, dv]: [&wgpu::Buffer; 5]) -> wgpu_attention::Result<()> {
    /// let backward = GatedAttentionBackward::new(context, GatedAttentionConfig::new())?;
    /// let keys = |buffer| TensorView::f32(buffer, [1, 1, 512, 128]); // batch, heads, len, width
    /// let values = |buffer| TensorView::f32(buffer, [1, 1, 512, 1536]);
    /// let map = |buffer| TensorView::f32(buffer, [1, 128]);
    /// let mut inputs =
    ///     GatedAttentionBackwardInputs::shared(keys(z), map(gamma_q), map(gamma_k), values(v), values(dout));
    /// inputs.u = Some(values(u));
    /// let mut gradients = GatedAttentionGradients::shared(keys(dz), map(dgamma_q), map(dgamma_k), values(dv));
    /// gradients.du = Some(values(du));
    /// backward.record(encoder, inputs, gradients)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Of [`prepare`](Self::prepare): what forward refuses; no gradient asked for, or one of what is not given; a missing `o` where
    /// weights add up to one.
    ///
    /// # Source
    /// Hua, Dai, Liu and Le, "Transformer Quality in Linear Time", 2022, sections 3.2 and 4.1; Dao, "FlashAttention-2", 2023,
    /// algorithm 2.
    pub struct GatedAttentionBackward:
        GatedAttentionConfig, GatedAttentionBackwardShapes, GatedAttentionBackwardInputs => GatedAttentionGradients;
    /// Picks the kernels for contiguous tensors of these shapes, every β given and all but kv_lens stored as `dtype`, and compiles
    /// them.
    plan;
}
