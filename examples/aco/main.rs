//! What AMD's compiler for Vulkan (ACO, in Mesa's RADV) makes of the kernels that plans for a GPU pick, on a machine without one.
//! `scripts/compilers aco` runs it.
//!
//! ```sh
//! aco rows FILE [--only TEXT] [--listings DIR]     on the driver: the figures of one family
//! aco table FILE... [--update]                     compares those of all families with docs/COMPILERS.md
//! ```
//!
//! For each kernel of `calls.txt` the driver tells registers, spills, scratch, workgroup memory, waves of a SIMD and instructions, and
//! hands out the listing. How often its instructions run is found by walking a workgroup's waves through it (`wave.rs`); a step is
//! a turn of its outermost loop (`steps.rs`).
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "what it is there for")]

mod calls;
mod clamps;
#[path = "../kernel/device.rs"]
mod device;
mod driver;
mod listing;
#[path = "../kernel/ops.rs"]
mod ops;
mod steps;
mod table;
#[path = "../kernel/translate.rs"]
mod translate;
mod wave;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result, bail, ensure};
use calls::Kernel;
use clap::Parser;
use driver::{Compiled, Driver};
use listing::Listing;
use steps::{Counts, Steps};
use table::{CLAMPS, COLUMNS, Column, Rows};

#[derive(Parser)]
enum Command {
    /// Writes the figures of the driver's family
    Rows {
        file: PathBuf,
        /// Of calls whose name contains this
        #[arg(long, default_value = "")]
        only: String,
        /// Write listings there
        #[arg(long)]
        listings: Option<PathBuf>,
    },
    /// Compares figures with the committed ones
    Table {
        files: Vec<PathBuf>,
        /// Commit to these
        #[arg(long)]
        update: bool,
    },
}

fn main() -> Result<ExitCode> {
    match Command::parse() {
        Command::Rows { file, only, listings } => rows(&file, &only, listings.as_deref())?,
        Command::Table { files, update } => return compare(&files, update),
    }
    Ok(ExitCode::SUCCESS)
}

fn rows(file: &Path, only: &str, listings: Option<&Path>) -> Result<()> {
    let driver = Driver::new()?;
    tells_spills(&driver)?;
    let mut kernels = calls::kernels(only)?;
    kernels.retain(|kernel| driver.has_matrices || !kernel.uses_matrices);
    let rows: Vec<_> = kernels.iter().map(|_| Mutex::new(None)).collect();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(kernel) = kernels.get(index) else { break };
                    let row = row(&driver, kernel, listings).with_context(|| kernel.name.clone());
                    *rows[index].lock().expect("no thread panicked") = Some(row);
                }
            });
        }
    });
    let mut figures = Vec::new();
    for (kernel, row) in kernels.iter().zip(rows) {
        figures.push((kernel.name.clone(), row.into_inner()?.context("no row")??));
    }
    let text = table::section(&driver.name, &COLUMNS, &figures);
    std::fs::write(file, format!("{}\n\n{text}", driver.version))?;
    Ok(())
}

/// A driver of which statistics count must tell of a kernel that needs more registers than there are.
fn tells_spills(driver: &Driver) -> Result<()> {
    const NUMBERS: usize = 128;
    let lines = |line: fn(usize) -> String| (0..NUMBERS).map(line).collect::<String>();
    // All is read before anything is written, and none of it may be read again.
    let text = format!(
        "@group(0) @binding(0) var<storage, read_write> x: array<vec4<f32>>;
        @compute @workgroup_size(256) fn main(@builtin(local_invocation_index) local: u32) {{ {} {} }}",
        lines(|i| format!("let a{i} = x[local * {NUMBERS}u + {i}u];")),
        lines(|i| format!("x[local * {}u + {i}u] = a{i};", NUMBERS + 1)),
    );
    let (module, info) = translate::parse(&text, naga::valid::Capabilities::empty()).map_err(anyhow::Error::msg)?;
    let checks = [naga::proc::BoundsCheckPolicy::Unchecked; 2];
    let spirv = translate::spirv(&module, &info, (1, 6), checks).map_err(anyhow::Error::msg)?;
    let told = spilled(&driver.compile(&spirv, &[(0, false)])?)?;
    ensure!(
        told.iter().sum::<f64>() > 0.0,
        "the driver says nothing of spills where there must be some: its word counts for nothing"
    );
    Ok(())
}

fn statistic(compiled: &Compiled, name: &str) -> Result<f64> {
    compiled.statistics.get(name).map(|&number| number as f64).with_context(|| format!("the driver tells no {name}"))
}

/// Registers that do not fit, and bytes of scratch.
fn spilled(compiled: &Compiled) -> Result<[f64; 2]> {
    let [scalar, vector] = ["Spilled SGPRs", "Spilled VGPRs"].map(|name| statistic(compiled, name));
    Ok([scalar? + vector?, statistic(compiled, "Scratch size")?])
}

