//! What a tuning may take in place of the table's choice.

use std::fmt;

use super::GauWeights;
use super::config::GatedAttentionConfig;
use super::plan::{self, Problem};
use super::tiles::{Kernel, Tile, device, matrix_tiles, tiles_for};
use crate::context::{Capabilities, Context};
use crate::dispatch::Plan;
use crate::tensor::Layout;
use crate::tuning::Class;
use crate::{Causal, Result};

/// A tile, and the keys of a range: as the plan would split them for this tile, unless given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Offer {
    pub tile: Tile,
    pub range: Option<u32>,
}

impl fmt::Display for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.tile.kernel {
            Kernel::Tiled { height, groups, slab } => write!(f, "tiled height={height} groups={groups} slab={slab}")?,
            Kernel::Rows { workgroup, keys } => write!(f, "rows workgroup={workgroup} keys={keys}")?,
            Kernel::Subgroup { workgroup, keys } => write!(f, "rows subgroup={workgroup} keys={keys}")?,
            Kernel::Matrices(tile) => write!(f, "matrices subgroups={} keys={}", tile.subgroups, tile.keys)?,
        }
        write!(f, " value_dims={}", 4 * self.tile.v_chunks)?;
        match self.range {
            None => Ok(()),
            Some(u32::MAX) => f.write_str(" unsplit"),
            Some(keys) => write!(f, " range={keys}"),
        }
    }
}

/// Lengths of ranges of keys.
const RANGES: [u32; 4] = [u32::MAX, 4096, 1024, 256];

/// Everything that is right for the problem on this device, whatever its number of rows.
pub(super) fn offers(config: &GatedAttentionConfig, problem: &Problem, capabilities: &Capabilities) -> Vec<Offer> {
    let tiles = match matrix_tiles(config, &problem.shapes, capabilities) {
        Ok(found) if found.is_empty() => tiles_for(config, &problem.shapes, device(capabilities)),
        // A device that refuses the config is offered nothing.
        found => found.unwrap_or_default(),
    };
    // Chunks are not split.
    let ranges: &[u32] = if config.chunk().is_some() { &[] } else { &RANGES };
    let ranges = std::iter::once(None).chain(ranges.iter().copied().map(Some));
    ranges.flat_map(|range| tiles.iter().map(move |&tile| Offer { tile, range })).collect()
}

/// What calls of one class have in common.
pub(super) fn class(config: &GatedAttentionConfig, problem: &Problem) -> String {
    let shapes = &problem.shapes;
    let vec4 = [problem.q, problem.k, problem.v, problem.o].iter().all(Layout::is_vec4);
    let softmax = !matches!(config.weights, GauWeights::SquaredRelu(_));
    Class::of("gated_attention")
        .with("softmax", softmax)
        .exactly("key_dim", shapes.key_dim)
        .exactly("v_dim", shapes.v_dim)
        .up_to("q_len", shapes.q_len.into())
        .up_to("kv_len", shapes.kv_len.into())
        .up_to("kv_heads", u64::from(shapes.batch) * u64::from(shapes.kv_heads))
        .up_to("group", u64::from(shapes.q_heads / shapes.kv_heads.max(1)))
        .exactly("chunk", config.chunk().unwrap_or(0))
        .with("causal", config.causal != Causal::None)
        .with("window", config.window.left.is_some() || config.window.right.is_some())
        .with("shared_z", shapes.shared_z)
        .with("gate", shapes.gate)
        .with("kv_lens", shapes.kv_lens)
        .with("in_f16", config.matrices == crate::Matrices::F16)
        .with("scalar", !vec4)
        .stored([("q", problem.q), ("k", problem.k), ("v", problem.v), ("o", problem.o)])
        .name()
}

/// A plan by what the context's tuning takes, or by the table.
pub(super) fn plan(context: &Context, config: &GatedAttentionConfig, problem: &Problem) -> Result<Plan> {
    context.plan_tuned(
        || class(config, problem),
        || offers(config, problem, context.capabilities()),
        |offer| plan::build(context, config, problem, offer),
    )
}

/// A call to measure.
#[cfg(feature = "blocking")]
pub(crate) fn subject(
    context: &Context,
    config: GatedAttentionConfig,
    shapes: super::GatedAttentionShapes,
    dtype: crate::DType,
) -> Result<crate::autotune::Subject> {
    use super::kernels::slot;
    use super::tiles::select;
    use crate::autotune::{Content, Operand, Subject};
    use crate::tuning::distinct;

    super::GatedAttention::new(context, config)?.plan(&shapes, dtype)?;
    let capabilities = context.capabilities();
    let problem = Problem::contiguous(shapes).stored(dtype, capabilities)?;
    let choose = |offer: Option<&Offer>| {
        let mut choice = select(&config, &problem, capabilities, offer)?;
        choice.reason.clear();
        Ok(choice)
    };
    let mut operands = Vec::new();
    if !shapes.is_empty() {
        operands.push(Operand::new(slot::Q, &problem.q, Content::Normal));
        operands.push(Operand::new(slot::V, &problem.v, Content::Normal));
        operands.push(Operand::new(slot::O, &problem.o, Content::Output));
        operands.extend(problem.u.map(|l| Operand::new(slot::U, &l, Content::Normal)));
        operands.extend(problem.kv_lens.map(|l| Operand::new(slot::KV_LENS, &l, Content::Length(shapes.kv_len))));
        for (index, map) in problem.maps.iter().enumerate() {
            let Some(map) = map else { continue };
            operands.push(Operand::new(slot::GAMMA + index, &map.gamma, Content::Normal));
            operands.extend(map.beta.map(|l| Operand::new(slot::BETA + index, &l, Content::Normal)));
        }
        if !shapes.shared_z {
            operands.push(Operand::new(slot::K, &problem.k, Content::Normal));
            operands.push(Operand::new(slot::Q_LIN, &problem.q_lin, Content::Normal));
            operands.push(Operand::new(slot::K_LIN, &problem.k_lin, Content::Normal));
        }
    }
    Ok(Subject {
        class: class(&config, &problem),
        offers: distinct(offers(&config, &problem, capabilities), |a, b| a.tile == b.tile, choose)?,
        operands,
        in_f16: config.matrices == crate::Matrices::F16,
        plan: Box::new(move |context| plan(context, &config, &problem)),
    })
}
