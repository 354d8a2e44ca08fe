//! The CPU twin of linear attention: the weights of all pairs, one by one, as the formula has them.

use super::config::{FeatureMap, LinearAttentionConfig, LinearMode, Normalization, RunningMax};
use super::shapes::LinearAttentionShapes;
use crate::Result;
use crate::reference::{Real, SumOrder, check_row};

pub use super::HostInputs;

/// The whole result.
#[derive(Clone, Debug, PartialEq)]
pub struct HostOutputs<T> {
    /// `[batch, q_heads, q_len, v_dim]`.
    pub o: Vec<T>,
    /// `[batch, kv_heads, features, v_dim]`.
    pub state_s: Vec<T>,
    /// `[batch, kv_heads, features]`.
    pub state_z: Vec<T>,
    /// `[batch, kv_heads, features]`, or 1 for FAVOR+; empty for a bounded map. −∞ where no key was seen.
    pub state_max: Vec<T>,
}

/// Linear attention in f64.
///
/// # Errors
/// As [`HostInputs::shapes`], and for a config out of range.
pub fn linear_attention(config: &LinearAttentionConfig, inputs: &HostInputs) -> Result<HostOutputs<f64>> {
    linear_attention_in(config, inputs, SumOrder::InOrder)
}

/// [`linear_attention`] in another arithmetic or order of summation.
///
/// # Errors
/// As [`linear_attention`].
pub fn linear_attention_in<T: Real>(
    config: &LinearAttentionConfig,
    inputs: &HostInputs,
    order: SumOrder,
) -> Result<HostOutputs<T>> {
    let shapes = inputs.shapes(config)?;
    let group = (shapes.q_heads / shapes.kv_heads) as usize;
    let mut out = HostOutputs { o: Vec::new(), state_s: Vec::new(), state_z: Vec::new(), state_max: Vec::new() };
    for b in 0..shapes.batch as usize {
        for kv_head in 0..shapes.kv_heads as usize {
            let head = Head::new(config, inputs, &shapes, [b, kv_head], order);
            for h in kv_head * group..(kv_head + 1) * group {
                for i in 0..shapes.q_len as usize {
                    out.o.extend(head.row(h, i));
                }
            }
            head.state(&mut out);
        }
    }
    Ok(out)
}

/// All outputs, by name; the maximum where the map has one.
pub(super) fn by_name<T: Real>(
    config: &LinearAttentionConfig,
    inputs: &HostInputs,
    order: SumOrder,
) -> Result<Vec<(&'static str, Vec<T>)>> {
    let HostOutputs { o, state_s, state_z, state_max } = linear_attention_in(config, inputs, order)?;
    let state_max = config.feature_map.running_max().map(|_| ("state_max", state_max));
    Ok([("o", o), ("state_s", state_s), ("state_z", state_z)].into_iter().chain(state_max).collect())
}

/// The row of query `[batch, q_head, position]`.
///
/// # Errors
/// As [`linear_attention`], and where the query is outside the shapes.
pub fn linear_attention_row<T: Real>(
    config: &LinearAttentionConfig,
    inputs: &HostInputs,
    [b, h, i]: [usize; 3],
    order: SumOrder,
) -> Result<Vec<T>> {
    let shapes = inputs.shapes(config)?;
    check_row([b, h, i], ["batch", "q_heads", "q_len"], [shapes.batch, shapes.q_heads, shapes.q_len])?;
    let kv_head = h / (shapes.q_heads / shapes.kv_heads) as usize;
    Ok(Head::new(config, inputs, &shapes, [b, kv_head], order).row(h, i))
}

/// One head of k and v, with what stands for every row.
pub(super) struct Head<'a, T> {
    pub config: &'a LinearAttentionConfig,
    pub inputs: &'a HostInputs<'a>,
    pub at: [usize; 2],
    pub order: SumOrder,
    pub features: usize,
    pub v_dim: usize,
    /// ψ of every visible key; its logarithm where the map is unbounded.
    pub keys: Vec<Vec<T>>,
    pub feature_order: Vec<usize>,
}

impl<'a, T: Real> Head<'a, T> {
    pub fn new(
        config: &'a LinearAttentionConfig,
        inputs: &'a HostInputs<'a>,
        shapes: &LinearAttentionShapes,
        [b, h]: [usize; 2],
        order: SumOrder,
    ) -> Self {
        let len = inputs.kv_lens.map_or(u32::MAX, |lens| lens.at([b])).min(shapes.kv_len) as usize;
        let dims = shapes.head_dim as usize;
        let features = shapes.features(config.feature_map) as usize;
        let mut head = Self {
            config,
            inputs,
            at: [b, h],
            order,
            features,
            v_dim: shapes.v_dim as usize,
            keys: Vec::new(),
            feature_order: order.indices(features),
        };
        head.keys = (0..len).map(|j| head.map((0..dims).map(|c| inputs.k.at([b, h, j, c])).collect(), false)).collect();
        head
    }

