//! What happens to a release when the world changes under it.

use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::record::Recorder;
use super::scene::{Plan, Scene, brief, int, steps, text, while_nothing_happens};
use super::{PATIENCE, eventually};

/// Three pods and a first step that nobody waits out.
fn long() -> Plan {
    Plan { spec: steps(&[(30, "60s"), (50, "60s")]), ..Plan::default() }
}

async fn gone(scene: &Scene, version: &str, kind: &str, name: &str) {
    eventually(PATIENCE, &format!("{kind} {name} is gone"), async || {
        let found = scene.get(version, kind, name).await;
        if found.is_null() { Ok(()) } else { Err(found["metadata"].to_string()) }
    })
    .await;
}

#[tokio::test]
async fn another_change_supersedes_and_starts_at_the_first_step() {
    let Some(mut scene) = Scene::start("again", long()).await else { return };
    let stable = scene.stable().await;
    let uids = scene.uids_of(&stable).await;
    let recorder = Recorder::start(&scene.namespace).await;
    scene.set_env(&[("VERSION", "2")]).await;
    let first = scene.new_release(0).await;
    scene.at_step(&first, 1).await;
    scene.set_env(&[("VERSION", "3")]).await;
    let ended = scene.release_is(&first, "Superseded").await;
    assert!(text(&ended, "/status/message").contains("changed again"), "{}", brief(&ended));
    gone(&scene, "apps/v1", "ReplicaSet", &text(&ended, "/spec/to/replicaSet")).await;
    let second = scene.new_release(1).await;
    let release = scene.at_step(&second, 1).await;
    assert_eq!(release["spec"]["from"], ended["spec"]["from"]);
    recorder.assert_untouched(&uids, None);
    assert!(scene.rollout().await["status"].get("vetoed").is_none(), "a superseded revision is not vetoed");
    scene.operator.assert_healthy().await;
}

#[tokio::test]
async fn going_back_ends_it_and_unpauses() {
    let Some(mut scene) = Scene::start("revert", long()).await else { return };
    let stable = scene.stable().await;
    let uids = scene.uids_of(&stable).await;
    let recorder = Recorder::start(&scene.namespace).await;
    scene.set_env(&[("VERSION", "2")]).await;
    let name = scene.new_release(0).await;
    scene.at_step(&name, 1).await;
    scene.set_env(&[("VERSION", "1")]).await;
    let ended = scene.release_is(&name, "Superseded").await;
    assert_eq!(text(&ended, "/status/reason"), "RevertedByUser");
    scene.rollout_is("web", "Stable").await;
    let workload = scene.workload_where("unpaused", |w| w.pointer("/spec/paused").is_none()).await;
    assert!(workload["metadata"]["labels"].get("belay.dev/release").is_none());
    while_nothing_happens(2).await;
    assert_eq!(scene.uids_of(&stable).await, uids);
    assert_eq!(scene.releases().await.len(), 1);
    recorder.assert_untouched(&uids, None);
    scene.operator.assert_healthy().await;
}

#[tokio::test]
async fn the_canary_follows_the_workloads_scale() {
    let plan = Plan { spec: steps(&[(50, "6s")]), ..Plan::default() };
    let Some(mut scene) = Scene::start("scale", plan).await else { return };
    let stable = scene.stable().await;
    scene.set_env(&[("VERSION", "2")]).await;
    let name = scene.new_release(0).await;
    let release = scene.at_step(&name, 1).await;
    let canary = text(&release, "/spec/to/replicaSet");
    for replicas in [5, 2] {
        scene.scale(replicas).await;
        eventually(PATIENCE, "both versions follow", async || {
            let sizes = (scene.pods_of(&stable).await.len(), scene.pods_of(&canary).await.len());
            if sizes == (replicas as usize, replicas as usize) { Ok(()) } else { Err(sizes) }
        })
        .await;
    }
    let release = scene.release_is(&name, "Promoted").await;
    assert_eq!(int(&release, "/status/weight/canaryPods"), 2);
    assert_eq!(scene.pods_of(&canary).await.len(), 2);
    scene.operator.assert_healthy().await;
}

#[tokio::test]
async fn scaling_at_the_handover_loses_no_pod_and_ends_promoted() {
    let plan = Plan { spec: steps(&[(50, "1s")]), ..Plan::default() };
    let Some(mut scene) = Scene::start("handover", plan).await else { return };
    for (round, replicas) in [(0_usize, 5_u32), (1, 3)] {
        let recorder = Recorder::start(&scene.namespace).await;
        let before = scene.workload().await;
        scene.set_env(&[("VERSION", if round == 0 { "2" } else { "3" })]).await;
        let name = scene.new_release(round).await;
        let canary = text(&scene.release(&name).await, "/spec/to/replicaSet");
        // The moment the canary is let go.
        eventually(PATIENCE, "the handover", async || recorder.handover(&canary).ok_or("not yet")).await;
        scene.scale(replicas).await;
        scene.release_is(&name, "Promoted").await;
        let workload = scene
            .workload_where("complete", |w| {
                int(w, "/status/updatedReplicas") == i64::from(replicas)
                    && int(w, "/status/replicas") == i64::from(replicas)
            })
            .await;
        assert!(workload.pointer("/spec/paused").is_none());
        assert_eq!(scene.pods_of(&canary).await.len(), replicas as usize);
        let floor = int(&before, "/spec/replicas").min(i64::from(replicas));
        for state in recorder.of("Deployment") {
            let available = int(&state, "/status/availableReplicas");
            assert!(available >= floor, "{available} available, {floor} promised: {}", state["status"]);
        }
    }
    scene.operator.assert_healthy().await;
}

