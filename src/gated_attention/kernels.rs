//! The kernels of gated attention: the source of each specialization.

use super::GatedAttention;
use super::config::{Divisor, GatedAttentionConfig, GauMode, GauWeights, QuadraticDivisor};
use super::plan::Problem;
use super::shapes::GatedAttentionShapes;
use super::tiles::{Choice, StateKernel, can_shuffle, tile_for, tiles_for, tiles_of};
use crate::Causal;
use crate::adapter::Adapter;
use crate::dtype::Storage;
use crate::matrices::{MatrixTier, RowTile};
use crate::row_kernel::Kernel;
use crate::tensor::Layout;
use crate::tile::Grid;
use crate::wgsl::{self, Constant, Source, Specialization, pick, source};

/// Invocations of the kernels that only move or add.
pub(super) const FLAT_WORKGROUP: u32 = 64;
/// How scores become weights, as the kernels take it.
pub(super) struct Weighing {
    pub softmax: bool,
    pub log_n: bool,
    pub scale: f64,
    pub scale_floor: u32,
    /// One of the laws of `divisor.wgsl`, and its number.
    pub divisor_law: u32,
    pub divisor: f64,
}

/// The laws of `gated_attention/divisor.wgsl`.
mod divide_by {
    pub const NONE: u32 = 0;
    pub const FIXED: u32 = 1;
    pub const LEN: u32 = 2;
    pub const LEN_SQUARED: u32 = 3;
    pub const SUM: u32 = 4;
}

impl Weighing {
    /// Whether a row is divided by the sum of its weights.
    pub fn divides_by_sum(&self) -> bool {
        self.divisor_law == divide_by::SUM
    }

    pub fn new(config: &GatedAttentionConfig, key_dim: u32) -> Self {
        let s = f64::from(key_dim);
        let squared_relu = |divisor_law, divisor| Self {
            softmax: false,
            log_n: false,
            scale: 1.0,
            scale_floor: 1,
            divisor_law,
            divisor,
        };
        let softmax = |scale| Self { softmax: true, scale, ..squared_relu(divide_by::SUM, 0.0) };
        if let GauMode::MixedChunk { chunk, quadratic, .. } = config.mode {
            let divisor = match quadratic {
                QuadraticDivisor::ChunkDim => f64::from(chunk) * s,
                QuadraticDivisor::Fixed(divisor) => divisor.into(),
            };
            // The linear part has another divisor, so this one goes into the scale of q·k before it is squared.
            return Self { scale: divisor.sqrt().recip(), ..squared_relu(divide_by::NONE, 1.0) };
        }
        match config.weights {
            GauWeights::SquaredRelu(Divisor::LenDim) => squared_relu(divide_by::LEN, s),
            GauWeights::SquaredRelu(Divisor::FixedLenDim { len }) => squared_relu(divide_by::FIXED, f64::from(len) * s),
            GauWeights::SquaredRelu(Divisor::LenSquared) => squared_relu(divide_by::LEN_SQUARED, 1.0),
            GauWeights::SquaredRelu(Divisor::RowSum { eps }) => squared_relu(divide_by::SUM, eps.into()),
            GauWeights::Softmax => softmax(s.sqrt().recip()),
            GauWeights::SoftmaxLogN { base, floor } => {
                let scale = (s.sqrt() * f64::from(base).ln()).recip();
                Self { log_n: true, scale_floor: floor, ..softmax(scale) }
            }
        }
    }
}