    /// φ of a query or ψ of a key; its logarithm where the map is unbounded.
    pub fn map(&self, raw: Vec<f32>, query: bool) -> Vec<T> {
        let (zero, one) = (T::new(0.0), T::new(1.0));
        let scale = T::new(self.config.feature_map.input_scale(raw.len() as u32));
        let x: Vec<T> = raw.into_iter().map(|x| scale * T::new(x.into())).collect();
        let sum = |term: &dyn Fn(usize) -> T| {
            let mut sum = zero;
            for c in self.order.indices(x.len()) {
                sum += term(c);
            }
            sum
        };
        match self.config.feature_map {
            FeatureMap::EluPlusOne => x.iter().map(|&x| if x < zero { x.exp() } else { x + one }).collect(),
            FeatureMap::Relu => x.iter().map(|&x| x.max(zero)).collect(),
            FeatureMap::OnePlusRelu => x.iter().map(|&x| one + x.max(zero)).collect(),
            FeatureMap::Softmax if query => {
                let max = x.iter().copied().fold(x[0], Real::max);
                let log_sum = sum(&|c| (x[c] - max).exp()).ln();
                x.iter().map(|&x| (x - max) - log_sum).collect()
            }
            FeatureMap::Identity | FeatureMap::Exp | FeatureMap::Softmax => x,
            FeatureMap::Cosine => {
                let norm = sum(&|c| x[c] * x[c]).sqrt().max(T::new(1e-6));
                std::iter::once(one).chain(x.iter().map(|&x| x / norm)).collect()
            }
            FeatureMap::Taylor2 { .. } => {
                let mut features = vec![one];
                features.extend(&x);
                for a in 0..x.len() {
                    features.push(x[a] * x[a] * T::new(0.5f64.sqrt()));
                    features.extend((a + 1..x.len()).map(|b| x[a] * x[b]));
                }
                features
            }
            FeatureMap::Favor { .. } => {
                let constant = T::new(0.5) * sum(&|c| x[c] * x[c]) + T::new(0.5 * (self.features as f64).ln());
                let dot = |r| sum(&|c| T::new(self.inputs.projection.map_or(0.0, |w| w.at([r, c])).into()) * x[c]);
                (0..self.features).map(|r| dot(r) - constant).collect()
            }
        }
    }

    pub fn value(&self, j: usize, c: usize) -> T {
        T::new(self.inputs.v.at([self.at[0], self.at[1], j, c]).into())
    }

    /// A feature's maximum in the incoming state; `None` where that has seen no key.
    pub fn incoming_max(&self, f: usize) -> Option<T> {
        let max = self.inputs.state_max?;
        let f = if self.config.feature_map.running_max() == Some(RunningMax::PerHead) { 0 } else { f };
        let max = max.at([self.at[0], self.at[1], f]);
        (max != f32::NEG_INFINITY).then(|| T::new(max.into()))
    }

    /// The maximum of feature f over the incoming state and these keys; `None` where there is neither.
    pub fn key_max(&self, f: usize, keys: usize) -> Option<T> {
        self.keys[..keys].iter().map(|key| key[f]).chain(self.incoming_max(f)).reduce(Real::max)
    }

