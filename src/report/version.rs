//! The versions of this program and of the operator in the cluster.

use std::fmt::Write as _;

use serde::Serialize;

use super::{Report, Scene};

/// The versions.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct VersionReport {
    /// This program.
    pub client: String,
    /// The operator in the cluster, when it could be asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
    /// The image that the operator runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operator_image: Option<String>,
    /// Why the operator's version is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Report for VersionReport {
    const KIND: &'static str = "Version";

    fn text(&self, _: &Scene) -> String {
        let mut text = format!("belay {}\n", self.client);
        match (&self.operator, &self.operator_image) {
            (Some(version), _) => {
                let _ = writeln!(text, "operator {version}");
            }
            (None, Some(image)) => {
                let _ = writeln!(text, "operator image {image}");
            }
            (None, None) => {}
        }
        if let Some(note) = &self.note {
            let _ = writeln!(text, "operator unknown: {note}");
        }
        text
    }

    fn names(&self) -> Vec<String> {
        vec![format!("version/{}", self.client)]
    }
}
