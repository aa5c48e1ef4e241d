//! One look: a sample folded into what is remembered.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::counters::{self, MAX_SERIES, Unusable};
use super::evidence::{dispersion, learn_dispersion, spread, take};
use super::{GuardPlan, Plan, PodSample, Sample, Side};
use crate::api::evidence::{AnalysisState, Counts, GuardState, Look, PodCounters};

/// Looks that are kept per guard.
const KEPT_LOOKS: usize = 360;
/// Series that one guard may have on all pods together, so that the state stays far below an object's 1.5 MB.
const MAX_GUARD_SERIES: usize = 3000;
/// Characters of a reason that are kept.
const REASON_LENGTH: usize = 500;
/// A sample this much older than the last look cannot be a late one: the clock was set back.
const LATE_AT_MOST: SignedDuration = SignedDuration::from_mins(5);

/// What is remembered after `sample`. Pure: the same arguments give the same bytes.
///
/// A sample that is not newer than the last look changes nothing.
pub fn fold(state: &AnalysisState, plan: &Plan, sample: &Sample) -> AnalysisState {
    let at = microseconds(sample.at);
    if let Some(last) = &state.last_look_at {
        let newer_by = at.duration_since(last.0);
        if newer_by <= SignedDuration::ZERO && newer_by >= -LATE_AT_MOST {
            return state.clone();
        }
    }
    let mut next = state.clone();
    let first = next.first_look_at.get_or_insert_with(|| at.into()).0;
    next.last_look_at = Some(at.into());
    next.guards = plan
        .guards
        .iter()
        .map(|guard| {
            let known = state.guards.iter().find(|known| known.name == guard.name);
            known.cloned().unwrap_or_else(|| GuardState { name: guard.name.clone(), ..GuardState::default() })
        })
        .collect();

    let mut looked = false;
    let mut no_data = None;
    match &sample.outcome {
        Err(reason) => no_data = Some(reason.clone()),
        Ok(pods) => {
            let second = (at.duration_since(first).as_secs_f64() * 1000.0).round() / 1000.0;
            for (index, (guard, state)) in plan.guards.iter().zip(&mut next.guards).enumerate() {
                match measure(state, guard, index, plan, pods, at) {
                    Measured::NoData(reason) => {
                        let reason = format!("guard {}: {reason}", guard.name);
                        no_data.get_or_insert(reason);
                        state.counters.retain(|uid, _| pods.iter().any(|pod| pod.uid == *uid));
                    }
                    Measured::Waiting(counters) => state.counters = counters,
                    Measured::Look(measure) => {
                        looked = true;
                        look(state, guard, plan.planned_looks, second, measure);
                    }
                }
            }
        }
    }
    next.looks = next.looks.saturating_add(u32::from(looked));
    next.no_data_reason = no_data.map(|reason| reason.chars().take(REASON_LENGTH).collect());
    next.no_data_since =
        next.no_data_reason.is_some().then(|| next.no_data_since.unwrap_or_else(|| at.into()));
    next
}

/// What is remembered when a step begins: the proof of safety starts anew, everything else goes on.
pub fn start_step(state: &AnalysisState) -> AnalysisState {
    let mut next = state.clone();
    for guard in &mut next.guards {
        guard.safe_bets = [1.0; 6];
        guard.safe = 1.0;
        guard.safe_from = guard.looks;
    }
    next
}

/// Times in the state have microseconds.
fn microseconds(at: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(at.as_microsecond()).unwrap_or(at)
}

/// What a sample says about one guard.
enum Measured {
    /// Counts of both versions.
    Look(Measure),
    /// The pods are still warming up, or are seen for the first time: these are the counters to start from.
    Waiting(BTreeMap<String, PodCounters>),
    /// A version gave no numbers.
    NoData(String),
}

struct Measure {
    counters: BTreeMap<String, PodCounters>,
    counts: Counts,
    /// Bad and all events of this look, of each stable pod.
    stable_pods: BTreeMap<String, [f64; 2]>,
    canary_pods: usize,
}

/// One version's pods in a sample.
#[derive(Default)]
struct Tally {
    present: usize,
    warm: usize,
    answered: usize,
    problem: Option<String>,
    pods: BTreeMap<String, [f64; 2]>,
}

impl Tally {
    /// Why there is no data of this version, if there is none.
    fn silent(&self, side: Side) -> Option<String> {
        if self.present == 0 {
            return Some(format!("there is no {side} pod to measure"));
        }
        if self.warm == 0 || self.answered > 0 {
            return None;
        }
        Some(self.problem.clone().unwrap_or_else(|| format!("no {side} pod gave an answer")))
    }

