//! The source of each specialization: constants, and the files that a map and a mode take.

use super::{Kind, STATE_WORKGROUP, Tile, elementwise, headers, in_workspace, needs_features};
use crate::dtype::Storage;
use crate::linear_attention::config::{FeatureMap, LinearAttentionConfig, LinearMode, Normalization, RunningMax};
use crate::linear_attention::plan::{Problem, State};
use crate::wgsl::{Constant, Specialization, pick, source};

/// Neighbouring numbers that one invocation writes: two where they lie in one word.
pub(in crate::linear_attention) fn own(stored: impl IntoIterator<Item = Storage>) -> Constant {
    let halves = stored.into_iter().any(|storage| storage.size() == 2);
    Constant::U32(if halves { 2 } else { 1 })
}

fn u32_constant(name: &'static str, value: u32) -> (&'static str, Constant) {
    (name, Constant::U32(value))
}

fn flag(name: &'static str, on: bool) -> (&'static str, Constant) {
    (name, Constant::Bool(on))
}

fn elem(vec4: bool) -> (&'static str, Constant) {
    ("Elem", Constant::Type(if vec4 { "vec4<f32>" } else { "f32" }))
}

/// What the kernels of one plan are made from.
pub(super) struct Maker<'a> {
    config: &'a LinearAttentionConfig,
    problem: &'a Problem,
    tile: &'a Tile,
    kind: Kind,
    /// Of a row, as the map has it.
    features: u32,
    /// Whether features of queries, and of keys, are in the workspace: rows padded to whole vec4s, as wide as a state has rows.
    pub for_queries: bool,
    pub for_keys: bool,
    q_vec4: bool,
    kv_vec4: bool,
}

impl<'a> Maker<'a> {
    pub fn new(config: &'a LinearAttentionConfig, problem: &'a Problem, tile: &'a Tile) -> Self {
        let (for_queries, for_keys) = needs_features(config.feature_map);
        Self {
            config,
            problem,
            tile,
            kind: Kind::of(config),
            features: problem.shapes.features(config.feature_map),
            for_queries,
            for_keys,
            q_vec4: for_queries || problem.is_vec4(&["q"]),
            kv_vec4: problem.is_vec4(if for_keys { &["v"] } else { &["k", "v"] }),
        }
    }

    fn causal(&self) -> bool {
        self.config.mode == LinearMode::Causal
    }

    fn normalized(&self) -> (&'static str, Constant) {
        flag("NORMALIZED", self.config.normalization != Normalization::None)
    }

    fn workgroup(&self) -> (&'static str, Constant) {
        u32_constant("WORKGROUP", self.tile.workgroup)
    }

    /// Width of a row of q or of k as it is bound.
    fn bound_dim(&self, in_workspace: bool) -> (&'static str, Constant) {
        u32_constant("HEAD_DIM", if in_workspace { self.features } else { self.problem.shapes.head_dim })
    }

