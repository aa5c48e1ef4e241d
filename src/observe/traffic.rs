//! Services, their endpoint slices and routes: what a release borrows or makes for its traffic.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::Value;

use super::store::{Key, Store};
use super::views::{controller, entry, identity, text};
use crate::api::release::PlannedTraffic;
use crate::api::router::Router;
use crate::api::{
    BORROWED_ANNOTATION, HELD_WRITES_ANNOTATION, RELEASE_LABEL, Release, Rollout, STOPPED_ANNOTATION,
};
use crate::decide::{Identity, Loan, Owner, Route, Service, planned_traffic};

/// What an endpoint slice says.
#[derive(Clone, Debug, Default)]
pub(super) struct Slice {
    namespace: String,
    service: String,
    ready: Vec<IpAddr>,
}

impl Slice {
    /// The Service that it belongs to.
    pub fn service(&self) -> Key {
        (self.namespace.clone(), self.service.clone())
    }
}

/// Everything that is known of Services and routes.
#[derive(Clone, Debug, Default)]
pub(super) struct TrafficStore {
    pub services: Store<Service>,
    pub slices: Store<Slice>,
    routes: BTreeMap<Router, Store<Route>>,
}

impl TrafficStore {
    /// Whether all that is always watched is listed.
    pub fn synced(&self) -> bool {
        self.services.synced() && self.slices.synced()
    }

    /// The routes of one kind.
    pub fn routes(&mut self, router: Router) -> &mut Store<Route> {
        self.routes.entry(router).or_default()
    }

    /// The Services for an observation of a Rollout: those that are named, and those it borrowed or made.
    pub fn services_of(&self, rollout: &Rollout, named: &[PlannedTraffic]) -> Vec<Service> {
        let namespace = rollout.metadata.namespace.as_deref().unwrap_or_default();
        let of = |service: &&Service| {
            named.iter().any(|plan| names_service(plan, &service.id.name))
                || lent_to(&service.loan, rollout)
                || made_for(service.owner.as_ref(), rollout)
        };
        let found = self.services.of(namespace).filter(of).cloned();
        found
            .map(|mut service| {
                let slices = self.slices.of(namespace).filter(|slice| slice.service == service.id.name);
                service.ready = slices.flat_map(|slice| slice.ready.iter().copied()).collect();
                service
            })
            .collect()
    }

    /// The routes for an observation of a Rollout, and whether all kinds that are named are listed.
    pub fn routes_of(&self, rollout: &Rollout, named: &[PlannedTraffic]) -> (Vec<Route>, bool) {
        let synced = |router| self.routes.get(&router).is_some_and(Store::synced);
        let known = named.iter().flat_map(|plan| &plan.routes).all(|route| synced(route.router));
        let of = |route: &&Route| {
            named.iter().any(|plan| names_route(plan, route.router, &route.id))
                || lent_to(&route.loan, rollout)
        };
        let all = self.routes.values().flat_map(|store| store.all().map(|(_, route)| route));
        (all.filter(of).cloned().collect(), known)
    }
}

/// The traffic that a Rollout and its running release name.
pub(super) fn named<'a>(
    rollout: &Rollout,
    releases: impl Iterator<Item = &'a Release>,
) -> Vec<PlannedTraffic> {
    let namespace = rollout.metadata.namespace.as_deref().unwrap_or_default();
    let running = releases.filter(|r| r.status.as_ref().is_none_or(|s| !s.phase.is_final()));
    let mut all: Vec<PlannedTraffic> = running.filter_map(|r| r.spec.traffic.clone()).collect();
    all.extend(planned_traffic(&rollout.spec, namespace));
    all
}

fn made_for(owner: Option<&Owner>, rollout: &Rollout) -> bool {
    owner.is_some_and(|owner| Some(&owner.uid) == rollout.metadata.uid.as_ref())
}

/// Whether a release of this Rollout has borrowed an object.
pub(super) fn lent_to(loan: &Loan, rollout: &Rollout) -> bool {
    let name = rollout.metadata.name.as_deref().unwrap_or_default();
    let namespace = rollout.metadata.namespace.as_deref().unwrap_or_default();
    loan.rollout.as_deref().and_then(|of| of.split_once('/')) == Some((namespace, name))
}

