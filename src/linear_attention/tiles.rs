//! What a GPU gets: tiles of rows and of features in workgroup memory, and chunks as long as they pay.

use super::config::{LinearAttentionConfig, LinearMode, Normalization};
use super::kernels::{Kind, elementwise, headers, in_workspace, needs_features};
use super::plan::Problem;
use super::shapes::LinearAttentionShapes;
use crate::context::Capabilities;
use crate::dtype::{DType, Storage};
use crate::wgsl::{Constant, Source, Specialization, pick, source};

/// A row of the table of tiles.
#[derive(Clone, Copy, Debug)]
struct Class {
    /// The largest v_dim.
    v_dim: u32,
    /// Rows of a workgroup of `tiled_output.wgsl`, and the most features of one of `tiled_chunk_state.wgsl`.
    rows: u32,
    most_features: u32,
    /// Groups of four rows to an invocation, and terms in workgroup memory at a time.
    groups: u32,
    slab: u32,
}

/// Keys of an invocation in a step, as the kernels have it.
const OWN_KEYS: u32 = 4;

/// Exponentials of a chunk's own keys are compared and rescaled by rows: with two groups of these, 184 registers.
const EXPONENTIAL_GROUPS: u32 = 1;

/// The first row that applies is taken.
///
/// An invocation keeps 4 * groups rows by 4 * columns dims of o, and as many rows by four scores: 64 or 96 numbers at two groups
/// and v_dim 64 or 128; above, one group. Twice as many dims and keys, as attention has at v_dim 64, would halve the waves of kernels that
/// memory bounds. 64 rows are as long as the shortest chunk, so that none of its scores are
/// computed for nothing but those above the diagonal. Two groups of 128 features and 128 value dims take all of 16 KiB.
const CLASSES: &[Class] = &[
    Class { v_dim: 128, rows: 64, most_features: 128, groups: 2, slab: 16 },
    Class { v_dim: 256, rows: 64, most_features: 64, groups: 1, slab: 8 },
];

/// Keys of a chunk in causal mode, by the most features it is for.
///
/// With chunks of C keys, F features and d dims of q, k, v and o, a token takes 4Fd FLOP with states, 4(C/2 + 32)d with its own
/// chunk, and moves 24d bytes of q, k, v and o and 16Fd/C of states (each written, read and written by the prefix, and read). At ten
/// FLOP to the byte, which is what a GPU keeps up in such products, their sum is least at C² = 80F; the limits lie halfway
/// between two powers of two.
const CHUNKS: &[(u32, u32)] = &[(102, 64), (410, 128), (1638, 256), (u32::MAX, 512)];

pub(super) fn chunk_len(features: u32) -> u32 {
    CHUNKS.iter().find(|&&(most, _)| features <= most).map_or(512, |&(_, len)| len)
}

/// The tiles of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tiles {
    /// Rows of a workgroup that computes o.
    pub rows: u32,
    /// Features of a workgroup that sums up a chunk.
    pub features: u32,
    /// Groups of an invocation of the one, and of the other.
    row_groups: u32,
    feature_groups: u32,
    slab: u32,
    width: u32,
    columns: u32,
}

impl Tiles {
    /// None where invocations run on CPU cores: those have no use for workgroup memory.
    pub fn select(
        config: &LinearAttentionConfig,
        shapes: &LinearAttentionShapes,
        capabilities: &Capabilities,
    ) -> Option<Self> {
        (!capabilities.is_cpu).then(|| Self::of(config, shapes))
    }

    pub fn of(config: &LinearAttentionConfig, shapes: &LinearAttentionShapes) -> Self {
        let class = CLASSES.iter().find(|class| shapes.v_dim <= class.v_dim).unwrap_or(&CLASSES[CLASSES.len() - 1]);
        let chunks = shapes.v_dim.div_ceil(4);
        let columns = chunks.div_ceil(16);
        // Features in as few tiles as there have to be, and these even, of at least 32.
        let own = 4 * class.groups;
        let features = shapes.features(config.feature_map);
        let tiles = features.div_ceil(class.most_features);
        let by_exponentials = Kind::of(config) == Kind::Exponential && config.mode == LinearMode::Causal;
        // As few invocations as share all chunks of a row evenly, in fours.
        let width = chunks.div_ceil(columns.max(1)).next_multiple_of(4).max(8);
        Self {
            rows: class.rows,
            features: features.div_ceil(tiles.max(1)).next_multiple_of(own).max(32),
            row_groups: if by_exponentials { EXPONENTIAL_GROUPS } else { class.groups },
            feature_groups: class.groups,
            slab: class.slab,
            width,
            columns,
        }
    }

