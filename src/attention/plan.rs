//! Which kernels run for a problem, and in what dispatches.

use super::few::Few;
use super::kernels::{Combine, chunks, combine, keys_per_step, values, walk};
use super::offers::{self, Offer};
use super::{Attention, AttentionConfig, AttentionShapes, OPERANDS, Scale};
use crate::adapter::Adapter;
use crate::context::Capabilities;
use crate::dispatch::{Plan, PlanBuilder};
use crate::matrices::{MatrixTier, RowTile};
use crate::op::{self, Access, GivenNames, Kernels, Operand};
use crate::row_kernel::{self, least_range};
use crate::tensor::product;
use crate::tile::{Grid, grid};
#[cfg(feature = "blocking")]
use crate::tuning::distinct;
use crate::wgsl::Specialization;
use crate::{Error, Matrices, Result};

pub(super) type Problem = op::Problem<AttentionShapes>;
pub(super) type Kernel = row_kernel::Kernel<Few>;

impl Kernels for Attention {
    const NAME: &'static str = "attention";
    const OPERANDS: &'static [Operand] = OPERANDS;
    type Config = AttentionConfig;
    type Shapes = AttentionShapes;
    type Offer = Offer;

    fn check_config(config: &AttentionConfig) -> Result<()> {
        config.check()
    }

    fn check(_: &AttentionConfig, shapes: &AttentionShapes) -> Result<()> {
        shapes.check()
    }

    fn refuses(config: &AttentionConfig, given: &GivenNames, row: &Operand) -> Option<&'static str> {
        match (row.name, given.has(row), config.scale == Scale::PerRow) {
            ("row_scale", true, false) => Some("is given, but the scale is not per_row"),
            ("row_scale", false, true) => Some("the per_row scale needs it"),
            _ => None,
        }
    }

    fn build(
        plan: PlanBuilder<'_>,
        config: &AttentionConfig,
        problem: &Problem,
        offer: Option<&Offer>,
    ) -> Result<Plan> {
        let choice = select(config, problem, plan.device(), offer)?;
        build(plan, config, problem, choice)
    }

    fn class(config: &AttentionConfig, problem: &Problem) -> String {
        offers::class(config, problem)
    }

    fn offers(config: &AttentionConfig, problem: &Problem, device: &Capabilities) -> Vec<Offer> {
        offers::offers(config, problem, device)
    }

    #[cfg(feature = "blocking")]
    fn candidates(config: &AttentionConfig, problem: &Problem, device: &Capabilities) -> Result<Vec<Vec<String>>> {
        let choose =
            |offer: Option<&Offer>| Ok(Choice { reason: String::new(), ..select(config, problem, device, offer)? });
        distinct(offers::offers(config, problem, device), |a, b| a.kernel == b.kernel, choose)
    }

    #[cfg(feature = "blocking")]
    fn in_f16(config: &AttentionConfig) -> bool {
        config.matrices == Matrices::F16
    }
}

/// A row of the table of tiles: when it applies, and what it picks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tile {
    adapter: Adapter,
    /// The fewest and the most rows it is for. On a GPU, rows that share a tile: queries, times the heads that share their kv
    /// head. On a CPU, queries: its kernels add in orders of their own, and grouped heads are to get the bits of repeated ones.
    rows: [u32; 2],
    /// The fewest keys that make it worth its compilation for fewer rows.
    keys: u32,
    /// The largest head_dim and v_dim; of tiles, v_dim.
    dims: u32,
    pub kernel: Kernel,
}

impl Tile {
    /// Whether it is for these sizes.
    pub fn takes(&self, shapes: &AttentionShapes) -> bool {
        let [least, most] = self.rows;
        let rows = if self.adapter == Adapter::Gpu { rows_per_kv_head(shapes) } else { shapes.q_len };
        let least = if shapes.kv_len < self.keys { least } else { 0 };
        (least..=most).contains(&rows) && self.is_wide_enough(shapes.head_dim, shapes.v_dim)
    }

    /// Tiles take slabs of head_dim, however many.
    pub fn is_wide_enough(&self, head_dim: u32, v_dim: u32) -> bool {
        let dims = if matches!(self.kernel, Kernel::Tiled(_)) { v_dim } else { head_dim.max(v_dim) };
        dims <= self.dims
    }

    pub fn is_for(&self, adapter: Adapter) -> bool {
        self.adapter == adapter
    }
}

