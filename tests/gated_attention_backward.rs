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
use common::{Placement, Tensor, any, assert_same_bits, context, own_and_any_gpu};
use gradients::assert_same;
use proptest::prelude::*;
use wgpu_attention::reference::SumOrder;
use wgpu_attention::{
    Causal, Context, ContextOptions, DType, Divisor, GatedAttentionBackward, GatedAttentionBackwardInputs,
    GatedAttentionBackwardShapes, GatedAttentionConfig, GatedAttentionGradients, GauMode, GauWeights, LinearDivisor,
    Matrices, QuadraticDivisor, TensorView, Window, half,
};

const WEIGHTS: [GauWeights; 7] = [
    GauWeights::SquaredRelu(Divisor::LenDim),
    GauWeights::SquaredRelu(Divisor::FixedLenDim { len: 512 }),
    GauWeights::SquaredRelu(Divisor::LenSquared),
    GauWeights::SquaredRelu(Divisor::RowSum { eps: 1e-6 }),
    GauWeights::Softmax,
    GauWeights::SOFTMAX_LOG_N,
    GauWeights::SoftmaxLogN { base: 64.0, floor: 16 },
];

const V1: GatedAttentionConfig = GatedAttentionConfig {
    weights: GauWeights::SquaredRelu(Divisor::LenDim),
    causal: Causal::None,
    window: Window { left: None, right: None },
    mode: GauMode::Full,
    matrices: Matrices::None,
};

/// Chunks of so many tokens.
fn mixed(chunk: u32, quadratic: QuadraticDivisor, linear: LinearDivisor) -> GatedAttentionConfig {
    V1.mode(GauMode::MixedChunk { chunk, quadratic, linear })
}

/// One configuration of each way to weigh: relu², relu² with a row sum, softmax, and mixed chunks of 16 tokens.
fn each_way() -> [GatedAttentionConfig; 4] {
    [
        V1,
        V1.weights(GauWeights::SquaredRelu(Divisor::RowSum { eps: 1e-6 })),
        V1.weights(GauWeights::SOFTMAX_LOG_N),
        mixed(16, QuadraticDivisor::ChunkDim, LinearDivisor::Tokens),
    ]
}

#[test]
fn every_weight_mask_source_and_gate() {
    let sources = [Source::Given, Source::Shared, Source::GammaOnly];
    for (at, weights) in WEIGHTS.into_iter().enumerate() {
        for causal in [Causal::None, Causal::BottomRight] {
            let case = |source| Case::new(V1.weights(weights).causal(causal), source, [2, 2, 2, 37, 37, 8, 8]);
            case(sources[at % 3]).check_own("plain");
            case(sources[(at + 1) % 3]).gated().with_lens(&[37, 11]).check_own("gate and lengths");
        }
    }
}

#[test]
fn a_gpus_kernels_of_forward_agree() {
    for config in each_way() {
        for (kernels, context) in own_and_any_gpu() {
            let case = Case::new(config.causal(Causal::TopLeft), Source::Shared, [2, 2, 2, 70, 70, 8, 8]);
            case.gated().with_lens(&[70, 41]).check_on(context, kernels);
        }
    }
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
        for (chunk, causal) in
            [(8, Causal::None), (8, Causal::TopLeft), (16, Causal::BottomRight), (70, Causal::TopLeft)]
        {
            let source = [Source::Given, Source::Shared, Source::GammaOnly][at];
            let kv_heads = if source == Source::Given { 1 } else { 2 };
            let config = mixed(chunk, quadratic, linear).causal(causal);
            let case = Case::new(config, source, [2, 2, kv_heads, 37, 37, 8, 8]).gated();
            case.check_own("mixed");
            if causal != Causal::BottomRight {
                case.with_lens(&[37, 11]).check_own("lengths");
            }
        }
    }
}

