//! The checks of a running release: their runs are taken in, and those that are due are asked for or run.

use jiff::SignedDuration;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::drive::Run;
use super::effect::Effect;
use super::observation::Job;
use super::pass::Pass;
use crate::analysis::check::{self, JobPlan};
use crate::analysis::{self, CheckRun};
use crate::api::{self, Release};

/// Longest name of a Job: its pods have it as a label.
const LONGEST_NAME: usize = 63;
/// How long a Job that is over is kept, in seconds, unless its Release goes first.
const KEPT_SECONDS: i64 = 3600;
/// After this a Job that should be there and is not is asked for again.
const AGAIN: SignedDuration = SignedDuration::from_secs(10);

impl Run<'_> {
    /// Takes in what ran since the last pass, and holds what is due against the other guards.
    pub(super) fn fold_checks(&mut self, pass: &Pass<'_>) {
        let Some(plan) = self.plan().filter(|plan| plan.guards.iter().any(|guard| !guard.is_measured()))
        else {
            return;
        };
        let mut runs: Vec<CheckRun> = self.jobs(pass).filter_map(|job| run(job, pass)).collect();
        runs.sort_by_key(|run| run.number);
        runs.extend(pass.obs.runs.iter().cloned());
        // Before there is a canary there is nothing to say about it.
        if self.ready(pass) == 0 && runs.is_empty() {
            return;
        }
        let step = self.working.status.step.entered_at.as_ref().map(|at| at.0);
        let state = self.working.status.analysis.get_or_insert_default();
        *state = analysis::fold_checks(state, &plan, &runs, step, pass.now);
    }

    /// Asks for the checks that are due, and wakes for the next one.
    pub(super) fn ask_for_checks(&self, pass: &mut Pass<'_>) {
        let Some(plan) = self.plan() else { return };
        if self.ready(pass) == 0 {
            return;
        }
        let state = self.working.status.analysis.clone().unwrap_or_default();
        let due = check::due(&state, &plan, pass.now);
        pass.checks = due.web.into_iter().map(str::to_owned).collect();
        if let Some(next) = due.next {
            pass.wake(next);
        }
        // A pod that tests the canary wants all of it; and after the last step there is no step to prove.
        if due.jobs.is_empty() || self.passed_all() || self.ready(pass) < self.wanted() || !pass.sees() {
            return;
        }
        for (guard, number) in due.jobs {
            let planned = plan.guards.iter().find(|planned| planned.name == guard);
            let job = planned.and_then(|planned| planned.measured.check()?.runs_job());
            let there = self.jobs(pass).any(|job| job.guard == guard && job.run == number);
            if let Some(job) = job.filter(|_| !there) {
                let made = object(pass, self.release, guard, (self.index() + 1, number), job);
                pass.jobs.push(made);
                pass.wake(pass.now + AGAIN);
            }
        }
    }

    /// The Jobs of this release.
    fn jobs<'p>(&self, pass: &Pass<'p>) -> impl Iterator<Item = &'p Job> {
        let uid = self.release.metadata.uid.clone().unwrap_or_default();
        pass.obs.jobs.iter().filter(move |job| job.owner_uid == uid)
    }
}

/// The run that a Job was, if it is over.
fn run(job: &Job, pass: &Pass<'_>) -> Option<CheckRun> {
    let ended = job.ended.clone()?;
    let at = job.created_at.unwrap_or(pass.now);
    Some(CheckRun {
        guard: job.guard.clone(),
        at,
        passed: ended.passed,
        seen: ended.seen,
        number: Some(job.run),
    })
}

/// Last of all: the Jobs that are due are run, and those that still run for a Release that is over are deleted. A Release
/// that was deleted takes its Jobs with it.
pub(super) fn sweep(pass: &mut Pass<'_>) {
    for object in std::mem::take(&mut pass.jobs) {
        pass.push(Effect::RunJob { object });
    }
    let over = |job: &&Job| {
        let owner =
            pass.obs.releases.iter().find(|r| r.metadata.uid.as_deref() == Some(job.owner_uid.as_str()));
        owner.and_then(|owner| owner.status.as_ref()).is_some_and(|status| status.phase.is_final())
    };
    let left = pass.obs.jobs.iter().filter(|job| job.ended.is_none() && !job.deleting).filter(over);
    let left: Vec<Effect> = left.map(|job| Effect::DeleteJob { job: job.id.clone() }).collect();
    pass.effects.extend(left);
}

/// `RELEASE-GUARD-STEP-RUN`; of a long one the end is a digest.
fn name(release: &str, guard: &str, (step, number): (usize, u32)) -> String {
    let whole = format!("{release}-{guard}-{step}-{number}");
    if whole.len() <= LONGEST_NAME {
        return whole;
    }
    let [a, b, c, d, ..] = Sha256::digest(&whole).0;
    let digest = format!("{:08x}", u32::from_be_bytes([a, b, c, d]));
    format!("{}-{digest}", &whole[..LONGEST_NAME - 9])
}

/// The Job. Its pods have no label of the workload's, so that nobody takes them for its own.
fn object(pass: &Pass<'_>, release: &Release, guard: &str, at: (usize, u32), plan: &JobPlan) -> Value {
    let release_name = release.metadata.name.clone().unwrap_or_default();
    let rollout = &pass.obs.rollout;
    let namespace = rollout.metadata.namespace.clone().unwrap_or_default();
    let labels = json!({api::RELEASE_LABEL: release_name, api::GUARD_LABEL: guard});
    let mut spec = plan.template.clone();
    spec["restartPolicy"] = json!("Never");
    let variables = [
        ("BELAY_REVISION", release.spec.to.revision.as_str()),
        ("BELAY_ROLLOUT", release.spec.rollout.as_str()),
        ("BELAY_RELEASE", release_name.as_str()),
        ("BELAY_NAMESPACE", namespace.as_str()),
    ]
    .map(|(name, value)| json!({"name": name, "value": value}));
    for list in ["containers", "initContainers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            // Its own come after them, so that they may use them.
            let own = container.get("env").and_then(Value::as_array).cloned().unwrap_or_default();
            container["env"] = variables.iter().cloned().chain(own).collect();
        }
    }
    json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name(&release_name, guard, at),
            "namespace": namespace,
            "labels": labels,
            "annotations": {api::RUN_ANNOTATION: at.1.to_string()},
            "ownerReferences": [{
                "apiVersion": format!("{}/{}", api::GROUP, api::VERSION),
                "kind": "Release",
                "name": release_name,
                "uid": release.metadata.uid,
                "controller": true,
                "blockOwnerDeletion": true,
            }],
        },
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": plan.deadline.as_secs().max(1),
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            // A pod that a node took away has not failed: it is made again.
            "podFailurePolicy": {
                "rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}],
            },
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart_and_short_enough_for_a_label() {
        assert_eq!(name("web-7f3", "smoke", (2, 5)), "web-7f3-smoke-2-5");
        let long = |number| name(&"r".repeat(53), &"g".repeat(63), (1, number));
        assert_eq!(long(1).len(), 63);
        assert_ne!(long(1), long(2));
    }
}
