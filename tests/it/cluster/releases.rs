//! A good release, all the way.

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::load::Load;
use super::record::{Recorder, version};
use super::scene::{Plan, Scene, int, is_ready, restarts, steps, text, timeline};
use super::{PATIENCE, eventually};

const REPLICAS: i32 = 5;
const WEIGHTS: [i32; 3] = [10, 30, 50];

#[tokio::test]
async fn a_good_version_is_promoted_without_a_lost_request() {
    let plan = Plan {
        replicas: 5,
        spec: steps(&[(WEIGHTS[0], "2s"), (WEIGHTS[1], "2s"), (WEIGHTS[2], "2s")]),
        // They go on serving while the Service forgets them.
        deployment: json!({"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 10}}}}),
        env: vec![("LINGER", "3s")],
    };
    let Some(mut scene) = Scene::start("good", plan).await else { return };
    let address = service(&scene).await;
    let load = Load::start(&address, 40);
    let stable = scene.stable().await;
    let stable_uids = scene.uids_of(&stable).await;
    assert_eq!(stable_uids.len(), 5);
    let before = scene.workload().await;
    let recorder = Recorder::start(&scene.namespace).await;

    scene.set_env(&[("VERSION", "2")]).await;
    let name = scene.new_release(0).await;
    let held = scene.at_step(&name, 1).await;
    let canary = text(&held, "/spec/to/replicaSet");
    let first_uids = scene.uids_of(&canary).await;
    assert_eq!(first_uids.len(), 1, "one canary pod at 10 % beside five");
    let workload = scene.workload().await;
    assert_eq!(workload.pointer("/spec/paused"), Some(&json!(true)));
    assert_eq!(workload["metadata"]["labels"]["belay.dev/release"], held["spec"]["to"]["revision"]);
    let release = scene.release_is(&name, "Promoted").await;
    let totals = load.stop().await;

    assert!(totals.failed.is_empty() && totals.bad.is_empty(), "{totals:?}");
    assert!(totals.requests > 100 && totals.answered.contains_key("2"), "{totals:?}");
    assert_eq!(
        timeline(&release),
        [
            "ReleaseStarted",
            "StepPassed",
            "StepStarted 2",
            "StepPassed",
            "StepStarted 3",
            "StepPassed",
            "Promoting",
            "Promoted"
        ],
    );
    assert_eq!(int(&release, "/status/weight/reached"), 100);

    let promoted = scene.pods_of(&canary).await;
    assert_eq!(promoted.len(), 5);
    assert!(promoted.iter().all(|p| restarts(p) == 0 && is_ready(p)));
    let tested = tested_uids(&recorder, &canary);
    let serving = scene.uids_of(&canary).await;
    assert_eq!(serving, tested, "the promoted pods are the tested pods");
    assert!(first_uids.iter().all(|uid| serving.contains(uid)));
    let handover = recorder.handover(&canary).expect("it was handed over");
    recorder.assert_untouched(&stable_uids, Some(handover));
    assert_eq!(recorder.sizes(&canary), [1, 3, 5]);
    assert_steps_permit(&recorder, &canary);

    let after = scene.workload().await;
    assert!(after.pointer("/spec/paused").is_none(), "{}", after["spec"]);
    assert!(after["metadata"]["labels"].get("belay.dev/release").is_none());
    assert_eq!(after["metadata"]["labels"]["belay.dev/rollout"], "web");
    let number = |d: &Value| {
        d["metadata"]["annotations"]["deployment.kubernetes.io/revision"]
            .as_str()
            .unwrap()
            .parse::<u32>()
            .unwrap()
    };
    assert_eq!(number(&after), number(&before) + 1, "kubectl rollout history goes on");
    let adopted = scene.get("apps/v1", "ReplicaSet", &canary).await;
    assert_eq!(adopted["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "2");
    let rollout = scene.rollout_is("web", "Stable").await;
    assert_eq!(text(&rollout, "/status/stable/replicaSet"), canary);
    let events: Vec<String> = scene.events(&name).await.into_iter().map(|(reason, ..)| reason).collect();
    assert_eq!(events, ["ReleaseStarted", "StepStarted", "StepStarted", "Promoted"]);

    undo_is_a_release(&mut scene, &stable).await;
    scene.operator.assert_healthy().await;
}

/// `kubectl rollout undo` afterwards is a release like any other, of the old template.
async fn undo_is_a_release(scene: &mut Scene, old: &str) {
    scene.set_env(&[("VERSION", "1")]).await;
    let name = scene.new_release(1).await;
    let release = scene.release_is(&name, "Promoted").await;
    assert_ne!(text(&release, "/spec/to/replicaSet"), old);
    let workload =
        scene.workload_where("the workload is complete", |w| int(w, "/status/updatedReplicas") == 5).await;
    assert!(workload.pointer("/spec/paused").is_none());
}

/// A Service in front of the pods; its address.
pub async fn service(scene: &Scene) -> String {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
    });
    scene.namespace.apply(&scene.namespace.env.alice, "alice", &service).await.unwrap();
    let ip = text(&scene.get("v1", "Service", "web").await, "/spec/clusterIP");
    let address = format!("{ip}:80");
    eventually(PATIENCE, "the Service answers", async || super::load::get(&address, "/", "load").await).await;
    address
}

/// The uids of the canary's pods that were ready before the handover.
fn tested_uids(recorder: &Recorder, canary: &str) -> Vec<String> {
    let handover = recorder.handover(canary).expect("it was handed over");
    let mut uids: Vec<String> = recorder
        .of("Pod")
        .iter()
        .filter(|p| {
            text(p, "/metadata/ownerReferences/0/name") == canary && is_ready(p) && version(p) < handover
        })
        .map(|p| text(p, "/metadata/uid"))
        .collect();
    uids.sort();
    uids.dedup();
    uids
}

/// At each state of the canary, the release had already recorded a step that permits its size.
fn assert_steps_permit(recorder: &Recorder, canary: &str) {
    let releases = recorder.of("Release");
    for rs in recorder.replica_set(canary) {
        let size = i32::try_from(int(&rs, "/spec/replicas")).unwrap();
        let recorded = releases.iter().rfind(|r| version(r) < version(&rs)).expect("the release came first");
        let index = usize::try_from(int(recorded, "/status/step/index")).unwrap();
        let permitted = WEIGHTS.get(index).map_or(REPLICAS, |w| belay::decide::canary_pods(REPLICAS, *w));
        assert!(size <= permitted, "{size} canary pods at step {}, which permits {permitted}", index + 1);
    }
}

#[tokio::test]
async fn a_rollout_with_nothing_but_a_workload_steps_by_time() {
    let plan = Plan { replicas: 2, spec: json!({}), ..Plan::default() };
    let Some(mut scene) = Scene::start("bare", plan).await else { return };
    scene.set_env(&[("VERSION", "2")]).await;
    let name = scene.new_release(0).await;
    let release = scene.at_step(&name, 1).await;
    let weights: Vec<i64> =
        release["spec"]["steps"].as_array().unwrap().iter().map(|s| int(s, "/weight")).collect();
    assert_eq!(weights, [5, 25, 50]);
    let release = scene
        .release_where(&name, "says that time alone moves it", |r| text(r, "/status/reason") == "StepTime")
        .await;
    assert!(text(&release, "/status/message").contains("1m"), "{}", release["status"]["message"]);
    let api = scene.namespace.deployments(&scene.namespace.env.gitops);
    let resume = json!({"spec": {"paused": false}});
    api.patch("web", &PatchParams::default(), &Patch::Merge(&resume)).await.unwrap();
    assert_eq!(scene.workload().await.pointer("/spec/paused"), Some(&json!(true)), "the brake holds");
    scene.operator.assert_healthy().await;
}
