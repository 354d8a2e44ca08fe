//! The twins against what is known of the loss: closed forms, identities, and gradients as differences of the loss.

use wgpu_attention::Reduction;
use wgpu_attention::multilabel_softmax::backward::reference::{self as backward, multilabel_softmax_backward};
use wgpu_attention::multilabel_softmax::reference::{HostInputs, HostOutputs, multilabel_softmax};
use wgpu_attention::multilabel_softmax::{Labels, Threshold};
use wgpu_attention::{HostView, MultilabelSoftmaxConfig};

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
        let inputs = HostInputs {
            soft_labels: Some(view(&self.labels)),
            mask: Some(HostView::new(&MASK, [2, CLASSES]).expect("a mask")),
            threshold: Some(HostView::new(&self.threshold, [self.threshold.len()]).expect("a threshold")),
            ..HostInputs::new(view(&self.scores))
        };
        let losses = multilabel_softmax(&config(), &inputs).expect("a loss").loss;
        losses.iter().zip(DLOSS).map(|(loss, g)| loss * f64::from(g)).sum()
    }

    fn gradients(&self, config: &MultilabelSoftmaxConfig, dloss: &[f32]) -> backward::HostOutputs<f64> {
        let view = |data| HostView::new(data, [2, CLASSES]).expect("rows");
        let lse = HostView::new(&[0.0, 0.0], [2]).expect("two");
        let dloss = HostView::new(dloss, [dloss.len()]).expect("gradients");
        let inputs = backward::HostInputs {
            soft_labels: Some(view(&self.labels)),
            mask: Some(HostView::new(&MASK, [2, CLASSES]).expect("a mask")),
            threshold: Some(HostView::new(&self.threshold, [self.threshold.len()]).expect("a threshold")),
            ..backward::HostInputs::new(view(&self.scores), lse, lse, dloss)
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
