//! The kernels of the matrix product: their bindings, their uniform, and the source of each specialization.

use super::plan::{ALTERNATIVES, Kernel, Problem, TILES, Tile};
use super::{Activation, MatMulConfig, MatMulShapes};
use crate::matrices::MatrixTier;
use crate::params::{ParamsLayout, params};
use crate::tensor::{Layout, Storage};
use crate::wgsl::{Constant, Source, Specialization, source};

/// Operand slots, which are also the `@binding` numbers of the kernels.
pub(super) mod slot {
    pub const A: usize = 1;
    pub const B: usize = 2;
    pub const C: usize = 3;
    pub const BIAS: usize = 4;
    /// In the workspace.
    pub const PARTIALS: usize = 5;
    pub const COUNT: usize = 5;
}

params! {
    /// Uniform of `matmul/params.wgsl`; units are there.
    struct MatMulParams {
        first_workgroup: u32,
        end_workgroup: u32,
        matrices: u32,
        heads: u32,
        m: u32,
        n: u32,
        n_chunks: u32,
        k: u32,
        range_k: u32,
        ranges: u32,
        row_tiles: u32,
        column_tiles: u32,
        a_start: u32,
        a_batch: u32,
        a_head: u32,
        a_m: u32,
        a_k: u32,
        b_start: u32,
        b_batch: u32,
        b_head: u32,
        b_k: u32,
        b_n: u32,
        c_start: u32,
        c_batch: u32,
        c_head: u32,
        c_m: u32,
        bias_start: u32,
        bias_batch: u32,
        bias_head: u32,
        bias_m: u32,
    }
}

pub(super) const COMBINE_WORKGROUP: u32 = 64;
/// Ranges that an invocation reads at a time.
pub(super) const COMBINE_IN_FLIGHT: u32 = 4;

/// The kernel for a problem; of a range of k, it writes partial sums.
pub(super) fn kernel(config: &MatMulConfig, problem: &Problem, tile: &Tile, partial: bool) -> Specialization {
    let MatMulShapes { a_transposed, b_transposed, .. } = problem.shapes;
    let (kernel, mut constants, mut fragments): (_, Vec<_>, Vec<&Source>) = match tile.kernel {
        Kernel::Tiles { groups, blocks } => (
            source!("matmul/tiles"),
            vec![
                ("ROW_GROUPS", Constant::U32(groups[0])),
                ("COLUMN_GROUPS", Constant::U32(groups[1])),
                ("ROW_BLOCKS", Constant::U32(blocks[0])),
                ("COLUMN_BLOCKS", Constant::U32(blocks[1])),
                ("A_TRANSPOSED", Constant::Bool(a_transposed)),
                ("B_TRANSPOSED", Constant::Bool(b_transposed)),
            ],
            vec![],
        ),
        Kernel::Rows { workgroup, columns, span, subgroup } => (
            source!("matmul/rows"),
            vec![
                ("WORKGROUP", Constant::U32(workgroup)),
                ("COLUMNS", Constant::U32(columns)),
                ("SPAN", Constant::U32(span)),
            ],
            vec![if subgroup { source!("matmul/b_subgroup") } else { source!("matmul/b_uniform") }],
        ),
        Kernel::Matrices { subgroups, block, tier } => (
            source!("matmul/cooperative"),
            vec![
                ("SUBGROUP", Constant::U32(tier.subgroup)),
                ("SUBGROUPS_M", Constant::U32(subgroups[0])),
                ("SUBGROUPS_N", Constant::U32(subgroups[1])),
                ("ROWS", Constant::U32(block[0])),
                ("COLUMNS", Constant::U32(block[1])),
                ("A_TRANSPOSED", Constant::Bool(a_transposed)),
                ("B_TRANSPOSED", Constant::Bool(b_transposed)),
            ],
            tier.fragments().to_vec(),
        ),
    };
    constants.push(("DEPTH", Constant::U32(tile.depth)));
    fragments.push(match (problem.a.is_vec4(), a_transposed) {
        (true, false) => source!("matmul/a_vec4"),
        (true, true) => source!("matmul/a_transposed_vec4"),
        (false, _) => source!("matmul/a_scalar"),
    });
    fragments.push(match (problem.b.is_vec4(), b_transposed) {
        (true, false) => source!("matmul/b_vec4"),
        (true, true) => source!("matmul/b_transposed_vec4"),
        (false, _) => source!("matmul/b_scalar"),
    });
    if partial {
        fragments.push(source!("matmul/write_partial"));
    } else {
        fragments.extend(output_fragments(config, problem));
    }
    fragments.push(source!("matmul/params"));
    fragments.push(source!("shared/workgroup_index"));
    let specialization = Specialization { kernel, constants, fragments, storage: Vec::new() };
    let specialization = specialization.stored([("a", problem.a.storage), ("b", problem.b.storage)]);
    if partial { specialization } else { specialization.stored(outputs(problem)) }
}

/// The kernel that adds the sums of all ranges of k.
pub(super) fn combine(config: &MatMulConfig, problem: &Problem) -> Specialization {
    let mut fragments = output_fragments(config, problem);
    fragments.push(source!("matmul/params"));
    fragments.push(source!("shared/workgroup_index"));
    let constants =
        vec![("WORKGROUP", Constant::U32(COMBINE_WORKGROUP)), ("IN_FLIGHT", Constant::U32(COMBINE_IN_FLIGHT))];
    let combine = Specialization { kernel: source!("matmul/combine"), constants, fragments, storage: Vec::new() };
    combine.stored(outputs(problem))
}

