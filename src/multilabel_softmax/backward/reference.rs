//! The CPU twin of the backward pass: plain loops over the formula.

use super::super::config::MOST_EXPONENT;
use super::super::reference::{given, lse, sum};
use super::super::{Labels, MultilabelSoftmaxConfig, Threshold};
use crate::Result;
use crate::reference::{Real, SumOrder};

pub use super::HostInputs;

/// All gradients.
#[derive(Clone, Debug, PartialEq)]
pub struct HostOutputs<T> {
    /// `[rows, classes]`.
    pub dscores: Vec<T>,
    /// `[rows, classes]`; empty unless labels are soft.
    pub dsoft_labels: Vec<T>,
    /// `[1]` or `[classes]`; empty unless the threshold is a tensor.
    pub dthreshold: Vec<T>,
}

/// The gradients in f64.
///
/// # Errors
/// As [`HostInputs::shapes`].
pub fn multilabel_softmax_backward(config: &MultilabelSoftmaxConfig, inputs: &HostInputs) -> Result<HostOutputs<f64>> {
    multilabel_softmax_backward_in(config, inputs, SumOrder::InOrder)
}

/// [`multilabel_softmax_backward`] in another arithmetic or order of summation.
///
/// # Errors
/// As [`multilabel_softmax_backward`].
pub fn multilabel_softmax_backward_in<T: Real>(
    config: &MultilabelSoftmaxConfig,
    inputs: &HostInputs,
    order: SumOrder,
) -> Result<HostOutputs<T>> {
    let shapes = inputs.shapes(config)?;
    let (zero, nan) = (T::new(0.0), T::new(f64::NAN));
    let given = given!(config, inputs);
    let [rows, classes] = [shapes.rows, shapes.classes].map(|extent| extent as usize);
    let (mut dscores, mut dsoft_labels) = (vec![zero; rows * classes], vec![zero; rows * classes]);
    // What each row adds to the gradient of a class's threshold.
    let mut added = vec![Vec::new(); classes];
    let held = |x: T| if x > T::new(MOST_EXPONENT) { T::new(MOST_EXPONENT) } else { x };
    for row in 0..rows {
        let dloss = inputs.dloss.at([if inputs.dloss.shape() == [1] { 0 } else { row }]);
        let g = T::new(dloss.into()) * T::new(config.factor(shapes.rows));
        let Some(terms) = given.terms::<T>(row, classes) else {
            for class in (0..classes).filter(|&class| given.takes_part(row, class)) {
                (dscores[row * classes + class], dsoft_labels[row * classes + class]) = (nan, nan);
            }
            continue;
        };
        let [neg, pos] = [lse(&terms, order, |t| (t.negative, t.x)), lse(&terms, order, |t| (t.positive, -t.x))];
        for term in terms {
            let [up, down] = [held(term.x - neg).exp(), held(-term.x - pos).exp()];
            let ds = g * (term.negative * up - term.positive * down);
            dscores[row * classes + term.class] = ds;
            dsoft_labels[row * classes + term.class] = g * (down - up);
            added[term.class].push(-ds);
        }
    }
    let dthreshold = match config.threshold {
        Threshold::Fixed(_) => Vec::new(),
        Threshold::Tensor if shapes.thresholds == 1 => vec![sum(&added.concat(), order)],
        Threshold::Tensor => added.iter().map(|added| sum(added, order)).collect(),
    };
    if config.labels != Labels::Soft {
        dsoft_labels.clear();
    }
    Ok(HostOutputs { dscores, dsoft_labels, dthreshold })
}

/// All outputs, by name.
pub(super) fn by_name<T: Real>(
    config: &MultilabelSoftmaxConfig,
    inputs: &HostInputs,
    order: SumOrder,
) -> Result<Vec<(&'static str, Vec<T>)>> {
    let out = multilabel_softmax_backward_in(config, inputs, order)?;
    let soft = (config.labels == Labels::Soft).then_some(("dsoft_labels", out.dsoft_labels));
    let threshold = (config.threshold == Threshold::Tensor).then_some(("dthreshold", out.dthreshold));
    Ok([("dscores", out.dscores)].into_iter().chain(soft).chain(threshold).collect())
}

#[cfg(test)]
mod tests {
    use super::super::super::Reduction;
    use super::super::super::reference::{self as forward, multilabel_softmax};
    use super::*;
    use crate::HostView;

    const CLASSES: usize = 4;
    const DLOSS: [f32; 2] = [0.7, -1.3];
    const MASK: [u8; 8] = [1, 1, 0, 1, 1, 1, 1, 1];

    struct Numbers {
        scores: Vec<f32>,
        labels: Vec<f32>,
        threshold: Vec<f32>,
    }

    fn config() -> MultilabelSoftmaxConfig {
        MultilabelSoftmaxConfig::new().labels(Labels::Soft).threshold(Threshold::Tensor)
    }

