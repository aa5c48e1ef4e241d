//! The formulas against exact sums over all outcomes, and against numbers from outside the code.

use super::{at, plan};
use crate::analysis::evidence::{
    CAP, HARM_GRID, Harm, Limit, SAFE_GRID, Said, bet_on_harm, bet_on_safety, dispersion, learn_dispersion,
    log_e, spread, take, wealth,
};
use crate::analysis::{Interval, Plan, Tolerance, Tolerated, explain, explanation_text, ratio_interval};
use crate::api::evidence::{AnalysisState, Counts, Dispersion, GuardState, Look, Stream};

fn counts(canary_bad: f64, canary_total: f64, stable_bad: f64, stable_total: f64) -> Counts {
    Counts { canary_bad, canary_total, stable_bad, stable_total }
}

fn said(counts: &Counts, limit: Limit) -> Said<'_> {
    Said { counts, dispersion: 1.0, limit, harm: Harm::Above }
}

fn poisson(mean: f64, most: u32) -> Vec<f64> {
    let mut mass = vec![(-mean).exp()];
    for k in 1..=most {
        mass.push(mass[k as usize - 1] * mean / f64::from(k));
    }
    mass
}

fn binomial(n: u32, p: f64) -> Vec<f64> {
    let mut mass = vec![(1.0 - p).powi(n.try_into().unwrap())];
    for k in 1..=n {
        mass.push(mass[k as usize - 1] * f64::from(n - k + 1) / f64::from(k) * p / (1.0 - p));
    }
    mass
}

/// The expectation of a function of (bad of canary, bad of stable).
fn expectation(canary: &[f64], stable: &[f64], e: impl Fn(f64, f64) -> f64) -> f64 {
    let mut sum = 0.0;
    for (c, p) in (0_u32..).zip(canary) {
        for (s, q) in (0_u32..).zip(stable) {
            sum += p * q * e(f64::from(c), f64::from(s));
        }
    }
    sum
}

const LIMITS: [(f64, f64); 6] = [(1.0, 0.0), (1.2, 0.001), (1.5, 0.0), (2.0, 0.02), (0.0, 0.01), (0.9, 0.0)];
const RATES: [f64; 4] = [0.0005, 0.01, 0.1, 0.3];

#[test]
fn expectation_is_one_on_the_boundary_with_poisson_counts() {
    let (n, m) = (30.0, 80.0);
    for (ratio, points) in LIMITS {
        for rate in RATES {
            let canary = poisson((ratio * rate + points) * n, 120);
            let stable = poisson(rate * m, 120);
            for kappa in [0.03, 0.3, 0.85, 1.3, 2.5] {
                let limit = Limit { ratio, points };
                let mean =
                    expectation(&canary, &stable, |c, s| log_e(kappa, limit, &counts(c, n, s, m)).exp());
                assert!((mean - 1.0).abs() < 1e-6, "r {ratio} d {points} rate {rate} kappa {kappa}: {mean}");
            }
        }
    }
}

#[test]
fn expectation_is_at_most_one_within_the_limit_with_binomial_counts() {
    let (n, m) = (20_u32, 60_u32);
    let mut smallest = f64::MAX;
    for (ratio, points) in LIMITS {
        for rate in RATES {
            let limit = Limit { ratio, points };
            let boundary: f64 = ratio * rate + points;
            for (kappa, part) in HARM_GRID.iter().flat_map(|kappa| [0.3, 0.8, 1.0].map(|part| (*kappa, part)))
            {
                let canary = binomial(n, boundary * part);
                let stable = binomial(m, rate);
                let e = |c, s| log_e(kappa, limit, &counts(c, f64::from(n), s, f64::from(m))).exp();
                let mean = expectation(&canary, &stable, e);
                smallest = smallest.min(mean);
                assert!(mean <= 1.0 + 1e-9, "r {ratio} d {points} rate {rate} kappa {kappa}: {mean}");
            }
            // Evidence of safety: the null is at the limit or above.
            for (kappa, times) in
                SAFE_GRID.iter().flat_map(|kappa| [1.0, 1.5, 2.0].map(|times| (*kappa, times)))
            {
                let canary = poisson(boundary * times * f64::from(n), 150);
                let stable = poisson(rate * f64::from(m), 150);
                let e = |c, s| log_e(kappa, limit, &counts(c, f64::from(n), s, f64::from(m))).exp();
                let mean = expectation(&canary, &stable, e);
                assert!(mean <= 1.0 + 1e-6, "safe: r {ratio} d {points} rate {rate} kappa {kappa}: {mean}");
            }
        }
    }
    assert!(smallest > 0.0, "no evidence was ever computed");
}

