//! Margin softmax on the GPU against its f64 twin.

mod common;

use common::{Expected, NAIVE_RUNS, Tensor, ULP, assert_same_bits, context, own_and_any_gpu};
use proptest::prelude::*;
use wgpu_attention::Reduction;
use wgpu_attention::margin_softmax::reference::{HostInputs, HostOutputs, margin_softmax, margin_softmax_in};
use wgpu_attention::margin_softmax::{Arc, Margin};
use wgpu_attention::reference::SumOrder;
use wgpu_attention::{
    Context, ContextOptions, DType, Error, HostView, MarginSoftmax, MarginSoftmaxConfig, MarginSoftmaxInputs,
    MarginSoftmaxOutputs, MarginSoftmaxShapes, Result, TensorView,
};

const NONE: u32 = u32::MAX;
const ARC: Margin = Margin::Angular { m: 0.5, beyond: Arc::Monotone };

/// Random features and class weights.
#[derive(Clone)]
struct Case {
    config: MarginSoftmaxConfig,
    features: Tensor<2>,
    weights: Tensor<2>,
    labels: Vec<u32>,
    /// How many tensors the class weights are.
    shards: usize,
    /// The types of features and class weights.
    stored: [DType; 2],
}

/// What came out: loss, lse and entropy; and the predicted classes.
type Outputs = ([Vec<f32>; 3], Vec<u32>);

impl Case {
    fn new([rows, classes, dim]: [usize; 3], config: MarginSoftmaxConfig) -> Self {
        let labels = (0..rows).map(|i| if i % 5 == 3 { NONE } else { (7 * i % classes) as u32 }).collect();
        let [features, weights] = [(1, rows), (2, classes)].map(|(seed, rows)| Tensor::normal(seed, [rows, dim]));
        Self { config, features, weights, labels, shards: 1, stored: [DType::F32; 2] }
    }

    fn shards(self, shards: usize) -> Self {
        Self { shards, ..self }
    }

    fn stored(self, stored: [DType; 2]) -> Self {
        let [features, weights] = [self.features.rounded(stored[0]), self.weights.rounded(stored[1])];
        Self { features, weights, stored, ..self }
    }

