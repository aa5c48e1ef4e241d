//! Whether the requests are shared between the versions as their pods are.
//!
//! Pods that answer with each other's data, a selector that catches the wrong pods, or a route past the canary show
//! here first: the numbers of such a release are not those of its versions.

use crate::api::evidence::Split;

/// How much the assumed shares scatter around the expected one: parameters of the beta distribution together.
const CONCENTRATION: f64 = 1000.0;
/// Evidence that a hold needs, besides [`FACTOR`].
const NEEDED: f64 = 1000.0;
/// Long-lived connections bend the share of healthy releases; a share that is off by less than this is taken as theirs.
const FACTOR: f64 = 2.0;
/// So that the number stays finite, and that evidence against the share does not outlast its cause for long.
const BOUND: f64 = 50.0;

/// Takes in the requests of one look, of pods of which the part `share` are the canary's.
///
/// Per look the likelihood ratio of the beta-binomial distribution around the expected share against the binomial one,
/// an e-value; they multiply (Lindon & Malek 2022, arXiv 2011.03567).
pub(super) fn take(split: &mut Split, canary: f64, stable: f64, share: f64) {
    let (canary, stable) = (canary.round(), stable.round());
    let all = canary + stable;
    if !(all > 0.0 && share > 0.0 && share < 1.0) {
        return;
    }
    let (a, b) = (CONCENTRATION * share, CONCENTRATION * (1.0 - share));
    let log =
        log_beta(canary + a, stable + b) - log_beta(a, b) - canary * share.ln() - stable * (1.0 - share).ln();
    if log.is_finite() {
        split.log_evidence = (split.log_evidence + log).clamp(-BOUND, BOUND);
    }
    split.canary += canary;
    split.all += all;
    split.expected += all * share;
}

/// Whether the share of the canary is off: beyond doubt, and by more than a factor of two.
pub(super) fn is_skewed(split: &Split) -> bool {
    let off = split.canary > FACTOR * split.expected || split.canary * FACTOR < split.expected;
    off && split.log_evidence >= NEEDED.ln()
}

fn log_beta(a: f64, b: f64) -> f64 {
    libm::lgamma(a) + libm::lgamma(b) - libm::lgamma(a + b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(looks: u32, canary: f64, stable: f64, share: f64) -> Split {
        let mut split = Split::default();
        for _ in 0..looks {
            take(&mut split, canary, stable, share);
        }
        split
    }

    #[test]
    fn an_equal_share_is_none_of_it() {
        assert!(!is_skewed(&after(500, 250.0, 4750.0, 0.05)));
        assert!(!is_skewed(&after(500, 0.0, 0.0, 0.05)));
        assert!(!is_skewed(&after(500, 160.0, 4840.0, 0.05)), "as of long-lived connections");
    }

    #[test]
    fn another_share_is_seen_soon_and_forgotten_soon() {
        let mut split = after(3, 2500.0, 2500.0, 0.05);
        assert!(is_skewed(&split), "both versions' pods answer with each other's data");
        assert!(is_skewed(&after(20, 10.0, 4990.0, 0.05)), "hardly anything reaches the canary");
        for _ in 0..200 {
            take(&mut split, 250.0, 4750.0, 0.05);
        }
        assert!(!is_skewed(&split));
    }

    /// The expectation of an e-value under its null is 1: the sum over all outcomes of one look.
    #[test]
    fn its_expectation_is_one() {
        let (n, share) = (60_u32, 0.3_f64);
        let mut sum = 0.0;
        let mut mass = (1.0 - share).powi(60);
        for k in 0..=n {
            let split = after(1, f64::from(k), f64::from(n - k), share);
            sum += mass * split.log_evidence.exp();
            mass *= f64::from(n - k) / f64::from(k + 1) * share / (1.0 - share);
        }
        assert!((sum - 1.0).abs() < 1e-9, "{sum}");
    }
}
