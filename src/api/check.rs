//! The checks: guards that are asked something and answer yes or no, beside those that compare numbers.

use kube::KubeSchema;
use kube::core::Duration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::metrics::{Auth, Header, Tls};
use super::schema;

/// Asks an address, and holds the answer against a condition. An answer that does not come, or that the condition
/// cannot be held against, is no data: it neither passes nor fails.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("!has(self.tls) || self.url.startsWith('https://')")
        .message("web.tls: only with an address that starts with https://; change url, or remove tls")
)]
pub struct WebCheck {
    /// What is asked, such as `http://{{rollout}}-smoke.{{namespace}}:8080/check?revision={{revision}}`. The operator asks
    /// it, so it must be reachable from there. `{{revision}}`, `{{namespace}}`, `{{rollout}}` and `{{release}}` stand for
    /// those of the release. Redirects are not followed.
    #[x_kube(validation = Rule::new("self.startsWith('http://') || self.startsWith('https://')")
        .message("web.url: must start with http:// or https://"))]
    #[schemars(length(min = 8, max = 1024))]
    pub url: String,
    /// How it is asked. Default `GET`. A body is never sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<WebMethod>,
    /// Further headers, at most 10. They are readable for whoever may read the Rollout: credentials belong into `auth`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub headers: Vec<Header>,
    /// Who asks. From a Secret in this namespace, which the operator may read only if a Role there says so (`belay lint`
    /// prints it). Whoever may change the Rollout decides where it is sent, so use a Secret that is made for this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
    /// Whom to trust, with an address that starts with https://. Default: the authorities of the operator's system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Which part of the answer, which must be JSON then, is `result` (RFC 9535), such as `$.checks.database`. A path
    /// that can select several values makes a list. At most one `..` and one filter. Default: the whole answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), regex(pattern = "^[$]"))]
    pub json_path: Option<String>,
    /// What must hold for the check to pass, in CEL, of `status` (the HTTP status) and `result` (the selected JSON), such
    /// as `status == 200 && result.ready`. Default `status >= 200 && status < 300`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub condition: Option<String>,
    /// Time between two runs, as a Go duration, 5s to 1h. Default 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('5s') && duration(self) <= duration('1h')")
        .message("interval: 5s to 1h"))]
    pub interval: Option<Duration>,
    /// Time that the answer may take, as a Go duration, 100ms to 30s. Default 5s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('100ms') && duration(self) <= duration('30s')")
        .message("web.timeout: 100ms to 30s"))]
    pub timeout: Option<Duration>,
    /// How many runs of a release may fail. One more rolls it back. Default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub failure_limit: Option<i32>,
    /// How many runs must pass in a step before it may be left. Default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub successes: Option<i32>,
}

/// How an address is asked.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "UPPERCASE")]
pub enum WebMethod {
    /// For its answer.
    #[default]
    Get,
    /// For the status alone.
    Head,
    /// To make it do something.
    Post,
}

/// Holds what the other guards of the release say against a condition. A condition that cannot be evaluated is no data:
/// it neither passes nor fails.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CelCheck {
    /// What must hold for the check to pass, in CEL, such as `guards.errors.canary < 0.02 || guards.errors.ratio < 2.0`.
    ///
    /// `guards` has the guards that compare numbers, by name, each with `canary` and `stable` (of a ratio or a histogram
    /// the share of counted events since the release began, of a histogram at the edge with the most evidence; of a gauge
    /// the mean), `ratio` (canary over stable), `worse`, `evidence` and `safe` (the evidence that the canary is worse at
    /// all, beyond the tolerance, and safe at this step) and `looks`. `checks` has the web and job checks, each with
    /// `passed`, `failed` and `passedInStep` (numbers of runs) and `last` (whether the last run passed). What is not
    /// known yet is not there, and while a guard has said nothing a condition that needs it is not held against it. A name with dashes: `guards["x-y"].ratio`.
    #[schemars(length(min = 1, max = 1024))]
    pub condition: String,
    /// Time between two runs, as a Go duration, 5s to 1h. Default 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('5s') && duration(self) <= duration('1h')")
        .message("interval: 5s to 1h"))]
    pub interval: Option<Duration>,
    /// How many runs of a release may fail. One more rolls it back. Default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub failure_limit: Option<i32>,
    /// How many runs must pass in a step before it may be left. Default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub successes: Option<i32>,
}

/// Runs a pod in the Rollout's namespace, as a Kubernetes Job that the Release owns. It passes when the Job completes and
/// fails when the Job fails. A Job that is late, or was never made, is no data: it neither passes nor fails.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JobCheck {
    /// What runs: a `PodSpec`, at most 16 KiB. It needs `containers`; `restartPolicy` is `Never`. Every container gets the
    /// variables `BELAY_REVISION`, `BELAY_ROLLOUT`, `BELAY_RELEASE` and `BELAY_NAMESPACE`. Whoever may write the Rollout
    /// decides what runs, under any ServiceAccount of the namespace, as with a Deployment.
    #[schemars(schema_with = "schema::pod_spec")]
    pub template: Value,
    /// Time between the beginnings of two runs, as a Go duration, 5s to 24h. Without it the Job is a gate: it runs in
    /// each step, once its weight is reached, until it has passed as often as it must.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('5s') && duration(self) <= duration('24h')")
        .message("job.interval: 5s to 24h"))]
    pub interval: Option<Duration>,
    /// Time that a run may take, as a Go duration, 1s to 24h. Default 10m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s') && duration(self) <= duration('24h')")
        .message("job.deadline: 1s to 24h"))]
    pub deadline: Option<Duration>,
    /// How many runs of a release may fail. One more rolls it back. Default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub failure_limit: Option<i32>,
    /// How many runs must pass in a step before it may be left. Default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub successes: Option<i32>,
}
