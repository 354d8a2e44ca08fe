//! Margin softmax over listed classes.

use crate::case::{Case, NONE};
use crate::common::{any, assert_same_bits, context, own_and_any_gpu};
use proptest::prelude::*;
use wgpu_attention::margin_softmax::reference::margin_softmax;
use wgpu_attention::margin_softmax::{Arc, Margin};
use wgpu_attention::{DType, MarginSoftmax, MarginSoftmaxConfig, MarginSoftmaxShapes, Reduction};

const ARC: Margin = Margin::Angular { m: 0.5, beyond: Arc::Monotone };
const COSINE: Margin = Margin::Cosine { m: 0.35 };

fn config() -> MarginSoftmaxConfig {
    MarginSoftmaxConfig::new().scale(16.0)
}

#[test]
fn the_twin_by_hand() {
    // Classes 0 and 2, of which the second is the label.
    let mut case = Case::new([1, 3, 2], MarginSoftmaxConfig::new().normalize(false).scale(1.0).label_smoothing(0.5));
    case.features.data = vec![1.0, 2.0];
    case.weights.data = vec![1.0, 0.0, 100.0, 100.0, 0.0, 1.0];
    (case.labels, case.sampled) = (vec![2], Some(vec![0, 2]));
    let out = margin_softmax(&case.config, &case.host()).expect("a loss");
    let lse = (1.0_f64.exp() + 2.0_f64.exp()).ln();
    assert!((out.lse[0] - lse).abs() < 1e-12 && (out.loss[0] - (lse - 0.5 * 2.0 - 0.5 * 1.5)).abs() < 1e-12, "{out:?}");
    assert!(out.predicted == [2] && out.logits.is_empty(), "{out:?}");
}

#[test]
fn listed_classes_agree_with_the_twin() {
    let smoothed = config().label_smoothing(0.2).z_loss(0.01);
    for ([rows, classes, dim], every, shards) in [([1, 1, 3], 1, 1), ([20, 90, 12], 3, 2), ([65, 300, 7], 7, 5)] {
        let case = Case::new([rows, classes, dim], smoothed.margin(COSINE)).shards(shards).sampled(every);
        case.clone().check("listed");
        case.bias().class_weights().class_margins().check("listed, with all that classes have");
    }
    for (kernels, context) in own_and_any_gpu() {
        let case = Case::new([33, 41, 8], smoothed.margin(ARC).centres(3)).bias().shards(3).row_margins();
        case.sampled(4).check_on(context, kernels);
    }
    let mean = smoothed.margin(COSINE).reduction(Reduction::Mean);
    let case = Case::new([20, 90, 12], mean).bias().class_weights().shards(3).sampled(5);
    case.stored([DType::BF16, DType::F16]).check("16 bits");
}

#[test]
fn the_same_bits_as_of_gathered_weights() {
    for (shape, centres, every) in
        [([40, 203, 12], 1, 3), ([40, 50, 5], 2, 4), ([3, 9000, 4], 1, 2), ([40, 90, 8], 1, 1)]
    {
        let case = Case::new(shape, config().margin(ARC).centres(centres)).bias().class_margins().shards(3);
        let case = case.sampled(every);
        let [(got, predicted), (want, places)] = [&case, &case.gathered()].map(|case| case.run(false));
        got.iter().zip(&want).take(4).for_each(|(got, want)| assert_same_bits("gathered", got, want));
        let listed = case.sampled.expect("a list");
        assert!(predicted.iter().zip(&places).all(|(&class, &place)| class == listed[place as usize]));
    }
}

#[test]
fn lists_and_labels_that_do_not_fit() {
    let mut case = Case::new([12, 100, 8], config().margin(COSINE)).bias().class_weights().shards(2).sampled(3);
    let (want, classes) = case.run(false);
    // A label that is a class, but not listed; and one of a row that is ignored anyway.
    let unlisted = (0..100).find(|j| !case.sampled.as_ref().expect("a list").contains(j)).expect("a class");
    case.labels[4] = unlisted;
    let (got, predicted) = case.run(false);
    assert_eq!(predicted, classes);
    for (got, want) in got.iter().zip(&want).take(4) {
        assert!(got[4].is_nan(), "{got:?}");
        assert_same_bits("other rows", &[&got[..4], &got[5..]].concat(), &[&want[..4], &want[5..]].concat());
    }
    // Numbers that are no classes, one of them a label.
    for beyond in [100, 1 << 31, NONE] {
        let mut case = case.clone();
        case.sampled.as_mut().expect("a list").push(beyond);
        case.labels[5] = beyond;
        let (got, predicted) = case.run(false);
        assert!(predicted.iter().all(|&class| class == NONE), "{predicted:?}");
        for (i, &label) in case.labels.iter().enumerate() {
            assert!(got[1][i].is_nan() && got[2][i].is_nan() && (got[0][i] == 0.0) == (label == NONE), "{got:?}");
        }
    }
    // In no order, and twice: whatever comes, comes, within bounds.
    for listed in [vec![9, 3, 80, 3, 3], vec![0; 100]] {
        let (got, _) = Case { sampled: Some(listed), ..case.clone() }.run(false);
        assert!(got[1].iter().all(|x| x.is_finite() || x.is_nan()));
    }
}

#[test]
fn the_workspace_does_not_grow_with_the_list() {
    let bytes = |classes, listed| {
        let op = MarginSoftmax::new(context(), config()).expect("a config");
        let shapes = MarginSoftmaxShapes { sampled: Some(listed), ..MarginSoftmaxShapes::new(32, classes, 64) };
        op.plan(&shapes, DType::F32).expect("a plan").workspace_bytes()
    };
    assert_eq!(bytes(1_000_000, 100_000), bytes(1_000_000, 1_000_000));
    assert_eq!(bytes(1_000_000, 100_000), bytes(4_000_000, 200_000));
}

proptest! {
    #![proptest_config(any(16))]
    #[test]
    fn any_list_agrees_with_the_twin(
        rows in 1usize..40, classes in 2usize..200, every in 1usize..9, shards in 1usize..4, of in 0usize..2,
    ) {
        // Few kernels: options in two sets.
        let case = Case::new([rows, classes, 7], config().margin([COSINE, ARC][of]));
        let case = if of == 0 { case.bias() } else { case.class_margins() };
        case.shards(shards.min(classes)).sampled(every).check("any");
    }
}
