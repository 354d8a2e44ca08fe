//! Tokens in order, with the state in registers: one kernel, where heads alone keep the adapter busy. On a CPU that is token by
//! token; [`super::heads`] has what a GPU does.

use super::{Builder, Problem, Span, binding, eps, flops, least_bytes, place, slot};
use crate::Result;
use crate::context::Capabilities;
use crate::dispatch::{Plan, PlanBuilder, Slot};
use crate::linear_attention::config::{LinearAttentionConfig, LinearMode, Normalization};
use crate::linear_attention::kernels::{self, Kernels, Kind, Stored, elementwise, needs_features, pick};
use crate::linear_attention::params::TokensParams;
use crate::linear_attention::rounds::Rounds;
use crate::linear_attention::shapes::LinearAttentionShapes;
use crate::params::ParamsLayout;
use crate::wgsl::{Constant, Specialization, source};

/// Invocations of a workgroup: llvmpipe's subgroup.
const WORKGROUP: u32 = 8;

/// What one workgroup owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::linear_attention) struct Tile {
    /// The widest head that it is for.
    head_dim: u32,
    /// Vec4s of value dims of an invocation.
    pub v_block: u32,
    /// Tokens of a step.
    pub tokens: u32,
}

/// By width of the head and by workgroups: the first row that is wide enough and makes `FEWEST` workgroups, else the first of
/// those with the fewest value dims. S takes 4 · head_dim · v_block registers, each read and written once a step, and the code grows with them.
const TILES: [Tile; 5] = [
    Tile { head_dim: 64, v_block: 2, tokens: 2 },
    Tile { head_dim: 64, v_block: 1, tokens: 2 },
    Tile { head_dim: 128, v_block: 1, tokens: 2 },
    Tile { head_dim: 192, v_block: 1, tokens: 1 },
    Tile { head_dim: 256, v_block: 1, tokens: 2 },
];
const FEWEST: u64 = 8;

impl Tile {
    /// Every tile that is wide enough, where the adapter and the map allow it.
    pub fn all(
        config: &LinearAttentionConfig,
        shapes: &LinearAttentionShapes,
        capabilities: &Capabilities,
    ) -> Vec<Self> {
        let dim_by_dim = Kind::of(config) == Kind::Plain && !needs_features(config.feature_map).1;
        let adapter = matches!(
            capabilities,
            Capabilities { is_llvmpipe: true, subgroup_size: Some(WORKGROUP), slow_arrays: false, loop_cap: None, .. }
        );
        if !adapter || !dim_by_dim || config.mode != LinearMode::Causal || shapes.q_len == 0 {
            return Vec::new();
        }
        let tiles = TILES.into_iter().filter(|tile| shapes.head_dim <= tile.head_dim);
        tiles.map(|tile| Self { v_block: tile.v_block.min(shapes.v_dim.div_ceil(4 * WORKGROUP)), ..tile }).collect()
    }

    /// The tile, where the adapter and the map allow it.
    pub fn select(
        config: &LinearAttentionConfig,
        shapes: &LinearAttentionShapes,
        capabilities: &Capabilities,
    ) -> Option<Self> {
        let heads = u64::from(shapes.batch) * u64::from(shapes.q_heads);
        let wide_enough = Self::all(config, shapes, capabilities);
        let many = |tile: &&Self| heads * u64::from(tile.value_blocks(shapes.v_dim)) >= FEWEST;
        let tile = wide_enough.iter().find(many).or_else(|| wide_enough.iter().find(|tile| tile.v_block == 1));
        tile.copied()
    }

    fn value_blocks(&self, v_dim: u32) -> u32 {
        v_dim.div_ceil(4).div_ceil(WORKGROUP * self.v_block)
    }

    pub fn walk(&self, config: &LinearAttentionConfig, problem: &Problem) -> Walk {
        let v_dim = problem.shapes.v_dim;
        let own_dims = 4 * WORKGROUP * self.v_block;
        Walk {
            kernel: [false, true].map(|states| specialization(config, problem, self, states)),
            value_blocks: self.value_blocks(v_dim),
            step: self.tokens,
            most: u32::MAX,
            flops_per_token: 4 * u64::from(problem.shapes.head_dim) * u64::from(own_dims),
            reason: format!("token by token, {} a step, {} value dims per workgroup", self.tokens, own_dims.min(v_dim)),
        }
    }
}

/// A kernel that walks the tokens of a head in order.
pub(in crate::linear_attention) struct Walk {
    /// Without states in the workspace, and with them.
    pub kernel: [Specialization; 2],
    pub value_blocks: u32,
    /// Tokens of a step, and the most of one dispatch.
    pub step: u32,
    pub most: u32,
    /// Of one workgroup.
    pub flops_per_token: u64,
    pub reason: String,
}

