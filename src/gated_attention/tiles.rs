//! The tiles that a problem is cut into: a pure function of config, problem and device.

use super::config::GatedAttentionConfig;
use super::kernels::Weighing;
use super::offers::Offer;
use super::plan::Problem;
use super::shapes::GatedAttentionShapes;
use crate::adapter::Adapter;
use crate::context::Capabilities;
use crate::matrices::{MatrixTier, RowTile};
use crate::row_kernel::{Kernel, least_range};
use crate::tensor::product;
use crate::tile::{Grid, grid};
use crate::{Error, Matrices, Result};

const ANY: u32 = u32::MAX;

/// Tiles: the first row that applies.
///
/// | adapter | rows | invocations | value dims | why |
/// |---|---|---|---|---|
/// | llvmpipe with subgroups | 64 and more | 8 | 256 | reads each key once for all lanes, and unrolls, so that q and o are no arrays |
/// | old llvmpipe with subgroups | 256, 2048 and more | 8 | 128, 256 | the same, which compiles for seconds there |
/// | old llvmpipe | any | 8 | 16 | it compiles large arrays for minutes; q is read from storage |
/// | CPU | any | 8 | 1536 | one vector of eight lanes; recomputing scores costs more than outputs beyond the first cache |
/// | GPU | up to 16, 64 | up to 256 | 256 or 128 | fewer idle lanes |
/// | GPU | more | 128 | 64, 128 | both products compute 8 by 8 numbers from 16 |
/// | GPU | more | 128 | 256 | 8 by 4 and 8 by 16: every block of value dims computes the scores again |
///
/// A slab is halved where the device's workgroup memory does not hold it; a GPU of few registers computes 8 by 4 numbers where others 8 by 8.
#[rustfmt::skip]
pub(super) const TILES: &[Tile] = &[
    Tile { adapter: Adapter::SlowArrays, rows: [256, ANY],  dims: [112, 112], v_chunks: 28,  kernel: Kernel::Subgroup { workgroup: 8, keys: 4 } },
    Tile { adapter: Adapter::SlowArrays, rows: [256, ANY],  dims: [128, ANY], v_chunks: 32,  kernel: Kernel::Subgroup { workgroup: 8, keys: 2 } },
    Tile { adapter: Adapter::SlowArrays, rows: [2048, ANY], dims: [256, ANY], v_chunks: 64,  kernel: Kernel::Subgroup { workgroup: 8, keys: 2 } },
    ANYWHERE,
    Tile { adapter: Adapter::Llvmpipe,   rows: [64, ANY],   dims: [112, 112], v_chunks: 28,  kernel: Kernel::Subgroup { workgroup: 8, keys: 4 } },
    Tile { adapter: Adapter::Llvmpipe,   rows: [64, ANY],   dims: [256, ANY], v_chunks: 64,  kernel: Kernel::Subgroup { workgroup: 8, keys: 2 } },
    Tile { adapter: Adapter::Llvmpipe,   rows: [0, ANY],    dims: [ANY, ANY], v_chunks: 384, kernel: Kernel::Rows { workgroup: 8, keys: 8 } },
    Tile { adapter: Adapter::Cpu,        rows: [0, ANY],    dims: [ANY, ANY], v_chunks: 384, kernel: Kernel::Rows { workgroup: 8, keys: 8 } },
    Tile { adapter: Adapter::Gpu,        rows: [0, 16],     dims: [ANY, ANY], v_chunks: 64,  kernel: Kernel::Tiled(grid([4, 1, 4, 2], 8)) },
    Tile { adapter: Adapter::Gpu,        rows: [17, 64],    dims: [ANY, 128], v_chunks: 32,  kernel: Kernel::Tiled(grid([16, 1, 4, 2], 8)) },
    Tile { adapter: Adapter::Gpu,        rows: [65, ANY],   dims: [ANY, 64],  v_chunks: 16,  kernel: Kernel::Tiled(grid([16, 2, 8, 2], 16)) },
    Tile { adapter: Adapter::Gpu,        rows: [65, ANY],   dims: [ANY, 128], v_chunks: 32,  kernel: Kernel::Tiled(grid([8, 2, 8, 2], 16)) },
    Tile { adapter: Adapter::Gpu,        rows: [17, ANY],   dims: [ANY, ANY], v_chunks: 64,  kernel: Kernel::Tiled(grid([8, 2, 4, 4], 16)) },
];

