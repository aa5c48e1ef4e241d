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
use super::reading::{BUCKET, classic};
use super::secrets::Secrets;
use super::text::{MOST_BUCKETS, MOST_SERIES, key};
use super::{Answer, Target};
use crate::analysis::matchers::quote;
use crate::analysis::source::PrometheusSource;
use crate::analysis::{Buckets, CounterPlan, GuardPlan, Labels, Measured, Plan, Reading};
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

/// One series of a pod.
type Sampled = (String, Labels, Value);

/// The value of a series.
#[derive(Clone, Debug)]
enum Value {
    Number(f64),
    Native(Buckets),
}

/// What the server says of one metric.
#[derive(Default)]
struct Answered {
    /// By pod name its series.
    series: BTreeMap<String, Vec<Sampled>>,
    /// Pods whose values cannot be used, and why: not even in part, or an error would go unseen.
    unusable: BTreeMap<String, String>,
}

impl Answered {
    fn of(&self, pod: &str) -> Vec<Sampled> {
        self.series.get(pod).cloned().unwrap_or_default()
    }
}

/// What was found to each question, or why nothing was.
type Answers = BTreeMap<String, Result<Answered, String>>;

fn answer<'a>(answers: &'a Answers, question: Question<'_>) -> Option<&'a Answered> {
    answers.get(&question.to_string())?.as_ref().ok()
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
    let ask = |which: fn(&GuardPlan) -> Option<Question<'_>>| {
        plan.guards.iter().filter_map(which).collect::<Vec<_>>()
    };
    let first = all(server, targets, now, ask(first_question)).await;
    let second = all(server, targets, now, ask(second_question)).await;
    let first_problem = first.values().chain(second.values()).find_map(|answer| answer.as_ref().err());
    let guards: Vec<Option<(&Answered, Option<&Answered>)>> = plan
        .guards
        .iter()
        .map(|guard| {
            let main = answer(&second, second_question(guard)?)?;
            match first_question(guard) {
                Some(question) => Some((main, Some(answer(&first, question)?))),
                None => Some((main, None)),
            }
        })
        .collect();
    if let (true, Some(reason)) = (guards.iter().all(Option::is_none), first_problem) {
        return Err(reason.clone());
    }
    let nothing = |main: &Answered| main.series.is_empty() && main.unusable.is_empty();
    let empty =
        plan.guards.iter().zip(&guards).find(|(_, found)| found.is_some_and(|(main, _)| nothing(main)));
    let asked = empty.and_then(|(guard, _)| second_question(guard));
    if let Some(asked) = asked.filter(|_| guards.iter().flatten().all(|(main, _)| nothing(main))) {
        return Err(format!("{} has no series of {asked} for these pods", source.url));
    }
    let answers = targets.iter().map(|target| {
        let name = &target.name;
        let unusable = |(main, bad): &(&Answered, Option<&Answered>)| {
            main.unusable.get(name).or_else(|| bad.and_then(|bad| bad.unusable.get(name))).cloned()
        };
        let problem = guards.iter().flatten().find_map(unusable);
        let readings = plan.guards.iter().zip(&guards).map(|(guard, found)| {
            let (main, bad) = found.filter(|found| unusable(found).is_none())?;
            reading(guard, main.of(name), bad.map(|bad| bad.of(name)).unwrap_or_default())
        });
        (readings.collect(), problem.or_else(|| first_problem.cloned()))
    });
    Ok(answers.collect())
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
        Measured::Histogram { .. } | Measured::Gauge { .. } | Measured::Check(_) => None,
    }
}

/// What is asked of every guard that compares numbers.
fn second_question(guard: &GuardPlan) -> Option<Question<'_>> {
    Some(match &guard.measured {
        Measured::Ratio { total, .. } => Question { counter: total, buckets: false },
        Measured::Histogram { metric, .. } => Question { counter: metric, buckets: true },
        Measured::Gauge { metric, .. } => Question { counter: metric, buckets: false },
        Measured::Check(_) => return None,
    })
}

/// What one pod's series say to a guard; nothing to a check.
fn reading(
    guard: &GuardPlan,
    main: Vec<(String, Labels, Value)>,
    bad: Vec<(String, Labels, Value)>,
) -> Option<Reading> {
    let numbers = |series: Vec<(String, Labels, Value)>| {
        let number = |value| match value {
            Value::Number(number) => number,
            // Where a counter is wanted: the engine refuses it by name.
            Value::Native(_) => f64::NAN,
        };
        series.into_iter().map(|(name, labels, value)| (key(&name, &labels), number(value))).collect()
    };
    Some(match &guard.measured {
        Measured::Check(_) => return None,
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
    })
}

