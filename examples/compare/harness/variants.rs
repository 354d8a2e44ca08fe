//! The variants by name: one row each.

use wgpu_attention::Scale;

/// What is compared under a name.
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    pub name: &'static str,
    pub formula: &'static str,
    pub kind: Kind,
}

/// How a variant is computed.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Softmax attention with this scale.
    Softmax(Scale),
}

const fn softmax(name: &'static str, formula: &'static str, scale: Scale) -> Variant {
    Variant { name, formula, kind: Kind::Softmax(scale) }
}

/// d is head_dim, n the number of keys that the row sees.
pub const VARIANTS: &[Variant] = &[
    softmax("softmax", "softmax(q·k / √d) v", Scale::InvSqrtDim),
    softmax("log_n", "softmax(log(n)/log(512) · q·k / √d) v", Scale::LOG_N),
    softmax("log_n_floor16", "the same with max(n, 16)", Scale::LogN { base: 512.0, floor: 16 }),
    softmax("kappa_log_n", "softmax(κ log(n)/d · q·k) v, κ = 1/0.24", Scale::KappaLogN { kappa: 1.0 / 0.24 }),
    softmax(
        "log_n_inference",
        "softmax(max(1, log(n)/log(512)) · q·k / √d) v",
        Scale::LogNInference { train_len: 512 },
    ),
    softmax("log_n_sqrt_dim", "softmax(log(n) · q·k / √d) v", Scale::LogNSqrtDim),
    softmax(
        "scalable_softmax",
        "softmax(s log(n) · q·k / √d) v, s = 0.4",
        Scale::ScalableSoftmax { s: 0.4, inv_sqrt_dim: true },
    ),
];

/// Kin among the variants: one bench each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Softmax,
    Gated,
    Linear,
}

impl Variant {
    pub fn family(&self) -> Family {
        match self.kind {
            Kind::Softmax(_) => Family::Softmax,
        }
    }
}
