//! What the guards of a Rollout see without a release.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::text::{Tone, paint, plural, seconds, table, wrap};
use super::{Report, Scene};

/// A comparison of two halves of the pods that serve.
#[derive(Serialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AnalyzeReport {
    /// The Rollout.
    pub rollout: String,
    /// Its namespace.
    pub namespace: String,
    /// How long it was looked.
    pub looked_seconds: u64,
    /// The pods of the half that stood for the canary.
    pub canary: Vec<String>,
    /// The pods of the other half.
    pub stable: Vec<String>,
    /// Requests were not shared as the pods are; then a release would be held.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skewed: Option<String>,
    /// The guards.
    pub guards: Vec<AnalyzedGuard>,
}

/// One guard.
#[derive(Serialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AnalyzedGuard {
    /// Its name.
    pub name: String,
    /// What it tolerates.
    pub tolerate: String,
    /// Looks with data.
    pub looks: u32,
    /// Why the last look had no data of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_data: Option<String>,
    /// Whether it would have rolled the half back.
    pub would_roll_back: bool,
    /// By how much its evidence is divided, for events that come in bursts.
    pub dispersion: f64,
    /// By how much its limits are widened, for pods that differ.
    pub spread: f64,
    /// What it saw, in sentences.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub words: Option<String>,
    /// About how long the proof takes in each step; nothing where that cannot be told.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub proof: Vec<StepProof>,
}

/// How long a proof takes in one step.
#[derive(Serialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct StepProof {
    /// The step's weight in percent.
    pub weight: i32,
    /// Seconds, at the traffic that was seen; nothing when it would not come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
    /// The step's `maxDuration` in seconds: without proof by then the release is inconclusive.
    pub at_most_seconds: u64,
}

impl AnalyzeReport {
    /// Whether a guard would have rolled back a version that is no different.
    pub fn would_roll_back(&self) -> bool {
        self.guards.iter().any(|guard| guard.would_roll_back)
    }

    /// Whether every guard had data.
    pub fn sees(&self) -> bool {
        self.guards.iter().all(|guard| guard.looks > 0)
    }
}

impl Report for AnalyzeReport {
    const KIND: &'static str = "Analysis";

    fn text(&self, scene: &Scene) -> String {
        let mut text = format!(
            "{}/{}: looked for {} at {} as canary and {} as stable, all of the version that serves\n",
            self.namespace,
            paint(scene, Tone::Strong, &self.rollout),
            seconds(Duration::from_secs(self.looked_seconds)),
            plural(self.canary.len(), "pod"),
            plural(self.stable.len(), "pod"),
        );
        if let Some(skewed) = &self.skewed {
            text.push_str(&wrap(scene, 0, &paint(scene, Tone::Bad, skewed)));
        }
        for guard in &self.guards {
            let verdict = match (guard.looks, guard.would_roll_back) {
                (0, _) => paint(scene, Tone::Bad, "sees no data"),
                (_, true) => {
                    paint(scene, Tone::Bad, "would roll back, and nothing is different: see its tolerance")
                }
                (_, false) => paint(scene, Tone::Good, "sees data, and finds nothing"),
            };
            let _ = writeln!(text, "\n{}  {verdict}", paint(scene, Tone::Strong, &guard.name));
            for words in [&guard.words, &guard.no_data].into_iter().flatten() {
                text.push_str(&wrap(scene, 2, words));
            }
            let rows: Vec<Vec<String>> = guard.proof.iter().map(|step| proof_row(scene, step)).collect();
            if !rows.is_empty() {
                text.push_str(&table(scene, 2, &["STEP", "PROOF TAKES ABOUT", "MAXDURATION"], &rows));
            }
        }
        text
    }

    fn names(&self) -> Vec<String> {
        vec![format!("rollout.belay.dev/{}", self.rollout)]
    }
}

fn proof_row(scene: &Scene, step: &StepProof) -> Vec<String> {
    let time = |s: u64| seconds(Duration::from_secs(s));
    let takes = match step.seconds {
        None => paint(scene, Tone::Bad, "never, at this traffic"),
        Some(takes) if takes > step.at_most_seconds => {
            paint(scene, Tone::Bad, &format!("{}, longer than the step may last", time(takes)))
        }
        Some(takes) => time(takes),
    };
    vec![format!("{} %", step.weight), takes, time(step.at_most_seconds)]
}
