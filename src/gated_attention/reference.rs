//! The CPU twin of gated attention: plain loops over the formula.

use super::config::{Divisor, GatedAttentionConfig, GauMode, GauWeights, LinearDivisor, QuadraticDivisor};
use super::shapes::{AffineShapes, GatedAttentionShapes, TensorShapes};
use crate::host::HostView;
use crate::reference::{Real, SumOrder};
use crate::{Causal, Result};

/// The inputs of gated attention in host memory; see [`GatedAttentionInputs`](crate::GatedAttentionInputs) for shapes.
#[derive(Clone, Copy, Debug)]
pub struct HostInputs<'a> {
    /// Queries, unless z is given.
    pub q: Option<HostView<'a, f32, 4>>,
    /// Keys, unless z is given.
    pub k: Option<HostView<'a, f32, 4>>,
    /// What q and k are affine maps of.
    pub z: Option<HostView<'a, f32, 4>>,
    /// Factor of z in q.
    pub gamma_q: Option<HostView<'a, f32, 2>>,
    /// Term of q.
    pub beta_q: Option<HostView<'a, f32, 2>>,
    /// Factor of z in k.
    pub gamma_k: Option<HostView<'a, f32, 2>>,
    /// Term of k.
    pub beta_k: Option<HostView<'a, f32, 2>>,
    /// Values.
    pub v: HostView<'a, f32, 4>,
    /// The gate.
    pub u: Option<HostView<'a, f32, 4>>,
    /// Visible keys per batch.
    pub kv_lens: Option<HostView<'a, u32, 1>>,
    /// Queries of the linear part of mixed chunks, unless z is given.
    pub q_lin: Option<HostView<'a, f32, 4>>,
    /// Keys of the linear part of mixed chunks, unless z is given.
    pub k_lin: Option<HostView<'a, f32, 4>>,
    /// Factor of z in q_lin.
    pub gamma_q_lin: Option<HostView<'a, f32, 2>>,
    /// Term of q_lin.
    pub beta_q_lin: Option<HostView<'a, f32, 2>>,
    /// Factor of z in k_lin.
    pub gamma_k_lin: Option<HostView<'a, f32, 2>>,
    /// Term of k_lin.
    pub beta_k_lin: Option<HostView<'a, f32, 2>>,
}

impl<'a> HostInputs<'a> {
    fn none(v: HostView<'a, f32, 4>) -> Self {
        Self {
            q: None,
            k: None,
            z: None,
            gamma_q: None,
            beta_q: None,
            gamma_k: None,
            beta_k: None,
            v,
            u: None,
            kv_lens: None,
            q_lin: None,
            k_lin: None,
            gamma_q_lin: None,
            beta_q_lin: None,
            gamma_k_lin: None,
            beta_k_lin: None,
        }
    }

    /// Queries, keys and values, and nothing optional.
    #[must_use]
    pub fn new(q: HostView<'a, f32, 4>, k: HostView<'a, f32, 4>, v: HostView<'a, f32, 4>) -> Self {
        Self { q: Some(q), k: Some(k), ..Self::none(v) }
    }

    /// One z, its maps to q and k, and values; nothing optional.
    #[must_use]
    pub fn shared(
        z: HostView<'a, f32, 4>,
        gamma_q: HostView<'a, f32, 2>,
        gamma_k: HostView<'a, f32, 2>,
        v: HostView<'a, f32, 4>,
    ) -> Self {
        Self { z: Some(z), gamma_q: Some(gamma_q), gamma_k: Some(gamma_k), ..Self::none(v) }
    }

    /// The problem's sizes.
    ///
    /// # Errors
    /// As [`GatedAttention::prepare`](crate::GatedAttention::prepare), for what concerns shapes and which are given.
    pub fn shapes(&self, config: &GatedAttentionConfig) -> Result<GatedAttentionShapes> {
        let four = |view: Option<HostView<f32, 4>>| view.map(|view| view.shape_u32());
        let affine = |gamma: Option<HostView<f32, 2>>, beta: Option<HostView<f32, 2>>| AffineShapes {
            gamma: gamma.map(|view| view.shape_u32()),
            beta: beta.map(|view| view.shape_u32()),
        };
        TensorShapes {
            q: four(self.q),
            k: four(self.k),
            z: four(self.z),
            q_lin: four(self.q_lin),
            k_lin: four(self.k_lin),
            affine: [
                affine(self.gamma_q, self.beta_q),
                affine(self.gamma_k, self.beta_k),
                affine(self.gamma_q_lin, self.beta_q_lin),
                affine(self.gamma_k_lin, self.beta_k_lin),
            ],
            v: self.v.shape_u32(),
            u: four(self.u),
            kv_lens: self.kv_lens.map(|view| view.shape_u32()),
            o: None,
        }
        .check(config)
    }
}

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

