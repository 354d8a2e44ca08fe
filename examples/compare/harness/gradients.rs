//! Softmax attention forward and backward: the calls, and the check of some of their gradients against f64.

use wgpu_attention::attention::backward::reference::{HostInputs, attention_backward_in};
use wgpu_attention::reference::{Real, SumOrder};
use wgpu_attention::{
    Attention, AttentionBackward, AttentionBackwardInputs, AttentionConfig, AttentionGradients, AttentionInputs,
    AttentionOutputs, Causal, Context, Prepared, Result, Scale, TensorView, wgpu,
};

use super::stored::allocate;
use super::tensors::{Shape, Tensors, elements, normal, view};
use super::variants::{Kind, Variant};
use super::verify::{Allowance, Errors, differences, largest};
use super::{Failure, parallel};

/// Rows of dq, and keys of dk and dv, that are compared.
const SAMPLED: usize = 16;
const NAIVE_RUNS: u64 = 4;

/// A variant with its tensors.
pub struct Gradients<'t> {
    tensors: &'t Tensors,
    scale: Scale,
    forward: Attention,
    backward: AttentionBackward,
    dout: (Vec<f32>, wgpu::Buffer),
    lse: wgpu::Buffer,
    /// dq, dk, dv.
    gradients: [wgpu::Buffer; 3],
}

/// What was compared.
#[derive(Clone, Copy, Debug)]
pub struct Compared {
    /// Rows, and as many keys or fewer.
    pub rows: usize,
    /// Relative to the largest number of a gradient, of the worst.
    pub errors: Errors,
}

impl<'t> Gradients<'t> {
    pub fn new(context: &Context, variant: &Variant, tensors: &'t Tensors) -> Result<Self, Failure> {
        let Kind::Softmax(scale) = variant.kind else {
            return Err(Failure::Refused("no backward pass yet".into()));
        };
        let shape = &tensors.shape;
        let causal = if shape.causal { Causal::TopLeft } else { Causal::None };
        let config = AttentionConfig::new().scale(scale).causal(causal);
        let numbers = |extents| allocate(context, elements(extents), shape.dtype);
        Ok(Self {
            tensors,
            scale,
            forward: Attention::new(context, config)?,
            backward: AttentionBackward::new(context, config)?,
            dout: tensors.own(context, normal(4, elements(shape.q())))?,
            lse: context.allocate(elements(shape.rows())),
            gradients: [shape.q(), shape.kv(), shape.kv()].map(numbers),
        })
    }

