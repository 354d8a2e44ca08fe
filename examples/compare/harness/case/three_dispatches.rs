//! Softmax attention as three dispatches: what one kernel that holds no scores is to be measured by.

use std::f64::consts::LOG2_E;

use wgpu_attention::wgpu::{self, util::DeviceExt};
use wgpu_attention::{
    Causal, Context, Error, MatMul, MatMulConfig, MatMulInputs, MatMulOutputs, Result, Scale, TensorView,
};

use super::super::call::{Call, Kernel, Step};
use super::super::tensors::{Tensors, elements};
use super::attention::SoftmaxCase;
use super::{Arithmetic, Case, Part, Twin};

/// q kᵀ by the crate's own matrix product, a softmax of its rows, and their product with v. It scales the scores where the
/// softmax has them in registers.
pub struct ThreeDispatches<'t> {
    context: Context,
    tensors: &'t Tensors,
    /// The same by one kernel, for its twin.
    fused: SoftmaxCase<'t>,
    product: MatMul,
    softmax: Kernel,
    params: wgpu::Buffer,
    scores: wgpu::Buffer,
}

impl<'t> ThreeDispatches<'t> {
    pub fn new(context: &Context, tensors: &'t Tensors) -> Result<Self> {
        let shape = &tensors.shape;
        if shape.causal || shape.kv_heads != shape.heads || !shape.len.is_multiple_of(4) {
            let reason = "three dispatches know neither masks nor grouped heads, and rows of scores come in fours";
            return Err(Error::Unsupported { reasons: vec![reason.into()] });
        }
        let scale = LOG2_E / f64::from(shape.head_dim).sqrt();
        // On a CPU, the invocations of one vector: a barrier between several costs more than the row.
        let vector = context.capabilities().subgroup_size.unwrap_or(8);
        let workgroup = if context.capabilities().is_cpu { vector } else { 64 };
        let params = [shape.len / 4, (scale as f32).to_bits()];
        Ok(Self {
            context: context.clone(),
            tensors,
            fused: SoftmaxCase::new(context, Causal::None, Scale::InvSqrtDim, tensors)?,
            product: MatMul::new(context, MatMulConfig::new().matrices(shape.matrices))?,
            softmax: Kernel::new(
                context.device(),
                "softmax",
                include_str!("softmax.wgsl"),
                &[("WORKGROUP", workgroup.into())],
            ),
            params: context.device().create_buffer_init(&wgpu::util::BufferInitDescriptor {
                label: Some("softmax"),
                contents: &params.map(u32::to_le_bytes).concat(),
                usage: wgpu::BufferUsages::UNIFORM,
            }),
            scores: context.allocate(elements(Self::scores_shape(tensors))),
        })
    }

    fn scores_shape(tensors: &Tensors) -> [u32; 4] {
        let [batch, heads, len] = tensors.shape.rows();
        [batch, heads, len, len]
    }
}

impl Case for ThreeDispatches<'_> {
    fn prepare(&self) -> Result<Call<'_>> {
        let Self { tensors, product, .. } = self;
        let [batch, heads, len] = tensors.shape.rows();
        let scores = TensorView::f32(&self.scores, Self::scores_shape(tensors));
        let inputs = MatMulInputs::new(tensors.q(), tensors.k().swap_axes(2, 3));
        let q_k = product.prepare(inputs, MatMulOutputs { c: scores })?;
        let softmax = self.softmax.dispatch(self.context.device(), [&self.params, &self.scores], [len, batch * heads]);
        let p_v = product.prepare(MatMulInputs::new(scores, tensors.v()), MatMulOutputs { c: tensors.o() })?;
        Ok(Call {
            bytes: self.fused.prepare()?.bytes,
            steps: vec![Step::Op(q_k), Step::Kernel(softmax), Step::Op(p_v)],
            carried_bytes: self.scores.size(),
        })
    }

    fn by_matrices(&self) -> bool {
        self.fused.by_matrices()
    }

    fn parts(&self, work: u64) -> Vec<Part> {
        self.fused.parts(work)
    }

    fn twin(&self, part: &Part, arithmetic: Arithmetic) -> Result<Twin> {
        self.fused.twin(part, arithmetic)
    }

    fn weight_ulps(&self, truth: &Twin) -> f64 {
        self.fused.weight_ulps(truth)
    }
}
