//! What changes beside a release while it runs: the table of the design.

use serde_json::json;

use super::contract::assert_promoted;
use super::world::{Fate, World, of};
use super::{plain, with};
use crate::api::{BrakeForm, ReleasePhase, RolloutPhase};
use crate::decide::{Autoscaler, Effect, Identity, canary_pods};

fn at_step(step: u32, replicas: i32) -> World {
    let mut world = World::stable(replicas, plain());
    world.set_image("v2");
    world.until(|w| w.reached(step));
    world
}

fn phases(world: &World) -> Vec<ReleasePhase> {
    world.releases.iter().map(|r| r.status.clone().unwrap_or_default().phase).collect()
}

#[test]
fn another_change_supersedes_the_release_at_every_step() {
    for step in 0..3 {
        let mut world = at_step(step, 8);
        let stable = world.pods_of("v1");
        world.set_image("v3");
        world.settle();
        assert_eq!(world.pods_of("v2"), Vec::<String>::new(), "the superseded weight is 0 at once");
        assert_eq!(phases(&world)[0], ReleasePhase::Superseded);
        assert_eq!(world.status().vetoed, [], "superseded is not rejected");
        world.until(|w| w.reached(0));
        assert_eq!(world.release().spec.to.revision, of("v3"));
        assert_eq!(world.pods_of("v1"), stable);
        world.advance(100);
        assert_promoted(&mut world, "v3");
        assert_eq!(phases(&world), [ReleasePhase::Superseded, ReleasePhase::Promoted]);
    }
}

#[test]
fn a_superseded_revision_may_come_again() {
    let mut world = at_step(1, 8);
    world.set_image("v3");
    world.until(|w| w.releases.len() == 2 && w.reached(0));
    world.set_image("v2");
    world.advance(100);
    assert_eq!(world.release().spec.attempt, 2);
    assert_promoted(&mut world, "v2");
}

#[test]
fn a_change_back_to_stable_ends_the_release() {
    for step in 0..3 {
        let mut world = at_step(step, 8);
        let stable = world.pods_of("v1");
        world.set_image("v1");
        world.settle();
        assert_eq!(phases(&world), [ReleasePhase::Superseded]);
        assert_eq!(world.release_status().reason.as_deref(), Some("RevertedByUser"));
        assert_eq!(world.phase(), RolloutPhase::Stable);
        assert_eq!(world.status().vetoed, []);
        assert!(!world.workload().paused && world.workload().release_label.is_none());
        assert_eq!(world.pods_of("v1"), stable);
        assert_eq!(world.pods.len(), 8);
        world.assert_quiet();
    }
}

#[test]
fn a_change_back_and_forth_between_two_passes_goes_on() {
    let mut world = at_step(1, 8);
    world.set_image("v3");
    world.set_image("v2");
    world.advance(100);
    assert_eq!(phases(&world), [ReleasePhase::Promoted]);
    assert_promoted(&mut world, "v2");
}

#[test]
fn the_canary_follows_a_workload_that_is_scaled() {
    let weights = [10, 25, 50];
    for step in 0..3_u32 {
        for replicas in [1, 3, 8, 16, 30] {
            let mut world = at_step(step, 8);
            world.scale(replicas);
            world.settle();
            let wanted = canary_pods(replicas, weights[step as usize]);
            assert_eq!(world.canary_size(), wanted, "{replicas} in step {step}");
            assert_eq!(world.pods_of("v1").len(), usize::try_from(replicas).unwrap());
            world.advance(200);
            assert_promoted(&mut world, "v2");
        }
    }
}

#[test]
fn a_workload_scaled_to_zero_and_back_during_a_release_ends_well() {
    for step in 0..3 {
        let mut world = at_step(step, 8);
        world.scale(0);
        world.advance(30);
        world.scale(5);
        world.advance(200);
        assert_promoted(&mut world, "v2");
    }
}

#[test]
fn a_workload_scaled_between_handover_and_adoption_is_promoted() {
    for change in [|w: &mut World| w.scale(12), |w: &mut World| w.scale(3), |w: &mut World| w.scale(0)] {
        let mut world = at_step(2, 8);
        world.after = Some(("HandOver", change));
        world.advance(9);
        while world.release_phase() != ReleasePhase::Promoted {
            world.advance(1);
            let ready = world.pods.iter().filter(|p| p.pod.ready).count();
            assert!(ready >= usize::try_from(world.workload().replicas.min(8)).unwrap(), "{ready}");
        }
        world.advance(60);
        assert_promoted(&mut world, "v2");
    }
}

