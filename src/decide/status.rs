//! The working copy of a Release's status, and when it is worth a write.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::effect::{Effect, Expect, Subject};
use super::observation::Memory;
use super::pass::{Pass, identity};
use super::reason::Reason;
use crate::api::release::{StepStatus, TimelineEntry};
use crate::api::{Release, ReleasePhase, ReleaseStatus};

/// Most entries of a timeline; the oldest after the first go first.
const TIMELINE: usize = 60;
/// Evidence alone is written this often at most.
const EVIDENCE_EVERY: SignedDuration = SignedDuration::from_secs(30);
/// A new reason to hold, or a clock that stops and goes on, is written this often at most.
const HOLD_EVERY: SignedDuration = SignedDuration::from_secs(10);

/// A Release's status while it is worked on.
#[derive(Clone, Debug)]
pub(super) struct Working {
    pub status: ReleaseStatus,
    /// What is written, or will be by this pass.
    written: Option<ReleaseStatus>,
    written_at: Option<Timestamp>,
    recorded: bool,
}

impl Working {
    /// The latest that is known: what this process remembers, if it goes on from what is written, else that.
    pub fn load(release: &Release, memory: Option<&Memory>) -> Self {
        let uid = release.metadata.uid.as_deref().unwrap_or_default();
        let remembered = memory.filter(|m| m.release_uid == uid && m.written == release.status);
        let status =
            remembered.map(|m| m.status.clone()).or_else(|| release.status.clone()).unwrap_or_default();
        Self {
            status,
            written: release.status.clone(),
            written_at: remembered.and_then(|m| m.written_at),
            recorded: false,
        }
    }

    /// Changes the phase and tells why.
    pub fn enter(&mut self, phase: ReleasePhase, reason: &Reason, at: MicroTime) {
        self.status.phase = phase;
        self.explain(reason);
        self.log(reason, at);
    }

    /// Sets reason and message.
    pub fn explain(&mut self, reason: &Reason) {
        self.status.reason = Some(reason.code().to_owned());
        self.status.message = Some(reason.to_string());
    }

    /// Adds to the timeline.
    pub fn log(&mut self, reason: &Reason, at: MicroTime) {
        let timeline = &mut self.status.timeline;
        if timeline.len() >= TIMELINE {
            timeline.remove(1);
        }
        timeline.push(TimelineEntry {
            at,
            reason: reason.code().to_owned(),
            step: Some(self.status.step.index + 1),
            message: reason.to_string(),
        });
    }

    /// Seconds that this step's clock has run.
    pub fn elapsed(&self, now: Timestamp) -> f64 {
        let step = &self.status.step;
        let running =
            step.running_since.as_ref().map_or(0.0, |t| now.duration_since(t.0).as_secs_f64().max(0.0));
        step.elapsed_seconds + running
    }

    /// Starts or stops the step's clock.
    pub fn run_clock(&mut self, run: bool, now: Timestamp) {
        if run && self.status.step.running_since.is_none() {
            self.status.step.running_since = Some(MicroTime(now));
        } else if !run && self.status.step.running_since.is_some() {
            self.status.step.elapsed_seconds = self.elapsed(now);
            self.status.step.running_since = None;
        }
    }

    /// Enters a step with a fresh clock.
    pub fn enter_step(&mut self, index: u32, at: MicroTime) {
        self.status.step = StepStatus { index, entered_at: Some(at), ..StepStatus::default() };
    }

    /// Writes the status in this pass.
    pub fn record(&mut self, pass: &mut Pass<'_>, release: &Release) {
        let written = if self.recorded { self.written.as_ref() } else { release.status.as_ref() };
        if written == Some(&self.status) {
            return;
        }
        self.recorded = true;
        self.written = Some(self.status.clone());
        self.written_at = Some(pass.now);
        pass.push(Effect::RecordRelease {
            release: identity(&release.metadata),
            status: Box::new(self.status.clone()),
        });
    }

    /// Asks first whether the Release is still what was seen of it, unless this pass has written it, which asks too.
    pub fn confirm(&self, pass: &mut Pass<'_>, release: &Release) {
        if !self.recorded {
            pass.confirm(Subject::Release, identity(&release.metadata), Expect::Unchanged);
        }
    }

