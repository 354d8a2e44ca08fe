//! The tiles of `shared/tile.wgsl`: how the invocations of a workgroup share a product.

use std::fmt;

use crate::wgsl::Constant;

/// Of attention, where an invocation owns keys as well as rows and value dims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grid {
    pub height: u32,
    /// Groups of four rows of an invocation.
    pub groups: u32,
    /// Keys of an invocation, in a step: 4 or 8.
    pub own_keys: u32,
    /// The most chunks of four value dims of an invocation.
    pub columns: u32,
    /// Invocations along the width, before each owns a second chunk.
    pub narrow: u32,
    /// Dims or keys in workgroup memory at a time.
    pub slab: u32,
}

/// The rows and the keys of a step of which an invocation computes the scores, and the chunks of four value dims that it owns of
/// as many rows.
pub(crate) const fn grid([height, groups, own_keys, columns]: [u32; 4], slab: u32) -> Grid {
    Grid { height, groups, own_keys, columns, narrow: 64 / own_keys, slab }
}

impl Grid {
    /// For a GPU of few registers: 8 by 4 of each product in place of 8 by 8, of wide values 4 by 8.
    pub fn with_registers(self, few: bool) -> Self {
        match self.columns {
            2 if few && self.own_keys == 8 => grid([self.height, self.groups, 4, 1], self.slab),
            4 if few && self.height > 4 => grid([8, 1, 4, 2], self.slab),
            _ => self,
        }
    }

    /// Rows that a workgroup owns.
    pub fn rows(self) -> u32 {
        4 * self.height * self.groups
    }

    /// Invocations along `chunks` chunks of value dims: as few as share them evenly, in fours.
    pub fn width(self, chunks: u32) -> u32 {
        chunks.div_ceil(self.columns(chunks)).next_multiple_of(4).max(8)
    }

    /// Chunks that each of them owns: one, before they are more than 16 invocations, or 8 of many keys, or as the grid has it.
    pub fn columns(self, chunks: u32) -> u32 {
        chunks.div_ceil(self.narrow).clamp(1, self.columns)
    }

    /// Keys of a step.
    pub fn keys(self, chunks: u32) -> u32 {
        self.own_keys * self.width(chunks)
    }

    /// Whether the invocations that share a row lie in one subgroup, whatever its size.
    pub fn can_shuffle(self, chunks: u32, least_subgroup: u32) -> bool {
        let width = self.width(chunks);
        width.is_power_of_two() && least_subgroup.is_multiple_of(width)
    }

    pub fn constants(self, chunks: u32) -> Vec<(&'static str, Constant)> {
        vec![
            ("WIDTH", Constant::U32(self.width(chunks))),
            ("HEIGHT", Constant::U32(self.height)),
            ("GROUPS", Constant::U32(self.groups)),
            ("COLUMNS", Constant::U32(self.columns(chunks))),
            ("OWN_KEYS", Constant::U32(self.own_keys)),
            ("SLAB", Constant::U32(self.slab)),
        ]
    }

    /// Whether a slab divides a step, an invocation brings at most two parts of one of queries, and so many bytes of workgroup
    /// memory hold what the kernels say.
    pub fn fits(self, chunks: u32, granted: u32) -> bool {
        let (width, groups) = (self.width(chunks), self.height * self.groups);
        let right = self.columns(chunks).max(self.own_keys / 4) * width;
        // Beside both factors, up to four numbers for each row.
        let bytes = 16 * (self.slab.max(width) * groups + self.slab * right + 4 * groups + 1);
        self.keys(chunks).is_multiple_of(self.slab) && self.slab / 4 * self.groups <= 2 * width && bytes <= granted
    }

    /// The most loop iterations of a step, counting one more for the exit of each run of a loop.
    pub fn iterations(self, head_dim: u32, chunks: u32) -> u32 {
        let product = self.slab / 4 + 2;
        // Guarded, a slab's keys are multiplied one by one.
        let values = self.keys(chunks).div_ceil(self.slab) * (self.slab + 2);
        let along_width = self.width(chunks) / 4 + 1;
        head_dim.div_ceil(self.slab) * product + values + along_width + 4
    }
}

impl fmt::Display for Grid {
    /// As tunings name it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { height, groups, own_keys, columns, slab, .. } = self;
        write!(f, "tiled height={height} groups={groups} keys={own_keys} columns={columns} slab={slab}")
    }
}
