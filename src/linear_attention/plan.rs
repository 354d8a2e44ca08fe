//! Which kernels run for a problem, in what rounds, and with what numbers.

pub(super) mod heads;
pub(super) mod tokens;

use super::config::{FeatureMap, LinearAttentionConfig, LinearMode, Normalization};
use super::kernels::{self, Tile};
use super::offers::{self, Offer};
use super::rounds::Rounds;
use super::shapes::LinearAttentionShapes;
use super::tiles::Tiles;
use super::{LinearAttention, OPERANDS};
use crate::context::Capabilities;
use crate::dispatch::{Plan, PlanBuilder, Value, View};
use crate::dtype::Storage;
use crate::op::{self, Access, GivenNames, Kernels, Operand, SizeOf};
use crate::{Error, Result};

pub(super) type Problem = op::Problem<LinearAttentionShapes>;

impl Kernels for LinearAttention {
    const NAME: &'static str = "linear_attention";
    const OPERANDS: &'static [Operand] = OPERANDS;
    type Config = LinearAttentionConfig;
    type Shapes = LinearAttentionShapes;
    type Offer = Offer;

    fn check_config(config: &LinearAttentionConfig) -> Result<()> {
        config.check()
    }

    fn check(config: &LinearAttentionConfig, shapes: &LinearAttentionShapes) -> Result<()> {
        shapes.check(config)
    }

    fn refuses(config: &LinearAttentionConfig, given: &GivenNames, row: &Operand) -> Option<&'static str> {
        let has = given.has(row);
        let favor = matches!(config.feature_map, FeatureMap::Favor { .. });
        let state = row.state && OPERANDS.iter().any(|other| other.key() == row.key() && given.has(other));
        match row.name {
            "projection" if favor && !has => Some("the favor map needs it"),
            "projection" if !favor && has => Some("is given, but the map is not favor"),
            "kv_lens" if has && config.mode == LinearMode::Causal => Some("is given, but the mode is causal"),
            "state_s" | "state_z" if state && !has => Some("is missing: a state's tensors are given together"),
            "state_max" if state && has && config.feature_map.running_max().is_none() => {
                Some("is given, but this feature map is bounded")
            }
            "state_max" if state && !has && config.feature_map.running_max().is_some() => {
                Some("is missing: this feature map is unbounded")
            }
            _ => None,
        }
    }

    fn derived(config: &LinearAttentionConfig, size: &SizeOf<'_>, axis: &str) -> Option<(u32, &'static str)> {
        let map = config.feature_map;
        let rows = size("projection_rows");
        if matches!(map, FeatureMap::Favor { .. }) && rows.is_none() {
            return None;
        }
        let features = map.features(size("head_dim")?, rows);
        match axis {
            "features" => Some((features, "the features of the map")),
            "max_features" => Some((map.running_max()?.count(features), "the running maxima of the map")),
            _ => None,
        }
    }

    fn has(config: &LinearAttentionConfig, shapes: &LinearAttentionShapes, row: &Operand) -> bool {
        match row.name {
            "projection" => shapes.projection_rows.is_some(),
            "state_max" if config.feature_map.running_max().is_none() => false,
            _ => op::Shapes::has(shapes, row.key()),
        }
    }

    fn build(
        plan: PlanBuilder<'_>,
        config: &LinearAttentionConfig,
        problem: &Problem,
        offer: Option<&Offer>,
    ) -> Result<Plan> {
        build(plan, config, problem, offer)
    }

    fn class(config: &LinearAttentionConfig, problem: &Problem) -> String {
        offers::class(config, problem)
    }

    fn offers(config: &LinearAttentionConfig, problem: &Problem, device: &Capabilities) -> Vec<Offer> {
        offers::offers(config, problem, device)
    }

    #[cfg(feature = "blocking")]
    fn candidates(
        config: &LinearAttentionConfig,
        problem: &Problem,
        device: &Capabilities,
    ) -> Result<Vec<Vec<String>>> {
        let own = offers::default(config, problem, device).to_string();
        let names = offers::offers(config, problem, device).into_iter().map(|offer| offer.to_string());
        Ok(names.filter(|name| *name != own).map(|name| vec![name]).collect())
    }
}

/// The tensors of a state, that come in or go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State(Access);

impl State {
    pub const IN: Self = Self(Access::Read);
    pub const OUT: Self = Self(Access::Write);

    /// As kernels bind them, and as their uniforms say where they lie.
    const NAMES: [(&str, &str); 3] = [("state_s", "s"), ("state_z", "z"), ("state_max", "max")];

