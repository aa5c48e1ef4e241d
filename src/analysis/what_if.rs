//! What would have happened to a release with other guards, from the looks that it recorded.

use std::time::Duration;

use super::evidence::{NEEDED_SAFE, Rule};
use super::plan::MIN_PLANNED_LOOKS;
use super::replay::{Replayed, merged, replay};
use super::{GuardPlan, Measured, Plan, ToleranceError, Tolerated};
use crate::api::analysis::Confidence;
use crate::api::evidence::GuardState;

/// What is to be different.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct WhatIf {
    /// Only this guard, by its name.
    pub guard: Option<String>,
    /// Another tolerance, as one writes it for that kind of guard.
    pub tolerate: Option<String>,
    /// Another confidence.
    pub confidence: Option<Confidence>,
    /// A longer time between two looks.
    pub interval: Option<Duration>,
}

/// Why that cannot be told.
#[derive(thiserror::Error, Clone, Debug, PartialEq)]
pub enum WhatIfError {
    /// No guards at all.
    #[error(
        "the release has no guards: it advanced by time, and only crashing or unready pods could stop it"
    )]
    NoGuards,
    /// A name that is none of the guards'.
    #[error("there is no guard {name:?}; its guards are {known}")]
    Unknown {
        /// The name.
        name: String,
        /// The names there are.
        known: String,
    },
    /// A tolerance for several guards.
    #[error("the release has several guards ({known}), and a tolerance is for one of them")]
    Which {
        /// The names there are.
        known: String,
    },
    /// A tolerance in time.
    #[error(
        "guard {0} tolerates longer times, and such a tolerance decides at which buckets the requests are counted; the \
         recorded looks hold the counts of the release's own buckets"
    )]
    InTime(String),
    /// A tolerance for a check.
    #[error("{0} is a check: it has runs that pass or fail, and no tolerance")]
    Check(String),
    /// A tolerance that cannot be read.
    #[error("the tolerance of guard {guard}")]
    Tolerance {
        /// The guard.
        guard: String,
        /// What is wrong.
        #[source]
        source: ToleranceError,
    },
    /// An interval that is no multiple.
    #[error(
        "looks can only be put together: the interval must be a whole multiple of the release's own {own}, such as \
         {examples}"
    )]
    Interval {
        /// The release's interval.
        own: String,
        /// Some that would do.
        examples: String,
    },
}

impl WhatIf {
    /// The plan that the release would have had, and how many of its looks become one.
    pub fn applied(&self, plan: &Plan) -> Result<(Plan, usize), WhatIfError> {
        if plan.guards.is_empty() {
            return Err(WhatIfError::NoGuards);
        }
        let names: Vec<&str> = plan.guards.iter().map(|guard| guard.name.as_str()).collect();
        let known = names.join(", ");
        if let Some(name) = self.guard.as_ref().filter(|name| !names.contains(&name.as_str())) {
            return Err(WhatIfError::Unknown { name: name.clone(), known });
        }
        let mut changed = plan.clone();
        if let Some(confidence) = self.confidence {
            changed = changed.with_confidence(confidence);
        }
        if let Some(text) = &self.tolerate {
            let mut meant = changed.guards.iter_mut().filter(|guard| self.includes(guard));
            let (Some(guard), None) = (meant.next(), meant.next()) else {
                return Err(WhatIfError::Which { known });
            };
            if !guard.is_measured() {
                return Err(WhatIfError::Check(guard.name.clone()));
            }
            let (in_time, measured) = (matches!(guard.tolerated, Tolerated::Times(_)), &guard.measured);
            if in_time && matches!(measured, Measured::Histogram { .. }) {
                return Err(WhatIfError::InTime(guard.name.clone()));
            }
            *guard = guard
                .with_written(text)
                .map_err(|source| WhatIfError::Tolerance { guard: guard.name.clone(), source })?;
        }
        let times = self.interval.map_or(Ok(1), |wanted| multiple(wanted, plan.interval))?;
        changed.interval = plan.interval * times;
        // As the plan of such a release would have it: rounding up twice is rounding up once.
        changed.planned_looks = plan.planned_looks.div_ceil(times).max(MIN_PLANNED_LOOKS);
        Ok((changed, times as usize))
    }

    /// Whether the guard is one of those that are meant.
    pub fn includes(&self, guard: &GuardPlan) -> bool {
        self.guard.as_ref().is_none_or(|name| *name == guard.name)
    }
}

fn multiple(wanted: Duration, own: Duration) -> Result<u32, WhatIfError> {
    let times = wanted.as_nanos().checked_div(own.as_nanos()).and_then(|times| u32::try_from(times).ok());
    match times {
        Some(times) if times > 0 && own.checked_mul(times) == Some(wanted) => Ok(times),
        _ => {
            let in_words = |times: u32| format!("{}s", (own * times).as_secs_f64());
            let examples = [1, 2, 3, 4, 6].map(in_words).join(", ");
            Err(WhatIfError::Interval { own: in_words(1), examples })
        }
    }
}

