//! Random gradients that come in, and those that flow back on the GPU held against the twin.

use crate::case::Case;
use crate::common::{Expected, Tensor, ULP, context, rounding};
use wgpu_attention::margin_softmax::backward::reference::{
    HostInputs, HostOutputs, margin_softmax_backward, margin_softmax_backward_in,
};
use wgpu_attention::margin_softmax::reference::margin_softmax;
use wgpu_attention::reference::SumOrder;
use wgpu_attention::{
    Context, DType, HostView, MarginSoftmaxBackward, MarginSoftmaxBackwardInputs, MarginSoftmaxGradients, Reduction,
    Result, TensorView,
};

/// A case of the loss, and the gradients of its results.
#[derive(Clone)]
pub struct Gradients {
    pub case: Case,
    pub dloss: Tensor<1>,
    pub dlse: Option<Tensor<1>>,
    pub dentropy: Option<Tensor<1>>,
    /// What is asked for: of features, class weights and bias.
    pub wanted: [bool; 3],
    /// How the gradient of the class weights is divided, if not as these are.
    pub divided: Option<Vec<usize>>,
    pub without_entropy: bool,
    /// What the loss saved: lse, others and entropy.
    saved: [Vec<f32>; 3],
}

/// What flowed back; empty where it was not asked for.
pub type Back = [Vec<f32>; 3];

const NAMES: [&str; 3] = ["dfeatures", "dweights", "dbias"];

impl Gradients {
    pub fn new(case: Case) -> Self {
        let rows = case.labels.len();
        let losses = if case.config.reduction == Reduction::None { rows } else { 1 };
        let out = margin_softmax(&case.config, &case.host()).expect("the twin");
        let saved = [out.lse, out.others, out.entropy].map(|all| all.iter().map(|&x| x as f32).collect());
        let wanted = [true, true, case.bias.is_some()];
        let dloss = Tensor::normal(11, [losses]);
        Self { case, dloss, dlse: None, dentropy: None, wanted, divided: None, without_entropy: false, saved }
    }

    pub fn dlse(mut self) -> Self {
        self.dlse = Some(Tensor::normal(12, [self.case.labels.len()]));
        self
    }

    pub fn dentropy(mut self) -> Self {
        self.dentropy = Some(Tensor::normal(13, [self.case.labels.len()]));
        self
    }

    pub fn wanted(self, wanted: [bool; 3]) -> Self {
        Self { wanted, ..self }
    }

