//! Tests of the engine: against exact sums, against published numbers, and on histories. Simulated releases are in
//! `tests/it/decisions`.

mod exact;
mod folding;
mod formulas;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::{CounterPlan, GuardPlan, Matchers, NoData, Plan, PodSample, Reading, Sample, Side, Source};
use crate::api::rollout::Inconclusive;

/// Seconds after an arbitrary start.
pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

/// A plan with guards of these names and tolerances.
pub fn plan(guards: &[(&str, &str)]) -> Plan {
    let counter = |matchers: &str| CounterPlan {
        metric: "http_requests_total".to_owned(),
        matchers: matchers.parse::<Matchers>().unwrap(),
    };
    Plan {
        guards: guards
            .iter()
            .map(|(name, tolerance)| GuardPlan {
                name: (*name).to_owned(),
                bad: counter(r#"code=~"5..""#),
                total: counter(""),
                tolerance: tolerance.parse().unwrap(),
            })
            .collect(),
        interval: Duration::from_secs(5),
        warm_up: Duration::from_mins(1),
        alpha_inverse: 100.0,
        needed_margin: 10.0,
        source: Some(Source::Pods { port: 8080, path: "/metrics".to_owned() }),
        on_no_data: NoData::default(),
        on_inconclusive: Inconclusive::Hold,
        planned_looks: 360,
    }
}

/// Values by series.
pub fn series(values: &[(&str, f64)]) -> BTreeMap<String, f64> {
    values.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
}

/// A reading of one bad series (left out when negative) and one of all events.
#[expect(clippy::unnecessary_wraps, reason = "samples take an option; most tests give a reading")]
pub fn reading(bad: f64, total: f64) -> Option<Reading> {
    let bad = if bad < 0.0 { BTreeMap::new() } else { series(&[("500", bad)]) };
    Some(Reading { bad, total: series(&[("all", total)]) })
}

/// A pod that has been there for a day, with the same reading for each guard.
pub fn pod(uid: &str, side: Side, guards: &[Option<Reading>]) -> PodSample {
    PodSample {
        uid: uid.to_owned(),
        name: format!("web-{uid}"),
        side,
        started_at: at(-86_400),
        guards: guards.to_vec(),
        problem: None,
    }
}

/// One canary pod and one stable pod.
pub fn pair(second: i64, canary: Option<Reading>, stable: Option<Reading>) -> Sample {
    Sample {
        at: at(second),
        outcome: Ok(vec![pod("c", Side::Canary, &[canary]), pod("s", Side::Stable, &[stable])]),
    }
}
