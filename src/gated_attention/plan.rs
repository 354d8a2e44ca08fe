//! Which kernels run for a problem, and with what numbers.

use std::ops::Range;

use super::config::{GatedAttentionConfig, GauMode, LinearDivisor};
use super::kernels::{
    self, CombineParams, FLAT_WORKGROUP, GatherParams, PrefixParams, StateParams, WalkParams, Weighing, slot,
};
use super::offers::Offer;
use super::shapes::GatedAttentionShapes;
use super::tiles::{Choice, heads, rows_that_share, select};
use crate::context::{Capabilities, Context};
use crate::dispatch::{Plan, PlanBuilder, Slot};
use crate::tensor::{Access, DType, Layout};
use crate::{Causal, Error, Result};

/// Where γ and β of one affine map of z lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Map {
    pub gamma: Layout<2>,
    pub beta: Option<Layout<2>>,
}

/// Everything that a plan depends on besides the config: sizes, and where the tensors lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Problem {
    pub shapes: GatedAttentionShapes,
    /// q, or z.
    pub q: Layout<4>,
    /// k, or z.
    pub k: Layout<4>,
    /// q_lin, or z; in full mode nothing looks at it.
    pub q_lin: Layout<4>,
    /// k_lin, or z; in full mode nothing looks at it.
    pub k_lin: Layout<4>,
    /// The maps from z to those four.
    pub maps: [Option<Map>; 4],
    pub v: Layout<4>,
    pub u: Option<Layout<4>>,
    pub o: Layout<4>,
    pub kv_lens: Option<Layout<1>>,
}

impl Problem {
    /// Contiguous tensors, each at the start of its buffer.
    pub fn contiguous(shapes: GatedAttentionShapes) -> Self {
        let GatedAttentionShapes { batch, q_heads, kv_heads, q_len, kv_len, key_dim, v_dim, .. } = shapes;
        let q = Layout::contiguous([batch, q_heads, q_len, key_dim]);
        let k = Layout::contiguous([batch, kv_heads, kv_len, key_dim]);
        let o = Layout::contiguous([batch, q_heads, q_len, v_dim]);
        let row = Layout::contiguous([q_heads, key_dim]);
        Self {
            shapes,
            q,
            k,
            q_lin: q,
            k_lin: k,
            maps: [shapes.shared_z.then_some(Map { gamma: row, beta: Some(row) }); 4],
            v: Layout::contiguous([batch, kv_heads, kv_len, v_dim]),
            u: shapes.gate.then_some(o),
            o,
            kv_lens: shapes.kv_lens.then(|| Layout::contiguous([batch])),
        }
    }

    /// The same with every tensor but kv_lens in another type.
    pub fn stored(self, dtype: DType, device: &Capabilities) -> Result<Self> {
        let stored = |layout: Layout<4>, name, access| layout.stored(name, axes(name), access, dtype, device);
        let [q, k] = if self.shapes.shared_z { ["z"; 2] } else { ["q", "k"] };
        let q = stored(self.q, q, Access::Read)?;
        let map = |layout: Layout<2>| layout.stored("gamma_q", MAP_AXES, Access::Read, dtype, device);
        let mut maps = [None; 4];
        for (stored, own) in maps.iter_mut().zip(self.maps) {
            let Some(Map { gamma, beta }) = own else { continue };
            *stored = Some(Map { gamma: map(gamma)?, beta: beta.map(map).transpose()? });
        }
        Ok(Self {
            q,
            k: stored(self.k, k, Access::Read)?,
            q_lin: stored(self.q_lin, "q_lin", Access::Read)?,
            k_lin: stored(self.k_lin, "k_lin", Access::Read)?,
            maps,
            v: stored(self.v, "v", Access::Read)?,
            u: self.u.map(|u| stored(u, "u", Access::Read)).transpose()?,
            o: stored(self.o, "o", Access::Write)?,
            ..self
        })
    }
}

/// What the axes of an operand of rank four are called.
pub(super) fn axes(name: &str) -> [&'static str; 4] {
    match name {
        "q" | "q_lin" => ["batch", "q_heads", "q_len", "key_dim"],
        "k" | "k_lin" => ["batch", "kv_heads", "kv_len", "key_dim"],
        "z" => ["batch", "heads", "len", "key_dim"],
        "v" => ["batch", "kv_heads", "kv_len", "v_dim"],
        _ => ["batch", "q_heads", "q_len", "v_dim"],
    }
}

/// The axes of γ and β.
pub(super) const MAP_AXES: [&str; 2] = ["heads", "key_dim"];

