//! Linear attention with any feature map.

use std::f64::consts::LOG2_E;

use wgpu_attention::linear_attention::reference::{HostInputs, linear_attention_row};
use wgpu_attention::reference::{Real, SumOrder};
use wgpu_attention::{
    Context, FeatureMap, HostView, LinearAttention, LinearAttentionConfig, LinearAttentionInputs,
    LinearAttentionOutputs, LinearAttentionShapes, LinearMode, Normalization, Result, TensorView, TuningCase, wgpu,
};

use super::super::call::Call;
use super::super::tensors::{Shape, Tensors, elements, normal, view};
use super::{Arithmetic, Case, Part, Twin, order, row_parts};

pub struct LinearCase<'t> {
    tensors: &'t Tensors,
    op: LinearAttention,
    projection: Option<Projection>,
}

/// The rows of FAVOR+, from N(0, 1), four for each dimension of the head.
struct Projection {
    shape: [u32; 2],
    host: Vec<f32>,
    buffer: wgpu::Buffer,
}

impl<'t> LinearCase<'t> {
    pub fn new(context: &Context, feature_map: FeatureMap, tensors: &'t Tensors) -> Result<Self> {
        let mode = if tensors.shape.causal { LinearMode::Causal } else { LinearMode::Full };
        let config = LinearAttentionConfig::new().mode(mode).feature_map(feature_map);
        // What needs no sum, or has none that could be divided by.
        let config = match (feature_map, mode) {
            (FeatureMap::Identity, _) | (FeatureMap::Softmax, LinearMode::Full) => {
                config.normalization(Normalization::None)
            }
            _ => config,
        };
        let projection = || {
            let shape = [4 * tensors.shape.head_dim, tensors.shape.head_dim];
            let (host, buffer) = tensors.own(context, normal(20, elements(shape)))?;
            Ok(Projection { shape, host, buffer })
        };
        let projection = matches!(feature_map, FeatureMap::Favor { .. }).then(projection).transpose()?;
        Ok(Self { tensors, op: LinearAttention::new(context, config)?, projection })
    }

    /// Features of a key, and the twin's multiply-adds for each pair of row and key: the features of the key, made
    /// anew for every row, then their products with those of the query.
    fn features_and_work(&self) -> [u64; 2] {
        const EXP: u64 = 8;
        let d = u64::from(self.tensors.shape.head_dim);
        match self.op.config().feature_map {
            FeatureMap::Taylor2 { .. } => {
                let features = (d + 1) * (d + 2) / 2;
                [features, 2 * features + d]
            }
            FeatureMap::Favor { .. } => [4 * d, 4 * d * (d + EXP) + d],
            FeatureMap::Exp | FeatureMap::Softmax => [d, d * EXP + 2 * d],
            _ => [d, 3 * d],
        }
    }

    fn row<T: Real>(&self, part: &Part, order: SumOrder) -> Result<Twin> {
        let Tensors { shape, host, .. } = self.tensors;
        let (len, width) = (shape.len as usize, shape.head_dim as usize);
        let ([b, h], row) = (part.head, part.rows[0]);
        let kv_head = h / (shape.heads / shape.kv_heads) as usize;
        // A causal row sees the keys up to its own, so these are all that the twin is given.
        let end = if shape.causal { row + 1 } else { len };
        let head = |data: &'t [f32], heads: u32, head: usize| {
            let first = (b * heads as usize + head) * len * width;
            HostView::new(&data[first..first + end * width], [1, 1, end, width])
        };
        let inputs = HostInputs {
            projection: self.projection.as_ref().map(|projection| view(&projection.host, projection.shape)),
            ..HostInputs::new(
                head(&host.q, shape.heads, h)?,
                head(&host.k, shape.kv_heads, kv_head)?,
                head(&host.v, shape.kv_heads, kv_head)?,
            )
        };
        let row: Vec<T> = linear_attention_row(self.op.config(), &inputs, [0, 0, row], order)?;
        Ok(Twin { o: row.iter().map(|value| value.to_f64()).collect(), entropy: Vec::new() })
    }
}

impl Case for LinearCase<'_> {
    fn prepare(&self) -> Result<Call<'_>> {
        let projection = self.projection.as_ref();
        let inputs = LinearAttentionInputs {
            projection: projection.map(|own| TensorView::new(&own.buffer, self.tensors.shape.dtype, own.shape)),
            ..LinearAttentionInputs::new(self.tensors.q(), self.tensors.k(), self.tensors.v())
        };
        self.op.prepare(inputs, LinearAttentionOutputs::new(self.tensors.o())).map(Call::from)
    }

    fn tuning_case(&self) -> Option<TuningCase> {
        let Shape { batch, heads, kv_heads, len, head_dim, dtype, .. } = self.tensors.shape;
        let projection_rows = self.projection.as_ref().map(|projection| projection.shape[0]);
        let shapes = LinearAttentionShapes::new(batch, heads, len, head_dim);
        Some((*self.op.config(), LinearAttentionShapes { kv_heads, projection_rows, ..shapes }, dtype).into())
    }

    fn parts(&self, work: u64) -> Vec<Part> {
        let len = u64::from(self.tensors.shape.len);
        let [features, pair_work] = self.features_and_work();
        let parts = row_parts(self.tensors, len * pair_work, work);
        parts.into_iter().map(|part| Part { memory: 12 * len * features, ..part }).collect()
    }

    fn twin(&self, part: &Part, arithmetic: Arithmetic) -> Result<Twin> {
        match order(arithmetic) {
            (true, order) => self.row::<f64>(part, order),
            (false, order) => self.row::<f32>(part, order),
        }
    }

    /// Exponentials as for softmax attention: of the weights of all pairs of key and feature, log(n F) bounds the entropy.
    /// Features with a sign cancel in the product with the state, where naive f32 takes them key by key: the rounding
    /// errors of F terms, of half a ULP each, add up as a random walk.
    fn weight_ulps(&self, _: &Twin) -> f64 {
        let features = self.features_and_work()[0] as f64;
        match self.op.config().feature_map {
            FeatureMap::EluPlusOne | FeatureMap::Exp | FeatureMap::Softmax | FeatureMap::Favor { .. } => {
                3.0 + 2.0 * LOG2_E * (f64::from(self.tensors.shape.len) * features).ln()
            }
            FeatureMap::Identity | FeatureMap::Cosine | FeatureMap::Taylor2 { .. } => 0.5 * features.sqrt(),
            _ => 0.0,
        }
    }
}
