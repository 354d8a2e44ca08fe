//! Softmax attention beside Burn's: the call, its submission, and the copy of the output's values to the host.

use anyhow::Result;
use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Device, Tensor, TensorData};
use rand::{Rng, SeedableRng, rngs::StdRng};
use rand_distr::StandardNormal;
use wgpu_attention::attention::reference::{HostInputs, attention_row};
use wgpu_attention::reference::SumOrder;
use wgpu_attention::{
    Attention, AttentionConfig, AttentionInputs, AttentionOutputs, AttentionShapes, Causal, Context, HostView,
    TensorView, wgpu,
};

use crate::{Options, expect_right, in_turns, worst};

/// Of the output, whose elements are weighted means of standard normals.
const TOLERANCE: f64 = 1e-5;
const CHECKED_ROWS: usize = 512;

pub fn print_head() {
    println!(
        "{:>22} {:>6} {:>11} {:>11} {:>7} {:>11} {:>11}",
        "shape", "causal", "ours ms", "burn ms", "ratio", "ours err", "burn err"
    );
}

pub struct Case {
    pub shape: [usize; 4],
    pub causal: bool,
    pub q: Vec<f32>,
    pub k: Vec<f32>,
    pub v: Vec<f32>,
    /// Of the output.
    pub gradient: Vec<f32>,
}

impl Case {
    pub fn new(options: &Options, len: usize) -> Self {
        let shape = [options.batch, options.heads, len, options.head_dim];
        let mut rng = StdRng::seed_from_u64(len as u64);
        let mut normal = || (0..shape.iter().product()).map(|_| rng.sample(StandardNormal)).collect();
        Self { shape, causal: options.causal, q: normal(), k: normal(), v: normal(), gradient: normal() }
    }

    pub fn config(&self) -> AttentionConfig {
        AttentionConfig::new().causal(if self.causal { Causal::TopLeft } else { Causal::None })
    }

    pub fn run(&self, context: &Context, device: &Device, samples: usize) -> Result<()> {
        let config = self.config();
        let op = Attention::new(context, config)?;
        let [q, k, v] = [&self.q, &self.k, &self.v].map(|data| context.upload(data));
        let o = context.allocate(self.q.len());
        let shape = self.shape.map(|extent| extent as u32);
        let ours = || -> Result<Vec<f32>> {
            let mut encoder = context.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            let [q, k, v] = [&q, &k, &v].map(|buffer| TensorView::f32(buffer, shape));
            op.record(&mut encoder, AttentionInputs::new(q, k, v), AttentionOutputs::new(TensorView::f32(&o, shape)))?;
            context.queue().submit([encoder.finish()]);
            Ok(context.download(&o)?)
        };

        let tensor = |data: &[f32]| Tensor::<4>::from_data(TensorData::new(data.to_vec(), self.shape), device);
        let [q, k, v] = [&self.q, &self.k, &self.v].map(|data| tensor(data));
        let burn = || -> Result<Vec<f32>> {
            let options = AttentionModuleOptions { is_causal: self.causal, ..Default::default() };
            let o = attention(q.clone(), k.clone(), v.clone(), None, None, options);
            o.into_data().try_to_vec().map_err(|error| anyhow::anyhow!("Burn's output: {error:?}"))
        };

        let [batch, heads, len, head_dim] = shape;
        println!(
            "our kernel: {}",
            op.plan(&AttentionShapes::new(batch, heads, len, head_dim), wgpu_attention::DType::F32)?.kernel()
        );
        let errors = [self.error(&config, &ours()?)?, self.error(&config, &burn()?)?];
        expect_right(&self.shape, errors, TOLERANCE)?;
        let [ours, burn] = in_turns(samples, ours, burn)?;
        self.print([ours, burn], errors);
        Ok(())
    }

    /// The milliseconds and errors of ours and of Burn.
    pub fn print(&self, [ours, burn]: [f64; 2], [our_error, burn_error]: [f64; 2]) {
        println!(
            "{:>22} {:>6} {ours:>11.2} {burn:>11.2} {:>7.2} {our_error:>11.1e} {burn_error:>11.1e}",
            format!("{:?}", self.shape),
            self.causal,
            burn / ours,
        );
    }

    /// The largest error of an output against f64, over rows spread evenly.
    fn error(&self, config: &AttentionConfig, o: &[f32]) -> Result<f64> {
        let view = |data| HostView::new(data, self.shape);
        let inputs = HostInputs::new(view(&self.q)?, view(&self.k)?, view(&self.v)?);
        let [batch, heads, len, dim] = self.shape;
        let rows = batch * heads * len;
        let mut most = 0.0f64;
        // An odd step, so that all positions within a head are met.
        for row in (0..rows).step_by((rows / CHECKED_ROWS) | 1) {
            let want = attention_row::<f64>(
                config,
                &inputs,
                [row / len / heads, row / len % heads, row % len],
                SumOrder::InOrder,
            )?;
            most = most.max(worst(&o[row * dim..][..dim], &want.o));
        }
        Ok(most)
    }
}
