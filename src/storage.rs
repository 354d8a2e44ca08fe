//! Operands stored in 16 bits: from a kernel that reads and writes f32 to one that does so through conversions.
//!
//! Kernels index their operands as f32: `q[i]`, `o[i] = x;`. Where a caller stores one in another type, its declaration is
//! changed here, and each access becomes a call of one of two functions that stand at the end of the text. So there is one
//! kernel for all types, which reads as if there were only f32.

use std::fmt::Write;

use crate::dtype::Storage;
use crate::wgsl::{Source, source};

/// The conversions that a storage goes through.
pub(crate) fn conversions(storage: Storage) -> Option<&'static Source> {
    match storage {
        Storage::Plain(_) | Storage::Shared => None,
        Storage::NativeF16 | Storage::PackedF16 => Some(source!("shared/f16")),
        Storage::PackedBF16 => Some(source!("shared/bf16")),
    }
}

/// What a buffer is declared to hold.
#[derive(Clone, Copy, PartialEq)]
enum Item {
    F32,
    Vec4,
    /// The bits of an f32.
    Bits,
}

/// `text` with the operand `name` stored as `storage`. Lines keep their numbers; what is new is appended.
///
/// # Panics
/// If the operand is not declared exactly once, or used other than by `name[i]` and `name[i] = x;`.
pub(crate) fn store(text: &str, name: &str, storage: Storage) -> String {
    let family = match storage {
        Storage::Plain(_) => return text.to_owned(),
        Storage::Shared => {
            return text.replace(&format!("var<storage, read> {name}:"), &format!("var<storage, read_write> {name}:"));
        }
        Storage::NativeF16 | Storage::PackedF16 => "f16",
        Storage::PackedBF16 => "bf16",
    };
    let (mut stored, item) = declare(text, name, storage);
    let accesses = rewrite(&mut stored, name);
    let native = storage == Storage::NativeF16 && item != Item::Bits;
    if accesses.reads {
        let body = match (native, item) {
            (true, Item::Vec4) => format!("vec4<f32> {{ return vec4<f32>({name}[i]); }}"),
            (true, _) => format!("f32 {{ return f32({name}[i]); }}"),
            (false, Item::Vec4) => format!("vec4<f32> {{ return {family}_pair({name}[i]); }}"),
            (false, Item::F32) => format!("f32 {{ return {family}_half({name}[i / 2u], i); }}"),
            (false, Item::Bits) => format!("u32 {{ return {family}_bits({name}[i / 2u], i); }}"),
        };
        let _ = writeln!(stored, "fn read_{name}(i: u32) -> {body}");
    }
    if accesses.writes {
        let body = match (native, item) {
            (_, Item::Bits) => panic!("`{name}` is written as bits"),
            (_, Item::Vec4) => {
                assert!(!native, "whole words of `{name}` are written packed");
                format!("vec4<f32>) {{ let h = {family}_from(x); {name}[i] = h.xz | (h.yw << vec2(16u)); }}")
            }
            // The number is one of f16 by then, so that no driver rounds it.
            (true, Item::F32) => format!("f32) {{ {name}[i] = f16(f16_half(f16_from(vec4(x)).x, 0u)); }}"),
            (false, Item::F32) => format!(
                "f32) {{ let half = {family}_from(vec4(x)).x; \
                 {name}[i / 2u] = insertBits({name}[i / 2u], half, 16u * (i & 1u), 16u); }}"
            ),
        };
        let _ = writeln!(stored, "fn write_{name}(i: u32, x: {body}");
    }
    stored
}

/// Changes the declaration of a buffer, and says what it was declared to hold.
fn declare(text: &str, name: &str, storage: Storage) -> (String, Item) {
    let end = format!("> {name}: array<");
    let mut found = text.match_indices(&end).filter(|(at, _)| {
        let line = text[..*at].rsplit('\n').next().unwrap_or_default();
        line.contains("var<storage") && !line.contains("//")
    });
    let (at, _) = found.next().unwrap_or_else(|| panic!("no `var<storage> {name}`"));
    assert!(found.next().is_none(), "`var<storage> {name}` stands twice");
    let start = at + end.len();
    let length = text[start..].find(">;").unwrap_or_else(|| panic!("`{name}` is not declared as an array"));
    let declared = &text[start..start + length];
    let alias = || {
        let line = text.lines().find(|line| line.starts_with(&format!("alias {declared} = ")))?;
        Some(line.split_once(" = ")?.1.split_once(';')?.0)
    };
    let item = match alias().unwrap_or(declared) {
        "f32" => Item::F32,
        "vec4<f32>" => Item::Vec4,
        "u32" => Item::Bits,
        other => panic!("`{name}` holds {other}"),
    };
    let ty = match (storage, item) {
        (Storage::NativeF16, Item::F32) => "f16",
        (Storage::NativeF16, Item::Vec4) => "vec4<f16>",
        (_, Item::Vec4) => "vec2<u32>",
        (_, Item::F32 | Item::Bits) => "u32",
    };
    (format!("{}{ty}{}", &text[..start], &text[start + length..]), item)
}

