//! What the host can know is an error that names the tensor.

use wgpu_attention::Reduction;
use wgpu_attention::multilabel_softmax::{Labels, Threshold};
use wgpu_attention::{
    DType, MultilabelSoftmax, MultilabelSoftmaxBackward, MultilabelSoftmaxBackwardInputs, MultilabelSoftmaxConfig,
    MultilabelSoftmaxGradients, MultilabelSoftmaxInputs, MultilabelSoftmaxOutputs, TensorView, wgpu,
};

use super::common::context;

type Spoil = for<'a> fn(&'a wgpu::Buffer, &mut MultilabelSoftmaxInputs<'a>, &mut MultilabelSoftmaxOutputs<'a>);

/// What the message must say, and how to spoil a valid call with soft labels and a threshold a class.
const CASES: &[(&[&str], Spoil)] = &[
    (&["scores", "classes", "1 to 1073741824", "got 0"], |_, i, _| {
        (i.scores, i.soft_labels) = (i.scores.with_extent(1, 0), i.soft_labels.map(|labels| labels.with_extent(1, 0)));
    }),
    (&["soft_labels", "classes", "expected 8", "got 7"], |_, i, _| {
        i.soft_labels = i.soft_labels.map(|labels| labels.with_extent(1, 7));
    }),
    (&["soft_labels", "rows", "expected 6", "got 5"], |_, i, _| {
        i.soft_labels = i.soft_labels.map(|labels| labels.with_extent(0, 5));
    }),
    (&["soft_labels", "missing", "labels"], |_, i, _| i.soft_labels = None),
    (&["labels", "given", "others"], |b, i, _| i.labels = Some(TensorView::new(b, DType::Bool, [6, 8]))),
    (&["label_indices", "given", "others"], |b, i, _| i.label_indices = Some(TensorView::new(b, DType::U32, [6, 2]))),
    (&["label_offsets", "given", "others"], |b, i, _| i.label_offsets = Some(TensorView::new(b, DType::U32, [7]))),
    (&["mask", "Bool", "F32"], |b, i, _| i.mask = Some(TensorView::f32(b, [6, 8]))),
    (&["mask", "rows", "expected 6", "got 1"], |b, i, _| i.mask = Some(TensorView::new(b, DType::Bool, [1, 8]))),
    (&["threshold", "1 or 8", "got 3"], |b, i, _| i.threshold = Some(TensorView::f32(b, [3]))),
    (&["threshold", "missing", "tensor"], |_, i, _| i.threshold = None),
    (&["loss", "losses", "expected 6", "reduction is none", "got 1"], |b, _, o| o.loss = Some(TensorView::f32(b, [1]))),
    (&["loss", "missing", "labels"], |_, _, o| o.loss = None),
    (&["lse_pos", "missing", "lse_neg"], |b, _, o| o.lse_neg = Some(TensorView::f32(b, [6]))),
    (&["lse_neg", "missing", "lse_pos"], |b, _, o| o.lse_pos = Some(TensorView::f32(b, [6]))),
    (&["loss", "F32", "F16"], |b, _, o| o.loss = Some(TensorView::new(b, DType::F16, [6]))),
    (&["predictions", "classes", "expected 8", "got 4"], |b, _, o| o.predictions = Some(TensorView::f32(b, [6, 4]))),
    (&["loss", "lies in the buffer of the input", "scores"], |_, i, o| {
        i.mask = None;
        o.loss = Some(TensorView::f32(SCORES.get().expect("a buffer"), [6]));
    }),
];

static SCORES: std::sync::OnceLock<wgpu::Buffer> = std::sync::OnceLock::new();

fn expect(message: &str, says: &[&str]) {
    assert!(says.iter().all(|part| message.contains(part)), "`{message}` does not say {says:?}");
}

