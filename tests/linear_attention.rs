//! Linear attention on the GPU against its f64 twin.

#[path = "common/linear_attention.rs"]
mod case;
mod common;
#[path = "linear_attention/storage.rs"]
mod storage;

use case::*;

use common::{Placed, Placement, Tensor, assert_same_bits, by_a_gpus_kernels, context};
use wgpu_attention::{
    Context, ContextOptions, DType, Error, FeatureMap, LinearAttention, LinearAttentionConfig, LinearAttentionInputs,
    LinearAttentionOutputs, LinearAttentionShapes, LinearMode, Normalization, TensorView,
};

#[test]
fn lengths_around_every_chunk() {
    for len in [1, 7, 8, 9, 31, 32, 33, 63, 64, 65, 127, 128, 129, 200] {
        Case::causal(FeatureMap::EluPlusOne, len, 8, 12).check("self");
        Case::new(config(FeatureMap::EluPlusOne, LinearMode::Full), [1, 1, 1, 9, len, 8, 12]).check("keys");
        Case::new(config(FeatureMap::EluPlusOne, LinearMode::Full), [1, 1, 1, len, 9, 8, 12]).check("queries");
    }
}

/// Those of the head dims that the driver compiles in a time to wait for.
#[expect(clippy::print_stderr, reason = "what is skipped is said")]
fn dims(all: &[usize]) -> Vec<usize> {
    let slow_compiler = context().capabilities().slow_arrays;
    if slow_compiler {
        eprintln!("skipped: head dims above 65, on a driver that compiles them for minutes");
    }
    all.iter().copied().filter(|&dim| dim <= 65 || !slow_compiler).collect()
}

/// Maps that take each dim for itself.
const DIM_BY_DIM: [FeatureMap; 4] =
    [FeatureMap::EluPlusOne, FeatureMap::Relu, FeatureMap::OnePlusRelu, FeatureMap::Identity];

/// Whether the state of a head is kept in registers, token by token.
fn token_by_token() -> bool {
    let device = context().capabilities();
    device.is_llvmpipe && device.subgroup_size == Some(8)
}

#[test]
fn every_head_dim() {
    let all = [1, 2, 3, 5, 63, 65, 130, 256];
    // Token by token no compiler takes long.
    for dim in if token_by_token() { all.to_vec() } else { dims(&all) } {
        Case::causal(FeatureMap::EluPlusOne, 20, dim, 4).check("causal");
    }
    for dim in dims(&[64, 192]) {
        Case::causal(FeatureMap::EluPlusOne, 70, dim, dim).check("equal");
    }
}

#[test]
fn every_value_dim() {
    for dim in dims(&[1, 5, 31, 130, 256]) {
        Case::causal(FeatureMap::EluPlusOne, 20, 4, dim).check("values");
        Case::new(config(FeatureMap::EluPlusOne, LinearMode::Full), [1, 1, 1, 5, 20, dim, 5]).check("full");
    }
}

#[test]
fn head_dims_under_maps_of_whole_rows_and_exponentials() {
    for dim in dims(&[3, 66, 128]) {
        Case::causal(FeatureMap::Exp, 20, dim, 5).check("unbounded");
        Case::causal(FAVOR, 20, dim, 5).check("whole rows");
        Case::causal(FeatureMap::Cosine, 20, dim, 5).check("whole rows");
    }
    for dim in dims(&[1, 24, 65]) {
        Case::causal(TAYLOR2, 20, dim, 5).check("wide");
    }
}

#[test]
fn chunks_of_more_rows_than_a_workgroup_takes() {
    for dim in dims(&[128]) {
        Case::causal(FeatureMap::EluPlusOne, 200, dim, dim).check("wide values");
        Case::causal(FeatureMap::Exp, 200, dim, 12).check("unbounded");
    }
    for dim in dims(&[80]) {
        Case::causal(FeatureMap::OnePlusRelu, 150, dim, dim).check("a width of no power of two");
    }
    Case::causal(TAYLOR2, 300, 16, 12).check("many features");
}

