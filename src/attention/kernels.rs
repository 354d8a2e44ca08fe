//! The kernels of softmax attention: the source of each specialization, and the numbers it is given.

use super::plan::{ALTERNATIVES, Choice, Kernel, Problem, TILES, Tile, can_shuffle, slabs, within};
use super::{Attention, AttentionConfig, AttentionShapes, Causal, Scale};
use crate::adapter::Adapter;
use crate::dispatch::Value;
use crate::dtype::Storage;
use crate::matrices::{MatrixTier, RowTile};
use crate::wgsl::{self, Constant, Source, Specialization, pick, source};

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
    problem.is_vec4(&["q", "k", "v"])
}

/// Chunks of four dims, the more of head_dim and v_dim.
pub(super) fn chunks(shapes: &AttentionShapes) -> u32 {
    shapes.head_dim.max(shapes.v_dim).div_ceil(4)
}

/// Keys that a step takes; ranges of keys are multiples of it.
pub(super) fn keys_per_step(problem: &Problem, kernel: Kernel) -> u32 {
    let plain = is_vec4(problem) && !problem.shapes.bias && !problem.shapes.mask;
    match kernel {
        Kernel::Tiled(grid) => grid.keys(problem.shapes.v_dim.div_ceil(4)),
        Kernel::Rows { keys, .. } => {
            if plain {
                keys
            } else {
                keys.min(8)
            }
        }
        Kernel::Subgroup { keys, .. } | Kernel::Matrices(RowTile { keys, .. }) => keys,
        Kernel::Own(few) => few.keys(chunks(&problem.shapes)),
    }
}

/// The kernel that walks the keys; `shuffle` if invocations share by subgroup operations, `partial` if it leaves its rows
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
    let together = matches!(kernel, Kernel::Tiled(_) | Kernel::Matrices(_) | Kernel::Own(_));
    fragments.push(pick(together, source!("shared/steps_together"), source!("shared/steps_apart")));
    if together {
        fragments.push(source!("attention/units"));
    }
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
        Kernel::Tiled(grid) => {
            let along_width =
                pick(shuffle, source!("shared/along_width_subgroup"), source!("shared/along_width_memory"));
            fragments.extend([
                source!("shared/tile"),
                source!("shared/tile_keys"),
                source!("shared/tile_products"),
                along_width,
            ]);
            (source!("attention/tiled"), grid.constants(shapes.v_dim.div_ceil(4)))
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
            let dims = [shapes.head_dim, shapes.v_dim];
            fragments.extend(tile.fragments(dims));
            let exact = ["q", "k", "v"].map(|name| problem.storage(name) == Storage::NativeF16);
            (source!("attention/cooperative"), tile.constants(dims, exact))
        }
        Kernel::Own(few) => {
            fragments.extend(few.fragments(shuffle));
            (source!("attention/few"), few.constants(chunks(shapes)).to_vec())
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
    Specialization { kernel: source, constants, fragments, storage: Vec::new() }.of(problem, &[])
}

/// The kernel that combines partial rows.
pub(super) fn combine(problem: &Problem, shared: Combine) -> Specialization {
    let mut fragments = output_fragments(problem);
    fragments.extend([source!("shared/row_place"), source!("shared/workgroup_index")]);
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
    .of(problem, &[])
}

/// The files by which a kernel writes o, lse and entropy.
fn output_fragments(problem: &Problem) -> Vec<&'static Source> {
    vec![
        pick(problem.is_vec4(&["o"]), source!("shared/store_vec4"), source!("shared/store_scalar")),
        pick(problem.shapes.lse, source!("attention/lse"), source!("attention/no_lse")),
        pick(problem.shapes.entropy, source!("attention/entropy"), source!("attention/no_entropy")),
        source!("attention/statistics"),
    ]
}

/// The numbers of both kernels, beside the sizes.
pub(super) fn values(config: &AttentionConfig, problem: &Problem, choice: &Choice) -> Vec<(&'static str, Value)> {
    let shapes = &problem.shapes;
    let scale = config.scale.terms(shapes.head_dim);
    let visibility = config.visibility();
    vec![
        ("rows", (shapes.batch * shapes.q_heads * shapes.q_len).into()),
        ("heads", shapes.q_heads.into()),
        ("len", shapes.q_len.into()),
        ("group", (shapes.q_heads / shapes.kv_heads).into()),
        ("row_tiles", (choice.row_tiles as u32).into()),
        ("splits", choice.splits.into()),
        ("split_keys", choice.split_keys.into()),
        ("offset", visibility.fixed_offset(shapes.kv_len).into()),
        ("align_end", (config.causal == Causal::BottomRight).into()),
        ("left", visibility.left().into()),
        ("right", visibility.right().into()),
        ("scale", (scale.factor as f32).into()),
        ("scale_floor", scale.floor.into()),
        ("scale_least", (scale.least as f32).into()),
        ("softcap", config.softcap.unwrap_or(1.0).into()),
    ]
}

/// Every specialization that a plan can pick, up to the head dims (which are sampled).
#[doc(hidden)]
#[must_use]
pub fn specializations() -> Vec<Specialization> {
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
            let problem = Problem::contiguous::<Attention>(&config, shapes);
            let few = [0, (1 << 9) - 1].contains(&flags);
            // Of several rows the kernel of one, its loops turned more often: not in every combination.
            let several = if few || flags.is_power_of_two() { &[2, 4, 8][..] } else { &[] };
            let lengths = || [1, 16, 17, 65].iter().chain(several);
            let takes = |tile: &&Tile| lengths().any(|&q_len| tile.takes(&AttentionShapes { q_len, ..shapes }));
            let alternatives = ALTERNATIVES.iter().filter(|tile| few && tile.is_wide_enough(head_dim, v_dim));
            for tile in TILES.iter().filter(takes).chain(alternatives) {
                // What only a tuning takes: not in every combination.
                let slabs = if few { slabs(tile.kernel, 32 << 10, v_dim) } else { Vec::new() };
                let table = [16 << 10, 32 << 10].map(|granted| within(tile.kernel, granted, v_dim));
                let few_registers = (few || flags.is_power_of_two()).then(|| table[0].with_registers(true));
                for kernel in table.into_iter().chain(few_registers).chain(slabs) {
                    for adapter in [Adapter::Llvmpipe, Adapter::SlowArrays] {
                        for shuffle in [false, can_shuffle(64, kernel, &shapes)] {
                            found.push(walk(&config, &problem, kernel, adapter, shuffle, bits(flags, 8)));
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
                            walk(&config, &problem, Kernel::Matrices(tile), Adapter::Gpu, true, bits(flags, 8))
                        }));
                    }
                }
            }
            for shared in [Combine::ALONE, Combine::SHARED] {
                found.push(combine(&problem, shared));
            }
        }
    }
    wgsl::distinct(found)
}
