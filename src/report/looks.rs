//! The recorded looks of a guard, unpacked, with the evidence after each of them.

use jiff::Timestamp;
use serde::Serialize;

use super::release::Event;
use crate::analysis::{GuardPlan, Plan, outcome};
use crate::api::evidence::{Counts, GuardState};

/// One look.
#[derive(Serialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct LookReport {
    /// Seconds since the first look of the release.
    pub second: f64,
    /// What happened since the look before: one entry for a ratio, one per edge for a histogram. Of a gauge the one
    /// entry holds the means of a minute as its bad events, over so many looks as its totals.
    pub counts: Vec<Counts>,
    /// Of a histogram with a tolerance in time: stable's events beyond the longer time, one entry per edge.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shifted: Vec<f64>,
    /// What the evidence of this look was divided by, for scattered pods.
    pub dispersion: f64,
    /// What the limits were widened by at this look, for unequal pods.
    pub spread: f64,
    /// Evidence that the canary is worse, after this look.
    pub strict: f64,
    /// Evidence that it is beyond the tolerance, after this look.
    pub margin: f64,
    /// Evidence that it is safe, after this look.
    pub safe: f64,
}

/// The looks that a guard recorded, replayed. `starts` are the times at which steps began.
pub(super) fn looks(state: &GuardState, guard: &GuardPlan, plan: &Plan, starts: &[Start]) -> Vec<LookReport> {
    let replayed = outcome(state, guard, plan, 1, &resets(starts)).looks;
    let report = |(look, after): (&crate::api::evidence::Look, crate::analysis::Replayed)| LookReport {
        second: look.second,
        counts: look.counts.clone(),
        shifted: look.shifted.clone(),
        dispersion: look.dispersion,
        spread: look.spread,
        strict: after.strict,
        margin: after.margin,
        safe: after.safe,
    };
    state.recent.iter().zip(replayed).map(report).collect()
}

/// The beginning of a step, at which the proof of safety starts anew.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Start {
    /// The step, from 1; nothing after the last one.
    pub step: Option<u32>,
    /// Seconds since the first look, in whole milliseconds as those of looks.
    pub second: f64,
}

/// When the steps began, as the timeline tells. The first one begins with the release.
pub(super) fn starts(timeline: &[Event], first_look_at: Option<Timestamp>) -> Vec<Start> {
    let Some(first) = first_look_at else { return Vec::new() };
    let start = |event: &Event| {
        let step = match event.reason.as_str() {
            "ReleaseStarted" | "Caught" => Some(1),
            "StepStarted" => event.step,
            "Promoting" | "LetGo" => None,
            _ => return None,
        };
        // As the times of looks are rounded: one at the moment of a passed step was taken before it.
        let second = (event.at.duration_since(first).as_secs_f64() * 1000.0).round() / 1000.0;
        Some(Start { step, second })
    };
    let mut starts: Vec<Start> = timeline.iter().filter_map(start).collect();
    starts.dedup_by_key(|start| start.step);
    starts
}

/// The times of [`starts`] alone.
pub(super) fn resets(starts: &[Start]) -> Vec<f64> {
    starts.iter().map(|start| start.second).collect()
}
