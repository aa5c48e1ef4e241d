//! Releases with checks.

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::super::{Identity, Job, JobEnd};
use super::world::{World, whole_second};
use super::{plain, with};
use crate::api::release::Verb;
use crate::api::{GUARD_LABEL, RUN_ANNOTATION, ReleasePhase};

/// Three steps of ten seconds with a check every five seconds, and two runs that must pass in each.
fn checked(more: &Value) -> Value {
    let mut web = json!({"url": "http://web/check", "interval": "5s", "successes": 2});
    json_patch::merge(&mut web, more);
    with(plain(), "analysis", json!({"guards": [{"name": "smoke", "web": web}]}))
}

#[test]
fn a_release_needs_its_checks_to_pass_in_every_step() {
    let mut world = World::stable(5, checked(&json!({})));
    world.set_image("v2");
    world.until(|w| w.release_phase() == ReleasePhase::Promoted);
    let state = world.release_status().analysis.unwrap();
    let checks = state.guards[0].checks.clone().unwrap();
    assert!(checks.passed >= 6 && checks.failed == 0, "{checks:?}");
    assert_eq!(state.looks, 0, "no pods are measured");
}

#[test]
fn a_check_that_fails_too_often_rolls_back_and_says_why() {
    let mut world = World::stable(5, checked(&json!({"failureLimit": 1})));
    world.set_image("v2");
    world.until(|w| w.reached(1));
    world.answer = Ok(false);
    world.until(|w| w.release_phase() == ReleasePhase::RolledBack);
    let status = world.release_status();
    assert_eq!(status.reason.as_deref(), Some("GuardFailed"));
    let message = status.message.unwrap();
    assert!(message.contains("smoke") && message.contains("failed 2 (1 may)"), "{message}");
}

#[test]
fn a_check_without_an_answer_holds_and_its_step_has_no_time() {
    let mut world = World::stable(5, checked(&json!({})));
    world.answer = Err("connection refused".to_owned());
    world.set_image("v2");
    world.advance(600);
    let status = world.release_status();
    assert_eq!((status.phase, status.step.index), (ReleasePhase::Progressing, 0));
    let message = status.message.unwrap();
    assert!(message.contains("check smoke: connection refused"), "{message}");
    world.answer = Ok(true);
    world.until(|w| w.release_phase() == ReleasePhase::Promoted);
}

/// A restart takes what is in memory with it, but no failure.
#[test]
fn a_failed_run_is_written_at_once() {
    let mut world = World::stable(5, checked(&json!({"failureLimit": 5})));
    world.set_image("v2");
    world.until(|w| w.reached(0));
    world.answer = Ok(false);
    let failed = |w: &World| {
        let analysis = w.release_status().analysis;
        analysis.and_then(|state| state.guards[0].checks.clone()).map_or(0, |checks| checks.failed)
    };
    world.until(|w| failed(w) == 1);
    world.memory = None;
    world.answer = Ok(true);
    world.until(|w| w.release_phase() == ReleasePhase::Promoted);
    assert_eq!(failed(&world), 1);
}

// What the Job controller does.
impl World {
    /// Makes a Job as the API server would: one of a name that is there already is refused.
    pub(super) fn run_job(&mut self, object: &Value) {
        let text = |at: &str| object.pointer(at).and_then(Value::as_str).unwrap().to_owned();
        let metadata = &object["metadata"];
        let name = text("/metadata/name");
        if self.jobs.iter().any(|job| job.id.name == name) {
            return;
        }
        assert_eq!(metadata["ownerReferences"][0]["kind"], "Release");
        self.jobs.push(Job {
            id: Identity { uid: format!("uid of {name}"), name, ..Identity::default() },
            owner_uid: text("/metadata/ownerReferences/0/uid"),
            release: text("/metadata/ownerReferences/0/name"),
            guard: metadata["labels"][GUARD_LABEL].as_str().unwrap().to_owned(),
            run: metadata["annotations"][RUN_ANNOTATION].as_str().unwrap().parse().unwrap(),
            created_at: Some(whole_second(self.now)),
            deleting: false,
            ended: None,
        });
    }

