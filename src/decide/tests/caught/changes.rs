//! What changes beside a caught change.

use super::super::contract::assert_promoted;
use super::super::plain;
use super::super::world::{Fate, of, template};
use super::*;
use crate::api::BrakeForm;
use crate::api::release::Verb;

#[test]
fn what_the_brake_pauses_half_way_is_caught() {
    let mut world = half_way(8, plain(), 4);
    world.brake = Brake::Engaged(BrakeForm::Policy);
    world.settle();
    world.set_image("v1");
    world.pass();
    world.pass();
    assert_eq!(world.release_phase(), ReleasePhase::RollingBack);
    assert!(world.status().message.unwrap().contains("is being undone"));
    // On its way back it is changed again, and the brake holds that with pods of it still there.
    world.controllers();
    world.set_image("v2");
    world.settle();
    assert_eq!(world.releases[0].status.clone().unwrap().phase, ReleasePhase::Superseded);
    assert!(world.release().spec.unbraked && world.release().spec.attempt == 2);
    assert!(least_ready(&mut world, 60) >= 8);
    assert_out(&mut world, "v2");
}

#[test]
fn what_serves_alone_and_is_not_complete_is_caught_too() {
    let mut world = unbraked(4, plain());
    // Its rolling update may take all pods away at once.
    world.unavailable = 4;
    world.fates.insert("v2".into(), Fate::Crash(1));
    world.set_image("v2");
    world.controllers();
    assert_eq!((size_of(&world, "v1"), size_of(&world, "v2")), (0, 4));
    world.advance(60);
    assert_undone(&mut world, "CanaryCrashed");
}

#[test]
fn when_nothing_of_it_is_out_any_more_it_goes_through_its_steps() {
    let mut world = at_first(8, plain());
    world.advance(3);
    // kubectl scale replicaset.
    let own = world.release().spec.to.replica_set.clone();
    world.sets.iter_mut().find(|s| s.rs.id.name == own).unwrap().rs.replicas = 0;
    world.advance(100);
    let first = world.releases[0].status.clone().unwrap();
    assert_eq!((first.phase, first.reason.as_deref()), (ReleasePhase::Superseded, Some("NothingOut")));
    assert!(!world.release().spec.unbraked);
    assert_promoted(&mut world, "v2");
}

#[test]
fn a_definition_of_release_that_is_too_old_is_told_and_makes_no_loop() {
    let mut world = unbraked(8, plain());
    world.old_schema = true;
    world.set_image("v2");
    world.advance(100);
    assert_eq!(world.releases.len(), 1);
    assert_eq!(world.phase(), RolloutPhase::Held);
    assert!(world.status().message.unwrap().contains("run belay install"));
    assert!(world.workload().paused);
    world.assert_quiet();
}

#[test]
fn changed_again_past_the_brake_the_new_change_is_caught() {
    for start in [at_first(8, plain()), half_way(8, plain(), 4), let_go(8, plain())] {
        let mut world = start;
        world.edit(|w| {
            w.template = template("v3");
            w.paused = false;
        });
        assert!(least_ready(&mut world, 100) >= 8);
        let first = world.releases[0].status.clone().unwrap();
        assert_eq!(first.phase, ReleasePhase::Superseded);
        assert!(first.weight.unwrap().canary_pods > 0, "they are still there when it ends");
        assert!(world.release().spec.unbraked);
        assert_eq!(world.release().spec.from.revision, of("v1"));
        assert_eq!(world.status().vetoed, []);
        assert_out(&mut world, "v3");
    }
}

#[test]
fn changed_again_when_belays_pause_or_the_brake_holds_it_it_goes_through_its_steps() {
    for engaged in [false, true] {
        for start in [at_first(8, plain()), half_way(8, plain(), 4), let_go(8, plain())] {
            let mut world = start;
            let paused = world.workload().paused;
            if engaged {
                world.brake = Brake::Engaged(BrakeForm::Policy);
                world.settle();
            } else if !paused {
                continue;
            }
            world.set_image("v3");
            assert!(least_ready(&mut world, 200) >= 8);
            assert_eq!(world.releases[0].status.clone().unwrap().phase, ReleasePhase::Superseded);
            assert!(!world.release().spec.unbraked);
            assert_promoted(&mut world, "v3");
        }
    }
}

#[test]
fn changed_again_when_it_serves_alone_it_counts_as_promoted() {
    let mut world = let_go(4, plain());
    until_ready(&mut world, "v2", 4);
    world.brake = Brake::Engaged(BrakeForm::Policy);
    world.set_image("v3");
    world.controllers();
    world.settle();
    assert_eq!(world.releases[0].status.clone().unwrap().phase, ReleasePhase::Promoted);
    assert_eq!(world.status().stable.unwrap().revision, of("v2"));
    world.advance(100);
    assert_promoted(&mut world, "v3");
}

#[test]
fn changed_again_while_it_is_undone_the_undoing_ends() {
    let mut world = half_way(8, plain(), 4);
    world.command(Verb::Abort);
    world.pass();
    world.controllers();
    world.pass();
    assert_eq!(world.release_phase(), ReleasePhase::RollingBack);
    assert_eq!(world.workload().revision, of("v1"));
    world.brake = Brake::Engaged(BrakeForm::Policy);
    world.set_image("v3");
    world.settle();
    assert_eq!(world.releases[0].status.clone().unwrap().phase, ReleasePhase::RolledBack);
    world.advance(200);
    assert_promoted(&mut world, "v3");
    assert_eq!(world.status().vetoed.len(), 1);
}

