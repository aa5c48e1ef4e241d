//! One pass: what is being put together, and the Rollout's own status.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time};
use serde_json::Value;

use super::effect::{Announcement, Effect, Expect, Regarding, Subject};
use super::observation::{Autoscaler, Brake, Identity, Memory, Observation, ReplicaSet, Workload};
use super::reason::Reason;
use crate::api::rollout::{Revision, RolloutPhase, Veto};
use crate::api::{BrakeForm, Release, RolloutStatus};

/// Most vetoes that a Rollout keeps; the oldest go first.
const VETOES: usize = 20;

/// A decision in the making.
pub(super) struct Pass<'a> {
    pub obs: &'a Observation,
    pub now: Timestamp,
    pub effects: Vec<Effect>,
    pub reasons: Vec<Reason>,
    pub wake_at: Option<Timestamp>,
    pub sample: bool,
    pub checks: Vec<String>,
    /// Jobs to run, after everything else.
    pub jobs: Vec<Value>,
    pub memory: Option<Memory>,
    /// The Rollout's status as it is to be.
    pub status: RolloutStatus,
}

impl<'a> Pass<'a> {
    pub fn new(obs: &'a Observation, now: Timestamp) -> Self {
        Self {
            obs,
            now,
            effects: Vec::new(),
            reasons: Vec::new(),
            wake_at: None,
            sample: false,
            checks: Vec::new(),
            jobs: Vec::new(),
            memory: None,
            status: obs.rollout.status.clone().unwrap_or_default(),
        }
    }

    pub fn at(&self) -> MicroTime {
        MicroTime(self.now)
    }

