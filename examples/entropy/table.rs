//! The tables, and what they say.

use std::fmt::Write;

use crate::scores::RANDOM_DIM;
use crate::{Curve, FOR_TRAINED, NamedScale, Point, SCALES};

/// Nats of rise up to which a layer counts as flat.
const FLAT: f64 = 0.5;
/// Percent of a rise below which it counts as stopped.
const STOPPED: f64 = 10.0;
/// Keys from which on a row counts as long.
const LONG: u32 = 128;

/// Mean row entropy for Gaussian scores of variance s² = scale² d: log n − s²/2. From s = √(2 log n) on, where it is 0, a
/// few keys take all of the weight and it no longer holds.
pub fn closed_form(scale: &NamedScale, n: f64) -> Option<f64> {
    let d = f64::from(RANDOM_DIM);
    let variance = (scale.formula)(n, d).powi(2) * d;
    (variance < 2.0 * n.ln()).then(|| n.ln() - variance / 2.0)
}

fn closed_form_text(scale: &NamedScale, len: u32) -> String {
    closed_form(scale, len.into()).map_or("(–)".into(), |value| format!("({value:.3})"))
}

pub fn random_header() -> String {
    let names: String = SCALES.iter().map(|scale| format!("{:>16}", scale.name)).collect();
    format!("{:>6}{:>8}{names}", "n", "log n")
}

pub fn random_row(points: &[Point]) -> String {
    let len = points[0].len;
    let cell =
        |(scale, point): (&NamedScale, &Point)| format!("{:>8.3}{:>8}", point.mean(), closed_form_text(scale, len));
    let cells: String = SCALES.iter().zip(points).map(cell).collect();
    format!("{len:>6}{:>8.3}{cells}", f64::from(len).ln())
}

pub fn real_header(layers: u32) -> String {
    let layers: String = (0..layers).map(|layer| format!("{:>8}", format!("layer {layer}"))).collect();
    format!("{:>6}{:>8}  {:<12}{layers}{:>8}", "n", "log n", "scale", "mean")
}

pub fn real_row(points: &[Point]) -> String {
    let row = |(scale, point): (&NamedScale, &Point)| {
        let means: String = point.means.iter().map(|mean| format!("{mean:>8.3}")).collect();
        let n = f64::from(point.len);
        format!("{:>6}{:>8.3}  {:<12}{means}{:>8.3}", point.len, n.ln(), scale.name, point.mean())
    };
    let rows: Vec<String> = SCALES.iter().zip(points).map(row).collect();
    rows.join("\n")
}

/// How much the entropy rises from the first length to the last, in nats.
struct Rise {
    mean: f64,
    /// Of each layer or draw.
    each: Vec<f64>,
    from: u32,
    to: u32,
}

impl Rise {
    fn of(curve: &Curve) -> Self {
        let [first, last] = [&curve.points[0], &curve.points[curve.points.len() - 1]];
        let each = first.means.iter().zip(&last.means).map(|(first, last)| last - first).collect();
        Self { mean: last.mean() - first.mean(), each, from: first.len, to: last.len }
    }

    /// Of a row of equal weights.
    fn uniform(&self) -> f64 {
        (f64::from(self.to) / f64::from(self.from)).ln()
    }

    /// Standard error of the mean.
    fn error(&self) -> f64 {
        let count = self.each.len() as f64;
        let squares: f64 = self.each.iter().map(|rise| (rise - self.mean).powi(2)).sum();
        (squares / (count - 1.0) / count).sqrt()
    }
}

/// What the numbers say, from the numbers.
pub fn reading(random: &[Curve], real: &[Curve]) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_random(&mut text, random);
    let _ = write_real(&mut text, real);
    text
}

fn write_random(text: &mut String, curves: &[Curve]) -> std::fmt::Result {
    let rises: Vec<Rise> = curves.iter().map(Rise::of).collect();
    let Rise { from, to, .. } = rises[0];
    let uniform = rises[0].uniform();
    writeln!(text, "Random scores, n = {from} to {to}; a row of equal weights rises by {uniform:.2} nats:")?;
    for (Curve { scale, .. }, rise) in curves.iter().zip(&rises) {
        write!(text, "  {:<16}{:+.2} (standard error {:.3}), ", scale.name, rise.mean, rise.error())?;
        match (closed_form(scale, from.into()), closed_form(scale, to.into())) {
            (Some(first), Some(last)) => writeln!(text, "closed form {:+.2}", last - first)?,
            _ => writeln!(text, "closed form ends before n = {to}")?,
        }
    }
    let share = 100.0 * rises[1].mean / rises[0].mean;
    let verdict = if share < STOPPED { "all but stops" } else { "only slows" };
    let [base, log_n] = [curves[0].scale.name, curves[1].scale.name];
    writeln!(text, "  {log_n} {verdict} the growth: it leaves {share:.0} % of the rise with {base}.")?;
    for curve in &curves[FOR_TRAINED..] {
        let long = curve.points.iter().filter(|point| point.len >= LONG).map(Point::mean);
        let (low, high) = long.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (x.min(low), x.max(high)));
        if low < high {
            writeln!(text, "  {} stays between {low:.2} and {high:.2} nats from n = {LONG} on.", curve.scale.name)?;
        }
    }
    Ok(())
}

fn write_real(text: &mut String, curves: &[Curve]) -> std::fmt::Result {
    let rises: Vec<Rise> = curves.iter().map(Rise::of).collect();
    let Rise { from, to, .. } = rises[0];
    let uniform = rises[0].uniform();
    writeln!(text, "\nReal scores, n = {from} to {to}; a row of equal weights rises by {uniform:.2} nats:")?;
    for (Curve { scale, .. }, Rise { mean, each, .. }) in curves.iter().zip(&rises) {
        let least = each.iter().copied().fold(f64::INFINITY, f64::min);
        let most = each.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let flat = (0..each.len()).filter(|&layer| each[layer].abs() <= FLAT).count();
        let layers = format!("{least:+.2} to {most:+.2} over the layers");
        writeln!(text, "  {:<16}{mean:+.2} on average, {layers}; {flat} of them flat to {FLAT} nats", scale.name)?;
    }
    let [base, log_n] = [curves[0].scale.name, curves[1].scale.name];
    let share = 100.0 * rises[1].mean / rises[0].mean;
    let lift = curves[1].points[0].mean() - curves[0].points[0].mean();
    writeln!(
        text,
        "  {log_n} leaves {share:.0} % of the rise with {base}. At n = 512 the two are one; below, {log_n} is"
    )?;
    writeln!(text, "  the smaller and spreads short rows wider, by {lift:.2} nats at n = {from}.")?;
    writeln!(
        text,
        "  Rows of n < 512 keys are cut from what the model computed over all 512 tokens: from layer 1 on they have"
    )?;
    writeln!(
        text,
        "  seen the tokens that the cut hides. The model itself, trained with {base}, was not run on shorter texts."
    )
}
