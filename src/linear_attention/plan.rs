//! Which kernels run for a problem, in what rounds, and with what numbers.

pub(super) mod heads;
pub(super) mod tokens;

use super::config::{LinearAttentionConfig, LinearMode, Normalization};
use super::kernels::{self, Kernels, Tile};
use super::offers::{self, Offer};
use super::params::{ChunkStateParams, FeaturesParams, OutputParams, PrefixParams, StateParams, StepParams};
use super::problem::{Problem, StateLayout};
use super::rounds::Rounds;
use super::shapes::LinearAttentionShapes;
use super::tiles::Tiles;
use crate::context::Context;
use crate::dispatch::{Plan, PlanBuilder, Slot};
use crate::tensor::Layout;
use crate::{Error, Result};

/// Operand slots.
pub(super) mod slot {
    pub const Q: usize = 0;
    pub const K: usize = 1;
    pub const V: usize = 2;
    pub const O: usize = 3;
    pub const PROJECTION: usize = 4;
    pub const KV_LENS: usize = 5;
    pub const STATE_IN: [usize; 3] = [6, 7, 8];
    pub const STATE_OUT: [usize; 3] = [9, 10, 11];
    pub const COUNT: usize = 12;
}

/// `@binding` numbers of the kernels.
mod binding {
    pub const Q: u32 = 1;
    pub const K: u32 = 2;
    pub const V: u32 = 3;
    pub const O: u32 = 4;
    pub const STATE: [u32; 3] = [5, 6, 7];
    pub const PROJECTION: u32 = 8;
    pub const KV_LENS: u32 = 9;
    pub const FEATURES: u32 = 10;
    pub const STATES: u32 = 11;
}

/// Compiles the kernels and lays out the dispatches.
pub(super) fn build(
    context: &Context,
    config: &LinearAttentionConfig,
    problem: &Problem,
    offer: Option<&Offer>,
) -> Result<Plan> {
    let shapes = &problem.shapes;
    let mut plan = PlanBuilder::new(context);
    if shapes.is_empty() {
        return plan.finish(0, 0, "nothing to do".into());
    }
    let capabilities = context.capabilities();
    let tile = Tile::select(capabilities);
    let tiles = Tiles::select(config, shapes, capabilities);
    let rounds = offers::rounds(config, shapes, &tile, capabilities, offer);
    if let (Some(state), true) = (&problem.state_out, problem.in_place && shapes.q_len == 1) {
        if kernels::can_step(config, shapes, state.is_f32(), capabilities.loop_cap) {
            return step(plan, config, problem, tile, rounds, state);
        }
    }
    if let Some(walk) = offers::walk(config, problem, capabilities, offer) {
        return tokens::build(plan, config, problem, &walk, capabilities);
    }
    if let Some(cap) = capabilities.loop_cap {
        let (len, chunks) = (rounds.chunk_len, rounds.chunks_per_round);
        let needed = kernels::most_loop_iterations(config, shapes, &tile, tiles.as_ref(), len, chunks);
        if needed > u64::from(cap) {
            let reason = format!("{needed} loop iterations in one invocation, this driver ends them after {cap}");
            return Err(Error::Unsupported { reasons: vec![reason] });
        }
    }
    let [state_bytes, key_bytes, query_bytes] = rounds.regions(config, shapes);
    let mut region = |what, bytes| if bytes > 0 { plan.workspace(what, bytes).map(Some) } else { Ok(None) };
    let states = region("states of the chunks", state_bytes)?;
    let key_features = region("features of keys", key_bytes)?;
    let query_features = region("features of queries", query_bytes)?;
    let mut builder = Builder {
        kernels: Kernels::new(config, problem, &tile).tiled(config, problem, tiles.as_ref()),
        plan,
        config,
        problem,
        tile,
        tiles,
        rounds,
        states: states.unwrap_or(Slot::Workspace { offset: 0, size: 0 }),
        key_features,
        query_features,
    };
    let heads = shapes.batch * shapes.kv_heads;
    for first in (0..heads).step_by(rounds.heads_per_round as usize) {
        builder.head_round(first, rounds.heads_per_round.min(heads - first))?;
    }

    let reason = format!(
        "chunks of {} keys, {} of {} at a time, for {} of {heads} heads; {} rows per workgroup{}",
        rounds.chunk_len,
        rounds.chunks_per_round.min(rounds.chunks),
        rounds.chunks,
        rounds.heads_per_round,
        builder.output_rows(),
        if tiles.is_some() { ", in tiles for a GPU" } else { "" },
    );
    builder.plan.finish(flops(config, shapes), least_bytes(problem), reason)
}

