//! When no release runs: what is stable, what waits, and whether a release starts.

use super::caught;
use super::effect::{Effect, Expect, Subject};
use super::handover;
use super::observation::{Identity, ReplicaSet, Workload};
use super::pass::{Pass, identity, is_final};
use super::plan;
use super::reason::Reason;
use super::traffic;
use crate::api::release::{CommandStatus, Verb};
use crate::api::rollout::{Revision, RolloutPhase};
use crate::api::{Release, ReleasePhase};

/// Decides for a Rollout without a running release.
pub(super) fn decide(pass: &mut Pass<'_>) {
    pass.return_floors();
    answer_commands(pass);
    if !remove_strays(pass) || !traffic::return_strays(pass) {
        // A new release borrows nothing before what an old one left is given back.
        pass.record_rollout();
        return;
    }
    let Some(workload) = pass.workload() else {
        let spec = &pass.obs.rollout.spec.workload_ref;
        let missing = Reason::WorkloadMissing { workload: format!("{} {}", spec.kind, spec.name) };
        pass.say(RolloutPhase::Waiting, missing);
        pass.record_rollout();
        return;
    };
    if let Some(rival) = &pass.obs.rival {
        pass.say(RolloutPhase::Waiting, Reason::Rival { rollout: rival.clone() });
        pass.record_rollout();
        return;
    }
    learn_promotion(pass, workload);
    match pass.status.stable.clone() {
        None => first_revision(pass, workload),
        Some(stable) if stable.revision == workload.revision => at_rest(pass, workload, &stable),
        Some(stable) => changed(pass, workload, &stable),
    }
    pass.record_rollout();
    prune(pass);
}

/// Whether a release runs that this version cannot read. Then everything stays as it is: another version drives it,
/// and a second release beside it, or taking its canary for a stray, would break the promises of the first.
pub(super) fn is_unreadable(pass: &mut Pass<'_>) -> bool {
    let Some(unread) = pass.obs.unread.iter().find(|unread| !unread.ended) else { return false };
    let reason = Reason::Unreadable { release: unread.name.clone(), detail: unread.detail.clone() };
    let told = pass.obs.rollout.status.as_ref().and_then(|s| s.message.as_ref()) == Some(&reason.to_string());
    pass.say(RolloutPhase::Held, reason.clone());
    pass.record_rollout();
    if !told {
        pass.announce(None, "Held", true, "Unreadable", reason);
    }
    true
}

/// A release that ended as promoted says what is stable, even if the Rollout's status was not written.
fn learn_promotion(pass: &mut Pass<'_>, workload: &Workload) {
    let last = pass
        .obs
        .releases
        .iter()
        .filter(|r| is_final(r))
        .max_by_key(|r| r.status.as_ref().and_then(|s| s.finished_at.as_ref()).map(|t| t.0));
    let Some(last) = last else { return };
    let promoted = last.status.as_ref().is_some_and(|s| s.phase == ReleasePhase::Promoted);
    if promoted && last.spec.to.revision == workload.revision && last.spec.workload.uid == workload.id.uid {
        pass.set_stable(last.spec.to.clone());
    }
}

/// The workload's own ReplicaSet of its present template.
pub(super) fn present_revision(pass: &Pass<'_>, workload: &Workload) -> Revision {
    let own = pass.obs.replica_sets.iter().filter(|rs| {
        rs.revision == workload.revision && rs.owner.as_ref().is_some_and(|o| o.uid == workload.id.uid)
    });
    let replica_set = own.max_by_key(|rs| rs.replicas).map(|rs| rs.id.name.clone()).unwrap_or_default();
    Revision { revision: workload.revision.clone(), replica_set, images: workload.images() }
}

fn first_revision(pass: &mut Pass<'_>, workload: &Workload) {
    if workload.complete() && !workload.paused {
        pass.set_stable(present_revision(pass, workload));
        pass.say(RolloutPhase::Stable, Reason::Stable);
    } else {
        pass.say(RolloutPhase::Waiting, Reason::FirstRevision);
    }
}

fn at_rest(pass: &mut Pass<'_>, workload: &Workload, stable: &Revision) {
    // A person may pause a workload at rest; only what the brake paused is let go.
    let was_held = pass.obs.rollout.status.as_ref().and_then(|s| s.phase).is_some_and(|phase| {
        matches!(phase, RolloutPhase::Held | RolloutPhase::Rejected | RolloutPhase::Releasing)
    });
    if workload.release_label.is_some() || ((was_held || workload.braked) && workload.paused) {
        // What is stable is known from the Rollout; an old one would let a change out.
        pass.confirm(Subject::Rollout, pass.rollout_id(), Expect::Unchanged);
        pass.free(workload);
    }
    let present = present_revision(pass, workload);
    if !present.replica_set.is_empty() && present != *stable {
        pass.set_stable(present);
    }
    // What went past the brake stays told until the next change.
    let out_already = Reason::OutAlready { revision: workload.revision.clone() };
    let told = pass.status.message.as_deref() == Some(out_already.to_string().as_str());
    pass.say(RolloutPhase::Stable, if told { out_already } else { Reason::Stable });
}

