//! The CPU twin of the backward pass: plain loops over the formula.

use super::super::config::GatedAttentionConfig;
use super::super::reference::{self as forward, Pair, Row, Side};
use super::super::shapes::GatedAttentionShapes;
use crate::reference::{Real, SumOrder};
use crate::{HostView, Result};

pub use super::HostInputs;

/// All gradients; of what is not given, empty.
#[derive(Clone, Debug, PartialEq)]
pub struct HostOutputs<T> {
    /// `[batch, q_heads, q_len, v_dim]`.
    pub du: Vec<T>,
    /// `[batch, kv_heads, kv_len, v_dim]`.
    pub dv: Vec<T>,
    /// `[batch, heads, len, key_dim]`.
    pub dz: Vec<T>,
    /// Of q, k, q_lin and k_lin, where they are given: `[batch, q_heads, q_len, key_dim]` or `[batch, kv_heads, kv_len, key_dim]`.
    pub dkeys: [Vec<T>; 4],
    /// Of γ in the maps to those four: `[heads or 1, key_dim]`.
    pub dgammas: [Vec<T>; 4],
    /// Of β.
    pub dbetas: [Vec<T>; 4],
}

/// The gradients in f64.
///
/// # Errors
/// As [`HostInputs::shapes`], and for a config out of range.
pub fn gated_attention_backward(config: &GatedAttentionConfig, inputs: &HostInputs) -> Result<HostOutputs<f64>> {
    gated_attention_backward_in(config, inputs, SumOrder::InOrder)
}

const SIDES: [Side; 4] = [Side::Q, Side::K, Side::QLin, Side::KLin];

/// [`gated_attention_backward`] in another arithmetic or order of summation.
///
/// # Errors
/// As [`gated_attention_backward`].
pub fn gated_attention_backward_in<T: Real>(
    config: &GatedAttentionConfig,
    inputs: &HostInputs,
    order: SumOrder,
) -> Result<HostOutputs<T>> {
    let shapes = inputs.shapes(config)?.forward();
    let given = inputs.forward();
    let [batch, q_heads, q_len] = [shapes.batch, shapes.q_heads, shapes.q_len].map(|extent| extent as usize);
    let mut sums = Sums {
        du: vec![T::new(0.0); count(&shapes, Side::Q) * shapes.v_dim as usize],
        dv: vec![T::new(0.0); count(&shapes, Side::K) * shapes.v_dim as usize],
        dkeys: SIDES.map(|side| vec![T::new(0.0); count(&shapes, side) * shapes.key_dim as usize]),
        shapes,
    };
    for row in order.indices(batch * q_heads * q_len) {
        let at = [row / q_len / q_heads, row / q_len % q_heads, row % q_len];
        sums.add_row(config, inputs, &Row::new(&given, shapes, order, at), at, order);
    }
    Ok(sums.through_maps(inputs, order))
}

/// Rows of a side.
fn count(shapes: &GatedAttentionShapes, side: Side) -> usize {
    let [heads, len] = match side {
        Side::Q | Side::QLin => [shapes.q_heads, shapes.q_len],
        Side::K | Side::KLin => [shapes.kv_heads, shapes.kv_len],
    };
    [shapes.batch, heads, len].map(|extent| extent as usize).iter().product()
}

