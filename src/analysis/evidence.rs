//! The formulas of the evidence: pure functions of numbers.
//!
//! An e-value has an expectation of at most 1 when the canary is within the limit. E-values of successive looks
//! multiply, and the probability that such a product ever reaches 1/α is at most α however often one looks
//! (Ville's inequality; Howard et al. 2021, arXiv 1810.08240).

use super::{Tolerance, gauge};
use crate::api::evidence::{Counts, Dispersion, GuardState, Look, Stream};

/// Assumed sizes of the harm, as multiples of the limit: one bet each. Where less is worse, their inverses.
pub const HARM_GRID: [f64; 6] = [1.3, 1.7, 2.5, 4.0, 8.0, 20.0];
/// Assumed ratios to the limit of a safe canary: one bet each. Where less is worse, their inverses.
pub const SAFE_GRID: [f64; 6] = [0.85, 0.7, 0.5, 0.3, 0.12, 0.03];
/// The most that one look may multiply a bet on harm by: the cube root of 200, so that at least three looks are
/// needed to get from nothing to a rollback.
pub const CAP: f64 = 5.848_035_476_425_732;
/// Evidence of safety that a guard needs: 1/β with β = 5 %.
pub const NEEDED_SAFE: f64 = 20.0;
/// No bet grows beyond this, so that every stored number stays finite.
pub(super) const CEILING: f64 = 1e250;
/// Weight of the assumption "no extra dispersion", in looks.
const DISPERSION_PRIOR: f64 = 5.0;

/// A limit of the canary's rate of counted events: `ratio` times stable's rate plus `points`.
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
}

/// On which side of a limit the harm is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// More is worse, as of errors.
    Above,
    /// Less is worse, as of orders.
    Below,
}

impl Harm {
    /// The assumed size of a bet: itself, or its inverse.
    pub(super) fn size(self, kappa: f64) -> f64 {
        match self {
            Self::Above => kappa,
            Self::Below => 1.0 / kappa,
        }
    }

    /// A limit that is less strict by the factor `spread`.
    fn widened(self, limit: Limit, spread: f64) -> Limit {
        Limit { ratio: limit.ratio * self.size(spread), ..limit }
    }
}

/// The three limits of a guard of yes/no events.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// Which side is worse.
    pub harm: Harm,
    /// The first key: evidence beyond this says that the canary is worse at all.
    pub strict: Limit,
    /// The second key: what is tolerated.
    pub margin: Limit,
    /// For the proof of safety: looser than what is tolerated.
    pub safe: Limit,
}

impl Bounds {
    /// No more than `factor` times stable's share plus `points`. Safety is proven within at least 1.5x, and 0.1
    /// percentage points more.
    pub fn tolerate(tolerance: Tolerance) -> Self {
        let margin = tolerance.limit();
        let safe = Limit { ratio: margin.ratio.max(1.5), points: margin.points + 0.001 };
        Self { harm: Harm::Above, strict: Limit::STRICT, margin, safe }
    }

    /// No more than a share of `points`, whatever stable's is: both keys are the limit itself. Safety is proven
    /// within one and a half times as much, and 0.1 percentage points more.
    pub fn at_most(points: f64) -> Self {
        let limit = Limit { ratio: 0.0, points };
        let safe = Limit { ratio: 0.0, points: 1.5 * points + 0.001 };
        Self { harm: Harm::Above, strict: limit, margin: limit, safe }
    }

    /// No less than `factor` times stable's share. Safety is proven at two thirds of it, or less if that is tolerated.
    pub fn keep_at_least(factor: f64) -> Self {
        let limit = |ratio| Limit { ratio, points: 0.0 };
        let safe = limit(factor.min(1.0 / 1.5));
        Self { harm: Harm::Below, strict: Limit::STRICT, margin: limit(factor), safe }
    }

    /// Of a histogram with a tolerance in time: no more requests beyond the longer time than stable has beyond the
    /// shorter one, and 0.1 percentage points on top.
    pub fn slower() -> Self {
        Self::tolerate(Tolerance { factor: 1.0, points: 0.001 })
    }

