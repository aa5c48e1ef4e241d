//! Who gets which share, where a router splits the traffic or a Service is switched: what is borrowed for it, in which
//! order it moves, and how it goes back.
//!
//! Forward: the Service is pinned to stable, so that callers who bypass the router never meet the canary; the canary
//! gets a Service of its own; each route gets it as one more backend **at weight 0**; when the router knows it, the
//! weight follows the pods. At the end the pin moves to the new version, then its ReplicaSet is handed over, and
//! everything goes back. Backward: the weight goes first, in one write with the mark that says why; the pods only when
//! the router has let go of them.

mod rest;
mod road;
mod sure;

use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use serde_json::{Value, json};

use super::drive::Run;
use super::effect::{Effect, Marks};
use super::observation::{Loan, Observation, ReplicaSet, Service};
use super::pass::Pass;
use super::plan::owner;
use super::reason::Reason;
use super::status::Working;
use crate::api::release::PlannedTraffic;
use crate::api::strategy;
use crate::api::{self, Release, ReleasePhase};
use crate::traffic::{Ask, Match, Test, Uptake, Wanted, Write};
pub(super) use rest::{has_strays, refuse, return_strays, stop_strays};
use road::Road;
pub(super) use sure::named as confirm_named;

/// After a change that the router says it has taken up: requests on their way, and its workers that learn of it late.
const SETTLE: SignedDuration = SignedDuration::from_secs(2);
/// After a change of which the router says nothing.
const SETTLE_BLINDLY: SignedDuration = SignedDuration::from_secs(10);
/// Longest wait of a way back for a router that does not take it up: the route says what is right by then.
const PATIENCE: SignedDuration = SignedDuration::from_secs(30);
/// Longest text that is kept on a borrowed object.
const MARK: usize = 400;
/// Longest annotation that says what a route was. The API server takes 256 KiB of annotations for an object in all.
pub(super) const LONGEST_LOAN: usize = 64 * 1024;

/// What carries the traffic of a release.
pub(super) struct Traffic<'a> {
    plan: &'a PlannedTraffic,
    release: &'a Release,
    /// `namespace/name` of the Rollout.
    rollout: String,
    /// The Service of the workload.
    service: Option<&'a Service>,
    /// The canary's Service.
    canary: Option<&'a Service>,
    roads: Vec<Road<'a>>,
    /// Planned routes that are not there.
    missing: Vec<String>,
    /// `pod-template-hash` of both versions, as far as their ReplicaSets are there.
    stable_hash: Option<&'a str>,
    canary_hash: &'a str,
}

/// Whether the traffic is where it is wanted.
#[derive(Debug, PartialEq)]
pub(super) enum Stand {
    /// It is.
    There,
    /// Not yet: what it waits for.
    Waiting(String),
}

impl<'a> Traffic<'a> {
    /// The traffic of a release, if it does not go by pods.
    pub fn of(obs: &'a Observation, release: &'a Release) -> Option<Self> {
        let plan = release.spec.traffic.as_ref()?;
        let namespace = obs.rollout.metadata.namespace.as_deref().unwrap_or_default();
        let service = |name: &str| {
            let mut all = obs.services.iter();
            all.find(|s| s.id.name == name && s.id.namespace == namespace && !s.deleting)
        };
        let from = &release.spec.from;
        let stable = obs.replica_sets.iter().find(|rs| rs.id.name == from.replica_set);
        let missing = plan.routes.iter().filter(|planned| Road::find(obs, plan, planned).is_none());
        Some(Self {
            plan,
            release,
            rollout: format!("{namespace}/{}", release.spec.rollout),
            service: service(&plan.service),
            canary: plan.canary_service.as_deref().and_then(service),
            roads: plan.routes.iter().filter_map(|planned| Road::find(obs, plan, planned)).collect(),
            missing: missing.map(road::name).collect(),
            stable_hash: stable.and_then(|rs| rs.hash.as_deref()),
            canary_hash: &release.spec.to.revision,
        })
    }

