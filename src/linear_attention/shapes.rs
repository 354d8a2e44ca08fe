//! The sizes of a linear attention problem, checked once for the GPU and the CPU twin alike.

use super::config::{FeatureMap, LinearAttentionConfig, LinearMode};
use crate::tensor::{expect, expect_nonzero, expect_rows};
use crate::{Error, Result};

/// The sizes of a linear attention problem and which optional tensors it has. Rows of q and rows of k, over all sequences and
/// heads, are at most 2³² − 1 each; so are the numbers of o, and those of `state_s` where the state is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LinearAttentionShapes {
    /// Sequences; 0 is nothing to do.
    pub batch: u32,
    /// Heads of q, at least 1.
    pub q_heads: u32,
    /// Heads of k and v, each with a state of its own; divides `q_heads`.
    pub kv_heads: u32,
    /// Queries per sequence, at most 2³⁰; 0 is nothing to do unless the state is asked for.
    pub q_len: u32,
    /// Keys per sequence, at most 2³⁰: in causal mode as many as queries. Of 0, the incoming state is all that is seen.
    pub kv_len: u32,
    /// Width of q and k, 1 to 256.
    pub head_dim: u32,
    /// Width of v and o, 1 to 256.
    pub v_dim: u32,
    /// Rows of `projection`, 1 to 1024; for FAVOR+ and no other map.
    pub projection_rows: Option<u32>,
    /// Whether `kv_lens` is given; in full mode only.
    pub kv_lens: bool,
    /// Whether a state comes in.
    pub state_in: bool,
    /// Whether the state is asked for.
    pub state_out: bool,
}

/// The widest head the kernels take.
const MAX_HEAD_DIM: u32 = 256;
/// The most features of FAVOR+.
const MAX_PROJECTION_ROWS: u32 = 1024;

impl LinearAttentionShapes {
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
            projection_rows: None,
            kv_lens: false,
            state_in: false,
            state_out: false,
        }
    }

    /// How many features a map has here: the rows of a state.
    #[must_use]
    pub fn features(&self, feature_map: FeatureMap) -> u32 {
        feature_map.features(self.head_dim, self.projection_rows)
    }

    /// Whether there is nothing to compute.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.batch == 0 || (self.q_len == 0 && !self.state_out)
    }

    pub(crate) fn check(&self, config: &LinearAttentionConfig) -> Result<()> {
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
        match config.mode {
            LinearMode::Full => {}
            LinearMode::Causal => {
                expect("k", "kv_len", self.kv_len, self.q_len, "the q_len of q, as the mode is causal")?;
                if self.kv_lens {
                    let problem = "is given, but the mode is causal".into();
                    return Err(Error::Operand { tensor: "kv_lens", problem });
                }
            }
        }
        // Positions stay well within 32 bits when rounded up to tiles.
        for (what, len) in [("q: q_len", self.q_len), ("k: kv_len", self.kv_len)] {
            if len > 1 << 30 {
                return Err(Error::LimitExceeded { what: what.into(), needed: len.into(), limit: 1 << 30 });
            }
        }
        let elements = |heads: u32, rows: u32| {
            [heads, rows, self.v_dim].iter().fold(u64::from(self.batch), |n, &extent| n.saturating_mul(extent.into()))
        };
        let state_rows = if self.state_out { self.features(config.feature_map) } else { 0 };
        let outputs = [("o", elements(self.q_heads, self.q_len)), ("state_s", elements(self.kv_heads, state_rows))];
        for (tensor, needed) in outputs {
            let limit = u32::MAX.into();
            if needed > limit {
                let what = format!("{tensor}: elements addressed by a 32-bit index");
                return Err(Error::LimitExceeded { what, needed, limit });
            }
        }
        let favor = matches!(config.feature_map, FeatureMap::Favor { .. });
        match self.projection_rows {
            None if favor => operand("projection", "the favor map needs it"),
            Some(_) if !favor => operand("projection", "is given, but the map is not favor"),
            Some(rows) if !(1..=MAX_PROJECTION_ROWS).contains(&rows) => Err(Error::Shape {
                tensor: "projection",
                axis: "features",
                expected: format!("1 to {MAX_PROJECTION_ROWS}"),
                got: rows.into(),
            }),
            _ => Ok(()),
        }
    }
}

