//! Chunk after chunk, with the state in registers: one kernel, where heads alone fill a GPU.

use super::Problem;
use super::tokens::{Walk, dim_by_dim};
use crate::context::Capabilities;
use crate::linear_attention::config::{LinearAttentionConfig, LinearMode, Normalization};
use crate::linear_attention::kernels::elementwise;
use crate::wgsl::{Constant, Specialization, pick, source};

/// Workgroups that fill a GPU: two to each of 128 multiprocessors, whose registers hold no more than four.
const FEWEST: u64 = 256;
/// The widest head: its features are the rows of a tile. S takes 32 registers beside the 32 of o and 32 of the scores.
const MOST_FEATURES: u32 = 128;
/// Vec4s of value dims that a workgroup takes at the most.
const MOST_CHUNKS: u32 = 16;
/// Groups of four rows to an invocation, and terms in workgroup memory at a time.
const GROUPS: u32 = 2;
const SLAB: u32 = 16;

/// What one workgroup owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tile {
    /// Features, and tokens of a step.
    rows: u32,
    chunks: u32,
    width: u32,
    value_blocks: u32,
}

impl Tile {
    fn of(head_dim: u32, v_dim: u32) -> Self {
        let all = v_dim.div_ceil(4);
        let chunks = all.div_ceil(all.div_ceil(MOST_CHUNKS));
        Self {
            rows: if head_dim <= 64 { 64 } else { MOST_FEATURES },
            chunks,
            width: chunks.next_multiple_of(4).max(8),
            value_blocks: all.div_ceil(chunks),
        }
    }

    /// Loop iterations of a step, counting one more for the exit of each run of a loop.
    fn iterations(&self, head_dim: u32) -> u32 {
        let slab = 3 + SLAB / 4 + 2 * SLAB.div_ceil(self.width) + 2 * (SLAB * self.chunks).div_ceil(self.width * 8);
        let keys = 4 * self.width;
        let own = head_dim.div_ceil(SLAB) * (slab + 4) + keys.div_ceil(SLAB) * slab + 4;
        head_dim.div_ceil(SLAB) * slab
            + (self.rows.div_ceil(keys) + 6) * own
            + self.rows.div_ceil(SLAB) * slab
            + 2 * GROUPS * (self.width + 1)
            + 4
    }
}

/// The kernel, where the adapter and the map allow it, and the heads make enough workgroups.
pub(in crate::linear_attention) fn select(
    config: &LinearAttentionConfig,
    problem: &Problem,
    capabilities: &Capabilities,
) -> Option<Walk> {
    let shapes = &problem.shapes;
    let blocks = Tile::of(shapes.head_dim, shapes.v_dim).value_blocks;
    let workgroups = u64::from(shapes.batch) * u64::from(shapes.q_heads) * u64::from(blocks);
    if workgroups >= FEWEST { walk(config, problem, capabilities) } else { None }
}

/// The kernel, where the adapter and the map allow it.
pub(in crate::linear_attention) fn walk(
    config: &LinearAttentionConfig,
    problem: &Problem,
    capabilities: &Capabilities,
) -> Option<Walk> {
    let shapes = &problem.shapes;
    if capabilities.is_cpu || !takes(config, shapes.head_dim) || shapes.q_len == 0 {
        return None;
    }
    let tile = Tile::of(shapes.head_dim, shapes.v_dim);
    let workgroups = u64::from(shapes.batch) * u64::from(shapes.q_heads) * u64::from(tile.value_blocks);
    let most = capabilities.loop_cap.map_or(u32::MAX, |cap| (cap - 64) / tile.iterations(shapes.head_dim) * tile.rows);
    Some(Walk {
        kernels: [false, true].map(|states| specialization(config, problem, &tile, states)),
        value_blocks: tile.value_blocks,
        step: tile.rows,
        most,
        flops_per_token: u64::from(16 * tile.chunks) * u64::from(shapes.head_dim + tile.rows),
        reason: format!(
            "{workgroups} workgroups, each with the state of {} value dims in registers; {} tokens a step",
            (4 * tile.chunks).min(shapes.v_dim),
            tile.rows
        ),
    })
}

/// Maps that take each dim for itself, of heads whose features are the rows of one tile.
fn takes(config: &LinearAttentionConfig, head_dim: u32) -> bool {
    dim_by_dim(config) && config.mode == LinearMode::Causal && head_dim <= MOST_FEATURES
}

fn specialization(config: &LinearAttentionConfig, problem: &Problem, tile: &Tile, states: bool) -> Specialization {
    let vec4 = problem.is_vec4(&["q", "k", "v"]);
    Specialization {
        kernel: source!("linear_attention/tiled_heads"),
        constants: vec![
            ("WIDTH", Constant::U32(tile.width)),
            ("HEIGHT", Constant::U32(tile.rows / (4 * GROUPS))),
            ("GROUPS", Constant::U32(GROUPS)),
            ("SLAB", Constant::U32(SLAB)),
            ("HEAD_DIM", Constant::U32(problem.shapes.head_dim)),
            ("V_DIM", Constant::U32(problem.shapes.v_dim)),
            ("V_CHUNKS", Constant::U32(tile.chunks)),
            ("NORMALIZED", Constant::Bool(config.normalization != Normalization::None)),
            ("Elem", Constant::Type(if vec4 { "vec4<f32>" } else { "f32" })),
        ],
        fragments: vec![
            source!("linear_attention/tokens_params"),
            source!("linear_attention/tiled_rows"),
            source!("linear_attention/tiled_write"),
            source!("linear_attention/tiled_plain"),
            elementwise(config.feature_map),
            source!("linear_attention/tiled_divide"),
            source!("linear_attention/tiled_own_keys"),
            source!("linear_attention/tiled_weigh"),
            pick(states, source!("linear_attention/head_states"), source!("linear_attention/no_token_states")),
            pick(vec4, source!("linear_attention/load_q_vec4"), source!("linear_attention/load_q_scalar")),
            pick(vec4, source!("linear_attention/load_kv_vec4"), source!("linear_attention/load_kv_scalar")),
            pick(problem.is_vec4(&["o"]), source!("shared/store_vec4"), source!("shared/store_scalar")),
            source!("linear_attention/within"),
            source!("shared/tile"),
            source!("shared/tile_keys"),
            source!("shared/tile_products"),
            source!("shared/steps"),
            source!("shared/steps_together"),
            source!("shared/along_width_memory"),
            source!("shared/workgroup_index"),
        ],
        storage: Vec::new(),
    }
    .of(problem, &[])
}

/// Every specialization for a problem.
pub(in crate::linear_attention) fn specializations(
    config: &LinearAttentionConfig,
    problem: &Problem,
) -> Vec<Specialization> {
    let shapes = &problem.shapes;
    if !takes(config, shapes.head_dim) {
        return Vec::new();
    }
    let tile = Tile::of(shapes.head_dim, shapes.v_dim);
    [false, true].map(|states| specialization(config, problem, &tile, states)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_dims_are_shared_evenly() {
        let tile = |head_dim, v_dim| {
            let tile = Tile::of(head_dim, v_dim);
            [tile.rows, tile.chunks, tile.width, tile.value_blocks]
        };
        assert_eq!(tile(64, 64), [64, 16, 16, 1]);
        assert_eq!(tile(128, 128), [128, 16, 16, 2]);
        assert_eq!(tile(72, 80), [128, 10, 12, 2]);
        assert_eq!(tile(1, 1), [64, 1, 8, 1]);
    }
}
