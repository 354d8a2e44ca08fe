//! The kernels of the backward pass: the source of each specialization.

use super::super::config::{FeatureMap, LinearAttentionConfig, LinearMode, Normalization, RunningMax};
use super::super::kernels::{self as forward, Kind, STATE_WORKGROUP, Tile, elementwise, headers, needs_features};
use super::super::plan::Problem as ForwardProblem;
use super::super::tiles::{Tiles, elem};
use super::plan::Problem;
use super::{LinearAttentionBackward, LinearAttentionBackwardShapes};
use crate::dtype::{DType, Storage};
use crate::tile::{Grid, grid};
use crate::wgsl::{self, Constant, Source, Specialization, fours, optional, pick, source};

/// How a workgroup shares rows of a gradient: as forward's rows.
const GRID: Grid = grid([8, 2, 4, 2], 16);
/// The same with one group of rows to an invocation, where two products of pairs stand beside what they add up.
const GRID_OF_PAIRS: Grid = grid([16, 1, 4, 2], 16);
/// Chunks of a row of a gradient that a workgroup owns at the most; half of it where exponents stand in registers beside it.
const MOST_CHUNKS: u32 = 32;
const MOST_CHUNKS_OF_EXPONENTS: u32 = 16;

/// A file of this op, by its name.
macro_rules! own {
    ($name:literal) => {
        source!("linear_attention/", $name)
    };
}

/// What the rows of a gradient are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Queries,
    Keys,
    Values,
}

/// Where the features of queries or of keys are as kernels read them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rows {
    /// The operand, which kernels map.
    Operand(&'static str),
    /// In the workspace, as the map has them; of queries under an exponential map, relative to their rows' units.
    Workspace,
}

impl Rows {
    fn storage(self, problem: &Problem) -> Storage {
        match self {
            Self::Operand(name) => problem.storage(name),
            Self::Workspace => Storage::Shared,
        }
    }

    fn is_vec4(self, problem: &Problem) -> bool {
        match self {
            Self::Operand(name) => problem.is_vec4(&[name]),
            Self::Workspace => true,
        }
    }
}

/// What a call's kernels depend on beside the operands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    pub config: LinearAttentionConfig,
    pub kind: Kind,
    pub causal: bool,
    /// Rows have numbers of their own: 1 / w, −do·o, and what their terms are relative to.
    pub numbers: bool,
}

impl Form {
    pub fn of(config: &LinearAttentionConfig) -> Self {
        let kind = Kind::of(config);
        let numbers = config.normalization != Normalization::None || kind == Kind::Exponential;
        Self { config: *config, kind, causal: config.mode == LinearMode::Causal, numbers }
    }

    /// Where features are, of queries or of keys.
    pub fn rows(&self, queries: bool) -> Rows {
        let (for_queries, for_keys) = needs_features(self.config.feature_map);
        let relative = queries && self.kind == Kind::Exponential;
        match (if queries { for_queries } else { for_keys }) || relative {
            true => Rows::Workspace,
            false => Rows::Operand(if queries { "q" } else { "k" }),
        }
    }

    /// Whether a gradient of features goes through the map by a kernel of its own.
    pub fn has_chain(&self, role: Role) -> bool {
        let (for_queries, for_keys) = needs_features(self.config.feature_map);
        match role {
            Role::Queries => for_queries,
            Role::Keys => for_keys,
            Role::Values => false,
        }
    }

    /// What a kernel reads as rows, as what they see, as what that adds up, and as the rows through the map.
    pub fn operands(&self, role: Role) -> [Rows; 4] {
        let [queries, keys] = [true, false].map(|queries| self.rows(queries));
        let own = |features: Rows, name| if self.kind == Kind::Plain { Rows::Operand(name) } else { features };
        match role {
            Role::Queries => [Rows::Operand("dout"), Rows::Operand("v"), keys, own(queries, "q")],
            Role::Keys => [Rows::Operand("v"), Rows::Operand("dout"), queries, own(keys, "k")],
            Role::Values => [keys, queries, Rows::Operand("dout"), keys],
        }
    }

    /// Numbers of a row of a gradient.
    pub fn width(&self, role: Role, shapes: &LinearAttentionBackwardShapes) -> u32 {
        match role {
            Role::Values => shapes.v_dim,
            _ if self.kind == Kind::Taylor2 => shapes.head_dim,
            _ => shapes.forward().features(self.config.feature_map),
        }
    }

