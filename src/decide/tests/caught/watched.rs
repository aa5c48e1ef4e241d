//! How a caught change is watched, let go, and undone.

use serde_json::json;

use super::super::contract::assert_promoted;
use super::super::world::{Fate, of};
use super::super::{asks_for_the_rollout, guarded, judged, plain, with};
use super::*;
use crate::api::release::Verb;

#[test]
fn a_change_that_slips_is_caught_watched_and_let_go() {
    let mut world = at_first(8, plain());
    assert_eq!(world.phase(), RolloutPhase::Releasing);
    assert_eq!((size_of(&world, "v1"), size_of(&world, "v2")), (8, 2), "held where it was caught");
    let release = world.release().clone();
    assert_eq!(release.spec.steps.len(), 1);
    assert_eq!(release.spec.steps[0].weight, 20);
    let message = world.release_status().timeline[0].message.clone();
    assert!(message.contains("past the brake (the policy was deleted)"), "{message}");
    assert!(message.contains("2 of 10 pods"), "{message}");
    assert!(world.status().message.unwrap().contains("went past the brake"));
    // The first step's least time, with all its pods ready, and no pod more.
    world.advance(2);
    assert!(world.reached(0));
    world.advance(9);
    assert_eq!((size_of(&world, "v1"), size_of(&world, "v2")), (8, 2));
    assert_eq!(least_ready(&mut world, 60), 8);
    assert_eq!(world.timeline(), WAY);
    assert_eq!(world.release_status().weight.unwrap().reached, 100);
    assert_eq!(told(&world), ["Caught", "ReleaseStarted", "LetGo", "Promoted"]);
    assert_out(&mut world, "v2");
    // The next change is caught, too.
    world.set_image("v3");
    assert!(least_ready(&mut world, 60) >= 8);
    assert_out(&mut world, "v3");
}

#[test]
fn it_is_paused_before_anything_is_recorded() {
    let mut world = unbraked(8, plain());
    world.set_image("v2");
    world.controllers();
    world.pass();
    let names: Vec<&str> = world.log.iter().map(Effect::name).collect();
    assert_eq!(names, ["HoldWorkload", "RecordRollout", "Announce"]);
    assert_eq!(world.workload().release_label, Some(of("v2")));
}

#[test]
fn caught_before_a_pod_came_out_it_is_a_release_like_any_other() {
    let mut world = unbraked(8, plain());
    world.set_image("v2");
    world.pass();
    assert!(world.workload().paused);
    world.pass();
    assert_eq!(world.releases, [], "the workload's own controller has not answered yet");
    world.advance(100);
    assert!(!world.release().spec.unbraked);
    assert_promoted(&mut world, "v2");
}

#[test]
fn caught_half_way_both_versions_stay_until_it_is_watched() {
    let mut world = half_way(8, plain(), 3);
    let (old, new) = (size_of(&world, "v1"), size_of(&world, "v2"));
    assert!(old >= 3 && new >= 3 && old + new == 10, "{old} + {new}");
    world.advance(9);
    assert_eq!((size_of(&world, "v1"), size_of(&world, "v2")), (old, new));
    assert_eq!(least_ready(&mut world, 60), 8);
    assert_out(&mut world, "v2");
}

#[test]
fn whatever_its_pods_die_of_it_is_undone() {
    let spec = || with(plain(), "progressDeadline", json!("60s"));
    for (fate, reason) in [
        (Fate::Crash(0), "CanaryCrashed"),
        (Fate::Crash(5), "CanaryCrashed"),
        (Fate::OutOfMemory(5), "CanaryCrashed"),
        (Fate::LosesReadiness(8), "CanaryCrashed"),
        (Fate::NeverReady, "ProgressDeadlineExceeded"),
        (Fate::Unschedulable, "ProgressDeadlineExceeded"),
    ] {
        for unavailable in [0, 2] {
            let mut world = unbraked(8, spec());
            world.unavailable = unavailable;
            world.fates.insert("v2".into(), fate);
            world.set_image("v2");
            let least = least_ready(&mut world, 120);
            assert!(least + usize::try_from(unavailable).unwrap() >= 8, "{fate:?}: {least} ready");
            assert_undone(&mut world, reason);
            assert!(told(&world).contains(&"RolledBack"));
        }
    }
}

#[test]
fn what_fails_after_it_was_let_go_is_undone() {
    for seconds in 0..8 {
        let mut world = let_go(8, plain());
        world.advance(seconds);
        if world.release_phase() != ReleasePhase::Promoting {
            break;
        }
        let out = size_of(&world, "v2");
        world.fates.insert("v2".into(), Fate::Crash(0));
        world.advance(1);
        assert_eq!(world.workload().revision, of("v1"), "{seconds} s: undone within the second");
        assert!(size_of(&world, "v2") < out);
        world.advance(30);
        assert_undone(&mut world, "CanaryCrashed");
    }
}

