//! A choice of kernels that measures: right whatever is chosen, stored and loaded, and never trusted.

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::{Expected, NAIVE_RUNS, Tensor, ULP, compiles_slowly, context, contexts, matrices};
use wgpu_attention::attention::reference::{HostInputs, attention, attention_in};
use wgpu_attention::reference::SumOrder;
use wgpu_attention::{
    Attention, AttentionConfig, AttentionInputs, AttentionOutputs, AttentionShapes, AutotuneOptions, Causal, Context,
    DType, Error, FeatureMap, GatedAttentionConfig, GatedAttentionShapes, GauMode, LinearAttentionConfig,
    LinearAttentionShapes, LinearMode, MatMul, MatMulConfig, MatMulShapes, Matrices, Result, Scale, TensorView, Tuning,
    TuningCase,
};

/// For all cases; software drivers take a second for a kernel.
const BUDGET: AutotuneOptions = AutotuneOptions { budget: Duration::from_secs(15) };
/// For the default of one case, and for no candidate.
const LITTLE: AutotuneOptions = AutotuneOptions { budget: Duration::from_millis(1) };

fn shapes(q_len: u32, kv_len: u32, dim: u32) -> AttentionShapes {
    AttentionShapes { q_len, kv_heads: 1, ..AttentionShapes::new(1, 2, kv_len, dim) }
}

/// Small, and with every option somewhere.
fn cases() -> Vec<TuningCase> {
    let plain = AttentionConfig::new();
    let causal = plain.causal(Causal::BottomRight).scale(Scale::LOG_N);
    let options =
        AttentionShapes { kv_lens: true, bias: true, mask: true, lse: true, entropy: true, ..shapes(9, 70, 20) };
    let linear = LinearAttentionConfig::new().mode(LinearMode::Causal);
    let state = LinearAttentionShapes { state_in: true, state_out: true, ..LinearAttentionShapes::new(1, 2, 150, 12) };
    let gau = GatedAttentionConfig::new();
    vec![
        (plain, shapes(70, 600, 16)).into(),
        (causal.softcap(20.0), options).into(),
        (causal, shapes(70, 90, 12), DType::F16).into(),
        (plain, shapes(3, 300, 20), DType::BF16).into(),
        (linear.feature_map(FeatureMap::Exp), state).into(),
        (LinearAttentionConfig::new(), LinearAttentionShapes::new(2, 1, 300, 8)).into(),
        (gau.causal(Causal::TopLeft), GatedAttentionShapes::gau(1, 1, 300, 8, 40)).into(),
        (gau.mode(GauMode::MIXED_CHUNK), GatedAttentionShapes::gau(1, 1, 300, 8, 20)).into(),
        (MatMulConfig::new(), MatMulShapes { bias: true, b_transposed: true, ..MatMulShapes::new(70, 90, 600) }).into(),
    ]
}

fn cases_of_matrices() -> Vec<TuningCase> {
    let attention = AttentionConfig::new().causal(Causal::TopLeft).matrices(Matrices::F16);
    let matmul = MatMulConfig::new().matrices(Matrices::F16);
    vec![(attention, shapes(70, 70, 16)).into(), (matmul, MatMulShapes::new(70, 90, 600)).into()]
}

/// A tuning that takes one kernel for every class of another.
fn forged(tuning: &Tuning, kernel: &str) -> Tuning {
    let mut json = serde_json::to_value(tuning).expect("a tuning is data");
    for (_, case) in json["cases"].as_object_mut().expect("cases by class") {
        case["kernel"] = kernel.into();
    }
    serde_json::from_value(json).expect("still a tuning")
}

