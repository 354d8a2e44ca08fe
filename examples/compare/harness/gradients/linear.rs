//! Linear attention, from what forward reads.

use wgpu_attention::linear_attention::backward::reference::{HostInputs, linear_attention_backward_in};
use wgpu_attention::reference::{Real, SumOrder};
use wgpu_attention::{
    Context, FeatureMap, LinearAttention, LinearAttentionBackward, LinearAttentionBackwardInputs,
    LinearAttentionGradients, LinearAttentionInputs, LinearAttentionOutputs, LinearMode, Prepared, Result, TensorView,
};

use super::super::case::Arithmetic;
use super::super::case::linear::{Projection, config, features_and_work};
use super::super::tensors::{Tensors, view};
use super::{Addend, Gradient, Pass, Row, in_arithmetic};

pub struct LinearPass<'t> {
    tensors: &'t Tensors,
    forward: LinearAttention,
    backward: LinearAttentionBackward,
    projection: Option<Projection>,
    /// Of q, k and v.
    gradients: [Gradient; 3],
}

impl<'t> LinearPass<'t> {
    pub fn new(context: &Context, feature_map: FeatureMap, tensors: &'t Tensors) -> Result<Self> {
        let shape = &tensors.shape;
        let config = config(feature_map, shape.causal);
        let gradient = |name, extents| Gradient::new(context, name, shape, extents);
        Ok(Self {
            tensors,
            forward: LinearAttention::new(context, config)?,
            backward: LinearAttentionBackward::new(context, config)?,
            projection: Projection::of(context, feature_map, tensors)?,
            gradients: [gradient("dq", shape.q()), gradient("dk", shape.kv()), gradient("dv", shape.kv())],
        })
    }

    fn projection(&self) -> Option<TensorView<'_, 2>> {
        self.projection.as_ref().map(|own| own.view(self.tensors.shape.dtype))
    }

    fn of<T: Real>(&self, row: &Row, order: SumOrder) -> Result<Vec<Addend>> {
        let (host, dim, config) = (&self.tensors.host, row.dim(), self.forward.config());
        let (q, [k, v]) = (row.of_row(&host.q), [&host.k, &host.v].map(|data| row.of_keys(data, row.keys())));
        let inputs = HostInputs {
            projection: self.projection.as_ref().map(|own| view(&own.host, own.shape)),
            ..HostInputs::new(q, k, v, row.dout())
        };
        // One query over the keys that it sees is in full mode what it is in causal mode, but for the softmax map. That divides exp(q) by its
        // sum, which in causal mode the division by the sum of weights cancels, save for an eps of 10⁻⁶ beside that.
        let map = match config.mode {
            LinearMode::Causal if config.feature_map == FeatureMap::Softmax => FeatureMap::Exp,
            _ => config.feature_map,
        };
        let got = linear_attention_backward_in::<T>(&config.mode(LinearMode::Full).feature_map(map), &inputs, order)?;
        let first_key = row.first_key() * dim;
        Ok(vec![
            Addend::new(0, row.index() * dim, &got.dq),
            Addend::new(1, first_key, &got.dk),
            Addend::new(2, first_key, &got.dv),
        ])
    }
}

impl Pass for LinearPass<'_> {
    fn forward(&self) -> Result<Prepared<'_>> {
        let inputs = LinearAttentionInputs::new(self.tensors.q(), self.tensors.k(), self.tensors.v());
        let inputs = LinearAttentionInputs { projection: self.projection(), ..inputs };
        self.forward.prepare(inputs, LinearAttentionOutputs::new(self.tensors.o()))
    }

    fn backward<'a>(&'a self, dout: TensorView<'a, 4>) -> Result<Prepared<'a>> {
        let (tensors, shape) = (self.tensors, &self.tensors.shape);
        let inputs = LinearAttentionBackwardInputs::new(tensors.q(), tensors.k(), tensors.v(), dout);
        let inputs = LinearAttentionBackwardInputs { projection: self.projection(), ..inputs };
        let [dq, dk, dv] = &self.gradients;
        let gradients = LinearAttentionGradients::new(
            dq.view(shape, shape.q()),
            dk.view(shape, shape.kv()),
            dv.view(shape, shape.kv()),
        );
        self.backward.prepare(inputs, gradients)
    }

    fn gradients(&self) -> &[Gradient] {
        &self.gradients
    }

    fn row_cost(&self) -> [u64; 2] {
        let [len, dim] = [self.tensors.shape.len, self.tensors.shape.head_dim].map(u64::from);
        let config = self.forward.config();
        let [features, pair_work] = features_and_work(config.feature_map, dim);
        // The twin sums up the columns of the softmax map in full mode for every row.
        let sums_columns = (config.feature_map, config.mode) == (FeatureMap::Softmax, LinearMode::Full);
        let columns = if sums_columns { 2 * features * dim } else { 0 };
        [len * (2 * pair_work + 2 * features + columns), len * (24 * features + 40 * dim)]
    }

    fn row(&self, row: &Row, arithmetic: Arithmetic) -> Result<Vec<Addend>> {
        in_arithmetic(arithmetic, |order| self.of::<f64>(row, order), |order| self.of::<f32>(row, order))
    }
}
