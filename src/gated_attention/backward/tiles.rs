//! The tiles of the kernels that walk rows, and the ranges that they walk.

use super::super::config::GatedAttentionConfig;
use super::super::offers::Offer;
use super::super::plan::Problem;
use super::super::tiles::{self as forward, Choice, select};
use super::GatedAttentionBackwardShapes;
use crate::Result;
use crate::adapter::Adapter;
use crate::context::Capabilities;
use crate::row_kernel::{Kernel, KeyRange, least_range};
use crate::tensor::product;
use crate::tile::{Grid, grid};

/// Whose gradients a kernel computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    Queries,
    Keys,
    Values,
}

/// How a workgroup shares a tile, and how many chunks of four dims of results it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tile {
    pub grid: Grid,
    pub v_block: u32,
}

/// Workgroups that occupy a GPU; fewer split what they walk, but into no ranges below the least.
const ENOUGH_FOR_A_GPU: u64 = 256;
const LEAST_RANGE: u32 = 256;

/// Loop iterations at most before and after steps: the linear part of up to 256 key dims is the longest.
const ONCE: u32 = 512;

/// Of software drivers, which compile a GPU's for seconds.
const SMALL: Grid = grid([8, 1, 4, 4], 8);

impl Tile {
    /// On a GPU, of the products of scores an invocation holds two, 8 rows by 4; of values, which have one, as forward 8 by 8, and by 4
    /// where a row's results are many.
    pub fn of(of: Of, [key_dim, v_dim]: [u32; 2], adapter: Adapter, granted: u32) -> Self {
        let dims = if of == Of::Values { v_dim } else { key_dim };
        let chunks = dims.div_ceil(4);
        let v_block = chunks.div_ceil(chunks.div_ceil(64));
        let widest = match (of, v_block) {
            _ if adapter != Adapter::Gpu => SMALL,
            (Of::Values, ..=16) => grid([16, 2, 8, 2], 16),
            (Of::Values, ..=32) => grid([8, 2, 8, 2], 16),
            (_, ..=32) => grid([8, 2, 4, 2], 16),
            _ => grid([8, 2, 4, 4], 16),
        };
        let half = Grid { slab: widest.slab / 2, ..widest };
        // Beside what forward has, four numbers more for each row that have four parts.
        let fits = widest.fits(v_block, granted.saturating_sub(32 * widest.height * widest.groups));
        Self { grid: if fits || widest == SMALL { widest } else { half }, v_block }
    }

    /// The kernel that adds up weights, and its ranges of keys: a GPU's everywhere.
    pub fn of_sums(config: &GatedAttentionConfig, problem: &Problem, device: &Capabilities) -> Result<Choice> {
        if Adapter::of(device) == Adapter::Gpu {
            return select(config, problem, device, None);
        }
        // Ranges are as long as the tile that runs may walk.
        let small = Offer { tile: forward::Tile::of(Kernel::Tiled(SMALL), 1), range: KeyRange(None) };
        let gpu = Capabilities { is_cpu: false, min_subgroup_size: None, ..device.clone() };
        select(config, problem, &gpu, Some(&small))
    }

    /// The most loop iterations of a step, counting one more for the exit of each run of a loop.
    pub fn iterations(&self, of: Of, [key_dim, v_dim]: [u32; 2]) -> u32 {
        let own = self.grid.iterations(key_dim, self.v_block);
        let products = v_dim.div_ceil(self.grid.slab) * (self.grid.slab / 4 + 2);
        own + if of == Of::Values { 0 } else { products }
    }
}

/// What a kernel that walks rows owns and walks.
#[derive(Clone, Debug)]
pub(super) struct Sweep {
    pub of: Of,
    pub tile: Tile,
    /// Heads and tokens of a chunk of the side that is owned, and of all chunks.
    pub own_heads: u32,
    pub own_len: u32,
    pub own_chunk: u32,
    pub walked_len: u32,
    pub walked_chunk: u32,
    pub chunks: u32,
    /// Of a chunk of a head.
    pub row_tiles: u32,
    /// Of results.
    pub blocks: u32,
    /// Ranges of rows, rows of a range, heads of a range, and ranges of both.
    pub row_splits: u32,
    pub split_rows: u32,
    pub split_heads: u32,
    pub splits: u32,
}

