//! Random histories: whatever happens, the invariants of the world hold, and it goes quiet at the end.

use proptest::prelude::*;
use serde_json::json;

use super::world::{Cut, Fate, World};
use super::{approved, guarded, plain, with};
use crate::api::BrakeForm;
use crate::api::release::Verb;
use crate::decide::Brake;

#[derive(Clone, Debug)]
enum Event {
    Wait(i64),
    Scale(i32),
    Image(u8),
    Command(Verb, Option<i32>, bool),
    Fate(u8, Fate),
    BadShare(u8, bool),
    SourceDown(bool),
    Restart,
    Cut(usize, usize, bool),
    Turn,
    Paused(bool),
    Unpause,
    DropLabel,
    Floor(Option<i32>),
    DeleteRelease,
    BrakeMissing(bool),
    DeleteDeployment,
    DeleteRollout,
    /// Belay is down for so long, and somebody else changes the image meanwhile.
    Away(u8, i64),
}

fn verb() -> impl Strategy<Value = Verb> {
    prop::sample::select(vec![
        Verb::Promote,
        Verb::Pause,
        Verb::Resume,
        Verb::Abort,
        Verb::Approve,
        Verb::Retry,
    ])
}

fn fate() -> impl Strategy<Value = Fate> {
    prop::sample::select(vec![
        Fate::Good,
        Fate::Crash(0),
        Fate::Crash(15),
        Fate::OutOfMemory(5),
        Fate::LosesReadiness(8),
        Fate::NeverReady,
        Fate::Unschedulable,
    ])
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => (1..60_i64).prop_map(Event::Wait),
        3 => (0..12_i32).prop_map(Event::Scale),
        6 => (1..4_u8).prop_map(Event::Image),
        5 => (verb(), prop::option::of(1..4_i32), any::<bool>()).prop_map(|(v, s, f)| Event::Command(v, s, f)),
        2 => (2..4_u8, fate()).prop_map(|(i, f)| Event::Fate(i, f)),
        1 => (2..4_u8, any::<bool>()).prop_map(|(i, b)| Event::BadShare(i, b)),
        1 => any::<bool>().prop_map(Event::SourceDown),
        2 => Just(Event::Restart),
        3 => (0..4_usize, 0..6_usize, any::<bool>()).prop_map(|(p, a, d)| Event::Cut(p, a, d)),
        3 => Just(Event::Turn),
        1 => any::<bool>().prop_map(Event::Paused),
        1 => Just(Event::Unpause),
        1 => Just(Event::DropLabel),
        1 => prop::option::of(1..9_i32).prop_map(Event::Floor),
        1 => Just(Event::DeleteRelease),
    ]
}

/// What nobody should do, and somebody will.
fn rude_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        12 => event(),
        1 => any::<bool>().prop_map(Event::BrakeMissing),
        1 => Just(Event::DeleteDeployment),
        1 => Just(Event::DeleteRollout),
    ]
}

/// What happens where the brake is missing now and then.
fn unbraked_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        20 => event(),
        6 => any::<bool>().prop_map(Event::BrakeMissing),
        6 => (1..4_u8, 0..20_i64).prop_map(|(i, s)| Event::Away(i, s)),
        1 => Just(Event::DeleteDeployment),
        1 => Just(Event::DeleteRollout),
    ]
}

fn happen(world: &mut World, event: &Event) {
    match event {
        Event::Wait(seconds) => world.advance(*seconds),
        Event::Scale(replicas) => world.scale(*replicas),
        Event::Image(number) => world.set_image(&format!("v{number}")),
        Event::Command(verb, step, full) => world.command_with(*verb, *step, *full),
        Event::Fate(number, fate) => _ = world.fates.insert(format!("v{number}"), *fate),
        Event::BadShare(number, bad) => {
            world.bad_share.insert(format!("v{number}"), if *bad { 0.05 } else { 0.001 });
        }
        Event::SourceDown(down) => world.source_down = down.then(|| "connection refused".into()),
        Event::Restart => world.restart(),
        Event::Cut(later, after, dies) => {
            world.cut = Some(Cut { pass: world.passes.len() + later, after: *after, dies: *dies });
        }
        Event::Turn => {
            world.controllers();
            world.pass();
        }
        Event::Paused(paused) => world.edit_rollout(|s| s.paused = *paused),
        Event::Unpause => world.edit(|w| w.paused = false),
        Event::DropLabel => {
            if let Some(w) = &mut world.deployment {
                w.rollout_label = None;
            }
        }
        Event::Floor(min) => {
            if let Some(autoscaler) = &mut world.autoscaler {
                autoscaler.min = *min;
            }
        }
        Event::DeleteRelease => world.delete_release(),
        Event::BrakeMissing(missing) => {
            world.brake = if *missing {
                Brake::Missing(BrakeForm::Policy, "gone".into())
            } else {
                Brake::Engaged(BrakeForm::Policy)
            };
        }
        Event::DeleteDeployment => world.delete_deployment(),
        Event::DeleteRollout => world.delete_rollout(),
        Event::Away(number, seconds) => {
            world.restart();
            world.set_image(&format!("v{number}"));
            for _ in 0..*seconds {
                world.controllers();
                world.now += 1000;
            }
        }
    }
}