fn changed(pass: &mut Pass<'_>, workload: &Workload, stable: &Revision) {
    // Made again under the same name, or its history is gone: there is nothing to go back to.
    if !workload.paused && !caught::has(pass, workload, &stable.revision) {
        first_revision(pass, workload);
        return;
    }
    let out = caught::out(pass, workload, &workload.revision);
    let complete = !workload.paused && workload.complete();
    if let Some(veto) = pass.veto_of(&workload.revision).cloned()
        && (!complete || caught::can_undo(pass, workload, stable))
    {
        caught::vetoed(pass, workload, stable, &veto);
        return;
    }
    let handed_over = out.is_some_and(|rs| caught::handed_over(pass, rs, workload));
    if complete {
        caught::learn(pass, present_revision(pass, workload), handed_over);
        return;
    }
    if !workload.paused && !handed_over {
        caught::stop(pass, workload);
        return;
    }
    if let Some(rs) = out {
        is_out(pass, workload, stable, rs, handed_over);
        return;
    }
    if pass.obs.rollout.spec.paused {
        pass.hold(workload);
        pass.say(RolloutPhase::Held, Reason::RolloutPaused);
        return;
    }
    if caught::unsettled(workload) {
        caught::wait(pass, workload);
        return;
    }
    start(pass, workload, stable);
}

/// Says that the workload's own controller does what Belay does not hold.
fn unguarded(pass: &mut Pass<'_>, detail: &str) {
    let reason = Reason::WentPastBrake { detail: detail.to_owned() };
    let told = pass.obs.rollout.status.as_ref().and_then(|s| s.phase) == Some(RolloutPhase::Unguarded);
    pass.say(RolloutPhase::Unguarded, reason.clone());
    if !told {
        pass.record_rollout();
        pass.announce(None, "BrakeMissing", true, "Unguarded", reason);
    }
}

/// The workload's own controller has pods of the change already.
fn is_out(pass: &mut Pass<'_>, workload: &Workload, stable: &Revision, rs: &ReplicaSet, handed_over: bool) {
    let held = workload.release_label.is_some();
    let ours = workload.release_label.as_deref() == Some(workload.revision.as_str());
    if handed_over && ours {
        // Belay handed it over, and its Release is gone since: it passed all its steps.
        pass.confirm(Subject::ReplicaSet, rs.id.clone(), Expect::Unchanged);
        pass.free(workload);
        return;
    }
    if handed_over && !workload.paused {
        unguarded(pass, "its Release was deleted while its pods took over");
        return;
    }
    if handover::serves_alone(pass, rs, workload) && (workload.complete() || !ours) {
        // There are no others: it is what serves. So after a workload was scaled up from zero in a release.
        pass.confirm(Subject::ReplicaSet, rs.id.clone(), Expect::Unchanged);
        let present = present_revision(pass, workload);
        pass.set_stable(present.clone());
        at_rest(pass, workload, &present);
        return;
    }
    if ours || workload.braked {
        let attempt = next_attempt(pass, workload);
        caught::start(pass, workload, stable, rs, attempt);
        return;
    }
    if held {
        // A person goes on or back; Belay's label would keep them from unpausing.
        pass.push(Effect::UnmarkWorkload {
            workload: workload.id.clone(),
            generation: workload.generation,
            marked: false,
            held,
            braked: workload.braked,
            unpause: false,
        });
    }
    unguarded(pass, "it was paused on its way; go on with kubectl rollout resume, or change it back");
}

/// The how-many-eth attempt with the present revision comes next.
fn next_attempt(pass: &Pass<'_>, workload: &Workload) -> i32 {
    let attempts = pass.obs.releases.iter().filter(|r| r.spec.to.revision == workload.revision);
    let next = attempts.map(|r| r.spec.attempt).max().unwrap_or(0).saturating_add(1);
    // One that cannot be read has its name all the same.
    let taken = |attempt: i32| {
        let name = plan::release_name(&pass.rollout_id().name, &workload.revision, attempt);
        pass.obs.unread.iter().any(|unread| unread.name == name)
    };
    (next..i32::MAX).find(|attempt| !taken(*attempt)).unwrap_or(i32::MAX)
}

fn start(pass: &mut Pass<'_>, workload: &Workload, stable: &Revision) {
    let attempt = next_attempt(pass, workload);
    match plan::release(pass.obs, workload, stable, attempt, None) {
        Err(reason) => {
            pass.hold(workload);
            pass.say(RolloutPhase::Held, reason);
        }
        Ok(release) => {
            let reason =
                Reason::ReleaseStarted { from: stable.revision.clone(), to: workload.revision.clone() };
            pass.status.release.clone_from(&release.metadata.name);
            pass.say(RolloutPhase::Releasing, reason);
            // The Rollout first, for it holds the vetoes, then the workload, for it has the template: each write is
            // refused if what was seen of it is out of date, and a Release is made of what is so now. What is not
            // written is asked: an old view of the Rollout may say the very same without the veto.
            pass.record_rollout();
            pass.confirm_rollout();
            let before = pass.effects.len();
            pass.hold(workload);
            if pass.effects.len() == before {
                pass.confirm_workload(workload);
            }
            traffic::confirm_named(pass);
            pass.push(Effect::CreateRelease(Box::new(release)));
        }
    }
}

