//! Tests of the engine: against exact sums, against published numbers, and on histories. Simulated releases are in
//! `tests/it/decisions`.

mod alone;
mod checks;
mod exact;
mod folding;
mod formulas;
mod kinds;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Plan, PodSample, Reading, Sample, Side};

/// Seconds after an arbitrary start.
pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

/// A plan with guards of these names and tolerances.
pub fn plan(guards: &[(&str, &str)]) -> Plan {
    let metric = "http_requests_total";
    let ratio = |(name, tolerate): &(&str, &str)| {
        json!({"name": name, "ratio": {
            "bad": {"metric": metric, "match": r#"code=~"5..""#}, "total": {"metric": metric}, "tolerate": tolerate,
        }})
    };
    plan_of(&guards.iter().map(ratio).collect())
}

/// A plan with these guards, as they are written in a Rollout.
pub fn plan_of(guards: &Value) -> Plan {
    let analysis = json!({"metrics": {"pods": {"port": 8080}}, "guards": guards});
    let plan = Plan::resolve(&serde_json::from_value(analysis).unwrap(), 360).unwrap();
    // One pod each stands for versions of any size here.
    Plan { check_split: false, ..plan }
}

/// Values by series.
pub fn series(values: &[(&str, f64)]) -> BTreeMap<String, f64> {
    values.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
}

/// A reading of one bad series (left out when negative) and one of all events.
#[expect(clippy::unnecessary_wraps, reason = "samples take an option; most tests give a reading")]
pub fn reading(bad: f64, total: f64) -> Option<Reading> {
    let bad = if bad < 0.0 { BTreeMap::new() } else { series(&[("500", bad)]) };
    Some(Reading::Ratio { bad, total: series(&[("all", total)]) })
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

/// xorshift64* (Vigna 2016).
pub struct Random(pub u64);

impl Random {
    /// Evenly in [0, 1).
    pub fn uniform(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Normal by the sum of twelve.
    pub fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }
}
