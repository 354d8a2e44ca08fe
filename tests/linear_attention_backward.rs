//! The gradients of linear attention on the GPU against their f64 twin.

#[path = "common/linear_attention.rs"]
#[allow(unused, reason = "the pass forward has tests of its own")]
mod case;
mod common;
#[path = "linear_attention_backward/gradients.rs"]
mod gradients;

use case::{Case, FAVOR, MAPS, MODES, TAYLOR2, config};
use common::{Placement, Tensor, assert_same_bits, context};
use gradients::{Gradients, Outcome};
use proptest::prelude::*;
use wgpu_attention::{
    Context, ContextOptions, DType, FeatureMap, LinearAttentionBackward, LinearAttentionBackwardInputs,
    LinearAttentionBackwardShapes, LinearAttentionConfig, LinearAttentionGradients, LinearMode, Normalization,
    TensorView,
};

const ELU: FeatureMap = FeatureMap::EluPlusOne;

fn causal(map: FeatureMap, len: usize, head_dim: usize, v_dim: usize) -> Gradients {
    Gradients::new(config(map, LinearMode::Causal), [1, 1, 1, len, len, head_dim, v_dim])
}

#[test]
fn every_map_mode_and_normalization() {
    for map in MAPS {
        for mode in MODES {
            for normalization in [Normalization::Sum { eps: 1e-3 }, Normalization::None] {
                let config = LinearAttentionConfig::new().feature_map(map).mode(mode).normalization(normalization);
                if config.check().is_ok() {
                    Gradients::new(config, [2, 4, 2, 70, 70, 8, 12]).check("grouped");
                    Gradients::new(config, [1, 2, 2, 70, 70, 8, 12]).with_state().check("state");
                }
            }
            Gradients::new(config(map, mode), [1, 1, 1, 130, 130, 8, 12]).with_gradient_of_state().check("chunks");
        }
    }
}

#[test]
fn lengths_around_every_tile() {
    for len in [1, 2, 3, 4, 5, 63, 64, 65, 127, 128, 129, 255, 256, 257] {
        causal(ELU, len, 8, 12).check("causal");
        Gradients::new(config(ELU, LinearMode::Full), [1, 1, 1, 9, len, 8, 12]).check("keys");
        Gradients::new(config(ELU, LinearMode::Full), [1, 1, 1, len, 9, 8, 12]).check("queries");
    }
    causal(ELU, 1000, 8, 12).check("causal");
}

/// Of features and of values at once: kernels are compiled for both.
#[test]
fn widths_around_every_tile() {
    for [dim, v_dim] in [[1, 5], [2, 1], [3, 64], [5, 31], [63, 130], [65, 4], [130, 256], [256, 4], [192, 192]] {
        causal(ELU, 70, dim, v_dim).check("widths");
    }
    Gradients::new(config(ELU, LinearMode::Full), [1, 1, 1, 5, 20, 130, 5]).check("full");
}

#[test]
fn widths_of_maps_of_whole_rows_and_exponentials() {
    for dim in [3, 66, 128] {
        for map in [FeatureMap::Softmax, FeatureMap::Cosine, FAVOR] {
            causal(map, 20, dim, 5).check("causal");
        }
    }
    // As the softmax map, but that dims of a query have nothing in common.
    causal(FeatureMap::Exp, 20, 66, 5).check("causal");
    for dim in [1, 65] {
        causal(TAYLOR2, 20, dim, 5).with_state().check("pairs");
    }
    causal(TAYLOR2, 70, 12, 130).check("pairs and wide values");
    causal(TAYLOR2, 300, 16, 12).check("more than a chunk of pairs");
    Gradients::new(config(FeatureMap::Softmax, LinearMode::Full), [1, 1, 1, 9, 20, 66, 7])
        .with_state()
        .check("columns");
}

#[test]
fn scales_of_the_maps_that_have_one() {
    for map in [FeatureMap::Taylor2 { scale: Some(0.7) }, FeatureMap::Favor { scale: Some(0.3) }] {
        causal(map, 20, 8, 12).check("scale");
    }
}

