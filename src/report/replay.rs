//! What would have happened to a release with other guards, beside what did.

use std::fmt::Write as _;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::guard::{GuardReport, Proof};
use super::looks::{Start, resets, starts};
use super::release::ReleaseReport;
use super::release_text::headline;
use super::text::{Tone, count, evidence, paint, plural, seconds, table, wrap};
use super::{Report, Scene};
use crate::analysis::{GuardPlan, Outcome, Plan, PlanError, Replayed, WhatIf, WhatIfError, outcome};
use crate::api::evidence::GuardState;
use crate::api::{Release, ReleasePhase};

/// Entries of a timeline after which the oldest but the first are dropped.
const TIMELINE: usize = 60;

/// Why it cannot be told.
#[derive(thiserror::Error, Clone, Debug, PartialEq)]
pub enum ReplayError {
    /// The release's analysis cannot be used.
    #[error("the analysis of the release cannot be used: {}", .0.in_full())]
    Plan(PlanError),
    /// What is to be different makes no sense.
    #[error(transparent)]
    WhatIf(#[from] WhatIfError),
    /// Nothing was recorded.
    #[error("no looks are recorded: the release had no data yet")]
    NoLooks,
}

/// The whole answer.
#[derive(Serialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ReplayReport {
    /// Name of the Release.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Name of the workload.
    pub workload: String,
    /// What really happened.
    pub really: Really,
    /// What is different, in words; absent when nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub different: Option<String>,
    /// The guard that would have rolled it back first, and when; absent when none would have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rolled_back: Option<Culprit>,
    /// The last look that is recorded: nothing is known of what came after.
    pub looks_end: Moment,
    /// The guards that compare numbers.
    pub guards: Vec<GuardReplay>,
    /// The checks, which are not replayed: how their runs really went, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<String>,
}

/// What really happened.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Really {
    /// What the release is doing, as in the API.
    pub phase: ReleasePhase,
    /// In a sentence.
    pub words: String,
    /// Why, in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// A guard that fails.
#[derive(Serialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Culprit {
    /// Its name.
    pub guard: String,
    /// When.
    pub moment: Moment,
}

/// A moment of the release.
#[derive(Serialize, Clone, Copy, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Moment {
    /// Seconds since the release started.
    pub after_seconds: f64,
    /// Seconds since its first look.
    pub second: f64,
    /// When.
    pub at: Timestamp,
    /// At which step, from 1; absent after the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<u32>,
}

/// One guard.
#[derive(Serialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct GuardReplay {
    /// Its name.
    pub name: String,
    /// What it tolerated.
    pub tolerate: String,
    /// What it tolerates in the replay.
    pub replayed_with: String,
    /// Looks that are replayed.
    pub looks: usize,
    /// Older looks that are no longer kept.
    pub looks_gone: u32,
    /// Whether the looks, replayed with the release's own guards, give the recorded evidence to the last bit.
    pub exact: bool,
    /// What limits the answer, in sentences.
    pub notes: Vec<String>,
    /// How it went with the release's own guards.
    pub really: Course,
    /// How it would have gone.
    pub then: Course,
}

/// How it goes with a guard.
#[derive(Serialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Course {
    /// When both keys of a rollback are turned; absent when they are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rolled_back: Option<Moment>,
    /// The steps up to then.
    pub steps: Vec<StepCourse>,
    /// Evidence that the canary is worse, at the rollback or at the last look.
    pub worse: Proof,
    /// Evidence that it is beyond the tolerance.
    pub beyond_tolerance: Proof,
    /// Evidence that it is safe at the step.
    pub safe: Proof,
}

/// A step of it.
#[derive(Serialize, Clone, Copy, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct StepCourse {
    /// From 1.
    pub step: u32,
    /// When it really began.
    pub began: Moment,
    /// Seconds from there until safety was proven; absent when it was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proven_after_seconds: Option<f64>,
}

/// The moments of a release.
struct Times {
    started_at: Timestamp,
    first_look_at: Timestamp,
    steps: Vec<Start>,
    /// Whether the timeline may have lost the beginning of a step.
    cut: bool,
}

impl Times {
    fn of(report: &ReleaseReport, first_look_at: Timestamp) -> Self {
        let steps = starts(&report.timeline, Some(first_look_at));
        let cut = report.timeline.len() >= TIMELINE;
        Self { started_at: report.started_at.unwrap_or(first_look_at), first_look_at, steps, cut }
    }

