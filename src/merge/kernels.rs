//! The kernel of the merge: its bindings, its uniform, and the source of each specialization.

use super::plan::Problem;
use super::{MergeConfig, MergeShapes};
use crate::params::{ParamsLayout, params};
use crate::tensor::Layout;
use crate::wgsl::{Constant, Specialization, source};

/// Operand slots, which are also the `@binding` numbers of the kernel.
pub(super) mod slot {
    pub const O_PARTS: usize = 1;
    pub const LSE_PARTS: usize = 2;
    pub const ENTROPY_PARTS: usize = 3;
    pub const O: usize = 4;
    pub const LSE: usize = 5;
    pub const ENTROPY: usize = 6;
    pub const COUNT: usize = 7;
}

params! {
    /// Uniform of `merge/merge.wgsl`; units are there.
    struct Params {
        first_workgroup: u32,
        end_workgroup: u32,
        parts: u32,
        rows: u32,
        heads: u32,
        len: u32,
        o_parts_start: u32,
        o_parts_part: u32,
        o_parts_batch: u32,
        o_parts_head: u32,
        o_parts_row: u32,
        lse_parts_start: u32,
        lse_parts_part: u32,
        lse_parts_batch: u32,
        lse_parts_head: u32,
        lse_parts_row: u32,
        entropy_parts_start: u32,
        entropy_parts_part: u32,
        entropy_parts_batch: u32,
        entropy_parts_head: u32,
        entropy_parts_row: u32,
        o_start: u32,
        o_batch: u32,
        o_head: u32,
        o_row: u32,
        lse_start: u32,
        lse_batch: u32,
        lse_head: u32,
        lse_row: u32,
        entropy_start: u32,
        entropy_batch: u32,
        entropy_head: u32,
        entropy_row: u32,
    }
}

pub(super) const WORKGROUP: u32 = 64;

/// Invocations that share a row: one for each four dims, as far as a workgroup has them.
pub(super) fn lanes(v_dim: u32) -> u32 {
    v_dim.div_ceil(4).next_power_of_two().min(WORKGROUP)
}

/// The kernel for a problem.
pub(super) fn kernel(config: &MergeConfig, problem: &Problem) -> Specialization {
    let shapes = &problem.shapes;
    let vec4 = problem.o_parts.is_vec4() && problem.o.is_vec4();
    let pick = |on: bool, yes, no| if on { yes } else { no };
    Specialization {
        kernel: source!("merge/merge"),
        constants: vec![
            ("WORKGROUP", Constant::U32(WORKGROUP)),
            ("LANES", Constant::U32(lanes(shapes.v_dim))),
            ("V_DIM", Constant::U32(shapes.v_dim)),
            ("ACCUMULATE", Constant::Bool(config.accumulate)),
            ("Elem", Constant::Type(if vec4 { "vec4<f32>" } else { "f32" })),
        ],
        fragments: vec![
            pick(vec4, source!("merge/part_vec4"), source!("merge/part_scalar")),
            pick(vec4, source!("shared/store_vec4"), source!("shared/store_scalar")),
            pick(shapes.lse, source!("merge/lse"), source!("merge/no_lse")),
            pick(shapes.entropy, source!("merge/entropy"), source!("merge/no_entropy")),
            source!("shared/workgroup_index"),
        ],
        storage: Vec::new(),
    }
    .stored([("o_parts", problem.o_parts.storage), ("o", problem.o.storage)])
}

/// The numbers of one dispatch.
pub(super) fn kernel_params(problem: &Problem, rows: u32, [first_workgroup, end_workgroup]: [u32; 2]) -> Params {
    let parts_of_rows = |l: Layout<4>| [l.start, l.strides[0], l.strides[1], l.strides[2], l.strides[3]];
    let rows_of = |l: Layout<3>| [l.start, l.strides[0], l.strides[1], l.strides[2]];
    let Layout { start, strides, .. } = problem.o_parts;
    let lse_parts = parts_of_rows(problem.lse_parts);
    let entropy_parts = problem.entropy_parts.map_or([0; 5], parts_of_rows);
    let (lse, entropy) = (problem.lse.map_or([0; 4], rows_of), problem.entropy.map_or([0; 4], rows_of));
    Params {
        first_workgroup,
        end_workgroup,
        parts: problem.shapes.parts,
        rows,
        heads: problem.shapes.heads,
        len: problem.shapes.len,
        o_parts_start: start,
        o_parts_part: strides[0],
        o_parts_batch: strides[1],
        o_parts_head: strides[2],
        o_parts_row: strides[3],
        lse_parts_start: lse_parts[0],
        lse_parts_part: lse_parts[1],
        lse_parts_batch: lse_parts[2],
        lse_parts_head: lse_parts[3],
        lse_parts_row: lse_parts[4],
        entropy_parts_start: entropy_parts[0],
        entropy_parts_part: entropy_parts[1],
        entropy_parts_batch: entropy_parts[2],
        entropy_parts_head: entropy_parts[3],
        entropy_parts_row: entropy_parts[4],
        o_start: problem.o.start,
        o_batch: problem.o.strides[0],
        o_head: problem.o.strides[1],
        o_row: problem.o.strides[2],
        lse_start: lse[0],
        lse_batch: lse[1],
        lse_head: lse[2],
        lse_row: lse[3],
        entropy_start: entropy[0],
        entropy_batch: entropy[1],
        entropy_head: entropy[2],
        entropy_row: entropy[3],
    }
}

/// Every specialization that a plan can pick, with its uniform's layout; of the value dims, some around each step.
#[doc(hidden)]
#[must_use]
pub fn specializations() -> Vec<(Specialization, ParamsLayout)> {
    let mut found = Vec::new();
    for v_dim in [1, 3, 4, 5, 8, 16, 33, 64, 128, 255, 256, 257, 1536] {
        for flags in 0..8u32 {
            let on = |bit: u32| flags >> bit & 1 == 1;
            let shapes = MergeShapes { lse: on(0), entropy: on(1), ..MergeShapes::new(2, 1, 1, 2, v_dim) };
            let config = MergeConfig { accumulate: on(2) };
            if shapes.check(&config).is_ok() {
                let mut problem = Problem::contiguous(shapes);
                found.push((kernel(&config, &problem), Params::LAYOUT));
                problem.o.start = 1;
                found.push((kernel(&config, &problem), Params::LAYOUT));
            }
        }
    }
    let mut seen = std::collections::HashSet::new();
    found.retain(|(specialization, _)| seen.insert(specialization.clone()));
    found
}
