//! The brake on a real API server, without an operator: the tests do the operator's writes as its account.
//!
//! Every write is judged twice: by the policy in the API server, and by [`belay::install::brake::patch`] on the
//! same write as it arrives without the policy (a dry run as the operator). Both must say the same.

use belay::api::{BRAKED_LABEL, OPERATOR_USER, RELEASE_LABEL, ROLLOUT_LABEL};
use belay::install::brake;
use kube::api::{DynamicObject, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::writes::{NEW, OLD, Write, perform, unbraked};
use super::{Env, Namespace, PATIENCE, deployment, eventually};

/// Writes as alice, and compares the policy with the function on the way.
async fn write(ns: &Namespace, name: &str, write: Write) -> Value {
    let api = ns.deployments(&ns.env.alice);
    let old = serde_json::to_value(api.get(name).await.unwrap()).unwrap();
    let mut expected = perform(&ns.deployments(&unbraked().await), name, &write, true).await.unwrap();
    let patch = brake::patch(OPERATOR_USER, "alice", &old, &expected);
    json_patch::patch(&mut expected, &patch).unwrap();
    let written = perform(&api, name, &write, false).await.unwrap();
    assert_eq!(written["metadata"]["labels"], expected["metadata"]["labels"], "policy and function differ");
    assert_eq!(is_paused(&written), is_paused(&expected), "policy and function differ");
    written
}

fn is_paused(deployment: &Value) -> bool {
    deployment["spec"]["paused"] == true
}

fn label<'a>(deployment: &'a Value, label: &str) -> Option<&'a str> {
    deployment["metadata"]["labels"].get(label).and_then(Value::as_str)
}

fn image(image: &str) -> Value {
    json!({"spec": {"template": {"spec": {"containers": [{"name": "app", "image": image}]}}}})
}

/// The manifest in its first version, changed to the new image, as its author keeps it.
fn manifest(image: &str) -> Value {
    deployment("web", 3, image)
}

/// A governed Deployment whose first ReplicaSet is there.
async fn at_rest(ns: &Namespace) {
    ns.governed("web", 3, OLD).await;
    settled(ns).await;
}

/// Waits until the Deployment controller has seen the last write, and returns the images of the ReplicaSets that
/// it wants pods of.
async fn settled(ns: &Namespace) -> Vec<String> {
    eventually(PATIENCE, "the Deployment controller has seen the last write", async || {
        let deployment = ns.deployments(&ns.env.admin).get("web").await.unwrap();
        let observed = deployment.data["status"]["observedGeneration"].as_i64();
        if observed == deployment.metadata.generation { Ok(()) } else { Err(observed) }
    })
    .await;
    let sets = ns.api(&ns.env.admin, "apps/v1", "ReplicaSet").list(&ListParams::default()).await.unwrap();
    let image = |set: &DynamicObject| set.data["spec"]["template"]["spec"]["containers"][0]["image"].clone();
    let mut images: Vec<String> = sets
        .iter()
        .filter(|s| s.data["spec"]["replicas"] != 0)
        .map(|s| image(s).as_str().unwrap_or_default().to_owned())
        .collect();
    images.sort();
    images
}

/// The change waits: paused, marked, still governed, and only the old version runs.
async fn assert_braked(ns: &Namespace, written: &Value) {
    assert!(is_paused(written), "{}", written["spec"]);
    assert_eq!(label(written, BRAKED_LABEL), Some("true"));
    assert_eq!(label(written, ROLLOUT_LABEL), Some("web"));
    assert_eq!(settled(ns).await, [OLD]);
}

#[tokio::test]
async fn a_change_by_set_image_waits() {
    let Some(env) = Env::get().await else { return };
    let ns = env.namespace("brake").await;
    at_rest(&ns).await;
    let written = write(&ns, "web", Write::Strategic(image(NEW))).await;
    assert_braked(&ns, &written).await;
}

#[tokio::test]
async fn a_change_by_three_way_apply_waits() {
    let Some(env) = Env::get().await else { return };
    let ns = env.namespace("brake").await;
    at_rest(&ns).await;
    let containers = manifest(NEW)["spec"]["template"]["spec"]["containers"].clone();
    let patch = json!({"spec": {"template": {"spec": {"containers": containers}}}});
    let written = write(&ns, "web", Write::Merge(patch)).await;
    assert_braked(&ns, &written).await;
}

#[tokio::test]
async fn a_change_by_server_side_apply_waits() {
    let Some(env) = Env::get().await else { return };
    let ns = env.namespace("brake").await;
    at_rest(&ns).await;
    let written = write(&ns, "web", Write::Apply("gitops", manifest(NEW))).await;
    assert_braked(&ns, &written).await;
    // The same again, as self-heal does.
    let written = write(&ns, "web", Write::Apply("gitops", manifest(NEW))).await;
    assert_braked(&ns, &written).await;
}

