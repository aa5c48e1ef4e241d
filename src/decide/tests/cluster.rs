//! What Kubernetes does in the [`World`]: the API server's preconditions, the controllers, the kubelet.

use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::super::*;
use super::world::{Fate, Live, Set, World, born, whole_second};
use crate::api::{FINALIZER, ReleaseStatus};

/// Seconds that a good pod takes to become ready.
const START: i64 = 2;

/// What an object is after it went through the API server: times lose their nanoseconds.
fn stored<T: Serialize + DeserializeOwned>(value: &T) -> T {
    serde_json::from_value(serde_json::to_value(value).unwrap()).unwrap()
}

// The API server.
impl World {
    /// Applies one effect. False when one of its preconditions does not hold any more.
    pub fn apply(&mut self, effect: &Effect) -> bool {
        let version = self.fresh("v");
        match effect {
            Effect::AddFinalizer { rollout, present } => self.finalizers(rollout, present, true),
            Effect::RemoveFinalizer { rollout, present } => self.finalizers(rollout, present, false),
            Effect::RecordRollout { rollout, status } => {
                let Some(live) =
                    self.rollout.as_mut().filter(|r| r.metadata.uid.as_ref() == Some(&rollout.uid))
                else {
                    return false;
                };
                live.status = Some(stored(status.as_ref()));
                true
            }
            Effect::CreateRelease(release) => {
                if self.releases.iter().any(|r| r.metadata.name == release.metadata.name) {
                    return false;
                }
                let mut release = stored(release.as_ref());
                let uid = self.fresh("release");
                born(&mut release.metadata, uid, version, self.now);
                release.spec.unbraked &= !self.old_schema;
                self.releases.push(release);
                true
            }
            Effect::RecordRelease { release, status } => self.record(release, status, version),
            Effect::PruneRelease { release } => {
                let before = self.releases.len();
                self.releases.retain(|r| r.metadata.uid.as_ref() != Some(&release.uid));
                self.releases.len() < before
            }
            Effect::CreateService { .. }
            | Effect::DeleteService { .. }
            | Effect::PinService { .. }
            | Effect::UnpinService { .. }
            | Effect::ReturnService { .. }
            | Effect::SplitRoute { .. }
            | Effect::CreateRoute { .. }
            | Effect::DeleteRoute { .. }
            | Effect::ReturnRoute { .. } => unreachable!("in this world weight goes by pods"),
            Effect::RunJob { object } => {
                self.run_job(object);
                true
            }
            Effect::DeleteJob { job } => {
                self.jobs.retain(|live| live.id.uid != job.uid);
                true
            }
            Effect::HoldFloor { .. } | Effect::ReturnFloor { .. } => self.floor(effect),
            Effect::Confirm { subject, id, expect } => {
                let seen = match subject {
                    Subject::Workload => self.deployment.as_ref().map(|w| (w.id.uid.clone(), w.generation)),
                    // There are no old views in here.
                    Subject::Rollout | Subject::ReplicaSet | Subject::Service | Subject::Route(_) => {
                        return true;
                    }
                    Subject::Release => {
                        let found = self.releases.iter().find(|r| r.metadata.name.as_ref() == Some(&id.name));
                        found.map(|r| (r.metadata.uid.clone().unwrap_or_default(), 0))
                    }
                };
                match (expect, seen) {
                    (Expect::Gone, None) => true,
                    (Expect::Gone, Some((uid, _))) => !id.uid.is_empty() && uid != id.uid,
                    (Expect::Generation(g), Some((uid, now))) => uid == id.uid && now == *g,
                    (Expect::Generation(_), None) => false,
                    (Expect::Unchanged, seen) => seen.is_some_and(|(uid, _)| uid == id.uid),
                }
            }
            Effect::Announce(_) => true,
            Effect::MarkWorkload { .. }
            | Effect::UnmarkWorkload { .. }
            | Effect::HoldWorkload { .. }
            | Effect::FreeWorkload { .. }
            | Effect::RestoreTemplate { .. } => self.write_workload(effect),
            Effect::CreateCanary { .. }
            | Effect::ScaleCanary { .. }
            | Effect::StopCanary { .. }
            | Effect::HandOver { .. }
            | Effect::DeleteReplicaSet { .. } => self.write_set(effect),
        }
    }

