//! From a WGSL file with concrete numbers in it to the source of one specialization.

use std::fmt;

use crate::dtype::Storage;
use crate::storage;

/// A file under `shaders/`.
#[derive(Debug)]
pub struct Source {
    /// Path below `shaders/`, without the extension: `attention/tiled`.
    pub path: &'static str,
    /// The file's text.
    pub text: &'static str,
}

// A source is its path: two with the same path have the same text.
impl PartialEq for Source {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path
    }
}
impl Eq for Source {}
impl std::hash::Hash for Source {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.path.hash(state);
    }
}

/// Embeds `shaders/<path>.wgsl`, whose path may come in pieces, as a `&'static Source`.
macro_rules! source {
    ($($piece:literal),+) => {{
        static SOURCE: $crate::wgsl::Source = $crate::wgsl::Source {
            path: concat!($($piece),+),
            text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/", $($piece,)+ ".wgsl")),
        };
        &SOURCE
    }};
}
pub(crate) use source;

/// The file of what a call may lack: without `no_` in its name if it is given.
macro_rules! optional {
    ($given:expr, $folder:literal, $name:literal) => {
        if $given { $crate::wgsl::source!($folder, $name) } else { $crate::wgsl::source!($folder, "no_", $name) }
    };
}
pub(crate) use optional;

/// Either, as an option has it.
pub(crate) fn pick<T>(on: bool, yes: T, no: T) -> T {
    if on { yes } else { no }
}

/// The file that reads or writes four numbers of a row, at once or one by one.
macro_rules! fours {
    ($vec4:expr, $folder:literal, $name:literal) => {
        if $vec4 {
            $crate::wgsl::source!($folder, $name, "_vec4")
        } else {
            $crate::wgsl::source!($folder, $name, "_scalar")
        }
    };
}
pub(crate) use fours;

/// The right-hand side of one specialization constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Constant {
    /// `const NAME: u32 = …;`
    U32(u32),
    /// `const NAME: bool = …;`
    Bool(bool),
    /// `alias NAME = …;`
    Type(&'static str),
}

impl fmt::Display for Constant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::U32(value) => write!(f, "{value}u"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Type(name) => f.write_str(name),
        }
    }
}

/// What stands before kernels with cooperative matrices. naga finds these in control flow that may vary wherever a condition was
/// ever a local variable or came from a function; its rule for derivatives, of which a compute shader has none, is the switch.
const MATRICES: &str = "enable f16; enable wgpu_cooperative_matrix; diagnostic(off, derivative_uniformity); ";