#[test]
fn a_workload_scaled_while_it_is_let_go_is_promoted() {
    for replicas in [12, 3] {
        let mut world = at_step(2, 8);
        world.advance(9);
        world.after = Some(("FreeWorkload", if replicas == 12 { |w| w.scale(12) } else { |w| w.scale(3) }));
        world.advance(60);
        assert_promoted(&mut world, "v2");
    }
}

#[test]
fn a_change_right_after_the_handover_is_the_next_release() {
    for moment in ["HandOver", "FreeWorkload"] {
        for image in ["v3", "v1"] {
            let mut world = at_step(2, 8);
            world.after =
                Some((moment, if image == "v3" { |w| w.set_image("v3") } else { |w| w.set_image("v1") }));
            for _ in 0..100 {
                world.advance(1);
                let ready = world.pods.iter().filter(|p| p.pod.ready).count();
                assert!(ready >= 8, "{moment} {image}: {ready}");
            }
            // Before the old pods went, a change back needs no release: they serve.
            if (moment, image) == ("HandOver", "v1") {
                assert_eq!(phases(&world), [ReleasePhase::Superseded]);
                assert_eq!(world.ready_of("v1"), 8);
                assert_eq!(world.pods.len(), 8);
                world.assert_quiet();
            } else {
                assert_promoted(&mut world, image);
            }
        }
    }
}

#[test]
fn a_change_there_and_back_right_after_the_handover_comes_to_rest() {
    let mut world = at_step(2, 8);
    world.after = Some(("HandOver", |w| w.set_image("v3")));
    world.advance(12);
    world.set_image("v2");
    world.advance(100);
    assert!(world.releases.len() < 4, "{:?}", phases(&world));
    world.assert_quiet();
    assert!(world.pods.len() >= 8);
}

#[test]
fn a_deleted_deployment_ends_the_release_and_its_canary() {
    for step in 0..3 {
        let mut world = at_step(step, 8);
        world.delete_deployment();
        world.settle();
        assert_eq!(phases(&world), [ReleasePhase::Superseded]);
        assert_eq!(world.release_status().reason.as_deref(), Some("WorkloadDeleted"));
        assert!(world.pods.is_empty() && world.sets.is_empty());
        assert_eq!(world.phase(), RolloutPhase::Waiting);
        world.assert_quiet();
    }
}

#[test]
fn a_deployment_deleted_at_rest_is_waited_for() {
    let mut world = World::stable(4, plain());
    world.delete_deployment();
    world.settle();
    assert_eq!(world.phase(), RolloutPhase::Waiting);
    world.assert_quiet();
}

#[test]
fn a_deployment_made_again_under_the_same_name_starts_from_its_first_revision() {
    for during in [false, true] {
        let mut world = at_step(1, 4);
        if !during {
            world.advance(100);
            assert_promoted(&mut world, "v2");
        }
        let mut again = World::new(4, plain()).deployment.unwrap();
        world.delete_deployment();
        if !during {
            world.settle();
        }
        again.id.uid = "web-again".into();
        world.deployment = Some(again);
        world.edit(|w| w.template = super::world::template("v9"));
        world.advance(30);
        assert_eq!(world.phase(), RolloutPhase::Stable, "{during}: {:?}", world.status());
        assert_eq!(world.status().stable.unwrap().revision, of("v9"));
        assert_eq!(world.pods_of("v9").len(), 4);
        assert!(world.releases.iter().all(|r| !r.spec.unbraked), "there is nothing to go back to");
        world.assert_quiet();
        world.set_image("v10");
        world.advance(100);
        assert_promoted(&mut world, "v10");
    }
}

#[test]
fn a_deleted_rollout_ends_the_release_and_lets_go() {
    for step in 0..3 {
        for reverted in [false, true] {
            let mut world = at_step(step, 8);
            let stable = world.pods_of("v1");
            if reverted {
                world.set_image("v1");
            }
            world.delete_rollout();
            world.settle();
            assert!(world.rollout.is_none(), "the finalizer is gone");
            let workload = world.workload().clone();
            assert_eq!((workload.rollout_label, workload.release_label), (None, None));
            assert_eq!(workload.paused, !reverted, "only the template that serves may go on");
            assert_eq!(world.pods_of("v1"), stable);
            assert_eq!(world.pods.len(), 8);
            let told = world
                .log
                .iter()
                .any(|e| matches!(e, Effect::Announce(a) if a.reason == crate::decide::Reason::LeftPaused));
            assert_eq!(told, !reverted);
            world.assert_sound();
            // kubectl alone can finish.
            world.edit(|w| w.paused = false);
            world.advance(60);
            assert_eq!(world.ready_of(if reverted { "v1" } else { "v2" }), 8);
        }
    }
}

