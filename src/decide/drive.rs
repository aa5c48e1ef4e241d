//! A running release: one step after the other, and the way back the moment something fails.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::caught;
use super::crash::{self, Canary, Health};
use super::observation::{Pod, ReplicaSet, Workload};
use super::pass::Pass;
use super::plan::secs;
use super::reason::{Passed, Reason};
use super::status::Working;
use super::traffic::{Stand, Traffic};
use super::unwind::{past_brake, read_mark, unwind};
use super::{commands, handover};
use crate::analysis::{self, GuardPlan, Plan, Rule, Verdict, explain, finding_text};
use crate::api::analysis::Inconclusive;
use crate::api::evidence::AnalysisState;
use crate::api::release::PlannedStep;
use crate::api::rollout::RolloutPhase;
use crate::api::{Release, ReleasePhase};

/// Decides for a Rollout with a running release.
pub(super) fn decide<'a>(pass: &mut Pass<'a>, release: &'a Release) {
    let working = Working::load(release, pass.obs.memory.as_ref());
    let canary = canary_of(pass, release);
    let workload = pass.workload().filter(|w| w.id.uid == release.spec.workload.uid);
    pass.status.release.clone_from(&release.metadata.name);

    if let Some(reason) = over(pass, release, &working, canary, workload) {
        unwind(pass, release, working, canary, workload, reason);
        return;
    }
    // `over` answers for a missing workload; this only satisfies the type.
    let Some(workload) = workload else { return };
    let name = release.metadata.name.clone().unwrap_or_default();
    pass.status.phase = Some(RolloutPhase::Releasing);
    pass.status.message = Some(if release.spec.unbraked {
        format!("release {name} watches a change that went past the brake")
    } else {
        format!("release {name} is on its way")
    });
    let mut run = Run { release, workload, canary, working };
    if let Some(reason) = run.go(pass) {
        unwind(pass, release, run.working, canary, Some(workload), reason);
        return;
    }
    if pass.obs.rollout.status.as_ref().and_then(|s| s.phase) != Some(RolloutPhase::Releasing) {
        pass.record_rollout();
    }
    run.working.record_if_due(pass, release);
    pass.memory = Some(run.working.remember(release));
}

/// The ReplicaSet of the release's canary, whoever controls it now.
fn canary_of<'a>(pass: &Pass<'a>, release: &Release) -> Option<&'a ReplicaSet> {
    if release.spec.unbraked {
        return caught::canary(pass, release);
    }
    let name = release.metadata.name.as_deref();
    pass.obs
        .replica_sets
        .iter()
        .find(|rs| rs.id.name == release.spec.to.replica_set && rs.release.as_deref() == name)
}

/// Whether the release is over for a reason that no step can change.
fn over(
    pass: &Pass<'_>,
    release: &Release,
    working: &Working,
    canary: Option<&ReplicaSet>,
    workload: Option<&Workload>,
) -> Option<Reason> {
    if working.status.phase == ReleasePhase::RollingBack {
        return Some(Reason::Recorded {
            code: working.status.reason.clone().unwrap_or_default(),
            message: working.status.message.clone().unwrap_or_default(),
        });
    }
    if let Some(mark) = canary.filter(|_| !release.spec.unbraked).and_then(|rs| rs.stopped.as_deref()) {
        return Some(read_mark(mark));
    }
    if let Some(mark) = Traffic::of(pass.obs, release).and_then(|traffic| traffic.stopped()) {
        return Some(read_mark(mark));
    }
    let Some(workload) = workload else { return Some(Reason::WorkloadDeleted) };
    if release.spec.unbraked {
        return caught::over(pass, release, working, canary, workload);
    }
    if let Some(rs) = canary.filter(|rs| !pass.is_ours(rs)) {
        // It was let go: what serves now cannot be called back, so the release ends as what it is.
        let reverted = workload.revision == release.spec.from.revision;
        return if workload.revision == release.spec.to.revision
            || handover::serves_alone(pass, rs, workload)
            // It has all the traffic, and the controller may have left the old version fewer pods than that takes.
            || (release.spec.traffic.is_some() && !reverted)
        {
            None
        } else if reverted {
            Some(Reason::RevertedByUser)
        } else {
            Some(Reason::SupersededBy { revision: workload.revision.clone() })
        };
    }
    if pass.obs.rollout.metadata.deletion_timestamp.is_some() {
        return Some(Reason::RolloutDeleted);
    }
    if workload.revision == release.spec.from.revision {
        return Some(Reason::RevertedByUser);
    }
    if workload.revision != release.spec.to.revision {
        return Some(Reason::SupersededBy { revision: workload.revision.clone() });
    }
    if !past_brake(pass, release, workload).is_empty() {
        let detail = "the workload's own controller made pods of the new revision during the release";
        return Some(Reason::WentPastBrake { detail: detail.to_owned() });
    }
    None
}

