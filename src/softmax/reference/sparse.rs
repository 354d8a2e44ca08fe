//! What the twins know of a row of a sparsemax or an entmax.

use crate::reference::{Real, SumOrder};

/// p = [T + e d]₊^(1/e) over the scores less the largest, d, and e = α − 1.
pub(in super::super) struct Threshold<T> {
    pub exponent: T,
    pub log_p: Vec<T>,
    pub p: Vec<T>,
    /// p^(2−α), and 0 where p is.
    pub steepness: Vec<T>,
}

/// (eᵘ − 1 − u) / u².
fn second_of_exp<T: Real>(u: T) -> T {
    let one = T::new(1.0);
    if u.to_f64().abs() > 1.0 {
        return (u.exp() - one - u) / (u * u);
    }
    // 1/2 (1 + u/3 (1 + u/4 (…))).
    (3..20).rev().fold(one, |sum, k| one + u / T::new(k.into()) * sum) / (one + one)
}

impl<T: Real> Threshold<T> {
    pub fn new(alpha: T, below: &[T], order: SumOrder) -> Self {
        let (zero, one) = (T::new(0.0), T::new(1.0));
        let exponent = alpha - one;
        // Without a sum, which an arithmetic that is off would make less than 2.
        if !(alpha.to_f64() > 1.0 && alpha.to_f64() <= 2.0) {
            let nan = || vec![T::new(f64::NAN); below.len()];
            return Self { exponent, log_p: nan(), p: nan(), steepness: nan() };
        }
        // The logarithm of [1 + e d / T]₊^(1/e), and the number that is a power of.
        let weigh = |t: T, d: T| {
            let y = exponent * d / t;
            (y.ln_1p() / exponent, one + y)
        };
        // Newton's steps from the right, where the function is convex and grows: they only go left.
        let mut top = one;
        for _ in 0..200 {
            let (mut weight, mut slope) = (zero, zero);
            for index in order.indices(below.len()) {
                let (log, base) = weigh(top, below[index]);
                if base > zero {
                    weight += log.exp();
                    slope += log.exp() / base;
                }
            }
            let next = top + ((-exponent * weight.ln()).exp() - top) * weight / slope;
            match next.partial_cmp(&top) {
                Some(std::cmp::Ordering::Less) => top = next,
                _ => break,
            }
        }
        let (mut found, mut sum) = (Self { exponent, log_p: vec![], p: vec![], steepness: vec![] }, zero);
        for index in order.indices(below.len()) {
            let (log, base) = weigh(top, below[index]);
            sum += if base > zero { log.exp() } else { zero };
        }
        for &d in below {
            let (log, base) = weigh(top, d);
            let is_in = base > zero || d.to_f64().is_nan();
            let log_p = if is_in { log - sum.ln() } else { zero };
            found.log_p.push(log_p);
            found.p.push(if is_in { log_p.exp() } else { zero });
            found.steepness.push(if is_in { ((one - exponent) * log_p).exp() } else { zero });
        }
        found
    }

    fn sum(&self, order: SumOrder, term: impl Fn(usize) -> T) -> T {
        let mut sum = T::new(0.0);
        order.indices(self.p.len()).into_iter().for_each(|j| sum += term(j));
        sum
    }

    pub fn entropy(&self, order: SumOrder) -> T {
        T::new(0.0) - self.sum(order, |j| self.p[j] * self.log_p[j])
    }

    /// ⟨p − y, s⟩ + (1 − Σ p^α)/(α(α−1)) for a label whose score is so much below the largest.
    pub fn loss(&self, below: &[T], label: T, order: SumOrder) -> T {
        // (1 − p^(α−1))/(α−1).
        let rest = |j: usize| {
            let log = self.log_p[j];
            T::new(0.0) - log * (T::new(1.0) + self.exponent * log * second_of_exp(self.exponent * log))
        };
        let alpha = T::new(1.0) + self.exponent;
        self.sum(order, |j| self.p[j] * (below[j] + rest(j) / alpha)) - label
    }

    /// What flows into the scores from g, the gradient of p: σ(g − Σσg/Σσ).
    pub fn backward(&self, g: &[T], order: SumOrder) -> Vec<T> {
        let mean = self.sum(order, |j| self.steepness[j] * g[j]) / self.sum(order, |j| self.steepness[j]);
        g.iter().zip(&self.steepness).map(|(&g, &own)| own * (g - mean)).collect()
    }

    /// The gradient of α. With l = log p, r = (p^(1−α) − 1 + (α−1) l)/(α−1)², H = −Σ p l and Q = Σ p r, ∂p/∂α is
    /// p (Q (1 − (α−1) l) − (1 + (α−1) H) r) / Σσ, which has a limit as α gets to 1.
    pub fn dalpha(&self, g: &[T], dloss: T, order: SumOrder) -> T {
        let (one, e) = (T::new(1.0), self.exponent);
        let (l, p) = (&self.log_p, &self.p);
        let second = |j: usize| second_of_exp(-e * l[j]);
        let r = |j: usize| l[j] * l[j] * second(j);
        let (h, q) = (self.entropy(order), self.sum(order, |j| p[j] * r(j)));
        let of_p = self.sum(order, |j| g[j] * p[j] * (q * (one - e * l[j]) - (one + e * h) * r(j)))
            / self.sum(order, |j| self.steepness[j]);
        // Of (1 − Σ p^α)/(α(α−1)) at that p: where a loss is least, p moves it by nothing.
        let of_loss = self.sum(order, |j| {
            let rest = T::new(0.0) - l[j] * (one - e * l[j] * second(j));
            p[j] * (e * l[j]).exp() * (r(j) + rest / (one + e))
        });
        of_p - dloss * of_loss / (one + e)
    }
}
