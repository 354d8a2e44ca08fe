//! The CPU twin of gated attention: plain loops over the formula.

use super::config::{Divisor, GatedAttentionConfig, GauMode, GauWeights, LinearDivisor, QuadraticDivisor};
use super::shapes::GatedAttentionShapes;
use crate::reference::{Real, SumOrder, check_row};
use crate::{Causal, Result};

pub use super::HostInputs;

/// The whole result.
#[derive(Clone, Debug, PartialEq)]
pub struct HostOutputs<T> {
    /// `[batch, q_heads, q_len, v_dim]`.
    pub o: Vec<T>,
}

/// Gated attention in f64.
///
/// # Errors
/// As [`HostInputs::shapes`], and for a config out of range.
pub fn gated_attention(config: &GatedAttentionConfig, inputs: &HostInputs) -> Result<HostOutputs<f64>> {
    gated_attention_in(config, inputs, SumOrder::InOrder)
}

/// [`gated_attention`] in another arithmetic or order of summation.
///
/// # Errors
/// As [`gated_attention`].
pub fn gated_attention_in<T: Real>(
    config: &GatedAttentionConfig,
    inputs: &HostInputs,
    order: SumOrder,
) -> Result<HostOutputs<T>> {
    let shapes = inputs.shapes(config)?;
    let mut o = Vec::new();
    for b in 0..shapes.batch as usize {
        for h in 0..shapes.q_heads as usize {
            for i in 0..shapes.q_len as usize {
                o.extend(gated_attention_row::<T>(config, inputs, [b, h, i], order)?);
            }
        }
    }
    Ok(HostOutputs { o })
}

/// The output, by name.
pub(super) fn by_name<T: Real>(
    config: &GatedAttentionConfig,
    inputs: &HostInputs,
    order: SumOrder,
) -> Result<Vec<(&'static str, Vec<T>)>> {
    Ok(vec![("o", gated_attention_in(config, inputs, order)?.o)])
}

/// The output of query `[batch, q_head, position]`, v_dim numbers.
///
/// # Errors
/// As [`gated_attention`], and where the query is outside the shapes.
pub fn gated_attention_row<T: Real>(
    config: &GatedAttentionConfig,
    inputs: &HostInputs,
    [b, h, i]: [usize; 3],
    order: SumOrder,
) -> Result<Vec<T>> {
    let shapes = inputs.shapes(config)?;
    check_row([b, h, i], ["batch", "q_heads", "q_len"], [shapes.batch, shapes.q_heads, shapes.q_len])?;
    let row = Row::new(inputs, shapes, order, [b, h, i]);
    let (pairs, kv_head) = (row.pairs::<T>(config), row.kv_head());
    let mut o = vec![T::new(0.0); shapes.v_dim as usize];
    for index in order.indices(pairs.len()) {
        let Pair { key, weight, .. } = pairs[index];
        for (c, o) in o.iter_mut().enumerate() {
            *o += weight * T::new(inputs.v.at([b, kv_head, key, c]).into());
        }
    }
    if let (Some(u), false) = (inputs.u, pairs.is_empty()) {
        for (c, o) in o.iter_mut().enumerate() {
            *o = *o * T::new(u.at([b, h, i, c]).into());
        }
    }
    Ok(o)
}

/// A tensor of queries or keys: given, or an affine map of z.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Q,
    K,
    QLin,
    KLin,
}

/// A key of a row, and what it weighs.
#[derive(Clone, Copy)]
pub(super) struct Pair<T> {
    pub key: usize,
    pub weight: T,
    /// The derivative of the weight by the product of query and key, but for what all weights of the row have in common.
    pub slope: T,
    /// Whether it is one of the linear part of mixed chunks.
    pub linear: bool,
}

pub(super) struct Row<'a> {
    inputs: &'a HostInputs<'a>,
    shapes: GatedAttentionShapes,
    order: SumOrder,
    /// Of q and k, in that order.
    dims: Vec<usize>,
    at: [usize; 3],
}

impl<'a> Row<'a> {
    pub fn new(inputs: &'a HostInputs<'a>, shapes: GatedAttentionShapes, order: SumOrder, at: [usize; 3]) -> Self {
        Self { inputs, shapes, order, dims: order.indices(shapes.key_dim as usize), at }
    }

    /// The keys that it meets; in mixed chunks one may stand twice.
    pub fn pairs<T: Real>(&self, config: &GatedAttentionConfig) -> Vec<Pair<T>> {
        match config.mode {
            GauMode::Full => self.full(config),
            GauMode::MixedChunk { chunk, quadratic, linear } => {
                self.mixed_chunk(config.causal, chunk as usize, quadratic, linear)
            }
        }
    }

