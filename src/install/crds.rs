//! The CustomResourceDefinitions, finished.
//!
//! Purpose: takes what the derive makes of the types in [`crate::api`] and says what it leaves open, so that
//! server-side apply, strict validation and `kubectl explain` work as with a built-in resource.
//! May touch: [`crate::api`] and JSON. Must never: add a rule or a bound; those stand at their field.

use kube::CustomResourceExt;
use serde_json::{Map, Value};

use super::labels;
use crate::api;

/// The CustomResourceDefinitions of all our kinds.
pub fn crds() -> Vec<Value> {
    let derived = [
        api::Rollout::crd(),
        api::Release::crd(),
        api::template::AnalysisTemplate::crd(),
        api::template::ClusterAnalysisTemplate::crd(),
    ];
    derived.iter().map(|crd| finished(serde_json::json!(crd))).collect()
}

/// The CustomResourceDefinition of one kind, if it is ours.
pub fn crd_of(kind: &str) -> Option<Value> {
    crds().into_iter().find(|crd| crd["spec"]["names"]["kind"] == kind)
}

fn finished(mut crd: Value) -> Value {
    crd["metadata"]["labels"] = labels();
    let kind = crd["spec"]["names"]["kind"].clone();
    for version in crd["spec"]["versions"].as_array_mut().into_iter().flatten() {
        let schema = &mut version["schema"]["openAPIV3Schema"];
        finish(schema);
        if kind == "Release" {
            // A Release is a record: its guards keep their order, and nobody merges into them.
            let guards = schema.pointer_mut("/properties/spec/properties/analysis/properties/guards");
            if let Some(Value::Object(guards)) = guards {
                guards.insert("x-kubernetes-list-type".to_owned(), "atomic".into());
                guards.remove("x-kubernetes-list-map-keys");
            }
        }
    }
    crd
}

/// Finishes a schema node and all below it.
fn finish(schema: &mut Value) {
    let Value::Object(node) = schema else { return };
    // `null` is no value here: absent fields are left out by every writer, and a null in a manifest is a slip
    // that the API server should name.
    node.remove("nullable");
    if let Some(Value::Array(values)) = node.get_mut("enum") {
        values.retain(|v| !v.is_null());
    }
    if let Some(Value::String(description)) = node.get_mut("description") {
        *description = reflowed(description);
    }
    if node.get("type").is_some_and(|t| t == "array") {
        node.entry("x-kubernetes-list-type").or_insert_with(|| "atomic".into());
    }
    unsigned(node);
    for bound in ["minimum", "maximum", "default"] {
        if let Some(value) = node.get_mut(bound) {
            whole(value);
        }
    }
    for below in ["items", "additionalProperties"] {
        if let Some(schema) = node.get_mut(below) {
            finish(schema);
        }
    }
    if let Some(Value::Object(properties)) = node.get_mut("properties") {
        properties.values_mut().for_each(finish);
    }
}

/// OpenAPI knows no unsigned formats.
fn unsigned(node: &mut Map<String, Value>) {
    if node.get("format").is_some_and(|f| f == "uint32") {
        node.insert("format".to_owned(), "int64".into());
        node.entry("maximum").or_insert_with(|| u32::MAX.into());
    }
}

/// Lines of a doc comment as running text; an empty line still parts paragraphs.
fn reflowed(text: &str) -> String {
    let paragraphs: Vec<String> =
        text.split("\n\n").map(|p| p.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    paragraphs.join("\n\n")
}

/// The typed schema holds every bound as a float; `50.0` reads as `50`.
fn whole(value: &mut Value) {
    match value {
        Value::Number(number) => {
            let Some(float) = number.as_f64().filter(|f| f.fract() == 0.0 && f.abs() < 9e15) else { return };
            #[expect(clippy::cast_possible_truncation, reason = "whole, and within the range of i64")]
            let integer = float as i64;
            *value = integer.into();
        }
        Value::Object(members) => members.values_mut().for_each(whole),
        Value::Array(items) => items.iter_mut().for_each(whole),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls `check` with the path of every node of every schema.
    fn each_node(check: &mut impl FnMut(&str, &Map<String, Value>)) {
        fn walk(path: &str, node: &Value, check: &mut impl FnMut(&str, &Map<String, Value>)) {
            let Value::Object(object) = node else { return };
            check(path, object);
            for (name, below) in node["properties"].as_object().into_iter().flatten() {
                walk(&format!("{path}.{name}"), below, check);
            }
            walk(&format!("{path}[]"), &node["items"], check);
            walk(&format!("{path}{{}}"), &node["additionalProperties"], check);
        }
        for crd in crds() {
            let kind = crd["spec"]["names"]["kind"].as_str().unwrap_or_default();
            walk(kind, &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"], check);
        }
    }

    #[test]
    fn every_list_says_how_it_merges_and_no_field_is_kept_unknown() {
        each_node(&mut |path, node| {
            assert_eq!(node["type"] == "array", node.contains_key("x-kubernetes-list-type"), "{path}");
            // With arguments in their texts the guards of a template are not guards yet; and what a Job runs is
            // for its own API to read.
            let foreign =
                path.ends_with("AnalysisTemplate.spec.guards[]") || path.ends_with("guards[].job.template");
            let open = node.contains_key("x-kubernetes-preserve-unknown-fields");
            assert_eq!(open, foreign, "{path}");
            assert!(!node.contains_key("nullable"), "{path}");
        });
    }

    #[test]
    fn every_named_field_is_described() {
        let standard = [".apiVersion", ".kind", ".metadata"];
        let mut missing = Vec::new();
        each_node(&mut |path, node| {
            let named = !path.ends_with("[]") && !path.ends_with("{}") && !path.contains(".conditions[]");
            if named && !standard.iter().any(|s| path.ends_with(s)) && !node.contains_key("description") {
                missing.push(path.to_owned());
            }
        });
        assert!(missing.is_empty(), "without description: {missing:?}");
    }

    #[test]
    fn every_kind_is_in_the_category() {
        for crd in crds() {
            assert_eq!(crd["spec"]["names"]["categories"], serde_json::json!(["belay"]));
        }
    }
}
