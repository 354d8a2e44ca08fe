//! The CPU twin of the softmax's backward pass: plain loops over the formula.

use super::SoftmaxConfig;
use crate::Result;
use crate::reference::{Real, SumOrder};
use crate::softmax::reference::Row;

pub use super::HostInputs;

/// The whole result.
#[derive(Clone, Debug, PartialEq)]
pub struct HostOutputs<T> {
    /// `[rows, columns]`.
    pub dx: Vec<T>,
    /// As `row_scale`; empty if there is none.
    pub drow_scale: Vec<T>,
}

/// The gradients in f64.
///
/// # Errors
/// As [`HostInputs::shapes`], and for a config out of range.
pub fn softmax_backward(config: &SoftmaxConfig, inputs: &HostInputs) -> Result<HostOutputs<f64>> {
    softmax_backward_in(config, inputs, SumOrder::InOrder)
}

/// [`softmax_backward`] in another arithmetic or order of summation.
///
/// # Errors
/// As [`softmax_backward`].
pub fn softmax_backward_in<T: Real>(
    config: &SoftmaxConfig,
    inputs: &HostInputs,
    order: SumOrder,
) -> Result<HostOutputs<T>> {
    let shapes = inputs.shapes(config)?;
    let (real, zero) = (|value: f32| T::new(value.into()), T::new(0.0));
    let mut dx = Vec::new();
    let mut slopes = Vec::new();
    for i in 0..shapes.rows as usize {
        let row = Row::<T>::new(config, (inputs.x, inputs.mask, inputs.row_scale), i, order);
        let dp = |index: usize| inputs.dp.map_or(zero, |dp| real(dp.at([i, row.seen[index]])));
        let [dlse, dentropy] = [inputs.dlse, inputs.dentropy].map(|d| d.map_or(zero, |d| real(d.at([i]))));
        let indices = order.indices(row.seen.len());
        // What comes in, along p.
        let mut incoming = zero;
        indices.iter().for_each(|&j| incoming += if config.log { dp(j) } else { row.p[j] * dp(j) });
        let ds: Vec<T> = (0..row.seen.len())
            .map(|j| {
                let common = dlse - incoming - dentropy * (row.log_p[j] + row.entropy);
                // Where p is 0, log p may be anything; what comes in is NaN all the same where it is.
                let common = row.p[j] * if row.p[j].to_f64() == 0.0 { dlse - incoming } else { common };
                row.growth[j] * if config.log { dp(j) + common } else { row.p[j] * dp(j) + common }
            })
            .collect();
        let mut gradient = vec![zero; shapes.columns as usize];
        row.seen.iter().zip(&ds).for_each(|(&j, &own)| gradient[j] = row.scale * own);
        dx.extend(gradient);
        let mut slope = zero;
        indices.iter().for_each(|&j| slope += ds[j] * real(inputs.x.at([i, row.seen[j]])));
        slopes.push(row.term * slope);
    }
    let drow_scale = match shapes.row_scale {
        None => Vec::new(),
        Some(1) => {
            let mut sum = zero;
            order.indices(slopes.len()).iter().for_each(|&i| sum += slopes[i]);
            vec![sum]
        }
        Some(_) => slopes,
    };
    Ok(HostOutputs { dx, drow_scale })
}

