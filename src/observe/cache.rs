//! Everything that is known of the cluster, and the observation of one Rollout made from it.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use tracing::warn;

use super::sight::Watches;
use super::store::{Key, Store};
use super::traffic::{self, TrafficStore};
use super::unread::Unread;
use super::views;
use crate::api::release::PlannedTraffic;
use crate::api::router::Router;
use crate::api::template::{TemplateKind, TemplateRef};
use crate::api::{BrakeForm, Release, Rollout};
use crate::cluster::Resource;
use crate::decide::{
    Autoscaler, Brake, Identity, Job, KnownTemplate, Observation, Pod, ReplicaSet, Route, Service, Workload,
};

/// The kinds that are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Rollouts.
    Rollouts,
    /// Releases.
    Releases,
    /// Deployments.
    Deployments,
    /// ReplicaSets.
    ReplicaSets,
    /// Pods.
    Pods,
    /// Horizontal pod autoscalers.
    Autoscalers,
    /// Jobs of checks.
    Jobs,
    /// Templates of a namespace.
    Templates,
    /// Templates of the cluster.
    ClusterTemplates,
    /// Services.
    Services,
    /// Endpoint slices of the Services that a release borrowed or made.
    Slices,
    /// Routes of a router, watched once a Rollout names one.
    Routes(Router),
}

impl Kind {
    /// The kinds that are always watched.
    pub const ALL: [Self; 11] = [
        Self::Rollouts,
        Self::Releases,
        Self::Deployments,
        Self::ReplicaSets,
        Self::Pods,
        Self::Autoscalers,
        Self::Jobs,
        Self::Templates,
        Self::ClusterTemplates,
        Self::Services,
        Self::Slices,
    ];
}

/// Everything that is known of the cluster.
#[derive(Clone, Debug, Default)]
pub struct Cache {
    rollouts: Store<Rollout>,
    releases: Store<Release>,
    deployments: Store<Workload>,
    replica_sets: Store<ReplicaSet>,
    pods: Store<Pod>,
    autoscalers: Store<(String, String, Autoscaler)>,
    jobs: Store<Job>,
    templates: Store<KnownTemplate>,
    cluster_templates: Store<KnownTemplate>,
    traffic: TrafficStore,
    /// Objects of our own kinds that this program cannot read.
    unread_rollouts: Store<Unread>,
    unread_releases: Store<Unread>,
    watches: Watches,
    brake: Option<Brake>,
}

impl Cache {
    /// Whether the first listing of every kind is complete and the brake was looked at.
    pub fn synced(&self) -> bool {
        self.brake.is_some()
            && self.rollouts.synced()
            && self.releases.synced()
            && self.deployments.synced()
            && self.replica_sets.synced()
            && self.pods.synced()
            && self.autoscalers.synced()
            && self.jobs.synced()
            && self.templates.synced()
            && self.cluster_templates.synced()
            && self.traffic.synced()
    }

    /// The kinds of routes that Rollouts and running releases name: to be watched.
    pub fn routers(&self) -> BTreeSet<Router> {
        traffic::routers(self.rollouts.all().map(|(_, r)| r), self.releases.all().map(|(_, r)| r))
    }

    /// Learns whether the brake is in the API server. Returns the Rollouts to decide anew.
    pub fn set_brake(&mut self, brake: Brake) -> Vec<Key> {
        if self.brake.as_ref() == Some(&brake) {
            return Vec::new();
        }
        self.brake = Some(brake);
        self.keys()
    }

    /// All Rollouts.
    pub fn keys(&self) -> Vec<Key> {
        self.rollouts.all().map(|(key, _)| key.clone()).collect()
    }

    /// All Rollouts and their releases, for figures.
    pub fn releases(&self) -> impl Iterator<Item = &Release> {
        self.releases.all().map(|(_, release)| release)
    }

    /// How many Rollouts and Releases this program cannot read.
    pub fn unreadable(&self) -> (usize, usize) {
        (self.unread_rollouts.all().count(), self.unread_releases.all().count())
    }

    /// The watch of a kind is interrupted: what is known of it may be out of date.
    pub fn lost(&mut self, kind: Kind, now: Timestamp) {
        // A kind that is not installed is lost for good, and says nothing about the pods.
        if !matches!(kind, Kind::Routes(_)) {
            self.watches.lost(kind, now);
        }
    }

