//! What each request does to an object, by the JSON Patch library that the API server's behaviour is compared with
//! on the real cluster.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Request, Verb, request};
use crate::cluster::Resource;
use crate::decide::{Effect, Identity};

fn id() -> Identity {
    Identity { namespace: "shop".into(), name: "web".into(), uid: "u1".into(), resource_version: "7".into() }
}

fn lowered(effect: &Effect) -> Request {
    request(effect, Timestamp::UNIX_EPOCH, "test")
}

/// The object after the request, or None when a precondition fails.
fn applied(effect: &Effect, object: &Value) -> Option<Value> {
    let request = lowered(effect);
    assert_eq!(request.verb, Verb::Patch);
    let patch: json_patch::Patch = serde_json::from_value(request.body).unwrap();
    let mut object = object.clone();
    json_patch::patch(&mut object, &patch).is_ok().then_some(object)
}

fn deployment() -> Value {
    json!({
        "metadata": {
            "uid": "u1", "resourceVersion": "7", "generation": 3,
            "labels": {"app": "web", "belay.dev/rollout": "web", "belay.dev/release": "r1", "belay.dev/braked": "true"},
        },
        "spec": {"paused": true, "replicas": 5, "template": {"a": 1}},
    })
}

fn replica_set() -> Value {
    json!({
        "metadata": {
            "uid": "u1", "resourceVersion": "7", "annotations": {"belay.dev/release": "web-r1"},
            "ownerReferences": [{"kind": "Rollout", "name": "web", "uid": "o1", "controller": true}],
        },
        "spec": {"replicas": 5},
        "status": {"replicas": 5, "availableReplicas": 5},
    })
}

#[test]
fn freeing_a_workload_takes_off_the_labels_and_the_pause_together() {
    let effect =
        Effect::FreeWorkload { workload: id(), generation: 3, held: true, braked: true, paused: true };
    let after = applied(&effect, &deployment()).unwrap();
    assert_eq!(after["metadata"]["labels"], json!({"app": "web", "belay.dev/rollout": "web"}));
    assert_eq!(after["spec"], json!({"replicas": 5, "template": {"a": 1}}));
}

#[test]
fn a_workload_whose_spec_changed_meanwhile_is_not_freed() {
    let effect =
        Effect::FreeWorkload { workload: id(), generation: 3, held: true, braked: true, paused: true };
    let mut changed = deployment();
    changed["metadata"]["generation"] = json!(4);
    assert_eq!(applied(&effect, &changed), None);
    let mut another = deployment();
    another["metadata"]["uid"] = json!("u2");
    assert_eq!(applied(&effect, &another), None, "another object of the same name");
}

#[test]
fn only_the_status_of_a_workload_may_change_between_reading_and_writing() {
    let effect = Effect::HoldWorkload { workload: id(), generation: 3, revision: "r2".into(), pause: false };
    let mut later = deployment();
    later["metadata"]["resourceVersion"] = json!("8");
    later["status"] = json!({"replicas": 5});
    let after = applied(&effect, &later).unwrap();
    assert_eq!(after["metadata"]["labels"]["belay.dev/release"], "r2");
}

#[test]
fn stopping_a_canary_needs_nothing_but_that_it_is_ours() {
    let effect = Effect::StopCanary {
        replica_set: id(),
        reason: "Aborted: why".into(),
        has_annotations: true,
        owner_uid: "o1".into(),
    };
    let mut grown = replica_set();
    grown["spec"]["replicas"] = json!(9);
    grown["metadata"]["resourceVersion"] = json!("99");
    let after = applied(&effect, &grown).unwrap();
    assert_eq!(after["spec"]["replicas"], 0);
    assert_eq!(after["metadata"]["annotations"]["belay.dev/stopped"], "Aborted: why");
    assert_eq!(after["metadata"]["annotations"]["belay.dev/release"], "web-r1", "the others stay");
    let mut handed_over = replica_set();
    handed_over["metadata"]["ownerReferences"][0]["uid"] = json!("deployment");
    assert_eq!(applied(&effect, &handed_over), None);
}

#[test]
fn a_handover_lets_go_of_exactly_the_size_that_was_seen() {
    let effect = Effect::HandOver {
        replica_set: id(),
        replicas: 5,
        max: 7,
        has_annotations: true,
        owner_uid: "o1".into(),
    };
    let after = applied(&effect, &replica_set()).unwrap();
    assert!(after["metadata"].get("ownerReferences").is_none());
    let notes = &after["metadata"]["annotations"];
    assert_eq!(notes["deployment.kubernetes.io/desired-replicas"], "5");
    assert_eq!(notes["deployment.kubernetes.io/max-replicas"], "7");
    let mut scaled = replica_set();
    scaled["spec"]["replicas"] = json!(4);
    assert_eq!(applied(&effect, &scaled), None);
    let mut unready = replica_set();
    unready["status"]["availableReplicas"] = json!(4);
    assert_eq!(applied(&effect, &unready), None, "one of its pods is not available any more");
}

#[test]
fn scaling_is_from_the_number_that_was_seen() {
    let effect = Effect::ScaleCanary { replica_set: id(), from: 5, to: 8, owner_uid: "o1".into() };
    assert_eq!(applied(&effect, &replica_set()).unwrap()["spec"]["replicas"], 8);
    let mut scaled = replica_set();
    scaled["spec"]["replicas"] = json!(0);
    assert_eq!(applied(&effect, &scaled), None, "it was stopped meanwhile");
}