/// Rows of a head of axis 1 become NaN.
fn poison(tensor: &mut Tensor<4>, b: usize, rows: std::ops::Range<usize>) {
    let [_, heads, _, dim] = tensor.shape;
    for (h, i, c) in (0..heads).flat_map(|h| rows.clone().flat_map(move |i| (0..dim).map(move |c| (h, i, c)))) {
        *tensor.at_mut([b, h, i, c]) = f32::NAN;
    }
}

#[test]
fn keys_behind_a_length_change_no_bit_and_have_no_gradient() {
    for map in MAPS {
        let mut own = Gradients::new(config(map, LinearMode::Full), [4, 2, 1, 9, 200, 8, 12]).with_state();
        own.case.kv_lens = Some(vec![200, 0, 1, 131]);
        let clean = own.check("lengths");
        for (b, len) in [(1, 0), (2, 1), (3, 131)] {
            poison(&mut own.case.k, b, len..200);
            poison(&mut own.case.v, b, len..200);
            let [dk, dv] =
                [(&clean.dk, 8), (&clean.dv, 12)].map(|(d, dim)| &d[(200 * b + len) * dim..200 * (b + 1) * dim]);
            assert!(dk.iter().chain(dv).all(|x| x.to_bits() == 0), "{map:?}");
        }
        clean.assert_same_bits("NaN behind lengths", &own.run());
    }
}

#[test]
fn what_comes_after_a_row_does_not_reach_it() {
    // Rows from 67 on have NaN everywhere: dq of the rows before, and what keys have of rows after them, as it is.
    for map in MAPS {
        let clean = causal(map, 140, 8, 12);
        let mut own = clean.clone();
        poison(&mut own.case.k, 0, 67..140);
        poison(&mut own.case.v, 0, 67..140);
        assert_same_bits(&format!("{map:?}: dq"), &clean.run().dq[..67 * 8], &own.run().dq[..67 * 8]);
        // dout of the rows before: the keys after them have nothing of it.
        let mut own = clean.clone();
        poison(&mut own.dout, 0, 0..67);
        let (got, want) = (own.run(), clean.run());
        assert_same_bits(&format!("{map:?}: dq"), &want.dq[67 * 8..], &got.dq[67 * 8..]);
        assert_same_bits(&format!("{map:?}: dk"), &want.dk[67 * 8..], &got.dk[67 * 8..]);
        assert_same_bits(&format!("{map:?}: dv"), &want.dv[67 * 12..], &got.dv[67 * 12..]);
        // A row of a relu that is 0 may have none.
        assert!(got.dq[..67 * 8].iter().chain(&got.dv[..67 * 12]).any(|x| x.is_nan()), "{map:?}");
    }
}

#[test]
fn rows_without_keys_are_zero() {
    for map in MAPS {
        let none = Gradients::new(config(map, LinearMode::Full), [2, 4, 2, 6, 0, 8, 12]);
        assert!(none.check("no keys").dq.iter().all(|x| *x == 0.0), "{map:?}");
        none.clone().with_state().check("a state and no keys");
        // A state that has seen no key.
        let empty =
            Gradients { case: Case { state: Some(none.case.empty_state()), ..none.case.clone() }, ..none.clone() };
        empty.with_gradient_of_state().check("an empty state");
        Gradients::new(config(map, LinearMode::Full), [1, 2, 2, 0, 20, 8, 12]).with_state().check("no queries");
        let nothing = Gradients::new(config(map, LinearMode::Causal), [1, 2, 2, 0, 0, 8, 12]).with_state();
        let got = nothing.check("no tokens");
        let (s, z) = nothing.comes_in.as_ref().unwrap();
        if nothing.case.state_shape().1 == 0 {
            assert_same_bits("dstate_s", &got.ds, &s.data);
            assert_same_bits("dstate_z", &got.dz, &z.data);
        }
    }
    let empty = Gradients::new(config(ELU, LinearMode::Causal), [0, 2, 1, 5, 5, 8, 12]).run();
    assert!(empty.dq.is_empty() && empty.dk.is_empty());
}

