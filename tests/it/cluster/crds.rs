//! The custom resources on a real API server: what it takes, what it refuses and in which words; and that the
//! check without a server ([`belay::api::validate`]) says the same.

use belay::api::validate::{FieldError, validate, validate_update};
use belay::install::crd_of;
use http::Request;
use kube::Client;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::{Env, Namespace, resource};

fn rollout() -> Value {
    crate::manifests::documents(include_str!("rollout.yaml")).remove(0)
}

fn release() -> Value {
    let revision =
        |name: &str| json!({"revision": name, "replicaSet": format!("web-{name}"), "images": ["app=a"]});
    json!({
        "apiVersion": "belay.dev/v1alpha1",
        "kind": "Release",
        "metadata": {"name": "web-bbbb"},
        "spec": {
            "rollout": "web",
            "workload": {"kind": "Deployment", "name": "web", "uid": "1"},
            "replicas": 3,
            "from": revision("aaaa"),
            "to": revision("bbbb"),
            "replicas": 1,
            "attempt": 1,
            "steps": [{"weight": 5, "minDuration": "1m", "maxDuration": "15m"}, {"weight": 50, "minDuration": "1m",
                "maxDuration": "15m", "pause": true}],
            "analysis": rollout()["spec"]["analysis"],
            "rollback": {"automatic": true, "restoreTemplate": false},
            "progressDeadline": "10m",
            "plannedLooks": 100,
        },
    })
}

fn with(mut object: Value, change: &Value) -> Value {
    json_patch::merge(&mut object, change);
    object
}

/// Creates an object as a person's `kubectl` does: unknown fields are an error. Nothing is kept.
async fn created(client: &Client, ns: &Namespace, object: &Value) -> Result<Value, String> {
    let kind = object["kind"].as_str().unwrap();
    let plural = resource(object["apiVersion"].as_str().unwrap(), kind).plural;
    let url = format!(
        "/apis/{}/namespaces/{}/{plural}?dryRun=All&fieldValidation=Strict",
        object["apiVersion"].as_str().unwrap(),
        ns.name
    );
    let request =
        Request::post(url).header("content-type", "application/json").body(object.to_string().into_bytes());
    client.request::<Value>(request.unwrap()).await.map_err(refusal)
}

/// Updates an object, whole, in a dry run.
async fn updated(client: &Client, ns: &Namespace, object: &Value) -> Result<Value, String> {
    let name = object["metadata"]["name"].as_str().unwrap();
    let api = ns.api(client, "belay.dev/v1alpha1", object["kind"].as_str().unwrap());
    let object: DynamicObject = serde_json::from_value(object.clone()).unwrap();
    let params = PostParams { dry_run: true, field_manager: None };
    let written = api.replace(name, &params, &object).await.map_err(refusal)?;
    Ok(serde_json::to_value(written).unwrap())
}

/// The server's words. Anything but a refusal of the object is a failure of the test.
fn refusal(error: kube::Error) -> String {
    match error {
        kube::Error::Api(status) if matches!(status.code, 400 | 422) => status.message,
        other => panic!("not a verdict about the object: {other}"),
    }
}

fn said(errors: &[FieldError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// What is wrong in a bad object.
struct Bad {
    change: Value,
    /// Words that both the server and the check without it use: the field, and what to do.
    words: &'static [&'static str],
}

fn bad(change: Value, words: &'static [&'static str]) -> Bad {
    Bad { change, words }
}

fn canary(steps: &Value) -> Value {
    json!({"spec": {"strategy": {"canary": {"steps": steps}}}})
}

fn guard(change: &Value) -> Value {
    let guard = with(rollout()["spec"]["analysis"]["guards"][0].clone(), change);
    json!({"spec": {"analysis": {"guards": [guard]}}})
}

