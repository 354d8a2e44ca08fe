//! Gated attention: relu² on q and k as they are, or a whole GAU, down to its z, its maps and its gate.

use std::ops::Range;

use wgpu_attention::gated_attention::backward::reference::{HostInputs, HostOutputs, gated_attention_backward_in};
use wgpu_attention::gated_attention::reference::{HostInputs as ForwardInputs, gated_attention_row};
use wgpu_attention::reference::{Real, SumOrder};
use wgpu_attention::{
    AttentionConfig, Causal, Context, Divisor, GatedAttention, GatedAttentionBackward, GatedAttentionBackwardInputs,
    GatedAttentionConfig, GatedAttentionGradients, GatedAttentionInputs, GatedAttentionOutputs, GauMode, GauWeights,
    Prepared, Result, Scale, TensorView,
};

use super::super::case::Arithmetic;
use super::super::case::gated::{Maps, map_shape, maps};
use super::super::tensors::{Shape, Tensors};
use super::super::variants::{Kind, Variant};
use super::softmax::of_rounded_o;
use super::{Addend, Gradient, Pass, Row, in_arithmetic};

pub struct GatedPass<'t> {
    tensors: &'t Tensors,
    forward: GatedAttention,
    backward: GatedAttentionBackward,
    gau: Option<Gau>,
    /// Of v, q and k; or of v, u and z, and of γ and β of each side.
    gradients: Vec<Gradient>,
}

/// A gated attention unit that takes the given q as its z and the given k as its gate.
struct Gau {
    maps: Maps,
    /// What they make of z: q and k, in mixed chunks q_lin and k_lin as well.
    sides: Vec<Vec<f32>>,
}

/// Places among the gradients.
const DV: usize = 0;
const DU: usize = 1;
const DZ: usize = 2;
const DMAPS: usize = 3;
const NAMES: [&str; DMAPS + 8] = [
    "dv",
    "du",
    "dz",
    "dgamma_q",
    "dbeta_q",
    "dgamma_k",
    "dbeta_k",
    "dgamma_q_lin",
    "dbeta_q_lin",
    "dgamma_k_lin",
    "dbeta_k_lin",
];

impl<'t> GatedPass<'t> {
    pub fn new(context: &Context, variant: &Variant, tensors: &'t Tensors) -> Result<Self> {
        let shape = &tensors.shape;
        let causal = if shape.causal { Causal::TopLeft } else { Causal::None };
        let config = GatedAttentionConfig::new().causal(causal);
        let (config, sides) = match variant.kind {
            Kind::Gau(weights) => (config.weights(weights), 2),
            Kind::SquaredRelu(divisor) => (config.weights(GauWeights::SquaredRelu(divisor)), 0),
            _ => (config.mode(GauMode::MIXED_CHUNK), 4),
        };
        let gau = (sides > 0).then(|| Gau::new(context, tensors, sides)).transpose()?;
        let gradient = |name, extents| Gradient::new(context, name, shape, extents);
        let gradients = match sides {
            0 => vec![gradient("dv", shape.kv()), gradient("dq", shape.q()), gradient("dk", shape.kv())],
            _ => NAMES[..DMAPS + 2 * sides]
                .iter()
                .enumerate()
                .map(|(at, name)| match at {
                    DV => gradient(name, shape.kv()),
                    DU | DZ => gradient(name, shape.q()),
                    _ => Gradient::new(context, name, shape, map_shape(tensors)),
                })
                .collect(),
        };
        Ok(Self {
            tensors,
            forward: GatedAttention::new(context, config)?,
            backward: GatedAttentionBackward::new(context, config)?,
            gau,
            gradients,
        })
    }

    /// γ and β of a side, if it has maps.
    fn map(&self, side: usize) -> [Option<TensorView<'_, 2>>; 2] {
        let Tensors { shape: Shape { dtype, .. }, .. } = self.tensors;
        let has = |gau: &&Gau| side < gau.sides.len();
        [0, 1].map(|of| {
            let gau = self.gau.as_ref().filter(has);
            gau.map(|gau| TensorView::new(&gau.maps[2 * side + of].1, *dtype, map_shape(self.tensors)))
        })
    }

