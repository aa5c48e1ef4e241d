//! What happens while the watches are interrupted, and with Releases that cannot be read.

use jiff::SignedDuration;
use serde_json::json;

use super::plain;
use super::world::{Fate, World, of, time};
use crate::api::release::Verb;
use crate::api::{ReleasePhase, RolloutPhase};
use crate::decide::{Sight, UnreadRelease};

/// The watches are interrupted from now on.
fn lost(world: &mut World) {
    world.sight = Sight { lost_since: Some(time(world.now)), clear_at: None };
}

/// They are answered again, and everything has settled after so many seconds.
fn found(world: &mut World, seconds: i64) {
    let clear_at = time(world.now) + SignedDuration::from_secs(seconds);
    world.sight = Sight { lost_since: None, clear_at: Some(clear_at) };
}

fn codes(world: &World) -> Vec<&str> {
    world.last.reasons.iter().map(crate::decide::Reason::code).collect()
}

#[test]
fn no_step_is_passed_out_of_sight_and_the_time_counts_if_the_pods_were_ready() {
    let mut world = World::stable(5, plain());
    world.set_image("v2");
    world.until(|w| w.reached(0));
    world.advance(4);
    lost(&mut world);
    world.advance(120);
    assert!(world.in_step(0), "120 s of a step of 10 s, and nobody saw the pods");
    assert_eq!(world.canary_size(), 1);
    assert_eq!(codes(&world), ["OutOfSight"]);
    found(&mut world, 15);
    world.advance(14);
    assert!(world.in_step(0), "what happened meanwhile is not written yet");
    world.advance(2);
    assert!(world.in_step(1), "the pods were ready all the time, as they say themselves");
    world.until(|w| w.release_phase() == ReleasePhase::Promoted);
    super::contract::assert_promoted(&mut world, "v2");
}

#[test]
fn the_clock_begins_anew_when_a_pod_was_not_ready_meanwhile() {
    let mut world = World::stable(5, plain());
    world.set_image("v2");
    world.until(|w| w.reached(0));
    world.advance(4);
    lost(&mut world);
    world.advance(20);
    // The pod was away for a while: what it says now is all that is known of it.
    let now = time(world.now);
    let pod = world.pods.iter_mut().find(|p| p.image == "v2").unwrap();
    pod.pod.ready_changed_at = Some(now);
    found(&mut world, 0);
    world.advance(8);
    assert!(world.in_step(0), "8 s since it is ready again");
    world.advance(3);
    assert!(world.in_step(1));
}

#[test]
fn a_restarted_operator_believes_the_pods_and_not_the_recorded_clock() {
    let mut world = World::stable(5, plain());
    world.set_image("v2");
    world.until(|w| w.reached(0));
    // Nobody runs for 30 s, and the pod is unready for most of it.
    world.now += 30_000;
    let now = time(world.now);
    let pod = world.pods.iter_mut().find(|p| p.image == "v2").unwrap();
    pod.pod.ready_changed_at = Some(now);
    world.restart();
    world.settle();
    assert!(world.in_step(0));
    world.advance(8);
    assert!(world.in_step(0));
    world.advance(3);
    assert!(world.in_step(1));
}

#[test]
fn a_rollback_does_not_wait_for_sight() {
    let mut world = World::stable(5, plain());
    world.fates.insert("v2".into(), Fate::Crash(5));
    world.set_image("v2");
    world.until(|w| w.in_step(0));
    lost(&mut world);
    world.until(|w| w.release_phase() == ReleasePhase::RolledBack);
    assert_eq!(world.canary_size(), 0);
    world.assert_quiet();
}

#[test]
fn an_abort_does_not_wait_for_sight_and_nothing_is_handed_over_without() {
    let mut world = World::stable(5, plain());
    world.set_image("v2");
    world.until(|w| w.reached(2));
    lost(&mut world);
    world.command_with(Verb::Promote, None, true);
    world.advance(60);
    assert_eq!(world.release_phase(), ReleasePhase::Promoting, "a person's word counts");
    assert!(world.canary().is_some(), "and yet it is not let go");
    world.delete_rollout();
    world.advance(1);
    assert!(world.rollout.is_none());
    assert!(world.canary().is_none());
}

