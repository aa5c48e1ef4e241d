//! The formulas against sources that do not share them: sums over all outcomes of the binomial and the Poisson
//! distribution, their conditional distributions, printed tables, and what an interval must cover.

use proptest::prelude::*;

use crate::analysis::evidence::{
    Bounds, HARM_GRID, Harm, Limit, SAFE_GRID, Said, bet_on_harm, bet_on_safety, log_e, spread, wealth,
};
use crate::analysis::{Tolerance, ratio_interval};
use crate::api::evidence::{Counts, GuardState, Stream};

fn counts(canary_bad: f64, canary_total: f64, stable_bad: f64, stable_total: f64) -> Counts {
    Counts { canary_bad, canary_total, stable_bad, stable_total }
}

/// A guard that has seen this in one look.
fn seen_once(counts: Counts) -> GuardState {
    let stream = Stream { totals: counts, ..Stream::default() };
    GuardState { looks: 1, streams: vec![stream], ..GuardState::default() }
}

/// Binomial masses, by Pascal's triangle of single trials.
fn binomial(n: u32, p: f64) -> Vec<f64> {
    let mut mass = vec![1.0];
    for _ in 0..n {
        let mut next = vec![0.0; mass.len() + 1];
        for (k, part) in mass.iter().enumerate() {
            next[k] += part * (1.0 - p);
            next[k + 1] += part * p;
        }
        mass = next;
    }
    mass
}

/// Poisson masses up to `most`, from their definition.
fn poisson(mean: f64, most: u32) -> Vec<f64> {
    let mut power_over_factorial = 1.0;
    (0..=most)
        .map(|k| {
            if k > 0 {
                power_over_factorial *= mean / f64::from(k);
            }
            (-mean).exp() * power_over_factorial
        })
        .collect()
}

/// The expectation of one look's e-value, to the power of 1/`dispersion`, over all outcomes of both versions.
fn expectation(
    (canary, n): (&[f64], f64),
    (stable, m): (&[f64], f64),
    (kappa, limit, dispersion): (f64, Limit, f64),
) -> f64 {
    let mut sum = 0.0;
    for (c, p) in (0_u32..).zip(canary) {
        for (s, q) in (0_u32..).zip(stable) {
            let log = log_e(kappa, limit, &counts(f64::from(c), n, f64::from(s), m));
            sum += p * q * (log / dispersion).exp();
        }
    }
    sum
}

/// The limits of the three kinds of evidence of guards of all kinds: with the standard tolerance, a strict one and a
/// loose one, a plain limit, a share that is to be kept, and times.
fn limits() -> Vec<Limit> {
    let tolerances = [(1.2, 0.001), (1.0, 0.0), (3.0, 0.05)];
    let tolerant = tolerances.map(|(factor, points)| Bounds::tolerate(Tolerance { factor, points }));
    let others = [Bounds::at_most(0.02), Bounds::keep_at_least(0.8), Bounds::slower()];
    let of = |bounds: Bounds| [bounds.strict, bounds.margin, bounds.safe];
    tolerant.into_iter().chain(others).flat_map(of).collect()
}

