//! Rollouts: the picture of one workload, and the list of all.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde::Serialize;

use super::release::{ReleaseReport, RevisionReport};
use super::text::{Tone, age, paint, table};
use super::{Report, Scene, release_text};
use crate::analysis::Source;
use crate::api::{ReleasePhase, Rollout, RolloutPhase};

/// A Rollout.
#[derive(Serialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RolloutReport {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Kind of the workload.
    pub workload_kind: String,
    /// Name of the workload.
    pub workload: String,
    /// Who answers for it: team and contact.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// What it is doing, as in the API; absent before the operator has seen it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<RolloutPhase>,
    /// Why, and if it waits, for what.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Whether releases are kept from starting.
    pub paused: bool,
    /// The revision that serves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stable: Option<RevisionReport>,
    /// The release that runs, or the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// Rejected revisions.
    pub vetoed: Vec<VetoReport>,
    /// What holds true of it.
    pub conditions: Vec<ConditionReport>,
    /// What is not as it should be with its spec.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Since when it exists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
}

/// A rejected revision.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct VetoReport {
    /// The revision.
    pub revision: String,
    /// The release that rejected it.
    pub release: String,
    /// Why, as a code.
    pub reason: String,
    /// When.
    pub at: Timestamp,
    /// How often pods of it that came out again, past the brake, were taken back since.
    #[serde(skip_serializing_if = "is_zero")]
    pub returns: i32,
    /// When that was the last time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub returned_at: Option<Timestamp>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_zero(n: &i32) -> bool {
    *n == 0
}

/// A condition.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ConditionReport {
    /// Its type.
    #[serde(rename = "type")]
    pub of: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Why, as a code.
    pub reason: String,
    /// Why, in a sentence.
    pub message: String,
}

impl From<&Rollout> for RolloutReport {
    fn from(rollout: &Rollout) -> Self {
        let status = rollout.status.clone().unwrap_or_default();
        let owner = rollout.spec.owner.as_ref().map(|owner| {
            [owner.team.as_deref(), owner.contact.as_deref()]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join(" ")
        });
        Self {
            name: rollout.metadata.name.clone().unwrap_or_default(),
            namespace: rollout.metadata.namespace.clone().unwrap_or_default(),
            workload_kind: rollout.spec.workload_ref.kind.clone(),
            workload: rollout.spec.workload_ref.name.clone(),
            owner: owner.filter(|text| !text.is_empty()),
            phase: status.phase,
            message: status.message,
            paused: rollout.spec.paused,
            stable: status.stable.as_ref().map(Into::into),
            release: status.release,
            vetoed: status
                .vetoed
                .iter()
                .map(|veto| VetoReport {
                    revision: veto.revision.clone(),
                    release: veto.release.clone(),
                    reason: veto.reason.clone(),
                    at: veto.at.0,
                    returns: veto.returns,
                    returned_at: veto.returned_at.as_ref().map(|at| at.0),
                })
                .collect(),
            conditions: status
                .conditions
                .iter()
                .map(|condition| ConditionReport {
                    of: condition.type_.clone(),
                    status: condition.status.clone(),
                    reason: condition.reason.clone(),
                    message: condition.message.clone(),
                })
                .collect(),
            warnings: warnings(rollout),
            created_at: rollout.metadata.creation_timestamp.as_ref().map(|at| at.0),
        }
    }
}

/// What `lint` would have said before, and must not be forgotten after.
fn warnings(rollout: &Rollout) -> Vec<String> {
    let metrics = rollout.spec.analysis.as_ref().and_then(|analysis| analysis.metrics.as_ref());
    let insecure =
        metrics.is_some_and(|metrics| Source::resolve(metrics).is_ok_and(|source| source.access().insecure));
    let words = "insecureSkipVerify: whoever answers for the metrics source is trusted";
    insecure.then(|| words.to_owned()).into_iter().collect()
}

impl RolloutReport {
    /// A condition of this type, when it is not `True`.
    pub fn broken(&self, of: &str) -> Option<&ConditionReport> {
        self.conditions.iter().find(|condition| condition.of == of && condition.status != "True")
    }

    fn name(&self) -> String {
        format!("rollout/{}", self.name)
    }
}

/// The name of a phase, for people.
pub fn phase_words(phase: Option<RolloutPhase>) -> &'static str {
    match phase {
        None => "not seen by the operator yet",
        Some(RolloutPhase::Waiting) => "waiting",
        Some(RolloutPhase::Stable) => "stable",
        Some(RolloutPhase::Held) => "held",
        Some(RolloutPhase::Releasing) => "releasing",
        Some(RolloutPhase::Rejected) => "rejected",
        Some(RolloutPhase::Unguarded) => "unguarded",
    }
}

fn phase(scene: &Scene, of: Option<RolloutPhase>) -> String {
    let tone = match of {
        Some(RolloutPhase::Stable) => Tone::Good,
        Some(RolloutPhase::Releasing) => Tone::Strong,
        Some(RolloutPhase::Rejected | RolloutPhase::Unguarded) => Tone::Bad,
        _ => Tone::Care,
    };
    paint(scene, tone, phase_words(of))
}

/// Where one workload stands.
#[derive(Serialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct StatusReport {
    /// The Rollout.
    pub rollout: RolloutReport,
    /// The release that runs, or the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release: Option<ReleaseReport>,
}

impl Report for StatusReport {
    const KIND: &'static str = "RolloutStatus";

