//! The k largest numbers of rows, which ops share: how `shared/top_k.wgsl` is dispatched.

use crate::dispatch::{PlanBuilder, Value, View};
use crate::tensor::product;
use crate::wgsl::Specialization;
use crate::{Error, Result};

pub(crate) const WORKGROUP: u32 = 256;

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
    kernel: &Specialization,
    [k, rows, columns]: [u32; 3],
    values: &[(&str, Value)],
    views: &[(&str, View)],
) -> Result<()> {
    let walk = u64::from(columns.div_ceil(4).div_ceil(WORKGROUP)) + 257;
    let needed = u64::from(reads(columns)) * walk + 1;
    if let Some(cap) = plan.device().loop_cap.filter(|&cap| needed > cap.into()) {
        let reason = format!("top_k of {columns} columns: {needed} loop iterations, this driver ends them after {cap}");
        return Err(Error::Unsupported { reasons: vec![reason] });
    }
    let own = [("columns", columns), ("top_k", k), ("column_bytes", column_bytes(columns))];
    let values = [values, &own.map(|(name, value)| (name, value.into()))].concat();
    plan.dispatch(kernel, rows.into(), product([reads(columns), columns]), &values, views)
}
