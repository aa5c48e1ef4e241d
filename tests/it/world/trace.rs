//! What anybody can observe of a history: the states that each kind of object went through, by its role. The same
//! words for a simulated history and a real one.

use std::collections::BTreeMap;

use belay::decide::{revision, without_hash};
use serde_json::Value;

use super::World;
use super::deployments::{int, text};
use super::oracle::owner_kind;
use super::script::Line;
use super::server::Sort;

/// The states of each object, in order, without repetitions. Revisions are named in the order in which they came.
pub type Trace = BTreeMap<String, Vec<String>>;

/// The trace of a simulated history.
pub fn simulated(replicas: i64, spec: &Value, script: Vec<Line>) -> Trace {
    let mut world = World::stable_with(replicas, spec, None);
    let since = world.server.log.len();
    let start = first_states(&world);
    // As in a real cluster, controllers act between any two writes.
    world.eager = true;
    world.script = script.into();
    world.since = world.server.now;
    world.play(120);
    world.assert_sound("trace");
    let later = world.server.log[since..].iter().filter(|e| !e.deleted);
    let seen: Vec<(Sort, Value)> =
        start.into_iter().chain(later.map(|e| (e.sort, (*e.object).clone()))).collect();
    of_objects(seen.iter().filter_map(|(sort, object)| {
        let kind = match sort {
            Sort::Rollout => "Rollout",
            Sort::Release => "Release",
            Sort::Deployment => "Deployment",
            Sort::ReplicaSet => "ReplicaSet",
            _ => return None,
        };
        Some((kind, object))
    }))
}

fn first_states(world: &World) -> Vec<(Sort, Value)> {
    let sorts = [Sort::Rollout, Sort::Deployment, Sort::ReplicaSet];
    sorts.into_iter().flat_map(|s| world.server.all(s).map(move |o| (s, (**o).clone()))).collect()
}

/// The trace of objects in the order in which they were seen.
pub fn of_objects<'a>(seen: impl Iterator<Item = (&'a str, &'a Value)>) -> Trace {
    let mut names: Vec<String> = Vec::new();
    let mut trace = Trace::new();
    let mut seen: Vec<(&str, &Value)> = seen.collect();
    seen.sort_by_key(|(_, object)| text(object, "/metadata/resourceVersion").parse::<u64>().unwrap_or(0));
    for (kind, object) in seen {
        let mut alias = |revision: String| -> String {
            let at = names.iter().position(|n| *n == revision).unwrap_or_else(|| {
                names.push(revision.clone());
                names.len() - 1
            });
            format!("v{}", at + 1)
        };
        let (object, state) = match kind {
            "Rollout" => ("rollout".to_owned(), text(object, "/status/phase").to_owned()),
            "Release" => (
                format!("release of {}", alias(text(object, "/spec/to/revision").to_owned())),
                format!("{} {}", text(object, "/status/phase"), int(object, "/status/step/index")),
            ),
            "Deployment" => {
                let revision = alias(revision(&object["spec"]["template"]));
                let labels = &object["metadata"]["labels"];
                let held = labels.get("belay.dev/release").is_some();
                (
                    "workload".to_owned(),
                    format!("{revision} paused {} held {held}", object["spec"]["paused"] == true),
                )
            }
            "ReplicaSet" => (
                format!("set of {}", alias(revision(&without_hash(&object["spec"]["template"])))),
                format!("{} of {}", int(object, "/spec/replicas"), owner_kind(object)),
            ),
            _ => continue,
        };
        let states = trace.entry(object).or_default();
        if states.last() != Some(&state) && state != " 0" {
            states.push(state);
        }
    }
    trace
}