impl HostInputs<'_> {
    /// Those of the forward pass.
    fn forward(&self) -> forward::HostInputs<'_> {
        let Self { z, q, k, v, u, kv_lens, q_lin, k_lin, .. } = *self;
        // One row stands for all heads.
        let heads = q.or(z).map_or(0, |queries| queries.shape()[1]);
        fn repeated(map: Option<HostView<'_, f32, 2>>, heads: usize) -> Option<HostView<'_, f32, 2>> {
            map.map(|map| map.broadcast_to([heads, map.shape()[1]]))
        }
        let map = |own| repeated(own, heads);
        let mut inputs = match (z, q.zip(k)) {
            (_, Some((q, k))) => forward::HostInputs::new(q, k, v),
            (Some(z), None) => match (map(self.gamma_q), map(self.gamma_k)) {
                (Some(gamma_q), Some(gamma_k)) => forward::HostInputs::shared(z, gamma_q, gamma_k, v),
                // Their shapes were checked: neither is the case.
                _ => forward::HostInputs::new(z, z, v),
            },
            (None, None) => forward::HostInputs::new(v, v, v),
        };
        (inputs.u, inputs.kv_lens, inputs.q_lin, inputs.k_lin) = (u, kv_lens, q_lin, k_lin);
        [inputs.beta_q, inputs.beta_k] = [self.beta_q, self.beta_k].map(map);
        [inputs.gamma_q_lin, inputs.gamma_k_lin] = [self.gamma_q_lin, self.gamma_k_lin].map(map);
        [inputs.beta_q_lin, inputs.beta_k_lin] = [self.beta_q_lin, self.beta_k_lin].map(map);
        inputs
    }
}

/// Gradients in the making: of all four sides, as if each were given.
struct Sums<T> {
    du: Vec<T>,
    dv: Vec<T>,
    dkeys: [Vec<T>; 4],
    shapes: GatedAttentionShapes,
}

impl<T: Real> Sums<T> {
    /// What a query adds.
    fn add_row(
        &mut self,
        config: &GatedAttentionConfig,
        inputs: &HostInputs,
        row: &Row<'_>,
        [b, h, i]: [usize; 3],
        order: SumOrder,
    ) {
        let shapes = self.shapes;
        let [q_heads, kv_heads, q_len, kv_len, s, e] =
            [shapes.q_heads, shapes.kv_heads, shapes.q_len, shapes.kv_len, shapes.key_dim, shapes.v_dim]
                .map(|extent| extent as usize);
        let (kv_head, real) = (row.kv_head(), |x: f32| T::new(x.into()));
        let own = (b * q_heads + h) * q_len + i;
        let of_key = |key: usize| (b * kv_heads + kv_head) * kv_len + key;
        let value = |key: usize, c: usize| real(inputs.v.at([b, kv_head, key, c]));
        let gate = |c: usize| inputs.u.map_or(T::new(1.0), |u| real(u.at([b, h, i, c])));
        let pairs = row.pairs::<T>(config);
        let places = order.indices(pairs.len());
        if pairs.is_empty() {
            return;
        }

        // Through the gate, and to the values; δ is dout · o.
        let mut delta = T::new(0.0);
        let mut dweights = vec![T::new(0.0); pairs.len()];
        for c in order.indices(e) {
            let dout = real(inputs.dout.at([b, h, i, c]));
            let mut o = T::new(0.0);
            for &at in &places {
                let Pair { key, weight, .. } = pairs[at];
                o += weight * value(key, c);
                dweights[at] += dout * gate(c) * value(key, c);
                self.dv[of_key(key) * e + c] += weight * (dout * gate(c));
            }
            self.du[own * e + c] = dout * o;
            if config.adds_up() {
                delta += dout * (gate(c) * o);
            }
        }

        // Through the weights, to queries and keys.
        for &at in &places {
            let Pair { key, slope, linear, .. } = pairs[at];
            let dproduct = slope * (dweights[at] - delta);
            let [query_side, key_side] = if linear { [Side::QLin, Side::KLin] } else { [Side::Q, Side::K] };
            for c in 0..s {
                self.dkeys[query_side as usize][own * s + c] += dproduct * row.element(key_side, kv_head, key, c);
                self.dkeys[key_side as usize][of_key(key) * s + c] += dproduct * row.element(query_side, h, i, c);
            }
        }
    }

