//! `compare --family`: the ops of the softmax family over row lengths, forward and backward.

mod cells;
mod gumbel;
mod margin;
mod multilabel;
mod record;
mod report;
mod softmax;
pub mod variants;

use std::collections::HashMap;
use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use wgpu_attention::{Context, DType, wgpu};

use crate::ceilings::Ceilings;
use crate::harness::case::Arithmetic;
use crate::harness::timer::Timer;
use crate::harness::verify::{Allowance, Checked, Errors, differences, largest};
use crate::harness::{Failure, parallel};
use crate::options::Options;
use crate::record::Setting;
use crate::schedule::{self, Cost};
use crate::table;
use crate::tier::Tier;
use crate::turns::{self, Ready};
use cells::{Cell, Numbers, Tensors, cell, spread};
use margin::MarginTensors;
use record::{COLUMNS, Record, cells as cells_of};
use variants::{Op, VARIANTS, Variant};

/// Row lengths by default.
const LENGTHS: [u32; 5] = [100, 1000, 10_000, 100_000, 1_000_000];
/// About how many elements a cell has.
const ELEMENTS_ON_CPU: u32 = 1 << 20;
const ELEMENTS_ON_GPU: u32 = 1 << 24;
/// Seconds for a run with default lengths.
const BUDGET: f64 = 180.0;
/// Multiply-adds or exponentials of all naive runs of a cell; how many runs that buys, of how many rows.
const NAIVE_WORK: u64 = 1 << 21;
const NAIVE_RUNS: [u64; 2] = [2, 8];

/// The variants asked for, each once, in the order of the table: all, if none is.
pub fn chosen(names: &[String]) -> Result<Vec<&'static Variant>> {
    for name in names {
        if name != "all" && !VARIANTS.iter().any(|variant| variant.name == name) {
            let known: Vec<&str> = VARIANTS.iter().map(|variant| variant.name).collect();
            bail!("--variants: the family has no variant `{name}`; it has {} and `all`", known.join(", "));
        }
    }
    let all = names.is_empty() || names.iter().any(|name| name == "all");
    Ok(VARIANTS.iter().filter(|variant| all || names.iter().any(|name| name == variant.name)).collect())
}

/// Measures everything, printing as it goes. Whether all went well: something was measured and nothing was wrong.
pub fn compare(context: Context, tier: Tier, options: &Options) -> Result<bool> {
    let mut family = Family::new(context, tier, options)?;
    family.run()?;
    let Family { setting, records, notes, failures, .. } = &family;
    if let Some(folder) = &options.report {
        report::write(folder, records, setting, notes, failures)?;
        family.print(&format!("Report: {}", folder.join("report.html").display()))?;
    }
    if let Some(path) = &options.svg {
        let figure = report::time(records, setting, options.relative_to.as_deref())?;
        std::fs::write(path, figure).with_context(|| format!("--svg {}", path.display()))?;
        family.print(&format!("Figure: {}", path.display()))?;
    }
    Ok(failures.is_empty() && !records.is_empty())
}

/// The comparison and what comes of it.
struct Family {
    context: Context,
    timer: Timer,
    dtype: DType,
    elements: u32,
    samples: Option<u32>,
    lengths: Vec<u32>,
    budget: Option<Duration>,
    /// Those that have not stopped.
    active: Vec<&'static Variant>,
    costs: HashMap<&'static str, Cost>,
    bar: ProgressBar,
    name_width: usize,
    setting: Setting,
    records: Vec<Record>,
    /// Wrong results and errors of drivers.
    failures: Vec<String>,
    /// What was not run, and why.
    notes: Vec<String>,
}

/// What came of a variant at one length.
type Outcome = Result<(Record, Cost), Failure>;

impl Family {
    fn new(context: Context, tier: Tier, options: &Options) -> Result<Self> {
        let active = chosen(&options.variants)?;
        let info = context.device().adapter_info();
        let on_cpu = info.device_type == wgpu::DeviceType::Cpu;
        let mut lengths = options.seq_lens.clone();
        lengths.sort_unstable();
        lengths.dedup();
        let default_budget = Some(BUDGET).filter(|_| lengths.is_empty());
        if lengths.is_empty() {
            lengths = LENGTHS.into();
        }
        let timer = Timer::new(&context);
        let setting = Setting::new(&info, timer.name(), options.data.name(), tier);
        let bar = ProgressBar::new(0);
        bar.set_style(ProgressStyle::with_template("{bar:24} {elapsed} {wide_msg}")?);
        bar.enable_steady_tick(Duration::from_millis(500));
        Ok(Self {
            context,
            timer,
            dtype: options.dtype.into(),
            elements: if on_cpu { ELEMENTS_ON_CPU } else { ELEMENTS_ON_GPU },
            samples: options.samples,
            lengths,
            budget: options.budget.or(default_budget).map(Duration::from_secs_f64),
            name_width: active.iter().map(|variant| variant.name.len()).max().unwrap_or(0),
            active,
            costs: HashMap::new(),
            bar,
            setting,
            records: Vec::new(),
            failures: Vec::new(),
            notes: Vec::new(),
        })
    }

