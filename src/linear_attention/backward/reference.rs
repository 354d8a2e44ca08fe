//! The CPU twin of the backward pass: pair by pair, as the formula has it.

use super::super::config::{FeatureMap, LinearAttentionConfig, LinearMode, Normalization, RunningMax};
use super::super::reference::{Head, HostInputs as Forward};
use super::LinearAttentionBackwardShapes;
use crate::Result;
use crate::reference::{Real, SumOrder};

pub use super::HostInputs;

/// All gradients.
#[derive(Clone, Debug, PartialEq)]
pub struct HostOutputs<T> {
    /// `[batch, q_heads, q_len, head_dim]`.
    pub dq: Vec<T>,
    /// `[batch, kv_heads, kv_len, head_dim]`.
    pub dk: Vec<T>,
    /// `[batch, kv_heads, kv_len, v_dim]`.
    pub dv: Vec<T>,
    /// `[batch, kv_heads, features, v_dim]`; empty without a state.
    pub dstate_s: Vec<T>,
    /// `[batch, kv_heads, features]`; empty without a state.
    pub dstate_z: Vec<T>,
}

/// The gradients in f64.
///
/// # Errors
/// As [`HostInputs::shapes`].
pub fn linear_attention_backward(config: &LinearAttentionConfig, inputs: &HostInputs) -> Result<HostOutputs<f64>> {
    linear_attention_backward_in(config, inputs, SumOrder::InOrder)
}

/// [`linear_attention_backward`] in another arithmetic or order of summation.
///
/// # Errors
/// As [`linear_attention_backward`].
pub fn linear_attention_backward_in<T: Real>(
    config: &LinearAttentionConfig,
    inputs: &HostInputs,
    order: SumOrder,
) -> Result<HostOutputs<T>> {
    let shapes = inputs.shapes(config)?;
    let forward = inputs.forward();
    let mut out =
        HostOutputs { dq: Vec::new(), dk: Vec::new(), dv: Vec::new(), dstate_s: Vec::new(), dstate_z: Vec::new() };
    for b in 0..shapes.batch as usize {
        for kv_head in 0..shapes.kv_heads as usize {
            let head = Head::new(config, &forward, &shapes.forward(), [b, kv_head], order);
            Pass::new(&head, inputs, &shapes).extend(&mut out);
        }
    }
    Ok(out)
}

/// All gradients, by name; those of a state where there is one.
pub(super) fn by_name<T: Real>(
    config: &LinearAttentionConfig,
    inputs: &HostInputs,
    order: SumOrder,
) -> Result<Vec<(&'static str, Vec<T>)>> {
    let HostOutputs { dq, dk, dv, dstate_s, dstate_z } = linear_attention_backward_in(config, inputs, order)?;
    let states = inputs.state_s.map(|_| [("dstate_s", dstate_s), ("dstate_z", dstate_z)]);
    Ok([("dq", dq), ("dk", dk), ("dv", dv)].into_iter().chain(states.into_iter().flatten()).collect())
}

impl<'a> HostInputs<'a> {
    /// What the forward pass reads.
    #[must_use]
    pub fn forward(&self) -> Forward<'a> {
        let Self { q, k, v, projection, kv_lens, state_s, state_z, state_max, .. } = *self;
        Forward { q, k, v, projection, kv_lens, state_s, state_z, state_max }
    }
}

/// What a head of k and v has summed.
struct Pass<'p, T> {
    head: &'p Head<'p, T>,
    inputs: &'p HostInputs<'p>,
    shapes: LinearAttentionBackwardShapes,
    /// Of queries, as q has them.
    dq: Vec<T>,
    /// Of ψ(k) or its logarithm, and of v: of each visible key.
    dkeys: Vec<Vec<T>>,
    dvalues: Vec<Vec<T>>,
    /// Of S₀ and z₀.
    ds: Vec<Vec<T>>,
    dz: Vec<T>,
}

