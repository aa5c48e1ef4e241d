//! Why a release was rolled back, held or let on, in numbers and in words.

use std::fmt::Write as _;

use super::evidence::{CAP, take};
use super::{GuardPlan, Interval, Plan, Tolerance, ratio_interval};
use crate::api::evidence::{Counts, GuardState};

/// All numbers of an explanation of one guard.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The guard's name.
    pub guard: String,
    /// Totals since the start of the release.
    pub counts: Counts,
    /// Share of bad events of the canary; nothing without events.
    pub canary_rate: Option<f64>,
    /// Share of bad events of stable; nothing without events.
    pub stable_rate: Option<f64>,
    /// Canary's share over stable's; nothing when stable has none.
    pub ratio: Option<f64>,
    /// Anytime 99 % interval of the ratio.
    pub interval: Interval,
    /// Evidence that the canary is worse than stable.
    pub strict: f64,
    /// What a rollback needs of it.
    pub needed_strict: f64,
    /// Evidence that it is beyond the tolerance.
    pub margin: f64,
    /// What a rollback needs of it.
    pub needed_margin: f64,
    /// Evidence that it is safe, at the present step.
    pub safe: f64,
    /// What leaving the step needs of it.
    pub needed_safe: f64,
    /// The tolerance.
    pub tolerance: Tolerance,
    /// The share that it allows at stable's present rate.
    pub tolerated_rate: Option<f64>,
    /// Looks with data.
    pub looks: u32,
    /// The most that one look may count.
    pub cap: f64,
    /// One in how many harmless releases gets as far as a rollback, at most.
    pub one_in: f64,
    /// What the evidence of the last look was divided by, for scattered pods.
    pub dispersion: f64,
    /// What the limits of the last look were widened by, for unequal pods.
    pub spread: f64,
    /// After a rollback: the least tolerance, to one decimal of its factor, with which the guard would not have
    /// failed. Nothing when looks are no longer recorded, or no factor up to 1000 would have done.
    pub would_run_with: Option<Tolerance>,
}

/// The numbers behind the present state of a guard.
pub fn explain(state: &GuardState, guard: &GuardPlan, plan: &Plan) -> Explanation {
    let counts = state.totals;
    let canary_rate = share(counts.canary_bad, counts.canary_total);
    let stable_rate = share(counts.stable_bad, counts.stable_total);
    let last = state.recent.last();
    Explanation {
        guard: guard.name.clone(),
        counts,
        canary_rate,
        stable_rate,
        ratio: canary_rate
            .zip(stable_rate)
            .filter(|(_, stable)| *stable > 0.0)
            .map(|(canary, stable)| canary / stable),
        interval: ratio_interval(state, 0.01),
        strict: state.strict,
        needed_strict: plan.needed_strict(),
        margin: state.margin,
        needed_margin: plan.needed_margin,
        safe: state.safe,
        needed_safe: plan.needed_safe(),
        tolerance: guard.tolerance,
        tolerated_rate: stable_rate.map(|rate| guard.tolerance.at(rate).min(1.0)),
        looks: state.looks,
        cap: CAP,
        one_in: plan.alpha_inverse,
        dispersion: last.map_or(1.0, |look| look.dispersion),
        spread: last.map_or(1.0, |look| look.spread),
        would_run_with: would_run_with(state, guard, plan),
    }
}

fn share(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole)
}

/// The least factor, in tenths, at which the recorded looks give no rollback.
fn would_run_with(state: &GuardState, guard: &GuardPlan, plan: &Plan) -> Option<Tolerance> {
    if state.looks as usize != state.recent.len() {
        return None;
    }
    let with = |tenths: u32| Tolerance { factor: f64::from(tenths) / 10.0, ..guard.tolerance };
    let (mut fails, mut holds) = (10, 10_000);
    if !would_fail(state, guard.tolerance, plan) || would_fail(state, with(holds), plan) {
        return None;
    }
    while holds - fails > 1 {
        let middle = u32::midpoint(fails, holds);
        if would_fail(state, with(middle), plan) {
            fails = middle;
        } else {
            holds = middle;
        }
    }
    Some(with(holds))
}

/// Whether the recorded looks fail the guard under another tolerance. Exact as long as all looks are recorded.
pub(super) fn would_fail(state: &GuardState, tolerance: Tolerance, plan: &Plan) -> bool {
    let mut replayed = GuardState::default();
    state.recent.iter().any(|look| {
        take(&mut replayed, tolerance.limit(), plan.planned_looks, look);
        replayed.strict >= plan.needed_strict() && replayed.margin >= plan.needed_margin
    })
}

