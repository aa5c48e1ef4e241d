//! What becomes of objects of our own kinds that cannot be read.

use serde_json::{Value, json};

use super::{Cache, Kind};
use crate::decide::Brake;

fn key(name: &str) -> (String, String) {
    ("shop".into(), name.into())
}

fn meta(name: &str, version: &str, created: &str) -> Value {
    json!({
        "namespace": "shop", "name": name, "uid": format!("uid-{name}"), "resourceVersion": version,
        "creationTimestamp": created,
    })
}

fn rollout(name: &str, version: &str, created: &str) -> Value {
    json!({
        "apiVersion": "belay.dev/v1alpha1", "kind": "Rollout", "metadata": meta(name, version, created),
        "spec": {"workloadRef": {"kind": "Deployment", "name": "web"}},
    })
}

fn release(name: &str, version: &str) -> Value {
    json!({
        "apiVersion": "belay.dev/v1alpha1", "kind": "Release",
        "metadata": meta(name, version, "2026-01-01T00:00:00Z"),
        "spec": {
            "rollout": "web", "workload": {"kind": "Deployment", "name": "web", "uid": "w"}, "replicas": 1,
            "from": {"revision": "a", "replicaSet": "web-a"}, "to": {"revision": "b", "replicaSet": "web-b"},
            "attempt": 1, "steps": [{"weight": 50, "minDuration": "1s", "maxDuration": "1s"}],
            "rollback": {"automatic": true, "restoreTemplate": false}, "progressDeadline": "1s", "plannedLooks": 12,
        },
    })
}

/// With a field of a version that is yet to come.
fn newer(mut object: Value) -> Value {
    object["spec"]["bake"] = json!("1h");
    object
}

/// Both a Rollout and a Release may have this name.
fn cache() -> Cache {
    let mut cache = Cache::default();
    for kind in Kind::ALL {
        cache.begin(kind);
        cache.finish(kind);
    }
    cache.set_brake(Brake::Engaged(crate::api::BrakeForm::Policy));
    cache.put(Kind::Rollouts, &rollout("web", "1", "2026-01-01T00:00:00Z"));
    cache
}

#[test]
fn a_release_that_becomes_unreadable_is_told_and_not_forgotten() {
    let mut cache = cache();
    cache.put(Kind::Releases, &release("web-b", "2"));
    assert_eq!(cache.put(Kind::Releases, &newer(release("web-b", "3"))), [key("web")]);
    let observation = cache.observe(&key("web")).unwrap();
    assert!(observation.releases.is_empty(), "what was read before is out of date");
    assert_eq!(observation.unread.len(), 1);
    let unread = &observation.unread[0];
    assert_eq!((unread.name.as_str(), unread.ended), ("web-b", false));
    assert!(unread.detail.contains("bake"), "{}", unread.detail);
    assert_eq!(cache.unreadable(), (0, 1));

    // A late event of what could be read does not bring it back, and the next readable one does.
    assert!(cache.put(Kind::Releases, &release("web-b", "2")).is_empty());
    assert!(cache.observe(&key("web")).unwrap().releases.is_empty());
    assert_eq!(cache.put(Kind::Releases, &release("web-b", "4")), [key("web")]);
    let observation = cache.observe(&key("web")).unwrap();
    assert_eq!((observation.releases.len(), observation.unread.len()), (1, 0));
    // Nor does a late event of what could not be read.
    assert!(cache.put(Kind::Releases, &newer(release("web-b", "3"))).is_empty());
    assert_eq!(cache.observe(&key("web")).unwrap().releases.len(), 1);
}

#[test]
fn an_unreadable_release_outlives_a_listing_and_goes_when_it_is_deleted() {
    let mut cache = cache();
    let object = newer(release("web-b", "3"));
    cache.put(Kind::Releases, &object);
    cache.begin(Kind::Releases);
    cache.put(Kind::Releases, &object);
    cache.finish(Kind::Releases);
    assert_eq!(cache.unreadable(), (0, 1));
    assert_eq!(cache.remove(Kind::Releases, &object), [key("web")]);
    assert_eq!(cache.unreadable(), (0, 0));
    assert!(cache.put(Kind::Releases, &newer(release("web-b", "2"))).is_empty(), "a late event");
    assert_eq!(cache.unreadable(), (0, 0));
    // Deleted while nobody watched.
    let mut other = newer(release("web-c", "5"));
    cache.put(Kind::Releases, &other);
    cache.begin(Kind::Releases);
    cache.finish(Kind::Releases);
    assert_eq!(cache.unreadable(), (0, 0));
    // Its Rollout is known by its label or its owner when its spec does not say.
    other["spec"] = json!({"of": "web"});
    other["metadata"]["labels"] = json!({"belay.dev/rollout": "web"});
    other["metadata"]["resourceVersion"] = json!("6");
    assert_eq!(cache.put(Kind::Releases, &other), [key("web")]);
    other["metadata"]["labels"] = json!({});
    other["metadata"]["ownerReferences"] = json!([{"kind": "Rollout", "name": "web"}]);
    other["metadata"]["resourceVersion"] = json!("7");
    assert_eq!(cache.put(Kind::Releases, &other), [key("web")]);
}

#[test]
fn a_finished_one_is_told_as_finished() {
    let mut cache = cache();
    let mut object = newer(release("web-b", "3"));
    object["status"] = json!({"phase": "Promoted"});
    cache.put(Kind::Releases, &object);
    assert!(cache.observe(&key("web")).unwrap().unread[0].ended);
    object["status"] = json!({"phase": "Baking"});
    object["metadata"]["resourceVersion"] = json!("4");
    cache.put(Kind::Releases, &object);
    assert!(!cache.observe(&key("web")).unwrap().unread[0].ended);
}

