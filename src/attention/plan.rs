//! Which kernels run for a problem, and with what numbers.

use super::shapes::AttentionShapes;
use super::{AttentionConfig, Causal, Scale};
use crate::context::{Capabilities, Context};
use crate::dispatch::{Plan, PlanBuilder, Slot};
use crate::params::{ParamsLayout, params};
use crate::tensor::Layout;
use crate::wgsl::{Constant, Source, Specialization, source};
use crate::{Error, Result};

/// Operand slots, which are also the `@binding` numbers of the kernels.
pub(super) mod slot {
    pub const Q: usize = 1;
    pub const K: usize = 2;
    pub const V: usize = 3;
    pub const O: usize = 4;
    pub const LSE: usize = 5;
    pub const ENTROPY: usize = 6;
    pub const BIAS: usize = 7;
    pub const MASK: usize = 8;
    pub const KV_LENS: usize = 9;
    pub const ROW_SCALE: usize = 10;
    pub const PARTIALS: u32 = 11;
    pub const COUNT: usize = 11;
}

/// Everything that a plan depends on besides the config: sizes, and where the tensors lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Problem {
    pub shapes: AttentionShapes,
    pub q: Layout<4>,
    pub k: Layout<4>,
    pub v: Layout<4>,
    pub o: Layout<4>,
    pub kv_lens: Option<Layout<1>>,
    pub bias: Option<Layout<4>>,
    pub mask: Option<Layout<4>>,
    pub row_scale: Option<Layout<3>>,
    pub lse: Option<Layout<3>>,
    pub entropy: Option<Layout<3>>,
}

impl Problem {
    /// Contiguous tensors, each at the start of its buffer.
    pub fn contiguous(shapes: AttentionShapes) -> Self {
        let AttentionShapes { batch, q_heads, kv_heads, q_len, kv_len, head_dim, v_dim, .. } = shapes;
        let scores = |on: bool| on.then(|| Layout::contiguous([batch, q_heads, q_len, kv_len]));
        let rows = |on: bool| on.then(|| Layout::contiguous([batch, q_heads, q_len]));
        Self {
            shapes,
            q: Layout::contiguous([batch, q_heads, q_len, head_dim]),
            k: Layout::contiguous([batch, kv_heads, kv_len, head_dim]),
            v: Layout::contiguous([batch, kv_heads, kv_len, v_dim]),
            o: Layout::contiguous([batch, q_heads, q_len, v_dim]),
            kv_lens: shapes.kv_lens.then(|| Layout::contiguous([batch])),
            bias: scores(shapes.bias),
            mask: scores(shapes.mask),
            row_scale: rows(shapes.row_scale),
            lse: rows(shapes.lse),
            entropy: rows(shapes.entropy),
        }
    }
}

params! {
    /// Uniform of `attention/prefill.wgsl`; units are there.
    struct PrefillParams {
        first_workgroup: u32,
        end_workgroup: u32,
        q_heads: u32,
        group: u32,
        q_len: u32,
        kv_len: u32,
        query_tiles: u32,
        splits: u32,
        split_keys: u32,
        offset: i32,
        align_end: u32,
        left: i32,
        right: i32,
        scale: f32,
        scale_floor: u32,
        scale_least: f32,
        softcap: f32,
        q_start: u32,
        q_batch: u32,
        q_head: u32,
        q_row: u32,
        k_start: u32,
        k_batch: u32,
        k_head: u32,
        k_row: u32,
        v_start: u32,
        v_batch: u32,
        v_head: u32,
        v_row: u32,
        o_start: u32,
        o_batch: u32,
        o_head: u32,
        o_row: u32,
        lse_start: u32,
        lse_batch: u32,
        lse_head: u32,
        lse_row: u32,
        entropy_start: u32,
        entropy_batch: u32,
        entropy_head: u32,
        entropy_row: u32,
        bias_start: u32,
        bias_batch: u32,
        bias_head: u32,
        bias_row: u32,
        mask_start: u32,
        mask_batch: u32,
        mask_head: u32,
        mask_row: u32,
        row_scale_start: u32,
        row_scale_batch: u32,
        row_scale_head: u32,
        row_scale_row: u32,
        kv_lens_start: u32,
        kv_lens_stride: u32,
    }
}

