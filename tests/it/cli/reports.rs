//! What people and programs read about releases, from objects as the API server keeps them.

use belay::api::{Release, Rollout};
use belay::report::change::{ChangeReport, differences};
use belay::report::checks::{CheckResult, ChecksReport};
use belay::report::command::{Answer, CommandReport};
use belay::report::history::HistoryReport;
use belay::report::release::ReleaseReport;
use belay::report::release_text::headline;
use belay::report::rollout::{ListItem, ListReport, StatusReport};
use belay::report::{Rendering, Report, Scene, render};
use serde_json::{Value, json};

pub fn scene() -> Scene {
    Scene {
        now: "2026-11-22T10:05:00Z".parse().unwrap(),
        zone: jiff::tz::TimeZone::UTC,
        color: false,
        unicode: true,
        width: 100,
        program: "belay".to_owned(),
    }
}

pub fn at(time: &str) -> String {
    format!("2026-11-22T{time}.000000Z")
}

pub fn spec() -> Value {
    json!({
        "rollout": "web", "replicas": 12, "attempt": 1,
        "workload": {"kind": "Deployment", "name": "web", "uid": "w1"},
        "from": {"revision": "6c5f7d9b8a", "replicaSet": "web-6c5f7d9b8a", "images": ["web=web:1", "side=s:1"]},
        "to": {"revision": "7d9f8c6b5a", "replicaSet": "web-7d9f8c6b5a", "images": ["web=web:2", "side=s:1"]},
        "steps": [
            {"weight": 5, "minDuration": "1m", "maxDuration": "15m"},
            {"weight": 25, "minDuration": "2m", "maxDuration": "30m"},
            {"weight": 50, "minDuration": "2m", "maxDuration": "30m", "pause": true},
        ],
        "analysis": {
            "metrics": {"pods": {"port": 8080}},
            "guards": [{"name": "errors", "ratio": {
                "bad": {"metric": "http_requests_total", "match": "code=~\"5..\""},
                "total": {"metric": "http_requests_total"}, "tolerate": "1.2x + 0.1%"}}],
        },
        "rollback": {}, "progressDeadline": "10m", "plannedLooks": 900,
    })
}

fn evidence(strict: f64, margin: f64, safe: f64, bad: f64, total: f64) -> Value {
    json!({"looks": 7, "lastLookAt": at("10:04:35"), "guards": [{
        "name": "errors", "looks": 7, "strict": strict, "margin": margin, "safe": safe,
        "streams": [{"totals": {"canaryBad": bad, "canaryTotal": total, "stableBad": 30.0, "stableTotal": 33_338.0}}]}]})
}

pub fn release(spec: &Value, status: &Value) -> Release {
    serde_json::from_value(json!({
        "apiVersion": "belay.dev/v1alpha1", "kind": "Release",
        "metadata": {"name": "web-7d9f8c6b5a", "namespace": "shop", "uid": "r1", "creationTimestamp": "2026-11-22T10:00:00Z"},
        "spec": spec, "status": status,
    }))
    .unwrap()
}

pub fn status(phase: &str, index: u32, rest: &Value) -> Value {
    let mut status = json!({
        "phase": phase, "startedAt": at("10:00:02"),
        "step": {"index": index, "enteredAt": at("10:02:00"), "elapsedSeconds": 12.0, "runningSince": at("10:04:00")},
        "weight": {"desired": 25, "reachable": 25, "reached": 25, "canaryPods": 4, "stablePods": 12},
        "timeline": [
            {"at": at("10:00:02"), "reason": "ReleaseStarted", "message": "release of 7d9f8c6b5a starts; 6c5f7d9b8a serves"},
            {"at": at("10:00:20"), "reason": "StepStarted", "step": 1, "message": "weight 5 %, 1 canary beside 12 stable pods"},
            {"at": at("10:02:00"), "reason": "StepPassed", "step": 1, "message": "proven safe"},
        ],
    });
    for (key, value) in rest.as_object().unwrap() {
        status[key] = value.clone();
    }
    status
}

fn progressing() -> Release {
    let rest = json!({"reason": "CollectingEvidence", "message": "waits for proof that errors are within 1.2x + 0.1%",
        "analysis": evidence(0.8, 0.3, 6.2, 2.0, 1_744.0)});
    release(&spec(), &status("Progressing", 1, &rest))
}

