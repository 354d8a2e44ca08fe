//! In what dispatches gradients flow back.

use super::super::kernels::{Walk, sum};
use super::super::plan::Choice;
use super::super::{SoftmaxBackwardShapes, SoftmaxConfig, shapes};
use super::{OPERANDS, SoftmaxBackward};
use crate::Result;
use crate::dispatch::{Plan, PlanBuilder, Value, View};
use crate::op::{self, GivenNames, Kernels, Operand};
use crate::tuning::NoOffer;

type Problem = op::Problem<SoftmaxBackwardShapes>;

/// Whether something comes in, and something is asked for that there is.
pub(in super::super) fn makes_sense(shapes: &SoftmaxBackwardShapes) -> bool {
    let comes_in = shapes.dp || shapes.dlse || shapes.dentropy;
    comes_in && (shapes.dx || shapes.drow_scale) && (shapes.row_scale.is_some() || !shapes.drow_scale)
}

impl Kernels for SoftmaxBackward {
    const NAME: &'static str = "softmax_backward";
    const OPERANDS: &'static [Operand] = OPERANDS;
    type Config = SoftmaxConfig;
    type Shapes = SoftmaxBackwardShapes;
    type Offer = NoOffer;

    fn check_config(config: &SoftmaxConfig) -> Result<()> {
        config.check()
    }

    fn check(_: &SoftmaxConfig, own: &SoftmaxBackwardShapes) -> Result<()> {
        shapes::check([own.rows, own.columns], own.row_scale)
    }

    fn refuses(_: &SoftmaxConfig, given: &GivenNames, row: &Operand) -> Option<&'static str> {
        let comes_in = ["dp", "dlse", "dentropy"].iter().any(|name| given.input(name));
        let asked = given.on_host || ["dx", "drow_scale"].iter().any(|name| given.output(name));
        match row.name {
            "dp" if !comes_in => Some("is missing, and so are dlse and dentropy: no gradient comes in"),
            "dx" if !asked => Some("is missing, and so is drow_scale: no gradient is asked for"),
            "drow_scale" if given.has(row) && !given.input("row_scale") => Some("is given, but row_scale is not"),
            _ => None,
        }
    }

    fn build(
        mut plan: PlanBuilder<'_>,
        config: &SoftmaxConfig,
        problem: &Problem,
        _: Option<&NoOffer>,
    ) -> Result<Plan> {
        let own = &problem.shapes;
        if own.rows == 0 {
            let none = plan.workspace("no rows", 16)?;
            add_up(&mut plan, problem, none, 0, 0)?;
            return plan.finish(0, problem.bytes(), "a sum of no rows".into());
        }
        let (choice, walk) = (Choice::of(problem), Walk::backward(config, problem));
        let mut views = vec![("p", View::NOWHERE), ("lse", View::NOWHERE), ("entropy", View::NOWHERE)];
        let mut values = Vec::new();
        // Numbers that make one of row_scale's.
        let per_sum = if own.row_scale == Some(1) { choice.parts() } else { choice.splits.into() };
        match problem.output_view("drow_scale") {
            None => views.push(("slopes", View::NOWHERE)),
            Some(view) if per_sum == 1 => views.push(("slopes", view)),
            Some(_) => {
                views.push(("slopes", plan.workspace("gradients of row_scale", 4 * choice.parts())?));
                values.push(("slopes_stride", Value::from(1_u32)));
            }
        }
        choice.dispatch(&mut plan, config, problem, &walk, &views, &values)?;
        if own.drow_scale && per_sum > 1 {
            let slopes = views.last().map_or(View::NOWHERE, |(_, view)| *view);
            add_up(&mut plan, problem, slopes, choice.parts(), per_sum)?;
        }
        let bytes = problem.bytes() + choice.bytes_again(problem, &walk);
        plan.finish(choice.flops(), bytes, choice.reason())
    }
}

/// The most terms that one workgroup sums.
const TERMS: u64 = 4096;

/// Sums `length` terms, each `count` of them into one number of drow_scale; so many that they are many are one sum.
fn add_up(plan: &mut PlanBuilder<'_>, problem: &Problem, terms: View, length: u64, count: u64) -> Result<()> {
    let Some(all) = problem.output_view("drow_scale") else { return Ok(()) };
    let (mut terms, mut length, mut count) = (terms, length, count);
    while count > TERMS {
        let groups = length.div_ceil(TERMS);
        let sums = plan.workspace("sums of gradients of row_scale", 4 * groups)?;
        let values = [("count", TERMS as u32), ("length", length as u32), ("sums_stride", 1)];
        let values = values.map(|(name, value)| (name, value.into()));
        plan.dispatch(&sum(), groups, TERMS, &values, &[("terms", terms), ("sums", sums)])?;
        (terms, length, count) = (sums, groups, groups);
    }
    let groups = length.div_ceil(count.max(1)).max(1);
    let values = [("count", count as u32), ("length", length as u32)].map(|(name, value)| (name, value.into()));
    plan.dispatch(&sum(), groups, count, &values, &[("terms", terms), ("sums", all)])
}