/// Right for any sizes on any device; not fast.
#[rustfmt::skip]
const ANYWHERE: Tile =
    Tile { adapter: Adapter::SlowArrays, rows: [0, ANY],    dims: [ANY, ANY], v_chunks: 4,   kernel: Kernel::Rows { workgroup: 8, keys: 8 } };

/// What the table never picks, but a tuning may: wider steps, smaller tiles.
#[rustfmt::skip]
pub(super) const ALTERNATIVES: &[Tile] = &[
    Tile { adapter: Adapter::Llvmpipe,   rows: [0, ANY],  dims: [64, 64],   v_chunks: 16,  kernel: Kernel::Subgroup { workgroup: 8, keys: 8 } },
    Tile { adapter: Adapter::Gpu,        rows: [0, ANY],  dims: [ANY, 64],  v_chunks: 16,  kernel: Kernel::Tiled(grid([16, 2, 4, 1], 32)) },
    Tile { adapter: Adapter::Gpu,        rows: [0, ANY],  dims: [ANY, 128], v_chunks: 32,  kernel: Kernel::Tiled(grid([8, 2, 4, 1], 16)) },
    Tile { adapter: Adapter::Gpu,        rows: [0, ANY],  dims: [ANY, ANY], v_chunks: 64,  kernel: Kernel::Tiled(grid([8, 1, 4, 2], 16)) },
];

/// Workgroups that occupy a GPU; fewer split the keys, but into no ranges below the least.
const ENOUGH_FOR_A_GPU: u64 = 256;
const LEAST_SPLIT: u32 = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tile {
    pub adapter: Adapter,
    /// The fewest and the most rows that it is for: queries (of a chunk, if there are chunks), on a GPU times the heads that
    /// share a tile.
    rows: [u32; 2],
    /// The largest key_dim and v_dim.
    dims: [u32; 2],
    /// Most chunks of four value dims per workgroup.
    pub v_chunks: u32,
    pub kernel: Kernel,
}

impl Tile {
    /// Of no row of the table, and for any sizes.
    pub fn of(kernel: Kernel, v_chunks: u32) -> Self {
        Self { adapter: Adapter::Gpu, rows: [0, ANY], dims: [ANY, ANY], v_chunks, kernel }
    }

    /// Whether it is for these sizes; `chunk`, if there are chunks.
    fn takes(&self, shapes: &GatedAttentionShapes, chunk: Option<u32>) -> bool {
        let rows = rows_that_share(self.kernel, shapes, chunk);
        (self.rows[0]..=self.rows[1]).contains(&rows) && self.is_wide_enough(shapes, chunk)
    }

    /// Whether it is right for these sizes, whatever the rows.
    fn is_wide_enough(&self, shapes: &GatedAttentionShapes, chunk: Option<u32>) -> bool {
        let in_chunks = matches!(self.kernel, Kernel::Subgroup { .. }) && chunk.is_some();
        shapes.key_dim <= self.dims[0] && shapes.v_dim <= self.dims[1] && !in_chunks
    }

    /// Whether the device's subgroups and workgroup memory are as its kernel needs them.
    fn runs(&self, shapes: &GatedAttentionShapes, subgroup: Option<u32>, granted: u32) -> bool {
        self.kernel.runs_with(subgroup)
            && !matches!(self.kernel, Kernel::Tiled(grid) if !grid.fits(self.v_block(shapes), granted))
    }

    /// As a GPU with or without registers for large tiles takes it.
    pub fn with_registers(self, few: bool) -> Self {
        Self { kernel: self.kernel.with_registers(few), ..self }
    }

    /// With its slab, and with half of it: at least two chunks.
    fn slabs(self) -> impl Iterator<Item = Self> {
        let half = match self.kernel {
            Kernel::Tiled(grid) if grid.slab > 8 => Some(Kernel::Tiled(Grid { slab: grid.slab / 2, ..grid })),
            _ => None,
        };
        [Some(self.kernel), half].into_iter().flatten().map(move |kernel| Self { kernel, ..self })
    }

