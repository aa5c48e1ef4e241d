//! The contract of the design, line by line, for releases that nothing disturbs.

use serde_json::json;

use super::world::{World, of, time};
use super::{approved, asks_for_the_rollout, guarded, judged, plain, with};
use crate::api::release::Verb;
use crate::api::{BrakeForm, ReleasePhase, RolloutPhase};
use crate::decide::{Brake, Effect, decide};

pub(super) const WHOLE_WAY: [&str; 8] = [
    "ReleaseStarted",
    "StepPassed",
    "StepStarted",
    "StepPassed",
    "StepStarted",
    "StepPassed",
    "Promoting",
    "Promoted",
];

/// The latest release went all the way to the revision of `image`, and now there is peace.
pub(super) fn assert_promoted(world: &mut World, image: &str) {
    assert_eq!(world.release_phase(), ReleasePhase::Promoted, "{:?}", world.release_status());
    let status = world.status();
    assert_eq!(status.phase, Some(RolloutPhase::Stable));
    let stable = status.stable.unwrap();
    assert_eq!(stable.revision, of(image));
    assert_eq!(stable.replica_set, format!("web-{}", of(image)));
    let workload = world.workload().clone();
    assert!(!workload.paused && workload.release_label.is_none());
    assert_eq!(workload.rollout_label.as_deref(), Some("web"));
    let replicas = usize::try_from(workload.replicas).unwrap();
    assert_eq!((world.pods.len(), world.ready_of(image)), (replicas, replicas));
    world.assert_quiet();
}

#[test]
fn a_good_change_is_promoted_with_the_pods_that_were_tested() {
    let mut world = World::stable(5, plain());
    let stable = world.pods_of("v1");
    world.set_image("v2");
    let mut canary: Vec<String> = Vec::new();
    // 5 pods: 10 % is one, 25 % two, 50 % five.
    for (step, size) in [(0, 1), (1, 2), (2, 5)] {
        world.until(|w| w.reached(step));
        assert_eq!(world.canary_size(), size);
        assert_eq!(world.pods_of("v1"), stable, "stable pods are not touched");
        let now = world.pods_of("v2");
        assert_eq!(now[..canary.len()], canary, "tested pods stay");
        canary = now;
    }
    world.until(|w| w.release_phase() == ReleasePhase::Promoted);
    assert_eq!(world.pods_of("v2"), canary, "the promoted pods are the tested pods");
    assert_eq!(world.timeline(), WHOLE_WAY);
    assert_promoted(&mut world, "v2");
}

#[test]
fn the_ready_pods_never_become_fewer() {
    let mut world = World::stable(7, plain());
    world.set_image("v2");
    while world.release_phase() != ReleasePhase::Promoted {
        world.advance(1);
        assert!(world.pods.iter().filter(|p| p.pod.ready).count() >= 7);
    }
}

#[test]
fn each_step_keeps_its_least_time_with_all_pods_ready() {
    let mut world = World::stable(5, plain());
    world.set_image("v2");
    world.until(|w| w.release_phase() == ReleasePhase::Promoted);
    let timeline = world.release_status().timeline;
    let at = |code: &str| -> Vec<i64> {
        let entries = timeline.iter().filter(|e| e.reason == code);
        entries.map(|e| e.at.0.as_millisecond() - time(0).as_millisecond()).collect()
    };
    let entered = [at("ReleaseStarted"), at("StepStarted")].concat();
    for (entered, passed) in entered.iter().zip(at("StepPassed")) {
        // Two seconds until the pods are ready, then ten.
        assert!((12_000..12_100).contains(&(passed - entered)), "{}", passed - entered);
    }
}

#[test]
fn a_plain_release_of_three_steps_takes_21_requests() {
    let mut world = World::stable(5, plain());
    world.set_image("v2");
    world.until(|w| w.release_phase() == ReleasePhase::Promoted);
    world.assert_quiet();
    let names: Vec<&str> = world.log.iter().map(Effect::name).collect();
    let expected = [
        // What was seen must still be so, and the brake's second half; then the plan, then the first weight.
        "RecordRollout",
        "HoldWorkload",
        "CreateRelease",
        "RecordRelease",
        "CreateCanary",
        "Announce",
        // Its clock starts; the record of the next step comes before its weight.
        "RecordRelease",
        "RecordRelease",
        "Announce",
        "ScaleCanary",
        "RecordRelease",
        "RecordRelease",
        "Announce",
        "ScaleCanary",
        "RecordRelease",
        // Half is full size already: the handover follows.
        "RecordRelease",
        "HandOver",
        "FreeWorkload",
        "RecordRollout",
        "RecordRelease",
        "Announce",
    ];
    assert_eq!(names, expected);
    assert!(names.len() <= 21);
}

