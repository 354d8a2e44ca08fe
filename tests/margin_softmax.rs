//! Margin softmax on the GPU against its f64 twin.

#[path = "margin_softmax/case.rs"]
mod case;
mod common;
#[path = "margin_softmax/loss.rs"]
mod loss;
#[path = "margin_softmax/published.rs"]
mod published;
#[path = "margin_softmax/refusals.rs"]
mod refusals;
#[path = "margin_softmax/sampled.rs"]
mod sampled;
#[path = "margin_softmax/twin.rs"]
mod twin;

use case::{ARC, COSINE, Case, NONE, SIZES};
use common::{Tensor, assert_same_bits, context, device_with, own_and_any_gpu};
use proptest::prelude::*;
use wgpu_attention::margin_softmax::{Arc, Margin};
use wgpu_attention::{
    Context, ContextOptions, DType, MarginSoftmax, MarginSoftmaxConfig, MarginSoftmaxInputs, MarginSoftmaxOutputs,
    MarginSoftmaxShapes, Reduction, TensorView, wgpu,
};

fn config() -> MarginSoftmaxConfig {
    MarginSoftmaxConfig::new()
}

#[test]
fn sizes_around_every_tile() {
    let cosine = config().margin(COSINE).scale(30.0);
    for shape in SIZES {
        Case::new(shape, cosine).check("size");
    }
}

#[test]
fn a_gpus_kernels_agree() {
    for (kernels, context) in own_and_any_gpu() {
        for shape in [[5, 700, 20], [70, 200, 36]] {
            Case::new(shape, config().margin(ARC)).shards(2).check_on(context, kernels);
        }
        // Enough tiles for the largest.
        Case::new([1500, 1400, 4], config().scale(8.0)).check_on(context, kernels);
    }
}

#[test]
fn every_margin() {
    for case in case::every_margin() {
        case.check("margin");
    }
}

#[test]
fn every_option() {
    let smoothed = config().scale(12.0).label_smoothing(0.2).z_loss(0.01);
    for reduction in [Reduction::None, Reduction::Mean, Reduction::Sum] {
        let all = Case::new([33, 40, 10], smoothed.margin(COSINE).reduction(reduction)).bias().class_weights();
        all.check("weights and a bias");
    }
    for margin in [COSINE, ARC, Margin::Angular { m: 0.5, beyond: Arc::Easy }, Margin::Metric { m: 0.1 }] {
        let case = Case::new([33, 40, 10], smoothed.margin(margin));
        case.clone().class_margins().check("a margin a class");
        case.row_margins().check("a margin a row");
    }
    let one = Case::new([5, 1, 3], smoothed.margin(COSINE)).bias().class_weights();
    one.check("one class");
}

#[test]
fn centres() {
    for (centres, classes, shards) in [(2, 90, 1), (3, 41, 2), (16, 7, 3), (3, 1, 1)] {
        let config = config().margin(ARC).scale(16.0).centres(centres);
        let case = Case::new([20, classes, 12], config).shards(shards);
        case.check("centres");
        Case { config: config.normalize(false).scale(1.0).margin(Margin::None), ..case }.bias().check("plain centres");
    }
}

#[test]
fn a_margin_of_a_tensor_that_means_nothing() {
    let clean = Case::new([6, 9, 4], config().margin(ARC).scale(8.0)).row_margins();
    let want = clean.run(false).0;
    for (margin, broken) in [(f32::NAN, true), (-0.1, true), (3.2, true), (f32::INFINITY, true), (-0.0, false)] {
        let mut case = clean.clone();
        case.row_margins.as_mut().expect("margins").data[2] = margin;
        let got = case.run(false).0;
        for out in &got[..4] {
            assert_eq!(out[2].is_nan(), broken, "{margin}: {got:?}");
        }
        let rest = |out: &[Vec<f32>; 5]| [&out[0][..2], &out[0][3..]].concat();
        assert_same_bits("other rows", &rest(&got), &rest(&want));
    }
    let mut case = clean.class_weights();
    case.class_weights.as_mut().expect("weights").data[case.labels[1] as usize] = f32::NAN;
    let got = case.run(false).0;
    assert!(got[0][1].is_nan() && got[0][0].is_finite(), "{got:?}");
}

#[test]
fn products_as_they_come() {
    // The cross-entropy of a linear layer.
    let case = Case::new([20, 90, 12], config().normalize(false).scale(1.0));
    case.check("plain products");
    case.shards(3).check("three tensors");
}