    /// Chunks of four value dims of a workgroup: as few blocks as may be, and those alike.
    pub fn v_block(&self, shapes: &GatedAttentionShapes) -> u32 {
        v_block_of(shapes, self.v_chunks)
    }
}

fn v_block_of(shapes: &GatedAttentionShapes, most: u32) -> u32 {
    let v_chunks = shapes.v_dim.div_ceil(4);
    v_chunks.div_ceil(v_chunks.div_ceil(most))
}

/// Heads whose rows lie in tiles of their own: those of k if the tiles take all heads that share one, and else of q.
pub(super) fn heads(kernel: Kernel, shapes: &GatedAttentionShapes) -> u32 {
    if matches!(kernel, Kernel::Tiled(_) | Kernel::Matrices(_)) { shapes.kv_heads } else { shapes.q_heads }
}

/// Rows that lie in tiles together.
pub(super) fn rows_that_share(kernel: Kernel, shapes: &GatedAttentionShapes, chunk: Option<u32>) -> u32 {
    match chunk {
        Some(chunk) => chunk.min(shapes.q_len),
        None => shapes.q_len.saturating_mul(shapes.q_heads / heads(kernel, shapes).max(1)),
    }
}

/// Ranges of keys are multiples of this.
fn step(kernel: Kernel, v_block: u32) -> u32 {
    match kernel {
        Kernel::Tiled(grid) => grid.keys(v_block),
        Kernel::Rows { keys, .. } | Kernel::Subgroup { keys, .. } => keys,
        Kernel::Matrices(tile) => tile.keys,
    }
}

/// The first row of the table that applies. `subgroup`: the size of llvmpipe's; `granted`: bytes of workgroup memory.
pub(super) fn tile_for(
    adapter: Adapter,
    shapes: &GatedAttentionShapes,
    chunk: Option<u32>,
    subgroup: Option<u32>,
    granted: u32,
) -> Tile {
    let applies =
        |tile: &Tile| tile.adapter == adapter && tile.runs(shapes, subgroup, granted) && tile.takes(shapes, chunk);
    TILES.iter().flat_map(|tile| tile.slabs()).find(applies).unwrap_or(ANYWHERE)
}

/// Every tile that is right for these sizes on this device, with all its value dims, and with parts of them.
pub(super) fn tiles_for(
    config: &GatedAttentionConfig,
    shapes: &GatedAttentionShapes,
    (adapter, subgroup, granted): (Adapter, Option<u32>, u32),
) -> Vec<Tile> {
    let own = |tile: &&Tile| tile.adapter == adapter && tile.is_wide_enough(shapes, config.chunk());
    let widths = |tile: Tile| [1, 2, 4].map(|part| Tile { v_chunks: (tile.v_chunks / part).max(4), ..tile });
    let tiles = TILES.iter().chain(ALTERNATIVES).filter(own).flat_map(|tile| tile.slabs()).flat_map(widths);
    tiles.filter(|tile| tile.runs(shapes, subgroup, granted)).collect()
}

/// The tiles on cooperative matrices that run on this device, the best first; none unless the config asks for them. Value dims are
/// in blocks of 128: their sums take 64 registers.
pub(super) fn matrix_tiles(
    config: &GatedAttentionConfig,
    shapes: &GatedAttentionShapes,
    capabilities: &Capabilities,
) -> Result<Vec<Tile>> {
    if config.matrices == Matrices::None {
        return Ok(Vec::new());
    }
    let tier = MatrixTier::of(capabilities, |told| told.gated_attention)?;
    let rows = shapes.q_len.saturating_mul(shapes.q_heads / shapes.kv_heads.max(1));
    tiles_of(tier, rows, shapes, &capabilities.limits)
}

pub(super) fn tiles_of(
    tier: MatrixTier,
    rows: u32,
    shapes: &GatedAttentionShapes,
    limits: &wgpu::Limits,
) -> Result<Vec<Tile>> {
    const V_CHUNKS: u32 = 32;
    let tiles = RowTile::list(tier, rows, [shapes.key_dim, 4 * v_block_of(shapes, V_CHUNKS)], limits)?;
    Ok(tiles.into_iter().map(|tile| Tile::of(Kernel::Matrices(tile), V_CHUNKS)).collect())
}

