//! JSON Patches that test exactly what they change.

use serde_json::{Value, json};

use super::Write;

/// A JSON Patch in the making. It tests the uid first: another object of the same name is not meant.
pub(super) struct Ops {
    uid: Value,
    ops: Vec<Value>,
}

impl Ops {
    pub fn of(object: &Value) -> Self {
        Self { uid: object["metadata"]["uid"].clone(), ops: Vec::new() }
    }

    /// Changes a field that is there.
    pub fn replace(&mut self, path: &str, old: &Value, new: &Value) {
        if old != new {
            self.ops.push(json!({"op": "test", "path": path, "value": old}));
            self.ops.push(json!({"op": "replace", "path": path, "value": new}));
        }
    }

    /// Adds a field that is not there.
    pub fn add(&mut self, path: &str, new: &Value) {
        self.ops.push(json!({"op": "add", "path": path, "value": new}));
    }

    /// Takes a field away.
    pub fn remove(&mut self, path: &str, old: &Value) {
        self.ops.push(json!({"op": "test", "path": path, "value": old}));
        self.ops.push(json!({"op": "remove", "path": path}));
    }

    /// The patch; nothing when it would change nothing.
    pub fn done(self) -> Option<Vec<Value>> {
        let uid = json!({"op": "test", "path": "/metadata/uid", "value": self.uid});
        (!self.ops.is_empty()).then(|| [vec![uid], self.ops].concat())
    }

    /// As a write of the route.
    pub fn route(self) -> Option<Write> {
        self.done().map(Write::Route)
    }
}

/// A key as a part of a JSON pointer.
pub(super) fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// The pointer to an annotation.
pub(super) fn annotation(key: &str) -> String {
    format!("/metadata/annotations/{}", escape(key))
}
