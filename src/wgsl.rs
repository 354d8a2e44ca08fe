//! From a WGSL file with concrete numbers in it to the source of one specialization.

use std::fmt;

/// A file under `shaders/`.
#[derive(Debug)]
pub struct Source {
    /// Path below `shaders/`, without the extension: `attention/prefill`.
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

/// Embeds `shaders/<path>.wgsl` as a `&'static Source`.
macro_rules! source {
    ($path:literal) => {{
        static SOURCE: $crate::wgsl::Source = $crate::wgsl::Source {
            path: $path,
            text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/", $path, ".wgsl")),
        };
        &SOURCE
    }};
}
pub(crate) use source;

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

/// What shapes a kernel's code; the key of the pipeline cache, and by its `Display` the pipeline's label.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Specialization {
    /// The kernel's own file.
    pub kernel: &'static Source,
    /// New right-hand sides for the constants the kernel opens with.
    pub constants: Vec<(&'static str, Constant)>,
    /// Files appended to the kernel's: optional operands and shared functions.
    pub fragments: Vec<&'static Source>,
}

impl Specialization {
    /// The WGSL to compile: the kernel's file with its constants replaced, then the fragments. Lines keep their numbers.
    ///
    /// # Panics
    /// If a constant does not stand exactly once in the kernel's file; `tests/shaders.rs` meets that first.
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
        text
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

fn declares(line: &str, keyword: &str, name: &str) -> bool {
    line.strip_prefix(keyword)
        .and_then(|rest| rest.trim_start().strip_prefix(name))
        .is_some_and(|rest| rest.trim_start().starts_with([':', '=']))
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
        Ok(())
    }
}
