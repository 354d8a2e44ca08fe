//! Learning a choice among classes through samples of it: Gumbel-softmax, its straight-through form and the score-function estimator,
//! each against the exact gradient.
//!
//! `cargo run --release --example gumbel`: a class z of 32 is drawn with probability softmax(logits), and costs f(z) = ½ |A z − b|²,
//! z as a one-hot. The gradient of the mean cost is known, p_j (f_j − E f), so that each estimator's bias and variance can be
//! measured. Then the logits are learned by each of them, the temperature annealed.

#[path = "train/chart.rs"]
mod chart;
#[path = "gumbel/estimate.rs"]
mod estimate;
#[path = "gumbel/problem.rs"]
mod problem;

use std::io::{Write, stderr, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use chart::{Chart, Line};
use clap::Parser;
use estimate::{Estimator, Estimators};
use indicatif::{ProgressBar, ProgressStyle};
use plotters::chart::SeriesLabelPosition::UpperRight;
use problem::{CLASSES, Problem};
use wgpu_attention::Context;

/// Bias and variance of gradients through samples, and what is learned by them.
#[derive(Parser)]
#[command(name = "gumbel")]
struct Options {
    /// Samples from which bias and variance are told
    #[arg(long, default_value_t = 1 << 16, value_parser = clap::value_parser!(u32).range(64..=1 << 20))]
    samples: u32,
    /// Steps of learning, of 64 samples each
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the figure goes
    #[arg(long, value_name = "SVG", default_value = "gumbel.svg")]
    out: PathBuf,
    /// Take the adapter whose name contains this
    #[arg(long, value_name = "SUBSTRING", default_value = "", hide_default_value = true)]
    adapter: String,
}

const TAUS: [f32; 6] = [2.0, 1.0, 0.5, 0.25, 0.1, 0.05];
/// Temperatures at the first and the last step of learning.
const ANNEALED: [f32; 2] = [1.0, 0.1];
const LEARNING_SAMPLES: u32 = 64;
const RATE: f64 = 0.1;

fn main() -> ExitCode {
    let Err(error) = gumbel(&Options::parse()) else { return ExitCode::SUCCESS };
    // With standard error closed there is nobody to tell.
    let _ = writeln!(stderr(), "error: {error:#}");
    ExitCode::from(2)
}

fn gumbel(options: &Options) -> Result<()> {
    let context = Context::headless_with(&options.adapter, Default::default())?;
    let problem = Problem::new(options.seed);
    let estimators = Estimators::new(&context, &problem)?;
    let info = context.device().adapter_info();
    let mut out = stdout();
    writeln!(out, "{} ({})\n", info.name, info.backend)?;

    let logits = problem.start();
    let exact = problem.gradient(&logits);
    writeln!(
        out,
        "Gradients at the start, {} samples; bias and variance relative to the exact gradient's norm and its square.",
        options.samples
    )?;
    writeln!(out, "In brackets what the bias of an unbiased estimator would look like with so few samples.\n")?;
    writeln!(out, "{:24} {:>6} {:>18} {:>12}", "estimator", "τ", "bias", "variance")?;
    let mut row = |estimator: Estimator, tau: Option<f32>| -> Result<()> {
        let samples =
            estimators.gradients(estimator, &logits, tau.unwrap_or(1.0), options.samples, (options.seed, 0))?;
        let Moments { bias, noise, variance } = Moments::of(&samples, &exact);
        let tau = tau.map_or_else(|| "-".into(), |tau| tau.to_string());
        writeln!(out, "{:24} {tau:>6} {bias:9.4} ({noise:.4}) {variance:12.3}", estimator.name())?;
        Ok(())
    };
    for estimator in [Estimator::Soft, Estimator::StraightThrough] {
        TAUS.iter().try_for_each(|&tau| row(estimator, Some(tau)))?;
    }
    row(Estimator::ScoreFunction, None)?;
    row(Estimator::ScoreFunctionWithBaseline, None)?;

    let bar = ProgressBar::new(u64::from(options.steps) * (Estimator::ALL.len() as u64 + 1));
    bar.set_style(ProgressStyle::with_template("{bar:24} {elapsed} {wide_msg}")?);
    let mut lines =
        vec![learn(&problem, options.steps, &bar, "exact gradient", |logits, _, _| Ok(problem.gradient(logits)))?];
    for estimator in Estimator::ALL {
        lines.push(learn(&problem, options.steps, &bar, estimator.name(), |logits, tau, step| {
            let samples = estimators.gradients(estimator, logits, tau, LEARNING_SAMPLES, (options.seed, 1 + step))?;
            Ok(mean(&samples))
        })?);
    }
    bar.finish_and_clear();
    writeln!(
        out,
        "\nMean cost after {} steps of {LEARNING_SAMPLES} samples; the cheapest class costs {:.3}.\n",
        options.steps,
        problem.least()
    )?;
    for line in &lines {
        writeln!(out, "{:24} {:8.3}", line.name, line.points[line.points.len() - 1].1)?;
    }
    let title = format!("Mean cost of the class drawn, τ from {} to {}", ANNEALED[0], ANNEALED[1]);
    let svg =
        Chart { title: &title, x: "steps", y: "mean cost", mark: f64::to_string, lines: &lines, names: UpperRight }
            .svg()?;
    std::fs::write(&options.out, svg).with_context(|| options.out.display().to_string())?;
    writeln!(out, "\nFigure: {}", options.out.display())?;
    Ok(())
}

/// What some samples of a gradient say of an estimator.
struct Moments {
    /// |mean − exact| / |exact|.
    bias: f64,
    /// The bias that is expected of an unbiased one from so many samples.
    noise: f64,
    /// The variances of all entries together, over |exact|².
    variance: f64,
}

impl Moments {
    fn of(samples: &[f32], exact: &[f64]) -> Self {
        let mean = mean(samples);
        let squares = |numbers: &mut dyn Iterator<Item = f64>| numbers.map(|x| x * x).sum::<f64>();
        let norm = squares(&mut exact.iter().copied());
        let off = squares(&mut mean.iter().zip(exact).map(|(mean, exact)| mean - exact));
        let count = samples.len() / CLASSES;
        let rows = samples.chunks_exact(CLASSES);
        let apart = rows.map(|row| squares(&mut row.iter().zip(&mean).map(|(x, mean)| f64::from(*x) - mean)));
        let variance = apart.sum::<f64>() / (count - 1) as f64;
        Self { bias: (off / norm).sqrt(), noise: (variance / count as f64 / norm).sqrt(), variance: variance / norm }
    }
}

fn mean(samples: &[f32]) -> Vec<f64> {
    let mut sum = vec![0.0; CLASSES];
    for row in samples.chunks_exact(CLASSES) {
        sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
    }
    let count = (samples.len() / CLASSES) as f64;
    sum.iter().map(|sum| sum / count).collect()
}

/// Mean costs while logits go down a gradient.
fn learn(
    problem: &Problem,
    steps: u32,
    bar: &ProgressBar,
    name: &str,
    gradient: impl Fn(&[f32], f32, u32) -> Result<Vec<f64>>,
) -> Result<Line> {
    let mut logits = problem.start();
    let mut points = vec![(0.0, problem.mean_cost(&logits))];
    for step in 0..steps {
        let share = f64::from(step) / f64::from(steps.max(2) - 1);
        let tau = ANNEALED[0] * (ANNEALED[1] / ANNEALED[0]).powf(share as f32);
        let slopes = gradient(&logits, tau, step)?;
        logits.iter_mut().zip(slopes).for_each(|(logit, slope)| *logit -= (RATE * slope) as f32);
        points.push((f64::from(step + 1), problem.mean_cost(&logits)));
        bar.inc(1);
        bar.set_message(format!("{name}: {:.3}", points[points.len() - 1].1));
    }
    Ok(Line::new(name, points))
}