/// What shapes a kernel's code; the key of the pipeline cache, and by its `Display` the pipeline's label.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Specialization {
    /// The kernel's own file.
    pub kernel: &'static Source,
    /// New right-hand sides for the constants the kernel opens with.
    pub constants: Vec<(&'static str, Constant)>,
    /// Files appended to the kernel's: optional operands and shared functions.
    pub fragments: Vec<&'static Source>,
    /// Operands that are not stored as the files declare them.
    pub storage: Vec<(&'static str, Storage)>,
}

impl Specialization {
    /// The kernel with these operands stored as the caller has them.
    #[must_use]
    pub fn stored(mut self, operands: impl IntoIterator<Item = (&'static str, Storage)>) -> Self {
        for (name, storage) in operands {
            if matches!(storage, Storage::Plain(_)) {
                continue;
            }
            self.storage.push((name, storage));
            let conversions = storage::conversions(storage).filter(|source| !self.fragments.contains(source));
            self.fragments.extend(conversions);
        }
        self
    }

    /// The WGSL to compile: the kernel's file with its constants replaced, then the fragments, with operands stored as they
    /// are (see [`storage::store`]) and loops unrolled that ask for it (see [`unroll`]). Lines keep their numbers.
    ///
    /// # Panics
    /// If a constant does not stand exactly once in the kernel's file, an operand is used in a way that cannot be stored, or
    /// a loop cannot be unrolled; `tests/shaders.rs` meets that first.
    #[must_use]
    pub fn wgsl(&self) -> String {
        let mut lines: Vec<String> = self.kernel.text.lines().map(str::to_owned).collect();
        for (name, value) in &self.constants {
            let keyword = if matches!(value, Constant::Type(_)) { "alias" } else { "const" };
            let mut hits = lines.iter_mut().filter(|line| declares(line, keyword, name));
            let line = hits.next().unwrap_or_else(|| panic!("{}: no `{keyword} {name}`", self.kernel.path));
            assert!(hits.next().is_none(), "{}: `{keyword} {name}` stands twice", self.kernel.path);
            let (left, right) = line.split_once('=').expect("a declaration has a right-hand side");
            let comment = right.split_once(';').map_or("", |(_, rest)| rest);
            *line = format!("{left}= {value};{comment}");
        }
        let mut text = lines.join("\n");
        text.push('\n');
        for fragment in &self.fragments {
            text.push_str(fragment.text);
        }
        for (name, storage) in &self.storage {
            text = storage::store(&text, name, *storage);
        }
        // Directives come before all else; on the first line, they move no other.
        let native = self.storage.iter().any(|(_, storage)| *storage == Storage::NativeF16);
        let directives = match (self.uses_matrices(), native) {
            (true, _) => MATRICES,
            (false, true) => "enable f16; ",
            (false, false) => "",
        };
        directives.to_owned() + &unroll(&text)
    }

    /// Whether it multiplies cooperative matrices, as a fragment says by its name: that takes f16 and subgroups as well.
    #[must_use]
    pub fn uses_matrices(&self) -> bool {
        self.fragments.iter().any(|source| source.path.starts_with("shared/matrices_"))
    }

    /// What the host fills, as the files declare it.
    ///
    /// # Panics
    /// If a declaration is not on a line of its own, or of another type than the uniforms here have; `tests/shaders.rs` meets
    /// that first.
    #[must_use]
    pub fn interface(&self) -> Interface {
        let mut interface = Interface { bindings: Vec::new(), params: Vec::new(), divisors: self.divisors() };
        let mut inside = false;
        let sources = std::iter::once(self.kernel).chain(self.fragments.iter().copied());
        for line in sources.flat_map(|source| source.text.lines()) {
            let declaration =
                line.strip_prefix("@group(0) @binding(").and_then(|rest| rest.split_once(") var<storage"));
            if let Some((number, rest)) = declaration {
                let name = rest.split_once("> ").and_then(|(_, rest)| rest.split_once(':')).map(|(name, _)| name);
                let number = number.parse().unwrap_or_else(|_| panic!("{line}"));
                interface.bindings.push((number, name.unwrap_or_else(|| panic!("{line}")).to_owned()));
            }
            if line == "struct Params {" || line == "}" {
                inside = line != "}";
            } else if inside {
                let field = line.split_once("//").map_or(line, |(code, _)| code).trim().trim_end_matches(',');
                let Some((name, scalar)) = field.split_once(": ") else { continue };
                let scalar = match scalar {
                    "u32" => Scalar::U32,
                    "i32" => Scalar::I32,
                    "f32" => Scalar::F32,
                    _ => panic!("{line}"),
                };
                interface.params.push((name.to_owned(), scalar));
            }
        }
        interface
    }

    /// The fields of the uniform that stand behind `/` or `%`.
    fn divisors(&self) -> Vec<String> {
        let sources = std::iter::once(self.kernel).chain(self.fragments.iter().copied());
        let code = sources.flat_map(|source| source.text.lines().filter_map(|line| line.split("//").next()));
        let operands = code.flat_map(|line| line.split(['/', '%']).skip(1));
        let fields = operands.filter_map(|text| text.trim_start().strip_prefix("params."));
        let names = fields.filter_map(|text| text.split(|c: char| !c.is_alphanumeric() && c != '_').next());
        names.map(str::to_owned).collect()
    }

    /// Rewrites a line number of [`wgsl`](Self::wgsl) as the file and line it came from.
    #[must_use]
    pub fn locate(&self, line: usize) -> (&'static str, usize) {
        let mut rest = line;
        for source in std::iter::once(self.kernel).chain(self.fragments.iter().copied()) {
            let count = source.text.lines().count();
            if rest <= count {
                return (source.path, rest);
            }
            rest -= count;
        }
        (self.kernel.path, line)
    }
}

/// Each specialization once.
pub(crate) fn distinct(mut all: Vec<Specialization>) -> Vec<Specialization> {
    let mut seen = std::collections::HashSet::new();
    all.retain(|specialization| seen.insert(specialization.clone()));
    all
}

/// What the host fills of a kernel, by the names that the WGSL has for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Storage buffers: `@binding` numbers and variables.
    pub bindings: Vec<(u32, String)>,
    /// The fields of `Params`, the uniform at binding 0, four bytes each.
    pub params: Vec<(String, Scalar)>,
    /// Those that stand behind `/` or `%`.
    pub divisors: Vec<String>,
}

/// The type of a field of a uniform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar {
    /// Unsigned: sizes, places, flags.
    U32,
    /// Signed: distances between queries and keys.
    I32,
    /// Factors.
    F32,
}

fn declares(line: &str, keyword: &str, name: &str) -> bool {
    line.strip_prefix(keyword)
        .and_then(|rest| rest.trim_start().strip_prefix(name))
        .is_some_and(|rest| rest.trim_start().starts_with([':', '=']))
}

/// Writes out every loop of the form `for (var i = FIRST; i < END; i++) { // unroll`, or `// unroll if FLAG` where FLAG is
/// true: WGSL cannot ask a driver for that, and an array that a loop indexes is no set of registers before it is done.
/// FIRST and END are constant expressions, FLAG a constant. The copies stand in the loop's first line.
fn unroll(text: &str) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    // From the last loop to the first, so that a loop within a loop is done before it is copied.
    for first in (0..lines.len()).rev() {
        let Some((head, flag)) = lines[first].split_once("{ // unroll") else { continue };
        if flag.strip_prefix(" if ").is_some_and(|flag| declared(text, flag.trim()) == Some("false")) {
            continue;
        }
        let indent = &head[..head.len() - head.trim_start().len()];
        let (index, from, to) = loop_bounds(text, head).unwrap_or_else(|| panic!("cannot unroll `{}`", head.trim()));
        let end = format!("{indent}}}");
        let length = lines[first..].iter().position(|line| *line == end);
        let last = first + length.unwrap_or_else(|| panic!("no end of `{}`", head.trim()));
        let code = |line: &String| line.split("//").next().unwrap_or_default().trim().to_owned();
        let body = lines[first + 1..last].iter().map(code).collect::<Vec<_>>().join(" ");
        let copies = (from..to).map(|i| format!("{{ {} }} ", substitute(&body, index, &format!("{i}u"))));
        lines[first] = indent.to_owned() + &copies.collect::<String>();
        lines[first + 1..=last].fill(String::new());
    }
    lines.join("\n") + "\n"
}