#[test]
fn mixed_chunks_take_value_dims_in_turns_where_the_workspace_is_small() {
    let [.., config] = each_way();
    let case = Case::new(config.causal(Causal::TopLeft), Source::Shared, [1, 2, 2, 50, 50, 8, 700]).gated();
    let whole = case.run(context(), Placement::Aligned);
    case.assert("whole", &whole);
    let options = ContextOptions { max_workspace_bytes: 190 << 10, ..Default::default() };
    let turns = case.run(&context_with(options), Placement::Aligned);
    case.assert("in turns", &turns);
    for name in ["du", "dv"] {
        assert_same_bits(name, &whole[name], &turns[name]);
    }
}

#[test]
fn lengths_around_every_tile() {
    for (at, len) in [1, 2, 3, 4, 5, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 257].into_iter().enumerate() {
        let config = each_way()[at % 4];
        Case::new(config, Source::Shared, square(len, 8, 8)).gated().check_own("full");
        Case::new(config.causal(Causal::TopLeft), Source::Shared, square(len, 8, 8)).gated().check_own("causal");
    }
    for len in [1, 33, 65, 130] {
        Case::new(V1.causal(Causal::BottomRight), Source::Given, [1, 1, 1, 3, len, 8, 8]).check_own("few queries");
        Case::new(V1.causal(Causal::TopLeft), Source::Given, [1, 1, 1, len, 6, 8, 8]).check_own("few keys");
    }
}

#[test]
fn every_width() {
    let [squared_relu, row_sum, softmax, mixed] = each_way();
    for (config, source, [key_dim, v_dim]) in [
        (squared_relu, Source::Shared, [1, 1]),
        (row_sum, Source::Given, [5, 66]),
        (softmax, Source::Shared, [65, 130]),
        (squared_relu, Source::Given, [130, 260]),
        (softmax, Source::Given, [256, 7]),
        (squared_relu, Source::Shared, [64, 64]),
        (mixed, Source::Shared, [65, 70]),
        (mixed, Source::Given, [130, 260]),
    ] {
        Case::new(config.causal(Causal::TopLeft), source, square(35, key_dim, v_dim)).gated().check_own("widths");
    }
}

#[test]
fn windows_and_diagonals() {
    for (left, right) in [(None, Some(0)), (Some(0), None), (Some(4), Some(3)), (Some(1 << 30), Some(1 << 30))] {
        for causal in [
            Causal::None,
            Causal::TopLeft,
            Causal::BottomRight,
            Causal::Offset(3),
            Causal::Offset(-5),
            Causal::Offset(-(1 << 30)),
            Causal::Offset(1 << 30),
        ] {
            let config = V1.causal(causal).window(left, right);
            Case::new(config, Source::Given, [2, 2, 1, 13, 81, 8, 8]).with_lens(&[81, 9]).check_own("more keys");
            let config = config.weights(GauWeights::Softmax);
            Case::new(config, Source::Given, [1, 2, 2, 81, 13, 8, 8]).gated().check_own("fewer keys");
        }
    }
}

#[test]
fn grouped_heads_have_the_sum_of_repeated_ones() {
    for config in each_way() {
        for kv_heads in [1, 2] {
            Case::new(config.causal(Causal::TopLeft), Source::Given, [2, 4, kv_heads, 40, 40, 8, 8])
                .gated()
                .check_own("grouped");
        }
    }
}

