//! Tests of the engine as a whole, on a small cluster in memory.

mod caught;
mod changes;
mod checks;
mod cluster;
mod contract;
mod failures;
mod people;
mod random;
mod restart;
mod sight;
mod templates;
mod traffic;
mod world;

use serde_json::{Value, json};

use super::{Effect, Expect, Subject};

/// Three steps of ten seconds, no guards.
fn plain() -> Value {
    json!({
        "workloadRef": {"kind": "Deployment", "name": "web"},
        "strategy": {"canary": {"steps": [
            {"weight": 10, "minDuration": "10s"},
            {"weight": 25, "minDuration": "10s"},
            {"weight": 50, "minDuration": "10s"},
        ]}},
    })
}

/// The same with a guard on errors and at most ten minutes in each step.
fn guarded() -> Value {
    let counter = |metric: &str| json!({"metric": metric});
    with(
        with(
            plain(),
            "analysis",
            json!({
                "warmUp": "0s",
                "metrics": {"pods": {"port": 8080}},
                "guards": [{
                    "name": "errors",
                    "ratio": {"bad": counter("bad"), "total": counter("all"), "tolerate": "1.2x + 0.1%"},
                }],
            }),
        ),
        "strategy",
        json!({"canary": {"steps": [
            {"weight": 10, "minDuration": "10s", "maxDuration": "10m"},
            {"weight": 50, "minDuration": "10s", "maxDuration": "10m"},
        ]}}),
    )
}

/// A spec with one more field.
fn with(mut spec: Value, field: &str, value: Value) -> Value {
    spec[field] = value;
    spec
}

/// The guarded spec with one more field of its analysis.
fn judged(field: &str, value: Value) -> Value {
    let mut spec = guarded();
    spec["analysis"][field] = value;
    spec
}

/// One step that waits for a person.
fn approved() -> Value {
    let steps =
        json!([{"weight": 10, "minDuration": "10s"}, {"weight": 50, "minDuration": "10s", "pause": true}]);
    with(plain(), "strategy", json!({"canary": {"steps": steps}}))
}

/// Whether an effect fails when the Rollout is not what was seen of it any more.
fn asks_for_the_rollout(effect: &Effect) -> bool {
    matches!(
        effect,
        Effect::RecordRollout { .. }
            | Effect::Confirm { subject: Subject::Rollout, expect: Expect::Unchanged, .. }
    )
}