/// The Rollout that borrowed an object, if one did.
pub(super) fn borrower(loan: &Loan) -> Option<Key> {
    let (namespace, name) = loan.rollout.as_deref()?.split_once('/')?;
    Some((namespace.to_owned(), name.to_owned()))
}

fn loan(object: &Value) -> Loan {
    let annotation = |key| entry(object, "/metadata/annotations", key);
    let borrowed = annotation(BORROWED_ANNOTATION);
    let what: Value =
        borrowed.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let release = entry(object, "/metadata/labels", RELEASE_LABEL);
    Loan {
        // The policy holds the annotation only beside the label: without it anybody may have written it.
        rollout: release.as_ref().and_then(|_| text(&what, "/rollout")),
        release,
        original: what.get("original").cloned().unwrap_or_default(),
        annotation: borrowed,
        stopped: annotation(STOPPED_ANNOTATION),
        held_writes: annotation(HELD_WRITES_ANNOTATION).and_then(|n| n.parse().ok()),
        has_labels: object.pointer("/metadata/labels").is_some_and(Value::is_object),
        has_annotations: object.pointer("/metadata/annotations").is_some_and(Value::is_object),
    }
}

/// A Service.
pub(super) fn service(object: &Value) -> Service {
    let selector = object.pointer("/spec/selector").and_then(Value::as_object);
    let labels = selector.into_iter().flatten();
    Service {
        id: identity(object),
        deleting: object.pointer("/metadata/deletionTimestamp").is_some(),
        owner: controller(object),
        selector: labels.filter_map(|(key, v)| Some((key.clone(), v.as_str()?.to_owned()))).collect(),
        ports: object.pointer("/spec/ports").cloned().unwrap_or_default(),
        loan: loan(object),
        ready: BTreeSet::new(),
    }
}

/// An endpoint slice.
pub(super) fn slice(object: &Value) -> Slice {
    let endpoints = object.pointer("/endpoints").and_then(Value::as_array).into_iter().flatten();
    // Without a condition an endpoint is ready.
    let ready = endpoints.filter(|e| e.pointer("/conditions/ready") != Some(&Value::Bool(false)));
    let addresses = ready.filter_map(|e| e["addresses"].as_array()).flatten();
    Slice {
        namespace: text(object, "/metadata/namespace").unwrap_or_default(),
        service: entry(object, "/metadata/labels", "kubernetes.io/service-name").unwrap_or_default(),
        ready: addresses.filter_map(|ip| ip.as_str()?.parse().ok()).collect(),
    }
}

/// A route.
pub(super) fn route(router: Router, object: &Value) -> Route {
    let mut object = object.clone();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    Route {
        router,
        id: identity(&object),
        deleting: object.pointer("/metadata/deletionTimestamp").is_some(),
        loan: loan(&object),
        object,
    }
}

/// The kinds of routes that are named.
pub(super) fn routers<'a>(
    rollouts: impl Iterator<Item = &'a Rollout>,
    releases: impl Iterator<Item = &'a Release>,
) -> BTreeSet<Router> {
    let running = releases.filter(|r| r.status.as_ref().is_none_or(|s| !s.phase.is_final()));
    let of_releases = running.filter_map(|r| r.spec.traffic.clone());
    let of_rollouts = rollouts.filter_map(|r| planned_traffic(&r.spec, ""));
    of_releases.chain(of_rollouts).flat_map(|plan| plan.routes).map(|route| route.router).collect()
}

/// Whether a plan names a Service.
pub(super) fn names_service(plan: &PlannedTraffic, name: &str) -> bool {
    plan.service == name || plan.canary_service.as_deref() == Some(name)
}

/// Whether a plan names a route.
pub(super) fn names_route(plan: &PlannedTraffic, router: Router, id: &Identity) -> bool {
    plan.routes.iter().any(|r| r.router == router && r.namespace == id.namespace && r.name == id.name)
}
