//! Partial results of softmax attention, with their log-sum-exp, into one: for keys in several places.

mod config;
mod kernels;
mod plan;
pub mod reference;
mod shapes;

pub use config::MergeConfig;
#[doc(hidden)]
pub use kernels::specializations;
pub use shapes::MergeShapes;

use crate::TensorView;
use crate::op::op;
use crate::operand::operands;

operands! {
    /// The tensors that a merge reads.
    ///
    /// | field | shape | dtype | |
    /// |---|---|---|---|
    /// | `o_parts` | `[parts, batch, heads, len, v_dim]` | float | not read where a part's lse is −∞ |
    /// | `lse_parts` | `[parts, batch, heads, len]` | f32 | natural log; within ±10³⁸, or −∞ in a row that sees no key |
    /// | `entropy_parts` | `[parts, batch, heads, len]` | f32 | nats; given if and only if the outputs' `entropy` is |
    ///
    /// `parts` may be 0, as a sum of nothing is 0 and its logarithm −∞: rows are then those that see no key, or stay as they are held.
    ///
    /// NaN in a part that sees a key comes out: of lse in the row's o and entropy, and as NaN or +∞ in its lse; of o in its own dim, of
    /// entropy in the row's. WGSL lets a driver assume that there is none; the six on which this is tested do not.
    ///
    /// A float is f32, f16 or bf16, of each tensor as its caller likes; sums are f32.
    MergeInputs {
        /// Partial outputs with their log-sum-exp, and no entropy.
        pub fn new(o_parts: 5, lse_parts: 4);
        /// Partial outputs.
        o_parts: required float ["parts", "batch", "heads", "len", "v_dim"];
        /// Their log-sum-exp.
        lse_parts: required statistic ["parts", "batch", "heads", "len"];
        /// Their entropy.
        entropy_parts: optional statistic ["parts", "batch", "heads", "len"];
    }
    /// The tensors that a merge writes, and, where the config says to accumulate, reads before.
    ///
    /// | field | shape | dtype | |
    /// |---|---|---|---|
    /// | `o` | `[batch, heads, len, v_dim]` | float | 0 in a row that sees no key |
    /// | `lse` | `[batch, heads, len]` | f32 | natural log; −∞ in a row that sees no key; required to accumulate |
    /// | `entropy` | `[batch, heads, len]` | f32 | nats; 0 in a row that sees no key |
    ///
    /// An o of 16 bits is rounded to the nearest as it is written; see [`DType`](crate::DType).
    /// To accumulate it must be f32, or each step would round what the steps before have summed. No output may lie in a buffer of an
    /// input, even beside it.
    MergeOutputs {
        /// The output alone.
        pub fn of(o: 4);
        /// The output of all parts.
        o: required float ["batch", "heads", "len", "v_dim"].held();
        /// Its log-sum-exp.
        lse: optional statistic ["batch", "heads", "len"].held();
        /// Its entropy.
        entropy: optional statistic ["batch", "heads", "len"].held();
    }
    /// The inputs of a merge in host memory; see [`MergeInputs`] for shapes.
    HostInputs {
        o: float ["batch", "heads", "len", "v_dim"];
        lse: statistic ["batch", "heads", "len"];
        entropy: statistic ["batch", "heads", "len"];
    }
}

impl<'a> MergeOutputs<'a> {
    /// The output and its log-sum-exp, which another merge needs.
    #[must_use]
    pub fn new(o: TensorView<'a, 4>, lse: TensorView<'a, 3>) -> Self {
        Self { lse: Some(lse), ..Self::of(o) }
    }
}

op! {
    /// Merges partial results of softmax attention on one device.
    ///
    /// ```text
    /// lse = log Σ exp lse_p;   w_p = exp(lse_p − lse);   o = Σ w_p o_p;   entropy = Σ w_p (entropy_p − log w_p)
    /// ```
    ///
    /// Parts of attention over disjoint keys become attention over all of them, in any order and any grouping up to rounding. A
    /// single part that sees a key stays as it is, bit for bit, as far as the type of o holds it. Parts come stacked, as sequence-parallel attention gathers
    /// them; or one at a time with [`MergeConfig::accumulate`], as they come around a ring.
    ///
    /// ```no_run
    /// use wgpu_attention::{Context, Merge, MergeConfig, MergeInputs, MergeOutputs, TensorView};
    /// # fn record(device: wgpu::Device, queue: wgpu::Queue, encoder: &mut wgpu::CommandEncoder,
    /// #     [o_part, lse_part, o, lse]: [&wgpu::Buffer; 4]) -> wgpu_attention::Result<()> {
    /// let context = Context::new(device, queue);
    /// let merge = Merge::new(&context, MergeConfig::new().accumulate(true))?;
    /// let [batch, heads, len, v_dim] = [1, 8, 2048, 64];
    /// // One step: o and lse take in what attention over the keys that have just come gave.
    /// merge.record(
    ///     encoder,
    ///     MergeInputs::new(
    ///         TensorView::f32(o_part, [1, batch, heads, len, v_dim]),
    ///         TensorView::f32(lse_part, [1, batch, heads, len]),
    ///     ),
    ///     MergeOutputs::new(TensorView::f32(o, [batch, heads, len, v_dim]), TensorView::f32(lse, [batch, heads, len])),
    /// )?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Source
    /// Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018, section 3.1; Liu, Zaharia and Abbeel, "Ring
    /// Attention with Blockwise Transformers for Near-Infinite Context", 2023, section 3.
    pub struct Merge: MergeConfig, MergeShapes, MergeInputs => MergeOutputs;
    /// Picks the kernel for contiguous tensors of these shapes and compiles it, with o_parts stored as `dtype`, and o as well unless
    /// the merge accumulates.
    plan;
}