#[tokio::test]
async fn an_autoscalers_floor_is_held_and_given_back() {
    let Some(mut scene) = Scene::start("floor", long()).await else { return };
    let hpa = json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "web"},
        "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
                 "minReplicas": 1, "maxReplicas": 6,
                 "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]},
    });
    let gitops = scene.namespace.env.gitops.clone();
    scene.namespace.apply(&gitops, "gitops", &hpa).await.unwrap();
    let floor = async |scene: &Scene, wanted: i64| {
        eventually(PATIENCE, &format!("the floor is {wanted}"), async || {
            let found = scene.get("autoscaling/v2", "HorizontalPodAutoscaler", "web").await;
            if int(&found, "/spec/minReplicas") == wanted {
                Ok(found)
            } else {
                Err(found["spec"].to_string())
            }
        })
        .await
    };
    scene.set_env(&[("VERSION", "2")]).await;
    let name = scene.new_release(0).await;
    floor(&scene, 3).await;
    // GitOps writes its own floor again: it is held again.
    scene.namespace.apply(&gitops, "gitops", &hpa).await.unwrap();
    floor(&scene, 3).await;
    scene.at_step(&name, 1).await;
    scene.command(&name, json!({"verb": "abort"})).await;
    scene.release_is(&name, "RolledBack").await;
    let back = floor(&scene, 1).await;
    let left = back["metadata"]["annotations"].get("belay.dev/held-min-replicas");
    assert!(left.is_none(), "{left:?}");

    // Another floor, asked for during a release, is what stays.
    scene.set_env(&[("VERSION", "3")]).await;
    let name = scene.new_release(1).await;
    floor(&scene, 3).await;
    let mut other = hpa.clone();
    other["spec"]["minReplicas"] = json!(2);
    scene.namespace.apply(&gitops, "gitops", &other).await.unwrap();
    floor(&scene, 3).await;
    scene.at_step(&name, 1).await;
    scene.command(&name, json!({"verb": "abort"})).await;
    scene.release_is(&name, "RolledBack").await;
    floor(&scene, 2).await;
    scene.operator.assert_healthy().await;
}

#[tokio::test]
async fn the_workload_is_deleted() {
    let Some(mut scene) = Scene::start("noload", long()).await else { return };
    scene.set_env(&[("VERSION", "2")]).await;
    let name = scene.new_release(0).await;
    let release = scene.at_step(&name, 1).await;
    scene.delete("apps/v1", "Deployment", "web").await;
    let ended = scene.release_is(&name, "Superseded").await;
    assert_eq!(text(&ended, "/status/reason"), "WorkloadDeleted");
    gone(&scene, "apps/v1", "ReplicaSet", &text(&release, "/spec/to/replicaSet")).await;
    let rollout = scene.rollout_is("web", "Waiting").await;
    assert!(text(&rollout, "/status/message").contains("does not exist"), "{}", rollout["status"]);
    eventually(PATIENCE, "no pod is left", async || {
        let pods = scene.list("v1", "Pod").await.len();
        if pods == 0 { Ok(()) } else { Err(pods) }
    })
    .await;

    // A new one of that name is another workload: its first revision is stable without a release.
    super::scene::create_workload(&scene.namespace, "web", &Plan { env: vec![("VERSION", "9")], ..long() })
        .await;
    scene.rollout_is("web", "Stable").await;
    assert_eq!(scene.releases().await.len(), 1);
    scene.operator.assert_healthy().await;
}

#[tokio::test]
async fn the_rollout_is_deleted() {
    let Some(mut scene) = Scene::start("norollout", long()).await else { return };
    let stable = scene.stable().await;
    let uids = scene.uids_of(&stable).await;
    let recorder = Recorder::start(&scene.namespace).await;
    scene.set_env(&[("VERSION", "2")]).await;
    let name = scene.new_release(0).await;
    let release = scene.at_step(&name, 1).await;
    scene.delete("belay.dev/v1alpha1", "Rollout", "web").await;
    gone(&scene, "belay.dev/v1alpha1", "Rollout", "web").await;
    gone(&scene, "apps/v1", "ReplicaSet", &text(&release, "/spec/to/replicaSet")).await;
    let workload = scene.workload().await;
    assert_eq!(workload.pointer("/spec/paused"), Some(&json!(true)), "the change does not slip out");
    for label in ["belay.dev/rollout", "belay.dev/release"] {
        assert!(workload["metadata"]["labels"].get(label).is_none(), "{label} is left");
    }
    let told = scene.events("web").await;
    assert!(told.iter().any(|(_, _, note)| note.contains("kubectl rollout resume")), "{told:?}");
    assert_eq!(scene.uids_of(&stable).await, uids);
    recorder.assert_untouched(&uids, None);

    // kubectl alone goes on.
    let resume: Value = json!({"spec": {"paused": null}});
    scene.merge("apps/v1", "Deployment", "web", &resume).await.unwrap();
    scene.workload_where("its own rolling update is done", |w| int(w, "/status/updatedReplicas") == 3).await;
    scene.operator.assert_healthy().await;
}

