//! The gradients of softmax attention: the twin against finite differences, and the GPU against the twin.

#[path = "attention_backward/case.rs"]
mod case;
mod common;
#[path = "attention_backward/twin.rs"]
mod twin;

use case::{Case, Wanted};
use common::{Placement, Tensor, assert_same_bits, context, contexts, own_and_any_gpu};
use wgpu_attention::{AttentionConfig, Causal, DType, Scale};

const CAUSALS: [Causal; 6] = [
    Causal::None,
    Causal::TopLeft,
    Causal::BottomRight,
    Causal::Offset(3),
    Causal::Offset(-5),
    Causal::Offset(1 << 30),
];

#[test]
fn lengths_around_every_tile() {
    for len in [1, 2, 3, 4, 5, 31, 32, 33, 63, 64, 65, 127, 128, 129] {
        for causal in [Causal::None, Causal::BottomRight] {
            Case::new(AttentionConfig::new().causal(causal), [1, 1, 1, len, len, 16, 16]).check("self");
        }
        Case::new(AttentionConfig::new().causal(Causal::BottomRight), [1, 2, 1, 3, len, 16, 16]).check("cross");
        Case::new(AttentionConfig::new().causal(Causal::TopLeft), [1, 2, 1, len, 6, 16, 16]).check("cross");
    }
}

#[test]
fn every_scale_and_causal_mask() {
    let scales = [
        Scale::InvSqrtDim,
        Scale::Fixed(-0.5),
        Scale::Fixed(0.0),
        Scale::LOG_N,
        Scale::LogN { base: 64.0, floor: 16 },
        Scale::KappaLogN { kappa: -1.5 },
        Scale::LogNInference { train_len: 20 },
        Scale::ScalableSoftmax { s: 0.43, inv_sqrt_dim: false },
        Scale::ScalableSoftmax { s: 0.0, inv_sqrt_dim: true },
        Scale::PerRow,
    ];
    for scale in scales {
        for causal in CAUSALS {
            let config = AttentionConfig::new().scale(scale).causal(causal);
            Case::new(config, [2, 2, 1, 13, 21, 8, 8]).check("more keys");
            Case::new(config, [1, 2, 2, 21, 13, 8, 8]).with_lens(&[7]).check("fewer keys");
        }
    }
}

#[test]
fn windows_softcap_bias_and_mask_together() {
    let ends = [None, Some(0), Some(4), Some(1 << 30)];
    for left in ends {
        for right in ends {
            for causal in [Causal::None, Causal::BottomRight, Causal::Offset(2)] {
                let config = AttentionConfig::new().causal(causal).window(left, right).scale(Scale::LOG_N);
                let sizes = [2, 2, 1, 10, 19, 8, 8];
                Case::new(config, sizes).with_lens(&[19, 5]).check("window");
                let all = Case::new(config.softcap(1.5), sizes).with_mask([1, 2, 10, 19]).with_bias([2, 1, 1, 19]);
                all.with_statistics().check("all");
            }
        }
    }
}

#[test]
fn a_bias_of_every_shape() {
    for sizes in [[2, 4, 2, 9, 21, 8, 8], [1, 2, 1, 133, 70, 8, 8]] {
        let [batch, heads, _, rows, keys, ..] = sizes;
        for flags in 0..8 {
            let extent = |bit: u32, whole: usize| if flags >> bit & 1 == 1 { whole } else { 1 };
            let case = Case::new(AttentionConfig::new().causal(Causal::TopLeft), sizes);
            case.with_bias([extent(0, batch), extent(1, heads), extent(2, rows), keys]).check("bias");
        }
    }
}

#[test]
fn scales_of_rows_of_every_shape() {
    for flags in 0..8 {
        let extent = |bit: u32, whole: usize| if flags >> bit & 1 == 1 { whole } else { 1 };
        let case = Case::new(AttentionConfig::new().scale(Scale::PerRow).softcap(2.0), [2, 4, 2, 9, 21, 8, 8]);
        case.with_scales([extent(0, 2), extent(1, 4), extent(2, 9)]).check("scales");
    }
}

#[test]
fn widths_and_placements() {
    let causal = AttentionConfig::new().causal(Causal::BottomRight);
    let widths = [[1, 1], [3, 5], [64, 64], [81, 81], [72, 200], [200, 72], [256, 256], [4, 256]];
    for [head_dim, v_dim] in widths {
        let case = Case::new(causal, [1, 2, 1, 70, 133, head_dim, v_dim]).with_statistics();
        for placement in [Placement::Aligned, Placement::Odd, Placement::Interleaved { gap: 4 }] {
            let whole = head_dim % 4 == 0 && v_dim % 4 == 0;
            if whole || placement == Placement::Odd {
                case.assert(&format!("{placement:?}"), &case.run(context(), placement));
            }
        }
    }
}

#[test]
fn every_type() {
    let all = AttentionConfig::new().causal(Causal::BottomRight).scale(Scale::PerRow).softcap(4.0);
    for stored in [[DType::F16; 2], [DType::BF16; 2], [DType::F32, DType::F16], [DType::BF16, DType::F32]] {
        for (sizes, placement) in [
            ([2, 2, 1, 9, 21, 64, 64], Placement::Aligned),
            ([1, 2, 1, 9, 22, 10, 12], Placement::Interleaved { gap: 2 }),
        ] {
            let plain = Case::new(AttentionConfig::new(), sizes).stored(stored);
            let full = Case::new(all, sizes).with_mask([1, 1, sizes[3], sizes[4]]).with_statistics();
            // Rows of a gradient of an odd number of halves would share a word.
            let bias = if sizes[4] % 2 == 0 || stored[1] == DType::F32 { sizes[3] } else { 1 };
            let full = full.with_bias([1, 1, bias, sizes[4]]).stored(stored);
            for (kernels, context) in own_and_any_gpu() {
                for case in [&plain, &full] {
                    case.assert(&format!("{stored:?}, {placement:?}{kernels}"), &case.run(context, placement));
                }
            }
        }
    }
}
