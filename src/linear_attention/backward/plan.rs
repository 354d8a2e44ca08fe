//! In what dispatches gradients flow back.

use super::super::LinearAttention;
use super::super::config::LinearAttentionConfig;
use super::super::kernels::{self, Kind, Tile};
use super::super::plan::{Builder, Problem as ForwardProblem, Span, State, flops, in_round};
use super::super::rounds::Rounds;
use super::super::tiles::Tiles;
use super::kernels::{Form, Role, Rows};
use super::rounds::{CARRIES, COMES_IN, Space, Wanted};
use super::{LinearAttentionBackward, LinearAttentionBackwardShapes, OPERANDS};
use crate::Result;
use crate::dispatch::{Plan, PlanBuilder, Value, View};
use crate::op::{self, GivenNames, Kernels, Operand, SizeOf};
use crate::tensor::product;
use crate::tuning::NoOffer;

pub(super) type Problem = op::Problem<LinearAttentionBackwardShapes>;

impl Kernels for LinearAttentionBackward {
    const NAME: &'static str = "linear_attention_backward";
    const OPERANDS: &'static [Operand] = OPERANDS;
    type Config = LinearAttentionConfig;
    type Shapes = LinearAttentionBackwardShapes;
    type Offer = NoOffer;

    fn check_config(config: &LinearAttentionConfig) -> Result<()> {
        config.check()
    }

    fn check(config: &LinearAttentionConfig, shapes: &LinearAttentionBackwardShapes) -> Result<()> {
        shapes.forward().check(config)
    }

    fn refuses(config: &LinearAttentionConfig, given: &GivenNames, row: &Operand) -> Option<&'static str> {
        let has = given.has(row);
        let any = |names: [&str; 2]| names.iter().any(|name| given.input(name));
        let none = || !["dq", "dk", "dv", "dstate_s", "dstate_z"].iter().any(|name| given.output(name));
        let read = row.access == op::Access::Read;
        match row.name {
            "projection" | "kv_lens" => LinearAttention::refuses(config, given, row),
            "state_s" | "state_z" if !has && (any(["state_s", "state_z"]) || given.input("state_max")) => {
                Some("is missing: a state's tensors are given together")
            }
            "state_max" if has && config.feature_map.running_max().is_none() => {
                Some("is given, but this feature map is bounded")
            }
            "state_max" if !has && any(["state_s", "state_z"]) && config.feature_map.running_max().is_some() => {
                Some("is missing: this feature map is unbounded")
            }
            "dstate_s" | "dstate_z" if read && !has && any(["dstate_s", "dstate_z"]) => {
                Some("is missing: the gradients of a state are given together")
            }
            "dstate_s" | "dstate_z" if !read && has && !any(["state_s", "state_z"]) => {
                Some("is given, but there is no state that came in")
            }
            "dstate_s" | "dstate_z" if !read && !has && ["dstate_s", "dstate_z"].iter().any(|x| given.output(x)) => {
                Some("is missing: the gradients of a state are given together")
            }
            "dq" if !given.on_host && none() => Some("is missing, and so is every other gradient"),
            _ => None,
        }
    }

    fn derived(config: &LinearAttentionConfig, size: &SizeOf<'_>, axis: &str) -> Option<(u32, &'static str)> {
        LinearAttention::derived(config, size, axis)
    }

    fn has(config: &LinearAttentionConfig, shapes: &LinearAttentionBackwardShapes, row: &Operand) -> bool {
        let others = shapes.dk || shapes.dv || shapes.dstate_out;
        match row.name {
            "projection" => shapes.projection_rows.is_some(),
            "state_max" => shapes.state && config.feature_map.running_max().is_some(),
            "state_z" => shapes.state,
            // A plan without tensors is one of something.
            "dq" => shapes.dq || !others,
            _ => op::Shapes::has(shapes, row.key()),
        }
    }

    fn build(
        plan: PlanBuilder<'_>,
        config: &LinearAttentionConfig,
        problem: &Problem,
        _: Option<&NoOffer>,
    ) -> Result<Plan> {
        build(plan, config, problem)
    }
}

