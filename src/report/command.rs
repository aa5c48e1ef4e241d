//! A command to a release, and the operator's answer.

use serde::Serialize;
use serde_json::Value;

use super::text::{Tone, paint};
use super::{Report, Scene, release_text};
use crate::api::release::Verb;

/// A command to a release.
#[derive(Serialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CommandReport {
    /// The release it was given to.
    pub release: String,
    /// Its namespace.
    pub namespace: String,
    /// What was asked.
    pub verb: Verb,
    /// Of which step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<i32>,
    /// What became of it.
    pub answer: Answer,
    /// The operator's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// With `--dry-run`, the JSON Patch that would be sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch: Option<Value>,
}

/// What became of a command.
#[derive(Serialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// The operator did it.
    Accepted,
    /// The operator refused it.
    Refused,
    /// It is written down; the operator has not answered, or was not waited for.
    Sent,
    /// Nothing was sent.
    DryRun,
}

impl Report for CommandReport {
    const KIND: &'static str = "Command";

    fn text(&self, scene: &Scene) -> String {
        let verb = release_text::verb_words(self.verb);
        let step = self.step.map_or(String::new(), |step| format!(" of step {step}"));
        let message = self.message.as_ref().map_or(String::new(), |message| format!(": {message}"));
        let name = &self.release;
        match self.answer {
            Answer::Accepted => {
                format!("{name}: {verb}{step} {}{message}\n", paint(scene, Tone::Good, "accepted"))
            }
            Answer::Refused => {
                format!("{name}: {verb}{step} {}{message}\n", paint(scene, Tone::Bad, "refused"))
            }
            Answer::Sent => format!("{name}: {verb}{step} is written down{message}\n"),
            Answer::DryRun => {
                let patch = self.patch.as_ref().map(ToString::to_string).unwrap_or_default();
                format!(
                    "{name}: {verb}{step} would be sent; nothing was. With kubectl:\n  kubectl patch release.belay.dev {name} \
                     -n {} --type=json -p '{}'\n",
                    self.namespace,
                    // Inside single quotes a shell knows only one special character.
                    patch.replace('\'', r"'\''")
                )
            }
        }
    }

    fn names(&self) -> Vec<String> {
        vec![format!("release/{}", self.release)]
    }
}