    impl Numbers {
        fn new(thresholds: usize) -> Self {
            Self {
                scores: vec![0.5, -1.25, 3.0, 0.75, 2.0, -0.5, 1.0, -3.0],
                labels: vec![0.25, 0.5, 0.75, 1.0, 0.0, 0.625, 0.125, 0.875],
                threshold: vec![0.25, -0.5, 0.0, 1.0][..thresholds].to_vec(),
            }
        }

        /// Σ dloss · loss.
        fn weighted(&self) -> f64 {
            let view = |data| HostView::new(data, [2, CLASSES]).expect("rows");
            let inputs = forward::HostInputs {
                soft_labels: Some(view(&self.labels)),
                mask: Some(HostView::new(&MASK, [2, CLASSES]).expect("a mask")),
                threshold: Some(HostView::new(&self.threshold, [self.threshold.len()]).expect("a threshold")),
                ..forward::HostInputs::new(view(&self.scores))
            };
            let losses = multilabel_softmax(&config(), &inputs).expect("a loss").loss;
            losses.iter().zip(DLOSS).map(|(loss, g)| loss * f64::from(g)).sum()
        }

        fn gradients(&self, config: &MultilabelSoftmaxConfig, dloss: &[f32]) -> HostOutputs<f64> {
            let view = |data| HostView::new(data, [2, CLASSES]).expect("rows");
            let lse = HostView::new(&[0.0, 0.0], [2]).expect("two");
            let dloss = HostView::new(dloss, [dloss.len()]).expect("gradients");
            let inputs = HostInputs {
                soft_labels: Some(view(&self.labels)),
                mask: Some(HostView::new(&MASK, [2, CLASSES]).expect("a mask")),
                threshold: Some(HostView::new(&self.threshold, [self.threshold.len()]).expect("a threshold")),
                ..HostInputs::new(view(&self.scores), lse, lse, dloss)
            };
            multilabel_softmax_backward(config, &inputs).expect("gradients")
        }
    }

    /// A step that leaves all numbers exact in f32.
    const STEP: f32 = 1.0 / 4096.0;

    #[test]
    fn gradients_are_the_differences_of_the_loss() {
        for thresholds in [1, CLASSES] {
            let base = Numbers::new(thresholds);
            let found = base.gradients(&config(), &DLOSS);
            type Field = fn(&mut Numbers) -> &mut Vec<f32>;
            let fields: [(Field, &[f64]); 3] = [
                (|n| &mut n.scores, &found.dscores),
                (|n| &mut n.labels, &found.dsoft_labels),
                (|n| &mut n.threshold, &found.dthreshold),
            ];
            for (field, gradient) in fields {
                for (at, &got) in gradient.iter().enumerate() {
                    let moved = |by: f32| {
                        let mut numbers = Numbers::new(thresholds);
                        field(&mut numbers)[at] += by;
                        numbers.weighted()
                    };
                    // A label of 0 or 1 cannot be moved to both sides.
                    let own = field(&mut Numbers::new(thresholds))[at];
                    if (own == 0.0 || own == 1.0) && std::ptr::eq(gradient, &found.dsoft_labels[..]) {
                        continue;
                    }
                    // Of two steps, so that the error is the step to the fourth.
                    let slope = |step: f32| (moved(step) - moved(-step)) / f64::from(2.0 * step);
                    let want = (4.0 * slope(STEP / 2.0) - slope(STEP)) / 3.0;
                    assert!((got - want).abs() <= 1e-9, "element {at} of {thresholds}: got {got}, want {want}");
                }
            }
        }
    }

    #[test]
    fn one_threshold_has_the_sum_of_all_and_a_mean_a_share() {
        let (one, each) = (Numbers::new(1), Numbers::new(1));
        let found = one.gradients(&config(), &DLOSS);
        let sum: f64 = found.dscores.iter().sum();
        assert!((found.dthreshold[0] + sum).abs() < 1e-14);
        let mean = each.gradients(&config().reduction(Reduction::Mean), &[1.5]);
        let alike = each.gradients(&config(), &[0.75, 0.75]);
        assert_eq!(mean, alike);
        assert_eq!((found.dscores[2], found.dsoft_labels[2]), (0.0, 0.0), "a class that takes no part");
    }

    #[test]
    fn a_broken_row_adds_nothing_to_what_rows_share() {
        let mut numbers = Numbers::new(CLASSES);
        (numbers.scores[0], numbers.labels[2]) = (f32::NAN, f32::NAN);
        let found = numbers.gradients(&config(), &DLOSS);
        let nan: Vec<_> = found.dscores.iter().map(|ds| ds.is_nan()).collect();
        assert_eq!(nan, [true, true, false, true, false, false, false, false]);
        assert!(found.dthreshold.iter().zip(&found.dscores[4..]).all(|(a, b)| *a == -b));
    }
}