    /// Writes the status if what changed is worth it, now or at the time that is asked for.
    pub fn record_if_due(&mut self, pass: &mut Pass<'_>, release: &Release) {
        if self.recorded {
            return;
        }
        let written = release.status.clone().unwrap_or_default();
        let spacing = match urgency(&written, &self.status) {
            Urgency::None => return,
            Urgency::Now => SignedDuration::ZERO,
            Urgency::Hold => HOLD_EVERY,
            Urgency::Evidence => EVIDENCE_EVERY,
        };
        let due = self.written_at.map_or(pass.now, |t| t + spacing);
        if due <= pass.now {
            self.record(pass, release);
        } else {
            pass.wake(due);
        }
    }

    /// What the process remembers until the next pass.
    pub fn remember(self, release: &Release) -> Memory {
        Memory {
            release_uid: release.metadata.uid.clone().unwrap_or_default(),
            status: self.status,
            written: self.written,
            written_at: self.written_at,
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Urgency {
    None,
    Evidence,
    Hold,
    Now,
}

fn urgency(written: &ReleaseStatus, wanted: &ReleaseStatus) -> Urgency {
    let (a, b) = (&written.step, &wanted.step);
    // The first start of a step's clock counts at once: it must survive a restart.
    let clock_started = a.running_since.is_none() && b.running_since.is_some() && b.elapsed_seconds == 0.0;
    let pods = |s: &ReleaseStatus| s.weight.as_ref().map(|w| w.canary_pods);
    let share = |s: &ReleaseStatus| s.traffic.as_ref().map(|t| t.weight);
    // A check that failed must not be forgotten: unlike a counter nobody else has it.
    let failures = |s: &ReleaseStatus| {
        let guards = s.analysis.iter().flat_map(|analysis| &analysis.guards);
        guards.filter_map(|guard| guard.checks.as_ref()).map(|checks| checks.failed).sum::<u32>()
    };
    if written.phase != wanted.phase
        || a.index != b.index
        || a.approved != b.approved
        || clock_started
        || written.paused != wanted.paused
        || written.commands.len() != wanted.commands.len()
        || written.timeline != wanted.timeline
        || pods(written) != pods(wanted)
        || share(written) != share(wanted)
        || failures(written) != failures(wanted)
    {
        Urgency::Now
    } else if written.reason != wanted.reason
        || a.running_since != b.running_since
        || written.traffic != wanted.traffic
    {
        Urgency::Hold
    } else if written.analysis != wanted.analysis {
        Urgency::Evidence
    } else {
        Urgency::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{ReleasePhase, ReleaseSpec};

    fn release(phase: ReleasePhase) -> Release {
        let spec: ReleaseSpec = serde_json::from_value(serde_json::json!({
            "rollout": "web", "workload": {"kind": "Deployment", "name": "web", "uid": "w"}, "replicas": 1,
            "from": {"revision": "a", "replicaSet": "web-a"}, "to": {"revision": "b", "replicaSet": "web-b"},
            "attempt": 1, "steps": [{"weight": 50, "minDuration": "1s", "maxDuration": "1s"}],
            "rollback": {"automatic": true, "restoreTemplate": false}, "progressDeadline": "1s", "plannedLooks": 12,
        }))
        .expect("valid");
        let mut release = Release::new("web-b", spec);
        release.status = Some(ReleaseStatus { phase, ..ReleaseStatus::default() });
        release
    }

    #[test]
    fn what_another_process_wrote_counts_more_than_what_is_remembered() {
        let seen = release(ReleasePhase::Progressing);
        let mut working = Working::load(&seen, None);
        working.status.progress = Some("1/1".into());
        let memory = working.remember(&seen);
        let same = Working::load(&seen, Some(&memory));
        assert_eq!(same.status.progress.as_deref(), Some("1/1"));
        let rolled_back = release(ReleasePhase::RollingBack);
        let other = Working::load(&rolled_back, Some(&memory));
        assert_eq!(other.status.phase, ReleasePhase::RollingBack);
    }
}
