//! How a release is watched: how often, how sure a verdict must be, and by which guards.

use kube::KubeSchema;
use kube::core::Duration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::guard::Guard;
use super::metrics::Metrics;
use super::schema;
use super::template::TemplateRef;

/// The metrics that are watched in each step.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Analysis {
    /// Time between two looks at the metrics, as a Go duration, 1s to 5m. Default 5s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s') && duration(self) <= duration('5m')")
        .message("spec.analysis.interval: 1s to 5m"))]
    pub interval: Option<Duration>,
    /// Pods younger than this are left out of the comparison, as a Go duration. Default 60s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub warm_up: Option<Duration>,
    /// How much evidence a rollback needs. Default `standard`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<Confidence>,
    /// What happens when `maxDuration` ends with neither proof. Default `hold`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_inconclusive: Option<Inconclusive>,
    /// What happens when the metrics source gives no data. Default: hold, for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_no_data: Option<OnNoData>,
    /// Whether a release is held when its requests are not shared between the versions as their pods are: by more
    /// than a factor of two, and beyond doubt. Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample_ratio_check: Option<bool>,
    /// How many container restarts the canary pods together may have in one release. Default 0, and 1 with
    /// more than 10 canary pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub max_restarts: Option<i32>,
    /// Where the numbers come from. Needed with guards that compare numbers; checks need none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Metrics>,
    /// The guards. All must be proven safe to advance, and all checks pass; one that fails rolls the release back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub guards: Vec<Guard>,
    /// Templates whose guards come after these. A release takes them over when it starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub templates: Vec<TemplateRef>,
}

/// How much evidence a rollback needs. The two numbers are the bounds of the two keys: evidence that the
/// canary is worse at all, and evidence that it is beyond the tolerance.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub enum Confidence {
    /// 1000 and 20: at most 1 of 1,000 harmless releases is rolled back.
    Careful,
    /// 100 and 10: at most 1 of 100.
    #[default]
    Standard,
    /// 20 and 5: at most 1 of 20.
    Fast,
}

/// What happens without proof of either kind.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub enum Inconclusive {
    /// Stay at the weight and say so.
    #[default]
    Hold,
    /// Go on to the next step.
    Promote,
    /// Roll back.
    Rollback,
}

/// What happens when the metrics source gives no data.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("!has(self.then) || self.then == 'hold' || has(self.after)")
        .message("spec.analysis.onNoData.after: needed when `then` is not hold; set how long to wait")
)]
pub struct OnNoData {
    /// What is done at once: always `hold`.
    #[serde(default)]
    pub action: NoDataAction,
    /// How long the source may be silent before `then` applies, as a Go duration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub after: Option<Duration>,
    /// What is done after that. Default `hold`.
    #[serde(default)]
    pub then: NoDataThen,
}

/// What is done at once when there is no data.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub enum NoDataAction {
    /// Hold: neither promote nor roll back.
    #[default]
    Hold,
}

/// What is done when the source stays silent.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub enum NoDataThen {
    /// Go on holding.
    #[default]
    Hold,
    /// Roll back.
    Rollback,
}