#[test]
fn rows_that_see_no_key_have_no_gradient_whatever_is_there() {
    for config in each_way() {
        let mut case = Case::new(config, Source::Given, [2, 1, 1, 20, 20, 8, 8]).with_lens(&[20, 0]).gated();
        for name in ["u", "dout", "q", "k", "v"] {
            case.get_mut(name).data[20 * 8..].fill(f32::NAN);
        }
        let back = case.run(context(), Placement::Aligned);
        for (name, gradient) in &back {
            assert!(gradient[..20 * 8].iter().all(|x| x.is_finite()), "{name}: {}", case.name());
            assert!(gradient[20 * 8..].iter().all(|x| x.to_bits() << 1 == 0), "{name}: {}", case.name());
        }
    }
    // Of maps as well, whose gradients are sums over all rows.
    for config in each_way() {
        let clean = Case::new(config, Source::Shared, [2, 1, 1, 20, 20, 8, 8]).with_lens(&[20, 0]).gated();
        let mut poisoned = clean.clone();
        for name in ["u", "dout", "z", "v"] {
            poisoned.get_mut(name).data[20 * 8..].fill(f32::NAN);
        }
        let [a, b] = [&clean, &poisoned].map(|case| case.run(context(), Placement::Aligned));
        assert_same(&clean.name(), &a, &b);
    }
    let back =
        Case::new(V1.causal(Causal::Offset(-4)), Source::Given, square(9, 8, 8)).run(context(), Placement::Aligned);
    assert!(back["dq"][..4 * 8].iter().all(|x| *x == 0.0), "rows before the diagonal");
    assert!(back["dk"][5 * 8..].iter().all(|x| *x == 0.0), "keys behind it");
}

#[test]
fn nan_in_hidden_keys_changes_no_bit() {
    for config in each_way() {
        let clean = Case::new(config, Source::Given, [2, 1, 1, 70, 70, 8, 8]).with_lens(&[43, 5]).gated();
        let mut poisoned = clean.clone();
        for (b, len) in [43, 5].into_iter().enumerate() {
            for name in ["k", "k_lin", "v"] {
                let Some(tensor) = poisoned.tensors.get_mut(name) else { continue };
                tensor.data[(b * 70 + len) * 8..(b + 1) * 70 * 8].fill(f32::NAN);
            }
        }
        let [a, b] = [&clean, &poisoned].map(|case| case.run(context(), Placement::Aligned));
        assert_same(&clean.name(), &a, &b);
    }
    // A query and a key that others do not meet.
    let config = V1.weights(GauWeights::Softmax).causal(Causal::TopLeft);
    let clean = Case::new(config, Source::Given, square(70, 8, 8)).gated();
    for token in [6, 66] {
        let mut poisoned = clean.clone();
        poisoned.get_mut("k").data[token * 8] = f32::INFINITY;
        poisoned.get_mut("v").data[token * 8 + 2] = f32::NAN;
        let [a, b] = [&clean, &poisoned].map(|case| case.run(context(), Placement::Aligned));
        assert_same_bits("rows before the key", &a["dq"][..token * 8], &b["dq"][..token * 8]);
        let mut poisoned = clean.clone();
        poisoned.get_mut("q").data[token * 8] = f32::NAN;
        poisoned.get_mut("dout").data[token * 8] = f32::NAN;
        let b = poisoned.run(context(), Placement::Aligned);
        for name in ["dk", "dv"] {
            assert_same_bits("keys behind the row", &a[name][(token + 1) * 8..], &b[name][(token + 1) * 8..]);
        }
        assert_same_bits("other rows", &a["dq"][(token + 1) * 8..], &b["dq"][(token + 1) * 8..]);
    }
}

#[test]
fn a_hundred_reruns_have_the_same_bits() {
    for config in each_way() {
        let case = Case::new(config.causal(Causal::TopLeft), Source::Shared, [1, 2, 2, 70, 70, 8, 8]).gated();
        let first = case.run(context(), Placement::Aligned);
        for again in case.runs(std::iter::repeat_n(context(), 100)) {
            assert_same("rerun", &first, &again);
        }
    }
}