/// One token, its state updated in place: one kernel, after those that compute features where the map needs them.
fn step(
    mut plan: PlanBuilder<'_>,
    config: &LinearAttentionConfig,
    problem: &Problem,
    tile: Tile,
    rounds: Rounds,
    state: &StateLayout,
) -> Result<Plan> {
    let shapes = &problem.shapes;
    let heads = Span { first: 0, count: shapes.batch * shapes.kv_heads };
    let row = u64::from(shapes.features(config.feature_map).div_ceil(4)) * 16;
    let (for_queries, for_keys) = kernels::needs_features(config.feature_map);
    let mut region = |needed, what, heads: u32| {
        if needed { plan.workspace(what, u64::from(heads) * row).map(Some) } else { Ok(None) }
    };
    let key_features = region(for_keys, "features of keys", heads.count)?;
    let query_features = region(for_queries, "features of queries", shapes.batch * shapes.q_heads)?;
    let kernels = Kernels::new(config, problem, &tile);
    let states = Slot::Workspace { offset: 0, size: 0 };
    let mut builder =
        Builder { plan, kernels, config, problem, tile, tiles: None, rounds, states, key_features, query_features };
    let token = Span { first: 0, count: 1 };
    let k = builder.rows(false, heads, token)?;
    let q = builder.rows(true, heads, token)?;

    let mut bindings = vec![
        (binding::Q, q.slot),
        (binding::K, k.slot),
        (binding::V, Slot::Operand(slot::V)),
        (binding::O, Slot::Operand(slot::O)),
    ];
    bindings.extend(state_bindings(slot::STATE_OUT, state));
    let [q_start, q_batch, q_head, _] = q.place;
    let [k_start, k_batch, k_head, _] = k.place;
    let [v_start, v_batch, v_head, _] = place(&problem.v);
    let [o_start, o_batch, o_head, _] = place(&problem.o);
    let [s_start, s_batch, s_head, s_row] = place(&state.s);
    let [z_batch, z_head, _] = state.z.strides;
    let [max_start, max_batch, max_head, max_feature] = place_of_max(state);
    let eps = eps(config);
    let flops = flops(config, shapes);
    let step = &builder.kernels.step;
    builder.plan.dispatch(
        step,
        &bindings,
        heads.count.into(),
        flops / u64::from(heads.count.max(1)),
        |first, end| StepParams {
            first_workgroup: first,
            end_workgroup: end,
            kv_heads: shapes.kv_heads,
            group: shapes.q_heads / shapes.kv_heads,
            input_scale: config.feature_map.input_scale(shapes.head_dim) as f32,
            eps,
            log_eps: f64::from(eps).ln() as f32,
            q_start,
            q_batch,
            q_head,
            k_start,
            k_batch,
            k_head,
            v_start,
            v_batch,
            v_head,
            o_start,
            o_batch,
            o_head,
            s_start,
            s_batch,
            s_head,
            s_row,
            z_start: state.z.start,
            z_batch,
            z_head,
            max_start,
            max_batch,
            max_head,
            max_feature,
        },
    )?;
    builder.plan.finish(flops, least_bytes(problem), "one token, its state updated in place".into())
}

/// Two per multiply-add with the state: once per key, and once per query.
fn flops(config: &LinearAttentionConfig, shapes: &LinearAttentionShapes) -> u64 {
    let rows = u64::from(shapes.batch)
        * (u64::from(shapes.kv_heads) * u64::from(shapes.kv_len) + u64::from(shapes.q_heads) * u64::from(shapes.q_len));
    (2 * u64::from(shapes.features(config.feature_map)) * u64::from(shapes.v_dim)).saturating_mul(rows)
}

/// What is added to the divisor; unused where there is none.
fn eps(config: &LinearAttentionConfig) -> f32 {
    match config.normalization {
        Normalization::Sum { eps } => eps,
        Normalization::None => 1.0,
    }
}

fn state_bindings(slots: [usize; 3], state: &StateLayout) -> impl Iterator<Item = (u32, Slot)> {
    let given = if state.max.is_some() { 3 } else { 2 };
    binding::STATE.into_iter().zip(slots.map(Slot::Operand)).take(given)
}

fn place_of_max(state: &StateLayout) -> [u32; 4] {
    state.max.map_or([0; 4], |l| [l.start, l.strides[0], l.strides[1], l.strides[2]])
}

