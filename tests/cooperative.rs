//! Cooperative matrices: what is refused without them, what a plan says of them, and what f16 does to numbers. That results
//! are right on every shape is tested with each op (`matrices` in `tests/common`), where the driver has them.
#![allow(clippy::print_stderr, reason = "a driver without matrices is told")]

mod common;

use common::{context, matrices, with_matrices};
use wgpu_attention::{
    Activation, Attention, AttentionBackward, AttentionBackwardInputs, AttentionBackwardShapes, AttentionConfig,
    AttentionGradients, AttentionInputs, AttentionOutputs, AttentionShapes, AutotuneOptions, Causal, Context,
    ContextOptions, DType, Error, GatedAttention, GatedAttentionConfig, GatedAttentionInputs, GatedAttentionOutputs,
    GatedAttentionShapes, GauMode, MatMul, MatMulConfig, MatMulInputs, MatMulOutputs, MatMulShapes, Matrices,
    MatrixSizes, MatrixSubgroups, TensorView,
};

/// The reasons of a refusal.
fn refusal<T>(result: Result<T, Error>) -> String {
    match result {
        Err(Error::Unsupported { reasons }) => reasons.join("; "),
        Err(other) => panic!("refused for another reason: {other}"),
        Ok(_) => panic!("not refused"),
    }
}

fn plan_of_a_product(context: &Context) -> Result<String, Error> {
    let config = MatMulConfig::new().matrices(Matrices::F16);
    let plan = MatMul::new(context, config)?.plan(&MatMulShapes::new(70, 70, 70), DType::F32)?;
    Ok(format!("{}: {}", plan.kernel(), plan.reason()))
}

#[test]
fn a_device_without_matrices_refuses_and_says_what_is_missing() {
    // None asks a device for them unless told to.
    let reasons = refusal(plan_of_a_product(context()));
    assert!(reasons.contains("EXPERIMENTAL_COOPERATIVE_MATRIX"), "{reasons}");
    assert!(reasons.contains("ContextOptions::matrix_sizes"), "{reasons}");

    let asked = with_matrices();
    if asked.capabilities().options.matrix_sizes.is_empty() {
        let reasons = refusal(plan_of_a_product(&asked));
        eprintln!("this driver multiplies no matrices: {reasons}");
        assert!(reasons.contains("ContextOptions::matrix_sizes"), "{reasons}");
        assert!(matrices().is_none(), "and no other test takes them for granted");
    } else {
        let untold = ContextOptions::default();
        let untold = Context::with_options(asked.device().clone(), asked.queue().clone(), untold);
        let reasons = refusal(plan_of_a_product(&untold));
        assert!(!reasons.contains("EXPERIMENTAL") && reasons.contains("matrix_sizes"), "{reasons}");
    }
}

#[test]
fn every_op_refuses_them_alike() {
    let attention = Attention::new(context(), AttentionConfig::new().matrices(Matrices::F16)).unwrap();
    let backward = AttentionBackward::new(context(), AttentionConfig::new().matrices(Matrices::F16)).unwrap();
    let gated = GatedAttention::new(context(), GatedAttentionConfig::new().matrices(Matrices::F16)).unwrap();
    let reasons = [
        refusal(attention.plan(&AttentionShapes::new(1, 1, 70, 16), DType::F32)),
        refusal(backward.plan(&AttentionBackwardShapes::new(1, 1, 70, 16), DType::F32)),
        refusal(gated.plan(&GatedAttentionShapes::gau(1, 1, 70, 16, 16), DType::F32)),
    ];
    for reasons in reasons {
        assert!(reasons.contains("EXPERIMENTAL_COOPERATIVE_MATRIX"), "{reasons}");
    }
    let chunks = GatedAttentionConfig::new().mode(GauMode::MIXED_CHUNK).matrices(Matrices::F16);
    let error = GatedAttention::new(context(), chunks).unwrap_err().to_string();
    assert!(error.contains("matrices") && error.contains("mixed_chunk"), "{error}");
}

#[test]
fn a_plan_names_matrices() {
    let Some(context) = matrices() else { return };
    let plan = plan_of_a_product(context).unwrap();
    assert!(plan.starts_with("matmul/cooperative "), "{plan}");
    assert!(plan.contains("matrices of 8 x 8 in f16, as asked") || plan.contains("matrices of 16 x 16"), "{plan}");
}

