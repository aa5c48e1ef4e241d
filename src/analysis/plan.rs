//! The analysis of a Release, read once and checked; after this nobody touches the raw spec.

use std::time::Duration;

use jiff::Timestamp;

use super::evidence::NEEDED_SAFE;
use super::{GuardError, GuardPlan, Source, SourceError};
use crate::api::analysis::{Analysis, Confidence, Inconclusive, NoDataThen, OnNoData};

const DEFAULT_INTERVAL: Duration = Duration::from_secs(5);
const DEFAULT_WARM_UP: Duration = Duration::from_secs(60);
const MAX_GUARDS: usize = 10;
/// The stakes are spread over at least this many looks.
pub(super) const MIN_PLANNED_LOOKS: u32 = 12;

/// What is measured in a release, how often, and how much evidence is needed for what.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The guards, in the order of the spec. May be empty: such a release advances by time only.
    pub guards: Vec<GuardPlan>,
    /// Time between two looks.
    pub interval: Duration,
    /// Pods younger than this are left out.
    pub warm_up: Duration,
    /// One in how many harmless releases may be rolled back: 1/α of the strict key, over all guards together.
    pub alpha_inverse: f64,
    /// Evidence that the second key needs: beyond the tolerance.
    pub needed_margin: f64,
    /// Where the numbers come from; always there with guards that compare them.
    pub source: Option<Source>,
    /// What happens without data.
    pub on_no_data: NoData,
    /// What happens when the time is over with neither proof.
    pub on_inconclusive: Inconclusive,
    /// Looks over which the stakes are spread, at least 12.
    pub planned_looks: u32,
    /// Whether a release is held when the requests are not shared as they should be.
    pub check_split: bool,
    /// The share of the requests that a router gives the canary now, 0 to 1. Nothing: they are shared as the pods are.
    pub share: Option<f64>,
}

/// What happens without data: hold, for ever or for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct NoData {
    /// Roll back when there was no data for this long; nothing: hold for ever.
    pub rollback_after: Option<Duration>,
}

impl NoData {
    /// Whether silence since `since` is long enough at `now` to roll back.
    pub fn rollback_due(self, since: Timestamp, now: Timestamp) -> bool {
        self.rollback_after.is_some_and(|after| {
            Duration::try_from(now.duration_since(since)).is_ok_and(|silence| silence >= after)
        })
    }

    /// When silence since `since` becomes a rollback, if ever.
    pub fn rollback_at(self, since: Timestamp) -> Option<Timestamp> {
        self.rollback_after.and_then(|after| since.checked_add(after).ok())
    }
}

