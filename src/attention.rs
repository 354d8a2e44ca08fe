//! Softmax attention: o = softmax(scale · q kᵀ + bias) v, tiled, with an online softmax, log-sum-exp and row entropy.

mod config;
mod kernels;
mod offers;
mod plan;
pub mod reference;
mod shapes;

pub use config::{AttentionConfig, Causal, Scale, Window};
pub(crate) use config::{UNBOUNDED, Visibility, config_error};
#[doc(hidden)]
pub use kernels::specializations;
#[cfg(feature = "blocking")]
pub(crate) use offers::subject;
pub use shapes::AttentionShapes;
pub(crate) use shapes::TensorShapes;

use crate::dispatch::{Plan, PlanCache, Prepared};
use crate::tensor::{Access, DType, Operands};
use crate::{Context, Result, TensorView};
use kernels::slot;
use plan::{Problem, axes};
use std::sync::Arc;

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
/// A float is f32, f16 or bf16, for each tensor its own; see [`DType`]. Keys and values that no row sees, and memory between rows, may hold anything, NaN included.
///
/// NaN that a row sees in q, k, bias or row_scale makes its o and entropy NaN, and its lse NaN or +∞; in v, its own dim of o, unless the
/// key's weight is 0. WGSL lets a driver assume that there is none; the six on which this is tested do not.
/// Scores are f32, and are to lie within ±10³⁸, scaled and with their bias. Of a row that sees one past that, o, lse and entropy may be
/// NaN; other rows do not notice.
#[derive(Clone, Copy, Debug)]
pub struct AttentionInputs<'a> {
    /// Queries.
    pub q: TensorView<'a, 4>,
    /// Keys.
    pub k: TensorView<'a, 4>,
    /// Values.
    pub v: TensorView<'a, 4>,
    /// Visible keys per batch, in tokens.
    pub kv_lens: Option<TensorView<'a, 1>>,
    /// Additive bias.
    pub bias: Option<TensorView<'a, 4>>,
    /// Boolean mask, true where a key may be seen.
    pub mask: Option<TensorView<'a, 4>>,
    /// One scale per row.
    pub row_scale: Option<TensorView<'a, 3>>,
}

impl<'a> AttentionInputs<'a> {
    /// Queries, keys and values, and nothing optional.
    #[must_use]
    pub fn new(q: TensorView<'a, 4>, k: TensorView<'a, 4>, v: TensorView<'a, 4>) -> Self {
        Self { q, k, v, kv_lens: None, bias: None, mask: None, row_scale: None }
    }
}

/// The tensors that softmax attention writes.
///
/// | field | shape | dtype | |
/// |---|---|---|---|
/// | `o` | `[batch, q_heads, q_len, v_dim]` | float | 0 in a row that sees no key |
/// | `lse` | `[batch, q_heads, q_len]` | f32 | natural log; −∞ in a row that sees no key |
/// | `entropy` | `[batch, q_heads, q_len]` | f32 | nats; 0 in a row that sees no key |
///
/// A float is f32, f16 or bf16: rounded to nearest even, once, from f32. No output may lie in a buffer of an input, even beside it.
#[derive(Clone, Copy, Debug)]
pub struct AttentionOutputs<'a> {
    /// The output.
    pub o: TensorView<'a, 4>,
    /// Log-sum-exp of each row's scores.
    pub lse: Option<TensorView<'a, 3>>,
    /// Entropy of each row's weights.
    pub entropy: Option<TensorView<'a, 3>>,
}

impl<'a> AttentionOutputs<'a> {
    /// The output alone.
    #[must_use]
    pub fn new(o: TensorView<'a, 4>) -> Self {
        Self { o, lse: None, entropy: None }
    }
}

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
#[derive(Debug)]
pub struct Attention {
    context: Context,
    config: AttentionConfig,
    plans: PlanCache<Problem>,
}

impl Attention {
    /// Checks the config; compiles nothing yet.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) naming the option.
    pub fn new(context: &Context, config: AttentionConfig) -> Result<Self> {
        config.check()?;
        Ok(Self { context: context.clone(), config, plans: PlanCache::default() })
    }

    /// The config.
    #[must_use]
    pub fn config(&self) -> &AttentionConfig {
        &self.config
    }