fn specialization(config: &LinearAttentionConfig, problem: &Problem, tile: &Tile, states: bool) -> Specialization {
    let vec4 = problem.q.is_vec4() && problem.k.is_vec4() && problem.v.is_vec4();
    Specialization {
        kernel: source!("linear_attention/tokens"),
        constants: vec![
            ("WORKGROUP", Constant::U32(WORKGROUP)),
            ("HEAD_DIM", Constant::U32(problem.shapes.head_dim)),
            ("V_DIM", Constant::U32(problem.shapes.v_dim)),
            ("V_BLOCK", Constant::U32(tile.v_block)),
            ("TOKENS", Constant::U32(tile.tokens)),
            ("NORMALIZED", Constant::Bool(config.normalization != Normalization::None)),
            ("Elem", Constant::Type(if vec4 { "vec4<f32>" } else { "f32" })),
        ],
        fragments: vec![
            source!("linear_attention/tokens_params"),
            source!("linear_attention/tell_subgroup"),
            elementwise(config.feature_map),
            pick(states, source!("linear_attention/token_states"), source!("linear_attention/no_token_states")),
            pick(vec4, source!("linear_attention/load_q_vec4"), source!("linear_attention/load_q_scalar")),
            pick(vec4, source!("linear_attention/load_kv_vec4"), source!("linear_attention/load_kv_scalar")),
            pick(problem.o.is_vec4(), source!("shared/store_vec4"), source!("shared/store_scalar")),
            source!("linear_attention/within"),
            source!("shared/workgroup_index"),
        ],
        storage: Vec::new(),
    }
    .stored(Stored::of(config, problem).rows(true))
}

/// Every specialization for a problem.
pub(in crate::linear_attention) fn specializations(
    config: &LinearAttentionConfig,
    problem: &Problem,
) -> Vec<(Specialization, ParamsLayout)> {
    let tiles = TILES.into_iter().filter(|tile| problem.shapes.head_dim <= tile.head_dim);
    let all = tiles.flat_map(|tile| [false, true].map(|states| specialization(config, problem, &tile, states)));
    all.map(|specialization| (specialization, TokensParams::LAYOUT)).collect()
}

/// Compiles the kernels and lays out the dispatches.
pub(super) fn build(
    mut plan: PlanBuilder<'_>,
    config: &LinearAttentionConfig,
    problem: &Problem,
    walk: &Walk,
    capabilities: &Capabilities,
) -> Result<Plan> {
    let shapes = &problem.shapes;
    // As many tokens at a time as a dispatch of one workgroup may take.
    let by_work = capabilities.options.max_flops_per_dispatch / walk.flops_per_token;
    let most = u32::try_from(by_work).unwrap_or(u32::MAX).min(walk.most) / walk.step;
    let most = most.clamp(1, (1 << 30) / walk.step) * walk.step;
    let heads = shapes.batch * shapes.kv_heads;
    let mut rounds = Rounds {
        chunk_len: most.min(shapes.q_len),
        chunks: shapes.q_len.div_ceil(most),
        heads_per_round: heads,
        // No state of a chunk's own, only the two of a head that are carried by turns.
        chunks_per_round: 0,
        rows_per_round: 0,
    };
    let states = rounds.chunks > 1 || problem.state_in.is_some() || problem.state_out.is_some();
    let mut workspace = Slot::Workspace { offset: 0, size: 0 };
    if states {
        let most = capabilities.workspace_room().saturating_sub(255);
        while rounds.heads_per_round > 1 && rounds.regions(config, shapes)[0] > most {
            rounds.heads_per_round = rounds.heads_per_round.div_ceil(2);
        }
        workspace = plan.workspace("states of the heads", rounds.regions(config, shapes)[0])?;
    }
    let chunk_tile = kernels::Tile::select(capabilities);
    let mut builder = Builder {
        kernels: Kernels::new(config, problem, &chunk_tile),
        plan,
        config,
        problem,
        tile: chunk_tile,
        tiles: None,
        rounds,
        states: workspace,
        key_features: None,
        query_features: None,
    };
    for first in (0..heads).step_by(rounds.heads_per_round as usize) {
        let heads = Span { first, count: rounds.heads_per_round.min(heads - first) };
        if let Some(state) = &problem.state_in {
            builder.copy_state(heads, state, 0, false)?;
        }
        for round in 0..rounds.chunks {
            let first = round * rounds.chunk_len;
            let tokens = Span { first, count: rounds.chunk_len.min(shapes.q_len - first) };
            let fresh = round == 0 && problem.state_in.is_none();
            builder.tokens(walk, states, heads, tokens, [round % 2, (round + 1) % 2], fresh)?;
        }
        if let Some(state) = &problem.state_out {
            builder.copy_state(heads, state, rounds.chunks % 2, true)?;
        }
    }
    builder.plan.finish(flops(config, shapes), least_bytes(problem), walk.reason.clone())
}

