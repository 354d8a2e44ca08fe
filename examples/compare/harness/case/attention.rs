//! Softmax attention with any scale.

use std::f64::consts::LOG2_E;

use wgpu_attention::attention::reference::{HostInputs, Row, attention_row};
use wgpu_attention::reference::{Real, SumOrder};
use wgpu_attention::{
    Attention, AttentionConfig, AttentionInputs, AttentionOutputs, AttentionShapes, Causal, Context, Matrices,
    Prepared, Result, Scale, TensorView, TuningCase,
};

use super::super::call::Call;
use super::super::tensors::{Shape, Tensors};
use super::{Arithmetic, Case, Part, Twin, order, row_parts};

pub struct SoftmaxCase<'t> {
    tensors: &'t Tensors,
    op: Attention,
}

impl<'t> SoftmaxCase<'t> {
    pub fn new(context: &Context, causal: Causal, scale: Scale, tensors: &'t Tensors) -> Result<Self> {
        let config = AttentionConfig::new().causal(causal).scale(scale).matrices(tensors.shape.matrices);
        let op = Attention::new(context, config)?;
        Ok(Self { tensors, op })
    }

    fn inputs(&self) -> AttentionInputs<'_> {
        AttentionInputs::new(self.tensors.q(), self.tensors.k(), self.tensors.v())
    }

    fn row<T: Real>(&self, part: &Part, order: SumOrder) -> Result<Twin> {
        let inputs = HostInputs::new(self.tensors.host_q(), self.tensors.host_k(), self.tensors.host_v());
        let [b, h] = part.head;
        let row: Row<T> = attention_row(self.op.config(), &inputs, [b, h, part.rows[0]], order)?;
        let o = row.o.iter().map(|value| value.to_f64()).collect();
        Ok(Twin { o, entropy: vec![row.entropy.to_f64()] })
    }
}

impl Case for SoftmaxCase<'_> {
    fn prepare(&self) -> Result<Call<'_>> {
        self.op.prepare(self.inputs(), AttentionOutputs::new(self.tensors.o())).map(Call::from)
    }

    fn prepare_with_entropy(&self) -> Option<Result<Prepared<'_>>> {
        let entropy = Some(TensorView::f32(&self.tensors.entropy, self.tensors.shape.rows()));
        Some(self.op.prepare(self.inputs(), AttentionOutputs { entropy, ..AttentionOutputs::new(self.tensors.o()) }))
    }

    fn by_matrices(&self) -> bool {
        self.op.config().matrices != Matrices::None
    }

    fn tuning_case(&self) -> Option<TuningCase> {
        let Shape { batch, heads, kv_heads, len, q_len, head_dim, dtype, .. } = self.tensors.shape;
        let shapes = AttentionShapes { kv_heads, q_len, ..AttentionShapes::new(batch, heads, len, head_dim) };
        Some((*self.op.config(), shapes, dtype).into())
    }

    fn parts(&self, work: u64) -> Vec<Part> {
        let shape = &self.tensors.shape;
        row_parts(self.tensors, 2 * u64::from(shape.len) * u64::from(shape.head_dim), work)
    }

    fn twin(&self, part: &Part, arithmetic: Arithmetic) -> Result<Twin> {
        match order(arithmetic) {
            (true, order) => self.row::<f64>(part, order),
            (false, order) => self.row::<f32>(part, order),
        }
    }

    /// exp(x) is within 3 + 2|x| ULP, and x = s - max s. Weighted by the weights themselves, |x| is on average
    /// entropy - log Σ exp(x), so at most the row's entropy.
    fn weight_ulps(&self, truth: &Twin) -> f64 {
        3.0 + 2.0 * LOG2_E * truth.entropy.iter().copied().fold(0.0, f64::max)
    }
}
