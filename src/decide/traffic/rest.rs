//! Traffic at rest: what an old release left borrowed, and whether a new one can have what it needs.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::road::{self, Road};
use super::{
    LONGEST_LOAN, PATIENCE, SETTLE, SETTLE_BLINDLY, full_name, give_service_back, is_made_by, wanted,
};
use crate::api;
use crate::api::release::{PlannedStep, PlannedTraffic};
use crate::decide::effect::{Effect, Expect, Marks, Subject};
use crate::decide::observation::{Identity, Loan, Observation, ReplicaSet, Route, Service};
use crate::decide::pass::Pass;
use crate::decide::plan;
use crate::traffic::{self as routers, Ask, Seen, Uptake, Write};

/// Whether anything is borrowed or made for a release that is not there any more.
pub(in crate::decide) fn has_strays(obs: &Observation) -> bool {
    let rollout = full_name(obs);
    let of_this = |loan: &Loan| loan.rollout.as_deref() == Some(rollout.as_str());
    obs.routes.iter().any(|route| of_this(&route.loan) && !route.deleting)
        || obs.services.iter().any(|s| !s.deleting && (of_this(&s.loan) || is_made_by(obs, s)))
}

/// Takes the traffic of canaries without a Release away. True when nothing goes to them any more: the router has taken
/// it up, or the way back began at `since` and that is long enough ago.
pub(in crate::decide) fn stop_strays(
    pass: &mut Pass<'_>,
    strays: &[&ReplicaSet],
    since: Option<Timestamp>,
    why: &str,
) -> bool {
    let rollout = full_name(pass.obs);
    let obs = pass.obs;
    let before = pass.effects.len();
    let marks = |loan: &Loan| Marks {
        unchanged: false,
        borrow: None,
        stopped: Some(why.to_owned()),
        has_labels: loan.has_labels,
        has_annotations: loan.has_annotations,
    };
    let mut settle = SETTLE;
    let lent = obs.routes.iter().filter(|route| route.loan.rollout.as_deref() == Some(rollout.as_str()));
    for route in lent.filter(|route| !route.deleting) {
        let (stable, canary) = names(obs, route);
        if routers::companion(route.router, "", "").is_some() {
            // What carries the loan is the companion itself, and all its traffic is the canary's.
            pass.push(road::give_back(route.router, route, &stable, &canary));
            continue;
        }
        let seen = Seen::route(&route.object);
        match routers::taken_up(route.router, &seen) {
            Uptake::Yes => {}
            Uptake::Unknown => settle = settle.max(SETTLE_BLINDLY),
            Uptake::No(_) => settle = settle.max(PATIENCE),
        }
        let split = routers::read(route.router, &seen, &stable, &canary).unwrap_or_default();
        let busy = split.canary.is_some_and(|share| share > 0) || split.matched || split.mirrored;
        let ask = Ask { stable, canary, ..Ask::default() };
        if busy && let Ok(Some(Write::Route(ops))) = routers::patch(route.router, &seen, &ask) {
            let (router, marks) = (route.router, marks(&route.loan));
            pass.push(Effect::SplitRoute { router, route: route.id.clone(), ops, weight: 0, marks });
        }
    }
    let serving = pass.status.stable.as_ref().map(|stable| stable.replica_set.as_str());
    let serving = obs.replica_sets.iter().find(|rs| Some(rs.id.name.as_str()) == serving);
    if let Some(stable) = serving.and_then(|rs| rs.hash.as_ref()) {
        let pinned = |service: &&Service| {
            service.loan.rollout.as_deref() == Some(rollout.as_str())
                && service.pin().is_some_and(|pin| strays.iter().any(|rs| rs.hash.as_deref() == Some(pin)))
        };
        for service in obs.services.iter().filter(|s| !s.deleting).filter(pinned) {
            let (from, to) = (service.pin().map(str::to_owned), stable.clone());
            let marks = marks(&service.loan);
            pass.push(Effect::PinService { service: service.id.clone(), from, to, marks });
        }
    }
    if pass.effects.len() > before {
        return false;
    }
    match since.map(|since| since + settle).filter(|at| *at > pass.now) {
        Some(at) => {
            pass.wake(at);
            false
        }
        None => true,
    }
}

