//! Measures kernels and tiles for a grid of calls on this machine, writes what won, and times it against the defaults.
//!
//! `cargo run --release --example autotune -- tuning.json` writes a tuning that an app with such calls can load.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use wgpu_attention::{
    Attention, AttentionConfig, AttentionInputs, AttentionOutputs, AttentionShapes, AutotuneOptions, Causal, Context,
    LinearAttention, LinearAttentionConfig, LinearAttentionInputs, LinearAttentionOutputs, LinearAttentionShapes,
    LinearMode, MatMul, MatMulConfig, MatMulInputs, MatMulOutputs, MatMulShapes, Prepared, TensorView, Timer,
    TuningCase,
};

/// Measures kernels and tiles for a grid of calls on this machine, and times what won against the defaults.
#[derive(Parser)]
struct Options {
    /// Where to write the tuning
    output: Option<PathBuf>,
    /// Lengths of sequences, and sizes of square matrices
    #[arg(long, value_name = "N,N,...", value_delimiter = ',', default_values_t = [128, 256, 512, 1024, 2048])]
    lens: Vec<u32>,
    /// Widths of heads
    #[arg(long, value_name = "D,D,...", value_delimiter = ',', default_values_t = [32, 64, 128])]
    head_dims: Vec<u32>,
    /// Seconds a case
    #[arg(long, default_value_t = 8.0)]
    budget: f64,
    /// Pairs of samples, of the default and of what won in turns
    #[arg(long, default_value_t = 15)]
    samples: usize,
}

/// Heads of every call of attention.
const HEADS: u32 = 8;

/// The calls of the grid, by name.
fn grid(options: &Options) -> Vec<(String, TuningCase)> {
    let mut cases: Vec<(String, TuningCase)> = Vec::new();
    for &dim in &options.head_dims {
        for &len in &options.lens {
            for (name, causal, mode) in
                [("full", Causal::None, LinearMode::Full), ("causal", Causal::TopLeft, LinearMode::Causal)]
            {
                let softmax = (AttentionConfig::new().causal(causal), AttentionShapes::new(1, HEADS, len, dim));
                let linear = (LinearAttentionConfig::new().mode(mode), LinearAttentionShapes::new(1, HEADS, len, dim));
                cases.push((format!("attention {name}, n = {len}, d = {dim}"), softmax.into()));
                cases.push((format!("linear_attention {name}, n = {len}, d = {dim}"), linear.into()));
            }
        }
        // One query, as in decoding.
        for &len in &options.lens {
            let shapes = AttentionShapes { q_len: 1, ..AttentionShapes::new(1, HEADS, 16 * len, dim) };
            cases.push((
                format!("attention, 1 query, {} keys, d = {dim}", 16 * len),
                (AttentionConfig::new(), shapes).into(),
            ));
        }
    }
    for &size in &options.lens {
        let case = (MatMulConfig::new(), MatMulShapes::new(size, size, size));
        cases.push((format!("matmul {size} x {size} x {size}"), case.into()));
    }
    cases
}

fn main() -> Result<()> {
    let options = Options::parse();
    let context = Context::headless()?;
    let cases = grid(&options);
    let budget = Duration::from_secs_f64(options.budget);
    let mut tuned = context.clone();
    let mut out = std::io::stdout();
    let mut ratios = Vec::new();
    for (name, case) in &cases {
        let mut class = String::new();
        let tuning = tuned.autotune(&[*case], &AutotuneOptions { budget }, |progress| class = progress.class.into())?;
        let entry = tuning.cases().find(|(of, _)| *of == class).map(|(_, entry)| entry.clone()).unwrap_or_default();
        tuned = context.with_tuning(tuning)?;
        let tried = format!("{} tried, {} left out", entry.measured, entry.left_out);
        let Some(kernel) = entry.kernel else {
            writeln!(out, "{name}: {:.3} ms, the default stays ({tried})", entry.default_ms)?;
            ratios.push(1.0);
            continue;
        };
        // Neither the samples nor the numbers that the choice was made by.
        let [default, own] = in_turns([&context, &tuned], case, options.samples)?.map(|time| 1e3 * time.as_secs_f64());
        ratios.push(default / own);
        writeln!(out, "{name}: {own:.3} ms against {default:.3} ms: {:.2} x, {kernel} ({tried})", default / own)?;
    }
    let mean = (ratios.iter().map(|ratio: &f64| ratio.ln()).sum::<f64>() / ratios.len().max(1) as f64).exp();
    let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let changed = ratios.iter().filter(|&&ratio| ratio != 1.0).count();
    writeln!(
        out,
        "{} cases, {changed} with another kernel: {mean:.3} x on average (geometric), {least:.3} x at the least",
        ratios.len()
    )?;
    if let (Some(path), Some(tuning)) = (options.output, tuned.tuning()) {
        std::fs::write(path, serde_json::to_string_pretty(tuning)?)?;
    }
    Ok(())
}

