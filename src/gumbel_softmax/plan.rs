//! In what dispatches Gumbel-softmax runs, forward and backward.

use super::kernels::{self, PREPARE_WORKGROUP, WORKGROUP, Walk};
use super::{GumbelKind, GumbelSoftmax, GumbelSoftmaxConfig, GumbelSoftmaxShapes, OPERANDS, shapes};
use crate::dispatch::{Plan, PlanBuilder, View};
use crate::op::{GivenNames, Kernels, Operand, Problem, Shapes, SizeOf};
use crate::tensor::{evenly, product};
use crate::tuning::NoOffer;
use crate::{Result, top_k};

/// Words of the key.
pub(super) const KEY_WORDS: u32 = 5;

impl Kernels for GumbelSoftmax {
    const NAME: &'static str = "gumbel_softmax";
    const OPERANDS: &'static [Operand] = OPERANDS;
    type Config = GumbelSoftmaxConfig;
    type Shapes = GumbelSoftmaxShapes;
    type Offer = NoOffer;

    fn check_config(config: &GumbelSoftmaxConfig) -> Result<()> {
        config.check()
    }

    fn check(config: &GumbelSoftmaxConfig, shapes: &GumbelSoftmaxShapes) -> Result<()> {
        shapes::check(config, shapes.rows, shapes.columns, shapes.taus)
    }

    fn refuses(config: &GumbelSoftmaxConfig, given: &GivenNames, row: &Operand) -> Option<&'static str> {
        let sample = config.kind == GumbelKind::Sample;
        match (row.name, given.has(row)) {
            ("tau", true) if sample => Some("is given, but a sample does not depend on the temperature"),
            ("y", true) if sample => Some("is given, but a sample is an index alone"),
            ("y", false) if !sample && !given.on_host => Some("is missing"),
            ("index", false) if sample && !given.on_host => Some("is missing, but a sample is nothing else"),
            _ => None,
        }
    }

    fn derived(_: &GumbelSoftmaxConfig, _: &SizeOf<'_>, axis: &str) -> Option<(u32, &'static str)> {
        words(axis)
    }

    fn has(config: &GumbelSoftmaxConfig, shapes: &GumbelSoftmaxShapes, row: &Operand) -> bool {
        match row.name {
            "tau" => shapes.taus.is_some(),
            "y" => config.kind != GumbelKind::Sample,
            "index" => shapes.index || config.kind == GumbelKind::Sample,
            name => shapes.has(name),
        }
    }

    fn build(
        mut plan: PlanBuilder<'_>,
        config: &GumbelSoftmaxConfig,
        problem: &Problem<GumbelSoftmaxShapes>,
        _: Option<&NoOffer>,
    ) -> Result<Plan> {
        let shapes = &problem.shapes;
        let walk = kernels::forward(config, problem);
        let absent = ["dy", "dlogits", "dtau_rows"].map(|name| (name, View::NOWHERE));
        let call =
            Call { rows: shapes.rows, columns: shapes.columns, all: problem.has("y") || shapes.noise, views: &absent };
        let reason = build(&mut plan, config, problem, &walk, &call)?;
        plan.finish(product([8, shapes.rows, shapes.columns]), problem.bytes(), reason)
    }
}

/// The size of the axis that no tensor decides.
pub(super) fn words(axis: &str) -> Option<(u32, &'static str)> {
    (axis == "words").then_some((KEY_WORDS, "seed low, seed high, stream, step, row offset"))
}

/// What the passes say of a call.
pub(super) struct Call<'a> {
    pub rows: u32,
    pub columns: u32,
    /// Whether anything is written for each column.
    pub all: bool,
    /// What stands for the names of the other pass, and of the workspace.
    pub views: &'a [(&'static str, View)],
}

/// Workgroups that keep a large GPU busy.
const BUSY: u32 = 1024;
/// Chunks of four columns that make a slice worth its dispatch: four for each invocation.
const LEAST_CHUNKS: u32 = 4 * WORKGROUP;
/// Chunks of a slice at most, so that its walks stay below what drivers with a cap on loops allow.
const MOST_CHUNKS: u32 = 8192 * WORKGROUP;

/// How many slices a row is cut into, and the chunks of each: one slice, unless few long rows would leave a GPU idle.
fn slices(rows: u32, columns: u32) -> (u32, u32) {
    let chunks = columns.div_ceil(4);
    let wanted = BUSY.div_ceil(rows.max(1)).min(chunks / LEAST_CHUNKS).clamp(1, WORKGROUP);
    let slice = chunks.div_ceil(wanted).min(MOST_CHUNKS);
    (chunks.div_ceil(slice), slice)
}

