//! Which kernel runs for a product, and in what dispatches.

use super::kernels::{COMBINE_IN_FLIGHT, COMBINE_WORKGROUP, combine, kernel, values};
use super::offers::{self, Offer};
use super::product::adding;
use super::{MatMul, MatMulConfig, MatMulShapes, OPERANDS};
use crate::adapter::Adapter;
use crate::context::Capabilities;
use crate::dispatch::{Plan, PlanBuilder, Value, View};
use crate::dtype::Storage;
use crate::matrices::MatrixTier;
use crate::op::{self, Kernels, Operand};
use crate::tensor::product;
#[cfg(feature = "blocking")]
use crate::tuning::distinct;
use crate::wgsl::Specialization;
use crate::{Error, Matrices, Result};

pub(super) type Problem = op::Problem<MatMulShapes>;

impl Kernels for MatMul {
    const NAME: &'static str = "matmul";
    const OPERANDS: &'static [Operand] = OPERANDS;
    type Config = MatMulConfig;
    type Shapes = MatMulShapes;
    type Offer = Offer;

    fn check(_: &MatMulConfig, shapes: &MatMulShapes) -> Result<()> {
        shapes.check()
    }

    fn build(
        mut plan: PlanBuilder<'_>,
        config: &MatMulConfig,
        problem: &Problem,
        offer: Option<&Offer>,
    ) -> Result<Plan> {
        let choice = select(config, problem, plan.device(), offer)?;
        dispatch(&mut plan, problem, &choice, &[], &[])?;
        plan.finish(problem.shapes.flops(), problem.bytes(), choice.reason)
    }

    fn class(config: &MatMulConfig, problem: &Problem) -> String {
        offers::class(config, problem)
    }

    fn offers(config: &MatMulConfig, _: &Problem, device: &Capabilities) -> Vec<Offer> {
        offers::offers(config, device)
    }

    #[cfg(feature = "blocking")]
    fn candidates(config: &MatMulConfig, problem: &Problem, device: &Capabilities) -> Result<Vec<Vec<String>>> {
        let choose =
            |offer: Option<&Offer>| Ok(Choice { reason: String::new(), ..select(config, problem, device, offer)? });
        distinct(offers::offers(config, device), |a, b| a.tile == b.tile, choose)
    }

    #[cfg(feature = "blocking")]
    fn in_f16(config: &MatMulConfig) -> bool {
        config.matrices == Matrices::F16
    }
}

/// How a tile is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kernel {
    /// `matmul/tiles.wgsl`: invocations down and across the tile, and the 4 x 4 blocks of each.
    Tiles { groups: [u32; 2], blocks: [u32; 2] },
    /// `matmul/rows.wgsl`: four rows for each of the invocations; b is held for `span` columns at a time.
    Rows { workgroup: u32, columns: u32, span: u32, subgroup: bool },
    /// `matmul/cooperative.wgsl`: subgroups down and across the tile, the rows and columns of each, and the device's matrices.
    Matrices { subgroups: [u32; 2], block: [u32; 2], tier: MatrixTier },
}

/// A row of the table of tiles: when it applies, and what it picks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tile {
    adapter: Adapter,
    /// The most rows it is for.
    most_m: u32,
    /// The fewest columns: of a tile much wider than the matrix, most would be thrown away.
    least_n: u32,
    /// The fewest workgroups it is for: where a tile leaves a GPU idle, a smaller one follows.
    workgroups: u64,
    /// k of a step.
    pub depth: u32,
    pub kernel: Kernel,
}

impl Tile {
    /// Rows and columns of c that a workgroup owns.
    pub fn size(&self) -> [u32; 2] {
        match self.kernel {
            Kernel::Tiles { groups, blocks } => [4 * groups[0] * blocks[0], 4 * groups[1] * blocks[1]],
            Kernel::Rows { workgroup, columns, .. } => [4 * workgroup, columns],
            Kernel::Matrices { subgroups, block, .. } => [subgroups[0] * block[0], subgroups[1] * block[1]],
        }
    }