    fn finalizers(&mut self, id: &Identity, present: &[String], add: bool) -> bool {
        let Some(rollout) = self.rollout.as_mut().filter(|r| r.metadata.uid.as_ref() == Some(&id.uid)) else {
            return false;
        };
        let list = rollout.metadata.finalizers.get_or_insert_default();
        if list != present {
            return false;
        }
        list.retain(|f| f != FINALIZER);
        if add {
            list.push(FINALIZER.to_owned());
        }
        self.collect();
        true
    }

    /// Garbage collection of a deleted Rollout without finalizers.
    pub fn collect(&mut self) {
        let gone = self.rollout.as_ref().is_some_and(|r| {
            r.metadata.deletion_timestamp.is_some()
                && r.metadata.finalizers.as_ref().is_none_or(Vec::is_empty)
        });
        if gone {
            self.rollout = None;
            self.releases.clear();
            self.sets.retain(|s| s.rs.owner.as_ref().is_none_or(|o| o.kind != "Rollout"));
        }
    }

    fn record(&mut self, id: &Identity, status: &ReleaseStatus, version: String) -> bool {
        let Some(live) = self.releases.iter_mut().find(|r| r.metadata.uid.as_ref() == Some(&id.uid)) else {
            return false;
        };
        let before = live.status.clone().unwrap_or_default();
        live.metadata.resource_version = Some(version);
        live.status = Some(stored(status));
        let back = status.step.index < before.step.index;
        self.breach(back, "a recorded step was taken back");
        self.breach(before.phase.is_final() && status.phase != before.phase, "a final phase was changed");
        self.breach(status.timeline.len() < before.timeline.len(), "the timeline lost an entry");
        self.breach(status.commands.len() < before.commands.len(), "the answer to a command was lost");
        true
    }

    fn floor(&mut self, effect: &Effect) -> bool {
        let Some(live) = self.autoscaler.as_mut() else { return false };
        match effect {
            Effect::HoldFloor { autoscaler, min, floor, has_annotations } => {
                if autoscaler.uid != live.id.uid
                    || *min != live.min
                    || *has_annotations != live.has_annotations
                {
                    return false;
                }
                let before = min.map_or("none".to_owned(), |m| m.to_string());
                let before = live
                    .held
                    .as_deref()
                    .and_then(|h| h.split_once('/'))
                    .filter(|(_, ours)| ours.parse().ok() == *min)
                    .map_or(before, |(first, _)| first.to_owned());
                live.held = Some(format!("{before}/{floor}"));
                live.has_annotations = true;
                live.min = Some(*floor);
                true
            }
            Effect::ReturnFloor { autoscaler, held, present, min } => {
                if autoscaler.uid != live.id.uid || live.held.as_ref() != Some(held) || *present != live.min {
                    return false;
                }
                live.held = None;
                if let Some(min) = min {
                    live.min = *min;
                }
                true
            }
            _ => false,
        }
    }

    fn write_workload(&mut self, effect: &Effect) -> bool {
        let Some(w) = self.deployment.as_mut() else { return false };
        let before = (w.paused, w.template.clone());
        match effect {
            Effect::MarkWorkload { workload, rollout, has_labels } => {
                if workload.uid != w.id.uid || *has_labels != w.has_labels {
                    return false;
                }
                w.rollout_label = Some(rollout.clone());
                w.has_labels = true;
            }
            Effect::UnmarkWorkload { workload, generation, marked, held, unpause, .. } => {
                let there = (w.rollout_label.is_some() || !marked) && (w.release_label.is_some() || !held);
                if workload.uid != w.id.uid || *generation != w.generation || !there {
                    return false;
                }
                if *marked {
                    w.rollout_label = None;
                }
                w.release_label = None;
                w.braked = false;
                w.paused &= !unpause;
            }
            Effect::HoldWorkload { workload, generation, revision, pause } => {
                if workload.uid != w.id.uid || *generation != w.generation {
                    return false;
                }
                w.release_label = Some(revision.clone());
                w.paused |= pause;
            }
            Effect::FreeWorkload { workload, generation, .. } => {
                if workload.uid != w.id.uid || *generation != w.generation {
                    return false;
                }
                w.release_label = None;
                w.braked = false;
                w.paused = false;
            }
            Effect::RestoreTemplate { workload, generation, template, .. } => {
                if workload.uid != w.id.uid || *generation != w.generation {
                    return false;
                }
                w.template.clone_from(template);
                w.revision = revision(template);
                w.release_label = None;
                w.braked = false;
                w.paused = false;
            }
            _ => return false,
        }
        if before != (w.paused, w.template.clone()) {
            w.generation += 1;
        }
        true
    }

