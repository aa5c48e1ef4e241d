//! Objects that strain: of a newer version, very large, very many. Others go on beside them.

use std::time::Instant;

use futures::StreamExt;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::operator::Operator;
use super::scene::{IMAGE, Plan, Scene, brief, create_workload, steps, text, while_nothing_happens};
use super::{Env, PATIENCE, deployment, eventually, resource};

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
async fn scene(purpose: &str, names: &[&str], plan: &Plan) -> Option<Scene> {
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
async fn goes_on(scene: &Scene, name: &str, version: &str) {
    let env = json!([{"name": "VERSION", "value": version}]);
    let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "app", "env": env}]}}}});
    let api = scene.namespace.deployments(&scene.namespace.env.alice);
    let changed = api.patch(name, &PatchParams::default(), &Patch::Strategic(&patch)).await.unwrap();
    let release = format!("{name}-{}", belay::decide::revision(&changed.data["spec"]["template"]));
    scene.release_is(&release, "Promoted").await;
}

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
    let plan = Plan { replicas: 2, spec: steps(&[(50, "20s")]), ..Plan::default() };
    let Some(mut scene) = scene("newer", &["web", "other", "third"], &plan).await else { return };
    let env = scene.namespace.env.clone();
    for kind in ["Rollout", "Release"] {
        widen(&env, kind, true).await;
    }
    let bakes = json!({"for": "1h"});

    // In a status: it goes back as it came.
    merge_as_admin(&scene, "Rollout", "web", true, &json!({"status": {"bakes": bakes}})).await;
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
            let recent: Vec<Value> = (0..360)
                .map(|l| {
                    json!([l as f64 * 5.0 + 0.123, number(l), number(l), number(l), number(l), 1.234, 1.567])
                })
                .collect();
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
    assert_eq!(paused["status"]["analysis"]["guards"][9]["recent"].as_array().unwrap().len(), 360);
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
