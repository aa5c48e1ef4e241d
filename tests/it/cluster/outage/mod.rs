//! Parts of the control plane go away and come back, or change. Everything else needs them, so these run by
//! themselves.

mod newer;

use std::process::Command;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::load::{Load, Totals};
use super::operator::Operator;
use super::scene::{Plan, Scene, brief, create_workload, int, steps, text, timeline};
use super::{Env, PATIENCE, eventually};

const BELAY: &str = "belay.dev/v1alpha1";

/// Also when they are run by name, and in several threads.
static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// The script that runs the cluster; from in here, too.
fn cluster(words: &[&str]) -> Result<String, String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/hack/cluster");
    let done = Command::new(script).args(words).output().map_err(|e| e.to_string())?;
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    if done.status.success() {
        return Ok(said);
    }
    Err(format!("hack/cluster {words:?}: {said}{}", String::from_utf8_lossy(&done.stderr)))
}

/// The cluster, if its parts can be stopped.
async fn fragile() -> Option<Env> {
    let env = Env::get().await?;
    let source = cluster(&["source"]).unwrap();
    if source.trim() != "local" {
        eprintln!("SKIPPED: the parts of a cluster that is {} cannot be stopped", source.trim());
        return None;
    }
    Some(env)
}

/// Stops and starts parts of the control plane beside the test's own clients and load.
async fn parts(action: &'static str, part: &'static str) {
    let done = tokio::task::spawn_blocking(move || cluster(&[action, part])).await.unwrap();
    done.unwrap_or_else(|error| panic!("{error}"));
}

/// A scene with another workload `bad` beside `web`, and a load on `web`.
async fn scene(env: &Env, purpose: &str, plans: &[(&str, Plan)]) -> (Scene, Load) {
    let namespace = env.namespace(purpose).await;
    for (name, plan) in plans {
        create_workload(&namespace, name, plan).await;
    }
    let operator = Operator::start(env, &namespace.name).await;
    let scene = Scene { operator, namespace };
    for (name, plan) in plans {
        scene.create_rollout(name, name, &plan.spec).await;
        scene.rollout_is(name, "Stable").await;
    }
    let load = Load::start(&super::releases::service(&scene).await, 20);
    (scene, load)
}

fn plan(steps: Value) -> Plan {
    // Pods go on serving while the Service forgets them, which it cannot do without API server.
    let deployment = json!({"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 50}}}});
    Plan { replicas: 2, spec: steps, env: vec![("LINGER", "40s")], deployment }
}

/// Changes a workload as alice; returns its release. Right after the API server is back a client may find the old
/// connections.
async fn change(scene: &Scene, name: &str, env: &[(&str, &str)]) -> String {
    let env: Vec<Value> = env.iter().map(|(n, v)| json!({"name": n, "value": v})).collect();
    let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "app", "env": env}]}}}});
    let changed = eventually(PATIENCE, "the workload is changed", async || {
        let api = scene.namespace.deployments(&scene.namespace.env.alice);
        let params = kube::api::PatchParams::default();
        api.patch(name, &params, &kube::api::Patch::Strategic(&patch)).await
    })
    .await;
    format!("{name}-{}", belay::decide::revision(&changed.data["spec"]["template"]))
}

/// Waits for a state of a release; errors are waited for, too.
async fn until(scene: &Scene, name: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    eventually(PATIENCE, &format!("{name}: {what}"), async || {
        let api = scene.namespace.api(&scene.namespace.env.admin, BELAY, "Release");
        let found = api.get_opt(name).await.map_err(|e| e.to_string())?;
        let release = found.map_or(Value::Null, |o| serde_json::to_value(o).unwrap());
        if is(&release) { Ok(release) } else { Err(brief(&release)) }
    })
    .await
}

fn running(release: &Value, step: i64) -> bool {
    int(release, "/status/step/index") == step - 1 && release.pointer("/status/step/runningSince").is_some()
}

fn is_final(release: &Value) -> bool {
    ["Promoted", "RolledBack", "Superseded"].contains(&text(release, "/status/phase").as_str())
}

fn entry(release: &Value, code: &str) -> Option<Timestamp> {
    let entries = release.pointer("/status/timeline").and_then(Value::as_array)?;
    entries.iter().find(|e| e["reason"] == code).map(|e| text(e, "/at").parse().unwrap())
}

fn assert_served(totals: &Totals) {
    assert!(totals.failed.is_empty() && totals.bad.is_empty() && totals.requests > 100, "{totals:?}");
    eprintln!("{} requests served, by {:?}", totals.requests, totals.answered.keys());
}

const WAY: [&str; 6] =
    ["ReleaseStarted", "StepPassed", "StepStarted 2", "StepPassed", "Promoting", "Promoted"];

/// The timeline, but for what an outage may do besides: a node that could not renew its lease is tainted until it
/// can, and then says for some seconds that the canary's next pod fits nowhere.
fn way(release: &Value) -> Vec<String> {
    let mut timeline = timeline(release);
    timeline.retain(|entry| entry != "Unschedulable");
    timeline
}

