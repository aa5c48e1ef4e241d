//! The formulas of the evidence: pure functions of numbers.
//!
//! An e-value has an expectation of at most 1 when the canary is within the limit. E-values of successive looks
//! multiply, and the probability that such a product ever reaches 1/α is at most α however often one looks
//! (Ville's inequality; Howard et al. 2021, arXiv 1810.08240).

use std::collections::BTreeMap;

use crate::api::evidence::{Counts, Dispersion, GuardState, Look};

/// Assumed sizes of the harm, as multiples of the limit: one bet each.
pub const HARM_GRID: [f64; 6] = [1.3, 1.7, 2.5, 4.0, 8.0, 20.0];
/// Assumed ratios to the limit of a safe canary: one bet each.
pub const SAFE_GRID: [f64; 6] = [0.85, 0.7, 0.5, 0.3, 0.12, 0.03];
/// The most that one look may multiply a bet on harm by: the cube root of 200, so that at least three looks are
/// needed to get from nothing to a rollback.
pub const CAP: f64 = 5.848_035_476_425_732;
/// Evidence of safety that a guard needs: 1/β with β = 5 %.
pub const NEEDED_SAFE: f64 = 20.0;
/// No bet grows beyond this, so that every stored number stays finite.
const CEILING: f64 = 1e250;
/// Weight of the assumption "no extra dispersion", in looks.
const DISPERSION_PRIOR: f64 = 5.0;

/// An upper limit of the canary's rate of bad events: `ratio` times stable's rate plus `points`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    /// Factor on stable's rate; 0 makes it a plain limit.
    pub ratio: f64,
    /// Share of the canary's events that is allowed on top, 0 to 1.
    pub points: f64,
}

impl Limit {
    /// The limit of the strict key: no worse than stable.
    pub const STRICT: Self = Self { ratio: 1.0, points: 0.0 };

    /// The limit for the proof of safety: looser than the tolerance, at least 1.5x, and 0.1 points more.
    #[must_use]
    pub fn safe(self) -> Self {
        Self { ratio: self.ratio.max(1.5), points: self.points + 0.001 }
    }

    fn widened(self, spread: f64) -> Self {
        Self { ratio: self.ratio * spread, ..self }
    }
}

/// Natural logarithm of the e-value of one look against "canary rate ≤ `ratio` · stable rate + `points`", for the
/// alternative that the canary's rate is `kappa` times the limit. With `kappa` < 1 it is against "≥".
///
/// With c of n canary events bad and s of m stable ones, `b = (r·n + m) / (κ·r·n + m)` and
/// `ln e = c·ln(κ·b) + s·ln(b) − d·n·(κ·b − 1)`. It is the likelihood ratio against the point of the null that is
/// closest in relative entropy, exact whatever stable's rate is; with `points` = 0 it is the conditional binomial
/// likelihood ratio (Lindon & Malek 2022, arXiv 2011.03567; Turner, Ly & Grünwald 2024, arXiv 2106.02693).
///
/// A look without events of either version says nothing: 0.
pub fn log_e(kappa: f64, limit: Limit, counts: &Counts) -> f64 {
    let (n, m) = (counts.canary_total, counts.stable_total);
    if n <= 0.0 || (m <= 0.0 && limit.ratio > 0.0) {
        return 0.0;
    }
    let weighed = limit.ratio * n;
    let denominator = kappa * weighed + m;
    let b = if denominator > 0.0 { (weighed + m) / denominator } else { 1.0 };
    let log = counts.canary_bad * (kappa * b).ln() + counts.stable_bad * b.ln()
        - limit.points * n * (kappa * b - 1.0);
    if log.is_finite() { log } else { 0.0 }
}

/// The bets on harm after one more look: `bets[0]` is the part not yet staked, the others one per [`HARM_GRID`].
///
/// Half of the wealth is staked at the first look and the other half in equal parts over the `planned` looks, so
/// that a fault which begins late meets fresh stakes. `number` counts from 1.
pub fn bet_on_harm(bets: &[f64; 7], number: u32, planned: u32, limit: Limit, look: &Look) -> [f64; 7] {
    let mut stake = if number > planned { 0.0 } else { 0.5 / f64::from(planned.max(1)) };
    if number == 1 {
        stake += 0.5;
    }
    let stake = stake.min(bets[0]);
    let mut after = [bets[0] - stake; 7];
    let limit = limit.widened(look.spread);
    for (index, kappa) in HARM_GRID.into_iter().enumerate() {
        let growth = (log_e(kappa, limit, &look.counts) / look.dispersion).exp().min(CAP);
        after[index + 1] = ((bets[index + 1] + stake / 6.0) * growth).min(CEILING);
    }
    after
}

/// The bets on safety after one more look, one per [`SAFE_GRID`]; `limit` is the already loosened one.
pub fn bet_on_safety(bets: &[f64; 6], limit: Limit, look: &Look) -> [f64; 6] {
    let mut after = *bets;
    for (bet, kappa) in after.iter_mut().zip(SAFE_GRID) {
        *bet = (*bet * (log_e(kappa, limit, &look.counts) / look.dispersion).exp()).min(CEILING);
    }
    after
}

/// What all bets are worth together; at most 1e250.
pub fn wealth(bets: &[f64]) -> f64 {
    bets.iter().sum::<f64>().min(CEILING)
}

/// A guard's evidence after one more look. Counts, counters and what is learnt of the pods are not touched.
pub fn take(guard: &mut GuardState, tolerance: Limit, planned: u32, look: &Look) {
    guard.looks = guard.looks.saturating_add(1);
    guard.strict_bets = bet_on_harm(&guard.strict_bets, guard.looks, planned, Limit::STRICT, look);
    guard.margin_bets = bet_on_harm(&guard.margin_bets, guard.looks, planned, tolerance, look);
    guard.safe_bets = bet_on_safety(&guard.safe_bets, tolerance.safe(), look);
    guard.strict = wealth(&guard.strict_bets);
    guard.margin = wealth(&guard.margin_bets);
    guard.safe = wealth(&guard.safe_bets) / 6.0;
}

