//! Linear attention with every feature map, and stored in each type, and its backward pass:
//! `cargo bench --bench linear_attention`.

mod common;

use common::Bench;
use common::harness::timer::Timer;
use criterion::Throughput;
use rand::{Rng, SeedableRng, rngs::StdRng};
use rand_distr::StandardNormal;
use wgpu_attention::linear_attention::backward::reference::{HostInputs, linear_attention_backward};
use wgpu_attention::{
    DType, FeatureMap, HostView, LinearAttentionBackward, LinearAttentionBackwardInputs, LinearAttentionBackwardShapes,
    LinearAttentionConfig, LinearAttentionGradients, LinearMode, Prepared, Result, TensorView, wgpu,
};

fn main() {
    let mut bench = Bench::new();
    bench.family(common::Family::Linear);
    bench.types("linear_elu");
    for (map, name) in [(FeatureMap::EluPlusOne, "elu"), (FeatureMap::Exp, "exp")] {
        for dim in [64, 128] {
            backward(&mut bench, map, &format!("{name} d={dim}"), dim);
        }
    }
    bench.finish();
}

/// The gradients of one head, verified; then those of eight by the same kernels, timed.
fn backward(bench: &mut Bench, map: FeatureMap, name: &str, dim: u32) {
    let context = &bench.context.clone();
    let config = LinearAttentionConfig::new().feature_map(map).mode(LinearMode::Causal);
    let op = LinearAttentionBackward::new(context, config).expect("a config");
    let mut rng = StdRng::seed_from_u64(1);
    let mut normal =
        |heads: u32, len: u32| -> Vec<f32> { (0..heads * len * dim).map(|_| rng.sample(StandardNormal)).collect() };
    let small = [(); 4].map(|()| normal(1, 512));
    let host = |data| HostView::new(data, [1, 1, 512, dim as usize]).expect("rows");
    let [q, k, v, dout] = &small;
    let want = linear_attention_backward(&config, &HostInputs::new(host(q), host(k), host(v), host(dout)));
    let want = want.expect("the twin");

    let len = if bench.on_cpu() { 2048 } else { 16_384 };
    let large = [(); 4].map(|()| context.upload(&normal(8, len)));
    let small = small.map(|data| context.upload(&data));
    let made = [(); 3].map(|()| context.allocate((8 * len * dim) as usize));
    let call = |given, shape| prepare(&op, given, &made, shape);
    let first = call(&small, [1, 1, 512, dim]).expect("gradients");
    context.run(&first).expect("they run");
    for (got, want) in made.iter().zip([&want.dq, &want.dk, &want.dv]) {
        let largest = want.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
        for (got, want) in context.download(got).expect("it reads back").iter().zip(want) {
            assert!((f64::from(*got) - want).abs() <= 1e-4 * largest, "{name}: got {got}, want {want}");
        }
    }

    let plan = op.plan(&LinearAttentionBackwardShapes::new(1, 8, len, dim), DType::F32).expect("a plan");
    assert_eq!(plan.kernel(), first.plan().kernel(), "{name}");
    let (flops, timer) = (Throughput::Elements(plan.flops()), Timer::new(context));
    bench.time("linear_attention_backward", name, flops, || timer.warm_up(call(&large, [1, 8, len, dim])?));
}

fn prepare<'a>(
    op: &LinearAttentionBackward,
    given: &'a [wgpu::Buffer; 4],
    made: &'a [wgpu::Buffer; 3],
    shape: [u32; 4],
) -> Result<Prepared<'a>> {
    let [q, k, v, dout] = given.each_ref().map(|buffer| TensorView::f32(buffer, shape));
    let [dq, dk, dv] = made.each_ref().map(|buffer| TensorView::f32(buffer, shape));
    op.prepare(LinearAttentionBackwardInputs::new(q, k, v, dout), LinearAttentionGradients::new(dq, dk, dv))
}
