//! What must never happen, judged at every write and whenever the controllers have come to rest: the lines of the
//! contract, from the objects alone.

use std::collections::{BTreeMap, BTreeSet};

use belay::api::release::{Command, Verb};
use belay::api::{OPERATOR_USER, Release, ReleasePhase, ReleaseStatus};
use belay::decide::{revision, without_hash};
use serde_json::Value;

use super::Truth;
use super::deployments::{controller, int, is_deleting, selected, text};
use super::floor::Floor;
use super::pods::is_ready;
use super::server::{Server, Sort, Write};
use super::shares::Traffic;

/// Milliseconds after somebody changed the number of pods in which fewer may be ready.
const AFTER_SCALING: i64 = 60_000;

/// The judge.
#[derive(Clone, Debug, Default)]
pub struct Oracle {
    /// What happened that must not.
    pub breaches: Vec<String>,
    /// Revisions that were rejected, and that nobody asked to try again.
    rejected: BTreeSet<String>,
    /// Each Release as it was last: somebody may delete it at any moment.
    releases: BTreeMap<String, Release>,
    /// How often each object was made and deleted by Belay.
    pub counts: BTreeMap<(Sort, String), (u32, u32)>,
    /// How many pods each ReplicaSet ever had.
    pub pods: BTreeMap<String, u32>,
    /// Ready pods of the workload never fall below its size.
    pub guards_capacity: bool,
    /// How many writes Belay has made.
    pub writes: u32,
    /// Revisions that serve or served: the first one, and those that were handed over.
    served: BTreeSet<String>,
    /// The brake was there all the time, and nobody unpaused the workload or deleted what Belay needs.
    pub guards_brake: bool,
    /// The largest size that the workload ever had: a view of it may be old.
    largest: i64,
    pub floor: Floor,
    pub shares: Traffic,
    /// Largest difference of two clocks, in seconds.
    pub skew: f64,
    begun: bool,
}

impl Oracle {
    /// The first revision is stable: from here on everything counts.
    pub fn begin(&mut self, server: &Server) {
        let sets = server.all(Sort::ReplicaSet);
        let first = sets.map(|rs| revision(&without_hash(&rs["spec"]["template"]))).collect();
        let (breaches, largest) = (std::mem::take(&mut self.breaches), self.largest);
        *self = Self {
            guards_capacity: true,
            guards_brake: true,
            begun: true,
            breaches,
            largest,
            served: first,
            floor: Floor::begin(server),
            shares: Traffic::begin(server),
            ..Self::default()
        };
    }

    /// A person asked for another attempt.
    pub fn may_return(&mut self, revision: &str) {
        self.rejected.remove(revision);
    }

    fn breach(&mut self, broken: bool, at: i64, what: impl Into<String>) {
        if broken {
            self.breaches.push(format!("at {} s: {}", at as f64 / 1000.0, what.into()));
        }
    }

    /// Judges one write.
    pub fn judge(&mut self, server: &Server, truth: &Truth, write: &Write) {
        let at = write.at;
        match (write.sort, &write.after) {
            (Sort::Pod, _) => self.pod(write),
            (Sort::Release, Some(r)) => {
                if let Some(release) = decoded::<Release>(r) {
                    self.releases.insert(write.name.clone(), release);
                }
            }
            (Sort::Deployment, Some(d)) => {
                self.largest = self.largest.max(int(d, "/spec/replicas"));
                let lost = if self.begun { self.floor.lost(server, write) } else { None };
                self.breach(lost.is_some(), at, lost.unwrap_or_default());
            }
            (Sort::Autoscaler, Some(a)) => self.floor.written(write, a),
            (Sort::ReplicaSet, Some(rs)) => self.past_the_brake(write, rs),
            _ => {}
        }
        if self.begun {
            for wrong in self.shares.judge(server, write, !self.guards_capacity) {
                self.breach(true, at, wrong);
            }
        }
        if !self.begun || write.by != OPERATOR_USER {
            return;
        }
        self.writes += 1;
        if write.sort != Sort::Event {
            let count = self.counts.entry((write.sort, write.name.clone())).or_default();
            count.0 += u32::from(write.before.is_none());
            count.1 += u32::from(write.after.is_none() && write.sort != Sort::Rollout);
        }
        match (&write.before, &write.after) {
            (Some(before), Some(after)) => self.only_its_own(at, write.sort, before, after),
            (Some(before), None) => {
                let foreign = match write.sort {
                    Sort::ReplicaSet => {
                        owner_kind(before) != "Rollout"
                            && (int(before, "/spec/replicas") > 0 || int(before, "/status/replicas") > 0)
                    }
                    Sort::Release => !decoded::<Release>(before).is_some_and(|r| is_final(&r)),
                    // One that runs for a release that is over.
                    Sort::Job => {
                        let owner = text(before, "/metadata/ownerReferences/0/name");
                        let over = self.releases.get(owner).is_none_or(is_final);
                        !over || before.pointer("/status/conditions").is_some()
                    }
                    // The last finalizer is gone; a Service is judged with the traffic.
                    Sort::Rollout | Sort::Service => false,
                    _ => true,
                };
                self.breach(foreign, at, format!("Belay deleted {:?} {}", write.sort, write.name));
            }
            _ => {}
        }
        if matches!(write.sort, Sort::Route | Sort::Service)
            && let Some(object) = &write.after
        {
            self.lost_its_traffic(object);
        }
        match write.sort {
            Sort::ReplicaSet => self.replica_set(server, write),
            Sort::Release => self.release(truth, write),
            Sort::Rollout => self.rollout(server, write),
            _ => {}
        }
    }

