//! What the report's figures show, and what their captions say.

use anyhow::{Result, bail};

use crate::harness::stored;
use crate::harness::variants::{Family, VARIANTS, Variant};
use crate::plot::{Across, Curve, Figure, Guide};
use crate::record::{Record, Setting};
use crate::schedule::slope;
use crate::table::significant;

/// A figure ready for the page.
pub struct Plotted {
    pub title: String,
    /// HTML.
    pub caption: String,
    pub panels: Vec<String>,
}

/// With more curves than this, each family gets a panel of its own.
const CURVES_IN_A_PANEL: usize = 7;

const FAMILIES: [(Family, &str); 3] =
    [(Family::Softmax, "softmax attention"), (Family::Gated, "gated attention"), (Family::Linear, "linear attention")];

/// All figures that these records have something for.
pub fn all(records: &[Record]) -> Result<Vec<Plotted>> {
    let mut figures = Vec::new();
    if records.is_empty() {
        return Ok(figures);
    }
    figures.push(plotted(
        records,
        "Time of one call",
        time_caption(records),
        Plan { title: "time (ms)", value: |r| Some(r.median_ms), guides: slopes, ..Plan::BARE },
    )?);
    figures.push(plotted(
        records,
        "Arithmetic throughput",
        throughput_caption(records),
        Plan { title: "TFLOP/s", value: |r| Some(r.tflops), ..Plan::BARE },
    )?);
    figures.push(plotted(
        records,
        "Tokens per second",
        tokens_caption(records),
        Plan { title: "tokens per second", value: |r| Some(tokens(r)), tick: thousands, ..Plan::BARE },
    )?);
    figures.push(plotted(
        records,
        "Memory",
        memory_caption(records),
        Plan { title: "memory (MiB)", value: |r| Some(memory(r)), guides: score_matrix, same: 0.05, ..Plan::BARE },
    )?);
    if records.iter().any(|record| record.checked.mean_entropy.is_some()) {
        let value = |record: &Record| record.checked.mean_entropy;
        figures.push(plotted(
            records,
            "Mean entropy of a row of weights",
            entropy_caption(records),
            Plan { title: "row entropy (nat)", logarithmic: false, value, guides: uniform, ..Plan::BARE },
        )?);
    }
    Ok(figures)
}

/// Of gradients: the time of backward over that of forward.
pub fn over_forward(records: &[Record]) -> Result<Plotted> {
    let last = |of: &[&Record]| of.last()?.over_forward();
    let ratios = summary(records, last, |ratio| format!("{ratio:.1}"));
    let caption = format!(
        "Median GPU time of the backward pass over that of the forward pass. By products alone softmax attention's is 3.5: seven for \
         two, since both kernels make scores again. At the last length of each: {ratios}."
    );
    let plan = Plan { title: "backward / forward", value: Record::over_forward, logarithmic: false, ..Plan::BARE };
    plotted(records, "Backward over forward", caption, plan)
}

/// The figure of time by itself, as a file; below it what it was measured on. With a name, relative to that variant's time.
pub fn time(records: &[Record], setting: &Setting, relative_to: Option<&str>) -> Result<String> {
    let defaults: Vec<Record> = records.iter().filter(|record| !record.tuned).cloned().collect();
    let mut curves = of_variants(&defaults, |record| Some(record.median_ms));
    let Some(shape) = defaults.first().map(|record| record.shape) else { bail!("there is nothing to draw") };
    let time = if defaults.iter().any(|record| record.forward_ms.is_some()) { "time of backward" } else { "time" };
    let (title, guides) = match relative_to {
        None => (format!("{time} (ms)"), slopes(&defaults)),
        Some(name) => {
            relate(&mut curves, name);
            (format!("{time} / {time} of {name}"), Vec::new())
        }
    };
    for (look, curve) in curves.iter_mut().enumerate() {
        curve.look = look;
    }
    let mask = if shape.causal { "causal" } else { "every key visible" };
    let tensors = format!("{} x {} heads x n x {}", shape.batch, shape.heads, shape.head_dim);
    let notes = vec![
        format!("{}, {}", setting.driver, setting.backend),
        format!("{tensors}, {}, {mask}; {}", stored::name(shape.dtype), setting.data_in_words()),
    ];
    Figure { title, across: Across::SequenceLength, logarithmic: true, tick: plain, curves, guides, notes }.file()
}

