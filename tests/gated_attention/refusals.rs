//! What gated attention refuses, by name, and what it does not; and how its config reads as JSON.

use wgpu_attention::{
    Causal, DType, Divisor, Error, GatedAttention, GatedAttentionConfig, GatedAttentionInputs, GatedAttentionOutputs,
    GatedAttentionShapes, GauMode, GauWeights, LinearDivisor, QuadraticDivisor, TensorView,
};

use crate::common::{Placement, context};
use crate::{Case, Source, V1, each_kernel};

#[test]
fn bad_options_are_refused_by_name() {
    let squared_relu = |divisor| V1.weights(GauWeights::SquaredRelu(divisor));
    let mixed = |chunk, quadratic, linear| V1.mode(GauMode::MixedChunk { chunk, quadratic, linear });
    use LinearDivisor::Tokens;
    use QuadraticDivisor::ChunkDim;
    let mut cases = vec![
        (squared_relu(Divisor::FixedLenDim { len: 0 }), "weights.squared_relu.fixed_len_dim.len"),
        (V1.weights(GauWeights::SoftmaxLogN { base: 1.0, floor: 1 }), "weights.softmax_log_n.base"),
        (V1.weights(GauWeights::SoftmaxLogN { base: f32::NAN, floor: 1 }), "weights.softmax_log_n.base"),
        (V1.weights(GauWeights::SoftmaxLogN { base: 2.0, floor: 0 }), "weights.softmax_log_n.floor"),
        (V1.causal(Causal::Offset(i32::MIN)), "causal.offset"),
        (V1.window(Some(u32::MAX), None), "window.left"),
        (mixed(0, ChunkDim, Tokens), "mode.mixed_chunk.chunk"),
        (mixed(u32::MAX, ChunkDim, Tokens), "mode.mixed_chunk.chunk"),
        (V1.mode(GauMode::MIXED_CHUNK).weights(GauWeights::Softmax), "option weights"),
        (squared_relu(Divisor::LenSquared).mode(GauMode::MIXED_CHUNK), "option weights"),
        (V1.mode(GauMode::MIXED_CHUNK).causal(Causal::Offset(0)), "option causal"),
        (V1.mode(GauMode::MIXED_CHUNK).window(None, Some(3)), "option window"),
    ];
    for divisor in [0.0, -1.0, f32::NAN, f32::INFINITY, 1e-40] {
        cases.push((squared_relu(Divisor::RowSum { eps: divisor }), "weights.squared_relu.row_sum.eps"));
        cases.push((mixed(4, QuadraticDivisor::Fixed(divisor), Tokens), "mode.mixed_chunk.quadratic.fixed"));
        cases.push((mixed(4, ChunkDim, LinearDivisor::Fixed(divisor)), "mode.mixed_chunk.linear.fixed"));
    }
    for (config, named) in cases {
        let error = GatedAttention::new(context(), config).expect_err(&format!("{config:?}"));
        assert!(matches!(error, Error::Config { .. }) && error.to_string().contains(named), "{config:?}: {error}");
    }
}

