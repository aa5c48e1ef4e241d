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

use super::text::key;
use super::{Answer, Target};
use crate::analysis::matchers::quote;
use crate::analysis::{CounterPlan, GuardPlan, Labels, Plan, Reading};
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

/// Values by pod name, then by series.
type Values = BTreeMap<String, BTreeMap<String, f64>>;

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
    let counters = |which: fn(&GuardPlan) -> &CounterPlan| plan.guards.iter().map(which).collect();
    let bad = all(http, server, targets, now, counters(|guard| &guard.bad)).await;
    let total = all(http, server, targets, now, counters(|guard| &guard.total)).await;
    let mut first_problem = None;
    let guards: Vec<Option<(&Values, &Values)>> = plan
        .guards
        .iter()
        .map(|guard| {
            let bad = bad.get(&guard.bad.to_string()).and_then(|answer| answer.as_ref().ok());
            let total = total.get(&guard.total.to_string()).and_then(|answer| answer.as_ref().ok());
            bad.zip(total)
        })
        .collect();
    for answer in bad.values().chain(total.values()) {
        if let Err(reason) = answer {
            first_problem.get_or_insert(reason);
        }
    }
    if let (true, Some(reason)) = (guards.iter().all(Option::is_none), first_problem) {
        return Err(reason.clone());
    }
    let empty =
        plan.guards.iter().zip(&guards).find(|(_, values)| values.is_some_and(|(_, total)| total.is_empty()));
    if let Some((guard, _)) = empty.filter(|_| guards.iter().flatten().all(|(_, total)| total.is_empty())) {
        return Err(format!("{} has no series of {} for these pods", server.url, guard.total));
    }
    let answers = targets.iter().map(|target| {
        let readings = guards.iter().map(|guard| {
            guard.map(|(bad, total)| Reading {
                bad: bad.get(&target.name).cloned().unwrap_or_default(),
                total: total.get(&target.name).cloned().unwrap_or_default(),
            })
        });
        (readings.collect(), first_problem.cloned())
    });
    Ok(answers.collect())
}

/// The answers by counter; one that several guards share is asked for once.
async fn all(
    http: &Http,
    server: &Server<'_>,
    targets: &[&Target],
    now: Timestamp,
    counters: Vec<&CounterPlan>,
) -> BTreeMap<String, Result<Values, String>> {
    let distinct: BTreeMap<String, &CounterPlan> =
        counters.into_iter().map(|counter| (counter.to_string(), counter)).collect();
    // Boxed, so that the caller's future stays `Send` for every lifetime of the targets.
    let queries: Vec<BoxFuture<'_, _>> = distinct
        .into_iter()
        .map(|(name, counter)| one(http, server, targets, now, counter).map(|answer| (name, answer)).boxed())
        .collect();
    stream::iter(queries).buffered(AT_ONCE).collect().await
}

async fn one(
    http: &Http,
    server: &Server<'_>,
    targets: &[&Target],
    now: Timestamp,
    counter: &CounterPlan,
) -> Result<Values, String> {
    let url = format!("{}/api/v1/query", server.url);
    let time = format!("{:.3}", now.as_millisecond() as f64 / 1000.0);
    let form = [("query", &*expression(server, targets, counter)), ("time", &time), ("timeout", "5s")];
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

/// The query: the counter's own matchers, and those of the namespace and the pods.
fn expression(server: &Server<'_>, targets: &[&Target], counter: &CounterPlan) -> String {
    let mut matchers = Vec::new();
    if !counter.matchers.is_empty() {
        matchers.push(counter.matchers.to_string());
    }
    if let (Some(label), Some(target)) = (server.namespace_label, targets.first()) {
        matchers.push(format!("{label}={}", quote(&target.namespace)));
    }
    let names: Vec<String> = targets.iter().map(|target| regex::escape(&target.name)).collect();
    matchers.push(format!("{}=~{}", server.pod_label, quote(&names.join("|"))));
    format!("{}{{{}}}", counter.metric, matchers.join(","))
}

fn values(server: &Server<'_>, result: Vec<Found>, now: Timestamp) -> Values {
    let now = now.as_millisecond() as f64 / 1000.0;
    let mut values = Values::new();
    for Found { mut metric, value: (at, value) } in result {
        // As far ahead as behind: a server with a wrong clock.
        if (now - at).abs() > STALE {
            continue;
        }
        let Some(pod) = metric.remove(server.pod_label) else { continue };
        if let Some(label) = server.namespace_label {
            metric.remove(label);
        }
        let name = metric.remove("__name__").unwrap_or_default();
        // What is no number becomes one that the engine refuses, so that the pod counts as without data.
        let value = value.parse().unwrap_or(f64::NAN);
        values.entry(pod).or_default().insert(key(&name, &metric), value);
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
    value: (f64, String),
}