    /// Line 9: Belay writes only what it owns, and borrows only what it says.
    fn only_its_own(&mut self, at: i64, sort: Sort, before: &Value, after: &Value) {
        let mut changed = Vec::new();
        differences(String::new(), before, after, &mut changed);
        let lent = |path: &str| {
            ["/metadata/labels", "/metadata/annotations"].iter().any(|map| {
                path == *map || path.strip_prefix(map).is_some_and(|key| key.starts_with("/belay.dev~1"))
            })
        };
        let mine = |path: &str| match sort {
            Sort::Deployment => {
                path.starts_with("/metadata/labels/belay.dev~1")
                    || path == "/metadata/labels"
                    || path == "/spec/paused"
                    || path.starts_with("/spec/template")
            }
            Sort::ReplicaSet => {
                path == "/spec/replicas"
                    || path.starts_with("/metadata/annotations")
                    || path.starts_with("/metadata/ownerReferences")
            }
            Sort::Autoscaler => path == "/spec/minReplicas" || path.starts_with("/metadata/annotations"),
            Sort::Rollout => path.starts_with("/status") || path.starts_with("/metadata/finalizers"),
            Sort::Release => path.starts_with("/status"),
            Sort::Service => path == "/spec/selector/pod-template-hash" || lent(path),
            Sort::Route => path.starts_with("/spec/rules") || lent(path),
            Sort::Pod | Sort::Slice | Sort::Job | Sort::Lease | Sort::Event => false,
        };
        let server_side = [
            "/metadata/resourceVersion",
            "/metadata/generation",
            "/metadata/managedFields",
            // Somebody's finalizer keeps what was deleted.
            "/metadata/deletionTimestamp",
        ];
        let foreign: Vec<&String> =
            changed.iter().filter(|p| !server_side.iter().any(|s| p.starts_with(s)) && !mine(p)).collect();
        self.breach(!foreign.is_empty(), at, format!("Belay wrote to {sort:?}: {foreign:?}"));
    }

    /// The workload's own controller makes pods of nothing that Belay has not let out.
    fn past_the_brake(&mut self, write: &Write, rs: &Value) {
        let before = write.before.as_ref().map_or(0, |b| int(b, "/spec/replicas"));
        if !self.begun || write.by != "deployment-controller" || int(rs, "/spec/replicas") <= before {
            return;
        }
        let revision = revision(&without_hash(&rs["spec"]["template"]));
        let past = self.guards_brake && !self.served.contains(&revision);
        self.breach(past, write.at, format!("{revision} went past the brake"));
    }

    fn pod(&mut self, write: &Write) {
        if write.before.is_none()
            && let Some(pod) = &write.after
        {
            let owner = controller(pod).map(|o| text(o, "/name").to_owned()).unwrap_or_default();
            *self.pods.entry(owner).or_default() += 1;
        }
    }