    /// The watch of a kind is answered. Returns the Rollouts to decide anew if it was interrupted.
    pub fn found(&mut self, kind: Kind, now: Timestamp) -> Vec<Key> {
        if self.watches.found(kind, now) { self.keys() } else { Vec::new() }
    }

    /// A listing of a kind begins.
    pub fn begin(&mut self, kind: Kind) {
        match kind {
            Kind::Rollouts => {
                self.rollouts.begin();
                self.unread_rollouts.begin();
            }
            Kind::Releases => {
                self.releases.begin();
                self.unread_releases.begin();
            }
            Kind::Deployments => self.deployments.begin(),
            Kind::ReplicaSets => self.replica_sets.begin(),
            Kind::Pods => self.pods.begin(),
            Kind::Autoscalers => self.autoscalers.begin(),
            Kind::Jobs => self.jobs.begin(),
            Kind::Templates => self.templates.begin(),
            Kind::ClusterTemplates => self.cluster_templates.begin(),
            Kind::Services => self.traffic.services.begin(),
            Kind::Slices => self.traffic.slices.begin(),
            Kind::Routes(router) => self.traffic.routes(router).begin(),
        }
    }

    /// A listing of a kind is complete. What it did not name is gone, so every Rollout is decided anew.
    pub fn finish(&mut self, kind: Kind) -> Vec<Key> {
        match kind {
            Kind::Rollouts => {
                let first = !self.rollouts.synced();
                drop((self.rollouts.finish(), self.unread_rollouts.finish()));
                if first {
                    self.drop_history();
                }
            }
            Kind::Releases => drop((self.releases.finish(), self.unread_releases.finish())),
            Kind::Deployments => drop(self.deployments.finish()),
            Kind::ReplicaSets => drop(self.replica_sets.finish()),
            Kind::Pods => drop(self.pods.finish()),
            Kind::Autoscalers => drop(self.autoscalers.finish()),
            Kind::Jobs => drop(self.jobs.finish()),
            Kind::Templates => drop(self.templates.finish()),
            Kind::ClusterTemplates => drop(self.cluster_templates.finish()),
            Kind::Services => drop(self.traffic.services.finish()),
            Kind::Slices => drop(self.traffic.slices.finish()),
            Kind::Routes(router) => drop(self.traffic.routes(router).finish()),
        }
        self.keys()
    }

    /// Takes an object in. Returns the Rollouts it concerns.
    pub fn put(&mut self, kind: Kind, object: &Value) -> Vec<Key> {
        let id = views::identity(object);
        let key = (id.namespace.clone(), id.name.clone());
        match kind {
            Kind::Rollouts => self.put_rollout(id, object),
            Kind::Releases => self.put_release(id, object),
            Kind::Deployments => {
                let changed = self.deployments.put(id, views::deployment(object));
                if changed { self.of_workload(&key.0, &key.1) } else { Vec::new() }
            }
            Kind::ReplicaSets => {
                let view = views::replica_set(object);
                let concerned = self.of_replica_set(&key.0, &view);
                if !self.replica_sets.put(id, view) {
                    return Vec::new();
                }
                if self.rollouts.synced() {
                    self.trim(&key.0, &key.1);
                }
                concerned
            }
            Kind::Pods => {
                let view = views::pod(object);
                let owner = view.owner_uid.clone();
                if self.pods.put(id, view) { self.of_pod(&key.0, &owner) } else { Vec::new() }
            }
            Kind::Autoscalers => {
                let view = views::autoscaler(object);
                let target = view.1.clone();
                if self.autoscalers.put(id, view) { self.of_workload(&key.0, &target) } else { Vec::new() }
            }
            Kind::Jobs => {
                let view = views::job(object);
                let release = view.release.clone();
                if self.jobs.put(id, view) { self.of_release(&key.0, &release) } else { Vec::new() }
            }
            Kind::Templates => {
                let view = views::template(TemplateKind::AnalysisTemplate, object);
                let changed = self.templates.put(id, view);
                if changed { self.of_template(TemplateKind::AnalysisTemplate, &key) } else { Vec::new() }
            }
            Kind::ClusterTemplates => {
                let view = views::template(TemplateKind::ClusterAnalysisTemplate, object);
                let changed = self.cluster_templates.put(id, view);
                if changed {
                    self.of_template(TemplateKind::ClusterAnalysisTemplate, &key)
                } else {
                    Vec::new()
                }
            }
            Kind::Services => {
                let concerned = self.of_service(&key, Some(&traffic::service(object)));
                let changed = self.traffic.services.put(id, traffic::service(object));
                if changed { concerned } else { Vec::new() }
            }
            Kind::Slices => {
                let view = traffic::slice(object);
                let service = view.service();
                if self.traffic.slices.put(id, view) { self.of_service(&service, None) } else { Vec::new() }
            }
            Kind::Routes(router) => {
                let concerned = self.of_route(&traffic::route(router, object));
                let changed = self.traffic.routes(router).put(id, traffic::route(router, object));
                if changed { concerned } else { Vec::new() }
            }
        }
    }

