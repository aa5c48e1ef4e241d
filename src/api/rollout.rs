//! The Rollout: the standing policy beside a workload.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::core::Duration;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::analysis::Analysis;
use super::strategy::Strategy;
use super::{Timestamp, schema};

/// How the changes of one workload are let out: in which steps, watched by which guards, and what happens
/// when one fails. A Rollout with nothing but `workloadRef` works: it steps through 5, 25 and 50 %, catches
/// crashing pods, and advances by time only.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "belay.dev",
    version = "v1alpha1",
    kind = "Rollout",
    namespaced,
    status = "RolloutStatus",
    derive = "PartialEq",
    category = "belay",
    doc = "The standing policy beside a workload: steps, guards, and what happens when a change fails.",
    printcolumn(name = "Workload", type_ = "string", json_path = ".spec.workloadRef.name"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Stable", type_ = "string", json_path = ".status.stable.revision"),
    printcolumn(name = "Release", type_ = "string", json_path = ".status.release"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Why", type_ = "string", json_path = ".status.message", priority = 1),
    validation = Rule::new("self.metadata.name.size() <= 40")
        .message("metadata.name: at most 40 characters, because revisions are appended to it; choose a shorter name")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("!has(self.analysis) || has(self.analysis.metrics) || !has(self.analysis.guards) || self.analysis.guards.all(g, has(g.web) || has(g.cel) || has(g.job))")
        .message("spec.analysis.metrics: guards that compare numbers need a metrics source; add metrics.pods with a port, or metrics.prometheus with a url")
)]
pub struct RolloutSpec {
    /// The workload whose changes are let out in steps. Immutable.
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("spec.workloadRef is immutable; delete this Rollout and create another one for the other workload"))]
    pub workload_ref: WorkloadRef,
    /// Who answers for the workload; shown in status and events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// How the weight of a change grows. Default: a canary of 5, 25 and 50 %.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Strategy>,
    /// The metrics that are watched in each step. Default: none, the release advances by time only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub analysis: Option<Analysis>,
    /// What happens when a change fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<Rollback>,
    /// How long canary pods may take to become ready, as a Go duration. Default: the Deployment's own
    /// `progressDeadlineSeconds` (10 minutes unless changed).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub progress_deadline: Option<Duration>,
    /// How many finished releases are kept. Default 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub history_limit: Option<i32>,
    /// When true no release starts: changes wait, braked. A release that already runs goes on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
}

/// A reference to the workload, in the Rollout's namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("self.kind == 'Deployment' && (!has(self.apiVersion) || self.apiVersion == 'apps/v1')")
        .message("spec.workloadRef: only Deployments of apps/v1 are supported; set kind: Deployment")
)]
pub struct WorkloadRef {
    /// API version of the workload. Default `apps/v1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub api_version: Option<String>,
    /// Kind of the workload: `Deployment`.
    #[schemars(length(max = 64))]
    pub kind: String,
    /// Name of the workload.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Who answers for a workload.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Owner {
    /// The team's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 200))]
    pub team: Option<String>,
    /// Where to reach it: a chat channel, an address, a pager.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 200))]
    pub contact: Option<String>,
}

/// What happens when a change fails.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rollback {
    /// When false a failed change is held at its weight until a person aborts it. Default true.
    #[serde(default = "yes")]
    pub automatic: bool,
    /// When true the stable template is also written back into the workload. Leave it false under GitOps,
    /// which would write the rejected template again. Default false.
    #[serde(default)]
    pub restore_template: bool,
}

impl Default for Rollback {
    fn default() -> Self {
        Self { automatic: true, restore_template: false }
    }
}

fn yes() -> bool {
    true
}

/// What is true of a Rollout now.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct RolloutStatus {
    /// The `metadata.generation` that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What the Rollout is doing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<RolloutPhase>,
    /// One sentence: why it is in this phase and, if it waits, for what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The revision that serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable: Option<Revision>,
    /// The release that runs, or the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// Revisions that were rejected: no release of them starts until a person does `belay retry`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["revision"]))]
    pub vetoed: Vec<Veto>,
    /// `Ready`, `BrakeEngaged`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// What a newer version wrote and this one does not know. It goes back as it came.
    #[serde(flatten)]
    #[schemars(skip)]
    pub unknown: BTreeMap<String, Value>,
}

/// What a Rollout is doing.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum RolloutPhase {
    /// The workload does not exist, is not yet complete for the first time, or cannot be governed.
    Waiting,
    /// The stable revision serves and nothing is on its way.
    Stable,
    /// A change waits, braked or paused where it was caught, because the Rollout is paused or cannot be used.
    Held,
    /// A release is on its way.
    Releasing,
    /// The workload's present template was rejected; the stable revision serves.
    Rejected,
    /// A change went past the brake, and a person paused it on its way: it is left to that person.
    Unguarded,
}

/// One pod template, by digest.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Revision {
    /// Ten characters of a digest of the pod template.
    #[schemars(length(max = 63))]
    pub revision: String,
    /// The ReplicaSet that runs it.
    #[schemars(length(max = 253))]
    pub replica_set: String,
    /// The container images, `container=image`, at most 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), inner(length(max = 1024)))]
    pub images: Vec<String>,
}

/// The mark that a rejected revision carries.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Veto {
    /// The revision.
    pub revision: String,
    /// The Release that rejected it.
    pub release: String,
    /// Why, as a code.
    pub reason: String,
    /// When.
    pub at: Timestamp,
    /// How often pods of it that came out again, past the brake, were taken back since.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0))]
    pub returns: i32,
    /// When that was the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub returned_at: Option<Timestamp>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_zero(n: &i32) -> bool {
    *n == 0
}
