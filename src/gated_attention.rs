//! Gated attention: o = u ⊙ (A v) with squared-relu or softmax weights A of two affine maps of one z, fused; and FLASH's
//! mixed chunks.

pub mod backward;
mod config;
mod kernels;
mod offers;
mod plan;
pub mod reference;
mod shapes;
mod tiles;

pub use backward::{
    GatedAttentionBackward, GatedAttentionBackwardInputs, GatedAttentionBackwardShapes, GatedAttentionGradients,
};
pub use config::{Divisor, GatedAttentionConfig, GauMode, GauWeights, LinearDivisor, QuadraticDivisor};
#[doc(hidden)]
pub use kernels::specializations;
pub use shapes::GatedAttentionShapes;

use crate::op::op;
use crate::operand::operands;
use crate::{HostView, TensorView};

operands! {
    /// The tensors that gated attention reads: either `q` and `k`, or one `z` and the maps that turn it into them.
    ///
    /// | field | shape | dtype | |
    /// |---|---|---|---|
    /// | `q` | `[batch, q_heads, q_len, key_dim]` | float | `key_dim` 1 to 256 |
    /// | `k` | `[batch, kv_heads, kv_len, key_dim]` | float | `q_heads` is a multiple of `kv_heads`; query head h reads head h / (`q_heads` / `kv_heads`); of `kv_len` 0, o is 0 |
    /// | `z` | `[batch, heads, len, key_dim]` | float | in place of q and k: q = γ_q ⊙ z + β_q, k = γ_k ⊙ z + β_k |
    /// | `gamma_q`, `gamma_k` | `[heads, key_dim]` | float | required by z; one row for all heads by stride 0 |
    /// | `beta_q`, `beta_k` | `[heads, key_dim]` | float | 0 if absent |
    /// | `v` | `[batch, kv_heads, kv_len, v_dim]` | float | any `v_dim` |
    /// | `u` | `[batch, q_heads, q_len, v_dim]` | float | the gate; 1 if absent |
    /// | `kv_lens` | `[batch]` | u32 | only the first `kv_lens[b]` keys of batch b are visible; clamped to `kv_len` |
    /// | `q_lin`, `k_lin` | as `q`, `k` | float | for the linear part of [`GauMode::MixedChunk`] |
    /// | `gamma_q_lin`, `beta_q_lin`, `gamma_k_lin`, `beta_k_lin` | `[heads, key_dim]` | float | or these, with z |
    ///
    /// A float is f32, f16 or bf16, of each tensor as its caller likes; sums are f32. Keys and values that no row sees, and memory
    /// between rows, may hold anything, NaN included.
    ///
    /// NaN that a row sees in q, k or a map makes its o NaN, under relu² too; in v and u, its own dim of o, unless the key's weight is
    /// 0. WGSL lets a driver assume that there is none; the six on which this is tested do not.
    /// Weights are f32: scores of a softmax are to lie within ±10³⁸, and squares of relu², with their sums, to be finite. Of a row that
    /// sees what does not, o may be infinite or NaN; other rows do not notice.
    GatedAttentionInputs {
        /// Values alone.
        fn of_values(v: 4);
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
        gamma_q: optional float ["heads:q_heads", "key_dim"].broadcast();
        /// Term of q.
        beta_q: optional float ["heads:q_heads", "key_dim"].broadcast().or("gamma_q");
        /// Factor of z in k.
        gamma_k: optional float ["heads:q_heads", "key_dim"].broadcast();
        /// Term of k.
        beta_k: optional float ["heads:q_heads", "key_dim"].broadcast().or("gamma_k");
        /// Factor of z in q_lin.
        gamma_q_lin: optional float ["heads:q_heads", "key_dim"].broadcast();
        /// Term of q_lin.
        beta_q_lin: optional float ["heads:q_heads", "key_dim"].broadcast().or("gamma_q_lin");
        /// Factor of z in k_lin.
        gamma_k_lin: optional float ["heads:q_heads", "key_dim"].broadcast();
        /// Term of k_lin.
        beta_k_lin: optional float ["heads:q_heads", "key_dim"].broadcast().or("gamma_k_lin");
    }
    /// The tensors that gated attention writes.
    ///
    /// | field | shape | dtype | |
    /// |---|---|---|---|
    /// | `o` | `[batch, q_heads, q_len, v_dim]` | float | 0 in a row that sees no key |
    ///
    /// An o of 16 bits is rounded to the nearest as it is written; see [`DType`](crate::DType). o may not lie in a buffer of an input, even beside
    /// it.
    GatedAttentionOutputs {
        /// The output.
        pub fn new(o: 4);
        /// The output.
        o: required float ["batch", "q_heads", "q_len", "v_dim"];
    }
    /// The inputs of gated attention in host memory; see [`GatedAttentionInputs`] for shapes.
    HostInputs {}
}