#[test]
fn heads_that_fill_a_device() {
    let causal = |map| config(map, LinearMode::Causal);
    let case = Case::new(causal(FeatureMap::EluPlusOne), [4, 64, 32, 70, 70, 8, 12]);
    case.check("heads in groups");
    case.run().assert_same_bits("rerun", &case.run());
    let mut case = Case::new(causal(FeatureMap::Relu), [2, 64, 64, 150, 150, 5, 67]);
    case.config.normalization = Normalization::None;
    case.assert("blocks of value dims, in parts", &case.run_in_parts(&[1, 65, 65]));
    if by_a_gpus_kernels() {
        let case = Case::new(causal(FeatureMap::OnePlusRelu), [1, 128, 128, 130, 130, 66, 68]);
        let shapes = case.host().shapes(&case.config).unwrap();
        let plan = LinearAttention::new(context(), case.config).unwrap().plan(&shapes, DType::F32).unwrap();
        assert!(plan.kernel().contains("tiled_heads"), "{}", plan.reason());
        case.check("two steps of keys");
    }
    let mut case = Case::new(causal(FeatureMap::EluPlusOne), [1, 256, 256, 130, 130, 8, 8]);
    let clean = case.run();
    for h in 0..256 {
        (0..8).for_each(|c| *case.k.at_mut([0, h, 67, c]) = f32::NAN);
        (0..8).for_each(|c| *case.v.at_mut([0, h, 67, c]) = f32::NAN);
    }
    let poisoned = case.run();
    for (h, rows) in clean.o.chunks(130 * 8).enumerate() {
        assert_same_bits("NaN from 67 on", &rows[..67 * 8], &poisoned.o[h * 130 * 8..][..67 * 8]);
    }
}

#[test]
fn every_map_mode_and_normalization() {
    for map in MAPS {
        for mode in MODES {
            for normalization in [Normalization::Sum { eps: 1e-3 }, Normalization::None] {
                let config = LinearAttentionConfig::new().feature_map(map).mode(mode).normalization(normalization);
                if config.check().is_ok() {
                    Case::new(config, [2, 2, 1, 70, 70, 8, 12]).check("grouped");
                    if token_by_token() && mode == LinearMode::Full && DIM_BY_DIM.contains(&map) {
                        Case::new(config, [2, 4, 2, 9, 71, 66, 67]).check("eight heads");
                    }
                }
            }
            Case::new(config(map, mode), [1, 1, 1, 130, 130, 8, 12]).check("several chunks");
        }
    }
}

#[test]
fn scales_of_the_maps_that_have_one() {
    for map in [FeatureMap::Taylor2 { scale: Some(0.7) }, FeatureMap::Favor { scale: Some(0.3) }] {
        Case::causal(map, 20, 8, 12).check("scale");
    }
}

#[test]
fn any_split_of_a_causal_sequence_gives_the_one_shot_result() {
    for map in MAPS {
        let case = Case::causal(map, 150, 8, 12);
        let cuts: [&[usize]; 3] = [&[64], &[1, 2, 65, 149], &[0, 70, 70]];
        for cuts in cuts {
            case.assert(&format!("cut after {cuts:?}"), &case.run_in_parts(cuts));
        }
    }
}

#[test]
fn one_token_steps_in_place_give_the_one_shot_result() {
    for map in MAPS {
        let case = Case::new(config(map, LinearMode::Causal), [2, 4, 2, 20, 20, 8, 12]);
        case.assert("steps", &case.run_in_steps());
        let after = case.tokens(0..20, Some(case.state_of(&case.run())));
        after.assert("steps after a sequence", &after.run_in_steps());
        let none = case.normalised_otherwise();
        none.assert("unnormalised steps", &none.run_in_steps());
    }
    Case::causal(FeatureMap::EluPlusOne, 3, 65, 130).assert_steps();
    Case::causal(TAYLOR2, 3, 64, 64).assert_steps();
}

#[test]
fn an_explicit_empty_state_changes_no_bit() {
    for map in [FeatureMap::EluPlusOne, FeatureMap::Exp, FAVOR] {
        for mode in MODES {
            let case = Case::new(config(map, mode), [1, 2, 1, 20, 20, 8, 12]);
            let with = Case { state: Some(case.empty_state()), ..case.clone() };
            case.run().assert_same_bits("empty state", &with.run());
        }
    }
}

