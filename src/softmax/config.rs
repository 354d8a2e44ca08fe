//! What the caller asks of a softmax, and of its backward pass.

use crate::Result;
use crate::attention::{Scale, ScaleTerms, config_error};

/// What a row's scores are multiplied with, before they are multiplied with `row_scale`, if that is given. n is the row's own
/// number of columns that the mask leaves; log is natural.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case", deny_unknown_fields)
)]
pub enum SoftmaxScale {
    /// 1/τ; τ above 0.
    Temperature(f32),
    /// A given number, of either sign.
    Fixed(f32),
    /// log(max(n, floor)) / log(base): 1 at n = base. Su Jianlin, kexue.fm/archives/8823.
    LogN {
        /// The number of columns at which the scale is 1; above 1.
        base: f32,
        /// Rows of fewer columns are scaled as if they had this many; at least 1.
        floor: u32,
    },
    /// κ log(n): the entropy-invariant scale of kexue.fm/archives/8823, and Scalable-Softmax (Nakanishi, 2025, arXiv 2501.19399).
    KappaLogN {
        /// κ, independent of n. One that is learned is `row_scale`, with κ = 1 here.
        kappa: f32,
    },
    /// max(1, log(n)/log(train_len)): for a model trained with scale 1 on rows of this length. kexue.fm/archives/9708.
    LogNInference {
        /// The length in training; at least 2.
        train_len: u32,
    },
}

impl Default for SoftmaxScale {
    fn default() -> Self {
        Self::Temperature(1.0)
    }
}

impl SoftmaxScale {
    /// The scale as attention has it for heads one wide, and the temperature that divides it.
    fn of_attention(self) -> (Scale, f32) {
        match self {
            Self::Temperature(tau) => (Scale::Fixed(1.0), tau),
            Self::Fixed(scale) => (Scale::Fixed(scale), 1.0),
            Self::LogN { base, floor } => (Scale::LogN { base, floor }, 1.0),
            Self::KappaLogN { kappa } => (Scale::KappaLogN { kappa }, 1.0),
            Self::LogNInference { train_len } => (Scale::LogNInference { train_len }, 1.0),
        }
    }

    pub(super) fn terms(self) -> ScaleTerms {
        let (scale, tau) = self.of_attention();
        let terms = scale.terms(1);
        ScaleTerms { factor: terms.factor / f64::from(tau), ..terms }
    }

    fn check(self) -> Result<()> {
        let (scale, tau) = self.of_attention();
        // Of a subnormal one, the scale is no f32.
        if !(tau.is_finite() && tau >= f32::MIN_POSITIVE) {
            return Err(config_error("scale.temperature", "a finite number above 0, and no subnormal one", tau));
        }
        scale.check()
    }
}

/// What a row's scaled scores become.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case", deny_unknown_fields)
)]
#[non_exhaustive]
pub enum SoftmaxKind {
    /// exp(s_j) / Σ exp(s).
    #[default]
    Softmax,
    /// f(s_j) / Σ f(s) with f(s) = 1 + s + s²/2, which is nowhere below ½; `lse` is log Σ f(s). Scores are to lie within ±10¹⁵: none is
    /// subtracted from them, as f knows no shift. De Brébisson and Vincent, "An Exploration of Softmax Alternatives Belonging to the Spherical
    /// Loss Family", 2016, section 3.2; Su Jianlin, kexue.fm/archives/10145.
    Taylor,
    /// exp(s_j) / Σ exp(s) over the k largest scores of the row, of equal ones those of the lowest columns; 0 elsewhere. `lse` and
    /// the entropy are of those.
    TopK {
        /// How many: 1 to the columns. A row of fewer columns that take part keeps them all.
        k: u32,
    },
    /// The point of the simplex that is nearest to the scores: [s_j − τ]₊, with Σ p = 1. It is entmax at α = 2. Martins and Astudillo, "From
    /// Softmax to Sparsemax", 2016, equation 2.
    Sparsemax,
    /// [(α − 1) s_j − τ]₊^(1/(α−1)), with Σ p = 1: the softmax in the limit of α to 1. Peters, Niculae and Martins, "Sparse
    /// Sequence-to-Sequence Models", 2019, equation 10.
    Entmax {
        /// Above 1, and at most 2. Where the tensor `alpha` is given, that stands for it.
        alpha: f32,
    },
}

impl SoftmaxKind {
    /// α, of a kind with a threshold.
    pub(super) fn alpha(self) -> Option<f32> {
        match self {
            Self::Sparsemax => Some(2.0),
            Self::Entmax { alpha } => Some(alpha),
            _ => None,
        }
    }

    /// k, of the kind that has it.
    pub(super) fn top_k(self) -> Option<u32> {
        if let Self::TopK { k } = self { Some(k) } else { None }
    }

    /// Whether it has a Fenchel-Young loss.
    pub(super) fn has_loss(self) -> bool {
        !matches!(self, Self::Taylor | Self::TopK { .. })
    }

    fn check(self, log: bool) -> Result<()> {
        match self {
            Self::TopK { k: 0 } => Err(config_error("kind.top_k.k", "at least 1", 0)),
            Self::Entmax { alpha } if !(alpha > 1.0 && alpha <= 2.0) => {
                Err(config_error("kind.entmax.alpha", "above 1 and at most 2", alpha))
            }
            Self::Sparsemax | Self::Entmax { .. } if log => Err(config_error(
                "log",
                "false, as p of this kind is 0 in columns that take part, and there log p has no gradient",
                log,
            )),
            _ => Ok(()),
        }
    }
}

/// The softmax of rows. Plain data; the kernel, the backward pass and the CPU twins read the same value.
///
/// ```
/// use wgpu_attention::{SoftmaxConfig, SoftmaxScale};
/// let config = SoftmaxConfig::new().scale(SoftmaxScale::Temperature(0.5)).log(true);
/// assert!(config.check().is_ok() && config.log);
/// assert!(SoftmaxConfig::new().scale(SoftmaxScale::Temperature(0.0)).check().is_err());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case", deny_unknown_fields, default)
)]
pub struct SoftmaxConfig {
    /// Default: the softmax itself.
    pub kind: SoftmaxKind,
    /// Default: a temperature of 1.
    pub scale: SoftmaxScale,
    /// Whether `p` is log p, which is −∞ where p is 0. Default: p itself. Sparsemax and entmax have no log p: gradients through it
    /// would need those of columns whose p is 0.
    pub log: bool,
}

impl SoftmaxConfig {
    /// p at a temperature of 1.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets what scores become.
    #[must_use]
    pub fn kind(self, kind: SoftmaxKind) -> Self {
        Self { kind, ..self }
    }

    /// Sets the scale.
    #[must_use]
    pub fn scale(self, scale: SoftmaxScale) -> Self {
        Self { scale, ..self }
    }

    /// Sets whether `p` is log p.
    #[must_use]
    pub fn log(self, log: bool) -> Self {
        Self { log, ..self }
    }

    /// Refuses values that mean nothing.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) naming the option.
    pub fn check(&self) -> Result<()> {
        self.kind.check(self.log)?;
        self.scale.check()
    }
}
