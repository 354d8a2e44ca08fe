//! The check of a result against the twin, before it is timed.

use std::time::{Duration, Instant};

use wgpu_attention::{Context, DType, Result};

use super::case::{Arithmetic, Case, Part, Twin};
use super::stored::rounding;
use super::tensors::{Tensors, elements};
use super::{Failure, parallel};

/// Multiply-adds of the twin within which every row is compared: about a quarter of a second of one core.
pub const WORK_FOR_ALL: u64 = 1 << 27;
/// Multiply-adds of the naive runs of one case.
const NAIVE_WORK: u64 = 1 << 26;
const NAIVE_RUNS: u64 = 8;
const NAIVE_PARTS: std::ops::RangeInclusive<u64> = 1..=64;
/// Bytes that all twins together may hold, if each alone can.
pub const TWIN_MEMORY: u64 = 1 << 30;
/// One unit in the last place, relative.
const ULP: f64 = f32::EPSILON as f64;
const DIVISION_ULPS: f64 = 2.5;
const RMS_RATIO: f64 = 1e-5;
/// Products whose factors are rounded to f16, each by up to 2⁻¹¹ at random: relative to the largest number, to the root mean
/// square, and of a row's entropy in absolute terms.
const F16_PRODUCTS: [f64; 3] = [2e-2, 2e-3, 4e-3];
/// The same of the gradients of one tensor, the first two.
pub const F16_GRADIENTS: [f64; 2] = [4e-3, 2e-3];
/// WGSL's log is within 2⁻²¹ near 1, in absolute terms; the entropy has one, and a quotient that is subtracted.
const LOG_ERROR: f64 = 1.0 / (1 << 20) as f64;

/// What was compared, and how near it came.
#[derive(Clone, Copy, Debug)]
pub struct Checked {
    pub rows: usize,
    pub all_rows: bool,
    /// Largest |got − want|, what it was allowed to be, and the root mean square.
    pub absolute: Errors,
    /// The same relative to the largest |want| of these rows.
    pub relative: Errors,
    /// Over all rows, in nats.
    pub mean_entropy: Option<f64>,
    /// What the twin took, and the multiply-adds of its truth.
    pub twin_time: Duration,
    pub twin_work: u64,
    /// On cooperative matrices.
    pub by_matrices: bool,
    /// What planning, compiling and the first calls took.
    pub first_calls: Duration,
}

/// How far off numbers are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Errors {
    pub max: f64,
    pub allowed: f64,
    pub rms: f64,
}

impl Errors {
    /// In units of a number; what is off by nothing is so in those of 0, too.
    pub fn relative_to(self, largest: f64) -> Self {
        let ratio = |error: f64| if error == 0.0 { 0.0 } else { error / largest };
        Self { max: ratio(self.max), allowed: ratio(self.allowed), rms: ratio(self.rms) }
    }
}

impl std::fmt::Display for Checked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { rows, relative: Errors { max, allowed, rms }, twin_time, twin_work, first_calls, .. } = self;
        let rows = if self.all_rows { "all rows".into() } else { format!("{rows} rows") };
        write!(
            f,
            "{rows} off from the twin by {max:.1e} of its largest number (rms {rms:.1e}; allowed {allowed:.1e})"
        )?;
        if let Some(entropy) = self.mean_entropy {
            write!(f, ", mean row entropy {entropy:.3} nat")?;
        }
        write!(f, "; twin {twin_time:.1?} for {twin_work:.1e} multiply-adds, first calls {first_calls:.1?}")
    }
}

/// What numbers may be off by.
pub struct Allowance {
    /// The largest error of naive f32 runs.
    pub naive: f64,
    /// ULP that naive f32 does not stand for.
    pub ulps: f64,
    /// What factors in f16 cost the largest error and the root mean square, relative to the numbers.
    pub products: [f64; 2],
    /// What the numbers are stored as.
    pub dtype: DType,
}

