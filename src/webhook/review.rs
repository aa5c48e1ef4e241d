//! One question of the API server, and its answer.
//!
//! Purpose: `AdmissionReview` in, `AdmissionReview` with a JSON Patch out, by the rules of [`crate::install::brake`],
//! [`crate::install::stamp`] and [`crate::install::hold`]. What cannot be read is refused with the reason.
//! May touch: JSON. Must never: do I/O, hold a rule itself, or panic on any input.

use json_patch::jsonptr::PointerBuf;
use json_patch::{Patch, PatchOperation, ReplaceOperation};
use k8s_openapi::ByteString;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api;
use crate::install::hold::Held;
use crate::install::webhook::{BRAKE_PATH, HOLD_PATH, STAMP_PATH};
use crate::install::{ANSWERED, ASKED, brake, hold, stamp};

/// What is sent back.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// An `AdmissionReview`: the patch, or a refusal.
    Review(Value),
    /// It is not even known which question that was; why.
    Unreadable(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    kind: Kind,
    operation: String,
    user_info: UserInfo,
    #[serde(default)]
    object: Value,
    #[serde(default)]
    old_object: Value,
}

#[derive(Deserialize)]
struct Kind {
    group: String,
    kind: String,
}

#[derive(Deserialize)]
struct UserInfo {
    username: String,
}

/// Answers the request with this body to this path.
pub fn answer(path: &str, operator_user: &str, body: &[u8]) -> Answer {
    let mut review: Value = match serde_json::from_slice(body) {
        Ok(review) => review,
        Err(error) => return Answer::Unreadable(format!("not JSON: {error}")),
    };
    if review["apiVersion"] != "admission.k8s.io/v1" || review["kind"] != "AdmissionReview" {
        return Answer::Unreadable("not an AdmissionReview of admission.k8s.io/v1".to_owned());
    }
    let request = review.get_mut("request").map(Value::take).unwrap_or_default();
    let Some(uid) = request["uid"].as_str().filter(|uid| !uid.is_empty()).map(str::to_owned) else {
        return Answer::Unreadable("the AdmissionReview has no request with a uid".to_owned());
    };
    let response = match judged(path, operator_user, request) {
        Ok(changes) if changes.0.is_empty() => json!({"uid": uid, "allowed": true}),
        Ok(changes) => {
            let coded = ByteString(json!(changes).to_string().into_bytes());
            json!({"uid": uid, "allowed": true, "patchType": "JSONPatch", "patch": coded})
        }
        Err(why) => {
            json!({"uid": uid, "allowed": false, "status": {"code": 400, "reason": "BadRequest", "message": why}})
        }
    };
    Answer::Review(
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}),
    )
}

/// What a question is judged by.
enum Rules {
    Brake,
    Stamp,
    Hold(Held),
}

fn rules(path: &str, kind: &Kind) -> Result<Rules, String> {
    let Kind { group, kind } = kind;
    let found = match path {
        BRAKE_PATH => (group == "apps" && kind == "Deployment").then_some(Rules::Brake),
        STAMP_PATH => (group == api::GROUP && kind == "Release").then_some(Rules::Stamp),
        HOLD_PATH => {
            hold::kinds().into_iter().find(|held| held.group == group && held.kind == kind).map(Rules::Hold)
        }
        _ => return Err(format!("belay has no answer at {path}; run belay install")),
    };
    found.ok_or_else(|| format!("belay judges other kinds at {path}, not {kind}.{group}; run belay install"))
}