    fn host(&self) -> HostInputs<'_> {
        let labels = HostView::new(&self.labels, [self.labels.len()]).expect("labels");
        HostInputs::new(self.features.view(), self.weights.view(), labels)
    }

    fn run(&self, odd: bool) -> Outputs {
        self.run_on(context(), odd).expect("a loss")
    }

    /// On the GPU, with guards around the outputs and, if `odd`, every row off a multiple of four with NaN behind it.
    fn run_on(&self, context: &Context, odd: bool) -> Result<Outputs> {
        let (start, gap) = if odd { (3, 2) } else { (0, 0) };
        let placed = |data: &[f32], dim: usize, dtype| {
            let rows = data.chunks(dim).flat_map(|row| [row, &[f32::NAN; 2][..gap]].concat());
            context
                .upload_as(&vec![f32::NAN; start].into_iter().chain(rows).chain([f32::NAN]).collect::<Vec<_>>(), dtype)
        };
        let ([rows, dim], [classes, _]) = (self.features.shape, self.weights.shape);
        let features = placed(&self.features.data, dim, self.stored[0])?;
        let each = classes.div_ceil(self.shards);
        let shards: Vec<_> = self.weights.data.chunks(each * dim).collect();
        let buffers = shards.iter().map(|shard| placed(shard, dim, self.stored[1])).collect::<Result<Vec<_>>>()?;
        let view = |buffer, dtype, rows: usize| {
            let view = TensorView::new(buffer, dtype, [rows as u32, dim as u32]);
            view.with_strides([(dim + gap) as u64, 1]).with_offset(start as u64)
        };
        let weights: Vec<_> = shards
            .iter()
            .zip(&buffers)
            .map(|(shard, buffer)| view(buffer, self.stored[1], shard.len() / dim))
            .collect();
        let labels = context.upload(&[&vec![NONE; start][..], &self.labels, &[NONE]].concat());
        let labels = TensorView::new(&labels, DType::U32, [rows as u32]).with_offset(start as u64);

        let losses = if self.config.reduction == Reduction::None { rows } else { 1 };
        let guarded = |count: usize| context.upload(&vec![f32::NAN; count + 5]);
        let outputs = [losses, rows, rows].map(|count| (guarded(count), count));
        let classes = context.upload(&vec![12_345_u32; rows + 5]);
        let [loss, lse, entropy] =
            outputs.each_ref().map(|(buffer, count)| TensorView::f32(buffer, [*count as u32]).with_offset(2));
        let predicted = TensorView::new(&classes, DType::U32, [rows as u32]).with_offset(2);
        let op = MarginSoftmax::new(context, self.config)?;
        let mut outs = MarginSoftmaxOutputs::new(loss);
        (outs.lse, outs.entropy, outs.predicted) = (Some(lse), Some(entropy), Some(predicted));
        let inputs = MarginSoftmaxInputs::new(view(&features, self.stored[0], rows), &weights, labels);
        context.run(&op.prepare(inputs, outs)?)?;
        // The loss alone is the same to the bit.
        let alone = guarded(losses);
        let loss = TensorView::f32(&alone, [losses as u32]).with_offset(2);
        context.run(&op.prepare(inputs, MarginSoftmaxOutputs::new(loss))?)?;

        let read = |buffer: &wgpu::Buffer, count: usize| {
            let all = context.download(buffer).expect("an output");
            assert!(all[..2].iter().chain(&all[2 + count..]).all(|x| x.is_nan()), "outside the view");
            all[2..][..count].to_vec()
        };
        let found = outputs.each_ref().map(|(buffer, count)| read(buffer, *count));
        assert_same_bits("the loss alone", &read(&alone, losses), &found[0]);
        let all = context.download_u32(&classes)?;
        assert!(all[..2].iter().chain(&all[2 + rows..]).all(|&class| class == 12_345), "outside the view");
        Ok((found, all[2..][..rows].to_vec()))
    }

    fn check(&self, what: &str) {
        self.check_on(context(), what);
    }

    fn check_on(&self, context: &Context, what: &str) {
        let ([rows, dim], [classes, _]) = (self.features.shape, self.weights.shape);
        let case = format!("{what}: {rows} rows, {classes} classes, {dim} dims, {:?}", self.config);
        let want = margin_softmax(&self.config, &self.host()).expect("the twin");
        let naive: Vec<HostOutputs<f32>> = (0..NAIVE_RUNS)
            .map(|seed| margin_softmax_in(&self.config, &self.host(), SumOrder::Shuffled(seed)).expect("the twin"))
            .collect();
        // A cosine is off by two inverse roots of 2 ulp and three products, a logit by a root and a product more, and the margin's
        // polynomials by a few times that; a plain product is rounded to its own size. It moves what is a logarithm by as much. The
        // mean of logits below the largest weighs each by itself.
        let products = || (0..rows).flat_map(|i| (0..classes).map(move |j| self.product(i, j).abs()));
        let size = if self.config.normalize { 32.0 } else { products().fold(0.0, f64::max) };
        let logit = size * ULP * f64::from(self.config.scale);
        let absolute = 1.0 / f64::from(1 << 19) + 2.0 * logit * (1.0 + (classes as f64).ln());
        for odd in [false, true] {
            let (got, predicted) = self.run_on(context, odd).expect("a loss");
            for (name, want, naive, got) in [
                ("loss", &want.loss, naive.iter().map(|out| out.loss.clone()).collect::<Vec<_>>(), &got[0]),
                ("lse", &want.lse, naive.iter().map(|out| out.lse.clone()).collect(), &got[1]),
                ("entropy", &want.entropy, naive.iter().map(|out| out.entropy.clone()).collect(), &got[2]),
            ] {
                let shape = [want.len()];
                let floor = 8.0 * ULP;
                let summed = if self.config.reduction == Reduction::Sum { rows as f64 } else { 1.0 };
                let absolute_floor = absolute * summed;
                Expected { case: &case, name, shape: &shape, want, naive: &naive, floor, absolute_floor }.assert(got);
            }
            for (i, (&got, &want)) in predicted.iter().zip(&want.predicted).enumerate() {
                let close = || (self.cosine(i, got as usize) - self.cosine(i, want as usize)).abs() <= size * ULP;
                assert!(got == want || close(), "{case}: predicted [{i}]: got {got}, want {want}");
            }
        }
    }

    fn cosine(&self, i: usize, j: usize) -> f64 {
        let dim = self.features.shape[1];
        let square = |row: &[f32]| row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
        let squares = square(&self.features.data[i * dim..][..dim]) * square(&self.weights.data[j * dim..][..dim]);
        self.product(i, j) / if self.config.normalize { squares.sqrt() } else { 1.0 }
    }

    fn product(&self, i: usize, j: usize) -> f64 {
        let dim = self.features.shape[1];
        let (feature, weight) = (&self.features.data[i * dim..][..dim], &self.weights.data[j * dim..][..dim]);
        feature.iter().zip(weight).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
    }
}

fn config() -> MarginSoftmaxConfig {
    MarginSoftmaxConfig::new()
}