#[test]
fn a_state_is_updated_in_place_by_sequences_too() {
    let context = context();
    for map in [FeatureMap::EluPlusOne, FeatureMap::Exp] {
        let mut case = Case::causal(map, 30, 8, 12);
        case.state = Some(case.state_of(&case.run()));
        let apart = case.run();
        let [q, k, v] = [&case.q, &case.k, &case.v].map(|x| Placed::input(context, x, Placement::Aligned));
        let o = Placed::output(context, [1, 2, 30, 12], Placement::Aligned);
        // All of the state in one buffer.
        let state = case.state.clone().unwrap();
        let max = state.max.map_or(Vec::new(), |max| max.data);
        let together = context.upload(&[&state.s.data[..], &state.z.data, &max].concat());
        let (s_len, z_len) = (state.s.data.len() as u64, state.z.data.len() as u64);
        let s = TensorView::f32(&together, [1, 2, 8, 12]);
        let z = TensorView::f32(&together, [1, 2, 8]).with_offset(s_len);
        let max = (!max.is_empty()).then(|| TensorView::f32(&together, [1, 2, 8]).with_offset(s_len + z_len));
        let inputs = LinearAttentionInputs {
            state_s: Some(s),
            state_z: Some(z),
            state_max: max,
            ..LinearAttentionInputs::new(q.view(), k.view(), v.view())
        };
        let outputs = LinearAttentionOutputs { o: o.view(), state_s: Some(s), state_z: Some(z), state_max: max };
        let attention = LinearAttention::new(context, case.config).unwrap();
        context.run(&attention.prepare(inputs, outputs).unwrap()).unwrap();
        assert_same_bits("o", &o.read(context, "o"), &apart.o);
        let all = context.download(&together).unwrap();
        assert_same_bits("state", &all, &[&apart.s[..], &apart.z, &apart.max].concat());
    }
}

#[test]
fn full_mode_adds_the_keys_of_several_calls() {
    for map in MAPS {
        let whole = Case::new(config(map, LinearMode::Full), [2, 4, 2, 6, 90, 8, 12]);
        // The range of the keys alone; all queries.
        let keys = Case { q: Tensor::filled(0.0, [2, 4, 90, 8]), ..whole.clone() };
        let half = |range| Case { q: whole.q.clone(), ..keys.tokens(range, None) };
        let first = half(0..37);
        let second = Case { state: Some(first.state_of(&first.run())), ..half(37..90) };
        whole.assert("two calls", &second.run());
    }
}

#[test]
fn key_lengths() {
    for map in [FeatureMap::EluPlusOne, FeatureMap::Softmax, FeatureMap::Exp, FAVOR, TAYLOR2] {
        let case = Case::new(config(map, LinearMode::Full), [4, 2, 1, 5, 70, 8, 12]);
        let short = case.clone().with_lens(&[70, 3, 0, 64]);
        let outcome = short.run();
        short.assert("lens", &outcome);
        assert!(outcome.o[2 * 2 * 5 * 12..3 * 2 * 5 * 12].iter().all(|x| x.to_bits() == 0), "empty rows are 0");
        let clamped = case.clone().with_lens(&[70, 71, u32::MAX, 70]);
        case.run().assert_same_bits("clamped", &clamped.run());

        // What no row sees may be NaN.
        let mut poisoned = short.clone();
        for (b, len) in [(1, 3), (2, 0), (3, 64)] {
            for j in len..70 {
                (0..8).for_each(|c| *poisoned.k.at_mut([b, 0, j, c]) = f32::NAN);
                (0..12).for_each(|c| *poisoned.v.at_mut([b, 0, j, c]) = f32::NAN);
            }
        }
        outcome.assert_same_bits("NaN past the lengths", &poisoned.run());
    }
}

#[test]
fn causally_hidden_nan_changes_no_earlier_row() {
    for map in MAPS {
        let case = Case::causal(map, 100, 8, 12);
        let clean = case.run();
        for poison in [69, 3] {
            let mut poisoned = case.clone();
            for j in poison..100 {
                (0..2).for_each(|h| (0..8).for_each(|c| *poisoned.k.at_mut([0, h, j, c]) = f32::NAN));
                (0..2).for_each(|h| (0..12).for_each(|c| *poisoned.v.at_mut([0, h, j, c]) = f32::NAN));
            }
            let got = poisoned.run();
            for head in 0..2 {
                let rows = head * 100 * 12..(head * 100 + poison) * 12;
                assert_same_bits(&format!("{map:?}, NaN from {poison} on"), &clean.o[rows.clone()], &got.o[rows]);
            }
        }
    }
}

