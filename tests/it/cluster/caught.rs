//! Changes that go past the brake. It is in the API server all the time, so they are written as the operator's own
//! account, which the brake lets through.

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::load::{Load, post};
use super::operator::{Operator, own_kubeconfig};
use super::record::Recorder;
use super::releases::service;
use super::scene::{
    Plan, Scene, brief, create_workload, int, is_ready, rollout, steps, text, timeline, while_nothing_happens,
};
use super::{Env, PATIENCE, eventually};

/// Changes settings of the program past the brake.
async fn slip(scene: &Scene, env: &[(&str, &str)]) {
    let env: Vec<Value> = env.iter().map(|(n, v)| json!({"name": n, "value": v})).collect();
    let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "app", "env": env}]}}}});
    past_the_brake(scene, &patch).await;
}

async fn past_the_brake(scene: &Scene, patch: &Value) {
    let api = scene.namespace.deployments(&scene.namespace.env.belay);
    api.patch("web", &PatchParams::default(), &Patch::Strategic(patch)).await.unwrap();
}

/// The same while the operator is frozen, until pods of it are out: else the pause may come before the first.
async fn slip_out(scene: &Scene, env: &[(&str, &str)]) {
    scene.operator.signal("STOP");
    slip(scene, env).await;
    let out = |w: &Value| {
        let seen = int(w, "/status/observedGeneration") == int(w, "/metadata/generation");
        seen && int(w, "/status/updatedReplicas") > 0
    };
    scene.workload_where("pods of it are out", out).await;
    scene.operator.signal("CONT");
}

