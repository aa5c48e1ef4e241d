//! The one way to the engine: what the simulations need of `belay::analysis`, and nothing else.

use std::collections::BTreeMap;

use belay::analysis::evidence::{HARM_GRID, SAFE_GRID, log_e, take};
use belay::analysis::{
    Bounds, Buckets, NEEDED_SAFE, Plan, PodSample, Reading, Rule, Sample, Side, Verdict, fold, needs, verdict,
};
pub use belay::api::analysis::Confidence;
use belay::api::evidence::{AnalysisState, GuardState, Look, Stream};
use jiff::Timestamp;
use serde_json::{Value, json};

pub use belay::api::evidence::Counts;

/// What guards tolerate unless they say something else.
pub const STANDARD: &str = "1.2x + 0.1%";

/// The evidence of one guard from sums of both versions.
#[derive(Clone)]
pub struct Engine {
    guard: GuardState,
    bounds: Bounds,
    planned: u32,
    needed: (f64, f64),
}

impl Engine {
    /// One guard with this tolerance and confidence, the only one of its release; `planned` looks.
    pub fn new(tolerance: &str, confidence: Confidence, planned: u32) -> Self {
        let bounds = Bounds::tolerate(tolerance.parse().unwrap());
        Self { guard: GuardState::default(), bounds, planned, needed: needs(confidence, 1) }
    }

    /// The same with another unit of requests: one that stands for `unit` requests. What is tolerated on top is per
    /// unit.
    pub fn per(mut self, unit: f64) -> Self {
        self.bounds.margin.points *= unit;
        self.bounds.safe.points *= unit;
        self
    }

    pub fn look(&mut self, counts: &Counts) {
        take(&mut self.guard, &Rule::Events(self.bounds), self.planned, &Look::of(0.0, *counts));
    }

    /// Whether both keys turn now.
    pub fn fails(&self) -> bool {
        self.guard.strict >= self.needed.0 && self.guard.margin >= self.needed.1
    }

    /// Whether it is proven safe at this step.
    pub fn is_proven(&self) -> bool {
        self.guard.safe >= NEEDED_SAFE
    }

    /// Evidence that it is worse, that it is beyond the tolerance, and that it is safe.
    pub fn evidence(&self) -> [f64; 3] {
        [self.guard.strict, self.guard.margin, self.guard.safe]
    }

    /// The proof of safety begins anew, as at each step.
    pub fn start_step(&mut self) {
        for stream in &mut self.guard.streams {
            stream.safe_bets = Stream::default().safe_bets;
        }
        self.guard.safe = 1.0;
    }
}

/// How long the engine says before a release that the proof of safety will take, in seconds.
pub fn foretold(rate: f64, canary_per_second: f64, stable_per_second: f64) -> Option<f64> {
    let plan = errors(STANDARD, 12);
    plan.guards[0].expected_seconds_to_proof(rate, canary_per_second, stable_per_second)
}

/// The logarithms of all e-values of a look: for the strict, the margin and the safe limit, each with its grid.
pub fn logs_of(counts: &Counts) -> Vec<f64> {
    let bounds = Bounds::tolerate(STANDARD.parse().unwrap());
    let harm = HARM_GRID.map(|kappa| [bounds.strict, bounds.margin].map(|limit| log_e(kappa, limit, counts)));
    let safe = SAFE_GRID.map(|kappa| log_e(kappa, bounds.safe, counts));
    harm.concat().into_iter().chain(safe).collect()
}

/// What the engine says of a release's guard.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    Collecting,
    NoData(String),
    Proven,
    Rollback,
    /// The requests are not shared as the pods are.
    Skewed,
}

/// The production path from the counters of pods to a verdict. Pods are long warm, and a sample comes every 5 s.
pub struct Pods {
    plan: Plan,
    state: AnalysisState,
    samples: i64,
}

impl Pods {
    pub fn new(planned: u32) -> Self {
        Self { plan: errors(STANDARD, planned), state: AnalysisState::default(), samples: 0 }
    }

