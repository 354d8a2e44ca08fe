//! The kernels of softmax attention: their bindings, their uniforms, and the source of each specialization.

use super::plan::{ALTERNATIVES, Choice, Problem, TILES, Tile, can_shuffle, slabs, within};
use super::{AttentionConfig, AttentionShapes, Causal, Scale};
use crate::adapter::Adapter;
use crate::matrices::{MatrixTier, RowTile};
use crate::params::{ParamsLayout, params};
use crate::row_kernel::Kernel;
use crate::tensor::Layout;
use crate::wgsl::{Constant, Source, Specialization, source};

/// Operand slots, which are also the `@binding` numbers of the kernels.
pub(super) mod slot {
    pub const Q: usize = 1;
    pub const K: usize = 2;
    pub const V: usize = 3;
    pub const O: usize = 4;
    pub const LSE: usize = 5;
    pub const ENTROPY: usize = 6;
    pub const BIAS: usize = 7;
    pub const MASK: usize = 8;
    pub const KV_LENS: usize = 9;
    pub const ROW_SCALE: usize = 10;
    pub const PARTIALS: u32 = 11;
    pub const COUNT: usize = 11;
}

params! {
    /// Uniform of `attention/params.wgsl`; units are there.
    struct WalkParams {
        first_workgroup: u32,
        end_workgroup: u32,
        q_heads: u32,
        kv_heads: u32,
        group: u32,
        q_len: u32,
        kv_len: u32,
        row_tiles: u32,
        splits: u32,
        split_keys: u32,
        offset: i32,
        align_end: u32,
        left: i32,
        right: i32,
        scale: f32,
        scale_floor: u32,
        scale_least: f32,
        softcap: f32,
        q_start: u32,
        q_batch: u32,
        q_head: u32,
        q_row: u32,
        k_start: u32,
        k_batch: u32,
        k_head: u32,
        k_row: u32,
        v_start: u32,
        v_batch: u32,
        v_head: u32,
        v_row: u32,
        o_start: u32,
        o_batch: u32,
        o_head: u32,
        o_row: u32,
        lse_start: u32,
        lse_batch: u32,
        lse_head: u32,
        lse_row: u32,
        entropy_start: u32,
        entropy_batch: u32,
        entropy_head: u32,
        entropy_row: u32,
        bias_start: u32,
        bias_batch: u32,
        bias_head: u32,
        bias_row: u32,
        mask_start: u32,
        mask_batch: u32,
        mask_head: u32,
        mask_row: u32,
        row_scale_start: u32,
        row_scale_batch: u32,
        row_scale_head: u32,
        row_scale_row: u32,
        kv_lens_start: u32,
        kv_lens_stride: u32,
    }
}

params! {
    /// Uniform of `attention/combine.wgsl`; units are there.
    struct CombineParams {
        first_workgroup: u32,
        end_workgroup: u32,
        rows: u32,
        q_heads: u32,
        q_len: u32,
        splits: u32,
        o_start: u32,
        o_batch: u32,
        o_head: u32,
        o_row: u32,
        lse_start: u32,
        lse_batch: u32,
        lse_head: u32,
        lse_row: u32,
        entropy_start: u32,
        entropy_batch: u32,
        entropy_head: u32,
        entropy_row: u32,
    }
}

/// A workgroup of the combine kernel, and how many of its invocations share four dims of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Combine {
    workgroup: u32,
    pub parts: u32,
}

impl Combine {
    pub const ALONE: Self = Self { workgroup: 64, parts: 1 };
    /// For a GPU, and rows of at least so many partials.
    pub const SHARED: Self = Self { workgroup: 256, parts: 16 };

    /// Fours of dims that a workgroup combines.
    pub fn owners(self) -> u32 {
        self.workgroup / self.parts
    }
}

/// Whether q, k and v are read four dims at a time.
fn is_vec4(problem: &Problem) -> bool {
    [problem.q, problem.k, problem.v].iter().all(Layout::is_vec4)
}

/// Keys that a step takes; ranges of keys are multiples of it.
pub(super) fn keys_per_step(problem: &Problem, kernel: Kernel) -> u32 {
    let plain = is_vec4(problem) && !problem.shapes.bias && !problem.shapes.mask;
    match kernel {
        Kernel::Tiled { .. } => 4 * tile_width(problem.shapes.v_dim),
        Kernel::Rows { keys, .. } => {
            if plain {
                keys
            } else {
                keys.min(8)
            }
        }
        Kernel::Subgroup { keys, .. } | Kernel::Matrices(RowTile { keys, .. }) => keys,
    }
}

