//! The multi-label loss on the GPU, forward and backward, against its f64 twins.

#[path = "multilabel_softmax/case.rs"]
mod case;
mod common;
#[path = "multilabel_softmax/published.rs"]
mod published;
#[path = "multilabel_softmax/refusals.rs"]
mod refusals;
#[path = "multilabel_softmax/twin.rs"]
mod twin;

use case::{Case, find};
use common::{any, assert_same_bits, context, own_and_any_gpu};
use proptest::prelude::*;
use wgpu_attention::Reduction;
use wgpu_attention::multilabel_softmax::{Labels, Threshold};
use wgpu_attention::{Context, ContextOptions, DType, MultilabelSoftmaxConfig};

const LABELS: [Labels; 4] = [Labels::Bitmap, Labels::Indices, Labels::Offsets, Labels::Soft];
const SIZES: [usize; 17] = [1, 2, 3, 4, 5, 63, 64, 65, 127, 128, 129, 255, 256, 257, 1000, 1024, 1029];

fn config(labels: Labels) -> MultilabelSoftmaxConfig {
    MultilabelSoftmaxConfig::new().labels(labels)
}

#[test]
fn classes_of_every_count() {
    for (at, classes) in SIZES.into_iter().enumerate() {
        let rows = [1, 7, 70][at % 3];
        let case = Case::new(config(LABELS[at % 2 * 3]), rows, classes);
        case.check("sizes");
    }
}

#[test]
fn rows_of_every_count() {
    for (at, rows) in SIZES.into_iter().enumerate() {
        Case::new(config(LABELS[at % 4]), rows, 3 + at % 5).check("rows");
    }
}

#[test]
fn long_rows_are_shared_by_workgroups() {
    for (at, classes) in [4095, 4096, 4097, 8200, 20_000].into_iter().enumerate() {
        let case = Case::new(config(LABELS[at % 4]), 1 + at % 3, classes);
        case.mask(|_, class| class % 3 != 1).threshold(1).check("parts");
    }
    Case::new(config(Labels::Bitmap), 1, 1_000_003).check("a million");
}

#[test]
fn every_form_with_mask_threshold_and_reduction() {
    let reductions = [Reduction::None, Reduction::Mean, Reduction::Sum];
    for (at, labels) in LABELS.into_iter().enumerate() {
        for (turn, thresholds) in [0, 1, 40].into_iter().enumerate() {
            let config = config(labels).reduction(reductions[(at + turn) % 3]);
            let mut case = Case::new(config, 37, 40);
            if turn > 0 {
                case = case.threshold(thresholds);
            }
            case.clone().check("forms");
            case.mask(|row, class| (3 * row + class) % 4 != 0).check("masked forms");
        }
    }
    let shifted = MultilabelSoftmaxConfig::new().threshold(Threshold::Fixed(-0.75));
    Case::new(shifted, 5, 24).check("a fixed threshold");
}

#[test]
fn rows_past_what_one_workgroup_adds_up() {
    for reduction in [Reduction::Mean, Reduction::Sum] {
        Case::new(config(Labels::Bitmap).reduction(reduction), 5003, 5).threshold(1).check("reduced");
    }
    Case::new(config(Labels::Soft), 5003, 5).threshold(5).check("thresholds of classes");
}

#[test]
fn floats_stored_in_16_bits() {
    for dtype in [DType::F16, DType::BF16] {
        for (labels, classes) in [(Labels::Soft, 24), (Labels::Soft, 21), (Labels::Bitmap, 300)] {
            for (kernels, context) in own_and_any_gpu() {
                let thresholds = if classes == 24 { 24 } else { 1 };
                let case = Case::new(config(labels), 9, classes).threshold(thresholds).stored(dtype);
                case.check_on(context, &format!("{dtype:?}{kernels}"));
            }
        }
    }
}

#[test]
fn ten_thousand_stays_finite_and_right() {
    for (at, labels) in LABELS.into_iter().enumerate() {
        let mut case = Case::new(config(labels), 6, 33);
        for (place, s) in case.scores.iter_mut().enumerate() {
            *s = [1e4, -1e4, 0.5, 9_999.5][(place + at) % 4];
        }
        case.soft.iter_mut().step_by(5).for_each(|t| *t = 1e-7);
        let out = case.run(false);
        let gradients = ["loss", "lse_neg", "lse_pos", "dscores"].map(|name| find(&out, name));
        assert!(gradients.iter().all(|all| all.iter().all(|x| x.is_finite())), "{labels:?}");
        case.without_soft_gradient().check("1e4");
    }
}

