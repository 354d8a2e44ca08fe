//! The sizes of a merge, checked once for the GPU and the CPU twin alike.

use super::MergeConfig;
use crate::tensor::{expect, product};
use crate::{Error, Result};

/// The sizes of a merge, and which optional tensors there are. Rows of o, which are batch · heads · len, are at most 2³⁰.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MergeShapes {
    /// Partial results, at most 2³⁰; of 0, rows are those that see no key, or what the outputs hold.
    pub parts: u32,
    /// Batch; 0 is nothing to do.
    pub batch: u32,
    /// Query heads; 0 is nothing to do.
    pub heads: u32,
    /// Tokens; 0 is nothing to do.
    pub len: u32,
    /// Numbers in a row of o; 1 to 65536.
    pub v_dim: u32,
    /// Whether the merged `lse` is wanted.
    pub lse: bool,
    /// Whether the parts have an entropy, and the merged one is wanted.
    pub entropy: bool,
}

const MAX_V_DIM: u32 = 1 << 16;
/// More rows than this no buffer holds, and indices of workgroups stay within 32 bits.
const MOST_ROWS: u64 = 1 << 30;

impl MergeShapes {
    /// Parts of attention over `[batch, heads, len]` queries, to o and lse.
    #[must_use]
    pub fn new(parts: u32, batch: u32, heads: u32, len: u32, v_dim: u32) -> Self {
        Self { parts, batch, heads, len, v_dim, lse: true, entropy: false }
    }

    /// Whether there is nothing to compute.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        [self.batch, self.heads, self.len].contains(&0)
    }

    pub(crate) fn check(&self, config: &MergeConfig) -> Result<()> {
        let rows = product([self.batch, self.heads, self.len]);
        for (what, needed) in [("o: rows", rows), ("o_parts: parts", self.parts.into())] {
            if needed > MOST_ROWS {
                return Err(Error::LimitExceeded { what: what.into(), needed, limit: MOST_ROWS });
            }
        }
        if !(1..=MAX_V_DIM).contains(&self.v_dim) {
            let expected = format!("1 to {MAX_V_DIM}");
            return Err(Error::Shape { tensor: "o_parts", axis: "v_dim", expected, got: self.v_dim.into() });
        }
        if config.accumulate && !self.lse {
            return Err(operand("lse", "is missing, but accumulate weighs what o holds by it"));
        }
        Ok(())
    }
}

fn operand(tensor: &'static str, problem: &str) -> Error {
    Error::Operand { tensor, problem: problem.into() }
}

/// The shapes of every tensor of a call.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TensorShapes {
    pub o_parts: [u32; 5],
    pub lse_parts: [u32; 4],
    pub entropy_parts: Option<[u32; 4]>,
    pub o: Option<[u32; 4]>,
    pub lse: Option<[u32; 3]>,
    pub entropy: Option<[u32; 3]>,
}

impl TensorShapes {
    pub fn check(&self, config: &MergeConfig) -> Result<MergeShapes> {
        let [parts, batch, heads, len, v_dim] = self.o_parts;
        let (lse, entropy) = (self.lse.is_some(), self.entropy.is_some());
        let shapes = MergeShapes { lse, entropy, ..MergeShapes::new(parts, batch, heads, len, v_dim) };
        shapes.check(config)?;
        match (self.entropy_parts, self.entropy) {
            (None, Some(_)) => return Err(operand("entropy_parts", "is missing, but entropy is given")),
            (Some(_), None) => return Err(operand("entropy_parts", "is given, but entropy is not")),
            _ => {}
        }
        let why = "as o_parts has it";
        const AXES: [&str; 5] = ["parts", "batch", "heads", "len", "v_dim"];
        for (tensor, shape) in [("lse_parts", Some(self.lse_parts)), ("entropy_parts", self.entropy_parts)] {
            for (axis, got) in shape.iter().flatten().enumerate() {
                expect(tensor, AXES[axis], *got, self.o_parts[axis], why)?;
            }
        }
        for (axis, got) in self.o.iter().flatten().enumerate() {
            expect("o", AXES[axis + 1], *got, self.o_parts[axis + 1], why)?;
        }
        for (tensor, shape) in [("lse", self.lse), ("entropy", self.entropy)] {
            for (axis, got) in shape.iter().flatten().enumerate() {
                expect(tensor, AXES[axis + 1], *got, self.o_parts[axis + 1], why)?;
            }
        }
        Ok(shapes)
    }
}
