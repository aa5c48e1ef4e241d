//! A guard of a Release, read once and checked.

use super::check::{CheckError, CheckPlan};
use super::evidence::{Bounds, Limit, NEEDED_SAFE, Rule, SAFE_GRID, log_e};
use super::gauge::Comparison;
use super::presets::{self, Errors, Latency, Preset, PresetError};
use super::tolerance::{factor, percent, rounded};
use super::{Matchers, MatchersError, Slower, Tolerance, ToleranceError};
use crate::api::evidence::Counts;
use crate::api::guard::{self as api, Aggregate, Counter, GaugeGuard, Guard, HistogramGuard, RatioGuard};

/// One guard.
#[derive(Clone, Debug, PartialEq)]
pub struct GuardPlan {
    /// Its name.
    pub name: String,
    /// Its part of the error probability, in relation to the other guards' weights.
    pub weight: f64,
    /// What is measured.
    pub measured: Measured,
    /// What it tolerates.
    pub tolerated: Tolerated,
    /// What the looks are held against: follows from the two above.
    pub rule: Rule,
}

/// What a guard tolerates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Tolerated {
    /// So much more of stable's share, as `1.2x + 0.1%`.
    Share(Tolerance),
    /// A plain limit: a share of the canary's events.
    AtMost(f64),
    /// At least so much of stable's share or value, as `0.95x`.
    AtLeast(f64),
    /// At most so much of stable's times or value, as `1.2x`.
    Times(f64),
    /// So many failed runs of a check.
    Failures(u32),
}

impl std::fmt::Display for Tolerated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Share(tolerance) => tolerance.fmt(f),
            Self::AtMost(share) => write!(f, "{}%", rounded(share * 100.0)),
            Self::AtLeast(factor) | Self::Times(factor) => write!(f, "{}x", rounded(*factor)),
            Self::Failures(0) => f.write_str("no failed run"),
            Self::Failures(1) => f.write_str("1 failed run"),
            Self::Failures(number) => write!(f, "{number} failed runs"),
        }
    }
}

/// What is measured.
#[derive(Clone, Debug, PartialEq)]
pub enum Measured {
    /// A share of events.
    Ratio {
        /// The counter of bad events; of good ones when the guard keeps them.
        bad: CounterPlan,
        /// The counter of all events.
        total: CounterPlan,
    },
    /// Times.
    Histogram {
        /// The histogram, without `_bucket`.
        metric: CounterPlan,
        /// What slower means.
        slower: Slower,
    },
    /// Values that go up and down.
    Gauge {
        /// The metric.
        metric: CounterPlan,
        /// What several series of one pod become.
        aggregate: Aggregate,
    },
    /// Nothing: something is asked that answers yes or no.
    Check(Box<CheckPlan>),
}

impl Measured {
    /// The check, if it is one.
    pub fn check(&self) -> Option<&CheckPlan> {
        match self {
            Self::Check(check) => Some(check),
            _ => None,
        }
    }
}

/// A metric, and which of its series count.
#[derive(Clone, Debug, PartialEq)]
pub struct CounterPlan {
    /// Name of the metric.
    pub metric: String,
    /// Which of its series count.
    pub matchers: Matchers,
}

impl std::fmt::Display for CounterPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.matchers.is_empty() {
            f.write_str(&self.metric)
        } else {
            write!(f, "{}{{{}}}", self.metric, self.matchers)
        }
    }
}

