//! The gradients of softmax attention: the twin against finite differences, and the GPU against the twin.

#[path = "attention_backward/any.rs"]
mod any;
#[path = "attention_backward/case.rs"]
mod case;
mod common;
#[path = "attention_backward/halves.rs"]
mod halves;
#[path = "attention_backward/matrices.rs"]
mod on_matrices;
#[path = "attention_backward/refusals.rs"]
mod refusals;
#[path = "attention_backward/twin.rs"]
mod twin;

use case::{Case, Wanted};
use common::{Placement, Tensor, assert_same_bits, context, own_and_any_gpu};
use wgpu_attention::{
    AttentionBackward, AttentionBackwardShapes, AttentionConfig, Causal, Context, ContextOptions, DType, Scale, half,
};

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
    let [aligned, odd, gaps] = [Placement::Aligned, Placement::Odd, Placement::Interleaved { gap: 4 }];
    let cases = [
        ([1, 1], odd),
        ([3, 5], odd),
        ([64, 64], aligned),
        ([64, 64], gaps),
        ([81, 30], odd),
        ([24, 200], gaps),
        ([128, 128], aligned),
        ([256, 256], aligned),
    ];
    for ([head_dim, v_dim], placement) in cases {
        let case = Case::new(causal, [1, 2, 1, 70, 133, head_dim, v_dim]);
        case.assert(&format!("{placement:?}"), &case.run(context(), placement));
    }
}

#[test]
fn every_type() {
    let all = AttentionConfig::new().causal(Causal::BottomRight).scale(Scale::PerRow).softcap(4.0);
    let cases = [
        ([DType::F16; 2], [2, 2, 1, 9, 22, 16, 8], Placement::Aligned),
        ([DType::BF16; 2], [1, 2, 1, 9, 22, 10, 6], Placement::Interleaved { gap: 2 }),
        ([DType::F32, DType::F16], [1, 2, 1, 9, 22, 10, 6], Placement::Odd),
        ([DType::BF16, DType::F32], [1, 2, 1, 9, 21, 16, 8], Placement::Aligned),
    ];
    for (turn, (stored, sizes, placement)) in cases.into_iter().enumerate() {
        let full = Case::new(all, sizes).with_mask([1, 1, sizes[3], sizes[4]]).with_statistics();
        let full = full.with_bias([1, 1, sizes[3], sizes[4]]);
        // Without a native f16, halves at an odd place are refused.
        let native = context().device().features().contains(wgpu::Features::SHADER_F16);
        let placement = if native { placement } else { Placement::Aligned };
        let case = if turn % 2 == 0 { full } else { Case::new(AttentionConfig::new(), sizes) }.stored(stored);
        case.assert(&format!("{stored:?}, {placement:?}"), &case.run(context(), placement));
    }
}

fn with(context: &Context, change: impl Fn(&mut ContextOptions)) -> Context {
    let mut options = context.capabilities().options;
    change(&mut options);
    Context::with_options(context.device().clone(), context.queue().clone(), options)
}

/// Few tiles are cut into ranges, whose sums are one.
#[test]
fn ranges_of_what_is_walked() {
    for (kernels, context) in own_and_any_gpu() {
        let split = with(context, |options| options.max_keys_per_split = Some(64));
        for (sizes, bias) in
            [([1, 1, 1, 3, 700, 8, 8], 3), ([1, 4, 1, 700, 3, 8, 8], 1), ([1, 6, 2, 150, 150, 8, 8], 150)]
        {
            let config = AttentionConfig::new().causal(Causal::BottomRight).scale(Scale::Fixed(0.3));
            let plain = Case::new(config, sizes);
            let biased = plain.clone().with_bias([1, 1, bias, sizes[4]]).with_mask([1, 1, sizes[3], sizes[4]]);
            for case in [&plain, &biased] {
                case.assert(&format!("in ranges{kernels}"), &case.run(&split, Placement::Aligned));
            }
        }
    }
}

/// Of one query each, heads take a step each.
#[test]
fn heads_of_few_queries_are_walked_in_whole_steps() {
    let split = with(context(), |options| options.max_keys_per_split = Some(32));
    let op = AttentionBackward::new(&split, AttentionConfig::new()).expect("a config");
    let shapes = AttentionBackwardShapes { q_heads: 32, q_len: 1, ..AttentionBackwardShapes::new(1, 1, 64, 8) };
    let plan = op.plan(&AttentionBackwardShapes { dq: false, ..shapes }, DType::F32).expect("a plan");
    assert!(plan.reason().contains("32 queries in 32 ranges"), "{}", plan.reason());
}

