//! The Release: one attempt to bring one revision of a workload live.

use std::collections::BTreeMap;

use kube::core::Duration;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::analysis::Analysis;
use super::evidence::AnalysisState;
use super::rollout::{Revision, Rollback};
use super::router::Router;
use super::strategy::Match;
use super::{Timestamp, schema};

/// The resolved, immutable plan of one release, and the commands that people gave it.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "belay.dev",
    version = "v1alpha1",
    kind = "Release",
    namespaced,
    status = "ReleaseStatus",
    derive = "PartialEq",
    category = "belay",
    doc = "One attempt to bring one revision of a workload live.",
    printcolumn(name = "Rollout", type_ = "string", json_path = ".spec.rollout"),
    printcolumn(name = "Revision", type_ = "string", json_path = ".spec.to.revision"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Step", type_ = "string", json_path = ".status.progress"),
    printcolumn(name = "Weight", type_ = "integer", json_path = ".status.weight.reached"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Why", type_ = "string", json_path = ".status.message")
)]
#[expect(clippy::duplicated_attributes, reason = "several print columns have the same type")]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("self.rollout == oldSelf.rollout && self.workload == oldSelf.workload && self.replicas == oldSelf.replicas && self.from == oldSelf.from && self.to == oldSelf.to && self.attempt == oldSelf.attempt && self.steps == oldSelf.steps && has(self.analysis) == has(oldSelf.analysis) && (!has(self.analysis) || self.analysis == oldSelf.analysis) && self.rollback == oldSelf.rollback && self.progressDeadline == oldSelf.progressDeadline && self.plannedLooks == oldSelf.plannedLooks && has(self.traffic) == has(oldSelf.traffic) && (!has(self.traffic) || self.traffic == oldSelf.traffic) && has(self.unbraked) == has(oldSelf.unbraked) && (!has(self.unbraked) || self.unbraked == oldSelf.unbraked)")
        .message("spec is immutable except for commands; edit the Rollout, the next release will use it"),
    validation = Rule::new("!has(oldSelf.commands) || oldSelf.commands.size() == 0 || (has(self.commands) && self.commands.size() >= oldSelf.commands.size() && [0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32,33,34,35,36,37,38,39,40,41,42,43,44,45,46,47,48,49].all(i, i >= oldSelf.commands.size() || self.commands[i] == oldSelf.commands[i]))")
        .message("spec.commands is append-only; add your command at the end"),
    validation = Rule::new("(has(self.commands) ? self.commands.size() : 0) <= (has(oldSelf.commands) ? oldSelf.commands.size() : 0) + 1")
        .message("spec.commands: one command per write, so that each carries the name of its author")
)]
pub struct ReleaseSpec {
    /// The Rollout this release belongs to.
    #[schemars(length(min = 1, max = 253))]
    pub rollout: String,
    /// The workload, with the uid it had at the start.
    pub workload: WorkloadIdentity,
    /// Pods that the workload wanted at the start.
    #[schemars(range(min = 0))]
    pub replicas: i32,
    /// The revision that served at the start.
    pub from: Revision,
    /// The revision that is to serve.
    pub to: Revision,
    /// The how-many-eth attempt with this revision, from 1.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub attempt: i32,
    /// The steps, with every default filled in. With traffic the last one is the bake, at 100 %.
    #[schemars(length(min = 1, max = 22))]
    pub steps: Vec<PlannedStep>,
    /// What splits the traffic. Absent: weight by pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<PlannedTraffic>,
    /// The guards, as the Rollout had them at the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub analysis: Option<Analysis>,
    /// What happens on failure.
    pub rollback: Rollback,
    /// How long canary pods may take to become ready, as a Go duration.
    #[schemars(schema_with = "schema::duration")]
    pub progress_deadline: Duration,
    /// Looks that the evidence is planned for: the sum of the steps' `maxDuration` over the interval, at
    /// least 12.
    #[schemars(range(min = 12, max = 1_000_000))]
    pub planned_looks: u32,
    /// Whether the change went past the brake: the workload's own rolling update had put pods of it out before
    /// Belay paused it. Such a release has one step, at the weight it was caught at. It is watched there; then the
    /// workload's own rolling update goes on, or the stable template is written back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unbraked: bool,
    /// What people asked for, in order. Append-only, at most 50; `by` is set by the API server.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub commands: Vec<Command>,
}

/// A workload and its uid.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkloadIdentity {
    /// Kind of the workload.
    #[schemars(length(max = 64))]
    pub kind: String,
    /// Name of the workload.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Its uid: another workload with the same name is not this one.
    #[schemars(length(max = 64))]
    pub uid: String,
}

/// A step with every default filled in.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlannedStep {
    /// Share of the new version in percent; 0 while a blue-green release is looked at before its switch.
    #[schemars(range(min = 0, max = 100))]
    pub weight: i32,
    /// Canary pods. Default: what the weight takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub replicas: Option<i32>,
    /// Least time at this weight with all its pods ready, as a Go duration.
    #[schemars(schema_with = "schema::duration")]
    pub min_duration: Duration,
    /// Time at this weight after which missing proof counts as inconclusive, as a Go duration.
    #[schemars(schema_with = "schema::duration")]
    pub max_duration: Duration,
    /// Whether the step waits for a person.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pause: bool,
    /// Whether this is the bake: the new version has all traffic, and the old one stands by.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bake: bool,
    /// Requests that all go to the new version, whatever the weight.
    #[serde(default, rename = "match", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub matches: Vec<Match>,
    /// Copies of so many percent of stable's requests go to the new version, too; its answers are dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub mirror: Option<i32>,
}