#[test]
fn at_rest_nothing_is_written() {
    let mut world = World::stable(3, plain());
    world.assert_quiet();
    assert_eq!(world.log, []);
    world.advance(100_000);
    assert_eq!(world.log, []);
}

#[test]
fn the_first_revision_is_left_to_its_own_controller() {
    let mut world = World::new(4, plain());
    world.settle();
    assert_eq!(world.phase(), RolloutPhase::Waiting);
    assert_eq!(world.status().stable, None);
    world.advance(5);
    assert_eq!(world.phase(), RolloutPhase::Stable);
    assert_eq!(world.status().stable.unwrap().revision, of("v1"));
    assert_eq!(world.releases, []);
    world.assert_quiet();
}

#[test]
fn a_rollout_with_nothing_but_its_workload_works() {
    let mut world = World::stable(3, json!({"workloadRef": {"kind": "Deployment", "name": "web"}}));
    world.set_image("v2");
    world.until(|w| w.release_phase() == ReleasePhase::Promoted);
    assert_eq!(world.timeline(), WHOLE_WAY);
    assert_promoted(&mut world, "v2");
}

#[test]
fn one_pod_is_enough() {
    let mut world = World::stable(1, plain());
    world.set_image("v2");
    world.until(|w| w.release_phase() == ReleasePhase::Promoted);
    assert_promoted(&mut world, "v2");
}

#[test]
fn a_workload_scaled_to_zero_is_promoted_at_once() {
    let mut world = World::stable(0, plain());
    world.set_image("v2");
    world.advance(30);
    assert_promoted(&mut world, "v2");
    world.scale(3);
    world.advance(10);
    assert_eq!(world.ready_of("v2"), 3);
    world.assert_quiet();
}

#[test]
fn steps_of_the_same_whole_pods_are_all_passed() {
    let mut world = World::stable(2, plain());
    world.set_image("v2");
    world.until(|w| w.release_phase() == ReleasePhase::Promoted);
    assert_eq!(world.timeline(), WHOLE_WAY);
    assert_promoted(&mut world, "v2");
}

#[test]
fn many_releases_follow_one_another_and_old_ones_are_pruned() {
    let mut world = World::stable(3, with(plain(), "historyLimit", json!(2)));
    for image in ["v2", "v3", "v4", "v5"] {
        world.set_image(image);
        world.advance(100);
        assert_promoted(&mut world, image);
    }
    assert_eq!(world.releases.len(), 2);
    assert_eq!(world.releases[0].spec.to.revision, of("v4"));
}

#[test]
fn going_back_to_a_revision_whose_old_replica_set_is_still_there_is_a_release() {
    let mut world = World::stable(3, plain());
    for image in ["v2", "v1", "v2", "v1"] {
        let before = world.releases.len();
        world.set_image(image);
        world.advance(100);
        assert_promoted(&mut world, image);
        assert_eq!(world.releases.len(), before + 1);
        assert_eq!(world.timeline(), WHOLE_WAY);
    }
    assert_eq!(world.release().metadata.name.as_deref(), Some(format!("web-{}-2", of("v1")).as_str()));
}

#[test]
fn proof_is_needed_to_advance() {
    let mut world = World::stable(5, guarded());
    world.set_image("v2");
    world.until(|w| w.reached(0));
    world.advance(15);
    assert_eq!(world.step(), 0, "ten seconds are not a proof");
    assert_eq!(world.release_status().reason.as_deref(), Some("CollectingEvidence"));
    world.until(|w| w.step() == 1);
    assert!(world.release_status().timeline[1].message.contains("prove"));
    world.advance(600);
    assert_promoted(&mut world, "v2");
}

#[test]
fn no_data_holds_and_stops_the_clock() {
    let mut world = World::stable(5, guarded());
    world.set_image("v2");
    world.until(|w| w.reached(0));
    world.source_down = Some("connection refused".into());
    world.advance(3_000);
    let status = world.release_status();
    assert_eq!((status.phase, status.step.index), (ReleasePhase::Progressing, 0));
    assert_eq!(status.reason.as_deref(), Some("NoData"));
    assert!(status.step.elapsed_seconds < 10.0, "{:?}", status.step);
    assert_eq!(status.step.running_since, None);
    assert_eq!(world.canary_size(), 1);
    assert!(world.pods.iter().all(|p| p.pod.ready));
    world.source_down = None;
    world.advance(1_500);
    assert_promoted(&mut world, "v2");
}