#[test]
fn a_rollout_deleted_after_the_handover_lets_the_new_pods_serve() {
    for moment in ["HandOver", "FreeWorkload", "RecordRollout"] {
        let mut world = at_step(2, 8);
        world.after = Some((moment, World::delete_rollout));
        world.advance(100);
        assert!(world.rollout.is_none());
        let workload = world.workload().clone();
        assert_eq!((workload.rollout_label, workload.release_label, workload.paused), (None, None, false));
        assert_eq!(world.ready_of("v2"), 8);
        assert_eq!(world.pods.len(), 8);
        world.assert_sound();
    }
}

#[test]
fn a_rollout_deleted_at_rest_leaves_no_trace() {
    let mut world = World::stable(4, plain());
    world.delete_rollout();
    world.settle();
    assert!(world.rollout.is_none());
    assert_eq!(world.workload().rollout_label, None);
    assert!(!world.workload().paused);
}

#[test]
fn a_rollout_deleted_while_it_is_rejected_leaves_the_change_paused() {
    let mut world = World::stable(4, plain());
    world.fates.insert("v2".into(), Fate::Crash(1));
    world.set_image("v2");
    world.advance(30);
    world.delete_rollout();
    world.settle();
    assert!(world.rollout.is_none());
    assert!(world.workload().paused);
    assert_eq!(world.workload().release_label, None);
}

#[test]
fn a_release_deleted_while_it_runs_is_stopped_and_vetoed() {
    for step in 0..3 {
        let mut world = at_step(step, 8);
        let stable = world.pods_of("v1");
        world.delete_release();
        world.settle();
        assert_eq!(world.canary_size(), 0);
        assert_eq!(world.phase(), RolloutPhase::Rejected);
        assert_eq!(world.status().vetoed[0].reason, "ReleaseDeleted");
        assert_eq!(world.pods_of("v1"), stable);
        assert_eq!(world.pods.len(), 8);
        world.assert_quiet();
        world.set_image("v3");
        world.advance(100);
        assert_promoted(&mut world, "v3");
    }
}

#[test]
fn a_release_deleted_after_the_handover_changes_nothing() {
    for moment in ["HandOver", "FreeWorkload"] {
        let mut world = at_step(2, 8);
        world.after = Some((moment, World::delete_release));
        world.advance(60);
        assert_eq!(world.ready_of("v2"), 8, "{moment}");
        assert_eq!(world.releases, [], "{moment}: it passed all its steps");
        assert_eq!(world.pods.len(), 8);
        assert_eq!(world.phase(), RolloutPhase::Stable, "{moment}: {:?}", world.status());
        assert!(!world.workload().paused && world.workload().release_label.is_none());
        assert_eq!(world.status().stable.unwrap().revision, of("v2"));
        assert_eq!(world.status().vetoed, []);
        world.assert_quiet();
    }
}

pub(super) fn autoscaler(min: Option<i32>) -> Autoscaler {
    Autoscaler {
        id: Identity {
            namespace: "shop".into(),
            name: "web".into(),
            uid: "hpa".into(),
            ..Identity::default()
        },
        min,
        max: 20,
        held: None,
        has_annotations: false,
    }
}

#[test]
fn the_floor_of_an_autoscaler_is_held_and_given_back() {
    for (min, crash) in [(Some(2), false), (None, false), (Some(2), true), (None, true), (Some(9), false)] {
        let mut world = World::stable(8, plain());
        world.autoscaler = Some(autoscaler(min));
        world.set_image("v2");
        world.until(|w| w.reached(1));
        assert_eq!(world.autoscaler.as_ref().unwrap().min, Some(min.unwrap_or(1).max(8)));
        if crash {
            world.fates.insert("v2".into(), Fate::Crash(1));
        }
        world.advance(100);
        let after = world.autoscaler.clone().unwrap();
        assert_eq!((after.min, after.held), (min, None));
        world.assert_quiet();
    }
}

#[test]
fn a_floor_that_gitops_wrote_meanwhile_is_held_again_and_the_wish_given_back() {
    // GitOps applies the object as it is in git: the field, not the annotation.
    for wish in [Some(2), Some(3), None] {
        let mut world = World::stable(8, plain());
        world.autoscaler = Some(autoscaler(Some(2)));
        world.set_image("v2");
        world.until(|w| w.reached(1));
        world.autoscaler.as_mut().unwrap().min = wish;
        world.settle();
        assert_eq!(world.autoscaler.as_ref().unwrap().min, Some(8), "{wish:?}");
        world.advance(100);
        let after = world.autoscaler.clone().unwrap();
        assert_eq!((after.min, after.held), (wish, None));
        world.assert_quiet();
    }
}

