//! Margin softmax and its gradients beside the same with logits stored, time and memory: `cargo bench --bench margin_softmax`.

mod common;

use common::harness::call::{Call, Step};
use common::harness::timer::Timer;
use common::{Bench, say};
use criterion::Throughput;
use rand::{Rng, SeedableRng, rngs::StdRng};
use rand_distr::StandardNormal;
use wgpu_attention::margin_softmax::backward::reference as backward;
use wgpu_attention::margin_softmax::reference::{HostInputs, margin_softmax};
use wgpu_attention::margin_softmax::{GradientForm, Margin};
use wgpu_attention::{
    DType, HostView, MarginSoftmax, MarginSoftmaxBackward, MarginSoftmaxBackwardInputs, MarginSoftmaxConfig,
    MarginSoftmaxGradients, MarginSoftmaxInputs, MarginSoftmaxOutputs, MatMul, MatMulConfig, MatMulInputs,
    MatMulOutputs, Reduction, Softmax, SoftmaxBackward, SoftmaxBackwardInputs, SoftmaxConfig, SoftmaxGradients,
    SoftmaxInputs, SoftmaxOutputs, TensorView,
};

fn main() {
    let mut bench = Bench::new();
    let cosine = MarginSoftmaxConfig::new().margin(Margin::Cosine { m: 0.35 }).scale(30.0);
    // The cross-entropy of a linear layer: what is stored beside it is the same loss.
    let linear = MarginSoftmaxConfig::new().normalize(false).scale(0.1);
    let sizes: &[[usize; 3]] = match bench.on_cpu() {
        true => &[[256, 10_000, 128], [64, 100_000, 64], [2048, 2048, 64]],
        false => &[[256, 10_000, 128], [1024, 100_000, 512], [8, 1_000_000, 64]],
    };
    for &size in sizes {
        time(&mut bench, "margin_softmax", size, cosine.reduction(Reduction::Mean));
        time(&mut bench, "linear", size, linear.reduction(Reduction::Mean));
        time_stored(&mut bench, size);
        for form in [GradientForm::Workspace, GradientForm::Recompute] {
            time_backward(&mut bench, size, cosine.form(form));
        }
        time_stored_backward(&mut bench, size);
    }
    bench.finish();
}

/// Features, class weights and labels.
fn random([rows, classes, dim]: [usize; 3]) -> (Vec<f32>, Vec<f32>, Vec<u32>) {
    let mut rng = StdRng::seed_from_u64(1);
    let mut normal = |count: usize| (0..count).map(|_| rng.sample(StandardNormal)).collect::<Vec<f32>>();
    (normal(rows * dim), normal(classes * dim), (0..rows).map(|i| (i * 37 % classes) as u32).collect())
}

/// One size, verified and then timed.
fn time(bench: &mut Bench, group: &str, [rows, classes, dim]: [usize; 3], config: MarginSoftmaxConfig) {
    let context = &bench.context.clone();
    let (features, weights, labels) = random([rows, classes, dim]);
    // The twin takes a second for 10⁹ multiply-adds: of more, some rows show whether the kernels are right.
    let shown = rows.min((4 << 28) / (classes * dim)).max(1);
    let twin = HostInputs::new(
        HostView::new(&features[..shown * dim], [shown, dim]).expect("features"),
        HostView::new(&weights, [classes, dim]).expect("class weights"),
        HostView::new(&labels[..shown], [shown]).expect("labels"),
    );
    let each = config.reduction(Reduction::None);
    let want = margin_softmax(&each, &twin).expect("the twin").loss;

    let [features, weights] = [&features, &weights].map(|data| context.upload(data));
    let (labels, loss) = (context.upload(&labels), context.allocate(rows));
    let [m, n, k] = [rows, classes, dim].map(|extent| extent as u32);
    let shards = [TensorView::f32(&weights, [n, k])];
    let labels = TensorView::new(&labels, DType::U32, [m]);
    let inputs = MarginSoftmaxInputs::new(TensorView::f32(&features, [m, k]), &shards, labels);
    let of_rows = MarginSoftmax::new(context, each).expect("a config");
    let outputs = MarginSoftmaxOutputs::new(TensorView::f32(&loss, [m]));
    context.run(&of_rows.prepare(inputs, outputs).expect("losses")).expect("it runs");
    for (got, want) in context.download(&loss).expect("losses").iter().zip(&want) {
        assert!(
            (f64::from(*got) - want).abs() <= 1e-4 * want.max(1.0),
            "{rows}x{classes}x{dim}: got {got}, want {want}"
        );
    }

    let op = MarginSoftmax::new(context, config).expect("a config");
    let prepare = || op.prepare(inputs, MarginSoftmaxOutputs::new(TensorView::f32(&loss, [1])));
    let prepared = prepare().expect("a loss");
    let plan = prepared.plan();
    let size = format!("{rows}x{classes}x{dim}");
    say(&format!("{group}/{size}: {} bytes of workspace, {} dispatches", plan.workspace_bytes(), plan.dispatches()));
    let timer = Timer::new(context);
    bench.time(group, &size, Throughput::Elements(plan.flops()), || timer.warm_up(prepare()?));
}

