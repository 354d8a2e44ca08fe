//! The sizes of a softmax attention problem, checked once for the GPU and the CPU twin alike.

use super::config::{AttentionConfig, Scale, UNBOUNDED};
use crate::tensor::{expect, expect_nonzero, expect_rows};
use crate::{Error, Result};

/// The sizes of a softmax attention problem and which optional tensors it has. Rows of q and rows of k, over all sequences and
/// heads, are at most 2³² − 1 each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AttentionShapes {
    /// Sequences; 0 is nothing to do.
    pub batch: u32,
    /// Heads of q, at least 1.
    pub q_heads: u32,
    /// Heads of k and v; divides `q_heads`.
    pub kv_heads: u32,
    /// Queries per sequence, at most 2³⁰ − 1; 0 is nothing to do.
    pub q_len: u32,
    /// Keys per sequence, at most 2³⁰ − 1; of 0, an empty cache, no row sees one.
    pub kv_len: u32,
    /// Width of q and k, 1 to 256.
    pub head_dim: u32,
    /// Width of v and o, 1 to 256.
    pub v_dim: u32,
    /// Whether `kv_lens` is given.
    pub kv_lens: bool,
    /// Whether `bias` is given.
    pub bias: bool,
    /// Whether `mask` is given.
    pub mask: bool,
    /// Whether `row_scale` is given.
    pub row_scale: bool,
    /// Whether `lse` is asked for.
    pub lse: bool,
    /// Whether `entropy` is asked for.
    pub entropy: bool,
}

/// The widest head the kernels take.
const MAX_HEAD_DIM: u32 = 256;

impl AttentionShapes {
    /// Self-attention of `heads` heads over `len` tokens, nothing optional.
    #[must_use]
    pub fn new(batch: u32, heads: u32, len: u32, head_dim: u32) -> Self {
        Self {
            batch,
            q_heads: heads,
            kv_heads: heads,
            q_len: len,
            kv_len: len,
            head_dim,
            v_dim: head_dim,
            kv_lens: false,
            bias: false,
            mask: false,
            row_scale: false,
            lse: false,
            entropy: false,
        }
    }

    /// Whether there is nothing to compute.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.batch == 0 || self.q_len == 0
    }

    pub(crate) fn check(&self, config: &AttentionConfig) -> Result<()> {
        expect_nonzero("q", "q_heads", self.q_heads)?;
        expect_nonzero("k", "kv_heads", self.kv_heads)?;
        expect_rows("q", [self.batch, self.q_heads, self.q_len])?;
        expect_rows("k", [self.batch, self.kv_heads, self.kv_len])?;
        if !self.q_heads.is_multiple_of(self.kv_heads) {
            let expected = format!("a multiple of the {} kv_heads", self.kv_heads);
            return Err(Error::Shape { tensor: "q", axis: "q_heads", expected, got: self.q_heads.into() });
        }
        for (tensor, axis, dim) in [("q", "head_dim", self.head_dim), ("v", "v_dim", self.v_dim)] {
            if !(1..=MAX_HEAD_DIM).contains(&dim) {
                let expected = format!("1 to {MAX_HEAD_DIM}");
                return Err(Error::Shape { tensor, axis, expected, got: dim.into() });
            }
        }
        for (what, len) in [("q: q_len", self.q_len), ("k: kv_len", self.kv_len)] {
            if len >= UNBOUNDED as u32 {
                return Err(Error::LimitExceeded {
                    what: what.into(),
                    needed: len.into(),
                    limit: UNBOUNDED as u64 - 1,
                });
            }
        }
        if self.row_scale != (config.scale == Scale::PerRow) {
            let problem =
                if self.row_scale { "is given, but the scale is not per_row" } else { "the per_row scale needs it" };
            return Err(Error::Operand { tensor: "row_scale", problem: problem.into() });
        }
        Ok(())
    }

    /// Pairs of query and visible key, over the whole batch; per-batch lengths and masks not counted.
    pub(crate) fn visible_pairs(&self, config: &AttentionConfig) -> u64 {
        config
            .visibility()
            .pairs(self.q_len, self.kv_len)
            .saturating_mul(u64::from(self.batch) * u64::from(self.q_heads))
    }
}

/// The shapes of every tensor of a call.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TensorShapes {
    pub q: [u32; 4],
    pub k: [u32; 4],
    pub v: [u32; 4],
    pub kv_lens: Option<[u32; 1]>,
    pub bias: Option<[u32; 4]>,
    pub mask: Option<[u32; 4]>,
    pub row_scale: Option<[u32; 3]>,
    pub o: Option<[u32; 4]>,
    pub lse: Option<[u32; 3]>,
    pub entropy: Option<[u32; 3]>,
}

impl TensorShapes {
    pub fn check(&self, config: &AttentionConfig) -> Result<AttentionShapes> {
        config.check()?;
        let [batch, q_heads, q_len, head_dim] = self.q;
        let [k_batch, kv_heads, kv_len, k_dim] = self.k;
        let [v_batch, v_heads, v_len, v_dim] = self.v;
        let shapes = AttentionShapes {
            batch,
            q_heads,
            kv_heads,
            q_len,
            kv_len,
            head_dim,
            v_dim,
            kv_lens: self.kv_lens.is_some(),
            bias: self.bias.is_some(),
            mask: self.mask.is_some(),
            row_scale: self.row_scale.is_some(),
            lse: self.lse.is_some(),
            entropy: self.entropy.is_some(),
        };
        expect("k", "batch", k_batch, batch, "the batch of q")?;
        expect("v", "batch", v_batch, batch, "the batch of q")?;
        expect("k", "head_dim", k_dim, head_dim, "the head_dim of q")?;
        expect("v", "kv_heads", v_heads, kv_heads, "the kv_heads of k")?;
        expect("v", "kv_len", v_len, kv_len, "the kv_len of k")?;
        shapes.check(config)?;

        if let Some([lens]) = self.kv_lens {
            expect("kv_lens", "batch", lens, batch, "the batch of q")?;
        }
        let rows = [batch, q_heads, q_len];
        for (tensor, shape) in [("row_scale", self.row_scale), ("lse", self.lse), ("entropy", self.entropy)] {
            expect_axes(tensor, ["batch", "q_heads", "q_len"], shape, rows)?;
        }
        let scores = [batch, q_heads, q_len, kv_len];
        for (tensor, shape) in [("bias", self.bias), ("mask", self.mask)] {
            expect_axes(tensor, ["batch", "q_heads", "q_len", "kv_len"], shape, scores)?;
        }
        expect_axes("o", ["batch", "q_heads", "q_len", "v_dim"], self.o, [batch, q_heads, q_len, v_dim])?;
        Ok(shapes)
    }
}

fn expect_axes<const RANK: usize>(
    tensor: &'static str,
    axes: [&'static str; RANK],
    got: Option<[u32; RANK]>,
    expected: [u32; RANK],
) -> Result<()> {
    let Some(got) = got else { return Ok(()) };
    for axis in 0..RANK {
        expect(tensor, axes[axis], got[axis], expected[axis], "as q, k and v have it")?;
    }
    Ok(())
}