/// What splits the traffic of a release.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlannedTraffic {
    /// The Service that serves the workload.
    #[schemars(length(min = 1, max = 63))]
    pub service: String,
    /// The Service that selects the canary while the release runs: made by Belay, or the preview Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub canary_service: Option<String>,
    /// Whether the canary's Service is the user's own, pinned and given back; else Belay makes and deletes it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub preview: bool,
    /// The routes that are split. None: the Service itself is switched.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 60))]
    pub routes: Vec<PlannedRoute>,
}

/// A route that a release splits.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlannedRoute {
    /// What it is.
    pub router: Router,
    /// Its namespace.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// What a person asked of a release.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Command {
    /// What is to be done.
    pub verb: Verb,
    /// For `promote` and `approve`: the step it speaks of, from 1. Refused when the release is at another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 22))]
    pub step: Option<i32>,
    /// For `promote`: skip all remaining steps.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub full: bool,
    /// Why, in the person's own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 500))]
    pub reason: Option<String>,
    /// Who. Set by the API server from the request's user; what a client claims is replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub by: Option<String>,
}

/// What can be asked of a release.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub enum Verb {
    /// Leave the present step now, proven or not; with `full`, all steps.
    Promote,
    /// Stay at the present weight.
    Pause,
    /// Go on after `pause`.
    Resume,
    /// Roll back now.
    Abort,
    /// Lift the wait of a step with `pause: true`; time and guards still apply.
    Approve,
    /// Lift the veto of a rejected revision: a new attempt starts.
    Retry,
}

/// Where a release stands. Everything that a restarted operator needs is in here.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseStatus {
    /// What the release is doing.
    #[serde(default)]
    pub phase: ReleasePhase,
    /// Why it is in this phase, as a code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why it is in this phase, in one sentence, and if it waits, for what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The step it is at, for people: `2/3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,
    /// The step it is at, and the step's clock.
    #[serde(default)]
    pub step: StepStatus,
    /// Share of the new version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<Weight>,
    /// The traffic, where a router or a Service is switched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<TrafficStatus>,
    /// Whether a person paused it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// When the first canary pod was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// The longest time in seconds that a stable pod was unready during this release.
    #[serde(default)]
    pub longest_stable_unready_seconds: f64,
    /// What became of each command, in the order of `spec.commands`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub commands: Vec<CommandStatus>,
    /// The evidence of the guards, and the looks it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub analysis: Option<AnalysisState>,
    /// What happened, oldest first; the last 60 entries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 60))]
    pub timeline: Vec<TimelineEntry>,
    /// What a newer version wrote and this one does not know. It goes back as it came.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: BTreeMap<String, Value>,
}

/// What a release is doing.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Default, PartialOrd, Ord)]
pub enum ReleasePhase {
    /// Created; the canary does not exist yet.
    #[default]
    Pending,
    /// Going through its steps.
    Progressing,
    /// Held at its weight by a person or by a step that waits for one.
    Paused,
    /// The new version has all traffic; the old one stands by, and a rollback is one write.
    Baking,
    /// All steps passed; the canary grows to full size and is handed over. A change that went past the brake is
    /// let go: the workload's own rolling update goes on.
    Promoting,
    /// The new revision is stable. Final.
    Promoted,
    /// The weight is 0; what was borrowed is given back. A change that went past the brake: the workload's own
    /// rolling update goes back to the stable revision.
    RollingBack,
    /// The old revision is stable and the new one is vetoed. Final.
    RolledBack,
    /// The workload was changed again, or went away. Final.
    Superseded,
}

impl ReleasePhase {
    /// Whether nothing more happens in this release.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Promoted | Self::RolledBack | Self::Superseded)
    }
}

/// The present step and its clock.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct StepStatus {
    /// Index of the step, from 0; the number of steps when all are passed.
    #[serde(default)]
    pub index: u32,
    /// When the step was entered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entered_at: Option<Timestamp>,
    /// Seconds at this weight before `runningSince`.
    #[serde(default)]
    pub elapsed_seconds: f64,
    /// Since when the clock runs; absent while the weight is not reached or the release is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running_since: Option<Timestamp>,
    /// Whether a person lifted this step's `pause`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub approved: bool,
}

/// Share of the new version in percent of the ready pods, and in pods.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Weight {
    /// What the step asks for, in percent.
    pub desired: i32,
    /// What whole pods make of it, in percent, rounded.
    pub reachable: i32,
    /// What is reached now, in percent of the ready pods, rounded.
    pub reached: i32,
    /// Canary pods wanted.
    pub canary_pods: i32,
    /// Stable pods that serve.
    pub stable_pods: i32,
}

/// The traffic of a release, where a router or a Service is switched.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct TrafficStatus {
    /// The share of the new version that the routes have, in percent.
    pub weight: i32,
    /// When Belay last changed a route or a Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_at: Option<Timestamp>,
    /// Writes of others to what the release borrows, that were held since it began.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0))]
    pub held_writes: i32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_zero(n: &i32) -> bool {
    *n == 0
}

/// What became of a command.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct CommandStatus {
    /// When the operator took it up.
    pub received_at: Timestamp,
    /// Whether it was done.
    pub accepted: bool,
    /// Why not, when it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// One thing that happened.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct TimelineEntry {
    /// When.
    pub at: Timestamp,
    /// What, as a code; the same codes as in events.
    pub reason: String,
    /// At which step, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<u32>,
    /// In one sentence.
    pub message: String,
}
