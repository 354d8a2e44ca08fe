//! Merges of partial attention results: `cargo bench --bench merge`.

mod common;

use common::Bench;
use common::harness::timer::Timer;
use criterion::Throughput;
use rand::{Rng, SeedableRng, rngs::StdRng};
use rand_distr::StandardNormal;
use wgpu_attention::merge::reference::{HostInputs, merge};
use wgpu_attention::{HostView, Merge, MergeConfig, MergeInputs, MergeOutputs, TensorView};

const HEADS: usize = 8;
const V_DIM: usize = 64;

fn main() {
    let mut bench = Bench::new();
    for (parts, len) in [(2, 2048), (8, 2048), (64, 1)] {
        time(&mut bench, parts, len);
    }
    bench.finish();
}

/// One size, verified and then timed.
fn time(bench: &mut Bench, parts: usize, len: usize) {
    let context = &bench.context.clone();
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
    let set_up = || timer.warm_up(op.prepare(inputs, outputs)?);
    bench.time("merge", &format!("{parts}x{len}"), Throughput::Bytes(bytes), set_up);
}