fn bad_strategies() -> Vec<Bad> {
    vec![
        bad(canary(&json!([{"weight": 25}, {"weight": 5}])), &["spec.strategy.canary.steps", "order them"]),
        bad(canary(&json!([{"weight": 25}, {"weight": 25}])), &["spec.strategy.canary.steps", "must grow"]),
        bad(canary(&json!([{"weight": 0}])), &["spec.strategy.canary.steps[0].weight", "1 to 100 percent"]),
        bad(canary(&json!([{"weight": 101}])), &["spec.strategy.canary.steps[0].weight", "1 to 100 percent"]),
        bad(canary(&json!([{"weight": 51}])), &["spec.strategy.canary", "50 % at most"]),
        bad(canary(&json!([{"weight": 5, "mirror": 10}])), &["spec.strategy.canary", "need a router"]),
        bad(
            json!({"spec": {"strategy": {"canary": {"bake": "1m"}}}}),
            &["spec.strategy.canary", "add traffic"],
        ),
        bad(
            json!({"spec": {"strategy": {"canary": {"traffic": {"httpRoutes": [{"name": "web"}]}}}}}),
            &["spec.strategy.canary", "name it"],
        ),
        bad(
            json!({"spec": {"strategy": {"blueGreen": {"activeService": "web"}}}}),
            &["spec.strategy", "exactly one of canary and blueGreen"],
        ),
        bad(canary(&json!([{"weight": "5%"}])), &["spec.strategy.canary.steps[0].weight", "integer"]),
        bad(canary(&json!([{}])), &["spec.strategy.canary.steps[0].weight", "equired"]),
        bad(canary(&json!([])), &["spec.strategy.canary.steps", "at least 1"]),
        bad(canary(&json!(vec![json!({"weight": 1}); 21])), &["spec.strategy.canary.steps", "at most 20"]),
        bad(
            canary(&json!([{"weight": 5, "minDuration": "5m", "maxDuration": "1m"}])),
            &["spec.strategy.canary.steps[0]", "raise maxDuration"],
        ),
        bad(canary(&json!([{"weight": 5, "minDuration": "-1m"}])), &["steps[0].minDuration", "such as 90s"]),
        bad(canary(&json!([{"weight": 5, "minDuration": "soon"}])), &["steps[0].minDuration", "such as 90s"]),
        bad(canary(&json!([{"weight": 5, "minDuration": 60}])), &["steps[0].minDuration", "type string"]),
    ]
}

