//! Simulated releases with a fixed seed, small enough for every test run: canary 50 requests a second, stable 950,
//! looks every 5 s for 30 minutes, as in the acceptance figures.

use super::{at, plan, pod, reading};
use crate::analysis::evidence::take;
use crate::analysis::{Bounds, Rule, Sample, Side, Tolerance, Verdict, fold, verdict};
use crate::api::evidence::{AnalysisState, Counts, GuardState, Look};

/// xorshift64* (Vigna 2016).
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn uniform(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Binomial by inversion; fine for means up to some hundreds.
    fn binomial(&mut self, n: u32, p: f64) -> u32 {
        let mut mass = (f64::from(n) * (-p).ln_1p()).exp();
        let (mut below, odds, u) = (mass, p / (1.0 - p), self.uniform());
        let mut k = 0;
        while below < u && k < n {
            k += 1;
            mass *= f64::from(n - k + 1) / f64::from(k) * odds;
            below += mass;
        }
        k
    }

    /// Normal by the sum of twelve.
    pub(super) fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }
}

const LOOKS: u32 = 360;

/// The look at which the guard fails and the one at which it is first proven safe.
fn run(
    random: &mut Random,
    tolerance: Tolerance,
    rates: impl Fn(u32) -> (f64, f64),
) -> (Option<u32>, Option<u32>) {
    let rule = Rule::Events(Bounds::tolerate(tolerance));
    let mut guard = GuardState::default();
    let mut safe = None;
    for number in 1..=LOOKS {
        let (canary, stable) = rates(number);
        let counts = Counts {
            canary_bad: f64::from(random.binomial(250, canary)),
            canary_total: 250.0,
            stable_bad: f64::from(random.binomial(4750, stable)),
            stable_total: 4750.0,
        };
        take(&mut guard, &rule, LOOKS, &Look::of(0.0, counts));
        if guard.strict >= 100.0 && guard.margin >= 10.0 {
            return (Some(number), safe);
        }
        if safe.is_none() && guard.safe >= 20.0 {
            safe = Some(number);
        }
    }
    (None, safe)
}

fn standard() -> Tolerance {
    "1.2x + 0.1%".parse().unwrap()
}

fn median(mut looks: Vec<u32>) -> u32 {
    looks.sort_unstable();
    looks[looks.len() / 2]
}

/// On the boundary of the null both keys are the same test, so 1 of 100 is the bound of theory.
#[test]
fn a_release_that_is_no_worse_is_rarely_rolled_back() {
    let mut random = Random(0x5eed_0001);
    let exactly: Tolerance = "1x".parse().unwrap();
    let runs = 1500;
    let failed = (0..runs).filter(|_| run(&mut random, exactly, |_| (0.01, 0.01)).0.is_some()).count();
    assert!(failed * 100 <= runs * 2, "{failed} of {runs} on the boundary");
    assert!(failed > 0, "with 1,500 runs on the boundary some must fail, or nothing is measured");
    for rate in [0.001, 0.01] {
        let failed = (0..500).filter(|_| run(&mut random, standard(), |_| (rate, rate)).0.is_some()).count();
        assert!(failed <= 2, "{failed} of 500 healthy ones at {rate}");
    }
    // An incident that hits both versions alike.
    let incident = |number| if (100..160).contains(&number) { (0.08, 0.08) } else { (0.001, 0.001) };
    let failed = (0..300).filter(|_| run(&mut random, standard(), incident).0.is_some()).count();
    assert!(failed <= 1, "{failed} of 300 in a shared incident");
}

#[test]
fn a_worse_release_is_found_in_time() {
    let mut random = Random(0x5eed_0002);
    for (name, from, canary, stable, seconds) in [
        ("0.1 to 1 %", 0, 0.01, 0.001, 30),
        ("0.1 to 0.5 %", 0, 0.005, 0.001, 80),
        ("1 to 2 %", 0, 0.02, 0.01, 70),
        ("1 to 5 %", 0, 0.05, 0.01, 20),
        ("0.1 to 20 %", 0, 0.2, 0.001, 15),
        ("0 to 0.5 %", 0, 0.005, 0.0, 35),
        ("late 0.1 to 1 %", 120, 0.01, 0.001, 50),
        ("late 1 to 2 %", 120, 0.02, 0.01, 135),
    ] {
        let found: Vec<u32> = (0..300)
            .filter_map(|_| {
                run(&mut random, standard(), |number| (if number > from { canary } else { stable }, stable)).0
            })
            .filter(|look| *look > from)
            .map(|look| (look - from) * 5)
            .collect();
        assert!(found.len() >= 297, "{name}: found {} of 300", found.len());
        let median = median(found);
        assert!(median <= seconds, "{name}: {median} s");
    }
}

