//! Which kernels run for a problem, and with what numbers.

use std::ops::Range;

use super::config::GatedAttentionConfig;
use super::kernels::{self, FLAT_WORKGROUP, GATHERED, MAPS, Weighing};
use super::offers::{self, Offer};
use super::shapes::GatedAttentionShapes;
use super::tiles::{Choice, heads, rows_that_share, select};
use super::{GatedAttention, OPERANDS};
use crate::context::Capabilities;
use crate::dispatch::{Plan, PlanBuilder, Value, View};
use crate::op::{self, GivenNames, Kernels, Operand};
#[cfg(feature = "blocking")]
use crate::tuning::distinct;
use crate::{Causal, Error, Result};

pub(super) type Problem = op::Problem<GatedAttentionShapes>;

impl Kernels for GatedAttention {
    const NAME: &'static str = "gated_attention";
    const OPERANDS: &'static [Operand] = OPERANDS;
    type Config = GatedAttentionConfig;
    type Shapes = GatedAttentionShapes;
    type Offer = Offer;

    fn check_config(config: &GatedAttentionConfig) -> Result<()> {
        config.check()
    }

    fn check(config: &GatedAttentionConfig, shapes: &GatedAttentionShapes) -> Result<()> {
        shapes.check(config)
    }

    fn refuses(config: &GatedAttentionConfig, given: &GivenNames, row: &Operand) -> Option<&'static str> {
        refuses(config, given, row)
    }

    fn has(config: &GatedAttentionConfig, shapes: &GatedAttentionShapes, row: &Operand) -> bool {
        let used = config.chunk().is_some() || !row.name.ends_with("_lin");
        match row.name {
            "z" => shapes.shared_z,
            "u" => shapes.gate,
            "kv_lens" => shapes.kv_lens,
            "q" | "k" | "q_lin" | "k_lin" => !shapes.shared_z && used,
            _ => shapes.shared_z && used,
        }
    }

    /// Compiles what the problem needs and lays out the dispatches.
    fn build(
        mut plan: PlanBuilder<'_>,
        config: &GatedAttentionConfig,
        problem: &Problem,
        offer: Option<&Offer>,
    ) -> Result<Plan> {
        let device = plan.device();
        let choice = select(config, problem, device, offer)?;
        let mut call = Call { plan: &mut plan, config, problem, choice: &choice, views: Vec::new() };
        call.gather_maps()?;
        match config.chunk() {
            None => call.full()?,
            Some(chunk) => call.mixed_chunk(chunk)?,
        }
        plan.finish(problem.shapes.flops(config), problem.bytes(), choice.reason)
    }

    fn class(config: &GatedAttentionConfig, problem: &Problem) -> String {
        offers::class(config, problem)
    }

    fn offers(config: &GatedAttentionConfig, problem: &Problem, device: &Capabilities) -> Vec<Offer> {
        offers::offers(config, problem, device)
    }

    #[cfg(feature = "blocking")]
    fn candidates(config: &GatedAttentionConfig, problem: &Problem, device: &Capabilities) -> Result<Vec<Vec<String>>> {
        let choose =
            |offer: Option<&Offer>| Ok(Choice { reason: String::new(), ..select(config, problem, device, offer)? });
        distinct(offers::offers(config, problem, device), |a, b| a.tile == b.tile, choose)
    }

    #[cfg(feature = "blocking")]
    fn in_f16(config: &GatedAttentionConfig) -> bool {
        config.matrices == crate::Matrices::F16
    }
}

/// What is wrong with an input being given, or missing, forward and backward.
pub(super) fn refuses(config: &GatedAttentionConfig, given: &GivenNames, row: &Operand) -> Option<&'static str> {
    let (has, z, chunks) = (given.has(row), given.input("z"), config.chunk().is_some());
    let linear = row.name.ends_with("_lin");
    let unused = "is given, but only the mode mixed_chunk has a use for it";
    match row.name {
        "z" if !z && !given.input("q") && !given.input("k") => Some("either z or q and k must be given"),
        "q" if !z && !has => Some("k is given without it"),
        "k" if !z && !has => Some("q is given without it"),
        "q_lin" | "k_lin" if has && !chunks => Some(unused),
        "q_lin" | "k_lin" if !has && !z && chunks => Some("the mode mixed_chunk needs it, or z in its place"),
        "q" | "k" | "q_lin" | "k_lin" if has && z => Some("is given, but z takes its place"),
        name if name.starts_with("gamma_") || name.starts_with("beta_") => match (has, z) {
            (true, false) => Some("is given, but z, which it maps, is not"),
            (true, true) if linear && !chunks => Some(unused),
            (false, true) if name.starts_with("gamma_") && (chunks || !linear) => Some("z needs it"),
            _ => None,
        },
        _ => None,
    }
}