#[test]
fn no_positive_class_and_none_but_such() {
    for labels in LABELS {
        let mut case = Case::new(config(labels), 2, 29);
        case.positive(|row, _| row == 1);
        case.soft = case.labels.iter().map(|&label| f32::from(label != 0)).collect();
        let loss = find(&case.run(false), "loss");
        let scores = case.scores.clone();
        let lse = |row: usize, sign: f64| {
            let sum: f64 = scores[29 * row..][..29].iter().map(|&s| (sign * f64::from(s)).exp()).sum();
            sum.ln_1p()
        };
        for (got, want) in loss.iter().zip([lse(0, 1.0), lse(1, -1.0)]) {
            assert!((f64::from(*got) - want).abs() < 4e-6, "{labels:?}: got {got}, want {want}");
        }
        case.without_soft_gradient().check("none and all");
    }
}

#[test]
fn one_class_alone_is_softplus_to_its_last_places() {
    let mut case = Case::new(config(Labels::Bitmap), 9, 1);
    case.positive(|_, _| true);
    case.scores = vec![-1e4, -3.0, -1.0, 0.0, 1.0, 3.0, 10.0, 30.0, 60.0];
    for (got, &s) in find(&case.run(false), "loss").iter().zip(&case.scores) {
        let want = (-f64::from(s)).max(0.0) + (-f64::from(s.abs())).exp().ln_1p();
        // As near for a loss of e^-60 as for any other.
        assert!((f64::from(*got) - want).abs() <= 2e-5 * want, "{s}: got {got}, want {want}");
    }
}

#[test]
fn the_minimum_is_where_probabilities_are_the_labels() {
    let mut case = Case::new(config(Labels::Soft), 3, 50);
    case.scores.iter_mut().zip(&case.soft).for_each(|(s, t)| *s = 0.5 * (t / (1.0 - t)).ln());
    let out = case.run(true);
    let [loss, ds, p] = ["loss", "dscores", "probabilities"].map(|name| find(&out, name));
    for (row, loss) in loss.iter().enumerate() {
        let own = &case.soft[50 * row..][..50];
        let want = 2.0 * (1.0 + own.iter().map(|&t| f64::from(t * (1.0 - t)).sqrt()).sum::<f64>()).ln();
        assert!((f64::from(*loss) - want).abs() < 4e-6, "got {loss}, want {want}");
    }
    assert!(ds.iter().all(|ds| ds.abs() < 1e-6), "{ds:?}");
    assert!(p.iter().zip(&case.soft).all(|(p, t)| (p - t).abs() < 1e-6), "{p:?}");
}

/// L(σ(2a), b) − L(σ(2a), a), by the loss and its predictions.
#[test]
fn the_divergence_of_two_predictions() {
    let a = Case::new(config(Labels::Soft), 4, 30);
    let p = find(&a.run(false), "probabilities");
    let loss = |scores: &[f32]| {
        let mut case = a.clone();
        (case.scores, case.soft) = (scores.to_vec(), p.clone());
        find(&case.run(false), "loss")
    };
    let b: Vec<f32> = a.scores.iter().enumerate().map(|(at, s)| s + [0.3, -0.2, 0.1][at % 3]).collect();
    let (own, other) = (loss(&a.scores), loss(&b));
    assert!(own.iter().zip(&other).all(|(own, other)| other - own > 1e-3), "{own:?} {other:?}");
}

#[test]
fn what_is_masked_counts_for_nothing() {
    for labels in LABELS {
        let masked = |_: usize, class: usize| class % 3 != 2;
        let mut case = Case::new(config(labels), 5, 32).threshold(32).mask(masked);
        let clean = case.run(false);
        for place in (0..case.scores.len()).filter(|place| place % 32 % 3 == 2) {
            (case.scores[place], case.soft[place]) = (f32::NAN, [f32::NAN, 7.0, -1.0][place % 3]);
        }
        (2..32).step_by(3).for_each(|class| case.threshold[class] = f32::NAN);
        for ((name, clean), (_, hidden)) in clean.iter().zip(&case.run(false)) {
            assert_same_bits(name, clean, hidden);
        }
        let nothing = case.mask(|row, _| row != 2);
        let out = nothing.run(true);
        for name in ["loss", "lse_neg", "lse_pos", "dscores", "predictions", "probabilities"] {
            let all = find(&out, name);
            let width = all.len() / 5;
            assert!(all[2 * width..][..width].iter().all(|x| *x == 0.0), "{labels:?}: {name}");
        }
    }
}

