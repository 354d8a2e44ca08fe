//! What the caller asks of Gumbel-softmax.

use crate::Result;
use crate::attention::config_error;

/// What comes out of the perturbed logits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum GumbelKind {
    /// y is their softmax, a relaxed sample.
    #[default]
    Soft,
    /// y is exactly 1 at the largest and exactly 0 elsewhere; its gradient is that of the relaxed sample (straight-through).
    Hard,
    /// The index of the largest and nothing else: a sample of the categorical distribution that the logits say. The temperature
    /// has no part in it.
    Sample,
}

/// What is drawn, and how soft it is. Plain data; the kernels and the CPU twin read the same value. What changes from one call to
/// the next, the key of the noise, is an operand, so that a step of training makes no plan of its own.
///
/// ```
/// use wgpu_attention::{GumbelKind, GumbelSoftmaxConfig};
/// let config = GumbelSoftmaxConfig::new().kind(GumbelKind::Hard).tau(0.5).top_k(Some(40));
/// assert_eq!(config.tau, 0.5);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields, default))]
pub struct GumbelSoftmaxConfig {
    /// What comes out. Default: the relaxed sample.
    pub kind: GumbelKind,
    /// The temperature τ, where the operand `tau` is not given: above 0, a normal number. Default: 1.
    pub tau: f32,
    /// Draws among the k largest logits alone, of equal ones those of the lowest columns; what the mask hides is not counted. 1 to
    /// the columns. Default: among all.
    pub top_k: Option<u32>,
}

impl Default for GumbelSoftmaxConfig {
    fn default() -> Self {
        Self { kind: GumbelKind::Soft, tau: 1.0, top_k: None }
    }
}

impl GumbelSoftmaxConfig {
    /// The relaxed sample at temperature 1, of all classes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets what comes out.
    #[must_use]
    pub fn kind(self, kind: GumbelKind) -> Self {
        Self { kind, ..self }
    }

    /// Sets the temperature.
    #[must_use]
    pub fn tau(self, tau: f32) -> Self {
        Self { tau, ..self }
    }

    /// Draws among the k largest logits alone, or among all.
    #[must_use]
    pub fn top_k(self, top_k: Option<u32>) -> Self {
        Self { top_k, ..self }
    }

    /// Refuses values that mean nothing.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) naming the option.
    pub fn check(&self) -> Result<()> {
        if !(self.tau.is_normal() && self.tau > 0.0) {
            return Err(config_error("tau", "a normal number above 0", self.tau));
        }
        match self.top_k {
            Some(0) => Err(config_error("top_k", "at least 1", 0)),
            _ => Ok(()),
        }
    }
}
