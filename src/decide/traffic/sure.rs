//! Whether Services and routes are what was seen of them. An old view of a route, or one of a time before it was
//! listed, shows no canary in it: that must not be taken for traffic that is gone.

use crate::api::release::PlannedTraffic;
use crate::decide::effect::{Expect, Subject};
use crate::decide::observation::{Identity, Observation, ReplicaSet};
use crate::decide::pass::Pass;
use crate::decide::plan;
use crate::traffic::{self as routers, Router};

/// Asks first whether the routes and Services of a plan are what was seen of them.
pub(super) fn all(pass: &mut Pass<'_>, planned: &PlannedTraffic) {
    let canary = planned.canary_service.as_deref().unwrap_or_default();
    for route in &planned.routes {
        let companion = routers::companion(route.router, &route.name, canary);
        for name in [Some(route.name.clone()), companion].into_iter().flatten() {
            let seen = seen_route(pass.obs, route.router, &route.namespace, &name);
            ask(pass, Subject::Route(route.router), seen, &route.namespace, name);
        }
    }
    let namespace = pass.rollout_id().namespace;
    for name in [Some(&planned.service), planned.canary_service.as_ref()].into_iter().flatten() {
        let mut all = pass.obs.services.iter();
        let seen = all.find(|s| s.id.name == *name && s.id.namespace == namespace).map(|s| s.id.clone());
        ask(pass, Subject::Service, seen, &namespace, name.clone());
    }
}

/// Asks first whether what the Rollout names is what was seen of it.
pub(in crate::decide) fn named(pass: &mut Pass<'_>) {
    let namespace = pass.rollout_id().namespace;
    if let Some(planned) = plan::traffic(&pass.obs.rollout.spec, &namespace) {
        all(pass, &planned);
    }
}

/// Asks first whether a ReplicaSet is what was seen of it.
pub(super) fn replica_set(pass: &mut Pass<'_>, seen: Option<&ReplicaSet>, name: &str) {
    let namespace = pass.rollout_id().namespace;
    ask(pass, Subject::ReplicaSet, seen.map(|rs| rs.id.clone()), &namespace, name.to_owned());
}

fn seen_route(obs: &Observation, router: Router, namespace: &str, name: &str) -> Option<Identity> {
    let mut all = obs.routes.iter();
    let found = all.find(|r| r.router == router && r.id.namespace == namespace && r.id.name == name);
    found.map(|route| route.id.clone())
}

fn ask(pass: &mut Pass<'_>, subject: Subject, seen: Option<Identity>, namespace: &str, name: String) {
    if let Some(id) = seen {
        pass.confirm(subject, id, Expect::Unchanged);
    } else {
        let id = Identity { namespace: namespace.to_owned(), name, ..Identity::default() };
        pass.confirm(subject, id, Expect::Gone);
    }
}
