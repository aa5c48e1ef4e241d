//! Every scenario of the small world, and in it every fault at every single request of the operator.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::World;
use super::process::Fault;
use super::scenarios::{Scenario, all};

/// Runs `work` on every item, on all cores. Panics with all failures; with `BELAY_FAIL_FAST` it stops at the first.
pub fn side_by_side<T: Sync>(items: &[T], work: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    let failed: Mutex<Vec<String>> = Mutex::default();
    let hasty = std::env::var_os("BELAY_FAIL_FAST").is_some();
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if hasty && !failed.lock().unwrap().is_empty() {
                        return;
                    }
                    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(item)));
                    if let Err(panic) = caught {
                        let text = panic.downcast_ref::<String>().cloned();
                        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
                        failed.lock().unwrap().push(text.unwrap_or_default());
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    let (count, of) = (failed.len(), items.len());
    assert!(failed.is_empty(), "{count} of {of} failed, at commit {}:\n{}", commit(), failed.join("\n\n"));
}

/// What the tree is, so that a failure can be played again.
fn commit() -> String {
    let asked = std::process::Command::new("git").args(["describe", "--always", "--dirty"]).output();
    let said = asked.map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned()).unwrap_or_default();
    if said.is_empty() { "unknown".to_owned() } else { said }
}

/// The undisturbed history of a scenario, and the world just before each request in it.
pub fn reference(scenario: &Scenario, eager: bool) -> (World, Vec<World>) {
    let mut world = scenario.world();
    world.eager = eager;
    world.snapshots = Some(Vec::new());
    world.play(scenario.tail);
    let snapshots = world.snapshots.take().unwrap();
    world.assert_sound(&scenario.name);
    (world, snapshots)
}

/// Goes on from a moment with a request on its way.
pub fn go_on(mut world: World, scenario: &Scenario) -> World {
    for index in 0..world.processes.len() {
        while index < world.processes.len() && world.send(index) {}
    }
    world.play(scenario.tail);
    world
}

fn one_fault(scenario: &Scenario, before: &World, fault: Fault, outcome: &str, counts: &str) {
    let mut world = before.clone();
    let effect = world.processes[0].next_effect().map_or("nothing", belay::decide::Effect::name);
    let what = format!("{}: {fault:?} at request {} ({effect})", scenario.name, world.requests);
    world.fault = Some(fault);
    let mut world = go_on(world, scenario);
    world.assert_sound(&what);
    if !scenario.raced {
        assert_eq!(world.outcome(), outcome, "{what}");
    }
    if !scenario.timed && !scenario.raced {
        assert_eq!(world.counts(), counts, "{what}");
    }
    world.assert_quiet(&what);
    world.assert_sound(&what);
}

/// What kubectl alone can do when Belay is gone for good, with its policies: go on, or go back.
fn gone(scenario: &Scenario, before: &World) {
    use super::deployments::int;
    use super::script::{Act, act, template};
    for onward in [true, false] {
        let what =
            format!("{}: Belay gone before request {}, onward {onward}", scenario.name, before.requests);
        let mut world = before.clone();
        world.processes.clear();
        world.script.clear();
        world.gitops = None;
        world.load = None;
        world.oracle.guards_capacity = false;
        world.oracle.shares.guards_callers = false;
        if world.workload().is_none() {
            continue;
        }
        world.advance(30);
        world.node.set_fate(None, super::pods::Fate::Good);
        act(&mut world, &Act::Brake(false));
        // What a release borrowed and made is known by its label.
        super::script::apply_network(&mut world.server, "alice");
        drop(world.server.delete("alice", super::server::Sort::Service, "web-canary", None));
        if !onward {
            act(&mut world, &Act::Image("v1"));
            let canary = world.server.all(super::server::Sort::ReplicaSet);
            let canary = canary.filter(|rs| super::oracle::owner_kind(rs) == "Rollout");
            let names: Vec<String> =
                canary.map(|rs| super::deployments::text(rs, "/metadata/name").to_owned()).collect();
            for name in names {
                world.server.delete("alice", super::server::Sort::ReplicaSet, &name, None).unwrap();
            }
        }
        act(&mut world, &Act::Unpause);
        world.advance(60);
        let d = world.workload().unwrap();
        let wanted = int(d, "/spec/replicas");
        for field in ["/status/replicas", "/status/updatedReplicas", "/status/availableReplicas"] {
            assert_eq!(int(d, field), wanted, "{what}: {field} of {d:#}");
        }
        if !onward {
            assert_eq!(d["spec"]["template"]["spec"], template("v1")["spec"], "{what}");
        }
        world.assert_sound(&what);
        assert_eq!(world.oracle.shares.borrowed(&world.server), None, "{what}");
    }
}

