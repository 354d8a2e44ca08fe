//! In what dispatches the merge runs.

use super::kernels::{WORKGROUP, kernel, lanes};
use super::{Merge, MergeConfig, MergeShapes, OPERANDS};
use crate::Result;
use crate::dispatch::{Plan, PlanBuilder};
use crate::op::{self, GivenNames, Kernels, Operand};
use crate::tensor::product;
use crate::tuning::NoOffer;

pub(super) type Problem = op::Problem<MergeShapes>;

impl Kernels for Merge {
    const NAME: &'static str = "merge";
    const OPERANDS: &'static [Operand] = OPERANDS;
    type Config = MergeConfig;
    type Shapes = MergeShapes;
    type Offer = NoOffer;

    fn check(_: &MergeConfig, shapes: &MergeShapes) -> Result<()> {
        shapes.check()
    }

    fn refuses(config: &MergeConfig, given: &GivenNames, row: &Operand) -> Option<&'static str> {
        // A twin is given what the outputs hold, and computes all that the parts have.
        let held = given.on_host && row.held;
        let has_entropy = given.input("entropy_parts");
        match (row.name, given.has(row), config.accumulate) {
            ("entropy_parts", true, _) if !given.on_host && !given.output("entropy") => {
                Some("is given, but the output entropy is not")
            }
            ("entropy_parts", false, _) if given.output("entropy") => Some("is missing, but entropy is given"),
            ("entropy", true, _) if !given.on_host && !has_entropy => Some("is given, but entropy_parts is not"),
            ("o" | "lse" | "entropy", true, false) if held => Some("is given, but the config does not accumulate"),
            ("o", false, true) if held => Some("is missing, but accumulate goes on from it"),
            ("entropy", false, true) if held && has_entropy => Some("is missing, but accumulate goes on from it"),
            ("lse", false, true) => Some("is missing, but accumulate weighs what o holds by it"),
            _ => None,
        }
    }

    fn must_be_f32(config: &MergeConfig, name: &str) -> Option<&'static str> {
        let why = "F32, as accumulate would round what is summed at every step";
        (config.accumulate && name == "o").then_some(why)
    }

    fn has(_: &MergeConfig, shapes: &MergeShapes, row: &Operand) -> bool {
        match row.name {
            "lse" => shapes.lse,
            _ => shapes.entropy,
        }
    }

    fn build(plan: PlanBuilder<'_>, config: &MergeConfig, problem: &Problem, _: Option<&NoOffer>) -> Result<Plan> {
        build(plan, config, problem)
    }
}

/// Loop iterations of one invocation, the exit of each run of a loop counted.
fn loop_iterations(shapes: &MergeShapes) -> u64 {
    let chunks = u64::from(shapes.v_dim.div_ceil(4).div_ceil(lanes(shapes.v_dim)));
    (u64::from(shapes.parts) + 1) * (2 + chunks) + chunks + 1
}

/// Compiles the kernel and lays out its dispatches.
fn build(mut plan: PlanBuilder<'_>, config: &MergeConfig, problem: &Problem) -> Result<Plan> {
    let shapes = &problem.shapes;
    plan.expect_loops(format_args!("{} parts", shapes.parts), loop_iterations(shapes))?;
    // The shapes were checked to have fewer than 2^30 rows.
    let rows = shapes.batch * shapes.heads * shapes.len;
    let rows_per_workgroup = WORKGROUP / lanes(shapes.v_dim);
    let parts = shapes.parts.saturating_add(config.accumulate.into());
    let flops = product([2, parts, rows_per_workgroup, shapes.v_dim]);
    let workgroups = rows.div_ceil(rows_per_workgroup).into();
    // Of no parts nothing is read, but no binding may be empty.
    let none = if shapes.parts == 0 { Some(plan.workspace("no parts", 16)?) } else { None };
    let views: Vec<_> =
        none.into_iter().flat_map(|view| ["o_parts", "lse_parts", "entropy_parts"].map(|name| (name, view))).collect();
    plan.dispatch(&kernel(config, problem), workgroups, flops, &[("rows", rows.into())], &views)?;
    let flops = product([2, parts, rows, shapes.v_dim]);
    // What the merge accumulates into is read and written.
    let bytes = problem.bytes() + if config.accumulate { problem.output_bytes() } else { 0 };
    plan.finish(flops, bytes, format!("{} invocations share a row", lanes(shapes.v_dim)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_cover_a_row_and_divide_a_workgroup() {
        for v_dim in 1..=1024 {
            let lanes = lanes(v_dim);
            assert!(WORKGROUP.is_multiple_of(lanes));
            assert!(lanes >= v_dim.div_ceil(4).min(WORKGROUP), "{v_dim}");
        }
    }

    #[test]
    fn iterations_count_every_loop() {
        // Two walks of three parts, and one for each of four chunks of 64 lanes: each with its exit, and the chunks' own.
        assert_eq!(loop_iterations(&MergeShapes::new(3, 1, 1, 1, 1024)), 4 * 2 + 4 * 4 + 5);
    }
}
