//! A projection and the weights of the classes, trained by margin softmax, all on the GPU.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use rand::Rng;
use rand::rngs::StdRng;
use safetensors::tensor::TensorView as Stored;
use safetensors::{Dtype, SafeTensors};
use wgpu_attention::margin_softmax::{Arc, Margin};
use wgpu_attention::{
    Context, DType, MarginSoftmax, MarginSoftmaxBackward, MarginSoftmaxBackwardInputs, MarginSoftmaxConfig,
    MarginSoftmaxGradients, MarginSoftmaxInputs, MarginSoftmaxOutputs, MatMul, MatMulConfig, MatMulInputs,
    MatMulOutputs, Reduction, TensorView, wgpu,
};

use crate::adam::{Adam, Parameter};
use crate::matrix::matrix;
use crate::verses::{Verses, WIDTH};

/// Verses of a step.
pub const BATCH: u32 = 256;
/// Numbers of a projected verse.
const DIM: u32 = 384;

/// A loss and its name.
pub const LOSSES: [(&str, Margin); 4] = [
    ("softmax", Margin::None),
    ("AM-Softmax", Margin::Cosine { m: 0.35 }),
    ("ArcFace", Margin::Angular { m: 0.5, beyond: Arc::Monotone }),
    ("SphereFace, simple", Margin::SphereMin { m: 4 }),
];

pub struct Model {
    context: Context,
    classes: u32,
    projection: Parameter,
    class_weights: Parameter,
    adam: Adam,
    matmul: MatMul,
    loss: MarginSoftmax,
    loss_backward: MarginSoftmaxBackward,
    one: wgpu::Buffer,
}

impl Model {
    /// A projection that changes little at first, and random class weights.
    pub fn new(context: &Context, margin: Margin, scale: f32, classes: u32, rng: &mut StdRng) -> Result<Self> {
        let config = MarginSoftmaxConfig::new().margin(margin).scale(scale).reduction(Reduction::Mean);
        let class_weights: Vec<f32> = (0..classes * DIM).map(|_| rng.random_range(-1.0..1.0)).collect();
        Ok(Self {
            classes,
            projection: Parameter::new(context, &Projection::none().numbers),
            class_weights: Parameter::new(context, &class_weights),
            adam: Adam::new(context),
            matmul: MatMul::new(context, MatMulConfig::new())?,
            loss: MarginSoftmax::new(context, config)?,
            loss_backward: MarginSoftmaxBackward::new(context, config)?,
            one: context.upload(&[1.0_f32]),
            context: context.clone(),
        })
    }

    /// Learns from [`BATCH`] verses.
    pub fn step(&mut self, verses: &Verses, batch: &[usize], rate: f32) -> Result<()> {
        let (width, classes, context) = (WIDTH as u32, self.classes, self.context.clone());
        let features: Vec<f32> = batch.iter().flat_map(|&verse| verses.feature(verse)).copied().collect();
        let labels: Vec<u32> = batch.iter().map(|&verse| verses.chapters[verse]).collect();
        let (features, labels) = (context.upload(&features), context.upload(&labels));
        let [projected, dprojected] = [(); 2].map(|()| context.allocate((BATCH * DIM) as usize));
        let [loss, lse, others] = [1, BATCH, BATCH].map(|count| context.allocate(count as usize));
        let mut encoder = context.device().create_command_encoder(&Default::default());

        // y = x P.
        let x = matrix(&features, BATCH, width);
        let inputs = MatMulInputs::new(x, matrix(&self.projection.value, width, DIM));
        self.matmul.record(&mut encoder, inputs, MatMulOutputs::new(matrix(&projected, BATCH, DIM)))?;

        // The loss, and its gradients of y and of the class weights.
        let y = TensorView::f32(&projected, [BATCH, DIM]);
        let weights = [TensorView::f32(&self.class_weights.value, [classes, DIM])];
        let labels = TensorView::new(&labels, DType::U32, [BATCH]);
        let [lse, others] = [&lse, &others].map(|buffer| TensorView::f32(buffer, [BATCH]));
        let mut outputs = MarginSoftmaxOutputs::new(TensorView::f32(&loss, [1]));
        (outputs.lse, outputs.others) = (Some(lse), Some(others));
        self.loss.record(&mut encoder, MarginSoftmaxInputs::new(y, &weights, labels), outputs)?;
        let dloss = TensorView::f32(&self.one, [1]);
        let inputs = MarginSoftmaxBackwardInputs::new(y, &weights, labels, lse, others, dloss);
        let dweights = [TensorView::f32(&self.class_weights.gradient, [classes, DIM])];
        let mut gradients = MarginSoftmaxGradients::none();
        gradients.dfeatures = Some(TensorView::f32(&dprojected, [BATCH, DIM]));
        gradients.dweights = &dweights;
        self.loss_backward.record(&mut encoder, inputs, gradients)?;

        // dP = xᵀ dy.
        let inputs = MatMulInputs::new(x.swap_axes(2, 3), matrix(&dprojected, BATCH, DIM));
        let gradient = MatMulOutputs::new(matrix(&self.projection.gradient, width, DIM));
        self.matmul.record(&mut encoder, inputs, gradient)?;
        self.adam.step(&mut encoder, rate, &[&self.projection, &self.class_weights]);
        context.queue().submit([encoder.finish()]);
        Ok(())
    }