/// Heads of queries, keys and values of a real model; its keys are the gate as well.
#[test]
fn of_a_real_model() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("data/minilm_qkv.safetensors");
    let bytes = std::fs::read(path).expect("the file");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("tensors");
    let len = 100;
    for (layer, source, causal) in [(0, Source::Given, Causal::None), (5, Source::Shared, Causal::TopLeft)] {
        let tensor = |name: &str| {
            let all = file.tensor(&format!("layer{layer}.{name}")).expect("a layer");
            // Of twelve heads, 32 wide, the first two, and of their 512 tokens the first.
            let halves = all.data().chunks_exact(2).map(|w| half::f16::from_le_bytes([w[0], w[1]]).to_f32());
            let rows: Vec<f32> = halves.take(2 * 512 * 32).collect();
            let data = rows.chunks(512 * 32).flat_map(|head| head[..len * 32].to_vec()).collect();
            Tensor { data, shape: [1, 2, len, 32] }
        };
        let [q, k, v] = ["q", "k", "v"].map(tensor);
        for config in each_way() {
            let mut case = Case::new(config.causal(causal), source, [1, 2, 2, len, len, 32, 32]).gated();
            for (name, of) in [("q", &q), ("k", &k), ("q_lin", &q), ("k_lin", &k), ("z", &q), ("v", &v), ("u", &k)] {
                if let Some(tensor) = case.tensors.get_mut(name) {
                    *tensor = of.clone();
                }
            }
            case.check_own(&format!("layer {layer}"));
        }
    }
}

#[test]
fn what_is_not_asked_for_changes_nothing() {
    for (config, source) in each_way().into_iter().zip([Source::Shared, Source::Given, Source::Shared, Source::Shared])
    {
        let case = Case::new(config.causal(Causal::TopLeft), source, [1, 2, 2, 50, 50, 8, 8]).gated();
        let all = case.run(context(), Placement::Aligned);
        for name in case.gradients() {
            let one = case.try_run(context(), Placement::Aligned, &[name].into()).expect("one gradient");
            assert_same_bits(name, &one[name], &all[name]);
        }
    }
}

#[test]
fn any_placement_agrees() {
    let [squared_relu, row_sum, softmax, mixed] = each_way();
    let gap = |gap| Placement::Interleaved { gap };
    for (config, source, dims, placement) in [
        (squared_relu, Source::Shared, [6, 7], Placement::Odd),
        (row_sum, Source::Given, [8, 8], gap(4)),
        (softmax, Source::Given, [6, 7], gap(3)),
        (mixed, Source::Given, [6, 7], gap(1)),
        (mixed, Source::Shared, [8, 8], Placement::Odd),
    ] {
        let case = Case::new(config, source, [2, 2, 2, 21, 21, dims[0], dims[1]]).gated();
        case.assert(&format!("{placement:?}"), &case.run(context(), placement));
    }
}

#[test]
fn floats_stored_in_16_bits() {
    let names = ["z", "q", "k", "q_lin", "k_lin", "v", "u", "dout", "o"];
    let [squared_relu, row_sum, softmax, mixed] = each_way();
    for (dtype, other, cases) in [
        (DType::F16, DType::BF16, [(squared_relu, Source::Shared), (mixed, Source::Given)]),
        (DType::BF16, DType::F32, [(softmax, Source::Given), (row_sum, Source::Shared)]),
    ] {
        for (config, source) in cases {
            let mut case = Case::new(config.causal(Causal::TopLeft), source, [2, 2, 2, 21, 21, 8, 8]).gated();
            for (at, name) in names.into_iter().enumerate() {
                let stored = if at % 3 == 2 { other } else { dtype };
                case.stored.insert(name, stored);
                if let Some(tensor) = case.tensors.get_mut(name) {
                    *tensor = tensor.clone().rounded(stored);
                }
            }
            for name in case.gradients() {
                case.stored.insert(name, if name.len() % 2 == 0 { dtype } else { other });
            }
            case.check_own("16 bits");
        }
    }
}

fn context_with(options: ContextOptions) -> Context {
    let assume_gpu = context().capabilities().options.assume_gpu;
    Context::with_options(
        context().device().clone(),
        context().queue().clone(),
        ContextOptions { assume_gpu, ..options },
    )
}

