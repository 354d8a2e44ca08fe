//! Matrix products by tensor names.

use anyhow::Result;
use wgpu_attention::matmul::reference::{HostInputs, matmul_in};
use wgpu_attention::reference::{Real, SumOrder};
use wgpu_attention::{MatMul, MatMulConfig, MatMulInputs, MatMulOutputs, Uploaded};

use super::{Gpu, Output, Tensor, Tensors};

pub struct Call {
    pub config: MatMulConfig,
    a: Tensor<f32, 4>,
    b: Tensor<f32, 4>,
    bias: Option<Tensor<f32, 4>>,
}

impl Call {
    pub fn new(config: MatMulConfig, tensors: &mut Tensors) -> Result<Self> {
        let (a, b) = (tensors.required("a")?, tensors.required("b")?);
        Ok(Self { config, a, b, bias: tensors.broadcast("bias")? })
    }

    /// A batch or heads of 1 in one factor repeats for the other's.
    fn inputs(&self) -> Result<HostInputs<'_>> {
        let (a, b) = (self.a.view()?, self.b.view()?);
        let [a_shape, b_shape] = [a.shape(), b.shape()];
        let common = |axis: usize| if a_shape[axis] == 1 { b_shape[axis] } else { a_shape[axis] };
        let [batch, heads] = [common(0), common(1)];
        let bias = self.bias.as_ref().map(Tensor::view).transpose()?;
        Ok(HostInputs {
            a: a.broadcast_to([batch, heads, a_shape[2], a_shape[3]]),
            b: b.broadcast_to([batch, heads, b_shape[2], b_shape[3]]),
            bias: bias.map(|view| view.broadcast_to([batch, heads, a_shape[2], b_shape[3]])),
        })
    }

    fn shape(inputs: &HostInputs) -> Result<[u32; 4]> {
        let shapes = inputs.shapes()?;
        Ok([shapes.batch, shapes.heads, shapes.m, shapes.n])
    }

    pub fn twin<T: Real>(&self, order: SumOrder) -> Result<Vec<Output<T>>> {
        let inputs = self.inputs()?;
        let out = matmul_in(&self.config, &inputs, order)?;
        Ok(vec![Output::new("c", &Self::shape(&inputs)?, out.c)])
    }

    pub fn run(&self, gpu: &mut Gpu) -> Result<()> {
        let inputs = self.inputs()?;
        let c = gpu.main_output("c", Self::shape(&inputs)?);
        let (a, b) = (gpu.upload(inputs.a, &self.a)?, gpu.upload(inputs.b, &self.b)?);
        let bias = gpu.upload_if(inputs.bias, self.bias.as_ref())?;
        let product = MatMul::new(gpu.context, self.config)?;
        let inputs = MatMulInputs { a: a.view(), b: b.view(), bias: bias.as_ref().map(Uploaded::view) };
        let prepared = product.prepare(inputs, MatMulOutputs { c: c.view() })?;
        gpu.execute(&prepared)?;
        gpu.read(&c)
    }
}
