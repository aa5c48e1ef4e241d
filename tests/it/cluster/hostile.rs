//! Objects that strain: very large, very many. (What a newer version writes is in `outage`.)

use std::time::Instant;

use belay::act::{ActError, Fence, Hold};
use belay::api::evidence::{Counts, Look, Looks};
use belay::decide::{Effect, Identity};
use futures::StreamExt;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::operator::Operator;
use super::scene::{IMAGE, Plan, Scene, brief, create_workload, steps, text, while_nothing_happens};
use super::{Env, PATIENCE, deployment, eventually};

const BELAY: &str = "belay.dev/v1alpha1";
const MANY: usize = 5000;

/// Megabytes of the operator that are in RAM.
fn memory(operator: &Operator) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", operator.pid())).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() / 1024
}

fn two() -> Plan {
    Plan { replicas: 2, spec: steps(&[(50, "1s")]), ..Plan::default() }
}

/// A Scene with the Deployments of these names, each under a Rollout at rest.
pub async fn scene(purpose: &str, names: &[&str], plan: &Plan) -> Option<Scene> {
    let env = Env::get().await?;
    let namespace = env.namespace(purpose).await;
    for name in names {
        create_workload(&namespace, name, plan).await;
    }
    let operator = Operator::start(&env, &namespace.name).await;
    let scene = Scene { operator, namespace };
    for name in names {
        scene.create_rollout(name, name, &plan.spec).await;
        scene.rollout_is(name, "Stable").await;
    }
    Some(scene)
}

/// Changes a workload and waits until its release is promoted.
pub async fn goes_on(scene: &Scene, name: &str, version: &str) {
    let env = json!([{"name": "VERSION", "value": version}]);
    let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "app", "env": env}]}}}});
    let api = scene.namespace.deployments(&scene.namespace.env.alice);
    let changed = api.patch(name, &PatchParams::default(), &Patch::Strategic(&patch)).await.unwrap();
    let release = format!("{name}-{}", belay::decide::revision(&changed.data["spec"]["template"]));
    scene.release_is(&release, "Promoted").await;
}

#[tokio::test]
async fn the_largest_annotations_and_the_longest_names_go_their_way() {
    let Some(env) = Env::get().await else { return };
    let namespace = env.namespace("large").await;
    // The API server takes 256 KiB of annotations on an object, a name of 253 characters, and a pod's label of 63.
    let large = "x".repeat(250 * 1024);
    let long = format!("web-{}", "y".repeat(59));
    let annotated = json!({
        "metadata": {"annotations": {"large": large}},
        "spec": {"template": {"metadata": {"annotations": {"large": large}}}},
    });
    let plan = Plan { deployment: annotated, ..two() };
    create_workload(&namespace, &long, &plan).await;
    let operator = Operator::start(&env, &namespace.name).await;
    let mut scene = Scene { operator, namespace };
    // 40 characters are the most that a Rollout's name may have.
    let name = format!("r{}", "z".repeat(39));
    scene.create_rollout(&name, &long, &plan.spec).await;
    scene.rollout_is(&name, "Stable").await;
    let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "app", "env": [{"name": "VERSION", "value": "2"}]}]}}}});
    let api = scene.namespace.deployments(&env.alice);
    let changed = api.patch(&long, &PatchParams::default(), &Patch::Strategic(&patch)).await.unwrap();
    let release = format!("{name}-{}", belay::decide::revision(&changed.data["spec"]["template"]));
    let release = scene.release_is(&release, "Promoted").await;
    let canary = text(&release, "/spec/to/replicaSet");
    let set = scene.get("apps/v1", "ReplicaSet", &canary).await;
    let kept = text(&set, "/spec/template/metadata/annotations/large").len();
    assert_eq!(kept, large.len(), "the template is whole");
    scene.operator.assert_healthy().await;
    let used = memory(&scene.operator);
    eprintln!("{used} MB after it");
    assert!(used < 150, "{used} MB");
}

