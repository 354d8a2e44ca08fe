//! The gradients of listed classes.

use crate::case::{Case, NONE};
use crate::common::{any, assert_same_bits, own_and_any_gpu};
use crate::gradients::Gradients;
use proptest::prelude::*;
use wgpu_attention::margin_softmax::{Arc, GradientForm, Margin};
use wgpu_attention::{DType, MarginSoftmaxConfig, Reduction};

const ARC: Margin = Margin::Angular { m: 0.5, beyond: Arc::Monotone };
const COSINE: Margin = Margin::Cosine { m: 0.35 };
const FORMS: [GradientForm; 2] = [GradientForm::Workspace, GradientForm::Recompute];

fn config() -> MarginSoftmaxConfig {
    MarginSoftmaxConfig::new().scale(16.0)
}

#[test]
fn listed_classes_agree_with_the_twin() {
    let smoothed = config().label_smoothing(0.2).z_loss(0.01);
    let cases = [([1, 1, 3], 1, 1), ([20, 90, 12], 3, 2), ([65, 300, 7], 7, 5)];
    for (at, (shape, every, shards)) in cases.into_iter().enumerate() {
        let case = Case::new(shape, smoothed.margin(COSINE).form(FORMS[at % 2])).shards(shards).sampled(every);
        Gradients::new(case.clone()).check("listed");
        Gradients::new(case.bias().class_weights().class_margins()).dlse().dentropy().check("with all there is");
    }
    for (kernels, context) in own_and_any_gpu() {
        let case = Case::new([33, 41, 8], smoothed.margin(ARC).centres(3)).bias().shards(3).row_margins();
        Gradients::new(case.sampled(4)).check_on(context, kernels);
    }
}

#[test]
fn listed_neighbours_share_words_of_16_bits() {
    for dtype in [DType::F16, DType::BF16] {
        for (every, dim) in [(1, 12), (2, 7), (5, 7)] {
            let mean = config().margin(COSINE).reduction(Reduction::Mean);
            let mut case = Case::new([9, 403, dim], mean).bias().class_weights().shards(3).sampled(every);
            // Pairs of neighbours, at places of any parity.
            case.sampled.as_mut().expect("a list").extend((0..403).filter(|j| every == 5 && j % 6 < 3));
            case.sampled.as_mut().expect("a list").sort_unstable();
            case.sampled.as_mut().expect("a list").dedup();
            for (kernels, context) in own_and_any_gpu() {
                Gradients::new(case.clone().stored([DType::F32, dtype])).check_on(context, kernels);
            }
        }
    }
}

#[test]
fn the_same_bits_as_of_gathered_weights() {
    for (at, (shape, centres, every)) in
        [([40, 203, 12], 1, 3), ([40, 50, 5], 2, 4), ([2100, 4300, 4], 1, 2), ([40, 90, 8], 1, 1)]
            .into_iter()
            .enumerate()
    {
        let config = config().margin(ARC).centres(centres).form(FORMS[at % 2]);
        let case = Case::new(shape, config).bias().class_margins().shards(3).sampled(every);
        let listed = case.sampled.clone().expect("a list");
        let all = Gradients::new(case.clone());
        let got = all.run(false);
        let mut dense = all.clone();
        dense.case = case.gathered();
        let want = dense.run(false);
        assert_same_bits("dfeatures", &got[0], &want[0]);
        for (index, each) in [(1, centres as usize * shape[2]), (2, 1)] {
            let mut own = vec![0.0; got[index].len()];
            for (place, &class) in listed.iter().enumerate() {
                own[class as usize * each..][..each].copy_from_slice(&want[index][place * each..][..each]);
            }
            assert_same_bits("of classes", &got[index], &own);
        }
        assert_same_bits("a rerun", &got[1], &all.run(false)[1]);
        let some = all.wanted([true, false, false]).run(false);
        assert_same_bits("features alone", &some[0], &got[0]);
    }
}

#[test]
fn lists_and_labels_that_do_not_fit() {
    let mut case =
        Case::new([12, 100, 8], config().margin(COSINE).reduction(Reduction::Mean)).bias().shards(2).sampled(3);
    let unlisted = (0..100).find(|j| !case.sampled.as_ref().expect("a list").contains(j)).expect("a class");
    case.labels[4] = unlisted;
    let of = Gradients::new(case.clone());
    of.check("a label that is not listed");
    let back = of.run(false);
    assert!(back[0][32..40].iter().all(|x| x.is_nan()) && back[1].iter().chain(&back[2]).all(|x| x.is_finite()));
    for beyond in [100, 1 << 31, NONE] {
        let mut case = case.clone();
        case.sampled.as_mut().expect("a list").push(beyond);
        let back = Gradients::new(case).run(false);
        assert!(back[1].iter().chain(&back[2]).all(|x| x.to_bits() << 1 == 0), "{back:?}");
    }
    for listed in [vec![9, 3, 80, 3, 3], vec![0; 100]] {
        Gradients::new(Case { sampled: Some(listed), ..case.clone() }).run(false);
    }
}

#[test]
fn no_rows() {
    let back = Gradients::new(Case::new([0, 70, 6], config().margin(ARC)).bias().shards(2).sampled(3)).run(true);
    assert!(back[0].is_empty() && back[1].len() == 420 && back[2].len() == 70);
    assert!(back.iter().flatten().all(|x| x.to_bits() << 1 == 0), "{back:?}");
}

proptest! {
    #![proptest_config(any(16))]
    #[test]
    fn any_list_agrees_with_the_twin(
        rows in 1usize..40, classes in 2usize..200, every in 1usize..9, shards in 1usize..4, of in 0usize..4,
    ) {
        // Few kernels: options in two sets, by both forms.
        let case = Case::new([rows, classes, 7], config().margin([COSINE, ARC][of % 2]).form(FORMS[of / 2]));
        let case = if of % 2 == 0 { case.bias() } else { case.class_margins() };
        Gradients::new(case.shards(shards.min(classes)).sampled(every)).check("any");
    }
}
