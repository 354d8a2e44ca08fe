//! Compares attention variants over sequence lengths on this machine, or by one query over many keys, or by their gradients, or the softmax family over row lengths.
//!
//! `cargo run --release --example compare -- --help` lists the options and the variants with their formulas.

mod backward;
#[path = "../ceilings/measure/mod.rs"]
mod ceilings;
mod crossover;
mod decode;
mod family;
mod figures;
mod harness;
mod minilm;
mod options;
mod plot;
mod record;
mod report;
mod run;
mod schedule;
mod table;
mod tier;
mod turns;

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser;

use crossover::{Point, crossover};
use harness::variants::{Family, VARIANTS};
use options::Options;
use record::Record;
use report::Remarks;
use run::Comparison;

fn main() -> ExitCode {
    match compare(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        // Whoever read the table has seen enough of it: `compare | head`.
        Err(error) if error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == ErrorKind::BrokenPipe) => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            // With standard error closed there is nobody to tell.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whether all went well: something was measured and nothing was wrong.
fn compare(options: &Options) -> Result<bool> {
    options.check()?;
    let (context, tier) = tier::open(&options.adapter, options.tier)?;
    if options.family {
        return family::compare(context, tier, options);
    }
    let mut comparison = Comparison::new(context, tier, options)?;
    comparison.run()?;
    let crossovers = if options.decode { Vec::new() } else { crossovers(&comparison.records) };
    for sentence in &crossovers {
        comparison.print(sentence)?;
    }
    if let Some(folder) = &options.report {
        let Comparison { setting, records, notes, failures, .. } = &comparison;
        let tuning = comparison.tuned.tuning();
        report::write(folder, records, &Remarks { setting, crossovers: &crossovers, notes, failures, tuning })?;
        comparison.print(&format!("Report: {}", folder.join("report.html").display()))?;
    }
    if let Some(path) = &options.svg {
        let figure = figures::time(&comparison.records, &comparison.setting, options.relative_to.as_deref())?;
        std::fs::write(path, figure).with_context(|| format!("--svg {}", path.display()))?;
        comparison.print(&format!("Figure: {}", path.display()))?;
    }
    Ok(comparison.failures.is_empty() && !comparison.records.is_empty())
}

/// Where each linear variant overtakes softmax and the gated attention unit.
fn crossovers(records: &[Record]) -> Vec<String> {
    let curve = |name: &str| -> Vec<Point> {
        let records = records.iter().filter(|record| record.variant == name && !record.tuned);
        records.map(|record| (record.shape.len, record.median_ms)).collect()
    };
    let linear = VARIANTS.iter().filter(|variant| variant.family() == Family::Linear).map(|variant| variant.name);
    let pairs = linear.flat_map(|linear| [(linear, "softmax"), (linear, "gau")]);
    let pairs = pairs.filter(|(linear, other)| !curve(linear).is_empty() && !curve(other).is_empty());
    pairs.map(|(linear, other)| crossover(&curve(linear), &curve(other)).sentence(linear, other)).collect()
}
