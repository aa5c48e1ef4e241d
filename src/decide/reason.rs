//! Why: every decision carries its reason as data; status, events, timeline and explanations render it.

use std::fmt;

/// Why something was decided.
#[derive(Clone, Debug, PartialEq)]
pub enum Reason {
    /// A change was found and its release begins.
    ReleaseStarted {
        /// The revision that serves.
        from: String,
        /// The revision that is to serve.
        to: String,
    },
    /// The canary is being made.
    Starting,
    /// The weight of a step is on its way.
    StepStarted {
        /// Number of the step, from 1.
        step: usize,
        /// Number of steps.
        of: usize,
        /// Percent asked for.
        weight: i32,
        /// Percent that whole pods make of it.
        reachable: i32,
        /// Canary pods.
        pods: i32,
        /// Stable pods.
        stable: i32,
    },
    /// A step was left.
    StepPassed {
        /// Number of the step, from 1.
        step: usize,
        /// By what right.
        by: Passed,
    },
    /// The canary pods of this step are not all ready yet.
    ScalingUp {
        /// Ready canary pods.
        ready: i32,
        /// Wanted canary pods.
        wanted: i32,
    },
    /// The traffic is on its way to where the step wants it.
    Shifting {
        /// What it waits for.
        detail: String,
    },
    /// The new version has all traffic, and the old one stands by.
    Baking {
        /// Seconds that it takes.
        seconds: i64,
    },
    /// Least time of the step is not over.
    StepTime {
        /// Seconds of `minDuration`.
        min_seconds: i64,
    },
    /// The guards do not yet prove that the canary is safe.
    Collecting {
        /// Guards without proof.
        guards: Vec<String>,
    },
    /// The metrics source gives no data.
    NoData {
        /// What is wrong.
        detail: String,
        /// Whether the release is held for it; else it goes back.
        held: bool,
    },
    /// The requests are not shared between the versions as their pods are.
    Skewed {
        /// Requests of the canary in this step.
        canary: f64,
        /// Requests of both versions.
        all: f64,
        /// Requests that the canary would have with an equal share for each measured pod.
        expected: f64,
    },
    /// `maxDuration` ended with neither proof.
    Inconclusive {
        /// Guards without proof.
        guards: Vec<String>,
        /// Whether the release is held for it; else it goes back.
        held: bool,
    },
    /// No node takes the canary's pods, or they cannot be created.
    Unschedulable {
        /// What the scheduler or the ReplicaSet says.
        detail: String,
    },
    /// A person paused the release.
    PausedByUser,
    /// The step waits for a person.
    AwaitingApproval {
        /// Number of the step, from 1.
        step: usize,
    },
    /// The change failed and `rollback.automatic` is off.
    RollbackWanted {
        /// Why it failed.
        cause: Box<Reason>,
    },
    /// The canary's pods fail.
    Crash {
        /// What kind of failure, as Kubernetes names it.
        cause: String,
        /// The pod.
        pod: String,
        /// More words.
        detail: String,
    },
    /// The canary did not become ready in time.
    ProgressDeadline {
        /// The deadline in seconds.
        seconds: i64,
        /// What it waited for.
        detail: String,
    },
    /// A guard found the canary worse than tolerated.
    GuardFailed {
        /// The guard.
        guard: String,
        /// The numbers.
        detail: String,
    },
    /// A person aborted.
    Aborted {
        /// Who.
        by: String,
        /// Why.
        why: String,
    },
    /// All steps are passed: the canary grows to full size and is handed over.
    Promoting,
    /// The new revision serves; what the release borrowed goes back.
    Returning,
    /// The new revision is stable.
    Promoted {
        /// Its revision.
        revision: String,
    },
    /// The workload was changed again.
    SupersededBy {
        /// The revision that it has now.
        revision: String,
    },
    /// The workload was changed back to what serves.
    RevertedByUser,
    /// The workload was deleted.
    WorkloadDeleted,
    /// The Rollout was deleted.
    RolloutDeleted,
    /// The Release was deleted while it ran.
    ReleaseDeleted,
    /// A change went past the brake.
    WentPastBrake {
        /// Why the brake did not hold it.
        detail: String,
    },
    /// A change went past the brake and is held where it was caught.
    Caught {
        /// Its revision.
        revision: String,
        /// Pods of it that are wanted now.
        out: i32,
        /// Pods of all versions that are wanted now.
        of: i32,
        /// Why the brake did not hold it.
        detail: String,
    },
    /// A change that went past the brake was watched; the workload's own rolling update goes on.
    LetGo,
    /// A person paused a workload whose rolling update had been let go.
    WorkloadPaused,
    /// No pod of a caught change is out any more.
    NothingOut,
    /// A change went past the brake and was out completely before it was seen.
    OutAlready {
        /// Its revision.
        revision: String,
    },
    /// Another writer brought a rejected revision back, past the brake.
    CameBack {
        /// Its revision.
        revision: String,
        /// The Release that rejected it.
        release: String,
        /// How often it was taken back.
        times: i32,
    },
    /// A rejected revision is out and Belay does not take it back.
    CannotUndo {
        /// Its revision.
        revision: String,
        /// Why not, and how to go on.
        detail: String,
    },
    /// The brake is not in the API server.
    BrakeMissing {
        /// Why.
        detail: String,
    },
    /// The workload does not exist.
    WorkloadMissing {
        /// Its kind and name.
        workload: String,
    },
    /// Another Rollout governs the workload.
    Rival {
        /// Its name.
        rollout: String,
    },
    /// The watches were interrupted: what the pods did meanwhile is not known yet.
    OutOfSight,
    /// The running Release cannot be read.
    Unreadable {
        /// Its name.
        release: String,
        /// Why.
        detail: String,
    },
    /// The workload is not complete for the first time.
    FirstRevision,
    /// Nothing is on its way.
    Stable,
    /// The change waits because the Rollout is paused.
    RolloutPaused,
    /// The present template was rejected.
    Vetoed {
        /// Its revision.
        revision: String,
        /// The Release that rejected it.
        release: String,
        /// Why, as a code.
        code: String,
    },
    /// The Rollout cannot be used as it is written.
    InvalidPlan {
        /// What is wrong and how to mend it.
        detail: String,
    },
    /// The Rollout was deleted while the workload has a template that does not serve.
    LeftPaused,
    /// What an earlier process of Belay decided, as it is written on an object.
    Recorded {
        /// The code.
        code: String,
        /// The sentence.
        message: String,
    },
}

