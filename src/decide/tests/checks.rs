//! Releases with checks.

use serde_json::{Value, json};

use super::world::World;
use super::{plain, with};
use crate::api::ReleasePhase;

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