/// Why a guard cannot be used: the field below the guard, and what is wrong with it.
#[derive(thiserror::Error, Clone, Debug, PartialEq)]
pub enum GuardError {
    /// None or several kinds.
    #[error("exactly one of ratio, histogram, gauge, web, cel and job: set one, remove the others")]
    Kind,
    /// A weight outside its bounds.
    #[error("weight: 1 to 100")]
    Weight,
    /// A weight of a check.
    #[error("weight: a check has none, it is no evidence; remove it")]
    CheckWeight,
    /// A check that cannot be used.
    #[error(transparent)]
    Check(CheckError),
    /// A ratio without its counters, or with a preset beside them.
    #[error("ratio: name the counters with total and one of bad and good, or use a preset, which names them")]
    Counters,
    /// None or several limits.
    #[error("{0}: set one, remove the others")]
    Limits(&'static str),
    /// A limit that does not go with the counter.
    #[error("ratio: keepAtLeast goes with good, and tolerate or atMost with bad")]
    Direction,
    /// A histogram without a name, or with a preset beside it.
    #[error("histogram: name the metric, or use a preset, which names it")]
    Metric,
    /// A preset that cannot be used.
    #[error("{field}")]
    Preset {
        /// The field.
        field: &'static str,
        /// Why.
        #[source]
        source: PresetError,
    },
    /// A tolerance that cannot be read.
    #[error("{field}")]
    Tolerance {
        /// The field.
        field: &'static str,
        /// What is wrong.
        #[source]
        source: ToleranceError,
    },
    /// Matchers that cannot be read.
    #[error("{field}")]
    Matchers {
        /// The field.
        field: &'static str,
        /// What is wrong.
        #[source]
        source: MatchersError,
    },
}

impl GuardPlan {
    /// Reads a guard and checks it.
    pub fn resolve(guard: &Guard) -> Result<Self, GuardError> {
        let weight = f64::from(guard.weight.unwrap_or(1));
        if !(1.0..=100.0).contains(&weight) {
            return Err(GuardError::Weight);
        }
        let check = match (&guard.web, &guard.cel, &guard.job) {
            (None, None, None) => None,
            (Some(web), None, None) => Some(CheckPlan::web(web)),
            (None, Some(cel), None) => Some(CheckPlan::cel(cel)),
            (None, None, Some(job)) => Some(CheckPlan::job(job)),
            _ => return Err(GuardError::Kind),
        };
        let (measured, tolerated) = match (&guard.ratio, &guard.histogram, &guard.gauge, check) {
            (Some(ratio), None, None, None) => resolve_ratio(ratio)?,
            (None, Some(histogram), None, None) => resolve_histogram(histogram)?,
            (None, None, Some(gauge), None) => resolve_gauge(gauge)?,
            (None, None, None, Some(_)) if guard.weight.is_some() => return Err(GuardError::CheckWeight),
            (None, None, None, Some(check)) => {
                let check = check.map_err(GuardError::Check)?;
                let tolerated = Tolerated::Failures(check.failure_limit);
                (Measured::Check(Box::new(check)), tolerated)
            }
            _ => return Err(GuardError::Kind),
        };
        let rule = rule(&measured, tolerated);
        Ok(Self { name: guard.name.clone(), weight, measured, tolerated, rule })
    }

    /// Whether it compares numbers of the pods, and is no check.
    pub fn is_measured(&self) -> bool {
        !matches!(self.measured, Measured::Check(_))
    }

    /// The same guard with another tolerance.
    #[must_use]
    pub fn with(&self, tolerated: Tolerated) -> Self {
        Self { tolerated, rule: rule(&self.measured, tolerated), ..self.clone() }
    }

    /// The same guard with another tolerance, as one writes it: for a share `1.2x + 0.1%`, for a limit `0.5%`, else
    /// a factor.
    pub fn with_written(&self, text: &str) -> Result<Self, ToleranceError> {
        Ok(self.with(match (&self.tolerated, &self.measured) {
            (Tolerated::Share(_), _) => Tolerated::Share(text.parse()?),
            (Tolerated::AtMost(_), _) => Tolerated::AtMost(percent(text)?),
            (Tolerated::AtLeast(_), Measured::Ratio { .. }) => Tolerated::AtLeast(kept_share(text)?),
            (Tolerated::AtLeast(_), _) => Tolerated::AtLeast(kept_value(text)?),
            (Tolerated::Times(_), _) => Tolerated::Times(longer(text)?),
            // Its runs are not kept one by one, so nobody asks with another limit.
            (Tolerated::Failures(limit), _) => Tolerated::Failures(*limit),
        }))
    }

