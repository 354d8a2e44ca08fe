//! The specializations of the kernels under `shaders/linear_attention/`.

mod sources;

use self::sources::Maker;
use super::LinearAttention;
use super::config::{FeatureMap, LinearAttentionConfig, LinearMode, Normalization};
use super::plan::{Problem, heads, tokens};
use super::shapes::LinearAttentionShapes;
use super::tiles::Tiles;
use crate::context::Capabilities;
use crate::dtype::{DType, Storage};
use crate::wgsl::{self, Source, Specialization, pick, source};

/// Invocations per workgroup of the kernels that copy or scan states.
pub(super) const STATE_WORKGROUP: u32 = 64;
/// Vec4s of features that one workgroup of `features.wgsl` computes: its `BLOCK`.
pub(super) const FEATURE_BLOCK: u32 = 16;
/// Keys that a kernel takes in one step.
const KEYS_PER_STEP: u32 = 8;

/// What one workgroup owns, by adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tile {
    /// Invocations, each owning four rows or four features.
    pub workgroup: u32,
    /// Keys per chunk, at least: the rows of at least one workgroup.
    pub chunk_len: u32,
    /// Value dims, in vec4s, that an invocation of `chunk_state.wgsl` adds up.
    v_block: u32,
    /// Whether the workgroup is one subgroup, whose invocations read the chunk's own keys for each other.
    subgroup: bool,
}

impl Tile {
    /// One vector of eight lanes, and all value dims of a head of 64, to share each key that is loaded.
    const CPU: Self = Self { workgroup: 8, chunk_len: 64, v_block: 16, subgroup: false };
    /// The same where that vector is a subgroup.
    const CPU_SUBGROUP: Self = Self { subgroup: true, ..Self::CPU };
    /// One subgroup of most GPUs, for features of whole rows; all else is in `tiles.rs`.
    pub const GPU: Self = Self { workgroup: 32, chunk_len: 128, v_block: 4, subgroup: false };

    pub fn select(capabilities: &Capabilities) -> Self {
        match capabilities {
            Capabilities { is_llvmpipe: true, subgroup_size: Some(8), .. } => Self::CPU_SUBGROUP,
            Capabilities { is_cpu: true, .. } => Self::CPU,
            _ => Self::GPU,
        }
    }

    /// Rows that one workgroup owns.
    pub fn rows(&self) -> u32 {
        4 * self.workgroup
    }

    pub fn v_block(&self, v_dim: u32) -> u32 {
        self.v_block.min(v_dim.div_ceil(4))
    }
}

/// How a map is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// φ(q)·ψ(k), dim by dim.
    Plain,
    /// Σ exp(q + k), dim by dim.
    Exponential,
    /// Efficient Attention.
    Columns,
    Taylor2,
}

impl Kind {
    pub fn of(config: &LinearAttentionConfig) -> Self {
        match config.feature_map {
            FeatureMap::Taylor2 { .. } => Self::Taylor2,
            _ if config.is_efficient_attention() => Self::Columns,
            map if map.running_max().is_some() => Self::Exponential,
            _ => Self::Plain,
        }
    }
}

/// Whether the features of queries, and of keys, are computed by a kernel of their own: maps that need whole rows.
pub(super) fn needs_features(map: FeatureMap) -> (bool, bool) {
    match map {
        FeatureMap::Cosine | FeatureMap::Favor { .. } => (true, true),
        FeatureMap::Softmax => (true, false),
        _ => (false, false),
    }
}

/// Vec4s before a feature's value dims in a state of the workspace.
pub(super) fn headers(config: &LinearAttentionConfig) -> u32 {
    if config.feature_map.running_max().is_some() { 2 } else { 1 }
}

/// Vec4s per feature of a state in the workspace.
pub(super) fn state_row(config: &LinearAttentionConfig, v_dim: u32) -> u32 {
    headers(config) + v_dim.div_ceil(4)
}

/// How q and k are stored where their features are in the workspace: as f32. The others are as the problem has them.
pub(super) fn in_workspace(config: &LinearAttentionConfig) -> Vec<(&'static str, Storage)> {
    let (for_queries, for_keys) = needs_features(config.feature_map);
    let names = [for_queries.then_some("q"), for_keys.then_some("k")];
    names.into_iter().flatten().map(|name| (name, Storage::Plain(DType::F32))).collect()
}