/// The kernel with the largest of its [`slabs`].
pub(super) fn within(kernel: Kernel, granted: u32, v_dim: u32) -> Kernel {
    slabs(kernel, granted, v_dim)[0]
}

/// The kernel with every slab up to its own that so many bytes of workgroup memory hold; the largest first.
pub(super) fn slabs(kernel: Kernel, granted: u32, v_dim: u32) -> Vec<Kernel> {
    let Kernel::Tiled(most) = kernel else { return vec![kernel] };
    let grids = [32, 16].map(|slab| Grid { slab, ..most }).into_iter();
    let fit = grids.filter(|grid| grid.slab <= most.slab && grid.fits(v_dim.div_ceil(4), granted));
    fit.chain([Grid { slab: 8, ..most }]).map(Kernel::Tiled).collect()
}

/// Rows of the attention matrix that read the same keys.
pub(super) fn rows_per_kv_head(shapes: &AttentionShapes) -> u32 {
    shapes.q_len.saturating_mul(shapes.q_heads / shapes.kv_heads.max(1))
}

const ANY: u32 = u32::MAX;

/// The first row that applies is taken.
///
/// llvmpipe runs a workgroup of eight as one vector. It checks every load from storage and gathers from private arrays
/// lane by lane. So with subgroups each invocation reads one key's part and tells it to all, and every loop is unrolled so
/// that q and o are no arrays; a step's keys are few, because the unrolled loop has to stay near the size of an instruction
/// cache. Without subgroups, one walk of the arrays serves 64 keys. Either compiles for a second, which few rows of few keys do
/// not repay, and much longer on other software drivers. Where arrays compile slowly, the unrolled kernel does so for 4 seconds
/// at 64 dims, 11 at 128 and 35 at 256, and then takes a quarter of the time or less.
///
/// On a GPU, up to 8 rows have a kernel of their own: by AMD's compiler it takes 7 instructions of a wave for each key and 64 dims of one
/// row and 32 of eight, the tile of 16 rows 99 of any. Two such tiles would still take fewer than that, but read the keys twice.
///
/// Above, a workgroup of 128 holds 128 rows by 64 keys, or 64 by 128: of each product an invocation computes 8 by 8 numbers
/// from 16 that it reads from workgroup memory, and keeps 128 of them. v_dim above 128 takes 4 by 16. Tiles of the same v_dim, above 16
/// rows, add in the same order. Slabs set how often the invocations wait for each other, and for memory; twice
/// as large ones, which a tuning may take, cost a compiler registers, and a device workgroups that share a multiprocessor. A GPU of few
/// registers gets 8 by 4.
#[rustfmt::skip]
pub(super) const TILES: &[Tile] = &[
    Tile { adapter: Adapter::Llvmpipe,    rows: [64, ANY],     keys: 2048,  dims: 112, kernel: Kernel::Subgroup { workgroup: 8, keys: 4 } },
    Tile { adapter: Adapter::Llvmpipe,    rows: [64, ANY],     keys: 2048,  dims: 256, kernel: Kernel::Subgroup { workgroup: 8, keys: 2 } },
    Tile { adapter: Adapter::Llvmpipe,    rows: [64, ANY],     keys: 2048,  dims: 112, kernel: Kernel::Subgroup { workgroup: 4, keys: 4 } },
    Tile { adapter: Adapter::Llvmpipe,    rows: [64, ANY],     keys: 2048,  dims: 256, kernel: Kernel::Subgroup { workgroup: 4, keys: 2 } },
    Tile { adapter: Adapter::Llvmpipe,    rows: [64, ANY],     keys: ANY,   dims: ANY, kernel: Kernel::Rows { workgroup: 8, keys: 64 } },
    Tile { adapter: Adapter::Llvmpipe,    rows: [0, 63],       keys: ANY,   dims: ANY, kernel: Kernel::Rows { workgroup: 8, keys: 8 } },
    Tile { adapter: Adapter::SlowArrays,  rows: [256, ANY],    keys: 4096,  dims: 112, kernel: Kernel::Subgroup { workgroup: 8, keys: 4 } },
    Tile { adapter: Adapter::SlowArrays,  rows: [256, ANY],    keys: 4096,  dims: 128, kernel: Kernel::Subgroup { workgroup: 8, keys: 2 } },
    Tile { adapter: Adapter::SlowArrays,  rows: [2048, ANY],   keys: 16384, dims: 256, kernel: Kernel::Subgroup { workgroup: 8, keys: 2 } },
    Tile { adapter: Adapter::SlowArrays,  rows: [256, ANY],    keys: 4096,  dims: 112, kernel: Kernel::Subgroup { workgroup: 4, keys: 4 } },
    Tile { adapter: Adapter::SlowArrays,  rows: [256, ANY],    keys: 4096,  dims: 128, kernel: Kernel::Subgroup { workgroup: 4, keys: 2 } },
    Tile { adapter: Adapter::SlowArrays,  rows: [2048, ANY],   keys: 16384, dims: 256, kernel: Kernel::Subgroup { workgroup: 4, keys: 2 } },
    Tile { adapter: Adapter::SlowArrays,  rows: [0, ANY],      keys: ANY,   dims: ANY, kernel: Kernel::Rows { workgroup: 8, keys: 8 } },
    Tile { adapter: Adapter::Cpu,         rows: [0, ANY],      keys: ANY,   dims: ANY, kernel: Kernel::Rows { workgroup: 8, keys: 8 } },
    Tile { adapter: Adapter::Gpu,         rows: [0, 1],        keys: ANY,   dims: ANY, kernel: Kernel::Own(Few { rows: 1 }) },
    Tile { adapter: Adapter::Gpu,         rows: [2, 2],        keys: ANY,   dims: ANY, kernel: Kernel::Own(Few { rows: 2 }) },
    Tile { adapter: Adapter::Gpu,         rows: [3, 4],        keys: ANY,   dims: ANY, kernel: Kernel::Own(Few { rows: 4 }) },
    Tile { adapter: Adapter::Gpu,         rows: [5, 8],        keys: ANY,   dims: ANY, kernel: Kernel::Own(Few { rows: 8 }) },
    Tile { adapter: Adapter::Gpu,         rows: [9, 16],       keys: ANY,   dims: ANY, kernel: Kernel::Tiled(grid([4, 1, 4, 4], 32)) },
    Tile { adapter: Adapter::Gpu,         rows: [17, 64],      keys: ANY,   dims: 128, kernel: Kernel::Tiled(grid([8, 2, 8, 2], 16)) },
    Tile { adapter: Adapter::Gpu,         rows: [65, ANY],     keys: ANY,   dims: 64,  kernel: Kernel::Tiled(grid([16, 2, 8, 2], 16)) },
    Tile { adapter: Adapter::Gpu,         rows: [65, ANY],     keys: ANY,   dims: 128, kernel: Kernel::Tiled(grid([8, 2, 8, 2], 16)) },
    Tile { adapter: Adapter::Gpu,         rows: [17, ANY],     keys: ANY,   dims: ANY, kernel: Kernel::Tiled(grid([16, 1, 8, 4], 16)) },
];

