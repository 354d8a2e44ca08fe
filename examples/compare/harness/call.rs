//! What is timed: calls of this crate's ops, and kernels that stand beside them.

use wgpu_attention::{Context, Prepared, Result, Workspace, wgpu};

/// Steps that together are one call.
pub struct Call<'a> {
    pub steps: Vec<Step<'a>>,
    /// The fewest bytes it could move: every tensor of the caller's once.
    pub bytes: u64,
    /// Bytes of the buffers that carry results from one step to the next.
    pub carried_bytes: u64,
}

/// A step of a call.
pub enum Step<'a> {
    Op(Prepared<'a>),
    Kernel(Dispatch),
}

impl<'a> From<Prepared<'a>> for Call<'a> {
    fn from(prepared: Prepared<'a>) -> Self {
        Self { bytes: prepared.plan().bytes(), steps: vec![Step::Op(prepared)], carried_bytes: 0 }
    }
}

impl Call<'_> {
    /// Operations of the products.
    pub fn flops(&self) -> u64 {
        self.ops().map(|op| op.plan().flops()).sum()
    }

    pub fn dispatches(&self) -> usize {
        let of = |step: &Step| if let Step::Op(op) = step { op.plan().dispatches() } else { 1 };
        self.steps.iter().map(of).sum()
    }

    /// Bytes besides the caller's tensors; steps share a workspace.
    pub fn workspace_bytes(&self) -> u64 {
        self.carried_bytes + self.ops().map(|op| op.plan().workspace_bytes()).max().unwrap_or(0)
    }

    /// The kernels by label, joined by ` + `.
    pub fn kernel(&self) -> String {
        let label = |step: &Step| match step {
            Step::Op(op) => op.plan().kernel(),
            Step::Kernel(kernel) => kernel.label.into(),
        };
        self.steps.iter().map(label).collect::<Vec<_>>().join(" + ")
    }

    /// Submits it step by step; the ops are waited for.
    pub fn run(&self, context: &Context) -> Result<()> {
        for step in &self.steps {
            match step {
                Step::Op(prepared) => context.run(prepared)?,
                Step::Kernel(dispatch) => {
                    let mut encoder = context.device().create_command_encoder(&Default::default());
                    dispatch.record_in(&mut encoder.begin_compute_pass(&Default::default()));
                    context.queue().submit([encoder.finish()]);
                }
            }
        }
        Ok(())
    }

    pub fn record_in(&self, pass: &mut wgpu::ComputePass<'_>) {
        self.steps.iter().for_each(|step| step.record_in(pass));
    }

    /// One a step, for recording ops in pieces.
    pub fn workspaces(&self) -> Result<Vec<Option<Workspace>>> {
        let of = |step: &Step| if let Step::Op(op) = step { op.workspace().map(Some) } else { Ok(None) };
        self.steps.iter().map(of).collect()
    }

    fn ops(&self) -> impl Iterator<Item = &Prepared<'_>> {
        self.steps.iter().filter_map(|step| if let Step::Op(op) = step { Some(op) } else { None })
    }
}

impl Step<'_> {
    pub fn record_in(&self, pass: &mut wgpu::ComputePass<'_>) {
        match self {
            Self::Op(prepared) => prepared.record_in(pass),
            Self::Kernel(dispatch) => dispatch.record_in(pass),
        }
    }
}

/// A kernel that is no part of the library: a shader with two buffers, at bindings 0 and 1.
pub struct Kernel {
    label: &'static str,
    pipeline: wgpu::ComputePipeline,
}

/// A dispatch of one.
pub struct Dispatch {
    label: &'static str,
    pipeline: wgpu::ComputePipeline,
    bindings: wgpu::BindGroup,
    grid: [u32; 2],
}

impl Kernel {
    /// `constants` replace the shader's overrides.
    pub fn new(device: &wgpu::Device, label: &'static str, wgsl: &str, constants: &[(&str, f64)]) -> Self {
        let source = wgpu::ShaderSource::Wgsl(wgsl.into());
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor { label: Some(label), source });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(label),
            layout: None,
            module: &module,
            entry_point: Some("main"),
            // As the library's kernels are compiled.
            compilation_options: wgpu::PipelineCompilationOptions {
                constants,
                zero_initialize_workgroup_memory: false,
            },
            cache: None,
        });
        Self { label, pipeline }
    }

    pub fn dispatch(&self, device: &wgpu::Device, buffers: [&wgpu::Buffer; 2], grid: [u32; 2]) -> Dispatch {
        let entries =
            [0, 1].map(|at| wgpu::BindGroupEntry { binding: at, resource: buffers[at as usize].as_entire_binding() });
        let layout = &self.pipeline.get_bind_group_layout(0);
        let bindings =
            device.create_bind_group(&wgpu::BindGroupDescriptor { label: Some(self.label), layout, entries: &entries });
        Dispatch { label: self.label, pipeline: self.pipeline.clone(), bindings, grid }
    }
}

impl Dispatch {
    pub fn record_in(&self, pass: &mut wgpu::ComputePass<'_>) {
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.bindings, &[]);
        pass.dispatch_workgroups(self.grid[0], self.grid[1], 1);
    }
}