    /// A route or a Service that was taken from a revision for good.
    fn lost_its_traffic(&mut self, object: &Value) {
        let mark = object["metadata"]["annotations"]["belay.dev/stopped"].as_str();
        let release = object["metadata"]["labels"]["belay.dev/release"].as_str().unwrap_or_default();
        if mark.is_some_and(rejects)
            && let Some(release) = self.releases.get(release)
        {
            self.rejected.insert(release.spec.to.revision.clone());
        }
    }

    /// Lines 2, 3, 4 and 5: how many canary pods there may be, and when they are handed over.
    fn replica_set(&mut self, server: &Server, write: &Write) {
        let at = write.at;
        let Some(after) = &write.after else { return };
        let before = write.before.as_deref();
        let name = &write.name;
        let revision = revision(&without_hash(&after["spec"]["template"]));
        let (size, was) = (int(after, "/spec/replicas"), before.map_or(0, |b| int(b, "/spec/replicas")));
        if before.is_some_and(|before| owner_kind(before) != "Rollout") {
            // A rejected revision that came past the brake is taken back where it stands.
            let taken_back = size == 0 && self.rejected.contains(&revision);
            // Or one that was handed over, and changed at that very moment: its traffic is judged elsewhere.
            let taken_back = taken_back || (size == 0 && Traffic::may_retire(server, after));
            self.breach(!taken_back, at, format!("Belay wrote to {name}, which is somebody else's"));
            return;
        }
        let stopped = after["metadata"]["annotations"].get("belay.dev/stopped");
        let release = after["metadata"]["annotations"]["belay.dev/release"].as_str().unwrap_or_default();
        let release = self.releases.get(release).cloned();
        if size > was {
            let permitted = release.as_ref().map_or(0, |r| permitted(r, self.largest));
            self.breach(size > permitted, at, format!("{name} has {size} pods, {permitted} are permitted"));
            self.breach(stopped.is_some(), at, format!("{name} was stopped and grew"));
            let back = self.rejected.contains(&revision);
            self.breach(back, at, format!("the rejected revision {revision} has weight again"));
        }
        if stopped.and_then(Value::as_str).is_some_and(rejects) {
            self.rejected.insert(revision.clone());
        }
        if owner_kind(after).is_empty() {
            self.served.insert(revision.clone());
            let passed = release.as_ref().is_some_and(|r| step_of(r) >= r.spec.steps.len());
            self.breach(!passed, at, format!("{name} was handed over before all steps were passed"));
            self.breach(stopped.is_some(), at, format!("{name} was stopped and handed over"));
            let back = self.rejected.contains(&revision);
            self.breach(back, at, format!("the rejected revision {revision} was handed over"));
            let ready = int(after, "/status/availableReplicas");
            self.breach(
                ready < size,
                at,
                format!("{name} was handed over with {ready} of {size} pods available"),
            );
        }
    }

    /// Lines 3, 5, 6 and 11: the record.
    fn release(&mut self, truth: &Truth, write: &Write) {
        let at = write.at;
        let (Some(before), Some(after)) = (&write.before, &write.after) else { return };
        let (Some(old), Some(new)) = (decoded::<Release>(before), decoded::<Release>(after)) else { return };
        let name = &write.name;
        let steps = new.spec.steps.len();
        let (was, is) = (status(&old), status(&new));
        self.breach(is.step.index < was.step.index, at, format!("{name}: a step was taken back"));
        self.breach(
            was.phase.is_final() && is.phase != was.phase,
            at,
            format!("{name}: its end was changed"),
        );
        self.breach(is.commands.len() < was.commands.len(), at, format!("{name}: an answer was lost"));
        let kept = is.timeline.len() >= was.timeline.len() || was.timeline.len() >= 60;
        self.breach(!kept, at, format!("{name}: the timeline lost an entry"));
        let silent = is.phase != ReleasePhase::Pending && (is.reason.is_none() || is.message.is_none());
        self.breach(silent, at, format!("{name}: no reason is given"));
        if is.phase == ReleasePhase::RolledBack && is.reason.as_deref() != Some("RolloutDeleted") {
            let asked = new.spec.commands.iter().any(|c| c.verb == Verb::Retry);
            if !asked {
                self.rejected.insert(new.spec.to.revision.clone());
            }
        }
        let obeyed: Vec<(usize, &Command)> = obeyed(&new, &is).collect();
        for (_, command) in obeyed.iter().filter(|(index, _)| *index >= was.commands.len()) {
            let at_step = i64::from(was.step.index) + 1;
            let another = command.step.is_some_and(|step| i64::from(step) != at_step);
            let another = another && matches!(command.verb, Verb::Promote | Verb::Approve);
            let what = format!("{name}: at step {at_step} a command for step {:?} was obeyed", command.step);
            self.breach(another, at, what);
        }
        if is.step.index > was.step.index {
            let mut verbs = obeyed.iter().rev().map(|(_, command)| command.verb);
            let last = verbs.find(|v| matches!(v, Verb::Pause | Verb::Resume | Verb::Promote));
            let by = is.timeline.iter().rev().find(|e| e.reason == "StepPassed").map(|e| e.message.clone());
            let by = by.unwrap_or_default();
            let person = by.contains("because") || by.contains("serves");
            let jumped = is.step.index > was.step.index + 1 && !(is.step.index as usize == steps && person);
            self.breach(jumped, at, format!("{name}: a step was skipped: {by}"));
            let paused = last == Some(Verb::Pause) && !by.contains("because");
            self.breach(paused, at, format!("{name}: a step was passed while it was paused: {by}"));
            if !person {
                self.too_soon(at, &old, &was, &is, &by);
                let blind = new.spec.analysis.is_some() && truth.down_since.is_some_and(|t| at > t + 10_000);
                self.breach(blind, at, format!("{name}: a step was passed without metrics: {by}"));
            }
        }
        let guilty = is.reason.as_deref() == Some("GuardFailed") && was.reason != is.reason;
        let blind = guilty && truth.down_since.is_some_and(|t| at > t + 10_000);
        self.breach(blind, at, format!("{name}: rolled back by a guard without metrics"));
    }

