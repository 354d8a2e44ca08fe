//! Which kernel runs for a product, and in what dispatches.

use super::kernels::{kernel, kernel_params, slot};
use super::{MatMulConfig, MatMulShapes};
use crate::context::{Capabilities, Context};
use crate::dispatch::{Plan, PlanBuilder, Slot};
use crate::tensor::{Layout, product};
use crate::wgsl::Specialization;
use crate::{ContextOptions, Error, Result};

/// Everything that a plan depends on besides the config: sizes, and where the tensors lie. Of a transposed operand, the
/// layout is that of its memory: its last two axes swapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Problem {
    pub shapes: MatMulShapes,
    pub a: Layout<4>,
    pub b: Layout<4>,
    pub c: Layout<4>,
    pub bias: Option<Layout<4>>,
}

impl Problem {
    /// Contiguous tensors, each at the start of its buffer.
    pub fn contiguous(shapes: MatMulShapes) -> Self {
        let MatMulShapes { batch, heads, m, n, k, a_transposed, b_transposed, bias } = shapes;
        let matrices = |transposed, [outer, inner]: [u32; 2]| {
            Layout::contiguous(if transposed { [batch, heads, inner, outer] } else { [batch, heads, outer, inner] })
        };
        Self {
            shapes,
            a: matrices(a_transposed, [m, k]),
            b: matrices(b_transposed, [k, n]),
            c: matrices(false, [m, n]),
            bias: bias.then(|| matrices(false, [m, n])),
        }
    }
}

/// How a tile is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kernel {
    /// `matmul/tiles.wgsl`: invocations down and across the tile, and the 4 x 4 blocks of each.
    Tiles { groups: [u32; 2], blocks: [u32; 2] },
    /// `matmul/rows.wgsl`: four rows for each of the invocations; b is held for `span` columns at a time.
    Rows { workgroup: u32, columns: u32, span: u32, subgroup: bool },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Adapter {
    Llvmpipe,
    Cpu,
    Gpu,
}

/// A row of the table of tiles: when it applies, and what it picks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tile {
    adapter: Adapter,
    /// The most rows it is for.
    most_m: u32,
    /// The fewest columns: of a tile much wider than the matrix, most would be thrown away.
    least_n: u32,
    /// The fewest workgroups it is for: where a tile leaves a GPU idle, a smaller one follows.
    workgroups: u64,
    /// k of a step.
    pub depth: u32,
    pub kernel: Kernel,
}

impl Tile {
    /// Rows and columns of c that a workgroup owns.
    pub fn size(&self) -> [u32; 2] {
        match self.kernel {
            Kernel::Tiles { groups, blocks } => [4 * groups[0] * blocks[0], 4 * groups[1] * blocks[1]],
            Kernel::Rows { workgroup, columns, .. } => [4 * workgroup, columns],
        }
    }

    /// Tiles down and across a matrix.
    fn counts(&self, shapes: &MatMulShapes) -> [u32; 2] {
        let [rows, columns] = self.size();
        [shapes.m.div_ceil(rows), shapes.n.div_ceil(columns)]
    }

    fn workgroups(&self, shapes: &MatMulShapes) -> u64 {
        let [down, across] = self.counts(shapes);
        product([shapes.batch, shapes.heads, down, across])
    }
}

const ANY: u32 = u32::MAX;