/// Where there is no room for what all heads leave, some go first.
#[test]
fn blocks_of_heads() {
    let config = AttentionConfig::new().causal(Causal::BottomRight).scale(Scale::LOG_N);
    let case = Case::new(config, [3, 4, 2, 70, 90, 8, 8]).with_lens(&[90, 33, 61]);
    let case = case.with_bias([1, 4, 70, 90]).with_mask([1, 1, 70, 90]);
    let short = with(context(), |options| options.max_workspace_bytes = 150 << 10);
    case.assert("in blocks", &case.run(&short, Placement::Aligned));
}

#[test]
fn a_million_keys_and_many_queries() {
    for [q_len, kv_len] in [[1, 1_000_003], [70_003, 1]] {
        let case = Case::new(AttentionConfig::new(), [1, 1, 1, q_len, kv_len, 2, 2]);
        case.check("long");
    }
}

/// Four rows of which one is the last of a head and three are the first of the next see keys far apart, which some driver's loops do
/// not reach one by one.
#[test]
fn a_masks_keys_are_counted_where_a_tile_holds_two_heads() {
    let len = 66_001;
    let config = AttentionConfig::new().scale(Scale::LOG_N).causal(Causal::TopLeft).window(Some(80), None);
    let case = Case::new(config, [1, 2, 1, len, len, 2, 2]).with_mask([1, 1, 1, len]);
    let case = Case { wanted: Wanted { dq: true, dk: false, dv: false, rest: false }, ..case };
    let each = Case { k: case.k.repeat_heads(2), v: case.v.repeat_heads(2), ..case.clone() };
    let saved = [(0.0, 2), (4.0, 1), (4.0, 1)].map(|(x, dim)| Tensor::filled(x, [1, 2, len, dim]));
    let [own, each] = [case, each].map(|case| case.run_with_saved(saved.clone(), context()));
    assert_same_bits("dq", &own[0].1, &each[0].1);
}

/// What flows back from lse and the entropy alone, without a gradient of o.
#[test]
fn gradients_of_statistics_alone() {
    let case = Case::new(AttentionConfig::new().causal(Causal::TopLeft), [2, 2, 1, 9, 13, 8, 8]).with_statistics();
    let case = Case { dout: None, ..case };
    case.check("both");
    let got = Case { dentropy: None, ..case }.run(context(), Placement::Aligned);
    let dv = &got.iter().find(|(name, _)| *name == "dv").expect("a gradient").1;
    assert!(dv.iter().all(|x| x.to_bits() == 0), "o alone hangs on v");
}

/// Each gradient alone is what it is among all, to the bit.
#[test]
fn only_what_is_asked_for() {
    let config = AttentionConfig::new().causal(Causal::BottomRight);
    let case = Case::new(config, [1, 2, 1, 70, 90, 8, 8]).with_bias([1, 1, 70, 90]);
    let none = Wanted { dq: false, dk: false, dv: false, rest: false };
    let all = case.run(context(), Placement::Aligned);
    for wanted in [
        Wanted { dq: true, ..none },
        Wanted { dk: true, ..none },
        Wanted { dv: true, ..none },
        Wanted { rest: true, ..none },
        Wanted { dk: true, dv: true, ..none },
    ] {
        for (name, got) in (Case { wanted, ..case.clone() }).run(context(), Placement::Aligned) {
            let same = all.iter().find(|(own, _)| *own == name).expect("a gradient");
            assert_same_bits(name, &same.1, &got);
        }
    }
}

/// Of heads that share keys, gradients are the sums of those of heads that have them each.
#[test]
fn grouped_heads_are_repeated_heads_summed() {
    let case = Case::new(AttentionConfig::new().causal(Causal::TopLeft), [2, 6, 2, 21, 33, 8, 8]);
    case.check("grouped");
    let repeated = Case { k: case.k.repeat_heads(3), v: case.v.repeat_heads(3), ..case.clone() };
    let [own, each] = [&case, &repeated].map(|case| case.run(context(), Placement::Aligned));
    assert_same_bits("dq", &own[0].1, &each[0].1);
    for name in 1..3 {
        let head = 33 * 8;
        let summed = each[name]
            .1
            .chunks(3 * head)
            .flat_map(|three| (0..head).map(|at| three[at] + three[head + at] + three[2 * head + at]));
        for (got, want) in own[name].1.iter().zip(summed) {
            assert!((got - want).abs() < 1e-4, "{}: {got}, {want}", own[name].0);
        }
    }
}