#[tokio::test]
async fn a_change_by_server_side_apply_waits_even_if_it_says_not_paused() {
    let Some(env) = Env::get().await else { return };
    let ns = env.namespace("brake").await;
    at_rest(&ns).await;
    let mut manifest = manifest(NEW);
    manifest["spec"]["paused"] = json!(false);
    let written = write(&ns, "web", Write::Apply("gitops", manifest.clone())).await;
    assert_braked(&ns, &written).await;
    // The second write changes nothing but `paused`.
    let written = write(&ns, "web", Write::Apply("gitops", manifest.clone())).await;
    assert_braked(&ns, &written).await;
    // The third no longer names a field that its manager owned.
    manifest["spec"].as_object_mut().unwrap().remove("paused");
    let written = write(&ns, "web", Write::Apply("gitops", manifest)).await;
    assert_braked(&ns, &written).await;
}

#[tokio::test]
async fn a_change_by_replace_waits_and_its_label_comes_back() {
    let Some(env) = Env::get().await else { return };
    let ns = env.namespace("brake").await;
    at_rest(&ns).await;
    let written = write(&ns, "web", Write::Put(manifest(NEW))).await;
    assert_braked(&ns, &written).await;
    // A replace says nothing about `paused`, which is as good as false.
    let written = write(&ns, "web", Write::Put(manifest(NEW))).await;
    assert_braked(&ns, &written).await;
    // And one that has no labels at all.
    let mut bare = manifest(NEW);
    bare["metadata"].as_object_mut().unwrap().remove("labels");
    let written = write(&ns, "web", Write::Put(bare)).await;
    assert_braked(&ns, &written).await;
}

#[tokio::test]
async fn what_waits_cannot_be_resumed_by_others() {
    let Some(env) = Env::get().await else { return };
    let ns = env.namespace("brake").await;
    at_rest(&ns).await;
    write(&ns, "web", Write::Strategic(image(NEW))).await;
    for resume in [json!({"spec": {"paused": null}}), json!({"spec": {"paused": false}})] {
        let written = write(&ns, "web", Write::Strategic(resume)).await;
        assert_braked(&ns, &written).await;
    }
}

#[tokio::test]
async fn the_operator_lets_go_and_the_mark_goes_with_the_next_write() {
    let Some(env) = Env::get().await else { return };
    let ns = env.namespace("brake").await;
    at_rest(&ns).await;
    write(&ns, "web", Write::Strategic(image(NEW))).await;
    let freed = ns.as_belay("web", &json!({"spec": {"paused": null}})).await;
    assert!(!is_paused(&serde_json::to_value(freed).unwrap()));
    eventually(PATIENCE, "the new version is rolled out", async || {
        let images = settled(&ns).await;
        if images.contains(&NEW.to_owned()) { Ok(()) } else { Err(images) }
    })
    .await;
    // At rest again, people pause and resume as they like.
    let paused = write(&ns, "web", Write::Strategic(json!({"spec": {"paused": true}}))).await;
    assert!(is_paused(&paused));
    assert_eq!(label(&paused, BRAKED_LABEL), None);
    let resumed = write(&ns, "web", Write::Strategic(json!({"spec": {"paused": null}}))).await;
    assert!(!is_paused(&resumed));
}

#[tokio::test]
async fn during_a_release_the_workload_stays_paused() {
    let Some(env) = Env::get().await else { return };
    let ns = env.namespace("brake").await;
    at_rest(&ns).await;
    write(&ns, "web", Write::Strategic(image(NEW))).await;
    ns.as_belay("web", &json!({"metadata": {"labels": {RELEASE_LABEL: "abcdef0123", BRAKED_LABEL: null}}}))
        .await;
    let mut not_paused = manifest(NEW);
    not_paused["spec"]["paused"] = json!(false);
    let drop_label = json!({"metadata": {"labels": {RELEASE_LABEL: null}}, "spec": {"paused": false}});
    let change_label = json!({"metadata": {"labels": {RELEASE_LABEL: "other", ROLLOUT_LABEL: "other"}}});
    for attempt in [
        Write::Strategic(json!({"spec": {"paused": null}})),
        Write::Apply("gitops", not_paused),
        Write::Put(manifest(NEW)),
        Write::Merge(drop_label),
        Write::Merge(change_label),
    ] {
        let written = write(&ns, "web", attempt).await;
        assert!(is_paused(&written));
        assert_eq!(label(&written, RELEASE_LABEL), Some("abcdef0123"));
        assert_eq!(label(&written, ROLLOUT_LABEL), Some("web"));
        assert_eq!(settled(&ns).await, [OLD]);
    }
    // The end of a release is one write of the operator.
    let labels = json!({RELEASE_LABEL: null, BRAKED_LABEL: null});
    let ended = ns.as_belay("web", &json!({"metadata": {"labels": labels}, "spec": {"paused": null}})).await;
    let ended = serde_json::to_value(ended).unwrap();
    assert!(!is_paused(&ended) && label(&ended, RELEASE_LABEL).is_none());
}

