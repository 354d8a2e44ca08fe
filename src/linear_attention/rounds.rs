//! How a sequence is cut into chunks, and the work into rounds that fit the workspace.

use super::config::{LinearAttentionConfig, LinearMode};
use super::kernels::{self, Tile};
use super::shapes::LinearAttentionShapes;
use super::tiles;
use crate::context::Capabilities;

/// How the work is cut: what stands in the workspace at one time is a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rounds {
    /// Keys per chunk.
    pub chunk_len: u32,
    /// Chunks of the whole sequence.
    pub chunks: u32,
    /// Heads of k, over the whole batch, per round.
    pub heads_per_round: u32,
    pub chunks_per_round: u32,
    /// Queries per round, in full mode.
    pub rows_per_round: u32,
    /// Slots for states per head that totals are carried in.
    pub carries: u32,
}

/// A state of F features costs as much as a chunk of F / 2 keys or so: wide maps take longer chunks, up to this.
const LONGEST_CAUSAL_CHUNK: u32 = 512;
/// In full mode a chunk is a share of the keys that one workgroup adds up: about so many, and none longer than this.
const FULL_CHUNKS: u32 = 32;
const LONGEST_FULL_CHUNK: u32 = 4096;

/// On a CPU, bytes of states that a later kernel of the round still finds in a cache; but no fewer states at a time than this.
const CPU_ROUND: u64 = 8 << 20;
const CPU_WORKGROUPS: u32 = 64;

impl Rounds {
    /// Picks chunks and rounds: a pure function of config, shapes and device.
    pub fn select(
        config: &LinearAttentionConfig,
        shapes: &LinearAttentionShapes,
        tile: &Tile,
        capabilities: &Capabilities,
    ) -> Self {
        let chunk_len = Self::chunk_len(config, shapes, tile, capabilities);
        Self::with_chunks_of(chunk_len, config, shapes, tile, capabilities)
    }

    /// Keys per chunk.
    pub fn chunk_len(
        config: &LinearAttentionConfig,
        shapes: &LinearAttentionShapes,
        tile: &Tile,
        capabilities: &Capabilities,
    ) -> u32 {
        let features = shapes.features(config.feature_map);
        match config.mode {
            LinearMode::Causal if !capabilities.is_cpu => tiles::chunk_len(features),
            LinearMode::Causal => (features / 2).next_power_of_two().clamp(tile.chunk_len, LONGEST_CAUSAL_CHUNK),
            LinearMode::Full => {
                shapes.kv_len.div_ceil(FULL_CHUNKS).next_multiple_of(8).clamp(tile.chunk_len, LONGEST_FULL_CHUNK)
            }
        }
    }

    pub fn with_chunks_of(
        chunk_len: u32,
        config: &LinearAttentionConfig,
        shapes: &LinearAttentionShapes,
        tile: &Tile,
        capabilities: &Capabilities,
    ) -> Self {
        let chunks = shapes.kv_len.div_ceil(chunk_len);
        let mut rounds = Self {
            chunk_len,
            chunks,
            heads_per_round: shapes.batch.saturating_mul(shapes.kv_heads),
            chunks_per_round: chunks.max(1),
            rows_per_round: shapes.q_len.next_multiple_of(tile.rows()).max(tile.rows()),
            carries: 2,
        };
        let causal = config.mode == LinearMode::Causal;
        while capabilities.is_cpu
            && causal
            && rounds.chunks_per_round > 1
            && rounds.regions(config, shapes)[0] > CPU_ROUND
            && rounds.heads_per_round.saturating_mul(rounds.chunks_per_round) > CPU_WORKGROUPS
        {
            rounds.chunks_per_round = rounds.chunks_per_round.div_ceil(2);
        }
        // Fewer chunks and rows at a time, then fewer heads, until a round fits; the plan reports what never does.
        while !rounds.fits(config, shapes, capabilities) {
            let rows_left = config.mode == LinearMode::Full && rounds.rows_per_round > tile.rows();
            if rounds.chunks_per_round > 1 || rows_left {
                rounds.chunks_per_round = rounds.chunks_per_round.div_ceil(2);
                rounds.rows_per_round = rounds.rows_per_round.div_ceil(2).next_multiple_of(tile.rows());
            } else if rounds.heads_per_round > 1 {
                rounds.heads_per_round = rounds.heads_per_round.div_ceil(2);
            } else {
                break;
            }
        }
        rounds
    }

    fn fits(
        &self,
        config: &LinearAttentionConfig,
        shapes: &LinearAttentionShapes,
        capabilities: &Capabilities,
    ) -> bool {
        let limits = &capabilities.limits;
        let regions = self.regions(config, shapes);
        let total = regions.iter().fold(0u64, |sum, bytes| sum.saturating_add(bytes.saturating_add(255)));
        regions.iter().all(|&bytes| bytes <= limits.max_storage_buffer_binding_size)
            && total <= capabilities.options.max_workspace_bytes.min(limits.max_buffer_size)
    }

