//! The gradients of margin softmax on the GPU against their f64 twin.

#[path = "margin_softmax/case.rs"]
mod case;
mod common;
#[path = "margin_softmax_backward/gradients.rs"]
mod gradients;
#[path = "margin_softmax_backward/large.rs"]
mod large;
#[path = "margin_softmax_backward/sampled.rs"]
mod sampled;
#[path = "margin_softmax_backward/twin.rs"]
mod twin;

use case::{ARC, COSINE, Case, NONE, SIZES};
use common::{any, assert_same_bits, context, own_and_any_gpu};
use gradients::Gradients;
use proptest::prelude::*;
use wgpu_attention::margin_softmax::{Arc, GradientForm, Margin};
use wgpu_attention::{
    Context, ContextOptions, DType, MarginSoftmaxBackward, MarginSoftmaxBackwardShapes, MarginSoftmaxConfig, Reduction,
};

const FORMS: [GradientForm; 2] = [GradientForm::Workspace, GradientForm::Recompute];

fn config() -> MarginSoftmaxConfig {
    MarginSoftmaxConfig::new()
}

#[test]
fn sizes_around_every_tile() {
    let cosine = config().margin(COSINE).scale(30.0);
    for (at, shape) in SIZES.into_iter().enumerate() {
        Gradients::new(Case::new(shape, cosine.form(FORMS[at % 2])).bias()).check("size");
    }
}

#[test]
fn a_gpus_kernels_agree() {
    for (kernels, context) in own_and_any_gpu() {
        for shape in [[5, 700, 20], [70, 200, 36]] {
            let case = Case::new(shape, config().margin(ARC).scale(30.0)).shards(2).bias();
            Gradients::new(case).check_on(context, kernels);
        }
    }
}

#[test]
fn chunks_of_many_rows_and_classes() {
    let mut case = Case::new([2100, 2105, 3], config().scale(8.0).margin(COSINE)).bias().shards(2);
    case.naive_runs = 1;
    for form in FORMS {
        case.config.form = form;
        Gradients::new(case.clone()).check("many chunks");
    }
    // So many rows that those of a chunk leave sums of the bias to be added up in parts, and more chunks than one.
    for ([rows, classes], every) in [([2500, 70], 1), ([17_000, 3], 2)] {
        let mean = config().scale(8.0).margin(COSINE).reduction(Reduction::Mean);
        let mut case = Case::new([rows, classes, 3], mean.form(GradientForm::Recompute)).bias();
        case.naive_runs = 1;
        let case = if every > 1 { case.sampled(every) } else { case };
        Gradients::new(case).check("many rows");
    }
    // Of wide rows, few are a chunk.
    let mean = config().scale(8.0).margin(COSINE).reduction(Reduction::Mean).centres(2);
    let mut case = Case::new([70, 5, 65_536], mean).bias().class_weights();
    case.naive_runs = 1;
    for form in FORMS {
        case.config.form = form;
        Gradients::new(case.clone()).dlse().check("wide rows");
    }
}

#[test]
fn every_margin() {
    for case in case::every_margin() {
        Gradients::new(case).check("margin");
    }
}

#[test]
fn every_option() {
    let smoothed = config().scale(12.0).label_smoothing(0.2).z_loss(0.01);
    for (at, reduction) in [Reduction::None, Reduction::Mean, Reduction::Sum].into_iter().enumerate() {
        let config = smoothed.margin(COSINE).reduction(reduction).form(FORMS[at % 2]);
        let all = Case::new([33, 40, 10], config).bias().class_weights();
        Gradients::new(all.clone()).check("weights and a bias");
        Gradients::new(all).dlse().dentropy().check("all that comes in");
    }
    for margin in [COSINE, ARC, Margin::Angular { m: 0.5, beyond: Arc::Easy }, Margin::Metric { m: 0.1 }] {
        let case = Case::new([33, 40, 10], smoothed.margin(margin));
        Gradients::new(case.clone().class_margins()).dlse().check("a margin a class");
        Gradients::new(case.row_margins()).check("a margin a row");
    }
    let one = Case::new([5, 1, 3], smoothed.margin(COSINE)).bias().class_weights();
    Gradients::new(one).dlse().dentropy().check("one class");
}

