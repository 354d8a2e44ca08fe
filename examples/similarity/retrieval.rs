//! Which vectors are near which, by their cosine.

/// The part of all rows whose nearest other row, or one of their five nearest, is of their own kind.
#[derive(Clone, Copy, Debug)]
pub struct Accuracy {
    pub at_1: f64,
    pub at_5: f64,
}

impl Accuracy {
    fn of(numbers: impl Fn(fn(&Self) -> f64) -> f64) -> Self {
        Self { at_1: numbers(|own| own.at_1), at_5: numbers(|own| own.at_5) }
    }

    /// Of all runs after an epoch.
    pub fn mean(runs: &[Vec<Self>], epoch: usize) -> Self {
        Self::of(|of| runs.iter().map(|run| of(&run[epoch])).sum::<f64>() / runs.len() as f64)
    }

    /// The standard deviation of the runs after the last epoch.
    pub fn spread(runs: &[Vec<Self>]) -> Self {
        let last = runs[0].len() - 1;
        let mean = Self::mean(runs, last);
        Self::of(|of| {
            let squares = runs.iter().map(|run| (of(&run[last]) - of(&mean)).powi(2)).sum::<f64>();
            (squares / (runs.len() - 1).max(1) as f64).sqrt()
        })
    }
}

/// All other rows, the nearest first.
pub fn nearest(rows: &[Vec<f32>], own: usize) -> Vec<(f32, usize)> {
    let cosine = |other: &[f32]| rows[own].iter().zip(other).map(|(a, b)| a * b).sum::<f32>();
    let others = rows.iter().enumerate().filter(|(other, _)| *other != own);
    let mut found: Vec<_> = others.map(|(other, row)| (cosine(row), other)).collect();
    found.sort_by(|a, b| b.0.total_cmp(&a.0));
    found
}

pub fn accuracy(rows: &[Vec<f32>], kinds: &[u32]) -> Accuracy {
    let first_of_kind = |own: usize| nearest(rows, own).iter().position(|(_, other)| kinds[*other] == kinds[own]);
    let ranks: Vec<usize> = (0..rows.len()).filter_map(first_of_kind).collect();
    let within = |most: usize| ranks.iter().filter(|rank| **rank < most).count() as f64 / rows.len() as f64;
    Accuracy { at_1: within(1), at_5: within(5) }
}
