//! What the caller asks of linear attention.

use crate::attention::config_error;
use crate::{Error, Result};

/// Which keys a query sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum LinearMode {
    /// All of them, or the first `kv_lens[b]`.
    #[default]
    Full,
    /// Query i sees keys 0 to i, and everything in the incoming state. As many queries as keys.
    Causal,
}

/// The map φ of queries and ψ of keys whose product stands for the weight of a pair: sim(q, k) = φ(q)·ψ(k).
///
/// d is the head_dim of q and k; F is the number of features, the rows of a state.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case", deny_unknown_fields)
)]
pub enum FeatureMap {
    /// x + 1 where x ≥ 0, eˣ elsewhere. F = d. Katharopoulos et al., "Transformers are RNNs", 2020, eq. 7.
    #[default]
    EluPlusOne,
    /// eˣ. F = d. kexue.fm/archives/8338. Unbounded: a state carries the running maximum of each key feature.
    Exp,
    /// max(x, 0). F = d.
    Relu,
    /// 1 + max(x, 0). F = d.
    OnePlusRelu,
    /// x itself, unnormalised: a sum of raw products may vanish or be negative. F = d.
    Identity,
    /// Full mode: Efficient Attention, the softmax of each query over its features, and of each key feature over the
    /// sequence; needs [`Normalization::None`], its rows already sum to 1. Causal mode: its causal sibling,
    /// φ = softmax, ψ = exp, as the softmax over the sequence would see the future. F = d; a state carries the running
    /// maximum of each key feature. Shen et al., "Efficient Attention", 2018, section 3.2; kexue.fm/archives/8338.
    Softmax,
    /// sim = 1 + q̂·k̂ with x̂ = x / max(|x|, 10⁻⁶). F = d + 1: the 1 first. kexue.fm/archives/7546.
    Cosine,
    /// sim = 1 + s + s²/2 with s = scale · q·k, never below ½. F = (d + 1)(d + 2)/2: with x̃ = √scale · x, first 1, then
    /// x̃, then x̃ₐx̃ᵦ for a ≤ b row by row, the squares divided by √2. kexue.fm/archives/8601; Arora et al., "Based",
    /// 2024, section 3.1.
    Taylor2 {
        /// What q·k is multiplied with, above 0; 1/√d if none.
        #[cfg_attr(feature = "serde", serde(default))]
        scale: Option<f32>,
    },
    /// FAVOR+: exp(w·x̃ − |x̃|²/2) / √F with x̃ = scale · x, for every row w of the input `projection`. F is its rows, at
    /// most 1024. Unbounded: a state carries the running maximum of the head's key exponents. Choromanski et al.,
    /// "Rethinking Attention with Performers", 2021, eq. 5; kexue.fm/archives/7921.
    Favor {
        /// What q and k are each multiplied with, above 0; d^(−1/4) if none.
        #[cfg_attr(feature = "serde", serde(default))]
        scale: Option<f32>,
    },
}

/// Which running maximum a state carries, so that exponentials stay finite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunningMax {
    PerFeature,
    PerHead,
}

impl RunningMax {
    /// How many maxima a head of this many features carries.
    pub(crate) fn count(self, features: u32) -> u32 {
        match self {
            Self::PerFeature => features,
            Self::PerHead => 1,
        }
    }
}

impl FeatureMap {
    /// F, for a head_dim and the rows of `projection`.
    pub(crate) fn features(self, head_dim: u32, projection_rows: Option<u32>) -> u32 {
        match self {
            Self::Cosine => head_dim.saturating_add(1),
            Self::Taylor2 { .. } => {
                let d = u64::from(head_dim);
                u32::try_from((d + 1).saturating_mul(d + 2) / 2).unwrap_or(u32::MAX)
            }
            Self::Favor { .. } => projection_rows.unwrap_or(head_dim),
            _ => head_dim,
        }
    }

    /// Whether ψ is an exponential, and which maximum the state then carries.
    pub(crate) fn running_max(self) -> Option<RunningMax> {
        match self {
            Self::Exp | Self::Softmax => Some(RunningMax::PerFeature),
            Self::Favor { .. } => Some(RunningMax::PerHead),
            _ => None,
        }
    }

