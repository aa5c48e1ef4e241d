//! Why a release was rolled back, held or let on, in numbers.

use super::evidence::{CAP, NEEDED_SAFE, Rule, SAFE_GRID, wealth};
use super::replay::would_fail;
use super::{GuardPlan, Interval, Plan, Quantile, Tolerance, Tolerated, quantiles, ratio_interval};
use crate::api::evidence::{CheckState, Counts, GuardState};

/// All numbers of an explanation of one guard.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The guard's name.
    pub guard: String,
    /// What edges and means count in; empty where the metric's name does not say.
    pub unit: &'static str,
    /// What was compared: one entry for a ratio, one per edge for a histogram, none for a gauge.
    pub compared: Vec<Compared>,
    /// The entry of `compared` with the most evidence that it is beyond the tolerance.
    pub worst: usize,
    /// Of a histogram: how long requests take, as far as its edges tell.
    pub quantiles: Vec<Quantile>,
    /// Of a gauge: the mean of the canary and of stable over all whole minutes.
    pub gauge: Option<[f64; 2]>,
    /// Of a check: how its runs went.
    pub check: Option<Checked>,
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
    pub tolerated: Tolerated,
    /// About how many seconds the proof of safety still takes at the traffic so far, if the canary is as good as
    /// stable; nothing when it is there or would not come.
    pub seconds_to_proof: Option<f64>,
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
    /// After a rollback: the least tolerance, in steps of a tenth, with which the guard would not have failed. Nothing
    /// when looks are no longer recorded, or none would have done.
    pub would_run_with: Option<Tolerated>,
}

/// How the runs of a check went.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    /// The runs.
    pub state: CheckState,
    /// Runs of a release that may fail.
    pub failure_limit: u32,
    /// Runs that must pass in a step.
    pub successes: u32,
}

/// One comparison of counted events.
#[derive(Clone, Debug, PartialEq)]
pub struct Compared {
    /// Of a histogram: events count when they are slower than this, in the metric's unit.
    pub edge: Option<f64>,
    /// Totals since the start of the release.
    pub counts: Counts,
    /// Share of counted events of the canary; nothing without events.
    pub canary_rate: Option<f64>,
    /// Share of counted events of stable; nothing without events.
    pub stable_rate: Option<f64>,
    /// Canary's share over stable's; nothing when stable has none.
    pub ratio: Option<f64>,
    /// Anytime 99 % interval of the ratio.
    pub interval: Interval,
    /// The share that the tolerance allows at stable's present rate; nothing where it is one in time.
    pub tolerated_rate: Option<f64>,
}

impl Explanation {
    /// Whether both keys of a rollback are turned.
    pub fn failed(&self) -> bool {
        self.strict >= self.needed_strict && self.margin >= self.needed_margin
    }
}

/// The numbers behind the present state of a guard.
pub fn explain(state: &GuardState, guard: &GuardPlan, plan: &Plan) -> Explanation {
    let compared: Vec<Compared> =
        (0..state.streams.len()).map(|index| compare(state, index, guard)).collect();
    let worst = worst(state);
    let last = state.recent.last();
    Explanation {
        guard: guard.name.clone(),
        unit: guard.unit(),
        compared,
        worst,
        quantiles: quantiles(state),
        gauge: state.gauge.as_ref().filter(|gauge| gauge.differences > 0).map(|gauge| {
            let minutes = f64::from(gauge.differences);
            gauge.totals.map(|sum| sum / minutes)
        }),
        check: guard.measured.check().map(|check| Checked {
            state: state.checks.clone().unwrap_or_default(),
            failure_limit: check.failure_limit,
            successes: check.successes,
        }),
        strict: state.strict,
        needed_strict: plan.needed_strict(guard),
        margin: state.margin,
        needed_margin: plan.needed_margin,
        safe: state.safe,
        needed_safe: NEEDED_SAFE,
        tolerated: guard.tolerated,
        seconds_to_proof: seconds_to_proof(state, guard),
        looks: state.looks,
        cap: CAP,
        one_in: plan.alpha_inverse,
        dispersion: last.map_or(1.0, |look| look.dispersion),
        spread: last.map_or(1.0, |look| look.spread),
        would_run_with: would_run_with(state, guard, plan),
    }
}

