//! Gated attention: o = u ⊙ (A v) with squared-relu or softmax weights A of two affine maps of one z, fused; and FLASH's
//! mixed chunks.

mod config;
mod kernels;
mod offers;
mod plan;
pub mod reference;
mod shapes;
mod tiles;

use std::sync::Arc;

pub use config::{Divisor, GatedAttentionConfig, GauMode, GauWeights, LinearDivisor, QuadraticDivisor};
#[doc(hidden)]
pub use kernels::specializations;
#[cfg(feature = "blocking")]
pub(crate) use offers::subject;
pub use shapes::GatedAttentionShapes;

use crate::dispatch::{Plan, PlanCache, Prepared};
use crate::tensor::{Access, DType, Layout, Operands};
use crate::{Context, Result, TensorView};
use kernels::slot;
use plan::{MAP_AXES, Map, Problem, axes};
use shapes::{AFFINE, AffineShapes, TensorShapes};

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
/// NaN that a row sees in q, k or a map makes its o NaN, under relu² too; in v and u, its own dim of o, unless the key's weight is 0. WGSL
/// lets a driver assume that there is none; the six on which this is tested do not.
/// Weights are f32: scores of a softmax are to lie within ±10³⁸, and squares of relu², with their sums, to be finite. Of a row that sees
/// what does not, o may be infinite or NaN; other rows do not notice.
#[derive(Clone, Copy, Debug)]
pub struct GatedAttentionInputs<'a> {
    /// Queries, unless z is given.
    pub q: Option<TensorView<'a, 4>>,
    /// Keys, unless z is given.
    pub k: Option<TensorView<'a, 4>>,
    /// What q and k are affine maps of.
    pub z: Option<TensorView<'a, 4>>,
    /// Factor of z in q.
    pub gamma_q: Option<TensorView<'a, 2>>,
    /// Term of q.
    pub beta_q: Option<TensorView<'a, 2>>,
    /// Factor of z in k.
    pub gamma_k: Option<TensorView<'a, 2>>,
    /// Term of k.
    pub beta_k: Option<TensorView<'a, 2>>,
    /// Values.
    pub v: TensorView<'a, 4>,
    /// The gate.
    pub u: Option<TensorView<'a, 4>>,
    /// Visible keys per batch, in tokens.
    pub kv_lens: Option<TensorView<'a, 1>>,
    /// Queries of the linear part of mixed chunks, unless z is given.
    pub q_lin: Option<TensorView<'a, 4>>,
    /// Keys of the linear part of mixed chunks, unless z is given.
    pub k_lin: Option<TensorView<'a, 4>>,
    /// Factor of z in q_lin.
    pub gamma_q_lin: Option<TensorView<'a, 2>>,
    /// Term of q_lin.
    pub beta_q_lin: Option<TensorView<'a, 2>>,
    /// Factor of z in k_lin.
    pub gamma_k_lin: Option<TensorView<'a, 2>>,
    /// Term of k_lin.
    pub beta_k_lin: Option<TensorView<'a, 2>>,
}

impl<'a> GatedAttentionInputs<'a> {
    /// Queries, keys and values, and nothing optional.
    #[must_use]
    pub fn new(q: TensorView<'a, 4>, k: TensorView<'a, 4>, v: TensorView<'a, 4>) -> Self {
        Self { q: Some(q), k: Some(k), ..Self::none(v) }
    }

    /// One z, its maps to q and k, and values; nothing optional.
    #[must_use]
    pub fn shared(
        z: TensorView<'a, 4>,
        gamma_q: TensorView<'a, 2>,
        gamma_k: TensorView<'a, 2>,
        v: TensorView<'a, 4>,
    ) -> Self {
        Self { z: Some(z), gamma_q: Some(gamma_q), gamma_k: Some(gamma_k), ..Self::none(v) }
    }

    fn none(v: TensorView<'a, 4>) -> Self {
        Self {
            q: None,
            k: None,
            z: None,
            gamma_q: None,
            beta_q: None,
            gamma_k: None,
            beta_k: None,
            v,
            u: None,
            kv_lens: None,
            q_lin: None,
            k_lin: None,
            gamma_q_lin: None,
            beta_q_lin: None,
            gamma_k_lin: None,
            beta_k_lin: None,
        }
    }

    /// γ and β of q, k, q_lin and k_lin.
    fn affine(&self) -> [[Option<TensorView<'a, 2>>; 2]; 4] {
        [
            [self.gamma_q, self.beta_q],
            [self.gamma_k, self.beta_k],
            [self.gamma_q_lin, self.beta_q_lin],
            [self.gamma_k_lin, self.beta_k_lin],
        ]
    }
}

/// The tensors that gated attention writes.
///
/// | field | shape | dtype | |
/// |---|---|---|---|
/// | `o` | `[batch, q_heads, q_len, v_dim]` | float | 0 in a row that sees no key |
///
/// An o of 16 bits is rounded to the nearest as it is written; see [`DType`]. o may not lie in a buffer of an input, even beside
/// it.
#[derive(Clone, Copy, Debug)]
pub struct GatedAttentionOutputs<'a> {
    /// The output.
    pub o: TensorView<'a, 4>,
}

impl<'a> GatedAttentionOutputs<'a> {
    /// The output.
    #[must_use]
    pub fn new(o: TensorView<'a, 4>) -> Self {
        Self { o }
    }
}

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
#[derive(Debug)]
pub struct GatedAttention {
    context: Context,
    config: GatedAttentionConfig,
    plans: PlanCache<Problem>,
}