    fn of<T: Real>(&self, row: &Row, order: SumOrder) -> Result<Vec<Addend>> {
        let (host, i) = (&self.tensors.host, row.at[2]);
        let config = GatedAttentionConfig::new().weights(self.forward.config().weights);
        let Some(gau) = &self.gau else {
            let keys = row.keys();
            let [k, v] = [&host.k, &host.v].map(|data| row.of_keys(data, keys.clone()));
            let inputs = HostInputs::new(row.of_row(&host.q), k, v, row.dout());
            let HostOutputs { dv, dkeys: [dq, dk, ..], .. } =
                gated_attention_backward_in::<T>(&config, &inputs, order)?;
            let first_key = row.first_key() * row.dim();
            return Ok(vec![
                Addend::new(DV, first_key, &dv),
                Addend::new(1, row.index() * row.dim(), &dq),
                Addend::new(2, first_key, &dk),
            ]);
        };
        // A chunk is divided by its own tokens times the width, whatever there is of it.
        let (config, keys) = match self.forward.config().mode {
            GauMode::MixedChunk { chunk, .. } => {
                let (own, len) = (i - i % chunk as usize, row.keys().end);
                let weights = GauWeights::SquaredRelu(Divisor::FixedLenDim { len: chunk });
                (config.weights(weights), own..len.min(own + chunk as usize))
            }
            GauMode::Full => (config, row.keys()),
        };
        let (q, k) = (row.of_row(&gau.sides[0]), row.of_keys(&gau.sides[1], keys.clone()));
        let (v, u) = (row.of_keys(&host.v, keys.clone()), Some(row.of_row(&host.k)));
        let inputs = HostInputs { u, ..HostInputs::new(q, k, v, row.dout()) };
        let HostOutputs { du, dv, dkeys: [dq, dk, ..], .. } =
            gated_attention_backward_in::<T>(&config, &inputs, order)?;
        let mut all = vec![
            Addend::new(DU, row.index() * row.dim(), &du),
            Addend::new(DV, (row.first_key() + keys.start) * row.dim(), &dv),
        ];
        all.extend(self.through_map(gau, 0, row, i..i + 1, &dq, order));
        all.extend(self.through_map(gau, 1, row, keys.clone(), &dk, order));
        if let Some(scale) = scale(config.weights) {
            let forward = ForwardInputs { u, ..ForwardInputs::new(q, k, v) };
            let o = || gated_attention_row(&config, &forward, [0; 3], SumOrder::InOrder);
            if let Some(off) = row.off_by(o)? {
                let [dq, dk] = of_rounded_o::<T>(&AttentionConfig::new().scale(scale), q, k, v, off, order)?;
                all.extend(self.through_map(gau, 0, row, i..i + 1, &dq, order));
                all.extend(self.through_map(gau, 1, row, keys.clone(), &dk, order));
            }
        }
        if self.is_mixed_chunk() {
            // In causal mode the linear part is of the chunks before.
            let tokens = if self.tensors.shape.causal { 0..keys.start } else { 0..row.len() };
            all.extend(self.linear_part::<T>(gau, row, tokens, order));
        }
        Ok(all)
    }

    fn is_mixed_chunk(&self) -> bool {
        self.forward.config().mode != GauMode::Full
    }