/// Invocations of the tiled kernel along the dims of o: as few as share all its chunks evenly, in fours.
pub(super) fn tile_width(v_dim: u32) -> u32 {
    let chunks = v_dim.div_ceil(4);
    chunks.div_ceil(columns(v_dim)).next_multiple_of(4).max(8)
}

/// Chunks of o that each of them owns.
fn columns(v_dim: u32) -> u32 {
    v_dim.div_ceil(4).div_ceil(16)
}

/// The kernel that walks the keys; `shuffle` if a tile's rows share by subgroup operations, `partial` if it leaves its rows
/// to the combine kernel.
pub(super) fn walk(
    config: &AttentionConfig,
    problem: &Problem,
    kernel: Kernel,
    adapter: Adapter,
    shuffle: bool,
    partial: bool,
) -> Specialization {
    let shapes = &problem.shapes;
    let (vec4, keys) = (is_vec4(problem), keys_per_step(problem, kernel));
    let pick = |on: bool, yes, no| if on { yes } else { no };
    let mut fragments = vec![
        source!("attention/params"),
        source!("shared/walk"),
        source!("shared/steps"),
        source!("attention/scores"),
        pick(vec4, source!("attention/load_vec4"), source!("attention/load_scalar")),
        pick(shapes.kv_lens, source!("shared/kv_lens"), source!("shared/no_kv_lens")),
        pick(shapes.bias, source!("attention/bias"), source!("attention/no_bias")),
        pick(shapes.mask, source!("attention/mask"), source!("attention/no_mask")),
        pick(shapes.row_scale, source!("attention/row_scale"), source!("attention/no_row_scale")),
        source!("shared/workgroup_index"),
    ];
    if partial {
        fragments.push(source!("attention/write_partial"));
    } else {
        fragments.push(source!("attention/write_result"));
        fragments.extend(output_fragments(problem));
    }
    // Where arrays compile slowly, q and o stay in storage unless every loop is unrolled; and both sides of a branch run. To
    // follow a growth takes subgroups.
    let slow_arrays = adapter == Adapter::SlowArrays;
    let block = pick(slow_arrays, source!("attention/block_storage"), source!("attention/block_private"));
    let follow = pick(slow_arrays, source!("attention/follow_steps"), source!("attention/follow_growth_subgroup"));
    let rows = |workgroup, span, unroll| {
        vec![
            ("WORKGROUP", Constant::U32(workgroup)),
            ("KEYS", Constant::U32(keys)),
            ("SPAN", Constant::U32(span)),
            ("UNROLL", Constant::Bool(unroll)),
        ]
    };
    let (source, mut constants) = match kernel {
        Kernel::Tiled { height, groups, slab } => {
            let constants = vec![
                ("WIDTH", Constant::U32(tile_width(shapes.v_dim))),
                ("HEIGHT", Constant::U32(height)),
                ("GROUPS", Constant::U32(groups)),
                ("COLUMNS", Constant::U32(columns(shapes.v_dim))),
                ("SLAB", Constant::U32(slab)),
            ];
            let along_width =
                pick(shuffle, source!("shared/along_width_subgroup"), source!("shared/along_width_memory"));
            fragments.extend([source!("shared/tile"), source!("shared/tile_keys"), along_width]);
            (source!("attention/tiled"), constants)
        }
        Kernel::Rows { workgroup, .. } => {
            fragments.extend([block, source!("shared/keys_uniform"), source!("attention/follow_steps")]);
            (source!("attention/rows"), rows(workgroup, 1, false))
        }
        Kernel::Subgroup { workgroup, .. } => {
            fragments.extend([source!("attention/block_private"), source!("shared/keys_subgroup"), follow]);
            (source!("attention/rows"), rows(workgroup, workgroup / keys, true))
        }
        Kernel::Matrices(tile) => {
            fragments.extend(tile.fragments());
            (source!("attention/cooperative"), tile.constants())
        }
    };
    constants.extend([
        ("HEAD_DIM", Constant::U32(shapes.head_dim)),
        ("V_DIM", Constant::U32(shapes.v_dim)),
        ("LOG_N", Constant::Bool(config.scale.terms(shapes.head_dim).log_n)),
        ("SOFTCAP", Constant::Bool(config.softcap.is_some())),
        ("ENTROPY", Constant::Bool(shapes.entropy)),
        ("ROW_MASK", Constant::Bool(shapes.bias || shapes.mask)),
        ("Elem", Constant::Type(if vec4 { "vec4<f32>" } else { "f32" })),
    ]);
    let specialization = Specialization { kernel: source, constants, fragments, storage: Vec::new() };
    let optional = [
        problem.bias.map(|bias| ("bias", bias.storage)),
        problem.row_scale.map(|row_scale| ("row_scale", row_scale.storage)),
        (!partial).then_some(("o", problem.o.storage)),
    ];
    let inputs = [("q", problem.q.storage), ("k", problem.k.storage), ("v", problem.v.storage)];
    specialization.stored(inputs.into_iter().chain(optional.into_iter().flatten()))
}

