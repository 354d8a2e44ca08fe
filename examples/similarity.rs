//! Sentence similarity by margin softmax: a projection of frozen sentence features, trained on the GPU to tell chapters apart, and
//! judged by retrieval on chapters that it never saw.
//!
//! `cargo run --release --example similarity` trains with plain softmax, AM-Softmax, ArcFace and the simpler SphereFace on four
//! chapters of five of data/verses.txt, tells how often the nearest verse is one of the same chapter among the others, and saves one
//! of the projections. `similarity --nearest "Genesis 1:3"` shows what lies near a verse by a projection that was saved.

#[path = "train/adam.rs"]
mod adam;
#[path = "train/chart.rs"]
mod chart;
#[path = "train/kernel.rs"]
mod kernel;
#[path = "train/matrix.rs"]
mod matrix;
#[path = "similarity/model.rs"]
mod model;
#[path = "similarity/retrieval.rs"]
mod retrieval;
#[path = "train/verses.rs"]
mod verses;

use std::io::{Write, stderr, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use adam::falling;
use anyhow::{Context as _, Result};
use chart::{Chart, Line};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use model::{BATCH, LOSSES, Model, Projection};
use plotters::chart::SeriesLabelPosition::LowerRight;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use retrieval::{Accuracy, accuracy, nearest};
use verses::Verses;
use wgpu_attention::Context;

/// Sentence similarity trained with margin softmax.
#[derive(Parser)]
#[command(name = "similarity")]
struct Options {
    /// Passes over the training chapters
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    epochs: u32,
    /// Runs of each loss, from other random numbers
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// By which cosines are multiplied in the softmax
    #[arg(long, default_value_t = 16.0)]
    scale: f32,
    /// Show the verses nearest to this one, by the projection that was saved, and train nothing
    #[arg(long, value_name = "VERSE")]
    nearest: Option<String>,
    /// The projection: where it goes, or comes from
    #[arg(long, value_name = "SAFETENSORS", default_value = "projection.safetensors")]
    projection: PathBuf,
    /// Whose projection is saved
    #[arg(long, value_name = "LOSS", default_value = "AM-Softmax")]
    save: String,
    /// Where the figure goes
    #[arg(long, value_name = "SVG", default_value = "similarity.svg")]
    out: PathBuf,
    /// Take the adapter whose name contains this
    #[arg(long, value_name = "SUBSTRING", default_value = "", hide_default_value = true)]
    adapter: String,
}

/// How far a step goes at first; it falls to 0 along a cosine. It and the scale are those of every loss.
const RATE: f32 = 2e-3;

fn main() -> ExitCode {
    let options = Options::parse();
    let done = if let Some(verse) = &options.nearest { show(verse, &options) } else { train(&options) };
    let Err(error) = done else { return ExitCode::SUCCESS };
    // With standard error closed there is nobody to tell.
    let _ = writeln!(stderr(), "error: {error:#}");
    ExitCode::from(2)
}

/// The verses nearest to one.
fn show(verse: &str, options: &Options) -> Result<()> {
    let context = Context::headless_with(&options.adapter, Default::default())?;
    let verses = Verses::load()?;
    let place = verses.lines.iter().position(|(place, _)| place == verse);
    let place =
        place.with_context(|| format!("--nearest: there is no verse {verse}; they are written as Genesis 1:3"))?;
    let projection = Projection::load(&options.projection)?;
    let all: Vec<usize> = (0..verses.lines.len()).collect();
    let embedded = projection.embed(&context, &verses, &all)?;
    let mut out = stdout();
    writeln!(out, "{}\n", verses.lines[place].1)?;
    for (cosine, other) in nearest(&embedded, place).into_iter().take(8) {
        let (place, text) = &verses.lines[other];
        writeln!(out, "{cosine:.3}  {place:16} {text}")?;
    }
    Ok(())
}

fn train(options: &Options) -> Result<()> {
    let context = Context::headless_with(&options.adapter, Default::default())?;
    let verses = Verses::load()?;
    anyhow::ensure!(
        LOSSES.iter().any(|(name, _)| *name == options.save),
        "--save: there is no loss {}; there are {}",
        options.save,
        LOSSES.map(|(name, _)| name).join(", "),
    );
    let (train, test) = verses.split();
    let chapters: Vec<u32> = test.iter().map(|&verse| verses.chapters[verse]).collect();
    let chapters_in_all = verses.chapters.last().map_or(0, |last| last + 1);
    let info = context.device().adapter_info();
    let mut out = stdout();
    writeln!(
        out,
        "{} ({})\n{} verses of {} chapters to learn from, {} of other chapters to look among\n",
        info.name,
        info.backend,
        train.len(),
        chapters_in_all - chapters_in_all / 5,
        test.len(),
    )?;
    let frozen = accuracy(&Projection::none().embed(&context, &verses, &test)?, &chapters);
    writeln!(out, "{:18} {:>12} {:>12}", "loss", "accuracy@1", "accuracy@5")?;
    writeln!(out, "{:18} {:12.3} {:12.3}", "none: as they are", frozen.at_1, frozen.at_5)?;

    let bar = ProgressBar::new(LOSSES.len() as u64 * options.seeds * u64::from(options.epochs));
    bar.set_style(ProgressStyle::with_template("{bar:24} {elapsed} {wide_msg}")?);
    let level = vec![frozen; options.epochs as usize];
    let mut lines = vec![line("features as they are", &level)];
    for (name, margin) in LOSSES {
        let mut runs = Vec::new();
        for seed in 0..options.seeds {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut model = Model::new(&context, margin, options.scale, chapters_in_all, &mut rng)?;
            let mut curve = Vec::new();
            for epoch in 0..options.epochs {
                let mut order = train.clone();
                order.shuffle(&mut rng);
                let batches = order.chunks_exact(BATCH as usize);
                let steps = options.epochs * batches.len() as u32;
                for (step, batch) in (epoch * batches.len() as u32..).zip(batches) {
                    let rate = falling(RATE, step, steps);
                    model.step(&verses, batch, rate)?;
                }
                curve.push(accuracy(&model.projection()?.embed(&context, &verses, &test)?, &chapters));
                bar.inc(1);
                bar.set_message(format!("{name}, run {}: {:.3}", seed + 1, curve[curve.len() - 1].at_1));
            }
            if seed == 0 && name == options.save {
                model.projection()?.save(&options.projection)?;
            }
            runs.push(curve);
        }
        let mean: Vec<Accuracy> = (0..options.epochs as usize).map(|epoch| Accuracy::mean(&runs, epoch)).collect();
        let (last, spread) = (mean[mean.len() - 1], Accuracy::spread(&runs));
        let row = format!("{name:18} {:6.3} ± {:.3} {:6.3} ± {:.3}", last.at_1, spread.at_1, last.at_5, spread.at_5);
        bar.suspend(|| writeln!(out, "{row}"))?;
        lines.push(line(name, &mean));
    }
    bar.finish_and_clear();
    let title = "How often the nearest verse is of the same chapter, among chapters never seen";
    let svg =
        Chart { title, x: "epochs", y: "accuracy@1", mark: f64::to_string, lines: &lines, names: LowerRight }.svg()?;
    std::fs::write(&options.out, svg).with_context(|| options.out.display().to_string())?;
    writeln!(
        out,
        "\nFigure: {}\nProjection of {}: {}",
        options.out.display(),
        options.save,
        options.projection.display()
    )?;
    Ok(())
}

fn line(name: &str, curve: &[Accuracy]) -> Line {
    let points = curve.iter().enumerate().map(|(epoch, accuracy)| (epoch as f64 + 1.0, accuracy.at_1));
    Line::new(name, points)
}