    /// Slots for states per head: one per chunk, and those of totals: two, by turns, or in the backward pass more.
    pub fn slots(&self) -> u32 {
        self.chunks_per_round + self.carries
    }

    /// Bytes of workspace per round: states, features of keys, features of queries.
    pub fn regions(&self, config: &LinearAttentionConfig, shapes: &LinearAttentionShapes) -> [u64; 3] {
        let features = u64::from(shapes.features(config.feature_map));
        let heads = u64::from(self.heads_per_round);
        let state = features * u64::from(kernels::state_row(config, shapes.v_dim)) * 16;
        let row = features.div_ceil(4) * 16;
        let keys = (u64::from(self.chunks_per_round) * u64::from(self.chunk_len)).min(shapes.kv_len.into());
        let queries = match config.mode {
            LinearMode::Causal => keys,
            LinearMode::Full => u64::from(self.rows_per_round.min(shapes.q_len)),
        };
        let group = u64::from(shapes.q_heads / shapes.kv_heads);
        let (query_features, key_features) = kernels::needs_features(config.feature_map);
        [
            heads.saturating_mul(u64::from(self.slots())).saturating_mul(state),
            if key_features { heads.saturating_mul(keys).saturating_mul(row) } else { 0 },
            if query_features { heads.saturating_mul(group).saturating_mul(queries).saturating_mul(row) } else { 0 },
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ContextOptions, FeatureMap};

    const TAYLOR2: FeatureMap = FeatureMap::Taylor2 { scale: None };

    fn capabilities(max_workspace_bytes: u64) -> Capabilities {
        let options = ContextOptions { max_workspace_bytes, ..ContextOptions::default() };
        Capabilities { is_cpu: true, options, ..Capabilities::plain() }
    }

    fn select(map: FeatureMap, mode: LinearMode, shapes: &LinearAttentionShapes, bytes: u64) -> (Rounds, [u64; 3]) {
        let capabilities = capabilities(bytes);
        let config = LinearAttentionConfig::new().mode(mode).feature_map(map);
        let rounds = Rounds::select(&config, shapes, &Tile::select(&capabilities), &capabilities);
        (rounds, rounds.regions(&config, shapes))
    }

    #[test]
    fn wide_maps_take_longer_chunks() {
        let shapes = LinearAttentionShapes::new(1, 1, 4096, 64);
        let chunk = |map| select(map, LinearMode::Causal, &shapes, 1 << 30).0.chunk_len;
        assert_eq!((chunk(FeatureMap::EluPlusOne), chunk(TAYLOR2)), (64, 512));
    }

    #[test]
    fn rounds_stay_within_the_workspace_and_the_binding() {
        let binding = wgpu::Limits::default().max_storage_buffer_binding_size;
        let favor = FeatureMap::Favor { scale: None };
        for map in [FeatureMap::EluPlusOne, TAYLOR2, favor] {
            for mode in [LinearMode::Full, LinearMode::Causal] {
                for bytes in [64 << 20, 256 << 20, 1 << 40] {
                    let mut shapes = LinearAttentionShapes::new(4, 16, 1 << 17, 64);
                    shapes.projection_rows = (map == favor).then_some(256);
                    let (rounds, regions) = select(map, mode, &shapes, bytes);
                    let total: u64 = regions.iter().sum();
                    assert!(total <= bytes, "{map:?} {mode:?} {bytes}: {rounds:?}");
                    assert!(regions.iter().all(|&region| region <= binding), "{map:?} {mode:?} {bytes}: {rounds:?}");
                    assert!(rounds.chunks_per_round >= 1 && rounds.heads_per_round >= 1 && rounds.rows_per_round >= 1);
                }
            }
        }
    }

    #[test]
    fn the_workspace_grows_with_the_length_and_on_a_cpu_to_what_its_caches_hold() {
        let config = LinearAttentionConfig::new().mode(LinearMode::Causal);
        let bytes = |is_cpu, len| {
            let capabilities = Capabilities { is_cpu, ..capabilities(1 << 30) };
            let shapes = LinearAttentionShapes::new(1, 8, len, 64);
            let rounds = Rounds::select(&config, &shapes, &Tile::select(&capabilities), &capabilities);
            rounds.regions(&config, &shapes).iter().sum::<u64>() as f64
        };
        let growth = bytes(false, 32_768) / bytes(false, 4096);
        assert!((7.0..=8.0).contains(&growth), "two slots more than chunks: {growth}");
        assert!(bytes(true, 1024) < bytes(true, 2048) && bytes(true, 1 << 20) <= CPU_ROUND as f64);
        let many_heads = LinearAttentionShapes::new(1 << 10, 64, 4096, 64);
        let (rounds, _) = select(FeatureMap::EluPlusOne, LinearMode::Causal, &many_heads, 1 << 40);
        assert_eq!(rounds.chunks_per_round, 1, "no less than a chunk at a time");
    }
}
