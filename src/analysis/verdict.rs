//! What the evidence so far says.

use jiff::Timestamp;

use super::Plan;
use super::evidence::NEEDED_SAFE;
use crate::api::evidence::{AnalysisState, GuardState};

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
    let needed_strict = plan.needed_strict();
    let failed = |guard: &&GuardState| guard.strict >= needed_strict && guard.margin >= plan.needed_margin;
    let guilty = state
        .guards
        .iter()
        .filter(failed)
        .reduce(|best, guard| if guard.margin > best.margin { guard } else { best });
    if let Some(guard) = guilty {
        return Verdict::Rollback(Finding {
            guard: guard.name.clone(),
            strict: guard.strict,
            needed_strict,
            margin: guard.margin,
            needed_margin: plan.needed_margin,
        });
    }
    if let Some(since) = &state.no_data_since {
        return Verdict::NoData { since: since.0, reason: state.no_data_reason.clone().unwrap_or_default() };
    }
    let guards: Vec<Unproven> = plan
        .guards
        .iter()
        .map(|guard| {
            let safe =
                state.guards.iter().find(|state| state.name == guard.name).map_or(1.0, |state| state.safe);
            Unproven { guard: guard.name.clone(), safe, needed: NEEDED_SAFE }
        })
        .filter(|guard| guard.safe < NEEDED_SAFE)
        .collect();
    if guards.is_empty() { Verdict::Proven } else { Verdict::Collecting { guards } }
}
