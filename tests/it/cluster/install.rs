//! Installing and what an installation gives to whom.

use belay::install::{self, Change, Options};
use kube::api::{Api, DynamicObject, ObjectMeta, PostParams};
use serde_json::{Value, json};

use super::{Env, acting_as, resource};

#[tokio::test]
async fn a_second_installation_changes_nothing() {
    let Some(env) = Env::get().await else { return };
    let objects = install::objects(&Options::default());
    let objects: Vec<Value> = objects.into_iter().filter(|o| o["kind"] != "Deployment").collect();
    install::apply(&env.admin, &objects, false).await.unwrap();
    for dry_run in [false, true] {
        for outcome in install::apply(&env.admin, &objects, dry_run).await.unwrap() {
            assert_eq!(outcome.change, Change::Unchanged, "{}", outcome.object);
        }
    }
}

#[tokio::test]
async fn a_dry_run_says_what_it_would_do_and_does_nothing() {
    let Some(env) = Env::get().await else { return };
    let options = Options::in_namespace("belay-nowhere");
    let objects: Vec<Value> = install::objects(&options)
        .into_iter()
        .filter(|o| o["metadata"]["namespace"].is_string() || o["kind"] == "Namespace")
        .collect();
    for outcome in install::apply(&env.admin, &objects, true).await.unwrap() {
        assert_eq!(outcome.change, Change::Created, "{}", outcome.object);
    }
    let namespaces: Api<DynamicObject> = Api::all_with(env.admin.clone(), &resource("v1", "Namespace"));
    assert!(namespaces.get_opt("belay-nowhere").await.unwrap().is_none());
}

#[tokio::test]
async fn what_is_installed_can_be_removed_and_removed_again() {
    let Some(env) = Env::get().await else { return };
    let ns = env.namespace("remove").await;
    let namespaced = json!({"name": "belay", "namespace": ns.name});
    let objects = vec![
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": namespaced}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": namespaced, "rules": []}),
    ];
    install::apply(&env.admin, &objects, false).await.unwrap();
    let changes = |outcomes: Vec<install::Outcome>| -> Vec<(String, Change)> {
        outcomes.into_iter().map(|o| (o.object.split('/').next().unwrap().to_owned(), o.change)).collect()
    };
    let first = changes(install::remove(&env.admin, &objects).await.unwrap());
    assert_eq!(first, [("Role".to_owned(), Change::Removed), ("ServiceAccount".to_owned(), Change::Removed)]);
    let second = changes(install::remove(&env.admin, &objects).await.unwrap());
    assert!(second.iter().all(|(_, change)| *change == Change::Absent), "{second:?}");
}

#[tokio::test]
async fn policies_are_supported_and_in_force() {
    let Some(env) = Env::get().await else { return };
    assert!(install::server_supports_policies(&env.admin).await.unwrap());
    let ns = env.namespace("probe").await;
    assert_eq!(install::brake_engaged(&env.admin, &ns.name).await.unwrap(), install::Engaged::Yes);
    assert_eq!(install::stamp_engaged(&env.admin, &ns.name).await.unwrap(), install::Engaged::Yes);
    let left = ns.deployments(&env.admin).list(&kube::api::ListParams::default()).await.unwrap();
    assert!(left.items.iter().all(|d| d.metadata.deletion_timestamp.is_some()), "the probe is left behind");
}

/// What a person sees with the cluster's own roles `view` and `edit`.
#[tokio::test]
async fn the_roles_for_people_join_the_clusters_own() {
    let Some(env) = Env::get().await else { return };
    let ns = env.namespace("people").await;
    ns.grant("viewer", "view").await;
    ns.grant("releaser", "edit").await;
    let cases = [
        ("viewer", "rollouts", "", "list", true),
        ("viewer", "rollouts", "", "patch", false),
        ("viewer", "releases", "", "patch", false),
        ("releaser", "rollouts", "", "create", true),
        ("releaser", "rollouts", "", "delete", true),
        ("releaser", "releases", "", "patch", true),
        ("releaser", "releases", "", "create", false),
        ("releaser", "releases", "status", "patch", false),
        ("nobody", "rollouts", "", "get", false),
    ];
    for (user, plural, subresource, verb, expected) in cases {
        let client = acting_as(user, &[]).await.unwrap();
        // The cluster adds our roles to its own a moment after they were made.
        super::eventually(
            super::PATIENCE,
            &format!("{user} {verb} {plural}/{subresource}: {expected}"),
            async || {
                let allowed = may(&client, &ns.name, "belay.dev", plural, subresource, verb).await;
                if allowed == expected { Ok(()) } else { Err(allowed) }
            },
        )
        .await;
    }
}

#[tokio::test]
async fn the_operator_may_do_its_work_and_no_more() {
    let Some(env) = Env::get().await else { return };
    let ns = env.namespace("operator").await;
    let cases = [
        ("apps", "deployments", "", "patch", true),
        ("apps", "deployments", "", "create", false),
        ("apps", "replicasets", "", "create", true),
        ("apps", "replicasets", "", "delete", true),
        ("belay.dev", "releases", "", "create", true),
        ("belay.dev", "releases", "status", "patch", true),
        ("belay.dev", "releases", "finalizers", "update", true),
        ("belay.dev", "rollouts", "", "create", false),
        ("belay.dev", "rollouts", "", "delete", false),
        ("", "pods", "", "list", true),
        ("", "pods", "", "delete", false),
        ("", "pods", "exec", "create", false),
        ("", "secrets", "", "get", false),
        ("", "secrets", "", "list", false),
        ("", "configmaps", "", "get", false),
        ("coordination.k8s.io", "leases", "", "create", false),
        ("admissionregistration.k8s.io", "mutatingadmissionpolicies", "", "delete", false),
    ];
    for (group, plural, subresource, verb, expected) in cases {
        let allowed = may(&env.belay, &ns.name, group, plural, subresource, verb).await;
        assert_eq!(allowed, expected, "{verb} {plural}/{subresource}.{group}");
    }
    let leases = may(&env.belay, "belay-system", "coordination.k8s.io", "leases", "", "create").await;
    assert!(leases, "leases in its own namespace");
}

/// Asks the API server whether the client's user may do something.
async fn may(
    client: &kube::Client,
    namespace: &str,
    group: &str,
    plural: &str,
    subresource: &str,
    verb: &str,
) -> bool {
    let review = resource("authorization.k8s.io/v1", "SelfSubjectAccessReview");
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &review);
    let attributes = json!({
        "namespace": namespace, "group": group, "resource": plural, "subresource": subresource, "verb": verb,
    });
    let mut object =
        DynamicObject::new("", &review).data(json!({"spec": {"resourceAttributes": attributes}}));
    object.metadata = ObjectMeta::default();
    let answer = api.create(&PostParams::default(), &object).await.unwrap();
    answer.data["status"]["allowed"] == true
}