impl<'p, T: Real> Pass<'p, T> {
    fn new(head: &'p Head<'p, T>, inputs: &'p HostInputs<'p>, shapes: &LinearAttentionBackwardShapes) -> Self {
        let (keys, zero) = (head.keys.len(), T::new(0.0));
        let mut pass = Self {
            head,
            inputs,
            shapes: *shapes,
            dq: Vec::new(),
            dkeys: vec![vec![zero; head.features]; keys],
            dvalues: vec![vec![zero; head.v_dim]; keys],
            ds: vec![vec![zero; head.v_dim]; head.features],
            dz: vec![zero; head.features],
        };
        let group = (shapes.q_heads / shapes.kv_heads) as usize;
        // What rows leave in keys and state is summed in the order of the rows, those of all query heads.
        let rows = group * shapes.q_len as usize;
        let mut dq = vec![Vec::new(); rows];
        for row in head.order.indices(rows) {
            let (member, i) = (row / shapes.q_len as usize, row % shapes.q_len as usize);
            dq[row] = pass.row(head.at[1] * group + member, i);
        }
        pass.dq = dq.concat();
        if head.config.is_efficient_attention() {
            pass.columns();
        }
        pass.final_state();
        pass
    }

    /// The incoming state's entry of a feature, S then z, and its maximum; none where it has seen no key.
    fn before(&self, f: usize) -> Option<(Vec<T>, T, T)> {
        let [b, h] = self.head.at;
        let (s, z) = (self.inputs.state_s?, self.inputs.state_z?);
        let unbounded = self.head.config.feature_map.running_max().is_some();
        let max = if unbounded { self.head.incoming_max(f)? } else { T::new(1.0) };
        let s = (0..self.head.v_dim).map(|c| T::new(s.at([b, h, f, c]).into())).collect();
        Some((s, T::new(z.at([b, h, f]).into()), max))
    }

    /// What one row leaves everywhere; its own dq.
    fn row(&mut self, h: usize, i: usize) -> Vec<T> {
        let Head { config, order, v_dim, features, at: [b, _], .. } = *self.head;
        let zero = T::new(0.0);
        let raw: Vec<f32> = (0..self.inputs.q.shape()[3]).map(|c| self.inputs.q.at([b, h, i, c])).collect();
        let dout: Vec<T> = (0..v_dim).map(|c| T::new(self.inputs.dout.at([b, h, i, c]).into())).collect();
        let query = self.head.map(raw.clone(), true);
        let mut dquery = vec![zero; features];
        if config.is_efficient_attention() {
            // φ(q)_f S_f / z_f: the divisor's own gradient waits for all rows.
            for f in 0..features {
                let Some((s, z, _)) = self.column(f) else { continue };
                let phi = query[f].exp();
                for c in order.indices(v_dim) {
                    dquery[f] += phi * s[c] / z * dout[c];
                    self.ds[f][c] += phi * dout[c] / z;
                }
            }
            return self.head.pull(&raw, &query, &dquery, true);
        }
        let keys = if config.mode == LinearMode::Causal { i + 1 } else { self.head.keys.len() };
        let unbounded = config.feature_map.running_max().is_some();
        let before: Vec<_> = (0..features).map(|f| self.before(f)).collect();

        // As forward has them: weights relative to the largest term, the divisor, o.
        let largest = |f: usize| self.head.key_max(f, keys).map(|max| query[f] + max);
        let log_scale = if unbounded { (0..features).filter_map(largest).reduce(Real::max) } else { None };
        let log_scale = log_scale.unwrap_or(zero);
        let pair = |f: usize, key: T| if unbounded { (query[f] + key - log_scale).exp() } else { query[f] * key };
        let mut weights = vec![zero; keys];
        let (mut sum, mut o) = (zero, vec![zero; v_dim]);
        for &f in &self.head.feature_order {
            let Some((s, z, max)) = &before[f] else { continue };
            let weight = pair(f, *max);
            sum += weight * *z;
            o.iter_mut().zip(s).for_each(|(o, s)| *o += weight * *s);
        }
        for j in order.indices(keys) {
            for &f in &self.head.feature_order {
                weights[j] += pair(f, self.head.keys[j][f]);
            }
            sum += weights[j];
            for (c, o) in o.iter_mut().enumerate() {
                *o += weights[j] * self.head.value(j, c);
            }
        }
        let (factor, dw) = match config.normalization {
            Normalization::None => (log_scale.exp(), zero),
            Normalization::Sum { eps } => {
                let divisor = sum + (T::new(f64::from(eps).ln()) - log_scale).exp();
                let mut dot = zero;
                for c in order.indices(v_dim) {
                    dot += dout[c] * (o[c] / divisor);
                }
                (T::new(1.0) / divisor, -dot / divisor)
            }
        };
        let dn: Vec<T> = dout.iter().map(|&d| d * factor).collect();

        // Through the weight of each key, and of the state.
        for j in order.indices(keys) {
            let mut dweight = dw;
            for c in order.indices(v_dim) {
                dweight += dn[c] * self.head.value(j, c);
                self.dvalues[j][c] += weights[j] * dn[c];
            }
            for f in 0..features {
                let key = self.head.keys[j][f];
                let [of_query, of_key] = if unbounded { [pair(f, key); 2] } else { [key, query[f]] };
                dquery[f] += of_query * dweight;
                self.dkeys[j][f] += of_key * dweight;
            }
        }
        for (f, before) in before.iter().enumerate() {
            let Some((s, z, max)) = before else { continue };
            let mut dweight = dw * *z;
            let weight = pair(f, *max);
            for c in order.indices(v_dim) {
                dweight += dn[c] * s[c];
                self.ds[f][c] += weight * dn[c];
            }
            self.dz[f] += weight * dw;
            dquery[f] += if unbounded { weight * dweight } else { dweight };
        }
        self.head.pull(&raw, &query, &dquery, true)
    }