    /// The row of query i of query head h.
    fn row(&self, h: usize, i: usize) -> Vec<T> {
        let [b, kv_head] = self.at;
        let HostInputs { q, state_s, state_z, .. } = self.inputs;
        let zero = T::new(0.0);
        let query = self.map((0..q.shape()[3]).map(|c| q.at([b, h, i, c])).collect(), true);
        let keys = if self.config.mode == LinearMode::Causal { i + 1 } else { self.keys.len() };
        let unbounded = self.config.feature_map.running_max().is_some();
        let maxima: Vec<Option<T>> =
            if unbounded { (0..self.features).map(|f| self.key_max(f, keys)).collect() } else { Vec::new() };

        // Weights of unbounded maps carry the factor exp(-log_scale), so that the largest term of the row is 1.
        let log_scale = if self.config.is_efficient_attention() {
            zero
        } else {
            let tops = maxima.iter().zip(&query).filter_map(|(max, &a)| max.map(|max| a + max));
            tops.reduce(Real::max).unwrap_or(zero)
        };
        // What each key feature is divided by: its sum over the sequence, for Efficient Attention alone.
        let divisor = |f: usize| {
            let max = maxima[f].unwrap_or(zero);
            let mut sum = zero;
            for j in self.order.indices(keys) {
                sum += (self.keys[j][f] - max).exp();
            }
            if let (Some(z), Some(m)) = (state_z, self.incoming_max(f)) {
                sum += T::new(z.at([b, kv_head, f]).into()) * (m - max).exp();
            }
            (max, sum)
        };
        let divisors: Vec<(T, T)> =
            if self.config.is_efficient_attention() { (0..self.features).map(divisor).collect() } else { Vec::new() };
        // φ(q)_f times a key's ψ(k)_f, or times a state's entry with that maximum.
        let pair = |f: usize, key: T| match (unbounded, divisors.get(f)) {
            (false, _) => query[f] * key,
            (true, None) => (query[f] + key - log_scale).exp(),
            (true, Some(&(max, sum))) => (query[f] + (key - max)).exp() / sum,
        };

        let (mut sum, mut o) = (zero, vec![zero; self.v_dim]);
        if let (Some(s), Some(z)) = (state_s, state_z) {
            for &f in &self.feature_order {
                let Some(max) = (if unbounded { self.incoming_max(f) } else { Some(T::new(1.0)) }) else { continue };
                let weight = pair(f, max);
                sum += weight * T::new(z.at([b, kv_head, f]).into());
                for (c, o) in o.iter_mut().enumerate() {
                    *o += weight * T::new(s.at([b, kv_head, f, c]).into());
                }
            }
        }
        for j in self.order.indices(keys) {
            let mut weight = zero;
            for &f in &self.feature_order {
                weight += pair(f, self.keys[j][f]);
            }
            sum += weight;
            for (c, o) in o.iter_mut().enumerate() {
                *o += weight * self.value(j, c);
            }
        }
        match self.config.normalization {
            Normalization::Sum { eps } => {
                let divisor = sum + (T::new(f64::from(eps).ln()) - log_scale).exp();
                o.iter().map(|&o| o / divisor).collect()
            }
            Normalization::None => o.iter().map(|&o| o * log_scale.exp()).collect(),
        }
    }

