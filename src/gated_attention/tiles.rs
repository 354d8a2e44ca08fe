//! The tiles that a problem is cut into: a pure function of config, problem and device.

use super::config::GatedAttentionConfig;
use super::plan::Problem;
use super::shapes::GatedAttentionShapes;
use crate::context::Capabilities;
use crate::{Error, Result};

const ANY: u32 = u32::MAX;

/// Tiles of the quadratic and the state kernel: the first row that applies.
///
/// | adapter | queries | invocations | value dims | why |
/// |---|---|---|---|---|
/// | CPU, old llvmpipe | any | 8 | 16 | its compiler takes minutes over large arrays; q is read from storage |
/// | llvmpipe with subgroups | 64 and more | 8 | 160 | reads each key once for all lanes, and unrolls, so that q and o are no arrays |
/// | CPU | any | 8 | 1536 | one vector of eight lanes; recomputing scores costs more than outputs beyond the first cache |
/// | GPU | up to 32 | 8 | 128 | fewer idle lanes |
/// | GPU | more | 32 | 128 | one subgroup of most GPUs; 128 queries share every key read |
#[rustfmt::skip]
pub(super) const TILES: &[Tile] = &[
    Tile { adapter: Adapter::SlowArrays, queries: [0, ANY], dims: ANY, subgroup: false, workgroup: 8, keys: 8, v_chunks: 4 },
    Tile { adapter: Adapter::Cpu, queries: [64, ANY], dims: 80, subgroup: true, workgroup: 8, keys: 4, v_chunks: 20 },
    Tile { adapter: Adapter::Cpu, queries: [64, ANY], dims: 160, subgroup: true, workgroup: 8, keys: 2, v_chunks: 40 },
    Tile { adapter: Adapter::Cpu, queries: [0, ANY], dims: ANY, subgroup: false, workgroup: 8, keys: 8, v_chunks: 384 },
    Tile { adapter: Adapter::Gpu, queries: [0, 32], dims: ANY, subgroup: false, workgroup: 8, keys: 8, v_chunks: 32 },
    Tile { adapter: Adapter::Gpu, queries: [0, ANY], dims: ANY, subgroup: false, workgroup: 32, keys: 8, v_chunks: 32 },
];

#[derive(Clone, Copy, Debug)]
pub(super) struct Tile {
    pub adapter: Adapter,
    /// For the fewest and the most queries (of a chunk, if there are chunks).
    queries: [u32; 2],
    /// The largest key_dim and v_dim.
    dims: u32,
    /// For llvmpipe with subgroups of the workgroup's size, and no chunks: each invocation reads one key's part and tells it
    /// to all, and every loop is unrolled, so that q and o are no arrays.
    pub subgroup: bool,
    /// Invocations per workgroup, of four queries or four key dims each.
    pub workgroup: u32,
    /// Keys of a step.
    pub keys: u32,
    /// Most chunks of four value dims per workgroup.
    pub v_chunks: u32,
}