    fn put_rollout(&mut self, id: Identity, object: &Value) -> Vec<Key> {
        let namespace = id.namespace.clone();
        match Rollout::deserialize(object) {
            Ok(rollout) => {
                if self.unread_rollouts.is_past(&id) {
                    return Vec::new();
                }
                self.unread_rollouts.let_go(&id);
                let workload = rollout.spec.workload_ref.name.clone();
                if !self.rollouts.put(id, rollout) {
                    return Vec::new();
                }
                // Its rivals, too.
                self.of_workload(&namespace, &workload)
            }
            Err(error) => {
                if self.rollouts.is_past(&id) {
                    return Vec::new();
                }
                self.rollouts.let_go(&id);
                let unread = Unread::new(object, &error);
                let workload = unread.workload.clone().unwrap_or_default();
                let (rollout, detail) = (id.name.clone(), unread.view.detail.clone());
                if !self.unread_rollouts.put(id, unread) {
                    return Vec::new();
                }
                warn!(%namespace, %rollout, error = %detail, "a Rollout cannot be read; it is left alone");
                self.of_workload(&namespace, &workload)
            }
        }
    }

    fn put_release(&mut self, id: Identity, object: &Value) -> Vec<Key> {
        let namespace = id.namespace.clone();
        match Release::deserialize(object) {
            Ok(release) => {
                if self.unread_releases.is_past(&id) {
                    return Vec::new();
                }
                let rollout = (namespace, release.spec.rollout.clone());
                self.unread_releases.let_go(&id);
                if self.releases.put(id, release) { vec![rollout] } else { Vec::new() }
            }
            Err(error) => {
                if self.releases.is_past(&id) {
                    return Vec::new();
                }
                self.releases.let_go(&id);
                let unread = Unread::new(object, &error);
                let rollout = unread.rollout.clone().map(|name| (namespace.clone(), name));
                let (release, detail) = (id.name.clone(), unread.view.detail.clone());
                if !self.unread_releases.put(id, unread) {
                    return Vec::new();
                }
                warn!(%namespace, %release, error = %detail, "a Release cannot be read; it is left alone");
                rollout.into_iter().collect()
            }
        }
    }

    /// Forgets an object. Returns the Rollouts it concerned.
    pub fn remove(&mut self, kind: Kind, object: &Value) -> Vec<Key> {
        let id = views::identity(object);
        let namespace = id.namespace.clone();
        match kind {
            Kind::Rollouts => {
                let unread = self.unread_rollouts.remove(&id).and_then(|unread| unread.workload);
                let read = self.rollouts.remove(&id).map(|rollout| rollout.spec.workload_ref.name);
                read.or(unread).map(|name| self.of_workload(&namespace, &name)).unwrap_or_default()
            }
            Kind::Releases => {
                let unread = self.unread_releases.remove(&id).and_then(|unread| unread.rollout);
                let read = self.releases.remove(&id).map(|release| release.spec.rollout);
                read.or(unread).map(|name| (namespace, name)).into_iter().collect()
            }
            Kind::Deployments => {
                self.deployments.remove(&id);
                self.of_workload(&namespace, &id.name)
            }
            Kind::ReplicaSets => match self.replica_sets.remove(&id) {
                Some(view) => self.of_replica_set(&namespace, &view),
                None => Vec::new(),
            },
            Kind::Pods => match self.pods.remove(&id) {
                Some(view) => self.of_pod(&namespace, &view.owner_uid),
                None => Vec::new(),
            },
            Kind::Autoscalers => match self.autoscalers.remove(&id) {
                Some((_, target, _)) => self.of_workload(&namespace, &target),
                None => Vec::new(),
            },
            Kind::Jobs => match self.jobs.remove(&id) {
                Some(view) => self.of_release(&namespace, &view.release),
                None => Vec::new(),
            },
            Kind::Templates => {
                self.templates.remove(&id);
                self.of_template(TemplateKind::AnalysisTemplate, &(namespace, id.name))
            }
            Kind::ClusterTemplates => {
                self.cluster_templates.remove(&id);
                self.of_template(TemplateKind::ClusterAnalysisTemplate, &(namespace, id.name))
            }
            Kind::Services => {
                let gone = self.traffic.services.remove(&id);
                self.of_service(&(namespace, id.name), gone.as_ref())
            }
            // One that lost its label is gone from the watch, and comes back when a release borrows its Service again.
            Kind::Slices => {
                let gone = self.traffic.slices.let_go(&id);
                gone.map(|slice| self.of_service(&slice.service(), None)).unwrap_or_default()
            }
            Kind::Routes(router) => {
                let gone = self.traffic.routes(router).remove(&id);
                gone.map(|route| self.of_route(&route)).unwrap_or_default()
            }
        }
    }