#[test]
fn bad_tensors_are_refused_by_name() {
    let context = context();
    let buffer = context.allocate(4096);
    let other = context.allocate(4096);
    let four = |shape| TensorView::f32(&buffer, shape);
    let two = |shape| TensorView::f32(&buffer, shape);
    let (q, v, row) = (four([1, 2, 6, 8]), four([1, 2, 6, 4]), two([2, 8]));
    let o = TensorView::f32(&other, [1, 2, 6, 4]);
    let given = GatedAttentionInputs::new(q, q, v);
    let shared = GatedAttentionInputs::shared(q, row, row, v);
    let lens = |len| TensorView::new(&buffer, DType::U32, [len]);
    let mixed = V1.mode(GauMode::MIXED_CHUNK);
    let given_mixed = GatedAttentionInputs { q_lin: Some(q), k_lin: Some(q), ..given };
    let shared_mixed = GatedAttentionInputs { gamma_q_lin: Some(row), gamma_k_lin: Some(row), ..shared };

    let cases: Vec<(GatedAttentionConfig, GatedAttentionInputs<'_>, &str)> = vec![
        (
            V1,
            GatedAttentionInputs { z: Some(q), gamma_q: Some(row), gamma_k: Some(row), ..given },
            "q: is given, but z",
        ),
        (V1, GatedAttentionInputs { k: Some(q), ..shared }, "k: is given, but z"),
        (V1, GatedAttentionInputs { q: None, k: None, ..given }, "z: either z or q and k"),
        (V1, GatedAttentionInputs { q: None, ..given }, "q: k is given without it"),
        (V1, GatedAttentionInputs { k: None, ..given }, "k: q is given without it"),
        (V1, GatedAttentionInputs { gamma_q: None, ..shared }, "gamma_q: z needs it"),
        (V1, GatedAttentionInputs { gamma_k: None, ..shared }, "gamma_k: z needs it"),
        (V1, GatedAttentionInputs { beta_k: Some(row), ..given }, "beta_k: is given, but z"),
        (V1, GatedAttentionInputs { gamma_q: Some(row), ..given }, "gamma_q: is given, but z"),
        (V1, GatedAttentionInputs { beta_q_lin: Some(row), ..shared }, "beta_q_lin: is given, but only the mode"),
        (V1, GatedAttentionInputs { k_lin: Some(q), ..given }, "k_lin: is given, but only the mode"),
        (mixed, given, "q_lin: the mode mixed_chunk needs it"),
        (mixed, GatedAttentionInputs { k_lin: None, ..given_mixed }, "k_lin: the mode mixed_chunk needs it"),
        (mixed, shared, "gamma_q_lin: z needs it"),
        (mixed, GatedAttentionInputs { gamma_k_lin: None, ..shared_mixed }, "gamma_k_lin: z needs it"),
        (mixed, GatedAttentionInputs { q_lin: Some(q), ..shared_mixed }, "q_lin: is given, but z"),
        (mixed, GatedAttentionInputs { q_lin: Some(four([1, 2, 5, 8])), ..given_mixed }, "q_lin: axis q_len"),
        (mixed, GatedAttentionInputs { gamma_k_lin: Some(two([2, 7])), ..shared_mixed }, "gamma_k_lin: axis key_dim"),
        (
            mixed.causal(Causal::BottomRight),
            GatedAttentionInputs { kv_lens: Some(lens(1)), ..shared_mixed },
            "option causal",
        ),
        (
            mixed,
            GatedAttentionInputs { q: Some(four([1, 2, 5, 8])), q_lin: Some(four([1, 2, 5, 8])), ..given_mixed },
            "k: axis kv_len",
        ),
        (V1, GatedAttentionInputs { k: Some(four([2, 2, 6, 8])), ..given }, "k: axis batch"),
        (V1, GatedAttentionInputs { k: Some(four([1, 2, 6, 7])), ..given }, "k: axis key_dim"),
        (V1, GatedAttentionInputs { q: Some(four([1, 3, 6, 8])), ..given }, "q: axis q_heads"),
        (V1, GatedAttentionInputs { v: four([2, 2, 6, 4]), ..given }, "v: axis batch"),
        (V1, GatedAttentionInputs { v: four([1, 1, 6, 4]), ..shared }, "v: axis kv_heads"),
        (V1, GatedAttentionInputs { v: four([1, 2, 5, 4]), ..shared }, "v: axis kv_len"),
        (V1, GatedAttentionInputs { v: four([1, 2, 6, 0]), ..given }, "v: axis v_dim"),
        (
            V1,
            GatedAttentionInputs { q: Some(four([1, 2, 6, 0])), k: Some(four([1, 2, 6, 0])), ..given },
            "q: axis key_dim",
        ),
        (V1, GatedAttentionInputs { z: Some(four([1, 0, 6, 8])), v: four([1, 0, 6, 4]), ..shared }, "z: axis heads"),
        (V1, GatedAttentionInputs { gamma_q: Some(two([1, 8])), ..shared }, "gamma_q: axis heads"),
        (V1, GatedAttentionInputs { beta_k: Some(two([2, 9])), ..shared }, "beta_k: axis key_dim"),
        (V1, GatedAttentionInputs { u: Some(four([1, 2, 6, 5])), ..given }, "u: axis v_dim"),
        (V1, GatedAttentionInputs { kv_lens: Some(lens(2)), ..given }, "kv_lens: axis batch"),
        (V1, GatedAttentionInputs { u: Some(TensorView::f32(&other, [1, 2, 6, 4])), ..given }, "input u"),
        (V1, GatedAttentionInputs { v: v.with_offset(4096), ..given }, "v: the view ends at byte"),
        (
            V1,
            GatedAttentionInputs { gamma_k: Some(row.with_strides([8, 2])), ..shared },
            "gamma_k: stride of axis key_dim",
        ),
        (V1, GatedAttentionInputs { kv_lens: Some(TensorView::f32(&buffer, [1])), ..given }, "kv_lens: element type"),
    ];
    for (config, inputs, named) in cases {
        let op = GatedAttention::new(context, config).unwrap();
        let error = op.prepare(inputs, GatedAttentionOutputs::new(o)).expect_err(named);
        assert!(error.to_string().contains(named), "want {named}, got {error}");
    }
    let op = GatedAttention::new(context, V1).unwrap();
    let error = op.prepare(given, GatedAttentionOutputs::new(TensorView::f32(&other, [1, 2, 7, 4]))).unwrap_err();
    assert!(error.to_string().contains("o: axis q_len"), "{error}");
}