    /// The Jobs: one ends after some seconds, and stays as it ended.
    pub(super) fn end_jobs(&mut self) {
        let (now, end) = (self.time(), self.job_end.clone());
        for job in self.jobs.iter_mut().filter(|job| job.ended.is_none()) {
            if job.created_at.unwrap() + SignedDuration::from_secs(4) <= now {
                job.ended = Some(JobEnd { passed: end.clone(), seen: format!("Job {} ended", job.id.name) });
            }
        }
    }
}

fn gated(more: &Value) -> Value {
    let mut job = json!({"template": {"containers": [{"name": "test", "image": "test:1"}]}});
    json_patch::merge(&mut job, more);
    with(plain(), "analysis", json!({"guards": [{"name": "gate", "job": job}]}))
}

/// The Jobs that were made, by the ends of their names.
fn made(world: &World) -> Vec<&str> {
    world.jobs.iter().map(|job| job.id.name.split_once("-gate-").unwrap().1).collect()
}

#[test]
fn a_gate_runs_once_in_each_step() {
    let mut world = World::stable(5, gated(&json!({})));
    world.set_image("v2");
    world.until(|w| w.release_phase() == ReleasePhase::Promoted);
    assert_eq!(made(&world), ["1-1", "2-2", "3-3"]);
    let checks = world.release_status().analysis.unwrap().guards[0].checks.clone().unwrap();
    assert_eq!((checks.passed, checks.failed, checks.ended), (3, 0, 3));
}

#[test]
fn a_gate_that_fails_runs_again_as_long_as_it_may() {
    let mut world = World::stable(5, gated(&json!({"failureLimit": 1})));
    world.job_end = Ok(false);
    world.set_image("v2");
    world.until(|w| w.release_phase() == ReleasePhase::RolledBack);
    assert_eq!(made(&world), ["1-1", "1-2"]);
    assert_eq!(world.release_status().reason.as_deref(), Some("GuardFailed"));
}

#[test]
fn a_job_that_is_late_holds_and_another_one_follows_after_a_while() {
    let mut world = World::stable(5, gated(&json!({})));
    world.job_end = Err("late".to_owned());
    world.set_image("v2");
    world.until(|w| w.jobs.iter().any(|job| job.ended.is_some()));
    let status = world.release_status();
    assert!(status.message.unwrap().contains("check gate: late"));
    world.advance(20);
    assert_eq!(made(&world), ["1-1"], "not at once");
    world.job_end = Ok(true);
    world.until(|w| w.release_phase() == ReleasePhase::Promoted);
    assert_eq!(made(&world), ["1-1", "1-2", "2-3", "3-4"]);
}

#[test]
fn a_repeated_job_goes_on_and_ends_with_its_release() {
    let spec = gated(&json!({"interval": "6s"}));
    let mut world = World::stable(5, spec);
    world.set_image("v2");
    world.until(|w| w.reached(1));
    world.until(|w| w.jobs.iter().any(|job| job.ended.is_none()));
    let before = world.jobs.len();
    assert!(before > 2, "{:?}", made(&world));
    world.command(Verb::Abort);
    world.until(|w| w.release_phase() == ReleasePhase::RolledBack);
    world.advance(1);
    assert!(world.jobs.iter().all(|job| job.ended.is_some()), "{:?}", world.jobs);
    world.advance(600);
    assert!(world.jobs.len() <= before, "no more of them");
}

/// A run counts once, and no number is left out, whatever a restart forgets.
#[test]
fn a_restart_counts_no_run_twice() {
    let mut world = World::stable(5, gated(&json!({"successes": 3})));
    world.set_image("v2");
    while world.releases.is_empty() || world.release_phase() != ReleasePhase::Promoted {
        world.advance(1);
        world.memory = None;
        assert!(world.now < 3_600_000, "{:?}", world.release_status());
    }
    let checks = world.release_status().analysis.unwrap().guards[0].checks.clone().unwrap();
    assert_eq!((checks.passed, checks.ended), (9, 9));
    assert_eq!(world.jobs.len(), 9);
}
