//! The CPU twin of margin softmax: plain loops over the formula.

use super::{MarginSoftmaxConfig, Reduction};
use crate::Result;
use crate::reference::{Real, SumOrder};

pub use super::HostInputs;

/// The whole result, rows in order.
#[derive(Clone, Debug, PartialEq)]
pub struct HostOutputs<T> {
    /// `[rows]`, or one number if reduced.
    pub loss: Vec<T>,
    /// `[rows]`.
    pub lse: Vec<T>,
    /// `[rows]`.
    pub entropy: Vec<T>,
    /// `[rows]`; `u32::MAX` where a cosine is NaN.
    pub predicted: Vec<u32>,
}

/// The loss in f64.
///
/// # Errors
/// As [`HostInputs::shapes`].
pub fn margin_softmax(config: &MarginSoftmaxConfig, inputs: &HostInputs) -> Result<HostOutputs<f64>> {
    margin_softmax_in(config, inputs, SumOrder::InOrder)
}

/// [`margin_softmax`] in another arithmetic or order of summation.
///
/// # Errors
/// As [`margin_softmax`].
pub fn margin_softmax_in<T: Real>(
    config: &MarginSoftmaxConfig,
    inputs: &HostInputs,
    order: SumOrder,
) -> Result<HostOutputs<T>> {
    let shapes = inputs.shapes(config)?;
    let [rows, classes, dim] = [shapes.rows, shapes.classes, shapes.dim].map(|extent| extent as usize);
    let (zero, one, nan) = (T::new(0.0), T::new(1.0), T::new(f64::NAN));
    let (scale, terms) = (T::new(config.scale.into()), config.margin.terms());
    let (dims, columns) = (order.indices(dim), order.indices(classes));
    let sum = |terms: &mut dyn Iterator<Item = T>| terms.fold(zero, |sum, term| sum + term);
    let [features, weights] = [&inputs.features, &inputs.weights].map(|tensor| {
        let rows = 0..tensor.shape()[0];
        let row = |i| (0..dim).map(|c| T::new(tensor.at([i, c]).into())).collect::<Vec<T>>();
        rows.map(row).collect::<Vec<_>>()
    });
    // 1 over a row's norm, or 0.
    let inverse = |row: &[T]| {
        let square = sum(&mut dims.iter().map(|&c| row[c] * row[c]));
        if !config.normalize {
            one
        } else if square == zero {
            zero
        } else {
            one / square.sqrt()
        }
    };
    let of_weights: Vec<T> = weights.iter().map(|row| inverse(row)).collect();

    let mut out = HostOutputs { loss: Vec::new(), lse: Vec::new(), entropy: Vec::new(), predicted: Vec::new() };
    for (i, feature) in features.iter().enumerate() {
        let label = inputs.labels.at([i]);
        let of_feature = inverse(feature);
        let cosine = |j: usize| sum(&mut dims.iter().map(|&c| feature[c] * weights[j][c])) * of_feature * of_weights[j];
        let cosines: Vec<T> = (0..classes).map(cosine).collect();
        let broken = cosines.iter().any(|c| c.to_f64().is_nan());
        let best = (1..classes).fold(0, |best, j| if cosines[j] > cosines[best] { j } else { best });
        out.predicted.push(if broken { u32::MAX } else { best as u32 });

        // All but the target's logit, relative to their largest.
        let target = label as usize;
        let others = || columns.iter().filter(|&&j| j != target).map(|&j| scale * terms.other(cosines[j]));
        let largest = others().reduce(Real::max);
        let all = match (largest, target < classes) {
            (Some(largest), true) => largest.max(scale * terms.target(cosines[target])),
            (None, true) => scale * terms.target(cosines[target]),
            (largest, false) => largest.unwrap_or(zero),
        };
        let rest = largest.map_or(zero, |largest| sum(&mut others().map(|logit| (logit - largest).exp())));
        let own = (target < classes).then(|| scale * terms.target(cosines[target]) - all);
        let below = |logit: T| logit - all;
        let total = sum(&mut others().map(|logit| below(logit).exp()).chain(own.map(Real::exp)));
        let mixed = sum(&mut others().map(|logit| below(logit).exp() * below(logit)).chain(own.map(|x| x.exp() * x)));
        let loss = match (own, largest) {
            (Some(own), Some(largest)) => {
                let above = largest - all - own + rest.ln();
                above.max(zero) + (one + (-above.max(-above)).exp()).ln()
            }
            _ => zero,
        };
        let ignored = label == u32::MAX;
        let unknown = broken || !ignored && target >= classes;
        out.loss.push(if ignored {
            zero
        } else if unknown {
            nan
        } else {
            loss
        });
        out.lse.push(if unknown { nan } else { all + total.ln() });
        out.entropy.push(if unknown { nan } else { total.ln() - mixed / total });
    }
    let labelled = (0..rows).filter(|&i| inputs.labels.at([i]) != u32::MAX).count();
    let all = || sum(&mut order.indices(rows).into_iter().map(|i| out.loss[i]));
    out.loss = match config.reduction {
        Reduction::None => out.loss,
        Reduction::Sum => vec![all()],
        Reduction::Mean => vec![all() / T::new(labelled.max(1) as f64)],
    };
    Ok(out)
}

