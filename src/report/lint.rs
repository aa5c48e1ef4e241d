//! What `lint` found, with the lines it speaks of.

use std::collections::BTreeMap;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use serde::Serialize;

use super::text::plural;
use super::{Report, Scene};

/// All findings.
#[derive(Serialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct LintReport {
    /// How many files were read.
    pub files: usize,
    /// How many Rollouts they hold.
    pub rollouts: usize,
    /// The findings, by file and line.
    pub findings: Vec<Finding>,
    /// The texts of the files, to show lines of them.
    #[serde(skip)]
    pub sources: BTreeMap<String, String>,
}

/// One finding.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The check that found it, as a code.
    pub code: &'static str,
    /// The file; `-` is standard input.
    pub file: String,
    /// From 1; 0 when it is not known.
    pub line: usize,
    /// In characters, from 1; 0 when it is not known.
    pub column: usize,
    /// The field, such as `spec.strategy.canary.steps[0].weight`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// The bytes of the file that it speaks of.
    #[serde(skip)]
    pub bytes: Range<usize>,
}

/// How bad a finding is.
#[derive(Serialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub enum Severity {
    /// The cluster would refuse it, or it cannot work.
    Error,
    /// Worth knowing.
    Note,
}

impl LintReport {
    /// How many findings are errors.
    pub fn errors(&self) -> usize {
        self.findings.iter().filter(|finding| finding.severity == Severity::Error).count()
    }
}

impl Report for LintReport {
    const KIND: &'static str = "Lint";

    fn text(&self, scene: &Scene) -> String {
        let renderer = if scene.color { Renderer::styled() } else { Renderer::plain() };
        let mut text = String::new();
        for finding in &self.findings {
            text.push_str(&snippet(finding, self.sources.get(&finding.file), &renderer));
            text.push_str("\n\n");
        }
        let notes = self.findings.len() - self.errors();
        let place = format!("{} in {}", plural(self.rollouts, "Rollout"), plural(self.files, "file"));
        let verdict = match (self.errors(), notes) {
            (0, 0) => format!("{place}: nothing to say\n"),
            (0, _) => format!("{place}: no errors, {}\n", plural(notes, "note")),
            (errors, 0) => format!("{place}: {}\n", plural(errors, "error")),
            (errors, _) => format!("{place}: {}, {}\n", plural(errors, "error"), plural(notes, "note")),
        };
        text + &verdict
    }

    fn names(&self) -> Vec<String> {
        self.findings
            .iter()
            .map(|finding| format!("{}:{}:{}", finding.file, finding.line, finding.column))
            .collect()
    }
}

fn snippet(finding: &Finding, source: Option<&String>, renderer: &Renderer) -> String {
    let level = match finding.severity {
        Severity::Error => Level::ERROR,
        Severity::Note => Level::NOTE,
    };
    let title = level.primary_title(finding.message.as_str()).id(finding.code);
    let mut group = match source {
        Some(source) if finding.line > 0 => {
            let end = finding.bytes.end.min(source.len());
            let start = finding.bytes.start.min(end);
            title.element(
                Snippet::source(source.as_str())
                    .path(finding.file.as_str())
                    .annotation(AnnotationKind::Primary.span(start..end)),
            )
        }
        _ => title.element(Level::NOTE.message(format!("in {}", finding.file))),
    };
    if let Some(help) = &finding.help {
        group = group.element(Level::HELP.message(help.as_str()));
    }
    renderer.render(&[group])
}
