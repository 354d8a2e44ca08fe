//! Softmax of rows and its sparse kinds, and their backward passes: `cargo bench --bench softmax`.

mod common;

use common::Bench;
use common::harness::timer::Timer;
use criterion::Throughput;
use rand::{Rng, SeedableRng, rngs::StdRng};
use rand_distr::StandardNormal;
use wgpu_attention::softmax::backward::reference::{HostInputs as HostBackward, softmax_backward};
use wgpu_attention::softmax::reference::{HostInputs, softmax};
use wgpu_attention::{
    HostView, Softmax, SoftmaxBackward, SoftmaxBackwardInputs, SoftmaxConfig, SoftmaxGradients, SoftmaxInputs,
    SoftmaxKind, SoftmaxOutputs, TensorView,
};

fn main() {
    let mut bench = Bench::new();
    let kinds = [
        ("softmax", SoftmaxKind::Softmax),
        ("top_k", SoftmaxKind::TopK { k: 40 }),
        ("sparsemax", SoftmaxKind::Sparsemax),
        ("entmax15", SoftmaxKind::Entmax { alpha: 1.5 }),
        ("entmax", SoftmaxKind::Entmax { alpha: 1.25 }),
    ];
    for (rows, columns) in [(16_384, 64), (1024, 1024), (64, 16_384), (1, 1_000_000)] {
        for kind in kinds {
            time(&mut bench, kind, rows, columns);
        }
    }
    bench.finish();
}

/// One kind and size, verified and then timed.
fn time(bench: &mut Bench, (name, kind): (&str, SoftmaxKind), rows: usize, columns: usize) {
    let context = &bench.context.clone();
    let mut rng = StdRng::seed_from_u64(1);
    let mut normal = || (0..rows * columns).map(|_| rng.sample(StandardNormal)).collect::<Vec<f32>>();
    let (x, dp) = (normal(), normal());
    let host = |data| HostView::new(data, [rows, columns]).expect("rows");
    let config = SoftmaxConfig::new().kind(kind);
    let want = softmax(&config, &HostInputs::new(host(&x))).expect("the twin").p;
    let mut inputs = HostBackward::of(host(&x));
    inputs.dp = Some(host(&dp));
    let want_back = softmax_backward(&config, &inputs).expect("the twin").dx;

    let [x, dp] = [&x, &dp].map(|data| context.upload(data));
    let [p, dx] = [0; 2].map(|_| context.allocate(rows * columns));
    let view = |buffer| TensorView::f32(buffer, [rows as u32, columns as u32]);
    let forward = Softmax::new(context, config).expect("a config");
    let prepare = || forward.prepare(SoftmaxInputs::new(view(&x)), SoftmaxOutputs::new(view(&p)));
    let backward = SoftmaxBackward::new(context, config).expect("a config");
    let prepare_back =
        || backward.prepare(SoftmaxBackwardInputs::new(view(&x), view(&dp)), SoftmaxGradients::new(view(&dx)));
    for (prepared, out, want) in [(prepare(), &p, &want), (prepare_back(), &dx, &want_back)] {
        context.run(&prepared.expect("a plan")).expect("it runs");
        let largest = want.iter().fold(0.0, |most: f64, w| most.max(w.abs()));
        for (got, want) in context.download(out).expect("an output").iter().zip(want) {
            let off = (f64::from(*got) - want).abs();
            assert!(off <= 1e-5 * largest, "{rows} x {columns}: got {got}, want {want}");
        }
    }

    let id = format!("{rows}x{columns}");
    let timer = Timer::new(context);
    let bytes = |prepared: wgpu_attention::Result<wgpu_attention::Prepared<'_>>| prepared.map(|own| own.plan().bytes());
    let throughput = Throughput::Bytes(bytes(prepare()).expect("a plan"));
    bench.time(name, &id, throughput, || timer.warm_up(prepare()?));
    let throughput = Throughput::Bytes(bytes(prepare_back()).expect("a plan"));
    bench.time(&format!("{name}_backward"), &id, throughput, || timer.warm_up(prepare_back()?));
}
