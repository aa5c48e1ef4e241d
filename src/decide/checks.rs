//! The checks of a running release: their runs are taken in, and those that are due are asked for.

use super::drive::Run;
use super::pass::Pass;
use crate::analysis::{self, check};

impl Run<'_> {
    /// Takes in what ran since the last pass, and holds what is due against the other guards.
    pub(super) fn fold_checks(&mut self, pass: &Pass<'_>) {
        let Some(plan) = self.plan().filter(|plan| plan.guards.iter().any(|guard| !guard.is_measured()))
        else {
            return;
        };
        // Before there is a canary there is nothing to say about it.
        if self.ready(pass) == 0 && pass.obs.runs.is_empty() {
            return;
        }
        let state = self.working.status.analysis.get_or_insert_default();
        *state = analysis::fold_checks(state, &plan, &pass.obs.runs, pass.now);
    }

    /// Asks for the checks that are due, and wakes for the next one.
    pub(super) fn ask_for_checks(&self, pass: &mut Pass<'_>) {
        let Some(plan) = self.plan() else { return };
        if self.ready(pass) == 0 {
            return;
        }
        let state = self.working.status.analysis.clone().unwrap_or_default();
        let (names, next) = check::due(&state, &plan, pass.now);
        pass.checks = names.into_iter().map(str::to_owned).collect();
        if let Some(next) = next {
            pass.wake(next);
        }
    }
}
