//! The house rules that a reviewer would otherwise have to remember: every op has all its parts, under one name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What a folder holds, sorted; nothing if there is no such folder.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let found = std::fs::read_dir(folder).into_iter().flatten();
    let mut paths: Vec<_> = found.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

/// Every file below a folder but build output.
fn files(folder: &Path) -> Vec<PathBuf> {
    let inside = entries(folder).into_iter().filter(|path| !path.ends_with("target"));
    inside.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// The files of the repository that are text, by their path from its root.
fn texts() -> Vec<(String, String)> {
    let folders = [".ci", "benches", "data", "docs", "examples", "scripts", "shaders", "src", "tests"];
    let in_root = entries(root()).into_iter().filter(|path| path.is_file());
    in_root
        .chain(folders.iter().flat_map(|folder| files(&root().join(folder))))
        .filter(|path| !path.ends_with("Cargo.lock") && !path.ends_with(".git"))
        .filter_map(|path| {
            let name = path.strip_prefix(root()).expect("a path below the root").to_string_lossy().replace('\\', "/");
            Some((name, std::fs::read_to_string(&path).ok()?))
        })
        .collect()
}

fn is_source(name: &str) -> bool {
    [".rs", ".wgsl", ".py"].iter().any(|extension| name.ends_with(extension))
}

fn report(faults: &[String]) {
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// What an op is made of, but for the shaders.
const PARTS: [&str; 6] =
    ["src/{}.rs", "src/{}/plan.rs", "src/{}/reference.rs", "tests/{}.rs", "benches/{}.rs", "tests/golden/golden_{}.py"];

/// What its backward pass is made of, where it has one.
const BACKWARD_PARTS: [&str; 2] = ["src/{}/backward/plan.rs", "src/{}/backward/reference.rs"];

/// Where an op is named once: the file, how its line starts, and what the line says of it.
const MENTIONS: [(&str, &str, &str); 5] = [
    ("src/lib.rs", "            {}: ", "its row in `for_all_ops`"),
    ("Cargo.toml", "name = \"{}\"", "its bench, with `harness = false`"),
    ("README.md", "| `{}` |", "its row in the table of ops"),
    ("docs/OP.md", "| `{}` |", "its row in the table of tensors"),
    ("CHANGELOG.md", "- `{}`", "what it is, in a line"),
];

/// The modules that are ops: those that have shaders.
fn ops() -> Vec<String> {
    let folders = entries(&root().join("shaders")).into_iter().filter(|path| !path.ends_with("shared"));
    folders.map(|folder| folder.file_name().expect("a name").to_string_lossy().into_owned()).collect()
}

#[test]
fn every_op_has_all_its_parts() {
    let mut faults = Vec::new();
    for op in ops() {
        let paths = PARTS.map(|part| part.replace("{}", &op));
        let backward = root().join(format!("src/{op}/backward.rs")).is_file();
        let passes = backward.then(|| BACKWARD_PARTS.map(|part| part.replace("{}", &op))).into_iter().flatten();
        let missing = paths.into_iter().chain(passes).filter(|path| !root().join(path).is_file());
        faults.extend(missing.map(|path| format!("op `{op}`: there is no {path}")));
        for (file, start, what) in MENTIONS {
            let text = std::fs::read_to_string(root().join(file)).unwrap_or_default();
            if !text.lines().any(|line| line.starts_with(&start.replace("{}", &op))) {
                faults.push(format!("op `{op}`: {file} lacks {what}"));
            }
        }
    }
    // And the other way round: a module with a plan is an op.
    for folder in entries(&root().join("src")).into_iter().filter(|path| path.join("plan.rs").is_file()) {
        let stem = folder.file_name().expect("a name").to_string_lossy();
        if !root().join("shaders").join(&*stem).is_dir() {
            faults.push(format!("op `{stem}`: there is no shaders/{stem}/"));
        }
    }
    report(&faults);
}

/// The modules of the crate that each module uses, as its `use crate::` lines have them.
fn uses() -> BTreeMap<String, BTreeSet<String>> {
    let names = |list: &str| -> Vec<String> {
        let words = list.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty());
        words.map(str::to_owned).collect()
    };
    let sources: Vec<_> = texts().into_iter().filter(|(name, _)| name.starts_with("src/")).collect();
    let module = |name: &str| name["src/".len()..].split(['/', '.']).next().unwrap_or_default().to_owned();
    let modules: BTreeSet<String> = sources.iter().map(|(name, _)| module(name)).filter(|name| name != "lib").collect();
    // What the root hands on: `pub use module::{Name, …};`.
    let mut exported = BTreeMap::new();
    let lib = &sources.iter().find(|(name, _)| name == "src/lib.rs").expect("a root").1;
    for statement in lib.split(';').filter_map(|statement| statement.split("pub use ").nth(1)) {
        let own = names(statement);
        let from = own.iter().find(|name| *name != "crate").cloned().unwrap_or_default();
        exported.extend(own.into_iter().map(|name| (name, from.clone())));
    }
    let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, text) in &sources {
        let own = uses.entry(module(name)).or_default();
        // Tests may look at other ops.
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for statement in code.split(';').filter_map(|statement| statement.split("use crate::").nth(1)) {
            let words = names(statement);
            let direct = words.first().filter(|word| modules.contains(*word)).cloned();
            match direct {
                Some(module) => drop(own.insert(module)),
                None => own.extend(words.iter().filter_map(|word| exported.get(word).cloned())),
            }
        }
        own.remove(&module(name));
    }
    uses
}

