//! Changes that go past the brake: caught, watched, let go or undone.

use serde_json::{Value, json};

use super::restart::cut_anywhere;
use super::world::{Cut, Fate, World, of, template};
use super::{guarded, judged, plain, with};
use crate::api::release::Verb;
use crate::api::{ReleasePhase, RolloutPhase};
use crate::decide::{Brake, Effect};

/// The way of a good change.
const WAY: [&str; 4] = ["Caught", "StepPassed", "LetGo", "Promoted"];

/// A stable workload whose brake is missing.
fn unbraked(replicas: i32, spec: Value) -> World {
    let mut world = World::stable(replicas, spec);
    world.brake = Brake::Missing("the policy was deleted".into());
    world.settle();
    world.log.clear();
    world.passes.clear();
    world
}

/// Belay is down until so many pods of the present template are ready.
fn until_ready(world: &mut World, image: &str, ready: usize) {
    world.restart();
    for _ in 0..600 {
        world.controllers();
        if world.ready_of(image) >= ready {
            return;
        }
        world.now += 1000;
    }
    panic!("never {ready} ready pods of {image}");
}

/// `v2` slipped and is caught at its first pods.
fn at_first(replicas: i32, spec: Value) -> World {
    let mut world = unbraked(replicas, spec);
    world.set_image("v2");
    world.settle();
    assert!(world.release().spec.unbraked && world.workload().paused);
    world
}

/// `v2` slipped while Belay was down, and is caught when so many pods of it are ready.
fn half_way(replicas: i32, spec: Value, ready: usize) -> World {
    let mut world = unbraked(replicas, spec);
    world.set_image("v2");
    until_ready(&mut world, "v2", ready);
    world.settle();
    assert!(world.release().spec.unbraked && world.workload().paused);
    world
}

/// `v2` was watched and is let go.
fn let_go(replicas: i32, spec: Value) -> World {
    let mut world = at_first(replicas, spec);
    world.until(|w| w.release_phase() == ReleasePhase::Promoting);
    world.settle();
    assert!(!world.workload().paused);
    world
}

fn ready(world: &World) -> usize {
    world.pods.iter().filter(|p| p.pod.ready).count()
}

/// Lets time go by; the fewest ready pods at any time.
fn least_ready(world: &mut World, seconds: i64) -> usize {
    let mut least = ready(world);
    for _ in 0..seconds {
        world.advance(1);
        least = least.min(ready(world));
    }
    least
}

fn size_of(world: &World, image: &str) -> usize {
    world.pods_of(image).len()
}

/// What was told, oldest first.
fn told(world: &World) -> Vec<&'static str> {
    let mut told = Vec::new();
    for effect in &world.log {
        if let Effect::Announce(a) = effect {
            told.push(a.kind);
        }
    }
    told
}

fn count(world: &World, name: &str) -> usize {
    world.log.iter().filter(|e| e.name() == name).count()
}

/// The last release was let go and promoted to `image`, by the workload's own controller.
fn assert_out(world: &mut World, image: &str) {
    assert_eq!(world.release_phase(), ReleasePhase::Promoted, "{:?}", world.release_status());
    let stable = world.status().stable.unwrap();
    assert_eq!((stable.revision, stable.replica_set), (of(image), format!("web-k{}", of(image))));
    assert_eq!(world.phase(), RolloutPhase::Stable);
    let workload = world.workload().clone();
    assert_eq!((workload.paused, workload.release_label, workload.braked), (false, None, false));
    let replicas = usize::try_from(workload.replicas).unwrap();
    assert_eq!((world.pods.len(), world.ready_of(image)), (replicas, replicas));
    world.assert_quiet();
}

/// The last release was undone: `v1` serves at full size with its template, `v2` is gone and vetoed.
fn assert_undone(world: &mut World, reason: &str) {
    let status = world.release_status();
    assert_eq!(
        (status.phase, status.reason.as_deref()),
        (ReleasePhase::RolledBack, Some(reason)),
        "{status:?}"
    );
    assert_eq!(status.weight.map(|w| w.canary_pods), Some(0));
    assert_back(world);
    let vetoed: Vec<(String, String)> =
        world.status().vetoed.iter().map(|v| (v.revision.clone(), v.reason.clone())).collect();
    assert_eq!(vetoed, [(of("v2"), reason.to_owned())]);
    world.assert_quiet();
}