/// The rows of the table that are for this device, the size of llvmpipe's subgroups, and bytes of workgroup memory.
pub(super) fn device(capabilities: &Capabilities) -> (Adapter, Option<u32>, u32) {
    let subgroup = capabilities.subgroup_size.filter(|_| capabilities.is_llvmpipe);
    (Adapter::of(capabilities), subgroup, capabilities.limits.max_compute_workgroup_storage_size)
}

/// Whether rows have something in common, and the invocations that share one lie in one subgroup, whatever its size.
pub(super) fn can_shuffle(config: &GatedAttentionConfig, least_subgroup: u32, kernel: Kernel, v_block: u32) -> bool {
    let Kernel::Tiled(grid) = kernel else { return false };
    Weighing::new(config, 1).divides_by_sum() && grid.can_shuffle(v_block, least_subgroup)
}

/// Keys that the state kernel, and at most the quadratic kernel, take in one step.
const KEYS_PER_STEP: u32 = 8;

/// What was chosen for a problem, before anything is compiled.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Choice {
    pub kernel: Kernel,
    /// Whether a tile's rows share by subgroup operations what they have in common.
    pub shuffle: bool,
    /// Whether the quadratic kernel, where it keeps its loops, reads q at each visit rather than keeping it.
    pub q_in_storage: bool,
    /// Chunks of four value dims per workgroup, and how many workgroups that makes.
    pub v_block: u32,
    pub blocks: u32,
    pub splits: u32,
    pub split_keys: u32,
    pub reason: String,
}

/// Tiles of the kernel that computes the states of chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    pub kernel: StateKernel,
    /// Chunks of four value dims per workgroup.
    pub v_block: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StateKernel {
    /// `gated_attention/tiled_chunk_state.wgsl`: its rows are key dims, and a slab is of tokens.
    Tiled(Grid),
    /// `gated_attention/chunk_state.wgsl`: four key dims to an invocation.
    Rows { workgroup: u32 },
}

impl StateKernel {
    /// Key dims that a workgroup owns.
    pub fn key_dims(self) -> u32 {
        match self {
            Self::Tiled(grid) => grid.rows(),
            Self::Rows { workgroup } => 4 * workgroup,
        }
    }
}

impl Choice {
    /// On a GPU 64 or 128 key dims by up to 128 value dims; on a CPU as the kernel that walks the keys.
    pub fn state(&self, key_dim: u32) -> State {
        match self.kernel {
            Kernel::Tiled(_) | Kernel::Matrices(_) => State {
                kernel: StateKernel::Tiled(grid([if key_dim <= 64 { 8 } else { 16 }, 2, 4, 2], 16)),
                v_block: self.v_block.div_ceil(self.v_block.div_ceil(32)),
            },
            Kernel::Rows { workgroup, .. } | Kernel::Subgroup { workgroup, .. } => {
                State { kernel: StateKernel::Rows { workgroup }, v_block: self.v_block }
            }
            Kernel::Own(none) => match none {},
        }
    }

    /// Loop iterations of its steps over so many tokens.
    pub fn state_iterations(&self, key_dim: u32, tokens: u32) -> u64 {
        let state = self.state(key_dim);
        let (step, per_step) = match state.kernel {
            StateKernel::Tiled(grid) => {
                let bring_v = (grid.slab * state.v_block).div_ceil(grid.width(state.v_block) * grid.height) + 1;
                (grid.slab, 1 + bring_v + grid.slab)
            }
            StateKernel::Rows { .. } => (KEYS_PER_STEP, state.v_block + 2),
        };
        u64::from(tokens.div_ceil(step)) * u64::from(per_step)
    }
}

