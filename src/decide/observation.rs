//! What was read: everything that a decision may depend on, with the identity of each object.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use jiff::Timestamp;
use serde_json::Value;

use crate::analysis::{CheckRun, KnownTemplate, Sample};
use crate::api::router::Router;
use crate::api::{BrakeForm, POD_TEMPLATE_HASH, Release, ReleaseStatus, Rollout};

/// Everything read about one Rollout, at one moment.
#[derive(Clone, Debug)]
pub struct Observation {
    /// The Rollout itself.
    pub rollout: Rollout,
    /// The workload it names, if it exists.
    pub workload: Option<Workload>,
    /// The ReplicaSets of the namespace that the workload's selector matches.
    pub replica_sets: Vec<ReplicaSet>,
    /// The pods of those ReplicaSets.
    pub pods: Vec<Pod>,
    /// The releases of this Rollout, running and finished.
    pub releases: Vec<Release>,
    /// The releases of this Rollout that this version of Belay cannot read.
    pub unread: Vec<UnreadRelease>,
    /// The autoscalers that target the workload.
    pub autoscalers: Vec<Autoscaler>,
    /// The analysis templates that the Rollout names, as far as they exist.
    pub templates: Vec<KnownTemplate>,
    /// The Services that the Rollout or its running release names, and those that a release of it borrowed or made.
    pub services: Vec<Service>,
    /// The routes that the Rollout or its running release names, and those that a release of it borrowed.
    pub routes: Vec<Route>,
    /// Whether the routes of every kind that the Rollout or its running release names are listed.
    pub routes_known: bool,
    /// The Jobs of its checks.
    pub jobs: Vec<Job>,
    /// Whether what was read is what is.
    pub sight: Sight,
    /// Whether the brake is in the API server.
    pub brake: Brake,
    /// An older Rollout that names the same workload.
    pub rival: Option<String>,
    /// What this process remembers of the running release beyond its written status.
    pub memory: Option<Memory>,
    /// Metrics that were fetched since the last pass.
    pub sample: Option<Sample>,
    /// Checks that ran since the last pass.
    pub runs: Vec<CheckRun>,
}

/// A Release that this version of Belay cannot read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadRelease {
    /// Its name.
    pub name: String,
    /// Why it cannot be read.
    pub detail: String,
    /// Whether it is over.
    pub ended: bool,
}

/// A Job of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Who it is.
    pub id: Identity,
    /// The uid of the Release that owns it.
    pub owner_uid: String,
    /// The name of that Release.
    pub release: String,
    /// The guard whose check it is.
    pub guard: String,
    /// Which run of the check it is, from 1.
    pub run: u32,
    /// When it was created.
    pub created_at: Option<Timestamp>,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// How it ended, if it did.
    pub ended: Option<JobEnd>,
}

/// How a Job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobEnd {
    /// Whether it completed; or why that says nothing.
    pub passed: Result<bool, String>,
    /// What is told of it.
    pub seen: String,
}

/// Whether what was read is what is: a watch that is interrupted tells nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// Since when a watch is interrupted, if one is.
    pub lost_since: Option<Timestamp>,
    /// When what happened in the last interruption is known.
    pub clear_at: Option<Timestamp>,
}

impl Sight {
    /// Whether silence of the watches means that nothing happened.
    pub fn is_clear(&self, now: Timestamp) -> bool {
        self.lost_since.is_none() && self.clear_at.is_none_or(|at| at <= now)
    }
}

impl Observation {
    /// The release that is under way: the oldest that is not final.
    pub fn running(&self) -> Option<&Release> {
        self.releases
            .iter()
            .filter(|r| r.status.as_ref().is_none_or(|s| !s.phase.is_final()))
            .min_by_key(|r| r.metadata.creation_timestamp.as_ref().map(|t| t.0))
    }
}