fn bad_rollouts() -> Vec<Bad> {
    let prometheus = json!({"url": "http://prometheus:9090"});
    let analysis = |change: Value| json!({"spec": {"analysis": change}});
    let server = |change: &Value| {
        analysis(json!({"metrics": {"pods": null, "prometheus": with(prometheus.clone(), change)}}))
    };
    let mut all = bad_strategies();
    all.extend([
        bad(json!({"spec": {"progressDeadline": "-10m"}}), &["spec.progressDeadline", "such as 90s"]),
        bad(
            analysis(json!({"metrics": {"prometheus": prometheus}})),
            &["spec.analysis.metrics", "remove the other"],
        ),
        bad(analysis(json!({"metrics": {"pods": null}})), &["spec.analysis.metrics", "exactly one of pods"]),
        bad(
            analysis(json!({"metrics": {"pods": null, "prometheus": {"url": "prometheus:9090"}}})),
            &["spec.analysis.metrics.prometheus.url", "must start with http://"],
        ),
        bad(analysis(json!({"metrics": {"pods": {"port": 0}}})), &["spec.analysis.metrics.pods.port", "1"]),
        bad(
            analysis(json!({"metrics": {"pods": {"tls": {"serverName": "web"}}}})),
            &["spec.analysis.metrics.pods", "only with scheme: https"],
        ),
        bad(
            analysis(json!({"metrics": {"pods": {"auth": {}}}})),
            &["spec.analysis.metrics.pods.auth", "exactly one of basic and bearer"],
        ),
        bad(
            server(
                &json!({"tls": {"insecureSkipVerify": true, "caSecretRef": {"name": "ca"}}, "url": "https://p"}),
            ),
            &["spec.analysis.metrics.prometheus.tls", "insecureSkipVerify trusts everybody"],
        ),
        bad(
            server(&json!({"tls": {}})),
            &["spec.analysis.metrics.prometheus", "only with an address that starts with https://"],
        ),
        bad(
            server(&json!({"headers": [{"name": "AUTHORIZATION", "value": "x"}]})),
            &["spec.analysis.metrics.prometheus.headers[0].name", "`auth` with a Secret"],
        ),
        bad(
            server(&json!({"headers": [{"name": "content-length", "value": "0"}]})),
            &["spec.analysis.metrics.prometheus.headers[0].name", "set by the request itself"],
        ),
        bad(server(&json!({"lookBack": "6m"})), &["spec.analysis.metrics.prometheus.lookBack", "1s to 5m"]),
        bad(analysis(json!({"metrics": null})), &["spec.analysis.metrics", "add metrics.pods"]),
        bad(analysis(json!({"interval": "0s"})), &["spec.analysis.interval", "1s to 5m"]),
        bad(analysis(json!({"interval": "6m"})), &["spec.analysis.interval", "1s to 5m"]),
        bad(analysis(json!({"interval": "often"})), &["spec.analysis.interval", "such as 90s"]),
        bad(analysis(json!({"confidence": "sure"})), &["spec.analysis.confidence", "careful"]),
        bad(
            analysis(json!({"onNoData": {"after": null}})),
            &["spec.analysis.onNoData", "set how long to wait"],
        ),
        bad(
            guard(&json!({"ratio": {"tolerate": "0.5x"}})),
            &["spec.analysis.guards[0].ratio.tolerate", "1.2x + 0.1%"],
        ),
        bad(
            guard(&json!({"ratio": {"tolerate": "20%"}})),
            &["spec.analysis.guards[0].ratio.tolerate", "1.2x + 0.1%"],
        ),
        bad(guard(&json!({"ratio": {"bad": {"metric": "5xx"}}})), &["guards[0].ratio.bad.metric"]),
        bad(guard(&json!({"name": "Errors"})), &["spec.analysis.guards[0].name"]),
        bad(
            analysis(
                json!({"guards": [rollout()["spec"]["analysis"]["guards"][0], rollout()["spec"]["analysis"]["guards"][0]]}),
            ),
            &["spec.analysis.guards[1]"],
        ),
        bad(
            json!({"spec": {"workloadRef": {"kind": "StatefulSet"}}}),
            &["spec.workloadRef", "set kind: Deployment"],
        ),
        bad(json!({"spec": {"workloadRef": null}}), &["spec.workloadRef", "equired"]),
        bad(json!({"spec": null}), &["spec", "equired"]),
        bad(json!({"spec": {"historyLimit": 0}}), &["spec.historyLimit", "1"]),
        bad(json!({"spec": {"paused": "no"}}), &["spec.paused", "boolean"]),
        bad(json!({"spec": {"pause": true}}), &["spec.pause", "unknown field"]),
        bad(
            json!({"spec": {"strategy": {"canary": {"step": []}}}}),
            &["spec.strategy.canary.step", "unknown field"],
        ),
        bad(json!({"metadata": {"name": "a".repeat(41)}}), &["metadata.name", "at most 40 characters"]),
    ]);
    all
}

#[test]
fn good_objects_pass_without_a_server() {
    for object in [rollout(), release()] {
        let crd = crd_of(object["kind"].as_str().unwrap()).unwrap();
        assert_eq!(said(&validate(&crd, &object)), "");
    }
}

#[test]
fn bad_rollouts_are_refused_without_a_server() {
    let crd = crd_of("Rollout").unwrap();
    for case in bad_rollouts() {
        let said = said(&validate(&crd, &with(rollout(), &case.change)));
        assert!(case.words.iter().all(|w| said.contains(w)), "{}\nsaid: {said}", case.change);
    }
}