/// The kernel that combines partial rows.
pub(super) fn combine(problem: &Problem, shared: Combine) -> Specialization {
    let mut fragments = output_fragments(problem);
    fragments.push(source!("shared/workgroup_index"));
    Specialization {
        kernel: source!("attention/combine"),
        constants: vec![
            ("WORKGROUP", Constant::U32(shared.workgroup)),
            ("PARTS", Constant::U32(shared.parts)),
            ("V_DIM", Constant::U32(problem.shapes.v_dim)),
            ("ENTROPY", Constant::Bool(problem.shapes.entropy)),
        ],
        fragments,
        storage: Vec::new(),
    }
    .stored([("o", problem.o.storage)])
}

/// The files by which a kernel writes o, lse and entropy.
fn output_fragments(problem: &Problem) -> Vec<&'static Source> {
    let pick = |on: bool, yes, no| if on { yes } else { no };
    vec![
        pick(problem.o.is_vec4(), source!("shared/store_vec4"), source!("shared/store_scalar")),
        pick(problem.shapes.lse, source!("attention/lse"), source!("attention/no_lse")),
        pick(problem.shapes.entropy, source!("attention/entropy"), source!("attention/no_entropy")),
        source!("attention/statistics"),
    ]
}

/// The numbers of one dispatch of a kernel that walks the keys.
pub(super) fn walk_params(
    config: &AttentionConfig,
    problem: &Problem,
    choice: &Choice,
    [first_workgroup, end_workgroup]: [u32; 2],
) -> WalkParams {
    let shapes = &problem.shapes;
    let rank4 = |l: Layout<4>| [l.start, l.strides[0], l.strides[1], l.strides[2]];
    let scores = |l: Option<Layout<4>>| l.map_or([0; 4], rank4);
    let rows = |l: Option<Layout<3>>| l.map_or([0; 4], |l| [l.start, l.strides[0], l.strides[1], l.strides[2]]);
    let [q_start, q_batch, q_head, q_row] = rank4(problem.q);
    let [k_start, k_batch, k_head, k_row] = rank4(problem.k);
    let [v_start, v_batch, v_head, v_row] = rank4(problem.v);
    let [o_start, o_batch, o_head, o_row] = rank4(problem.o);
    let [lse_start, lse_batch, lse_head, lse_row] = rows(problem.lse);
    let [entropy_start, entropy_batch, entropy_head, entropy_row] = rows(problem.entropy);
    let [bias_start, bias_batch, bias_head, bias_row] = scores(problem.bias);
    let [mask_start, mask_batch, mask_head, mask_row] = scores(problem.mask);
    let [row_scale_start, row_scale_batch, row_scale_head, row_scale_row] = rows(problem.row_scale);
    let [kv_lens_start, kv_lens_stride] = problem.kv_lens.map_or([0; 2], |l| [l.start, l.strides[0]]);
    let scale = config.scale.terms(shapes.head_dim);
    let visibility = config.visibility();
    WalkParams {
        first_workgroup,
        end_workgroup,
        q_heads: shapes.q_heads,
        kv_heads: shapes.kv_heads,
        group: shapes.q_heads / shapes.kv_heads,
        q_len: shapes.q_len,
        kv_len: shapes.kv_len,
        row_tiles: choice.row_tiles as u32,
        splits: choice.splits,
        split_keys: choice.split_keys,
        offset: visibility.fixed_offset(shapes.kv_len),
        align_end: (config.causal == Causal::BottomRight).into(),
        left: visibility.left(),
        right: visibility.right(),
        scale: scale.factor as f32,
        scale_floor: scale.floor,
        scale_least: scale.least as f32,
        softcap: config.softcap.unwrap_or(1.0),
        q_start,
        q_batch,
        q_head,
        q_row,
        k_start,
        k_batch,
        k_head,
        k_row,
        v_start,
        v_batch,
        v_head,
        v_row,
        o_start,
        o_batch,
        o_head,
        o_row,
        lse_start,
        lse_batch,
        lse_head,
        lse_row,
        entropy_start,
        entropy_batch,
        entropy_head,
        entropy_row,
        bias_start,
        bias_batch,
        bias_head,
        bias_row,
        mask_start,
        mask_batch,
        mask_head,
        mask_row,
        row_scale_start,
        row_scale_batch,
        row_scale_head,
        row_scale_row,
        kv_lens_start,
        kv_lens_stride,
    }
}

