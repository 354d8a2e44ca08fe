//! In what dispatches rows are walked, forward and backward.

use super::kernels::{self, Stage, Tile, WORKGROUP, Walk, count};
use super::sparse::READS;
use super::{OPERANDS, Softmax, SoftmaxConfig, SoftmaxKind, SoftmaxShapes, shapes};
use crate::context::Capabilities;
use crate::dispatch::{Plan, PlanBuilder, Value, View};
use crate::op::{self, GivenNames, Kernels, Operand, Shapes};
use crate::tensor::{Layout, evenly, product};
use crate::tuning::NoOffer;
use crate::{Result, top_k};

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

    fn check(config: &SoftmaxConfig, own: &SoftmaxShapes) -> Result<()> {
        shapes::check(config, [own.rows, own.columns], [own.row_scale, own.alpha])
    }

    fn refuses(config: &SoftmaxConfig, given: &GivenNames, row: &Operand) -> Option<&'static str> {
        let has = given.has(row);
        match row.name {
            "loss" if has && !given.input("labels") => Some("is given, but labels is not"),
            "labels" if has && !given.on_host && !given.output("loss") => Some("is given, but loss is not"),
            "lse" if has && config.kind.alpha().is_some() => Some("is given, but this kind sums no exponentials"),
            "support" if has && config.kind.alpha().is_none() => {
                Some("is given, but p of this kind is above 0 in every column that takes part, or in k of them")
            }
            _ if has => refuses(config, row),
            _ => None,
        }
    }

    fn build(
        mut plan: PlanBuilder<'_>,
        config: &SoftmaxConfig,
        problem: &Problem,
        _: Option<&NoOffer>,
    ) -> Result<Plan> {
        let absent =
            ["dp", "dlse", "dentropy", "dloss", "dx", "slopes", "alpha_slopes"].map(|name| (name, View::NOWHERE));
        let choice = Choice::of(problem);
        let walk = Walk::forward(config, problem);
        for block in choice.blocks(plan.device()) {
            plan.in_passing(|plan| block.dispatch(plan, config, problem, &walk, &absent))?;
        }
        let bytes = problem.bytes() + choice.bytes_again(problem, &walk);
        plan.finish(choice.flops(), bytes, choice.reason())
    }
}

/// What is wrong with an operand that both passes have being given.
pub(super) fn refuses(config: &SoftmaxConfig, row: &Operand) -> Option<&'static str> {
    match row.name {
        "alpha" if !matches!(config.kind, SoftmaxKind::Entmax { .. }) => Some("is given, but the kind is not entmax"),
        "labels" if !config.kind.has_loss() => Some("is given, but this kind has no Fenchel-Young loss"),
        _ => None,
    }
}

/// Workgroups that occupy a GPU: with fewer rows, rows are split.
const ENOUGH: u32 = 512;
/// The fewest columns that are worth a workgroup of their own, and the most that one walks: far fewer turns of a loop than after which
/// any driver ends it.
const LEAST: u32 = 8192;
const MOST: u32 = 1 << 22;
/// Rows of which something is in the workspace at a time.
const MOST_ROWS: u32 = 1 << 20;

/// How rows are laid out over workgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    pub tile: Tile,
    /// The first of those that are worked on at a time, and how many they are.
    pub first: u32,
    pub rows: u32,
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
        let splits =
            if tile.kept { 1 } else { ENOUGH.div_ceil(rows.max(1)).min(columns / LEAST).max(columns.div_ceil(MOST)) };
        let split_columns = columns.div_ceil(splits.max(1)).next_multiple_of(tile.columns());
        Self { tile, first: 0, rows, columns, splits: columns.div_ceil(split_columns), split_columns }
    }

    /// The same in blocks of rows, of which what a dispatch leaves to the next is a part of the workspace.
    pub fn blocks(self, device: &Capabilities) -> impl Iterator<Item = Self> + use<> {
        let of_a_row = if self.splits == 1 { 64 } else { 256 * u64::from(self.splits) };
        let most = (device.workspace_room() / of_a_row).clamp(1, MOST_ROWS.into()) as u32;
        evenly(self.rows, most, 1).map(move |(first, rows)| Self { first, rows, ..self })
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
            (false, 1) => "a workgroup reads a row".into(),
            (false, splits) => format!("{splits} workgroups read a row"),
        }
    }

    /// Bytes that are read more than once: where rows are not kept, what has their columns; and a mask, once more to count it.
    pub fn bytes_again<S: Shapes>(&self, problem: &op::Problem<S>, walk: &Walk) -> u64 {
        let bytes = |name| problem.get(name).map_or(0, Layout::bytes);
        let counted = if walk.count { bytes("mask") } else { 0 };
        let reads = if walk.power.is_some() { READS } else { 2 };
        let searches = walk.top_k.map_or(0, |_| top_k::reads(self.columns).into());
        let (again, of_dp) = if self.tile.kept { (searches, 0) } else { (searches + reads - 1, bytes("dp") + counted) };
        again * (bytes("x") + bytes("mask")) + of_dp
    }

    /// Workgroups that have a row or a split each, or several rows, and about what each computes.
    pub fn workgroups(&self) -> u64 {
        self.parts().div_ceil((WORKGROUP / self.tile.lanes).into())
    }

    pub fn flops_of_a_workgroup(&self) -> u64 {
        product([16, WORKGROUP / self.tile.lanes, self.columns.min(self.split_columns)])
    }

    /// The dispatches of a walk over a block.
    pub fn dispatch<S: Shapes>(
        &self,
        plan: &mut PlanBuilder<'_>,
        config: &SoftmaxConfig,
        problem: &op::Problem<S>,
        walk: &Walk,
        views: &[(&'static str, View)],
    ) -> Result<()> {
        let terms = config.scale.terms();
        let factor = if walk.count { terms.factor } else { terms.at(self.columns as usize) };
        let mut values = vec![
            ("rows", Value::from(self.rows)),
            ("splits", self.splits.into()),
            ("split_columns", self.split_columns.into()),
            ("scale", (factor as f32).into()),
            ("scale_floor", terms.floor.into()),
            ("scale_least", (terms.least as f32).into()),
            ("minus_infinity", f32::NEG_INFINITY.to_bits().into()),
            ("alpha", config.kind.alpha().unwrap_or(2.0).into()),
            ("round", 0_u32.into()),
        ];
        let (workgroups, flops) = (self.workgroups(), self.flops_of_a_workgroup());
        let mut views: Vec<_> = views.iter().copied().chain(problem.rows_from(self.first)).collect();
        if walk.is_gathered() {
            self.gather(plan, problem, &values, &mut views)?;
        }
        if let Some(k) = walk.top_k {
            let kernel = |share| kernels::top_k(walk, problem, share);
            top_k::dispatch(plan, kernel, [k, self.rows, self.columns], &values, &views)?;
        }
        if walk.count && self.splits > 1 {
            views.push(("counts", plan.workspace("columns of splits", 4 * self.parts())?));
            plan.dispatch(&count(), workgroups, flops, &values, &views)?;
        }
        if walk.power.is_some() {
            values.retain(|(name, _)| *name != "round");
            return self.dispatch_sparse(plan, problem, walk, &values, &views);
        }
        let kernel = |stage| walk.kernel(problem, self.tile, stage);
        if self.splits == 1 {
            return plan.dispatch(&kernel(Stage::Whole), workgroups, flops, &values, &views);
        }
        views.push(("partials", plan.workspace("statistics of splits", 32 * self.parts())?));
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