    fn view(self, problem: &Problem, name: &str) -> Option<View> {
        match self.0 {
            Access::Read => problem.view(name),
            Access::Write => problem.output_view(name),
        }
    }

    fn views(self, problem: &Problem) -> Vec<(&'static str, View)> {
        let both = |(name, place)| {
            // A bounded map has no maximum: kernels bind none, and its place is 0.
            let view = self.view(problem, name);
            [view.map(|view| (name, view)), Some((place, view.unwrap_or(View::NOWHERE)))]
        };
        Self::NAMES.into_iter().flat_map(both).flatten().collect()
    }

    /// How sums are stored.
    pub fn storage(self, problem: &Problem) -> Vec<(&'static str, Storage)> {
        let layout = |name| if self == Self::IN { problem.get(name) } else { problem.output(name) };
        ["state_s", "state_z"].into_iter().filter_map(|name| Some((name, layout(name)?.storage))).collect()
    }
}

/// Compiles the kernels and lays out the dispatches.
fn build(
    mut plan: PlanBuilder<'_>,
    config: &LinearAttentionConfig,
    problem: &Problem,
    offer: Option<&Offer>,
) -> Result<Plan> {
    let shapes = &problem.shapes;
    let capabilities = plan.device();
    let tile = Tile::select(capabilities);
    let tiles = Tiles::select(config, shapes, capabilities);
    let rounds = offers::rounds(config, shapes, &tile, capabilities, offer);
    let in_f32 = State::OUT.storage(problem).iter().all(|(_, storage)| storage.size() == 4);
    if problem.in_place && shapes.q_len == 1 && kernels::can_step(config, shapes, in_f32, capabilities.loop_cap) {
        return step(plan, config, problem, tile, rounds);
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
    let kernels = kernels::Kernels::new(config, problem, &tile).tiled(config, problem, tiles.as_ref());
    let mut builder = Builder {
        kernels: &kernels,
        plan: &mut plan,
        config,
        problem,
        tile,
        tiles,
        rounds,
        views: states.map(|states| ("states", states)).into_iter().collect(),
        numbers: Vec::new(),
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
    plan.finish(flops(config, shapes), problem.bytes(), reason)
}

/// One token, its state updated in place: one kernel, after those that compute features where the map needs them.
fn step(
    mut plan: PlanBuilder<'_>,
    config: &LinearAttentionConfig,
    problem: &Problem,
    tile: Tile,
    rounds: Rounds,
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
    let kernels = kernels::Kernels::new(config, problem, &tile);
    let mut builder = Builder {
        plan: &mut plan,
        kernels: &kernels,
        config,
        problem,
        tile,
        tiles: None,
        rounds,
        views: Vec::new(),
        numbers: Vec::new(),
        key_features,
        query_features,
    };
    let token = Span { first: 0, count: 1 };
    let k = builder.rows(false, heads, token)?;
    let q = builder.rows(true, heads, token)?;
    let views = [vec![("q", q), ("k", k)], State::OUT.views(problem)].concat();
    let flops = flops(config, shapes);
    let values = [("group", (shapes.q_heads / shapes.kv_heads).into())].into_iter().chain(builder.values());
    let values: Vec<_> = values.collect();
    let per_head = flops / u64::from(heads.count.max(1));
    plan.dispatch(&kernels.step, heads.count.into(), per_head, &values, &views)?;
    plan.finish(flops, problem.bytes(), "one token, its state updated in place".into())
}

/// Two per multiply-add with the state: once per key, and once per query.
pub(super) fn flops(config: &LinearAttentionConfig, shapes: &LinearAttentionShapes) -> u64 {
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

/// Rows of a round in the workspace, each of so many elements, by the names that kernels have for those of an operand.
///
/// The workspace starts at the round's first head and row: kernels that count over all of them come out right by a start that wraps
/// around.
pub(super) fn in_round(workspace: View, operand: View, [heads, first_head]: [u32; 2], rows: Span, row: u32) -> View {
    let head = rows.count.wrapping_mul(row);
    let start = first_head.wrapping_mul(head).wrapping_add(rows.first.wrapping_mul(row)).wrapping_neg();
    View { slot: workspace.slot, start, strides: [heads.wrapping_mul(head), head, row, 1, 0], ..operand }
}

/// What the dispatches of one plan have in common.
pub(super) struct Builder<'p, 'c> {
    pub plan: &'p mut PlanBuilder<'c>,
    pub kernels: &'p kernels::Kernels,
    pub config: &'p LinearAttentionConfig,
    pub problem: &'p Problem,
    pub tile: Tile,
    pub tiles: Option<Tiles>,
    pub rounds: Rounds,
    /// What kernels find elsewhere than the problem has it: states, in the workspace.
    pub views: Vec<(&'static str, View)>,
    /// What kernels are told otherwise than here: in the backward pass.
    pub numbers: Vec<(&'static str, Value)>,
    pub key_features: Option<View>,
    pub query_features: Option<View>,
}

/// A range of heads or of positions.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub first: u32,
    pub count: u32,
}

impl Builder<'_, '_> {
    /// All dispatches for some heads of k.
    fn head_round(&mut self, first_head: u32, heads: u32) -> Result<()> {
        let problem = self.problem;
        let shapes = &problem.shapes;
        let heads = Span { first: first_head, count: heads };
        let (mut carry, mut other) = (self.rounds.chunks_per_round, self.rounds.chunks_per_round + 1);
        let mut fresh = !shapes.state_in;
        if shapes.state_in {
            self.copy_state(heads, State::IN, carry)?;
        }
        let causal = self.config.mode == LinearMode::Causal;
        for first_chunk in (0..self.rounds.chunks).step_by(self.rounds.chunks_per_round as usize) {
            let chunks =
                Span { first: first_chunk, count: self.rounds.chunks_per_round.min(self.rounds.chunks - first_chunk) };
            let first = first_chunk * self.rounds.chunk_len;
            let rows = Span { first, count: (chunks.count * self.rounds.chunk_len).min(shapes.kv_len - first) };
            let k = self.rows(false, heads, rows)?;
            self.chunk_state(heads, chunks, k)?;
            self.prefix(heads, chunks.count, [carry, other], fresh)?;
            (carry, other, fresh) = (other, carry, false);
            if causal {
                let q = self.rows(true, heads, rows)?;
                self.output(heads, chunks, [q, k], [0, 1])?;
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
                self.output(heads, tiles, [q, q], [carry, 0])?;
            }
        }
        if shapes.state_out {
            self.copy_state(heads, State::OUT, carry)?;
        }
        Ok(())
    }

    /// Queries or keys for the round; computes their features first where the map needs whole rows.
    pub fn rows(&mut self, queries: bool, kv_heads: Span, rows: Span) -> Result<View> {
        let problem = self.problem;
        let shapes = &problem.shapes;
        let (name, workspace, all_heads, group) = if queries {
            ("q", self.query_features, shapes.q_heads, shapes.q_heads / shapes.kv_heads)
        } else {
            ("k", self.key_features, shapes.kv_heads, 1)
        };
        let source = problem.view(name).unwrap_or(View::NOWHERE);
        let (Some(workspace), Some(kernel)) = (workspace, self.kernels.features(queries)) else { return Ok(source) };

        let heads = Span { first: kv_heads.first * group, count: kv_heads.count * group };
        let features = shapes.features(self.config.feature_map);
        let tiles = rows.count.div_ceil(self.tile.rows());
        let blocks = features.div_ceil(4).div_ceil(kernels::FEATURE_BLOCK);
        let flops = u64::from(self.tile.rows() * kernels::FEATURE_BLOCK) * 8 * u64::from(shapes.head_dim);
        let values = [
            ("first_head", heads.first.into()),
            ("heads", all_heads.into()),
            ("first_row", rows.first.into()),
            ("rows", rows.count.into()),
            ("tiles", tiles.into()),
            ("blocks", blocks.into()),
            ("input_scale", (self.config.feature_map.input_scale(shapes.head_dim) as f32).into()),
            ("log_norm", ((0.5 * f64::from(features).ln()) as f32).into()),
        ];
        let workgroups = u64::from(heads.count) * u64::from(tiles) * u64::from(blocks);
        self.plan.dispatch(kernel, workgroups, flops, &values, &[("q", source), ("features", workspace)])?;
        Ok(in_round(workspace, source, [all_heads, heads.first], rows, features.next_multiple_of(4)))
    }

    pub fn chunk_state(&mut self, heads: Span, chunks: Span, k: View) -> Result<()> {
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
        let values = [
            ("first_head", heads.first),
            ("chunk_len", rounds.chunk_len),
            ("first_chunk", chunks.first),
            ("chunks", chunks.count),
            ("slots", rounds.slots()),
            ("feature_tiles", feature_tiles),
            ("value_blocks", value_blocks),
        ];
        let values = self.told(&values);
        let workgroups = [heads.count, chunks.count, feature_tiles, value_blocks].map(u64::from).into_iter().product();
        let flops = u64::from(rounds.chunk_len) * u64::from(own_features) * u64::from(v_block) * 8;
        let views = [&self.views[..], &[("k", k)]].concat();
        self.plan.dispatch(&self.kernels.chunk_state, workgroups, flops, &values, &views)
    }

    /// What kernels are told: what differs, these, what the map and the divisor take, and nothing of the backward pass.
    fn told(&self, own: &[(&'static str, u32)]) -> Vec<(&'static str, Value)> {
        let own = own.iter().map(|&(name, value)| (name, value.into()));
        let none = ["key_slots", "key_carry", "per_head", "numbers_start", "numbers_batch", "numbers_head"];
        let rest = none.map(|name| (name, 0_u32.into())).into_iter().chain([("group", 1_u32.into())]);
        self.numbers.iter().copied().chain(own).chain(self.values()).chain(rest).collect()
    }

    /// The numbers that the map and the divisor take.
    fn values(&self) -> [(&'static str, Value); 3] {
        let eps = eps(self.config);
        let input_scale = self.config.feature_map.input_scale(self.problem.shapes.head_dim) as f32;
        [("input_scale", input_scale.into()), ("eps", eps.into()), ("log_eps", (f64::from(eps).ln() as f32).into())]
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

    pub fn prefix(&mut self, heads: Span, chunks: u32, [carry_in, carry_out]: [u32; 2], fresh: bool) -> Result<()> {
        let vectors = self.vectors(heads);
        let values = [
            ("vectors", vectors),
            ("slots", self.rounds.slots()),
            ("chunks", chunks),
            ("carry_in", carry_in),
            ("carry_out", carry_out),
            ("fresh", fresh.into()),
        ];
        let values = self.told(&values);
        let workgroups = vectors.div_ceil(kernels::STATE_WORKGROUP).into();
        let flops = u64::from(kernels::STATE_WORKGROUP) * 8 * u64::from(chunks);
        self.plan.dispatch(&self.kernels.prefix, workgroups, flops, &values, &self.views)
    }

    pub fn output(
        &mut self,
        heads: Span,
        chunks: Span,
        [q, k]: [View; 2],
        [first_slot, slot_step]: [u32; 2],
    ) -> Result<()> {
        let problem = self.problem;
        let shapes = &problem.shapes;
        let causal = self.config.mode == LinearMode::Causal;
        let group = shapes.q_heads / shapes.kv_heads;
        let output_rows = self.output_rows();
        let chunk_len = if causal { self.rounds.chunk_len } else { output_rows };
        let tiles = chunk_len.div_ceil(output_rows);
        let (features, v_dim) = (u64::from(shapes.features(self.config.feature_map)), u64::from(shapes.v_dim));
        let own = if causal { u64::from(chunk_len) * (u64::from(shapes.head_dim) + v_dim) } else { 0 };
        let values = [
            ("first_head", heads.first),
            ("group", group),
            ("chunk_len", chunk_len),
            ("first_chunk", chunks.first),
            ("chunks", chunks.count),
            ("tiles", tiles),
            ("slots", self.rounds.slots()),
            ("first_slot", first_slot),
            ("slot_step", slot_step),
        ];
        let values = self.told(&values);
        let workgroups = [heads.count, group, chunks.count, tiles].map(u64::from).into_iter().product();
        let flops = u64::from(output_rows) * (2 * features * v_dim + own);
        let views = [&self.views[..], &[("q", q), ("k", k)]].concat();
        self.plan.dispatch(&self.kernels.output, workgroups, flops, &values, &views)
    }

    /// Copies a state of the caller's to a slot of the workspace, or back.
    pub fn copy_state(&mut self, heads: Span, state: State, slot: u32) -> Result<()> {
        let kernel = if state == State::OUT { &self.kernels.store_state } else { &self.kernels.load_state };
        let vectors = self.vectors(heads);
        let values =
            [("first_head", heads.first), ("vectors", vectors), ("slots", self.rounds.slots()), ("slot", slot)];
        let values = self.told(&values);
        let workgroups = vectors.div_ceil(kernels::STATE_WORKGROUP).into();
        let views = [&self.views[..], &state.views(self.problem)].concat();
        self.plan.dispatch(kernel, workgroups, u64::from(kernels::STATE_WORKGROUP) * 8, &values, &views)
    }
}
