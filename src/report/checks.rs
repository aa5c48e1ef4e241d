//! The checks of `doctor`, each with a cure.

use std::fmt::Write as _;

use serde::Serialize;

use super::text::{Tone, paint, plural};
use super::{Report, Scene, release_text};

/// All checks, in the order in which they were made.
#[derive(Serialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct ChecksReport {
    /// The checks.
    pub checks: Vec<Check>,
}

/// One check.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// What was checked.
    pub name: String,
    /// What came out.
    pub result: CheckResult,
    /// What was found.
    pub detail: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cure: Option<String>,
}

/// What came out of a check.
#[derive(Serialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum CheckResult {
    /// As it should be.
    Ok,
    /// Works, but is worth a look.
    Warning,
    /// Does not work.
    Broken,
    /// Could not be checked.
    Skipped,
}

impl ChecksReport {
    /// How many checks came out like this.
    pub fn count(&self, result: CheckResult) -> usize {
        self.checks.iter().filter(|check| check.result == result).count()
    }

    /// Adds a check.
    pub fn add(&mut self, name: &str, result: CheckResult, detail: impl Into<String>, cure: Option<&str>) {
        self.checks.push(Check {
            name: name.to_owned(),
            result,
            detail: detail.into(),
            cure: cure.map(ToOwned::to_owned),
        });
    }
}

impl Report for ChecksReport {
    const KIND: &'static str = "Checks";

    fn text(&self, scene: &Scene) -> String {
        let mut text = String::new();
        for check in &self.checks {
            let (mark, tone) = match check.result {
                CheckResult::Ok => ("\u{2713}", Tone::Good),
                CheckResult::Warning => ("!", Tone::Care),
                CheckResult::Broken => ("\u{2717}", Tone::Bad),
                CheckResult::Skipped => ("-", Tone::Faint),
            };
            let _ = writeln!(text, "{} {}: {}", paint(scene, tone, mark), check.name, check.detail);
            if let Some(cure) = &check.cure {
                let cure =
                    cure.replace("`belay ", &format!("`{} ", release_text::run(scene, "belay ").trim_end()));
                let _ = writeln!(text, "    {cure}");
            }
        }
        let (broken, warnings) = (self.count(CheckResult::Broken), self.count(CheckResult::Warning));
        let verdict = match (broken, warnings) {
            (0, 0) => "Everything is in order.".to_owned(),
            (0, _) => format!("Works; {} to look at.", plural(warnings, "thing")),
            (_, 0) => format!("{} broken.", plural(broken, "thing")),
            _ => format!("{} broken, {} to look at.", plural(broken, "thing"), plural(warnings, "thing")),
        };
        let _ = writeln!(text, "\n{verdict}");
        text
    }

    fn names(&self) -> Vec<String> {
        self.checks.iter().map(|check| format!("check/{}", check.name)).collect()
    }
}
