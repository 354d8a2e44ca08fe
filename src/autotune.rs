//! A choice of kernels that measures (feature `blocking`).

mod judge;
mod subject;

use std::time::{Duration, Instant};

use crate::tuning::{TunedCase, Tuning};
use crate::{Context, DType, Prepared, Result, Timer};
use judge::{FEWEST_PAIRS, clearly_faster, median, ranked};
use subject::{Output, Subject, Tensors, agree, has_nan, is_fatal};

/// Declares [`TuningCase`].
macro_rules! cases {
    ($($module:ident: $op:ident($config:ident, $shapes:ident),)*) => {
        /// A call to measure: an op by its config, on contiguous tensors of these shapes, stored in this type as far as the
        /// op's `plan` stores them. `(config, shapes).into()` makes one of f32, `(config, shapes, dtype).into()` any.
        #[derive(Clone, Copy, Debug)]
        #[non_exhaustive]
        pub enum TuningCase {
            $(#[doc = concat!("[`", stringify!($op), "`](crate::", stringify!($op), ").")]
            $op(crate::$config, crate::$shapes, DType),)*
        }

        $(impl From<(crate::$config, crate::$shapes)> for TuningCase {
            fn from((config, shapes): (crate::$config, crate::$shapes)) -> Self {
                Self::$op(config, shapes, DType::F32)
            }
        }

        impl From<(crate::$config, crate::$shapes, DType)> for TuningCase {
            fn from((config, shapes, dtype): (crate::$config, crate::$shapes, DType)) -> Self {
                Self::$op(config, shapes, dtype)
            }
        })*

        impl TuningCase {
            fn subject(&self, context: &Context) -> Result<Subject> {
                match *self {
                    $(Self::$op(config, shapes, dtype) => Subject::of::<crate::$op>(context, config, shapes, dtype),)*
                }
            }
        }
    };
}

crate::for_all_ops!(cases);

/// How long [`Context::autotune`] may take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AutotuneOptions {
    /// For all cases together, which share it evenly, once the defaults are planned; it is looked at between calls, so that a
    /// slow one may pass it. Cases and candidates that it leaves no time for are left out. Default: 60 s.
    pub budget: Duration,
}

impl Default for AutotuneOptions {
    fn default() -> Self {
        Self { budget: Duration::from_secs(60) }
    }
}

/// What [`Context::autotune`] is about to do.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct AutotuneProgress<'a> {
    /// The case, counted from 0, and how many there are.
    pub case: usize,
    /// How many cases there are.
    pub cases: usize,
    /// The class of calls that the case stands for.
    pub class: &'a str,
    /// The candidate that is compiled, checked and tried, or none while the best are measured in turns.
    pub candidate: Option<&'a str>,
    /// Since the start.
    pub elapsed: Duration,
}

/// Of a case's time, what trying the candidates may take; the rest is for measuring the best.
const FOR_TRYING: f64 = 0.6;
/// Candidates that are measured in turns, and what each may take at its first trial, of the default's time.
const MOST_MEASURED: usize = 4;
const WORTH_MEASURING: f64 = 1.3;
/// Of a kernel that takes more than this at its first trial, nothing else is tried.
const SLOW: f64 = 2.0;
/// Rounds of all of them, and pairs that confirm the best.
const ROUNDS: usize = 9;
/// A sample holds as many calls as take this long: clocks are coarse, and passes have a start and an end.
const SAMPLE: Duration = Duration::from_millis(2);
const MOST_CALLS: u32 = 64;
/// Work above which a plan is submitted dispatch by dispatch: a watchdog counts a submit as a whole.
const LONG_FLOPS: u64 = 100_000_000_000;

