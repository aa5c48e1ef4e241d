//! The writes of one pass, one after the other, beside the main loop.

use std::sync::Arc;
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use kube::Client;
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use super::Metrics;
use super::candidate::Ticket;
use super::core::{Report, judge};
use super::lease::{Lease, LeaseError};
use super::queue::Ended;
use crate::act::{self, ActError, Fence, Outcome};
use crate::clock::now;
use crate::decide::Effect;
use crate::observe::Key;

/// The writes of one pass.
pub(super) struct Writes {
    pub client: Client,
    pub lease: Arc<Lease>,
    /// Taken when the pass was decided.
    pub ticket: Ticket,
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
        let mut ticket = self.ticket;
        for effect in effects {
            let fence = match self.hold_lease(&mut ticket).await {
                Ok(fence) => fence,
                Err(ended) => return ended,
            };
            if let Err(ended) = self.one(&effect, &fence).await {
                return ended;
            }
        }
        Ended::Written
    }

    async fn hold_lease(&self, ticket: &mut Ticket) -> Result<Fence, Ended> {
        match self.lease.ensure(ticket).await {
            Ok(fence) => Ok(fence),
            Err(LeaseError::Held { holder, after }) => {
                debug!(%holder, "another process writes");
                let after = SignedDuration::try_from(after).unwrap_or(SignedDuration::MAX);
                Err(Ended::NotLeader(now().checked_add(after).unwrap_or(Timestamp::MAX)))
            }
            Err(LeaseError::Closed) => Err(Ended::Stale),
            Err(LeaseError::Lost) => {
                if ticket.is_bound() {
                    self.lost("the rest of a pass is dropped");
                }
                Err(Ended::Stale)
            }
            Err(error) => {
                warn!(error = %chain(&error), "the lease cannot be held; nothing is written");
                Err(Ended::Failed)
            }
        }
    }

    fn lost(&self, what: &str) {
        self.metrics.lost();
        let (namespace, rollout) = (&self.key.0, &self.key.1);
        warn!(%namespace, %rollout, release = %self.release, "the lease was lost: {what}");
    }

    /// Sends one effect, and renews the lease as long as that takes.
    async fn send(&self, effect: &Effect, fence: &Fence) -> Result<Outcome, ActError> {
        let send = act::send(&self.client, effect, now(), &self.instance, fence);
        let mut send = std::pin::pin!(send);
        tokio::select! {
            biased;
            answer = &mut send => answer,
            // Nothing may be written any more, which ends the other one as well.
            () = self.lease.clone().keep(fence.epoch()) => send.await,
        }
    }

    async fn one(&self, effect: &Effect, fence: &Fence) -> Result<(), Ended> {
        let begun = Instant::now();
        let request = act::request(effect, now(), &self.instance);
        let (namespace, rollout) = (&self.key.0, &self.key.1);
        let answer = self.send(effect, fence).await;
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
            Err(error) if error.is_lost() => {
                self.metrics.write(effect.name(), "failed", seconds);
                self.lost(if matches!(error, ActError::Fenced) {
                    "nothing is sent"
                } else {
                    "a write was given up"
                });
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
            Effect::SplitRoute { marks, .. } | Effect::PinService { marks, .. }
                if marks.stopped.is_some() =>
            {
                let reaction = now().duration_since(self.since).as_secs_f64();
                self.metrics.reaction(reaction);
                let reason = marks.stopped.as_deref().unwrap_or_default();
                warn!(%namespace, %rollout, %release, %reason, reaction_seconds = reaction, "the canary's traffic is gone");
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
