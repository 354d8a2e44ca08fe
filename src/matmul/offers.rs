//! What a tuning may take in place of the table's choice.

use std::fmt;

use super::MatMulConfig;
use super::plan::{self, ALTERNATIVES, Kernel, Problem, RANGES, Tile, adapter_of, rows_for};
use crate::Result;
use crate::context::{Capabilities, Context};
use crate::dispatch::Plan;
use crate::tensor::Layout;
use crate::tuning::Class;

/// A tile, and the k of a range: as the plan would cut k for this tile, unless given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Offer {
    pub tile: Tile,
    pub range: Option<u32>,
}

impl fmt::Display for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let depth = self.tile.depth;
        match self.tile.kernel {
            Kernel::Tiles { groups: [down, across], blocks: [rows, columns] } => {
                write!(f, "tiles groups={down}x{across} blocks={rows}x{columns} depth={depth}")?;
            }
            Kernel::Rows { workgroup, columns, span, subgroup } => {
                let of = if subgroup { "subgroup" } else { "workgroup" };
                write!(f, "rows {of}={workgroup} columns={columns} span={span} depth={depth}")?;
            }
            Kernel::Matrices { subgroups: [down, across], block: [rows, columns], .. } => {
                write!(f, "matrices subgroups={down}x{across} block={rows}x{columns} depth={depth}")?;
            }
        }
        match self.range {
            None => Ok(()),
            Some(u32::MAX) => f.write_str(" whole"),
            Some(k) => write!(f, " range={k}"),
        }
    }
}

/// Everything that is right on this device and by this config, whatever the sizes.
pub(super) fn offers(config: &MatMulConfig, capabilities: &Capabilities) -> Vec<Offer> {
    // A device that refuses the config is offered nothing.
    let Ok((adapter, tier)) = adapter_of(config, capabilities) else { return Vec::new() };
    let mut tiles = rows_for(adapter, tier, capabilities);
    tiles.extend(ALTERNATIVES.iter().filter(|tile| tile.runs_on(adapter, tier.is_some(), capabilities)));
    let ranges = [None, Some(u32::MAX)].into_iter().chain(RANGES.iter().copied().map(Some));
    ranges.flat_map(|range| tiles.iter().map(move |&tile| Offer { tile, range })).collect()
}

/// What calls of one class have in common.
pub(super) fn class(config: &MatMulConfig, problem: &Problem) -> String {
    let shapes = &problem.shapes;
    let vec4 = [problem.a, problem.b, problem.c].iter().all(Layout::is_vec4);
    Class::of("matmul")
        .up_to("matrices", u64::from(shapes.batch) * u64::from(shapes.heads))
        .up_to("m", shapes.m.into())
        .up_to("n", shapes.n.into())
        .up_to("k", shapes.k.into())
        .with("a_transposed", shapes.a_transposed)
        .with("b_transposed", shapes.b_transposed)
        .with("bias", shapes.bias)
        .with("activation", config.activation != super::Activation::None)
        .with("in_f16", config.matrices == crate::Matrices::F16)
        .with("scalar", !vec4)
        .stored([("a", problem.a), ("b", problem.b), ("c", problem.c)])
        .name()
}

/// A plan by what the context's tuning takes, or by the table.
pub(super) fn plan(context: &Context, config: &MatMulConfig, problem: &Problem) -> Result<Plan> {
    context.plan_tuned(
        || class(config, problem),
        || offers(config, context.capabilities()),
        |offer| plan::build(context, config, problem, offer),
    )
}

/// A call to measure.
#[cfg(feature = "blocking")]
pub(crate) fn subject(
    context: &Context,
    config: MatMulConfig,
    shapes: super::MatMulShapes,
    dtype: crate::DType,
) -> Result<crate::autotune::Subject> {
    use super::kernels::slot;
    use super::plan::select;
    use crate::autotune::{Content, Operand, Subject};

    super::MatMul::new(context, config)?.plan(&shapes, dtype)?;
    let capabilities = context.capabilities();
    let problem = Problem::contiguous(shapes).stored(dtype, capabilities)?;
    let choose = |offer: Option<&Offer>| {
        let mut choice = select(&config, &problem, capabilities, offer)?;
        choice.reason.clear();
        Ok(choice)
    };
    let mut operands = Vec::new();
    if !shapes.is_empty() && shapes.k > 0 {
        operands.push(Operand::new(slot::A, &problem.a, Content::Normal));
        operands.push(Operand::new(slot::B, &problem.b, Content::Normal));
        operands.push(Operand::new(slot::C, &problem.c, Content::Output));
        operands.extend(problem.bias.map(|l| Operand::new(slot::BIAS, &l, Content::Normal)));
    }
    Ok(Subject {
        class: class(&config, &problem),
        offers: crate::tuning::distinct(offers(&config, capabilities), |a, b| a.tile == b.tile, choose)?,
        operands,
        in_f16: config.matrices == crate::Matrices::F16,
        plan: Box::new(move |context| plan(context, &config, &problem)),
    })
}