#[test]
fn a_rollout_that_is_mended_is_governed_again() {
    let mut cache = cache();
    let created = "2026-01-01T00:00:00Z";
    cache.put(Kind::Rollouts, &newer(rollout("web", "2", created)));
    assert!(cache.observe(&key("web")).is_none());
    assert_eq!(cache.unreadable(), (1, 0));
    assert_eq!(cache.put(Kind::Rollouts, &rollout("web", "3", created)), [key("web")]);
    assert!(cache.observe(&key("web")).is_some());
    assert_eq!(cache.unreadable(), (0, 0));
}

#[test]
fn an_unreadable_rollout_governs_its_workload_all_the_same() {
    let mut cache = cache();
    cache.put(Kind::Rollouts, &rollout("young", "2", "2026-02-01T00:00:00Z"));
    assert_eq!(cache.observe(&key("young")).unwrap().rival.as_deref(), Some("web"));
    let decide_anew = cache.put(Kind::Rollouts, &newer(rollout("web", "3", "2026-01-01T00:00:00Z")));
    assert_eq!(decide_anew, [key("young")]);
    assert_eq!(cache.observe(&key("young")).unwrap().rival.as_deref(), Some("web"));
    let gone = cache.remove(Kind::Rollouts, &rollout("web", "4", "2026-01-01T00:00:00Z"));
    assert_eq!(gone, [key("young")]);
    assert_eq!(cache.observe(&key("young")).unwrap().rival, None);
}

#[test]
fn a_surge_beyond_all_bounds_is_a_large_one() {
    let mut cache = cache();
    let surge = |percent: &str| {
        json!({
            "metadata": meta("web", "5", "2026-01-01T00:00:00Z"),
            "spec": {"replicas": 7, "strategy": {"rollingUpdate": {"maxSurge": percent}}},
        })
    };
    for (version, (percent, pods)) in
        (5..).zip([("25%", 2), ("100%", 7), ("9223372036854775807%", i32::MAX), ("99999999999999999999%", 0)])
    {
        let mut object = surge(percent);
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        cache.put(Kind::Deployments, &object);
        assert_eq!(cache.observe(&key("web")).unwrap().workload.unwrap().surge, pods, "{percent}");
    }
}

#[test]
fn a_rollout_and_a_release_of_one_name_are_two_things() {
    let mut cache = cache();
    let mut object = newer(release("web", "9"));
    object["metadata"]["uid"] = json!("another");
    cache.put(Kind::Releases, &object);
    cache.put(Kind::Rollouts, &rollout("web", "2", "2026-01-01T00:00:00Z"));
    assert_eq!(cache.observe(&key("web")).unwrap().unread.len(), 1);
}

#[test]
fn a_pod_that_only_its_node_controller_calls_unready_is_told_apart() {
    let pod = |ready: Value, containers: &str| {
        let conditions = json!([ready, {"type": "ContainersReady", "status": containers}]);
        super::views::pod(&json!({"metadata": {"name": "a"}, "status": {"conditions": conditions}}))
    };
    let unready = |reason: Option<&str>| json!({"type": "Ready", "status": "False", "reason": reason});
    assert!(pod(unready(None), "True").disrupted);
    assert!(!pod(unready(Some("ContainersNotReady")), "False").disrupted);
    assert!(!pod(unready(Some("ReadinessGatesNotReady")), "True").disrupted);
    assert!(!pod(json!({"type": "Ready", "status": "True"}), "True").disrupted);
    let bare = super::views::pod(&json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}}));
    assert!(!bare.disrupted, "without ContainersReady nothing speaks for it");
}

#[test]
fn a_template_concerns_the_rollouts_that_name_it() {
    let mut cache = cache();
    let mut named = rollout("web", "2", "2026-01-01T00:00:00Z");
    named["spec"]["analysis"] = json!({
        "metrics": {"pods": {"port": 80}},
        "templates": [{"name": "http"}, {"name": "all", "kind": "ClusterAnalysisTemplate"}],
    });
    cache.put(Kind::Rollouts, &named);
    cache.put(Kind::Rollouts, &rollout("other", "3", "2026-01-01T00:00:00Z"));
    let mut http =
        json!({"metadata": meta("http", "4", "2026-01-01T00:00:00Z"), "spec": {"guards": [{"name": "a"}]}});
    http["metadata"]["generation"] = json!(2);
    assert_eq!(cache.put(Kind::Templates, &http), [key("web")]);
    let mut all = http.clone();
    all["metadata"]["name"] = json!("all");
    all["metadata"]["namespace"] = json!(null);
    all["spec"] = json!({"guards": "none"});
    assert_eq!(cache.put(Kind::ClusterTemplates, &all), [key("web")]);
    let seen = cache.observe(&key("web")).unwrap().templates;
    assert_eq!(
        seen.iter().map(|t| (t.name.as_str(), t.generation)).collect::<Vec<_>>(),
        [("http", 2), ("all", 2)]
    );
    assert!(
        seen[0].spec.is_ok() && seen[1].spec.is_err(),
        "what cannot be read is told apart from what is not there"
    );
    assert!(cache.observe(&key("other")).unwrap().templates.is_empty());
    assert_eq!(cache.remove(Kind::Templates, &http), [key("web")]);
    assert_eq!(cache.observe(&key("web")).unwrap().templates.len(), 1);
}