#[test]
fn any_split_of_rows_and_work_agrees_with_the_twin() {
    for (config, source) in each_way().into_iter().zip([Source::Given, Source::Shared, Source::Given, Source::Given]) {
        let kv_heads = if source == Source::Given { 1 } else { 2 };
        let case = Case::new(config.causal(Causal::TopLeft), source, [2, 2, kv_heads, 150, 150, 8, 8])
            .gated()
            .with_lens(&[150, 71]);
        let with_keys = |keys| ContextOptions { max_keys_per_split: Some(keys), ..Default::default() };
        let with_flops = |flops| ContextOptions { max_flops_per_dispatch: flops, ..Default::default() };
        let options = [with_keys(1), with_keys(70), with_keys(1000), with_flops(1), with_flops(1_000_000)];
        let contexts = options.map(context_with);
        let backs = case.runs(std::iter::once(context()).chain(&contexts));
        if config.mode != GauMode::Full {
            assert_same("dispatches", &backs[0], &backs[5]);
        }
        let what =
            ["whole", "ranges of 1", "ranges of 70", "ranges of 1000", "a flop a dispatch", "10⁶ flops a dispatch"];
        let all: Vec<_> = what.map(String::from).into_iter().zip(backs).collect();
        case.assert_each(all);
    }
}

#[test]
fn scores_of_ten_thousand_stay_finite() {
    for config in each_way() {
        let mut case = Case::new(config.causal(Causal::TopLeft), Source::Given, square(40, 8, 8));
        for name in ["q", "k"] {
            *case.get_mut(name) = case.tensors[name].clone().scaled(50.0);
        }
        case.check_own("large");
    }
}

#[test]
fn nothing_in_is_nothing_out() {
    // No queries: keys and values still have gradients, of nothing; no sequences: maps have.
    let mut case = Case::new(V1.weights(GauWeights::Softmax), Source::Given, [1, 1, 1, 0, 9, 8, 8]);
    let back = case.run(context(), Placement::Aligned);
    assert!(back["dk"].iter().chain(&back["dv"]).all(|x| *x == 0.0), "{back:?}");
    case = Case::new(V1.weights(GauWeights::Softmax), Source::Given, [1, 1, 1, 9, 0, 8, 8]).gated();
    let back = case.run(context(), Placement::Aligned);
    assert!(back["dq"].iter().chain(&back["du"]).all(|x| *x == 0.0), "{back:?}");
    for config in each_way() {
        for sizes in [[0, 2, 2, 9, 9, 8, 8], [1, 2, 2, 0, 0, 8, 8]] {
            let back = Case::new(config, Source::Shared, sizes).gated().run(context(), Placement::Aligned);
            assert_eq!(back["dgamma_k"].len(), 16);
            assert!(back.values().flatten().all(|x| *x == 0.0), "{back:?}");
        }
    }
}

