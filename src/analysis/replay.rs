//! What recorded looks would have said to another guard: the same code that judged them.

use super::evidence::take;
use super::{GuardPlan, Plan};
use crate::api::evidence::{GuardState, Look, Stream};

/// What a guard said after one look.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Replayed {
    /// Seconds since the first look of the release.
    pub second: f64,
    /// Evidence that the canary is worse than stable.
    pub strict: f64,
    /// Evidence that it is beyond the tolerance.
    pub margin: f64,
    /// Evidence that it is safe, since the last of the `resets`.
    pub safe: f64,
}

impl Replayed {
    /// Whether both keys of a rollback are turned at this look.
    pub fn fails(&self, guard: &GuardPlan, plan: &Plan) -> bool {
        self.strict >= plan.needed_strict(guard) && self.margin >= plan.needed_margin
    }
}

/// What `guard` says after each of the looks. At each of the `resets`, in seconds since the first look and ascending, a
/// step began: the proof of safety starts anew.
pub fn replay<'a>(
    guard: &GuardPlan,
    planned_looks: u32,
    looks: impl IntoIterator<Item = &'a Look>,
    resets: &[f64],
) -> Vec<Replayed> {
    let mut state = GuardState::default();
    let mut resets = resets.iter().copied().peekable();
    looks
        .into_iter()
        .map(|look| {
            while resets.next_if(|reset| *reset < look.second).is_some() {
                forget_safety(&mut state);
            }
            take(&mut state, &guard.rule, planned_looks, look);
            Replayed { second: look.second, strict: state.strict, margin: state.margin, safe: state.safe }
        })
        .collect()
}

/// A step begins: the proof of safety starts anew, everything else goes on.
pub(super) fn forget_safety(guard: &mut GuardState) {
    for stream in &mut guard.streams {
        stream.safe_bets = Stream::default().safe_bets;
    }
    if let Some(gauge) = &mut guard.gauge {
        (gauge.safe, gauge.safe_from) = ([0.0; 2], gauge.differences);
    }
    if let Some(checks) = &mut guard.checks {
        checks.passed_in_step = 0;
    }
    guard.safe = 1.0;
    guard.safe_from = guard.looks;
}

/// Whether the recorded looks fail the guard. Exact as long as all looks are recorded.
pub(super) fn would_fail(state: &GuardState, guard: &GuardPlan, plan: &Plan) -> bool {
    replay(guard, plan.planned_looks, state.recent.iter(), &[]).iter().any(|look| look.fails(guard, plan))
}

/// The looks of an interval that is `times` as long: so many looks in a row become one. The last ones that do not
/// fill one are left out.
pub fn merged(looks: &[Look], times: usize) -> Vec<Look> {
    looks
        .chunks_exact(times.max(1))
        .filter_map(|chunk| {
            let mut whole = chunk.last()?.clone();
            for look in &chunk[..chunk.len() - 1] {
                for (sum, counts) in whole.counts.iter_mut().zip(&look.counts) {
                    sum.canary_bad += counts.canary_bad;
                    sum.canary_total += counts.canary_total;
                    sum.stable_bad += counts.stable_bad;
                    sum.stable_total += counts.stable_total;
                }
                for (sum, shifted) in whole.shifted.iter_mut().zip(&look.shifted) {
                    *sum += shifted;
                }
            }
            // Learnt before the looks that are merged.
            let first = chunk.first()?;
            (whole.dispersion, whole.spread) = (first.dispersion, first.spread);
            Some(whole)
        })
        .collect()
}
