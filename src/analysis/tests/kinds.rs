//! Guards of each kind, from samples to verdicts: histograms, gauges, limits, shares that are to be kept, weights, and
//! how the requests are shared.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Random, at, plan_of, pod, reading, series};
use crate::analysis::{
    Buckets, Plan, PodSample, Reading, Sample, Side, Verdict, explain, explanation_text, fold, start_step,
    verdict, whole_buckets,
};
use crate::api::evidence::AnalysisState;

/// Edges of a Prometheus client library, in seconds.
const EDGES: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

fn latency(tolerate: &str) -> Plan {
    plan_of(&json!([{"name": "latency", "histogram": {"metric": "took_seconds", "tolerate": tolerate}}]))
}

fn one(kind: &str, guard: Value) -> Plan {
    let mut named = json!({"name": "it"});
    named[kind] = guard;
    plan_of(&json!([named]))
}

#[expect(clippy::unnecessary_wraps, reason = "samples take an option")]
fn histogram(buckets: Buckets) -> Option<Reading> {
    Some(Reading::Histogram([("took_seconds".to_owned(), buckets)].into()))
}

fn sample(second: i64, pods: Vec<PodSample>) -> Sample {
    Sample { at: at(second), outcome: Ok(pods) }
}

fn both(second: i64, canary: Option<Reading>, stable: Option<Reading>) -> Sample {
    sample(second, vec![pod("c", Side::Canary, &[canary]), pod("s", Side::Stable, &[stable])])
}

fn reason(state: &AnalysisState) -> &str {
    state.no_data_reason.as_deref().unwrap_or("there is data")
}

/// Times with a log-normal distribution around 100 ms, counted in buckets; each look adds to them.
struct Times {
    edges: Vec<f64>,
    counts: Vec<f64>,
    slower: f64,
}

impl Times {
    fn new(edges: &[f64], slower: f64) -> Self {
        Self { edges: edges.to_vec(), counts: vec![0.0; edges.len() + 1], slower }
    }

    fn serve(&mut self, random: &mut Random, requests: u32) {
        for _ in 0..requests {
            let time = 0.1 * self.slower * (0.5 * random.normal()).exp();
            let bucket = self.edges.iter().position(|edge| time <= *edge).unwrap_or(self.edges.len());
            self.counts[bucket] += 1.0;
        }
    }

    fn classic(&self) -> Option<Reading> {
        let mut sum = 0.0;
        let upper = self.edges.iter().copied().chain([f64::INFINITY]);
        histogram(Buckets::classic(upper.zip(&self.counts).map(|(edge, count)| {
            sum += count;
            (edge, sum)
        })))
    }

    /// As the server tells it: buckets without events are left out.
    fn native(&self) -> Option<Reading> {
        let lower = [self.edges[0] / 2.0_f64.powf(0.125)].into_iter().chain(self.edges.iter().copied());
        let each = lower.zip(&self.edges).zip(&self.counts).filter(|(_, count)| **count > 0.0);
        let each = each.map(|((low, high), count)| (low, *high, *count)).collect();
        histogram(Buckets::native(self.counts.iter().sum(), each))
    }
}

/// The look at which a canary that is `slower` is rolled back, of at most `looks`; a look is 5 s of 50 against 950
/// requests a second, with a tenth of the requests to keep the test short.
fn caught_at(plan: &Plan, seed: u64, slower: f64, looks: i64, native: bool) -> Option<i64> {
    let schema_3: Vec<f64> = (-50..=20).map(|index| 2.0_f64.powf(f64::from(index) / 8.0)).collect();
    let edges: &[f64] = if native { &schema_3 } else { &EDGES };
    let mut random = Random(seed);
    let (mut canary, mut stable) = (Times::new(edges, slower), Times::new(edges, 1.0));
    let mut state = AnalysisState::default();
    for look in 0..=looks {
        canary.serve(&mut random, 250);
        stable.serve(&mut random, 1000);
        let read = |times: &Times| if native { times.native() } else { times.classic() };
        state = fold(&state, plan, &both(5 * look, read(&canary), read(&stable)));
        assert_eq!(reason(&state), "there is data");
        if let Verdict::Rollback(_) = verdict(&state, plan) {
            return Some(look);
        }
    }
    None
}

