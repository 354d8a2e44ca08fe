//! What the caller asks of softmax attention.

use crate::{Error, Matrices, Result};

/// Which keys a query may see by position. `offset` is how far the diagonal lies to the right of `j = i`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Causal {
    /// Every key. A window, if there is one, lies about the diagonal `j = i`.
    #[default]
    None,
    /// Key j is visible to query i if j ≤ i, whatever the lengths: PyTorch's `is_causal`, ONNX without a cache.
    TopLeft,
    /// The last query sees the last key: j ≤ i + kv_len − q_len, with the batch's own key length where `kv_lens` is
    /// given. What decoding with a cache needs; FlashAttention since 2.1.
    BottomRight,
    /// j ≤ i + offset.
    Offset(i32),
}

/// A window about the diagonal p = i + offset: keys p − left to p + right, both included; `None` is no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct Window {
    /// Keys visible to the left of the diagonal.
    #[cfg_attr(feature = "serde", serde(default))]
    pub left: Option<u32>,
    /// Keys visible to its right. A causal mask still hides them.
    #[cfg_attr(feature = "serde", serde(default))]
    pub right: Option<u32>,
}

/// What a score q·k is multiplied with. n is the row's own number of visible keys: causal mask, window, key lengths and
/// boolean mask counted, additive bias not. d is the head_dim of q and k; log is natural.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case", deny_unknown_fields)
)]
pub enum Scale {
    /// 1/√d.
    #[default]
    InvSqrtDim,
    /// A given number.
    Fixed(f32),
    /// Entropy-invariant attention: log(max(n, floor)) / (log(base) √d). Base 512 makes it 1/√d at n = 512; a model
    /// trained at length N takes base N; a floor of 16 is what GAU-α's `softmax_plus` uses. Su Jianlin, "Attention's
    /// scale from entropy invariance", kexue.fm/archives/8823.
    LogN {
        /// The length at which the scale is 1/√d; above 1.
        base: f32,
        /// Rows that see fewer keys are scaled as if they saw this many; at least 1.
        floor: u32,
    },
    /// κ log(n)/d: the general form of kexue.fm/archives/8823.
    KappaLogN {
        /// κ, independent of n and d.
        kappa: f32,
    },
    /// max(1, log(n)/log(train_len)) / √d: for a model trained with 1/√d at this length, at inference only.
    /// kexue.fm/archives/9708.
    LogNInference {
        /// The training length; at least 2.
        train_len: u32,
    },
    /// log(n)/√d. Chiang and Cholak, "Overcoming a Theoretical Limitation of Self-Attention", 2022, section 4.3.
    LogNSqrtDim,
    /// s log(n), with 1/√d only if asked: Scalable-Softmax. Nakanishi, 2025, arXiv 2501.19399.
    ScalableSoftmax {
        /// The learned factor.
        s: f32,
        /// Whether to divide by √d as well.
        inv_sqrt_dim: bool,
    },
    /// One number per row from the input `row_scale`.
    PerRow,
}

impl Scale {
    /// Entropy-invariant attention with base 512 and no floor.
    pub const LOG_N: Self = Self::LogN { base: 512.0, floor: 1 };

    /// The scale as `factor · max(log(max(n, floor)), least)`, or a constant `factor` where `log_n` is false.
    pub(crate) fn terms(self, head_dim: u32) -> ScaleTerms {
        let inv_sqrt_dim = 1.0 / f64::from(head_dim).sqrt();
        let constant = |factor| ScaleTerms { log_n: false, factor, floor: 1, least: 0.0 };
        let log_n = |factor| ScaleTerms { log_n: true, factor, floor: 1, least: 0.0 };
        match self {
            Self::InvSqrtDim => constant(inv_sqrt_dim),
            Self::Fixed(scale) => constant(scale.into()),
            Self::LogN { base, floor } => ScaleTerms { floor, ..log_n(inv_sqrt_dim / f64::from(base).ln()) },
            Self::KappaLogN { kappa } => log_n(f64::from(kappa) / f64::from(head_dim)),
            Self::LogNInference { train_len } => {
                let least = f64::from(train_len).ln();
                ScaleTerms { least, ..log_n(inv_sqrt_dim / least) }
            }
            Self::LogNSqrtDim => log_n(inv_sqrt_dim),
            Self::ScalableSoftmax { s, inv_sqrt_dim: divide } => {
                log_n(f64::from(s) * if divide { inv_sqrt_dim } else { 1.0 })
            }
            Self::PerRow => constant(1.0),
        }
    }

