//! Linear attention by tensor names.

use anyhow::Result;
use wgpu_attention::linear_attention::reference::{HostInputs, linear_attention_in};
use wgpu_attention::reference::{Real, SumOrder};
use wgpu_attention::{
    FeatureMap, LinearAttention, LinearAttentionConfig, LinearAttentionInputs, LinearAttentionOutputs, Uploaded,
};

use super::{Buffer, Gpu, Output, Tensor, Tensors};

pub struct Call {
    pub config: LinearAttentionConfig,
    q: Tensor<f32, 4>,
    k: Tensor<f32, 4>,
    v: Tensor<f32, 4>,
    projection: Option<Tensor<f32, 2>>,
    kv_lens: Option<Tensor<u32, 1>>,
    state_s: Option<Tensor<f32, 4>>,
    state_z: Option<Tensor<f32, 3>>,
    state_max: Option<Tensor<f32, 3>>,
}

/// The shapes of the outputs; `max` where the feature map has one.
struct Shapes {
    o: [u32; 4],
    s: [u32; 4],
    z: [u32; 3],
    max: Option<[u32; 3]>,
}

impl Call {
    pub fn new(config: LinearAttentionConfig, tensors: &mut Tensors) -> Result<Self> {
        Ok(Self {
            config,
            q: tensors.required("q")?,
            k: tensors.required("k")?,
            v: tensors.required("v")?,
            projection: tensors.optional("projection")?,
            kv_lens: tensors.optional("kv_lens")?,
            state_s: tensors.optional("state_s")?,
            state_z: tensors.optional("state_z")?,
            state_max: tensors.optional("state_max")?,
        })
    }

    fn inputs(&self) -> Result<HostInputs<'_>> {
        Ok(HostInputs {
            q: self.q.view()?,
            k: self.k.view()?,
            v: self.v.view()?,
            projection: self.projection.as_ref().map(Tensor::view).transpose()?,
            kv_lens: self.kv_lens.as_ref().map(Tensor::view).transpose()?,
            state_s: self.state_s.as_ref().map(Tensor::view).transpose()?,
            state_z: self.state_z.as_ref().map(Tensor::view).transpose()?,
            state_max: self.state_max.as_ref().map(Tensor::view).transpose()?,
        })
    }

    fn shapes(&self, inputs: &HostInputs) -> Result<Shapes> {
        let shapes = inputs.shapes(&self.config)?;
        let features = shapes.features(self.config.feature_map);
        let [batch, heads] = [shapes.batch, shapes.kv_heads];
        Ok(Shapes {
            o: [batch, shapes.q_heads, shapes.q_len, shapes.v_dim],
            s: [batch, heads, features, shapes.v_dim],
            z: [batch, heads, features],
            max: match self.config.feature_map {
                FeatureMap::Exp | FeatureMap::Softmax => Some([batch, heads, features]),
                FeatureMap::Favor { .. } => Some([batch, heads, 1]),
                _ => None,
            },
        })
    }

    pub fn twin<T: Real>(&self, order: SumOrder) -> Result<Vec<Output<T>>> {
        let inputs = self.inputs()?;
        let shapes = self.shapes(&inputs)?;
        let out = linear_attention_in(&self.config, &inputs, order)?;
        let mut outputs = vec![
            Output::new("o", &shapes.o, out.o),
            Output::new("state_s", &shapes.s, out.state_s),
            Output::new("state_z", &shapes.z, out.state_z),
        ];
        outputs.extend(shapes.max.map(|max| Output::new("state_max", &max, out.state_max)));
        Ok(outputs)
    }

    pub fn run(&self, gpu: &mut Gpu) -> Result<()> {
        let (context, inputs) = (gpu.context, self.inputs()?);
        let shapes = self.shapes(&inputs)?;
        let o = gpu.main_output("o", shapes.o);
        let (state_s, state_z) = (gpu.optional("state_s", shapes.s), gpu.optional("state_z", shapes.z));
        let state_max = shapes.max.and_then(|max| gpu.optional("state_max", max));

        let (q, k) = (gpu.upload(inputs.q, &self.q)?, gpu.upload(inputs.k, &self.k)?);
        let v = gpu.upload(inputs.v, &self.v)?;
        let projection = gpu.upload_if(inputs.projection, self.projection.as_ref())?;
        let kv_lens = inputs.kv_lens.map(|view| context.upload_view(&view)).transpose()?;
        let s_in = gpu.upload_if(inputs.state_s, self.state_s.as_ref())?;
        let z_in = gpu.upload_if(inputs.state_z, self.state_z.as_ref())?;
        // Exponents: f32 in any case.
        let max_in = inputs.state_max.map(|view| context.upload_view(&view)).transpose()?;
        let attention = LinearAttention::new(context, self.config)?;
        let prepared = attention.prepare(
            LinearAttentionInputs {
                q: q.view(),
                k: k.view(),
                v: v.view(),
                projection: projection.as_ref().map(Uploaded::view),
                kv_lens: kv_lens.as_ref().map(Uploaded::view),
                state_s: s_in.as_ref().map(Uploaded::view),
                state_z: z_in.as_ref().map(Uploaded::view),
                state_max: max_in.as_ref().map(Uploaded::view),
            },
            LinearAttentionOutputs {
                o: o.view(),
                state_s: state_s.as_ref().map(Buffer::view),
                state_z: state_z.as_ref().map(Buffer::view),
                state_max: state_max.as_ref().map(Buffer::view),
            },
        )?;
        gpu.execute(&prepared)?;
        gpu.read(&o)?;
        state_s.iter().try_for_each(|buffer| gpu.read(buffer))?;
        state_z.iter().chain(&state_max).try_for_each(|buffer| gpu.read(buffer))
    }
}