impl Tile {
    /// Whether it is for these dims, in chunks or not.
    pub fn takes(&self, shapes: &GatedAttentionShapes, chunked: bool) -> bool {
        shapes.key_dim.max(shapes.v_dim) <= self.dims && !(self.subgroup && chunked)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Adapter {
    /// A CPU whose driver compiles kernels with large private arrays slowly.
    SlowArrays,
    Cpu,
    Gpu,
}

/// Keys that the quadratic kernel, and tokens that the state kernel, take in one step.
const KEYS_PER_STEP: u32 = 8;

/// What was chosen for a problem, before anything is compiled.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Choice {
    pub workgroup: u32,
    /// Whether the quadratic kernel reads q at each visit rather than keeping it.
    pub q_in_storage: bool,
    /// Keys of a step of the quadratic kernel, and whether the workgroup is a subgroup that shares them.
    pub keys: u32,
    pub subgroup: bool,
    /// Chunks of four value dims per workgroup, and how many workgroups that makes.
    pub v_block: u32,
    pub blocks: u32,
    pub splits: u32,
    pub split_keys: u32,
    pub reason: String,
}

/// Picks tiles: a pure function of config, problem and device.
pub(super) fn select(config: &GatedAttentionConfig, problem: &Problem, capabilities: &Capabilities) -> Result<Choice> {
    let shapes = &problem.shapes;
    let adapter = match (capabilities.slow_arrays, capabilities.is_cpu) {
        (true, _) => Adapter::SlowArrays,
        (false, true) => Adapter::Cpu,
        (false, false) => Adapter::Gpu,
    };
    let queries = config.chunk().map_or(shapes.q_len, |chunk| chunk.min(shapes.q_len));
    let applies = |tile: &&Tile| {
        let [least, most] = tile.queries;
        let shares = capabilities.is_llvmpipe && capabilities.subgroup_size == Some(tile.workgroup);
        tile.adapter == adapter
            && (least..=most).contains(&queries)
            && tile.takes(shapes, config.chunk().is_some())
            && (!tile.subgroup || shares)
    };
    let tile = TILES.iter().find(applies).unwrap_or(&TILES[0]);
    let v_chunks = shapes.v_dim.div_ceil(4);
    let v_block = v_chunks.div_ceil(v_chunks.div_ceil(tile.v_chunks));
    let blocks = v_chunks.div_ceil(v_block);
    let workgroup = tile.workgroup;
    let mut reasons = vec![format!("{workgroup} invocations, four queries each, on a {adapter:?}")];
    reasons.extend(tile.subgroup.then(|| format!("subgroups of {workgroup}")));
    if blocks > 1 {
        reasons.push(format!("{blocks} blocks of {} value dims", 4 * v_block));
    }

    let whole = Choice {
        workgroup,
        q_in_storage: adapter == Adapter::SlowArrays,
        keys: tile.keys,
        subgroup: tile.subgroup,
        v_block,
        blocks,
        splits: 1,
        split_keys: shapes.kv_len.next_multiple_of(KEYS_PER_STEP),
        reason: String::new(),
    };
    if let Some(chunk) = config.chunk() {
        if let Some(cap) = capabilities.loop_cap {
            check_chunks_under_loop_cap(shapes, chunk, v_block, cap)?;
        }
        reasons.push(format!("chunks of {chunk} tokens"));
        return Ok(Choice { reason: reasons.join("; "), ..whole });
    }

    // The fewest splits that the driver, the work bound and the caller's own bound allow.
    let mut bound = capabilities.options.max_keys_per_split.unwrap_or(u32::MAX).max(KEYS_PER_STEP);
    if let Some(cap) = capabilities.loop_cap {
        let keys = keys_under_loop_cap(shapes, v_block, cap);
        if keys < shapes.kv_len {
            reasons.push(format!("at most {keys} keys a workgroup, under the driver's cap of {cap} loop iterations"));
        }
        bound = bound.min(keys);
    }
    let flops_per_key = u64::from(4 * workgroup) * 2 * u64::from(shapes.key_dim + 4 * v_block);
    let by_work = capabilities.options.max_flops_per_dispatch / flops_per_key;
    bound = bound.min(u32::try_from(by_work).unwrap_or(u32::MAX).max(KEYS_PER_STEP));
    let split_keys = (bound - bound % KEYS_PER_STEP).min(whole.split_keys);
    let splits = shapes.kv_len.div_ceil(split_keys);
    if splits > 1 {
        reasons.push(format!("{splits} ranges of {split_keys} keys, then combined"));
    }
    // The combine kernel walks the ranges twice.
    if let Some(cap) = capabilities.loop_cap.filter(|&cap| splits > (cap - 16) / 2) {
        let reason = format!("combining {splits} ranges of keys passes this driver's cap of {cap} loop iterations");
        return Err(Error::Unsupported { reasons: vec![reason] });
    }
    Ok(Choice { splits, split_keys, reason: reasons.join("; "), ..whole })
}

/// Loop iterations of one invocation of the quadratic kernel, each run of a loop counting one more for its exit: once,
/// and per step of keys.
fn quadratic_iterations(shapes: &GatedAttentionShapes, v_block: u32) -> (u32, u32) {
    let key_chunks = shapes.key_dim.div_ceil(4);
    // Load, clear and write (four rows of every chunk).
    let once = key_chunks + 1 + v_block + 1 + 6 * v_block + 16;
    (once, 1 + key_chunks + 1 + v_block + 1)
}

/// Keys that one workgroup can walk without meeting the driver's cap on loop iterations.
fn keys_under_loop_cap(shapes: &GatedAttentionShapes, v_block: u32, cap: u32) -> u32 {
    let (once, per_step) = quadratic_iterations(shapes, v_block);
    (cap.saturating_sub(once) / per_step).saturating_mul(KEYS_PER_STEP)
}

fn check_chunks_under_loop_cap(shapes: &GatedAttentionShapes, chunk: u32, v_block: u32, cap: u32) -> Result<()> {
    let (once, per_step) = quadratic_iterations(shapes, v_block);
    let steps = u64::from(chunk.min(shapes.kv_len).div_ceil(KEYS_PER_STEP));
    let linear = shapes.key_dim.div_ceil(4).div_ceil(2) * (v_block + 2) + 1;
    let needed = [
        ("a chunk", u64::from(once + linear) + steps * u64::from(per_step)),
        ("the state of a chunk", u64::from(once) + steps * u64::from(v_block + 2)),
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
    use crate::ContextOptions;
    use crate::gated_attention::config::GauMode;

    fn capabilities(is_cpu: bool, loop_cap: Option<u32>) -> Capabilities {
        Capabilities {
            limits: wgpu::Limits::default(),
            features: wgpu::Features::empty(),
            is_cpu,
            loop_cap,
            slow_arrays: loop_cap.is_some(),
            is_llvmpipe: loop_cap.is_some(),
            subgroup_size: None,
            min_subgroup_size: None,
            options: ContextOptions::default(),
        }
    }

    fn problem(len: u32, key_dim: u32, v_dim: u32) -> Problem {
        Problem::contiguous(GatedAttentionShapes::gau(1, 1, len, key_dim, v_dim))
    }

    #[test]
    fn blocks_cover_every_width_evenly() {
        let config = GatedAttentionConfig::new();
        for (is_cpu, loop_cap) in [(true, Some(65_535)), (true, None), (false, None)] {
            for v_dim in (1..300).chain([1024, 1536, 1537, 3071, 3072, 5000]) {
                let choice = select(&config, &problem(64, 128, v_dim), &capabilities(is_cpu, loop_cap)).unwrap();
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
    fn a_range_of_keys_stays_under_the_loop_cap() {
        let cap = 65_535;
        let config = GatedAttentionConfig::new();
        for (key_dim, v_dim) in [(1, 1), (64, 64), (128, 1536), (256, 4096)] {
            let problem = problem(1 << 20, key_dim, v_dim);
            let choice = select(&config, &problem, &capabilities(true, Some(cap))).unwrap();
            let (once, per_step) = quadratic_iterations(&problem.shapes, choice.v_block);
            assert!(once + choice.split_keys / KEYS_PER_STEP * per_step <= cap, "{choice:?}");
            assert!(u64::from(choice.splits) * u64::from(choice.split_keys) >= 1 << 20);
            assert_eq!(choice.split_keys % KEYS_PER_STEP, 0);
        }
    }

    #[test]
    fn chunks_past_the_loop_cap_are_refused() {
        let chunks = |chunk| {
            let GauMode::MixedChunk { quadratic, linear, .. } = GauMode::MIXED_CHUNK else { unreachable!() };
            let config = GatedAttentionConfig::new().mode(GauMode::MixedChunk { chunk, quadratic, linear });
            select(&config, &problem(1 << 20, 128, 1536), &capabilities(true, Some(65_535)))
        };
        assert!(chunks(256).is_ok());
        for chunk in [4, 1 << 20] {
            assert!(matches!(chunks(chunk), Err(Error::Unsupported { .. })), "{chunk}");
        }
    }
}