/// Compiles what the problem needs and lays out the dispatches.
pub(super) fn build(
    context: &Context,
    config: &GatedAttentionConfig,
    problem: &Problem,
    offer: Option<&Offer>,
) -> Result<Plan> {
    let shapes = &problem.shapes;
    let mut plan = PlanBuilder::new(context);
    if shapes.is_empty() {
        return plan.finish(0, 0, "nothing to do".into());
    }
    let choice = select(config, problem, context.capabilities(), offer)?;
    let mut call = Call { plan: &mut plan, config, problem, choice: &choice, maps: None };
    call.gather_maps()?;
    match config.chunk() {
        None => call.full()?,
        Some(chunk) => call.mixed_chunk(chunk, context.capabilities())?,
    }
    plan.finish(shapes.flops(config), least_bytes(config, problem), choice.reason)
}

/// A plan in the making.
struct Call<'a, 'c> {
    plan: &'a mut PlanBuilder<'c>,
    config: &'a GatedAttentionConfig,
    problem: &'a Problem,
    choice: &'a Choice,
    /// Where the maps of z are gathered.
    maps: Option<(u32, Slot)>,
}

/// The states of some blocks of value dims, in the workspace.
#[derive(Clone)]
struct States {
    binding: (u32, Slot),
    blocks: Range<u32>,
    /// Chunks of value dims that they hold.
    chunks: Range<u32>,
}

fn operand(slot: usize) -> (u32, Slot) {
    (slot as u32, Slot::Operand(slot))
}

impl Call<'_, '_> {
    /// One dispatch for the maps of q and k, one for those of q_lin and k_lin.
    fn gather_maps(&mut self) -> Result<()> {
        let shapes = &self.problem.shapes;
        let pairs = if self.config.chunk().is_some() { 2 } else { 1 };
        let chunks = u64::from(shapes.q_heads) * u64::from(shapes.key_dim.div_ceil(4));
        for pair in 0..pairs {
            let first = 2 * pair;
            let (Some(query), Some(key)) = (self.problem.maps[first], self.problem.maps[first + 1]) else {
                return Ok(());
            };
            let maps = match self.maps {
                Some(maps) => maps,
                None => (slot::MAPS, self.plan.workspace("affine maps of z", 2 * pairs as u64 * 2 * chunks * 16)?),
            };
            self.maps = Some(maps);
            // A β that is not given is 0; its binding holds γ, which nothing reads there.
            let beta =
                |map: Map, index| Slot::Operand(if map.beta.is_some() { slot::BETA } else { slot::GAMMA } + index);
            let bindings = [
                (1, Slot::Operand(slot::GAMMA + first)),
                (2, beta(query, first)),
                (3, Slot::Operand(slot::GAMMA + first + 1)),
                (4, beta(key, first + 1)),
                maps,
            ];
            let place = |layout: Option<Layout<2>>| layout.map_or([0; 2], |l| [l.start, l.strides[0]]);
            let params = |first_workgroup, end_workgroup| {
                let [query_gamma_start, query_gamma_head] = place(Some(query.gamma));
                let [query_beta_start, query_beta_head] = place(query.beta);
                let [key_gamma_start, key_gamma_head] = place(Some(key.gamma));
                let [key_beta_start, key_beta_head] = place(key.beta);
                GatherParams {
                    first_workgroup,
                    end_workgroup,
                    heads: shapes.q_heads,
                    first_map: first as u32,
                    query_beta: query.beta.is_some().into(),
                    key_beta: key.beta.is_some().into(),
                    query_gamma_start,
                    query_gamma_head,
                    query_beta_start,
                    query_beta_head,
                    key_gamma_start,
                    key_gamma_head,
                    key_beta_start,
                    key_beta_head,
                }
            };
            let workgroups = chunks.div_ceil(FLAT_WORKGROUP.into());
            self.plan.dispatch(&kernels::gather_maps(self.problem, [query, key]), &bindings, workgroups, 1, params)?;
        }
        Ok(())
    }

    /// What the kernel that walks the keys reads.
    fn inputs(&self) -> Vec<(u32, Slot)> {
        let shapes = &self.problem.shapes;
        let mut inputs = vec![operand(slot::Q), operand(slot::V)];
        inputs.extend((!shapes.shared_z).then(|| operand(slot::K)));
        inputs.extend(self.maps);
        inputs.extend(shapes.kv_lens.then(|| operand(slot::KV_LENS)));
        inputs
    }

    fn outputs(&self) -> Vec<(u32, Slot)> {
        let gate = self.problem.shapes.gate.then(|| operand(slot::U));
        gate.into_iter().chain([operand(slot::O)]).collect()
    }

