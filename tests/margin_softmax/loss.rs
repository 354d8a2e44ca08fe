//! The loss of a case on the GPU held against the twin.

use crate::case::{Case, NONE};
use crate::common::{Expected, ULP, assert_same_bits, context, rounding};
use wgpu_attention::margin_softmax::reference::{HostOutputs, margin_softmax, margin_softmax_in};
use wgpu_attention::reference::SumOrder;
use wgpu_attention::{
    Context, DType, MarginSoftmax, MarginSoftmaxInputs, MarginSoftmaxOutputs, Reduction, Result, TensorView,
};

/// What came out: loss, lse, entropy, others and logits; and the predicted classes.
pub type Outputs = ([Vec<f32>; 5], Vec<u32>);

const NAMES: [&str; 5] = ["loss", "lse", "entropy", "others", "logits"];

impl Case {
    pub fn run(&self, odd: bool) -> Outputs {
        self.run_on(context(), odd).expect("a loss")
    }

    /// On the GPU, with guards around the outputs and, if `odd`, every row off a multiple of four with NaN behind it.
    pub fn run_on(&self, context: &Context, odd: bool) -> Result<Outputs> {
        let (start, gap) = if odd { (3, 2) } else { (0, 0) };
        let placed = |data: &[f32], dim: usize, dtype| {
            let rows = data.chunks(dim).flat_map(|row| [row, &[f32::NAN; 2][..gap]].concat());
            context
                .upload_as(&vec![f32::NAN; start].into_iter().chain(rows).chain([f32::NAN]).collect::<Vec<_>>(), dtype)
        };
        let [rows, dim] = self.features.shape;
        let classes = self.classes();
        let features = placed(&self.features.data, dim, self.stored[0])?;
        let mut rest = &self.weights.data[..];
        let mut shards = Vec::new();
        for classes in &self.shards {
            let (own, others) = rest.split_at(classes * self.config.centres as usize * dim);
            shards.push((own.len() / dim, placed(own, dim, self.stored[1])?));
            rest = others;
        }
        let view = |buffer, dtype, rows: usize| {
            let view = TensorView::new(buffer, dtype, [rows as u32, dim as u32]);
            view.with_strides([(dim + gap) as u64, 1]).with_offset(start as u64)
        };
        let weights: Vec<_> = shards.iter().map(|(rows, buffer)| view(buffer, self.stored[1], *rows)).collect();
        let labels = context.upload(&[&vec![NONE; start][..], &self.labels, &[NONE]].concat());
        let labels = TensorView::new(&labels, DType::U32, [rows as u32]).with_offset(start as u64);
        let numbers = [&self.bias, &self.class_weights, &self.class_margins, &self.row_margins];
        let numbers = numbers.map(|tensor| {
            let tensor = tensor.as_ref()?;
            Some((tensor.shape[0], placed(&tensor.data, tensor.shape[0], self.stored[1]).expect("numbers")))
        });
        let mut inputs = MarginSoftmaxInputs::new(view(&features, self.stored[0], rows), &weights, labels);
        let views = numbers.each_ref().map(|given| {
            let (count, buffer) = given.as_ref()?;
            Some(TensorView::new(buffer, self.stored[1], [*count as u32]).with_offset(start as u64))
        });
        [inputs.bias, inputs.class_weights, inputs.class_margins, inputs.row_margins] = views;
        let listed = self.sampled.clone().unwrap_or_default();
        let sampled = context.upload(&[&vec![NONE; start][..], &listed, &[NONE]].concat());
        let sampled = TensorView::new(&sampled, DType::U32, [listed.len() as u32]).with_offset(start as u64);
        inputs.sampled = self.sampled.is_some().then_some(sampled);

        let losses = if self.config.reduction == Reduction::None { rows } else { 1 };
        let guarded = |count: usize| context.upload(&vec![f32::NAN; count + 5]);
        let outputs = [losses, rows, rows, rows].map(|count| (guarded(count), count));
        let predicted = context.upload(&vec![12_345_u32; rows + 5]);
        let [loss, lse, entropy, others] =
            outputs.each_ref().map(|(buffer, count)| TensorView::f32(buffer, [*count as u32]).with_offset(2));
        // Rows of halves begin with a word.
        let halves = self.stored[0] != DType::F32;
        let stride = classes + gap + if halves { (classes + gap) % 2 } else { 0 };
        let first = if halves { 2 } else { 2 + start };
        let logits = context.upload_as(&vec![f32::NAN; first + rows * stride + 3], self.stored[0])?;
        let op = MarginSoftmax::new(context, self.config)?;
        let outs = MarginSoftmaxOutputs {
            loss,
            lse: Some(lse),
            entropy: Some(entropy),
            others: Some(others),
            predicted: Some(TensorView::new(&predicted, DType::U32, [rows as u32]).with_offset(2)),
            logits: self.sampled.is_none().then(|| {
                TensorView::new(&logits, self.stored[0], [rows as u32, classes as u32])
                    .with_strides([stride as u64, 1])
                    .with_offset(first as u64)
            }),
        };
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
        let [loss, lse, entropy, others] = outputs.each_ref().map(|(buffer, count)| read(buffer, *count));
        assert_same_bits("the loss alone", &read(&alone, losses), &loss);
        let all = context.download_u32(&predicted)?;
        assert!(all[..2].iter().chain(&all[2 + rows..]).all(|&found| found == 12_345), "outside the view");
        let predicted = all[2..][..rows].to_vec();
        let all = &context.download_as(&logits, self.stored[0])?[..first + rows * stride + 3];
        let is_own = |at: usize| at >= first && at < first + rows * stride && (at - first) % stride < classes;
        assert!(all.iter().enumerate().all(|(at, x)| is_own(at) || x.is_nan()), "outside the view");
        let is_own = |at: usize| self.sampled.is_none() && is_own(at);
        let logits = all.iter().enumerate().filter(|(at, _)| is_own(*at)).map(|(_, x)| *x).collect();
        Ok(([loss, lse, entropy, others, logits], predicted))
    }

