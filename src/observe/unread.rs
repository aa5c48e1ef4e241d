//! Objects of our own kinds that this program cannot read, and what can still be told of them.
//!
//! Purpose: a Rollout or Release that a newer version wrote is left alone, but not forgotten: it still governs its
//! workload, and a release that runs still runs. May touch: raw JSON. Must never: guess what a field means.

use jiff::Timestamp;
use serde_json::Value;

use super::views::{text, time};
use crate::api;
use crate::decide::UnreadRelease;

/// Longest text of an error that is kept.
const DETAIL: usize = 300;

/// An object that cannot be read.
#[derive(Clone, Debug)]
pub(super) struct Unread {
    /// Of a Rollout: the name of its workload.
    pub workload: Option<String>,
    /// Of a Release: the name of its Rollout.
    pub rollout: Option<String>,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// Its name, why it cannot be read, and whether a Release is over.
    pub view: UnreadRelease,
}

impl Unread {
    /// What can be told of an object, and the error that came of reading it.
    pub fn new(object: &Value, error: &serde_json::Error) -> Self {
        let owner = || {
            let owners = object.pointer("/metadata/ownerReferences")?.as_array()?;
            text(owners.iter().find(|o| o["kind"] == "Rollout")?, "/name")
        };
        let label =
            || object.pointer("/metadata/labels")?.get(api::ROLLOUT_LABEL)?.as_str().map(str::to_owned);
        let phase = text(object, "/status/phase").unwrap_or_default();
        Self {
            workload: text(object, "/spec/workloadRef/name"),
            rollout: text(object, "/spec/rollout").or_else(label).or_else(owner),
            created: time(object, "/metadata/creationTimestamp"),
            view: UnreadRelease {
                name: text(object, "/metadata/name").unwrap_or_default(),
                detail: error.to_string().chars().filter(|c| !c.is_control()).take(DETAIL).collect(),
                ended: ["Promoted", "RolledBack", "Superseded"].contains(&phase.as_str()),
            },
        }
    }
}
