//! From a list of kernels to dispatches in the caller's pass.

use std::collections::{HashMap, VecDeque};
use std::fmt::Display;
use std::hash::Hash;
use std::sync::{Arc, Mutex};

use crate::context::{Capabilities, Context};
use crate::pipelines::{Pipeline, lock};
use crate::tensor::{Bound, MAX_RANK};
use crate::wgsl::{Scalar, Specialization};
use crate::{Error, Result};

/// What a binding of a step refers to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Slot {
    /// A tensor of the op's operands, by its place among those that are given.
    Operand(usize),
    /// A region of the workspace, in bytes.
    Workspace { offset: u64, size: u64 },
}

/// What a kernel knows by one name: a binding, and the numbers of its uniform that say where the tensor lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    pub slot: Slot,
    pub start: u32,
    pub strides: [u32; MAX_RANK],
    /// What the uniform calls the strides.
    pub names: [&'static str; MAX_RANK],
}

/// Where scratch lies until the plan is whole: behind all else.
const SCRATCH: u64 = u64::MAX;

impl View {
    /// Of what a kernel does not have: all its numbers are 0.
    pub const NOWHERE: Self =
        Self { slot: Slot::Workspace { offset: 0, size: 0 }, start: 0, strides: [0; MAX_RANK], names: [""; MAX_RANK] };

    /// The same, from one of its rows on.
    pub fn rows_from(self, row: u32) -> Self {
        Self { start: self.start + row * self.strides[0], ..self }
    }

    /// Consecutive numbers.
    pub fn of_numbers(mut self) -> Self {
        (self.strides[0], self.names[0]) = (1, "stride");
        self
    }

    /// `start`, or a stride by its name.
    fn number(&self, name: &str) -> Option<u32> {
        match self.names.iter().position(|own| *own == name) {
            Some(axis) => Some(self.strides[axis]),
            None if matches!(self.slot, Slot::Workspace { size: 0, .. }) => Some(0),
            None => (name == "start").then_some(self.start),
        }
    }
}

impl From<Slot> for View {
    fn from(slot: Slot) -> Self {
        Self { slot, start: 0, strides: [0; MAX_RANK], names: [""; MAX_RANK] }
    }
}

/// What a kernel's names stand for, whatever the op.
pub(crate) trait Names {
    /// The size of an axis.
    fn size(&self, axis: &str) -> Option<u32>;
    /// An operand that is given.
    fn named(&self, operand: &str) -> Option<View>;
    /// Whether the op has such an operand, given or not, and that has such a number: `start`, or a stride.
    fn knows(&self, operand: &str, number: &str) -> bool;
}

/// A number of a kernel's uniform.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Value(Scalar, u32);

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self(Scalar::U32, value)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self(Scalar::U32, value.into())
    }
}

impl From<i32> for Value {
    fn from(value: i32) -> Self {
        Self(Scalar::I32, value.cast_unsigned())
    }
}

impl From<f32> for Value {
    fn from(value: f32) -> Self {
        Self(Scalar::F32, value.to_bits())
    }
}

/// One dispatch.
#[derive(Debug)]
struct Step {
    pipeline: Arc<Pipeline>,
    params: wgpu::Buffer,
    /// What they hold.
    numbers: Vec<u32>,
    /// `@binding` numbers and what stands there; 0 is the params.
    bindings: Vec<(u32, Slot)>,
    workgroups: [u32; 2],
}

/// What a call will do: the kernels that run, in order, and what they cost.
///
/// Made by each op's `plan`; a plan holds compiled pipelines and no tensors.
#[derive(Debug)]
pub struct Plan {
    steps: Vec<Step>,
    workspace_bytes: u64,
    flops: u64,
    bytes: u64,
    reason: String,
}

impl Plan {
    /// The kernels by label (file, then what it is specialized for), one per dispatch.
    pub fn kernels(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().map(|step| step.pipeline.label.as_str())
    }

    /// What they were compiled from, one per dispatch.
    #[doc(hidden)]
    pub fn specializations(&self) -> impl Iterator<Item = &Specialization> {
        self.steps.iter().map(|step| &step.pipeline.specialization)
    }

