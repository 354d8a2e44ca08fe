//! What the caller asks of the multi-label loss.

use crate::attention::config_error;
use crate::op::GivenNames;
use crate::operand::Operand;
use crate::{Reduction, Result};

/// What says which classes of a row are positive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Labels {
    /// A byte a class: `labels`.
    #[default]
    Bitmap,
    /// A list a row, padded: `label_indices`. A class that stands twice counts once.
    Indices,
    /// One list for all rows, and where each row's begin: `label_list` and `label_offsets`. A class that stands twice counts once.
    Offsets,
    /// A number between 0 and 1 a class: `soft_labels`.
    Soft,
    /// Nothing: there is no loss, only `predictions` and `probabilities`.
    None,
}

/// The score above which a class is predicted.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Threshold {
    /// The same number always, between ±10³⁷.
    Fixed(f32),
    /// The tensor `threshold`, of one number or of one a class; it has a gradient.
    Tensor,
}

/// The loss and its backward pass. Plain data; the kernels and the CPU twins read the same value.
///
/// ```
/// use wgpu_attention::multilabel_softmax::Labels;
/// use wgpu_attention::{MultilabelSoftmaxConfig, Reduction};
/// let config = MultilabelSoftmaxConfig::new().labels(Labels::Soft).reduction(Reduction::Mean);
/// assert_eq!(config.labels, Labels::Soft);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case", deny_unknown_fields, default)
)]
pub struct MultilabelSoftmaxConfig {
    /// What says which classes are positive. Default: a bitmap.
    pub labels: Labels,
    /// The score above which a class is predicted. Default: 0.
    pub threshold: Threshold,
    /// How the losses of rows become one. Default: they do not. A mean counts every row, also one of
    /// which no class takes part.
    pub reduction: Reduction,
}

impl Default for MultilabelSoftmaxConfig {
    fn default() -> Self {
        Self { labels: Labels::default(), threshold: Threshold::Fixed(0.0), reduction: Reduction::default() }
    }
}

impl MultilabelSoftmaxConfig {
    /// A bitmap of labels, a threshold of 0, a loss a row.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets what says which classes are positive.
    #[must_use]
    pub fn labels(self, labels: Labels) -> Self {
        Self { labels, ..self }
    }

    /// Sets the score above which a class is predicted.
    #[must_use]
    pub fn threshold(self, threshold: Threshold) -> Self {
        Self { threshold, ..self }
    }

    /// Sets how the losses of rows become one.
    #[must_use]
    pub fn reduction(self, reduction: Reduction) -> Self {
        Self { reduction, ..self }
    }

    pub(super) fn check(&self) -> Result<()> {
        match self.threshold {
            Threshold::Fixed(number) if !(-MOST..=MOST).contains(&number) => {
                Err(config_error("threshold", "a number between -1e37 and 1e37", number))
            }
            _ => Ok(()),
        }
    }

    /// Whether a call has an operand of labels, or a threshold; none where it is neither.
    pub(super) fn has(&self, name: &str) -> Option<bool> {
        Some(match name {
            "labels" => self.labels == Labels::Bitmap,
            "label_indices" => self.labels == Labels::Indices,
            "label_list" | "label_offsets" => self.labels == Labels::Offsets,
            "soft_labels" => self.labels == Labels::Soft,
            "threshold" => self.threshold == Threshold::Tensor,
            _ => return None,
        })
    }

    /// What is wrong with labels or a threshold being given, or missing.
    pub(super) fn refuses(&self, given: &GivenNames, row: &Operand) -> Option<&'static str> {
        match (self.has(row.name)?, given.has(row), row.name) {
            (true, false, "threshold") => Some("is missing, but the config's threshold is a tensor"),
            (false, true, "threshold") => Some("is given, but the config's threshold is a fixed number"),
            (true, false, _) => Some("is missing, but the config's labels are these"),
            (false, true, _) => Some("is given, but the config's labels are others"),
            _ => None,
        }
    }

    /// The sizes that follow from others.
    pub(super) fn derived(&self, rows: Option<u32>, axis: &str) -> Option<(u32, &'static str)> {
        match (axis, self.reduction) {
            ("losses", Reduction::None) => Some((rows?, "one a row, as the reduction is none")),
            ("losses", _) => Some((1, "one of all rows, as the reduction says")),
            ("offsets", _) => Some((rows?.saturating_add(1), "one more than rows")),
            _ => None,
        }
    }

    /// The threshold where it is no tensor.
    pub(super) fn fixed_threshold(&self) -> f32 {
        match self.threshold {
            Threshold::Fixed(number) => number,
            Threshold::Tensor => 0.0,
        }
    }

    /// What a sum over rows is multiplied with.
    pub(super) fn factor(&self, rows: u32) -> f64 {
        if self.reduction == Reduction::Mean { 1.0 / f64::from(rows) } else { 1.0 }
    }
}

/// Scores and thresholds beyond this count as this.
pub(super) const MOST: f32 = 1e37;
/// Soft labels below this count as 0: 2⁻¹¹⁵.
pub(super) const LEAST_LABEL: f32 = f32::from_bits(12 << 23);
/// Exponents of a gradient beyond this count as this.
pub(super) const MOST_EXPONENT: f64 = 80.0;