    fn constants(
        &self,
        [rows, groups]: [u32; 2],
        head_dim: u32,
        config: &LinearAttentionConfig,
        shapes: &LinearAttentionShapes,
    ) -> Vec<(&'static str, Constant)> {
        vec![
            ("WIDTH", Constant::U32(self.width)),
            ("HEIGHT", Constant::U32(rows / (4 * groups))),
            ("GROUPS", Constant::U32(groups)),
            ("COLUMNS", Constant::U32(self.columns)),
            ("SLAB", Constant::U32(self.slab)),
            ("HEAD_DIM", Constant::U32(head_dim)),
            ("V_DIM", Constant::U32(shapes.v_dim)),
            ("FEATURES", Constant::U32(shapes.features(config.feature_map))),
            ("HEADERS", Constant::U32(headers(config))),
        ]
    }

    /// The kernel that sums up chunks.
    pub fn chunk_state(&self, config: &LinearAttentionConfig, problem: &Problem) -> Specialization {
        let (_, for_keys) = needs_features(config.feature_map);
        self.sums(config, problem, ["k", "v"], for_keys, source!("linear_attention/counts"))
    }

    /// The same of any rows and values by their names, whose rows may be in the workspace, as the map has them; of queries, those of
    /// all query heads of a kv head.
    pub fn sums(
        &self,
        config: &LinearAttentionConfig,
        problem: &Problem,
        [rows, values]: [&str; 2],
        in_workspace: bool,
        counts: &'static Source,
    ) -> Specialization {
        let shapes = &problem.shapes;
        let vec4 = problem.is_vec4(&[values, if in_workspace { values } else { rows }]);
        let head_dim = if in_workspace { shapes.features(config.feature_map) } else { shapes.head_dim };
        let mut constants = self.constants([self.features, self.feature_groups], head_dim, config, shapes);
        constants.extend([("GROUPED", Constant::Bool(rows == "q")), elem(vec4)]);
        let kv_lens = rows == "k" && shapes.kv_lens;
        let mut fragments = vec![
            source!("linear_attention/chunk_state_params"),
            pick(kv_lens, source!("shared/kv_lens"), source!("shared/no_kv_lens")),
            pick(in_workspace, source!("linear_attention/k_workspace"), source!("linear_attention/k_operand")),
            pick(vec4, source!("linear_attention/load_kv_vec4"), source!("linear_attention/load_kv_scalar")),
            counts,
            source!("shared/tile"),
            source!("shared/along_width_memory"),
            source!("shared/workgroup_index"),
        ];
        fragments.extend(match Kind::of(config) {
            Kind::Plain => vec![
                source!("linear_attention/keys_plain"),
                elementwise(config.feature_map),
                source!("linear_attention/within"),
            ],
            Kind::Exponential | Kind::Columns => {
                vec![source!("linear_attention/tiled_keys_exponential"), source!("linear_attention/within")]
            }
            Kind::Taylor2 => vec![source!("linear_attention/keys_taylor2")],
        });
        let rows = if in_workspace { Storage::Plain(DType::F32) } else { problem.storage(rows) };
        Specialization {
            kernel: source!("linear_attention/tiled_chunk_state"),
            constants,
            fragments,
            storage: Vec::new(),
        }
        .of(problem, &[("k", rows), ("v", problem.storage(values))])
    }

    /// The kernel that computes rows.
    pub fn output(&self, config: &LinearAttentionConfig, problem: &Problem) -> Specialization {
        let store = pick(problem.is_vec4(&["o"]), source!("shared/store_vec4"), source!("shared/store_scalar"));
        self.rows(config, problem, &[source!("linear_attention/tiled_write"), store], &in_workspace(config))
    }