/// Index, first value and end of `for (var index = first; index < end; index++)`.
fn loop_bounds<'a>(text: &str, head: &'a str) -> Option<(&'a str, u32, u32)> {
    let (start, rest) = head.trim().strip_prefix("for (var ")?.split_once(';')?;
    let (index, first) = start.split_once(" = ")?;
    let (condition, step) = rest.split_once(';')?;
    let end = condition.trim().strip_prefix(index)?.strip_prefix(" < ")?;
    (step.trim() == format!("{index}++)")).then_some(())?;
    Some((index, evaluate(text, first)?, evaluate(text, end)?))
}

/// The value of a u32 constant expression: literals, constants of the text, `+ - * /` and brackets.
fn evaluate(text: &str, expression: &str) -> Option<u32> {
    let expression = expression.trim();
    // The operator that binds least, the last of its kind, splits the expression.
    for operators in [['+', '-'], ['*', '/']] {
        let mut depth = 0;
        for (at, c) in expression.char_indices().rev() {
            match c {
                ')' => depth += 1,
                '(' => depth -= 1,
                _ if depth == 0 && operators.contains(&c) => {
                    let (left, right) = (evaluate(text, &expression[..at])?, evaluate(text, &expression[at + 1..])?);
                    return match c {
                        '+' => left.checked_add(right),
                        '-' => left.checked_sub(right),
                        '*' => left.checked_mul(right),
                        _ => left.checked_div(right),
                    };
                }
                _ => {}
            }
        }
    }
    if let Some(inner) = expression.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) {
        return evaluate(text, inner);
    }
    match expression.strip_suffix('u').unwrap_or(expression).parse() {
        Ok(value) => Some(value),
        Err(_) => evaluate(text, declared(text, expression)?),
    }
}

/// What the text declares the constant `name` to be.
fn declared<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| declares(line, "const", name))?;
    Some(line.split_once('=')?.1.split_once(';')?.0.trim())
}

/// `text` with every identifier `name` replaced; members of that name stay.
fn substitute(text: &str, name: &str, by: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let end = rest.find(|c| is_word(c) != is_word(first)).unwrap_or(rest.len());
        let (part, after) = rest.split_at(end);
        result.push_str(if part == name && !result.ends_with('.') { by } else { part });
        rest = after;
    }
    result
}

impl fmt::Display for Specialization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kernel.path)?;
        for (name, value) in &self.constants {
            let name = name.to_lowercase();
            match value {
                Constant::U32(value) => write!(f, " {name}={value}")?,
                Constant::Bool(true) => write!(f, " {name}")?,
                Constant::Bool(false) => {}
                Constant::Type(ty) => write!(f, " {ty}")?,
            }
        }
        for (name, storage) in &self.storage {
            write!(f, " {name}:{storage:?}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{evaluate, unroll};

    #[test]
    fn constant_expressions_are_evaluated() {
        let text = "const A: u32 = 7u; // a comment = 3;\nconst B: u32 = (A + 3u) / 4u;\n";
        let value = |expression| evaluate(text, expression);
        assert_eq!(value("A"), Some(7));
        assert_eq!(value("B * (A - 5u) + 1"), Some(5));
        assert_eq!(value("A - 2u - 3u"), Some(2), "from the left");
        assert_eq!(value("C"), None);
        assert_eq!(value("A / 0u"), None);
    }

    #[test]
    fn loops_are_unrolled_where_they_ask_for_it() {
        let text = "const N: u32 = 2u;\nconst OFF: bool = false;\n\
            for (var i = 0u; i < N; i++) { // unroll\n    \
                for (var j = 1u; j < N + 1u; j++) { // unroll\n        a.i[i] = bi(j); // not i\n    }\n}\n\
            for (var i = 0u; i < N; i++) { // unroll if OFF\n    x(i);\n}\n";
        let lines: Vec<_> = text.lines().collect();
        let unrolled = unroll(text);
        let found: Vec<_> = unrolled.lines().collect();
        assert_eq!(found.len(), lines.len(), "lines keep their numbers");
        let squeezed = found[2].split_whitespace().collect::<String>();
        assert_eq!(squeezed, "{{a.i[0u]=bi(1u);}{a.i[0u]=bi(2u);}}{{a.i[1u]=bi(1u);}{a.i[1u]=bi(2u);}}");
        assert_eq!(found[7..], lines[7..], "as it was");
    }
}