    fn lse(&self) -> TensorView<'_, 3> {
        TensorView::f32(&self.lse, self.tensors.shape.rows())
    }

    /// The call that leaves what backward reads.
    pub fn forward(&self) -> Result<Prepared<'_>> {
        let inputs = AttentionInputs::new(self.tensors.q(), self.tensors.k(), self.tensors.v());
        let outputs = AttentionOutputs { lse: Some(self.lse()), ..AttentionOutputs::new(self.tensors.o()) };
        self.forward.prepare(inputs, outputs)
    }

    pub fn backward(&self) -> Result<Prepared<'_>> {
        let (tensors, shape) = (self.tensors, &self.tensors.shape);
        let [dq, dk, dv] = &self.gradients;
        let like = |buffer, extents| TensorView::new(buffer, shape.dtype, extents);
        let (q, k, v, dout) = (tensors.q(), tensors.k(), tensors.v(), like(&self.dout.1, shape.q()));
        let inputs = AttentionBackwardInputs::new(q, k, v, tensors.o(), self.lse(), dout);
        let kv = shape.kv();
        self.backward.prepare(inputs, AttentionGradients::new(like(dq, shape.q()), like(dk, kv), like(dv, kv)))
    }

    /// Runs both and compares some rows and keys, spread over all: the largest error may be three times that of naive f32 runs.
    pub fn verify(&self, context: &Context) -> Result<Compared, Failure> {
        context.run(&self.forward()?)?;
        context.run(&self.backward()?)?;
        let dtype = self.tensors.shape.dtype;
        let read = |buffer| -> Result<Vec<f32>> { context.download_as(buffer, dtype) };
        let [dq, dk, dv] = &self.gradients;
        let (dq, dk, dv) = (read(dq)?, read(dk)?, read(dv)?);
        let saved = Saved { o: read(&self.tensors.o)?, lse: context.download(&self.lse)? };

        let shape = &self.tensors.shape;
        let dim = shape.head_dim as usize;
        let row = |index: usize, of: &[f32]| of[index * dim..][..dim].iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
        let rows = spread(elements(shape.rows()));
        let keys = spread(elements(shape.kv()) / dim);
        let errors_of_rows = self.judge(
            &rows,
            |at| row(at, &dq),
            |at, of| match of {
                None => Ok(self.row::<f64>(at, SumOrder::InOrder)?),
                Some(seed) => Ok(widened(&self.row::<f32>(at, SumOrder::Shuffled(seed))?)),
            },
        )?;
        let of_key = |at| [row(at, &dk), row(at, &dv)].concat();
        let errors_of_keys = self.judge(&keys, of_key, |at, of| match of {
            None => Ok(self.key::<f64>(&saved, at, SumOrder::InOrder)),
            Some(seed) => Ok(widened(&self.key::<f32>(&saved, at, SumOrder::Shuffled(seed)))),
        })?;
        let worst = if errors_of_keys.max > errors_of_rows.max { errors_of_keys } else { errors_of_rows };
        Ok(Compared { rows: rows.len(), errors: worst })
    }

    /// By the truth and by naive runs, which a closure makes of an index.
    fn judge(
        &self,
        sampled: &[usize],
        got: impl Fn(usize) -> Vec<f64>,
        twin: impl Fn(usize, Option<u64>) -> Result<Vec<f64>> + Sync,
    ) -> Result<Errors, Failure> {
        let runs: Vec<Option<u64>> = std::iter::once(None).chain((0..NAIVE_RUNS).map(Some)).collect();
        let calls: Vec<_> = runs.iter().flat_map(|&run| sampled.iter().map(move |&at| (at, run))).collect();
        let numbers = parallel::map(&calls, usize::MAX, |&(at, run)| twin(at, run));
        let numbers: Vec<Vec<f64>> = numbers.into_iter().collect::<Result<_>>()?;
        let runs: Vec<Vec<f64>> = numbers.chunks(sampled.len().max(1)).map(<[_]>::concat).collect();
        let want = &runs[0];
        let naive = runs[1..].iter().map(|run| largest(differences(run, want))).fold(0.0, f64::max);
        let shape = &self.tensors.shape;
        // Of weights, as for the other variants; o is rounded as it is stored, too, and counts in every gradient.
        let ulps = 5.0 + 2.0 * f64::from(shape.len).ln() + 6.0 * f64::from(shape.head_dim).sqrt();
        let allowance = Allowance { naive: 1.5 * naive, ulps, products: [0.0; 2], dtype: shape.dtype };
        let got: Vec<f64> = sampled.iter().flat_map(|&at| got(at)).collect();
        Ok(allowance.judge(&got, want)?.relative_to(largest(want.iter().copied())))
    }

    /// dq of a row, by the twin of a call that has it alone.
    fn row<T: Real>(&self, index: usize, order: SumOrder) -> Result<Vec<T>> {
        let shape = &self.tensors.shape;
        let (len, dim) = (shape.len as usize, shape.head_dim as usize);
        let [b, h, i] = [index / len / shape.heads as usize, index / len % shape.heads as usize, index % len];
        let kv_head = b * shape.kv_heads as usize + h / (shape.heads / shape.kv_heads) as usize;
        let one = |data: &'t [f32]| view(&data[index * dim..][..dim], [1, 1, 1, shape.head_dim]);
        let of_head =
            |data: &'t [f32]| view(&data[kv_head * len * dim..][..len * dim], [1, 1, shape.len, shape.head_dim]);
        let host = &self.tensors.host;
        let q = one(&host.q);
        let dout = view(&self.dout.0[index * dim..][..dim], [1, 1, 1, shape.head_dim]);
        let nothing = [0.0];
        // What forward wrote, the twin computes again.
        let inputs = HostInputs {
            dout: Some(dout),
            ..HostInputs::of(q, of_head(&host.k), of_head(&host.v), q, view(&nothing, [1, 1, 1]))
        };
        let causal = if shape.causal { Causal::Offset(i as i32) } else { Causal::None };
        let config = AttentionConfig::new().scale(self.scale).causal(causal);
        Ok(attention_backward_in(&config, &inputs, order)?.dq)
    }

    /// dk and dv of a key, from o and lse as forward left them.
    fn key<T: Real>(&self, saved: &Saved, index: usize, order: SumOrder) -> Vec<T> {
        let shape = &self.tensors.shape;
        let (len, dim) = (shape.len as usize, shape.head_dim as usize);
        let [b, kv_head, j] =
            [index / len / shape.kv_heads as usize, index / len % shape.kv_heads as usize, index % len];
        let group = (shape.heads / shape.kv_heads) as usize;
        let real = |x: f32| T::new(x.into());
        let host = &self.tensors.host;
        let [k, v] = [&host.k, &host.v].map(|data| &data[index * dim..][..dim]);
        let dims = order.indices(dim);
        let dot = |a: &[f32], b: &[f32]| {
            let mut sum = T::new(0.0);
            dims.iter().for_each(|&c| sum += real(a[c]) * real(b[c]));
            sum
        };
        let mut sums = vec![T::new(0.0); 2 * dim];
        for at in order.indices(group * len) {
            let (h, i) = (kv_head * group + at / len, at % len);
            if shape.causal && j > i {
                continue;
            }
            let row = (b * shape.heads as usize + h) * len + i;
            let [q, dout, o] = [&host.q, &self.dout.0, &saved.o].map(|data| &data[row * dim..][..dim]);
            let scale = T::new(scale_of(self.scale, if shape.causal { i + 1 } else { len }, shape));
            let p = (scale * dot(q, k) - real(saved.lse[row])).exp();
            let ds = p * (dot(dout, v) - dot(dout, o)) * scale;
            for c in 0..dim {
                sums[c] += ds * real(q[c]);
                sums[dim + c] += p * real(dout[c]);
            }
        }
        sums
    }
}

