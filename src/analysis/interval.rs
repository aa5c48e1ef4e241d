//! How many times worse the canary is, as an interval that holds at all times.

use super::evidence::{Limit, log_e};
use crate::api::evidence::{Counts, GuardState};

/// The interval is looked for between e^-14 and e^14.
const WIDEST: f64 = 14.0;
/// Assumed sizes: 40, evenly spaced in their logarithm.
const SIZES: u32 = 40;
const SMALLEST: f64 = 1.05;
const LARGEST: f64 = 300.0;

/// Ratios of canary's rate to stable's that the looks do not rule out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Lower end; 0 when nothing is ruled out.
    pub low: f64,
    /// Upper end; nothing when no ratio is too high.
    pub high: Option<f64>,
}

/// The anytime interval of the ratio with error probability `alpha`: all r for which neither the mixture of harm
/// nor that of safety reaches 2/α, by bisection on ln r. It holds at all looks at once (Lindon & Malek 2022, arXiv
/// 2011.03567).
///
/// Of the stream number `stream`. Uses the recorded looks; the looks before those count as one, of which only the sums
/// are known.
pub fn ratio_interval(guard: &GuardState, stream: usize, alpha: f64) -> Interval {
    let looks = all_looks(guard, stream);
    let needed = (2.0 / alpha).ln();
    let too_low = |log_ratio: f64| log_mixture(&looks, log_ratio, 1.0) >= needed;
    let too_high = |log_ratio: f64| log_mixture(&looks, log_ratio, -1.0) >= needed;
    Interval {
        low: if too_low(-WIDEST) { bisect(|x| !too_low(x)).exp() } else { 0.0 },
        high: too_high(WIDEST).then(|| bisect(too_high).exp()),
    }
}

/// The recorded looks of a stream with their dispersion, and before them one with the sums of those that are no longer
/// there.
fn all_looks(guard: &GuardState, stream: usize) -> Vec<(Counts, f64)> {
    let recorded =
        || guard.recent.iter().filter_map(|look| Some((*look.counts.get(stream)?, look.dispersion)));
    let mut rest = guard.streams.get(stream).map(|stream| stream.totals).unwrap_or_default();
    for (counts, _) in recorded() {
        rest.canary_bad -= counts.canary_bad;
        rest.canary_total -= counts.canary_total;
        rest.stable_bad -= counts.stable_bad;
        rest.stable_total -= counts.stable_total;
    }
    let mut looks = Vec::with_capacity(guard.recent.len() + 1);
    if guard.looks as usize > guard.recent.len() {
        let counts = Counts {
            canary_bad: rest.canary_bad.max(0.0),
            canary_total: rest.canary_total.max(0.0),
            stable_bad: rest.stable_bad.max(0.0),
            stable_total: rest.stable_total.max(0.0),
        };
        looks.push((counts, guard.recent.first().map_or(1.0, |look| look.dispersion)));
    }
    looks.extend(recorded());
    looks
}

/// Logarithm of the mean over the assumed sizes of the product of all looks; `sign` 1 for harm, -1 for safety.
fn log_mixture(looks: &[(Counts, f64)], log_ratio: f64, sign: f64) -> f64 {
    let limit = Limit { ratio: log_ratio.exp(), points: 0.0 };
    let logs: Vec<f64> = (0..SIZES)
        .map(|index| {
            let log_size =
                SMALLEST.ln() + (LARGEST / SMALLEST).ln() * f64::from(index) / f64::from(SIZES - 1);
            let kappa = (sign * log_size).exp();
            looks.iter().map(|(counts, dispersion)| log_e(kappa, limit, counts) / dispersion).sum()
        })
        .collect();
    let largest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    largest + logs.iter().map(|log| (log - largest).exp()).sum::<f64>().ln() - f64::from(SIZES).ln()
}

/// Where `above` turns from false to true as x grows.
fn bisect(above: impl Fn(f64) -> bool) -> f64 {
    let (mut low, mut high) = (-WIDEST, WIDEST);
    for _ in 0..40 {
        let middle = f64::midpoint(low, high);
        if above(middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
    f64::midpoint(low, high)
}
