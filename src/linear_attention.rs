//! Linear attention: o = φ(q)ᵀ Σ ψ(k) vᵀ / φ(q)·Σ ψ(k) in O(n) time and memory, causal or not, with a state that goes in
//! and comes out.

mod config;
mod kernels;
mod offers;
mod params;
mod plan;
mod problem;
pub mod reference;
mod rounds;
mod shapes;
mod tiles;

use std::sync::Arc;

pub use config::{FeatureMap, LinearAttentionConfig, LinearMode, Normalization};
#[doc(hidden)]
pub use kernels::specializations;
#[cfg(feature = "blocking")]
pub(crate) use offers::subject;
pub use shapes::LinearAttentionShapes;

use crate::dispatch::{Plan, PlanCache, Prepared};
use crate::tensor::{Access, DType, Operands};
use crate::{Context, Result, TensorView};
use plan::slot;
use problem::{Problem, StateLayout, axes};
use shapes::{StateShapes, TensorShapes};

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
/// A float is f32, f16 or bf16, for each tensor its own; see [`DType`].
/// Where there is a `state_max`, `state_s` and `state_z` are sums of ψ(k) e⁻ᵐ. A state's tensors are given together.
/// Keys and values that no row sees, and memory between rows, may hold anything, NaN included.
///
/// NaN that a row sees in q or k makes its o NaN, and in v its own dim of o; so in the state. Under `Exp`, `Softmax` and `Favor` q and k
/// with NaN may give any number, as exponents are bounded by a minimum, which drops it. WGSL lets a driver assume that there is no NaN; the six on
/// which this is tested do not.
/// Exponents (q and k under `Exp` and `Softmax`, those of `Favor`, and a `state_max`) are to lie within ±10³⁸; past that, o and the state may be NaN.
#[derive(Clone, Copy, Debug)]
pub struct LinearAttentionInputs<'a> {
    /// Queries.
    pub q: TensorView<'a, 4>,
    /// Keys.
    pub k: TensorView<'a, 4>,
    /// Values.
    pub v: TensorView<'a, 4>,
    /// The rows of FAVOR+.
    pub projection: Option<TensorView<'a, 2>>,
    /// Visible keys per batch, in tokens.
    pub kv_lens: Option<TensorView<'a, 1>>,
    /// Incoming state: sums of ψ(k) vᵀ.
    pub state_s: Option<TensorView<'a, 4>>,
    /// Incoming state: sums of ψ(k).
    pub state_z: Option<TensorView<'a, 3>>,
    /// Incoming state: running maxima.
    pub state_max: Option<TensorView<'a, 3>>,
}

impl<'a> LinearAttentionInputs<'a> {
    /// Queries, keys and values, and nothing optional.
    #[must_use]
    pub fn new(q: TensorView<'a, 4>, k: TensorView<'a, 4>, v: TensorView<'a, 4>) -> Self {
        Self { q, k, v, projection: None, kv_lens: None, state_s: None, state_z: None, state_max: None }
    }
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
#[derive(Clone, Copy, Debug)]
pub struct LinearAttentionOutputs<'a> {
    /// The output.
    pub o: TensorView<'a, 4>,
    /// Final state: sums of ψ(k) vᵀ.
    pub state_s: Option<TensorView<'a, 4>>,
    /// Final state: sums of ψ(k).
    pub state_z: Option<TensorView<'a, 3>>,
    /// Final state: running maxima.
    pub state_max: Option<TensorView<'a, 3>>,
}

impl<'a> LinearAttentionOutputs<'a> {
    /// The output alone.
    #[must_use]
    pub fn new(o: TensorView<'a, 4>) -> Self {
        Self { o, state_s: None, state_z: None, state_max: None }
    }
}

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
#[derive(Debug)]
pub struct LinearAttention {
    context: Context,
    config: LinearAttentionConfig,
    plans: PlanCache<Problem>,
}

/// The tensors of a state, each under its slot.
struct StateViews<'a> {
    s: Option<TensorView<'a, 4>>,
    z: Option<TensorView<'a, 3>>,
    max: Option<TensorView<'a, 3>>,
}

impl<'a> StateViews<'a> {
    fn shapes(&self) -> StateShapes {
        StateShapes {
            s: self.s.map(|view| view.shape),
            z: self.z.map(|view| view.shape),
            max: self.max.map(|view| view.shape),
        }
    }

    fn add(
        &self,
        operands: &mut Operands<'_, 'a, { slot::COUNT }>,
        slots: [usize; 3],
        access: Access,
    ) -> Result<Option<StateLayout>> {
        let (Some(s), Some(z)) = (&self.s, &self.z) else { return Ok(None) };
        let s = operands.add_stored(slots[0], "state_s", axes::S, access, s)?;
        let z = operands.add_stored(slots[1], "state_z", axes::Z, access, z)?;
        let max = self.max.map(|max| operands.add(slots[2], "state_max", axes::Z, access, DType::F32, &max));
        Ok(Some(StateLayout { s, z, max: max.transpose()? }))
    }
}

