//! Promotion: the tested ReplicaSet changes its controller; no pod restarts.

use jiff::SignedDuration;

use super::drive::Run;
use super::effect::Effect;
use super::observation::{ReplicaSet, Workload};
use super::pass::Pass;
use super::reason::Reason;
use super::traffic::Traffic;
use crate::api::ReleasePhase;
use crate::api::rollout::{Revision, RolloutPhase};

/// How soon to look again while another controller has to act; its watch events usually come first.
pub(super) const LOOK_AGAIN: SignedDuration = SignedDuration::from_secs(5);

/// All steps are passed: when the canary is at full size and available, let it go.
pub(super) fn prepare(run: &mut Run<'_>, pass: &mut Pass<'_>) {
    let (Some(rs), wanted) = (run.canary, run.workload.replicas) else { return };
    let held = run.workload.paused && run.workload.release_label.is_some();
    if !held || rs.deleting || rs.replicas != wanted || run.ready(pass) < wanted || rs.available < wanted {
        return;
    }
    if pass.remove_leftovers(run.workload, run.canary) {
        return;
    }
    if let Some(traffic) = Traffic::of(pass.obs, run.release) {
        if !traffic.hand_over(run, pass) {
            return;
        }
        // With another template it would be adopted as an old one, beside the stable one.
        pass.confirm_workload(run.workload);
    }
    run.working.record_if_due(pass, run.release);
    pass.push(Effect::HandOver {
        replica_set: rs.id.clone(),
        replicas: wanted,
        max: wanted.saturating_add(run.workload.surge),
        has_annotations: rs.has_annotations,
        owner_uid: pass.owner_uid(),
    });
}

/// The canary was let go: wait for its adoption, unpause, and end the release.
pub(super) fn finish(run: &mut Run<'_>, pass: &mut Pass<'_>) {
    let (Some(rs), workload) = (run.canary, run.workload) else { return };
    // Already changed again, and all old pods are gone: it is what serves, and the next change waits, braked.
    if workload.revision != run.release.spec.to.revision {
        if run.release.spec.traffic.is_none() || retire(run, pass, rs) {
            end(run, pass, rs);
        }
        return;
    }
    if !adopted(rs, workload) {
        pass.wake(pass.now + LOOK_AGAIN);
        return;
    }
    if workload.paused || workload.release_label.is_some() {
        let others = others_serve(pass, rs, workload);
        // Saturated, the Deployment controller takes the old pods away by itself, even while paused. If the
        // workload was scaled meanwhile it is not, and its own rolling update does the rest.
        if others && saturated(rs, workload.replicas) {
            pass.wake(pass.now + LOOK_AGAIN);
            return;
        }
        pass.free(workload);
        pass.return_floors();
        return;
    }
    // A Rollout on its way out does not wait for what it cannot change any more.
    if !workload.complete() && pass.obs.rollout.metadata.deletion_timestamp.is_none() {
        pass.return_floors();
        pass.wake(pass.now + LOOK_AGAIN);
        return;
    }
    end(run, pass, rs);
}

/// The workload was changed once more before the handover arrived. To its controller both versions are old ones then,
/// and it shares the pods between them. Those of the version before have no traffic any more: they go, before the
/// Service selects them again. True when they are gone.
fn retire(run: &Run<'_>, pass: &mut Pass<'_>, rs: &ReplicaSet) -> bool {
    let (obs, workload) = (pass.obs, run.workload);
    let mut gone = adopted(rs, workload);
    let old = |other: &&ReplicaSet| {
        other.revision == run.release.spec.from.revision
            && other.id.uid != rs.id.uid
            && adopted(other, workload)
            && (other.replicas > 0 || other.total > 0)
    };
    for other in obs.replica_sets.iter().filter(old).filter(|_| adopted(rs, workload)) {
        gone = false;
        if other.replicas > 0 {
            pass.push(Effect::ScaleCanary {
                replica_set: other.id.clone(),
                from: other.replicas,
                to: 0,
                owner_uid: workload.id.uid.clone(),
            });
        }
    }
    if !gone {
        pass.wake(pass.now + LOOK_AGAIN);
    }
    gone
}

/// What was borrowed goes back first: then nobody has to come back to this release.
fn end(run: &mut Run<'_>, pass: &mut Pass<'_>, rs: &ReplicaSet) {
    if let Some(traffic) = Traffic::of(pass.obs, run.release)
        && !traffic.finish(run, pass)
    {
        run.working.explain(&Reason::Returning);
        pass.return_floors();
        return;
    }
    promoted(run, pass, rs);
}

/// Ends the release: the new revision is stable.
pub(super) fn promoted(run: &mut Run<'_>, pass: &mut Pass<'_>, rs: &ReplicaSet) {
    let workload = run.workload;
    pass.return_floors();
    let reason = Reason::Promoted { revision: run.release.spec.to.revision.clone() };
    run.working.enter(ReleasePhase::Promoted, &reason, pass.at());
    run.working.status.finished_at = Some(pass.at());
    run.working.status.step.running_since = None;
    if let Some(weight) = &mut run.working.status.weight {
        (weight.desired, weight.reachable, weight.reached, weight.stable_pods) = (100, 100, 100, 0);
        weight.canary_pods = workload.replicas;
    }
    // What is stable first: a restart in between finds the release still running, and ends it again.
    pass.set_stable(Revision { replica_set: rs.id.name.clone(), ..run.release.spec.to.clone() });
    if workload.revision == run.release.spec.to.revision {
        pass.say(RolloutPhase::Stable, Reason::Stable);
    }
    pass.record_rollout();
    run.working.record(pass, run.release);
    pass.announce(Some(run.release), "Promoted", false, "Promoted", reason);
}

fn adopted(rs: &ReplicaSet, workload: &Workload) -> bool {
    rs.owner.as_ref().is_some_and(|o| o.uid == workload.id.uid)
}

/// Whether another ReplicaSet of the workload has pods.
fn others_serve(pass: &Pass<'_>, rs: &ReplicaSet, workload: &Workload) -> bool {
    let mut others = pass.obs.replica_sets.iter().filter(|other| other.id.uid != rs.id.uid);
    others.any(|other| other.replicas > 0 && adopted(other, workload))
}

/// Whether the workload has adopted this ReplicaSet and runs no other.
pub(super) fn serves_alone(pass: &Pass<'_>, rs: &ReplicaSet, workload: &Workload) -> bool {
    adopted(rs, workload) && !others_serve(pass, rs, workload)
}

fn saturated(rs: &ReplicaSet, replicas: i32) -> bool {
    rs.replicas == replicas
        && rs.available == replicas
        && rs.desired_annotation.as_deref() == Some(replicas.to_string().as_str())
}