    fn moment(&self, second: f64) -> Moment {
        let since = SignedDuration::try_from_secs_f64(second).unwrap_or_default();
        let at = self.first_look_at.checked_add(since).unwrap_or(self.first_look_at);
        let step = self.steps.iter().rev().find(|start| start.second < second).or(self.steps.first());
        Moment {
            after_seconds: milliseconds(at.duration_since(self.started_at).as_secs_f64()),
            second,
            at,
            step: step.and_then(|start| start.step),
        }
    }

    fn course(&self, outcome: &Outcome, guard: &GuardPlan, plan: &Plan) -> Course {
        let failed = outcome.failed.and_then(|index| outcome.looks.get(index));
        let nothing = Replayed { second: 0.0, strict: 1.0, margin: 1.0, safe: 1.0 };
        let last = failed.or(outcome.looks.last()).unwrap_or(&nothing);
        let end = failed.map_or(f64::INFINITY, |look| look.second);
        let steps = self.steps.iter().enumerate().filter(|(_, start)| start.second < end);
        let steps = steps.filter_map(|(index, start)| {
            let until = self.steps.get(index + 1).map_or(f64::INFINITY, |next| next.second);
            let proven = outcome.proven(start.second, until.min(end));
            Some(StepCourse {
                step: start.step?,
                // The step itself, not the one before it.
                began: Moment { step: start.step, ..self.moment(start.second) },
                proven_after_seconds: proven.map(|look| milliseconds(look.second - start.second)),
            })
        });
        Course {
            rolled_back: failed.map(|look| self.moment(look.second)),
            steps: steps.collect(),
            worse: Proof::new(last.strict, plan.needed_strict(guard)),
            beyond_tolerance: Proof::new(last.margin, plan.needed_margin),
            safe: Proof::new(last.safe, plan.needed_safe()),
        }
    }
}

