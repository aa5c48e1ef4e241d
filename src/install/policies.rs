//! The admission policies: the brake, and the stamp that says who gave a command.
//!
//! Purpose: the rules of [`super::brake`] as objects of `admissionregistration.k8s.io/v1`, and the stamp.
//! May touch: nothing but JSON. Must never: hold a rule of the brake itself.

use serde_json::{Value, json};

use super::{Options, brake, labels};
use crate::api;

/// The name of the brake's policy and binding.
pub use crate::api::BRAKE;
/// The name of the stamp's policy and binding.
pub const STAMP: &str = "stamp.belay.dev";

/// The most commands that a Release takes; the same number as in its schema.
const MAX_COMMANDS: u32 = 50;

/// Both policies, each with the binding that puts it in force everywhere.
pub(super) fn objects(options: &Options) -> Vec<Value> {
    vec![
        policy(BRAKE, &brake_spec(&options.operator_user)),
        binding(BRAKE),
        policy(STAMP, &stamp_spec()),
        binding(STAMP),
    ]
}

fn brake_spec(operator_user: &str) -> Value {
    let conditions: Vec<Value> = brake::conditions(operator_user)
        .iter()
        .map(|c| json!({"name": c.name, "expression": c.cel}))
        .collect();
    let variables: Vec<Value> =
        brake::variables().iter().map(|v| json!({"name": v.name, "expression": v.cel})).collect();
    let governed = json!({"matchExpressions": [{"key": api::ROLLOUT_LABEL, "operator": "Exists"}]});
    json!({
        "matchConstraints": constraints(&governed, "apps", &["v1"], &["UPDATE"], "deployments"),
        "failurePolicy": "Fail",
        // A webhook that changes the template after us is braked as well.
        "reinvocationPolicy": "IfNeeded",
        "matchConditions": conditions,
        "variables": variables,
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": brake::patch_cel()}}],
    })
}

/// `by` of every command that this write adds is the user of the request; nobody is exempt. On creation all
/// are new; later, the schema lets one be added at a time and none be changed.
fn stamp_spec() -> Value {
    let indices: Vec<String> = (0..MAX_COMMANDS).map(|i| i.to_string()).collect();
    let expression = format!(
        "[{}].filter(i, i >= variables.before && i < object.spec.commands.size())\
         .map(i, JSONPatch{{op: \"add\", path: \"/spec/commands/\" + string(i) + \"/by\", \
         value: request.userInfo.username}})",
        indices.join(",")
    );
    json!({
        "matchConstraints": constraints(&json!({}), api::GROUP, &["*"], &["CREATE", "UPDATE"], "releases"),
        "failurePolicy": "Fail",
        "reinvocationPolicy": "IfNeeded",
        "matchConditions": [{"name": "has-commands", "expression": "has(object.spec.commands)"}],
        "variables": [{
            "name": "before",
            "expression": "oldObject == null || !has(oldObject.spec.commands) ? 0 : oldObject.spec.commands.size()",
        }],
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}],
    })
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