    /// Of Efficient Attention: a key feature's sums of values and of weights over all keys, and its maximum; none where there is none.
    fn column(&self, f: usize) -> Option<(Vec<T>, T, T)> {
        let max = self.head.key_max(f, self.head.keys.len())?;
        let (mut s, mut z) = (vec![T::new(0.0); self.head.v_dim], T::new(0.0));
        for j in self.head.order.indices(self.head.keys.len()) {
            let key = (self.head.keys[j][f] - max).exp();
            z += key;
            s.iter_mut().enumerate().for_each(|(c, s)| *s += key * self.head.value(j, c));
        }
        if let Some((before, before_z, m)) = self.before(f) {
            let factor = (m - max).exp();
            z += factor * before_z;
            s.iter_mut().zip(before).for_each(|(s, before)| *s += factor * before);
        }
        Some((s, z, max))
    }

    /// Of Efficient Attention: from what rows have left in S, to keys, values and the state.
    fn columns(&mut self) {
        for f in 0..self.head.features {
            let Some((s, z, max)) = self.column(f) else { continue };
            let mut dz = T::new(0.0);
            for c in self.head.order.indices(self.head.v_dim) {
                dz += -(self.ds[f][c] * s[c] / z);
            }
            let ds = std::mem::replace(&mut self.ds[f], vec![T::new(0.0); self.head.v_dim]);
            self.spread(f, max, &ds, dz);
        }
    }

    /// From gradients of a feature's sums over all keys, in units of its maximum, to keys, values and the state.
    fn spread(&mut self, f: usize, max: T, ds: &[T], dz: T) {
        let unbounded = self.head.config.feature_map.running_max().is_some();
        for j in 0..self.head.keys.len() {
            let key = if unbounded { (self.head.keys[j][f] - max).exp() } else { self.head.keys[j][f] };
            let mut dkey = dz;
            for c in self.head.order.indices(self.head.v_dim) {
                dkey += ds[c] * self.head.value(j, c);
                self.dvalues[j][c] += key * ds[c];
            }
            self.dkeys[j][f] += if unbounded { key * dkey } else { dkey };
        }
        if let Some((.., m)) = self.before(f) {
            let factor = if unbounded { (m - max).exp() } else { T::new(1.0) };
            self.dz[f] += factor * dz;
            self.ds[f].iter_mut().zip(ds).for_each(|(own, ds)| *own += factor * *ds);
        }
    }