#[test]
fn the_stable_pods_are_all_gone_and_it_is_still_undone() {
    let mut world = let_go(4, plain());
    world.until(|w| w.pods_of("v1").is_empty() || w.release_phase() == ReleasePhase::Promoted);
    // Complete, and Belay has not seen it: what counts is what it sees.
    let mut late = let_go(4, plain());
    until_ready(&mut late, "v2", 4);
    late.fates.insert("v2".into(), Fate::Crash(0));
    late.controllers();
    assert_eq!(size_of(&late, "v1"), 0);
    late.advance(30);
    assert_undone(&mut late, "CanaryCrashed");
}

#[test]
fn without_the_stable_template_it_is_held_and_told() {
    let mut world = let_go(4, plain());
    until_ready(&mut world, "v2", 4);
    world.fates.insert("v2".into(), Fate::Crash(0));
    world.controllers();
    // revisionHistoryLimit: 0.
    world.sets.retain(|s| s.rs.revision != of("v1"));
    world.advance(30);
    assert_eq!(world.release_phase(), ReleasePhase::RolledBack);
    assert_eq!(world.phase(), RolloutPhase::Rejected);
    assert!(world.workload().paused);
    let message = world.status().message.unwrap();
    assert!(message.contains("the stable template is in none"), "{message}");
    world.assert_quiet();
    world.set_image("v1");
    world.edit(|w| w.paused = false);
    world.advance(30);
    assert_back(&world);
    world.assert_quiet();
}

#[test]
fn a_guard_that_fails_undoes_it() {
    for bad_later in [false, true] {
        let mut world = unbraked(8, guarded());
        if !bad_later {
            world.bad_share.insert("v2".into(), 0.05);
        }
        world.set_image("v2");
        if bad_later {
            world.until(|w| w.release_phase() == ReleasePhase::Promoting);
            world.bad_share.insert("v2".into(), 0.5);
        }
        world.until(|w| w.release_phase().is_final());
        world.advance(30);
        if bad_later && world.release_phase() == ReleasePhase::Promoted {
            continue;
        }
        assert_undone(&mut world, "GuardFailed");
    }
}

#[test]
fn with_guards_it_is_held_until_proof() {
    let mut world = unbraked(8, guarded());
    world.requests.extend([("v1".into(), 0.0), ("v2".into(), 0.0)]);
    world.set_image("v2");
    world.advance(300);
    assert!(world.reached(0));
    assert_eq!(world.release_status().reason.as_deref(), Some("CollectingEvidence"));
    assert_eq!(size_of(&world, "v2"), 2);
    world.requests.clear();
    world.until(|w| w.release_phase() == ReleasePhase::Promoting);
    let passed = &world.release_status().timeline[1].message;
    assert!(passed.contains("all guards prove it safe"), "{passed}");
    world.advance(60);
    assert_out(&mut world, "v2");
}

#[test]
fn without_data_it_is_held_and_undone_only_after_the_bound() {
    let mut world = unbraked(8, guarded());
    world.source_down = Some("connection refused".into());
    world.set_image("v2");
    world.advance(5_000);
    assert_eq!(world.release_status().reason.as_deref(), Some("NoData"));
    assert_eq!((size_of(&world, "v1"), size_of(&world, "v2")), (8, 2));
    let mut world = unbraked(8, judged("onNoData", json!({"after": "5m", "then": "rollback"})));
    world.source_down = Some("connection refused".into());
    world.set_image("v2");
    world.advance(290);
    assert_eq!(world.release_phase(), ReleasePhase::Progressing);
    world.advance(60);
    assert_undone(&mut world, "NoData");
}

#[test]
fn with_automatic_rollback_off_a_failure_is_held_until_a_person_decides() {
    let mut world = unbraked(8, by_hand());
    world.fates.insert("v2".into(), Fate::Crash(5));
    world.set_image("v2");
    world.advance(600);
    assert_eq!(world.release_status().reason.as_deref(), Some("RollbackWanted"));
    assert_eq!(world.release_phase(), ReleasePhase::Paused);
    assert!(world.workload().paused);
    assert_eq!(size_of(&world, "v2"), 2);
    world.assert_quiet();
    let mut promoted = world.clone();
    world.command(Verb::Abort);
    world.advance(30);
    assert_undone(&mut world, "Aborted");
    promoted.fates.clear();
    promoted.command(Verb::Promote);
    promoted.advance(30);
    assert_out(&mut promoted, "v2");
}

