//! The releases of a Rollout, the newest first.

use jiff::Timestamp;
use serde::Serialize;

use super::release::{ImageChange, ReleaseReport};
use super::text::{age, seconds, table};
use super::{Report, Scene, release_text};
use crate::api::ReleasePhase;

/// The releases of a Rollout.
#[derive(Serialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct HistoryReport {
    /// The Rollout.
    pub rollout: String,
    /// Its namespace.
    pub namespace: String,
    /// The releases, the newest first.
    pub items: Vec<HistoryItem>,
}

/// One release.
#[derive(Serialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct HistoryItem {
    /// Name of the Release.
    pub name: String,
    /// The revision it was to bring live.
    pub revision: String,
    /// The how-many-eth attempt with it.
    pub attempt: i32,
    /// Whether the change went past the brake.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unbraked: bool,
    /// What became of it.
    pub phase: ReleasePhase,
    /// Containers whose image differed.
    pub images: Vec<ImageChange>,
    /// When it was created.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
    /// From start to end, or to now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub took_seconds: Option<u64>,
    /// Why, as a code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why, in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl From<ReleaseReport> for HistoryItem {
    fn from(of: ReleaseReport) -> Self {
        Self {
            name: of.name,
            revision: of.to.revision,
            attempt: of.attempt,
            unbraked: of.unbraked,
            phase: of.phase,
            images: of.images,
            created_at: of.created_at,
            took_seconds: of.took_seconds,
            reason: of.reason,
            message: of.message,
        }
    }
}

/// The phase, and that no brake held the change.
fn outcome(scene: &Scene, item: &HistoryItem) -> String {
    let phase = release_text::phase(scene, item.phase);
    if item.unbraked { format!("{phase}, past the brake") } else { phase }
}

impl Report for HistoryReport {
    const KIND: &'static str = "History";

    fn text(&self, scene: &Scene) -> String {
        if self.items.is_empty() {
            return format!("There was no release of {} yet.\n", self.rollout);
        }
        let rows: Vec<Vec<String>> = self
            .items
            .iter()
            .map(|item| {
                vec![
                    item.name.clone(),
                    item.revision.clone(),
                    outcome(scene, item),
                    item.created_at.map_or(String::new(), |at| age(at, scene.now)),
                    item.took_seconds.map_or(String::new(), |s| seconds(std::time::Duration::from_secs(s))),
                    release_text::image_words(&item.images),
                    item.message.clone().or_else(|| item.reason.clone()).unwrap_or_default(),
                ]
            })
            .collect();
        table(scene, 0, &["RELEASE", "REVISION", "OUTCOME", "AGE", "TOOK", "IMAGES", "WHY"], &rows)
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(|item| format!("release/{}", item.name)).collect()
    }
}
