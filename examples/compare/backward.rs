//! `compare --backward`: the gradients of each variant, beside its forward pass.

use anyhow::Result;

use crate::figures::{self, Plotted};
use crate::record::{Record, Setting};
use crate::report::clock;
use crate::table::{bytes, milliseconds, percent, significant};

/// First and last default length, and seconds for all.
pub const ON_CPU: [u32; 2] = [64, 4096];
pub const ON_GPU: [u32; 2] = [128, 32_768];
pub const BUDGET: f64 = 120.0;

/// Heading and width of each column.
pub const COLUMNS: [(&str, usize); 14] = [
    ("n", 6),
    ("forward", 9),
    ("backward", 9),
    ("x forward", 9),
    ("x softmax", 9),
    ("TFLOP/s", 8),
    ("% fma", 6),
    ("GB/s", 8),
    ("% copy", 6),
    ("workspace", 10),
    ("rows", 6),
    ("max err", 8),
    ("rms err", 8),
    ("samples", 7),
];

/// What the columns mean.
pub const MEANING: &str = "columns  forward, backward: median, ms; x softmax: backward over that of softmax; TFLOP/s, % fma, GB/s, % copy, workspace: of \
                           backward; rows: whose loss was compared with the f64 twin; err: of the worst gradient, relative to its largest number";

/// What stands in the columns.
pub fn cells(record: &Record) -> [String; COLUMNS.len()] {
    [
        record.shape.len.to_string(),
        record.forward_ms.map_or_else(|| "-".into(), milliseconds),
        milliseconds(record.median_ms),
        record.over_forward().map_or_else(|| "-".into(), |ratio| format!("{ratio:.2}")),
        record.relative.map_or_else(|| "-".into(), |ratio| format!("{ratio:.2}")),
        significant(record.tflops),
        percent(record.of_fma),
        significant(record.gbps),
        percent(record.of_copy),
        bytes(record.workspace_bytes),
        if record.checked.all_rows { "all".into() } else { record.checked.rows.to_string() },
        format!("{:.1e}", record.checked.relative.max),
        format!("{:.1e}", record.checked.relative.rms),
        record.samples.to_string(),
    ]
}

/// By how much longer backward takes, and the figures of any comparison over lengths.
pub fn figures(records: &[Record]) -> Result<Vec<Plotted>> {
    let mut figures = figures::all(records)?;
    if !figures.is_empty() {
        figures.insert(1, figures::over_forward(records)?);
    }
    Ok(figures)
}

pub fn method(setting: &Setting) -> String {
    let clock = clock(setting);
    format!(
        "Every gradient was compared with a reference in f64 on the CPU before it was timed: of a loss of all rows where that is cheap, \
         else of a loss of some rows, spread over batch, heads and positions (column rows), whose gradient of o is 0 elsewhere. All numbers of \
         all gradients are compared: q, k and v, of a gated attention unit v, the gate, z and every γ and β. Errors are of the worst \
         gradient, relative to its largest number; results.json has the absolute ones beside them. The largest error may be three times \
         the worst of four plain f32 computations with shuffled sums, plus what WGSL grants its exp and division, the rounding to the \
         type of the output, and with cooperative matrices what factors in f16 cost. What is timed is a loss of all rows; of that, the sum of v·dv over the keys of each head has to be that of o·dout over \
         its rows. Forward leaves what backward reads: o, and of softmax attention the log-sum-exp. Times are medians of the samples, taken {clock}, after a \
         warm-up and in turns over the variants and both passes; a sample of a call shorter than a millisecond is the mean of several in one \
         pass. TFLOP/s counts two for each multiply-add of the products that backward needs, those that it makes again included; GB/s takes \
         every tensor of backward as moved once. The ceilings were measured once, before all else. All variants run on the same q, k and v, \
         rounded to multiples of 1/256; the GAU takes q as its shared z and k as its gate."
    )
}
