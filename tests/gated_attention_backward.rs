//! The gradients of gated attention on the GPU against their f64 twin.

#[path = "gated_attention_backward/case.rs"]
mod case;
mod common;
#[path = "gated_attention_backward/twin.rs"]
mod twin;

use std::collections::BTreeMap;

use case::{Case, Source, square};
use wgpu_attention::reference::SumOrder;
use wgpu_attention::{Causal, Divisor, GatedAttentionConfig, GauMode, GauWeights, LinearDivisor, QuadraticDivisor};

const WEIGHTS: [GauWeights; 7] = [
    GauWeights::SquaredRelu(Divisor::LenDim),
    GauWeights::SquaredRelu(Divisor::FixedLenDim { len: 512 }),
    GauWeights::SquaredRelu(Divisor::LenSquared),
    GauWeights::SquaredRelu(Divisor::RowSum { eps: 1e-6 }),
    GauWeights::Softmax,
    GauWeights::SOFTMAX_LOG_N,
    GauWeights::SoftmaxLogN { base: 64.0, floor: 16 },
];