/// The linear layer's loss as it is without this op: the product, and its softmax, with the log-sum-exp of each row.
fn time_stored(bench: &mut Bench, [rows, classes, dim]: [usize; 3]) {
    let context = &bench.context.clone();
    let (features, weights, _) = random([rows, classes, dim]);
    let [features, weights] = [&features, &weights].map(|data| context.upload(data));
    let [logits, p] = [0; 2].map(|_| context.allocate(rows * classes));
    let lse = context.allocate(rows);
    let [m, n, k] = [rows, classes, dim].map(|extent| extent as u32);
    let matmul = MatMul::new(context, MatMulConfig::new()).expect("a config");
    let softmax = Softmax::new(context, SoftmaxConfig::new().log(true)).expect("a config");
    let inputs = MatMulInputs::new(
        TensorView::f32(&features, [1, 1, m, k]),
        TensorView::f32(&weights, [1, 1, n, k]).swap_axes(2, 3),
    );
    let prepare = || {
        let product = matmul.prepare(inputs, MatMulOutputs::new(TensorView::f32(&logits, [1, 1, m, n])))?;
        let mut outputs = SoftmaxOutputs::new(TensorView::f32(&p, [m, n]));
        outputs.lse = Some(TensorView::f32(&lse, [m]));
        let softmax = softmax.prepare(SoftmaxInputs::new(TensorView::f32(&logits, [m, n])), outputs)?;
        let bytes = product.plan().bytes() + softmax.plan().bytes();
        let carried_bytes = 8 * u64::from(m) * u64::from(n);
        Ok(Call { steps: vec![Step::Op(product), Step::Op(softmax)], bytes, carried_bytes })
    };
    let call: wgpu_attention::Result<Call<'_>> = prepare();
    let call = call.expect("plans");
    let size = format!("{rows}x{classes}x{dim}");
    say(&format!("stored/{size}: {} bytes of logits, log p and workspace", call.workspace_bytes()));
    let timer = Timer::new(context);
    bench.time("stored", &size, Throughput::Elements(call.flops()), || timer.warm_up(prepare()?));
}

