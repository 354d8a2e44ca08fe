//! In what dispatches gradients flow back.

use super::super::kernels::Walk;
use super::super::plan::Choice;
use super::super::{SoftmaxBackwardShapes, SoftmaxConfig, plan::refuses, shapes};
use super::{OPERANDS, SoftmaxBackward};
use crate::dispatch::{Plan, PlanBuilder, Value, View};
use crate::dtype::{DType, Storage};
use crate::op::{self, GivenNames, Kernels, Operand};
use crate::tuning::NoOffer;
use crate::{Result, sums};

type Problem = op::Problem<SoftmaxBackwardShapes>;

/// Whether something comes in, and something is asked for that there is.
pub(in super::super) fn makes_sense(shapes: &SoftmaxBackwardShapes) -> bool {
    let comes_in = shapes.dp || shapes.dlse || shapes.dentropy || shapes.dloss;
    let of_rows = (shapes.row_scale.is_some() || !shapes.drow_scale) && (shapes.alpha.is_some() || !shapes.dalpha);
    comes_in && (shapes.dx || shapes.drow_scale || shapes.dalpha) && of_rows && shapes.dloss == shapes.labels
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

    fn check(config: &SoftmaxConfig, own: &SoftmaxBackwardShapes) -> Result<()> {
        shapes::check(config, [own.rows, own.columns], [own.row_scale, own.alpha])
    }

    fn refuses(config: &SoftmaxConfig, given: &GivenNames, row: &Operand) -> Option<&'static str> {
        let comes_in = ["dp", "dlse", "dentropy", "dloss"].iter().any(|name| given.input(name));
        let asked = given.on_host || ["dx", "drow_scale", "dalpha"].iter().any(|name| given.output(name));
        match row.name {
            "dp" if !comes_in => Some("is missing, and so are dlse, dentropy and dloss: no gradient comes in"),
            "dx" if !asked => Some("is missing, and so are drow_scale and dalpha: no gradient is asked for"),
            "drow_scale" if given.has(row) && !given.input("row_scale") => Some("is given, but row_scale is not"),
            "dalpha" if given.has(row) && !given.input("alpha") => Some("is given, but alpha is not"),
            "dlse" if given.has(row) && config.kind.alpha().is_some() => Some("is given, but this kind has no lse"),
            "dloss" if given.has(row) && !given.input("labels") => Some("is given, but labels is not"),
            "labels" if given.has(row) && !given.input("dloss") => Some("is given, but dloss is not"),
            _ if given.has(row) => refuses(config, row),
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
        let (choice, walk) = (Choice::of(problem), Walk::backward(config, problem));
        let nowhere = ["p", "lse", "entropy", "loss", "support"].map(|name| (name, View::NOWHERE));
        let (mut views, mut values, mut sums) = (nowhere.to_vec(), Vec::new(), Vec::new());
        // Numbers of rows, or of their splits, that make one of a gradient.
        let splits = if own.rows == 0 { 1 } else { choice.splits.into() };
        let all = (choice.parts(), if own.row_scale == Some(1) { choice.parts() } else { splits });
        let rows = (u64::from(own.rows), if own.alpha == Some(1) { own.rows.into() } else { 1 });
        for (name, terms, stride, (length, count)) in
            [("drow_scale", "slopes", "slopes_stride", all), ("dalpha", "alpha_slopes", "alpha_slopes_stride", rows)]
        {
            let view = match problem.output_view(name) {
                None => View::NOWHERE,
                Some(view) if count == 1 => view,
                Some(view) => {
                    let region = plan.workspace("gradients of rows", 4 * length.max(4))?;
                    values.push((stride, Value::from(1_u32)));
                    sums.push((region, view, length, count));
                    region
                }
            };
            views.push((terms, view));
        }
        if own.rows > 0 {
            choice.dispatch(&mut plan, config, problem, &walk, &views, &values)?;
        }
        for (terms, all, length, count) in sums {
            sums::dispatch(
                &mut plan,
                terms,
                (all, Storage::Plain(DType::F32)),
                [length, count].map(|terms| terms as u32),
                1.0,
            )?;
        }
        if own.rows == 0 {
            return plan.finish(0, problem.bytes(), "a sum of no rows".into());
        }
        let bytes = problem.bytes() + choice.bytes_again(problem, &walk);
        plan.finish(choice.flops(), bytes, choice.reason())
    }
}
