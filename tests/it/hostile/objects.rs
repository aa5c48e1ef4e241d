//! Hostile objects of every kind that is watched: taken in, observed, decided on and lowered to requests.

use belay::api::evidence::{Counts, Look, Looks};
use belay::decide::{Brake, decide};
use belay::observe::{Cache, Kind};
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Change, any_changes, any_json, changed};

/// Two recorded looks, packed as they are in a status.
fn looks() -> Value {
    let counts = |stable_bad| Counts { canary_bad: 0.0, canary_total: 10.0, stable_bad, stable_total: 20.0 };
    let looks = vec![Look::of(1.0, counts(0.0)), Look { dispersion: 1.5, ..Look::of(2.0, counts(1.0)) }];
    serde_json::to_value(Looks::from(looks)).unwrap()
}

fn meta(name: &str, uid: &str) -> Value {
    json!({
        "namespace": "shop", "name": name, "uid": uid, "resourceVersion": "5", "generation": 2,
        "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"app": "web"}, "annotations": {"a": "b"},
    })
}

fn owned(mut meta: Value, kind: &str, name: &str, uid: &str) -> Value {
    meta["ownerReferences"] =
        json!([{"apiVersion": "x/v1", "kind": kind, "name": name, "uid": uid, "controller": true}]);
    meta
}

fn template(version: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "app", "image": "web:1", "env": [{"name": "V", "value": version}]}]},
    })
}

