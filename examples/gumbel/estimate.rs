//! Gradients of the mean cost, one a sample.

use anyhow::Result;
use wgpu_attention::{
    Context, DType, GumbelKind, GumbelSoftmax, GumbelSoftmaxBackward, GumbelSoftmaxBackwardInputs, GumbelSoftmaxConfig,
    GumbelSoftmaxGradients, GumbelSoftmaxInputs, GumbelSoftmaxOutputs, MatMul, MatMulConfig, MatMulInputs,
    MatMulOutputs, TensorView, gumbel_softmax, wgpu,
};

use crate::problem::{CLASSES, Problem, WIDTH};

#[derive(Clone, Copy, PartialEq)]
pub enum Estimator {
    /// The cost of the relaxed sample, and its gradient.
    Soft,
    /// The cost of the one-hot, and the relaxed sample's gradient.
    StraightThrough,
    /// f(z) ∇ log p(z).
    ScoreFunction,
    /// The same with the mean cost of the other samples taken off f(z).
    ScoreFunctionWithBaseline,
}

impl Estimator {
    pub const ALL: [Self; 4] =
        [Self::Soft, Self::StraightThrough, Self::ScoreFunction, Self::ScoreFunctionWithBaseline];

    pub fn name(self) -> &'static str {
        match self {
            Self::Soft => "soft",
            Self::StraightThrough => "straight-through",
            Self::ScoreFunction => "score function",
            Self::ScoreFunctionWithBaseline => "score function, baseline",
        }
    }
}

pub struct Estimators<'a> {
    context: Context,
    problem: &'a Problem,
    /// A and −b on the GPU.
    a: wgpu::Buffer,
    minus_b: wgpu::Buffer,
    soft: Relaxed,
    hard: Relaxed,
    sample: GumbelSoftmax,
    matmul: MatMul,
}

/// A relaxed sample, or the one-hot in its place, and what flows back.
struct Relaxed {
    forward: GumbelSoftmax,
    backward: GumbelSoftmaxBackward,
}

impl Relaxed {
    fn new(context: &Context, kind: GumbelKind) -> Result<Self> {
        let config = GumbelSoftmaxConfig::new().kind(kind);
        Ok(Self {
            forward: GumbelSoftmax::new(context, config)?,
            backward: GumbelSoftmaxBackward::new(context, config)?,
        })
    }
}

const WIDE: u32 = CLASSES as u32;
const DEEP: u32 = WIDTH as u32;

impl<'a> Estimators<'a> {
    pub fn new(context: &Context, problem: &'a Problem) -> Result<Self> {
        let minus_b: Vec<f32> = problem.b.iter().map(|b| -b).collect();
        let sample = GumbelSoftmaxConfig::new().kind(GumbelKind::Sample);
        Ok(Self {
            context: context.clone(),
            problem,
            a: context.upload(&problem.a),
            minus_b: context.upload(&minus_b),
            soft: Relaxed::new(context, GumbelKind::Soft)?,
            hard: Relaxed::new(context, GumbelKind::Hard)?,
            sample: GumbelSoftmax::new(context, sample)?,
            matmul: MatMul::new(context, MatMulConfig::new())?,
        })
    }

    /// `[samples, CLASSES]`; no two pairs of seed and step draw the same.
    pub fn gradients(
        &self,
        estimator: Estimator,
        logits: &[f32],
        tau: f32,
        samples: u32,
        (seed, step): (u64, u32),
    ) -> Result<Vec<f32>> {
        let logits_buffer = self.context.upload(logits);
        let key = self.context.upload(&gumbel_softmax::key(seed, 0, step, 0));
        // Every row draws from the same distribution.
        let rows = TensorView::f32(&logits_buffer, [1, WIDE]).broadcast_to([samples, WIDE]);
        let key = TensorView::new(&key, DType::U32, [5]);
        match estimator {
            Estimator::Soft => self.through_samples(&self.soft, rows, key, tau, samples),
            Estimator::StraightThrough => self.through_samples(&self.hard, rows, key, tau, samples),
            Estimator::ScoreFunction => self.score_function(logits, rows, key, samples, false),
            Estimator::ScoreFunctionWithBaseline => self.score_function(logits, rows, key, samples, true),
        }
    }

