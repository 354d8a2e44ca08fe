//! Parameters on the GPU, and the step by which their gradients change them.

use wgpu_attention::{Context, wgpu};

use crate::kernel::Kernel;

/// Numbers that are learned, with room for their gradient.
pub struct Parameter {
    pub value: wgpu::Buffer,
    pub gradient: wgpu::Buffer,
    /// First and second, side by side.
    pub moments: wgpu::Buffer,
    pub count: usize,
}

impl Parameter {
    pub fn new(context: &Context, values: &[f32]) -> Self {
        let count = values.len();
        let [gradient, moments] = [count, 2 * count].map(|count| context.allocate(count));
        Self { value: context.upload(values), gradient, moments, count }
    }
}

/// How far a step goes that falls from `rate` to 0 along a cosine.
pub fn falling(rate: f32, step: u32, steps: u32) -> f32 {
    rate * 0.5 * (1.0 + (std::f32::consts::PI * step as f32 / steps as f32).cos())
}

pub struct Adam {
    context: Context,
    kernel: Kernel,
    /// Steps taken.
    pub taken: i32,
}

impl Adam {
    pub fn new(context: &Context) -> Self {
        let kernel = Kernel::new(context, wgpu::include_wgsl!("adam.wgsl"));
        Self { context: context.clone(), kernel, taken: 0 }
    }

    /// Moves all parameters against their gradients.
    pub fn step(&mut self, encoder: &mut wgpu::CommandEncoder, rate: f32, parameters: &[&Parameter]) {
        self.taken += 1;
        let rest = |beta: f32| 1.0 - beta.powi(self.taken);
        let step = self.context.upload(&[rate, rest(0.9), rest(0.999)]);
        for parameter in parameters {
            let buffers = [&step, &parameter.gradient, &parameter.moments, &parameter.value];
            self.kernel.record(encoder, &buffers, parameter.count);
        }
    }
}