    /// Of u ⊙ Σ (q_lin·k_lin / tokens) v, in which nothing is exponential and nothing divided by a sum.
    fn linear_part<T: Real>(&self, gau: &Gau, row: &Row, tokens: Range<usize>, order: SumOrder) -> Vec<Addend> {
        if tokens.is_empty() {
            return Vec::new();
        }
        let (host, dim, n) = (&self.tensors.host, row.dim(), T::new(tokens.len() as f64));
        let (dims, zero) = (order.indices(dim), T::new(0.0));
        let numbers =
            |data: &[f32], at: usize| data[at * dim..][..dim].iter().map(|&x| T::new(x.into())).collect::<Vec<T>>();
        let dot = |a: &[T], b: &[T]| dims.iter().fold(zero, |sum, &c| sum + a[c] * b[c]);
        let (q, u, dout) =
            (numbers(&gau.sides[2], row.index()), numbers(&host.k, row.index()), numbers(row.dout, row.index()));
        let through_gate: Vec<T> = u.iter().zip(&dout).map(|(&u, &dout)| u * dout / n).collect();
        let (mut o, mut dq) = (vec![zero; dim], vec![zero; dim]);
        let [mut dk, mut dv] = [(); 2].map(|()| vec![zero; tokens.len() * dim]);
        for j in order.indices(tokens.len()) {
            let [k, v] = [&gau.sides[3], &host.v].map(|data| numbers(data, row.first_key() + j));
            let (weight, dweight) = (dot(&q, &k), dot(&through_gate, &v));
            for c in 0..dim {
                o[c] += weight / n * v[c];
                dq[c] += dweight * k[c];
                dk[j * dim + c] = dweight * q[c];
                dv[j * dim + c] = weight * through_gate[c];
            }
        }
        let du: Vec<T> = dout.iter().zip(&o).map(|(&dout, &o)| dout * o).collect();
        let (i, first) = (row.at[2], row.first_key() * dim);
        let mut all = vec![Addend::new(DU, row.index() * dim, &du), Addend::new(DV, first, &dv)];
        all.extend(self.through_map(gau, 2, row, i..i + 1, &dq, order));
        all.extend(self.through_map(gau, 3, row, tokens, &dk, order));
        all
    }

    /// From the gradient of what a map made of some tokens to those of z, γ and β.
    fn through_map<T: Real>(
        &self,
        gau: &Gau,
        side: usize,
        row: &Row,
        tokens: Range<usize>,
        given: &[T],
        order: SumOrder,
    ) -> [Addend; 3] {
        let (dim, head) = (row.dim(), row.at[1]);
        let first = row.first_key() + tokens.start;
        let real = |x: f32| T::new(x.into());
        let gamma = &gau.maps[2 * side].0[head * dim..][..dim];
        let z = &self.tensors.host.q[first * dim..][..given.len()];
        let dz: Vec<T> = given.iter().enumerate().map(|(at, &d)| d * real(gamma[at % dim])).collect();
        let [mut dgamma, mut dbeta] = [(); 2].map(|()| vec![T::new(0.0); dim]);
        for token in order.indices(tokens.len()) {
            for c in 0..dim {
                dgamma[c] += given[token * dim + c] * real(z[token * dim + c]);
                dbeta[c] += given[token * dim + c];
            }
        }
        let own = DMAPS + 2 * side;
        [
            Addend::new(DZ, first * dim, &dz),
            Addend::new(own, head * dim, &dgamma),
            Addend::new(own + 1, head * dim, &dbeta),
        ]
    }
}

/// That of softmax attention with these weights, if they are a softmax.
fn scale(weights: GauWeights) -> Option<Scale> {
    match weights {
        GauWeights::SquaredRelu(_) => None,
        GauWeights::Softmax => Some(Scale::InvSqrtDim),
        GauWeights::SoftmaxLogN { base, floor } => Some(Scale::LogN { base, floor }),
    }
}

impl Gau {
    fn new(context: &Context, tensors: &Tensors, sides: usize) -> Result<Self> {
        let maps = maps(context, tensors)?;
        let [heads, dim] = map_shape(tensors).map(|extent| extent as usize);
        let of_head = tensors.shape.len as usize * dim;
        let side = |side: usize| -> Vec<f32> {
            let [gamma, beta] = [&maps[2 * side].0, &maps[2 * side + 1].0];
            let z = tensors.host.q.iter().enumerate();
            z.map(|(at, &z)| {
                let own = at / of_head % heads * dim + at % dim;
                gamma[own] * z + beta[own]
            })
            .collect()
        };
        let sides = (0..sides).map(side).collect();
        Ok(Self { maps, sides })
    }
}