/// Picks tiles: a pure function of config, problem and device, and of what a tuning takes in place of the table.
pub(super) fn select(
    config: &GatedAttentionConfig,
    problem: &Problem,
    capabilities: &Capabilities,
    offer: Option<&Offer>,
) -> Result<Choice> {
    let shapes = &problem.shapes;
    let (adapter, subgroup, granted) = device(capabilities);
    let by_matrices = matrix_tiles(config, shapes, capabilities)?;
    let adapter = if by_matrices.is_empty() { adapter } else { Adapter::Gpu };
    let table =
        || tile_for(adapter, shapes, config.chunk(), subgroup, granted).with_registers(capabilities.few_registers);
    let tile = offer.map(|offer| offer.tile).or(by_matrices.first().copied()).unwrap_or_else(table);
    let kernel = tile.kernel;
    let v_block = tile.v_block(shapes);
    let blocks = shapes.v_dim.div_ceil(4).div_ceil(v_block);
    let step = step(kernel, v_block);
    let on = match kernel {
        Kernel::Matrices(tile) => tile.tier.to_string(),
        _ => format!("on {adapter}"),
    };
    let mut reasons = vec![format!("{} rows to a workgroup {on}", kernel.rows())];
    let shuffle = capabilities.min_subgroup_size.is_some_and(|least| can_shuffle(config, least, kernel, v_block));
    match kernel {
        Kernel::Subgroup { workgroup, .. } => reasons.push(format!("subgroups of {workgroup}")),
        Kernel::Tiled(_) if shuffle => reasons.push("row statistics by subgroup operations".into()),
        Kernel::Tiled(_) | Kernel::Rows { .. } | Kernel::Matrices(_) => {}
    }
    if blocks > 1 {
        reasons.push(format!("{blocks} blocks of {} value dims", 4 * v_block));
    }

    let whole = Choice {
        kernel,
        shuffle,
        q_in_storage: tile.adapter == Adapter::SlowArrays,
        v_block,
        blocks,
        splits: 1,
        split_keys: shapes.kv_len.next_multiple_of(step),
        reason: String::new(),
    };
    if let Some(chunk) = config.chunk() {
        if let Some(cap) = capabilities.loop_cap {
            check_chunks_under_loop_cap(shapes, chunk, &whole, cap)?;
        }
        reasons.push(format!("chunks of {chunk} tokens"));
        return Ok(Choice { reason: reasons.join("; "), ..whole });
    }

    // The fewest splits that the driver, the work bound and the caller's own bound allow.
    let mut bound = capabilities.options.max_keys_per_split.unwrap_or(u32::MAX).max(step);
    let tiles = u64::from(rows_that_share(kernel, shapes, None).div_ceil(kernel.rows()));
    let workgroups = tiles * u64::from(shapes.batch) * u64::from(heads(kernel, shapes)) * u64::from(blocks);
    if let Some(keys) = offer.and_then(|offer| offer.range.0) {
        bound = bound.min(keys.max(step));
    } else if adapter == Adapter::Gpu && workgroups < ENOUGH_FOR_A_GPU {
        let keys = u64::from(shapes.kv_len) * workgroups / ENOUGH_FOR_A_GPU;
        let rows = product([shapes.batch, shapes.q_heads, shapes.q_len]);
        let least = least_range(shapes.kv_len, rows, shapes.v_dim, capabilities).max(LEAST_SPLIT);
        bound = bound.min((keys as u32).next_multiple_of(LEAST_SPLIT).max(least));
    }
    if let Some(cap) = capabilities.loop_cap {
        let keys = keys_under_loop_cap(shapes, &whole, cap);
        if keys < shapes.kv_len {
            reasons.push(format!("at most {keys} keys a workgroup, under the driver's cap of {cap} loop iterations"));
        }
        bound = bound.min(keys);
    }
    let flops_per_key = u64::from(kernel.rows()) * 2 * u64::from(shapes.key_dim + 4 * v_block);
    let by_work = capabilities.options.max_flops_per_dispatch / flops_per_key;
    bound = bound.min(u32::try_from(by_work).unwrap_or(u32::MAX).max(step));
    let split_keys = (bound - bound % step).min(whole.split_keys);
    // None where there are no keys: the combine kernel alone writes what a row without a key is.
    let splits = shapes.kv_len.div_ceil(split_keys.max(1));
    if splits > 1 {
        reasons.push(format!("{splits} ranges of {split_keys} keys, then combined"));
    } else if splits == 0 {
        reasons = vec!["no keys".into()];
    }
    // The combine kernel walks the ranges twice.
    if let Some(cap) = capabilities.loop_cap.filter(|&cap| splits > (cap - 16) / 2) {
        let reason = format!("combining {splits} ranges of keys passes this driver's cap of {cap} loop iterations");
        return Err(Error::Unsupported { reasons: vec![reason] });
    }
    Ok(Choice { splits, split_keys, reason: reasons.join("; "), ..whole })
}