    fn release_name(&self) -> String {
        self.release.metadata.name.clone().unwrap_or_default()
    }

    /// Whether an object is borrowed by this release.
    fn is_ours(&self, loan: &Loan) -> bool {
        loan.release.is_some() && loan.release == self.release.metadata.name
    }

    /// The share that the canary has now, in percent: the most that any of the routes gives it.
    pub fn weight(&self) -> i32 {
        if self.plan.routes.is_empty() {
            let pinned = self.service.and_then(Service::pin);
            return if pinned == Some(self.canary_hash) { 100 } else { 0 };
        }
        self.roads.iter().filter_map(Road::share).max().unwrap_or(0)
    }

    fn loans(&self) -> impl Iterator<Item = &'a Loan> {
        let services = [self.service, self.canary].into_iter().flatten().map(|s| &s.loan);
        services.chain(self.roads.iter().filter_map(Road::loan))
    }

    /// Writes of others that were held.
    fn held_writes(&self) -> i32 {
        self.loans().filter_map(|loan| loan.held_writes).fold(0, i32::saturating_add)
    }

    /// Why the canary's weight was taken away for good, if it was.
    pub fn stopped(&self) -> Option<&'a str> {
        self.loans().filter(|loan| self.is_ours(loan)).find_map(|loan| loan.stopped.as_deref())
    }

    fn marks(&self, loan: &Loan, original: impl FnOnce() -> Value, unchanged: bool) -> Marks {
        let borrow = (!self.is_ours(loan)).then(|| {
            let text = json!({"rollout": self.rollout, "original": original()}).to_string();
            (self.release_name(), text)
        });
        Marks {
            // Nothing but the very object that was seen may be taken for what is to be given back.
            unchanged: unchanged || borrow.is_some(),
            borrow,
            stopped: None,
            has_labels: loan.has_labels,
            has_annotations: loan.has_annotations,
        }
    }

    fn pin(&self, pass: &mut Pass<'_>, service: &Service, to: &str, stopped: Option<&str>) {
        let mut marks = self.marks(&service.loan, || Value::Null, stopped.is_none());
        marks.stopped = stopped.map(str::to_owned);
        pass.push(Effect::PinService {
            service: service.id.clone(),
            from: service.pin().map(str::to_owned),
            to: to.to_owned(),
            marks,
        });
    }

    /// What must be there before the first canary pod is: the pin, and the canary's own Service. Says what is missing.
    /// When all steps are `passed`, the `canary` may be handed over already, and an old view of it must not pin the
    /// Service to pods that are gone.
    pub fn prepare(
        &self,
        pass: &mut Pass<'_>,
        passed: bool,
        canary: Option<&ReplicaSet>,
    ) -> Result<(), Reason> {
        let waiting = |detail: String| Err(Reason::Shifting { detail });
        let Some(service) = self.service else {
            return waiting(format!("Service {} is not there", self.plan.service));
        };
        let Some(stable) = self.stable_hash else {
            return waiting(format!("ReplicaSet {} is not there", self.release.spec.from.replica_set));
        };
        if service.pin().is_none() || !self.is_ours(&service.loan) {
            if passed {
                sure::replica_set(pass, canary, &self.release.spec.to.replica_set);
            }
            self.pin(pass, service, stable, None);
        }
        let Some(name) = &self.plan.canary_service else { return Ok(()) };
        match self.canary {
            Some(canary) if self.plan.preview => {
                if canary.pin() != Some(self.canary_hash) || !self.is_ours(&canary.loan) {
                    self.pin(pass, canary, self.canary_hash, None);
                }
            }
            // An earlier release left it: nobody of this one will ever be behind it.
            Some(canary) if canary.pin() != Some(self.canary_hash) && is_made_by(pass.obs, canary) => {
                pass.push(Effect::DeleteService { service: canary.id.clone() });
                return waiting(format!("Service {name} of an earlier release goes first"));
            }
            Some(_) => {}
            None if self.plan.preview => return waiting(format!("Service {name} is not there")),
            None => pass.push(Effect::CreateService { object: self.canary_object(pass, service, name) }),
        }
        Ok(())
    }

    /// The canary's Service: as the workload's own, but for its name and what it selects.
    fn canary_object(&self, pass: &Pass<'_>, service: &Service, name: &str) -> Value {
        let mut selector = service.selector.clone();
        selector.insert(api::POD_TEMPLATE_HASH.to_owned(), self.canary_hash.to_owned());
        let mut ports = service.ports.clone();
        for port in ports.as_array_mut().into_iter().flatten() {
            if let Some(port) = port.as_object_mut() {
                port.remove("nodePort");
            }
        }
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": name,
                "namespace": service.id.namespace,
                "labels": {api::RELEASE_LABEL: self.release_name()},
                "ownerReferences": [owner(&pass.obs.rollout)],
            },
            "spec": {"selector": selector, "ports": ports},
        })
    }

    /// How many of these addresses are ready behind a Service.
    fn behind(service: &Service, ips: &[IpAddr]) -> usize {
        ips.iter().filter(|ip| service.ready.contains(ip)).count()
    }

    /// Brings the weight to `target` percent, forward: a canary that a route does not have yet comes in at 0 first.
    pub fn shift(&self, run: &mut Run<'_>, pass: &mut Pass<'_>, target: i32) -> Stand {
        let ips = run.ready_addresses(pass);
        run.working.status.traffic.get_or_insert_default().held_writes = self.held_writes();
        let stand = if self.plan.routes.is_empty() {
            self.switch(run, pass, target)
        } else {
            self.split(run, pass, target, &ips)
        };
        run.working.status.traffic.get_or_insert_default().weight = self.weight();
        stand
    }

    /// Blue-green without a router: the Service's selector is the switch.
    fn switch(&self, run: &mut Run<'_>, pass: &mut Pass<'_>, target: i32) -> Stand {
        let (Some(service), Some(stable)) = (self.service, self.stable_hash) else {
            return Stand::Waiting(format!("Service {} is not there", self.plan.service));
        };
        let wanted = if target == 100 { self.canary_hash } else { stable };
        if service.pin() != Some(wanted) {
            if target == 100 && !pass.sees() {
                return Stand::Waiting("watches were interrupted".to_owned());
            }
            run.working.record_if_due(pass, self.release);
            self.pin(pass, service, wanted, None);
            changed(&mut run.working, pass.now);
            return Stand::Waiting(format!("Service {} is switched", self.plan.service));
        }
        Self::settled(&mut run.working, pass, SETTLE)
    }

    fn split(&self, run: &mut Run<'_>, pass: &mut Pass<'_>, target: i32, ips: &[IpAddr]) -> Stand {
        let name = self.plan.canary_service.as_deref().unwrap_or_default();
        let behind = self.canary.map_or(0, |canary| Self::behind(canary, ips));
        let mut waiting = self.missing.first().map(|what| format!("{what} is not there"));
        let mut settle = SETTLE;
        for road in &self.roads {
            let uptake = road.uptake();
            if uptake == Uptake::Unknown {
                settle = SETTLE_BLINDLY;
            }
            let share = match road.split() {
                Ok(split) => split.canary,
                Err(why) => {
                    waiting.get_or_insert(format!("{}: {why}", road.name()));
                    continue;
                }
            };
            let next = match share {
                // What goes down goes at once.
                Some(share) if share > target => target,
                Some(share) if share == target && road.is_as_asked(&self.ask(run, target)) => {
                    if let Uptake::No(why) = uptake {
                        waiting.get_or_insert(format!("{}: {why}", road.name()));
                    }
                    continue;
                }
                _ if !pass.sees() => {
                    waiting.get_or_insert("watches were interrupted".to_owned());
                    continue;
                }
                // No share for a backend that has nobody behind it, not even one of 0: routers answer 503 for it.
                _ if behind == 0 || (target > 0 && behind < ips.len()) => {
                    waiting.get_or_insert(format!("Service {name} has {behind} of {} pods", ips.len()));
                    continue;
                }
                None => 0,
                // The router must know the backend before the first request goes there.
                Some(_) => {
                    if let Uptake::No(why) = uptake {
                        waiting.get_or_insert(format!("{}: {why}", road.name()));
                        continue;
                    }
                    if share == Some(0) && Self::settled(&mut run.working, pass, settle) != Stand::There {
                        waiting.get_or_insert(format!("{} learns of the canary", road.name()));
                        continue;
                    }
                    target
                }
            };
            // A canary that comes in at 0 gets nobody, not even those who ask for it.
            let ask = if share.is_none() { self.bare(next) } else { self.ask(run, next) };
            match road.patch(&ask) {
                Ok(Some(write)) => {
                    let grows = share.is_none_or(|share| share <= next);
                    // More weight only after it is written that the step before was passed.
                    run.working.record_if_due(pass, self.release);
                    let said = match self.write(pass, road, write, next, grows, None) {
                        Ok(()) => {
                            changed(&mut run.working, pass.now);
                            format!("{} is given {next} %", road.name())
                        }
                        Err(why) => format!("{}: {why}", road.name()),
                    };
                    waiting.get_or_insert(said);
                }
                Ok(None) => {}
                Err(why) => {
                    waiting.get_or_insert(format!("{}: {why}", road.name()));
                }
            }
        }
        match waiting {
            Some(why) => Stand::Waiting(why),
            None => Self::settled(&mut run.working, pass, settle),
        }
    }

    /// A weight and nothing else.
    fn bare(&self, weight: i32) -> Ask {
        Ask {
            stable: self.plan.service.clone(),
            canary: self.plan.canary_service.clone().unwrap_or_default(),
            weight,
            ..Ask::default()
        }
    }

    /// What the present step asks of a route, at this weight.
    fn ask(&self, run: &Run<'_>, weight: i32) -> Ask {
        // While the pods of a step come, users are where the step before had them.
        let passed = self.release.spec.steps.iter().take(run.index() + 1).rev();
        let step = passed.into_iter().find(|step| step.weight <= weight);
        let matches = step.map_or(Vec::new(), |step| wanted(&step.matches));
        let mirror = step.and_then(|step| step.mirror);
        Ask { matches, mirror, ..self.bare(weight) }
    }

    /// The write of a route. What is to be borrowed first must be understood: it goes back as it is now.
    fn write(
        &self,
        pass: &mut Pass<'_>,
        road: &Road<'_>,
        write: Write,
        weight: i32,
        grows: bool,
        stopped: Option<&str>,
    ) -> Result<(), String> {
        let none = Loan::default();
        let loan = road.loan().unwrap_or(&none);
        let ours = self.is_ours(loan);
        let original = if ours || !grows { Value::Null } else { road.borrowed()? };
        let mut marks = self.marks(loan, || original, grows);
        if !grows && !ours {
            // The weight goes whoever marked the route; it is not marked for this release then.
            (marks.borrow, marks.unchanged) = (None, false);
        }
        marks.stopped = stopped.filter(|_| ours).map(str::to_owned);
        let owner = json!(owner(&pass.obs.rollout));
        pass.push(road.effect(write, weight, marks, &owner));
        Ok(())
    }

    /// Whether the last change is long enough ago.
    fn settled(working: &mut Working, pass: &mut Pass<'_>, settle: SignedDuration) -> Stand {
        let since = working.status.traffic.as_ref().and_then(|t| t.changed_at.as_ref()).map(|t| t.0);
        match since.map(|since| since + settle) {
            Some(at) if at > pass.now => {
                pass.wake(at);
                Stand::Waiting("the last change of the traffic settles".to_owned())
            }
            _ => Stand::There,
        }
    }

    /// All steps are passed and the canary has all traffic of the routes: callers of the Service get it, too. Says
    /// whether the canary may be handed over.
    pub fn hand_over(&self, run: &mut Run<'_>, pass: &mut Pass<'_>) -> bool {
        let Some(service) = self.service else { return true };
        if service.pin() == Some(self.canary_hash) {
            return Self::settled(&mut run.working, pass, SETTLE) == Stand::There;
        }
        run.working.record_if_due(pass, self.release);
        self.pin(pass, service, self.canary_hash, None);
        changed(&mut run.working, pass.now);
        false
    }

    /// After the handover, in this order: the Service selects the new pods by itself; the routes' weight goes back to
    /// it; when no request is on its way to the canary's Service any more, that goes. True when all is as it was.
    pub fn finish(&self, run: &mut Run<'_>, pass: &mut Pass<'_>) -> bool {
        let ips = run.ready_addresses(pass);
        if let Some(service) = self.service.filter(|service| self.is_ours(&service.loan)) {
            if let Some(pin) = service.pin() {
                pass.push(Effect::UnpinService { service: service.id.clone(), from: pin.to_owned() });
                changed(&mut run.working, pass.now);
                return false;
            }
            if Self::behind(service, &ips) < ips.len() {
                pass.wake(pass.now + SETTLE);
                return false;
            }
        }
        if self.zero(pass, None) {
            changed(&mut run.working, pass.now);
            return false;
        }
        self.give_back(pass, &mut run.working)
    }

    /// The canary has no traffic: gives back what is borrowed as soon as nothing is on its way to it any more. True when
    /// all is as it was.
    pub fn give_back(&self, pass: &mut Pass<'_>, working: &mut Working) -> bool {
        if !self.drained(working, pass) {
            return false;
        }
        let canary = self.plan.canary_service.as_deref().unwrap_or_default();
        let routes = self.roads.iter().filter_map(Road::lent).filter(|route| self.is_ours(&route.loan));
        let mut routes = routes.peekable();
        if routes.peek().is_some() {
            // Written down before: a process that does not know of this change would not wait for the router.
            changed(working, pass.now);
            working.record(pass, self.release);
            for route in routes {
                pass.push(road::give_back(route.router, route, &self.plan.service, canary));
            }
            return false;
        }
        // Nobody comes back to this release when it has ended, and without its Service a route that still names it
        // would have nobody behind it.
        sure::all(pass, self.plan);
        working.confirm(pass, self.release);
        let before = pass.effects.len();
        if let Some(own) = self.canary {
            if self.plan.preview {
                if self.is_ours(&own.loan) {
                    give_service_back(pass, own);
                }
            } else if is_made_by(pass.obs, own) {
                // The router must have forgotten it.
                if !self.drained(working, pass) {
                    return false;
                }
                pass.push(Effect::DeleteService { service: own.id.clone() });
            }
        }
        if let Some(service) = self.service.filter(|service| self.is_ours(&service.loan)) {
            give_service_back(pass, service);
        }
        // What is written in this pass is seen in the next.
        pass.effects.len() == before
    }

    /// Whether the canary has no more than a share, and the router has taken that up.
    pub fn is_down_to(&self, share: i32, working: &mut Working, pass: &mut Pass<'_>) -> bool {
        self.weight() <= share && self.drained(working, pass)
    }

    /// Whether the router sends nothing to the canary any more, as far as can be told.
    fn drained(&self, working: &mut Working, pass: &mut Pass<'_>) -> bool {
        let mut settle = SETTLE;
        for road in &self.roads {
            match road.uptake() {
                Uptake::Yes => {}
                Uptake::Unknown => settle = settle.max(SETTLE_BLINDLY),
                Uptake::No(_) => settle = settle.max(PATIENCE),
            }
        }
        Self::settled(working, pass, settle) == Stand::There
    }

    /// Takes the canary's share in every route away. True when one had any.
    fn zero(&self, pass: &mut Pass<'_>, stopped: Option<&str>) -> bool {
        let before = pass.effects.len();
        // What another release of the Rollout has borrowed is in its hands: this one is seen as it was long ago.
        let of_another =
            |road: &&Road<'_>| road.loan().is_some_and(|loan| loan.release.is_some() && !self.is_ours(loan));
        let roads = self.roads.iter().filter(|road| road.lent().is_some() && !of_another(road));
        for road in roads {
            let busy = road.split().is_ok_and(|split| {
                split.canary.is_some_and(|share| share > 0) || split.matched || split.mirrored
            });
            if busy && let Ok(Some(write)) = road.patch(&self.bare(0)) {
                // Nothing is borrowed for it, so nothing can be missing.
                drop(self.write(pass, road, write, 0, false, stopped));
            }
        }
        pass.effects.len() > before
    }

    /// The way back, first of all: no weight for the canary, which has pods unless it is `empty`. True when nothing goes
    /// there any more.
    pub fn stop(&self, pass: &mut Pass<'_>, working: &mut Working, why: &str, empty: bool) -> bool {
        let mark: String = why.chars().take(MARK).collect();
        let before = pass.effects.len();
        self.zero(pass, Some(&mark));
        // One that somebody made anew in this release selects both versions.
        let selects = |pin: Option<&str>| pin.map_or(!empty, |pin| pin == self.canary_hash);
        if let (Some(service), Some(stable)) = (self.service, self.stable_hash)
            && selects(service.pin())
        {
            self.pin(pass, service, stable, Some(&mark));
        }
        let traffic = working.status.traffic.get_or_insert_default();
        traffic.weight = 0;
        // A mark without a record was written by a pass that did not come to write down when.
        let unrecorded = working.status.phase != ReleasePhase::RollingBack && self.stopped().is_some();
        if pass.effects.len() > before || unrecorded {
            changed(working, pass.now);
            return false;
        }
        if !empty || working.status.phase != ReleasePhase::RollingBack {
            sure::all(pass, self.plan);
        }
        self.drained(working, pass)
    }
}