impl Context {
    /// Measures on this device what kernels and tiles suit some calls, for [`with_tuning`](Self::with_tuning).
    ///
    /// For each case, candidates are run on random tensors. One whose result is not the default's (up to rounding)
    /// is dropped; the fastest are then timed in turns with the default, and the best again. It replaces the default where it
    /// takes at most 95 % of its time in the median of the pairs, and less in three of four of them, both times. What a tuning of this context
    /// holds already is kept, but for classes that are measured again.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use wgpu_attention::{AttentionConfig, AttentionShapes, AutotuneOptions, Causal, Context};
    ///
    /// # fn main() -> wgpu_attention::Result<()> {
    /// // When the app is installed, or starts for the first time:
    /// let context = Context::headless()?;
    /// let config = AttentionConfig::new().causal(Causal::BottomRight);
    /// let cases = [512, 1024, 2048].map(|len| (config, AttentionShapes::new(1, 8, len, 64)).into());
    /// let options = AutotuneOptions { budget: Duration::from_secs(20) };
    /// let tuning = context.autotune(&cases, &options, |progress| println!("{}", progress.class))?;
    /// // Store it (feature `serde`), and take it here and in later runs:
    /// let context = context.with_tuning(tuning)?;
    /// # let _ = context;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Whatever `plan` says of a case, before anything is measured; [`Error::Buffer`](crate::Error::Buffer) where its tensors do
    /// not fit the device; [`Error::DeviceLost`](crate::Error::DeviceLost); [`Error::Readback`](crate::Error::Readback).
    pub fn autotune(
        &self,
        cases: &[TuningCase],
        options: &AutotuneOptions,
        mut progress: impl FnMut(&AutotuneProgress<'_>),
    ) -> Result<Tuning> {
        let untuned = self.untuned();
        let subjects = cases.iter().map(|case| case.subject(&untuned)).collect::<Result<Vec<_>>>()?;
        let timer = Timer::new(&untuned);
        let start = Instant::now();
        let info = self.device().adapter_info();
        let mut tuning = self.tuning().cloned().unwrap_or_else(|| Tuning::new(&info));
        for (case, subject) in subjects.iter().enumerate() {
            let left = options.budget.saturating_sub(start.elapsed());
            let share = left / (subjects.len() - case) as u32;
            let before = subjects[..case].iter().any(|other| other.class == subject.class);
            if share.is_zero() || before || subject.operands.is_empty() {
                continue;
            }
            let tell = |candidate: Option<&str>| {
                let (cases, class, elapsed) = (subjects.len(), subject.class.as_str(), start.elapsed());
                progress(&AutotuneProgress { case, cases, class, candidate, elapsed });
            };
            let bench = Bench { untuned: &untuned, timer: &timer, subject, start: Instant::now(), share };
            tuning.insert(subject.class.clone(), bench.measure(tell)?);
        }
        Ok(tuning)
    }
}

/// A case that is being measured.
struct Bench<'a> {
    untuned: &'a Context,
    timer: &'a Timer,
    subject: &'a Subject,
    start: Instant,
    share: Duration,
}

/// A candidate that gave the right result.
struct Candidate<'a> {
    name: &'a str,
    prepared: Prepared<'a>,
    first: Duration,
}