    /// How a state lies in the workspace.
    fn state(&self) -> [(&'static str, Constant); 3] {
        [
            u32_constant("V_DIM", self.problem.shapes.v_dim),
            u32_constant("FEATURES", self.features),
            u32_constant("HEADERS", headers(self.config)),
        ]
    }

    /// The constants of a kernel that goes through states.
    fn of_states(&self) -> Vec<(&'static str, Constant)> {
        [&[u32_constant("WORKGROUP", STATE_WORKGROUP)][..], &self.state()].concat()
    }

    /// The kernel that computes features of q or of k.
    pub fn features(&self, rows: &str) -> Specialization {
        let vec4 = self.problem.is_vec4(&[rows]);
        Specialization {
            kernel: source!("linear_attention/features"),
            constants: vec![
                self.workgroup(),
                self.bound_dim(false),
                u32_constant("FEATURES", self.features),
                elem(vec4),
            ],
            fragments: vec![
                match self.config.feature_map {
                    FeatureMap::Cosine => source!("linear_attention/features_cosine"),
                    FeatureMap::Softmax => source!("linear_attention/features_softmax"),
                    _ => source!("linear_attention/features_favor"),
                },
                pick(
                    *self.tile == Tile::GPU,
                    source!("linear_attention/features_again"),
                    source!("linear_attention/features_kept"),
                ),
                pick(vec4, source!("linear_attention/load_q_vec4"), source!("linear_attention/load_q_scalar")),
                source!("linear_attention/features_rows"),
                source!("linear_attention/within"),
                source!("shared/workgroup_index"),
            ],
            storage: Vec::new(),
        }
        .of(self.problem, &[("q", self.problem.storage(rows))])
    }

    pub fn chunk_state(&self) -> Specialization {
        let shapes = &self.problem.shapes;
        let mut fragments = vec![
            source!("linear_attention/chunk_state_params"),
            pick(shapes.kv_lens, source!("shared/kv_lens"), source!("shared/no_kv_lens")),
            pick(self.for_keys, source!("linear_attention/k_workspace"), source!("linear_attention/k_operand")),
            pick(self.kv_vec4, source!("linear_attention/load_kv_vec4"), source!("linear_attention/load_kv_scalar")),
            source!("shared/workgroup_index"),
        ];
        match self.kind {
            Kind::Plain => fragments.extend([
                source!("linear_attention/keys_plain"),
                elementwise(self.config.feature_map),
                source!("linear_attention/within"),
            ]),
            Kind::Exponential | Kind::Columns => {
                fragments.extend([source!("linear_attention/keys_exponential"), source!("linear_attention/within")]);
            }
            Kind::Taylor2 => fragments.push(source!("linear_attention/keys_taylor2")),
        }
        let v_block = u32_constant("V_BLOCK", self.tile.v_block(shapes.v_dim));
        Specialization {
            kernel: source!("linear_attention/chunk_state"),
            constants: [
                &[self.workgroup(), self.bound_dim(self.for_keys)][..],
                &self.state(),
                &[v_block, elem(self.kv_vec4)],
            ]
            .concat(),
            fragments,
            storage: Vec::new(),
        }
        .of(self.problem, &in_workspace(self.config))
    }

    pub fn prefix(&self) -> Specialization {
        Specialization {
            kernel: source!("linear_attention/prefix"),
            constants: [&self.of_states()[..], &[flag("CAUSAL", self.causal())]].concat(),
            fragments: vec![source!("shared/workgroup_index")],
            storage: Vec::new(),
        }
    }

    pub fn output(&self) -> Specialization {
        let causal = self.causal();
        // One element type for all that the kernel reads; in full mode that is q alone.
        let vec4 = self.q_vec4 && (!causal || self.kv_vec4);
        let mut fragments = vec![
            source!("linear_attention/output_params"),
            pick(vec4, source!("linear_attention/load_q_vec4"), source!("linear_attention/load_q_scalar")),
            pick(self.problem.is_vec4(&["o"]), source!("shared/store_vec4"), source!("shared/store_scalar")),
            source!("linear_attention/within"),
            source!("shared/workgroup_index"),
        ];
        match self.kind {
            Kind::Plain => fragments.extend([
                source!("linear_attention/rows_plain"),
                source!("linear_attention/divide"),
                elementwise(self.config.feature_map),
            ]),
            Kind::Exponential => fragments.push(source!("linear_attention/rows_exponential")),
            Kind::Columns => fragments.push(source!("linear_attention/rows_columns")),
            Kind::Taylor2 => {
                fragments.extend([source!("linear_attention/rows_taylor2"), source!("linear_attention/divide")]);
            }
        }
        if causal {
            fragments.extend([
                source!("linear_attention/own_keys"),
                pick(self.tile.subgroup, source!("shared/keys_subgroup"), source!("shared/keys_uniform")),
                pick(vec4, source!("linear_attention/load_kv_vec4"), source!("linear_attention/load_kv_scalar")),
                pick(
                    self.kind == Kind::Exponential,
                    source!("linear_attention/weigh_exponential"),
                    source!("linear_attention/weigh_plain"),
                ),
            ]);
        } else {
            fragments.push(source!("linear_attention/no_own_keys"));
        }
        Specialization {
            kernel: source!("linear_attention/output"),
            constants: [
                &[self.workgroup(), self.bound_dim(self.for_queries)][..],
                &self.state(),
                &[flag("CAUSAL", causal), self.normalized(), elem(vec4)],
            ]
            .concat(),
            fragments,
            storage: Vec::new(),
        }
        .of(self.problem, &in_workspace(self.config))
    }

    pub fn load_state(&self) -> Specialization {
        Specialization {
            kernel: source!("linear_attention/load_state"),
            constants: self.of_states(),
            fragments: vec![
                match self.config.feature_map.running_max() {
                    None => source!("linear_attention/no_load_max"),
                    Some(_) => source!("linear_attention/load_max"),
                },
                source!("linear_attention/copy_state"),
                source!("shared/workgroup_index"),
            ],
            storage: Vec::new(),
        }
        .of(self.problem, &State::IN.storage(self.problem))
    }

    pub fn store_state(&self) -> Specialization {
        let own = ("OWN", own(self.problem.output("state_z").map(|z| z.storage)));
        Specialization {
            kernel: source!("linear_attention/store_state"),
            constants: [&self.of_states()[..], &[own]].concat(),
            fragments: vec![
                match self.config.feature_map.running_max() {
                    None => source!("linear_attention/no_store_max"),
                    Some(RunningMax::PerFeature) => source!("linear_attention/store_max_feature"),
                    Some(RunningMax::PerHead) => source!("linear_attention/store_max_head"),
                },
                source!("linear_attention/copy_state"),
                source!("shared/workgroup_index"),
            ],
            storage: Vec::new(),
        }
        .of(self.problem, &State::OUT.storage(self.problem))
    }

    pub fn step(&self) -> Specialization {
        let state = State::OUT.storage(self.problem);
        let in_f32 = state.iter().all(|(_, storage)| storage.size() == 4);
        let written = state.iter().map(|(_, storage)| *storage).chain([self.problem.storage("o")]);
        let mut fragments = vec![
            pick(in_f32, source!("linear_attention/step_at_once"), source!("linear_attention/step_afterwards")),
            source!("shared/workgroup_index"),
        ];
        match self.kind {
            Kind::Plain => fragments.extend([
                source!("linear_attention/step_bounded"),
                source!("linear_attention/step_plain"),
                elementwise(self.config.feature_map),
            ]),
            Kind::Taylor2 => {
                fragments.extend([source!("linear_attention/step_bounded"), source!("linear_attention/step_taylor2")]);
            }
            Kind::Exponential | Kind::Columns => fragments.push(source!("linear_attention/step_exponential")),
        }
        Specialization {
            kernel: source!("linear_attention/step"),
            constants: vec![
                u32_constant("WORKGROUP", STATE_WORKGROUP),
                self.bound_dim(self.for_queries),
                u32_constant("V_DIM", self.problem.shapes.v_dim),
                u32_constant("FEATURES", self.features),
                self.normalized(),
                flag("PER_HEAD", self.config.feature_map.running_max() == Some(RunningMax::PerHead)),
                ("OWN", own(written)),
            ],
            fragments,
            storage: Vec::new(),
        }
        .of(self.problem, &[in_workspace(self.config), state].concat())
    }
}