/// All paths of three looks, each with its probability: the wealth is an e-process with stakes, cap, dispersion.
#[test]
fn the_mixture_with_restarts_is_fair_over_several_looks() {
    let (n, m, rate) = (10.0, 30.0, 0.05);
    let limit = Limit { ratio: 1.2, points: 0.01 };
    let canary = poisson((1.2 * rate + 0.01) * n, 12);
    let stable = poisson(rate * m, 14);
    let mut paths = vec![([1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], 1.0)];
    for number in 1..=2 {
        let mut next = Vec::new();
        for (bets, probability) in &paths {
            for (c, p) in (0_u32..).zip(&canary) {
                for (s, q) in (0_u32..).zip(&stable) {
                    let counts = counts(f64::from(c), n, f64::from(s), m);
                    next.push((bet_on_harm(bets, number, 12, &said(&counts, limit)), probability * p * q));
                }
            }
        }
        paths = next;
    }
    let mean: f64 = paths.iter().map(|(bets, probability)| wealth(bets) * probability).sum();
    assert!(mean <= 1.0 + 1e-9, "{mean}");
    assert!(mean > 0.85, "only the cap takes away: {mean}");
    // Without cap and dispersion the six safe products are fair as well.
    let safe = expectation(&canary, &stable, |c, s| {
        wealth(&bet_on_safety(&[1.0; 6], &said(&counts(c, n, s, m), limit))) / 6.0
    });
    assert!((safe - 1.0).abs() < 1e-4, "{safe}");
}

/// With nothing on top it is the likelihood ratio of the canary's part of all bad events.
#[test]
fn without_points_it_is_the_conditional_binomial_likelihood_ratio() {
    for (c, n, s, m) in [(3.0, 100.0, 7.0, 900.0), (0.0, 50.0, 4.0, 60.0), (5.0, 10.0, 0.0, 1000.0)] {
        for ratio in [0.5, 1.0, 1.2, 3.0] {
            for kappa in [0.03, 0.7, 1.3, 20.0] {
                let part = |times: f64| times * n / (times * n + m);
                let (null, alternative) = (part(ratio), part(kappa * ratio));
                let expected = c * (alternative / null).ln() + s * ((1.0 - alternative) / (1.0 - null)).ln();
                let found = log_e(kappa, Limit { ratio, points: 0.0 }, &counts(c, n, s, m));
                assert!((found - expected).abs() < 1e-9, "{found} {expected}");
            }
        }
    }
}

#[test]
fn looks_that_say_nothing_leave_the_evidence_alone() {
    let limit = Limit { ratio: 1.2, points: 0.001 };
    for kappa in HARM_GRID.into_iter().chain(SAFE_GRID) {
        for nothing in [
            counts(0.0, 0.0, 5.0, 100.0),
            counts(2.0, 100.0, 0.0, 0.0),
            counts(0.0, 0.0, 0.0, 0.0),
            counts(3.0, 0.0, 1.0, 0.0),
            counts(f64::NAN, 10.0, 1.0, 10.0),
            counts(1.0, f64::INFINITY, 1.0, 10.0),
            counts(1.0, 1e308, 1.0, 1e308),
        ] {
            let log = log_e(kappa, limit, &nothing);
            assert!(
                log.to_bits() == 0 || nothing.canary_total >= 1e308 && log.is_finite(),
                "{kappa} {nothing:?} {log}"
            );
        }
    }
    // A plain limit needs no stable: 5 bad of 100 at a limit of 1 % and twice that: 5·ln 2 − 1.
    let plain = log_e(2.0, Limit { ratio: 0.0, points: 0.01 }, &counts(5.0, 100.0, 0.0, 0.0));
    assert!((plain - (5.0 * 2.0_f64.ln() - 1.0)).abs() < 1e-12);
}