impl Allowance {
    /// How far the numbers are off, which is an error where it is too far.
    pub fn judge(&self, got: &[f64], want: &[f64]) -> Result<Errors, Failure> {
        let floor = (self.ulps + DIVISION_ULPS) * ULP;
        let ([of_largest, of_rms], [relative, absolute]) = (self.products, rounding(self.dtype));
        let largest_o = largest(want.iter().copied());
        let allowed = 2.0 * self.naive + (floor + relative + of_largest) * largest_o + absolute;
        let rms_allowed = (RMS_RATIO + floor + relative + of_rms) * root_mean_square(want.iter().copied()) + absolute;
        let max = largest(differences(got, want));
        let rms = root_mean_square(differences(got, want));
        if !(max <= allowed && rms <= rms_allowed) {
            let worst = differences(got, want).enumerate().max_by(|a, b| f64::total_cmp(&a.1.abs(), &b.1.abs()));
            let (got, want) = worst.map_or((0.0, 0.0), |(index, _)| (got[index], want[index]));
            return Err(Failure::Failed(format!(
                "differs from the twin by {max:.2e} (allowed {allowed:.2e}), rms {rms:.2e} (allowed {rms_allowed:.2e}), \
                 where the largest is {largest_o:.2e}; worst: got {got}, want {want}"
            )));
        }
        Ok(Errors { max, allowed, rms })
    }
}

/// The device's or the twin's numbers of all parts, one after the other.
#[derive(Default)]
struct Numbers {
    o: Vec<f64>,
    entropy: Vec<f64>,
}

/// Runs the call once and compares it with the twin.
///
/// The largest error may be twice that of naive f32 runs, plus what weights and division are granted; the root mean square,
/// relative to that of the truth, 1e-5 plus the same. To both comes the rounding to the type of the output, and what factors
/// of f16 cost where there are matrices.
pub fn verify(context: &Context, case: &dyn Case, tensors: &Tensors) -> Result<Checked, Failure> {
    let start = Instant::now();
    let parts = case.parts(WORK_FOR_ALL);
    let threads = (TWIN_MEMORY / parts.iter().map(|part| part.memory).max().unwrap_or(0).max(1)) as usize;
    let truth = parallel::map(&parts, threads, |part| case.twin(part, Arithmetic::Truth));
    let truth: Vec<Twin> = truth.into_iter().collect::<Result<_>>()?;
    let mut twin_time = start.elapsed();

    let (got, mean_entropy, first_calls) = run(context, case, tensors, &parts)?;

    let start = Instant::now();
    let naive = naive_errors(case, &parts, &truth, &got, threads)?;
    twin_time += start.elapsed();
    let weight_ulps = truth.iter().map(|twin| case.weight_ulps(twin)).fold(0.0, f64::max);
    let floor = (weight_ulps + DIVISION_ULPS) * ULP;
    let mut want = Numbers::default();
    for twin in truth {
        want.o.extend(twin.o);
        want.entropy.extend(twin.entropy);
    }

    let by_matrices = case.by_matrices();
    let [of_largest, of_rms, of_entropy] = if by_matrices { F16_PRODUCTS } else { [0.0; 3] };
    let allowance =
        Allowance { naive: naive.o, ulps: weight_ulps, products: [of_largest, of_rms], dtype: tensors.shape.dtype };
    let errors = allowance.judge(&got.o, &want.o)?;
    let entropy_err = largest(differences(&got.entropy, &want.entropy));
    let highest = largest(want.entropy.iter().copied());
    let entropy_allowed = 2.0 * naive.entropy + LOG_ERROR + floor * (1.0 + highest) + of_entropy;
    if mean_entropy.is_some() && (entropy_err > entropy_allowed || entropy_err.is_nan()) {
        return Err(Failure::Failed(format!(
            "row entropy differs from the twin by {entropy_err:.2e} (allowed {entropy_allowed:.2e})"
        )));
    }
    let twin_work = parts.iter().map(|part| part.work).sum();
    let all_rows = got.o.len() == elements(tensors.shape.q());
    let rows = parts.iter().map(|part| part.rows.len()).sum();
    Ok(Checked {
        rows,
        all_rows,
        absolute: errors,
        relative: errors.relative_to(largest(want.o.iter().copied())),
        mean_entropy,
        twin_time,
        twin_work,
        by_matrices,
        first_calls,
    })
}

/// The call without and with entropies: what stands in the parts, the mean entropy of all rows, and how long it took.
fn run(
    context: &Context,
    case: &dyn Case,
    tensors: &Tensors,
    parts: &[Part],
) -> Result<(Numbers, Option<f64>, Duration), Failure> {
    let rows = || parts.iter().flat_map(|part| row_indices(tensors, part));
    let width = tensors.shape.head_dim as usize;
    tensors.clear_outputs(context);
    let start = Instant::now();
    case.prepare()?.run(context)?;
    let mut took = start.elapsed();
    let o = context.download_as(&tensors.o, tensors.shape.dtype)?;
    let o = rows().flat_map(|row| &o[row * width..(row + 1) * width]).map(|&value| f64::from(value)).collect();

    let start = Instant::now();
    let Some(prepared) = case.prepare_with_entropy() else {
        return Ok((Numbers { o, entropy: Vec::new() }, None, took));
    };
    context.run(&prepared?)?;
    took += start.elapsed();
    let entropy = context.download(&tensors.entropy)?;
    let mean = entropy.iter().map(|&entropy| f64::from(entropy)).sum::<f64>() / entropy.len() as f64;
    let entropy = rows().map(|row| f64::from(entropy[row])).collect();
    Ok((Numbers { o, entropy }, Some(mean), took))
}

