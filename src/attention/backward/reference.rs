//! The CPU twin of the backward pass: plain loops over the formula.

use super::super::reference::{HostInputs as ForwardInputs, ScoredRow, attention_row};
use super::super::{AttentionConfig, Scale};
use super::AttentionBackwardShapes;
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
    /// As `bias`; empty if there is none.
    pub dbias: Vec<T>,
    /// As `row_scale`; empty if there is none.
    pub drow_scale: Vec<T>,
    /// `[q_heads]`; empty where rows have their own scale.
    pub dscale: Vec<T>,
}

/// The gradients in f64.
///
/// # Errors
/// As [`HostInputs::shapes`], and for a config out of range.
pub fn attention_backward(config: &AttentionConfig, inputs: &HostInputs) -> Result<HostOutputs<f64>> {
    attention_backward_in(config, inputs, SumOrder::InOrder)
}

/// [`attention_backward`] in another arithmetic or order of summation.
///
/// # Errors
/// As [`attention_backward`].
pub fn attention_backward_in<T: Real>(
    config: &AttentionConfig,
    inputs: &HostInputs,
    order: SumOrder,
) -> Result<HostOutputs<T>> {
    let shapes = inputs.shapes(config)?;
    let forward = inputs.forward(&shapes);
    let zeros = |extents: [u32; 4]| vec![T::new(0.0); extents.iter().map(|&extent| extent as usize).product()];
    let AttentionBackwardShapes { batch, q_heads, kv_heads, q_len, kv_len, head_dim, v_dim, .. } = shapes;
    let bias = Repeated::new([shapes.bias_batches, shapes.bias_heads, shapes.bias_rows], kv_len);
    let row_scale = Repeated::new([shapes.scale_batches, shapes.scale_heads, shapes.scale_rows], 1);
    let mut out = HostOutputs {
        dq: zeros([batch, q_heads, q_len, head_dim]),
        dk: zeros([batch, kv_heads, kv_len, head_dim]),
        dv: zeros([batch, kv_heads, kv_len, v_dim]),
        dbias: zeros(bias.extents()),
        drow_scale: zeros(row_scale.extents()),
        dscale: zeros([if config.scale == Scale::PerRow { 0 } else { q_heads }, 1, 1, 1]),
    };
    let slope = config.scale.slope(head_dim);
    let [heads, rows, dims, columns] = [q_heads, q_len, head_dim, v_dim].map(|extent| extent as usize);
    // What is summed over rows is summed in an order of its own.
    for index in order.indices(batch as usize * heads * rows) {
        let [b, h, i] = [index / rows / heads, index / rows % heads, index % rows];
        let kv_head = h / (q_heads / kv_heads) as usize;
        let kv_row = |j: usize| (b * kv_heads as usize + kv_head) * kv_len as usize + j;
        let row = Row::<T>::new(config, inputs, (&shapes, &forward), [b, h, i], order)?;
        let mut along_keys = vec![T::new(0.0); dims];
        let mut of_scale = T::new(0.0);
        for at in order.indices(row.scored.keys.len()) {
            let j = row.scored.keys[at];
            let (p, ds) = (row.p[at], row.ds[at]);
            if let Some(dbias) = out.dbias.get_mut(bias.at([b, h, i], j)) {
                *dbias += ds;
            }
            let dx = ds * row.scored.slopes[at];
            of_scale += dx * row.scored.dots[at];
            for (c, sum) in along_keys.iter_mut().enumerate() {
                *sum += dx * T::new(inputs.k.at([b, kv_head, j, c]).into());
                out.dk[kv_row(j) * dims + c] += dx * row.scored.scale * T::new(inputs.q.at([b, h, i, c]).into());
            }
            if let Some(dout) = inputs.dout {
                for c in 0..columns {
                    out.dv[kv_row(j) * columns + c] += p * T::new(dout.at([b, h, i, c]).into());
                }
            }
        }
        if !row.scored.keys.is_empty() {
            for (c, sum) in along_keys.into_iter().enumerate() {
                out.dq[index * dims + c] = row.scored.scale * sum;
            }
        }
        if let Some(drow_scale) = out.drow_scale.get_mut(row_scale.at([b, h, i], 0)) {
            *drow_scale += of_scale;
        }
        if let Some(dscale) = out.dscale.get_mut(h) {
            *dscale += T::new(slope.at(row.scored.n)) * of_scale;
        }
    }
    Ok(out)
}