impl Sweep {
    pub fn new(
        config: &GatedAttentionConfig,
        shapes: &GatedAttentionBackwardShapes,
        device: &Capabilities,
        of: Of,
    ) -> Self {
        let dims = [shapes.key_dim, shapes.v_dim];
        let tile = Tile::of(of, dims, Adapter::of(device), device.limits.max_compute_workgroup_storage_size);
        let queries = [shapes.q_heads, shapes.q_len];
        let keys = [shapes.kv_heads, shapes.kv_len];
        let ([own_heads, own_len], [_, walked_len]) = if of == Of::Queries { (queries, keys) } else { (keys, queries) };
        let walked_heads = if of == Of::Queries { 1 } else { shapes.q_heads / shapes.kv_heads };
        let chunk = config.chunk();
        let own_chunk = chunk.map_or(own_len, |chunk| chunk.min(own_len)).max(1);
        let walked_chunk = chunk.map_or(walked_len, |chunk| chunk.min(walked_len)).max(1);
        let chunks = own_len.div_ceil(own_chunk);
        let row_tiles = own_chunk.div_ceil(tile.grid.rows());
        let results = if of == Of::Values { shapes.v_dim } else { shapes.key_dim };
        let blocks = results.div_ceil(4).div_ceil(tile.v_block);
        let mut sweep = Self {
            of,
            tile,
            own_heads,
            own_len,
            own_chunk,
            walked_len,
            walked_chunk,
            chunks,
            row_tiles,
            blocks,
            row_splits: 1,
            split_rows: 1,
            split_heads: walked_heads,
            splits: 1,
        };
        sweep.split(chunk.is_some(), shapes, device, walked_heads);
        sweep
    }

    /// The fewest ranges that the driver, the work bound and the caller's own bound allow, and as many as occupy a GPU.
    fn split(
        &mut self,
        in_chunks: bool,
        shapes: &GatedAttentionBackwardShapes,
        device: &Capabilities,
        walked_heads: u32,
    ) {
        let dims = [shapes.key_dim, shapes.v_dim];
        let step = self.tile.grid.keys(self.tile.v_block);
        let whole = self.walked_len.max(1).next_multiple_of(step);
        self.split_rows = whole;
        if in_chunks {
            return;
        }
        let mut bound = device.options.max_keys_per_split.unwrap_or(u32::MAX).max(step);
        let workgroups = product([shapes.batch, self.own_heads, self.chunks, self.row_tiles, self.blocks]);
        if Adapter::of(device) == Adapter::Gpu && workgroups < ENOUGH_FOR_A_GPU {
            // Heads first: no range of them is a step shorter than it was.
            let wanted = ENOUGH_FOR_A_GPU.div_ceil(workgroups.max(1)).min(walked_heads.into()) as u32;
            self.split_heads = walked_heads.div_ceil(wanted);
            let workgroups = workgroups * u64::from(walked_heads.div_ceil(self.split_heads));
            let rows = u64::from(self.walked_len) * workgroups / ENOUGH_FOR_A_GPU;
            let own = product([shapes.batch, self.own_heads, self.own_len]);
            let results = if self.of == Of::Values { shapes.v_dim } else { shapes.key_dim };
            let least = least_range(self.walked_len, own, results, device).max(LEAST_RANGE);
            bound = bound.min((rows as u32).next_multiple_of(LEAST_RANGE).max(least));
        }
        if let Some(cap) = device.loop_cap {
            let steps =
                |heads: u32| (cap.saturating_sub(ONCE) / heads).saturating_sub(2) / self.tile.iterations(self.of, dims);
            if steps(self.split_heads) == 0 {
                self.split_heads = 1;
            }
            let steps = steps(self.split_heads);
            bound = bound.min(steps.max(1).saturating_mul(step));
        }
        let by_work = device.options.max_flops_per_dispatch / self.flops_per_row(dims) / u64::from(self.split_heads);
        bound = bound.min(u32::try_from(by_work).unwrap_or(u32::MAX).max(step));
        self.split_rows = (bound - bound % step).min(whole);
        self.row_splits = self.walked_len.div_ceil(self.split_rows).max(1);
        self.splits = self.row_splits * walked_heads.div_ceil(self.split_heads);
    }

