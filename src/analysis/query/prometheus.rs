//! A Prometheus server, asked for the raw series of exactly the pods of the release.
//!
//! Raw series and not `rate(...)`: rates over windows that overlap are no independent looks, and a server's
//! extrapolation is not a count.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use jiff::Timestamp;
use serde::Deserialize;

use super::reading::{BUCKET, classic};
use super::text::key;
use super::{Answer, Target};
use crate::analysis::matchers::quote;
use crate::analysis::{Buckets, CounterPlan, GuardPlan, Labels, Measured, Plan, Reading};
use crate::cluster::http::{Http, Limits};

/// Queries that run at the same time.
const AT_ONCE: usize = 4;
const LIMITS: Limits = Limits { deadline: Duration::from_secs(5), body: 4 << 20 };
/// Samples older than this are no data, in seconds: the time after which Prometheus itself forgets a series.
const STALE: f64 = 300.0;

/// Which server, and how its series name pods.
pub(super) struct Server<'a> {
    pub(super) url: &'a str,
    pub(super) pod_label: &'a str,
    pub(super) namespace_label: Option<&'a str>,
}

/// What was found of one metric: by pod name its series, each with a number or a native histogram.
type Answered = BTreeMap<String, Vec<(String, Labels, Value)>>;

/// The value of a series.
#[derive(Clone, Debug)]
enum Value {
    Number(f64),
    Native(Buckets),
}

/// One answer per target, in their order.
///
/// Bad events are asked for before all events: an error that arrives between the two questions counts in the next
/// look, and there is never an error without its request.
pub(super) async fn query(
    http: &Http,
    plan: &Plan,
    server: &Server<'_>,
    targets: &[&Target],
    now: Timestamp,
) -> Result<Vec<Answer>, String> {
    if targets.is_empty() {
        return Ok(Vec::new());
    }
    let ask = |which: fn(&GuardPlan) -> Option<Question<'_>>| {
        plan.guards.iter().filter_map(which).collect::<Vec<_>>()
    };
    let first = all(http, server, targets, now, ask(first_question)).await;
    let second = all(http, server, targets, now, ask(|guard| Some(second_question(guard)))).await;
    let first_problem = first.values().chain(second.values()).find_map(|answer| answer.as_ref().err());
    let guards: Vec<Option<(&Answered, Option<&Answered>)>> = plan
        .guards
        .iter()
        .map(|guard| {
            let main = answer(&second, second_question(guard))?;
            match first_question(guard) {
                Some(question) => Some((main, Some(answer(&first, question)?))),
                None => Some((main, None)),
            }
        })
        .collect();
    if let (true, Some(reason)) = (guards.iter().all(Option::is_none), first_problem) {
        return Err(reason.clone());
    }
    let empty =
        plan.guards.iter().zip(&guards).find(|(_, found)| found.is_some_and(|(main, _)| main.is_empty()));
    if let Some((guard, _)) = empty.filter(|_| guards.iter().flatten().all(|(main, _)| main.is_empty())) {
        let metric = second_question(guard);
        return Err(format!("{} has no series of {metric} for these pods", server.url));
    }
    let answers = targets.iter().map(|target| {
        let of_pod = |found: &Answered| found.get(&target.name).cloned().unwrap_or_default();
        let readings = plan.guards.iter().zip(&guards).map(|(guard, found)| {
            found.map(|(main, bad)| reading(guard, of_pod(main), bad.map(of_pod).unwrap_or_default()))
        });
        (readings.collect(), first_problem.cloned())
    });
    Ok(answers.collect())
}

/// What was found to each question, or why nothing was.
type Answers = BTreeMap<String, Result<Answered, String>>;

fn answer<'a>(answers: &'a Answers, question: Question<'_>) -> Option<&'a Answered> {
    answers.get(&question.to_string())?.as_ref().ok()
}

/// A metric that is asked for.
#[derive(Clone, Copy)]
struct Question<'a> {
    counter: &'a CounterPlan,
    /// The buckets of a classic histogram, too.
    buckets: bool,
}

impl std::fmt::Display for Question<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.counter.fmt(f)?;
        f.write_str(if self.buckets { " (histogram)" } else { "" })
    }
}

/// What has to be known before the second question is asked.
fn first_question(guard: &GuardPlan) -> Option<Question<'_>> {
    match &guard.measured {
        Measured::Ratio { bad, .. } => Some(Question { counter: bad, buckets: false }),
        Measured::Histogram { .. } | Measured::Gauge { .. } => None,
    }
}

fn second_question(guard: &GuardPlan) -> Question<'_> {
    match &guard.measured {
        Measured::Ratio { total, .. } => Question { counter: total, buckets: false },
        Measured::Histogram { metric, .. } => Question { counter: metric, buckets: true },
        Measured::Gauge { metric, .. } => Question { counter: metric, buckets: false },
    }
}

/// What one pod's series say to a guard.
fn reading(
    guard: &GuardPlan,
    main: Vec<(String, Labels, Value)>,
    bad: Vec<(String, Labels, Value)>,
) -> Reading {
    let numbers = |series: Vec<(String, Labels, Value)>| {
        let number = |value| match value {
            Value::Number(number) => number,
            // Where a counter is wanted: the engine refuses it by name.
            Value::Native(_) => f64::NAN,
        };
        series.into_iter().map(|(name, labels, value)| (key(&name, &labels), number(value))).collect()
    };
    match &guard.measured {
        Measured::Ratio { .. } => Reading::Ratio { bad: numbers(bad), total: numbers(main) },
        Measured::Gauge { .. } => Reading::Gauge(numbers(main)),
        Measured::Histogram { metric, .. } => {
            let mut native = BTreeMap::new();
            let mut buckets = Vec::new();
            for (name, labels, value) in main {
                match value {
                    Value::Native(histogram) => drop(native.insert(key(&name, &labels), histogram)),
                    Value::Number(count) => buckets.push((labels, count)),
                }
            }
            // A server that keeps both forms: the finer one.
            if native.is_empty() {
                Reading::Histogram(classic(metric, buckets.into_iter()))
            } else {
                Reading::Histogram(native)
            }
        }
    }
}