#[test]
fn changed_back_it_ends_and_the_workload_goes_back_by_itself() {
    for engaged in [false, true] {
        for start in [at_first(8, plain()), half_way(8, plain(), 4), let_go(8, plain())] {
            let mut world = start;
            if engaged {
                world.brake = Brake::Engaged(BrakeForm::Policy);
                world.settle();
            }
            world.set_image("v1");
            assert!(least_ready(&mut world, 60) >= 8);
            let status = world.release_status();
            assert_eq!(
                (status.phase, status.reason.as_deref()),
                (ReleasePhase::Superseded, Some("RevertedByUser"))
            );
            assert_eq!(world.status().vetoed, []);
            assert_back(&world);
            world.assert_quiet();
        }
    }
}

#[test]
fn scaled_while_it_is_watched_both_versions_follow() {
    for replicas in [0, 1, 3, 12, 20] {
        for start in [at_first(8, plain()), half_way(8, plain(), 4), let_go(8, plain())] {
            let mut world = start;
            world.advance(3);
            world.scale(replicas);
            world.advance(200);
            assert_eq!(
                world.release_phase(),
                ReleasePhase::Promoted,
                "{replicas}: {:?}",
                world.release_status()
            );
            let wanted = usize::try_from(replicas).unwrap();
            assert_eq!((world.pods.len(), world.ready_of("v2")), (wanted, wanted));
            assert!(!world.workload().paused);
            world.assert_quiet();
        }
    }
}

#[test]
fn the_brake_coming_back_in_the_middle_changes_nothing() {
    for start in [at_first(8, plain()), half_way(8, plain(), 4), let_go(8, plain())] {
        for crash in [false, true] {
            let mut world = start.clone();
            world.brake = Brake::Engaged(BrakeForm::Policy);
            world.advance(1);
            if crash {
                world.fates.insert("v2".into(), Fate::Crash(0));
            }
            // Somebody writes the same manifest again.
            world.edit(|w| w.paused = false);
            world.advance(60);
            if crash {
                assert_undone(&mut world, "CanaryCrashed");
            } else {
                assert_out(&mut world, "v2");
            }
        }
    }
}

#[test]
fn the_rollout_deleted_during_a_catch_leaves_it_paused_or_on_its_way() {
    for start in [at_first(8, plain()), half_way(8, plain(), 4), let_go(8, plain())] {
        let mut world = start;
        let paused = world.workload().paused;
        let sizes = (size_of(&world, "v1"), size_of(&world, "v2"));
        world.delete_rollout();
        world.settle();
        assert!(world.rollout.is_none());
        let workload = world.workload().clone();
        assert_eq!((workload.rollout_label, workload.release_label), (None, None));
        assert_eq!(workload.paused, paused, "a mixture is left to a person, who is told");
        if paused {
            assert_eq!((size_of(&world, "v1"), size_of(&world, "v2")), sizes);
            assert!(told(&world).contains(&"Superseded"));
        }
        world.assert_sound();
    }
    // On its way back it goes on by itself.
    let mut world = half_way(8, plain(), 4);
    world.command(Verb::Abort);
    world.pass();
    world.controllers();
    world.delete_rollout();
    world.advance(60);
    assert!(world.rollout.is_none());
    assert_eq!((world.ready_of("v1"), world.pods.len(), world.workload().paused), (8, 8, false));
}

#[test]
fn the_deployment_deleted_during_a_catch_ends_it() {
    for start in [at_first(8, plain()), let_go(8, plain())] {
        let mut world = start;
        world.delete_deployment();
        world.advance(10);
        assert_eq!(world.release_status().reason.as_deref(), Some("WorkloadDeleted"));
        assert_eq!(world.release_phase(), ReleasePhase::Superseded);
        world.assert_quiet();
    }
}

#[test]
fn the_release_deleted_during_a_catch_is_made_again() {
    for start in [at_first(8, plain()), half_way(8, plain(), 4), let_go(8, plain())] {
        let mut world = start;
        world.delete_release();
        world.settle();
        assert!(world.workload().paused && world.release().spec.unbraked);
        world.advance(60);
        assert_out(&mut world, "v2");
        assert_eq!(world.status().vetoed, []);
    }
}

#[test]
fn what_was_out_completely_when_it_was_seen_is_stable_and_told() {
    let mut world = unbraked(4, plain());
    world.set_image("v2");
    until_ready(&mut world, "v2", 4);
    world.advance(60);
    assert_eq!(world.releases, [], "no release is made up");
    assert_eq!(world.phase(), RolloutPhase::Stable);
    assert_eq!(world.status().stable.unwrap().revision, of("v2"));
    assert!(world.status().message.unwrap().contains("out completely before it was seen"));
    assert_eq!(told(&world), ["OutAlready"]);
    world.assert_quiet();
    world.brake = Brake::Engaged(BrakeForm::Policy);
    world.set_image("v3");
    world.advance(100);
    assert_promoted(&mut world, "v3");
    assert_eq!(world.status().message.unwrap(), "the stable revision serves; nothing is on its way");
}