#[test]
fn ten_thousand_stays_finite_and_right() {
    for (map, factor) in [(FeatureMap::Exp, 1e4), (FeatureMap::Softmax, 1e4), (FAVOR, 1e4), (FAVOR, 30.0)] {
        for mode in MODES {
            let mut own = Gradients::new(config(map, mode), [1, 1, 1, 40, 40, 8, 12]);
            for tensor in [&mut own.case.q, &mut own.case.k] {
                tensor.data.iter_mut().for_each(|x| *x = factor * x.clamp(-1.0, 1.0));
            }
            let got = own.check("ten thousand");
            assert!(got.dq.iter().chain(&got.dk).chain(&got.dv).all(|x| x.is_finite()), "{map:?}");
        }
    }
    for map in [FeatureMap::Exp, FeatureMap::Softmax] {
        let mut own = causal(map, 100, 8, 12);
        own.case.k.data.iter_mut().enumerate().for_each(|(index, x)| *x += 100.0 * (index / 8) as f32);
        own.check("rising keys");
        own.case.k.data.iter_mut().for_each(|x| *x = -*x);
        own.check("falling keys");
    }
}

#[test]
fn reruns_placements_and_what_is_wanted_change_no_bit() {
    for map in [ELU, FeatureMap::Cosine, FeatureMap::Exp, FeatureMap::Softmax, TAYLOR2, FAVOR] {
        for mode in MODES {
            let own = Gradients::new(config(map, mode), [2, 2, 1, 70, 70, 8, 12]).with_state();
            let first = own.run();
            first.assert_same_bits("rerun", &own.run());
            for placement in [Placement::Interleaved { gap: 4 }, Placement::Odd] {
                first.assert_same_bits(&format!("{map:?} {mode:?} {placement:?}"), &own.run_on(context(), placement));
            }
            for one in 0..4 {
                let wanted = [0, 1, 2, 3].map(|gradient| gradient == one);
                let got = own.run_some(context(), Placement::Aligned, wanted);
                let keep = |is: usize, x: &[f32]| if is == one { x.to_vec() } else { Vec::new() };
                let want = Outcome {
                    dq: keep(0, &first.dq),
                    dk: keep(1, &first.dk),
                    dv: keep(2, &first.dv),
                    ds: keep(3, &first.ds),
                    dz: keep(3, &first.dz),
                };
                want.assert_same_bits(&format!("{map:?} {mode:?}, gradient {one} alone"), &got);
            }
        }
    }
    let own = causal(ELU, 130, 8, 12);
    let first = own.run();
    (0..100).for_each(|_| first.assert_same_bits("rerun", &own.run()));
}

/// The causal problem in calls over parts, from the last to the first, each of which hands on the gradient of the state before it.
fn in_parts(own: &Gradients, cuts: &[usize]) -> Outcome {
    let len = own.case.q.shape[2];
    let ends: Vec<usize> = cuts.iter().copied().chain([len]).collect();
    let mut parts = Vec::new();
    let (mut begin, mut state) = (0, own.case.state.clone());
    for &end in &ends {
        let case = own.case.tokens(begin..end, state.take());
        state = Some(case.state_of(&case.run()));
        parts.push((begin..end, case));
        begin = end;
    }
    let tensors = [&own.case.q, &own.case.k, &own.case.v];
    let mut whole = tensors.map(|tensor| Tensor::filled(f32::NAN, tensor.shape));
    let (mut comes_in, mut last) = (own.comes_in.clone(), None);
    for (range, case) in parts.into_iter().rev() {
        // The rows of dout as those of q.
        let dout = Case { q: own.dout.clone(), ..own.case.clone() }.tokens(range.clone(), None).q;
        // The first call may have no state, and then no gradient of one.
        let part = Gradients { case, dout, comes_in: comes_in.take(), dtype: own.dtype };
        let got = part.run();
        for (whole, own) in whole.iter_mut().zip([&got.dq, &got.dk, &got.dv]) {
            case::scatter(whole, range.clone(), own);
        }
        let ([batch, heads, features, v_dim], _) = part.case.state_shape();
        if part.case.state.is_some() {
            let s = Tensor { data: got.ds.clone(), shape: [batch, heads, features, v_dim] };
            comes_in = Some((s, Tensor { data: got.dz.clone(), shape: [batch, heads, features] }));
        }
        last = Some(got);
    }
    let [dq, dk, dv] = whole.map(|tensor| tensor.data);
    Outcome { dq, dk, dv, ..last.unwrap() }
}

