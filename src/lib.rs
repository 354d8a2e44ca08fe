//! Attention and the softmax family as WGSL compute kernels, recorded into your own wgpu encoder.
//!
//! | op | what it computes | time in the length |
//! |---|---|---|
//! | [`Attention`] | softmax attention, with every entropy-invariant scale, log-sum-exp and row entropy; and its gradients | n² |
//! | [`LinearAttention`] | attention by feature maps and cumulative sums, with states in and out; and its gradients | n |
//! | [`GatedAttention`] | the gated attention unit: relu² and its relatives, maps and gate, in one kernel; and its gradients | n² (n in mixed chunks) |
//! | [`GumbelSoftmax`] | samples of categorical distributions, relaxed or not, with noise that is a function of a key; and its gradient | n |
//! | [`MarginSoftmax`] | the loss of margin softmax over normalised features and class weights, without its logits; and its gradients | rows × classes |
//! | [`MatMul`] | matrix products, batched, transposes by stride, with bias and activation: what projections need; and its gradients | m n k |
//! | [`Softmax`] | softmax and Taylor softmax of rows, with log-sum-exp and entropy, and their gradients | n |
//! | [`Merge`] | partial attention results with their log-sum-exp into one: for keys in several places | n |
//! | [`MultilabelSoftmax`] | softmax and cross-entropy for any number of labels a row, hard or soft, and their gradients | n |
//!
//! The crate runs on any device that wgpu offers, with no optional feature. It takes your [`Device`](wgpu::Device) and
//! [`Queue`](wgpu::Queue) once, and then records into your encoder, on your buffers: an op's `plan`, `prepare`, `record` and
//! `record_in` never submit, poll or wait for the device. What does is of the feature `blocking`: `Context::run`, the downloads,
//! `Context::autotune` and `Timer::pass`.
//!
//! Whoever has tensors by name, as bindings to another language do, finds every op behind one trait: [`op::Op`].
//!
//! No buffer is ever length × length, and every op has a public CPU twin in f64 that its tests compare it with.
//!
//! # Example
//! Causal attention with the entropy-invariant scale, on a headless device:
//!
//! ```
//! use wgpu_attention::{Attention, AttentionConfig, AttentionInputs, AttentionOutputs, Causal, Context, Scale, TensorView};
//!
//! # #[cfg(feature = "blocking")]
//! # fn main() -> wgpu_attention::Result<()> {
//! let context = Context::headless()?; // an app that has a device: Context::new(device, queue)
//! let shape = [1, 8, 128, 64]; // batch, heads, len, head_dim
//! let elements = 8 * 128 * 64;
//! let [q, k, v] = [0.1, 0.2, 0.3].map(|x: f32| context.upload(&vec![x; elements]));
//! let o = context.allocate(elements);
//!
//! let config = AttentionConfig::new().causal(Causal::TopLeft).scale(Scale::LOG_N);
//! let attention = Attention::new(&context, config)?;
//! let mut encoder = context.device().create_command_encoder(&Default::default());
//! attention.record(
//!     &mut encoder,
//!     AttentionInputs::new(TensorView::f32(&q, shape), TensorView::f32(&k, shape), TensorView::f32(&v, shape)),
//!     AttentionOutputs::new(TensorView::f32(&o, shape)),
//! )?;
//! context.queue().submit([encoder.finish()]);
//!
//! let o = context.download(&o)?;
//! assert!(o.iter().all(|x| (x - 0.3).abs() < 1e-6)); // an average of equal values
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "blocking"))]
//! # fn main() {}
//! ```
//!
//! # Training
//! A backward pass is an op of its own, of forward's config and with the same calls. It makes again what it needs from forward's inputs,
//! reads the gradients that come in, and of what forward wrote:
//!
//! | forward | backward | reads of what forward wrote |
//! |---|---|---|
//! | [`Attention`] | [`AttentionBackward`] | `o` and `lse`; `entropy` for a gradient through it |
//! | [`GatedAttention`] | [`GatedAttentionBackward`] | `o`, where weights add up to one |
//! | [`GumbelSoftmax`] | [`GumbelSoftmaxBackward`] | nothing: the key makes the same noise |
//! | [`LinearAttention`] | [`LinearAttentionBackward`] | nothing; the state that came in, where there was one |
//! | [`MarginSoftmax`] | [`MarginSoftmaxBackward`] | `lse` and `others`; `entropy` for a gradient through it |
//! | [`MatMul`] | itself: [`MatMulInputs::gradient_of_sum`], `…_of_a`, `…_of_b`, `…_of_bias` | nothing |
//! | [`MultilabelSoftmax`] | [`MultilabelSoftmaxBackward`] | `lse_neg` and `lse_pos` |
//! | [`Softmax`] | [`SoftmaxBackward`] | nothing |
//!
//! Gradients are the same bits at every run. An optimizer, norms and embeddings are the app's: `examples/length_generalization.rs` has them in
//! plain WGSL around these ops.
//!
//! # Shapes and strides
//! Tensors are `[batch, heads, len, head_dim]` with any strides but the innermost, which is 1; so `[batch, len, heads,
//! head_dim]` and packed q, k, v are views. Lengths are in tokens, offsets and strides in elements, sizes in bytes.
//!
//! Inputs may share a buffer, and so may outputs that do not overlap. An output and an input may not, even where they lie apart:
//! in one dispatch wgpu binds a buffer to be read or to be written, as a whole. That is [`Error::Aliased`]; the states of
//! [`LinearAttention`] alone may go out into the buffer they came from, as the same view or beside it.
//!
//! # Plans
//! An op plans once for each exact combination of sizes, strides, types and places within a binding, and keeps 256 such plans; then
//! the oldest goes. A plan that is there creates no buffer. A new one creates its uniform buffers, enlarges the workspace if it
//! must, and compiles what the context does not have; it keeps 128 compiled kernels of all ops
//! ([`ContextOptions::max_pipelines`]), then the one used longest ago goes, and with it, when the op next makes a plan, the plans
//! that hold it. What is [`Prepared`] stays whole. [`Context::clear_pipelines`] lets all go. Where keys grow by one a call, as in decoding, give [`Attention`] one view of the
//! whole cache every time and the lengths in `kv_lens`: keys past those are skipped, and [`Causal::BottomRight`] aligns the last
//! query with the last of each sequence's own keys.
//!
//! # A lost device
//! A driver that hangs or is replaced takes the device along. From then on every call that would plan, record, run or read back
//! returns [`Error::DeviceLost`], whatever handler of errors the app has, and so does a call that was waiting for the device. wgpu
//! itself tells of it by the device's one callback, which stays the app's.
//!
//! # What the crate cannot check
//! wgpu gives no way to see whether a buffer belongs to another device or was destroyed; using such a buffer is reported by
//! wgpu, when the command is recorded or submitted, and of the blocking calls as [`Error::Readback`]. A buffer of a device of
//! another [`wgpu::Instance`] it may even take for one's own; see [`Context`].
//!
//! # Features
//! - `vulkan`, `metal`, `dx12`, `gles` (default): the backends wgpu is built with.
//! - `blocking` (default): a headless context, calls that upload, run and read back, and `Context::autotune`, which measures
//!   kernels. Off, the crate needs no executor.
//! - `serde`: configs, and what was measured, as JSON and the like.
//!
//! One major version of this crate goes with each of wgpu's, which is re-exported as [`wgpu`].

