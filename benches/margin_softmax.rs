//! Margin softmax beside the same loss with its logits stored: `cargo bench --bench margin_softmax`.

mod common;

use common::Bench;
use common::harness::timer::Timer;
use criterion::Throughput;
use rand::{Rng, SeedableRng, rngs::StdRng};
use rand_distr::StandardNormal;
use wgpu_attention::Reduction;
use wgpu_attention::margin_softmax::Margin;
use wgpu_attention::margin_softmax::reference::{HostInputs, margin_softmax};
use wgpu_attention::{
    DType, HostView, MarginSoftmax, MarginSoftmaxConfig, MarginSoftmaxInputs, MarginSoftmaxOutputs, MatMul,
    MatMulConfig, MatMulInputs, MatMulOutputs, TensorView,
};

fn main() {
    let mut bench = Bench::new();
    for [rows, classes, dim] in [[256, 10_000, 128], [64, 100_000, 64]] {
        time(&mut bench, rows, classes, dim);
    }
    bench.finish();
}

/// One size, verified and then timed.
fn time(bench: &mut Bench, rows: usize, classes: usize, dim: usize) {
    let context = &bench.context.clone();
    let mut rng = StdRng::seed_from_u64(1);
    let mut normal = |count: usize| (0..count).map(|_| rng.sample(StandardNormal)).collect::<Vec<f32>>();
    let (features, weights) = (normal(rows * dim), normal(classes * dim));
    let labels: Vec<u32> = (0..rows).map(|i| (i * 37 % classes) as u32).collect();
    let config = MarginSoftmaxConfig::new().margin(Margin::Cosine { m: 0.35 }).scale(30.0).reduction(Reduction::Mean);
    let want = margin_softmax(
        &config,
        &HostInputs::new(
            HostView::new(&features, [rows, dim]).expect("features"),
            HostView::new(&weights, [classes, dim]).expect("class weights"),
            HostView::new(&labels, [rows]).expect("labels"),
        ),
    )
    .expect("the twin");

    let (features, weights, labels) = (context.upload(&features), context.upload(&weights), context.upload(&labels));
    let loss = context.allocate(1);
    let [m, n, k] = [rows, classes, dim].map(|extent| extent as u32);
    let op = MarginSoftmax::new(context, config).expect("a config");
    let shards = [TensorView::f32(&weights, [n, k])];
    let labels = TensorView::new(&labels, DType::U32, [m]);
    let inputs = MarginSoftmaxInputs::new(TensorView::f32(&features, [m, k]), &shards, labels);
    let outputs = MarginSoftmaxOutputs::new(TensorView::f32(&loss, [1]));
    let prepared = op.prepare(inputs, outputs).expect("a loss");
    context.run(&prepared).expect("it runs");
    let got = f64::from(context.download(&loss).expect("the loss")[0]);
    assert!(
        (got - want.loss[0]).abs() <= 1e-4 * want.loss[0],
        "{rows}x{classes}x{dim}: got {got}, want {}",
        want.loss[0]
    );

    let size = format!("{rows}x{classes}x{dim}");
    let timer = Timer::new(context);
    let flops = prepared.plan().flops();
    let set_up = || timer.warm_up(op.prepare(inputs, outputs)?);
    bench.time("margin_softmax", &size, Throughput::Elements(flops), set_up);

    // The product alone of whoever stores the logits: their softmax would come on top, and 4 · rows · classes bytes.
    let matmul = MatMul::new(context, MatMulConfig::new()).expect("a config");
    let logits = context.allocate(rows * classes);
    let inputs = MatMulInputs::new(
        TensorView::f32(&features, [1, 1, m, k]),
        TensorView::f32(&weights, [1, 1, n, k]).swap_axes(2, 3),
    );
    let outputs = MatMulOutputs::new(TensorView::f32(&logits, [1, 1, m, n]));
    let set_up = || timer.warm_up(matmul.prepare(inputs, outputs)?);
    bench.time("logits", &size, Throughput::Elements(flops), set_up);
}