/// One pass over a running release.
pub(super) struct Run<'a> {
    pub release: &'a Release,
    pub workload: &'a Workload,
    pub canary: Option<&'a ReplicaSet>,
    pub working: Working,
}

impl<'a> Run<'a> {
    /// Goes on with the release; a reason sends it back.
    fn go(&mut self, pass: &mut Pass<'a>) -> Option<Reason> {
        let adopted = self.canary.is_some_and(|rs| !pass.is_ours(rs));
        if adopted && !self.caught() {
            handover::finish(self, pass);
            return None;
        }
        let wishes = commands::take(pass, self.release, &mut self.working);
        if wishes.abort.is_some() {
            return wishes.abort;
        }
        if !self.caught() || !self.passed_all() {
            pass.hold(self.workload);
        }
        pass.hold_floors(self.release.spec.replicas);
        if self.working.status.phase == ReleasePhase::Pending {
            self.begin(pass);
        }
        self.skip_steps_of_an_empty_workload(pass);
        self.fold(pass);
        self.fold_checks(pass);
        let verdict = self.verdict();
        let health = self.health(pass);
        self.watch_stable(pass);
        let state = self.working.status.analysis.as_ref();
        let failure = failure(&health, verdict.as_ref(), state, || self.plan());
        // A person let a change go that fails: it is theirs.
        let overruled = self.passed_all() && self.working.status.step.approved;
        if let Some(cause) = failure.filter(|_| !overruled) {
            if self.release.spec.rollback.automatic {
                return Some(cause);
            }
            if wishes.promote.is_none() {
                self.working.run_clock(false, pass.now);
                self.working.status.phase = ReleasePhase::Paused;
                if self.caught() && self.passed_all() {
                    pass.hold(self.workload);
                }
                self.hold(pass, Reason::RollbackWanted { cause: Box::new(cause) });
                self.shift(pass, true);
                self.scale(pass);
                self.ask_for_sample(pass);
                return None;
            }
        }
        let stand = self.shift(pass, false);
        let there = stand.as_ref().is_none_or(|stand| *stand == Stand::There);
        if let Some(by) = wishes.promote {
            self.pass_step(pass, by, wishes.full);
        } else if let Some(reason) = self.gate(pass, verdict.as_ref(), &health, stand) {
            return Some(reason);
        }
        self.scale(pass);
        self.ask_for_sample(pass);
        if self.passed_all() && self.caught() {
            caught::go_on(self, pass);
        } else if self.passed_all() && there && pass.sees() {
            handover::prepare(self, pass);
        }
        None
    }

    /// Whether the change went past the brake: the canary is the workload's own ReplicaSet.
    pub fn caught(&self) -> bool {
        self.release.spec.unbraked
    }

