//! Sums of what rows have left in the workspace, which ops share: how `shared/sums.wgsl` is dispatched.

use crate::Result;
use crate::dispatch::{PlanBuilder, Value, View};
use crate::dtype::{DType, Storage};
use crate::wgsl::{Constant, Specialization, source};

/// The most terms that one workgroup sums.
const TERMS: u32 = 4096;

/// The kernel of sums that are stored so.
pub(crate) fn kernel(storage: Storage) -> Specialization {
    let constants = vec![("WORKGROUP", Constant::U32(256))];
    let fragments = vec![source!("shared/workgroup_index")];
    let kernel = Specialization { kernel: source!("shared/sums"), constants, fragments, storage: Vec::new() };
    kernel.stored([("sums", storage)])
}

/// Sums `length` f32 in the workspace times a factor, each `count` of them into one number of an operand, of no rows one that is 0. So
/// many that they are many are one sum.
pub(crate) fn dispatch(
    plan: &mut PlanBuilder<'_>,
    mut terms: View,
    (sums, storage): (View, Storage),
    [mut length, mut count]: [u32; 2],
    mut factor: f32,
) -> Result<()> {
    while count > TERMS {
        let groups = length.div_ceil(TERMS);
        let partial = plan.workspace("sums of sums", 4 * u64::from(groups))?;
        let values =
            [("count", TERMS), ("length", length), ("sums_stride", 1)].map(|(name, value)| (name, value.into()));
        let values = [&values[..], &[("factor", Value::from(factor))]].concat();
        let views = [("terms", terms), ("sums", partial)];
        plan.dispatch(&kernel(Storage::Plain(DType::F32)), groups.into(), TERMS.into(), &values, &views)?;
        (terms, length, count, factor) = (partial, groups, groups, 1.0);
    }
    let groups = length.div_ceil(count.max(1)).max(1);
    let values = [("count", count.into()), ("length", length.into()), ("factor", Value::from(factor))];
    plan.dispatch(&kernel(storage), groups.into(), count.into(), &values, &[("terms", terms), ("sums", sums)])
}
