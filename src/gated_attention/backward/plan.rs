//! In what dispatches gradients flow back.

use std::ops::Range;

use super::super::config::GatedAttentionConfig;
use super::super::kernels::{FLAT_WORKGROUP, Weighing};
use super::super::plan::{Call, States, check_index, refuses};
use super::super::shapes::GatedAttentionShapes;
use super::super::tiles::{Choice, select};
use super::kernels::{self, To};
use super::tiles::{Of, Sweep, Tile};
use super::{GatedAttentionBackward, GatedAttentionBackwardShapes, OPERANDS};
use crate::dispatch::{Plan, PlanBuilder, Value, View};
use crate::op::{self, Access, GivenNames, Kernels, Operand, Shapes};
use crate::row_kernel::Kernel;
use crate::tensor::{Layout, product};
use crate::tuning::NoOffer;
use crate::{Causal, GatedAttention, Matrices, Result};

/// Groups of rows of a head at most that leave sums of the gradients of maps.
const MOST_GROUPS: u64 = 1024;

pub(super) type Problem = op::Problem<GatedAttentionBackwardShapes>;

impl Kernels for GatedAttentionBackward {
    const NAME: &'static str = "gated_attention_backward";
    const OPERANDS: &'static [Operand] = OPERANDS;
    type Config = GatedAttentionConfig;
    type Shapes = GatedAttentionBackwardShapes;
    type Offer = NoOffer;

    fn check_config(config: &GatedAttentionConfig) -> Result<()> {
        config.check()
    }

    fn check(config: &GatedAttentionConfig, shapes: &GatedAttentionBackwardShapes) -> Result<()> {
        shapes.check(config)
    }

    fn refuses(config: &GatedAttentionConfig, given: &GivenNames, row: &Operand) -> Option<&'static str> {
        if row.access == Access::Read {
            let wanted = || OPERANDS.iter().any(|row| is_of_scores(row.name) && given.output(row.name));
            return match row.name {
                "o" if !given.has(row) && config.adds_up() && wanted() => {
                    Some("is missing, but a gradient through weights that add up to one needs it")
                }
                _ => refuses(config, given, row),
            };
        }
        let none = || !OPERANDS.iter().any(|row| given.output(row.name));
        match row.name {
            "dv" if !given.on_host && none() => Some("is missing, and so is every other gradient"),
            name if given.has(row) && !given.input(&name[1..]) => {
                Some("is given, but what it is the gradient of is not")
            }
            _ => None,
        }
    }

    fn has(config: &GatedAttentionConfig, shapes: &GatedAttentionBackwardShapes, row: &Operand) -> bool {
        let linear = config.chunk().is_some() || !row.name.ends_with("_lin");
        match (row.name, row.access) {
            ("z" | "u" | "kv_lens", _) => shapes.has(row.name),
            ("q" | "k" | "q_lin" | "k_lin", _) => !shapes.shared_z && linear,
            ("o", _) => config.adds_up() && (shapes.dq || shapes.dk || shapes.dz || shapes.dmaps),
            (_, Access::Read) => shapes.shared_z && linear,
            // A plan without tensors is one of something.
            ("dv", _) => shapes.dv || !OPERANDS.iter().any(|row| shapes.has(row.name) && row.name.starts_with('d')),
            (name, _) if name.starts_with("dgamma_") || name.starts_with("dbeta_") => shapes.dmaps && linear,
            (name, _) => shapes.has(name),
        }
    }

    fn build(
        plan: PlanBuilder<'_>,
        config: &GatedAttentionConfig,
        problem: &Problem,
        _: Option<&NoOffer>,
    ) -> Result<Plan> {
        build(plan, config, problem)
    }
}

/// Whether a gradient comes through the products of queries and keys.
fn is_of_scores(name: &str) -> bool {
    name.starts_with('d') && !["du", "dv", "dout"].contains(&name)
}

