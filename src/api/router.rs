//! The kinds of routes that can be split, by the names that the API server has for them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A kind of route.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Router {
    /// Gateway API, HTTP.
    #[serde(rename = "HTTPRoute")]
    HttpRoute,
    /// Gateway API, gRPC.
    #[serde(rename = "GRPCRoute")]
    GrpcRoute,
    /// Istio.
    VirtualService,
    /// An Ingress of ingress-nginx. It stays as it is: the canary is a second Ingress, the companion.
    #[serde(rename = "NginxIngress")]
    NginxIngress,
    /// Traefik's weighted round robin.
    TraefikService,
    /// Traefik's routes with services of their own.
    IngressRoute,
    /// An Ingress of the AWS Load Balancer Controller.
    #[serde(rename = "ALBIngress")]
    AlbIngress,
    /// Service Mesh Interface.
    TrafficSplit,
}

impl Router {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::HttpRoute,
        Self::GrpcRoute,
        Self::VirtualService,
        Self::NginxIngress,
        Self::TraefikService,
        Self::IngressRoute,
        Self::AlbIngress,
        Self::TrafficSplit,
    ];

    /// The API group.
    pub fn group(self) -> &'static str {
        match self {
            Self::HttpRoute | Self::GrpcRoute => "gateway.networking.k8s.io",
            Self::VirtualService => "networking.istio.io",
            Self::NginxIngress | Self::AlbIngress => "networking.k8s.io",
            Self::TraefikService | Self::IngressRoute => "traefik.io",
            Self::TrafficSplit => "split.smi-spec.io",
        }
    }

    /// The versions that are understood; of those that a server offers, the first is the best.
    pub fn versions(self) -> &'static [&'static str] {
        match self {
            Self::HttpRoute => &["v1", "v1beta1"],
            Self::GrpcRoute => &["v1", "v1alpha2"],
            Self::VirtualService => &["v1", "v1beta1", "v1alpha3"],
            Self::NginxIngress | Self::AlbIngress => &["v1"],
            Self::TraefikService | Self::IngressRoute => &["v1alpha1"],
            // Weights were strings in v1alpha1.
            Self::TrafficSplit => &["v1alpha4", "v1alpha3", "v1alpha2"],
        }
    }

    /// The kind.
    pub fn kind(self) -> &'static str {
        match self {
            Self::HttpRoute => "HTTPRoute",
            Self::GrpcRoute => "GRPCRoute",
            Self::VirtualService => "VirtualService",
            Self::NginxIngress | Self::AlbIngress => "Ingress",
            Self::TraefikService => "TraefikService",
            Self::IngressRoute => "IngressRoute",
            Self::TrafficSplit => "TrafficSplit",
        }
    }

    /// The plural, as in paths.
    pub fn plural(self) -> &'static str {
        match self {
            Self::HttpRoute => "httproutes",
            Self::GrpcRoute => "grpcroutes",
            Self::VirtualService => "virtualservices",
            Self::NginxIngress | Self::AlbIngress => "ingresses",
            Self::TraefikService => "traefikservices",
            Self::IngressRoute => "ingressroutes",
            Self::TrafficSplit => "trafficsplits",
        }
    }

    /// The version that is written.
    pub fn version(self) -> &'static str {
        self.versions()[0]
    }

    /// The path of its API, as `/apis/GROUP/VERSION`.
    pub fn path(self) -> &'static str {
        match self {
            Self::HttpRoute | Self::GrpcRoute => "/apis/gateway.networking.k8s.io/v1",
            Self::VirtualService => "/apis/networking.istio.io/v1",
            Self::NginxIngress | Self::AlbIngress => "/apis/networking.k8s.io/v1",
            Self::TraefikService | Self::IngressRoute => "/apis/traefik.io/v1alpha1",
            Self::TrafficSplit => "/apis/split.smi-spec.io/v1alpha4",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_that_of_the_best_version() {
        for router in Router::ALL {
            assert_eq!(router.path(), format!("/apis/{}/{}", router.group(), router.version()));
        }
    }
}
