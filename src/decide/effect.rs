//! What is to be done: a closed set of writes, each with its preconditions, as data.

use serde_json::Value;

use super::observation::{Identity, Loan};
use super::reason::Reason;
use crate::api::router::Router;
use crate::api::{Release, ReleaseStatus, RolloutStatus};

/// One write. Each is idempotent, and each carries what must still be true when it arrives.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Puts Belay's finalizer on a Rollout.
    AddFinalizer {
        /// The Rollout.
        rollout: Identity,
        /// The finalizers it has.
        present: Vec<String>,
    },
    /// Takes Belay's finalizer off a Rollout: the last write of its life.
    RemoveFinalizer {
        /// The Rollout.
        rollout: Identity,
        /// The finalizers it has.
        present: Vec<String>,
    },
    /// Puts the label `belay.dev/rollout` on a workload, which engages the brake.
    MarkWorkload {
        /// The workload.
        workload: Identity,
        /// The Rollout's name.
        rollout: String,
        /// Whether the workload has labels at all.
        has_labels: bool,
    },
    /// Takes Belay's labels off a workload, and unpauses it if its template is the one that serves.
    UnmarkWorkload {
        /// The workload.
        workload: Identity,
        /// Its generation: its spec must not have changed since, and with it nothing else, so that no label is left.
        generation: i64,
        /// Whether the label `belay.dev/rollout` is there.
        marked: bool,
        /// Whether the label `belay.dev/release` is there.
        held: bool,
        /// Whether the label `belay.dev/braked` is there.
        braked: bool,
        /// Whether `spec.paused` is removed.
        unpause: bool,
    },
    /// Puts the label `belay.dev/release` on a workload: nobody but Belay can unpause it now.
    HoldWorkload {
        /// The workload.
        workload: Identity,
        /// Its generation: its template must still be this revision.
        generation: i64,
        /// The revision on its way.
        revision: String,
        /// Whether `spec.paused` must be set, too.
        pause: bool,
    },
    /// Takes the label `belay.dev/release` off and unpauses.
    FreeWorkload {
        /// The workload.
        workload: Identity,
        /// Its generation: its template must still be the one that may go on.
        generation: i64,
        /// Whether the label is there.
        held: bool,
        /// Whether the label `belay.dev/braked` is there.
        braked: bool,
        /// Whether `spec.paused` is set.
        paused: bool,
    },
    /// Writes the stable template back into the workload and lets go of it.
    RestoreTemplate {
        /// The workload.
        workload: Identity,
        /// Its generation: it must still have the rejected template.
        generation: i64,
        /// The stable template.
        template: Value,
        /// Whether the label `belay.dev/release` is there.
        held: bool,
        /// Whether the label `belay.dev/braked` is there.
        braked: bool,
        /// Whether `spec.paused` is set.
        paused: bool,
    },
    /// Starts a release.
    CreateRelease(Box<Release>),
    /// Writes a Release's status.
    RecordRelease {
        /// The Release.
        release: Identity,
        /// The whole status.
        status: Box<ReleaseStatus>,
    },
    /// Deletes a finished Release beyond the history limit.
    PruneRelease {
        /// The Release.
        release: Identity,
    },
    /// Writes a Rollout's status.
    RecordRollout {
        /// The Rollout.
        rollout: Identity,
        /// The whole status.
        status: Box<RolloutStatus>,
    },
    /// Makes the canary ReplicaSet.
    CreateCanary {
        /// The whole object.
        object: Value,
    },
    /// Changes the number of canary pods.
    ScaleCanary {
        /// The ReplicaSet.
        replica_set: Identity,
        /// Its present number: the precondition.
        from: i32,
        /// The wanted number.
        to: i32,
        /// The uid of its controller: it must still be Belay's.
        owner_uid: String,
    },
    /// Takes the canary's weight away for good, and marks it in the same write.
    StopCanary {
        /// The ReplicaSet.
        replica_set: Identity,
        /// The code of the reason.
        reason: String,
        /// Whether it has annotations at all.
        has_annotations: bool,
        /// The uid of its controller: it must still be Belay's.
        owner_uid: String,
    },
    /// Lets the canary ReplicaSet go, so that the Deployment adopts it.
    HandOver {
        /// The ReplicaSet.
        replica_set: Identity,
        /// Its present size: the precondition.
        replicas: i32,
        /// The Deployment's `replicas` plus its surge.
        max: i32,
        /// Whether it has annotations at all.
        has_annotations: bool,
        /// The uid of its controller: it must still be Belay's.
        owner_uid: String,
    },
    /// Deletes a ReplicaSet that Belay made, or one without pods that stands in the way of a new attempt.
    DeleteReplicaSet {
        /// The ReplicaSet.
        replica_set: Identity,
    },
    /// Runs a Job of a check. Its name says which run of which check of which Release it is, so that it is made once.
    RunJob {
        /// The whole object.
        object: Value,
    },
    /// Deletes a Job that still runs for a Release that is over.
    DeleteJob {
        /// The Job.
        job: Identity,
    },
    /// Raises an autoscaler's floor for the length of a release.
    HoldFloor {
        /// The autoscaler.
        autoscaler: Identity,
        /// Its present `minReplicas`: the precondition, and what is given back.
        min: Option<i32>,
        /// The floor.
        floor: i32,
        /// Whether it has annotations at all.
        has_annotations: bool,
    },
    /// Gives an autoscaler's floor back.
    ReturnFloor {
        /// The autoscaler.
        autoscaler: Identity,
        /// What the annotation says now: the precondition.
        held: String,
        /// Its present `minReplicas`: the precondition.
        present: Option<i32>,
        /// What to set; the outer `None` leaves `minReplicas` as another writer set it.
        min: Option<Option<i32>>,
    },
    /// Makes the Service that selects the canary while a release runs.
    CreateService {
        /// The whole object.
        object: Value,
    },
    /// Deletes the Service that Belay made.
    DeleteService {
        /// The Service.
        service: Identity,
    },
    /// Makes a Service select one revision only.
    PinService {
        /// The Service.
        service: Identity,
        /// What it is pinned to now: the precondition. `None` where it is not.
        from: Option<String>,
        /// The revision's `pod-template-hash`.
        to: String,
        /// What is written on it in the same write.
        marks: Marks,
    },
    /// Makes a Service select all revisions again. What it carries of the release stays.
    UnpinService {
        /// The Service.
        service: Identity,
        /// What it is pinned to now: the precondition.
        from: String,
    },
    /// Gives a Service back: the pin, if it is there, and all that it carries of the release go in one write.
    ReturnService {
        /// The Service.
        service: Identity,
        /// What it is pinned to now.
        pin: Option<String>,
        /// What it carries.
        loan: Loan,
    },
    /// Changes the split of a route.
    SplitRoute {
        /// What it is.
        router: Router,
        /// The route.
        route: Identity,
        /// JSON Patch operations with a `test` for each field that they change.
        ops: Vec<Value>,
        /// The share of the canary afterwards, in percent.
        weight: i32,
        /// What is written on it in the same write.
        marks: Marks,
    },
    /// Makes the object that a router wants beside a route for the canary.
    CreateRoute {
        /// What it is.
        router: Router,
        /// The whole object.
        object: Value,
    },
    /// Deletes the object that Belay made beside a route.
    DeleteRoute {
        /// What it is.
        router: Router,
        /// The object.
        route: Identity,
    },
    /// Gives a route back: the canary is taken out, and all that it carries of the release goes in one write.
    ReturnRoute {
        /// What it is.
        router: Router,
        /// The route.
        route: Identity,
        /// JSON Patch operations with a `test` for each field that they change.
        ops: Vec<Value>,
        /// What it carries.
        loan: Loan,
    },
    /// Asks the API server itself whether what was seen is still so, before something is taken away because of it:
    /// what is missing from a view, or was changed in it, may only be late. Ends the pass if it is not.
    Confirm {
        /// What kind of object.
        subject: Subject,
        /// The object, as it was seen.
        id: Identity,
        /// What must be true of it.
        expect: Expect,
    },
    /// Tells everyone.
    Announce(Announcement),
}

