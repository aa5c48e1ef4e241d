//! The rules of the brake, in CEL and in Rust, side by side.
//!
//! Purpose: the one place that says which write is braked and what the brake does to it. The admission
//! policy is built from the CEL; [`patch`] is the same rules as a function, for the webhook on servers without
//! the policy and for simulators. The tests feed both the same writes on a real API server.
//! May touch: [`crate::api`] and JSON. Must never: do I/O.
//!
//! A write is judged when it updates a Deployment that carried the label `belay.dev/rollout` before it, and
//! does not come from Belay's own account. The subresources `scale` and `status` are never judged. Then:
//!
//! 1. It is braked (`spec.paused: true`) if it changes the pod template; or a release is under way (the label
//!    `belay.dev/release`); or an earlier change still stands braked: the label `belay.dev/braked` on a paused
//!    Deployment. Without that last one, a second write of the same manifest that says `paused: false`, or a
//!    `replace` that says nothing about it, would let out what the first one was stopped for.
//! 2. `belay.dev/rollout` and `belay.dev/release` stay as they were; `belay.dev/release` cannot be added.
//! 3. `belay.dev/braked` is on it exactly when a change stands braked. Belay need not take it off: once Belay
//!    has unpaused the Deployment the label means nothing, and the next write removes it.
//!
//! All else passes: `kubectl rollout pause` and `resume` at rest, scaling, labels, annotations, strategy.

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, Patch, PatchOperation, RemoveOperation};
use serde_json::{Value, json};

use crate::api::{BRAKED_LABEL, RELEASE_LABEL, ROLLOUT_LABEL};

/// A named CEL expression, and what it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression {
    /// Its name.
    pub name: &'static str,
    /// The expression.
    pub cel: String,
    /// What it says, for people.
    pub meaning: &'static str,
}

/// When the brake looks at a write at all.
pub fn conditions(operator_user: &str) -> Vec<Expression> {
    vec![
        Expression {
            name: "not-belay",
            cel: format!("request.userInfo.username != {}", cel_string(operator_user)),
            meaning: "the write is not Belay's own",
        },
        Expression {
            name: "governed",
            cel: format!("has(oldObject.metadata.labels) && '{ROLLOUT_LABEL}' in oldObject.metadata.labels"),
            meaning: "the Deployment was governed by a Rollout before the write",
        },
    ]
}

const CHANGED: &str = "object.spec.template != oldObject.spec.template";

fn released_cel() -> String {
    format!("'{RELEASE_LABEL}' in oldObject.metadata.labels")
}

fn stopped_cel() -> String {
    format!(
        "'{BRAKED_LABEL}' in oldObject.metadata.labels && has(oldObject.spec.paused) && oldObject.spec.paused"
    )
}

/// When the API server calls the webhook: [`conditions`], and the brake would make something else of the write.
/// All other writes, those during a release included, do not need Belay to run.
///
/// A webhook has no variables, so the same expressions stand here within each other.
pub fn calls(operator_user: &str) -> Vec<Expression> {
    let (released, stopped) = (released_cel(), stopped_cel());
    let marked = format!("({CHANGED} || ({stopped}))");
    let labels = "object.metadata.labels";
    let cel = [
        format!("(({marked} || {released}) && !(has(object.spec.paused) && object.spec.paused))"),
        format!("!has({labels})"),
        format!(
            "['{ROLLOUT_LABEL}', '{RELEASE_LABEL}'].exists(l, l in oldObject.metadata.labels && \
             (!(l in {labels}) || {labels}[l] != oldObject.metadata.labels[l]))"
        ),
        format!("(!({released}) && '{RELEASE_LABEL}' in {labels})"),
        format!(
            "({marked} ? !('{BRAKED_LABEL}' in {labels} && {labels}['{BRAKED_LABEL}'] == 'true') : \
             '{BRAKED_LABEL}' in {labels})"
        ),
        super::probe::asked_cel(),
    ];
    let mut all = conditions(operator_user);
    all.push(Expression {
        name: "needed",
        cel: cel.join("\n|| "),
        meaning: "the brake makes something else of the write, or is to show that it is there",
    });
    all
}

/// What the brake knows about a write.
pub fn variables() -> Vec<Expression> {
    let expression = |name, cel: String, meaning| Expression { name, cel, meaning };
    vec![
        expression("changed", CHANGED.to_owned(), "the write changes the pod template"),
        expression("released", released_cel(), "a release is under way"),
        expression("stopped", stopped_cel(), "an earlier change still stands braked"),
        expression("marked", "variables.changed || variables.stopped".to_owned(), "a change stands braked"),
        expression(
            "foreign",
            format!(
                "!has(object.metadata.labels) ? [] : object.metadata.labels.filter(l, \
                 (l == '{BRAKED_LABEL}' && !variables.marked) || (l == '{RELEASE_LABEL}' && !variables.released))"
            ),
            "labels of Belay's that nobody else may add, or that mean nothing any more",
        ),
    ]
}

