//! What the operator knows and does next, without doing it: news and reports in, passes and looks out.
//!
//! Purpose: the main loop's memory as a value, so that the operator and a simulator run the same code. Time is a
//! parameter. Must never: do I/O, read a clock, decide something itself.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::Value;

use super::queue::{Ended, Queue};
use crate::act::{ActError, Outcome};
use crate::analysis::check::Names;
use crate::analysis::query::Target;
use crate::analysis::{CheckRun, Plan, Sample, Side};
use crate::api::Release;
use crate::cluster::Resource;
use crate::decide::{Brake, Decision, Effect, Expect, Identity, Memory, Observation, Reason, decide};
use crate::observe::{Cache, Key, Kind, News};

/// Rollouts that are written to at the same time.
const CONCURRENCY: usize = 16;

/// What the tasks beside the main loop report.
#[derive(Debug)]
pub enum Report {
    /// The API server answered a write with the object as it is now.
    Written(Resource, Box<Value>),
    /// An object is gone.
    Buried(Resource, Identity),
    /// A pass ended.
    Ended {
        /// The Rollout.
        key: Key,
        /// How.
        ended: Ended,
    },
    /// A look was taken.
    Looked {
        /// The Rollout.
        key: Key,
        /// The uid of the Release that it was for.
        release: String,
        /// What was seen.
        sample: Box<Sample>,
    },
    /// A check ran.
    Checked {
        /// The Rollout.
        key: Key,
        /// The uid of the Release that it was for.
        release: String,
        /// What it said.
        run: CheckRun,
    },
}

/// A pass that begins: the caller carries the effects out, one after the other, and reports [`Report::Ended`]. With
/// no effects the pass has ended already.
#[derive(Clone, Debug)]
pub struct Pass {
    /// The Rollout.
    pub key: Key,
    /// Since when it waited.
    pub since: Timestamp,
    /// The name of the running Release; empty without one.
    pub release: String,
    /// Why.
    pub reasons: Vec<Reason>,
    /// The writes, in order.
    pub effects: Vec<Effect>,
    /// The look to take beside it, if one is due.
    pub look: Option<Look>,
    /// The checks to run beside it, if some are due.
    pub checks: Option<Checks>,
}

/// A look to take: the caller reports [`Report::Looked`].
#[derive(Clone, Debug)]
pub struct Look {
    /// The uid of the Release.
    pub release: String,
    /// What to measure.
    pub plan: Plan,
    /// On which pods.
    pub targets: Vec<Target>,
}

/// Checks to run: the caller reports [`Report::Checked`] for each.
#[derive(Clone, Debug)]
pub struct Checks {
    /// The uid of the Release.
    pub release: String,
    /// The plan that they are in.
    pub plan: Plan,
    /// The names of their guards.
    pub guards: Vec<String>,
    /// What placeholders stand for.
    pub names: Names,
}

/// What is remembered, and when to wake, if all writes of a pass succeed.
type Pending = (Option<Memory>, Option<Timestamp>);

/// Everything that the main loop keeps.
#[derive(Clone, Debug, Default)]
pub struct Core {
    cache: Cache,
    queue: Queue,
    memory: BTreeMap<Key, Memory>,
    pending: BTreeMap<Key, Pending>,
    samples: BTreeMap<Key, (String, Sample)>,
    looking: BTreeSet<Key>,
    /// Runs of checks that no pass has seen yet, with the uid of their Release.
    runs: BTreeMap<Key, Vec<(String, CheckRun)>>,
    /// Checks that run: by Rollout, uid of the Release and guard.
    checking: BTreeSet<(Key, String, String)>,
    others: u64,
}

impl Core {
    /// What is known of the cluster.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// What waits.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Learns whether the brake is in the API server.
    pub fn set_brake(&mut self, brake: Brake, now: Timestamp) {
        let keys = self.cache.set_brake(brake);
        self.enqueue(keys, now);
    }

    /// Drops what is remembered if another process wrote since: what is written counts. `tenures` is how many of
    /// others there were so far.
    pub fn others_wrote(&mut self, tenures: u64) {
        if tenures != self.others {
            self.others = tenures;
            self.memory.clear();
            for (memory, _) in self.pending.values_mut() {
                *memory = None;
            }
        }
    }

    /// Nobody holds the lease: whoever waits for it need not.
    pub fn lease_is_free(&mut self, now: Timestamp) {
        self.queue.lease_is_free(now);
    }