#[test]
fn many_rows_need_no_more_workspace() {
    let context = device_with(wgpu::Limits::default()).expect("a device with default limits");
    let op = MarginSoftmax::new(&context, config().reduction(Reduction::Mean)).expect("a config");
    let bytes = |rows| op.plan(&MarginSoftmaxShapes::new(rows, 3, 1), DType::F32).expect("a plan").workspace_bytes();
    assert!(bytes(1 << 25) < bytes(1 << 20) + (1 << 17), "{} and {}", bytes(1 << 25), bytes(1 << 20));
}

#[test]
fn reductions() {
    for reduction in [Reduction::Mean, Reduction::Sum] {
        let config = config().margin(ARC).scale(20.0).reduction(reduction);
        Case::new([300, 50, 8], config).check("reduced");
        let mut case = Case::new([9000, 3, 4], config);
        case.naive_runs = 2;
        case.check("reduced, of more rows than one workgroup sums");
        case.labels[8999] = 3;
        assert!(case.run(false).0[0][0].is_nan());
        let mut none = Case::new([10, 50, 8], config);
        none.labels.fill(NONE);
        assert_eq!(none.run(false).0[0], [0.0]);
        let mut unknown = Case::new([10, 50, 8], config);
        unknown.labels[4] = 50;
        assert!(unknown.run(false).0[0][0].is_nan());
        let empty = Case { labels: Vec::new(), ..Case::new([1, 50, 8], config) };
        let empty = Case { features: Tensor { data: Vec::new(), shape: [0, 8] }, ..empty };
        assert_eq!(empty.run(false).0[0], [0.0]);
    }
    let empty = Case { labels: Vec::new(), ..Case::new([1, 50, 8], config()) };
    let empty = Case { features: Tensor { data: Vec::new(), shape: [0, 8] }, ..empty };
    assert!(empty.run(false).0.iter().all(Vec::is_empty));
}

#[test]
fn floats_stored_in_16_bits() {
    use DType::{BF16, F16, F32};
    for stored in [[F16, F16], [BF16, F32], [F32, BF16]] {
        for dim in [8, 11] {
            let case = Case::new([9, 70 + dim % 2, dim], config().margin(COSINE).scale(10.0)).shards(2);
            case.bias().class_weights().class_margins().stored(stored).check("16 bits");
        }
    }
}

#[test]
fn tensors_of_classes_follow_on_another() {
    let whole = Case::new([20, 333, 8], config().margin(ARC)).bias();
    let (want, classes) = whole.run(false);
    for shards in [1, 2, 5, 333] {
        let (got, predicted) = whole.clone().shards(shards).run(true);
        assert_eq!(predicted, classes, "{shards} tensors");
        for (got, want) in got.iter().flatten().zip(want.iter().flatten()) {
            let same = got.to_bits() == want.to_bits();
            assert!(same || (got - want).abs() <= 1e-4 * (1.0 + want.abs()), "{shards} tensors: {got} and {want}");
        }
    }
    // Chunks of one tensor fall as those of two.
    let whole = Case::new([1200, 7000, 4], config().margin(ARC));
    let parted = Case { shards: vec![4672, 2328], ..whole.clone() };
    let [want, got] = [whole, parted].map(|case| case.run(false));
    assert_eq!(want.1, got.1);
    want.0.iter().zip(&got.0).for_each(|(want, got)| assert_same_bits("two tensors", got, want));
    // Small dispatches take ranges one after the other.
    let options = ContextOptions { max_flops_per_dispatch: 1, ..Default::default() };
    let small = Context::with_options(context().device().clone(), context().queue().clone(), options);
    Case::new([5, 1500, 8], config()).shards(2).check_on(&small, "a tile a dispatch");
}

#[test]
fn labels_that_are_no_class_and_nan() {
    let clean = Case::new([12, 100, 8], config().margin(ARC));
    let (want, classes) = clean.run(false);
    for label in [100, 101, NONE - 1, 1 << 31] {
        let mut case = clean.clone();
        case.labels[4] = label;
        let (got, predicted) = case.run(false);
        assert_eq!(predicted, classes);
        assert_same_bits("logits", &got[4], &want[4]);
        for (got, want) in got.iter().zip(&want).take(4) {
            assert!(got[4].is_nan(), "label {label}: {got:?}");
            assert_same_bits("other rows", &got[..4], &want[..4]);
            assert_same_bits("other rows", &got[5..], &want[5..]);
        }
    }
    let mut case = clean.clone();
    *case.features.at_mut([4, 3]) = f32::NAN;
    let (got, predicted) = case.run(false);
    for (i, class) in predicted.into_iter().enumerate() {
        assert_eq!(class, if i == 4 { NONE } else { classes[i] });
        assert!(got[..4].iter().all(|out| out[i].is_nan() == (i == 4)), "row {i}: {got:?}");
    }
    let mut case = clean.clone();
    *case.weights.at_mut([77, 3]) = f32::NAN;
    let (got, predicted) = case.run(false);
    assert!(predicted.into_iter().all(|class| class == NONE));
    for (i, &label) in clean.labels.iter().enumerate() {
        assert!(got[1][i].is_nan() && got[2][i].is_nan(), "row {i}: {got:?}");
        assert!(if label == NONE { got[0][i] == 0.0 } else { got[0][i].is_nan() }, "row {i}: {got:?}");
    }
}

