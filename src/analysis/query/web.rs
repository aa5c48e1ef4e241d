//! Checks that ask an address.

use std::time::Duration;

use http::Method;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::access::Way;
use super::secrets::Secrets;
use crate::analysis::check::{LONGEST_RESULT, Names, WebPlan};
use crate::analysis::{CheckRun, Plan};
use crate::api::check::WebMethod;
use crate::cluster::http::{Answer, Http, Limits, excerpt};

/// Bytes of an answer.
const LARGEST: usize = 1 << 20;
const ACCEPT: &str = "application/json,*/*;q=0.5";
/// Time for reading an answer, and for holding it against its condition.
const JUDGING: Duration = Duration::from_secs(2);
/// Answers that are judged at the same time. Each has a thread until it ends, even when nobody waits for it any more.
static JUDGES: Semaphore = Semaphore::const_new(4);
/// The longest time that a run takes, with the Secrets that it needs.
pub const LONGEST_RUN: Duration = Duration::from_secs(60);

/// Runs the check of this name once. A name that is no check of an address gives no answer.
pub async fn check(
    http: &Http,
    secrets: &dyn Secrets,
    plan: &Plan,
    guard: &str,
    names: &Names,
    at: Timestamp,
) -> CheckRun {
    let planned = plan.guards.iter().find(|planned| planned.name == guard);
    let web = planned.and_then(|planned| planned.measured.check()).and_then(|check| check.asks_web());
    let (passed, seen) = match web {
        Some(web) => match run(http, secrets, web, names).await {
            Ok((passed, seen)) => (Ok(passed), seen),
            Err(reason) => (Err(reason), String::new()),
        },
        None => (Err("it is no check of an address".to_owned()), String::new()),
    };
    CheckRun { guard: guard.to_owned(), at, passed, seen, number: None }
}

async fn run(
    http: &Http,
    secrets: &dyn Secrets,
    web: &WebPlan,
    names: &Names,
) -> Result<(bool, String), String> {
    let url = names.fill(&web.url)?;
    let way = Way::open(secrets, &names.namespace, &web.access, &web.headers).await?;
    let method = match web.method {
        WebMethod::Get => Method::GET,
        WebMethod::Head => Method::HEAD,
        WebMethod::Post => Method::POST,
    };
    let limits = Limits { deadline: web.timeout, body: LARGEST };
    let answer = http.ask(method, &url, ACCEPT, &way.access, limits).await;
    let answer = answer.map_err(|error| way.shown(&error.in_full()))?;
    let status = answer.status;
    let judged = judge(web.clone(), answer).await.map_err(|reason| way.shown(&reason))?;
    let (passed, seen) = judged.map_err(|reason| {
        let reason = format!("it answered {status}{}, and {reason}", way.meaning(status));
        way.shown(&reason)
    })?;
    Ok((passed, excerpt(&way.shown(&seen), LONGEST_RESULT)))
}

/// Whether the condition holds of the answer, and what of it is worth telling. On a thread of its own: an answer may be
/// large, and the path into it is somebody else's code.
async fn judge(web: WebPlan, answer: Answer) -> Result<Result<(bool, String), String>, String> {
    let late = || format!("its answer was not judged within {} s", JUDGING.as_secs());
    let judging = async {
        // It is never closed.
        let permit = JUDGES.acquire().await.map_err(|_| late())?;
        let judged = tokio::task::spawn_blocking(move || {
            let judged = judged(&web, &answer);
            drop(permit);
            judged
        });
        judged.await.map_err(|_| "its answer cannot be judged".to_owned())
    };
    tokio::time::timeout(JUDGING, judging).await.unwrap_or_else(|_| Err(late()))
}

fn judged(web: &WebPlan, answer: &Answer) -> Result<(bool, String), String> {
    let status = json!(answer.status);
    let result = result(web, answer);
    let mut variables = vec![("status", &status)];
    variables.extend(result.as_ref().ok().map(|result| ("result", result)));
    let holds = web.condition.holds(&variables).map_err(|why| match &result {
        Ok(_) => format!("the condition cannot be evaluated: {why}"),
        Err(reason) => format!("the condition cannot be evaluated: {why}; {reason}"),
    })?;
    let shown = match &result {
        Ok(Value::String(text)) => format!(", result {text:?}"),
        Ok(value) if web.path.is_some() || !(value.is_object() || value.is_array()) => {
            format!(", result {value}")
        }
        _ => String::new(),
    };
    Ok((holds, format!("status {}{shown}", answer.status)))
}

fn result(web: &WebPlan, answer: &Answer) -> Result<Value, String> {
    let value: Value =
        serde_json::from_slice(&answer.body).map_err(|_| "the answer is no JSON".to_owned())?;
    match &web.path {
        Some(path) => path.select(&value),
        None => Ok(value),
    }
}