params! {
    /// Uniform of `attention/combine.wgsl`; units are there.
    struct CombineParams {
        first_workgroup: u32,
        end_workgroup: u32,
        rows: u32,
        q_heads: u32,
        q_len: u32,
        splits: u32,
        o_start: u32,
        o_batch: u32,
        o_head: u32,
        o_row: u32,
        lse_start: u32,
        lse_batch: u32,
        lse_head: u32,
        lse_row: u32,
        entropy_start: u32,
        entropy_batch: u32,
        entropy_head: u32,
        entropy_row: u32,
    }
}

/// A row of the table of tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tile {
    adapter: Adapter,
    /// The most queries it is for.
    queries: u32,
    /// Invocations per workgroup of the prefill kernel, each owning four queries.
    workgroup: u32,
}

/// Where a prefill invocation keeps its part of q and o while it walks the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Block {
    /// In arrays of its own.
    Private,
    /// In storage: for drivers that compile large arrays slowly.
    Storage,
}

/// The first row that applies is taken.
///
/// | adapter | queries | invocations | why |
/// |---|---|---|---|
/// | CPU | any | 8 | one vector of eight lanes; small tiles skip more of a causal mask |
/// | GPU | up to 32 | 8 | fewer idle lanes |
/// | GPU | more | 32 | one subgroup of most GPUs; 128 queries share every key read |
const TILES: &[Tile] = &[
    Tile { adapter: Adapter::Cpu, queries: u32::MAX, workgroup: 8 },
    Tile { adapter: Adapter::Gpu, queries: 32, workgroup: 8 },
    Tile { adapter: Adapter::Gpu, queries: u32::MAX, workgroup: 32 },
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Adapter {
    Cpu,
    Gpu,
}

const COMBINE_WORKGROUP: u32 = 64;
/// Keys that the prefill kernel takes in one step.
const KEYS_PER_STEP: u32 = 8;

/// What was chosen for a problem, before anything is compiled.
#[derive(Clone, Debug, PartialEq)]
struct Choice {
    prefill: Specialization,
    combine: Option<Specialization>,
    workgroup: u32,
    splits: u32,
    split_keys: u32,
    reason: String,
}

/// Picks kernels and tiles: a pure function of config, problem and device.
fn select(config: &AttentionConfig, problem: &Problem, capabilities: &Capabilities) -> Result<Choice> {
    let shapes = &problem.shapes;
    let adapter = if capabilities.is_cpu { Adapter::Cpu } else { Adapter::Gpu };
    let tile = TILES.iter().find(|tile| tile.adapter == adapter && shapes.q_len <= tile.queries);
    let tile = *tile.unwrap_or(&TILES[TILES.len() - 1]);
    let workgroup = tile.workgroup;

    let block = if capabilities.slow_arrays { Block::Storage } else { Block::Private };

    // The fewest splits that the driver, the work bound and the caller's own bound allow.
    let mut bound = capabilities.options.max_keys_per_split.unwrap_or(u32::MAX).max(KEYS_PER_STEP);
    let mut reasons = vec![format!("{workgroup} invocations, four queries each, on a {adapter:?}")];
    if let Some(cap) = capabilities.loop_cap {
        let keys = keys_under_loop_cap(config, shapes, cap)?;
        if keys < shapes.kv_len {
            reasons.push(format!("at most {keys} keys a workgroup, under the driver's cap of {cap} loop iterations"));
        }
        bound = bound.min(keys);
    }
    let flops_per_key = u64::from(4 * workgroup) * 2 * u64::from(shapes.head_dim + shapes.v_dim);
    let by_work = capabilities.options.max_flops_per_dispatch / flops_per_key;
    bound = bound.min(u32::try_from(by_work).unwrap_or(u32::MAX).max(KEYS_PER_STEP));
    let split_keys = (bound - bound % KEYS_PER_STEP).min(shapes.kv_len.next_multiple_of(KEYS_PER_STEP));
    let splits = shapes.kv_len.div_ceil(split_keys);

    let mut inputs = 3 + u32::from(shapes.kv_lens) + u32::from(shapes.bias) + u32::from(shapes.mask);
    inputs += u32::from(shapes.row_scale);
    let outputs = 1 + u32::from(shapes.lse) + u32::from(shapes.entropy);
    let bindings = capabilities.limits.max_storage_buffers_per_shader_stage;
    let crowded = inputs + outputs > bindings;
    if inputs + 1 > bindings {
        return Err(Error::Unsupported {
            reasons: vec![format!(
                "{inputs} inputs and the workspace need more than the device's {bindings} storage buffers"
            )],
        });
    }
    if crowded && splits == 1 {
        reasons.push(format!("inputs and outputs in two kernels, under the device's {bindings} storage buffers"));
    }
    let partial = splits > 1 || crowded;
    if splits > 1 {
        reasons.push(format!("{splits} ranges of {split_keys} keys, then combined"));
    }
    Ok(Choice {
        prefill: prefill(config, problem, tile, block, partial),
        combine: partial.then(|| combine(problem)),
        workgroup,
        splits,
        split_keys,
        reason: reasons.join("; "),
    })
}

/// Keys that one workgroup can walk without meeting the driver's cap on loop iterations.
fn keys_under_loop_cap(config: &AttentionConfig, shapes: &AttentionShapes, cap: u32) -> Result<u32> {
    let chunks = shapes.head_dim.div_ceil(4) + shapes.v_dim.div_ceil(4);
    // Each run of a loop counts one more, for its exit; loading, clearing and writing the rows stand outside the steps.
    let outside = 2 * chunks + 64;
    let per_step = 1 + chunks + 2;
    // Counting the keys that a mask leaves takes one iteration each, in every range.
    let counting = if config.scale.terms(shapes.head_dim).log_n && shapes.mask { shapes.kv_len + 1 } else { 0 };
    let steps = cap.saturating_sub(outside).saturating_sub(counting) / per_step;
    if steps == 0 {
        let reason = format!(
            "counting the visible keys of a mask of {} columns passes this driver's cap of {cap} loop iterations",
            shapes.kv_len
        );
        return Err(Error::Unsupported { reasons: vec![reason] });
    }
    Ok(steps.saturating_mul(KEYS_PER_STEP))
}

fn prefill(config: &AttentionConfig, problem: &Problem, tile: Tile, block: Block, partial: bool) -> Specialization {
    let shapes = &problem.shapes;
    let vec4 = [problem.q, problem.k, problem.v].iter().all(Layout::is_vec4);
    let pick = |on: bool, yes, no| if on { yes } else { no };
    let mut fragments = vec![
        pick(block == Block::Private, source!("attention/block_private"), source!("attention/block_storage")),
        pick(vec4, source!("attention/load_vec4"), source!("attention/load_scalar")),
        pick(shapes.kv_lens, source!("shared/kv_lens"), source!("shared/no_kv_lens")),
        pick(shapes.bias, source!("attention/bias"), source!("attention/no_bias")),
        pick(shapes.mask, source!("attention/mask"), source!("attention/no_mask")),
        pick(shapes.row_scale, source!("attention/row_scale"), source!("attention/no_row_scale")),
        source!("shared/workgroup_index"),
    ];
    if partial {
        fragments.push(source!("attention/write_partial"));
    } else {
        fragments.push(source!("attention/write_result"));
        fragments.extend(output_fragments(problem));
    }
    Specialization {
        kernel: source!("attention/prefill"),
        constants: vec![
            ("WORKGROUP", Constant::U32(tile.workgroup)),
            ("HEAD_DIM", Constant::U32(shapes.head_dim)),
            ("V_DIM", Constant::U32(shapes.v_dim)),
            ("LOG_N", Constant::Bool(config.scale.terms(shapes.head_dim).log_n)),
            ("SOFTCAP", Constant::Bool(config.softcap.is_some())),
            ("ENTROPY", Constant::Bool(shapes.entropy)),
            ("ROW_MASK", Constant::Bool(shapes.bias || shapes.mask)),
            ("Elem", Constant::Type(if vec4 { "vec4<f32>" } else { "f32" })),
        ],
        fragments,
    }
}

fn combine(problem: &Problem) -> Specialization {
    let mut fragments = output_fragments(problem);
    fragments.push(source!("shared/workgroup_index"));
    Specialization {
        kernel: source!("attention/combine"),
        constants: vec![
            ("WORKGROUP", Constant::U32(COMBINE_WORKGROUP)),
            ("V_DIM", Constant::U32(problem.shapes.v_dim)),
            ("ENTROPY", Constant::Bool(problem.shapes.entropy)),
        ],
        fragments,
    }
}

/// The files by which a kernel writes o, lse and entropy.
fn output_fragments(problem: &Problem) -> Vec<&'static Source> {
    let pick = |on: bool, yes, no| if on { yes } else { no };
    vec![
        pick(problem.o.is_vec4(), source!("shared/store_vec4"), source!("shared/store_scalar")),
        pick(problem.shapes.lse, source!("attention/lse"), source!("attention/no_lse")),
        pick(problem.shapes.entropy, source!("attention/entropy"), source!("attention/no_entropy")),
        source!("attention/statistics"),
    ]
}

