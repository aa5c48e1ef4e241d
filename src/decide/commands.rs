//! What people asked of the running release.

use super::pass::Pass;
use super::reason::{Passed, Reason};
use super::status::Working;
use crate::api::release::{Command, CommandStatus, Verb};
use crate::api::{Release, ReleasePhase, ReleaseStatus};

/// What the commands of this pass come to.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    /// Roll back, and why.
    pub abort: Option<Reason>,
    /// Leave the present step, by whose right.
    pub promote: Option<Passed>,
    /// Leave all steps.
    pub full: bool,
}

/// Takes up the commands that have no answer yet, in order. Each is answered, accepted or refused.
pub(super) fn take(pass: &Pass<'_>, release: &Release, working: &mut Working) -> Wishes {
    let mut wishes = Wishes::default();
    let seen = working.status.commands.len();
    for command in release.spec.commands.iter().skip(seen) {
        let refusal = one(release, working, command, &mut wishes);
        working.status.commands.push(CommandStatus {
            received_at: pass.at(),
            accepted: refusal.is_none(),
            message: refusal,
        });
        if wishes.abort.is_some() {
            break;
        }
    }
    wishes
}

/// Answers what has no answer yet while the release is on its way back. An abort that a process took up before it
/// ended, or that came just too late, has what it asked for.
pub(super) fn answer_at_the_end(
    pass: &Pass<'_>,
    release: &Release,
    status: &mut ReleaseStatus,
    rejected: bool,
) {
    let name = release.metadata.name.as_deref().unwrap_or_default();
    for command in release.spec.commands.iter().skip(status.commands.len()) {
        let accepted = command.verb == Verb::Abort && rejected;
        status.commands.push(CommandStatus {
            received_at: pass.at(),
            accepted,
            message: (!accepted).then(|| format!("{name} is over; its weight is 0")),
        });
    }
}

fn one(release: &Release, working: &mut Working, command: &Command, wishes: &mut Wishes) -> Option<String> {
    let name = release.metadata.name.as_deref().unwrap_or_default();
    let steps = release.spec.steps.len();
    let index = usize::try_from(working.status.step.index).unwrap_or(usize::MAX);
    let handing_over = index >= steps;
    let now_at = index + 1;
    let elsewhere = command.step.and_then(|s| usize::try_from(s).ok()).filter(|s| *s != now_at);
    let who = command.by.clone().unwrap_or_else(|| "somebody".to_owned());
    let why = command.reason.clone().unwrap_or_default();
    match command.verb {
        Verb::Abort => {
            wishes.abort = Some(Reason::Aborted { by: who, why });
            None
        }
        Verb::Retry => Some(format!("{name} is still running; abort it first")),
        // What failed after it was let go, and is held for a person who knows that it was.
        Verb::Promote
            if handing_over
                && release.spec.unbraked
                && elsewhere.is_none()
                && working.status.phase == ReleasePhase::Paused =>
        {
            working.status.step.approved = true;
            None
        }
        _ if handing_over && release.spec.unbraked => Some(format!("{name} was let go; abort it to go back")),
        _ if handing_over => Some(format!("{name} has passed all steps and is being handed over")),
        Verb::Promote | Verb::Approve if elsewhere.is_some() || wishes.promote.is_some() => {
            Some(format!("{name} is at step {now_at} of {steps} now; look at it and send the command again"))
        }
        Verb::Promote => {
            working.status.paused = false;
            wishes.promote = Some(Passed::Person { by: who, why });
            wishes.full = command.full;
            None
        }
        Verb::Approve if !release.spec.steps[index].pause => {
            Some(format!("step {now_at} of {name} does not wait for a person"))
        }
        Verb::Approve => {
            working.status.step.approved = true;
            None
        }
        Verb::Pause if working.status.paused => Some(format!("{name} is paused already")),
        Verb::Pause => {
            working.status.paused = true;
            None
        }
        Verb::Resume if !working.status.paused => Some(format!("{name} is not paused")),
        Verb::Resume => {
            working.status.paused = false;
            None
        }
    }
}
