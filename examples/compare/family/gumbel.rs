//! Gumbel-softmax: soft, hard, and the sample alone.

use wgpu_attention::gumbel_softmax::backward::reference::{HostInputs as HostBackward, gumbel_softmax_backward_in};
use wgpu_attention::gumbel_softmax::reference::{HostInputs, gumbel_softmax_in};
use wgpu_attention::{
    Context, DType, GumbelKind, GumbelSoftmax, GumbelSoftmaxBackward, GumbelSoftmaxBackwardInputs, GumbelSoftmaxConfig,
    GumbelSoftmaxGradients, GumbelSoftmaxInputs, GumbelSoftmaxOutputs, HostView, Prepared, Result, TensorView, wgpu,
};

use super::cells::{Cell, Numbers, Tensors, twin};
use crate::harness::case::Arithmetic;

/// ULP of the noise: each of two logs is off by 2⁻²¹ at least, the outer one's argument by as much as the inner one.
const NOISE_ULPS: f64 = 64.0;

pub struct Draw<'t> {
    tensors: &'t Tensors,
    config: GumbelSoftmaxConfig,
    op: GumbelSoftmax,
}

impl<'t> Draw<'t> {
    pub fn new(context: &Context, kind: GumbelKind, tensors: &'t Tensors) -> Result<Self> {
        let config = GumbelSoftmaxConfig::new().kind(kind);
        Ok(Self { tensors, config, op: GumbelSoftmax::new(context, config)? })
    }

    fn index(&self) -> &wgpu::Buffer {
        &self.tensors.of_rows[0]
    }

    /// The class drawn of each row that is compared; none is a class past the last.
    fn drawn(&self, context: &Context) -> Result<Vec<usize>> {
        let Tensors { shown, shape: [_, len], .. } = self.tensors;
        if self.config.kind == GumbelKind::Sample {
            let index = context.download_u32(self.index())?;
            return Ok(shown.iter().map(|&row| index[row] as usize).collect());
        }
        let y = self.tensors.got(context, self.shown())?.of;
        let one_hot = |row: &[f64]| {
            let is_one_hot = row.iter().all(|&y| y == 0.0 || y == 1.0) && row.iter().sum::<f64>() == 1.0;
            row.iter().position(|&y| y == 1.0).filter(|_| is_one_hot).unwrap_or(usize::MAX)
        };
        Ok(y.chunks(*len as usize).map(one_hot).collect())
    }
}

/// What the twins have for these rows, known to the noise by their places.
fn ids(rows: &[usize]) -> Vec<u32> {
    rows.iter().map(|&row| row as u32).collect()
}

fn key(tensors: &Tensors) -> TensorView<'_, 1> {
    TensorView::new(&tensors.key, DType::U32, [5])
}

impl Cell for Draw<'_> {
    fn prepare(&self) -> Result<Prepared<'_>> {
        let view = |buffer| self.tensors.view(buffer);
        let outputs = match self.config.kind {
            GumbelKind::Sample => {
                GumbelSoftmaxOutputs::of_index(TensorView::new(self.index(), DType::U32, [self.tensors.shape[0]]))
            }
            _ => GumbelSoftmaxOutputs::new(view(&self.tensors.out)),
        };
        self.op.prepare(GumbelSoftmaxInputs::new(view(&self.tensors.x), key(self.tensors)), outputs)
    }

    fn shown(&self) -> &[usize] {
        &self.tensors.shown
    }

    /// Of what is one class, its score: two scores may be as good as equal, and either class is right then.
    fn got(&self, context: &Context) -> Result<Vec<Numbers>> {
        if self.config.kind == GumbelKind::Soft {
            return Ok(vec![self.tensors.got(context, self.shown())?]);
        }
        let len = self.tensors.shape[1] as usize;
        let scores = self.scores(&self.tensors.shown, Arithmetic::Truth)?;
        let of_row = |(row, drawn): (&[f64], usize)| row.get(drawn).copied().unwrap_or(f64::NAN);
        let of = scores.chunks(len).zip(self.drawn(context)?).map(of_row).collect();
        Ok(vec![Numbers { stored: DType::F32, of }])
    }

    fn twin(&self, rows: &[usize], arithmetic: Arithmetic) -> Result<Vec<Numbers>> {
        if self.config.kind != GumbelKind::Soft {
            let largest = |row: &[f64]| row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let scores = self.scores(rows, arithmetic)?;
            let of = scores.chunks(self.tensors.shape[1] as usize).map(largest).collect();
            return Ok(vec![Numbers { stored: DType::F32, of }]);
        }
        let (x, ids) = (self.tensors.of(&self.tensors.host.x, rows), ids(rows));
        let inputs = self.host(&x, &ids);
        Ok(twin!(arithmetic, gumbel_softmax_in(&self.config, &inputs) => [y: self.tensors.dtype]))
    }

    fn row_work(&self) -> u64 {
        self.tensors.shape[1].into()
    }

    fn ulps(&self) -> f64 {
        self.tensors.exp_ulps() + NOISE_ULPS
    }
}

