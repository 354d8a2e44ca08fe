//! What a tuning may take in place of the table's choice.

use std::fmt;

use super::plan::{ALTERNATIVES, Kernel, Problem, TILES, matrix_kernels, rows_per_kv_head, slabs};
use super::{AttentionConfig, AttentionShapes};
use crate::Matrices;
use crate::adapter::Adapter;
use crate::context::Capabilities;
use crate::row_kernel::KeyRange;
use crate::tuning::Class;

/// A kernel, and the keys of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    pub kernel: Kernel,
    pub range: KeyRange,
}

impl fmt::Display for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.kernel, self.range)
    }
}

/// Lengths of ranges of keys.
const RANGES: [u32; 5] = [KeyRange::WHOLE, 4096, 1024, 512, 256];

/// Everything that is right for the problem on this device, whatever its number of rows; what is made for few, where two tiles hold
/// them.
pub(super) fn offers(config: &AttentionConfig, problem: &Problem, capabilities: &Capabilities) -> Vec<Offer> {
    let shapes = &problem.shapes;
    let ranges = || std::iter::once(None).chain(RANGES.map(Some)).map(KeyRange);
    let kernels = match matrix_kernels(config, shapes, capabilities) {
        Ok(found) if found.is_empty() => kernels(shapes, capabilities),
        // A device that refuses the config is offered nothing.
        found => found.unwrap_or_default(),
    };
    kernels.into_iter().flat_map(|kernel| ranges().map(move |range| Offer { kernel, range })).collect()
}

/// The kernels of the adapter's rows in the table, and their alternatives.
fn kernels(shapes: &AttentionShapes, capabilities: &Capabilities) -> Vec<Kernel> {
    let adapter = Adapter::of(capabilities);
    let rows = TILES.iter().chain(ALTERNATIVES);
    let rows = rows.filter(|tile| tile.is_for(adapter) && tile.is_wide_enough(shapes.head_dim, shapes.v_dim));
    let runs = |kernel: &Kernel| match kernel {
        Kernel::Own(few) => rows_per_kv_head(shapes) <= 2 * few.rows,
        _ => kernel.runs_with(capabilities.subgroup_size),
    };
    let granted = capabilities.limits.max_compute_workgroup_storage_size;
    let mut found = Vec::new();
    for kernel in rows.map(|tile| tile.kernel).filter(runs) {
        for slab in slabs(kernel, granted, shapes.v_dim) {
            if !found.contains(&slab) {
                found.push(slab);
            }
        }
    }
    found
}

/// What calls of one class have in common.
pub(super) fn class(config: &AttentionConfig, problem: &Problem) -> String {
    let shapes = &problem.shapes;
    let class = Class::of("attention")
        .exactly("head_dim", shapes.head_dim)
        .exactly("v_dim", shapes.v_dim)
        .lengths_and_heads([shapes.q_len, shapes.kv_len], [shapes.batch, shapes.q_heads, shapes.kv_heads])
        .with("causal", config.visibility().is_causal())
        .with("window", config.visibility().is_windowed())
        .with("log_n", config.scale.terms(shapes.head_dim).log_n)
        .with("softcap", config.softcap.is_some());
    let class =
        problem.given().filter(|(_, row, _)| row.optional).fold(class, |class, (_, row, _)| class.with(row.name, true));
    problem.class(class.with("in_f16", config.matrices == Matrices::F16), &["q", "k", "v", "o"])
}