    /// Chunks of a row of a gradient, and those that a workgroup owns.
    pub fn chunks(&self, role: Role, shapes: &LinearAttentionBackwardShapes) -> [u32; 2] {
        let exponents = role != Role::Values && matches!(self.kind, Kind::Exponential | Kind::Columns);
        let all = self.width(role, shapes).div_ceil(4);
        [all, all.div_ceil(all.div_ceil(if exponents { MOST_CHUNKS_OF_EXPONENTS } else { MOST_CHUNKS }))]
    }

    /// Rows that a workgroup owns.
    pub fn tile_rows() -> u32 {
        GRID.rows()
    }

    /// The kernel of a gradient.
    pub fn gradient(&self, role: Role, problem: &Problem) -> Specialization {
        let (shapes, map) = (&problem.shapes, self.config.feature_map);
        let features = shapes.forward().features(map);
        let [rows, seen, values, own] = self.operands(role);
        let head_dim = match role {
            Role::Values if rows == Rows::Workspace => features,
            Role::Values => shapes.head_dim,
            _ => shapes.v_dim,
        };
        let [_, chunks] = self.chunks(role, shapes);
        let walked = [rows, seen, values];
        let vec4 = walked[..if self.causal { 3 } else { 1 }].iter().all(|rows| rows.is_vec4(problem));
        let output = match role {
            Role::Queries => "dq",
            Role::Keys => "dk",
            Role::Values => "dv",
        };
        let chain = self.has_chain(role);
        let grid = if self.kind == Kind::Taylor2 && role != Role::Values { GRID_OF_PAIRS } else { GRID };
        let mut constants = grid.constants(chunks);
        constants.extend([
            ("HEAD_DIM", Constant::U32(head_dim)),
            ("V_DIM", Constant::U32(self.width(role, shapes))),
            ("V_CHUNKS", Constant::U32(chunks)),
            ("STATE_DIM", Constant::U32(shapes.v_dim)),
            ("FEATURES", Constant::U32(features)),
            ("HEADERS", Constant::U32(headers(&self.config))),
            ("REVERSE", Constant::Bool(role != Role::Queries)),
            elem(vec4),
        ]);
        let mut fragments = vec![
            own!("tiled_rows"),
            own!("within"),
            fours!(vec4, "linear_attention/", "load_q"),
            fours!(chain || problem.is_vec4(&[output]), "shared/", "store"),
            optional!(role != Role::Queries && shapes.kv_lens, "shared/", "kv_lens"),
            source!("shared/tile"),
            source!("shared/workgroup_index"),
        ];
        let numbers = self.numbers && (self.causal || role == Role::Queries);
        fragments.push(match role {
            Role::Queries => optional!(numbers, "linear_attention/", "backward_queries"),
            Role::Keys => optional!(numbers, "linear_attention/", "backward_keys"),
            Role::Values => optional!(numbers, "linear_attention/", "backward_values"),
        });
        let (through, weigh, has_own) = self.files(role);
        fragments.extend(through);
        fragments.extend(has_own.then(|| fours!(own.is_vec4(problem), "linear_attention/", "load_beside")));
        if self.causal {
            let load = fours!(vec4, "linear_attention/", "load_kv");
            let steps = [source!("shared/steps"), source!("shared/steps_together")];
            fragments.extend([
                own!("backward_walk"),
                source!("shared/tile_keys"),
                source!("shared/tile_products"),
                weigh,
                load,
            ]);
            fragments.extend(steps);
        } else {
            fragments.push(own!("no_backward_walk"));
        }
        let stored = ["q", "k", "v", "beside"].into_iter().zip([rows, seen, values, own]);
        let mut stored: Vec<_> = stored.map(|(name, rows)| (name, rows.storage(problem))).collect();
        let to = problem.output(output).map_or(Storage::Plain(DType::F32), |layout| layout.storage);
        stored.push(("o", if chain { Storage::Plain(DType::F32) } else { to }));
        Specialization { kernel: own!("backward"), constants, fragments, storage: Vec::new() }.of(problem, &stored)
    }