    /// The same on a device's own matrices.
    pub fn with(self, own: MatrixTier) -> Self {
        match self.kernel {
            Kernel::Matrices { subgroups, block, .. } => {
                // Subgroups as small are those of software drivers, which compile a quarter of the matrices in a quarter of the time.
                let block = if own.subgroup < 16 { block.map(|extent| extent / 2) } else { block };
                Self { kernel: Kernel::Matrices { subgroups, block, tier: own }, ..self }
            }
            _ => self,
        }
    }

    /// Invocations and bytes of workgroup memory of a tile of matrices, whose size on different devices differs.
    fn needs(&self) -> [u32; 2] {
        let Kernel::Matrices { subgroups, tier, .. } = self.kernel else { return [0; 2] };
        let ([rows, columns], count) = (self.size(), subgroups[0] * subgroups[1]);
        let bytes = 2 * (rows + columns) * (self.depth + 8) + 4 * tier.size * tier.size * count;
        [count * tier.subgroup, bytes]
    }

    /// Tiles down and across a matrix.
    fn counts(&self, shapes: &MatMulShapes) -> [u32; 2] {
        let [rows, columns] = self.size();
        [shapes.m.div_ceil(rows), shapes.n.div_ceil(columns)]
    }

    /// Whether it is for the adapter, and for its matrices if `by_matrices`; and the device grants what it needs.
    pub fn runs_on(&self, adapter: Adapter, by_matrices: bool, capabilities: &Capabilities) -> bool {
        let subgroups = match self.kernel {
            Kernel::Rows { workgroup, subgroup: true, .. } => capabilities.subgroup_size == Some(workgroup),
            _ => true,
        };
        let ([invocations, bytes], limits) = (self.needs(), &capabilities.limits);
        let granted = invocations <= limits.max_compute_invocations_per_workgroup
            && bytes <= limits.max_compute_workgroup_storage_size;
        let multiplies = matches!(self.kernel, Kernel::Matrices { .. });
        let own = self.adapter == adapter || self.adapter == Adapter::Cpu && adapter != Adapter::Gpu;
        own && multiplies == by_matrices && subgroups && granted
    }

    fn workgroups(&self, shapes: &MatMulShapes) -> u64 {
        let [down, across] = self.counts(shapes);
        product([shapes.batch, shapes.heads, down, across])
    }
}

const ANY: u32 = u32::MAX;

