//! The CPU twin of the multi-label loss: plain loops over the formula.

use super::config::MOST;
use super::{Labels, MultilabelSoftmaxConfig, Reduction};
use crate::reference::{Real, SumOrder};
use crate::{HostView, Result};

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
    let given = given!(config, inputs);
    let [rows, classes] = [shapes.rows, shapes.classes].map(|extent| extent as usize);
    let empty = Vec::new;
    let mut out =
        HostOutputs { loss: empty(), lse_neg: empty(), lse_pos: empty(), predictions: empty(), probabilities: empty() };
    for row in 0..rows {
        if config.labels != Labels::None {
            let (neg, pos) = match given.terms::<T>(row, classes) {
                Some(terms) => (lse(&terms, order, |t| (t.negative, t.x)), lse(&terms, order, |t| (t.positive, -t.x))),
                None => (nan, nan),
            };
            out.loss.push(neg + pos);
            out.lse_neg.push(neg);
            out.lse_pos.push(pos);
        }
        for class in 0..classes {
            let Some(x) = given.x::<T>(row, class) else {
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

/// What both passes are given.
pub(super) struct Given<'a> {
    pub config: &'a MultilabelSoftmaxConfig,
    pub scores: HostView<'a, f32, 2>,
    pub labels: Option<HostView<'a, u8, 2>>,
    pub label_indices: Option<HostView<'a, u32, 2>>,
    pub label_list: Option<HostView<'a, u32, 1>>,
    pub label_offsets: Option<HostView<'a, u32, 1>>,
    pub soft_labels: Option<HostView<'a, f32, 2>>,
    pub mask: Option<HostView<'a, u8, 2>>,
    pub threshold: Option<HostView<'a, f32, 1>>,
}

/// [`Given`] of a config and the inputs of either pass.
macro_rules! given {
    ($config:expr, $inputs:expr) => {
        $crate::multilabel_softmax::reference::Given {
            config: $config,
            scores: $inputs.scores,
            labels: $inputs.labels,
            label_indices: $inputs.label_indices,
            label_list: $inputs.label_list,
            label_offsets: $inputs.label_offsets,
            soft_labels: $inputs.soft_labels,
            mask: $inputs.mask,
            threshold: $inputs.threshold,
        }
    };
}
pub(super) use given;

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

impl Given<'_> {
    pub fn takes_part(&self, row: usize, class: usize) -> bool {
        self.mask.is_none_or(|mask| mask.at([row, class]) != 0)
    }

    /// A score above its threshold, if the class takes part.
    fn x<T: Real>(&self, row: usize, class: usize) -> Option<T> {
        let bounded = |x: f32| T::new(x.clamp(-MOST, MOST).into());
        let threshold = match self.threshold {
            Some(threshold) => threshold.at([if threshold.shape() == [1] { 0 } else { class }]),
            None => self.config.fixed_threshold(),
        };
        self.takes_part(row, class).then(|| bounded(self.scores.at([row, class])) - bounded(threshold))
    }

    /// The label of each class, or none where there is an index that is no class.
    fn labels_of(&self, row: usize, classes: usize) -> Option<Vec<f32>> {
        let bitmap = |labels: HostView<'_, u8, 2>| (0..classes).map(|c| f32::from(labels.at([row, c]) != 0)).collect();
        if let Some(labels) = self.labels {
            return Some(bitmap(labels));
        }
        if let Some(soft) = self.soft_labels {
            return Some((0..classes).map(|class| soft.at([row, class])).collect());
        }
        let mut labels = vec![0.0; classes];
        let mut set = |index: u32| {
            if index != u32::MAX {
                *labels.get_mut(index as usize)? = 1.0;
            }
            Some(())
        };
        if let Some(indices) = self.label_indices {
            (0..indices.shape()[1]).try_for_each(|place| set(indices.at([row, place])))?;
        }
        if let (Some(list), Some(offsets)) = (self.label_list, self.label_offsets) {
            let (from, to) = (offsets.at([row]), offsets.at([row + 1]));
            if from > to || to as usize > list.shape()[0] {
                return None;
            }
            (from..to).try_for_each(|place| set(list.at([place as usize])))?;
        }
        Some(labels)
    }

    /// The classes of a row that take part; none where the row is broken.
    pub fn terms<T: Real>(&self, row: usize, classes: usize) -> Option<Vec<Term<T>>> {
        let labels = self.labels_of(row, classes)?;
        let mut terms = Vec::with_capacity(classes);
        for (class, label) in labels.into_iter().enumerate() {
            let Some(x) = self.x::<T>(row, class) else { continue };
            if x.to_f64().is_nan() || !(0.0..=1.0).contains(&label) {
                return None;
            }
            let label = T::new(label.into());
            terms.push(Term { class, x, positive: label, negative: T::new(1.0) - label });
        }
        Some(terms)
    }
}

/// log(1 + Σ w eˣ), of the weight and exponent of each term; what has no weight is not looked at.
pub(super) fn lse<T: Real>(terms: &[Term<T>], order: SumOrder, of: impl Fn(&Term<T>) -> (T, T)) -> T {
    let zero = T::new(0.0);
    let weighted = terms.iter().map(of).filter(|(weight, _)| *weight > zero);
    let weighted: Vec<_> = weighted.collect();
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
    use crate::multilabel_softmax::Threshold;

    fn host<'a>(scores: &'a [f32], classes: usize) -> HostInputs<'a> {
        HostInputs::new(HostView::new(scores, [scores.len() / classes, classes]).expect("rows"))
    }

    fn bitmap(scores: &[f32], labels: &[u8], classes: usize) -> HostOutputs<f64> {
        let mut inputs = host(scores, classes);
        inputs.labels = Some(HostView::new(labels, [scores.len() / classes, classes]).expect("labels"));
        multilabel_softmax(&MultilabelSoftmaxConfig::new(), &inputs).expect("a loss")
    }

    fn soft(scores: &[f32], labels: &[f32]) -> f64 {
        let mut inputs = host(scores, scores.len());
        inputs.soft_labels = Some(HostView::new(labels, [1, scores.len()]).expect("labels"));
        let config = MultilabelSoftmaxConfig::new().labels(Labels::Soft);
        multilabel_softmax(&config, &inputs).expect("a loss").loss[0]
    }

    #[test]
    fn three_classes_by_hand() {
        let ln2 = 2.0_f32.ln();
        // e⁰ + e^ln 2 of the negative classes, e^ln 2 of the positive one: log 4 + log 3.
        let out = bitmap(&[0.0, ln2, -ln2], &[0, 0, 7], 3);
        assert!((out.lse_neg[0] - 4.0_f64.ln()).abs() < 1e-7 && (out.lse_pos[0] - 3.0_f64.ln()).abs() < 1e-7);
        assert_eq!(out.loss[0], out.lse_neg[0] + out.lse_pos[0]);
        assert_eq!(out.predictions, [0.0, 1.0, 0.0]);
        assert!((out.probabilities[1] - 0.8).abs() < 1e-7 && out.probabilities[0] == 0.5);
    }

    #[test]
    fn one_positive_class_alone_is_softplus() {
        for s in [-30.0_f32, -1.5, 0.0, 2.0, 1e4, -1e4] {
            let x = -f64::from(s);
            let softplus = x.max(0.0) + (-x.abs()).exp().ln_1p();
            assert!((bitmap(&[s], &[1], 1).loss[0] - softplus).abs() <= 1e-12 * (1.0 + softplus), "{s}");
        }
    }

    #[test]
    fn the_minimum_lies_at_the_probability_of_the_scores() {
        let labels = [0.1_f32, 0.5, 0.93, 0.02, 0.7];
        let t = labels.map(f64::from);
        let best = labels.map(|t| (0.5 * (f64::from(t) / (1.0 - f64::from(t))).ln()) as f32);
        let want = 2.0 * (1.0 + t.iter().map(|t| (t * (1.0 - t)).sqrt()).sum::<f64>()).ln();
        assert!((soft(&best, &labels) - want).abs() < 1e-7);
        for class in 0..5 {
            for step in [-0.01, 0.01] {
                let mut off = best;
                off[class] += step;
                assert!(soft(&off, &labels) > want, "class {class}");
            }
        }
    }

    #[test]
    fn identities() {
        let (scores, labels) = ([0.3_f32, -1.2, 2.5, 0.9], [0.2_f32, 0.0, 1.0, 0.6]);
        // s to −s and t to 1 − t.
        let [mirrored, turned] = [scores.map(|s| -s), labels.map(|t| 1.0 - t)];
        assert!((soft(&scores, &labels) - soft(&mirrored, &turned)).abs() < 1e-7);
        // A threshold is a shift of all scores.
        let mut inputs = host(&scores, 4);
        inputs.soft_labels = Some(HostView::new(&labels, [1, 4]).expect("labels"));
        let config = MultilabelSoftmaxConfig::new().labels(Labels::Soft).threshold(Threshold::Fixed(0.75));
        let shifted = multilabel_softmax(&config, &inputs).expect("a loss").loss[0];
        assert!((shifted - soft(&scores.map(|s| s - 0.75), &labels)).abs() < 1e-6);
        // No positive class, and none but such.
        let (none, all) = (bitmap(&[0.0; 6], &[0; 6], 6).loss[0], bitmap(&[0.0; 6], &[1; 6], 6).loss[0]);
        assert!((none - 7.0_f64.ln()).abs() < 1e-12 && none == all);
    }

    #[test]
    fn what_is_masked_or_broken() {
        let (scores, mask) = ([f32::NAN, 1.0, f32::NAN, 1.0], [0, 1, 1, 1]);
        let labels = [9, 1, u32::MAX, 1, 1, 1];
        let config = MultilabelSoftmaxConfig::new().labels(Labels::Indices);
        let loss = |labels: &[u32]| {
            let inputs = HostInputs {
                mask: Some(HostView::new(&mask, [2, 2]).expect("a mask")),
                label_indices: Some(HostView::new(labels, [2, 3]).expect("labels")),
                ..host(&scores, 2)
            };
            multilabel_softmax(&config, &inputs).expect("a loss").loss
        };
        assert!(loss(&labels).iter().all(|loss| loss.is_nan()), "class 9 of 2, and a score");
        let twice = loss(&[1, 1, u32::MAX, 0, 0, 0]);
        assert!((twice[0] - (-1.0_f64).exp().ln_1p()).abs() < 1e-12 && twice[1].is_nan(), "{twice:?}");
    }
}
