//! A change that went past the brake: paused where it stands, watched there, then let go or undone.
//!
//! Its pods are the workload's own, so nothing is scaled here: the weight is what had come out when it was caught.
//! Paused, the workload keeps both versions at their sizes; unpaused, its own rolling update goes on, forward with
//! the new template or back with the stable one, and keeps to its own `maxUnavailable`.

use jiff::{SignedDuration, Timestamp};

use super::capacity::share;
use super::drive::Run;
use super::effect::Effect;
use super::handover::{self, LOOK_AGAIN};
use super::observation::{Brake, ReplicaSet, Workload};
use super::pass::Pass;
use super::plan::{self, Out};
use super::reason::Reason;
use super::revision::without_hash;
use super::status::Working;
use crate::api::rollout::{Revision, RolloutPhase, Veto};
use crate::api::{Release, ReleasePhase};

/// How long the stable template is not written back again over another writer, the second time; then twice as long
/// each time, up to [`LONGEST_WAIT`].
const FIRST_WAIT: i64 = 10;
/// See [`FIRST_WAIT`].
const LONGEST_WAIT: i64 = 300;

/// Whether the workload controls this ReplicaSet.
fn own(rs: &ReplicaSet, workload: &Workload) -> bool {
    rs.owner.as_ref().is_some_and(|o| o.uid == workload.id.uid)
}

/// Whether the workload has a ReplicaSet of a revision, with pods or without.
pub(super) fn has(pass: &Pass<'_>, workload: &Workload, revision: &str) -> bool {
    pass.obs.replica_sets.iter().any(|rs| own(rs, workload) && rs.revision == revision)
}

/// The workload's own ReplicaSet of a revision, if it wants pods.
pub(super) fn out<'a>(pass: &Pass<'a>, workload: &Workload, revision: &str) -> Option<&'a ReplicaSet> {
    let sets = pass.obs.replica_sets.iter();
    sets.filter(|rs| own(rs, workload) && rs.revision == revision && rs.replicas > 0)
        .max_by_key(|rs| rs.replicas)
}

/// Pods that the workload wants of a ReplicaSet, and of all its own.
fn sizes(pass: &Pass<'_>, workload: &Workload, rs: Option<&ReplicaSet>) -> (i32, i32) {
    let all = pass.obs.replica_sets.iter().filter(|rs| own(rs, workload)).map(|rs| rs.replicas);
    (rs.map_or(0, |rs| rs.replicas), all.fold(0, i32::saturating_add))
}

/// Why the brake did not hold it.
fn why(pass: &Pass<'_>) -> String {
    match &pass.obs.brake {
        Brake::Missing(_, why) => why.clone(),
        Brake::Engaged(_) => {
            "it came before the brake was engaged, or somebody unpaused the workload".to_owned()
        }
    }
}

/// Says what was caught, and where it is held.
pub(super) fn caught(pass: &Pass<'_>, workload: &Workload, rs: Option<&ReplicaSet>) -> Reason {
    let (out, of) = sizes(pass, workload, rs);
    let mut detail = why(pass);
    if pass.obs.rollout.spec.paused {
        detail.push_str("; it waits because the Rollout is paused");
    }
    Reason::Caught { revision: workload.revision.clone(), out, of, detail }
}

/// The share of the workload's pods that is out, in percent.
pub(super) fn weight(pass: &Pass<'_>, workload: &Workload, rs: Option<&ReplicaSet>) -> i32 {
    let (out, of) = sizes(pass, workload, rs);
    share(of - out, out)
}

/// Whether Belay takes a rejected revision back by itself, and finds what to go back to.
pub(super) fn can_undo(pass: &Pass<'_>, workload: &Workload, stable: &Revision) -> bool {
    automatic(pass) && pass.template_of(workload, &stable.revision).is_some()
}

fn automatic(pass: &Pass<'_>) -> bool {
    pass.obs.rollout.spec.rollback.as_ref().is_none_or(|r| r.automatic)
}

/// Whether the rolling update is Belay's own handover, whose Release is gone since: it passed all its steps.
pub(super) fn handed_over(pass: &Pass<'_>, rs: &ReplicaSet, workload: &Workload) -> bool {
    let known = |name: &String| pass.obs.releases.iter().any(|r| r.metadata.name.as_ref() == Some(name));
    let last = pass.obs.rollout.status.as_ref().and_then(|s| s.release.as_ref());
    rs.release.as_ref().is_some_and(|name| !known(name) && last == Some(name))
        && rs.replicas >= workload.replicas
}

