//! The way back: the canary's weight goes at once, then what was borrowed, then the record.

use super::caught;
use super::commands;
use super::effect::{Effect, Expect, Subject};
use super::handover::LOOK_AGAIN;
use super::observation::{Identity, ReplicaSet, Workload};
use super::pass::{Pass, identity};
use super::reason::Reason;
use super::revision::without_hash;
use super::status::Working;
use super::traffic::{self, Traffic};
use crate::api::rollout::RolloutPhase;
use crate::api::{Release, ReleasePhase};

/// Longest text that is kept on a stopped ReplicaSet.
const MARK: usize = 400;

/// How a release ends that is unwound for a reason with this code.
fn outcome(code: &str) -> ReleasePhase {
    match code {
        "Superseded" | "RevertedByUser" | "WorkloadDeleted" | "WentPastBrake" | "NothingOut" => {
            ReleasePhase::Superseded
        }
        _ => ReleasePhase::RolledBack,
    }
}

/// Begins or goes on with the way back. Level-triggered: whatever of it was done before is not done again.
pub(super) fn unwind(
    pass: &mut Pass<'_>,
    release: &Release,
    mut working: Working,
    canary: Option<&ReplicaSet>,
    workload: Option<&Workload>,
    reason: Reason,
) {
    let ours = canary.filter(|rs| pass.is_ours(rs));
    let first = working.status.phase != ReleasePhase::RollingBack;
    if first {
        confirm(pass, release, workload, &reason);
    }
    let seen = pass.obs.replica_sets.iter().any(|rs| rs.id.name == release.spec.to.replica_set);
    let sought =
        if first { working.status.phase != ReleasePhase::Pending } else { release.spec.traffic.is_some() };
    if !seen && sought && !release.spec.unbraked {
        // One that cannot be seen may have been handed over by now, or have pods that the Service must not select.
        let name = release.spec.to.replica_set.clone();
        let id = Identity { namespace: pass.rollout_id().namespace, name, ..Identity::default() };
        pass.confirm(Subject::ReplicaSet, id, Expect::Gone);
    }
    let end = outcome(reason.code());
    // The weight first, where it is not the pods' own: without traffic they can go.
    let traffic = Traffic::of(pass.obs, release);
    let empty = ours.is_none_or(|rs| traffic::is_empty(pass, rs));
    let mark = mark(&reason);
    let drained = traffic.as_ref().is_none_or(|traffic| traffic.stop(pass, &mut working, &mark, empty));
    if let Some(rs) = ours.filter(|_| drained)
        && (rs.replicas != 0 || rs.stopped.is_none())
        && !rs.deleting
    {
        // First of all, and with no precondition but that it is ours. The mark goes with it, so that no
        // restart between this write and the next raises the weight again.
        pass.push(Effect::StopCanary {
            replica_set: rs.id.clone(),
            reason: mark,
            has_annotations: rs.has_annotations,
            owner_uid: pass.owner_uid(),
        });
    }
    let rejected = end == ReleasePhase::RolledBack && reason.code() != "RolloutDeleted";
    if let Some(workload) = workload.filter(|_| first && rejected && release.spec.unbraked) {
        caught::stop_again(pass, release, workload);
    }
    if first {
        working.enter(ReleasePhase::RollingBack, &reason, pass.at());
        working.status.step.running_since = None;
    }
    let name = release.metadata.name.as_deref().unwrap_or_default();
    if rejected {
        pass.veto(&release.spec.to.revision, name, reason.code());
    }
    commands::answer_at_the_end(pass, release, &mut working.status, rejected);
    let returned = match &traffic {
        Some(traffic) => drained && empty && traffic.give_back(pass, &mut working),
        None => true,
    };
    let gone = if release.spec.unbraked {
        caught::is_undone(pass, release, workload, rejected, first)
    } else {
        ours.is_none() && returned
    };
    if gone {
        working.status.phase = end;
        working.status.finished_at = Some(pass.at());
        // Where a change that went past the brake was not undone, its pods are still there.
        let undone = !release.spec.unbraked || rejected;
        if let Some(weight) = working.status.weight.as_mut().filter(|_| undone) {
            (weight.desired, weight.reachable, weight.reached, weight.canary_pods) = (0, 0, 0, 0);
        }
    }
    if first && !gone {
        working.record(pass, release);
        announce(pass, release, end, &reason);
    }
    // The veto is written before the canary goes: nothing but the record could keep it from coming back.
    say(pass, release, workload, end, &reason, gone);
    if pass.obs.rollout.metadata.deletion_timestamp.is_none() {
        if !first && pass.rollout_differs() {
            // Only after a restart, or by an old view of a Release that ended long ago and was tried again.
            pass.confirm(Subject::Release, identity(&release.metadata), Expect::Unchanged);
        }
        pass.record_rollout();
    }
    pass.return_floors();
    if let Some(rs) = ours.filter(|_| returned)
        && !rs.deleting
    {
        pass.push(Effect::DeleteReplicaSet { replica_set: rs.id.clone() });
    }
    if let Some(workload) = workload {
        settle(pass, release, workload, rejected);
    }
    if !gone && release.spec.unbraked {
        pass.wake(pass.now + LOOK_AGAIN);
    }
    if gone {
        working.record(pass, release);
        if first {
            announce(pass, release, end, &reason);
        }
    } else if traffic.is_some() {
        pass.memory = Some(working.remember(release));
    }
    pass.reasons.push(reason);
}