/// What a release writes on an object that it borrows, together with the borrowed fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Marks {
    /// On the first write: the label's value, the Release, and the annotation `belay.dev/borrowed`.
    pub borrow: Option<(String, String)>,
    /// On the way back: the annotation `belay.dev/stopped`.
    pub stopped: Option<String>,
    /// Whether nothing of the object may have changed since it was seen: so wherever the canary's weight grows.
    pub unchanged: bool,
    /// Whether its metadata has a labels map at all.
    pub has_labels: bool,
    /// Whether its metadata has an annotations map at all.
    pub has_annotations: bool,
}

/// What is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The workload.
    Workload,
    /// A Release.
    Release,
    /// The Rollout.
    Rollout,
    /// A ReplicaSet.
    ReplicaSet,
    /// A Service.
    Service,
    /// A route of a router.
    Route(Router),
}

/// What must be true of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// It does not exist, or is being deleted. Another object of the same name is not it, where a uid was seen.
    Gone,
    /// Its spec has not changed since: its generation is this one.
    Generation(i64),
    /// Nothing of it has changed since.
    Unchanged,
}

/// An event.
#[derive(Clone, Debug, PartialEq)]
pub struct Announcement {
    /// What it is about.
    pub regarding: Regarding,
    /// Whether somebody should look at it.
    pub warning: bool,
    /// The event's reason: one per kind of thing.
    pub kind: &'static str,
    /// The event's action: the step or the phase.
    pub action: String,
    /// Why.
    pub reason: Reason,
}

