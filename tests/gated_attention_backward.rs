//! The gradients of gated attention on the GPU against their f64 twin.

#[path = "gated_attention_backward/case.rs"]
mod case;
mod common;
#[path = "gated_attention_backward/gradients.rs"]
mod gradients;
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

#[test]
fn every_weight_mask_source_and_gate() {
    for weights in WEIGHTS {
        for causal in [Causal::None, Causal::BottomRight] {
            for source in [Source::Given, Source::Shared, Source::GammaOnly] {
                let config = GatedAttentionConfig::new().weights(weights).causal(causal);
                let case = Case::new(config, source, [2, 2, 2, 37, 37, 8, 8]);
                case.check("plain");
                case.gated().with_lens(&[37, 11]).check("gate and lengths");
            }
        }
    }
}

/// Chunks of eight tokens.
fn mixed(quadratic: QuadraticDivisor, linear: LinearDivisor) -> GatedAttentionConfig {
    GatedAttentionConfig::new().mode(GauMode::MixedChunk { chunk: 8, quadratic, linear })
}

#[test]
fn mixed_chunks() {
    for (at, (quadratic, linear)) in [
        (QuadraticDivisor::ChunkDim, LinearDivisor::Tokens),
        (QuadraticDivisor::Fixed(7.0), LinearDivisor::Chunk),
        (QuadraticDivisor::ChunkDim, LinearDivisor::Fixed(0.3)),
    ]
    .into_iter()
    .enumerate()
    {
        for causal in [Causal::None, Causal::TopLeft, Causal::BottomRight] {
            for source in [Source::Given, Source::Shared, Source::GammaOnly] {
                let kv_heads = if source == Source::Given { 1 } else { 2 };
                let config = mixed(quadratic, linear).causal(causal);
                let case = Case::new(config, source, [2, 2, kv_heads, 37, 37, 8, 8]);
                let case = if at == 0 { case.gated() } else { case };
                case.check_own("mixed");
                if causal != Causal::BottomRight {
                    case.with_lens(&[37, 11]).check_own("lengths");
                }
            }
        }
    }
}