/// What a tuning may take on other adapters than those for which the plan does: wider steps, and what takes few registers.
#[rustfmt::skip]
pub(super) const ALTERNATIVES: &[Tile] = &[
    Tile { adapter: Adapter::Llvmpipe,   rows: [0, ANY], keys: ANY,  dims: 64,  kernel: Kernel::Subgroup { workgroup: 8, keys: 8 } },
    Tile { adapter: Adapter::Llvmpipe,   rows: [0, ANY], keys: ANY,  dims: 160, kernel: Kernel::Subgroup { workgroup: 8, keys: 4 } },
    Tile { adapter: Adapter::SlowArrays, rows: [0, ANY], keys: ANY,  dims: ANY, kernel: Kernel::Rows { workgroup: 8, keys: 64 } },
    Tile { adapter: Adapter::Cpu,        rows: [0, ANY], keys: ANY,  dims: ANY, kernel: Kernel::Rows { workgroup: 8, keys: 64 } },
    Tile { adapter: Adapter::Gpu,        rows: [0, ANY], keys: ANY,  dims: 64,  kernel: Kernel::Tiled(grid([16, 2, 8, 2], 32)) },
    Tile { adapter: Adapter::Gpu,        rows: [0, ANY], keys: ANY,  dims: 128, kernel: Kernel::Tiled(grid([8, 2, 8, 2], 32)) },
    Tile { adapter: Adapter::Gpu,        rows: [0, ANY], keys: ANY,  dims: 64,  kernel: Kernel::Tiled(grid([16, 2, 4, 1], 32)) },
    Tile { adapter: Adapter::Gpu,        rows: [0, ANY], keys: ANY,  dims: 128, kernel: Kernel::Tiled(grid([8, 2, 4, 1], 32)) },
    Tile { adapter: Adapter::Gpu,        rows: [0, ANY], keys: ANY,  dims: ANY, kernel: Kernel::Tiled(grid([8, 1, 4, 2], 32)) },
];