/// A release at its second step, with guards and evidence.
#[expect(clippy::too_many_lines, reason = "objects as they are read best in one piece")]
fn scene() -> Vec<(Kind, Value)> {
    let (stable, next) = (belay::decide::revision(&template("1")), belay::decide::revision(&template("2")));
    let (old, new) = (format!("web-{stable}"), format!("web-{next}"));
    let counter = json!({"metric": "http_requests_total", "match": "code=~\"5..\""});
    let analysis = json!({
        "interval": "1s", "warmUp": "1s", "confidence": "fast", "onInconclusive": "hold", "maxRestarts": 1,
        "onNoData": {"action": "hold", "after": "30m", "then": "rollback"}, "metrics": {"pods": {"port": 8080}},
        "guards": [{"name": "errors", "ratio": {"bad": counter, "total": {"metric": "http_requests_total"}, "tolerate": "1.2x + 0.1%"}},
            {"name": "smoke", "web": {"url": "http://web/{{release}}", "jsonPath": "$.a", "condition": "result == 1", "headers": [{"name": "A", "value": "b"}]}},
            {"name": "all", "cel": {"condition": "guards.errors.ratio < 2.0 && checks.smoke.passed > 0", "failureLimit": 1}},
            {"name": "gate", "job": {"template": {"containers": [{"name": "a", "image": "b", "env": [{"name": "A", "value": "b"}]}], "initContainers": []}, "deadline": "1m"}},
        ],
    });
    let mut workload = meta("web", "w");
    workload["labels"] = json!({"app": "web", "belay.dev/rollout": "web", "belay.dev/release": next});
    let mut rollout = meta("web", "r");
    rollout["finalizers"] = json!(["belay.dev/rope"]);
    let mut canary = owned(meta(&new, "c"), "Rollout", "web", "r");
    canary["annotations"] =
        json!({"belay.dev/release": new, "deployment.kubernetes.io/desired-replicas": "1"});
    let spec = |n: i32, version: &str| json!({"replicas": n, "selector": {"matchLabels": {"app": "web"}}, "template": template(version)});
    let pod = |name: &str, set: &str, uid: &str| {
        json!({
            "metadata": owned(meta(name, name), "ReplicaSet", set, uid),
            "status": {
                "phase": "Running", "podIP": "10.0.0.9", "startTime": "2026-01-01T00:00:00Z",
                "conditions": [
                    {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:05Z"},
                    {"type": "PodScheduled", "status": "True"},
                ],
                "containerStatuses": [{"name": "app", "restartCount": 0, "state": {"running": {}}, "lastState": {"terminated": {"reason": "Completed", "exitCode": 0}}}],
            },
        })
    };
    vec![
        (
            Kind::Rollouts,
            json!({
                "apiVersion": "belay.dev/v1alpha1", "kind": "Rollout", "metadata": rollout,
                "spec": {
                    "workloadRef": {"kind": "Deployment", "name": "web"}, "owner": {"team": "shop"},
                    "strategy": {"canary": {"steps": [{"weight": 10, "minDuration": "1s"}, {"weight": 50, "pause": true}]}},
                    "analysis": analysis, "rollback": {"automatic": true, "restoreTemplate": true}, "progressDeadline": "10m",
                },
                "status": {
                    "observedGeneration": 2, "phase": "Releasing", "stable": {"revision": stable, "replicaSet": old},
                    "vetoed": [{"revision": "x", "release": "web-x", "reason": "Aborted", "at": "2026-01-01T00:00:00.000000Z"}],
                    "conditions": [{"type": "Ready", "status": "True", "reason": "Governed", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
                },
            }),
        ),
        (
            Kind::Releases,
            json!({
                "apiVersion": "belay.dev/v1alpha1", "kind": "Release", "metadata": owned(meta(&new, "l"), "Rollout", "web", "r"),
                "spec": {
                    "rollout": "web", "workload": {"kind": "Deployment", "name": "web", "uid": "w"}, "replicas": 2,
                    "from": {"revision": stable, "replicaSet": old}, "to": {"revision": next, "replicaSet": new},
                    "attempt": 1, "plannedLooks": 12, "progressDeadline": "10m", "analysis": analysis,
                    "rollback": {"automatic": true, "restoreTemplate": true},
                    "steps": [{"weight": 10, "minDuration": "1s", "maxDuration": "5m"}, {"weight": 50, "minDuration": "1s", "maxDuration": "5m"}],
                    "commands": [{"verb": "pause", "by": "alice"}],
                },
                "status": {
                    "phase": "Progressing", "reason": "StepTime", "message": "healthy", "progress": "1/2", "paused": false,
                    "step": {"index": 0, "enteredAt": "2026-01-01T00:00:04.000000Z", "elapsedSeconds": 1.5, "runningSince": "2026-01-01T00:00:05.000000Z"},
                    "weight": {"desired": 10, "reachable": 33, "reached": 33, "canaryPods": 1, "stablePods": 2},
                    "startedAt": "2026-01-01T00:00:04.000000Z", "longestStableUnreadySeconds": 0.5,
                    "analysis": {
                        "looks": 3, "firstLookAt": "2026-01-01T00:00:06.000000Z", "lastLookAt": "2026-01-01T00:00:08.000000Z",
                        "guards": [{
                            "name": "errors", "looks": 3, "strict": 1.0, "margin": 1.0, "safe": 2.0,
                            "streams": [{
                                "totals": {"canaryBad": 0, "canaryTotal": 30, "stableBad": 1, "stableTotal": 60},
                                "dispersion": {"squares": 1.0, "freedom": 1.0},
                            }],
                            "stablePods": {"s1": [30, 1]},
                            "counters": {"c1": {"bad": {}, "total": {"AAAAAAAAAAA": 30}}}, "recent": looks(),
                        }, {
                            "name": "smoke", "looks": 2,
                            "checks": {"passed": 1, "failed": 0, "passedInStep": 1, "last": true, "lastAt": "2026-01-01T00:00:08.000000Z", "lastResult": "status 200"},
                        }],
                    },
                    "timeline": [{"at": "2026-01-01T00:00:04.000000Z", "reason": "ReleaseStarted", "step": 1, "message": "starts"}],
                },
            }),
        ),
        (
            Kind::Deployments,
            json!({
                "metadata": workload,
                "spec": {
                    "replicas": 2, "paused": true, "selector": {"matchLabels": {"app": "web"}}, "template": template("2"),
                    "progressDeadlineSeconds": 600, "minReadySeconds": 0, "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%"}},
                },
                "status": {"observedGeneration": 2, "replicas": 2, "updatedReplicas": 0, "availableReplicas": 2},
            }),
        ),
        (
            Kind::ReplicaSets,
            json!({"metadata": owned(meta(&old, "s"), "Deployment", "web", "w"), "spec": spec(2, "1"), "status": {"replicas": 2, "availableReplicas": 2}}),
        ),
        (
            Kind::ReplicaSets,
            json!({"metadata": canary, "spec": spec(1, "2"), "status": {"replicas": 1, "availableReplicas": 1, "conditions": []}}),
        ),
        (Kind::Pods, pod("s1", &old, "s")),
        (Kind::Pods, pod("s2", &old, "s")),
        (Kind::Pods, pod("c1", &new, "c")),
        (
            Kind::Jobs,
            json!({
                "metadata": {
                    "namespace": "shop", "name": "gate", "uid": "j", "resourceVersion": "5", "creationTimestamp": "2026-01-01T00:00:05Z",
                    "labels": {"belay.dev/guard": "gate"}, "annotations": {"belay.dev/run": "1"},
                    "ownerReferences": [{"kind": "Release", "name": new, "uid": "l", "controller": true}],
                },
                "status": {"conditions": [{"type": "Failed", "status": "True", "reason": "DeadlineExceeded", "message": "late"}]},
            }),
        ),
        (
            Kind::Autoscalers,
            json!({"metadata": meta("web", "h"), "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "web"}, "minReplicas": 1, "maxReplicas": 9}}),
        ),
    ]
}

fn fresh() -> Cache {
    let mut cache = Cache::default();
    for kind in Kind::ALL {
        cache.begin(kind);
        cache.finish(kind);
    }
    cache.set_brake(Brake::Engaged(belay::api::BrakeForm::Policy));
    cache
}

/// Decides on every Rollout that is known, as the operator does; returns the names of all effects.
fn decide_all(cache: &Cache, now: Timestamp) -> Vec<&'static str> {
    let mut names = Vec::new();
    for key in cache.keys() {
        let Some(observation) = cache.observe(&key) else { continue };
        for effect in decide(&observation, now).effects {
            let request = belay::act::request(&effect, now, "test");
            assert!(
                request.body.is_array() || request.body.is_object() || request.verb == belay::act::Verb::Read
            );
            // An address that cannot be made is an error, not a panic.
            drop(request.to_http());
            names.push(effect.name());
        }
    }
    names
}

fn at(second: i64) -> Timestamp {
    "2026-01-01T00:00:09Z".parse::<Timestamp>().unwrap() + jiff::SignedDuration::from_secs(second)
}

#[test]
fn the_scene_is_a_release_on_its_way() {
    let mut cache = fresh();
    for (kind, object) in scene() {
        cache.put(kind, &object);
    }
    assert_eq!(cache.unreadable(), (0, 0));
    assert_eq!(decide_all(&cache, at(0)), ["HoldFloor", "RecordRelease", "Announce"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_json_of_any_kind_is_taken_or_left(objects in prop::collection::vec((any_json(), 0..6_usize), 0..6)) {
        let mut cache = fresh();
        for (object, kind) in &objects {
            cache.put(Kind::ALL[*kind], object);
        }
        decide_all(&cache, at(0));
        for (object, kind) in &objects {
            cache.remove(Kind::ALL[*kind], object);
        }
    }

    #[test]
    fn a_release_among_broken_objects_is_decided_without_panic(
        changes in prop::collection::vec((0..10_usize, any_changes()), 1..4),
        seconds in prop::sample::select(vec![0, 1, 600, -600, 1_000_000_000]),
    ) {
        let mut scene = scene();
        for (object, changes) in &changes {
            scene[*object].1 = changed(&scene[*object].1, changes);
        }
        let mut cache = fresh();
        for (kind, object) in &scene {
            cache.put(*kind, object);
        }
        decide_all(&cache, at(seconds));
        // Another listing in the other order, with one of them gone.
        for kind in Kind::ALL {
            cache.begin(kind);
        }
        for (kind, object) in scene.iter().rev().skip(1) {
            cache.put(*kind, object);
        }
        for kind in Kind::ALL {
            cache.finish(kind);
        }
        decide_all(&cache, at(seconds));
    }

    #[test]
    fn what_can_be_read_is_written_back_as_it_was(changes in any_changes()) {
        let changes: &[Change] = &changes;
        for (kind, object) in scene() {
            let object = changed(&object, changes);
            // What was read and is written again must not lose what was understood: it reads the same.
            match kind {
                Kind::Rollouts => same_again::<belay::api::Rollout>(&object),
                Kind::Releases => same_again::<belay::api::Release>(&object),
                _ => {}
            }
        }
    }
}

fn same_again<T: serde::de::DeserializeOwned + serde::Serialize + PartialEq + std::fmt::Debug>(
    object: &Value,
) {
    if let Ok(read) = serde_json::from_value::<T>(object.clone()) {
        let written = serde_json::to_value(&read).unwrap();
        assert_eq!(serde_json::from_value::<T>(written).unwrap(), read);
    }
}
