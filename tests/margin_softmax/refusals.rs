//! What margin softmax refuses, and how it says so.

use crate::common::context;
use wgpu_attention::margin_softmax::{Arc, Margin};
use wgpu_attention::{
    DType, Error, MarginSoftmax, MarginSoftmaxConfig, MarginSoftmaxInputs, MarginSoftmaxOutputs, Reduction, TensorView,
};

fn config() -> MarginSoftmaxConfig {
    MarginSoftmaxConfig::new()
}

/// Spoils a call that has every operand.
type Spoil = for<'a> fn(&'a wgpu::Buffer, &mut MarginSoftmaxInputs<'a>, &mut MarginSoftmaxOutputs<'a>);

/// What the message must say, and how to spoil the call.
const CASES: &[(&str, Spoil)] = &[
    ("weights: axis dim: expected 7 (the dim of features)", |_, i, _| i.features = i.features.with_extent(1, 7)),
    ("labels: axis rows: expected 4", |_, i, _| i.labels = i.labels.with_extent(0, 3)),
    ("labels: element type: expected U32, got F32", |b, i, _| i.labels = TensorView::f32(b, [4])),
    ("bias: axis classes: expected 9", |b, i, _| i.bias = Some(TensorView::f32(b, [8]))),
    ("class_weights: axis classes: expected 9", |b, i, _| i.class_weights = Some(TensorView::f32(b, [10]))),
    ("class_margins: axis classes: expected 9", |b, i, _| i.class_margins = Some(TensorView::f32(b, [1]))),
    ("row_margins is given, but so is class_margins", |b, i, _| i.row_margins = Some(TensorView::f32(b, [4]))),
    ("row_margins: axis rows: expected 4", |b, i, _| {
        (i.class_margins, i.row_margins) = (None, Some(TensorView::f32(b, [5])));
    }),
    ("sampled: axis sampled: expected 1 to 9", |b, i, o| {
        (i.sampled, o.logits) = (Some(TensorView::new(b, DType::U32, [10])), None);
    }),
    ("sampled: axis sampled: expected 1 to 9", |b, i, o| {
        (i.sampled, o.logits) = (Some(TensorView::new(b, DType::U32, [0])), None);
    }),
    ("sampled: element type: expected U32, got F32", |b, i, o| {
        (i.sampled, o.logits) = (Some(TensorView::f32(b, [4])), None);
    }),
    ("logits: the output is given, but it is of all classes, and sampled lists", |b, i, _| {
        i.sampled = Some(TensorView::new(b, DType::U32, [9]));
    }),
    ("weights is missing", |_, i, _| i.weights = &[]),
    ("loss: axis losses: expected 4 (one a row), got 3", |_, _, o| o.loss = o.loss.with_extent(0, 3)),
    ("lse: axis rows: expected 4", |b, _, o| o.lse = Some(TensorView::f32(b, [3]))),
    ("lse: element type: expected F32, got U32", |b, _, o| o.lse = Some(TensorView::new(b, DType::U32, [4]))),
    ("entropy: axis rows: expected 4", |b, _, o| o.entropy = Some(TensorView::f32(b, [5]))),
    ("others: axis rows: expected 4", |b, _, o| o.others = Some(TensorView::f32(b, [5]))),
    ("predicted: axis rows: expected 4", |b, _, o| o.predicted = Some(TensorView::new(b, DType::U32, [3]))),
    ("predicted: element type: expected U32, got F32", |b, _, o| o.predicted = Some(TensorView::f32(b, [4]))),
    ("logits: axis classes: expected 9", |b, _, o| o.logits = Some(TensorView::f32(b, [4, 8]))),
    ("logits: axis rows: expected 4", |b, _, o| o.logits = Some(TensorView::f32(b, [3, 9]))),
    ("logits: stride of axis rows", |b, _, o| o.logits = Some(TensorView::new(b, DType::BF16, [4, 9]))),
];

#[test]
fn every_spoiled_operand_is_named() {
    let context = context();
    let [input, numbers, logits, spoiled] = [0; 4].map(|_| context.allocate(1 << 10));
    let op = MarginSoftmax::new(context, config().margin(Margin::Cosine { m: 0.3 })).expect("a config");
    let weights = [TensorView::f32(&input, [9, 8])];
    for (says, spoil) in CASES {
        let labels = TensorView::new(&input, DType::U32, [4]);
        let mut inputs = MarginSoftmaxInputs::new(TensorView::f32(&input, [4, 8]), &weights, labels);
        inputs.bias = Some(TensorView::f32(&input, [9]));
        (inputs.class_weights, inputs.class_margins) = (inputs.bias, inputs.bias);
        let rows = |offset| TensorView::f32(&numbers, [4]).with_offset(offset);
        let mut outputs = MarginSoftmaxOutputs::new(rows(0));
        (outputs.lse, outputs.entropy, outputs.others) = (Some(rows(64)), Some(rows(128)), Some(rows(192)));
        outputs.predicted = Some(TensorView::new(&numbers, DType::U32, [4]).with_offset(256));
        outputs.logits = Some(TensorView::f32(&logits, [4, 9]));
        op.prepare(inputs, outputs).expect("a valid call");
        spoil(&spoiled, &mut inputs, &mut outputs);
        let message = op.prepare(inputs, outputs).expect_err("a spoiled call").to_string();
        let message = message.replace(": is ", " is ").replace("input ", "");
        assert!(message.contains(says), "{says}: {message}");
    }
}

