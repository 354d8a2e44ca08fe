//! The CPU twin of the softmax: plain loops over the formula.

mod sparse;

use self::sparse::Threshold;
use super::{SoftmaxConfig, SoftmaxKind};
use crate::Result;
use crate::host::HostView;
use crate::reference::{Real, SumOrder};

pub use super::HostInputs;

/// A scaled score below this counts as this: masks made of the lowest float still leave a row a softmax.
pub const LOWEST_SCORE: f64 = -1.0e38;

/// The whole result.
#[derive(Clone, Debug, PartialEq)]
pub struct HostOutputs<T> {
    /// p or log p, `[rows, columns]`.
    pub p: Vec<T>,
    /// `[rows]`.
    pub lse: Vec<T>,
    /// `[rows]`.
    pub entropy: Vec<T>,
    /// `[rows]`; empty without labels.
    pub loss: Vec<T>,
    /// How many p of each row are above 0, `[rows]`.
    pub support: Vec<u32>,
}

/// What a row has, of whichever pass.
#[derive(Clone, Copy)]
pub(super) struct Given<'a> {
    pub x: HostView<'a, f32, 2>,
    pub mask: Option<HostView<'a, u8, 2>>,
    pub row_scale: Option<HostView<'a, f32, 1>>,
    pub alpha: Option<HostView<'a, f32, 1>>,
    pub labels: Option<HostView<'a, u32, 1>>,
}

/// A row's scores, and what softmax makes of them.
pub(super) struct Row<T> {
    /// The columns that take part, in order.
    pub seen: Vec<usize>,
    /// The scale without `row_scale`, and with it.
    pub term: T,
    pub scale: T,
    /// log p and p of each column that takes part.
    pub log_p: Vec<T>,
    pub p: Vec<T>,
    /// The derivative of the logarithm of each weight.
    pub growth: Vec<T>,
    pub lse: T,
    pub entropy: T,
    /// Of sparsemax and entmax.
    pub threshold: Option<Threshold<T>>,
    pub loss: T,
    /// Whether the row has a label that is not ignored, and its place among the columns that take part.
    pub is_labelled: bool,
    pub label: Option<usize>,
    /// Whether the label is no column.
    pub is_outside: bool,
}

