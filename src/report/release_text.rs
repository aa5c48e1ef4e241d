//! A release as text: one line, a picture, or the whole story.

use std::fmt::Write as _;
use std::time::Duration;

use super::Scene;
use super::chart::{chart, legend};
use super::check_runs::check_table;
use super::guard::{GuardReport, Share};
use super::looks::starts;
use super::release::{CommandEntry, Event, ImageChange, ReleaseReport, StepReport};
use super::text::{Tone, age, count, evidence, moment, paint, percent, plural, seconds, table, wrap};
use super::traffic::TrafficReport;
use crate::api::ReleasePhase;
use crate::api::release::Verb;

/// What is said of a change that no brake held.
const PAST_THE_BRAKE: &str = "the change went past it, and was caught with pods of it out";

/// The same, with what that means.
const UNBRAKED: &str = "This change went past the brake: the workload's own rolling update had pods of it out before \
    Belay paused it. It was not let out in steps.";
const WATCHED: &str = " It is watched at the size it was caught at; then the rolling update goes on, still watched, or \
    the stable template is written back.";

/// The name of a phase, for people.
pub(super) fn phase_words(phase: ReleasePhase) -> &'static str {
    match phase {
        ReleasePhase::Pending => "pending",
        ReleasePhase::Progressing => "progressing",
        ReleasePhase::Paused => "paused",
        ReleasePhase::Baking => "baking",
        ReleasePhase::Promoting => "promoting",
        ReleasePhase::Promoted => "promoted",
        ReleasePhase::RollingBack => "rolling back",
        ReleasePhase::RolledBack => "rolled back",
        ReleasePhase::Superseded => "superseded",
    }
}

/// A phase in its colour.
pub(super) fn phase(scene: &Scene, phase: ReleasePhase) -> String {
    let tone = match phase {
        ReleasePhase::Promoted => Tone::Good,
        ReleasePhase::RollingBack | ReleasePhase::RolledBack => Tone::Bad,
        ReleasePhase::Paused | ReleasePhase::Superseded => Tone::Care,
        _ => Tone::Strong,
    };
    paint(scene, tone, phase_words(phase))
}

/// What became of it, as a sentence: `Rolled back after 35s.`
pub fn headline(report: &ReleaseReport) -> String {
    let took = report.took_seconds.map(|s| seconds(Duration::from_secs(s)));
    let after = took.as_ref().map_or(String::new(), |took| format!(" after {took}"));
    match report.phase {
        ReleasePhase::Promoted => format!("Promoted{after}."),
        ReleasePhase::RolledBack => format!("Rolled back{after}."),
        ReleasePhase::Superseded => format!("Superseded{after}."),
        ReleasePhase::Pending => "Pending: the canary does not exist yet.".to_owned(),
        ReleasePhase::Baking => {
            let began = took.map_or(String::new(), |took| format!("; it began {took} ago"));
            format!("Baking: the new version has all traffic, and the old one stands by{began}.")
        }
        other => {
            let mut words = phase_words(other).to_owned();
            if let Some(first) = words.get_mut(0..1) {
                first.make_ascii_uppercase();
            }
            took.map_or_else(|| format!("{words}."), |took| format!("{words}, for {took} now."))
        }
    }
}

/// `web=web:1 -> web:2` for every container that differs.
pub(super) fn image_words(changes: &[ImageChange]) -> String {
    if changes.is_empty() {
        return "same images, another template".to_owned();
    }
    let words = |change: &ImageChange| {
        let name = |image: &Option<String>| image.clone().unwrap_or_else(|| "(none)".to_owned());
        format!("{}: {} -> {}", change.container, name(&change.before), name(&change.after))
    };
    changes.iter().map(words).collect::<Vec<_>>().join(", ")
}

/// `2/3`, or what there is instead of a step; with what it is, where that is more than a weight.
pub fn step_words(report: &ReleaseReport) -> String {
    let role = report.present().map_or("", StepReport::role);
    match &report.step {
        Some(step) => format!("{}/{}{role}", step.number, step.of),
        None if report.steps.iter().all(|step| step.passed) => format!("all {} passed", report.steps.len()),
        None => format!("0/{}", report.steps.len()),
    }
}

