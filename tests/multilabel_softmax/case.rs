//! A call of the loss and of its backward pass, with all that they may read, on the GPU and by the twins.

use wgpu_attention::Reduction;
use wgpu_attention::multilabel_softmax::{Labels, Threshold};
use wgpu_attention::op::{HostTensors, Op};
use wgpu_attention::reference::{Real, SumOrder};
use wgpu_attention::{
    Context, DType, HostView, MultilabelSoftmax, MultilabelSoftmaxBackward, MultilabelSoftmaxBackwardInputs,
    MultilabelSoftmaxConfig, MultilabelSoftmaxGradients, MultilabelSoftmaxInputs, MultilabelSoftmaxOutputs, TensorView,
    wgpu,
};

use super::common::{Expected, NAIVE_RUNS, Tensor, ULP, context, rounding};

#[derive(Clone)]
pub struct Case {
    pub config: MultilabelSoftmaxConfig,
    pub rows: usize,
    pub classes: usize,
    pub scores: Vec<f32>,
    pub labels: Vec<u8>,
    pub width: usize,
    pub indices: Vec<u32>,
    pub list: Vec<u32>,
    pub offsets: Vec<u32>,
    pub soft: Vec<f32>,
    pub mask: Option<Vec<u8>>,
    pub threshold: Vec<f32>,
    pub dloss: Vec<f32>,
    dtype: DType,
    soft_gradient: bool,
}

