//! The kernels of the matrix product: the source of each specialization, and the numbers it is given.

use super::plan::{ALTERNATIVES, Kernel, Problem, TILES, Tile};
use super::product::adding;
use super::{Activation, MatMul, MatMulConfig, MatMulShapes};
use crate::dispatch::Value;
use crate::dtype::Storage;
use crate::matrices::MatrixTier;
use crate::tensor::Layout;
use crate::wgsl::{self, Constant, Source, Specialization, source};

pub(super) const COMBINE_WORKGROUP: u32 = 64;
/// Ranges that an invocation reads at a time.
pub(super) const COMBINE_IN_FLIGHT: u32 = 4;

/// The kernel for a problem; of a range of k, it writes partial sums.
pub(super) fn kernel(config: &MatMulConfig, problem: &Problem, tile: &Tile, partial: bool) -> Specialization {
    let [a_transposed, b_transposed] = transposed(problem);
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
                ("A_F16", Constant::Bool(is_f16(problem, "a"))),
                ("B_F16", Constant::Bool(is_f16(problem, "b"))),
                ("AFour", four_of(problem, "a")),
                ("BFour", four_of(problem, "b")),
            ],
            tier.fragments().to_vec(),
        ),
    };
    constants.push(("DEPTH", Constant::U32(tile.depth)));
    fragments.push(match (problem.is_vec4(&["a"]), a_transposed) {
        (true, false) => source!("matmul/a_vec4"),
        (true, true) => source!("matmul/a_transposed_vec4"),
        (false, _) => source!("matmul/a_scalar"),
    });
    fragments.push(match (problem.is_vec4(&["b"]), b_transposed) {
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
    Specialization { kernel, constants, fragments, storage: Vec::new() }.of(problem, &[])
}

/// Whether a factor is stored in the f16 that matrices multiply.
fn is_f16(problem: &Problem, name: &'static str) -> bool {
    problem.storage(name) == Storage::NativeF16
}

/// What four numbers of it are.
fn four_of(problem: &Problem, name: &'static str) -> Constant {
    Constant::Type(if is_f16(problem, name) { "vec4<f16>" } else { "vec4<f32>" })
}

/// Whether a, and b, stand in memory as their transposes.
fn transposed(problem: &Problem) -> [bool; 2] {
    ["a", "b"].map(|name| problem.get(name).is_some_and(|layout| layout.transposed))
}

/// The kernel that adds the sums of all ranges of k.
pub(super) fn combine(config: &MatMulConfig, problem: &Problem) -> Specialization {
    let mut fragments = output_fragments(config, problem);
    fragments.push(source!("matmul/params"));
    fragments.push(source!("shared/workgroup_index"));
    let constants =
        vec![("WORKGROUP", Constant::U32(COMBINE_WORKGROUP)), ("IN_FLIGHT", Constant::U32(COMBINE_IN_FLIGHT))];
    Specialization { kernel: source!("matmul/combine"), constants, fragments, storage: Vec::new() }.of(problem, &[])
}

/// The files by which a kernel writes c.
fn output_fragments(config: &MatMulConfig, problem: &Problem) -> Vec<&'static Source> {
    let is_vec4 = |name| problem.get(name).map(Layout::is_vec4);
    let mut fragments = vec![
        if problem.is_vec4(&["c"]) { source!("matmul/c_vec4") } else { source!("matmul/c_scalar") },
        match is_vec4("bias") {
            Some(true) => source!("matmul/bias_vec4"),
            Some(false) => source!("matmul/bias_scalar"),
            None => source!("matmul/no_bias"),
        },
    ];
    let [activate, slope] = match config.activation {
        Activation::None => [source!("matmul/activate_none"), source!("matmul/slope_none")],
        Activation::Silu => [source!("matmul/activate_silu"), source!("matmul/slope_silu")],
        Activation::Relu => [source!("matmul/activate_relu"), source!("matmul/slope_relu")],
        Activation::GeluTanh => [source!("matmul/activate_gelu_tanh"), source!("matmul/slope_gelu_tanh")],
    };
    fragments.extend(match is_vec4("dc") {
        Some(true) => vec![source!("matmul/dc_vec4"), slope, source!("matmul/write_slope")],
        Some(false) => vec![source!("matmul/dc_scalar"), slope, source!("matmul/write_slope")],
        None => vec![activate, source!("matmul/write_result")],
    });
    fragments
}

