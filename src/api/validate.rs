//! What the API server would say to an object, without the server.
//!
//! Purpose: checks an object against its CustomResourceDefinition, structure and CEL rules alike, so that
//! `belay lint` refuses what `kubectl apply` would refuse, for the same reasons.
//! May touch: JSON, regular expressions, CEL. Must never: hold a rule of its own; rules stand in the schema.

use std::collections::BTreeSet;
use std::fmt;

use kube::core::cel::Validator;
use regex::Regex;
use serde_json::{Map, Value};

/// One thing that is wrong with an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FieldError {
    /// Where, as `spec.strategy.canary.steps[1].weight`; empty for the object as a whole.
    pub path: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() { self.message.fmt(f) } else { write!(f, "{}: {}", self.path, self.message) }
    }
}

/// All that is wrong with `object` by the definition `crd`, as on creation. Empty when it would be taken.
pub fn validate(crd: &Value, object: &Value) -> Vec<FieldError> {
    check(crd, object, None)
}

/// All that is wrong with the change from `old` to `object`: also the rules about what may change.
pub fn validate_update(crd: &Value, old: &Value, object: &Value) -> Vec<FieldError> {
    check(crd, object, Some(old))
}

fn check(crd: &Value, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut found = Findings::default();
    let group = crd["spec"]["group"].as_str().unwrap_or_default();
    let kind = &crd["spec"]["names"]["kind"];
    let versions = crd["spec"]["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let version = versions.iter().find(|v| {
        object["apiVersion"].as_str() == v["name"].as_str().map(|name| format!("{group}/{name}")).as_deref()
    });
    let Some(version) = version.filter(|_| object["kind"] == *kind) else {
        let served: Vec<&str> = versions.iter().filter_map(|v| v["name"].as_str()).collect();
        let kind = kind.as_str().unwrap_or_default();
        found.blocking(
            String::new(),
            format!(
                "not a {kind} of {group}; set apiVersion: {group}/{} and kind: {kind}",
                served.join(" or ")
            ),
        );
        return found.errors;
    };
    if object["metadata"]["name"].as_str().is_none_or(str::is_empty) {
        found.blocking("metadata.name".to_owned(), "required; give the object a name".to_owned());
    }
    let schema = &version["schema"]["openAPIV3Schema"];
    node(&mut found, String::new(), schema, object);
    // As in the API server: rules are not asked about values of the wrong shape.
    if !found.shapeless {
        for error in Validator::new().validate(schema, object, old).err().into_iter().flatten() {
            found.add(error.field_path, error.message);
        }
    }
    found.errors.sort();
    found.errors.dedup();
    found.errors
}

#[derive(Default)]
struct Findings {
    errors: Vec<FieldError>,
    /// Something is of the wrong type, missing or too large, so that CEL rules cannot be asked.
    shapeless: bool,
}

impl Findings {
    fn add(&mut self, path: String, message: String) {
        self.errors.push(FieldError { path, message });
    }

    fn blocking(&mut self, path: String, message: String) {
        self.shapeless = true;
        self.add(path, message);
    }
}

/// Checks one value and all below it.
fn node(found: &mut Findings, path: String, schema: &Value, value: &Value) {
    if let Some(expected) = schema["type"].as_str()
        && !is_of(expected, value)
    {
        let written = if value.is_null() { "empty".to_owned() } else { value.to_string() };
        return found.blocking(path, format!("must be of type {expected}, but it is {written}"));
    }
    if let Some(values) = schema["enum"].as_array()
        && !values.contains(value)
    {
        let values: Vec<&str> = values.iter().filter_map(Value::as_str).collect();
        let given = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
        found.add(path.clone(), format!("`{given}` is not supported; use one of: {}", values.join(", ")));
    }
    match value {
        Value::Object(members) => object(found, &path, schema, members),
        Value::Array(items) => list(found, &path, schema, items),
        Value::String(text) => string(found, path, schema, text),
        Value::Number(number) => {
            let number = number.as_f64().unwrap_or(f64::NAN);
            bounds(found, path, schema, number);
        }
        Value::Null | Value::Bool(_) => {}
    }
}