/// The largest errors of plain f32.
struct NaiveErrors {
    o: f64,
    entropy: f64,
}

/// Naive runs over parts spread over all, and over those where the device is furthest off: a row may be worse
/// conditioned than most, and then is so for any arithmetic.
fn naive_errors(
    case: &dyn Case,
    parts: &[Part],
    truth: &[Twin],
    got: &Numbers,
    threads: usize,
) -> Result<NaiveErrors, Failure> {
    let part_work = parts.iter().map(|part| part.work).max().unwrap_or(1);
    let count = (NAIVE_WORK / NAIVE_RUNS / part_work.max(1)).clamp(*NAIVE_PARTS.start(), *NAIVE_PARTS.end());
    let mut chosen: Vec<usize> = (0..parts.len()).step_by(parts.len().div_ceil(count as usize).max(1)).collect();
    chosen.extend(furthest(truth.iter().map(|twin| twin.o.as_slice()), &got.o));
    chosen.extend(furthest(truth.iter().map(|twin| twin.entropy.as_slice()), &got.entropy));
    let runs: Vec<(usize, u64)> =
        chosen.into_iter().flat_map(|part| (0..NAIVE_RUNS).map(move |seed| (part, seed))).collect();
    let naive = parallel::map(&runs, threads, |&(part, seed)| case.twin(&parts[part], Arithmetic::Naive(seed)));
    let mut errors = NaiveErrors { o: 0.0, entropy: 0.0 };
    for (&(part, _), naive) in runs.iter().zip(naive) {
        let naive = naive?;
        errors.o = errors.o.max(largest(differences(&naive.o, &truth[part].o)));
        errors.entropy = errors.entropy.max(largest(differences(&naive.entropy, &truth[part].entropy)));
    }
    Ok(errors)
}

/// The part whose numbers are furthest from the truth, if there are any.
fn furthest<'a>(truth: impl Iterator<Item = &'a [f64]>, got: &[f64]) -> Option<usize> {
    let mut rest = got;
    let mut off: Vec<f64> = Vec::new();
    for want in truth {
        let (here, after) = rest.split_at_checked(want.len())?;
        off.push(largest(differences(here, want)));
        rest = after;
    }
    (0..off.len()).max_by(|&a, &b| off[a].total_cmp(&off[b]))
}

/// Indices of a part's rows in `[batch, q_heads, q_len]`.
fn row_indices(tensors: &Tensors, part: &Part) -> impl Iterator<Item = usize> {
    let [_, heads, len] = tensors.shape.rows().map(|extent| extent as usize);
    let first = (part.head[0] * heads + part.head[1]) * len;
    part.rows.iter().map(move |row| first + row)
}

/// NaN counts as infinitely far.
pub fn differences<'a>(got: &'a [f64], want: &'a [f64]) -> impl Iterator<Item = f64> + 'a {
    got.iter().zip(want).map(|(got, want)| if got.is_finite() { got - want } else { f64::INFINITY })
}

pub fn largest(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().fold(0.0, |largest, value| value.abs().max(largest))
}

fn root_mean_square(values: impl Iterator<Item = f64>) -> f64 {
    let (count, sum) = values.fold((0u64, 0.0), |(count, sum), value| (count + 1, sum + value * value));
    (sum / count.max(1) as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_relative_to_the_largest_number() {
        let errors = Errors { max: 3.0, allowed: 6.0, rms: 0.5 }.relative_to(1024.0);
        assert_eq!(errors, Errors { max: 3.0 / 1024.0, allowed: 6.0 / 1024.0, rms: 0.5 / 1024.0 });
        let none = Errors { max: 0.0, allowed: 1e-9, rms: 0.0 }.relative_to(0.0);
        assert_eq!(none, Errors { max: 0.0, allowed: f64::INFINITY, rms: 0.0 });
    }
}