    fn begin(&mut self, pass: &mut Pass<'a>) {
        self.working.status.started_at = Some(pass.at());
        self.working.enter_step(0, pass.at());
        if self.caught() {
            let reason = caught::caught(pass, self.workload, self.canary);
            self.working.enter(ReleasePhase::Progressing, &reason, pass.at());
            self.weigh(pass);
            self.working.record(pass, self.release);
            pass.announce(Some(self.release), "ReleaseStarted", true, "Caught", reason);
            return;
        }
        let reason = Reason::ReleaseStarted {
            from: self.release.spec.from.revision.clone(),
            to: self.release.spec.to.revision.clone(),
        };
        self.working.enter(ReleasePhase::Progressing, &reason, pass.at());
        self.working.explain(&Reason::Starting);
    }

    pub fn index(&self) -> usize {
        usize::try_from(self.working.status.step.index).unwrap_or(usize::MAX)
    }

    pub fn passed_all(&self) -> bool {
        self.index() >= self.release.spec.steps.len()
    }

    pub fn pods<'p>(&self, pass: &Pass<'p>) -> Vec<&'p Pod> {
        let uid = self.canary.map(|rs| rs.id.uid.as_str());
        pass.obs.pods.iter().filter(|p| Some(p.owner_uid.as_str()) == uid).collect()
    }

    pub fn stable_pods<'p>(&self, pass: &Pass<'p>) -> Vec<&'p Pod> {
        let canary = self.canary.map(|rs| rs.id.uid.as_str());
        pass.obs.pods.iter().filter(|p| Some(p.owner_uid.as_str()) != canary).collect()
    }

    /// Ready canary pods; with `minReadySeconds`, those that are available.
    pub fn ready(&self, pass: &Pass<'_>) -> i32 {
        let ready = count(&self.pods(pass));
        match self.canary {
            Some(rs) if self.workload.min_ready_seconds > 0 => ready.min(rs.available),
            Some(_) => ready,
            None => 0,
        }
    }

    /// Nothing serves, so nothing can be tried and nothing can be hurt.
    fn skip_steps_of_an_empty_workload(&mut self, pass: &mut Pass<'_>) {
        if self.workload.replicas == 0 && !self.passed_all() && !self.working.status.paused {
            self.pass_step(pass, Passed::NothingServes, true);
        }
    }

    pub(super) fn plan(&self) -> Option<Plan> {
        let written = self.release.spec.analysis.as_ref().filter(|a| !a.guards.is_empty())?;
        // It resolved when the release started, and it is immutable since.
        let mut plan = Plan::resolve(written, self.release.spec.planned_looks).ok()?;
        let routed = self.working.status.traffic.as_ref().filter(|_| self.release.spec.traffic.is_some());
        plan.share = routed.map(|traffic| f64::from(traffic.weight) / 100.0);
        Some(plan)
    }

    fn fold(&mut self, pass: &Pass<'_>) {
        if let (Some(plan), Some(sample)) = (self.plan(), &pass.obs.sample) {
            let state = self.working.status.analysis.get_or_insert_default();
            *state = analysis::fold(state, &plan, sample);
        }
    }

    fn verdict(&self) -> Option<Verdict> {
        let plan = self.plan()?;
        let state = self.working.status.analysis.clone().unwrap_or_default();
        Some(analysis::verdict(&state, &plan))
    }

    fn health(&self, pass: &mut Pass<'_>) -> Health {
        let sees = pass.sees();
        let wanted = self.canary.map_or(0, |rs| rs.replicas);
        let written = self.release.spec.analysis.as_ref().and_then(|a| a.max_restarts);
        crash::health(
            &Canary {
                replica_set: self.canary,
                pods: self.pods(pass),
                stable: self.stable_pods(pass),
                wanted,
                max_restarts: written.unwrap_or(i32::from(wanted > 10)),
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "the CRD's durations are far below 2^53 s"
                )]
                deadline_seconds: secs(&self.release.spec.progress_deadline) as i64,
                since: self.working.status.step.entered_at.as_ref().map(|t| t.0),
                longest_stable_unready: self.working.status.longest_stable_unready_seconds,
                sees,
            },
            pass.now,
        )
    }

    /// Remembers how long stable pods were unready, so that the canary is not judged harder.
    fn watch_stable(&mut self, pass: &Pass<'_>) {
        let longest = &mut self.working.status.longest_stable_unready_seconds;
        for seconds in stable_unready(pass, self.canary) {
            *longest = longest.max(seconds);
        }
    }

    /// Whether the step may be left; a reason sends the release back.
    fn gate(
        &mut self,
        pass: &mut Pass<'_>,
        verdict: Option<&Verdict>,
        health: &Health,
        stand: Option<Stand>,
    ) -> Option<Reason> {
        let (wanted, ready) = (self.wanted(), self.ready(pass));
        let scaled = self.canary.is_some_and(|rs| rs.replicas == wanted);
        let shifting = match stand {
            Some(Stand::Waiting(detail)) => Some(detail),
            Some(Stand::There) | None => None,
        };
        let reached = scaled && ready >= wanted && shifting.is_none();
        let now = pass.now;
        if let Health::Fine(Some(at)) | Health::Hold(_, Some(at)) = health {
            pass.wake(*at);
        }
        let step = self.release.spec.steps.get(self.index()).cloned();
        let compares = self.compares(step.as_ref());
        let no_data = match verdict {
            Some(Verdict::NoData { since, reason }) => Some((*since, reason.clone())),
            _ => None,
        };
        if let Some((since, detail)) = &no_data
            && let Some(reason) = self.no_data_bound(pass, *since, detail)
        {
            return Some(reason);
        }
        let step = step?;
        let number = self.index() + 1;
        if reached {
            self.believe_pods(pass, wanted);
        }
        self.working.run_clock(reached && !self.working.status.paused && no_data.is_none(), now);
        let (min, max) = (secs(&step.min_duration), secs(&step.max_duration));
        let elapsed = self.working.elapsed(now);
        if self.working.status.step.running_since.is_some() {
            for bound in [min, max] {
                if elapsed < bound {
                    pass.wake(now + after(bound - elapsed));
                }
            }
        }
        let waits_for_person = step.pause && !self.working.status.step.approved;
        let unproven = self.unproven_guards(compares);
        let reason = if let Health::Hold(reason, _) = health {
            reason.clone()
        } else if self.working.status.paused {
            Reason::PausedByUser
        } else if !scaled || ready < wanted {
            Reason::ScalingUp { ready, wanted }
        } else if let Some(detail) = shifting {
            Reason::Shifting { detail }
        } else if let Some((_, detail)) = no_data {
            Reason::NoData { detail, held: true }
        } else if let Some(Verdict::Skewed { canary, all, expected }) = verdict {
            Reason::Skewed { canary: *canary, all: *all, expected: *expected }
        } else if elapsed >= min && waits_for_person {
            Reason::AwaitingApproval { step: number }
        } else if !pass.sees() && elapsed >= min {
            Reason::OutOfSight
        } else if !unproven.is_empty() {
            match self.unproven(elapsed >= max && elapsed >= min, unproven) {
                Ok(reason) => reason,
                Err(Outcome::Back(reason)) => return Some(reason),
                Err(Outcome::On(by)) => {
                    self.pass_step(pass, by, false);
                    return None;
                }
            }
        } else if elapsed < min {
            #[expect(clippy::cast_possible_truncation, reason = "shown to people in whole seconds")]
            let seconds = min.ceil() as i64;
            if step.bake { Reason::Baking { seconds } } else { Reason::StepTime { min_seconds: seconds } }
        } else {
            let by = if verdict.is_some() && compares { Passed::Proof } else { Passed::Time };
            self.pass_step(pass, by, false);
            return None;
        };
        let waits = matches!(reason, Reason::PausedByUser | Reason::AwaitingApproval { .. });
        self.working.status.phase = match reason {
            _ if waits => ReleasePhase::Paused,
            _ if step.bake && reached => ReleasePhase::Baking,
            _ => ReleasePhase::Progressing,
        };
        self.hold(pass, reason);
        None
    }

    /// Whether a step wants proof. Without users there is nothing to prove; with all of them on one side the canary is
    /// held against what stable did before, and that proves it where no step compared them.
    fn compares(&self, step: Option<&PlannedStep>) -> bool {
        let shares = |step: &PlannedStep| (1..100).contains(&step.weight);
        let any = self.release.spec.steps.iter().any(shares);
        step.is_none_or(|step| shares(step) || (step.bake && !any))
    }

    /// Guards that are not proven yet and must be: checks in each step, those that compare in a step that compares.
    fn unproven_guards(&self, compares: bool) -> Vec<String> {
        let (Some(plan), state) = (self.plan(), self.working.status.analysis.clone().unwrap_or_default())
        else {
            return Vec::new();
        };
        let wanted = |guard: &GuardPlan| compares || guard.rule == Rule::Check;
        analysis::unproven(&state, &plan, wanted).into_iter().map(|unproven| unproven.guard).collect()
    }

    /// What happened while nobody watched is in the pods' own record: the clock has not run for longer than the
    /// wanted number of them is ready.
    fn believe_pods(&mut self, pass: &Pass<'_>, wanted: i32) {
        let Some(since) = self.working.status.step.running_since.as_ref().map(|t| t.0) else { return };
        let pods = self.pods(pass).into_iter().filter(|p| p.ready && !p.deleting);
        let mut ready: Vec<Timestamp> = pods.filter_map(|p| p.ready_changed_at).collect();
        ready.sort_unstable();
        let last = usize::try_from(wanted).ok().and_then(|n| n.checked_sub(1)).and_then(|n| ready.get(n));
        if let Some(last) = last.filter(|last| **last > since) {
            // With nanoseconds it would never be what is written.
            let last = Timestamp::from_microsecond(last.as_microsecond()).unwrap_or(*last);
            self.working.status.step.running_since = Some(MicroTime(last.min(pass.now)));
        }
    }

    fn no_data_bound(&self, pass: &mut Pass<'_>, since: Timestamp, detail: &str) -> Option<Reason> {
        let plan = self.plan()?;
        if plan.on_no_data.rollback_due(since, pass.now) {
            return Some(Reason::NoData { detail: detail.to_owned(), held: false });
        }
        if let Some(at) = plan.on_no_data.rollback_at(since) {
            pass.wake(at);
        }
        None
    }

    fn unproven(&self, late: bool, guards: Vec<String>) -> Result<Reason, Outcome> {
        if !late {
            return Ok(Reason::Collecting { guards });
        }
        let policy = self.release.spec.analysis.as_ref().and_then(|a| a.on_inconclusive).unwrap_or_default();
        match policy {
            Inconclusive::Hold => Ok(Reason::Inconclusive { guards, held: true }),
            Inconclusive::Promote => Err(Outcome::On(Passed::Policy)),
            Inconclusive::Rollback => Err(Outcome::Back(Reason::Inconclusive { guards, held: false })),
        }
    }

    /// Says why it waits; tells everyone when somebody may have to do something.
    pub fn hold(&mut self, pass: &mut Pass<'_>, reason: Reason) {
        let news = self.working.status.reason.as_deref() != Some(reason.code());
        let telling = matches!(
            reason,
            Reason::NoData { .. }
                | Reason::Skewed { .. }
                | Reason::Inconclusive { .. }
                | Reason::Unschedulable { .. }
                | Reason::AwaitingApproval { .. }
                | Reason::PausedByUser
                | Reason::RollbackWanted { .. }
                | Reason::WorkloadPaused
        );
        self.working.explain(&reason);
        if news && telling {
            self.working.log(&reason, pass.at());
            self.working.record(pass, self.release);
            let warning = !matches!(reason, Reason::PausedByUser | Reason::AwaitingApproval { .. });
            let action = format!("Step{}", self.index() + 1);
            pass.announce(Some(self.release), "Held", warning, &action, reason.clone());
        }
        pass.reasons.push(reason);
    }

    /// Leaves the step: the record first, the weight after it.
    fn pass_step(&mut self, pass: &mut Pass<'_>, by: Passed, full: bool) {
        let steps = self.release.spec.steps.len();
        let passed = Reason::StepPassed { step: self.index() + 1, by };
        self.working.log(&passed, pass.at());
        let next = if full { steps } else { self.index() + 1 };
        self.working.enter_step(u32::try_from(next).unwrap_or(u32::MAX), pass.at());
        if let Some(state) = &self.working.status.analysis {
            self.working.status.analysis = Some(analysis::start_step(state));
        }
        if next >= steps {
            let reason = if self.caught() { Reason::LetGo } else { Reason::Promoting };
            self.working.enter(ReleasePhase::Promoting, &reason, pass.at());
            self.weigh(pass);
            self.working.record(pass, self.release);
            if self.caught() {
                pass.announce(Some(self.release), "LetGo", false, "LetGo", reason);
            }
        } else {
            let started = self.step_started();
            self.working.enter(ReleasePhase::Progressing, &started, pass.at());
            self.weigh(pass);
            self.working.record(pass, self.release);
            let action = format!("Step{}", next + 1);
            pass.announce(Some(self.release), "StepStarted", false, &action, started);
        }
        pass.reasons.push(passed);
    }

    fn ask_for_sample(&self, pass: &mut Pass<'_>) {
        self.ask_for_checks(pass);
        let Some(plan) = self.plan().filter(Plan::measures) else { return };
        if self.ready(pass) == 0 {
            return;
        }
        let last = self.working.status.analysis.as_ref().and_then(|a| a.last_look_at.as_ref()).map(|t| t.0);
        let due = last.map_or(pass.now, |t| t + after(plan.interval.as_secs_f64()));
        if due <= pass.now {
            pass.sample = true;
        } else {
            pass.wake(due);
        }
    }
}

