//! The k largest numbers of rows, which ops share: how `shared/top_k.wgsl` is dispatched.

use crate::Result;
use crate::dispatch::{PlanBuilder, Value, View};
use crate::tensor::product;
use crate::wgsl::{Constant, Source, Specialization, source};

const WORKGROUP: u32 = 256;
/// Workgroups that keep a large GPU busy, and chunks of four columns that make a split worth its dispatches.
const BUSY: u32 = 512;
const LEAST_CHUNKS: u32 = 8 * WORKGROUP;
const MOST_SPLITS: u32 = 128;

/// How a workgroup and rows share each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Share {
    /// Several workgroups read a row, in a dispatch for each round.
    Split,
    /// A workgroup has a row.
    Whole,
    /// It has several, of few columns each.
    Short,
}

impl Share {
    pub const ALL: [Self; 3] = [Self::Split, Self::Whole, Self::Short];
    /// Columns of which each of a row's invocations has four fours.
    const SHORT: u32 = 512;

    /// Invocations that share a row, or a split of it.
    fn lanes(self) -> u32 {
        if self == Self::Short { 32 } else { WORKGROUP }
    }
}

/// The kernel over what an op's fragments make of its numbers.
pub(crate) fn kernel(share: Share, elem: Constant, mut fragments: Vec<&'static Source>) -> Specialization {
    let split = share == Share::Split;
    let tallies = if split { source!("shared/tallies") } else { source!("shared/no_tallies") };
    fragments.extend([tallies, source!("shared/order"), source!("shared/workgroup_index")]);
    let constants = vec![
        ("WORKGROUP", Constant::U32(WORKGROUP)),
        ("LANES", Constant::U32(share.lanes())),
        ("SPLIT", Constant::Bool(split)),
        ("Elem", elem),
    ];
    Specialization { kernel: source!("shared/top_k"), constants, fragments, storage: Vec::new() }
}

/// How often each number is read: once for each byte of its order, and of its column.
pub(crate) fn reads(columns: u32) -> u32 {
    4 + column_bytes(columns)
}

fn column_bytes(columns: u32) -> u32 {
    (32 - (columns - 1).max(1).leading_zeros()).div_ceil(8)
}

/// Finds the k largest of each row.
pub(crate) fn dispatch(
    plan: &mut PlanBuilder<'_>,
    kernel: impl Fn(Share) -> Specialization,
    [k, rows, columns]: [u32; 3],
    values: &[(&str, Value)],
    views: &[(&str, View)],
) -> Result<()> {
    let chunks = columns.div_ceil(4);
    let splits = BUSY.div_ceil(rows.max(1)).min(chunks / LEAST_CHUNKS).clamp(1, MOST_SPLITS);
    let split_chunks = chunks.div_ceil(splits);
    let splits = chunks.div_ceil(split_chunks);
    let rounds = reads(columns);
    let walk = u64::from(split_chunks.div_ceil(WORKGROUP)) + 257;
    let needed = if splits == 1 { u64::from(rounds) * walk + 1 } else { walk + u64::from(splits) };
    plan.expect_loops(format_args!("top_k of {columns} columns"), needed)?;
    let mut own = vec![
        ("rows", rows.into()),
        ("columns", columns.into()),
        ("top_k", k.into()),
        ("column_bytes", column_bytes(columns).into()),
        ("splits", splits.into()),
        ("split_chunks", split_chunks.into()),
    ];
    own.extend(values.iter().filter(|(name, _)| !["rows", "splits", "round"].contains(name)));
    if splits == 1 {
        own.push(("round", Value::from(0_u32)));
        let share = if columns <= Share::SHORT { Share::Short } else { Share::Whole };
        let height = WORKGROUP / share.lanes();
        let flops = product([rounds, columns, height]);
        return plan.dispatch(&kernel(share), rows.div_ceil(height).into(), flops, &own, views);
    }
    let mut regions = [View::NOWHERE; 2];
    for region in &mut regions {
        *region = plan.workspace("tallies of splits", product([4 * 260, rows, splits]))?;
    }
    for round in 0..=rounds {
        let values = [&own[..], &[("round", round.into())]].concat();
        let views = [views, &[("tallies", regions[0]), ("tallies_next", regions[1])]].concat();
        plan.dispatch(&kernel(Share::Split), product([rows, splits]), product([4, split_chunks]), &values, &views)?;
        regions.swap(0, 1);
    }
    Ok(())
}
