//! What flows back through a softmax.

pub(super) mod plan;
pub mod reference;

use super::{SoftmaxBackwardShapes, SoftmaxConfig};
use crate::op::op;
use crate::operand::{Fill, operands};

#[doc(hidden)]
pub use super::kernels::backward_specializations as specializations;

operands! {
    /// The tensors that a softmax's backward pass reads: what the softmax has read, and the gradients of its outputs. Nothing that it
    /// has written is needed.
    ///
    /// | field | shape | dtype | |
    /// |---|---|---|---|
    /// | `x` | `[rows, columns]` | float | as forward |
    /// | `mask` | `[rows, columns]` | bool | as forward |
    /// | `row_scale` | `[rows]` or `[1]` | float | as forward |
    /// | `alpha` | `[rows]` or `[1]` | float | as forward |
    /// | `labels` | `[rows]` | u32 | as forward: required with `dloss` |
    /// | `dp` | `[rows, columns]` | float | of p, or of log p; not read where a column takes no part |
    /// | `dlse` | `[rows]` | f32 | of lse |
    /// | `dentropy` | `[rows]` | f32 | of the entropy |
    /// | `dloss` | `[rows]` | f32 | of the loss; what is ignored has no gradient, and a label that is no column makes those of its row NaN |
    ///
    /// At least one gradient comes in. NaN that a row sees makes its gradients NaN; other rows do not notice, but for a `drow_scale`
    /// of one number.
    SoftmaxBackwardInputs {
        /// Scores alone: a gradient is to be added.
        pub fn of(x: 2);
        /// Scores.
        x: required float ["rows", "columns"];
        /// Boolean mask, true where a column takes part.
        mask: optional mask ["rows", "columns"].broadcast();
        /// A factor of the scale for each row, or one for all.
        row_scale: optional float ["scales"].planned_as_f32().filled(Fill::Constant(1.0));
        /// α of an entmax.
        alpha: optional float ["alphas"].planned_as_f32().filled(Fill::Constant(1.5));
        /// The column of each row's label.
        labels: optional index ["rows"];
        /// The gradient of p, or of log p.
        dp: optional float ["rows", "columns"];
        /// The gradient of lse.
        dlse: optional statistic ["rows"];
        /// The gradient of the entropy.
        dentropy: optional statistic ["rows"];
        /// The gradient of the loss.
        dloss: optional statistic ["rows"];
    }
    /// The gradients that a softmax's backward pass writes, of which at least one is asked for.
    ///
    /// | field | shape | dtype | |
    /// |---|---|---|---|
    /// | `dx` | `[rows, columns]` | float | 0 in a column that takes no part |
    /// | `drow_scale` | as `row_scale` | f32 | of one number, summed over the rows in an order that never changes; 0 of a row without a column |
    /// | `dalpha` | as `alpha` | f32 | likewise |
    ///
    /// A float is f32, f16 or bf16: rounded to nearest even, once, from f32. No output may lie in a buffer of an input, even beside it.
    SoftmaxGradients {
        /// None yet.
        pub fn none();
        /// The gradient of x.
        dx: optional float ["rows", "columns"];
        /// The gradient of row_scale.
        drow_scale: optional statistic ["scales"];
        /// The gradient of alpha.
        dalpha: optional statistic ["alphas"];
    }
    /// The inputs of a softmax's backward pass in host memory; see [`SoftmaxBackwardInputs`] for shapes.
    HostInputs {}
}

impl<'a> SoftmaxBackwardInputs<'a> {
    /// From the gradient of p, or of log p.
    #[must_use]
    pub fn new(x: crate::TensorView<'a, 2>, dp: crate::TensorView<'a, 2>) -> Self {
        Self { dp: Some(dp), ..Self::of(x) }
    }
}

impl<'a> SoftmaxGradients<'a> {
    /// The gradient of x alone.
    #[must_use]
    pub fn new(dx: crate::TensorView<'a, 2>) -> Self {
        Self { dx: Some(dx), ..Self::none() }
    }
}

op! {
    /// The backward pass of a [`Softmax`](crate::Softmax) of the same config.
    ///
    /// ```text
    /// ds_j = p_j (dp_j − Σ p dp) + dlse p_j − dentropy p_j (log p_j + entropy);   dx_j = λ ds_j;   dλ = Σ ds_j x_j
    /// ```
    ///
    /// Of sparsemax and entmax, with σ_j = p_j^(2−α), which is 0 where p is, and g_j = dp_j − dentropy log p_j:
    ///
    /// ```text
    /// ds_j = σ_j (g_j − Σ σ g / Σ σ) + dloss (p_j − y_j)
    /// dα = Σ g_j ((p_j − σ_j/Σσ)/(α−1)² + (h_j − σ_j Σh/Σσ)/(α−1)) + dloss ∂loss/∂α,   h_j = −p_j log p_j
    /// ```
    ///
    /// computed so that nothing is lost as α gets near 1. A softmax's loss has dloss (p_j − y_j) too. Where p is log p, dp_j − p_j Σ dp stands for the first term. `drow_scale` is dλ times what the [`SoftmaxScale`](crate::SoftmaxScale)
    /// says of the row; of one number, the sum of that over all rows: a learned κ is a `row_scale` of one number, and a temperature
    /// 1 over it. Rows are read again, as often as forward: no p and no lse is kept from there. Sums are in an order
    /// that never changes: the same call gives the same bits.
    ///
    /// ```no_run
    /// use wgpu_attention::{Context, SoftmaxBackward, SoftmaxBackwardInputs, SoftmaxConfig, SoftmaxGradients, TensorView};
    /// # fn record(context: &Context, encoder: &mut wgpu::CommandEncoder, [x, dp, dx]: [&wgpu::Buffer; 3])
    /// # -> wgpu_attention::Result<()> {
    /// let backward = SoftmaxBackward::new(context, SoftmaxConfig::new())?;
    /// let [x, dp, dx] = [x, dp, dx].map(|buffer| TensorView::f32(buffer, [32, 50_257]));
    /// backward.record(encoder, SoftmaxBackwardInputs::new(x, dp), SoftmaxGradients::new(dx))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Source
    /// The derivatives of the formulas of [`Softmax`](crate::Softmax).
    pub struct SoftmaxBackward: SoftmaxConfig, SoftmaxBackwardShapes, SoftmaxBackwardInputs => SoftmaxGradients;
    /// Picks the kernels for contiguous tensors of these shapes and compiles them, with x, dp and dx stored as `dtype`.
    plan;
}
