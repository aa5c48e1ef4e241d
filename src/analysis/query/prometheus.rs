//! A Prometheus server, asked for the raw series of exactly the pods of the release.
//!
//! Raw series and not `rate(...)`: rates over windows that overlap are no independent looks, and a server's
//! extrapolation is not a count.
//!
//! # When a value was sampled
//!
//! A server answers with the time of the question, not with that of the sample, and goes on answering with a last
//! sample for five minutes. So each question also asks for the age, in the same breath:
//!
//! ```text
//! m{…} or label_replace(min by (pod) (timestamp(m{…})), "belay_sampled", "at", "", "")
//! ```
//!
//! Compared, for 200 pods of 10 series with 230 bytes of labels each, a sample being 28 bytes of JSON:
//!
//! | question | bytes | at 5 s scrapes | a pod that is not scraped any more |
//! |---|---|---|---|
//! | `m{…}[5m]`, the last sample of each series | 1.6 MB at 15 s scrapes | 3.8 MB | is told like one that idles, for 5 minutes |
//! | `m{…}`, and `timestamp(m{…})` as a second query | 1.0 MB | 1.0 MB | is gone at once (staleness markers) |
//! | the above | 0.5 MB | 0.5 MB | is gone at once |
//!
//! All series of a pod come from one scrape, so one time for each pod is enough; `min` because a pod is as old as its
//! oldest series. A native histogram is some kB a sample, which settles it: a range has 20 of each. No `time` is
//! sent, so that the server's own clock is in the answer and can be compared with ours. Seen to be answered alike by
//! Prometheus 2.42 and `VictoriaMetrics` 1.79, which leaves out the last 30 s (`-search.latencyOffset`).

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use jiff::Timestamp;
use serde::Deserialize;

use super::access::Way;
use super::secrets::Secrets;
use super::text::{MOST_SERIES, key};
use super::{Answer, Target};
use crate::analysis::matchers::quote;
use crate::analysis::source::PrometheusSource;
use crate::analysis::{CounterPlan, GuardPlan, Labels, Plan, Reading};
use crate::cluster::http::{Http, Limits, excerpt};

/// Queries that run at the same time.
const AT_ONCE: usize = 4;
const LIMITS: Limits = Limits { deadline: Duration::from_secs(5), body: 4 << 20 };
/// How far the server's clock may be from ours, in seconds: clocks differ, and the question itself may have waited.
const CLOCKS: f64 = 120.0;
/// The label by which the times of the samples are told from the samples.
const SAMPLED: &str = "belay_sampled";

/// The server, and how to ask it.
struct Server<'a> {
    http: &'a Http,
    way: &'a Way,
    source: &'a PrometheusSource,
}

/// Values by pod name, then by series.
type Values = BTreeMap<String, BTreeMap<String, f64>>;

/// What the server says of one counter.
#[derive(Default)]
struct Counted {
    values: Values,
    /// Pods whose values cannot be used, and why: not even in part, or an error would go unseen.
    unusable: BTreeMap<String, String>,
}

/// One answer per target, in their order.
///
/// Bad events are asked for before all events: an error that arrives between the two questions counts in the next
/// look, and there is never an error without its request.
pub(super) async fn query(
    http: &Http,
    secrets: &dyn Secrets,
    plan: &Plan,
    source: &PrometheusSource,
    targets: &[&Target],
    now: Timestamp,
) -> Result<Vec<Answer>, String> {
    let Some(first) = targets.first() else { return Ok(Vec::new()) };
    let way = &Way::open(secrets, &first.namespace, &source.access, &source.headers).await?;
    let server = &Server { http, way, source };
    let counters = |which: fn(&GuardPlan) -> &CounterPlan| plan.guards.iter().map(which).collect();
    let bad = all(server, targets, now, counters(|guard| &guard.bad)).await;
    let total = all(server, targets, now, counters(|guard| &guard.total)).await;
    let mut first_problem = None;
    let guards: Vec<Option<(&Counted, &Counted)>> = plan
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
    let nothing = |total: &Counted| total.values.is_empty() && total.unusable.is_empty();
    let empty =
        plan.guards.iter().zip(&guards).find(|(_, found)| found.is_some_and(|(_, total)| nothing(total)));
    if let Some((guard, _)) = empty.filter(|_| guards.iter().flatten().all(|(_, total)| nothing(total))) {
        return Err(format!("{} has no series of {} for these pods", source.url, guard.total));
    }
    let answers = targets.iter().map(|target| {
        let unusable = |found: &(&Counted, &Counted)| {
            let (bad, total) = *found;
            total.unusable.get(&target.name).or_else(|| bad.unusable.get(&target.name)).cloned()
        };
        let problem = guards.iter().flatten().find_map(unusable);
        let readings = guards.iter().map(|guard| {
            guard.filter(|found| unusable(found).is_none()).map(|(bad, total)| Reading {
                bad: bad.values.get(&target.name).cloned().unwrap_or_default(),
                total: total.values.get(&target.name).cloned().unwrap_or_default(),
            })
        });
        (readings.collect(), problem.or_else(|| first_problem.cloned()))
    });
    Ok(answers.collect())
}

/// The answers by counter; one that several guards share is asked for once.
async fn all(
    server: &Server<'_>,
    targets: &[&Target],
    now: Timestamp,
    counters: Vec<&CounterPlan>,
) -> BTreeMap<String, Result<Counted, String>> {
    let distinct: BTreeMap<String, &CounterPlan> =
        counters.into_iter().map(|counter| (counter.to_string(), counter)).collect();
    // Boxed, so that the caller's future stays `Send` for every lifetime of the targets.
    let queries: Vec<BoxFuture<'_, _>> = distinct
        .into_iter()
        .map(|(name, counter)| one(server, targets, now, counter).map(|answer| (name, answer)).boxed())
        .collect();
    stream::iter(queries).buffered(AT_ONCE).collect().await
}