    /// About how long the proof of safety takes, in seconds, if the canary is as good as stable; nothing when it
    /// would not come, or when that cannot be told beforehand. `rate` is stable's share of counted events, the others
    /// are events per second of each version.
    ///
    /// The evidence of each bet grows by its expected logarithm per second; the guard is proven when the quickest
    /// bet alone makes the mean of the six large enough.
    pub fn expected_seconds_to_proof(
        &self,
        rate: f64,
        canary_per_second: f64,
        stable_per_second: f64,
    ) -> Option<f64> {
        let Rule::Events(bounds) = &self.rule else { return None };
        let second = Counts {
            canary_bad: rate * canary_per_second,
            canary_total: canary_per_second,
            stable_bad: rate * stable_per_second,
            stable_total: stable_per_second,
        };
        let growth = SAFE_GRID
            .iter()
            .map(|kappa| log_e(bounds.harm.size(*kappa), bounds.safe, &second))
            .fold(0.0, f64::max);
        let seconds = (NEEDED_SAFE * SAFE_GRID.len() as f64).ln() / growth;
        seconds.is_finite().then_some(seconds)
    }

    /// What its values count in, as the metric's name ends by convention (Prometheus' naming practices); empty where it
    /// does not say.
    pub fn unit(&self) -> &'static str {
        let metric = match &self.measured {
            Measured::Ratio { .. } | Measured::Check(_) => return "",
            Measured::Histogram { metric, .. } | Measured::Gauge { metric, .. } => metric.metric.as_str(),
        };
        let units = [
            ("_milliseconds", "ms"),
            ("_ms", "ms"),
            ("_seconds", "s"),
            ("_bytes", "bytes"),
            ("_celsius", "°C"),
        ];
        units.iter().find(|(end, _)| metric.ends_with(end)).map_or("", |(_, unit)| unit)
    }

    /// The share of counted events that is tolerated when stable's share is `stable`; nothing for values that are
    /// no shares.
    pub fn tolerated(&self, stable: f64) -> Option<f64> {
        match &self.rule {
            Rule::Events(Bounds { margin: Limit { ratio, points }, .. }) => {
                Some((ratio * stable + points).min(1.0))
            }
            Rule::Gauge(_) | Rule::Check => None,
        }
    }
}

fn counter(field: &'static str, metric: &str, written: Option<&str>) -> Result<CounterPlan, GuardError> {
    let matchers =
        written.unwrap_or_default().parse().map_err(|source| GuardError::Matchers { field, source })?;
    Ok(CounterPlan { metric: metric.to_owned(), matchers })
}