#[test]
fn every_spoiled_tensor_is_named() {
    let context = context();
    let scores = SCORES.get_or_init(|| context.upload(&[0.5_f32; 64]));
    let [input, output] = [0.5_f32, f32::NAN].map(|x| context.upload(&[x; 64]));
    let config = MultilabelSoftmaxConfig::new().labels(Labels::Soft).threshold(Threshold::Tensor);
    let op = MultilabelSoftmax::new(context, config).expect("a config");
    for (says, spoil) in CASES {
        let mut inputs = MultilabelSoftmaxInputs {
            soft_labels: Some(TensorView::f32(&input, [6, 8])),
            threshold: Some(TensorView::f32(&input, [8])),
            ..MultilabelSoftmaxInputs::new(TensorView::f32(scores, [6, 8]))
        };
        let loss = context.upload(&[f32::NAN; 8]);
        let mut outputs = MultilabelSoftmaxOutputs::new(TensorView::f32(&loss, [6]));
        op.prepare(inputs, outputs).expect("a valid call");
        // What is spoiled may be an input or an output, and lies in a buffer of its own.
        spoil(&output, &mut inputs, &mut outputs);
        expect(&op.prepare(inputs, outputs).expect_err("a spoiled call").to_string(), says);
    }
}

#[test]
fn without_labels_there_are_predictions_alone() {
    let context = context();
    let [scores, output, other] = [0.5_f32, f32::NAN, f32::NAN].map(|x| context.upload(&[x; 8]));
    let op = MultilabelSoftmax::new(context, MultilabelSoftmaxConfig::new().labels(Labels::None)).expect("a config");
    let inputs = MultilabelSoftmaxInputs::new(TensorView::f32(&scores, [2, 3]));
    let refused = |outputs, says: &[&str]| {
        expect(&op.prepare(inputs, outputs).expect_err("no loss").to_string(), says);
    };
    refused(MultilabelSoftmaxOutputs::none(), &["predictions", "every other output"]);
    refused(MultilabelSoftmaxOutputs::new(TensorView::f32(&output, [2])), &["loss", "no labels"]);
    let mut outputs = MultilabelSoftmaxOutputs::none();
    outputs.predictions = Some(TensorView::f32(&output, [2, 3]));
    outputs.probabilities = Some(TensorView::f32(&other, [2, 3]));
    context.run(&op.prepare(inputs, outputs).expect("predictions")).expect("it runs");
    assert!(context.download(&output).expect("predictions")[..6].iter().all(|x| *x == 1.0));
    let probability = 1.0 / (1.0 + (-1.0_f32).exp());
    assert!(context.download(&other).expect("probabilities")[..6].iter().all(|x| (x - probability).abs() < 1e-6));
}

#[test]
fn configs_and_gradients_that_mean_nothing() {
    let context = context();
    for number in [f32::NAN, f32::INFINITY, -2e37] {
        let config = MultilabelSoftmaxConfig::new().threshold(Threshold::Fixed(number));
        let message = MultilabelSoftmax::new(context, config).expect_err("a threshold").to_string();
        expect(&message, &["threshold", "between -1e37 and 1e37"]);
        MultilabelSoftmaxBackward::new(context, config).expect_err("a threshold");
    }
    let none = MultilabelSoftmaxConfig::new().labels(Labels::None);
    let message = MultilabelSoftmaxBackward::new(context, none).expect_err("labels").to_string();
    expect(&message, &["labels", "got none"]);

    let [input, output] = [0.5_f32, f32::NAN].map(|x| context.upload(&[x; 16]));
    let config = MultilabelSoftmaxConfig::new().reduction(Reduction::Mean);
    let op = MultilabelSoftmaxBackward::new(context, config).expect("a config");
    let rows = TensorView::f32(&input, [2]);
    let refused = |dloss, gradients, says: &[&str]| {
        let mut inputs = MultilabelSoftmaxBackwardInputs::new(TensorView::f32(&input, [2, 4]), rows, rows, dloss);
        inputs.labels = Some(TensorView::new(&input, DType::Bool, [2, 4]));
        expect(&op.prepare(inputs, gradients).expect_err("a call").to_string(), says);
    };
    let one = TensorView::f32(&input, [1]);
    let none = MultilabelSoftmaxGradients::none();
    let matrix = Some(TensorView::f32(&output, [2, 4]));
    refused(one, none, &["dscores", "every other gradient"]);
    refused(rows, MultilabelSoftmaxGradients { dscores: matrix, ..none }, &["dloss", "expected 1", "got 2"]);
    refused(one, MultilabelSoftmaxGradients { dsoft_labels: matrix, ..none }, &["dsoft_labels", "not soft"]);
    let dthreshold = Some(TensorView::f32(&output, [1]));
    refused(one, MultilabelSoftmaxGradients { dthreshold, ..none }, &["dthreshold", "fixed number"]);
}
