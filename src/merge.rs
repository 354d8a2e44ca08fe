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
pub(crate) use shapes::TensorShapes;

use crate::dispatch::{Plan, PlanCache, Prepared};
use crate::tensor::{Access, DType, Operands};
use crate::{Context, Error, Result, TensorView};
use kernels::slot;
use plan::{PART_AXES, Problem, ROW_AXES};
use std::sync::Arc;

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
#[derive(Clone, Copy, Debug)]
pub struct MergeInputs<'a> {
    /// Partial outputs.
    pub o_parts: TensorView<'a, 5>,
    /// Their log-sum-exp.
    pub lse_parts: TensorView<'a, 4>,
    /// Their entropy.
    pub entropy_parts: Option<TensorView<'a, 4>>,
}

impl<'a> MergeInputs<'a> {
    /// Partial outputs with their log-sum-exp, and no entropy.
    #[must_use]
    pub fn new(o_parts: TensorView<'a, 5>, lse_parts: TensorView<'a, 4>) -> Self {
        Self { o_parts, lse_parts, entropy_parts: None }
    }
}

/// The tensors that a merge writes, and, where the config says to accumulate, reads before.
///
/// | field | shape | dtype | |
/// |---|---|---|---|
/// | `o` | `[batch, heads, len, v_dim]` | float | 0 in a row that sees no key |
/// | `lse` | `[batch, heads, len]` | f32 | natural log; −∞ in a row that sees no key; required to accumulate |
/// | `entropy` | `[batch, heads, len]` | f32 | nats; 0 in a row that sees no key |
///
/// An o of 16 bits is rounded to the nearest as it is written; see [`DType`].
/// To accumulate it must be f32, or each step would round what the steps before have summed. No output may lie in a buffer of an
/// input, even beside it.
#[derive(Clone, Copy, Debug)]
pub struct MergeOutputs<'a> {
    /// The output of all parts.
    pub o: TensorView<'a, 4>,
    /// Its log-sum-exp.
    pub lse: Option<TensorView<'a, 3>>,
    /// Its entropy.
    pub entropy: Option<TensorView<'a, 3>>,
}

impl<'a> MergeOutputs<'a> {
    /// The output and its log-sum-exp, which another merge needs.
    #[must_use]
    pub fn new(o: TensorView<'a, 4>, lse: TensorView<'a, 3>) -> Self {
        Self { o, lse: Some(lse), entropy: None }
    }
}

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
#[derive(Debug)]
pub struct Merge {
    context: Context,
    config: MergeConfig,
    plans: PlanCache<Problem>,
}

impl Merge {
    /// Compiles nothing yet.
    ///
    /// # Errors
    /// None: every config is valid.
    pub fn new(context: &Context, config: MergeConfig) -> Result<Self> {
        Ok(Self { context: context.clone(), config, plans: PlanCache::default() })
    }

    /// The config.
    #[must_use]
    pub fn config(&self) -> &MergeConfig {
        &self.config
    }

    /// Picks the kernel for contiguous tensors of these shapes and compiles it, with o_parts stored as `dtype`, and o as well
    /// unless the merge accumulates.
    ///
    /// # Errors
    /// For shapes that do not fit the device or the config; [`Error::Pipeline`].
    pub fn plan(&self, shapes: &MergeShapes, dtype: DType) -> Result<Arc<Plan>> {
        shapes.check(&self.config)?;
        let device = self.context.capabilities();
        let o = if self.config.accumulate { DType::F32 } else { dtype };
        let problem = Problem::contiguous(*shapes).stored([dtype, o], device)?;
        let limits = &device.limits;
        problem.o_parts.check("o_parts", limits)?;
        problem.lse_parts.check("lse_parts", limits)?;
        problem.o.check("o", limits)?;
        self.plan_for(&problem)
    }

    /// Checks tensors and finds their plan; compiles only what no earlier plan needed.
    ///
    /// # Errors
    /// Whatever is wrong with the tensors, by name; see [`Error`]. Nothing has been recorded.
    pub fn prepare<'a>(&self, inputs: MergeInputs<'a>, outputs: MergeOutputs<'a>) -> Result<Prepared<'a>> {
        let shapes = TensorShapes {
            o_parts: inputs.o_parts.shape,
            lse_parts: inputs.lse_parts.shape,
            entropy_parts: inputs.entropy_parts.map(|view| view.shape),
            o: Some(outputs.o.shape),
            lse: outputs.lse.map(|view| view.shape),
            entropy: outputs.entropy.map(|view| view.shape),
        }
        .check(&self.config)?;

        use Access::{Read, Write};
        const F32: DType = DType::F32;
        const PARTS: [&str; 4] = ["parts", "batch", "heads", "len"];
        const ROWS: [&str; 3] = ["batch", "heads", "len"];
        let mut operands: Operands<{ slot::COUNT }> = Operands::new(self.context.capabilities());
        let o_parts = operands.add_stored(slot::O_PARTS, "o_parts", PART_AXES, Read, &inputs.o_parts)?;
        let lse_parts = operands.add(slot::LSE_PARTS, "lse_parts", PARTS, Read, F32, &inputs.lse_parts)?;
        let entropy_parts =
            inputs.entropy_parts.map(|v| operands.add(slot::ENTROPY_PARTS, "entropy_parts", PARTS, Read, F32, &v));
        let entropy_parts = entropy_parts.transpose()?;
        if self.config.accumulate && outputs.o.dtype != F32 {
            let expected = "F32, as accumulate would round what is summed at every step";
            return Err(Error::DType { tensor: "o", expected, got: outputs.o.dtype });
        }
        let o = operands.add_stored(slot::O, "o", ROW_AXES, Write, &outputs.o)?;
        let lse = outputs.lse.map(|v| operands.add(slot::LSE, "lse", ROWS, Write, F32, &v)).transpose()?;
        let entropy =
            outputs.entropy.map(|v| operands.add(slot::ENTROPY, "entropy", ROWS, Write, F32, &v)).transpose()?;
        let operands = operands.finish()?;
        let problem = Problem { shapes, o_parts, lse_parts, entropy_parts, o, lse, entropy };
        Ok(Prepared::new(&self.context, self.plan_for(&problem)?, &operands))
    }

    /// Records the call into `encoder` as a compute pass of its own. Plans first if the shapes are new.
    ///
    /// # Errors
    /// As [`prepare`](Self::prepare).
    pub fn record(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        inputs: MergeInputs<'_>,
        outputs: MergeOutputs<'_>,
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
        inputs: MergeInputs<'_>,
        outputs: MergeOutputs<'_>,
    ) -> Result<()> {
        self.prepare(inputs, outputs).map(|prepared| prepared.record_in(pass))
    }

    fn plan_for(&self, problem: &Problem) -> Result<Arc<Plan>> {
        self.plans.get_or_build(problem, || plan::build(&self.context, &self.config, problem))
    }
}
