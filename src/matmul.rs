//! Matrix products: c = activation(a b + bias), batched, with transposes by stride.

mod config;
mod kernels;
mod offers;
mod plan;
pub mod reference;
mod shapes;

pub use config::{Activation, MatMulConfig};
#[doc(hidden)]
pub use kernels::specializations;
#[cfg(feature = "blocking")]
pub(crate) use offers::subject;
pub use shapes::MatMulShapes;
pub(crate) use shapes::TensorShapes;

use crate::dispatch::{Plan, PlanCache, Prepared};
use crate::tensor::{Access, DType, Operands};
use crate::{Context, Result, TensorView};
use kernels::slot;
use plan::{Problem, RESULT};
use std::sync::Arc;

/// The tensors that a matrix product reads.
///
/// | field | shape | dtype | |
/// |---|---|---|---|
/// | `a` | `[batch, heads, m, k]` | float | either of the last two axes has stride 1 |
/// | `b` | `[batch, heads, k, n]` | float | the same; `batch` and `heads` may have stride 0, as in `a` |
/// | `bias` | `[batch, heads, m, n]` | float | any outer axis may have stride 0: `[1, 1, 1, n]` broadcast is a bias per column |
///
/// `k` may be 0: the product is 0 then, as in BLAS and NumPy, and c is the activated bias.
///
/// NaN in a row of a, a column of b or a bias comes out of every sum it is in, and of every activation. WGSL lets a driver assume that
/// there is none; the six on which this is tested do not.
///
/// A transposed matrix is a view with its last two axes swapped: q kᵀ takes `k.swap_axes(2, 3)` as `b`.
#[derive(Clone, Copy, Debug)]
pub struct MatMulInputs<'a> {
    /// Left factor.
    pub a: TensorView<'a, 4>,
    /// Right factor.
    pub b: TensorView<'a, 4>,
    /// Added to the product before the activation.
    pub bias: Option<TensorView<'a, 4>>,
}

impl<'a> MatMulInputs<'a> {
    /// Two factors, and no bias.
    #[must_use]
    pub fn new(a: TensorView<'a, 4>, b: TensorView<'a, 4>) -> Self {
        Self { a, b, bias: None }
    }
}

/// The tensor that a matrix product writes.
///
/// | field | shape | dtype | |
/// |---|---|---|---|
/// | `c` | `[batch, heads, m, n]` | float | the last axis has stride 1 |
///
/// It may not lie in a buffer of an input, even beside it.
#[derive(Clone, Copy, Debug)]
pub struct MatMulOutputs<'a> {
    /// The product.
    pub c: TensorView<'a, 4>,
}

/// Matrix products on one device.
///
/// ```text
/// c = activation(a b + bias)
/// ```
///
/// A float is f32, f16 or bf16, for each tensor its own; see [`DType`]. Accumulation is f32; the same call on the same device gives the same bits.
///
/// ```no_run
/// use wgpu_attention::{Activation, Context, MatMul, MatMulConfig, MatMulInputs, MatMulOutputs, TensorView};
/// # fn record(device: wgpu::Device, queue: wgpu::Queue, encoder: &mut wgpu::CommandEncoder,
/// #     [x, weight, bias, c]: [&wgpu::Buffer; 4]) -> wgpu_attention::Result<()> {
/// let context = Context::new(device, queue);
/// let matmul = MatMul::new(&context, MatMulConfig::new().activation(Activation::Silu))?;
/// let (tokens, width, out) = (512, 768, 1536);
/// // A linear layer whose weight is stored [out, width].
/// let mut inputs = MatMulInputs::new(
///     TensorView::f32(x, [1, 1, tokens, width]),
///     TensorView::f32(weight, [1, 1, out, width]).swap_axes(2, 3),
/// );
/// inputs.bias = Some(TensorView::f32(bias, [1, 1, 1, out]).broadcast_to([1, 1, tokens, out]));
/// matmul.record(encoder, inputs, MatMulOutputs { c: TensorView::f32(c, [1, 1, tokens, out]) })?;
/// # Ok(())
/// # }
/// ```
///
/// # Source
/// Volkov and Demmel, "Benchmarking GPUs to Tune Dense Linear Algebra", 2008, section 5.
#[derive(Debug)]
pub struct MatMul {
    context: Context,
    config: MatMulConfig,
    plans: PlanCache<Problem>,
}