/// `25 % reached of 25 % (4 canary pods beside 12)`.
pub fn weight_words(report: &ReleaseReport) -> Option<String> {
    let weight = report.weight.as_ref()?;
    if report.unbraked {
        let out = usize::try_from(weight.canary_pods).unwrap_or_default();
        return Some(format!(
            "{} % reached ({} out beside {} stable); no step asked for it",
            weight.reached,
            plural(out, "pod"),
            weight.stable_pods
        ));
    }
    if let Some(traffic) = &report.traffic {
        return traffic.weight_words(report);
    }
    let mut words = format!("{} % reached of {} % wanted", weight.reached, weight.desired);
    if weight.reachable != weight.desired {
        let _ = write!(words, "; whole pods make {} %", weight.reachable);
    }
    let canary = usize::try_from(weight.canary_pods).unwrap_or_default();
    let stable = usize::try_from(weight.stable_pods).unwrap_or_default();
    let _ = write!(words, " ({} beside {} stable)", plural(canary, "canary pod"), stable);
    Some(words)
}

/// `1m12s of 2m, at most 30m`.
pub fn clock_words(report: &ReleaseReport) -> Option<String> {
    let step = report.step.as_ref()?;
    let plan = report.steps.iter().find(|plan| plan.number == step.number)?;
    let mut words = format!(
        "{} of {}",
        seconds(Duration::from_secs(step.elapsed_seconds)),
        seconds(Duration::from_secs(plan.min_seconds))
    );
    if !report.guards.is_empty() {
        let _ = write!(words, ", at most {}", seconds(Duration::from_secs(plan.max_seconds)));
    }
    if !step.running && !report.finished {
        words.push_str(" (stands still)");
    }
    Some(words)
}

/// The state of a release in one line, for a pipe or beside a bar.
pub fn line(report: &ReleaseReport) -> String {
    let mut parts = vec![phase_words(report.phase).to_owned(), format!("step {}", step_words(report))];
    if let Some(weight) = &report.weight {
        parts.push(format!("{} %", weight.reached));
    }
    if let Some(clock) = clock_words(report).filter(|_| !report.finished) {
        parts.push(clock);
    }
    if let Some(held) = report.traffic.as_ref().map(|traffic| traffic.held_writes).filter(|held| *held > 0) {
        parts.push(format!("{held} held"));
    }
    for guard in report.guards.iter().filter(|guard| guard.seen) {
        if let Some(check) = &guard.check {
            parts.push(format!("{} {}", guard.name, check.short()));
            continue;
        }
        parts.push(format!(
            "{} worse {}/{} safe {}/{}",
            guard.name,
            evidence(guard.evidence.worse.value),
            count(guard.evidence.worse.needs),
            evidence(guard.evidence.safe.value),
            count(guard.evidence.safe.needs)
        ));
    }
    parts.join("  ")
}

/// The state now: used by `status`. Shows the last `lines` entries of the timeline.
pub(super) fn picture(report: &ReleaseReport, scene: &Scene, lines: usize) -> String {
    let mut text = String::new();
    let mut field = |name: &str, value: &str| {
        let _ = writeln!(text, "  {name:<9} {value}");
    };
    field("release", &format!("{}  {}", report.name, phase(scene, report.phase)));
    field("change", &image_words(&report.images));
    if report.unbraked {
        field("brake", &paint(scene, Tone::Bad, PAST_THE_BRAKE));
    }
    if let Some(at) = report.finished_at {
        field("ended", &format!("{} ago", age(at, scene.now)));
    } else {
        field("step", &step_words(report));
        if let Some(words) = weight_words(report) {
            field("weight", &words);
        }
        if let Some(words) = clock_words(report) {
            field("clock", &words);
        }
        if let Some(traffic) = &report.traffic {
            field("traffic", &traffic.words());
        }
        if let Some(words) = report.present().and_then(StepReport::chosen) {
            field("chosen", &words);
        }
    }
    if let Some(words) = report.traffic.as_ref().and_then(TrafficReport::held) {
        field("held", &paint(scene, Tone::Care, &words));
    }
    if let Some(message) = &report.message {
        field(if report.finished { "why" } else { "now" }, message);
    }
    let missing = report.guards.iter().filter_map(|guard| guard.seconds_to_proof).reduce(f64::max);
    if let Some(missing) = missing.filter(|_| !report.finished) {
        let time = Duration::try_from_secs_f64(missing).unwrap_or(Duration::MAX);
        field("proof", &format!("about {} more at this traffic, if it is as good as stable", seconds(time)));
    }
    if let Some(silent) = report.no_data.as_ref().filter(|_| !report.finished) {
        let why = silent.reason.as_deref().unwrap_or("the reason is not known");
        field("metrics", &format!("no data for {}: {why}", age(silent.since, scene.now)));
    }
    if report.guards.iter().any(|guard| guard.check.is_none()) {
        text.push_str("  guards\n");
        text.push_str(&guard_table(&report.guards, scene, 4));
    }
    let checks = check_table(&report.guards, scene, 4);
    if !checks.is_empty() {
        text.push_str("  checks\n");
        text.push_str(&checks);
    }
    if !report.timeline.is_empty() && lines > 0 {
        text.push_str("  lately\n");
        text.push_str(&timeline(report, scene, 4, lines));
    }
    text
}

