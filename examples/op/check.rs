//! How far a result may be from the f64 reference, and whether it is: the rule of the crate's own tests, for any op and any input.
//!
//! The largest error may be twice the worst of eight naive runs: the reference's own loops in [`Granted`], an f32 of which every
//! operation is off by what WGSL grants it, with sums in another order each time. The root mean square may be twice the worst run's, and
//! 1e-5 of that of the reference. To both comes the rounding to the type in which the output is stored.
//!
//! Of indices and counts it is how many differ that counts: twice as many may as in the worst naive run.

#[path = "granted.rs"]
mod granted;

use std::fmt;

use anyhow::{Context as _, Result, anyhow};
use granted::Granted;
use wgpu_attention::DType;
use wgpu_attention::half::{bf16, f16};
use wgpu_attention::reference::{Real, SumOrder};

use super::run::{Op, Output, Run};

const RUNS: u64 = 8;
const RMS_RATIO: f64 = 1e-5;

/// What was found of one output.
pub struct Verdict {
    /// How many numbers there are, of an output of indices.
    indices: Option<usize>,
    /// Largest |got − want|, and what it may be; of indices, how many differ.
    worst: f64,
    allowed: f64,
    /// Root mean square of got − want, and what it may be, if anything is asked of it.
    rms: f64,
    allowed_rms: Option<f64>,
    /// Largest number of the reference.
    largest: f64,
    /// How many of the reference are NaN, of which nothing is asked.
    nan: usize,
}

impl Verdict {
    pub fn holds(&self) -> bool {
        self.worst <= self.allowed && self.allowed_rms.is_none_or(|allowed| self.rms <= allowed)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { worst, allowed, rms, largest, .. } = self;
        if let Some(count) = self.indices {
            return write!(f, "{worst} of {count} differ (allowed {allowed})");
        }
        write!(f, "off by at most {worst:.2e} (allowed {allowed:.2e}), rms {rms:.2e}")?;
        if let Some(allowed) = self.allowed_rms {
            write!(f, " (allowed {allowed:.2e})")?;
        }
        write!(f, ", largest value {largest:.2e}")?;
        if self.nan > 0 {
            write!(f, ", {} not compared as the reference is NaN", self.nan)?;
        }
        Ok(())
    }
}

/// Compares each output with the f64 reference; `tolerance`, relative to the largest number of each, takes the place of the rule.
pub fn check(op: &Op, run: &Run, tolerance: Option<f64>) -> Result<Vec<Verdict>> {
    let truth = op.twin::<f64>(SumOrder::InOrder)?;
    let truth = run.outputs.iter().map(|output| find(&truth, output.name)).collect::<Result<Vec<_>>>()?;
    let off = run.outputs.iter().zip(&truth);
    let off: Vec<Errors> =
        off.map(|(got, want)| Errors::of(got.data.iter().copied(), want.data.iter(), got.dtype)).collect();
    let verdict = |output: &Output<f64>, errors: &Errors, allowed: f64, allowed_rms: Option<f64>| {
        let &Errors { worst, rms, largest, nan, .. } = errors;
        let indices = (output.dtype == DType::U32).then_some(output.data.len());
        Verdict { indices, worst, allowed, rms, allowed_rms, largest, nan }
    };
    let outputs = run.outputs.iter().zip(&off);
    if let Some(tolerance) = tolerance {
        let of = |(output, errors): (_, &Errors)| verdict(output, errors, tolerance * errors.largest, None);
        return Ok(outputs.map(of).collect());
    }
    let naive = naive(op, run, &truth)?;
    Ok(outputs
        .zip(naive)
        .map(|((output, errors), naive)| {
            if output.dtype == DType::U32 {
                return verdict(output, errors, 2.0 * naive.worst, None);
            }
            let (relative, least) = rounding(output.dtype);
            let allowed = 2.0 * naive.worst + relative * errors.largest + least;
            let allowed_rms = 2.0 * naive.rms + (RMS_RATIO + relative) * errors.want_rms + least;
            verdict(output, errors, allowed, Some(allowed_rms))
        })
        .collect())
}

fn find<'a, T>(outputs: &'a [Output<T>], name: &str) -> Result<&'a Output<T>> {
    outputs
        .iter()
        .find(|output| output.name == name)
        .with_context(|| format!("{name}: the reference has no such output"))
}

