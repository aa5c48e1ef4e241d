//! The metrics sources: they fetch samples and nothing else.
//!
//! Purpose: one [`Sample`] per look, from the pods themselves or from a Prometheus server; one
//! [`CheckRun`](super::CheckRun) per run of a check that asks an address.
//! May touch: `cluster::http`, Secrets through [`Secrets`]. Must never: judge numbers, remember anything, show a
//! secret.

mod access;
mod pods;
mod prometheus;
mod reading;
mod secrets;
#[cfg(test)]
mod tests;
mod text;
mod web;

use std::net::IpAddr;

use jiff::Timestamp;

use super::fold::is_warm;
use super::{Plan, PodSample, Sample, Side, Source};
use crate::cluster::http::Http;

pub use secrets::{SecretError, SecretValue, Secrets};
pub use text::{Form, MOST_SERIES, PageError, Series, parse_page};
pub use web::{LONGEST_RUN, check};

/// Pods that are measured when each costs a request of its own: enough of both versions for any comparison.
const SCRAPED: Caps = Caps { canary: 50, stable: 20 };
/// Pods that are measured when a server is asked for all at once.
const QUERIED: Caps = Caps { canary: 100, stable: 100 };

struct Caps {
    canary: usize,
    stable: usize,
}

/// The pods to measure.
pub type Targets = Vec<Target>;

/// A pod to measure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its uid.
    pub uid: String,
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its address, once it has one.
    pub ip: Option<IpAddr>,
    /// Which version it runs.
    pub side: Side,
    /// When it began to serve.
    pub started_at: Timestamp,
}

/// What a source says of one pod: a reading per guard, or why there is none.
type Answer = (Vec<Option<super::Reading>>, Option<String>);

/// Measures the pods. Of many pods a part is measured, always the same one: those with the smallest uids.
///
/// Pods that are still warming up are not asked. When all warm pods of one version fail, there is no data at all.
/// Secrets are read only when there is somebody to ask.
pub async fn sample(
    http: &Http,
    secrets: &dyn Secrets,
    plan: &Plan,
    targets: &[Target],
    now: Timestamp,
) -> Sample {
    let outcome = match &plan.source {
        _ if !plan.measures() => Ok(Vec::new()),
        None => Ok(Vec::new()),
        Some(Source::Pods(source)) => {
            let targets = chosen(targets, &SCRAPED);
            let (warm, cold) = parted(&targets, plan, now);
            match pods::scrape(http, secrets, plan, source, &warm, now).await {
                Ok(answers) => gathered(plan, &warm, answers, &cold),
                Err(reason) => Err(reason),
            }
        }
        Some(Source::Prometheus(source)) => {
            let targets = chosen(targets, &QUERIED);
            let (warm, cold) = parted(&targets, plan, now);
            match prometheus::query(http, secrets, plan, source, &warm, now).await {
                Ok(answers) => gathered(plan, &warm, answers, &cold),
                Err(reason) => Err(reason),
            }
        }
    };
    Sample { at: now, outcome }
}

fn chosen<'a>(targets: &'a [Target], caps: &Caps) -> Vec<&'a Target> {
    let mut all: Vec<&Target> = targets.iter().collect();
    all.sort_by(|a, b| (a.side, &a.uid).cmp(&(b.side, &b.uid)));
    all.dedup_by(|a, b| a.uid == b.uid);
    let (mut canary, mut stable) = (0, 0);
    all.retain(|target| {
        let (count, cap) = match target.side {
            Side::Canary => (&mut canary, caps.canary),
            Side::Stable => (&mut stable, caps.stable),
        };
        *count += 1;
        *count <= cap
    });
    all
}

/// The pods that are old enough to be measured, and the others.
fn parted<'a>(targets: &[&'a Target], plan: &Plan, now: Timestamp) -> (Vec<&'a Target>, Vec<&'a Target>) {
    targets.iter().partition(|target| is_warm(target.started_at, now, plan))
}

fn gathered(
    plan: &Plan,
    warm: &[&Target],
    answers: Vec<Answer>,
    cold: &[&Target],
) -> Result<Vec<PodSample>, String> {
    for side in [Side::Canary, Side::Stable] {
        let of_side = warm.iter().zip(&answers).filter(|(target, _)| target.side == side);
        let failed = of_side.clone().all(|(_, (readings, _))| readings.iter().all(Option::is_none));
        let problem = of_side.clone().find_map(|(_, (_, problem))| problem.as_deref());
        if let (true, Some(problem)) = (failed, problem) {
            return Err(format!("no {side} pod could be measured: {problem}"));
        }
    }
    let measured = warm.iter().zip(answers).map(|(target, (guards, problem))| pod(target, guards, problem));
    let waiting = cold.iter().map(|target| pod(target, vec![None; plan.guards.len()], None));
    Ok(measured.chain(waiting).collect())
}

fn pod(target: &Target, guards: Vec<Option<super::Reading>>, problem: Option<String>) -> PodSample {
    PodSample {
        uid: target.uid.clone(),
        name: target.name.clone(),
        side: target.side,
        started_at: target.started_at,
        guards,
        problem,
    }
}
