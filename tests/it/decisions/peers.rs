//! The rules of other tools, written anew from their documentation and sources, to be judged on the same streams.
//!
//! Each gets the counts of every look of a release and says at which look it stops it. They are given what they need
//! at once and without errors: no scrape interval, no delay of a metrics store.

use super::engine::Counts;

/// Bad and all events of the canary in some looks.
fn canary(looks: &[Counts]) -> (f64, f64) {
    looks.iter().fold((0.0, 0.0), |(bad, all), look| (bad + look.canary_bad, all + look.canary_total))
}

fn stable(looks: &[Counts]) -> (f64, f64) {
    looks.iter().fold((0.0, 0.0), |(bad, all), look| (bad + look.stable_bad, all + look.stable_total))
}

/// Argo Rollouts with the template of its documentation (docs/features/analysis.md): every minute the success rate of
/// the canary over the last five must be at least 95 %. The analysis fails when more than `failureLimit: 3`
/// measurements failed, whenever that was (`assessMetricFailureInconclusiveOrError` in analysis/analysis.go). A
/// measurement without requests is an error and no failure.
pub fn argo(looks: &[Counts], interval: u32) -> Option<u32> {
    let minute = (60 / interval) as usize;
    let mut failed = 0;
    for at in (minute..=looks.len()).step_by(minute) {
        let (bad, all) = canary(&looks[at.saturating_sub(5 * minute)..at]);
        if all > 0.0 && 1.0 - bad / all < 0.95 {
            failed += 1;
            if failed > 3 {
                return Some(super::row::count(at));
            }
        }
    }
    None
}

/// Flagger with the values of its documentation (usage/metrics.md, usage/how-it-works.md): every minute the success
/// rate of the canary in it must be at least 99 %. After `threshold: 5` failed checks, whenever they were, it rolls
/// back, which it does at the check that follows (`advanceCanary` in pkg/controller/scheduler.go). A minute without
/// requests is a failed check.
pub fn flagger(looks: &[Counts], interval: u32) -> Option<u32> {
    let minute = (60 / interval) as usize;
    let mut failed = 0;
    for at in (minute..=looks.len()).step_by(minute) {
        if failed >= 5 {
            return Some(super::row::count(at));
        }
        let (bad, all) = canary(&looks[at - minute..at]);
        if all <= 0.0 || 100.0 * (1.0 - bad / all) < 99.0 {
            failed += 1;
        }
    }
    None
}

/// A judge like Kayenta's, every five minutes: the error rates of all minutes so far, canary's against stable's.
pub fn kayenta(looks: &[Counts], interval: u32) -> Option<u32> {
    let minute = (60 / interval) as usize;
    (5 * minute..=looks.len()).step_by(5 * minute).map(super::row::count).find(|at| {
        let minutes = looks[..*at as usize].chunks(minute);
        // Minutes without requests have no rate and are left out, as NaN are.
        let rates = |version: fn(&[Counts]) -> (f64, f64)| -> Vec<f64> {
            minutes.clone().map(version).filter(|(_, all)| *all > 0.0).map(|(bad, all)| bad / all).collect()
        };
        is_high(&rates(canary), &rates(stable), 0.25, Z_98)
    })
}

/// The 99 % point of the normal distribution: two-sided confidence of 98 %.
pub const Z_98: f64 = 2.326_347_874_040_841;

/// Whether Kayenta's judge classifies the canary as *High* (`MannWhitneyClassifier` of `NetflixACAJudge-v1.0`): the
/// lower end of the confidence interval of the shift is above `tolerance` times its estimate.
pub fn is_high(canary: &[f64], baseline: &[f64], tolerance: f64, z: f64) -> bool {
    if canary.is_empty() || baseline.is_empty() || canary == baseline {
        return false;
    }
    let constant = |values: &[f64]| values.iter().all(|value| value.to_bits() == values[0].to_bits());
    if constant(canary) && constant(baseline) {
        // The judge adds a little noise to such series; what it then says is which one is higher.
        return canary[0] > baseline[0];
    }
    let [low, _, estimate] = shift(canary, baseline, z);
    low > tolerance * estimate.abs()
}

/// The shift from `baseline` to `canary` by the Mann-Whitney test: both ends of its interval and the estimate (Hodges
/// & Lehmann), as `wilcox.test` of R has them with its normal approximation and continuity correction, which Kayenta
/// follows (`MannWhitney.scala`). The statistic is a step function of the shift, so its zeros are found among the
/// pairwise differences exactly. Kayenta searches them up to 0.0001, which is too coarse for error rates as fractions;
/// here it is spared that.
pub fn shift(canary: &[f64], baseline: &[f64], z: f64) -> [f64; 3] {
    let (m, n) = (canary.len() as f64, baseline.len() as f64);
    let mut differences: Vec<f64> = canary.iter().flat_map(|x| baseline.iter().map(move |y| x - y)).collect();
    differences.sort_unstable_by(f64::total_cmp);
    // The variance between two differences: only ties within a series count there.
    let ties = ties_of(canary) + ties_of(baseline);
    let deviation = (m * n / 12.0 * (m + n + 1.0 - ties / ((m + n) * (m + n - 1.0)))).sqrt();
    let pairs = differences.len();
    // The statistic when `above` of the differences are above the shift.
    let statistic = |above: usize| {
        let centred = above as f64 - m * n / 2.0;
        let correction = if centred > 0.0 {
            0.5
        } else if centred < 0.0 {
            -0.5
        } else {
            0.0
        };
        (centred - correction) / deviation
    };
    let zero_of = |quantile: f64| {
        // The first difference beyond which the statistic is below, and the last before which it is above.
        let below = (0..pairs).find(|k| statistic(pairs - k - 1) < quantile).unwrap_or(pairs - 1);
        let above = (0..pairs).rev().find(|k| statistic(pairs - k) > quantile).unwrap_or(0);
        f64::midpoint(differences[below], differences[above])
    };
    [zero_of(z), zero_of(-z), zero_of(0.0)]
}

/// Σ (t³ − t) over the groups of t equal values.
fn ties_of(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted
        .chunk_by(|a, b| a.to_bits() == b.to_bits())
        .map(|group| {
            let t = group.len() as f64;
            t * t * t - t
        })
        .sum()
}
