//! Values that go up and down: one difference between the versions per minute.
//!
//! Samples of a gauge that are taken seconds apart repeat each other: with a correlation of 0.8 between neighbours a
//! test that takes them as independent rolls back a third to a half of the harmless releases. So the means of whole
//! minutes are compared, which never overlap.

use crate::api::evidence::{Counts, GaugeState, GuardState, Look};

/// Seconds that one difference is made of.
pub const BATCH: f64 = 60.0;
/// So many differences are only learnt from: their scatter is not known well enough before.
const IGNORED: u32 = 8;
/// For how many differences the mixture is tuned.
const TUNED_FOR: f64 = 30.0;
/// No evidence is larger, so that every stored number stays finite.
const CEILING: f64 = 1e250;
/// Differences that are all the same still scatter by this part of the values: what a page rounds away.
const ROUNDED: f64 = 1e-6;

/// What a gauge is held against: factors on stable's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// 1 when more is worse, -1 when less is.
    pub sign: f64,
    /// What is tolerated.
    pub margin: f64,
    /// What safety is proven within.
    pub safe: f64,
}

impl Comparison {
    /// No more than `factor` times stable's value; safety is proven within at least 1.5x.
    pub fn tolerate(factor: f64) -> Self {
        Self { sign: 1.0, margin: factor, safe: factor.max(1.5) }
    }

    /// No less than `factor` times stable's value; safety is proven within two thirds, or less if that is tolerated.
    pub fn keep_at_least(factor: f64) -> Self {
        Self { sign: -1.0, margin: factor, safe: factor.min(1.0 / 1.5) }
    }
}

/// What of a minute is over: the look to record, with the mean of each version as its bad events.
pub(super) fn gather(state: &mut GaugeState, second: f64, canary: f64, stable: f64) -> Option<Look> {
    if state.looks == 0 {
        state.since = second;
    }
    let mut done = None;
    if second - state.since >= BATCH {
        let looks = f64::from(state.looks.max(1));
        let counts = Counts {
            canary_bad: state.canary / looks,
            canary_total: looks,
            stable_bad: state.stable / looks,
            stable_total: looks,
        };
        done = Some(Look::of(second, counts));
        (state.since, state.canary, state.stable, state.looks) = (second, 0.0, 0.0, 0);
    }
    state.canary += canary;
    state.stable += stable;
    state.looks = state.looks.saturating_add(1);
    done
}

/// A guard's evidence after one more minute.
pub(super) fn take(guard: &mut GuardState, comparison: &Comparison, look: &Look) {
    let state = guard.gauge.get_or_insert_default();
    let Some(counts) = look.counts.first() else { return };
    let (canary, stable) = (counts.canary_bad, counts.stable_bad);
    let difference = |factor: f64| comparison.sign * (canary - factor * stable);
    state.differences = state.differences.saturating_add(1);
    state.totals = [state.totals[0] + canary, state.totals[1] + stable];
    for (sums, x) in [
        (&mut state.strict, difference(1.0)),
        (&mut state.margin, difference(comparison.margin)),
        (&mut state.safe, -difference(comparison.safe)),
    ] {
        *sums = [sums[0] + x, sums[1] + x * x];
    }
    let number = state.differences;
    let scale = (state.totals[0].abs() + state.totals[1].abs()) / f64::from(number);
    guard.strict = evidence(state.strict, number, scale);
    guard.margin = evidence(state.margin, number, scale);
    guard.safe = evidence(state.safe, number.saturating_sub(state.safe_from), scale);
}

/// Evidence that the mean of the differences is above 0: the one-sided normal mixture for studentised sums,
/// `ln E = ½ ln(4ρ/(n+ρ)) + S²/(2(n+ρ)) + ln Φ(S/√(n+ρ))` with S the sum over the standard deviation and
/// `ρ = v/(2 ln(1/2a) + ln(1 + 2 ln(1/2a)))`, tuned for v = 30 differences and a = 1 % (Howard et al. 2021, arXiv
/// 1810.08240, propositions 3 and 6). 1 for the first 8.
pub fn evidence(sums: [f64; 2], number: u32, scale: f64) -> f64 {
    if number <= IGNORED {
        return 1.0;
    }
    let n = f64::from(number);
    let mean = sums[0] / n;
    let variance = ((sums[1] - n * mean * mean) / (n - 1.0)).max((ROUNDED * scale).powi(2));
    if variance <= 0.0 || !variance.is_finite() {
        return 1.0;
    }
    let two_log = 2.0 * (1.0 / 0.02_f64).ln();
    let rho = TUNED_FOR / (two_log + two_log.ln_1p());
    let s = sums[0] / variance.sqrt();
    let log = 0.5 * (4.0 * rho / (n + rho)).ln() + s * s / (2.0 * (n + rho)) + log_phi(s / (n + rho).sqrt());
    if log.is_nan() { 1.0 } else { log.exp().min(CEILING) }
}

/// Logarithm of the normal distribution function.
fn log_phi(x: f64) -> f64 {
    if x > -30.0 {
        (0.5 * libm::erfc(-x / std::f64::consts::SQRT_2)).ln()
    } else {
        // Mills' ratio; erfc is about to underflow here.
        -0.5 * x * x - (-x).ln() - 0.5 * std::f64::consts::TAU.ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() <= 1e-9 * b.abs().max(1.0), "{a} is not {b}");
    }

    /// Values of the standard normal distribution from published tables.
    #[test]
    fn the_normal_distribution() {
        for (x, log) in [
            (0.0, 0.5_f64.ln()),
            (1.0, 0.841_344_746_068_543_f64.ln()),
            (-2.0, 0.022_750_131_948_179_f64.ln()),
            (-5.0, 2.866_515_719_235_35e-7_f64.ln()),
        ] {
            close(log_phi(x), log);
        }
        // Both forms meet where one takes over: the ratio's next term is 1/x².
        assert!((log_phi(-30.0) - log_phi(-29.999_999)).abs() < 2e-3);
    }

    #[test]
    fn nothing_is_said_before_the_ninth_difference() {
        let sums = [8.0 * 100.0, 8.0 * 10_001.0];
        close(evidence(sums, 8, 100.0), 1.0);
        assert!(evidence([9.0 * 100.0, 9.0 * 10_001.0], 9, 100.0) > 100.0);
    }

    #[test]
    fn differences_that_are_all_the_same_are_evidence_and_no_difference_is_none() {
        assert!(evidence([20.0, 20.0], 20, 100.0) > 100.0);
        close(evidence([0.0, 0.0], 20, 0.0), 1.0);
        assert!(evidence([0.0, 20.0], 20, 1.0) < 1.0);
    }

    #[test]
    fn a_minute_is_the_mean_of_its_looks_and_never_shares_one_with_the_next() {
        let mut state = GaugeState::default();
        let mut looks = Vec::new();
        for number in 0..37 {
            let x = f64::from(number);
            looks.extend(gather(&mut state, 5.0 * x, x, 100.0));
        }
        let means: Vec<(f64, f64)> = looks.iter().map(|l| (l.second, l.counts[0].canary_bad)).collect();
        // 0 to 11, 12 to 23, 24 to 35.
        assert_eq!(means, [(60.0, 5.5), (120.0, 17.5), (180.0, 29.5)]);
    }
}
