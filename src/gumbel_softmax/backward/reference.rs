//! The CPU twin of the backward pass: plain loops over the formula.

use super::super::reference as forward;
use super::GumbelSoftmaxConfig;
use crate::Result;
use crate::reference::{Real, SumOrder};

pub use super::HostInputs;

/// The gradients, row by row.
#[derive(Clone, Debug, PartialEq)]
pub struct HostOutputs<T> {
    /// `[rows, columns]`.
    pub dlogits: Vec<T>,
    /// As `tau`; empty if that is not given.
    pub dtau: Vec<T>,
}

/// The gradients in f64.
///
/// # Errors
/// As [`HostInputs::shapes`].
pub fn gumbel_softmax_backward(config: &GumbelSoftmaxConfig, inputs: &HostInputs) -> Result<HostOutputs<f64>> {
    gumbel_softmax_backward_in(config, inputs, SumOrder::InOrder)
}

/// [`gumbel_softmax_backward`] in another arithmetic or order of summation.
///
/// # Errors
/// As [`gumbel_softmax_backward`].
pub fn gumbel_softmax_backward_in<T: Real>(
    config: &GumbelSoftmaxConfig,
    inputs: &HostInputs,
    order: SumOrder,
) -> Result<HostOutputs<T>> {
    let shapes = inputs.shapes(config)?;
    let HostInputs { logits, key, dy, mask, tau, seeds, row_ids } = *inputs;
    let own = forward::HostInputs { logits, key, mask, tau, seeds, row_ids };
    let (mut dlogits, mut dtau) = (Vec::new(), Vec::new());
    for i in 0..shapes.rows as usize {
        let row = forward::Row::<T>::new(config, &own, i);
        let mut gradients = vec![T::new(if row.bad { f64::NAN } else { 0.0 }); shapes.columns as usize];
        let mut of_tau = gradients[0];
        if let (Some((_, largest)), false) = (row.best(), row.bad) {
            let y = row.soft(order);
            let dy = |at: usize| T::new(dy.at([i, row.scores[at].0]).into());
            let mean = forward::sum(order, y.len(), |at| y[at] * dy(at));
            let h: Vec<T> = y.iter().enumerate().map(|(at, &y)| y * (dy(at) - mean)).collect();
            row.scores.iter().zip(&h).for_each(|((column, _), &h)| gradients[*column] = h / row.tau);
            // h sums to 0, so that the largest score may be taken off.
            let sum = forward::sum(order, h.len(), |at| h[at] * (row.scores[at].1 - largest));
            of_tau = -sum / row.tau / row.tau;
        }
        dlogits.extend(gradients);
        dtau.push(of_tau);
    }
    let dtau = match shapes.taus {
        None => Vec::new(),
        Some(1) => vec![forward::sum(order, dtau.len(), |row| dtau[row])],
        Some(_) => dtau,
    };
    Ok(HostOutputs { dlogits, dtau })
}

/// All gradients, by name.
pub(super) fn by_name<T: Real>(
    config: &GumbelSoftmaxConfig,
    inputs: &HostInputs,
    order: SumOrder,
) -> Result<Vec<(&'static str, Vec<T>)>> {
    let HostOutputs { dlogits, dtau } = gumbel_softmax_backward_in(config, inputs, order)?;
    let dtau = inputs.tau.map(|_| ("dtau", dtau));
    Ok([("dlogits", dlogits)].into_iter().chain(dtau).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HostView;

    /// Σ dy · y of one row, from the noise in f64.
    fn loss(logits: &[f64], noise: &[f64], dy: &[f32], tau: f64) -> f64 {
        let weights: Vec<f64> = logits.iter().zip(noise).map(|(x, g)| ((x + g) / tau).exp()).collect();
        let sum: f64 = weights.iter().sum();
        weights.iter().zip(dy).map(|(w, d)| w / sum * f64::from(*d)).sum()
    }

    #[test]
    fn gradients_are_those_of_finite_differences() {
        let (logits, dy) = ([0.5, -1.0, 2.0, 0.25, 1.5, -0.75], [1.0, -2.0, 0.5, 3.0, -1.0, 0.25]);
        let (key, tau) = ([3, 0, 1, 2, 0], [0.75]);
        let config = GumbelSoftmaxConfig::new();
        let view = |data| HostView::new(data, [1, 6]).expect("a row");
        let (key, taus) = (HostView::new(&key, [5]).expect("a key"), HostView::new(&tau, [1]).expect("a number"));
        let inputs = HostInputs { tau: Some(taus), ..HostInputs::new(view(&logits), key, view(&dy)) };
        let got = gumbel_softmax_backward(&config, &inputs).expect("gradients");
        let own = forward::HostInputs::new(view(&logits), key);
        let noise = forward::gumbel_softmax(&config, &own).expect("noise").noise;
        let x: Vec<f64> = logits.iter().map(|&x| x.into()).collect();
        let step = 1e-6;
        for (i, got) in got.dlogits.iter().enumerate() {
            let at = |by: f64| {
                let mut x = x.clone();
                x[i] += by;
                loss(&x, &noise, &dy, 0.75)
            };
            assert!((got - (at(step) - at(-step)) / (2.0 * step)).abs() < 1e-8, "{i}: {got}");
        }
        let slope = (loss(&x, &noise, &dy, 0.75 + step) - loss(&x, &noise, &dy, 0.75 - step)) / (2.0 * step);
        assert!((got.dtau[0] - slope).abs() < 1e-8, "{} and {slope}", got.dtau[0]);
        assert!(got.dlogits.iter().sum::<f64>().abs() < 1e-15);
    }
}