/// The output of query `[batch, q_head, position]`, v_dim numbers.
///
/// # Errors
/// As [`gated_attention`].
///
/// # Panics
/// If the query is outside the shapes.
pub fn gated_attention_row<T: Real>(
    config: &GatedAttentionConfig,
    inputs: &HostInputs,
    [b, h, i]: [usize; 3],
    order: SumOrder,
) -> Result<Vec<T>> {
    let shapes = inputs.shapes(config)?;
    let row = Row { inputs, shapes, order, at: [b, h, i] };
    let pairs: Vec<(usize, T)> = match config.mode {
        GauMode::Full => row.full(config),
        GauMode::MixedChunk { chunk, quadratic, linear } => {
            row.mixed_chunk(config.causal, chunk as usize, quadratic, linear)
        }
    };
    let kv_head = row.kv_head();
    let mut o = vec![T::new(0.0); shapes.v_dim as usize];
    for index in order.indices(pairs.len()) {
        let (j, weight) = pairs[index];
        for (c, o) in o.iter_mut().enumerate() {
            *o += weight * T::new(inputs.v.at([b, kv_head, j, c]).into());
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
#[derive(Clone, Copy)]
enum Side {
    Q,
    K,
    QLin,
    KLin,
}

struct Row<'a> {
    inputs: &'a HostInputs<'a>,
    shapes: GatedAttentionShapes,
    order: SumOrder,
    at: [usize; 3],
}

impl Row<'_> {
    fn kv_head(&self) -> usize {
        self.at[1] / (self.shapes.q_heads / self.shapes.kv_heads) as usize
    }

    fn visible_len(&self) -> usize {
        let kv_len = self.shapes.kv_len as usize;
        self.inputs.kv_lens.map_or(kv_len, |lens| (lens.at([self.at[0]]) as usize).min(kv_len))
    }

    fn element<T: Real>(&self, side: Side, head: usize, position: usize, c: usize) -> T {
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

    /// The product of this row's query and key j.
    fn dot<T: Real>(&self, query: Side, key: Side, j: usize) -> T {
        let [_, h, i] = self.at;
        let kv_head = self.kv_head();
        let mut dot = T::new(0.0);
        for c in self.order.indices(self.shapes.key_dim as usize) {
            dot += self.element::<T>(query, h, i, c) * self.element::<T>(key, kv_head, j, c);
        }
        dot
    }

    /// Keys and their weights.
    fn full<T: Real>(&self, config: &GatedAttentionConfig) -> Vec<(usize, T)> {
        let q_len = self.shapes.q_len as usize;
        let keys: Vec<usize> = config.visibility().range(self.at[2], q_len, self.visible_len()).collect();
        let dots: Vec<T> = keys.iter().map(|&j| self.dot(Side::Q, Side::K, j)).collect();
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
        let (terms, divisor) = match config.weights {
            GauWeights::SquaredRelu(divisor) => {
                let terms = squared_relu();
                let divisor = match divisor {
                    Divisor::LenDim => n * s,
                    Divisor::FixedLenDim { len } => T::new(len.into()) * s,
                    Divisor::LenSquared => n * n,
                    Divisor::RowSum { eps } => sum(&terms) + T::new(eps.into()),
                };
                (terms, divisor)
            }
            GauWeights::Softmax => {
                let terms = softmax(T::new(1.0) / s.sqrt());
                let divisor = sum(&terms);
                (terms, divisor)
            }
            GauWeights::SoftmaxLogN { base, floor } => {
                let log_n = n.max(T::new(floor.into())).ln();
                let terms = softmax(log_n / (T::new(base.into()).ln() * s.sqrt()));
                let divisor = sum(&terms);
                (terms, divisor)
            }
        };
        keys.into_iter().zip(terms).map(|(j, term)| (j, term / divisor)).collect()
    }

    /// Keys and their weights inside the row's chunk and across chunks; a key of its own chunk may stand twice.
    fn mixed_chunk<T: Real>(
        &self,
        causal: Causal,
        chunk: usize,
        quadratic: QuadraticDivisor,
        linear: LinearDivisor,
    ) -> Vec<(usize, T)> {
        let (i, len) = (self.at[2], self.visible_len());
        let begin = i - i % chunk;
        let causal = causal != Causal::None;

        let divisor = match quadratic {
            QuadraticDivisor::ChunkDim => T::new(chunk as f64) * T::new(self.shapes.key_dim.into()),
            QuadraticDivisor::Fixed(divisor) => T::new(divisor.into()),
        };
        let end = if causal { i + 1 } else { begin + chunk }.min(len);
        let inside = (begin..end).map(|j| (j, squared_relu::<T>(self.dot(Side::Q, Side::K, j)) / divisor));

        let tokens = if causal { begin.min(len) } else { len };
        let divisor = match linear {
            LinearDivisor::Tokens => T::new(tokens as f64),
            LinearDivisor::Chunk => T::new(chunk as f64),
            LinearDivisor::Fixed(divisor) => T::new(divisor.into()),
        };
        let across = (0..tokens).map(|j| (j, self.dot::<T>(Side::QLin, Side::KLin, j) / divisor));
        inside.chain(across).collect()
    }
}

fn squared_relu<T: Real>(x: T) -> T {
    let positive = x.max(T::new(0.0));
    positive * positive
}
