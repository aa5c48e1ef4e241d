//! The evidence of the guards as it is kept in a Release's status: data only, see `analysis` for the formulas.

use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::Timestamp;
pub use super::looks::{Look, Looks};

/// All that the decision engine remembers between two looks.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct AnalysisState {
    /// Looks with data so far.
    #[serde(default)]
    pub looks: u32,
    /// When the first look was taken, with or without data; the times of recorded looks count from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_look_at: Option<Timestamp>,
    /// When the last look was taken, with or without data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_look_at: Option<Timestamp>,
    /// Since when there is no data; absent while there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_data_since: Option<Timestamp>,
    /// Why there is no data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1000))]
    pub no_data_reason: Option<String>,
    /// How the requests are shared between the versions' pods, in the present step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<Split>,
    /// One entry per guard, in the order of the Release's guards.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub guards: Vec<GuardState>,
}

/// The evidence of one guard.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct GuardState {
    /// The guard's name.
    #[schemars(length(max = 63))]
    pub name: String,
    /// Looks with data of this guard.
    #[serde(default)]
    pub looks: u32,
    /// Evidence that the canary is worse than stable at all: an e-value.
    #[serde(default = "one")]
    pub strict: f64,
    /// Evidence that the canary is beyond the tolerance: an e-value.
    #[serde(default = "one")]
    pub margin: f64,
    /// Evidence that the canary is safe: an e-value, reset at each step.
    #[serde(default = "one")]
    pub safe: f64,
    /// The looks that came before the last reset of `safe`.
    #[serde(default)]
    pub safe_from: u32,
    /// What the evidence is made of: one entry for a ratio, one per edge for a histogram, none for a gauge.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub streams: Vec<Stream>,
    /// Of a histogram: the upper edges of the buckets that are read, in the metric's unit, ascending.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 24))]
    pub edges: Vec<f64>,
    /// What the evidence of a gauge is made of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gauge: Option<GaugeState>,
    /// Of a check: how its runs went.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checks: Option<CheckState>,
    /// Running totals of each present stable pod, by pod uid: all events, then the counted ones of each stream.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 1000))]
    pub stable_pods: BTreeMap<String, Vec<f64>>,
    /// The last counter values by pod uid.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 1000))]
    pub counters: BTreeMap<String, PodCounters>,
    /// The last 360 looks with data, oldest first.
    #[serde(default, skip_serializing_if = "Looks::is_empty")]
    pub recent: Looks,
}

impl Default for GuardState {
    fn default() -> Self {
        Self {
            name: String::new(),
            looks: 0,
            strict: one(),
            margin: one(),
            safe: one(),
            safe_from: 0,
            streams: Vec::new(),
            edges: Vec::new(),
            gauge: None,
            checks: None,
            stable_pods: BTreeMap::new(),
            counters: BTreeMap::new(),
            recent: Looks::default(),
        }
    }
}

/// The evidence of one stream of yes/no events: of requests that failed, or that were slower than one edge.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Stream {
    /// Of a histogram: an event counts when it is slower than this, in the metric's unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edge: Option<f64>,
    /// Of a histogram with a tolerance in time: what stable's events are compared at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shifted: Option<Shifted>,
    /// Evidence against "no worse than stable": the part not yet staked, then one bet per assumed size of the harm.
    #[serde(default = "unstaked")]
    pub strict_bets: [f64; 7],
    /// Evidence against the tolerance: the part not yet staked, then one bet per assumed size of the harm.
    #[serde(default = "unstaked")]
    pub margin_bets: [f64; 7],
    /// Evidence of safety: one bet per assumed ratio below the limit.
    #[serde(default = "ones")]
    pub safe_bets: [f64; 6],
    /// Totals since the start of the release.
    #[serde(default)]
    pub totals: Counts,
    /// How much more stable's pods scatter within looks than independent requests would.
    #[serde(default)]
    pub dispersion: Dispersion,
}