    /// A step lasts as long as it must, by its own clock.
    fn too_soon(&mut self, at: i64, old: &Release, was: &ReleaseStatus, is: &ReleaseStatus, by: &str) {
        let step = &old.spec.steps[was.step.index as usize];
        let least = belay::decide::secs(&step.min_duration);
        let (entered, left) = (&was.step.entered_at, &is.step.entered_at);
        if let (Some(entered), Some(left)) = (entered, left) {
            let lasted = left.0.duration_since(entered.0).as_secs_f64();
            let name = old.metadata.name.as_deref().unwrap_or_default();
            let index = was.step.index + 1;
            let short = lasted < least - self.skew;
            self.breach(short, at, format!("{name}: step {index} lasted {lasted} s of {least} s: {by}"));
        }
    }

    /// Line 4: a veto is lifted only for somebody who asked.
    fn rollout(&mut self, server: &Server, write: &Write) {
        let (Some(before), Some(after)) = (&write.before, &write.after) else { return };
        let vetoes = |object: &Value| -> BTreeSet<String> {
            let list = object.pointer("/status/vetoed").and_then(Value::as_array);
            list.into_iter().flatten().map(|v| text(v, "/revision").to_owned()).collect()
        };
        for lifted in vetoes(before).difference(&vetoes(after)) {
            let asked = server.releases().iter().any(|r| {
                r.spec.to.revision == *lifted && r.spec.commands.iter().any(|c| c.verb == Verb::Retry)
            });
            self.breach(!asked, write.at, format!("the veto of {lifted} was lifted, and nobody asked"));
        }
    }

    /// Only the process that holds the Lease writes.
    pub fn one_writes(&mut self, server: &Server, process: &str) {
        let holder = server.get(Sort::Lease, super::process::LEASE);
        let holder = holder.map_or("", |l| text(l, "/spec/holderIdentity")).to_owned();
        self.breach(holder != process, server.now, format!("{process} writes, and {holder} holds the lease"));
    }