/// Commands to a finished release are refused; `retry` lifts the veto of a rejected one.
fn answer_commands(pass: &mut Pass<'_>) {
    for release in &pass.obs.releases {
        let Some(status) = release.status.as_ref().filter(|s| s.phase.is_final()) else { continue };
        if status.commands.len() >= release.spec.commands.len() {
            continue;
        }
        let mut status = status.clone();
        let name = release.metadata.name.as_deref().unwrap_or_default();
        for command in &release.spec.commands[status.commands.len()..] {
            let refusal = match command.verb {
                Verb::Retry => retry(pass, release, name),
                _ => Some(format!("{name} has ended; commands go to the running release")),
            };
            status.commands.push(CommandStatus {
                received_at: pass.at(),
                accepted: refusal.is_none(),
                message: refusal,
            });
        }
        // The veto first: without it the answer would promise what did not happen.
        pass.record_rollout();
        pass.push(Effect::RecordRelease { release: identity(&release.metadata), status: Box::new(status) });
    }
}

fn retry(pass: &mut Pass<'_>, release: &Release, name: &str) -> Option<String> {
    let revision = &release.spec.to.revision;
    let present = pass.workload().map(|w| w.revision.as_str());
    if present != Some(revision.as_str()) {
        return Some(format!(
            "the workload does not have revision {revision} any more; change it again instead"
        ));
    }
    if release.status.as_ref().is_none_or(|s| s.phase != ReleasePhase::RolledBack) {
        return Some(format!("{name} was not rolled back; there is nothing to retry"));
    }
    pass.status.vetoed.retain(|v| v.revision != *revision);
    None
}

/// A canary without a running release: its Release was deleted. It is stopped, and its revision vetoed. False as long
/// as something is borrowed for it and it may still have traffic.
fn remove_strays(pass: &mut Pass<'_>) -> bool {
    const WHY: &str = "ReleaseDeleted: the Release was deleted while it ran";
    let strays: Vec<_> = pass.obs.replica_sets.iter().filter(|rs| pass.is_ours(rs)).collect();
    let lent = !strays.is_empty() && traffic::has_strays(pass.obs);
    let mut unknown = Vec::new();
    for rs in &strays {
        let release = rs.release.clone().unwrap_or_default();
        let known = pass.obs.releases.iter().any(|r| r.metadata.name.as_deref() == Some(&release));
        if !known {
            // A Release that the view lacks may only be late; its canary must not pay for that.
            let id =
                Identity { namespace: rs.id.namespace.clone(), name: release.clone(), ..Identity::default() };
            pass.confirm(Subject::Release, id, Expect::Gone);
            unknown.push((rs.revision.clone(), release));
        }
    }
    if !strays.is_empty() {
        traffic::confirm_named(pass);
    }
    if lent {
        // The weight first, then the veto; when it was written is when the way back began.
        let vetoes = strays.iter().filter_map(|rs| pass.veto_of(&rs.revision));
        let began = vetoes.map(|veto| veto.at.0).max();
        let mut stopped = traffic::stop_strays(pass, &strays, began, WHY);
        for (revision, release) in &unknown {
            stopped &= pass.veto_of(revision).is_some();
            pass.veto(revision, release, "ReleaseDeleted");
        }
        if !stopped {
            return false;
        }
    }
    let mut empty = true;
    for rs in strays {
        if rs.stopped.is_none() {
            pass.push(Effect::StopCanary {
                replica_set: rs.id.clone(),
                reason: WHY.to_owned(),
                has_annotations: rs.has_annotations,
                owner_uid: pass.owner_uid(),
            });
        }
        if let Some((revision, release)) = unknown.iter().find(|(revision, _)| *revision == rs.revision) {
            pass.veto(revision, release, "ReleaseDeleted");
        }
        pass.record_rollout();
        empty &= traffic::is_empty(pass, rs);
        // As long as something is borrowed its pods must be seen.
        if !rs.deleting && !lent {
            pass.push(Effect::DeleteReplicaSet { replica_set: rs.id.clone() });
        }
    }
    empty || !lent
}

/// Finished releases beyond the limit go, oldest first. One that holds a veto stays: it explains it.
fn prune(pass: &mut Pass<'_>) {
    let limit = plan::history_limit(&pass.obs.rollout.spec);
    let mut finished: Vec<&Release> = pass.obs.releases.iter().filter(|r| is_final(r)).collect();
    finished.sort_by_key(|r| r.status.as_ref().and_then(|s| s.finished_at.as_ref()).map(|t| t.0));
    let surplus = finished.len().saturating_sub(limit);
    for release in finished.into_iter().take(surplus) {
        pass.push(Effect::PruneRelease { release: identity(&release.metadata) });
    }
}
