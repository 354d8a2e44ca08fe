//! How the backward pass is cut into chunks, and into rounds that fit the workspace.

use super::super::kernels::{self, Kind};
use super::super::rounds::Rounds;
use super::super::tiles;
use super::LinearAttentionBackwardShapes;
use super::kernels::{Form, Role};
use crate::context::Capabilities;
use crate::tensor::product;

/// Slots for sums from the last token to the first, beside those of chunks: totals by turns, and what comes in of a final state.
pub(super) const CARRIES: u32 = 3;
pub(super) const COMES_IN: u32 = 2;
/// Chunks of a head that occupy a device whatever the heads.
const ENOUGH_CHUNKS: u32 = 64;

/// What stands in the workspace at a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Space {
    pub rounds: Rounds,
    /// Rounds of the keys: a total of each stands before the next.
    pub key_rounds: u32,
    /// Rows of a round.
    rows: u32,
}

impl Space {
    pub fn select(form: &Form, shapes: &LinearAttentionBackwardShapes, device: &Capabilities) -> Self {
        let len = shapes.q_len.max(shapes.kv_len);
        let features = shapes.forward().features(form.config.feature_map);
        let chunk_len = if form.causal { tiles::chunk_len(features) } else { full_chunk_len(len) };
        let heads = shapes.batch.saturating_mul(shapes.kv_heads);
        let mut space = Self::new(shapes, [heads, len.div_ceil(chunk_len).max(1), chunk_len]);
        // Fewer heads at a time while chunks are enough, as more rounds of chunks take their sums twice; then fewer chunks, until totals are
        // as many; then longer ones. The plan reports what never fits.
        while !space.fits(form, shapes, device) {
            let Rounds { chunk_len, heads_per_round: heads, chunks_per_round: chunks, .. } = space.rounds;
            let can_split = chunks > 1 && (chunks > space.key_rounds || !form.causal);
            space = if heads > 1 && (chunks >= ENOUGH_CHUNKS || !can_split) {
                Self::new(shapes, [heads.div_ceil(2), chunks, chunk_len])
            } else if can_split {
                Self::new(shapes, [heads, chunks.div_ceil(2), chunk_len])
            } else if form.causal && chunk_len < len {
                Self::new(shapes, [heads, len.div_ceil(2 * chunk_len), 2 * chunk_len])
            } else {
                break;
            };
        }
        space
    }

    fn new(shapes: &LinearAttentionBackwardShapes, [heads, chunks, chunk_len]: [u32; 3]) -> Self {
        let len = shapes.q_len.max(shapes.kv_len);
        let key_rounds = shapes.kv_len.div_ceil(chunk_len).div_ceil(chunks);
        let rows_per_round = chunks.saturating_mul(chunk_len);
        let rounds = Rounds {
            chunk_len,
            chunks: shapes.kv_len.div_ceil(chunk_len),
            heads_per_round: heads,
            chunks_per_round: chunks,
            rows_per_round,
            carries: key_rounds + 1,
        };
        Self { rounds, key_rounds, rows: rows_per_round.min(len).max(1) }
    }

    fn fits(&self, form: &Form, shapes: &LinearAttentionBackwardShapes, device: &Capabilities) -> bool {
        let regions = self.regions(form, shapes);
        let total = regions.iter().fold(0u64, |sum, (_, bytes)| sum.saturating_add(bytes.saturating_add(255)));
        let room = device.workspace_room();
        let most = device.options.max_workspace_bytes.min(device.limits.max_buffer_size);
        regions.iter().all(|&(_, bytes)| bytes <= room) && total <= most
    }

    /// Bytes of each region, 0 of those that the call has no use for.
    pub fn regions(&self, form: &Form, shapes: &LinearAttentionBackwardShapes) -> [(&'static str, u64); 7] {
        let features = shapes.forward().features(form.config.feature_map);
        let heads = self.rounds.heads_per_round;
        let q_heads = heads.saturating_mul(shapes.q_heads / shapes.kv_heads);
        let states = |chunks, carries| {
            let slots = u64::from(heads) * (u64::from(chunks) + u64::from(carries));
            let row = 16 * u64::from(kernels::state_row(&form.config, shapes.v_dim));
            slots.saturating_mul(u64::from(features) * row)
        };
        let rows = |wanted, heads, width: u32| {
            if wanted { product([4, heads, self.rows]).saturating_mul(width.next_multiple_of(4).into()) } else { 0 }
        };
        let (for_queries, for_keys) = kernels::needs_features(form.config.feature_map);
        let wanted = Wanted::of(shapes);
        let gradients_of = if form.has_chain(Role::Queries) && wanted.dq { q_heads } else { heads };
        let chain = form.has_chain(Role::Queries) && wanted.dq || form.has_chain(Role::Keys) && shapes.dk;
        [
            ("states of the chunks", states(self.rounds.chunks_per_round, self.rounds.carries)),
            (
                "gradients of their states",
                if wanted.reverse { states(self.rounds.chunks_per_round, CARRIES) } else { 0 },
            ),
            ("numbers of rows", rows(form.numbers, q_heads, 4)),
            ("features of keys", rows(for_keys, heads, features)),
            ("features of queries", rows(for_queries, q_heads, features)),
            ("exponents of queries", rows(form.kind == Kind::Exponential, q_heads, features)),
            ("gradients of features", rows(chain, gradients_of, features)),
        ]
    }
}

/// Keys or queries that one workgroup adds up in full mode: about 32 chunks, as forward has them; whole tiles, which end where rounds do.
fn full_chunk_len(len: u32) -> u32 {
    len.div_ceil(32).next_multiple_of(Form::tile_rows()).clamp(128, 4096)
}

/// The gradients that a call has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub dq: bool,
    pub dk: bool,
    pub dv: bool,
    /// Whether any comes from sums over the rows behind.
    pub reverse: bool,
}

impl Wanted {
    pub fn of(shapes: &LinearAttentionBackwardShapes) -> Self {
        let LinearAttentionBackwardShapes { dk, dv, dstate_out, .. } = *shapes;
        let reverse = dk || dv || dstate_out;
        Self { dq: shapes.dq || !reverse, dk, dv, reverse }
    }
}