    /// The same with other files that say what becomes of rows, and what is bound otherwise than the problem has it.
    pub fn rows(
        &self,
        config: &LinearAttentionConfig,
        problem: &Problem,
        results: &[&'static Source],
        others: &[(&'static str, Storage)],
    ) -> Specialization {
        let shapes = &problem.shapes;
        let causal = config.mode == LinearMode::Causal;
        let (for_queries, for_keys) = needs_features(config.feature_map);
        // One element type for all that the kernel reads; in full mode that is q alone.
        let reads = [(!for_queries).then_some("q"), (causal && !for_keys).then_some("k"), causal.then_some("v")];
        let vec4 = problem.is_vec4(&reads.into_iter().flatten().collect::<Vec<_>>());
        let head_dim = if for_queries { shapes.features(config.feature_map) } else { shapes.head_dim };
        let mut constants = self.constants([self.rows, self.row_groups], head_dim, config, shapes);
        constants.extend([
            ("CAUSAL", Constant::Bool(causal)),
            ("NORMALIZED", Constant::Bool(config.normalization != Normalization::None)),
            elem(vec4),
        ]);
        let mut fragments = vec![
            source!("linear_attention/output_params"),
            source!("linear_attention/tiled_rows"),
            source!("linear_attention/tiled_state"),
            pick(vec4, source!("linear_attention/load_q_vec4"), source!("linear_attention/load_q_scalar")),
            source!("linear_attention/within"),
            source!("shared/tile"),
            source!("shared/along_width_memory"),
            source!("shared/workgroup_index"),
        ];
        fragments.extend_from_slice(results);
        let kind = Kind::of(config);
        fragments.extend(match kind {
            Kind::Plain => vec![
                source!("linear_attention/tiled_plain"),
                elementwise(config.feature_map),
                source!("linear_attention/tiled_divide"),
            ],
            Kind::Exponential => vec![source!("linear_attention/tiled_exponential")],
            Kind::Columns => vec![source!("linear_attention/tiled_columns"), source!("linear_attention/tiled_divide")],
            Kind::Taylor2 => vec![source!("linear_attention/tiled_taylor2"), source!("linear_attention/tiled_divide")],
        });
        let own_keys: &[&'static Source] = &[
            source!("linear_attention/tiled_own_keys"),
            source!("shared/tile_keys"),
            source!("shared/tile_products"),
            source!("shared/steps"),
            source!("shared/steps_together"),
            pick(vec4, source!("linear_attention/load_kv_vec4"), source!("linear_attention/load_kv_scalar")),
            pick(
                kind == Kind::Exponential,
                source!("linear_attention/tiled_weigh_exponential"),
                source!("linear_attention/tiled_weigh"),
            ),
        ];
        fragments.extend_from_slice(pick(causal, own_keys, &[source!("linear_attention/no_own_keys")]));
        Specialization { kernel: source!("linear_attention/tiled_output"), constants, fragments, storage: Vec::new() }
            .of(problem, others)
    }

    /// The most loop iterations of an invocation of either kernel, counting one more for the exit of each run of a loop.
    pub fn most_loop_iterations(
        &self,
        config: &LinearAttentionConfig,
        shapes: &LinearAttentionShapes,
        chunk_len: u32,
    ) -> u64 {
        let kind = Kind::of(config);
        let features = shapes.features(config.feature_map);
        let head_dim = if kind == Kind::Taylor2 { shapes.head_dim } else { features };
        let (head_chunks, v_chunks) = (head_dim.div_ceil(4), shapes.v_dim.div_ceil(4));
        let slab_chunks = self.slab / 4;
        let keys = OWN_KEYS * self.width;
        let groups = self.feature_groups.max(self.row_groups);
        let of = |rows: u32, loads: u32| (loads * 4 * groups).div_ceil(self.width * rows) + 1;
        let along_width = groups * (self.width + 1);
        // What a slab takes: bringing the right side, the product, term by term where it is guarded, and the sums of the left.
        let slab = |rows| 1 + of(rows, self.slab * v_chunks) + self.slab + 1 + self.slab.div_ceil(self.width) + 1;

        let begin = match kind {
            Kind::Plain => 0,
            Kind::Taylor2 => shapes.head_dim + 8,
            Kind::Exponential | Kind::Columns => chunk_len.div_ceil(slab_chunks) + slab_chunks + 2,
        };
        let chunk_state = begin + chunk_len.div_ceil(self.slab) * slab(self.features) + 1 + along_width;

        let mut step =
            1 + head_dim.div_ceil(self.slab) * (1 + of(self.rows, slab_chunks * self.width) + slab_chunks + 1);
        step += 2 + keys.div_ceil(self.slab) * slab(self.rows);
        let mut begin = 0;
        if kind == Kind::Exponential {
            let largest = head_chunks.div_ceil(self.width) + 2;
            begin = largest + along_width;
            // Which keys are weighed by themselves, the rows' maximum, and an invocation's such keys.
            step += head_chunks + 1 + keys * largest + 1 + along_width + OWN_KEYS * (head_chunks + 2);
        }
        let steps = if config.mode == LinearMode::Causal { chunk_len.div_ceil(keys) + 8 } else { 0 };
        let output = begin + features.div_ceil(self.slab) * slab(self.rows) + 1 + steps * step + along_width;
        u64::from(chunk_state.max(output))
    }
}

pub(super) fn elem(vec4: bool) -> (&'static str, Constant) {
    ("Elem", Constant::Type(if vec4 { "vec4<f32>" } else { "f32" }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FeatureMap;

    #[test]
    fn features_are_shared_evenly_by_as_few_tiles_as_there_have_to_be() {
        let features = |map, head_dim, v_dim| {
            let shapes = LinearAttentionShapes { v_dim, ..LinearAttentionShapes::new(1, 1, 1, head_dim) };
            Tiles::of(&LinearAttentionConfig::new().feature_map(map), &shapes).features
        };
        let elu = |head_dim, v_dim| features(FeatureMap::EluPlusOne, head_dim, v_dim);
        assert_eq!([elu(8, 8), elu(64, 64), elu(128, 128), elu(256, 64)], [32, 64, 128, 128]);
        assert_eq!([features(FeatureMap::Cosine, 64, 64), features(FeatureMap::Cosine, 128, 128)], [72, 72]);
        assert_eq!([elu(64, 256), elu(256, 256)], [64, 64]);
    }

    #[test]
    fn longer_chunks_for_more_features() {
        assert_eq!([1, 64, 128, 256, 1024, 2145].map(chunk_len), [64, 64, 128, 128, 256, 512]);
    }
}
