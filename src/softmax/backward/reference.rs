//! The CPU twin of the softmax's backward pass: plain loops over the formula.

use super::SoftmaxConfig;
use crate::Result;
use crate::reference::{Real, SumOrder};
use crate::softmax::reference::{Given, Row};

pub use super::HostInputs;

/// The whole result.
#[derive(Clone, Debug, PartialEq)]
pub struct HostOutputs<T> {
    /// `[rows, columns]`.
    pub dx: Vec<T>,
    /// As `row_scale`; empty if there is none.
    pub drow_scale: Vec<T>,
    /// As `alpha`; empty if there is none.
    pub dalpha: Vec<T>,
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
    let (mut dx, mut slopes, mut alphas) = (Vec::new(), Vec::new(), Vec::new());
    let HostInputs { x, mask, row_scale, alpha, labels, .. } = *inputs;
    for i in 0..shapes.rows as usize {
        let row = Row::<T>::new(config, &Given { x, mask, row_scale, alpha, labels }, i, order);
        let dp = |index: usize| inputs.dp.map_or(zero, |dp| real(dp.at([i, row.seen[index]])));
        let [dlse, dentropy, dloss] =
            [inputs.dlse, inputs.dentropy, inputs.dloss].map(|d| d.map_or(zero, |d| real(d.at([i]))));
        let dloss = match (row.is_labelled, row.is_outside) {
            (false, _) => zero,
            (_, true) => T::new(f64::NAN),
            _ => dloss,
        };
        let indices = order.indices(row.seen.len());
        let mut ds: Vec<T> = match &row.threshold {
            Some(own) => {
                let g: Vec<T> = (0..row.seen.len()).map(|j| dp(j) - dentropy * row.log_p[j]).collect();
                alphas.push(if row.seen.is_empty() { zero } else { own.dalpha(&g, dloss, order) });
                own.backward(&g, order)
            }
            None => {
                alphas.push(zero);
                // What comes in, along p.
                let mut incoming = zero;
                indices.iter().for_each(|&j| incoming += if config.log { dp(j) } else { row.p[j] * dp(j) });
                let of_p = |j: usize| {
                    let common = dlse - incoming - dentropy * (row.log_p[j] + row.entropy);
                    // Where p is 0, log p may be anything; what comes in is NaN all the same where it is.
                    let common = row.p[j] * if row.p[j].to_f64() == 0.0 { dlse - incoming } else { common };
                    row.growth[j] * if config.log { dp(j) + common } else { row.p[j] * dp(j) + common }
                };
                (0..row.seen.len()).map(of_p).collect()
            }
        };
        if row.is_labelled {
            for (j, ds) in ds.iter_mut().enumerate() {
                *ds += dloss * (row.p[j] - if row.label == Some(j) { real(1.0) } else { zero });
            }
        }
        let mut gradient = vec![zero; shapes.columns as usize];
        row.seen.iter().zip(&ds).for_each(|(&j, &own)| gradient[j] = row.scale * own);
        dx.extend(gradient);
        let mut slope = zero;
        indices.iter().for_each(|&j| slope += ds[j] * real(inputs.x.at([i, row.seen[j]])));
        slopes.push(row.term * slope);
    }
    let gathered = |count: Option<u32>, of_rows: Vec<T>| match count {
        None => Vec::new(),
        Some(1) => {
            let mut sum = zero;
            order.indices(of_rows.len()).iter().for_each(|&i| sum += of_rows[i]);
            vec![sum]
        }
        Some(_) => of_rows,
    };
    Ok(HostOutputs { dx, drow_scale: gathered(shapes.row_scale, slopes), dalpha: gathered(shapes.alpha, alphas) })
}