#[test]
fn ten_thousand_stays_finite_and_right() {
    for (map, factor) in [(FeatureMap::Exp, 1e4), (FeatureMap::Softmax, 1e4), (FAVOR, 1e4), (FAVOR, 30.0)] {
        for mode in MODES {
            let mut case = Case::new(config(map, mode), [1, 1, 1, 40, 40, 8, 12]);
            for tensor in [&mut case.q, &mut case.k] {
                tensor.data.iter_mut().for_each(|x| *x = factor * x.clamp(-1.0, 1.0));
            }
            let outcome = case.run();
            assert!(outcome.o.iter().chain(&outcome.s).all(|x| x.is_finite()), "{map:?}");
            case.assert("ten thousand", &outcome);
            if mode == LinearMode::Causal {
                case.assert("ten thousand, in parts", &case.run_in_parts(&[7, 30]));
                case.assert("ten thousand, in steps", &case.run_in_steps());
            }
        }
    }
}

#[test]
fn a_growing_maximum_does_not_drown_earlier_rows() {
    // Keys that rise by 100 a token: a chunk's own maximum would leave nothing of its first keys.
    for map in [FeatureMap::Exp, FeatureMap::Softmax] {
        let mut case = Case::causal(map, 100, 8, 12);
        for (index, x) in case.k.data.iter_mut().enumerate() {
            *x += 100.0 * ((index / 8) % 100) as f32;
        }
        case.check("rising keys");
        case.k.data.iter_mut().for_each(|x| *x = -*x);
        case.config.normalization = Normalization::Sum { eps: f32::MIN_POSITIVE };
        case.check("falling keys");
    }
}

#[test]
fn values_of_one_give_one() {
    for map in MAPS {
        for mode in MODES {
            let mut case = Case::new(config(map, mode), [1, 2, 1, 70, 70, 8, 12]);
            let efficient = map == FeatureMap::Softmax && mode == LinearMode::Full;
            match &mut case.config.normalization {
                Normalization::Sum { eps } => *eps = f32::MIN_POSITIVE,
                Normalization::None if efficient => {}
                Normalization::None => continue,
            }
            case.v = Tensor::filled(1.0, case.v.shape);
            let outcome = case.run();
            for (i, x) in outcome.o.iter().enumerate() {
                // Of relu, a row may be all zero.
                let zero = map == FeatureMap::Relu && *x == 0.0;
                assert!(zero || (x - 1.0).abs() <= 16.0 * f32::EPSILON, "{map:?} {mode:?}: element {i}: {x}");
            }
        }
    }
}

#[test]
fn grouped_heads_equal_repeated_heads_bit_for_bit() {
    for map in MAPS {
        for mode in MODES {
            let grouped = Case::new(config(map, mode), [2, 4, 2, 70, 70, 8, 12]);
            let mut repeated = grouped.clone();
            repeated.k = grouped.k.repeat_heads(2);
            repeated.v = grouped.v.repeat_heads(2);
            assert_same_bits(&format!("{map:?} {mode:?}"), &grouped.run().o, &repeated.run().o);
        }
    }
}

#[test]
fn placement_and_reruns_change_no_bit() {
    for map in [FeatureMap::EluPlusOne, FeatureMap::Exp, FeatureMap::Softmax, TAYLOR2, FAVOR] {
        for mode in MODES {
            let case = Case::new(config(map, mode), [2, 2, 1, 70, 70, 8, 12]);
            let first = case.run();
            first.assert_same_bits("rerun", &case.run());
            for placement in [Placement::Interleaved { gap: 4 }, Placement::Odd] {
                first.assert_same_bits(&format!("{map:?} {mode:?} {placement:?}"), &case.run_on(context(), placement));
            }
        }
    }
}