/// Hands every op, and every backward pass, to a macro: its module, its type, and those of its config and its sizes. Of tests and
/// tools that go through all.
#[doc(hidden)]
#[macro_export]
macro_rules! for_all_ops {
    ($then:ident) => {
        $then! {
            attention: Attention(AttentionConfig, AttentionShapes),
            attention_backward: AttentionBackward(AttentionConfig, AttentionBackwardShapes),
            gated_attention: GatedAttention(GatedAttentionConfig, GatedAttentionShapes),
            gated_attention_backward: GatedAttentionBackward(GatedAttentionConfig, GatedAttentionBackwardShapes),
            gumbel_softmax: GumbelSoftmax(GumbelSoftmaxConfig, GumbelSoftmaxShapes),
            gumbel_softmax_backward: GumbelSoftmaxBackward(GumbelSoftmaxConfig, GumbelSoftmaxBackwardShapes),
            linear_attention: LinearAttention(LinearAttentionConfig, LinearAttentionShapes),
            linear_attention_backward: LinearAttentionBackward(LinearAttentionConfig, LinearAttentionBackwardShapes),
            margin_softmax: MarginSoftmax(MarginSoftmaxConfig, MarginSoftmaxShapes),
            margin_softmax_backward: MarginSoftmaxBackward(MarginSoftmaxConfig, MarginSoftmaxBackwardShapes),
            matmul: MatMul(MatMulConfig, MatMulShapes),
            merge: Merge(MergeConfig, MergeShapes),
            multilabel_softmax: MultilabelSoftmax(MultilabelSoftmaxConfig, MultilabelSoftmaxShapes),
            multilabel_softmax_backward: MultilabelSoftmaxBackward(MultilabelSoftmaxConfig, MultilabelSoftmaxBackwardShapes),
            softmax: Softmax(SoftmaxConfig, SoftmaxShapes),
            softmax_backward: SoftmaxBackward(SoftmaxConfig, SoftmaxBackwardShapes),
        }
    };
}