/// Compiles the kernels and lays out their dispatches.
fn build(mut plan: PlanBuilder<'_>, config: &LinearAttentionConfig, problem: &Problem) -> Result<Plan> {
    let (form, shapes) = (Form::of(config), &problem.shapes);
    let own = problem.with_shapes(shapes.forward());
    let tiles = Tiles::of(config, &own.shapes);
    let space = Space::select(&form, shapes, plan.device());
    let group = shapes.q_heads / shapes.kv_heads;
    let Rounds { chunk_len, chunks_per_round, heads_per_round, .. } = space.rounds;
    plan.expect_loops("the pairs of a chunk", form.loop_iterations(shapes, chunk_len, group, &tiles))?;
    plan.expect_loops("the chunks of a round", u64::from(chunks_per_round) + 2)?;
    let mut views = [None; 7];
    for (view, (what, bytes)) in views.iter_mut().zip(space.regions(&form, shapes)) {
        *view = if bytes > 0 { Some(plan.workspace(what, bytes)?) } else { None };
    }
    let [states, reversed, numbers, key_features, query_features, relative, gradients] = views;
    let pass = Pass {
        form,
        problem,
        forward: form.forward(problem, &own, &tiles),
        reverse: form.reverse(problem, &own, &tiles),
        own: &own,
        tiles,
        space,
        wanted: Wanted::of(shapes),
        group,
        states: states.unwrap_or(View::NOWHERE),
        reversed: reversed.unwrap_or(View::NOWHERE),
        numbers: numbers.unwrap_or(View::NOWHERE),
        key_features,
        query_features,
        relative,
        gradients,
    };
    let heads = shapes.batch * shapes.kv_heads;
    for first in (0..heads).step_by(heads_per_round as usize) {
        let heads = Span { first, count: heads_per_round.min(heads - first) };
        if form.causal { pass.causal(&mut plan, heads)? } else { pass.full(&mut plan, heads)? }
    }
    let again = if space.key_rounds > 1 && form.causal { ", each from a state that is kept" } else { "" };
    let reason = format!(
        "chunks of {chunk_len} tokens, {chunks_per_round} of {} at a time{again}, for {heads_per_round} of {heads} heads",
        space.rounds.chunks
    );
    // A product forward with each of q and k, and two backward.
    plan.finish(3 * flops(config, &own.shapes), problem.bytes(), reason)
}

/// What every step of the pass knows: the call, and what is in the workspace.
struct Pass<'p> {
    form: Form,
    problem: &'p Problem,
    own: &'p ForwardProblem,
    forward: kernels::Kernels,
    reverse: kernels::Kernels,
    tiles: Tiles,
    space: Space,
    wanted: Wanted,
    group: u32,
    states: View,
    reversed: View,
    numbers: View,
    key_features: Option<View>,
    query_features: Option<View>,
    relative: Option<View>,
    gradients: Option<View>,
}

/// Some heads of k, and rows of theirs or of the queries that read them.
#[derive(Clone, Copy)]
struct Block {
    heads: Span,
    chunks: Span,
    rows: Span,
}

/// Sums that run from the last token to the first.
struct Reverse {
    /// The slot of the total, and the other.
    carry: [u32; 2],
    /// Nothing was summed yet.
    fresh: bool,
}

