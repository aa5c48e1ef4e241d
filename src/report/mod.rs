//! What people and programs read: one model per answer, many renderers.
//!
//! Purpose: own structs, built from the custom resources, that become text for people or JSON for programs.
//! May touch: `api`, time as a parameter. Must never: do I/O, read a clock, decide anything.
//!
//! # The JSON format, `schemaVersion: "v1"`
//!
//! Every answer is one object with `schemaVersion` and `kind`, and the fields of the struct of that name here,
//! in camelCase. Within v1 fields are only added. Times are RFC 3339 in UTC, lengths of time are seconds,
//! shares are percent, and a field that does not apply is absent. Errors go to standard error, as
//! `{"schemaVersion": "v1", "kind": "Error", "error": {kind, code, what, why, next[]}}`.
//!
//! | kind | command | struct |
//! |---|---|---|
//! | `RolloutStatus` | `status` with a name | [`rollout::StatusReport`] |
//! | `RolloutStatusList` | `status` without a name | [`rollout::StatusListReport`] |
//! | `RolloutList` | `list` | [`rollout::ListReport`] |
//! | `History` | `history` | [`history::HistoryReport`] |
//! | `Release` | `explain`, `release`, `status --wait` | [`release::ReleaseReport`] |
//! | `Replay` | `replay` of a release | [`replay::ReplayReport`] |
//! | `Streams` | `replay --looks` | [`streams::StreamsReport`] |
//! | `Change` | `release --dry-run`, `--no-wait`, `undo` | [`change::ChangeReport`] |
//! | `Command` | `promote`, `pause`, `resume`, `abort`, `approve`, `retry` | [`command::CommandReport`] |
//! | `Lint` | `lint` | [`lint::LintReport`] |
//! | `Checks` | `doctor` | [`checks::ChecksReport`] |
//! | `Version` | `version` | [`version::VersionReport`] |
//! | `Objects` | `install`, `uninstall` | [`objects::ObjectsReport`] |

pub mod analyze;
pub mod change;
mod chart;
pub mod check_runs;
pub mod checks;
pub mod command;
pub mod guard;
pub mod history;
pub mod lint;
pub mod looks;
pub mod objects;
pub mod release;
pub mod release_text;
pub mod replay;
pub mod rollout;
pub mod streams;
pub mod svg;
pub mod text;
pub mod traffic;
pub mod version;

use jiff::tz::TimeZone;
use serde::Serialize;
use serde_json::Value;

pub use text::seconds;

/// The version of the JSON format.
pub const SCHEMA_VERSION: &str = "v1";

/// What a text depends on besides its model.
#[derive(Clone, Debug)]
pub struct Scene {
    /// The present moment, for ages.
    pub now: jiff::Timestamp,
    /// The time zone that times of day are shown in.
    pub zone: TimeZone,
    /// Whether colours may be used.
    pub color: bool,
    /// Whether characters beyond ASCII may be used to draw.
    pub unicode: bool,
    /// Columns of the terminal.
    pub width: usize,
    /// How this program was called, for the commands it proposes.
    pub program: String,
}

/// An answer.
pub trait Report: Serialize {
    /// Its `kind` in JSON.
    const KIND: &'static str;
    /// For people.
    fn text(&self, scene: &Scene) -> String;
    /// What it speaks of, as `kind/name`.
    fn names(&self) -> Vec<String>;
}

/// How an answer is rendered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rendering {
    /// For people.
    Text,
    /// For programs.
    Json,
    /// The JSON as YAML.
    Yaml,
    /// Only `kind/name`.
    Names,
}

/// Why an answer could not be rendered.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// The model does not become JSON.
    #[error("failed to write JSON")]
    Json(#[from] serde_json::Error),
    /// The model does not become YAML.
    #[error("failed to write YAML")]
    Yaml(#[from] serde_saphyr::ser::Error),
}

/// Renders an answer; ends with a line break unless it is empty.
pub fn render<R: Report>(report: &R, how: Rendering, scene: &Scene) -> Result<String, RenderError> {
    Ok(match how {
        Rendering::Text => report.text(scene),
        Rendering::Json => format!("{:#}\n", envelope(report)?),
        Rendering::Yaml => yaml(&envelope(report)?)?,
        Rendering::Names => report.names().into_iter().fold(String::new(), |text, name| text + &name + "\n"),
    })
}

/// Any JSON value as YAML.
pub fn yaml(value: &Value) -> Result<String, RenderError> {
    let mut text = serde_saphyr::to_string(value)?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

fn envelope<R: Report>(report: &R) -> Result<Value, RenderError> {
    let mut value = serde_json::to_value(report)?;
    if let Value::Object(fields) = &mut value {
        fields.insert("schemaVersion".to_owned(), SCHEMA_VERSION.into());
        fields.insert("kind".to_owned(), R::KIND.into());
    }
    Ok(value)
}
