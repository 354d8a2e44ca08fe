//! The kernels of the backward pass: the source of each specialization.

use super::super::{AttentionConfig, Scale};
use super::plan::Problem;
use super::tiles::{self, Tiles};
use super::{AttentionBackward, AttentionBackwardShapes};
use crate::Matrices;
use crate::dtype::Storage;
use crate::matrices::MatrixTier;
use crate::tensor::Layout;
use crate::wgsl::{self, Constant, Source, Specialization, fours, optional, pick, source};

/// Invocations of a workgroup that walks no pairs.
pub(super) const WORKGROUP: u32 = 64;
/// Of them, those that share a row.
const LANES: u32 = 8;
/// Rows of such a workgroup.
pub(super) const ROWS: u32 = WORKGROUP / LANES;

fn u32(number: u32) -> Constant {
    Constant::U32(number)
}

fn small(
    kernel: &'static Source,
    constants: &[(&'static str, Constant)],
    fragments: &[&'static Source],
) -> Specialization {
    let constants = [&[("WORKGROUP", u32(WORKGROUP))], constants].concat();
    let fragments = [&[source!("shared/workgroup_index")], fragments].concat();
    Specialization { kernel, constants, fragments, storage: Vec::new() }
}

fn dout(problem: &Problem, vec4: bool) -> &'static Source {
    if problem.shapes.dout { fours!(vec4, "attention/", "dout") } else { source!("attention/no_dout") }
}

/// Whether rows of `dout` have units, as matrices ask for.
fn units(config: &AttentionConfig) -> &'static Source {
    optional!(config.matrices == Matrices::F16, "attention/backward_", "units")
}

/// The kernel of what a row's pairs have in common.
pub(super) fn rows(config: &AttentionConfig, problem: &Problem) -> Specialization {
    let AttentionBackwardShapes { v_dim, dlse, dentropy, .. } = problem.shapes;
    let fragments = [
        source!("shared/row_place"),
        source!("shared/lane_sums"),
        source!("attention/backward_no_key"),
        units(config),
        fours!(problem.is_vec4(&["o"]), "attention/", "x"),
        dout(problem, problem.is_vec4(&["dout"])),
        optional!(dlse, "attention/", "dlse"),
        optional!(dentropy, "attention/", "dentropy"),
    ];
    let kernel = small(source!("attention/backward_rows"), &[("LANES", u32(LANES)), ("V_DIM", u32(v_dim))], &fragments);
    kernel.of(problem, &[("x", problem.storage("o"))])
}

/// Four rows of which [`scales`] makes one workgroup's invocations count the keys together.
pub(super) fn scale_tiles(config: &AttentionConfig, problem: &Problem) -> u32 {
    let counts = problem.shapes.mask && config.scale.terms(1).log_n;
    if counts { 1 } else { WORKGROUP }
}

/// The kernel of scales and lengths, where not all rows and sequences have the same.
pub(super) fn scales(config: &AttentionConfig, problem: &Problem, lens: bool) -> Option<Specialization> {
    let AttentionBackwardShapes { kv_lens, mask, head_dim, .. } = problem.shapes;
    let log_n = config.scale.terms(head_dim).log_n;
    let per_row = config.scale == Scale::PerRow;
    if !(log_n || per_row || kv_lens && lens) {
        return None;
    }
    let constants = [
        ("LANES", u32(WORKGROUP / scale_tiles(config, problem))),
        ("LOG_N", Constant::Bool(log_n)),
        ("SCALES", Constant::Bool(log_n || per_row)),
        ("LENS", Constant::Bool(kv_lens && lens)),
    ];
    let fragments = [
        source!("shared/walk"),
        source!("shared/steps"),
        source!("attention/scores"),
        source!("attention/no_bias"),
        optional!(mask && log_n, "attention/", "mask"),
        optional!(kv_lens, "shared/", "kv_lens"),
        optional!(per_row, "attention/", "row_scale"),
    ];
    Some(small(source!("attention/backward_scales"), &constants, &fragments).of(problem, &[]))
}

/// What the three kernels that walk pairs have alike.
fn pairs(
    config: &AttentionConfig,
    problem: &Problem,
    kernel: &'static Source,
    tiles: Tiles,
    (partial, write): (bool, &[&'static Source]),
    own: &[(&'static str, Constant)],
) -> Specialization {
    let shapes = &problem.shapes;
    let vec4 = problem.is_vec4(&["q", "k", "v", "dout"]);
    let bias = shapes.bias_rows.is_some();
    let mut fragments = vec![
        source!("attention/backward_params"),
        source!("shared/walk"),
        source!("shared/steps"),
        source!("attention/scores"),
        pick(vec4, source!("attention/load_vec4"), source!("attention/load_scalar")),
        pick(shapes.kv_lens, source!("attention/backward_kv_lens"), source!("shared/no_kv_lens")),
        optional!(bias, "attention/", "bias"),
        optional!(shapes.mask, "attention/", "mask"),
        source!("attention/no_row_scale"),
        source!("attention/backward_no_key"),
        source!("attention/backward_pairs"),
        units(config),
        source!("shared/workgroup_index"),
        dout(problem, vec4),
    ];
    fragments.extend(write);
    let (mut constants, products) = match tiles.matrices {
        Some(tile) => tiles::of_matrices(tile, tiles.turned, shapes),
        None => {
            let products =
                vec![source!("shared/tile"), source!("shared/tile_keys"), source!("attention/backward_tile")];
            (tiles.grid.constants(tiles.chunks), products)
        }
    };
    fragments.extend(products);
    constants.extend(own);
    constants.extend([
        ("HEAD_DIM", u32(shapes.head_dim)),
        ("V_DIM", u32(shapes.v_dim)),
        ("SOFTCAP", Constant::Bool(config.softcap.is_some())),
        ("ENTROPY", Constant::Bool(shapes.dentropy)),
        ("DOUT", Constant::Bool(shapes.dout)),
        ("Elem", Constant::Type(if vec4 { "vec4<f32>" } else { "f32" })),
    ]);
    let kernel = Specialization { kernel, constants, fragments, storage: Vec::new() };
    // Partial results lie in the buffer in which the facts do.
    kernel.of(problem, if partial { &[("facts", Storage::Shared)] } else { &[] })
}

fn masks(problem: &Problem) -> [(&'static str, Constant); 2] {
    let bias = problem.shapes.bias_rows.is_some();
    [("HAS_BIAS", Constant::Bool(bias)), ("ROW_MASK", Constant::Bool(bias || problem.shapes.mask))]
}

/// The kernel that walks the keys for the gradients of queries.
pub(super) fn queries(config: &AttentionConfig, problem: &Problem, tiles: Tiles, partial: bool) -> Specialization {
    let mut write = vec![source!("attention/write_dq_partial"), source!("shared/steps_together")];
    if !partial {
        write[0] = source!("attention/write_dq");
        write.push(fours!(problem.is_vec4(&["dq"]), "attention/", "dq"));
    }
    let mut own = masks(problem).to_vec();
    let kernel = match tiles.matrices {
        Some(_) => source!("attention/backward_q_cooperative"),
        None => {
            write.push(source!("attention/backward_queries"));
            own.push(("V_CHUNKS", u32(tiles.chunks)));
            source!("attention/backward_q")
        }
    };
    pairs(config, problem, kernel, tiles, (partial, &write), &own)
}

/// The kernel that walks the queries for the gradients of keys and values, as they are asked for.
pub(super) fn keys(
    config: &AttentionConfig,
    problem: &Problem,
    tiles: Tiles,
    partial: bool,
    [dk, dv]: [bool; 2],
) -> Specialization {
    let mut write = vec![
        source!("attention/write_dkv_partial"),
        source!("shared/steps_together"),
        source!("attention/backward_keys"),
    ];
    if !partial {
        write[0] = source!("attention/write_dkv");
        write.push(match dk {
            true => fours!(problem.is_vec4(&["dk"]), "attention/", "dk"),
            false => source!("attention/no_dk"),
        });
        write.push(match dv {
            true => fours!(problem.is_vec4(&["dv"]), "attention/", "dv"),
            false => source!("attention/no_dv"),
        });
    }
    let mut own = [&masks(problem)[..], &[("DK", Constant::Bool(dk)), ("DV", Constant::Bool(dv))]].concat();
    let kernel = match tiles.matrices {
        Some(_) => source!("attention/backward_kv_cooperative"),
        None => {
            own.push(("V_CHUNKS", u32(tiles.chunks)));
            source!("attention/backward_kv")
        }
    };
    pairs(config, problem, kernel, tiles, (partial, &write), &own)
}

/// The kernel of the gradient of the bias.
pub(super) fn bias(config: &AttentionConfig, problem: &Problem, tiles: Tiles, partial: bool) -> Specialization {
    let mut write = vec![source!("attention/write_dbias_partial"), source!("attention/backward_queries")];
    if !partial {
        write[0] = source!("attention/write_dbias");
        write.push(fours!(problem.is_vec4(&["dbias"]), "attention/", "dbias"));
    }
    let own = [("SUM_ROWS", Constant::Bool(sums_rows(&problem.shapes)))];
    pairs(config, problem, source!("attention/backward_bias"), tiles, (partial, &write), &own)
}

/// Whether one row of the bias stands for several.
pub(super) fn sums_rows(shapes: &AttentionBackwardShapes) -> bool {
    shapes.bias_rows == Some(1) && shapes.q_len != 1
}

/// The kernel that adds up what ranges have left of a gradient; `scaled` by what stands among the facts.
pub(super) fn combine(gradient: &Layout, scaled: bool) -> Specialization {
    let factor = pick(scaled, source!("attention/factor_scale"), source!("attention/factor_one"));
    let mut fragments = vec![source!("shared/row_place"), factor, fours!(gradient.is_vec4(), "attention/", "gradient")];
    fragments.extend(scaled.then(|| source!("attention/backward_no_key")));
    small(source!("attention/backward_combine"), &[], &fragments).stored([("gradient", gradient.storage)])
}

/// The kernel of the gradients of rows' scales.
pub(super) fn slopes(problem: &Problem) -> Specialization {
    let constants = [("LANES", u32(LANES)), ("HEAD_DIM", u32(problem.shapes.head_dim))];
    let fragments = [
        source!("shared/row_place"),
        source!("shared/lane_sums"),
        source!("attention/backward_no_key"),
        fours!(problem.is_vec4(&["q"]), "attention/", "x"),
    ];
    small(source!("attention/backward_slopes"), &constants, &fragments).of(problem, &[("x", problem.storage("q"))])
}

/// The kernel that sums them; `scaled` by what stands among the facts.
pub(super) fn sums(scaled: bool) -> Specialization {
    let constants = vec![("WORKGROUP", u32(256)), ("SCALED", Constant::Bool(scaled))];
    let fragments = vec![source!("shared/workgroup_index"), source!("shared/lane_sums")];
    Specialization { kernel: source!("attention/backward_sums"), constants, fragments, storage: Vec::new() }
}

/// Those that multiply matrices, on devices of each kind.
fn on_matrices(config: AttentionConfig, problem: &Problem, tiles: Tiles, partial: bool) -> Vec<Specialization> {
    let (config, shapes) = (config.matrices(Matrices::F16), problem.shapes);
    let mut found = vec![rows(&config, problem)];
    found.extend(shapes.dbias.then(|| bias(&config, problem, tiles, partial)));
    let apart = shapes.head_dim + shapes.v_dim > 256;
    for (tier, (many, granted)) in
        MatrixTier::SAMPLES.into_iter().flat_map(|tier| [(tier, (1, 32)), (tier, (1000, 48))])
    {
        let limits = wgpu::Limits { max_compute_workgroup_storage_size: granted << 10, ..wgpu::Limits::default() };
        let by_matrices = |sums| tiles.by_matrices(tier, &shapes, (many, sums), &limits);
        let asked = [[shapes.dk, shapes.dv && !apart], [false, apart && shapes.dv]];
        for asked in asked.into_iter().filter(|asked| asked.contains(&true)) {
            let own = by_matrices(asked);
            found.extend(own.matrices.map(|_| keys(&config, problem, own, partial, asked)));
        }
        let own = by_matrices([true, false]);
        found.extend(own.matrices.map(|_| queries(&config, problem, own, partial)));
    }
    found
}

/// Every specialization that a plan can pick, up to the head dims (which are sampled); of options some together.
#[doc(hidden)]
#[must_use]
pub fn specializations() -> Vec<Specialization> {
    let mut found = vec![sums(false), sums(true)];
    for (head_dim, v_dim) in [(1, 1), (3, 5), (64, 64), (128, 128), (72, 200), (256, 256)] {
        for flags in 0..1u32 << 10 {
            let on = |bit: u32| flags >> bit & 1 == 1;
            // The flags off, on, one by one and all but one; all of few: of one head dim pairs of neighbours as well.
            let neighbours = head_dim == 64 && (flags & (flags >> 1)).count_ones() == 1 && flags.count_ones() == 2;
            let few = [0, 1, 9, 10].contains(&flags.count_ones());
            if !(few && (head_dim == 64 || flags.count_ones() % 10 == 0) || neighbours) {
                continue;
            }
            let some = |on: bool, extent| on.then_some(extent);
            let scale = match (on(5), on(6)) {
                (true, _) => Scale::LOG_N,
                (false, true) => Scale::PerRow,
                (false, false) => Scale::InvSqrtDim,
            };
            let per_row = scale == Scale::PerRow;
            let shapes = AttentionBackwardShapes {
                v_dim,
                kv_lens: on(0),
                bias_batches: some(on(1), 1),
                bias_heads: some(on(1), 1),
                bias_rows: some(on(1), if on(8) { 1 } else { 9 }),
                scale_batches: some(per_row, 1),
                scale_heads: some(per_row, 1),
                scale_rows: some(per_row, 1),
                kv_len: if on(3) { 9 } else { 12 },
                mask: on(2),
                dlse: on(3),
                entropy: on(4),
                dentropy: on(4),
                dout: !on(9),
                dk: !on(9) || !on(3),
                dv: !on(9) || on(3),
                dbias: on(1),
                ..AttentionBackwardShapes::new(1, 1, 9, head_dim)
            };
            let mut config = AttentionConfig::new().scale(scale);
            config.softcap = on(7).then_some(30.0);
            let problem = Problem::contiguous::<AttentionBackward>(&config, shapes);
            found.push(rows(&config, &problem));
            found.extend([true, false].into_iter().filter_map(|lens| scales(&config, &problem, lens)));
            for granted in [16 << 10, 32 << 10] {
                for partial in [false, true] {
                    let many = AttentionBackwardShapes { q_len: 99, ..shapes };
                    found.push(queries(&config, &problem, Tiles::of_queries(&many, granted), partial));
                    found.push(queries(&config, &problem, Tiles::of_queries(&shapes, granted), partial));
                    let asked = [shapes.dk, shapes.dv];
                    found.push(keys(&config, &problem, Tiles::of_keys(&shapes, granted), partial, asked));
                    if on(1) {
                        found.push(bias(&config, &problem, Tiles::of_bias(granted), partial));
                    }
                }
            }
            // On matrices, the flags one by one.
            if flags.count_ones() <= 1 || flags.count_ones() == 10 {
                found.extend(on_matrices(config, &problem, Tiles::of_bias(16 << 10), on(7)));
            }
            found.push(slopes(&problem));
            for scaled in [false, true] {
                found.extend(
                    ["dq", "dk", "dv", "dbias"]
                        .map(|name| problem.output(name))
                        .into_iter()
                        .flatten()
                        .map(|layout| combine(layout, scaled)),
                );
            }
        }
    }
    wgsl::distinct(found)
}
