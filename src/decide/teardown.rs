//! The Rollout is being deleted: the release ends, what was borrowed goes back, the brake comes off.

use super::drive;
use super::effect::Effect;
use super::pass::Pass;
use super::reason::Reason;
use super::traffic;
use crate::api::FINALIZER;

/// What a stray canary is stopped for.
const WHY: &str = "RolloutDeleted: the Rollout was deleted while its release ran";

/// Decides for a Rollout that is being deleted.
pub(super) fn decide(pass: &mut Pass<'_>, finalizers: &[String]) {
    if !finalizers.iter().any(|f| f == FINALIZER) {
        return;
    }
    if let Some(release) = pass.running() {
        drive::decide(pass, release);
        return;
    }
    pass.return_floors();
    let strays: Vec<_> = pass.obs.replica_sets.iter().filter(|rs| pass.is_ours(rs)).collect();
    // What an old view does not show as borrowed would stay so for ever.
    traffic::confirm_named(pass);
    let lent = !strays.is_empty() && traffic::has_strays(pass.obs);
    if lent {
        let since = pass.obs.rollout.metadata.deletion_timestamp.as_ref().map(|at| at.0);
        if !traffic::stop_strays(pass, &strays, since, WHY) {
            return;
        }
    }
    for rs in &strays {
        if lent && (rs.replicas != 0 || rs.stopped.is_none()) && !rs.deleting {
            // It stays until what was borrowed for it is back: its pods must be seen.
            pass.push(Effect::StopCanary {
                replica_set: rs.id.clone(),
                reason: WHY.to_owned(),
                has_annotations: rs.has_annotations,
                owner_uid: pass.owner_uid(),
            });
        } else if !rs.deleting && !lent {
            pass.push(Effect::DeleteReplicaSet { replica_set: rs.id.clone() });
        }
    }
    if lent && !strays.iter().all(|rs| traffic::is_empty(pass, rs)) {
        return;
    }
    let returned = traffic::return_strays(pass);
    if !strays.is_empty() || !returned {
        return;
    }
    let name = pass.rollout_id().name;
    let of_another = |label: &str| label != name;
    if let Some(workload) = pass.workload()
        && (workload.rollout_label.is_some() || workload.release_label.is_some())
        && !workload.rollout_label.as_deref().is_some_and(of_another)
    {
        let serves = pass.status.stable.as_ref().is_some_and(|s| s.revision == workload.revision);
        let held = workload.release_label.is_some();
        pass.push(Effect::UnmarkWorkload {
            workload: workload.id.clone(),
            generation: workload.generation,
            marked: workload.rollout_label.is_some(),
            held,
            braked: workload.braked,
            // Only what the brake paused: at rest a person may have paused it.
            unpause: workload.paused && (held || workload.braked) && serves,
        });
        if workload.paused && !serves {
            pass.announce(None, "Superseded", true, "RolloutDeleted", Reason::LeftPaused);
        }
    }
    pass.push(Effect::RemoveFinalizer { rollout: pass.rollout_id(), present: finalizers.to_vec() });
}
