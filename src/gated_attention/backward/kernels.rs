//! The kernels of the backward pass: the source of each specialization.

use super::super::config::GatedAttentionConfig;
use super::super::kernels::{FLAT_WORKGROUP, Weighing, every_weight, gate, map_fragments, prefix};
use super::plan::Problem;
use super::tiles::{Of, Tile};
use super::{GatedAttentionBackward, GatedAttentionBackwardShapes};
use crate::adapter::Adapter;
use crate::dtype::Storage;
use crate::tensor::Layout;
use crate::tile::{Grid, grid};
use crate::wgsl::{self, Constant, Source, Specialization, fours, optional, pick, source};

/// Invocations that share a row of `backward_rows.wgsl`.
pub(super) const ROW_LANES: u32 = 16;

/// Where a kernel's results go: to the workspace, or to a gradient.
#[derive(Clone, Copy)]
pub(super) enum To<'a> {
    Workspace,
    Gradient(&'a Layout),
}

impl To<'_> {
    fn fragments(self) -> Vec<&'static Source> {
        match self {
            Self::Workspace => vec![source!("gated_attention/backward_write_partial")],
            Self::Gradient(layout) => vec![source!("gated_attention/backward_write_result"), store(layout)],
        }
    }

    fn storage(self) -> Option<(&'static str, Storage)> {
        match self {
            Self::Workspace => None,
            Self::Gradient(layout) => Some(("gradient", layout.storage)),
        }
    }
}

fn store(layout: &Layout) -> &'static Source {
    fours!(layout.is_vec4(), "gated_attention/", "gradient")
}