#[test]
fn groups_of_chunks_and_heads_under_a_small_workspace() {
    let name = std::env::var("WGPU_ADAPTER_NAME").unwrap_or_default();
    for (map, bytes) in [(FeatureMap::Exp, 8_000), (TAYLOR2, 40_000), (FAVOR, 40_000)] {
        let options =
            ContextOptions { max_workspace_bytes: bytes, assume_gpu: by_a_gpus_kernels(), ..Default::default() };
        let small = {
            let _alone = alone();
            Context::headless_with(&name, options).unwrap()
        };
        for mode in MODES {
            let case = Case::new(config(map, mode), [2, 2, 2, 400, 400, 8, 12]);
            let shapes = case.host().shapes(&case.config).unwrap();
            let plan = LinearAttention::new(&small, case.config).unwrap().plan(&shapes, DType::F32).unwrap();
            assert!(plan.workspace_bytes() <= bytes, "{map:?}: {}", plan.reason());
            assert!(plan.dispatches() > 4, "{map:?}: {}", plan.reason());
            case.run().assert_same_bits(&format!("{map:?} {mode:?}"), &case.run_on(&small, Placement::Aligned));
        }
    }
    // Where the state stays in registers, only those of the heads stand in the workspace.
    let options = ContextOptions { max_workspace_bytes: 12_000, assume_gpu: by_a_gpus_kernels(), ..Default::default() };
    let small = Context::headless_with(&name, options).unwrap();
    for mode in MODES {
        let mut case = Case::new(config(FeatureMap::EluPlusOne, mode), [3, 8, 4, 70, 70, 8, 12]);
        case.state = Some(case.state_of(&case.run()));
        case.run().assert_same_bits("heads in groups", &case.run_on(&small, Placement::Aligned));
    }
    let options = ContextOptions { max_workspace_bytes: 1000, assume_gpu: by_a_gpus_kernels(), ..Default::default() };
    let tiny = Context::headless_with(&name, options).unwrap();
    let case = Case::causal(FeatureMap::Exp, 10, 8, 12);
    let shapes = case.host().shapes(&case.config).unwrap();
    let error = LinearAttention::new(&tiny, case.config).unwrap().plan(&shapes, DType::F32).unwrap_err();
    assert!(matches!(&error, Error::LimitExceeded { limit: 1000, .. }), "{error}");
}

#[test]
fn nothing_to_do() {
    let case = Case::new(config(FeatureMap::EluPlusOne, LinearMode::Causal), [0, 2, 1, 5, 5, 8, 12]);
    assert!(case.run().o.is_empty());
    // No tokens: the state goes through.
    let before = Case::causal(FeatureMap::Exp, 5, 8, 12);
    let state = before.state_of(&before.run());
    let outcome = before.tokens(0..0, Some(state.clone())).run();
    assert_same_bits("state_s", &outcome.s, &state.s.data);
    let outcome = before.tokens(0..0, None).run();
    assert!(outcome.max.iter().all(|x| *x == f32::NEG_INFINITY) && outcome.z.iter().all(|x| *x == 0.0));
    // No queries: the state of the keys.
    let keys = Case::new(config(FeatureMap::EluPlusOne, LinearMode::Full), [1, 1, 1, 0, 20, 8, 12]);
    keys.check("no queries");
}

#[test]
fn rows_of_no_keys_are_written() {
    for map in MAPS {
        let none = Case::new(config(map, LinearMode::Full), [2, 4, 2, 6, 0, 8, 12]);
        let empty = none.run();
        none.assert("no keys", &empty);
        assert!(empty.o.iter().chain(&empty.s).chain(&empty.z).all(|x| x.to_bits() == 0), "{map:?}");
        assert!(empty.max.iter().all(|x| x.to_bits() == f32::NEG_INFINITY.to_bits()), "{map:?}");
        // What came in goes out, to the bit, and is what queries see.
        let before = Case { q: Tensor::filled(0.0, [2, 4, 9, 8]), ..Case::new(none.config, [2, 4, 2, 9, 9, 8, 12]) };
        let state = before.state_of(&before.run());
        let after = Case { state: Some(state.clone()), ..none.clone() };
        let outcome = after.run();
        after.assert("a state and no keys", &outcome);
        assert_same_bits("state_s", &outcome.s, &state.s.data);
        assert_same_bits("state_z", &outcome.z, &state.z.data);
        assert_same_bits("state_max", &outcome.max, state.max.as_ref().map_or(&[], |max| &max.data));
    }
}

