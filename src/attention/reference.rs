//! The CPU twin of softmax attention: plain loops over the formula.

use super::{AttentionConfig, AttentionShapes};
use crate::reference::{Real, SumOrder, check_row};
use crate::{Result, Scale};

pub use super::HostInputs;

/// A biased score below this counts as this: masks made of the lowest float still leave a row a softmax.
pub const LOWEST_SCORE: f64 = -1.0e38;

/// One row of softmax attention.
#[derive(Clone, Debug, PartialEq)]
pub struct Row<T> {
    /// The output, v_dim numbers.
    pub o: Vec<T>,
    /// Natural-log sum of the exponentials of the row's scores; −∞ if it sees no key.
    pub lse: T,
    /// −Σ p log p in nats; 0 if it sees no key.
    pub entropy: T,
}

/// The whole result, rows in the order of `[batch, q_heads, q_len]`.
#[derive(Clone, Debug, PartialEq)]
pub struct HostOutputs<T> {
    /// `[batch, q_heads, q_len, v_dim]`.
    pub o: Vec<T>,
    /// `[batch, q_heads, q_len]`.
    pub lse: Vec<T>,
    /// `[batch, q_heads, q_len]`.
    pub entropy: Vec<T>,
}

/// Softmax attention in f64.
///
/// # Errors
/// As [`HostInputs::shapes`], and for a config out of range.
pub fn attention(config: &AttentionConfig, inputs: &HostInputs) -> Result<HostOutputs<f64>> {
    attention_in(config, inputs, SumOrder::InOrder)
}

/// [`attention`] in another arithmetic or order of summation.
///
/// # Errors
/// As [`attention`].
pub fn attention_in<T: Real>(config: &AttentionConfig, inputs: &HostInputs, order: SumOrder) -> Result<HostOutputs<T>> {
    let shapes = inputs.shapes(config)?;
    let mut out = HostOutputs { o: Vec::new(), lse: Vec::new(), entropy: Vec::new() };
    for b in 0..shapes.batch as usize {
        for h in 0..shapes.q_heads as usize {
            for i in 0..shapes.q_len as usize {
                let row = attention_row(config, inputs, [b, h, i], order)?;
                out.o.extend(row.o);
                out.lse.push(row.lse);
                out.entropy.push(row.entropy);
            }
        }
    }
    Ok(out)
}

/// All outputs, by name.
pub(super) fn by_name<T: Real>(
    config: &AttentionConfig,
    inputs: &HostInputs,
    order: SumOrder,
) -> Result<Vec<(&'static str, Vec<T>)>> {
    let HostOutputs { o, lse, entropy } = attention_in(config, inputs, order)?;
    Ok(vec![("o", o), ("lse", lse), ("entropy", entropy)])
}

/// The row of query `[batch, q_head, position]`.
///
/// # Errors
/// As [`attention`], and where the query is outside the shapes.
pub fn attention_row<T: Real>(
    config: &AttentionConfig,
    inputs: &HostInputs,
    [b, h, i]: [usize; 3],
    order: SumOrder,
) -> Result<Row<T>> {
    let shapes = inputs.shapes(config)?;
    check_row([b, h, i], ["batch", "q_heads", "q_len"], [shapes.batch, shapes.q_heads, shapes.q_len])?;
    let ScoredRow::<T> { keys, scores, .. } = ScoredRow::new(config, &shapes, inputs, [b, h, i], order);
    let kv_head = h / (shapes.q_heads / shapes.kv_heads) as usize;

    // Softmax.
    let mut o = vec![T::new(0.0); shapes.v_dim as usize];
    let Some(max) = scores.iter().copied().reduce(Real::max) else {
        return Ok(Row { o, lse: T::new(f64::NEG_INFINITY), entropy: T::new(0.0) });
    };
    let (mut sum, mut weighted) = (T::new(0.0), T::new(0.0));
    for index in order.indices(keys.len()) {
        let weight = (scores[index] - max).exp();
        sum += weight;
        weighted += weight * (scores[index] - max);
        for (c, o) in o.iter_mut().enumerate() {
            *o += weight * T::new(inputs.v.at([b, kv_head, keys[index], c]).into());
        }
    }
    for o in &mut o {
        *o = *o / sum;
    }
    Ok(Row { o, lse: max + sum.ln(), entropy: sum.ln() - weighted / sum })
}

/// The scores of a row, of the keys that it sees.
pub(super) struct ScoredRow<T> {
    pub keys: Vec<usize>,
    /// How many there are for the scale, which counts what a bias hides.
    pub n: usize,
    pub scale: T,
    /// q·k.
    pub dots: Vec<T>,
    /// Behind scale, softcap and bias.
    pub scores: Vec<T>,
    /// The derivative of the score by what the softcap takes.
    pub slopes: Vec<T>,
    /// Whether the score is that of scale and bias, and not [`LOWEST_SCORE`].
    pub moves: Vec<bool>,
}

impl<T: Real> ScoredRow<T> {
    pub fn new(
        config: &AttentionConfig,
        shapes: &AttentionShapes,
        inputs: &HostInputs,
        [b, h, i]: [usize; 3],
        order: SumOrder,
    ) -> Self {
        let HostInputs { q, k, .. } = inputs;
        let (q_len, kv_len) = (shapes.q_len as usize, shapes.kv_len as usize);
        let kv_head = h / (shapes.q_heads / shapes.kv_heads) as usize;
        let real = |value: f32| T::new(value.into());

        // The keys the row sees: by position, then by mask. Their number is the n of log n.
        let len = inputs.kv_lens.map_or(kv_len, |lens| (lens.at([b]) as usize).min(kv_len));
        let visible = |j: &usize| inputs.mask.is_none_or(|mask| mask.at([b, h, i, *j]) != 0);
        let mut keys: Vec<usize> = config.visibility().range(i, q_len, len).filter(visible).collect();
        let n = keys.len();
        let scale = match inputs.row_scale {
            Some(scales) if config.scale == Scale::PerRow => real(scales.at([b, h, i])),
            _ => T::new(config.scale.terms(shapes.head_dim).at(n)),
        };
        // A bias of minus infinity hides its key, but counts it in n.
        keys.retain(|&j| inputs.bias.is_none_or(|bias| bias.at([b, h, i, j]) != f32::NEG_INFINITY));

        // Scale, softcap, bias.
        let dims = order.indices(shapes.head_dim as usize);
        let mut row = Self { n, scale, dots: vec![], scores: vec![], slopes: vec![], moves: vec![], keys };
        for &j in &row.keys {
            let mut dot = T::new(0.0);
            for &c in &dims {
                dot += real(q.at([b, h, i, c])) * real(k.at([b, kv_head, j, c]));
            }
            let (mut s, mut slope) = (scale * dot, T::new(1.0));
            if let Some(cap) = config.softcap {
                let t = (s / real(cap)).tanh();
                (s, slope) = (real(cap) * t, (slope - t) * (slope + t));
            }
            let biased = inputs.bias.map(|bias| s + real(bias.at([b, h, i, j])));
            let score = biased.map_or(s, |biased| biased.max(T::new(LOWEST_SCORE)));
            row.moves.push(biased.is_none() || score != T::new(LOWEST_SCORE));
            row.dots.push(dot);
            row.scores.push(score);
            row.slopes.push(slope);
        }
        row
    }
}
