//! Commands: what they do, and when they are refused.

use super::contract::{WHOLE_WAY, assert_promoted};
use super::failures::assert_rejected;
use super::world::{Cut, World};
use super::{approved, plain};
use crate::api::ReleasePhase;
use crate::api::release::Verb;

/// A release at a step with its weight reached.
fn at_step(step: u32) -> World {
    let mut world = World::stable(8, plain());
    world.set_image("v2");
    world.until(|w| w.reached(step));
    world
}

/// The answer to the last command.
fn answer(world: &World) -> (bool, String) {
    let commands = world.release_status().commands;
    assert_eq!(commands.len(), world.release().spec.commands.len(), "every command has an answer");
    let last = commands.last().unwrap().clone();
    (last.accepted, last.message.unwrap_or_default())
}

fn assert_refused(world: &World, part: &str) {
    let (accepted, message) = answer(world);
    assert!(!accepted);
    assert!(message.contains(part), "{message}");
}

#[test]
fn pause_holds_the_weight_and_the_clock_until_resume() {
    for step in 0..3 {
        let mut world = at_step(step);
        world.advance(4);
        world.command(Verb::Pause);
        world.advance(1_000);
        assert!(answer(&world).0);
        let size = world.canary_size();
        assert_eq!((world.release_phase(), world.step()), (ReleasePhase::Paused, step));
        let elapsed = world.release_status().step.elapsed_seconds;
        assert!((3.9..6.0).contains(&elapsed), "{elapsed}");
        world.assert_quiet();
        world.restart();
        world.advance(1_000);
        assert_eq!((world.release_phase(), world.canary_size()), (ReleasePhase::Paused, size));
        world.command(Verb::Pause);
        world.advance(1);
        assert_refused(&world, "paused already");
        world.command(Verb::Resume);
        world.advance(3);
        assert_eq!((world.release_phase(), world.step()), (ReleasePhase::Progressing, step));
        world.command(Verb::Resume);
        world.advance(1);
        assert_refused(&world, "not paused");
        world.advance(100);
        assert_promoted(&mut world, "v2");
    }
}

#[test]
fn promote_leaves_one_step_and_says_who_and_why() {
    let mut world = at_step(0);
    world.command_with(Verb::Promote, Some(1), false);
    world.advance(1);
    assert!(answer(&world).0);
    assert_eq!(world.step(), 1);
    assert_eq!(world.release_status().timeline[1].message, "step 1 passed by ann: because");
    world.advance(100);
    assert_eq!(world.timeline(), WHOLE_WAY);
    assert_promoted(&mut world, "v2");
}

#[test]
fn promote_ends_a_pause() {
    let mut world = at_step(1);
    world.command(Verb::Pause);
    world.advance(1);
    world.command(Verb::Promote);
    world.advance(100);
    assert_promoted(&mut world, "v2");
}

#[test]
fn promote_full_leaves_all_steps_and_still_needs_ready_pods() {
    let mut world = at_step(0);
    world.command_with(Verb::Promote, None, true);
    world.settle();
    assert_eq!(world.release_phase(), ReleasePhase::Promoting);
    assert_eq!(world.canary_size(), 8);
    assert!(world.canary().is_some(), "no handover before all pods are ready");
    world.advance(3);
    assert_eq!(world.timeline(), ["ReleaseStarted", "StepPassed", "Promoting", "Promoted"]);
    assert_promoted(&mut world, "v2");
}

#[test]
fn a_command_for_another_step_is_refused() {
    for verb in [Verb::Promote, Verb::Approve] {
        let mut world = at_step(1);
        world.command_with(verb, Some(1), false);
        world.settle();
        assert_refused(&world, "at step 2 of 3");
        assert_eq!(world.step(), 1);
    }
}

#[test]
fn two_promotes_of_one_moment_leave_one_step() {
    let mut world = at_step(0);
    world.command(Verb::Promote);
    world.command(Verb::Promote);
    world.settle();
    let answers: Vec<bool> = world.release_status().commands.iter().map(|c| c.accepted).collect();
    assert_eq!(answers, [true, false]);
    assert_eq!(world.step(), 1);
}

#[test]
fn approve_lifts_the_wait_of_its_step_only() {
    let mut world = World::stable(4, approved());
    world.set_image("v2");
    world.until(|w| w.reached(0));
    world.command(Verb::Approve);
    world.settle();
    assert_refused(&world, "does not wait for a person");
    world.until(|w| w.reached(1));
    world.command(Verb::Approve);
    world.advance(5);
    assert!(answer(&world).0);
    assert_eq!(world.step(), 1, "its time still counts");
    world.advance(7);
    assert_promoted(&mut world, "v2");
}