/// Divides every curve by that of `name`, at the lengths that both have.
pub fn relate(curves: &mut Vec<Curve>, name: &str) {
    let base = curves.iter().find(|curve| curve.names[0] == name).map_or_else(Vec::new, |curve| curve.points.clone());
    let at = |len: f64| base.iter().find(|point| point.0 == len).map(|point| point.1);
    for curve in &mut *curves {
        curve.points = curve.points.iter().filter_map(|&(len, ms)| Some((len, ms / at(len)?))).collect();
    }
    curves.retain(|curve| !curve.points.is_empty());
}

/// What is drawn of each record.
#[derive(Clone, Copy)]
struct Plan {
    title: &'static str,
    logarithmic: bool,
    value: fn(&Record) -> Option<f64>,
    guides: fn(&[Record]) -> Vec<Guide>,
    tick: fn(f64) -> String,
    /// Curves nearer to each other than this, relatively, are drawn as one.
    same: f64,
}

impl Plan {
    const BARE: Self =
        Self { title: "", logarithmic: true, value: |_| None, guides: |_| Vec::new(), tick: plain, same: 0.0 };
}

fn plotted(records: &[Record], title: &str, caption: String, plan: Plan) -> Result<Plotted> {
    let all = of_variants(records, plan.value);
    let few = names(records).len() <= CURVES_IN_A_PANEL;
    let families: Vec<Vec<Curve>> = if few {
        vec![all]
    } else {
        let of = |family| all.iter().filter(move |curve| in_panel(curve, family)).cloned().collect::<Vec<_>>();
        FAMILIES.into_iter().map(|(family, _)| of(family)).filter(|curves| curves.len() > 1).collect()
    };
    let mut panels = Vec::new();
    for mut curves in families {
        // By place among all, so that a variant looks the same in every figure.
        for (look, curve) in curves.iter_mut().enumerate() {
            curve.look = look;
        }
        let curves = together(curves, plan.same);
        let title = plan.title.to_string();
        let guides = (plan.guides)(records);
        let figure = Figure {
            title,
            across: Across::SequenceLength,
            logarithmic: plan.logarithmic,
            tick: plan.tick,
            curves,
            guides,
            notes: Vec::new(),
        };
        panels.push(figure.svg()?);
    }
    Ok(Plotted { title: title.to_string(), caption, panels })
}

/// Softmax stands in every panel, to compare with.
fn in_panel(curve: &Curve, family: Family) -> bool {
    curve.names.iter().any(|name| name == "softmax" || named(name).map(Variant::family) == Some(family))
}

fn named(name: &str) -> Option<&'static Variant> {
    VARIANTS.iter().find(|variant| variant.name == name)
}

/// One curve a name, in the order of first appearance; a point where there is a value.
pub fn curves(records: &[Record], name: impl Fn(&Record) -> String, value: fn(&Record) -> Option<f64>) -> Vec<Curve> {
    let mut curves: Vec<Curve> = Vec::new();
    for record in records {
        let Some(value) = value(record).filter(|value| value.is_finite()) else { continue };
        let (name, point) = (name(record), (f64::from(record.shape.len), value));
        match curves.iter_mut().find(|curve| curve.names[0] == name) {
            Some(curve) => curve.points.push(point),
            None => curves.push(Curve { names: vec![name], look: 0, points: vec![point] }),
        }
    }
    curves
}

/// One curve a variant.
fn of_variants(records: &[Record], value: fn(&Record) -> Option<f64>) -> Vec<Curve> {
    curves(records, |record| record.variant.into(), value)
}

/// Curves that are as good as the same wherever both are, as one with the names of all.
fn together(curves: Vec<Curve>, same: f64) -> Vec<Curve> {
    let mut merged: Vec<Curve> = Vec::new();
    for curve in curves {
        let near = |a: &(f64, f64), b: &(f64, f64)| a.0 == b.0 && (a.1 / b.1 - 1.0).abs() < same;
        let found = merged.iter_mut().find(|other| other.points.iter().zip(&curve.points).all(|(a, b)| near(a, b)));
        match found {
            Some(other) => {
                other.names.extend(curve.names);
                if curve.points.len() > other.points.len() {
                    other.points = curve.points;
                }
            }
            None => merged.push(curve),
        }
    }
    merged
}