fn operand(tensor: &'static str, problem: &str) -> Result<()> {
    Err(Error::Operand { tensor, problem: problem.into() })
}

/// The shapes of a state's tensors, as far as they are given.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StateShapes {
    pub s: Option<[u32; 4]>,
    pub z: Option<[u32; 3]>,
    pub max: Option<[u32; 3]>,
}

impl StateShapes {
    /// Whether the state is given at all; all of it or none.
    fn check(&self, config: &LinearAttentionConfig, shapes: &LinearAttentionShapes) -> Result<bool> {
        let LinearAttentionShapes { batch, kv_heads, v_dim, .. } = *shapes;
        let features = shapes.features(config.feature_map);
        let running_max = config.feature_map.running_max();
        let given = self.s.is_some() || self.z.is_some() || self.max.is_some();
        for (tensor, present) in [("state_s", self.s.is_some()), ("state_z", self.z.is_some())] {
            if given && !present {
                operand(tensor, "is missing: a state's tensors are given together")?;
            }
        }
        match (self.max.is_some(), running_max.is_some()) {
            (false, true) if given => operand("state_max", "is missing: this feature map is unbounded")?,
            (true, false) => operand("state_max", "is given, but this feature map is bounded")?,
            _ => {}
        }
        let axes = ["batch", "kv_heads", "features"];
        if let Some(s) = self.s {
            for (axis, want) in [batch, kv_heads, features].into_iter().enumerate() {
                expect("state_s", axes[axis], s[axis], want, "as q, k and the feature map have it")?;
            }
            expect("state_s", "v_dim", s[3], v_dim, "the v_dim of v")?;
        }
        let max_features = running_max.map_or(features, |max| max.count(features));
        for (tensor, shape, features) in [("state_z", self.z, features), ("state_max", self.max, max_features)] {
            for (axis, want) in [batch, kv_heads, features].into_iter().enumerate() {
                let Some(shape) = shape else { continue };
                expect(tensor, axes[axis], shape[axis], want, "as q, k and the feature map have it")?;
            }
        }
        Ok(given)
    }
}

/// The shapes of every tensor of a call.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TensorShapes {
    pub q: [u32; 4],
    pub k: [u32; 4],
    pub v: [u32; 4],
    pub projection: Option<[u32; 2]>,
    pub kv_lens: Option<[u32; 1]>,
    pub state_in: StateShapes,
    pub o: Option<[u32; 4]>,
    pub state_out: StateShapes,
}

impl TensorShapes {
    pub fn check(&self, config: &LinearAttentionConfig) -> Result<LinearAttentionShapes> {
        config.check()?;
        let [batch, q_heads, q_len, head_dim] = self.q;
        let [k_batch, kv_heads, kv_len, k_dim] = self.k;
        let [v_batch, v_heads, v_len, v_dim] = self.v;
        let mut shapes = LinearAttentionShapes {
            batch,
            q_heads,
            kv_heads,
            q_len,
            kv_len,
            head_dim,
            v_dim,
            projection_rows: self.projection.map(|[rows, _]| rows),
            kv_lens: self.kv_lens.is_some(),
            state_in: false,
            state_out: false,
        };
        expect("k", "batch", k_batch, batch, "the batch of q")?;
        expect("v", "batch", v_batch, batch, "the batch of q")?;
        expect("k", "head_dim", k_dim, head_dim, "the head_dim of q")?;
        expect("v", "kv_heads", v_heads, kv_heads, "the kv_heads of k")?;
        expect("v", "kv_len", v_len, kv_len, "the kv_len of k")?;
        shapes.check(config)?;

        if let Some([_, dim]) = self.projection {
            expect("projection", "head_dim", dim, head_dim, "the head_dim of q")?;
        }
        if let Some([lens]) = self.kv_lens {
            expect("kv_lens", "batch", lens, batch, "the batch of q")?;
        }
        if let Some(o) = self.o {
            let axes = ["batch", "q_heads", "q_len", "v_dim"];
            for (axis, want) in [batch, q_heads, q_len, v_dim].into_iter().enumerate() {
                expect("o", axes[axis], o[axis], want, "as q and v have it")?;
            }
        }
        shapes.state_in = self.state_in.check(config, &shapes)?;
        shapes.state_out = self.state_out.check(config, &shapes)?;
        Ok(shapes)
    }
}
