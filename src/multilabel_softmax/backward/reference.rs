//! The CPU twin of the backward pass: plain loops over the formula.

use super::super::config::MOST_EXPONENT;
use super::super::reference::{self as forward, lse, sum};
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
    let given = forward::HostInputs {
        labels: inputs.labels,
        label_indices: inputs.label_indices,
        label_list: inputs.label_list,
        label_offsets: inputs.label_offsets,
        soft_labels: inputs.soft_labels,
        mask: inputs.mask,
        threshold: inputs.threshold,
        ..forward::HostInputs::new(inputs.scores)
    };
    let [rows, classes] = [shapes.rows, shapes.classes].map(|extent| extent as usize);
    let (mut dscores, mut dsoft_labels) = (vec![zero; rows * classes], vec![zero; rows * classes]);
    // What each row adds to the gradient of a class's threshold.
    let mut added = vec![Vec::new(); classes];
    let held = |x: T| if x > T::new(MOST_EXPONENT) { T::new(MOST_EXPONENT) } else { x };
    for row in 0..rows {
        let dloss = inputs.dloss.at([if inputs.dloss.shape() == [1] { 0 } else { row }]);
        let g = T::new(dloss.into()) * T::new(config.factor(shapes.rows));
        let Some(terms) = given.terms::<T>(config, row) else {
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
    use super::*;
    use crate::HostView;

    #[test]
    fn two_classes_by_hand() {
        // Of 1 + e⁰ a half each, times 3.
        let (zeros, dloss) = ([0.0; 2], [3.0]);
        let view = |data| HostView::new(data, [1]).expect("a row");
        let scores = HostView::new(&zeros, [1, 2]).expect("a row");
        let mut inputs = HostInputs::new(scores, view(&zeros[..1]), view(&zeros[..1]), view(&dloss));
        inputs.labels = Some(HostView::new(&[0, 1], [1, 2]).expect("labels"));
        let out = multilabel_softmax_backward(&MultilabelSoftmaxConfig::new(), &inputs).expect("gradients");
        assert_eq!((out.dscores, out.dthreshold), (vec![1.5, -1.5], vec![]));
    }
}
