//! In what dispatches the merge runs.

use super::kernels::{WORKGROUP, kernel, kernel_params, lanes, slot};
use super::{MergeConfig, MergeShapes};
use crate::context::{Capabilities, Context};
use crate::dispatch::{Plan, PlanBuilder, Slot};
use crate::tensor::{Access, DType, Layout, product};
use crate::{Error, Result};

/// Everything that a plan depends on besides the config: sizes, and where the tensors lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Problem {
    pub shapes: MergeShapes,
    pub o_parts: Layout<5>,
    pub lse_parts: Layout<4>,
    pub entropy_parts: Option<Layout<4>>,
    pub o: Layout<4>,
    pub lse: Option<Layout<3>>,
    pub entropy: Option<Layout<3>>,
}

impl Problem {
    /// Contiguous tensors, each at the start of its buffer.
    pub fn contiguous(shapes: MergeShapes) -> Self {
        let MergeShapes { parts, batch, heads, len, v_dim, .. } = shapes;
        let rows = Layout::contiguous([batch, heads, len]);
        let parts_of_rows = Layout::contiguous([parts, batch, heads, len]);
        Self {
            shapes,
            o_parts: Layout::contiguous([parts, batch, heads, len, v_dim]),
            lse_parts: parts_of_rows,
            entropy_parts: shapes.entropy.then_some(parts_of_rows),
            o: Layout::contiguous([batch, heads, len, v_dim]),
            lse: shapes.lse.then_some(rows),
            entropy: shapes.entropy.then_some(rows),
        }
    }

    /// The same with the parts of o in another type, and o in its own.
    pub fn stored(self, [o_parts, o]: [DType; 2], device: &Capabilities) -> Result<Self> {
        let o_parts = self.o_parts.stored("o_parts", PART_AXES, Access::Read, o_parts, device)?;
        Ok(Self { o_parts, o: self.o.stored("o", ROW_AXES, Access::Write, o, device)?, ..self })
    }
}

/// The axes of o_parts.
pub(super) const PART_AXES: [&str; 5] = ["parts", "batch", "heads", "len", "v_dim"];
/// The axes of o.
pub(super) const ROW_AXES: [&str; 4] = ["batch", "heads", "len", "v_dim"];

/// Loop iterations of one invocation, the exit of each run of a loop counted.
fn loop_iterations(shapes: &MergeShapes) -> u64 {
    let chunks = u64::from(shapes.v_dim.div_ceil(4).div_ceil(lanes(shapes.v_dim)));
    (u64::from(shapes.parts) + 1) * (2 + chunks) + chunks + 1
}

/// Compiles the kernel and lays out its dispatches.
pub(super) fn build(context: &Context, config: &MergeConfig, problem: &Problem) -> Result<Plan> {
    let shapes = &problem.shapes;
    let mut plan = PlanBuilder::new(context);
    if shapes.is_empty() {
        return plan.finish(0, 0, "nothing to do".into());
    }
    if let Some(cap) = context.capabilities().loop_cap {
        let needed = loop_iterations(shapes);
        if needed > cap.into() {
            let reason = format!("{} parts: {needed} loop iterations, this driver ends them after {cap}", shapes.parts);
            return Err(Error::Unsupported { reasons: vec![reason] });
        }
    }
    let mut operands = vec![slot::O_PARTS, slot::LSE_PARTS, slot::O];
    operands.extend(shapes.lse.then_some(slot::LSE));
    operands.extend(shapes.entropy.then_some(slot::ENTROPY_PARTS));
    operands.extend(shapes.entropy.then_some(slot::ENTROPY));
    // Of no parts nothing is read, but no binding may be empty.
    let none = (shapes.parts == 0).then(|| plan.workspace("no parts", 16)).transpose()?;
    let operand = |slot: usize| match none {
        Some(none) if [slot::O_PARTS, slot::LSE_PARTS, slot::ENTROPY_PARTS].contains(&slot) => none,
        _ => Slot::Operand(slot),
    };
    let bindings: Vec<_> = operands.iter().map(|&slot| (slot as u32, operand(slot))).collect();
    // The shapes were checked to have fewer than 2^30 rows.
    let rows = shapes.batch * shapes.heads * shapes.len;
    let rows_per_workgroup = WORKGROUP / lanes(shapes.v_dim);
    let parts = shapes.parts.saturating_add(config.accumulate.into());
    let flops = product([2, parts, rows_per_workgroup, shapes.v_dim]);
    let workgroups = rows.div_ceil(rows_per_workgroup).into();
    plan.dispatch(&kernel(config, problem), &bindings, workgroups, flops, |first, end| {
        kernel_params(problem, rows, [first, end])
    })?;
    let flops = product([2, parts, rows, shapes.v_dim]);
    plan.finish(flops, least_bytes(config, problem), format!("{} invocations share a row", lanes(shapes.v_dim)))
}

/// Every operand once, in bytes, and what the merge accumulates into twice; a repeated axis counts once.
fn least_bytes(config: &MergeConfig, problem: &Problem) -> u64 {
    let Problem { o_parts, lse_parts, entropy_parts, o, lse, entropy, .. } = problem;
    let rows = [lse, entropy].map(|layout| layout.as_ref().map_or(0, Layout::bytes));
    let outputs = o.bytes() + rows.iter().sum::<u64>();
    let parts = o_parts.bytes() + lse_parts.bytes() + entropy_parts.as_ref().map_or(0, Layout::bytes);
    parts + outputs * if config.accumulate { 2 } else { 1 }
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