/// The first row that applies is taken; a row with subgroups applies where they have the workgroup's size, one for CPUs
/// on every llvmpipe too, and one of matrices where the config asks for them.
///
/// On a GPU, a step of a 128 x 128 tile reads 16 KiB for 2^18 multiply-adds, and each invocation 4 vec4 from workgroup
/// memory for 64 of them, in 64 accumulators; a 64 x 64 tile reads twice as much for each, but fills a GPU with a quarter
/// of the work. Both use all 16 KiB.
/// Matrices of 16 x 16, by subgroups of 32: one in 32 x 64 numbers of c reads 3 KiB of workgroup memory for 2^16 multiply-adds
/// and keeps 64 sums in each invocation. The large tile takes 28 KiB, the small one 14.
/// On a CPU, the more columns a workgroup has, the less often it reads a; 64 are worth their code on the newest llvmpipe. An
/// invocation that reads for its subgroup saves seven bounds checks of eight, which doubles the speed of SwiftShader and of older llvmpipes.
#[rustfmt::skip]
pub(super) const TILES: &[Tile] = &[
    Tile { adapter: Adapter::Gpu,      most_m: 16,  least_n: 0,  workgroups: 0,   depth: 8,  kernel: Kernel::Tiles { groups: [4, 64],  blocks: [1, 1] } },
    Tile { adapter: Adapter::Gpu,      most_m: ANY, least_n: 65, workgroups: 128, depth: 16, kernel: Kernel::Tiles { groups: [16, 16], blocks: [2, 2] } },
    Tile { adapter: Adapter::Gpu,      most_m: ANY, least_n: 0,  workgroups: 128, depth: 16, kernel: Kernel::Tiles { groups: [16, 16], blocks: [2, 1] } },
    Tile { adapter: Adapter::Gpu,      most_m: ANY, least_n: 0,  workgroups: 0,   depth: 32, kernel: Kernel::Tiles { groups: [16, 16], blocks: [1, 1] } },
    Tile { adapter: Adapter::Llvmpipe, most_m: ANY, least_n: 33, workgroups: 0,   depth: 8,  kernel: Kernel::Rows { workgroup: 8, columns: 64, span: 16, subgroup: true } },
    Tile { adapter: Adapter::Llvmpipe, most_m: ANY, least_n: 33, workgroups: 0,   depth: 8,  kernel: Kernel::Rows { workgroup: 4, columns: 64, span: 8,  subgroup: true } },
    Tile { adapter: Adapter::Cpu,      most_m: ANY, least_n: 0,  workgroups: 0,   depth: 8,  kernel: Kernel::Rows { workgroup: 8, columns: 32, span: 16, subgroup: true } },
    Tile { adapter: Adapter::Cpu,      most_m: ANY, least_n: 0,  workgroups: 0,   depth: 8,  kernel: Kernel::Rows { workgroup: 4, columns: 32, span: 8,  subgroup: true } },
    Tile { adapter: Adapter::Cpu,      most_m: ANY, least_n: 0,  workgroups: 0,   depth: 8,  kernel: Kernel::Rows { workgroup: 8, columns: 32, span: 8,  subgroup: false } },
    Tile { adapter: Adapter::Gpu,      most_m: ANY, least_n: 65, workgroups: 128, depth: 32, kernel: Kernel::Matrices { subgroups: [4, 2], block: [32, 64], tier: MatrixTier::COMMON } },
    Tile { adapter: Adapter::Gpu,      most_m: ANY, least_n: 0,  workgroups: 0,   depth: 32, kernel: Kernel::Matrices { subgroups: [2, 2], block: [32, 32], tier: MatrixTier::COMMON } },
];

/// What the table never picks, but a tuning may: narrower and wider tiles, longer steps.
#[rustfmt::skip]
pub(super) const ALTERNATIVES: &[Tile] = &[
    Tile { adapter: Adapter::Gpu,      most_m: ANY, least_n: 0,  workgroups: 0,   depth: 16, kernel: Kernel::Tiles { groups: [16, 16], blocks: [1, 2] } },
    Tile { adapter: Adapter::Gpu,      most_m: ANY, least_n: 0,  workgroups: 0,   depth: 16, kernel: Kernel::Tiles { groups: [8, 16],  blocks: [1, 1] } },
    Tile { adapter: Adapter::Gpu,      most_m: ANY, least_n: 0,  workgroups: 0,   depth: 16, kernel: Kernel::Tiles { groups: [8, 32],  blocks: [1, 1] } },
    Tile { adapter: Adapter::Cpu,      most_m: ANY, least_n: 0,  workgroups: 0,   depth: 16, kernel: Kernel::Rows { workgroup: 8, columns: 32, span: 8, subgroup: true } },
    Tile { adapter: Adapter::Cpu,      most_m: ANY, least_n: 0,  workgroups: 0,   depth: 8,  kernel: Kernel::Rows { workgroup: 8, columns: 48, span: 16, subgroup: true } },
    Tile { adapter: Adapter::Cpu,      most_m: ANY, least_n: 0,  workgroups: 0,   depth: 8,  kernel: Kernel::Rows { workgroup: 8, columns: 16, span: 16, subgroup: true } },
];

/// k of a range, where k is cut into ranges because tiles are few: the first that makes enough workgroups, else the last.
///
/// A range of a 16 x 256 tile reads 256 columns of b, and writes and reads as many sums for each row: of 256 k, 1 part in
/// 128 for one row.
pub(super) const RANGES: &[u32] = &[2048, 1024, 512, 256];
/// Tiles that occupy the adapter; where there are fewer, ranges of k make twice as many workgroups.
const ENOUGH_FOR_A_GPU: u64 = 128;
const ENOUGH_FOR_A_CPU: u64 = 4;

