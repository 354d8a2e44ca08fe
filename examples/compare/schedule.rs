//! Which lengths run, and when a variant stops for the sake of the budget.

use std::time::Duration;

use crate::harness::tensors::Shape;
use crate::harness::variants::{Kind, Variant};
use crate::harness::verify::{Checked, WORK_FOR_ALL};

/// First and last default length. Linear attention overtakes softmax where n is about the head_dim if work decides, and
/// later where launching its several kernels does.
pub const ON_CPU: [u32; 2] = [64, 65_536];
pub const ON_GPU: [u32; 2] = [128, 65_536];

/// Powers of two.
pub fn doubling([first, last]: [u32; 2]) -> Vec<u32> {
    std::iter::successors(Some(first), |len| len.checked_mul(2)).take_while(|&len| len <= last).collect()
}

/// Samples of a case by default: as many as fit this time, within bounds.
const SAMPLING: Duration = Duration::from_secs(1);
const SAMPLES: [f64; 2] = [5.0, 30.0];

/// How often a call that takes this long is timed.
pub fn samples(took: Duration, asked: Option<u32>) -> usize {
    let fit = SAMPLING.as_secs_f64() / took.as_secs_f64().max(1e-9);
    asked.map_or(fit.clamp(SAMPLES[0], SAMPLES[1]) as usize, |asked| asked as usize)
}

/// The power of the length as which a variant's work grows.
pub fn slope(variant: &Variant) -> i32 {
    match variant.kind {
        Kind::Softmax(_) | Kind::ThreeDispatches | Kind::SquaredRelu(_) | Kind::Gau(_) => 2,
        Kind::MixedChunk | Kind::Linear(_) => 1,
    }
}

/// What a case took, from which the next length is predicted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    pub len: u32,
    /// What the twin took, the most by which that may grow, and the power of the length as which it does.
    pub twin: Duration,
    pub twin_growth: f64,
    pub twin_slope: i32,
    /// One call.
    pub took: Duration,
    /// The call's work grows as length to this power.
    pub slope: i32,
}

impl Cost {
    pub fn new(variant: &Variant, shape: &Shape, checked: &Checked, took: Duration) -> Self {
        let is_decoding = shape.is_decoding();
        // Of all rows, each with as many pairs as rows, until that is too much; then of as many rows as before, as in decoding.
        let (twin_growth, twin_slope) = if checked.all_rows && !is_decoding {
            (WORK_FOR_ALL as f64 / checked.twin_work.max(1) as f64, 2)
        } else {
            (f64::INFINITY, 1)
        };
        let slope = slope(variant) - i32::from(is_decoding);
        Self { len: shape.len, twin: checked.twin_time, twin_growth, twin_slope, took, slope }
    }

    pub fn at(&self, len: u32, asked_samples: Option<u32>) -> Duration {
        let growth = |slope| (f64::from(len) / f64::from(self.len)).powi(slope);
        let took = self.took.mul_f64(growth(self.slope));
        // The samples, and what comes before: verified with and without entropy, and warmed up.
        let calls = 3 + samples(took, asked_samples);
        self.twin.mul_f64(growth(self.twin_slope).min(self.twin_growth)) + took.mul_f64(calls as f64)
    }
}

/// Admits the cheapest first (among near equals, by place), as long as `left` lasts; says for each in order whether it may run.
pub fn admit(predicted: &[Duration], left: Duration) -> Vec<bool> {
    let mut cheapest_first: Vec<usize> = (0..predicted.len()).collect();
    // Within a factor of four or so, what comes first goes first: softmax, to which the others are compared.
    cheapest_first.sort_by_key(|&index| (predicted[index].as_secs_f64().max(1e-9).log2() / 2.0).round() as i32);
    let mut admitted = vec![false; predicted.len()];
    let mut total = Duration::ZERO;
    for index in cheapest_first {
        total += predicted[index];
        admitted[index] = total <= left;
    }
    admitted
}

/// Leaves those that the rest of the budget has room for at a length, by their names and what they are predicted to take, and says
/// which others there were.
pub fn stop<V>(
    active: &mut Vec<V>,
    predict: impl Fn(&V) -> (&'static str, Duration),
    (len, budget): (u32, Duration),
    spent: Duration,
) -> Option<String> {
    let (names, predicted): (Vec<_>, Vec<_>) = active.iter().map(predict).unzip();
    let admitted = admit(&predicted, budget.saturating_sub(spent));
    let mut each = admitted.iter();
    active.retain(|_| each.next() == Some(&true));
    let stopped = names.iter().zip(&predicted).zip(&admitted).filter(|(_, admitted)| !**admitted);
    let stopped: Vec<String> =
        stopped.map(|((name, took), _)| format!("{name} (about {:.0} s)", took.as_secs_f64().ceil())).collect();
    (!stopped.is_empty()).then(|| {
        format!(
            "Stopped before n = {len}: {}; that would pass the budget of {:.0} s (--budget).",
            stopped.join(", "),
            budget.as_secs_f64(),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_double_to_the_end() {
        assert_eq!(doubling(ON_GPU), [128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536]);
        assert_eq!(doubling([32, 100]), [32, 64]);
    }

    #[test]
    fn the_dearest_are_left_out() {
        let seconds = |s| Duration::from_secs(s);
        assert_eq!(admit(&[seconds(8), seconds(1), seconds(2)], seconds(3)), [false, true, true]);
        assert_eq!(admit(&[seconds(8), seconds(1), seconds(2)], seconds(20)), [true, true, true]);
    }

    #[test]
    fn a_quadratic_case_takes_four_times_as_long_at_twice_the_length() {
        let seconds = |s| Duration::from_secs(s);
        let [twin, took] = [seconds(1), seconds(2)];
        let cost = Cost { len: 256, twin, twin_growth: 3.0, twin_slope: 2, took, slope: 2 };
        assert_eq!(cost.at(512, Some(2)), seconds(3 + 5 * 8));
        assert_eq!(Cost { twin_slope: 1, slope: 1, ..cost }.at(512, None), seconds(2 + 8 * 4));
        assert_eq!(samples(Duration::from_millis(100), None), 10);
    }
}