/// Workgroups that occupy the adapter, and the fewest keys that each of them then walks: fewer workgroups split the keys.
/// Those of 16 rows are a quarter as large, and wait for memory more than they compute.
fn enough(kernel: Kernel) -> (u64, u32) {
    match kernel {
        Kernel::Tiled(Grid { height: ..=4, .. }) | Kernel::Matrices(RowTile { subgroups: 1, .. }) | Kernel::Own(_) => {
            (1024, 128)
        }
        Kernel::Matrices(_) => (256, 256),
        Kernel::Tiled(_) => (256, 256),
        Kernel::Rows { .. } | Kernel::Subgroup { .. } => (8, 256),
    }
}

/// What was chosen for a problem, before anything is compiled.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Choice {
    walk: Specialization,
    combine: Option<(Specialization, Combine)>,
    /// Tiles of the rows of a kv head.
    pub row_tiles: u64,
    pub splits: u32,
    pub split_keys: u32,
    pub reason: String,
}

/// The kernels on cooperative matrices that run on this device, the best first; none unless the config asks for them.
pub(super) fn matrix_kernels(
    config: &AttentionConfig,
    shapes: &AttentionShapes,
    capabilities: &Capabilities,
) -> Result<Vec<Kernel>> {
    if config.matrices == Matrices::None {
        return Ok(Vec::new());
    }
    let tier = MatrixTier::of(capabilities, |told| told.attention)?;
    let (rows, dims) = (rows_per_kv_head(shapes), [shapes.head_dim, shapes.v_dim]);
    Ok(RowTile::list(tier, rows, dims, &capabilities.limits)?.into_iter().map(Kernel::Matrices).collect())
}

/// Picks kernels and tiles: a pure function of config, problem and device, and of what a tuning takes in place of the table.
pub(super) fn select(
    config: &AttentionConfig,
    problem: &Problem,
    capabilities: &Capabilities,
    offer: Option<&Offer>,
) -> Result<Choice> {
    let shapes = &problem.shapes;
    let by_matrices = matrix_kernels(config, shapes, capabilities)?;
    let adapter = if by_matrices.is_empty() { Adapter::of(capabilities) } else { Adapter::Gpu };
    let table = || table(adapter, shapes, capabilities);
    let kernel = offer.map(|offer| offer.kernel).or(by_matrices.first().copied()).unwrap_or_else(table);
    let step = keys_per_step(problem, kernel);
    let row_tiles = u64::from(rows_per_kv_head(shapes).div_ceil(kernel.rows()));

    let on = match kernel {
        Kernel::Matrices(tile) => tile.tier.to_string(),
        _ => format!("on {adapter}"),
    };
    let mut reasons = vec![format!("{} rows of a kv head to a workgroup, {step} keys a step, {on}", kernel.rows())];
    let shuffle = capabilities.min_subgroup_size.is_some_and(|least| can_shuffle(least, kernel, shapes));
    match kernel {
        Kernel::Subgroup { workgroup, .. } => reasons.push(format!("subgroups of {workgroup}")),
        Kernel::Tiled(_) if shuffle => reasons.push("row statistics by subgroup operations".into()),
        Kernel::Own(_) if shuffle => reasons.push("scores added up by subgroup operations".into()),
        Kernel::Tiled(_) | Kernel::Rows { .. } | Kernel::Matrices(_) | Kernel::Own(_) => {}
    }
    let tiles = row_tiles * u64::from(shapes.batch) * u64::from(shapes.kv_heads);
    let range =
        offer.and_then(|offer| offer.range.0).unwrap_or_else(|| keys_that_occupy(kernel, tiles, shapes, capabilities));
    let (split_keys, reason) = split_keys(config, shapes, capabilities, kernel, step, range)?;
    reasons.extend(reason);
    // None where there are no keys: the combine kernel alone writes what a row without a key is.
    let splits = shapes.kv_len.div_ceil(split_keys.max(1));

    let (mut inputs, mut outputs) = (0, 0);
    problem.given().for_each(|(_, row, _)| *if row.access == Access::Read { &mut inputs } else { &mut outputs } += 1);
    let bindings = capabilities.limits.max_storage_buffers_per_shader_stage;
    // Where o stays in storage during the walk, it is summed up as f32.
    let in_place = adapter == Adapter::SlowArrays && matches!(kernel, Kernel::Rows { .. });
    let narrow = in_place && problem.storage("o").size() < 4;
    let crowded = inputs + outputs > bindings || narrow;
    if inputs + 1 > bindings {
        return Err(Error::Unsupported {
            reasons: vec![format!(
                "{inputs} inputs and the workspace need more than the device's {bindings} storage buffers"
            )],
        });
    }
    if narrow && splits == 1 {
        reasons.push("o summed up in the workspace, then stored".into());
    } else if crowded && splits == 1 {
        reasons.push(format!("inputs and outputs in two kernels, under the device's {bindings} storage buffers"));
    }
    let partial = splits != 1 || crowded;
    if splits > 1 {
        reasons.push(format!("{splits} ranges of {split_keys} keys, then combined"));
    } else if splits == 0 {
        reasons = vec!["no keys".into()];
    }
    let shared =
        if adapter == Adapter::Gpu && splits >= Combine::SHARED.parts { Combine::SHARED } else { Combine::ALONE };
    Ok(Choice {
        walk: walk(config, problem, kernel, adapter, shuffle, partial),
        combine: partial.then(|| (combine(problem, shared), shared)),
        row_tiles,
        splits,
        split_keys,
        reason: reasons.join("; "),
    })
}

