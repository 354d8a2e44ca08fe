//! A kernel of an example's own: its buffers at bindings 0, 1 and so on, an invocation for each element.

use wgpu_attention::{Context, wgpu};

pub struct Kernel {
    context: Context,
    pipeline: wgpu::ComputePipeline,
}

/// Invocations of a workgroup, as the shaders here have them.
const WORKGROUP: usize = 64;
/// Workgroups of a row of the grid.
const WIDEST: u32 = 32_768;

impl Kernel {
    /// The one entry point of a shader.
    pub fn new(context: &Context, shader: wgpu::ShaderModuleDescriptor<'_>) -> Self {
        let module = context.device().create_shader_module(shader);
        let pipeline = context.device().create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: None,
            layout: None,
            module: &module,
            entry_point: None,
            compilation_options: wgpu::PipelineCompilationOptions::default(),
            cache: None,
        });
        Self { context: context.clone(), pipeline }
    }

    pub fn record(&self, encoder: &mut wgpu::CommandEncoder, buffers: &[&wgpu::Buffer], elements: usize) {
        let resources = buffers.iter().map(|buffer| buffer.as_entire_binding());
        let entries = (0..).zip(resources).map(|(binding, resource)| wgpu::BindGroupEntry { binding, resource });
        let entries: Vec<_> = entries.collect();
        let layout = self.pipeline.get_bind_group_layout(0);
        let descriptor = wgpu::BindGroupDescriptor { label: None, layout: &layout, entries: &entries };
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.context.device().create_bind_group(&descriptor), &[]);
        let workgroups = elements.div_ceil(WORKGROUP) as u32;
        let width = workgroups.min(WIDEST);
        pass.dispatch_workgroups(width, workgroups.div_ceil(width), 1);
    }
}
