//! The sizes of a gated attention problem, checked once for the GPU and the CPU twin alike.

use super::config::{GatedAttentionConfig, GauMode};
use crate::attention::{UNBOUNDED, config_error};
use crate::tensor::{expect, expect_nonzero, expect_rows};
use crate::{Causal, Error, Result};

/// The sizes of a gated attention problem and which optional tensors it has. Rows of q (or z) and of k, over all sequences and
/// heads, are at most 2³² − 1 each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GatedAttentionShapes {
    /// Sequences; 0 is nothing to do.
    pub batch: u32,
    /// Heads of q, or of z, at least 1.
    pub q_heads: u32,
    /// Heads of k and v; divides `q_heads`, and equals it with z.
    pub kv_heads: u32,
    /// Queries per sequence, at most 2³⁰; 0 is nothing to do.
    pub q_len: u32,
    /// Keys per sequence, at most 2³⁰; of 0, no row sees one. Equals `q_len` with z and in mixed chunks.
    pub kv_len: u32,
    /// Width s of q and k, or of z, 1 to 256.
    pub key_dim: u32,
    /// Width e of v, u and o, 1 to 2³⁰.
    pub v_dim: u32,
    /// Whether q and k are affine maps of one z, rather than given.
    pub shared_z: bool,
    /// Whether the gate `u` is given.
    pub gate: bool,
    /// Whether `kv_lens` is given.
    pub kv_lens: bool,
}

/// The widest keys the kernels take.
const MAX_KEY_DIM: u32 = 256;

impl GatedAttentionShapes {
    /// Self-attention of `heads` heads over `len` tokens with q and k given, without a gate.
    #[must_use]
    pub fn new(batch: u32, heads: u32, len: u32, key_dim: u32, v_dim: u32) -> Self {
        Self {
            batch,
            q_heads: heads,
            kv_heads: heads,
            q_len: len,
            kv_len: len,
            key_dim,
            v_dim,
            shared_z: false,
            gate: false,
            kv_lens: false,
        }
    }

    /// The gated attention unit: one z for q and k, and a gate.
    #[must_use]
    pub fn gau(batch: u32, heads: u32, len: u32, key_dim: u32, v_dim: u32) -> Self {
        Self { shared_z: true, gate: true, ..Self::new(batch, heads, len, key_dim, v_dim) }
    }

    /// Whether there is nothing to compute.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.batch == 0 || self.q_len == 0
    }

    pub(crate) fn check(&self, config: &GatedAttentionConfig) -> Result<()> {
        let (queries, keys) = if self.shared_z { ("z", "z") } else { ("q", "k") };
        expect_nonzero(queries, if self.shared_z { "heads" } else { "q_heads" }, self.q_heads)?;
        expect_nonzero(keys, "kv_heads", self.kv_heads)?;
        expect_nonzero("v", "v_dim", self.v_dim)?;
        expect_rows(queries, [self.batch, self.q_heads, self.q_len])?;
        expect_rows(keys, [self.batch, self.kv_heads, self.kv_len])?;
        if !self.q_heads.is_multiple_of(self.kv_heads) {
            let expected = format!("a multiple of the {} kv_heads", self.kv_heads);
            return Err(Error::Shape { tensor: "q", axis: "q_heads", expected, got: self.q_heads.into() });
        }
        if !(1..=MAX_KEY_DIM).contains(&self.key_dim) {
            let expected = format!("1 to {MAX_KEY_DIM}");
            return Err(Error::Shape { tensor: queries, axis: "key_dim", expected, got: self.key_dim.into() });
        }
        for (what, len) in [(queries, self.q_len), (keys, self.kv_len), ("v: v_dim", self.v_dim)] {
            let limit = UNBOUNDED as u64;
            if u64::from(len) > limit {
                return Err(Error::LimitExceeded { what: format!("{what}: length"), needed: len.into(), limit });
            }
        }
        if self.shared_z {
            expect("v", "kv_heads", self.kv_heads, self.q_heads, "the heads of z")?;
            expect("v", "kv_len", self.kv_len, self.q_len, "the length of z")?;
        }
        if let GauMode::MixedChunk { .. } = config.mode {
            expect("k", "kv_len", self.kv_len, self.q_len, "the q_len of q: mixed_chunk is self-attention")?;
            if self.kv_lens && config.causal == Causal::BottomRight {
                let expected = "with mixed_chunk and kv_lens, none or top_left (bottom_right would move the chunks)";
                return Err(config_error("causal", expected, "bottom_right"));
            }
        }
        Ok(())
    }

    /// Floating-point operations of the two products (and, in mixed chunks, of the states), two per multiply-add;
    /// per-batch lengths not counted.
    pub(crate) fn flops(&self, config: &GatedAttentionConfig) -> u64 {
        let (s, e, len) = (u64::from(self.key_dim), u64::from(self.v_dim), u64::from(self.q_len));
        let visibility = config.visibility();
        let per_head = match config.chunk() {
            None => visibility.pairs(self.q_len, self.kv_len).saturating_mul(2 * (s + e)),
            Some(chunk) => {
                let last = self.q_len % chunk;
                let pairs = u64::from(self.q_len / chunk) * visibility.pairs(chunk, chunk);
                let inside = pairs.saturating_add(visibility.pairs(last, last)).saturating_mul(2 * (s + e));
                inside.saturating_add(4 * len * s * e)
            }
        };
        per_head.saturating_mul(u64::from(self.batch) * u64::from(self.q_heads))
    }
}