/// c of [1, 1, rows, 1], b a column.
fn product(context: &Context, a: &[f32], b: &[f32]) -> Vec<f32> {
    let (rows, k) = ((a.len() / b.len()) as u32, b.len() as u32);
    let [left, right] = [a, b].map(|data| context.upload(data));
    let c = context.allocate(rows as usize);
    let inputs = MatMulInputs::new(TensorView::f32(&left, [1, 1, rows, k]), TensorView::f32(&right, [1, 1, k, 1]));
    let outputs = MatMulOutputs { c: TensorView::f32(&c, [1, 1, rows, 1]) };
    let op = MatMul::new(context, MatMulConfig::new().matrices(Matrices::F16)).unwrap();
    context.run(&op.prepare(inputs, outputs).unwrap()).unwrap();
    context.download(&c).unwrap()
}

#[test]
fn numbers_past_the_largest_of_f16_count_as_that() {
    let Some(context) = matrices() else { return };
    let most = 65504.0_f32;
    for big in [65504.0, 65519.0, 65520.0, 1e6, 1e30, f32::MAX, f32::INFINITY] {
        let c = product(context, &[big, 1.0, -big, 1.0, big, -big, big, big], &[1.0, 1.0]);
        assert_eq!(c, [most + 1.0, 1.0 - most, 0.0, 2.0 * most], "{big}");
        // Large times large, however many, stays finite.
        let c = product(context, &vec![big; 2 * 200], &[big; 200]);
        assert!(c.iter().all(|&x| (x / (200.0 * most * most) - 1.0).abs() < 1e-4), "{big}: {c:?}");
    }
    // To nearest, and nothing of the smallest.
    assert_eq!(
        product(context, &[1.0 + 1.0 / 4096.0, 3.0, 1e-9, 2.0_f32.powi(-14)], &[1.0]),
        [1.0, 3.0, 0.0, 2.0_f32.powi(-14)]
    );
}

/// Numbers of f16 between -2 and 2, stored so or in f32.
fn uploaded(context: &Context, count: usize, seed: usize, dtype: DType) -> wgpu::Buffer {
    let mut numbers: Vec<_> = (0..count).map(|i| ((i * 37 + seed * 11) % 129) as f32 / 32.0 - 2.0).collect();
    // The last, which attention hides from all rows but one.
    numbers[count - 1] = f32::NAN;
    context.upload_as(&numbers, dtype).unwrap()
}

#[test]
fn what_is_stored_in_f16_is_multiplied_as_it_is() {
    let Some(context) = matrices() else { return };
    for dim in [12, 24] {
        let shape = [1, 1, 45, dim];
        let count = 45 * dim as usize;
        let of = |dtype| {
            let [q, k, v] = [1, 2, 3].map(|seed| uploaded(context, count, seed, dtype));
            let [q, k, v] = [&q, &k, &v].map(|buffer| TensorView::new(buffer, dtype, shape));
            let o = context.allocate(count);
            let config = AttentionConfig::new().causal(Causal::TopLeft).matrices(Matrices::F16);
            let outputs = AttentionOutputs::new(TensorView::f32(&o, shape));
            let prepared = Attention::new(context, config).unwrap().prepare(AttentionInputs::new(q, k, v), outputs);
            context.run(&prepared.unwrap()).unwrap();
            context.download(&o).unwrap()
        };
        common::assert_same_bits(
            "attention",
            &of(DType::F16)[..44 * dim as usize],
            &of(DType::F32)[..44 * dim as usize],
        );
    }
    for [m, n, k] in [[45, 37, 50], [64, 32, 64]] {
        let of = |dtype| {
            let a = uploaded(context, (m * k) as usize + 1, 1, dtype);
            let b = uploaded(context, (k * n) as usize + 1, 2, dtype);
            let c = context.allocate((m * n) as usize);
            let inputs =
                MatMulInputs::new(TensorView::new(&a, dtype, [1, 1, m, k]), TensorView::new(&b, dtype, [1, 1, k, n]));
            let op = MatMul::new(context, MatMulConfig::new().matrices(Matrices::F16)).unwrap();
            let prepared = op.prepare(inputs, MatMulOutputs { c: TensorView::f32(&c, [1, 1, m, n]) }).unwrap();
            context.run(&prepared).unwrap();
            context.download(&c).unwrap()
        };
        let (stored, plain) = (of(DType::F16), of(DType::F32));
        assert!(plain.iter().all(|x| x.is_finite()));
        common::assert_same_bits("matmul", &stored, &plain);
    }
}

