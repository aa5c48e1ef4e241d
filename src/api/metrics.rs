//! Where the numbers of the guards come from.

use kube::KubeSchema;
use kube::core::Duration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema;

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
#[x_kube(
    validation = Rule::new("!has(self.tls) || (has(self.scheme) && self.scheme == 'https')")
        .message("spec.analysis.metrics.pods.tls: only with scheme: https; set it, or remove tls")
)]
pub struct PodMetrics {
    /// Port of the page, 1 to 65535.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// Path of the page. Default `/metrics`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024), regex(pattern = "^/"))]
    pub path: Option<String>,
    /// How the page is served. Default `http`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<Scheme>,
    /// Whom to trust, with `scheme: https`. Certificates of pods rarely name the pods' addresses: `serverName` says
    /// which name they have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Who asks: sent to every pod that is measured. From a Secret in this namespace, which the operator may read only
    /// if a Role there says so (`belay lint` prints it). Whoever may change the Rollout decides where it is sent, so
    /// use a Secret that is made for this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
}

/// A Prometheus server, or one that speaks its HTTP API: Thanos, Mimir, `VictoriaMetrics`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("!has(self.tls) || self.url.startsWith('https://')")
        .message("spec.analysis.metrics.prometheus.tls: only with an address that starts with https://; change url, or remove tls")
)]
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
    /// Samples older than this are no data, as a Go duration, 1s to 5m. At least twice the scrape interval. Default
    /// 5m, the time after which Prometheus itself forgets a series.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s') && duration(self) <= duration('5m')")
        .message("spec.analysis.metrics.prometheus.lookBack: 1s to 5m"))]
    pub look_back: Option<Duration>,
    /// The tenant, sent as `X-Scope-OrgID`, as Mimir and its like want it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 150), regex(pattern = "^[a-zA-Z0-9!_.*'()|-]+$"))]
    pub tenant: Option<String>,
    /// Further headers of every query, at most 10. They are readable for whoever may read the Rollout: credentials
    /// belong into `auth`.
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
}

/// How pods serve their page.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub enum Scheme {
    /// In the clear.
    #[default]
    Http,
    /// Over TLS.
    Https,
}

/// A header of a request.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Header {
    /// Its name. Not one that carries credentials (`Authorization`, `Cookie`), nor one that belongs to the request
    /// itself (`Host`, `Content-…`, `Accept…`, and those of the connection).
    #[x_kube(validation = Rule::new("!self.matches('(?i)^(proxy-)?authorization$|^cookie$')")
        .message("headers: whoever may read the Rollout would read these credentials; use `auth` with a Secret"))]
    #[x_kube(validation = Rule::new("!self.matches('(?i)^(host|content-.*|accept|accept-.*|connection|keep-alive|te|trailer|transfer-encoding|upgrade|expect)$')")
        .message("headers: Host, Content-…, Accept… and those of the connection are set by the request itself; remove it"))]
    #[schemars(length(min = 1, max = 64), regex(pattern = "^[A-Za-z0-9][A-Za-z0-9_-]*$"))]
    pub name: String,
    /// Its value: printable ASCII.
    #[schemars(length(max = 1024), regex(pattern = "^([!-~]([ -~]*[!-~])?)?$"))]
    pub value: String,
}

/// Who asks: exactly one way. The values come from a Secret in the Rollout's namespace, which the operator may read
/// only if a Role there says so.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("has(self.basic) != has(self.bearer)")
        .message("auth: exactly one of basic and bearer: set one, remove the other")
)]
pub struct Auth {
    /// User and password (RFC 7617).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basic: Option<BasicAuth>,
    /// A token (RFC 6750).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bearer: Option<BearerAuth>,
}

/// User and password.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BasicAuth {
    /// Where they are.
    pub secret_ref: UserSecretRef,
}

/// A token.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BearerAuth {
    /// Where it is. Default key `token`.
    pub secret_ref: SecretKeyRef,
}

/// Two keys of a Secret in the Rollout's namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UserSecretRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
    /// The key of the user's name. Default `username`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[-._a-zA-Z0-9]+$"))]
    pub username_key: Option<String>,
    /// The key of the password. Default `password`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[-._a-zA-Z0-9]+$"))]
    pub password_key: Option<String>,
}

/// A key of a Secret in the Rollout's namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretKeyRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
    /// The key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[-._a-zA-Z0-9]+$"))]
    pub key: Option<String>,
}

/// Whom to trust as a server.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("!has(self.insecureSkipVerify) || !self.insecureSkipVerify || !(has(self.caSecretRef) || has(self.serverName))")
        .message("tls: insecureSkipVerify trusts everybody, so caSecretRef and serverName mean nothing; remove it, or them")
)]
pub struct Tls {
    /// The authorities' certificates in PEM, instead of those of the operator's system. Default key `ca.crt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretKeyRef>,
    /// The name that the server's certificate must have, instead of the host in the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = "^[a-zA-Z0-9]([-a-zA-Z0-9.:]*[a-zA-Z0-9])?$"))]
    pub server_name: Option<String>,
    /// Trust whoever answers. Then anybody on the way can give the numbers that promote a release, and read the
    /// credentials. Default false.
    #[serde(default)]
    pub insecure_skip_verify: bool,
}