/// The shapes of one affine map of z.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AffineShapes {
    pub gamma: Option<[u32; 2]>,
    pub beta: Option<[u32; 2]>,
}

/// The shapes of every tensor of a call.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TensorShapes {
    pub q: Option<[u32; 4]>,
    pub k: Option<[u32; 4]>,
    pub z: Option<[u32; 4]>,
    pub q_lin: Option<[u32; 4]>,
    pub k_lin: Option<[u32; 4]>,
    /// Of q, k, q_lin and k_lin.
    pub affine: [AffineShapes; 4],
    pub v: [u32; 4],
    pub u: Option<[u32; 4]>,
    pub kv_lens: Option<[u32; 1]>,
    pub o: Option<[u32; 4]>,
}

/// Names of γ and β of q, k, q_lin and k_lin.
pub(super) const AFFINE: [(&str, &str); 4] =
    [("gamma_q", "beta_q"), ("gamma_k", "beta_k"), ("gamma_q_lin", "beta_q_lin"), ("gamma_k_lin", "beta_k_lin")];

impl TensorShapes {
    pub fn check(&self, config: &GatedAttentionConfig) -> Result<GatedAttentionShapes> {
        config.check()?;
        let (q, k) = self.check_presence(config.chunk().is_some())?;
        let [batch, q_heads, q_len, key_dim] = q;
        let [k_batch, kv_heads, kv_len, k_dim] = k;
        let [v_batch, v_heads, v_len, v_dim] = self.v;
        let shapes = GatedAttentionShapes {
            batch,
            q_heads,
            kv_heads,
            q_len,
            kv_len,
            key_dim,
            v_dim,
            shared_z: self.z.is_some(),
            gate: self.u.is_some(),
            kv_lens: self.kv_lens.is_some(),
        };
        let (queries, keys) = if shapes.shared_z { ("z", "z") } else { ("q", "k") };
        expect("k", "batch", k_batch, batch, "the batch of q")?;
        expect("v", "batch", v_batch, batch, &format!("the batch of {queries}"))?;
        expect("k", "key_dim", k_dim, key_dim, "the key_dim of q")?;
        expect("v", "kv_heads", v_heads, kv_heads, &format!("the heads of {keys}"))?;
        expect("v", "kv_len", v_len, kv_len, &format!("the length of {keys}"))?;
        shapes.check(config)?;

        for (names, shapes) in AFFINE.iter().zip(&self.affine) {
            for (tensor, shape) in [(names.0, shapes.gamma), (names.1, shapes.beta)] {
                expect_axes(tensor, ["heads", "key_dim"], shape, [q_heads, key_dim])?;
            }
        }
        expect_axes("q_lin", ["batch", "q_heads", "q_len", "key_dim"], self.q_lin, q)?;
        expect_axes("k_lin", ["batch", "kv_heads", "kv_len", "key_dim"], self.k_lin, k)?;
        expect_axes("kv_lens", ["batch"], self.kv_lens, [batch])?;
        for (tensor, shape) in [("u", self.u), ("o", self.o)] {
            expect_axes(tensor, ["batch", "q_heads", "q_len", "v_dim"], shape, [batch, q_heads, q_len, v_dim])?;
        }
        Ok(shapes)
    }

    /// Checks that either q and k are given or z with what turns it into them; returns the shapes of q and k.
    fn check_presence(&self, chunks: bool) -> Result<([u32; 4], [u32; 4])> {
        let fail = |tensor, problem: &str| Err(Error::Operand { tensor, problem: problem.into() });
        // Whether the maps of q and k, then of q_lin and k_lin, have a use.
        let linear = [false, false, true, true];
        for ((&(gamma, beta), shapes), linear) in AFFINE.iter().zip(&self.affine).zip(linear) {
            for (tensor, given) in [(gamma, shapes.gamma.is_some()), (beta, shapes.beta.is_some())] {
                if given && self.z.is_none() {
                    return fail(tensor, "is given, but z, which it maps, is not");
                }
                if given && linear && !chunks {
                    return fail(tensor, "is given, but only the mode mixed_chunk has a use for it");
                }
            }
            if self.z.is_some() && (chunks || !linear) && shapes.gamma.is_none() {
                return fail(gamma, "z needs it");
            }
        }
        for (tensor, given) in [("q_lin", self.q_lin.is_some()), ("k_lin", self.k_lin.is_some())] {
            match (given, chunks, self.z.is_some()) {
                (true, false, _) => return fail(tensor, "is given, but only the mode mixed_chunk has a use for it"),
                (true, true, true) => return fail(tensor, "is given, but z takes its place"),
                (false, true, false) => return fail(tensor, "the mode mixed_chunk needs it, or z in its place"),
                _ => {}
            }
        }
        match (self.z, self.q, self.k) {
            (None, Some(q), Some(k)) => Ok((q, k)),
            // v says the length and heads of k, so that a mismatch names v.
            (Some(z), None, None) => Ok((z, z)),
            (Some(_), Some(_), _) => fail("q", "is given, but z takes its place"),
            (Some(_), None, Some(_)) => fail("k", "is given, but z takes its place"),
            (None, None, None) => fail("z", "either z or q and k must be given"),
            (None, None, Some(_)) => fail("q", "k is given without it"),
            (None, Some(_), None) => fail("k", "q is given without it"),
        }
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
        expect(tensor, axes[axis], got[axis], expected[axis], "as the other tensors have it")?;
    }
    Ok(())
}