#[tokio::test]
async fn a_rollout_at_rest_is_deleted_and_leaves_nothing() {
    let Some(mut scene) = Scene::start("retire", long()).await else { return };
    let before = scene.workload().await;
    scene.delete("belay.dev/v1alpha1", "Rollout", "web").await;
    gone(&scene, "belay.dev/v1alpha1", "Rollout", "web").await;
    let after = scene.workload().await;
    assert!(after["metadata"]["labels"].get("belay.dev/rollout").is_none());
    assert_eq!(after["spec"], before["spec"]);
    scene.operator.assert_healthy().await;
}

#[tokio::test]
async fn the_release_is_deleted() {
    let Some(mut scene) = Scene::start("norelease", long()).await else { return };
    let stable = scene.stable().await;
    let uids = scene.uids_of(&stable).await;
    let recorder = Recorder::start(&scene.namespace).await;
    scene.set_env(&[("VERSION", "2")]).await;
    let name = scene.new_release(0).await;
    let release = scene.at_step(&name, 1).await;
    scene.delete("belay.dev/v1alpha1", "Release", &name).await;
    let rollout = scene.rollout_is("web", "Rejected").await;
    assert_eq!(rollout["status"]["vetoed"][0]["reason"], "ReleaseDeleted");
    gone(&scene, "apps/v1", "ReplicaSet", &text(&release, "/spec/to/replicaSet")).await;
    while_nothing_happens(2).await;
    assert!(scene.releases().await.is_empty(), "it does not start by itself again");
    recorder.assert_untouched(&uids, None);
    eprintln!("{}", text(&rollout, "/status/message"));
    scene.operator.assert_healthy().await;
}

#[tokio::test]
async fn a_release_keeps_the_plan_it_started_with() {
    let plan = Plan { spec: steps(&[(30, "3s"), (50, "1s")]), ..Plan::default() };
    let Some(mut scene) = Scene::start("edit", plan).await else { return };
    scene.set_env(&[("VERSION", "2")]).await;
    let name = scene.new_release(0).await;
    let before = scene.release(&name).await;
    let other = json!({"spec": {"strategy": {"canary": {"steps": [{"weight": 10, "minDuration": "1h", "maxDuration": "2h"}]}}}});
    scene.merge("belay.dev/v1alpha1", "Rollout", "web", &other).await.unwrap();
    let done = scene.release_is(&name, "Promoted").await;
    assert_eq!(done["spec"], before["spec"]);
    scene.set_env(&[("VERSION", "3")]).await;
    let next = scene.new_release(1).await;
    let release = scene.release(&next).await;
    assert_eq!(release["spec"]["steps"].as_array().unwrap().len(), 1, "the next one takes the new plan");
    scene.operator.assert_healthy().await;
}

#[tokio::test]
async fn nobody_unpauses_a_held_workload() {
    let Some(mut scene) = Scene::start("resume", long()).await else { return };
    let stable = scene.stable().await;
    let uids = scene.uids_of(&stable).await;
    let recorder = Recorder::start(&scene.namespace).await;
    scene.set_env(&[("VERSION", "2")]).await;
    let name = scene.new_release(0).await;
    scene.at_step(&name, 1).await;
    let try_all = async |scene: &Scene| {
        for client in [&scene.namespace.env.alice, &scene.namespace.env.admin] {
            let api = scene.namespace.deployments(client);
            for patch in [
                json!({"spec": {"paused": null}}),
                json!({"spec": {"paused": false}}),
                json!({"metadata": {"labels": {"belay.dev/release": null, "belay.dev/rollout": null}}, "spec": {"paused": false}}),
            ] {
                api.patch("web", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
                let now = scene.workload().await;
                assert_eq!(now.pointer("/spec/paused"), Some(&json!(true)), "after {patch}");
            }
        }
    };
    try_all(&scene).await;
    scene.command(&name, json!({"verb": "abort"})).await;
    scene.rollout_is("web", "Rejected").await;
    try_all(&scene).await;
    while_nothing_happens(2).await;
    assert_eq!(scene.uids_of(&stable).await, uids);
    recorder.assert_untouched(&uids, None);
    // Not even without its pods: a stable pod that is deleted comes back as stable.
    let victim = text(&scene.pods_of(&stable).await[0], "/metadata/name");
    let pods = scene.namespace.api(&scene.namespace.env.admin, "v1", "Pod");
    pods.delete(&victim, &DeleteParams::default()).await.unwrap();
    eventually(PATIENCE, "three stable pods again", async || {
        let count = scene.pods_of(&stable).await.len();
        if count == 3 { Ok(()) } else { Err(count) }
    })
    .await;
    scene.operator.assert_healthy().await;
}