#[test]
fn a_slow_canary_is_found_in_classic_buckets_and_one_within_the_tolerance_is_not() {
    let plan = latency("1.2x");
    for seed in 1..=5 {
        let found = caught_at(&plan, seed, 2.0, 24, false);
        assert!(found.is_some_and(|look| look >= 3), "{found:?}");
        assert_eq!(caught_at(&plan, seed, 1.1, 60, false), None);
    }
}

#[test]
fn a_slow_canary_is_found_in_native_buckets_and_one_within_the_tolerance_is_not() {
    let plan = latency("1.2x");
    for seed in 1..=5 {
        let found = caught_at(&plan, seed, 1.5, 12, true);
        assert!(found.is_some_and(|look| look >= 3), "{found:?}");
        assert_eq!(caught_at(&plan, seed, 1.1, 60, true), None);
    }
    // Two buckets of an eighth of a doubling: 2^(2/8).
    assert!((whole_buckets(1.2, 3) - 1.189_207).abs() < 1e-6);
    assert!((whole_buckets(1.05, 3) - 1.090_508).abs() < 1e-6, "at least one");
}

/// 1,000 stable requests by their edge: half below 50 ms, and ever fewer beyond.
fn spread_out() -> Buckets {
    let up_to = [0.0, 100.0, 300.0, 500.0, 800.0, 950.0, 980.0, 990.0, 998.0, 1000.0, 1000.0];
    Buckets::classic(EDGES.into_iter().zip(up_to).chain([(f64::INFINITY, 1000.0)]))
}

#[test]
fn the_watched_edges_are_those_with_tails_near_the_wanted_ones() {
    let share = one("histogram", json!({"metric": "took_seconds", "tolerateShare": "1.5x + 0.2%"}));
    let state =
        fold(&AnalysisState::default(), &share, &both(0, histogram(spread_out()), histogram(spread_out())));
    let edges: Vec<f64> = state.guards[0].streams.iter().filter_map(|stream| stream.edge).collect();
    // 50 % → 0.05, 20 % → 0.1, 10 and 5 % → 0.25, 2 % → 0.5, 1 and 0.5 % → 1, 0.2 % → 2.5.
    assert_eq!(edges, [0.05, 0.1, 0.25, 0.5, 1.0, 2.5]);
    assert!(state.guards[0].streams.iter().all(|stream| stream.shifted.is_none()));

    let times = latency("1.25x");
    let state =
        fold(&AnalysisState::default(), &times, &both(0, histogram(spread_out()), histogram(spread_out())));
    let tenth = state.guards[0].streams.iter().find(|stream| stream.edge == Some(0.1)).unwrap();
    // Stable's tail at 0.08, between 50 % at 0.05 and 20 % at 0.1, by hand: part = ln 1.6 / ln 2 = 0.678; the share is
    // 0.5·0.4^0.678 = 0.2687; of the events between the two edges (0.2687 − 0.2)/0.3 = 0.2288 are slower than 0.08.
    let shifted = tenth.shifted.unwrap();
    assert_eq!((shifted.at, shifted.low, shifted.high), (0.08, 0.05, 0.1));
    assert!((shifted.weight - 0.2288).abs() < 1e-4, "{}", shifted.weight);
}

