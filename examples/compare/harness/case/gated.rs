//! Gated attention: relu² on q and k as they are, or a whole GAU with shared z and gate.

use std::f64::consts::LOG2_E;

use wgpu_attention::gated_attention::reference::{HostInputs, gated_attention_row};
use wgpu_attention::reference::{Real, SumOrder};
use wgpu_attention::{
    Causal, Context, GatedAttention, GatedAttentionConfig, GatedAttentionInputs, GatedAttentionOutputs,
    GatedAttentionShapes, GauMode, GauWeights, Matrices, Result, TensorView, TuningCase, wgpu,
};

use super::super::call::Call;
use super::super::tensors::{Shape, Tensors, elements, normal, view};
use super::{Arithmetic, Case, Part, Twin, order, row_parts};

pub struct GatedCase<'t> {
    tensors: &'t Tensors,
    op: GatedAttention,
    maps: Option<Maps>,
}

/// γ and β of q, k, q_lin and k_lin, on the host and on the device: near 1 and near 0, in multiples of 2⁻⁶.
pub type Maps = Vec<(Vec<f32>, wgpu::Buffer)>;

pub fn maps(context: &Context, tensors: &Tensors) -> Result<Maps> {
    let count = elements(map_shape(tensors));
    let map = |index: u64| {
        let center = if index.is_multiple_of(2) { 1.0 } else { 0.0 };
        let numbers = normal(10 + index, count).into_iter().map(|value| ((center + 0.1 * value) * 64.0).round() / 64.0);
        tensors.own(context, numbers.collect())
    };
    (0..8).map(map).collect()
}

pub fn map_shape(tensors: &Tensors) -> [u32; 2] {
    [tensors.shape.heads, tensors.shape.head_dim]
}

impl<'t> GatedCase<'t> {
    /// Weights of the given q and k, without a gate.
    pub fn plain(context: &Context, causal: Causal, weights: GauWeights, tensors: &'t Tensors) -> Result<Self> {
        let config = GatedAttentionConfig::new().causal(causal).weights(weights).matrices(tensors.shape.matrices);
        let op = GatedAttention::new(context, config)?;
        Ok(Self { tensors, op, maps: None })
    }

    /// A GAU that takes the given q as its z and the given k as its gate.
    pub fn gau(
        context: &Context,
        causal: Causal,
        weights: GauWeights,
        mode: GauMode,
        tensors: &'t Tensors,
    ) -> Result<Self> {
        // Mixed chunks have no matrices.
        let matrices = if mode == GauMode::Full { tensors.shape.matrices } else { Matrices::None };
        let config = GatedAttentionConfig::new().causal(causal).weights(weights).mode(mode).matrices(matrices);
        let op = GatedAttention::new(context, config)?;
        Ok(Self { tensors, op, maps: Some(maps(context, tensors)?) })
    }

    fn is_mixed_chunk(&self) -> bool {
        self.op.config().mode != GauMode::Full
    }

    fn inputs(&self) -> GatedAttentionInputs<'_> {
        let Self { tensors, maps: Some(maps), .. } = self else {
            return GatedAttentionInputs::new(self.tensors.q(), self.tensors.k(), self.tensors.v());
        };
        let map = |index: usize| TensorView::new(&maps[index].1, tensors.shape.dtype, map_shape(tensors));
        let linear = |index| self.is_mixed_chunk().then(|| map(index));
        GatedAttentionInputs {
            beta_q: Some(map(1)),
            beta_k: Some(map(3)),
            u: Some(tensors.k()),
            gamma_q_lin: linear(4),
            beta_q_lin: linear(5),
            gamma_k_lin: linear(6),
            beta_k_lin: linear(7),
            ..GatedAttentionInputs::shared(tensors.q(), map(0), map(2), tensors.v())
        }
    }

    fn host_inputs(&self) -> HostInputs<'_> {
        let Self { tensors, maps: Some(maps), .. } = self else {
            return HostInputs::new(self.tensors.host_q(), self.tensors.host_k(), self.tensors.host_v());
        };
        let map = |index: usize| view(&maps[index].0, map_shape(tensors));
        let linear = |index| self.is_mixed_chunk().then(|| map(index));
        HostInputs {
            beta_q: Some(map(1)),
            beta_k: Some(map(3)),
            u: Some(tensors.host_k()),
            gamma_q_lin: linear(4),
            beta_q_lin: linear(5),
            gamma_k_lin: linear(6),
            beta_k_lin: linear(7),
            ..HostInputs::shared(tensors.host_q(), map(0), map(2), tensors.host_v())
        }
    }

    fn row<T: Real>(&self, part: &Part, order: SumOrder) -> Result<Twin> {
        let [b, h] = part.head;
        let row: Vec<T> = gated_attention_row(self.op.config(), &self.host_inputs(), [b, h, part.rows[0]], order)?;
        Ok(Twin { o: row.iter().map(|value| value.to_f64()).collect(), entropy: Vec::new() })
    }
}

impl Case for GatedCase<'_> {
    fn prepare(&self) -> Result<Call<'_>> {
        self.op.prepare(self.inputs(), GatedAttentionOutputs::new(self.tensors.o())).map(Call::from)
    }

    fn by_matrices(&self) -> bool {
        self.op.config().matrices != Matrices::None
    }

    fn tuning_case(&self) -> Option<TuningCase> {
        let Shape { batch, heads, kv_heads, len, q_len, head_dim, dtype, .. } = self.tensors.shape;
        let shapes = match self.maps {
            Some(_) => GatedAttentionShapes::gau(batch, heads, len, head_dim, head_dim),
            None => {
                let shapes = GatedAttentionShapes::new(batch, heads, len, head_dim, head_dim);
                GatedAttentionShapes { kv_heads, q_len, ..shapes }
            }
        };
        Some((*self.op.config(), shapes, dtype).into())
    }

    fn parts(&self, work: u64) -> Vec<Part> {
        let shape = &self.tensors.shape;
        // The twin maps z to k anew for each pair.
        let maps = if self.maps.is_some() { 2 } else { 1 };
        row_parts(self.tensors, 2 * maps * u64::from(shape.len) * u64::from(shape.head_dim), work)
    }

    fn twin(&self, part: &Part, arithmetic: Arithmetic) -> Result<Twin> {
        match order(arithmetic) {
            (true, order) => self.row::<f64>(part, order),
            (false, order) => self.row::<f32>(part, order),
        }
    }

    /// As for softmax attention, with log n in the place of the row's entropy, which it bounds. relu² has no exp.
    fn weight_ulps(&self, _: &Twin) -> f64 {
        match self.op.config().weights {
            GauWeights::SquaredRelu(_) => 0.0,
            GauWeights::Softmax | GauWeights::SoftmaxLogN { .. } => {
                3.0 + 2.0 * LOG2_E * f64::from(self.tensors.shape.len).ln()
            }
        }
    }
}
