//! A problem by the names of its tensors, for both twins and the GPU.

use std::collections::BTreeMap;

use wgpu_attention::op::{HostTensors, Op};
use wgpu_attention::reference::{Real, SumOrder};
use wgpu_attention::{DType, GatedAttention, GatedAttentionBackward, GatedAttentionConfig, GauMode, HostView, Result};

use crate::common::Tensor;

/// Where q and k come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// q and k.
    Given,
    /// z, with γ and β, of each head.
    Shared,
    /// z, with γ alone, one row of it for all heads.
    GammaOnly,
}

/// `[batch, q_heads, kv_heads, q_len, kv_len, key_dim, v_dim]`.
pub type Sizes = [usize; 7];

/// One head and equally many queries and keys.
pub fn square(len: usize, key_dim: usize, v_dim: usize) -> Sizes {
    [1, 1, 1, len, len, key_dim, v_dim]
}

#[derive(Clone, Debug)]
pub struct Case {
    pub config: GatedAttentionConfig,
    /// All but o; maps are the last two of four axes.
    pub tensors: BTreeMap<&'static str, Tensor<4>>,
    pub kv_lens: Option<Vec<u32>>,
    /// What they are stored as, where not as f32.
    pub stored: BTreeMap<&'static str, DType>,
}

/// Maps of z.
pub const MAPS: [&str; 8] =
    ["gamma_q", "gamma_k", "gamma_q_lin", "gamma_k_lin", "beta_q", "beta_k", "beta_q_lin", "beta_k_lin"];

impl Case {
    /// Without a gate.
    pub fn new(config: GatedAttentionConfig, source: Source, sizes: Sizes) -> Self {
        let [batch, q_heads, kv_heads, q_len, kv_len, key_dim, v_dim] = sizes;
        let seed = (q_len * 31 + kv_len * 17 + key_dim * 7 + v_dim) as u64;
        let linear = config.mode != GauMode::Full;
        let used = |name: &&str| linear || !name.ends_with("_lin");
        let (queries, keys) = ([batch, q_heads, q_len, key_dim], [batch, kv_heads, kv_len, key_dim]);
        let mut tensors = BTreeMap::new();
        if source == Source::Given {
            let all = [("q", queries), ("k", keys), ("q_lin", queries), ("k_lin", keys)];
            tensors.extend(
                all.into_iter()
                    .filter(|(name, _)| used(name))
                    .zip(seed..)
                    .map(|((name, shape), seed)| (name, Tensor::normal(seed, shape))),
            );
        } else {
            tensors.insert("z", Tensor::normal(seed, queries));
            let rows = if source == Source::Shared { q_heads } else { 1 };
            let all = MAPS.into_iter().filter(|name| source == Source::Shared || name.starts_with("gamma"));
            tensors.extend(
                all.filter(used)
                    .zip(seed + 10..)
                    .map(|(name, seed)| (name, Tensor::normal(seed, [1, 1, rows, key_dim]))),
            );
        }
        tensors.insert("v", Tensor::normal(seed + 20, [batch, kv_heads, kv_len, v_dim]));
        tensors.insert("dout", Tensor::normal(seed + 21, [batch, q_heads, q_len, v_dim]));
        Self { config, tensors, kv_lens: None, stored: BTreeMap::new() }
    }

    pub fn gated(mut self) -> Self {
        self.tensors.insert("u", Tensor::normal(77, self.tensors["dout"].shape));
        self
    }

    pub fn with_lens(mut self, lens: &[u32]) -> Self {
        self.kv_lens = Some(lens.to_vec());
        self
    }

    pub fn get_mut(&mut self, name: &str) -> &mut Tensor<4> {
        self.tensors.get_mut(name).expect("a tensor of the case")
    }

    /// What forward makes of it, in f64.
    pub fn forward(&self) -> Vec<f64> {
        GatedAttention::twin(&self.config, &Host(self, Pass::Forward), SumOrder::InOrder)
            .expect("inputs that fit")
            .remove(0)
            .1
    }

    /// All gradients, by name.
    pub fn twin<T: Real>(&self, order: SumOrder) -> Vec<(&'static str, Vec<T>)> {
        GatedAttentionBackward::twin(&self.config, &Host(self, Pass::Backward), order).expect("inputs that fit")
    }

    pub fn name(&self) -> String {
        let shapes: Vec<_> = self.tensors.iter().map(|(name, tensor)| format!("{name} {:?}", tensor.shape)).collect();
        format!("{:?}, {}, kv_lens {:?}, {:?}", self.config, shapes.join(" "), self.kv_lens, self.stored)
    }
}

/// Its tensors in host memory.
struct Host<'a>(&'a Case, Pass);

#[derive(PartialEq)]
enum Pass {
    Forward,
    Backward,
}

impl<'a> HostTensors<'a> for Host<'a> {
    fn floats<const RANK: usize>(&self, name: &'static str) -> Result<Option<HostView<'a, f32, RANK>>> {
        let Some(tensor) = self.0.tensors.get(name) else { return Ok(None) };
        let view: HostView<'a, f32, RANK> =
            HostView::new(&tensor.data, std::array::from_fn(|axis| tensor.shape[4 - RANK + axis]))?;
        // Forward has a row of maps for each head.
        let mut shape = view.shape();
        if RANK == 2 && self.1 == Pass::Forward {
            shape[0] = self.0.tensors["z"].shape[1];
        }
        Ok(Some(view.broadcast_to(shape)))
    }

    fn integers<const RANK: usize>(&self, name: &'static str) -> Result<Option<HostView<'a, u32, RANK>>> {
        let lens = self.0.kv_lens.as_ref().filter(|_| name == "kv_lens");
        lens.map(|lens| HostView::new(lens, [lens.len(); RANK])).transpose()
    }

    fn mask<const RANK: usize>(&self, _: &'static str) -> Result<Option<HostView<'a, u8, RANK>>> {
        Ok(None)
    }
}