#[test]
fn a_floor_that_somebody_raised_meanwhile_stays() {
    let mut world = World::stable(8, plain());
    world.autoscaler = Some(autoscaler(Some(2)));
    world.set_image("v2");
    world.until(|w| w.reached(1));
    world.autoscaler.as_mut().unwrap().min = Some(12);
    world.advance(100);
    let after = world.autoscaler.clone().unwrap();
    assert_eq!((after.min, after.held), (Some(12), None));
    world.assert_quiet();
}

#[test]
fn a_brake_that_goes_missing_does_not_stop_a_release() {
    let mut world = at_step(1, 8);
    world.brake = crate::decide::Brake::Missing(BrakeForm::Policy, "the policy was deleted".into());
    world.advance(100);
    assert_promoted(&mut world, "v2");
}

#[test]
fn an_unpause_past_the_brake_during_a_release_is_caught() {
    let mut world = at_step(1, 8);
    world.brake = crate::decide::Brake::Missing(BrakeForm::Policy, "the policy was deleted".into());
    // Somebody unpauses, and the workload's own controller is faster than Belay.
    world.edit(|w| w.paused = false);
    world.controllers();
    world.settle();
    let first = world.releases[0].status.clone().unwrap();
    assert_eq!((first.phase, first.reason.as_deref()), (ReleasePhase::Superseded, Some("WentPastBrake")));
    assert!(world.release().spec.unbraked && world.workload().paused);
    assert!(world.canary().is_none());
    world.advance(60);
    assert_eq!(phases(&world), [ReleasePhase::Superseded, ReleasePhase::Promoted]);
    assert_eq!(world.phase(), RolloutPhase::Stable);
    assert_eq!(world.ready_of("v2"), 8);
    assert_eq!(world.pods.len(), 8);
    world.assert_quiet();
}

#[test]
fn the_rollout_edited_during_a_release_counts_for_the_next() {
    let mut world = at_step(0, 8);
    let other =
        with(plain(), "strategy", json!({"canary": {"steps": [{"weight": 50, "minDuration": "10s"}]}}));
    world.edit_rollout(|s| *s = serde_json::from_value(other).unwrap());
    world.advance(100);
    assert_eq!(world.timeline(), super::contract::WHOLE_WAY);
    world.set_image("v3");
    world.advance(100);
    assert_eq!(world.timeline(), ["ReleaseStarted", "StepPassed", "Promoting", "Promoted"]);
    assert_promoted(&mut world, "v3");
}

#[test]
fn a_change_that_slipped_and_was_paused_half_way_is_left_to_a_person() {
    let mut world = World::stable(8, plain());
    world.brake = crate::decide::Brake::Missing(BrakeForm::Policy, "the policy was deleted".into());
    world.set_image("v2");
    world.controllers();
    world.edit(|w| w.paused = true);
    world.brake = crate::decide::Brake::Engaged(BrakeForm::Policy);
    world.advance(60);
    assert_eq!(world.releases, [], "a person looks after it");
    assert_eq!(world.phase(), RolloutPhase::Unguarded);
    assert!(world.workload().paused);
    world.assert_quiet();
    // Let go by the person, it is a change that nobody holds.
    world.edit(|w| w.paused = false);
    world.advance(60);
    assert!(world.release().spec.unbraked);
    assert_eq!(world.phase(), RolloutPhase::Stable);
    assert_eq!(world.status().stable.unwrap().revision, of("v2"));
    world.assert_quiet();
}

#[test]
fn a_rollout_deleted_after_its_label_was_dropped_leaves_no_label() {
    let mut world = at_step(1, 4);
    world.deployment.as_mut().unwrap().rollout_label = None;
    world.delete_rollout();
    world.settle();
    assert!(world.rollout.is_none());
    assert_eq!(world.workload().release_label, None);
}

#[test]
fn a_workload_scaled_up_from_zero_to_a_revision_of_its_history_comes_to_rest() {
    let mut world = World::stable(0, plain());
    world.set_image("v2");
    world.advance(10);
    world.set_image("v1");
    world.controllers();
    world.pass();
    // Its own controller takes the ReplicaSet of the present template, which is still there without pods.
    world.scale(3);
    world.advance(60);
    assert_eq!(world.ready_of("v1"), 3);
    assert_eq!(world.phase(), RolloutPhase::Stable);
    assert_eq!(world.status().stable.unwrap().revision, of("v1"));
    assert!(!world.workload().paused);
    world.assert_quiet();
}