pub fn plain(value: f64) -> String {
    // Ticks are round numbers, which powers of ten may miss by a bit.
    format!("{}", (value * 1e6).round() / 1e6)
}

fn thousands(value: f64) -> String {
    match value {
        1e9.. => format!("{}G", plain(value / 1e9)),
        1e6.. => format!("{}M", plain(value / 1e6)),
        1e3.. => format!("{}k", plain(value / 1e3)),
        _ => plain(value),
    }
}

fn tokens(record: &Record) -> f64 {
    f64::from(record.shape.batch) * f64::from(record.shape.len) / (record.median_ms * 1e-3)
}

fn memory(record: &Record) -> f64 {
    (record.tensor_bytes + record.workspace_bytes) as f64 / f64::from(1 << 20)
}

/// A curve y = f(n) in steps fine enough to be cut at the plot's edge.
fn guide(label: &str, f: impl Fn(f64) -> f64) -> Guide {
    let points = (0..=3200).map(|step| 2f64.powf(f64::from(step) / 128.0)).map(|n| (n, f(n))).collect();
    Guide { label: label.to_string(), points }
}

/// Slope 1 below the fastest at the longest length, slope 2 above the slowest at the length where it ends.
fn slopes(records: &[Record]) -> Vec<Guide> {
    let per = |power: i32| move |record: &Record| record.median_ms / f64::from(record.shape.len).powi(power);
    let least = records.iter().map(per(1)).fold(f64::INFINITY, f64::min) * 0.3;
    let longest = records.iter().filter(|r| is_quadratic(r)).map(|r| r.shape.len).max();
    let last = records.iter().filter(|r| is_quadratic(r) && Some(r.shape.len) == longest);
    let most = last.map(per(2)).fold(0.0, f64::max) * 2.0;
    let mut guides = vec![guide("slope 1", move |n| least * n)];
    if most > 0.0 {
        guides.push(guide("slope 2", move |n| most * n * n));
    }
    guides
}

fn is_quadratic(record: &Record) -> bool {
    named(record.variant).is_some_and(|variant| slope(variant) == 2)
}

fn score_matrix(records: &[Record]) -> Vec<Guide> {
    let Some(shape) = records.first().map(|record| record.shape) else { return Vec::new() };
    let heads = f64::from(shape.batch) * f64::from(shape.heads);
    vec![guide("scores, n × n: never made", move |n| heads * n * n * 4.0 / f64::from(1 << 20))]
}

fn uniform(_: &[Record]) -> Vec<Guide> {
    vec![guide("log n: uniform weights", f64::ln)]
}

fn names(records: &[Record]) -> Vec<&'static str> {
    let mut names: Vec<&'static str> = Vec::new();
    for record in records {
        if !names.contains(&record.variant) {
            names.push(record.variant);
        }
    }
    names
}

/// Of each variant what `number` says of its first or last records; of many, the range in each family.
fn summary(records: &[Record], number: impl Fn(&[&Record]) -> Option<f64>, write: impl Fn(f64) -> String) -> String {
    let names = names(records);
    let value = |name: &str| number(&records.iter().filter(|record| record.variant == name).collect::<Vec<_>>());
    if names.len() <= CURVES_IN_A_PANEL {
        let each = names.iter().filter_map(|name| Some(format!("{} for {name}", write(value(name)?))));
        return each.collect::<Vec<_>>().join(", ");
    }
    let ranges = FAMILIES.into_iter().filter_map(|(family, label)| {
        let of_family = names.iter().filter(|name| named(name).map(Variant::family) == Some(family));
        let mut values: Vec<f64> = of_family.filter_map(|name| value(name)).collect();
        values.sort_by(f64::total_cmp);
        Some(format!("{} to {} for {label}", write(*values.first()?), write(*values.last()?)))
    });
    ranges.collect::<Vec<_>>().join(", ")
}