/// How much more the bad events of stable's pods scatter within looks than independent requests would; at least 1,
/// rounded up to thousandths so that a recorded look can be repeated exactly. From past looks only.
///
/// `φ = (Σ_looks Σ_p (x_p − e_p)²/e_p + 5·f) / (Σ freedom + 5·f)`, f = pods − 1, at least 1 (Pearson's estimate,
/// Nelder & Wedderburn's quasi-likelihood, shrunk towards 1).
pub fn dispersion(past: &Dispersion, stable_pods: usize) -> f64 {
    let prior = DISPERSION_PRIOR * (stable_pods.saturating_sub(1).max(1)) as f64;
    round_up((past.squares + prior) / (past.freedom + prior))
}

/// Adds one look's scatter: `pods` are the (bad, all) events of each stable pod in the look. The expectation of a
/// pod is its share of all events.
pub fn learn_dispersion(past: &mut Dispersion, pods: &[[f64; 2]]) {
    if let Some((squares, freedom)) = scatter(pods.iter()) {
        past.squares = (past.squares + squares).min(CEILING);
        past.freedom += freedom;
    }
}

/// Σ (x − e)²/e and its degrees of freedom over pods with events, or nothing with fewer than two pods or no bad
/// event.
fn scatter<'a>(pods: impl Iterator<Item = &'a [f64; 2]> + Clone) -> Option<(f64, f64)> {
    let busy = pods.filter(|[_, all]| *all > 0.0);
    let (bad, all, number) =
        busy.clone().fold((0.0, 0.0, 0_u32), |(x, n, k), pod| (x + pod[0], n + pod[1], k + 1));
    if number < 2 || bad <= 0.0 || all <= 0.0 {
        return None;
    }
    let squares = busy
        .map(|[x, n]| {
            let expected = bad * n / all;
            (x - expected) * (x - expected) / expected
        })
        .sum::<f64>();
    squares.is_finite().then(|| (squares, f64::from(number - 1)))
}

/// The factor by which limits are widened because stable's pods differ among themselves for longer than a look; at
/// least 1, rounded up to thousandths. From past looks only.
///
/// With Q the scatter of the pods' running totals: only when Q/φ exceeds the 95 % point of χ² with M − 1 degrees,
/// `τ² = (Q/φ − (M − 1))·φ / (Σe − Σe²/Σe)` (the moment estimator of a meta-analysis, Laird 1986) and the factor is
/// `exp(t₀.₉₉(M − 1)·τ·√(1/m + 1/M))` with m canary pods.
pub fn spread(stable_pods: &BTreeMap<String, [f64; 2]>, dispersion: f64, canary_pods: usize) -> f64 {
    let Some((q, freedom)) = scatter(stable_pods.values()) else { return 1.0 };
    if q / dispersion <= chi_square_95(freedom) || canary_pods == 0 {
        return 1.0;
    }
    let (bad, all) = stable_pods.values().fold((0.0, 0.0), |(x, n), pod| (x + pod[0], n + pod[1]));
    let squares = stable_pods.values().map(|[_, n]| (bad * n / all) * (bad * n / all)).sum::<f64>();
    let tau = ((q / dispersion - freedom) * dispersion / (bad - squares / bad)).sqrt();
    let width = (1.0 / canary_pods as f64 + 1.0 / (freedom + 1.0)).sqrt();
    // Past e^14 nothing is detectable any more; the bound keeps the number short.
    let log = (student_99(freedom) * tau * width).min(14.0);
    if log.is_finite() { round_up(log.exp()) } else { 1.0 }
}

/// Up to thousandths, at least 1.
fn round_up(x: f64) -> f64 {
    if x.is_finite() { ((x * 1000.0).ceil() / 1000.0).max(1.0) } else { 1.0 }
}

/// The 95 % point of χ²: tabulated to 20 degrees, beyond that by Wilson & Hilferty (1931), within 0.1 %.
fn chi_square_95(freedom: f64) -> f64 {
    const TABLE: [f64; 20] = [
        3.841, 5.991, 7.815, 9.488, 11.070, 12.592, 14.067, 15.507, 16.919, 18.307, 19.675, 21.026, 22.362,
        23.685, 24.996, 26.296, 27.587, 28.869, 30.144, 31.410,
    ];
    tabulated(&TABLE, freedom).unwrap_or_else(|| {
        let part = 2.0 / (9.0 * freedom);
        let root = 1.0 - part + 1.644_853_6 * part.sqrt();
        freedom * root * root * root
    })
}

/// The 99 % point of Student's t: tabulated to 20 degrees, beyond that by its expansion in 1/degrees (Abramowitz &
/// Stegun 26.7.5), within 0.1 %.
fn student_99(freedom: f64) -> f64 {
    const TABLE: [f64; 20] = [
        31.821, 6.965, 4.541, 3.747, 3.365, 3.143, 2.998, 2.896, 2.821, 2.764, 2.718_1, 2.681, 2.650, 2.624,
        2.602, 2.583, 2.567, 2.552, 2.539, 2.528,
    ];
    tabulated(&TABLE, freedom)
        .unwrap_or_else(|| 2.326_348 + 3.729_1 / freedom + 5.719_7 / (freedom * freedom))
}

fn tabulated(table: &[f64], freedom: f64) -> Option<f64> {
    (1_u32..).zip(table).find(|(degrees, _)| f64::from(*degrees) >= freedom).map(|(_, point)| *point)
}