/// The answers by counter; one that several guards share is asked for once.
async fn all(
    http: &Http,
    server: &Server<'_>,
    targets: &[&Target],
    now: Timestamp,
    questions: Vec<Question<'_>>,
) -> Answers {
    let distinct: BTreeMap<String, Question<'_>> =
        questions.into_iter().map(|question| (question.to_string(), question)).collect();
    // Boxed, so that the caller's future stays `Send` for every lifetime of the targets.
    let queries: Vec<BoxFuture<'_, _>> = distinct
        .into_iter()
        .map(|(name, question)| {
            one(http, server, targets, now, question).map(|answer| (name, answer)).boxed()
        })
        .collect();
    stream::iter(queries).buffered(AT_ONCE).collect().await
}

async fn one(
    http: &Http,
    server: &Server<'_>,
    targets: &[&Target],
    now: Timestamp,
    question: Question<'_>,
) -> Result<Answered, String> {
    let url = format!("{}/api/v1/query", server.url);
    let time = format!("{:.3}", now.as_millisecond() as f64 / 1000.0);
    let form = [("query", &*expression(server, targets, question)), ("time", &time), ("timeout", "5s")];
    let answer = http.post_form(&url, &form, LIMITS).await.map_err(|error| error.in_full())?;
    // Errors of Prometheus itself come as JSON with a status other than 200; their own words say more.
    let body: Body = match serde_json::from_slice(&answer.body) {
        Ok(body) => body,
        Err(_) if !answer.is_success() => {
            return Err(format!("{url} answered {}: {}", answer.status, answer.excerpt(200)));
        }
        Err(_) => {
            return Err(format!("{url} did not answer with the JSON of a query: {}", answer.excerpt(200)));
        }
    };
    match body {
        Body::Error { error } => {
            let error: String = error.chars().take(200).collect();
            Err(format!("{url} refused the query ({}): {error}", answer.status))
        }
        Body::Success { .. } if !answer.is_success() => Err(format!("{url} answered {}", answer.status)),
        Body::Success { data: Data::Vector { result } } => Ok(values(server, result, now)),
    }
}

/// The query: the metric's own matchers, and those of the namespace and the pods.
fn expression(server: &Server<'_>, targets: &[&Target], question: Question<'_>) -> String {
    let CounterPlan { metric, matchers: own } = question.counter;
    let mut matchers = Vec::new();
    // A native histogram has the name itself, the buckets of a classic one the name with a suffix.
    let name = if question.buckets {
        matchers.push(format!("__name__=~{}", quote(&format!("{metric}({BUCKET})?"))));
        ""
    } else {
        metric
    };
    if !own.is_empty() {
        matchers.push(own.to_string());
    }
    if let (Some(label), Some(target)) = (server.namespace_label, targets.first()) {
        matchers.push(format!("{label}={}", quote(&target.namespace)));
    }
    let names: Vec<String> = targets.iter().map(|target| regex::escape(&target.name)).collect();
    matchers.push(format!("{}=~{}", server.pod_label, quote(&names.join("|"))));
    format!("{name}{{{}}}", matchers.join(","))
}

fn values(server: &Server<'_>, result: Vec<Found>, now: Timestamp) -> Answered {
    let now = now.as_millisecond() as f64 / 1000.0;
    let mut values = Answered::new();
    for Found { mut metric, value, histogram } in result {
        let (at, value) = match (value, histogram) {
            // What is no number becomes one that the engine refuses, so that the pod counts as without data.
            (Some((at, value)), _) => (at, Value::Number(value.parse().unwrap_or(f64::NAN))),
            (None, Some((at, histogram))) => (at, Value::Native(histogram.read())),
            (None, None) => continue,
        };
        // As far ahead as behind: a server with a wrong clock.
        if (now - at).abs() > STALE {
            continue;
        }
        let Some(pod) = metric.remove(server.pod_label) else { continue };
        if let Some(label) = server.namespace_label {
            metric.remove(label);
        }
        let name = metric.remove("__name__").unwrap_or_default();
        values.entry(pod).or_default().push((name, metric, value));
    }
    values
}

#[derive(Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
enum Body {
    Success {
        data: Data,
    },
    Error {
        #[serde(default)]
        error: String,
    },
}

#[derive(Deserialize)]
#[serde(tag = "resultType", rename_all = "lowercase")]
enum Data {
    Vector { result: Vec<Found> },
}

#[derive(Deserialize)]
struct Found {
    metric: Labels,
    #[serde(default)]
    value: Option<(f64, String)>,
    #[serde(default)]
    histogram: Option<(f64, Histogram)>,
}

/// A native histogram, as in Prometheus' HTTP API.
#[derive(Deserialize)]
struct Histogram {
    count: String,
    /// Which edges belong to the bucket, its lower and upper edge, its events.
    #[serde(default)]
    buckets: Vec<(i64, String, String, String)>,
}

impl Histogram {
    fn read(self) -> Buckets {
        let number = |text: &str| text.parse().unwrap_or(f64::NAN);
        let each =
            self.buckets.iter().map(|(_, low, high, events)| (number(low), number(high), number(events)));
        Buckets::native(number(&self.count), each.collect())
    }
}