#[test]
fn several_centres() {
    for (centres, shape) in [(2, [33, 40, 10]), (3, [5, 67, 8]), (16, [9, 5, 3])] {
        let config = config().scale(12.0).margin(ARC).centres(centres).label_smoothing(0.1);
        Gradients::new(Case::new(shape, config).bias().shards(2)).check("centres");
    }
}

#[test]
fn norms_left_alone_or_not_gone_through() {
    for (at, config) in
        [config().normalize(false).scale(0.25), config().through_norm(false).scale(16.0)].into_iter().enumerate()
    {
        let case = Case::new([20, 70, 12], config.form(FORMS[at])).bias();
        Gradients::new(case).dentropy().check("norms");
    }
}

#[test]
fn floats_stored_in_16_bits() {
    for dtype in [DType::F16, DType::BF16] {
        for (stored, shape) in
            [([dtype; 2], [9, 70, 12]), ([DType::F32, dtype], [9, 33, 7]), ([dtype, DType::F32], [5, 8, 4])]
        {
            for (kernels, context) in own_and_any_gpu() {
                let case = Case::new(shape, config().margin(COSINE).scale(16.0)).bias().shards(3).stored(stored);
                Gradients::new(case).check_on(context, &format!("{stored:?}{kernels}"));
            }
        }
    }
}

#[test]
fn what_is_not_asked_for_changes_nothing() {
    for form in FORMS {
        let case = Case::new([37, 90, 12], config().margin(ARC).scale(20.0).form(form)).bias().shards(2);
        let all = Gradients::new(case).dlse();
        let whole = all.run(false);
        assert_same_bits_of(&whole, &all.run(false), "a rerun");
        for wanted in 1..7 {
            let wanted = [0, 1, 2].map(|bit| wanted >> bit & 1 == 1);
            let some = all.clone().wanted(wanted).run(false);
            for index in (0..3).filter(|&index| wanted[index]) {
                assert_same_bits("alone", &some[index], &whole[index]);
            }
        }
    }
}

fn assert_same_bits_of(got: &gradients::Back, want: &gradients::Back, what: &str) {
    got.iter().zip(want).for_each(|(got, want)| assert_same_bits(what, got, want));
}

#[test]
fn both_forms_are_one() {
    // In chunks of rows, of which one has not all.
    let case = Case::new([2100, 2105, 4], config().margin(ARC).scale(20.0)).bias();
    let of = |form| Gradients::new(Case { config: case.config.form(form), ..case.clone() }).run(false);
    assert_same_bits_of(&of(FORMS[0]), &of(FORMS[1]), "forms");
}

#[test]
fn broken_rows_add_nothing() {
    let mut case = Case::new([12, 40, 8], config().margin(ARC).scale(16.0).reduction(Reduction::Mean)).bias();
    case.labels = (0..12).collect();
    let mut without = case.clone();
    for (row, label) in [(1, 40), (2, NONE - 1), (4, NONE)] {
        (case.labels[row], without.labels[row]) = (label, NONE);
    }
    // NaN and infinity: of rows with a label, and of one without.
    case.features.data[8 * 4] = f32::NAN;
    case.features.data[8 * 6 + 3] = f32::NAN;
    case.features.data[8 * 7 + 7] = f32::INFINITY;
    let broken = Gradients::new(case.clone());
    broken.check("broken");
    let back = broken.run(false);
    for (row, gradient) in back[0].chunks(8).enumerate() {
        let is_broken = [1, 2, 6, 7].contains(&row);
        assert!(gradient.iter().all(|x| x.is_nan() == is_broken), "{row}: {gradient:?}");
    }
    assert!(back[0][8 * 4..8 * 5].iter().all(|x| x.to_bits() << 1 == 0), "no label");
    assert!(back[1].iter().chain(&back[2]).all(|x| x.is_finite()), "{back:?}");
    // One that breaks all.
    case.weights.data[5] = f32::NAN;
    let back = Gradients::new(case).run(false);
    assert!(back[1].iter().chain(&back[2]).all(|x| x.to_bits() << 1 == 0), "{back:?}");
}