impl GatedAttention {
    /// Checks the config; compiles nothing yet.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) naming the option.
    pub fn new(context: &Context, config: GatedAttentionConfig) -> Result<Self> {
        config.check()?;
        Ok(Self { context: context.clone(), config, plans: PlanCache::default() })
    }

    /// The config.
    #[must_use]
    pub fn config(&self) -> &GatedAttentionConfig {
        &self.config
    }

    /// Picks the kernels for contiguous tensors of these shapes, every β given and all but kv_lens stored as `dtype`, and
    /// compiles them.
    ///
    /// # Errors
    /// For shapes that do not fit together or the device; [`Error::Stride`](crate::Error::Stride) where rows of an output in 16 bits
    /// would share a word; [`Error::Pipeline`](crate::Error::Pipeline).
    pub fn plan(&self, shapes: &GatedAttentionShapes, dtype: DType) -> Result<Arc<Plan>> {
        shapes.check(&self.config)?;
        let device = self.context.capabilities();
        let problem = Problem::contiguous(*shapes).stored(dtype, device)?;
        let limits = &device.limits;
        let [q, k] = if shapes.shared_z { ["z", "z"] } else { ["q", "k"] };
        // u lies as o does.
        for (name, layout) in [(q, problem.q), (k, problem.k), ("v", problem.v), ("o", problem.o)] {
            layout.check(name, limits)?;
        }
        self.plan_for(&problem)
    }

    /// Checks tensors and finds their plan; compiles only what no earlier plan needed.
    ///
    /// # Errors
    /// Whatever is wrong with the tensors, by name; see [`Error`](crate::Error). Nothing has been recorded.
    pub fn prepare<'a>(
        &self,
        inputs: GatedAttentionInputs<'a>,
        outputs: GatedAttentionOutputs<'a>,
    ) -> Result<Prepared<'a>> {
        let shape = |view: Option<TensorView<4>>| view.map(|view| view.shape);
        let shapes = TensorShapes {
            q: shape(inputs.q),
            k: shape(inputs.k),
            z: shape(inputs.z),
            q_lin: shape(inputs.q_lin),
            k_lin: shape(inputs.k_lin),
            affine: inputs.affine().map(|[gamma, beta]| AffineShapes {
                gamma: gamma.map(|view| view.shape),
                beta: beta.map(|view| view.shape),
            }),
            v: inputs.v.shape,
            u: shape(inputs.u),
            kv_lens: inputs.kv_lens.map(|view| view.shape),
            o: Some(outputs.o.shape),
        }
        .check(&self.config)?;

        use Access::{Read, Write};
        let mut operands: Operands<{ slot::COUNT }> = Operands::new(self.context.capabilities());
        let mut read = |slot, name, view: Option<TensorView<'a, 4>>| {
            view.map(|view| operands.add_stored(slot, name, axes(name), Read, &view)).transpose()
        };
        let z = read(slot::Q, "z", inputs.z)?;
        let q = read(slot::Q, "q", inputs.q)?;
        let k = read(slot::K, "k", inputs.k)?;
        let q_lin = read(slot::Q_LIN, "q_lin", inputs.q_lin)?;
        let k_lin = read(slot::K_LIN, "k_lin", inputs.k_lin)?;
        let u = read(slot::U, "u", inputs.u)?;
        let v = operands.add_stored(slot::V, "v", axes("v"), Read, &inputs.v)?;
        let o = operands.add_stored(slot::O, "o", axes("o"), Write, &outputs.o)?;
        let kv_lens = inputs.kv_lens.map(|v| operands.add(slot::KV_LENS, "kv_lens", ["batch"], Read, DType::U32, &v));
        let kv_lens = kv_lens.transpose()?;
        let mut maps = [None; 4];
        for (index, [gamma, beta]) in inputs.affine().into_iter().enumerate() {
            let mut read = |slot, name, view: Option<TensorView<'a, 2>>| {
                view.map(|view| operands.add_stored(slot, name, MAP_AXES, Read, &view)).transpose()
            };
            let gamma = read(slot::GAMMA + index, AFFINE[index].0, gamma)?;
            let beta = read(slot::BETA + index, AFFINE[index].1, beta)?;
            maps[index] = gamma.map(|gamma| Map { gamma, beta });
        }
        // The shapes' check saw to it that z or q and k are there; what the mode does not use falls back to them.
        let absent = Layout::contiguous([0; 4]);
        let (q, k) = (z.or(q).unwrap_or(absent), z.or(k).unwrap_or(absent));
        let problem =
            Problem { shapes, q, k, q_lin: q_lin.unwrap_or(q), k_lin: k_lin.unwrap_or(k), maps, v, u, o, kv_lens };
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
        inputs: GatedAttentionInputs<'_>,
        outputs: GatedAttentionOutputs<'_>,
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
        inputs: GatedAttentionInputs<'_>,
        outputs: GatedAttentionOutputs<'_>,
    ) -> Result<()> {
        self.prepare(inputs, outputs).map(|prepared| prepared.record_in(pass))
    }

    fn plan_for(&self, problem: &Problem) -> Result<Arc<Plan>> {
        self.plans.get_or_build(problem, || offers::plan(&self.context, &self.config, problem))
    }
}
