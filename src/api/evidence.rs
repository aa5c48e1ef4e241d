//! The evidence of the guards as it is kept in a Release's status: data only, see `analysis` for the formulas.

use std::borrow::Cow;
use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::Timestamp;

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
    /// Evidence that the canary is worse than stable at all: an e-value, the sum of `strictBets`.
    #[serde(default = "one")]
    pub strict: f64,
    /// Evidence that the canary is beyond the tolerance: an e-value, the sum of `marginBets`.
    #[serde(default = "one")]
    pub margin: f64,
    /// Evidence that the canary is safe: an e-value, the mean of `safeBets`, reset at each step.
    #[serde(default = "one")]
    pub safe: f64,
    /// The looks that came before the last reset of `safe`.
    #[serde(default)]
    pub safe_from: u32,
    /// What `strict` is made of: the part not yet staked, then one bet per assumed size of the harm.
    #[serde(default = "unstaked")]
    pub strict_bets: [f64; 7],
    /// What `margin` is made of: the part not yet staked, then one bet per assumed size of the harm.
    #[serde(default = "unstaked")]
    pub margin_bets: [f64; 7],
    /// What `safe` is made of: one bet per assumed ratio below the limit.
    #[serde(default = "ones")]
    pub safe_bets: [f64; 6],
    /// Totals since the start of the release.
    #[serde(default)]
    pub totals: Counts,
    /// How much more stable's pods scatter within looks than independent requests would.
    #[serde(default)]
    pub dispersion: Dispersion,
    /// Running totals of each present stable pod, by pod uid: bad events, all events.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 1000))]
    pub stable_pods: BTreeMap<String, [f64; 2]>,
    /// The last counter values by pod uid.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 1000))]
    pub counters: BTreeMap<String, PodCounters>,
    /// The last 360 looks with data, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 360))]
    pub recent: Vec<Look>,
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
            strict_bets: unstaked(),
            margin_bets: unstaked(),
            safe_bets: ones(),
            totals: Counts::default(),
            dispersion: Dispersion::default(),
            stable_pods: BTreeMap::new(),
            counters: BTreeMap::new(),
            recent: Vec::new(),
        }
    }
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
}

/// One look, in JSON as an array of numbers: `[seconds, canary bad, canary total, stable bad, stable total,
/// dispersion, spread]`; the last two are left out when they are 1.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
#[serde(from = "Vec<f64>", into = "Vec<f64>")]
pub struct Look {
    /// Seconds since the first look.
    pub second: f64,
    /// What happened since the look before.
    pub counts: Counts,
    /// The dispersion by which the evidence of this look was divided; at least 1.
    pub dispersion: f64,
    /// The factor by which the limits were widened at this look for unequal pods; at least 1.
    pub spread: f64,
}

impl From<Vec<f64>> for Look {
    fn from(numbers: Vec<f64>) -> Self {
        let at = |index: usize, default| numbers.get(index).copied().unwrap_or(default);
        Self {
            second: at(0, 0.0),
            counts: Counts {
                canary_bad: at(1, 0.0),
                canary_total: at(2, 0.0),
                stable_bad: at(3, 0.0),
                stable_total: at(4, 0.0),
            },
            dispersion: at(5, 1.0),
            spread: at(6, 1.0),
        }
    }
}

impl From<Look> for Vec<f64> {
    fn from(look: Look) -> Self {
        let Counts { canary_bad, canary_total, stable_bad, stable_total } = look.counts;
        let mut numbers = vec![look.second, canary_bad, canary_total, stable_bad, stable_total];
        if look.dispersion > 1.0 || look.spread > 1.0 {
            numbers.push(look.dispersion);
        }
        if look.spread > 1.0 {
            numbers.push(look.spread);
        }
        numbers
    }
}

impl JsonSchema for Look {
    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("Look")
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "array",
            "description": "Seconds since the first look, canary bad, canary total, stable bad, stable total, and if not 1: dispersion, spread.",
            "items": {"type": "number"},
            "minItems": 5,
            "maxItems": 7,
        })
    }
}