impl Pass for GatedPass<'_> {
    fn forward(&self) -> Result<Prepared<'_>> {
        let (q, k, v) = (self.tensors.q(), self.tensors.k(), self.tensors.v());
        let [[gamma_q, beta_q], [gamma_k, beta_k], [gamma_q_lin, beta_q_lin], [gamma_k_lin, beta_k_lin]] =
            [0, 1, 2, 3].map(|side| self.map(side));
        let maps = GatedAttentionInputs {
            beta_q,
            beta_k,
            gamma_q_lin,
            beta_q_lin,
            gamma_k_lin,
            beta_k_lin,
            ..GatedAttentionInputs::new(q, k, v)
        };
        let inputs = match self.gau {
            Some(_) => GatedAttentionInputs { z: Some(q), q: None, k: None, u: Some(k), gamma_q, gamma_k, ..maps },
            None => maps,
        };
        self.forward.prepare(inputs, GatedAttentionOutputs::new(self.tensors.o()))
    }

    fn backward<'a>(&'a self, dout: TensorView<'a, 4>) -> Result<Prepared<'a>> {
        let (q, k, v) = (self.tensors.q(), self.tensors.k(), self.tensors.v());
        let shape = &self.tensors.shape;
        let inputs = GatedAttentionBackwardInputs::new(q, k, v, dout);
        let inputs = GatedAttentionBackwardInputs { o: Some(self.tensors.o()), ..inputs };
        if self.gau.is_none() {
            let [dv, dq, dk] = &*self.gradients else { unreachable!("of q, k and v") };
            let (dq, [dk, dv]) = (dq.view(shape, shape.q()), [dk, dv].map(|own| own.view(shape, shape.kv())));
            return self.backward.prepare(inputs, GatedAttentionGradients::new(dq, dk, dv));
        }
        let [[gamma_q, beta_q], [gamma_k, beta_k], [gamma_q_lin, beta_q_lin], [gamma_k_lin, beta_k_lin]] =
            [0, 1, 2, 3].map(|side| self.map(side));
        let inputs = GatedAttentionBackwardInputs {
            z: Some(q),
            q: None,
            k: None,
            u: Some(k),
            gamma_q,
            beta_q,
            gamma_k,
            beta_k,
            gamma_q_lin,
            beta_q_lin,
            gamma_k_lin,
            beta_k_lin,
            ..inputs
        };
        let like_z = |at: usize| self.gradients[at].view(shape, shape.q());
        let map = |at: usize| self.gradients.get(DMAPS + at).map(|own| own.view(shape, map_shape(self.tensors)));
        let gradients = GatedAttentionGradients {
            du: Some(like_z(DU)),
            dv: Some(self.gradients[DV].view(shape, shape.kv())),
            dz: Some(like_z(DZ)),
            dgamma_q: map(0),
            dbeta_q: map(1),
            dgamma_k: map(2),
            dbeta_k: map(3),
            dgamma_q_lin: map(4),
            dbeta_q_lin: map(5),
            dgamma_k_lin: map(6),
            dbeta_k_lin: map(7),
            ..GatedAttentionGradients::none()
        };
        self.backward.prepare(inputs, gradients)
    }

    fn gradients(&self) -> &[Gradient] {
        &self.gradients
    }

    fn row_cost(&self) -> [u64; 2] {
        let numbers = u64::from(self.tensors.shape.len) * u64::from(self.tensors.shape.head_dim);
        let sides = self.gau.as_ref().map_or(0, |gau| gau.sides.len() as u64);
        [(6 + 2 * sides) * numbers, (40 + 8 * sides) * numbers]
    }

    fn row(&self, row: &Row, arithmetic: Arithmetic) -> Result<Vec<Addend>> {
        in_arithmetic(arithmetic, |order| self.of::<f64>(row, order), |order| self.of::<f32>(row, order))
    }
}
