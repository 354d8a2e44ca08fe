//! What the caller asks of a matrix product.

use crate::Matrices;

/// What is done to each element of the product, its bias added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Activation {
    /// Nothing.
    #[default]
    None,
    /// x / (1 + e⁻ˣ).
    Silu,
    /// max(x, 0).
    Relu,
    /// x (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2: the tanh form of the Gaussian error linear unit. Hendrycks and Gimpel,
    /// "Gaussian Error Linear Units", 2016, section 2.
    GeluTanh,
}

/// A matrix product's arithmetic and epilogue. Plain data; the kernel and the CPU twin read the same value.
///
/// ```
/// use wgpu_attention::{Activation, MatMulConfig};
/// assert_eq!(MatMulConfig::new().activation(Activation::Silu).activation, Activation::Silu);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case", deny_unknown_fields, default)
)]
pub struct MatMulConfig {
    /// Default: none.
    pub activation: Activation,
    /// Default: none, products of f32.
    pub matrices: Matrices,
}

impl MatMulConfig {
    /// No activation, products of f32.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the activation.
    #[must_use]
    pub fn activation(self, activation: Activation) -> Self {
        Self { activation, ..self }
    }

    /// Sets whether the product may run on cooperative matrices.
    #[must_use]
    pub fn matrices(self, matrices: Matrices) -> Self {
        Self { matrices, ..self }
    }
}