/// By what right a step was left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Passed {
    /// Its time is over and no guard was set.
    Time,
    /// All guards are proven safe.
    Proof,
    /// `onInconclusive: promote`.
    Policy,
    /// A person said so.
    Person {
        /// Who.
        by: String,
        /// Why.
        why: String,
    },
    /// The workload is scaled to zero: nothing serves, nothing can be tried.
    NothingServes,
}

impl Reason {
    /// The code that stands in `reason` fields and events: one word, stable.
    pub fn code(&self) -> &str {
        match self {
            Self::ReleaseStarted { .. } => "ReleaseStarted",
            Self::Starting => "Starting",
            Self::StepStarted { .. } => "StepStarted",
            Self::StepPassed { .. } => "StepPassed",
            Self::ScalingUp { .. } => "ScalingUp",
            Self::Shifting { .. } => "ShiftingTraffic",
            Self::Baking { .. } => "Baking",
            Self::StepTime { .. } => "StepTime",
            Self::Collecting { .. } => "CollectingEvidence",
            Self::NoData { .. } => "NoData",
            Self::Skewed { .. } => "SampleRatioMismatch",
            Self::Inconclusive { .. } => "Inconclusive",
            Self::Unschedulable { .. } => "Unschedulable",
            Self::PausedByUser => "PausedByUser",
            Self::AwaitingApproval { .. } => "AwaitingApproval",
            Self::RollbackWanted { .. } => "RollbackWanted",
            Self::Crash { .. } => "CanaryCrashed",
            Self::ProgressDeadline { .. } => "ProgressDeadlineExceeded",
            Self::GuardFailed { .. } => "GuardFailed",
            Self::Aborted { .. } => "Aborted",
            Self::Promoting => "Promoting",
            Self::Returning => "Returning",
            Self::Promoted { .. } => "Promoted",
            Self::SupersededBy { .. } => "Superseded",
            Self::RevertedByUser => "RevertedByUser",
            Self::WorkloadDeleted => "WorkloadDeleted",
            Self::RolloutDeleted => "RolloutDeleted",
            Self::ReleaseDeleted => "ReleaseDeleted",
            Self::WentPastBrake { .. } => "WentPastBrake",
            Self::Caught { .. } => "Caught",
            Self::LetGo => "LetGo",
            Self::WorkloadPaused => "WorkloadPaused",
            Self::NothingOut => "NothingOut",
            Self::OutAlready { .. } => "OutAlready",
            Self::CameBack { .. } => "CameBack",
            Self::CannotUndo { .. } => "CannotUndo",
            Self::BrakeMissing { .. } => "BrakeMissing",
            Self::WorkloadMissing { .. } => "WorkloadMissing",
            Self::Rival { .. } => "WorkloadTaken",
            Self::OutOfSight => "OutOfSight",
            Self::Unreadable { .. } => "ReleaseUnreadable",
            Self::FirstRevision => "FirstRevision",
            Self::Stable => "Stable",
            Self::RolloutPaused => "RolloutPaused",
            Self::Vetoed { .. } => "Vetoed",
            Self::InvalidPlan { .. } => "InvalidPlan",
            Self::LeftPaused => "LeftPaused",
            Self::Recorded { code, .. } => code,
        }
    }
}