#[test]
fn what_is_wrong_is_refused_by_name() {
    let run = |case: &Case, wanted: &[&'static str]| {
        let wanted = wanted.iter().copied().collect();
        case.try_run(context(), Placement::Aligned, &wanted).err().map_or(String::new(), |error| error.to_string())
    };
    let case = Case::new(V1, Source::Given, square(5, 8, 8)).gated();
    assert!(
        run(&case, &[]).contains("dv: the output is missing, and so is every other gradient"),
        "{}",
        run(&case, &[])
    );
    let shapes = GatedAttentionBackwardShapes { du: true, ..GatedAttentionBackwardShapes::new(1, 1, 5, 8, 8) };
    let error = |config, shapes: &GatedAttentionBackwardShapes| {
        let op = GatedAttentionBackward::new(context(), config).expect("a config");
        op.plan(shapes, DType::F32).err().map_or(String::new(), |error| error.to_string())
    };
    let refused = error(V1, &shapes);
    assert!(refused.contains("du: the output is given, but what it is the gradient of is not"), "{refused}");
    let shapes = GatedAttentionBackwardShapes { map_heads: 3, ..GatedAttentionBackwardShapes::gau(1, 2, 5, 8, 8) };
    let refused = error(V1, &shapes);
    assert!(refused.contains("gamma_q") && refused.contains("heads"), "{refused}");
    // Of weights that add up to one, o is asked for.
    let config = V1.weights(GauWeights::Softmax);
    let [q, k, v, dout, dq] = [(); 5].map(|()| context().allocate(5 * 8));
    let view = |buffer| TensorView::f32(buffer, [1, 1, 5, 8]);
    let inputs = GatedAttentionBackwardInputs::new(view(&q), view(&k), view(&v), view(&dout));
    let op = GatedAttentionBackward::new(context(), config).expect("a config");
    let gradients = GatedAttentionGradients { dq: Some(view(&dq)), ..GatedAttentionGradients::none() };
    let refused = op.prepare(inputs, gradients).expect_err("no o").to_string();
    assert!(refused.contains("o: is missing"), "{refused}");
    let gradients = GatedAttentionGradients { dv: Some(view(&dq)), ..GatedAttentionGradients::none() };
    assert!(op.prepare(inputs, gradients).is_ok(), "dv does not need it");
}

/// Forward walks some of them: it has one product a pair less, and one head.
#[test]
fn chunks_past_the_loop_cap_are_refused() {
    if context().capabilities().loop_cap.is_none() {
        return;
    }
    let refused = |chunk, q_heads, wanted: [bool; 3]| {
        let op =
            GatedAttentionBackward::new(context(), mixed(chunk, QuadraticDivisor::ChunkDim, LinearDivisor::Tokens));
        let [dq, dk, dv] = wanted;
        let shapes = GatedAttentionBackwardShapes {
            q_heads,
            dq,
            dk,
            dv,
            ..GatedAttentionBackwardShapes::new(1, 1, 1 << 16, 8, 8)
        };
        op.expect("a config").plan(&shapes, DType::F32).err().map_or(String::new(), |error| error.to_string())
    };
    for (chunk, q_heads, wanted, what) in [
        (1 << 16, 1, [true, false, false], "the keys that a query"),
        (1 << 14, 4, [false, true, false], "the queries that a key"),
        (1 << 14, 4, [false, false, true], "the queries that a value"),
    ] {
        let refused = refused(chunk, q_heads, wanted);
        assert!(refused.contains(what) && refused.contains("loop iterations"), "{refused}");
    }
    assert_eq!(refused(1 << 14, 1, [true, false, false]), "");
}

proptest! {
    #![proptest_config(any(12))]

    #[test]
    fn any_problem_agrees_with_the_twin(
        batch in 1usize..3, kv_heads in 1usize..3, group in 1usize..4, q_len in 1usize..100, kv_len in 1usize..100,
        way in 0usize..4, given: bool, gate: bool, lens in proptest::option::of(0u32..100), causal in 0usize..5,
        left in proptest::option::of(0u32..40),
    ) {
        let config = each_way()[way];
        let chunked = config.mode != GauMode::Full;
        let causal = [Causal::None, Causal::TopLeft, Causal::BottomRight, Causal::Offset(3), Causal::Offset(-7)][causal % if chunked { 2 } else { 5 }];
        let config = config.causal(causal);
        let config = if chunked { config } else { config.window(left, None) };
        let (source, group) = if given { (Source::Given, group) } else { (Source::Shared, 1) };
        let kv_len = if given && !chunked { kv_len } else { q_len };
        let mut case = Case::new(config, source, [batch, kv_heads * group, kv_heads, q_len, kv_len, 8, 8]);
        case = if gate { case.gated() } else { case };
        if let Some(len) = lens {
            case = case.with_lens(&[len, 17][..batch]);
        }
        case.check_own("any");
    }
}