    pub fn host(&self) -> HostInputs<'_> {
        let given = self.case.host();
        let saved = self.saved.each_ref().map(|data| HostView::new(data, [data.len()]).expect("a number a row"));
        let [lse, others, entropy] = saved;
        HostInputs {
            bias: given.bias,
            class_weights: given.class_weights,
            class_margins: given.class_margins,
            row_margins: given.row_margins,
            sampled: given.sampled,
            entropy: Some(entropy),
            dlse: self.dlse.as_ref().map(Tensor::view),
            dentropy: self.dentropy.as_ref().map(Tensor::view),
            ..HostInputs::new(given.features, given.weights, given.labels, lse, others, self.dloss.view())
        }
    }

    pub fn twin(&self) -> HostOutputs<f64> {
        margin_softmax_backward(&self.case.config, &self.host()).expect("the twin")
    }

    pub fn run(&self, odd: bool) -> Back {
        self.run_on(context(), odd).expect("gradients")
    }

    /// On the GPU, with guards around the outputs and, if `odd`, every row off a multiple of four with NaN behind it.
    pub fn run_on(&self, context: &Context, odd: bool) -> Result<Back> {
        let case = &self.case;
        let ([rows, dim], stored) = (case.features.shape, case.stored);
        let (start, gap) = if odd { (3, 2) } else { (0, 0) };
        let placed = |data: &[f32], dim: usize, dtype| {
            let rows = data.chunks(dim.max(1)).flat_map(|row| [row, &[f32::NAN; 2][..gap]].concat());
            let before = std::iter::repeat_n(f32::NAN, start);
            context.upload_as(&before.chain(rows).chain([f32::NAN]).collect::<Vec<_>>(), dtype)
        };
        let matrix = |buffer, dtype, rows: usize| {
            let view = TensorView::new(buffer, dtype, [rows as u32, dim as u32]);
            view.with_strides([(dim + gap) as u64, 1]).with_offset(start as u64)
        };
        let features = placed(&case.features.data, dim, stored[0])?;
        let shards: Vec<usize> = case.shards.iter().map(|classes| classes * case.config.centres as usize).collect();
        let mut rest = &case.weights.data[..];
        let mut buffers = Vec::new();
        for rows in &shards {
            let (own, others) = rest.split_at(rows * dim);
            buffers.push(placed(own, dim, stored[1])?);
            rest = others;
        }
        let weights: Vec<_> =
            shards.iter().zip(&buffers).map(|(&rows, buffer)| matrix(buffer, stored[1], rows)).collect();
        let labels = context.upload(&[&vec![7; start][..], &case.labels, &[7]].concat());
        let labels = TensorView::new(&labels, DType::U32, [rows as u32]).with_offset(start as u64);
        let [lse, others, entropy] = self.saved.each_ref().map(|data| placed(data, data.len(), DType::F32));
        let [lse, others, entropy] = [lse?, others?, entropy?];
        let dloss = placed(&self.dloss.data, self.dloss.shape[0], DType::F32)?;
        let line =
            |buffer, dtype, count: usize| TensorView::new(buffer, dtype, [count as u32]).with_offset(start as u64);
        let of_rows = |buffer| line(buffer, DType::F32, rows);
        let mut inputs = MarginSoftmaxBackwardInputs::new(
            matrix(&features, stored[0], rows),
            &weights,
            labels,
            of_rows(&lse),
            of_rows(&others),
            line(&dloss, DType::F32, self.dloss.shape[0]),
        );
        let optional = |tensor: &Option<Tensor<1>>, dtype| {
            let tensor = tensor.as_ref()?;
            Some((tensor.shape[0], placed(&tensor.data, tensor.shape[0], dtype).expect("numbers")))
        };
        let numbers = [&case.bias, &case.class_weights, &case.class_margins, &case.row_margins];
        let numbers = numbers.map(|tensor| optional(tensor, stored[1]));
        let views =
            numbers.each_ref().map(|given| given.as_ref().map(|(count, buffer)| line(buffer, stored[1], *count)));
        [inputs.bias, inputs.class_weights, inputs.class_margins, inputs.row_margins] = views;
        let listed = case.sampled.clone().unwrap_or_default();
        let sampled = context.upload(&[&vec![7; start][..], &listed, &[7]].concat());
        inputs.sampled = case.sampled.is_some().then(|| line(&sampled, DType::U32, listed.len()));
        let coming = [&self.dlse, &self.dentropy].map(|tensor| optional(tensor, DType::F32));
        let views = coming.each_ref().map(|given| given.as_ref().map(|(_, buffer)| of_rows(buffer)));
        [inputs.dlse, inputs.dentropy] = views;
        inputs.entropy = (inputs.dentropy.is_some() && !self.without_entropy).then(|| of_rows(&entropy));

        // Rows of halves begin with a word.
        let stride = |dtype| if dtype == DType::F32 { dim + gap } else { (dim + gap).next_multiple_of(2) };
        let first = |dtype| if odd && dtype == DType::F32 { 3 } else { 4 };
        let guarded = |count: usize, dtype| context.upload_as(&vec![f32::NAN; count], dtype);
        let of_matrix = |rows: usize, dtype| guarded(first(dtype) + rows * stride(dtype) + 5, dtype);
        let view = |buffer, rows: usize, dtype| {
            let view = TensorView::new(buffer, dtype, [rows as u32, dim as u32]);
            view.with_strides([stride(dtype) as u64, 1]).with_offset(first(dtype) as u64)
        };
        let shards = self.divided.clone().unwrap_or(shards);
        let dfeatures = of_matrix(rows, stored[0])?;
        let dweights = shards.iter().map(|&rows| of_matrix(rows, stored[1])).collect::<Result<Vec<_>>>()?;
        let dbias = guarded(case.classes() + 9, stored[1])?;
        let own: Vec<_> = shards.iter().zip(&dweights).map(|(&rows, buffer)| view(buffer, rows, stored[1])).collect();
        let mut out = MarginSoftmaxGradients::none();
        let [of_features, of_weights, of_bias] = self.wanted;
        out.dfeatures = of_features.then(|| view(&dfeatures, rows, stored[0]));
        out.dweights = if of_weights { &own } else { &[] };
        let of_classes = TensorView::new(&dbias, stored[1], [case.classes() as u32]).with_offset(4);
        out.dbias = of_bias.then_some(of_classes);
        context.run(&MarginSoftmaxBackward::new(context, case.config)?.prepare(inputs, out)?)?;

        let read = |buffer: &wgpu::Buffer, rows: usize, dtype| -> Result<Vec<f32>> {
            let (first, stride) = (first(dtype), stride(dtype));
            let all = &context.download_as(buffer, dtype)?[..first + rows * stride + 5];
            let is_own = |at: usize| at >= first && at < first + rows * stride && (at - first) % stride < dim;
            assert!(all.iter().enumerate().all(|(at, x)| is_own(at) || x.is_nan()), "outside the view");
            Ok(all.iter().enumerate().filter(|(at, _)| is_own(*at)).map(|(_, x)| *x).collect())
        };
        let none = |wanted: bool, found: Vec<f32>| if wanted { found } else { Vec::new() };
        let all = &context.download_as(&dbias, stored[1])?[..case.classes() + 9];
        let of_classes = 4..4 + case.classes();
        assert!(all.iter().enumerate().all(|(at, x)| of_bias && of_classes.contains(&at) || x.is_nan()), "outside");
        let mut of_weights = Vec::new();
        for (buffer, &rows) in dweights.iter().zip(&shards) {
            of_weights.extend(read(buffer, rows, stored[1])?);
        }
        Ok([
            none(of_features, read(&dfeatures, rows, stored[0])?),
            none(self.wanted[1], of_weights),
            none(of_bias, all[of_classes.clone()].to_vec()),
        ])
    }

    pub fn check(&self, what: &str) {
        self.check_on(context(), what);
    }

    pub fn check_on(&self, context: &Context, what: &str) {
        let (case, config) = (&self.case, &self.case.config);
        let ([rows, dim], classes) = (case.features.shape, case.classes());
        let name = format!("{what}: {rows} rows, {classes} classes, {dim} dims, {config:?}");
        let want = self.twin();
        let naive: Vec<HostOutputs<f32>> = (0..case.naive_runs)
            .map(|seed| margin_softmax_backward_in(config, &self.host(), SumOrder::Shuffled(seed)).expect("the twin"))
            .collect();
        // Logits, and the lse that was saved, are rounded to their own size; probabilities are off by as much.
        let lse = self.saved[0].iter().filter(|x| x.is_finite()).fold(0.0, |most: f64, x| most.max(x.abs().into()));
        let floor = (16.0 + 8.0 * f64::from(config.scale) + lse) * ULP;
        // The bias's are sums in which rows take from each other: each is off by its own size.
        let weights = case.class_weights.iter().flat_map(|weights| &weights.data);
        let weight = weights.fold(1.0, |most: f64, &x| most.max(x.into()));
        let each = if config.reduction == Reduction::Sum { (rows as f64).sqrt() } else { 1.0 };
        let coming = self.dloss.data.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        let of_bias = ULP * (2.0 + f64::from(config.scale) / 2.0) * weight * each * coming;
        for odd in [false, true] {
            let got = self.run_on(context, odd).expect("gradients");
            for (index, got) in got.iter().enumerate().filter(|(index, _)| self.wanted[*index]) {
                let want = [&want.dfeatures, &want.dweights, &want.dbias][index];
                let nan = |at: usize| want[at].is_nan();
                assert_eq!(got.len(), want.len(), "{name}: {}", NAMES[index]);
                for (at, x) in got.iter().enumerate() {
                    assert_eq!(x.is_nan(), nan(at), "{name}: {} {at}: got {x}, want {}", NAMES[index], want[at]);
                }
                let numbers = |all: &[f32]| -> Vec<f32> {
                    all.iter().enumerate().map(|(at, &x)| if nan(at) { 0.0 } else { x }).collect()
                };
                let naive: Vec<_> =
                    naive.iter().map(|out| numbers([&out.dfeatures, &out.dweights, &out.dbias][index])).collect();
                let shape = [want.len()];
                let (relative, least) = rounding(case.stored[index.min(1)]);
                let want: Vec<f64> = want.iter().map(|&x| if x.is_nan() { 0.0 } else { x }).collect();
                Expected {
                    case: &name,
                    name: NAMES[index],
                    shape: &shape,
                    want: &want,
                    naive: &naive,
                    floor: floor + relative,
                    absolute_floor: least + if index == 2 { of_bias } else { 0.0 },
                }
                .assert(&numbers(got));
            }
        }
    }
}
