//! One release: what it changes, where it stands, the evidence, what people asked, what happened.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::guard::{GuardReport, guards};
use super::looks::{looks, starts};
use super::traffic::TrafficReport;
use super::{Report, Scene, release_text, text};
use crate::analysis::Plan;
use crate::api::release::Verb;
use crate::api::rollout::Revision;
use crate::api::strategy::Match;
use crate::api::{Release, ReleasePhase};

/// One release.
#[derive(Serialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseReport {
    /// Name of the Release.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Name of its Rollout.
    pub rollout: String,
    /// Name of the workload.
    pub workload: String,
    /// The how-many-eth attempt with this revision.
    pub attempt: i32,
    /// Whether the change went past the brake, and was caught with pods of it out.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unbraked: bool,
    /// The moment this report speaks of.
    pub at: Timestamp,
    /// What the release is doing, as in the API.
    pub phase: ReleasePhase,
    /// Whether nothing more happens.
    pub finished: bool,
    /// Why it is in this phase, as a code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why it is in this phase, in one sentence, and if it waits, for what.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The revision that served at the start.
    pub from: RevisionReport,
    /// The revision that is to serve.
    pub to: RevisionReport,
    /// Containers whose image differs.
    pub images: Vec<ImageChange>,
    /// The steps.
    pub steps: Vec<StepReport>,
    /// The present step; absent before the first and after the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<PresentStep>,
    /// Share of the new version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<WeightReport>,
    /// What carries the traffic; absent where it goes by pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traffic: Option<TrafficReport>,
    /// Whether a person paused it.
    pub paused: bool,
    /// When the Release was created.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
    /// When the first canary pod was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// From start to end, or to now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub took_seconds: Option<u64>,
    /// Looks at the metrics so far.
    pub looks: u32,
    /// When the first look was taken; the seconds of looks count from here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_look_at: Option<Timestamp>,
    /// Why there is no data now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_data: Option<NoData>,
    /// The guards with their evidence.
    pub guards: Vec<GuardReport>,
    /// What people asked for.
    pub commands: Vec<CommandEntry>,
    /// What happened, oldest first.
    pub timeline: Vec<Event>,
    /// How to go on now: what for, and the command.
    pub next: Vec<NextStep>,
}

/// A revision.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RevisionReport {
    /// Digest of the pod template.
    pub revision: String,
    /// The ReplicaSet that runs it.
    pub replica_set: String,
    /// `container=image`.
    pub images: Vec<String>,
}

impl From<&Revision> for RevisionReport {
    fn from(of: &Revision) -> Self {
        Self { revision: of.revision.clone(), replica_set: of.replica_set.clone(), images: of.images.clone() }
    }
}

/// A container whose image differs.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ImageChange {
    /// The container.
    pub container: String,
    /// The image it had; absent for a new container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// The image it gets; absent when the container goes away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// A step of the plan.
#[derive(Serialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct StepReport {
    /// From 1.
    pub number: u32,
    /// In percent; 0 while the new version is looked at without users.
    pub weight: i32,
    /// Least time.
    pub min_seconds: u64,
    /// Time after which missing proof is inconclusive.
    pub max_seconds: u64,
    /// Whether it waits for a person.
    pub pause: bool,
    /// Whether the new version has all traffic in it, and the old one stands by.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub bake: bool,
    /// Requests that all go to the new version, whatever the weight: any of these.
    #[serde(rename = "match", skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<Match>,
    /// Copies of so many percent of stable's requests go to the new version, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror: Option<i32>,
    /// Whether it is passed.
    pub passed: bool,
}

/// The step a release is at, and its clock.
#[derive(Serialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PresentStep {
    /// From 1.
    pub number: u32,
    /// Of how many.
    pub of: u32,
    /// Seconds at this weight, as the step's clock counts them.
    pub elapsed_seconds: u64,
    /// Whether the clock runs.
    pub running: bool,
    /// Whether the step waits for a person who has not come yet.
    pub waits_for_person: bool,
}

/// Share of the new version.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct WeightReport {
    /// What the step asks for, in percent.
    pub desired: i32,
    /// What whole pods make of it.
    pub reachable: i32,
    /// What is reached now.
    pub reached: i32,
    /// Canary pods wanted.
    pub canary_pods: i32,
    /// Stable pods that serve.
    pub stable_pods: i32,
}