/// The stream with the most evidence that it is beyond the tolerance.
pub(super) fn worst(state: &GuardState) -> usize {
    let beyond = |index: &usize| wealth(&state.streams[*index].margin_bets);
    (0..state.streams.len()).max_by(|a, b| beyond(a).total_cmp(&beyond(b))).unwrap_or(0)
}

fn compare(state: &GuardState, index: usize, guard: &GuardPlan) -> Compared {
    let stream = &state.streams[index];
    let counts = stream.totals;
    let canary_rate = share(counts.canary_bad, counts.canary_total);
    let stable_rate = share(counts.stable_bad, counts.stable_total);
    let in_time = stream.shifted.is_some();
    Compared {
        edge: stream.edge,
        counts,
        canary_rate,
        stable_rate,
        ratio: canary_rate
            .zip(stable_rate)
            .filter(|(_, stable)| *stable > 0.0)
            .map(|(canary, stable)| canary / stable),
        interval: ratio_interval(state, index, 0.01),
        tolerated_rate: stable_rate.filter(|_| !in_time).and_then(|rate| guard.tolerated(rate)),
    }
}

fn share(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole)
}

/// From the traffic so far: what is still missing of the evidence, over its expected growth per second, for the edge
/// that takes longest.
fn seconds_to_proof(state: &GuardState, guard: &GuardPlan) -> Option<f64> {
    let Rule::Events(_) = guard.rule else { return None };
    let seconds = state.recent.last()?.second;
    if state.safe >= NEEDED_SAFE || seconds <= 0.0 {
        return None;
    }
    let each = state.streams.iter().map(|stream| {
        let Counts { canary_total, stable_bad, stable_total, .. } = stream.totals;
        let rate = share(stable_bad, stable_total)?;
        let dispersion = state.recent.last().map_or(1.0, |look| look.dispersion);
        let whole = guard.expected_seconds_to_proof(rate, canary_total / seconds, stable_total / seconds)?;
        let needed = (NEEDED_SAFE * SAFE_GRID.len() as f64).ln();
        let best = stream.safe_bets.iter().copied().fold(f64::MIN_POSITIVE, f64::max).ln();
        Some(dispersion * whole * ((needed - best) / needed).max(0.0))
    });
    each.collect::<Option<Vec<f64>>>()?.into_iter().reduce(f64::max).filter(|seconds| seconds.is_finite())
}

/// The least tolerance, in tenths of its factor or of a per cent, at which the recorded looks give no rollback.
fn would_run_with(state: &GuardState, guard: &GuardPlan, plan: &Plan) -> Option<Tolerated> {
    if state.looks as usize != state.recent.len() || !would_fail(state, guard, plan) {
        return None;
    }
    // How loose, and where it ends.
    let (with, mut fails, mut holds): (Box<dyn Fn(u32) -> Tolerated>, u32, u32) = match guard.tolerated {
        Tolerated::Share(tolerance) => {
            let with = move |n| Tolerated::Share(Tolerance { factor: f64::from(n) / 10.0, ..tolerance });
            (Box::new(with), 10, 10_000)
        }
        Tolerated::AtMost(_) => (Box::new(|n| Tolerated::AtMost(f64::from(n) / 1000.0)), 0, 999),
        Tolerated::AtLeast(_) => {
            (Box::new(|n| Tolerated::AtLeast(f64::from(100 - n.min(99)) / 100.0)), 0, 99)
        }
        // Of a histogram the edges depend on it, and the looks hold the edges of the release.
        Tolerated::Times(_) if matches!(guard.rule, Rule::Events(_)) => return None,
        Tolerated::Times(_) => (Box::new(|n| Tolerated::Times(f64::from(n) / 10.0)), 10, 10_000),
        Tolerated::Failures(_) => return None,
    };
    if would_fail(state, &guard.with(with(holds)), plan) {
        return None;
    }
    while holds - fails > 1 {
        let middle = u32::midpoint(fails, holds);
        if would_fail(state, &guard.with(with(middle)), plan) {
            fails = middle;
        } else {
            holds = middle;
        }
    }
    Some(with(holds))
}
