//! From samples to the state: counters, missing data, restarts, steps.

use proptest::prelude::*;

use super::{at, pair, plan, pod, reading, series};
use crate::analysis::evidence::take;
use crate::analysis::{Finding, Plan, Reading, Sample, Side, Verdict, fold, start_step, verdict};
use crate::api::evidence::{AnalysisState, Counts, GuardState, Look, Stream};

fn counts(canary_bad: f64, canary_total: f64, stable_bad: f64, stable_total: f64) -> Counts {
    Counts { canary_bad, canary_total, stable_bad, stable_total }
}

fn errors() -> Plan {
    plan(&[("errors", "1.2x + 0.1%")])
}

fn folded(plan: &Plan, samples: &[Sample]) -> AnalysisState {
    samples.iter().fold(AnalysisState::default(), |state, sample| fold(&state, plan, sample))
}

/// The state after a first look at 1000 requests of each version, and then these readings.
fn after(readings: &[(Option<Reading>, Option<Reading>)]) -> AnalysisState {
    let mut samples = vec![pair(0, reading(10.0, 1000.0), reading(10.0, 1000.0))];
    samples.extend(
        (1..)
            .zip(readings)
            .map(|(number, (canary, stable))| pair(5 * number, canary.clone(), stable.clone())),
    );
    folded(&errors(), &samples)
}