/// All of stable is below the smallest edge, as of a fast service: times there are taken as evenly spread, so of those
/// below 5 ms a sixth is above 5 ms / 1.2.
#[test]
fn below_the_smallest_edge_times_are_taken_as_evenly_spread() {
    let plan = latency("1.2x");
    let fast = |times: f64| Buckets::classic([(0.005, 600.0 * times), (f64::INFINITY, 600.0 * times)]);
    let slow = |times: f64| Buckets::classic([(0.005, 400.0 * times), (f64::INFINITY, 600.0 * times)]);
    let run = |canary: &dyn Fn(f64) -> Buckets| {
        (1..40).fold(AnalysisState::default(), |state, look| {
            let times = look as f64;
            fold(&state, &plan, &both(5 * look, histogram(canary(times)), histogram(fast(times))))
        })
    };
    let state = run(&fast);
    let shifted = state.guards[0].streams[0].shifted.unwrap();
    assert!((shifted.weight - 1.0 / 6.0).abs() < 1e-9 && shifted.low == 0.0, "{shifted:?}");
    assert_eq!(verdict(&state, &plan), Verdict::Proven);
    assert!(matches!(verdict(&run(&slow), &plan), Verdict::Rollback(_)), "a third is above it");
}

#[test]
fn histograms_that_cannot_be_compared_are_no_data_with_the_reason() {
    let plan = latency("1.2x");
    let start = |canary: Buckets, stable: Buckets| {
        reason(&fold(&AnalysisState::default(), &plan, &both(0, histogram(canary), histogram(stable))))
            .to_owned()
    };
    let finite = Buckets::classic(EDGES.into_iter().map(|edge| (edge, 1.0)));
    assert_eq!(
        start(finite, spread_out()),
        "guard latency: pod web-c: took_seconds has no bucket with le=\"+Inf\""
    );
    let falling = Buckets::classic([(0.1, 5.0), (0.25, 3.0), (f64::INFINITY, 9.0)]);
    assert_eq!(
        start(falling, spread_out()),
        "guard latency: pod web-c: took_seconds bucket le=0.25 has 3, less than the smaller one with 5"
    );
    let other = Buckets::classic([(0.3, 5.0), (0.7, 6.0), (f64::INFINITY, 9.0)]);
    assert_eq!(
        start(other, spread_out()),
        "guard latency: the versions have no bucket edge in common, so their times cannot be compared"
    );
    let slow = Buckets::classic([(0.1, 0.0), (f64::INFINITY, 1000.0)]);
    let said = start(slow.clone(), slow);
    assert!(said.contains("100.0 % of them are slower than the largest edge 0.1"), "{said}");
    assert_eq!(
        start(
            Buckets::classic([(0.1, 0.0), (f64::INFINITY, 0.0)]),
            Buckets::classic([(0.1, 0.0), (f64::INFINITY, 0.0)])
        ),
        "guard latency: stable has no events yet to choose the watched times from"
    );
    let nan = Buckets::classic([(0.1, f64::NAN), (f64::INFINITY, 9.0)]);
    assert!(start(nan, spread_out()).contains("bucket le=0.1 is NaN"));
    let counter =
        fold(&AnalysisState::default(), &plan, &both(0, reading(1.0, 2.0), histogram(spread_out())));
    assert_eq!(
        reason(&counter),
        "guard latency: pod web-c: took_seconds is of another type than the guard's"
    );
    let none = fold(
        &AnalysisState::default(),
        &plan,
        &both(0, Some(Reading::Histogram(BTreeMap::new())), histogram(spread_out())),
    );
    assert_eq!(reason(&none), "guard latency: pod web-c has no series of took_seconds");
}

#[test]
fn a_layout_that_changes_during_a_release_holds_it() {
    let plan = latency("1.2x");
    let state =
        fold(&AnalysisState::default(), &plan, &both(0, histogram(spread_out()), histogram(spread_out())));
    let coarse = Buckets::classic([(0.05, 600.0), (1.0, 1500.0), (f64::INFINITY, 1500.0)]);
    let state = fold(&state, &plan, &both(5, histogram(coarse), histogram(spread_out())));
    assert!(
        reason(&state).contains("which this release is measured by; the layouts differ"),
        "{}",
        reason(&state)
    );
    assert!(matches!(verdict(&state, &plan), Verdict::NoData { .. }));
    let state = fold(&state, &plan, &both(10, histogram(spread_out()), histogram(spread_out())));
    assert_eq!((reason(&state), state.guards[0].looks), ("there is data", 1));
}