/// A device that computes nothing, with 16 x 16 matrices and subgroups of 32 to 64, as AMD's GPUs have them.
#[allow(unsafe_code, reason = "wgpu asks so for an experimental feature")]
fn of_several_sizes(matrix_subgroups: MatrixSubgroups) -> Context {
    use wgpu::CooperativeScalarType::{F16, F32};
    let features =
        wgpu::Features::SUBGROUP | wgpu::Features::SHADER_F16 | wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX;
    let noop = wgpu::NoopBackendOptions {
        features: Some(features),
        subgroup_min_size: Some(32),
        subgroup_max_size: Some(64),
        ..wgpu::NoopBackendOptions::enabled()
    };
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: wgpu::Backends::NOOP,
        backend_options: wgpu::BackendOptions { noop, ..Default::default() },
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let descriptor = wgpu::DeviceDescriptor {
        required_features: features,
        // SAFETY: nothing runs on this device.
        experimental_features: unsafe { wgpu::ExperimentalFeatures::enabled() },
        ..Default::default()
    };
    let (device, queue) = pollster::block_on(async {
        let adapter = instance.request_adapter(&wgpu::RequestAdapterOptions::default()).await.unwrap();
        adapter.request_device(&descriptor).await.unwrap()
    });
    let matrix_sizes = MatrixSizes::new(&[wgpu::CooperativeMatrixProperties {
        m_size: 16,
        n_size: 16,
        k_size: 16,
        ab_type: F16,
        cr_type: F32,
        saturating_accumulation: false,
    }]);
    Context::with_options(device, queue, ContextOptions { matrix_sizes, matrix_subgroups, ..Default::default() })
}

#[test]
fn where_subgroups_vary_the_caller_tells_the_size_of_each_op() {
    let reasons = refusal(plan_of_a_product(&of_several_sizes(MatrixSubgroups::default())));
    assert!(reasons.contains("several") && reasons.contains("ContextOptions::matrix_subgroups"), "{reasons}");
    for size in [32, 64] {
        let told = MatrixSubgroups { matmul: Some(size), ..Default::default() };
        let context = of_several_sizes(told);
        let plan = plan_of_a_product(&context).unwrap();
        assert!(plan.contains(&format!("subgroups of {size}")), "{plan}");
        let attention = Attention::new(&context, AttentionConfig::new().matrices(Matrices::F16)).unwrap();
        refusal(attention.plan(&AttentionShapes::new(1, 1, 70, 16), DType::F32));
        let backward = AttentionBackward::new(&context, AttentionConfig::new().matrices(Matrices::F16)).unwrap();
        refusal(backward.plan(&AttentionBackwardShapes::new(1, 1, 70, 16), DType::F32));
    }
    // Of 8 is smaller than its only matrices are high.
    for size in [4, 8, 48, 256] {
        let reasons = refusal(plan_of_a_product(&of_several_sizes(MatrixSubgroups::all(size))));
        assert!(reasons.contains(&format!("of {size}")), "{reasons}");
    }
}

#[test]
fn gradients_without_room_for_matrices_are_f32_and_a_plan_says_so() {
    // Of 16 KiB.
    let context = of_several_sizes(MatrixSubgroups::all(32));
    let op = AttentionBackward::new(&context, AttentionConfig::new().matrices(Matrices::F16)).unwrap();
    let reason = |dim| op.plan(&AttentionBackwardShapes::new(1, 1, 70, dim), DType::F32).unwrap().reason().to_owned();
    let (narrow, wide) = (reason(64), reason(128));
    assert_eq!(narrow.matches("by matrices of 16 x 16 in f16, as asked").count(), 2, "{narrow}");
    assert_eq!(wide.matches("in f32, as those by matrices find no room in workgroup memory").count(), 2, "{wide}");
}