/// The kernel that walks the keys; `partial`, for another that combines ranges of them.
pub(super) fn walk(config: &GatedAttentionConfig, problem: &Problem, choice: &Choice, partial: bool) -> Specialization {
    let shapes = &problem.shapes;
    let weighing = Weighing::new(config, shapes.key_dim);
    let chunked = config.chunk().is_some();
    let vec4_keys = problem.is_vec4(if chunked { &["q", "k", "q_lin"] } else { &["q", "k"] });
    let mut fragments = vec![
        source!("gated_attention/params"),
        source!("shared/steps"),
        pick(
            matches!(choice.kernel, Kernel::Tiled(_) | Kernel::Matrices(_)),
            source!("shared/steps_together"),
            source!("shared/steps_apart"),
        ),
        pick(vec4_keys, source!("gated_attention/q_vec4"), source!("gated_attention/q_scalar")),
        match (shapes.shared_z, vec4_keys) {
            (true, _) => source!("gated_attention/k_is_q"),
            (false, true) => source!("gated_attention/k_vec4"),
            (false, false) => source!("gated_attention/k_scalar"),
        },
        pick(problem.is_vec4(&["v"]), source!("gated_attention/v_vec4"), source!("gated_attention/v_scalar")),
        pick(shapes.kv_lens, source!("shared/kv_lens"), source!("shared/no_kv_lens")),
        source!("gated_attention/divisor"),
        source!("shared/workgroup_index"),
    ];
    fragments.extend(map_fragments(problem.shapes.shared_z, partial));
    if chunked {
        fragments.push(match (shapes.shared_z, vec4_keys) {
            (true, _) => source!("gated_attention/q_lin_is_q"),
            (false, true) => source!("gated_attention/q_lin_vec4"),
            (false, false) => source!("gated_attention/q_lin_scalar"),
        });
    }
    if partial {
        fragments.push(source!("gated_attention/write_partial"));
    } else {
        fragments.push(source!("gated_attention/write_result"));
        fragments.extend(output_fragments(problem));
    }
    let (kernel, mut constants, own) = match choice.kernel {
        Kernel::Tiled(grid) => tiled(choice, grid, chunked),
        Kernel::Matrices(tile) => cooperative(problem, choice, tile),
        Kernel::Rows { workgroup, keys } => quadratic([workgroup, keys], false, choice.q_in_storage, chunked),
        Kernel::Subgroup { workgroup, keys } => quadratic([workgroup, keys], true, false, chunked),
        Kernel::Own(none) => match none {},
    };
    fragments.extend(own);
    constants.extend([
        ("KEY_DIM", Constant::U32(shapes.key_dim)),
        ("V_DIM", Constant::U32(shapes.v_dim)),
        ("V_BLOCK", Constant::U32(choice.v_block)),
        ("SOFTMAX", Constant::Bool(weighing.softmax)),
        ("LOG_N", Constant::Bool(weighing.log_n)),
        ("DIVISOR", Constant::U32(weighing.divisor_law)),
    ]);
    Specialization { kernel, constants, fragments, storage: Vec::new() }.of(problem, &[])
}

/// A kernel's file, its own constants and its own fragments.
type Parts = (&'static Source, Vec<(&'static str, Constant)>, Vec<&'static Source>);

fn tiled(choice: &Choice, grid: Grid, chunked: bool) -> Parts {
    let mut fragments = vec![
        source!("shared/walk"),
        source!("shared/tile"),
        source!("shared/tile_keys"),
        source!("shared/tile_products"),
        pick(choice.shuffle, source!("shared/along_width_subgroup"), source!("shared/along_width_memory")),
        pick(chunked, source!("gated_attention/tiled_chunks"), source!("gated_attention/tiled_no_chunks")),
    ];
    fragments.extend(chunked.then(|| source!("gated_attention/tiled_add_state")));
    (source!("gated_attention/tiled"), grid.constants(choice.v_block), fragments)
}

fn cooperative(problem: &Problem, choice: &Choice, tile: RowTile) -> Parts {
    // What is mapped is no longer as it is stored.
    let mapped = problem.shapes.shared_z;
    let exact = |name, mapped: bool| problem.storage(name) == Storage::NativeF16 && !mapped;
    let exact = [exact("q", mapped), exact("k", mapped), exact("v", false)];
    let dims = [problem.shapes.key_dim, 4 * choice.v_block];
    let mut fragments = tile.fragments(dims);
    fragments.extend([source!("shared/walk"), source!("gated_attention/tiled_no_chunks")]);
    (source!("gated_attention/cooperative"), tile.constants(dims, exact), fragments)
}

