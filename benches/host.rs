//! What a call costs the CPU: `cargo bench --bench host`.
//!
//! Per op `prepared`, recording a [`Prepared`] again; `record`, the whole call on tensors of a shape that was planned
//! before, which checks them, finds the plan and records; and `record, finish`, with the end of the command encoder, where
//! wgpu validates and writes what was recorded.

use std::time::{Duration, Instant};

use criterion::Criterion;
use wgpu_attention::{
    Attention, AttentionConfig, AttentionInputs, AttentionOutputs, Causal, Context, GatedAttention,
    GatedAttentionConfig, GatedAttentionInputs, GatedAttentionOutputs, LinearAttention, LinearAttentionConfig,
    LinearAttentionInputs, LinearAttentionOutputs, LinearMode, MatMul, MatMulConfig, MatMulInputs, MatMulOutputs,
    Merge, MergeConfig, MergeInputs, MergeOutputs, Prepared, Result, TensorView, wgpu,
};

/// Calls that one encoder takes before the next one is made, outside the time.
const CALLS: u64 = 16;

struct Bench<'c> {
    context: &'c Context,
    criterion: Criterion,
}

impl Bench<'_> {
    fn op<'a>(&mut self, name: &str, prepare: impl Fn() -> Result<Prepared<'a>>) {
        let prepared = prepare().unwrap_or_else(|error| panic!("{name}: {error}"));
        self.time(&format!("{name}/prepared"), false, |encoder| prepared.record(encoder));
        let record = |encoder: &mut wgpu::CommandEncoder| match prepare() {
            Ok(prepared) => prepared.record(encoder),
            Err(error) => panic!("{name}: {error}"),
        };
        self.time(&format!("{name}/record"), false, record);
        self.time(&format!("{name}/record, finish"), true, record);
    }

    fn time(&mut self, name: &str, finish: bool, record: impl Fn(&mut wgpu::CommandEncoder)) {
        let device = self.context.device();
        self.criterion.bench_function(name, |bencher| {
            bencher.iter_custom(|calls| {
                let mut took = Duration::ZERO;
                for first in (0..calls).step_by(CALLS as usize) {
                    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
                    let start = Instant::now();
                    (first..calls.min(first + CALLS)).for_each(|_| record(&mut encoder));
                    if finish {
                        let commands = encoder.finish();
                        took += start.elapsed();
                        drop(commands);
                    } else {
                        took += start.elapsed();
                        drop(encoder);
                    }
                    // Lets go of the bind groups.
                    let _ = device.poll(wgpu::PollType::Poll);
                }
                took
            });
        });
    }
}

fn main() -> Result<()> {
    let context = Context::headless()?;
    let criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(50)
        .configure_from_args();
    let mut bench = Bench { context: &context, criterion };

    let shape = [1, 8, 256, 64]; // batch, heads, len, head_dim
    let buffers: [wgpu::Buffer; 4] = std::array::from_fn(|_| context.allocate(8 * 256 * 64));
    let [q, k, v, o] = buffers.each_ref().map(|buffer| TensorView::f32(buffer, shape));

    let attention = Attention::new(&context, AttentionConfig::new().causal(Causal::BottomRight))?;
    bench.op("attention", || attention.prepare(AttentionInputs::new(q, k, v), AttentionOutputs::new(o)));
    let gated = GatedAttention::new(&context, GatedAttentionConfig::new().causal(Causal::TopLeft))?;
    bench.op("gated_attention", || gated.prepare(GatedAttentionInputs::new(q, k, v), GatedAttentionOutputs::new(o)));
    let linear = LinearAttention::new(&context, LinearAttentionConfig::new().mode(LinearMode::Causal))?;
    bench
        .op("linear_attention", || linear.prepare(LinearAttentionInputs::new(q, k, v), LinearAttentionOutputs::new(o)));
    let matmul = MatMul::new(&context, MatMulConfig::new())?;
    let product = [q.swap_axes(2, 3), k, TensorView::f32(&buffers[3], [1, 8, 64, 64])];
    bench.op("matmul", || matmul.prepare(MatMulInputs::new(product[0], product[1]), MatMulOutputs { c: product[2] }));

    let merge = Merge::new(&context, MergeConfig::new())?;
    let rows: [wgpu::Buffer; 2] = std::array::from_fn(|_| context.allocate(8 * 256));
    bench.op("merge", || {
        // Two parts of half the heads each.
        let parts = TensorView::f32(&buffers[0], [2, 1, 4, 256, 64]);
        let o = TensorView::f32(&buffers[3], [1, 4, 256, 64]);
        let [lse_parts, lse] = [&rows[0], &rows[1]];
        merge.prepare(
            MergeInputs::new(parts, TensorView::f32(lse_parts, [2, 1, 4, 256])),
            MergeOutputs::new(o, TensorView::f32(lse, [1, 4, 256])),
        )
    });

    bench.criterion.final_summary();
    Ok(())
}
