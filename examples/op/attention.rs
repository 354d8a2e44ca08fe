//! Softmax attention by tensor names.

use anyhow::Result;
use wgpu_attention::attention::reference::{HostInputs, attention_in};
use wgpu_attention::reference::{Real, SumOrder};
use wgpu_attention::{Attention, AttentionConfig, AttentionInputs, AttentionOutputs, Uploaded};

use super::{Buffer, Gpu, Output, Tensor, Tensors};

pub struct Call {
    pub config: AttentionConfig,
    q: Tensor<f32, 4>,
    k: Tensor<f32, 4>,
    v: Tensor<f32, 4>,
    kv_lens: Option<Tensor<u32, 1>>,
    bias: Option<Tensor<f32, 4>>,
    mask: Option<Tensor<u8, 4>>,
    row_scale: Option<Tensor<f32, 3>>,
}

impl Call {
    pub fn new(config: AttentionConfig, tensors: &mut Tensors) -> Result<Self> {
        Ok(Self {
            config,
            q: tensors.required("q")?,
            k: tensors.required("k")?,
            v: tensors.required("v")?,
            kv_lens: tensors.optional("kv_lens")?,
            bias: tensors.broadcast("bias")?,
            mask: tensors.broadcast("mask")?,
            row_scale: tensors.broadcast("row_scale")?,
        })
    }

    fn inputs(&self) -> Result<HostInputs<'_>> {
        let (q, k) = (self.q.view()?, self.k.view()?);
        let [batch, heads, q_len, _] = q.shape();
        let scores = [batch, heads, q_len, k.shape()[2]];
        Ok(HostInputs {
            q,
            k,
            v: self.v.view()?,
            kv_lens: self.kv_lens.as_ref().map(Tensor::view).transpose()?,
            bias: self.bias.as_ref().map(Tensor::view).transpose()?.map(|view| view.broadcast_to(scores)),
            mask: self.mask.as_ref().map(Tensor::view).transpose()?.map(|view| view.broadcast_to(scores)),
            row_scale: match &self.row_scale {
                Some(scale) => Some(scale.view()?.broadcast_to([batch, heads, q_len])),
                None => None,
            },
        })
    }

    pub fn twin<T: Real>(&self, order: SumOrder) -> Result<Vec<Output<T>>> {
        let inputs = self.inputs()?;
        let shapes = inputs.shapes(&self.config)?;
        let rows = [shapes.batch, shapes.q_heads, shapes.q_len];
        let out = attention_in(&self.config, &inputs, order)?;
        Ok(vec![
            Output::new("o", &[rows[0], rows[1], rows[2], shapes.v_dim], out.o),
            Output::new("lse", &rows, out.lse),
            Output::new("entropy", &rows, out.entropy),
        ])
    }

    pub fn run(&self, gpu: &mut Gpu) -> Result<()> {
        let (context, inputs) = (gpu.context, self.inputs()?);
        let shapes = inputs.shapes(&self.config)?;
        let rows = [shapes.batch, shapes.q_heads, shapes.q_len];
        let o = gpu.main_output("o", [rows[0], rows[1], rows[2], shapes.v_dim]);
        let (lse, entropy) = (gpu.optional("lse", rows), gpu.optional("entropy", rows));

        let (q, k) = (gpu.upload(inputs.q, &self.q)?, gpu.upload(inputs.k, &self.k)?);
        let v = gpu.upload(inputs.v, &self.v)?;
        let kv_lens = inputs.kv_lens.map(|view| context.upload_view(&view)).transpose()?;
        let bias = gpu.upload_if(inputs.bias, self.bias.as_ref())?;
        let mask = inputs.mask.map(|view| context.upload_view(&view)).transpose()?;
        let row_scale = gpu.upload_if(inputs.row_scale, self.row_scale.as_ref())?;
        let attention = Attention::new(context, self.config)?;
        let prepared = attention.prepare(
            AttentionInputs {
                q: q.view(),
                k: k.view(),
                v: v.view(),
                kv_lens: kv_lens.as_ref().map(Uploaded::view),
                bias: bias.as_ref().map(Uploaded::view),
                mask: mask.as_ref().map(Uploaded::view),
                row_scale: row_scale.as_ref().map(Uploaded::view),
            },
            AttentionOutputs {
                o: o.view(),
                lse: lse.as_ref().map(Buffer::view),
                entropy: entropy.as_ref().map(Buffer::view),
            },
        )?;
        gpu.execute(&prepared)?;
        gpu.read(&o)?;
        lse.iter().chain(&entropy).try_for_each(|buffer| gpu.read(buffer))
    }
}