    /// y, then dy = Aᵀ (A y − b), then what that is in terms of logits.
    fn through_samples(
        &self,
        op: &Relaxed,
        logits: TensorView<'_, 2>,
        key: TensorView<'_, 1>,
        tau: f32,
        samples: u32,
    ) -> Result<Vec<f32>> {
        let context = &self.context;
        let [y, off, dy, dlogits] = [WIDE, DEEP, WIDE, WIDE].map(|width| context.allocate((samples * width) as usize));
        // A tensor, so that annealing plans nothing anew.
        let tau = context.upload(&[tau]);
        let tau = Some(TensorView::f32(&tau, [1]));
        let mut encoder = context.device().create_command_encoder(&Default::default());
        let inputs = GumbelSoftmaxInputs { tau, ..GumbelSoftmaxInputs::new(logits, key) };
        op.forward.record(&mut encoder, inputs, GumbelSoftmaxOutputs::new(TensorView::f32(&y, [samples, WIDE])))?;

        let a = TensorView::f32(&self.a, [1, 1, DEEP, WIDE]);
        let off_view = TensorView::f32(&off, [1, 1, samples, DEEP]);
        let mut inputs = MatMulInputs::new(TensorView::f32(&y, [1, 1, samples, WIDE]), a.swap_axes(2, 3));
        inputs.bias = Some(TensorView::f32(&self.minus_b, [1, 1, 1, DEEP]).broadcast_to([1, 1, samples, DEEP]));
        self.matmul.record(&mut encoder, inputs, MatMulOutputs::new(off_view))?;
        let outputs = MatMulOutputs::new(TensorView::f32(&dy, [1, 1, samples, WIDE]));
        self.matmul.record(&mut encoder, MatMulInputs::new(off_view, a), outputs)?;

        let dy = TensorView::f32(&dy, [samples, WIDE]);
        let gradients = GumbelSoftmaxGradients::new(TensorView::f32(&dlogits, [samples, WIDE]));
        let inputs = GumbelSoftmaxBackwardInputs { tau, ..GumbelSoftmaxBackwardInputs::new(logits, key, dy) };
        op.backward.record(&mut encoder, inputs, gradients)?;
        context.queue().submit([encoder.finish()]);
        Ok(context.download(&dlogits)?)
    }

    /// f(z) (z − p), z drawn on the GPU.
    fn score_function(
        &self,
        logits: &[f32],
        rows: TensorView<'_, 2>,
        key: TensorView<'_, 1>,
        samples: u32,
        baseline: bool,
    ) -> Result<Vec<f32>> {
        let context = &self.context;
        let index = context.allocate(samples as usize);
        let mut encoder = context.device().create_command_encoder(&Default::default());
        self.sample.record(
            &mut encoder,
            GumbelSoftmaxInputs::new(rows, key),
            GumbelSoftmaxOutputs::of_index(TensorView::new(&index, DType::U32, [samples])),
        )?;
        context.queue().submit([encoder.finish()]);
        let drawn = context.download_u32(&index)?;
        let p = Problem::probabilities(logits);
        let sum: f64 = drawn.iter().map(|&class| self.problem.cost(class as usize)).sum();
        let mut gradients = Vec::with_capacity(drawn.len() * CLASSES);
        for class in drawn.iter().map(|&class| class as usize) {
            let cost = self.problem.cost(class);
            let others = if baseline { (sum - cost) / f64::from(samples - 1) } else { 0.0 };
            let of = |j: usize| (cost - others) * (f64::from(u8::from(j == class)) - p[j]);
            gradients.extend((0..CLASSES).map(|j| of(j) as f32));
        }
        Ok(gradients)
    }
}
