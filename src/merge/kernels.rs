//! The kernel of the merge: the source of each specialization.

use super::plan::Problem;
use super::{Merge, MergeConfig, MergeShapes};
use crate::wgsl::{self, Constant, Specialization, pick, source};

pub(super) const WORKGROUP: u32 = 64;

/// Invocations that share a row: one for each four dims, as far as a workgroup has them.
pub(super) fn lanes(v_dim: u32) -> u32 {
    v_dim.div_ceil(4).next_power_of_two().min(WORKGROUP)
}

/// The kernel for a problem.
pub(super) fn kernel(config: &MergeConfig, problem: &Problem) -> Specialization {
    let shapes = &problem.shapes;
    let vec4 = problem.is_vec4(&["o_parts", "o"]);
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
            source!("shared/row_place"),
            source!("shared/workgroup_index"),
        ],
        storage: Vec::new(),
    }
    .of(problem, &[])
}

/// Every specialization that a plan can pick; of the value dims, some around each step.
#[doc(hidden)]
#[must_use]
pub fn specializations() -> Vec<Specialization> {
    let mut found = Vec::new();
    for v_dim in [1, 3, 4, 5, 8, 16, 33, 64, 128, 255, 256, 257, 1536] {
        for flags in 0..8u32 {
            let on = |bit: u32| flags >> bit & 1 == 1;
            let shapes = MergeShapes { lse: on(0), entropy: on(1), ..MergeShapes::new(2, 1, 1, 2, v_dim) };
            let config = MergeConfig { accumulate: on(2) };
            if shapes.lse || !config.accumulate {
                let mut problem = Problem::contiguous::<Merge>(&config, shapes);
                found.push(kernel(&config, &problem));
                problem.change("o", |layout| layout.start = 1);
                found.push(kernel(&config, &problem));
            }
        }
    }
    wgsl::distinct(found)
}
