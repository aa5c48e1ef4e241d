//! One look: a sample folded into what is remembered.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::buckets::{choose, edges_of, events};
use super::counters::{self, MAX_SERIES, Unusable};
use super::evidence::{Rule, dispersion, learn_dispersion, past_share, spread, take};
use super::replay::forget_safety;
use super::{Buckets, GuardPlan, Measured, Plan, PodSample, Reading, Sample, SeriesKey, Side, gauge, split};
use crate::api::evidence::{AnalysisState, Counts, GuardState, Look, PodCounters, Stream};
use crate::api::guard::Aggregate;

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
    next.guards = guards_of(state, plan);

    let mut looked = false;
    let mut no_data = None;
    let mut shared = None;
    match &sample.outcome {
        Err(reason) => no_data = Some(reason.clone()),
        Ok(pods) => {
            let second = (at.duration_since(first).as_secs_f64() * 1000.0).round() / 1000.0;
            for (index, (guard, state)) in plan.guards.iter().zip(&mut next.guards).enumerate() {
                let view = View { guard, index, plan, pods, at, second };
                match view.look(state) {
                    Found::NoData(reason) => {
                        let reason = format!("guard {}: {reason}", guard.name);
                        no_data.get_or_insert(reason);
                        state.counters.retain(|uid, _| pods.iter().any(|pod| pod.uid == *uid));
                    }
                    Found::Waiting => {}
                    Found::Look(requests) => {
                        looked = true;
                        shared = shared.or(requests);
                    }
                }
            }
        }
    }
    if let Some(Requests { canary, stable, share }) = shared {
        split::take(next.split.get_or_insert_default(), canary, stable, share);
    }
    next.looks = next.looks.saturating_add(u32::from(looked));
    next.no_data_reason = no_data.map(|reason| reason.chars().take(REASON_LENGTH).collect());
    next.no_data_since =
        next.no_data_reason.is_some().then(|| next.no_data_since.unwrap_or_else(|| at.into()));
    next
}

/// What is remembered of each guard of the plan, in its order.
pub(super) fn guards_of(state: &AnalysisState, plan: &Plan) -> Vec<GuardState> {
    let of = |guard: &GuardPlan| {
        let known = state.guards.iter().find(|known| known.name == guard.name);
        known.cloned().unwrap_or_else(|| GuardState { name: guard.name.clone(), ..GuardState::default() })
    };
    plan.guards.iter().map(of).collect()
}

/// What is remembered when a step begins: the proof of safety starts anew, everything else goes on.
pub fn start_step(state: &AnalysisState) -> AnalysisState {
    let mut next = state.clone();
    next.guards.iter_mut().for_each(forget_safety);
    next.split = None;
    next
}

/// Times in the state have microseconds.
pub(super) fn microseconds(at: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(at.as_microsecond()).unwrap_or(at)
}

/// What a sample says about one guard.
enum Found {
    /// Evidence was taken in; of events, how the requests were shared.
    Look(Option<Requests>),
    /// The pods are still warming up, or are seen for the first time, or a minute is not over.
    Waiting,
    /// A version gave no numbers.
    NoData(String),
}

/// The requests of one look, and which part of the pods that answered them is the canary's.
struct Requests {
    canary: f64,
    stable: f64,
    share: f64,
}

/// What one pod's events grew by: all, then per stream those that count and the shifted ones.
struct Growth {
    all: f64,
    bad: Vec<f64>,
    shifted: Vec<f64>,
}

/// One version's pods in a sample.
struct Tally<T> {
    present: usize,
    warm: usize,
    answered: usize,
    problem: Option<String>,
    pods: BTreeMap<String, T>,
}

impl<T> Default for Tally<T> {
    fn default() -> Self {
        Self { present: 0, warm: 0, answered: 0, problem: None, pods: BTreeMap::new() }
    }
}

impl<T> Tally<T> {
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
}

/// A sample, as one guard sees it.
struct View<'a> {
    guard: &'a GuardPlan,
    index: usize,
    plan: &'a Plan,
    pods: &'a [PodSample],
    at: Timestamp,
    second: f64,
}

/// What both versions' pods said, or why there is nothing to compare.
type Both<T> = Result<(Tally<T>, Tally<T>), String>;