#[test]
fn any_split_of_a_causal_sequence_has_the_gradients_of_one_call() {
    for map in MAPS {
        let own = Gradients::new(config(map, LinearMode::Causal), [1, 4, 2, 150, 150, 8, 12]);
        let cuts = [&[64][..], &[1, 2, 65, 149], &[70, 70]];
        own.assert_each(cuts.map(|cuts| (format!("cut after {cuts:?}"), in_parts(&own, cuts))));
        let own = own.with_state();
        own.assert("cut, with a state", &in_parts(&own, &[40, 100]));
    }
}

/// From the last token to the first, each of which hands on the gradient of the state before it.
#[test]
fn one_token_steps_have_the_gradients_of_one_call() {
    for map in MAPS {
        let own = Gradients::new(config(map, LinearMode::Causal), [2, 4, 2, 9, 9, 8, 12]).with_state();
        own.assert("steps", &in_parts(&own, &[1, 2, 3, 4, 5, 6, 7, 8]));
    }
}

#[test]
fn groups_of_chunks_and_heads_under_a_small_workspace() {
    let name = std::env::var("WGPU_ADAPTER_NAME").unwrap_or_default();
    for (map, bytes) in [(ELU, 25_000), (FeatureMap::Exp, 35_000), (TAYLOR2, 80_000), (FAVOR, 80_000)] {
        let options = ContextOptions { max_workspace_bytes: bytes, ..Default::default() };
        let small = Context::headless_with(&name, options).unwrap();
        for mode in MODES {
            let own = Gradients::new(config(map, mode), [2, 2, 2, 300, 300, 8, 12]).with_state();
            let shapes = own.host().shapes(&own.case.config).unwrap();
            let shapes = LinearAttentionBackwardShapes { dk: true, dv: true, ..shapes };
            let plan =
                LinearAttentionBackward::new(&small, own.case.config).unwrap().plan(&shapes, DType::F32).unwrap();
            assert!(plan.workspace_bytes() <= bytes, "{map:?}: {}", plan.reason());
            assert!(plan.reason().contains(" at a time"), "{map:?}: {}", plan.reason());
            assert!([1, 2].iter().any(|n| plan.reason().contains(&format!("for {n} of 4 heads"))), "{}", plan.reason());
            own.assert(plan.reason(), &own.run_on(&small, Placement::Aligned));
        }
    }
}

/// So long that chunks of full mode grow with it, in rounds of one or two of them: tiles of rows end where rounds do.
#[test]
fn rounds_of_a_long_call() {
    let name = std::env::var("WGPU_ADAPTER_NAME").unwrap_or_default();
    let own = Gradients::new(config(FeatureMap::Exp, LinearMode::Full), [1, 2, 2, 4500, 4500, 4, 4]);
    let options = ContextOptions { max_workspace_bytes: 20_000, ..Default::default() };
    let small = Context::headless_with(&name, options).unwrap();
    let shapes = LinearAttentionBackwardShapes::new(1, 2, 4500, 4);
    let plan = LinearAttentionBackward::new(&small, own.case.config).unwrap().plan(&shapes, DType::F32).unwrap();
    assert!(plan.reason().contains(" tokens, 1 of "), "{}", plan.reason());
    let [few, all] = [&small, context()].map(|context| own.run_on(context, Placement::Aligned));
    for (name, few, all) in [("dq", few.dq, all.dq), ("dk", few.dk, all.dk), ("dv", few.dv, all.dv)] {
        let far = few.iter().zip(&all).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let most = all.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
        assert!(far <= 1e-4 * most, "{name}: {far} of {most}");
    }
}

#[test]
fn memory_grows_with_the_length_up_to_a_bound() {
    let backward = LinearAttentionBackward::new(context(), config(ELU, LinearMode::Causal)).unwrap();
    let bytes = |len| {
        let shapes = LinearAttentionBackwardShapes::new(1, 1, len, 64);
        backward.plan(&shapes, DType::F32).unwrap().workspace_bytes()
    };
    let growth = bytes(32_768) as f64 / bytes(4096) as f64;
    assert!((7.0..=8.0).contains(&growth), "{growth}");
    assert!(bytes(1 << 19) <= 256 << 20);
}