/// What a plan of these shapes is refused with.
fn refusal(config: LinearAttentionConfig, change: impl Fn(&mut LinearAttentionShapes)) -> String {
    let mut shapes = LinearAttentionShapes::new(1, 4, 20, 8);
    change(&mut shapes);
    let refused = LinearAttention::new(context(), config).and_then(|attention| attention.plan(&shapes, DType::F32));
    refused.map(|plan| plan.kernel()).expect_err("the problem is refused").to_string()
}

#[test]
fn configs_and_shapes_that_make_no_sense_are_refused() {
    let of = |map| LinearAttentionConfig::new().feature_map(map);
    let eps = |eps| LinearAttentionConfig::new().normalization(Normalization::Sum { eps });
    let causal = LinearAttentionConfig::new().mode(LinearMode::Causal);
    let plain = LinearAttentionConfig::new();
    type Change = fn(&mut LinearAttentionShapes);
    let nothing: Change = |_| {};
    let cases: [(LinearAttentionConfig, Change, &str); 21] = [
        (of(FeatureMap::Identity), nothing, "normalization: expected none with the identity map"),
        (of(FeatureMap::Softmax), nothing, "normalization: expected none with the softmax map in full mode"),
        (eps(0.0), nothing, "normalization.sum.eps"),
        (eps(-1.0), nothing, "normalization.sum.eps"),
        (eps(f32::NAN), nothing, "normalization.sum.eps"),
        (eps(f32::INFINITY), nothing, "normalization.sum.eps"),
        (eps(1e-40), nothing, "subnormal"),
        (of(FeatureMap::Taylor2 { scale: Some(0.0) }), nothing, "feature_map.taylor2.scale"),
        (of(FeatureMap::Favor { scale: Some(f32::NAN) }), nothing, "feature_map.favor.scale"),
        (of(FAVOR), nothing, "projection: the favor map needs it"),
        (plain, |s| s.projection_rows = Some(4), "projection: is given, but the map is not favor"),
        (of(FAVOR), |s| s.projection_rows = Some(0), "projection: axis features: expected 1 to 1024, got 0"),
        (of(FAVOR), |s| s.projection_rows = Some(1025), "expected 1 to 1024, got 1025"),
        (causal, |s| s.kv_len = 21, "k: axis kv_len: expected 20"),
        (causal, |s| s.kv_lens = true, "kv_lens: is given, but the mode is causal"),
        (plain, |s| s.q_heads = 0, "q: axis q_heads: expected at least 1"),
        (plain, |s| s.kv_heads = 0, "k: axis kv_heads: expected at least 1"),
        (plain, |s| s.kv_heads = 3, "a multiple of the 3 kv_heads, got 4"),
        (plain, |s| s.head_dim = 257, "q: axis head_dim: expected 1 to 256, got 257"),
        (plain, |s| s.v_dim = 0, "v: axis v_dim: expected 1 to 256, got 0"),
        (plain, |s| (s.batch, s.q_len) = (1 << 9, 1 << 20), "o: elements addressed by a 32-bit index"),
    ];
    for (config, change, expected) in cases {
        let message = refusal(config, change);
        assert!(message.contains(expected), "{message:?} should contain {expected:?}");
    }
}