/// The kernel of the first row of the table that applies.
fn table(adapter: Adapter, shapes: &AttentionShapes, capabilities: &Capabilities) -> Kernel {
    let applies = |tile: &&Tile| {
        tile.adapter == adapter && tile.kernel.runs_with(capabilities.subgroup_size) && tile.takes(shapes)
    };
    let tile = TILES.iter().find(applies).unwrap_or(&TILES[TILES.len() - 1]);
    let kernel = tile.kernel.with_registers(capabilities.few_registers);
    within(kernel, capabilities.limits.max_compute_workgroup_storage_size, shapes.v_dim)
}

/// The most keys of a workgroup where as many tiles of rows are to occupy the adapter, as far as there is room for their results.
fn keys_that_occupy(kernel: Kernel, tiles: u64, shapes: &AttentionShapes, capabilities: &Capabilities) -> u32 {
    let (enough, least) = enough(kernel);
    if tiles >= enough {
        return u32::MAX;
    }
    // Rather more workgroups than this walks more keys alone.
    let keys = (u64::from(shapes.kv_len) * tiles / enough).next_multiple_of(least.into());
    let rows = product([shapes.batch, shapes.q_heads, shapes.q_len]);
    let least = least_range(shapes.kv_len, rows, shapes.v_dim, capabilities).max(least);
    u32::try_from(keys).unwrap_or(u32::MAX).max(least)
}

/// Keys of a workgroup, whole steps: as many as `range`, the driver, the work bound and the caller's own bound allow. Says so where it
/// is the driver.
fn split_keys(
    config: &AttentionConfig,
    shapes: &AttentionShapes,
    capabilities: &Capabilities,
    kernel: Kernel,
    step: u32,
    range: u32,
) -> Result<(u32, Option<String>)> {
    let flops_per_key = u64::from(kernel.rows()) * 2 * u64::from(shapes.head_dim + shapes.v_dim);
    let by_work = capabilities.options.max_flops_per_dispatch / flops_per_key;
    let by_work = u32::try_from(by_work).unwrap_or(u32::MAX);
    let bound = capabilities.options.max_keys_per_split.unwrap_or(u32::MAX).min(range).min(by_work).max(step);
    let whole = |bound: u32| (bound - bound % step).min(shapes.kv_len.next_multiple_of(step));
    let Some(cap) = capabilities.loop_cap else { return Ok((whole(bound), None)) };
    let most = keys_under_loop_cap(config, shapes, cap, kernel, step)?;
    let reason = (most < shapes.kv_len)
        .then(|| format!("at most {most} keys a workgroup, under the driver's cap of {cap} loop iterations"));
    // The combine kernel walks the splits of a row.
    let most_splits = cap.saturating_sub(64).max(1);
    let least = shapes.kv_len.div_ceil(most_splits).next_multiple_of(step);
    let keys = whole(bound.min(most)).max(least);
    if keys > most {
        let reason = format!(
            "{} keys in ranges that this driver's cap of {cap} loop iterations allows are too many to combine",
            shapes.kv_len
        );
        return Err(Error::Unsupported { reasons: vec![reason] });
    }
    Ok((keys, reason))
}