#[test]
fn a_histogram_that_begins_again_counts_from_zero_as_a_whole() {
    let plan = one("histogram", json!({"metric": "took_seconds", "tolerateShare": "1.5x + 0.2%"}));
    let buckets = |fast: f64, all: f64| Buckets::classic([(0.1, fast), (1.0, all), (f64::INFINITY, all)]);
    let looks = [(90.0, 100.0), (100.0, 120.0), (30.0, 31.0)];
    let state = (0..).zip(looks).fold(AnalysisState::default(), |state, (look, (fast, all))| {
        fold(&state, &plan, &both(5 * look, histogram(buckets(fast, all)), histogram(buckets(fast, all))))
    });
    let totals = state.guards[0].streams[0].totals;
    // 20 of which 10 slow, then after the restart 31 of which 1 slow.
    assert_eq!((totals.canary_bad, totals.canary_total), (11.0, 51.0));
}

#[expect(clippy::unnecessary_wraps, reason = "samples take an option")]
fn gauge_reading(value: f64) -> Option<Reading> {
    Some(Reading::Gauge(series(&[("rss", value)])))
}

/// The minute at which a gauge guard rolls back, of at most an hour.
fn gauge_caught(plan: &Plan, seed: u64, factor: f64) -> Option<i64> {
    let mut random = Random(seed);
    let mut state = AnalysisState::default();
    for look in 0..=240 {
        // Both versions swing together through the day; each has its own noise of 5 %.
        let base = 100.0 * (1.0 + 0.3 * (look as f64 / 40.0).sin());
        let mut noisy = |factor: f64| gauge_reading(base * factor * (1.0 + 0.05 * random.normal()));
        state = fold(&state, plan, &both(15 * look, noisy(factor), noisy(1.0)));
        if let Verdict::Rollback(_) = verdict(&state, plan) {
            return Some(look / 4);
        }
    }
    None
}

#[test]
fn a_gauge_beyond_its_tolerance_is_found_and_one_within_is_not() {
    let more = one("gauge", json!({"metric": "rss", "tolerate": "1.2x"}));
    let less = one("gauge", json!({"metric": "hit_ratio", "keepAtLeast": "0.9x"}));
    for seed in 1..=10 {
        let found = gauge_caught(&more, seed, 1.4);
        assert!(found.is_some_and(|minute| (9..=20).contains(&minute)), "{found:?}");
        assert_eq!(gauge_caught(&more, seed, 1.1), None);
        let found = gauge_caught(&less, seed, 0.7);
        assert!(found.is_some_and(|minute| (9..=20).contains(&minute)), "{found:?}");
        assert_eq!(gauge_caught(&less, seed, 0.97), None);
        assert_eq!(gauge_caught(&less, seed, 1.5), None, "more is better");
    }
}

#[test]
fn a_gauge_is_proven_safe_and_anew_in_each_step() {
    let plan = one("gauge", json!({"metric": "rss", "tolerate": "1.2x"}));
    let after = |state: AnalysisState, from: i64, looks: i64| {
        (from..from + looks).fold(state, |state, look| {
            let wave = f64::from(i32::try_from(look % 7).unwrap());
            fold(&state, &plan, &both(15 * look, gauge_reading(100.0 + wave), gauge_reading(101.0 - wave)))
        })
    };
    let state = after(AnalysisState::default(), 0, 60);
    assert_eq!(verdict(&state, &plan), Verdict::Proven);
    let next = start_step(&state);
    assert!(matches!(verdict(&next, &plan), Verdict::Collecting { .. }));
    let next = after(next, 60, 20);
    assert!(matches!(verdict(&next, &plan), Verdict::Collecting { .. }), "five minutes are not enough");
    assert_eq!(verdict(&after(next, 80, 40), &plan), Verdict::Proven);
}

