//! Tables and plots.

use std::fmt::Write as _;

use anyhow::Result;
use plotters::chart::SeriesLabelPosition::{LowerLeft, UpperLeft};
use serde::{Deserialize, Serialize};

use crate::chart::{Chart, Line};
use crate::run::Worth;

/// What a model came to, with one seed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    pub task: String,
    pub model: String,
    pub positions: String,
    pub seed: u64,
    pub worth: Vec<Worth>,
}

/// A number of [`Worth`].
type Figure = (&'static str, fn(&Worth) -> f64);

/// Positions as in training.
pub const PLAIN: &str = "plain";

pub const FIGURES: [Figure; 3] = [
    ("loss, nats a target", |worth| worth.loss),
    ("accuracy", |worth| worth.accuracy),
    ("entropy of the last row, nats", |worth| worth.entropy),
];

/// Outcomes of one model, at one kind of positions, under all seeds.
pub struct Row<'a> {
    model: &'a str,
    positions: &'a str,
    outcomes: Vec<&'a Outcome>,
}

impl Row<'_> {
    /// Mean and deviation over seeds, at the length of this place.
    fn at(&self, place: usize, figure: fn(&Worth) -> f64) -> (f64, f64) {
        let numbers: Vec<f64> = self.outcomes.iter().map(|outcome| figure(&outcome.worth[place])).collect();
        let count = numbers.len() as f64;
        let mean = numbers.iter().sum::<f64>() / count;
        let squares: f64 = numbers.iter().map(|number| (number - mean).powi(2)).sum();
        (mean, if numbers.len() > 1 { (squares / (count - 1.0)).sqrt() } else { 0.0 })
    }
}

/// A task's models in the order in which they came.
pub fn rows<'a>(outcomes: &'a [Outcome], task: &str) -> Vec<Row<'a>> {
    let mut rows: Vec<Row<'a>> = Vec::new();
    for outcome in outcomes.iter().filter(|outcome| outcome.task == task) {
        let (model, positions) = (outcome.model.as_str(), outcome.positions.as_str());
        match rows.iter_mut().find(|row| (row.model, row.positions) == (model, positions)) {
            Some(row) => row.outcomes.push(outcome),
            None => rows.push(Row { model, positions, outcomes: vec![outcome] }),
        }
    }
    rows
}

/// A Markdown table of one figure by length.
pub fn table(rows: &[Row<'_>], (name, figure): Figure) -> String {
    let mut table = String::new();
    let Some(first) = rows.first() else { return table };
    let lengths = first.outcomes[0].worth.iter().map(|worth| format!(" {} |", worth.len));
    let _ = writeln!(table, "| {name} |{}", lengths.collect::<String>());
    let _ = writeln!(table, "|---|{}", "---|".repeat(first.outcomes[0].worth.len()));
    for row in rows {
        let cells = (0..first.outcomes[0].worth.len()).map(|place| match row.at(place, figure) {
            (mean, 0.0) => format!(" {mean:.3} |"),
            (mean, deviation) => format!(" {mean:.3} ± {deviation:.3} |"),
        });
        let name = if row.positions == PLAIN { row.model } else { &format!("{}, {}", row.model, row.positions) };
        let _ = writeln!(table, "| {name} |{}", cells.collect::<String>());
    }
    table
}

/// The same as a plot, over the length as times that of training; other positions dashed.
pub fn plot(rows: &[Row<'_>], (title, trained): (&str, u32), (name, figure): Figure) -> Result<String> {
    let line = |row: &Row<'_>| -> Vec<(f64, f64)> {
        let lengths = row.outcomes[0].worth.iter().enumerate();
        let times = |worth: &Worth| (f64::from(worth.len) / f64::from(trained)).log2();
        lengths.map(|(place, worth)| (times(worth), row.at(place, figure).0)).collect()
    };
    let other = |model: &str| rows.iter().find(|row| row.model == model && row.positions != PLAIN);
    let lines = rows
        .iter()
        .filter(|row| row.positions == PLAIN)
        .map(|row| Line { dashed: other(row.model).map(line).unwrap_or_default(), ..Line::new(row.model, line(row)) });
    let lines: Vec<Line> = lines.collect();
    let dashed = rows.iter().find(|row| row.positions != PLAIN).map(|row| format!("; dashed: {}", row.positions));
    let title = &format!("{title}{}", dashed.unwrap_or_default());
    // Where there are no lines: those of accuracy fall.
    let names = if name == "accuracy" { LowerLeft } else { UpperLeft };
    Chart { title, x: "length, over that of training", y: name, mark, lines: &lines, names }.svg()
}

/// Powers of two, and nothing between them.
fn mark(exponent: &f64) -> String {
    let whole = exponent.round();
    match exponent.exp2() {
        _ if (whole - exponent).abs() > 1e-6 => String::new(),
        times if times < 1.0 => format!("1/{}", 1.0 / times),
        times => times.to_string(),
    }
}
