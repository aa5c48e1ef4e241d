//! What concerns the whole cluster, and so runs by itself after everything else.

use kube::Api;
use kube::api::{DynamicObject, ListParams};
use serde_json::json;

use super::examples::run_as;
use super::load::Load;
use super::releases::service;
use super::scene::{Plan, Scene, int, steps};
use super::writes::{self, Write};
use super::{Env, PATIENCE, eventually, resource};

/// Deletes every Rollout of the cluster, so nothing else may run beside it.
#[tokio::test]
async fn removed_in_the_middle_of_a_release_belay_leaves_the_workload_serving() {
    let plan = Plan {
        replicas: 3,
        spec: steps(&[(50, "10m")]),
        // They go on serving while the Service forgets them.
        env: vec![("LINGER", "3s")],
        ..Plan::default()
    };
    let Some(scene) = Scene::start("removed", plan).await else { return };
    let stable = scene.stable().await;
    let serving = scene.uids_of(&stable).await;
    let load = Load::start(&service(&scene).await, 20);
    scene.set_env(&[("VERSION", "2")]).await;
    let release = scene.new_release(0).await;
    scene.at_step(&release, 1).await;

    let (code, said) = run_as("admin", "belay", &["uninstall", "--yes"]).await;
    assert_eq!(code, 0, "{said}");
    for (version, kind, name) in [
        ("apiextensions.k8s.io/v1", "CustomResourceDefinition", "rollouts.belay.dev"),
        ("apiextensions.k8s.io/v1", "CustomResourceDefinition", "releases.belay.dev"),
        ("admissionregistration.k8s.io/v1", "MutatingAdmissionPolicy", "brake.belay.dev"),
        ("admissionregistration.k8s.io/v1", "MutatingAdmissionPolicy", "stamp.belay.dev"),
        ("rbac.authorization.k8s.io/v1", "ClusterRole", "belay"),
        ("v1", "Namespace", "belay-system"),
    ] {
        let api: Api<DynamicObject> =
            Api::all_with(scene.namespace.env.admin.clone(), &resource(version, kind));
        let left = api.list(&ListParams::default()).await.unwrap();
        assert!(left.items.iter().all(|o| o.metadata.name.as_deref() != Some(name)), "{kind} {name} is left");
    }
    let workload = scene.workload().await;
    assert_eq!(scene.uids_of(&stable).await, serving, "the pods that served go on");
    assert_eq!(int(&workload, "/status/availableReplicas"), 3);
    assert_eq!(workload["spec"]["paused"], true, "a template that was not proven does not go out by itself");
    let labels = workload["metadata"]["labels"].to_string();
    assert!(!labels.contains("belay.dev/release") && !labels.contains("belay.dev/rollout"), "{labels}");

    // `kubectl rollout resume`, and the workload's own controller finishes.
    scene.merge("apps/v1", "Deployment", "web", &json!({"spec": {"paused": null}})).await.unwrap();
    eventually(PATIENCE, "the workload's own rolling update is complete", async || {
        let w = scene.workload().await;
        let n = |path| int(&w, path);
        let done = n("/status/updatedReplicas") == 3
            && n("/status/replicas") == 3
            && n("/status/availableReplicas") == 3;
        if done { Ok(()) } else { Err(w["status"].to_string()) }
    })
    .await;
    let totals = load.stop().await;
    assert!(totals.failed.is_empty() && totals.requests > 100, "{totals:?}");
}

/// The installation of another form, while somebody changes a governed workload all the time.
#[tokio::test]
async fn one_form_of_the_brake_takes_the_place_of_the_other_and_no_change_slips_through() {
    let Some(env) = Env::get().await else { return };
    let ns = env.namespace("forms").await;
    ns.governed("web", 0, writes::OLD).await;
    let changing = tokio::spawn({
        let (api, belay) = (ns.deployments(&env.alice), ns.deployments(&env.belay));
        async move {
            let free = Write::Merge(json!({"spec": {"paused": null}}));
            for tag in 0.. {
                let image = format!("node.local/sample:{tag}");
                let containers = json!([{"name": "app", "image": image}]);
                let change = json!({"spec": {"template": {"spec": {"containers": containers}}}});
                // Refused is as good as stopped.
                if let Ok(written) = writes::perform(&api, "web", &Write::Strategic(change), false).await {
                    assert_eq!(written["spec"]["paused"], true, "change {tag} slipped through");
                    writes::perform(&belay, "web", &free, false).await.unwrap();
                }
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    });
    let there = async |kind: &str, name: &str| {
        let kind = resource("admissionregistration.k8s.io/v1", kind);
        let api: Api<DynamicObject> = Api::all_with(env.admin.clone(), &kind);
        api.get_opt(name).await.unwrap().is_some()
    };
    for (form, policy, webhook) in [("webhook", false, true), ("policy", true, false)] {
        let (code, said) =
            run_as("admin", "belay", &["install", "--brake", form, "--image", "node.local/belay:dev"]).await;
        assert_eq!(code, 0, "{said}");
        assert_eq!(there("MutatingAdmissionPolicy", "brake.belay.dev").await, policy, "{said}");
        assert_eq!(there("MutatingWebhookConfiguration", "zz-brake.belay.dev").await, webhook, "{said}");
        writes::in_force(&env, &ns.name).await;
        let (_, said) = run_as("admin", "belay", &["doctor", "-n", &ns.name]).await;
        let told = if webhook { "the brake is the webhook" } else { "the brake is in the API server" };
        assert!(said.contains(told), "{said}");
        assert!(!changing.is_finished(), "a change slipped through with the form {form}");
    }
    changing.abort();
    assert!(changing.await.is_err_and(|end| end.is_cancelled()), "a change slipped through");
    // The operator stays: what was released before this test has nobody else to end it.
}