    fn run(&mut self) -> Result<()> {
        self.bar.set_message("measuring the ceilings");
        match Ceilings::measure(&self.context, &self.timer, None) {
            Ok(ceilings) => self.setting.ceilings = Some(ceilings),
            Err(Failure::Failed(reason)) => self.failures.push(format!("ceilings: {reason}")),
            Err(Failure::Refused(reason)) => self.notes.push(format!("ceilings: {reason}")),
        }
        for line in self.head() {
            self.print(&line)?;
        }
        let start = Instant::now();
        // No part of the budget.
        let mut compiling = Duration::ZERO;
        for index in 0..self.lengths.len() {
            let len = self.lengths[index];
            self.stop_what_is_over_budget(len, start.elapsed().saturating_sub(compiling))?;
            let steps = (self.lengths.len() - index) * self.active.len() * 2;
            self.bar.set_length(self.bar.position() + steps as u64);
            let mut outcomes = self.measure(len);
            let of = |name: &str| {
                let (_, outcome) = outcomes.iter().find(|(variant, _)| variant.name == name)?;
                outcome.as_ref().ok().map(|(record, _)| record.ns_per_element())
            };
            let softmax = ["softmax", "softmax_backward"].map(of);
            for (variant, outcome) in &mut outcomes {
                match outcome {
                    Ok((record, cost)) => {
                        compiling += record.checked.first_calls;
                        let softmax = softmax[usize::from(variant.is_backward)];
                        record.relative = softmax.map(|softmax| record.ns_per_element() / softmax);
                        self.print(&table::line(&COLUMNS, variant.name, self.name_width, &cells_of(record)))?;
                        self.records.push(record.clone());
                        self.costs.insert(variant.name, *cost);
                    }
                    Err(failure) => {
                        self.print(&table::failure(variant.name, len, failure, self.name_width))?;
                        let line = format!("{} at n = {len}: {failure}", variant.name);
                        match failure {
                            Failure::Failed(_) => self.failures.push(line),
                            // A top-k is refused where rows are short, and not where they are long.
                            Failure::Refused(_) => self.notes.push(line),
                        }
                    }
                }
            }
            if !outcomes.is_empty() {
                self.print("")?;
            }
        }
        self.bar.finish_and_clear();
        Ok(())
    }

    /// A line on standard output, clear of the progress bar.
    fn print(&self, line: &str) -> Result<()> {
        self.bar.suspend(|| writeln!(std::io::stdout(), "{line}"))?;
        Ok(())
    }

    fn head(&self) -> Vec<String> {
        let own = [
            format!("tensors  {}", report::tensors(self.elements, self.dtype)),
            "columns  ms: median; x softmax: an element's time over that of softmax, backward over backward; GB/s: what the plan reads and writes (moved); % copy, % fma: of \
             the ceilings; checked: rows compared with the f64 twin; err: relative to the largest number of an output"
                .into(),
            String::new(),
            table::header(&COLUMNS, self.name_width),
        ];
        self.setting.head().into_iter().chain(own).collect()
    }