/// A plan in the making, or a part of one of the backward pass.
pub(super) struct Call<'a, 'c> {
    pub plan: &'a mut PlanBuilder<'c>,
    pub config: &'a GatedAttentionConfig,
    pub problem: &'a Problem,
    pub choice: &'a Choice,
    /// What kernels find in the workspace: the maps of z, for one; and what stands for operands.
    pub views: Vec<(&'static str, View)>,
}

/// The states of some blocks of value dims, in the workspace.
#[derive(Clone)]
pub(super) struct States {
    pub blocks: Range<u32>,
    /// Chunks of value dims of a block.
    pub v_block: u32,
    /// Chunks of value dims that they hold.
    pub chunks: Range<u32>,
}

impl Call<'_, '_> {
    /// One dispatch for the maps of q and k, one for those of q_lin and k_lin.
    pub fn gather_maps(&mut self) -> Result<()> {
        let (problem, shapes) = (self.problem, &self.problem.shapes);
        if !shapes.shared_z {
            return Ok(());
        }
        let pairs = if self.config.chunk().is_some() { 2 } else { 1 };
        let chunks = u64::from(shapes.q_heads) * u64::from(shapes.key_dim.div_ceil(4));
        self.views.push(("maps", self.plan.workspace("affine maps of z", 2 * pairs * 2 * chunks * 16)?));
        for (pair, maps) in (0..pairs).zip(MAPS) {
            let [_, query_beta, _, key_beta] = maps.map(|name| problem.has(name).into());
            let values = [
                ("heads", shapes.q_heads.into()),
                ("first_map", (2 * pair as u32).into()),
                ("query_beta", query_beta),
                ("key_beta", key_beta),
            ];
            let own = GATHERED.into_iter().zip(maps).filter_map(|(name, own)| Some((name, self.plan.operand(own)?)));
            let views: Vec<_> = own.chain(self.views.iter().copied()).collect();
            let workgroups = chunks.div_ceil(FLAT_WORKGROUP.into());
            self.plan.dispatch(&kernels::gather_maps(problem, maps), workgroups, 1, &values, &views)?;
        }
        Ok(())
    }

    pub fn full(&mut self) -> Result<()> {
        let (shapes, choice) = (&self.problem.shapes, self.choice);
        if choice.splits == 1 {
            return self.walk(false);
        }
        self.partials()?;
        let v_chunks = u64::from(shapes.v_dim.div_ceil(4));
        let rows = self.batch_heads().saturating_mul(shapes.q_len.into());
        let mut values = self.values();
        values.extend([("rows", (rows as u32).into()), ("heads", shapes.q_heads.into()), ("len", shapes.q_len.into())]);
        let workgroups = (rows * v_chunks).div_ceil(FLAT_WORKGROUP.into());
        let flops = u64::from(FLAT_WORKGROUP) * u64::from(choice.splits) * 16;
        self.plan.dispatch(&kernels::combine(self.config, self.problem), workgroups, flops, &values, &self.views)
    }

    /// The results of each range of keys, in the workspace.
    pub fn partials(&mut self) -> Result<()> {
        let (shapes, choice) = (&self.problem.shapes, self.choice);
        let v_chunks = u64::from(shapes.v_dim.div_ceil(4));
        let rows = self.batch_heads().saturating_mul(shapes.q_len.into());
        let partials = rows.saturating_mul(choice.splits.into()).saturating_mul(1 + v_chunks);
        check_index("partial results", partials)?;
        self.views.push(("partials", self.plan.workspace("partial results", partials.max(1) * 16)?));
        if choice.splits > 0 { self.walk(true) } else { Ok(()) }
    }