impl Bench<'_> {
    fn measure(&self, mut tell: impl FnMut(Option<&str>)) -> Result<TunedCase> {
        let Self { untuned, subject, .. } = self;
        let tensors = Tensors::new(untuned, &subject.operands)?;
        let mut case = TunedCase::default();
        let (mut default, mut want) = self.call(&tensors, None)?;
        // Where subgroups are not of the size that the plan was told (`MatrixSubgroups`), the first kernel with which they are is the
        // default.
        let mut names = subject.offers.iter().flatten();
        while subject.in_f16 && has_nan(&want) {
            let Some(name) = names.next() else {
                case.wrong = subject.offers.iter().map(Vec::len).sum::<usize>() as u32;
                return Ok(case);
            };
            match self.call(&tensors, Some(name)) {
                Ok(call) => (default, want) = call,
                Err(error) if is_fatal(&error) => return Err(error),
                Err(_) => continue,
            }
            case.kernel = (!has_nan(&want)).then(|| name.clone());
        }
        let once = self.sample(&default, 1)?;
        let once = once.min(self.sample(&default, 1)?);
        let calls = (SAMPLE.as_secs_f64() / once.as_secs_f64().max(1e-9)).ceil().clamp(1.0, MOST_CALLS.into()) as u32;

        let mut candidates: Vec<Candidate<'_>> = Vec::new();
        // Every kernel as the plan would use it, before the first on other terms: time may end before the candidates do.
        let rounds = subject.offers.iter().map(Vec::len).max().unwrap_or(0);
        let mut slow = vec![false; subject.offers.len()];
        for (group, name) in (0..rounds).flat_map(|round| {
            subject.offers.iter().enumerate().filter_map(move |(group, names)| Some((group, names.get(round)?)))
        }) {
            // Two calls by it, were it no faster than the default.
            let over = self.start.elapsed() + 2 * once > self.share.mul_f64(FOR_TRYING);
            if over || slow[group] {
                case.left_out += 1;
                continue;
            }
            tell(Some(name));
            let (prepared, got) = match self.call(&tensors, Some(name)) {
                Ok(tried) => tried,
                Err(error) if is_fatal(&error) => return Err(error),
                Err(_) => {
                    case.refused += 1;
                    continue;
                }
            };
            if !agree(subject.in_f16, &want, &got) {
                case.wrong += 1;
                continue;
            }
            case.measured += 1;
            let first = self.sample(&prepared, 1)?;
            slow[group] = first > once.mul_f64(SLOW);
            candidates.push(Candidate { name, prepared, first });
        }
        candidates.sort_by_key(|candidate| candidate.first);
        candidates.truncate(MOST_MEASURED);
        candidates.retain(|candidate| candidate.first <= once.mul_f64(WORTH_MEASURING));
        tell(None);

        let all: Vec<&Prepared<'_>> =
            std::iter::once(&default).chain(candidates.iter().map(|candidate| &candidate.prepared)).collect();
        let times = self.in_turns(&all, calls)?;
        case.default_ms = milliseconds(median(&times[0]));
        case.tuned_ms = case.default_ms;
        // The best of several is the luckiest too: it has to win again.
        for (tries, best) in ranked(&times[0], &times[1..]).into_iter().enumerate() {
            if tries > 0 && self.start.elapsed() > self.share {
                break;
            }
            let Candidate { name, prepared, .. } = &candidates[best];
            let again = self.in_turns(&[&default, prepared], calls)?;
            if clearly_faster(&again[0], &again[1]).is_some() {
                case.kernel = Some((*name).to_string());
                [case.default_ms, case.tuned_ms] = [0, 1].map(|which| milliseconds(median(&again[which])));
                break;
            }
        }
        Ok(case)
    }

    /// A call by what is named, or else by the default, and its results.
    fn call<'a>(&self, tensors: &'a Tensors, name: Option<&str>) -> Result<(Prepared<'a>, Vec<Output>)> {
        let Self { untuned, subject, .. } = self;
        let tuning = name.map(|name| Tuning::naming(&untuned.device().adapter_info(), &subject.class, name));
        let context = untuned.tuned_by(tuning);
        let prepared = tensors.prepare(&context, (subject.plan)(&context)?);
        let results = tensors.results(&context, &prepared)?;
        Ok((prepared, results))
    }

    /// Times of several calls, one after the other and then backwards, and so on; fewer rounds where time runs out.
    fn in_turns(&self, calls: &[&Prepared<'_>], repeats: u32) -> Result<Vec<Vec<Duration>>> {
        let mut times = vec![Vec::new(); calls.len()];
        for round in 0..ROUNDS {
            if round >= FEWEST_PAIRS && self.start.elapsed() > self.share {
                break;
            }
            for turn in 0..calls.len() {
                let which = if round % 2 == 0 { turn } else { calls.len() - 1 - turn };
                times[which].push(self.sample(calls[which], repeats)?);
            }
        }
        Ok(times)
    }

    /// Device time of one call; the mean of several in one pass.
    fn sample(&self, prepared: &Prepared<'_>, repeats: u32) -> Result<Duration> {
        let plan = prepared.plan();
        if plan.flops() <= LONG_FLOPS || plan.dispatches() == 1 {
            let pass = self.timer.pass(|pass| (0..repeats).for_each(|_| prepared.record_in(pass)))?;
            return Ok(pass / repeats);
        }
        let workspace = prepared.workspace()?;
        let time = |piece| {
            let mut recorded = Ok(());
            let took = self.timer.pass(|pass| recorded = prepared.record_piece(pass, piece, &workspace))?;
            recorded.map(|()| took)
        };
        (0..plan.dispatches()).map(time).sum()
    }
}

/// In whole nanoseconds, so that a text of it is short and gives the same number back.
fn milliseconds(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1e6
}