/// q, k, q_lin and k_lin, in this order everywhere.
const SIDES: [&str; 4] = ["q", "k", "q_lin", "k_lin"];
const GRADIENTS: [[&str; 3]; 4] = [
    ["dq", "dgamma_q", "dbeta_q"],
    ["dk", "dgamma_k", "dbeta_k"],
    ["dq_lin", "dgamma_q_lin", "dbeta_q_lin"],
    ["dk_lin", "dgamma_k_lin", "dbeta_k_lin"],
];

/// Compiles the kernels and lays out their dispatches.
fn build(mut plan: PlanBuilder<'_>, config: &GatedAttentionConfig, problem: &Problem) -> Result<Plan> {
    // Products are of f32, whatever forward may round.
    let config = &config.matrices(Matrices::None);
    let shapes = problem.shapes;
    let mut pass = Pass::new(&mut plan, config, problem);
    let mut reasons = Vec::new();
    let queries = product([shapes.batch, shapes.q_heads, shapes.q_len]);
    if shapes.batch > 0 {
        pass.gather_maps()?;
        if queries > 0 {
            pass.gate()?;
        }
        pass.rows()?;
        pass.sides(&mut reasons)?;
        pass.values(&mut reasons)?;
    }
    pass.through_maps()?;
    let wanted = |name| problem.has(name);
    let [s, e] = [shapes.key_dim, shapes.v_dim].map(u64::from);
    let scores = GRADIENTS.map(|names| wanted("dz") || names.iter().any(|name| wanted(name)));
    // The products of a pair: q·k; dout·v; and what becomes of both.
    let of_scores = [scores[0] || scores[2], scores[1] || scores[3]].iter().filter(|wanted| **wanted).count() as u64;
    let values = ["du", "dv"].iter().filter(|name| wanted(name)).count() as u64;
    let per_pair = s * (1 + of_scores) + e * (values + of_scores.min(1));
    let flops = (shapes.forward().flops(config) / (s + e)).saturating_mul(per_pair);
    plan.finish(flops, problem.bytes(), reasons.join("; "))
}

/// A pass in the making.
struct Pass<'a, 'c> {
    plan: &'a mut PlanBuilder<'c>,
    config: &'a GatedAttentionConfig,
    problem: &'a Problem,
    /// What kernels find in the workspace.
    views: Vec<(&'static str, View)>,
    /// Which of the four sides have a gradient that is wanted, and where in `partials` each lies: the first vec4, and ranges to add up.
    wanted: [bool; 4],
    places: [(u32, u32); 4],
    /// The same of the gradients of maps: rows of a group, and groups.
    groups: (u32, u32),
}

impl<'a, 'c> Pass<'a, 'c> {
    fn new(plan: &'a mut PlanBuilder<'c>, config: &'a GatedAttentionConfig, problem: &'a Problem) -> Self {
        let linear = config.chunk().is_some();
        let dz = problem.has("dz");
        let is_wanted =
            |side: usize| (linear || side < 2) && (dz || GRADIENTS[side].iter().any(|name| problem.has(name)));
        let rows = product([problem.shapes.batch, problem.shapes.q_len]);
        let of_group = rows.div_ceil(MOST_GROUPS).max(64);
        let groups = (of_group as u32, rows.div_ceil(of_group) as u32);
        let wanted = [0, 1, 2, 3].map(is_wanted);
        Self { plan, config, problem, views: Vec::new(), wanted, places: [(0, 1); 4], groups }
    }

    /// The forward problem with another gate and output; `v_dim` of its value dims.
    fn forward(&self, v_dim: u32, [u, o]: [Option<Layout>; 2]) -> op::Problem<GatedAttentionShapes> {
        let shapes = GatedAttentionShapes { v_dim, gate: u.is_some(), ..self.problem.shapes.forward() };
        op::Problem::within::<GatedAttention>(shapes, |row| match row.name {
            "u" => u,
            "o" => o,
            "v" => self.problem.own("v").map(|layout| {
                let mut layout = *layout;
                layout.shape[3] = v_dim;
                layout
            }),
            name => self.problem.own(name).copied(),
        })
    }

