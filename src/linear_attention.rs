//! Linear attention: o = φ(q)ᵀ Σ ψ(k) vᵀ / φ(q)·Σ ψ(k) in O(n) time and memory, causal or not, with a state that goes in
//! and comes out.

pub mod backward;
mod config;
mod kernels;
mod offers;
mod plan;
pub mod reference;
mod rounds;
mod shapes;
mod tiles;

pub use backward::{
    LinearAttentionBackward, LinearAttentionBackwardInputs, LinearAttentionBackwardShapes, LinearAttentionGradients,
};
pub use config::{FeatureMap, LinearAttentionConfig, LinearMode, Normalization};
#[doc(hidden)]
pub use kernels::specializations;
pub use shapes::LinearAttentionShapes;

use crate::op::op;
use crate::operand::{Fill, operands};

operands! {
    /// The tensors that linear attention reads.
    ///
    /// | field | shape | dtype | |
    /// |---|---|---|---|
    /// | `q` | `[batch, q_heads, q_len, head_dim]` | float | `head_dim` 1 to 256 |
    /// | `k` | `[batch, kv_heads, kv_len, head_dim]` | float | `q_heads` is a multiple of `kv_heads`; query head h reads head h / (`q_heads` / `kv_heads`); `kv_len` = `q_len` in causal mode; of `kv_len` 0, queries see the incoming state alone |
    /// | `v` | `[batch, kv_heads, kv_len, v_dim]` | float | `v_dim` 1 to 256 |
    /// | `projection` | `[features, head_dim]` | float | required by [`FeatureMap::Favor`], refused otherwise; 1 to 1024 features |
    /// | `kv_lens` | `[batch]` | u32 | full mode only: the first `kv_lens[b]` keys of batch b are visible; clamped to `kv_len` |
    /// | `state_s` | `[batch, kv_heads, features, v_dim]` | float | Σ ψ(k) vᵀ over the keys before |
    /// | `state_z` | `[batch, kv_heads, features]` | float | Σ ψ(k) over the keys before |
    /// | `state_max` | `[batch, kv_heads, features]` | f32 | for `Exp` and `Softmax`: m, the largest k of each feature; −∞ where there was none |
    /// | `state_max` | `[batch, kv_heads, 1]` | f32 | for `Favor`: m, the largest of all exponents of keys; −∞ where there was none |
    ///
    /// A float is f32, f16 or bf16, for each tensor its own; see [`DType`](crate::DType).
    /// Where there is a `state_max`, `state_s` and `state_z` are sums of ψ(k) e⁻ᵐ. A state's tensors are given together.
    /// Keys and values that no row sees, and memory between rows, may hold anything, NaN included.
    ///
    /// NaN that a row sees in q or k makes its o NaN, and in v its own dim of o; so in the state. Under `Exp`, `Softmax` and `Favor` q
    /// and k with NaN may give any number, as exponents are bounded by a minimum, which drops it. WGSL lets a driver assume that there
    /// is no NaN; the six on which this is tested do not.
    /// Exponents (q and k under `Exp` and `Softmax`, those of `Favor`, and a `state_max`) are to lie within ±10³⁸; past that, o and the
    /// state may be NaN.
    LinearAttentionInputs {
        /// Queries, keys and values, and nothing optional.
        pub fn new(q: 4, k: 4, v: 4);
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
        /// Incoming state: sums of ψ(k) vᵀ.
        state_s: optional float ["batch", "kv_heads", "features", "v_dim"].state();
        /// Incoming state: sums of ψ(k).
        state_z: optional float ["batch", "kv_heads", "features"].state().filled(Fill::Positive);
        /// Incoming state: running maxima.
        state_max: optional statistic ["batch", "kv_heads", "features:max_features"].state().filled(Fill::Constant(0.0));
    }
    /// The tensors that linear attention writes.
    ///
    /// | field | shape | dtype | |
    /// |---|---|---|---|
    /// | `o` | `[batch, q_heads, q_len, v_dim]` | float | 0 in a row that sees no key |
    /// | `state_s`, `state_z`, `state_max` | as in [`LinearAttentionInputs`] | as there | the state after the last key; all of them or none |
    ///
    /// A state is summed up in f32, and rounded to its type when the call is done. Passed on token by token in 16 bits it stops growing
    /// (256 + 1 is 256 in bf16, 2048 + 1 is 2048 in f16, and past 65504 comes infinity): there, keep it in f32.
    ///
    /// A state may be written where it was read (give the same views), or beside that in the same buffer. No other output may lie in
    /// a buffer of an input, even beside it.
    LinearAttentionOutputs {
        /// The output alone.
        pub fn new(o: 4);
        /// The output.
        o: required float ["batch", "q_heads", "q_len", "v_dim"];
        /// Final state: sums of ψ(k) vᵀ.
        state_s: optional float ["batch", "kv_heads", "features", "v_dim"].state();
        /// Final state: sums of ψ(k).
        state_z: optional float ["batch", "kv_heads", "features"].state();
        /// Final state: running maxima.
        state_max: optional statistic ["batch", "kv_heads", "features:max_features"].state();
    }
    /// The inputs of linear attention in host memory; see [`LinearAttentionInputs`] for shapes.
    HostInputs {}
}

op! {
    /// Linear attention on one device.
    ///
    /// ```text
    /// S = S₀ + Σ ψ(k) vᵀ;   z = z₀ + Σ ψ(k);   o = φ(q)ᵀ S / (φ(q)·z + eps)
    /// ```
    ///
    /// In causal mode the sums of row i run to key i; they are taken chunk by chunk, so that all but a prefix over chunks is
    /// parallel, or, where heads alone keep the device busy, in order with the state in registers. A sequence cut anywhere into
    /// calls that pass the state on in f32 gives the result of one call. In full mode they run over all keys, and a state passed
    /// on adds the keys of other calls. No buffer of length × length is ever
    /// made; sums are f32; the same call on the same device gives the same bits.
    ///
    /// ```no_run
    /// use wgpu_attention::{Context, LinearAttention, LinearAttentionConfig, LinearAttentionInputs, LinearAttentionOutputs};
    /// use wgpu_attention::{LinearMode, TensorView};
    /// # fn record(device: wgpu::Device, queue: wgpu::Queue, encoder: &mut wgpu::CommandEncoder,
    /// #     [q, k, v, o]: [&wgpu::Buffer; 4]) -> wgpu_attention::Result<()> {
    /// let context = Context::new(device, queue);
    /// let attention = LinearAttention::new(&context, LinearAttentionConfig::new().mode(LinearMode::Causal))?;
    /// let shape = [1, 8, 16384, 64]; // batch, heads, len, head_dim
    /// attention.record(
    ///     encoder,
    ///     LinearAttentionInputs::new(TensorView::f32(q, shape), TensorView::f32(k, shape), TensorView::f32(v, shape)),
    ///     LinearAttentionOutputs::new(TensorView::f32(o, shape)),
    /// )?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Source
    /// Katharopoulos et al., "Transformers are RNNs: Fast Autoregressive Transformers with Linear Attention", 2020, eqs. 5, 6
    /// and 12; Su, kexue.fm/archives/7546. Chunks: Sun et al., "Retentive Network", 2023, section 2.2.
    pub struct LinearAttention: LinearAttentionConfig, LinearAttentionShapes, LinearAttentionInputs => LinearAttentionOutputs;
    /// Picks the kernels for contiguous tensors of these shapes, with q, k, v, projection and o stored as `dtype` and states as f32,
    /// and compiles them. With `state_in` and `state_out` the call is the one in place, where both are the same views.
    plan;
}