    /// The kernel that walks the keys, over each range of them.
    fn walk(&mut self, partial: bool) -> Result<()> {
        let (shapes, choice) = (&self.problem.shapes, self.choice);
        let heads = u64::from(shapes.batch) * u64::from(heads(choice.kernel, shapes));
        let tiles = rows_that_share(choice.kernel, shapes, None).div_ceil(choice.kernel.rows());
        let groups = heads * u64::from(tiles) * u64::from(choice.splits);
        let pairs = self.config.visibility().pairs(shapes.q_len, shapes.kv_len).saturating_mul(self.batch_heads());
        let flops = pairs / groups.max(1) * self.flops_per_pair();
        let workgroups = groups * u64::from(choice.blocks);
        let walk = kernels::walk(self.config, self.problem, choice, partial);
        let mut values = self.values();
        values.extend([("row_tiles", tiles.into()), ("blocks", choice.blocks.into())]);
        self.plan.dispatch(&walk, workgroups, flops, &values, &self.views)
    }

    /// States of each chunk, their sums over the chunks, then the output; for as many blocks of value dims at a time as
    /// the workspace holds.
    pub fn mixed_chunk(&mut self, chunk: u32) -> Result<()> {
        for states in self.turns(chunk)? {
            self.chunk_states(chunk, &states)?;
            self.prefix(chunk, &states, false)?;
            self.chunk_outputs(chunk, &states)?;
        }
        Ok(())
    }

    /// As many blocks of value dims at a time as the workspace holds states of, for which it is set aside.
    pub fn turns(&mut self, chunk: u32) -> Result<Vec<States>> {
        let (shapes, choice) = (&self.problem.shapes, self.choice);
        let chunks = shapes.kv_len.div_ceil(chunk);
        let rows = 4 * u64::from(shapes.key_dim.div_ceil(4));
        let states = u64::from(shapes.batch) * u64::from(shapes.kv_heads) * u64::from(chunks);
        let bytes_per_chunk = states.saturating_mul(rows * 16);
        // The maps of z and the alignment of regions take some.
        let capacity = self.plan.device().workspace_room().saturating_sub(self.plan.workspace_bytes() + 1024);
        let per_block = bytes_per_chunk.saturating_mul(choice.v_block.into());
        let blocks = u32::try_from(capacity / per_block).unwrap_or(u32::MAX).clamp(1, choice.blocks);

        let v_chunks = shapes.v_dim.div_ceil(4);
        // The last block starts early enough to be whole.
        let start = |block: u32| (block * choice.v_block).min(v_chunks - choice.v_block);
        let held = u64::from((blocks * choice.v_block).min(v_chunks));
        let size = bytes_per_chunk.saturating_mul(held);
        check_index("states of the chunks", size / 16)?;
        let view = self.plan.workspace("states of the chunks", size)?;
        self.views.push(("states", view));
        let turns = (0..choice.blocks).step_by(blocks as usize).map(|first| {
            let end = (first + blocks).min(choice.blocks);
            States {
                blocks: first..end,
                v_block: choice.v_block,
                chunks: start(first)..start(end - 1) + choice.v_block,
            }
        });
        Ok(turns.collect())
    }

    pub fn chunk_states(&mut self, chunk: u32, states: &States) -> Result<()> {
        let (shapes, problem, choice) = (&self.problem.shapes, self.problem, self.choice);
        let chunks = shapes.kv_len.div_ceil(chunk);
        let state = choice.state(shapes.key_dim);
        let key_tiles = shapes.key_dim.div_ceil(state.kernel.key_dims());
        let blocks = (states.chunks.len() as u32).div_ceil(state.v_block);
        let groups = u64::from(shapes.batch) * u64::from(shapes.kv_heads) * u64::from(chunks);
        let workgroups = groups * u64::from(key_tiles) * u64::from(blocks);
        let flops = u64::from(chunk) * 2 * u64::from(state.kernel.key_dims()) * u64::from(4 * state.v_block);
        let values = [
            ("chunk", chunk),
            ("chunks", chunks),
            ("key_tiles", key_tiles),
            ("blocks", blocks),
            ("state_first", states.chunks.start),
            ("state_chunks", states.chunks.len() as u32),
        ]
        .map(|(name, value)| (name, value.into()));
        let k = self.plan.operand("k_lin").map(|view| ("k", view));
        let views: Vec<_> = k.into_iter().chain(self.views.iter().copied()).collect();
        self.plan.dispatch(&kernels::chunk_state(problem, choice), workgroups, flops, &values, &views)
    }

