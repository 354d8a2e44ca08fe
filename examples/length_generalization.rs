//! What a trained model is worth at other lengths than that of its training, by how its attention turns scores into weights: the question
//! of kexue.fm/archives/9019 and 8823, asked of small language models that are trained here, on the GPU, by this crate's gradients.
//!
//! `cargo run --release --example length_generalization -- --preset cpu --out lengths` trains four models on the text of data/verses.txt
//! and on a control, judges each at a quarter to eight times the length, and writes tables, plots and checkpoints to `lengths`. Run again,
//! it goes on where it stopped.

#[path = "train/adam.rs"]
mod adam;
#[path = "train/chart.rs"]
mod chart;
#[path = "train/kernel.rs"]
mod kernel;
#[path = "length_generalization/kinds.rs"]
mod kinds;
#[path = "train/matrix.rs"]
mod matrix;
#[path = "length_generalization/mixers.rs"]
mod mixers;
#[path = "length_generalization/model.rs"]
mod model;
#[path = "length_generalization/preset.rs"]
mod preset;
#[path = "length_generalization/report.rs"]
mod report;
#[path = "length_generalization/run.rs"]
mod run;
#[path = "length_generalization/tasks.rs"]
mod tasks;

use std::io::{Write, stderr, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use kinds::Kind;
use preset::{Preset, Run};
use report::{FIGURES, Outcome, plot, rows, table};
use run::Training;
use tasks::{Positions, Retrieval, Task, Text};
use wgpu_attention::Context;

/// Length generalization of attention variants.
#[derive(Parser)]
#[command(name = "length_generalization")]
struct Options {
    /// How much is trained
    #[arg(long, value_enum, default_value = "smoke")]
    preset: Preset,
    /// Only these models, and tables of them: relu2-n, relu2-fixed, relu2-sum, gau-softmax, gau-softmax-log-n, softmax, softmax-log-n, linear
    #[arg(long, value_name = "MODEL", value_delimiter = ',')]
    kinds: Vec<String>,
    /// Only these tasks, and tables of them: text, max-retrieval
    #[arg(long, value_name = "TASK", value_delimiter = ',')]
    tasks: Vec<String>,
    /// Where checkpoints, tables and plots go, and come from
    #[arg(long, value_name = "DIR", default_value = "lengths")]
    out: PathBuf,
    /// Take the adapter whose name contains this
    #[arg(long, value_name = "SUBSTRING", default_value = "", hide_default_value = true)]
    adapter: String,
}

fn main() -> ExitCode {
    let Err(error) = execute(&Options::parse()) else { return ExitCode::SUCCESS };
    // With standard error closed there is nobody to tell.
    let _ = writeln!(stderr(), "error: {error:#}");
    ExitCode::from(2)
}

fn execute(options: &Options) -> Result<()> {
    let context = Context::headless_with(&options.adapter, Default::default())?;
    std::fs::create_dir_all(&options.out).with_context(|| options.out.display().to_string())?;
    let plan = options.preset.plan();
    let known = kinds::all(1).map(|kind| kind.key);
    for key in &options.kinds {
        anyhow::ensure!(
            known.contains(&key.as_str()),
            "--kinds: there is no model {key}; there are {}",
            known.join(", ")
        );
    }
    let wanted = |kind: &Kind| match &options.kinds[..] {
        [] => plan.kinds.contains(&kind.key),
        keys => keys.iter().any(|key| key == kind.key),
    };
    let info = context.device().adapter_info();
    let mut out = stdout();
    writeln!(out, "{} ({})\n", info.name, info.backend)?;

    let text = Text::load()?;
    let control: &[Positions] = &[Positions::None];
    let tasks: [(&str, &dyn Task, Run, &[Positions]); 2] =
        [("text", &text, plan.text, plan.positions), ("max-retrieval", &Retrieval, plan.control, control)];
    for name in &options.tasks {
        anyhow::ensure!(
            tasks.iter().any(|task| task.0 == name),
            "--tasks: there is no task {name}; there are text, max-retrieval"
        );
    }
    let mut outcomes = Vec::new();
    for (name, task, run, positions) in tasks {
        if !options.tasks.is_empty() && !options.tasks.iter().any(|wanted| wanted == name) {
            continue;
        }
        for kind in kinds::all(run.len).into_iter().filter(wanted) {
            for seed in 0..plan.seeds {
                let label = format!("{name} {} {seed}", kind.key).replace(' ', "-");
                let trained = trained(&context, (kind, run, task, seed), positions, &label, &options.out)?;
                outcomes.extend(trained.into_iter().map(|(positions, worth)| Outcome {
                    task: name.into(),
                    model: kind.name.into(),
                    positions: positions.into(),
                    seed,
                    worth,
                }));
            }
        }
        let rows = rows(&outcomes, name);
        let mut summary = String::new();
        for (file, figure) in ["loss", "accuracy", "entropy"].into_iter().zip(FIGURES) {
            let text = table(&rows, figure);
            writeln!(out, "{name}, trained at {} tokens\n\n{text}", run.len)?;
            summary += &format!("{text}\n");
            let title = format!("{name}, trained at {} tokens", run.len);
            std::fs::write(options.out.join(format!("{name}-{file}.svg")), plot(&rows, (&title, run.len), figure)?)?;
        }
        std::fs::write(options.out.join(format!("{name}.md")), summary)?;
    }
    let file = serde_json::to_string_pretty(&outcomes)?;
    Ok(std::fs::write(options.out.join("results.json"), file)?)
}

/// Trains a model, or goes on, and judges it with each kind of positions.
fn trained(
    context: &Context,
    (kind, run, task, seed): (Kind, Run, &dyn Task, u64),
    positions: &[Positions],
    label: &str,
    out: &Path,
) -> Result<Vec<(&'static str, Vec<run::Worth>)>> {
    let bar = ProgressBar::new(run.steps.into());
    bar.set_style(ProgressStyle::with_template("{prefix:32} {wide_bar} {pos}/{len} {msg} {eta}")?);
    bar.set_prefix(label.to_owned());
    let mut training = Training::new(context, kind, run, task, seed)?;
    let in_training = if positions == [Positions::None] { Positions::None } else { Positions::Plain };
    let checkpoint = out.join(format!("{label}.safetensors"));
    training.train(in_training, run.steps, Some(&checkpoint), &bar)?;
    bar.set_message("judging");
    let worth = positions.iter().map(|&positions| {
        let name = match positions {
            Positions::NtkMixed => "NTK-mixed",
            Positions::Plain | Positions::None => report::PLAIN,
        };
        Ok((name, training.judge(positions)?))
    });
    let worth = worth.collect();
    bar.finish_and_clear();
    worth
}