    fn gather_maps(&mut self) -> Result<()> {
        let problem = self.forward(self.problem.shapes.v_dim, [None, None]);
        let choice = select(self.config, &problem, self.plan.device(), None)?;
        let mut call =
            Call { plan: self.plan, config: self.config, problem: &problem, choice: &choice, views: Vec::new() };
        call.gather_maps()?;
        self.views = call.views;
        Ok(())
    }

    /// du: forward, with dout for a gate.
    fn gate(&mut self) -> Result<()> {
        let Some((du, view)) = self.problem.output("du").zip(self.problem.output_view("du")) else { return Ok(()) };
        let problem = self.forward(self.problem.shapes.v_dim, [self.problem.own("dout").copied(), Some(*du)]);
        let device = self.plan.device();
        let choice = select(self.config, &problem, device, None)?;
        let mut views = self.views.clone();
        views.extend(self.problem.view("dout").map(|view| ("u", view)));
        views.push(("o", view));
        let config = self.config;
        self.plan.in_passing(|plan| {
            let mut call = Call { plan, config, problem: &problem, choice: &choice, views };
            match config.chunk() {
                None => call.full(),
                Some(chunk) => call.mixed_chunk(chunk),
            }
        })
    }

    /// What weights that add up to one have in common: from q and k alone, and dout and o.
    fn rows(&mut self) -> Result<()> {
        let shapes = self.problem.shapes;
        let weighing = Weighing::new(self.config, shapes.key_dim);
        if !weighing.divides_by_sum() || !(self.wanted[0] || self.wanted[1] || self.problem.has("dv")) {
            return Ok(());
        }
        let rows = product([shapes.batch, shapes.q_heads, shapes.q_len]);
        let terms = self.plan.workspace("what rows have in common", 16 * rows.max(1))?;
        self.views.push(("row_terms", terms));
        if rows == 0 {
            return Ok(());
        }
        // Of values, four dims go along, which nobody reads. By a GPU's kernel everywhere, whose scores are those of the kernels here to
        // the last bit: where a row's only weights are of scores that cancel, no others would add up to one.
        let problem = self.forward(shapes.v_dim.min(4), [None, None]);
        let choice = Tile::of_sums(self.config, &problem, self.plan.device())?;
        let (config, views) = (self.config, self.views.clone());
        let delta = self.wanted[0] || self.wanted[1];
        let kernel = kernels::rows(config, self.problem, delta);
        self.plan.in_passing(|plan| {
            let mut call = Call { plan, config, problem: &problem, choice: &choice, views };
            call.partials()?;
            let mut values = call.values();
            let own = [("rows", rows as u32), ("heads", shapes.q_heads), ("len", shapes.q_len)];
            values.extend(own.map(|(name, value)| (name, value.into())));
            let height = FLAT_WORKGROUP / kernels::ROW_LANES;
            let flops = product([height, 2 * shapes.v_dim + 8 * choice.splits]);
            let views = call.views;
            plan.dispatch(&kernel, rows.div_ceil(height.into()), flops, &values, &views)
        })
    }

    fn sweep(&self, of: Of) -> Sweep {
        Sweep::new(self.config, &self.problem.shapes, self.plan.device(), of)
    }

    /// Gradients of q and k, and of what z maps to; of their linear parts with those of values.
    fn sides(&mut self, reasons: &mut Vec<String>) -> Result<()> {
        let shapes = self.problem.shapes;
        let sweeps = [self.sweep(Of::Queries), self.sweep(Of::Keys)];
        // Where they lie that are not written at once.
        let chunks = u64::from(shapes.key_dim.div_ceil(4));
        let mut next = 0;
        for (side, sweep) in [0, 1, 2, 3].map(|side: usize| (side, &sweeps[side % 2])) {
            let splits = if side < 2 { sweep.splits } else { 1 };
            let at_once = side < 2 && splits == 1 && !shapes.shared_z;
            if self.wanted[side] && !at_once {
                self.places[side] = (next as u32, splits);
                next += sweep.rows(shapes.batch).saturating_mul(u64::from(splits) * chunks);
            }
            check_index("gradients of queries and keys", next)?;
        }
        if next > 0 {
            self.views.push(("partials", self.plan.workspace("gradients of queries and keys", 16 * next)?));
        }
        for (side, sweep) in sweeps.iter().enumerate() {
            if self.wanted[side] && sweep.rows(shapes.batch) > 0 {
                reasons.push(format!("{} in {} ranges", GRADIENTS[side][0], sweep.splits));
                self.side(side, sweep)?;
            }
        }
        Ok(())
    }