impl MatMul {
    /// Compiles nothing yet.
    ///
    /// # Errors
    /// None: every config is valid.
    pub fn new(context: &Context, config: MatMulConfig) -> Result<Self> {
        Ok(Self { context: context.clone(), config, plans: PlanCache::default() })
    }

    /// The config.
    #[must_use]
    pub fn config(&self) -> &MatMulConfig {
        &self.config
    }

    /// Picks the kernel for contiguous tensors of these shapes, all stored as `dtype`, and compiles it.
    ///
    /// # Errors
    /// For shapes that do not fit the device; [`Error::Pipeline`](crate::Error::Pipeline).
    pub fn plan(&self, shapes: &MatMulShapes, dtype: DType) -> Result<Arc<Plan>> {
        shapes.check()?;
        let device = self.context.capabilities();
        let problem = Problem::contiguous(*shapes).stored(dtype, device)?;
        let limits = &device.limits;
        for (name, layout) in [("a", problem.a), ("b", problem.b), ("c", problem.c)] {
            layout.check(name, limits)?;
        }
        self.plan_for(&problem)
    }

    /// Checks tensors and finds their plan; compiles only what no earlier plan needed.
    ///
    /// # Errors
    /// Whatever is wrong with the tensors, by name; see [`Error`](crate::Error). Nothing has been recorded.
    pub fn prepare<'a>(&self, inputs: MatMulInputs<'a>, outputs: MatMulOutputs<'a>) -> Result<Prepared<'a>> {
        let shapes = TensorShapes {
            a: inputs.a.shape,
            b: inputs.b.shape,
            bias: inputs.bias.map(|view| view.shape),
            c: Some(outputs.c.shape),
        };
        let mut shapes = shapes.check()?;
        shapes.a_transposed = is_transposed(&inputs.a);
        shapes.b_transposed = is_transposed(&inputs.b);

        let mut operands: Operands<{ slot::COUNT }> = Operands::new(self.context.capabilities());
        let mut factor = |slot, name, [outer, inner]: [&'static str; 2], view: TensorView<'a, 4>, transposed| {
            let (axes, view) = match transposed {
                true => (["batch", "heads", inner, outer], view.swap_axes(2, 3)),
                false => (["batch", "heads", outer, inner], view),
            };
            operands.add_stored(slot, name, axes, Access::Read, &view)
        };
        let a = factor(slot::A, "a", ["m", "k"], inputs.a, shapes.a_transposed)?;
        let b = factor(slot::B, "b", ["k", "n"], inputs.b, shapes.b_transposed)?;
        let bias = inputs.bias.map(|view| operands.add_stored(slot::BIAS, "bias", RESULT, Access::Read, &view));
        let bias = bias.transpose()?;
        let c = operands.add_stored(slot::C, "c", RESULT, Access::Write, &outputs.c)?;
        let operands = operands.finish()?;
        let problem = Problem { shapes, a, b, c, bias };
        Ok(Prepared::new(&self.context, self.plan_for(&problem)?, &operands))
    }

    /// Records the call into `encoder` as a compute pass of its own. Plans first if the shapes are new.
    ///
    /// # Errors
    /// As [`prepare`](Self::prepare).
    pub fn record(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        inputs: MatMulInputs<'_>,
        outputs: MatMulOutputs<'_>,
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
        inputs: MatMulInputs<'_>,
        outputs: MatMulOutputs<'_>,
    ) -> Result<()> {
        self.prepare(inputs, outputs).map(|prepared| prepared.record_in(pass))
    }

    fn plan_for(&self, problem: &Problem) -> Result<Arc<Plan>> {
        self.plans.get_or_build(problem, || offers::plan(&self.context, &self.config, problem))
    }
}

/// Whether a matrix must be read as the transpose of what lies in memory.
fn is_transposed(view: &TensorView<'_, 4>) -> bool {
    let [_, _, outer, inner] = view.shape;
    let [_, _, outer_stride, inner_stride] = view.strides;
    inner > 1 && inner_stride != 1 && (outer <= 1 || outer_stride == 1)
}