mod adapter;
pub mod attention;
#[cfg(feature = "blocking")]
mod autotune;
#[cfg(feature = "blocking")]
mod blocking;
mod context;
mod dispatch;
mod dtype;
mod error;
pub mod gated_attention;
pub mod gumbel_softmax;
mod host;
pub mod linear_attention;
pub mod margin_softmax;
pub mod matmul;
mod matrices;
pub mod merge;
pub mod multilabel_softmax;
pub mod op;
mod operand;
mod pipelines;
#[cfg(feature = "blocking")]
mod probe;
mod quirks;
mod reduction;
pub mod reference;
mod row_kernel;
pub mod softmax;
mod storage;
mod sums;
mod tensor;
mod tile;
#[cfg(feature = "blocking")]
mod timer;
mod top_k;
mod tuning;
mod wgsl;

#[doc(hidden)]
pub use attention::backward as attention_backward;
pub use attention::{
    Attention, AttentionBackward, AttentionBackwardInputs, AttentionBackwardShapes, AttentionConfig,
    AttentionGradients, AttentionInputs, AttentionOutputs, AttentionShapes, Causal, Scale, Window,
};
#[cfg(feature = "blocking")]
pub use autotune::{AutotuneOptions, AutotuneProgress, TuningCase};
#[cfg(feature = "blocking")]
pub use blocking::Uploaded;
pub use context::{Context, ContextOptions};
pub use dispatch::{Plan, Prepared, Workspace};
pub use dtype::{DType, Element};
pub use error::{Error, Result};
#[doc(hidden)]
pub use gated_attention::backward as gated_attention_backward;
pub use gated_attention::{
    Divisor, GatedAttention, GatedAttentionBackward, GatedAttentionBackwardInputs, GatedAttentionBackwardShapes,
    GatedAttentionConfig, GatedAttentionGradients, GatedAttentionInputs, GatedAttentionOutputs, GatedAttentionShapes,
    GauMode, GauWeights, LinearDivisor, QuadraticDivisor,
};
#[doc(hidden)]
pub use gumbel_softmax::backward as gumbel_softmax_backward;
pub use gumbel_softmax::{
    GumbelKind, GumbelSoftmax, GumbelSoftmaxBackward, GumbelSoftmaxBackwardInputs, GumbelSoftmaxBackwardShapes,
    GumbelSoftmaxConfig, GumbelSoftmaxGradients, GumbelSoftmaxInputs, GumbelSoftmaxOutputs, GumbelSoftmaxShapes,
};
pub use host::HostView;
#[doc(hidden)]
pub use linear_attention::backward as linear_attention_backward;
pub use linear_attention::{
    FeatureMap, LinearAttention, LinearAttentionBackward, LinearAttentionBackwardInputs, LinearAttentionBackwardShapes,
    LinearAttentionConfig, LinearAttentionGradients, LinearAttentionInputs, LinearAttentionOutputs,
    LinearAttentionShapes, LinearMode, Normalization,
};
#[doc(hidden)]
pub use margin_softmax::backward as margin_softmax_backward;
pub use margin_softmax::{
    MarginSoftmax, MarginSoftmaxBackward, MarginSoftmaxBackwardInputs, MarginSoftmaxBackwardShapes,
    MarginSoftmaxConfig, MarginSoftmaxGradients, MarginSoftmaxInputs, MarginSoftmaxOutputs, MarginSoftmaxShapes,
};
pub use matmul::{Activation, MatMul, MatMulConfig, MatMulInputs, MatMulOutputs, MatMulShapes};
pub use matrices::{Matrices, MatrixSizes, MatrixSubgroups};
pub use merge::{Merge, MergeConfig, MergeInputs, MergeOutputs, MergeShapes};
#[doc(hidden)]
pub use multilabel_softmax::backward as multilabel_softmax_backward;
pub use multilabel_softmax::{
    MultilabelSoftmax, MultilabelSoftmaxBackward, MultilabelSoftmaxBackwardInputs, MultilabelSoftmaxBackwardShapes,
    MultilabelSoftmaxConfig, MultilabelSoftmaxGradients, MultilabelSoftmaxInputs, MultilabelSoftmaxOutputs,
    MultilabelSoftmaxShapes,
};
pub use reduction::Reduction;
#[doc(hidden)]
pub use softmax::backward as softmax_backward;
pub use softmax::{
    Softmax, SoftmaxBackward, SoftmaxBackwardInputs, SoftmaxBackwardShapes, SoftmaxConfig, SoftmaxGradients,
    SoftmaxInputs, SoftmaxKind, SoftmaxOutputs, SoftmaxScale, SoftmaxShapes,
};
pub use tensor::TensorView;
#[cfg(feature = "blocking")]
pub use timer::Timer;
pub use tuning::{TunedCase, Tuning};
pub use {half, wgpu};

/// What the crate's own tests look at and no user needs.
#[doc(hidden)]
pub mod introspect {
    pub use crate::context::Capabilities;
    pub use crate::dtype::Storage;
    pub use crate::wgsl::{Constant, Interface, Scalar, Source, Specialization};
}
