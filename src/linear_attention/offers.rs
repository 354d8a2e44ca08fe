//! What a tuning may take in place of the rules' choice.

use std::fmt;

use super::config::{LinearAttentionConfig, LinearMode, Normalization};
use super::kernels::Tile;
use super::plan::tokens::Walk;
use super::plan::{self, heads, tokens};
use super::problem::Problem;
use super::rounds::Rounds;
use super::shapes::LinearAttentionShapes;
use crate::Result;
use crate::context::{Capabilities, Context};
use crate::dispatch::Plan;
use crate::tensor::Layout;
use crate::tuning::Class;

/// How the keys are walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offer {
    /// Token by token.
    Tokens(tokens::Tile),
    /// Chunk by chunk within a workgroup.
    Heads,
    /// In chunks of so many keys, in three dispatches.
    Chunks(u32),
}

impl fmt::Display for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tokens(tile) => write!(f, "tokens value_dims={} tokens={}", 32 * tile.v_block, tile.tokens),
            Self::Heads => f.write_str("heads"),
            Self::Chunks(len) => write!(f, "chunks of {len}"),
        }
    }
}

/// The kernel that walks a head's tokens in order, unless chunks are taken.
pub(super) fn walk(
    config: &LinearAttentionConfig,
    problem: &Problem,
    capabilities: &Capabilities,
    offer: Option<&Offer>,
) -> Option<Walk> {
    match offer {
        Some(Offer::Chunks(_)) => None,
        Some(Offer::Heads) => heads::walk(config, problem, capabilities),
        Some(Offer::Tokens(tile)) => Some(tile.walk(config, problem, capabilities.loop_cap)),
        None => {
            let tokens = tokens::Tile::select(config, &problem.shapes, capabilities);
            let tokens = tokens.map(|tile| tile.walk(config, problem, capabilities.loop_cap));
            tokens.or_else(|| heads::select(config, problem, capabilities))
        }
    }
}

/// Chunks, and the rounds they are taken in.
pub(super) fn rounds(
    config: &LinearAttentionConfig,
    shapes: &LinearAttentionShapes,
    tile: &Tile,
    capabilities: &Capabilities,
    offer: Option<&Offer>,
) -> Rounds {
    match offer {
        Some(&Offer::Chunks(len)) => Rounds::with_chunks_of(len, config, shapes, tile, capabilities),
        _ => Rounds::select(config, shapes, tile, capabilities),
    }
}

/// The one that the rules make of them.
#[cfg(feature = "blocking")]
fn default(config: &LinearAttentionConfig, problem: &Problem, capabilities: &Capabilities) -> Offer {
    let shapes = &problem.shapes;
    match tokens::Tile::select(config, shapes, capabilities) {
        Some(tile) => Offer::Tokens(tile),
        None if heads::select(config, problem, capabilities).is_some() => Offer::Heads,
        None => Offer::Chunks(Rounds::chunk_len(config, shapes, &Tile::select(capabilities), capabilities)),
    }
}

/// Everything that is right for the problem on this device; none for a token whose state is updated in place.
pub(super) fn offers(config: &LinearAttentionConfig, problem: &Problem, capabilities: &Capabilities) -> Vec<Offer> {
    let shapes = &problem.shapes;
    if problem.in_place && shapes.q_len == 1 {
        return Vec::new();
    }
    let mut found: Vec<Offer> = Vec::new();
    for offer in tokens::Tile::all(config, shapes, capabilities).into_iter().map(Offer::Tokens) {
        // Tiles that differ in what they are for have one kernel.
        if found.iter().all(|other| other.to_string() != offer.to_string()) {
            found.push(offer);
        }
    }
    found.extend(heads::walk(config, problem, capabilities).map(|_| Offer::Heads));
    let lens: &[u32] = match config.mode {
        LinearMode::Causal => &[64, 128, 256, 512],
        LinearMode::Full => &[128, 256, 512, 1024, 2048, 4096],
    };
    // A chunk longer than the sequence is as good as one that ends with it.
    found.extend(lens.iter().filter(|&&len| len / 2 < shapes.kv_len).map(|&len| Offer::Chunks(len)));
    found
}

