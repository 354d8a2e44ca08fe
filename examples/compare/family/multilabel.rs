//! ZLPR with a bitmap of labels.

use wgpu_attention::multilabel_softmax::backward::reference::{
    HostInputs as HostBackward, multilabel_softmax_backward_in,
};
use wgpu_attention::multilabel_softmax::reference::{HostInputs, multilabel_softmax_in};
use wgpu_attention::{
    Context, DType, HostView, MultilabelSoftmax, MultilabelSoftmaxBackward, MultilabelSoftmaxBackwardInputs,
    MultilabelSoftmaxConfig, MultilabelSoftmaxGradients, MultilabelSoftmaxInputs, MultilabelSoftmaxOutputs, Prepared,
    Result, TensorView,
};

use super::cells::{Cell, Numbers, Tensors, twin};
use crate::harness::case::Arithmetic;

/// The loss, with what its backward pass reads.
pub struct Loss<'t> {
    tensors: &'t Tensors,
    op: MultilabelSoftmax,
}

impl<'t> Loss<'t> {
    pub fn new(context: &Context, tensors: &'t Tensors) -> Result<Self> {
        Ok(Self { tensors, op: MultilabelSoftmax::new(context, MultilabelSoftmaxConfig::new())? })
    }
}

fn labels(tensors: &Tensors) -> Option<TensorView<'_, 2>> {
    Some(TensorView::new(&tensors.labels, DType::Bool, tensors.shape))
}

impl Cell for Loss<'_> {
    fn prepare(&self) -> Result<Prepared<'_>> {
        let Tensors { x, of_rows, .. } = self.tensors;
        let [loss, lse_neg, lse_pos] = of_rows.each_ref().map(|buffer| self.tensors.row(buffer));
        let inputs = MultilabelSoftmaxInputs {
            labels: labels(self.tensors),
            ..MultilabelSoftmaxInputs::new(self.tensors.view(x))
        };
        self.op.prepare(inputs, MultilabelSoftmaxOutputs::saved(loss, lse_neg, lse_pos))
    }

    fn shown(&self) -> &[usize] {
        &self.tensors.shown
    }

    fn got(&self, context: &Context) -> Result<Vec<Numbers>> {
        let of_shown = |buffer| {
            let all = context.download(buffer)?;
            let of = self.tensors.shown.iter().map(|&row| f64::from(all[row])).collect();
            Ok(Numbers { stored: DType::F32, of })
        };
        self.tensors.of_rows.iter().map(of_shown).collect()
    }

    fn twin(&self, rows: &[usize], arithmetic: Arithmetic) -> Result<Vec<Numbers>> {
        let (x, labels) =
            (self.tensors.of(&self.tensors.host.x, rows), self.tensors.of(&self.tensors.host.labels, rows));
        let inputs = HostInputs { labels: Some(self.tensors.host(&labels)), ..HostInputs::new(self.tensors.host(&x)) };
        let (config, f32) = (MultilabelSoftmaxConfig::new(), DType::F32);
        Ok(twin!(arithmetic, multilabel_softmax_in(&config, &inputs) => [loss: f32, lse_neg: f32, lse_pos: f32]))
    }

    fn row_work(&self) -> u64 {
        self.tensors.shape[1].into()
    }

    fn ulps(&self) -> f64 {
        self.tensors.exp_ulps()
    }
}

pub struct LossBackward<'t> {
    tensors: &'t Tensors,
    forward: Loss<'t>,
    op: MultilabelSoftmaxBackward,
}

impl<'t> LossBackward<'t> {
    pub fn new(context: &Context, tensors: &'t Tensors) -> Result<Self> {
        let op = MultilabelSoftmaxBackward::new(context, MultilabelSoftmaxConfig::new())?;
        Ok(Self { tensors, forward: Loss::new(context, tensors)?, op })
    }
}

impl Cell for LossBackward<'_> {
    fn prepare(&self) -> Result<Prepared<'_>> {
        let Tensors { x, of_rows: [_, lse_neg, lse_pos], dloss, out, .. } = self.tensors;
        let [lse_neg, lse_pos, dloss] = [lse_neg, lse_pos, dloss].map(|buffer| self.tensors.row(buffer));
        let inputs = MultilabelSoftmaxBackwardInputs {
            labels: labels(self.tensors),
            ..MultilabelSoftmaxBackwardInputs::new(self.tensors.view(x), lse_neg, lse_pos, dloss)
        };
        let dscores = Some(self.tensors.view(out));
        self.op.prepare(inputs, MultilabelSoftmaxGradients { dscores, ..MultilabelSoftmaxGradients::none() })
    }

    /// The loss, whose logarithms are read.
    fn run_before(&self, context: &Context) -> Result<()> {
        context.run(&self.forward.prepare()?)
    }

    fn shown(&self) -> &[usize] {
        &self.tensors.shown
    }

    fn got(&self, context: &Context) -> Result<Vec<Numbers>> {
        Ok(vec![self.tensors.got(context, self.shown())?])
    }

    fn twin(&self, rows: &[usize], arithmetic: Arithmetic) -> Result<Vec<Numbers>> {
        let host = &self.tensors.host;
        let (x, labels) = (self.tensors.of(&host.x, rows), self.tensors.of(&host.labels, rows));
        let dloss: Vec<f32> = rows.iter().map(|&row| host.dloss[row]).collect();
        let dloss = HostView::new(&dloss, [rows.len()]).expect("a number a row");
        // The twin computes both logarithms itself.
        let inputs = HostBackward::new(self.tensors.host(&x), dloss, dloss, dloss);
        let inputs = HostBackward { labels: Some(self.tensors.host(&labels)), ..inputs };
        let config = MultilabelSoftmaxConfig::new();
        Ok(twin!(arithmetic, multilabel_softmax_backward_in(&config, &inputs) => [dscores: self.tensors.dtype]))
    }

    fn row_work(&self) -> u64 {
        self.tensors.shape[1].into()
    }

    fn ulps(&self) -> f64 {
        2.0 * self.tensors.exp_ulps()
    }
}