    fn full(&mut self) -> Result<()> {
        let (shapes, choice) = (&self.problem.shapes, self.choice);
        let heads = u64::from(shapes.batch) * u64::from(heads(choice.kernel, shapes));
        let tiles = rows_that_share(choice.kernel, shapes, None).div_ceil(choice.kernel.rows());
        let groups = heads * u64::from(tiles) * u64::from(choice.splits);
        let pairs = self.config.visibility().pairs(shapes.q_len, shapes.kv_len).saturating_mul(self.batch_heads());
        let flops = pairs / groups.max(1) * self.flops_per_pair();
        let workgroups = groups * u64::from(choice.blocks);
        let specialization = kernels::walk(self.config, self.problem, choice);
        let base = WalkParams { row_tiles: tiles, blocks: choice.blocks, ..self.walk_params() };
        let params = |first_workgroup, end_workgroup| WalkParams { first_workgroup, end_workgroup, ..base };
        let mut bindings = self.inputs();
        if choice.splits == 1 {
            bindings.extend(self.outputs());
            return self.plan.dispatch(&specialization, &bindings, workgroups, flops, params);
        }

        let v_chunks = u64::from(shapes.v_dim.div_ceil(4));
        let rows = self.batch_heads().saturating_mul(shapes.q_len.into());
        let partials = rows.saturating_mul(choice.splits.into()).saturating_mul(1 + v_chunks);
        check_index("partial results", partials)?;
        let partials = (slot::PARTIALS, self.plan.workspace("partial results", partials.max(1) * 16)?);
        bindings.push(partials);
        if choice.splits > 0 {
            self.plan.dispatch(&specialization, &bindings, workgroups, flops, params)?;
        }

        let mut bindings = self.outputs();
        bindings.push(partials);
        let workgroups = (rows * v_chunks).div_ceil(FLAT_WORKGROUP.into());
        let flops = u64::from(FLAT_WORKGROUP) * u64::from(choice.splits) * 16;
        let specialization = kernels::combine(self.config, self.problem);
        self.plan.dispatch(&specialization, &bindings, workgroups, flops, |first_workgroup, end_workgroup| {
            CombineParams {
                first_workgroup,
                end_workgroup,
                rows: rows as u32,
                q_heads: shapes.q_heads,
                q_len: shapes.q_len,
                splits: choice.splits,
                divisor: base.divisor,
                u_start: base.u_start,
                u_batch: base.u_batch,
                u_head: base.u_head,
                u_row: base.u_row,
                o_start: base.o_start,
                o_batch: base.o_batch,
                o_head: base.o_head,
                o_row: base.o_row,
            }
        })
    }

    /// States of each chunk, their sums over the chunks, then the output; for as many blocks of value dims at a time as
    /// the workspace holds.
    fn mixed_chunk(&mut self, chunk: u32, capabilities: &Capabilities) -> Result<()> {
        let (shapes, choice) = (&self.problem.shapes, self.choice);
        let chunks = shapes.kv_len.div_ceil(chunk);
        let rows = 4 * u64::from(shapes.key_dim.div_ceil(4));
        let states = u64::from(shapes.batch) * u64::from(shapes.kv_heads) * u64::from(chunks);
        let bytes_per_chunk = states.saturating_mul(rows * 16);
        // The maps of z and the alignment of regions take some.
        let capacity = capabilities.workspace_room().saturating_sub(self.plan.workspace_bytes() + 1024);
        let per_block = bytes_per_chunk.saturating_mul(choice.v_block.into());
        let blocks = u32::try_from(capacity / per_block).unwrap_or(u32::MAX).clamp(1, choice.blocks);

        let v_chunks = shapes.v_dim.div_ceil(4);
        // The last block starts early enough to be whole.
        let start = |block: u32| (block * choice.v_block).min(v_chunks - choice.v_block);
        let held = u64::from((blocks * choice.v_block).min(v_chunks));
        let size = bytes_per_chunk.saturating_mul(held);
        check_index("states of the chunks", size / 16)?;
        let binding = (slot::STATES, self.plan.workspace("states of the chunks", size)?);
        for first in (0..choice.blocks).step_by(blocks as usize) {
            let end = (first + blocks).min(choice.blocks);
            let chunks = start(first)..start(end - 1) + choice.v_block;
            let states = States { binding, blocks: first..end, chunks };
            self.chunk_states(chunk, &states)?;
            self.prefix(chunk, &states)?;
            self.chunk_outputs(chunk, &states)?;
        }
        Ok(())
    }