fn preset(field: &'static str, preset: api::Preset) -> Result<&'static Preset, GuardError> {
    presets::by_pod(preset.name()).map_err(|source| GuardError::Preset { field, source })
}

fn tolerance<T>(field: &'static str, read: Result<T, ToleranceError>) -> Result<T, GuardError> {
    read.map_err(|source| GuardError::Tolerance { field, source })
}

fn rule(measured: &Measured, tolerated: Tolerated) -> Rule {
    let gauge = matches!(measured, Measured::Gauge { .. });
    match tolerated {
        Tolerated::Share(tolerance) => Rule::Events(Bounds::tolerate(tolerance)),
        Tolerated::AtMost(share) => Rule::Events(Bounds::at_most(share)),
        Tolerated::AtLeast(factor) if gauge => Rule::Gauge(Comparison::keep_at_least(factor)),
        Tolerated::AtLeast(factor) => Rule::Events(Bounds::keep_at_least(factor)),
        Tolerated::Times(factor) if gauge => Rule::Gauge(Comparison::tolerate(factor)),
        // The factor is in the edges that are compared.
        Tolerated::Times(_) => Rule::Events(Bounds::slower()),
        Tolerated::Failures(_) => Rule::Check,
    }
}

fn kept_share(text: &str) -> Result<f64, ToleranceError> {
    factor(text, (0.01, 1.0), "the factor must be between 0.01 and 1", "0.95x")
}

fn kept_value(text: &str) -> Result<f64, ToleranceError> {
    factor(text, (0.01, 0.95), "the factor must be between 0.01 and 0.95", "0.9x")
}

/// A factor on times or values: from 1.05, because a smaller difference is what two halves of one version show.
fn longer(text: &str) -> Result<f64, ToleranceError> {
    factor(text, (1.05, 1000.0), "the factor must be between 1.05 and 1000", "1.2x")
}

type Resolved = Result<(Measured, Tolerated), GuardError>;

fn resolve_ratio(ratio: &RatioGuard) -> Resolved {
    let of = |field, counted: &Counter| counter(field, &counted.metric, counted.matches.as_deref());
    let (bad, total, keeps) = match (&ratio.bad, &ratio.good, &ratio.total) {
        (None, None, None) => {
            let Errors { metric, bad, total } =
                preset("ratio.preset", ratio.preset.ok_or(GuardError::Counters)?)?.errors;
            let of = |matchers| counter("ratio.preset", metric, Some(matchers));
            (of(bad)?, of(total)?, false)
        }
        _ if ratio.preset.is_some() => return Err(GuardError::Counters),
        (Some(bad), None, Some(total)) => {
            (of("ratio.bad.match", bad)?, of("ratio.total.match", total)?, false)
        }
        (None, Some(good), Some(total)) => {
            (of("ratio.good.match", good)?, of("ratio.total.match", total)?, true)
        }
        _ => return Err(GuardError::Counters),
    };
    let tolerated = match (&ratio.tolerate, &ratio.at_most, &ratio.keep_at_least) {
        (Some(text), None, None) if !keeps => Tolerated::Share(tolerance("ratio.tolerate", text.parse())?),
        (None, Some(text), None) if !keeps => Tolerated::AtMost(tolerance("ratio.atMost", percent(text))?),
        (None, None, Some(text)) if keeps => {
            Tolerated::AtLeast(tolerance("ratio.keepAtLeast", kept_share(text))?)
        }
        (Some(_), None, None) | (None, Some(_), None) | (None, None, Some(_)) => {
            return Err(GuardError::Direction);
        }
        _ => return Err(GuardError::Limits("ratio: exactly one of tolerate, atMost and keepAtLeast")),
    };
    Ok((Measured::Ratio { bad, total }, tolerated))
}

fn resolve_histogram(histogram: &HistogramGuard) -> Resolved {
    let metric = match (histogram.preset, &histogram.metric, &histogram.matches) {
        (None, Some(metric), matches) => counter("histogram.match", metric, matches.as_deref())?,
        (Some(known), None, None) => {
            let Latency { metric, matchers, .. } = preset("histogram.preset", known)?.latency;
            counter("histogram.preset", metric, Some(matchers))?
        }
        _ => return Err(GuardError::Metric),
    };
    let (slower, tolerated) = match (&histogram.tolerate, &histogram.tolerate_share) {
        (Some(text), None) => {
            let times = tolerance("histogram.tolerate", longer(text))?;
            (Slower::Times(times), Tolerated::Times(times))
        }
        (None, Some(text)) => {
            (Slower::Share, Tolerated::Share(tolerance("histogram.tolerateShare", text.parse())?))
        }
        _ => return Err(GuardError::Limits("histogram: exactly one of tolerate and tolerateShare")),
    };
    Ok((Measured::Histogram { metric, slower }, tolerated))
}

fn resolve_gauge(gauge: &GaugeGuard) -> Resolved {
    let metric = counter("gauge.match", &gauge.metric, gauge.matches.as_deref())?;
    let tolerated = match (&gauge.tolerate, &gauge.keep_at_least) {
        (Some(text), None) => Tolerated::Times(tolerance("gauge.tolerate", longer(text))?),
        (None, Some(text)) => Tolerated::AtLeast(tolerance("gauge.keepAtLeast", kept_value(text))?),
        _ => return Err(GuardError::Limits("gauge: exactly one of tolerate and keepAtLeast")),
    };
    Ok((Measured::Gauge { metric, aggregate: gauge.aggregate.unwrap_or_default() }, tolerated))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn resolve(guard: Value) -> Result<GuardPlan, String> {
        let guard: Guard = serde_json::from_value(guard).unwrap();
        GuardPlan::resolve(&guard).map_err(|error| match std::error::Error::source(&error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        })
    }

    #[test]
    fn presets_name_the_metrics() {
        let errors = resolve(json!({"name": "a", "ratio": {"preset": "istio", "tolerate": "1.2x"}})).unwrap();
        let Measured::Ratio { bad, total } = &errors.measured else { panic!("{errors:?}") };
        assert_eq!(bad.to_string(), r#"istio_requests_total{reporter="destination",response_code=~"5.."}"#);
        assert_eq!(total.to_string(), r#"istio_requests_total{reporter="destination"}"#);
        let slow =
            resolve(json!({"name": "a", "histogram": {"preset": "otel-http", "tolerate": "1.2x"}})).unwrap();
        let Measured::Histogram { metric, .. } = &slow.measured else { panic!("{slow:?}") };
        assert_eq!(metric.to_string(), "http_server_request_duration_seconds");
        let said =
            resolve(json!({"name": "a", "ratio": {"preset": "nginx", "tolerate": "1.2x"}})).unwrap_err();
        assert!(said.starts_with("ratio.preset: the preset nginx tells Services apart"), "{said}");
        for name in presets::names() {
            let known: api::Preset = serde_json::from_value(json!(name)).unwrap();
            assert_eq!(known.name(), name, "the table and the schema name the same");
        }
    }

    #[test]
    fn what_does_not_go_together_is_refused_by_field() {
        let counter = json!({"metric": "m"});
        let ratio = |ratio: Value| resolve(json!({"name": "a", "ratio": ratio})).unwrap_err();
        let (b, t) = (&counter, &counter);
        for (said, expected) in [
            (
                resolve(json!({"name": "a"})).unwrap_err(),
                "exactly one of ratio, histogram, gauge, web, cel and job",
            ),
            (ratio(json!({"bad": b, "tolerate": "1.2x"})), "ratio: name the counters"),
            (
                ratio(json!({"preset": "http", "bad": b, "total": t, "tolerate": "1.2x"})),
                "ratio: name the counters",
            ),
            (ratio(json!({"bad": b, "total": t})), "ratio: exactly one of tolerate"),
            (ratio(json!({"bad": b, "total": t, "tolerate": "1x", "atMost": "1%"})), "ratio: exactly one of"),
            (ratio(json!({"bad": b, "total": t, "keepAtLeast": "0.9x"})), "keepAtLeast goes with good"),
            (ratio(json!({"good": b, "total": t, "tolerate": "1x"})), "keepAtLeast goes with good"),
            (
                ratio(json!({"good": b, "total": t, "keepAtLeast": "1.1x"})),
                "ratio.keepAtLeast: the factor must be",
            ),
            (ratio(json!({"bad": b, "total": t, "atMost": "0%"})), "ratio.atMost: must be above 0%"),
            (
                resolve(json!({"name": "a", "weight": 0, "gauge": {"metric": "m", "tolerate": "1.2x"}}))
                    .unwrap_err(),
                "weight: 1 to 100",
            ),
            (
                resolve(json!({"name": "a", "histogram": {"metric": "m", "tolerate": "1x"}})).unwrap_err(),
                "histogram.tolerate: the factor must be between 1.05",
            ),
            (
                resolve(json!({"name": "a", "gauge": {"metric": "m", "match": "x", "tolerate": "1.2x"}}))
                    .unwrap_err(),
                "gauge.match: ",
            ),
        ] {
            assert!(said.starts_with(expected) || said.contains(expected), "{expected}: {said}");
        }
    }

    #[test]
    fn a_tolerance_may_be_replaced_by_one_of_its_kind() {
        let guard =
            resolve(json!({"name": "a", "histogram": {"metric": "m", "tolerateShare": "1.5x + 0.2%"}}))
                .unwrap();
        assert_eq!(guard.tolerated.to_string(), "1.5x + 0.2%");
        let looser = guard.with_written("3x").unwrap();
        assert_eq!(looser.tolerated.to_string(), "3x");
        assert_ne!(looser.rule, guard.rule);
        assert_eq!(guard.with_written("3").unwrap_err().problem, "no x after the factor");
    }
}
