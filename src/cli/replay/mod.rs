//! `replay`: what would have happened with other guards; reads, and changes nothing.

mod csv;
mod looks;

use std::path::Path;

use super::args::{ConfidenceChoice, Replay};
use super::failure::{Exit, Failure, Kind, chain};
use super::session::Session;
use super::{history, lint};
use crate::analysis::{ToleranceError, WhatIf, WhatIfError};
use crate::api::Release;
use crate::api::analysis::Confidence;
use crate::clock;
use crate::report::replay::{ReplayError, ReplayReport};

/// Replays a release, or judges streams of counts.
pub async fn run(session: &Session, args: &Replay) -> Result<Exit, Failure> {
    if let Some(file) = &args.looks {
        return looks::run(session, args, file);
    }
    // clap does not hold `requires` against what conflicts with the other flags.
    if args.raw || args.planned_looks.is_some() {
        return Err(Failure::new(Kind::Usage, "failed to find out what to replay")
            .because("--raw and --planned-looks go with --looks FILE")
            .hint("leave them out to replay a release"));
    }
    let release = if let Some(file) = &args.file {
        written(file)?
    } else {
        let cluster = session.cluster().await?;
        history::meant(&cluster, args.name.as_deref(), "replay").await?
    };
    let what = WhatIf {
        guard: args.guard.clone(),
        tolerate: args.tolerate.clone(),
        confidence: args.confidence.map(Into::into),
        interval: args.interval,
    };
    let name = release.metadata.name.clone().unwrap_or_default();
    let report = ReplayReport::new(&release, clock::now(), &what).map_err(|error| untold(&name, &error))?;
    session.print(&report)?;
    Ok(Exit::OK)
}

/// A Release as `kubectl get` prints it.
fn written(file: &Path) -> Result<Release, Failure> {
    let text = lint::read(file)?;
    let refused = |why: String| {
        Failure::new(Kind::Failed, format!("failed to read a Release from {}", file.display()))
            .because(why)
            .hint("write the file with `kubectl get release.belay.dev NAME -o yaml`")
    };
    let value: serde_json::Value = serde_saphyr::from_str(&text)
        .map_err(|error| refused(format!("this is not YAML: {}", first_line(&error.to_string()))))?;
    match value.get("kind").and_then(serde_json::Value::as_str) {
        Some("Release") => serde_json::from_value(value).map_err(|error| refused(error.to_string())),
        Some(other) => Err(refused(format!("its kind is {other}"))),
        None => Err(refused("it has no kind".to_owned())),
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// Why a release cannot be replayed so.
fn untold(release: &str, error: &ReplayError) -> Failure {
    let what = format!("failed to replay {release}");
    let failure = |kind| Failure::new(kind, what.clone()).because(chain(error));
    match error {
        ReplayError::Plan(_) => failure(Kind::Failed),
        ReplayError::NoLooks => failure(Kind::Failed).hint("`belay explain` tells what it waits for"),
        ReplayError::WhatIf(wrong) => match wrong {
            WhatIfError::NoGuards => {
                failure(Kind::Failed).hint("guards are set in `spec.analysis.guards` of the Rollout")
            }
            WhatIfError::Unknown { .. } => failure(Kind::Usage).hint("name one of them with --guard"),
            WhatIfError::Check(_) => {
                failure(Kind::Usage).hint("name a guard that compares numbers with --guard")
            }
            WhatIfError::Which { .. } => failure(Kind::Usage).hint("say which one with --guard"),
            WhatIfError::InTime(_) => failure(Kind::Usage)
                .hint("try another --confidence or --interval; they need no other buckets"),
            WhatIfError::Tolerance { source, .. } => {
                Failure::new(Kind::Usage, what).because(source.caret()).hint(example(source))
            }
            WhatIfError::Interval { .. } => failure(Kind::Usage).hint("choose one of those with --interval"),
        },
    }
}

fn example(error: &ToleranceError) -> String {
    format!("write it as --tolerate '{}'", error.example)
}

impl From<ConfidenceChoice> for Confidence {
    fn from(choice: ConfidenceChoice) -> Self {
        match choice {
            ConfidenceChoice::Careful => Self::Careful,
            ConfidenceChoice::Standard => Self::Standard,
            ConfidenceChoice::Fast => Self::Fast,
        }
    }
}
