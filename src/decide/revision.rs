//! The digest that names a pod template.

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::api::POD_TEMPLATE_HASH;

/// Characters of Kubernetes' own safe alphabet: no vowels, so no words.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// Ten characters that name a pod template. The label `pod-template-hash` is left out, so a Deployment's
/// template and the ReplicaSet made of it have the same name; the order of keys does not matter.
pub fn revision(template: &Value) -> String {
    let mut hasher = Sha256::new();
    canonical(template, &mut Vec::new(), &mut hasher);
    let digest = hasher.finalize();
    digest.iter().take(10).map(|b| char::from(ALPHABET[usize::from(*b) % ALPHABET.len()])).collect()
}

/// The template without the label `pod-template-hash`.
pub fn without_hash(template: &Value) -> Value {
    let mut template = template.clone();
    if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(POD_TEMPLATE_HASH);
    }
    template
}

/// Feeds canonical JSON (keys sorted, no spaces) to the hasher. `path` is where in the template we are.
fn canonical<'a>(value: &'a Value, path: &mut Vec<&'a str>, hasher: &mut Sha256) {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            hasher.update(b"{");
            for key in keys {
                if path.as_slice() == ["metadata", "labels"] && key == POD_TEMPLATE_HASH {
                    continue;
                }
                // An absent creationTimestamp and a null one are the same template.
                if path.as_slice() == ["metadata"] && key == "creationTimestamp" {
                    continue;
                }
                hasher.update(Value::String(key.clone()).to_string().as_bytes());
                hasher.update(b":");
                path.push(key);
                canonical(&map[key], path, hasher);
                path.pop();
                hasher.update(b",");
            }
            hasher.update(b"}");
        }
        Value::Array(items) => {
            hasher.update(b"[");
            path.push("[]");
            for item in items {
                canonical(item, path, hasher);
                hasher.update(b",");
            }
            path.pop();
            hasher.update(b"]");
        }
        scalar => hasher.update(scalar.to_string().as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_order_of_keys_and_the_hash_label_do_not_matter() {
        let a: Value =
            serde_json::from_str(r#"{"metadata":{"labels":{"app":"web"}},"spec":{"a":1,"b":[1,2]}}"#)
                .expect("valid");
        let b: Value = serde_json::from_str(
            r#"{"spec":{"b":[1,2],"a":1},"metadata":{"creationTimestamp":null,"labels":{"pod-template-hash":"x","app":"web"}}}"#,
        )
        .expect("valid");
        assert_eq!(revision(&a), revision(&b));
        assert_eq!(without_hash(&b)["metadata"]["labels"], json!({"app": "web"}));
    }

    #[test]
    fn any_other_change_makes_another_revision() {
        let base =
            json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"image": "a:1"}]}});
        for changed in [
            json!({"metadata": {"labels": {"app": "web2"}}, "spec": {"containers": [{"image": "a:1"}]}}),
            json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"image": "a:2"}]}}),
            json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"image": "a:1"}, {}]}}),
            json!({"metadata": {"labels": {"app": "web"}, "annotations": {}}, "spec": {"containers": [{"image": "a:1"}]}}),
        ] {
            assert_ne!(revision(&base), revision(&changed), "{changed}");
        }
        assert_eq!(revision(&base).len(), 10);
    }
}