fn rolled_back() -> Release {
    let rest = json!({"reason": "GuardFailed", "message": "guard errors failed", "finishedAt": at("10:00:37"),
        "weight": {"desired": 0, "reachable": 0, "reached": 0, "canaryPods": 0, "stablePods": 12},
        "analysis": evidence(169.4, 38.2, 0.001, 20.0, 1_744.0)});
    release(&spec(), &status("RolledBack", 0, &rest))
}

fn crashed() -> Release {
    let mut spec = spec();
    spec.as_object_mut().unwrap().remove("analysis");
    let rest = json!({"reason": "CanaryCrashed", "message": "pod web-7d9f8c6b5a-x2x4z: container web is in CrashLoopBackOff",
        "finishedAt": at("10:00:12")});
    release(&spec, &status("RolledBack", 0, &rest))
}

fn superseded() -> Release {
    let rest = json!({"reason": "Superseded", "message": "the workload was changed again, to 8e0a9d7c6b", "finishedAt": at("10:03:00")});
    release(&spec(), &status("Superseded", 1, &rest))
}

fn paused() -> Release {
    let mut spec = spec();
    spec["commands"] = json!([
        {"verb": "promote", "step": 1, "by": "ann", "reason": "checked by hand"},
        {"verb": "approve", "step": 1, "by": "bob"},
        {"verb": "pause", "by": "ann"},
    ]);
    let rest = json!({"reason": "PausedByUser", "message": "paused by ann", "paused": true,
    "step": {"index": 2, "enteredAt": at("10:03:00"), "elapsedSeconds": 31.5},
    "weight": {"desired": 50, "reachable": 48, "reached": 40, "canaryPods": 11, "stablePods": 12},
    "analysis": {"looks": 3, "noDataSince": at("10:04:00"), "noDataReason": "web-6c5f7d9b8a-abcde: connection refused",
        "guards": [{"name": "errors"}]},
    "commands": [
        {"receivedAt": at("10:01:00"), "accepted": true},
        {"receivedAt": at("10:02:30"), "accepted": false, "message": "the release is at step 2"},
    ]});
    release(&spec, &status("Paused", 2, &rest))
}

fn awaiting() -> Release {
    let rest = json!({"reason": "AwaitingApproval", "message": "step 3 waits for a person",
        "step": {"index": 2, "enteredAt": at("10:03:00"), "elapsedSeconds": 120.0},
        "analysis": evidence(0.5, 0.2, 25.0, 2.0, 2_000.0)});
    release(&spec(), &status("Paused", 2, &rest))
}

fn promoted() -> Release {
    let rest = json!({"reason": "Promoted", "message": "7d9f8c6b5a is stable", "finishedAt": at("10:04:50"),
        "step": {"index": 3}, "analysis": evidence(0.5, 0.2, 25.0, 2.0, 2_000.0)});
    release(&spec(), &status("Promoted", 3, &rest))
}

/// A change that went past the brake.
fn caught(phase: &str, rest: &Value) -> Release {
    let mut spec = spec();
    spec["unbraked"] = json!(true);
    spec["to"]["replicaSet"] = json!("web-75bcd84f6c");
    spec["steps"] = json!([{"weight": 20, "minDuration": "1m", "maxDuration": "15m"}]);
    let mut status = status(phase, u32::from(phase != "Progressing"), rest);
    status["weight"] =
        json!({"desired": 20, "reachable": 20, "reached": 20, "canaryPods": 3, "stablePods": 12});
    let message = "7d9f8c6b5a went past the brake (the policy is not installed); the workload is paused where it was \
                   caught, with 3 of 15 pods of it";
    status["timeline"] = json!([{"at": at("10:00:02"), "reason": "Caught", "step": 1, "message": message}]);
    release(&spec, &status)
}

fn watched() -> Release {
    caught(
        "Progressing",
        &json!({"reason": "CollectingEvidence", "message": "collecting evidence that the canary is safe: errors",
        "analysis": evidence(0.8, 0.3, 6.2, 2.0, 1_744.0)}),
    )
}

fn undone() -> Release {
    let mut undone = caught(
        "RolledBack",
        &json!({"reason": "CanaryCrashed", "finishedAt": at("10:00:37"),
        "message": "canary pod web-75bcd84f6c-x2x4z: OOMKilled: container web used more memory than its limit"}),
    );
    let weight = undone.status.as_mut().unwrap().weight.as_mut().unwrap();
    (weight.desired, weight.reachable, weight.reached, weight.canary_pods) = (0, 0, 0, 0);
    undone
}

