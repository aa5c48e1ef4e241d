//! `lint`: checks files with Rollouts, offline, with line and column.
//!
//! May touch: the files named, standard input. Must never: ask a cluster.

mod checks;
mod document;
mod source;
mod traffic;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use serde_json::Value;

use super::args::Lint;
use super::failure::{Exit, Failure};
use super::session::Session;
use crate::api::validate::validate;
use crate::api::{GROUP, Rollout};
use crate::install;
use crate::report::lint::{Finding, LintReport, Severity};
use checks::Found;
use document::{Node, Place};

/// Checks the files.
pub fn run(session: &Session, args: &Lint) -> Result<Exit, Failure> {
    let mut sources = Vec::new();
    for file in &args.files {
        sources.push((file.display().to_string(), read(file)?));
    }
    let report = check(&sources, args.replicas);
    session.print(&report)?;
    Ok(if report.errors() > 0 { Exit::ERROR } else { Exit::OK })
}

/// A file of text, or standard input.
pub(super) fn read(file: &Path) -> Result<String, Failure> {
    let tried = format!("failed to read {}", file.display());
    let bytes = if file == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::stdin()
            .read_to_end(&mut bytes)
            .map_err(|error| Failure::io("failed to read standard input", &error))?;
        bytes
    } else {
        std::fs::read(file).map_err(|error| Failure::io(tried.clone(), &error))?
    };
    String::from_utf8(bytes)
        .map_err(|_| Failure::new(super::failure::Kind::Failed, tried).because("it is not UTF-8 text"))
}

/// A Rollout in a file.
struct Located {
    file: String,
    node: Node,
    rollout: Option<Rollout>,
}

/// Checks texts by the names of their files.
fn check(sources: &[(String, String)], replicas: Option<u32>) -> LintReport {
    let crd = install::crd_of("Rollout").unwrap_or_default();
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let mut report =
        LintReport { files: sources.len(), sources: sources.iter().cloned().collect(), ..Default::default() };
    let mut located = Vec::new();
    let mut objects = traffic::Objects::new();
    let mut sizes: BTreeMap<(String, String), u32> = BTreeMap::new();
    for (file, source) in sources {
        let documents = match document::documents(source) {
            Ok(documents) => documents,
            Err(error) => {
                let (place, message) = document::error_place(&error);
                let message = format!("this is not YAML: {message}");
                let found = Found {
                    severity: Severity::Error,
                    code: "yaml",
                    field: String::new(),
                    message,
                    help: None,
                };
                report.findings.push(finding(file, source, place, found));
                continue;
            }
        };
        for node in documents.into_iter().flat_map(items) {
            let kind = node.text(&["kind"]).unwrap_or_default().to_owned();
            let api = node.text(&["apiVersion"]).unwrap_or_default().to_owned();
            if kind == "Deployment" && api == "apps/v1" {
                let pods = node.json().pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or(1);
                sizes.insert(key(&node, &["metadata", "name"]), u32::try_from(pods).unwrap_or(u32::MAX));
            }
            if traffic::carries(&kind, &api) {
                let (namespace, name) = key(&node, &["metadata", "name"]);
                objects.insert((kind.clone(), namespace, name), node.json());
            }
            if kind == "Rollout" && api.starts_with(&format!("{GROUP}/")) {
                located.push(Located { file: file.clone(), node, rollout: None });
            }
        }
    }
    report.rollouts = located.len();
    for one in &mut located {
        let mut found = checks::unknown_fields(schema, &one.node);
        found.extend(against_schema(&crd, one));
        if let Some(rollout) = &one.rollout {
            let pods =
                replicas.or_else(|| sizes.get(&key(&one.node, &["spec", "workloadRef", "name"])).copied());
            let refused: Vec<String> = found.iter().map(|known| known.field.clone()).collect();
            // What is wrong with a source as a whole is said once, by whoever names its part.
            let known = |new: &Found| {
                refused.iter().any(|field| {
                    *field == new.field || (new.code == source::CODE && field.starts_with(&new.field))
                })
            };
            let mut more = checks::rollout(rollout, pods);
            traffic::check(rollout, pods, &objects, &mut more);
            found.extend(more.into_iter().filter(|new| !known(new)));
        }
        add(&mut report, &one.file, &one.node, found);
    }
    twice(&mut report, &located);
    if located.is_empty() && report.findings.is_empty() {
        let message = "there is no Rollout of belay.dev/v1alpha1 in these files".to_owned();
        let found =
            Found { severity: Severity::Note, code: "no-rollout", field: String::new(), message, help: None };
        let file = sources.first().map_or("-", |(file, _)| file);
        report.findings.push(finding(file, "", Place::default(), found));
    }
    report.findings.sort_by(|a, b| {
        (&a.file, a.line, a.column, a.severity).cmp(&(&b.file, b.line, b.column, b.severity))
    });
    report
}