/// Compiles what [`select`] picked and lays out the dispatches.
pub(super) fn build(context: &Context, config: &AttentionConfig, problem: &Problem) -> Result<Plan> {
    let shapes = problem.shapes;
    let choice = select(config, problem, context.capabilities())?;
    let mut plan = PlanBuilder::new(context);
    let flops = 2 * shapes.visible_pairs(config) * u64::from(shapes.head_dim + shapes.v_dim);
    if shapes.is_empty() {
        return Ok(plan.finish(0, 0, "nothing to do".into()));
    }

    let overflow = |what: &str, needed: u64| Error::LimitExceeded { what: what.into(), needed, limit: u32::MAX.into() };
    let rows = u64::from(shapes.batch) * u64::from(shapes.q_heads) * u64::from(shapes.q_len);
    let rows = u32::try_from(rows).map_err(|_| overflow("o: rows", rows))?;
    let v_chunks = shapes.v_dim.div_ceil(4);
    let query_tiles = shapes.q_len.div_ceil(4 * choice.workgroup);
    let workgroups =
        u64::from(shapes.batch) * u64::from(shapes.q_heads) * u64::from(query_tiles) * u64::from(choice.splits);
    let per_workgroup = flops / workgroups.max(1);

    let mut inputs = vec![slot::Q, slot::K, slot::V];
    inputs.extend(shapes.kv_lens.then_some(slot::KV_LENS));
    inputs.extend(shapes.bias.then_some(slot::BIAS));
    inputs.extend(shapes.mask.then_some(slot::MASK));
    inputs.extend(shapes.row_scale.then_some(slot::ROW_SCALE));
    let mut outputs = vec![slot::O];
    outputs.extend(shapes.lse.then_some(slot::LSE));
    outputs.extend(shapes.entropy.then_some(slot::ENTROPY));
    let operand = |&slot: &usize| (slot as u32, Slot::Operand(slot));

    let prefill_params = |first_workgroup, end_workgroup| {
        prefill_params(config, problem, &choice, query_tiles, [first_workgroup, end_workgroup])
    };
    let Some(combine) = &choice.combine else {
        let bindings: Vec<_> = inputs.iter().chain(&outputs).map(operand).collect();
        plan.dispatch(&choice.prefill, &bindings, workgroups, per_workgroup, prefill_params)?;
        return Ok(plan.finish(flops, least_bytes(problem), choice.reason));
    };

    let partials = u64::from(rows) * u64::from(choice.splits) * u64::from(1 + v_chunks);
    if partials > u64::from(u32::MAX) {
        return Err(overflow("partial results", partials));
    }
    let partials = (slot::PARTIALS, plan.workspace("partial results", partials * 16)?);
    let bindings: Vec<_> = inputs.iter().map(operand).chain([partials]).collect();
    plan.dispatch(&choice.prefill, &bindings, workgroups, per_workgroup, prefill_params)?;
    let bindings: Vec<_> = outputs.iter().map(operand).chain([partials]).collect();
    let combine_workgroups = (u64::from(rows) * u64::from(v_chunks)).div_ceil(COMBINE_WORKGROUP.into());
    let per_workgroup = u64::from(COMBINE_WORKGROUP * choice.splits) * 16;
    plan.dispatch(combine, &bindings, combine_workgroups, per_workgroup, |first_workgroup, end_workgroup| {
        let row =
            |layout: Option<Layout<3>>| layout.map_or([0; 4], |l| [l.start, l.strides[0], l.strides[1], l.strides[2]]);
        let [o_batch, o_head, o_row, _] = problem.o.strides;
        let [lse_start, lse_batch, lse_head, lse_row] = row(problem.lse);
        let [entropy_start, entropy_batch, entropy_head, entropy_row] = row(problem.entropy);
        CombineParams {
            first_workgroup,
            end_workgroup,
            rows,
            q_heads: shapes.q_heads,
            q_len: shapes.q_len,
            splits: choice.splits,
            o_start: problem.o.start,
            o_batch,
            o_head,
            o_row,
            lse_start,
            lse_batch,
            lse_head,
            lse_row,
            entropy_start,
            entropy_batch,
            entropy_head,
            entropy_row,
        }
    })?;
    Ok(plan.finish(flops, least_bytes(problem), choice.reason))
}

