//! In what dispatches margin softmax runs.

use super::chunks::{self, Chunks};
use super::kernels::{self, ROWS, margin_values};
use super::{MarginSoftmax, MarginSoftmaxConfig, MarginSoftmaxShapes, OPERANDS, Reduction, shapes};
use crate::adapter::Adapter;
use crate::context::Capabilities;
use crate::dispatch::{Plan, PlanBuilder, Value, View};
use crate::matmul::{Matrix, Product};
use crate::op::{self, GivenNames, Kernels, Operand, Shapes, SizeOf};
use crate::tensor::{evenly, product};
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
        shapes::check(config, [own.rows, own.class_rows, own.dim], own.sampled)
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

/// Workgroups that occupy the adapter: where a chunk has fewer rows, those are split.
const ENOUGH_FOR_A_GPU: u32 = 512;
const ENOUGH_FOR_A_CPU: u32 = 8;
/// Splits that a row has at most; each leaves a state for every row.
const MOST_SPLITS: u32 = 64;
/// The fewest classes of a split.
const LEAST: u32 = 4096;
/// Rows whose states are in the workspace at a time.
const MOST_ROWS: u32 = 1 << 20;
/// Rows whose losses one workgroup sums.
const SUMMED: u32 = 4096;

fn splits(device: &Capabilities, chunks: &Chunks, centres: u32) -> u32 {
    let enough = if Adapter::of(device) == Adapter::Gpu { ENOUGH_FOR_A_GPU } else { ENOUGH_FOR_A_CPU };
    enough.div_ceil(chunks.rows).min(MOST_SPLITS).min((chunks.class_rows / centres).div_ceil(LEAST)).max(1)
}

/// Compiles the kernels and lays out their dispatches.
fn build(mut plan: PlanBuilder<'_>, config: &MarginSoftmaxConfig, problem: &Problem) -> Result<Plan> {
    let MarginSoftmaxShapes { rows, dim, sampled, .. } = problem.shapes;
    let (class_rows, width) = (chunks::class_rows(config, problem), dim.next_multiple_of(4));
    // A workspace of no rows is bound all the same.
    let (most, sums) = (rows.min(MOST_ROWS), rows.div_ceil(SUMMED));
    let mut pairs = |what, count| match config.reduction {
        Reduction::None => Ok(View::NOWHERE),
        _ => plan.workspace(what, product([8, count]).max(16)),
    };
    let (losses, sums_of_losses) = (pairs("losses of rows", most)?, pairs("sums of losses", sums)?);
    let chunks = Chunks::new(config, most, class_rows);
    let chunks = if sampled.is_some() { chunks.with_width(width) } else { chunks };
    let listed = sampled.map_or(0, |_| chunks.class_rows);
    let splits = splits(plan.device(), &chunks, config.centres);
    if rows > 0 {
        let space = Space {
            targets: plan.workspace("targets of rows", product([24, most]))?,
            states: plan.workspace("states of rows", product([32, splits, most]))?,
            row_norms: plan.workspace("norms of rows", product([4, if config.normalize { most } else { 4 }]))?,
            class_norms: plan.workspace("norms of classes", product([4, chunks.stride()]))?,
            products: plan.workspace("products of a chunk", product([4, chunks.rows, chunks.stride()]))?,
            gathered: plan.workspace("listed class weights", product([4, listed, width]))?,
            losses,
            splits,
        };
        for (first, count) in evenly(rows, MOST_ROWS, SUMMED) {
            space.walk(&mut plan, config, problem, &chunks, (first, count))?;
            if config.reduction != Reduction::None {
                let sums = View { start: 2 * (first / SUMMED), ..sums_of_losses };
                reduce(&mut plan, config, [count, SUMMED], [("losses", losses), ("loss", sums)])?;
            }
        }
    }
    if let Some(loss) = problem.output_view("loss").filter(|_| config.reduction != Reduction::None) {
        reduce(&mut plan, config, [sums, u32::MAX], [("losses", sums_of_losses), ("loss", loss)])?;
    }
    let reason = format!(
        "products in chunks of {} rows by {} class rows, {splits} splits of the classes",
        chunks.rows, chunks.class_rows
    );
    plan.finish(product([2, rows, class_rows, dim]), problem.bytes(), reason)
}