/// Scores of ±10⁴, where weights are 0 and 1.
#[test]
fn scores_of_ten_thousand_stay_finite() {
    for factor in [1e2, 1e4] {
        let mut case = Case::new(AttentionConfig::new().causal(Causal::TopLeft), [1, 1, 1, 40, 40, 8, 8]);
        case.q = case.q.scaled(f32::sqrt(factor));
        case.k = case.k.scaled(f32::sqrt(factor));
        case.with_statistics().check("random");
    }
}

/// What no row sees reaches nothing: keys past the length, keys behind the mask, rows that see none, and what flows back into those.
#[test]
fn what_is_hidden_may_be_nan() {
    hidden_may_be_nan(AttentionConfig::new(), context());
}

fn hidden_may_be_nan(own: AttentionConfig, context: &Context) {
    let config = own.causal(Causal::BottomRight).window(Some(40), None);
    let sizes = [2, 2, 1, 70, 150, 8, 8];
    let lens = [101, 0];
    let plain = Case::new(config, sizes).with_lens(&lens);
    let mut masked = Case::new(own, sizes).with_mask([1, 1, 70, 150]);
    let (mask, _) = masked.mask.as_mut().expect("a mask");
    // Some keys that no row sees, beside the first row, which sees none.
    (0..70 * 150).filter(|at| at % 150 % 7 == 3).for_each(|at| mask[at] = 0);
    for (what, case) in [("lengths", plain), ("mask", masked)] {
        let want = case.run(context, Placement::Aligned);
        let mut spoiled = case.clone();
        let hidden = |b: usize, j: usize| if what == "mask" { j % 7 == 3 } else { j >= lens[b] as usize };
        for b in 0..2 {
            for j in (0..150).filter(|&j| hidden(b, j)) {
                for c in 0..8 {
                    *spoiled.k.at_mut([b, 0, j, c]) = f32::NAN;
                    *spoiled.v.at_mut([b, 0, j, c]) = f32::NAN;
                }
            }
            for (h, i) in (0..2).flat_map(|h| (0..70).map(move |i| (h, i))) {
                if what == "mask" && i > 0 || what == "lengths" && b == 0 {
                    continue;
                }
                for c in 0..8 {
                    *spoiled.q.at_mut([b, h, i, c]) = f32::NAN;
                    *spoiled.dout.as_mut().unwrap().at_mut([b, h, i, c]) = f32::NAN;
                }
            }
        }
        for (own, want) in spoiled.run(context, Placement::Aligned).iter().zip(&want) {
            assert_same_bits(&format!("{what}: {}", own.0), &own.1, &want.1);
        }
        let dq = &want[0].1;
        let row = if what == "mask" { 0 } else { 2 * 70 };
        assert!(dq[row * 8..][..8].iter().all(|x| x.to_bits() == 0), "{what}: a row without a key");
        let dk = &want[1].1;
        let key = if what == "mask" { 3 } else { 149 };
        assert!(dk[key * 8..][..8].iter().all(|x| x.to_bits() == 0), "{what}: a key without a row");
    }
}

/// A NaN that is seen stays with those that see it.
#[test]
fn nan_stays_where_it_is_seen() {
    let case = Case::new(AttentionConfig::new().causal(Causal::TopLeft), [1, 2, 2, 70, 70, 8, 8]);
    let want = case.run(context(), Placement::Aligned);
    let mut spoiled = case.clone();
    // Row 65 of head 1 sees keys 0 to 65.
    *spoiled.q.at_mut([0, 1, 65, 3]) = f32::NAN;
    let got = spoiled.run_with_saved_of(&case, context());
    for ((name, got), (_, want)) in got.iter().zip(&want) {
        for (at, (got, want)) in got.iter().zip(want).enumerate() {
            let (head, row) = (at / (70 * 8), at / 8 % 70);
            let reached = match *name {
                "dq" => head == 1 && row == 65,
                "dk" | "dv" => head == 1 && row <= 65,
                _ => at == 1,
            };
            // The exponential of NaN is an infinity on some drivers.
            assert!(
                if reached { !got.is_finite() } else { got.to_bits() == want.to_bits() },
                "{name} {at}: {got}, {want}"
            );
        }
    }
}