/// The numbers of every kernel, beside the sizes.
pub(super) fn values(
    problem: &Problem,
    [row_tiles, column_tiles]: [u32; 2],
    [range_k, ranges]: [u32; 2],
) -> Vec<(&'static str, Value)> {
    let MatMulShapes { batch, heads, n, .. } = problem.shapes;
    let [a, b] = ["a", "b"].map(|name| problem.get(name).map_or(0, |layout| layout.strides[2]));
    let [a_transposed, b_transposed] = transposed(problem);
    let [a_m, a_k] = if a_transposed { [1, a] } else { [a, 1] };
    let [b_k, b_n] = if b_transposed { [1, b] } else { [b, 1] };
    [
        ("matrices", batch * heads),
        ("n_chunks", n.div_ceil(4)),
        ("range_k", range_k),
        ("ranges", ranges),
        ("row_tiles", row_tiles),
        ("column_tiles", column_tiles),
        ("a_m", a_m),
        ("a_k", a_k),
        ("b_k", b_k),
        ("b_n", b_n),
    ]
    .map(|(name, value)| (name, value.into()))
    .into()
}

/// Every specialization that a plan can pick; of most tiles, only a few ways its operands lie.
#[doc(hidden)]
#[must_use]
pub fn specializations() -> Vec<Specialization> {
    use Activation::{GeluTanh, None, Relu, Silu};
    let bits = |number: u32, bit: u32| number >> bit & 1 == 1;
    let mut found = Vec::new();
    for (index, tile) in TILES.iter().chain(ALTERNATIVES).enumerate() {
        for flags in 0..1u32 << 7 {
            // All of them for the first tile of either kernel; elsewhere each transpose, with all else on or off.
            let first = TILES.iter().position(|other| matches!(other.kernel, Kernel::Rows { .. })).unwrap_or(0);
            if ![0, first].contains(&index) && ![0, 0b11111].contains(&(flags >> 2)) {
                continue;
            }
            let extent = |vec4| if vec4 { 8 } else { 7 };
            // The activation meets nothing but the bias, and its slope nothing but the gradient of c, which lies as the bias does.
            let alone = flags & 0b11 == 0;
            let activations = if alone { &[None, Silu, Relu, GeluTanh][..] } else { &[None] };
            let with_dc = alone && index == 0;
            for &dc in if with_dc { &[false, true][..] } else { &[false] } {
                let shapes = MatMulShapes {
                    a_transposed: bits(flags, 0),
                    b_transposed: bits(flags, 1),
                    bias: bits(flags, 2),
                    dc,
                    ..MatMulShapes::new(8, 8, 8)
                };
                // Each operand in fours or not, as its innermost extent says.
                let mut problem = Problem::contiguous::<MatMul>(&MatMulConfig::new(), shapes);
                for (bit, name) in [(3, "a"), (4, "b"), (5, "c"), (6, "bias"), (6, "dc")] {
                    problem.change(name, |layout| layout.shape[3] = extent(bits(flags, bit)));
                }
                for &activation in activations {
                    let config = MatMulConfig::new().activation(activation);
                    found.push(combine(&config, &problem));
                    for tile in MatrixTier::SAMPLES.map(|tier| tile.with(tier)) {
                        found.extend([false, true].map(|partial| kernel(&config, &problem, &tile, partial)));
                    }
                }
            }
        }
    }
    // Of those that write c in fours, some that add to it.
    found.extend(found.clone().into_iter().step_by(7).map(adding));
    wgsl::distinct(found)
}
