//! Which words a verse holds, from the features of a frozen model alone: one linear layer, trained on the GPU by the multi-label
//! loss (ZLPR) and by a sigmoid cross-entropy for each class.
//!
//! `cargo run --release --example multilabel` takes the 200 commonest content words of data/verses.txt as classes, of which a verse
//! holds few, trains on four chapters of five and tells micro and macro F1 on the fifth. A class is predicted where its score is
//! above 0; nothing is weighted, and no threshold is tuned.

#[path = "train/adam.rs"]
mod adam;
#[path = "train/chart.rs"]
mod chart;
#[path = "train/kernel.rs"]
mod kernel;
#[path = "train/matrix.rs"]
mod matrix;
#[path = "multilabel/model.rs"]
mod model;
#[path = "train/verses.rs"]
mod verses;
#[path = "multilabel/words.rs"]
mod words;

use std::io::{Write, stderr, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use adam::falling;
use anyhow::{Context as _, Result};
use chart::{Chart, Line};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use model::{BATCH, Loss, Model};
use plotters::chart::SeriesLabelPosition::LowerRight;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use verses::{Verses, WIDTH};
use wgpu_attention::Context;
use words::Words;

/// ZLPR against sigmoid cross-entropy on many, rare labels.
#[derive(Parser)]
#[command(name = "multilabel")]
struct Options {
    /// Passes over the training chapters
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    epochs: u32,
    /// How many classes: the commonest words
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1000))]
    words: u32,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the figure goes
    #[arg(long, value_name = "SVG", default_value = "multilabel.svg")]
    out: PathBuf,
    /// Take the adapter whose name contains this
    #[arg(long, value_name = "SUBSTRING", default_value = "", hide_default_value = true)]
    adapter: String,
}

/// What is compared: a loss, and whether verses are mixed in pairs, which makes labels soft.
const RUNS: [(&str, Loss, bool); 4] = [
    ("ZLPR", Loss::Zlpr, false),
    ("sigmoid", Loss::Sigmoid, false),
    ("ZLPR, mixup", Loss::Zlpr, true),
    ("sigmoid, mixup", Loss::Sigmoid, true),
];

/// Steps grow to this, and fall to 0 along a cosine.
const RATE: f32 = 0.01;

/// The F1 of all decisions, and the mean of the classes' own, over classes that the held-out verses have.
#[derive(Clone, Copy)]
struct F1 {
    micro: f64,
    mean: f64,
}

fn main() -> ExitCode {
    let Err(error) = multilabel(&Options::parse()) else { return ExitCode::SUCCESS };
    // With standard error closed there is nobody to tell.
    let _ = writeln!(stderr(), "error: {error:#}");
    ExitCode::from(2)
}

fn multilabel(options: &Options) -> Result<()> {
    let context = Context::headless_with(&options.adapter, Default::default())?;
    let verses = Verses::load()?;
    let words = Words::commonest(&verses, options.words as usize);
    let (train, test) = verses.split();
    let info = context.device().adapter_info();
    let mut out = stdout();
    writeln!(out, "{} ({})\n", info.name, info.backend)?;
    let [held, rarest] = [words.mean_labels(&test), words.rarest(&train) as f64];
    writeln!(
        out,
        "{} verses to learn from, {} of other chapters to test on; {} classes, of which a verse holds {held:.1}; the rarest stands in \
         {rarest} verses.\n",
        train.len(),
        test.len(),
        options.words,
    )?;

    let bar = ProgressBar::new(RUNS.len() as u64 * u64::from(options.epochs));
    bar.set_style(ProgressStyle::with_template("{bar:24} {elapsed} {wide_msg}")?);
    let mut curves = Vec::new();
    for (name, loss, mixup) in RUNS {
        let mut rng = StdRng::seed_from_u64(options.seed);
        let mut model = Model::new(&context, options.words, loss)?;
        let mut curve = Vec::new();
        for epoch in 0..options.epochs {
            let mut order = train.clone();
            order.shuffle(&mut rng);
            let batches = order.chunks_exact(BATCH as usize);
            let steps = options.epochs * batches.len() as u32;
            for (step, batch) in (epoch * batches.len() as u32..).zip(batches) {
                let (mut features, mut labels) = (Vec::new(), Vec::new());
                for (place, &verse) in batch.iter().enumerate() {
                    let (other, share) =
                        if mixup { (batch[(place + 1) % batch.len()], rng.random()) } else { (verse, 1.0) };
                    let mixed = |a: &[f32], b: &[f32]| -> Vec<f32> {
                        a.iter().zip(b).map(|(a, b)| share * a + (1.0 - share) * b).collect()
                    };
                    features.extend(mixed(verses.feature(verse), verses.feature(other)));
                    labels.extend(mixed(words.labels(verse), words.labels(other)));
                }
                let rate = falling(RATE, step, steps);
                model.step(&features, &labels, rate)?;
            }
            let scores =
                model.scores(&test.iter().flat_map(|&verse| verses.feature(verse)).copied().collect::<Vec<_>>())?;
            curve.push(f1(&scores, &words, &test));
            bar.inc(1);
            bar.set_message(format!("{name}: micro F1 {:.3}", curve[curve.len() - 1].micro));
        }
        curves.push((name, curve));
    }
    bar.finish_and_clear();

    writeln!(out, "{:16} {:>9} {:>9}", "loss", "micro F1", "macro F1")?;
    for (name, curve) in &curves {
        let last = curve[curve.len() - 1];
        writeln!(out, "{name:16} {:9.3} {:9.3}", last.micro, last.mean)?;
    }
    let lines: Vec<Line> = curves
        .iter()
        .map(|(name, curve)| {
            Line::new(*name, curve.iter().enumerate().map(|(epoch, f1)| (epoch as f64 + 1.0, f1.mean)))
        })
        .collect();
    let title = format!("Which of the {} commonest words a verse holds: macro F1 on other chapters", options.words);
    let svg =
        Chart { title: &title, x: "epochs", y: "macro F1", mark: f64::to_string, lines: &lines, names: LowerRight }
            .svg()?;
    std::fs::write(&options.out, svg).with_context(|| options.out.display().to_string())?;
    writeln!(out, "\nFigure: {}", options.out.display())?;
    Ok(())
}

/// Of scores `[verses, classes]`, each class predicted where it is above 0.
fn f1(scores: &[f32], words: &Words, verses: &[usize]) -> F1 {
    let classes = words.count();
    // Of each class: found, predicted, held.
    let mut counts = vec![[0u32; 3]; classes];
    for (row, &verse) in scores.chunks_exact(classes).zip(verses) {
        for ((count, &score), &label) in counts.iter_mut().zip(row).zip(words.labels(verse)) {
            let [predicted, held] = [score > 0.0, label > 0.5];
            let seen = [predicted && held, predicted, held];
            count.iter_mut().zip(seen).for_each(|(count, seen)| *count += u32::from(seen));
        }
    }
    let of = |[found, predicted, held]: [u32; 3]| 2.0 * f64::from(found) / f64::from((predicted + held).max(1));
    let all = counts.iter().fold([0; 3], |sum, count| std::array::from_fn(|i| sum[i] + count[i]));
    let own: Vec<f64> = counts.iter().filter(|[.., held]| *held > 0).map(|&count| of(count)).collect();
    F1 { micro: of(all), mean: own.iter().sum::<f64>() / own.len() as f64 }
}