    /// What one stream of a look says to the strict key, to the margin and to the limit of safety. `tolerated` are its
    /// counts for the latter two.
    pub(super) fn said<'a>(&self, look: &Look, counts: &'a Counts, tolerated: &'a Counts) -> [Said<'a>; 3] {
        let said = |counts, limit| Said { counts, dispersion: look.dispersion, limit, harm: self.harm };
        let widened = |limit| self.harm.widened(limit, look.spread);
        // Safety is not widened: pods that differ make harm harder to see, and safety no easier to prove.
        [
            said(counts, widened(self.strict)),
            said(tolerated, widened(self.margin)),
            said(tolerated, self.safe),
        ]
    }
}

impl Bounds {
    /// The same when the canary has all traffic: each limit is a plain one, made of stable's share as [`past_share`] has
    /// it for harm and for safety.
    fn alone<'a>(&self, look: &Look, counts: &'a Counts, [sparing, demanding]: [f64; 2]) -> [Said<'a>; 3] {
        let plain =
            |limit: Limit, share: f64| Limit { ratio: 0.0, points: limit.ratio * share + limit.points };
        let said = |limit| Said { counts, dispersion: look.dispersion, limit, harm: self.harm };
        let widened = |limit| self.harm.widened(limit, look.spread);
        [
            said(plain(widened(self.strict), sparing)),
            said(plain(widened(self.margin), sparing)),
            said(plain(self.safe, demanding)),
        ]
    }
}

/// Events that stable must have had before its past can stand for it.
const PAST_EVENTS: f64 = 100.0;
/// The 99.95 % point of the normal distribution, for harm: beyond it less than once in a thousand, below the α of each
/// preset.
const SPARING: f64 = 3.290_5;
/// The 95 % point, for safety: beyond it with the same β of 5 % that the proof has.
const DEMANDING: f64 = 1.644_9;

/// Stable's share of counted events by its totals of this release: the one that spares the canary, for harm, and the
/// one that demands more of it, for safety. Bounds of Wilson's score interval (Wilson 1927) at 99.95 % and at 95 %,
/// of so many fewer events as they scatter more. Nothing with fewer than 100 events.
///
/// For the time in which the canary has all traffic. It takes the traffic of that time to be like that before.
pub fn past_share(harm: Harm, totals: &Counts, dispersion: f64) -> Option<[f64; 2]> {
    let (bad, all) = (totals.stable_bad, totals.stable_total);
    if all < PAST_EVENTS || !bad.is_finite() || !all.is_finite() {
        return None;
    }
    let (n, p) = (all / dispersion.max(1.0), (bad / all).clamp(0.0, 1.0));
    // Upwards with a positive point, downwards with a negative one.
    let bound = |z: f64| {
        let middle = (p + z * z / (2.0 * n)) / (1.0 + z * z / n);
        let half = z / (1.0 + z * z / n) * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
        (middle + half).clamp(0.0, 1.0)
    };
    Some(match harm {
        Harm::Above => [bound(SPARING), bound(-DEMANDING)],
        Harm::Below => [bound(-SPARING), bound(DEMANDING)],
    })
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

/// What one look says to one limit.
#[derive(Clone, Copy, Debug)]
pub struct Said<'a> {
    /// What happened.
    pub counts: &'a Counts,
    /// What the evidence is divided by; at least 1.
    pub dispersion: f64,
    /// The limit.
    pub limit: Limit,
    /// Which side of it is worse.
    pub harm: Harm,
}

impl Said<'_> {
    /// Logarithms of the e-values against "within the limit", one per [`HARM_GRID`], before the dispersion.
    pub fn log_harm(&self) -> [f64; 6] {
        HARM_GRID.map(|kappa| log_e(self.harm.size(kappa), self.limit, self.counts))
    }

    /// Logarithms of the e-values against "beyond the limit", one per [`SAFE_GRID`], before the dispersion.
    pub fn log_safe(&self) -> [f64; 6] {
        SAFE_GRID.map(|kappa| log_e(self.harm.size(kappa), self.limit, self.counts))
    }

    /// Logarithms of what the look multiplies each bet on harm by, before the cap: the e-values after the dispersion.
    pub fn log_growth(&self) -> [f64; 6] {
        self.log_harm().map(|log| log / self.dispersion)
    }
}