fn reason(state: &AnalysisState) -> String {
    match verdict(state, &errors()) {
        Verdict::NoData { reason, .. } => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_was_counted_before_the_first_look_does_not_count() {
    let state = after(&[]);
    assert_eq!((state.looks, state.guards[0].streams[0].totals), (0, Counts::default()));
    assert!(matches!(verdict(&state, &errors()), Verdict::Collecting { .. }));
    let state = after(&[(reading(12.0, 1100.0), reading(11.0, 3000.0))]);
    assert_eq!((state.looks, state.guards[0].streams[0].totals), (1, counts(2.0, 100.0, 1.0, 2000.0)));
}

#[test]
fn an_error_series_that_appears_counts_from_zero() {
    let samples = [
        pair(0, reading(-1.0, 1000.0), reading(-1.0, 1000.0)),
        pair(5, reading(3.0, 1100.0), reading(-1.0, 3000.0)),
    ];
    assert_eq!(folded(&errors(), &samples).guards[0].streams[0].totals, counts(3.0, 100.0, 0.0, 2000.0));
    // A new series of all events on a known pod counts from zero as well: its errors do.
    let split = Some(Reading::Ratio {
        bad: series(&[("500", 3.0)]),
        total: series(&[("200", 1100.0), ("500", 3.0)]),
    });
    let before = Some(Reading::Ratio { bad: series(&[]), total: series(&[("200", 1000.0)]) });
    let samples = [pair(0, before, reading(0.0, 0.0)), pair(5, split, reading(0.0, 0.0))];
    assert_eq!(folded(&errors(), &samples).guards[0].streams[0].totals, counts(3.0, 103.0, 0.0, 0.0));
}

#[test]
fn a_counter_that_begins_again_counts_from_zero() {
    let state = after(&[(reading(2.0, 40.0), reading(11.0, 1500.0))]);
    assert_eq!(state.guards[0].streams[0].totals, counts(2.0, 40.0, 1.0, 500.0));
}

#[test]
fn a_series_that_goes_and_comes_back_is_not_counted_twice() {
    let state = after(&[
        (reading(-1.0, 1100.0), reading(11.0, 1500.0)),
        (reading(11.0, 1200.0), reading(11.0, 1600.0)),
    ]);
    assert_eq!(state.guards[0].streams[0].totals, counts(1.0, 200.0, 1.0, 600.0));
}

#[test]
fn numbers_that_are_none_are_no_data_and_nothing_is_lost() {
    for broken in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let state = after(&[(reading(12.0, broken), reading(11.0, 2000.0))]);
        assert_eq!(state.guards[0].streams[0].totals, Counts::default(), "{broken}");
        assert!(reason(&state).contains("pod web-c: all is"), "{}", reason(&state));
        let next = fold(&state, &errors(), &pair(10, reading(15.0, 1200.0), reading(12.0, 3000.0)));
        assert_eq!(
            next.guards[0].streams[0].totals,
            counts(5.0, 200.0, 2.0, 2000.0),
            "one merged look of both versions"
        );
        assert_eq!((next.looks, next.no_data_since, next.no_data_reason), (1, None, None));
    }
    let negative = Some(Reading::Ratio { bad: series(&[("500", 1.0)]), total: series(&[("all", -1.0)]) });
    assert!(reason(&after(&[(negative, reading(1.0, 1.0))])).contains("is -1"));
}

#[test]
fn numbers_that_no_counter_reaches_are_no_data_and_their_sums_stay_finite() {
    let plan = errors();
    let mut state = AnalysisState::default();
    for second in 0..6 {
        // Each is below the last, as if the counter began again.
        let huge = 1.7e308 / f64::from(second + 1);
        let sample = pair(second.into(), reading(huge, huge), reading(1.0, 1000.0));
        state = fold(&state, &plan, &sample);
    }
    assert!(reason(&state).contains("pod web-c: 500 is 28"), "{}", reason(&state));
    assert_eq!(state.guards[0].streams[0].totals, Counts::default());
    let json = serde_json::to_string(&state).unwrap();
    assert!(!json.contains("null"), "{json}");
}

#[test]
fn one_pod_whose_counters_jump_back_counts_from_zero_and_disturbs_no_other() {
    let plan = errors();
    let sample = |second: i64, values: [f64; 3]| {
        let stable = |uid: &str, total| pod(uid, Side::Stable, &[reading(0.0, total)]);
        let canary = pod("c", Side::Canary, &[reading(0.0, 100.0 * second as f64)]);
        Sample {
            at: at(second),
            outcome: Ok(vec![canary, stable("s", values[0]), stable("t", values[1]), stable("u", values[2])]),
        }
    };
    let looks = [[500.0, 500.0, 500.0], [600.0, 400.0, 600.0], [700.0, 450.0, 700.0], [800.0, 30.0, 800.0]];
    let samples: Vec<Sample> = (1..).zip(looks).map(|(second, values)| sample(second, values)).collect();
    let state = folded(&plan, &samples);
    // 300 of each of the two; of the third 400 from zero, 50, and 30 from zero.
    assert_eq!(
        state.guards[0].streams[0].totals,
        counts(0.0, 300.0, 0.0, 300.0 + 300.0 + 400.0 + 50.0 + 30.0)
    );
    assert!(matches!(verdict(&state, &plan), Verdict::Collecting { .. }));
}

#[test]
fn without_the_series_of_all_events_there_is_no_data() {
    let only_bad = Some(Reading::Ratio { bad: series(&[("500", 12.0)]), total: series(&[]) });
    for missing in [only_bad, Some(Reading::Ratio { bad: series(&[]), total: series(&[]) })] {
        let state = after(&[(reading(12.0, 1100.0), missing)]);
        assert_eq!(reason(&state), "guard errors: pod web-s has no series of http_requests_total");
        assert_eq!(state.guards[0].looks, 0);
    }
    assert_eq!(reason(&after(&[(None, reading(12.0, 1100.0))])), "guard errors: pod web-c gave no answer");
    let gone = Sample { at: at(5), outcome: Ok(vec![pod("c", Side::Canary, &[reading(0.0, 0.0)])]) };
    assert_eq!(
        reason(&fold(&after(&[]), &errors(), &gone)),
        "guard errors: there is no stable pod to measure"
    );
}

#[test]
fn no_data_begins_with_the_first_silence_and_ends_with_data() {
    let down = |second| Sample { at: at(second), outcome: Err("connection refused".to_owned()) };
    let state = after(&[(reading(12.0, 1100.0), reading(11.0, 2000.0))]);
    let silent = fold(&fold(&state, &errors(), &down(10)), &errors(), &down(15));
    let expected = Verdict::NoData { since: at(10), reason: "connection refused".to_owned() };
    assert_eq!(verdict(&silent, &errors()), expected);
    assert_eq!(silent.guards, state.guards);
    let back = fold(&silent, &errors(), &pair(20, reading(13.0, 1400.0), reading(12.0, 9000.0)));
    assert_eq!(back.guards[0].streams[0].totals, counts(3.0, 400.0, 2.0, 8000.0));
    assert!(matches!(verdict(&back, &errors()), Verdict::Collecting { .. }));
}

#[test]
fn a_pod_without_an_answer_does_not_stop_the_others() {
    let sample = |second, second_canary: Option<Reading>| Sample {
        at: at(second),
        outcome: Ok(vec![
            pod("c1", Side::Canary, &[reading(0.0, 100.0 * f64::from(i32::try_from(second).unwrap()))]),
            pod("c2", Side::Canary, &[second_canary]),
            pod("s", Side::Stable, &[reading(0.0, 1.0)]),
        ]),
    };
    let samples = [
        sample(1, reading(1.0, 50.0)),
        sample(2, None),
        sample(3, reading(2.0, 70.0)),
        sample(4, reading(2.0, 75.0)),
    ];
    let state = folded(&errors(), &samples);
    assert_eq!(state.no_data_since, None);
    assert_eq!(state.guards[0].streams[0].totals, counts(1.0, 325.0, 0.0, 0.0));
}

#[test]
fn young_pods_are_left_out_each_for_itself() {
    let sample = |second: i64| {
        let value = reading(0.0, f64::from(i32::try_from(second).unwrap()) * 10.0);
        let mut young = pod("young", Side::Canary, std::slice::from_ref(&value));
        young.started_at = at(0);
        let old = pod("old", Side::Canary, std::slice::from_ref(&value));
        Sample { at: at(second), outcome: Ok(vec![young, old, pod("s", Side::Stable, &[reading(0.0, 0.0)])]) }
    };
    let samples: Vec<Sample> = (1..=14).map(|number| sample(5 * number)).collect();
    let state = folded(&errors(), &samples);
    // The old one from 5 s to 70 s; the young one only from 60 s on, 60 s being where it starts.
    assert_eq!(state.guards[0].streams[0].totals.canary_total.to_bits(), (650.0_f64 + 100.0).to_bits());
    // While all are young there is nothing to say, and nothing is wrong.
    let mut only_young = sample(30);
    only_young.outcome.as_mut().unwrap().remove(1);
    let state = fold(&AnalysisState::default(), &errors(), &only_young);
    assert!(matches!(verdict(&state, &errors()), Verdict::Collecting { .. }), "{state:?}");
}

#[test]
fn pods_that_went_are_forgotten() {
    let of = |uid: &str, second, value| Sample {
        at: at(second),
        outcome: Ok(vec![
            pod("c", Side::Canary, &[reading(0.0, value)]),
            pod(uid, Side::Stable, &[reading(1.0, value)]),
        ]),
    };
    let state = folded(&errors(), &[of("a", 0, 10.0), of("a", 5, 20.0), of("b", 10, 5000.0)]);
    let uids: Vec<&str> = state.guards[0].counters.keys().map(String::as_str).collect();
    assert_eq!(uids, ["b", "c"]);
    assert_eq!(
        state.guards[0].streams[0].totals,
        counts(0.0, 10.0, 0.0, 10.0),
        "a pod first seen counts from there"
    );
    let state = fold(&state, &errors(), &of("b", 15, 5010.0));
    assert_eq!(state.guards[0].stable_pods.keys().collect::<Vec<_>>(), ["b"]);
}

#[test]
fn too_many_series_are_no_data() {
    let wide = |count: usize| {
        let values: Vec<(String, f64)> = (0..count).map(|index| (format!("path-{index}"), 1.0)).collect();
        Some(Reading::Ratio { bad: series(&[]), total: values.into_iter().collect() })
    };
    let state = fold(&AnalysisState::default(), &errors(), &pair(0, wide(200), wide(200)));
    assert_eq!(state.no_data_reason, None);
    let state = fold(&state, &errors(), &pair(5, wide(201), wide(200)));
    let said = "guard errors: too many series: pod web-c has more than 200; narrow `match`";
    assert_eq!(state.no_data_reason.as_deref(), Some(said));
    assert_eq!(state.guards[0].counters["c"].total.len(), 200);
    let pods = (0..16).map(|index| {
        let side = if index == 0 { Side::Canary } else { Side::Stable };
        pod(&format!("{index}"), side, &[wide(200)])
    });
    let state =
        fold(&AnalysisState::default(), &errors(), &Sample { at: at(0), outcome: Ok(pods.collect()) });
    assert!(state.no_data_reason.unwrap().contains("3200 on 16 pods, at most 3000"));
}

#[test]
fn a_sample_that_is_not_newer_changes_nothing() {
    let state = after(&[(reading(12.0, 1100.0), reading(11.0, 2000.0))]);
    for second in [5, 4, -200] {
        let late = pair(second, reading(11.0, 1050.0), reading(11.0, 1500.0));
        assert_eq!(fold(&state, &errors(), &late), state, "at {second} s");
    }
    // A clock that was set back by more than a sample can be late must not stop the release for ever.
    assert_ne!(fold(&state, &errors(), &pair(-400, reading(12.0, 1200.0), reading(11.0, 2000.0))), state);
}

/// Canary 5 % bad, stable 0.1 %, with guards `names` that all see the same.
fn failing(plan: &Plan, looks: u32) -> AnalysisState {
    let samples: Vec<Sample> = (0..=looks)
        .map(|number| {
            let times = f64::from(number);
            let of = |bad: f64, total: f64| vec![reading(bad * times, total * times); plan.guards.len()];
            Sample {
                at: at(5 * i64::from(number)),
                outcome: Ok(vec![
                    pod("c", Side::Canary, &of(12.0, 250.0)),
                    pod("s", Side::Stable, &of(5.0, 4750.0)),
                ]),
            }
        })
        .collect();
    folded(plan, &samples)
}

#[test]
fn a_bad_canary_is_found_by_both_keys_and_more_guards_need_more() {
    let one = errors();
    let state = failing(&one, 3);
    let Verdict::Rollback(Finding { guard, strict, needed_strict, margin, needed_margin }) =
        verdict(&state, &one)
    else {
        panic!("{:?}", verdict(&state, &one));
    };
    assert_eq!((guard.as_str(), needed_strict, needed_margin), ("errors", 100.0, 10.0));
    assert!(strict >= 100.0 && margin >= 10.0);
    assert_eq!(state.guards[0].recent.len(), 3);

    let mut lenient = one.clone();
    lenient.guards[0] = lenient.guards[0].with_written("60x").unwrap();
    let within = failing(&lenient, 3);
    assert!(within.guards[0].strict >= 100.0, "worse than stable");
    assert!(matches!(verdict(&within, &lenient), Verdict::Collecting { .. }), "but tolerated");

    let five = plan(&[("a", "1x"), ("b", "1x"), ("c", "60x"), ("d", "1x"), ("e", "1x")]);
    let state = failing(&five, 3);
    assert!(state.guards[0].strict < 500.0 && state.guards[0].strict >= 100.0, "{}", state.guards[0].strict);
    assert!(matches!(verdict(&state, &five), Verdict::Collecting { .. }));
    let Verdict::Rollback(finding) = verdict(&failing(&five, 4), &five) else { panic!("still not found") };
    assert_eq!((finding.guard.as_str(), finding.needed_strict), ("a", 500.0));
}

/// Stable's pods fail 4 and 12 of 1,000; the canary is like the worse of them, which is no fault of its revision.
#[test]
fn a_canary_like_the_worse_of_unequal_pods_is_not_rolled_back() {
    let strict = plan(&[("errors", "1x")]);
    let samples: Vec<Sample> = (0..=200_i32)
        .map(|number| {
            let times = f64::from(number);
            let stable = [4.0, 12.0, 4.0, 12.0].map(|bad| reading(bad * times, 1000.0 * times));
            let mut pods = vec![pod("c", Side::Canary, &[reading(12.0 * times, 1000.0 * times)])];
            pods.extend(
                stable
                    .into_iter()
                    .enumerate()
                    .map(|(index, value)| pod(&index.to_string(), Side::Stable, &[value])),
            );
            Sample { at: at(5 * i64::from(number)), outcome: Ok(pods) }
        })
        .collect();
    let state = folded(&strict, &samples);
    assert!(!matches!(verdict(&state, &strict), Verdict::Rollback(_)), "{}", state.guards[0].strict);
    let mut unaware = GuardState::default();
    let mut failed = false;
    for look in state.guards[0].recent.iter() {
        let look = Look { spread: 1.0, ..look.clone() };
        take(&mut unaware, &strict.guards[0].rule, strict.planned_looks, &look);
        failed |= unaware.strict >= 100.0 && unaware.margin >= 10.0;
    }
    assert!(failed, "without widening it would be");
    let widened = state.guards[0].recent.last().unwrap().spread;
    assert!(widened > 1.5, "{widened}");
    let replayed = state.guards[0].recent.iter().fold(GuardState::default(), |mut guard, look| {
        take(&mut guard, &strict.guards[0].rule, strict.planned_looks, look);
        guard
    });
    assert_eq!(
        replayed.strict.to_bits(),
        state.guards[0].strict.to_bits(),
        "recorded looks can be repeated exactly"
    );
}

#[test]
fn a_rollback_comes_before_missing_data() {
    let mut state = failing(&errors(), 4);
    state = fold(&state, &errors(), &Sample { at: at(100), outcome: Err("down".to_owned()) });
    assert!(state.no_data_since.is_some());
    assert!(matches!(verdict(&state, &errors()), Verdict::Rollback(_)));
}

#[test]
fn proof_needs_all_guards_data_and_is_reset_by_a_step() {
    let two = plan(&[("a", "1.2x + 0.1%"), ("b", "1.2x + 0.1%")]);
    let sample = |number: u32, second_guard: bool| {
        let times = f64::from(number);
        let of = |bad: f64, total: f64, busy: bool| {
            let all = if busy { total * times } else { 0.0 };
            vec![reading(bad * times, total * times), reading(bad * times, all)]
        };
        Sample {
            at: at(5 * i64::from(number)),
            outcome: Ok(vec![
                pod("c", Side::Canary, &of(0.25, 250.0, second_guard)),
                pod("s", Side::Stable, &of(4.75, 4750.0, true)),
            ]),
        }
    };
    let idle = folded(&two, &(0..40).map(|number| sample(number, false)).collect::<Vec<_>>());
    let Verdict::Collecting { guards } = verdict(&idle, &two) else { panic!("{:?}", verdict(&idle, &two)) };
    assert_eq!(guards.len(), 1, "a guard without traffic is never proven");
    assert_eq!((guards[0].guard.as_str(), guards[0].safe.to_bits()), ("b", 1.0_f64.to_bits()));

    let proven = folded(&two, &(0..40).map(|number| sample(number, true)).collect::<Vec<_>>());
    assert_eq!(verdict(&proven, &two), Verdict::Proven);
    let silent = fold(&proven, &two, &Sample { at: at(300), outcome: Err("down".to_owned()) });
    assert!(matches!(verdict(&silent, &two), Verdict::NoData { .. }), "no data is never proof");
    let next = start_step(&proven);
    assert!(matches!(verdict(&next, &two), Verdict::Collecting { guards } if guards.len() == 2));
    assert_eq!(next.guards[0].safe_from, 39);
    assert_eq!(
        next.guards[0].streams[0].strict_bets.map(f64::to_bits),
        proven.guards[0].streams[0].strict_bets.map(f64::to_bits),
        "evidence of harm goes on"
    );
    assert_eq!(verdict(&AnalysisState::default(), &plan(&[])), Verdict::Proven, "no guard, nothing to prove");
    assert!(
        matches!(verdict(&AnalysisState::default(), &two), Verdict::Collecting { guards } if guards.len() == 2)
    );
}

/// Five guards, 20 + 4 pods with 10 series each, twice as many looks as are kept.
#[test]
fn the_state_stays_small_and_survives_json_to_the_last_bit() {
    let five = plan(&[("a", "1x"), ("b", "1x"), ("c", "1x"), ("d", "1x"), ("e", "1x")]);
    let mut state = AnalysisState::default();
    for number in 0..721_u32 {
        let pods = (0..24_u32).map(|pod_number| {
            let codes = ["200", "201", "204", "301", "302", "400", "401", "404", "500", "503"];
            let value =
                |code: usize| (f64::from(number) * 1.7 * f64::from(pod_number + 3)).floor() + code as f64;
            let all: Vec<(&str, f64)> =
                codes.iter().enumerate().map(|(code, name)| (*name, value(code))).collect();
            let reading = Reading::Ratio { bad: series(&all[8..]), total: series(&all) };
            let side = if pod_number < 4 { Side::Canary } else { Side::Stable };
            pod(&format!("7a3f4c1e-9d2b-4b6f-8e21-{pod_number:012}"), side, &vec![Some(reading); 5])
        });
        state = fold(&state, &five, &Sample { at: at(5 * i64::from(number)), outcome: Ok(pods.collect()) });
    }
    assert_eq!(state.looks, 720);
    assert_eq!(state.guards[0].recent.len(), 360);
    let json = serde_json::to_string(&state).unwrap();
    assert!(json.len() < 200_000, "{} bytes", json.len());
    let read: AnalysisState = serde_json::from_str(&json).unwrap();
    assert_eq!(read, state);
    assert_eq!(serde_json::to_string(&read).unwrap(), json);
    assert_eq!(serde_json::to_string(&state.clone()).unwrap(), json);
}

#[test]
fn a_state_without_its_newer_fields_is_a_fresh_one() {
    let guard: GuardState = serde_json::from_str(r#"{"name": "errors"}"#).unwrap();
    assert_eq!(guard, GuardState { name: "errors".to_owned(), ..GuardState::default() });
    assert_eq!(
        (Stream::default().strict_bets[0].to_bits(), guard.safe.to_bits()),
        (1.0_f64.to_bits(), 1.0_f64.to_bits())
    );
}

/// The state is part of a custom resource: arrays have their bounds, and the numbers of a look are one array.
#[test]
fn the_schema_has_bounds() {
    use kube::CustomResourceExt as _;
    let crd = serde_json::to_value(crate::api::Release::crd()).unwrap();
    let properties =
        "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties/analysis/properties";
    let guard = &crd.pointer(properties).unwrap()["guards"]["items"]["properties"];
    let bounds = |schema: &serde_json::Value| (schema["minItems"].as_u64(), schema["maxItems"].as_u64());
    assert_eq!(
        (&guard["recent"]["type"], &guard["recent"]["maxLength"]),
        (&"string".into(), &200_000.into())
    );
    assert_eq!(bounds(&guard["streams"]), (None, Some(8)));
    let stream = &guard["streams"]["items"]["properties"];
    assert_eq!(bounds(&stream["strictBets"]), (Some(7), Some(7)));
    assert_eq!(bounds(&stream["safeBets"]), (Some(6), Some(6)));
    assert_eq!(guard["counters"]["maxProperties"], 1000);
    assert_eq!(guard["counters"]["additionalProperties"]["properties"]["total"]["maxProperties"], 200);
}

/// What happens at one tick of a history.
#[derive(Clone, Debug)]
enum Tick {
    /// A look, and the state is written.
    Written,
    /// A look whose state is only in memory.
    Remembered,
    /// No look.
    Skipped,
    /// The source is down.
    Down,
    /// The operator restarts: what was not written is gone.
    Restart,
}

fn ticks() -> impl Strategy<Value = Vec<(Tick, [u32; 8], u8)>> {
    let tick = prop_oneof![
        3 => Just(Tick::Written),
        3 => Just(Tick::Remembered),
        1 => Just(Tick::Skipped),
        1 => Just(Tick::Down),
        1 => Just(Tick::Restart),
    ];
    proptest::collection::vec((tick, proptest::array::uniform8(0_u32..500), any::<u8>()), 1..40)
}

proptest! {
    /// However a history is cut into looks, and wherever the operator restarts or a pod does not answer, every
    /// event is counted exactly once. Four pods, two series each.
    #[test]
    fn every_event_counts_exactly_once(history in ticks()) {
        let plan = errors();
        let sample = |tick: usize, values: &[u32; 8], mute: u8| {
            let pods = (0..4_usize).map(|number| {
                let (bad, good) = (f64::from(values[2 * number]), f64::from(values[2 * number + 1]));
                let reading = Reading::Ratio {
                    bad: if bad > 0.0 { series(&[("500", bad)]) } else { series(&[]) },
                    total: if bad > 0.0 { series(&[("500", bad), ("200", good)]) } else { series(&[("200", good)]) },
                };
                let answers = mute & (1 << number) == 0;
                let side = if number < 2 { Side::Canary } else { Side::Stable };
                pod(&number.to_string(), side, &[answers.then_some(reading)])
            });
            Sample { at: at(i64::try_from(tick).unwrap() * 5), outcome: Ok(pods.collect()) }
        };
        let mut values = [0, 1000, 0, 1000, 0, 1000, 0, 1000];
        let mut state = fold(&AnalysisState::default(), &plan, &sample(0, &values, 0));
        let mut written = state.clone();
        for (number, (tick, growth, mute)) in (1..).zip(&history) {
            for (value, growth) in values.iter_mut().zip(growth) {
                *value += growth;
            }
            match tick {
                Tick::Written => {
                    state = fold(&state, &plan, &sample(number, &values, *mute));
                    written = state.clone();
                }
                Tick::Remembered => state = fold(&state, &plan, &sample(number, &values, *mute)),
                Tick::Skipped => {}
                Tick::Down => {
                    let down = Sample { at: at(i64::try_from(number).unwrap() * 5), outcome: Err("down".to_owned()) };
                    state = fold(&state, &plan, &down);
                }
                Tick::Restart => state = written.clone(),
            }
        }
        state = fold(&state, &plan, &sample(history.len() + 1, &values, 0));
        let v = values.map(f64::from);
        let expected =
            counts(v[0] + v[2], v[0] + v[1] + v[2] + v[3] - 2000.0, v[4] + v[6], v[4] + v[5] + v[6] + v[7] - 2000.0);
        prop_assert_eq!(state.guards[0].streams[0].totals, expected);
        let sums = state.guards[0].recent.iter().fold(Counts::default(), |sums, look| counts(
            sums.canary_bad + look.counts[0].canary_bad,
            sums.canary_total + look.counts[0].canary_total,
            sums.stable_bad + look.counts[0].stable_bad,
            sums.stable_total + look.counts[0].stable_total,
        ));
        prop_assert_eq!(sums, expected);
        let pods = state.guards[0].stable_pods.values().fold([0.0, 0.0], |sum, pod| [sum[0] + pod[1], sum[1] + pod[0]]);
        prop_assert_eq!(pods.map(f64::to_bits), [expected.stable_bad, expected.stable_total].map(f64::to_bits));
    }

    /// Whatever the numbers are, nothing panics and everything that is kept can be written as JSON.
    #[test]
    fn any_numbers_leave_a_finite_state(values in proptest::collection::vec(proptest::array::uniform4(any::<f64>()), 1..12)) {
        let plan = errors();
        let mut state = AnalysisState::default();
        for (second, v) in (0..).zip(values) {
            let of = |bad, total| Some(Reading::Ratio { bad: series(&[("500", bad)]), total: series(&[("all", total)]) });
            state = fold(&state, &plan, &pair(second, of(v[0], v[1]), of(v[2], v[3])));
            let json = serde_json::to_string(&state).unwrap();
            prop_assert!(!json.contains("null"), "{}", json);
            prop_assert_eq!(&serde_json::from_str::<AnalysisState>(&json).unwrap(), &state);
            let _ = verdict(&state, &plan);
        }
    }
}