impl<T: Real> Row<T> {
    pub fn new(config: &SoftmaxConfig, given: &Given<'_>, row: usize, order: SumOrder) -> Self {
        let Given { x, mask, row_scale, alpha, labels } = *given;
        let mut seen: Vec<usize> =
            (0..x.shape()[1]).filter(|&j| mask.is_none_or(|mask| mask.at([row, j]) != 0)).collect();
        let term = T::new(config.scale.terms().at(seen.len()));
        let scale = row_scale.map_or(term, |scales| {
            let own = if scales.shape() == [1] { 0 } else { row };
            term * T::new(scales.at([own]).into())
        });
        // A score of minus infinity takes no part, but counts in n.
        seen.retain(|&j| x.at([row, j]) != f32::NEG_INFINITY);
        let taylor = config.kind == SoftmaxKind::Taylor;
        let lowest = T::new(LOWEST_SCORE);
        let score = |&j: &usize| {
            let s = scale * T::new(x.at([row, j]).into());
            if s < lowest && !taylor { lowest } else { s }
        };
        let mut scores: Vec<T> = seen.iter().map(score).collect();
        if let Some(k) = config.kind.top_k() {
            let direction = scale.to_f64();
            let sign = if direction == 0.0 { 0.0 } else { direction.signum() };
            // Both zeros are one number.
            let key = |&j: &usize| f64::from(x.at([row, j])) * sign + 0.0;
            let keys: Vec<f64> = seen.iter().map(key).collect();
            let mut ranks: Vec<usize> = (0..seen.len()).collect();
            // A sort that keeps the order of equals; of what is no number, the row shows all.
            ranks.sort_by(|&a, &b| keys[b].total_cmp(&keys[a]));
            if !keys.iter().any(|key| key.is_nan()) {
                ranks.truncate(k as usize);
            }
            ranks.sort_unstable();
            (seen, scores) = ranks.iter().map(|&rank| (seen[rank], scores[rank])).unzip();
        }
        let (minus_infinity, zero, one) = (T::new(f64::NEG_INFINITY), T::new(0.0), T::new(1.0));
        let number = labels.map(|labels| labels.at([row])).filter(|&label| label != u32::MAX);
        let label = number.and_then(|label| seen.iter().position(|&j| j == label as usize));
        let is_outside = number.is_some_and(|label| label as usize >= x.shape()[1]);
        // Of what takes no part, or is no column.
        let unseen = T::new(if is_outside { f64::NAN } else { f64::INFINITY });
        let unseen = if number.is_some() { unseen } else { zero };
        let mut own = Self {
            seen,
            term,
            scale,
            log_p: Vec::new(),
            p: Vec::new(),
            growth: Vec::new(),
            lse: minus_infinity,
            entropy: zero,
            threshold: None,
            loss: unseen,
            is_labelled: number.is_some(),
            label,
            is_outside,
        };
        let Some(largest) = scores.iter().copied().reduce(|a, b| if b.to_f64().is_nan() { b } else { Real::max(a, b) })
        else {
            return own;
        };
        let largest = if taylor { zero } else { largest };
        let below: Vec<T> = scores.iter().map(|&s| s - largest).collect();
        if let Some(fixed) = config.kind.alpha() {
            let alpha = alpha.map_or(fixed, |alpha| alpha.at([if alpha.shape() == [1] { 0 } else { row }]));
            let found = Threshold::new(T::new(alpha.into()), &below, order);
            own.entropy = found.entropy(order);
            if let Some(label) = label {
                own.loss = found.loss(&below, below[label], order);
            } else if number.is_some() && !is_outside && own.entropy.to_f64().is_nan() {
                own.loss = own.entropy;
            }
            (own.log_p, own.p) = (found.log_p.clone(), found.p.clone());
            own.growth = vec![one; below.len()];
            return Self { threshold: Some(found), ..own };
        }
        // Weights, their logarithms, and the derivatives of those.
        let weigh = |&s: &T| match taylor {
            true => {
                let weight = one + s * (one + T::new(0.5) * s);
                (weight, weight.ln(), (one + s) / weight)
            }
            false => (s.exp(), s, one),
        };
        let weights: Vec<(T, T, T)> = below.iter().map(weigh).collect();
        let (mut sum, mut weighted) = (zero, zero);
        for index in order.indices(own.seen.len()) {
            let (weight, log, _) = weights[index];
            sum += weight;
            weighted += weight * log;
        }
        own.log_p = weights.iter().map(|&(_, log, _)| log - sum.ln()).collect();
        own.p = weights.iter().map(|&(weight, ..)| weight / sum).collect();
        own.growth = weights.iter().map(|&(.., growth)| growth).collect();
        own.lse = largest + sum.ln();
        own.entropy = sum.ln() - weighted / sum;
        match label {
            Some(label) => {
                // Where the label has most of the sum, a logarithm near 0.
                let mut others = zero;
                let rest = order.indices(own.seen.len()).into_iter().filter(|&j| j != label);
                rest.for_each(|j| others += weights[j].0);
                let is_small = below[label] > -one;
                let odds = others / weights[label].0;
                own.loss = if is_small { odds.ln_1p() } else { sum.ln() - below[label] };
            }
            None if own.is_labelled && sum.to_f64().is_nan() => own.loss = sum,
            None => {}
        }
        own
    }
}

/// The softmax in f64.
///
/// # Errors
/// As [`HostInputs::shapes`], and for a config out of range.
pub fn softmax(config: &SoftmaxConfig, inputs: &HostInputs) -> Result<HostOutputs<f64>> {
    softmax_in(config, inputs, SumOrder::InOrder)
}

/// [`softmax`] in another arithmetic or order of summation.
///
/// # Errors
/// As [`softmax`].
pub fn softmax_in<T: Real>(config: &SoftmaxConfig, inputs: &HostInputs, order: SumOrder) -> Result<HostOutputs<T>> {
    let shapes = inputs.shapes(config)?;
    let mut out = HostOutputs { p: vec![], lse: vec![], entropy: vec![], loss: vec![], support: vec![] };
    let HostInputs { x, mask, row_scale, alpha, labels } = *inputs;
    for i in 0..shapes.rows as usize {
        let row = Row::new(config, &Given { x, mask, row_scale, alpha, labels }, i, order);
        let mut p = vec![T::new(if config.log { f64::NEG_INFINITY } else { 0.0 }); shapes.columns as usize];
        let found = if config.log { &row.log_p } else { &row.p };
        row.seen.iter().zip(found).for_each(|(&j, &own)| p[j] = own);
        out.p.extend(p);
        out.lse.push(row.lse);
        out.entropy.push(row.entropy);
        out.loss.extend(labels.map(|_| row.loss));
        out.support.push(row.p.iter().filter(|p| **p > T::new(0.0)).count() as u32);
    }
    Ok(out)
}

