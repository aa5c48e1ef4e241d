//! The crash breaker on real pods: every cause that it knows, and what is left afterwards.

use serde_json::{Value, json};

use super::record::Recorder;
use super::scene::{Plan, Scene, brief, int, text, timeline, while_nothing_happens};

/// Steps long enough that nothing passes them before it fails.
fn long() -> Plan {
    Plan { replicas: 2, spec: super::scene::steps(&[(30, "60s"), (50, "60s")]), ..Plan::default() }
}

fn template(spec: &Value) -> Value {
    json!({"spec": {"template": {"spec": spec}}})
}

fn app(container: Value) -> Value {
    let mut container = container;
    container["name"] = json!("app");
    template(&json!({"containers": [container]}))
}

/// Changes the workload, expects a rollback with this code and these words, and returns the release.
async fn rejected(scene: &mut Scene, patch: &Value, code: &str, words: &[&str]) -> Value {
    let stable = scene.stable().await;
    let uids = scene.uids_of(&stable).await;
    let known = scene.releases().await.len();
    let recorder = Recorder::start(&scene.namespace).await;
    scene.change(patch).await;
    let name = scene.new_release(known).await;
    let release = scene.release_is(&name, "RolledBack").await;
    assert_eq!(text(&release, "/status/reason"), code, "{}", brief(&release));
    let message = text(&release, "/status/message");
    assert!(words.iter().any(|w| message.contains(w)), "{message}");
    eprintln!("{code}: {message}");
    recorder.assert_untouched(&uids, None);
    assert_eq!(scene.uids_of(&stable).await, uids);

    let rollout = scene.rollout_is("web", "Rejected").await;
    let veto = rollout["status"]["vetoed"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(veto["revision"], release["spec"]["to"]["revision"]);
    assert_eq!(veto["reason"], code);
    let workload = scene.workload().await;
    assert_eq!(workload.pointer("/spec/paused"), Some(&json!(true)), "it stays paused");
    assert_eq!(workload["metadata"]["labels"]["belay.dev/release"], release["spec"]["to"]["revision"]);
    let canary = text(&release, "/spec/to/replicaSet");
    assert!(scene.get("apps/v1", "ReplicaSet", &canary).await.is_null(), "the canary is gone");
    assert_eq!(release["status"]["weight"]["canaryPods"], 0);
    let told = scene.events(&name).await;
    assert!(told.iter().any(|(reason, kind, _)| reason == "RolledBack" && kind == "Warning"), "{told:?}");
    scene.operator.assert_healthy().await;
    release
}

#[tokio::test]
async fn an_image_that_does_not_exist() {
    let Some(mut scene) = Scene::start("image", long()).await else { return };
    let patch = app(json!({"image": "node.local/absent:1"}));
    let release = rejected(&mut scene, &patch, "CanaryCrashed", &["ErrImagePull", "ImagePullBackOff"]).await;
    let name = text(&release, "/metadata/name");

    // The same template does not start again, however often it is written.
    scene.change(&patch).await;
    scene.change(&json!({"metadata": {"labels": {"touched": "yes"}}})).await;
    while_nothing_happens(3).await;
    assert_eq!(scene.releases().await.len(), 1);

    // Other commands are refused now, and say why.
    let answer = scene.command(&name, json!({"verb": "promote"})).await;
    assert_eq!(answer["accepted"], false);
    assert!(text(&answer, "/message").contains("has ended"), "{answer}");

    // Until a person asks for it.
    let answer = scene.command(&name, json!({"verb": "retry", "reason": "the registry is back"})).await;
    assert_eq!(answer["accepted"], true, "{answer}");
    let second = scene.new_release(1).await;
    assert_eq!(second, format!("{name}-2"));
    let release = scene.release_is(&second, "RolledBack").await;
    assert_eq!(int(&release, "/spec/attempt"), 2);
    assert_eq!(text(&scene.release(&name).await, "/spec/commands/1/by"), "alice");

    // A new template is a new release.
    let good = template(
        &json!({"containers": [{"name": "app", "image": super::scene::IMAGE, "env": [{"name": "VERSION", "value": "3"}]}]}),
    );
    scene.change(&good).await;
    let third = scene.new_release(2).await;
    scene.at_step(&third, 1).await;
}

#[tokio::test]
async fn a_container_that_exits_at_once() {
    let Some(mut scene) = Scene::start("start", long()).await else { return };
    let patch = app(json!({"env": [{"name": "CRASH", "value": "start"}]}));
    let release = rejected(&mut scene, &patch, "CanaryCrashed", &["exit code 1"]).await;
    let tail = timeline(&release);
    assert_eq!(tail.last().map(String::as_str), Some("CanaryCrashed"), "{tail:?}");
}

#[tokio::test]
async fn a_container_that_exits_after_it_was_ready() {
    let Some(mut scene) = Scene::start("later", long()).await else { return };
    let patch = app(json!({"env": [{"name": "CRASH", "value": "6s"}]}));
    rejected(&mut scene, &patch, "CanaryCrashed", &["exit code 1"]).await;
}

#[tokio::test]
async fn a_container_that_runs_out_of_memory() {
    let Some(mut scene) = Scene::start("oom", long()).await else { return };
    let patch =
        app(json!({"env": [{"name": "OOM", "value": "2s"}], "resources": {"limits": {"memory": "48Mi"}}}));
    rejected(&mut scene, &patch, "CanaryCrashed", &["OOMKilled"]).await;
}

#[tokio::test]
async fn a_pod_that_is_ready_no_more() {
    let Some(mut scene) = Scene::start("unready", long()).await else { return };
    let patch = app(json!({"env": [{"name": "READY", "value": "until:6s"}]}));
    rejected(&mut scene, &patch, "CanaryCrashed", &["ReadinessLost"]).await;
}

#[tokio::test]
async fn a_pod_that_is_never_ready() {
    let plan = long().with(&json!({"progressDeadline": "5s"}));
    let Some(mut scene) = Scene::start("never", plan).await else { return };
    let patch = app(json!({"env": [{"name": "READY", "value": "false"}]}));
    rejected(&mut scene, &patch, "ProgressDeadlineExceeded", &["never became ready"]).await;
}

#[tokio::test]
async fn a_configuration_that_does_not_exist() {
    let Some(mut scene) = Scene::start("config", long()).await else { return };
    let patch = app(json!({"envFrom": [{"configMapRef": {"name": "absent"}}]}));
    rejected(&mut scene, &patch, "CanaryCrashed", &["CreateContainerConfigError"]).await;
}

#[tokio::test]
async fn pods_that_no_node_takes_are_held_until_the_deadline() {
    let plan = long().with(&json!({"progressDeadline": "6s"}));
    let Some(mut scene) = Scene::start("nowhere", plan).await else { return };
    let patch = template(&json!({"nodeSelector": {"nobody": "has-this"}}));
    let release = rejected(&mut scene, &patch, "ProgressDeadlineExceeded", &["node"]).await;
    let way = timeline(&release);
    assert!(way.contains(&"Unschedulable".to_owned()), "{way:?}");
    let told = scene.events(&text(&release, "/metadata/name")).await;
    assert!(told.iter().any(|(reason, kind, _)| reason == "Held" && kind == "Warning"), "{told:?}");
}

#[tokio::test]
async fn the_stable_template_is_written_back_when_asked() {
    let plan = long().with(&json!({"rollback": {"restoreTemplate": true}}));
    let Some(mut scene) = Scene::start("restore", plan).await else { return };
    let stable = scene.stable().await;
    let uids = scene.uids_of(&stable).await;
    let recorder = Recorder::start(&scene.namespace).await;
    scene.set_env(&[("CRASH", "start")]).await;
    let name = scene.new_release(0).await;
    scene.release_is(&name, "RolledBack").await;
    let workload = scene.workload_where("it is unpaused", |w| w.pointer("/spec/paused").is_none()).await;
    assert!(!workload["spec"]["template"].to_string().contains("CRASH"), "{}", workload["spec"]["template"]);
    scene.rollout_is("web", "Stable").await;
    assert_eq!(scene.uids_of(&stable).await, uids);
    recorder.assert_untouched(&uids, None);
    scene.operator.assert_healthy().await;
}

#[tokio::test]
async fn a_failure_is_held_when_rollback_is_not_automatic() {
    let plan = long().with(&json!({"rollback": {"automatic": false}}));
    let Some(mut scene) = Scene::start("byhand", plan).await else { return };
    scene.set_env(&[("CRASH", "start")]).await;
    let name = scene.new_release(0).await;
    let release = scene
        .release_where(&name, "held for a person", |r| text(r, "/status/reason") == "RollbackWanted")
        .await;
    assert_eq!(text(&release, "/status/phase"), "Paused");
    let answer = scene.command(&name, json!({"verb": "abort", "reason": "seen it"})).await;
    assert_eq!(answer["accepted"], true);
    let release = scene.release_is(&name, "RolledBack").await;
    assert_eq!(text(&release, "/status/message"), "aborted by alice: seen it");
    scene.operator.assert_healthy().await;
}
