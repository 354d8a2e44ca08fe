//! In what dispatches rows are walked, forward and backward.

use super::kernels::{Stage, Tile, WORKGROUP, Walk, count};
use super::{OPERANDS, Softmax, SoftmaxConfig, SoftmaxShapes, shapes};
use crate::Result;
use crate::dispatch::{Plan, PlanBuilder, Value, View};
use crate::op::{self, Kernels, Operand, Shapes};
use crate::tensor::{Layout, product};
use crate::tuning::NoOffer;

type Problem = op::Problem<SoftmaxShapes>;

impl Kernels for Softmax {
    const NAME: &'static str = "softmax";
    const OPERANDS: &'static [Operand] = OPERANDS;
    type Config = SoftmaxConfig;
    type Shapes = SoftmaxShapes;
    type Offer = NoOffer;

    fn check_config(config: &SoftmaxConfig) -> Result<()> {
        config.check()
    }

    fn check(_: &SoftmaxConfig, own: &SoftmaxShapes) -> Result<()> {
        shapes::check([own.rows, own.columns], own.row_scale)
    }

    fn build(
        mut plan: PlanBuilder<'_>,
        config: &SoftmaxConfig,
        problem: &Problem,
        _: Option<&NoOffer>,
    ) -> Result<Plan> {
        let absent = ["dp", "dlse", "dentropy", "dx", "slopes"].map(|name| (name, View::NOWHERE));
        let choice = Choice::of(problem);
        let walk = Walk::forward(config, problem);
        choice.dispatch(&mut plan, config, problem, &walk, &absent, &[])?;
        let bytes = problem.bytes() + choice.bytes_again(problem, &walk);
        plan.finish(choice.flops(), bytes, choice.reason())
    }
}

/// Workgroups that occupy a GPU: with fewer rows, rows are split.
const ENOUGH: u32 = 512;
/// The fewest columns that are worth a workgroup of their own, and the most that one walks: far fewer turns of a loop than after which
/// any driver ends it.
const LEAST: u32 = 8192;
const MOST: u32 = 1 << 22;

/// How rows are laid out over workgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    tile: Tile,
    rows: u32,
    columns: u32,
    pub splits: u32,
    split_columns: u32,
}

impl Choice {
    pub fn of<S: Shapes>(problem: &op::Problem<S>) -> Self {
        let size = |axis| problem.shapes.axis(axis).unwrap_or(0);
        Self::new(size("rows"), size("columns"))
    }

    fn new(rows: u32, columns: u32) -> Self {
        let tile = Tile::of(columns);
        let splits = if tile.kept { 1 } else { ENOUGH.div_ceil(rows).min(columns / LEAST).max(columns.div_ceil(MOST)) };
        let split_columns = columns.div_ceil(splits.max(1)).next_multiple_of(tile.columns());
        Self { tile, rows, columns, splits: columns.div_ceil(split_columns), split_columns }
    }

    /// Rows and their splits.
    pub fn parts(&self) -> u64 {
        product([self.rows, self.splits])
    }

    pub fn flops(&self) -> u64 {
        product([8, self.rows, self.columns])
    }

    pub fn reason(&self) -> String {
        let Self { tile, splits, .. } = self;
        match (tile.kept, splits) {
            (true, _) => format!("{} invocations keep a row", tile.lanes),
            (false, 1) => "a workgroup reads a row twice".into(),
            (false, splits) => format!("{splits} workgroups read a row twice"),
        }
    }

    /// Bytes that are read more than once: where rows are not kept, what has their columns; and a mask, once more to count it.
    pub fn bytes_again<S: Shapes>(&self, problem: &op::Problem<S>, walk: &Walk) -> u64 {
        let bytes = |name| problem.get(name).map_or(0, Layout::bytes);
        let counted = if walk.count { bytes("mask") } else { 0 };
        if self.tile.kept { 0 } else { bytes("x") + bytes("mask") + bytes("dp") + counted }
    }

    /// The dispatches of a walk.
    pub fn dispatch<S: Shapes>(
        &self,
        plan: &mut PlanBuilder<'_>,
        config: &SoftmaxConfig,
        problem: &op::Problem<S>,
        walk: &Walk,
        views: &[(&'static str, View)],
        values: &[(&'static str, Value)],
    ) -> Result<()> {
        let terms = config.scale.terms();
        let factor = if walk.count { terms.factor } else { terms.at(self.columns as usize) };
        let mut values = values.to_vec();
        values.extend([
            ("splits", Value::from(self.splits)),
            ("split_columns", self.split_columns.into()),
            ("scale", (factor as f32).into()),
            ("scale_floor", terms.floor.into()),
            ("scale_least", (terms.least as f32).into()),
            ("minus_infinity", f32::NEG_INFINITY.to_bits().into()),
        ]);
        let rows_per_workgroup = WORKGROUP / self.tile.lanes;
        let workgroups = self.parts().div_ceil(rows_per_workgroup.into());
        let flops = product([16, rows_per_workgroup, self.columns.min(self.split_columns)]);
        let kernel = |stage| walk.kernel(problem, self.tile, stage);
        if self.splits == 1 {
            return plan.dispatch(&kernel(Stage::Whole), workgroups, flops, &values, views);
        }
        let mut views = views.to_vec();
        views.push(("partials", plan.workspace("statistics of splits", 32 * self.parts())?));
        if walk.count {
            views.push(("counts", plan.workspace("columns of splits", 4 * self.parts())?));
            plan.dispatch(&count(), workgroups, flops, &values, &views)?;
        }
        plan.dispatch(&kernel(Stage::Reduce), workgroups, flops, &values, &views)?;
        plan.dispatch(&kernel(Stage::Apply), workgroups, flops, &values, &views)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_is_in_one_split() {
        for rows in [1, 2, 7, 511, 512, 1 << 20] {
            for columns in [1, 4, 5, 4096, 4097, 8192, 16_384, 50_257, 1_000_000, 1 << 25, 1 << 30] {
                let Choice { tile, splits, split_columns, .. } = Choice::new(rows, columns);
                assert!(splits * split_columns >= columns && (splits - 1) * split_columns < columns);
                assert!(split_columns.is_multiple_of(tile.columns()) && (!tile.kept || splits == 1));
                assert!(split_columns / tile.columns() <= 1 + MOST / 4096, "{rows} {columns}: few turns of the loop");
            }
        }
        assert_eq!(Choice::new(1, 1_000_000).splits, 82);
        assert_eq!(Choice::new(512, 1_000_000).splits, 1);
    }
}