    fn side(&mut self, side: usize, sweep: &Sweep) -> Result<()> {
        let gradient = self.output(GRADIENTS[side][0]);
        let to = match &gradient {
            Some((layout, _)) if sweep.splits == 1 => To::Gradient(layout),
            _ => To::Workspace,
        };
        let blocks = 0..sweep.blocks;
        self.walk(sweep, blocks, to, self.places[side].0, gradient.map(|(_, view)| view))?;
        match (to, gradient) {
            (To::Workspace, Some((layout, view))) => {
                let heads_and_len = [sweep.own_heads, sweep.own_len];
                self.combine(self.places[side], heads_and_len, self.problem.shapes.key_dim, (layout, view))
            }
            _ => Ok(()),
        }
    }

    fn output(&self, name: &str) -> Option<(&'a Layout, View)> {
        self.problem.output(name).zip(self.problem.output_view(name))
    }

    /// The kernel that walks rows, for some blocks of its results.
    fn walk(
        &mut self,
        sweep: &Sweep,
        blocks: Range<u32>,
        to: To<'_>,
        first: u32,
        gradient: Option<View>,
    ) -> Result<()> {
        self.walk_with(sweep, blocks, to, first, gradient, None)
    }

    /// The same, of values in mixed chunks with the states of these blocks.
    fn walk_with(
        &mut self,
        sweep: &Sweep,
        blocks: Range<u32>,
        to: To<'_>,
        first: u32,
        gradient: Option<View>,
        states: Option<&States>,
    ) -> Result<()> {
        let shapes = self.problem.shapes;
        let kernel = kernels::walk(self.config, self.problem, sweep.of, &sweep.tile, to);
        let mut values = self.numbers(sweep, states);
        values.extend([
            ("first_block", blocks.start.into()),
            ("blocks", (blocks.len() as u32).into()),
            ("partial_first", first.into()),
        ]);
        let mut views = self.views.clone();
        let names = if sweep.of == Of::Queries { ["q", "k"] } else { ["k", "q"] };
        views.extend(["q", "k"].into_iter().zip(names).filter_map(|(own, name)| Some((own, self.problem.view(name)?))));
        views.extend(self.problem.view("k_lin").map(|view| ("q_lin", view)));
        views.extend(self.problem.view("v").map(|view| ("values", view)));
        views.push(("gradient", gradient.unwrap_or(View::NOWHERE)));
        let dims = [shapes.key_dim, shapes.v_dim];
        self.plan.expect_loops(sweep.told(), sweep.iterations(dims))?;
        let walked = sweep.walked_chunk.min(sweep.split_rows);
        let flops = sweep.flops_per_row(dims) * product([walked, sweep.split_heads]);
        let workgroups = sweep.workgroups(shapes.batch, blocks.len() as u32);
        self.plan.dispatch(&kernel, workgroups, flops, &values, &views)
    }