#[test]
fn broken_rows_of_later_chunks() {
    let mut case = Case::new([2100, 2105, 3], config().margin(COSINE).scale(8.0)).bias();
    case.labels[2060] = 2105;
    for form in FORMS {
        case.config.form = form;
        let all = Gradients::new(case.clone());
        let [whole, alone] = [all.run(false), all.wanted([true, false, false]).run(false)];
        for (row, gradient) in alone[0].chunks(3).enumerate() {
            assert!(gradient.iter().all(|x| x.is_nan() == (row == 2060)), "{form:?}: {row}: {gradient:?}");
        }
        assert_same_bits("alone", &alone[0], &whole[0]);
    }
}

#[test]
fn no_label_and_no_norm() {
    let mut case = Case::new([6, 9, 5], config().margin(ARC).reduction(Reduction::Mean)).bias();
    case.labels.fill(NONE);
    case.features.data[..5].fill(f32::NAN);
    let none = Gradients::new(case.clone());
    assert!(none.run(false).iter().flatten().all(|x| x.to_bits() << 1 == 0), "all are ignored");
    case.labels = vec![0, 1, 2, 3, 4, 5];
    case.features.data[..10].fill(0.0);
    case.weights.data[5..10].fill(0.0);
    for through in [true, false] {
        case.config.through_norm = through;
        let back = Gradients::new(case.clone()).run(false);
        assert!(back[0][..10].iter().chain(&back[1][5..10]).all(|x| x.to_bits() << 1 == 0), "{back:?}");
        Gradients::new(case.clone()).check("no norm");
    }
}

#[test]
fn no_rows() {
    let config = config().margin(ARC).reduction(Reduction::Mean);
    let back = Gradients::new(Case::new([0, 70, 6], config).bias().shards(2)).run(true);
    assert!(back[0].is_empty() && back[1].len() == 420 && back[2].len() == 70);
    assert!(back.iter().flatten().all(|x| x.to_bits() << 1 == 0), "{back:?}");
}

#[test]
fn one_probability_does_not_cancel() {
    // Of a row that is all but sure, p - 1 is what the others have, relatively right.
    let mut case = Case::new([1, 2, 2], config().normalize(false).scale(1.0));
    case.features.data = vec![1.0, 0.0];
    case.weights.data = vec![40.0, 0.0, 0.0, 1.0];
    case.labels = vec![0];
    let mut of = Gradients::new(case);
    of.dloss.data = vec![1.0];
    let back = of.run(false);
    let want = (-40.0_f64).exp();
    for (got, sign) in [(back[1][0], -1.0), (back[1][2], 1.0)] {
        assert!((f64::from(got) * sign / want - 1.0).abs() < 1e-4, "{got}, want {want}");
    }
}

#[test]
fn norms_of_every_size() {
    for power in [-17, -9, 9, 17] {
        let factor = 10.0_f32.powi(power);
        let mut case = Case::new([6, 20, 7], config().margin(ARC).scale(16.0));
        case.features.data.iter_mut().for_each(|x| *x *= factor);
        let at_one = Gradients::new(Case::new([6, 20, 7], case.config));
        let [got, want] = [Gradients::new(case).run(false), at_one.run(false)];
        for (got, want) in got[0].iter().zip(&want[0]) {
            let want = f64::from(*want) / f64::from(factor);
            assert!(
                (f64::from(*got) - want).abs() <= 1e-3 * want.abs() + 1e-5 / f64::from(factor),
                "{power}: {got}, {want}"
            );
        }
    }
}