#[test]
fn every_type_of_operand() {
    use DType::{BF16, F16, F32};
    use case::Stored;
    let mixed =
        Stored { q: F16, k: BF16, v: F32, projection: F16, o: BF16, state_in: [F32, F16], state_out: [F16, BF16] };
    // Any two of type, map and mode meet.
    for (turn, (stored, dtype)) in
        [(Stored::all(F16), F16), (Stored::all(BF16), BF16), (mixed, F16)].into_iter().enumerate()
    {
        for (at, map) in [ELU, FeatureMap::Exp, FAVOR].into_iter().enumerate() {
            let mode = MODES[(turn + at) % 2];
            let mut own = Gradients::new(config(map, mode), [1, 2, 1, 70, 70, 8, 12]).with_state();
            own.case.q = own.case.q.rounded(stored.q);
            own.case.k = own.case.k.rounded(stored.k);
            own.case.v = own.case.v.rounded(stored.v);
            own.case.projection = own.case.projection.map(|w| w.rounded(stored.projection));
            own.dout = own.dout.rounded(stored.o);
            let [s, z] = stored.state_in;
            own.case.state =
                own.case.state.map(|state| case::State { s: state.s.rounded(s), z: rounded(state.z, z), ..state });
            own.comes_in = own.comes_in.map(|(ds, dz)| (ds.rounded(s), rounded(dz, z)));
            own.case.stored = stored;
            own.dtype = dtype;
            let placements = [Placement::Aligned, Placement::Interleaved { gap: 2 }];
            own.assert_each(placements.map(|at| (format!("stored, {at:?}"), own.run_on(context(), at))));
        }
    }
}

fn rounded(tensor: Tensor<3>, dtype: DType) -> Tensor<3> {
    let shape = tensor.shape;
    let flat = Tensor { data: tensor.data, shape: [shape.iter().product()] };
    Tensor { data: flat.rounded(dtype).data, shape }
}

/// Heads of queries, keys and values of a real model, of its first layer and its last in turns.
#[test]
fn of_a_real_model() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("data/minilm_qkv.safetensors");
    let bytes = std::fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let len = 130;
    let tensor = |layer: usize, name: &str| {
        let all = file.tensor(&format!("layer{layer}.{name}")).unwrap();
        // Of twelve heads, 32 wide, the first two, and of their 512 tokens the first.
        let halves = all.data().chunks_exact(2).map(|w| half::f16::from_le_bytes([w[0], w[1]]).to_f32());
        let rows: Vec<f32> = halves.take(2 * 512 * 32).collect();
        let data = rows.chunks(512 * 32).flat_map(|head| head[..len * 32].to_vec()).collect();
        Tensor { data, shape: [1, 2, len, 32] }
    };
    for (map, layer) in MAPS.into_iter().zip([0, 5].into_iter().cycle()) {
        let mut own = Gradients::new(config(map, LinearMode::Causal), [1, 2, 2, len, len, 32, 32]);
        [own.case.q, own.case.k, own.case.v] = ["q", "k", "v"].map(|name| tensor(layer, name));
        own.check(&format!("layer {layer} of a real model"));
    }
}

