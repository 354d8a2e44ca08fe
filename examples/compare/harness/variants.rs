//! The variants by name: one row each.

use wgpu_attention::{Divisor, FeatureMap, GauWeights, Scale};

/// What is compared under a name.
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    pub name: &'static str,
    /// n is the number of keys that the row sees, d and s are head_dim, sums run over keys.
    pub formula: &'static str,
    pub kind: Kind,
}

/// How a variant is computed.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Softmax attention with this scale.
    Softmax(Scale),
    /// Softmax attention through a buffer of scores: two products of the crate's own, and a softmax of rows.
    ThreeDispatches,
    /// relu² attention on q and k as they are, without a gate.
    SquaredRelu(Divisor),
    /// A gated attention unit: q and k from a shared z by γ and β, these weights, a gate u.
    Gau(GauWeights),
    /// A gated attention unit with FLASH's mixed chunks.
    MixedChunk,
    /// Linear attention with this feature map, over the sum of its weights where it can be.
    Linear(FeatureMap),
}

use Kind::{Gau, Linear, MixedChunk, Softmax, SquaredRelu, ThreeDispatches};

const fn variant(name: &'static str, kind: Kind, formula: &'static str) -> Variant {
    Variant { name, formula, kind }
}

const SCALABLE: Scale = Scale::ScalableSoftmax { s: 0.4, inv_sqrt_dim: true };

#[rustfmt::skip]
pub const VARIANTS: &[Variant] = &[
    variant("softmax", Softmax(Scale::InvSqrtDim), "softmax(q·k / √d) v"),
    variant("log_n", Softmax(Scale::LOG_N), "softmax(log(n)/log(512) · q·k / √d) v"),
    variant("log_n_floor16", Softmax(Scale::LogN { base: 512.0, floor: 16 }), "softmax(log(max(n, 16))/log(512) · q·k / √d) v"),
    variant("kappa_log_n", Softmax(Scale::KappaLogN { kappa: 1.0 / 0.24 }), "softmax(κ log(n) · q·k / d) v, κ = 1/0.24"),
    variant("log_n_inference", Softmax(Scale::LogNInference { train_len: 512 }), "softmax(max(1, log(n)/log(512)) · q·k / √d) v"),
    variant("log_n_sqrt_dim", Softmax(Scale::LogNSqrtDim), "softmax(log(n) · q·k / √d) v"),
    variant("scalable_softmax", Softmax(SCALABLE), "softmax(s log(n) · q·k / √d) v, s = 0.4"),
    variant("three_dispatches", ThreeDispatches, "softmax(q·k / √d) v as q·k, softmax and ·v, with all scores in memory: what softmax is to beat"),
    variant("squared_relu", SquaredRelu(Divisor::LenDim), "relu(q·k)² / (n s) v"),
    variant("squared_relu_fixed", SquaredRelu(Divisor::FixedLenDim { len: 512 }), "relu(q·k)² / (512 s) v"),
    variant("squared_relu_len2", SquaredRelu(Divisor::LenSquared), "relu(q·k / n)² v"),
    variant("squared_relu_norm", SquaredRelu(Divisor::RowSum { eps: 1e-6 }), "relu(q·k)² / (Σ relu(q·k)² + 1e-6) v"),
    variant("gau", Gau(GauWeights::SquaredRelu(Divisor::LenDim)), "u ⊙ relu(q·k)² / (n s) v, q = γz + β, k = γ'z + β'"),
    variant("gau_softmax", Gau(GauWeights::Softmax), "u ⊙ softmax(q·k / √s) v, q and k as in gau"),
    variant("gau_softmax_log_n", Gau(GauWeights::SOFTMAX_LOG_N), "u ⊙ softmax(log(n)/log(512) · q·k / √s) v, q and k as in gau"),
    variant("flash_mixed_chunk", MixedChunk, "gau within chunks of 256 tokens, linear attention q'·k'/n across them; four maps of z"),
    variant("linear_elu", Linear(FeatureMap::EluPlusOne), "Σ φ(q)·φ(k) v / Σ φ(q)·φ(k), φ(x) = elu(x) + 1"),
    variant("linear_exp", Linear(FeatureMap::Exp), "the same, φ(x) = exp(x)"),
    variant("linear_relu", Linear(FeatureMap::Relu), "the same, φ(x) = relu(x)"),
    variant("linear_one_plus_relu", Linear(FeatureMap::OnePlusRelu), "the same, φ(x) = 1 + relu(x)"),
    variant("linear_identity", Linear(FeatureMap::Identity), "Σ q·k v"),
    variant("linear_softmax", Linear(FeatureMap::Softmax), "Σ softmax(q)·ψ(k) v, softmax over features; ψ(k) = softmax over the sequence (causal: exp, normalised)"),
    variant("linear_cosine", Linear(FeatureMap::Cosine), "Σ w v / Σ w, w = 1 + q·k / (|q| |k|)"),
    variant("linear_taylor2", Linear(FeatureMap::Taylor2 { scale: None }), "Σ w v / Σ w, w = 1 + x + x²/2, x = q·k / √d"),
    variant("linear_favor", Linear(FeatureMap::Favor { scale: None }), "Σ φ(q)·φ(k) v / Σ φ(q)·φ(k), φ(x) = exp(w·x − |x|²/2) for 4d random w, x over d^¼ (FAVOR+)"),
];

/// Kin among the variants: one bench each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Softmax,
    Gated,
    Linear,
}

impl Variant {
    /// Whether it has one query over the keys so far: not where queries and keys are maps of one z, nor where rows of scores are
    /// made for all heads alike.
    pub fn decodes(&self) -> bool {
        matches!(self.kind, Softmax(_) | SquaredRelu(_) | Linear(_))
    }

    /// Why there is no backward pass of it, if there is none.
    pub fn without_gradients(&self) -> Option<&'static str> {
        let reason = "there is no backward pass: what it compares the kernel with is its forward pass";
        matches!(self.kind, ThreeDispatches).then_some(reason)
    }

    pub fn family(&self) -> Family {
        match self.kind {
            Softmax(_) | ThreeDispatches => Family::Softmax,
            SquaredRelu(_) | Gau(_) | MixedChunk => Family::Gated,
            Linear(_) => Family::Linear,
        }
    }
}
