//! A linear layer and the gradient of its loss, all on the GPU.

use anyhow::Result;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use wgpu_attention::Reduction;
use wgpu_attention::multilabel_softmax::Labels;
use wgpu_attention::{
    Context, MatMul, MatMulConfig, MatMulInputs, MatMulOutputs, MultilabelSoftmax, MultilabelSoftmaxBackward,
    MultilabelSoftmaxBackwardInputs, MultilabelSoftmaxConfig, MultilabelSoftmaxGradients, MultilabelSoftmaxInputs,
    MultilabelSoftmaxOutputs, TensorView, wgpu,
};

use crate::WIDTH;
use crate::adam::{Adam, Parameter};
use crate::kernel::Kernel;
use crate::matrix::matrix;

/// Verses of a step.
pub const BATCH: u32 = 256;

#[derive(Clone, Copy, PartialEq)]
pub enum Loss {
    Zlpr,
    Sigmoid,
}

pub struct Model {
    context: Context,
    classes: u32,
    loss: Loss,
    weights: Parameter,
    bias: Parameter,
    adam: Adam,
    matmul: MatMul,
    zlpr: MultilabelSoftmax,
    zlpr_backward: MultilabelSoftmaxBackward,
    sigmoid: Kernel,
    /// One number a verse.
    ones: wgpu::Buffer,
}

impl Model {
    pub fn new(context: &Context, classes: u32, loss: Loss) -> Result<Self> {
        let mut rng = StdRng::seed_from_u64(7);
        let weights: Vec<f32> = (0..WIDTH * classes as usize).map(|_| rng.random_range(-0.05..0.05)).collect();
        let config = MultilabelSoftmaxConfig::new().labels(Labels::Soft).reduction(Reduction::Mean);
        Ok(Self {
            classes,
            loss,
            weights: Parameter::new(context, &weights),
            bias: Parameter::new(context, &vec![0.0; classes as usize]),
            adam: Adam::new(context),
            matmul: MatMul::new(context, MatMulConfig::new())?,
            zlpr: MultilabelSoftmax::new(context, config)?,
            zlpr_backward: MultilabelSoftmaxBackward::new(context, config)?,
            sigmoid: Kernel::new(context, wgpu::include_wgsl!("sigmoid.wgsl")),
            ones: context.upload(&[1.0_f32; BATCH as usize]),
            context: context.clone(),
        })
    }

    /// Scores of verses by their features, `[verses, classes]`.
    pub fn scores(&self, features: &[f32]) -> Result<Vec<f32>> {
        let rows = (features.len() / WIDTH) as u32;
        let (features, scores) = (self.context.upload(features), self.context.allocate((rows * self.classes) as usize));
        let mut encoder = self.context.device().create_command_encoder(&Default::default());
        self.forward(&mut encoder, &features, &scores, rows)?;
        self.context.queue().submit([encoder.finish()]);
        Ok(self.context.download(&scores)?)
    }

    fn forward(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        features: &wgpu::Buffer,
        scores: &wgpu::Buffer,
        rows: u32,
    ) -> Result<()> {
        let (width, classes) = (WIDTH as u32, self.classes);
        let bias = matrix(&self.bias.value, 1, classes).broadcast_to([1, 1, rows, classes]);
        let mut inputs = MatMulInputs::new(matrix(features, rows, width), matrix(&self.weights.value, width, classes));
        inputs.bias = Some(bias);
        Ok(self.matmul.record(encoder, inputs, MatMulOutputs::new(matrix(scores, rows, classes)))?)
    }

    /// Learns from [`BATCH`] verses.
    pub fn step(&mut self, features: &[f32], labels: &[f32], rate: f32) -> Result<()> {
        let (width, classes, context) = (WIDTH as u32, self.classes, self.context.clone());
        let [features, labels] = [features, labels].map(|data| context.upload(data));
        let [scores, dscores] = [(); 2].map(|()| context.allocate((BATCH * classes) as usize));
        let mut encoder = context.device().create_command_encoder(&Default::default());
        self.forward(&mut encoder, &features, &scores, BATCH)?;
        match self.loss {
            Loss::Zlpr => self.zlpr_gradient(&mut encoder, &scores, &labels, &dscores)?,
            Loss::Sigmoid => {
                let elements = (BATCH * classes) as usize;
                self.sigmoid.record(&mut encoder, &[&scores, &labels, &dscores], elements);
            }
        }
        // dW = Fᵀ dS, db = 1ᵀ dS.
        let dscores = matrix(&dscores, BATCH, classes);
        let by_feature = matrix(&features, BATCH, width).swap_axes(2, 3);
        let weights = MatMulOutputs::new(matrix(&self.weights.gradient, width, classes));
        self.matmul.record(&mut encoder, MatMulInputs::new(by_feature, dscores), weights)?;
        let bias = MatMulOutputs::new(matrix(&self.bias.gradient, 1, classes));
        self.matmul.record(&mut encoder, MatMulInputs::new(matrix(&self.ones, 1, BATCH), dscores), bias)?;
        self.adam.step(&mut encoder, rate, &[&self.weights, &self.bias]);
        context.queue().submit([encoder.finish()]);
        Ok(())
    }

    fn zlpr_gradient(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        scores: &wgpu::Buffer,
        labels: &wgpu::Buffer,
        dscores: &wgpu::Buffer,
    ) -> Result<()> {
        let [loss, neg, pos] = [1, BATCH, BATCH].map(|count| self.context.allocate(count as usize));
        let [scores, labels, dscores] =
            [scores, labels, dscores].map(|buffer| TensorView::f32(buffer, [BATCH, self.classes]));
        let [neg, pos] = [&neg, &pos].map(|buffer| TensorView::f32(buffer, [BATCH]));
        let inputs = MultilabelSoftmaxInputs { soft_labels: Some(labels), ..MultilabelSoftmaxInputs::new(scores) };
        self.zlpr.record(encoder, inputs, MultilabelSoftmaxOutputs::saved(TensorView::f32(&loss, [1]), neg, pos))?;
        let inputs = MultilabelSoftmaxBackwardInputs {
            soft_labels: Some(labels),
            ..MultilabelSoftmaxBackwardInputs::new(scores, neg, pos, TensorView::f32(&self.ones, [1]))
        };
        let gradients = MultilabelSoftmaxGradients { dscores: Some(dscores), ..MultilabelSoftmaxGradients::none() };
        Ok(self.zlpr_backward.record(encoder, inputs, gradients)?)
    }
}