#[test]
fn a_floor_goes_back_to_what_it_was_or_to_what_another_writer_asked_for() {
    let before = json!({"metadata": {"uid": "u1", "resourceVersion": "7", "annotations": {"a": "b"}}, "spec": {"minReplicas": 2, "maxReplicas": 9}});
    let raise = Effect::HoldFloor { autoscaler: id(), min: Some(2), floor: 5, has_annotations: true };
    let held = applied(&raise, &before).unwrap();
    assert_eq!(held["spec"]["minReplicas"], 5);
    let note = held["metadata"]["annotations"]["belay.dev/held-min-replicas"].as_str().unwrap().to_owned();
    let back =
        Effect::ReturnFloor { autoscaler: id(), held: note.clone(), present: Some(5), min: Some(Some(2)) };
    assert_eq!(applied(&back, &held).unwrap(), before);
    // Another writer set 3 meanwhile: that stays.
    let mut theirs = held;
    theirs["spec"]["minReplicas"] = json!(3);
    assert_eq!(applied(&back, &theirs), None);
    let leave = Effect::ReturnFloor { autoscaler: id(), held: note, present: Some(3), min: None };
    let after = applied(&leave, &theirs).unwrap();
    assert_eq!(after["spec"]["minReplicas"], 3);
    assert_eq!(after["metadata"]["annotations"], json!({"a": "b"}));
}

#[test]
fn deletions_name_the_uid_and_go_on_in_the_background() {
    let request = lowered(&Effect::DeleteReplicaSet { replica_set: id() });
    assert_eq!((request.verb, request.resource), (Verb::Delete, Resource::ReplicaSets));
    assert_eq!(request.body["preconditions"], json!({"uid": "u1"}));
    assert_eq!(request.body["propagationPolicy"], "Background");
    let http = request.to_http().unwrap();
    assert_eq!(http.uri(), "/apis/apps/v1/namespaces/shop/replicasets/web");
    assert_eq!(http.method(), http::Method::DELETE);
}

#[test]
fn a_status_is_written_only_over_the_version_that_was_read() {
    let effect = Effect::RecordRelease { release: id(), status: Box::default() };
    let request = lowered(&effect);
    assert!(request.status);
    let http = request.to_http().unwrap();
    assert_eq!(http.uri(), "/apis/belay.dev/v1alpha1/namespaces/shop/releases/web/status?fieldManager=belay");
    assert_eq!(http.headers()["content-type"], "application/json-patch+json");
    let object = |version: &str| json!({"metadata": {"uid": "u1", "resourceVersion": version}});
    assert!(applied(&effect, &object("7")).is_some());
    assert_eq!(applied(&effect, &object("8")), None);
}

mod sending {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use axum::Router;
    use tokio::sync::watch;

    use super::*;
    use crate::act::{ActError, Fence, Hold, Outcome, send};
    use crate::clock::monotonic;

    /// An API server that answers after a time, and how many requests reached it.
    fn server(after: Duration) -> (kube::Client, Arc<AtomicU32>) {
        let reached = Arc::new(AtomicU32::new(0));
        let count = reached.clone();
        let router = Router::new().fallback(async move || {
            count.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(after).await;
            r#"{"kind": "ReplicaSet"}"#
        });
        (kube::Client::new(router, "default"), reached)
    }

    fn tenure(epoch: u64, left: Duration) -> Hold {
        let sent = monotonic();
        Hold { epoch, sent, deadline: sent + left }
    }

    const LONG: Duration = Duration::from_secs(3600);

    async fn sent(client: &kube::Client, fence: &Fence) -> Result<Outcome, ActError> {
        let effect = Effect::DeleteReplicaSet { replica_set: id() };
        send(client, &effect, Timestamp::UNIX_EPOCH, "test", fence).await
    }

    #[tokio::test]
    async fn a_write_goes_out_while_the_fence_stands() {
        let (client, reached) = server(Duration::ZERO);
        let (_sender, hold) = watch::channel(Some(tenure(1, LONG)));
        let done = sent(&client, &Fence::new(1, hold)).await.unwrap();
        assert!(matches!(done, Outcome::Done(Some(object)) if object["kind"] == "ReplicaSet"));
        assert_eq!(reached.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn nothing_is_sent_after_it_fell_or_in_another_tenure() {
        let (client, reached) = server(Duration::ZERO);
        for (hold, epoch) in [(None, 1), (Some(tenure(1, Duration::ZERO)), 1), (Some(tenure(2, LONG)), 1)] {
            let (_sender, hold) = watch::channel(hold);
            assert!(matches!(sent(&client, &Fence::new(epoch, hold)).await, Err(ActError::Fenced)));
        }
        assert_eq!(reached.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn a_write_under_way_is_given_up_when_it_falls_and_not_when_it_is_renewed() {
        let (client, reached) = server(LONG);
        let (sender, hold) = watch::channel(Some(tenure(1, LONG)));
        let fence = Fence::new(1, hold);
        let write = tokio::spawn(async move { sent(&client, &fence).await });
        while reached.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        sender.send_replace(Some(tenure(1, LONG + LONG)));
        tokio::task::yield_now().await;
        assert!(!write.is_finished());
        sender.send_replace(None);
        assert!(matches!(write.await.unwrap(), Err(ActError::GivenUp)));
    }
}
