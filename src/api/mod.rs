//! The custom resources, their labels and annotations.
//!
//! Purpose: the vocabulary that every other module shares: [`Rollout`], [`Release`], [`evidence`].
//! May touch: serde, schemars and the Kubernetes API types. Must never: decide, read a clock, do I/O.
//! Everybody may import this module; it imports none of the others.

pub mod analysis;
pub mod check;
pub mod evidence;
pub mod guard;
mod looks;
pub mod metrics;
pub mod release;
pub mod rollout;
pub mod router;
mod schema;
pub mod strategy;
pub mod template;
pub mod validate;

pub use release::{Release, ReleasePhase, ReleaseSpec, ReleaseStatus};
pub use rollout::{Rollout, RolloutPhase, RolloutSpec, RolloutStatus};

/// What the brake, and the stamp with it, is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrakeForm {
    /// Admission policies in the API server: a change waits, whether the operator runs or not.
    Policy,
    /// A webhook of the operator: a change waits, and is refused while no operator runs.
    Webhook,
}

/// A point in time with microseconds, as RFC 3339 in JSON.
pub type Timestamp = k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

/// The API group of all custom resources.
pub const GROUP: &str = "belay.dev";
/// The version of the custom resources that this program reads and writes.
pub const VERSION: &str = "v1alpha1";

/// Label on a workload: the name of the Rollout that governs it. The brake selects on it.
pub const ROLLOUT_LABEL: &str = "belay.dev/rollout";
/// Label on a workload while a release runs: the revision that is on its way. The brake holds the
/// workload paused as long as it is there. On a Service or a route that a release has borrowed: the Release's name.
pub const RELEASE_LABEL: &str = "belay.dev/release";
/// Label that the brake puts on a workload whose changed template it stopped. As long as it is there and the
/// workload is paused, only Belay's account can unpause it; once unpaused it means nothing, and the next
/// write of anybody takes it off.
pub const BRAKED_LABEL: &str = "belay.dev/braked";
/// Annotation on a canary ReplicaSet: the Release it belongs to.
pub const RELEASE_ANNOTATION: &str = "belay.dev/release";
/// Annotation on a canary ReplicaSet that was stopped, or on a borrowed object that lost the canary's weight: why.
/// Written together with `replicas: 0` or the weight, so that a restart between this write and the next never raises
/// it again.
pub const STOPPED_ANNOTATION: &str = "belay.dev/stopped";
/// Annotation on an autoscaler whose floor a release holds: `BEFORE/FLOOR`, the
/// `minReplicas` to give back (`none` if unset) and the one that Belay set.
pub const HELD_FLOOR_ANNOTATION: &str = "belay.dev/held-min-replicas";
/// Annotation on a Service or a route that a release has borrowed, beside the label [`RELEASE_LABEL`]: JSON with the
/// Rollout, and with what the borrowed fields were.
pub const BORROWED_ANNOTATION: &str = "belay.dev/borrowed";
/// Annotation on a borrowed object: how many writes of others the policy held.
pub const HELD_WRITES_ANNOTATION: &str = "belay.dev/held-writes";
/// Label on a Job, and on its pods: the guard whose check it is. Beside it [`RELEASE_LABEL`] has the Release's name.
pub const GUARD_LABEL: &str = "belay.dev/guard";
/// Annotation on a Job: which run of its check it is, from 1.
pub const RUN_ANNOTATION: &str = "belay.dev/run";
/// Finalizer on Rollouts: nothing that Belay borrowed is left behind.
pub const FINALIZER: &str = "belay.dev/rope";
/// The label by which Kubernetes tells the ReplicaSets of one Deployment apart.
pub const POD_TEMPLATE_HASH: &str = "pod-template-hash";
/// The number of pods a ReplicaSet is meant to have, as the Deployment controller understands it.
pub const DESIRED_REPLICAS_ANNOTATION: &str = "deployment.kubernetes.io/desired-replicas";
/// The most pods its Deployment may have at once, as the Deployment controller understands it.
pub const MAX_REPLICAS_ANNOTATION: &str = "deployment.kubernetes.io/max-replicas";
/// The field manager of every write that Belay makes.
pub const FIELD_MANAGER: &str = "belay";
/// The user name under which the operator writes when it was installed by `belay install`.
pub const OPERATOR_USER: &str = "system:serviceaccount:belay-system:belay";
/// The name of the admission policy that is the brake, and of its binding.
pub const BRAKE: &str = "brake.belay.dev";
/// The name of the webhook configuration that is the brake on servers without admission policies.
pub const BRAKE_WEBHOOK: &str = "zz-brake.belay.dev";
/// The namespace that `belay install` uses.
pub const OPERATOR_NAMESPACE: &str = "belay-system";