#[test]
fn every_candidate_gives_the_result_of_the_default() -> Result<()> {
    let kernels = if compiles_slowly() { 1 } else { 2 };
    let mut all: Vec<_> = contexts().into_iter().take(kernels).map(|(by, context)| (by, context, cases())).collect();
    all.extend(matrices().map(|context| (", by matrices", context, cases_of_matrices())));
    for (by, context, cases) in all {
        let (mut calls, mut names) = (0, BTreeSet::new());
        let tuning = context.autotune(&cases, &BUDGET, |progress| {
            calls += 1;
            let own = [progress.class, progress.candidate.unwrap_or_default()].map(str::to_owned);
            assert!(names.insert(own), "{by}: {progress:?} has the name of another candidate");
        })?;
        assert!(tuning.cases().count() > 0, "{by}: a class each, unless a kernel takes long");
        for (class, case) in tuning.cases() {
            assert_eq!([case.wrong, case.refused], [0; 2], "{by}: {class}: {case:?}");
            assert!(case.default_ms > 0.0 && case.tuned_ms <= case.default_ms, "{by}: {class}: {case:?}");
            assert_eq!(case.kernel.is_some(), case.tuned_ms < case.default_ms, "{by}: {class}: {case:?}");
        }
        let candidates: u32 = tuning.cases().map(|(_, case)| case.measured).sum();
        // On some drivers a GPU's kernels take as long to compile as there is time.
        assert!(candidates > 0 || !by.is_empty(), "there is more than the default");
        assert_eq!(calls, candidates as usize + tuning.cases().count(), "{by}: progress is told");

        let text = serde_json::to_string(&tuning).expect("a tuning is data");
        assert_eq!(serde_json::from_str::<Tuning>(&text).expect("its own words"), tuning, "{by}");
        // What was measured is kept, and said.
        let tuned = context.with_tuning(tuning.clone())?;
        assert_eq!(tuned.autotune(&[], &LITTLE, |_| ())?, tuning, "{by}");
        let TuningCase::Attention(config, shapes, dtype) = cases[0] else { unreachable!() };
        let plan = Attention::new(&tuned, config)?.plan(&shapes, dtype)?;
        assert!(plan.reason().contains("; tuned: "), "{by}: {}", plan.reason());
    }
    Ok(())
}

#[test]
fn what_a_tuning_names_runs_and_is_right() -> Result<()> {
    let shapes = shapes(70, 90, 20);
    let config = AttentionConfig::new().causal(Causal::BottomRight);
    for (by, context) in contexts().into_iter().take(2) {
        let kernel = if context.capabilities().is_cpu {
            "rows workgroup=8 keys=8"
        } else {
            "tiled height=4 groups=1 keys=4 columns=4 slab=8"
        };
        let measured = context.autotune(&[(config, shapes).into()], &LITTLE, |_| ())?;
        for kernel in [kernel.to_owned(), format!("{kernel} unsplit"), format!("{kernel} range=256")] {
            let tuned = context.with_tuning(forged(&measured, &kernel))?;
            let plan = Attention::new(&tuned, config)?.plan(&shapes, DType::F32)?;
            assert!(plan.reason().contains("of the default"), "{by}: {kernel}: {}", plan.reason());
            let case = format!("{kernel}{by}");
            compare(&tuned, config, &case)?;
        }
    }
    Ok(())
}

/// The shapes of the test above, against the twin.
fn compare(context: &Context, config: AttentionConfig, case: &str) -> Result<()> {
    let q = Tensor::normal(1, [1, 2, 70, 20]);
    let [k, v] = [2, 3].map(|seed| Tensor::normal(seed, [1, 1, 90, 20]));
    let inputs = HostInputs::new(q.view(), k.view(), v.view());
    let want = attention(&config, &inputs)?.o;
    let naive = (0..NAIVE_RUNS).map(|seed| Ok(attention_in::<f32>(&config, &inputs, SumOrder::Shuffled(seed))?.o));
    let naive = naive.collect::<Result<Vec<_>>>()?;

    let [q, k, v] = [q, k, v].map(|tensor| context.upload(&tensor.data));
    let o = context.upload(&[f32::NAN; 2 * 70 * 20]);
    let keys = [1, 1, 90, 20];
    let inputs =
        AttentionInputs::new(TensorView::f32(&q, [1, 2, 70, 20]), TensorView::f32(&k, keys), TensorView::f32(&v, keys));
    let mut encoder = context.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    let o_view = TensorView::f32(&o, [1, 2, 70, 20]);
    Attention::new(context, config)?.record(&mut encoder, inputs, AttentionOutputs::new(o_view))?;
    context.queue().submit([encoder.finish()]);
    // Exponentials and a division, as tests/attention.rs derives them.
    let floor = 24.0 * ULP;
    Expected { case, name: "o", shape: &[1, 2, 70, 20], want: &want, naive: &naive, floor, absolute_floor: 0.0 }
        .assert(&context.download(&o)?);
    Ok(())
}