    pub fn projection(&self) -> Result<Projection> {
        Ok(Projection { numbers: self.context.download(&self.projection.value)? })
    }
}

/// What takes a verse's features to where verses of a chapter are near each other.
pub struct Projection {
    /// `[WIDTH, DIM]`.
    numbers: Vec<f32>,
}

const TENSOR: &str = "projection";

impl Projection {
    /// The one that changes nothing.
    pub fn none() -> Self {
        let numbers = (0..WIDTH as u32 * DIM).map(|i| f32::from(i / DIM == i % DIM)).collect();
        Self { numbers }
    }

    pub fn save(&self, path: &Path) -> Result<()> {
        let tensor = Stored::new(Dtype::F32, vec![WIDTH, DIM as usize], bytemuck::cast_slice(&self.numbers))?;
        let file = safetensors::serialize([(TENSOR, tensor)], None)?;
        std::fs::write(path, file).with_context(|| path.display().to_string())
    }

    pub fn load(path: &Path) -> Result<Self> {
        let what = || format!("{} (the example makes it when it trains)", path.display());
        let file = std::fs::read(path).with_context(what)?;
        let tensors = SafeTensors::deserialize(&file).with_context(what)?;
        let tensor = tensors.tensor(TENSOR).with_context(what)?;
        let expected = (Dtype::F32, [WIDTH, DIM as usize]);
        ensure!(
            (tensor.dtype(), tensor.shape()) == (expected.0, &expected.1),
            "{}: {TENSOR}: expected {expected:?}",
            path.display()
        );
        Ok(Self { numbers: bytemuck::pod_collect_to_vec(tensor.data()) })
    }

    /// Verses projected, each of norm 1.
    pub fn embed(&self, context: &Context, verses: &Verses, which: &[usize]) -> Result<Vec<Vec<f32>>> {
        let rows = which.len() as u32;
        let features: Vec<f32> = which.iter().flat_map(|&verse| verses.feature(verse)).copied().collect();
        let [features, projection] = [&features, &self.numbers].map(|data| context.upload(data));
        let projected = context.allocate((rows * DIM) as usize);
        let matmul = MatMul::new(context, MatMulConfig::new())?;
        let mut encoder = context.device().create_command_encoder(&Default::default());
        let inputs = MatMulInputs::new(matrix(&features, rows, WIDTH as u32), matrix(&projection, WIDTH as u32, DIM));
        matmul.record(&mut encoder, inputs, MatMulOutputs::new(matrix(&projected, rows, DIM)))?;
        context.queue().submit([encoder.finish()]);
        let normalised = |row: &[f32]| {
            let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
            row.iter().map(|x| x / norm).collect()
        };
        Ok(context.download(&projected)?.chunks_exact(DIM as usize).map(normalised).collect())
    }
}