async fn one(
    server: &Server<'_>,
    targets: &[&Target],
    now: Timestamp,
    counter: &CounterPlan,
) -> Result<Counted, String> {
    let Server { http, way, source } = server;
    let url = format!("{}/api/v1/query", source.url);
    let form = [
        ("query", &*question(source, targets, counter)),
        ("timeout", "5s"),
        // Better no answer than a part of one, in which the errors may be missing: Thanos and VictoriaMetrics answer
        // with what they have unless they are told. Prometheus and Mimir do not know these words, and leave them.
        ("partial_response", "false"),
        ("deny_partial_response", "1"),
    ];
    let answer = http.post_form(&url, &form, &way.access, LIMITS).await.map_err(|error| error.in_full())?;
    let told = |text: &str| excerpt(&way.shown(text), 200);
    let status = answer.status;
    // Errors of Prometheus itself come as JSON with a status other than 200; their own words say more.
    let Ok(body) = serde_json::from_slice::<Body>(&answer.body) else {
        let text = told(&String::from_utf8_lossy(&answer.body));
        return Err(if answer.is_success() {
            format!("{url} did not answer with the JSON of a query: {text}")
        } else {
            format!("{url} answered {status}{}: {text}", way.meaning(status))
        });
    };
    match body {
        Body::Error { error } => {
            Err(format!("{url} refused the query ({status}){}: {}", way.meaning(status), told(&error)))
        }
        Body::Success { .. } if !answer.is_success() => {
            Err(format!("{url} answered {status}{}", way.meaning(status)))
        }
        Body::Success { data: Data::Vector { result } } => counted(source, result, counter, now),
    }
}

/// The query: the samples, and when they were taken.
fn question(source: &PrometheusSource, targets: &[&Target], counter: &CounterPlan) -> String {
    let selector = selector(source, targets, counter);
    let pod = &source.pod_label;
    format!(
        r#"{selector} or label_replace(min by ({pod}) (timestamp({selector})), "{SAMPLED}", "at", "", "")"#
    )
}

/// The counter's own matchers, and those of the namespace and the pods.
fn selector(source: &PrometheusSource, targets: &[&Target], counter: &CounterPlan) -> String {
    let mut matchers = Vec::new();
    if !counter.matchers.is_empty() {
        matchers.push(counter.matchers.to_string());
    }
    if let (Some(label), Some(target)) = (&source.namespace_label, targets.first()) {
        matchers.push(format!("{label}={}", quote(&target.namespace)));
    }
    let names: Vec<String> = targets.iter().map(|target| regex::escape(&target.name)).collect();
    matchers.push(format!("{}=~{}", source.pod_label, quote(&names.join("|"))));
    format!("{}{{{}}}", counter.metric, matchers.join(","))
}

fn counted(
    source: &PrometheusSource,
    result: Vec<Found>,
    counter: &CounterPlan,
    now: Timestamp,
) -> Result<Counted, String> {
    let now = now.as_millisecond() as f64 / 1000.0;
    let mut answer = Counted::default();
    // By pod: how old its values are, in seconds.
    let mut ages: BTreeMap<String, f64> = BTreeMap::new();
    for Found { mut metric, value } in result {
        let Some(pod) = metric.remove(&source.pod_label) else { continue };
        let Some((asked, value)) = value else {
            // Native histograms come as `histogram: [time, {count, sum, buckets}]` instead of `value`; this is the
            // place to read them.
            answer.unusable.insert(pod, format!("{} is a native histogram, and no counter", counter.metric));
            continue;
        };
        let ahead = asked - now;
        if !(-CLOCKS..=CLOCKS).contains(&ahead) {
            let how = if ahead < 0.0 { "behind" } else { "ahead of" };
            let by = ahead.abs();
            return Err(format!("the clock of {} is {by:.0} s {how} the operator's", source.url));
        }
        // What is no number becomes one that the engine refuses, so that the pod counts as without data.
        let value: f64 = value.parse().unwrap_or(f64::NAN);
        if metric.contains_key(SAMPLED) && !metric.contains_key("__name__") {
            ages.insert(pod, asked - value);
            continue;
        }
        if let Some(label) = &source.namespace_label {
            metric.remove(label);
        }
        let name = metric.remove("__name__").unwrap_or_default();
        answer.values.entry(pod).or_default().insert(key(&name, &metric), value);
    }
    let (values, unusable) = (&answer.values, &mut answer.unusable);
    for (pod, series) in values {
        let metric = &counter.metric;
        let wrong = match ages.get(pod) {
            _ if series.len() > MOST_SERIES => Some(format!(
                "{} series of {metric}, at most {MOST_SERIES} are read: a label without bounds?",
                series.len()
            )),
            None => Some(format!("the server does not say when {metric} was sampled")),
            Some(age) if !(-CLOCKS..=source.look_back.as_secs_f64()).contains(age) => Some(format!(
                "the sample of {metric} is {age:.0} s old, lookBack is {:.0} s",
                source.look_back.as_secs_f64()
            )),
            Some(_) => None,
        };
        if let Some(wrong) = wrong {
            unusable.insert(pod.clone(), wrong);
        }
    }
    for (pod, reason) in unusable.iter_mut() {
        *reason = format!("pod {pod}: {reason}");
    }
    Ok(answer)
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
    value: Option<(f64, String)>,
}