    pub fn push(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    /// Asks for another pass at `at`, unless an earlier one is already wanted.
    pub fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |t| t.min(at)));
    }

    /// Whether the silence of the watches means that nothing happened. If not, looks again when it does.
    pub fn sees(&mut self) -> bool {
        let sight = self.obs.sight;
        let clear = sight.is_clear(self.now);
        if let (false, None, Some(at)) = (clear, sight.lost_since, sight.clear_at) {
            self.wake(at);
        }
        clear
    }

    pub fn rollout_id(&self) -> Identity {
        identity(&self.obs.rollout.metadata)
    }

    pub fn workload(&self) -> Option<&'a Workload> {
        self.obs.workload.as_ref().filter(|w| !w.deleting)
    }

    pub fn announce(
        &mut self,
        release: Option<&Release>,
        kind: &'static str,
        warning: bool,
        action: &str,
        reason: Reason,
    ) {
        let regarding = match release {
            Some(r) => Regarding { kind: "Release", id: identity(&r.metadata) },
            None => Regarding { kind: "Rollout", id: self.rollout_id() },
        };
        self.push(Effect::Announce(Announcement {
            regarding,
            warning,
            kind,
            action: action.to_owned(),
            reason,
        }));
    }

    /// Whether Belay made this ReplicaSet for this Rollout and still controls it.
    pub fn is_ours(&self, rs: &ReplicaSet) -> bool {
        let uid = self.obs.rollout.metadata.uid.as_deref().unwrap_or_default();
        rs.owner.as_ref().is_some_and(|o| o.kind == "Rollout" && o.uid == uid)
    }

    pub fn owner_uid(&self) -> String {
        self.obs.rollout.metadata.uid.clone().unwrap_or_default()
    }

    /// The release that is under way.
    pub fn running(&self) -> Option<&'a Release> {
        self.obs.running()
    }

    pub fn veto_of(&self, revision: &str) -> Option<&Veto> {
        self.status.vetoed.iter().find(|v| v.revision == revision)
    }

    pub fn veto(&mut self, revision: &str, release: &str, code: &str) {
        if self.veto_of(revision).is_some() {
            return;
        }
        let at = self.at();
        self.status.vetoed.push(Veto {
            revision: revision.to_owned(),
            release: release.to_owned(),
            reason: code.to_owned(),
            at,
            returns: 0,
            returned_at: None,
        });
        let surplus = self.status.vetoed.len().saturating_sub(VETOES);
        self.status.vetoed.drain(..surplus);
    }

    /// Sets phase and message of the Rollout.
    pub fn say(&mut self, phase: RolloutPhase, reason: Reason) {
        self.status.phase = Some(phase);
        self.status.message = Some(reason.to_string());
        let ready = !matches!(
            reason.code(),
            "WorkloadMissing" | "WorkloadTaken" | "InvalidPlan" | "ReleaseUnreadable"
        );
        let message = if ready { String::new() } else { reason.to_string() };
        self.condition("Ready", ready, if ready { "Governed" } else { reason.code() }, &message);
        self.reasons.push(reason);
    }

    pub fn set_stable(&mut self, stable: Revision) {
        self.status.stable = Some(stable);
    }

    fn brake_condition(&mut self) {
        match &self.obs.brake {
            Brake::Engaged(form) => {
                let reason = match form {
                    BrakeForm::Policy => "PolicyInPlace",
                    BrakeForm::Webhook => "WebhookInPlace",
                };
                self.condition("BrakeEngaged", true, reason, "");
            }
            Brake::Missing(form, why) => {
                let code = match form {
                    BrakeForm::Policy => "PolicyMissing",
                    BrakeForm::Webhook => "WebhookMissing",
                };
                let why = why.clone();
                if self.condition_status("BrakeEngaged") != Some("False") {
                    self.announce(
                        None,
                        "BrakeMissing",
                        true,
                        "Brake",
                        Reason::BrakeMissing { detail: why.clone() },
                    );
                }
                self.condition("BrakeEngaged", false, code, &why);
            }
        }
    }

    fn condition_status(&self, kind: &str) -> Option<&str> {
        self.status.conditions.iter().find(|c| c.type_ == kind).map(|c| c.status.as_str())
    }

    fn condition(&mut self, kind: &str, status: bool, reason: &str, message: &str) {
        let status = if status { "True" } else { "False" };
        let generation = self.obs.rollout.metadata.generation;
        let conditions = &mut self.status.conditions;
        if let Some(present) = conditions.iter_mut().find(|c| c.type_ == kind) {
            if present.status != status {
                present.last_transition_time = Time(self.now);
            }
            status.clone_into(&mut present.status);
            reason.clone_into(&mut present.reason);
            message.clone_into(&mut present.message);
            present.observed_generation = generation;
        } else {
            conditions.push(Condition {
                type_: kind.to_owned(),
                status: status.to_owned(),
                reason: reason.to_owned(),
                message: message.to_owned(),
                last_transition_time: Time(self.now),
                observed_generation: generation,
            });
        }
    }

    /// Whether the Rollout's status is to become another one.
    pub fn rollout_differs(&self) -> bool {
        self.obs.rollout.status.as_ref() != Some(&self.status)
    }

    /// Writes the Rollout's status now, if it differs from what is there.
    pub fn record_rollout(&mut self) {
        self.status.observed_generation = self.obs.rollout.metadata.generation;
        self.brake_condition();
        let already = self
            .effects
            .iter()
            .any(|e| matches!(e, Effect::RecordRollout { status, .. } if **status == self.status));
        if self.rollout_differs() && !already {
            self.push(Effect::RecordRollout {
                rollout: self.rollout_id(),
                status: Box::new(self.status.clone()),
            });
        }
    }

    /// Asks first whether what was seen of an object is still so.
    pub fn confirm(&mut self, subject: Subject, id: Identity, expect: Expect) {
        self.push(Effect::Confirm { subject, id, expect });
    }

    /// Asks first whether the spec of the workload is still what was seen of it.
    pub fn confirm_workload(&mut self, workload: &Workload) {
        self.confirm(Subject::Workload, workload.id.clone(), Expect::Generation(workload.generation));
    }

    /// Asks first whether the Rollout is still what was seen of it, unless this pass writes it before, which asks too.
    pub fn confirm_rollout(&mut self) {
        if !self.effects.iter().any(|e| matches!(e, Effect::RecordRollout { .. })) {
            self.confirm(Subject::Rollout, self.rollout_id(), Expect::Unchanged);
        }
    }

    /// Marks a workload as held for its present revision, and pauses it if it is not paused.
    pub fn hold(&mut self, workload: &Workload) {
        let labelled = workload.release_label.as_deref() == Some(workload.revision.as_str());
        if !labelled || !workload.paused {
            self.push(Effect::HoldWorkload {
                workload: workload.id.clone(),
                generation: workload.generation,
                revision: workload.revision.clone(),
                pause: !workload.paused,
            });
        }
    }

    /// The pod template of a revision of the workload, if one of its ReplicaSets still has it.
    pub fn template_of(&self, workload: &Workload, revision: &str) -> Option<&'a Value> {
        let mut own = self.obs.replica_sets.iter().filter(|rs| {
            rs.revision == revision && rs.owner.as_ref().is_some_and(|o| o.uid == workload.id.uid)
        });
        own.find_map(|rs| rs.template.as_ref())
    }

    /// Deletes ReplicaSets of the present template without pods, and says whether there are any. They are history of
    /// the workload; a canary that is adopted beside one would be taken for an old one.
    pub fn remove_leftovers(&mut self, workload: &Workload, canary: Option<&ReplicaSet>) -> bool {
        let canary = canary.map(|rs| &rs.id.uid);
        let is_leftover = |rs: &&ReplicaSet| {
            rs.revision == workload.revision
                && rs.replicas == 0
                && rs.total == 0
                && Some(&rs.id.uid) != canary
        };
        let obs = self.obs;
        let leftovers: Vec<&ReplicaSet> = obs.replica_sets.iter().filter(is_leftover).collect();
        for rs in leftovers.iter().filter(|rs| !rs.deleting) {
            self.push(Effect::DeleteReplicaSet { replica_set: rs.id.clone() });
        }
        !leftovers.is_empty()
    }

    /// Lets a workload go: Belay's marks of a release and the pause come off, as far as they are there.
    pub fn free(&mut self, workload: &Workload) {
        self.push(Effect::FreeWorkload {
            workload: workload.id.clone(),
            generation: workload.generation,
            held: workload.release_label.is_some(),
            braked: workload.braked,
            paused: workload.paused,
        });
    }

    /// Holds the floor of every autoscaler of the workload at `floor`, so that a rollback finds all its pods.
    pub fn hold_floors(&mut self, floor: i32) {
        for autoscaler in &self.obs.autoscalers {
            let floor = floor.min(autoscaler.max);
            if autoscaler.min.unwrap_or(1) < floor {
                self.effects.push(Effect::HoldFloor {
                    autoscaler: autoscaler.id.clone(),
                    min: autoscaler.min,
                    floor,
                    has_annotations: autoscaler.has_annotations,
                });
            }
        }
    }

    /// Gives back the floor of every autoscaler that holds one.
    pub fn return_floors(&mut self) {
        for autoscaler in &self.obs.autoscalers {
            if let Some(held) = &autoscaler.held {
                self.effects.push(return_floor(autoscaler, held));
            }
        }
    }
}

/// What is given back: what it was before, unless another writer has set something else since.
fn return_floor(autoscaler: &Autoscaler, held: &str) -> Effect {
    let (before, floor) = held.split_once('/').unwrap_or((held, ""));
    let ours = floor.parse::<i32>().ok() == autoscaler.min;
    Effect::ReturnFloor {
        autoscaler: autoscaler.id.clone(),
        held: held.to_owned(),
        present: autoscaler.min,
        min: ours.then(|| before.parse::<i32>().ok()),
    }
}

/// The identity of an object.
pub(super) fn identity(meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> Identity {
    Identity {
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        resource_version: meta.resource_version.clone().unwrap_or_default(),
    }
}

/// Whether nothing more happens in this release.
pub(super) fn is_final(release: &Release) -> bool {
    release.status.as_ref().is_some_and(|s| s.phase.is_final())
}
