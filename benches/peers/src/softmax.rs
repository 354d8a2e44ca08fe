//! The softmax of rows beside Burn's: the call, its submission, and the wait until the output is there.

use anyhow::{Context as _, Result, anyhow};
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor, TensorData};
use rand::{Rng, SeedableRng, rngs::StdRng};
use rand_distr::StandardNormal;
use wgpu_attention::softmax::reference::{self, HostInputs};
use wgpu_attention::{Context, HostView, Softmax, SoftmaxConfig, SoftmaxInputs, SoftmaxOutputs, TensorView, wgpu};

use crate::{expect_right, in_turns};

/// Of a probability, relative: WGSL grants exp(x) a few ULP and two for each unit of |x|.
const TOLERANCE: f64 = 1e-5;

/// Rows and columns of an option.
pub fn shape(text: &str) -> Result<[usize; 2]> {
    let (rows, columns) = text.split_once('x').context("expected ROWSxCOLUMNS")?;
    Ok([rows.parse()?, columns.parse()?])
}

pub fn print_head() {
    println!(
        "{:>18} {:>11} {:>11} {:>7} {:>11} {:>11}  our kernel",
        "shape", "ours ms", "burn ms", "ratio", "ours err", "burn err"
    );
}

pub fn run(shape: [usize; 2], context: &Context, device: &Device, samples: usize) -> Result<()> {
    let mut rng = StdRng::seed_from_u64(shape[1] as u64);
    let data: Vec<f32> = (0..shape.iter().product()).map(|_| rng.sample(StandardNormal)).collect();
    let config = SoftmaxConfig::new();

    let op = Softmax::new(context, config)?;
    let (x, p) = (context.upload(&data), context.allocate(data.len()));
    let [x, p_view] = [&x, &p].map(|buffer| TensorView::f32(buffer, shape.map(|extent| extent as u32)));
    let ours = || -> Result<()> {
        let mut encoder = context.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        op.record(&mut encoder, SoftmaxInputs::new(x), SoftmaxOutputs::new(p_view))?;
        context.queue().submit([encoder.finish()]);
        context.device().poll(wgpu::PollType::wait_indefinitely())?;
        Ok(())
    };
    let tensor = Tensor::<2>::from_data(TensorData::new(data.clone(), shape), device);
    let burn = || -> Result<()> {
        let _p = softmax(tensor.clone(), 1);
        device.sync().map_err(|error| anyhow!("Burn's device: {error:?}"))
    };

    let want = reference::softmax(&config, &HostInputs::new(HostView::new(&data, shape)?))?.p;
    ours()?;
    let of_burn = softmax(tensor.clone(), 1).into_data().try_to_vec::<f32>();
    let of_burn = of_burn.map_err(|error| anyhow!("Burn's output: {error:?}"))?;
    let errors = [error(&context.download(&p)?, &want), error(&of_burn, &want)];
    expect_right(&shape, errors, TOLERANCE)?;

    let [ours, burn] = in_turns(samples, ours, burn)?;
    let kernel = op.prepare(SoftmaxInputs::new(x), SoftmaxOutputs::new(p_view))?.plan().reason().to_owned();
    println!(
        "{:>18} {ours:>11.2} {burn:>11.2} {:>7.2} {:>11.1e} {:>11.1e}  {kernel}",
        format!("{} x {}", shape[0], shape[1]),
        burn / ours,
        errors[0],
        errors[1]
    );
    Ok(())
}

/// The largest relative error of a probability; NaN, or one that is missing, is the worst there is.
fn error(got: &[f32], want: &[f64]) -> f64 {
    let of = |(got, want): (&f32, &f64)| {
        let off = (f64::from(*got) - want).abs() / want;
        if off.is_nan() { f64::INFINITY } else { off }
    };
    if got.len() == want.len() { got.iter().zip(want).map(of).fold(0.0, f64::max) } else { f64::INFINITY }
}