/// All outputs, by name.
pub(super) fn by_name<T: Real>(
    config: &MarginSoftmaxConfig,
    inputs: &HostInputs,
    order: SumOrder,
) -> Result<Vec<(&'static str, Vec<T>)>> {
    let HostOutputs { loss, lse, entropy, predicted } = margin_softmax_in(config, inputs, order)?;
    let predicted = predicted.into_iter().map(|class| T::new(class.into())).collect();
    Ok(vec![("loss", loss), ("lse", lse), ("entropy", entropy), ("predicted", predicted)])
}

#[cfg(test)]
mod tests {
    use super::super::{Arc, Margin};
    use super::*;
    use crate::HostView;

    fn run(
        config: MarginSoftmaxConfig,
        features: &[f32],
        weights: &[f32],
        labels: &[u32],
        dim: usize,
    ) -> HostOutputs<f64> {
        let features = HostView::new(features, [features.len() / dim, dim]).expect("rows");
        let weights = HostView::new(weights, [weights.len() / dim, dim]).expect("classes");
        let labels = HostView::new(labels, [labels.len()]).expect("labels");
        margin_softmax(&config, &HostInputs::new(features, weights, labels)).expect("a loss")
    }

    #[test]
    fn a_row_by_hand() {
        // Cosines 0.6, 0.8 and 0 for norms 5, 2, 1 and 3.
        let (features, weights) = ([3.0, 4.0], [2.0, 0.0, 0.0, 1.0, 0.0, 0.0]);
        let config = MarginSoftmaxConfig::new().margin(Margin::Cosine { m: 0.2 }).scale(2.0);
        let out = run(config, &features, &weights, &[0], 2);
        let (target, others) = (0.8_f64.exp(), 1.6_f64.exp() + 1.0);
        assert!((out.loss[0] - (1.0 + others / target).ln()).abs() < 1e-7, "{out:?}");
        assert!((out.lse[0] - (target + others).ln()).abs() < 1e-7, "{out:?}");
        assert_eq!(out.predicted, [1]);
    }

    #[test]
    fn margins_are_what_their_angles_say() {
        for step in 0..200 {
            let theta = (f64::from(step) + 0.5) * std::f64::consts::PI / 200.0;
            let c = theta.cos();
            let at = |margin: Margin| margin.terms().target(c);
            let m = f64::from(0.5_f32);
            let close = |what: &str, got: f64, want: f64| assert!((got - want).abs() < 1e-12, "{what}: {got}, {want}");
            close("cosine", at(Margin::Cosine { m: 0.5 }), c - m);
            close("angular", at(Margin::Angular { m: 0.5, beyond: Arc::Plain }), (theta + m).cos());
            let easy = if c > 0.0 { (theta + m).cos() } else { c };
            close("easy", at(Margin::Angular { m: 0.5, beyond: Arc::Easy }), easy);
            let falls = if theta + m < std::f64::consts::PI { (theta + m).cos() } else { c - m * m.sin() };
            close("monotone", at(Margin::Angular { m: 0.5, beyond: Arc::Monotone }), falls);
            for times in 1..=4 {
                let n = f64::from(times);
                let k = (theta * n / std::f64::consts::PI).floor();
                let sign = if k % 2.0 == 0.0 { 1.0 } else { -1.0 };
                close("sphere", at(Margin::Sphere { m: times }), sign * (n * theta).cos() - 2.0 * k);
                close("least", at(Margin::SphereMin { m: times }), (n * theta).cos().min(c));
                let combined = Margin::Combined { m1: times, m2: 0.5, m3: 0.25 };
                close("combined", at(combined), (n * theta + m).cos() - 0.25);
            }
            close("metric", at(Margin::Metric { m: 0.5 }), -(1.0 - c).sqrt() - m);
        }
    }

    #[test]
    fn labels_that_are_none_or_no_class() {
        let (features, weights) = ([1.0, 0.0, 0.0, 2.0, 1.0, 1.0], [1.0, 0.0, 0.0, 1.0]);
        let labels = [u32::MAX, 0, 2];
        let out = run(MarginSoftmaxConfig::new().scale(1.0), &features, &weights, &labels, 2);
        assert!(out.loss[0] == 0.0 && out.loss[1] > 1.0 && out.loss[2].is_nan(), "{out:?}");
        assert!((out.lse[0] - (1.0 + 1.0_f64.exp()).ln()).abs() < 1e-12, "{out:?}");
        let mean = MarginSoftmaxConfig::new().scale(1.0).reduction(Reduction::Mean);
        assert_eq!(run(mean, &features[..4], &weights, &labels[..2], 2).loss, [out.loss[1]]);
        assert_eq!(run(mean, &features[..2], &weights, &labels[..1], 2).loss, [0.0]);
        // A norm of 0: every cosine is 0.
        let out = run(MarginSoftmaxConfig::new(), &[0.0, 0.0], &weights, &[1], 2);
        assert!((out.loss[0] - 2.0_f64.ln()).abs() < 1e-12, "{out:?}");
    }
}
