//! Tokens in order, with the state in registers, for llvmpipe: token by token, in full mode once for the keys and once for the
//! queries where there are enough workgroups; [`super::heads`] has what a GPU does.

use super::{Builder, Problem, Span, State, eps, flops};
use crate::Result;
use crate::context::Capabilities;
use crate::dispatch::{Plan, PlanBuilder};
use crate::linear_attention::config::{LinearAttentionConfig, LinearMode, Normalization};
use crate::linear_attention::kernels::{self, Kernels, Kind, elementwise, needs_features};
use crate::linear_attention::rounds::Rounds;
use crate::linear_attention::shapes::LinearAttentionShapes;
use crate::wgsl::{Constant, Specialization, pick, source};

/// Invocations of a workgroup: llvmpipe's subgroup.
const WORKGROUP: u32 = 8;

/// What one workgroup owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tile {
    /// The widest head that it is for.
    head_dim: u32,
    /// Vec4s of value dims of an invocation.
    pub v_block: u32,
    /// Tokens of a step.
    pub tokens: u32,
}

/// By width of the head and by workgroups: the first row that is wide enough and makes `FEWEST` workgroups, else, causal, the first
/// of those with the fewest value dims. S takes 4 · head_dim · v_block registers, each read and written once a step, and the code grows with them.
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
        let adapter = matches!(capabilities, Capabilities { is_llvmpipe: true, subgroup_size: Some(WORKGROUP), .. });
        if !adapter || !dim_by_dim(config) || shapes.q_len == 0 || shapes.kv_len == 0 {
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
        let causal = config.mode == LinearMode::Causal;
        // Not those of k: grouped heads are to get the bits of repeated ones.
        let heads = u64::from(shapes.batch) * u64::from(shapes.q_heads);
        let wide_enough = Self::all(config, shapes, capabilities);
        let many = |tile: &&Self| heads * u64::from(tile.value_blocks(shapes.v_dim)) >= FEWEST;
        // Without enough of them, chunks of keys are the faster ones to add up, but not causal.
        let narrow = || wide_enough.iter().find(|tile| causal && tile.v_block == 1);
        wide_enough.iter().find(many).or_else(narrow).copied()
    }

    fn value_blocks(&self, v_dim: u32) -> u32 {
        v_dim.div_ceil(4).div_ceil(WORKGROUP * self.v_block)
    }

    pub fn walk(&self, config: &LinearAttentionConfig, problem: &Problem, loop_cap: Option<u32>) -> Walk {
        let LinearAttentionShapes { head_dim, v_dim, .. } = problem.shapes;
        // A step is one iteration, each feature of the state that is loaded or stored another.
        let steps = |cap: u32| cap.saturating_sub(2 * head_dim + 128);
        let own_dims = 4 * WORKGROUP * self.v_block;
        // With the state, of one kernel.
        let products = if config.mode == LinearMode::Causal { 2 } else { 1 };
        Walk {
            kernels: self.specializations(config, problem),
            value_blocks: self.value_blocks(v_dim),
            step: self.tokens,
            most: loop_cap.map_or(u32::MAX, |cap| steps(cap) * self.tokens),
            flops_per_token: products * 2 * u64::from(head_dim) * u64::from(own_dims),
            reason: format!("token by token, {} a step, {} value dims per workgroup", self.tokens, own_dims.min(v_dim)),
        }
    }

    /// As [`Walk::kernels`] has them.
    fn specializations(&self, config: &LinearAttentionConfig, problem: &Problem) -> [Specialization; 2] {
        let passes = match config.mode {
            LinearMode::Causal => [false, true].map(Pass::both),
            LinearMode::Full => [Pass::KEYS, Pass::QUERIES],
        };
        passes.map(|pass| specialization(config, problem, self, pass))
    }
}

/// Maps that take each dim for itself.
pub(super) fn dim_by_dim(config: &LinearAttentionConfig) -> bool {
    Kind::of(config) == Kind::Plain && !needs_features(config.feature_map).1
}

/// What a kernel does with the tokens it walks.
#[derive(Clone, Copy)]
struct Pass {
    /// Adds their keys to the state.
    add: bool,
    /// Reads the state for their queries.
    read: bool,
    /// Starts from a state in the workspace, and leaves one there.
    states: bool,
}

impl Pass {
    const KEYS: Self = Self { add: true, read: false, states: true };
    const QUERIES: Self = Self { add: false, read: true, states: true };