    /// What it is, where it is refused.
    pub fn told(&self) -> &'static str {
        match self.of {
            Of::Queries => "the keys that a query of a chunk meets",
            Of::Keys => "the queries that a key of a chunk meets, of all heads that share it",
            Of::Values => "the queries that a value of a chunk meets, of all heads that share it",
        }
    }

    /// The most loop iterations of an invocation. Chunks are walked whole.
    pub fn iterations(&self, dims: [u32; 2]) -> u64 {
        let rows = self.walked_chunk.min(self.split_rows);
        let steps = rows.div_ceil(self.tile.grid.keys(self.tile.v_block));
        let of_head = u64::from(self.tile.iterations(self.of, dims)) * u64::from(steps) + 2;
        u64::from(ONCE) + u64::from(self.split_heads) * of_head
    }

    /// What one workgroup does for each row that it walks.
    pub fn flops_per_row(&self, [key_dim, v_dim]: [u32; 2]) -> u64 {
        let products = if self.of == Of::Values { 0 } else { v_dim };
        2 * product([self.tile.grid.rows(), key_dim + products + 4 * self.tile.v_block])
    }

    /// Rows of results of a range.
    pub fn rows(&self, batch: u32) -> u64 {
        product([batch, self.own_heads, self.own_len])
    }

    /// Workgroups of so many blocks of results.
    pub fn workgroups(&self, batch: u32, blocks: u32) -> u64 {
        product([batch, self.own_heads, self.chunks, self.row_tiles, self.splits, blocks])
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::shapes::GatedAttentionShapes;
    use super::*;
    use crate::{GatedAttention, GauMode, GauWeights, LinearDivisor, QuadraticDivisor};

    const CAP: u32 = 65_535;

    fn llvmpipe() -> Capabilities {
        Capabilities { is_cpu: true, is_llvmpipe: true, loop_cap: Some(CAP), ..Capabilities::plain() }
    }

    #[test]
    fn sums_of_weights_stay_under_the_loop_cap() {
        let config = GatedAttentionConfig::new().weights(GauWeights::Softmax);
        for key_dim in [8, 128, 256] {
            let problem =
                Problem::contiguous::<GatedAttention>(&config, GatedAttentionShapes::gau(1, 1, 1 << 20, key_dim, 4));
            let choice = Tile::of_sums(&config, &problem, &llvmpipe()).unwrap();
            let Kernel::Tiled(grid) = choice.kernel else { unreachable!() };
            let steps = choice.split_keys.div_ceil(grid.keys(choice.v_block));
            let needed = steps * grid.iterations(key_dim, choice.v_block);
            assert!(grid == SMALL && !choice.shuffle && (CAP / 2..=CAP).contains(&needed), "{needed}: {choice:?}");
            assert!(u64::from(choice.splits) * u64::from(choice.split_keys) >= 1 << 20);
        }
    }

    #[test]
    fn ranges_stay_under_the_loop_cap_and_chunks_tell_that_they_do_not() {
        for group in [1, 8, 3000] {
            for [key_dim, v_dim] in [[1, 1], [64, 64], [256, 4096]] {
                let shapes = GatedAttentionBackwardShapes {
                    q_heads: group,
                    ..GatedAttentionBackwardShapes::new(1, 1, 1 << 17, key_dim, v_dim)
                };
                for of in [Of::Queries, Of::Keys, Of::Values] {
                    let needed = |config: &GatedAttentionConfig| {
                        Sweep::new(config, &shapes, &llvmpipe(), of).iterations([key_dim, v_dim])
                    };
                    let whole = needed(&GatedAttentionConfig::new());
                    assert!(whole <= CAP.into(), "{of:?}, {group}, {key_dim}, {v_dim}: {whole}");
                    let chunks = GatedAttentionConfig::new().mode(GauMode::MixedChunk {
                        chunk: 1 << 16,
                        quadratic: QuadraticDivisor::ChunkDim,
                        linear: LinearDivisor::Tokens,
                    });
                    assert!(needed(&chunks) > CAP.into(), "{of:?}, {group}, {key_dim}, {v_dim}");
                }
            }
        }
    }
}
