//! Cut anywhere, a caught change ends the same.

use super::super::restart::cut_anywhere;
use super::super::world::{Cut, Fate, World, template};
use super::super::{guarded, plain};
use super::*;
use crate::api::release::Verb;

/// Where it does not matter which pods they are.
fn any(_: &World, _: Cut) {}

#[test]
fn cut_anywhere_a_good_change_ends_the_same() {
    cut_anywhere(
        |w| {
            w.set_image("v2");
            w.advance(60);
        },
        &unbraked(5, plain()),
        any,
    );
    let mut start = unbraked(8, plain());
    start.set_image("v2");
    until_ready(&mut start, "v2", 4);
    cut_anywhere(|w| w.advance(60), &start, any);
}

#[test]
fn cut_anywhere_before_a_pod_came_out_it_is_promoted_one_way_or_the_other() {
    // Where the pause did not arrive, pods come out.
    let start = unbraked(5, plain());
    for pass in 0..4 {
        for (after, dies) in [(0, true), (0, false), (1, true), (1, false), (2, true), (2, false)] {
            let mut world = start.clone();
            world.cut = Some(Cut { pass, after, dies });
            world.set_image("v2");
            world.pass();
            world.advance(100);
            assert_eq!(world.release_phase(), ReleasePhase::Promoted, "{pass} {after} {dies}");
            assert_eq!(world.ready_of("v2"), 5);
            world.assert_quiet();
        }
    }
}

#[test]
fn cut_anywhere_a_crash_ends_the_same() {
    let mut start = unbraked(5, plain());
    start.fates.insert("v2".into(), Fate::Crash(1));
    cut_anywhere(
        |w| {
            w.set_image("v2");
            w.advance(60);
        },
        &start,
        any,
    );
    // After it was let go.
    cut_anywhere(
        |w| {
            w.set_image("v2");
            w.until(|w| w.release_phase() == ReleasePhase::Promoting);
            w.advance(1);
            w.fates.insert("v2".into(), Fate::Crash(0));
            w.advance(60);
        },
        &unbraked(5, plain()),
        any,
    );
}

#[test]
fn cut_anywhere_a_guard_that_fails_ends_the_same() {
    let mut start = unbraked(5, guarded());
    start.bad_share.insert("v2".into(), 0.05);
    cut_anywhere(
        |w| {
            w.set_image("v2");
            w.until(|w| w.release_phase() == ReleasePhase::RolledBack);
            w.advance(100);
        },
        &start,
        any,
    );
}

#[test]
fn cut_anywhere_an_abort_a_revert_and_a_superseding_change_end_the_same() {
    let start = || {
        let mut start = unbraked(8, plain());
        start.set_image("v2");
        until_ready(&mut start, "v2", 3);
        start
    };
    let scenarios: [fn(&mut World); 3] =
        [|w| w.command(Verb::Abort), |w| w.set_image("v1"), |w| w.edit(|d| d.template = template("v3"))];
    for event in scenarios {
        cut_anywhere(
            |w| {
                w.settle();
                w.advance(3);
                event(w);
                w.advance(200);
            },
            &start(),
            any,
        );
    }
}

#[test]
fn cut_anywhere_deletions_end_the_same() {
    let scenarios: [fn(&mut World); 3] =
        [World::delete_rollout, World::delete_deployment, World::delete_release];
    for event in scenarios {
        cut_anywhere(
            |w| {
                w.set_image("v2");
                w.settle();
                w.advance(3);
                event(w);
                w.advance(100);
            },
            &unbraked(4, plain()),
            any,
        );
    }
}

#[test]
fn cut_anywhere_a_return_ends_the_same() {
    let mut start = rejected(4, plain());
    start.passes.clear();
    cut_anywhere(
        |w| {
            w.set_image("v2");
            w.advance(400);
        },
        &start,
        any,
    );
    cut_anywhere(
        |w| {
            w.set_image("v2");
            until_ready(w, "v2", 4);
            w.advance(400);
        },
        &start,
        any,
    );
}