/// What a guard says of recorded looks.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// What it says after each of them.
    pub looks: Vec<Replayed>,
    /// The look at which both keys of a rollback were first turned.
    pub failed: Option<usize>,
}

impl Outcome {
    /// The first look between two moments, in seconds since the first look of the release, at which safety was proven.
    pub fn proven(&self, after: f64, until: f64) -> Option<&Replayed> {
        self.looks.iter().find(|look| look.second > after && look.second <= until && look.safe >= NEEDED_SAFE)
    }
}

/// What a guard of `plan` says of the looks that it, or one like it, recorded. `times` looks of yes/no events become
/// one; values that go up and down are compared once a minute at any interval. At each of the `resets` a step began.
pub fn outcome(state: &GuardState, guard: &GuardPlan, plan: &Plan, times: usize, resets: &[f64]) -> Outcome {
    let together = if matches!(guard.rule, Rule::Events(_)) { times } else { 1 };
    let looks = if together > 1 {
        replay(guard, plan.planned_looks, &merged(&state.recent, together), resets)
    } else {
        replay(guard, plan.planned_looks, state.recent.iter(), resets)
    };
    let failed = looks.iter().position(|look| look.fails(guard, plan));
    Outcome { looks, failed }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::analysis::tests::plan_of;

    fn three() -> Plan {
        let metric = "m";
        plan_of(&json!([
            {"name": "errors", "ratio": {"bad": {"metric": metric}, "total": {"metric": metric}, "tolerate": "1.2x"}},
            {"name": "orders", "ratio": {"good": {"metric": metric}, "total": {"metric": metric}, "keepAtLeast": "0.9x"}},
            {"name": "latency", "histogram": {"metric": metric, "tolerate": "1.2x"}},
        ]))
    }

    fn of(guard: Option<&str>, tolerate: Option<&str>, interval: Option<u64>) -> WhatIf {
        WhatIf {
            guard: guard.map(ToOwned::to_owned),
            tolerate: tolerate.map(ToOwned::to_owned),
            interval: interval.map(Duration::from_secs),
            ..WhatIf::default()
        }
    }

    #[test]
    fn what_cannot_be_told_is_refused_with_the_reason() {
        let said = |what: WhatIf| {
            let error = what.applied(&three()).unwrap_err();
            let source = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            format!("{error}{}", source.unwrap_or_default())
        };
        for (what, part) in [
            (of(Some("nope"), None, None), "its guards are errors, orders, latency"),
            (of(None, Some("2x"), None), "several guards (errors, orders, latency)"),
            (of(Some("latency"), Some("2x"), None), "the release's own buckets"),
            (of(Some("orders"), Some("2x"), None), "between 0.01 and 1"),
            (of(Some("errors"), Some("0.5x"), None), "below 1"),
            (of(None, None, Some(7)), "own 5s, such as 5s, 10s, 15s, 20s, 30s"),
            (of(None, None, Some(3)), "whole multiple"),
        ] {
            let said = said(what);
            assert!(said.contains(part), "{part}: {said}");
        }
        let bare = Plan { guards: Vec::new(), ..three() };
        assert_eq!(of(None, None, None).applied(&bare), Err(WhatIfError::NoGuards));
    }

    #[test]
    fn one_guard_changes_and_the_looks_are_put_together() {
        let (plan, times) = of(Some("orders"), Some("0.5x"), Some(35)).applied(&three()).unwrap();
        assert_eq!(plan.guards[1].tolerated, Tolerated::AtLeast(0.5));
        assert_eq!((&plan.guards[0], &plan.guards[2]), (&three().guards[0], &three().guards[2]));
        // 360 planned looks of 5 s are 52 of 35 s.
        assert_eq!((times, plan.interval.as_secs(), plan.planned_looks), (7, 35, 52));
        let (same, times) = WhatIf::default().applied(&three()).unwrap();
        assert_eq!((same, times), (three(), 1));
        let (few, _) = of(None, None, Some(600)).applied(&three()).unwrap();
        assert_eq!(few.planned_looks, 12);
        let careful = WhatIf { confidence: Some(Confidence::Careful), ..WhatIf::default() };
        let (careful, _) = careful.applied(&three()).unwrap();
        // Three guards of equal weight share one in a thousand.
        assert!((careful.needed_strict(&careful.guards[0]) - 3000.0).abs() < 1e-9);
        assert!((careful.needed_margin - 20.0).abs() < 1e-9);
    }
}