/// For how long stable pods are unready now.
fn stable_unready(pass: &Pass<'_>, canary: Option<&ReplicaSet>) -> Vec<f64> {
    let canary = canary.map(|rs| rs.id.uid.as_str());
    let stable = pass.obs.pods.iter().filter(|p| Some(p.owner_uid.as_str()) != canary);
    stable.filter_map(|p| crash::unready_seconds(p, pass.now)).collect()
}

enum Outcome {
    On(Passed),
    Back(Reason),
}

/// What sends the release back: pods that fail before metrics that do.
fn failure(
    health: &Health,
    verdict: Option<&Verdict>,
    state: Option<&AnalysisState>,
    plan: impl FnOnce() -> Option<Plan>,
) -> Option<Reason> {
    if let Health::Failed(reason) = health {
        return Some(reason.clone());
    }
    let Some(Verdict::Rollback(finding)) = verdict else { return None };
    let plan = plan()?;
    let guard = plan.guards.iter().find(|guard| guard.name == finding.guard)?;
    let known = state.and_then(|state| state.guards.iter().find(|known| known.name == guard.name)).cloned();
    let detail = finding_text(&explain(&known.unwrap_or_default(), guard, &plan));
    Some(Reason::GuardFailed { guard: finding.guard.clone(), detail })
}

pub(super) fn count(pods: &[&Pod]) -> i32 {
    i32::try_from(pods.iter().filter(|p| p.ready && !p.deleting).count()).unwrap_or(i32::MAX)
}

/// A positive number of seconds as a span, never zero.
pub(super) fn after(seconds: f64) -> SignedDuration {
    SignedDuration::from_secs_f64(seconds.clamp(0.01, 1e9))
}