/// Medians of a case in two contexts, sample by sample in turns.
fn in_turns(contexts: [&Context; 2], case: &TuningCase, samples: usize) -> Result<[Duration; 2]> {
    let buffers = |elements: [u32; 3]| elements.map(|count| contexts[0].upload(&vec![0.1_f32; count as usize]));
    let timer = Timer::new(contexts[0]);
    let time = |prepared: [Prepared<'_>; 2]| -> Result<[Duration; 2]> {
        let once = timer.pass(|pass| prepared[0].record_in(pass))?;
        let calls = (2e-3 / once.as_secs_f64().max(1e-9)).ceil().clamp(1.0, 64.0) as u32;
        let mut times = [Vec::new(), Vec::new()];
        // The first of each is for compiling.
        for round in 0..=samples {
            for turn in 0..2 {
                let which = (round + turn) % 2;
                times[which].push(timer.pass(|pass| (0..calls).for_each(|_| prepared[which].record_in(pass)))? / calls);
            }
        }
        Ok(times.map(|mut times| {
            times.remove(0);
            times.sort_unstable();
            times[times.len() / 2]
        }))
    };
    match *case {
        TuningCase::Attention(config, shapes, _) => {
            let [q_shape, k_shape] = [shapes.q_len, shapes.kv_len].map(|len| [1, HEADS, len, shapes.head_dim]);
            let [q, k, o] = buffers([q_shape, k_shape, q_shape].map(|shape| shape.iter().product()));
            let [q, k, o] = [(&q, q_shape), (&k, k_shape), (&o, q_shape)].map(|(b, shape)| TensorView::f32(b, shape));
            let ops = [Attention::new(contexts[0], config)?, Attention::new(contexts[1], config)?];
            let call = |op: &Attention| op.prepare(AttentionInputs::new(q, k, k), AttentionOutputs::new(o));
            time([call(&ops[0])?, call(&ops[1])?])
        }
        TuningCase::LinearAttention(config, shapes, _) => {
            let shape = [1, HEADS, shapes.q_len, shapes.head_dim];
            let buffers = buffers([shape.iter().product(); 3]);
            let [q, k, o] = buffers.each_ref().map(|buffer| TensorView::f32(buffer, shape));
            let ops = [LinearAttention::new(contexts[0], config)?, LinearAttention::new(contexts[1], config)?];
            let inputs = LinearAttentionInputs::new(q, k, k);
            let call = |op: &LinearAttention| op.prepare(inputs, LinearAttentionOutputs::new(o));
            time([call(&ops[0])?, call(&ops[1])?])
        }
        TuningCase::MatMul(config, MatMulShapes { m, n, k, .. }, _) => {
            let [a, b, c] = buffers([m * k, k * n, m * n]);
            let inputs = MatMulInputs::new(TensorView::f32(&a, [1, 1, m, k]), TensorView::f32(&b, [1, 1, k, n]));
            let ops = [MatMul::new(contexts[0], config)?, MatMul::new(contexts[1], config)?];
            let call = |op: &MatMul| op.prepare(inputs, MatMulOutputs { c: TensorView::f32(&c, [1, 1, m, n]) });
            time([call(&ops[0])?, call(&ops[1])?])
        }
        _ => anyhow::bail!("the grid has no such case"),
    }
}