fn prefill_params(
    config: &AttentionConfig,
    problem: &Problem,
    choice: &Choice,
    query_tiles: u32,
    [first_workgroup, end_workgroup]: [u32; 2],
) -> PrefillParams {
    let shapes = &problem.shapes;
    let rank4 = |l: Layout<4>| [l.start, l.strides[0], l.strides[1], l.strides[2]];
    let scores = |l: Option<Layout<4>>| l.map_or([0; 4], rank4);
    let rows = |l: Option<Layout<3>>| l.map_or([0; 4], |l| [l.start, l.strides[0], l.strides[1], l.strides[2]]);
    let [q_start, q_batch, q_head, q_row] = rank4(problem.q);
    let [k_start, k_batch, k_head, k_row] = rank4(problem.k);
    let [v_start, v_batch, v_head, v_row] = rank4(problem.v);
    let [o_start, o_batch, o_head, o_row] = rank4(problem.o);
    let [lse_start, lse_batch, lse_head, lse_row] = rows(problem.lse);
    let [entropy_start, entropy_batch, entropy_head, entropy_row] = rows(problem.entropy);
    let [bias_start, bias_batch, bias_head, bias_row] = scores(problem.bias);
    let [mask_start, mask_batch, mask_head, mask_row] = scores(problem.mask);
    let [row_scale_start, row_scale_batch, row_scale_head, row_scale_row] = rows(problem.row_scale);
    let [kv_lens_start, kv_lens_stride] = problem.kv_lens.map_or([0; 2], |l| [l.start, l.strides[0]]);
    let scale = config.scale.terms(shapes.head_dim);
    let visibility = config.visibility();
    PrefillParams {
        first_workgroup,
        end_workgroup,
        q_heads: shapes.q_heads,
        group: shapes.q_heads / shapes.kv_heads,
        q_len: shapes.q_len,
        kv_len: shapes.kv_len,
        query_tiles,
        splits: choice.splits,
        split_keys: choice.split_keys,
        offset: if let Causal::Offset(offset) = config.causal { offset } else { 0 },
        align_end: (config.causal == Causal::BottomRight).into(),
        left: visibility.left(),
        right: visibility.right(),
        scale: scale.factor as f32,
        scale_floor: scale.floor,
        scale_least: scale.least as f32,
        softcap: config.softcap.unwrap_or(1.0),
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
        lse_start,
        lse_batch,
        lse_head,
        lse_row,
        entropy_start,
        entropy_batch,
        entropy_head,
        entropy_row,
        bias_start,
        bias_batch,
        bias_head,
        bias_row,
        mask_start,
        mask_batch,
        mask_head,
        mask_row,
        row_scale_start,
        row_scale_batch,
        row_scale_head,
        row_scale_row,
        kv_lens_start,
        kv_lens_stride,
    }
}