/// Outputs of both passes by name.
pub type Outputs<T> = Vec<(&'static str, Vec<T>)>;

/// An output by its name.
pub fn find(outputs: &Outputs<f32>, name: &str) -> Vec<f32> {
    outputs.iter().find(|(own, _)| *own == name).expect("an output").1.clone()
}

impl Case {
    pub fn new(config: MultilabelSoftmaxConfig, rows: usize, classes: usize) -> Self {
        let reduced = config.reduction != Reduction::None;
        let mut case = Self {
            config,
            rows,
            classes,
            scores: Tensor::normal(1, [rows, classes]).scaled(2.0).data,
            labels: Vec::new(),
            width: 0,
            indices: Vec::new(),
            list: Vec::new(),
            offsets: Vec::new(),
            soft: Tensor::normal(2, [rows, classes]).data.iter().map(|x| 1.0 / (1.0 + x.exp())).collect(),
            mask: None,
            threshold: Vec::new(),
            dloss: Tensor::normal(3, [if reduced { 1 } else { rows }]).data,
            dtype: DType::F32,
            soft_gradient: true,
        };
        case.soft.iter_mut().skip(3).step_by(11).for_each(|t| *t = 0.0);
        case.soft.iter_mut().skip(4).step_by(13).for_each(|t| *t = 1.0);
        case.positive(|row, class| (7 * row + 3 * class) % 11 == 0 || class == row);
        case
    }

    /// Classes of which `positive(row, class)` are hard labels.
    pub fn positive(&mut self, positive: impl Fn(usize, usize) -> bool) {
        let positive = &positive;
        let of_row = |row| (0..self.classes).filter(move |&class| positive(row, class)).map(|class| class as u32).rev();
        let lists: Vec<Vec<u32>> = (0..self.rows).map(|row| of_row(row).collect()).collect();
        self.labels = vec![0; self.rows * self.classes];
        self.width = lists.iter().map(Vec::len).max().unwrap_or(0) + 3;
        (self.indices, self.list, self.offsets) = (Vec::new(), Vec::new(), vec![0]);
        for (row, list) in lists.iter().enumerate() {
            // Bytes other than 0 are true, lists are padded anywhere, and a class may stand twice.
            list.iter().for_each(|&class| self.labels[row * self.classes + class as usize] = 1 + (class % 255) as u8);
            let twice: Vec<u32> = list.first().into_iter().chain(list).copied().collect();
            self.indices.extend(&twice[..twice.len().min(1)]);
            self.indices.extend(std::iter::repeat_n(u32::MAX, self.width - twice.len()));
            self.indices.extend(&twice[twice.len().min(1)..]);
            self.list.extend(&twice);
            self.offsets.push(self.list.len() as u32);
        }
    }

    pub fn mask(mut self, takes_part: impl Fn(usize, usize) -> bool) -> Self {
        let places = (0..self.rows).flat_map(|row| (0..self.classes).map(move |class| (row, class)));
        self.mask = Some(places.map(|(row, class)| 0x80 * u8::from(takes_part(row, class))).collect());
        self
    }

    pub fn threshold(mut self, thresholds: usize) -> Self {
        self.threshold = Tensor::normal(4, [thresholds]).data;
        self.config = self.config.threshold(Threshold::Tensor);
        self
    }

    /// All floats stored in this type.
    pub fn stored(mut self, dtype: DType) -> Self {
        for own in [&mut self.scores, &mut self.soft, &mut self.threshold, &mut self.dloss] {
            *own = Tensor { shape: [own.len()], data: own.clone() }.rounded(dtype).data;
        }
        Self { dtype, ..self }
    }

    /// Where the gradient of soft labels passes all bounds.
    pub fn without_soft_gradient(&self) -> Self {
        Self { soft_gradient: false, ..self.clone() }
    }

    fn soft_gradient(&self) -> bool {
        self.config.labels == Labels::Soft && self.soft_gradient
    }

    /// On the GPU; if `odd`, everything starts off a multiple of four and rows lie apart.
    pub fn run(&self, odd: bool) -> Outputs<f32> {
        self.run_on(context(), odd)
    }

    pub fn run_on(&self, context: &Context, odd: bool) -> Outputs<f32> {
        let (rows, classes, dtype) = (self.rows, self.classes, self.dtype);
        let matrix = |data: &[f32], dtype| Matrix::new(context, data, [rows, classes], odd, dtype);
        let numbers = |count: usize| Matrix::new(context, &vec![f32::NAN; count], [1, count], odd, DType::F32);
        let bytes = |data: &[u8]| Matrix::of_bytes(context, data, [rows, classes], odd);
        let shifted = |data: &[u32]| context.upload(&[&[1, 2, 3], data, &[0]].concat());
        let (scores, soft) = (matrix(&self.scores, dtype), matrix(&self.soft, dtype));
        let (labels, mask) = (bytes(&self.labels), self.mask.as_ref().map(|mask| bytes(mask)));
        let threshold = Matrix::new(context, &self.threshold, [1, self.threshold.len()], odd, dtype);
        let dloss = Matrix::new(context, &self.dloss, [1, self.dloss.len()], odd, dtype);
        let [indices, list, offsets] = [&self.indices, &self.list, &self.offsets].map(|data| shifted(data));
        let index = |buffer, count: usize| TensorView::new(buffer, DType::U32, [count as u32]).with_offset(3);
        let is = |labels| self.config.labels == labels;
        let label_indices = TensorView::new(&indices, DType::U32, [rows as u32, self.width as u32]).with_offset(3);
        let inputs = MultilabelSoftmaxInputs {
            labels: is(Labels::Bitmap).then(|| labels.view()),
            label_indices: is(Labels::Indices).then_some(label_indices),
            label_list: is(Labels::Offsets).then(|| index(&list, self.list.len())),
            label_offsets: is(Labels::Offsets).then(|| index(&offsets, rows + 1)),
            soft_labels: is(Labels::Soft).then(|| soft.view()),
            mask: mask.as_ref().map(Matrix::view),
            threshold: (self.config.threshold == Threshold::Tensor).then(|| threshold.row()),
            ..MultilabelSoftmaxInputs::new(scores.view())
        };
        let nan = vec![f32::NAN; rows * classes];
        let elements = || matrix(&nan, dtype);
        let (loss, lse_neg, lse_pos) = (numbers(self.dloss.len()), numbers(rows), numbers(rows));
        let (predictions, probabilities) = (elements(), elements());
        let outputs = MultilabelSoftmaxOutputs {
            predictions: Some(predictions.view()),
            probabilities: Some(probabilities.view()),
            ..MultilabelSoftmaxOutputs::saved(loss.row(), lse_neg.row(), lse_pos.row())
        };
        let op = MultilabelSoftmax::new(context, self.config).expect("a config");
        context.run(&op.prepare(inputs, outputs).expect("a loss")).expect("it runs");

        let (dscores, dsoft_labels) = (elements(), elements());
        let nan = vec![f32::NAN; self.threshold.len()];
        let dthreshold = Matrix::new(context, &nan, [1, nan.len()], odd, dtype);
        let MultilabelSoftmaxInputs {
            labels,
            label_indices,
            label_list,
            label_offsets,
            soft_labels,
            mask,
            threshold,
            ..
        } = inputs;
        let inputs = MultilabelSoftmaxBackwardInputs {
            labels,
            label_indices,
            label_list,
            label_offsets,
            soft_labels,
            mask,
            threshold,
            ..MultilabelSoftmaxBackwardInputs::new(scores.view(), lse_neg.row(), lse_pos.row(), dloss.row())
        };
        let gradients = MultilabelSoftmaxGradients {
            dscores: Some(dscores.view()),
            dsoft_labels: self.soft_gradient().then(|| dsoft_labels.view()),
            dthreshold: inputs.threshold.map(|_| dthreshold.row()),
        };
        let op = MultilabelSoftmaxBackward::new(context, self.config).expect("a config");
        context.run(&op.prepare(inputs, gradients).expect("gradients")).expect("it runs");
        let mut found = vec![
            ("loss", &loss),
            ("lse_neg", &lse_neg),
            ("lse_pos", &lse_pos),
            ("predictions", &predictions),
            ("probabilities", &probabilities),
            ("dscores", &dscores),
        ];
        found.extend(self.soft_gradient().then_some(("dsoft_labels", &dsoft_labels)));
        found.extend(inputs.threshold.map(|_| ("dthreshold", &dthreshold)));
        found.into_iter().map(|(name, own)| (name, own.read(context, name))).collect()
    }

    /// By the twins.
    fn twin<T: Real>(&self, order: SumOrder) -> Outputs<T> {
        let mut all = MultilabelSoftmax::twin(&self.config, &self, order).expect("the twin");
        all.extend(MultilabelSoftmaxBackward::twin(&self.config, &self, order).expect("the twin"));
        all.retain(|(name, _)| *name != "dsoft_labels" || self.soft_gradient);
        all
    }

    pub fn check(&self, what: &str) {
        self.check_on(context(), what);
    }

    pub fn check_on(&self, context: &Context, what: &str) {
        let case = format!("{what}: {:?}, {} x {}", self.config, self.rows, self.classes);
        let want = self.twin::<f64>(SumOrder::InOrder);
        // A naive run of so many classes says as much as eight.
        let runs = if self.rows * self.classes > 1 << 18 { 1 } else { NAIVE_RUNS };
        let naive: Vec<_> = (0..runs).map(|seed| self.twin::<f32>(SumOrder::Shuffled(seed))).collect();
        for odd in [false, true] {
            let got = self.run_on(context, odd);
            assert_eq!(got.len(), want.len(), "{case}: outputs");
            for (at, (name, got)) in got.iter().enumerate() {
                assert_eq!(*name, want[at].0);
                let naive: Vec<_> = naive.iter().map(|run| run[at].1.clone()).collect();
                self.compare(&format!("{case}, odd {odd}"), name, got, &want[at].1, naive);
            }
        }
    }

    fn compare(&self, case: &str, name: &str, got: &[f32], want: &[f64], mut naive: Vec<Vec<f32>>) {
        let (mut got, mut want) = (got.to_vec(), want.to_vec());
        assert_eq!(got.len(), want.len(), "{case}: {name}: element count");
        for (at, (got, want)) in got.iter_mut().zip(&mut want).enumerate() {
            assert_eq!(got.is_nan(), want.is_nan(), "{case}: {name}: element {at}: got {got}, want {want}");
            if want.is_nan() {
                (*got, *want) = (0.0, 0.0);
                naive.iter_mut().for_each(|run| run[at] = 0.0);
            }
        }
        if name == "predictions" {
            assert!(got.iter().zip(&want).all(|(got, want)| f64::from(*got) == *want), "{case}: {name}");
            return;
        }
        let size = |all: &[f32]| -> f64 {
            all.iter().filter(|x| x.is_finite()).fold(0.0_f32, |most, x| most.max(x.abs())).into()
        };
        let score = size(&self.scores) + size(&self.threshold);
        // An exponential is off by (3 + 2|x|) ulp, and the mean of |x| under the weights is at most the log of their number; a logarithm
        // by 2^-21; x itself, and its distance from the logarithm, by an ulp of the largest score each.
        let sum = ULP * (8.0 + 2.0 * ((self.classes + 1) as f64).ln());
        let lse = sum + 1.0 / f64::from(1 << 21);
        let weight = lse + 2.0 * ULP * (score + 4.0);
        let g = size(&self.dloss);
        let rows = self.rows as f64;
        let (floor, absolute) = match name {
            "loss" if self.config.reduction == Reduction::Sum => (4.0 * ULP, 2.0 * lse * rows),
            "loss" | "lse_neg" | "lse_pos" => (4.0 * ULP, 2.0 * lse),
            "probabilities" => (16.0 * ULP, 0.0),
            "dscores" => (weight, 0.0),
            "dsoft_labels" => (weight + 2.0 * ULP * score.min(80.0), 0.0),
            _ => (weight, 2.0 * weight * g * if self.config.reduction == Reduction::Mean { 1.0 } else { rows }),
        };
        let rounded = !["loss", "lse_neg", "lse_pos"].contains(&name);
        let (relative, least) = if rounded { rounding(self.dtype) } else { (0.0, 0.0) };
        let (floor, absolute_floor) = (floor + relative, absolute + least);
        let shape =
            if want.len() == self.rows * self.classes { vec![self.rows, self.classes] } else { vec![want.len()] };
        Expected { case, name, shape: &shape, want: &want, naive: &naive, floor, absolute_floor }.assert(&got);
    }
}

impl<'a> HostTensors<'a> for &'a Case {
    fn floats<const RANK: usize>(&self, name: &'static str) -> wgpu_attention::Result<Option<HostView<'a, f32, RANK>>> {
        const LSE: &[f32] = &[0.0];
        let case: &'a Case = self;
        Ok(match name {
            "scores" => Some(shaped(&case.scores, &[case.rows, case.classes])?),
            "soft_labels" if case.config.labels == Labels::Soft => {
                Some(shaped(&case.soft, &[case.rows, case.classes])?)
            }
            "threshold" if case.config.threshold == Threshold::Tensor => {
                Some(shaped(&case.threshold, &[case.threshold.len()])?)
            }
            "dloss" => Some(shaped(&case.dloss, &[case.dloss.len()])?),
            "lse_neg" | "lse_pos" => {
                let one: HostView<'a, f32, RANK> = shaped(LSE, &[1])?;
                Some(one.broadcast_to([case.rows; RANK]))
            }
            _ => None,
        })
    }

    fn integers<const RANK: usize>(
        &self,
        name: &'static str,
    ) -> wgpu_attention::Result<Option<HostView<'a, u32, RANK>>> {
        let case: &'a Case = self;
        Ok(match (name, case.config.labels) {
            ("label_indices", Labels::Indices) => Some(shaped(&case.indices, &[case.rows, case.width])?),
            ("label_list", Labels::Offsets) => Some(shaped(&case.list, &[case.list.len()])?),
            ("label_offsets", Labels::Offsets) => Some(shaped(&case.offsets, &[case.offsets.len()])?),
            _ => None,
        })
    }

    fn mask<const RANK: usize>(&self, name: &'static str) -> wgpu_attention::Result<Option<HostView<'a, u8, RANK>>> {
        let case: &'a Case = self;
        let shape = [case.rows, case.classes];
        Ok(match (name, &case.mask) {
            ("labels", _) if case.config.labels == Labels::Bitmap => Some(shaped(&case.labels, &shape)?),
            ("mask", Some(mask)) => Some(shaped(mask, &shape)?),
            _ => None,
        })
    }
}

fn shaped<'a, T: Copy, const RANK: usize>(
    data: &'a [T],
    shape: &[usize],
) -> wgpu_attention::Result<HostView<'a, T, RANK>> {
    HostView::new(data, shape.try_into().expect("the rank of the row"))
}