impl Pass<'_> {
    /// The chunks of a round, and their rows.
    fn block(&self, heads: Span, round: u32, len: u32) -> Block {
        let Rounds { chunk_len, chunks_per_round, .. } = self.space.rounds;
        let first = round * chunks_per_round;
        let count = chunks_per_round.min(len.div_ceil(chunk_len) - first);
        let first_row = first * chunk_len;
        Block {
            heads,
            chunks: Span { first, count },
            rows: Span { first: first_row, count: (count * chunk_len).min(len - first_row) },
        }
    }

    /// The steps that forward has, too.
    fn forward<'a, 'c>(&'a self, plan: &'a mut PlanBuilder<'c>, block: Block) -> Builder<'a, 'c> {
        let dout = self.problem.view("dout").unwrap_or(View::NOWHERE);
        Builder {
            plan,
            kernels: &self.forward,
            config: &self.form.config,
            problem: self.own,
            tile: Tile::GPU,
            tiles: Some(self.tiles),
            rounds: self.space.rounds,
            views: vec![("states", self.states), ("numbers", self.numbers), ("beside", dout), ("o", dout)],
            numbers: self.places(block),
            key_features: self.key_features,
            query_features: self.query_features,
        }
    }

    /// The same from the last token to the first.
    fn reverse<'a, 'c>(&'a self, plan: &'a mut PlanBuilder<'c>, block: Block) -> Builder<'a, 'c> {
        let mut builder = self.forward(plan, block);
        builder.kernels = &self.reverse;
        builder.rounds.carries = CARRIES;
        let dout = self.problem.view("dout").unwrap_or(View::NOWHERE);
        builder.views =
            vec![("states", self.reversed), ("numbers", self.numbers), ("v", dout), ("key_states", self.states)];
        builder.numbers.extend([
            ("group", self.group.into()),
            ("kv_len", self.problem.shapes.q_len.into()),
            ("key_slots", self.space.rounds.slots().into()),
            ("key_carry", self.total().into()),
            ("per_head", self.form.per_head().into()),
        ]);
        builder
    }

    /// The slot of the state after all keys.
    fn total(&self) -> u32 {
        self.space.rounds.chunks_per_round + self.space.key_rounds
    }

    /// Where the numbers of rows are, counted over all heads and rows.
    fn places(&self, block: Block) -> Vec<(&'static str, Value)> {
        let heads = [self.problem.shapes.q_heads, block.heads.first * self.group];
        let view = in_round(self.numbers, View::NOWHERE, heads, block.rows, 1);
        let [batch, head, ..] = view.strides;
        let places = [("numbers_start", view.start), ("numbers_batch", batch), ("numbers_head", head)];
        places.map(|(name, value)| (name, value.into())).into()
    }

    /// The sums over a round's chunks of keys, from the state before them to the one after.
    fn sum_keys(&self, plan: &mut PlanBuilder<'_>, block: Block, round: u32) -> Result<View> {
        let slot = self.space.rounds.chunks_per_round + round;
        let fresh = round == 0 && !self.problem.shapes.state;
        let mut forward = self.forward(plan, block);
        let k = forward.rows(false, block.heads, block.rows)?;
        forward.chunk_state(block.heads, block.chunks, k)?;
        forward.prefix(block.heads, block.chunks.count, [slot, slot + 1], fresh)?;
        Ok(k)
    }

    /// What rows of queries have of their own, their gradient, and their features as what follows reads them.
    fn queries(&self, plan: &mut PlanBuilder<'_>, block: Block, k: View, slots: [u32; 2]) -> Result<View> {
        let q = self.forward(plan, block).rows(true, block.heads, block.rows)?;
        let features = self.relative(plan, block, [q, k], slots)?;
        if self.form.numbers {
            let rows = Form::tile_rows();
            let chunks = match self.form.causal {
                true => block.chunks,
                false => Span { first: block.rows.first / rows, count: block.rows.count.div_ceil(rows) },
            };
            self.forward(plan, block).output(block.heads, chunks, [features, k], slots)?;
        }
        if self.wanted.dq {
            self.gradient(plan, Role::Queries, block, [features, k], slots)?;
        }
        Ok(features)
    }

    /// Exponents of queries relative to their rows' units, where the map has such.
    fn relative(&self, plan: &mut PlanBuilder<'_>, block: Block, [q, k]: [View; 2], slots: [u32; 2]) -> Result<View> {
        let Some(relative) = self.relative else { return Ok(q) };
        let features = self.own.shapes.features(self.form.config.feature_map);
        self.units(plan, block, [q, k], slots)?;
        let heads = Span { first: block.heads.first * self.group, count: block.heads.count * self.group };
        let vectors = product([heads.count, block.rows.count, features.div_ceil(4)]);
        let values = [
            ("first_head", heads.first),
            ("heads", self.problem.shapes.q_heads),
            ("first_row", block.rows.first),
            ("rows", block.rows.count),
            ("vectors", u32::try_from(vectors).unwrap_or(u32::MAX)),
        ];
        let values = [&numbers(&values)[..], &self.places(block)].concat();
        let workgroups = vectors.div_ceil(kernels::STATE_WORKGROUP.into());
        let views = [("q", q), ("features", relative), ("numbers", self.numbers)];
        plan.dispatch(&self.form.relative(self.problem), workgroups, 256, &values, &views)?;
        let q_heads = [self.problem.shapes.q_heads, heads.first];
        let operand = self.problem.view("q").unwrap_or(View::NOWHERE);
        Ok(in_round(relative, operand, q_heads, block.rows, features.next_multiple_of(4)))
    }

    /// What the weights of rows are relative to.
    fn units(&self, plan: &mut PlanBuilder<'_>, block: Block, [q, k]: [View; 2], slots: [u32; 2]) -> Result<()> {
        // In full mode a chunk is any number of rows.
        let chunk_len = if self.form.causal { self.space.rounds.chunk_len } else { Form::tile_rows() };
        let chunks = block.rows.count.div_ceil(chunk_len);
        let values = [
            ("first_head", block.heads.first),
            ("group", self.group),
            ("chunk_len", chunk_len),
            ("first_chunk", block.rows.first / chunk_len),
            ("chunks", chunks),
            ("slots", self.space.rounds.slots()),
            ("first_slot", slots[0]),
            ("slot_step", slots[1]),
        ];
        let values = [&numbers(&values)[..], &self.places(block)].concat();
        let workgroups = product([block.heads.count, self.group, chunks]);
        let flops = product([8, chunk_len, self.own.shapes.features(self.form.config.feature_map)]);
        let views = [("q", q), ("beside", k), ("states", self.states), ("numbers", self.numbers)];
        plan.dispatch(&self.form.units(self.problem), workgroups, flops, &values, &views)
    }

    /// The sums over a round's chunks of queries, from the total behind them to the one that includes them.
    fn sum_queries(&self, plan: &mut PlanBuilder<'_>, block: Block, q: View, sums: &mut Reverse) -> Result<()> {
        let mut reverse = self.reverse(plan, block);
        reverse.chunk_state(block.heads, block.chunks, q)?;
        let [total, other] = sums.carry;
        let slots = [total, other].map(|carry| self.space.rounds.chunks_per_round + carry);
        reverse.prefix(block.heads, block.chunks.count, slots, sums.fresh)?;
        *sums = Reverse { carry: [other, total], fresh: false };
        Ok(())
    }

    /// The sums before any query: the gradients of the final state, if they come in.
    fn start(&self, plan: &mut PlanBuilder<'_>, heads: Span, carry: u32) -> Result<bool> {
        let comes_in = self.problem.shapes.dstate_in && self.wanted.reverse;
        if comes_in {
            self.copy(plan, heads, State::IN, carry)?;
        }
        Ok(comes_in)
    }

    fn copy(&self, plan: &mut PlanBuilder<'_>, heads: Span, state: State, carry: u32) -> Result<()> {
        let view = |name| if state == State::IN { self.problem.view(name) } else { self.problem.output_view(name) };
        let [s, z] = ["dstate_s", "dstate_z"].map(|name| view(name).unwrap_or(View::NOWHERE));
        let max = self.problem.view("state_max");
        let mut builder = self.reverse(plan, self.block(heads, 0, 0));
        builder.views.extend([
            ("state_s", s),
            ("s", s),
            ("state_z", z),
            ("z", z),
            ("max", max.unwrap_or(View::NOWHERE)),
        ]);
        builder.views.extend(max.map(|max| ("state_max", max)));
        let slot = self.space.rounds.chunks_per_round + carry;
        builder.copy_state(heads, state, slot)
    }

    fn causal(&self, plan: &mut PlanBuilder<'_>, heads: Span) -> Result<()> {
        let (shapes, first_slot) = (&self.problem.shapes, self.space.rounds.chunks_per_round);
        let rounds = self.space.key_rounds;
        if shapes.state {
            self.forward(plan, self.block(heads, 0, 0)).copy_state(heads, State::IN, first_slot)?;
        }
        for round in 0..rounds.saturating_sub(1) {
            self.sum_keys(plan, self.block(heads, round, shapes.kv_len), round)?;
        }
        let mut sums = Reverse { carry: [0, 1], fresh: true };
        for round in (0..rounds).rev() {
            let block = self.block(heads, round, shapes.kv_len);
            let k = self.sum_keys(plan, block, round)?;
            if round + 1 == rounds {
                sums.fresh = !self.start(plan, heads, 0)?;
            }
            let q = self.queries(plan, block, k, [0, 1])?;
            if self.wanted.reverse {
                self.sum_queries(plan, block, q, &mut sums)?;
            }
            self.keys_and_values(plan, block, [q, k], [0, 1])?;
        }
        if rounds == 0 {
            sums.fresh = !self.start(plan, heads, 0)?;
        }
        self.finish(plan, heads, sums)
    }

    fn full(&self, plan: &mut PlanBuilder<'_>, heads: Span) -> Result<()> {
        let shapes = &self.problem.shapes;
        let Rounds { chunk_len, chunks_per_round, .. } = self.space.rounds;
        let (rounds, q_rounds) = (self.space.key_rounds, shapes.q_len.div_ceil(chunk_len).div_ceil(chunks_per_round));
        if shapes.state {
            self.forward(plan, self.block(heads, 0, 0)).copy_state(heads, State::IN, chunks_per_round)?;
        }
        let mut k = View::NOWHERE;
        for round in 0..rounds {
            k = self.sum_keys(plan, self.block(heads, round, shapes.kv_len), round)?;
        }
        if rounds == 0 && !shapes.state {
            // No keys and no state: an empty one.
            let slots = [self.total() + 1, self.total()];
            self.forward(plan, self.block(heads, 0, 0)).prefix(heads, 0, slots, true)?;
        }
        let columns = self.form.kind == Kind::Columns;
        let comes_in = self.start(plan, heads, if columns { COMES_IN } else { 0 })?;
        let mut sums = Reverse { carry: [0, 1], fresh: columns || !comes_in };
        for round in 0..q_rounds {
            let block = self.block(heads, round, shapes.q_len);
            let q = self.queries(plan, block, k, [self.total(), 0])?;
            if self.wanted.reverse {
                self.sum_queries(plan, block, q, &mut sums)?;
            }
        }
        if !self.wanted.reverse {
            return Ok(());
        }
        if sums.fresh {
            self.sum_nothing(plan, heads, &mut sums)?;
        }
        if columns {
            self.columns(plan, heads, sums.carry[0], comes_in)?;
        }
        for round in 0..rounds {
            let block = self.block(heads, round, shapes.kv_len);
            if rounds > 1 {
                k = self.forward(plan, block).rows(false, heads, block.rows)?;
            }
            let slot = chunks_per_round + sums.carry[0];
            self.keys_and_values(plan, block, [View::NOWHERE, k], [slot, 0])?;
        }
        self.finish(plan, heads, sums)
    }

    /// A total of no queries at all.
    fn sum_nothing(&self, plan: &mut PlanBuilder<'_>, heads: Span, sums: &mut Reverse) -> Result<()> {
        let [total, other] = sums.carry;
        let slots = [other, total].map(|carry| self.space.rounds.chunks_per_round + carry);
        self.reverse(plan, self.block(heads, 0, 0)).prefix(heads, 0, slots, true)?;
        sums.fresh = false;
        Ok(())
    }

    /// Of Efficient Attention: from sums over queries to gradients of sums over keys.
    fn columns(&self, plan: &mut PlanBuilder<'_>, heads: Span, carry: u32, comes_in: bool) -> Result<()> {
        let chunks = self.space.rounds.chunks_per_round;
        let rows = heads.count * self.own.shapes.features(self.form.config.feature_map);
        let values = numbers(&[
            ("rows", rows),
            ("slots", chunks + CARRIES),
            ("carry", chunks + carry),
            ("comes_in", chunks + COMES_IN),
            ("adds", comes_in.into()),
            ("key_slots", self.space.rounds.slots()),
            ("key_carry", self.total()),
        ]);
        let workgroups = rows.div_ceil(kernels::STATE_WORKGROUP).into();
        let flops = product([8, kernels::STATE_WORKGROUP, self.problem.shapes.v_dim]);
        let views = [("states", self.reversed), ("key_states", self.states)];
        plan.dispatch(&self.form.columns(self.problem), workgroups, flops, &values, &views)
    }

    fn keys_and_values(
        &self,
        plan: &mut PlanBuilder<'_>,
        block: Block,
        features: [View; 2],
        slots: [u32; 2],
    ) -> Result<()> {
        if self.wanted.dk {
            self.gradient(plan, Role::Keys, block, features, slots)?;
        }
        if self.wanted.dv {
            self.gradient(plan, Role::Values, block, features, slots)?;
        }
        Ok(())
    }

    /// The gradient of a round's rows of queries, keys or values, and on through the map.
    fn gradient(
        &self,
        plan: &mut PlanBuilder<'_>,
        role: Role,
        block: Block,
        [q, k]: [View; 2],
        [first_slot, slot_step]: [u32; 2],
    ) -> Result<()> {
        let (shapes, form) = (&self.problem.shapes, &self.form);
        let queries = role == Role::Queries;
        let (len, all_heads, own_heads) = match queries {
            true => (shapes.q_len, shapes.q_heads, self.group),
            false => (shapes.kv_len, shapes.kv_heads, 1),
        };
        let [all_chunks, chunks] = form.chunks(role, shapes);
        let (tiles, blocks) = (self.space.rounds.chunk_len.div_ceil(Form::tile_rows()), all_chunks.div_ceil(chunks));
        let slots = self.space.rounds.chunks_per_round + if queries { self.space.rounds.carries } else { CARRIES };
        let output = match role {
            Role::Queries => "dq",
            Role::Keys => "dk",
            Role::Values => "dv",
        };
        let operand = self.problem.output_view(output).unwrap_or(View::NOWHERE);
        let heads = Span { first: block.heads.first * own_heads, count: block.heads.count * own_heads };
        let width = form.width(role, shapes).next_multiple_of(4);
        let gradients = self.gradients.filter(|_| form.has_chain(role));
        let to = gradients.map_or(operand, |view| in_round(view, operand, [all_heads, heads.first], block.rows, width));
        let view = |rows: Rows, features| match rows {
            Rows::Operand(name) => self.problem.view(name).unwrap_or(View::NOWHERE),
            Rows::Workspace => features,
        };
        let [rows, seen, values, own] = form.operands(role);
        let (of_rows, of_seen, of_values) = match role {
            Role::Queries => (q, q, k),
            Role::Keys => (k, q, q),
            Role::Values => (k, q, q),
        };
        let views = [
            ("q", view(rows, of_rows)),
            ("k", view(seen, of_seen)),
            ("v", view(values, of_values)),
            ("beside", view(own, of_rows)),
            ("o", to),
            ("states", if queries { self.states } else { self.reversed }),
            ("numbers", self.numbers),
        ];
        let input_scale = form.config.feature_map.input_scale(shapes.head_dim) as f32;
        let mut told = numbers(&[
            ("first_head", block.heads.first),
            ("own_heads", own_heads),
            ("walked_heads", if queries { 1 } else { self.group }),
            ("rows", len),
            ("chunk_len", self.space.rounds.chunk_len),
            ("first_chunk", block.chunks.first),
            ("chunks", block.chunks.count),
            ("tiles", tiles),
            ("blocks", blocks),
            ("slots", slots),
            ("first_slot", first_slot),
            ("slot_step", slot_step),
            ("kv_len", len),
        ]);
        told.push(("input_scale", input_scale.into()));
        told.extend(self.places(block));
        let workgroups = product([heads.count, block.chunks.count, tiles]).saturating_mul(blocks.into());
        let features = u64::from(self.own.shapes.features(form.config.feature_map));
        let pairs = if form.causal { product([self.space.rounds.chunk_len, self.group]) } else { 0 };
        let each = product([2, Form::tile_rows()]) * u64::from(shapes.v_dim + 4 * chunks) * (pairs + features);
        plan.dispatch(&form.gradient(role, self.problem), workgroups, each, &told, &views)?;
        let Some(gradients) = gradients else { return Ok(()) };
        self.chain(plan, role, [heads, block.rows], gradients, [all_heads, len])
    }

    /// Takes gradients of features through the map.
    fn chain(
        &self,
        plan: &mut PlanBuilder<'_>,
        role: Role,
        [heads, rows]: [Span; 2],
        gradients: View,
        [all_heads, len]: [u32; 2],
    ) -> Result<()> {
        let shapes = &self.problem.shapes;
        let map = self.form.config.feature_map;
        let features = self.own.shapes.features(map);
        let tiles = rows.count.div_ceil(Tile::GPU.rows());
        let blocks = shapes.head_dim.div_ceil(4).div_ceil(kernels::FEATURE_BLOCK);
        let mut values = numbers(&[
            ("first_head", heads.first),
            ("heads", all_heads),
            ("first_row", rows.first),
            ("rows", rows.count),
            ("tiles", tiles),
            ("blocks", blocks),
            ("kv_len", len),
        ]);
        values.push(("input_scale", (map.input_scale(shapes.head_dim) as f32).into()));
        values.push(("log_norm", ((0.5 * f64::from(features).ln()) as f32).into()));
        let (rows, output) = if role == Role::Queries { ("q", "dq") } else { ("k", "dk") };
        let [rows, output] =
            [self.problem.view(rows), self.problem.output_view(output)].map(|view| view.unwrap_or(View::NOWHERE));
        let views = [("q", rows), ("o", output), ("features", gradients)];
        let flops = product([8, Tile::GPU.rows(), features, kernels::FEATURE_BLOCK]);
        let workgroups = product([heads.count, tiles, blocks]);
        plan.dispatch(&self.form.chain(role, self.problem), workgroups, flops, &values, &views)
    }

    /// The gradients of the state that came in.
    fn finish(&self, plan: &mut PlanBuilder<'_>, heads: Span, mut sums: Reverse) -> Result<()> {
        if !self.problem.shapes.dstate_out {
            return Ok(());
        }
        if sums.fresh {
            self.sum_nothing(plan, heads, &mut sums)?;
        }
        self.copy(plan, heads, State::OUT, sums.carry[0])
    }
}

fn numbers<const N: usize>(own: &[(&'static str, u32); N]) -> Vec<(&'static str, Value)> {
    own.iter().map(|&(name, value)| (name, value.into())).collect()
}