/// A row's weights, and the gradients of its scores behind bias and softcap.
struct Row<T> {
    scored: ScoredRow<T>,
    p: Vec<T>,
    ds: Vec<T>,
}

impl<T: Real> Row<T> {
    fn new(
        config: &AttentionConfig,
        inputs: &HostInputs,
        (shapes, forward): (&AttentionBackwardShapes, &ForwardInputs),
        [b, h, i]: [usize; 3],
        order: SumOrder,
    ) -> Result<Self> {
        let real = |value: f32| T::new(value.into());
        let scored = ScoredRow::<T>::new(config, &shapes.forward(), forward, [b, h, i], order);
        // Forward has summed, and rounded, in an order of its own.
        let saved = attention_row::<T>(config, forward, [b, h, i], order.of_another())?;
        let kv_head = h / (shapes.q_heads / shapes.kv_heads) as usize;
        let columns = order.indices(shapes.v_dim as usize);
        let [dlse, dentropy] = [inputs.dlse, inputs.dentropy].map(|d| d.map_or(T::new(0.0), |d| real(d.at([b, h, i]))));
        let mut delta = T::new(0.0);
        let mut dp = vec![T::new(0.0); scored.keys.len()];
        if let Some(dout) = inputs.dout {
            for &c in &columns {
                let d = real(dout.at([b, h, i, c]));
                delta += d * saved.o[c];
                for (dp, &j) in dp.iter_mut().zip(&scored.keys) {
                    *dp += d * real(inputs.v.at([b, kv_head, j, c]));
                }
            }
        }
        delta = delta - dlse;
        let (mut p, mut ds) = (Vec::with_capacity(dp.len()), Vec::with_capacity(dp.len()));
        for (at, dp) in dp.into_iter().enumerate() {
            let log_p = scored.scores[at] - saved.lse;
            let weight = log_p.exp();
            // p log p is 0 where p is.
            let of_entropy = if weight == T::new(0.0) { weight } else { dentropy * weight * (log_p + saved.entropy) };
            p.push(weight);
            ds.push(if scored.moves[at] { weight * (dp - delta) - of_entropy } else { T::new(0.0) });
        }
        Ok(Self { scored, p, ds })
    }
}

/// A tensor some of whose axes are 1 and stand for all.
struct Repeated([usize; 4]);

impl Repeated {
    fn new(extents: [Option<u32>; 3], columns: u32) -> Self {
        let [batches, heads, rows] = extents.map(|extent| extent.unwrap_or(0) as usize);
        Self([batches, heads, rows, columns as usize])
    }

    fn extents(&self) -> [u32; 4] {
        self.0.map(|extent| extent as u32)
    }

    /// Where the number of a pair of row and column stands; past the end where there is none.
    fn at(&self, row: [usize; 3], column: usize) -> usize {
        let [_, heads, rows, columns] = self.0;
        let [b, h, i] = std::array::from_fn(|axis| row[axis].min(self.0[axis].wrapping_sub(1)));
        if self.0.contains(&0) { usize::MAX } else { ((b * heads + h) * rows + i) * columns + column }
    }
}

impl<'a> HostInputs<'a> {
    /// The inputs of forward.
    fn forward(&self, shapes: &AttentionBackwardShapes) -> ForwardInputs<'a> {
        let [batch, heads, rows, keys] =
            [shapes.batch, shapes.q_heads, shapes.q_len, shapes.kv_len].map(|extent| extent as usize);
        let Self { q, k, v, kv_lens, mask, .. } = *self;
        ForwardInputs {
            kv_lens,
            mask,
            bias: self.bias.map(|bias| bias.broadcast_to([batch, heads, rows, keys])),
            row_scale: self.row_scale.map(|scale| scale.broadcast_to([batch, heads, rows])),
            ..ForwardInputs::new(q, k, v)
        }
    }
}

/// All outputs, by name.
pub(super) fn by_name<T: Real>(
    config: &AttentionConfig,
    inputs: &HostInputs,
    order: SumOrder,
) -> Result<Vec<(&'static str, Vec<T>)>> {
    let HostOutputs { dq, dk, dv, dbias, drow_scale, dscale } = attention_backward_in(config, inputs, order)?;
    let per_row = config.scale == Scale::PerRow;
    let dbias = inputs.bias.is_some().then_some(("dbias", dbias));
    let of_scale = if per_row { ("drow_scale", drow_scale) } else { ("dscale", dscale) };
    Ok([("dq", dq), ("dk", dk), ("dv", dv), of_scale].into_iter().chain(dbias).collect())
}