/// Without the last bits that differences of times add.
fn milliseconds(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

impl ReplayReport {
    /// Replays a release's recorded looks. `now` is the present moment, for a release that still runs.
    pub fn new(release: &Release, now: Timestamp, what: &WhatIf) -> Result<Self, ReplayError> {
        let report = ReleaseReport::new(release, now);
        let written = release.spec.analysis.as_ref().ok_or(WhatIfError::NoGuards)?;
        let own = Plan::resolve(written, release.spec.planned_looks).map_err(ReplayError::Plan)?;
        let (changed, together) = what.applied(&own)?;
        let state = release.status.as_ref().and_then(|status| status.analysis.as_ref());
        let first_look_at =
            state.and_then(|state| state.first_look_at.as_ref()).ok_or(ReplayError::NoLooks)?.0;
        let times = Times::of(&report, first_look_at);
        let mut end = f64::NEG_INFINITY;
        let mut first: Option<(f64, f64, Culprit)> = None;
        let mut guards = Vec::new();
        for (before, after) in
            own.guards.iter().zip(&changed.guards).filter(|(guard, _)| what.includes(guard))
        {
            let known = state.and_then(|state| state.guards.iter().find(|known| known.name == before.name));
            let Some(known) = known.filter(|known| !known.recent.is_empty()) else { continue };
            end = known.recent.last().map_or(end, |look| end.max(look.second));
            let then = outcome(known, after, &changed, together, &resets(&times.steps));
            if let Some(look) = then.failed.and_then(|index| then.looks.get(index)) {
                // At the same look the guard with more evidence is the guilty one, as in the verdict.
                let sooner = first.as_ref().is_none_or(|(second, margin, _)| {
                    look.second < *second || (look.second <= *second && look.margin > *margin)
                });
                if sooner {
                    let moment = times.moment(look.second);
                    first = Some((look.second, look.margin, Culprit { guard: after.name.clone(), moment }));
                }
            }
            guards.push(guard_replay(known, (before, &own), (after, &changed), together, &times, &then));
        }
        if guards.is_empty() {
            return Err(ReplayError::NoLooks);
        }
        Ok(Self {
            really: Really { phase: report.phase, words: headline(&report), message: report.message.clone() },
            different: different(what, &own, &changed),
            rolled_back: first.map(|(_, _, culprit)| culprit),
            looks_end: times.moment(end),
            checks: report.guards.iter().filter(|guard| guard.check.is_some()).filter_map(in_words).collect(),
            guards,
            name: report.name,
            namespace: report.namespace,
            workload: report.workload,
        })
    }
}

fn in_words(guard: &GuardReport) -> Option<String> {
    guard.words.clone()
}

fn guard_replay(
    known: &GuardState,
    (before, own): (&GuardPlan, &Plan),
    (after, changed): (&GuardPlan, &Plan),
    together: usize,
    times: &Times,
    then: &Outcome,
) -> GuardReplay {
    let really = outcome(known, before, own, 1, &resets(&times.steps));
    let kept = known.recent.len();
    let gone = known.looks.saturating_sub(u32::try_from(kept).unwrap_or(u32::MAX));
    let same = |last: &Replayed| {
        // A step that began after the last look left no evidence of safety.
        let began = times.steps.iter().any(|start| start.second >= last.second);
        let last = Replayed { safe: if began { 1.0 } else { last.safe }, ..*last };
        [last.strict, last.margin, last.safe].map(f64::to_bits)
            == [known.strict, known.margin, known.safe].map(f64::to_bits)
    };
    let exact = gone == 0 && really.looks.last().is_some_and(same);
    let mut notes = Vec::new();
    let first = known.recent.first().map(|look| times.moment(look.second).after_seconds).unwrap_or_default();
    if gone > 0 {
        notes.push(format!(
            "Not exact before {}, and less sure after it: only the last {kept} looks are kept, {} are gone, and the \
             replay begins without their evidence.",
            words(first),
            plural(gone as usize, "older one")
        ));
    } else if !exact {
        notes.push(
            "The looks, replayed with the release's own guards, do not give the recorded evidence to the last bit: what \
             follows is near it, not exact."
                .to_owned(),
        );
    }
    if times.cut {
        notes.push(
            "The timeline is full and may have lost the beginnings of steps: their proofs of safety may be too early."
                .to_owned(),
        );
    }
    if together > 1 && known.gauge.is_none() {
        notes.push(format!(
            "{together} looks become one; one within which a step began counts for that step, and {} left over at the end.",
            if kept % together == 1 { "1 look is".to_owned() } else { format!("{} looks are", kept % together) }
        ));
    } else if together > 1 {
        notes
            .push("Values that go up and down are compared once a minute, whatever the interval.".to_owned());
    }
    GuardReplay {
        name: before.name.clone(),
        tolerate: before.tolerated.to_string(),
        replayed_with: after.tolerated.to_string(),
        looks: kept,
        looks_gone: gone,
        exact,
        notes,
        really: times.course(&really, before, own),
        then: times.course(then, after, changed),
    }
}

/// What is different, as `guard errors tolerates 3x`.
fn different(what: &WhatIf, own: &Plan, changed: &Plan) -> Option<String> {
    let mut parts = Vec::new();
    for (before, after) in own.guards.iter().zip(&changed.guards) {
        if before.tolerated != after.tolerated {
            parts.push(format!(
                "guard {} tolerating {} instead of {}",
                before.name, after.tolerated, before.tolerated
            ));
        }
    }
    if (own.alpha_inverse, own.needed_margin) != (changed.alpha_inverse, changed.needed_margin) {
        let name = what.confidence.map(|confidence| format!("{confidence:?}").to_lowercase());
        parts.push(format!(
            "confidence {} ({} and {} instead of {} and {})",
            name.unwrap_or_default(),
            count(changed.alpha_inverse),
            count(changed.needed_margin),
            count(own.alpha_inverse),
            count(own.needed_margin)
        ));
    }
    if own.interval != changed.interval {
        parts.push(format!("looks every {} instead of {}", seconds(changed.interval), seconds(own.interval)));
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// A length of time in words.
fn words(of: f64) -> String {
    seconds(Duration::try_from_secs_f64(of.max(0.0)).unwrap_or_default())
}

fn at_step(moment: &Moment) -> String {
    moment.step.map_or_else(|| "after the last step".to_owned(), |step| format!("at step {step}"))
}

impl Report for ReplayReport {
    const KIND: &'static str = "Replay";

    fn text(&self, scene: &Scene) -> String {
        let mut text = String::new();
        let title = paint(scene, Tone::Strong, &self.name);
        let _ = writeln!(text, "{title}  ({}/{})\n", self.namespace, self.workload);
        let message = self.really.message.as_ref().map(|words| format!(": {words}")).unwrap_or_default();
        let mut really = self.really.words.trim_end_matches('.').to_owned();
        if let Some(first) = really.get_mut(0..1) {
            first.make_ascii_lowercase();
        }
        text.push_str(&wrap(scene, 0, &format!("Really: {really}{message}.")));
        let with = self.different.as_ref().map_or_else(
            || "Replayed with its own guards".to_owned(),
            |different| format!("With {different}"),
        );
        let only = match self.guards.as_slice() {
            [only] => format!(" by guard {}", only.name),
            _ => String::new(),
        };
        let then = match &self.rolled_back {
            Some(Culprit { guard, moment }) => format!(
                "{with}: rolled back after {}, {}, by guard {guard}.",
                words(moment.after_seconds),
                at_step(moment)
            ),
            None => format!(
                "{with}: not rolled back{only}. Still running when the looks end, after {}, {}; what came later was \
                 never seen.",
                words(self.looks_end.after_seconds),
                at_step(&self.looks_end)
            ),
        };
        text.push_str(&wrap(scene, 0, &then));
        for guard in &self.guards {
            guard_text(&mut text, guard, self.different.is_some(), scene);
        }
        if !self.checks.is_empty() {
            text.push_str("\nChecks are not replayed, their runs were what they were:\n");
            for check in &self.checks {
                text.push_str(&wrap(scene, 2, check));
            }
        }
        text
    }

    fn names(&self) -> Vec<String> {
        vec![format!("release/{}", self.name)]
    }
}

/// One guard; beside how it went how it would have gone, when something is different.
fn guard_text(text: &mut String, guard: &GuardReplay, different: bool, scene: &Scene) {
    let tolerance = if guard.tolerate == guard.replayed_with {
        format!("tolerates {}", guard.tolerate)
    } else {
        format!("tolerated {}, replayed with {}", guard.tolerate, guard.replayed_with)
    };
    let looks = plural(guard.looks, "look");
    let _ = writeln!(text, "\n{}  {tolerance}; {looks}", paint(scene, Tone::Strong, &guard.name));
    let rolled_back = |course: &Course| match &course.rolled_back {
        Some(moment) => format!("after {}, {}", words(moment.after_seconds), at_step(moment)),
        None => "no".to_owned(),
    };
    let proven = |course: &Course, step: u32| match course.steps.iter().find(|known| known.step == step) {
        Some(StepCourse { proven_after_seconds: Some(after), .. }) => {
            format!("{} after it began", words(*after))
        }
        Some(_) => "no".to_owned(),
        None => "not reached".to_owned(),
    };
    let proof = |proof: &Proof| format!("{} of {}", evidence(proof.value), count(proof.needs));
    let row = |name: String, cell: &dyn Fn(&Course) -> String| {
        let courses = [Some(&guard.really), different.then_some(&guard.then)];
        std::iter::once(name).chain(courses.into_iter().flatten().map(cell)).collect::<Vec<_>>()
    };
    let mut rows = vec![row("rolled back".to_owned(), &rolled_back)];
    let mut steps: Vec<u32> =
        guard.really.steps.iter().chain(&guard.then.steps).map(|step| step.step).collect();
    steps.sort_unstable();
    steps.dedup();
    for step in steps {
        rows.push(row(format!("step {step} proven safe"), &|course| proven(course, step)));
    }
    rows.push(row("worse, at the end".to_owned(), &|course| proof(&course.worse)));
    rows.push(row("beyond tolerance".to_owned(), &|course| proof(&course.beyond_tolerance)));
    rows.push(row("safe".to_owned(), &|course| proof(&course.safe)));
    let head: &[&str] = if different { &["", "AS IT WAS", "WITH THAT"] } else { &["", "AS IT WAS"] };
    text.push_str(&table(scene, 2, head, &rows));
    if guard.exact {
        text.push_str(&wrap(
            scene,
            2,
            "Exact: with the release's own guards the looks give the recorded evidence to the last bit.",
        ));
    }
    for note in &guard.notes {
        text.push_str(&wrap(scene, 2, note));
    }
}
