//! What a tuning may take in place of the table's choice.

use std::fmt;

use super::AttentionConfig;
use super::plan::{self, ALTERNATIVES, Problem, TILES, matrix_kernels, slabs};
use crate::Result;
use crate::adapter::Adapter;
use crate::context::{Capabilities, Context};
use crate::dispatch::Plan;
use crate::row_kernel::{Kernel, KeyRange};
use crate::tuning::Class;

/// A kernel, and the keys of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Offer {
    pub kernel: Kernel,
    pub range: KeyRange,
}

impl fmt::Display for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.kernel, self.range)
    }
}

/// Lengths of ranges of keys.
const RANGES: [u32; 5] = [KeyRange::WHOLE, 4096, 1024, 512, 256];

/// Everything that is right for the problem on this device, whatever its number of rows.
pub(super) fn offers(config: &AttentionConfig, problem: &Problem, capabilities: &Capabilities) -> Vec<Offer> {
    let shapes = &problem.shapes;
    let ranges = || std::iter::once(None).chain(RANGES.map(Some)).map(KeyRange);
    let kernels = match matrix_kernels(config, shapes, capabilities) {
        Ok(found) if found.is_empty() => kernels(shapes.head_dim, shapes.v_dim, capabilities),
        // A device that refuses the config is offered nothing.
        found => found.unwrap_or_default(),
    };
    kernels.into_iter().flat_map(|kernel| ranges().map(move |range| Offer { kernel, range })).collect()
}

/// The kernels of the adapter's rows in the table, and their alternatives.
fn kernels(head_dim: u32, v_dim: u32, capabilities: &Capabilities) -> Vec<Kernel> {
    let adapter = Adapter::of(capabilities);
    let rows = TILES.iter().chain(ALTERNATIVES);
    let rows = rows.filter(|tile| tile.is_for(adapter) && tile.is_wide_enough(head_dim, v_dim));
    let granted = capabilities.limits.max_compute_workgroup_storage_size;
    let mut found = Vec::new();
    for kernel in rows.map(|tile| tile.kernel).filter(|kernel| kernel.runs_with(capabilities.subgroup_size)) {
        for slab in slabs(kernel, granted, v_dim) {
            if !found.contains(&slab) {
                found.push(slab);
            }
        }
    }
    found
}

/// What calls of one class have in common.
pub(super) fn class(config: &AttentionConfig, problem: &Problem) -> String {
    let shapes = &problem.shapes;
    let vec4 = [problem.q, problem.k, problem.v, problem.o].iter().all(crate::tensor::Layout::is_vec4);
    Class::of("attention")
        .exactly("head_dim", shapes.head_dim)
        .exactly("v_dim", shapes.v_dim)
        .lengths_and_heads([shapes.q_len, shapes.kv_len], [shapes.batch, shapes.q_heads, shapes.kv_heads])
        .masked(config.causal, config.window)
        .with("log_n", config.scale.terms(shapes.head_dim).log_n)
        .with("softcap", config.softcap.is_some())
        .with("kv_lens", shapes.kv_lens)
        .with("bias", shapes.bias)
        .with("mask", shapes.mask)
        .with("row_scale", shapes.row_scale)
        .with("lse", shapes.lse)
        .with("entropy", shapes.entropy)
        .with("in_f16", config.matrices == crate::Matrices::F16)
        .with("scalar", !vec4)
        .stored([("q", problem.q), ("k", problem.k), ("v", problem.v), ("o", problem.o)])
        .name()
}

/// A plan by what the context's tuning takes, or by the table.
pub(super) fn plan(context: &Context, config: &AttentionConfig, problem: &Problem) -> Result<Plan> {
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
    config: AttentionConfig,
    shapes: super::AttentionShapes,
    dtype: crate::DType,
) -> Result<crate::autotune::Subject> {
    use super::kernels::slot;
    use super::plan::select;
    use crate::autotune::{Content, Operand, Subject};
    use crate::tuning::distinct;

    super::Attention::new(context, config)?.plan(&shapes, dtype)?;
    let capabilities = context.capabilities();
    let problem = Problem::contiguous(shapes).stored(dtype, capabilities)?;
    let choose = |offer: Option<&Offer>| {
        let mut choice = select(&config, &problem, capabilities, offer)?;
        choice.reason.clear();
        Ok(choice)
    };
    let mut operands = vec![
        Operand::new(slot::Q, &problem.q, Content::Normal),
        Operand::new(slot::K, &problem.k, Content::Normal),
        Operand::new(slot::V, &problem.v, Content::Normal),
        Operand::new(slot::O, &problem.o, Content::Output),
    ];
    operands.extend(problem.kv_lens.map(|l| Operand::new(slot::KV_LENS, &l, Content::Length(shapes.kv_len))));
    operands.extend(problem.bias.map(|l| Operand::new(slot::BIAS, &l, Content::Normal)));
    operands.extend(problem.mask.map(|l| Operand::new(slot::MASK, &l, Content::Mask)));
    operands.extend(problem.row_scale.map(|l| Operand::new(slot::ROW_SCALE, &l, Content::Constant(0.125))));
    operands.extend(problem.lse.map(|l| Operand::new(slot::LSE, &l, Content::Output)));
    operands.extend(problem.entropy.map(|l| Operand::new(slot::ENTROPY, &l, Content::Output)));
    if shapes.is_empty() || shapes.kv_len == 0 {
        operands.clear();
    }
    Ok(Subject {
        class: class(&config, &problem),
        offers: distinct(offers(&config, &problem, capabilities), |a, b| a.kernel == b.kernel, choose)?,
        operands,
        in_f16: config.matrices == crate::Matrices::F16,
        plan: Box::new(move |context| plan(context, &config, &problem)),
    })
}
