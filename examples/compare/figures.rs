//! What the report's figures show, and what their captions say.

use anyhow::Result;

use crate::harness::variants::{Family, VARIANTS, Variant};
use crate::plot::{Curve, Figure, Guide};
use crate::record::Record;
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
        Plan { title: "time (ms)", logarithmic: true, value: |r| Some(r.median_ms), guides: slopes },
    )?);
    figures.push(plotted(
        records,
        "Arithmetic throughput",
        throughput_caption(records),
        Plan { title: "TFLOP/s", logarithmic: true, value: |r| Some(r.tflops), guides: |_| Vec::new() },
    )?);
    figures.push(plotted(
        records,
        "Tokens per second",
        tokens_caption(records),
        Plan { title: "tokens per second", logarithmic: true, value: |r| Some(tokens(r)), guides: |_| Vec::new() },
    )?);
    figures.push(plotted(
        records,
        "Memory",
        memory_caption(records),
        Plan { title: "memory (MiB)", logarithmic: true, value: |r| Some(memory(r)), guides: score_matrix },
    )?);
    if records.iter().any(|record| record.checked.mean_entropy.is_some()) {
        figures.push(plotted(
            records,
            "Mean entropy of a row of weights",
            entropy_caption(records),
            Plan { title: "row entropy (nat)", logarithmic: false, value: |r| r.checked.mean_entropy, guides: uniform },
        )?);
    }
    Ok(figures)
}

/// What is drawn of each record.
#[derive(Clone, Copy)]
struct Plan {
    title: &'static str,
    logarithmic: bool,
    value: fn(&Record) -> Option<f64>,
    guides: fn(&[Record]) -> Vec<Guide>,
}

fn plotted(records: &[Record], title: &str, caption: String, plan: Plan) -> Result<Plotted> {
    let all = curves(records, plan.value);
    let families: Vec<Vec<Curve>> = if all.len() <= CURVES_IN_A_PANEL {
        vec![all]
    } else {
        let of = |family| all.iter().filter(move |curve| in_panel(curve, family)).cloned().collect::<Vec<_>>();
        [Family::Softmax, Family::Gated, Family::Linear].into_iter().map(of).filter(|c| !c.is_empty()).collect()
    };
    let mut panels = Vec::new();
    for curves in families {
        let mut curves = together(curves);
        for (look, curve) in curves.iter_mut().enumerate() {
            curve.look = look;
        }
        let title = plan.title.to_string();
        let guides = (plan.guides)(records);
        let figure = Figure { title, logarithmic: plan.logarithmic, tick, curves, guides };
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

/// One curve a variant, in the order of first appearance.
fn curves(records: &[Record], value: fn(&Record) -> Option<f64>) -> Vec<Curve> {
    let mut curves: Vec<Curve> = Vec::new();
    for record in records {
        let Some(value) = value(record).filter(|value| value.is_finite()) else { continue };
        let point = (f64::from(record.shape.len), value);
        match curves.iter_mut().find(|curve| curve.names[0] == record.variant) {
            Some(curve) => curve.points.push(point),
            None => curves.push(Curve { names: vec![record.variant.to_string()], look: 0, points: vec![point] }),
        }
    }
    curves
}

/// Curves that coincide wherever both are, as one with the names of all.
fn together(curves: Vec<Curve>) -> Vec<Curve> {
    let mut merged: Vec<Curve> = Vec::new();
    for curve in curves {
        let same = merged.iter_mut().find(|other| other.points.iter().zip(&curve.points).all(|(a, b)| a == b));
        match same {
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

fn tick(value: f64) -> String {
    match value {
        1e9.. => format!("{}G", value / 1e9),
        1e6.. => format!("{}M", value / 1e6),
        1e4.. => format!("{}k", value / 1e3),
        // Ticks are round numbers, which powers of ten may miss by a bit.
        _ => format!("{}", (value * 1e6).round() / 1e6),
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
    let least = records.iter().map(per(1)).fold(f64::INFINITY, f64::min) * 0.55;
    let longest = records.iter().filter(|r| is_quadratic(r)).map(|r| r.shape.len).max();
    let last = records.iter().filter(|r| is_quadratic(r) && Some(r.shape.len) == longest);
    let most = last.map(per(2)).fold(0.0, f64::max) * 1.9;
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

/// First and last record of a variant.
fn ends<'a>(records: &'a [Record], variant: &str) -> Option<(&'a Record, &'a Record)> {
    let mut of = records.iter().filter(|record| record.variant == variant);
    let first = of.next()?;
    Some((first, of.next_back()?))
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

fn time_caption(records: &[Record]) -> String {
    let growth = names(records).into_iter().filter_map(|name| {
        let of: Vec<&Record> = records.iter().filter(|record| record.variant == name).collect();
        let [.., a, b] = of.as_slice() else { return None };
        let slope = (b.median_ms / a.median_ms).ln() / (f64::from(b.shape.len) / f64::from(a.shape.len)).ln();
        Some(format!("n<sup>{slope:.2}</sup> for {name}"))
    });
    let growth: Vec<String> = growth.collect();
    let mut caption =
        "Median GPU time against sequence length, both axes logarithmic; dashed lines grow as n and as n². "
            .to_string();
    if !growth.is_empty() {
        caption += &format!("Between its last two lengths, time grows as {}.", growth.join(", "));
    }
    caption
}

fn throughput_caption(records: &[Record]) -> String {
    let best = records.iter().max_by(|a, b| a.tflops.total_cmp(&b.tflops));
    let best = best.map_or_else(String::new, |best| {
        format!(" The most is {} TFLOP/s, by {} at n = {}.", significant(best.tflops), best.variant, best.shape.len)
    });
    format!(
        "Operations of the two products over time. Linear variants do few operations for each byte and so reach \
         less; they are faster for doing fewer.{best}"
    )
}

fn tokens_caption(records: &[Record]) -> String {
    let drops = names(records).into_iter().filter_map(|name| {
        let (first, last) = ends(records, name)?;
        (first.shape.len < last.shape.len).then(|| format!("{name} × {}", significant(tokens(last) / tokens(first))))
    });
    let drops: Vec<String> = drops.collect();
    let mut caption =
        "Tokens of the batch that pass through the call in a second. A quadratic variant loses half with \
                       each doubling, a linear one stays level."
            .to_string();
    if !drops.is_empty() {
        caption += &format!(" From the first to the last length of each: {}.", drops.join(", "));
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
        "All tensors of a call together with its workspace; variants that need the same share a curve. The dashed line is \
         what a matrix of all scores would take, which no kernel makes. {workspace}"
    )
}

fn entropy_caption(records: &[Record]) -> String {
    let rises = names(records).into_iter().filter_map(|name| {
        let (first, last) = ends(records, name)?;
        let rise = last.checked.mean_entropy? - first.checked.mean_entropy?;
        let (from, to) = (f64::from(first.shape.len), f64::from(last.shape.len));
        Some(format!("{name} {rise:+.2} nat from n = {from} to {to} (log n: {:+.2})", (to / from).ln()))
    });
    let rises: Vec<String> = rises.collect();
    let mut caption =
        "−Σ p log p, averaged over all rows. The dashed line is log n, the entropy of uniform weights and the most \
         there can be."
            .to_string();
    if !rises.is_empty() {
        caption += &format!(" Rise: {}.", rises.join("; "));
    }
    caption
}
