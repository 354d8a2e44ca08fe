//! Which of some candidates replaces the default, by their times.

use std::time::Duration;

/// The fewest pairs that say anything.
pub(super) const FEWEST_PAIRS: usize = 5;
/// A candidate takes at most this part of the default's time.
const CLEARLY: f64 = 0.95;
/// Of the pairs, and is ahead in at least so many of four.
const OF_FOUR: usize = 3;

/// Times of the default and of a candidate, taken in turns: the candidate's part of the default's time if it is clearly faster.
///
/// The part is the median over the pairs, so that a slow spell of the machine, which meets both of a pair, decides nothing; and
/// in most pairs the candidate has to be ahead, so that a few quick ones do not either. All else leaves the default.
pub(super) fn clearly_faster(default: &[Duration], candidate: &[Duration]) -> Option<f64> {
    let pairs = || default.iter().zip(candidate);
    let count = pairs().count();
    let ahead = pairs().filter(|(default, candidate)| candidate < default).count();
    let mut parts: Vec<f64> =
        pairs().map(|(default, candidate)| candidate.as_secs_f64() / default.as_secs_f64().max(1e-9)).collect();
    parts.sort_by(f64::total_cmp);
    let part = *parts.get(count / 2)?;
    (count >= FEWEST_PAIRS && part <= CLEARLY && 4 * ahead >= OF_FOUR * count).then_some(part)
}

/// Those that are clearly faster, by their place, the fastest first.
pub(super) fn ranked(default: &[Duration], candidates: &[Vec<Duration>]) -> Vec<usize> {
    let faster = candidates.iter().enumerate().filter_map(|(at, times)| Some((at, clearly_faster(default, times)?)));
    let mut faster: Vec<(usize, f64)> = faster.collect();
    faster.sort_by(|a, b| a.1.total_cmp(&b.1));
    faster.into_iter().map(|(at, _)| at).collect()
}

/// The middle of some times.
pub(super) fn median(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(micros: &[u64]) -> Vec<Duration> {
        micros.iter().map(|&micros| Duration::from_micros(micros)).collect()
    }

    #[test]
    fn ties_and_small_gains_keep_the_default() {
        let default = times(&[100, 101, 99, 100, 100]);
        assert_eq!(clearly_faster(&default, &default), None);
        assert_eq!(clearly_faster(&default, &times(&[96, 97, 95, 96, 96])), None, "4 %");
        assert_eq!(clearly_faster(&default, &times(&[120; 5])), None);
        let part = clearly_faster(&default, &times(&[90, 90, 90, 90, 90])).expect("10 %");
        assert!((part - 0.9).abs() < 0.01, "{part}");
    }

    #[test]
    fn few_or_lucky_samples_decide_nothing() {
        assert_eq!(clearly_faster(&times(&[100; 4]), &times(&[10; 4])), None, "too few");
        assert_eq!(clearly_faster(&[], &[]), None);
        let lucky = times(&[50, 50, 50, 120, 120]);
        assert_eq!(clearly_faster(&times(&[100; 5]), &lucky), None, "ahead in three of five");
        // The machine is slow for half of the pairs: both of a pair are.
        let [default, candidate] = [[100, 100, 100, 300, 300, 300], [80, 80, 80, 240, 240, 240]];
        let part = clearly_faster(&times(&default), &times(&candidate)).expect("a fifth faster in every pair");
        assert!((part - 0.8).abs() < 1e-9);
    }

    #[test]
    fn the_fastest_comes_first() {
        let default = times(&[100; 5]);
        let candidates = [times(&[90; 5]), times(&[100; 5]), times(&[70; 5]), times(&[80; 3])];
        assert_eq!(ranked(&default, &candidates), [2, 0]);
        assert_eq!(median(&times(&[3, 1, 2])), Duration::from_micros(2));
    }
}