#[test]
fn sizes_around_every_tile() {
    let cosine = config().margin(Margin::Cosine { m: 0.35 }).scale(30.0);
    for [rows, classes, dim] in [
        [1, 1, 1],
        [2, 2, 3],
        [3, 255, 4],
        [4, 256, 5],
        [5, 257, 8],
        [15, 1000, 9],
        [16, 63, 7],
        [17, 64, 31],
        [63, 65, 32],
        [64, 127, 33],
        [65, 129, 64],
        [127, 4, 16],
        [129, 300, 6],
    ] {
        Case::new([rows, classes, dim], cosine).check("size");
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
    let angular = [Arc::Plain, Arc::Monotone, Arc::Easy].map(|beyond| Margin::Angular { m: 0.5, beyond });
    let powers = (1..=4)
        .flat_map(|m| [Margin::Sphere { m }, Margin::SphereMin { m }, Margin::Combined { m1: m, m2: 0.3, m3: 0.2 }]);
    let all = angular.into_iter().chain(powers).chain([Margin::None, Margin::Metric { m: 0.3 }]);
    for margin in all {
        let mut case = Case::new([40, 30, 10], config().margin(margin).scale(16.0));
        // Features of every angle to the target.
        for i in 0..40 {
            let (t, target) = (i as f32 / 39.0 * 1.9 - 0.95, (7 * i % 30) * 10);
            for c in 0..10 {
                let own = case.features.data[10 * i + c];
                case.features.data[10 * i + c] = t * case.weights.data[target + c] + (1.0 - t.abs()) * own;
            }
        }
        case.check("margin");
    }
}

#[test]
fn products_as_they_come() {
    // The cross-entropy of a linear layer.
    let mut case = Case::new([20, 90, 12], config().normalize(false).scale(1.0));
    case.check("plain products");
    case.shards = 3;
    case.check("three tensors");
}

#[test]
fn reductions() {
    for reduction in [Reduction::Mean, Reduction::Sum] {
        let config = config().margin(ARC).scale(20.0).reduction(reduction);
        Case::new([300, 50, 8], config).check("reduced");
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
            Case::new([9, 70, dim], config().scale(10.0)).stored(stored).check("16 bits");
        }
    }
}

#[test]
fn tensors_of_classes_follow_on_another() {
    let whole = Case::new([20, 333, 8], config().margin(ARC));
    let (want, classes) = whole.run(false);
    for shards in [2, 5, 333] {
        let (got, predicted) = whole.clone().shards(shards).run(true);
        assert_eq!(predicted, classes, "{shards} tensors");
        for (got, want) in got.iter().flatten().zip(want.iter().flatten()) {
            assert!((got - want).abs() <= 1e-4 * (1.0 + want.abs()), "{shards} tensors: {got} and {want}");
        }
    }
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
        for (got, want) in got.iter().zip(&want) {
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
        assert!(got.iter().all(|out| out[i].is_nan() == (i == 4)), "row {i}: {got:?}");
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
        assert!(got.iter().flatten().all(|x| x.is_finite()), "{got:?}");
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
    let case = Case::new([2, 1_000_000, 4], config().scale(10.0)).shards(3);
    let (got, predicted) = case.run(false);
    let want = margin_softmax(&case.config, &case.host()).expect("the twin");
    for (got, want) in got.iter().flatten().zip([want.loss, want.lse, want.entropy].concat()) {
        assert!((f64::from(*got) - want).abs() < 1e-4 * (1.0 + want.abs()), "{got} and {want}");
    }
    for (i, class) in predicted.into_iter().enumerate() {
        assert!((case.cosine(i, class as usize) - case.cosine(i, want.predicted[i] as usize)).abs() < 1e-6);
    }
}

#[test]
fn the_workspace_does_not_grow_with_the_classes() {
    let bytes = |classes| {
        let op = MarginSoftmax::new(context(), config()).expect("a config");
        op.plan(&MarginSoftmaxShapes::new(32, classes, 64), DType::F32).expect("a plan").workspace_bytes()
    };
    assert_eq!(bytes(10_000), bytes(1_000_000));
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
        ("weights: the view ends", run([4, 8], &[[9, 8], [900, 8]], 4, 4, config())),
    ] {
        assert!(message.contains(says), "{says}: {message}");
    }
}

proptest! {
    #![proptest_config(common::any(16))]
    #[test]
    fn any_size_agrees_with_the_twin(rows in 1usize..100, classes in 1usize..300, dim in 2usize..40, shards in 1usize..4, s in 1f32..40.0) {
        Case::new([rows, classes, dim], config().margin(Margin::Cosine { m: 0.2 }).scale(s)).shards(shards).check("any");
    }
}