    /// Takes in what a watch of a kind of object told. News of other things say nothing here.
    pub fn take_news(&mut self, news: News, now: Timestamp) {
        let keys = match news {
            News::Begin(kind) => {
                self.cache.begin(kind);
                Vec::new()
            }
            News::Put(kind, object) => self.cache.put(kind, &object),
            News::Remove(kind, object) => {
                let keys = self.cache.remove(kind, &object);
                if kind == Kind::Rollouts {
                    self.forget(&object);
                }
                keys
            }
            News::Finish(kind) => self.cache.finish(kind),
            News::Lost(kind, _) => {
                self.cache.lost(kind, now);
                Vec::new()
            }
            News::Found(kind) => self.cache.found(kind, now),
            News::Brake(..) | News::Lease(_) | News::Trouble(_) => Vec::new(),
        };
        self.enqueue(keys, now);
    }

    /// Takes in what a task reports.
    pub fn take_report(&mut self, report: Report, now: Timestamp) {
        match report {
            Report::Written(resource, object) => {
                let keys = self.cache.written(resource, &object);
                self.enqueue(keys, now);
            }
            Report::Buried(resource, id) => self.cache.buried(resource, &id),
            Report::Ended { key, ended } => self.end_pass(&key, ended, now),
            Report::Looked { key, release, sample } => {
                self.looking.remove(&key);
                self.samples.insert(key.clone(), (release, *sample));
                self.enqueue(vec![key], now);
            }
            Report::Checked { key, release, run } => {
                self.checking.remove(&(key.clone(), release.clone(), run.guard.clone()));
                self.runs.entry(key.clone()).or_default().push((release, run));
                self.enqueue(vec![key], now);
            }
        }
    }

    /// The next pass that may begin now, if any: decided, and noted as running if it has effects.
    pub fn next_pass(&mut self, now: Timestamp) -> Option<Pass> {
        if !self.cache.synced() {
            return None;
        }
        self.queue.due(now);
        loop {
            let (key, since) = self.queue.take(CONCURRENCY)?;
            if let Some(pass) = self.begin(&key, since, now) {
                return Some(pass);
            }
            self.queue.forget(&key);
        }
    }

    fn begin(&mut self, key: &Key, since: Timestamp, now: Timestamp) -> Option<Pass> {
        let mut observation = self.cache.observe(key)?;
        observation.memory = self.memory.get(key).cloned();
        let uid = observation.running().and_then(|r| r.metadata.uid.clone());
        observation.sample = self
            .samples
            .remove(key)
            .filter(|(release, _)| Some(release) == uid.as_ref())
            .map(|(_, sample)| sample);
        let runs = self.runs.remove(key).unwrap_or_default().into_iter();
        observation.runs =
            runs.filter(|(release, _)| Some(release) == uid.as_ref()).map(|(_, run)| run).collect();
        let release = observation.running().and_then(|r| r.metadata.name.clone()).unwrap_or_default();
        let Decision { effects, memory, wake_at, sample, checks, reasons } = decide(&observation, now);
        // One look at a time per Rollout.
        let look = (sample && !self.looking.contains(key)).then(|| look_at(&observation)).flatten();
        if look.is_some() {
            self.looking.insert(key.clone());
        }
        let checks = self.checks(key, &observation, checks);
        self.pending.insert(key.clone(), (memory, wake_at));
        if effects.is_empty() {
            self.end_pass(key, Ended::Idle, now);
        }
        Some(Pass { key: key.clone(), since, release, reasons, effects, look, checks })
    }

    /// The due checks that do not run yet; each runs once at a time.
    fn checks(&mut self, key: &Key, observation: &Observation, due: Vec<String>) -> Option<Checks> {
        if due.is_empty() {
            return None;
        }
        let (release, plan) = planned(observation)?;
        let uid = release.metadata.uid.clone()?;
        let of = |guard: &String| (key.clone(), uid.clone(), guard.clone());
        let guards: Vec<String> = due.into_iter().filter(|guard| self.checking.insert(of(guard))).collect();
        let names = Names {
            revision: release.spec.to.revision.clone(),
            namespace: observation.rollout.metadata.namespace.clone().unwrap_or_default(),
            rollout: release.spec.rollout.clone(),
            release: release.metadata.name.clone().unwrap_or_default(),
        };
        (!guards.is_empty()).then_some(Checks { release: uid, plan, guards, names })
    }

    fn end_pass(&mut self, key: &Key, ended: Ended, now: Timestamp) {
        let (memory, wake) = self.pending.remove(key).unwrap_or_default();
        // What was decided on may not have happened: then only what is written counts. The looks since are not
        // lost, the counters go on from the last one that is written.
        match memory.filter(|_| matches!(ended, Ended::Idle | Ended::Written)) {
            Some(memory) => self.memory.insert(key.clone(), memory),
            None => self.memory.remove(key),
        };
        self.queue.done(key, ended, wake, now);
    }