/// What is bound where c is written.
fn outputs(problem: &Problem) -> impl Iterator<Item = (&'static str, Storage)> {
    [Some(("c", problem.c.storage)), problem.bias.map(|bias| ("bias", bias.storage))].into_iter().flatten()
}

/// The files by which a kernel writes c.
fn output_fragments(config: &MatMulConfig, problem: &Problem) -> Vec<&'static Source> {
    vec![
        if problem.c.is_vec4() { source!("matmul/c_vec4") } else { source!("matmul/c_scalar") },
        match problem.bias.map(|bias| bias.is_vec4()) {
            Some(true) => source!("matmul/bias_vec4"),
            Some(false) => source!("matmul/bias_scalar"),
            None => source!("matmul/no_bias"),
        },
        match config.activation {
            Activation::None => source!("matmul/activate_none"),
            Activation::Silu => source!("matmul/activate_silu"),
            Activation::Relu => source!("matmul/activate_relu"),
            Activation::GeluTanh => source!("matmul/activate_gelu_tanh"),
        },
        source!("matmul/write_result"),
    ]
}

/// The numbers of one dispatch.
pub(super) fn kernel_params(
    problem: &Problem,
    [row_tiles, column_tiles]: [u32; 2],
    [range_k, ranges]: [u32; 2],
    [first_workgroup, end_workgroup]: [u32; 2],
) -> MatMulParams {
    let MatMulShapes { batch, heads, m, n, k, a_transposed, b_transposed, .. } = problem.shapes;
    let rank4 = |l: Layout<4>| [l.start, l.strides[0], l.strides[1], l.strides[2]];
    let [a_start, a_batch, a_head, a_outer] = rank4(problem.a);
    let [b_start, b_batch, b_head, b_outer] = rank4(problem.b);
    let [c_start, c_batch, c_head, c_m] = rank4(problem.c);
    let [bias_start, bias_batch, bias_head, bias_m] = problem.bias.map_or([0; 4], rank4);
    let [a_m, a_k] = if a_transposed { [1, a_outer] } else { [a_outer, 1] };
    let [b_k, b_n] = if b_transposed { [1, b_outer] } else { [b_outer, 1] };
    MatMulParams {
        first_workgroup,
        end_workgroup,
        matrices: batch * heads,
        heads,
        m,
        n,
        n_chunks: n.div_ceil(4),
        k,
        range_k,
        ranges,
        row_tiles,
        column_tiles,
        a_start,
        a_batch,
        a_head,
        a_m,
        a_k,
        b_start,
        b_batch,
        b_head,
        b_k,
        b_n,
        c_start,
        c_batch,
        c_head,
        c_m,
        bias_start,
        bias_batch,
        bias_head,
        bias_m,
    }
}

/// Every specialization that a plan can pick, with its uniform's layout; of most tiles, only a few ways its operands lie.
#[doc(hidden)]
#[must_use]
pub fn specializations() -> Vec<(Specialization, ParamsLayout)> {
    use Activation::{GeluTanh, None, Relu, Silu};
    let bits = |number: u32, bit: u32| number >> bit & 1 == 1;
    let with_layout = |specialization| (specialization, MatMulParams::LAYOUT);
    let mut found = Vec::new();
    for (index, tile) in TILES.iter().chain(ALTERNATIVES).enumerate() {
        for flags in 0..1u32 << 7 {
            // All of them for the first tile of either kernel; elsewhere each transpose, with all else on or off.
            let first = TILES.iter().position(|other| matches!(other.kernel, Kernel::Rows { .. })).unwrap_or(0);
            if ![0, first].contains(&index) && ![0, 0b11111].contains(&(flags >> 2)) {
                continue;
            }
            let extent = |vec4| if vec4 { 8 } else { 7 };
            let shapes = MatMulShapes {
                a_transposed: bits(flags, 0),
                b_transposed: bits(flags, 1),
                bias: bits(flags, 2),
                ..MatMulShapes::new(8, 8, 8)
            };
            // Each operand in fours or not, as its innermost extent says.
            let mut problem = Problem::contiguous(shapes);
            problem.a.shape[3] = extent(bits(flags, 3));
            problem.b.shape[3] = extent(bits(flags, 4));
            problem.c.shape[3] = extent(bits(flags, 5));
            if let Some(bias) = &mut problem.bias {
                bias.shape[3] = extent(bits(flags, 6));
            }
            // The activation meets nothing but the bias.
            let activations = if flags & 0b11 == 0 { &[None, Silu, Relu, GeluTanh][..] } else { &[None] };
            for &activation in activations {
                let config = MatMulConfig::new().activation(activation);
                for tile in MatrixTier::SAMPLES.map(|tier| tile.with(tier)) {
                    found.extend(
                        [false, true].map(|partial| kernel(&config, &problem, &tile, partial)).map(with_layout),
                    );
                }
                found.push(with_layout(combine(&config, &problem)));
            }
        }
    }
    let mut seen = std::collections::HashSet::new();
    found.retain(|(specialization, _)| seen.insert(specialization.clone()));
    found
}
