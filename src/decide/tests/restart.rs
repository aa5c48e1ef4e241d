//! Crash consistency: a pass that is cut anywhere, or whose reply is lost, changes nothing about the outcome.

use serde_json::json;

use super::world::{Cut, Fate, World, of};
use super::{approved, guarded, plain, with};
use crate::api::ReleasePhase;
use crate::api::release::Verb;

/// Runs a scenario whole, then again with a cut after each effect of each pass, and compares. Where stable pods are
/// there at the end, they are the same ones.
fn cut_everywhere(scenario: impl Fn(&mut World), start: &World) {
    let protected = start.pods_of("v1");
    cut_anywhere(scenario, start, |world, cut| {
        let now = world.pods_of("v1");
        assert!(
            protected.is_empty() || now.iter().all(|p| protected.contains(p)),
            "{cut:?}: stable pods were replaced"
        );
    });
}

/// The same, with another thing that must hold of each history.
pub(super) fn cut_anywhere(scenario: impl Fn(&mut World), start: &World, holds: impl Fn(&World, Cut)) {
    let mut whole = start.clone();
    scenario(&mut whole);
    whole.assert_sound();
    let outcome = whole.outcome();
    for (pass, effects) in whole.passes.iter().enumerate() {
        for after in 0..=*effects {
            for dies in [true, false] {
                let cut = Cut { pass, after, dies };
                let mut world = start.clone();
                world.cut = Some(cut);
                scenario(&mut world);
                world.assert_sound();
                assert_eq!(world.outcome(), outcome, "{cut:?}");
                assert_steps_are_sound(&world, cut);
                holds(&world, cut);
                world.assert_quiet();
            }
        }
    }
}

/// No step is skipped and none is repeated; none is shorter than it may be.
fn assert_steps_are_sound(world: &World, cut: Cut) {
    for release in &world.releases {
        let timeline = release.status.clone().unwrap_or_default().timeline;
        let steps: Vec<u32> =
            timeline.iter().filter(|e| e.reason == "StepStarted").filter_map(|e| e.step).collect();
        let expected: Vec<u32> = (2..).take(steps.len()).collect();
        assert_eq!(steps, expected, "{cut:?}");
        let entered =
            timeline.iter().filter(|e| ["ReleaseStarted", "StepStarted"].contains(&e.reason.as_str()));
        let passed = timeline.iter().filter(|e| e.reason == "StepPassed");
        for (a, b) in entered.zip(passed).filter(|(_, b)| b.message.contains("its time is over")) {
            assert!(b.at.0.duration_since(a.at.0).as_secs() >= 10, "{cut:?}: {timeline:?}");
        }
    }
}

#[test]
fn a_good_release() {
    cut_everywhere(
        |w| {
            w.set_image("v2");
            w.advance(100);
        },
        &World::stable(5, plain()),
    );
}

#[test]
fn a_release_with_guards() {
    let mut spec = guarded();
    spec["analysis"]["interval"] = json!("20s");
    cut_everywhere(
        |w| {
            w.set_image("v2");
            w.advance(900);
        },
        &World::stable(5, spec),
    );
}

#[test]
fn a_guard_that_fails() {
    let mut start = World::stable(5, guarded());
    start.bad_share.insert("v2".into(), 0.05);
    cut_everywhere(
        |w| {
            w.set_image("v2");
            w.until(|w| w.release_phase() == ReleasePhase::RolledBack);
            // How long it took depends on when the looks were.
            w.advance(100);
        },
        &start,
    );
}

#[test]
fn a_crash_at_once() {
    let mut start = World::stable(4, plain());
    start.fates.insert("v2".into(), Fate::Crash(1));
    cut_everywhere(
        |w| {
            w.set_image("v2");
            w.advance(60);
        },
        &start,
    );
}

#[test]
fn a_crash_in_the_second_step() {
    let start = World::stable(8, plain());
    cut_everywhere(
        |w| {
            w.set_image("v2");
            w.until(|w| w.reached(1));
            w.advance(3);
            w.fates.insert("v2".into(), Fate::Crash(0));
            w.advance(5);
            w.fates.clear();
            w.advance(100);
        },
        &start,
    );
}

#[test]
fn a_crash_that_heals_is_still_rejected() {
    // The mark goes with the weight: whoever finds the canary afterwards knows, however healthy it looks.
    let mut crashed = World::stable(8, plain());
    crashed.set_image("v2");
    crashed.until(|w| w.reached(1));
    crashed.fates.insert("v2".into(), Fate::Crash(0));
    crashed.controllers();
    let effects = crashed.clone().decided();
    assert!(effects > 3);
    for after in 1..=effects {
        for dies in [true, false] {
            let mut world = crashed.clone();
            world.cut = Some(Cut { pass: world.passes.len(), after, dies });
            world.pass();
            world.fates.clear();
            world.advance(1_000);
            assert_eq!(world.release_phase(), ReleasePhase::RolledBack);
            assert_eq!(world.release_status().reason.as_deref(), Some("CanaryCrashed"));
            assert_eq!(world.status().vetoed.len(), 1);
            world.assert_quiet();
        }
    }
}