#[test]
fn a_failure_after_it_was_let_go_is_paused_again_where_it_stands() {
    let mut world = let_go(8, by_hand());
    world.fates.insert("v2".into(), Fate::LosesReadiness(0));
    world.advance(60);
    assert_eq!(world.release_status().reason.as_deref(), Some("RollbackWanted"));
    assert!(world.workload().paused);
    let sizes = (size_of(&world, "v1"), size_of(&world, "v2"));
    assert!(sizes.0 > 0, "{sizes:?}");
    world.advance(600);
    assert_eq!((size_of(&world, "v1"), size_of(&world, "v2")), sizes);
    let mut aborted = world.clone();
    aborted.command(Verb::Abort);
    aborted.advance(30);
    assert_undone(&mut aborted, "Aborted");
    // A person may let it go all the same; then Belay does not stop it again.
    world.command(Verb::Promote);
    world.settle();
    assert!(world.release_status().commands[0].accepted);
    assert!(!world.workload().paused);
    world.fates.clear();
    world.advance(60);
    assert_out(&mut world, "v2");
}

#[test]
fn a_promote_of_the_step_before_lets_nothing_go_that_failed_after_it() {
    let mut world = let_go(8, by_hand());
    world.fates.insert("v2".into(), Fate::LosesReadiness(0));
    world.advance(60);
    assert_eq!(world.release_status().reason.as_deref(), Some("RollbackWanted"));
    // Given by somebody who looked at it before it was let go.
    world.command_with(Verb::Promote, Some(1), false);
    world.advance(60);
    assert!(!world.release_status().commands[0].accepted);
    assert_eq!(world.release_phase(), ReleasePhase::Paused);
    assert!(world.workload().paused);
}

#[test]
fn it_is_watched_only_after_the_rollout_was_asked_whether_it_was_rejected() {
    let world = at_first(8, plain());
    let created = world.log.iter().position(|e| matches!(e, Effect::CreateRelease(_))).unwrap();
    assert!(world.log[..created].last().is_some_and(asks_for_the_rollout));
}

#[test]
fn pause_resume_promote_abort_and_approve() {
    let mut world = at_first(8, plain());
    world.advance(3);
    world.command(Verb::Pause);
    world.advance(1_000);
    assert_eq!(world.release_status().reason.as_deref(), Some("PausedByUser"));
    assert_eq!(size_of(&world, "v2"), 2);
    world.assert_quiet();
    let mut aborted = world.clone();
    world.command(Verb::Resume);
    world.advance(60);
    assert_out(&mut world, "v2");
    aborted.command(Verb::Abort);
    aborted.advance(30);
    assert_undone(&mut aborted, "Aborted");

    let mut world = at_first(8, plain());
    world.advance(3);
    world.command(Verb::Promote);
    world.settle();
    assert_eq!(world.release_phase(), ReleasePhase::Promoting);
    world.command(Verb::Pause);
    world.settle();
    assert!(!world.release_status().commands[1].accepted);
    world.command(Verb::Abort);
    world.advance(30);
    assert_undone(&mut world, "Aborted");

    let steps = json!([{"weight": 10, "minDuration": "10s", "pause": true}]);
    let mut world = at_first(8, with(plain(), "strategy", json!({"canary": {"steps": steps}})));
    world.advance(1_000);
    assert_eq!(world.release_status().reason.as_deref(), Some("AwaitingApproval"));
    world.command(Verb::Approve);
    world.advance(60);
    assert_out(&mut world, "v2");
}

#[test]
fn a_person_who_pauses_the_workload_after_it_was_let_go_is_respected() {
    let mut world = let_go(8, plain());
    world.edit(|w| w.paused = true);
    world.advance(600);
    assert!(world.workload().paused);
    assert_eq!(world.release_status().reason.as_deref(), Some("WorkloadPaused"));
    world.edit(|w| w.paused = false);
    world.advance(60);
    assert_out(&mut world, "v2");
}

#[test]
fn under_a_paused_rollout_it_is_paused_where_it_stands() {
    let mut world = unbraked(8, with(plain(), "paused", json!(true)));
    world.set_image("v2");
    until_ready(&mut world, "v2", 3);
    world.settle();
    let sizes = (size_of(&world, "v1"), size_of(&world, "v2"));
    world.advance(1_000);
    assert_eq!(world.phase(), RolloutPhase::Held);
    assert!(world.status().message.unwrap().contains("because the Rollout is paused"));
    assert!(world.workload().paused);
    assert_eq!(world.releases, []);
    assert_eq!((size_of(&world, "v1"), size_of(&world, "v2")), sizes);
    world.assert_quiet();
    world.edit_rollout(|s| s.paused = false);
    world.advance(60);
    assert_out(&mut world, "v2");
}

#[test]
fn a_plan_that_cannot_be_used_holds_it() {
    let mut world = unbraked(8, guarded());
    world.edit_rollout(|s| {
        s.analysis.as_mut().unwrap().guards[0].ratio.as_mut().unwrap().tolerate = Some("much".into());
    });
    world.set_image("v2");
    world.advance(100);
    assert_eq!(world.phase(), RolloutPhase::Held);
    assert!(world.workload().paused);
    assert_eq!(size_of(&world, "v2"), 2);
    world.assert_quiet();
}