impl View<'_> {
    fn look(&self, state: &mut GuardState) -> Found {
        let taken = match &self.guard.measured {
            Measured::Gauge { aggregate, .. } => self.gauge(state, *aggregate),
            Measured::Ratio { .. } => self.ratio(state),
            Measured::Histogram { slower, .. } => self.histogram(state, *slower),
            // Its runs are taken in by themselves.
            Measured::Check(_) => return Found::Waiting,
        };
        taken.unwrap_or_else(Found::NoData)
    }

    /// Whether the canary is to have no requests: stable's are learnt all the same, for the time after the switch.
    fn is_previewed(&self) -> bool {
        self.plan.share == Some(0.0)
    }

    /// Asks each warm pod. A pod that `read` refuses has a problem, and the others count; a refusal without words ends
    /// the look.
    fn ask<T>(&self, mut read: impl FnMut(&PodSample, &Reading) -> Result<Option<T>, Unusable>) -> Both<T> {
        let (mut canary, mut stable) = (Tally::default(), Tally::default());
        for pod in self.pods {
            let tally = match pod.side {
                Side::Canary => &mut canary,
                Side::Stable => &mut stable,
            };
            tally.present += 1;
            if !is_warm(pod.started_at, self.at, self.plan) {
                continue;
            }
            tally.warm += 1;
            let outcome = match pod.guards.get(self.index).and_then(Option::as_ref) {
                Some(reading) => match read(pod, reading) {
                    Err(Unusable::TooMany) => {
                        return Err(format!(
                            "too many series: pod {} has more than {MAX_SERIES}; narrow `match`",
                            pod.name
                        ));
                    }
                    // Many a program has no counter before its first request.
                    Err(Unusable::NoTotal) if pod.side == Side::Canary && self.is_previewed() => Ok(None),
                    Err(unusable) => Err(self.in_words(&pod.name, unusable)),
                    Ok(growth) => Ok(growth),
                },
                None => {
                    Err(pod.problem.clone().unwrap_or_else(|| format!("pod {} gave no answer", pod.name)))
                }
            };
            match outcome {
                Ok(growth) => {
                    tally.answered += 1;
                    if let Some(growth) = growth {
                        tally.pods.insert(pod.uid.clone(), growth);
                    }
                }
                Err(reason) => {
                    tally.problem.get_or_insert(reason);
                }
            }
        }
        match canary.silent(Side::Canary).or_else(|| stable.silent(Side::Stable)) {
            Some(reason) => Err(reason),
            None => Ok((canary, stable)),
        }
    }

    fn in_words(&self, pod: &str, unusable: Unusable) -> String {
        let metric = match &self.guard.measured {
            Measured::Ratio { total, .. } => total,
            Measured::Histogram { metric, .. } | Measured::Gauge { metric, .. } => metric,
            Measured::Check(_) => return format!("pod {pod} is not asked"),
        };
        match unusable {
            Unusable::NoTotal => format!("pod {pod} has no series of {metric}"),
            Unusable::Value(series, value) => format!("pod {pod}: {series} is {value}"),
            Unusable::Buckets(series, problem) => format!("pod {pod}: {series} {problem}"),
            Unusable::NoEdge(edge) => format!(
                "pod {pod}: {metric} has no bucket edge {edge}, which this release is measured by; the layouts differ"
            ),
            Unusable::Kind => format!("pod {pod}: {metric} is of another type than the guard's"),
            Unusable::TooMany => format!("pod {pod} has too many series"),
        }
    }

    fn ratio(&self, state: &mut GuardState) -> Result<Found, String> {
        let mut counters = BTreeMap::new();
        let tallies = self.ask(|pod, reading| {
            let known = state.counters.get(&pod.uid);
            let advanced = match reading {
                Reading::Ratio { bad, total } => counters::advance(known, bad, total),
                _ => Err(Unusable::Kind),
            };
            let (now, growth) = advanced?;
            counters.insert(pod.uid.clone(), now);
            Ok(growth.map(|[bad, all]| Growth { all, bad: vec![bad], shifted: Vec::new() }))
        });
        if state.streams.is_empty() {
            state.streams.push(Stream::default());
        }
        self.events(state, counters, tallies?)
    }

    fn histogram(&self, state: &mut GuardState, slower: super::Slower) -> Result<Found, String> {
        if state.streams.is_empty() {
            let (canary, stable) = self.ask(|_, reading| match reading {
                Reading::Histogram(series) if series.is_empty() => Err(Unusable::NoTotal),
                Reading::Histogram(series) => {
                    let broken =
                        series.iter().find_map(|(name, b)| b.problem().map(|why| (name.clone(), why)));
                    broken.map_or(Ok(Some(series.clone())), |(name, why)| Err(Unusable::Buckets(name, why)))
                }
                _ => Err(Unusable::Kind),
            })?;
            if canary.pods.is_empty() || stable.pods.is_empty() {
                return Ok(Found::Waiting);
            }
            let series =
                |tally: Tally<BTreeMap<SeriesKey, Buckets>>| tally.pods.into_values().collect::<Vec<_>>();
            state.streams = choose(&series(canary), &series(stable), slower)?;
            state.edges = edges_of(&state.streams);
        }
        let (streams, edges) = (state.streams.clone(), state.edges.clone());
        let mut counters = BTreeMap::new();
        let tallies = self.ask(|pod, reading| {
            let known = state.counters.get(&pod.uid);
            let advanced = match reading {
                Reading::Histogram(series) => counters::advance_buckets(known, series, &edges),
                _ => Err(Unusable::Kind),
            };
            let (now, growth) = advanced?;
            counters.insert(pod.uid.clone(), now);
            Ok(growth.map(|growth| {
                let each = streams.iter().map(|stream| events(stream, &edges, &growth));
                let mut sums = Growth { all: 0.0, bad: Vec::new(), shifted: Vec::new() };
                for [all, bad, shifted] in each {
                    sums.all = all;
                    sums.bad.push(bad);
                    sums.shifted.push(shifted);
                }
                sums
            }))
        });
        self.events(state, counters, tallies?)
    }

    fn events(
        &self,
        state: &mut GuardState,
        mut counters: BTreeMap<String, PodCounters>,
        (canary, stable): (Tally<Growth>, Tally<Growth>),
    ) -> Result<Found, String> {
        // A pod that gave no usable answer goes on from its last one.
        for pod in self.pods {
            if let (Some(known), false) = (state.counters.get(&pod.uid), counters.contains_key(&pod.uid)) {
                counters.insert(pod.uid.clone(), known.clone());
            }
        }
        let numbers = |pod: &PodCounters| {
            pod.bad.len() + pod.total.len() + pod.buckets.values().map(Vec::len).sum::<usize>()
        };
        let series: usize = counters.values().map(numbers).sum();
        if series > MAX_GUARD_SERIES {
            return Err(format!(
                "too many series: {series} on {} pods, at most {MAX_GUARD_SERIES} are kept; narrow `match`",
                counters.len()
            ));
        }
        if (canary.pods.is_empty() && !self.is_previewed()) || stable.pods.is_empty() {
            state.counters = counters;
            return Ok(Found::Waiting);
        }
        let look = self.compare(state, &canary.pods, &stable.pods);
        take(state, &self.guard.rule, self.plan.planned_looks, &look);
        let by_pods = canary.pods.len() as f64 / (canary.pods.len() + stable.pods.len()) as f64;
        let requests = look.counts.first().map(|counts| Requests {
            canary: counts.canary_total,
            stable: counts.stable_total,
            share: self.plan.share.unwrap_or(by_pods),
        });
        learn(state, &stable.pods, &counters, &look);
        state.counters = counters;
        state.recent.push(look);
        Ok(Found::Look(requests))
    }

    /// The look. What is learnt of the pods counts from the next one on, so that the bets of a look do not depend on
    /// its outcome.
    fn compare(
        &self,
        state: &GuardState,
        canary: &BTreeMap<String, Growth>,
        stable: &BTreeMap<String, Growth>,
    ) -> Look {
        let mut look = Look::of(self.second, Counts::default());
        look.counts.clear();
        for (index, stream) in state.streams.iter().enumerate() {
            let sums = |pods: &BTreeMap<String, Growth>| {
                pods.values().fold([0.0; 3], |[all, bad, shifted], pod| {
                    let at = |of: &[f64]| of.get(index).copied().unwrap_or(0.0);
                    [all + pod.all, bad + at(&pod.bad), shifted + at(&pod.shifted)]
                })
            };
            let ([canary_total, canary_bad, _], [stable_total, stable_bad, shifted]) =
                (sums(canary), sums(stable));
            look.counts.push(Counts { canary_bad, canary_total, stable_bad, stable_total });
            // Beyond a longer time, stable's past was not counted.
            if self.plan.share == Some(1.0)
                && stream.shifted.is_none()
                && let Rule::Events(bounds) = &self.guard.rule
                && let Some(past) =
                    past_share(bounds.harm, &stream.totals, dispersion(&stream.dispersion, stable.len()))
            {
                look.past.push(past);
            }
            if stream.shifted.is_some() {
                look.shifted.push(shifted);
            }
            // Of several streams the one that scatters most speaks for all: more only makes the evidence weaker.
            let scattered = dispersion(&stream.dispersion, stable.len());
            let pods = totals_of(state, index);
            look.spread = look.spread.max(spread(pods, scattered, canary.len()));
            look.dispersion = look.dispersion.max(scattered);
        }
        look
    }

    fn gauge(&self, state: &mut GuardState, aggregate: Aggregate) -> Result<Found, String> {
        let (canary, stable) = self.ask(|_, reading| match reading {
            Reading::Gauge(series) => aggregated(series, aggregate).map(Some),
            _ => Err(Unusable::Kind),
        })?;
        let mean = |tally: &Tally<f64>| tally.pods.values().sum::<f64>() / tally.pods.len() as f64;
        if canary.pods.is_empty() || stable.pods.is_empty() {
            return Ok(Found::Waiting);
        }
        let gauge = state.gauge.get_or_insert_default();
        let Some(look) = gauge::gather(gauge, self.second, mean(&canary), mean(&stable)) else {
            return Ok(Found::Waiting);
        };
        take(state, &self.guard.rule, self.plan.planned_looks, &look);
        state.recent.push(look);
        Ok(Found::Look(None))
    }
}

