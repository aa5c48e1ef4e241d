//! The rules of the code that no compiler holds: who may import whom, and what must not be in `src/`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Modules and what each may import; `*` is everything but the three at the top. A folder within a module may
/// have a line of its own, which then holds instead.
const EDGES: &[(&str, &[&str])] = &[
    ("api", &[]),
    ("clock", &[]),
    ("analysis", &["api"]),
    ("analysis/query", &["api", "cluster"]),
    ("traffic", &["api"]),
    ("policy", &["api"]),
    ("drift", &["api"]),
    ("cluster", &["api", "clock"]),
    ("decide", &["api", "analysis", "traffic", "policy"]),
    ("observe", &["api", "decide", "cluster", "analysis", "clock"]),
    ("act", &["api", "decide", "cluster", "analysis", "clock"]),
    ("changeset", &["api", "policy", "drift"]),
    ("report", &["api", "analysis", "decide"]),
    ("install", &["api", "cluster"]),
    ("webhook", &["api", "clock", "install"]),
    ("operator", &["*", "server"]),
    ("server", &["*", "operator"]),
    ("cli", &["*", "operator", "server"]),
];

/// Only these may be imported by nobody below them.
const TOP: &[&str] = &["operator", "cli", "server"];

const MOST_LINES: usize = 700;

/// Words that must not be in the code; put together here so that this file may name them.
const FORBIDDEN: &[(&str, &str)] = &[
    ("todo!", "finish it, or leave it out"),
    ("unimplemented!", "finish it, or leave it out"),
    ("#[ignore", "a test that is not run shows nothing; repair or delete it"),
    ("#[allow(", "use #[expect(…, reason = \"…\")]"),
    ("#![allow(", "use #![expect(…, reason = \"…\")]"),
];

fn files_in(folder: &str) -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, into: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, into);
            } else if path.extension().is_some_and(|e| e == "rs") {
                into.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    walk(&root.join(folder), &mut paths);
    paths.sort();
    paths
        .into_iter()
        .map(|p| (p.strip_prefix(root).unwrap().to_owned(), std::fs::read_to_string(&p).unwrap()))
        .collect()
}

/// The code without comments, so that documentation may name what it likes.
fn code(source: &str) -> String {
    source.lines().map(|line| line.split("//").next().unwrap_or_default()).fold(
        String::new(),
        |mut out, line| {
            let _ = writeln!(out, "{line}");
            out
        },
    )
}

/// The top-level modules of this crate that a source names in `crate::…` paths.
fn imports(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    for rest in source.split("crate::").skip(1) {
        let rest = rest.trim_start();
        let names: Vec<&str> = match rest.strip_prefix('{') {
            // `use crate::{api, decide::{Effect, Reason}}`: the names at the first level.
            Some(group) => first_level(group),
            None => vec![rest],
        };
        for name in names {
            let end = name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(name.len());
            found.push(name[..end].to_owned());
        }
    }
    found
}

fn first_level(group: &str) -> Vec<&str> {
    let (mut depth, mut start, mut names) = (0_usize, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                names.push(group[start..at].trim());
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.push(group[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    names.retain(|n| !n.is_empty());
    names
}

/// What stands against an import of `to` in `from`.
fn objection(from: &str, to: &str) -> Option<String> {
    let allowed: BTreeMap<&str, &[&str]> = EDGES.iter().copied().collect();
    let known = |module: &str| allowed.contains_key(module);
    // A name with a capital is an item that lib.rs re-exports; a macro or constant of the crate itself.
    if from.split('/').next() == Some(to) || to.starts_with(char::is_uppercase) {
        return None;
    }
    if !known(to) {
        return Some(format!("imports crate::{to}, a module that the list of edges does not know"));
    }
    let may = allowed.get(from)?;
    let fits = may.contains(&to) || (may.contains(&"*") && !TOP.contains(&to));
    (!fits).then(|| format!("must not import crate::{to}; it may import: {}", may.join(", ")))
}

#[test]
fn modules_import_only_what_they_may() {
    let mut wrong = Vec::new();
    for (path, source) in files_in("src") {
        let parts: Vec<&str> = path.iter().skip(1).filter_map(|p| p.to_str()).collect();
        let name = parts[0].trim_end_matches(".rs");
        if ["lib", "main"].contains(&name) {
            continue;
        }
        let known = |module: &str| EDGES.iter().any(|(name, _)| *name == module);
        if !known(name) {
            let path = path.display();
            wrong.push(format!(
                "{path}: module {name} is not in the list of edges; add it with what it may import"
            ));
        }
        let folder = format!("{name}/{}", parts.get(1).unwrap_or(&"").trim_end_matches(".rs"));
        let name = if known(&folder) { folder.as_str() } else { name };
        for to in imports(&code(&source)) {
            if let Some(objection) = objection(name, &to) {
                wrong.push(format!("{}: {objection}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn sources_hold_no_loose_ends() {
    let mut wrong = Vec::new();
    for (path, source) in [files_in("src"), files_in("tests")].concat() {
        let lines = source.lines().count();
        if lines > MOST_LINES {
            wrong.push(format!(
                "{}: {lines} lines; over {MOST_LINES} it is looking for its parts",
                path.display()
            ));
        }
        if path.ends_with("architecture.rs") {
            continue;
        }
        let code = code(&source);
        for (word, instead) in FORBIDDEN {
            if let Some(line) = code.lines().position(|l| l.contains(word)) {
                wrong.push(format!("{}:{}: {word} — {instead}", path.display(), line + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_source_file_says_what_it_is_for() {
    let without: Vec<String> = files_in("src")
        .iter()
        .filter(|(path, source)| {
            !path.ends_with("main.rs") && !path.ends_with("tests.rs") && !source.starts_with("//!")
        })
        .map(|(path, _)| path.display().to_string())
        .collect();
    assert!(without.is_empty(), "without a header `//! …`: {}", without.join(", "));
}

#[test]
fn imports_are_found_in_every_form() {
    let source = "use crate::api::{Rollout, Release};\nuse crate::{decide, act::{self, Effect}, clock};\n\
                  let x = crate::report::render(); // crate::nothing\n";
    assert_eq!(imports(&code(source)), ["api", "decide", "act", "clock", "report"]);
}

#[test]
fn the_engine_may_not_reach_up() {
    assert!(objection("decide", "operator").is_some());
    assert!(objection("decide", "cluster").is_some());
    assert!(objection("api", "install").is_some());
    assert!(objection("report", "cli").is_some());
    assert!(objection("cli", "operator").is_none());
    assert!(objection("operator", "act").is_none());
    assert!(objection("install", "nonsense").is_some());
}