/// Told of a size that the driver's subgroups have not, kernels write NaN to every number of every output, whatever comes after them.
#[test]
fn subgroups_of_another_size_give_nan_and_no_number() {
    let Some(right) = matrices() else { return };
    let wrong = if right.capabilities().subgroup_size == Some(16) { 8 } else { 16 };
    let options = right.capabilities().options;
    let (device, queue) = (right.device().clone(), right.queue().clone());
    // In ranges of keys too, which another kernel combines.
    for max_keys_per_split in [None, Some(64)] {
        let matrix_subgroups = MatrixSubgroups::all(wrong);
        let options = ContextOptions { max_keys_per_split, matrix_subgroups, ..options };
        let context = Context::with_options(device.clone(), queue.clone(), options);
        let shape = [1, 2, 150, 12];
        let x = uploaded(&context, 2 * 150 * 12, 1, DType::F32);
        let view = TensorView::f32(&x, shape);
        let [o, lse, entropy] = [2 * 150 * 12, 2 * 150, 2 * 150].map(|count| context.allocate(count));
        let mut outputs = AttentionOutputs::new(TensorView::f32(&o, shape));
        outputs.lse = Some(TensorView::f32(&lse, [1, 2, 150]));
        outputs.entropy = Some(TensorView::f32(&entropy, [1, 2, 150]));
        let all_nan = |what: &str, buffer: &wgpu::Buffer| {
            let numbers = context.download(buffer).unwrap();
            assert!(numbers.iter().all(|x| x.is_nan()), "{what} with {max_keys_per_split:?}: {numbers:?}");
        };
        let op = Attention::new(&context, AttentionConfig::new().matrices(Matrices::F16)).unwrap();
        context.run(&op.prepare(AttentionInputs::new(view, view, view), outputs).unwrap()).unwrap();
        for (what, buffer) in [("o", &o), ("lse", &lse), ("entropy", &entropy)] {
            all_nan(what, buffer);
        }
        let gradients = [(); 3].map(|()| context.allocate(2 * 150 * 12));
        let [dq, dk, dv] = gradients.each_ref().map(|buffer| TensorView::f32(buffer, shape));
        let dscale = context.allocate(2);
        let mut outputs = AttentionGradients::new(dq, dk, dv);
        outputs.dscale = Some(TensorView::f32(&dscale, [2]));
        let saved = context.allocate(2 * 150);
        let inputs = AttentionBackwardInputs::new(view, view, view, view, TensorView::f32(&saved, [1, 2, 150]), view);
        let op = AttentionBackward::new(&context, AttentionConfig::new().matrices(Matrices::F16)).unwrap();
        context.run(&op.prepare(inputs, outputs).unwrap()).unwrap();
        for (what, buffer) in ["dq", "dk", "dv"].into_iter().zip(&gradients).chain([("dscale", &dscale)]) {
            all_nan(what, buffer);
        }
        let op = GatedAttention::new(&context, GatedAttentionConfig::new().matrices(Matrices::F16)).unwrap();
        let o = context.allocate(2 * 150 * 12);
        let outputs = GatedAttentionOutputs::new(TensorView::f32(&o, shape));
        context.run(&op.prepare(GatedAttentionInputs::new(view, view, view), outputs).unwrap()).unwrap();
        all_nan("gated attention", &o);
    }
    let options = ContextOptions { matrix_subgroups: MatrixSubgroups::all(wrong), ..options };
    let context = Context::with_options(device, queue, options);
    // All of k at once, and in ranges; a maximum with 0 must not hide it.
    for k in [40, 5000] {
        let a = uploaded(&context, 70 * k, 1, DType::F32);
        let c = context.allocate(70 * 70);
        let a = TensorView::f32(&a, [1, 1, 70, k as u32]);
        let config = MatMulConfig::new().matrices(Matrices::F16).activation(Activation::Relu);
        let outputs = MatMulOutputs { c: TensorView::f32(&c, [1, 1, 70, 70]) };
        let op = MatMul::new(&context, config).unwrap();
        context.run(&op.prepare(MatMulInputs::new(a, a.swap_axes(2, 3)), outputs).unwrap()).unwrap();
        let numbers = context.download(&c).unwrap();
        assert!(numbers.iter().all(|x| x.is_nan()), "{k}: {numbers:?}");
    }
    // What measures sees that no kernel runs, and keeps none.
    let cases = [(AttentionConfig::new().matrices(Matrices::F16), AttentionShapes::new(1, 1, 64, 8)).into()];
    let tuning = context.autotune(&cases, &AutotuneOptions::default(), |_| {}).unwrap();
    let (_, case) = tuning.cases().next().unwrap();
    assert!(case.kernel.is_none() && case.measured == 0 && case.wrong > 0, "{case:?}");
}
