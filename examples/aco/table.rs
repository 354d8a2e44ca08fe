//! The committed table of figures, docs/COMPILERS.md: how it is written, read and compared with.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// When a figure is worse than the committed one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Worse {
    /// By more than 3 % above it.
    Above,
    /// By more than 3 % below it.
    Below,
    /// Above it at all.
    Grown,
    /// Above 0, whatever is committed.
    Any,
}
use Worse::{Above, Any, Below, Grown};

const MORE: f64 = 1.03;
const LESS: f64 = 0.97;

/// A figure's heading, and how many decimals it is written with.
pub type Column = (&'static str, Worse, usize);

pub const COLUMNS: [Column; 17] = [
    ("registers", Above, 0),
    ("spills", Any, 0),
    ("scratch", Any, 0),
    ("LDS bytes", Above, 0),
    ("waves", Below, 0),
    ("code", Above, 0),
    ("step", Above, 0),
    ("fma/vector", Below, 3),
    ("fma/all", Below, 3),
    ("LDS/fma", Above, 3),
    ("all/WMMA", Above, 1),
    ("LDS/WMMA", Above, 2),
    ("block all/WMMA", Above, 1),
    ("block LDS/WMMA", Above, 2),
    ("edge", Above, 0),
    ("edge fma/vector", Below, 3),
    ("edge fma/all", Below, 3),
];
pub const CLAMPS: [Column; 1] = [("clamps", Grown, 1)];

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

/// What differs from the committed figures, one line each.
#[derive(Default)]
pub struct Differences {
    /// Any spills and scratch, committed or not.
    pub spills: Vec<String>,
    /// What is worse than it may be, and rows that only one of the two has.
    pub worse: Vec<String>,
    pub other: Vec<String>,
}

pub fn differences(columns: &[Column], committed: &Rows, found: &Rows) -> Differences {
    let mut differences = Differences::default();
    for (name, figures) in found {
        let before = committed.get(name);
        if before.is_none() {
            differences.worse.push(format!("{name}: is not in the table"));
        }
        for (place, (figure, (heading, worse, decimals))) in figures.iter().zip(columns).enumerate() {
            let before = before.map(|before| before.get(place).copied().flatten());
            let written =
                |figure: Option<f64>| figure.map_or("–".to_owned(), |figure| format!("{figure:.decimals$}"));
            let line = format!("{name}: {heading} {}, was {}", written(*figure), written(before.flatten()));
            if *worse == Any && *figure > Some(0.0) {
                differences.spills.push(line);
                continue;
            }
            let is_worse = match (*figure, before) {
                (_, None) => continue,
                (Some(figure), Some(Some(before))) => match worse {
                    Above => figure > MORE * before,
                    Below => figure < LESS * before,
                    Grown | Any => figure > before,
                },
                (figure, Some(before)) => figure.is_some() || before.is_some(),
            };
            if is_worse {
                differences.worse.push(line);
            } else if Some(*figure) != before {
                differences.other.push(line);
            }
        }
    }
    let gone = committed.keys().filter(|name| !found.contains_key(*name));
    differences.worse.extend(gone.map(|name| format!("{name}: is in the table alone")));
    differences
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOME: &[Column] = &[("spills", Any, 0), ("waves", Below, 0), ("code", Above, 0), ("clamps", Grown, 1)];

    fn rows(figures: [f64; 4]) -> Rows {
        let text = section("A", SOME, &[("a: b".to_owned(), figures.map(Some).to_vec())]);
        sections(&format!("\n{text}")).remove("A").expect("a section")
    }

    /// How many of each.
    fn counts(committed: &Rows, found: &Rows) -> [usize; 3] {
        let Differences { spills, worse, other } = differences(SOME, committed, found);
        [spills, worse, other].map(|lines| lines.len())
    }

    #[test]
    fn three_percent_are_too_many() {
        let before = rows([0.0, 8.0, 1000.0, 5.0]);
        let found = |figures| counts(&before, &rows(figures));
        assert_eq!(found([0.0, 8.0, 1000.0, 5.0]), [0, 0, 0]);
        assert_eq!(found([0.0, 8.0, 1030.0, 4.0]), [0, 0, 2]);
        assert_eq!(found([0.0, 8.0, 1031.0, 5.1]), [0, 2, 0]);
        assert_eq!(found([0.0, 7.0, 900.0, 5.0]), [0, 1, 1], "fewer waves, less code");
    }

    #[test]
    fn spills_are_never_committed_to() {
        let spilled = rows([1.0, 8.0, 1000.0, 5.0]);
        assert_eq!(counts(&spilled, &spilled), [1, 0, 0]);
        assert_eq!(counts(&Rows::new(), &spilled), [1, 1, 0]);
    }

    #[test]
    fn a_row_of_one_side_alone_is_told() {
        let row = rows([0.0, 8.0, 1000.0, 5.0]);
        assert_eq!(counts(&Rows::new(), &row), [0, 1, 0]);
        assert_eq!(counts(&row, &Rows::new()), [0, 1, 0]);
    }
}
