//! The evidence engine: what the guards of a release say about its canary.
//!
//! Purpose: turn [`Sample`]s of counters into evidence ([`fold`]), a [`Verdict`], and an [`Explanation`]; fetch
//! samples from the pods or from Prometheus ([`query`], the only part that does I/O).
//! May touch: `api` types; `query` also `cluster::http`. Must never: read a clock, decide what is done about a
//! verdict, write anything, or depend on the order of a hash map.
//!
//! All that is remembered is in [`AnalysisState`](crate::api::evidence::AnalysisState). A look merges the counter
//! deltas since the last remembered counters, so folding the next sample into an older state, as after a restart,
//! gives one merged look: nothing is lost and nothing is counted twice.

mod buckets;
pub mod check;
pub mod condition;
mod counters;
pub mod evidence;
mod explain;
mod fold;
pub mod gauge;
mod guard;
mod interval;
mod judge;
mod matchers;
mod plan;
pub mod presets;
mod quantiles;
pub mod query;
mod replay;
pub mod source;
mod split;
mod template;
#[cfg(test)]
mod tests;
mod tolerance;
mod verdict;
mod what_if;
mod words;

use std::collections::BTreeMap;

use jiff::Timestamp;

pub use buckets::{Buckets, Slower, whole_buckets};
pub use check::{CheckRun, fold_checks};
pub use evidence::{Bounds, NEEDED_SAFE, Rule};
pub use explain::{Checked, Compared, Explanation, explain};
pub use fold::{fold, start_step};
pub use guard::{CounterPlan, GuardError, GuardPlan, Measured, Tolerated};
pub use interval::{Interval, ratio_interval};
pub use judge::{Judge, Judged, Said};
pub use matchers::{Labels, Matchers, MatchersError};
pub use plan::{NoData, Plan, PlanError, needs};
pub use quantiles::{Between, Quantile, quantiles};
pub use replay::{Replayed, merged, replay};
pub use source::{Source, SourceError};
pub use template::{KnownTemplate, TemplateError, with_templates};
pub use tolerance::{Tolerance, ToleranceError};
pub use verdict::{Finding, Unproven, Verdict, unproven, verdict};
pub use what_if::{Outcome, WhatIf, WhatIfError, outcome};
pub use words::{explanation_text, finding_text};

/// A series: the metric's name and all labels that tell it apart within one pod.
pub type SeriesKey = String;

/// What a metrics source said at one time.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// When it was asked.
    pub at: Timestamp,
    /// The pods, or why there is no data at all.
    pub outcome: Result<Vec<PodSample>, String>,
}

/// The counters of one pod.
#[derive(Clone, Debug, PartialEq)]
pub struct PodSample {
    /// The pod's uid.
    pub uid: String,
    /// The pod's name, for messages.
    pub name: String,
    /// Which version it runs.
    pub side: Side,
    /// When it began to serve; warm-up counts from here.
    pub started_at: Timestamp,
    /// One entry per guard of the plan, in its order; nothing where the pod gave no answer.
    pub guards: Vec<Option<Reading>>,
    /// Why an entry is missing.
    pub problem: Option<String>,
}

/// Which version a pod runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// The new version.
    Canary,
    /// The version that serves.
    Stable,
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Canary => "canary",
            Self::Stable => "stable",
        })
    }
}

/// What one pod says to one guard, by series.
#[derive(Clone, Debug, PartialEq)]
pub enum Reading {
    /// Counters. Without a series of `total` the pod has no data; without one of `bad` it has no bad events.
    Ratio {
        /// Counters of bad events; of good ones when the guard keeps them.
        bad: BTreeMap<SeriesKey, f64>,
        /// Counters of all events.
        total: BTreeMap<SeriesKey, f64>,
    },
    /// Histograms.
    Histogram(BTreeMap<SeriesKey, Buckets>),
    /// Values that go up and down.
    Gauge(BTreeMap<SeriesKey, f64>),
}