    /// The state after the last key, appended to `out`.
    fn state(&self, out: &mut HostOutputs<T>) {
        let [b, h] = self.at;
        let zero = T::new(0.0);
        let running_max = self.config.feature_map.running_max();
        let per_feature: Vec<Option<T>> = match running_max {
            Some(_) => (0..self.features).map(|f| self.key_max(f, self.keys.len())).collect(),
            None => Vec::new(),
        };
        let per_head = per_feature.iter().copied().flatten().reduce(Real::max);
        for f in 0..self.features {
            let max =
                if running_max == Some(RunningMax::PerHead) { per_head } else { *per_feature.get(f).unwrap_or(&None) };
            let relative = |log: T| max.map_or(log, |max| (log - max).exp());
            let (mut z, mut s) = (zero, vec![zero; self.v_dim]);
            if let (Some(state_s), Some(state_z)) = (self.inputs.state_s, self.inputs.state_z) {
                let incoming =
                    if running_max.is_some() { self.incoming_max(f).map(relative) } else { Some(T::new(1.0)) };
                if let Some(factor) = incoming {
                    z += factor * T::new(state_z.at([b, h, f]).into());
                    for (c, s) in s.iter_mut().enumerate() {
                        *s += factor * T::new(state_s.at([b, h, f, c]).into());
                    }
                }
            }
            for j in self.order.indices(self.keys.len()) {
                let key = relative(self.keys[j][f]);
                z += key;
                for (c, s) in s.iter_mut().enumerate() {
                    *s += key * self.value(j, c);
                }
            }
            out.state_s.extend(s);
            out.state_z.push(z);
            if running_max == Some(RunningMax::PerFeature) || (running_max.is_some() && f == 0) {
                out.state_max.push(max.unwrap_or(T::new(f64::NEG_INFINITY)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HostView;

    fn view<const RANK: usize>(data: &[f32], shape: [usize; RANK]) -> HostView<'_, f32, RANK> {
        HostView::new(data, shape).unwrap()
    }

    fn numbers(seed: u32, count: usize) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    fn close(got: &[f64], want: &[f64]) {
        assert_eq!(got.len(), want.len());
        for (g, w) in got.iter().zip(want) {
            assert!((g - w).abs() <= 1e-9 * (1.0 + w.abs()), "got {got:?}, want {want:?}");
        }
    }

    #[test]
    fn two_tokens_by_hand() {
        // relu: φ(q) = [1, 0], [1, 2]; ψ(k) = [0, 1], [3, 1]; v = 2, 4. Row 0 weighs its one key 0, row 1 weighs 2 and 5.
        let (q, k, v) = ([1.0, -1.0, 1.0, 2.0], [-1.0, 1.0, 3.0, 1.0], [2.0, 4.0]);
        let inputs = HostInputs::new(view(&q, [1, 1, 2, 2]), view(&k, [1, 1, 2, 2]), view(&v, [1, 1, 2, 1]));
        let config = LinearAttentionConfig::new()
            .feature_map(FeatureMap::Relu)
            .mode(LinearMode::Causal)
            .normalization(Normalization::Sum { eps: 1.0 });
        let got = linear_attention(&config, &inputs).unwrap();
        close(&got.o, &[0.0, (2.0 * 2.0 + 5.0 * 4.0) / (2.0 + 5.0 + 1.0)]);
        close(&got.state_s, &[12.0, 6.0]);
        close(&got.state_z, &[3.0, 2.0]);
        assert!(got.state_max.is_empty());
    }

    #[test]
    fn the_identity_map_is_q_kt_v() {
        let (q, k, v) = (numbers(1, 6), numbers(2, 10), numbers(3, 5));
        let inputs = HostInputs::new(view(&q, [1, 1, 3, 2]), view(&k, [1, 1, 5, 2]), view(&v, [1, 1, 5, 1]));
        let config = LinearAttentionConfig::new().feature_map(FeatureMap::Identity).normalization(Normalization::None);
        let want: Vec<f64> = (0..3)
            .map(|i| {
                let score = |j: usize| {
                    f64::from(q[2 * i]) * f64::from(k[2 * j]) + f64::from(q[2 * i + 1]) * f64::from(k[2 * j + 1])
                };
                (0..5).map(|j| score(j) * f64::from(v[j])).sum()
            })
            .collect();
        close(&linear_attention(&config, &inputs).unwrap().o, &want);
    }

    #[test]
    fn features_multiply_to_the_similarities_they_stand_for() {
        let (q, k, w) = (numbers(1, 4), numbers(2, 4), numbers(3, 12));
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        let s = 0.7 * dot(&q, &k);
        let favor = |x: &[f32], r: usize| 0.5 * dot(&w[4 * r..4 * r + 4], x) - 0.125 * dot(x, x);
        let cases = [
            (FeatureMap::Taylor2 { scale: Some(0.7) }, 1.0 + s + s * s / 2.0),
            (FeatureMap::Cosine, 1.0 + dot(&q, &k) / (dot(&q, &q) * dot(&k, &k)).sqrt()),
            (FeatureMap::Exp, q.iter().zip(&k).map(|(q, k)| (f64::from(*q) + f64::from(*k)).exp()).sum()),
            (FeatureMap::Favor { scale: Some(0.5) }, (0..3).map(|r| (favor(&q, r) + favor(&k, r)).exp() / 3.0).sum()),
        ];
        for (map, want) in cases {
            let shape = [1, 1, 1, 4];
            let mut inputs = HostInputs::new(view(&q, shape), view(&k, shape), view(&[1.0], [1, 1, 1, 1]));
            inputs.projection = matches!(map, FeatureMap::Favor { .. }).then(|| view(&w, [3, 4]));
            let config = LinearAttentionConfig::new().feature_map(map).normalization(Normalization::None);
            // The scale goes through f32.
            let got = linear_attention(&config, &inputs).unwrap().o[0];
            assert!((got - want).abs() <= 1e-6 * want, "{map:?}: got {got}, want {want}");
        }
    }

    #[test]
    fn a_split_sequence_gives_the_one_shot_result() {
        let (q, k, v) = (numbers(1, 28), numbers(2, 28), numbers(3, 21));
        for map in [FeatureMap::EluPlusOne, FeatureMap::Exp, FeatureMap::Softmax, FeatureMap::Taylor2 { scale: None }] {
            let config = LinearAttentionConfig::new().feature_map(map).mode(LinearMode::Causal);
            let part = |range: std::ops::Range<usize>| {
                let (q, k) = (&q[4 * range.start..4 * range.end], &k[4 * range.start..4 * range.end]);
                let v = &v[3 * range.start..3 * range.end];
                let len = range.len();
                HostInputs::new(view(q, [1, 1, len, 4]), view(k, [1, 1, len, 4]), view(v, [1, 1, len, 3]))
            };
            let whole = linear_attention(&config, &part(0..7)).unwrap();
            let first = linear_attention(&config, &part(0..3)).unwrap();
            let [s, z, max] = [&first.state_s, &first.state_z, &first.state_max]
                .map(|x| x.iter().map(|&x| x as f32).collect::<Vec<_>>());
            let mut second = part(3..7);
            second.state_s = Some(view(&s, [1, 1, z.len(), 3]));
            second.state_z = Some(view(&z, [1, 1, z.len()]));
            second.state_max = (!max.is_empty()).then(|| view(&max, [1, 1, z.len()]));
            let second = linear_attention(&config, &second).unwrap();
            // The state went through f32.
            for (got, want) in first.o.iter().chain(&second.o).zip(&whole.o) {
                assert!((got - want).abs() < 1e-6, "{map:?}: got {got}, want {want}");
            }
        }
    }
}
