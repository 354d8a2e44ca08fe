//! What a plan depends on: sizes, and where and how the tensors lie.

use super::config::LinearAttentionConfig;
use super::shapes::LinearAttentionShapes;
use crate::Result;
use crate::context::Capabilities;
use crate::tensor::{Access, DType, Layout};

/// What the axes of the operands are called.
pub(super) mod axes {
    pub const Q: [&str; 4] = ["batch", "q_heads", "q_len", "head_dim"];
    pub const K: [&str; 4] = ["batch", "kv_heads", "kv_len", "head_dim"];
    pub const V: [&str; 4] = ["batch", "kv_heads", "kv_len", "v_dim"];
    pub const O: [&str; 4] = ["batch", "q_heads", "q_len", "v_dim"];
    pub const PROJECTION: [&str; 2] = ["features", "head_dim"];
    pub const S: [&str; 4] = ["batch", "kv_heads", "features", "v_dim"];
    pub const Z: [&str; 3] = ["batch", "kv_heads", "features"];
}

/// Where the tensors of a state lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct StateLayout {
    pub s: Layout<4>,
    pub z: Layout<3>,
    pub max: Option<Layout<3>>,
}

impl StateLayout {
    /// Whether all that is summed up is f32.
    pub fn is_f32(&self) -> bool {
        self.s.storage.size() == 4 && self.z.storage.size() == 4
    }
}

/// Everything that a plan depends on besides the config: sizes, and where the tensors lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Problem {
    pub shapes: LinearAttentionShapes,
    pub q: Layout<4>,
    pub k: Layout<4>,
    pub v: Layout<4>,
    pub o: Layout<4>,
    pub projection: Option<Layout<2>>,
    pub kv_lens: Option<Layout<1>>,
    pub state_in: Option<StateLayout>,
    pub state_out: Option<StateLayout>,
    /// Whether the state that comes in and the one that goes out are the same views.
    pub in_place: bool,
}

impl Problem {
    /// Contiguous tensors, each at the start of its buffer; a state that goes in and out does so in place.
    pub fn contiguous(config: &LinearAttentionConfig, shapes: LinearAttentionShapes) -> Self {
        let LinearAttentionShapes { batch, q_heads, kv_heads, q_len, kv_len, head_dim, v_dim, .. } = shapes;
        let features = shapes.features(config.feature_map);
        let state = StateLayout {
            s: Layout::contiguous([batch, kv_heads, features, v_dim]),
            z: Layout::contiguous([batch, kv_heads, features]),
            max: config.feature_map.running_max().map(|max| Layout::contiguous([batch, kv_heads, max.count(features)])),
        };
        Self {
            shapes,
            q: Layout::contiguous([batch, q_heads, q_len, head_dim]),
            k: Layout::contiguous([batch, kv_heads, kv_len, head_dim]),
            v: Layout::contiguous([batch, kv_heads, kv_len, v_dim]),
            o: Layout::contiguous([batch, q_heads, q_len, v_dim]),
            projection: shapes.projection_rows.map(|rows| Layout::contiguous([rows, head_dim])),
            kv_lens: shapes.kv_lens.then(|| Layout::contiguous([batch])),
            state_in: shapes.state_in.then_some(state),
            state_out: shapes.state_out.then_some(state),
            in_place: shapes.state_in && shapes.state_out,
        }
    }

    /// The same with all but the lengths and the states stored as `dtype`.
    pub fn stored(self, dtype: DType, device: &Capabilities) -> Result<Self> {
        use Access::{Read, Write};
        let projection = |l: Layout<2>| l.stored("projection", axes::PROJECTION, Read, dtype, device);
        Ok(Self {
            q: self.q.stored("q", axes::Q, Read, dtype, device)?,
            k: self.k.stored("k", axes::K, Read, dtype, device)?,
            v: self.v.stored("v", axes::V, Read, dtype, device)?,
            o: self.o.stored("o", axes::O, Write, dtype, device)?,
            projection: self.projection.map(projection).transpose()?,
            ..self
        })
    }
}