/// The workload has `v1` and all its pods, and nothing of Belay's holds it.
fn assert_back(world: &World) {
    let workload = world.workload();
    assert_eq!((&workload.revision, workload.paused), (&of("v1"), false));
    assert_eq!((&workload.release_label, workload.braked), (&None, false));
    assert_eq!(world.phase(), RolloutPhase::Stable, "{:?}", world.status());
    let replicas = usize::try_from(workload.replicas).unwrap();
    assert_eq!((world.pods.len(), world.ready_of("v1")), (replicas, replicas));
    assert_eq!(world.status().stable.unwrap().revision, of("v1"));
}

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
    super::contract::assert_promoted(&mut world, "v2");
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
    world.requests.insert("v2".into(), 0.0);
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

/// A failure is held for a person.
fn by_hand() -> Value {
    with(plain(), "rollback", json!({"automatic": false}))
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
    world.edit_rollout(|s| s.analysis.as_mut().unwrap().guards[0].ratio.tolerate = "much".into());
    world.set_image("v2");
    world.advance(100);
    assert_eq!(world.phase(), RolloutPhase::Held);
    assert!(world.workload().paused);
    assert_eq!(size_of(&world, "v2"), 2);
    world.assert_quiet();
}

#[test]
fn what_the_brake_pauses_half_way_is_caught() {
    let mut world = half_way(8, plain(), 4);
    world.brake = Brake::Engaged;
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
    super::contract::assert_promoted(&mut world, "v2");
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
                world.brake = Brake::Engaged;
                world.settle();
            } else if !paused {
                continue;
            }
            world.set_image("v3");
            assert!(least_ready(&mut world, 200) >= 8);
            assert_eq!(world.releases[0].status.clone().unwrap().phase, ReleasePhase::Superseded);
            assert!(!world.release().spec.unbraked);
            super::contract::assert_promoted(&mut world, "v3");
        }
    }
}

#[test]
fn changed_again_when_it_serves_alone_it_counts_as_promoted() {
    let mut world = let_go(4, plain());
    until_ready(&mut world, "v2", 4);
    world.brake = Brake::Engaged;
    world.set_image("v3");
    world.controllers();
    world.settle();
    assert_eq!(world.releases[0].status.clone().unwrap().phase, ReleasePhase::Promoted);
    assert_eq!(world.status().stable.unwrap().revision, of("v2"));
    world.advance(100);
    super::contract::assert_promoted(&mut world, "v3");
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
    world.brake = Brake::Engaged;
    world.set_image("v3");
    world.settle();
    assert_eq!(world.releases[0].status.clone().unwrap().phase, ReleasePhase::RolledBack);
    world.advance(200);
    super::contract::assert_promoted(&mut world, "v3");
    assert_eq!(world.status().vetoed.len(), 1);
}

#[test]
fn changed_back_it_ends_and_the_workload_goes_back_by_itself() {
    for engaged in [false, true] {
        for start in [at_first(8, plain()), half_way(8, plain(), 4), let_go(8, plain())] {
            let mut world = start;
            if engaged {
                world.brake = Brake::Engaged;
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
            world.brake = Brake::Engaged;
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
    world.brake = Brake::Engaged;
    world.set_image("v3");
    world.advance(100);
    super::contract::assert_promoted(&mut world, "v3");
    assert_eq!(world.status().message.unwrap(), "the stable revision serves; nothing is on its way");
}

/// `v2` was caught, crashed, and is undone.
fn rejected(replicas: i32, spec: Value) -> World {
    let mut world = at_first(replicas, spec);
    world.fates.insert("v2".into(), Fate::Crash(0));
    world.advance(30);
    assert_undone(&mut world, "CanaryCrashed");
    world.fates.clear();
    world.log.clear();
    world
}

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
    super::contract::assert_promoted(&mut world, "v2");
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
    world.brake = Brake::Engaged;
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