/// The kernels of one plan.
#[derive(Clone, Debug)]
pub(super) struct Kernels {
    pub query_features: Option<Specialization>,
    pub key_features: Option<Specialization>,
    pub chunk_state: Specialization,
    pub prefix: Specialization,
    pub output: Specialization,
    pub load_state: Specialization,
    pub store_state: Specialization,
    pub step: Specialization,
}

impl Kernels {
    pub fn new(config: &LinearAttentionConfig, problem: &Problem, tile: &Tile) -> Self {
        let make = Maker::new(config, problem, tile);
        Self {
            query_features: make.for_queries.then(|| make.features("q")),
            key_features: make.for_keys.then(|| make.features("k")),
            chunk_state: make.chunk_state(),
            prefix: make.prefix(),
            output: make.output(),
            load_state: make.load_state(),
            store_state: make.store_state(),
            step: make.step(),
        }
    }

    /// The same with a GPU's tiles, where there are any.
    pub fn tiled(self, config: &LinearAttentionConfig, problem: &Problem, tiles: Option<&Tiles>) -> Self {
        let Some(tiles) = tiles else { return self };
        let (chunk_state, output) = (tiles.chunk_state(config, problem), tiles.output(config, problem));
        Self { chunk_state, output, ..self }
    }

    /// The kernel that computes features of queries, or of keys, where the map needs one.
    pub fn features(&self, queries: bool) -> Option<&Specialization> {
        if queries { self.query_features.as_ref() } else { self.key_features.as_ref() }
    }

    fn all(self, step: bool) -> impl Iterator<Item = Specialization> {
        let states = [self.chunk_state, self.prefix, self.output, self.load_state, self.store_state];
        let optional = [step.then_some(self.step), self.query_features, self.key_features];
        states.into_iter().chain(optional.into_iter().flatten())
    }
}

/// The file of a map that takes each dim for itself; what another kernel has computed is taken as it is.
pub(super) fn elementwise(map: FeatureMap) -> &'static Source {
    match map {
        FeatureMap::EluPlusOne => source!("linear_attention/map_elu_plus_one"),
        FeatureMap::Relu => source!("linear_attention/map_relu"),
        FeatureMap::OnePlusRelu => source!("linear_attention/map_one_plus_relu"),
        _ => source!("linear_attention/map_identity"),
    }
}

/// Features whose weights the step kernel can hold in workgroup memory: for one vector at a time, and for key and query.
const MOST_STEP_FEATURES: u32 = 3072;
const MOST_STORED_STEP_FEATURES: u32 = 2016;

/// Whether the kernel for one token can do this, with a state in f32 or in 16 bits.
pub(super) fn can_step(
    config: &LinearAttentionConfig,
    shapes: &LinearAttentionShapes,
    in_f32: bool,
    loop_cap: Option<u32>,
) -> bool {
    let features = shapes.features(config.feature_map);
    // Per query head and for the key, a walk over all features for every value dim of the invocation; and the walks that
    // compute weights, each of them with a search under the Taylor map.
    let heads = 1 + u64::from(shapes.q_heads / shapes.kv_heads);
    let dims = u64::from(shapes.v_dim.div_ceil(STATE_WORKGROUP)) + 2;
    let search = if Kind::of(config) == Kind::Taylor2 { u64::from(shapes.head_dim) + 2 } else { 1 };
    let own = u64::from(features.div_ceil(STATE_WORKGROUP)) + 1;
    let iterations = heads * (dims * u64::from(features + 1) + 3 * own * search + 3 * u64::from(STATE_WORKGROUP + 1));
    config.mode == LinearMode::Causal
        && features <= pick(in_f32, MOST_STEP_FEATURES, MOST_STORED_STEP_FEATURES)
        && loop_cap.is_none_or(|cap| iterations < u64::from(cap))
}

