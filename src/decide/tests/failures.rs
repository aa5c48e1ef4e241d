//! Failures of the change: what catches them, and what is left behind.

use serde_json::json;

use super::contract::assert_promoted;
use super::world::{Fate, World, of};
use super::{guarded, plain, with};
use crate::api::release::Verb;
use crate::api::{ReleasePhase, RolloutPhase};

/// The latest release was rolled back to `v1`: stable serves untouched, the canary is gone, the veto stands.
pub(super) fn assert_rejected(world: &mut World, reason: &str, stable: &[String]) {
    let status = world.release_status();
    assert_eq!(status.phase, ReleasePhase::RolledBack, "{status:?}");
    assert_eq!(status.reason.as_deref(), Some(reason));
    assert!(status.finished_at.is_some());
    assert_eq!(world.phase(), RolloutPhase::Rejected);
    let veto = world.status().vetoed.pop().unwrap();
    assert_eq!((veto.revision, veto.reason.as_str()), (world.workload().revision.clone(), reason));
    assert_eq!(world.pods_of("v1"), stable, "stable pods are not touched");
    assert_eq!(world.pods.len(), stable.len());
    assert!(world.canary().is_none());
    // GitOps stays in sync: the rejected template stays, paused.
    assert!(world.workload().paused);
    world.assert_quiet();
    world.advance(10_000);
    assert_eq!(world.release_phase(), ReleasePhase::RolledBack);
    assert_eq!(world.pods_of("v1"), stable);
}

#[test]
fn a_crash_is_caught_in_every_step_and_while_promoting() {
    for (fate, reason) in [
        (Fate::Crash(0), "CanaryCrashed"),
        (Fate::OutOfMemory(0), "CanaryCrashed"),
        (Fate::LosesReadiness(0), "CanaryCrashed"),
    ] {
        for step in 0..=3 {
            let mut world = World::stable(8, plain());
            let stable = world.pods_of("v1");
            world.set_image("v2");
            if step < 3 {
                world.until(|w| w.reached(step));
                world.advance(3);
            } else {
                world.until(|w| w.reached(0));
                world.advance(3);
                world.command_with(Verb::Promote, None, true);
                world.settle();
                assert_eq!(world.release_phase(), ReleasePhase::Promoting);
            }
            world.fates.insert("v2".into(), fate);
            world.advance(1);
            assert_eq!(world.canary_size(), 0, "{fate:?} in step {step}: weight is 0 within the second");
            assert_rejected(&mut world, reason, &stable);
        }
    }
}

#[test]
fn a_canary_that_is_never_ready_is_caught_at_the_deadline() {
    let mut world = World::stable(4, with(plain(), "progressDeadline", json!("90s")));
    let stable = world.pods_of("v1");
    world.fates.insert("v2".into(), Fate::NeverReady);
    world.set_image("v2");
    world.advance(88);
    assert_eq!(world.release_phase(), ReleasePhase::Progressing);
    world.advance(3);
    assert_rejected(&mut world, "ProgressDeadlineExceeded", &stable);
}

#[test]
fn what_no_node_takes_holds_until_the_deadline() {
    let mut world = World::stable(4, plain());
    let stable = world.pods_of("v1");
    world.fates.insert("v2".into(), Fate::Unschedulable);
    world.set_image("v2");
    world.advance(300);
    assert_eq!(world.release_status().reason.as_deref(), Some("Unschedulable"));
    assert_eq!(world.release_phase(), ReleasePhase::Progressing);
    world.advance(310);
    assert_rejected(&mut world, "ProgressDeadlineExceeded", &stable);
}

#[test]
fn what_no_node_took_goes_on_when_one_takes_it() {
    let mut world = World::stable(4, plain());
    world.fates.insert("v2".into(), Fate::Unschedulable);
    world.set_image("v2");
    world.advance(300);
    world.fates.clear();
    world.advance(100);
    assert_promoted(&mut world, "v2");
}

#[test]
fn a_guard_that_fails_rolls_back_with_its_numbers() {
    let mut world = World::stable(5, guarded());
    let stable = world.pods_of("v1");
    world.bad_share.insert("v2".into(), 0.05);
    world.set_image("v2");
    world.until(|w| w.reached(0));
    world.advance(120);
    assert!(world.release_status().message.unwrap().starts_with("guard errors: canary "));
    assert_rejected(&mut world, "GuardFailed", &stable);
}

#[test]
fn a_guard_that_fails_late_rolls_back_too() {
    let mut world = World::stable(5, guarded());
    let stable = world.pods_of("v1");
    world.set_image("v2");
    world.until(|w| w.reached(1));
    world.bad_share.insert("v2".into(), 0.05);
    world.advance(200);
    assert_rejected(&mut world, "GuardFailed", &stable);
}

