//! The softmax of rows and its sparse kinds.

use wgpu_attention::softmax::backward::reference::{HostInputs as HostBackward, softmax_backward_in};
use wgpu_attention::softmax::reference::{HostInputs, softmax_in};
use wgpu_attention::{
    Context, Prepared, Result, Softmax, SoftmaxBackward, SoftmaxBackwardInputs, SoftmaxConfig, SoftmaxGradients,
    SoftmaxInputs, SoftmaxKind, SoftmaxOutputs,
};

use super::cells::{Cell, Numbers, Tensors, twin};
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
        Ok(vec![self.tensors.got(context)?])
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

pub struct Backward<'t> {
    tensors: &'t Tensors,
    config: SoftmaxConfig,
    op: SoftmaxBackward,
}

impl<'t> Backward<'t> {
    pub fn new(context: &Context, kind: SoftmaxKind, tensors: &'t Tensors) -> Result<Self> {
        let config = SoftmaxConfig::new().kind(kind);
        Ok(Self { tensors, config, op: SoftmaxBackward::new(context, config)? })
    }
}

impl Cell for Backward<'_> {
    fn prepare(&self) -> Result<Prepared<'_>> {
        let Tensors { x, dy, out, .. } = self.tensors;
        let view = |buffer| self.tensors.view(buffer);
        self.op.prepare(SoftmaxBackwardInputs::new(view(x), view(dy)), SoftmaxGradients::new(view(out)))
    }

    fn shown(&self) -> &[usize] {
        &self.tensors.shown
    }

    fn got(&self, context: &Context) -> Result<Vec<Numbers>> {
        Ok(vec![self.tensors.got(context)?])
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
