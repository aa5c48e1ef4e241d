//! Blue-green by the Service's selector: looked at beside the users, switched at once, and back at once.

use serde_json::{Value, json};

use super::load::{Load, get};
use super::releases::service;
use super::routed::assert_nothing_lost;
use super::scene::{Plan, Scene, int, text, timeline};
use super::{PATIENCE, eventually};

/// A Service's fields that a release borrows or marks, and that are to be as they were.
pub fn borrowed(object: &Value) -> Value {
    json!({
        "spec": object["spec"],
        "labels": object["metadata"]["labels"],
        "annotations": object["metadata"]["annotations"],
    })
}

fn plan(more: &Value) -> Plan {
    let strategy = json!({"blueGreen": {
        "activeService": "web", "previewService": "preview", "preview": "3s", "bake": "5s",
    }});
    let mut spec = json!({"strategy": strategy});
    json_patch::merge(&mut spec, more);
    Plan {
        replicas: 3,
        spec,
        // They go on serving while the Service forgets them.
        deployment: json!({"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 10}}}}),
        env: vec![("LINGER", "3s"), ("VERSION", "1")],
    }
}

/// A second Service of the same pods; its address.
async fn preview(scene: &Scene) -> String {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "preview"},
        "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
    });
    scene.namespace.apply(&scene.namespace.env.alice, "alice", &service).await.unwrap();
    let ip = text(&scene.get("v1", "Service", "preview").await, "/spec/clusterIP");
    format!("{ip}:80")
}

async fn answers(address: &str, version: &str) {
    eventually(PATIENCE, &format!("{address} is answered by {version} alone"), async || {
        for _ in 0..12 {
            let (_, body) = get(address, "/", "load").await?;
            let by = body.lines().next().unwrap_or_default().to_owned();
            if by != version {
                return Err(by);
            }
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_good_version_is_looked_at_switched_to_and_baked() {
    let Some(mut scene) = Scene::start("blue-green", plan(&json!({}))).await else { return };
    let (active, preview) = (service(&scene).await, preview(&scene).await);
    let before = [scene.get("v1", "Service", "web").await, scene.get("v1", "Service", "preview").await];
    let load = Load::start(&active, 40);
    let stable = scene.stable().await;

    scene.set_env(&[("LINGER", "3s"), ("VERSION", "2")]).await;
    let name = scene.new_release(0).await;
    let release = scene.at_step(&name, 1).await;
    let canary = text(&release, "/spec/to/replicaSet");
    answers(&preview, "2").await;
    assert_eq!(int(&scene.release(&name).await, "/status/traffic/weight"), 0);
    assert_eq!(scene.uids_of(&canary).await.len(), 3, "all of them before the switch");
    let baking = scene.release_is(&name, "Baking").await;
    assert_eq!(int(&baking, "/status/weight/reached"), 100);
    assert_eq!(scene.uids_of(&stable).await.len(), 3, "the old version stands by");
    answers(&active, "2").await;
    let tested = scene.uids_of(&canary).await;
    let release = scene.release_is(&name, "Promoted").await;
    assert_eq!(
        timeline(&release),
        ["ReleaseStarted", "StepPassed", "StepStarted 2", "StepPassed", "Promoting", "Promoted"]
    );
    assert_eq!(scene.uids_of(&canary).await, tested, "the promoted pods are the tested pods");
    let after = [scene.get("v1", "Service", "web").await, scene.get("v1", "Service", "preview").await];
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(borrowed(after), borrowed(before));
    }
    scene.rollout_is("web", "Stable").await;
    let totals = load.stop().await;
    assert_nothing_lost(&[totals]);
    scene.operator.assert_healthy().await;
}

#[tokio::test]
async fn an_abort_while_it_bakes_is_one_switch_back() {
    let more = json!({"strategy": {"blueGreen": {"bake": "10m"}}});
    let Some(mut scene) = Scene::start("blue-green-back", plan(&more)).await else { return };
    let (active, _) = (service(&scene).await, preview(&scene).await);
    let before = [scene.get("v1", "Service", "web").await, scene.get("v1", "Service", "preview").await];
    let load = Load::start(&active, 40);
    let stable = scene.stable().await;
    let uids = scene.uids_of(&stable).await;

    scene.set_env(&[("LINGER", "3s"), ("VERSION", "2")]).await;
    let name = scene.new_release(0).await;
    scene.release_is(&name, "Baking").await;
    answers(&active, "2").await;
    scene.command(&name, json!({"verb": "abort", "reason": "not ours"})).await;
    answers(&active, "1").await;
    let release = scene.release_is(&name, "RolledBack").await;
    assert_eq!(text(&release, "/status/reason"), "Aborted");
    let after = [scene.get("v1", "Service", "web").await, scene.get("v1", "Service", "preview").await];
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(borrowed(after), borrowed(before));
    }
    assert_eq!(scene.uids_of(&stable).await, uids, "stable was never touched");
    assert!(scene.get("apps/v1", "ReplicaSet", &text(&release, "/spec/to/replicaSet")).await.is_null());
    let totals = load.stop().await;
    assert_nothing_lost(std::slice::from_ref(&totals));
    assert!(totals.answered.contains_key("2"), "{totals:?}");
    scene.operator.assert_healthy().await;
}