/// Every operand once, in bytes; a repeated axis counts once.
fn least_bytes(problem: &Problem) -> u64 {
    fn elements<const RANK: usize>(layout: Layout<RANK>) -> u64 {
        (0..RANK).filter(|&axis| layout.strides[axis] > 0).map(|axis| u64::from(layout.shape[axis])).product()
    }
    let words = [problem.q, problem.k, problem.v, problem.o].map(elements).iter().sum::<u64>()
        + problem.bias.map_or(0, elements)
        + [problem.row_scale, problem.lse, problem.entropy].map(|l| l.map_or(0, elements)).iter().sum::<u64>()
        + problem.kv_lens.map_or(0, elements);
    4 * words + problem.mask.map_or(0, elements)
}

/// Every specialization that a plan can pick, up to the head dims (which are sampled), with its uniform's layout.
#[doc(hidden)]
#[must_use]
pub fn specializations() -> Vec<(Specialization, ParamsLayout)> {
    let mut found = Vec::new();
    let bits = |number: u32, bit: u32| number >> bit & 1 == 1;
    for (head_dim, v_dim) in [(1, 1), (3, 5), (64, 64), (128, 256), (72, 80)] {
        for flags in 0..1u32 << 9 {
            // The nine flags on, off, and each pair of neighbours: all of them only at one head dim.
            if head_dim != 64 && ![0, (1 << 9) - 1].contains(&flags) {
                continue;
            }
            let mut shapes = AttentionShapes::new(1, 1, 1, head_dim);
            shapes.v_dim = v_dim;
            shapes.kv_lens = bits(flags, 0);
            shapes.bias = bits(flags, 1);
            shapes.mask = bits(flags, 2);
            shapes.lse = bits(flags, 3);
            shapes.entropy = bits(flags, 4);
            let scale = match (bits(flags, 5), bits(flags, 6)) {
                (true, _) => Scale::LOG_N,
                (false, true) => Scale::PerRow,
                (false, false) => Scale::InvSqrtDim,
            };
            shapes.row_scale = scale == Scale::PerRow;
            let mut config = AttentionConfig::new().scale(scale);
            config.softcap = bits(flags, 7).then_some(30.0);
            let problem = Problem::contiguous(shapes);
            for &tile in TILES {
                let partial = bits(flags, 8);
                for block in [Block::Private, Block::Storage] {
                    found.push((prefill(&config, &problem, tile, block, partial), PrefillParams::LAYOUT));
                }
                found.push((combine(&problem), CombineParams::LAYOUT));
            }
        }
    }
    let mut seen = std::collections::HashSet::new();
    found.retain(|(specialization, _)| seen.insert(specialization.clone()));
    found
}
