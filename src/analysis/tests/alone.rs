//! When the canary has all traffic it is held against what stable did before.

use super::{Random, pair, plan, reading};
use crate::analysis::evidence::{Harm, past_share};
use crate::analysis::{Plan, Reading, Sample, Verdict, fold, start_step, verdict};
use crate::api::evidence::{AnalysisState, Counts};

fn stable(bad: f64, all: f64) -> Counts {
    Counts { stable_bad: bad, stable_total: all, ..Counts::default() }
}

fn at_share(share: f64) -> Plan {
    Plan { share: Some(share), ..plan(&[("errors", "1.2x + 0.1%")]) }
}

/// By brute force: a share is accepted when the observed one is within so many of its own standard deviations.
#[test]
fn the_bounds_are_those_of_a_score_test() {
    for (bad, all) in [(0.0, 100.0), (3.0, 250.0), (50.0, 5000.0), (999.0, 1000.0), (1000.0, 1000.0)] {
        let accepted = |z: f64| {
            let shares = (0..=100_000).map(|k| f64::from(k) / 100_000.0);
            let mut within = shares.filter(|p| (bad / all - p).abs() <= z * (p * (1.0 - p) / all).sqrt());
            let first = within.next().unwrap();
            (first, within.next_back().unwrap_or(first))
        };
        let ((least, most), (lower, upper)) = (accepted(3.290_5), accepted(1.644_9));
        let near = |[a, b]: [f64; 2], [c, d]: [f64; 2]| (a - c).abs() < 2e-5 && (b - d).abs() < 2e-5;
        assert!(
            near(past_share(Harm::Above, &stable(bad, all), 1.0).unwrap(), [most, lower]),
            "{bad} of {all}"
        );
        assert!(
            near(past_share(Harm::Below, &stable(bad, all), 1.0).unwrap(), [least, upper]),
            "{bad} of {all}"
        );
    }
}

#[test]
fn a_short_past_says_nothing_and_a_scattered_one_less() {
    let past = |all, dispersion| past_share(Harm::Above, &stable(all / 100.0, all), dispersion);
    assert_eq!(past(99.0, 1.0), None);
    let ([sparing, demanding], [more, less]) = (past(5000.0, 1.0).unwrap(), past(5000.0, 2.0).unwrap());
    assert!(more > sparing && less < demanding);
}

/// The state of a release that compared both for a while, then gave the canary all traffic and `looks` looks.
fn baked(before: [f64; 2], per_look: f64, share_of_bad: f64, looks: i64) -> AnalysisState {
    let compare = at_share(0.5);
    let mut state = fold(&AnalysisState::default(), &compare, &pair(0, reading(0.0, 0.0), reading(0.0, 0.0)));
    state = fold(&state, &compare, &pair(5, reading(before[0], before[1]), reading(before[0], before[1])));
    state = start_step(&state);
    let alone = at_share(1.0);
    for look in 1..=looks {
        let all = before[1] + per_look * look as f64;
        let bad = before[0] + (per_look * look as f64 * share_of_bad).round();
        state = fold(&state, &alone, &pair(5 + 5 * look, reading(bad, all), reading(before[0], before[1])));
    }
    state
}

#[test]
fn a_fault_that_begins_when_it_bakes_is_found() {
    let state = baked([20.0, 4000.0], 500.0, 0.05, 12);
    assert!(matches!(verdict(&state, &at_share(1.0)), Verdict::Rollback(_)), "{:?}", state.guards[0]);
    // Without the past there is nothing to hold it against.
    let mut forgotten = state.clone();
    forgotten.guards[0].recent =
        forgotten.guards[0].recent.iter().take(1).cloned().collect::<Vec<_>>().into();
    assert_ne!(forgotten, state);
}

#[test]
fn one_that_is_as_good_as_before_is_proven_and_never_rolled_back() {
    let state = baked([20.0, 4000.0], 500.0, 0.005, 60);
    assert_eq!(verdict(&state, &at_share(1.0)), Verdict::Proven, "{:?}", state.guards[0]);
}

/// Many releases whose canary has the very rate of stable: 1 % of them may be rolled back, and one in a thousand more
/// for the interval. More than 11 of 150 come once in a million runs of a right engine.
#[test]
fn false_rollbacks_are_as_rare_as_with_both() {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let mut uniform = move || random.uniform();
    // Poisson by inversion; the mean is small.
    let mut poisson = |mean: f64| {
        let (mut k, mut p, u) = (0.0, (-mean).exp(), uniform());
        let mut sum = p;
        while u > sum && k < 200.0 {
            k += 1.0;
            p *= mean / k;
            sum += p;
        }
        k
    };
    let mut rolled_back = 0;
    for _ in 0..150 {
        let past = poisson(10.0);
        let mut state =
            fold(&AnalysisState::default(), &at_share(0.0), &pair(0, reading(0.0, 0.0), reading(0.0, 0.0)));
        state = fold(&state, &at_share(0.0), &pair(5, reading(0.0, 0.0), reading(past, 1000.0)));
        let (mut bad, mut all) = (0.0, 0.0);
        for look in 2..=30 {
            bad += poisson(2.0);
            all += 200.0;
            let sample = pair(5 * look, reading(bad, all), reading(past, 1000.0));
            state = fold(&state, &at_share(1.0), &sample);
            if matches!(verdict(&state, &at_share(1.0)), Verdict::Rollback(_)) {
                rolled_back += 1;
                break;
            }
        }
    }
    assert!(rolled_back <= 11, "{rolled_back} of 150");
}

#[test]
fn a_canary_without_counters_is_looked_at_before_its_first_request() {
    let none = Some(Reading::Ratio { bad: [].into(), total: [].into() });
    let samples: Vec<Sample> = (0..4)
        .map(|look| pair(5 * look, none.clone(), reading(2.0 * look as f64, 200.0 * look as f64)))
        .collect();
    let state = samples.iter().fold(AnalysisState::default(), |s, sample| fold(&s, &at_share(0.0), sample));
    assert_eq!(state.no_data_since, None);
    assert_eq!(state.guards[0].streams[0].totals, stable(6.0, 600.0));
    let compared =
        samples.iter().fold(AnalysisState::default(), |s, sample| fold(&s, &at_share(0.1), sample));
    assert!(compared.no_data_since.is_some(), "with a share it must have them");
}
