//! The product: from what was read to what is to be done.
//!
//! Purpose: [`decide`] maps an [`Observation`] and the time to a [`Decision`]. The operator, the simulator and
//! the dry run all call this one function; nothing else decides.
//! May touch: `api`, `analysis`. Must never: do I/O, read a clock, be async, keep state of its own, panic.

mod capacity;
mod caught;
mod checks;
mod commands;
mod crash;
mod drive;
mod effect;
mod handover;
mod observation;
mod pass;
mod plan;
mod reason;
mod rest;
mod revision;
mod size;
mod status;
mod teardown;
#[cfg(test)]
mod tests;
mod traffic;
mod unwind;

use jiff::Timestamp;

pub use crate::analysis::KnownTemplate;
pub use capacity::{TOLERATED_MISS, canary_pods, pods_for, share};
pub use effect::{Announcement, Effect, Expect, Marks, Regarding, Subject};
pub use observation::{
    Autoscaler, Brake, Container, Identity, Job, JobEnd, Loan, Memory, Observation, Owner, Pod, ReplicaSet,
    Route, Service, Sight, UnreadRelease, Workload, WorkloadKind, images,
};
pub use plan::{INTERVAL_SECONDS, planned_looks, secs, steps, traffic as planned_traffic};
pub use reason::{Passed, Reason, seconds};
pub use revision::{revision, without_hash};
pub use traffic::wanted;

use crate::api::FINALIZER;

/// What is to be done, and when to look again.
#[derive(Clone, Debug, Default)]
pub struct Decision {
    /// The writes, in order. The first that fails ends the pass; what comes after it is decided anew.
    pub effects: Vec<Effect>,
    /// What this process is to remember until the next pass, if every write succeeds.
    pub memory: Option<Memory>,
    /// When to decide again even if nothing changes.
    pub wake_at: Option<Timestamp>,
    /// Whether a look at the metrics is due.
    pub sample: bool,
    /// The checks that are due, by the names of their guards.
    pub checks: Vec<String>,
    /// Why.
    pub reasons: Vec<Reason>,
}

/// Decides what is to be done about one Rollout.
pub fn decide(observation: &Observation, now: Timestamp) -> Decision {
    // Times come back from the API server with microseconds: with more, what is written would never be what was
    // meant to be written, and would be written for ever.
    let now = Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now);
    let mut pass = pass::Pass::new(observation, now);
    let rollout = &observation.rollout;
    let finalizers = rollout.metadata.finalizers.clone().unwrap_or_default();
    if rollout.metadata.deletion_timestamp.is_some() {
        teardown::decide(&mut pass, &finalizers);
    } else {
        let marked = mark(&mut pass, &finalizers);
        match pass.running() {
            Some(release) => drive::decide(&mut pass, release),
            None if rest::is_unreadable(&mut pass) => {}
            None if marked => rest::decide(&mut pass),
            // The brake comes before anything that relies on it.
            None => {}
        }
    }
    checks::sweep(&mut pass);
    // A question that no write waits for is not asked.
    while matches!(pass.effects.last(), Some(Effect::Confirm { .. })) {
        pass.effects.pop();
    }
    Decision {
        effects: pass.effects,
        memory: pass.memory,
        wake_at: pass.wake_at,
        sample: pass.sample,
        checks: pass.checks,
        reasons: pass.reasons,
    }
}

/// The finalizer, and the label that engages the brake. False when they are only on their way.
fn mark(pass: &mut pass::Pass<'_>, finalizers: &[String]) -> bool {
    let mut there = true;
    if !finalizers.iter().any(|f| f == FINALIZER) {
        pass.push(Effect::AddFinalizer { rollout: pass.rollout_id(), present: finalizers.to_vec() });
        there = false;
    }
    let name = pass.rollout_id().name;
    if let Some(workload) = pass.workload()
        && pass.obs.rival.is_none()
        && workload.rollout_label.as_deref() != Some(name.as_str())
    {
        if there {
            // The label of a Rollout that is gone would hold the workload for ever.
            pass.confirm(Subject::Rollout, pass.rollout_id(), Expect::Unchanged);
        }
        pass.push(Effect::MarkWorkload {
            workload: workload.id.clone(),
            rollout: name,
            has_labels: workload.has_labels,
        });
        there = false;
    }
    there
}
