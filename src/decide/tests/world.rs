//! A small deterministic cluster in memory: one Rollout, its workload, and all that a release touches.
//!
//! [`World::pass`] observes, decides and applies, as the operator does; [`World::advance`] lets time go by. The
//! controllers of Kubernetes are in `cluster`.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::{Value, json};

use super::super::*;
use crate::analysis::{CheckRun, KnownTemplate, PodSample, Reading, Sample, Side};
use crate::api::release::{Command, Verb};
use crate::api::rollout::RolloutSpec;
use crate::api::{BrakeForm, Release, ReleasePhase, ReleaseStatus, Rollout, RolloutPhase, RolloutStatus};

/// How the pods of one image behave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fate {
    /// Ready after two seconds.
    Good,
    /// Exits after so many seconds.
    Crash(i64),
    /// Ready, then killed for its memory after so many seconds.
    OutOfMemory(i64),
    /// Ready, then unready after so many seconds.
    LosesReadiness(i64),
    /// Runs, but is never ready.
    NeverReady,
    /// No node takes it.
    Unschedulable,
}

/// A pod and what will become of it.
#[derive(Clone, Debug)]
pub(super) struct Live {
    pub pod: Pod,
    pub image: String,
    /// When it was created, in milliseconds of the world.
    pub born: i64,
}

/// A ReplicaSet with the one annotation that only the Deployment controller reads.
#[derive(Clone, Debug)]
pub(super) struct Set {
    pub rs: ReplicaSet,
    pub max_annotation: Option<i32>,
}

/// Ends the process in the middle of a pass.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Cut {
    /// Which pass, from 0.
    pub pass: usize,
    /// How many of its effects arrive.
    pub after: usize,
    /// Whether the process itself dies; else only the reply is lost.
    pub dies: bool,
}

/// Something that happens to the world.
pub(super) type Happening = fn(&mut World);