/// What calls of one class have in common.
pub(super) fn class(config: &LinearAttentionConfig, problem: &Problem) -> String {
    let shapes = &problem.shapes;
    let vec4 = [problem.q, problem.k, problem.v, problem.o].iter().all(Layout::is_vec4);
    // Its name, without its parameters.
    let map = format!("{:?}", config.feature_map);
    Class::of("linear_attention")
        .with(map.split(' ').next().unwrap_or_default(), true)
        .with("causal", config.mode == LinearMode::Causal)
        .with("unnormalized", config.normalization == Normalization::None)
        .exactly("head_dim", shapes.head_dim)
        .exactly("v_dim", shapes.v_dim)
        .exactly("features", shapes.features(config.feature_map))
        .lengths_and_heads([shapes.q_len, shapes.kv_len], [shapes.batch, shapes.q_heads, shapes.kv_heads])
        .with("kv_lens", shapes.kv_lens)
        .with("state_in", shapes.state_in)
        .with("state_out", shapes.state_out)
        .with("scalar", !vec4)
        .stored([("q", problem.q), ("k", problem.k), ("v", problem.v), ("o", problem.o)])
        .name()
}

/// A plan by what the context's tuning takes, or by the rules.
pub(super) fn plan(context: &Context, config: &LinearAttentionConfig, problem: &Problem) -> Result<Plan> {
    context.plan_tuned(
        || class(config, problem),
        || offers(config, problem, context.capabilities()),
        |offer| plan::build(context, config, problem, offer),
    )
}

/// A call to measure. A state that goes in and out lies in two places, so that a call can be repeated.
#[cfg(feature = "blocking")]
pub(crate) fn subject(
    context: &Context,
    config: LinearAttentionConfig,
    shapes: LinearAttentionShapes,
    dtype: crate::DType,
) -> Result<crate::autotune::Subject> {
    use super::plan::slot;
    use crate::autotune::{Content, Operand, Subject};

    super::LinearAttention::new(context, config)?.plan(&shapes, dtype)?;
    let capabilities = context.capabilities();
    let problem = Problem { in_place: false, ..Problem::contiguous(&config, shapes).stored(dtype, capabilities)? };
    let own = default(&config, &problem, capabilities).to_string();
    let mut operands = Vec::new();
    if !shapes.is_empty() && shapes.kv_len > 0 {
        operands.push(Operand::new(slot::Q, &problem.q, Content::Normal));
        operands.push(Operand::new(slot::K, &problem.k, Content::Normal));
        operands.push(Operand::new(slot::V, &problem.v, Content::Normal));
        operands.push(Operand::new(slot::O, &problem.o, Content::Output));
        operands.extend(problem.projection.map(|l| Operand::new(slot::PROJECTION, &l, Content::Normal)));
        operands.extend(problem.kv_lens.map(|l| Operand::new(slot::KV_LENS, &l, Content::Length(shapes.kv_len))));
        for (slots, state, [s, z, max]) in [
            (slot::STATE_IN, problem.state_in, [Content::Normal, Content::Positive, Content::Constant(0.0)]),
            (slot::STATE_OUT, problem.state_out, [Content::Output; 3]),
        ] {
            let Some(state) = state else { continue };
            operands.push(Operand::new(slots[0], &state.s, s));
            operands.push(Operand::new(slots[1], &state.z, z));
            operands.extend(state.max.map(|l| Operand::new(slots[2], &l, max)));
        }
    }
    let offers = offers(&config, &problem, capabilities).into_iter().map(|offer| offer.to_string());
    let offers = offers.filter(|offer| *offer != own).map(|offer| vec![offer]).collect();
    Ok(Subject {
        class: class(&config, &problem),
        offers,
        operands,
        in_f16: false,
        plan: Box::new(move |context| plan(context, &config, &problem)),
    })
}