fn is_same_view<const RANK: usize>(a: Option<TensorView<'_, RANK>>, b: Option<TensorView<'_, RANK>>) -> bool {
    let (Some(a), Some(b)) = (a, b) else { return false };
    a.buffer == b.buffer && (a.dtype, a.offset, a.shape, a.strides) == (b.dtype, b.offset, b.shape, b.strides)
}

impl LinearAttention {
    /// Checks the config; compiles nothing yet.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) naming the option.
    pub fn new(context: &Context, config: LinearAttentionConfig) -> Result<Self> {
        config.check()?;
        Ok(Self { context: context.clone(), config, plans: PlanCache::default() })
    }

    /// The config.
    #[must_use]
    pub fn config(&self) -> &LinearAttentionConfig {
        &self.config
    }

    /// Picks the kernels for contiguous tensors of these shapes, with q, k, v, projection and o stored as `dtype` and states as f32,
    /// and compiles them. With `state_in` and `state_out` the call is the one in place, where both are the same views.
    ///
    /// # Errors
    /// For shapes that do not fit together or the device; [`Error::Stride`](crate::Error::Stride) where rows of an output in 16 bits
    /// would share a word; [`Error::Pipeline`](crate::Error::Pipeline).
    pub fn plan(&self, shapes: &LinearAttentionShapes, dtype: DType) -> Result<Arc<Plan>> {
        shapes.check(&self.config)?;
        let device = self.context.capabilities();
        let problem = Problem::contiguous(&self.config, *shapes).stored(dtype, device)?;
        let limits = &device.limits;
        for (name, layout) in [("q", problem.q), ("k", problem.k), ("v", problem.v), ("o", problem.o)] {
            layout.check(name, limits)?;
        }
        if let Some(state) = problem.state_in.or(problem.state_out) {
            state.s.check("state_s", limits)?;
        }
        self.plan_for(&problem)
    }

    /// Checks tensors and finds their plan; compiles only what no earlier plan needed.
    ///
    /// # Errors
    /// Whatever is wrong with the tensors, by name; see [`Error`](crate::Error). Nothing has been recorded.
    pub fn prepare<'a>(
        &self,
        inputs: LinearAttentionInputs<'a>,
        outputs: LinearAttentionOutputs<'a>,
    ) -> Result<Prepared<'a>> {
        let state_in = StateViews { s: inputs.state_s, z: inputs.state_z, max: inputs.state_max };
        let state_out = StateViews { s: outputs.state_s, z: outputs.state_z, max: outputs.state_max };
        let shapes = TensorShapes {
            q: inputs.q.shape,
            k: inputs.k.shape,
            v: inputs.v.shape,
            projection: inputs.projection.map(|view| view.shape),
            kv_lens: inputs.kv_lens.map(|view| view.shape),
            state_in: state_in.shapes(),
            o: Some(outputs.o.shape),
            state_out: state_out.shapes(),
        }
        .check(&self.config)?;

        use Access::{Read, Write};
        let mut operands: Operands<{ slot::COUNT }> = Operands::new(self.context.capabilities());
        let q = operands.add_stored(slot::Q, "q", axes::Q, Read, &inputs.q)?;
        let k = operands.add_stored(slot::K, "k", axes::K, Read, &inputs.k)?;
        let v = operands.add_stored(slot::V, "v", axes::V, Read, &inputs.v)?;
        let o = operands.add_stored(slot::O, "o", axes::O, Write, &outputs.o)?;
        let projection = inputs
            .projection
            .map(|view| operands.add_stored(slot::PROJECTION, "projection", axes::PROJECTION, Read, &view));
        let projection = projection.transpose()?;
        let kv_lens =
            inputs.kv_lens.map(|view| operands.add(slot::KV_LENS, "kv_lens", ["batch"], Read, DType::U32, &view));
        let kv_lens = kv_lens.transpose()?;
        let layout_in = state_in.add(&mut operands, slot::STATE_IN, Read)?;
        let layout_out = state_out.add(&mut operands, slot::STATE_OUT, Write)?;
        let same = [
            is_same_view(state_in.s, state_out.s),
            is_same_view(state_in.z, state_out.z),
            is_same_view(state_in.max, state_out.max),
        ];
        for (i, input) in slot::STATE_IN.into_iter().enumerate() {
            for (j, output) in slot::STATE_OUT.into_iter().enumerate() {
                operands.keep_apart(input, output, i == j && same[i]);
            }
        }
        let in_place = same[0] && same[1] && same[2] == state_in.max.is_some();
        let problem =
            Problem { shapes, q, k, v, o, projection, kv_lens, state_in: layout_in, state_out: layout_out, in_place };
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
        inputs: LinearAttentionInputs<'_>,
        outputs: LinearAttentionOutputs<'_>,
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
        inputs: LinearAttentionInputs<'_>,
        outputs: LinearAttentionOutputs<'_>,
    ) -> Result<()> {
        self.prepare(inputs, outputs).map(|prepared| prepared.record_in(pass))
    }

    fn plan_for(&self, problem: &Problem) -> Result<Arc<Plan>> {
        self.plans.get_or_build(problem, || offers::plan(&self.context, &self.config, problem))
    }
}