#[tokio::test]
async fn twenty_vetoes_are_kept_and_the_oldest_goes_first() {
    let plan = Plan { replicas: 1, spec: steps(&[(50, "60s")]), ..Plan::default() };
    let Some(mut scene) = scene("vetoes", &["web"], &plan).await else { return };
    let old: Vec<Value> = (0..20)
        .map(|n| json!({"revision": format!("r{n:02}"), "release": "web-x", "reason": "Aborted", "at": "2026-01-01T00:00:00.000000Z"}))
        .collect();
    let api = scene.namespace.api(&scene.namespace.env.admin, BELAY, "Rollout");
    let patch = json!({"status": {"vetoed": old}});
    api.patch_status("web", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    scene.set_env(&[("CRASH", "start")]).await;
    let name = scene.new_release(0).await;
    let release = scene.release_is(&name, "RolledBack").await;
    let rollout = scene.rollout_is("web", "Rejected").await;
    let vetoed = rollout["status"]["vetoed"].as_array().unwrap();
    assert_eq!(vetoed.len(), 20);
    assert_eq!(vetoed[0]["revision"], "r01");
    assert_eq!(vetoed[19]["revision"], release["spec"]["to"]["revision"]);
    scene.operator.assert_healthy().await;
}

#[tokio::test]
async fn a_status_as_large_as_it_can_be_is_written_again_and_again() {
    let mut plan = Plan { replicas: 1, spec: steps(&[(50, "600s")]), ..Plan::default() };
    // Ten guards that find no data: the state is kept as it is.
    let guards: Vec<Value> = (0..10)
        .map(|n| json!({"name": format!("g{n}"), "ratio": {"bad": {"metric": "e"}, "total": {"metric": "t"}, "tolerate": "1.2x"}}))
        .collect();
    plan.spec["analysis"] =
        json!({"interval": "1s", "warmUp": "1s", "metrics": {"pods": {"port": 8080}}, "guards": guards});
    plan.spec["historyLimit"] = json!(5);
    let Some(mut scene) = scene("status", &["web"], &plan).await else { return };
    scene.set_env(&[("VERSION", "2")]).await;
    let name = scene.new_release(0).await;
    let release = scene.release_where(&name, "without data", |r| text(r, "/status/reason") == "NoData").await;

    // 3,000 series of each guard are kept, 360 looks, 60 entries of the timeline, 50 answers.
    let number = |n: usize| json!(123_456_789.125 + n as f64);
    let pods: Vec<String> = (0..15).map(|p| format!("{p:08}-aaaa-bbbb-cccc-dddddddddddd")).collect();
    let guards: Vec<Value> = (0..10)
        .map(|g| {
            let counters: serde_json::Map<String, Value> = pods
                .iter()
                .map(|pod| {
                    let series = |kind: &str| -> serde_json::Map<String, Value> {
                        (0..100).map(|s| (format!("{kind}{g:02}{s:04}abcd"), number(s))).collect()
                    };
                    (pod.clone(), json!({"bad": series("b"), "total": series("t")}))
                })
                .collect();
            let counts = |l: usize| {
                let n = 123_456_789.125 + l as f64;
                Counts { canary_bad: n, canary_total: n, stable_bad: n, stable_total: n }
            };
            let recent: Vec<Look> = (0..360).map(|l| Look::of(l as f64 * 5.0 + 0.123, counts(l))).collect();
            let recent = serde_json::to_value(Looks::from(recent)).unwrap();
            json!({"name": format!("g{g}"), "looks": 360, "counters": counters, "recent": recent})
        })
        .collect();
    let entries: Vec<Value> = (0..60)
        .map(|_| json!({"at": "2026-01-01T00:00:00.000000Z", "reason": "NoData", "step": 1, "message": "m".repeat(500)}))
        .collect();
    let mut status = release["status"].clone();
    status["analysis"]["guards"] = json!(guards);
    status["timeline"] = json!(entries);
    let api = scene.namespace.api(&scene.namespace.env.admin, BELAY, "Release");
    let patched = eventually(PATIENCE, "the large status is taken", async || {
        let params = PatchParams { field_manager: Some("belay".into()), ..PatchParams::default() };
        api.patch_status(&name, &params, &Patch::Merge(json!({"status": status}))).await
    })
    .await;
    let size = serde_json::to_string(&patched).unwrap().len();
    eprintln!("a Release of {} kB, of which {} kB say who manages which field", size / 1024, {
        serde_json::to_string(&patched.metadata.managed_fields).unwrap().len() / 1024
    });
    // Belay itself writes it: a pause, then an abort.
    let answer = scene.command(&name, json!({"verb": "pause"})).await;
    assert_eq!(answer["accepted"], true, "{answer}");
    let paused = scene.release(&name).await;
    let recent: Looks =
        serde_json::from_value(paused["status"]["analysis"]["guards"][9]["recent"].clone()).unwrap();
    assert_eq!(recent.len(), 360);
    let answer = scene.command(&name, json!({"verb": "abort", "reason": "enough"})).await;
    assert_eq!(answer["accepted"], true, "{answer}");
    let release = scene.release_is(&name, "RolledBack").await;
    assert_eq!(release["status"]["timeline"].as_array().unwrap().len(), 60, "{}", brief(&release));
    let used = memory(&scene.operator);
    eprintln!("{used} MB after it");
    scene.operator.assert_healthy().await;
}

#[tokio::test]
async fn five_thousand_replica_sets_are_no_burden() {
    let Some(env) = Env::get().await else { return };
    let namespace = env.namespace("many").await;
    create_workload(&namespace, "web", &two()).await;
    // Most of them history that nobody pruned: no pods, each of another template.
    let api = namespace.api(&env.admin, "apps/v1", "ReplicaSet");
    let started = Instant::now();
    futures::stream::iter(0..MANY)
        .map(|n| {
            let mut object = deployment(&format!("old-{n}"), 0, IMAGE);
            object["kind"] = json!("ReplicaSet");
            object["spec"]["template"]["spec"]["containers"][0]["env"] =
                json!([{"name": "VERSION", "value": n.to_string()}]);
            let object: DynamicObject = serde_json::from_value(object).unwrap();
            let api = api.clone();
            async move { drop(api.create(&PostParams::default(), &object).await.unwrap()) }
        })
        .buffer_unordered(8)
        .collect::<Vec<()>>()
        .await;
    eprintln!("{MANY} ReplicaSets made in {:?}", started.elapsed());
    let started = Instant::now();
    let operator = Operator::start(&env, &namespace.name).await;
    eprintln!("known in {:?}", started.elapsed());
    let mut scene = Scene { operator, namespace };
    scene.create_rollout("web", "web", &two().spec).await;
    scene.rollout_is("web", "Stable").await;
    goes_on(&scene, "web", "2").await;
    let used = memory(&scene.operator);
    eprintln!("{used} MB, release and all after {:?}", started.elapsed());
    // A build for tests; a megabyte for each hundred would be 50.
    assert!(used < 120, "{used} MB for {MANY} ReplicaSets");
    while_nothing_happens(2).await;
    let before = cpu_ticks(&scene.operator);
    while_nothing_happens(5).await;
    let ticks = cpu_ticks(&scene.operator) - before;
    assert!(ticks < 100, "{ticks} hundredths of a second of work in 5 s at rest");
    scene.operator.assert_healthy().await;
}

/// Hundredths of a second that the operator has worked.
fn cpu_ticks(operator: &Operator) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", operator.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// Both are answered with 422. One is mended by a fresh look, the other is not, and has to be told.
#[tokio::test]
async fn what_is_out_of_date_and_what_is_not_valid_are_told_apart() {
    let Some(env) = Env::get().await else { return };
    let namespace = env.namespace("told").await;
    let object = namespace.deployment("web", 0, IMAGE).await;
    let mut workload = Identity {
        namespace: namespace.name.clone(),
        name: "web".into(),
        uid: object.metadata.uid.unwrap(),
        resource_version: String::new(),
    };
    let sent = belay::clock::monotonic();
    let hold = Hold { epoch: 1, sent, deadline: sent + std::time::Duration::from_secs(3600) };
    let (_kept, hold) = tokio::sync::watch::channel(Some(hold));
    let fence = Fence::new(1, hold);
    let mark = async |workload: &Identity, rollout: &str| {
        let effect =
            Effect::MarkWorkload { workload: workload.clone(), rollout: rollout.into(), has_labels: true };
        belay::act::send(&env.belay, &effect, belay::clock::now(), "test", &fence).await
    };
    assert!(mark(&workload, "web").await.is_ok());
    let error = mark(&workload, "no label has this / as its value").await.unwrap_err();
    assert!(matches!(error, ActError::Refused(_)), "{error:?}");
    workload.uid = "another".into();
    let error = mark(&workload, "web").await.unwrap_err();
    assert!(error.is_conflict(), "{error:?}");
    workload.name = "nobody".into();
    let error = mark(&workload, "web").await.unwrap_err();
    assert!(error.is_conflict(), "{error:?}");
}
