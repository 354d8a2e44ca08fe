//! Merges of partial results by tensor names; where the outputs hold a part, they are inputs too.

use anyhow::Result;
use wgpu_attention::merge::reference::{Held, HostInputs, merge_in};
use wgpu_attention::reference::{Real, SumOrder};
use wgpu_attention::{Error, Merge, MergeConfig, MergeInputs, MergeOutputs, Uploaded};

use super::{Buffer, Gpu, Output, Tensor, Tensors};

pub struct Call {
    pub config: MergeConfig,
    o_parts: Tensor<f32, 5>,
    lse_parts: Tensor<f32, 4>,
    entropy_parts: Option<Tensor<f32, 4>>,
    o: Option<Tensor<f32, 4>>,
    lse: Option<Tensor<f32, 3>>,
    entropy: Option<Tensor<f32, 3>>,
}

impl Call {
    pub fn new(config: MergeConfig, tensors: &mut Tensors) -> Result<Self> {
        Ok(Self {
            config,
            o_parts: tensors.required("o_parts")?,
            lse_parts: tensors.required("lse_parts")?,
            entropy_parts: tensors.optional("entropy_parts")?,
            o: tensors.optional("o")?,
            lse: tensors.optional("lse")?,
            entropy: tensors.optional("entropy")?,
        })
    }

    fn inputs(&self) -> Result<HostInputs<'_>> {
        let held = match (&self.o, &self.lse) {
            (Some(o), Some(lse)) => {
                let entropy = self.entropy.as_ref().map(Tensor::view).transpose()?;
                Some(Held { o: o.view()?, lse: lse.view()?, entropy })
            }
            (None, None) if self.entropy.is_none() => None,
            _ => {
                let problem = "is given, but not o and lse both".into();
                return Err(Error::Operand { tensor: "o, lse or entropy", problem }.into());
            }
        };
        let entropy_parts = self.entropy_parts.as_ref().map(Tensor::view).transpose()?;
        Ok(HostInputs { o_parts: self.o_parts.view()?, lse_parts: self.lse_parts.view()?, entropy_parts, held })
    }

    /// Of o, and of what has one number a row.
    fn shapes(&self, inputs: &HostInputs) -> Result<([u32; 4], [u32; 3])> {
        let shapes = inputs.shapes(&self.config)?;
        let [batch, heads, len] = [shapes.batch, shapes.heads, shapes.len];
        Ok(([batch, heads, len, shapes.v_dim], [batch, heads, len]))
    }

    pub fn twin<T: Real>(&self, order: SumOrder) -> Result<Vec<Output<T>>> {
        let inputs = self.inputs()?;
        let (o, rows) = self.shapes(&inputs)?;
        let out = merge_in(&self.config, &inputs, order)?;
        let mut outputs = vec![Output::new("o", &o, out.o), Output::new("lse", &rows, out.lse)];
        outputs.extend(inputs.entropy_parts.map(|_| Output::new("entropy", &rows, out.entropy)));
        Ok(outputs)
    }

    pub fn run(&self, gpu: &mut Gpu) -> Result<()> {
        let (context, inputs) = (gpu.context, self.inputs()?);
        let (shape, rows) = self.shapes(&inputs)?;
        let o = gpu.main_output("o", shape);
        let lse = gpu.output("lse", rows);
        let entropy = inputs.entropy_parts.map(|_| gpu.output("entropy", rows));
        hold(gpu, &o, self.o.as_ref());
        hold(gpu, &lse, self.lse.as_ref());
        entropy.iter().for_each(|buffer| hold(gpu, buffer, self.entropy.as_ref()));
        let o_parts = gpu.upload(inputs.o_parts, &self.o_parts)?;
        let lse_parts = context.upload_view(&inputs.lse_parts)?;
        let entropy_parts = inputs.entropy_parts.map(|view| context.upload_view(&view)).transpose()?;
        let merge = Merge::new(context, self.config)?;
        let prepared = merge.prepare(
            MergeInputs {
                o_parts: o_parts.view(),
                lse_parts: lse_parts.view(),
                entropy_parts: entropy_parts.as_ref().map(Uploaded::view),
            },
            MergeOutputs { o: o.view(), lse: Some(lse.view()), entropy: entropy.as_ref().map(Buffer::view) },
        )?;
        gpu.execute(&prepared)?;
        gpu.read(&o)?;
        gpu.read(&lse)?;
        entropy.iter().try_for_each(|buffer| gpu.read(buffer))
    }
}

/// Fills an output with what it holds before the call, if anything.
fn hold<const RANK: usize>(gpu: &Gpu, buffer: &Buffer<RANK>, tensor: Option<&Tensor<f32, RANK>>) {
    let bytes: Vec<u8> = tensor.iter().flat_map(|tensor| tensor.data()).flat_map(|x| x.to_le_bytes()).collect();
    gpu.context.queue().write_buffer(&buffer.buffer, 0, &bytes);
}
