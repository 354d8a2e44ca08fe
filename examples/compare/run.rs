//! The run itself: length by length, verify every variant, then time them in turns, then print.

use std::collections::HashMap;
use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use wgpu_attention::{AutotuneOptions, Context, DType, wgpu};

use crate::backward;
use crate::ceilings::Ceilings;
use crate::decode;
use crate::harness::Failure;
use crate::harness::case::{Case, case};
use crate::harness::gradients::Gradients;
use crate::harness::stored;
use crate::harness::tensors::{HostTensors, Shape, Tensors};
use crate::harness::timer::{Timed, Timer, median};
use crate::harness::variants::{VARIANTS, Variant};
use crate::harness::verify::verify;
use crate::minilm::{self, MiniLm};
use crate::options::{Data, Options, Sizes};
use crate::record::{Record, Setting};
use crate::schedule::{self, Cost};
use crate::table;
use crate::tier::Tier;
use crate::turns::{self, Ready};

/// Seconds for a run with default lengths.
const BUDGET_ON_CPU: f64 = 60.0;
const BUDGET_ON_GPU: f64 = 120.0;

/// A whole comparison and what comes of it.
pub struct Comparison {
    context: Context,
    /// The same with what autotune has chosen so far.
    pub tuned: Context,
    /// For a case.
    autotune: Option<Duration>,
    timer: Timer,
    /// What every length is run with.
    layouts: Vec<Sizes>,
    causal: bool,
    /// One query a sequence.
    decode: bool,
    /// Gradients.
    backward: bool,
    dtype: DType,
    samples: Option<u32>,
    lengths: Vec<u32>,
    budget: Option<Duration>,
    minilm: Option<MiniLm>,
    /// Those that have not stopped.
    active: Vec<&'static Variant>,
    costs: HashMap<&'static str, Cost>,
    bar: ProgressBar,
    name_width: usize,
    pub setting: Setting,
    pub records: Vec<Record>,
    /// Wrong results and errors of drivers.
    pub failures: Vec<String>,
    /// What was not run, and why.
    pub notes: Vec<String>,
}

/// What came of a variant at one length.
type Outcome = Result<(Record, Cost), Failure>;

/// A variant, set up, or why not.
type Prepared<'t> = (Run, Result<Box<dyn Case + 't>, Failure>);

/// A variant, by the default kernels or by those that autotune took.
#[derive(Clone, Copy)]
struct Run {
    variant: &'static Variant,
    tuned: bool,
}

impl Comparison {
    pub fn new(context: Context, tier: Tier, options: &Options) -> Result<Self> {
        let (active, layouts) = (options.chosen()?, options.layouts()?);
        let info = context.device().adapter_info();
        let on_cpu = info.device_type == wgpu::DeviceType::Cpu;
        let (default_lengths, default_budget) = match options.data {
            Data::Minilm => (minilm::LENS, None),
            _ if options.backward => (if on_cpu { backward::ON_CPU } else { backward::ON_GPU }, Some(backward::BUDGET)),
            Data::Random if on_cpu => (schedule::ON_CPU, Some(BUDGET_ON_CPU)),
            Data::Random => (schedule::ON_GPU, Some(BUDGET_ON_GPU)),
        };
        let refused = VARIANTS.iter().filter(|_| options.backward && options.variants.iter().any(|name| name == "all"));
        let refused = refused.filter_map(|variant| Some((variant.name, variant.without_gradients()?)));
        let notes = refused.map(|(name, reason)| format!("{name} was not run: {reason}.")).collect();
        let mut lengths = options.seq_lens.clone();
        lengths.sort_unstable();
        lengths.dedup();
        let default_budget = default_budget.filter(|_| lengths.is_empty());
        if lengths.is_empty() {
            lengths = if options.decode { decode::LENGTHS.into() } else { schedule::doubling(default_lengths) };
        }
        let timer = Timer::new(&context);
        let setting = Setting::new(&info, timer.name(), options.data.name(), tier);
        let bar = ProgressBar::new(0);
        bar.set_style(ProgressStyle::with_template("{bar:24} {elapsed} {wide_msg}")?);
        bar.enable_steady_tick(Duration::from_millis(500));
        Ok(Self {
            timer,
            layouts,
            causal: options.causal,
            decode: options.decode,
            backward: options.backward,
            dtype: options.dtype.into(),
            autotune: options.autotune.map(Duration::from_secs_f64),
            tuned: context.clone(),
            samples: options.samples,
            lengths,
            budget: options.budget.or(default_budget).map(Duration::from_secs_f64),
            minilm: (options.data == Data::Minilm).then(MiniLm::open).transpose()?,
            name_width: active.iter().map(|variant| variant.name.len()).max().unwrap_or(0)
                + if options.autotune.is_some() { ", tuned: 0.00 x".len() } else { 0 },
            active,
            costs: HashMap::new(),
            bar,
            setting,
            records: Vec::new(),
            failures: Vec::new(),
            notes,
            context,
        })
    }