    /// Picks the kernels for contiguous tensors of these shapes, with q, k, v, bias and o stored as `dtype`, and compiles
    /// them.
    ///
    /// # Errors
    /// For shapes that do not fit together or the device; [`Error::Stride`](crate::Error::Stride) where rows of an output in 16 bits
    /// would share a word; [`Error::Pipeline`](crate::Error::Pipeline).
    pub fn plan(&self, shapes: &AttentionShapes, dtype: DType) -> Result<Arc<Plan>> {
        shapes.check(&self.config)?;
        let device = self.context.capabilities();
        let problem = Problem::contiguous(*shapes).stored(dtype, device)?;
        let limits = &device.limits;
        for (name, layout) in [("q", problem.q), ("k", problem.k), ("v", problem.v), ("o", problem.o)] {
            layout.check(name, limits)?;
        }
        self.plan_for(&problem)
    }

    /// Checks tensors and finds their plan; compiles only what no earlier plan needed.
    ///
    /// # Errors
    /// Whatever is wrong with the tensors, by name; see [`Error`](crate::Error). Nothing has been recorded.
    pub fn prepare<'a>(&self, inputs: AttentionInputs<'a>, outputs: AttentionOutputs<'a>) -> Result<Prepared<'a>> {
        let shapes = TensorShapes {
            q: inputs.q.shape,
            k: inputs.k.shape,
            v: inputs.v.shape,
            kv_lens: inputs.kv_lens.map(|view| view.shape),
            bias: inputs.bias.map(|view| view.shape),
            mask: inputs.mask.map(|view| view.shape),
            row_scale: inputs.row_scale.map(|view| view.shape),
            o: Some(outputs.o.shape),
            lse: outputs.lse.map(|view| view.shape),
            entropy: outputs.entropy.map(|view| view.shape),
        }
        .check(&self.config)?;

        use Access::{Read, Write};
        use DType::{Bool, F32, U32};
        const ROWS: [&str; 3] = ["batch", "q_heads", "q_len"];
        let mut operands: Operands<{ slot::COUNT }> = Operands::new(self.context.capabilities());
        let mut stored =
            |slot, name, access, view: &TensorView<'a, 4>| operands.add_stored(slot, name, axes(name), access, view);
        let q = stored(slot::Q, "q", Read, &inputs.q)?;
        let k = stored(slot::K, "k", Read, &inputs.k)?;
        let v = stored(slot::V, "v", Read, &inputs.v)?;
        let o = stored(slot::O, "o", Write, &outputs.o)?;
        let bias = inputs.bias.map(|v| stored(slot::BIAS, "bias", Read, &v));
        let mask = inputs.mask.map(|v| operands.add(slot::MASK, "mask", axes("mask"), Read, Bool, &v));
        let row_scale = inputs.row_scale.map(|v| operands.add_stored(slot::ROW_SCALE, "row_scale", ROWS, Read, &v));
        let lse = outputs.lse.map(|v| operands.add(slot::LSE, "lse", ROWS, Write, F32, &v));
        let entropy = outputs.entropy.map(|v| operands.add(slot::ENTROPY, "entropy", ROWS, Write, F32, &v));
        let kv_lens = inputs.kv_lens.map(|v| operands.add(slot::KV_LENS, "kv_lens", ["batch"], Read, U32, &v));
        let problem = Problem {
            shapes,
            q,
            k,
            v,
            o,
            row_scale: row_scale.transpose()?,
            lse: lse.transpose()?,
            entropy: entropy.transpose()?,
            kv_lens: kv_lens.transpose()?,
            bias: bias.transpose()?,
            mask: mask.transpose()?,
        };
        let operands = operands.finish()?;
        Ok(Prepared::new(&self.context, self.plan_for(&problem)?, &operands))
    }

    /// Records the call into `encoder` as a compute pass of its own. Plans first if the shapes are new.
    ///
    /// # Errors
    /// As [`prepare`](Self::prepare).
    pub fn record(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        inputs: AttentionInputs<'_>,
        outputs: AttentionOutputs<'_>,
    ) -> Result<()> {
        self.prepare(inputs, outputs).map(|prepared| prepared.record(encoder))
    }

    /// Records the call into a pass of the caller's. Plans first if the shapes are new.
    ///
    /// # Errors
    /// As [`prepare`](Self::prepare).
    pub fn record_in(
        &self,
        pass: &mut wgpu::ComputePass<'_>,
        inputs: AttentionInputs<'_>,
        outputs: AttentionOutputs<'_>,
    ) -> Result<()> {
        self.prepare(inputs, outputs).map(|prepared| prepared.record_in(pass))
    }

    fn plan_for(&self, problem: &Problem) -> Result<Arc<Plan>> {
        self.plans.get_or_build(problem, || offers::plan(&self.context, &self.config, problem))
    }
}