    const fn both(states: bool) -> Self {
        Self { add: true, read: true, states }
    }
}

/// A kernel that walks the tokens of a head in order.
pub(crate) struct Walk {
    /// Causal, without states in the workspace and with them; else for the keys and for the queries.
    pub kernels: [Specialization; 2],
    pub value_blocks: u32,
    /// Tokens of a step, and the most of one dispatch.
    pub step: u32,
    pub most: u32,
    /// Of one workgroup.
    pub flops_per_token: u64,
    pub reason: String,
}

impl Walk {
    fn kernel(&self, pass: Pass) -> &Specialization {
        let second = if pass.add && pass.read { pass.states } else { pass.read };
        &self.kernels[usize::from(second)]
    }
}

fn specialization(config: &LinearAttentionConfig, problem: &Problem, tile: &Tile, pass: Pass) -> Specialization {
    let kv_lens = problem.shapes.kv_lens && !pass.read;
    let vec4 = problem.is_vec4(&["q", "k", "v"]);
    Specialization {
        kernel: source!("linear_attention/tokens"),
        constants: vec![
            ("WORKGROUP", Constant::U32(WORKGROUP)),
            ("HEAD_DIM", Constant::U32(problem.shapes.head_dim)),
            ("V_DIM", Constant::U32(problem.shapes.v_dim)),
            ("V_BLOCK", Constant::U32(tile.v_block)),
            ("TOKENS", Constant::U32(tile.tokens)),
            ("NORMALIZED", Constant::Bool(pass.read && config.normalization != Normalization::None)),
            ("ADD", Constant::Bool(pass.add)),
            ("READ", Constant::Bool(pass.read)),
            ("Elem", Constant::Type(if vec4 { "vec4<f32>" } else { "f32" })),
        ],
        fragments: vec![
            source!("linear_attention/tokens_params"),
            source!("linear_attention/tell_subgroup"),
            elementwise(config.feature_map),
            pick(pass.states, source!("linear_attention/token_states"), source!("linear_attention/no_token_states")),
            pick(vec4, source!("linear_attention/load_q_vec4"), source!("linear_attention/load_q_scalar")),
            pick(vec4, source!("linear_attention/load_kv_vec4"), source!("linear_attention/load_kv_scalar")),
            pick(problem.is_vec4(&["o"]), source!("shared/store_vec4"), source!("shared/store_scalar")),
            pick(kv_lens, source!("shared/kv_lens"), source!("shared/no_kv_lens")),
            source!("linear_attention/within"),
            source!("shared/workgroup_index"),
        ],
        storage: Vec::new(),
    }
    .of(problem, &[])
}

/// Every specialization for a problem.
pub(in crate::linear_attention) fn specializations(
    config: &LinearAttentionConfig,
    problem: &Problem,
) -> Vec<Specialization> {
    let tiles = TILES.into_iter().filter(|tile| dim_by_dim(config) && problem.shapes.head_dim <= tile.head_dim);
    tiles.flat_map(|tile| tile.specializations(config, problem)).collect()
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
    let rounds_of =
        |len: u32| (0..len).step_by(most as usize).map(move |first| Span { first, count: most.min(len - first) });
    let keys = rounds_of(shapes.kv_len).len() as u32;
    let mut rounds = Rounds {
        chunk_len: most.min(shapes.kv_len),
        chunks: keys,
        heads_per_round: heads,
        // No state of a chunk's own, only the two of a head that are carried by turns.
        chunks_per_round: 0,
        rows_per_round: 0,
        carries: 2,
    };
    let causal = config.mode == LinearMode::Causal;
    let states = !causal || keys > 1 || shapes.state_in || shapes.state_out;
    let mut views = Vec::new();
    if states {
        let most = capabilities.workspace_room().saturating_sub(255);
        while rounds.heads_per_round > 1 && rounds.regions(config, shapes)[0] > most {
            rounds.heads_per_round = rounds.heads_per_round.div_ceil(2);
        }
        views.push(("states", plan.workspace("states of the heads", rounds.regions(config, shapes)[0])?));
    }
    let chunk_tile = kernels::Tile::select(capabilities);
    let kernels = Kernels::new(config, problem, &chunk_tile);
    let mut builder = Builder {
        kernels: &kernels,
        plan: &mut plan,
        config,
        problem,
        tile: chunk_tile,
        tiles: None,
        rounds,
        views,
        numbers: Vec::new(),
        key_features: None,
        query_features: None,
    };
    for first in (0..heads).step_by(rounds.heads_per_round as usize) {
        let heads = Span { first, count: rounds.heads_per_round.min(heads - first) };
        if shapes.state_in {
            builder.copy_state(heads, State::IN, 0)?;
        }
        let pass = if causal { Pass::both(states) } else { Pass::KEYS };
        for (round, tokens) in (0..).zip(rounds_of(shapes.kv_len)) {
            let fresh = round == 0 && !shapes.state_in;
            builder.tokens(walk, pass, heads, tokens, [round % 2, (round + 1) % 2], fresh)?;
        }
        if !causal {
            for tokens in rounds_of(shapes.q_len) {
                builder.tokens(walk, Pass::QUERIES, heads, tokens, [keys % 2; 2], false)?;
            }
        }
        if shapes.state_out {
            builder.copy_state(heads, State::OUT, keys % 2)?;
        }
    }
    plan.finish(flops(config, shapes), problem.bytes(), walk.reason.clone())
}