    /// Measures everything, printing as it goes.
    pub fn run(&mut self) -> Result<()> {
        self.bar.set_message("measuring the ceilings");
        match Ceilings::measure(&self.context, &self.timer, None) {
            Ok(ceilings) => self.setting.ceilings = Some(ceilings),
            Err(Failure::Failed(reason)) => self.failures.push(format!("ceilings: {reason}")),
            Err(Failure::Refused(reason)) => self.notes.push(format!("ceilings: {reason}")),
        }
        let start = Instant::now();
        // Some drivers take seconds for a kernel, at its first call and never again: no part of the budget.
        let mut compiling = Duration::ZERO;
        for line in self.notes.iter().chain(&self.head()) {
            self.print(line)?;
        }
        let of_length = |&len: &u32| self.layouts.iter().map(move |&sizes| (len, sizes));
        let rounds: Vec<(u32, Sizes)> = self.lengths.iter().flat_map(of_length).collect();
        for (index, &(len, sizes)) in rounds.iter().enumerate() {
            self.stop_what_is_over_budget(len, start.elapsed().saturating_sub(compiling))?;
            let steps = (rounds.len() - index) * self.active.len() * 2;
            self.bar.set_length(self.bar.position() + steps as u64);
            let (mut outcomes, tuning) = self.measure(len, sizes);
            compiling += tuning;

            let default = |name| {
                let mut runs = outcomes.iter().filter(|(run, _)| !run.tuned && run.variant.name == name);
                runs.next().and_then(|(_, outcome)| outcome.as_ref().ok().map(|(record, _)| record.median_ms))
            };
            let softmax = default("softmax");
            let defaults: Vec<Option<f64>> = outcomes.iter().map(|(run, _)| default(run.variant.name)).collect();
            for ((Run { variant, tuned }, outcome), default) in outcomes.iter_mut().zip(defaults) {
                match outcome {
                    Ok((record, cost)) => {
                        compiling += record.checked.first_calls;
                        record.relative = softmax.map(|softmax| record.median_ms / softmax);
                        record.relative_to_default =
                            default.filter(|_| *tuned).map(|default| record.median_ms / default);
                        let cells = match (self.decode, self.backward) {
                            (true, _) => decode::cells(record).to_vec(),
                            (_, true) => backward::cells(record).to_vec(),
                            _ => table::cells(record).to_vec(),
                        };
                        self.print(&table::line(self.columns(), &record.name(), self.name_width, &cells))?;
                        self.records.push(record.clone());
                        if !*tuned {
                            self.costs.insert(variant.name, *cost);
                        }
                    }
                    Err(failure) => {
                        self.print(&table::failure(variant.name, len, failure, self.name_width))?;
                        let name = if *tuned { format!("{}, tuned", variant.name) } else { variant.name.into() };
                        let line = format!("{name} at n = {len}: {failure}");
                        match failure {
                            Failure::Failed(_) => self.failures.push(line),
                            Failure::Refused(_) => self.notes.push(line),
                        }
                        // What failed or was refused at this length will be at the next.
                        self.active.retain(|other| other.name != variant.name);
                    }
                }
            }
            if !outcomes.is_empty() {
                self.print("")?;
            }
        }
        self.bar.finish_and_clear();
        if let Some(tuning) = self.tuned.tuning() {
            let classes = tuning.cases().count();
            let others = tuning.cases().filter(|(_, case)| case.kernel.is_some()).count();
            let note = format!(
                "Autotune took another kernel for {others} of {classes} classes of calls; for the rest the default stays."
            );
            self.print(&note)?;
            self.notes.push(note);
        }
        Ok(())
    }

    /// A line on standard output, clear of the progress bar.
    pub fn print(&self, line: &str) -> Result<()> {
        self.bar.suspend(|| writeln!(std::io::stdout(), "{line}"))?;
        Ok(())
    }