#[test]
fn a_scale_that_is_nan_stays_in_its_row_and_what_that_sees() {
    let config = AttentionConfig::new().causal(Causal::TopLeft).scale(Scale::PerRow);
    let case = Case::new(config, [1, 2, 2, 70, 70, 8, 8]).with_scales([1, 2, 70]);
    let want = case.run(context(), Placement::Aligned);
    let mut spoiled = case.clone();
    *spoiled.row_scale.as_mut().unwrap().at_mut([0, 1, 3]) = f32::NAN;
    let got = spoiled.run_with_saved_of(&case, context());
    for name in ["dk", "dv"] {
        let of = |gradients: &[(&'static str, Vec<f32>)]| {
            gradients.iter().find(|(own, _)| *own == name).map(|(_, gradient)| gradient.clone()).unwrap()
        };
        let (got, want) = (of(&got), of(&want));
        let behind = (70 + 4) * 8;
        assert_same_bits(name, &got[behind..], &want[behind..]);
        // The exponential of NaN, which dv is made of, is an infinity on some drivers.
        let spoiled = |x: &f32| x.is_nan() || name == "dv" && x.is_infinite();
        assert!(got[70 * 8..behind].iter().all(spoiled), "{name} of the keys that it sees");
    }
}

#[test]
fn a_diagonal_far_before_the_first_key_ends_at_once() {
    for offset in [-70, -(1 << 29), -(1 << 30)] {
        let case = Case::new(AttentionConfig::new().causal(Causal::Offset(offset)), [1, 2, 1, 70, 70, 8, 8]);
        for (name, got) in case.run(context(), Placement::Aligned) {
            assert!(got.iter().all(|x| x.to_bits() << 1 == 0), "{offset}: {name}: {got:?}");
        }
    }
}

#[test]
fn nothing_to_walk() {
    for [batch, q_len, kv_len] in [[0, 3, 3], [2, 0, 3], [2, 3, 0], [1, 0, 0]] {
        let case = Case::new(AttentionConfig::new(), [batch, 2, 1, q_len, kv_len, 4, 8]);
        let biased = case.clone().with_bias([1, 2, 1, kv_len]);
        let scaled = Case::new(AttentionConfig::new().scale(Scale::PerRow), [batch, 2, 1, q_len, kv_len, 4, 8]);
        for case in [case, biased, scaled.with_scales([1, 2, 1])] {
            for (name, got) in case.run(context(), Placement::Aligned) {
                assert!(got.iter().all(|x| x.to_bits() == 0), "{batch}, {q_len}, {kv_len}: {name}: {got:?}");
            }
        }
    }
}

#[test]
fn a_hundred_reruns_have_the_same_bits() {
    let config = AttentionConfig::new().causal(Causal::BottomRight).scale(Scale::LOG_N).softcap(3.0);
    let case = Case::new(config, [2, 4, 2, 90, 150, 8, 8]).with_bias([1, 4, 1, 150]).with_mask([1, 1, 90, 150]);
    let case = case.with_statistics();
    let first = case.run(context(), Placement::Aligned);
    for again in case.reruns(context(), 100) {
        for ((name, got), (_, want)) in again.iter().zip(&first) {
            assert_same_bits(name, got, want);
        }
    }
}

/// Queries, keys and values of a real model over a text.
#[test]
fn of_a_real_model() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("data/minilm_qkv.safetensors");
    let bytes = std::fs::read(path).expect("the file");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("tensors");
    for (layer, causal) in [(0, Causal::None), (5, Causal::TopLeft)] {
        // Of twelve heads, 32 wide, the first two, and of their 512 tokens the first 200.
        let tensor = |name: &str| {
            let tensor = file.tensor(&format!("layer{layer}.{name}")).expect("a layer");
            let number = |bytes: &[u8]| half::f16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
            let rows: Vec<f32> = tensor.data().chunks_exact(2).take(2 * 512 * 32).map(number).collect();
            let data = rows.chunks(512 * 32).flat_map(|head| head[..200 * 32].to_vec()).collect();
            Tensor { data, shape: [1, 2, 200, 32] }
        };
        let config = AttentionConfig::new().causal(causal);
        let case = Case::new(config, [1, 2, 2, 200, 200, 32, 32]);
        let case = Case { q: tensor("q"), k: tensor("k"), v: tensor("v"), ..case };
        case.check(&format!("layer {layer}"));
    }
}
