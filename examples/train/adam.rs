//! Parameters on the GPU, and the step by which their gradients change them.

use wgpu_attention::{Context, wgpu};

/// Numbers that are learned, with room for their gradient.
pub struct Parameter {
    pub value: wgpu::Buffer,
    pub gradient: wgpu::Buffer,
    moments: wgpu::Buffer,
    count: usize,
}

impl Parameter {
    pub fn new(context: &Context, values: &[f32]) -> Self {
        let count = values.len();
        let [gradient, moments] = [count, 2 * count].map(|count| context.allocate(count));
        Self { value: context.upload(values), gradient, moments, count }
    }
}

pub struct Adam {
    context: Context,
    pipeline: wgpu::ComputePipeline,
    /// Steps taken.
    taken: i32,
}

impl Adam {
    pub fn new(context: &Context) -> Self {
        let device = context.device();
        let module = device.create_shader_module(wgpu::include_wgsl!("adam.wgsl"));
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some("adam"),
            layout: None,
            module: &module,
            entry_point: Some("adam"),
            compilation_options: wgpu::PipelineCompilationOptions::default(),
            cache: None,
        });
        Self { context: context.clone(), pipeline, taken: 0 }
    }

    /// Moves all parameters against their gradients.
    pub fn step(&mut self, encoder: &mut wgpu::CommandEncoder, rate: f32, parameters: &[&Parameter]) {
        self.taken += 1;
        let rest = |beta: f32| 1.0 - beta.powi(self.taken);
        let step = self.context.upload(&[rate, rest(0.9), rest(0.999)]);
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        pass.set_pipeline(&self.pipeline);
        for parameter in parameters {
            let buffers = [&step, &parameter.gradient, &parameter.moments, &parameter.value];
            let entries: Vec<_> = (0..)
                .zip(buffers)
                .map(|(binding, buffer)| wgpu::BindGroupEntry { binding, resource: buffer.as_entire_binding() })
                .collect();
            let layout = self.pipeline.get_bind_group_layout(0);
            let descriptor = wgpu::BindGroupDescriptor { label: None, layout: &layout, entries: &entries };
            pass.set_bind_group(0, &self.context.device().create_bind_group(&descriptor), &[]);
            let workgroups = parameter.count.div_ceil(64) as u32;
            let width = workgroups.min(32_768);
            pass.dispatch_workgroups(width, workgroups.div_ceil(width), 1);
        }
    }
}