#[test]
fn a_rejected_revision_is_released_again_only_by_retry() {
    let mut world = World::stable(4, plain());
    let stable = world.pods_of("v1");
    world.fates.insert("v2".into(), Fate::Crash(1));
    world.set_image("v2");
    world.advance(60);
    assert_rejected(&mut world, "CanaryCrashed", &stable);
    // The same again, from GitOps, changes nothing; nor does a restart of Belay.
    world.set_image("v2");
    world.restart();
    world.advance(60);
    assert_eq!(world.releases.len(), 1);
    world.fates.clear();
    world.command(Verb::Retry);
    world.advance(100);
    assert_eq!(world.releases.len(), 2);
    assert_eq!(world.release().spec.attempt, 2);
    assert!(world.release().metadata.name.as_deref().unwrap().ends_with("-2"));
    assert_eq!(world.status().vetoed, []);
    assert_promoted(&mut world, "v2");
}

#[test]
fn a_retry_that_fails_is_vetoed_again() {
    let mut world = World::stable(4, plain());
    let stable = world.pods_of("v1");
    world.fates.insert("v2".into(), Fate::Crash(1));
    world.set_image("v2");
    world.advance(60);
    world.command(Verb::Retry);
    world.advance(60);
    assert_eq!(world.releases.len(), 2);
    assert_rejected(&mut world, "CanaryCrashed", &stable);
}

#[test]
fn another_change_after_a_rejected_one_is_released() {
    let mut world = World::stable(4, plain());
    world.fates.insert("v2".into(), Fate::Crash(1));
    world.set_image("v2");
    world.advance(60);
    world.set_image("v3");
    world.advance(100);
    assert_promoted(&mut world, "v3");
    // And the rejected one is still rejected.
    world.set_image("v2");
    world.advance(100);
    assert_eq!(world.phase(), RolloutPhase::Rejected);
    assert_eq!(world.releases.len(), 2);
    world.assert_quiet();
}

#[test]
fn going_back_to_stable_after_a_rejected_change_ends_the_pause_without_steps() {
    let mut world = World::stable(4, plain());
    let stable = world.pods_of("v1");
    world.fates.insert("v2".into(), Fate::Crash(1));
    world.set_image("v2");
    world.advance(60);
    world.set_image("v1");
    world.advance(1);
    assert_eq!(world.phase(), RolloutPhase::Stable);
    assert!(!world.workload().paused && world.workload().release_label.is_none());
    assert_eq!(world.pods_of("v1"), stable);
    assert_eq!(world.releases.len(), 1);
    world.assert_quiet();
}

#[test]
fn restore_template_writes_the_stable_template_back() {
    let mut world = World::stable(4, with(plain(), "rollback", json!({"restoreTemplate": true})));
    let stable = world.pods_of("v1");
    world.fates.insert("v2".into(), Fate::Crash(1));
    world.set_image("v2");
    world.advance(60);
    assert_eq!(world.release_phase(), ReleasePhase::RolledBack);
    assert_eq!(world.workload().revision, of("v1"));
    assert!(!world.workload().paused && world.workload().release_label.is_none());
    assert_eq!(world.pods_of("v1"), stable);
    assert_eq!(world.phase(), RolloutPhase::Stable);
    assert_eq!(world.status().vetoed[0].revision, of("v2"));
    world.assert_quiet();
    world.set_image("v2");
    world.advance(60);
    assert_eq!(world.phase(), RolloutPhase::Rejected);
    world.assert_quiet();
}

#[test]
fn without_automatic_rollback_a_failed_change_is_held_until_somebody_decides() {
    for verb in [Verb::Abort, Verb::Promote] {
        let mut world = World::stable(4, with(plain(), "rollback", json!({"automatic": false})));
        let stable = world.pods_of("v1");
        world.set_image("v2");
        world.until(|w| w.reached(1));
        world.fates.insert("v2".into(), Fate::Crash(1));
        world.advance(1_000);
        let status = world.release_status();
        assert_eq!((status.phase, status.step.index), (ReleasePhase::Paused, 1));
        assert_eq!(status.reason.as_deref(), Some("RollbackWanted"));
        world.assert_quiet();
        world.command(verb);
        world.advance(5);
        if verb == Verb::Abort {
            assert_rejected(&mut world, "Aborted", &stable);
        } else {
            assert_eq!(world.step(), 2, "a person may go on");
        }
    }
}

#[test]
fn readiness_that_stable_lost_too_is_not_the_changes_fault() {
    let mut world = World::stable(4, plain());
    world.set_image("v2");
    world.until(|w| w.reached(0));
    world.advance(3);
    // A database that both need goes away for a while.
    world.fates.insert("v1".into(), Fate::LosesReadiness(0));
    world.advance(5);
    world.fates.insert("v2".into(), Fate::LosesReadiness(0));
    world.advance(30);
    assert_eq!(world.release_phase(), ReleasePhase::Progressing);
    assert_eq!(world.step(), 0, "and nothing advances meanwhile");
    world.fates.clear();
    world.advance(100);
    assert_promoted(&mut world, "v2");
}