    fn sums(&self) -> (f64, f64) {
        self.pods.values().fold((0.0, 0.0), |(bad, total), pod| (bad + pod[0], total + pod[1]))
    }
}

fn measure(
    state: &GuardState,
    guard: &GuardPlan,
    index: usize,
    plan: &Plan,
    pods: &[PodSample],
    at: Timestamp,
) -> Measured {
    let mut counters = BTreeMap::new();
    let (mut canary, mut stable) = (Tally::default(), Tally::default());
    for pod in pods {
        let tally = match pod.side {
            Side::Canary => &mut canary,
            Side::Stable => &mut stable,
        };
        tally.present += 1;
        if !is_warm(pod.started_at, at, plan) {
            continue;
        }
        tally.warm += 1;
        let known = state.counters.get(&pod.uid);
        let outcome = match pod.guards.get(index).and_then(Option::as_ref) {
            Some(reading) => counters::advance(known, reading).map_err(|unusable| match unusable {
                Unusable::NoTotal => format!("pod {} has no series of {}", pod.name, guard.total),
                Unusable::Value(series, value) => format!("pod {}: {series} is {value}", pod.name),
                Unusable::TooMany => String::new(),
            }),
            None => Err(pod.problem.clone().unwrap_or_else(|| format!("pod {} gave no answer", pod.name))),
        };
        match outcome {
            Ok((now, growth)) => {
                tally.answered += 1;
                counters.insert(pod.uid.clone(), now);
                if let Some(growth) = growth {
                    tally.pods.insert(pod.uid.clone(), [growth.bad, growth.total]);
                }
            }
            Err(reason) if reason.is_empty() => {
                return Measured::NoData(format!(
                    "too many series: pod {} has more than {MAX_SERIES}; narrow `match`",
                    pod.name
                ));
            }
            Err(reason) => {
                tally.problem.get_or_insert(reason);
                if let Some(known) = known {
                    counters.insert(pod.uid.clone(), known.clone());
                }
            }
        }
    }
    let series: usize = counters.values().map(|pod| pod.bad.len() + pod.total.len()).sum();
    if series > MAX_GUARD_SERIES {
        return Measured::NoData(format!(
            "too many series: {series} on {} pods, at most {MAX_GUARD_SERIES} are kept; narrow `match`",
            counters.len()
        ));
    }
    if let Some(reason) = canary.silent(Side::Canary).or_else(|| stable.silent(Side::Stable)) {
        return Measured::NoData(reason);
    }
    if canary.pods.is_empty() || stable.pods.is_empty() {
        return Measured::Waiting(counters);
    }
    let ((canary_bad, canary_total), (stable_bad, stable_total)) = (canary.sums(), stable.sums());
    Measured::Look(Measure {
        counters,
        counts: Counts { canary_bad, canary_total, stable_bad, stable_total },
        stable_pods: stable.pods,
        canary_pods: canary.pods.len(),
    })
}

/// Whether the pod is old enough to be compared.
pub(super) fn is_warm(started_at: Timestamp, at: Timestamp, plan: &Plan) -> bool {
    u128::try_from(at.duration_since(started_at).as_nanos()).is_ok_and(|age| age >= plan.warm_up.as_nanos())
}

/// Takes the look. What is learnt of the pods counts from the next look on, so that the bets of a look do not
/// depend on its outcome.
fn look(state: &mut GuardState, guard: &GuardPlan, planned: u32, second: f64, measure: Measure) {
    let dispersion = dispersion(&state.dispersion, measure.stable_pods.len());
    let spread = spread(&state.stable_pods, dispersion, measure.canary_pods);
    let look = Look { second, counts: measure.counts, dispersion, spread };
    take(state, guard.tolerance.limit(), planned, &look);

    let pods: Vec<[f64; 2]> = measure.stable_pods.values().copied().collect();
    learn_dispersion(&mut state.dispersion, &pods);
    state.stable_pods.retain(|uid, _| measure.counters.contains_key(uid));
    for (uid, [bad, total]) in measure.stable_pods {
        let sums = state.stable_pods.entry(uid).or_default();
        *sums = [sums[0] + bad, sums[1] + total];
    }
    state.totals.canary_bad += look.counts.canary_bad;
    state.totals.canary_total += look.counts.canary_total;
    state.totals.stable_bad += look.counts.stable_bad;
    state.totals.stable_total += look.counts.stable_total;
    state.counters = measure.counters;
    state.recent.push(look);
    let surplus = state.recent.len().saturating_sub(KEPT_LOOKS);
    state.recent.drain(..surplus);
}