/// Whether the invocations of a tile that share a row, or a key, lie in one subgroup, whatever its size.
pub(super) fn can_shuffle(least_subgroup: u32, kernel: Kernel, shapes: &AttentionShapes) -> bool {
    match kernel {
        Kernel::Tiled(grid) => grid.can_shuffle(shapes.v_dim.div_ceil(4), least_subgroup),
        Kernel::Own(few) => few.can_shuffle(chunks(shapes), least_subgroup),
        Kernel::Rows { .. } | Kernel::Subgroup { .. } | Kernel::Matrices(_) => true,
    }
}

/// Keys that one workgroup can walk without meeting the driver's cap on loop iterations.
fn keys_under_loop_cap(
    config: &AttentionConfig,
    shapes: &AttentionShapes,
    cap: u32,
    kernel: Kernel,
    step: u32,
) -> Result<u32> {
    let (head_chunks, v_chunks) = (shapes.head_dim.div_ceil(4), shapes.v_dim.div_ceil(4));
    // Each run of a loop counts one more, for its exit. Loading, clearing and writing the rows stand outside the steps.
    let outside = 2 * (head_chunks + 2 * v_chunks) + 128;
    let [outside, per_step] = match kernel {
        // A step walks q and o once; with subgroups, by loops that are unrolled.
        Kernel::Rows { .. } => [outside, 1 + (head_chunks + 1) + (v_chunks + 1)],
        Kernel::Subgroup { .. } => [outside, 1],
        Kernel::Matrices(tile) => tile.iterations([shapes.head_dim, shapes.v_dim]),
        Kernel::Tiled(grid) => [outside, grid.iterations(shapes.head_dim, v_chunks)],
        Kernel::Own(few) => few.iterations(chunks(shapes)),
    };
    // Counting the keys that a mask leaves takes one iteration each, in every range, for each four rows of an invocation.
    let counts = match kernel {
        Kernel::Tiled(grid) => grid.groups,
        Kernel::Own(few) => few.rows.div_ceil(4),
        Kernel::Rows { .. } | Kernel::Subgroup { .. } | Kernel::Matrices(_) => 1,
    };
    let counting = if config.scale.terms(shapes.head_dim).log_n && shapes.mask { shapes.kv_len + 1 } else { 0 };
    let counting = counting.saturating_mul(counts);
    let steps = cap.saturating_sub(outside).saturating_sub(counting) / per_step;
    if steps == 0 {
        let reason = format!(
            "counting the visible keys of a mask of {} columns passes this driver's cap of {cap} loop iterations",
            shapes.kv_len
        );
        return Err(Error::Unsupported { reasons: vec![reason] });
    }
    Ok(steps.saturating_mul(step))
}