#[test]
fn safety_is_proven_when_it_is_true_and_only_then() {
    let mut random = Random(0x5eed_0003);
    let tolerance: Tolerance = "1.5x + 0.1%".parse().unwrap();
    for rate in [0.001, 0.01] {
        let proven: Vec<u32> = (0..200)
            .filter_map(|_| run(&mut random, tolerance, |_| (rate, rate)).1)
            .map(|look| look * 5)
            .collect();
        assert!(proven.len() >= 196, "{} of 200 at {rate}", proven.len());
        let median = median(proven);
        assert!(median <= 60, "at {rate}: {median} s");
        let expected = plan(&[("errors", "1.5x + 0.1%")]).guards[0]
            .expected_seconds_to_proof(rate, 50.0, 950.0)
            .unwrap();
        let ratio = expected / f64::from(median);
        assert!((0.6..=1.6).contains(&ratio), "foretold {expected} s, was {median} s at {rate}");
    }
    assert_eq!(
        plan(&[("errors", "1x")]).guards[0].expected_seconds_to_proof(0.01, 0.0, 950.0),
        None,
        "no traffic, no proof"
    );
    for (canary, stable) in [(0.01, 0.001), (0.05, 0.01)] {
        let proven =
            (0..500).filter(|_| run(&mut random, tolerance, |_| (canary, stable)).1.is_some()).count();
        assert!(proven <= 1, "{proven} of 500 bad releases proven safe");
    }
}

/// A whole release through `fold`: 2 canary pods and 10 stable ones with rates that differ by `sd` in their logarithm,
/// errors in bursts of `burst`.
fn release(random: &mut Random, times: f64, sd: f64, burst: f64, looks: u32) -> (Option<u32>, AnalysisState) {
    let plan = plan(&[("errors", "1.2x + 0.1%")]);
    let rates: Vec<f64> = (0..12).map(|_| 0.01 * (sd * random.normal() - sd * sd / 2.0).exp()).collect();
    let mut values = [[0.0, 0.0]; 12];
    let mut state = AnalysisState::default();
    for number in 0..=looks {
        let pods = values
            .iter_mut()
            .zip(&rates)
            .enumerate()
            .map(|(index, (value, rate))| {
                let (side, all, times) =
                    if index < 2 { (Side::Canary, 125, times) } else { (Side::Stable, 475, 1.0) };
                // Bursts: fewer starts, each with a geometric number of errors.
                let mut bad = 0.0;
                for _ in 0..random.binomial(all, rate * times / burst) {
                    bad += 1.0;
                    while random.uniform() > 1.0 / burst {
                        bad += 1.0;
                    }
                }
                value[0] += bad;
                value[1] += f64::from(all).max(bad);
                pod(&format!("{index:02}"), side, &[reading(value[0], value[1])])
            })
            .collect();
        state = fold(&state, &plan, &Sample { at: at(5 * i64::from(number)), outcome: Ok(pods) });
        if matches!(verdict(&state, &plan), Verdict::Rollback(_)) {
            return (Some(number), state);
        }
    }
    (None, state)
}

#[test]
fn unequal_pods_are_not_taken_for_a_fault() {
    let mut random = Random(0x5eed_0004);
    let failed = (0..100).filter(|_| release(&mut random, 1.0, 0.3, 1.0, 120).0.is_some()).count();
    assert!(failed <= 3, "{failed} of 100 with unequal pods");
    let found: Vec<u32> = (0..60).filter_map(|_| release(&mut random, 10.0, 0.3, 1.0, 60).0).collect();
    assert_eq!(found.len(), 60, "tenfold errors are found all the same");
    let median = median(found) * 5;
    assert!(median <= 20, "{median} s");
}

#[test]
fn bursts_are_not_taken_for_a_fault() {
    let mut random = Random(0x5eed_0005);
    let (_, learnt) = release(&mut random, 1.0, 0.0, 5.0, 120);
    // The variance of a sum of geometric bursts of mean 5 is 2·5 − 1 times that of single errors.
    let last = learnt.guards[0].recent.last().unwrap().dispersion;
    assert!((6.0..=12.0).contains(&last), "{last}");
    let failed = (0..100).filter(|_| release(&mut random, 1.0, 0.0, 5.0, 120).0.is_some()).count();
    assert!(failed <= 3, "{failed} of 100 with bursts");
    let found: Vec<u32> = (0..40).filter_map(|_| release(&mut random, 3.0, 0.0, 5.0, 240).0).collect();
    assert!(found.len() >= 39, "{} of 40 found", found.len());
    let median = median(found) * 5;
    assert!(median <= 240, "{median} s");
}
