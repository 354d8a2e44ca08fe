//! The twin of margin softmax: cases by hand, and what it refuses.

use wgpu_attention::margin_softmax::Margin;
use wgpu_attention::margin_softmax::reference::{HostInputs, HostOutputs, margin_softmax};
use wgpu_attention::{HostView, MarginSoftmaxConfig, Reduction};

fn run(config: MarginSoftmaxConfig, features: &[f32], weights: &[f32], labels: &[u32], dim: usize) -> HostOutputs<f64> {
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

#[test]
fn every_option_by_hand() {
    // Centres (1, 0), (0, 1) and (-1, 0), (0, -1): cosines 0.8 and -0.6.
    let features = HostView::new(&[0.6, 0.8], [1, 2]).expect("a row");
    let weights = HostView::new(&[1.0, 0.0, 0.0, 1.0, -1.0, 0.0, 0.0, -1.0], [4, 2]).expect("centres");
    let labels = HostView::new(&[1], [1]).expect("a label");
    let config = MarginSoftmaxConfig::new().margin(Margin::Cosine { m: 9.0 }).scale(2.0).centres(2);
    let config = config.label_smoothing(0.25).z_loss(0.5);
    let mut inputs = HostInputs::new(features, weights, labels);
    inputs.bias = Some(HostView::new(&[0.5, -0.25], [2]).expect("a bias"));
    inputs.class_weights = Some(HostView::new(&[7.0, 3.0], [2]).expect("weights"));
    inputs.class_margins = Some(HostView::new(&[4.0, 0.125], [2]).expect("margins"));
    let out = margin_softmax(&config, &inputs).expect("a loss");
    let [first, plain] = [2.0 * 0.8 + 0.5, 2.0 * -0.6 - 0.25];
    let second: f64 = plain - 2.0 * 0.125;
    let lse = (first.exp() + second.exp()).ln();
    let want = 3.0 * (0.75 * (lse - second) + 0.25 * (lse - (first + second) / 2.0) + 0.5 * lse * lse);
    for (got, want) in [
        (out.loss[0], want),
        (out.lse[0], lse),
        (out.others[0], first - second),
        (out.logits[0], first),
        (out.logits[1], plain),
    ] {
        assert!((got - want).abs() < 1e-6, "{out:?}: {want}");
    }
    assert_eq!(out.predicted, [0]);
    // The weight of a mean's only class goes.
    let mean = margin_softmax(&config.reduction(Reduction::Mean), &inputs).expect("a loss");
    assert!((mean.loss[0] - want / 3.0).abs() < 1e-6, "{mean:?}");
    // A margin a row is the same.
    (inputs.class_margins, inputs.row_margins) = (None, Some(HostView::new(&[0.125], [1]).expect("a margin")));
    assert_eq!(margin_softmax(&config, &inputs).expect("a loss").loss, out.loss);
    let broken = [f32::NAN];
    inputs.row_margins = Some(HostView::new(&broken, [1]).expect("a margin"));
    assert!(margin_softmax(&config, &inputs).expect("a loss").loss[0].is_nan());
}

#[test]
fn options_that_do_not_fit_are_refused() {
    let [features, weights] =
        [[1, 2], [4, 2]].map(|shape: [usize; 2]| HostView::new(&[1.0; 8][..shape[0] * 2], shape).expect("rows"));
    let numbers = HostView::new(&[0.5; 4], [4]).expect("numbers");
    let inputs = HostInputs::new(features, weights, HostView::new(&[0], [1]).expect("a label"));
    let given = HostInputs { class_margins: Some(numbers), ..inputs };
    let both = HostInputs { row_margins: Some(HostView::new(&[0.5], [1]).expect("a margin")), ..given };
    let (new, cosine) = (MarginSoftmaxConfig::new(), Margin::Cosine { m: 0.5 });
    for (says, config, inputs) in [
        ("class_margins is given, but only the margins cosine", new, given),
        ("class_margins is given, but only the margins cosine", new.margin(Margin::Sphere { m: 2 }), given),
        ("row_margins is given, but so is class_margins", new.margin(cosine), both),
        ("weights: axis class_rows: expected a multiple of the 3 centres of a class, got 4", new.centres(3), inputs),
        ("class_margins: axis classes: expected 2 (the class_rows of weights", new.margin(cosine).centres(2), given),
        ("option centres: expected 1 to 16, got 0", new.centres(0), inputs),
        ("option label_smoothing: expected at least 0, below 1, got 1", new.label_smoothing(1.0), inputs),
        ("option z_loss", new.z_loss(-1.0), inputs),
    ] {
        let message = margin_softmax(&config, &inputs).expect_err("a refusal").to_string();
        assert!(message.replace("input ", "").replace(": is", " is").contains(says), "{message}");
    }
}