/// What a release that is not there any more left borrowed goes back, and the Services that Belay made for it go.
/// False as long as something is there.
pub(in crate::decide) fn return_strays(pass: &mut Pass<'_>) -> bool {
    let rollout = full_name(pass.obs);
    let obs = pass.obs;
    let of_this = |loan: &Loan| loan.rollout.as_deref() == Some(rollout.as_str());
    let routes = obs.routes.iter().filter(|route| of_this(&route.loan) && !route.deleting).map(|r| &r.loan);
    let services = obs.services.iter().filter(|s| !s.deleting && (of_this(&s.loan) || is_made_by(obs, s)));
    // A Release that the view lacks may only be late; what it borrowed must not be taken from it.
    let named: BTreeSet<&String> =
        routes.chain(services.map(|s| &s.loan)).filter_map(|loan| loan.release.as_ref()).collect();
    for name in named {
        if !obs.releases.iter().any(|r| r.metadata.name.as_ref() == Some(name)) {
            let namespace = pass.rollout_id().namespace;
            let id = Identity { namespace, name: name.clone(), ..Identity::default() };
            pass.confirm(Subject::Release, id, Expect::Gone);
        }
    }
    // Pods that cannot be seen must not be behind the Service when it selects by itself again.
    let made = obs.services.iter().filter(|s| !s.deleting && is_made_by(obs, s)).filter_map(Service::pin);
    for hash in made.filter(|pin| !obs.replica_sets.iter().any(|rs| rs.hash.as_deref() == Some(*pin))) {
        let name = format!("{}-{hash}", obs.rollout.spec.workload_ref.name);
        let id = Identity { namespace: pass.rollout_id().namespace, name, ..Identity::default() };
        pass.confirm(Subject::ReplicaSet, id, Expect::Gone);
    }
    let before = pass.effects.len();
    for route in obs.routes.iter().filter(|route| of_this(&route.loan) && !route.deleting) {
        let (stable, canary) = names(obs, route);
        pass.push(road::give_back(route.router, route, &stable, &canary));
    }
    if pass.effects.len() > before {
        // The router has to let go of the canary's Service before it goes.
        return false;
    }
    let mut gone = true;
    for service in obs.services.iter().filter(|service| !service.deleting) {
        if of_this(&service.loan) {
            give_service_back(pass, service);
        } else if !is_made_by(obs, service) {
            continue;
        } else if !may_linger(pass, service) {
            pass.push(Effect::DeleteService { service: service.id.clone() });
        }
        gone = false;
    }
    gone
}

/// Whether a router may not have taken up yet that the route which named a canary's Service is as it was.
fn may_linger(pass: &mut Pass<'_>, service: &Service) -> bool {
    let obs = pass.obs;
    let waits =
        |route: &Route| matches!(routers::taken_up(route.router, &Seen::route(&route.object)), Uptake::No(_));
    if !obs.routes.iter().any(|route| !route.deleting && waits(route)) {
        return false;
    }
    // Since when the release is over, as far as anything tells.
    let named = |name: Option<&String>| name.is_some() && name == service.loan.release.as_ref();
    let release = obs.releases.iter().find(|release| named(release.metadata.name.as_ref()));
    let ended = release.and_then(|r| r.status.as_ref()?.finished_at.as_ref()).map(|at| at.0);
    let vetoed = pass.status.vetoed.iter().find(|veto| named(Some(&veto.release))).map(|veto| veto.at.0);
    let leaving = obs.rollout.metadata.deletion_timestamp.as_ref().map(|at| at.0);
    match [ended, vetoed, leaving].into_iter().flatten().max().map(|since| since + PATIENCE) {
        Some(at) if at <= pass.now => false,
        Some(at) => {
            pass.wake(at);
            true
        }
        None => true,
    }
}