/// The cluster.
#[derive(Clone, Debug)]
pub(super) struct World {
    /// Milliseconds since the beginning.
    pub now: i64,
    pub rollout: Option<Rollout>,
    pub deployment: Option<Workload>,
    pub sets: Vec<Set>,
    pub pods: Vec<Live>,
    pub releases: Vec<Release>,
    pub unread: Vec<UnreadRelease>,
    pub autoscaler: Option<Autoscaler>,
    pub jobs: Vec<Job>,
    /// How Jobs end, three seconds after they were made.
    pub job_end: Result<bool, String>,
    pub templates: Vec<KnownTemplate>,
    pub sight: Sight,
    pub brake: Brake,
    pub fates: BTreeMap<String, Fate>,
    /// Requests per second and pod by image; 50 if it is not in here.
    pub requests: BTreeMap<String, f64>,
    /// Share of bad requests by image.
    pub bad_share: BTreeMap<String, f64>,
    /// What the address of a check says: whether it passes, or why there is no answer.
    pub answer: Result<bool, String>,
    /// Why the metrics source gives nothing, if so.
    pub source_down: Option<String>,
    /// `maxUnavailable` of the workload's own rolling update, in pods.
    pub unavailable: i32,
    /// The definition of Release is of a time that did not know `unbraked`.
    pub old_schema: bool,
    pub memory: Option<Memory>,
    pub sample: Option<Sample>,
    pub runs: Vec<CheckRun>,
    pub cut: Option<Cut>,
    /// What happens right after the first effect of this name.
    pub after: Option<(&'static str, Happening)>,
    /// Sizes of all passes so far: how many effects each wanted.
    pub passes: Vec<usize>,
    /// What was applied.
    pub log: Vec<Effect>,
    /// What must never happen and did.
    pub breaches: Vec<String>,
    pub last: Decision,
    serial: u64,
}

/// A pod template of one container.
pub(super) fn template(image: &str) -> Value {
    json!({
        "metadata": {"creationTimestamp": null, "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "app", "image": image}]},
    })
}

/// The revision of [`template`].
pub(super) fn of(image: &str) -> String {
    revision(&template(image))
}

impl World {
    /// A Rollout with this spec beside a workload of `replicas` pods of image `v1`; nothing has happened yet.
    pub fn new(replicas: i32, spec: Value) -> Self {
        let spec: RolloutSpec = serde_json::from_value(spec).unwrap();
        let mut rollout = Rollout::new("web", spec);
        rollout.metadata.namespace = Some("shop".into());
        rollout.metadata.uid = Some("rollout".into());
        rollout.metadata.generation = Some(1);
        let template = template("v1");
        Self {
            now: 0,
            rollout: Some(rollout),
            deployment: Some(Workload {
                kind: WorkloadKind::Deployment,
                id: Identity {
                    namespace: "shop".into(),
                    name: "web".into(),
                    uid: "web".into(),
                    ..Identity::default()
                },
                generation: 1,
                observed_generation: 0,
                deleting: false,
                rollout_label: None,
                release_label: None,
                braked: false,
                has_labels: false,
                replicas,
                paused: false,
                selector: json!({"matchLabels": {"app": "web"}}),
                revision: revision(&template),
                template,
                progress_deadline_seconds: 600,
                min_ready_seconds: 0,
                surge: (replicas + 3) / 4,
                total: 0,
                updated: 0,
                available: 0,
            }),
            sets: Vec::new(),
            pods: Vec::new(),
            releases: Vec::new(),
            unread: Vec::new(),
            autoscaler: None,
            templates: Vec::new(),
            sight: Sight::default(),
            brake: Brake::Engaged(BrakeForm::Policy),
            fates: BTreeMap::new(),
            requests: BTreeMap::new(),
            bad_share: BTreeMap::new(),
            source_down: None,
            unavailable: 0,
            old_schema: false,
            memory: None,
            sample: None,
            answer: Ok(true),
            jobs: Vec::new(),
            job_end: Ok(true),
            runs: Vec::new(),
            cut: None,
            after: None,
            passes: Vec::new(),
            log: Vec::new(),
            breaches: Vec::new(),
            last: Decision::default(),
            serial: 0,
        }
    }

    /// Like [`World::new`], with the first revision stable and everything quiet.
    pub fn stable(replicas: i32, spec: Value) -> Self {
        let mut world = Self::new(replicas, spec);
        world.advance(10);
        assert_eq!(world.phase(), RolloutPhase::Stable);
        world.log.clear();
        world.passes.clear();
        world
    }

    /// The present time, with nanoseconds, as clocks have them.
    pub fn time(&self) -> Timestamp {
        time(self.now)
    }

    pub fn fresh(&mut self, prefix: &str) -> String {
        self.serial += 1;
        format!("{prefix}-{}", self.serial)
    }

    pub fn observe(&self) -> Option<Observation> {
        let rollout = self.rollout.clone()?;
        let stable = self.status().stable;
        let replica_sets: Vec<ReplicaSet> = self
            .sets
            .iter()
            .map(|s| {
                let mut rs = s.rs.clone();
                (rs.total, rs.available) = self.count(&rs.id.uid);
                if rs.replicas == 0 && stable.as_ref().is_none_or(|s| s.replica_set != rs.id.name) {
                    rs.template = None;
                }
                rs
            })
            .collect();
        let workload = self.deployment.clone().map(|mut w| {
            let own: Vec<&ReplicaSet> = replica_sets
                .iter()
                .filter(|rs| rs.owner.as_ref().is_some_and(|o| o.uid == w.id.uid))
                .collect();
            w.total = own.iter().map(|rs| rs.total).sum();
            w.available = own.iter().map(|rs| rs.available).sum();
            w.updated = own.iter().filter(|rs| rs.revision == w.revision).map(|rs| rs.total).sum();
            w
        });
        Some(Observation {
            rollout,
            workload,
            replica_sets,
            pods: self.pods.iter().map(|p| p.pod.clone()).collect(),
            releases: self.releases.clone(),
            unread: self.unread.clone(),
            autoscalers: self.autoscaler.clone().into_iter().collect(),
            jobs: self.jobs.clone(),
            templates: self.templates.clone(),
            services: Vec::new(),
            routes: Vec::new(),
            routes_known: true,
            sight: self.sight,
            brake: self.brake.clone(),
            rival: None,
            memory: self.memory.clone(),
            sample: self.sample.clone(),
            runs: self.runs.clone(),
        })
    }

    /// Pods of a ReplicaSet: all, and ready ones.
    pub fn count(&self, uid: &str) -> (i32, i32) {
        let mine = || self.pods.iter().filter(|p| p.pod.owner_uid == uid);
        let number = |n: usize| i32::try_from(n).unwrap();
        (number(mine().count()), number(mine().filter(|p| p.pod.ready).count()))
    }

    /// One pass of the operator. True when it changed something or has something to look at.
    pub fn pass(&mut self) -> bool {
        self.end_jobs();
        let Some(observation) = self.observe() else { return false };
        let decision = decide(&observation, self.time());
        let cut = self.cut.filter(|c| c.pass == self.passes.len());
        self.passes.push(decision.effects.len());
        self.sample = None;
        self.runs.clear();
        self.last = decision.clone();
        for (index, effect) in decision.effects.iter().enumerate() {
            if let Some(cut) = cut.filter(|c| c.after == index) {
                self.lose(cut);
                return true;
            }
            if !self.apply(effect) {
                // What was decided after it is decided anew; what was remembered stays as it was.
                return true;
            }
            self.log.push(effect.clone());
            if let Some((name, action)) = self.after
                && name == effect.name()
            {
                self.after = None;
                action(self);
            }
        }
        if let Some(cut) = cut {
            self.lose(cut);
            return true;
        }
        self.memory = decision.memory;
        if decision.sample {
            self.sample = Some(self.measure());
        }
        for guard in &decision.checks {
            let (at, passed) = (self.time(), self.answer.clone());
            self.runs.push(CheckRun {
                guard: guard.clone(),
                at,
                passed,
                seen: "status 200".to_owned(),
                number: None,
            });
        }
        !decision.effects.is_empty() || decision.sample || !decision.checks.is_empty()
    }

    fn lose(&mut self, cut: Cut) {
        if cut.dies {
            self.memory = None;
        }
    }

    /// Notes a breach of what must always hold.
    pub fn breach(&mut self, broken: bool, what: &str) {
        if broken {
            self.breaches.push(format!("at {} s: {what}", self.now as f64 / 1000.0));
        }
    }

    /// Passes and controllers take turns until nothing changes.
    pub fn settle(&mut self) {
        for _ in 0..300 {
            let moved = self.controllers();
            self.watch();
            self.watch_sizes();
            let decided = self.pass();
            self.watch();
            if !moved && !decided {
                return;
            }
        }
        panic!("does not go quiet; last: {:?}", self.last);
    }

    /// How many effects the next pass wants.
    pub fn decided(mut self) -> usize {
        self.pass();
        self.passes.pop().unwrap()
    }

    /// Lets time go by; everybody wakes up when they asked for it.
    pub fn advance(&mut self, seconds: i64) {
        self.settle();
        let end = self.now + seconds * 1000;
        while self.now < end {
            self.step_to(end);
        }
    }

    /// Goes to the next moment when anybody does anything, or to the end.
    fn step_to(&mut self, end: i64) {
        // Timers never fire early.
        let asked = self
            .last
            .wake_at
            .map(|at| i64::try_from(at.duration_since(time(0)).as_micros().div_euclid(1000)).unwrap() + 1);
        let next = asked.into_iter().chain(self.next_event()).filter(|t| *t > self.now).min();
        self.now = next.unwrap_or(end).min(end);
        self.settle();
    }

    /// Lets time go by second by second until `done`, at most ten hours.
    pub fn until(&mut self, done: impl Fn(&Self) -> bool) {
        self.settle();
        for _ in 0..36_000 {
            if done(self) {
                return;
            }
            self.step_to(self.now + 1000);
        }
        panic!("never came: {:?} {:?}", self.rollout.as_ref().and_then(|r| r.status.clone()), self.last);
    }

    /// The metrics of all pods.
    fn measure(&self) -> Sample {
        let at = self.time();
        if let Some(why) = &self.source_down {
            return Sample { at, outcome: Err(why.clone()) };
        }
        let canary = self.watched().map(|rs| rs.id.uid.clone());
        let pods = self
            .pods
            .iter()
            .filter(|p| p.pod.ready)
            .map(|p| {
                let rate = self.requests.get(&p.image).copied().unwrap_or(50.0);
                let requests = ((self.now - p.born) as f64 / 1000.0 * rate).floor();
                let bad = (requests * self.bad_share.get(&p.image).copied().unwrap_or(0.001)).floor();
                PodSample {
                    uid: p.pod.uid.clone(),
                    name: p.pod.name.clone(),
                    side: if Some(&p.pod.owner_uid) == canary.as_ref() { Side::Canary } else { Side::Stable },
                    started_at: p.pod.started_at.unwrap_or(at),
                    guards: vec![Some(Reading::Ratio {
                        bad: [("bad".to_owned(), bad)].into(),
                        total: [("all".to_owned(), requests)].into(),
                    })],
                    problem: None,
                }
            })
            .collect();
        Sample { at, outcome: Ok(pods) }
    }
}

/// A moment of the world's clock.
pub(super) fn time(ms: i64) -> Timestamp {
    Timestamp::new(1_800_000_000, 123_456_789).unwrap() + SignedDuration::from_millis(ms)
}

/// A moment as Kubernetes writes it: whole seconds.
pub(super) fn whole_second(ms: i64) -> Timestamp {
    Timestamp::from_second(time(ms).as_second()).unwrap()
}

// What people and other programs do.
impl World {
    /// Any write to the workload that is not Belay's, with the brake of the API server.
    pub fn edit(&mut self, change: impl FnOnce(&mut Workload)) {
        let engaged = matches!(self.brake, Brake::Engaged(_));
        let Some(w) = self.deployment.as_mut() else { return };
        let old = w.clone();
        change(w);
        w.revision = revision(&w.template);
        if engaged && old.rollout_label.is_some() {
            w.rollout_label.clone_from(&old.rollout_label);
            w.release_label.clone_from(&old.release_label);
            if w.template != old.template || old.release_label.is_some() {
                w.paused = true;
                w.braked = true;
            }
        }
        if w.template != old.template || w.replicas != old.replicas || w.paused != old.paused {
            w.generation += 1;
        }
    }

    pub fn set_image(&mut self, image: &str) {
        self.edit(|w| w.template = template(image));
    }

    pub fn scale(&mut self, replicas: i32) {
        self.edit(|w| w.replicas = replicas);
    }

    /// Deletes the workload with all that it owns.
    pub fn delete_deployment(&mut self) {
        let Some(w) = self.deployment.take() else { return };
        self.sets.retain(|s| s.rs.owner.as_ref().is_none_or(|o| o.uid != w.id.uid));
    }

    pub fn delete_rollout(&mut self) {
        let at = Time(whole_second(self.now));
        if let Some(rollout) = &mut self.rollout {
            rollout.metadata.deletion_timestamp = Some(at);
        }
        self.collect();
    }

    pub fn delete_release(&mut self) {
        self.releases.pop();
    }

    /// A command to the latest release, at once.
    pub fn command(&mut self, verb: Verb) {
        self.command_with(verb, None, false);
    }

    pub fn command_with(&mut self, verb: Verb, step: Option<i32>, full: bool) {
        let version = self.fresh("v");
        let Some(release) = self.releases.last_mut() else { return };
        if release.spec.commands.len() >= 50 {
            return;
        }
        release.metadata.resource_version = Some(version);
        release.spec.commands.push(Command {
            verb,
            step,
            full,
            reason: Some("because".into()),
            by: Some("ann".into()),
        });
    }

    pub fn edit_rollout(&mut self, change: impl FnOnce(&mut RolloutSpec)) {
        if let Some(rollout) = &mut self.rollout {
            change(&mut rollout.spec);
            rollout.metadata.generation = rollout.metadata.generation.map(|g| g + 1);
        }
    }

    /// The process ends and another one takes over.
    pub fn restart(&mut self) {
        self.memory = None;
        self.sample = None;
        self.last = Decision::default();
    }
}

// What tests ask.
impl World {
    pub fn workload(&self) -> &Workload {
        self.deployment.as_ref().unwrap()
    }

    pub fn status(&self) -> RolloutStatus {
        self.rollout.as_ref().and_then(|r| r.status.clone()).unwrap_or_default()
    }

    pub fn phase(&self) -> RolloutPhase {
        self.status().phase.unwrap_or(RolloutPhase::Waiting)
    }

    /// The latest release.
    pub fn release(&self) -> &Release {
        self.releases.last().unwrap()
    }

    pub fn release_status(&self) -> ReleaseStatus {
        self.releases.last().and_then(|r| r.status.clone()).unwrap_or_default()
    }

    pub fn release_phase(&self) -> ReleasePhase {
        self.release_status().phase
    }

    /// A release with guards is running.
    pub fn is_measured(&self) -> bool {
        let running = |r: &&Release| !r.status.as_ref().is_some_and(|s| s.phase.is_final());
        self.releases.iter().filter(running).any(|r| r.spec.analysis.is_some())
    }

    /// The ReplicaSet that Belay controls.
    pub fn canary(&self) -> Option<&ReplicaSet> {
        self.sets.iter().map(|s| &s.rs).find(|rs| rs.owner.as_ref().is_some_and(|o| o.kind == "Rollout"))
    }

    /// The ReplicaSet that the running release watches: the canary, or the workload's own of a change that went
    /// past the brake.
    pub fn watched(&self) -> Option<&ReplicaSet> {
        let running = |r: &&Release| !r.status.as_ref().is_some_and(|s| s.phase.is_final());
        match self.releases.iter().find(running) {
            Some(r) if r.spec.unbraked => {
                self.sets.iter().map(|s| &s.rs).find(|rs| rs.id.name == r.spec.to.replica_set)
            }
            _ => self.canary(),
        }
    }

    /// Pods wanted of the canary; 0 without one.
    pub fn canary_size(&self) -> i32 {
        self.canary().map_or(0, |rs| rs.replicas)
    }

    /// Names of the pods of an image.
    pub fn pods_of(&self, image: &str) -> Vec<String> {
        self.pods.iter().filter(|p| p.image == image).map(|p| p.pod.uid.clone()).collect()
    }

    pub fn ready_of(&self, image: &str) -> usize {
        self.pods.iter().filter(|p| p.image == image && p.pod.ready).count()
    }

    /// Codes of the latest release's timeline.
    pub fn timeline(&self) -> Vec<String> {
        self.release_status().timeline.iter().map(|e| e.reason.clone()).collect()
    }

    /// Index of the latest release's present step, from 0.
    pub fn step(&self) -> u32 {
        self.release_status().step.index
    }

    pub fn in_step(&self, index: u32) -> bool {
        self.release_phase() != ReleasePhase::Pending && self.step() == index
    }

    /// The present step's weight is reached.
    pub fn reached(&self, index: u32) -> bool {
        self.in_step(index) && self.release_status().step.running_since.is_some()
    }

    /// A second look finds nothing to do, and asks for no third.
    pub fn assert_quiet(&mut self) {
        self.settle();
        if let Some(observation) = self.observe() {
            for memory in [None, observation.memory.clone()] {
                let again = decide(&Observation { memory, ..observation.clone() }, self.time());
                assert_eq!(again.effects, []);
                assert_eq!(again.wake_at, None);
                assert!(!again.sample);
            }
        }
        self.assert_sound();
    }

    pub fn assert_sound(&self) {
        assert!(self.breaches.is_empty(), "{:#?}", self.breaches);
    }

    /// What a user would call the outcome, to compare two histories.
    pub fn outcome(&self) -> String {
        let status = self.status();
        let workload = self.deployment.as_ref().map(|w| {
            (w.revision.clone(), w.paused, w.replicas, w.rollout_label.clone(), w.release_label.clone())
        });
        let mut sets: Vec<_> = self
            .sets
            .iter()
            .filter(|s| s.rs.replicas > 0)
            .map(|s| (&s.rs.id.name, s.rs.replicas, s.rs.owner.as_ref().map(|o| &o.kind)))
            .collect();
        sets.sort();
        let releases: Vec<_> = self
            .releases
            .iter()
            .map(|r| {
                let s = r.status.clone().unwrap_or_default();
                let steps: Vec<_> = s.timeline.iter().map(|e| (e.reason.clone(), e.step)).collect();
                let answers: Vec<_> = s.commands.iter().map(|c| c.accepted).collect();
                (r.metadata.name.clone(), s.phase, s.reason, steps, answers)
            })
            .collect();
        let vetoed: Vec<_> = status.vetoed.iter().map(|v| (&v.revision, &v.reason)).collect();
        let stable = status.stable.as_ref().map(|s| (&s.revision, &s.replica_set));
        let floor = self.autoscaler.as_ref().map(|a| (a.min, a.held.clone()));
        format!(
            "rollout {:?} stable {stable:?} vetoed {vetoed:?}\nworkload {workload:?}\nsets {sets:?}\nreleases \
             {releases:#?}\nfloor {floor:?}",
            status.phase
        )
    }
}

/// A new object's metadata.
pub(super) fn born(meta: &mut ObjectMeta, uid: String, version: String, now: i64) {
    meta.uid = Some(uid);
    meta.resource_version = Some(version);
    meta.creation_timestamp = Some(Time(whole_second(now)));
}