fn is_of(expected: &str, value: &Value) -> bool {
    match expected {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "number" => value.is_number(),
        "integer" => value.as_f64().is_some_and(|n| n.fract() == 0.0),
        _ => true,
    }
}

fn object(found: &mut Findings, path: &str, schema: &Value, members: &Map<String, Value>) {
    // Standard parts of every object; the API server looks after them itself.
    let standard = |name: &str| path.is_empty() && ["apiVersion", "kind", "metadata"].contains(&name);
    let properties = schema["properties"].as_object();
    for (name, value) in members.iter().filter(|(name, _)| !standard(name)) {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        if let Some(schema) = properties.and_then(|p| p.get(name)) {
            node(found, path, schema, value);
        } else if schema["additionalProperties"].is_object() {
            node(found, path, &schema["additionalProperties"], value);
        } else if let Some(properties) = properties {
            let known: Vec<&str> = properties.keys().map(String::as_str).filter(|n| !standard(n)).collect();
            found.add(path, format!("unknown field; known here: {}", known.join(", ")));
        }
    }
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !members.contains_key(name) {
            let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
            found.blocking(path, "required, but missing".to_owned());
        }
    }
}

fn list(found: &mut Findings, path: &str, schema: &Value, items: &[Value]) {
    if let Some(most) = limit(schema, "maxItems").filter(|most| items.len() > *most) {
        found.blocking(path.to_owned(), format!("has {} entries, at most {most} are allowed", items.len()));
    }
    if let Some(least) = limit(schema, "minItems").filter(|least| items.len() < *least) {
        found.add(path.to_owned(), format!("has {} entries, at least {least} are needed", items.len()));
    }
    for (index, item) in items.iter().enumerate() {
        node(found, format!("{path}[{index}]"), &schema["items"], item);
    }
    if let Some(keys) = schema["x-kubernetes-list-map-keys"].as_array() {
        let keys: Vec<&str> = keys.iter().filter_map(Value::as_str).collect();
        let mut seen = BTreeSet::new();
        for (index, item) in items.iter().enumerate() {
            let key: Vec<String> = keys.iter().map(|k| item[*k].to_string()).collect();
            if !seen.insert(key) {
                let keys = keys.join(" and ");
                found.add(format!("{path}[{index}]"), format!("has the same {keys} as an entry before it"));
            }
        }
    }
}

fn string(found: &mut Findings, path: String, schema: &Value, text: &str) {
    let length = text.chars().count();
    if let Some(most) = limit(schema, "maxLength").filter(|most| length > *most) {
        found.blocking(path.clone(), format!("has {length} characters, at most {most} are allowed"));
    }
    if let Some(least) = limit(schema, "minLength").filter(|least| length < *least) {
        found.add(path.clone(), format!("has {length} characters, at least {least} are needed"));
    }
    if schema["format"] == "date-time" && text.parse::<jiff::Timestamp>().is_err() {
        found.add(path.clone(), "must be a time as in RFC 3339, such as 2030-01-31T12:00:00Z".to_owned());
    }
    let pattern = schema["pattern"].as_str();
    if let Some(pattern) = pattern.filter(|p| Regex::new(p).is_ok_and(|p| !p.is_match(text))) {
        found.add(path, format!("`{text}` must match {pattern}"));
    }
}

fn bounds(found: &mut Findings, path: String, schema: &Value, number: f64) {
    let (int32, int64) = (schema["format"] == "int32", schema["format"] == "int64");
    let bound = |name: &str| schema[name].as_f64();
    let least = bound("minimum").or(int32.then_some(f64::from(i32::MIN)));
    let most = bound("maximum").or(int32.then_some(f64::from(i32::MAX))).or(int64.then_some(i64::MAX as f64));
    if least.is_some_and(|least| number < least) || most.is_some_and(|most| number > most) {
        let range = match (bound("minimum"), bound("maximum")) {
            (Some(least), Some(most)) => format!("from {least} to {most}"),
            (Some(least), None) => format!("at least {least}"),
            (None, Some(most)) => format!("at most {most}"),
            (None, None) => "smaller in size".to_owned(),
        };
        found.add(path, format!("{number} is out of range; must be {range}"));
    }
}

fn limit(schema: &Value, name: &str) -> Option<usize> {
    schema[name].as_u64().and_then(|n| usize::try_from(n).ok())
}