/// Loop iterations of one invocation of the kernel that walks the keys, each run of a loop counting one more for its exit:
/// once, and per step of keys.
fn iterations(shapes: &GatedAttentionShapes, choice: &Choice) -> (u32, u32) {
    let (key_chunks, v_block) = (shapes.key_dim.div_ceil(4), choice.v_block);
    match choice.kernel {
        // Load, clear and write (four rows of every chunk).
        Kernel::Rows { .. } => (key_chunks + 1 + v_block + 1 + 6 * v_block + 16, 1 + key_chunks + 1 + v_block + 1),
        // Unrolled but for the four rows.
        Kernel::Subgroup { .. } => (5 * v_block + 16, 1),
        Kernel::Matrices(tile) => tile.iterations([shapes.key_dim, 4 * v_block]).into(),
        Kernel::Tiled(grid) => (key_chunks + 128, grid.iterations(shapes.key_dim, v_block)),
        Kernel::Own(none) => match none {},
    }
}

/// Loop iterations of the linear part of mixed chunks.
fn linear_iterations(shapes: &GatedAttentionShapes, choice: &Choice) -> u32 {
    match choice.kernel {
        Kernel::Rows { .. } | Kernel::Subgroup { .. } => {
            shapes.key_dim.div_ceil(4).div_ceil(2) * (choice.v_block + 2) + 1
        }
        // Without chunks, there is none.
        Kernel::Matrices(_) => 0,
        Kernel::Tiled(grid) => {
            let bring = (grid.slab * choice.v_block).div_ceil(grid.width(choice.v_block) * grid.height) + 1;
            shapes.key_dim.div_ceil(grid.slab) * (grid.slab + bring + 4) + 1
        }
        Kernel::Own(none) => match none {},
    }
}

/// Keys that one workgroup can walk without meeting the driver's cap on loop iterations.
fn keys_under_loop_cap(shapes: &GatedAttentionShapes, choice: &Choice, cap: u32) -> u32 {
    let (once, per_step) = iterations(shapes, choice);
    (cap.saturating_sub(once) / per_step).saturating_mul(step(choice.kernel, choice.v_block))
}