fn u32s<const N: usize>(constants: [(&'static str, u32); N]) -> Vec<(&'static str, Constant)> {
    constants.map(|(name, value)| (name, Constant::U32(value))).into()
}

/// What kernels read that own rows, whichever they are.
fn reading(problem: &Problem, of: Of) -> Vec<&'static Source> {
    let shapes = &problem.shapes;
    let v = if of == Of::Values {
        source!("gated_attention/no_v")
    } else {
        fours!(problem.is_vec4(&["v"]), "gated_attention/", "v")
    };
    vec![
        source!("shared/tile"),
        v,
        fours!(problem.is_vec4(&["dout"]), "gated_attention/", "dout"),
        gate(problem.own("u")),
        optional!(shapes.kv_lens, "shared/", "kv_lens"),
        source!("shared/workgroup_index"),
    ]
}

/// The kernel that walks rows.
pub(super) fn walk(
    config: &GatedAttentionConfig,
    problem: &Problem,
    of: Of,
    tile: &Tile,
    to: To<'_>,
) -> Specialization {
    let shapes = &problem.shapes;
    let weighing = Weighing::new(config, shapes.key_dim);
    let vec4 = problem.is_vec4(&["q", "k"]);
    let chunked = of == Of::Values && config.chunk().is_some();
    let mut fragments = vec![
        source!("gated_attention/backward_params"),
        source!("gated_attention/backward_tile"),
        source!("shared/steps"),
        source!("shared/steps_together"),
        source!("shared/tile_keys"),
        source!("shared/tile_products"),
        source!("gated_attention/divisor"),
        fours!(vec4, "gated_attention/", "q"),
        if shapes.shared_z { source!("gated_attention/k_is_q") } else { fours!(vec4, "gated_attention/", "k") },
        pick(
            weighing.divides_by_sum(),
            source!("gated_attention/backward_terms"),
            source!("gated_attention/backward_terms_by_place"),
        ),
        pick(chunked, source!("gated_attention/backward_add_states"), source!("gated_attention/backward_no_states")),
    ];
    if chunked {
        fragments.push(source!("gated_attention/tiled_add_state"));
        let vec4 = problem.is_vec4(&["k_lin"]);
        fragments.push(match shapes.shared_z {
            true => source!("gated_attention/q_lin_is_q"),
            false => fours!(vec4, "gated_attention/", "q_lin"),
        });
    }
    fragments.extend(reading(problem, of));
    fragments.extend(map_fragments(shapes.shared_z, true));
    fragments.extend(to.fragments());
    let mut constants = tile.grid.constants(tile.v_block);
    constants.extend(u32s([
        ("KEY_DIM", shapes.key_dim),
        ("V_DIM", shapes.v_dim),
        ("V_BLOCK", tile.v_block),
        ("DIVISOR", weighing.divisor_law),
    ]));
    constants.extend([
        ("OF_QUERIES", Constant::Bool(of == Of::Queries)),
        ("OF_VALUES", Constant::Bool(of == Of::Values)),
        ("SOFTMAX", Constant::Bool(weighing.softmax)),
    ]);
    let [own, walked] = if of == Of::Queries { ["q", "k"] } else { ["k", "q"] };
    let mut storage =
        vec![("q", problem.storage(own)), ("k", problem.storage(walked)), ("q_lin", problem.storage("k_lin"))];
    storage.extend(to.storage());
    Specialization { kernel: source!("gated_attention/backward"), constants, fragments, storage: Vec::new() }
        .of(problem, &storage)
}

/// What the weights of rows have in common; `delta`, if gradients come through scores.
pub(super) fn rows(config: &GatedAttentionConfig, problem: &Problem, delta: bool) -> Specialization {
    let weighing = Weighing::new(config, problem.shapes.key_dim);
    let o = if delta {
        fours!(problem.is_vec4(&["o"]), "gated_attention/", "saved_o")
    } else {
        source!("gated_attention/no_saved_o")
    };
    let fragments = vec![
        fours!(problem.is_vec4(&["dout"]), "gated_attention/", "dout"),
        o,
        source!("gated_attention/divisor"),
        source!("shared/row_place"),
        source!("shared/lane_sums"),
        source!("shared/workgroup_index"),
    ];
    let mut constants = u32s([
        ("WORKGROUP", FLAT_WORKGROUP),
        ("LANES", ROW_LANES),
        ("V_DIM", problem.shapes.v_dim),
        ("DIVISOR", weighing.divisor_law),
    ]);
    constants.extend([("SOFTMAX", Constant::Bool(weighing.softmax)), ("LOG_N", Constant::Bool(weighing.log_n))]);
    Specialization { kernel: source!("gated_attention/backward_rows"), constants, fragments, storage: Vec::new() }
        .of(problem, &[])
}

/// The kernel that adds up ranges.
pub(super) fn combine(problem: &Problem, gradient: &Layout, dim: u32) -> Specialization {
    let constants = u32s([("WORKGROUP", FLAT_WORKGROUP), ("RESULT_DIM", dim)]);
    let fragments = vec![source!("shared/row_place"), source!("shared/workgroup_index"), store(gradient)];
    Specialization { kernel: source!("gated_attention/backward_combine"), constants, fragments, storage: Vec::new() }
        .of(problem, &[("gradient", gradient.storage)])
}

/// The tile of the states of chunks: 64 or 128 key dims by up to 128 value dims.
pub(super) fn state_tile(key_dim: u32, v_block: u32) -> Tile {
    let v_block = v_block.div_ceil(v_block.div_ceil(32));
    Tile { grid: grid([if key_dim <= 64 { 8 } else { 16 }, 2, 4, 2], 16), v_block }
}

/// What flows back to the states of chunks.
pub(super) fn states(problem: &Problem, tile: &Tile) -> Specialization {
    let shapes = &problem.shapes;
    let mut fragments = vec![
        source!("shared/tile"),
        source!("gated_attention/tiled_write_state"),
        source!("gated_attention/backward_factor"),
        fours!(problem.is_vec4(&["q_lin"]), "gated_attention/", "q"),
        fours!(problem.is_vec4(&["dout"]), "gated_attention/", "dout"),
        gate(problem.own("u")),
        optional!(shapes.kv_lens, "shared/", "kv_lens"),
        source!("shared/workgroup_index"),
    ];
    fragments.extend(map_fragments(shapes.shared_z, true));
    let mut constants = tile.grid.constants(tile.v_block);
    constants.extend(u32s([("KEY_DIM", shapes.key_dim), ("V_DIM", shapes.v_dim), ("V_BLOCK", tile.v_block)]));
    Specialization { kernel: source!("gated_attention/backward_states"), constants, fragments, storage: Vec::new() }
        .of(problem, &[("q", problem.storage("q_lin"))])
}

/// The gradients of q_lin, or of k_lin.
pub(super) fn linear(problem: &Problem, of: Of, tile: Grid) -> Specialization {
    let shapes = &problem.shapes;
    let mut fragments = vec![
        source!("gated_attention/backward_params"),
        source!("gated_attention/backward_tile"),
        source!("gated_attention/backward_factor"),
    ];
    fragments.extend(reading(problem, of));
    let mut constants = tile.constants(shapes.key_dim.div_ceil(4));
    constants.extend(u32s([("KEY_DIM", shapes.key_dim), ("V_DIM", shapes.v_dim)]));
    constants.push(("OF_QUERIES", Constant::Bool(of == Of::Queries)));
    Specialization { kernel: source!("gated_attention/backward_linear"), constants, fragments, storage: Vec::new() }
        .of(problem, &[])
}

/// Invocations of `backward_maps.wgsl`.
pub(super) const MAPS_WORKGROUP: u32 = 64;

/// Through the maps of z: to z, if its gradient is wanted, and to sums of groups of rows; `sides` of q, k, q_lin and k_lin.
pub(super) fn maps(problem: &Problem, sides: [bool; 4], dz: Option<&Layout>) -> Specialization {
    let shapes = &problem.shapes;
    let mut fragments = vec![
        fours!(problem.is_vec4(&["z"]), "gated_attention/", "q"),
        dz.map_or(source!("gated_attention/no_gradient"), store),
        source!("shared/workgroup_index"),
    ];
    fragments.extend(map_fragments(true, true));
    let mut constants = u32s([
        ("WORKGROUP", MAPS_WORKGROUP),
        ("COLUMNS", shapes.key_dim.div_ceil(4).next_power_of_two()),
        ("KEY_DIM", shapes.key_dim),
    ]);
    let names = ["HAS_Q", "HAS_K", "HAS_Q_LIN", "HAS_K_LIN"];
    constants.extend(names.into_iter().zip(sides).map(|(name, has)| (name, Constant::Bool(has))));
    let mut storage = vec![("q", problem.storage("z"))];
    storage.extend(dz.map(|layout| ("gradient", layout.storage)));
    Specialization { kernel: source!("gated_attention/backward_maps"), constants, fragments, storage: Vec::new() }
        .of(problem, &storage)
}

/// The gradient of a map from sums of groups of rows.
pub(super) fn map_sums(problem: &Problem, gradient: &Layout) -> Specialization {
    let constants = u32s([("WORKGROUP", FLAT_WORKGROUP), ("KEY_DIM", problem.shapes.key_dim)]);
    let fragments = vec![source!("shared/workgroup_index"), store(gradient)];
    Specialization { kernel: source!("gated_attention/backward_map_sums"), constants, fragments, storage: Vec::new() }
        .of(problem, &[("gradient", gradient.storage)])
}

/// Adapters and bytes of workgroup memory: between them they pick every tile.
const DEVICES: [(Adapter, u32); 3] =
    [(Adapter::Llvmpipe, 16 << 10), (Adapter::Gpu, 16 << 10), (Adapter::Gpu, 32 << 10)];

/// Every specialization that a plan can pick, up to the widths (which are sampled); forward's own, with another gate, it has itself.
#[doc(hidden)]
#[must_use]
pub fn specializations() -> Vec<Specialization> {
    let bits = |number: u32, bit: u32| number >> bit & 1 == 1;
    let mut found = Vec::new();
    for (key_dim, v_dim) in [(64, 64), (1, 1), (128, 1536), (256, 70)] {
        // All flags off, on, and mixed: most only at one size, and there by all tiles.
        let all = key_dim == 64;
        let flags: &[u32] = if all { &[0, 0b111, 0b01010, 0b10101, 0b11111] } else { &[0b111, 0b11111] };
        let devices = if all { &DEVICES[..] } else { &DEVICES[1..2] };
        for (config, &flags) in every_weight().iter().flat_map(|config| flags.iter().map(move |flags| (config, flags)))
        {
            let mut shapes = GatedAttentionBackwardShapes::new(1, 1, 1, key_dim, v_dim);
            if bits(flags, 0) {
                shapes = GatedAttentionBackwardShapes::gau(1, 1, 1, key_dim, v_dim);
            }
            (shapes.gate, shapes.kv_lens, shapes.du) = (bits(flags, 1), bits(flags, 2), false);
            (shapes.dq_lin, shapes.dk_lin) = (!shapes.shared_z && config.chunk().is_some(), false);
            let mut problem = Problem::contiguous::<GatedAttentionBackward>(config, shapes);
            if bits(flags, 3) {
                // Off a multiple of four: scalar loads and stores.
                for name in ["q", "z", "k_lin", "dout", "dq", "dz", "dgamma_q"] {
                    problem.change(name, |layout| layout.start = 1);
                }
            }
            if bits(flags, 4) {
                for name in ["v", "o", "dv"] {
                    problem.change(name, |layout| layout.start = 1);
                }
            }
            for (of, gradient) in [(Of::Queries, "dq"), (Of::Keys, "dk"), (Of::Values, "dv")] {
                let to = problem.output(gradient).map(To::Gradient);
                for to in [Some(To::Workspace), to].into_iter().flatten() {
                    for &(adapter, granted) in devices {
                        let tile = Tile::of(of, [key_dim, v_dim], adapter, granted);
                        found.push(walk(config, &problem, of, &tile, to));
                    }
                }
                let dim = if of == Of::Values { v_dim } else { key_dim };
                found.extend(problem.output(gradient).map(|layout| combine(&problem, layout, dim)));
            }
            if config.adds_up() {
                found.extend([false, true].map(|delta| rows(config, &problem, delta)));
            }
            if config.chunk().is_some() {
                for &(adapter, granted) in devices {
                    let tile = |of| Tile::of(of, [key_dim, v_dim], adapter, granted);
                    found.push(states(&problem, &state_tile(key_dim, tile(Of::Values).v_block)));
                    found.extend([Of::Queries, Of::Keys].map(|of| linear(&problem, of, tile(of).grid)));
                }
                found.extend([false, true].map(|back| prefix(config, back)));
            }
            if shapes.shared_z {
                let linear = config.chunk().is_some();
                for dz in [None, problem.output("dz")] {
                    found.push(maps(&problem, [true, true, linear, linear], dz));
                    found.push(maps(&problem, [true, false, false, false], dz));
                }
                found.extend(problem.output("dgamma_q").map(|layout| map_sums(&problem, layout)));
            }
        }
    }
    wgsl::distinct(found)
}
