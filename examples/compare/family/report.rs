//! Figures, and the page that has them.

use std::path::Path;

use anyhow::{Result, bail};
use wgpu_attention::DType;

use super::record::{COLUMNS, Record, cells};
use super::variants::{MARGIN_DIM, MARGIN_ROWS};
use crate::figures::{Plotted, plain, relate};
use crate::harness::stored;
use crate::plot::{Across, Curve, Figure};
use crate::record::Setting;
use crate::report::{Page, clock, where_and_how};

const WAYS: [(bool, &str); 2] = [(false, "forward"), (true, "backward")];

/// What rows are made of, in words.
pub fn tensors(elements: u32, dtype: DType) -> String {
    format!(
        "rows of n numbers from N(0, 1), {elements} in all or one row, {}; margin: {MARGIN_ROWS} rows by n classes, {MARGIN_DIM} dims",
        stored::name(dtype)
    )
}

/// Writes report.html, results.json and results.csv.
pub fn write(
    folder: &Path,
    records: &[Record],
    setting: &Setting,
    notes: &[String],
    failures: &[String],
) -> Result<()> {
    let mut facts = where_and_how(setting);
    if let Some(record) = records.first() {
        let [rows, len] = record.shape;
        facts.push(("tensors", tensors(rows * len, record.dtype)));
    }
    let mut len = None;
    let mut row = |record: &Record| {
        let is_first = len.replace(record.shape[1]) != Some(record.shape[1]);
        (is_first, record.variant.name.to_string(), cells(record).into())
    };
    let page = Page {
        title: "The softmax family over row length",
        setting: facts,
        failures,
        sentences: &[],
        figures: figures(records)?,
        columns: &COLUMNS,
        rows: records.iter().map(&mut row).collect(),
        notes,
        method: method(setting),
        records: records.iter().map(|record| record.fields(setting)).collect(),
    };
    page.write(folder)
}

fn figures(records: &[Record]) -> Result<Vec<Plotted>> {
    if records.is_empty() {
        return Ok(Vec::new());
    }
    let time = panels(records, "ns per element", |record| Some(record.ns_per_element()))?;
    let copy = panels(records, "percent of a copy", |record| record.of_copy)?;
    let caption = "Median GPU time of one call over its elements, forward above and backward below, both axes logarithmic. An element \
                   of margin softmax is a logit, which it makes by a product of 64 multiply-adds.";
    let copied = "Bytes that a call reads and writes, again where it reads a row again, over its time, in percent of the bandwidth of a copy. \
                  Margin softmax is bound by its products.";
    let plotted = |title: &str, caption: &str, panels| Plotted { title: title.into(), caption: caption.into(), panels };
    let mut figures = vec![plotted("Time of an element", caption, time)];
    if !copy.is_empty() {
        figures.push(plotted("Share of the copy", copied, copy));
    }
    Ok(figures)
}

/// A panel for each way that has curves.
fn panels(records: &[Record], title: &str, value: fn(&Record) -> Option<f64>) -> Result<Vec<String>> {
    let mut panels = Vec::new();
    for (is_backward, way) in WAYS {
        let curves = curves(records, |record| record.variant.is_backward == is_backward, value);
        if !curves.is_empty() {
            panels.push(figure(format!("{title}, {way}"), curves, Vec::new()).svg()?);
        }
    }
    Ok(panels)
}

fn figure(title: String, curves: Vec<Curve>, notes: Vec<String>) -> Figure {
    let (across, guides) = (Across::RowLength, Vec::new());
    Figure { title, across, logarithmic: true, tick: plain, curves, guides, notes }
}

/// One curve a variant, in the order of first appearance.
fn curves(records: &[Record], has: impl Fn(&Record) -> bool, value: fn(&Record) -> Option<f64>) -> Vec<Curve> {
    let mut curves: Vec<Curve> = Vec::new();
    for record in records.iter().filter(|record| has(record)) {
        let Some(value) = value(record).filter(|value| value.is_finite()) else { continue };
        let point = (f64::from(record.shape[1]), value);
        let name = record.variant.name;
        match curves.iter_mut().find(|curve| curve.names[0] == name) {
            Some(curve) => curve.points.push(point),
            None => curves.push(Curve { names: vec![name.to_string()], look: curves.len(), points: vec![point] }),
        }
    }
    curves
}

/// The figure of time by itself, as a file; below it what it was measured on. With a name, relative to that variant's time.
pub fn time(records: &[Record], setting: &Setting, relative_to: Option<&str>) -> Result<String> {
    let Some(first) = records.first() else { bail!("there is nothing to draw") };
    let mut curves = curves(records, |_| true, |record| Some(record.ns_per_element()));
    let title = match relative_to {
        None => "ns per element".to_string(),
        Some(name) => {
            relate(&mut curves, name);
            format!("time of an element / that of {name}")
        }
    };
    for (look, curve) in curves.iter_mut().enumerate() {
        curve.look = look;
    }
    let [rows, len] = first.shape;
    let notes = vec![format!("{}, {}", setting.driver, setting.backend), tensors(rows * len, first.dtype)];
    figure(title, curves, notes).file()
}

fn method(setting: &Setting) -> String {
    let clock = clock(setting);
    format!(
        "Every result was compared with a reference in f64 on the CPU before it was timed: all rows where that is cheap, rows from \
         the first to the last where not (column checked). Errors are relative to the largest number of an output in these rows, \
         and the worst output's are shown. The largest may be twice the worst of two to eight plain f32 computations with shuffled sums \
         on some of the rows, plus what WGSL grants its exp, log and division and the rounding to the type of the output. Of a \
         sampled class the score is compared, as two scores may be as good as equal. Rows of sparsemax with a score within 10⁻⁵ \
         of the threshold, where its gradient jumps, are not compared backward. The gradients of class weights were checked \
         with a loss of the rows compared alone, and for 4096 classes at most. Times are medians of the samples, taken {clock}, after \
         a warm-up and in turns over the variants; a sample of a call shorter than a millisecond is the mean of several in one pass. \
         GB/s counts what the plan reads and writes (column moved): a tensor as often as its rows are read. Percent of multiply-adds \
         is by the plan's operations. The ceilings were measured once, before all else."
    )
}