    /// The derivative of the scale by its number, as the scale of a row has it; of one without a number, by a factor before it.
    pub(crate) fn slope(self, head_dim: u32) -> ScaleTerms {
        let of_one = match self {
            Self::Fixed(_) => Self::Fixed(1.0),
            Self::KappaLogN { .. } => Self::KappaLogN { kappa: 1.0 },
            Self::ScalableSoftmax { inv_sqrt_dim, .. } => Self::ScalableSoftmax { s: 1.0, inv_sqrt_dim },
            other => other,
        };
        of_one.terms(head_dim)
    }

    pub(crate) fn check(self) -> Result<()> {
        let finite = |option, value: f32| {
            if value.is_finite() { Ok(()) } else { Err(config_error(option, "a finite number", value)) }
        };
        match self {
            Self::InvSqrtDim | Self::LogNSqrtDim | Self::PerRow => Ok(()),
            Self::Fixed(scale) => finite("scale.fixed", scale),
            Self::KappaLogN { kappa } => finite("scale.kappa_log_n.kappa", kappa),
            Self::ScalableSoftmax { s, .. } => finite("scale.scalable_softmax.s", s),
            Self::LogN { base, floor } => {
                if !(base.is_finite() && base > 1.0) {
                    return Err(config_error("scale.log_n.base", "a finite number above 1", base));
                }
                if floor == 0 {
                    return Err(config_error("scale.log_n.floor", "at least 1", floor));
                }
                Ok(())
            }
            Self::LogNInference { train_len } if train_len < 2 => {
                Err(config_error("scale.log_n_inference.train_len", "at least 2", train_len))
            }
            Self::LogNInference { .. } => Ok(()),
        }
    }
}

/// See [`Scale::terms`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ScaleTerms {
    pub log_n: bool,
    pub factor: f64,
    pub floor: u32,
    pub least: f64,
}

impl ScaleTerms {
    /// The scale of a row that sees `n` keys.
    pub fn at(&self, n: usize) -> f64 {
        if self.log_n { self.factor * (n.max(self.floor as usize) as f64).ln().max(self.least) } else { self.factor }
    }
}

/// Softmax attention: causal mask, window, scale and softcap. Plain data; the kernel and the CPU twin read the same value.
///
/// ```
/// use wgpu_attention::{AttentionConfig, Causal, Scale};
/// let config = AttentionConfig::new()
///     .causal(Causal::BottomRight)
///     .window(Some(255), None)
///     .scale(Scale::LogN { base: 512.0, floor: 16 });
/// assert_eq!(config.causal, Causal::BottomRight);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case", deny_unknown_fields, default)
)]
pub struct AttentionConfig {
    /// Default: every key.
    pub causal: Causal,
    /// Default: no window.
    pub window: Window,
    /// Default: 1/√d.
    pub scale: Scale,
    /// Scaled scores s become cap · tanh(s / cap); 1e-30 to 1e30. Default: none.
    pub softcap: Option<f32>,
    /// Whether products may run on cooperative matrices, with q, k, v and the weights rounded to f16, of gradients `dout` and
    /// theirs too. Default: none.
    pub matrices: Matrices,
}

impl AttentionConfig {
    /// Every key, 1/√d, no softcap.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the causal mask.
    #[must_use]
    pub fn causal(self, causal: Causal) -> Self {
        Self { causal, ..self }
    }

    /// Sets the window about the diagonal, in keys to either side.
    #[must_use]
    pub fn window(self, left: Option<u32>, right: Option<u32>) -> Self {
        Self { window: Window { left, right }, ..self }
    }

    /// Sets the scale.
    #[must_use]
    pub fn scale(self, scale: Scale) -> Self {
        Self { scale, ..self }
    }

    /// Sets the softcap.
    #[must_use]
    pub fn softcap(self, cap: f32) -> Self {
        Self { softcap: Some(cap), ..self }
    }

    /// Sets whether products may run on cooperative matrices.
    #[must_use]
    pub fn matrices(self, matrices: Matrices) -> Self {
        Self { matrices, ..self }
    }

    /// Refuses values that mean nothing.
    ///
    /// # Errors
    /// [`Error::Config`] naming the option.
    pub fn check(&self) -> Result<()> {
        self.visibility().check()?;
        self.scale.check()?;
        match self.softcap {
            Some(cap) if !(1e-30..=1e30).contains(&cap) => Err(config_error("softcap", "1e-30 to 1e30", cap)),
            _ => Ok(()),
        }
    }

    pub(crate) fn visibility(&self) -> Visibility {
        Visibility { causal: self.causal, window: self.window }
    }
}