    fn chunk_states(&mut self, chunk: u32, states: &States) -> Result<()> {
        let (shapes, problem, choice) = (&self.problem.shapes, self.problem, self.choice);
        let chunks = shapes.kv_len.div_ceil(chunk);
        let state = choice.state(shapes.key_dim);
        let key_tiles = shapes.key_dim.div_ceil(state.kernel.key_dims());
        let blocks = (states.chunks.len() as u32).div_ceil(state.v_block);
        let groups = u64::from(shapes.batch) * u64::from(shapes.kv_heads) * u64::from(chunks);
        let workgroups = groups * u64::from(key_tiles) * u64::from(blocks);
        let flops = u64::from(chunk) * 2 * u64::from(state.kernel.key_dims()) * u64::from(4 * state.v_block);
        let mut bindings = vec![operand(slot::V), states.binding];
        bindings.push((slot::K as u32, Slot::Operand(if shapes.shared_z { slot::Q } else { slot::K_LIN })));
        bindings.extend(self.maps);
        bindings.extend(shapes.kv_lens.then(|| operand(slot::KV_LENS)));
        let [k_start, k_batch, k_head, k_row] = place(problem.k_lin);
        let [v_start, v_batch, v_head, v_row] = place(problem.v);
        let [kv_lens_start, kv_lens_stride] = problem.kv_lens.map_or([0; 2], |l| [l.start, l.strides[0]]);
        let params = |first_workgroup, end_workgroup| StateParams {
            first_workgroup,
            end_workgroup,
            q_heads: shapes.q_heads,
            kv_heads: shapes.kv_heads,
            kv_len: shapes.kv_len,
            chunk,
            chunks,
            key_tiles,
            blocks,
            state_first: states.chunks.start,
            state_chunks: states.chunks.len() as u32,
            k_start,
            k_batch,
            k_head,
            k_row,
            v_start,
            v_batch,
            v_head,
            v_row,
            kv_lens_start,
            kv_lens_stride,
        };
        self.plan.dispatch(&kernels::chunk_state(problem, choice), &bindings, workgroups, flops, params)
    }

    fn prefix(&mut self, chunk: u32, states: &States) -> Result<()> {
        let shapes = &self.problem.shapes;
        let chunks = shapes.kv_len.div_ceil(chunk);
        // The states' length in vec4 was checked to fit 32 bits.
        let size = 4 * shapes.key_dim.div_ceil(4) * states.chunks.len() as u32;
        let total = size * shapes.batch * shapes.kv_heads;
        let workgroups = u64::from(total.div_ceil(FLAT_WORKGROUP));
        let flops = u64::from(FLAT_WORKGROUP) * u64::from(chunks) * 16;
        let params =
            |first_workgroup, end_workgroup| PrefixParams { first_workgroup, end_workgroup, size, chunks, total };
        self.plan.dispatch(&kernels::prefix(self.config), &[states.binding], workgroups, flops, params)
    }

    fn chunk_outputs(&mut self, chunk: u32, states: &States) -> Result<()> {
        let (shapes, choice) = (&self.problem.shapes, self.choice);
        let rows = choice.kernel.rows();
        let chunk_tiles = rows_that_share(choice.kernel, shapes, Some(chunk)).div_ceil(rows);
        let chunks = shapes.q_len.div_ceil(chunk);
        let blocks = states.blocks.len() as u32;
        let workgroups = self.batch_heads() * u64::from(chunks) * u64::from(chunk_tiles) * u64::from(blocks);
        let linear = 2 * u64::from(shapes.key_dim) * u64::from(4 * choice.v_block);
        let flops = u64::from(rows) * (u64::from(chunk) * self.flops_per_pair() + linear);
        let heads = shapes.q_heads / heads(choice.kernel, shapes);
        let row_tiles = u64::from(chunks) * u64::from(chunk_tiles) * u64::from(heads);
        check_index("row tiles", row_tiles)?;
        let base = WalkParams {
            row_tiles: row_tiles as u32,
            first_block: states.blocks.start,
            blocks,
            chunk,
            chunk_tiles,
            chunks,
            state_first: states.chunks.start,
            state_chunks: states.chunks.len() as u32,
            ..self.walk_params()
        };
        let mut bindings = self.inputs();
        bindings.push(states.binding);
        bindings.extend((!shapes.shared_z).then(|| operand(slot::Q_LIN)));
        bindings.extend(self.outputs());
        let specialization = kernels::walk(self.config, self.problem, choice);
        self.plan.dispatch(&specialization, &bindings, workgroups, flops, |first_workgroup, end_workgroup| WalkParams {
            first_workgroup,
            end_workgroup,
            ..base
        })
    }

