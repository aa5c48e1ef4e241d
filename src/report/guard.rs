//! What one guard saw, and how much evidence there is.

use serde::Serialize;

use super::check_runs::CheckReport;
use super::looks::LookReport;
use crate::analysis::{Compared, GuardPlan, Plan, Quantile, explain, explanation_text};
use crate::api::Release;
use crate::api::guard::Guard;

/// One guard.
#[derive(Serialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct GuardReport {
    /// Its name.
    pub name: String,
    /// What it tolerates.
    pub tolerate: String,
    /// Whether there was a look with data yet.
    pub seen: bool,
    /// What was compared since the start: one entry for a ratio, one per edge for a histogram, none for a gauge.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub compared: Vec<ComparedReport>,
    /// The entry of `compared` with the most evidence that it is beyond the tolerance.
    #[serde(skip)]
    pub worst: usize,
    /// What edges and means count in; empty where the metric's name does not say.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub unit: &'static str,
    /// Of a histogram: between which edges the quantiles are, in its unit.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub quantiles: Vec<QuantileReport>,
    /// About how many seconds the proof of safety still takes at the traffic so far; absent when it is there, would not
    /// come, or cannot be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds_to_proof: Option<f64>,
    /// Of a gauge: the means since the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean: Option<MeanReport>,
    /// Of a check: how its runs went.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check: Option<CheckReport>,
    /// How much is proven, and how much is needed. Of a check it is either nothing or beyond every bound.
    pub evidence: EvidenceReport,
    /// The whole in sentences.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub words: Option<String>,
    /// The looks that are kept, oldest first. Only `explain` shows them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub looks: Vec<LookReport>,
    /// Older looks that are no longer kept. If there are any, the evidence of `looks` begins after them, at 1.
    #[serde(skip_serializing_if = "is_zero")]
    pub looks_gone: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// One comparison of counted events.
#[derive(Serialize, Clone, Copy, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ComparedReport {
    /// Of a histogram: an event counts when it is slower than this, in the metric's unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slower_than: Option<f64>,
    /// The canary's events.
    pub canary: Share,
    /// Stable's events.
    pub stable: Share,
}

/// Between which edges a quantile of both versions is; an edge that is not there is not known.
#[derive(Serialize, Clone, Copy, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct QuantileReport {
    /// Which: 0.95 is the time that 95 of 100 requests take at most.
    pub q: f64,
    /// Of the canary, at least.
    pub canary_from: f64,
    /// Of the canary, at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary_to: Option<f64>,
    /// Of stable, at least.
    pub stable_from: f64,
    /// Of stable, at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stable_to: Option<f64>,
}

impl From<&Quantile> for QuantileReport {
    fn from(found: &Quantile) -> Self {
        Self {
            q: found.q,
            canary_from: found.canary.low,
            canary_to: found.canary.high,
            stable_from: found.stable.low,
            stable_to: found.stable.high,
        }
    }
}

/// The means of a gauge.
#[derive(Serialize, Clone, Copy, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MeanReport {
    /// Of the canary.
    pub canary: f64,
    /// Of stable.
    pub stable: f64,
}

/// Bad events among all.
#[derive(Serialize, Clone, Copy, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Share {
    /// Bad events.
    pub bad: f64,
    /// All events.
    pub total: f64,
    /// Their share; absent without events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percent: Option<f64>,
}

/// The three e-values of a guard.
#[derive(Serialize, Clone, Copy, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct EvidenceReport {
    /// That the canary is worse at all; a rollback needs this and the next.
    pub worse: Proof,
    /// That the canary is beyond the tolerance.
    pub beyond_tolerance: Proof,
    /// That the canary is safe, in the present step; an advance needs this.
    pub safe: Proof,
}

/// An e-value and its bound.
#[derive(Serialize, Clone, Copy, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Proof {
    /// How much there is.
    pub value: f64,
    /// How much is needed.
    pub needs: f64,
    /// Whether that is reached.
    pub reached: bool,
}

impl Proof {
    pub(super) fn new(value: f64, needs: f64) -> Self {
        // JSON has no infinity; such a value is beyond every bound anyhow.
        Self { value: if value.is_finite() { value } else { f64::MAX }, needs, reached: value >= needs }
    }
}

/// The guards of a release, in its order.
pub(super) fn guards(release: &Release) -> Vec<GuardReport> {
    let Some(analysis) = &release.spec.analysis else { return Vec::new() };
    // The operator refuses a plan that cannot be resolved, and says so in the release's message.
    let Ok(plan) = Plan::resolve(analysis, release.spec.planned_looks) else { return Vec::new() };
    let state = release.status.as_ref().and_then(|status| status.analysis.as_ref());
    let report = |(guard, planned): (&Guard, &GuardPlan)| {
        let found = state.and_then(|state| state.guards.iter().find(|known| known.name == guard.name));
        let known = found.cloned().unwrap_or_default();
        let seen = known.looks > 0;
        let explained = explain(&known, planned, &plan);
        let words = (seen || explained.check.is_some()).then(|| explanation_text(&explained, ""));
        let compared = |c: &Compared| ComparedReport {
            slower_than: c.edge,
            canary: share(c.counts.canary_bad, c.counts.canary_total),
            stable: share(c.counts.stable_bad, c.counts.stable_total),
        };
        GuardReport {
            name: guard.name.clone(),
            tolerate: planned.tolerated.to_string(),
            seen,
            compared: explained.compared.iter().map(compared).collect(),
            worst: explained.worst,
            unit: explained.unit,
            quantiles: explained.quantiles.iter().map(QuantileReport::from).collect(),
            seconds_to_proof: explained.seconds_to_proof.map(f64::ceil),
            mean: explained.gauge.map(|[canary, stable]| MeanReport { canary, stable }),
            check: explained.check.as_ref().map(CheckReport::new),
            evidence: EvidenceReport {
                worse: Proof::new(known.strict, plan.needed_strict(planned)),
                beyond_tolerance: Proof::new(known.margin, plan.needed_margin),
                safe: Proof::new(known.safe, plan.needed_safe()),
            },
            words: words.map(|words| words.split_whitespace().collect::<Vec<_>>().join(" ")),
            looks: Vec::new(),
            looks_gone: 0,
        }
    };
    analysis.guards.iter().zip(&plan.guards).map(report).collect()
}

fn share(bad: f64, total: f64) -> Share {
    Share { bad, total, percent: (total > 0.0).then(|| 100.0 * bad / total) }
}
