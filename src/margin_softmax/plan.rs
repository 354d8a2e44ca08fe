//! In what dispatches margin softmax runs.

use super::kernels::{self, COMBINE_WORKGROUP, REDUCE_WORKGROUP};
use super::{MarginSoftmax, MarginSoftmaxConfig, MarginSoftmaxShapes, OPERANDS, Reduction, shapes};
use crate::adapter::Adapter;
use crate::context::Capabilities;
use crate::dispatch::{Plan, PlanBuilder};
use crate::op::{self, GivenNames, Kernels, Operand, Shapes, SizeOf};
use crate::tensor::product;
use crate::tuning::NoOffer;
use crate::{Error, Result};

pub(super) type Problem = op::Problem<MarginSoftmaxShapes>;

impl Kernels for MarginSoftmax {
    const NAME: &'static str = "margin_softmax";
    const OPERANDS: &'static [Operand] = OPERANDS;
    type Config = MarginSoftmaxConfig;
    type Shapes = MarginSoftmaxShapes;
    type Offer = NoOffer;

    fn check_config(config: &MarginSoftmaxConfig) -> Result<()> {
        config.check()
    }

    fn check(config: &MarginSoftmaxConfig, own: &MarginSoftmaxShapes) -> Result<()> {
        shapes::check(config, [own.rows, own.class_rows, own.dim])
    }

    fn refuses(config: &MarginSoftmaxConfig, given: &GivenNames, row: &Operand) -> Option<&'static str> {
        shapes::refuses(config, given, row)
    }

    fn derived(config: &MarginSoftmaxConfig, size: &SizeOf<'_>, axis: &str) -> Option<(u32, &'static str)> {
        shapes::derived(config, size, axis)
    }

    fn together(config: &MarginSoftmaxConfig) -> (u32, &'static str) {
        (config.centres, "whole classes")
    }

    fn has(_: &MarginSoftmaxConfig, shapes: &MarginSoftmaxShapes, row: &Operand) -> bool {
        shapes.has(row.name)
    }

    fn build(
        plan: PlanBuilder<'_>,
        config: &MarginSoftmaxConfig,
        problem: &Problem,
        _: Option<&NoOffer>,
    ) -> Result<Plan> {
        build(plan, config, problem)
    }
}

/// A tile of rows and classes: invocations down and across it, the 4 x 4 blocks of each, and the dims of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tile {
    /// The adapters it is for, if not for all.
    adapter: Option<Adapter>,
    /// The most rows it is for.
    most_rows: u32,
    /// The fewest workgroups it is for, if every one walked a single tile.
    workgroups: u64,
    pub groups: [u32; 2],
    pub blocks: [u32; 2],
    pub depth: u32,
}

/// The first row that applies is taken. SwiftShader takes minutes to compile a large tile. Sizes are those of matmul's tiles, for the same reasons; a tile of a few rows is as wide as
/// its invocations make it.
#[rustfmt::skip]
pub(super) const TILES: &[Tile] = &[
    Tile { adapter: Some(Adapter::Cpu), most_rows: u32::MAX, workgroups: 0, groups: [4, 4], blocks: [1, 1], depth: 8 },
    Tile { adapter: None, most_rows: 16,       workgroups: 0,   groups: [4, 64],  blocks: [1, 1], depth: 8 },
    Tile { adapter: None, most_rows: u32::MAX, workgroups: 128, groups: [16, 16], blocks: [2, 2], depth: 16 },
    Tile { adapter: None, most_rows: u32::MAX, workgroups: 0,   groups: [16, 16], blocks: [1, 1], depth: 32 },
];

/// Workgroups that occupy the adapter.
const ENOUGH_FOR_A_GPU: u32 = 256;
const ENOUGH_FOR_A_CPU: u32 = 8;
/// Splits of the classes that a row has at most; each leaves a state for every row.
const MOST_SPLITS: u32 = 64;

impl Tile {
    fn size(&self) -> [u32; 2] {
        [0, 1].map(|side| 4 * self.groups[side] * self.blocks[side])
    }

    fn counts(&self, shapes: &MarginSoftmaxShapes) -> [u32; 2] {
        let [rows, classes] = self.size();
        [shapes.rows.div_ceil(rows), shapes.class_rows.div_ceil(classes)]
    }

    /// Loop iterations that an invocation takes for one tile of classes, the exit of each run of a loop counted.
    fn iterations(&self, dim: u32) -> u32 {
        dim.div_ceil(self.depth) + 2 + self.blocks[0] * 3 * (self.groups[1] + 1) + 1
    }
}

/// How the classes are walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Walk {
    tile: Tile,
    row_tiles: u32,
    splits: u32,
    /// Tiles of classes that a workgroup walks in one dispatch, at most.
    most_tiles: u32,
}

/// A pure function of sizes and device.
fn select(shapes: &MarginSoftmaxShapes, device: &Capabilities) -> Result<Walk> {
    let adapter = Adapter::of(device);
    let fits = |tile: &&Tile| {
        tile.adapter.is_none_or(|own| own == adapter)
            && shapes.rows <= tile.most_rows
            && product(tile.counts(shapes)) >= tile.workgroups
    };
    let tile = *TILES.iter().find(fits).unwrap_or(&TILES[0]);
    let [row_tiles, class_tiles] = tile.counts(shapes);
    let enough = if adapter == Adapter::Gpu { ENOUGH_FOR_A_GPU } else { ENOUGH_FOR_A_CPU };
    let splits = enough.div_ceil(row_tiles.max(1)).min(MOST_SPLITS).min(class_tiles);
    let [rows, classes] = tile.size();
    let by_work = device.options.max_flops_per_dispatch / product([2, rows, classes, shapes.dim]).max(1);
    let by_cap = device.loop_cap.map_or(u32::MAX, |cap| (cap - 2) / tile.iterations(shapes.dim));
    if by_cap == 0 {
        let reason = format!("dim = {}: a tile takes more loop iterations than this driver's cap", shapes.dim);
        return Err(Error::Unsupported { reasons: vec![reason] });
    }
    let most_tiles = by_work.clamp(1, by_cap.into()) as u32;
    Ok(Walk { tile, row_tiles, splits, most_tiles })
}