/// The metrics source is silent.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct NoData {
    /// Since when.
    pub since: Timestamp,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What a person asked for, and the answer.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct CommandEntry {
    /// What was asked.
    pub verb: Verb,
    /// Of which step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<i32>,
    /// Of all steps.
    pub full: bool,
    /// Who.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When the operator took it up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub received_at: Option<Timestamp>,
    /// Whether it was done; absent before the operator has answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accepted: Option<bool>,
    /// The operator's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// One thing that happened.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// What, as a code.
    pub reason: String,
    /// At which step, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<u32>,
    /// In one sentence.
    pub message: String,
}

/// A way to go on.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct NextStep {
    /// What for.
    pub to: String,
    /// The command.
    pub run: String,
}

impl ReleaseReport {
    /// The report of a release at the moment `now`.
    pub fn new(release: &Release, now: Timestamp) -> Self {
        let spec = &release.spec;
        let status = release.status.clone().unwrap_or_default();
        let name = release.metadata.name.clone().unwrap_or_default();
        let namespace = release.metadata.namespace.clone().unwrap_or_default();
        let count = u32::try_from(spec.steps.len()).unwrap_or(u32::MAX);
        let finished = status.phase.is_final();
        let started_at = status.started_at.as_ref().map(|at| at.0);
        let finished_at = status.finished_at.as_ref().map(|at| at.0);
        let promoted = status.phase == ReleasePhase::Promoted;
        let steps = (1..)
            .zip(&spec.steps)
            .map(|(number, step)| StepReport {
                number,
                weight: step.weight,
                min_seconds: Duration::from(step.min_duration).as_secs(),
                max_seconds: Duration::from(step.max_duration).as_secs(),
                pause: step.pause,
                bake: step.bake,
                matches: step.matches.clone(),
                mirror: step.mirror,
                passed: promoted || number <= status.step.index,
            })
            .collect();
        let at_step = usize::try_from(status.step.index).ok().and_then(|index| spec.steps.get(index));
        let entered = status.step.entered_at.is_some() || started_at.is_some();
        let step = at_step.filter(|_| entered).map(|plan| PresentStep {
            number: status.step.index + 1,
            of: count,
            elapsed_seconds: elapsed(&status.step, finished_at.unwrap_or(now)),
            running: status.step.running_since.is_some() && !finished,
            waits_for_person: plan.pause && !status.step.approved && !finished,
        });
        let analysis = status.analysis.clone().unwrap_or_default();
        let mut report = Self {
            namespace,
            rollout: spec.rollout.clone(),
            workload: spec.workload.name.clone(),
            attempt: spec.attempt,
            unbraked: spec.unbraked,
            at: now,
            phase: status.phase,
            finished,
            reason: status.reason,
            message: status.message,
            from: (&spec.from).into(),
            to: (&spec.to).into(),
            images: image_changes(&spec.from.images, &spec.to.images),
            steps,
            step,
            weight: status.weight.map(|weight| WeightReport {
                desired: weight.desired,
                reachable: weight.reachable,
                reached: weight.reached,
                canary_pods: weight.canary_pods,
                stable_pods: weight.stable_pods,
            }),
            traffic: TrafficReport::of(release),
            paused: status.paused,
            created_at: release.metadata.creation_timestamp.as_ref().map(|at| at.0),
            started_at,
            finished_at,
            took_seconds: started_at.map(|from| text::between(from, finished_at.unwrap_or(now)).as_secs()),
            looks: analysis.looks,
            first_look_at: analysis.first_look_at.as_ref().map(|at| at.0),
            no_data: analysis
                .no_data_since
                .as_ref()
                .map(|since| NoData { since: since.0, reason: analysis.no_data_reason.clone() }),
            guards: guards(release),
            commands: commands(release),
            timeline: status
                .timeline
                .iter()
                .map(|entry| Event {
                    at: entry.at.0,
                    reason: entry.reason.clone(),
                    step: entry.step,
                    message: entry.message.clone(),
                })
                .collect(),
            next: Vec::new(),
            name,
        };
        report.next = next_steps(&report);
        report
    }

    /// The same with the recorded looks of each guard.
    pub fn in_full(release: &Release, now: Timestamp) -> Self {
        let mut report = Self::new(release, now);
        let written = release.spec.analysis.as_ref();
        let plan = written.and_then(|written| Plan::resolve(written, release.spec.planned_looks).ok());
        let state = release.status.as_ref().and_then(|status| status.analysis.as_ref());
        if let (Some(plan), Some(state)) = (plan, state) {
            let starts = starts(&report.timeline, report.first_look_at);
            for (guard, planned) in report.guards.iter_mut().zip(&plan.guards) {
                let Some(known) = state.guards.iter().find(|known| known.name == guard.name) else {
                    continue;
                };
                if guard.check.is_some() {
                    // It has runs and no looks.
                    continue;
                }
                guard.looks = looks(known, planned, &plan, &starts);
                let kept = u32::try_from(guard.looks.len()).unwrap_or(u32::MAX);
                guard.looks_gone = known.looks.saturating_sub(kept);
            }
        }
        report
    }
}

