//! Merges of partial attention results: `cargo bench --bench merge`.

#[path = "../examples/compare/harness/mod.rs"]
#[allow(unused, reason = "the harness serves other benches and examples too")]
mod harness;

use std::io::Write;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use harness::timer::Timer;
use rand::{Rng, SeedableRng, rngs::StdRng};
use rand_distr::StandardNormal;
use wgpu_attention::merge::reference::{HostInputs, merge};
use wgpu_attention::{Context, HostView, Merge, MergeConfig, MergeInputs, MergeOutputs, TensorView};

const HEADS: usize = 8;
const V_DIM: usize = 64;

fn main() {
    let context = Context::headless().expect("the benches need an adapter; the README says how to get a software one");
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    for (parts, len) in [(2, 2048), (8, 2048), (64, 1)] {
        bench(&mut criterion, &context, parts, len);
    }
    criterion.final_summary();
}

/// One size, verified and then timed.
fn bench(criterion: &mut Criterion, context: &Context, parts: usize, len: usize) {
    let mut rng = StdRng::seed_from_u64(1);
    let mut normal = |count: usize| (0..count).map(|_| rng.sample(StandardNormal)).collect::<Vec<f32>>();
    let rows = HEADS * len;
    let (o_parts, lse_parts) = (normal(parts * rows * V_DIM), normal(parts * rows));
    let inputs = HostInputs::new(
        HostView::new(&o_parts, [parts, 1, HEADS, len, V_DIM]).expect("parts"),
        HostView::new(&lse_parts, [parts, 1, HEADS, len]).expect("parts"),
    );
    let want = merge(&MergeConfig::new(), &inputs).expect("the twin");

    let [o_parts, lse_parts] = [&o_parts, &lse_parts].map(|data| context.upload(data));
    let [o, lse] = [context.allocate(rows * V_DIM), context.allocate(rows)];
    let [all, heads, tokens, v_dim] = [parts, HEADS, len, V_DIM].map(|extent| extent as u32);
    let op = Merge::new(context, MergeConfig::new()).expect("a config");
    let inputs = MergeInputs::new(
        TensorView::f32(&o_parts, [all, 1, heads, tokens, v_dim]),
        TensorView::f32(&lse_parts, [all, 1, heads, tokens]),
    );
    let outputs =
        MergeOutputs::new(TensorView::f32(&o, [1, heads, tokens, v_dim]), TensorView::f32(&lse, [1, heads, tokens]));
    let prepared = op.prepare(inputs, outputs).expect("a merge");
    context.run(&prepared).expect("it runs");
    for (got, want) in context.download(&o).expect("o").iter().zip(&want.o) {
        assert!((f64::from(*got) - want).abs() <= 1e-5 * (1.0 + want.abs()), "{parts} parts: got {got}, want {want}");
    }

    let bytes = prepared.plan().bytes();
    let timer = Timer::new(context);
    let timed = timer.warm_up(prepared).unwrap_or_else(|failure| panic!("{parts} parts: {failure}"));
    // With standard error closed there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "{} parts of {len} tokens: {}", parts, timer.name());
    let mut group = criterion.benchmark_group("merge");
    group.throughput(Throughput::Bytes(bytes));
    group.bench_function(BenchmarkId::from_parameter(format!("{parts}x{len}")), |bencher| {
        bencher.iter_custom(|calls| {
            (0..calls).map(|_| timed.sample().unwrap_or_else(|failure| panic!("{parts} parts: {failure}"))).sum()
        });
    });
    group.finish();
}
