//! One measured cell.

use wgpu_attention::DType;

use super::variants::{MARGIN_DIM, Op, Variant};
use crate::harness::stored;
use crate::harness::timer::median;
use crate::harness::verify::Checked;
use crate::record::{Field, Setting, of_check};
use crate::table::{bytes, milliseconds, percent, significant};
use crate::turns::Ready;

/// What was measured of one variant at one row length.
#[derive(Clone, Debug)]
pub struct Record {
    pub variant: &'static Variant,
    /// Rows, and numbers in each.
    pub shape: [u32; 2],
    pub dtype: DType,
    pub samples: usize,
    pub median_ms: f64,
    pub min_ms: f64,
    pub gbps: f64,
    pub workspace_bytes: u64,
    /// What the plan reads and writes: tensors more than once where rows are read again.
    pub moved_bytes: u64,
    pub dispatches: usize,
    pub kernel: String,
    pub checked: Checked,
    /// Time of an element relative to that of softmax, forward or backward.
    pub relative: Option<f64>,
    /// Percent of the measured rate of multiply-adds, by the plan's operations.
    pub of_fma: Option<f64>,
    /// Percent of the measured bandwidth of a copy.
    pub of_copy: Option<f64>,
}

impl Record {
    pub fn new(variant: &'static Variant, shape: [u32; 2], dtype: DType, ready: &mut Ready, setting: &Setting) -> Self {
        let median = median(&mut ready.samples);
        let call = &ready.timed.call;
        let percent = setting.ceilings.as_ref().map(|ceilings| ceilings.percent(call.flops(), call.bytes, median));
        Self {
            variant,
            shape,
            dtype,
            samples: ready.samples.len(),
            median_ms: 1e3 * median.as_secs_f64(),
            min_ms: 1e3 * ready.samples[0].as_secs_f64(),
            gbps: call.bytes as f64 / median.as_secs_f64() * 1e-9,
            workspace_bytes: call.workspace_bytes(),
            moved_bytes: call.bytes,
            dispatches: call.dispatches(),
            kernel: call.kernel(),
            checked: ready.checked,
            relative: None,
            of_fma: percent.map(|[of_fma, _]| of_fma),
            of_copy: percent.map(|[_, of_copy]| of_copy),
        }
    }

    /// Nanoseconds for each number of each row, or each logit.
    pub fn ns_per_element(&self) -> f64 {
        let [rows, len] = self.shape.map(f64::from);
        1e6 * self.median_ms / rows / len
    }

    /// The fields of `results.json` and the columns of `results.csv`, in order.
    pub fn fields(&self, setting: &Setting) -> Vec<Field> {
        let [rows, len] = self.shape;
        let dim = (self.variant.op == Op::Margin).then_some(MARGIN_DIM);
        let mut fields: Vec<Field> = vec![
            ("variant", self.variant.name.into()),
            ("row_len", len.into()),
            ("rows", rows.into()),
            ("dim", dim.into()),
            ("dtype", stored::name(self.dtype).into()),
            ("tier", setting.tier.name().into()),
            ("kernel", self.kernel.as_str().into()),
            ("dispatches", self.dispatches.into()),
            ("samples", self.samples.into()),
            ("median_ms", self.median_ms.into()),
            ("min_ms", self.min_ms.into()),
            ("ns_per_element", self.ns_per_element().into()),
            ("relative_to_softmax", self.relative.into()),
            ("gbps", self.gbps.into()),
            ("percent_of_copy", self.of_copy.into()),
            ("percent_of_fma", self.of_fma.into()),
            ("workspace_bytes", self.workspace_bytes.into()),
            ("moved_bytes", self.moved_bytes.into()),
        ];
        fields.extend(of_check(&self.checked));
        fields.extend(setting.fields());
        fields
    }
}

/// Heading and width of each column.
pub const COLUMNS: [(&str, usize); 14] = [
    ("n", 7),
    ("rows", 6),
    ("ms", 9),
    ("ns/elem", 8),
    ("x softmax", 9),
    ("GB/s", 8),
    ("% copy", 6),
    ("% fma", 6),
    ("workspace", 10),
    ("moved", 10),
    ("checked", 7),
    ("max err", 8),
    ("rms err", 8),
    ("samples", 7),
];

/// What stands in the columns.
pub fn cells(record: &Record) -> [String; COLUMNS.len()] {
    let [rows, len] = record.shape;
    [
        len.to_string(),
        rows.to_string(),
        milliseconds(record.median_ms),
        significant(record.ns_per_element()),
        record.relative.map_or_else(|| "-".into(), |ratio| format!("{ratio:.2}")),
        significant(record.gbps),
        percent(record.of_copy),
        percent(record.of_fma),
        bytes(record.workspace_bytes),
        bytes(record.moved_bytes),
        if record.checked.all_rows { "all".into() } else { record.checked.rows.to_string() },
        format!("{:.1e}", record.checked.relative.max),
        format!("{:.1e}", record.checked.relative.rms),
        record.samples.to_string(),
    ]
}