/// Makes one loss of each so many, or of all.
fn reduce(
    plan: &mut PlanBuilder<'_>,
    config: &MarginSoftmaxConfig,
    [rows, each]: [u32; 2],
    views: [(&'static str, View); 2],
) -> Result<()> {
    let values = [("rows", rows.into()), ("rows_of_a_workgroup", each.into())];
    let workgroups = rows.div_ceil(each).max(1);
    plan.dispatch(
        &kernels::reduce(config, each > SUMMED),
        workgroups.into(),
        product([2, each.min(rows)]),
        &values,
        &views,
    )
}

/// What is in the workspace for a block of rows.
struct Space {
    targets: View,
    states: View,
    row_norms: View,
    class_norms: View,
    products: View,
    gathered: View,
    losses: View,
    splits: u32,
}

impl Space {
    /// The rows of a block from their start to their results.
    fn walk(
        &self,
        plan: &mut PlanBuilder<'_>,
        config: &MarginSoftmaxConfig,
        problem: &Problem,
        chunks: &Chunks,
        (first, rows): (u32, u32),
    ) -> Result<()> {
        let (features, centres) = (features(problem)?, config.centres);
        let mut views = vec![("targets", self.targets), ("states", self.states), ("row_norms", self.row_norms)];
        let of_rows = ["labels", "row_margins", "loss", "lse", "entropy", "predicted", "others", "logits"];
        views.extend(of_rows.into_iter().filter_map(|name| Some((name, problem.view(name)?.rows_from(first)))));
        views.push(("losses", self.losses));
        let mut values = vec![
            ("rows", Value::from(rows)),
            ("splits", self.splits.into()),
            ("label_smoothing", config.label_smoothing.into()),
            ("z_loss", config.z_loss.into()),
        ];
        values.extend(chunks::classes(config, problem));
        values.extend(margin_values(config));
        let workgroups = rows.div_ceil(ROWS).into();
        plan.dispatch(&kernels::start(config, problem), workgroups, product([ROWS, self.splits]), &values, &views)?;
        if config.normalize {
            chunks::norms(plan, features, (first, rows), self.row_norms)?;
        }
        let features = Matrix::operand(features).rows_from(first);
        let vec4 = problem.is_vec4(&["logits"]);
        let mut parts = problem.list("weights").map(|(layout, _)| layout.shape[0] / centres);
        let vec4 = vec4 && parts.all(|classes| classes.is_multiple_of(4));
        for chunk in chunks.of_classes(problem, self.gathered) {
            chunks::gather(plan, config, problem, &chunk)?;
            let first_class = chunk.first_of_all / centres;
            // Fours of classes are fours of products.
            let shift = if centres == 1 { first_class % 4 } else { 0 };
            let [norms, products] = [self.class_norms, self.products].map(|view| View { start: shift, ..view });
            if config.normalize {
                chunks::norms(plan, (&chunk.layout, chunk.view), (chunk.first, chunk.count), norms)?;
            }
            let end_class = first_class + chunk.count / centres;
            let split_classes = (end_class - first_class / 4 * 4).div_ceil(self.splits).next_multiple_of(4);
            let kernel = kernels::rows(config, problem, split_classes / 4, vec4);
            let height = kernels::rows_of(split_classes / 4);
            let views = [&views[..], &[("products", self.products), ("class_norms", self.class_norms)]].concat();
            for (first_row, chunk_rows) in chunks.of_rows(rows) {
                Product {
                    sizes: [chunk_rows, chunk.count, problem.shapes.dim],
                    a: features.rows_from(first_row),
                    b: chunk.matrix().transpose(),
                    c: Matrix::workspace(products, chunks.stride()),
                    adds: false,
                }
                .dispatch(plan)?;
                let own = [
                    ("first_row", first_row),
                    ("chunk_rows", chunk_rows),
                    ("first_class", first_class),
                    ("end_class", end_class),
                    ("split_classes", split_classes),
                    ("row_products", chunks.stride()),
                ];
                let values: Vec<_> =
                    own.map(|(name, value)| (name, value.into())).into_iter().chain(values.clone()).collect();
                let workgroups = product([chunk_rows, self.splits]).div_ceil(height.into());
                plan.dispatch(&kernel, workgroups, product([16, height, split_classes]), &values, &views)?;
            }
        }
        plan.dispatch(&kernels::finish(config, problem), workgroups, product([32, ROWS, self.splits]), &values, &views)
    }
}

/// The features' place, which every call has.
pub(super) fn features<S: Shapes>(problem: &op::Problem<S>) -> Result<(&crate::tensor::Layout, View)> {
    let missing = || Error::Operand { tensor: "features", problem: "is missing".into() };
    problem.get("features").zip(problem.view("features")).ok_or_else(missing)
}
