//! The table on the terminal, one line a case.

use crate::harness::Failure;
use crate::record::Record;

/// Heading and width of each column.
pub const COLUMNS: [(&str, usize); 14] = [
    ("n", 6),
    ("ms", 9),
    ("x softmax", 9),
    ("TFLOP/s", 8),
    ("% fma", 6),
    ("GB/s", 8),
    ("% copy", 6),
    ("workspace", 10),
    ("tensors", 10),
    ("rows", 6),
    ("max err", 8),
    ("rms err", 8),
    ("entropy", 8),
    ("samples", 7),
];

/// A line under these columns.
pub fn line(columns: &[(&str, usize)], name: &str, name_width: usize, cells: &[impl AsRef<str>]) -> String {
    let mut line = format!("{name:name_width$}");
    for ((_, width), cell) in columns.iter().zip(cells) {
        line += &format!("  {:>width$}", cell.as_ref());
    }
    line
}

pub fn header(columns: &[(&str, usize)], name_width: usize) -> String {
    let headings: Vec<&str> = columns.iter().map(|(heading, _)| *heading).collect();
    line(columns, "variant", name_width, &headings)
}

/// What stands in the columns.
pub fn cells(record: &Record) -> [String; COLUMNS.len()] {
    [
        record.shape.len.to_string(),
        milliseconds(record.median_ms),
        record.relative.map_or_else(|| "-".into(), |ratio| format!("{ratio:.2}")),
        significant(record.tflops),
        percent(record.of_fma),
        significant(record.gbps),
        percent(record.of_copy),
        bytes(record.workspace_bytes),
        bytes(record.tensor_bytes),
        if record.checked.all_rows { "all".into() } else { record.checked.rows.to_string() },
        format!("{:.1e}", record.checked.relative.max),
        format!("{:.1e}", record.checked.relative.rms),
        record.checked.mean_entropy.map_or_else(|| "-".into(), |entropy| format!("{entropy:.3}")),
        record.samples.to_string(),
    ]
}

pub fn failure(variant: &str, len: u32, failure: &Failure, name_width: usize) -> String {
    format!("{variant:name_width$}  {len:>6}  {failure}")
}

pub fn percent(of_ceiling: Option<f64>) -> String {
    of_ceiling.map_or_else(|| "-".into(), |percent| format!("{percent:.1}"))
}

/// Four significant digits, at most four decimals.
pub fn milliseconds(ms: f64) -> String {
    let whole_digits = if ms >= 1.0 { ms.log10().floor() as usize + 1 } else { 0 };
    format!("{ms:.*}", 4usize.saturating_sub(whole_digits))
}

/// Three significant digits.
pub fn significant(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return format!("{value}");
    }
    let decimals = (2.0 - value.abs().log10().floor()).clamp(0.0, 6.0) as usize;
    format!("{value:.decimals$}")
}

/// In binary units.
pub fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["B", "KiB", "MiB"] {
        if value < 1024.0 {
            return format!("{} {unit}", short(value));
        }
        value /= 1024.0;
    }
    format!("{} GiB", short(value))
}

fn short(value: f64) -> String {
    let tenths = (value * 10.0).round();
    if tenths < 100.0 && tenths % 10.0 != 0.0 { format!("{value:.1}") } else { format!("{value:.0}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_digits() {
        assert_eq!(milliseconds(0.012_34), "0.0123");
        assert_eq!(milliseconds(1.234_56), "1.235");
        assert_eq!(milliseconds(12_345.6), "12346");
        assert_eq!(significant(0.012_345), "0.0123");
        assert_eq!(significant(12.345), "12.3");
        assert_eq!(significant(1234.5), "1234");
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes((8 << 20) + 8192), "8 MiB");
        assert_eq!(bytes(256 << 20), "256 MiB");
        assert_eq!(bytes(3 << 30), "3 GiB");
    }
}