#[test]
fn workspace_does_not_grow_with_classes_or_rows() {
    let bytes = |form, rows, classes| {
        let op = MarginSoftmaxBackward::new(context(), config().form(form).reduction(Reduction::Mean)).expect("an op");
        let shapes = MarginSoftmaxBackwardShapes {
            bias: true,
            dbias: true,
            ..MarginSoftmaxBackwardShapes::new(rows, classes, 32)
        };
        op.plan(&shapes, DType::F32).expect("a plan").workspace_bytes()
    };
    for form in FORMS {
        assert_eq!(bytes(form, 64, 131_072), bytes(form, 64, 1 << 20), "classes");
    }
    let recompute = GradientForm::Recompute;
    assert_eq!(bytes(recompute, 1 << 13, 1 << 13), bytes(recompute, 1 << 15, 1 << 13), "rows");
}

#[test]
fn many_rows_of_few_classes() {
    // So many that one loop over the sums of all their gradients is longer than some driver goes.
    let mut case = Case::new([270_000, 4, 2], config().margin(COSINE).scale(4.0)).bias();
    case.naive_runs = 1;
    Gradients::new(case).wanted([false, false, true]).check("bias");
}

#[test]
fn a_cramped_workspace_makes_products_again() {
    let options = ContextOptions { max_workspace_bytes: 48 << 20, ..Default::default() };
    let cramped = Context::with_options(context().device().clone(), context().queue().clone(), options);
    let op = MarginSoftmaxBackward::new(&cramped, config()).expect("an op");
    let plan = op.plan(&MarginSoftmaxBackwardShapes::new(1 << 12, 1 << 12, 64), DType::F32).expect("a plan");
    assert!(plan.reason().contains("4 products") && !plan.reason().contains("all features"), "{}", plan.reason());
}

#[test]
fn classes_in_many_shards() {
    let mut case = Case::new([3, 40_003, 16], config().margin(COSINE).scale(30.0)).shards(5).bias();
    case.naive_runs = 1;
    Gradients::new(case).check("shards");
}

#[test]
fn what_does_not_fit_is_refused() {
    let case = Case::new([4, 12, 5], config().centres(2)).bias().shards(3);
    let refusal = |of: &Gradients| of.run_on(context(), false).expect_err("a refusal").to_string();
    let all = Gradients::new(case.clone());
    let says = |message: String, what: &str| assert!(message.contains(what), "{message}");
    says(refusal(&all.clone().wanted([false; 3])), "dfeatures");
    let mut no_bias = all.clone();
    no_bias.case.bias = None;
    says(refusal(&no_bias), "dbias");
    let mut no_entropy = all.clone().dentropy();
    no_entropy.without_entropy = true;
    says(refusal(&no_entropy), "dentropy");
    let mut divided = all.clone();
    divided.divided = Some(vec![12, 8, 4]);
    says(refusal(&divided), "dweights");
    divided.divided = Some(vec![24]);
    says(refusal(&divided), "dweights");
    divided.divided = Some(vec![7, 8, 9]);
    says(refusal(&divided), "whole classes");
}

proptest! {
    #![proptest_config(any(12))]
    #[test]
    fn any_call(
        rows in 1..40_usize,
        classes in 1..60_usize,
        dim in 1..5_usize,
        seed in 0..1000_u64,
        options in 0..64_u32,
    ) {
        let on = |bit: u32| options >> bit & 1 == 1;
        let reduction = if on(0) { Reduction::Mean } else { Reduction::None };
        let mut own = config().margin(COSINE).scale(6.0).reduction(reduction).form(FORMS[usize::from(on(1))]);
        own.label_smoothing = if on(2) { 0.1 } else { 0.0 };
        let mut case = Case::new([rows, classes, 4 * dim], own).bias();
        case.labels.iter_mut().enumerate().for_each(|(i, label)| {
            let drawn = (seed * 31 + i as u64 * 17) as u32 % (classes as u32 + 1);
            *label = if drawn == classes as u32 { NONE } else { drawn };
        });
        let of = Gradients::new(case);
        let of = if on(3) { of.dlse() } else { of };
        of.check("any");
    }
}
