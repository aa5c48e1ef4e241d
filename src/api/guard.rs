//! The guards: what is compared between the versions, and what is tolerated; and what is checked.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{CelCheck, JobCheck, WebCheck};

/// A metric with a tolerance (`ratio`, `histogram`, `gauge`), or a check (`web`, `cel`, `job`): exactly one of them.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("[has(self.ratio), has(self.histogram), has(self.gauge), has(self.web), has(self.cel), has(self.job)].filter(x, x).size() == 1")
        .message("exactly one of ratio, histogram, gauge, web, cel and job: set one, remove the others"),
    validation = Rule::new("!has(self.weight) || has(self.ratio) || has(self.histogram) || has(self.gauge)")
        .message("weight: a check has none, it is no evidence; remove it")
)]
pub struct Guard {
    /// Name of the guard, unique in the Rollout.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// This guard's part of the error probability, 1 to 100, in relation to the weights of the other guards: one with
    /// weight 3 needs a third of the evidence of one with weight 1. Default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub weight: Option<i32>,
    /// Share of counted events among all events, canary against stable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratio: Option<RatioGuard>,
    /// How slow requests are, canary against stable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub histogram: Option<HistogramGuard>,
    /// A value that goes up and down, canary against stable, compared every 60 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gauge: Option<GaugeGuard>,
    /// A check that asks an address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub web: Option<WebCheck>,
    /// A check of what the other guards say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cel: Option<CelCheck>,
    /// A check that runs a pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobCheck>,
}

impl Guard {
    /// Whether it is a check, which needs no metrics source.
    pub fn is_check(&self) -> bool {
        self.web.is_some() || self.cel.is_some() || self.job.is_some()
    }
}

/// Share of counted events among all events, canary against stable.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("has(self.preset) ? !has(self.bad) && !has(self.good) && !has(self.total) : has(self.total) && has(self.bad) != has(self.good)")
        .message("ratio: name the counters with total and one of bad and good, or use a preset, which names them"),
    validation = Rule::new("[has(self.tolerate), has(self.atMost), has(self.keepAtLeast)].filter(x, x).size() == 1")
        .message("ratio: exactly one of tolerate, atMost and keepAtLeast: set one, remove the others"),
    validation = Rule::new("has(self.keepAtLeast) == has(self.good)")
        .message("ratio: keepAtLeast goes with good, and tolerate or atMost with bad")
)]
pub struct RatioGuard {
    /// Where the requests are counted, instead of `bad` and `total`: the errors among them are the bad events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<Preset>,
    /// The counter of bad events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bad: Option<Counter>,
    /// The counter of good events, such as orders: with `keepAtLeast`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub good: Option<Counter>,
    /// The counter of all events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<Counter>,
    /// What is tolerated, as `1.2x + 0.1%`: the canary's share may be 1.2 times stable's plus 0.1 percentage
    /// points. The factor is at least 1, the second part is optional.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new(r"self.matches('^ *[1-9][0-9]*([.][0-9]+)?x *([+] *[0-9]+([.][0-9]+)?% *)?$')")
        .message("tolerate: write it as `1.2x + 0.1%`: a factor of at least 1 with x, then optionally + percentage points with %"))]
    #[schemars(length(max = 40))]
    pub tolerate: Option<String>,
    /// A plain limit, as `0.5%`: the canary's share may be that much, whatever stable's is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new(r"self.matches('^ *[0-9]+([.][0-9]+)?% *$')")
        .message("atMost: write it as `0.5%`: percent of all events"))]
    #[schemars(length(max = 40))]
    pub at_most: Option<String>,
    /// What must be kept, as `0.95x`: the canary's share of good events must be at least 0.95 times stable's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new(r"self.matches('^ *(0[.][0-9]*[1-9][0-9]*|1([.]0+)?)x *$')")
        .message("keepAtLeast: write it as `0.95x`: a factor above 0 and at most 1 with x"))]
    #[schemars(length(max = 40))]
    pub keep_at_least: Option<String>,
}

