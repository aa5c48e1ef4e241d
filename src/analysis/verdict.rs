//! What the evidence so far says.

use jiff::Timestamp;

use super::evidence::NEEDED_SAFE;
use super::{GuardPlan, Plan, split};
use crate::api::evidence::AnalysisState;

/// What the evidence so far says about the canary. A rollback comes before missing data, and that before proof.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Neither proof yet.
    Collecting {
        /// The guards that are not proven safe.
        guards: Vec<Unproven>,
    },
    /// At least one guard has no data: hold.
    NoData {
        /// Since when.
        since: Timestamp,
        /// Why.
        reason: String,
    },
    /// The requests are not shared as the pods are: the numbers may not be those of the versions. Hold.
    Skewed {
        /// Requests of the canary in this step.
        canary: f64,
        /// Requests of both versions.
        all: f64,
        /// Requests that the canary would have with an equal share for each pod.
        expected: f64,
    },
    /// All guards are proven safe at this step.
    Proven,
    /// A guard has failed: both of its keys turned at the same look.
    Rollback(Finding),
}

/// A guard that is not proven safe yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Unproven {
    /// Its name.
    pub guard: String,
    /// Evidence of safety so far.
    pub safe: f64,
    /// Evidence of safety that is needed.
    pub needed: f64,
}

/// The guard that failed.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// Its name.
    pub guard: String,
    /// Evidence that the canary is worse than stable.
    pub strict: f64,
    /// What that needed.
    pub needed_strict: f64,
    /// Evidence that it is beyond the tolerance.
    pub margin: f64,
    /// What that needed.
    pub needed_margin: f64,
}

/// What the evidence in `state` says. Of several guards that failed, the one with the strongest evidence.
pub fn verdict(state: &AnalysisState, plan: &Plan) -> Verdict {
    let known = |guard: &GuardPlan| state.guards.iter().find(|known| known.name == guard.name);
    let failed = plan.guards.iter().filter_map(|guard| {
        let (known, needed_strict) = (known(guard)?, plan.needed_strict(guard));
        (known.strict >= needed_strict && known.margin >= plan.needed_margin).then(|| Finding {
            guard: guard.name.clone(),
            strict: known.strict,
            needed_strict,
            margin: known.margin,
            needed_margin: plan.needed_margin,
        })
    });
    if let Some(finding) = failed.reduce(|best, other| if other.margin > best.margin { other } else { best })
    {
        return Verdict::Rollback(finding);
    }
    if let Some((since, reason)) = no_data(state, plan) {
        return Verdict::NoData { since, reason };
    }
    if let Some(split) = state.split.as_ref().filter(|split| plan.check_split && split::is_skewed(split)) {
        return Verdict::Skewed { canary: split.canary, all: split.all, expected: split.expected };
    }
    let guards = unproven(state, plan, |_| true);
    if guards.is_empty() { Verdict::Proven } else { Verdict::Collecting { guards } }
}

/// The guards of a kind that are not proven safe in this step.
pub fn unproven(state: &AnalysisState, plan: &Plan, of: impl Fn(&GuardPlan) -> bool) -> Vec<Unproven> {
    let known = |guard: &GuardPlan| state.guards.iter().find(|known| known.name == guard.name);
    let guards = plan.guards.iter().filter(|guard| of(guard)).map(|guard| {
        let safe = known(guard).map_or(1.0, |known| known.safe);
        Unproven { guard: guard.name.clone(), safe, needed: NEEDED_SAFE }
    });
    guards.filter(|guard| guard.safe < NEEDED_SAFE).collect()
}

/// Since when there is no data, and why: of the source, or of the check that is silent for longest.
///
/// While the canary is to have no requests the source's silence about it says nothing.
fn no_data(state: &AnalysisState, plan: &Plan) -> Option<(Timestamp, String)> {
    let since = state.no_data_since.as_ref().filter(|_| plan.share != Some(0.0));
    let source = since.map(|since| (since.0, state.no_data_reason.clone().unwrap_or_default()));
    let checks = state.guards.iter().filter_map(|guard| {
        let check = guard.checks.as_ref()?;
        let reason = check.no_data.as_deref().unwrap_or_default();
        Some((check.no_data_since.as_ref()?.0, format!("check {}: {reason}", guard.name)))
    });
    source.into_iter().chain(checks).min_by_key(|(since, _)| *since)
}
