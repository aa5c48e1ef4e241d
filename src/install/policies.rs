//! The admission policies: the brake, the stamp that says who gave a command, and the hold on what a release borrows.
//!
//! Purpose: the rules of [`super::brake`], [`super::stamp`] and [`super::hold`] as objects of `admissionregistration.k8s.io/v1`.
//! May touch: nothing but JSON. Must never: hold a rule itself.

use serde_json::{Value, json};

use super::brake::Expression;
use super::hold::Held;
use super::{Options, brake, hold, labels, stamp};
use crate::api;

/// The name of the brake's policy and binding.
pub use crate::api::BRAKE;
/// The name of the stamp's policy and binding.
pub const STAMP: &str = "stamp.belay.dev";

/// All policies, each with the binding that puts it in force everywhere.
pub(super) fn objects(options: &Options) -> Vec<Value> {
    let mut objects = vec![
        policy(BRAKE, &brake_spec(&options.operator_user)),
        binding(BRAKE),
        policy(STAMP, &stamp_spec()),
        binding(STAMP),
    ];
    for held in hold::kinds() {
        let name = held.policy();
        objects.push(policy(&name, &hold_spec(&held, &options.operator_user)));
        objects.push(binding(&name));
    }
    objects
}

fn brake_spec(operator_user: &str) -> Value {
    let governed = json!({"matchExpressions": [{"key": api::ROLLOUT_LABEL, "operator": "Exists"}]});
    json!({
        "matchConstraints": constraints(&governed, "apps", &["v1"], &["UPDATE"], "deployments"),
        "failurePolicy": "Fail",
        // A webhook that changes the template after us is braked as well.
        "reinvocationPolicy": "IfNeeded",
        "matchConditions": named(&brake::conditions(operator_user)),
        "variables": named(&brake::variables()),
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": brake::patch_cel()}}],
    })
}

fn stamp_spec() -> Value {
    json!({
        "matchConstraints": constraints(&json!({}), api::GROUP, &["*"], &["CREATE", "UPDATE"], "releases"),
        "failurePolicy": "Fail",
        "reinvocationPolicy": "IfNeeded",
        "matchConditions": named(&stamp::conditions()),
        "variables": named(&stamp::variables()),
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": stamp::patch_cel()}}],
    })
}

/// A kind that the server does not have is no fault: a rule for it matches nothing until it is there.
fn hold_spec(held: &Held, operator_user: &str) -> Value {
    json!({
        "matchConstraints": constraints(&borrowed(), held.group, &["*"], &["UPDATE"], held.plural),
        "failurePolicy": "Fail",
        // What a webhook makes of a borrowed part after us is held as well.
        "reinvocationPolicy": "IfNeeded",
        "matchConditions": named(&hold::conditions(operator_user)),
        "variables": named(&hold::variables(held)),
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": hold::patch_cel(held)}}],
    })
}

/// Selects objects that a release has borrowed, or that are to look as if: the API server looks at the object before
/// the write, and after it. No other object is touched, whether Belay runs or not.
pub(super) fn borrowed() -> Value {
    json!({"matchExpressions": [{"key": api::RELEASE_LABEL, "operator": "Exists"}]})
}

/// Expressions as the API server takes them.
pub(super) fn named(expressions: &[Expression]) -> Vec<Value> {
    expressions.iter().map(|e| json!({"name": e.name, "expression": e.cel})).collect()
}

/// Which writes the API server shows to a policy. All that it would fill in is said: the whole is one value to
/// server-side apply, and would otherwise differ from itself.
fn constraints(
    objects: &Value,
    group: &str,
    versions: &[&str],
    operations: &[&str],
    resource: &str,
) -> Value {
    json!({
        "matchPolicy": "Equivalent",
        "namespaceSelector": {},
        "objectSelector": objects,
        "resourceRules": [{
            "apiGroups": [group],
            "apiVersions": versions,
            "operations": operations,
            "resources": [resource],
            "scope": "*",
        }],
    })
}

fn policy(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingAdmissionPolicy",
        "metadata": {"name": name, "labels": labels()},
        "spec": spec,
    })
}

fn binding(name: &str) -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingAdmissionPolicyBinding",
        "metadata": {"name": name, "labels": labels()},
        "spec": {"policyName": name},
    })
}