impl<'a> GatedAttentionInputs<'a> {
    /// Queries, keys and values, and nothing optional.
    #[must_use]
    pub fn new(q: TensorView<'a, 4>, k: TensorView<'a, 4>, v: TensorView<'a, 4>) -> Self {
        Self { q: Some(q), k: Some(k), ..Self::of_values(v) }
    }

    /// One z, its maps to q and k, and values; nothing optional.
    #[must_use]
    pub fn shared(
        z: TensorView<'a, 4>,
        gamma_q: TensorView<'a, 2>,
        gamma_k: TensorView<'a, 2>,
        v: TensorView<'a, 4>,
    ) -> Self {
        Self { z: Some(z), gamma_q: Some(gamma_q), gamma_k: Some(gamma_k), ..Self::of_values(v) }
    }
}

impl<'a> HostInputs<'a> {
    /// Queries, keys and values, and nothing optional.
    #[must_use]
    pub fn new(q: HostView<'a, f32, 4>, k: HostView<'a, f32, 4>, v: HostView<'a, f32, 4>) -> Self {
        Self { q: Some(q), k: Some(k), ..Self::of_values(v) }
    }

    /// One z, its maps to q and k, and values; nothing optional.
    #[must_use]
    pub fn shared(
        z: HostView<'a, f32, 4>,
        gamma_q: HostView<'a, f32, 2>,
        gamma_k: HostView<'a, f32, 2>,
        v: HostView<'a, f32, 4>,
    ) -> Self {
        Self { z: Some(z), gamma_q: Some(gamma_q), gamma_k: Some(gamma_k), ..Self::of_values(v) }
    }
}

op! {
    /// Gated attention on one device.
    ///
    /// ```text
    /// q = γ_q ⊙ z + β_q;   k = γ_k ⊙ z + β_k          (or q and k as given)
    /// o_i = u_i ⊙ Σ_j A_ij v_j                          (u = 1 if there is no gate)
    /// A_ij = relu(q_i·k_j)² / divisor   or   softmax_j(scale · q_i·k_j)
    /// ```
    ///
    /// Weights and divisors are those of [`GauWeights`], the linear-time mode is [`GauMode::MixedChunk`]. No buffer of
    /// length × length is ever made; accumulation is f32; the same call on the same device gives the same bits.
    ///
    /// ```no_run
    /// use wgpu_attention::{
    ///     Context, GatedAttention, GatedAttentionConfig, GatedAttentionInputs, GatedAttentionOutputs, TensorView,
    /// };
    /// # fn record(device: wgpu::Device, queue: wgpu::Queue, encoder: &mut wgpu::CommandEncoder,
    /// #     [z, gamma_q, gamma_k, u, v, o]: [&wgpu::Buffer; 6]) -> wgpu_attention::Result<()> {
    /// let context = Context::new(device, queue);
    /// let gau = GatedAttention::new(&context, GatedAttentionConfig::new())?;
    /// let (keys, values) = ([1, 1, 512, 128], [1, 1, 512, 1536]); // batch, heads, len, width
    /// let mut inputs = GatedAttentionInputs::shared(
    ///     TensorView::f32(z, keys),
    ///     TensorView::f32(gamma_q, [1, 128]),
    ///     TensorView::f32(gamma_k, [1, 128]),
    ///     TensorView::f32(v, values),
    /// );
    /// inputs.u = Some(TensorView::f32(u, values));
    /// gau.record(encoder, inputs, GatedAttentionOutputs::new(TensorView::f32(o, values)))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Source
    /// Hua, Dai, Liu and Le, "Transformer Quality in Linear Time", 2022, sections 3.2 and 4.1; Su Jianlin,
    /// kexue.fm/archives/8934 and 9019.
    pub struct GatedAttention: GatedAttentionConfig, GatedAttentionShapes, GatedAttentionInputs => GatedAttentionOutputs;
    /// Picks the kernels for contiguous tensors of these shapes, every β given and all but kv_lens stored as `dtype`, and compiles
    /// them.
    plan;
}