fn spec() -> impl Strategy<Value = serde_json::Value> {
    let held = with(plain(), "rollback", json!({"automatic": false}));
    let restoring = with(plain(), "rollback", json!({"automatic": true, "restoreTemplate": true}));
    let pruned = with(plain(), "historyLimit", json!(1));
    prop::sample::select(vec![plain(), plain(), guarded(), approved(), held, restoring, pruned])
}

/// Plays the events, then heals everything that a person can heal, and waits.
fn play(mut world: World, events: &[Event], autoscaled: bool) -> World {
    if autoscaled {
        world.autoscaler = Some(super::changes::autoscaler(Some(2)));
    }
    for event in events {
        happen(&mut world, event);
        assert!(world.breaches.is_empty(), "{event:?}: {:#?}", world.breaches);
    }
    world.fates.clear();
    world.source_down = None;
    world.advance(5_000);
    world
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_invariants_hold(
        spec in spec(),
        replicas in 0..10_i32,
        autoscaled: bool,
        events in prop::collection::vec(event(), 1..25),
    ) {
        let mut world = play(World::stable(replicas, spec), &events, autoscaled);
        // The guards of a release that a person paused go on looking.
        if !world.is_measured() {
            world.assert_quiet();
        }
        let replicas = usize::try_from(world.workload().replicas).unwrap();
        let ready = world.pods.iter().filter(|p| p.pod.ready).count();
        prop_assert!(ready >= replicas, "{} of {}", ready, replicas);
        let running = world.releases.iter().filter(|r| !r.status.as_ref().is_some_and(|s| s.phase.is_final()));
        prop_assert!(running.count() <= 1);
    }

    #[test]
    fn whatever_is_deleted_nothing_is_left_behind(
        spec in spec(),
        replicas in 0..10_i32,
        events in prop::collection::vec(rude_event(), 1..25),
    ) {
        let mut world = play(World::stable(replicas, spec), &events, true);
        if world.rollout.is_none() {
            let labels = world.deployment.as_ref().map(|w| (w.rollout_label.clone(), w.release_label.clone()));
            prop_assert!(labels.is_none_or(|l| l == (None, None)));
            prop_assert!(world.canary().is_none());
        }
        if world.rollout.is_none() || world.deployment.is_none() {
            let held = world.autoscaler.as_ref().and_then(|a| a.held.clone());
            prop_assert_eq!(held, None);
        }
        if !world.is_measured() {
            world.assert_quiet();
        }
    }

    #[test]
    fn past_the_brake_the_invariants_hold_too(
        spec in spec(),
        replicas in 0..10_i32,
        unavailable in 0..3_i32,
        autoscaled: bool,
        events in prop::collection::vec(unbraked_event(), 1..25),
    ) {
        let mut world = World::stable(replicas, spec);
        world.unavailable = unavailable;
        world.brake = Brake::Missing(BrakeForm::Policy, "gone".into());
        let mut world = play(world, &events, autoscaled);
        if !world.is_measured() {
            world.assert_quiet();
        }
        let running = world.releases.iter().filter(|r| !r.status.as_ref().is_some_and(|s| s.phase.is_final()));
        prop_assert!(running.count() <= 1);
        if let Some(w) = &world.deployment {
            let ready = i32::try_from(world.pods.iter().filter(|p| p.pod.ready).count()).unwrap();
            // Paused on its way, the workload has what its own rolling update had left.
            let least = if w.paused { w.replicas - unavailable } else { w.replicas };
            prop_assert!(ready >= least, "{} of {}", ready, w.replicas);
        }
    }
}