/// What forward left.
struct Saved {
    o: Vec<f32>,
    lse: Vec<f32>,
}

fn widened(numbers: &[f32]) -> Vec<f64> {
    numbers.iter().map(|&x| x.into()).collect()
}

/// Some of so many, from the first to the last.
fn spread(count: usize) -> Vec<usize> {
    let some = count.min(SAMPLED);
    (0..some).map(|index| index * (count - 1) / (some - 1).max(1)).collect()
}

/// The scale of a row that sees `n` keys.
fn scale_of(scale: Scale, n: usize, shape: &Shape) -> f64 {
    let (dim, logs) = (f64::from(shape.head_dim), (n as f64).ln());
    match scale {
        Scale::LogN { base, floor } => (n.max(floor as usize) as f64).ln() / f64::from(base).ln() / dim.sqrt(),
        Scale::KappaLogN { kappa } => f64::from(kappa) * logs / dim,
        Scale::LogNInference { train_len } => (logs / f64::from(train_len).ln()).max(1.0) / dim.sqrt(),
        Scale::LogNSqrtDim => logs / dim.sqrt(),
        Scale::ScalableSoftmax { s, inv_sqrt_dim } => f64::from(s) * logs / if inv_sqrt_dim { dim.sqrt() } else { 1.0 },
        Scale::Fixed(scale) => scale.into(),
        _ => 1.0 / dim.sqrt(),
    }
}
