//! Linear attention with any feature map; in decoding, the step of one token.

use std::f64::consts::LOG2_E;

use wgpu_attention::linear_attention::reference::{HostInputs, linear_attention_row};
use wgpu_attention::reference::{Real, SumOrder};
use wgpu_attention::{
    Context, DType, FeatureMap, HostView, LinearAttention, LinearAttentionConfig, LinearAttentionInputs,
    LinearAttentionOutputs, LinearAttentionShapes, LinearMode, Normalization, Result, TensorView, TuningCase, wgpu,
};

use super::super::call::Call;
use super::super::tensors::{Shape, Tensors, elements, normal, view};
use super::{Arithmetic, Case, Part, Twin, order, row_parts};

pub struct LinearCase<'t> {
    tensors: &'t Tensors,
    op: LinearAttention,
    projection: Option<Projection>,
    /// In decoding.
    past: Option<Past>,
}

/// The state after all keys but the last, and room for the one after that.
struct Past {
    before: State,
    after: State,
}

/// Sums of ψ(k) vᵀ and of ψ(k), and the largest exponents where the map has some.
struct State {
    s: wgpu::Buffer,
    z: wgpu::Buffer,
    max: Option<wgpu::Buffer>,
}

/// The rows of FAVOR+, from N(0, 1), four for each dimension of the head.
pub struct Projection {
    pub shape: [u32; 2],
    pub host: Vec<f32>,
    buffer: wgpu::Buffer,
}

impl Projection {
    /// That of a map, if it has one.
    pub fn of(context: &Context, feature_map: FeatureMap, tensors: &Tensors) -> Result<Option<Self>> {
        if !matches!(feature_map, FeatureMap::Favor { .. }) {
            return Ok(None);
        }
        let shape = [4 * tensors.shape.head_dim, tensors.shape.head_dim];
        let (host, buffer) = tensors.own(context, normal(20, elements(shape)))?;
        Ok(Some(Self { shape, host, buffer }))
    }

    pub fn view(&self, dtype: DType) -> TensorView<'_, 2> {
        TensorView::new(&self.buffer, dtype, self.shape)
    }
}

/// What a feature map is compared with.
pub fn config(feature_map: FeatureMap, causal: bool) -> LinearAttentionConfig {
    let mode = if causal { LinearMode::Causal } else { LinearMode::Full };
    let config = LinearAttentionConfig::new().mode(mode).feature_map(feature_map);
    match (feature_map, mode) {
        // What needs no sum, or has none that could be divided by.
        (FeatureMap::Identity, _) | (FeatureMap::Softmax, LinearMode::Full) => {
            config.normalization(Normalization::None)
        }
        _ => config,
    }
}

/// Features of a key, and the twin's multiply-adds for each pair of row and key: the features of the key, made
/// anew for every row, then their products with those of the query.
pub fn features_and_work(feature_map: FeatureMap, d: u64) -> [u64; 2] {
    const EXP: u64 = 8;
    match feature_map {
        FeatureMap::Taylor2 { .. } => {
            let features = (d + 1) * (d + 2) / 2;
            [features, 2 * features + d]
        }
        FeatureMap::Favor { .. } => [4 * d, 4 * d * (d + EXP) + d],
        FeatureMap::Exp | FeatureMap::Softmax => [d, d * EXP + 2 * d],
        _ => [d, 3 * d],
    }
}

impl<'t> LinearCase<'t> {
    pub fn new(context: &Context, feature_map: FeatureMap, tensors: &'t Tensors) -> Result<Self> {
        let config = config(feature_map, tensors.shape.causal || tensors.shape.is_decoding());
        let projection = Projection::of(context, feature_map, tensors)?;
        let mut case = Self { tensors, op: LinearAttention::new(context, config)?, projection, past: None };
        if tensors.shape.is_decoding() {
            case.past = Some(case.past(context)?);
        }
        Ok(case)
    }

    /// The state that a pass over all tokens but the last leaves.
    fn past(&self, context: &Context) -> Result<Past> {
        let past = Past { before: self.room(context), after: self.room(context) };
        let but_last = self.tensors.shape.len - 1;
        let [k, v] = [self.tensors.k(), self.tensors.v()].map(|tensor| tensor.with_extent(2, but_last));
        // Keys do as queries: nobody looks at what comes of them.
        let o = context.allocate(elements(k.shape()));
        let outputs = self.leaving(&past.before, LinearAttentionOutputs::new(TensorView::f32(&o, k.shape())));
        context.run(&self.op.prepare(self.inputs(k, k, v), outputs)?)?;
        Ok(past)
    }

    /// Of a call over all tokens.
    fn shapes(&self) -> LinearAttentionShapes {
        let Shape { batch, heads, kv_heads, len, head_dim, .. } = self.tensors.shape;
        let projection_rows = self.projection.as_ref().map(|projection| projection.shape[0]);
        let shapes = LinearAttentionShapes::new(batch, heads, len, head_dim);
        LinearAttentionShapes { kv_heads, projection_rows, ..shapes }
    }

