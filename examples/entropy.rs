//! What the entropy-invariant scale does: mean entropy of an attention row against the number n of keys it sees.
//!
//! `cargo run --release --example entropy` measures it on random scores and on the scores of a real model
//! (data/README.md), prints tables and a reading of them, and draws `entropy.svg`. Every entropy comes from the kernel's
//! own output; some rows of each length are compared with the CPU twin first.

#[path = "entropy/figure.rs"]
mod figure;
#[path = "entropy/scores.rs"]
mod scores;
#[path = "entropy/table.rs"]
mod table;

use std::io::{Write, stderr, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser;
use wgpu_attention::{Context, Scale};

use scores::Scores;

/// Mean row entropy of attention against n, for several scales, on random and on real scores.
#[derive(Parser)]
#[command(name = "entropy")]
struct Options {
    /// Where the figure goes.
    #[arg(long, value_name = "SVG", default_value = "entropy.svg")]
    out: PathBuf,
    /// Longest row of random scores; the lengths are powers of two from 16.
    #[arg(long, value_name = "N", default_value_t = 8192, value_parser = clap::value_parser!(u32).range(32..=32768))]
    max_len: u32,
    /// Run on the adapter whose name contains this.
    #[arg(long, value_name = "SUBSTRING")]
    adapter: Option<String>,
}

/// A scale, how it is written, and its formula in n and d.
#[derive(Clone, Copy)]
struct NamedScale {
    name: &'static str,
    scale: Scale,
    formula: fn(f64, f64) -> f64,
}

/// Scales by how they look in the figure.
const SCALES: [NamedScale; 4] = [
    NamedScale { name: "1/√d", scale: Scale::InvSqrtDim, formula: |_, d| 1.0 / d.sqrt() },
    NamedScale { name: "log₅₁₂ n/√d", scale: Scale::LOG_N, formula: |n, d| n.ln() / 512f64.ln() / d.sqrt() },
    NamedScale {
        name: "log n/(0.24 d)",
        scale: Scale::KappaLogN { kappa: 1.0 / 0.24 },
        formula: |n, d| n.ln() / (0.24 * d),
    },
    NamedScale { name: "log n/√d", scale: Scale::LogNSqrtDim, formula: |n, d| n.ln() / d.sqrt() },
];
/// The two that a model trained with 1/√d at 512 tokens can take as it is.
const FOR_TRAINED: usize = 2;

/// What one scale does to some scores.
struct Curve {
    scale: NamedScale,
    points: Vec<Point>,
}

/// Mean row entropies at one length, in nats: one for each draw of random keys or for each layer.
struct Point {
    len: u32,
    means: Vec<f64>,
}

impl Point {
    fn mean(&self) -> f64 {
        self.means.iter().sum::<f64>() / self.means.len() as f64
    }
}

/// Curves of all scales over powers of two, each row of the table printed as soon as it is known.
fn measure(
    context: &Context,
    scores: &Scores,
    scales: &[NamedScale],
    [mut len, last]: [u32; 2],
    row: impl Fn(&[Point]) -> String,
) -> Result<Vec<Curve>> {
    let mut curves: Vec<Curve> = scales.iter().map(|&scale| Curve { scale, points: Vec::new() }).collect();
    let buffers = scores.upload(context);
    while len <= last {
        let points = scales.iter().map(|scale| scores.entropies(context, &buffers, scale.scale, len));
        let points: Vec<Point> = points.collect::<Result<_>>()?;
        writeln!(stdout(), "{}", row(&points))?;
        for (curve, point) in curves.iter_mut().zip(points) {
            curve.points.push(point);
        }
        len *= 2;
    }
    Ok(curves)
}

fn main() -> ExitCode {
    let Err(error) = entropy(&Options::parse()) else { return ExitCode::SUCCESS };
    // With standard error closed there is nobody to tell.
    let _ = writeln!(stderr(), "error: {error:#}");
    ExitCode::from(2)
}

fn entropy(options: &Options) -> Result<()> {
    let context = match &options.adapter {
        Some(name) => Context::headless_with(name, Default::default())?,
        None => Context::headless()?,
    };
    let info = context.device().adapter_info();
    let mut out = stdout();
    writeln!(out, "Mean entropy of an attention row in nats, on {} ({})\n", info.name, info.backend)?;

    let scores = Scores::random(options.max_len);
    writeln!(out, "Random scores: {}", scores.what)?;
    writeln!(
        out,
        "In brackets log n − s²/2, where s² is the variance of the scaled scores and s < √(2 log n); beyond,"
    )?;
    writeln!(out, "a few keys take all of the weight.\n")?;
    writeln!(out, "{}", table::random_header())?;
    let random = measure(&context, &scores, &SCALES, [16, options.max_len], table::random_row)?;

    let scores = Scores::minilm()?;
    writeln!(out, "\nReal scores: {}\n", scores.what)?;
    writeln!(out, "{}", table::real_header(scores.batch))?;
    let real = measure(&context, &scores, &SCALES[..FOR_TRAINED], [32, scores.rows], table::real_row)?;

    write!(out, "\n{}", table::reading(&random, &real))?;
    let svg = figure::svg(&random, &real)?;
    std::fs::write(&options.out, svg).with_context(|| options.out.display().to_string())?;
    writeln!(out, "\nFigure: {}", options.out.display())?;
    Ok(())
}
