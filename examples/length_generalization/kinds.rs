//! The models that are compared: what differs between them is how scores become weights.

use wgpu_attention::{Divisor, GauWeights, Scale};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mixer {
    /// Gated attention units.
    Unit(GauWeights),
    /// Softmax attention of several heads, then a gated linear unit.
    Softmax(Scale),
    /// Linear attention of several heads, its feature map elu + 1, then a gated linear unit.
    Linear,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Kind {
    /// In tables and plots.
    pub name: &'static str,
    /// In file names, and for `--kinds`.
    pub key: &'static str,
    pub mixer: Mixer,
}

/// All of them, for a length of training: the fixed N, and the length at which log n changes nothing.
pub fn all(len: u32) -> [Kind; 8] {
    let unit = |name, key, weights| Kind { name, key, mixer: Mixer::Unit(weights) };
    let softmax = |name, key, scale| Kind { name, key, mixer: Mixer::Softmax(scale) };
    let base = len as f32;
    [
        unit("GAU, relu²/(n·s)", "relu2-n", GauWeights::SquaredRelu(Divisor::LenDim)),
        unit("GAU, relu², fixed N", "relu2-fixed", GauWeights::SquaredRelu(Divisor::FixedLenDim { len })),
        unit("GAU, relu²/Σ", "relu2-sum", GauWeights::SquaredRelu(Divisor::RowSum { eps: 1e-6 })),
        unit("GAU, softmax", "gau-softmax", GauWeights::Softmax),
        unit("GAU, softmax log n", "gau-softmax-log-n", GauWeights::SoftmaxLogN { base, floor: 1 }),
        softmax("attention, softmax", "softmax", Scale::InvSqrtDim),
        softmax("attention, softmax log n", "softmax-log-n", Scale::LogN { base, floor: 1 }),
        Kind { name: "linear attention", key: "linear", mixer: Mixer::Linear },
    ]
}

impl Mixer {
    /// The weights of a row whose scores q·k are these, of keys `dim` wide.
    pub fn weights(self, scores: &[f64], dim: u32) -> Vec<f64> {
        let (n, dim) = (scores.len() as f64, f64::from(dim));
        let log_n = |base: f32, floor: u32| n.max(f64::from(floor)).ln() / f64::from(base).ln() / dim.sqrt();
        let scale = match self {
            Self::Unit(GauWeights::SoftmaxLogN { base, floor }) | Self::Softmax(Scale::LogN { base, floor }) => {
                log_n(base, floor)
            }
            _ => 1.0 / dim.sqrt(),
        };
        let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        match self {
            // Up to a factor.
            Self::Unit(GauWeights::SquaredRelu(_)) => scores.iter().map(|score| score.max(0.0).powi(2)).collect(),
            Self::Unit(_) | Self::Softmax(_) => scores.iter().map(|score| ((score - most) * scale).exp()).collect(),
            Self::Linear => scores.to_vec(),
        }
    }

    /// The entropy, in nats, of such a row, its weights made to add up to 1; 0 where all are 0.
    pub fn entropy(self, scores: &[f64], dim: u32) -> f64 {
        let weights = self.weights(scores, dim);
        let sum: f64 = weights.iter().sum();
        weights.iter().filter(|&&weight| weight > 0.0).map(|weight| -(weight / sum) * (weight / sum).ln()).sum()
    }
}