    /// What must hold whenever the controllers have nothing to do.
    pub fn settled(&mut self, server: &Server, scaled_at: i64) {
        if !self.begun {
            return;
        }
        let at = server.now;
        let ended = |r: &Value| ["Promoted", "RolledBack", "Superseded"].contains(&text(r, "/status/phase"));
        let not_final = server.all(Sort::Release).filter(|r| !ended(r)).count();
        self.breach(not_final > 1, at, format!("{not_final} releases run at once"));
        let mut sets = server.all(Sort::ReplicaSet);
        let left = server.rollout().is_none() && sets.any(|rs| owner_kind(rs) == "Rollout");
        self.breach(left, at, "the Rollout is gone, and its canary is not");
        let Some(deployment) = server.get(Sort::Deployment, "web") else { return };
        let replicas = int(deployment, "/spec/replicas");
        let uid = text(deployment, "/metadata/uid");
        // Line 1: a paused workload keeps its size.
        let current = deployment["metadata"]["generation"] == deployment["status"]["observedGeneration"];
        if deployment["spec"]["paused"] == true && current {
            let own =
                server.all(Sort::ReplicaSet).filter(|rs| controller(rs).is_some_and(|o| o["uid"] == uid));
            let size: i64 = own.map(|rs| int(rs, "/spec/replicas")).sum();
            self.breach(size < replicas, at, format!("the workload has {size} pods of {replicas}"));
        }
        if self.guards_capacity && at > scaled_at + AFTER_SCALING {
            let ready = server
                .all(Sort::Pod)
                .filter(|p| selected(p, &deployment["spec"]["selector"]) && !is_deleting(p) && is_ready(p));
            let ready = i64::try_from(ready.count()).unwrap();
            self.breach(ready < replicas, at, format!("{ready} of {replicas} pods are ready"));
        }
        let wrong = self.shares.standing(server);
        self.breach(wrong.is_some(), at, wrong.unwrap_or_default());
        if self.guards_capacity && at > scaled_at + AFTER_SCALING {
            let lacks = self.shares.stable_lacks(server);
            self.breach(lacks.is_some(), at, lacks.unwrap_or_default());
        }
        for rs in server.all(Sort::ReplicaSet).filter(|rs| owner_kind(rs) == "Rollout") {
            let stopped = rs["metadata"]["annotations"].get("belay.dev/stopped").is_some();
            let weight = int(rs, "/spec/replicas") > 0;
            self.breach(stopped && weight, at, "a stopped canary has weight");
        }
    }
}

/// Whether a mark says that a revision did something wrong.
fn rejects(mark: &str) -> bool {
    let blameless = ["Superseded", "RevertedByUser", "WorkloadDeleted", "WentPastBrake", "RolloutDeleted"];
    !blameless.contains(&mark.split(':').next().unwrap_or_default())
}

/// Pods that the recorded step of a release permits: the fewest that carry its weight, beside `replicas` where the
/// pods are the weight.
fn permitted(release: &Release, replicas: i64) -> i64 {
    let Some(step) = release.spec.steps.get(step_of(release)) else { return replicas };
    if release.spec.traffic.is_some() {
        let weight = if step.weight == 0 { 100 } else { i64::from(step.weight) };
        let carries = (0..replicas).find(|pods| pods * 100 >= weight * replicas).unwrap_or(replicas);
        return step
            .replicas
            .filter(|_| step.weight < 100)
            .map_or(carries, |said| i64::from(said).min(replicas));
    }
    let reaches = |pods: &i64| pods * 100 >= i64::from(step.weight) * (replicas + pods);
    (0..replicas).find(reaches).unwrap_or(replicas)
}

/// The commands of a release that were accepted, with their places in the list.
fn obeyed<'a>(release: &'a Release, status: &'a ReleaseStatus) -> impl Iterator<Item = (usize, &'a Command)> {
    let answered = release.spec.commands.iter().zip(&status.commands).enumerate();
    answered.filter(|(_, (_, answer))| answer.accepted).map(|(index, (command, _))| (index, command))
}

fn status(release: &Release) -> ReleaseStatus {
    release.status.clone().unwrap_or_default()
}

fn step_of(release: &Release) -> usize {
    release.status.as_ref().map_or(0, |s| s.step.index as usize)
}

pub fn is_final(release: &Release) -> bool {
    release.status.as_ref().is_some_and(|s| s.phase.is_final())
}

fn decoded<T: serde::de::DeserializeOwned>(object: &Value) -> Option<T> {
    serde_json::from_value(object.clone()).ok()
}

pub fn owner_kind(object: &Value) -> String {
    controller(object).map(|o| text(o, "/kind").to_owned()).unwrap_or_default()
}

/// The paths at which two values differ.
fn differences(path: String, a: &Value, b: &Value, found: &mut Vec<String>) {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let below = format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"));
                let null = Value::Null;
                differences(below, a.get(key).unwrap_or(&null), b.get(key).unwrap_or(&null), found);
            }
        }
        (a, b) if a != b => found.push(path),
        _ => {}
    }
}