/// What an event is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Regarding {
    /// `Rollout` or `Release`.
    pub kind: &'static str,
    /// The object.
    pub id: Identity,
}

impl Effect {
    /// One word for logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::AddFinalizer { .. } => "AddFinalizer",
            Self::RemoveFinalizer { .. } => "RemoveFinalizer",
            Self::MarkWorkload { .. } => "MarkWorkload",
            Self::UnmarkWorkload { .. } => "UnmarkWorkload",
            Self::HoldWorkload { .. } => "HoldWorkload",
            Self::FreeWorkload { .. } => "FreeWorkload",
            Self::RestoreTemplate { .. } => "RestoreTemplate",
            Self::CreateRelease(_) => "CreateRelease",
            Self::RecordRelease { .. } => "RecordRelease",
            Self::PruneRelease { .. } => "PruneRelease",
            Self::RecordRollout { .. } => "RecordRollout",
            Self::CreateCanary { .. } => "CreateCanary",
            Self::ScaleCanary { .. } => "ScaleCanary",
            Self::StopCanary { .. } => "StopCanary",
            Self::HandOver { .. } => "HandOver",
            Self::DeleteReplicaSet { .. } => "DeleteReplicaSet",
            Self::RunJob { .. } => "RunJob",
            Self::DeleteJob { .. } => "DeleteJob",
            Self::HoldFloor { .. } => "HoldFloor",
            Self::ReturnFloor { .. } => "ReturnFloor",
            Self::CreateService { .. } => "CreateService",
            Self::DeleteService { .. } => "DeleteService",
            Self::PinService { .. } => "PinService",
            Self::UnpinService { .. } => "UnpinService",
            Self::ReturnService { .. } => "ReturnService",
            Self::SplitRoute { .. } => "SplitRoute",
            Self::CreateRoute { .. } => "CreateRoute",
            Self::DeleteRoute { .. } => "DeleteRoute",
            Self::ReturnRoute { .. } => "ReturnRoute",
            Self::Confirm { .. } => "Confirm",
            Self::Announce(_) => "Announce",
        }
    }
}