    fn batch_heads(&self) -> u64 {
        u64::from(self.problem.shapes.batch) * u64::from(self.problem.shapes.q_heads)
    }

    /// What one workgroup of the kernel that walks the keys does for a pair of query and key.
    fn flops_per_pair(&self) -> u64 {
        2 * u64::from(self.problem.shapes.key_dim + 4 * self.choice.v_block)
    }

    fn walk_params(&self) -> WalkParams {
        let Self { config, problem, choice, .. } = self;
        let shapes = &problem.shapes;
        let weighing = Weighing::new(config, shapes.key_dim);
        let visibility = config.visibility();
        let [q_start, q_batch, q_head, q_row] = place(problem.q);
        let [k_start, k_batch, k_head, k_row] = place(problem.k);
        let [v_start, v_batch, v_head, v_row] = place(problem.v);
        let [u_start, u_batch, u_head, u_row] = problem.u.map_or([0; 4], place);
        let [o_start, o_batch, o_head, o_row] = place(problem.o);
        let [q_lin_start, q_lin_batch, q_lin_head, q_lin_row] = place(problem.q_lin);
        let [kv_lens_start, kv_lens_stride] = problem.kv_lens.map_or([0; 2], |l| [l.start, l.strides[0]]);
        let (linear_tokens, linear_divisor) = match config.mode {
            GauMode::MixedChunk { linear: LinearDivisor::Fixed(divisor), .. } => (false, divisor),
            GauMode::MixedChunk { chunk, linear: LinearDivisor::Chunk, .. } => (false, chunk as f32),
            GauMode::MixedChunk { linear: LinearDivisor::Tokens, .. } | GauMode::Full => (true, 1.0),
        };
        WalkParams {
            q_heads: shapes.q_heads,
            kv_heads: shapes.kv_heads,
            group: shapes.q_heads / shapes.kv_heads,
            q_len: shapes.q_len,
            kv_len: shapes.kv_len,
            splits: choice.splits,
            split_keys: choice.split_keys,
            offset: config.visibility().fixed_offset(shapes.kv_len),
            // Chunks are of equal lengths, where the two alignments are one.
            align_end: (config.causal == Causal::BottomRight && config.chunk().is_none()).into(),
            left: visibility.left(),
            right: visibility.right(),
            scale: weighing.scale as f32,
            scale_floor: weighing.scale_floor,
            divisor: weighing.divisor as f32,
            chunk_tiles: 1,
            chunk_causal: (config.causal != Causal::None).into(),
            linear_tokens: linear_tokens.into(),
            linear_divisor,
            q_start,
            q_batch,
            q_head,
            q_row,
            k_start,
            k_batch,
            k_head,
            k_row,
            v_start,
            v_batch,
            v_head,
            v_row,
            u_start,
            u_batch,
            u_head,
            u_row,
            o_start,
            o_batch,
            o_head,
            o_row,
            q_lin_start,
            q_lin_batch,
            q_lin_head,
            q_lin_row,
            kv_lens_start,
            kv_lens_stride,
            ..WalkParams::default()
        }
    }
}

/// Refuses a count that a kernel's 32-bit indices do not reach.
fn check_index(what: &str, needed: u64) -> Result<()> {
    let limit = u32::MAX.into();
    if needed > limit { Err(Error::LimitExceeded { what: what.into(), needed, limit }) } else { Ok(()) }
}

/// Start and strides, as the params have them.
fn place(layout: Layout<4>) -> [u32; 4] {
    [layout.start, layout.strides[0], layout.strides[1], layout.strides[2]]
}

/// Every operand once, in bytes; a repeated axis counts once.
fn least_bytes(config: &GatedAttentionConfig, problem: &Problem) -> u64 {
    let chunked = config.chunk().is_some();
    let keys = match (problem.shapes.shared_z, chunked) {
        (true, _) => problem.q.bytes(),
        (false, false) => problem.q.bytes() + problem.k.bytes(),
        (false, true) => [problem.q, problem.k, problem.q_lin, problem.k_lin].iter().map(Layout::bytes).sum(),
    };
    let maps = problem.maps[..if chunked { 4 } else { 2 }].iter().flatten();
    let maps: u64 = maps.map(|map| map.gamma.bytes() + map.beta.as_ref().map_or(0, Layout::bytes)).sum();
    let rest = problem.v.bytes() + problem.u.as_ref().map_or(0, Layout::bytes) + problem.o.bytes();
    keys + maps + rest + problem.kv_lens.as_ref().map_or(0, Layout::bytes)
}
