//! What a tuning may take in place of the table's choice.

use std::fmt;

use super::GauWeights;
use super::config::GatedAttentionConfig;
use super::plan::{self, Problem};
use super::tiles::{Tile, device, matrix_tiles, tiles_for};
use crate::Result;
use crate::context::{Capabilities, Context};
use crate::dispatch::Plan;
use crate::row_kernel::KeyRange;
use crate::tensor::Layout;
use crate::tuning::Class;

/// A tile, and the keys of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Offer {
    pub tile: Tile,
    pub range: KeyRange,
}

impl fmt::Display for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} value_dims={}{}", self.tile.kernel, 4 * self.tile.v_chunks, self.range)
    }
}

/// Lengths of ranges of keys.
const RANGES: [u32; 4] = [KeyRange::WHOLE, 4096, 1024, 256];

/// Everything that is right for the problem on this device, whatever its number of rows.
pub(super) fn offers(config: &GatedAttentionConfig, problem: &Problem, capabilities: &Capabilities) -> Vec<Offer> {
    let tiles = match matrix_tiles(config, &problem.shapes, capabilities) {
        Ok(found) if found.is_empty() => tiles_for(config, &problem.shapes, device(capabilities)),
        // A device that refuses the config is offered nothing.
        found => found.unwrap_or_default(),
    };
    // Chunks are not split.
    let ranges: &[u32] = if config.chunk().is_some() { &[] } else { &RANGES };
    let ranges = std::iter::once(None).chain(ranges.iter().copied().map(Some)).map(KeyRange);
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
        .lengths_and_heads([shapes.q_len, shapes.kv_len], [shapes.batch, shapes.q_heads, shapes.kv_heads])
        .exactly("chunk", config.chunk().unwrap_or(0))
        .masked(config.causal, config.window)
        .with("shared_z", shapes.shared_z)
        .with("beta", problem.maps.iter().flatten().any(|map| map.beta.is_some()))
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
    if !shapes.is_empty() && shapes.kv_len > 0 {
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