    /// The files of a gradient by the map: what a state adds and how it goes through the map, and weights of pairs; whether the rows
    /// through the map are read.
    fn files(&self, role: Role) -> (Vec<&'static Source>, &'static Source, bool) {
        let map = elementwise(self.config.feature_map);
        let by_dim = !needs_features(self.config.feature_map).0 && self.config.feature_map != FeatureMap::Identity;
        let of_features = optional!(by_dim, "linear_attention/", "backward_by_dim");
        let none = own!("no_backward_by_dim");
        match (role, self.kind) {
            (Role::Values, Kind::Plain | Kind::Taylor2) => {
                let rows = [own!("tiled_state"), own!("backward_begin"), none];
                let of_map = match self.kind {
                    Kind::Plain => vec![own!("tiled_plain"), map],
                    _ => vec![own!("tiled_taylor2")],
                };
                ([&rows[..], &of_map].concat(), own!("backward_weigh"), false)
            }
            (Role::Values, _) => {
                let mut rows = vec![own!("tiled_state"), own!("backward_values_exponential"), none];
                rows.extend(self.causal.then_some(own!("backward_add_values")));
                (rows, own!("backward_weigh_terms"), false)
            }
            (_, Kind::Plain) => {
                let map = by_dim.then_some(map);
                let files = [own!("backward_state"), of_features].into_iter().chain(map).collect();
                (files, own!("backward_weigh"), by_dim)
            }
            (_, Kind::Taylor2) => (vec![own!("backward_taylor2")], own!("backward_weigh_taylor2"), true),
            (Role::Queries, Kind::Columns) => {
                (vec![own!("backward_state"), own!("backward_columns_rows")], own!("backward_weigh"), true)
            }
            (_, Kind::Exponential | Kind::Columns) => {
                (vec![own!("backward_state"), own!("backward_exponential")], own!("backward_weigh_exponential"), true)
            }
        }
    }

    /// The kernel that takes gradients of features through the map.
    pub fn chain(&self, role: Role, problem: &Problem) -> Specialization {
        let shapes = &problem.shapes;
        let (rows, output) = if role == Role::Queries { ("q", "dq") } else { ("k", "dk") };
        let vec4 = problem.is_vec4(&[rows]);
        let [features, gradient] = match self.config.feature_map {
            FeatureMap::Cosine => [own!("features_cosine"), own!("backward_features_cosine")],
            FeatureMap::Softmax => [own!("features_softmax"), own!("backward_features_softmax")],
            _ => [own!("features_favor"), own!("backward_features_favor")],
        };
        let constants = vec![
            ("WORKGROUP", Constant::U32(Tile::GPU.workgroup)),
            ("HEAD_DIM", Constant::U32(shapes.head_dim)),
            ("FEATURES", Constant::U32(shapes.forward().features(self.config.feature_map))),
            elem(vec4),
        ];
        let fragments = vec![
            features,
            gradient,
            own!("features_again"),
            own!("features_rows"),
            own!("within"),
            fours!(vec4, "linear_attention/", "load_q"),
            fours!(problem.is_vec4(&[output]), "shared/", "store"),
            optional!(role == Role::Keys && shapes.kv_lens, "shared/", "kv_lens"),
            source!("shared/workgroup_index"),
        ];
        let to = problem.output(output).map_or(Storage::Plain(DType::F32), |layout| layout.storage);
        Specialization { kernel: own!("backward_features"), constants, fragments, storage: Vec::new() }
            .of(problem, &[("q", problem.storage(rows)), ("o", to)])
    }

    /// The kernel of what the weights of a row are relative to.
    pub fn units(&self, problem: &Problem) -> Specialization {
        let (in_workspace, _) = needs_features(self.config.feature_map);
        let queries = if in_workspace { Rows::Workspace } else { Rows::Operand("q") };
        let keys = self.rows(false);
        let shapes = problem.shapes.forward();
        let features = shapes.features(self.config.feature_map);
        let vec4 = queries.is_vec4(problem);
        let load = fours!(keys.is_vec4(problem), "linear_attention/", "load_beside");
        let constants = vec![
            ("WORKGROUP", Constant::U32(features.div_ceil(4))),
            ("BATCH", Constant::U32((512 / features.div_ceil(4)).clamp(1, 32))),
            ("HEAD_DIM", Constant::U32(features)),
            ("STATE_ROW", Constant::U32(forward::state_row(&self.config, shapes.v_dim))),
            ("CAUSAL", Constant::Bool(self.causal)),
            elem(vec4),
        ];
        let fragments = vec![
            fours!(vec4, "linear_attention/", "load_q"),
            pick(self.causal, load, own!("no_load_beside")),
            own!("within"),
            source!("shared/workgroup_index"),
        ];
        let stored = [("q", queries.storage(problem)), ("beside", keys.storage(problem))];
        Specialization { kernel: own!("backward_units"), constants, fragments, storage: Vec::new() }
            .of(problem, &stored)
    }