fn quadratic([workgroup, keys]: [u32; 2], subgroup: bool, q_in_storage: bool, chunked: bool) -> Parts {
    let constants = vec![
        ("WORKGROUP", Constant::U32(workgroup)),
        ("KEYS", Constant::U32(keys)),
        ("SPAN", Constant::U32(if subgroup { workgroup / keys } else { 1 })),
        ("UNROLL", Constant::Bool(subgroup)),
        ("CHUNKED", Constant::Bool(chunked)),
    ];
    let fragments = vec![
        pick(subgroup, source!("shared/keys_subgroup"), source!("shared/keys_uniform")),
        pick(q_in_storage, source!("gated_attention/q_storage"), source!("gated_attention/q_private")),
        pick(chunked, source!("gated_attention/other_chunks"), source!("gated_attention/no_other_chunks")),
        source!("gated_attention/product"),
    ];
    (source!("gated_attention/quadratic"), constants, fragments)
}

/// The files by which a kernel reads the affine maps of z, if there is a z.
pub(super) fn map_fragments(shared_z: bool, writes_workspace: bool) -> Vec<&'static Source> {
    match (shared_z, writes_workspace) {
        (false, _) => vec![source!("gated_attention/no_maps")],
        (true, false) => vec![source!("gated_attention/maps"), source!("gated_attention/bind_maps")],
        (true, true) => vec![source!("gated_attention/maps"), source!("gated_attention/bind_maps_read_write")],
    }
}

/// The files by which a kernel gates and writes o.
fn output_fragments(problem: &Problem) -> [&'static Source; 2] {
    [
        gate(problem.get("u")),
        pick(problem.is_vec4(&["o"]), source!("shared/store_vec4"), source!("shared/store_scalar")),
    ]
}

pub(super) fn gate(u: Option<&Layout>) -> &'static Source {
    match u.map(Layout::is_vec4) {
        Some(true) => source!("gated_attention/gate_vec4"),
        Some(false) => source!("gated_attention/gate_scalar"),
        None => source!("gated_attention/no_gate"),
    }
}

pub(super) fn combine(config: &GatedAttentionConfig, problem: &Problem) -> Specialization {
    let weighing = Weighing::new(config, problem.shapes.key_dim);
    let mut fragments = output_fragments(problem).to_vec();
    fragments.extend([
        source!("gated_attention/divisor"),
        source!("shared/row_place"),
        source!("shared/workgroup_index"),
    ]);
    Specialization {
        kernel: source!("gated_attention/combine"),
        constants: vec![
            ("WORKGROUP", Constant::U32(FLAT_WORKGROUP)),
            ("V_DIM", Constant::U32(problem.shapes.v_dim)),
            ("SOFTMAX", Constant::Bool(weighing.softmax)),
            ("DIVISOR", Constant::U32(weighing.divisor_law)),
        ],
        fragments,
        storage: Vec::new(),
    }
    .of(problem, &[])
}

/// γ and β of the maps from z to q and k, and to q_lin and k_lin, in the order of [`GATHERED`].
pub(super) const MAPS: [[&str; 4]; 2] =
    [["gamma_q", "beta_q", "gamma_k", "beta_k"], ["gamma_q_lin", "beta_q_lin", "gamma_k_lin", "beta_k_lin"]];
/// What `gather_maps.wgsl` calls them.
pub(super) const GATHERED: [&str; 4] = ["query_gamma", "query_beta", "key_gamma", "key_beta"];

pub(super) fn gather_maps(problem: &Problem, maps: [&str; 4]) -> Specialization {
    let storage = std::array::from_fn::<_, 4, _>(|index| (GATHERED[index], problem.storage(maps[index])));
    Specialization {
        kernel: source!("gated_attention/gather_maps"),
        constants: vec![
            ("WORKGROUP", Constant::U32(FLAT_WORKGROUP)),
            ("KEY_DIM", Constant::U32(problem.shapes.key_dim)),
        ],
        fragments: vec![source!("shared/workgroup_index")],
        storage: Vec::new(),
    }
    .of(problem, &storage)
}