#[test]
fn refusals_name_what_is_wrong() {
    let new = |config| MarginSoftmax::new(context(), config).map(drop).expect_err("a refusal").to_string();
    for (says, config) in [
        ("option scale: expected a finite number above 0, got 0", config().scale(0.0)),
        ("option scale", config().scale(f32::NAN)),
        ("option margin.cosine.m", config().margin(Margin::Cosine { m: f32::INFINITY })),
        ("option margin.angular.m", config().margin(Margin::Angular { m: -0.1, beyond: Arc::Easy })),
        ("option margin.sphere.m: expected 1 to 4, got 5", config().margin(Margin::Sphere { m: 5 })),
        ("option margin.sphere_min.m", config().margin(Margin::SphereMin { m: 0 })),
        ("option margin.combined.m1", config().margin(Margin::Combined { m1: 0, m2: 0.0, m3: 0.0 })),
        ("option margin.combined.m2", config().margin(Margin::Combined { m1: 1, m2: 4.0, m3: 0.0 })),
        ("option margin.metric.m", config().margin(Margin::Metric { m: f32::NAN })),
    ] {
        let message = new(config);
        assert!(message.contains(says), "{message}");
    }
    let context = context();
    let buffers = [context.allocate(1 << 10), context.allocate(1 << 10)];
    let (input, output) = (&buffers[0], &buffers[1]);
    let run = |features: [u32; 2], weights: &[[u32; 2]], labels: u32, losses: u32, config: MarginSoftmaxConfig| {
        let weights: Vec<_> = weights.iter().map(|&shape| TensorView::f32(input, shape)).collect();
        let labels = TensorView::new(input, DType::U32, [labels]);
        let inputs = MarginSoftmaxInputs::new(TensorView::f32(input, features), &weights, labels);
        let outputs = MarginSoftmaxOutputs::new(TensorView::f32(output, [losses]));
        let op = MarginSoftmax::new(context, config).expect("a config");
        let error: Error = op.prepare(inputs, outputs).map(drop).expect_err("a refusal");
        error.to_string()
    };
    let mean = config().reduction(Reduction::Mean);
    for (says, message) in [
        ("weights: axis dim", run([4, 8], &[[9, 7]], 4, 4, config())),
        ("weights: axis dim", run([4, 8], &[[9, 8], [9, 7]], 4, 4, config())),
        ("labels: axis rows", run([4, 8], &[[9, 8]], 5, 4, config())),
        ("loss: axis losses: expected 4 (one a row), got 1", run([4, 8], &[[9, 8]], 4, 1, config())),
        ("loss: axis losses: expected 1 (the reduction), got 4", run([4, 8], &[[9, 8]], 4, 4, mean)),
        ("weights: axis class_rows", run([4, 8], &[[0, 8]], 4, 4, config())),
        ("weights", run([4, 8], &[], 4, 4, config())),
        (
            "weights: axis dim: expected 8 (the first of the list), got 7",
            run([4, 8], &[[9, 8], [9, 7]], 4, 4, config()),
        ),
        (
            "weights: axis class_rows: expected a multiple of 2 in each of the list (whole classes), got 3",
            run([4, 8], &[[4, 8], [3, 8], [1, 8]], 4, 4, config().centres(2)),
        ),
        ("weights: axis class_rows: expected a multiple of the 4", run([4, 8], &[[9, 8]], 4, 4, config().centres(4))),
        ("weights: the view ends", run([4, 8], &[[9, 8], [900, 8]], 4, 4, config())),
    ] {
        assert!(message.contains(says), "{says}: {message}");
    }
}

/// What is wrong with the parts of a list, by name: dtypes and ranks that the structs do not let through are met here too.
#[test]
fn parts_of_a_list_that_do_not_fit() {
    use wgpu_attention::op::{Access::Read, Access::Write, AnyView, Op};
    let context = context();
    let [input, output] = [context.allocate(1 << 10), context.allocate(1 << 10)];
    let rows = |count: u32| AnyView::from(TensorView::f32(&input, [count, 8]));
    let labels = AnyView::from(TensorView::new(&input, DType::U32, [4]));
    let op = MarginSoftmax::new(context, config()).expect("a config");
    let run = |parts: &[AnyView<'_>], loss: AnyView<'_>| {
        let mut tensors = vec![("features", Read, rows(4)), ("labels", Read, labels), ("loss", Write, loss)];
        tensors.extend(parts.iter().map(|&part| ("weights", Read, part)));
        op.prepare_by_name(&tensors).map(drop).map_err(|error| error.to_string())
    };
    let loss = AnyView::from(TensorView::f32(&output, [4]));
    assert_eq!(run(&[rows(9), rows(3)], loss), Ok(()), "parts that fit");
    let half = AnyView::from(TensorView::new(&input, DType::F16, [3, 8]));
    let flat = AnyView::from(TensorView::f32(&input, [3]));
    let inside = AnyView::from(TensorView::f32(&input, [4]));
    for (says, got) in [
        ("weights: element type: expected F32, got F16", run(&[rows(9), half], loss)),
        ("weights: axis all: expected 2 axes (as the first of the list), got 1", run(&[rows(9), flat], loss)),
        ("weights: axis all: expected 2 axes, got 1", run(&[flat, flat], loss)),
        ("weights is missing", run(&[], loss)),
        ("loss", run(&[rows(9), rows(3)], inside)),
    ] {
        let message = got.expect_err("a refusal").replace(": is missing", " is missing").replace("input ", "");
        assert!(message.contains(says), "{says}: {message}");
    }
    // An output in the buffer of one part.
    let other = context.allocate(1 << 10);
    let last = AnyView::from(TensorView::f32(&other, [3, 8]));
    let message =
        run(&[rows(9), last], AnyView::from(TensorView::f32(&other, [4]).with_offset(512))).expect_err("shared");
    assert!(message.contains("loss") && message.contains("weights"), "{message}");
}