/// Restarts a part in every step of a good release, and in the middle of a bad one.
async fn restarted(purpose: &str, part: &'static str) {
    let _alone = ONE_AT_A_TIME.lock().await;
    let Some(env) = fragile().await else { return };
    let (mut scene, load) = scene(&env, purpose, &[("web", plan(steps(&[(10, "4s"), (50, "4s")])))]).await;
    let name = change(&scene, "web", &[("VERSION", "2")]).await;
    parts("restart", part).await;
    until(&scene, &name, "at step 1", |r| running(r, 1) || int(r, "/status/step/index") > 0).await;
    parts("restart", part).await;
    until(&scene, &name, "at step 2", |r| running(r, 2) || int(r, "/status/step/index") > 1).await;
    parts("restart", part).await;
    let release = until(&scene, &name, "ended", is_final).await;
    assert_eq!(text(&release, "/status/phase"), "Promoted", "{}", brief(&release));
    assert_eq!(way(&release), WAY, "{}", brief(&release));
    scene.rollout_is("web", "Stable").await;
    assert_served(&load.stop().await);

    let stable = scene.uids_of(&scene.stable().await).await;
    let name = change(&scene, "web", &[("VERSION", "3"), ("CRASH", "2s")]).await;
    until(&scene, &name, "begun", |r| text(r, "/status/phase") == "Progressing" || is_final(r)).await;
    parts("restart", part).await;
    let release = until(&scene, &name, "ended", is_final).await;
    assert_eq!(text(&release, "/status/reason"), "CanaryCrashed", "{}", brief(&release));
    scene.rollout_is("web", "Rejected").await;
    assert_eq!(scene.uids_of(&scene.stable().await).await, stable, "the pods that served go on");
    let made = scene.list(BELAY, "Release").await.len();
    assert_eq!(made, 2, "one release for each change");
    scene.operator.assert_healthy().await;
}

#[tokio::test]
async fn the_api_server_restarts_in_every_step() {
    restarted("apiserver", "apiserver").await;
}

#[tokio::test]
async fn etcd_restarts_in_every_step() {
    restarted("etcd", "etcd").await;
}

/// The API server is away for two minutes in the middle of a step: what serves goes on serving; the step's time goes
/// on, too, but the step is not passed before what the pods did meanwhile is known.
#[tokio::test]
async fn the_api_server_is_away_for_two_minutes() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let Some(env) = fragile().await else { return };
    let plans = [
        // 10 s before it, 120 s of it: over within seconds after it if they count, else after two minutes more.
        ("web", plan(steps(&[(10, "130s"), (50, "2s")]))),
        // Its time is over long before the API server is back, and its pods are not well.
        ("bad", plan(steps(&[(10, "40s"), (50, "40s")]))),
    ];
    let (mut scene, load) = scene(&env, "away", &plans).await;
    let pods = async |scene: &Scene| {
        let mut uids = Vec::new();
        for name in ["web", "bad"] {
            let rollout = scene.get(BELAY, "Rollout", name).await;
            uids.extend(scene.uids_of(&text(&rollout, "/status/stable/replicaSet")).await);
        }
        uids
    };
    let stable = pods(&scene).await;
    let good = change(&scene, "web", &[("VERSION", "2")]).await;
    until(&scene, &good, "at step 1", |r| running(r, 1)).await;
    let bad = change(&scene, "bad", &[("VERSION", "2"), ("CRASH", "30s")]).await;
    let begun = until(&scene, &bad, "at step 1", |r| running(r, 1)).await;
    let canary = scene.uids_of(&text(&scene.release(&good).await, "/spec/to/replicaSet")).await;
    assert!(int(&begun, "/status/step/index") == 0);
    tokio::time::sleep(Duration::from_secs(3)).await;

    parts("stop", "apiserver").await;
    let lines = scene.operator.lines();
    tokio::time::sleep(Duration::from_secs(120)).await;
    let spoken = scene.operator.lines() - lines;
    assert!(spoken < 1500, "{spoken} lines of log in two minutes without API server");
    let back = belay::clock::now();
    parts("start", "apiserver").await;

    // The bad one: seen as soon as anything can be seen, and its step was never passed.
    let release = until(&scene, &bad, "ended", is_final).await;
    assert_eq!(text(&release, "/status/reason"), "CanaryCrashed", "{}", brief(&release));
    assert_eq!(timeline(&release), ["ReleaseStarted", "CanaryCrashed"], "{}", brief(&release));
    let caught = entry(&release, "CanaryCrashed").unwrap();
    eprintln!("caught {} after the API server was started again", caught.duration_since(back));

    // The good one: where it was, not passed at once, and the time counts because its pod was ready throughout.
    let release = until(&scene, &good, "passed step 1", |r| int(r, "/status/step/index") > 0).await;
    let passed = entry(&release, "StepPassed").unwrap().duration_since(back);
    eprintln!("passed {passed} after the API server was started again");
    assert!(passed >= SignedDuration::from_secs(15), "passed {passed} after it, before anything had settled");
    assert!(passed < SignedDuration::from_secs(100), "passed {passed} after it: the time was lost");
    let release = until(&scene, &good, "ended", is_final).await;
    assert_eq!(way(&release), WAY, "{}", brief(&release));
    let promoted = scene.uids_of(&text(&release, "/spec/to/replicaSet")).await;
    assert!(canary.iter().all(|uid| promoted.contains(uid)), "the tested pods are the promoted pods");
    let left =
        scene.uids_of(&text(&scene.get(BELAY, "Rollout", "bad").await, "/status/stable/replicaSet")).await;
    assert!(left.len() == 2 && left.iter().all(|uid| stable.contains(uid)), "stable pods of `bad`: {left:?}");
    assert_served(&load.stop().await);
    scene.operator.assert_healthy().await;
}
