//! This crate's softmax attention beside Burn's on the same adapter, in one run.
//!
//!     cargo run --release --manifest-path benches/peers/Cargo.toml -- --help
//!
//! What is timed, by wall clock, is the same on both sides: the call on tensors that lie on the GPU, its submission,
//! and the copy of the output's values into a `Vec<f32>` on the host (Burn's call returns before the work is done).
//! Samples alternate, after a warm-up in which Burn tunes itself. A result is checked against f64 before it is timed.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Device, Tensor, TensorData};
use clap::Parser;
use rand::{Rng, SeedableRng, rngs::StdRng};
use rand_distr::StandardNormal;
use wgpu_attention::attention::reference::{HostInputs, attention_row};
use wgpu_attention::reference::SumOrder;
use wgpu_attention::{
    Attention, AttentionConfig, AttentionInputs, AttentionOutputs, AttentionShapes, Causal, Context, HostView,
    TensorView, wgpu,
};

/// Softmax attention, f32: this crate beside Burn.
#[derive(Parser)]
struct Options {
    /// Sequence lengths.
    #[arg(long, value_delimiter = ',', default_value = "2048")]
    seq_lens: Vec<usize>,
    #[arg(long, default_value_t = 1)]
    batch: usize,
    #[arg(long, default_value_t = 8)]
    heads: usize,
    #[arg(long, default_value_t = 64)]
    head_dim: usize,
    #[arg(long)]
    causal: bool,
    /// Timed calls on each side.
    #[arg(long, default_value_t = 9)]
    samples: usize,
}

const WARM_UP: usize = 2;
/// Of the output, whose elements are weighted means of standard normals.
const TOLERANCE: f64 = 1e-5;
const CHECKED_ROWS: usize = 512;

fn main() -> Result<()> {
    let options = Options::parse();
    ensure!(options.samples > 0, "--samples: expected at least 1, got 0");
    // Neither side is given a name: both take the adapter that wgpu ranks first for high performance.
    let context = Context::headless_with("", Default::default())?;
    let device = Device::default();
    let info = context.device().adapter_info();
    println!("adapter: {} / {} {} / {:?}", info.name, info.driver, info.driver_info, info.backend);
    println!("Burn's device: {device:?}");
    println!("timed: call + submit + read back of o, wall clock; medians of {} alternating samples", options.samples);
    println!(
        "{:>22} {:>6} {:>11} {:>11} {:>7} {:>11} {:>11}",
        "shape", "causal", "ours ms", "burn ms", "ratio", "ours err", "burn err"
    );
    for &len in &options.seq_lens {
        let case = Case::new(&options, len);
        case.run(&context, &device, options.samples)?;
    }
    Ok(())
}

struct Case {
    shape: [usize; 4],
    causal: bool,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
}

impl Case {
    fn new(options: &Options, len: usize) -> Self {
        let shape = [options.batch, options.heads, len, options.head_dim];
        let mut rng = StdRng::seed_from_u64(len as u64);
        let mut normal = || (0..shape.iter().product()).map(|_| rng.sample(StandardNormal)).collect();
        Self { shape, causal: options.causal, q: normal(), k: normal(), v: normal() }
    }

    fn run(&self, context: &Context, device: &Device, samples: usize) -> Result<()> {
        let config = AttentionConfig::new().causal(if self.causal { Causal::TopLeft } else { Causal::None });
        let op = Attention::new(context, config)?;
        let [q, k, v] = [&self.q, &self.k, &self.v].map(|data| context.upload(data));
        let o = context.allocate(self.q.len());
        let shape = self.shape.map(|extent| extent as u32);
        let ours = || -> Result<Vec<f32>> {
            let mut encoder = context.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            let [q, k, v] = [&q, &k, &v].map(|buffer| TensorView::f32(buffer, shape));
            op.record(&mut encoder, AttentionInputs::new(q, k, v), AttentionOutputs::new(TensorView::f32(&o, shape)))?;
            context.queue().submit([encoder.finish()]);
            Ok(context.download(&o)?)
        };

        let tensor = |data: &[f32]| Tensor::<4>::from_data(TensorData::new(data.to_vec(), self.shape), device);
        let [q, k, v] = [&self.q, &self.k, &self.v].map(|data| tensor(data));
        let burn = || -> Result<Vec<f32>> {
            let options = AttentionModuleOptions { is_causal: self.causal, ..Default::default() };
            let o = attention(q.clone(), k.clone(), v.clone(), None, None, options);
            o.into_data().try_to_vec().map_err(|error| anyhow::anyhow!("Burn's output: {error:?}"))
        };

        let [batch, heads, len, head_dim] = shape;
        println!(
            "our kernel: {}",
            op.plan(&AttentionShapes::new(batch, heads, len, head_dim), wgpu_attention::DType::F32)?.kernel()
        );
        let [mut our_times, mut burn_times] = [Vec::new(), Vec::new()];
        let errors = [self.error(&config, &ours()?)?, self.error(&config, &burn()?)?];
        for (error, side) in errors.iter().zip(["this crate", "Burn"]) {
            ensure!(*error <= TOLERANCE, "{side} is wrong at {:?}: off by {error:.1e}", self.shape);
        }
        for _ in 0..WARM_UP {
            time(ours)?;
            time(burn)?;
        }
        for _ in 0..samples {
            our_times.push(time(ours)?);
            burn_times.push(time(burn)?);
        }
        let [ours, burn] = [median(our_times), median(burn_times)];
        println!(
            "{:>22} {:>6} {:>11.2} {:>11.2} {:>7.2} {:>11.1e} {:>11.1e}",
            format!("{:?}", self.shape),
            self.causal,
            ours,
            burn,
            burn / ours,
            errors[0],
            errors[1]
        );
        Ok(())
    }

    /// The largest error of an output against f64, over rows spread evenly.
    fn error(&self, config: &AttentionConfig, o: &[f32]) -> Result<f64> {
        let view = |data| HostView::new(data, self.shape);
        let inputs = HostInputs::new(view(&self.q)?, view(&self.k)?, view(&self.v)?);
        let [batch, heads, len, dim] = self.shape;
        let rows = batch * heads * len;
        let mut worst = 0.0f64;
        // An odd step, so that all positions within a head are met.
        for row in (0..rows).step_by((rows / CHECKED_ROWS) | 1) {
            let want = attention_row::<f64>(
                config,
                &inputs,
                [row / len / heads, row / len % heads, row % len],
                SumOrder::InOrder,
            )?;
            for (got, want) in o[row * dim..][..dim].iter().zip(want.o) {
                let off = (f64::from(*got) - want).abs();
                // A NaN must count as the worst there is.
                worst = if off.is_nan() { f64::INFINITY } else { worst.max(off) };
            }
        }
        Ok(worst)
    }
}

fn time<T>(call: impl Fn() -> Result<T>) -> Result<Duration> {
    let start = Instant::now();
    call()?;
    Ok(start.elapsed())
}

/// In milliseconds.
fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    let middle = times.len() / 2;
    let middle = if times.len() % 2 == 1 { times[middle] } else { (times[middle - 1] + times[middle]) / 2 };
    1e3 * middle.as_secs_f64()
}