/// Events counted per request or per thousand requests: the same evidence, the points scaled alike.
#[test]
fn the_unit_of_exposure_does_not_matter() {
    let looks = [(2.0, 250.0, 4.0, 4750.0), (0.0, 0.0, 3.0, 4700.0), (6.0, 240.0, 5.0, 4800.0)];
    let total = |unit: f64| {
        let limit = Limit { ratio: 1.2, points: 0.001 * unit };
        let mut bets = [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        let mut safe = [1.0; 6];
        for (number, (c, n, s, m)) in (1..).zip(looks) {
            let counts = counts(c, n / unit, s, m / unit);
            bets = bet_on_harm(&bets, number, 12, &said(&counts, limit));
            safe = bet_on_safety(&safe, &said(&counts, limit));
        }
        (wealth(&bets), wealth(&safe))
    };
    let (harm, safe) = total(1.0);
    for unit in [60.0, 1000.0, 0.001] {
        let (other_harm, other_safe) = total(unit);
        assert!((other_harm / harm - 1.0).abs() < 1e-9 && (other_safe / safe - 1.0).abs() < 1e-9);
    }
}

#[test]
fn no_single_look_decides_and_stakes_run_out() {
    assert!((CAP.powi(3) - 200.0).abs() < 1e-9);
    let disaster = counts(1000.0, 1000.0, 0.0, 19_000.0);
    let mut bets = [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
    let mut needed = 0;
    for number in 1..=20 {
        bets = bet_on_harm(&bets, number, 12, &said(&disaster, Limit::STRICT));
        if wealth(&bets) < 100.0 {
            needed = number + 1;
        }
        // 1/2 at the first look and 1/2 in twelve parts.
        let left = 0.5 - 0.5 / 12.0 * f64::from(number.min(12));
        assert!((bets[0] - left).abs() < 1e-12, "look {number}: {}", bets[0]);
    }
    assert_eq!(needed, 3, "three looks and no fewer");
    assert!(wealth(&bets).is_finite());
    for number in 21..2000 {
        bets = bet_on_harm(&bets, number, 12, &said(&disaster, Limit::STRICT));
    }
    assert!(wealth(&bets).is_finite(), "it stops growing before it overflows");
}

#[test]
fn dispersion_is_pearsons_estimate_shrunk_to_one() {
    let mut past = Dispersion::default();
    assert!((dispersion(&past, 4) - 1.0).abs() < 1e-12, "nothing learnt yet");
    // Expected 5 each: deviations 5, 5, 0, 0, so (25 + 25)/5 = 10 with 3 degrees; (10 + 15)/(3 + 15) = 1.3889.
    let learn = |past: &mut Dispersion, pods: &[[f64; 2]]| learn_dispersion(past, pods.iter().copied());
    learn(&mut past, &[[10.0, 100.0], [0.0, 100.0], [5.0, 100.0], [5.0, 100.0]]);
    assert!((past.squares - 10.0).abs() < 1e-12 && (past.freedom - 3.0).abs() < 1e-12);
    assert!((dispersion(&past, 4) - 1.389).abs() < 1e-12, "rounded up to thousandths");
    // Traffic of 300 and 100 with 3 and 1 bad is no scatter at all, and one pod alone has none.
    learn(&mut past, &[[3.0, 300.0], [1.0, 100.0]]);
    learn(&mut past, &[[3.0, 300.0]]);
    learn(&mut past, &[[0.0, 300.0], [0.0, 10.0]]);
    assert!((past.squares - 10.0).abs() < 1e-12 && (past.freedom - 4.0).abs() < 1e-12);
    let calm = Dispersion { squares: 1.0, freedom: 100.0 };
    assert!((dispersion(&calm, 4) - 1.0).abs() < 1e-12, "never below 1");
}

#[test]
fn unequal_pods_widen_the_limits() {
    let spread = |bad: &[f64], dispersion, canary_pods| {
        spread(bad.iter().map(|bad| [*bad, 10_000.0]), dispersion, canary_pods)
    };
    assert!((spread(&[100.0, 110.0, 95.0, 105.0], 1.0, 2) - 1.0).abs() < 1e-12, "what chance would do");
    // Expected 100 each; Q = (50² + 50²)/100 = 50, 3 degrees (95 % point 7.815);
    // τ² = (50 − 3)/(400 − 4·100²/400) = 47/300; exp(4.541·√(47/300)·√(1/2 + 1/4)) = exp(1.5566) = 4.7427.
    let factor = spread(&[150.0, 50.0, 100.0, 100.0], 1.0, 2);
    assert!((factor - 4.743).abs() < 0.002, "{factor}");
    // Divided by φ = 8 it is within chance: 50/8 < 7.815.
    assert!((spread(&[150.0, 50.0, 100.0, 100.0], 8.0, 2) - 1.0).abs() < 1e-12);
    assert!((spread(&[150.0], 1.0, 2) - 1.0).abs() < 1e-12);
    assert!((spread(&[], 1.0, 2) - 1.0).abs() < 1e-12);
    // From tables of χ² and t: 30 degrees have 43.773 and 2.457. 31 pods with Q just below and just above 43.773.
    let mut many = vec![100.0; 31];
    many[0] = 100.0 + 46.0;
    many[1] = 100.0 - 46.0;
    assert!((spread(&many, 1.0, 1) - 1.0).abs() < 1e-12, "Q = 42.32");
    many[0] = 100.0 + 47.5;
    many[1] = 100.0 - 47.5;
    // Q = 45.125; τ² = (45.125 − 30)/(3100 − 100) = 0.0050417; exp(2.457·0.071005·√(1 + 1/31)) = 1.1939.
    let factor = spread(&many, 1.0, 1);
    assert!((factor - 1.194).abs() < 0.002, "{factor}");
}

/// Seven looks with the totals of the worked example: canary 20 of 1,744 against stable 30 of 33,338. The evidence
/// that is expected of them was computed by another program from the same formulas.
fn worked_example() -> (AnalysisState, Plan) {
    let plan = Plan { planned_looks: 36, ..plan(&[("errors", "1.2x + 0.1%")]) };
    let mut guard = GuardState { name: "errors".to_owned(), ..GuardState::default() };
    let looks = [
        (2.0, 249.0, 3.0, 4762.0),
        (0.0, 249.0, 5.0, 4762.0),
        (1.0, 249.0, 4.0, 4762.0),
        (0.0, 249.0, 5.0, 4763.0),
        (3.0, 249.0, 2.0, 4763.0),
        (7.0, 249.0, 2.0, 4763.0),
        (7.0, 250.0, 9.0, 4763.0),
    ];
    for (number, (c, n, s, m)) in (0_u32..).zip(looks) {
        let look = Look::of(5.0 * f64::from(number), counts(c, n, s, m));
        take(&mut guard, &plan.guards[0].rule, plan.planned_looks, &look);
        let totals = &mut guard.streams[0].totals;
        totals.canary_bad += c;
        totals.canary_total += n;
        totals.stable_bad += s;
        totals.stable_total += m;
        guard.recent.push(look);
    }
    (
        AnalysisState { guards: vec![guard], last_look_at: Some(at(35).into()), ..AnalysisState::default() },
        plan,
    )
}

#[test]
fn the_worked_example_of_an_explanation() {
    let (state, plan) = worked_example();
    let explanation = explain(&state.guards[0], &plan.guards[0], &plan);
    let compared = &explanation.compared[0];
    assert_eq!(compared.counts, counts(20.0, 1744.0, 30.0, 33_338.0));
    assert!((compared.ratio.unwrap() - 12.744).abs() < 0.001);
    assert!((compared.tolerated_rate.unwrap() - 0.002_08).abs() < 0.000_01);
    let Interval { low, high } = compared.interval;
    assert!((3.8..=4.0).contains(&low), "{low}");
    assert!((37.0..=39.0).contains(&high.unwrap()), "{high:?}");
    assert!((explanation.strict - 167.665_840_695_740_4).abs() < 1e-6, "{}", explanation.strict);
    assert!((explanation.margin - 38.134_538_446_739_51).abs() < 1e-6, "{}", explanation.margin);
    let text = explanation_text(&explanation, "Rolled back after 35 s.");
    assert_eq!(
        text,
        "Rolled back after 35 s. Guard errors: canary 20 of 1,744 (1.15 %) against stable 30 of 33,338 (0.09 %): \
         12.7x, anytime 99 % interval 3.9x to 38x.\nEvidence that it is worse: 167 (needs 100). Evidence that it is \
         beyond the tolerance 1.2x + 0.1% (0.21 % at stable's present rate): 38 (needs 10). 7 looks; no look may \
         count more than 5.85x.\nA release that is no worse than stable gets here in fewer than 1 of 100 releases. \
         With a tolerance of about 3.1x + 0.1% it would still be running."
    );
}

#[test]
fn the_tolerance_that_would_have_done_is_the_least_one() {
    let (state, mut plan) = worked_example();
    let found = explain(&state.guards[0], &plan.guards[0], &plan).would_run_with.unwrap();
    assert_eq!(found.to_string(), "3.1x + 0.1%");
    let margin = |factor: f64| {
        let mut guard = GuardState::default();
        let tolerated = Tolerated::Share(Tolerance { factor, points: 0.001 });
        let rule = plan.guards[0].with(tolerated).rule;
        let mut failed = false;
        for look in state.guards[0].recent.iter() {
            take(&mut guard, &rule, plan.planned_looks, look);
            failed |= guard.strict >= 100.0 && guard.margin >= 10.0;
        }
        failed
    };
    assert!(!margin(3.1) && margin(3.0));
    plan.guards[0] = plan.guards[0].with(found);
    assert_eq!(
        explain(&state.guards[0], &plan.guards[0], &plan).would_run_with,
        None,
        "it would still be running"
    );
    let mut cut = state.guards[0].clone();
    cut.recent = cut.recent[1..].to_vec().into();
    plan.guards[0] = plan.guards[0].with_written("1.2x + 0.1%").unwrap();
    assert_eq!(explain(&cut, &plan.guards[0], &plan).would_run_with, None, "not all looks are recorded");
}

#[test]
fn an_interval_without_evidence_is_open() {
    let nothing = ratio_interval(&GuardState::default(), 0, 0.01);
    assert_eq!(nothing, Interval { low: 0.0, high: None });
    let with = |c, n, s, m| {
        let mut guard = GuardState { looks: 1, ..GuardState::default() };
        guard.streams.push(Stream { totals: counts(c, n, s, m), ..Stream::default() });
        ratio_interval(&guard, 0, 0.01)
    };
    let only_canary = with(20.0, 1000.0, 0.0, 1000.0);
    assert!(only_canary.low > 1.0 && only_canary.high.is_none(), "{only_canary:?}");
    let only_stable = with(0.0, 1000.0, 20.0, 1000.0);
    assert!(only_stable.low == 0.0 && only_stable.high.unwrap() < 1.0, "{only_stable:?}");
    let equal = with(100.0, 10_000.0, 100.0, 10_000.0);
    assert!(equal.low < 1.0 && equal.high.unwrap() > 1.0);
    // Both versions exchanged: the interval of the inverse.
    let (a, b) = (with(30.0, 1000.0, 60.0, 5000.0), with(60.0, 5000.0, 30.0, 1000.0));
    assert!((a.low * b.high.unwrap() - 1.0).abs() < 1e-6 && (a.high.unwrap() * b.low - 1.0).abs() < 1e-6);
}

#[test]
fn explanations_read_well_without_data() {
    let plan = plan(&[("errors", "1.2x + 0.1%")]);
    let text =
        explanation_text(&explain(&GuardState::default(), &plan.guards[0], &plan), "Still collecting.");
    assert_eq!(
        text,
        "Still collecting. Guard errors: no events yet.\nEvidence that it is worse: 1 \
         (needs 100). Evidence that it is beyond the tolerance 1.2x + 0.1%: 1 (needs 10). 0 looks; no look may count \
         more than 5.85x.\nEvidence that it is safe at this step: 1 (needs 20)."
    );
}