/// All outputs, by name.
pub(super) fn by_name<T: Real>(
    config: &SoftmaxConfig,
    inputs: &HostInputs,
    order: SumOrder,
) -> Result<Vec<(&'static str, Vec<T>)>> {
    let HostOutputs { dx, drow_scale } = softmax_backward_in(config, inputs, order)?;
    let drow_scale = inputs.row_scale.map(|_| ("drow_scale", drow_scale));
    Ok(std::iter::once(("dx", dx)).chain(drow_scale).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::softmax::reference::{HostInputs as Forward, softmax};
    use crate::{HostView, SoftmaxKind, SoftmaxScale};

    const ROWS: usize = 3;
    const COLUMNS: usize = 7;

    fn numbers(seed: u64, count: usize) -> Vec<f32> {
        let mut state = seed;
        (0..count).map(|_| (crate::reference::split_mix(&mut state) >> 40) as f32 / (1 << 23) as f32 - 1.0).collect()
    }

    /// What the gradients are those of: all outputs, weighed.
    fn loss(config: &SoftmaxConfig, x: &[f32], mask: &[u8], scales: &[f32], weights: [&[f32]; 3]) -> f64 {
        let mut inputs = Forward::new(HostView::new(x, [ROWS, COLUMNS]).expect("rows"));
        inputs.mask = Some(HostView::new(mask, [ROWS, COLUMNS]).expect("a mask"));
        inputs.row_scale = Some(HostView::new(scales, [scales.len()]).expect("scales"));
        let out = softmax(config, &inputs).expect("a softmax");
        let weighed = |out: &[f64], weights: &[f32]| -> f64 {
            let pairs = out.iter().zip(weights).filter(|(own, _)| own.is_finite());
            pairs.map(|(own, weight)| own * f64::from(*weight)).sum()
        };
        weighed(&out.p, weights[0]) + weighed(&out.lse, weights[1]) + weighed(&out.entropy, weights[2])
    }

    #[test]
    fn gradients_are_finite_differences() {
        let x = numbers(1, ROWS * COLUMNS);
        let mut mask = vec![1; ROWS * COLUMNS];
        (mask[3], mask[15]) = (0, 0);
        let [dp, dlse, dentropy] =
            [(2, ROWS * COLUMNS), (3, ROWS), (4, ROWS)].map(|(seed, count)| numbers(seed, count));
        use SoftmaxKind::{Softmax, Taylor};
        for (kind, log, count) in [
            (Softmax, false, ROWS),
            (Softmax, true, ROWS),
            (Softmax, false, 1),
            (Softmax, true, 1),
            (Taylor, false, ROWS),
            (Taylor, true, 1),
        ] {
            let config = SoftmaxConfig::new().kind(kind).scale(SoftmaxScale::KappaLogN { kappa: 1.5 }).log(log);
            let scales: Vec<f32> = numbers(5, count).iter().map(|x| 1.0 + x).collect();
            let mut inputs = HostInputs::of(HostView::new(&x, [ROWS, COLUMNS]).expect("rows"));
            inputs.mask = Some(HostView::new(&mask, [ROWS, COLUMNS]).expect("a mask"));
            inputs.row_scale = Some(HostView::new(&scales, [count]).expect("scales"));
            inputs.dp = Some(HostView::new(&dp, [ROWS, COLUMNS]).expect("rows"));
            inputs.dlse = Some(HostView::new(&dlse, [ROWS]).expect("rows"));
            inputs.dentropy = Some(HostView::new(&dentropy, [ROWS]).expect("rows"));
            let out = softmax_backward(&config, &inputs).expect("gradients");
            let weights = [&dp[..], &dlse, &dentropy];
            // A step that f32 holds exactly; the error of a central one is of its square.
            let step = 1.0 / 1024.0_f32;
            let along = |change: &dyn Fn(f32) -> f64| (change(step) - change(-step)) / (2.0 * f64::from(step));
            let checks = |name: &str, got: f64, want: f64| assert!((got - want).abs() < 2e-5, "{name}: {got} {want}");
            for at in 0..x.len() {
                let change = |by: f32| {
                    let mut x = x.clone();
                    x[at] += by;
                    loss(&config, &x, &mask, &scales, weights)
                };
                checks("dx", out.dx[at], along(&change));
            }
            for at in 0..count {
                let change = |by: f32| {
                    let mut scales = scales.clone();
                    scales[at] += by;
                    loss(&config, &x, &mask, &scales, weights)
                };
                checks("drow_scale", out.drow_scale[at], along(&change));
            }
        }
    }

    #[test]
    fn an_even_gradient_of_p_is_none_and_one_of_lse_is_p() {
        let x = numbers(1, ROWS * COLUMNS);
        let mut inputs = HostInputs::of(HostView::new(&x, [ROWS, COLUMNS]).expect("rows"));
        let even = [0.5; ROWS * COLUMNS];
        inputs.dp = Some(HostView::new(&even, [ROWS, COLUMNS]).expect("rows"));
        let out = softmax_backward(&SoftmaxConfig::new(), &inputs).expect("gradients");
        assert!(out.dx.iter().all(|own| own.abs() < 1e-12));
        inputs.dp = None;
        inputs.dlse = Some(HostView::new(&[1.0; ROWS], [ROWS]).expect("rows"));
        let out = softmax_backward(&SoftmaxConfig::new(), &inputs).expect("gradients");
        let p = softmax(&SoftmaxConfig::new(), &Forward::new(inputs.x)).expect("a softmax").p;
        assert!(out.dx.iter().zip(&p).all(|(dx, p)| (dx - p).abs() < 1e-12));
    }
}
