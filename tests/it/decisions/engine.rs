//! The one way to the engine: what the simulations need of `belay::analysis`, and nothing else.

use belay::analysis::evidence::{HARM_GRID, Limit, SAFE_GRID, log_e, take};
use belay::analysis::{
    NEEDED_SAFE, Plan, PodSample, Reading, Sample, Side, Tolerance, Verdict, fold, needs, verdict,
};
use belay::api::evidence::{AnalysisState, GuardState, Look};
use belay::api::rollout::Confidence;
use jiff::Timestamp;

pub use belay::api::evidence::Counts;

/// What guards tolerate unless they say something else.
pub const STANDARD: &str = "1.2x + 0.1%";

/// The evidence of one guard from sums of both versions.
#[derive(Clone)]
pub struct Engine {
    guard: GuardState,
    limit: Limit,
    planned: u32,
    needed: (f64, f64),
}

impl Engine {
    /// One guard with this tolerance and confidence, the only one of its release; `planned` looks.
    pub fn new(tolerance: &str, confidence: Confidence, planned: u32) -> Self {
        let tolerance: Tolerance = tolerance.parse().unwrap();
        Self { guard: GuardState::default(), limit: tolerance.limit(), planned, needed: needs(confidence, 1) }
    }

    /// The same with another unit of requests: one that stands for `unit` requests. What is tolerated on top is per
    /// unit.
    pub fn per(mut self, unit: f64) -> Self {
        self.limit.points *= unit;
        self
    }

    pub fn look(&mut self, counts: &Counts) {
        let look = Look { second: 0.0, counts: *counts, dispersion: 1.0, spread: 1.0 };
        take(&mut self.guard, self.limit, self.planned, &look);
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
        self.guard.safe_bets = [1.0; 6];
        self.guard.safe = 1.0;
    }
}

/// How long the engine says before a release that the proof of safety will take, in seconds.
pub fn foretold(rate: f64, canary_per_second: f64, stable_per_second: f64) -> Option<f64> {
    plan(STANDARD, 12).expected_seconds_to_proof(rate, canary_per_second, stable_per_second)
}

/// The logarithms of all e-values of a look: for the strict, the margin and the safe limit, each with its grid.
pub fn logs_of(counts: &Counts) -> Vec<f64> {
    let margin = STANDARD.parse::<Tolerance>().unwrap().limit();
    let harm = HARM_GRID.map(|kappa| [log_e(kappa, Limit::STRICT, counts), log_e(kappa, margin, counts)]);
    let safe = SAFE_GRID.map(|kappa| log_e(kappa, margin.safe(), counts));
    harm.concat().into_iter().chain(safe).collect()
}

/// What the engine says of a release's guard.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    Collecting,
    NoData(String),
    Proven,
    Rollback,
}

/// The production path from the counters of pods to a verdict. Pods are long warm, and a sample comes every 5 s.
pub struct Pods {
    plan: Plan,
    state: AnalysisState,
    samples: i64,
}

impl Pods {
    pub fn new(planned: u32) -> Self {
        Self { plan: plan(STANDARD, planned), state: AnalysisState::default(), samples: 0 }
    }

    /// The next sample: bad and all events so far of each pod; nothing where a pod has no such series.
    pub fn look(&mut self, canary: &[[Option<f64>; 2]], stable: &[[Option<f64>; 2]]) {
        let of = |side: Side, values: &[[Option<f64>; 2]]| -> Vec<PodSample> {
            (0..).zip(values).map(|(number, values)| pod(side, number, *values)).collect()
        };
        let pods = [of(Side::Canary, canary), of(Side::Stable, stable)].concat();
        let sample = Sample { at: at(5 * self.samples), outcome: Ok(pods) };
        self.samples += 1;
        self.state = fold(&self.state, &self.plan, &sample);
    }

    pub fn heard(&self) -> Heard {
        match verdict(&self.state, &self.plan) {
            Verdict::Collecting { .. } => Heard::Collecting,
            Verdict::NoData { reason, .. } => Heard::NoData(reason),
            Verdict::Proven => Heard::Proven,
            Verdict::Rollback(_) => Heard::Rollback,
        }
    }

    /// What has been counted so far.
    pub fn totals(&self) -> Counts {
        self.state.guards[0].totals
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

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn plan(tolerance: &str, planned: u32) -> Plan {
    let analysis = serde_json::json!({
        "metrics": {"pods": {"port": 8080}},
        "guards": [{"name": "errors", "ratio": {
            "bad": {"metric": "requests", "match": r#"code=~"5..""#},
            "total": {"metric": "requests"},
            "tolerate": tolerance,
        }}],
    });
    Plan::resolve(&serde_json::from_value(analysis).unwrap(), planned).unwrap()
}

fn pod(side: Side, number: u32, [bad, all]: [Option<f64>; 2]) -> PodSample {
    let series =
        |name: &str, value: Option<f64>| value.map(|value| (name.to_owned(), value)).into_iter().collect();
    PodSample {
        uid: format!("{side}-{number}"),
        name: format!("{side}-{number}"),
        side,
        started_at: at(-86_400),
        guards: vec![Some(Reading { bad: series("bad", bad), total: series("all", all) })],
        problem: None,
    }
}

/// The evidence of a guard on latency; there is none yet.
#[derive(Default)]
pub struct Latency;

/// One look at cumulative histograms, each pair an upper edge in seconds and the requests up to it so far: whether
/// the guard fails. Nothing as long as the engine judges no histograms; the rows that need it are pending then.
pub fn latency_look(
    _guard: &mut Latency,
    _canary_cumulative: &[(f64, f64)],
    _stable_cumulative: &[(f64, f64)],
) -> Option<bool> {
    None
}