    fn enqueue(&mut self, keys: Vec<Key>, now: Timestamp) {
        for key in keys {
            self.queue.add(key, now);
        }
    }

    fn forget(&mut self, rollout: &Value) {
        let id = crate::observe::identity(rollout);
        let key = (id.namespace, id.name);
        self.memory.remove(&key);
        self.samples.remove(&key);
        self.runs.remove(&key);
    }
}

/// What the answer to an effect on a `resource` tells the main loop, and whether the pass goes on.
pub fn judge(
    effect: &Effect,
    resource: Resource,
    answer: Result<Outcome, ActError>,
) -> (Option<Report>, Result<(), Ended>) {
    if let Effect::Confirm { id, expect, .. } = effect {
        return confirmed(id, *expect, resource, answer);
    }
    match answer {
        Ok(Outcome::Done(Some(object))) => (Some(Report::Written(resource, Box::new(object))), Ok(())),
        Ok(Outcome::Done(None)) => (deleted(effect).map(|id| Report::Buried(resource, id)), Ok(())),
        // An event that cannot be told must not hold up what it tells of.
        Err(error) if matches!(effect, Effect::Announce(_)) && !error.is_lost() => (None, Ok(())),
        // A Job that cannot be made, or is there already, must not hold up the rest; another pass asks for it again.
        Err(error) if matches!(effect, Effect::RunJob { .. }) && !error.is_lost() => (None, Ok(())),
        Err(error) if error.is_conflict() || error.is_lost() => (None, Err(Ended::Stale)),
        Err(_) => (None, Err(Ended::Failed)),
    }
}

/// What the API server itself says of an object. What it answers with is newer than what a watch told.
fn confirmed(
    id: &Identity,
    expect: Expect,
    resource: Resource,
    answer: Result<Outcome, ActError>,
) -> (Option<Report>, Result<(), Ended>) {
    match answer {
        Ok(Outcome::Done(Some(object))) => {
            let uid = object.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default();
            let generation = object.pointer("/metadata/generation").and_then(Value::as_i64);
            let another = !id.uid.is_empty() && uid != id.uid;
            let so = match expect {
                Expect::Gone => another || object.pointer("/metadata/deletionTimestamp").is_some(),
                Expect::Generation(seen) => !another && generation == Some(seen),
                Expect::Unchanged => {
                    object.pointer("/metadata/resourceVersion").and_then(Value::as_str)
                        == Some(id.resource_version.as_str())
                }
            };
            let ended = if so { Ok(()) } else { Err(Ended::Stale) };
            (Some(Report::Written(resource, Box::new(object))), ended)
        }
        Err(error) if error.is_not_found() && expect == Expect::Gone => (None, Ok(())),
        Err(error) if !error.is_conflict() && !error.is_lost() => (None, Err(Ended::Failed)),
        _ => (None, Err(Ended::Stale)),
    }
}

fn deleted(effect: &Effect) -> Option<Identity> {
    match effect {
        Effect::DeleteReplicaSet { replica_set } => Some(replica_set.clone()),
        Effect::PruneRelease { release } => Some(release.clone()),
        Effect::DeleteService { service } => Some(service.clone()),
        Effect::DeleteRoute { route, .. } => Some(route.clone()),
        Effect::DeleteJob { job } => Some(job.clone()),
        _ => None,
    }
}

/// The running release and its plan.
fn planned(observation: &Observation) -> Option<(&Release, Plan)> {
    let release = observation.running()?;
    let plan = Plan::resolve(release.spec.analysis.as_ref()?, release.spec.planned_looks).ok()?;
    Some((release, plan))
}

/// The pods to measure for the running release.
fn look_at(observation: &Observation) -> Option<Look> {
    let (release, plan) = planned(observation)?;
    let canary = observation.replica_sets.iter().find(|rs| rs.id.name == release.spec.to.replica_set)?;
    let namespace = observation.rollout.metadata.namespace.clone().unwrap_or_default();
    let targets = observation
        .pods
        .iter()
        .filter(|pod| pod.ready && !pod.deleting)
        .filter_map(|pod| {
            Some(Target {
                uid: pod.uid.clone(),
                name: pod.name.clone(),
                namespace: namespace.clone(),
                ip: pod.ip,
                side: if pod.owner_uid == canary.id.uid { Side::Canary } else { Side::Stable },
                started_at: pod.ready_changed_at?,
            })
        })
        .collect();
    Some(Look { release: release.metadata.uid.clone()?, plan, targets })
}