    /// What their uniforms hold, by the fields of [`Specialization::interface`].
    #[doc(hidden)]
    pub fn numbers(&self) -> impl Iterator<Item = &[u32]> {
        self.steps.iter().map(|step| step.numbers.as_slice())
    }

    /// The distinct kernels in order of first use, joined by ` + `.
    #[must_use]
    pub fn kernel(&self) -> String {
        let mut labels: Vec<&str> = Vec::new();
        for label in self.kernels() {
            if !labels.contains(&label) {
                labels.push(label);
            }
        }
        labels.join(" + ")
    }

    /// How many dispatches one call records; each is a piece that can be submitted on its own.
    #[must_use]
    pub fn dispatches(&self) -> usize {
        self.steps.len()
    }

    /// Bytes of workspace.
    #[must_use]
    pub fn workspace_bytes(&self) -> u64 {
        self.workspace_bytes
    }

    /// Floating-point operations by the usual count (two per multiply-add of the products, nothing for the weights).
    #[must_use]
    pub fn flops(&self) -> u64 {
        self.flops
    }

    /// The fewest bytes a kernel could move: every operand once. Of a softmax and its backward pass, what theirs move, which read long
    /// rows twice, or more often where columns are hidden by their scores.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Why these kernels.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Whether the context has forgotten one of its kernels.
    fn is_forgotten(&self) -> bool {
        self.steps.iter().any(|step| step.pipeline.is_forgotten())
    }

    /// The same plan, for one reason more.
    pub(crate) fn because(self, reason: &str) -> Self {
        Self { reason: format!("{}; {reason}", self.reason), ..self }
    }
}

/// A workspace of the caller's own, for recording a plan in pieces with other work, or submits, in between.
#[derive(Clone, Debug)]
pub struct Workspace {
    buffer: Option<wgpu::Buffer>,
}

/// Inputs, outputs and plan of one call, checked and ready to be recorded, as often as wanted.
///
/// Nothing about it can fail any more, but for a device that is lost. It borrows the tensors' buffers.
#[derive(Debug)]
pub struct Prepared<'a> {
    context: Context,
    plan: Arc<Plan>,
    /// Those that are given, in the order of the table.
    operands: Vec<Bound<'a>>,
}

impl<'a> Prepared<'a> {
    pub(crate) fn new(context: &Context, plan: Arc<Plan>, operands: Vec<Bound<'a>>) -> Self {
        Self { context: context.clone(), plan, operands }
    }

    /// The plan.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Records the whole call as a compute pass of its own; on a lost device, where nothing would come of it, nothing.
    pub fn record(&self, encoder: &mut wgpu::CommandEncoder) {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        self.record_in(&mut pass);
    }

    /// Records the whole call into a pass of the caller's, with the context's own workspace; on a lost device nothing.
    pub fn record_in(&self, pass: &mut wgpu::ComputePass<'_>) {
        // wgpu makes invalid bind groups there without a word, and complains of them in the `finish` of the caller.
        if self.context.is_lost() {
            return;
        }
        // The plan has made it large enough.
        self.record_steps(pass, &self.plan.steps, &Workspace { buffer: self.context.workspace() });
    }

    /// A workspace for [`record_piece`](Self::record_piece); reusable for every call with the same plan once the
    /// previous one was submitted.
    ///
    /// # Errors
    /// [`Error::Buffer`], [`Error::DeviceLost`].
    pub fn workspace(&self) -> Result<Workspace> {
        let bytes = self.plan.workspace_bytes;
        Ok(Workspace { buffer: (bytes > 0).then(|| self.context.create_workspace(bytes)).transpose()? })
    }

