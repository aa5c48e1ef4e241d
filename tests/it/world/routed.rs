//! The small world's scenarios in which a router or a Service's selector has the traffic.

use belay::api::ReleasePhase;
use belay::api::release::Verb;
use serde_json::{Value, json};

use super::pods::Fate;
use super::scenarios::{Scenario, V2, after, command};
use super::script::{Act, When};

/// Two steps and a bake of five seconds each.
fn routed() -> Value {
    json!({"strategy": {"canary": {
        "service": "web", "traffic": {"httpRoutes": [{"name": "web"}]}, "bake": "5s",
        "steps": [{"weight": 10, "minDuration": "5s"}, {"weight": 50, "minDuration": "5s"}],
    }}})
}

/// The Service is the switch.
fn blue_green() -> Value {
    json!({"strategy": {"blueGreen": {"activeService": "web", "preview": "5s", "bake": "5s"}}})
}

fn with_preview() -> Value {
    let mut spec = blue_green();
    spec["strategy"]["blueGreen"]["previewService"] = json!("preview");
    spec
}

fn by_route() -> Value {
    let mut spec = blue_green();
    spec["strategy"]["blueGreen"]["traffic"] = json!({"httpRoutes": [{"name": "web"}]});
    spec
}

/// For random histories.
pub fn specs() -> [Value; 4] {
    [routed(), blue_green(), with_preview(), by_route()]
}

fn scenario(name: &str, spec: Value, mut script: Vec<(When, Act)>) -> Scenario {
    script.insert(0, V2);
    // A release by a router takes three times the writes of one by pods. The share has no divisor in common with the
    // number of faults, so that each comes to its turn at different requests.
    Scenario { replicas: 3, share: 7, ..Scenario::new(name, script).spec(spec) }
}

const BAKE: When = When::Phase(ReleasePhase::Baking);
const STEP_2: When = When::Reached(1);
const CRASH: Act = Act::Fate("v2", Fate::Crash(0));

/// All of them.
pub fn all() -> Vec<Scenario> {
    let split = |name: &str, script| scenario(&format!("routed, {name}"), routed(), script);
    let switched = |name: &str, script| scenario(&format!("blue-green, {name}"), blue_green(), script);
    let gitops = |seconds| [after(0, Act::GitOps(Some(("v2", 2)))), after(seconds, Act::GitOps(None))];
    let abort = || command(Verb::Abort);
    // Longer than a way back waits for the gateway.
    let mut long_bake = routed();
    long_bake["strategy"]["canary"]["bake"] = json!("40s");
    vec![
        split("good", vec![]),
        split("crash at step 2", vec![(STEP_2, CRASH)]),
        split("abort in the bake", vec![(BAKE, abort())]),
        split("another change", vec![(STEP_2, Act::Image("v3"))]),
        split("change back", vec![(STEP_2, Act::Image("v1"))]),
        split("scaled", vec![(STEP_2, Act::Scale(5))]).resized(),
        split("rollout deleted", vec![(STEP_2, Act::DeleteRollout)]),
        split("release deleted", vec![(STEP_2, Act::DeleteRelease)]),
        split("deployment deleted", vec![(STEP_2, Act::DeleteDeployment)]).resized(),
        split("applied again by gitops", gitops(60).into()),
        split("crash, applied again by gitops", {
            let mut script = vec![after(0, CRASH)];
            script.extend(gitops(30));
            script
        }),
        split("slow gateway", vec![after(0, Act::Gateway(Some(5)))]).spec(long_bake),
        split(
            "slow gateway, late abort",
            vec![after(0, Act::Gateway(Some(5))), (STEP_2, command(Verb::Pause)), after(40, abort())],
        ),
        split("no gateway", vec![after(0, Act::Gateway(None)), after(60, abort())]),
        split("gateway lost, and abort", vec![(STEP_2, Act::Gateway(None)), after(0, abort())]),
        split("route deleted, then abort", vec![(STEP_2, Act::DeleteRoute), after(10, abort())]),
        split("route made again", vec![(STEP_2, Act::DeleteRoute), after(10, Act::MakeRoute)]),
        split("service deleted, then abort", vec![(STEP_2, Act::DeleteService), after(10, abort())]),
        split("service made again", vec![(STEP_2, Act::DeleteService), after(10, Act::MakeService)]),
        switched("good", vec![]),
        switched("abort in the bake", vec![(BAKE, abort())]),
        switched("crash after the switch", vec![(BAKE, CRASH)]),
        switched("another change in the bake", vec![(BAKE, Act::Image("v3"))]),
        switched("scaled in the bake", vec![(BAKE, Act::Scale(5))]).resized(),
        scenario("blue-green, preview service", with_preview(), vec![]),
        scenario("blue-green, preview service, abort", with_preview(), vec![(When::Reached(0), abort())]),
        scenario("blue-green, by a route", by_route(), vec![]),
        scenario("blue-green, by a route, crash", by_route(), vec![(BAKE, CRASH)]),
    ]
}
