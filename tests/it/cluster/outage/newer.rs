//! Objects of a version that is yet to come. Their schema is the whole cluster's, so this runs by itself.

use kube::api::{Api, DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};

use super::super::hostile::{goes_on, scene};
use super::super::scene::{Plan, Scene, steps, text};
use super::super::{Env, PATIENCE, eventually, resource};

const BELAY: &str = "belay.dev/v1alpha1";

/// The schema of a kind of ours as a later version may have it: more in spec and in status.
async fn widen(env: &Env, kind: &str, wide: bool) {
    let mut crd =
        belay::install::crds().into_iter().find(|crd| crd["spec"]["names"]["kind"] == kind).unwrap();
    if wide {
        let root = crd.pointer_mut("/spec/versions/0/schema/openAPIV3Schema/properties").unwrap();
        for part in ["spec", "status"] {
            let more = json!({"type": "object", "properties": {"for": {"type": "string"}}});
            root[part]["properties"]["bakes"] = more;
        }
    }
    let name = crd["metadata"]["name"].as_str().unwrap().to_owned();
    let api: Api<DynamicObject> =
        Api::all_with(env.admin.clone(), &resource("apiextensions.k8s.io/v1", "CustomResourceDefinition"));
    let params = PatchParams::apply("belay").force();
    api.patch(&name, &params, &Patch::Apply(&crd)).await.unwrap();
}

async fn merge_as_admin(scene: &Scene, kind: &str, name: &str, status: bool, patch: &Value) {
    let api = scene.namespace.api(&scene.namespace.env.admin, BELAY, kind);
    // The API server takes a new schema up within a second or so; until then it prunes what it does not know.
    eventually(PATIENCE, &format!("{kind} {name} takes {patch}"), async || {
        let params = PatchParams::default();
        let patched = if status {
            api.patch_status(name, &params, &Patch::Merge(patch)).await
        } else {
            api.patch(name, &params, &Patch::Merge(patch)).await
        };
        let patched = serde_json::to_value(patched.unwrap()).unwrap();
        let part = if status { "status" } else { "spec" };
        let kept = patched[part]["bakes"] == patch[part]["bakes"];
        if kept { Ok(()) } else { Err(patched[part].clone()) }
    })
    .await;
}

#[tokio::test]
async fn objects_of_a_newer_version_are_left_alone_and_the_others_go_on() {
    let _alone = super::ONE_AT_A_TIME.lock().await;
    let plan = Plan { replicas: 2, spec: steps(&[(50, "20s")]), ..Plan::default() };
    let Some(mut scene) = scene("newer", &["web", "other", "third"], &plan).await else { return };
    let env = scene.namespace.env.clone();
    for kind in ["Rollout", "Release"] {
        widen(&env, kind, true).await;
    }
    let bakes = json!({"for": "1h"});

    // In a status: it goes back as it came.
    merge_as_admin(&scene, "Rollout", "web", true, &json!({"status": {"bakes": bakes}})).await;
    // A watch that was begun under the old schema goes on without what that does not know, and for the same version.
    scene.operator.restart().await;
    scene.set_env(&[("VERSION", "2")]).await;
    let name = scene.new_release(0).await;
    scene.at_step(&name, 1).await;
    assert_eq!(scene.rollout().await["status"]["bakes"], bakes, "the Rollout's status was written since");
    merge_as_admin(&scene, "Release", &name, true, &json!({"status": {"bakes": bakes}})).await;

    // In the spec of a running Release: everything stays as it is, and it is told. (The spec is immutable but for
    // what a schema of today does not know.)
    merge_as_admin(&scene, "Release", &name, false, &json!({"spec": {"bakes": bakes}})).await;
    let rollout = scene.rollout_is("web", "Held").await;
    let message = text(&rollout, "/status/message");
    assert!(message.contains(&name) && message.contains("bakes"), "{message}");
    let before = (scene.release(&name).await, scene.list("apps/v1", "ReplicaSet").await);
    // Neither a restart nor another change makes a second release of it, and the others go on.
    scene.operator.restart().await;
    scene.set_env(&[("VERSION", "3")]).await;
    scene
        .merge(
            BELAY,
            "Rollout",
            "other",
            &json!({"spec": {"strategy": {"canary": {"steps": [{"weight": 50, "minDuration": "1s"}]}}}}),
        )
        .await
        .unwrap();
    goes_on(&scene, "other", "2").await;
    let of_web = |all: Vec<Value>| -> Vec<Value> {
        all.into_iter().filter(|o| text(o, "/metadata/name").starts_with("web-")).collect()
    };
    let releases = of_web(scene.list(BELAY, "Release").await);
    assert_eq!(releases.len(), 1, "one Release of web");
    assert_eq!(releases[0], before.0, "it was not touched");
    assert_eq!(of_web(scene.list("apps/v1", "ReplicaSet").await), of_web(before.1), "nor was its canary");
    assert_eq!(scene.workload().await["spec"]["paused"], true);
    let told = scene.events("web").await;
    let held: Vec<_> =
        told.iter().filter(|(reason, kind, _)| reason == "Held" && kind == "Warning").collect();
    assert_eq!(held.len(), 1, "told once: {told:?}");

    // The same of a Rollout: told in the log and in the figures.
    merge_as_admin(&scene, "Rollout", "third", false, &json!({"spec": {"bakes": bakes}})).await;
    eventually(PATIENCE, "the figures tell", async || {
        let page = scene.operator.page("/metrics").await?.1;
        let rollouts = page.contains("belay_unreadable_objects{kind=\"Rollout\"} 1");
        let releases = page.contains("belay_unreadable_objects{kind=\"Release\"} 1");
        if rollouts && releases {
            Ok(())
        } else {
            Err(page.lines().filter(|l| l.contains("unreadable")).collect::<String>())
        }
    })
    .await;
    let lines = scene.operator.logged("cannot be read; it is left alone");
    assert!(lines.len() <= 3, "a line for each state of each object, no more: {lines:?}");
    goes_on(&scene, "other", "3").await;

    // With what it does not know gone, all are governed again.
    for (kind, name) in [("Release", name.as_str()), ("Rollout", "third")] {
        scene
            .namespace
            .api(&env.admin, BELAY, kind)
            .patch(name, &PatchParams::default(), &Patch::Merge(json!({"spec": {"bakes": null}})))
            .await
            .unwrap();
    }
    scene.release_is(&name, "Superseded").await;
    let release = scene.release(&name).await;
    assert_eq!(release["status"]["bakes"], bakes, "what the newer version wrote is still there");
    assert_eq!(scene.rollout().await["status"]["bakes"], bakes);
    scene.operator.assert_healthy().await;
    for kind in ["Rollout", "Release"] {
        widen(&env, kind, false).await;
    }
}