    /// To z and its maps, if they are what is given.
    fn through_maps(self, inputs: &HostInputs, order: SumOrder) -> HostOutputs<T> {
        let given = |views: [Option<HostView<'_, f32, 4>>; 4]| views.map(|view| view.is_some());
        let keys = given([inputs.q, inputs.k, inputs.q_lin, inputs.k_lin]);
        let gammas = [inputs.gamma_q, inputs.gamma_k, inputs.gamma_q_lin, inputs.gamma_k_lin];
        let betas = [inputs.beta_q, inputs.beta_k, inputs.beta_q_lin, inputs.beta_k_lin];
        let Self { du, dv, mut dkeys, shapes } = self;
        let du = if inputs.u.is_some() { du } else { Vec::new() };
        let (dz, nothing) = (Vec::new(), || [(); 4].map(|()| Vec::new()));
        let mut out = HostOutputs { du, dv, dz, dkeys: nothing(), dgammas: nothing(), dbetas: nothing() };
        if let Some(z) = inputs.z {
            let [heads, len, s] = [shapes.q_heads, shapes.q_len, shapes.key_dim].map(|extent| extent as usize);
            let rows = count(&shapes, Side::Q);
            out.dz = vec![T::new(0.0); rows * s];
            for (side, gamma) in gammas.iter().enumerate() {
                let Some(gamma) = gamma else { continue };
                let map_heads = gamma.shape()[0];
                let mut sums = [vec![T::new(0.0); map_heads * s], vec![T::new(0.0); map_heads * s]];
                for row in order.indices(rows) {
                    let (b, h, i) = (row / len / heads, row / len % heads, row % len);
                    let of_map = if map_heads == 1 { 0 } else { h };
                    for c in 0..s {
                        let own = dkeys[side][row * s + c];
                        out.dz[row * s + c] += own * T::new(gamma.at([of_map, c]).into());
                        sums[0][of_map * s + c] += own * T::new(z.at([b, h, i, c]).into());
                        sums[1][of_map * s + c] += own;
                    }
                }
                let [dgamma, dbeta] = sums;
                out.dgammas[side] = dgamma;
                out.dbetas[side] = if betas[side].is_some() { dbeta } else { Vec::new() };
            }
        }
        for (own, given) in dkeys.iter_mut().zip(keys) {
            if !given {
                own.clear();
            }
        }
        HostOutputs { dkeys, ..out }
    }
}

/// All gradients, by name.
pub(super) fn by_name<T: Real>(
    config: &GatedAttentionConfig,
    inputs: &HostInputs,
    order: SumOrder,
) -> Result<Vec<(&'static str, Vec<T>)>> {
    let HostOutputs { du, dv, dz, dkeys, dgammas, dbetas } = gated_attention_backward_in(config, inputs, order)?;
    let gated = inputs.u.is_some().then_some(("du", du));
    let shared = inputs.z.is_some().then_some(("dz", dz));
    let keys = [inputs.q, inputs.k, inputs.q_lin, inputs.k_lin].map(|view| view.is_some());
    let gammas = [inputs.gamma_q, inputs.gamma_k, inputs.gamma_q_lin, inputs.gamma_k_lin].map(|view| view.is_some());
    let betas = [inputs.beta_q, inputs.beta_k, inputs.beta_q_lin, inputs.beta_k_lin].map(|view| view.is_some());
    let named = |names: [&'static str; 4], given: [bool; 4], gradients: [Vec<T>; 4]| {
        let all = names.into_iter().zip(gradients).zip(given);
        all.filter_map(|(gradient, given)| given.then_some(gradient)).collect::<Vec<_>>()
    };
    let keys = named(["dq", "dk", "dq_lin", "dk_lin"], keys, dkeys);
    let gammas = named(["dgamma_q", "dgamma_k", "dgamma_q_lin", "dgamma_k_lin"], gammas, dgammas);
    let betas = named(["dbeta_q", "dbeta_k", "dbeta_q_lin", "dbeta_k_lin"], betas, dbetas);
    let first = [Some(("dv", dv)), gated, shared].into_iter().flatten();
    Ok(first.chain(keys).chain(gammas).chain(betas).collect())
}