    pub fn kv_head(&self) -> usize {
        self.at[1] / (self.shapes.q_heads / self.shapes.kv_heads) as usize
    }

    fn visible_len(&self) -> usize {
        let kv_len = self.shapes.kv_len as usize;
        self.inputs.kv_lens.map_or(kv_len, |lens| (lens.at([self.at[0]]) as usize).min(kv_len))
    }

    pub fn element<T: Real>(&self, side: Side, head: usize, position: usize, c: usize) -> T {
        let inputs = self.inputs;
        let (given, gamma, beta) = match side {
            Side::Q => (inputs.q, inputs.gamma_q, inputs.beta_q),
            Side::K => (inputs.k, inputs.gamma_k, inputs.beta_k),
            Side::QLin => (inputs.q_lin, inputs.gamma_q_lin, inputs.beta_q_lin),
            Side::KLin => (inputs.k_lin, inputs.gamma_k_lin, inputs.beta_k_lin),
        };
        let index = [self.at[0], head, position, c];
        let real = |value: f32| T::new(value.into());
        if let Some(given) = given {
            return real(given.at(index));
        }
        // The presence of z and γ was checked with the shapes.
        let z = inputs.z.map_or(T::new(0.0), |z| real(z.at(index)));
        let mapped = gamma.map_or(z, |gamma| z * real(gamma.at([head, c])));
        beta.map_or(mapped, |beta| mapped + real(beta.at([head, c])))
    }

    /// The products of this row's query and keys.
    fn dots<T: Real>(&self, query: Side, key: Side, keys: std::ops::Range<usize>) -> Vec<T> {
        let [_, h, i] = self.at;
        let kv_head = self.kv_head();
        let q: Vec<T> = self.dims.iter().map(|&c| self.element(query, h, i, c)).collect();
        let dot = |j| {
            let mut dot = T::new(0.0);
            for (&q, &c) in q.iter().zip(&self.dims) {
                dot += q * self.element::<T>(key, kv_head, j, c);
            }
            dot
        };
        keys.map(dot).collect()
    }

    /// Keys and their weights.
    fn full<T: Real>(&self, config: &GatedAttentionConfig) -> Vec<Pair<T>> {
        let q_len = self.shapes.q_len as usize;
        let keys = config.visibility().range(self.at[2], q_len, self.visible_len());
        let dots: Vec<T> = self.dots(Side::Q, Side::K, keys.clone());
        let (n, s) = (T::new(keys.len() as f64), T::new(self.shapes.key_dim.into()));
        let sum = |terms: &[T]| {
            let mut sum = T::new(0.0);
            self.order.indices(terms.len()).into_iter().for_each(|index| sum += terms[index]);
            sum
        };
        let squared_relu = || dots.iter().map(|&dot| squared_relu(dot)).collect::<Vec<T>>();
        let softmax = |scale: T| {
            let scores: Vec<T> = dots.iter().map(|&dot| scale * dot).collect();
            let max = scores.iter().copied().reduce(Real::max).unwrap_or(T::new(0.0));
            scores.into_iter().map(|score| (score - max).exp()).collect::<Vec<T>>()
        };
        // Of a softmax also its scale.
        let (terms, divisor, scale) = match config.weights {
            GauWeights::SquaredRelu(divisor) => {
                let terms = squared_relu();
                let divisor = match divisor {
                    Divisor::LenDim => n * s,
                    Divisor::FixedLenDim { len } => T::new(len.into()) * s,
                    Divisor::LenSquared => n * n,
                    Divisor::RowSum { eps } => sum(&terms) + T::new(eps.into()),
                };
                (terms, divisor, None)
            }
            GauWeights::Softmax => {
                let scale = T::new(1.0) / s.sqrt();
                let terms = softmax(scale);
                let divisor = sum(&terms);
                (terms, divisor, Some(scale))
            }
            GauWeights::SoftmaxLogN { base, floor } => {
                let log_n = n.max(T::new(floor.into())).ln();
                let scale = log_n / (T::new(base.into()).ln() * s.sqrt());
                let terms = softmax(scale);
                let divisor = sum(&terms);
                (terms, divisor, Some(scale))
            }
        };
        let pairs = keys.zip(terms).zip(&dots);
        pairs
            .map(|((key, term), &dot)| {
                let weight = term / divisor;
                let slope = scale.map_or(slope_of_squared_relu(dot) / divisor, |scale| scale * weight);
                Pair { key, weight, slope, linear: false }
            })
            .collect()
    }

