//! Changes that go past the brake: caught, watched, let go or undone.

mod changes;
mod cuts;
mod returns;
mod watched;

use serde_json::{Value, json};

use super::world::{Fate, World, of};
use super::{plain, with};
use crate::api::{BrakeForm, ReleasePhase, RolloutPhase};
use crate::decide::{Brake, Effect};

/// The way of a good change.
const WAY: [&str; 4] = ["Caught", "StepPassed", "LetGo", "Promoted"];

/// A stable workload whose brake is missing.
fn unbraked(replicas: i32, spec: Value) -> World {
    let mut world = World::stable(replicas, spec);
    world.brake = Brake::Missing(BrakeForm::Policy, "the policy was deleted".into());
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

/// A failure is held for a person.
fn by_hand() -> Value {
    with(plain(), "rollback", json!({"automatic": false}))
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