#[test]
fn the_weight_does_not_grow_out_of_sight_but_it_falls() {
    let mut world = World::stable(10, plain());
    world.set_image("v2");
    world.until(|w| w.reached(1));
    assert_eq!(world.canary_size(), 4);
    lost(&mut world);
    world.scale(20);
    world.advance(5);
    assert_eq!(world.canary_size(), 4, "7 are wanted");
    world.scale(5);
    world.advance(5);
    assert_eq!(world.canary_size(), 2);
    found(&mut world, 0);
    world.scale(20);
    world.advance(5);
    assert_eq!(world.canary_size(), 7);
}

/// The running Release is such that this version cannot read it.
fn unread(world: &mut World, ended: bool) -> String {
    let release = world.releases.pop().unwrap();
    let name = release.metadata.name.unwrap();
    world.unread = vec![UnreadRelease { name: name.clone(), detail: "unknown field `bake`".into(), ended }];
    world.restart();
    name
}

#[test]
fn a_running_release_that_cannot_be_read_holds_its_rollout() {
    let mut world = World::stable(5, plain());
    world.set_image("v2");
    world.until(|w| w.reached(1));
    let (pods, sets) = (world.pods.len(), world.sets.len());
    let name = unread(&mut world, false);
    world.advance(600);
    assert_eq!(world.phase(), RolloutPhase::Held);
    let message = world.status().message.unwrap();
    assert!(message.contains(&name) && message.contains("unknown field `bake`"), "{message}");
    assert!(world.releases.is_empty(), "no second release");
    assert_eq!((world.pods.len(), world.sets.len()), (pods, sets), "and its canary is not a stray");
    assert!(world.workload().paused);
    assert!(world.status().vetoed.is_empty());
    let ready = world.status().conditions.into_iter().find(|c| c.type_ == "Ready").unwrap();
    assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", "ReleaseUnreadable"));
    let told = world.log.iter().filter(|e| e.name() == "Announce").count();
    world.advance(600);
    assert_eq!(world.log.iter().filter(|e| e.name() == "Announce").count(), told, "told once");
    // Another change waits, too.
    world.set_image("v3");
    world.advance(60);
    assert!(world.releases.is_empty() && world.workload().paused);
    world.assert_quiet();

    // Deleting it is the way out: its canary goes, and the present change gets a release of its own.
    world.unread.clear();
    world.until(|w| w.release_phase() == ReleasePhase::Promoted);
    super::contract::assert_promoted(&mut world, "v3");
}

#[test]
fn a_rollout_with_an_unreadable_release_can_be_deleted() {
    let mut world = World::stable(5, plain());
    world.set_image("v2");
    world.until(|w| w.reached(1));
    unread(&mut world, false);
    world.advance(5);
    world.delete_rollout();
    world.advance(5);
    assert!(world.rollout.is_none(), "the finalizer is off");
    assert!(world.canary().is_none());
    assert_eq!(world.ready_of("v1"), 5);
}

#[test]
fn a_finished_release_that_cannot_be_read_is_history() {
    let mut world = World::stable(5, plain());
    world.set_image("v2");
    world.until(|w| w.release_phase() == ReleasePhase::Promoted);
    world.set_image("v1");
    world.until(|w| w.release_phase() == ReleasePhase::Promoted);
    world.releases.retain(|r| r.spec.to.revision == of("v2"));
    let taken = unread(&mut world, true);
    assert_eq!(taken, format!("web-{}", of("v2")));
    world.set_image("v2");
    world.until(|w| !w.releases.is_empty());
    let name = world.release().metadata.name.clone().unwrap();
    assert_eq!(name, format!("{taken}-2"), "its name is taken");
    world.until(|w| w.release_phase() == ReleasePhase::Promoted);
    super::contract::assert_promoted(&mut world, "v2");
}

#[test]
fn what_a_newer_version_wrote_into_a_status_is_kept() {
    let status = json!({"phase": "Progressing", "step": {"index": 1, "elapsedSeconds": 2.5}, "bakes": [{"for": "1h"}]});
    let read: crate::api::ReleaseStatus = serde_json::from_value(status.clone()).unwrap();
    assert_eq!(read.phase, ReleasePhase::Progressing);
    assert_eq!(serde_json::to_value(read).unwrap()["bakes"], status["bakes"]);
    let read: crate::api::RolloutStatus = serde_json::from_value(json!({"quota": 3})).unwrap();
    assert_eq!(serde_json::to_value(read).unwrap(), json!({"quota": 3}));
}