/// The numbers of one dispatch of the combine kernel.
pub(super) fn combine_params(
    problem: &Problem,
    choice: &Choice,
    [first_workgroup, end_workgroup]: [u32; 2],
) -> CombineParams {
    let shapes = &problem.shapes;
    let row =
        |layout: Option<Layout<3>>| layout.map_or([0; 4], |l| [l.start, l.strides[0], l.strides[1], l.strides[2]]);
    let [o_batch, o_head, o_row, _] = problem.o.strides;
    let [lse_start, lse_batch, lse_head, lse_row] = row(problem.lse);
    let [entropy_start, entropy_batch, entropy_head, entropy_row] = row(problem.entropy);
    CombineParams {
        first_workgroup,
        end_workgroup,
        rows: shapes.batch * shapes.q_heads * shapes.q_len,
        q_heads: shapes.q_heads,
        q_len: shapes.q_len,
        splits: choice.splits,
        o_start: problem.o.start,
        o_batch,
        o_head,
        o_row,
        lse_start,
        lse_batch,
        lse_head,
        lse_row,
        entropy_start,
        entropy_batch,
        entropy_head,
        entropy_row,
    }
}

/// Every specialization that a plan can pick, up to the head dims (which are sampled), with its uniform's layout.
#[doc(hidden)]
#[must_use]
pub fn specializations() -> Vec<(Specialization, ParamsLayout)> {
    let mut found = Vec::new();
    let bits = |number: u32, bit: u32| number >> bit & 1 == 1;
    for (head_dim, v_dim) in [(1, 1), (3, 5), (64, 64), (128, 256), (72, 80)] {
        for flags in 0..1u32 << 9 {
            // The nine flags on, off, and each pair of neighbours: all of them only at one head dim.
            if head_dim != 64 && ![0, (1 << 9) - 1].contains(&flags) {
                continue;
            }
            let mut shapes = AttentionShapes::new(1, 1, 1, head_dim);
            shapes.v_dim = v_dim;
            shapes.kv_lens = bits(flags, 0);
            shapes.bias = bits(flags, 1);
            shapes.mask = bits(flags, 2);
            shapes.lse = bits(flags, 3);
            shapes.entropy = bits(flags, 4);
            let scale = match (bits(flags, 5), bits(flags, 6)) {
                (true, _) => Scale::LOG_N,
                (false, true) => Scale::PerRow,
                (false, false) => Scale::InvSqrtDim,
            };
            shapes.row_scale = scale == Scale::PerRow;
            let mut config = AttentionConfig::new().scale(scale);
            config.softcap = bits(flags, 7).then_some(30.0);
            let problem = Problem::contiguous(shapes);
            let takes =
                |tile: &&Tile| [1, 17, 65].iter().any(|&q_len| tile.takes(&AttentionShapes { q_len, ..shapes }));
            let few = [0, (1 << 9) - 1].contains(&flags);
            let alternatives = ALTERNATIVES.iter().filter(|tile| few && tile.is_wide_enough(head_dim, v_dim));
            for tile in TILES.iter().filter(takes).chain(alternatives) {
                // What only a tuning takes: not in every combination.
                let slabs = if few { slabs(tile.kernel, 32 << 10, v_dim) } else { Vec::new() };
                let table = [16 << 10, 32 << 10].map(|granted| within(tile.kernel, granted, v_dim));
                for kernel in table.into_iter().chain(slabs) {
                    for adapter in [Adapter::Llvmpipe, Adapter::SlowArrays] {
                        for shuffle in [false, can_shuffle(64, v_dim)] {
                            let walk = walk(&config, &problem, kernel, adapter, shuffle, bits(flags, 8));
                            found.push((walk, WalkParams::LAYOUT));
                        }
                    }
                }
            }
            // On matrices, the flags one by one.
            if few || flags.is_power_of_two() {
                let limits = wgpu::Limits { max_compute_workgroup_storage_size: 48 << 10, ..wgpu::Limits::default() };
                for tier in MatrixTier::SAMPLES {
                    for rows in [1, 1000] {
                        let tiles = RowTile::list(tier, rows, [head_dim, v_dim], &limits).unwrap_or_default();
                        found.extend(tiles.into_iter().map(|tile| {
                            let walk =
                                walk(&config, &problem, Kernel::Matrices(tile), Adapter::Gpu, true, bits(flags, 8));
                            (walk, WalkParams::LAYOUT)
                        }));
                    }
                }
            }
            for shared in [Combine::ALONE, Combine::SHARED] {
                found.push((combine(&problem, shared), CombineParams::LAYOUT));
            }
        }
    }
    let mut seen = std::collections::HashSet::new();
    found.retain(|(specialization, _)| seen.insert(specialization.clone()));
    found
}