/// What was chosen for a problem, before anything is compiled.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Choice {
    tile: Tile,
    walk: Specialization,
    combine: Option<Specialization>,
    /// k of a range, and ranges.
    ranges: [u32; 2],
    pub reason: String,
}

/// Whose rows of the table are for this device and config, and the device's matrices, if the config asks for them.
pub(super) fn adapter_of(config: &MatMulConfig, capabilities: &Capabilities) -> Result<(Adapter, Option<MatrixTier>)> {
    if config.matrices == Matrices::F16 {
        return Ok((Adapter::Gpu, Some(MatrixTier::of(capabilities, |told| told.matmul)?)));
    }
    Ok((Adapter::of(capabilities), None))
}

/// The rows of the table that run on a device.
pub(super) fn rows_for(adapter: Adapter, tier: Option<MatrixTier>, capabilities: &Capabilities) -> Vec<Tile> {
    let rows = TILES.iter().map(|tile| tier.map_or(*tile, |own| tile.with(own)));
    rows.filter(|tile| tile.runs_on(adapter, tier.is_some(), capabilities)).collect()
}

/// Picks kernel and tile: a pure function of config, problem and device, and of what a tuning takes in place of the table.
pub(super) fn select(
    config: &MatMulConfig,
    problem: &Problem,
    capabilities: &Capabilities,
    offer: Option<&Offer>,
) -> Result<Choice> {
    let shapes = &problem.shapes;
    let (adapter, tier) = adapter_of(config, capabilities)?;
    let rows = rows_for(adapter, tier, capabilities);
    let fits = |tile: &&Tile| {
        shapes.m <= tile.most_m && shapes.n >= tile.least_n && tile.workgroups(shapes) >= tile.workgroups
    };
    let Some(&tile) = offer.map(|offer| &offer.tile).or(rows.iter().find(fits)).or(rows.last()) else {
        let reason = "matrices: f16 needs more invocations or memory in a workgroup than the device grants";
        return Err(Error::Unsupported { reasons: vec![reason.into()] });
    };
    let wanted = offer.and_then(|offer| offer.range);
    let range_k = range_of_k(shapes, capabilities, &tile, adapter, wanted)?;
    // None where there is no k: the combine kernel alone ends a product of 0.
    let ranges = shapes.k.div_ceil(range_k.max(1));
    let [rows, columns] = tile.size();
    let on = tier.map_or_else(|| format!("on {adapter}"), |tier| tier.to_string());
    let mut reason = format!("tiles of {rows} x {columns}, {} k a step, {on}", tile.depth);
    if ranges == 0 {
        reason = "no k".into();
    } else if ranges > 1 {
        reason += &format!("; {ranges} ranges of {range_k} k, then combined");
    }
    Ok(Choice {
        tile,
        walk: kernel(config, problem, &tile, ranges != 1),
        combine: (ranges != 1).then(|| combine(config, problem)),
        ranges: [range_k, ranges],
        reason,
    })
}

/// k of a range: all of it, unless tiles are few or the driver caps loops.
fn range_of_k(
    shapes: &MatMulShapes,
    capabilities: &Capabilities,
    tile: &Tile,
    adapter: Adapter,
    wanted: Option<u32>,
) -> Result<u32> {
    let MatMulShapes { k, .. } = *shapes;
    let tiles = tile.workgroups(shapes);
    let enough = if adapter == Adapter::Gpu { ENOUGH_FOR_A_GPU } else { ENOUGH_FOR_A_CPU };
    let cap = capabilities.loop_cap.unwrap_or(u32::MAX);
    // One loop, over a range; it is left once. Matrices are written by loops of their own.
    let others = if matches!(tile.kernel, Kernel::Matrices { .. }) { 1024 } else { 2 };
    let capped = k.div_ceil(tile.depth) + others > cap;
    if !capped && wanted.map_or(tiles >= enough, |wanted| wanted >= k) {
        return Ok(k);
    }
    let room = capabilities.workspace_room().min(16 * u64::from(u32::MAX));
    // A whole range is saved at least, there is room for all sums, and the combine kernel's loop ends.
    let mut fit = RANGES.iter().copied().filter(|&range| {
        let ranges = k.div_ceil(range);
        k >= 2 * range && partial_bytes(shapes, ranges) <= room && ranges / COMBINE_IN_FLIGHT + 2 < cap
    });
    let first = match wanted {
        Some(wanted) => fit.clone().find(|&range| range <= wanted),
        None => fit.clone().find(|&range| tiles * u64::from(k.div_ceil(range)) >= 2 * enough),
    };
    match first.or(fit.next_back()) {
        Some(range) => Ok(range),
        None if capped => {
            let reason = format!(
                "k = {k} takes more steps than this driver's cap of {cap} loop iterations, and there is no room for sums of ranges"
            );
            Err(Error::Unsupported { reasons: vec![reason] })
        }
        None => Ok(k),
    }
}