pub fn report(release: &Release) -> ReleaseReport {
    ReleaseReport::new(release, scene().now)
}

pub fn shown<R: Report>(report: &R, how: Rendering) -> String {
    render(report, how, &scene()).unwrap()
}

pub fn rollout(phase: &str, message: &str) -> Rollout {
    serde_json::from_value(json!({
        "apiVersion": "belay.dev/v1alpha1", "kind": "Rollout",
        "metadata": {"name": "web", "namespace": "shop", "creationTimestamp": "2026-11-20T10:00:00Z"},
        "spec": {"workloadRef": {"kind": "Deployment", "name": "web"}, "owner": {"team": "shop", "contact": "#oncall"}},
        "status": {"phase": phase, "message": message, "release": "web-7d9f8c6b5a",
            "stable": {"revision": "6c5f7d9b8a", "replicaSet": "web-6c5f7d9b8a", "images": ["web=web:1"]},
            "vetoed": if phase == "Rejected" { json!([{"revision": "7d9f8c6b5a", "release": "web-7d9f8c6b5a",
                "reason": "GuardFailed", "at": at("10:00:37")}]) } else { json!([]) },
            "conditions": [{"type": "BrakeEngaged", "status": if phase == "Unguarded" { "False" } else { "True" },
                "reason": "Policy", "message": "the policy is not installed", "lastTransitionTime": "2026-11-20T10:00:00Z"}]},
    }))
    .unwrap()
}

#[test]
fn explanations() {
    let pending = release(&spec(), &json!({}));
    let all = vec![
        ("pending", pending),
        ("progressing", progressing()),
        ("paused", paused()),
        ("awaiting", awaiting()),
        ("promoting", release(&spec(), &status("Promoting", 3, &json!({"message": "growing to full size"})))),
        ("promoted", promoted()),
        (
            "rolling_back",
            release(
                &spec(),
                &status("RollingBack", 1, &json!({"reason": "Aborted", "message": "aborted by ann"})),
            ),
        ),
        ("rolled_back", rolled_back()),
        ("crashed", crashed()),
        ("superseded", superseded()),
        ("caught", watched()),
        (
            "caught_let_go",
            caught(
                "Promoting",
                &json!({"reason": "LetGo", "message": "watched long enough: the workload's own rolling update goes on, still watched"}),
            ),
        ),
        ("caught_undone", undone()),
    ];
    for (name, release) in all {
        insta::assert_snapshot!(format!("explain_{name}"), shown(&report(&release), Rendering::Text));
    }
}

#[test]
fn explanations_for_programs() {
    insta::assert_snapshot!("explain_rolled_back_json", shown(&report(&rolled_back()), Rendering::Json));
    insta::assert_snapshot!("explain_caught_json", shown(&report(&watched()), Rendering::Json));
    insta::assert_snapshot!("explain_paused_json", shown(&report(&paused()), Rendering::Json));
    assert_eq!(shown(&report(&paused()), Rendering::Names), "release/web-7d9f8c6b5a\n");
    let yaml: Value = serde_saphyr::from_str(&shown(&report(&paused()), Rendering::Yaml)).unwrap();
    assert_eq!((&yaml["schemaVersion"], &yaml["kind"]), (&"v1".into(), &"Release".into()));
}

#[test]
fn pictures() {
    let picture = |phase, message: &str, release: Option<Release>| StatusReport {
        rollout: (&rollout(phase, message)).into(),
        release: release.as_ref().map(report),
    };
    let all = [
        ("releasing", picture("Releasing", "release web-7d9f8c6b5a runs", Some(progressing()))),
        ("no_data", picture("Releasing", "release web-7d9f8c6b5a runs", Some(paused()))),
        ("rejected", picture("Rejected", "the template was rejected", Some(rolled_back()))),
        ("unguarded", picture("Unguarded", "a change went past the brake", None)),
        ("stable", picture("Stable", "6c5f7d9b8a serves", Some(promoted()))),
        (
            "caught",
            picture(
                "Releasing",
                "release web-7d9f8c6b5a watches a change that went past the brake",
                Some(watched()),
            ),
        ),
        ("brought_back", {
            let mut back = rollout(
                "Rejected",
                "7d9f8c6b5a was rejected by web-7d9f8c6b5a, and another writer brings it back past the brake; it was taken back 3 times. Correct what writes it, or lift the veto with belay retry",
            );
            let veto = &mut back.status.as_mut().unwrap().vetoed[0];
            veto.returns = 3;
            veto.returned_at = serde_json::from_value(json!(at("10:04:20"))).unwrap();
            StatusReport { rollout: (&back).into(), release: Some(report(&undone())) }
        }),
    ];
    for (name, report) in &all {
        insta::assert_snapshot!(format!("status_{name}"), shown(report, Rendering::Text));
    }
    insta::assert_snapshot!("status_brought_back_json", shown(&all[6].1, Rendering::Json));
    insta::assert_snapshot!("status_releasing_json", shown(&all[0].1, Rendering::Json));
}