    /// What the gradients of the final state leave in keys, values and the state before.
    fn final_state(&mut self) {
        let [b, h] = self.head.at;
        let (Some(ds), Some(dz)) = (self.inputs.dstate_s, self.inputs.dstate_z) else { return };
        let maxima = (0..self.head.features).map(|f| self.head.key_max(f, self.head.keys.len()));
        let maxima: Vec<Option<T>> = match self.head.config.feature_map.running_max() {
            None => vec![Some(T::new(1.0)); self.head.features],
            Some(RunningMax::PerFeature) => maxima.collect(),
            Some(RunningMax::PerHead) => vec![maxima.flatten().reduce(Real::max); self.head.features],
        };
        for f in self.head.order.indices(self.head.features) {
            let Some(max) = maxima[f] else { continue };
            let ds: Vec<T> = (0..self.head.v_dim).map(|c| T::new(ds.at([b, h, f, c]).into())).collect();
            self.spread(f, max, &ds, T::new(dz.at([b, h, f]).into()));
        }
    }

    fn extend(self, out: &mut HostOutputs<T>) {
        let [b, h] = self.head.at;
        let (dims, v_dim) = (self.shapes.head_dim as usize, self.head.v_dim);
        out.dq.extend(&self.dq);
        for j in 0..self.shapes.kv_len as usize {
            let Some(dkey) = self.dkeys.get(j) else {
                out.dk.extend(vec![T::new(0.0); dims]);
                out.dv.extend(vec![T::new(0.0); v_dim]);
                continue;
            };
            let raw: Vec<f32> = (0..dims).map(|c| self.inputs.k.at([b, h, j, c])).collect();
            out.dk.extend(self.head.pull(&raw, &self.head.keys[j], dkey, false));
            out.dv.extend(&self.dvalues[j]);
        }
        if self.inputs.state_s.is_some() {
            out.dstate_s.extend(self.ds.concat());
            out.dstate_z.extend(&self.dz);
        }
    }
}