impl fmt::Display for Reason {
    #[expect(clippy::too_many_lines, reason = "one arm per reason; a table reads best in one piece")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReleaseStarted { from, to } => write!(f, "release of {to} starts; {from} serves"),
            Self::Starting => write!(f, "making the first canary pods"),
            Self::StepStarted { step, of, weight, reachable, pods, stable } => {
                write!(
                    f,
                    "step {step} of {of}: weight {weight} %, {pods} canary beside {stable} stable pods"
                )?;
                if (reachable - weight).abs() > super::capacity::TOLERATED_MISS {
                    write!(f, ", which is {reachable} %: whole pods come no nearer")?;
                }
                Ok(())
            }
            Self::StepPassed { step, by } => match by {
                Passed::Time => write!(f, "step {step} passed: its time is over; no guard is set"),
                Passed::Proof => write!(f, "step {step} passed: all guards prove it safe"),
                Passed::Policy => {
                    write!(f, "step {step} passed without proof, as onInconclusive: promote asks")
                }
                Passed::Person { by, why } => write!(f, "step {step} passed by {by}{}", because(why)),
                Passed::NothingServes => {
                    write!(f, "all steps passed: the workload is scaled to zero, nothing serves")
                }
            },
            Self::ScalingUp { ready, wanted } => {
                write!(f, "waiting for canary pods: {ready} of {wanted} ready")
            }
            Self::Shifting { detail } => write!(f, "waiting for the traffic: {detail}"),
            Self::Baking { seconds: bake } => {
                write!(f, "the new version has all traffic and the old one stands by, for {}", seconds(*bake))
            }
            Self::StepTime { min_seconds } => {
                write!(f, "healthy; the step lasts at least {}", seconds(*min_seconds))
            }
            Self::Collecting { guards } => {
                write!(f, "collecting evidence that the canary is safe: {}", guards.join(", "))
            }
            Self::NoData { detail, held: true } => {
                write!(f, "held: no data from the metrics source: {detail}")
            }
            Self::NoData { detail, held: false } => {
                write!(f, "no data from the metrics source for longer than onNoData.after: {detail}")
            }
            Self::Skewed { canary, all, expected } => write!(
                f,
                "held: the canary answered {canary:.0} of {all:.0} requests, its pods' share is {expected:.0}: see \
                 whether the Service selects the right pods and the metrics are those of the pod that shows them"
            ),
            Self::Inconclusive { guards, held: false } => write!(
                f,
                "the step's maxDuration ended with neither proof for {}, and onInconclusive is rollback",
                guards.join(", ")
            ),
            Self::Inconclusive { guards, held: true } => {
                write!(
                    f,
                    "held: the step's maxDuration ended with neither proof for {}; promote or abort it",
                    guards.join(", ")
                )
            }
            Self::Unschedulable { detail } => {
                write!(f, "held: the cluster cannot run the canary's pods: {detail}")
            }
            Self::PausedByUser => write!(f, "paused by a person; resume, promote or abort it"),
            Self::AwaitingApproval { step } => {
                write!(f, "step {step} waits for a person; promote, approve or abort it")
            }
            Self::RollbackWanted { cause } => {
                write!(f, "held: it failed, and rollback.automatic is off; abort or promote it. {cause}")
            }
            Self::Crash { cause, pod, detail } => {
                write!(f, "canary pod {pod}: {cause}")?;
                if detail.is_empty() { Ok(()) } else { write!(f, ": {detail}") }
            }
            Self::ProgressDeadline { seconds: s, detail } => {
                write!(f, "the canary was not ready within {}: {detail}", seconds(*s))
            }
            Self::GuardFailed { guard, detail } => write!(f, "guard {guard}: {detail}"),
            Self::Aborted { by, why } => write!(f, "aborted by {by}{}", because(why)),
            Self::Promoting => write!(f, "all steps passed; the canary grows to full size"),
            Self::Returning => {
                write!(f, "the new version serves; routes and Services go back to what they were")
            }
            Self::Promoted { revision } => write!(f, "revision {revision} is stable"),
            Self::SupersededBy { revision } => write!(f, "the workload was changed again, to {revision}"),
            Self::RevertedByUser => write!(f, "the workload was changed back to what serves"),
            Self::WorkloadDeleted => write!(f, "the workload was deleted"),
            Self::RolloutDeleted => write!(f, "the Rollout was deleted"),
            Self::ReleaseDeleted => write!(f, "the Release was deleted while it ran"),
            Self::WentPastBrake { detail } => {
                write!(f, "a change went past the brake and rolls out by itself, unguarded: {detail}")
            }
            Self::Caught { revision, out, of, detail } => write!(
                f,
                "{revision} went past the brake ({detail}); the workload is paused where it was caught, with {out} of {of} pods of it"
            ),
            Self::LetGo => {
                write!(f, "watched long enough: the workload's own rolling update goes on, still watched")
            }
            Self::WorkloadPaused => {
                write!(f, "somebody paused the workload; go on with kubectl rollout resume, or abort it")
            }
            Self::NothingOut => {
                write!(f, "no pod of it is out any more; it goes on like a change that the brake held")
            }
            Self::OutAlready { revision } => write!(
                f,
                "{revision} went past the brake and was out completely before it was seen; unguarded, it is now stable"
            ),
            Self::CameBack { revision, release, times } => {
                write!(
                    f,
                    "{revision} was rejected by {release}, and another writer brings it back past the brake"
                )?;
                match times {
                    0 => write!(f, ". ")?,
                    1 => write!(f, "; it was taken back once. ")?,
                    times => write!(f, "; it was taken back {times} times. ")?,
                }
                write!(f, "Correct what writes it, or lift the veto with belay retry")
            }
            Self::CannotUndo { revision, detail } => {
                write!(f, "{revision} was rejected, and pods of it are out; it is paused there: {detail}")
            }
            Self::BrakeMissing { detail } => write!(f, "the brake is not engaged: {detail}"),
            Self::WorkloadMissing { workload } => {
                write!(f, "{workload} does not exist; create it or correct spec.workloadRef.name")
            }
            Self::Rival { rollout } => {
                write!(f, "Rollout {rollout} is older and governs this workload; delete one of the two")
            }
            Self::OutOfSight => write!(
                f,
                "held: the watches of the API server were interrupted; waiting to learn what the pods did meanwhile"
            ),
            Self::Unreadable { release, detail } => write!(
                f,
                "held: this version of Belay cannot read the running Release {release} ({detail}); install the version that wrote it, or delete the Release, which takes its canary away"
            ),
            Self::FirstRevision => {
                write!(f, "waiting for the workload's first revision to be complete and available")
            }
            Self::Stable => write!(f, "the stable revision serves; nothing is on its way"),
            Self::RolloutPaused => {
                write!(f, "a change waits because the Rollout is paused; set spec.paused to false")
            }
            // There is no Release left that could be told to try again.
            Self::Vetoed { revision, release, code } if code == "ReleaseDeleted" => write!(
                f,
                "{revision} was rejected because its Release {release} was deleted while it ran; the stable revision serves. Change the workload"
            ),
            Self::Vetoed { revision, release, code } => write!(
                f,
                "{revision} was rejected by {release} ({code}); the stable revision serves. Change the workload, or lift the veto with belay retry"
            ),
            Self::InvalidPlan { detail } => write!(f, "the change waits: {detail}"),
            Self::Recorded { message, .. } => write!(f, "{message}"),
            Self::LeftPaused => write!(
                f,
                "the workload's template is not the one that serves, so it was left paused; go on with kubectl rollout resume, or go back with kubectl rollout resume and undo"
            ),
        }
    }
}

fn because(why: &str) -> String {
    if why.is_empty() { String::new() } else { format!(": {why}") }
}

/// Seconds as people write them.
pub fn seconds(total: i64) -> String {
    match (total / 3600, total % 3600 / 60, total % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, 0) => format!("{m}m"),
        (0, m, s) => format!("{m}m{s}s"),
        (h, 0, 0) => format!("{h}h"),
        (h, m, _) => format!("{h}h{m}m"),
    }
}