    /// Keys and their weights inside the row's chunk and across chunks; a key of its own chunk may stand twice.
    fn mixed_chunk<T: Real>(
        &self,
        causal: Causal,
        chunk: usize,
        quadratic: QuadraticDivisor,
        linear: LinearDivisor,
    ) -> Vec<Pair<T>> {
        let (i, len) = (self.at[2], self.visible_len());
        let begin = i - i % chunk;
        let causal = causal != Causal::None;

        let divisor = match quadratic {
            QuadraticDivisor::ChunkDim => T::new(chunk as f64) * T::new(self.shapes.key_dim.into()),
            QuadraticDivisor::Fixed(divisor) => T::new(divisor.into()),
        };
        let end = if causal { i + 1 } else { begin + chunk }.min(len);
        let dots = self.dots::<T>(Side::Q, Side::K, begin..end.max(begin));
        let inside = (begin..end).zip(dots).map(|(key, dot)| {
            let (weight, slope) = (squared_relu(dot) / divisor, slope_of_squared_relu(dot) / divisor);
            Pair { key, weight, slope, linear: false }
        });

        let tokens = if causal { begin.min(len) } else { len };
        let linear = match linear {
            LinearDivisor::Tokens => T::new(tokens as f64),
            LinearDivisor::Chunk => T::new(chunk as f64),
            LinearDivisor::Fixed(divisor) => T::new(divisor.into()),
        };
        let dots = self.dots::<T>(Side::QLin, Side::KLin, 0..tokens);
        let across = (0..tokens).zip(dots);
        let across =
            across.map(|(key, dot)| Pair { key, weight: dot / linear, slope: T::new(1.0) / linear, linear: true });
        inside.chain(across).collect()
    }
}

fn squared_relu<T: Real>(x: T) -> T {
    let positive = x.max(T::new(0.0));
    positive * positive
}