impl<T: Real> Head<'_, T> {
    /// From the gradient of a row's features, or of their logarithms, to that of the row.
    fn pull(&self, raw: &[f32], features: &[T], dfeatures: &[T], query: bool) -> Vec<T> {
        let (zero, one) = (T::new(0.0), T::new(1.0));
        let scale = T::new(self.config.feature_map.input_scale(raw.len() as u32));
        let x: Vec<T> = raw.iter().map(|&x| scale * T::new(x.into())).collect();
        let by_dim = |slope: &dyn Fn(T) -> T| x.iter().zip(dfeatures).map(|(&x, &d)| d * slope(x)).collect::<Vec<_>>();
        let sum = |count: usize, term: &dyn Fn(usize) -> T| {
            self.order.indices(count).into_iter().fold(zero, |sum, index| sum + term(index))
        };
        let step = |x| if x > zero { one } else { zero };
        match self.config.feature_map {
            FeatureMap::EluPlusOne => by_dim(&|x| if x < zero { x.exp() } else { one }),
            FeatureMap::Relu | FeatureMap::OnePlusRelu => by_dim(&step),
            FeatureMap::Softmax if query => {
                let total = sum(x.len(), &|f| dfeatures[f]);
                features.iter().zip(dfeatures).map(|(&log, &d)| d - log.exp() * total).collect()
            }
            FeatureMap::Identity | FeatureMap::Exp | FeatureMap::Softmax => dfeatures.to_vec(),
            FeatureMap::Cosine => {
                let norm = sum(x.len(), &|c| x[c] * x[c]).sqrt();
                let (unit, d) = (&features[1..], &dfeatures[1..]);
                let along = if norm > T::new(1e-6) { sum(x.len(), &|c| unit[c] * d[c]) } else { zero };
                unit.iter().zip(d).map(|(&unit, &d)| (d - unit * along) / norm.max(T::new(1e-6))).collect()
            }
            FeatureMap::Taylor2 { .. } => {
                let mut dx = dfeatures[1..=x.len()].to_vec();
                let mut pairs = dfeatures[x.len() + 1..].iter();
                for a in 0..x.len() {
                    for (b, &d) in (a..x.len()).zip(pairs.by_ref()) {
                        // x̃ₐ² / √2, or x̃ₐ x̃ᵦ.
                        let both = if a == b { T::new(0.5f64.sqrt()) } else { one };
                        dx[a] += both * d * x[b];
                        dx[b] += both * d * x[a];
                    }
                }
                dx.into_iter().map(|dx| scale * dx).collect()
            }
            FeatureMap::Favor { .. } => {
                let total = sum(self.features, &|r| dfeatures[r]);
                let w = |r, c| T::new(self.inputs.projection.map_or(0.0, |w| w.at([r, c])).into());
                let dx = |c| scale * (sum(self.features, &|r| dfeatures[r] * w(r, c)) - x[c] * total);
                (0..x.len()).map(dx).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::reference::linear_attention;
    use super::*;
    use crate::HostView;

    fn view<const RANK: usize>(data: &[f32], shape: [usize; RANK]) -> HostView<'_, f32, RANK> {
        HostView::new(data, shape).expect("the shape fits")
    }

    /// Odd multiples of 1/256 between -1 and 1: none at a kink, and a step of 1/1024 away is exact.
    fn numbers(seed: u32, count: usize) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((state >> 24 | 1) as f32 - 128.0) / 128.0
        };
        (0..count).map(|_| next()).collect()
    }

    /// Tensors by number: q, k, v, state_s, state_z; then what they are multiplied with for a loss.
    struct Case {
        config: LinearAttentionConfig,
        sizes: [usize; 7],
        features: usize,
        tensors: [Vec<f32>; 5],
        projection: Option<Vec<f32>>,
        max: Option<Vec<f32>>,
        lens: Option<[u32; 2]>,
        comes_in: [Vec<f32>; 3],
    }

    impl Case {
        fn new(config: LinearAttentionConfig, sizes: [usize; 7]) -> Self {
            let [b, qh, kh, n, m, d, e] = sizes;
            let favor = matches!(config.feature_map, FeatureMap::Favor { .. });
            let features = config.feature_map.features(d as u32, favor.then_some(5)) as usize;
            let [state_s, state_z] =
                [3, 4].map(|seed| numbers(seed, b * kh * features * if seed == 3 { e } else { 1 }));
            let state_z = state_z.into_iter().map(|z| z.abs() + 1.0).collect();
            let counts = [b * qh * n * e, b * kh * features * e, b * kh * features];
            Self {
                config,
                sizes,
                features,
                tensors: [
                    numbers(0, b * qh * n * d),
                    numbers(1, b * kh * m * d),
                    numbers(2, b * kh * m * e),
                    state_s,
                    state_z,
                ],
                projection: favor.then(|| numbers(5, 5 * d)),
                max: config
                    .feature_map
                    .running_max()
                    .map(|max| numbers(6, b * kh * max.count(features as u32) as usize)),
                lens: None,
                comes_in: [7, 8, 9].map(|seed| numbers(seed, counts[seed as usize - 7])),
            }
        }

        fn inputs(&self, state: bool) -> HostInputs<'_> {
            let [b, qh, kh, n, m, d, e] = self.sizes;
            let (f, [q, k, v, s, z]) = (self.features, &self.tensors);
            let [dout, ds, dz] = &self.comes_in;
            let max = self.max.as_ref().map(|max| view(max, [b, kh, max.len() / (b * kh)]));
            HostInputs {
                projection: self.projection.as_ref().map(|w| view(w, [5, d])),
                kv_lens: self.lens.as_ref().map(|lens| HostView::new(&lens[..], [2]).expect("a length each")),
                state_s: state.then(|| view(s, [b, kh, f, e])),
                state_z: state.then(|| view(z, [b, kh, f])),
                state_max: max.filter(|_| state),
                dstate_s: Some(view(ds, [b, kh, f, e])),
                dstate_z: Some(view(dz, [b, kh, f])),
                ..HostInputs::new(
                    view(q, [b, qh, n, d]),
                    view(k, [b, kh, m, d]),
                    view(v, [b, kh, m, e]),
                    view(dout, [b, qh, n, e]),
                )
            }
        }

        /// Outputs times what comes in; the state in units of fixed maxima, as those have no gradient.
        fn loss(&self, state: bool, units: &[f64]) -> f64 {
            let out = linear_attention(&self.config, &self.inputs(state).forward()).expect("a call");
            let per_max = (out.state_z.len() / out.state_max.len().max(1)).max(1);
            let factor = |f: usize| match out.state_max.get(f / per_max) {
                Some(max) if max.is_finite() => (max - units[f / per_max]).exp(),
                _ => 1.0,
            };
            let e = self.sizes[6];
            let [dout, ds, dz] = &self.comes_in;
            let dot = |x: &[f64], d: &[f32], factor: &dyn Fn(usize) -> f64| {
                x.iter().zip(d).enumerate().map(|(i, (x, d))| x * f64::from(*d) * factor(i)).sum::<f64>()
            };
            dot(&out.o, dout, &|_| 1.0) + dot(&out.state_s, ds, &|i| factor(i / e)) + dot(&out.state_z, dz, &factor)
        }

        fn check(mut self, state: bool) {
            let got = linear_attention_backward(&self.config, &self.inputs(state)).expect("a call");
            let units = linear_attention(&self.config, &self.inputs(state).forward()).expect("a call").state_max;
            let gradients = [got.dq, got.dk, got.dv, got.dstate_s, got.dstate_z];
            for (tensor, gradient) in gradients.iter().enumerate().take(if state { 5 } else { 3 }) {
                assert_eq!(gradient.len(), self.tensors[tensor].len());
                for (i, &got) in gradient.iter().enumerate() {
                    let at = self.tensors[tensor][i];
                    let step = 1.0 / 1024.0;
                    let mut loss = |x| {
                        self.tensors[tensor][i] = x;
                        self.loss(state, &units)
                    };
                    let want = (loss(at + step) - loss(at - step)) / (2.0 * f64::from(step));
                    self.tensors[tensor][i] = at;
                    // The error of a central difference is of the step's square.
                    let allowed = 2e-5 * (1.0 + want.abs());
                    let config = &self.config;
                    assert!((got - want).abs() <= allowed, "{config:?}: {tensor} {i}: got {got}, want {want}");
                }
            }
        }
    }

    fn configs() -> impl Iterator<Item = LinearAttentionConfig> {
        let taylor2 = FeatureMap::Taylor2 { scale: Some(0.7) };
        let favor = FeatureMap::Favor { scale: Some(0.5) };
        let by_dim = [FeatureMap::EluPlusOne, FeatureMap::Relu, FeatureMap::OnePlusRelu, FeatureMap::Identity];
        let maps = by_dim.into_iter().chain([FeatureMap::Exp, FeatureMap::Softmax, FeatureMap::Cosine, taylor2, favor]);
        let norms = [Normalization::Sum { eps: 0.25 }, Normalization::None];
        let all = maps.flat_map(move |map| {
            [LinearMode::Full, LinearMode::Causal].into_iter().flat_map(move |mode| {
                norms.map(|norm| LinearAttentionConfig::new().feature_map(map).mode(mode).normalization(norm))
            })
        });
        all.filter(|config| config.check().is_ok())
    }

    #[test]
    fn gradients_are_those_of_finite_differences() {
        for config in configs() {
            let keys = if config.mode == LinearMode::Full { 5 } else { 4 };
            Case::new(config, [1, 2, 1, 4, keys, 2, 3]).check(true);
            Case::new(config, [1, 1, 1, 4, keys, 3, 1]).check(false);
        }
    }

    #[test]
    fn keys_behind_a_length_have_none() {
        for config in configs().filter(|config| config.mode == LinearMode::Full) {
            let mut case = Case::new(config, [2, 1, 1, 2, 4, 2, 2]);
            case.lens = Some([3, 0]);
            let got = linear_attention_backward(&config, &case.inputs(true)).expect("a call");
            for gradient in [&got.dk, &got.dv] {
                assert!(
                    gradient[6..].iter().all(|&x| x == 0.0) && gradient[..6].iter().any(|&x| x != 0.0),
                    "{config:?}"
                );
            }
            case.check(true);
        }
    }

    #[test]
    fn two_tokens_by_hand() {
        // The identity map, unnormalised: o_0 = q_0 k_0 v_0, o_1 = q_1 (k_0 v_0 + k_1 v_1).
        let config = LinearAttentionConfig::new()
            .feature_map(FeatureMap::Identity)
            .normalization(Normalization::None)
            .mode(LinearMode::Causal);
        let shape = [1, 1, 2, 1];
        let (q, k, v, dout) = ([2.0, 3.0], [5.0, 7.0], [11.0, 13.0], [0.5, 2.0]);
        let inputs = HostInputs::new(view(&q, shape), view(&k, shape), view(&v, shape), view(&dout, shape));
        let got = linear_attention_backward(&config, &inputs).expect("a call");
        assert_eq!(got.dq, [0.5 * 5.0 * 11.0, 2.0 * (5.0 * 11.0 + 7.0 * 13.0)]);
        assert_eq!(got.dk, [(0.5 * 2.0 + 2.0 * 3.0) * 11.0, 2.0 * 3.0 * 13.0]);
        assert_eq!(got.dv, [(0.5 * 2.0 + 2.0 * 3.0) * 5.0, 2.0 * 3.0 * 7.0]);
        assert!(got.dstate_s.is_empty() && got.dstate_z.is_empty());
    }

    #[test]
    fn two_calls_that_hand_on_the_state_have_the_gradients_of_one() {
        for config in configs().filter(|config| config.mode == LinearMode::Causal) {
            let whole = Case::new(config, [1, 1, 1, 6, 6, 2, 3]);
            let mut want = linear_attention_backward(&config, &whole.inputs(true)).expect("a call");
            let part = |range: std::ops::Range<usize>| {
                let rows = |tensor: &[f32], dim: usize| tensor[range.start * dim..range.end * dim].to_vec();
                let mut part = Case::new(config, [1, 1, 1, range.len(), range.len(), 2, 3]);
                let [q, k, v, s, z] = &whole.tensors;
                part.tensors = [rows(q, 2), rows(k, 2), rows(v, 3), s.clone(), z.clone()];
                part.comes_in = [rows(&whole.comes_in[0], 3), whole.comes_in[1].clone(), whole.comes_in[2].clone()];
                part
            };
            let (mut first, mut second) = (part(0..2), part(2..6));
            let after = linear_attention(&config, &first.inputs(true).forward()).expect("a call");
            let f32s = |x: &[f64]| x.iter().map(|&x| x as f32).collect::<Vec<_>>();
            [second.tensors[3], second.tensors[4]] = [f32s(&after.state_s), f32s(&after.state_z)];
            second.max = second.max.map(|_| f32s(&after.state_max));
            let later = linear_attention_backward(&config, &second.inputs(true)).expect("a call");
            [first.comes_in[1], first.comes_in[2]] = [f32s(&later.dstate_s), f32s(&later.dstate_z)];
            let got = linear_attention_backward(&config, &first.inputs(true)).expect("a call");
            let both = |a: &[f64], b: &[f64]| [a, b].concat();
            let got = [
                both(&got.dq, &later.dq),
                both(&got.dk, &later.dk),
                both(&got.dv, &later.dv),
                got.dstate_s,
                got.dstate_z,
            ];
            let want = [&mut want.dq, &mut want.dk, &mut want.dv, &mut want.dstate_s, &mut want.dstate_z];
            for (got, want) in got.iter().flatten().zip(want.into_iter().flatten()) {
                // The state went through f32.
                assert!((got - *want).abs() <= 1e-5 * (1.0 + want.abs()), "{config:?}: got {got}, want {want}");
            }
        }
    }
}