    /// What a Rollout and its running release name.
    fn named(&self, rollout: &Rollout) -> Vec<PlannedTraffic> {
        let namespace = rollout.metadata.namespace.as_deref().unwrap_or_default();
        let name = rollout.metadata.name.as_deref().unwrap_or_default();
        traffic::named(rollout, self.releases.of(namespace).filter(|r| r.spec.rollout == name))
    }

    /// The Rollouts that a Service concerns: those that name it, borrowed it or made it.
    fn of_service(&self, (namespace, name): &Key, service: Option<&Service>) -> Vec<Key> {
        let names = |r: &&Rollout| self.named(r).iter().any(|plan| traffic::names_service(plan, name));
        let mut keys: Vec<Key> = self.rollouts.of(namespace).filter(names).filter_map(key_of).collect();
        let owner = service.and_then(|s| s.owner.as_ref()).filter(|owner| owner.kind == "Rollout");
        keys.extend(owner.map(|owner| (namespace.clone(), owner.name.clone())));
        keys.extend(service.and_then(|s| traffic::borrower(&s.loan)));
        keys.sort();
        keys.dedup();
        keys
    }

    /// The Rollouts that a route concerns: those that name it or borrowed it.
    fn of_route(&self, route: &Route) -> Vec<Key> {
        let names = |r: &Rollout| {
            self.named(r).iter().any(|plan| traffic::names_route(plan, route.router, &route.id))
        };
        let mut keys: Vec<Key> =
            self.rollouts.all().filter(|(_, r)| names(r)).map(|(key, _)| key.clone()).collect();
        keys.extend(traffic::borrower(&route.loan));
        keys.sort();
        keys.dedup();
        keys
    }

    /// Takes in what the API server answered to a write of ours: it is read before the watch tells of it.
    pub fn written(&mut self, resource: Resource, answer: &Value) -> Vec<Key> {
        let kind = match resource {
            Resource::Rollouts => Kind::Rollouts,
            Resource::Releases => Kind::Releases,
            Resource::Deployments => Kind::Deployments,
            Resource::ReplicaSets => Kind::ReplicaSets,
            Resource::Autoscalers => Kind::Autoscalers,
            Resource::Services => Kind::Services,
            Resource::Routes(router) => Kind::Routes(router),
            Resource::Jobs => Kind::Jobs,
            Resource::Events => return Vec::new(),
        };
        let finalizers = answer.pointer("/metadata/finalizers").and_then(Value::as_array);
        let deleted = answer.pointer("/metadata/deletionTimestamp").is_some();
        if deleted && finalizers.is_none_or(Vec::is_empty) {
            self.remove(kind, answer)
        } else {
            self.put(kind, answer)
        }
    }

    /// Forgets an object of ours that the API server says is gone.
    pub fn buried(&mut self, resource: Resource, id: &Identity) {
        match resource {
            Resource::ReplicaSets => drop(self.replica_sets.remove(id)),
            Resource::Releases => drop(self.releases.remove(id)),
            Resource::Services => drop(self.traffic.services.remove(id)),
            Resource::Routes(router) => drop(self.traffic.routes(router).remove(id)),
            Resource::Jobs => drop(self.jobs.remove(id)),
            _ => {}
        }
    }