    fn stop_what_is_over_budget(&mut self, len: u32, spent: Duration) -> Result<()> {
        let Some(budget) = self.budget else { return Ok(()) };
        let predict = |variant: &&'static Variant| {
            let predicted = self.costs.get(variant.name).map(|cost| cost.at(len, self.samples));
            (variant.name, predicted.unwrap_or_default())
        };
        let Some(note) = schedule::stop(&mut self.active, predict, (len, budget), spent) else { return Ok(()) };
        self.print(&note)?;
        self.print("")?;
        self.notes.push(note);
        Ok(())
    }

    /// Every active variant at one length.
    fn measure(&self, len: u32) -> Vec<(&'static Variant, Outcome)> {
        let is_margin = |variant: &&&Variant| variant.op == Op::Margin;
        let context = &self.context;
        self.bar.set_message(format!("n = {len}: making tensors"));
        let rows = (self.elements / len).max(1);
        let tensors = Tensors::new(context, [rows, len], self.dtype);
        let margin = self.active.iter().find(is_margin).map(|_| MarginTensors::new(context, len, self.dtype));
        let set_up = |variant: &Variant| {
            let margin = margin.as_ref().map(Result::as_ref).transpose().map_err(Clone::clone);
            let tensors = tensors.as_ref().map_err(Clone::clone)?;
            let margin = if variant.op == Op::Margin { margin? } else { None };
            cell(context, variant, tensors, margin)
        };
        let cells: Vec<_> = self.active.iter().map(|&variant| (variant, set_up(variant))).collect();
        let clear = || {
            tensors.iter().for_each(|tensors| tensors.clear_outputs(context));
            margin.iter().flatten().for_each(|tensors| tensors.clear_outputs(context));
        };
        let mut ready: Vec<Result<Ready, Failure>> = Vec::new();
        for (variant, cell) in &cells {
            self.bar.set_message(format!("n = {len}: verifying {}", variant.name));
            ready.push(cell.as_ref().map_err(Clone::clone).and_then(|cell| {
                clear();
                cell.run_before(context)?;
                let checked = self.verify(&**cell, variant.rows(len, self.elements))?;
                Ok(Ready::new(checked, self.timer.warm_up(cell.prepare()?)?, self.samples))
            }));
            self.bar.inc(1);
        }
        turns::take(&mut ready, |round, rounds| {
            self.bar.set_message(format!("n = {len}: timing, sample {round} of {rounds}"));
        });
        self.bar.inc(self.active.len() as u64);
        let outcome = |(variant, ready): (&'static Variant, Result<Ready, Failure>)| {
            (variant, ready.map(|ready| self.outcome(variant, len, ready)))
        };
        cells.iter().map(|(variant, _)| *variant).zip(ready).map(outcome).collect()
    }

    /// Runs the call once and compares it with the twin, output by output, by the rule of the attention variants.
    fn verify(&self, cell: &dyn Cell, rows: u32) -> Result<Checked, Failure> {
        let start = Instant::now();
        let want = cell.twin(cell.shown(), Arithmetic::Truth)?;
        let mut twin_time = start.elapsed();

        let start = Instant::now();
        self.context.run(&cell.prepare_checked()?)?;
        let first_calls = start.elapsed();
        let got = cell.got(&self.context)?;

        let start = Instant::now();
        let naive = naive_errors(cell)?;
        twin_time += start.elapsed();
        let mut worst: Option<(Errors, Errors)> = None;
        for ((got, want), naive) in got.iter().zip(&want).zip(naive) {
            let allowance = Allowance { naive, ulps: cell.ulps(), products: [0.0; 2], dtype: want.stored };
            let absolute = allowance.judge(&got.of, &want.of)?;
            let relative = absolute.relative_to(largest(want.of.iter().copied()));
            if worst.is_none_or(|(_, worst)| relative.max > worst.max) {
                worst = Some((absolute, relative));
            }
        }
        let (absolute, relative) = worst.ok_or_else(|| Failure::Failed("nothing was compared".into()))?;
        let shown = cell.shown().len();
        Ok(Checked {
            rows: shown,
            all_rows: shown == rows as usize,
            absolute,
            relative,
            mean_entropy: None,
            twin_time,
            twin_work: cell.row_work() * shown as u64,
            by_matrices: false,
            first_calls,
        })
    }

    fn outcome(&self, variant: &'static Variant, len: u32, mut ready: Ready) -> (Record, Cost) {
        let record =
            Record::new(variant, [variant.rows(len, self.elements), len], self.dtype, &mut ready, &self.setting);
        // A cell has as many elements whatever the length is, but for a margin softmax, whose twin then has fewer rows.
        let slope = i32::from(variant.op == Op::Margin);
        let (twin, took) = (ready.checked.twin_time, ready.timed.took);
        (record, Cost { len, twin, twin_growth: f64::INFINITY, twin_slope: 0, took, slope })
    }
}

/// The largest errors of plain f32 over some of the rows, of each output.
fn naive_errors(cell: &dyn Cell) -> Result<Vec<f64>, Failure> {
    let shown = cell.shown();
    let [fewest, most] = NAIVE_RUNS;
    let count = (NAIVE_WORK / most / cell.row_work().max(1)) as usize;
    let rows: Vec<usize> = spread(shown.len(), count).into_iter().map(|index| shown[index]).collect();
    let runs = (NAIVE_WORK / (cell.row_work() * rows.len() as u64).max(1)).clamp(fewest, most);
    // The truth is made again: it may be of other rows than those compared, and sums over rows are then others.
    let of: Vec<Arithmetic> = std::iter::once(Arithmetic::Truth).chain((0..runs).map(Arithmetic::Naive)).collect();
    let twins = parallel::map(&of, usize::MAX, |&arithmetic| cell.twin(&rows, arithmetic));
    let twins: Vec<Vec<Numbers>> = twins.into_iter().collect::<wgpu_attention::Result<_>>()?;
    let worst = |output: usize| {
        let of = |twin: &Vec<Numbers>| largest(differences(&twin[output].of, &twins[0][output].of));
        twins[1..].iter().map(of).fold(0.0, f64::max)
    };
    Ok((0..twins[0].len()).map(worst).collect())
}