#[test]
fn abort_rolls_back_at_once_in_every_step() {
    for step in 0..3 {
        let mut world = at_step(step);
        let stable = world.pods_of("v1");
        world.command(Verb::Abort);
        world.settle();
        assert_eq!(world.canary_size(), 0);
        assert!(answer(&world).0);
        assert_eq!(world.release_status().message.as_deref(), Some("aborted by ann: because"));
        assert_rejected(&mut world, "Aborted", &stable);
    }
}

#[test]
fn abort_works_in_a_pause_and_while_promoting() {
    let mut world = at_step(1);
    let stable = world.pods_of("v1");
    world.command(Verb::Pause);
    world.advance(5);
    world.command(Verb::Abort);
    world.settle();
    assert_rejected(&mut world, "Aborted", &stable);

    let mut world = at_step(0);
    world.command_with(Verb::Promote, None, true);
    world.settle();
    world.command(Verb::Abort);
    world.settle();
    assert_rejected(&mut world, "Aborted", &stable);
}

#[test]
fn while_promoting_only_abort_is_taken() {
    for verb in [Verb::Promote, Verb::Approve, Verb::Pause, Verb::Resume, Verb::Retry] {
        let mut world = at_step(0);
        world.command_with(Verb::Promote, None, true);
        world.settle();
        world.command(verb);
        world.settle();
        assert!(!answer(&world).0, "{verb:?}");
        world.advance(10);
        assert_promoted(&mut world, "v2");
    }
}

#[test]
fn a_command_after_the_handover_is_answered() {
    for verb in [Verb::Abort, Verb::Promote, Verb::Pause] {
        let mut world = at_step(2);
        world.after = Some((
            "HandOver",
            match verb {
                Verb::Abort => |w| w.command(Verb::Abort),
                Verb::Promote => |w| w.command(Verb::Promote),
                _ => |w| w.command(Verb::Pause),
            },
        ));
        world.advance(20);
        assert_refused(&world, "");
        assert_promoted(&mut world, "v2");
    }
}

#[test]
fn a_finished_release_refuses_commands() {
    for verb in [Verb::Promote, Verb::Pause, Verb::Resume, Verb::Abort, Verb::Approve] {
        let mut world = at_step(2);
        world.advance(20);
        assert_promoted(&mut world, "v2");
        world.command(verb);
        world.settle();
        assert_refused(&world, "has ended");
        world.assert_quiet();
    }
}

#[test]
fn retry_is_refused_where_there_is_nothing_to_retry() {
    let mut world = at_step(0);
    world.command(Verb::Retry);
    world.settle();
    assert_refused(&world, "still running");
    world.advance(100);
    assert_promoted(&mut world, "v2");
    world.command(Verb::Retry);
    world.settle();
    assert_refused(&world, "not rolled back");

    let mut world = at_step(0);
    world.command(Verb::Abort);
    world.advance(5);
    world.set_image("v1");
    world.advance(5);
    world.command(Verb::Retry);
    world.settle();
    assert_refused(&world, "does not have revision");
    world.assert_quiet();
}

#[test]
fn a_retry_of_an_older_attempt_counts_once() {
    let mut world = at_step(0);
    world.command(Verb::Abort);
    world.advance(5);
    world.command(Verb::Retry);
    world.settle();
    assert_eq!(world.releases.len(), 2);
    world.advance(100);
    assert_eq!(world.releases.len(), 2);
    assert_promoted(&mut world, "v2");
}

#[test]
fn commands_before_the_first_pod_are_taken() {
    let mut world = World::stable(8, plain());
    let stable = world.pods_of("v1");
    world.set_image("v2");
    world.after = Some(("CreateRelease", |w| w.command(Verb::Abort)));
    world.advance(10);
    assert_rejected(&mut world, "Aborted", &stable);
}

#[test]
fn an_abort_that_was_carried_out_before_a_restart_is_answered_as_done() {
    let mut world = at_step(1);
    world.command(Verb::Abort);
    // The process ends right after the weight went to 0.
    world.cut = Some(Cut { pass: world.passes.len(), after: 1, dies: true });
    world.advance(5);
    assert!(answer(&world).0);
    assert_eq!(world.release_phase(), ReleasePhase::RolledBack);
}