/// What several series of one pod become.
fn aggregated(series: &BTreeMap<SeriesKey, f64>, aggregate: Aggregate) -> Result<f64, Unusable> {
    if series.len() > MAX_SERIES {
        return Err(Unusable::TooMany);
    }
    if let Some((name, value)) =
        series.iter().find(|(_, value)| !(-counters::MOST..=counters::MOST).contains(*value))
    {
        return Err(Unusable::Value(name.clone(), *value));
    }
    let sum: f64 = series.values().sum();
    match aggregate {
        _ if series.is_empty() => Err(Unusable::NoTotal),
        Aggregate::Sum => Ok(sum),
        Aggregate::Mean => Ok(sum / series.len() as f64),
        Aggregate::Max => Ok(series.values().copied().fold(f64::NEG_INFINITY, f64::max)),
    }
}

/// Running totals of stable's pods in one stream: counted events, all events.
fn totals_of(state: &GuardState, stream: usize) -> impl Iterator<Item = [f64; 2]> + Clone {
    let at = |numbers: &[f64], index: usize| numbers.get(index).copied().unwrap_or(0.0);
    state.stable_pods.values().map(move |pod| [at(pod, stream + 1), at(pod, 0)])
}

/// What a look teaches for the next ones.
fn learn(
    state: &mut GuardState,
    stable: &BTreeMap<String, Growth>,
    counters: &BTreeMap<String, PodCounters>,
    look: &Look,
) {
    for (index, (stream, counts)) in state.streams.iter_mut().zip(&look.counts).enumerate() {
        let pods = stable.values().map(|pod| [pod.bad.get(index).copied().unwrap_or(0.0), pod.all]);
        learn_dispersion(&mut stream.dispersion, pods);
        stream.totals.canary_bad += counts.canary_bad;
        stream.totals.canary_total += counts.canary_total;
        stream.totals.stable_bad += counts.stable_bad;
        stream.totals.stable_total += counts.stable_total;
    }
    state.stable_pods.retain(|uid, _| counters.contains_key(uid));
    for (uid, growth) in stable {
        let sums = state.stable_pods.entry(uid.clone()).or_default();
        sums.resize(growth.bad.len() + 1, 0.0);
        for (sum, x) in sums.iter_mut().zip([growth.all].iter().chain(&growth.bad)) {
            *sum += x;
        }
    }
}

/// Whether the pod is old enough to be compared.
pub(super) fn is_warm(started_at: Timestamp, at: Timestamp, plan: &Plan) -> bool {
    u128::try_from(at.duration_since(started_at).as_nanos()).is_ok_and(|age| age >= plan.warm_up.as_nanos())
}