/// The bets on harm after one more look: `bets[0]` is the part not yet staked, the others one per [`HARM_GRID`].
///
/// Half of the wealth is staked at the first look and the other half in equal parts over the `planned` looks, so
/// that a fault which begins late meets fresh stakes. `number` counts from 1.
pub fn bet_on_harm(bets: &[f64; 7], number: u32, planned: u32, said: &Said<'_>) -> [f64; 7] {
    let mut stake = if number > planned { 0.0 } else { 0.5 / f64::from(planned.max(1)) };
    if number == 1 {
        stake += 0.5;
    }
    let stake = stake.min(bets[0]);
    let mut after = [bets[0] - stake; 7];
    for (index, log) in said.log_growth().into_iter().enumerate() {
        let growth = log.exp().min(CAP);
        after[index + 1] = ((bets[index + 1] + stake / 6.0) * growth).min(CEILING);
    }
    after
}

/// The bets on safety after one more look, one per [`SAFE_GRID`]; the limit is the already loosened one.
pub fn bet_on_safety(bets: &[f64; 6], said: &Said<'_>) -> [f64; 6] {
    let mut after = *bets;
    for (bet, log) in after.iter_mut().zip(said.log_safe()) {
        *bet = (*bet * (log / said.dispersion).exp()).min(CEILING);
    }
    after
}

/// What all bets are worth together; at most 1e250.
pub fn wealth(bets: &[f64]) -> f64 {
    bets.iter().sum::<f64>().min(CEILING)
}

/// A guard's evidence after one more look. Counts, counters and what is learnt of the pods are not touched.
///
/// The wealth of several streams is their mean, which is an e-value again; safety must be proven for each of them, so
/// there it is the least.
pub fn take(guard: &mut GuardState, rule: &Rule, planned: u32, look: &Look) {
    guard.looks = guard.looks.saturating_add(u32::from(*rule != Rule::Check));
    let bounds = match rule {
        Rule::Events(bounds) => bounds,
        Rule::Gauge(comparison) => return gauge::take(guard, comparison, look),
        // It has runs and no looks.
        Rule::Check => return,
    };
    guard.streams.resize_with(look.counts.len(), Stream::default);
    let (mut strict, mut margin, mut safe) = (0.0, 0.0, CEILING);
    for (index, (stream, counts)) in guard.streams.iter_mut().zip(&look.counts).enumerate() {
        let shifted = look.shifted.get(index).map(|bad| Counts { stable_bad: *bad, ..*counts });
        let tolerated = shifted.as_ref().unwrap_or(counts);
        let alone = look.past.get(index).map(|past| bounds.alone(look, counts, *past));
        let [strict_said, margin_said, safe_said] =
            alone.unwrap_or_else(|| bounds.said(look, counts, tolerated));
        stream.strict_bets = bet_on_harm(&stream.strict_bets, guard.looks, planned, &strict_said);
        stream.margin_bets = bet_on_harm(&stream.margin_bets, guard.looks, planned, &margin_said);
        stream.safe_bets = bet_on_safety(&stream.safe_bets, &safe_said);
        strict += wealth(&stream.strict_bets);
        margin += wealth(&stream.margin_bets);
        safe = f64::min(safe, wealth(&stream.safe_bets) / SAFE_GRID.len() as f64);
    }
    let streams = guard.streams.len().max(1) as f64;
    (guard.strict, guard.margin, guard.safe) = (strict / streams, margin / streams, safe);
}

/// What a guard's looks are held against.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// Yes/no events, in one stream or several.
    Events(Bounds),
    /// Values that go up and down.
    Gauge(gauge::Comparison),
    /// Runs that pass or fail.
    Check,
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
pub fn learn_dispersion(past: &mut Dispersion, pods: impl Iterator<Item = [f64; 2]> + Clone) {
    if let Some((squares, freedom)) = scatter(pods) {
        past.squares = (past.squares + squares).min(CEILING);
        past.freedom += freedom;
    }
}

/// Σ (x − e)²/e and its degrees of freedom over pods with events, or nothing with fewer than two pods or no bad
/// event.
fn scatter(pods: impl Iterator<Item = [f64; 2]> + Clone) -> Option<(f64, f64)> {
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
pub fn spread(
    stable_pods: impl Iterator<Item = [f64; 2]> + Clone,
    dispersion: f64,
    canary_pods: usize,
) -> f64 {
    let Some((q, freedom)) = scatter(stable_pods.clone()) else { return 1.0 };
    if q / dispersion <= chi_square_95(freedom) || canary_pods == 0 {
        return 1.0;
    }
    let (bad, all) = stable_pods.clone().fold((0.0, 0.0), |(x, n), pod| (x + pod[0], n + pod[1]));
    let squares = stable_pods.map(|[_, n]| (bad * n / all) * (bad * n / all)).sum::<f64>();
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