fn slope_of_squared_relu<T: Real>(x: T) -> T {
    T::new(2.0) * x.max(T::new(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HostView;

    fn view<const RANK: usize>(data: &[f32], shape: [usize; RANK]) -> HostView<'_, f32, RANK> {
        HostView::new(data, shape).expect("the shape fits the data")
    }

    fn numbers(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    fn assert_close(a: &[f64], b: &[f64]) {
        assert_eq!(a.len(), b.len());
        for (index, (a, b)) in a.iter().zip(b).enumerate() {
            assert!((a - b).abs() <= 1e-12 * (1.0 + b.abs()), "{index}: {a} and {b}");
        }
    }

    const SQUARED_RELU: [Divisor; 4] =
        [Divisor::LenDim, Divisor::FixedLenDim { len: 512 }, Divisor::LenSquared, Divisor::RowSum { eps: 1e-6 }];

    fn run(config: GatedAttentionConfig, inputs: &HostInputs) -> Vec<f64> {
        gated_attention(&config, inputs).expect("the inputs fit together").o
    }

    fn with(divisor: Divisor) -> GatedAttentionConfig {
        GatedAttentionConfig::new().weights(GauWeights::SquaredRelu(divisor))
    }

    /// q = (1, 2), k = (3, 1), (-4, 1), (0, 2): q·k = 5, -2, 4, so r = 25, 0, 16.
    #[test]
    fn a_case_by_hand() {
        let (q, k, v) = ([1.0, 2.0], [3.0, 1.0, -4.0, 1.0, 0.0, 2.0], [1.0, 100.0, 2.0]);
        let shapes = [[1, 1, 1, 2], [1, 1, 3, 2], [1, 1, 3, 1]];
        let mut inputs = HostInputs::new(view(&q, shapes[0]), view(&k, shapes[1]), view(&v, shapes[2]));
        let sum = 25.0 * 1.0 + 16.0 * 2.0;
        assert_close(&run(with(Divisor::LenDim), &inputs), &[sum / 6.0]);
        assert_close(&run(with(Divisor::FixedLenDim { len: 10 }), &inputs), &[sum / 20.0]);
        assert_close(&run(with(Divisor::LenSquared), &inputs), &[sum / 9.0]);
        assert_close(&run(with(Divisor::RowSum { eps: 0.5 }), &inputs), &[sum / 41.5]);
        let u = [-2.0];
        inputs.u = Some(view(&u, [1, 1, 1, 1]));
        assert_close(&run(with(Divisor::LenDim), &inputs), &[-2.0 * sum / 6.0]);
        // Two of the keys: n = 2.
        inputs.kv_lens = Some(HostView::new(&[2], [1]).unwrap());
        assert_close(&run(with(Divisor::LenDim), &inputs), &[-2.0 * 25.0 / 4.0]);
    }

    /// z = 1, -1, 2, 3; γ and β as below. Chunks of two tokens, v = 1, 10, 100, 1000.
    #[test]
    fn mixed_chunks_by_hand() {
        let (z, v) = ([1.0, -1.0, 2.0, 3.0], [1.0, 10.0, 100.0, 1000.0]);
        let one = |x: &'static [f32]| Some(view(x, [1, 1]));
        let mut inputs = HostInputs::shared(
            view(&z, [1, 1, 4, 1]),
            view(&[1.0], [1, 1]),
            view(&[2.0], [1, 1]),
            view(&v, [1, 1, 4, 1]),
        );
        inputs.gamma_q_lin = one(&[3.0]);
        inputs.beta_q_lin = one(&[1.0]);
        inputs.gamma_k_lin = one(&[1.0]);
        inputs.beta_k_lin = one(&[-1.0]);
        // q = z, k = 2z, q_lin = 3z + 1 = 4, -2, 7, 10, k_lin = z - 1 = 0, -2, 1, 2; divisors c·s = 2 and tokens.
        let mode = |linear| GauMode::MixedChunk { chunk: 2, quadratic: QuadraticDivisor::ChunkDim, linear };
        let causal = GatedAttentionConfig::new().causal(Causal::TopLeft);
        let first = -20.0; // Σ k_lin v over the first chunk
        let want = [
            4.0 / 2.0,
            40.0 / 2.0,
            64.0 * 100.0 / 2.0 + 7.0 * first / 2.0,
            (144.0 * 100.0 + 324.0 * 1000.0) / 2.0 + 10.0 * first / 2.0,
        ];
        assert_close(&run(causal.mode(mode(LinearDivisor::Tokens)), &inputs), &want);
        let all = first + 100.0 + 2000.0;
        let full = [
            4.0 / 2.0 + 4.0 * all / 4.0,
            40.0 / 2.0 - 2.0 * all / 4.0,
            (64.0 * 100.0 + 144.0 * 1000.0) / 2.0 + 7.0 * all / 4.0,
            (144.0 * 100.0 + 324.0 * 1000.0) / 2.0 + 10.0 * all / 4.0,
        ];
        let config = GatedAttentionConfig::new();
        assert_close(&run(config.mode(mode(LinearDivisor::Tokens)), &inputs), &full);
        assert_close(&run(config.mode(mode(LinearDivisor::Fixed(4.0))), &inputs), &full);
        // Three of the tokens: the last is hidden from all.
        inputs.kv_lens = Some(HostView::new(&[3], [1]).unwrap());
        let o = run(config.mode(mode(LinearDivisor::Chunk)), &inputs);
        assert_close(&o[..1], &[4.0 / 2.0 + 4.0 * 80.0 / 2.0]);
        assert_close(&o[2..3], &[64.0 * 100.0 / 2.0 + 7.0 * 80.0 / 2.0]);
    }

    #[test]
    fn len_squared_is_relu_of_the_score_over_n_squared() {
        let (q, k, v) = (numbers(6 * 4, 1), numbers(6 * 4, 2), numbers(6 * 3, 3));
        let inputs = HostInputs::new(view(&q, [1, 1, 6, 4]), view(&k, [1, 1, 6, 4]), view(&v, [1, 1, 6, 3]));
        let o = run(with(Divisor::LenSquared), &inputs);
        for i in 0..6 {
            for c in 0..3 {
                let term = |j: usize| {
                    let dot: f64 = (0..4).map(|d| f64::from(q[4 * i + d]) * f64::from(k[4 * j + d])).sum();
                    (dot / 6.0).max(0.0).powi(2) * f64::from(v[3 * j + c])
                };
                assert_close(&o[3 * i + c..=3 * i + c], &[(0..6).map(term).sum()]);
            }
        }
    }

    #[test]
    fn one_key_is_its_value_times_the_squared_score_over_s() {
        let (q, k, v) = ([1.0, 2.0, -0.5, 0.25], [0.5, 1.0, 1.0, 4.0], [3.0]);
        let inputs = HostInputs::new(view(&q, [1, 1, 1, 4]), view(&k, [1, 1, 1, 4]), view(&v, [1, 1, 1, 1]));
        assert_close(&run(with(Divisor::LenDim), &inputs), &[3.0 * 3.0 * 3.0 / 4.0]);
        assert_close(&run(with(Divisor::LenSquared), &inputs), &[27.0]);
        assert_close(&run(GatedAttentionConfig::new().weights(GauWeights::Softmax), &inputs), &[3.0]);
    }

    #[test]
    fn a_row_sum_cancels_the_scale_of_the_queries_and_makes_weights_add_up_to_one() {
        let (q, k, v) = (numbers(8 * 4, 1), numbers(8 * 4, 2), numbers(8 * 2, 3));
        let doubled: Vec<f32> = q.iter().map(|x| 2.0 * x).collect();
        let inputs = |q, v| HostInputs::new(view(q, [1, 1, 8, 4]), view(&k, [1, 1, 8, 4]), view(v, [1, 1, 8, 2]));
        let config = with(Divisor::RowSum { eps: 1e-30 });
        assert_close(&run(config, &inputs(&doubled, &v)), &run(config, &inputs(&q, &v)));
        assert_close(&run(config, &inputs(&q, &[1.0; 16])), &[1.0; 16]);
    }

    #[test]
    fn softmax_weights_are_those_of_softmax_attention() {
        use crate::attention::reference as softmax;
        let (q, k, v) = (numbers(7 * 4, 1), numbers(9 * 4, 2), numbers(9 * 3, 3));
        let [q, k, v] = [view(&q, [1, 1, 7, 4]), view(&k, [1, 1, 9, 4]), view(&v, [1, 1, 9, 3])];
        let pairs = [
            (GauWeights::Softmax, crate::Scale::InvSqrtDim),
            (GauWeights::SoftmaxLogN { base: 20.0, floor: 3 }, crate::Scale::LogN { base: 20.0, floor: 3 }),
        ];
        for (weights, scale) in pairs {
            for causal in [Causal::None, Causal::BottomRight, Causal::Offset(-2)] {
                let config = GatedAttentionConfig::new().weights(weights).causal(causal).window(Some(4), None);
                let same = crate::AttentionConfig::new().scale(scale).causal(causal).window(Some(4), None);
                let want = softmax::attention(&same, &softmax::HostInputs::new(q, k, v)).unwrap().o;
                assert_close(&run(config, &HostInputs::new(q, k, v)), &want);
            }
        }
    }

    #[test]
    fn a_gate_of_one_and_maps_of_one_change_nothing() {
        let (z, v) = (numbers(2 * 6 * 4, 1), numbers(2 * 6 * 3, 2));
        let (ones, zeros, gate) = ([1.0; 8], [0.0; 8], [1.0; 36]);
        let (z, v) = (view(&z, [1, 2, 6, 4]), view(&v, [1, 2, 6, 3]));
        let [one, zero] = [view(&ones, [2, 4]), view(&zeros, [2, 4])];
        let mut mapped = HostInputs::shared(z, one, one, v);
        mapped.beta_q = Some(zero);
        mapped.beta_k = Some(zero);
        mapped.u = Some(view(&gate, [1, 2, 6, 3]));
        for divisor in SQUARED_RELU {
            assert_eq!(run(with(divisor), &mapped), run(with(divisor), &HostInputs::new(z, z, v)));
        }
    }

    #[test]
    fn one_chunk_without_its_linear_part_is_full_attention() {
        let (q, k, v, zeros) = (numbers(6 * 4, 1), numbers(6 * 4, 2), numbers(6 * 3, 3), [0.0; 24]);
        let [q, k, zero] = [&q[..], &k, &zeros].map(|data| view(data, [1, 1, 6, 4]));
        let full = HostInputs::new(q, k, view(&v, [1, 1, 6, 3]));
        let mut mixed = full;
        (mixed.q_lin, mixed.k_lin) = (Some(zero), Some(k));
        for causal in [Causal::None, Causal::TopLeft] {
            // Chunks of 8 tokens, one of which holds all 6: c·s is N·s for N = 8.
            let mode =
                GauMode::MixedChunk { chunk: 8, quadratic: QuadraticDivisor::ChunkDim, linear: LinearDivisor::Tokens };
            let config = GatedAttentionConfig::new().causal(causal).mode(mode);
            assert_close(&run(config, &mixed), &run(with(Divisor::FixedLenDim { len: 8 }).causal(causal), &full));
            // Causal, one chunk has nothing before it whatever q_lin is.
            mixed.q_lin = Some(q);
            let same = run(config, &mixed) == run(config, &HostInputs { q_lin: Some(zero), ..mixed });
            assert_eq!(same, causal == Causal::TopLeft);
            mixed.q_lin = Some(zero);
        }
    }
}