    /// Their sums over the chunks, or, backward, over those behind each.
    pub fn prefix(&mut self, chunk: u32, states: &States, back: bool) -> Result<()> {
        let shapes = &self.problem.shapes;
        let chunks = shapes.kv_len.div_ceil(chunk);
        // The states' length in vec4 was checked to fit 32 bits.
        let size = 4 * shapes.key_dim.div_ceil(4) * states.chunks.len() as u32;
        let total = size * shapes.batch * shapes.kv_heads;
        let workgroups = u64::from(total.div_ceil(FLAT_WORKGROUP));
        let flops = u64::from(FLAT_WORKGROUP) * u64::from(chunks) * 16;
        let values = [("size", size.into()), ("chunks", chunks.into()), ("total", total.into())];
        self.plan.dispatch(&kernels::prefix(self.config, back), workgroups, flops, &values, &self.views)
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
        let mut values = self.values();
        let own = [
            ("row_tiles", row_tiles as u32),
            ("first_block", states.blocks.start),
            ("blocks", blocks),
            ("chunk", chunk),
            ("chunk_tiles", chunk_tiles),
            ("chunks", chunks),
            ("state_first", states.chunks.start),
            ("state_chunks", states.chunks.len() as u32),
        ];
        values.extend(own.map(|(name, value)| (name, value.into())));
        self.plan.dispatch(
            &kernels::walk(self.config, self.problem, choice, false),
            workgroups,
            flops,
            &values,
            &self.views,
        )
    }

    fn batch_heads(&self) -> u64 {
        u64::from(self.problem.shapes.batch) * u64::from(self.problem.shapes.q_heads)
    }

    /// What one workgroup of the kernel that walks the keys does for a pair of query and key.
    fn flops_per_pair(&self) -> u64 {
        2 * u64::from(self.problem.shapes.key_dim + 4 * self.choice.v_block)
    }

    /// The numbers of the kernels that walk the keys or combine ranges of them, beside the sizes; those of chunks follow.
    pub fn values(&self) -> Vec<(&'static str, Value)> {
        let Self { config, problem, choice, .. } = self;
        let shapes = &problem.shapes;
        let weighing = Weighing::new(config, shapes.key_dim);
        let visibility = config.visibility();
        let (linear_tokens, linear_divisor) = config.linear_divisor();
        // Chunks are of equal lengths, where the two alignments are one.
        let align_end = config.causal == Causal::BottomRight && config.chunk().is_none();
        let mut values = vec![
            ("group", (shapes.q_heads / shapes.kv_heads).into()),
            ("splits", choice.splits.into()),
            ("split_keys", choice.split_keys.into()),
            ("offset", visibility.fixed_offset(shapes.kv_len).into()),
            ("align_end", align_end.into()),
            ("left", visibility.left().into()),
            ("right", visibility.right().into()),
            ("scale", (weighing.scale as f32).into()),
            ("scale_floor", weighing.scale_floor.into()),
            ("divisor", (weighing.divisor as f32).into()),
            ("chunk_causal", (config.causal != Causal::None).into()),
            ("linear_tokens", linear_tokens.into()),
            ("linear_divisor", linear_divisor.into()),
        ];
        if config.chunk().is_none() {
            values.push(("chunk_tiles", 1_u32.into()));
            let of_chunks = ["first_block", "chunk", "chunks", "state_first", "state_chunks"];
            values.extend(of_chunks.map(|name| (name, 0_u32.into())));
        }
        values
    }
}

/// Refuses a count that a kernel's 32-bit indices do not reach.
pub(super) fn check_index(what: &str, needed: u64) -> Result<()> {
    let limit = u32::MAX.into();
    if needed > limit { Err(Error::LimitExceeded { what: what.into(), needed, limit }) } else { Ok(()) }
}
