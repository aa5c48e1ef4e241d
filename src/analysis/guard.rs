//! A guard of a Release, read once and checked.

use super::evidence::{Bounds, Limit, NEEDED_SAFE, Rule, SAFE_GRID, log_e};
use super::gauge::Comparison;
use super::tolerance::{factor, percent, rounded};
use super::{Matchers, MatchersError, Slower, Tolerance, ToleranceError};
use crate::api::evidence::Counts;
use crate::api::guard::{Aggregate, Counter, GaugeGuard, Guard, HistogramGuard, RatioGuard};

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
}

impl std::fmt::Display for Tolerated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Share(tolerance) => tolerance.fmt(f),
            Self::AtMost(share) => write!(f, "{}%", rounded(share * 100.0)),
            Self::AtLeast(factor) | Self::Times(factor) => write!(f, "{}x", rounded(*factor)),
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
    #[error("exactly one of ratio, histogram and gauge: set one, remove the others")]
    Kind,
    /// A weight outside its bounds.
    #[error("weight: 1 to 100")]
    Weight,
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
        let (measured, tolerated) = match (&guard.ratio, &guard.histogram, &guard.gauge) {
            (Some(ratio), None, None) => resolve_ratio(ratio)?,
            (None, Some(histogram), None) => resolve_histogram(histogram)?,
            (None, None, Some(gauge)) => resolve_gauge(gauge)?,
            _ => return Err(GuardError::Kind),
        };
        let rule = rule(&measured, tolerated);
        Ok(Self { name: guard.name.clone(), weight, measured, tolerated, rule })
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

    /// The share of counted events that is tolerated when stable's share is `stable`; nothing for values that are
    /// no shares.
    pub fn tolerated(&self, stable: f64) -> Option<f64> {
        match &self.rule {
            Rule::Events(Bounds { margin: Limit { ratio, points }, .. }) => {
                Some((ratio * stable + points).min(1.0))
            }
            Rule::Gauge(_) => None,
        }
    }
}

fn counter(field: &'static str, metric: &str, written: Option<&str>) -> Result<CounterPlan, GuardError> {
    let matchers =
        written.unwrap_or_default().parse().map_err(|source| GuardError::Matchers { field, source })?;
    Ok(CounterPlan { metric: metric.to_owned(), matchers })
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
    let metric = histogram.metric.as_deref().ok_or(GuardError::Metric)?;
    let metric = counter("histogram.match", metric, histogram.matches.as_deref())?;
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