/// What is not yet written: the evidence of the looks since the last write.
#[derive(Clone, Debug, PartialEq)]
pub struct Memory {
    /// The Release it belongs to.
    pub release_uid: String,
    /// The status as this process has it.
    pub status: ReleaseStatus,
    /// The written status that it goes on from. When the Release has another one by now, another process wrote it
    /// or this one wrote it and then failed, and what is written counts.
    pub written: Option<ReleaseStatus>,
    /// When the status was last written by this process.
    pub written_at: Option<Timestamp>,
}

/// Identity of an object that was read.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Identity {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Uid: the guard of every write to it.
    pub uid: String,
    /// Version of the object that was read.
    pub resource_version: String,
}

/// The kinds of workload that can be governed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkloadKind {
    /// `apps/v1` Deployment: braked by `spec.paused`.
    Deployment,
}

impl WorkloadKind {
    /// The kind's name as in manifests.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
        }
    }
}

/// A workload.
#[expect(clippy::struct_excessive_bools, reason = "each is a field or a label of the object, read as it is")]
#[derive(Clone, Debug)]
pub struct Workload {
    /// Its kind.
    pub kind: WorkloadKind,
    /// Its identity.
    pub id: Identity,
    /// `metadata.generation`: grows with every change of the spec, and only then.
    pub generation: i64,
    /// The generation that its controller has seen.
    pub observed_generation: i64,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Value of the label `belay.dev/rollout`.
    pub rollout_label: Option<String>,
    /// Value of the label `belay.dev/release`.
    pub release_label: Option<String>,
    /// Whether the label `belay.dev/braked` is there: it is the brake that paused it, not a person.
    pub braked: bool,
    /// Whether its metadata has a labels map at all.
    pub has_labels: bool,
    /// Pods wanted.
    pub replicas: i32,
    /// Whether its own controller is told not to roll out.
    pub paused: bool,
    /// `spec.selector`, as it is in the object.
    pub selector: Value,
    /// `spec.template`, as it is in the object.
    pub template: Value,
    /// Digest of the template.
    pub revision: String,
    /// `spec.progressDeadlineSeconds`.
    pub progress_deadline_seconds: i64,
    /// `spec.minReadySeconds`.
    pub min_ready_seconds: i64,
    /// The most pods above `replicas` that its own rolling update makes.
    pub surge: i32,
    /// `status.replicas`.
    pub total: i32,
    /// `status.updatedReplicas`.
    pub updated: i32,
    /// `status.availableReplicas`.
    pub available: i32,
}

impl Workload {
    /// Whether its own controller has nothing left to do.
    pub fn complete(&self) -> bool {
        self.observed_generation >= self.generation
            && self.updated == self.replicas
            && self.total == self.replicas
            && self.available >= self.replicas
    }

    /// The images of the template, `container=image`, at most 20.
    pub fn images(&self) -> Vec<String> {
        images(&self.template)
    }
}

/// The images of a pod template, `container=image`, at most 20.
pub fn images(template: &Value) -> Vec<String> {
    let containers = template.pointer("/spec/containers").and_then(Value::as_array);
    containers
        .into_iter()
        .flatten()
        .take(20)
        .map(|c| {
            let text = |key: &str| c.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
            format!("{}={}", text("name"), text("image"))
        })
        .collect()
}

/// The controller that owns an object.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Owner {
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// A ReplicaSet.
#[derive(Clone, Debug, Default)]
pub struct ReplicaSet {
    /// Its identity.
    pub id: Identity,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Its controller.
    pub owner: Option<Owner>,
    /// Value of the label `pod-template-hash`.
    pub hash: Option<String>,
    /// Digest of its template without that label.
    pub revision: String,
    /// Its template, kept only while it has pods or is what the Rollout's status names as stable.
    pub template: Option<Value>,
    /// Whether its metadata has an annotations map at all.
    pub has_annotations: bool,
    /// Annotation `belay.dev/release`.
    pub release: Option<String>,
    /// Annotation `belay.dev/stopped`.
    pub stopped: Option<String>,
    /// Annotation `deployment.kubernetes.io/desired-replicas`.
    pub desired_annotation: Option<String>,
    /// Pods wanted.
    pub replicas: i32,
    /// `status.replicas`.
    pub total: i32,
    /// `status.availableReplicas`.
    pub available: i32,
    /// Why it cannot create pods, if so.
    pub failure: Option<String>,
}

