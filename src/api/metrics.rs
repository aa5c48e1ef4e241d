//! Where the numbers of the guards come from.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Where the numbers come from: exactly one source.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("has(self.pods) != has(self.prometheus)")
        .message("spec.analysis.metrics: exactly one of pods and prometheus: set one, remove the other")
)]
pub struct Metrics {
    /// The operator itself reads the pods' metrics page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<PodMetrics>,
    /// A Prometheus server, asked for the raw series of exactly those pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<PrometheusMetrics>,
}

/// The metrics page of the pods themselves.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodMetrics {
    /// Port of the page, 1 to 65535.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// Path of the page. Default `/metrics`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024), regex(pattern = "^/"))]
    pub path: Option<String>,
}

/// A Prometheus server, or one that speaks its HTTP API.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PrometheusMetrics {
    /// Base address, such as `http://prometheus.monitoring:9090`; `/api/v1/query` is appended.
    #[x_kube(validation = Rule::new("self.startsWith('http://') || self.startsWith('https://')")
        .message("spec.analysis.metrics.prometheus.url: must start with http:// or https://"))]
    #[schemars(length(min = 8, max = 1024))]
    pub url: String,
    /// The label of the series that holds the pod's name. Default `pod`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128), regex(pattern = "^[a-zA-Z_][a-zA-Z0-9_]*$"))]
    pub pod_label: Option<String>,
    /// The label of the series that holds the namespace; empty to leave it out. Default `namespace`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128), regex(pattern = "^([a-zA-Z_][a-zA-Z0-9_]*)?$"))]
    pub namespace_label: Option<String>,
}