impl Default for Stream {
    fn default() -> Self {
        Self {
            edge: None,
            shifted: None,
            strict_bets: unstaked(),
            margin_bets: unstaked(),
            safe_bets: ones(),
            totals: Counts::default(),
            dispersion: Dispersion::default(),
        }
    }
}

/// A point between two edges, for stable's events: those slower than `high`, and of those between `low` and `high`
/// the part `weight`, which was found at the start and is kept, so that counts of single looks are not bent.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Shifted {
    /// The point itself, in the metric's unit.
    pub at: f64,
    /// The edge at or below it; 0 when there is none.
    pub low: f64,
    /// The edge at or above it.
    pub high: f64,
    /// Part of the events between the two that are taken as slower than the point, 0 to 1.
    pub weight: f64,
}

/// The evidence of a gauge: sums of differences between the versions, one difference per 60 s.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct GaugeState {
    /// When the present 60 s began, in seconds since the first look.
    pub since: f64,
    /// Sum of the canary's means in the present 60 s.
    pub canary: f64,
    /// Sum of stable's means in the present 60 s.
    pub stable: f64,
    /// Looks in the present 60 s.
    pub looks: u32,
    /// Differences so far.
    pub differences: u32,
    /// Differences at the last reset of the evidence of safety.
    pub safe_from: u32,
    /// Sum and sum of squares of the differences to stable itself.
    pub strict: [f64; 2],
    /// Sum and sum of squares of the differences to the tolerance.
    pub margin: [f64; 2],
    /// Sum and sum of squares of the differences to the limit of safety, since its last reset.
    pub safe: [f64; 2],
    /// Sums of the means of both versions, canary first.
    pub totals: [f64; 2],
}

/// How the runs of a check went.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct CheckState {
    /// Runs that passed, in the whole release.
    #[serde(default)]
    pub passed: u32,
    /// Runs that failed, in the whole release.
    #[serde(default)]
    pub failed: u32,
    /// Runs that passed in the present step.
    #[serde(default)]
    pub passed_in_step: u32,
    /// Of a job: the number of the last run that ended; the first run is 1.
    #[serde(default)]
    pub ended: u32,
    /// Whether the last run with an answer passed.
    #[serde(default)]
    pub last: bool,
    /// When it last ran, with or without an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_at: Option<Timestamp>,
    /// What the last run with an answer saw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 200))]
    pub last_result: Option<String>,
    /// Since when runs have no answer; absent when the last one had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_data_since: Option<Timestamp>,
    /// Why the last run had no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 500))]
    pub no_data: Option<String>,
}

fn one() -> f64 {
    1.0
}

fn unstaked() -> [f64; 7] {
    [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
}

fn ones() -> [f64; 6] {
    [1.0; 6]
}

/// Events of one guard.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Bad events of the canary.
    pub canary_bad: f64,
    /// All events of the canary.
    pub canary_total: f64,
    /// Bad events of stable.
    pub stable_bad: f64,
    /// All events of stable.
    pub stable_total: f64,
}

/// Sums over the looks so far, from which the dispersion of stable's pods is learnt.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Dispersion {
    /// Sum of squared deviations over expectations.
    pub squares: f64,
    /// Degrees of freedom: pods less one, per look.
    pub freedom: f64,
}

/// The last values of one pod's counters, by a digest of the series' name and labels.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct PodCounters {
    /// Series of bad events.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 200))]
    pub bad: BTreeMap<String, f64>,
    /// Series of all events.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 200))]
    pub total: BTreeMap<String, f64>,
    /// Series of a histogram: the counts up to each of the guard's edges, then all.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 200))]
    pub buckets: BTreeMap<String, Vec<f64>>,
}

/// How the requests are shared between the measured pods, in the present step.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Split {
    /// Natural logarithm of the evidence that the canary's share is not that of its pods.
    pub log_evidence: f64,
    /// Requests of the canary in this step.
    pub canary: f64,
    /// Requests of both versions in this step.
    pub all: f64,
    /// Requests that the canary would have with an equal share for each measured pod.
    pub expected: f64,
}