/// A pod, as much as health needs.
#[derive(Clone, Debug, Default)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// The uid of the ReplicaSet that owns it.
    pub owner_uid: String,
    /// Its address.
    pub ip: Option<IpAddr>,
    /// When it was created.
    pub created_at: Option<Timestamp>,
    /// When the kubelet took it up.
    pub started_at: Option<Timestamp>,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Evicted, preempted, or its node went away or is silent: not the version's fault.
    pub disrupted: bool,
    /// Whether it is ready.
    pub ready: bool,
    /// Since when `ready` has its present value.
    pub ready_changed_at: Option<Timestamp>,
    /// Why no node takes it, if so.
    pub unschedulable: Option<String>,
    /// Its containers, init containers included.
    pub containers: Vec<Container>,
}

/// A container, as much as health needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// How often it was restarted.
    pub restarts: i32,
    /// Why it waits, as the kubelet names it, and the message.
    pub waiting: Option<(String, String)>,
    /// How it ended just now: reason and exit code.
    pub terminated: Option<(String, i32)>,
    /// How it ended the time before: reason and exit code.
    pub last_terminated: Option<(String, i32)>,
}

/// A horizontal pod autoscaler.
#[derive(Clone, Debug)]
pub struct Autoscaler {
    /// Its identity.
    pub id: Identity,
    /// `spec.minReplicas`; absent means 1.
    pub min: Option<i32>,
    /// `spec.maxReplicas`.
    pub max: i32,
    /// Annotation `belay.dev/held-min-replicas`.
    pub held: Option<String>,
    /// Whether its metadata has an annotations map at all.
    pub has_annotations: bool,
}

/// What an object carries while a release has borrowed it: a label, annotations, and what it was before.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Loan {
    /// Value of the label `belay.dev/release`: the Release.
    pub release: Option<String>,
    /// The Rollout that borrowed it, from the annotation `belay.dev/borrowed`.
    pub rollout: Option<String>,
    /// What its borrowed fields were before, from the same annotation.
    pub original: Value,
    /// Annotation `belay.dev/borrowed` as it is: what is given back is tested to be this loan.
    pub annotation: Option<String>,
    /// Annotation `belay.dev/stopped`: why the canary's weight was taken away for good.
    pub stopped: Option<String>,
    /// Annotation `belay.dev/held-writes`: writes of others that were held.
    pub held_writes: Option<i32>,
    /// Whether its metadata has a labels map at all.
    pub has_labels: bool,
    /// Whether its metadata has an annotations map at all.
    pub has_annotations: bool,
}

/// A Service.
#[derive(Clone, Debug, Default)]
pub struct Service {
    /// Its identity.
    pub id: Identity,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Its controller.
    pub owner: Option<Owner>,
    /// `spec.selector`; empty when it selects nothing.
    pub selector: BTreeMap<String, String>,
    /// `spec.ports`, as it is in the object.
    pub ports: Value,
    /// What a release borrowed of it.
    pub loan: Loan,
    /// Addresses that are ready behind it, as far as its endpoint slices bear the label of a release.
    pub ready: BTreeSet<IpAddr>,
}

impl Service {
    /// The revision it is pinned to, by the label that tells ReplicaSets apart.
    pub fn pin(&self) -> Option<&str> {
        self.selector.get(POD_TEMPLATE_HASH).map(String::as_str)
    }
}

/// A route.
#[derive(Clone, Debug)]
pub struct Route {
    /// What it is.
    pub router: Router,
    /// Its identity.
    pub id: Identity,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// The whole object, without what managed which field.
    pub object: Value,
    /// What a release borrowed of it.
    pub loan: Loan,
}

/// Whether the brake is in the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Brake {
    /// It is, in this form.
    Engaged(BrakeForm),
    /// It is not, though this API server could take this form; and why.
    Missing(BrakeForm, String),
}
