//! Softmax attention with every scale, beside a version in three dispatches, and stored in each type; and its gradients:
//! `cargo bench --bench attention`.

mod common;

use common::harness::stored;
use common::harness::tensors::{Shape, elements, normal, view};
use common::harness::timer::Timer;
use criterion::Throughput;
use wgpu_attention::attention::reference::{HostInputs, attention};
use wgpu_attention::{Attention, AttentionConfig, AttentionInputs, AttentionOutputs, DType, TensorView};

fn main() {
    let mut bench = common::Bench::new();
    bench.family(common::Family::Softmax);
    for head_dim in [64, 128] {
        let shape = Shape::new(2048, head_dim);
        for variant in ["softmax", "three_dispatches"] {
            bench.variant("prefill", &format!("2048x{head_dim}/{variant}"), variant, shape);
        }
    }
    bench.types("softmax");
    for dtype in common::TYPES {
        decode(&mut bench, 4096, dtype);
    }
    for dtype in common::TYPES {
        bench.gradients("backward of a type", "softmax", dtype);
    }
    bench.finish();
}

/// One query of each of 32 heads over the keys of 8, verified and then timed.
fn decode(bench: &mut common::Bench, len: u32, dtype: DType) {
    let context = &bench.context.clone();
    let (q_shape, kv_shape) = ([1, 32, 1, 64], [1, 8, len, 64]);
    let numbers = |seed, count| {
        let mut numbers = normal(seed, count);
        stored::round(&mut numbers, dtype);
        numbers
    };
    let (q, kv) = (elements(q_shape), elements(kv_shape));
    let host = [numbers(1, q), numbers(2, kv), numbers(3, kv)];
    let [q, k, v] = host.each_ref().map(|data| context.upload_as(data, dtype).expect("a type of floats"));
    let o = stored::allocate(context, elements(q_shape), dtype);
    let op = Attention::new(context, AttentionConfig::new()).expect("a config");
    let kv = |buffer| TensorView::new(buffer, dtype, kv_shape);
    let inputs = AttentionInputs::new(TensorView::new(&q, dtype, q_shape), kv(&k), kv(&v));
    let outputs = AttentionOutputs::new(TensorView::new(&o, dtype, q_shape));
    let timer = Timer::new(context);
    let set_up = || {
        let [q, k, v] = &host;
        let host = HostInputs::new(view(q, q_shape), view(k, kv_shape), view(v, kv_shape));
        let want = attention(op.config(), &host)?;
        context.run(&op.prepare(inputs, outputs)?)?;
        let [relative, _] = stored::rounding(dtype);
        for (got, want) in context.download_as(&o, dtype)?.iter().zip(&want.o) {
            assert!((f64::from(*got) - want).abs() <= 1e-5 + relative * want.abs(), "got {got}, want {want}");
        }
        timer.warm_up(op.prepare(inputs, outputs)?)
    };
    let id = format!("{len}x64/{}", stored::name(dtype));
    bench.time("decode of a type", &id, Throughput::Elements(len.into()), set_up);
}
