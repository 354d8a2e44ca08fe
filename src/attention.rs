//! Softmax attention: o = softmax(scale · q kᵀ + bias) v, tiled, with an online softmax, log-sum-exp and row entropy.

pub mod backward;
mod config;
mod few;
mod kernels;
mod offers;
mod plan;
pub mod reference;
mod shapes;

pub use backward::{AttentionBackward, AttentionBackwardInputs, AttentionBackwardShapes, AttentionGradients};
pub use config::{AttentionConfig, Causal, Scale, Window};
pub(crate) use config::{ScaleTerms, UNBOUNDED, Visibility, config_error};
#[doc(hidden)]
pub use kernels::specializations;
pub use shapes::AttentionShapes;

use crate::op::op;
use crate::operand::{Fill, operands};

operands! {
    /// The tensors that softmax attention reads.
    ///
    /// | field | shape | dtype | |
    /// |---|---|---|---|
    /// | `q` | `[batch, q_heads, q_len, head_dim]` | float | `head_dim` 1 to 256 |
    /// | `k` | `[batch, kv_heads, kv_len, head_dim]` | float | `q_heads` is a multiple of `kv_heads`; query head h reads head h / (`q_heads` / `kv_heads`) |
    /// | `v` | `[batch, kv_heads, kv_len, v_dim]` | float | `v_dim` 1 to 256 |
    /// | `kv_lens` | `[batch]` | u32 | only the first `kv_lens[b]` keys of batch b are visible; clamped to `kv_len` |
    /// | `bias` | `[batch, q_heads, q_len, kv_len]` | float | finite or −∞; added to the scaled scores; a sum below −1e38 counts as that; −∞ hides its key; any outer axis may have stride 0 |
    /// | `mask` | `[batch, q_heads, q_len, kv_len]` | bool | zero hides its key; any outer axis may have stride 0 |
    /// | `row_scale` | `[batch, q_heads, q_len]` | float | required by [`Scale::PerRow`], refused otherwise |
    ///
    /// A float is f32, f16 or bf16, for each tensor its own; see [`DType`](crate::DType). Keys and values that no row sees, and memory
    /// between rows, may hold anything, NaN included.
    ///
    /// NaN that a row sees in q, k, bias or row_scale makes its o, lse and entropy NaN; in v, its own dim of o,
    /// unless the key's weight is 0. WGSL lets a driver assume that there is none; the six on which this is tested do not.
    /// Scores are f32, and are to lie within ±10³⁸, scaled and with their bias. Of a row that sees one past that, o, lse and entropy
    /// may be NaN; other rows do not notice.
    AttentionInputs {
        /// Queries, keys and values, and nothing optional.
        pub fn new(q: 4, k: 4, v: 4);
        /// Queries.
        q: required float ["batch", "q_heads", "q_len", "head_dim"];
        /// Keys.
        k: required float ["batch", "kv_heads", "kv_len", "head_dim"];
        /// Values.
        v: required float ["batch", "kv_heads", "kv_len", "v_dim"];
        /// Visible keys per batch, in tokens.
        kv_lens: optional lengths ["batch"];
        /// Additive bias.
        bias: optional float ["batch", "q_heads", "q_len", "kv_len"].broadcast();
        /// Boolean mask, true where a key may be seen.
        mask: optional mask ["batch", "q_heads", "q_len", "kv_len"].broadcast();
        /// One scale per row.
        row_scale: optional float ["batch", "q_heads", "q_len"].broadcast().planned_as_f32().filled(Fill::Constant(0.125));
    }
    /// The tensors that softmax attention writes.
    ///
    /// | field | shape | dtype | |
    /// |---|---|---|---|
    /// | `o` | `[batch, q_heads, q_len, v_dim]` | float | 0 in a row that sees no key |
    /// | `lse` | `[batch, q_heads, q_len]` | f32 | natural log; −∞ in a row that sees no key; [`AttentionBackward`] needs it |
    /// | `entropy` | `[batch, q_heads, q_len]` | f32 | nats; 0 in a row that sees no key |
    ///
    /// A float is f32, f16 or bf16: rounded to nearest even, once, from f32. No output may lie in a buffer of an input, even beside it.
    AttentionOutputs {
        /// The output alone.
        pub fn new(o: 4);
        /// The output.
        o: required float ["batch", "q_heads", "q_len", "v_dim"];
        /// Log-sum-exp of each row's scores.
        lse: optional statistic ["batch", "q_heads", "q_len"];
        /// Entropy of each row's weights.
        entropy: optional statistic ["batch", "q_heads", "q_len"];
    }
    /// The inputs of softmax attention in host memory; see [`AttentionInputs`] for shapes.
    HostInputs {}
}

op! {
    /// Softmax attention on one device.
    ///
    /// ```text
    /// s = scale · q kᵀ;   s = cap · tanh(s / cap);   s = s + bias;   masks;   o = softmax(s) v
    /// lse = log Σ exp s;   entropy = − Σ p log p
    /// ```
    ///
    /// Of no keys (`kv_len` 0, an empty cache) o is 0, lse −∞ and entropy 0, as in any row that sees none.
    ///
    /// No buffer of length × length is ever made; accumulation and the softmax's state are f32; the same call on the same
    /// device gives the same bits.
    ///
    /// ```no_run
    /// use wgpu_attention::{Attention, AttentionConfig, AttentionInputs, AttentionOutputs, Causal, Context, TensorView};
    /// # fn record(device: wgpu::Device, queue: wgpu::Queue, encoder: &mut wgpu::CommandEncoder,
    /// #     [q, k, v, o]: [&wgpu::Buffer; 4]) -> wgpu_attention::Result<()> {
    /// let context = Context::new(device, queue);
    /// let attention = Attention::new(&context, AttentionConfig::new().causal(Causal::BottomRight))?;
    /// let shape = [1, 8, 2048, 64]; // batch, heads, len, head_dim
    /// attention.record(
    ///     encoder,
    ///     AttentionInputs::new(TensorView::f32(q, shape), TensorView::f32(k, shape), TensorView::f32(v, shape)),
    ///     AttentionOutputs::new(TensorView::f32(o, shape)),
    /// )?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Source
    /// Dao, "FlashAttention-2", 2023, algorithm 1; Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018.
    pub struct Attention: AttentionConfig, AttentionShapes, AttentionInputs => AttentionOutputs;
    /// Picks the kernels for contiguous tensors of these shapes, with q, k, v, bias and o stored as `dtype`, and compiles them.
    plan;
}