    /// Records one of the plan's [`dispatches`](Plan::dispatches). The pieces must run in order, all with the same
    /// workspace of this plan.
    ///
    /// # Errors
    /// [`Error::LimitExceeded`] for an index past the last, or a workspace too small for the plan; [`Error::DeviceLost`]. Nothing
    /// is recorded then.
    pub fn record_piece(&self, pass: &mut wgpu::ComputePass<'_>, piece: usize, workspace: &Workspace) -> Result<()> {
        let beyond = |what: &str, needed, limit| Error::LimitExceeded { what: what.into(), needed, limit };
        let size = workspace.buffer.as_ref().map_or(0, wgpu::Buffer::size);
        let (steps, bytes) = (&self.plan.steps, self.plan.workspace_bytes);
        let step = steps.get(piece).ok_or_else(|| beyond("piece", piece as u64 + 1, steps.len() as u64))?;
        if size < bytes {
            return Err(beyond("workspace", bytes, size));
        }
        self.context.expect_device()?;
        self.record_steps(pass, std::slice::from_ref(step), workspace);
        Ok(())
    }

    fn record_steps(&self, pass: &mut wgpu::ComputePass<'_>, steps: &[Step], workspace: &Workspace) {
        for step in steps {
            let params = wgpu::BindGroupEntry { binding: 0, resource: step.params.as_entire_binding() };
            let tensors = step.bindings.iter().filter_map(|&(binding, slot)| {
                let (buffer, offset, size) = match slot {
                    Slot::Operand(index) => {
                        let bound = self.operands.get(index)?;
                        (bound.buffer, bound.offset, bound.size)
                    }
                    Slot::Workspace { offset, size } => (workspace.buffer.as_ref()?, offset, size),
                };
                let resource = wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer,
                    offset,
                    size: wgpu::BufferSize::new(size),
                });
                Some(wgpu::BindGroupEntry { binding, resource })
            });
            let entries: Vec<_> = std::iter::once(params).chain(tensors).collect();
            let bind_group = self.context.device().create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(&step.pipeline.label),
                layout: &step.pipeline.layout,
                entries: &entries,
            });
            pass.set_pipeline(&step.pipeline.pipeline);
            pass.set_bind_group(0, &bind_group, &[]);
            pass.dispatch_workgroups(step.workgroups[0], step.workgroups[1], 1);
        }
    }
}

/// An op's plans by problem; forgets the oldest when full, and those whose kernels the context has forgotten.
#[derive(Debug)]
pub(crate) struct PlanCache<K>(Mutex<Plans<K>>);

#[derive(Debug)]
struct Plans<K> {
    by_problem: HashMap<K, Arc<Plan>>,
    /// Oldest first.
    order: VecDeque<K>,
}

impl<K> Default for PlanCache<K> {
    fn default() -> Self {
        Self(Mutex::new(Plans { by_problem: HashMap::new(), order: VecDeque::new() }))
    }
}

impl<K: Clone + Eq + Hash> PlanCache<K> {
    const CAPACITY: usize = 256;

    /// The problem's plan on this context, built on first use. No lock is held while building.
    pub fn get_or_build(
        &self,
        context: &Context,
        problem: K,
        build: impl FnOnce(&K) -> Result<Plan>,
    ) -> Result<Arc<Plan>> {
        context.expect_device()?;
        if let Some(plan) = lock(&self.0).by_problem.get(&problem) {
            plan.steps.iter().for_each(|step| context.pipelines().mark_used(&step.pipeline));
            return Ok(plan.clone());
        }
        let plan = Arc::new(build(&problem)?);
        let mut plans = lock(&self.0);
        let Plans { by_problem, order } = &mut *plans;
        by_problem.retain(|_, plan| !plan.is_forgotten());
        order.retain(|problem| by_problem.contains_key(problem));
        if plans.by_problem.insert(problem.clone(), plan.clone()).is_none() {
            plans.order.push_back(problem);
        }
        if plans.order.len() > Self::CAPACITY {
            if let Some(oldest) = plans.order.pop_front() {
                plans.by_problem.remove(&oldest);
            }
        }
        Ok(plan)
    }
}

/// Collects the steps of a plan.
pub(crate) struct PlanBuilder<'c> {
    context: &'c Context,
    names: &'c dyn Names,
    steps: Vec<Step>,
    workspace_bytes: u64,
    /// The most that was set aside at a time.
    most_bytes: u64,
    scratch_bytes: u64,
}

impl<'c> PlanBuilder<'c> {
    pub fn new(context: &'c Context, names: &'c dyn Names) -> Self {
        Self { context, names, steps: Vec::new(), workspace_bytes: 0, most_bytes: 0, scratch_bytes: 0 }
    }

