//! A process that starts anew with an old view of one kind of object, just before each destructive write of every
//! scenario and when all is over, and acts on it until it has nothing more to do. Then the view catches up.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use belay::decide::Effect;

use super::World;
use super::exhaustive::{reference, side_by_side};
use super::scenarios::{KEPT, Scenario, all};
use super::server::Sort;

/// Whether a write takes something away that another writer, or a later moment, may want.
fn is_destructive(effect: &Effect) -> bool {
    match effect {
        Effect::ScaleCanary { from, to, .. } => to < from,
        Effect::StopCanary { .. }
        | Effect::DeleteReplicaSet { .. }
        | Effect::HandOver { .. }
        | Effect::FreeWorkload { .. }
        | Effect::UnmarkWorkload { .. }
        | Effect::RestoreTemplate { .. }
        | Effect::RemoveFinalizer { .. }
        | Effect::ReturnFloor { .. }
        | Effect::DeleteService { .. }
        | Effect::PinService { .. }
        | Effect::UnpinService { .. }
        | Effect::ReturnService { .. }
        | Effect::SplitRoute { .. }
        | Effect::DeleteRoute { .. }
        | Effect::ReturnRoute { .. }
        | Effect::DeleteJob { .. }
        | Effect::PruneRelease { .. } => true,
        Effect::AddFinalizer { .. }
        | Effect::MarkWorkload { .. }
        | Effect::HoldWorkload { .. }
        | Effect::CreateRelease(_)
        | Effect::RecordRelease { .. }
        | Effect::RecordRollout { .. }
        | Effect::CreateCanary { .. }
        | Effect::CreateService { .. }
        | Effect::CreateRoute { .. }
        | Effect::RunJob { .. }
        | Effect::HoldFloor { .. }
        | Effect::Confirm { .. }
        | Effect::Announce(_) => false,
    }
}

/// The positions in the log at which one kind looked differently, from `since` on.
fn positions(world: &World, sort: Sort, since: usize) -> Vec<usize> {
    let log = &world.server.log;
    let of_kind = (since..log.len()).filter(|at| log[*at].sort == sort);
    let mut all: Vec<usize> = of_kind.collect();
    all.insert(0, since);
    all
}

fn one_view(scenario: &Scenario, before: &World, sort: Sort, until: usize, outcome: &str) {
    let effect = before.processes[0].next_effect().map_or("nothing", Effect::name);
    let what = format!(
        "{}: {sort:?} as of entry {until} of {} at request {} ({effect})",
        scenario.name,
        before.server.log.len(),
        before.requests
    );
    let mut world = before.clone();
    world.restart(0, &BTreeMap::from([(sort, until)]));
    world.processes[0].deaf.insert(sort);
    // The lease was given back: it writes at once.
    world.server.delete("alice", Sort::Lease, super::process::LEASE, None).unwrap();
    world.advance(3);
    world.assert_sound(&what);
    world.processes[0].deaf.clear();
    world.play(scenario.tail);
    world.assert_sound(&what);
    // A canary that cannot be seen, of a Release that is gone, cannot be told from none: the change is tried anew.
    let unseen = sort == Sort::ReplicaSet && scenario.name.ends_with("release deleted");
    if !unseen && !scenario.raced {
        assert_eq!(world.outcome(), outcome, "{what}");
    }
}

#[test]
fn every_old_view_before_every_destructive_write_changes_nothing() {
    let runs = AtomicUsize::new(0);
    side_by_side(&all(), |scenario| {
        let since = scenario.world().server.log.len();
        let (whole, snapshots) = reference(scenario, false);
        let outcome = whole.outcome();
        for before in &snapshots {
            if !before.processes[0].next_effect().is_some_and(is_destructive) {
                continue;
            }
            for sort in Sort::WATCHED {
                // For the same reason it cannot keep the Rollout.
                if sort == Sort::ReplicaSet && scenario.name == KEPT {
                    continue;
                }
                for until in positions(before, sort, since) {
                    one_view(scenario, before, sort, until, &outcome);
                    runs.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    });
    eprintln!("{} histories with one old view each", runs.into_inner());
}

#[test]
fn every_old_view_when_all_is_over_changes_nothing() {
    let runs = AtomicUsize::new(0);
    side_by_side(&all(), |scenario| {
        let since = scenario.world().server.log.len();
        let (whole, _) = reference(scenario, false);
        let outcome = whole.outcome();
        // What says that it is over; pods and their sets are seen as they are.
        for sort in [Sort::Rollout, Sort::Release, Sort::Deployment] {
            for until in positions(&whole, sort, since) {
                one_view(scenario, &whole, sort, until, &outcome);
                runs.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    eprintln!("{} histories with one old view at their end", runs.into_inner());
}