    /// The numbers of a kernel that owns rows, beside the sizes.
    fn numbers(&self, sweep: &Sweep, states: Option<&States>) -> Vec<(&'static str, Value)> {
        let shapes = self.problem.shapes;
        let weighing = Weighing::new(self.config, shapes.key_dim);
        let visibility = self.config.visibility();
        let (linear_tokens, linear_divisor) = self.config.linear_divisor();
        let walked = if sweep.of == Of::Queries { "k" } else { "q" };
        let walked_row = self.problem.get(walked).map_or(0, |layout| layout.strides[2]);
        // The last block starts early enough to be whole, where another has been before.
        let own = states.map_or(0, |states| states.blocks.start * states.v_block - states.chunks.start);
        // No row is further left than the first.
        let offset = visibility.fixed_offset(shapes.kv_len).max(-(shapes.q_len as i32));
        let align_end = self.config.causal == Causal::BottomRight && self.config.chunk().is_none();
        let values = [
            ("group", (shapes.q_heads / shapes.kv_heads).into()),
            ("own_heads", sweep.own_heads.into()),
            ("own_len", sweep.own_len.into()),
            ("own_chunk", sweep.own_chunk.into()),
            ("walked_len", sweep.walked_len.into()),
            ("walked_chunk", sweep.walked_chunk.into()),
            ("chunks", sweep.chunks.into()),
            ("row_tiles", sweep.row_tiles.into()),
            ("splits", sweep.splits.into()),
            ("row_splits", sweep.row_splits.into()),
            ("split_rows", sweep.split_rows.into()),
            ("split_heads", sweep.split_heads.into()),
            ("offset", offset.into()),
            ("align_end", align_end.into()),
            ("left", visibility.left().into()),
            ("right", visibility.right().into()),
            ("scale", (weighing.scale as f32).into()),
            ("divisor", (weighing.divisor as f32).into()),
            ("partial_rows", (sweep.rows(shapes.batch) as u32).into()),
            ("chunk_causal", (self.config.causal != Causal::None).into()),
            ("linear_tokens", linear_tokens.into()),
            ("linear_divisor", linear_divisor.into()),
            ("v_row", if sweep.of == Of::Values { 1 } else { walked_row }.into()),
            ("state_first", states.map_or(0, |states| states.chunks.start).into()),
            ("state_own", own.into()),
            ("state_chunks", states.map_or(0, |states| states.chunks.len() as u32).into()),
        ];
        values.into()
    }

    /// Adds up ranges into a gradient.
    fn combine(
        &mut self,
        (first, splits): (u32, u32),
        [heads, len]: [u32; 2],
        dim: u32,
        (layout, view): (&Layout, View),
    ) -> Result<()> {
        let rows = product([self.problem.shapes.batch, heads, len]);
        let values =
            [("rows", rows as u32), ("heads", heads), ("len", len), ("splits", splits), ("partial_first", first)];
        let values = values.map(|(name, value)| (name, value.into()));
        let views = [&self.views[..], &[("gradient", view)]].concat();
        let workgroups = (rows * u64::from(dim.div_ceil(4))).div_ceil(FLAT_WORKGROUP.into());
        let flops = product([FLAT_WORKGROUP, 4, splits]);
        self.plan.dispatch(&kernels::combine(self.problem, layout, dim), workgroups, flops, &values, &views)
    }

    /// Gradients of values, and in mixed chunks of q_lin and k_lin.
    fn values(&mut self, reasons: &mut Vec<String>) -> Result<()> {
        let (shapes, dv) = (self.problem.shapes, self.output("dv"));
        let sweep = self.sweep(Of::Values);
        if dv.is_some() {
            reasons.push(format!("dv in {} ranges and {} blocks", sweep.splits, sweep.blocks));
        }
        if let Some(chunk) = self.config.chunk() {
            return self.mixed_chunk(chunk, &sweep, dv);
        }
        let (Some((layout, view)), true) = (dv, sweep.rows(shapes.batch) > 0) else { return Ok(()) };
        if sweep.splits == 1 {
            return self.walk(&sweep, 0..sweep.blocks, To::Gradient(layout), 0, Some(view));
        }
        let rows = sweep.rows(shapes.batch).saturating_mul(sweep.splits.into());
        let partials = rows.saturating_mul(shapes.v_dim.div_ceil(4).into());
        check_index("gradients of values", partials)?;
        let region = self.plan.workspace("gradients of values", 16 * partials)?;
        let before = self.views.clone();
        self.views.retain(|(name, _)| *name != "partials");
        self.views.push(("partials", region));
        self.walk(&sweep, 0..sweep.blocks, To::Workspace, 0, None)?;
        self.combine((0, sweep.splits), [sweep.own_heads, sweep.own_len], shapes.v_dim, (layout, view))?;
        self.views = before;
        Ok(())
    }

