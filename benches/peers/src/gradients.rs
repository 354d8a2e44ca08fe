//! Softmax attention and its gradients beside Burn's automatic ones: both passes, their submission, and the copy of the gradients of q, k
//! and v to the host.

use anyhow::{Context as _, Result};
use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Device, Tensor, TensorData};
use wgpu_attention::attention_backward::reference::{HostInputs, attention_backward};
use wgpu_attention::{
    Attention, AttentionBackward, AttentionBackwardInputs, AttentionBackwardShapes, AttentionGradients,
    AttentionInputs, AttentionOutputs, Context, HostView, TensorView, wgpu,
};

use crate::attention::Case;
use crate::{expect_right, in_turns, worst};

/// Of the gradients, relative to the largest of each.
const TOLERANCE: f64 = 1e-5;

pub fn run(case: &Case, context: &Context, device: &Device, samples: usize) -> Result<()> {
    let shape = case.shape.map(|extent| extent as u32);
    let [batch, heads, len, head_dim] = shape;
    let forward = Attention::new(context, case.config())?;
    let backward = AttentionBackward::new(context, case.config())?;
    let [q, k, v, dout] = [&case.q, &case.k, &case.v, &case.gradient].map(|data| context.upload(data));
    let [o, dq, dk, dv] = [(); 4].map(|()| context.allocate(case.q.len()));
    let lse = context.allocate((batch * heads * len) as usize);
    let ours = || -> Result<[Vec<f32>; 3]> {
        let mut encoder = context.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let view = |buffer| TensorView::f32(buffer, shape);
        let [q, k, v, o, dout] = [&q, &k, &v, &o, &dout].map(view);
        let lse = TensorView::f32(&lse, [batch, heads, len]);
        let outputs = AttentionOutputs { lse: Some(lse), ..AttentionOutputs::new(o) };
        forward.record(&mut encoder, AttentionInputs::new(q, k, v), outputs)?;
        let gradients = AttentionGradients::new(view(&dq), view(&dk), view(&dv));
        backward.record(&mut encoder, AttentionBackwardInputs::new(q, k, v, o, lse, dout), gradients)?;
        context.queue().submit([encoder.finish()]);
        Ok([context.download(&dq)?, context.download(&dk)?, context.download(&dv)?])
    };

    let device = device.clone().autodiff();
    let tensor = |data: &[f32]| Tensor::<4>::from_data(TensorData::new(data.to_vec(), case.shape), &device);
    let factors = [&case.q, &case.k, &case.v].map(|data| tensor(data).require_grad());
    let gradient = tensor(&case.gradient);
    let burn = || -> Result<[Vec<f32>; 3]> {
        let options = AttentionModuleOptions { is_causal: case.causal, ..Default::default() };
        let [q, k, v] = factors.clone();
        let loss = (attention(q, k, v, None, None, options) * gradient.clone()).sum();
        let gradients = loss.backward();
        let mut read = Vec::new();
        for factor in &factors {
            let data = factor.grad(&gradients).context("Burn has no gradient of a factor")?.into_data();
            read.push(data.try_to_vec().map_err(|error| anyhow::anyhow!("Burn's gradient: {error:?}"))?);
        }
        read.try_into().map_err(|_| anyhow::anyhow!("Burn has not three gradients"))
    };

    let plan = backward.plan(&AttentionBackwardShapes::new(batch, heads, len, head_dim), wgpu_attention::DType::F32)?;
    println!("our gradients: {}, workspace {} KiB", plan.kernel(), plan.workspace_bytes() / 1024);
    let (our_gradients, burn_gradients) = (ours()?, burn()?);
    let want = of_first_head(case, &context.download(&o)?, &context.download(&lse)?)?;
    let errors = [&our_gradients, &burn_gradients].map(|got| error(got, &want));
    expect_right(&case.shape, errors, TOLERANCE)?;
    case.print(in_turns(samples, ours, burn)?, errors);
    Ok(())
}

/// dq, dk and dv in f64; one head says as much as all, and takes seconds.
fn of_first_head(case: &Case, o: &[f32], lse: &[f32]) -> Result<[Vec<f64>; 3]> {
    let [_, _, len, head_dim] = case.shape;
    let matrix = |data| HostView::new(data, [1, 1, len, head_dim]);
    let [q, k, v, o, dout] = [&case.q, &case.k, &case.v, o, &case.gradient].map(|data| &data[..len * head_dim]);
    let lse = HostView::new(&lse[..len], [1, 1, len])?;
    let inputs =
        HostInputs { dout: Some(matrix(dout)?), ..HostInputs::of(matrix(q)?, matrix(k)?, matrix(v)?, matrix(o)?, lse) };
    let want = attention_backward(&case.config(), &inputs)?;
    Ok([want.dq, want.dk, want.dv])
}

/// The largest error of the first head, relative to the largest number of its gradient.
fn error(got: &[Vec<f32>; 3], want: &[Vec<f64>; 3]) -> f64 {
    let relative =
        |(got, want): (&Vec<f32>, &Vec<f64>)| worst(got, want) / want.iter().fold(0.0f64, |most, x| most.max(x.abs()));
    got.iter().zip(want).map(relative).fold(0.0, f64::max)
}