impl Draw<'_> {
    fn host<'a>(&'a self, x: &'a [f32], ids: &'a [u32]) -> HostInputs<'a> {
        let key = HostView::new(&self.tensors.host.key, [5]).expect("a key");
        let row_ids = Some(HostView::new(ids, [ids.len()]).expect("a number a row"));
        HostInputs { row_ids, ..HostInputs::new(self.tensors.host(x), key) }
    }

    /// Logit plus noise of every class.
    fn scores(&self, rows: &[usize], arithmetic: Arithmetic) -> Result<Vec<f64>> {
        let (x, ids) = (self.tensors.of(&self.tensors.host.x, rows), ids(rows));
        let inputs = self.host(&x, &ids);
        let noise = twin!(arithmetic, gumbel_softmax_in(&self.config, &inputs) => [noise: DType::F32]);
        Ok(noise[0].of.iter().zip(&x).map(|(noise, &x)| noise + f64::from(x)).collect())
    }
}

pub struct DrawBackward<'t> {
    tensors: &'t Tensors,
    config: GumbelSoftmaxConfig,
    op: GumbelSoftmaxBackward,
}

impl<'t> DrawBackward<'t> {
    pub fn new(context: &Context, kind: GumbelKind, tensors: &'t Tensors) -> Result<Self> {
        let config = GumbelSoftmaxConfig::new().kind(kind);
        Ok(Self { tensors, config, op: GumbelSoftmaxBackward::new(context, config)? })
    }
}

impl Cell for DrawBackward<'_> {
    fn prepare(&self) -> Result<Prepared<'_>> {
        let Tensors { x, dy, out, .. } = self.tensors;
        let view = |buffer| self.tensors.view(buffer);
        let inputs = GumbelSoftmaxBackwardInputs::new(view(x), key(self.tensors), view(dy));
        self.op.prepare(inputs, GumbelSoftmaxGradients::new(view(out)))
    }

    fn shown(&self) -> &[usize] {
        &self.tensors.shown
    }

    fn got(&self, context: &Context) -> Result<Vec<Numbers>> {
        Ok(vec![self.tensors.got(context, self.shown())?])
    }

    fn twin(&self, rows: &[usize], arithmetic: Arithmetic) -> Result<Vec<Numbers>> {
        let (host, ids) = (&self.tensors.host, ids(rows));
        let [x, dy] = [&host.x, &host.dy].map(|data| self.tensors.of(data, rows));
        let key = HostView::new(&host.key, [5]).expect("a key");
        let inputs = HostBackward::new(self.tensors.host(&x), key, self.tensors.host(&dy));
        let row_ids = Some(HostView::new(&ids, [ids.len()]).expect("a number a row"));
        let inputs = HostBackward { row_ids, ..inputs };
        Ok(twin!(arithmetic, gumbel_softmax_backward_in(&self.config, &inputs) => [dlogits: self.tensors.dtype]))
    }

    fn row_work(&self) -> u64 {
        self.tensors.shape[1].into()
    }

    fn ulps(&self) -> f64 {
        // As of a softmax.
        4.0 * (self.tensors.exp_ulps() + NOISE_ULPS)
    }
}
