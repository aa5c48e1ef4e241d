//! The writes of one pass, one after the other, beside the main loop.

use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use kube::Client;
use tokio::sync::{Mutex, mpsc};
use tracing::{debug, info, warn};

use super::Metrics;
use super::core::{Report, judge};
use super::lease::{Lease, LeaseError};
use super::queue::Ended;
use crate::act;
use crate::clock::now;
use crate::decide::Effect;
use crate::observe::Key;

/// The writes of one pass.
pub(super) struct Writes {
    pub client: Client,
    pub lease: Arc<Mutex<Lease>>,
    pub metrics: Arc<Metrics>,
    pub instance: Arc<str>,
    pub reports: mpsc::Sender<Report>,
    pub key: Key,
    pub release: String,
    pub since: Timestamp,
}

impl Writes {
    pub async fn carry_out(self, effects: Vec<Effect>) {
        let ended = self.all(effects).await;
        let key = self.key.clone();
        // The main loop is gone only when the process ends.
        drop(self.reports.send(Report::Ended { key, ended }).await);
    }

    async fn all(&self, effects: Vec<Effect>) -> Ended {
        for effect in effects {
            if let Err(ended) = self.hold_lease().await {
                return ended;
            }
            if let Err(ended) = self.one(&effect).await {
                return ended;
            }
        }
        Ended::Written
    }

    async fn hold_lease(&self) -> Result<(), Ended> {
        let at = now();
        let held = self.lease.lock().await.ensure(&self.client, at).await;
        self.metrics.leader(held.is_ok());
        match held {
            Ok(()) => Ok(()),
            Err(LeaseError::Held { holder, until }) => {
                info!(%holder, "another process writes");
                Err(Ended::NotLeader(until))
            }
            Err(error) => {
                warn!(error = %chain(&error), "the lease cannot be held; nothing is written");
                Err(Ended::Failed)
            }
        }
    }

    async fn one(&self, effect: &Effect) -> Result<(), Ended> {
        let begun = Instant::now();
        let request = act::request(effect, now(), &self.instance);
        let (namespace, rollout) = (&self.key.0, &self.key.1);
        let answer = act::send(&self.client, effect, now(), &self.instance).await;
        let seconds = begun.elapsed().as_secs_f64();
        match &answer {
            Ok(_) => {
                self.metrics.write(effect.name(), "done", seconds);
                self.note(effect);
            }
            Err(error) if error.is_conflict() => {
                self.metrics.write(effect.name(), "conflict", seconds);
                debug!(%namespace, %rollout, effect = effect.name(), error = %chain(error), "out of date; deciding anew");
            }
            Err(error) => {
                self.metrics.write(effect.name(), "failed", seconds);
                warn!(%namespace, %rollout, release = %self.release, effect = effect.name(), error = %chain(error), "a write failed");
            }
        }
        let (report, ended) = judge(effect, request.resource, answer);
        if let Some(report) = report {
            // The main loop is gone only when the process ends.
            drop(self.reports.send(report).await);
        }
        ended
    }

    /// Logs what was written; how fast, when it took the weight away.
    fn note(&self, effect: &Effect) {
        let (namespace, rollout, release) = (&self.key.0, &self.key.1, &self.release);
        match effect {
            Effect::StopCanary { reason, .. } => {
                let reaction = now().duration_since(self.since).as_secs_f64();
                self.metrics.reaction(reaction);
                warn!(%namespace, %rollout, %release, %reason, reaction_seconds = reaction, "the canary's weight is gone");
            }
            Effect::Announce(a) => {
                info!(%namespace, %rollout, %release, reason = a.reason.code(), "{}", a.reason);
            }
            other => debug!(%namespace, %rollout, %release, effect = other.name(), "written"),
        }
    }
}

/// An error with all its causes.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
