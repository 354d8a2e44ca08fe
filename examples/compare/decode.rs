//! `compare --decode`: what one query over many keys is shown by.

use anyhow::Result;
use wgpu_attention::DType;

use crate::figures::{Plotted, curves, plain};
use crate::harness::stored;
use crate::plot::{Across, Curve, Figure};
use crate::record::Record;
use crate::record::Setting;
use crate::report::clock;
use crate::table::{bytes, milliseconds, percent, significant};

/// What runs if nothing is asked for.
pub const DEFAULT: &[&str] = &["softmax", "linear_elu"];
pub const LENGTHS: [u32; 2] = [4096, 32_768];
/// Query heads that share keys and values, where heads are grouped.
pub const GROUP: u32 = 4;

/// Heading and width of each column.
pub const COLUMNS: [(&str, usize); 14] = [
    ("keys", 6),
    ("heads", 8),
    ("ms", 9),
    ("x softmax", 9),
    ("cache", 10),
    ("GB/s", 8),
    ("% copy", 6),
    ("% fma", 6),
    ("workspace", 10),
    ("rows", 6),
    ("max err", 8),
    ("rms err", 8),
    ("entropy", 8),
    ("samples", 7),
];

/// What some of the columns mean.
pub const CACHE: &str = "cache: k and v, or the state of linear attention, read and written; GB/s: of the cache";

/// What stands in the columns.
pub fn cells(record: &Record) -> [String; COLUMNS.len()] {
    [
        record.shape.len.to_string(),
        heads(record),
        milliseconds(record.median_ms),
        record.relative.map_or_else(|| "-".into(), |ratio| format!("{ratio:.2}")),
        record.cache_bytes.map_or_else(|| "-".into(), bytes),
        record.cache_gbps().map_or_else(|| "-".into(), significant),
        percent(record.of_copy),
        percent(record.of_fma),
        bytes(record.workspace_bytes),
        if record.checked.all_rows { "all".into() } else { record.checked.rows.to_string() },
        format!("{:.1e}", record.checked.relative.max),
        format!("{:.1e}", record.checked.relative.rms),
        record.checked.mean_entropy.map_or_else(|| "-".into(), |entropy| format!("{entropy:.3}")),
        record.samples.to_string(),
    ]
}

/// Of queries, and of keys and values.
fn heads(record: &Record) -> String {
    format!("{} on {}", record.shape.heads, record.shape.kv_heads)
}

/// What a call is given, in words.
pub fn tensors(batch: u32, head_dim: u32, dtype: DType) -> String {
    let dtype = stored::name(dtype);
    format!("batch {batch}, one query a head over all keys, head_dim {head_dim}, {dtype} (states f32)")
}

pub fn figures(records: &[Record]) -> Result<Vec<Plotted>> {
    if records.is_empty() {
        return Ok(Vec::new());
    }
    let plotted = |title: &str, axis: &str, caption: &str, value: fn(&Record) -> Option<f64>| {
        let mut curves: Vec<Curve> = curves(records, |record| format!("{}, {}", record.variant, heads(record)), value);
        curves.iter_mut().enumerate().for_each(|(look, curve)| curve.look = look);
        let (title, caption, guides, notes) = (title.to_string(), caption.to_string(), Vec::new(), Vec::new());
        let figure =
            Figure { title: axis.into(), across: Across::Keys, logarithmic: true, tick: plain, curves, guides, notes };
        anyhow::Ok(Plotted { title, caption, panels: vec![figure.svg()?] })
    };
    let time = "Median GPU time of one token, both axes logarithmic. The step of linear attention takes as long after any number of keys.";
    let read =
        "Bytes of k and v, each read once, over that time; of linear attention those of its state, read and written.";
    Ok(vec![
        plotted("Time of a token", "time (ms)", time, |record| Some(record.median_ms))?,
        plotted("Cache read", "GB/s of the cache", read, Record::cache_gbps)?,
    ])
}

pub fn method(setting: &Setting) -> String {
    let clock = clock(setting);
    format!(
        "Every result was compared with a reference in f64 on the CPU before it was timed: softmax attention of the query over all \
         keys; the step of linear attention, which reads a state that the op itself has made of all tokens but the last, with a \
         reference over all tokens. The largest error may be twice the worst of eight plain f32 computations with shuffled sums, plus \
         what WGSL grants its exp and division, the rounding to the type of the output, and with cooperative matrices what factors \
         in f16 cost. Times are medians of the samples, taken {clock}, after a warm-up and in turns over the variants; a sample of a \
         call shorter than a millisecond is the mean of several in one pass. Between two calls nothing else is read: a cache that \
         fits those of the device may stay there, and more than the bandwidth of a copy is then no mistake. Percent of a copy counts \
         every tensor of the call once. The ceilings were measured once, before all else."
    )
}
