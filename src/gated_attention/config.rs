//! What the caller asks of gated attention.

use crate::attention::{Visibility, config_error};
use crate::{Causal, Matrices, Result, Window};

/// What relu(q·k)² is divided by. n is the row's own number of visible keys, s the width of q and k.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case", deny_unknown_fields)
)]
pub enum Divisor {
    /// n·s: the paper's normalisation as kexue.fm/archives/8934 reads it.
    #[default]
    LenDim,
    /// N·s for one N whatever the row sees, so that a model meets other lengths with the weights of its training.
    FixedLenDim {
        /// N in tokens, at least 1.
        len: u32,
    },
    /// n²: relu(q·k / n)², the code in the paper's appendix.
    LenSquared,
    /// The row's own sum of relu(q·k)², plus eps: the weights add up to one.
    RowSum {
        /// Added to the sum; above 0, for rows in which every q·k is negative.
        eps: f32,
    },
}

/// How scores become weights. n is the row's own number of visible keys, s the width of q and k; log is natural.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case", deny_unknown_fields)
)]
pub enum GauWeights {
    /// relu(q·k)² over a divisor.
    SquaredRelu(Divisor),
    /// softmax(q·k / √s).
    Softmax,
    /// softmax(q·k · log(max(n, floor)) / (log(base) √s)): the entropy-invariant scale of kexue.fm/archives/8823.
    SoftmaxLogN {
        /// The length at which the scale is 1/√s; above 1.
        base: f32,
        /// Rows that see fewer keys are scaled as if they saw this many; at least 1.
        floor: u32,
    },
}

impl GauWeights {
    /// [`SoftmaxLogN`](Self::SoftmaxLogN) with base 512 and no floor.
    pub const SOFTMAX_LOG_N: Self = Self::SoftmaxLogN { base: 512.0, floor: 1 };
}

impl Default for GauWeights {
    fn default() -> Self {
        Self::SquaredRelu(Divisor::LenDim)
    }
}

/// What relu(q·k)² inside a chunk of [`GauMode::MixedChunk`] is divided by. c is the chunk, s the width of q and k.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum QuadraticDivisor {
    /// c·s, in a shorter last chunk too.
    #[default]
    ChunkDim,
    /// A given number above 0. The paper's code, relu(q·k / c)², is `Fixed(c²)`.
    Fixed(f32),
}

/// What the sum over other chunks of [`GauMode::MixedChunk`] is divided by. c is the chunk.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum LinearDivisor {
    /// The tokens in that sum: causal, those before the row's chunk; else all. `kv_lens` counted.
    #[default]
    Tokens,
    /// c: the paper's code, whose sum then grows from chunk to chunk.
    Chunk,
    /// A given number above 0.
    Fixed(f32),
}

/// Which pairs of tokens meet through the weights.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case", deny_unknown_fields)
)]
pub enum GauMode {
    /// All that causal mask, window and lengths leave.
    #[default]
    Full,
    /// FLASH: relu² within chunks of c tokens, linear attention across them; O(n).
    ///
    /// ```text
    /// row i of chunk g:  o_i = Σ_{j in g} relu(q_i·k_j)² v_j / quadratic + q_lin_i (Σ_h k_linₕᵀ v_h) / linear
    /// ```
    ///
    /// Causal, j stops at i and h at the chunk before g; the first chunk has no linear part. Not causal, j runs over
    /// the chunk and h over all chunks, g included. Takes relu² weights, whose divisors are these, and no window.
    MixedChunk {
        /// c in tokens, at least 1.
        #[cfg_attr(feature = "serde", serde(default = "default_chunk"))]
        chunk: u32,
        /// Divides the sum inside the chunk.
        #[cfg_attr(feature = "serde", serde(default))]
        quadratic: QuadraticDivisor,
        /// Divides the sum across chunks.
        #[cfg_attr(feature = "serde", serde(default))]
        linear: LinearDivisor,
    },
}

#[cfg(feature = "serde")]
fn default_chunk() -> u32 {
    DEFAULT_CHUNK
}

/// Tokens per chunk in the paper.
const DEFAULT_CHUNK: u32 = 256;

impl GauMode {
    /// [`MixedChunk`](Self::MixedChunk) with chunks of 256 tokens and the default divisors.
    pub const MIXED_CHUNK: Self =
        Self::MixedChunk { chunk: DEFAULT_CHUNK, quadratic: QuadraticDivisor::ChunkDim, linear: LinearDivisor::Tokens };
}