/// Rows in a buffer whose every other element is NaN, or of bytes 1.
struct Matrix {
    buffer: wgpu::Buffer,
    dtype: DType,
    shape: [usize; 2],
    start: usize,
    stride: usize,
}

impl Matrix {
    fn new(context: &Context, data: &[f32], shape: [usize; 2], odd: bool, dtype: DType) -> Self {
        // Rows of 16 bits start at even elements.
        let step = if dtype == DType::F32 { 1 } else { 2 };
        let (start, stride, all) = Self::laid_out(data, f32::NAN, shape, odd, step);
        Self { buffer: context.upload_as(&all, dtype).expect("a float"), dtype, shape, start, stride }
    }

    fn of_bytes(context: &Context, data: &[u8], shape: [usize; 2], odd: bool) -> Self {
        let (start, stride, all) = Self::laid_out(data, 1, shape, odd, 1);
        Self { buffer: context.upload(&all), dtype: DType::Bool, shape, start, stride }
    }

    fn laid_out<T: Copy>(
        data: &[T],
        guard: T,
        [rows, width]: [usize; 2],
        odd: bool,
        step: usize,
    ) -> (usize, usize, Vec<T>) {
        let start = if odd { 64 + step } else { 64 };
        let apart = if odd { width + step } else { width };
        let stride = if step == 2 || odd { apart.next_multiple_of(step) } else { apart };
        let mut all = vec![guard; (start + rows * stride + 9).next_multiple_of(4)];
        for (row, own) in data.chunks(width.max(1)).enumerate() {
            all[start + row * stride..][..own.len()].copy_from_slice(own);
        }
        (start, stride, all)
    }

    fn view(&self) -> TensorView<'_, 2> {
        let shape = self.shape.map(|extent| extent as u32);
        TensorView::new(&self.buffer, self.dtype, shape)
            .with_offset(self.start as u64)
            .with_strides([self.stride as u64, 1])
    }

    fn row(&self) -> TensorView<'_, 1> {
        TensorView::new(&self.buffer, self.dtype, [self.shape[1] as u32]).with_offset(self.start as u64)
    }

    /// Its elements; checks that nothing else was written.
    fn read(&self, context: &Context, what: &str) -> Vec<f32> {
        let all = context.download_as(&self.buffer, self.dtype).expect("the output reads back");
        let [rows, width] = self.shape;
        let own = |at: usize| {
            at >= self.start
                && (at - self.start) / self.stride.max(1) < rows
                && (at - self.start) % self.stride.max(1) < width
        };
        assert!((0..all.len()).all(|at| own(at) || all[at].is_nan()), "{what}: something was written beside the view");
        (0..rows).flat_map(|row| &all[self.start + row * self.stride..][..width]).copied().collect()
    }
}
