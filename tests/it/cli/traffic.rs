//! What people and programs read about releases whose traffic a router or a Service's selector carries.

use belay::api::Release;
use belay::report::release_text::{headline, line};
use belay::report::rollout::{ListItem, ListReport, StatusReport};
use belay::report::{Rendering, Report};
use serde_json::{Value, json};

use super::reports::{at, release, report, rollout, scene, shown, spec, status};

/// A release through a route, with users chosen by a header in its second step, and a bake.
fn routed(phase: &str, index: u32, weight: i32, rest: &Value) -> Release {
    let mut spec = spec();
    spec.as_object_mut().unwrap().remove("analysis");
    spec["steps"] = json!([
        {"weight": 5, "minDuration": "1m", "maxDuration": "15m"},
        {"weight": 25, "minDuration": "2m", "maxDuration": "30m", "mirror": 100, "match": [
            {"headers": [{"name": "x-beta", "value": "yes"}], "cookies": [{"name": "team", "regex": "shop.*"}]},
            {"query": [{"name": "beta", "value": "1"}]},
        ]},
        {"weight": 100, "minDuration": "10m", "maxDuration": "10m", "bake": true},
    ]);
    spec["traffic"] = json!({"service": "web", "canaryService": "web-canary", "routes": [
        {"router": "HTTPRoute", "namespace": "shop", "name": "web"},
        {"router": "NginxIngress", "namespace": "shop", "name": "web-old"},
    ]});
    let mut all = json!({
        "traffic": {"weight": weight, "changedAt": at("10:03:50")},
        "weight": {"desired": weight, "reachable": weight, "reached": weight, "canaryPods": 3, "stablePods": 12},
    });
    json_patch::merge(&mut all, rest);
    release(&spec, &status(phase, index, &all))
}

/// A release by the Service's own selector, with a Service to look at the new version.
fn switched(phase: &str, index: u32, weight: i32, rest: &Value) -> Release {
    let mut release = routed(phase, index, weight, rest);
    let plan = json!([
        {"weight": 0, "minDuration": "5m", "maxDuration": "5m", "pause": true},
        {"weight": 100, "minDuration": "10m", "maxDuration": "10m", "bake": true},
    ]);
    release.spec.steps = serde_json::from_value(plan).unwrap();
    let traffic = json!({"service": "web", "canaryService": "web-preview", "preview": true});
    release.spec.traffic = serde_json::from_value(traffic).unwrap();
    release
}

fn all() -> Vec<(&'static str, Release)> {
    let awaiting = json!({"reason": "AwaitingApproval", "message": "step 1 waits for a person",
        "weight": {"canaryPods": 12}, "step": {"index": 0, "enteredAt": at("10:00:20"), "elapsedSeconds": 220.0}});
    let held =
        json!({"message": "HTTPRoute shop/web is given 25 %", "traffic": {"weight": 5, "heldWrites": 3}});
    let full = json!({"message": "the new version has all traffic", "weight": {"canaryPods": 12}});
    vec![
        ("routed", routed("Progressing", 1, 25, &json!({"message": "stays at 25 % for 2m"}))),
        ("held_writes", routed("Progressing", 1, 25, &held)),
        ("baking", routed("Baking", 2, 100, &full)),
        ("preview", switched("Paused", 0, 0, &awaiting)),
        ("switched", switched("Baking", 1, 100, &full)),
        (
            "back",
            routed(
                "RolledBack",
                1,
                0,
                &json!({"reason": "Aborted", "message": "aborted by ann", "finishedAt": at("10:04:30"), "traffic": {"heldWrites": 1}}),
            ),
        ),
    ]
}

#[test]
fn stories_and_pictures() {
    for (name, release) in all() {
        let told = shown(&report(&release), Rendering::Text);
        let rollout = (&rollout("Releasing", "release web-7d9f8c6b5a is on its way")).into();
        let picture = StatusReport { rollout, release: Some(report(&release)) };
        let all = format!("{}\n\n{told}\n{}", line(&report(&release)), picture.text(&scene()));
        insta::assert_snapshot!(format!("traffic_{name}"), all);
    }
}

#[test]
fn for_programs() {
    let json = |release: &Release| -> Value {
        serde_json::from_str(&shown(&report(release), Rendering::Json)).unwrap()
    };
    let [routed, held, baking, preview, ..] = &all()[..] else { panic!() };
    let traffic = &json(&routed.1)["traffic"];
    assert_eq!(
        *traffic,
        json!({
            "service": "web", "canaryService": "web-canary", "switch": "routes", "weight": 25, "heldWrites": 0,
            "routes": [
                {"router": "HTTPRoute", "kind": "HTTPRoute", "namespace": "shop", "name": "web"},
                {"router": "NginxIngress", "kind": "Ingress", "namespace": "shop", "name": "web-old"},
            ],
        })
    );
    assert_eq!(json(&held.1)["traffic"]["heldWrites"], 3);
    assert_eq!(json(&baking.1)["steps"][2]["bake"], true);
    assert_eq!(json(&routed.1)["steps"][1]["match"][1]["query"][0]["name"], "beta");
    let preview = json(&preview.1);
    assert_eq!(
        (&preview["traffic"]["switch"], &preview["traffic"]["preview"]),
        (&json!("selector"), &json!(true))
    );
}

#[test]
fn a_list_says_what_the_release_does() {
    let item = |release: &Release| {
        let report = report(release);
        ListItem {
            rollout: (&rollout("Releasing", "release web-7d9f8c6b5a is on its way")).into(),
            release_phase: Some(report.phase),
            step: Some(belay::report::release_text::step_words(&report)),
            weight: report.weight.map(|weight| weight.reached),
        }
    };
    let items = all()[..4].iter().map(|(_, release)| item(release)).collect();
    let list = ListReport { all_namespaces: false, items };
    insta::assert_snapshot!("traffic_list", shown(&list, Rendering::Text));
    let json: Value = serde_json::from_str(&shown(&list, Rendering::Json)).unwrap();
    assert_eq!(json["items"][2]["phase"], "Releasing");
    assert_eq!(json["items"][2]["releasePhase"], "Baking");
}

#[test]
fn a_bake_is_said_in_plain_words() {
    let baking = &all()[2].1;
    assert_eq!(
        headline(&report(baking)),
        "Baking: the new version has all traffic, and the old one stands by; it began 4m58s ago."
    );
    let commands: Vec<String> = report(baking).next.into_iter().map(|next| next.to).collect();
    assert!(commands.contains(&"give the old version all traffic again".to_owned()), "{commands:?}");
}
