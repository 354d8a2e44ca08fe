//! What a tuning may take in place of the table's choice.

use std::fmt;

use super::GauWeights;
use super::config::GatedAttentionConfig;
use super::plan::Problem;
use super::tiles::{Tile, device, matrix_tiles, tiles_for};
use crate::Matrices;
use crate::context::Capabilities;
use crate::row_kernel::KeyRange;
use crate::tuning::Class;

/// A tile, and the keys of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    pub tile: Tile,
    pub range: KeyRange,
}

impl fmt::Display for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} value_dims={}{}", self.tile.kernel, 4 * self.tile.v_chunks, self.range)
    }
}

/// Lengths of ranges of keys.
const RANGES: [u32; 4] = [KeyRange::WHOLE, 4096, 1024, 256];

/// Everything that is right for the problem on this device, whatever its number of rows.
pub(super) fn offers(config: &GatedAttentionConfig, problem: &Problem, capabilities: &Capabilities) -> Vec<Offer> {
    let tiles = match matrix_tiles(config, &problem.shapes, capabilities) {
        Ok(found) if found.is_empty() => tiles_for(config, &problem.shapes, device(capabilities)),
        // A device that refuses the config is offered nothing.
        found => found.unwrap_or_default(),
    };
    // Chunks are not split.
    let ranges: &[u32] = if config.chunk().is_some() { &[] } else { &RANGES };
    let ranges = std::iter::once(None).chain(ranges.iter().copied().map(Some)).map(KeyRange);
    ranges.flat_map(|range| tiles.iter().map(move |&tile| Offer { tile, range })).collect()
}

/// What calls of one class have in common.
pub(super) fn class(config: &GatedAttentionConfig, problem: &Problem) -> String {
    let shapes = &problem.shapes;
    let softmax = !matches!(config.weights, GauWeights::SquaredRelu(_));
    let class = Class::of("gated_attention")
        .with("softmax", softmax)
        .exactly("key_dim", shapes.key_dim)
        .exactly("v_dim", shapes.v_dim)
        .lengths_and_heads([shapes.q_len, shapes.kv_len], [shapes.batch, shapes.q_heads, shapes.kv_heads])
        .exactly("chunk", config.chunk().unwrap_or(0))
        .with("causal", config.visibility().is_causal())
        .with("window", config.visibility().is_windowed())
        .with("shared_z", shapes.shared_z)
        .with("beta", problem.given().any(|(_, row, _)| row.name.starts_with("beta_")))
        .with("gate", shapes.gate)
        .with("kv_lens", shapes.kv_lens)
        .with("in_f16", config.matrices == Matrices::F16);
    problem.class(class, &["q", "k", "v", "o"])
}
