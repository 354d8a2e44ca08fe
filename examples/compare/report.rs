//! `report.html`: one file with figures and table, and the two files of numbers beside it.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context as _, Result};
use wgpu_attention::Tuning;

use crate::backward;
use crate::decode;
use crate::figures::{self, Plotted};
use crate::harness::stored;
use crate::record::{Field, Record, Setting, fields, write_csv, write_json};
use crate::table;

/// What the report says besides the records.
pub struct Remarks<'a> {
    pub setting: &'a Setting,
    /// Where linear attention overtakes others.
    pub crossovers: &'a [String],
    /// What was not run, and why.
    pub notes: &'a [String],
    /// What was wrong.
    pub failures: &'a [String],
    /// What autotune chose, as an app would store it.
    pub tuning: Option<&'a Tuning>,
}

const STYLE: &str = "
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, 'Helvetica Neue', Arial, sans-serif; color: #222; background: #fff;
       max-width: 66rem; margin: 2.5rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .75rem; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .5rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1.25rem; margin: 0 0 1rem; font-size: .92rem; }
dt { color: #666; } dd { margin: 0; }
figure { margin: 1.75rem 0 2.25rem; break-inside: avoid; }
figure svg { display: block; width: 100%; max-width: 50rem; height: auto; }
figcaption { max-width: 48rem; font-size: .92rem; color: #333; margin-top: .35rem; }
.crossovers { columns: 26rem; }
.error { color: #b00020; font-weight: 600; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .8rem; font-variant-numeric: tabular-nums; white-space: nowrap; }
th, td { padding: .16rem .45rem; text-align: right; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
thead th { border-bottom: 1.5px solid #222; font-weight: 600; vertical-align: bottom; }
tbody tr.first td { border-top: 1px solid #ccc; }
tbody tr.first:first-child td { border-top: none; }
.method { font-size: .92rem; max-width: 48rem; }
@media print { body { font-size: 11pt; margin: 0; max-width: none; } .scroll { overflow: visible; } table { font-size: 7pt; } }
";

/// The three files of a run, whatever was run.
pub struct Page<'a> {
    pub title: &'a str,
    /// What was measured on what, by name.
    pub setting: Vec<(&'static str, String)>,
    /// What was wrong.
    pub failures: &'a [String],
    /// What the run says in sentences.
    pub sentences: &'a [String],
    pub figures: Vec<Plotted>,
    pub columns: &'a [(&'a str, usize)],
    /// A name and its cells; whether the length is another than above.
    pub rows: Vec<(bool, String, Vec<String>)>,
    /// What was not run, and why.
    pub notes: &'a [String],
    /// How it was measured: HTML.
    pub method: String,
    /// What `results.json` and `results.csv` have.
    pub records: Vec<Vec<Field>>,
}

impl Page<'_> {
    /// Writes the three files into `folder`, making it if need be.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let file = |name: &str| folder.join(name);
        std::fs::create_dir_all(folder).with_context(|| format!("--report {}", folder.display()))?;
        write_json(&file("results.json"), &self.records).context("results.json")?;
        write_csv(&file("results.csv"), &self.records).context("results.csv")?;
        std::fs::write(file("report.html"), self.html()?).context("report.html")
    }

    fn html(&self) -> Result<String> {
        let (mut page, title) = (String::new(), self.title);
        write!(
            page,
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
             content=\"width=device-width\">\n<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
             <h1>{title}</h1>\n"
        )?;
        let items = self.setting.iter().map(|(name, value)| format!("<dt>{name}</dt><dd>{}</dd>\n", escape(value)));
        page += &format!("<dl>\n{}</dl>\n", items.collect::<String>());
        for failure in self.failures {
            writeln!(page, "<p class=\"error\">{}</p>", escape(failure))?;
        }
        if !self.sentences.is_empty() {
            let sentences: Vec<String> = self.sentences.iter().map(|sentence| escape(sentence)).collect();
            writeln!(page, "<p class=\"crossovers\">{}</p>", sentences.join("<br>\n"))?;
        }
        for (number, figure) in self.figures.iter().enumerate() {
            writeln!(page, "<figure>")?;
            for svg in &figure.panels {
                let label = format!("<svg role=\"img\" aria-label=\"{}\" ", escape(&figure.title));
                page += &svg.replacen("<svg ", &label, 1);
            }
            let (number, title, caption) = (number + 1, escape(&figure.title), &figure.caption);
            writeln!(page, "<figcaption><b>Figure {number}. {title}.</b> {caption}</figcaption>\n</figure>")?;
        }
        page += "<h2>Every case</h2>\n<div class=\"scroll\">\n";
        page += &self.table();
        page += "</div>\n";
        for note in self.notes {
            writeln!(page, "<p class=\"method\">{}</p>", escape(note))?;
        }
        page += &format!("<h2>How it was measured</h2>\n<p class=\"method\">{}</p>\n</body>\n</html>\n", self.method);
        Ok(page)
    }

    fn table(&self) -> String {
        let mut html = "<table>\n<thead><tr>".to_string();
        for heading in std::iter::once("variant").chain(self.columns.iter().map(|(heading, _)| *heading)) {
            let times = heading.strip_prefix("x ").map(|of| format!("× {of}"));
            html += &format!("<th>{}</th>", times.unwrap_or_else(|| heading.to_string()));
        }
        html += "</tr></thead>\n<tbody>\n";
        for (is_first, name, cells) in &self.rows {
            let class = if *is_first { " class=\"first\"" } else { "" };
            let cells = cells.iter().map(|cell| format!("<td>{}</td>", escape(cell).replace('-', "−")));
            html += &format!("<tr{class}><td>{}</td>{}</tr>\n", escape(name), cells.collect::<String>());
        }
        html + "</tbody>\n</table>\n"
    }
}

/// Writes the report on attention variants, or on those that `--decode` has, and beside it what autotune chose.
pub fn write(folder: &Path, records: &[Record], remarks: &Remarks) -> Result<()> {
    let defaults: Vec<Record> = records.iter().filter(|record| !record.tuned).cloned().collect();
    let is_decoding = records.iter().any(|record| record.shape.is_decoding());
    let is_backward = records.iter().any(|record| record.forward_ms.is_some());
    let mut round = None;
    let mut row = |record: &Record| {
        let own = (record.shape.len, record.shape.heads);
        let cells = match (is_decoding, is_backward) {
            (true, _) => decode::cells(record).to_vec(),
            (_, true) => backward::cells(record).to_vec(),
            _ => table::cells(record).to_vec(),
        };
        (round.replace(own) != Some(own), record.name(), cells)
    };
    let (title, figures, columns, method): (_, _, &[_], _) = match (is_decoding, is_backward) {
        (true, _) => (
            "Decoding: one query over many keys",
            decode::figures(&defaults)?,
            &decode::COLUMNS,
            decode::method(remarks.setting),
        ),
        (_, true) => (
            "Gradients of attention variants over sequence length",
            backward::figures(&defaults)?,
            &backward::COLUMNS,
            backward::method(remarks.setting),
        ),
        _ => (
            "Attention variants over sequence length",
            figures::all(&defaults)?,
            &table::COLUMNS,
            method(remarks.setting),
        ),
    };
    let page = Page {
        title,
        setting: setting(records, remarks.setting),
        failures: remarks.failures,
        sentences: remarks.crossovers,
        figures,
        columns,
        rows: records.iter().map(&mut row).collect(),
        notes: remarks.notes,
        method,
        records: records.iter().map(|record| fields(record, remarks.setting)).collect(),
    };
    page.write(folder)?;
    if let Some(tuning) = remarks.tuning {
        std::fs::write(folder.join("tuning.json"), serde_json::to_string_pretty(tuning)?).context("tuning.json")?;
    }
    Ok(())
}

fn setting(records: &[Record], setting: &Setting) -> Vec<(&'static str, String)> {
    let mut list = where_and_how(setting);
    list.insert(4, ("data", setting.data_in_words().to_string()));
    if let Some(Record { shape, .. }) = records.first().filter(|record| record.shape.is_decoding()) {
        list.push(("tensors", decode::tensors(shape.batch, shape.head_dim, shape.dtype)));
    } else if let Some(Record { shape, .. }) = records.first() {
        let kv_heads = match shape.kv_heads {
            same if same == shape.heads => String::new(),
            fewer => format!(" ({fewer} of keys and values)"),
        };
        let mask = if shape.causal { "causal" } else { "every key visible" };
        let (batch, heads, dtype) = (shape.batch, shape.heads, stored::name(shape.dtype));
        let text = format!("batch {batch}, {heads} heads{kv_heads}, head_dim {}, {dtype}, {mask}", shape.head_dim);
        list.push(("tensors", text));
    }
    list
}

/// What a page on any run says first.
pub fn where_and_how(setting: &Setting) -> Vec<(&'static str, String)> {
    vec![
        ("adapter", setting.adapter.clone()),
        ("driver", format!("{} ({})", setting.driver, setting.backend)),
        ("tier", setting.tier_in_words().to_string()),
        ("timer", setting.timer_in_words().to_string()),
        ("ceilings", setting.ceilings_in_words()),
    ]
}

/// How time is taken, as a page says it.
pub fn clock(setting: &Setting) -> &'static str {
    match setting.timer {
        "timestamp" => "between two GPU timestamps around the compute pass",
        _ => "on the wall clock from submit to done, for want of GPU timestamps",
    }
}

fn method(setting: &Setting) -> String {
    let clock = clock(setting);
    format!(
        "Every result was compared with a reference in f64 on the CPU \
         before it was timed: all rows where that is cheap, rows spread over batch, heads and positions where not \
         (column rows). Errors are relative to the largest number of these rows; results.json has the absolute ones \
         beside them. The largest error may be twice the worst of eight plain f32 computations with shuffled sums, \
         plus what WGSL grants its exp and division, the rounding to the type of the output, and with cooperative \
         matrices what factors in f16 cost. The reference takes the numbers as they are stored. Times are medians of the samples, taken {clock}, after a \
         warm-up and in turns over the variants; a sample of a call shorter than a millisecond is the mean of several \
         in one pass. Entropy, in nats, comes from a separate call, so that it costs the timed one nothing. TFLOP/s counts two \
         for each multiply-add of the products and nothing for the weights; GB/s takes every tensor as moved once. \
         The ceilings were measured once, before all else: a copy far larger than caches, its reads and writes counted; \
         independent f32 multiply-adds; and this crate's own f32 matrix product, verified like the rest. \
         All variants run on the same q, k and v; the GAU takes q as its shared z and k as its gate."
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
