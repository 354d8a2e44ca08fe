//! The ops of the softmax family that are compared, each way as a variant of its own.

use wgpu_attention::margin_softmax::Margin;
use wgpu_attention::{GumbelKind, MarginSoftmaxConfig, SoftmaxKind};

/// An op, forward or backward.
#[derive(Debug)]
pub struct Variant {
    pub name: &'static str,
    pub formula: &'static str,
    pub op: Op,
    pub is_backward: bool,
}

/// What a row is given to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Op {
    Softmax(SoftmaxKind),
    Gumbel(GumbelKind),
    /// ZLPR with a bitmap of labels.
    Multilabel,
    /// Margin softmax of cosines: a row has a logit for each class, and makes them itself.
    Margin,
}

/// Rows of features and their width, of margin softmax.
pub const MARGIN_ROWS: u32 = 64;
pub const MARGIN_DIM: u32 = 64;

pub fn margin() -> MarginSoftmaxConfig {
    MarginSoftmaxConfig::new().margin(Margin::Cosine { m: 0.35 }).scale(30.0)
}

impl Variant {
    /// Rows of a cell of about so many elements.
    pub fn rows(&self, len: u32, elements: u32) -> u32 {
        if self.op == Op::Margin { MARGIN_ROWS } else { (elements / len).max(1) }
    }
}

const fn forward(name: &'static str, op: Op, formula: &'static str) -> Variant {
    Variant { name, formula, op, is_backward: false }
}

const fn backward(name: &'static str, op: Op) -> Variant {
    Variant { name, formula: "its gradient", op, is_backward: true }
}

const SOFTMAX: Op = Op::Softmax(SoftmaxKind::Softmax);
const TAYLOR: Op = Op::Softmax(SoftmaxKind::Taylor);
const TOP_K: Op = Op::Softmax(SoftmaxKind::TopK { k: 40 });
const SPARSEMAX: Op = Op::Softmax(SoftmaxKind::Sparsemax);
const ENTMAX: Op = Op::Softmax(SoftmaxKind::Entmax { alpha: 1.5 });
const SOFT: Op = Op::Gumbel(GumbelKind::Soft);
const HARD: Op = Op::Gumbel(GumbelKind::Hard);

#[rustfmt::skip]
pub const VARIANTS: &[Variant] = &[
    forward("softmax", SOFTMAX, "exp(x) / Σ exp(x)"),
    backward("softmax_backward", SOFTMAX),
    forward("taylor", TAYLOR, "f(x) / Σ f(x), f(x) = 1 + x + x²/2"),
    backward("taylor_backward", TAYLOR),
    forward("top_k", TOP_K, "the softmax of the 40 largest"),
    backward("top_k_backward", TOP_K),
    forward("sparsemax", SPARSEMAX, "[x − τ]₊, with a sum of 1"),
    backward("sparsemax_backward", SPARSEMAX),
    forward("entmax15", ENTMAX, "[x/2 − τ]₊², with a sum of 1"),
    backward("entmax15_backward", ENTMAX),
    forward("gumbel_soft", SOFT, "the softmax of x + g, g Gumbel noise made in the kernel, τ = 1"),
    backward("gumbel_soft_backward", SOFT),
    forward("gumbel_hard", HARD, "the one-hot of argmax(x + g)"),
    backward("gumbel_hard_backward", HARD),
    forward("gumbel_sample", Op::Gumbel(GumbelKind::Sample), "argmax(x + g) alone"),
    forward("zlpr", Op::Multilabel, "log(1 + Σ exp(x) over negatives) + log(1 + Σ exp(−x) over positives), labels a bitmap"),
    backward("zlpr_backward", Op::Multilabel),
    forward("margin", Op::Margin, "cross-entropy of 30 (cos θ − 0.35 at the label), cosines of 64 features by n classes in 64 dims"),
    backward("margin_backward", Op::Margin),
];