    /// For as many blocks of value dims at a time as the workspace holds states of: those of keys and values, and what flows back from
    /// queries to these.
    fn mixed_chunk(&mut self, chunk: u32, sweep: &Sweep, dv: Option<(&Layout, View)>) -> Result<()> {
        let shapes = self.problem.shapes;
        let [_, _, q_lin, k_lin] = self.wanted;
        if !(q_lin || k_lin || dv.is_some()) || sweep.rows(shapes.batch) == 0 {
            return Ok(());
        }
        let forward = self.forward(shapes.v_dim, [None, None]);
        let own = Choice {
            kernel: Kernel::Tiled(sweep.tile.grid),
            shuffle: false,
            q_in_storage: false,
            v_block: sweep.tile.v_block,
            blocks: sweep.blocks,
            splits: 1,
            split_keys: 0,
            reason: String::new(),
        };
        let mut call =
            Call { plan: self.plan, config: self.config, problem: &forward, choice: &own, views: self.views.clone() };
        let turns = call.turns(chunk)?;
        self.views = call.views;
        for states in turns {
            if q_lin {
                self.states_of_keys(chunk, &forward, &own, &states)?;
                self.linear(Of::Queries, 2, &states)?;
            }
            if k_lin || dv.is_some() {
                self.states_of_queries(chunk, &forward, &own, &states)?;
            }
            if k_lin {
                self.linear(Of::Keys, 3, &states)?;
            }
            if let Some((layout, view)) = dv {
                self.walk_with(sweep, states.blocks.clone(), To::Gradient(layout), 0, Some(view), Some(&states))?;
            }
        }
        for side in [2, 3] {
            if let Some(gradient) = self.output(GRADIENTS[side][0]) {
                let heads = if side == 2 { shapes.q_heads } else { shapes.kv_heads };
                self.combine(self.places[side], [heads, shapes.q_len], shapes.key_dim, gradient)?;
            }
        }
        Ok(())
    }

    /// The sums of states that queries meet.
    fn states_of_keys(
        &mut self,
        chunk: u32,
        problem: &op::Problem<GatedAttentionShapes>,
        choice: &Choice,
        states: &States,
    ) -> Result<()> {
        let mut call = Call { plan: self.plan, config: self.config, problem, choice, views: self.views.clone() };
        let needed = choice.state_iterations(problem.shapes.key_dim, chunk.min(problem.shapes.kv_len));
        call.plan.expect_loops("the state of a chunk", needed)?;
        call.chunk_states(chunk, states)?;
        call.prefix(chunk, states, false)
    }

    /// The sums of what flows back to them.
    fn states_of_queries(
        &mut self,
        chunk: u32,
        problem: &op::Problem<GatedAttentionShapes>,
        choice: &Choice,
        states: &States,
    ) -> Result<()> {
        let shapes = self.problem.shapes;
        let tile = kernels::state_tile(shapes.key_dim, choice.v_block);
        let (held, chunks) = (states.chunks.len() as u32, shapes.q_len.div_ceil(chunk));
        let (key_tiles, blocks) = (shapes.key_dim.div_ceil(tile.grid.rows()), held.div_ceil(tile.v_block));
        let (linear_tokens, linear_divisor) = self.config.linear_divisor();
        let group = shapes.q_heads / shapes.kv_heads;
        let values = [
            ("group", group.into()),
            ("chunk", chunk.into()),
            ("chunks", chunks.into()),
            ("key_tiles", key_tiles.into()),
            ("blocks", blocks.into()),
            ("chunk_causal", (self.config.causal != Causal::None).into()),
            ("linear_tokens", linear_tokens.into()),
            ("linear_divisor", linear_divisor.into()),
            ("state_first", states.chunks.start.into()),
            ("state_chunks", held.into()),
        ];
        let mut views = self.views.clone();
        views.extend(self.problem.view("q_lin").map(|view| ("q", view)));
        let own = chunk.min(shapes.q_len);
        self.plan.expect_loops("the states of a chunk", states_iterations(&tile, own, group))?;
        let workgroups = product([shapes.batch, shapes.kv_heads, chunks, key_tiles, blocks]);
        let flops = product([2, own, group, tile.grid.rows(), 4 * tile.v_block]);
        self.plan.dispatch(&kernels::states(self.problem, &tile), workgroups, flops, &values, &views)?;
        let mut call = Call { plan: self.plan, config: self.config, problem, choice, views: self.views.clone() };
        call.prefix(chunk, states, true)
    }