pub(super) fn chunk_state(problem: &Problem, choice: &Choice) -> Specialization {
    let shapes = &problem.shapes;
    let state = choice.state(shapes.key_dim);
    let mut fragments = vec![
        source!("gated_attention/chunk_state_params"),
        pick(problem.is_vec4(&["k_lin"]), source!("gated_attention/k_vec4"), source!("gated_attention/k_scalar")),
        pick(problem.is_vec4(&["v"]), source!("gated_attention/v_vec4"), source!("gated_attention/v_scalar")),
        pick(shapes.kv_lens, source!("shared/kv_lens"), source!("shared/no_kv_lens")),
        source!("shared/workgroup_index"),
    ];
    fragments.extend(map_fragments(shapes.shared_z, true));
    let (kernel, mut constants) = match state.kernel {
        StateKernel::Tiled(grid) => {
            fragments.extend([source!("shared/tile"), source!("gated_attention/tiled_write_state")]);
            (source!("gated_attention/tiled_chunk_state"), grid.constants(state.v_block))
        }
        StateKernel::Rows { workgroup } => {
            fragments.push(source!("gated_attention/product"));
            (source!("gated_attention/chunk_state"), vec![("WORKGROUP", Constant::U32(workgroup))])
        }
    };
    constants.extend([
        ("KEY_DIM", Constant::U32(shapes.key_dim)),
        ("V_DIM", Constant::U32(shapes.v_dim)),
        ("V_BLOCK", Constant::U32(state.v_block)),
    ]);
    // Its keys are k_lin, or z.
    Specialization { kernel, constants, fragments, storage: Vec::new() }.of(problem, &[("k", problem.storage("k_lin"))])
}

pub(super) fn prefix(config: &GatedAttentionConfig, back: bool) -> Specialization {
    Specialization {
        kernel: source!("gated_attention/prefix"),
        constants: vec![
            ("WORKGROUP", Constant::U32(FLAT_WORKGROUP)),
            ("CAUSAL", Constant::Bool(config.causal != Causal::None)),
            ("BACK", Constant::Bool(back)),
        ],
        fragments: vec![source!("shared/workgroup_index")],
        storage: Vec::new(),
    }
}

/// Adapters, queries, llvmpipe's subgroups and bytes of workgroup memory: between them they pick every tile.
const DEVICES: [(Adapter, u32, Option<u32>, u32); 10] = [
    (Adapter::SlowArrays, 1, None, 16 << 10),
    (Adapter::SlowArrays, 256, Some(8), 16 << 10),
    (Adapter::SlowArrays, 2048, Some(8), 16 << 10),
    (Adapter::Cpu, 1, None, 16 << 10),
    (Adapter::Llvmpipe, 65, Some(8), 16 << 10),
    (Adapter::Gpu, 1, None, 16 << 10),
    (Adapter::Gpu, 17, None, 16 << 10),
    (Adapter::Gpu, 17, None, 32 << 10),
    (Adapter::Gpu, 65, None, 16 << 10),
    (Adapter::Gpu, 65, None, 32 << 10),
];

/// The same, for what a tuning may take.
const ALL_DEVICES: [(Adapter, Option<u32>, u32); 3] =
    [(Adapter::Llvmpipe, Some(8), 16 << 10), (Adapter::Gpu, None, 16 << 10), (Adapter::Gpu, None, 32 << 10)];

/// Each way to weigh, and mixed chunks with and without a causal mask.
pub(super) fn every_weight() -> Vec<GatedAttentionConfig> {
    let weights = [
        GauWeights::SquaredRelu(Divisor::LenDim),
        GauWeights::SquaredRelu(Divisor::FixedLenDim { len: 512 }),
        GauWeights::SquaredRelu(Divisor::LenSquared),
        GauWeights::SquaredRelu(Divisor::RowSum { eps: 1e-6 }),
        GauWeights::Softmax,
        GauWeights::SOFTMAX_LOG_N,
    ];
    let full = weights.map(|weights| GatedAttentionConfig::new().weights(weights));
    let chunked = [Causal::None, Causal::TopLeft]
        .map(|causal| GatedAttentionConfig::new().mode(GauMode::MIXED_CHUNK).causal(causal));
    full.into_iter().chain(chunked).collect()
}

