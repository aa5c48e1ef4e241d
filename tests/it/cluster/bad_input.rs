//! Rollouts that cannot work as they are written.

use serde_json::json;

use super::operator::Operator;
use super::scene::{Plan, Scene, create_workload, int, steps, text, while_nothing_happens};
use super::{Env, PATIENCE, eventually};

#[tokio::test]
async fn the_younger_of_two_rollouts_says_so_and_does_nothing() {
    let plan = Plan { replicas: 1, spec: steps(&[(50, "2s")]), ..Plan::default() };
    let Some(mut scene) = Scene::start("rivals", plan).await else { return };
    // Creation times have seconds; the younger one must be told apart.
    while_nothing_happens(1).await;
    scene.create_rollout("another", "web", &json!({})).await;
    let other = scene.rollout_is("another", "Waiting").await;
    let message = text(&other, "/status/message");
    assert!(message.contains("Rollout web is older"), "{message}");
    let ready =
        other["status"]["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "Ready").unwrap();
    assert_eq!((&ready["status"], &ready["reason"]), (&json!("False"), &json!("WorkloadTaken")));
    scene.set_env(&[("VERSION", "2")]).await;
    let name = scene.new_release(0).await;
    scene.release_is(&name, "Promoted").await;
    assert_eq!(scene.releases().await.len(), 1, "one release, of the older Rollout");
    assert_eq!(scene.workload().await["metadata"]["labels"]["belay.dev/rollout"], "web");

    // When the older one goes, the younger one takes over by itself.
    scene.delete("belay.dev/v1alpha1", "Rollout", "web").await;
    scene.rollout_is("another", "Stable").await;
    scene.workload_where("governed", |w| w["metadata"]["labels"]["belay.dev/rollout"] == "another").await;
    scene.operator.assert_healthy().await;
}

#[tokio::test]
async fn a_workload_that_comes_later_is_taken_up() {
    let Some(env) = Env::get().await else { return };
    let namespace = env.namespace("later").await;
    let operator = Operator::start(&env, &namespace.name).await;
    let mut scene = Scene { operator, namespace };
    let plan = Plan { replicas: 1, ..Plan::default() };
    scene.create_rollout("web", "web", &plan.spec).await;
    let rollout = scene.rollout_is("web", "Waiting").await;
    let message = text(&rollout, "/status/message");
    assert!(message.contains("Deployment web does not exist"), "{message}");
    create_workload(&scene.namespace, "web", &plan).await;
    scene.rollout_is("web", "Stable").await;
    scene.set_env(&[("VERSION", "2")]).await;
    let name = scene.new_release(0).await;
    scene.at_step(&name, 1).await;
    scene.operator.assert_healthy().await;
}

#[tokio::test]
async fn guards_that_do_not_parse_hold_the_change() {
    let mut plan = Plan { replicas: 1, ..Plan::default() };
    plan.spec["analysis"] = json!({
        "metrics": {"pods": {"port": 8080}},
        "guards": [{"name": "errors", "ratio": {
            "bad": {"metric": "http_requests_total", "match": "code=~\"5..("},
            "total": {"metric": "http_requests_total"}, "tolerate": "1.2x",
        }}],
    });
    let Some(mut scene) = Scene::start("unparsed", plan).await else { return };
    let stable = scene.stable().await;
    let uids = scene.uids_of(&stable).await;
    scene.set_env(&[("VERSION", "2")]).await;
    let rollout = scene.rollout_is("web", "Held").await;
    let message = text(&rollout, "/status/message");
    eprintln!("{message}");
    assert!(message.contains("errors") && message.contains("match"), "{message}");
    let ready =
        rollout["status"]["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "Ready").unwrap();
    assert_eq!((&ready["status"], &ready["reason"]), (&json!("False"), &json!("InvalidPlan")));
    while_nothing_happens(2).await;
    assert!(scene.releases().await.is_empty(), "nothing is half done");
    assert_eq!(scene.list("apps/v1", "ReplicaSet").await.len(), 1);
    assert_eq!(scene.uids_of(&stable).await, uids);
    assert_eq!(scene.workload().await["spec"]["paused"], true);

    // Mended, it starts by itself.
    let mended = json!({"spec": {"analysis": null}});
    scene.merge("belay.dev/v1alpha1", "Rollout", "web", &mended).await.unwrap();
    let name = scene.new_release(0).await;
    scene.at_step(&name, 1).await;
    scene.operator.assert_healthy().await;
}

#[tokio::test]
async fn a_paused_rollout_holds_changes_until_it_is_not() {
    let plan =
        Plan { replicas: 1, spec: steps(&[(50, "1s")]), ..Plan::default() }.with(&json!({"paused": true}));
    let Some(mut scene) = Scene::start("frozen", plan).await else { return };
    scene.set_env(&[("VERSION", "2")]).await;
    let rollout = scene.rollout_is("web", "Held").await;
    assert!(text(&rollout, "/status/message").contains("paused"), "{}", rollout["status"]);
    while_nothing_happens(2).await;
    assert!(scene.releases().await.is_empty());
    scene.merge("belay.dev/v1alpha1", "Rollout", "web", &json!({"spec": {"paused": false}})).await.unwrap();
    let name = scene.new_release(0).await;
    scene.release_is(&name, "Promoted").await;
    scene.operator.assert_healthy().await;
}

#[tokio::test]
async fn a_workload_scaled_to_nothing_is_promoted_at_once() {
    let Some(mut scene) = Scene::start("zero", Plan { replicas: 1, ..Plan::default() }).await else { return };
    scene.scale(0).await;
    eventually(PATIENCE, "scaled down", async || {
        let now = int(&scene.workload().await, "/status/replicas");
        if now == 0 { Ok(()) } else { Err(now) }
    })
    .await;
    scene.set_env(&[("VERSION", "2")]).await;
    let name = scene.new_release(0).await;
    scene.release_is(&name, "Promoted").await;
    scene.scale(1).await;
    scene
        .workload_where("serves", |w| {
            int(w, "/status/availableReplicas") == 1 && w.pointer("/spec/paused").is_none()
        })
        .await;
    scene.operator.assert_healthy().await;
}