/// Causal mask and window: the range of keys that a query may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Visibility {
    pub causal: Causal,
    pub window: Window,
}

/// What the kernels take for "no bound": positions stay well within i32.
pub(crate) const UNBOUNDED: i32 = 1 << 30;

impl Visibility {
    pub fn is_causal(self) -> bool {
        self.causal != Causal::None
    }

    pub fn is_windowed(self) -> bool {
        self.window != Window::default()
    }

    pub fn check(self) -> Result<()> {
        if let Causal::Offset(offset) = self.causal {
            if offset.unsigned_abs() > UNBOUNDED as u32 {
                return Err(config_error("causal.offset", "at most 2^30 in magnitude", offset));
            }
        }
        for (option, end) in [("window.left", self.window.left), ("window.right", self.window.right)] {
            if let Some(end) = end.filter(|&end| end > UNBOUNDED as u32) {
                return Err(config_error(option, "at most 2^30, or none", end));
            }
        }
        Ok(())
    }

    /// Offset of the diagonal for a key length.
    fn offset(self, q_len: usize, kv_len: usize) -> i64 {
        match self.causal {
            Causal::None | Causal::TopLeft => 0,
            Causal::BottomRight => kv_len as i64 - q_len as i64,
            Causal::Offset(_) => self.fixed_offset(kv_len as u32).into(),
        }
    }

    /// The part of the diagonal's offset that no batch's key length changes. Without a left bound the diagonal may as
    /// well lie at the last key as beyond it, where "unbounded" to its left would end.
    pub fn fixed_offset(self, kv_len: u32) -> i32 {
        match self.causal {
            Causal::Offset(offset) if self.window.left.is_none() => offset.min(kv_len as i32),
            Causal::Offset(offset) => offset,
            _ => 0,
        }
    }

    /// The keys that query `i` of `q_len` sees among the first `kv_len`.
    pub fn range(self, i: usize, q_len: usize, kv_len: usize) -> std::ops::Range<usize> {
        let diagonal = i as i64 + self.offset(q_len, kv_len);
        let end = (diagonal + i64::from(self.right()) + 1).clamp(0, kv_len as i64);
        let begin = (diagonal - i64::from(self.left())).clamp(0, end);
        begin as usize..end as usize
    }

    /// How many pairs of query and visible key there are: the sum of the lengths of all [`range`](Self::range)s.
    pub fn pairs(self, q_len: u32, kv_len: u32) -> u64 {
        let (rows, keys) = (i128::from(q_len), i128::from(kv_len));
        let offset = i128::from(self.offset(q_len as usize, kv_len as usize));
        // The sum over x < t of x clamped to 0..=keys.
        let below = |t: i128| {
            let ramp = t.clamp(0, keys + 1);
            ramp * (ramp - 1) / 2 + keys * (t - keys - 1).max(0)
        };
        let over_rows = |first: i128| below(first + rows) - below(first);
        let ends = over_rows(offset + i128::from(self.right()) + 1);
        let begins = over_rows(offset - i128::from(self.left()));
        u64::try_from(ends - begins).unwrap_or(u64::MAX)
    }

    /// Keys visible to the right of the diagonal.
    pub fn right(self) -> i32 {
        let window = self.window.right.map_or(UNBOUNDED, |right| right as i32);
        if self.causal == Causal::None { window } else { 0 }
    }

    /// Keys visible to its left.
    pub fn left(self) -> i32 {
        self.window.left.map_or(UNBOUNDED, |left| left as i32)
    }
}

pub(crate) fn config_error(option: &'static str, expected: &'static str, got: impl std::fmt::Display) -> Error {
    Error::Config { option, expected, got: got.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_the_sum_of_the_ranges() {
        let windows = [(None, None), (Some(0), Some(0)), (Some(2), None), (None, Some(3)), (Some(1), Some(40))];
        let causals = [Causal::None, Causal::TopLeft, Causal::BottomRight, Causal::Offset(-3), Causal::Offset(7)];
        for (left, right) in windows {
            for causal in causals {
                for (q_len, kv_len) in [(1, 1), (5, 9), (9, 5), (17, 17), (3, 30)] {
                    let visibility = Visibility { causal, window: Window { left, right } };
                    let ranges = (0..q_len).map(|i| visibility.range(i, q_len, kv_len).len() as u64);
                    let pairs = visibility.pairs(q_len as u32, kv_len as u32);
                    assert_eq!(pairs, ranges.sum::<u64>(), "{visibility:?} {q_len} {kv_len}");
                }
            }
        }
    }
}
