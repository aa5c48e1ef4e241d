//! The kinds that are written, by the names that the API server's paths have for them.

use crate::api::router::Router;

/// A kind of object, as the API server's paths name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// `belay.dev/v1alpha1` rollouts.
    Rollouts,
    /// `belay.dev/v1alpha1` releases.
    Releases,
    /// `apps/v1` deployments.
    Deployments,
    /// `apps/v1` replicasets.
    ReplicaSets,
    /// `autoscaling/v2` horizontalpodautoscalers.
    Autoscalers,
    /// `batch/v1` jobs.
    Jobs,
    /// `events.k8s.io/v1` events.
    Events,
    /// `v1` services.
    Services,
    /// Routes of a router.
    Routes(Router),
}

impl Resource {
    /// The group and version, as in paths.
    pub fn path(self) -> &'static str {
        match self {
            Self::Rollouts | Self::Releases => "/apis/belay.dev/v1alpha1",
            Self::Deployments | Self::ReplicaSets => "/apis/apps/v1",
            Self::Autoscalers => "/apis/autoscaling/v2",
            Self::Jobs => "/apis/batch/v1",
            Self::Events => "/apis/events.k8s.io/v1",
            Self::Services => "/api/v1",
            Self::Routes(router) => router.path(),
        }
    }

    /// The plural, as in paths.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Rollouts => "rollouts",
            Self::Releases => "releases",
            Self::Deployments => "deployments",
            Self::ReplicaSets => "replicasets",
            Self::Autoscalers => "horizontalpodautoscalers",
            Self::Jobs => "jobs",
            Self::Events => "events",
            Self::Services => "services",
            Self::Routes(router) => router.plural(),
        }
    }
}