/// Compiles the kernels and lays out their dispatches: the classes of each tensor, split by split, then the rows, then their sum.
fn build(mut plan: PlanBuilder<'_>, config: &MarginSoftmaxConfig, problem: &Problem) -> Result<Plan> {
    let shapes = &problem.shapes;
    let rows = shapes.rows;
    let new = [
        (config.centres > 1, "centres"),
        (config.label_smoothing > 0.0, "label_smoothing"),
        (config.z_loss > 0.0, "z_loss"),
        (shapes.bias, "bias"),
        (shapes.class_weights, "class_weights"),
        (shapes.class_margins, "class_margins"),
        (shapes.row_margins, "row_margins"),
        (shapes.others, "others"),
        (shapes.logits, "logits"),
    ];
    if let Some((_, name)) = new.iter().find(|(on, _)| *on) {
        return Err(Error::Unsupported { reasons: vec![format!("{name}: the kernels do not have it yet")] });
    }
    let reduced = config.reduction != Reduction::None;
    if rows == 0 && !reduced {
        return plan.finish(0, 0, "nothing to do".into());
    }
    // A workspace of no rows is bound all the same.
    let bytes_of = |count: u32, bytes: u64| (product([rows, count]) * bytes).max(16);
    let losses = if reduced { Some(plan.workspace("losses of rows", bytes_of(1, 4))?) } else { None };
    let mut reason = "no rows".into();
    if rows > 0 {
        let walk = select(shapes, plan.device())?;
        let Walk { tile, row_tiles, splits, most_tiles } = walk;
        let [tile_rows, tile_classes] = tile.size();
        let states = plan.workspace("states of rows", bytes_of(splits, 16))?;
        let targets = plan.workspace("cosines of targets", bytes_of(1, 4))?;
        let mut views = vec![("states", states), ("targets", targets)];
        if shapes.predicted {
            views.push(("bests", plan.workspace("best classes of rows", bytes_of(splits, 8))?));
        }

        let kernel = kernels::forward(config, problem, &tile);
        let features = problem.view("features").map_or(0, |view| view.strides[0]);
        let a = problem.view("features").into_iter().map(|view| ("a", view));
        views.extend(a);
        let (mut before, mut resume) = (0, false);
        for (layout, b) in problem.list("weights") {
            let classes = layout.shape()[0];
            // As many tiles for every split as there are, or as a dispatch may take.
            let tiles = classes.div_ceil(tile_classes).div_ceil(splits).min(most_tiles);
            let range = tiles * tile_classes;
            for first in (0..classes).step_by((u64::from(range) * u64::from(splits)).min(1 << 31) as usize) {
                let mut values = vec![
                    ("m", rows.into()),
                    ("n", classes.into()),
                    ("k", shapes.dim.into()),
                    ("row_tiles", row_tiles.into()),
                    ("range", range.into()),
                    ("first_class", first.into()),
                    ("before", before.into()),
                    ("resume", u32::from(resume).into()),
                    ("a_m", features.into()),
                    ("a_k", 1_u32.into()),
                    ("b_n", b.strides[0].into()),
                    ("b_k", 1_u32.into()),
                ];
                values.extend(kernels::margin_values(config));
                let own = views.iter().copied().chain([("b", b)]).collect::<Vec<_>>();
                let flops = product([2, tile_rows, range, shapes.dim]);
                plan.dispatch(&kernel, product([row_tiles, splits]), flops, &values, &own)?;
                resume = true;
            }
            before += classes;
        }

        let mut values = vec![("splits", splits.into())];
        values.extend(kernels::margin_values(config));
        if let Some(losses) = losses {
            views.push(("loss", losses));
            values.extend([("loss_start", 0_u32.into()), ("loss_stride", 1_u32.into())]);
        }
        let flops = product([16, COMBINE_WORKGROUP, splits]);
        let workgroups = rows.div_ceil(COMBINE_WORKGROUP).into();
        plan.dispatch(&kernels::combine(config, problem), workgroups, flops, &values, &views)?;
        reason = format!("tiles of {tile_rows} rows by {tile_classes} classes, {splits} splits of the classes");
    }
    if let Some(losses) = losses {
        if let Some(cap) = plan.device().loop_cap.filter(|&cap| rows / REDUCE_WORKGROUP + 16 > cap) {
            let reason = format!("{rows} rows: more loop iterations to reduce them than this driver's cap of {cap}");
            return Err(Error::Unsupported { reasons: vec![reason] });
        }
        let mut views = vec![("losses", losses)];
        if rows == 0 {
            views.push(("labels", losses));
        }
        plan.dispatch(&kernels::reduce(config), 1, rows.into(), &[], &views)?;
    }
    plan.finish(product([2, rows, shapes.class_rows, shapes.dim]), problem.bytes(), reason)
}
