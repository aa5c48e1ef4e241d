//! What `install` and `uninstall` did to each object.

use serde::Serialize;

use super::text::table;
use super::{Report, Scene};

/// Objects, and what was done to them.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ObjectsReport {
    /// The objects, in the order in which they were written.
    pub objects: Vec<ObjectReport>,
    /// What to do next.
    pub message: String,
}

/// An object.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ObjectReport {
    /// Kind of the object.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// What was done: `created`, `configured`, `unchanged`, `removed`.
    pub done: String,
}

impl Report for ObjectsReport {
    const KIND: &'static str = "Objects";

    fn text(&self, scene: &Scene) -> String {
        let rows: Vec<Vec<String>> = self
            .objects
            .iter()
            .map(|object| vec![object.kind.clone(), object.name.clone(), object.done.clone()])
            .collect();
        let objects =
            if rows.is_empty() { String::new() } else { table(scene, 0, &["KIND", "NAME", "DONE"], &rows) };
        format!("{objects}{}\n", self.message)
    }

    fn names(&self) -> Vec<String> {
        self.objects.iter().map(|object| format!("{}/{}", object.kind.to_lowercase(), object.name)).collect()
    }
}
