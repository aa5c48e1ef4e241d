//! How the runs of a check went.

use jiff::Timestamp;
use serde::Serialize;

use super::Scene;
use super::guard::GuardReport;
use super::text::{Tone, age, paint, table};
use crate::analysis::Checked;

/// How the runs of a check went.
#[derive(Serialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CheckReport {
    /// Runs that passed, in the whole release.
    pub passed: u32,
    /// Runs that failed, in the whole release.
    pub failed: u32,
    /// How many may fail; one more rolls the release back.
    pub failure_limit: u32,
    /// Runs that passed in the present step.
    pub passed_in_step: u32,
    /// How many must pass in a step.
    pub successes: u32,
    /// When it last ran; absent before it ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_at: Option<Timestamp>,
    /// Whether the last run with an answer passed; absent before there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_passed: Option<bool>,
    /// What the last run with an answer saw.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_result: Option<String>,
    /// Why the last run had no answer; absent when it had one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_data: Option<String>,
}

impl CheckReport {
    pub(super) fn new(check: &Checked) -> Self {
        let state = &check.state;
        Self {
            passed: state.passed,
            failed: state.failed,
            failure_limit: check.failure_limit,
            passed_in_step: state.passed_in_step,
            successes: check.successes,
            last_at: state.last_at.as_ref().map(|at| at.0),
            last_passed: state.last_result.is_some().then_some(state.last),
            last_result: state.last_result.clone(),
            no_data: state.no_data.clone(),
        }
    }

    /// The state in some words, for a line with others.
    pub(super) fn short(&self) -> String {
        let failed = if self.failed > 0 { format!(", failed {}", self.failed) } else { String::new() };
        format!("passed {} of {} this step{failed}", self.passed_in_step, self.successes)
    }
}

/// The checks among the guards as a table; empty without any.
pub(super) fn check_table(guards: &[GuardReport], scene: &Scene, indent: usize) -> String {
    let row = |guard: &GuardReport| {
        let check = guard.check.as_ref()?;
        let step = format!("{} of {}", check.passed_in_step, check.successes);
        let failed = format!("{} ({} may)", check.failed, check.failure_limit);
        let last = match (&check.no_data, &check.last_result) {
            (Some(reason), _) => format!("no answer: {reason}"),
            (None, Some(result)) => result.clone(),
            (None, None) => "no run yet".to_owned(),
        };
        let ago = check.last_at.map(|at| format!(" ({} ago)", age(at, scene.now))).unwrap_or_default();
        Some(vec![
            guard.name.clone(),
            if check.passed_in_step >= check.successes { paint(scene, Tone::Good, &step) } else { step },
            if check.failed > check.failure_limit { paint(scene, Tone::Bad, &failed) } else { failed },
            check.passed.to_string(),
            format!("{last}{ago}"),
        ])
    };
    let rows: Vec<Vec<String>> = guards.iter().filter_map(row).collect();
    if rows.is_empty() {
        return String::new();
    }
    table(scene, indent, &["CHECK", "PASSED THIS STEP", "FAILED", "PASSED", "LAST"], &rows)
}