/// Gated attention: weights, causal mask, window and mode. Plain data; the kernel and the CPU twin read the same value.
///
/// ```
/// use wgpu_attention::{Causal, Divisor, GatedAttentionConfig, GauWeights};
/// let config = GatedAttentionConfig::new()
///     .weights(GauWeights::SquaredRelu(Divisor::FixedLenDim { len: 512 }))
///     .causal(Causal::TopLeft);
/// assert_eq!(config.causal, Causal::TopLeft);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case", deny_unknown_fields, default)
)]
pub struct GatedAttentionConfig {
    /// Default: relu² over n·s.
    pub weights: GauWeights,
    /// Default: every key.
    pub causal: Causal,
    /// Default: no window.
    pub window: Window,
    /// Default: full.
    pub mode: GauMode,
    /// Whether both products may run on cooperative matrices, with queries, keys, values and weights rounded to f16; not in mixed
    /// chunks. Weights are in units of their row's largest before they are rounded. Default: none.
    pub matrices: Matrices,
}

impl GatedAttentionConfig {
    /// relu² over n·s of every pair.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the weights.
    #[must_use]
    pub fn weights(self, weights: GauWeights) -> Self {
        Self { weights, ..self }
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

    /// Sets the mode.
    #[must_use]
    pub fn mode(self, mode: GauMode) -> Self {
        Self { mode, ..self }
    }

    /// Sets whether both products may run on cooperative matrices.
    #[must_use]
    pub fn matrices(self, matrices: Matrices) -> Self {
        Self { matrices, ..self }
    }

    /// Refuses values that mean nothing, and what mixed chunks do not combine with.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) naming the option.
    pub fn check(&self) -> Result<()> {
        self.visibility().check()?;
        match self.weights {
            GauWeights::SquaredRelu(Divisor::FixedLenDim { len: 0 }) => {
                return Err(config_error("weights.squared_relu.fixed_len_dim.len", "at least 1", 0));
            }
            GauWeights::SquaredRelu(Divisor::RowSum { eps }) => {
                positive("weights.squared_relu.row_sum.eps", eps)?;
            }
            GauWeights::SoftmaxLogN { base, .. } if !(base.is_finite() && base > 1.0) => {
                return Err(config_error("weights.softmax_log_n.base", "a finite number above 1", base));
            }
            GauWeights::SoftmaxLogN { floor: 0, .. } => {
                return Err(config_error("weights.softmax_log_n.floor", "at least 1", 0));
            }
            _ => {}
        }
        let GauMode::MixedChunk { chunk, quadratic, linear } = self.mode else { return Ok(()) };
        if !(1..=MAX_CHUNK).contains(&chunk) {
            return Err(config_error("mode.mixed_chunk.chunk", "1 to 2^30", chunk));
        }
        if let QuadraticDivisor::Fixed(divisor) = quadratic {
            positive("mode.mixed_chunk.quadratic.fixed", divisor)?;
        }
        if let LinearDivisor::Fixed(divisor) = linear {
            positive("mode.mixed_chunk.linear.fixed", divisor)?;
        }
        if self.weights != GauWeights::default() {
            let expected = "with mixed_chunk, squared_relu of len_dim (the mode's own divisors apply)";
            return Err(config_error("weights", expected, format!("{:?}", self.weights)));
        }
        if matches!(self.causal, Causal::Offset(_)) {
            let expected = "with mixed_chunk, none, top_left or bottom_right";
            return Err(config_error("causal", expected, format!("{:?}", self.causal)));
        }
        if self.window != Window::default() {
            return Err(config_error("window", "with mixed_chunk, none", format!("{:?}", self.window)));
        }
        if self.matrices != Matrices::None {
            return Err(config_error("matrices", "with mixed_chunk, none", "f16"));
        }
        Ok(())
    }

    /// Whether a row's weights add up to one, or nearly so: each depends on all of its products then.
    pub(crate) fn adds_up(&self) -> bool {
        !matches!(self.weights, GauWeights::SquaredRelu(divisor) if !matches!(divisor, Divisor::RowSum { .. }))
    }

    pub(crate) fn visibility(&self) -> Visibility {
        Visibility { causal: self.causal, window: self.window }
    }

    /// Whether the linear part of mixed chunks is divided by the tokens in it, and else by what.
    pub(crate) fn linear_divisor(&self) -> (bool, f32) {
        match self.mode {
            GauMode::MixedChunk { linear: LinearDivisor::Fixed(divisor), .. } => (false, divisor),
            GauMode::MixedChunk { chunk, linear: LinearDivisor::Chunk, .. } => (false, chunk as f32),
            GauMode::MixedChunk { linear: LinearDivisor::Tokens, .. } | GauMode::Full => (true, 1.0),
        }
    }

    /// Tokens per chunk, if there are chunks.
    pub(crate) fn chunk(&self) -> Option<u32> {
        match self.mode {
            GauMode::Full => None,
            GauMode::MixedChunk { chunk, .. } => Some(chunk),
        }
    }
}

/// What the kernels index with 32 bits, with room to step past the end.
const MAX_CHUNK: u32 = 1 << 30;

/// Refuses what is no divisor: its reciprocal must be a finite f32 as well.
fn positive(option: &'static str, value: f32) -> Result<()> {
    if value.is_normal() && value > 0.0 {
        return Ok(());
    }
    Err(config_error(option, "a finite number above 0 (and not subnormal)", value))
}
