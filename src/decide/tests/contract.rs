//! The contract: one test per line that concerns the engine.

use serde_json::{Value, json};

use super::world::{World, of};
use crate::api::{ReleasePhase, RolloutPhase};

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

#[test]
fn a_good_change_is_promoted_with_the_pods_that_were_tested() {
    let mut world = World::stable(5, plain());
    let stable = world.pods_of("v1");
    world.set_image("v2");
    world.until(|w| w.reached(2));
    assert_eq!(world.pods_of("v1"), stable);
    world.until(|w| w.release_phase() == ReleasePhase::Promoted);
    assert_eq!(world.phase(), RolloutPhase::Stable);
    assert_eq!(world.status().stable.unwrap().revision, of("v2"));
    for e in &world.log {
        println!("{}", e.name());
    }
    world.assert_quiet();
}