fn guard_table(guards: &[GuardReport], scene: &Scene, indent: usize) -> String {
    let share = |share: &Share| match share.percent {
        Some(value) => format!("{} of {} ({})", count(share.bad), count(share.total), percent(value)),
        None => "no events".to_owned(),
    };
    let rows: Vec<Vec<String>> = guards
        .iter()
        .filter(|guard| guard.check.is_none())
        .map(|guard| {
            let (canary, stable) = match (guard.compared.get(guard.worst), &guard.mean) {
                (Some(worst), _) => {
                    let slower = worst.slower_than.map(|edge| format!(" > {edge} {}", guard.unit));
                    let slower = slower.map(|words| words.trim_end().to_owned()).unwrap_or_default();
                    (share(&worst.canary) + &slower, share(&worst.stable) + &slower)
                }
                (None, Some(mean)) => {
                    let number = |x: f64| if x.abs() < 100.0 { format!("{x:.4}") } else { count(x) };
                    let value = |x| format!("{} {}", number(x), guard.unit).trim_end().to_owned();
                    (value(mean.canary), value(mean.stable))
                }
                (None, None) => ("no events".to_owned(), "no events".to_owned()),
            };
            let proof = |proof: &super::guard::Proof, tone| {
                let words = format!("{} of {}", evidence(proof.value), count(proof.needs));
                if proof.reached { paint(scene, tone, &words) } else { words }
            };
            vec![
                guard.name.clone(),
                canary,
                stable,
                proof(&guard.evidence.worse, Tone::Bad),
                proof(&guard.evidence.beyond_tolerance, Tone::Bad),
                proof(&guard.evidence.safe, Tone::Good),
                guard.tolerate.clone(),
            ]
        })
        .collect();
    let head = ["GUARD", "CANARY", "STABLE", "WORSE", "BEYOND TOLERANCE", "SAFE", "TOLERATES"];
    table(scene, indent, &head, &rows)
}

fn timeline(report: &ReleaseReport, scene: &Scene, indent: usize, lines: usize) -> String {
    let skipped = report.timeline.len().saturating_sub(lines);
    let mut text = String::new();
    for event in report.timeline.iter().skip(skipped) {
        let at = paint(scene, Tone::Faint, &moment(scene, event.at));
        let _ = writeln!(text, "{}{at}  {}", " ".repeat(indent), event_words(event));
    }
    text
}

/// What happened, and at which step where the sentence does not say it by itself.
pub fn event_words(event: &Event) -> String {
    let of_release = ["ReleaseStarted", "Promoting", "Promoted"].contains(&event.reason.as_str());
    let step = event.step.filter(|_| !of_release && !event.message.starts_with("step "));
    let step = step.map_or(String::new(), |step| format!("step {step}: "));
    format!("{:<16} {step}{}", event.reason, event.message)
}