/// All outputs, by name.
pub(super) fn by_name<T: Real>(
    config: &SoftmaxConfig,
    inputs: &HostInputs,
    order: SumOrder,
) -> Result<Vec<(&'static str, Vec<T>)>> {
    let HostOutputs { dx, drow_scale, dalpha } = softmax_backward_in(config, inputs, order)?;
    let drow_scale = inputs.row_scale.map(|_| ("drow_scale", drow_scale));
    let dalpha = inputs.alpha.map(|_| ("dalpha", dalpha));
    Ok(std::iter::once(("dx", dx)).chain(drow_scale).chain(dalpha).collect())
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

    const LABELS: [u32; ROWS] = [2, u32::MAX, 6];

    /// What the gradients are those of: all outputs, weighed.
    fn loss(
        config: &SoftmaxConfig,
        x: &[f32],
        mask: &[u8],
        [scales, alphas]: [&[f32]; 2],
        weights: [&[f32]; 4],
    ) -> f64 {
        let mut inputs = Forward::new(HostView::new(x, [ROWS, COLUMNS]).expect("rows"));
        inputs.mask = Some(HostView::new(mask, [ROWS, COLUMNS]).expect("a mask"));
        inputs.row_scale = Some(HostView::new(scales, [scales.len()]).expect("scales"));
        inputs.alpha = alphas.first().map(|_| HostView::new(alphas, [alphas.len()]).expect("alphas"));
        inputs.labels = has_loss(config).then(|| HostView::new(&LABELS, [ROWS]).expect("labels"));
        let out = softmax(config, &inputs).expect("a softmax");
        let weighed = |out: &[f64], weights: &[f32]| -> f64 {
            let pairs = out.iter().zip(weights).filter(|(own, _)| own.is_finite());
            pairs.map(|(own, weight)| own * f64::from(*weight)).sum()
        };
        let lse = if config.kind.alpha().is_some() { 0.0 } else { weighed(&out.lse, weights[1]) };
        weighed(&out.p, weights[0]) + lse + weighed(&out.entropy, weights[2]) + weighed(&out.loss, weights[3])
    }

    fn has_loss(config: &SoftmaxConfig) -> bool {
        !matches!(config.kind, SoftmaxKind::Taylor | SoftmaxKind::TopK { .. })
    }

    #[test]
    fn gradients_are_finite_differences() {
        let x = numbers(1, ROWS * COLUMNS);
        let mut mask = vec![1; ROWS * COLUMNS];
        (mask[3], mask[15]) = (0, 0);
        let [dp, dlse, dentropy, dloss] =
            [(2, ROWS * COLUMNS), (3, ROWS), (4, ROWS), (6, ROWS)].map(|(seed, count)| numbers(seed, count));
        use SoftmaxKind::{Entmax, Softmax, Sparsemax, Taylor, TopK};
        for (kind, log, count) in [
            (Softmax, false, ROWS),
            (Softmax, true, ROWS),
            (Softmax, false, 1),
            (Softmax, true, 1),
            (Taylor, false, ROWS),
            (Taylor, true, 1),
            (TopK { k: 3 }, false, ROWS),
            (TopK { k: 4 }, true, ROWS),
            (Sparsemax, false, ROWS),
            (Entmax { alpha: 1.5 }, false, ROWS),
            (Entmax { alpha: 1.3 }, false, 1),
            (Entmax { alpha: 1.8 }, false, ROWS),
            (Entmax { alpha: 1.0 + 1.0 / 512.0 }, false, ROWS),
        ] {
            let config = SoftmaxConfig::new().kind(kind).scale(SoftmaxScale::KappaLogN { kappa: 1.5 }).log(log);
            let scales: Vec<f32> = numbers(5, count).iter().map(|x| 1.0 + x).collect();
            let mut inputs = HostInputs::of(HostView::new(&x, [ROWS, COLUMNS]).expect("rows"));
            inputs.mask = Some(HostView::new(&mask, [ROWS, COLUMNS]).expect("a mask"));
            inputs.row_scale = Some(HostView::new(&scales, [count]).expect("scales"));
            inputs.dp = Some(HostView::new(&dp, [ROWS, COLUMNS]).expect("rows"));
            inputs.dlse = Some(HostView::new(&dlse, [ROWS]).expect("rows"));
            inputs.dentropy = Some(HostView::new(&dentropy, [ROWS]).expect("rows"));
            if config.kind.alpha().is_some() {
                inputs.dlse = None;
            }
            let alphas: Vec<f32> = match config.kind {
                Entmax { alpha } => (0..count).map(|i| alpha + i as f32 / 16.0).collect(),
                _ => Vec::new(),
            };
            inputs.alpha = alphas.first().map(|_| HostView::new(&alphas, [count]).expect("alphas"));
            if has_loss(&config) {
                inputs.labels = Some(HostView::new(&LABELS, [ROWS]).expect("labels"));
                inputs.dloss = Some(HostView::new(&dloss, [ROWS]).expect("rows"));
            }
            let out = softmax_backward(&config, &inputs).expect("gradients");
            let weights = [&dp[..], &dlse, &dentropy, &dloss];
            // A step that f32 holds exactly; the error of a central one is of its square.
            let step = 1.0 / 8192.0_f32;
            let along = |change: &dyn Fn(f32) -> f64| (change(step) - change(-step)) / (2.0 * f64::from(step));
            let checks = |name: &str, got: f64, want: f64| {
                assert!((got - want).abs() < 2e-5, "{kind:?} {log} {name}: {got} {want}");
            };
            for at in 0..x.len() {
                let change = |by: f32| {
                    let mut x = x.clone();
                    x[at] += by;
                    loss(&config, &x, &mask, [&scales, &alphas], weights)
                };
                checks("dx", out.dx[at], along(&change));
            }
            for at in 0..count {
                let change = |by: f32| {
                    let mut scales = scales.clone();
                    scales[at] += by;
                    loss(&config, &x, &mask, [&scales, &alphas], weights)
                };
                checks("drow_scale", out.drow_scale[at], along(&change));
            }
            for at in 0..alphas.len() {
                let change = |by: f32| {
                    let mut alphas = alphas.clone();
                    alphas[at] += by;
                    loss(&config, &x, &mask, [&scales, &alphas], weights)
                };
                checks("dalpha", out.dalpha[at], along(&change));
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