    /// The kernel of exponents of queries relative to their rows' units.
    pub fn relative(&self, problem: &Problem) -> Specialization {
        let (in_workspace, _) = needs_features(self.config.feature_map);
        let rows = if in_workspace { Rows::Workspace } else { Rows::Operand("q") };
        let vec4 = rows.is_vec4(problem);
        let features = problem.shapes.forward().features(self.config.feature_map);
        let constants =
            vec![("WORKGROUP", Constant::U32(STATE_WORKGROUP)), ("HEAD_DIM", Constant::U32(features)), elem(vec4)];
        let fragments = vec![fours!(vec4, "linear_attention/", "load_q"), source!("shared/workgroup_index")];
        Specialization { kernel: own!("backward_relative"), constants, fragments, storage: Vec::new() }
            .of(problem, &[("q", rows.storage(problem))])
    }

    /// The kernel that makes of Efficient Attention's sums what they stand for.
    pub fn columns(&self, problem: &Problem) -> Specialization {
        Specialization {
            kernel: own!("backward_columns"),
            constants: self.of_states(problem),
            fragments: vec![source!("shared/workgroup_index")],
            storage: Vec::new(),
        }
    }

    /// The constants of a kernel that goes through states.
    fn of_states(&self, problem: &Problem) -> Vec<(&'static str, Constant)> {
        let shapes = problem.shapes.forward();
        let numbers = [
            ("WORKGROUP", STATE_WORKGROUP),
            ("V_DIM", shapes.v_dim),
            ("FEATURES", shapes.features(self.config.feature_map)),
            ("HEADERS", headers(&self.config)),
        ];
        numbers.map(|(name, number)| (name, Constant::U32(number))).into()
    }

    /// Forward's kernels, and in place of its rows those of their numbers.
    pub fn forward(&self, problem: &Problem, own: &ForwardProblem, tiles: &Tiles) -> forward::Kernels {
        let load = fours!(problem.is_vec4(&["dout"]), "linear_attention/", "load_beside");
        let stored = |rows: Rows| (rows == Rows::Workspace).then_some(Storage::Shared);
        let [q, k] = [true, false].map(|queries| self.rows(queries));
        let others = [
            ("beside", Some(problem.storage("dout"))),
            ("states", Some(Storage::Shared)),
            ("q", stored(q)),
            ("k", stored(k)),
        ];
        let others = others.into_iter().filter_map(|(name, storage)| Some((name, storage?))).collect::<Vec<_>>();
        let mut output = tiles.rows(&self.config, own, &[own!("backward_numbers"), load], &others);
        // A row's weights are found from its unit, which is known by now, and are not divided.
        let mut fragments = Vec::new();
        for fragment in output.fragments {
            match fragment.path {
                "linear_attention/tiled_divide" => fragments.push(own!("backward_divide")),
                "linear_attention/tiled_exponential" => {
                    fragments.extend([own!("backward_values_exponential"), own!("backward_divide_exponential")]);
                }
                "linear_attention/tiled_weigh_exponential" => {
                    fragments.extend([own!("backward_weigh_terms"), own!("no_backward_values")]);
                }
                _ => fragments.push(fragment),
            }
        }
        output.fragments = fragments;
        let chunk_state = tiles.chunk_state(&self.config, own);
        forward::Kernels { output, chunk_state, ..forward::Kernels::new(&self.config, own, &Tile::GPU) }
    }

    /// The same for the sums that run from the last token to the first.
    pub fn reverse(&self, problem: &Problem, own: &ForwardProblem, tiles: &Tiles) -> forward::Kernels {
        let counts = optional!(self.numbers, "linear_attention/", "backward_counts");
        let in_workspace = self.rows(true) == Rows::Workspace;
        let all = forward::Kernels::new(&self.config, own, &Tile::GPU);
        let mut prefix = all.prefix;
        prefix.constants.push(("REVERSE", Constant::Bool(true)));
        let unbounded = self.config.feature_map.running_max();
        let [read, written] = [
            problem.get("dstate_s").zip(problem.get("dstate_z")),
            problem.output("dstate_s").zip(problem.output("dstate_z")),
        ];
        let copy =
            |kernel, max, constants: Vec<_>, stored: Option<(&crate::tensor::Layout, &crate::tensor::Layout)>| {
                let fragments = vec![max, own!("copy_state"), source!("shared/workgroup_index")];
                let storage = |layout: Option<&crate::tensor::Layout>| {
                    layout.map_or(Storage::Plain(DType::F32), |layout| layout.storage)
                };
                let [s, z] = [storage(stored.map(|(s, _)| s)), storage(stored.map(|(_, z)| z))];
                Specialization { kernel, constants, fragments, storage: Vec::new() }
                    .of(problem, &[("state_s", s), ("state_z", z)])
            };
        let halves = written.is_some_and(|(_, z)| z.storage.size() == 2);
        let own_z = [("OWN", Constant::U32(if halves { 2 } else { 1 }))];
        forward::Kernels {
            chunk_state: tiles.sums(&self.config, own, ["q", "dout"], in_workspace, counts),
            prefix,
            load_state: copy(
                own!("load_state"),
                if unbounded.is_some() { own!("backward_load_max") } else { own!("no_load_max") },
                self.of_states(problem),
                read,
            ),
            store_state: copy(
                own!("store_state"),
                if unbounded.is_some() { own!("backward_store_max") } else { own!("no_store_max") },
                [&self.of_states(problem)[..], &own_z].concat(),
                written,
            ),
            ..all
        }
    }

