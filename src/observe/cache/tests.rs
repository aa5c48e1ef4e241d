//! What is kept of ReplicaSets without pods.

use serde_json::json;

use super::*;

fn replica_set(name: &str, replicas: i32, version: &str) -> Value {
    json!({
        "metadata": {
            "namespace": "shop", "name": name, "uid": name, "resourceVersion": version,
            "ownerReferences": [{"kind": "Deployment", "name": "web", "uid": "d", "controller": true}],
        },
        "spec": {"replicas": replicas, "template": {"spec": {"containers": [{"image": name}]}}},
    })
}

fn rollout(stable: &str, version: &str) -> Value {
    json!({
        "apiVersion": "belay.dev/v1alpha1", "kind": "Rollout",
        "metadata": {"namespace": "shop", "name": "web", "uid": "r", "resourceVersion": version},
        "spec": {"workloadRef": {"kind": "Deployment", "name": "web"}},
        "status": {"stable": {"revision": stable, "replicaSet": stable}},
    })
}

/// Names of the ReplicaSets whose template is known.
fn with_template(cache: &Cache) -> Vec<&str> {
    cache.replica_sets.all().filter(|(_, rs)| rs.template.is_some()).map(|((_, n), _)| n.as_str()).collect()
}

#[test]
fn of_replica_sets_without_pods_only_the_stable_one_keeps_its_template() {
    let mut cache = Cache::default();
    // Listed before the Rollouts are: nothing is dropped until it is known what is stable.
    for (name, replicas) in [("a", 0), ("b", 0), ("c", 3)] {
        cache.put(Kind::ReplicaSets, &replica_set(name, replicas, "1"));
    }
    assert_eq!(with_template(&cache), ["a", "b", "c"]);
    cache.begin(Kind::Rollouts);
    cache.put(Kind::Rollouts, &rollout("b", "2"));
    cache.finish(Kind::Rollouts);
    assert_eq!(with_template(&cache), ["b", "c"]);
    // The pods of the stable one go: it may have to come back.
    cache.put(Kind::ReplicaSets, &replica_set("b", 0, "3"));
    cache.put(Kind::ReplicaSets, &replica_set("a", 0, "4"));
    assert_eq!(with_template(&cache), ["b", "c"]);
    // Another one is stable. It may turn out not to be; the old one is history when it is next heard of.
    cache.put(Kind::Rollouts, &rollout("c", "5"));
    assert_eq!(with_template(&cache), ["b", "c"]);
    cache.put(Kind::ReplicaSets, &replica_set("b", 0, "6"));
    assert_eq!(with_template(&cache), ["c"]);
}