    /// The template that a Rollout of the namespace names.
    fn template(&self, namespace: &str, reference: &TemplateRef) -> Option<KnownTemplate> {
        match reference.kind.unwrap_or_default() {
            TemplateKind::AnalysisTemplate => self.templates.get(namespace, &reference.name).cloned(),
            TemplateKind::ClusterAnalysisTemplate => self.cluster_templates.get("", &reference.name).cloned(),
        }
    }

    /// The Rollouts that name a template.
    fn of_template(&self, kind: TemplateKind, (namespace, name): &Key) -> Vec<Key> {
        let names = |rollout: &Rollout| {
            let templates = rollout.spec.analysis.iter().flat_map(|analysis| &analysis.templates);
            templates.into_iter().any(|t| t.kind.unwrap_or_default() == kind && t.name == *name)
        };
        let reached = |key: &Key| kind == TemplateKind::ClusterAnalysisTemplate || key.0 == *namespace;
        let all = self.rollouts.all().filter(|(key, rollout)| reached(key) && names(rollout));
        all.map(|(key, _)| key.clone()).collect()
    }

    /// Drops the template of a ReplicaSet without pods, unless it is the stable one of a Rollout, whose template may
    /// have to be written back: history would fill the memory.
    fn trim(&mut self, namespace: &str, name: &str) {
        let revision = self.replica_sets.get(namespace, name).map(|rs| rs.revision.as_str());
        // Where it is not known yet what is stable, any may be.
        let may_be_stable = |r: &Rollout| {
            stable_of(r).is_none_or(|stable| stable == name) || stable_revision_of(r) == revision
        };
        if self.rollouts.of(namespace).any(may_be_stable) {
            return;
        }
        if let Some(rs) = self.replica_sets.get_mut(namespace, name).filter(|rs| rs.replicas == 0) {
            rs.template = None;
        }
    }

    /// The same for all ReplicaSets, which may have been listed before the Rollouts were.
    fn drop_history(&mut self) {
        let stable: BTreeSet<Key> = self
            .rollouts
            .all()
            .filter_map(|((namespace, _), r)| Some((namespace.clone(), stable_of(r)?.to_owned())))
            .collect();
        let revisions: BTreeSet<String> =
            self.rollouts.all().filter_map(|(_, r)| stable_revision_of(r).map(ToOwned::to_owned)).collect();
        let undecided: BTreeSet<String> = self
            .rollouts
            .all()
            .filter(|(_, r)| stable_of(r).is_none())
            .map(|(key, _)| key.0.clone())
            .collect();
        for (key, rs) in self.replica_sets.all_mut() {
            let history = !stable.contains(key) && !revisions.contains(&rs.revision);
            if rs.replicas == 0 && history && !undecided.contains(&key.0) {
                rs.template = None;
            }
        }
    }

    fn of_release(&self, namespace: &str, name: &str) -> Vec<Key> {
        let release = self.releases.get(namespace, name);
        release.map(|release| (namespace.to_owned(), release.spec.rollout.clone())).into_iter().collect()
    }

    fn of_workload(&self, namespace: &str, name: &str) -> Vec<Key> {
        let governs = |r: &&Rollout| r.spec.workload_ref.name == name;
        self.rollouts.of(namespace).filter(governs).filter_map(key_of).collect()
    }

    fn of_replica_set(&self, namespace: &str, view: &ReplicaSet) -> Vec<Key> {
        let mut keys = Vec::new();
        if let Some(owner) = &view.owner {
            if owner.kind == "Rollout" {
                keys.push((namespace.to_owned(), owner.name.clone()));
            } else {
                keys.extend(self.of_workload(namespace, &owner.name));
            }
        }
        // Let go and not yet adopted: its Release says whose it is.
        if let Some(release) = view.release.as_ref().and_then(|name| self.releases.get(namespace, name)) {
            keys.push((namespace.to_owned(), release.spec.rollout.clone()));
        }
        keys.sort();
        keys.dedup();
        keys
    }

    fn of_pod(&self, namespace: &str, owner_uid: &str) -> Vec<Key> {
        let owner = self.replica_sets.of(namespace).find(|rs| rs.id.uid == owner_uid);
        owner.map(|rs| self.of_replica_set(namespace, rs)).unwrap_or_default()
    }