    /// Of a state: the shapes of s and z, and the last extent of max.
    fn state_shapes(&self) -> ([u32; 4], [u32; 3], Option<u32>) {
        let Shape { batch, kv_heads, head_dim, .. } = self.tensors.shape;
        let feature_map = self.op.config().feature_map;
        let features = self.shapes().features(feature_map);
        let maxima = match feature_map {
            FeatureMap::Exp | FeatureMap::Softmax => Some(features),
            FeatureMap::Favor { .. } => Some(1),
            _ => None,
        };
        ([batch, kv_heads, features, head_dim], [batch, kv_heads, features], maxima)
    }

    fn room(&self, context: &Context) -> State {
        let (s, z, maxima) = self.state_shapes();
        let max = maxima.map(|maxima| context.allocate(elements([z[0], z[1], maxima])));
        State { s: context.allocate(elements(s)), z: context.allocate(elements(z)), max }
    }

    fn views<'a>(&self, state: &'a State) -> (TensorView<'a, 4>, TensorView<'a, 3>, Option<TensorView<'a, 3>>) {
        let (s, z, maxima) = self.state_shapes();
        let max = state.max.as_ref().zip(maxima).map(|(max, maxima)| TensorView::f32(max, [z[0], z[1], maxima]));
        (TensorView::f32(&state.s, s), TensorView::f32(&state.z, z), max)
    }

    fn inputs<'a>(
        &'a self,
        q: TensorView<'a, 4>,
        k: TensorView<'a, 4>,
        v: TensorView<'a, 4>,
    ) -> LinearAttentionInputs<'a> {
        let dtype = self.tensors.shape.dtype;
        let projection = self.projection.as_ref().map(|own| own.view(dtype));
        LinearAttentionInputs { projection, ..LinearAttentionInputs::new(q, k, v) }
    }

    fn leaving<'a>(&self, state: &'a State, outputs: LinearAttentionOutputs<'a>) -> LinearAttentionOutputs<'a> {
        let (s, z, state_max) = self.views(state);
        LinearAttentionOutputs { state_s: Some(s), state_z: Some(z), state_max, ..outputs }
    }

    /// As [`features_and_work`].
    fn features_and_work(&self) -> [u64; 2] {
        features_and_work(self.op.config().feature_map, self.tensors.shape.head_dim.into())
    }

    fn row<T: Real>(&self, part: &Part, order: SumOrder) -> Result<Twin> {
        let Tensors { shape, host, .. } = self.tensors;
        let ([len, q_len], width) = ([shape.len, shape.q_len].map(|len| len as usize), shape.head_dim as usize);
        let ([b, h], row) = (part.head, part.rows[0]);
        let kv_head = h / (shape.heads / shape.kv_heads) as usize;
        // A causal row sees the keys up to its own, so these are all that the twin is given.
        let end = if shape.causal { row + 1 } else { len };
        let head = |data: &'t [f32]| {
            let first = (b * shape.kv_heads as usize + kv_head) * len * width;
            HostView::new(&data[first..first + end * width], [1, 1, end, width])
        };
        // Causal mode has as many queries as keys: the one stands for all.
        let first = ((b * shape.heads as usize + h) * q_len + row) * width;
        let q = HostView::new(&host.q[first..first + width], [1, 1, 1, width])?.broadcast_to([1, 1, end, width]);
        let inputs = HostInputs {
            projection: self.projection.as_ref().map(|projection| view(&projection.host, projection.shape)),
            ..HostInputs::new(q, head(&host.k)?, head(&host.v)?)
        };
        let row: Vec<T> = linear_attention_row(self.op.config(), &inputs, [0, 0, end - 1], order)?;
        Ok(Twin { o: row.iter().map(|value| value.to_f64()).collect(), entropy: Vec::new() })
    }
}

impl Case for LinearCase<'_> {
    fn prepare(&self) -> Result<Call<'_>> {
        let Tensors { shape, .. } = self.tensors;
        let (q, outputs) = (self.tensors.q(), LinearAttentionOutputs::new(self.tensors.o()));
        let Some(past) = &self.past else {
            let inputs = self.inputs(q, self.tensors.k(), self.tensors.v());
            return self.op.prepare(inputs, outputs).map(Call::from);
        };
        let first = u64::from(shape.len - 1) * u64::from(shape.head_dim);
        let [k, v] = [self.tensors.k(), self.tensors.v()].map(|tensor| tensor.with_offset(first).with_extent(2, 1));
        let (s, z, state_max) = self.views(&past.before);
        let inputs = LinearAttentionInputs { state_s: Some(s), state_z: Some(z), state_max, ..self.inputs(q, k, v) };
        self.op.prepare(inputs, self.leaving(&past.after, outputs)).map(Call::from)
    }

    /// The state, read and written.
    fn cache_bytes(&self, shape: &Shape) -> u64 {
        let (s, z, maxima) = self.state_shapes();
        let heads = u64::from(shape.batch) * u64::from(shape.kv_heads);
        2 * 4 * (elements(s) as u64 + elements(z) as u64 + heads * u64::from(maxima.unwrap_or(0)))
    }

    fn tuning_case(&self) -> Option<TuningCase> {
        if self.past.is_some() {
            return None;
        }
        Some((*self.op.config(), self.shapes(), self.tensors.shape.dtype).into())
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