/// Compiles what [`select`] picked and lays out the dispatches.
fn build(mut plan: PlanBuilder<'_>, config: &AttentionConfig, problem: &Problem, choice: Choice) -> Result<Plan> {
    let shapes = problem.shapes;
    let flops = (2 * u64::from(shapes.head_dim + shapes.v_dim)).saturating_mul(shapes.visible_pairs(config));
    let overflow = |what: &str, needed: u64| Error::LimitExceeded { what: what.into(), needed, limit: u32::MAX.into() };
    let rows = product([shapes.batch, shapes.q_heads, shapes.q_len]);
    let rows = u32::try_from(rows).map_err(|_| overflow("o: rows", rows))?;
    let v_chunks = shapes.v_dim.div_ceil(4);
    let tiles = product([shapes.batch, shapes.kv_heads]).saturating_mul(choice.row_tiles);
    let workgroups = tiles.saturating_mul(choice.splits.into());
    let per_workgroup = flops / workgroups.max(1);
    let values = values(config, problem, &choice);
    let Some((combine, shared)) = &choice.combine else {
        plan.dispatch(&choice.walk, workgroups, per_workgroup, &values, &[])?;
        return plan.finish(flops, problem.bytes(), choice.reason);
    };

    let partials = product([rows, choice.splits, 1 + v_chunks]);
    if partials > u64::from(u32::MAX) {
        return Err(overflow("partial results", partials));
    }
    let partials = [("partials", plan.workspace("partial results", partials.max(1) * 16)?)];
    if choice.splits > 0 {
        plan.dispatch(&choice.walk, workgroups, per_workgroup, &values, &partials)?;
    }
    let workgroups = (u64::from(rows) * u64::from(v_chunks)).div_ceil(shared.owners().into());
    let per_workgroup = u64::from(shared.owners()) * u64::from(choice.splits) * 16;
    plan.dispatch(combine, workgroups, per_workgroup, &values, &partials)?;
    plan.finish(flops, problem.bytes(), choice.reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ContextOptions;

    fn choose(shapes: AttentionShapes, capabilities: &Capabilities) -> Choice {
        let config = AttentionConfig::new();
        select(&config, &Problem::contiguous::<Attention>(&config, shapes), capabilities, None).expect("a plan")
    }

    #[test]
    fn one_kernel_does_where_nothing_is_in_the_way() {
        let choice = choose(AttentionShapes::new(1, 8, 4096, 64), &Capabilities::plain());
        assert_eq!((choice.splits, choice.combine), (1, None));
        assert_eq!(choice.row_tiles, 4096 / 128);
        assert_eq!(choose(AttentionShapes::new(64, 8, 32, 64), &Capabilities::plain()).row_tiles, 1, "few queries");
    }

    #[test]
    fn keys_are_split_as_far_as_results_find_room() {
        let shapes = AttentionShapes { q_len: 128, ..AttentionShapes::new(1, 1, 1 << 16, 64) };
        let splits = |max_workspace_bytes| {
            let options = ContextOptions { max_workspace_bytes, ..ContextOptions::default() };
            choose(shapes, &Capabilities { options, ..Capabilities::plain() }).splits
        };
        // 17 vec4s of each of 128 rows, 34 KiB a range, in half of the bound.
        assert_eq!([256 << 20, 1 << 20, 64 << 10].map(splits), [256, 16, 1]);
    }

    #[test]
    fn a_device_that_grants_more_gets_larger_slabs_and_shuffles() {
        let rich = |bytes, least| Capabilities {
            limits: wgpu::Limits { max_compute_workgroup_storage_size: bytes, ..wgpu::Limits::default() },
            min_subgroup_size: least,
            ..Capabilities::plain()
        };
        let picks = |bytes, least, dim| {
            let choice = choose(AttentionShapes::new(1, 8, 4096, dim), &rich(bytes, least));
            let slab = choice.walk.constants.iter().find(|(name, _)| *name == "SLAB").expect("a slab").1;
            (slab.to_string(), choice.reason.contains("subgroup"))
        };
        assert_eq!(picks(16 << 10, None, 64), ("16u".into(), false));
        assert_eq!(picks(32 << 10, Some(8), 64), ("16u".into(), true));
        assert_eq!(picks(24 << 10, Some(8), 128), ("16u".into(), false), "16 invocations share a row");
        assert_eq!([16, 24].map(|kib| picks(kib << 10, None, 256).0), ["8u", "16u"]);
        assert_eq!(picks(64 << 10, Some(32), 96), ("16u".into(), false), "12 invocations share a row");
    }

    #[test]
    fn a_gpu_of_few_registers_gets_tiles_that_a_tuning_offers_to_others() {
        let capabilities = Capabilities { few_registers: true, ..Capabilities::plain() };
        for dim in [32, 64, 80, 128, 256] {
            let shapes = AttentionShapes::new(1, 8, 4096, dim);
            let Kernel::Tiled(grid) = table(Adapter::Gpu, &shapes, &capabilities) else { panic!("{dim}") };
            let chunks = dim.div_ceil(4);
            let sums = 4 * grid.groups * (grid.own_keys + 4 * grid.columns(chunks));
            assert!(sums <= 64 && grid.width(chunks) * grid.height <= 256, "{dim}: {grid}");
            let offered = ALTERNATIVES.iter().flat_map(|tile| slabs(tile.kernel, 32 << 10, dim));
            assert!(offered.into_iter().any(|kernel| kernel == Kernel::Tiled(grid)), "{dim}: {grid}");
        }
    }

    #[test]
    fn few_tiles_split_the_keys_to_occupy_a_gpu() {
        let decode = AttentionShapes { q_len: 1, kv_heads: 1, ..AttentionShapes::new(1, 8, 32_768, 64) };
        let choice = choose(decode, &Capabilities::plain());
        assert_eq!((choice.row_tiles, choice.split_keys, choice.splits), (1, 128, 256), "heads share a tile");
        let short = AttentionShapes { kv_len: 100, ..decode };
        assert_eq!(choose(short, &Capabilities::plain()).splits, 1, "nothing to split");
    }

    #[test]
    fn few_rows_have_a_kernel_of_their_own() {
        let picks = |q_heads, q_len, dim| {
            let shapes = AttentionShapes { q_heads, q_len, kv_heads: 2, ..AttentionShapes::new(1, 2, 4096, dim) };
            let walk = choose(shapes, &Capabilities::plain()).walk;
            let number = |name| walk.constants.iter().find(|(own, _)| *own == name).map(|(_, value)| value.to_string());
            (walk.kernel.path, number("ROWS"), number("WIDTH"))
        };
        let few = |rows: u32, width: u32| ("attention/few", Some(format!("{rows}u")), Some(format!("{width}u")));
        assert_eq!(picks(2, 1, 64), few(1, 8));
        assert_eq!(picks(6, 1, 128), few(4, 16));
        assert_eq!(picks(4, 4, 256), few(8, 32));
        assert_eq!(picks(2, 9, 64).0, "attention/tiled");
    }

    #[test]
    fn keys_are_split_under_a_loop_cap() {
        let capped = Capabilities { loop_cap: Some(65_535), is_cpu: true, ..Capabilities::plain() };
        for len in [1024, 16_384, 1 << 20] {
            for dim in [1, 64, 256] {
                let choice = choose(AttentionShapes::new(1, 1, len, dim), &capped);
                // For eight keys one iteration, and one for each chunk of q and of o, with an exit each.
                let iterations = (choice.split_keys / 8) * (3 + 2 * dim.div_ceil(4));
                assert!(iterations < 65_535, "{len} keys, head_dim {dim}: {iterations}");
                assert!(choice.splits * choice.split_keys >= len, "every key is in a range");
                assert!(choice.splits + 64 <= 65_535, "the combine kernel's loops");
                assert!(choice.split_keys.is_multiple_of(8), "no step crosses from one range into the next");
            }
        }
        // Unrolled, a step of four or two keys is one iteration.
        let unrolled = Capabilities { is_llvmpipe: true, slow_arrays: true, subgroup_size: Some(8), ..capped.clone() };
        for (dim, keys) in [(64, 4), (256, 2)] {
            let choice = choose(AttentionShapes::new(1, 1, 1 << 20, dim), &unrolled);
            assert!(choice.reason.contains(&format!("{keys} keys a step")), "{}", choice.reason);
            assert!((65_535 / 2..65_535).contains(&(choice.split_keys / keys)), "{}", choice.split_keys);
        }
    }

    #[test]
    fn splits_that_the_combine_kernel_cannot_walk_grow() {
        let options = ContextOptions { max_keys_per_split: Some(8), ..Default::default() };
        let capped = Capabilities { loop_cap: Some(65_535), is_cpu: true, options, ..Capabilities::plain() };
        let choice = choose(AttentionShapes::new(1, 1, 600_000, 1), &capped);
        assert!(choice.splits + 64 <= 65_535 && choice.split_keys > 8, "{choice:?}");
    }

    #[test]
    fn no_combination_passes_eight_storage_buffers() {
        for flags in 0..64u32 {
            let on = |bit: u32| flags >> bit & 1 == 1;
            let shapes = AttentionShapes {
                kv_lens: on(0),
                bias: on(1),
                mask: on(2),
                lse: on(3),
                entropy: on(4),
                row_scale: on(5),
                ..AttentionShapes::new(1, 1, 8, 8)
            };
            let config = AttentionConfig::new().scale(if on(5) { Scale::PerRow } else { Scale::InvSqrtDim });
            let problem = Problem::contiguous::<Attention>(&config, shapes);
            let choice = select(&config, &problem, &Capabilities::plain(), None).expect("a plan");
            let storage = |specialization: &Specialization| {
                specialization.wgsl().lines().filter(|line| line.contains("var<storage")).count()
            };
            assert!(storage(&choice.walk) <= 8, "{}", choice.walk);
            assert!(choice.combine.as_ref().is_none_or(|(combine, _)| storage(combine) <= 8));
        }
    }

    #[test]
    fn ten_tensors_take_two_kernels() {
        let one = AttentionShapes::new(1, 1, 8, 8);
        let all = AttentionShapes { kv_lens: true, bias: true, mask: true, lse: true, entropy: true, ..one };
        assert!(choose(all, &Capabilities::plain()).combine.is_some(), "nine on a default device");
        let roomy = wgpu::Limits { max_storage_buffers_per_shader_stage: 16, ..wgpu::Limits::default() };
        assert!(choose(all, &Capabilities { limits: roomy, ..Capabilities::plain() }).combine.is_none());
    }
}