/// A change runs that nobody held: it is paused first and recorded then, since each moment lets more pods out. What
/// it is paused for stands in the same write: the label with the revision. Whoever comes after a crash in between
/// finds the label and goes on from there.
pub(super) fn stop(pass: &mut Pass<'_>, workload: &Workload) {
    let rs = out(pass, workload, &workload.revision);
    let reason = caught(pass, workload, rs);
    pass.hold(workload);
    let phase = if pass.obs.rollout.spec.paused { RolloutPhase::Held } else { RolloutPhase::Releasing };
    pass.say(phase, reason.clone());
    pass.record_rollout();
    pass.announce(None, "Caught", true, "Paused", reason);
}

/// Whether the pause may still overtake a pass of the workload's own controller that saw no pause. Until it has
/// answered it is not known whether anything came out.
pub(super) fn unsettled(workload: &Workload) -> bool {
    !workload.braked && marked(workload) && workload.observed_generation < workload.generation
}

/// Says that a change was paused just now.
pub(super) fn wait(pass: &mut Pass<'_>, workload: &Workload) {
    let reason = caught(pass, workload, None);
    pass.say(RolloutPhase::Releasing, reason);
    pass.wake(pass.now + LOOK_AGAIN);
}

/// The change is paused with pods out: a Release of its own watches them.
pub(super) fn start(
    pass: &mut Pass<'_>,
    workload: &Workload,
    stable: &Revision,
    rs: &ReplicaSet,
    attempt: i32,
) {
    let reason = caught(pass, workload, Some(rs));
    if pass.obs.rollout.spec.paused {
        pass.hold(workload);
        pass.say(RolloutPhase::Held, reason);
        return;
    }
    if forgotten(pass, workload, rs) {
        pass.hold(workload);
        let detail = "it went past the brake, and the CustomResourceDefinition of Release is older than this \
                      operator and does not know what that is; run belay install";
        pass.say(RolloutPhase::Held, Reason::InvalidPlan { detail: detail.to_owned() });
        return;
    }
    let out = Out { replica_set: rs.id.name.clone(), share: weight(pass, workload, Some(rs)) };
    match plan::release(pass.obs, workload, stable, attempt, Some(&out)) {
        Err(reason) => {
            pass.hold(workload);
            pass.say(RolloutPhase::Held, reason);
        }
        Ok(release) => {
            // It holds the vetoes: what was rejected is undone, not watched.
            pass.confirm_rollout();
            pass.push(Effect::CreateRelease(Box::new(release.clone())));
            pass.status.release = release.metadata.name;
            pass.say(RolloutPhase::Releasing, reason);
        }
    }
}

/// Whether the API server has dropped from such a Release what it is: it was taken for another one and ended at once,
/// and so would the next.
fn forgotten(pass: &Pass<'_>, workload: &Workload, rs: &ReplicaSet) -> bool {
    pass.obs.releases.iter().any(|r| {
        !r.spec.unbraked
            && r.spec.to.revision == workload.revision
            && r.spec.to.replica_set == rs.id.name
            && r.status.as_ref().and_then(|s| s.reason.as_deref()) == Some("WentPastBrake")
    })
}

