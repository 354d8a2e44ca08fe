//! The softmax of rows and its sparse kinds.

use wgpu_attention::softmax::backward::reference::{HostInputs as HostBackward, softmax_backward_in};
use wgpu_attention::softmax::reference::{HostInputs, softmax, softmax_in};
use wgpu_attention::{
    Context, Prepared, Result, Softmax, SoftmaxBackward, SoftmaxBackwardInputs, SoftmaxConfig, SoftmaxGradients,
    SoftmaxInputs, SoftmaxKind, SoftmaxOutputs,
};

use super::cells::{Cell, Numbers, Tensors, twin};
use crate::harness::Failure;
use crate::harness::case::Arithmetic;

pub struct Forward<'t> {
    tensors: &'t Tensors,
    config: SoftmaxConfig,
    op: Softmax,
}

impl<'t> Forward<'t> {
    pub fn new(context: &Context, kind: SoftmaxKind, tensors: &'t Tensors) -> Result<Self> {
        let config = SoftmaxConfig::new().kind(kind);
        Ok(Self { tensors, config, op: Softmax::new(context, config)? })
    }
}

impl Cell for Forward<'_> {
    fn prepare(&self) -> Result<Prepared<'_>> {
        let Tensors { x, out, .. } = self.tensors;
        let view = |buffer| self.tensors.view(buffer);
        self.op.prepare(SoftmaxInputs::new(view(x)), SoftmaxOutputs::new(view(out)))
    }

    fn shown(&self) -> &[usize] {
        &self.tensors.shown
    }

    fn got(&self, context: &Context) -> Result<Vec<Numbers>> {
        Ok(vec![self.tensors.got(context, self.shown())?])
    }

    fn twin(&self, rows: &[usize], arithmetic: Arithmetic) -> Result<Vec<Numbers>> {
        let x = self.tensors.of(&self.tensors.host.x, rows);
        let inputs = HostInputs::new(self.tensors.host(&x));
        Ok(twin!(arithmetic, softmax_in(&self.config, &inputs) => [p: self.tensors.dtype]))
    }

    fn row_work(&self) -> u64 {
        self.tensors.shape[1].into()
    }

    fn ulps(&self) -> f64 {
        self.tensors.exp_ulps()
    }
}

/// A score nearer to sparsemax's threshold than this is in the support in one arithmetic and not in another. Numbers of 16 bits often lie
/// on it.
const UNSETTLED: f64 = 1e-5;

pub struct Backward<'t> {
    tensors: &'t Tensors,
    shown: Vec<usize>,
    config: SoftmaxConfig,
    op: SoftmaxBackward,
}

impl<'t> Backward<'t> {
    pub fn new(context: &Context, kind: SoftmaxKind, tensors: &'t Tensors) -> Result<Self, Failure> {
        let config = SoftmaxConfig::new().kind(kind);
        let shown = if kind == SoftmaxKind::Sparsemax { settled(tensors)? } else { tensors.shown.clone() };
        Ok(Self { tensors, shown, config, op: SoftmaxBackward::new(context, config)? })
    }
}

/// Of the rows to be compared, those with no score at sparsemax's threshold, where the gradient jumps.
fn settled(tensors: &Tensors) -> Result<Vec<usize>, Failure> {
    let x = tensors.of(&tensors.host.x, &tensors.shown);
    let config = SoftmaxConfig::new().kind(SoftmaxKind::Sparsemax);
    let p = softmax(&config, &HostInputs::new(tensors.host(&x)))?.p;
    let len = tensors.shape[1] as usize;
    let is_settled = |x: &[f32], p: &[f64]| {
        // Any score of the support lies p above the threshold, the largest least uncertainly.
        let (largest, p) =
            x.iter().zip(p).fold((f32::MIN, 0.0), |most, (&x, &p)| if p > most.1 { (x, p) } else { most });
        let threshold = f64::from(largest) - p;
        x.iter().all(|&x| (f64::from(x) - threshold).abs() > UNSETTLED)
    };
    let each = tensors.shown.iter().zip(x.chunks(len).zip(p.chunks(len)));
    let rows: Vec<usize> = each.filter(|(_, (x, p))| is_settled(x, p)).map(|(&row, _)| row).collect();
    if rows.is_empty() {
        return Err(Failure::Refused("every row has a score at the threshold, where the gradient jumps".into()));
    }
    Ok(rows)
}

impl Cell for Backward<'_> {
    fn prepare(&self) -> Result<Prepared<'_>> {
        let Tensors { x, dy, out, .. } = self.tensors;
        let view = |buffer| self.tensors.view(buffer);
        self.op.prepare(SoftmaxBackwardInputs::new(view(x), view(dy)), SoftmaxGradients::new(view(out)))
    }

    fn shown(&self) -> &[usize] {
        &self.shown
    }

    fn got(&self, context: &Context) -> Result<Vec<Numbers>> {
        Ok(vec![self.tensors.got(context, self.shown())?])
    }

    fn twin(&self, rows: &[usize], arithmetic: Arithmetic) -> Result<Vec<Numbers>> {
        let host = &self.tensors.host;
        let [x, dy] = [&host.x, &host.dy].map(|data| self.tensors.of(data, rows));
        let mut inputs = HostBackward::of(self.tensors.host(&x));
        inputs.dp = Some(self.tensors.host(&dy));
        Ok(twin!(arithmetic, softmax_backward_in(&self.config, &inputs) => [dx: self.tensors.dtype]))
    }

    fn row_work(&self) -> u64 {
        self.tensors.shape[1].into()
    }

    fn ulps(&self) -> f64 {
        // Of p, times a difference of two gradients that may be far above that of the largest p.
        4.0 * self.tensors.exp_ulps()
    }
}
