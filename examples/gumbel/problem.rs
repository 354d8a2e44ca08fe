//! What a class costs, and the exact gradient of the mean cost.

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand_distr::{Distribution, StandardNormal};

pub const CLASSES: usize = 32;
pub const WIDTH: usize = 16;

/// f(y) = ½ |A y − b|².
pub struct Problem {
    /// `[WIDTH, CLASSES]`.
    pub a: Vec<f32>,
    /// `[WIDTH]`.
    pub b: Vec<f32>,
    /// f of each one-hot.
    costs: Vec<f64>,
    logits: Vec<f32>,
}

impl Problem {
    pub fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut normal = |count: usize, scale: f32| -> Vec<f32> {
            (0..count)
                .map(|_| scale * <StandardNormal as Distribution<f32>>::sample(&StandardNormal, &mut rng))
                .collect()
        };
        let (a, b, logits) = (normal(WIDTH * CLASSES, 0.5), normal(WIDTH, 0.5), normal(CLASSES, 0.5));
        let cost = |class: usize| {
            let off = |row: usize| f64::from(a[row * CLASSES + class]) - f64::from(b[row]);
            0.5 * (0..WIDTH).map(|row| off(row).powi(2)).sum::<f64>()
        };
        let costs = (0..CLASSES).map(cost).collect();
        Self { a, b, costs, logits }
    }

    /// Logits that nothing has been learned of.
    pub fn start(&self) -> Vec<f32> {
        self.logits.clone()
    }

    pub fn probabilities(logits: &[f32]) -> Vec<f64> {
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weights: Vec<f64> = logits.iter().map(|logit| f64::from(logit - largest).exp()).collect();
        let sum: f64 = weights.iter().sum();
        weights.iter().map(|weight| weight / sum).collect()
    }

    pub fn cost(&self, class: usize) -> f64 {
        self.costs[class]
    }

    pub fn least(&self) -> f64 {
        self.costs.iter().copied().fold(f64::INFINITY, f64::min)
    }

    pub fn mean_cost(&self, logits: &[f32]) -> f64 {
        Self::probabilities(logits).iter().zip(&self.costs).map(|(p, cost)| p * cost).sum()
    }

    /// p_j (f_j − E f).
    pub fn gradient(&self, logits: &[f32]) -> Vec<f64> {
        let mean = self.mean_cost(logits);
        Self::probabilities(logits).iter().zip(&self.costs).map(|(p, cost)| p * (cost - mean)).collect()
    }
}
