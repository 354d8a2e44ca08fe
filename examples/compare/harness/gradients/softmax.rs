//! Softmax attention, from o and the log-sum-exp that forward leaves.

use wgpu_attention::attention::backward::reference::{HostInputs, HostOutputs, attention_backward_in};
use wgpu_attention::attention::reference::{HostInputs as ForwardInputs, attention_row};
use wgpu_attention::reference::{Real, SumOrder};
use wgpu_attention::{
    Attention, AttentionBackward, AttentionBackwardInputs, AttentionConfig, AttentionGradients, AttentionInputs,
    AttentionOutputs, Causal, Context, HostView, Matrices, Prepared, Result, Scale, TensorView, wgpu,
};

use super::super::case::Arithmetic;
use super::super::tensors::{Tensors, elements, view};
use super::{Addend, Gradient, Pass, Row, in_arithmetic};

pub struct SoftmaxPass<'t> {
    tensors: &'t Tensors,
    forward: Attention,
    backward: AttentionBackward,
    lse: wgpu::Buffer,
    /// Of q, k and v.
    gradients: [Gradient; 3],
}

impl<'t> SoftmaxPass<'t> {
    pub fn new(context: &Context, scale: Scale, tensors: &'t Tensors) -> Result<Self> {
        let shape = &tensors.shape;
        let causal = if shape.causal { Causal::TopLeft } else { Causal::None };
        let config = AttentionConfig::new().scale(scale).causal(causal).matrices(shape.matrices);
        let gradient = |name, extents| Gradient::new(context, name, shape, extents);
        Ok(Self {
            tensors,
            forward: Attention::new(context, config)?,
            backward: AttentionBackward::new(context, config)?,
            lse: context.allocate(elements(shape.rows())),
            gradients: [gradient("dq", shape.q()), gradient("dk", shape.kv()), gradient("dv", shape.kv())],
        })
    }

    fn lse(&self) -> TensorView<'_, 3> {
        TensorView::f32(&self.lse, self.tensors.shape.rows())
    }

    fn of<T: Real>(&self, row: &Row, order: SumOrder) -> Result<Vec<Addend>> {
        let (host, dim) = (&self.tensors.host, row.dim());
        let (q, [k, v]) = (row.of_row(&host.q), [&host.k, &host.v].map(|data| row.of_keys(data, row.keys())));
        // What forward wrote, the twin computes again.
        let inputs = HostInputs { dout: Some(row.dout()), ..HostInputs::of(q, k, v, q, view(&[0.0], [1, 1, 1])) };
        let config = self.forward.config().causal(Causal::None);
        let got = attention_backward_in::<T>(&config, &inputs, order)?;
        let (own, first_key) = (row.index() * dim, row.first_key() * dim);
        let mut all =
            vec![Addend::new(0, own, &got.dq), Addend::new(1, first_key, &got.dk), Addend::new(2, first_key, &got.dv)];
        let o = || Ok(attention_row(&config, &ForwardInputs::new(q, k, v), [0; 3], SumOrder::InOrder)?.o);
        if let Some(off) = row.off_by(o)? {
            let [dq, dk] = of_rounded_o::<T>(&config, q, k, v, off, order)?;
            all.extend([Addend::new(0, own, &dq), Addend::new(1, first_key, &dk)]);
        }
        Ok(all)
    }
}

/// What gradients of a query and of keys gain where dout·o is off by this: as much of the gradient of lse is missing.
pub fn of_rounded_o<T: Real>(
    config: &AttentionConfig,
    q: HostView<'_, f32, 4>,
    k: HostView<'_, f32, 4>,
    v: HostView<'_, f32, 4>,
    off: f32,
    order: SumOrder,
) -> Result<[Vec<T>; 2]> {
    let (dlse, nothing) = ([-off], [0.0]);
    let inputs = HostInputs { dlse: Some(view(&dlse, [1; 3])), ..HostInputs::of(q, k, v, q, view(&nothing, [1; 3])) };
    let HostOutputs { dq, dk, .. } = attention_backward_in::<T>(config, &inputs, order)?;
    Ok([dq, dk])
}

impl Pass for SoftmaxPass<'_> {
    fn forward(&self) -> Result<Prepared<'_>> {
        let inputs = AttentionInputs::new(self.tensors.q(), self.tensors.k(), self.tensors.v());
        let outputs = AttentionOutputs { lse: Some(self.lse()), ..AttentionOutputs::new(self.tensors.o()) };
        self.forward.prepare(inputs, outputs)
    }

    fn backward<'a>(&'a self, dout: TensorView<'a, 4>) -> Result<Prepared<'a>> {
        let (tensors, shape) = (self.tensors, &self.tensors.shape);
        let (q, k, v, o) = (tensors.q(), tensors.k(), tensors.v(), tensors.o());
        let [dq, dk, dv] = &self.gradients;
        let gradients =
            AttentionGradients::new(dq.view(shape, shape.q()), dk.view(shape, shape.kv()), dv.view(shape, shape.kv()));
        self.backward.prepare(AttentionBackwardInputs::new(q, k, v, o, self.lse(), dout), gradients)
    }

    fn gradients(&self) -> &[Gradient] {
        &self.gradients
    }

    fn by_matrices(&self) -> bool {
        self.backward.config().matrices != Matrices::None
    }

    fn row_cost(&self) -> [u64; 2] {
        let numbers = u64::from(self.tensors.shape.len) * u64::from(self.tensors.shape.head_dim);
        [6 * numbers, 40 * numbers]
    }

    fn row(&self, row: &Row, arithmetic: Arithmetic) -> Result<Vec<Addend>> {
        in_arithmetic(arithmetic, |order| self.of::<f64>(row, order), |order| self.of::<f32>(row, order))
    }
}