/// An explanation in three sentences. `headline` says what became of it, such as `Rolled back after 35 s.`
pub fn explanation_text(explanation: &Explanation, headline: &str) -> String {
    let e = explanation;
    let mut text = format!(
        "{headline} Guard {}: canary {} against stable {}{}.\n",
        e.guard,
        counted(e.counts.canary_bad, e.counts.canary_total, e.canary_rate),
        counted(e.counts.stable_bad, e.counts.stable_total, e.stable_rate),
        compared(e),
    );
    let tolerated = e
        .tolerated_rate
        .filter(|_| e.tolerance.points > 0.0 || e.tolerance.factor > 1.0)
        .map(|rate| format!(" ({} at stable's present rate)", percent(rate)))
        .unwrap_or_default();
    let _ = write!(
        text,
        "Evidence that it is worse: {} (needs {}). Evidence that it is beyond the tolerance {}{tolerated}: {} (needs \
         {}). {} look{}; no look may count more than {:.2}x.",
        amount(e.strict),
        amount(e.needed_strict),
        e.tolerance,
        amount(e.margin),
        amount(e.needed_margin),
        grouped(f64::from(e.looks)),
        if e.looks == 1 { "" } else { "s" },
        e.cap,
    );
    if e.dispersion > 1.05 {
        let _ = write!(text, " Stable's bad events come in bursts: evidence counts 1/{:.1}.", e.dispersion);
    }
    if e.spread > 1.0 {
        let _ = write!(text, " Stable's pods differ among themselves: limits widened by {:.2}x.", e.spread);
    }
    text.push('\n');
    if e.strict >= e.needed_strict && e.margin >= e.needed_margin {
        let _ = write!(
            text,
            "A release that is no worse than stable gets here in fewer than 1 of {} releases.",
            grouped(e.one_in)
        );
        if let Some(tolerance) = e.would_run_with {
            let _ = write!(text, " With a tolerance of about {tolerance} it would still be running.");
        }
    } else {
        let _ = write!(
            text,
            "Evidence that it is safe at this step: {} (needs {}).",
            amount(e.safe),
            amount(e.needed_safe)
        );
    }
    text
}

fn counted(bad: f64, total: f64, rate: Option<f64>) -> String {
    match rate {
        Some(rate) => format!("{} of {} ({})", grouped(bad), grouped(total), percent(rate)),
        None => "no events".to_owned(),
    }
}

/// `: 12.7x, anytime 99 % interval 3.9x to 38x`, as far as it is known.
fn compared(e: &Explanation) -> String {
    let interval = match (e.interval.low > 0.0, e.interval.high) {
        (true, Some(high)) => format!("{}x to {}x", digits(e.interval.low, 2), digits(high, 2)),
        (true, None) => format!("above {}x", digits(e.interval.low, 2)),
        (false, Some(high)) => format!("below {}x", digits(high, 2)),
        (false, None) => String::new(),
    };
    match (e.ratio, interval.is_empty()) {
        (Some(ratio), true) => format!(": {}x", digits(ratio, 3)),
        (Some(ratio), false) => format!(": {}x, anytime 99 % interval {interval}", digits(ratio, 3)),
        (None, true) => String::new(),
        (None, false) => format!(": anytime 99 % interval of the ratio {interval}"),
    }
}

/// A share with two decimals, or two digits when it is smaller than that.
fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent >= 0.01 || percent <= 0.0 {
        format!("{percent:.2} %")
    } else {
        format!("{} %", digits(percent, 2))
    }
}

/// Evidence: no more precise than it is worth reading.
fn amount(evidence: f64) -> String {
    if evidence >= 1e6 {
        "more than 1,000,000".to_owned()
    } else if evidence >= 10.0 {
        grouped(evidence.floor())
    } else {
        // Downwards, so that what is shown never claims a bound that is not reached.
        format!("{}", (evidence * 10.0).floor() / 10.0)
    }
}

/// With `count` significant digits, and no more decimals than those.
fn digits(x: f64, count: i32) -> String {
    if !(x.is_finite() && x > 0.0) {
        return format!("{x}");
    }
    let mut magnitude = 0;
    let mut rest = x;
    while rest >= 10.0 {
        rest /= 10.0;
        magnitude += 1;
    }
    while rest < 1.0 {
        rest *= 10.0;
        magnitude -= 1;
    }
    let decimals = usize::try_from(count - 1 - magnitude).unwrap_or(0);
    if magnitude >= 3 { grouped(x) } else { format!("{x:.decimals$}") }
}

/// A whole number with commas between thousands.
fn grouped(x: f64) -> String {
    let digits = format!("{x:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