fn row(driver: &Driver, kernel: &Kernel, listings: Option<&Path>) -> Result<Vec<Option<f64>>> {
    let compiled = driver.compile(&kernel.checked, &kernel.bindings)?;
    if let Some(folder) = listings {
        let name: String = kernel.name.replace([' ', '/', ':', ','], "_");
        std::fs::write(folder.join(name + ".txt"), &compiled.listing)?;
    }
    let [spills, scratch] = spilled(&compiled)?;
    let mut figures = vec![Some(statistic(&compiled, "VGPRs")?), Some(spills), Some(scratch)];
    for name in ["LDS size", "Subgroups per SIMD", "Instructions"] {
        figures.push(Some(statistic(&compiled, name)?));
    }
    let steps = Steps::of(&Listing::new(&compiled.listing), &kernel.params, kernel.invocations, compiled.subgroup);
    figures.extend(match steps {
        Ok(steps) => step_figures(&steps),
        Err(error) => {
            eprintln!("{}: {error}: nothing is said of its steps", kernel.name);
            [None; STEP_COLUMNS]
        }
    });
    Ok(figures)
}

/// Multiply-adds of a wave from which on a step is worth looking at.
const LEAST: u32 = 48;
const STEP_COLUMNS: usize = 11;

/// Nothing where little is multiplied.
fn step_figures(&Steps { waves, whole, edge }: &Steps) -> [Option<f64>; STEP_COLUMNS] {
    let ratio = |a: u32, b: u32| (b > 0).then(|| f64::from(a) / f64::from(b));
    let matrices = whole.matrices > 0;
    let scalar = !matrices && whole.multiply_adds >= LEAST * waves && 5 * whole.multiply_adds >= whole.vector;
    let of_products = |counts: Counts| {
        let own = counts.multiply_adds;
        let found = [ratio(own, counts.vector), ratio(own, counts.all), ratio(counts.lds, own)];
        if scalar { found } else { [None; 3] }
    };
    let step = |counts: Counts| ratio(counts.all, waves).filter(|_| scalar || matrices);
    let [per_vector, per_any, lds] = of_products(whole);
    let [edge_per_vector, edge_per_any, _] = edge.map_or([None; 3], of_products);
    let per_matrix = |count| ratio(count, whole.matrices);
    [
        step(whole),
        per_vector,
        per_any,
        lds,
        per_matrix(whole.all),
        per_matrix(whole.lds),
        per_matrix(whole.block),
        per_matrix(whole.block_lds),
        edge.and_then(step),
        edge_per_vector,
        edge_per_any,
    ]
}

/// The rows of clamps, which no driver is needed for.
fn clamp_rows() -> Result<Vec<(String, Vec<Option<f64>>)>> {
    let row = |kernel: Kernel| (kernel.name, vec![clamps::per_thousand(&kernel.checked, &kernel.unchecked)]);
    Ok(calls::kernels("")?.into_iter().map(row).collect())
}

fn committed_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/COMPILERS.md")
}

const INTRODUCTION: &str = include_str!("introduction.md");
const CLAMPS_HEADING: &str = "Clamps";

fn columns(heading: &str) -> &'static [Column] {
    if heading == CLAMPS_HEADING { &CLAMPS } else { &COLUMNS }
}

fn compare(files: &[PathBuf], update: bool) -> Result<ExitCode> {
    let (mut versions, mut families) = (Vec::new(), String::new());
    for file in files {
        let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let (version, section) = text.split_once("\n\n").context("a version, then a section")?;
        versions.push(version.to_owned());
        families.extend(["\n", section]);
    }
    versions.dedup();
    let [version] = &versions[..] else { bail!("figures of one Mesa, not of {versions:?}") };
    let clamps = table::section(CLAMPS_HEADING, &CLAMPS, &clamp_rows()?);
    let text = format!("{INTRODUCTION}\n{version}\n\n{clamps}{families}");
    let found = table::sections(&text);
    let committed = std::fs::read_to_string(committed_file()).unwrap_or_default();
    let before = table::sections(&committed);
    if update {
        std::fs::write(committed_file(), &text)?;
    }
    let same = committed.lines().any(|line| line == version);
    if !(same || update) {
        println!("The table is of another Mesa than {version}: of what is worse, only spills and scratch count.");
    }
    let mut faults = Vec::new();
    for (heading, rows) in &found {
        let committed = before.get(heading).unwrap_or(const { &Rows::new() });
        let table::Differences { spills, worse, other } = table::differences(columns(heading), committed, rows);
        let told = |lines: &[String]| lines.iter().map(|line| format!("{heading}, {line}")).collect::<Vec<_>>();
        faults.extend(told(&spills));
        if same && !update {
            faults.extend(told(&worse));
        } else {
            told(&worse).iter().for_each(|line| println!("{line}"));
        }
        told(&other).iter().for_each(|line| println!("{line}"));
    }
    faults.iter().for_each(|fault| println!("too bad: {fault}"));
    Ok(if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_kernel_gains_clamps() {
        let committed = table::sections(&std::fs::read_to_string(committed_file()).unwrap());
        let text = format!("\n{}", table::section(CLAMPS_HEADING, &CLAMPS, &clamp_rows().unwrap()));
        let differences =
            table::differences(&CLAMPS, &committed[CLAMPS_HEADING], &table::sections(&text)[CLAMPS_HEADING]);
        let worse = differences.worse.join("\n");
        assert!(worse.is_empty(), "{worse}\nwhere it has to be: scripts/compilers aco --update");
    }
}