/// The first row that applies is taken; a row with subgroups applies where they have the workgroup's size, and one for CPUs
/// on llvmpipe too.
///
/// On a GPU, a step of a 128 x 128 tile reads 16 KiB for 2^18 multiply-adds, and each invocation 4 vec4 from workgroup
/// memory for 64 of them, in 64 accumulators; a 64 x 64 tile reads twice as much for each, but fills a GPU with a quarter
/// of the work. Both use all 16 KiB.
/// On a CPU, the more columns a workgroup has, the less often it reads a; 64 are worth their code on the newest llvmpipe. An
/// invocation that reads for its subgroup saves seven bounds checks of eight, which doubles the speed of SwiftShader and of older llvmpipes.
#[rustfmt::skip]
pub(super) const TILES: &[Tile] = &[
    Tile { adapter: Adapter::Gpu,      most_m: 16,  least_n: 0,  workgroups: 0,   depth: 8,  kernel: Kernel::Tiles { groups: [4, 64],  blocks: [1, 1] } },
    Tile { adapter: Adapter::Gpu,      most_m: ANY, least_n: 65, workgroups: 128, depth: 16, kernel: Kernel::Tiles { groups: [16, 16], blocks: [2, 2] } },
    Tile { adapter: Adapter::Gpu,      most_m: ANY, least_n: 0,  workgroups: 128, depth: 16, kernel: Kernel::Tiles { groups: [16, 16], blocks: [2, 1] } },
    Tile { adapter: Adapter::Gpu,      most_m: ANY, least_n: 0,  workgroups: 0,   depth: 32, kernel: Kernel::Tiles { groups: [16, 16], blocks: [1, 1] } },
    Tile { adapter: Adapter::Llvmpipe, most_m: ANY, least_n: 33, workgroups: 0,   depth: 8,  kernel: Kernel::Rows { workgroup: 8, columns: 64, span: 16, subgroup: true } },
    Tile { adapter: Adapter::Llvmpipe, most_m: ANY, least_n: 33, workgroups: 0,   depth: 8,  kernel: Kernel::Rows { workgroup: 4, columns: 64, span: 8,  subgroup: true } },
    Tile { adapter: Adapter::Cpu,      most_m: ANY, least_n: 0,  workgroups: 0,   depth: 8,  kernel: Kernel::Rows { workgroup: 8, columns: 32, span: 16, subgroup: true } },
    Tile { adapter: Adapter::Cpu,      most_m: ANY, least_n: 0,  workgroups: 0,   depth: 8,  kernel: Kernel::Rows { workgroup: 4, columns: 32, span: 8,  subgroup: true } },
    Tile { adapter: Adapter::Cpu,      most_m: ANY, least_n: 0,  workgroups: 0,   depth: 8,  kernel: Kernel::Rows { workgroup: 8, columns: 32, span: 8,  subgroup: false } },
];

/// What was chosen for a problem, before anything is compiled.
#[derive(Clone, Debug, PartialEq)]
struct Choice {
    tile: Tile,
    specialization: Specialization,
    reason: String,
}

/// Picks kernel and tile: a pure function of config, problem and device.
fn select(config: &MatMulConfig, problem: &Problem, capabilities: &Capabilities) -> Result<Choice> {
    let shapes = &problem.shapes;
    let adapter = match capabilities {
        Capabilities { options: ContextOptions { assume_gpu: true, .. }, .. } => Adapter::Gpu,
        Capabilities { is_llvmpipe: true, slow_arrays: false, .. } => Adapter::Llvmpipe,
        Capabilities { is_cpu: true, .. } => Adapter::Cpu,
        _ => Adapter::Gpu,
    };
    let applies = |tile: &&Tile| {
        let subgroups = match tile.kernel {
            Kernel::Rows { workgroup, subgroup: true, .. } => capabilities.subgroup_size == Some(workgroup),
            _ => true,
        };
        let own = tile.adapter == adapter || (tile.adapter, adapter) == (Adapter::Cpu, Adapter::Llvmpipe);
        let fits = shapes.m <= tile.most_m && shapes.n >= tile.least_n && tile.workgroups(shapes) >= tile.workgroups;
        own && subgroups && fits
    };
    let tile = *TILES.iter().find(applies).unwrap_or(&TILES[TILES.len() - 1]);
    if let Some(cap) = capabilities.loop_cap {
        // One loop, over k; it is left once.
        let steps = shapes.k.div_ceil(tile.depth) + 2;
        if steps > cap {
            let reason =
                format!("k = {} takes {steps} steps, past this driver's cap of {cap} loop iterations", shapes.k);
            return Err(Error::Unsupported { reasons: vec![reason] });
        }
    }
    let [rows, columns] = tile.size();
    let reason = format!("tiles of {rows} x {columns}, {} k a step, on a {adapter:?}", tile.depth);
    Ok(Choice { tile, specialization: kernel(config, problem, &tile), reason })
}