    fn text(&self, scene: &Scene) -> String {
        let rollout = &self.rollout;
        let mut text = String::new();
        let _ = writeln!(
            text,
            "{}  {}  ({} {} in namespace {})",
            paint(scene, Tone::Strong, &rollout.name),
            phase(scene, rollout.phase),
            rollout.workload_kind,
            rollout.workload,
            rollout.namespace
        );
        let mut field = |name: &str, value: &str| {
            let _ = writeln!(text, "  {name:<9} {value}");
        };
        let release_says = self.release.as_ref().and_then(|release| release.message.as_ref());
        if let Some(message) = rollout.message.as_ref().filter(|message| Some(*message) != release_says) {
            field("why", message);
        }
        if let Some(owner) = &rollout.owner {
            field("owner", owner);
        }
        if rollout.paused {
            field("paused", "no release starts: spec.paused of the Rollout is true");
        }
        if let Some(stable) = &rollout.stable {
            field("stable", &format!("{}  {}", stable.revision, stable.images.join(", ")));
        }
        for condition in rollout.conditions.iter().filter(|condition| condition.status != "True") {
            let words = format!("{}={}: {}", condition.of, condition.status, condition.message);
            field("attention", &paint(scene, Tone::Care, &words));
        }
        for words in &rollout.warnings {
            field("attention", &paint(scene, Tone::Care, words));
        }
        for veto in &rollout.vetoed {
            let ago = age(veto.at, scene.now);
            let mut words = format!("{}  {} ago by {} ({})", veto.revision, ago, veto.release, veto.reason);
            if let Some(last) = veto.returned_at {
                let times =
                    if veto.returns == 1 { "once".to_owned() } else { format!("{} times", veto.returns) };
                let _ = write!(
                    words,
                    "; another writer brought it back past the brake, taken back {times}, {} ago",
                    age(last, scene.now)
                );
            }
            field("vetoed", &words);
        }
        if let Some(release) = &self.release {
            text.push_str(&release_text::picture(release, scene, 6));
        }
        text
    }

    fn names(&self) -> Vec<String> {
        vec![self.rollout.name()]
    }
}

/// Where all workloads of a namespace stand.
#[derive(Serialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct StatusListReport {
    /// One each.
    pub items: Vec<StatusReport>,
}

impl Report for StatusListReport {
    const KIND: &'static str = "RolloutStatusList";

    fn text(&self, scene: &Scene) -> String {
        if self.items.is_empty() {
            return nothing(scene, "this namespace");
        }
        self.items.iter().map(|item| item.text(scene)).collect::<Vec<_>>().join("\n")
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(|item| item.rollout.name()).collect()
    }
}

/// All Rollouts.
#[derive(Serialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ListReport {
    /// Whether they come from all namespaces.
    pub all_namespaces: bool,
    /// One each.
    pub items: Vec<ListItem>,
}

/// A Rollout in a list.
#[derive(Serialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ListItem {
    /// The Rollout.
    #[serde(flatten)]
    pub rollout: RolloutReport,
    /// What the running release is doing, as in the API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release_phase: Option<ReleasePhase>,
    /// The step of the running release: `2/3`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// The weight that it has reached, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<i32>,
}

impl ListItem {
    /// What it is doing: where the release says more than that there is one, what that is doing.
    fn phase(&self, scene: &Scene) -> String {
        match (self.rollout.phase, self.release_phase) {
            (Some(RolloutPhase::Releasing), Some(of)) if of != ReleasePhase::Progressing => {
                release_text::phase(scene, of)
            }
            (of, _) => phase(scene, of),
        }
    }
}

impl Report for ListReport {
    const KIND: &'static str = "RolloutList";

    fn text(&self, scene: &Scene) -> String {
        if self.items.is_empty() {
            return nothing(scene, if self.all_namespaces { "any namespace" } else { "this namespace" });
        }
        let mut head = vec!["NAME", "WORKLOAD", "PHASE", "STEP", "WEIGHT", "STABLE", "AGE", "WHY"];
        if self.all_namespaces {
            head.insert(0, "NAMESPACE");
        }
        let rows: Vec<Vec<String>> = self
            .items
            .iter()
            .map(|item| {
                let rollout = &item.rollout;
                let mut row = vec![
                    rollout.name.clone(),
                    rollout.workload.clone(),
                    item.phase(scene),
                    item.step.clone().unwrap_or_default(),
                    item.weight.map_or(String::new(), |weight| format!("{weight} %")),
                    rollout.stable.as_ref().map_or(String::new(), |stable| stable.revision.clone()),
                    rollout.created_at.map_or(String::new(), |at| age(at, scene.now)),
                    rollout.message.clone().unwrap_or_default(),
                ];
                if self.all_namespaces {
                    row.insert(0, rollout.namespace.clone());
                }
                row
            })
            .collect();
        table(scene, 0, &head, &rows)
    }

    fn names(&self) -> Vec<String> {
        self.items.iter().map(|item| item.rollout.name()).collect()
    }
}

fn nothing(scene: &Scene, place: &str) -> String {
    format!("There is no Rollout in {place}. `{} init DEPLOYMENT` writes one.\n", scene.program)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn trust_in_whoever_answers_is_said_in_every_status() {
        let warned = |tls: serde_json::Value| {
            let rollout: Rollout = serde_json::from_value(json!({
                "apiVersion": "belay.dev/v1alpha1", "kind": "Rollout", "metadata": {"name": "web"},
                "spec": {
                    "workloadRef": {"kind": "Deployment", "name": "web"},
                    "analysis": {"metrics": {"prometheus": {"url": "https://p", "tls": tls}}},
                },
            }))
            .unwrap();
            RolloutReport::from(&rollout).warnings
        };
        assert_eq!(
            warned(json!({"insecureSkipVerify": true})),
            ["insecureSkipVerify: whoever answers for the metrics source is trusted"]
        );
        assert!(warned(json!({"serverName": "p"})).is_empty());
    }
}