    /// What the map multiplies each of q and k with.
    pub(crate) fn input_scale(self, head_dim: u32) -> f64 {
        let d = f64::from(head_dim);
        match self {
            Self::Taylor2 { scale } => scale.map_or(d.powf(-0.25), |scale| f64::from(scale).sqrt()),
            Self::Favor { scale } => scale.map_or(d.powf(-0.25), f64::from),
            _ => 1.0,
        }
    }

    fn check(self) -> Result<()> {
        let (option, scale) = match self {
            Self::Taylor2 { scale } => ("feature_map.taylor2.scale", scale),
            Self::Favor { scale } => ("feature_map.favor.scale", scale),
            _ => return Ok(()),
        };
        check_positive(option, scale.unwrap_or(1.0))
    }
}

/// What a row's sum of weighted values is divided by.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case", deny_unknown_fields)
)]
pub enum Normalization {
    /// The sum of the row's weights, plus eps.
    Sum {
        /// Added to the sum of the weights as they are, before any maximum is taken out; above 0.
        eps: f32,
    },
    /// Nothing. With an unbounded map the output is then as large as the weights are, up to infinity.
    None,
}

impl Default for Normalization {
    fn default() -> Self {
        Self::Sum { eps: 1e-6 }
    }
}

/// Linear attention: mode, feature map and normalisation. Plain data; the kernel and the CPU twin read the same value.
///
/// ```
/// use wgpu_attention::{FeatureMap, LinearAttentionConfig, LinearMode, Normalization};
/// let config = LinearAttentionConfig::new()
///     .mode(LinearMode::Causal)
///     .feature_map(FeatureMap::Taylor2 { scale: None })
///     .normalization(Normalization::Sum { eps: 1e-6 });
/// assert_eq!(config.mode, LinearMode::Causal);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case", deny_unknown_fields, default)
)]
pub struct LinearAttentionConfig {
    /// Default: full.
    pub mode: LinearMode,
    /// Default: elu + 1.
    pub feature_map: FeatureMap,
    /// Default: by the sum of the weights, eps 10⁻⁶.
    pub normalization: Normalization,
}

impl LinearAttentionConfig {
    /// Full mode, elu + 1, normalised with eps 10⁻⁶.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the mode.
    #[must_use]
    pub fn mode(self, mode: LinearMode) -> Self {
        Self { mode, ..self }
    }

    /// Sets the feature map.
    #[must_use]
    pub fn feature_map(self, feature_map: FeatureMap) -> Self {
        Self { feature_map, ..self }
    }

    /// Sets the normalisation.
    #[must_use]
    pub fn normalization(self, normalization: Normalization) -> Self {
        Self { normalization, ..self }
    }

    /// Refuses values that mean nothing.
    ///
    /// # Errors
    /// [`Error::Config`] naming the option.
    pub fn check(&self) -> Result<()> {
        self.feature_map.check()?;
        let Normalization::Sum { eps } = self.normalization else { return Ok(()) };
        check_positive("normalization.sum.eps", eps)?;
        match self.feature_map {
            FeatureMap::Identity => {
                Err(config_error("normalization", "none with the identity map, whose sums may vanish", "sum"))
            }
            FeatureMap::Softmax if self.mode == LinearMode::Full => {
                Err(config_error("normalization", "none with the softmax map in full mode, which sums to 1", "sum"))
            }
            _ => Ok(()),
        }
    }

    /// Whether each key feature is divided by its own sum over the sequence.
    pub(crate) fn is_efficient_attention(&self) -> bool {
        self.feature_map == FeatureMap::Softmax && self.mode == LinearMode::Full
    }
}

fn check_positive(option: &'static str, value: f32) -> Result<(), Error> {
    // A GPU may take a subnormal number for 0.
    if value.is_normal() && value > 0.0 {
        return Ok(());
    }
    Err(config_error(option, "a finite number above 0 (and not subnormal)", value))
}