    fn write_set(&mut self, effect: &Effect) -> bool {
        let permitted = self.permitted();
        match effect {
            Effect::CreateCanary { object } => {
                let text = |path: &str| object.pointer(path).and_then(|v| v.as_str()).map(str::to_owned);
                let name = text("/metadata/name").unwrap();
                if self.sets.iter().any(|s| s.rs.id.name == name) {
                    return false;
                }
                let uid = self.fresh("rs");
                let replicas = i32::try_from(object["spec"]["replicas"].as_i64().unwrap()).unwrap();
                self.breach(replicas > permitted, "the canary was made larger than its step permits");
                let template = object["spec"]["template"].clone();
                let rs = ReplicaSet {
                    id: Identity { namespace: "shop".into(), name, uid, resource_version: String::new() },
                    deleting: false,
                    owner: Some(Owner {
                        kind: text("/metadata/ownerReferences/0/kind").unwrap(),
                        name: text("/metadata/ownerReferences/0/name").unwrap(),
                        uid: text("/metadata/ownerReferences/0/uid").unwrap(),
                    }),
                    hash: text("/metadata/labels/pod-template-hash"),
                    revision: revision(&template),
                    template: Some(template),
                    has_annotations: true,
                    release: text("/metadata/annotations/belay.dev~1release"),
                    stopped: None,
                    desired_annotation: text(
                        "/metadata/annotations/deployment.kubernetes.io~1desired-replicas",
                    ),
                    replicas,
                    total: 0,
                    available: 0,
                    failure: None,
                };
                self.sets.push(Set { rs, max_annotation: None });
                true
            }
            Effect::ScaleCanary { replica_set, from, to, owner_uid } => {
                let Some(set) = self.owned(replica_set, owner_uid) else { return false };
                if set.rs.replicas != *from {
                    return false;
                }
                set.rs.replicas = *to;
                let stopped = set.rs.stopped.is_some();
                self.breach(*to > permitted, "the canary was scaled beyond its step");
                self.breach(stopped, "a stopped canary was scaled");
                true
            }
            Effect::StopCanary { replica_set, reason, owner_uid, .. } => {
                let Some(set) = self.owned(replica_set, owner_uid) else { return false };
                set.rs.replicas = 0;
                set.rs.stopped = Some(reason.clone());
                true
            }
            Effect::HandOver { replica_set, replicas, max, owner_uid, .. } => {
                let Some(set) = self.owned(replica_set, owner_uid) else { return false };
                if set.rs.replicas != *replicas {
                    return false;
                }
                set.rs.desired_annotation = Some(replicas.to_string());
                set.max_annotation = Some(*max);
                set.rs.owner = None;
                let stopped = set.rs.stopped.is_some();
                self.breach(stopped, "a stopped canary was handed over");
                true
            }
            Effect::DeleteReplicaSet { replica_set } => {
                let Some(set) = self.sets.iter_mut().find(|s| s.rs.id.uid == replica_set.uid) else {
                    return false;
                };
                set.rs.deleting = true;
                let serving =
                    set.rs.replicas > 0 && set.rs.owner.as_ref().is_none_or(|o| o.kind != "Rollout");
                self.breach(serving, "a ReplicaSet of the workload was deleted with its pods");
                true
            }
            _ => false,
        }
    }