/// The objects of a `List`, or the object itself.
fn items(node: Node) -> Vec<Node> {
    if node.text(&["kind"]) == Some("List")
        && let Some(document::Tree::List(items)) = node.get("items").map(|items| &items.value)
    {
        return items.clone();
    }
    vec![node]
}

/// Namespace and the name at a path.
fn key(node: &Node, path: &[&str]) -> (String, String) {
    let text = |path| node.text(path).unwrap_or_default().to_owned();
    (text(&["metadata", "namespace"]), text(path))
}

/// Schema, rules and types; puts the typed Rollout into its place when it is readable.
fn against_schema(crd: &Value, one: &mut Located) -> Vec<Found> {
    let error = |field: String, message: String| Found {
        severity: Severity::Error,
        code: "schema",
        field,
        message,
        help: None,
    };
    let mut json = one.node.json();
    // Unknown fields have been named with a proposal already.
    let refused =
        validate(crd, &json).into_iter().filter(|refused| !refused.message.contains("unknown field"));
    let mut found: Vec<Found> = refused.map(|refused| error(refused.path, refused.message)).collect();
    // What is unknown must not hide what else is wrong.
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    if let Some(spec) = json.get_mut("spec") {
        checks::prune(schema, spec);
    }
    match serde_json::from_value::<Rollout>(json) {
        Ok(rollout) => one.rollout = Some(rollout),
        Err(why) if found.is_empty() => found.push(error("spec".to_owned(), why.to_string())),
        Err(_) => {}
    }
    found
}

/// Two Rollouts with one name, or for one workload.
fn twice(report: &mut LintReport, located: &[Located]) {
    for (i, one) in located.iter().enumerate() {
        for (path, what) in
            [(["metadata", "name"].as_slice(), "name"), (&["spec", "workloadRef", "name"], "workload")]
        {
            let mine = key(&one.node, path);
            let first = located[..i].iter().find(|other| key(&other.node, path) == mine);
            let Some(first) = first.filter(|_| !mine.1.is_empty()) else { continue };
            let line = first.node.locate(&path.join(".")).line;
            let found = Found {
                severity: Severity::Error,
                code: "twice",
                field: path.join("."),
                message: format!(
                    "a second Rollout for the {what} {}; the first is in {} line {line}",
                    mine.1, first.file
                ),
                help: Some("a workload is governed by one Rollout; remove one of the two".to_owned()),
            };
            add(report, &one.file, &one.node, vec![found]);
        }
    }
}

fn add(report: &mut LintReport, file: &str, node: &Node, found: Vec<Found>) {
    let source = report.sources.get(file).cloned().unwrap_or_default();
    for one in found {
        let place =
            if one.code == "unknown-field" { node.locate_key(&one.field) } else { node.locate(&one.field) };
        report.findings.push(finding(file, &source, place, one));
    }
}

fn finding(file: &str, source: &str, place: Place, found: Found) -> Finding {
    Finding {
        severity: found.severity,
        code: found.code,
        file: file.to_owned(),
        line: place.line,
        column: place.column,
        bytes: place.bytes(source),
        field: found.field,
        message: found.message,
        help: found.help,
    }
}