#[tokio::test]
async fn nobody_else_can_claim_a_release() {
    let Some(env) = Env::get().await else { return };
    let ns = env.namespace("brake").await;
    at_rest(&ns).await;
    let labels = json!({RELEASE_LABEL: "abcdef0123", BRAKED_LABEL: "true", "team": "shop"});
    let written = write(&ns, "web", Write::Merge(json!({"metadata": {"labels": labels}}))).await;
    assert_eq!(label(&written, RELEASE_LABEL), None);
    assert_eq!(label(&written, BRAKED_LABEL), None);
    assert_eq!(label(&written, "team"), Some("shop"));
    assert!(!is_paused(&written));
}

#[tokio::test]
async fn a_change_that_leaves_the_template_alone_passes() {
    let Some(env) = Env::get().await else { return };
    let ns = env.namespace("brake").await;
    at_rest(&ns).await;
    for harmless in [
        json!({"metadata": {"annotations": {"a": "b"}}}),
        json!({"spec": {"replicas": 4}}),
        json!({"spec": {"minReadySeconds": 1, "revisionHistoryLimit": 3}}),
        json!({"spec": {"strategy": {"rollingUpdate": {"maxSurge": 1}}}}),
    ] {
        let written = write(&ns, "web", Write::Merge(harmless)).await;
        assert!(!is_paused(&written));
        assert_eq!(label(&written, BRAKED_LABEL), None);
    }
    let resumed = write(&ns, "web", Write::Merge(json!({"spec": {"paused": true}}))).await;
    assert!(is_paused(&resumed), "people may pause at rest");
}

#[tokio::test]
async fn scaling_reaches_the_old_version_while_a_change_waits() {
    let Some(env) = Env::get().await else { return };
    let ns = env.namespace("brake").await;
    at_rest(&ns).await;
    write(&ns, "web", Write::Strategic(image(NEW))).await;
    let scale = |replicas: u32| json!({"spec": {"replicas": replicas}});
    let autoscaler = "system:serviceaccount:kube-system:horizontal-pod-autoscaler";
    let autoscaler = super::acting_as(autoscaler, &["system:masters"]).await.unwrap();
    for (client, replicas) in [(&env.alice, 5), (&autoscaler, 6)] {
        let params = PatchParams::default();
        ns.deployments(client).patch_scale("web", &params, &Patch::Merge(scale(replicas))).await.unwrap();
        let deployment = serde_json::to_value(ns.deployments(&env.admin).get("web").await.unwrap()).unwrap();
        assert!(is_paused(&deployment));
        assert_eq!(deployment["spec"]["replicas"], replicas);
        eventually(PATIENCE, "the old ReplicaSet follows", async || {
            let sets =
                ns.api(&env.admin, "apps/v1", "ReplicaSet").list(&ListParams::default()).await.unwrap();
            let sizes: Vec<Value> = sets.iter().map(|s| s.data["spec"]["replicas"].clone()).collect();
            if sizes == [json!(replicas)] { Ok(()) } else { Err(sizes) }
        })
        .await;
    }
}

#[tokio::test]
async fn a_workload_without_rollout_is_left_alone() {
    let Some(env) = Env::get().await else { return };
    let ns = env.namespace("brake").await;
    ns.deployment("web", 1, OLD).await;
    let written = write(&ns, "web", Write::Strategic(image(NEW))).await;
    assert!(!is_paused(&written));
    assert_eq!(label(&written, BRAKED_LABEL), None);
}

#[tokio::test]
async fn only_the_operator_takes_a_workload_out_of_its_rollout() {
    let Some(env) = Env::get().await else { return };
    let ns = env.namespace("brake").await;
    at_rest(&ns).await;
    let remove = json!({"metadata": {"labels": {ROLLOUT_LABEL: null}}});
    let written = write(&ns, "web", Write::Merge(remove.clone())).await;
    assert_eq!(label(&written, ROLLOUT_LABEL), Some("web"));
    let freed = serde_json::to_value(ns.as_belay("web", &remove).await).unwrap();
    assert_eq!(label(&freed, ROLLOUT_LABEL), None);
    let written = write(&ns, "web", Write::Strategic(image(NEW))).await;
    assert!(!is_paused(&written));
}