/// Sums of every range, each row in whole vec4s.
fn partial_bytes(shapes: &MatMulShapes, ranges: u32) -> u64 {
    product([16, ranges, shapes.batch, shapes.heads, shapes.m, shapes.n.div_ceil(4)])
}

impl Choice {
    /// The files that the first kernel is made of.
    #[cfg(test)]
    pub fn files(&self) -> Vec<&'static str> {
        self.walk.fragments.iter().map(|source| source.path).collect()
    }

    /// The same where c lies in the workspace, as the sums of ranges do.
    pub fn shared(self) -> Self {
        let shared = |combine: Specialization| combine.stored([("partials", Storage::Shared)]);
        Self { combine: self.combine.map(shared), ..self }
    }

    /// The same, if c is added to.
    pub fn adding(self, adds: bool) -> Self {
        match (adds, self.combine.is_some()) {
            (false, _) => self,
            (true, false) => Self { walk: adding(self.walk), ..self },
            (true, true) => Self { combine: self.combine.map(adding), ..self },
        }
    }
}

/// Compiles what [`select`] picked and lays out the dispatches. In another op's plan, `sizes` and `views` say what the kernels' names
/// stand for.
pub(super) fn dispatch(
    plan: &mut PlanBuilder<'_>,
    problem: &Problem,
    choice: &Choice,
    sizes: &[(&'static str, Value)],
    views: &[(&'static str, View)],
) -> Result<()> {
    let shapes = problem.shapes;
    let [range_k, ranges] = choice.ranges;
    let [rows, columns] = choice.tile.size();
    let flops = product([2, rows, columns, range_k]);
    let workgroups = choice.tile.workgroups(&shapes).saturating_mul(ranges.into());
    let values = [&values(problem, choice.tile.counts(&shapes), choice.ranges), sizes].concat();
    let Some(combine) = &choice.combine else {
        return plan.dispatch(&choice.walk, workgroups, flops, &values, views);
    };

    let sums = partial_bytes(&shapes, ranges);
    let partials = [views, &[("partials", plan.scratch("sums of ranges of k", sums.max(16))?)]].concat();
    if ranges > 0 {
        plan.dispatch(&choice.walk, workgroups, flops, &values, &partials)?;
    }
    let workgroups = (partial_bytes(&shapes, 1) / 16).div_ceil(COMBINE_WORKGROUP.into());
    plan.dispatch(combine, workgroups, product([4, COMBINE_WORKGROUP, ranges]), &values, &partials)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ContextOptions;

    fn tile(shapes: MatMulShapes, capabilities: &Capabilities) -> [u32; 2] {
        let choice = select(
            &MatMulConfig::new(),
            &Problem::contiguous::<MatMul>(&MatMulConfig::new(), shapes),
            capabilities,
            None,
        )
        .expect("a plan");
        choice.tile.size()
    }

    #[test]
    fn tiles_shrink_until_a_gpu_is_full() {
        assert_eq!(tile(MatMulShapes::new(4096, 4096, 64), &Capabilities::plain()), [128, 128]);
        assert_eq!(tile(MatMulShapes::new(512, 512, 4096), &Capabilities::plain()), [64, 64]);
        assert_eq!(
            tile(MatMulShapes { heads: 8, ..MatMulShapes::new(512, 512, 64) }, &Capabilities::plain()),
            [128, 128]
        );
        assert_eq!(tile(MatMulShapes::new(1, 4096, 4096), &Capabilities::plain()), [16, 256], "few rows");
        assert_eq!(
            tile(MatMulShapes { heads: 8, ..MatMulShapes::new(2048, 64, 2048) }, &Capabilities::plain()),
            [128, 64],
            "few columns"
        );
    }

    #[test]
    fn cpus_have_tiles_of_their_own() {
        let shapes = MatMulShapes::new(512, 512, 512);
        let llvmpipe = Capabilities { is_cpu: true, is_llvmpipe: true, ..Capabilities::plain() };
        for size in [4, 8] {
            let own = Capabilities { subgroup_size: Some(size), ..llvmpipe.clone() };
            assert_eq!(tile(shapes, &own), [4 * size, 64]);
            assert_eq!(tile(MatMulShapes::new(512, 32, 512), &own), [4 * size, 32]);
            let old = Capabilities { slow_arrays: true, ..own };
            assert_eq!(tile(shapes, &old), [4 * size, 32]);
        }
        assert_eq!(tile(shapes, &llvmpipe), tile(shapes, &Capabilities { is_cpu: true, ..Capabilities::plain() }));
    }

    #[test]
    fn few_tiles_cut_k_into_ranges() {
        let ranges = |shapes, capabilities: &Capabilities| {
            select(
                &MatMulConfig::new(),
                &Problem::contiguous::<MatMul>(&MatMulConfig::new(), shapes),
                capabilities,
                None,
            )
            .expect("a plan")
            .ranges
        };
        assert_eq!(ranges(MatMulShapes::new(1, 4096, 4096), &Capabilities::plain()), [256, 16]);
        assert_eq!(
            ranges(MatMulShapes::new(1, 4096, 65_536), &Capabilities::plain()),
            [2048, 32],
            "the largest that does"
        );
        assert_eq!(ranges(MatMulShapes::new(512, 512, 4096), &Capabilities::plain()), [1024, 4]);
        assert_eq!(ranges(MatMulShapes::new(4096, 4096, 4096), &Capabilities::plain())[1], 1, "many tiles");
        assert_eq!(ranges(MatMulShapes::new(1, 4096, 511), &Capabilities::plain())[1], 1, "no two ranges");
        let cpu = Capabilities { is_cpu: true, is_llvmpipe: true, ..Capabilities::plain() };
        assert_eq!(ranges(MatMulShapes::new(1, 768, 768), &cpu)[1], 1);
        assert_eq!(ranges(MatMulShapes::new(1, 64, 4096), &cpu), [1024, 4]);
        let options = ContextOptions { max_workspace_bytes: 1 << 16, ..Default::default() };
        let cramped = Capabilities { options, ..Capabilities::plain() };
        assert_eq!(ranges(MatMulShapes::new(1, 4096, 4096), &cramped), [1024, 4], "as the workspace allows");
    }

    #[test]
    fn a_loop_cap_bounds_k() {
        let capped = Capabilities { is_cpu: true, loop_cap: Some(65_535), ..Capabilities::plain() };
        let plan = |shapes| {
            select(&MatMulConfig::new(), &Problem::contiguous::<MatMul>(&MatMulConfig::new(), shapes), &capped, None)
        };
        let many = MatMulShapes { heads: 100, ..MatMulShapes::new(1, 1, 65_000 * 8) };
        assert_eq!(plan(many).expect("a plan").ranges[1], 1, "few enough steps");
        let many = MatMulShapes { k: 65_535 * 8, ..many };
        assert_eq!(plan(many).expect("a plan").ranges, [2048, 256]);
        let wide = MatMulShapes { n: 1 << 24, ..many };
        let message = plan(wide).expect_err("too many steps").to_string();
        assert!(message.contains("k = 524280") && message.contains("65535"), "{message}");
    }
}
