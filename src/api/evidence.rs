//! The evidence of the guards as it is kept in a Release's status: data only, see `analysis` for the formulas.

use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::Timestamp;

/// All that the decision engine remembers between two looks.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct AnalysisState {
    /// Looks so far.
    #[serde(default)]
    pub looks: u32,
    /// When the last look was taken, with or without data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_look_at: Option<Timestamp>,
    /// Since when there is no data; absent while there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_data_since: Option<Timestamp>,
    /// Why there is no data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_data_reason: Option<String>,
    /// One entry per guard, in the order of the Release's guards.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub guards: Vec<GuardState>,
}

/// The evidence of one guard.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct GuardState {
    /// The guard's name.
    pub name: String,
    /// Evidence that the canary is worse than stable at all: an e-value.
    #[serde(default)]
    pub strict: f64,
    /// Evidence that the canary is beyond the tolerance: an e-value.
    #[serde(default)]
    pub margin: f64,
    /// Evidence that the canary is safe: an e-value, reset at each step.
    #[serde(default)]
    pub safe: f64,
    /// Totals since the start of the release.
    #[serde(default)]
    pub totals: Counts,
    /// The last counter values by pod uid, then by series.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub counters: BTreeMap<String, BTreeMap<String, f64>>,
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