/// The worst of the naive runs, for each output.
fn naive(op: &Op, gpu: &Run, truth: &[&Output<f64>]) -> Result<Vec<Errors>> {
    let run = |seed| -> Result<Vec<Errors>> {
        Granted::start(seed, op.takes_factors_in_f16()?);
        let outputs = op.twin::<Granted>(SumOrder::Shuffled(seed))?;
        let of = |(gpu, want): (&Output<f64>, &&Output<f64>)| {
            let got = find(&outputs, want.name)?.data.iter().map(|got| got.to_f64());
            // A number that overflows says nothing of what is allowed.
            let (got, want): (Vec<_>, Vec<_>) = got.zip(&want.data).filter(|(got, _)| got.is_finite()).unzip();
            let dtype = if gpu.dtype == DType::U32 { DType::U32 } else { DType::F32 };
            Ok(Errors::of(got.into_iter(), want.into_iter(), dtype))
        };
        gpu.outputs.iter().zip(truth).map(of).collect()
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let mut worst: Vec<Errors> = truth.iter().map(|_| Errors::default()).collect();
    std::thread::scope(|scope| {
        let share = |first| scope.spawn(move || (first..RUNS).step_by(threads as usize).map(run).collect::<Vec<_>>());
        let shares: Vec<_> = (0..threads.min(RUNS)).map(share).collect();
        for share in shares {
            // A thread that panicked has said so.
            for errors in share.join().map_err(|_| anyhow!("a naive run panicked"))? {
                for (worst, errors) in worst.iter_mut().zip(errors?) {
                    (worst.worst, worst.rms) = (worst.worst.max(errors.worst), worst.rms.max(errors.rms));
                }
            }
        }
        Ok(worst)
    })
}

/// How far numbers are from the reference.
#[derive(Default)]
struct Errors {
    worst: f64,
    rms: f64,
    /// Of the reference.
    largest: f64,
    want_rms: f64,
    nan: usize,
}

impl Errors {
    /// Where the type has no finite number for the reference, its infinity must be met, and is no error. Of indices, the worst and the
    /// largest are how many differ, and how many there are; a run in f32 has those above 2²⁴ as f32 has them.
    fn of<'a>(got: impl Iterator<Item = f64>, want: impl Iterator<Item = &'a f64>, dtype: DType) -> Self {
        if dtype == DType::U32 {
            let differs: Vec<bool> =
                got.zip(want).map(|(got, &want)| got != want && got != f64::from(want as f32)).collect();
            let (worst, largest) = (differs.iter().filter(|&&differs| differs).count() as f64, differs.len() as f64);
            return Self { worst, largest, ..Self::default() };
        }
        let (mut found, mut count, mut squares, mut want_squares) = (Self::default(), 0usize, 0.0, 0.0);
        for (got, &want) in got.zip(want) {
            if want.is_nan() {
                found.nan += 1;
                continue;
            }
            let stored = stored(want, dtype);
            let error = match (got.is_finite(), stored.is_finite()) {
                (true, true) => (got - want).abs(),
                _ if got == stored => 0.0,
                _ => f64::INFINITY,
            };
            found.worst = found.worst.max(error);
            squares += error * error;
            if stored.is_finite() {
                count += 1;
                want_squares += want * want;
                found.largest = found.largest.max(want.abs());
            }
        }
        let count = count.max(1) as f64;
        Self { rms: (squares / count).sqrt(), want_rms: (want_squares / count).sqrt(), ..found }
    }
}

fn stored(number: f64, dtype: DType) -> f64 {
    match dtype {
        DType::F16 => f16::from_f64(number).into(),
        DType::BF16 => bf16::from_f64(number).into(),
        _ => (number as f32).into(),
    }
}

/// What rounding a number to this type adds to its error: relative to it, and in absolute terms. Numbers too small for f32 may become 0.
fn rounding(dtype: DType) -> (f64, f64) {
    match dtype {
        DType::F16 => (1.0 / f64::from(1 << 11), 1.0 / f64::from(1 << 25)),
        DType::BF16 => (1.0 / f64::from(1 << 8), f32::MIN_POSITIVE.into()),
        _ => (0.0, f32::MIN_POSITIVE.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(got: &[f64], want: &[f64], dtype: DType) -> Errors {
        Errors::of(got.iter().copied(), want.iter(), dtype)
    }

    #[test]
    fn errors_of_finite_numbers_and_others() {
        let found = errors(&[1.0, 2.5, -4.0], &[1.0, 2.0, -5.0], DType::F32);
        assert_eq!((found.worst, found.largest, found.nan), (1.0, 5.0, 0));
        assert!((found.rms - (1.25f64 / 3.0).sqrt()).abs() < 1e-15 && (found.want_rms - 10f64.sqrt()).abs() < 1e-15);
        let infinity = f64::INFINITY;
        let right = errors(&[-infinity, infinity, f64::NAN, 3.0], &[-infinity, 7e4, f64::NAN, 3.0], DType::F16);
        assert_eq!((right.worst, right.rms, right.largest, right.nan), (0.0, 0.0, 3.0, 1));
        for (got, want) in
            [(0.0, -infinity), (infinity, -infinity), (f64::NAN, 1.0), (infinity, 7e4), (f64::NAN, infinity)]
        {
            assert_eq!(errors(&[got], &[want], DType::F32).worst, infinity, "{got} for {want}");
        }
    }

    #[test]
    fn indices_differ_or_not() {
        let none = f64::from(u32::MAX);
        let found = errors(&[7.0, 8.0, none, 16_777_217.0], &[7.0, 900.0, none, 16_777_217.0], DType::U32);
        assert_eq!((found.worst, found.largest), (1.0, 4.0));
    }

    #[test]
    fn a_verdict_holds_up_to_what_is_allowed() {
        let verdict = |worst, rms, allowed_rms| Verdict {
            indices: None,
            worst,
            allowed: 2.0,
            rms,
            allowed_rms,
            largest: 1.0,
            nan: 0,
        };
        assert!(verdict(2.0, 1.0, Some(1.0)).holds() && verdict(2.0, 9.0, None).holds());
        assert!(!verdict(2.1, 1.0, Some(1.0)).holds() && !verdict(2.0, 1.1, Some(1.0)).holds());
        assert!(!verdict(f64::INFINITY, 0.0, None).holds());
    }
}
