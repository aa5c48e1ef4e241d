//! What a change of a pod template changes.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::{Map, Value};

use super::text::{Tone, paint, plural};
use super::{Report, Scene};

/// A change of a workload's pod template.
#[derive(Serialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ChangeReport {
    /// The workload.
    pub workload: String,
    /// Its namespace.
    pub namespace: String,
    /// Its Rollout.
    pub rollout: String,
    /// Whether it was written.
    pub written: bool,
    /// What happens, or would happen, now.
    pub message: String,
    /// What differs; values that look secret are `(sensitive)`.
    pub differences: Vec<Difference>,
}

/// A field that differs.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// Where, with containers and variables by name.
    pub path: String,
    /// What it was; absent when it is new.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// What it becomes; absent when it goes away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

impl Report for ChangeReport {
    const KIND: &'static str = "Change";

    fn text(&self, scene: &Scene) -> String {
        let mut text = String::new();
        if !self.differences.is_empty() {
            let verb = if self.written { "was" } else { "would be" };
            let _ = writeln!(
                text,
                "The template of {} {verb} changed in {}:",
                paint(scene, Tone::Strong, &self.workload),
                plural(self.differences.len(), "place")
            );
        }
        for difference in &self.differences {
            let _ = writeln!(text, "  {}", difference.path);
            if let Some(before) = &difference.before {
                let _ = writeln!(text, "{}", paint(scene, Tone::Bad, &format!("  - {before}")));
            }
            if let Some(after) = &difference.after {
                let _ = writeln!(text, "{}", paint(scene, Tone::Good, &format!("  + {after}")));
            }
        }
        let _ = writeln!(text, "{}", self.message);
        text
    }

    fn names(&self) -> Vec<String> {
        vec![format!("deployment/{}", self.workload)]
    }
}

/// What is shown instead of a value that nobody should see.
pub const SENSITIVE: &str = "(sensitive)";

/// Whether a variable's name says that its value is secret.
pub fn is_sensitive(name: &str) -> bool {
    let name = name.to_uppercase();
    ["PASSWORD", "PASSWD", "TOKEN", "SECRET", "KEY", "CREDENTIAL"].iter().any(|part| name.contains(part))
}

/// The fields in which two JSON values differ. Lists whose items have names are compared by name.
pub fn differences(before: &Value, after: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    compare("", Some(before), Some(after), false, &mut found);
    found
}

fn compare(
    path: &str,
    before: Option<&Value>,
    after: Option<&Value>,
    hide: bool,
    found: &mut Vec<Difference>,
) {
    if before == after {
        return;
    }
    match (before, after) {
        (Some(Value::Object(a)), Some(Value::Object(b))) => compare_maps(path, a, b, hide, found),
        (Some(Value::Array(a)), Some(Value::Array(b))) => compare_lists(path, a, b, hide, found),
        _ => {
            let show = |value: &Value| if hide { SENSITIVE.to_owned() } else { plain(value) };
            found.push(Difference {
                path: path.to_owned(),
                before: before.map(show),
                after: after.map(show),
            });
        }
    }
}

fn compare_maps(
    path: &str,
    a: &Map<String, Value>,
    b: &Map<String, Value>,
    hide: bool,
    found: &mut Vec<Difference>,
) {
    // A named variable's value is hidden when its name says so, on whichever side it stands.
    let name = b.get("name").or_else(|| a.get("name")).and_then(Value::as_str);
    let secret = path.contains(".env[") && name.is_some_and(is_sensitive);
    for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
        let at = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let hidden = hide || (secret && key == "value") || is_sensitive_annotation(path, key);
        compare(&at, a.get(key), b.get(key), hidden, found);
    }
}

fn is_sensitive_annotation(path: &str, key: &str) -> bool {
    path.ends_with("annotations") && is_sensitive(key)
}

fn compare_lists(path: &str, a: &[Value], b: &[Value], hide: bool, found: &mut Vec<Difference>) {
    let name = |value: &Value| value.get("name").and_then(Value::as_str).map(ToOwned::to_owned);
    if let (Some(left), Some(right)) =
        (a.iter().map(name).collect::<Option<Vec<_>>>(), b.iter().map(name).collect::<Option<Vec<_>>>())
    {
        for (i, item) in left.iter().enumerate() {
            let other = right.iter().position(|known| known == item).and_then(|at| b.get(at));
            side(&format!("{path}[{item}]"), a.get(i), other, hide, found);
        }
        for (i, item) in right.iter().enumerate().filter(|(_, item)| !left.contains(item)) {
            side(&format!("{path}[{item}]"), None, b.get(i), hide, found);
        }
        return;
    }
    for i in 0..a.len().max(b.len()) {
        compare(&format!("{path}[{i}]"), a.get(i), b.get(i), hide, found);
    }
}

/// A named item that may be on one side only: shown field by field, so that secret values stay hidden.
fn side(path: &str, before: Option<&Value>, after: Option<&Value>, hide: bool, found: &mut Vec<Difference>) {
    let empty = Map::new();
    let fields = |value: Option<&Value>| value.map(|value| value.as_object().cloned());
    match (fields(before), fields(after)) {
        (Some(Some(a)), None) => compare_maps(path, &a, &empty, hide, found),
        (None, Some(Some(b))) => compare_maps(path, &empty, &b, hide, found),
        _ => compare(path, before, after, hide, found),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => hidden(other).to_string(),
    }
}

/// A value of several fields, without what is secret in it.
fn hidden(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let secret = fields.get("name").and_then(Value::as_str).is_some_and(is_sensitive);
            let show = |(key, value): (&String, &Value)| {
                let value = if key == "value" && secret { SENSITIVE.into() } else { hidden(value) };
                (key.clone(), value)
            };
            Value::Object(fields.iter().map(show).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(hidden).collect()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn secret_values_are_never_shown() {
        let before = json!({"spec": {"containers": [{"name": "web", "image": "web:1", "env": [
            {"name": "DB_PASSWORD", "value": "hunter1"}, {"name": "LEVEL", "value": "info"},
            {"name": "API_TOKEN", "value": "gone"}]}]}});
        let after = json!({"spec": {"containers": [{"name": "web", "image": "web:2", "env": [
            {"name": "DB_PASSWORD", "value": "hunter2"}, {"name": "LEVEL", "value": "debug"},
            {"name": "SIGNING_KEY", "value": "new"}]},
            {"name": "side", "image": "s:1", "env": [{"name": "TOKEN", "value": "other"}]}]}});
        let found = differences(&before, &after);
        let text = format!("{found:?}");
        for secret in ["hunter1", "hunter2", "gone", "new\"", "other"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
        assert_eq!(found[0].path, "spec.containers[web].env[DB_PASSWORD].value");
        assert!(
            found
                .iter()
                .any(|d| d.path == "spec.containers[web].image" && d.after.as_deref() == Some("web:2"))
        );
        assert!(found.iter().any(|d| d.after.as_deref() == Some("debug")));
    }
}