#[test]
fn no_data_rolls_back_only_after_the_bound_that_the_user_set() {
    let mut world = World::stable(5, judged("onNoData", json!({"after": "2m", "then": "rollback"})));
    world.set_image("v2");
    world.until(|w| w.reached(0));
    world.source_down = Some("connection refused".into());
    world.advance(110);
    assert_eq!(world.release_phase(), ReleasePhase::Progressing);
    world.advance(20);
    assert_eq!(world.release_phase(), ReleasePhase::RolledBack);
    assert_eq!(world.release_status().reason.as_deref(), Some("NoData"));
    world.assert_quiet();
}

#[test]
fn inconclusive_does_what_the_policy_says() {
    for (policy, end) in [
        ("hold", ReleasePhase::Progressing),
        ("promote", ReleasePhase::Promoted),
        ("rollback", ReleasePhase::RolledBack),
    ] {
        let mut world = World::stable(5, judged("onInconclusive", json!(policy)));
        // Without traffic nothing is proven.
        world.requests.extend([("v1".into(), 0.0), ("v2".into(), 0.0)]);
        world.set_image("v2");
        world.until(|w| w.reached(0));
        world.advance(590);
        assert_eq!((world.release_phase(), world.step()), (ReleasePhase::Progressing, 0), "{policy}");
        world.advance(700);
        assert_eq!(world.release_phase(), end, "{policy}: {:?}", world.release_status().timeline);
        if policy == "hold" {
            assert_eq!(world.release_status().reason.as_deref(), Some("Inconclusive"));
            assert_eq!(world.step(), 0);
            // A person may promote it; it is written who and why.
            world.command(Verb::Promote);
            world.advance(1);
            assert_eq!(world.step(), 1);
            let passed = &world.release_status().timeline[2];
            assert_eq!(passed.message, "step 1 passed by ann: because");
        } else {
            world.assert_quiet();
        }
    }
}

#[test]
fn a_step_that_waits_for_a_person_waits() {
    let mut world = World::stable(4, approved());
    world.set_image("v2");
    world.advance(100_000);
    assert_eq!((world.release_phase(), world.step()), (ReleasePhase::Paused, 1));
    assert_eq!(world.release_status().reason.as_deref(), Some("AwaitingApproval"));
    world.assert_quiet();
    world.command_with(Verb::Approve, Some(2), false);
    world.advance(10);
    assert_promoted(&mut world, "v2");
}

#[test]
fn a_paused_rollout_starts_nothing_and_says_so() {
    let mut world = World::stable(4, plain());
    world.edit_rollout(|s| s.paused = true);
    world.set_image("v2");
    world.advance(100);
    assert_eq!(world.phase(), RolloutPhase::Held);
    assert_eq!(world.releases, []);
    assert!(world.workload().paused);
    assert_eq!(world.pods_of("v2"), Vec::<String>::new());
    world.assert_quiet();
    // Nobody but Belay lets it go meanwhile.
    world.edit(|w| w.paused = false);
    assert!(world.workload().paused);
    world.edit_rollout(|s| s.paused = false);
    world.advance(100);
    assert_promoted(&mut world, "v2");
}

#[test]
fn pausing_the_rollout_leaves_a_running_release_alone() {
    let mut world = World::stable(4, plain());
    world.set_image("v2");
    world.until(|w| w.reached(1));
    world.edit_rollout(|s| s.paused = true);
    world.advance(100);
    assert_promoted(&mut world, "v2");
}

#[test]
fn a_workload_that_a_person_paused_at_rest_is_left_alone() {
    let mut world = World::stable(4, plain());
    world.edit(|w| w.paused = true);
    world.advance(100);
    assert!(world.workload().paused);
    assert_eq!(world.log, []);
    world.assert_quiet();
}