    pub fn device(&self) -> &'c Capabilities {
        self.context.capabilities()
    }

    /// What kernels call by the name of an operand of the plan's own op.
    pub fn operand(&self, name: &str) -> Option<View> {
        self.names.named(name)
    }

    /// Refuses loops of an invocation that the driver would silently end too early.
    pub fn expect_loops(&self, what: impl Display, needed: u64) -> Result<()> {
        match self.device().loop_cap {
            Some(cap) if needed > cap.into() => {
                let reason = format!("{what}: {needed} loop iterations, this driver ends them after {cap}");
                Err(Error::Unsupported { reasons: vec![reason] })
            }
            _ => Ok(()),
        }
    }

    /// Bytes of workspace set aside so far.
    pub fn workspace_bytes(&self) -> u64 {
        self.workspace_bytes
    }

    /// Sets `bytes` of workspace aside; `what` names the content in errors.
    pub fn workspace(&mut self, what: &str, bytes: u64) -> Result<View> {
        let limits = &self.context.capabilities().limits;
        let check = |what: String, needed: u64, limit: u64| {
            if needed > limit { Err(Error::LimitExceeded { what, needed, limit }) } else { Ok(()) }
        };
        let size = bytes.checked_next_multiple_of(16).unwrap_or(u64::MAX);
        check(format!("{what}: bytes in one binding"), size, limits.max_storage_buffer_binding_size)?;
        let offset = self.workspace_bytes;
        let alignment = limits.min_storage_buffer_offset_alignment.max(16).into();
        let total = offset.saturating_add(size).checked_next_multiple_of(alignment).unwrap_or(u64::MAX);
        check(format!("{what}: bytes of workspace"), total, self.context.capabilities().options.max_workspace_bytes)?;
        check(format!("{what}: bytes of workspace"), total, limits.max_buffer_size)?;
        self.workspace_bytes = total;
        self.most_bytes = self.most_bytes.max(total);
        Ok(Slot::Workspace { offset, size }.into())
    }

    /// Adds dispatches; what they set aside is free for those that follow.
    pub fn in_passing<T>(&mut self, add: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let before = self.workspace_bytes;
        let added = add(self)?;
        self.workspace_bytes = before;
        Ok(added)
    }

    /// The same for what one dispatch leaves to the next: all scratch of a plan is one region, as large as the largest.
    pub fn scratch(&mut self, what: &str, bytes: u64) -> Result<View> {
        let before = (self.workspace_bytes, self.most_bytes);
        let View { slot, .. } = self.workspace(what, bytes)?;
        self.scratch_bytes = self.scratch_bytes.max(self.workspace_bytes - before.0);
        (self.workspace_bytes, self.most_bytes) = before;
        let size = if let Slot::Workspace { size, .. } = slot { size } else { 0 };
        Ok(Slot::Workspace { offset: SCRATCH, size }.into())
    }

    /// Adds a kernel over `workgroups` workgroups of about `flops` each, split where the work bound asks for it.
    ///
    /// Its bindings and the fields of its `Params` are filled by name. A binding is what `views` say, or else the op's operand. A
    /// field is the number among `values`, else the size of an axis, else the start or a stride of a view or an operand: `q_row`,
    /// which is 0 where there is no q. `first_workgroup` and `end_workgroup` are those of the dispatch: the kernel adds the first to
    /// its folded workgroup index and returns where that reaches the last (`shaders/shared/workgroup_index.wgsl`).
    pub fn dispatch(
        &mut self,
        specialization: &Specialization,
        workgroups: u64,
        flops: u64,
        values: &[(&str, Value)],
        views: &[(&str, View)],
    ) -> Result<()> {
        let capabilities = self.context.capabilities();
        let pipeline = self.context.pipeline(specialization)?;
        let limit = |what: &str, needed: u64, limit: u64| Error::LimitExceeded {
            what: format!("{}: {what}", pipeline.label),
            needed,
            limit,
        };
        let interface = &pipeline.interface;
        let storage_limit = capabilities.limits.max_storage_buffers_per_shader_stage;
        if interface.bindings.len() > storage_limit as usize {
            return Err(limit("storage buffers", interface.bindings.len() as u64, storage_limit.into()));
        }
        let named = |name: &str| views.iter().find(|(own, _)| *own == name).map(|(_, view)| *view);
        // Whatever is missing is a fault of the op's own, which every test of it meets.
        let fault = |message| Error::Pipeline { label: pipeline.label.clone(), message };
        let missing = |what: &str| fault(format!("no {what}"));
        let mut bindings = Vec::with_capacity(interface.bindings.len());
        for (binding, name) in &interface.bindings {
            let view = named(name).or_else(|| self.names.named(name));
            let view = view.ok_or_else(|| missing(&format!("tensor for {name}")))?;
            bindings.push((*binding, view.slot));
        }
        let mut params = Vec::with_capacity(interface.params.len());
        for (field, scalar) in &interface.params {
            let given = values.iter().find(|(own, _)| own == field).map(|(_, value)| *value);
            let size = || self.names.size(field).map(Value::from);
            let place = || {
                let (operand, number) = field.rsplit_once('_')?;
                let view = named(operand).or_else(|| self.names.named(operand));
                // What is not given, and what takes its place without having such a stride.
                let none = || self.names.knows(operand, number).then_some(0);
                view.and_then(|view| view.number(number)).or_else(none).map(Value::from)
            };
            let own = || ["first_workgroup", "end_workgroup"].contains(&field.as_str()).then(|| Value::from(0_u32));
            let value = given.or_else(size).or_else(place).or_else(own);
            let Value(got, bits) = value.ok_or_else(|| missing(&format!("value of {field}")))?;
            if got != *scalar {
                return Err(fault(format!("{field}: expected {scalar:?}, got {got:?}")));
            }
            if bits == 0 && *scalar != Scalar::F32 && interface.divisors.contains(field) {
                // No problem has such a size; were there one, its kernel would divide by it, unchecked.
                return Err(Error::Unsupported { reasons: vec![format!("{}: {field} is 0", pipeline.label)] });
            }
            params.push(bits);
        }

        let total = u32::try_from(workgroups).map_err(|_| limit("workgroups", workgroups, u32::MAX.into()))?;
        let widest = capabilities.limits.max_compute_workgroups_per_dimension.max(1);
        let by_work = (capabilities.options.max_flops_per_dispatch / flops.max(1)).max(1);
        let by_grid = u64::from(widest) * u64::from(widest);
        let count = by_work.min(by_grid).min(u64::from(total)).max(1) as u32;
        let mut first = 0;
        while first < total {
            let end = first.saturating_add(count).min(total);
            let x = (end - first).min(widest);
            for (bits, (field, _)) in params.iter_mut().zip(&interface.params) {
                match field.as_str() {
                    "first_workgroup" => *bits = first,
                    "end_workgroup" => *bits = end,
                    _ => {}
                }
            }
            let step = Step {
                pipeline: pipeline.clone(),
                params: self.context.uniform(bytemuck::cast_slice(&params))?,
                numbers: params.clone(),
                bindings: bindings.clone(),
                workgroups: [x, (end - first).div_ceil(x)],
            };
            self.steps.push(step);
            first = end;
        }
        Ok(())
    }

    /// The plan, with its workspace already set aside in the context.
    pub fn finish(mut self, flops: u64, bytes: u64, reason: String) -> Result<Plan> {
        self.workspace_bytes = self.most_bytes;
        if self.scratch_bytes > 0 {
            let end = self.workspace_bytes;
            self.workspace("scratch", self.scratch_bytes)?;
            for (_, slot) in self.steps.iter_mut().flat_map(|step| &mut step.bindings) {
                if let Slot::Workspace { offset, .. } = slot {
                    *offset = if *offset == SCRATCH { end } else { *offset };
                }
            }
        }
        if self.workspace_bytes > 0 {
            self.context.reserve_workspace(self.workspace_bytes)?;
        }
        Ok(Plan { steps: self.steps, workspace_bytes: self.workspace_bytes, flops, bytes, reason })
    }
}