#[test]
fn several_series_of_a_gauge_become_one_value() {
    let values = Some(Reading::Gauge(series(&[("a", 1.0), ("b", 5.0)])));
    for (aggregate, expected) in [("sum", 6.0), ("max", 5.0), ("mean", 3.0)] {
        let plan = one("gauge", json!({"metric": "m", "tolerate": "1.2x", "aggregate": aggregate}));
        let state = fold(&AnalysisState::default(), &plan, &both(0, values.clone(), gauge_reading(1.0)));
        assert_eq!(
            state.guards[0].gauge.as_ref().unwrap().canary.to_bits(),
            f64::to_bits(expected),
            "{aggregate}"
        );
    }
    let plan = one("gauge", json!({"metric": "m", "tolerate": "1.2x"}));
    let broken =
        fold(&AnalysisState::default(), &plan, &both(0, gauge_reading(f64::NAN), gauge_reading(1.0)));
    assert_eq!(reason(&broken), "guard it: pod web-c: rss is NaN");
    let counter = fold(&AnalysisState::default(), &plan, &both(0, reading(1.0, 2.0), gauge_reading(1.0)));
    assert_eq!(reason(&counter), "guard it: pod web-c: m is of another type than the guard's");
}

/// The verdict after so many looks of 250 canary and 4,750 stable events with these shares.
fn after_looks(plan: &Plan, looks: u32, canary: f64, stable: f64) -> AnalysisState {
    (0..=looks).fold(AnalysisState::default(), |state, look| {
        let times = f64::from(look);
        let of = |all: f64, share: f64| reading((all * share * times).floor(), all * times);
        fold(&state, plan, &both(5 * i64::from(look), of(250.0, canary), of(4750.0, stable)))
    })
}

#[test]
fn a_share_that_is_to_be_kept_may_grow_and_must_not_fall() {
    let counters = |keep: &str| json!({"good": {"metric": "orders_total"}, "total": {"metric": "visits_total"}, "keepAtLeast": keep});
    let plan = one("ratio", counters("0.9x"));
    assert!(
        matches!(verdict(&after_looks(&plan, 40, 0.03, 0.06), &plan), Verdict::Rollback(_)),
        "half of the orders"
    );
    assert_eq!(verdict(&after_looks(&plan, 60, 0.12, 0.06), &plan), Verdict::Proven, "twice as many");
    assert_eq!(verdict(&after_looks(&plan, 60, 0.06, 0.06), &plan), Verdict::Proven, "as many");
    assert!(matches!(verdict(&after_looks(&plan, 60, 0.057, 0.06), &plan), Verdict::Proven), "5 % fewer");
    // A quarter fewer where half is tolerated: worse, but not beyond.
    let lenient = one("ratio", counters("0.5x"));
    let state = after_looks(&lenient, 100, 0.045, 0.06);
    assert!(state.guards[0].strict > 100.0 && !matches!(verdict(&state, &lenient), Verdict::Rollback(_)));
    let said = explanation_text(&explain(&state.guards[0], &lenient.guards[0], &lenient), "");
    assert!(said.contains("below 0.5x of stable (3.00 % at stable's present rate)"), "{said}");
}

#[test]
fn a_plain_limit_asks_nothing_of_stable() {
    let plan =
        one("ratio", json!({"bad": {"metric": "e_total"}, "total": {"metric": "r_total"}, "atMost": "1%"}));
    assert!(
        matches!(verdict(&after_looks(&plan, 40, 0.03, 0.03), &plan), Verdict::Rollback(_)),
        "both are bad"
    );
    assert!(matches!(verdict(&after_looks(&plan, 40, 0.03, 0.0), &plan), Verdict::Rollback(_)));
    assert_eq!(
        verdict(&after_looks(&plan, 40, 0.004, 0.0), &plan),
        Verdict::Proven,
        "below the limit, above stable"
    );
    let said =
        explanation_text(&explain(&after_looks(&plan, 40, 0.03, 0.03).guards[0], &plan.guards[0], &plan), "");
    assert!(said.contains("Evidence that it is beyond the limit 1%: "), "{said}");
}

