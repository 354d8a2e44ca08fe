//! Margin softmax beside the same loss with its logits stored, time and memory: `cargo bench --bench margin_softmax`.

mod common;

use common::harness::call::{Call, Step};
use common::harness::timer::Timer;
use common::{Bench, say};
use criterion::Throughput;
use rand::{Rng, SeedableRng, rngs::StdRng};
use rand_distr::StandardNormal;
use wgpu_attention::margin_softmax::Margin;
use wgpu_attention::margin_softmax::reference::{HostInputs, margin_softmax};
use wgpu_attention::{
    DType, HostView, MarginSoftmax, MarginSoftmaxConfig, MarginSoftmaxInputs, MarginSoftmaxOutputs, MatMul,
    MatMulConfig, MatMulInputs, MatMulOutputs, Reduction, Softmax, SoftmaxConfig, SoftmaxInputs, SoftmaxOutputs,
    TensorView,
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