/// Scenarios whose end is known beforehand: phase of the Rollout, and of the latest release.
const ENDS: [(&str, &str, &str); 16] = [
    ("good", "Stable", "Promoted"),
    ("bad", "Rejected", "RolledBack"),
    ("retry", "Stable", "Promoted"),
    ("pause and resume", "Stable", "Promoted"),
    ("approval", "Stable", "Promoted"),
    ("crash at once", "Rejected", "RolledBack"),
    ("abort at step 1", "Rejected", "RolledBack"),
    ("change back at step 1", "Stable", "Superseded"),
    ("another change at step 1", "Stable", "Promoted"),
    ("template restored", "Stable", "RolledBack"),
    ("routed, good", "Stable", "Promoted"),
    ("routed, crash at step 2", "Rejected", "RolledBack"),
    ("routed, abort in the bake", "Rejected", "RolledBack"),
    ("routed, another change", "Stable", "Promoted"),
    ("blue-green, good", "Stable", "Promoted"),
    ("blue-green, crash after the switch", "Rejected", "RolledBack"),
];

#[test]
fn every_scenario_ends_well_undisturbed() {
    side_by_side(&all(), |scenario| {
        for eager in [false, true] {
            let (mut world, snapshots) = reference(scenario, eager);
            assert!(!snapshots.is_empty(), "{}: nothing was written", scenario.name);
            world.assert_quiet(&scenario.name);
            world.assert_sound(&scenario.name);
            if let Some((name, rollout, release)) = ENDS.iter().find(|(name, ..)| *name == scenario.name) {
                let latest = world.server.latest_release().unwrap();
                let latest = super::deployments::text(latest, "/status/phase");
                assert_eq!((world.rollout_phase().as_str(), latest), (*rollout, *release), "{name}");
            }
        }
    });
}

#[test]
fn every_fault_at_every_request_changes_nothing() {
    let runs = AtomicUsize::new(0);
    side_by_side(&all(), |scenario| {
        let (whole, snapshots) = reference(scenario, false);
        let (outcome, counts) = (whole.outcome(), whole.counts());
        for before in &snapshots {
            for fault in Fault::ALL {
                one_fault(scenario, before, fault, &outcome, &counts);
                runs.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    eprintln!("{} histories with one fault each", runs.into_inner());
}

/// Somebody changes the workload after the operator has decided what to write, and before it arrives.
#[test]
fn a_change_just_before_any_request_is_never_let_out() {
    let runs = AtomicUsize::new(0);
    side_by_side(&all(), |scenario| {
        let (_, snapshots) = reference(scenario, false);
        for before in &snapshots {
            let effect = before.processes[0].next_effect().map_or("nothing", belay::decide::Effect::name);
            let what = format!("{}: a change before request {} ({effect})", scenario.name, before.requests);
            let mut world = before.clone();
            super::script::act(&mut world, &super::script::Act::Image("v4"));
            world.judge();
            let mut world = go_on(world, scenario);
            world.assert_sound(&what);
            world.assert_quiet(&what);
            world.assert_sound(&what);
            runs.fetch_add(1, Ordering::Relaxed);
        }
    });
    eprintln!("{} histories with one change each", runs.into_inner());
}

#[test]
fn without_belay_kubectl_alone_goes_on_or_back_from_any_moment() {
    side_by_side(&all(), |scenario| {
        let (_, snapshots) = reference(scenario, false);
        for before in &snapshots {
            gone(scenario, before);
        }
    });
}
