//! The CPU twin of the multi-label loss: plain loops over the formula.

use super::config::LEAST_LABEL;
use super::config::MOST;
use super::{Labels, MultilabelSoftmaxConfig, Reduction};
use crate::Result;
use crate::reference::{Real, SumOrder};

pub use super::HostInputs;

/// The whole result.
#[derive(Clone, Debug, PartialEq)]
pub struct HostOutputs<T> {
    /// `[rows]`, or `[1]` if reduced; empty without labels, as are the next two.
    pub loss: Vec<T>,
    /// `[rows]`.
    pub lse_neg: Vec<T>,
    /// `[rows]`.
    pub lse_pos: Vec<T>,
    /// `[rows, classes]`.
    pub predictions: Vec<T>,
    /// `[rows, classes]`.
    pub probabilities: Vec<T>,
}

/// The loss in f64.
///
/// # Errors
/// As [`HostInputs::shapes`].
pub fn multilabel_softmax(config: &MultilabelSoftmaxConfig, inputs: &HostInputs) -> Result<HostOutputs<f64>> {
    multilabel_softmax_in(config, inputs, SumOrder::InOrder)
}

/// [`multilabel_softmax`] in another arithmetic or order of summation.
///
/// # Errors
/// As [`multilabel_softmax`].
pub fn multilabel_softmax_in<T: Real>(
    config: &MultilabelSoftmaxConfig,
    inputs: &HostInputs,
    order: SumOrder,
) -> Result<HostOutputs<T>> {
    let shapes = inputs.shapes(config)?;
    let (zero, one, nan) = (T::new(0.0), T::new(1.0), T::new(f64::NAN));
    let [rows, classes] = [shapes.rows, shapes.classes].map(|extent| extent as usize);
    let empty = Vec::new;
    let mut out =
        HostOutputs { loss: empty(), lse_neg: empty(), lse_pos: empty(), predictions: empty(), probabilities: empty() };
    for row in 0..rows {
        if config.labels != Labels::None {
            let (neg, pos) = match inputs.terms::<T>(config, row) {
                Some(terms) => (lse(&terms, order, |t| (t.negative, t.x)), lse(&terms, order, |t| (t.positive, -t.x))),
                None => (nan, nan),
            };
            out.loss.push(neg + pos);
            out.lse_neg.push(neg);
            out.lse_pos.push(pos);
        }
        for class in 0..classes {
            let Some(x) = inputs.x::<T>(config, row, class) else {
                out.predictions.push(zero);
                out.probabilities.push(zero);
                continue;
            };
            // Whatever is not a number is no more probable than not.
            let is_nan = x.to_f64().is_nan();
            out.predictions.push(if is_nan { nan } else { T::new(f64::from(x > zero)) });
            out.probabilities.push(one / (one + (-(x + x)).exp()));
        }
    }
    if config.reduction != Reduction::None && config.labels != Labels::None {
        out.loss = vec![sum(&out.loss, order) * T::new(config.factor(shapes.rows.max(1)))];
    }
    Ok(out)
}

/// All outputs, by name.
pub(super) fn by_name<T: Real>(
    config: &MultilabelSoftmaxConfig,
    inputs: &HostInputs,
    order: SumOrder,
) -> Result<Vec<(&'static str, Vec<T>)>> {
    let out = multilabel_softmax_in(config, inputs, order)?;
    let losses = [("loss", out.loss), ("lse_neg", out.lse_neg), ("lse_pos", out.lse_pos)];
    let losses = losses.into_iter().filter(|_| config.labels != Labels::None);
    Ok(losses.chain([("predictions", out.predictions), ("probabilities", out.probabilities)]).collect())
}

/// What a class that takes part adds to the two sums.
#[derive(Clone, Copy)]
pub(super) struct Term<T> {
    pub class: usize,
    /// Its score above the threshold.
    pub x: T,
    /// The weight of e⁻ˣ.
    pub positive: T,
    /// The weight of eˣ.
    pub negative: T,
}