/// The Services between which a borrowed route was split, as the release that borrowed it says, else the Rollout.
fn names(obs: &Observation, route: &Route) -> (String, String) {
    let release = obs.releases.iter().find(|r| r.metadata.name == route.loan.release);
    if let Some(traffic) = release.and_then(|r| r.spec.traffic.as_ref()) {
        return (traffic.service.clone(), traffic.canary_service.clone().unwrap_or_default());
    }
    let strategy = obs.rollout.spec.strategy.as_ref();
    let service = strategy.and_then(plan::service_of).unwrap_or_default();
    let canary = plan::canary_service(&service);
    (service, canary)
}

/// Why a release cannot have its traffic, as the Services and routes are now.
pub(in crate::decide) fn refuse(
    obs: &Observation,
    plan: &PlannedTraffic,
    steps: &[PlannedStep],
) -> Option<String> {
    let namespace = obs.rollout.metadata.namespace.clone().unwrap_or_default();
    let rollout = full_name(obs);
    let taken = |id: &Identity, kind: &str, loan: &Loan| {
        let other = loan.rollout.as_deref().filter(|other| *other != rollout)?;
        Some(format!("{kind} {} is borrowed by a release of Rollout {other}; wait for its end", id.name))
    };
    let service = |name: &str| {
        let mut all = obs.services.iter();
        all.find(|s| s.id.name == name && s.id.namespace == namespace && !s.deleting)
    };
    for name in
        [Some(&plan.service), plan.canary_service.as_ref().filter(|_| plan.preview)].into_iter().flatten()
    {
        let Some(found) = service(name) else {
            return Some(format!("Service {name} does not exist; create it or correct the name"));
        };
        if found.selector.is_empty() {
            return Some(format!("Service {name} selects no pods by labels; give it a selector"));
        }
        if let Some(why) = taken(&found.id, "Service", &found.loan) {
            return Some(why);
        }
        if found.pin().is_some() && found.loan.release.is_none() {
            return Some(format!(
                "Service {name} selects one revision by {}; remove that label from its selector",
                api::POD_TEMPLATE_HASH
            ));
        }
    }
    if let Some(name) = plan.canary_service.as_ref().filter(|_| !plan.preview)
        && service(name).is_some_and(|found| !is_made_by(obs, found))
    {
        return Some(format!("a Service {name} exists already; the release needs that name for a while"));
    }
    if !plan.routes.is_empty() && !obs.routes_known {
        return Some("the routes are not listed yet; is their kind installed in this cluster?".to_owned());
    }
    for planned in &plan.routes {
        let what = road::name(planned);
        if planned.namespace != namespace {
            // Its backends are Services of its own namespace: not those of the release, for all their names.
            return Some(format!(
                "{what} is in another namespace than Service {}; name one in {namespace}",
                plan.service
            ));
        }
        let Some(road) = Road::find(obs, plan, planned) else {
            return Some(format!("{what} does not exist; create it or correct the name"));
        };
        if let Some(why) = taken(&road.route.id, planned.router.kind(), &road.route.loan) {
            return Some(why);
        }
        let ask = |step: &PlannedStep| Ask {
            stable: plan.service.clone(),
            canary: plan.canary_service.clone().unwrap_or_default(),
            weight: step.weight,
            matches: wanted(&step.matches),
            mirror: step.mirror,
            sticky: None,
        };
        let size = match road.borrowed() {
            Err(why) => return Some(format!("{what}: {why}")),
            Ok(original) => original.to_string().len(),
        };
        if size > LONGEST_LOAN {
            return Some(format!(
                "{what}: its rules are {size} bytes long, and {LONGEST_LOAN} are the most; split it"
            ));
        }
        if let Some(why) = steps.iter().find_map(|step| road.patch(&ask(step)).err()) {
            return Some(format!("{what}: {why}"));
        }
    }
    None
}