fn check_chunks_under_loop_cap(shapes: &GatedAttentionShapes, chunk: u32, choice: &Choice, cap: u32) -> Result<()> {
    let (once, per_step) = iterations(shapes, choice);
    let own = chunk.min(shapes.kv_len);
    let steps = u64::from(own.div_ceil(step(choice.kernel, choice.v_block)));
    let once = once + linear_iterations(shapes, choice);
    let needed = [
        ("a chunk", u64::from(once) + steps * u64::from(per_step)),
        ("the state of a chunk", u64::from(once) + choice.state_iterations(shapes.key_dim, own)),
        ("the sum over chunks", u64::from(shapes.kv_len.div_ceil(chunk)) + 1),
    ];
    let over = needed.into_iter().filter(|&(_, needed)| needed > cap.into());
    let reasons: Vec<String> = over
        .map(|(what, needed)| {
            format!(
                "{what} takes {needed} loop iterations, past this driver's cap of {cap}, with chunks of {chunk} tokens"
            )
        })
        .collect();
    if reasons.is_empty() { Ok(()) } else { Err(Error::Unsupported { reasons }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::GatedAttention;
    use crate::gated_attention::config::GauMode;

    fn capabilities(is_cpu: bool, loop_cap: Option<u32>) -> Capabilities {
        let old = loop_cap.is_some();
        Capabilities { is_cpu, loop_cap, slow_arrays: old, is_llvmpipe: old, ..Capabilities::plain() }
    }

    fn problem(len: u32, key_dim: u32, v_dim: u32) -> Problem {
        let shapes = GatedAttentionShapes::gau(1, 1, len, key_dim, v_dim);
        Problem::contiguous::<GatedAttention>(&GatedAttentionConfig::new(), shapes)
    }

    #[test]
    fn blocks_cover_every_width_evenly() {
        let config = GatedAttentionConfig::new();
        for (is_cpu, loop_cap) in [(true, Some(65_535)), (true, None), (false, None)] {
            for v_dim in (1..300).chain([1024, 1536, 1537, 3071, 3072, 5000]) {
                let choice = select(&config, &problem(64, 128, v_dim), &capabilities(is_cpu, loop_cap), None).unwrap();
                let v_chunks = v_dim.div_ceil(4);
                assert!(
                    choice.v_block <= v_chunks && choice.v_block * choice.blocks >= v_chunks,
                    "{v_dim}: {choice:?}"
                );
                assert!(choice.v_block * (choice.blocks - 1) < v_chunks, "{v_dim}: {choice:?}");
            }
        }
    }

    #[test]
    fn a_gpu_gets_tiles_by_rows_and_widths() {
        let config = GatedAttentionConfig::new();
        let pick = |len, v_dim, granted| {
            let mut gpu = capabilities(false, None);
            gpu.limits.max_compute_workgroup_storage_size = granted;
            let choice = select(&config, &problem(len, 128, v_dim), &gpu, None).unwrap();
            (choice.kernel, 4 * choice.v_block, choice.split_keys)
        };
        let tiled = |grid_of, slab| Kernel::Tiled(grid(grid_of, slab));
        assert_eq!(pick(65_536, 128, 16 << 10), (tiled([8, 2, 8, 2], 16), 128, 65_536));
        assert_eq!(pick(65_536, 128, 32 << 10), (tiled([8, 2, 8, 2], 16), 128, 65_536));
        assert_eq!(pick(4096, 1536, 16 << 10), (tiled([8, 2, 4, 4], 8), 256, 4096), "384 workgroups occupy a GPU");
        assert_eq!(pick(4096, 1536, 24 << 10), (tiled([8, 2, 4, 4], 16), 256, 4096));
        assert_eq!(pick(1024, 128, 16 << 10), (tiled([8, 2, 8, 2], 16), 128, 256), "eight do not");
        assert_eq!(pick(16, 1536, 16 << 10), (tiled([4, 1, 4, 2], 8), 256, 128), "one step");
    }

    #[test]
    fn a_range_of_keys_stays_under_the_loop_cap() {
        let cap = 65_535;
        let config = GatedAttentionConfig::new();
        for (key_dim, v_dim) in [(1, 1), (64, 64), (128, 1536), (256, 4096)] {
            for subgroup_size in [None, Some(8)] {
                let problem = problem(1 << 20, key_dim, v_dim);
                let capabilities = Capabilities { subgroup_size, ..capabilities(true, Some(cap)) };
                let choice = select(&config, &problem, &capabilities, None).unwrap();
                let (once, per_step) = iterations(&problem.shapes, &choice);
                let (Kernel::Rows { keys, .. } | Kernel::Subgroup { keys, .. }) = choice.kernel else { unreachable!() };
                assert_eq!(subgroup_size.is_some(), matches!(choice.kernel, Kernel::Subgroup { .. }), "{choice:?}");
                assert!(once + choice.split_keys / keys * per_step <= cap, "{choice:?}");
                assert!(u64::from(choice.splits) * u64::from(choice.split_keys) >= 1 << 20);
                assert_eq!(choice.split_keys % keys, 0);
            }
        }
    }

    #[test]
    fn chunks_past_the_loop_cap_are_refused() {
        let chunks = |chunk| {
            let GauMode::MixedChunk { quadratic, linear, .. } = GauMode::MIXED_CHUNK else { unreachable!() };
            let config = GatedAttentionConfig::new().mode(GauMode::MixedChunk { chunk, quadratic, linear });
            select(&config, &problem(1 << 20, 128, 1536), &capabilities(true, Some(65_535)), None)
        };
        assert!(chunks(256).is_ok());
        for chunk in [4, 1 << 20] {
            assert!(matches!(chunks(chunk), Err(Error::Unsupported { .. })), "{chunk}");
        }
    }
}
