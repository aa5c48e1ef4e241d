//! The small world's scenarios in which a router or a Service's selector has the traffic.

use belay::api::ReleasePhase;
use belay::api::release::Verb;
use serde_json::{Value, json};

use super::pods::Fate;
use super::scenarios::{Scenario, V2, after, command};
use super::script::{Act, When};

/// Two steps and a bake of three seconds each.
fn routed() -> Value {
    json!({"strategy": {"canary": {
        "service": "web", "traffic": {"httpRoutes": [{"name": "web"}]}, "bake": "3s",
        "steps": [{"weight": 10, "minDuration": "3s"}, {"weight": 50, "minDuration": "3s"}],
    }}})
}

/// The Service is the switch.
fn blue_green() -> Value {
    json!({"strategy": {"blueGreen": {"activeService": "web", "preview": "3s", "bake": "3s"}}})
}

fn with_preview() -> Value {
    let mut spec = blue_green();
    spec["strategy"]["blueGreen"]["previewService"] = json!("preview");
    spec
}

fn scenario(name: &str, spec: Value, mut script: Vec<(When, Act)>) -> Scenario {
    script.insert(0, V2);
    Scenario { replicas: 3, ..Scenario::new(name, script).spec(spec) }
}

const BAKE: When = When::Phase(ReleasePhase::Baking);
const STEP_2: When = When::Reached(1);
const CRASH: Act = Act::Fate("v2", Fate::Crash(0));

/// All of them.
pub fn all() -> Vec<Scenario> {
    let split = |name: &str, script| scenario(&format!("routed, {name}"), routed(), script);
    let switched = |name: &str, script| scenario(&format!("blue-green, {name}"), blue_green(), script);
    vec![
        split("good", vec![]),
        split("crash at step 2", vec![(STEP_2, CRASH)]),
        split("abort in the bake", vec![(BAKE, command(Verb::Abort))]),
        split("another change", vec![(STEP_2, Act::Image("v3"))]),
        split("change back", vec![(STEP_2, Act::Image("v1"))]),
        split("rollout deleted", vec![(STEP_2, Act::DeleteRollout)]),
        split("release deleted", vec![(STEP_2, Act::DeleteRelease)]),
        switched("good", vec![]),
        switched("abort in the bake", vec![(BAKE, command(Verb::Abort))]),
        switched("crash after the switch", vec![(BAKE, CRASH)]),
        scenario("blue-green, preview service", with_preview(), vec![]),
        split(
            "applied again by gitops",
            vec![after(0, Act::GitOps(Some(("v2", 2)))), after(60, Act::GitOps(None))],
        ),
    ]
}