/// The answers by counter; one that several guards share is asked for once.
async fn all(
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
        .map(|(name, asked)| one(server, targets, now, asked).map(|answer| (name, answer)).boxed())
        .collect();
    stream::iter(queries).buffered(AT_ONCE).collect().await
}

async fn one(
    server: &Server<'_>,
    targets: &[&Target],
    now: Timestamp,
    asked: Question<'_>,
) -> Result<Answered, String> {
    let Server { http, way, source } = server;
    let url = format!("{}/api/v1/query", source.url);
    let form = [
        ("query", &*question(source, targets, asked)),
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
        Body::Success { data: Data::Vector { result } } => answered(source, result, asked, now),
    }
}

/// The query: the samples, and when they were taken.
fn question(source: &PrometheusSource, targets: &[&Target], asked: Question<'_>) -> String {
    let selector = selector(source, targets, asked);
    let pod = &source.pod_label;
    format!(
        r#"{selector} or label_replace(min by ({pod}) (timestamp({selector})), "{SAMPLED}", "at", "", "")"#
    )
}

/// The metric's own matchers, and those of the namespace and the pods.
fn selector(source: &PrometheusSource, targets: &[&Target], asked: Question<'_>) -> String {
    let CounterPlan { metric, matchers: own } = asked.counter;
    let mut matchers = Vec::new();
    // A native histogram has the name itself, the buckets of a classic one the name with a suffix.
    let name = if asked.buckets {
        matchers.push(format!("__name__=~{}", quote(&format!("{metric}({BUCKET})?"))));
        ""
    } else {
        metric
    };
    if !own.is_empty() {
        matchers.push(own.to_string());
    }
    if let (Some(label), Some(target)) = (&source.namespace_label, targets.first()) {
        matchers.push(format!("{label}={}", quote(&target.namespace)));
    }
    let names: Vec<String> = targets.iter().map(|target| regex::escape(&target.name)).collect();
    matchers.push(format!("{}=~{}", source.pod_label, quote(&names.join("|"))));
    format!("{name}{{{}}}", matchers.join(","))
}

fn answered(
    source: &PrometheusSource,
    result: Vec<Found>,
    question: Question<'_>,
    now: Timestamp,
) -> Result<Answered, String> {
    let now = now.as_millisecond() as f64 / 1000.0;
    let mut answer = Answered::default();
    // By pod: how old its values are, in seconds.
    let mut ages: BTreeMap<String, f64> = BTreeMap::new();
    for Found { mut metric, value, histogram } in result {
        let Some(pod) = metric.remove(&source.pod_label) else { continue };
        let (asked, value) = match (value, histogram) {
            // What is no number becomes one that the engine refuses, so that the pod counts as without data.
            (Some((asked, value)), _) => (asked, Value::Number(value.parse().unwrap_or(f64::NAN))),
            (None, Some((asked, histogram))) => (asked, Value::Native(histogram.read())),
            (None, None) => continue,
        };
        let ahead = asked - now;
        if !(-CLOCKS..=CLOCKS).contains(&ahead) {
            let how = if ahead < 0.0 { "behind" } else { "ahead of" };
            let by = ahead.abs();
            return Err(format!("the clock of {} is {by:.0} s {how} the operator's", source.url));
        }
        if let (Value::Number(at), true, false) =
            (&value, metric.contains_key(SAMPLED), metric.contains_key("__name__"))
        {
            ages.insert(pod, asked - at);
            continue;
        }
        if let Some(label) = &source.namespace_label {
            metric.remove(label);
        }
        let name = metric.remove("__name__").unwrap_or_default();
        if matches!(value, Value::Native(_)) && !question.buckets {
            let wrong = format!("{} is a native histogram; guard it with histogram", question.counter.metric);
            answer.unusable.insert(pod, wrong);
            continue;
        }
        answer.series.entry(pod).or_default().push((name, metric, value));
    }
    let most = if question.buckets { MOST_BUCKETS } else { MOST_SERIES };
    let unusable = &mut answer.unusable;
    for (pod, series) in &answer.series {
        let metric = &question.counter.metric;
        let wrong = match ages.get(pod) {
            _ if series.len() > most => Some(format!(
                "{} series of {metric}, at most {most} are read: a label without bounds?",
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