impl Report for ReleaseReport {
    const KIND: &'static str = "Release";

    fn text(&self, scene: &Scene) -> String {
        release_text::story(self, scene)
    }

    fn names(&self) -> Vec<String> {
        vec![format!("release/{}", self.name)]
    }
}

/// The seconds that a step's clock shows.
fn elapsed(step: &crate::api::release::StepStatus, now: Timestamp) -> u64 {
    let before = Duration::try_from_secs_f64(step.elapsed_seconds).unwrap_or_default();
    let since = step.running_since.as_ref().map_or(Duration::ZERO, |since| text::between(since.0, now));
    (before + since).as_secs()
}

/// Compares `container=image` lists.
pub fn image_changes(before: &[String], after: &[String]) -> Vec<ImageChange> {
    let split = |entry: &String| {
        let (container, image) = entry.split_once('=').unwrap_or(("", entry));
        (container.to_owned(), image.to_owned())
    };
    let before: Vec<_> = before.iter().map(split).collect();
    let after: Vec<_> = after.iter().map(split).collect();
    let image = |list: &[(String, String)], container: &str| {
        list.iter().find(|(name, _)| name == container).map(|(_, image)| image.clone())
    };
    let gone = before.iter().filter(|(name, _)| image(&after, name).is_none());
    after
        .iter()
        .chain(gone)
        .map(|(container, _)| ImageChange {
            container: container.clone(),
            before: image(&before, container),
            after: image(&after, container),
        })
        .filter(|change| change.before != change.after)
        .collect()
}

fn commands(release: &Release) -> Vec<CommandEntry> {
    let answers = release.status.as_ref().map(|status| status.commands.as_slice()).unwrap_or_default();
    release
        .spec
        .commands
        .iter()
        .enumerate()
        .map(|(i, command)| {
            let answer = answers.get(i);
            CommandEntry {
                verb: command.verb,
                step: command.step,
                full: command.full,
                by: command.by.clone(),
                reason: command.reason.clone(),
                received_at: answer.map(|answer| answer.received_at.0),
                accepted: answer.map(|answer| answer.accepted),
                message: answer.and_then(|answer| answer.message.clone()),
            }
        })
        .collect()
}

/// What a person can do now.
fn next_steps(report: &ReleaseReport) -> Vec<NextStep> {
    let run = |to: &str, command: &str| NextStep {
        to: to.to_owned(),
        run: format!("belay {command} {} -n {}", report.rollout, report.namespace),
    };
    let abort = || run("roll back now", "abort");
    match report.phase {
        ReleasePhase::Pending => vec![run("follow it", "status --watch"), abort()],
        ReleasePhase::Progressing => {
            vec![
                run("follow it", "status --watch"),
                run("leave this step without waiting", "promote"),
                abort(),
            ]
        }
        ReleasePhase::Baking => {
            vec![
                run("follow it", "status --watch"),
                run("end the bake now, and let the old version go", "promote"),
                run("give the old version all traffic again", "abort"),
            ]
        }
        ReleasePhase::Paused if report.paused => vec![run("let it go on", "resume"), abort()],
        ReleasePhase::Paused => {
            let mut next = Vec::new();
            if report.step.as_ref().is_some_and(|step| step.waits_for_person) {
                let preview = report.present().is_some_and(StepReport::is_preview);
                let to = if preview { "allow the switch to the new version" } else { "let the step go on" };
                next.push(run(to, "approve"));
            }
            next.extend([run("leave this step without waiting", "promote"), abort()]);
            next
        }
        ReleasePhase::Promoting if report.unbraked => vec![run("follow it", "status --watch"), abort()],
        ReleasePhase::Promoting | ReleasePhase::RollingBack => vec![run("follow it", "status --watch")],
        ReleasePhase::Promoted => vec![run("go back to the template before", "undo")],
        // The stable template was written back already.
        ReleasePhase::RolledBack if report.unbraked => vec![run("see what runs now", "status")],
        ReleasePhase::RolledBack => vec![
            run("try the same change again", "retry"),
            run("put the stable template back into the workload", "undo"),
        ],
        ReleasePhase::Superseded => vec![run("see what runs now", "status")],
    }
}