    /// The next sample: bad and all events so far of each pod; nothing where a pod has no such series.
    pub fn look(&mut self, canary: &[[Option<f64>; 2]], stable: &[[Option<f64>; 2]]) {
        let of = |side: Side, values: &[[Option<f64>; 2]]| -> Vec<PodSample> {
            (0..)
                .zip(values)
                .map(|(number, [bad, all])| {
                    let reading = Reading::Ratio { bad: series("bad", *bad), total: series("all", *all) };
                    pod(side, number, reading)
                })
                .collect()
        };
        self.sample([of(Side::Canary, canary), of(Side::Stable, stable)].concat());
    }

    fn sample(&mut self, pods: Vec<PodSample>) {
        let sample = Sample { at: at(5 * self.samples), outcome: Ok(pods) };
        self.samples += 1;
        self.state = fold(&self.state, &self.plan, &sample);
    }

    pub fn heard(&self) -> Heard {
        match verdict(&self.state, &self.plan) {
            Verdict::Collecting { .. } => Heard::Collecting,
            Verdict::NoData { reason, .. } => Heard::NoData(reason),
            Verdict::Skewed { .. } => Heard::Skewed,
            Verdict::Proven => Heard::Proven,
            Verdict::Rollback(_) => Heard::Rollback,
        }
    }

    /// What has been counted so far.
    pub fn totals(&self) -> Counts {
        self.state.guards[0].streams.first().map(|stream| stream.totals).unwrap_or_default()
    }

    /// Evidence of the strict key.
    pub fn strict(&self) -> f64 {
        self.state.guards[0].strict
    }

    /// What the evidence of the last look was divided by.
    pub fn dispersion(&self) -> f64 {
        self.state.guards[0].recent.last().map_or(1.0, |look| look.dispersion)
    }
}

/// The evidence of a guard on latency, `1.2x`, one pod of each version.
pub struct Latency(Pods);

impl Latency {
    pub fn new(planned: u32) -> Self {
        let guard = json!({"name": "latency", "histogram": {"metric": "took_seconds", "tolerate": "1.2x"}});
        Self(Pods { plan: plan(&guard, planned), state: AnalysisState::default(), samples: 0 })
    }

    /// The next sample of cumulative native histograms, each pair an upper edge in seconds and the requests up to it so
    /// far: whether the guard fails.
    pub fn look(&mut self, canary: &[(f64, f64)], stable: &[(f64, f64)]) -> bool {
        let pods = [(Side::Canary, canary), (Side::Stable, stable)].map(|(side, cumulative)| {
            // As a server tells it: buckets without requests are left out.
            let each = cumulative
                .windows(2)
                .filter(|pair| pair[1].1 > pair[0].1)
                .map(|pair| (pair[0].0, pair[1].0, pair[1].1 - pair[0].1));
            let all = cumulative.last().map_or(0.0, |(_, up_to)| *up_to);
            let buckets = Buckets::native(all, each.collect());
            pod(side, 0, Reading::Histogram([("took_seconds".to_owned(), buckets)].into()))
        });
        self.0.sample(pods.to_vec());
        match self.0.heard() {
            Heard::Rollback => true,
            Heard::Collecting | Heard::Proven => false,
            other => panic!("{other:?}"),
        }
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn errors(tolerance: &str, planned: u32) -> Plan {
    let guard = json!({"name": "errors", "ratio": {
        "bad": {"metric": "requests", "match": r#"code=~"5..""#},
        "total": {"metric": "requests"},
        "tolerate": tolerance,
    }});
    plan(&guard, planned)
}

fn plan(guard: &Value, planned: u32) -> Plan {
    let analysis = json!({"metrics": {"pods": {"port": 8080}}, "guards": [guard]});
    let plan = Plan::resolve(&serde_json::from_value(analysis).unwrap(), planned).unwrap();
    // The pods stand for versions of any size here.
    Plan { check_split: false, ..plan }
}

fn series(name: &str, value: Option<f64>) -> BTreeMap<String, f64> {
    value.map(|value| (name.to_owned(), value)).into_iter().collect()
}

fn pod(side: Side, number: u32, reading: Reading) -> PodSample {
    PodSample {
        uid: format!("{side}-{number}"),
        name: format!("{side}-{number}"),
        side,
        started_at: at(-86_400),
        guards: vec![Some(reading)],
        problem: None,
    }
}
