//! Gumbel-softmax, forward and backward: `cargo bench --bench gumbel_softmax`.

mod common;

use common::Bench;
use common::harness::timer::Timer;
use criterion::Throughput;
use rand::{Rng, SeedableRng, rngs::StdRng};
use rand_distr::StandardNormal;
use wgpu_attention::gumbel_softmax::backward::reference as backward;
use wgpu_attention::gumbel_softmax::{key, reference};
use wgpu_attention::{
    Context, DType, GumbelSoftmax, GumbelSoftmaxBackward, GumbelSoftmaxBackwardInputs, GumbelSoftmaxConfig,
    GumbelSoftmaxGradients, GumbelSoftmaxInputs, GumbelSoftmaxOutputs, HostView, TensorView, wgpu,
};

fn main() {
    let mut bench = Bench::new();
    for (rows, columns) in [(65_536, 64), (512, 1000), (32, 50_000), (1, 1_000_000)] {
        time(&mut bench, rows, columns);
    }
    bench.finish();
}

/// One size, verified and then timed.
fn time(bench: &mut Bench, rows: usize, columns: usize) {
    let context = &bench.context.clone();
    let mut rng = StdRng::seed_from_u64(1);
    let mut normal = || (0..rows * columns).map(|_| rng.sample(StandardNormal)).collect::<Vec<f32>>();
    let (logits, dy, key) = (normal(), normal(), key(42, 0, 0, 0));
    let host = |data| HostView::new(data, [rows, columns]).expect("rows");
    let config = GumbelSoftmaxConfig::new();
    let host_key = HostView::new(&key, [5]).expect("a key");
    let inputs = reference::HostInputs::new(host(&logits), host_key);
    let want_y = reference::gumbel_softmax(&config, &inputs).expect("the twin").y;
    let inputs = backward::HostInputs::new(host(&logits), host_key, host(&dy));
    let want_dlogits = backward::gumbel_softmax_backward(&config, &inputs).expect("the twin").dlogits;

    let [logits, dy] = [&logits, &dy].map(|data| context.upload(data));
    let key = context.upload(&key);
    let [y, dlogits] = [(); 2].map(|()| context.allocate(rows * columns));
    let shape = [rows, columns].map(|extent| extent as u32);
    let view = |buffer| TensorView::f32(buffer, shape);
    let key = TensorView::new(&key, DType::U32, [5]);
    let forward = GumbelSoftmax::new(context, config).expect("a config");
    let backward = GumbelSoftmaxBackward::new(context, config).expect("a config");
    let draw = || forward.prepare(GumbelSoftmaxInputs::new(view(&logits), key), GumbelSoftmaxOutputs::new(view(&y)));
    let gradients = GumbelSoftmaxGradients { dlogits: Some(view(&dlogits)), ..GumbelSoftmaxGradients::none() };
    let derive = || backward.prepare(GumbelSoftmaxBackwardInputs::new(view(&logits), key, view(&dy)), gradients);
    context.run(&draw().expect("a draw")).expect("it runs");
    context.run(&derive().expect("gradients")).expect("it runs");
    verify(context, &y, &want_y);
    verify(context, &dlogits, &want_dlogits);

    let (name, timer) = (format!("{rows}x{columns}"), Timer::new(context));
    let bytes = Throughput::Bytes(draw().expect("a draw").plan().bytes());
    bench.time("gumbel_softmax", &name, bytes, || timer.warm_up(draw()?));
    let bytes = Throughput::Bytes(derive().expect("gradients").plan().bytes());
    bench.time("gumbel_softmax_backward", &name, bytes, || timer.warm_up(derive()?));
}

fn verify(context: &Context, got: &wgpu::Buffer, want: &[f64]) {
    for (got, want) in context.download(got).expect("it reads back").iter().zip(want) {
        assert!((f64::from(*got) - want).abs() <= 1e-5 * (1.0 + want.abs()), "got {got}, want {want}");
    }
}