    fn owned(&mut self, id: &Identity, owner_uid: &str) -> Option<&mut Set> {
        let owns = |s: &Set| s.rs.owner.as_ref().is_some_and(|o| o.uid == owner_uid);
        self.sets.iter_mut().find(|s| s.rs.id.uid == id.uid && owns(s))
    }

    /// Canary pods that the recorded step of the running release permits.
    fn permitted(&self) -> i32 {
        let Some(release) =
            self.releases.iter().find(|r| r.status.as_ref().is_some_and(|s| !s.phase.is_final()))
        else {
            return 0;
        };
        let index = release.status.as_ref().map_or(0, |s| s.step.index) as usize;
        let replicas = self.deployment.as_ref().map_or(0, |w| w.replicas);
        release.spec.steps.get(index).map_or(replicas, |s| canary_pods(replicas, s.weight))
    }

    /// What must hold at any time.
    pub fn watch(&mut self) {
        let vetoed = self.status().vetoed;
        let canary = self.canary().cloned();
        if let Some(rs) = &canary {
            let back = rs.replicas > 0 && vetoed.iter().any(|v| v.revision == rs.revision);
            self.breach(back, "a vetoed revision has weight");
            self.breach(rs.replicas > 0 && rs.stopped.is_some(), "a stopped canary has weight");
        }
    }

    /// What must hold when the controllers have answered.
    pub fn watch_sizes(&mut self) {
        let Some(w) = self.deployment.as_ref().filter(|w| w.paused && w.observed_generation == w.generation)
        else {
            return;
        };
        let own = self.sets.iter().filter(|s| s.rs.owner.as_ref().is_some_and(|o| o.uid == w.id.uid));
        let cut = own.map(|s| s.rs.replicas).sum::<i32>() < w.replicas;
        self.breach(cut, "stable is smaller than the workload");
    }
}

// Controllers and kubelet.
impl World {
    /// Everybody in the cluster acts until nobody has anything to do at this time. True when anybody did.
    pub fn controllers(&mut self) -> bool {
        let mut moved = false;
        for _ in 0..100 {
            if !(self.deployment_controller() | self.replica_set_controller() | self.kubelet()) {
                return moved;
            }
            moved = true;
        }
        panic!("the controllers do not settle");
    }

    fn deployment_controller(&mut self) -> bool {
        let Some(w) = self.deployment.as_mut() else { return false };
        let mut moved = w.observed_generation != w.generation;
        w.observed_generation = w.generation;
        let w = w.clone();
        let me = Owner { kind: "Deployment".into(), name: w.id.name.clone(), uid: w.id.uid.clone() };
        for set in self.sets.iter_mut().filter(|s| s.rs.owner.is_none() && !s.rs.deleting) {
            set.rs.owner = Some(me.clone());
            moved = true;
        }
        let own = |s: &Set| s.rs.owner.as_ref() == Some(&me) && !s.rs.deleting;
        let wanted = w.replicas.to_string();
        let scaling = self
            .sets
            .iter()
            .any(|s| own(s) && s.rs.replicas > 0 && s.rs.desired_annotation.as_deref() != Some(&wanted));
        if w.paused || scaling {
            return self.resize(&w, &me) || moved;
        }
        if !self.sets.iter().any(|s| own(s) && s.rs.revision == w.revision) {
            let uid = self.fresh("rs");
            let rs = ReplicaSet {
                // The controller's own hash is another one than Belay's.
                id: Identity {
                    namespace: w.id.namespace.clone(),
                    name: format!("{}-k{}", w.id.name, w.revision),
                    uid,
                    resource_version: String::new(),
                },
                deleting: false,
                owner: Some(me),
                hash: Some(format!("k{}", w.revision)),
                revision: w.revision.clone(),
                template: Some(w.template.clone()),
                has_annotations: true,
                release: None,
                stopped: None,
                desired_annotation: Some(wanted),
                replicas: 0,
                total: 0,
                available: 0,
                failure: None,
            };
            self.sets.push(Set { rs, max_annotation: Some(w.replicas + w.surge) });
            return true;
        }
        self.roll(&w, &me) || moved
    }

