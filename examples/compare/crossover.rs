//! Where one variant becomes faster than another.

/// A length and a time.
pub type Point = (u32, f64);

/// How two curves of time against length meet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Crossover {
    /// Faster from about this length on.
    At(f64),
    /// Faster at every length that both were measured at, from this one.
    Always(u32),
    /// Not faster at the last length that both were measured at.
    NotUpTo(u32),
    /// Nothing to compare.
    Unmeasured,
}

/// From which length `challenger` stays faster than `incumbent`, interpolated on logarithmic axes between the lengths
/// that both were measured at.
pub fn crossover(challenger: &[Point], incumbent: &[Point]) -> Crossover {
    let mut gaps: Vec<(u32, f64)> = Vec::new();
    for &(len, ours) in challenger {
        if let Some(&(_, theirs)) = incumbent.iter().find(|&&(other, _)| other == len) {
            gaps.push((len, (ours / theirs).ln()));
        }
    }
    gaps.sort_by_key(|&(len, _)| len);
    let (Some(&(first, _)), Some(&(last, gap))) = (gaps.first(), gaps.last()) else { return Crossover::Unmeasured };
    if gap >= 0.0 {
        return Crossover::NotUpTo(last);
    }
    let Some(after) = gaps.iter().rposition(|&(_, gap)| gap >= 0.0) else { return Crossover::Always(first) };
    let ((len_a, gap_a), (len_b, gap_b)) = (gaps[after], gaps[after + 1]);
    let (log_a, log_b) = (f64::from(len_a).ln(), f64::from(len_b).ln());
    Crossover::At((log_a + (log_b - log_a) * gap_a / (gap_a - gap_b)).exp())
}

impl Crossover {
    /// A sentence.
    pub fn sentence(self, challenger: &str, incumbent: &str) -> String {
        match self {
            Self::At(len) => format!("{challenger} overtakes {incumbent} at n ≈ {}.", round_to_two_digits(len)),
            Self::Always(len) => {
                format!("{challenger} is faster than {incumbent} at every length measured, from n = {len}.")
            }
            Self::NotUpTo(len) => format!("{challenger} does not overtake {incumbent} up to n = {len}."),
            Self::Unmeasured => format!("{challenger} and {incumbent} were not measured at a common length."),
        }
    }
}

/// An interpolation is not worth more digits.
fn round_to_two_digits(value: f64) -> u64 {
    let unit = 10f64.powf(value.log10().floor() - 1.0).max(1.0);
    ((value / unit).round() * unit) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn power_laws_meet_where_they_should() {
        // 1000 n against n²: equal at 1000.
        let lens = [256, 512, 1024, 2048];
        let linear: Vec<Point> = lens.iter().map(|&n| (n, 1000.0 * f64::from(n))).collect();
        let square: Vec<Point> = lens.iter().map(|&n| (n, f64::from(n).powi(2))).collect();
        let Crossover::At(len) = crossover(&linear, &square) else { panic!("no crossing") };
        assert!((len - 1000.0).abs() < 1e-6);
        assert_eq!(crossover(&linear[..2], &square), Crossover::NotUpTo(512));
        assert_eq!(crossover(&linear[2..], &square), Crossover::Always(1024));
        assert_eq!(crossover(&[], &square), Crossover::Unmeasured);
        assert_eq!(round_to_two_digits(1049.0), 1000);
        assert_eq!(round_to_two_digits(87.4), 87);
    }
}