#[test]
fn no_circle_holds_an_op() {
    let uses = uses();
    let mut faults = Vec::new();
    for op in ops() {
        assert!(uses[&op].contains("op"), "the `use crate::` lines of {op} are found");
        // The shortest way from the op back to itself.
        let (mut ways, mut met) = (vec![vec![op.clone()]], BTreeSet::new());
        while let Some(way) = (!ways.is_empty()).then(|| ways.remove(0)) {
            let last = way.last().expect("a module").clone();
            for next in uses.get(&last).into_iter().flatten() {
                if *next == op {
                    faults.push(format!("{} -> {op}", way.join(" -> ")));
                }
                if met.insert(next.clone()) {
                    ways.push([&way[..], std::slice::from_ref(next)].concat());
                }
            }
        }
    }
    report(&faults);
}

#[test]
fn every_file_is_short_enough_to_read() {
    let limit = |name: &str| match name {
        "examples/embed.rs" | "ARCHITECTURE.md" => Some(150),
        _ => is_source(name).then_some(600),
    };
    let too_long = texts().into_iter().filter_map(|(name, text)| {
        let (lines, limit) = (text.lines().count(), limit(&name)?);
        (lines > limit).then(|| format!("{name}: {lines} lines, of at most {limit}"))
    });
    report(&too_long.collect::<Vec<_>>());
}

#[test]
fn every_shader_opens_with_what_it_does() {
    let faults = texts().into_iter().filter(|(name, _)| name.ends_with(".wgsl")).filter_map(|(name, text)| {
        let header = text.lines().take_while(|line| line.starts_with("//")).count();
        (!(1..=15).contains(&header)).then(|| format!("{name}: a header of {header} comment lines; expected 1 to 15"))
    });
    report(&faults.collect::<Vec<_>>());
}

#[test]
fn nothing_is_left_to_do_and_no_machine_is_named() {
    // In pieces, so that this file does not contain them.
    let words = [["TO", "DO"], ["FIX", "ME"], ["keep in ", "sync"], ["Keep in ", "sync"]].map(|pieces| pieces.concat());
    let places = ["home", "opt", "root", "tmp", "work"].map(|top| format!("/{top}/"));
    // A place counts at the start of a path only, not inside one.
    let inside = |c: char| c.is_alphanumeric() || "._-}".contains(c);
    let mut faults = Vec::new();
    for (name, text) in texts() {
        for (number, line) in text.lines().enumerate() {
            let word = words.iter().find(|word| line.contains(*word));
            let place = places.iter().find(|place| {
                line.match_indices(place.as_str()).any(|(at, _)| !line[..at].chars().next_back().is_some_and(inside))
            });
            faults.extend(word.or(place).map(|found| format!("{name}:{}: `{found}`", number + 1)));
        }
    }
    report(&faults);
}