#[test]
fn without_the_brake_it_is_told_and_a_release_is_safe_once_it_is_back() {
    let mut world = World::stable(4, plain());
    world.brake = Brake::Missing(BrakeForm::Policy, "the policy is not installed".into());
    world.settle();
    let engaged =
        world.status().conditions.iter().find(|c| c.type_ == "BrakeEngaged").unwrap().status.clone();
    assert_eq!(engaged, "False");
    world.assert_quiet();
    world.brake = Brake::Engaged(BrakeForm::Policy);
    world.set_image("v3");
    world.advance(100);
    assert_promoted(&mut world, "v3");
}

#[test]
fn a_label_that_somebody_dropped_is_put_back() {
    let mut world = World::stable(4, plain());
    world.deployment.as_mut().unwrap().rollout_label = None;
    world.settle();
    assert_eq!(world.workload().rollout_label.as_deref(), Some("web"));
    world.assert_quiet();
    // Also in the middle of a release, with both labels.
    world.set_image("v2");
    world.until(|w| w.reached(1));
    let w = world.deployment.as_mut().unwrap();
    (w.rollout_label, w.release_label) = (None, None);
    world.settle();
    assert_eq!(world.workload().release_label, Some(of("v2")));
    assert_eq!(world.workload().rollout_label.as_deref(), Some("web"));
    world.advance(100);
    assert_promoted(&mut world, "v2");
}

#[test]
fn a_plan_that_cannot_be_used_holds_the_change_and_says_why() {
    let mut world = World::stable(4, plain());
    let bad = judged("interval", json!("1h"));
    world.edit_rollout(|s| s.analysis = serde_json::from_value(bad["analysis"].clone()).unwrap());
    world.set_image("v2");
    world.advance(10);
    assert_eq!(world.phase(), RolloutPhase::Held);
    assert!(world.status().message.unwrap().contains("spec.analysis"));
    assert!(world.workload().paused);
    world.assert_quiet();
    world.edit_rollout(|s| s.analysis = None);
    world.advance(100);
    assert_promoted(&mut world, "v2");
}

#[test]
fn a_change_braked_and_taken_back_while_the_operator_was_away_is_let_go() {
    let mut world = World::stable(4, plain());
    world.set_image("v2");
    world.set_image("v1");
    assert!(world.workload().paused, "nobody was there to let it go");
    world.advance(100);
    assert!(!world.workload().paused);
    assert_eq!(world.phase(), RolloutPhase::Stable);
}

#[test]
fn evidence_alone_is_written_twice_a_minute_at_most() {
    let mut world = World::stable(5, guarded());
    world.set_image("v2");
    world.until(|w| w.reached(0));
    // Held by a person, so that nothing but the evidence changes.
    world.command(Verb::Pause);
    world.advance(40);
    let looks = |w: &World| w.release_status().analysis.map_or(0, |a| a.looks);
    let (writes, taken) = (world.log.len(), looks(&world));
    world.advance(600);
    let written = world.log.len() - writes;
    assert!((10..=20).contains(&written), "{written} writes in ten minutes");
    assert!(looks(&world) >= taken + 100, "the looks go on");
}

#[test]
fn requests_that_do_not_reach_the_canary_hold_it_and_say_so() {
    let mut world = World::stable(5, judged("onInconclusive", json!("promote")));
    world.requests.insert("v2".into(), 0.0);
    world.set_image("v2");
    world.until(|w| w.reached(0));
    world.advance(1500);
    assert_eq!((world.release_phase(), world.step()), (ReleasePhase::Progressing, 0));
    let status = world.release_status();
    assert_eq!(status.reason.as_deref(), Some("SampleRatioMismatch"));
    assert!(status.message.as_deref().unwrap().contains("the canary answered 0 of "), "{:?}", status.message);
    world.requests.clear();
    world.until(|w| w.release_phase() == ReleasePhase::Promoted);
}

#[test]
fn no_release_starts_over_an_old_view_of_the_rollout_that_says_the_very_same() {
    let mut world = World::stable(4, plain());
    world.set_image("v2");
    world.until(|w| w.reached(1));
    // What a process sees that starts with an old Rollout: the Release was deleted, its canary is gone, and the veto
    // that came with that is not there yet.
    let mut old = world.observe().unwrap();
    old.releases.clear();
    old.replica_sets.retain(|rs| rs.revision != world.workload().revision);
    old.memory = None;
    let effects = decide(&old, world.time()).effects;
    let names: Vec<&str> = effects.iter().map(Effect::name).collect();
    let created = effects.iter().position(|e| matches!(e, Effect::CreateRelease(_))).unwrap();
    assert!(effects[..created].iter().any(asks_for_the_rollout), "{names:?}");
}