#[test]
fn norms_of_zero_and_of_any_size() {
    let mut case = Case::new([6, 40, 8], config().margin(Margin::Cosine { m: 0.35 }).scale(30.0));
    let clean = case.run(false).0;
    let factors = [1e-12, 1e4, -0.0, 1e12, 1.0, -1e-4];
    for (i, row) in case.features.data.chunks_mut(8).enumerate() {
        row.iter_mut().for_each(|x| *x *= factors[i]);
    }
    case.weights.data[80..88].iter_mut().for_each(|x| *x *= 1e10);
    case.check("factors");
    let got = case.run(false).0;
    assert!((got[0][2] - (1.0 + 39.0 * 10.5_f32.exp()).ln()).abs() < 1e-4, "{got:?}");
    assert!((got[0][1] - clean[0][1]).abs() < 1e-4 * (1.0 + clean[0][1]), "{got:?}");
}

#[test]
fn large_offsets_do_not_cancel() {
    // Products of 1e4 and a bit, the target's the largest by 5 or 20.
    let mut case = Case::new([2, 3, 2], config().normalize(false).scale(1.0));
    case.features.data = vec![1.0, 1.0, 1.0, 4.0];
    case.weights.data = vec![10_000.0, 0.0, 10_000.0, -5.0, 10_000.0, -6.0];
    case.labels = vec![0, 0];
    let (got, predicted) = case.run(false);
    for (row, step) in [1.0_f64, 4.0].into_iter().enumerate() {
        let want = ((-5.0 * step).exp() + (-6.0 * step).exp()).ln_1p();
        assert!((f64::from(got[0][row]) - want).abs() < 1e-4 * want, "{} and {want}", got[0][row]);
    }
    assert_eq!(predicted, [0, 0]);
    for offset in [1e4, -1e4] {
        let mut case = Case::new([9, 50, 4], config().normalize(false).scale(1.0));
        case.features.data.chunks_mut(4).for_each(|row| row[0] = 1.0);
        case.weights.data.chunks_mut(4).for_each(|row| row[0] = offset);
        let (got, _) = case.run(false);
        assert!(got[..3].iter().flatten().all(|x| x.is_finite()), "{got:?}");
        case.check("an offset");
    }
}

#[test]
fn of_equal_cosines_the_first_is_predicted() {
    let mut case = Case::new([5, 600, 4], config());
    let row: Vec<f32> = case.weights.data[..4].to_vec();
    case.weights.data.chunks_mut(4).for_each(|own| own.copy_from_slice(&row));
    for shards in [1, 3] {
        assert_eq!(case.clone().shards(shards).run(false).1, [0; 5]);
    }
}

#[test]
fn the_same_bits_on_every_run() {
    let case = Case::new([50, 500, 20], config().margin(ARC)).shards(2);
    let (first, classes) = case.run(false);
    for _ in 0..5 {
        let (again, predicted) = case.run(false);
        again.iter().zip(&first).for_each(|(again, first)| assert_same_bits("again", again, first));
        assert_eq!(predicted, classes);
    }
}

#[test]
fn a_million_classes() {
    let mut case = Case::new([2, 1_000_000, 4], config().scale(10.0).label_smoothing(0.1)).shards(3).bias();
    case.naive_runs = 1;
    case.check("a million");
}

/// More rows than have their states in the workspace at a time.
#[test]
fn many_rows() {
    let rows = (1 << 20) + 40;
    let case = Case::new([rows, 3, 2], config().margin(COSINE).scale(4.0));
    let (got, predicted) = case.run(false);
    let last = rows - 80;
    let mut few = case;
    few.features = Tensor { data: few.features.data[2 * last..].to_vec(), shape: [80, 2] };
    few.labels = few.labels[last..].to_vec();
    few.check("the last rows");
    let (want, classes) = few.run(false);
    assert_eq!(predicted[last..], classes);
    for (got, want) in got.iter().take(4).zip(&want) {
        for (got, want) in got[last..].iter().zip(want) {
            assert!(got.to_bits() == want.to_bits() || (got - want).abs() <= 1e-5, "{got} and {want}");
        }
    }
}