impl Builder<'_> {
    fn tokens(
        &mut self,
        walk: &Walk,
        states: bool,
        heads: Span,
        tokens: Span,
        [carry_in, carry_out]: [u32; 2],
        fresh: bool,
    ) -> Result<()> {
        let problem = self.problem;
        let shapes = &problem.shapes;
        let group = shapes.q_heads / shapes.kv_heads;
        let value_blocks = walk.value_blocks;
        let eps = eps(self.config);
        let mut bindings: Vec<_> =
            [(binding::Q, slot::Q), (binding::K, slot::K), (binding::V, slot::V), (binding::O, slot::O)]
                .map(|(binding, slot)| (binding, Slot::Operand(slot)))
                .into();
        bindings.extend(states.then_some((binding::STATES, self.states)));
        let [q_start, q_batch, q_head, q_row] = place(&problem.q);
        let [k_start, k_batch, k_head, k_row] = place(&problem.k);
        let [v_start, v_batch, v_head, v_row] = place(&problem.v);
        let [o_start, o_batch, o_head, o_row] = place(&problem.o);
        self.plan.dispatch(
            &walk.kernel[usize::from(states)],
            &bindings,
            u64::from(heads.count) * u64::from(group) * u64::from(value_blocks),
            u64::from(tokens.count) * walk.flops_per_token,
            |first_workgroup, end_workgroup| TokensParams {
                first_workgroup,
                end_workgroup,
                first_token: tokens.first,
                end_token: tokens.first + tokens.count,
                first_head: heads.first,
                kv_heads: shapes.kv_heads,
                group,
                features: shapes.head_dim,
                value_blocks,
                eps,
                carry_in,
                carry_out,
                fresh: fresh.into(),
                q_start,
                q_batch,
                q_head,
                q_row,
                k_start,
                k_batch,
                k_head,
                k_row,
                v_start,
                v_batch,
                v_head,
                v_row,
                o_start,
                o_batch,
                o_head,
                o_row,
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FeatureMap;

    fn llvmpipe() -> Capabilities {
        Capabilities {
            is_cpu: true,
            is_llvmpipe: true,
            subgroup_size: Some(8),
            min_subgroup_size: Some(8),
            ..Capabilities::plain()
        }
    }

    #[test]
    fn few_heads_take_narrow_blocks_and_wide_heads_short_steps() {
        let config = LinearAttentionConfig::new().mode(LinearMode::Causal);
        let tile = |heads, dim| {
            let shapes = LinearAttentionShapes::new(1, heads, 512, dim);
            let tile = Tile::select(&config, &shapes, &llvmpipe()).expect("a tile for every head dim");
            (tile.v_block, tile.tokens)
        };
        assert_eq!([tile(8, 64), tile(4, 64), tile(1, 64), tile(8, 32)], [(2, 2), (1, 2), (1, 2), (1, 2)]);
        assert_eq!([tile(8, 65), tile(1, 128), tile(8, 129), tile(8, 256)], [(1, 2), (1, 2), (1, 1), (1, 2)]);
    }

    #[test]
    fn other_maps_modes_and_adapters_take_chunks() {
        let shapes = LinearAttentionShapes::new(1, 8, 512, 64);
        let tile = |config: &LinearAttentionConfig, capabilities| Tile::select(config, &shapes, &capabilities);
        let causal = LinearAttentionConfig::new().mode(LinearMode::Causal);
        assert!(tile(&causal, llvmpipe()).is_some());
        assert!(tile(&causal.mode(LinearMode::Full), llvmpipe()).is_none());
        for map in [FeatureMap::Exp, FeatureMap::Cosine, FeatureMap::Taylor2 { scale: None }] {
            assert!(tile(&causal.feature_map(map), llvmpipe()).is_none(), "{map:?}");
        }
        for other in [
            Capabilities { is_llvmpipe: false, ..llvmpipe() },
            Capabilities { subgroup_size: Some(4), ..llvmpipe() },
            Capabilities { subgroup_size: None, ..llvmpipe() },
            Capabilities { slow_arrays: true, ..llvmpipe() },
        ] {
            assert!(tile(&causal, other).is_none());
        }
    }
}
