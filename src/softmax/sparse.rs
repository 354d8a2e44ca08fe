//! Sparsemax and entmax on the GPU: the kernel of each stage, in what dispatches they run, and what they need before.

use super::kernels::{Tile, Walk, tile_constants};
use super::plan::Choice;
use crate::Result;
use crate::dispatch::{PlanBuilder, Value, View};
use crate::op::{self, Shapes};
use crate::wgsl::{Constant, Source, Specialization, optional, pick, source};

/// What a dispatch does of a walk over rows; see `sparse.wgsl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// All of it.
    Whole,
    /// The largest score of each split.
    Largest,
    /// A round of the bracket.
    Round,
    /// The sums over p.
    Sums,
    /// What follows from them.
    Write,
}

/// Rounds of the bracket, as `sparse.wgsl` has them.
const ROUNDS: u32 = 5;
/// How often a row that is not kept is read: for its largest score, the rounds, the sums, and what is written. What comes in backward is
/// read for the last two.
pub(super) const READS: u64 = ROUNDS as u64 + 3;
const GATHER_WORKGROUP: u32 = 64;

/// The power 1/(α − 1) where kernels know it, or 0.
pub(super) fn power(alpha: f32, of_rows: bool) -> u32 {
    match alpha {
        _ if of_rows => 0,
        2.0 => 1,
        1.5 => 2,
        _ => 0,
    }
}

impl Walk {
    /// The kernel of a stage.
    pub fn sparse_kernel<S: Shapes>(&self, problem: &op::Problem<S>, tile: Tile, stage: Stage) -> Specialization {
        let any = |stages: &[Stage]| stage == Stage::Whole || stages.contains(&stage);
        let (sums, write) = (any(&[Stage::Sums]), any(&[Stage::Write]));
        let mut fragments = self.columns(stage == Stage::Largest, true, true);
        fragments.extend([
            if sums || write { self.dp } else { source!("softmax/no_dp") },
            pick(
                matches!(stage, Stage::Whole | Stage::Largest),
                source!("softmax/no_sparse_partials_read"),
                source!("softmax/sparse_partials_read"),
            ),
            pick(
                matches!(stage, Stage::Whole | Stage::Write),
                source!("softmax/no_sparse_partials_write"),
                source!("softmax/sparse_partials_write"),
            ),
        ]);
        let nowhere = [
            source!("softmax/no_p"),
            source!("softmax/no_entropy"),
            source!("softmax/no_loss"),
            source!("softmax/no_support"),
            source!("softmax/no_dx"),
            source!("softmax/no_slopes"),
            source!("softmax/no_alpha_slopes"),
        ];
        match (sums || write, write) {
            (true, true) => fragments.extend(&self.result),
            // The same sums, and nowhere to write.
            (true, false) => fragments.extend(self.result.first().into_iter().chain(&nowhere)),
            (false, _) => fragments.push(source!("softmax/no_sparse_result")),
        }
        let mut constants = tile_constants(self, tile, any(&[Stage::Largest]));
        constants.extend([
            ("LARGEST", Constant::Bool(any(&[Stage::Largest]))),
            ("ROUND", Constant::Bool(any(&[Stage::Round]))),
            ("SUMS", Constant::Bool(sums)),
            ("WRITE", Constant::Bool(write)),
            ("POWER", Constant::U32(self.power.unwrap_or(0))),
            ("DALPHA", Constant::Bool(self.dalpha)),
        ]);
        Specialization { kernel: source!("softmax/sparse"), constants, fragments, storage: Vec::new() }.of(problem, &[])
    }
}

/// The kernel that gathers what rows have of their own.
pub(super) fn gather<S: Shapes>(problem: &op::Problem<S>) -> Specialization {
    let mut fragments = own_of_rows(problem).to_vec();
    fragments.push(source!("shared/workgroup_index"));
    let constants = vec![("WORKGROUP", Constant::U32(GATHER_WORKGROUP))];
    Specialization { kernel: source!("softmax/gather"), constants, fragments, storage: Vec::new() }.of(problem, &[])
}

/// What rows have of their own, each where it is.
pub(super) fn own_of_rows<S: Shapes>(problem: &op::Problem<S>) -> [&'static Source; 6] {
    let given = |name| problem.has(name);
    [
        optional!(given("row_scale"), "softmax/", "row_scale"),
        optional!(given("alpha"), "softmax/", "alpha"),
        optional!(given("labels"), "softmax/", "labels"),
        optional!(given("dloss"), "softmax/", "dloss"),
        optional!(given("dlse"), "softmax/", "dlse"),
        optional!(given("dentropy"), "softmax/", "dentropy"),
    ]
}

impl Choice {
    /// Gathers what rows have of their own.
    pub fn gather<S: Shapes>(
        &self,
        plan: &mut PlanBuilder<'_>,
        problem: &op::Problem<S>,
        values: &[(&'static str, Value)],
        views: &mut Vec<(&'static str, View)>,
    ) -> Result<()> {
        views.push(("numbers", plan.workspace("what rows have of their own", 32 * u64::from(self.rows))?));
        let workgroups = self.rows.div_ceil(GATHER_WORKGROUP);
        plan.dispatch(&gather(problem), workgroups.into(), GATHER_WORKGROUP.into(), values, views)
    }

    /// The dispatches of a sparsemax or an entmax.
    pub fn dispatch_sparse<S: Shapes>(
        &self,
        plan: &mut PlanBuilder<'_>,
        problem: &op::Problem<S>,
        walk: &Walk,
        values: &[(&'static str, Value)],
        views: &[(&'static str, View)],
    ) -> Result<()> {
        let kernel = |stage| walk.sparse_kernel(problem, self.tile, stage);
        let (workgroups, flops) = (self.workgroups(), 8 * READS * self.flops_of_a_workgroup());
        if self.splits == 1 {
            let values = [values, &[("round", Value::from(0_u32))]].concat();
            return plan.dispatch(&kernel(Stage::Whole), workgroups, flops, &values, views);
        }
        // Each dispatch reads what the one before has written.
        let mut regions = [View::NOWHERE; 2];
        for region in &mut regions {
            *region = plan.workspace("sums of splits", 64 * self.parts())?;
        }
        let rounds = (0..ROUNDS).map(|round| (Stage::Round, round));
        let stages = std::iter::once((Stage::Largest, 0)).chain(rounds).chain([(Stage::Sums, 0), (Stage::Write, 0)]);
        for (stage, round) in stages {
            let values = [values, &[("round", round.into())]].concat();
            let views = [views, &[("partials", regions[0]), ("partials_next", regions[1])]].concat();
            plan.dispatch(&kernel(stage), workgroups, flops / READS, &values, &views)?;
            regions.swap(0, 1);
        }
        Ok(())
    }
}