#[test]
fn an_abort() {
    let start = World::stable(8, plain());
    cut_everywhere(
        |w| {
            w.set_image("v2");
            w.until(|w| w.reached(1));
            w.command(Verb::Abort);
            w.advance(20);
        },
        &start,
    );
}

#[test]
fn a_promote_to_the_end() {
    let start = World::stable(8, plain());
    cut_everywhere(
        |w| {
            w.set_image("v2");
            w.until(|w| w.reached(0));
            w.command_with(Verb::Promote, Some(1), true);
            w.advance(20);
        },
        &start,
    );
}

#[test]
fn a_pause_and_a_resume() {
    let start = World::stable(8, plain());
    cut_everywhere(
        |w| {
            w.set_image("v2");
            w.until(|w| w.reached(1));
            w.command(Verb::Pause);
            w.advance(50);
            w.command(Verb::Resume);
            w.advance(100);
        },
        &start,
    );
}

#[test]
fn an_approval() {
    let start = World::stable(8, approved());
    cut_everywhere(
        |w| {
            w.set_image("v2");
            w.until(|w| w.reached(1));
            w.advance(100);
            w.command(Verb::Approve);
            w.advance(100);
        },
        &start,
    );
}

#[test]
fn a_superseding_change() {
    let start = World::stable(8, plain());
    cut_everywhere(
        |w| {
            w.set_image("v2");
            w.until(|w| w.reached(1));
            w.set_image("v3");
            w.advance(100);
        },
        &start,
    );
}

#[test]
fn a_revert() {
    let start = World::stable(8, plain());
    cut_everywhere(
        |w| {
            w.set_image("v2");
            w.until(|w| w.reached(1));
            w.set_image("v1");
            w.advance(20);
        },
        &start,
    );
}

#[test]
fn a_workload_that_is_scaled() {
    let start = World::stable(8, plain());
    cut_everywhere(
        |w| {
            w.set_image("v2");
            w.until(|w| w.reached(1));
            w.scale(12);
            w.advance(5);
            w.scale(4);
            w.advance(100);
        },
        &start,
    );
}

#[test]
fn a_restored_template() {
    let mut start = World::stable(4, with(plain(), "rollback", json!({"restoreTemplate": true})));
    start.fates.insert("v2".into(), Fate::Crash(1));
    cut_everywhere(
        |w| {
            w.set_image("v2");
            w.advance(60);
        },
        &start,
    );
}

#[test]
fn a_retry() {
    let mut start = World::stable(4, plain());
    start.fates.insert("v2".into(), Fate::Crash(1));
    cut_everywhere(
        |w| {
            w.set_image("v2");
            w.advance(30);
            w.fates.clear();
            w.command(Verb::Retry);
            w.advance(100);
        },
        &start,
    );
}

#[test]
fn a_deleted_rollout() {
    let start = World::stable(4, plain());
    cut_everywhere(
        |w| {
            w.set_image("v2");
            w.until(|w| w.reached(1));
            w.delete_rollout();
            w.advance(20);
        },
        &start,
    );
}

#[test]
fn a_deleted_deployment() {
    let start = World::stable(4, plain());
    cut_everywhere(
        |w| {
            w.set_image("v2");
            w.until(|w| w.reached(1));
            w.delete_deployment();
            w.advance(20);
        },
        &start,
    );
}

#[test]
fn a_deleted_release() {
    let start = World::stable(4, plain());
    cut_everywhere(
        |w| {
            w.set_image("v2");
            w.until(|w| w.reached(1));
            w.delete_release();
            w.advance(20);
        },
        &start,
    );
}

#[test]
fn an_autoscaler() {
    let mut start = World::stable(8, plain());
    start.autoscaler = Some(super::changes::autoscaler(Some(2)));
    cut_everywhere(
        |w| {
            w.set_image("v2");
            w.advance(100);
        },
        &start,
    );
}

#[test]
fn going_back_to_an_older_revision() {
    let mut start = World::stable(3, plain());
    start.set_image("v2");
    start.advance(100);
    start.passes.clear();
    cut_everywhere(
        |w| {
            w.set_image("v1");
            w.advance(100);
        },
        &start,
    );
}

#[test]
fn the_first_sight_of_a_workload() {
    cut_everywhere(|w| w.advance(20), &World::new(3, plain()));
}

#[test]
fn a_restart_every_second_repeats_and_loses_nothing() {
    let mut world = World::stable(5, plain());
    world.set_image("v2");
    for _ in 0..60 {
        world.restart();
        world.advance(1);
    }
    assert_eq!(world.release_phase(), ReleasePhase::Promoted);
    assert_eq!(world.status().stable.unwrap().revision, of("v2"));
    assert_eq!(world.timeline(), super::contract::WHOLE_WAY);
    let time = world.release_status().timeline.last().unwrap().at.0;
    let took = time.duration_since(world.release_status().timeline[0].at.0);
    assert!(took.as_secs() < 45, "time in a step survives: {took:?}");
}
