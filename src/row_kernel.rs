//! The kernels by which attention and gated attention walk the keys of a tile of rows: what they have in common.

use std::convert::Infallible;
use std::fmt;

use crate::context::Capabilities;
use crate::matrices::RowTile;
use crate::tile::Grid;

/// A kernel that only one of the ops has.
pub(crate) trait OwnKernel: Copy + fmt::Display {
    /// Rows that a workgroup owns.
    fn rows(self) -> u32;
}

impl OwnKernel for Infallible {
    fn rows(self) -> u32 {
        match self {}
    }
}

/// A kernel that walks the keys, and what it is made for; `Own` is the op's own, if it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kernel<Own = Infallible> {
    /// `tiled.wgsl`. What its rows have in common goes by subgroup operations where subgroups are large enough.
    Tiled(Grid),
    /// Attention's `rows.wgsl`, gated attention's `quadratic.wgsl`: four rows to an invocation, `keys` in a step.
    Rows {
        workgroup: u32,
        keys: u32,
    },
    /// The same where subgroups have the workgroup's size: each invocation reads one key's part and tells it to all, and every
    /// loop is unrolled, so that q and o are no arrays.
    Subgroup {
        workgroup: u32,
        keys: u32,
    },
    /// `cooperative.wgsl`: subgroups of 16 rows, and the device's matrices.
    Matrices(RowTile),
    Own(Own),
}

impl<Own: OwnKernel> Kernel<Own> {
    /// As a GPU with or without registers for large tiles takes it.
    pub fn with_registers(self, few: bool) -> Self {
        match self {
            Self::Tiled(grid) => Self::Tiled(grid.with_registers(few)),
            _ => self,
        }
    }

    /// Rows that a workgroup owns.
    pub fn rows(self) -> u32 {
        match self {
            Self::Tiled(grid) => grid.rows(),
            Self::Rows { workgroup, .. } | Self::Subgroup { workgroup, .. } => 4 * workgroup,
            Self::Matrices(tile) => tile.rows(),
            Self::Own(own) => own.rows(),
        }
    }

    /// Whether the device's subgroups, if they have one size, are as the kernel needs them.
    pub fn runs_with(self, subgroup: Option<u32>) -> bool {
        !matches!(self, Self::Subgroup { workgroup, .. } if subgroup != Some(workgroup))
    }
}

impl<Own: OwnKernel> fmt::Display for Kernel<Own> {
    /// As tunings name it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tiled(grid) => grid.fmt(f),
            Self::Rows { workgroup, keys } => write!(f, "rows workgroup={workgroup} keys={keys}"),
            Self::Subgroup { workgroup, keys } => write!(f, "rows subgroup={workgroup} keys={keys}"),
            Self::Matrices(tile) => write!(f, "matrices subgroups={} keys={}", tile.subgroups, tile.keys),
            Self::Own(own) => own.fmt(f),
        }
    }
}

/// The keys of a range: as the plan would split them for a kernel, unless given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyRange(pub Option<u32>);

impl KeyRange {
    pub const WHOLE: u32 = u32::MAX;
}

impl fmt::Display for KeyRange {
    /// As tunings name it, after the kernel.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => Ok(()),
            Some(Self::WHOLE) => f.write_str(" unsplit"),
            Some(keys) => write!(f, " range={keys}"),
        }
    }
}

/// The fewest keys of a range, where the ranges' results for so many rows are to find room in the workspace: of all keys, where
/// not even those of two do.
pub(crate) fn least_range(kv_len: u32, rows: u64, v_dim: u32, capabilities: &Capabilities) -> u32 {
    // A row's partial o, and a vec4 of what belongs to it. Maps of z may lie there too, and regions are aligned.
    let of_a_range = rows.saturating_mul(16 * (1 + u64::from(v_dim.div_ceil(4))));
    let ranges = (capabilities.workspace_room() / 2 / of_a_range.max(1)).max(1);
    u64::from(kv_len).div_ceil(ranges) as u32
}