#[tokio::test]
async fn bad_rollouts_are_refused_by_the_server_in_the_same_words() {
    let Some(env) = Env::get().await else { return };
    let ns = env.namespace("crds").await;
    let mut wrong = Vec::new();
    for case in bad_rollouts() {
        match created(&env.alice, &ns, &with(rollout(), &case.change)).await {
            Ok(_) => wrong.push(format!("{}: taken", case.change)),
            Err(message) => {
                let told = case.words.iter().all(|w| message.contains(w));
                if std::env::var_os("BELAY_SHOW_REFUSALS").is_some() || !told {
                    wrong.push(format!("{}: {message}", case.change));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[tokio::test]
async fn every_field_of_a_rollout_is_taken_and_kept() {
    let Some(env) = Env::get().await else { return };
    let ns = env.namespace("crds").await;
    let taken = created(&env.alice, &ns, &rollout()).await.unwrap();
    assert_eq!(taken["spec"], rollout()["spec"]);
    let applied = ns.apply_yaml(&env.gitops, "gitops", include_str!("rollout.yaml")).await.unwrap();
    assert_eq!(applied[0].data["spec"], rollout()["spec"]);
    // The same again changes nothing.
    let again = ns.apply_yaml(&env.gitops, "gitops", include_str!("rollout.yaml")).await.unwrap();
    assert_eq!(applied[0].metadata.resource_version, again[0].metadata.resource_version);
}

#[tokio::test]
async fn the_least_rollout_is_taken() {
    let Some(env) = Env::get().await else { return };
    let ns = env.namespace("crds").await;
    let mut least = rollout();
    least["spec"] = json!({"workloadRef": {"kind": "Deployment", "name": "web"}});
    let taken = created(&env.alice, &ns, &least).await.unwrap();
    assert_eq!(taken["spec"], least["spec"], "nothing is filled in that a manifest does not say");
    assert_eq!(said(&validate(&crd_of("Rollout").unwrap(), &least)), "");
}

#[tokio::test]
async fn a_rollout_keeps_its_workload() {
    let Some(env) = Env::get().await else { return };
    let ns = env.namespace("crds").await;
    let stored = ns.apply(&env.alice, "alice", &rollout()).await.unwrap();
    let stored = serde_json::to_value(stored).unwrap();
    let other = with(stored.clone(), &json!({"spec": {"workloadRef": {"name": "other"}}}));
    let message = updated(&env.alice, &ns, &other).await.unwrap_err();
    let offline = said(&validate_update(&crd_of("Rollout").unwrap(), &stored, &other));
    for told in [message, offline] {
        assert!(told.contains("spec.workloadRef is immutable; delete this Rollout"), "{told}");
    }
}

#[tokio::test]
async fn guards_of_two_writers_merge_by_name() {
    let Some(env) = Env::get().await else { return };
    let ns = env.namespace("crds").await;
    ns.apply(&env.gitops, "gitops", &rollout()).await.unwrap();
    let mut latency = rollout()["spec"]["analysis"]["guards"][0].clone();
    latency["name"] = json!("checkout");
    let mut second = rollout();
    second["spec"] = json!({
        "workloadRef": rollout()["spec"]["workloadRef"],
        "analysis": {"guards": [latency]},
    });
    let merged = ns.apply(&env.alice, "team", &second).await.unwrap();
    let guards = merged.data["spec"]["analysis"]["guards"].as_array().unwrap();
    let names: Vec<&str> = guards.iter().filter_map(|g| g["name"].as_str()).collect();
    assert_eq!(names, ["errors", "checkout"]);
    // The first writer's next apply leaves the second's guard alone.
    let merged = ns.apply(&env.gitops, "gitops", &rollout()).await.unwrap();
    assert_eq!(merged.data["spec"]["analysis"]["guards"].as_array().unwrap().len(), 2);
}

/// A change of a Release with the verdict on it: the words of a refusal, or none.
fn release_updates() -> Vec<(Value, Option<&'static str>)> {
    let one = json!({"verb": "pause", "reason": "lunch", "by": "alice"});
    let two = json!({"verb": "resume", "by": "alice"});
    let commands = |list: Value| json!({"spec": {"commands": list}});
    let analysis = |change: Value| json!({"spec": {"analysis": change}});
    vec![
        (json!({}), None),
        (commands(json!([one, two])), None),
        (commands(json!([one, two, {"verb": "abort"}])), Some("one command per write")),
        (commands(json!([])), Some("append-only")),
        (commands(Value::Null), Some("append-only")),
        (commands(json!([two])), Some("append-only")),
        (commands(json!([two, one])), Some("append-only")),
        (commands(json!([{"verb": "pause", "reason": "other", "by": "alice"}])), Some("append-only")),
        (commands(json!([{"verb": "pause", "reason": "lunch", "by": "bob"}])), Some("append-only")),
        (json!({"spec": {"attempt": 2}}), Some("immutable")),
        (json!({"spec": {"replicas": 4}}), Some("immutable")),
        (json!({"spec": {"rollout": "other"}}), Some("immutable")),
        (json!({"spec": {"to": {"revision": "cccc"}}}), Some("immutable")),
        (json!({"spec": {"to": {"images": ["app=b"]}}}), Some("immutable")),
        (json!({"spec": {"workload": {"uid": "2"}}}), Some("immutable")),
        (
            json!({"spec": {"steps": [{"weight": 50, "minDuration": "1m", "maxDuration": "15m"}]}}),
            Some("immutable"),
        ),
        (json!({"spec": {"rollback": {"automatic": false}}}), Some("immutable")),
        (json!({"spec": {"progressDeadline": "1m"}}), Some("immutable")),
        (json!({"spec": {"plannedLooks": 200}}), Some("immutable")),
        (json!({"spec": {"unbraked": true}}), Some("immutable")),
        (json!({"spec": {"analysis": null}}), Some("immutable")),
        (analysis(json!({"interval": "10s"})), Some("immutable")),
        (analysis(json!({"warmUp": null})), Some("immutable")),
        (commands(json!([one, {"verb": "explode"}])), Some("spec.commands[1].verb")),
        (commands(json!([one, {"verb": "promote", "step": 0}])), Some("spec.commands[1].step")),
    ]
}

#[tokio::test]
async fn a_release_takes_commands_and_nothing_else() {
    let Some(env) = Env::get().await else { return };
    let ns = env.namespace("crds").await;
    let api = ns.api(&env.belay, "belay.dev/v1alpha1", "Release");
    let object: DynamicObject = serde_json::from_value(release()).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap();
    let append = json!({"spec": {"commands": [{"verb": "pause", "reason": "lunch"}]}});
    let params = PatchParams::default();
    let stored = ns.api(&env.alice, "belay.dev/v1alpha1", "Release");
    let stored = stored.patch("web-bbbb", &params, &Patch::Merge(append)).await.unwrap();
    let stored = serde_json::to_value(stored).unwrap();

    let crd = crd_of("Release").unwrap();
    for (change, expected) in release_updates() {
        let new = with(stored.clone(), &change);
        let server = updated(&env.alice, &ns, &new).await;
        let offline = said(&validate_update(&crd, &stored, &new));
        match expected {
            None => {
                assert!(server.is_ok(), "{change}: {server:?}");
                assert_eq!(offline, "", "{change}");
            }
            Some(words) => {
                let message = server.expect_err(&change.to_string());
                assert!(message.contains(words), "{change}: {message}");
                assert!(offline.contains(words), "{change}, offline: {offline}");
            }
        }
    }
}

#[tokio::test]
async fn the_guards_of_a_release_keep_their_order() {
    let Some(env) = Env::get().await else { return };
    let ns = env.namespace("crds").await;
    let first = rollout()["spec"]["analysis"]["guards"][0].clone();
    let second = with(first.clone(), &json!({"name": "checkout"}));
    let object = with(release(), &json!({"spec": {"analysis": {"guards": [first, second]}}}));
    let stored = ns.apply(&env.admin, "tests", &object).await.unwrap();
    let stored = serde_json::to_value(stored).unwrap();
    let turned = with(stored, &json!({"spec": {"analysis": {"guards": [second, first]}}}));
    let message = updated(&env.admin, &ns, &turned).await.unwrap_err();
    assert!(message.contains("immutable"), "{message}");
}

#[tokio::test]
async fn the_author_of_a_command_is_the_user_of_the_request() {
    let Some(env) = Env::get().await else { return };
    let ns = env.namespace("crds").await;
    let by = |release: &DynamicObject, index: usize| release.data["spec"]["commands"][index]["by"].clone();

    // On creation, whoever creates, and however many commands there are.
    let forged = json!([{"verb": "pause", "by": "alice"}, {"verb": "resume", "by": "gitops"}]);
    let object = with(release(), &json!({"spec": {"commands": forged}}));
    let object: DynamicObject = serde_json::from_value(object).unwrap();
    let api = ns.api(&env.belay, "belay.dev/v1alpha1", "Release");
    let created = api.create(&PostParams::default(), &object).await.unwrap();
    assert_eq!([by(&created, 0), by(&created, 1)], [belay::api::OPERATOR_USER, belay::api::OPERATOR_USER]);

    // Later, by every kind of write.
    let alice = ns.api(&env.alice, "belay.dev/v1alpha1", "Release");
    let add = json!([{"op": "add", "path": "/spec/commands/-", "value": {"verb": "promote", "by": "admin"}}]);
    let patch: json_patch::Patch = serde_json::from_value(add).unwrap();
    let added = alice.patch("web-bbbb", &PatchParams::default(), &Patch::Json::<()>(patch)).await.unwrap();
    assert_eq!(by(&added, 2), "alice");

    let gitops = ns.api(&env.gitops, "belay.dev/v1alpha1", "Release");
    let mut whole = serde_json::to_value(&added).unwrap();
    whole["spec"]["commands"].as_array_mut().unwrap().push(json!({"verb": "abort", "by": "alice"}));
    let whole: DynamicObject = serde_json::from_value(whole).unwrap();
    let replaced = gitops.replace("web-bbbb", &PostParams::default(), &whole).await.unwrap();
    assert_eq!(by(&replaced, 3), "gitops");
    assert_eq!(by(&replaced, 2), "alice", "earlier commands keep their author");

    // The operator's own writes are no exception.
    let patch =
        json!([{"op": "add", "path": "/spec/commands/-", "value": {"verb": "resume", "by": "alice"}}]);
    let patch: json_patch::Patch = serde_json::from_value(patch).unwrap();
    let added = api.patch("web-bbbb", &PatchParams::default(), &Patch::Json::<()>(patch)).await.unwrap();
    assert_eq!(by(&added, 4), belay::api::OPERATOR_USER);
}

/// What the operator does with a Release and a Rollout, with its own rights and no others.
#[tokio::test]
async fn the_operator_owns_releases_and_their_replica_sets() {
    let Some(env) = Env::get().await else { return };
    let ns = env.namespace("crds").await;
    let stored = ns.apply(&env.alice, "alice", &rollout()).await.unwrap();
    let owner = |kind: &str, object: &DynamicObject| {
        json!([{
            "apiVersion": "belay.dev/v1alpha1", "kind": kind, "name": object.metadata.name,
            "uid": object.metadata.uid, "controller": true, "blockOwnerDeletion": true,
        }])
    };
    let finalizer = json!({"metadata": {"finalizers": [belay::api::FINALIZER]}});
    let params = PatchParams::default();
    let rollouts = ns.api(&env.belay, "belay.dev/v1alpha1", "Rollout");
    rollouts.patch("web", &params, &Patch::Merge(&finalizer)).await.unwrap();
    let status = json!({"status": {"phase": "Stable", "conditions": [{"type": "Ready", "status": "True",
        "lastTransitionTime": "2030-01-01T00:00:00Z", "reason": "Ready", "message": "ready"}]}});
    rollouts.patch_status("web", &params, &Patch::Merge(&status)).await.unwrap();

    let object = with(release(), &json!({"metadata": {"ownerReferences": owner("Rollout", &stored)}}));
    let object: DynamicObject = serde_json::from_value(object).unwrap();
    let releases = ns.api(&env.belay, "belay.dev/v1alpha1", "Release");
    let created = releases.create(&PostParams::default(), &object).await.unwrap();
    let status = json!({"status": {"phase": "Progressing", "step": {"index": 1, "elapsedSeconds": 0.5}}});
    let written = releases.patch_status("web-bbbb", &params, &Patch::Merge(&status)).await.unwrap();
    assert_eq!(written.data["status"]["phase"], "Progressing");

    let template = super::deployment("web", 1, "node.local/sample:1")["spec"]["template"].clone();
    let set = json!({
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {"name": "web-bbbb", "ownerReferences": owner("Release", &created)},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "web"}}, "template": template},
    });
    let sets = ns.api(&env.belay, "apps/v1", "ReplicaSet");
    sets.create(&PostParams::default(), &serde_json::from_value(set).unwrap()).await.unwrap();

    let nothing = json!({"metadata": {"finalizers": null}});
    rollouts.patch("web", &params, &Patch::Merge(&nothing)).await.unwrap();
}