#[test]
fn states_that_do_not_fit_are_refused() {
    let context = context();
    let buffer = context.allocate(4096);
    let others: Vec<_> = (0..4).map(|_| context.allocate(4096)).collect();
    let rank4 = |shape| TensorView::f32(&buffer, shape);
    let rank3 = |shape| TensorView::f32(&buffer, shape);
    let rows = [1, 2, 5, 8];
    let inputs = LinearAttentionInputs::new(rank4(rows), rank4(rows), rank4(rows));
    let with = |s, z, max| LinearAttentionInputs { state_s: s, state_z: z, state_max: max, ..inputs };
    let s = Some(rank4([1, 2, 8, 8]));
    let z = Some(rank3([1, 2, 8]));
    let elu = config(FeatureMap::EluPlusOne, LinearMode::Causal);
    let exp = config(FeatureMap::Exp, LinearMode::Causal);
    let refused = |config, inputs| {
        let o = LinearAttentionOutputs::new(TensorView::f32(&others[0], rows));
        LinearAttention::new(context, config).unwrap().prepare(inputs, o).unwrap_err().to_string()
    };
    let cases = [
        (elu, with(s, None, None), "state_z: is missing"),
        (elu, with(None, z, None), "state_s: is missing"),
        (elu, with(s, z, z), "state_max: is given, but this feature map is bounded"),
        (exp, with(s, z, None), "state_max: is missing"),
        (exp, with(s, z, Some(rank3([1, 2, 1]))), "state_max: axis features: expected 8"),
        (elu, with(Some(rank4([1, 2, 9, 8])), z, None), "state_s: axis features: expected 8"),
        (elu, with(Some(rank4([1, 2, 8, 7])), z, None), "state_s: axis v_dim: expected 8"),
        (elu, with(s, Some(rank3([1, 1, 8])), None), "state_z: axis kv_heads: expected 2"),
        (elu, with(s, Some(rank3([2, 2, 8])), None), "state_z: axis batch: expected 1"),
    ];
    for (config, inputs, expected) in cases {
        let message = refused(config, inputs);
        assert!(message.contains(expected), "{message:?} should contain {expected:?}");
    }

    // A state goes out where it came in, or beside it, and nowhere between.
    let [o, state] = [&others[0], &others[1]].map(|buffer| TensorView::f32(buffer, [1, 2, 8, 8]));
    let outcome = |s_out: TensorView<'_, 4>, z_out: TensorView<'_, 3>| {
        let z_in = TensorView::f32(&others[2], [1, 2, 8]);
        let inputs = LinearAttentionInputs { state_s: Some(state), state_z: Some(z_in), ..inputs };
        let o = TensorView::f32(&others[0], rows);
        let outputs = LinearAttentionOutputs { o, state_s: Some(s_out), state_z: Some(z_out), state_max: None };
        LinearAttention::new(context, elu).unwrap().prepare(inputs, outputs).map(|_| ()).map_err(|e| e.to_string())
    };
    let z_out = TensorView::f32(&others[3], [1, 2, 8]);
    assert_eq!(outcome(state, z_out), Ok(()));
    assert_eq!(outcome(state.with_offset(128), z_out), Ok(()));
    let shifted = outcome(state.with_offset(8), z_out).unwrap_err();
    assert!(shifted.contains("is not the same view as, the input state_s"), "{shifted}");
    let strided = outcome(state.with_strides([128, 8, 16, 1]), z_out).unwrap_err();
    assert!(strided.contains("is not the same view as, the input state_s"), "{strided}");
    let on_q = outcome(rank4([1, 2, 8, 8]), z_out).unwrap_err();
    assert!(on_q.contains("lies in the buffer of the input q"), "{on_q}");
    let on_o = outcome(o, z_out).unwrap_err();
    assert!(on_o.contains("overlaps the output"), "{on_o}");
}

/// One number of a query, of a key or of a value that rows see; under the other maps exponentials may lose it.
#[test]
fn nan_comes_out_of_maps_without_exponentials() {
    for map in DIM_BY_DIM.into_iter().chain([FeatureMap::Cosine, TAYLOR2]) {
        for mode in [LinearMode::Causal, LinearMode::Full] {
            for nan in [f32::NAN, -f32::NAN] {
                let clean = Case::new(config(map, mode), [1, 1, 1, 9, 9, 8, 8]);
                let [mut query, mut key, mut value] = [0; 3].map(|_| clean.clone());
                *query.q.at_mut([0, 0, 4, 5]) = nan;
                *key.k.at_mut([0, 0, 4, 5]) = nan;
                *value.v.at_mut([0, 0, 4, 5]) = nan;
                let sees = |i: usize| i >= 4 || mode == LinearMode::Full;
                for (i, row) in query.run().o.chunks(8).enumerate() {
                    assert!(row.iter().all(|x| x.is_nan() == (i == 4)), "q, {map:?}, row {i}: {row:?}");
                }
                for (i, row) in key.run().o.chunks(8).enumerate() {
                    assert!(row.iter().all(|x| x.is_nan() == sees(i)), "k, {map:?}, row {i}: {row:?}");
                }
                for (i, row) in value.run().o.chunks(8).enumerate() {
                    let nans = row.iter().enumerate().all(|(c, x)| x.is_nan() == (sees(i) && c == 5));
                    assert!(nans, "v, {map:?}, row {i}: {row:?}");
                }
            }
        }
    }
}