#[test]
fn a_tuning_is_refused_elsewhere_and_ignored_where_it_names_nothing() -> Result<()> {
    let context = context();
    let (config, shapes) = (MatMulConfig::new(), MatMulShapes::new(40, 30, 20));
    let tuning = context.autotune(&[(config, shapes).into()], &LITTLE, |_| ())?;
    for (field, what) in
        [("version", "crate version"), ("adapter", "adapter"), ("backend", "backend"), ("driver", "driver")]
    {
        let mut json = serde_json::to_value(&tuning).expect("a tuning is data");
        json[field] = "another".into();
        let foreign: Tuning = serde_json::from_value(json).expect("still a tuning");
        let error = context.with_tuning(foreign).expect_err(what);
        assert!(matches!(error, Error::Tuning { .. }), "{error}");
        let message = error.to_string();
        assert!(message.contains(what) && message.contains("another"), "{message}");
    }

    let default = MatMul::new(context, config)?.plan(&shapes, DType::F32)?;
    for kernel in ["rows workgroup=4096 columns=1 span=1 depth=3", "", "tiles groups=64x64 blocks=9x9 depth=1"] {
        let tuned = context.with_tuning(forged(&tuning, kernel))?;
        let plan = MatMul::new(&tuned, config)?.plan(&shapes, DType::F32)?;
        assert_eq!(plan.kernel(), default.kernel());
        assert!(plan.reason().contains("not offered"), "{}", plan.reason());
    }
    let tuned = context.with_tuning(tuning)?;
    let other = MatMul::new(&tuned, config)?.plan(&MatMulShapes::new(400, 30, 20), DType::F32)?;
    assert!(other.reason().ends_with("not tuned for this class of calls"), "{}", other.reason());
    Ok(())
}

#[test]
fn a_budget_is_kept_and_bad_cases_are_named_first() -> Result<()> {
    let context = context();
    let nothing = AutotuneOptions { budget: Duration::ZERO };
    let measured = context.autotune(&cases(), &nothing, |_| panic!("there is no time for that"))?;
    assert_eq!(measured.cases().count(), 0);
    let measured = context.autotune(&cases()[..1], &LITTLE, |progress| assert_eq!(progress.candidate, None))?;
    assert_eq!(measured.cases().count(), 1);
    for (class, case) in measured.cases() {
        assert!(case.left_out > 0 && case.measured == 0 && case.kernel.is_none(), "{class}: {case:?}");
    }

    let bad = (AttentionConfig::new(), shapes(1, 1, 0)).into();
    let error = context.autotune(&[cases()[0], bad], &LITTLE, |_| panic!("nothing was measured")).expect_err("dim 0");
    assert!(error.to_string().contains("head_dim"), "{error}");
    let nothing = [
        (AttentionConfig::new(), shapes(0, 5, 8)).into(),
        (AttentionConfig::new(), shapes(5, 0, 8)).into(),
        (LinearAttentionConfig::new(), LinearAttentionShapes { kv_len: 0, ..LinearAttentionShapes::new(1, 1, 5, 8) })
            .into(),
        (GatedAttentionConfig::new(), GatedAttentionShapes { kv_len: 0, ..GatedAttentionShapes::new(1, 1, 5, 8, 8) })
            .into(),
        (MatMulConfig::new(), MatMulShapes::new(5, 8, 0)).into(),
    ];
    let empty = context.autotune(&nothing, &BUDGET, |_| ())?;
    assert_eq!(empty.cases().count(), 0, "nothing to do, nothing to measure");
    Ok(())
}