/// Compiles what [`select`] picked and lays out the dispatches.
pub(super) fn build(context: &Context, config: &MatMulConfig, problem: &Problem) -> Result<Plan> {
    let shapes = problem.shapes;
    let mut plan = PlanBuilder::new(context);
    if shapes.is_empty() {
        return plan.finish(0, 0, "nothing to do".into());
    }
    let choice = select(config, problem, context.capabilities())?;
    let counts = choice.tile.counts(&shapes);
    let mut operands = vec![slot::A, slot::B, slot::C];
    operands.extend(shapes.bias.then_some(slot::BIAS));
    let bindings: Vec<_> = operands.iter().map(|&slot| (slot as u32, Slot::Operand(slot))).collect();
    let [rows, columns] = choice.tile.size();
    let flops = product([2, rows, columns, shapes.k]);
    let workgroups = choice.tile.workgroups(&shapes);
    plan.dispatch(&choice.specialization, &bindings, workgroups, flops, |first, end| {
        kernel_params(problem, counts, [first, end])
    })?;
    plan.finish(shapes.flops(), least_bytes(problem), choice.reason)
}

/// Every operand once, in bytes; a repeated axis counts once.
fn least_bytes(problem: &Problem) -> u64 {
    let elements = |layout: &Layout<4>| {
        let inner = layout.shape[3];
        product((0..3).filter(|&axis| layout.strides[axis] > 0).map(|axis| layout.shape[axis]).chain([inner]))
    };
    let tensors = [Some(problem.a), Some(problem.b), Some(problem.c), problem.bias];
    let total = tensors.iter().flatten().map(elements).fold(0, u64::saturating_add);
    total.saturating_mul(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu() -> Capabilities {
        Capabilities {
            limits: wgpu::Limits::default(),
            features: wgpu::Features::empty(),
            is_cpu: false,
            loop_cap: None,
            slow_arrays: false,
            is_llvmpipe: false,
            subgroup_size: None,
            min_subgroup_size: None,
            options: ContextOptions::default(),
        }
    }

    fn tile(shapes: MatMulShapes, capabilities: &Capabilities) -> [u32; 2] {
        let choice = select(&MatMulConfig::new(), &Problem::contiguous(shapes), capabilities).expect("a plan");
        choice.tile.size()
    }

    #[test]
    fn tiles_shrink_until_a_gpu_is_full() {
        assert_eq!(tile(MatMulShapes::new(4096, 4096, 64), &gpu()), [128, 128]);
        assert_eq!(tile(MatMulShapes::new(512, 512, 4096), &gpu()), [64, 64]);
        assert_eq!(tile(MatMulShapes { heads: 8, ..MatMulShapes::new(512, 512, 64) }, &gpu()), [128, 128]);
        assert_eq!(tile(MatMulShapes::new(1, 4096, 4096), &gpu()), [16, 256], "few rows");
        assert_eq!(
            tile(MatMulShapes { heads: 8, ..MatMulShapes::new(2048, 64, 2048) }, &gpu()),
            [128, 64],
            "few columns"
        );
    }

    #[test]
    fn cpus_have_tiles_of_their_own() {
        let shapes = MatMulShapes::new(512, 512, 512);
        let llvmpipe = Capabilities { is_cpu: true, is_llvmpipe: true, ..gpu() };
        for size in [4, 8] {
            let own = Capabilities { subgroup_size: Some(size), ..llvmpipe.clone() };
            assert_eq!(tile(shapes, &own), [4 * size, 64]);
            assert_eq!(tile(MatMulShapes::new(512, 32, 512), &own), [4 * size, 32]);
            let old = Capabilities { slow_arrays: true, ..own };
            assert_eq!(tile(shapes, &old), [4 * size, 32]);
        }
        assert_eq!(tile(shapes, &llvmpipe), tile(shapes, &Capabilities { is_cpu: true, ..gpu() }));
    }

    #[test]
    fn a_loop_cap_bounds_k() {
        let capped = Capabilities { is_cpu: true, loop_cap: Some(65_535), ..gpu() };
        let plan = |k| select(&MatMulConfig::new(), &Problem::contiguous(MatMulShapes::new(1, 1, k)), &capped);
        assert!(plan(65_000 * 8).is_ok());
        let message = plan(65_535 * 8).expect_err("too many steps").to_string();
        assert!(message.contains("k = 524280") && message.contains("65535"), "{message}");
    }
}
