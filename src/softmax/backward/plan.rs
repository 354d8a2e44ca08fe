//! In what dispatches gradients flow back.

use super::super::kernels::Walk;
use super::super::plan::Choice;
use super::super::{SoftmaxBackwardShapes, SoftmaxConfig, plan::refuses, shapes};
use super::{OPERANDS, SoftmaxBackward};
use crate::dispatch::{Plan, PlanBuilder, View};
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
        let blocks: Vec<_> = choice.blocks(plan.device()).collect();
        let nowhere =
            ["p", "lse", "entropy", "loss", "support", "slopes", "alpha_slopes"].map(|name| (name, View::NOWHERE));
        // A gradient of one number is the sum over rows, or over the sums of blocks of them; one of each row, over its splits.
        let mut gradients = Vec::new();
        for (name, terms, of_a_row, given) in
            [("drow_scale", "slopes", choice.splits, own.row_scale), ("dalpha", "alpha_slopes", 1, own.alpha)]
        {
            let Some(gradient) = problem.output_view(name) else { continue };
            let is_one = given == Some(1);
            let sums = match is_one && blocks.len() != 1 {
                true => plan.workspace("gradients of blocks", 4 * blocks.len().max(4) as u64)?.of_numbers(),
                false => gradient,
            };
            gradients.push((terms, of_a_row, is_one, sums, gradient));
        }
        let sum = |plan: &mut PlanBuilder<'_>, terms, sums, sizes| {
            sums::dispatch(plan, terms, (sums, Storage::Plain(DType::F32)), sizes, 1.0)
        };
        for (index, block) in blocks.iter().enumerate() {
            plan.in_passing(|plan| {
                let (mut views, mut pending) = (Vec::new(), Vec::new());
                for &(name, of_a_row, is_one, sums, _) in &gradients {
                    let length = block.rows * of_a_row;
                    let count = if is_one { length } else { of_a_row };
                    let mut view = sums.rows_from(if is_one { index as u32 } else { block.first });
                    if count > 1 {
                        let terms = plan.workspace("gradients of rows", 4 * u64::from(length))?.of_numbers();
                        pending.push((terms, view, [length, count]));
                        view = terms;
                    }
                    views.push((name, view));
                }
                views.extend(nowhere);
                block.dispatch(plan, config, problem, &walk, &views)?;
                pending.into_iter().try_for_each(|(terms, sums, sizes)| sum(plan, terms, sums, sizes))
            })?;
        }
        for (.., sums, gradient) in gradients.into_iter().filter(|(_, _, is_one, ..)| *is_one && blocks.len() != 1) {
            sum(&mut plan, sums, gradient, [blocks.len() as u32; 2])?;
        }
        if own.rows == 0 {
            return plan.finish(0, problem.bytes(), "a sum of no rows".into());
        }
        let bytes = problem.bytes() + choice.bytes_again(problem, &walk);
        plan.finish(choice.flops(), bytes, choice.reason())
    }
}
