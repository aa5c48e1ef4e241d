//! The guards: what is compared between the versions, and what is tolerated.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// A metric with a tolerance.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Guard {
    /// Name of the guard, unique in the Rollout.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Share of bad events among all events, canary against stable.
    pub ratio: RatioGuard,
}

/// Share of bad events among all events, canary against stable.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RatioGuard {
    /// The counter of bad events.
    pub bad: Counter,
    /// The counter of all events.
    pub total: Counter,
    /// What is tolerated, as `1.2x + 0.1%`: the canary's share may be 1.2 times stable's plus 0.1 percentage
    /// points. The factor is at least 1, the second part is optional.
    #[x_kube(validation = Rule::new(r"self.matches('^ *[1-9][0-9]*([.][0-9]+)?x *([+] *[0-9]+([.][0-9]+)?% *)?$')")
        .message("tolerate: write it as `1.2x + 0.1%`: a factor of at least 1 with x, then optionally + percentage points with %"))]
    #[schemars(length(max = 40))]
    pub tolerate: String,
}

/// A counter, and which of its series count.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Counter {
    /// Name of the metric.
    #[schemars(length(min = 1, max = 256), regex(pattern = "^[a-zA-Z_:][a-zA-Z0-9_:]*$"))]
    pub metric: String,
    /// Label matchers as in PromQL, without braces: `code=~"5..",method="GET"`. Default: all series.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub matches: Option<String>,
}
