//! How the weight of a change grows: in steps, or by one switch.

use kube::KubeSchema;
use kube::core::Duration;
use serde::{Deserialize, Serialize};

use super::router::Router;
use super::schema;

/// How the weight of a change grows: exactly one of `canary` and `blueGreen`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("has(self.canary) != has(self.blueGreen)")
        .message("spec.strategy: exactly one of canary and blueGreen: set one, remove the other")
)]
pub struct Strategy {
    /// Both versions serve; the share of the new one grows in steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
    /// The new version runs beside the old one without users; then all of them are switched to it at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blue_green: Option<BlueGreen>,
}

/// A canary. Without `traffic` the Service selects both versions, and the number of canary pods sets the share.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("!has(self.traffic) || has(self.service)")
        .message("spec.strategy.canary.service: traffic needs the Service whose share is split; name it"),
    validation = Rule::new("has(self.traffic) || !has(self.bake)")
        .message("spec.strategy.canary.bake: by pods there is no weight of 100 % to bake at; add traffic, or make the last step longer"),
    validation = Rule::new("has(self.traffic) || !has(self.steps) || self.steps.all(s, s.weight <= 50)")
        .message("spec.strategy.canary.steps: by pods all stable pods stay, so the new version gets 50 % at most; lower the weight or add traffic"),
    validation = Rule::new("has(self.traffic) || !has(self.steps) || self.steps.all(s, !has(s.replicas) && !has(s.match) && !has(s.mirror))")
        .message("spec.strategy.canary.steps: replicas, match and mirror need a router; remove them or add traffic")
)]
pub struct Canary {
    /// The steps, in order, with growing weights. Default 5, 25 and 50 %.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 20))]
    #[x_kube(validation = Rule::new("self.map(s, s.weight).isSorted() && self.all(s, self.exists_one(t, t.weight == s.weight))")
        .message("spec.strategy.canary.steps: weights must grow from step to step; order them"))]
    pub steps: Vec<Step>,
    /// The Service that serves the workload. While a release runs it selects one version only, so that callers who
    /// bypass the router never meet the canary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub service: Option<String>,
    /// The routes that split the traffic of `service`. Absent: weight by pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<Traffic>,
    /// With `traffic`: how long the new version has all traffic while the old one still stands by, as a Go duration.
    /// Default 0s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub bake: Option<Duration>,
}

/// One step: a weight and the conditions to leave it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("!has(self.minDuration) || !has(self.maxDuration) || duration(self.minDuration) <= duration(self.maxDuration)")
        .message("maxDuration must not be shorter than minDuration; raise maxDuration")
)]
pub struct Step {
    /// Share of the new version in percent, 1 to 100; by pods at most 50, because all stable pods stay.
    #[x_kube(validation = Rule::new("self >= 1 && self <= 100")
        .message("weight: 1 to 100 percent"))]
    pub weight: i32,
    /// With `traffic`: canary pods of this step. Default: the weight's share of the workload's pods, rounded up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub replicas: Option<i32>,
    /// Least time at this weight with all its pods ready, as a Go duration. Default 1m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub min_duration: Option<Duration>,
    /// Time at this weight after which missing proof counts as inconclusive, as a Go duration.
    /// Default 30m, or `minDuration` if that is longer. Without guards it has no effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub max_duration: Option<Duration>,
    /// When true the step waits for a person: `belay promote` or `belay approve`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pause: bool,
    /// With `traffic`: requests that all go to the new version in this step, whatever the weight; any of these.
    #[serde(default, rename = "match", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 8))]
    pub matches: Vec<Match>,
    /// With `traffic`: copies of so many percent of stable's requests go to the new version, too, and its answers are
    /// dropped. Only for requests that may be done twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub mirror: Option<i32>,
}

/// A kind of request: all of its tests hold.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub struct Match {
    /// Tests of headers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 8))]
    pub headers: Vec<Test>,
    /// Tests of cookies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 8))]
    pub cookies: Vec<Test>,
    /// Tests of parameters of the query.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 8))]
    pub query: Vec<Test>,
}

/// A test of a header, a cookie or a parameter: exactly one of `value` and `regex`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("has(self.value) != has(self.regex)")
        .message("match: exactly one of value and regex: set one, remove the other")
)]
pub struct Test {
    /// The name.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// The value that is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub value: Option<String>,
    /// An expression, in the router's own dialect, that the whole value matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub regex: Option<String>,
}

/// Blue-green: the new version at full size beside the old one, a look at it, the switch, a bake with the way back
/// open.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("!has(self.previewService) || self.previewService != self.activeService")
        .message("spec.strategy.blueGreen.previewService: it must be another Service than activeService; name one, or remove it")
)]
pub struct BlueGreen {
    /// The Service that users reach. While a release runs it selects one version only.
    #[schemars(length(min = 1, max = 63))]
    pub active_service: String,
    /// A Service that selects the new version while it is looked at, and is as it was afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub preview_service: Option<String>,
    /// Pods of the new version before the switch. Default: as many as the workload has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub preview_replicas: Option<i32>,
    /// How long the new version is looked at, ready, before the switch, as a Go duration. Default 0s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub preview: Option<Duration>,
    /// When true the switch waits for a person: `belay promote` or `belay approve`. Default false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pause_before_switch: bool,
    /// How long the new version has all traffic while the old one still stands by, as a Go duration. Default 10m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub bake: Option<Duration>,
    /// Routes that are switched instead of the Service. Absent: the Service's selector is switched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<Traffic>,
}

/// The routes that split the traffic, at least one. They keep all that Belay does not know of them, and are as they
/// were after each release.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub struct Traffic {
    /// `HTTPRoutes` of the Gateway API.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 10))]
    pub http_routes: Vec<RouteRef>,
    /// `GRPCRoutes` of the Gateway API.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 10))]
    pub grpc_routes: Vec<RouteRef>,
    /// `VirtualServices` of Istio.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 10))]
    pub virtual_services: Vec<RouteRef>,
    /// Ingresses of ingress-nginx. They stay as they are: the canary gets a second Ingress beside each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 10))]
    pub nginx_ingresses: Vec<RouteRef>,
    /// `IngressRoutes` of Traefik.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 10))]
    pub ingress_routes: Vec<RouteRef>,
    /// `TraefikServices`, weighted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 10))]
    pub traefik_services: Vec<RouteRef>,
    /// Ingresses of the AWS load balancer controller, with an action annotation that forwards to the Service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 10))]
    pub alb_ingresses: Vec<RouteRef>,
    /// `TrafficSplits` of SMI.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 10))]
    pub traffic_splits: Vec<RouteRef>,
}

impl Traffic {
    /// All routes, with what they are.
    pub fn routes(&self) -> impl Iterator<Item = (Router, &RouteRef)> {
        [
            (Router::HttpRoute, &self.http_routes),
            (Router::GrpcRoute, &self.grpc_routes),
            (Router::VirtualService, &self.virtual_services),
            (Router::NginxIngress, &self.nginx_ingresses),
            (Router::IngressRoute, &self.ingress_routes),
            (Router::TraefikService, &self.traefik_services),
            (Router::AlbIngress, &self.alb_ingresses),
            (Router::TrafficSplit, &self.traffic_splits),
        ]
        .into_iter()
        .flat_map(|(router, routes)| routes.iter().map(move |route| (router, route)))
    }
}

/// A route by name.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its namespace. Default: the Rollout's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
}