    fn active(&self, me: &Owner) -> Vec<usize> {
        let mut active: Vec<usize> = (0..self.sets.len())
            .filter(|i| {
                let rs = &self.sets[*i].rs;
                rs.owner.as_ref() == Some(me) && rs.replicas > 0 && !rs.deleting
            })
            .collect();
        active.sort_by_key(|i| std::cmp::Reverse(self.sets[*i].rs.replicas));
        active
    }

    fn size(&mut self, index: usize, to: i32, w: &Workload) -> bool {
        let set = &mut self.sets[index];
        let wanted = (to, Some(w.replicas.to_string()), Some(w.replicas + w.surge));
        let moved = (set.rs.replicas, &set.rs.desired_annotation, set.max_annotation)
            != (wanted.0, &wanted.1, wanted.2);
        (set.rs.replicas, set.rs.desired_annotation, set.max_annotation) = wanted;
        moved
    }

    /// `scale` of the Deployment controller: no rolling update, only sizes.
    fn resize(&mut self, w: &Workload, me: &Owner) -> bool {
        let new =
            self.sets.iter().position(|s| s.rs.owner.as_ref() == Some(me) && s.rs.revision == w.revision);
        let active = self.active(me);
        if active.len() <= 1 {
            let latest = self.sets.iter().rposition(|s| s.rs.owner.as_ref() == Some(me));
            let Some(one) = active.first().copied().or(new).or(latest) else { return false };
            return self.sets[one].rs.replicas != w.replicas && self.size(one, w.replicas, w);
        }
        if let Some(new) = new {
            let rs = &self.sets[new].rs;
            let saturated = rs.replicas == w.replicas
                && rs.desired_annotation == Some(w.replicas.to_string())
                && self.count(&rs.id.uid).1 == w.replicas;
            if saturated {
                let old: Vec<usize> = active.into_iter().filter(|i| *i != new).collect();
                let moved: Vec<bool> = old.into_iter().map(|i| self.size(i, 0, w)).collect();
                return moved.contains(&true);
            }
        }
        let total: i32 = active.iter().map(|i| self.sets[*i].rs.replicas).sum();
        let allowed = if w.replicas > 0 { w.replicas + w.surge } else { 0 };
        let mut left = allowed - total;
        let mut sizes: Vec<i32> = active.iter().map(|i| self.sets[*i].rs.replicas).collect();
        for (size, index) in sizes.iter_mut().zip(&active) {
            let max = self.sets[*index].max_annotation.filter(|m| *m > 0).unwrap_or(total);
            let share = (2 * *size * allowed + max) / (2 * max) - *size;
            let share = if left > 0 { share.clamp(0, left) } else { share.clamp(left, 0) };
            left -= share;
            *size += share;
        }
        sizes[0] = (sizes[0] + left).max(0);
        let moved: Vec<bool> = active.into_iter().zip(sizes).map(|(i, n)| self.size(i, n, w)).collect();
        moved.contains(&true)
    }

    /// The rolling update of the Deployment controller.
    fn roll(&mut self, w: &Workload, me: &Owner) -> bool {
        let Some(new) =
            self.sets.iter().position(|s| s.rs.owner.as_ref() == Some(me) && s.rs.revision == w.revision)
        else {
            return false;
        };
        let old: Vec<usize> = self.active(me).into_iter().filter(|i| *i != new).collect();
        let total = |world: &Self| -> i32 {
            world.sets[new].rs.replicas + old.iter().map(|i| world.sets[*i].rs.replicas).sum::<i32>()
        };
        let present = self.sets[new].rs.replicas;
        let room = (w.replicas + w.surge.max(1) - total(self)).max(0);
        let grown = if present > w.replicas { w.replicas } else { present + room.min(w.replicas - present) };
        if grown != present {
            return self.size(new, grown, w);
        }
        let ready: i32 = self.active(me).iter().map(|i| self.count(&self.sets[*i].rs.id.uid).1).sum();
        let mut spare = ready - (w.replicas - self.unavailable);
        let mut moved = false;
        for index in old {
            let size = self.sets[index].rs.replicas;
            let unready = size - self.count(&self.sets[index].rs.id.uid).1;
            let fewer = size.min(unready.max(0) + spare.max(0));
            spare -= (fewer - unready).max(0);
            moved |= fewer > 0 && self.size(index, size - fewer, w);
        }
        moved
    }