    /// What is known about one Rollout. None if there is no such Rollout.
    pub fn observe(&self, key: &Key) -> Option<Observation> {
        let (namespace, name) = key;
        let rollout = self.rollouts.get(namespace, name)?.clone();
        let workload = self.deployments.get(namespace, &rollout.spec.workload_ref.name).cloned();
        let releases: Vec<Release> =
            self.releases.of(namespace).filter(|r| r.spec.rollout == *name).cloned().collect();
        let rollout_uid = rollout.metadata.uid.as_deref().unwrap_or_default();
        let workload_uid = workload.as_ref().map(|w| w.id.uid.as_str());
        let belongs = |rs: &&ReplicaSet| match &rs.owner {
            Some(owner) => owner.uid == rollout_uid || Some(owner.uid.as_str()) == workload_uid,
            None => releases.iter().any(|r| r.metadata.name == rs.release && rs.release.is_some()),
        };
        let replica_sets: Vec<ReplicaSet> =
            self.replica_sets.of(namespace).filter(belongs).cloned().collect();
        let pods = self
            .pods
            .of(namespace)
            .filter(|p| replica_sets.iter().any(|rs| rs.id.uid == p.owner_uid))
            .cloned()
            .collect();
        let autoscalers = self
            .autoscalers
            .of(namespace)
            .filter(|(kind, target, _)| kind == "Deployment" && *target == rollout.spec.workload_ref.name)
            .map(|(_, _, view)| view.clone())
            .collect();
        let owned =
            |job: &&Job| releases.iter().any(|r| r.metadata.uid.as_deref() == Some(job.owner_uid.as_str()));
        let jobs = self.jobs.of(namespace).filter(owned).cloned().collect();
        let references = rollout.spec.analysis.iter().flat_map(|analysis| &analysis.templates);
        let templates = references.filter_map(|reference| self.template(namespace, reference)).collect();
        let unread =
            self.unread_releases.of(namespace).filter(|unread| unread.rollout.as_ref() == Some(name));
        let unread = unread.map(|unread| unread.view.clone()).collect();
        let named = self.named(&rollout);
        let services = self.traffic.services_of(&rollout, &named);
        let (routes, routes_known) = self.traffic.routes_of(&rollout, &named);
        Some(Observation {
            rival: self.rival(&rollout),
            rollout,
            workload,
            replica_sets,
            pods,
            releases,
            unread,
            autoscalers,
            jobs,
            templates,
            services,
            routes,
            routes_known,
            sight: self.watches.sight(),
            brake: self
                .brake
                .clone()
                .unwrap_or_else(|| Brake::Missing(BrakeForm::Policy, "not looked at yet".to_owned())),
            memory: None,
            sample: None,
            runs: Vec::new(),
        })
    }

    /// An older Rollout of the same workload; of two of the same second the first by name.
    fn rival(&self, rollout: &Rollout) -> Option<String> {
        let age = |r: &Rollout| {
            (r.metadata.creation_timestamp.as_ref().map(|t| t.0), r.metadata.name.clone().unwrap_or_default())
        };
        let namespace = rollout.metadata.namespace.as_deref().unwrap_or_default();
        let workload = &rollout.spec.workload_ref.name;
        let read = self
            .rollouts
            .of(namespace)
            .filter(|r| r.spec.workload_ref.name == *workload && r.metadata.deletion_timestamp.is_none())
            .map(age);
        // One that cannot be read governs its workload all the same.
        let unread = self
            .unread_rollouts
            .of(namespace)
            .filter(|unread| unread.workload.as_ref() == Some(workload))
            .map(|unread| (unread.created, unread.view.name.clone()));
        read.chain(unread).filter(|other| *other < age(rollout)).min().map(|(_, name)| name)
    }
}

/// The ReplicaSet that a Rollout's status names as stable.
fn stable_of(rollout: &Rollout) -> Option<&str> {
    rollout.status.as_ref()?.stable.as_ref().map(|stable| stable.replica_set.as_str())
}

/// The revision that a Rollout's status names as stable. Its ReplicaSet may not have been known yet.
fn stable_revision_of(rollout: &Rollout) -> Option<&str> {
    rollout.status.as_ref()?.stable.as_ref().map(|stable| stable.revision.as_str())
}

fn key_of(rollout: &Rollout) -> Option<Key> {
    Some((rollout.metadata.namespace.clone()?, rollout.metadata.name.clone()?))
}

#[cfg(test)]
mod tests;