#[test]
fn lists() {
    let item = |phase, message, step: Option<&str>, weight| ListItem {
        rollout: (&rollout(phase, message)).into(),
        release_phase: None,
        step: step.map(ToOwned::to_owned),
        weight,
    };
    let mut list = ListReport {
        all_namespaces: true,
        items: vec![item("Releasing", "step 2 of 3", Some("2/3"), Some(25)), item("Stable", "", None, None)],
    };
    insta::assert_snapshot!("list_all", shown(&list, Rendering::Text));
    list = ListReport { all_namespaces: false, items: Vec::new() };
    insta::assert_snapshot!("list_empty", shown(&list, Rendering::Text));
    let items = [progressing(), undone(), rolled_back(), promoted()]
        .iter()
        .map(|release| report(release).into())
        .collect();
    let history = HistoryReport { rollout: "web".to_owned(), namespace: "shop".to_owned(), items };
    insta::assert_snapshot!("history", shown(&history, Rendering::Text));
    insta::assert_snapshot!("history_json", shown(&history, Rendering::Json));
}

#[test]
fn answers_and_changes() {
    let mut command = CommandReport {
        release: "web-7d9f8c6b5a".to_owned(),
        namespace: "shop".to_owned(),
        verb: belay::api::release::Verb::Promote,
        step: Some(2),
        answer: Answer::Refused,
        message: Some("the release is at step 3".to_owned()),
        patch: None,
    };
    let refused = shown(&command, Rendering::Text);
    command.answer = Answer::DryRun;
    command.patch = Some(
        json!([{"op": "add", "path": "/spec/commands", "value": [{"verb": "promote", "reason": "it's fine"}]}]),
    );
    insta::assert_snapshot!("command", format!("{refused}{}", shown(&command, Rendering::Text)));

    let template = |image: &str, password: &str| json!({"spec": {"containers": [{"name": "web", "image": image, "env": [{"name": "DB_PASSWORD", "value": password}]}]}});
    let change = ChangeReport {
        workload: "web".to_owned(),
        namespace: "shop".to_owned(),
        rollout: "web".to_owned(),
        written: false,
        message: "Nothing was written.".to_owned(),
        differences: differences(&template("web:1", "hunter1"), &template("web:2", "hunter2")),
    };
    insta::assert_snapshot!("change", shown(&change, Rendering::Text));

    let mut checks = ChecksReport::default();
    checks.add("cluster", CheckResult::Ok, "v1.37.2 at https://127.0.0.1:6443/", None);
    checks.add("leader", CheckResult::Warning, "no operator has taken the Lease yet", Some("see its logs"));
    checks.add("operator", CheckResult::Broken, "there is none", Some("`belay install` installs it"));
    checks.add("rights", CheckResult::Skipped, "not allowed to ask", None);
    insta::assert_snapshot!("doctor", shown(&checks, Rendering::Text));
}

#[test]
fn colours_change_nothing_but_the_colour() {
    let plain = report(&progressing()).text(&scene());
    let painted = report(&progressing()).text(&Scene { color: true, ..scene() });
    assert!(painted.contains('\x1b'));
    let mut bare = String::new();
    let mut rest = painted.as_str();
    while let Some((before, after)) = rest.split_once('\x1b') {
        bare.push_str(before);
        rest = after.split_once('m').unwrap().1;
    }
    assert_eq!(format!("{bare}{rest}"), plain);
}

#[test]
fn a_headline_says_how_long_it_took() {
    assert_eq!(headline(&report(&rolled_back())), "Rolled back after 35s.");
    assert_eq!(headline(&report(&promoted())), "Promoted after 4m48s.");
    assert_eq!(headline(&report(&progressing())), "Progressing, for 4m58s now.");
}