/// A release that did nothing wrong does not end for what an old view of the workload shows.
fn confirm(pass: &mut Pass<'_>, release: &Release, workload: Option<&Workload>, reason: &Reason) {
    match (reason, workload) {
        (Reason::WorkloadDeleted, _) => {
            let id = Identity {
                namespace: pass.rollout_id().namespace,
                name: release.spec.workload.name.clone(),
                uid: release.spec.workload.uid.clone(),
                ..Identity::default()
            };
            pass.confirm(Subject::Workload, id, Expect::Gone);
        }
        (Reason::SupersededBy { .. } | Reason::RevertedByUser, Some(workload)) => {
            pass.confirm_workload(workload);
        }
        (Reason::WentPastBrake { .. }, Some(workload)) => {
            for rs in past_brake(pass, release, workload) {
                pass.confirm(Subject::ReplicaSet, rs.id.clone(), Expect::Unchanged);
            }
        }
        _ => {}
    }
}

/// ReplicaSets with pods of the new revision that the workload's own controller made.
pub(super) fn past_brake<'a>(pass: &Pass<'a>, release: &Release, workload: &Workload) -> Vec<&'a ReplicaSet> {
    let own = |rs: &&ReplicaSet| {
        rs.revision == workload.revision
            && rs.replicas > 0
            && rs.release != release.metadata.name
            && rs.owner.as_ref().is_some_and(|o| o.uid == workload.id.uid)
    };
    pass.obs.replica_sets.iter().filter(own).collect()
}

fn announce(pass: &mut Pass<'_>, release: &Release, end: ReleasePhase, reason: &Reason) {
    let (kind, warning) =
        if end == ReleasePhase::RolledBack { ("RolledBack", true) } else { ("Superseded", false) };
    pass.announce(Some(release), kind, warning, reason.code(), reason.clone());
}

fn say(
    pass: &mut Pass<'_>,
    release: &Release,
    workload: Option<&Workload>,
    end: ReleasePhase,
    reason: &Reason,
    gone: bool,
) {
    let name = release.metadata.name.clone().unwrap_or_default();
    let reverted = workload.is_some_and(|w| w.revision == release.spec.from.revision);
    if workload.is_none() {
        return;
    }
    if release.spec.unbraked && !gone {
        pass.status.phase = Some(RolloutPhase::Releasing);
        pass.status.message = Some(format!("release {name} is being undone: {reason}"));
        return;
    }
    if reverted {
        pass.say(RolloutPhase::Stable, Reason::Stable);
    } else if end == ReleasePhase::RolledBack
        && workload.is_some_and(|w| w.revision == release.spec.to.revision)
    {
        let code = reason.code().to_owned();
        let revision = release.spec.to.revision.clone();
        pass.say(RolloutPhase::Rejected, Reason::Vetoed { revision, release: name, code });
    }
}

/// The workload afterwards: with the stable template it goes on; with the rejected one it stays held.
fn settle(pass: &mut Pass<'_>, release: &Release, workload: &Workload, rejected: bool) {
    let (held, paused) = (workload.release_label.is_some(), workload.paused);
    if workload.revision == release.spec.from.revision {
        if held || paused {
            pass.free(workload);
        } else if rejected && release.spec.rollback.restore_template {
            // Nobody comes back to this after the last record.
            pass.confirm_workload(workload);
        }
    } else if release.spec.unbraked {
        if rejected {
            caught::undo(pass, release, workload);
        }
    } else if rejected && release.spec.rollback.restore_template {
        if workload.revision != release.spec.to.revision {
            // Nobody comes back to this after the last record.
            pass.confirm_workload(workload);
            return;
        }
        let stable = pass.obs.replica_sets.iter().find(|rs| {
            rs.id.name == release.spec.from.replica_set && rs.revision == release.spec.from.revision
        });
        if let Some(template) = stable.and_then(|rs| rs.template.as_ref()) {
            pass.push(Effect::RestoreTemplate {
                workload: workload.id.clone(),
                generation: workload.generation,
                template: without_hash(template),
                held,
                braked: workload.braked,
                paused,
            });
        }
    }
}

fn mark(reason: &Reason) -> String {
    let text = format!("{}: {reason}", reason.code());
    text.chars().take(MARK).collect()
}

/// What the mark on a stopped ReplicaSet says.
pub(super) fn read_mark(mark: &str) -> Reason {
    let (code, message) = mark.split_once(": ").unwrap_or((mark, mark));
    Reason::Recorded { code: code.to_owned(), message: message.to_owned() }
}