/// Lists that Kubernetes merges by key are still lists: another order makes another pod template.
#[tokio::test]
async fn another_order_of_a_list_is_a_change() {
    let Some(env) = Env::get().await else { return };
    let ns = env.namespace("brake").await;
    at_rest(&ns).await;
    let env_of = |names: [&str; 2]| {
        let mut manifest = manifest(OLD);
        let list: Vec<Value> = names.iter().map(|n| json!({"name": n, "value": "1"})).collect();
        manifest["spec"]["template"]["spec"]["containers"][0]["env"] = json!(list);
        manifest
    };
    write(&ns, "web", Write::Put(env_of(["A", "B"]))).await;
    ns.as_belay("web", &json!({"spec": {"paused": null}, "metadata": {"labels": {BRAKED_LABEL: null}}}))
        .await;
    let written = write(&ns, "web", Write::Put(env_of(["B", "A"]))).await;
    assert!(is_paused(&written), "the Deployment controller makes a new ReplicaSet for it");
}

/// A manifest with a name twice in a list is legal, and server-side apply cannot read it.
#[tokio::test]
async fn a_template_that_cannot_be_merged_is_braked_all_the_same() {
    let Some(env) = Env::get().await else { return };
    let ns = env.namespace("brake").await;
    at_rest(&ns).await;
    let mut twice = manifest(OLD);
    twice["spec"]["template"]["spec"]["containers"][0]["env"] =
        json!([{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]);
    let written = write(&ns, "web", Write::Put(twice)).await;
    assert_braked(&ns, &written).await;
}

/// The status of a governed workload belongs to its controller.
#[tokio::test]
async fn status_is_not_judged() {
    let Some(env) = Env::get().await else { return };
    let ns = env.namespace("brake").await;
    at_rest(&ns).await;
    let status = json!({"status": {"collisionCount": 3}});
    let params = PatchParams::default();
    let written =
        ns.deployments(&env.admin).patch_status("web", &params, &Patch::Merge(status)).await.unwrap();
    assert_eq!(written.data["status"]["collisionCount"], 3);
    assert!(!is_paused(&serde_json::to_value(written).unwrap()));
}

/// The real `kubectl`, where `BELAY_KUBECTL` names one.
#[tokio::test]
async fn kubectl_itself_is_braked() {
    let Some(env) = Env::get().await else { return };
    let Some(kubectl) = std::env::var_os("BELAY_KUBECTL") else {
        eprintln!("SKIPPED: BELAY_KUBECTL does not name a kubectl");
        return;
    };
    let ns = env.namespace("kubectl").await;
    let run = |arguments: &[&str], stdin: Option<&Value>| {
        use std::io::Write as _;
        let mut command = std::process::Command::new(&kubectl);
        command.arg("-n").arg(&ns.name).args(arguments).stdin(std::process::Stdio::piped());
        let mut child = command.stdout(std::process::Stdio::null()).spawn().unwrap();
        let input = stdin.map(ToString::to_string).unwrap_or_default();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "kubectl {arguments:?}");
    };
    run(&["apply", "-f", "-"], Some(&manifest(OLD)));
    ns.as_belay("web", &json!({"metadata": {"labels": {ROLLOUT_LABEL: "web"}}})).await;
    settled(&ns).await;
    let let_go = json!({"spec": {"paused": null}, "metadata": {"labels": {BRAKED_LABEL: null}}});
    let container = format!("app={NEW}");
    let cases: [(&[&str], Option<Value>); 6] = [
        (&["set", "image", "deployment/web", &container], None),
        (&["rollout", "resume", "deployment/web"], None),
        (&["apply", "-f", "-"], Some(manifest(NEW))),
        (&["apply", "--server-side", "--force-conflicts", "-f", "-"], Some(manifest(NEW))),
        (&["replace", "-f", "-"], Some(manifest(NEW))),
        (&["rollout", "restart", "deployment/web"], None),
    ];
    for (arguments, stdin) in cases {
        // `rollout resume` of what is not paused is an error, and `restart` of what is paused is one, too.
        if arguments[1] == "restart" {
            ns.as_belay("web", &image_of(OLD)).await;
            ns.as_belay("web", &let_go).await;
        }
        run(arguments, stdin.as_ref());
        let written = serde_json::to_value(ns.deployments(&env.admin).get("web").await.unwrap()).unwrap();
        assert_braked(&ns, &written).await;
    }
}

fn image_of(image: &str) -> Value {
    json!({"spec": {"template": {"spec": {"containers": deployment("web", 3, image)["spec"]["template"]["spec"]["containers"]}}}})
}