/// Tells pods of the sample program whether they are ready.
async fn set_ready(scene: &Scene, uids: &[String], ready: bool) {
    for uid in uids {
        eventually(PATIENCE, "the pod is told", async || {
            let pods = scene.list("v1", "Pod").await;
            let pod = pods.iter().find(|p| text(p, "/metadata/uid") == *uid).ok_or("it is gone")?;
            let address = format!("{}:8080", text(pod, "/status/podIP"));
            match post(&address, &format!("/control?ready={ready}")).await {
                Ok((200, _)) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }
}

/// Sizes as the Deployment's status has them: pods of the new template, and all.
fn sizes(w: &Value) -> (i64, i64) {
    let seen = int(w, "/status/observedGeneration") == int(w, "/metadata/generation");
    if seen { (int(w, "/status/updatedReplicas"), int(w, "/status/replicas")) } else { (-1, -1) }
}

/// Four pods; at most one more, and at most one fewer, in the workload's own rolling update.
fn four(watched: &str) -> Plan {
    Plan {
        replicas: 4,
        spec: steps(&[(10, watched), (50, "10m")]),
        // They go on serving while the Service forgets them.
        deployment: json!({"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 10}}}}),
        env: vec![("LINGER", "3s")],
    }
}

/// The fewest ready pods at any time since the recorder was started with so many.
fn least_ready(recorder: &Recorder, at_first: usize) -> usize {
    let mut ready = std::collections::BTreeSet::new();
    let (mut least, mut full) = (usize::MAX, false);
    for pod in recorder.of("Pod") {
        let serves = is_ready(&pod) && pod.pointer("/metadata/deletionTimestamp").is_none();
        let uid = text(&pod, "/metadata/uid");
        if serves {
            ready.insert(uid)
        } else {
            ready.remove(&uid)
        };
        // The first listing comes pod by pod.
        full |= ready.len() >= at_first;
        if full {
            least = least.min(ready.len());
        }
    }
    least
}

/// The last release of the scene that was caught past the brake, once it is there.
async fn caught(scene: &Scene, known: usize) -> Value {
    let name = scene.new_release(known).await;
    let release = scene.release(&name).await;
    assert_eq!(release["spec"]["unbraked"], true, "{}", brief(&release));
    release
}

async fn complete(scene: &Scene, replicas: i64) -> Value {
    scene
        .workload_where("let go and complete", |w| {
            w.pointer("/spec/paused").is_none()
                && w["metadata"]["labels"].get("belay.dev/release").is_none()
                && int(w, "/status/replicas") == replicas
                && int(w, "/status/updatedReplicas") == replicas
                && int(w, "/status/availableReplicas") == replicas
        })
        .await
}

/// Pods of it get ready only when they are told to, so its rolling update goes as far as the test lets it.
const UNREADY: [(&str, &str); 2] = [("VERSION", "2"), ("READY", "false")];

#[tokio::test]
async fn a_good_change_that_slipped_is_held_watched_and_promoted() {
    let Some(mut scene) = Scene::start("slipgood", four("6s")).await else { return };
    let load = Load::start(&service(&scene).await, 40);
    let recorder = Recorder::start(&scene.namespace).await;
    slip_out(&scene, &UNREADY).await;
    let release = caught(&scene, 0).await;
    let name = text(&release, "/metadata/name");
    let own = text(&release, "/spec/to/replicaSet");
    let workload = scene.workload_where("paused", |w| w["spec"]["paused"] == true).await;
    assert_eq!(workload["metadata"]["labels"]["belay.dev/release"], release["spec"]["to"]["revision"]);
    scene.workload_where("as many as it may have", |w| sizes(w).1 == 5).await;
    let (old, new) = (scene.uids_of(&scene.stable().await).await, scene.uids_of(&own).await);
    assert!(old.len() >= 3 && !new.is_empty(), "{} beside {}", new.len(), old.len());
    set_ready(&scene, &new, true).await;
    scene.at_step(&name, 1).await;
    scene.release_where(&name, "says that it watches", |r| text(r, "/status/reason") == "StepTime").await;
    assert_eq!(scene.uids_of(&own).await, new, "held where it was caught");

    scene.release_where(&name, "let go", |r| text(r, "/status/phase") == "Promoting").await;
    eventually(PATIENCE, "all pods of it are told to be ready", async || {
        let all = scene.uids_of(&own).await;
        set_ready(&scene, &all, true).await;
        let release = scene.release(&name).await;
        if text(&release, "/status/phase") == "Promoted" { Ok(()) } else { Err(brief(&release)) }
    })
    .await;
    let release = scene.release(&name).await;
    assert_eq!(timeline(&release), ["Caught", "StepPassed", "LetGo", "Promoted"]);
    complete(&scene, 4).await;
    let stable = scene.rollout_is("web", "Stable").await;
    assert_eq!(text(&stable, "/status/stable/replicaSet"), own);
    let promoted = scene.uids_of(&own).await;
    assert!(promoted.len() == 4 && new.iter().all(|uid| promoted.contains(uid)));
    let least = least_ready(&recorder, 4);
    assert!(least >= 3, "{least} pods were ready; the workload allows one of four to be missing");
    let totals = load.stop().await;
    assert!(totals.failed.is_empty() && totals.bad.is_empty(), "{totals:?}");
    let told: Vec<String> = scene.events(&name).await.into_iter().map(|(reason, ..)| reason).collect();
    assert_eq!(told, ["ReleaseStarted", "LetGo", "Promoted"]);
    let told = scene.events("web").await;
    assert!(told.iter().any(|(reason, kind, _)| reason == "Caught" && kind == "Warning"), "{told:?}");
    scene.operator.assert_healthy().await;
}

#[tokio::test]
async fn a_crashing_change_that_slipped_is_undone_and_stays_so() {
    let Some(mut scene) = Scene::start("slipcrash", four("10m")).await else { return };
    let stable = scene.stable().await;
    let template = scene.workload().await["spec"]["template"].clone();
    let load = Load::start(&service(&scene).await, 40);
    let recorder = Recorder::start(&scene.namespace).await;
    let bad = [("VERSION", "2"), ("CRASH", "start")];
    slip_out(&scene, &bad).await;
    let release = caught(&scene, 0).await;
    let name = text(&release, "/metadata/name");
    let own = text(&release, "/spec/to/replicaSet");
    let release = scene.release_is(&name, "RolledBack").await;
    assert_eq!(text(&release, "/status/reason"), "CanaryCrashed", "{}", brief(&release));
    let workload = complete(&scene, 4).await;
    assert_eq!(workload["spec"]["template"], template, "byte for byte what it was");
    assert_eq!(scene.pods_of(&stable).await.len(), 4);
    assert!(scene.pods_of(&own).await.is_empty());
    let rollout = scene.rollout_is("web", "Stable").await;
    assert_eq!(rollout["status"]["vetoed"][0]["revision"], release["spec"]["to"]["revision"]);

    // Another writer brings it back, past the brake again: nothing of it serves, and its template stays.
    slip_out(&scene, &bad).await;
    let rollout = scene.rollout_is("web", "Rejected").await;
    assert!(text(&rollout, "/status/message").contains("another writer brings it back"), "{rollout}");
    let counted = async || {
        let rollout = scene.rollout().await;
        let sizes = (scene.pods_of(&stable).await.len(), scene.pods_of(&own).await.len());
        let returns = int(&rollout, "/status/vetoed/0/returns");
        if sizes == (4, 0) && returns > 0 { Ok(returns) } else { Err((sizes, rollout["status"].to_string())) }
    };
    let returns = eventually(PATIENCE, "stable is at full size, and nothing of it is left", counted).await;
    assert_eq!(returns, 1);
    let workload = scene.workload().await;
    assert_eq!(workload["spec"]["paused"], true);
    assert_ne!(workload["spec"]["template"], template);
    while_nothing_happens(2).await;
    assert_eq!((scene.pods_of(&stable).await.len(), scene.pods_of(&own).await.len()), (4, 0));
    assert_eq!(scene.releases().await.len(), 1, "no release of it starts again");

    let least = least_ready(&recorder, 4);
    assert!(least >= 3, "{least} pods were ready; the workload allows one of four to be missing");
    let totals = load.stop().await;
    assert!(totals.failed.is_empty() && totals.bad.is_empty(), "{totals:?}");
    assert!(totals.answered.keys().all(|version| version == "1"), "{totals:?}");
    scene.operator.assert_healthy().await;
}

#[tokio::test]
async fn what_slips_while_the_operator_is_down_is_caught_half_way_and_undone_at_the_first_failure() {
    let Some(mut scene) = Scene::start("slipdown", four("10m")).await else { return };
    let stable = scene.stable().await;
    scene.operator.kill();
    slip(&scene, &UNREADY).await;
    // Two of it and three stable ones; when the two are ready, four of it and one stable one.
    scene.workload_where("its first pods are out", |w| sizes(w) == (2, 5)).await;
    let own = newest(&scene, &stable).await;
    let first = scene.uids_of(&own).await;
    set_ready(&scene, &first, true).await;
    scene.workload_where("half way", |w| sizes(w) == (4, 5) && int(w, "/status/readyReplicas") == 3).await;
    scene.operator.restart().await;
    let release = caught(&scene, 0).await;
    let name = text(&release, "/metadata/name");
    assert_eq!(text(&release, "/spec/to/replicaSet"), own);
    scene.release_where(&name, "watches", |r| text(r, "/status/reason") == "ScalingUp").await;
    assert_eq!(sizes(&scene.workload_where("paused", |w| w["spec"]["paused"] == true).await).1, 5);

    set_ready(&scene, &first[..1], false).await;
    let release = scene.release_is(&name, "RolledBack").await;
    assert_eq!(text(&release, "/status/reason"), "CanaryCrashed", "{}", brief(&release));
    complete(&scene, 4).await;
    assert_eq!(scene.pods_of(&stable).await.len(), 4);
    scene.rollout_is("web", "Stable").await;
    scene.operator.assert_healthy().await;
}

/// The ReplicaSet with pods that is not this one.
async fn newest(scene: &Scene, stable: &str) -> String {
    eventually(PATIENCE, "another ReplicaSet has pods", async || {
        let all = scene.list("apps/v1", "ReplicaSet").await;
        let other =
            all.iter().find(|rs| text(rs, "/metadata/name") != stable && int(rs, "/spec/replicas") > 0);
        other.map(|rs| text(rs, "/metadata/name")).ok_or("none")
    })
    .await
}

#[tokio::test]
async fn what_was_out_completely_before_the_operator_came_is_stable_and_told() {
    let Some(mut scene) = Scene::start("slipout", four("2s")).await else { return };
    let before = scene.stable().await;
    scene.operator.kill();
    slip(&scene, &[("VERSION", "2")]).await;
    scene
        .workload_where("out completely", |w| {
            int(w, "/status/observedGeneration") == int(w, "/metadata/generation")
                && int(w, "/status/updatedReplicas") == 4
                && int(w, "/status/replicas") == 4
                && int(w, "/status/availableReplicas") == 4
        })
        .await;
    scene.operator.restart().await;
    let rollout = eventually(PATIENCE, "it is learnt", async || {
        let rollout = scene.rollout().await;
        let stable = text(&rollout, "/status/stable/replicaSet");
        if stable == before { Err(rollout["status"].to_string()) } else { Ok(rollout) }
    })
    .await;
    assert_eq!(text(&rollout, "/status/phase"), "Stable");
    assert!(text(&rollout, "/status/message").contains("went past the brake"), "{}", rollout["status"]);
    assert!(scene.releases().await.is_empty(), "no release is made up");
    let told = eventually(PATIENCE, "it is told", async || {
        let told = scene.events("web").await;
        if told.iter().any(|(reason, ..)| reason == "OutAlready") { Ok(told) } else { Err(told) }
    })
    .await;
    assert_eq!(told.iter().filter(|(reason, ..)| reason == "OutAlready").count(), 1, "{told:?}");
    assert!(scene.workload().await.pointer("/spec/paused").is_none());
    // The next change is a release like any other.
    scene.set_env(&[("VERSION", "3")]).await;
    let name = scene.new_release(0).await;
    let release = scene.at_step(&name, 1).await;
    assert!(release["spec"].get("unbraked").is_none());
    scene.operator.assert_healthy().await;
}

#[tokio::test]
async fn where_the_brake_is_missing_a_change_is_caught_and_what_failed_when_let_go_is_undone() {
    let Some(env) = Env::get().await else { return };
    let namespace = env.namespace("slipmissing").await;
    let plan = four("2s");
    create_workload(&namespace, "web", &plan).await;
    let flags = ["--brake", "no-such-brake.belay.dev"];
    let operator = Operator::start_flagged(&env, &namespace.name, own_kubeconfig(), &flags).await;
    let mut scene = Scene { operator, namespace };
    let object = rollout("web", "web", &plan.spec);
    scene.namespace.apply(&scene.namespace.env.alice, "alice", &object).await.unwrap();
    let stable = text(&scene.rollout_is("web", "Stable").await, "/status/stable/replicaSet");

    slip_out(&scene, &UNREADY).await;
    let release = caught(&scene, 0).await;
    let name = text(&release, "/metadata/name");
    let own = text(&release, "/spec/to/replicaSet");
    scene.workload_where("as many as it may have", |w| sizes(w).1 == 5 && w["spec"]["paused"] == true).await;
    let first = scene.uids_of(&own).await;
    set_ready(&scene, &first, true).await;
    let message = text(&scene.at_step(&name, 1).await, "/status/timeline/0/message");
    assert!(message.contains("no-such-brake.belay.dev does not exist"), "{message}");
    scene.release_where(&name, "let go", |r| text(r, "/status/phase") == "Promoting").await;
    // Its later pods are not ready, so it cannot be complete.
    set_ready(&scene, &first[..1], false).await;
    let release = scene.release_is(&name, "RolledBack").await;
    assert_eq!(text(&release, "/status/reason"), "CanaryCrashed", "{}", brief(&release));
    assert!(timeline(&release).contains(&"LetGo".to_owned()), "{}", brief(&release));
    complete(&scene, 4).await;
    assert_eq!(scene.pods_of(&stable).await.len(), 4);
    let events = scene.events(&name).await;
    let told: Vec<&str> = events.iter().map(|(reason, ..)| reason.as_str()).collect();
    assert_eq!(told, ["ReleaseStarted", "LetGo", "RolledBack"]);
    scene.operator.assert_healthy().await;
}