    fn replica_set_controller(&mut self) -> bool {
        let before = self.sets.len() + self.pods.len();
        self.sets.retain(|s| !s.rs.deleting);
        let sets: Vec<ReplicaSet> = self.sets.iter().map(|s| s.rs.clone()).collect();
        self.pods.retain(|p| sets.iter().any(|rs| rs.id.uid == p.pod.owner_uid));
        let mut moved = before != self.sets.len() + self.pods.len();
        for rs in sets {
            let mut mine: Vec<usize> =
                (0..self.pods.len()).filter(|i| self.pods[*i].pod.owner_uid == rs.id.uid).collect();
            let wanted = usize::try_from(rs.replicas).unwrap();
            for _ in mine.len()..wanted {
                let name = self.fresh("pod");
                let image = rs.template.as_ref().and_then(|t| t.pointer("/spec/containers/0/image"));
                let image = image.and_then(|i| i.as_str()).unwrap_or_default().to_owned();
                let pod = Pod {
                    uid: name.clone(),
                    name,
                    owner_uid: rs.id.uid.clone(),
                    created_at: Some(whole_second(self.now)),
                    ..Pod::default()
                };
                self.pods.push(Live { pod, image, born: self.now });
                moved = true;
            }
            if mine.len() > wanted {
                // Unready ones go first, then the youngest.
                mine.sort_by_key(|i| (self.pods[*i].pod.ready, std::cmp::Reverse(self.pods[*i].born)));
                let mut going: Vec<usize> = mine[..mine.len() - wanted].to_vec();
                going.sort_unstable();
                for index in going.into_iter().rev() {
                    self.pods.remove(index);
                }
                moved = true;
            }
        }
        moved
    }

    fn kubelet(&mut self) -> bool {
        let (now, fates) = (self.now, self.fates.clone());
        let mut moved = false;
        for live in &mut self.pods {
            let fate = fates.get(&live.image).copied().unwrap_or(Fate::Good);
            let after = |seconds: i64| now >= live.born + seconds * 1000;
            let mut pod = live.pod.clone();
            if fate == Fate::Unschedulable {
                pod.unschedulable = Some("0/3 nodes are available: insufficient memory".into());
            } else {
                pod.unschedulable = None;
                let started = || -> Timestamp { whole_second(live.born) };
                pod.started_at.get_or_insert_with(started);
                pod.ready_changed_at.get_or_insert_with(started);
                if pod.containers.is_empty() {
                    pod.containers.push(Container { name: "app".into(), ..Container::default() });
                }
            }
            let ended = match fate {
                Fate::Crash(s) if after(s) => Some(("Error".to_owned(), 1)),
                Fate::OutOfMemory(s) if after(s) => Some(("OOMKilled".to_owned(), 137)),
                _ => None,
            };
            let ready = match fate {
                Fate::NeverReady | Fate::Unschedulable => false,
                Fate::LosesReadiness(s) => after(START) && !after(s),
                _ => after(START) && ended.is_none(),
            };
            if let Some(container) = pod.containers.first_mut() {
                container.terminated = ended;
            }
            if ready != pod.ready {
                (pod.ready, pod.ready_changed_at) = (ready, Some(whole_second(now)));
            }
            moved |= format!("{pod:?}") != format!("{:?}", live.pod);
            live.pod = pod;
        }
        moved
    }

    /// When the next pod changes by itself.
    pub fn next_event(&self) -> Option<i64> {
        let times = self.pods.iter().flat_map(|p| {
            let later = match self.fates.get(&p.image) {
                Some(Fate::Crash(s) | Fate::OutOfMemory(s) | Fate::LosesReadiness(s)) => *s,
                _ => START,
            };
            [p.born + START * 1000, p.born + later * 1000]
        });
        times.filter(|t| *t > self.now).min()
    }
}
