//! The check of a result against the twin, before it is timed.

use std::time::{Duration, Instant};

use wgpu_attention::{Context, Result};

use super::case::{Arithmetic, Case, Part, Twin};
use super::tensors::{Tensors, elements};
use super::{Failure, parallel};

/// Multiply-adds of the twin within which every row is compared: about half a second of one core.
const WORK_FOR_ALL: u64 = 1 << 28;
/// Multiply-adds of the naive runs of one case.
const NAIVE_WORK: u64 = 1 << 27;
const NAIVE_RUNS: u64 = 8;
const NAIVE_PARTS: std::ops::RangeInclusive<u64> = 2..=64;
/// Bytes that all twins together may hold, if each alone can.
const TWIN_MEMORY: u64 = 1 << 30;
/// One unit in the last place, relative.
const ULP: f64 = f32::EPSILON as f64;
const DIVISION_ULPS: f64 = 2.5;
const RMS_RATIO: f64 = 1e-5;
/// WGSL's log is within 2⁻²¹ near 1, in absolute terms; the entropy has one, and a quotient that is subtracted.
const LOG_ERROR: f64 = 1.0 / (1 << 20) as f64;

/// What was compared, and how near it came.
#[derive(Clone, Copy, Debug)]
pub struct Checked {
    pub rows: usize,
    pub all_rows: bool,
    /// Largest |got − want|.
    pub max_abs_err: f64,
    /// Root mean square of got − want.
    pub rms_err: f64,
    /// What `max_abs_err` was allowed to be.
    pub allowed: f64,
    /// Over all rows, in nats.
    pub mean_entropy: Option<f64>,
    /// What the twin took.
    pub twin_time: Duration,
    /// What planning, compiling and the first calls took.
    pub first_calls: Duration,
}

impl std::fmt::Display for Checked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { rows, max_abs_err, rms_err, allowed, twin_time, first_calls, .. } = self;
        let rows = if self.all_rows { "all rows".into() } else { format!("{rows} rows") };
        write!(f, "{rows} within {max_abs_err:.1e} of the twin (rms {rms_err:.1e}; allowed {allowed:.1e})")?;
        if let Some(entropy) = self.mean_entropy {
            write!(f, ", mean row entropy {entropy:.3} nat")?;
        }
        write!(f, "; twin {twin_time:.1?}, first calls {first_calls:.1?}")
    }
}

/// What the twin says, and how far off plain f32 arithmetic is.
struct Expected {
    parts: Vec<Part>,
    o: Vec<f64>,
    entropy: Vec<f64>,
    naive_o_err: f64,
    naive_entropy_err: f64,
    /// Relative error that WGSL grants exp and division.
    floor: f64,
}

impl Expected {
    fn new(case: &dyn Case) -> Result<Self> {
        let parts = case.parts(WORK_FOR_ALL);
        let threads = (TWIN_MEMORY / parts.iter().map(|part| part.memory).max().unwrap_or(0).max(1)) as usize;
        let truth = parallel::map(&parts, threads, |part| case.twin(part, Arithmetic::Truth));
        let truth: Vec<Twin> = truth.into_iter().collect::<Result<_>>()?;

        let part_work = parts.iter().map(|part| part.work).max().unwrap_or(1);
        let count = (NAIVE_WORK / NAIVE_RUNS / part_work.max(1)).clamp(*NAIVE_PARTS.start(), *NAIVE_PARTS.end());
        let step = parts.len().div_ceil(count as usize).max(1);
        let runs: Vec<(usize, u64)> =
            (0..parts.len()).step_by(step).flat_map(|part| (0..NAIVE_RUNS).map(move |seed| (part, seed))).collect();
        let naive = parallel::map(&runs, threads, |&(part, seed)| case.twin(&parts[part], Arithmetic::Naive(seed)));
        let (mut naive_o_err, mut naive_entropy_err) = (0f64, 0f64);
        for (&(part, _), naive) in runs.iter().zip(naive) {
            let naive = naive?;
            naive_o_err = naive_o_err.max(largest(differences(&naive.o, &truth[part].o)));
            naive_entropy_err = naive_entropy_err.max(largest(differences(&naive.entropy, &truth[part].entropy)));
        }
        let exp_ulps = truth.iter().map(|twin| case.exp_ulps(twin)).fold(0.0, f64::max);
        Ok(Self {
            o: truth.iter().flat_map(|twin| twin.o.iter().copied()).collect(),
            entropy: truth.iter().flat_map(|twin| twin.entropy.iter().copied()).collect(),
            parts,
            naive_o_err,
            naive_entropy_err,
            floor: (exp_ulps + DIVISION_ULPS) * ULP,
        })
    }