/// The gradients of features and class weights, verified by those of some rows of features and then timed.
fn time_backward(bench: &mut Bench, [rows, classes, dim]: [usize; 3], config: MarginSoftmaxConfig) {
    let context = &bench.context.clone();
    let (features, weights, labels) = random([rows, classes, dim]);
    let shown = rows.min((4 << 26) / (classes * dim)).max(1);
    let ones = vec![1.0; rows];
    let row = HostView::new(&ones[..shown], [shown]).expect("rows");
    let twin = backward::HostInputs::new(
        HostView::new(&features[..shown * dim], [shown, dim]).expect("features"),
        HostView::new(&weights, [classes, dim]).expect("class weights"),
        HostView::new(&labels[..shown], [shown]).expect("labels"),
        row,
        row,
        row,
    );
    let want = backward::margin_softmax_backward(&config, &twin).expect("the twin").dfeatures;

    let [features, weights, dloss] = [&features, &weights, &ones].map(|data| context.upload(data));
    let labels = context.upload(&labels);
    let [loss, lse, others] = [0; 3].map(|_| context.allocate(rows));
    let [dfeatures, dweights] = [rows, classes].map(|count| context.allocate(count * dim));
    let [m, n, k] = [rows, classes, dim].map(|extent| extent as u32);
    let shards = [TensorView::f32(&weights, [n, k])];
    let (labels, features) = (TensorView::new(&labels, DType::U32, [m]), TensorView::f32(&features, [m, k]));
    let [loss, lse, others, dloss] = [&loss, &lse, &others, &dloss].map(|buffer| TensorView::f32(buffer, [m]));
    let mut outputs = MarginSoftmaxOutputs::new(loss);
    (outputs.lse, outputs.others) = (Some(lse), Some(others));
    let forward = MarginSoftmax::new(context, config).expect("a config");
    let inputs = MarginSoftmaxInputs::new(features, &shards, labels);
    context.run(&forward.prepare(inputs, outputs).expect("a loss")).expect("it runs");
    let op = MarginSoftmaxBackward::new(context, config).expect("a config");
    let of_shards = [TensorView::f32(&dweights, [n, k])];
    let inputs = MarginSoftmaxBackwardInputs::new(features, &shards, labels, lse, others, dloss);
    let prepare = || {
        let mut gradients = MarginSoftmaxGradients::none();
        (gradients.dfeatures, gradients.dweights) = (Some(TensorView::f32(&dfeatures, [m, k])), &of_shards);
        op.prepare(inputs, gradients)
    };
    let prepared = prepare().expect("gradients");
    context.run(&prepared).expect("it runs");
    let largest = want.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
    for (got, want) in context.download(&dfeatures).expect("gradients").iter().zip(&want) {
        assert!((f64::from(*got) - want).abs() <= 1e-3 * largest, "{rows}x{classes}x{dim}: got {got}, want {want}");
    }
    let (plan, size) = (prepared.plan(), format!("{rows}x{classes}x{dim}"));
    let group = format!("margin_softmax_backward_{:?}", config.form).to_lowercase();
    say(&format!("{group}/{size}: {} bytes of workspace, {} dispatches", plan.workspace_bytes(), plan.dispatches()));
    let timer = Timer::new(context);
    bench.time(&group, &size, Throughput::Elements(plan.flops()), || timer.warm_up(prepare()?));
}

/// The linear layer's gradients as they are without this op: those of stored logits, and two products.
fn time_stored_backward(bench: &mut Bench, [rows, classes, dim]: [usize; 3]) {
    let context = &bench.context.clone();
    let (features, weights, _) = random([rows, classes, dim]);
    let [features, weights] = [&features, &weights].map(|data| context.upload(data));
    let [logits, dp, dlogits] = [0; 3].map(|_| context.allocate(rows * classes));
    let [dfeatures, dweights] = [rows, classes].map(|count| context.allocate(count * dim));
    let [m, n, k] = [rows, classes, dim].map(|extent| extent as u32);
    let matmul = MatMul::new(context, MatMulConfig::new()).expect("a config");
    let softmax = SoftmaxBackward::new(context, SoftmaxConfig::new().log(true)).expect("a config");
    let matrix = |buffer, rows, columns| TensorView::f32(buffer, [1, 1, rows, columns]);
    let prepare = || {
        let mut inputs = SoftmaxBackwardInputs::of(TensorView::f32(&logits, [m, n]));
        inputs.dp = Some(TensorView::f32(&dp, [m, n]));
        let mut gradients = SoftmaxGradients::none();
        gradients.dx = Some(TensorView::f32(&dlogits, [m, n]));
        let softmax = softmax.prepare(inputs, gradients)?;
        let of_features = MatMulInputs::new(matrix(&dlogits, m, n), matrix(&weights, n, k));
        let of_features = matmul.prepare(of_features, MatMulOutputs::new(matrix(&dfeatures, m, k)))?;
        let of_weights = MatMulInputs::new(matrix(&dlogits, m, n).swap_axes(2, 3), matrix(&features, m, k));
        let of_weights = matmul.prepare(of_weights, MatMulOutputs::new(matrix(&dweights, n, k)))?;
        let bytes = softmax.plan().bytes() + of_features.plan().bytes() + of_weights.plan().bytes();
        let carried_bytes = 12 * u64::from(m) * u64::from(n);
        Ok(Call { steps: [softmax, of_features, of_weights].map(Step::Op).into(), bytes, carried_bytes })
    };
    let call: wgpu_attention::Result<Call<'_>> = prepare();
    let call = call.expect("plans");
    let size = format!("{rows}x{classes}x{dim}");
    say(&format!("stored_backward/{size}: {} bytes of logits, gradients and workspace", call.workspace_bytes()));
    let timer = Timer::new(context);
    bench.time("stored_backward", &size, Throughput::Elements(call.flops()), || timer.warm_up(prepare()?));
}
