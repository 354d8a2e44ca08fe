//! This crate beside Burn on the same adapter, in one run: softmax attention, its gradients, or the softmax of rows.
//!
//!     cargo run --release --manifest-path benches/peers/Cargo.toml -- --help
//!
//! What is timed, by wall clock, is the same on both sides, and includes that the work is done (Burn's calls return before). Samples
//! alternate, after a warm-up in which Burn tunes itself. A result is checked against f64 before it is timed.

mod attention;
mod gradients;
mod softmax;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use burn::tensor::Device;
use clap::Parser;
use wgpu_attention::Context;

/// Softmax attention in f32, or the softmax of rows: this crate beside Burn.
#[derive(Parser)]
struct Options {
    /// Time the softmax of rows by columns, and no attention.
    #[arg(long, value_name = "ROWSxCOLUMNS,...", value_delimiter = ',', value_parser = softmax::shape)]
    #[arg(num_args = 0..=1, default_missing_value = "4096x1024,64x65536,8x1000000")]
    softmax: Option<Vec<[usize; 2]>>,
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
    /// Time attention and then its gradients, as a step of training takes them.
    #[arg(long, conflicts_with = "softmax")]
    backward: bool,
    /// Timed calls on each side.
    #[arg(long, default_value_t = 9)]
    samples: usize,
}

const WARM_UP: usize = 2;

fn main() -> Result<()> {
    let options = Options::parse();
    ensure!(options.samples > 0, "--samples: expected at least 1, got 0");
    // Neither side is given a name: both take the adapter that wgpu ranks first for high performance.
    let context = Context::headless_with("", Default::default())?;
    let device = Device::default();
    let info = context.device().adapter_info();
    println!("adapter: {} / {} {} / {:?}", info.name, info.driver, info.driver_info, info.backend);
    println!("Burn's device: {device:?}");
    let timed = match (&options.softmax, options.backward) {
        (Some(_), _) => "wait until it is done",
        (None, false) => "read back of o",
        (None, true) => "read back of the gradients of q, k and v",
    };
    println!("timed: call + submit + {timed}, wall clock; medians of {} alternating samples", options.samples);
    if let Some(shapes) = &options.softmax {
        softmax::print_head();
        return shapes.iter().try_for_each(|&shape| softmax::run(shape, &context, &device, options.samples));
    }
    attention::print_head();
    for &len in &options.seq_lens {
        let case = attention::Case::new(&options, len);
        if options.backward {
            gradients::run(&case, &context, &device, options.samples)?;
        } else {
            case.run(&context, &device, options.samples)?;
        }
    }
    Ok(())
}

/// The largest difference; of a NaN, infinite.
fn worst(got: &[f32], want: &[f64]) -> f64 {
    let off = |(&got, &want): (&f32, &f64)| (f64::from(got) - want).abs();
    got.iter().zip(want).map(off).fold(0.0, |most, off| if off.is_nan() { f64::INFINITY } else { most.max(off) })
}

/// Refuses a result of ours or of Burn's that is off by more than `tolerance`.
fn expect_right(shape: &[usize], errors: [f64; 2], tolerance: f64) -> Result<()> {
    for (error, side) in errors.iter().zip(["this crate", "Burn"]) {
        ensure!(*error <= tolerance, "{side} is wrong at {shape:?}: off by {error:.1e}");
    }
    Ok(())
}

/// The medians of both, in milliseconds.
fn in_turns<T>(samples: usize, ours: impl Fn() -> Result<T>, burn: impl Fn() -> Result<T>) -> Result<[f64; 2]> {
    let [mut our_times, mut burn_times] = [Vec::new(), Vec::new()];
    for _ in 0..WARM_UP {
        time(&ours)?;
        time(&burn)?;
    }
    for _ in 0..samples {
        our_times.push(time(&ours)?);
        burn_times.push(time(&burn)?);
    }
    Ok([median(our_times), median(burn_times)])
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