/// The whole story: used by `explain`, and at the end of `release`.
pub(super) fn story(report: &ReleaseReport, scene: &Scene) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{}  ({}/{}, attempt {})",
        paint(scene, Tone::Strong, &report.name),
        report.namespace,
        report.workload,
        report.attempt
    );
    let _ = writeln!(text, "{}", image_words(&report.images));
    let _ = writeln!(text, "revision {} -> {}\n", report.from.revision, report.to.revision);
    if report.unbraked {
        let then = if report.finished { "" } else { WATCHED };
        text.push_str(&wrap(scene, 0, &format!("{UNBRAKED}{then}")));
        text.push('\n');
    }

    let mut summary = headline(report);
    if let Some(message) = &report.message {
        let _ = write!(summary, " {}", sentence(message));
    }
    text.push_str(&wrap(scene, 0, &summary));
    if let Some(reason) = &report.reason {
        let _ = writeln!(text, "{}", paint(scene, Tone::Faint, &format!("reason {reason}")));
    }
    if !report.finished {
        let parts = [Some(format!("step {}", step_words(report))), weight_words(report), clock_words(report)];
        let _ = writeln!(text, "{}", parts.into_iter().flatten().collect::<Vec<_>>().join("; "));
    }
    let traffic = report.traffic.as_ref();
    let carried = traffic.filter(|_| !report.finished).map(TrafficReport::words);
    let chosen = report.present().filter(|_| !report.finished).and_then(StepReport::chosen);
    let held = traffic.and_then(TrafficReport::held);
    for words in [carried, chosen, held].into_iter().flatten() {
        text.push_str(&wrap(scene, 0, &sentence(&words)));
    }

    text.push_str("\nEvidence\n");
    if report.guards.is_empty() {
        text.push_str(&wrap(
            scene,
            2,
            "This release has no guards: it advances by time, and only crashing or unready pods stop it.",
        ));
    }
    let starts = starts(&report.timeline, report.first_look_at);
    for guard in &report.guards {
        text.push_str(&wrap(scene, 2, &guard_words(guard, report)));
        text.push_str(&chart(guard, &starts, scene, 4));
    }
    if report.guards.iter().any(|guard| !guard.looks.is_empty()) {
        text.push_str(&wrap(scene, 2, &legend(&report.guards, scene)));
    }

    if !report.commands.is_empty() {
        text.push_str("\nCommands\n");
        for command in &report.commands {
            let _ = writeln!(text, "  {}", command_words(command, scene));
        }
    }
    if !report.timeline.is_empty() {
        text.push_str("\nTimeline\n");
        text.push_str(&timeline(report, scene, 2, usize::MAX));
    }
    if !report.next.is_empty() {
        text.push_str("\nHow to go on\n");
        let rows =
            report.next.iter().map(|next| (next.to.as_str(), run(scene, &next.run))).collect::<Vec<_>>();
        let width = rows.iter().map(|(to, _)| to.chars().count()).max().unwrap_or_default();
        for (to, run) in rows {
            let _ = writeln!(text, "  {to:<width$}   {run}");
        }
    }
    text
}

/// A command of this program, as it was called.
pub(super) fn run(scene: &Scene, command: &str) -> String {
    command
        .strip_prefix("belay ")
        .map_or_else(|| command.to_owned(), |rest| format!("{} {rest}", scene.program))
}

fn guard_words(guard: &GuardReport, report: &ReleaseReport) -> String {
    guard.words.clone().unwrap_or_else(|| {
        format!("Guard {}: no data in {}.", guard.name, plural(report.looks as usize, "look"))
    })
}

/// The name of a verb as it is typed.
pub fn verb_words(verb: Verb) -> &'static str {
    match verb {
        Verb::Promote => "promote",
        Verb::Pause => "pause",
        Verb::Resume => "resume",
        Verb::Abort => "abort",
        Verb::Approve => "approve",
        Verb::Retry => "retry",
    }
}

fn command_words(command: &CommandEntry, scene: &Scene) -> String {
    let mut words = command.received_at.map_or_else(|| "not yet".to_owned(), |at| moment(scene, at));
    let _ = write!(words, "  {}", verb_words(command.verb));
    if let Some(step) = command.step {
        let _ = write!(words, " of step {step}");
    }
    if command.full {
        words.push_str(", all steps");
    }
    let _ = write!(words, " by {}", command.by.as_deref().unwrap_or("somebody unknown"));
    match command.accepted {
        Some(true) => words.push_str(", accepted"),
        Some(false) => words.push_str(", refused"),
        None => words.push_str(", not answered yet"),
    }
    if let Some(message) = &command.message {
        let _ = write!(words, ": {message}");
    }
    if let Some(reason) = &command.reason {
        let _ = write!(words, " (why: {reason})");
    }
    words
}

/// A message with a capital and a full stop.
fn sentence(message: &str) -> String {
    let mut chars = message.trim().chars();
    let mut text: String = chars.next().map(|first| first.to_uppercase().collect()).unwrap_or_default();
    text.extend(chars);
    if !text.ends_with(['.', '!', '?']) {
        text.push('.');
    }
    text
}