/// Rows of which something is in the workspace at a time.
const MOST_ROWS: u64 = 1 << 20;

/// Lays out the dispatches that walk columns, and what they need before; says why.
pub(super) fn build<S: Shapes>(
    plan: &mut PlanBuilder<'_>,
    config: &GumbelSoftmaxConfig,
    problem: &Problem<S>,
    walk: &Walk,
    call: &Call<'_>,
) -> Result<String> {
    let Call { rows, .. } = *call;
    // What rows have of their own is there for so many at a time.
    let most = if walk.prepared { (plan.device().workspace_room() / 64).clamp(1, MOST_ROWS) as u32 } else { rows };
    let mut reason = String::new();
    for block in evenly(rows, most, 1) {
        reason = plan.in_passing(|plan| build_block(plan, config, problem, walk, call, block))?;
    }
    Ok(reason)
}

fn build_block<S: Shapes>(
    plan: &mut PlanBuilder<'_>,
    config: &GumbelSoftmaxConfig,
    problem: &Problem<S>,
    walk: &Walk,
    call: &Call<'_>,
    (first, rows): (u32, u32),
) -> Result<String> {
    let columns = call.columns;
    // Above 1e36 all weights are 1 anyway, and a product would overflow.
    let tau = config.tau.min(1e36);
    let own = problem.rows_from(first).filter(|(name, _)| *name != "key");
    let mut views: Vec<_> = call.views.iter().map(|(name, view)| (*name, view.rows_from(first))).chain(own).collect();
    if walk.prepared {
        let state = plan.workspace("what rows have of their own", 32 * u64::from(rows))?;
        views.push(("row_state", state));
        let taus = problem.shapes.axis("taus").unwrap_or(1);
        let values = [("first_row", first.into()), ("rows", rows.into()), ("tau", tau.into()), ("taus", taus.into())];
        let workgroups = rows.div_ceil(PREPARE_WORKGROUP).into();
        plan.dispatch(&kernels::prepare(problem), workgroups, PREPARE_WORKGROUP.into(), &values, &views)?;
    }
    if let Some(k) = config.top_k {
        top_k::dispatch(plan, |share| kernels::top_k(problem, share), [k, rows, columns], &[], &views)?;
    }

    let (slices, slice_chunks) = slices(rows, columns);
    let written = if call.all { slices } else { 1 };
    let values = [
        ("rows", rows.into()),
        ("columns", columns.into()),
        ("tau", tau.into()),
        ("slices", slices.into()),
        ("written_slices", written.into()),
        ("slice_chunks", slice_chunks.into()),
    ];
    // A score takes a tenth of a block of 250 operations.
    let work = |chunks: u32| product([4 * 64, chunks]);
    if slices == 1 {
        let rows_per_workgroup = WORKGROUP / walk.lanes;
        let workgroups = rows.div_ceil(rows_per_workgroup).into();
        plan.dispatch(&walk.rows(problem), workgroups, work(rows_per_workgroup * slice_chunks), &values, &views)?;
        return Ok(format!("{} invocations share a row", walk.lanes));
    }
    views.push(("partials", plan.workspace("states of slices", product([32, rows, slices]))?));
    plan.dispatch(&walk.slices(problem), product([rows, slices]), work(slice_chunks), &values, &views)?;
    plan.dispatch(&walk.combine(problem), product([rows, written]), work(slice_chunks), &values, &views)?;
    Ok(format!("{slices} workgroups share a row"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_cover_a_row_and_fit_a_workgroup() {
        for columns in [1, 4, 4095, 4096, 4097, 8192, 65_537, 1_000_000, 1 << 26, 1 << 30] {
            for rows in [1, 2, 7, 1000, 1 << 20] {
                let (slices, chunks) = slices(rows, columns);
                let all = columns.div_ceil(4);
                assert!(slices <= WORKGROUP && chunks <= MOST_CHUNKS, "{rows} x {columns}");
                assert!(slices * chunks >= all && (slices - 1) * chunks < all, "{rows} x {columns}");
            }
        }
        assert_eq!(slices(1000, 1000).0, 1);
        assert!(slices(1, 1_000_000).0 > 200);
    }
}
