//! The committed table of figures, docs/COMPILERS.md: how it is written, read and compared with.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// How much worse a figure may be than the committed one.
const WORSE: f64 = 0.03;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Better {
    Fewer,
    More,
    /// Any is too many.
    None,
}
use Better::{Fewer, More, None as Nothing};

/// A figure's heading, which way is better, and how many decimals it is written with.
pub type Column = (&'static str, Better, usize);

pub const COLUMNS: [Column; 17] = [
    ("registers", Fewer, 0),
    ("spills", Nothing, 0),
    ("scratch", Nothing, 0),
    ("LDS bytes", Fewer, 0),
    ("waves", More, 0),
    ("code", Fewer, 0),
    ("step", Fewer, 0),
    ("fma/vector", More, 3),
    ("fma/all", More, 3),
    ("LDS/fma", Fewer, 3),
    ("all/WMMA", Fewer, 1),
    ("LDS/WMMA", Fewer, 2),
    ("block all/WMMA", Fewer, 1),
    ("block LDS/WMMA", Fewer, 2),
    ("edge", Fewer, 0),
    ("edge fma/vector", More, 3),
    ("edge fma/all", More, 3),
];
pub const CLAMPS: [Column; 1] = [("clamps", Fewer, 1)];

/// Figures by row, those of a section's columns.
pub type Rows = BTreeMap<String, Vec<Option<f64>>>;

/// A section: its rows in the order of the calls.
pub fn section(heading: &str, columns: &[Column], rows: &[(String, Vec<Option<f64>>)]) -> String {
    let mut text = format!("## {heading}\n\n| kernel |");
    columns.iter().for_each(|(name, ..)| text.extend([" ", name, " |"]));
    text.extend(["\n|---|", &"---|".repeat(columns.len()), "\n"]);
    for (name, figures) in rows {
        text.extend(["| ", name, " |"]);
        for (figure, (_, _, decimals)) in figures.iter().zip(columns) {
            let _ = match figure {
                Some(figure) => write!(text, " {figure:.decimals$} |"),
                None => write!(text, " – |"),
            };
        }
        text.push('\n');
    }
    text
}

/// The sections of a text by heading.
pub fn sections(text: &str) -> BTreeMap<String, Rows> {
    let mut sections = BTreeMap::new();
    for section in text.split("\n## ").skip(1) {
        let heading = section.lines().next().unwrap_or_default().to_owned();
        let lines = section.lines().filter(|line| line.starts_with("| ")).skip(1);
        let row = |line: &str| {
            let mut cells = line.trim_matches('|').split('|').map(str::trim);
            let name = cells.next().unwrap_or_default().to_owned();
            (name, cells.map(|cell| cell.parse().ok()).collect())
        };
        sections.insert(heading, lines.map(row).collect());
    }
    sections
}

/// What differs from the committed figures, one line each: first what is worse than it may be, then the rest.
pub fn differences(columns: &[Column], committed: &Rows, found: &Rows) -> [Vec<String>; 2] {
    let [mut worse, mut other] = [Vec::new(), Vec::new()];
    for (name, figures) in found {
        let Some(before) = committed.get(name) else {
            worse.push(format!("{name}: is not in the table"));
            continue;
        };
        for ((figure, before), (heading, better, decimals)) in figures.iter().zip(before).zip(columns) {
            let written =
                |figure: &Option<f64>| figure.map_or("–".to_owned(), |figure| format!("{figure:.decimals$}"));
            let line = format!("{name}: {heading} {}, was {}", written(figure), written(before));
            let (Some(figure), Some(before)) = (figure, before) else {
                if figure.is_some() != before.is_some() {
                    worse.push(line);
                }
                continue;
            };
            // What is written is compared, which is rounded.
            let figure: f64 = format!("{figure:.decimals$}").parse().unwrap_or(*figure);
            let is_worse = match better {
                Fewer => figure > before * (1.0 + WORSE),
                More => figure < before * (1.0 - WORSE),
                Nothing => figure > 0.0,
            };
            if is_worse {
                worse.push(line);
            } else if figure.to_bits() != before.to_bits() {
                other.push(line);
            }
        }
    }
    worse.extend(committed.keys().filter(|name| !found.contains_key(*name)).map(|name| format!("{name}: is gone")));
    [worse, other]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(figures: [f64; 3]) -> Rows {
        let text = section("A", &COLUMNS[3..6], &[("a: b".to_owned(), figures.map(Some).to_vec())]);
        sections(&format!("\n{text}")).remove("A").expect("a section")
    }

    #[test]
    fn three_percent_are_too_many() {
        let columns = &COLUMNS[3..6];
        let before = rows([16384.0, 8.0, 1000.0]);
        let found = |figures| differences(columns, &before, &rows(figures)).map(|lines| lines.len());
        assert_eq!(found([16384.0, 8.0, 1000.0]), [0, 0]);
        assert_eq!(found([16384.0, 8.0, 1030.0]), [0, 1]);
        assert_eq!(found([16384.0, 8.0, 1031.0]), [1, 0]);
        assert_eq!(found([16384.0, 7.0, 900.0]), [1, 1], "fewer waves, less code");
        assert_eq!(differences(columns, &Rows::new(), &before)[0].len(), 1, "a new row");
        assert_eq!(differences(columns, &before, &Rows::new())[0].len(), 1, "a row less");
    }
}
