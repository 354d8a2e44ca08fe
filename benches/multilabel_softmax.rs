//! The multi-label loss and its gradient: `cargo bench --bench multilabel_softmax`.

mod common;

use common::Bench;
use common::harness::timer::Timer;
use criterion::Throughput;
use rand::{Rng, SeedableRng, rngs::StdRng};
use rand_distr::StandardNormal;
use wgpu_attention::multilabel_softmax::backward::reference as backward;
use wgpu_attention::multilabel_softmax::reference as forward;
use wgpu_attention::{
    DType, HostView, MultilabelSoftmax, MultilabelSoftmaxBackward, MultilabelSoftmaxBackwardInputs,
    MultilabelSoftmaxConfig, MultilabelSoftmaxGradients, MultilabelSoftmaxInputs, MultilabelSoftmaxOutputs, TensorView,
};

fn main() {
    let mut bench = Bench::new();
    for (rows, classes) in [(65_536, 32), (2048, 1000), (4, 1_000_000)] {
        time(&mut bench, rows, classes);
    }
    bench.finish();
}

fn expect_near(what: &str, got: &[f32], want: &[f64]) {
    for (got, want) in got.iter().zip(want) {
        assert!((f64::from(*got) - want).abs() <= 1e-5 * (1.0 + want.abs()), "{what}: got {got}, want {want}");
    }
}

/// One size, verified and then timed: hard labels, of which one class in fifty is positive.
fn time(bench: &mut Bench, rows: usize, classes: usize) {
    let context = &bench.context.clone();
    let config = MultilabelSoftmaxConfig::new();
    let mut rng = StdRng::seed_from_u64(1);
    let scores: Vec<f32> = (0..rows * classes).map(|_| rng.sample(StandardNormal)).collect();
    let labels: Vec<u8> = (0..rows * classes).map(|_| u8::from(rng.random_bool(0.02))).collect();
    let dloss: Vec<f32> = (0..rows).map(|_| rng.sample(StandardNormal)).collect();

    let host_scores = HostView::new(&scores, [rows, classes]).expect("rows");
    let host_labels = HostView::new(&labels, [rows, classes]).expect("rows");
    let of_rows = HostView::new(&dloss, [rows]).expect("rows");
    let inputs = forward::HostInputs { labels: Some(host_labels), ..forward::HostInputs::new(host_scores) };
    let want = forward::multilabel_softmax(&config, &inputs).expect("the twin");
    let inputs = backward::HostInputs {
        labels: Some(host_labels),
        ..backward::HostInputs::new(host_scores, of_rows, of_rows, of_rows)
    };
    let want_back = backward::multilabel_softmax_backward(&config, &inputs).expect("the twin");

    let (scores, labels, dloss) = (context.upload(&scores), context.upload(&labels), context.upload(&dloss));
    let [loss, lse_neg, lse_pos] = [0; 3].map(|_| context.allocate(rows));
    let dscores = context.allocate(rows * classes);
    let shape = [rows as u32, classes as u32];
    let row = |buffer| TensorView::f32(buffer, [shape[0]]);
    let labels = Some(TensorView::new(&labels, DType::Bool, shape));
    let op = MultilabelSoftmax::new(context, config).expect("a config");
    let inputs = MultilabelSoftmaxInputs { labels, ..MultilabelSoftmaxInputs::new(TensorView::f32(&scores, shape)) };
    let outputs = MultilabelSoftmaxOutputs::saved(row(&loss), row(&lse_neg), row(&lse_pos));
    let prepared = op.prepare(inputs, outputs).expect("a loss");
    context.run(&prepared).expect("it runs");
    expect_near("loss", &context.download(&loss).expect("loss"), &want.loss);

    let back = MultilabelSoftmaxBackward::new(context, config).expect("a config");
    let scores = TensorView::f32(&scores, shape);
    let inputs_back = MultilabelSoftmaxBackwardInputs {
        labels,
        ..MultilabelSoftmaxBackwardInputs::new(scores, row(&lse_neg), row(&lse_pos), row(&dloss))
    };
    let gradients = MultilabelSoftmaxGradients {
        dscores: Some(TensorView::f32(&dscores, shape)),
        ..MultilabelSoftmaxGradients::none()
    };
    let prepared_back = back.prepare(inputs_back, gradients).expect("gradients");
    context.run(&prepared_back).expect("it runs");
    expect_near("dscores", &context.download(&dscores).expect("gradients"), &want_back.dscores);

    let timer = Timer::new(context);
    let size = format!("{rows}x{classes}");
    let bytes = Throughput::Bytes(prepared.plan().bytes());
    bench.time("multilabel_softmax", &size, bytes, || timer.warm_up(op.prepare(inputs, outputs)?));
    let bytes = Throughput::Bytes(prepared_back.plan().bytes());
    let set_up = || timer.warm_up(back.prepare(inputs_back, gradients)?);
    bench.time("multilabel_softmax_backward", &size, bytes, set_up);
}