/// The most loop iterations of one invocation over all kernels, counting one more for the exit of each run of a loop.
pub(super) fn most_loop_iterations(
    config: &LinearAttentionConfig,
    shapes: &LinearAttentionShapes,
    tile: &Tile,
    tiles: Option<&Tiles>,
    chunk_len: u32,
    chunks: u32,
) -> u64 {
    let features = u64::from(shapes.features(config.feature_map));
    let v_chunks = u64::from(shapes.v_dim.div_ceil(4));
    let largest = tiles.map(|tiles| tiles.most_loop_iterations(config, shapes, chunk_len));
    let (chunk_len, chunks) = (u64::from(chunk_len), u64::from(chunks));
    let kind = Kind::of(config);
    let dim_chunks = if kind == Kind::Taylor2 { u64::from(shapes.head_dim) } else { features }.div_ceil(4);
    let steps = chunk_len.div_ceil(KEYS_PER_STEP.into());

    let v_block = u64::from(tile.v_block(shapes.v_dim));
    let feature_search = if kind == Kind::Taylor2 { u64::from(shapes.head_dim) + 8 } else { 8 };
    let maximum = if kind == Kind::Exponential || kind == Kind::Columns { chunk_len } else { 0 };
    let chunk_state = feature_search + maximum + steps * (v_block + 2) + 6 * (v_block + 2);

    let state = features.div_ceil(4) * (v_chunks + 2) + dim_chunks + 2;
    // An exponential step also finds maxima, may weigh seven keys each by itself, and rescales the sums up to eight times.
    let own = match kind {
        Kind::Exponential => 16 * (dim_chunks + 2) + 9 * (v_chunks + 1) + 18,
        _ => dim_chunks + 2,
    };
    let own = if config.mode == LinearMode::Causal { steps * (own + v_chunks + 2) } else { 0 };
    let output = dim_chunks + v_chunks + state + own + 6 * (v_chunks + 1) + 8;

    let largest = largest.unwrap_or(chunk_state.max(output));

    let rows = u64::from(shapes.head_dim) + 2;
    let features_kernel = 4 * rows + u64::from(FEATURE_BLOCK) * (rows + 8);
    [largest, chunks + 2, 2 * (features + 2), features_kernel].into_iter().max().unwrap_or(0)
}

/// A map of every kind.
pub(super) fn every_map() -> [FeatureMap; 9] {
    [
        FeatureMap::EluPlusOne,
        FeatureMap::Exp,
        FeatureMap::Relu,
        FeatureMap::OnePlusRelu,
        FeatureMap::Identity,
        FeatureMap::Softmax,
        FeatureMap::Cosine,
        FeatureMap::Taylor2 { scale: None },
        FeatureMap::Favor { scale: None },
    ]
}

/// Every specialization that a plan can pick, up to the head dims (which are sampled).
#[doc(hidden)]
#[must_use]
pub fn specializations() -> Vec<Specialization> {
    let favor = FeatureMap::Favor { scale: None };
    let mut found = Vec::new();
    for map in every_map() {
        for (head_dim, v_dim, projection) in [(1, 1, 1), (3, 5, 7), (64, 64, 128), (256, 256, 1024), (72, 80, 30)] {
            for mode in [LinearMode::Full, LinearMode::Causal] {
                for normalization in [Normalization::default(), Normalization::None] {
                    let config = LinearAttentionConfig::new().mode(mode).feature_map(map).normalization(normalization);
                    if config.check().is_err() {
                        continue;
                    }
                    let mut shapes = LinearAttentionShapes::new(1, 1, 1, head_dim);
                    shapes.v_dim = v_dim;
                    shapes.projection_rows = (map == favor).then_some(projection);
                    shapes.kv_lens = mode == LinearMode::Full && normalization == Normalization::None;
                    shapes.state_out = true;
                    let problem = Problem::contiguous::<LinearAttention>(&config, shapes);
                    found.extend(tokens::specializations(&config, &problem));
                    found.extend(heads::specializations(&config, &problem));
                    let tiles = Tiles::of(&config, &shapes);
                    // Tiles in all flags only at one head dim.
                    let normal = config.normalization(Normalization::default());
                    let tiled = head_dim == 64 || normal == config || normal.check().is_err();
                    for (tile, tiles) in [(Tile::CPU, None), (Tile::CPU_SUBGROUP, None), (Tile::GPU, Some(&tiles))] {
                        if tiles.is_some() && !tiled {
                            continue;
                        }
                        let step = can_step(&config, &shapes, true, None);
                        let kernels = Kernels::new(&config, &problem, &tile).tiled(&config, &problem, tiles);
                        found.extend(kernels.all(step));
                        if can_step(&config, &shapes, false, None) {
                            let mut stored = problem.clone();
                            stored.change("state_s", |layout| layout.storage = Storage::PackedBF16);
                            found.push(Kernels::new(&config, &stored, &tile).step);
                        }
                    }
                }
            }
        }
    }
    wgsl::distinct(found)
}