    /// Largest and root mean square error, and what the largest may be.
    fn check_output(&self, got: &[f64]) -> Result<[f64; 3], Failure> {
        let want = &self.o;
        let allowed = 2.0 * self.naive_o_err + self.floor * largest(want.iter().copied());
        let rms_allowed = (RMS_RATIO + self.floor) * root_mean_square(want.iter().copied());
        let max_abs_err = largest(differences(got, want));
        let rms_err = root_mean_square(differences(got, want));
        if max_abs_err <= allowed && rms_err <= rms_allowed {
            return Ok([max_abs_err, rms_err, allowed]);
        }
        let worst = differences(got, want).enumerate().max_by(|a, b| f64::total_cmp(&a.1.abs(), &b.1.abs()));
        let (got, want) = worst.map_or((0.0, 0.0), |(index, _)| (got[index], want[index]));
        Err(Failure::Failed(format!(
            "differs from the twin by {max_abs_err:.2e} (allowed {allowed:.2e}), rms {rms_err:.2e} (allowed \
             {rms_allowed:.2e}); worst: got {got}, want {want}"
        )))
    }

    fn check_entropy(&self, got: &[f64]) -> Result<(), Failure> {
        let highest = largest(self.entropy.iter().copied());
        let allowed = 2.0 * self.naive_entropy_err + LOG_ERROR + self.floor * (1.0 + highest);
        let off = largest(differences(got, &self.entropy));
        if off <= allowed {
            return Ok(());
        }
        Err(Failure::Failed(format!("row entropy differs from the twin by {off:.2e} (allowed {allowed:.2e})")))
    }
}

/// Runs the call once and compares it with the twin.
///
/// The largest error may be twice the worst of eight naive f32 runs with shuffled sums, plus what WGSL grants exp and
/// division; the root mean square, relative to that of the truth, 1e-5 plus the same.
pub fn verify(context: &Context, case: &dyn Case, tensors: &Tensors) -> Result<Checked, Failure> {
    let start = Instant::now();
    let expected = Expected::new(case)?;
    let twin_time = start.elapsed();

    tensors.clear_outputs(context);
    let start = Instant::now();
    context.run(&case.prepare()?)?;
    let mut first_calls = start.elapsed();
    let got = gather(&context.download(&tensors.o)?, tensors, &expected.parts);
    let [max_abs_err, rms_err, allowed] = expected.check_output(&got)?;

    let start = Instant::now();
    let mean_entropy = match case.prepare_with_entropy() {
        Some(prepared) => {
            context.run(&prepared?)?;
            first_calls += start.elapsed();
            let all = context.download(&tensors.entropy)?;
            let rows = expected.parts.iter().flat_map(|part| row_indices(tensors, part));
            expected.check_entropy(&rows.map(|row| f64::from(all[row])).collect::<Vec<_>>())?;
            Some(all.iter().map(|&entropy| f64::from(entropy)).sum::<f64>() / all.len() as f64)
        }
        None => None,
    };
    let all_rows = got.len() == elements(tensors.shape.q());
    let rows = expected.parts.iter().map(|part| part.rows.len()).sum();
    Ok(Checked { rows, all_rows, max_abs_err, rms_err, allowed, mean_entropy, twin_time, first_calls })
}

/// Indices of a part's rows in `[batch, q_heads, q_len]`.
fn row_indices(tensors: &Tensors, part: &Part) -> impl Iterator<Item = usize> {
    let [_, heads, len] = tensors.shape.rows().map(|extent| extent as usize);
    let first = (part.head[0] * heads + part.head[1]) * len;
    part.rows.iter().map(move |row| first + row)
}

fn gather(o: &[f32], tensors: &Tensors, parts: &[Part]) -> Vec<f64> {
    let width = tensors.shape.head_dim as usize;
    let rows = parts.iter().flat_map(|part| row_indices(tensors, part));
    rows.flat_map(|row| o[row * width..(row + 1) * width].iter().map(|&value| f64::from(value))).collect()
}

/// NaN counts as infinitely far.
fn differences<'a>(got: &'a [f64], want: &'a [f64]) -> impl Iterator<Item = f64> + 'a {
    got.iter().zip(want).map(|(got, want)| if got.is_finite() { got - want } else { f64::INFINITY })
}

fn largest(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().fold(0.0, |largest, value| value.abs().max(largest))
}

fn root_mean_square(values: impl Iterator<Item = f64>) -> f64 {
    let (count, sum) = values.fold((0u64, 0.0), |(count, sum), value| (count + 1, sum + value * value));
    (sum / count.max(1) as f64).sqrt()
}