/// Why an analysis cannot be used: the field, and what is wrong with it.
#[derive(thiserror::Error, Clone, Debug, PartialEq)]
pub enum PlanError {
    /// Guards without a source.
    #[error("spec.analysis.metrics: needed with guards that compare numbers; set pods or prometheus")]
    NoSource,
    /// A source that cannot be used.
    #[error(transparent)]
    Source(SourceError),
    /// An interval outside its bounds.
    #[error("spec.analysis.interval: 1s to 5m")]
    Interval,
    /// A negative duration.
    #[error("spec.analysis.{0}: must not be negative")]
    Negative(&'static str),
    /// A rollback without data, but no time for it.
    #[error("spec.analysis.onNoData.after: needed when `then` is not hold; set how long to wait")]
    NoAfter,
    /// Too many guards.
    #[error("spec.analysis.guards: at most 10")]
    TooManyGuards,
    /// Two guards of one name.
    #[error("spec.analysis.guards: the name {0:?} is there twice")]
    Twice(String),
    /// A guard that cannot be used.
    #[error("spec.analysis.guards[{guard}]")]
    Guard {
        /// The guard's name.
        guard: String,
        /// The field below it, and what is wrong.
        #[source]
        source: GuardError,
    },
}

impl PlanError {
    /// The field and what is wrong with it, in one line.
    pub fn in_full(&self) -> String {
        match self {
            Self::Guard { guard, source } => match std::error::Error::source(source) {
                Some(cause) => format!("spec.analysis.guards[{guard}].{source}: {cause}"),
                None => format!("spec.analysis.guards[{guard}].{source}"),
            },
            _ => self.to_string(),
        }
    }
}

/// The bounds of the two keys of a rollback, `1/α` and `K`, before the first is shared among guards.
fn keys(confidence: Confidence) -> (f64, f64) {
    match confidence {
        Confidence::Careful => (1000.0, 20.0),
        Confidence::Standard => (100.0, 10.0),
        Confidence::Fast => (20.0, 5.0),
    }
}

/// What each of `guards` guards of equal weight needs for a rollback: of its strict and of its margin evidence.
pub fn needs(confidence: Confidence, guards: usize) -> (f64, f64) {
    let (alpha_inverse, margin) = keys(confidence);
    (alpha_inverse * guards.max(1) as f64, margin)
}

impl Plan {
    /// Reads an analysis, fills in the defaults and checks it. `planned_looks`: the Release's, raised to 12.
    pub fn resolve(analysis: &Analysis, planned_looks: u32) -> Result<Self, PlanError> {
        let interval = match &analysis.interval {
            None => DEFAULT_INTERVAL,
            Some(interval) if interval.is_negative() => return Err(PlanError::Interval),
            Some(interval) => Duration::from(*interval),
        };
        if !(Duration::from_secs(1)..=Duration::from_secs(300)).contains(&interval) {
            return Err(PlanError::Interval);
        }
        let warm_up = match &analysis.warm_up {
            None => DEFAULT_WARM_UP,
            Some(warm_up) if warm_up.is_negative() => return Err(PlanError::Negative("warmUp")),
            Some(warm_up) => Duration::from(*warm_up),
        };
        if analysis.guards.len() > MAX_GUARDS {
            return Err(PlanError::TooManyGuards);
        }
        let mut guards: Vec<GuardPlan> = Vec::with_capacity(analysis.guards.len());
        for guard in &analysis.guards {
            if guards.iter().any(|other| other.name == guard.name) {
                return Err(PlanError::Twice(guard.name.clone()));
            }
            let resolved = GuardPlan::resolve(guard);
            guards.push(resolved.map_err(|source| PlanError::Guard { guard: guard.name.clone(), source })?);
        }
        let source = analysis.metrics.as_ref().map(Source::resolve).transpose().map_err(PlanError::Source)?;
        if source.is_none() && guards.iter().any(GuardPlan::is_measured) {
            return Err(PlanError::NoSource);
        }
        let (alpha_inverse, needed_margin) = keys(analysis.confidence.unwrap_or_default());
        Ok(Self {
            guards,
            interval,
            warm_up,
            alpha_inverse,
            needed_margin,
            source,
            on_no_data: analysis.on_no_data.as_ref().map_or(Ok(NoData::default()), resolve_no_data)?,
            on_inconclusive: analysis.on_inconclusive.unwrap_or_default(),
            planned_looks: planned_looks.max(MIN_PLANNED_LOOKS),
            check_split: analysis.sample_ratio_check.unwrap_or(true),
            share: None,
        })
    }

    /// The same plan with the bounds of another confidence.
    #[must_use]
    pub fn with_confidence(self, confidence: Confidence) -> Self {
        let (alpha_inverse, needed_margin) = keys(confidence);
        Self { alpha_inverse, needed_margin, ..self }
    }

    /// Evidence that the strict key of a guard needs: 1/(α·v), v its part of all weights. Checks have no part: they are
    /// not wrong by chance.
    pub fn needed_strict(&self, guard: &GuardPlan) -> f64 {
        if !guard.is_measured() {
            return self.alpha_inverse;
        }
        let all: f64 = self.guards.iter().filter(|guard| guard.is_measured()).map(|guard| guard.weight).sum();
        self.alpha_inverse * all / guard.weight
    }

    /// Whether any guard compares numbers.
    pub fn measures(&self) -> bool {
        self.guards.iter().any(GuardPlan::is_measured)
    }