/// 2 GB of class weights, in buffers of 128 MiB; only where tests are to be thorough.
#[test]
fn a_million_wide_classes() {
    if std::env::var_os("THOROUGH").is_none() {
        return;
    }
    let context = context();
    let (rows, dim, each) = (8_u32, 512_u32, 65_536_u32);
    let numbers = Tensor::normal(1, [each as usize, dim as usize]).data;
    let shards: Vec<u32> = (0..16).map(|shard| if shard < 15 { each } else { 1_000_000 - 15 * each }).collect();
    let buffers: Vec<_> = shards.iter().map(|&rows| context.upload(&numbers[..(rows * dim) as usize])).collect();
    let weights: Vec<_> =
        shards.iter().zip(&buffers).map(|(&rows, buffer)| TensorView::f32(buffer, [rows, dim])).collect();
    // The features are class weights, each among 16 classes alike, or 15: of the others' products, few count beside those.
    let features = context.upload(&numbers[..(rows * dim) as usize]);
    let labels = context.upload(&(0..rows).map(|i| i + each).collect::<Vec<u32>>());
    let loss = context.allocate(rows as usize);
    let op = MarginSoftmax::new(context, config().scale(64.0)).expect("a config");
    let labels = TensorView::new(&labels, DType::U32, [rows]);
    let inputs = MarginSoftmaxInputs::new(TensorView::f32(&features, [rows, dim]), &weights, labels);
    let outputs = MarginSoftmaxOutputs::new(TensorView::f32(&loss, [rows]));
    context.run(&op.prepare(inputs, outputs).expect("a loss")).expect("it runs");
    let small = MarginSoftmax::new(context, config().scale(64.0)).expect("a config");
    let one = context.allocate(rows as usize);
    let first = [weights[0]];
    let own = context.upload(&(0..rows).collect::<Vec<u32>>());
    let inputs = MarginSoftmaxInputs::new(
        TensorView::f32(&features, [rows, dim]),
        &first,
        TensorView::new(&own, DType::U32, [rows]),
    );
    let mut outputs = MarginSoftmaxOutputs::new(TensorView::f32(&one, [rows]));
    let others = context.allocate(rows as usize);
    outputs.others = Some(TensorView::f32(&others, [rows]));
    context.run(&small.prepare(inputs, outputs).expect("a loss")).expect("it runs");
    let [loss, others] = [&loss, &others].map(|buffer| context.download(buffer).expect("rows"));
    for (loss, others) in loss.into_iter().zip(others) {
        // 15 tensors and a part of one, whose others weigh at most as much.
        let of_others = f64::from(others).exp();
        let (least, most) = ((15.0 + 15.0 * of_others).ln(), (16.0 + 16.0 * of_others).ln());
        assert!((least - 1e-3..=most + 1e-3).contains(&f64::from(loss)), "{loss}: {least} to {most}");
    }
}

#[test]
fn the_workspace_does_not_grow_with_the_classes() {
    let bytes = |rows, classes| {
        let op = MarginSoftmax::new(context(), config()).expect("a config");
        op.plan(&MarginSoftmaxShapes::new(rows, classes, 64), DType::F32).expect("a plan").workspace_bytes()
    };
    assert_eq!(bytes(32, 1_000_000), bytes(32, 4_000_000));
    assert_eq!(bytes(3000, 10_000), bytes(3000, 40_000));
    assert!(bytes(32, 1_000_000) < 20 << 20);
    // Parts that a binding holds are whole classes.
    let op = MarginSoftmax::new(context(), config().centres(7)).expect("a config");
    op.plan(&MarginSoftmaxShapes::new(32, 700_000, 64), DType::F32).expect("a plan");
}

proptest! {
    #![proptest_config(common::any(16))]
    #[test]
    fn any_size_agrees_with_the_twin(rows in 1usize..100, classes in 1usize..300, dim in 2usize..40, shards in 1usize..4, s in 1f32..40.0, options in any::<[bool; 3]>()) {
        let [smoothed, biased, weighed] = options;
        let config = config().margin(COSINE).scale(s).label_smoothing(if smoothed { 0.1 } else { 0.0 });
        let mut case = Case::new([rows, classes, dim], config).shards(shards);
        case = if biased { case.bias() } else { case };
        case = if weighed { case.class_weights().class_margins() } else { case };
        case.check("any");
    }
}