impl HostInputs<'_> {
    pub(super) fn takes_part(&self, row: usize, class: usize) -> bool {
        self.mask.is_none_or(|mask| mask.at([row, class]) != 0)
    }

    /// A score above its threshold, if the class takes part.
    fn x<T: Real>(&self, config: &MultilabelSoftmaxConfig, row: usize, class: usize) -> Option<T> {
        let bounded = |x: f32| T::new(x.clamp(-MOST, MOST).into());
        let threshold = match self.threshold {
            Some(threshold) => threshold.at([if threshold.shape() == [1] { 0 } else { class }]),
            None => config.fixed_threshold(),
        };
        self.takes_part(row, class).then(|| bounded(self.scores.at([row, class])) - bounded(threshold))
    }

    /// The label of each class, or none where there is an index that is no class.
    fn labels_of(&self, row: usize) -> Option<Vec<f32>> {
        let [_, classes] = self.scores.shape();
        if let Some(labels) = self.labels {
            return Some((0..classes).map(|class| f32::from(labels.at([row, class]) != 0)).collect());
        }
        if let Some(soft) = self.soft_labels {
            return Some((0..classes).map(|class| soft.at([row, class])).collect());
        }
        let list: Vec<u32> = match (self.label_indices, self.label_list, self.label_offsets) {
            (Some(indices), ..) => (0..indices.shape()[1]).map(|place| indices.at([row, place])).collect(),
            (_, Some(list), Some(offsets)) => {
                let (from, to) = (offsets.at([row]) as usize, offsets.at([row + 1]) as usize);
                (from <= to && to <= list.shape()[0]).then(|| (from..to).map(|place| list.at([place])).collect())?
            }
            _ => Vec::new(),
        };
        let mut labels = vec![0.0; classes];
        for index in list.into_iter().filter(|index| *index != u32::MAX) {
            *labels.get_mut(index as usize)? = 1.0;
        }
        Some(labels)
    }

    /// The classes of a row that take part; none where the row is broken.
    pub(super) fn terms<T: Real>(&self, config: &MultilabelSoftmaxConfig, row: usize) -> Option<Vec<Term<T>>> {
        let mut terms = Vec::new();
        for (class, label) in self.labels_of(row)?.into_iter().enumerate() {
            let Some(x) = self.x::<T>(config, row, class) else { continue };
            if x.to_f64().is_nan() || !(0.0..=1.0).contains(&label) {
                return None;
            }
            let label = T::new(if label < LEAST_LABEL { 0.0 } else { label.into() });
            terms.push(Term { class, x, positive: label, negative: T::new(1.0) - label });
        }
        Some(terms)
    }
}

/// log(1 + Σ w eˣ), of the weight and exponent of each term; what has no weight is not looked at.
pub(super) fn lse<T: Real>(terms: &[Term<T>], order: SumOrder, of: impl Fn(&Term<T>) -> (T, T)) -> T {
    let zero = T::new(0.0);
    let weighted: Vec<_> = terms.iter().map(of).filter(|(weight, _)| *weight > zero).collect();
    let largest = weighted.iter().map(|(_, x)| *x).fold(zero, Real::max);
    let mut sum = (-largest).exp();
    for at in order.indices(weighted.len()) {
        let (weight, x) = weighted[at];
        sum += weight * (x - largest).exp();
    }
    largest + sum.ln()
}

pub(super) fn sum<T: Real>(terms: &[T], order: SumOrder) -> T {
    let mut sum = T::new(0.0);
    order.indices(terms.len()).into_iter().for_each(|at| sum += terms[at]);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HostView;

    #[test]
    fn three_classes_by_hand() {
        let ln2 = 2.0_f32.ln();
        let scores = [0.0, ln2, -ln2];
        let mut inputs = HostInputs::new(HostView::new(&scores, [1, 3]).expect("a row"));
        inputs.labels = Some(HostView::new(&[0, 0, 7], [1, 3]).expect("labels"));
        // e⁰ + e^ln 2 of the negative classes, e^ln 2 of the positive one: log 4 + log 3.
        let out = multilabel_softmax(&MultilabelSoftmaxConfig::new(), &inputs).expect("a loss");
        assert!((out.lse_neg[0] - 4.0_f64.ln()).abs() < 1e-7 && (out.lse_pos[0] - 3.0_f64.ln()).abs() < 1e-7);
        assert_eq!((out.loss[0], out.predictions), (out.lse_neg[0] + out.lse_pos[0], vec![0.0, 1.0, 0.0]));
        assert!((out.probabilities[1] - 0.8).abs() < 1e-7 && out.probabilities[0] == 0.5);
    }
}