impl Builder<'_, '_> {
    fn tokens(
        &mut self,
        walk: &Walk,
        pass: Pass,
        heads: Span,
        tokens: Span,
        [carry_in, carry_out]: [u32; 2],
        fresh: bool,
    ) -> Result<()> {
        let shapes = &self.problem.shapes;
        let group = if pass.read { shapes.q_heads / shapes.kv_heads } else { 1 };
        let values = [
            ("first_token", tokens.first.into()),
            ("end_token", (tokens.first + tokens.count).into()),
            ("first_head", heads.first.into()),
            ("group", group.into()),
            ("features", shapes.head_dim.into()),
            ("value_blocks", walk.value_blocks.into()),
            ("eps", eps(self.config).into()),
            ("carry_in", carry_in.into()),
            ("carry_out", carry_out.into()),
            ("fresh", fresh.into()),
        ];
        let workgroups = u64::from(heads.count) * u64::from(group) * u64::from(walk.value_blocks);
        let flops = u64::from(tokens.count) * walk.flops_per_token;
        self.plan.dispatch(walk.kernel(pass), workgroups, flops, &values, &self.views)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FeatureMap, LinearAttention};

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
    fn a_dispatch_ends_before_the_drivers_loop_cap() {
        let config = LinearAttentionConfig::new();
        let problem = Problem::contiguous::<LinearAttention>(&config, LinearAttentionShapes::new(1, 8, 1 << 20, 64));
        let tile = Tile::select(&config, &problem.shapes, &llvmpipe()).expect("a tile");
        let [most, uncapped] = [Some(65_535), None].map(|cap| tile.walk(&config, &problem, cap).most);
        // Steps of two tokens, and the state's 64 features loaded and stored.
        assert!(most.is_multiple_of(2) && most / 2 + 2 * 64 < 65_535 && most > 120_000, "{most}");
        assert_eq!(uncapped, u32::MAX);
    }

    #[test]
    fn other_maps_and_adapters_and_few_heads_take_chunks() {
        let shapes = LinearAttentionShapes::new(1, 8, 512, 64);
        let tile = |config: &LinearAttentionConfig, capabilities| Tile::select(config, &shapes, &capabilities);
        let causal = LinearAttentionConfig::new().mode(LinearMode::Causal);
        assert!(tile(&causal, llvmpipe()).is_some());
        let full = causal.mode(LinearMode::Full);
        assert!(tile(&full, llvmpipe()).is_some());
        let few_heads = LinearAttentionShapes::new(1, 3, 512, 64);
        assert!(Tile::select(&full, &few_heads, &llvmpipe()).is_none());
        assert!(Tile::select(&causal, &few_heads, &llvmpipe()).is_some());
        for map in [FeatureMap::Exp, FeatureMap::Cosine, FeatureMap::Taylor2 { scale: None }] {
            assert!(tile(&causal.feature_map(map), llvmpipe()).is_none(), "{map:?}");
        }
        for other in [
            Capabilities { is_llvmpipe: false, ..llvmpipe() },
            Capabilities { subgroup_size: Some(4), ..llvmpipe() },
            Capabilities { subgroup_size: None, ..llvmpipe() },
        ] {
            assert!(tile(&causal, other).is_none());
        }
    }
}