/// `namespace/name` of the Rollout.
fn full_name(obs: &Observation) -> String {
    let meta = &obs.rollout.metadata;
    format!("{}/{}", meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

/// What a step asks for of chosen users, as routers understand it.
pub fn wanted(written: &[strategy::Match]) -> Vec<Match> {
    written.iter().map(wanted_of).collect()
}

fn wanted_of(written: &strategy::Match) -> Match {
    let tests = |tests: &[strategy::Test]| {
        tests
            .iter()
            .map(|test| Test {
                name: test.name.clone(),
                value: match &test.regex {
                    Some(regex) => Wanted::Regex(regex.clone()),
                    None => Wanted::Exact(test.value.clone().unwrap_or_default()),
                },
            })
            .collect()
    };
    Match { headers: tests(&written.headers), cookies: tests(&written.cookies), query: tests(&written.query) }
}

fn changed(working: &mut Working, now: Timestamp) {
    working.status.traffic.get_or_insert_default().changed_at = Some(MicroTime(now));
}

/// Whether Belay made this Service for this Rollout.
fn is_made_by(obs: &Observation, service: &Service) -> bool {
    let uid = obs.rollout.metadata.uid.as_deref().unwrap_or_default();
    service.owner.as_ref().is_some_and(|o| o.kind == "Rollout" && o.uid == uid)
}

fn give_service_back(pass: &mut Pass<'_>, service: &Service) {
    pass.push(Effect::ReturnService {
        service: service.id.clone(),
        pin: service.pin().map(str::to_owned),
        loan: service.loan.clone(),
    });
}

/// Whether no live pod of a ReplicaSet is left.
pub(super) fn is_empty(pass: &Pass<'_>, rs: &ReplicaSet) -> bool {
    let mut pods = pass.obs.pods.iter().filter(|pod| pod.owner_uid == rs.id.uid);
    // Two witnesses: the view of either may be old.
    rs.replicas == 0 && rs.total == 0 && pods.all(|pod| pod.deleting)
}
