//! A rejected revision that another writer brings back.

use super::super::contract::assert_promoted;
use super::super::plain;
use super::super::world::of;
use super::*;
use crate::api::BrakeForm;
use crate::api::release::Verb;

#[test]
fn a_rejected_revision_that_comes_back_is_taken_back_in_place() {
    let mut world = rejected(8, plain());
    world.set_image("v2");
    assert!(least_ready(&mut world, 60) >= 8);
    // As the brake would have held it: the other writer has what it wrote, and nothing serves it.
    assert_eq!(world.workload().revision, of("v2"));
    assert!(world.workload().paused);
    assert_eq!((world.ready_of("v1"), world.pods.len()), (8, 8));
    assert_eq!(world.phase(), RolloutPhase::Rejected);
    assert_eq!((world.status().vetoed[0].returns, count(&world, "RestoreTemplate")), (1, 0));
    let message = world.status().message.unwrap();
    assert!(message.contains("another writer brings it back") && message.contains("once"), "{message}");
    assert_eq!(told(&world), ["CameBack", "CameBack"]);
    assert_eq!(world.releases.len(), 1);
    world.assert_quiet();
    // Unpaused by force, it is taken back each time, and told each time.
    for times in 2..5 {
        world.log.clear();
        world.edit(|w| w.paused = false);
        world.advance(60);
        assert_eq!((world.ready_of("v1"), world.pods.len()), (8, 8));
        assert_eq!(world.status().vetoed[0].returns, times);
        assert!(told(&world).contains(&"CameBack"));
        world.assert_quiet();
    }
    // Retry lifts the veto: now it is a release, and the brake's absence does not matter while Belay pauses it.
    world.command(Verb::Retry);
    world.advance(100);
    assert_promoted(&mut world, "v2");
    assert_eq!(world.status().vetoed, []);
}

#[test]
fn a_writer_that_insists_is_answered_ever_more_slowly() {
    let mut world = rejected(8, plain());
    let mut restored = Vec::new();
    for second in 0..1_200 {
        if world.workload().revision == of("v1") && !world.workload().paused {
            // It writes while Belay is down, so that pods of it are ready each time.
            world.set_image("v2");
            until_ready(&mut world, "v2", 2);
        }
        let before = count(&world, "RestoreTemplate");
        world.advance(1);
        if count(&world, "RestoreTemplate") > before {
            restored.push(second);
        }
        assert!(ready(&world) >= 8);
    }
    assert!((4..=9).contains(&restored.len()), "{restored:?}");
    let waits: Vec<i32> = restored.windows(2).map(|w| w[1] - w[0]).collect();
    assert!(waits.is_sorted(), "{waits:?}");
    assert!(world.log.len() < 100, "{}", world.log.len());
    world.fates.clear();
    world.advance(1_000);
    world.assert_quiet();
}

#[test]
fn a_rejected_revision_that_is_out_completely_is_undone_all_the_same() {
    let mut world = rejected(4, plain());
    world.set_image("v2");
    until_ready(&mut world, "v2", 4);
    world.controllers();
    assert_eq!(size_of(&world, "v1"), 0);
    assert!(least_ready(&mut world, 60) >= 4);
    assert_back(&world);
    assert_eq!(world.status().vetoed[0].returns, 1);
    world.assert_quiet();
}

#[test]
fn a_rejected_revision_that_the_brake_holds_half_way_back_is_undone() {
    let mut world = half_way(8, plain(), 4);
    world.command(Verb::Abort);
    world.pass();
    world.controllers();
    world.pass();
    assert_eq!(world.release_phase(), ReleasePhase::RollingBack);
    world.brake = Brake::Engaged(BrakeForm::Policy);
    world.set_image("v2");
    world.settle();
    assert_eq!(world.release_phase(), ReleasePhase::RolledBack);
    assert!(least_ready(&mut world, 100) >= 8);
    assert_back(&world);
    world.assert_quiet();
    world.set_image("v2");
    world.advance(30);
    assert_eq!(world.phase(), RolloutPhase::Rejected);
    assert!(world.workload().paused);
    assert_eq!((world.ready_of("v1"), world.pods.len()), (8, 8));
    world.assert_quiet();
}

#[test]
fn with_automatic_rollback_off_a_rejected_revision_that_comes_back_is_held() {
    let mut world = at_first(8, by_hand());
    world.advance(3);
    world.command(Verb::Abort);
    world.advance(30);
    assert_undone(&mut world, "Aborted");
    world.set_image("v2");
    world.advance(600);
    assert!(world.workload().paused);
    assert_eq!(world.phase(), RolloutPhase::Rejected);
    assert_eq!(size_of(&world, "v2"), 2);
    assert!(world.status().message.unwrap().contains("belay undo"));
    world.assert_quiet();
}