fn judged(path: &str, operator_user: &str, request: Value) -> Result<Patch, String> {
    let request: Request =
        serde_json::from_value(request).map_err(|e| format!("belay cannot read this request: {e}"))?;
    let rules = rules(path, &request.kind)?;
    let user = &request.user_info.username;
    let whole = |object: &Value, what: &str| {
        if object.is_object() {
            Ok(())
        } else {
            Err(format!("belay cannot read this request: it has no {what}"))
        }
    };
    let (old, new) = (&request.old_object, &request.object);
    let update = request.operation == "UPDATE";
    if update {
        whole(old, "oldObject")?;
    }
    if update || request.operation == "CREATE" {
        whole(new, "object")?;
    }
    let mut changes = match rules {
        Rules::Brake if update => brake::patch(operator_user, user, old, new),
        Rules::Hold(held) if update => hold::patch(&held, operator_user, user, old, new),
        Rules::Stamp if update => stamp::patch(user, Some(old), new),
        Rules::Stamp if request.operation == "CREATE" => stamp::patch(user, None, new),
        // What is created or deleted is not judged.
        _ => Patch(Vec::new()),
    };
    if request.object["metadata"]["annotations"].get(ASKED).is_some() {
        let path = PointerBuf::from_tokens(["metadata", "annotations", ASKED]);
        changes.0.push(PatchOperation::Replace(ReplaceOperation { path, value: ANSWERED.into() }));
    }
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{BRAKED_LABEL, HELD_WRITES_ANNOTATION, OPERATOR_USER, RELEASE_LABEL, ROLLOUT_LABEL};
    use proptest::prelude::*;

    fn deployment(image: &str) -> Value {
        json!({
            "metadata": {"labels": {ROLLOUT_LABEL: "web"}},
            "spec": {"template": {"spec": {"containers": [{"image": image}]}}},
        })
    }

    fn question(kind: (&str, &str), operation: &str, user: &str, old: &Value, new: &Value) -> Value {
        json!({
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": {
                "uid": "1-2-3",
                "kind": {"group": kind.0, "version": "v1", "kind": kind.1},
                "operation": operation,
                "userInfo": {"username": user, "groups": ["system:authenticated"]},
                "object": new,
                "oldObject": old,
            },
        })
    }

    fn brake(question: &Value) -> Value {
        response(BRAKE_PATH, question)
    }

    fn response(path: &str, question: &Value) -> Value {
        match answer(path, OPERATOR_USER, question.to_string().as_bytes()) {
            Answer::Review(review) => review["response"].clone(),
            Answer::Unreadable(why) => panic!("{why}"),
        }
    }

    /// The object after the write, as the API server makes it of the answer.
    fn patched(response: &Value, object: &Value) -> Value {
        let patch: ByteString = serde_json::from_value(response["patch"].clone()).unwrap();
        let mut result = object.clone();
        let patch: Patch = serde_json::from_slice(&patch.0).unwrap();
        json_patch::patch(&mut result, &patch).unwrap();
        result
    }

    #[test]
    fn a_changed_template_is_braked() {
        let (old, new) = (deployment("a"), deployment("b"));
        let response = brake(&question(("apps", "Deployment"), "UPDATE", "alice", &old, &new));
        assert_eq!(response["allowed"], true);
        assert_eq!(response["uid"], "1-2-3");
        assert_eq!(response["patchType"], "JSONPatch");
        let after = patched(&response, &new);
        assert_eq!(after["spec"]["paused"], true);
        assert_eq!(after["metadata"]["labels"][BRAKED_LABEL], "true");
    }

    #[test]
    fn the_operator_and_creations_pass_untouched() {
        let (old, new) = (deployment("a"), deployment("b"));
        for (operation, user, old) in [("UPDATE", OPERATOR_USER, &old), ("CREATE", "alice", &Value::Null)] {
            let response = brake(&question(("apps", "Deployment"), operation, user, old, &new));
            assert_eq!(response, json!({"uid": "1-2-3", "allowed": true}));
        }
    }

    #[test]
    fn a_command_bears_the_name_of_its_user() {
        let new = json!({"spec": {"commands": [{"verb": "abort", "by": "bob"}]}});
        let asked = question((api::GROUP, "Release"), "CREATE", "alice", &Value::Null, &new);
        let response = response(STAMP_PATH, &asked);
        assert_eq!(patched(&response, &new)["spec"]["commands"][0]["by"], "alice");
    }

    #[test]
    fn what_a_release_borrowed_is_held_whatever_its_kind() {
        for (kind, part) in [
            (("", "Service"), "selector"),
            (("gateway.networking.k8s.io", "HTTPRoute"), "rules"),
            (("networking.istio.io", "VirtualService"), "http"),
        ] {
            let labels = json!({RELEASE_LABEL: "web-1"});
            let old = json!({"metadata": {"labels": labels}, "spec": {part: {"a": "b"}}});
            let new = json!({"metadata": {}, "spec": {part: {"a": "c"}, "ports": []}});
            let response = response(HOLD_PATH, &question(kind, "UPDATE", "alice", &old, &new));
            let held = json!({
                "metadata": {"labels": labels, "annotations": {HELD_WRITES_ANNOTATION: "1"}},
                "spec": {part: {"a": "b"}, "ports": []},
            });
            assert_eq!(patched(&response, &new), held, "{kind:?}");
        }
    }

    #[test]
    fn who_asks_whether_it_is_there_is_told() {
        let mut new = deployment("b");
        new["metadata"]["annotations"] = json!({ASKED: "webhook"});
        let response = brake(&question(("apps", "Deployment"), "UPDATE", "alice", &deployment("a"), &new));
        assert_eq!(patched(&response, &new)["metadata"]["annotations"][ASKED], ANSWERED);
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_the_reason() {
        let d = deployment("a");
        let whole = question(("apps", "Deployment"), "UPDATE", "alice", &d, &d);
        let without = |field: &str| {
            let mut less = whole.clone();
            less["request"].as_object_mut().unwrap().remove(field);
            less
        };
        let other = question(("apps", "StatefulSet"), "UPDATE", "alice", &d, &d);
        for (asked, words) in [
            (without("object"), "no object"),
            (without("oldObject"), "no oldObject"),
            (without("userInfo"), "missing field `userInfo`"),
            (other.clone(), "not StatefulSet.apps; run belay install"),
        ] {
            let response = brake(&asked);
            assert_eq!(response["allowed"], false);
            assert_eq!(response["uid"], "1-2-3");
            let message = response["status"]["message"].as_str().unwrap();
            assert!(message.contains(words), "{message}");
        }
        assert_eq!(response("/elsewhere", &whole)["allowed"], false);
        for path in [STAMP_PATH, HOLD_PATH] {
            assert_eq!(response(path, &other)["allowed"], false);
        }
        for body in ["", "{", "[]", "null", "{\"kind\": \"AdmissionReview\"}", "\u{fffd}"] {
            assert!(
                matches!(answer(BRAKE_PATH, OPERATOR_USER, body.as_bytes()), Answer::Unreadable(_)),
                "{body}"
            );
        }
        assert!(matches!(answer(BRAKE_PATH, OPERATOR_USER, &[0xff, 0xfe]), Answer::Unreadable(_)));
        let deep = "[".repeat(100_000);
        assert!(matches!(answer(BRAKE_PATH, OPERATOR_USER, deep.as_bytes()), Answer::Unreadable(_)));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a-z]{0,8}".prop_map(Value::from),
        ];
        let name = prop_oneof![
            Just("metadata".to_owned()),
            Just("labels".to_owned()),
            Just("spec".to_owned()),
            Just("template".to_owned()),
            Just("paused".to_owned()),
            Just("commands".to_owned()),
            Just("annotations".to_owned()),
            Just("selector".to_owned()),
            Just(RELEASE_LABEL.to_owned()),
            Just(HELD_WRITES_ANNOTATION.to_owned()),
            Just(ROLLOUT_LABEL.to_owned()),
            Just(BRAKED_LABEL.to_owned()),
            "[a-z]{1,4}",
        ];
        leaf.prop_recursive(4, 32, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(name.clone(), inner, 0..5)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_question_with_a_uid_is_answered(old in any_json(), new in any_json(), create in any::<bool>()) {
            let operation = if create { "CREATE" } else { "UPDATE" };
            for (path, kind) in [
                (BRAKE_PATH, ("apps", "Deployment")),
                (STAMP_PATH, (api::GROUP, "Release")),
                (HOLD_PATH, ("", "Service")),
                (HOLD_PATH, ("networking.k8s.io", "Ingress")),
            ] {
                let response = response(path, &question(kind, operation, "alice", &old, &new));
                prop_assert_eq!(&response["uid"], "1-2-3");
                prop_assert!(response["allowed"].is_boolean());
            }
        }
    }
}