/// Poisson counts on the boundary: every bet of every grid is worth exactly what it cost, whatever stable's rate.
#[test]
fn every_bet_is_fair_on_the_boundary() {
    let (n, m) = (5.0, 12.0);
    for limit in limits() {
        for rate in [0.002, 0.05] {
            let canary = poisson((limit.ratio * rate + limit.points) * n, 100);
            let stable = poisson(rate * m, 40);
            // Where less is worse the sizes are the inverses.
            let sizes = HARM_GRID.into_iter().chain(SAFE_GRID);
            for kappa in sizes.clone().chain(sizes.map(|size| 1.0 / size)) {
                let mean = expectation((&canary, n), (&stable, m), (kappa, limit, 1.0));
                assert!((mean - 1.0).abs() < 1e-9, "{limit:?}, rate {rate}, kappa {kappa}: {mean}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Binomial counts anywhere in the null, any traffic split, any limit: no bet is worth more than it cost.
    #[test]
    fn no_bet_is_worth_more_within_the_null(
        (n, m) in (1_u32..25, 1_u32..25),
        (ratio, points, rate) in (0.0..4.0_f64, 0.0..0.3_f64, 0.0..1.0_f64),
        place in 0.0..=1.0_f64,
        dispersion in 1.0..8.0_f64,
        grid in 0_usize..6,
    ) {
        let limit = Limit { ratio, points };
        let boundary: f64 = ratio * rate + points;
        let stable = binomial(m, rate);
        let sides = (f64::from(n), f64::from(m));
        for dispersion in [1.0, dispersion] {
            // Harm: the canary's rate is at the limit or below.
            let canary = binomial(n, (boundary * place).min(1.0));
            let mean = expectation((&canary, sides.0), (&stable, sides.1), (HARM_GRID[grid], limit, dispersion));
            prop_assert!(mean <= 1.0 + 1e-9, "harm {}: {mean}", HARM_GRID[grid]);
            // Safety: at the limit or above, as far as there are such rates.
            if boundary <= 1.0 {
                let canary = binomial(n, boundary + (1.0 - boundary) * place);
                let mean = expectation((&canary, sides.0), (&stable, sides.1), (SAFE_GRID[grid], limit, dispersion));
                prop_assert!(mean <= 1.0 + 1e-9, "safe {}: {mean}", SAFE_GRID[grid]);
            }
        }
    }

    /// Without points it is the likelihood ratio of how the bad events fall on the versions, given how many there
    /// are. That distribution is made here from the joint one by division, for a rate that must not matter.
    #[test]
    fn without_points_it_is_the_conditional_likelihood_ratio(
        (n, m) in (1.0..500.0_f64, 1.0..500.0_f64),
        (ratio, kappa) in (0.2..4.0_f64, 0.03..20.0_f64),
        (bad, expected_bad) in (0_u32..30, 0.5..20.0_f64),
        part in 0.0..=1.0_f64,
    ) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of 30")]
        let c = (f64::from(bad) * part) as usize;
        let conditional = |times: f64| {
            let rate = expected_bad / (times * n + m);
            let (canary, stable) = (poisson(times * rate * n, bad), poisson(rate * m, bad));
            let joint = |c: usize| canary[c] * stable[bad as usize - c];
            joint(c) / (0..=bad as usize).map(joint).sum::<f64>()
        };
        let expected = (conditional(kappa * ratio) / conditional(ratio)).ln();
        let counts = counts(c as f64, n, f64::from(bad) - c as f64, m);
        let found = log_e(kappa, Limit { ratio, points: 0.0 }, &counts);
        prop_assert!((found - expected).abs() < 1e-6 * (1.0 + expected.abs()), "{found} {expected}");
    }
}

/// All paths of three looks on the boundary: the probability that the evidence ever reached x is at most 1/x, for the
/// bets on harm with stakes and cap as well as for those on safety. Outcomes that are left out for being improbable
/// count as if they had reached it.
#[test]
fn evidence_is_rarely_large_by_chance() {
    let (n, m, rate) = (8_u32, 16_u32, 0.06);
    for limit in [Limit::STRICT, Limit { ratio: 1.2, points: 0.02 }] {
        let canary = binomial(n, limit.ratio * rate + limit.points);
        let stable = binomial(m, rate);
        let mut outcomes = Vec::new();
        for (c, p) in (0_u32..).zip(&canary) {
            for (s, q) in (0_u32..).zip(&stable) {
                if p * q > 2e-4 {
                    let counts = counts(f64::from(c), f64::from(n), f64::from(s), f64::from(m));
                    outcomes.push((counts, p * q));
                }
            }
        }
        let left_out = 1.0 - outcomes.iter().map(|(_, probability)| probability).sum::<f64>().powi(3);
        assert!(left_out < 0.02, "{left_out}");
        let mut reached = [[left_out; 3]; 2];
        let levels = [1.5, 3.0, 10.0];
        // Bets, the largest evidence so far of harm and of safety, and the probability.
        let mut paths = vec![([1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], [1.0; 6], [1.0_f64; 2], 1.0)];
        for number in 1..=3 {
            let step = |(harm, safe, most, before): &([f64; 7], [f64; 6], [f64; 2], f64)| {
                let (harm, safe, most, before) = (*harm, *safe, *most, *before);
                outcomes.iter().map(move |(counts, probability)| {
                    let said = Said { counts, dispersion: 1.0, limit, harm: Harm::Above };
                    let (harm, safe) = (bet_on_harm(&harm, number, 12, &said), bet_on_safety(&safe, &said));
                    let most = [most[0].max(wealth(&harm)), most[1].max(wealth(&safe) / 6.0)];
                    (harm, safe, most, before * probability)
                })
            };
            paths = paths.iter().flat_map(step).collect();
        }
        for (_, _, most, probability) in &paths {
            for (kind, reached) in reached.iter_mut().enumerate() {
                for (level, reached) in levels.iter().zip(reached) {
                    *reached += if most[kind] >= *level { *probability } else { 0.0 };
                }
            }
        }
        for kind in reached {
            for (level, reached) in levels.iter().zip(kind) {
                assert!(reached <= 1.0 / level, "{limit:?}: {level} with probability {reached}");
            }
        }
        let grows = reached.iter().all(|kind| kind[0] > 0.05 + left_out);
        assert!(grows, "{reached:?}, {left_out} left out: it does grow now and then");
    }
}

/// Stable pods with `each` expected bad events, of which two differ so that the scatter Q is as given: Q = 2·off²/each.
fn unequal(pods: u32, each: f64, q: f64) -> impl Iterator<Item = [f64; 2]> + Clone {
    let off = (each * q / 2.0).sqrt();
    (0..pods).map(move |pod| {
        let bad = match pod {
            0 => each + off,
            1 => each - off,
            _ => each,
        };
        [bad, 100_000.0]
    })
}

/// Degrees of freedom and the 95 % point of χ² (NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.4).
const CHI_SQUARE: [(u32, f64); 16] = [
    (1, 3.841),
    (2, 5.991),
    (3, 7.815),
    (4, 9.488),
    (5, 11.070),
    (8, 15.507),
    (10, 18.307),
    (15, 24.996),
    (19, 30.144),
    (20, 31.410),
    (21, 32.671),
    (25, 37.652),
    (30, 43.773),
    (40, 55.758),
    (60, 79.082),
    (100, 124.342),
];

#[test]
fn pods_are_unequal_from_the_printed_point_of_chi_square_on() {
    for (freedom, point) in CHI_SQUARE {
        let widened = |q: f64| spread(unequal(freedom + 1, 100.0, q), 1.0, 1) > 1.0;
        assert!(!widened(point * 0.998), "{freedom} degrees, below {point}");
        assert!(widened(point * 1.002), "{freedom} degrees, above {point}");
        // Divided by the dispersion.
        let twice = |q: f64| spread(unequal(freedom + 1, 100.0, 2.0 * q), 2.0, 1) > 1.0;
        assert!(!twice(point * 0.998) && twice(point * 1.002), "{freedom} degrees");
    }
}

/// Degrees of freedom and the 99 % point of Student's t (same handbook, 1.3.6.7.2).
const STUDENT: [(u32, f64); 14] = [
    (1, 31.821),
    (2, 6.965),
    (3, 4.541),
    (4, 3.747),
    (5, 3.365),
    (8, 2.896),
    (10, 2.764),
    (15, 2.602),
    (20, 2.528),
    (21, 2.518),
    (25, 2.485),
    (30, 2.457),
    (60, 2.390),
    (100, 2.364),
];

/// With Q known, τ² = (Q − freedom)/(Σe − Σe²/Σe), where Σe = 1000·pods and Σe²/Σe = 1000: the factor gives t.
#[test]
fn limits_are_widened_by_the_printed_point_of_students_t() {
    for (freedom, point) in STUDENT {
        let q = 4.0 * f64::from(freedom) + 30.0;
        let tau = ((q - f64::from(freedom)) / (1000.0 * f64::from(freedom))).sqrt();
        for canary_pods in [1_u32, 4] {
            let width = (1.0 / f64::from(canary_pods) + 1.0 / f64::from(freedom + 1)).sqrt();
            let factor = spread(unequal(freedom + 1, 1000.0, q), 1.0, canary_pods as usize);
            let expected = point * tau * width;
            // The factor is rounded up to thousandths.
            let slack = 0.001 / factor + 0.001 * expected;
            assert!((factor.ln() - expected).abs() <= slack, "{freedom} degrees: {} {expected}", factor.ln());
        }
    }
}

/// Every outcome of one look with the true ratio: the outcomes whose interval leaves it out have a probability of at
/// most α together. Given the number of bad events the rate of stable does not matter, so one is enough.
#[test]
fn the_interval_covers_the_true_ratio() {
    let (n, m, alpha) = (40.0, 60.0, 0.2);
    for ratio in [1.0_f64, 3.0] {
        let (canary, stable) = (poisson(ratio * 0.1 * n, 24), poisson(0.1 * m, 18));
        let (mut missed, mut seen, mut above, mut below) = (0.0, 0.0, 0, 0);
        for (c, p) in (0_u32..).zip(&canary) {
            for (s, q) in (0_u32..).zip(&stable) {
                // What is so rare is not looked at, and counts as missed.
                if p * q < 1e-3 {
                    continue;
                }
                seen += p * q;
                let guard = seen_once(counts(f64::from(c), n, f64::from(s), m));
                let interval = ratio_interval(&guard, 0, alpha);
                above += u32::from(interval.low > ratio);
                below += u32::from(interval.high.is_some_and(|high| high < ratio));
                if interval.low > ratio || interval.high.is_some_and(|high| high < ratio) {
                    missed += p * q;
                }
            }
        }
        assert!(missed + (1.0 - seen) <= alpha, "ratio {ratio}: {missed} of {seen}");
        assert!(seen > 0.85, "{seen}");
        assert!(above + below > 0, "an interval that never misses says nothing");
    }
}

/// The ends are where the mean of 40 likelihood ratios, sizes from 1.05 to 300 evenly spaced in their logarithm, is
/// 2/α. The ratios are of binomials here: how many of all bad events are the canary's.
#[test]
fn the_interval_ends_where_the_evidence_is_enough() {
    let ratio_of = |(c, n, s, m): (f64, f64, f64, f64), null: f64, alternative: f64| {
        let part = |ratio: f64| ratio * n / (ratio * n + m);
        (part(alternative) / part(null)).powf(c) * ((1.0 - part(alternative)) / (1.0 - part(null))).powf(s)
    };
    let sizes: Vec<f64> = (0..40).map(|k| 1.05 * (300.0_f64 / 1.05).powf(f64::from(k) / 39.0)).collect();
    for (seen, alpha) in [
        ((20.0, 1744.0, 30.0, 33_338.0), 0.01),
        ((30.0, 1000.0, 60.0, 5000.0), 0.05),
        ((3.0, 100.0, 40.0, 900.0), 0.2),
    ] {
        let (c, n, s, m) = seen;
        let guard = seen_once(counts(c, n, s, m));
        let interval = ratio_interval(&guard, 0, alpha);
        let high = interval.high.unwrap();
        let harm =
            sizes.iter().map(|size| ratio_of(seen, interval.low, interval.low * size)).sum::<f64>() / 40.0;
        let safe = sizes.iter().map(|size| ratio_of(seen, high, high / size)).sum::<f64>() / 40.0;
        assert!((harm * alpha / 2.0 - 1.0).abs() < 1e-6, "{seen:?}: {harm} at {}", interval.low);
        assert!((safe * alpha / 2.0 - 1.0).abs() < 1e-6, "{seen:?}: {safe} at {high}");
    }
}