    fn columns(&self) -> &'static [(&'static str, usize)] {
        match (self.decode, self.backward) {
            (true, _) => &decode::COLUMNS,
            (_, true) => &backward::COLUMNS,
            _ => &table::COLUMNS,
        }
    }

    fn head(&self) -> Vec<String> {
        let Sizes { batch, heads, kv_heads, head_dim } = self.layouts[0];
        let dtype = stored::name(self.dtype);
        let tensors = match (self.decode, self.causal) {
            (true, _) => decode::tensors(batch, head_dim, self.dtype),
            (false, causal) => {
                let mask = if causal { "causal" } else { "every key visible" };
                format!("{batch} x {heads} heads x n x {head_dim}, {dtype}, {kv_heads} key and value heads, {mask}")
            }
        };
        let cache = if self.decode { decode::CACHE } else { "GB/s: the tensors moved once" };
        let columns = match self.backward {
            true => backward::MEANING.into(),
            false => format!(
                "columns  ms: median; {cache}; % fma, % copy: of the ceilings; rows: compared with the f64 twin; err: relative to \
                 the largest |o| of these; entropy: mean of a row, nat"
            ),
        };
        let own = [
            format!("tensors  {tensors}, {}", self.setting.data_in_words()),
            columns,
            String::new(),
            table::header(self.columns(), self.name_width),
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

    /// Every active variant at one length, and how long autotune took.
    fn measure(&mut self, len: u32, sizes: Sizes) -> (Vec<(Run, Outcome)>, Duration) {
        let Sizes { batch, heads, kv_heads, head_dim } = sizes;
        let (causal, dtype, matrices) = (self.causal, self.dtype, self.setting.tier.matrices());
        let q_len = if self.decode { 1 } else { len };
        let shape = Shape { batch, heads, kv_heads, q_len, causal, dtype, matrices, ..Shape::new(len, head_dim) };
        let runs: Vec<Run> = self.active.iter().map(|&variant| Run { variant, tuned: false }).collect();
        if runs.is_empty() {
            return (Vec::new(), Duration::ZERO);
        }
        let tensors = match self.tensors(shape) {
            Ok(tensors) => tensors,
            Err(failure) => return (runs.into_iter().map(|run| (run, Err(failure.clone()))).collect(), Duration::ZERO),
        };
        if self.backward {
            return (self.measure_gradients(&runs, &tensors), Duration::ZERO);
        }
        let prepared = |context: &Context, run: Run| (run, case(context, run.variant, &tensors).map_err(Failure::from));
        let mut cases: Vec<Prepared<'_>> = runs.iter().map(|&run| prepared(&self.context, run)).collect();
        let start = Instant::now();
        for index in (0..runs.len()).rev() {
            let Ok(case) = &cases[index].1 else { continue };
            let run = Run { tuned: true, ..runs[index] };
            match self.takes_another_kernel(len, run.variant, &**case) {
                Ok(false) => {}
                Ok(true) => cases.insert(index + 1, prepared(&self.tuned, run)),
                Err(failure) => cases.insert(index + 1, (run, Err(failure))),
            }
        }
        let tuning = start.elapsed();

        let mut ready: Vec<Result<Ready, Failure>> = Vec::new();
        for (run, case) in &cases {
            self.bar.set_message(format!("n = {len}: verifying {}", run.variant.name));
            ready.push(case.as_ref().map_err(Clone::clone).and_then(|case| self.ready(&**case, &tensors)));
            self.bar.inc(1);
        }
        self.take(len, &mut ready);
        let ceilings = self.setting.ceilings.as_ref();
        let outcomes = cases.iter().zip(ready).map(|((run, case), ready)| {
            let cache = case.as_ref().ok().filter(|_| shape.is_decoding()).map(|case| case.cache_bytes(&shape));
            (*run, ready.map(|ready| outcome(ready, *run, shape, cache, ceilings)))
        });
        (outcomes.collect(), tuning)
    }

    /// The gradients of variants, and their forward passes, all in turns.
    fn measure_gradients(&self, runs: &[Run], tensors: &Tensors) -> Vec<(Run, Outcome)> {
        let shape = tensors.shape;
        let gradients: Vec<Result<Gradients, Failure>> =
            runs.iter().map(|run| Gradients::new(&self.context, run.variant, tensors)).collect();
        // Of each variant backward, then forward.
        let mut ready: Vec<Result<Ready, Failure>> = Vec::new();
        for (run, gradients) in runs.iter().zip(&gradients) {
            self.bar.set_message(format!("n = {}: verifying {}", shape.len, run.variant.name));
            let passes = gradients.as_ref().map_err(Clone::clone).and_then(|gradients| {
                let checked = gradients.verify(&self.context)?;
                let passes = [self.timer.warm_up(gradients.backward()?)?, self.timer.warm_up(gradients.forward()?)?];
                Ok(passes.map(|timed| Ok(Ready::new(checked, timed, self.samples))))
            });
            ready.extend(passes.unwrap_or_else(|failure| [Err(failure.clone()), Err(failure)]));
            self.bar.inc(1);
        }
        self.take(shape.len, &mut ready);
        let (mut ready, ceilings) = (ready.into_iter(), self.setting.ceilings.as_ref());
        let mut both = || Some((ready.next()?, ready.next()?));
        let of_run = |&run: &Run| {
            let (backward, forward) = both()?;
            let outcome = forward.and_then(|mut forward| {
                let (record, cost) = outcome(backward?, run, shape, None, ceilings);
                let forward_ms = Some(1e3 * median(&mut forward.samples).as_secs_f64());
                Ok((Record { forward_ms, ..record }, cost))
            });
            Some((run, outcome))
        };
        runs.iter().filter_map(of_run).collect()
    }

    fn take(&self, len: u32, ready: &mut [Result<Ready, Failure>]) {
        turns::take(ready, |round, rounds| {
            self.bar.set_message(format!("n = {len}: timing, sample {round} of {rounds}"));
        });
        self.bar.inc(self.active.len() as u64);
    }

    /// Autotunes a case, if asked to: whether the plan with what it chose differs from the default.
    fn takes_another_kernel(&mut self, len: u32, variant: &Variant, case: &dyn Case) -> Result<bool, Failure> {
        let (Some(budget), Some(tuning_case)) = (self.autotune, case.tuning_case()) else { return Ok(false) };
        let mut class = String::new();
        let tuning = self.tuned.autotune(&[tuning_case], &AutotuneOptions { budget }, |progress| {
            let what = progress.candidate.unwrap_or("the best in turns");
            self.bar.set_message(format!("n = {len}: tuning {}: {what}", variant.name));
            class = progress.class.into();
        })?;
        let another = tuning.cases().any(|(of, case)| of == class && case.kernel.is_some());
        self.tuned = self.tuned.with_tuning(tuning)?;
        Ok(another)
    }

    fn tensors(&self, shape: Shape) -> Result<Tensors, Failure> {
        self.bar.set_message(format!("n = {}: making tensors", shape.len));
        if self.backward {
            return Gradients::tensors(&self.context, shape);
        }
        Tensors::check(&self.context, &shape)?;
        let host = match &self.minilm {
            Some(file) => file.tensors(&shape).map_err(|error| Failure::Failed(format!("{error:#}")))?,
            None => HostTensors::random(&shape),
        };
        Tensors::upload(&self.context, shape, host)
    }

    fn ready<'t, 'a>(&'t self, case: &'a (dyn Case + 'a), tensors: &Tensors) -> Result<Ready<'t, 'a>, Failure> {
        let checked = verify(&self.context, case, tensors)?;
        let timed = self.timer.warm_up(case.prepare()?)?;
        Ok(Ready::new(checked, timed, self.samples))
    }
}

fn outcome(
    mut ready: Ready,
    Run { variant, tuned }: Run,
    shape: Shape,
    cache_bytes: Option<u64>,
    ceilings: Option<&Ceilings>,
) -> (Record, Cost) {
    let median = median(&mut ready.samples);
    let Timed { call, took, .. } = &ready.timed;
    let percent = ceilings.map(|ceilings| ceilings.percent(call.flops(), call.bytes, median));
    let record = Record {
        variant: variant.name,
        tuned,
        relative_to_default: None,
        shape,
        samples: ready.samples.len(),
        median_ms: 1e3 * median.as_secs_f64(),
        min_ms: 1e3 * ready.samples[0].as_secs_f64(),
        tflops: call.flops() as f64 / median.as_secs_f64() * 1e-12,
        gbps: call.bytes as f64 / median.as_secs_f64() * 1e-9,
        workspace_bytes: call.workspace_bytes(),
        tensor_bytes: call.bytes,
        cache_bytes,
        dispatches: call.dispatches(),
        kernel: call.kernel(),
        checked: ready.checked,
        forward_ms: None,
        relative: None,
        of_fma: percent.map(|[of_fma, _]| of_fma),
        of_copy: percent.map(|[_, of_copy]| of_copy),
    };
    let cost = Cost::new(variant, &shape, &ready.checked, *took);
    (record, cost)
}