    pub fn check(&self, what: &str) {
        self.check_on(context(), what);
    }

    pub fn check_on(&self, context: &Context, what: &str) {
        let ([rows, dim], classes) = (self.features.shape, self.classes());
        let case = format!("{what}: {rows} rows, {classes} classes, {dim} dims, {:?}", self.config);
        let want = margin_softmax(&self.config, &self.host()).expect("the twin");
        let naive: Vec<HostOutputs<f32>> = (0..self.naive_runs)
            .map(|seed| margin_softmax_in(&self.config, &self.host(), SumOrder::Shuffled(seed)).expect("the twin"))
            .collect();
        // A cosine is off by two inverse roots of 2 ulp and three products, a logit by a root and a product more, and the margin's
        // polynomials by a few times that; a plain product is rounded to its own size. It moves what is a logarithm by as much. The
        // mean of logits below the largest weighs each by itself.
        let size = if self.config.normalize { 32.0 } else { self.largest_product() };
        let biases = self.bias.iter().flat_map(|bias| &bias.data).fold(0.0, |most: f64, x| most.max(x.abs().into()));
        let logit = size * ULP * f64::from(self.config.scale) + ULP * biases;
        let absolute = 1.0 / f64::from(1 << 19) + 2.0 * logit * (1.0 + (classes as f64).ln());
        // A row's loss has lse squared in it, and its weight before it.
        let lse = want.lse.iter().filter(|x| x.is_finite()).fold(0.0, |most: f64, x| most.max(x.abs()));
        let weights = self.class_weights.iter().flat_map(|weights| &weights.data);
        let weight = weights.fold(1.0, |most: f64, &x| most.max(x.into()));
        let summed = if self.config.reduction == Reduction::Sum { rows as f64 } else { 1.0 };
        let of_loss = summed * weight * (1.0 + 2.0 * f64::from(self.config.z_loss) * lse);
        for odd in [false, true] {
            let (got, predicted) = self.run_on(context, odd).expect("a loss");
            let (relative, least) = rounding(self.stored[0]);
            let want_all = [&want.loss, &want.lse, &want.entropy, &want.others, &want.logits];
            for (index, (want, got)) in want_all.into_iter().zip(&got).enumerate() {
                let of = |out: &HostOutputs<f32>| {
                    [&out.loss, &out.lse, &out.entropy, &out.others, &out.logits][index].clone()
                };
                let naive: Vec<_> = naive.iter().map(of).collect();
                let (floor, absolute_floor) = match index {
                    0 => (8.0 * ULP, absolute * of_loss),
                    4 => (8.0 * ULP + relative, logit + least),
                    _ => (8.0 * ULP, absolute),
                };
                let whole = index == 4 && self.sampled.is_none();
                let shape = if whole { vec![rows, classes] } else { vec![want.len()] };
                let name = NAMES[index];
                Expected { case: &case, name, shape: &shape, want, naive: &naive, floor, absolute_floor }.assert(got);
            }
            for (i, (&got, &best)) in predicted.iter().zip(&want.predicted).enumerate() {
                let logit_of = |j: u32| want.logits[i * classes + j as usize];
                assert!(self.sampled.is_none() || got == best, "{case}: predicted [{i}]: got {got}, want {best}");
                assert!(
                    got == best || (logit_of(got) - logit_of(best)).abs() <= 2.0 * logit,
                    "{case}: predicted [{i}]: got {got} of {}, want {best} of {}; {logit}",
                    logit_of(got),
                    logit_of(best)
                );
            }
        }
    }

    fn largest_product(&self) -> f64 {
        let dim = self.features.shape[1];
        let norm = |row: &[f32]| row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        let [features, weights] =
            [&self.features, &self.weights].map(|rows| rows.data.chunks(dim).map(norm).fold(0.0, f64::max));
        features * weights
    }
}