#[test]
fn weights_share_the_error_probability() {
    let ratio = json!({"bad": {"metric": "e"}, "total": {"metric": "r"}, "tolerate": "1.2x"});
    let plan = plan_of(&json!([
        {"name": "a", "weight": 3, "ratio": ratio}, {"name": "b", "ratio": ratio},
    ]));
    let needed: Vec<f64> = plan.guards.iter().map(|guard| plan.needed_strict(guard)).collect();
    assert!((needed[0] - 400.0 / 3.0).abs() < 1e-9 && (needed[1] - 400.0).abs() < 1e-9, "{needed:?}");
    // What they may err together stays 1 of 100: 3/400 + 1/400.
    assert!((needed.iter().map(|needed| 1.0 / needed).sum::<f64>() - 0.01).abs() < 1e-12);
}

#[test]
fn pods_that_show_each_others_numbers_hold_the_release() {
    let plan = Plan { check_split: true, ..super::plan(&[("errors", "1.2x + 0.1%")]) };
    let look = |number: i64, canary_each: f64| {
        let mut pods = vec![pod("c", Side::Canary, &[reading(0.0, canary_each * number as f64)])];
        for stable in 0..9 {
            pods.push(pod(&format!("s{stable}"), Side::Stable, &[reading(0.0, 100.0 * number as f64)]));
        }
        sample(5 * number, pods)
    };
    let run = |canary_each: f64| {
        let state = (0..30)
            .fold(AnalysisState::default(), |state, number| fold(&state, &plan, &look(number, canary_each)));
        verdict(&state, &plan)
    };
    assert_eq!(run(100.0), Verdict::Proven);
    assert_eq!(run(140.0), Verdict::Proven, "connections that last bend the share");
    // The canary's page shows the sum over all pods.
    let Verdict::Skewed { canary, all, expected } = run(1000.0) else { panic!("{:?}", run(1000.0)) };
    assert_eq!((canary, all, expected), (29_000.0, 55_100.0, 5_510.0));
    assert!(matches!(run(1.0), Verdict::Skewed { .. }), "hardly anything reaches the canary");
}

/// Five guards of the largest kinds, an hour of looks, twenty pods: far below what an object may weigh.
#[test]
fn a_state_with_five_guards_and_720_looks_is_small_and_always_the_same() {
    let ratio = json!({"bad": {"metric": "e"}, "total": {"metric": "r"}, "tolerate": "1.2x"});
    let times = json!({"metric": "took_seconds", "tolerate": "1.2x"});
    let plan = plan_of(&json!([
        {"name": "a", "ratio": ratio}, {"name": "b", "ratio": ratio}, {"name": "c", "histogram": times},
        {"name": "d", "histogram": times}, {"name": "e", "gauge": {"metric": "rss", "tolerate": "1.2x"}},
    ]));
    let run = || {
        let mut random = Random(7);
        let mut pods: Vec<Times> = (0..20).map(|_| Times::new(&EDGES, 1.0)).collect();
        let mut errors = [0.0; 20];
        (0..=720).fold(AnalysisState::default(), |state, look| {
            let pods = pods.iter_mut().enumerate().map(|(index, times)| {
                times.serve(&mut random, 40);
                errors[index] += f64::from(u32::from(random.uniform() < 0.3));
                let ratio = reading(errors[index], times.counts.iter().sum());
                let side = if index < 5 { Side::Canary } else { Side::Stable };
                let uid = format!("{index:08}-aaaa-bbbb-cccc-0123456789ab");
                let rss = gauge_reading(1e8 * random.uniform());
                pod(&uid, side, &[ratio.clone(), ratio, times.classic(), times.classic(), rss])
            });
            fold(&state, &plan, &sample(5 * look, pods.collect()))
        })
    };
    let json = serde_json::to_string(&run()).unwrap();
    assert!(json.len() < 200_000, "{} bytes", json.len());
    assert_eq!(json, serde_json::to_string(&run()).unwrap());
    let back: AnalysisState = serde_json::from_str(&json).unwrap();
    assert_eq!(serde_json::to_string(&back).unwrap(), json);
    assert_eq!(back.guards[2].recent.len(), 360);
}