#[test]
fn configs_are_read_from_json() {
    let read = |text: &str| serde_json::from_str::<GatedAttentionConfig>(text);
    assert_eq!(read("{}").unwrap(), V1);
    let text =
        r#"{"weights": {"squared_relu": {"row_sum": {"eps": 1e-6}}}, "causal": "top_left", "window": {"left": 3}}"#;
    let divisor = Divisor::RowSum { eps: 1e-6 };
    let want = V1.weights(GauWeights::SquaredRelu(divisor)).causal(Causal::TopLeft).window(Some(3), None);
    assert_eq!(read(text).unwrap(), want);
    for (text, weights) in [
        (r#"{"squared_relu": "len_dim"}"#, GauWeights::SquaredRelu(Divisor::LenDim)),
        (
            r#"{"squared_relu": {"fixed_len_dim": {"len": 512}}}"#,
            GauWeights::SquaredRelu(Divisor::FixedLenDim { len: 512 }),
        ),
        (r#"{"squared_relu": "len_squared"}"#, GauWeights::SquaredRelu(Divisor::LenSquared)),
        (r#""softmax""#, GauWeights::Softmax),
        (r#"{"softmax_log_n": {"base": 512.0, "floor": 1}}"#, GauWeights::SOFTMAX_LOG_N),
    ] {
        assert_eq!(read(&format!(r#"{{"weights": {text}}}"#)).unwrap().weights, weights);
    }
    let mode = |text: &str| read(&format!(r#"{{"mode": {text}}}"#)).map(|config| config.mode);
    assert_eq!(mode(r#""full""#).unwrap(), GauMode::Full);
    assert_eq!(mode(r#"{"mixed_chunk": {}}"#).unwrap(), GauMode::MIXED_CHUNK);
    let want =
        GauMode::MixedChunk { chunk: 64, quadratic: QuadraticDivisor::Fixed(4096.0), linear: LinearDivisor::Chunk };
    assert_eq!(
        mode(r#"{"mixed_chunk": {"chunk": 64, "quadratic": {"fixed": 4096.0}, "linear": "chunk"}}"#).unwrap(),
        want
    );
    for text in [r#"{"mixed_chunk": {"size": 3}}"#, r#"{"mixed_chunk": {"linear": "tokens", "x": 1}}"#, r#""sparse""#] {
        assert!(mode(text).is_err(), "{text}");
    }
    assert!(read(r#"{"heads": 3}"#).is_err());
    assert!(read(r#"{"weights": {"softmax_log_n": {"base": 512.0, "floor": 1, "x": 1}}}"#).is_err());
}

#[test]
fn chunks_past_the_loop_cap_are_refused() {
    let shapes = GatedAttentionShapes::new(1, 1, 1 << 20, 16, 16);
    let [.., config] = each_kernel();
    let GauMode::MixedChunk { quadratic, linear, .. } = config.mode else { panic!("the last has chunks") };
    for chunk in [4, 1 << 20] {
        let op = GatedAttention::new(context(), config.mode(GauMode::MixedChunk { chunk, quadratic, linear })).unwrap();
        if context().capabilities().loop_cap.is_some() {
            let error = op.plan(&shapes, DType::F32).unwrap_err();
            assert!(matches!(error, Error::Unsupported { .. }), "{error}");
        }
    }
}

#[test]
fn nothing_to_do_is_fine() {
    for (batch, len) in [(0, 5), (2, 0)] {
        for config in each_kernel() {
            let case = Case::new(config, Source::Shared, [batch, 1, 1, len, len, 8, 8]);
            assert!(case.run(context(), Placement::Aligned).is_empty());
        }
    }
}