    /// The most loop iterations of an invocation, counting one more for the exit of each run of a loop.
    pub fn loop_iterations(
        &self,
        shapes: &LinearAttentionBackwardShapes,
        chunk_len: u32,
        group: u32,
        tiles: &Tiles,
    ) -> u64 {
        let own = shapes.forward();
        let features = own.features(self.config.feature_map);
        let slabs = |dims: u32| u64::from(dims.div_ceil(GRID.slab)) * 24;
        // Of each role: what a state adds, and steps of 32 pairs or more over contractions and what they add up.
        let state = match self.kind {
            Kind::Taylor2 => u64::from(shapes.head_dim + 2) * slabs(shapes.v_dim) + slabs(features),
            _ => slabs(features.max(shapes.v_dim)),
        };
        let dims = if self.kind == Kind::Taylor2 { shapes.head_dim } else { features };
        let step = slabs(dims.max(shapes.v_dim)) + slabs(shapes.head_dim) + 8 * 24;
        let steps = if self.causal { u64::from(group) * u64::from(chunk_len.div_ceil(32) + 2) } else { 0 };
        let sums = tiles.most_loop_iterations(&self.config, &own, chunk_len);
        let chain = u64::from(features + 4) * u64::from(forward::FEATURE_BLOCK + 2) + 4 * u64::from(shapes.head_dim);
        (state + steps * step).max(sums.saturating_mul(group.into())).max(chain)
    }

    pub fn per_head(&self) -> bool {
        self.config.feature_map.running_max() == Some(RunningMax::PerHead)
    }
}

/// Every specialization that a plan can pick, up to the head dims (which are sampled).
#[doc(hidden)]
#[must_use]
pub fn specializations() -> Vec<Specialization> {
    let mut found = Vec::new();
    for map in forward::every_map() {
        for (head_dim, v_dim) in [(3, 5), (64, 64), (256, 256), (72, 80)] {
            for mode in [LinearMode::Full, LinearMode::Causal] {
                for normalization in [Normalization::default(), Normalization::None] {
                    let config = LinearAttentionConfig::new().mode(mode).feature_map(map).normalization(normalization);
                    if config.check().is_err() {
                        continue;
                    }
                    let favor = matches!(map, FeatureMap::Favor { .. });
                    let shapes = LinearAttentionBackwardShapes {
                        v_dim,
                        projection_rows: favor.then_some(2 * head_dim),
                        kv_lens: mode == LinearMode::Full && normalization == Normalization::None,
                        state: true,
                        dstate_in: true,
                        dstate_out: true,
                        ..LinearAttentionBackwardShapes::new(1, 1, 1, head_dim)
                    };
                    let problem = Problem::contiguous::<LinearAttentionBackward>(&config, shapes);
                    found.extend(of_problem(&config, &problem));
                }
            }
        }
    }
    wgsl::distinct(found)
}

/// Every specialization of a problem.
fn of_problem(config: &LinearAttentionConfig, problem: &Problem) -> Vec<Specialization> {
    let (form, own) = (Form::of(config), problem.with_shapes(problem.shapes.forward()));
    let tiles = Tiles::of(config, &own.shapes);
    let (forward, reverse) = (form.forward(problem, &own, &tiles), form.reverse(problem, &own, &tiles));
    let mut found = vec![forward.chunk_state, forward.prefix, forward.load_state];
    found.extend([reverse.chunk_state, reverse.prefix, reverse.load_state, reverse.store_state]);
    found.extend([forward.query_features, forward.key_features].into_iter().flatten());
    found.extend(form.numbers.then_some(forward.output));
    if form.kind == Kind::Exponential {
        found.extend([form.units(problem), form.relative(problem)]);
    }
    found.extend((form.kind == Kind::Columns).then(|| form.columns(problem)));
    for role in [Role::Queries, Role::Keys, Role::Values] {
        found.push(form.gradient(role, problem));
        found.extend(form.has_chain(role).then(|| form.chain(role, problem)));
    }
    found
}