struct Accesses {
    reads: bool,
    writes: bool,
}

/// Turns `name[i]` into `read_name(i)`, and `name[i] = x;` into `write_name(i, x);`.
fn rewrite(text: &mut String, name: &str) -> Accesses {
    let mut accesses = Accesses { reads: false, writes: false };
    let mut from = 0;
    while let Some(at) = next_access(text, name, from) {
        let open = at + name.len();
        let close = open + closing(&text[open..]).unwrap_or_else(|| panic!("`{name}[` has no end"));
        let index = text[open + 1..close].to_owned();
        let rest = &text[close + 1..];
        let after = rest.trim_start_matches(' ');
        let (end, call) = if after.starts_with("= ") {
            let start = close + 1 + rest.len() - after.len() + 2;
            let length = text[start..].find(';').unwrap_or_else(|| panic!("`{name}[{index}] =` has no end"));
            accesses.writes = true;
            (start + length, format!("write_{name}({index}, {})", &text[start..start + length]))
        } else {
            let compound = ["+=", "-=", "*=", "/=", "|=", "&="].iter().any(|operator| after.starts_with(operator));
            assert!(!compound, "`{name}[{index}]` is changed in place");
            accesses.reads = true;
            (close + 1, format!("read_{name}({index})"))
        };
        text.replace_range(at..end, &call);
        // The index, and what is written, may hold further accesses.
        from = at + 1;
    }
    accesses
}

/// Where the next `name[` stands, outside of comments.
fn next_access(text: &str, name: &str, from: usize) -> Option<usize> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    text[from..].match_indices(name).map(|(at, _)| from + at).find(|&at| {
        let alone = !text[..at].ends_with(|c| is_word(c) || c == '.' || c == '&');
        let indexed = text[at + name.len()..].starts_with('[');
        alone && indexed && !text[..at].rsplit('\n').next().unwrap_or_default().contains("//")
    })
}

/// Where the bracket that `text` opens with is closed.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0;
    text.char_indices().find_map(|(at, c)| {
        depth += i32::from(c == '[') - i32::from(c == ']');
        (depth == 0).then_some(at)
    })
}

#[cfg(test)]
mod tests {
    use super::store;
    use crate::dtype::Storage;

    const KERNEL: &str = "alias Elem = vec4<f32>;\n\
        @group(0) @binding(1) var<storage, read> q: array<Elem>; // [len, q[i]]\n\
        @group(0) @binding(2) var<storage, read> k: array<f32>;\n\
        @group(0) @binding(4) var<storage, read_write> o: array<f32>;\n\
        fn main() {\n    let x = q[at[2] + 1u].x * seq[i] + p.q[i];\n    o[base + u32(k[i])] = k[k_at[i]]; // o[i] = 1\n}\n";

    #[test]
    fn accesses_become_calls() {
        let stored = store(KERNEL, "q", Storage::PackedBF16);
        assert!(stored.contains("q: array<vec2<u32>>; // [len, q[i]]"), "{stored}");
        assert!(stored.contains("let x = read_q(at[2] + 1u).x * seq[i] + p.q[i];"), "{stored}");
        assert!(stored.ends_with("}\nfn read_q(i: u32) -> vec4<f32> { return bf16_pair(q[i]); }\n"), "{stored}");

        let stored = store(&store(KERNEL, "o", Storage::PackedF16), "k", Storage::NativeF16);
        assert!(stored.contains("k: array<f16>;") && stored.contains("o: array<u32>;"), "{stored}");
        assert!(stored.contains("    write_o(base + u32(read_k(i)), read_k(k_at[i])); // o[i] = 1"), "{stored}");
        assert!(stored.contains("fn read_k(i: u32) -> f32 { return f32(k[i]); }"), "{stored}");
        assert!(stored.contains("insertBits(o[i / 2u], half, 16u * (i & 1u), 16u)"), "{stored}");
        assert!(!stored.contains("read_o"), "{stored}");
    }

    #[test]
    #[should_panic(expected = "no `var<storage> bias`")]
    fn an_operand_that_is_not_bound_is_found() {
        store(KERNEL, "bias", Storage::PackedF16);
    }
}