#[test]
fn a_broken_row_stays_alone() {
    for thresholds in [1, 40] {
        for (at, labels) in LABELS.into_iter().enumerate() {
            let clean = Case::new(config(labels), 6, 40).threshold(thresholds);
            let mut case = clean.clone();
            match labels {
                Labels::Soft => case.soft[2 * 40 + 7] = [f32::NAN, 1.000_001, -1e-30, f32::INFINITY][at],
                Labels::Indices => case.indices[2 * case.width] = 40,
                Labels::Offsets => case.list[case.offsets[2] as usize] = u32::MAX - 1,
                _ => case.scores[2 * 40 + 39] = -f32::NAN,
            }
            case.check("broken");
            // The threshold's gradient is that of the other rows.
            let mut without = clean.clone();
            without.dloss[2] = 0.0;
            let [got, want] = [case.run(false), without.run(false)].map(|out| find(&out, "dthreshold"));
            assert_same_bits("dthreshold", &got, &want);
        }
    }
    for soft in [f32::NAN, 1.000_001, -1e-30, f32::INFINITY, -f32::INFINITY] {
        let mut case = Case::new(config(Labels::Soft), 3, 7);
        case.soft[9] = soft;
        case.check(&format!("a label of {soft}"));
    }
    // A threshold that is no number breaks every row in which its class takes part.
    for thresholds in [1, 7] {
        let mut case =
            Case::new(config(Labels::Soft), 5, 7).threshold(thresholds).mask(|row, class| row != 3 || class == 2);
        case.threshold[0] = f32::NAN;
        case.check("a threshold");
    }
    // Offsets that fall, or pass the end.
    let mut case = Case::new(config(Labels::Offsets), 6, 40);
    (case.offsets[3], case.offsets[6]) = (case.offsets[1], case.list.len() as u32 + 1);
    let loss = find(&case.run(false), "loss");
    assert_eq!(loss.iter().map(|loss| loss.is_nan()).collect::<Vec<_>>(), [false, false, true, false, false, true]);
    case.check("offsets");
}

#[test]
fn infinite_scores_are_large_ones() {
    for labels in [Labels::Bitmap, Labels::Soft] {
        let mut case = Case::new(config(labels), 2, 8);
        case.positive(|_, class| class == 3);
        case.soft = case.labels.iter().map(|&label| f32::from(label != 0)).collect();
        (case.scores[1], case.scores[3]) = (f32::NEG_INFINITY, f32::INFINITY);
        case.without_soft_gradient().check("as they should be");
        case.scores[8 + 1] = 3e38;
        let out = case.run(false);
        assert_eq!(find(&out, "loss")[1], 1e37);
        assert_eq!(find(&out, "dscores")[8 + 1], case.dloss[1]);
    }
}

#[test]
fn a_class_counts_once_however_often_it_is_listed() {
    let mut case = Case::new(config(Labels::Indices), 4, 70);
    let once = case.run(false);
    let width = case.width;
    for row in case.indices.chunks_mut(width) {
        let own = row.iter().copied().find(|&index| index != u32::MAX).unwrap_or(u32::MAX);
        row.iter_mut().filter(|index| **index == u32::MAX).for_each(|index| *index = own);
    }
    for ((name, once), (_, again)) in once.iter().zip(&case.run(false)) {
        assert_same_bits(name, once, again);
    }
}

/// Where the bits of all rows' labels find no room in the workspace.
#[test]
fn rows_of_lists_are_worked_on_some_at_a_time() {
    let options = ContextOptions { max_workspace_bytes: 1 << 20, ..Default::default() };
    let few = Context::with_options(context().device().clone(), context().queue().clone(), options);
    for (labels, thresholds) in [(Labels::Indices, 1000), (Labels::Offsets, 1)] {
        let case = Case::new(config(labels).reduction(Reduction::Sum), 700, 1000).threshold(thresholds);
        case.check_on(&few, "few rows at a time");
    }
}

#[test]
fn lists_of_nothing() {
    for labels in [Labels::Indices, Labels::Offsets] {
        let mut case = Case::new(config(labels), 3, 9);
        case.positive(|_, _| false);
        (case.width, case.indices, case.list) = (0, Vec::new(), Vec::new());
        case.check("no class is listed");
    }
}

#[test]
fn the_same_bits_on_every_run() {
    let case = Case::new(config(Labels::Indices).reduction(Reduction::Mean), 300, 130).threshold(130);
    let first = case.run(false);
    for _ in 0..5 {
        for ((name, first), (_, again)) in first.iter().zip(&case.run(false)) {
            assert_same_bits(name, first, again);
        }
    }
}

#[test]
fn no_rows_are_nothing_to_do() {
    let out = Case::new(config(Labels::Bitmap), 0, 9).run(false);
    assert!(out.iter().all(|(_, all)| all.is_empty()), "{out:?}");
}

proptest! {
    #![proptest_config(any(24))]
    #[test]
    fn any_shape_agrees_with_the_twin(
        rows in 1usize..50, classes in 1usize..300, labels in 0usize..4, threshold in 0usize..3, reduction in 0usize..3,
        masked: bool,
    ) {
        let reduction = [Reduction::None, Reduction::Mean, Reduction::Sum][reduction];
        let mut case = Case::new(config(LABELS[labels]).reduction(reduction), rows, classes);
        if threshold > 0 {
            case = case.threshold([1, classes][threshold - 1]);
        }
        if masked {
            case = case.mask(|row, class| (5 * row + class) % 7 > 1);
        }
        case.check("any");
    }
}