/// What a rejected revision means for the workload that has it again.
pub(super) fn vetoed(pass: &mut Pass<'_>, workload: &Workload, stable: &Revision, veto: &Veto) {
    let template = pass.template_of(workload, &stable.revision);
    let came_back = |times: i32| Reason::CameBack {
        revision: veto.revision.clone(),
        release: veto.release.clone(),
        times,
    };
    pass.hold(workload);
    if !workload.paused {
        pass.say(RolloutPhase::Rejected, came_back(veto.returns));
        pass.record_rollout();
        pass.announce(None, "CameBack", true, "Paused", came_back(veto.returns));
        return;
    }
    let Some(rs) = out(pass, workload, &workload.revision) else {
        let reason = if veto.returns > 0 {
            came_back(veto.returns)
        } else {
            let Veto { revision, release, reason, .. } = veto.clone();
            Reason::Vetoed { revision, release, code: reason }
        };
        pass.say(RolloutPhase::Rejected, reason);
        return;
    };
    let cannot =
        |detail: &str| Reason::CannotUndo { revision: veto.revision.clone(), detail: detail.to_owned() };
    if !automatic(pass) {
        let detail = "rollback.automatic is off; put the stable template back with belay undo";
        pass.say(RolloutPhase::Rejected, cannot(detail));
        return;
    }
    let effect = if serves_nothing(pass, workload, rs, stable) {
        // Nothing is lost when its pods go, and paused, the workload's own controller then brings stable back to
        // full size. The template stays, so the other writer has nothing to write again.
        Effect::ScaleCanary {
            replica_set: rs.id.clone(),
            from: rs.replicas,
            to: 0,
            owner_uid: workload.id.uid.clone(),
        }
    } else if let Some(template) = template {
        if let Some(due) = due(veto).filter(|due| *due > pass.now) {
            pass.say(RolloutPhase::Rejected, came_back(veto.returns));
            pass.wake(due);
            return;
        }
        restore(workload, template)
    } else {
        pass.say(RolloutPhase::Rejected, cannot(NO_TEMPLATE));
        return;
    };
    // The hold would change the generation that the undoing relies on; it comes first where it is needed.
    if pass.effects.iter().any(|e| matches!(e, Effect::HoldWorkload { .. })) {
        pass.say(RolloutPhase::Rejected, came_back(veto.returns));
        return;
    }
    let times = veto.returns.saturating_add(1);
    let at = pass.at();
    for kept in pass.status.vetoed.iter_mut().filter(|v| v.revision == veto.revision) {
        (kept.returns, kept.returned_at) = (times, Some(at.clone()));
    }
    pass.say(RolloutPhase::Rejected, came_back(times));
    pass.record_rollout();
    pass.push(effect);
    pass.announce(None, "CameBack", true, "Undone", came_back(times));
}

/// Why what is out cannot be undone.
const NO_TEMPLATE: &str =
    "the stable template is in none of the workload's ReplicaSets any more; write it into the workload again";

/// When the stable template may be written back again.
fn due(veto: &Veto) -> Option<Timestamp> {
    let last = veto.returned_at.as_ref()?.0;
    let doublings = u32::try_from(veto.returns.saturating_sub(1).clamp(0, 16)).unwrap_or(0);
    let wait = FIRST_WAIT.saturating_mul(1_i64 << doublings).min(LONGEST_WAIT);
    Some(last + SignedDuration::from_secs(wait))
}

/// Whether no pod of it is ready, and none but stable ones are there beside it.
fn serves_nothing(pass: &Pass<'_>, workload: &Workload, rs: &ReplicaSet, stable: &Revision) -> bool {
    let ready = pass.obs.pods.iter().any(|p| p.owner_uid == rs.id.uid && p.ready && !p.deleting);
    let mut others = pass
        .obs
        .replica_sets
        .iter()
        .filter(|other| own(other, workload) && other.id.uid != rs.id.uid && other.replicas > 0)
        .peekable();
    !ready && others.peek().is_some() && others.all(|other| other.revision == stable.revision)
}

fn restore(workload: &Workload, template: &serde_json::Value) -> Effect {
    Effect::RestoreTemplate {
        workload: workload.id.clone(),
        generation: workload.generation,
        template: without_hash(template),
        held: workload.release_label.is_some(),
        braked: workload.braked,
        paused: workload.paused,
    }
}

/// Whether a release of a change that went past the brake is over for a reason that no step can change.
pub(super) fn over(
    pass: &Pass<'_>,
    release: &Release,
    working: &Working,
    canary: Option<&ReplicaSet>,
    workload: &Workload,
) -> Option<Reason> {
    if pass.obs.rollout.metadata.deletion_timestamp.is_some() {
        return Some(Reason::RolloutDeleted);
    }
    if workload.revision == release.spec.from.revision {
        return Some(Reason::RevertedByUser);
    }
    let let_go = usize::try_from(working.status.step.index).is_ok_and(|i| i >= release.spec.steps.len());
    if workload.revision != release.spec.to.revision {
        // Let go, and all stable pods are gone: it is what serves, and the next change is another matter.
        let serves = canary.is_some_and(|rs| handover::serves_alone(pass, rs, workload));
        return (!let_go || !serves).then(|| Reason::SupersededBy { revision: workload.revision.clone() });
    }
    let held = workload.paused && !let_go && workload.replicas > 0;
    let seen = workload.observed_generation >= workload.generation;
    (held && seen && canary.is_none_or(|rs| rs.replicas == 0)).then_some(Reason::NothingOut)
}