/// What the brake does: an array of JSON Patch operations.
pub fn patch_cel() -> String {
    [
        "(has(object.metadata.labels) ? [] : \
         [JSONPatch{op: 'add', path: '/metadata/labels', value: Object.metadata.labels{}}])"
            .to_owned(),
        "(variables.marked || variables.released ? [JSONPatch{op: 'add', path: '/spec/paused', value: true}] : [])"
            .to_owned(),
        format!(
            "oldObject.metadata.labels.filter(l, l in ['{ROLLOUT_LABEL}', '{RELEASE_LABEL}'])\
             .map(l, JSONPatch{{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey(l), \
             value: oldObject.metadata.labels[l]}})"
        ),
        format!(
            "(variables.marked ? [JSONPatch{{op: 'add', path: '/metadata/labels/' + \
             jsonpatch.escapeKey('{BRAKED_LABEL}'), value: 'true'}}] : [])"
        ),
        "variables.foreign.map(l, JSONPatch{op: 'remove', path: '/metadata/labels/' + jsonpatch.escapeKey(l)})"
            .to_owned(),
    ]
    .join("\n+ ")
}

/// What the brake makes of an update of a Deployment by `user`: the operations to do on `new`.
///
/// The same rules as [`conditions`], [`variables`] and [`patch_cel`].
pub fn patch(operator_user: &str, user: &str, old: &Value, new: &Value) -> Patch {
    let had = |label: &str| old["metadata"]["labels"].get(label);
    let Some(rollout) = had(ROLLOUT_LABEL).filter(|_| user != operator_user) else {
        return Patch(Vec::new());
    };
    let changed = new["spec"]["template"] != old["spec"]["template"];
    let released = had(RELEASE_LABEL).is_some();
    let stopped = had(BRAKED_LABEL).is_some() && old["spec"]["paused"] == true;
    let marked = changed || stopped;

    let mut operations = Vec::new();
    if new["metadata"]["labels"].is_null() {
        operations.push(add(&["metadata", "labels"], json!({})));
    }
    if marked || released {
        operations.push(add(&["spec", "paused"], json!(true)));
    }
    operations.push(add(&["metadata", "labels", ROLLOUT_LABEL], rollout.clone()));
    if let Some(release) = had(RELEASE_LABEL) {
        operations.push(add(&["metadata", "labels", RELEASE_LABEL], release.clone()));
    }
    if marked {
        operations.push(add(&["metadata", "labels", BRAKED_LABEL], json!("true")));
    }
    for (label, keep) in [(BRAKED_LABEL, marked), (RELEASE_LABEL, released)] {
        if !keep && new["metadata"]["labels"].get(label).is_some() {
            operations.push(remove(&["metadata", "labels", label]));
        }
    }
    Patch(operations)
}

pub(super) fn add(path: &[&str], value: Value) -> PatchOperation {
    PatchOperation::Add(AddOperation { path: PointerBuf::from_tokens(path.iter().copied()), value })
}

pub(super) fn remove(path: &[&str]) -> PatchOperation {
    PatchOperation::Remove(RemoveOperation { path: PointerBuf::from_tokens(path.iter().copied()) })
}

/// A CEL string literal of any text.
pub(super) fn cel_string(text: &str) -> String {
    format!("'{}'", text.replace('\\', r"\\").replace('\'', r"\'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BELAY: &str = "system:serviceaccount:belay-system:belay";

    fn deployment(image: &str, paused: bool, labels: &Value) -> Value {
        json!({
            "metadata": {"labels": labels},
            "spec": {"paused": paused, "template": {"spec": {"containers": [{"image": image}]}}},
        })
    }

    fn after(user: &str, old: &Value, new: &Value) -> Value {
        let mut result = new.clone();
        json_patch::patch(&mut result, &patch(BELAY, user, old, new)).unwrap();
        result
    }

    #[test]
    fn a_changed_template_is_paused_and_marked() {
        let old = deployment("a", false, &json!({ROLLOUT_LABEL: "web"}));
        let new = deployment("b", false, &json!({ROLLOUT_LABEL: "web"}));
        let result = after("alice", &old, &new);
        assert_eq!(result, deployment("b", true, &json!({ROLLOUT_LABEL: "web", BRAKED_LABEL: "true"})));
    }

    #[test]
    fn what_stands_braked_cannot_be_let_out_by_a_second_write() {
        let old = deployment("b", true, &json!({ROLLOUT_LABEL: "web", BRAKED_LABEL: "true"}));
        let new = deployment("b", false, &Value::Null);
        assert_eq!(after("alice", &old, &new), old);
    }

    #[test]
    fn belay_may_do_all_and_then_the_mark_means_nothing() {
        let old =
            deployment("b", true, &json!({ROLLOUT_LABEL: "web", RELEASE_LABEL: "r", BRAKED_LABEL: "true"}));
        let freed = deployment("b", false, &json!({ROLLOUT_LABEL: "web", BRAKED_LABEL: "true"}));
        assert_eq!(after(BELAY, &old, &freed), freed);
        let paused = deployment("b", true, &json!({ROLLOUT_LABEL: "web", BRAKED_LABEL: "true"}));
        let result = after("alice", &freed, &paused);
        assert_eq!(result, deployment("b", true, &json!({ROLLOUT_LABEL: "web"})));
        let resumed = deployment("b", false, &json!({ROLLOUT_LABEL: "web"}));
        assert_eq!(after("alice", &result, &resumed), resumed);
    }

    #[test]
    fn a_workload_without_rollout_is_left_alone() {
        let old = deployment("a", false, &Value::Null);
        let new = deployment("b", false, &json!({ROLLOUT_LABEL: "web"}));
        assert_eq!(after("alice", &old, &new), new);
    }

    #[test]
    fn a_quote_in_the_operators_name_stays_inside_the_literal() {
        assert_eq!(cel_string(r"o'b\c"), r"'o\'b\\c'");
    }
}