fn time_caption(records: &[Record]) -> String {
    let slope = |of: &[&Record]| {
        let [.., a, b] = of else { return None };
        Some((b.median_ms / a.median_ms).ln() / (f64::from(b.shape.len) / f64::from(a.shape.len)).ln())
    };
    let growth = summary(records, slope, |slope| format!("n<sup>{slope:.2}</sup>"));
    let mut caption =
        "Median GPU time against sequence length, both axes logarithmic; dashed lines grow as n and as n².".to_string();
    if !growth.is_empty() {
        caption += &format!(" Over its last two lengths time grows as {growth}.");
    }
    caption
}

fn throughput_caption(records: &[Record]) -> String {
    let best = records.iter().max_by(|a, b| a.tflops.total_cmp(&b.tflops));
    let best = best.map_or_else(String::new, |best| {
        format!(" The most is {} TFLOP/s, by {} at n = {}.", significant(best.tflops), best.variant, best.shape.len)
    });
    format!(
        "Multiplications and additions of the products over time. Linear variants need fewer of them for the same \
         output, so a lower rate can still be the shorter time.{best}"
    )
}

fn tokens_caption(records: &[Record]) -> String {
    let change = |of: &[&Record]| {
        let (first, last) = (of.first()?, of.last()?);
        (first.shape.len < last.shape.len).then(|| tokens(last) / tokens(first))
    };
    let changes = summary(records, change, |ratio| format!("× {}", significant(ratio)));
    let mut caption =
        "Tokens of the batch that pass through the call in a second. Where work is quadratic, this halves \
                       with each doubling of n; where it is linear, it stays level."
            .to_string();
    if !changes.is_empty() {
        caption += &format!(" From the first to the last length of each: {changes}.");
    }
    caption
}

fn memory_caption(records: &[Record]) -> String {
    let most = records.iter().max_by_key(|record| record.workspace_bytes).filter(|record| record.workspace_bytes > 0);
    let workspace = most.map_or_else(
        || "No variant needs a workspace.".to_string(),
        |most| {
            format!(
                "The largest workspace is {}, of {} at n = {}.",
                crate::table::bytes(most.workspace_bytes),
                most.variant,
                most.shape.len
            )
        },
    );
    format!(
        "All tensors of a call together with its workspace; variants that need the same within 5 % share a curve. The dashed line is \
         what a matrix of all scores would take, which no kernel makes. {workspace}"
    )
}

fn entropy_caption(records: &[Record]) -> String {
    let rises = names(records).into_iter().filter_map(|name| {
        let mut of = records.iter().filter(|record| record.variant == name);
        let first = of.next()?;
        let last = of.next_back()?;
        let rise = last.checked.mean_entropy? - first.checked.mean_entropy?;
        let (from, to) = (first.shape.len, last.shape.len);
        let uniform = (f64::from(to) / f64::from(from)).ln();
        Some(format!("{name} {rise:+.2} nat from n = {from} to {to} (log n: {uniform:+.2})").replace('-', "−"))
    });
    let rises: Vec<String> = rises.collect();
    let mut caption =
        "−Σ p log p, averaged over all rows. The dashed line is log n, the entropy of uniform weights and the most \
         there can be."
            .to_string();
    if records.iter().any(|record| record.shape.causal) {
        caption += " A causal row sees fewer than n keys.";
    }
    if !rises.is_empty() {
        caption += &format!(" Change: {}.", rises.join("; "));
    }
    caption
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_relate_to_one_where_that_was_measured() {
        let curve =
            |name: &str, points: &[(f64, f64)]| Curve { names: vec![name.into()], look: 0, points: points.into() };
        let mut curves = vec![
            curve("softmax", &[(64.0, 2.0), (128.0, 8.0)]),
            curve("gau", &[(128.0, 6.0), (256.0, 30.0)]),
            curve("linear_elu", &[(256.0, 1.0)]),
        ];
        relate(&mut curves, "softmax");
        let points: Vec<_> = curves.iter().map(|curve| curve.points.as_slice()).collect();
        assert_eq!(points, [&[(64.0, 1.0), (128.0, 1.0)][..], &[(128.0, 0.75)]]);
    }
}