/// All outputs, by name.
pub(super) fn by_name<T: Real>(
    config: &SoftmaxConfig,
    inputs: &HostInputs,
    order: SumOrder,
) -> Result<Vec<(&'static str, Vec<T>)>> {
    let HostOutputs { p, lse, entropy, loss, support } = softmax_in(config, inputs, order)?;
    let mut out = vec![("p", p), ("entropy", entropy)];
    match config.kind.alpha() {
        Some(_) => out.push(("support", support.into_iter().map(|count| T::new(count.into())).collect())),
        None => out.push(("lse", lse)),
    }
    out.extend(inputs.labels.map(|_| ("loss", loss)));
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SoftmaxScale;

    fn close(got: &[f64], want: &[f64]) {
        assert_eq!(got.len(), want.len());
        let off = got.iter().zip(want).any(|(g, w)| (g - w).abs() > 1e-7 && g != w);
        assert!(!off, "got {got:?}, want {want:?}");
    }

    #[test]
    fn two_rows_by_hand() {
        let x = [0.0, 3.0_f32.ln(), f32::NAN, 1.0, f32::NEG_INFINITY, 1.0];
        let (mask, scales) = ([1, 1, 0, 1, 1, 1], [1.0, 2.0]);
        let mut inputs = HostInputs::new(HostView::new(&x, [2, 3]).expect("rows"));
        inputs.mask = Some(HostView::new(&mask, [2, 3]).expect("a mask"));
        inputs.row_scale = Some(HostView::new(&scales, [2]).expect("scales"));
        let out = softmax(&SoftmaxConfig::new(), &inputs).expect("a softmax");
        close(&out.p, &[0.25, 0.75, 0.0, 0.5, 0.0, 0.5]);
        close(&out.lse, &[4.0_f64.ln(), 2.0 + 2.0_f64.ln()]);
        close(&out.entropy, &[4.0_f64.ln() - 0.75 * 3.0_f64.ln(), 2.0_f64.ln()]);
        let logs = softmax(&SoftmaxConfig::new().log(true), &inputs).expect("a softmax").p;
        close(&logs[..3], &[0.25_f64.ln(), 0.75_f64.ln(), f64::NEG_INFINITY]);
        // n is 2 in the first row and 3 in the second, whose −∞ counts.
        let config = SoftmaxConfig::new().scale(SoftmaxScale::KappaLogN { kappa: 1.0 });
        let lse = softmax(&config, &inputs).expect("a softmax").lse;
        close(&lse, &[(1.0 + 2.0_f64.ln().mul_add(3.0_f64.ln(), 0.0).exp()).ln(), 2.0 * 3.0_f64.ln() + 2.0_f64.ln()]);
    }

    #[test]
    fn taylor_by_hand() {
        let x = [0.0, 2.0, -1.0];
        let config = SoftmaxConfig::new().kind(SoftmaxKind::Taylor);
        let out = softmax(&config, &HostInputs::new(HostView::new(&x, [1, 3]).expect("a row"))).expect("a softmax");
        let p = [2.0 / 13.0, 10.0 / 13.0, 1.0 / 13.0];
        close(&out.p, &p);
        close(&out.lse, &[6.5_f64.ln()]);
        close(&out.entropy, &[-p.iter().map(|p: &f64| p * p.ln()).sum::<f64>()]);
    }

    #[test]
    fn identities() {
        let x: Vec<f32> = (0..40).map(|i| ((i * 37 % 41) as f32 - 20.0) / 8.0).collect();
        let shifted: Vec<f32> = x.iter().map(|x| x + 512.0).collect();
        let run = |x: &[f32], tau| {
            let config = SoftmaxConfig::new().scale(SoftmaxScale::Temperature(tau));
            softmax(&config, &HostInputs::new(HostView::new(x, [1, 40]).expect("a row"))).expect("a softmax")
        };
        let out = run(&x, 0.5);
        assert!((out.p.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        close(&run(&shifted, 0.5).p, &out.p);
        // log n − λ (max − mean) ≤ H ≤ log n, and H falls with the temperature.
        let (largest, mean) = (2.5, x.iter().map(|&x| f64::from(x)).sum::<f64>() / 40.0);
        let bound = 40.0_f64.ln();
        assert!(bound - 2.0 * (largest - mean) <= out.entropy[0] && out.entropy[0] < bound);
        assert!(run(&x, 0.25).entropy[0] < out.entropy[0]);
    }
}
