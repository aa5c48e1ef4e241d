//! Patches on objects with any labels and annotations: applied, they do exactly what they are for and nothing else.

use belay::decide::{Effect, Identity};
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

const UID: &str = "u~1/x";

fn id(object: &Value) -> Identity {
    let text = |key: &str| object["metadata"][key].as_str().unwrap_or_default().to_owned();
    Identity {
        namespace: text("namespace"),
        name: text("name"),
        uid: text("uid"),
        resource_version: text("resourceVersion"),
    }
}

fn after(effect: &Effect, object: &Value) -> Value {
    let request = belay::act::request(effect, Timestamp::UNIX_EPOCH, "test");
    // As bytes, as the API server gets it.
    let body = request.body.to_string();
    let patch: json_patch::Patch = serde_json::from_str(&body).unwrap();
    let mut object = object.clone();
    json_patch::patch(&mut object, &patch).unwrap_or_else(|e| panic!("{e}: {body}"));
    object
}

/// Labels or annotations: none at all, or any, with keys that need escaping.
fn any_map() -> impl Strategy<Value = Option<Map<String, Value>>> {
    let key = prop_oneof![
        "[a-z~/.]{1,8}",
        Just("belay.dev~1rollout".to_owned()),
        Just("belay.dev/rollout/x".to_owned())
    ];
    prop::option::of(
        prop::collection::vec((key, ".{0,6}".prop_map(Value::from)), 0..4)
            .prop_map(|m| m.into_iter().collect()),
    )
}

fn object(labels: Option<&Map<String, Value>>, annotations: Option<&Map<String, Value>>) -> Value {
    let mut object = json!({
        "metadata": {
            "namespace": "shop", "name": "web", "uid": UID, "resourceVersion": "7", "generation": 3,
            "ownerReferences": [{"kind": "Rollout", "name": "web", "uid": "o~0", "controller": true}],
        },
        "spec": {"paused": true, "replicas": 5, "template": {"a/b": {"~": 1}}},
    });
    if let Some(labels) = labels {
        object["metadata"]["labels"] = json!(labels);
    }
    if let Some(annotations) = annotations {
        object["metadata"]["annotations"] = json!(annotations);
    }
    object
}

proptest! {
    #[test]
    fn labels_of_a_workload(labels in any_map(), name in ".{0,20}") {
        let before = object(labels.as_ref(), None);
        let mut expected = before.clone();
        expected["metadata"]["labels"]["belay.dev/rollout"] = json!(name);
        let mark = Effect::MarkWorkload { workload: id(&before), rollout: name, has_labels: labels.is_some() };
        let marked = after(&mark, &before);
        prop_assert_eq!(&marked, &expected);

        expected["metadata"]["labels"]["belay.dev/release"] = json!("r/1~");
        let hold = Effect::HoldWorkload { workload: id(&before), generation: 3, revision: "r/1~".into(), pause: false };
        let held = after(&hold, &marked);
        prop_assert_eq!(&held, &expected);

        let free = Effect::UnmarkWorkload {
            workload: id(&before), generation: 3, marked: true, held: true, braked: false, unpause: true,
        };
        let mut expected = before;
        expected["spec"].as_object_mut().unwrap().remove("paused");
        if labels.is_none() {
            expected["metadata"]["labels"] = json!({});
        }
        prop_assert_eq!(after(&free, &held), expected);
    }

    #[test]
    fn a_canary_is_stopped_or_let_go(annotations in any_map(), reason in ".{0,40}", replicas in 0..9_i32) {
        let mut before = object(None, annotations.as_ref());
        before["spec"]["replicas"] = json!(replicas);
        before["status"] = json!({"availableReplicas": replicas});
        let has_annotations = annotations.is_some();
        let mut expected = before.clone();
        expected["metadata"]["annotations"]["belay.dev/stopped"] = json!(reason);
        expected["spec"]["replicas"] = json!(0);
        let stop = Effect::StopCanary { replica_set: id(&before), reason, has_annotations, owner_uid: "o~0".into() };
        prop_assert_eq!(after(&stop, &before), expected);

        let mut expected = before.clone();
        expected["metadata"].as_object_mut().unwrap().remove("ownerReferences");
        let notes = &mut expected["metadata"]["annotations"];
        notes["deployment.kubernetes.io/desired-replicas"] = json!(replicas.to_string());
        notes["deployment.kubernetes.io/max-replicas"] = json!((replicas + 2).to_string());
        let go = Effect::HandOver {
            replica_set: id(&before), replicas, max: replicas + 2, has_annotations, owner_uid: "o~0".into(),
        };
        prop_assert_eq!(after(&go, &before), expected);
    }

    #[test]
    fn a_template_is_written_back_whole(template in super::any_json()) {
        let before = object(None, None);
        let mut expected = before.clone();
        expected["spec"] = json!({"replicas": 5, "template": template});
        let restore = Effect::RestoreTemplate {
            workload: id(&before), generation: 3, template, held: false, braked: false, paused: true,
        };
        prop_assert_eq!(after(&restore, &before), expected);
    }

    #[test]
    fn finalizers_of_others_stay(others in prop::collection::vec("[a-z./~]{1,12}", 0..4)) {
        let mut before = object(None, None);
        before["metadata"]["finalizers"] = json!(others);
        let add = Effect::AddFinalizer { rollout: id(&before), present: others.clone() };
        let with = after(&add, &before);
        let now: Vec<String> = serde_json::from_value(with["metadata"]["finalizers"].clone()).unwrap();
        prop_assert_eq!(&now[..others.len()], &others[..]);
        prop_assert_eq!(now.last().map(String::as_str), Some("belay.dev/rope"));
        let remove = Effect::RemoveFinalizer { rollout: id(&before), present: now };
        prop_assert_eq!(after(&remove, &with), before);
    }

    #[test]
    fn a_floor_comes_back_byte_for_byte(
        annotations in any_map(),
        min in prop::option::of(1..9_i32),
        more in 1..9_i32,
    ) {
        let mut before = object(None, annotations.as_ref());
        before["spec"] = json!({"maxReplicas": 99});
        if let Some(min) = min {
            before["spec"]["minReplicas"] = json!(min);
        }
        let floor = min.unwrap_or(1) + more;
        let raise = Effect::HoldFloor { autoscaler: id(&before), min, floor, has_annotations: annotations.is_some() };
        let held = after(&raise, &before);
        prop_assert_eq!(&held["spec"]["minReplicas"], &json!(floor));
        let note = held["metadata"]["annotations"]["belay.dev/held-min-replicas"].as_str().unwrap().to_owned();
        let back = Effect::ReturnFloor { autoscaler: id(&before), held: note, present: Some(floor), min: Some(min) };
        let mut expected = before;
        if annotations.is_none() {
            expected["metadata"]["annotations"] = json!({});
        }
        prop_assert_eq!(after(&back, &held), expected);
    }
}
