//! The kernel of attention for few rows (`few.wgsl`): how the invocations of a workgroup share its keys.

use std::fmt;

use crate::row_kernel::OwnKernel;
use crate::wgsl::{Constant, Source, pick, source};

/// Made for so many rows of a kv head: 1, 2, 4 or 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Few {
    pub rows: u32,
}

impl Few {
    const WORKGROUP: u32 = 64;

    /// Invocations that share a key, for so many chunks of four dims, the more of head_dim and v_dim. Eight or more read whole
    /// cache lines; each keeps up to two chunks of o of a row.
    pub fn width(self, chunks: u32) -> u32 {
        chunks.div_ceil(2).next_power_of_two().clamp(8, 32)
    }

    /// Its own files: where q is, of many rows in workgroup memory to save registers; and how what invocations have along the width is
    /// added up.
    pub fn fragments(self, shuffle: bool) -> [&'static Source; 2] {
        [
            pick(self.rows > 4, source!("attention/few_q_memory"), source!("attention/few_q_registers")),
            pick(shuffle, source!("shared/along_width_subgroup"), source!("attention/few_along_width_memory")),
        ]
    }

    /// Keys of a step: four of each group that shares them.
    pub fn keys(self, chunks: u32) -> u32 {
        4 * (Self::WORKGROUP / self.width(chunks))
    }

    pub fn constants(self, chunks: u32) -> [(&'static str, Constant); 2] {
        [("WIDTH", Constant::U32(self.width(chunks))), ("ROWS", Constant::U32(self.rows))]
    }

    /// Whether the invocations that share a key lie in one subgroup, whatever its size.
    pub fn can_shuffle(self, chunks: u32, least_subgroup: u32) -> bool {
        least_subgroup.is_multiple_of(self.width(chunks))
    }

    /// The most loop iterations outside the steps, and of a step.
    pub fn iterations(self, chunks: u32) -> [u32; 2] {
        let (width, groups) = (self.width(chunks), Self::WORKGROUP / self.width(chunks));
        // Each row is brought and written, a column at a time; two are added up along the width at a time, where that is a loop.
        [
            64 + self.rows + self.rows * chunks.div_ceil(width) * 2 * (groups + 1),
            2 + self.rows.div_ceil(2) * (width + 1),
        ]
    }
}

impl OwnKernel for Few {
    fn rows(self) -> u32 {
        self.rows
    }
}

impl fmt::Display for Few {
    /// As tunings name it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "few rows={}", self.rows)
    }
}
