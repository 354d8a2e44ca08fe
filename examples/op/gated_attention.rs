//! Gated attention by tensor names.

use anyhow::Result;
use wgpu_attention::gated_attention::reference::{HostInputs, gated_attention_in};
use wgpu_attention::reference::{Real, SumOrder};
use wgpu_attention::{
    GatedAttention, GatedAttentionConfig, GatedAttentionInputs, GatedAttentionOutputs, HostView, Uploaded,
};

use super::{Gpu, Output, Tensor, Tensors};

pub struct Call {
    pub config: GatedAttentionConfig,
    v: Tensor<f32, 4>,
    kv_lens: Option<Tensor<u32, 1>>,
    /// As [`TENSORS`].
    tensors: [Option<Tensor<f32, 4>>; 6],
    /// As [`MAPS`].
    maps: [Option<Tensor<f32, 2>>; 8],
}

const TENSORS: [&str; 6] = ["q", "k", "z", "q_lin", "k_lin", "u"];
const MAPS: [&str; 8] =
    ["gamma_q", "beta_q", "gamma_k", "beta_k", "gamma_q_lin", "beta_q_lin", "gamma_k_lin", "beta_k_lin"];

impl Call {
    pub fn new(config: GatedAttentionConfig, tensors: &mut Tensors) -> Result<Self> {
        let mut call = Self {
            config,
            v: tensors.required("v")?,
            kv_lens: tensors.optional("kv_lens")?,
            tensors: Default::default(),
            maps: Default::default(),
        };
        for (tensor, name) in call.tensors.iter_mut().zip(TENSORS) {
            *tensor = tensors.optional(name)?;
        }
        for (map, name) in call.maps.iter_mut().zip(MAPS) {
            *map = tensors.broadcast(name)?;
        }
        Ok(call)
    }

    fn inputs(&self) -> Result<HostInputs<'_>> {
        let mut tensors = [None; TENSORS.len()];
        for (view, tensor) in tensors.iter_mut().zip(&self.tensors) {
            *view = tensor.as_ref().map(Tensor::view).transpose()?;
        }
        let [q, k, z, q_lin, k_lin, u] = tensors;
        let heads_and_dim = z.map(|z: HostView<f32, 4>| [z.shape()[1], z.shape()[3]]);
        let mut maps = [None; MAPS.len()];
        for (view, map) in maps.iter_mut().zip(&self.maps) {
            let own = map.as_ref().map(Tensor::view).transpose()?;
            *view = own.map(|view| heads_and_dim.map_or(view, |shape| view.broadcast_to(shape)));
        }
        let [gamma_q, beta_q, gamma_k, beta_k, gamma_q_lin, beta_q_lin, gamma_k_lin, beta_k_lin] = maps;
        let v = self.v.view()?;
        let kv_lens = self.kv_lens.as_ref().map(Tensor::view).transpose()?;
        Ok(HostInputs {
            q,
            k,
            z,
            gamma_q,
            beta_q,
            gamma_k,
            beta_k,
            v,
            u,
            kv_lens,
            q_lin,
            k_lin,
            gamma_q_lin,
            beta_q_lin,
            gamma_k_lin,
            beta_k_lin,
        })
    }

    fn shape(&self, inputs: &HostInputs) -> Result<[u32; 4]> {
        let shapes = inputs.shapes(&self.config)?;
        Ok([shapes.batch, shapes.q_heads, shapes.q_len, shapes.v_dim])
    }

    pub fn twin<T: Real>(&self, order: SumOrder) -> Result<Vec<Output<T>>> {
        let inputs = self.inputs()?;
        let out = gated_attention_in(&self.config, &inputs, order)?;
        Ok(vec![Output::new("o", &self.shape(&inputs)?, out.o)])
    }

    pub fn run(&self, gpu: &mut Gpu) -> Result<()> {
        let (context, inputs) = (gpu.context, self.inputs()?);
        let o = gpu.main_output("o", self.shape(&inputs)?);
        let v = gpu.upload(inputs.v, &self.v)?;
        let kv_lens = inputs.kv_lens.map(|view| context.upload_view(&view)).transpose()?;
        let HostInputs { q, k, z, q_lin, k_lin, u, .. } = inputs;
        let tensors = [q, k, z, q_lin, k_lin, u].into_iter().zip(&self.tensors);
        let tensors = tensors.map(|(view, own)| gpu.upload_if(view, own.as_ref())).collect::<Result<Vec<_>>>()?;
        let [q, k, z, q_lin, k_lin, u] = std::array::from_fn(|index| tensors[index].as_ref().map(Uploaded::view));
        let HostInputs { gamma_q, beta_q, gamma_k, beta_k, .. } = inputs;
        let HostInputs { gamma_q_lin, beta_q_lin, gamma_k_lin, beta_k_lin, .. } = inputs;
        let maps = [gamma_q, beta_q, gamma_k, beta_k, gamma_q_lin, beta_q_lin, gamma_k_lin, beta_k_lin];
        let maps = maps.into_iter().zip(&self.maps);
        let maps = maps.map(|(view, own)| gpu.upload_if(view, own.as_ref())).collect::<Result<Vec<_>>>()?;
        let [gamma_q, beta_q, gamma_k, beta_k, gamma_q_lin, beta_q_lin, gamma_k_lin, beta_k_lin] =
            std::array::from_fn(|index| maps[index].as_ref().map(Uploaded::view));
        let attention = GatedAttention::new(context, self.config)?;
        let prepared = attention.prepare(
            GatedAttentionInputs {
                q,
                k,
                z,
                gamma_q,
                beta_q,
                gamma_k,
                beta_k,
                v: v.view(),
                u,
                kv_lens: kv_lens.as_ref().map(Uploaded::view),
                q_lin,
                k_lin,
                gamma_q_lin,
                beta_q_lin,
                gamma_k_lin,
                beta_k_lin,
            },
            GatedAttentionOutputs { o: o.view() },
        )?;
        gpu.execute(&prepared)?;
        gpu.read(&o)
    }
}