#[test]
fn nonsense_is_refused() {
    let context = context();
    let buffers: Vec<_> = (0..8).map(|_| context.allocate(4096)).collect();
    let rows = [1, 2, 5, 8];
    let view = |at: usize| TensorView::f32(&buffers[at], rows);
    let inputs = LinearAttentionBackwardInputs::new(view(0), view(1), view(2), view(3));
    let s = Some(TensorView::f32(&buffers[4], [1, 2, 8, 8]));
    let z = Some(TensorView::f32(&buffers[5], [1, 2, 8]));
    let none = LinearAttentionGradients::none();
    let dq = LinearAttentionGradients { dq: Some(view(6)), ..none };
    let refused = |config: LinearAttentionConfig, inputs, outputs| {
        let backward = LinearAttentionBackward::new(context, config).unwrap();
        backward.prepare(inputs, outputs).map(|_| ()).expect_err("it is refused").to_string()
    };
    let elu = config(ELU, LinearMode::Causal);
    let exp = config(FeatureMap::Exp, LinearMode::Causal);
    let lens = TensorView::new(&buffers[7], DType::U32, [1]);
    type Inputs<'a> = LinearAttentionBackwardInputs<'a>;
    let cases = [
        (elu, inputs, none, "dq: the output is missing, and so is every other gradient"),
        (elu, Inputs { state_s: s, ..inputs }, dq, "state_z: is missing"),
        (exp, Inputs { state_s: s, state_z: z, ..inputs }, dq, "state_max: is missing"),
        (elu, Inputs { state_s: s, state_z: z, state_max: z, ..inputs }, dq, "state_max: is given"),
        (elu, Inputs { dstate_s: s, ..inputs }, dq, "dstate_z: is missing"),
        (elu, Inputs { kv_lens: Some(lens), ..inputs }, dq, "kv_lens: is given, but the mode is causal"),
        (elu, inputs, LinearAttentionGradients { dstate_s: s, dstate_z: z, ..none }, "no state that came in"),
        (elu, Inputs { dout: view(3).with_extent(3, 7), ..inputs }, dq, "dout: axis v_dim: expected 8"),
        (elu, inputs, LinearAttentionGradients { dq: Some(view(0)), ..none }, "lies in the buffer of the input q"),
        (
            elu,
            inputs,
            LinearAttentionGradients { dk: Some(view(6).with_extent(2, 4)), ..none },
            "dk: axis kv_len: expected 5",
        ),
    ];
    for (config, inputs, outputs, expected) in cases {
        let message = refused(config, inputs, outputs);
        assert!(message.contains(expected), "{message:?} should contain {expected:?}");
    }
    // The gradient of a state goes out where that of the final one came in.
    let own = Gradients::new(elu, [1, 2, 2, 30, 30, 8, 12]).with_state();
    let apart = own.run();
    let [q, k, v, dout] = [&own.case.q, &own.case.k, &own.case.v, &own.dout].map(|tensor| context.upload(&tensor.data));
    let state = own.case.state.as_ref().unwrap();
    let (ds, dz) = own.comes_in.as_ref().unwrap();
    let [s, ds, z, dz] = [&state.s.data, &ds.data, &state.z.data, &dz.data].map(|data| context.upload(data));
    let [rows, wide] = [[1, 2, 30, 8], [1, 2, 30, 12]];
    let of_s = |buffer| Some(TensorView::f32(buffer, [1, 2, 8, 12]));
    let of_z = |buffer| Some(TensorView::f32(buffer, [1, 2, 8]));
    let [q, k] = [&q, &k].map(|buffer| TensorView::f32(buffer, rows));
    let [v, dout] = [&v, &dout].map(|buffer| TensorView::f32(buffer, wide));
    let inputs = LinearAttentionBackwardInputs {
        state_s: of_s(&s),
        state_z: of_z(&z),
        dstate_s: of_s(&ds),
        dstate_z: of_z(&dz),
        ..LinearAttentionBackwardInputs::new(q, k, v, dout)
    };
    let outputs = LinearAttentionGradients { dstate_s: of_s(&ds), dstate_z: of_z(&dz), ..none };
    let backward = LinearAttentionBackward::new(context, elu).unwrap();
    context.run(&backward.prepare(inputs, outputs).unwrap()).unwrap();
    assert_same_bits("in place", &apart.ds, &context.download(&ds).unwrap());
    assert_same_bits("in place", &apart.dz, &context.download(&dz).unwrap());
}

/// What is spoiled in one tensor of a call is told by the twin's shapes.
#[test]
fn the_twin_refuses_what_does_not_fit() {
    let own = Gradients::new(config(ELU, LinearMode::Causal), [1, 2, 1, 5, 5, 8, 12]);
    let short = Tensor::normal(1, [1, 2, 5, 11]);
    let mut inputs = own.host();
    inputs.dout = short.view();
    let message = inputs.shapes(&own.case.config).unwrap_err().to_string();
    assert!(message.contains("dout: axis v_dim: expected 12"), "{message}");
}

proptest! {
    #![proptest_config(common::any(12))]
    #[test]
    fn any_problem(
        map in 0..MAPS.len(), full in any::<bool>(), state in any::<bool>(), group in 1..3usize, heads in 1..3usize,
        lens in [1..140usize, 0..140usize],
    ) {
        let mode = MODES[usize::from(!full)];
        let [q_len, kv_len] = if full { lens } else { [lens[0]; 2] };
        let own = Gradients::new(config(MAPS[map], mode), [1, group * heads, heads, q_len, kv_len, 8, 12]);
        let own = if state { own.with_state() } else { own };
        own.check("any");
    }
}