/// The ReplicaSet that a release of a change that went past the brake watches: the workload's own of that revision.
pub(super) fn canary<'a>(pass: &Pass<'a>, release: &Release) -> Option<&'a ReplicaSet> {
    let uid = &release.spec.workload.uid;
    let sets = pass.obs.replica_sets.iter().filter(|rs| {
        rs.revision == release.spec.to.revision && rs.owner.as_ref().is_some_and(|o| o.uid == *uid)
    });
    sets.max_by_key(|rs| rs.replicas)
}

/// All steps are passed: the workload's own rolling update goes on, and ends the release.
pub(super) fn go_on(run: &mut Run<'_>, pass: &mut Pass<'_>) {
    let workload = run.workload;
    let Some(rs) = run.canary else {
        pass.wake(pass.now + LOOK_AGAIN);
        return;
    };
    if workload.revision != run.release.spec.to.revision {
        handover::promoted(run, pass, rs);
        return;
    }
    if workload.release_label.is_some() {
        // More pods only after it is written that the step was passed.
        run.working.record_if_due(pass, run.release);
        pass.free(workload);
        return;
    }
    if workload.complete() {
        if workload.paused {
            pass.free(workload);
        }
        handover::promoted(run, pass, rs);
        return;
    }
    // Belay took its label off together with the pause: this pause is somebody else's.
    run.working.status.phase = ReleasePhase::Promoting;
    run.hold(pass, if workload.paused { Reason::WorkloadPaused } else { Reason::LetGo });
    pass.wake(pass.now + LOOK_AGAIN);
}

/// Whether the way back of a change that went past the brake has come to its end.
pub(super) fn is_undone(
    pass: &Pass<'_>,
    release: &Release,
    workload: Option<&Workload>,
    rejected: bool,
    first: bool,
) -> bool {
    let Some(w) = workload else { return true };
    let leaving = pass.obs.rollout.metadata.deletion_timestamp.is_some();
    if w.revision == release.spec.from.revision {
        let free = !w.paused && w.release_label.is_none();
        return free && (leaving || w.complete());
    }
    if w.revision != release.spec.to.revision || !rejected {
        return true;
    }
    if !marked(w) {
        // The stable template came back and the label went in one write, and another writer has brought the change
        // again. That is not this release's matter any more.
        return !first;
    }
    pass.template_of(w, &release.spec.from.revision).is_none()
}

/// Stops what is to be undone, before anything is recorded: it may have been let go. The label that comes with the
/// pause goes with the write that undoes it, so that whoever comes later knows whether that was done.
pub(super) fn stop_again(pass: &mut Pass<'_>, release: &Release, workload: &Workload) {
    if workload.revision == release.spec.to.revision && !marked(workload) {
        pass.hold(workload);
    }
}

/// Writes the stable template back.
pub(super) fn undo(pass: &mut Pass<'_>, release: &Release, workload: &Workload) {
    if workload.revision == release.spec.to.revision
        && marked(workload)
        && let Some(template) = pass.template_of(workload, &release.spec.from.revision)
    {
        pass.push(restore(workload, template));
    }
}

/// Whether Belay holds the workload for the revision that it has.
fn marked(workload: &Workload) -> bool {
    workload.release_label.as_deref() == Some(workload.revision.as_str())
}

/// Learns that a change which went past the brake is what serves, and says so.
pub(super) fn learn(pass: &mut Pass<'_>, present: Revision, handed_over: bool) {
    let reason =
        if handed_over { Reason::Stable } else { Reason::OutAlready { revision: present.revision.clone() } };
    pass.set_stable(present);
    pass.say(RolloutPhase::Stable, reason.clone());
    if !handed_over {
        pass.record_rollout();
        pass.announce(None, "OutAlready", true, "Stable", reason);
    }
}