/// Rows of q or k as a kernel sees them: the operand itself, or its features in the workspace.
#[derive(Clone, Copy)]
struct Rows {
    slot: Slot,
    /// start, batch, head, row.
    place: [u32; 4],
}

/// What the dispatches of one plan have in common.
struct Builder<'c> {
    plan: PlanBuilder<'c>,
    kernels: Kernels,
    config: &'c LinearAttentionConfig,
    problem: &'c Problem,
    tile: Tile,
    tiles: Option<Tiles>,
    rounds: Rounds,
    states: Slot,
    key_features: Option<Slot>,
    query_features: Option<Slot>,
}

/// A range of heads or of positions.
#[derive(Clone, Copy)]
struct Span {
    first: u32,
    count: u32,
}

impl Builder<'_> {
    /// All dispatches for some heads of k.
    fn head_round(&mut self, first_head: u32, heads: u32) -> Result<()> {
        let problem = self.problem;
        let shapes = &problem.shapes;
        let heads = Span { first: first_head, count: heads };
        let (mut carry, mut other) = (self.rounds.chunks_per_round, self.rounds.chunks_per_round + 1);
        let mut fresh = problem.state_in.is_none();
        if let Some(state) = &problem.state_in {
            self.copy_state(heads, state, carry, false)?;
        }
        let causal = self.config.mode == LinearMode::Causal;
        for first_chunk in (0..self.rounds.chunks).step_by(self.rounds.chunks_per_round as usize) {
            let chunks =
                Span { first: first_chunk, count: self.rounds.chunks_per_round.min(self.rounds.chunks - first_chunk) };
            let first = first_chunk * self.rounds.chunk_len;
            let rows = Span { first, count: (chunks.count * self.rounds.chunk_len).min(shapes.kv_len - first) };
            let k = self.rows(false, heads, rows)?;
            self.chunk_state(heads, chunks, &k)?;
            self.prefix(heads, chunks.count, [carry, other], fresh)?;
            (carry, other, fresh) = (other, carry, false);
            if causal {
                let q = self.rows(true, heads, rows)?;
                self.output(heads, chunks, [&q, &k], [0, 1])?;
            }
        }
        if fresh {
            // No keys and no state: an empty one.
            self.prefix(heads, 0, [other, carry], true)?;
        }
        if !causal {
            for first in (0..shapes.q_len).step_by(self.rounds.rows_per_round as usize) {
                let rows = Span { first, count: self.rounds.rows_per_round.min(shapes.q_len - first) };
                let q = self.rows(true, heads, rows)?;
                let tiles = Span { first: first / self.output_rows(), count: rows.count.div_ceil(self.output_rows()) };
                self.output(heads, tiles, [&q, &q], [carry, 0])?;
            }
        }
        if let Some(state) = &problem.state_out {
            self.copy_state(heads, state, carry, true)?;
        }
        Ok(())
    }

    /// Queries or keys for the round; computes their features first where the map needs whole rows.
    fn rows(&mut self, queries: bool, kv_heads: Span, rows: Span) -> Result<Rows> {
        let problem = self.problem;
        let shapes = &problem.shapes;
        let (operand, layout, workspace, all_heads, group) = if queries {
            (slot::Q, &problem.q, self.query_features, shapes.q_heads, shapes.q_heads / shapes.kv_heads)
        } else {
            (slot::K, &problem.k, self.key_features, shapes.kv_heads, 1)
        };
        let source = Rows { slot: Slot::Operand(operand), place: place(layout) };
        let (Some(workspace), Some(kernel)) = (workspace, self.kernels.features(queries)) else { return Ok(source) };

        let heads = Span { first: kv_heads.first * group, count: kv_heads.count * group };
        let features = shapes.features(self.config.feature_map);
        let tiles = rows.count.div_ceil(self.tile.rows());
        let blocks = features.div_ceil(4).div_ceil(kernels::FEATURE_BLOCK);
        let mut bindings = vec![(binding::Q, source.slot), (binding::FEATURES, workspace)];
        let (mut projection_start, mut projection_row) = (0, 0);
        if let Some(projection) = &problem.projection {
            bindings.push((binding::PROJECTION, Slot::Operand(slot::PROJECTION)));
            (projection_start, projection_row) = (projection.start, projection.strides[0]);
        }
        let flops = u64::from(self.tile.rows() * kernels::FEATURE_BLOCK) * 8 * u64::from(shapes.head_dim);
        let [q_start, q_batch, q_head, q_row] = source.place;
        self.plan.dispatch(
            kernel,
            &bindings,
            u64::from(heads.count) * u64::from(tiles) * u64::from(blocks),
            flops,
            |first_workgroup, end_workgroup| FeaturesParams {
                first_workgroup,
                end_workgroup,
                first_head: heads.first,
                heads: all_heads,
                first_row: rows.first,
                rows: rows.count,
                tiles,
                blocks,
                input_scale: self.config.feature_map.input_scale(shapes.head_dim) as f32,
                log_norm: (0.5 * f64::from(features).ln()) as f32,
                q_start,
                q_batch,
                q_head,
                q_row,
                projection_start,
                projection_row,
            },
        )?;
        // The workspace starts at the round's first head and row: kernels that count over all of them come out right
        // by a start that wraps around.
        let row = features.next_multiple_of(4);
        let head = rows.count.wrapping_mul(row);
        let start = heads.first.wrapping_mul(head).wrapping_add(rows.first.wrapping_mul(row)).wrapping_neg();
        Ok(Rows { slot: workspace, place: [start, all_heads.wrapping_mul(head), head, row] })
    }

    fn chunk_state(&mut self, heads: Span, chunks: Span, k: &Rows) -> Result<()> {
        let (problem, rounds) = (self.problem, self.rounds);
        let shapes = &problem.shapes;
        let features = shapes.features(self.config.feature_map);
        let v_chunks = shapes.v_dim.div_ceil(4);
        let (own_features, v_block) = match &self.tiles {
            Some(tiles) => (tiles.features, v_chunks),
            None => (4 * self.tile.workgroup, self.tile.v_block(shapes.v_dim)),
        };
        let feature_tiles = features.div_ceil(own_features);
        let value_blocks = v_chunks.div_ceil(v_block);
        let mut bindings =
            vec![(binding::K, k.slot), (binding::V, Slot::Operand(slot::V)), (binding::STATES, self.states)];
        bindings.extend(problem.kv_lens.map(|_| (binding::KV_LENS, Slot::Operand(slot::KV_LENS))));
        let [kv_lens_start, kv_lens_stride] = problem.kv_lens.map_or([0; 2], |l| [l.start, l.strides[0]]);
        let [k_start, k_batch, k_head, k_row] = k.place;
        let [v_start, v_batch, v_head, v_row] = place(&problem.v);
        self.plan.dispatch(
            &self.kernels.chunk_state,
            &bindings,
            u64::from(heads.count) * u64::from(chunks.count) * u64::from(feature_tiles) * u64::from(value_blocks),
            u64::from(rounds.chunk_len) * u64::from(own_features) * u64::from(v_block) * 8,
            |first_workgroup, end_workgroup| ChunkStateParams {
                first_workgroup,
                end_workgroup,
                first_head: heads.first,
                kv_heads: shapes.kv_heads,
                kv_len: shapes.kv_len,
                chunk_len: rounds.chunk_len,
                first_chunk: chunks.first,
                chunks: chunks.count,
                slots: rounds.slots(),
                feature_tiles,
                value_blocks,
                input_scale: self.config.feature_map.input_scale(shapes.head_dim) as f32,
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
            },
        )
    }

    /// Rows of a workgroup that computes o.
    fn output_rows(&self) -> u32 {
        self.tiles.map_or(self.tile.rows(), |tiles| tiles.rows)
    }

    /// Vec4s of the states of some heads, one invocation each.
    fn vectors(&self, heads: Span) -> u32 {
        let shapes = &self.problem.shapes;
        heads.count * shapes.features(self.config.feature_map) * (1 + shapes.v_dim.div_ceil(4))
    }

    fn prefix(&mut self, heads: Span, chunks: u32, [carry_in, carry_out]: [u32; 2], fresh: bool) -> Result<()> {
        let vectors = self.vectors(heads);
        self.plan.dispatch(
            &self.kernels.prefix,
            &[(binding::STATES, self.states)],
            vectors.div_ceil(kernels::STATE_WORKGROUP).into(),
            u64::from(kernels::STATE_WORKGROUP) * 8 * u64::from(chunks),
            |first_workgroup, end_workgroup| PrefixParams {
                first_workgroup,
                end_workgroup,
                vectors,
                slots: self.rounds.slots(),
                chunks,
                carry_in,
                carry_out,
                fresh: fresh.into(),
            },
        )
    }

    fn output(
        &mut self,
        heads: Span,
        chunks: Span,
        [q, k]: [&Rows; 2],
        [first_slot, slot_step]: [u32; 2],
    ) -> Result<()> {
        let problem = self.problem;
        let shapes = &problem.shapes;
        let causal = self.config.mode == LinearMode::Causal;
        let group = shapes.q_heads / shapes.kv_heads;
        let output_rows = self.output_rows();
        let chunk_len = if causal { self.rounds.chunk_len } else { output_rows };
        let tiles = chunk_len.div_ceil(output_rows);
        let eps = eps(self.config);
        let mut bindings =
            vec![(binding::Q, q.slot), (binding::O, Slot::Operand(slot::O)), (binding::STATES, self.states)];
        if causal {
            bindings.extend([(binding::K, k.slot), (binding::V, Slot::Operand(slot::V))]);
        }
        let (features, v_dim) = (u64::from(shapes.features(self.config.feature_map)), u64::from(shapes.v_dim));
        let own = if causal { u64::from(chunk_len) * (u64::from(shapes.head_dim) + v_dim) } else { 0 };
        let [q_start, q_batch, q_head, q_row] = q.place;
        let [k_start, k_batch, k_head, k_row] = k.place;
        let [v_start, v_batch, v_head, v_row] = place(&problem.v);
        let [o_start, o_batch, o_head, o_row] = place(&problem.o);
        self.plan.dispatch(
            &self.kernels.output,
            &bindings,
            u64::from(heads.count) * u64::from(group) * u64::from(chunks.count) * u64::from(tiles),
            u64::from(output_rows) * (2 * features * v_dim + own),
            |first_workgroup, end_workgroup| OutputParams {
                first_workgroup,
                end_workgroup,
                first_head: heads.first,
                kv_heads: shapes.kv_heads,
                group,
                q_len: shapes.q_len,
                chunk_len,
                first_chunk: chunks.first,
                chunks: chunks.count,
                tiles,
                slots: self.rounds.slots(),
                first_slot,
                slot_step,
                input_scale: self.config.feature_map.input_scale(shapes.head_dim) as f32,
                eps,
                log_eps: f64::from(eps).ln() as f32,
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
                o_start,
                o_batch,
                o_head,
                o_row,
            },
        )
    }

    /// Copies a state of the caller's to a slot of the workspace, or back.
    fn copy_state(&mut self, heads: Span, state: &StateLayout, slot: u32, out: bool) -> Result<()> {
        let (kernel, operands) =
            if out { (&self.kernels.store_state, slot::STATE_OUT) } else { (&self.kernels.load_state, slot::STATE_IN) };
        let mut bindings = vec![(binding::STATES, self.states)];
        bindings.extend(state_bindings(operands, state));
        let vectors = self.vectors(heads);
        let [s_start, s_batch, s_head, s_row] = place(&state.s);
        let [z_batch, z_head, _] = state.z.strides;
        let [max_start, max_batch, max_head, max_feature] = place_of_max(state);
        self.plan.dispatch(
            kernel,
            &bindings,
            vectors.div_ceil(kernels::STATE_WORKGROUP).into(),
            u64::from(kernels::STATE_WORKGROUP) * 8,
            |first_workgroup, end_workgroup| StateParams {
                first_workgroup,
                end_workgroup,
                first_head: heads.first,
                kv_heads: self.problem.shapes.kv_heads,
                vectors,
                slots: self.rounds.slots(),
                slot,
                s_start,
                s_batch,
                s_head,
                s_row,
                z_start: state.z.start,
                z_batch,
                z_head,
                max_start,
                max_batch,
                max_head,
                max_feature,
            },
        )
    }
}

fn place(layout: &Layout<4>) -> [u32; 4] {
    [layout.start, layout.strides[0], layout.strides[1], layout.strides[2]]
}

/// Every operand once, in bytes; a repeated axis counts once.
fn least_bytes(problem: &Problem) -> u64 {
    let state = |state: &StateLayout| {
        let max = state.max.as_ref().map_or(0, Layout::bytes);
        state.s.bytes().saturating_add(state.z.bytes()).saturating_add(max)
    };
    let tensors = [problem.q, problem.k, problem.v, problem.o].map(|layout| layout.bytes());
    let optional =
        [problem.projection.as_ref().map_or(0, Layout::bytes), problem.kv_lens.as_ref().map_or(0, Layout::bytes)];
    let states = problem.state_in.iter().chain(&problem.state_out).map(state);
    tensors.into_iter().chain(optional).chain(states).fold(0, u64::saturating_add)
}