    /// The gradient of q_lin or k_lin by the states that are there.
    fn linear(&mut self, of: Of, side: usize, states: &States) -> Result<()> {
        let shapes = self.problem.shapes;
        let sweep = self.sweep(of);
        let held = states.chunks.len() as u32;
        let mut values = self.numbers(&sweep, Some(states));
        values.extend(
            [("partial_first", self.places[side].0), ("first_block", 0), ("blocks", 1)]
                .map(|(name, value)| (name, value.into())),
        );
        let mut views = self.views.clone();
        views.extend(self.problem.view("v").map(|view| ("values", view)));
        views.push(("gradient", View::NOWHERE));
        let workgroups = sweep.workgroups(shapes.batch, 1);
        let flops = product([2, sweep.tile.grid.rows(), shapes.key_dim, 4 * held]);
        self.plan.dispatch(&kernels::linear(self.problem, of, sweep.tile.grid), workgroups, flops, &values, &views)
    }

    /// Gradients of z and its maps.
    fn through_maps(&mut self) -> Result<()> {
        let shapes = self.problem.shapes;
        let names = SIDES.map(|side| ["gamma", "beta"].map(|map| format!("d{map}_{side}")));
        let dz = self.output("dz");
        if !shapes.shared_z || dz.is_none() && !names.iter().flatten().any(|name| self.problem.has(name)) {
            return Ok(());
        }
        let (chunks, (rows_of_group, groups)) = (shapes.key_dim.div_ceil(4), self.groups);
        let sums = product([8, shapes.q_heads, groups, chunks]);
        check_index("gradients of maps", sums)?;
        self.views.push(("map_sums", self.plan.workspace("gradients of maps", 16 * sums.max(1))?));
        if groups > 0 {
            let [q, k, q_lin, k_lin] = self.places;
            let values = [
                ("len", shapes.q_len),
                ("rows", shapes.batch * shapes.q_len),
                ("rows_of_group", rows_of_group),
                ("groups", groups),
                ("partial_rows", shapes.batch * shapes.q_heads * shapes.q_len),
                ("q_first", q.0),
                ("q_splits", q.1),
                ("k_first", k.0),
                ("k_splits", k.1),
                ("q_lin_first", q_lin.0),
                ("k_lin_first", k_lin.0),
            ];
            let values = values.map(|(name, value)| (name, value.into()));
            let mut views = self.views.clone();
            views.extend(self.problem.view("z").map(|view| ("q", view)));
            views.push(("gradient", dz.map_or(View::NOWHERE, |(_, view)| view)));
            let kernel = kernels::maps(self.problem, self.wanted, dz.map(|(layout, _)| layout));
            let flops = product([rows_of_group, shapes.key_dim, 16]);
            self.plan.dispatch(&kernel, product([shapes.q_heads, groups]), flops, &values, &views)?;
        }
        // One row may stand for all heads.
        let terms = if shapes.map_heads == shapes.q_heads { groups } else { shapes.q_heads * groups };
        for (index, name) in names.iter().flatten().enumerate() {
            let Some((layout, view)) = self.output(name) else { continue };
            let first = index as u32 * shapes.q_heads * groups * chunks;
            let values = [("sums_first", first), ("terms", terms)].map(|(name, value)| (name, value.into()));
            let views = [&self.views[..], &[("gradient", view)]].concat();
            let workgroups = product([shapes.map_heads, chunks]);
            self.plan.dispatch(&kernels::map_sums(self.problem, layout), workgroups, terms.into(), &values, &views)?;
        }
        Ok(())
    }
}

/// Loop iterations of the kernel of what flows back to states.
fn states_iterations(tile: &Tile, tokens: u32, group: u32) -> u64 {
    let steps = u64::from(tokens.div_ceil(tile.grid.slab)) * u64::from(tile.grid.slab / 4 + 2);
    u64::from(group) * (steps + 2) + 64
}
