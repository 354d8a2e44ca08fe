//! What a tuning may take in place of the table's choice.

use std::fmt;

use super::MatMulConfig;
use super::plan::{ALTERNATIVES, Kernel, Problem, RANGES, Tile, adapter_of, rows_for};
use crate::context::Capabilities;
use crate::tuning::Class;

/// A tile, and the k of a range: as the plan would cut k for this tile, unless given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    pub tile: Tile,
    pub range: Option<u32>,
}

impl fmt::Display for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let depth = self.tile.depth;
        match self.tile.kernel {
            Kernel::Tiles { groups: [down, across], blocks: [rows, columns] } => {
                write!(f, "tiles groups={down}x{across} blocks={rows}x{columns} depth={depth}")?;
            }
            Kernel::Rows { workgroup, columns, span, subgroup } => {
                let of = if subgroup { "subgroup" } else { "workgroup" };
                write!(f, "rows {of}={workgroup} columns={columns} span={span} depth={depth}")?;
            }
            Kernel::Matrices { subgroups: [down, across], block: [rows, columns], .. } => {
                write!(f, "matrices subgroups={down}x{across} block={rows}x{columns} depth={depth}")?;
            }
        }
        match self.range {
            None => Ok(()),
            Some(u32::MAX) => f.write_str(" whole"),
            Some(k) => write!(f, " range={k}"),
        }
    }
}

/// Everything that is right on this device and by this config, whatever the sizes.
pub(super) fn offers(config: &MatMulConfig, capabilities: &Capabilities) -> Vec<Offer> {
    // A device that refuses the config is offered nothing.
    let Ok((adapter, tier)) = adapter_of(config, capabilities) else { return Vec::new() };
    let mut tiles = rows_for(adapter, tier, capabilities);
    tiles.extend(ALTERNATIVES.iter().filter(|tile| tile.runs_on(adapter, tier.is_some(), capabilities)));
    let ranges = [None, Some(u32::MAX)].into_iter().chain(RANGES.iter().copied().map(Some));
    ranges.flat_map(|range| tiles.iter().map(move |&tile| Offer { tile, range })).collect()
}

/// What calls of one class have in common.
pub(super) fn class(config: &MatMulConfig, problem: &Problem) -> String {
    let shapes = &problem.shapes;
    let class = Class::of("matmul")
        .up_to("matrices", u64::from(shapes.batch) * u64::from(shapes.heads))
        .up_to("m", shapes.m.into())
        .up_to("n", shapes.n.into())
        .up_to("k", shapes.k.into())
        .with("a_transposed", problem.get("a").is_some_and(|layout| layout.transposed))
        .with("b_transposed", problem.get("b").is_some_and(|layout| layout.transposed))
        .with("bias", shapes.bias)
        .with("dc", shapes.dc)
        .with("activation", config.activation != super::Activation::None)
        .with("in_f16", config.matrices == crate::Matrices::F16);
    problem.class(class, &["a", "b", "c"])
}