/// How slow requests are, canary against stable: of classic buckets (`metric_bucket` with `le`), or of native
/// histograms from a Prometheus server.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("has(self.preset) ? !has(self.metric) && !has(self.match) : has(self.metric)")
        .message("histogram: name the metric, or use a preset, which names it"),
    validation = Rule::new("has(self.tolerate) != has(self.tolerateShare)")
        .message("histogram: exactly one of tolerate and tolerateShare: set one, remove the other")
)]
pub struct HistogramGuard {
    /// Where the times are measured, instead of `metric`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<Preset>,
    /// Name of the histogram, without `_bucket`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), regex(pattern = "^[a-zA-Z_:][a-zA-Z0-9_:]*$"))]
    pub metric: Option<String>,
    /// Label matchers as in PromQL, without braces. Default: all series.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub matches: Option<String>,
    /// How much slower is tolerated, as `1.2x`: the canary's requests may take 1.2 times as long as stable's. At
    /// least 1.05x. Of native histograms it is rounded down to whole buckets, at least one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new(r"self.matches('^ *[1-9][0-9]*([.][0-9]+)?x *$')")
        .message("tolerate: write it as `1.2x`: a factor of at least 1.05 with x"))]
    #[schemars(length(max = 40))]
    pub tolerate: Option<String>,
    /// How many more slow requests are tolerated at each bucket's edge, as `1.5x + 0.2%`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new(r"self.matches('^ *[1-9][0-9]*([.][0-9]+)?x *([+] *[0-9]+([.][0-9]+)?% *)?$')")
        .message("tolerateShare: write it as `1.5x + 0.2%`: a factor of at least 1 with x, then optionally + percentage points with %"))]
    #[schemars(length(max = 40))]
    pub tolerate_share: Option<String>,
}

/// A value that goes up and down, such as memory or the length of a queue: the mean over the pods of each version,
/// compared every 60 s. A verdict needs at least nine comparisons.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("has(self.tolerate) != has(self.keepAtLeast)")
        .message("gauge: exactly one of tolerate and keepAtLeast: set one, remove the other")
)]
pub struct GaugeGuard {
    /// Name of the metric.
    #[schemars(length(min = 1, max = 256), regex(pattern = "^[a-zA-Z_:][a-zA-Z0-9_:]*$"))]
    pub metric: String,
    /// Label matchers as in PromQL, without braces. Default: all series.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub matches: Option<String>,
    /// What several series of one pod become. Default `sum`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aggregate: Option<Aggregate>,
    /// How much more is tolerated, as `1.2x` of stable's value. At least 1.05x.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new(r"self.matches('^ *[1-9][0-9]*([.][0-9]+)?x *$')")
        .message("tolerate: write it as `1.2x`: a factor of at least 1.05 with x"))]
    #[schemars(length(max = 40))]
    pub tolerate: Option<String>,
    /// What must be kept, as `0.9x` of stable's value. At most 0.95x.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new(r"self.matches('^ *0[.][0-9]*[1-9][0-9]*x *$')")
        .message("keepAtLeast: write it as `0.9x`: a factor above 0 and at most 0.95 with x"))]
    #[schemars(length(max = 40))]
    pub keep_at_least: Option<String>,
}

/// What several series of one pod become.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub enum Aggregate {
    /// Their sum.
    #[default]
    Sum,
    /// The largest.
    Max,
    /// Their mean.
    Mean,
}

/// Where requests are counted and timed, so that the metrics need not be named.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// The application's own `http_requests_total` with a label `code`, and `http_request_duration_seconds`.
    Http,
    /// OpenTelemetry's semantic conventions for HTTP servers.
    OtelHttp,
    /// Istio's sidecar.
    Istio,
    /// Linkerd's sidecar.
    Linkerd,
    /// Envoy as Contour configures it.
    Contour,
    /// ingress-nginx.
    Nginx,
    /// Traefik.
    Traefik,
}

impl Preset {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::OtelHttp => "otel-http",
            Self::Istio => "istio",
            Self::Linkerd => "linkerd",
            Self::Contour => "contour",
            Self::Nginx => "nginx",
            Self::Traefik => "traefik",
        }
    }
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