/// Every specialization that a plan can pick, up to the widths (which are sampled).
#[doc(hidden)]
#[must_use]
pub fn specializations() -> Vec<Specialization> {
    let bits = |number: u32, bit: u32| number >> bit & 1 == 1;
    let mut found = Vec::new();
    for (key_dim, v_dim) in [(64, 64), (1, 1), (3, 5), (128, 1536), (256, 70)] {
        for (config, flags) in every_weight().iter().flat_map(|config| (0..1u32 << 6).map(move |f| (config, f))) {
            // All flags on, off, and mixed: only at one size, and of a GPU's tiles only one.
            let few = [0, 7, (1 << 6) - 1].contains(&flags);
            if key_dim != 64 && !few {
                continue;
            }
            let mut shapes = GatedAttentionShapes::new(1, 1, 1, key_dim, v_dim);
            shapes.shared_z = bits(flags, 0);
            shapes.gate = bits(flags, 1);
            shapes.kv_lens = bits(flags, 2);
            let mut problem = Problem::contiguous::<GatedAttention>(config, shapes);
            if bits(flags, 3) {
                // Off a multiple of four: scalar loads and stores.
                for name in ["q", "k_lin", "o"] {
                    problem.change(name, |layout| layout.start = 1);
                }
            }
            if bits(flags, 4) {
                problem.change("v", |layout| layout.start = 1);
            }
            let table = DEVICES.into_iter().filter_map(|(adapter, len, subgroup, granted)| {
                let shapes = GatedAttentionShapes { q_len: len, ..shapes };
                let skip = !few && adapter == Adapter::Gpu && (len, granted) != (65, 16 << 10);
                let tile = || tile_for(adapter, &shapes, config.chunk().map(|_| len), subgroup, granted);
                (!skip).then(tile)
            });
            let table = table.flat_map(|tile| [Some(tile), few.then(|| tile.with_registers(true))]).flatten();
            // What only a tuning takes: not in every combination.
            let offered = ALL_DEVICES.into_iter().filter(|_| few && key_dim == 64);
            let offered = offered.flat_map(|device| tiles_for(config, &shapes, device));
            // On matrices, whose limits are those of GPUs that have them.
            let limits = wgpu::Limits { max_compute_workgroup_storage_size: 48 << 10, ..wgpu::Limits::default() };
            let on_matrices = MatrixTier::SAMPLES.into_iter().filter(|_| few && config.chunk().is_none());
            let on_matrices = on_matrices
                .flat_map(|tier| [1, 1000].map(|rows| tiles_of(tier, rows, &shapes, &limits).unwrap_or_default()));
            for tile in table.chain(offered).chain(on_matrices.flatten()) {
                let adapter = tile.adapter;
                let splits = if bits(flags, 5) && config.chunk().is_none() { 2 } else { 1 };
                let v_block = tile.v_block(&shapes);
                for shuffle in [false, can_shuffle(config, 64, tile.kernel, v_block)] {
                    let choice = Choice {
                        kernel: tile.kernel,
                        shuffle,
                        q_in_storage: adapter == Adapter::SlowArrays,
                        v_block,
                        blocks: 1,
                        splits,
                        split_keys: 8,
                        reason: String::new(),
                    };
                    found.push(walk(config, &problem, &choice, splits > 1));
                    found.extend(config.chunk().map(|_| chunk_state(&problem, &choice)));
                }
            }
            found.push(combine(config, &problem));
            found.extend(shapes.shared_z.then(|| gather_maps(&problem, MAPS[0])));
            found.push(prefix(config, false));
        }
    }
    wgsl::distinct(found)
}