    /// Evidence of safety that each guard needs.
    pub fn needed_safe(&self) -> f64 {
        NEEDED_SAFE
    }
}

fn resolve_no_data(on_no_data: &OnNoData) -> Result<NoData, PlanError> {
    match (on_no_data.then, on_no_data.after) {
        (NoDataThen::Hold, _) => Ok(NoData::default()),
        (NoDataThen::Rollback, None) => Err(PlanError::NoAfter),
        (NoDataThen::Rollback, Some(after)) if after.is_negative() => {
            Err(PlanError::Negative("onNoData.after"))
        }
        (NoDataThen::Rollback, Some(after)) => Ok(NoData { rollback_after: Some(Duration::from(after)) }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::analysis::Measured;

    fn resolve(analysis: serde_json::Value) -> Result<Plan, PlanError> {
        Plan::resolve(&serde_json::from_value(analysis).unwrap(), 3)
    }

    fn guard(name: &str, matchers: &str, tolerate: &str) -> serde_json::Value {
        let bad = json!({"metric": "http_requests_total", "match": matchers});
        json!({"name": name, "ratio": {"bad": bad, "total": {"metric": "http_requests_total"}, "tolerate": tolerate}})
    }

    #[test]
    fn fills_in_the_defaults() {
        let plan = resolve(json!({
            "metrics": {"pods": {"port": 8080}},
            "guards": [guard("errors", r#"code=~"5..""#, "1.2x + 0.1%"), guard("all", "", "1x")],
        }))
        .unwrap();
        assert_eq!((plan.interval, plan.warm_up), (Duration::from_secs(5), Duration::from_secs(60)));
        assert_eq!((plan.planned_looks, plan.needed_margin.to_bits()), (12, 10.0_f64.to_bits()));
        assert!((plan.needed_strict(&plan.guards[0]) - 200.0).abs() < 1e-9, "two guards, equal weights");
        assert!(matches!(&plan.source, Some(Source::Pods(pods)) if pods.port == 8080));
        let bad = |guard: &GuardPlan| match &guard.measured {
            Measured::Ratio { bad, .. } => bad.to_string(),
            other => panic!("{other:?}"),
        };
        assert_eq!(bad(&plan.guards[0]), r#"http_requests_total{code=~"5.."}"#);
        assert_eq!(bad(&plan.guards[1]), "http_requests_total");
        assert_eq!(plan.on_no_data.rollback_at(Timestamp::UNIX_EPOCH), None);
        assert!(resolve(json!({})).unwrap().guards.is_empty(), "no guards: by time only");
    }

    #[test]
    fn reads_what_is_set() {
        let plan = resolve(json!({
            "interval": "15s", "warmUp": "0s", "confidence": "careful", "onInconclusive": "promote",
            "onNoData": {"after": "30m", "then": "rollback"},
            "metrics": {"prometheus": {"url": "https://prom.monitoring:9090/", "namespaceLabel": "", "podLabel": "p"}},
        }))
        .unwrap();
        assert_eq!((plan.interval, plan.warm_up), (Duration::from_secs(15), Duration::ZERO));
        assert!((plan.alpha_inverse - 1000.0).abs() < 1e-9 && (plan.needed_margin - 20.0).abs() < 1e-9);
        assert!(matches!(plan.source, Some(Source::Prometheus(server)) if server.pod_label == "p"));
        let since = Timestamp::UNIX_EPOCH;
        let after = |seconds| Timestamp::from_second(seconds).unwrap();
        assert!(plan.on_no_data.rollback_due(since, after(1800)));
        assert!(
            !plan.on_no_data.rollback_due(since, after(1799))
                && !plan.on_no_data.rollback_due(since, after(-5))
        );
        assert_eq!(plan.on_no_data.rollback_at(since), Some(after(1800)));
    }

    #[test]
    fn says_which_field_is_wrong() {
        let pods = json!({"pods": {"port": 80}});
        for (analysis, said) in [
            (
                json!({"guards": [guard("a", "", "1x")]}),
                "spec.analysis.metrics: needed with guards that compare",
            ),
            (json!({"metrics": {}}), "exactly one of pods and prometheus"),
            (json!({"metrics": {"pods": {"port": 0}}}), "spec.analysis.metrics.pods.port: 0"),
            (json!({"interval": "500ms"}), "spec.analysis.interval"),
            (json!({"onNoData": {"then": "rollback"}}), "spec.analysis.onNoData.after"),
            (
                json!({"metrics": pods, "guards": [guard("a", "", "1x"), guard("a", "", "1x")]}),
                "is there twice",
            ),
            (json!({"metrics": pods, "guards": [guard("a", "", "2")]}), "guards[a].ratio.tolerate"),
            (json!({"metrics": pods, "guards": [guard("a", "x", "2x")]}), "guards[a].ratio.bad.match"),
        ] {
            let error = resolve(analysis).unwrap_err().in_full();
            assert!(error.contains(said) && !error.contains("hunter2"), "{said}: {error}");
        }
    }
}
