//! The backward pass of Gumbel-softmax: gradients of the relaxed sample, also where forward wrote the hard one.

mod plan;
pub mod reference;

#[doc(hidden)]
pub use plan::specializations;

use super::{GumbelSoftmaxBackwardShapes, GumbelSoftmaxConfig};
use crate::TensorView;
use crate::op::op;
use crate::operand::operands;

operands! {
    /// The tensors that the backward pass of Gumbel-softmax reads: what forward read, and the gradient coming in.
    ///
    /// `dy` is `[rows, columns]`, of any float type, and not read where a class takes no part; see
    /// [`GumbelSoftmaxInputs`](crate::GumbelSoftmaxInputs) for the others. Forward saves nothing: the noise is computed again.
    GumbelSoftmaxBackwardInputs {
        /// Logits, the key of the noise that forward drew, and the gradient coming in.
        pub fn new(logits: 2, key: bits 1, dy: 2);
        /// Unnormalized logarithms of probabilities.
        logits: required float ["rows", "columns"].without_gradient();
        /// The key of the noise.
        key: required bits ["words"];
        /// The gradient of a loss with respect to y.
        dy: required float ["rows", "columns"].without_gradient();
        /// Which classes take part.
        mask: optional mask ["rows", "columns"].broadcast();
        /// The temperature.
        tau: optional statistic ["taus"].filled(crate::operand::Fill::Constant(1.0));
        /// A seed per row.
        seeds: optional bits ["rows"];
        /// Ids of rows.
        row_ids: optional bits ["rows"];
    }
    /// The gradients that the backward pass writes; one that is not asked for costs nothing, and one at least is.
    ///
    /// | field | shape | dtype | |
    /// |---|---|---|---|
    /// | `dlogits` | `[rows, columns]` | float | 0 for a class that takes no part |
    /// | `dtau` | as `tau` | f32 | of one number, the sum over the rows in a fixed order |
    ///
    /// Where y is NaN, so are dlogits and the row's dtau.
    GumbelSoftmaxGradients {
        /// No gradient, to be filled.
        pub fn none();
        /// Of the logits.
        dlogits: optional float ["rows", "columns"];
        /// Of the temperature, if that is a tensor.
        dtau: optional statistic ["taus"];
    }
    /// The inputs of the backward pass in host memory; see [`GumbelSoftmaxBackwardInputs`] for shapes.
    HostInputs {}
}

impl<'a> GumbelSoftmaxGradients<'a> {
    /// Of the logits alone.
    #[must_use]
    pub fn new(dlogits: TensorView<'a, 2>) -> Self {
        Self { dlogits: Some(dlogits), ..Self::none() }
    }
}

op! {
    /// The backward pass of Gumbel-softmax on one device.
    ///
    /// ```text
    /// y = softmax(s / τ);   h = y (dy − ⟨y, dy⟩);   dlogits = h / τ;   dtau = −Σ h s / τ²
    /// ```
    ///
    /// The same for [`GumbelKind::Soft`](crate::GumbelKind::Soft) and, as the straight-through estimator,
    /// [`GumbelKind::Hard`](crate::GumbelKind::Hard); a [`GumbelKind::Sample`](crate::GumbelKind::Sample) has no gradient and is
    /// refused. Noise, mask and top-k are constants. The same call gives the same bits.
    ///
    /// # Source
    /// Jang, Gu and Poole, "Categorical Reparameterization with Gumbel-Softmax", 2017, sections 2.2 and 2.3; Bengio, Léonard and
    /// Courville, "Estimating or Propagating Gradients Through Stochastic Neurons", 2013.
    pub struct GumbelSoftmaxBackward: GumbelSoftmaxConfig, GumbelSoftmaxBackwardShapes, GumbelSoftmaxBackwardInputs => GumbelSoftmaxGradients;
    /// Picks the kernels for contiguous tensors of these shapes and compiles them, with logits, dy and dlogits stored as `dtype`.
    plan;
}
