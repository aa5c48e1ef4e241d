//! The commands to a release: promote, pause, resume, abort, approve, retry.
//!
//! A command is one more entry of `spec.commands`; who asked is written down by the API server, and whether
//! it is done is decided by the operator.

use std::time::Duration;

use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::args::{Approve, Order, Promote};
use super::failure::{Exit, Failure, Kind};
use super::find;
use super::session::{Cluster, Session};
use crate::api::release::{CommandStatus, Verb};
use crate::api::{Release, ReleasePhase, Rollout};
use crate::report::command::{Answer, CommandReport};
use crate::report::release_text::verb_words;

/// How long the operator has to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// The most commands that a Release holds.
const MOST: usize = 50;

/// What is asked.
struct Ask<'a> {
    verb: Verb,
    order: &'a Order,
    step: Option<i32>,
    full: bool,
}

pub async fn promote(session: &Session, args: &Promote) -> Result<Exit, Failure> {
    give(session, &Ask { verb: Verb::Promote, order: &args.order, step: args.step, full: args.full }).await
}

pub async fn approve(session: &Session, args: &Approve) -> Result<Exit, Failure> {
    give(session, &Ask { verb: Verb::Approve, order: &args.order, step: args.step, full: false }).await
}

pub async fn pause(session: &Session, order: &Order) -> Result<Exit, Failure> {
    give(session, &Ask { verb: Verb::Pause, order, step: None, full: false }).await
}

pub async fn resume(session: &Session, order: &Order) -> Result<Exit, Failure> {
    give(session, &Ask { verb: Verb::Resume, order, step: None, full: false }).await
}

pub async fn abort(session: &Session, order: &Order) -> Result<Exit, Failure> {
    give(session, &Ask { verb: Verb::Abort, order, step: None, full: false }).await
}

pub async fn retry(session: &Session, order: &Order) -> Result<Exit, Failure> {
    give(session, &Ask { verb: Verb::Retry, order, step: None, full: false }).await
}

async fn give(session: &Session, ask: &Ask<'_>) -> Result<Exit, Failure> {
    let cluster = session.cluster().await?;
    let rollout = match (&ask.order.name, &ask.order.release) {
        // The release alone says which Rollout is meant.
        (None, Some(release)) => {
            let found = cluster
                .ask(format!("read the Release {release}"), cluster.releases().get(find::bare(release)))
                .await?;
            find::rollout(&cluster, Some(&found.spec.rollout)).await?
        }
        (name, _) => find::rollout(&cluster, name.as_deref()).await?,
    };
    let mut tries = 0;
    loop {
        let releases = find::releases(&cluster, &rollout.name_any()).await?;
        let release = target(ask, &rollout, &releases)?;
        let name = release.name_any();
        let step = step(ask, release);
        let patch = patch(ask, release, step)?;
        let mut report = CommandReport {
            release: name.clone(),
            namespace: cluster.namespace.clone(),
            verb: ask.verb,
            step,
            answer: Answer::DryRun,
            message: None,
            patch: None,
        };
        if ask.order.dry_run {
            report.patch = Some(patch);
            session.print(&report)?;
            return Ok(Exit::OK);
        }
        let json = json_patch(patch)?;
        let what = format!("{} the release {name}", verb_words(ask.verb));
        let sent = cluster
            .ask(what, cluster.releases().patch(&name, &params(), &Patch::<Release>::Json(json)))
            .await;
        let sent = match sent {
            // Somebody else's first command came in between: the list exists now.
            Err(failure)
                if failure.kind == Kind::Refused && tries < 2 && release.spec.commands.is_empty() =>
            {
                tries += 1;
                continue;
            }
            other => other?,
        };
        let answered = if ask.order.no_wait { None } else { answer(session, &cluster, &sent).await? };
        report.answer = match &answered {
            None => Answer::Sent,
            Some(answer) if answer.accepted => Answer::Accepted,
            Some(_) => Answer::Refused,
        };
        report.message = match answered {
            Some(answer) => answer.message,
            None if ask.order.no_wait => None,
            None => Some(format!(
                "the operator has not answered within {}; is it running? `{} doctor` checks it",
                crate::report::seconds(ANSWER),
                session.program
            )),
        };
        session.print(&report)?;
        let unanswered = report.answer == Answer::Sent && !ask.order.no_wait;
        return Ok(if report.answer == Answer::Refused || unanswered { Exit::ERROR } else { Exit::OK });
    }
}

fn params() -> PatchParams {
    PatchParams { field_manager: Some(super::release::MANAGER.to_owned()), ..Default::default() }
}

fn json_patch(patch: Value) -> Result<json_patch::Patch, Failure> {
    serde_json::from_value(patch)
        .map_err(|error| Failure::new(Kind::Failed, "failed to write the command").because(error.to_string()))
}

/// The release that is meant, or why there is none.
fn target<'a>(ask: &Ask<'_>, rollout: &Rollout, releases: &'a [Release]) -> Result<&'a Release, Failure> {
    let verb = verb_words(ask.verb);
    let name = rollout.name_any();
    let bound = ask.order.release.as_deref().map(find::bare);
    let tried = match bound {
        Some(bound) => format!("failed to {verb} the release {bound}"),
        None => format!("failed to {verb} a release of {name}"),
    };
    let refuse = |why: String| Failure::new(Kind::Refused, tried.clone()).because(why);
    let running = releases.iter().find(|release| !find::is_final(release));
    if ask.verb == Verb::Retry {
        if let Some(running) = running {
            return Err(refuse(format!("{} runs now", running.name_any()))
                .hint(format!("`belay status {name}` shows where it stands")));
        }
        let last = find::present(rollout, releases).ok_or_else(|| refuse("there was none yet".to_owned()))?;
        if bound.is_some_and(|bound| bound != last.name_any()) {
            return Err(refuse(format!("the last one is {}", last.name_any())));
        }
        return match last.status.as_ref().map(|status| status.phase) {
            Some(ReleasePhase::RolledBack) => Ok(last),
            _ => Err(refuse(format!("the last one, {}, was not rolled back", last.name_any()))
                .hint(format!("`belay explain {name}` tells what became of it"))),
        };
    }
    match (running, bound) {
        (Some(running), Some(bound)) if running.name_any() != bound => {
            Err(refuse(format!("{} runs now", running.name_any()))
                .hint(format!("`belay status {name}` shows where it stands")))
        }
        (Some(running), _) => Ok(running),
        (None, _) => {
            let last = find::present(rollout, releases);
            let why = last.map_or_else(
                || "there was none yet".to_owned(),
                |last| {
                    let phase = last.status.as_ref().map(|status| status.phase).unwrap_or_default();
                    format!("none is running; the last one, {}, ended {phase:?}", last.name_any())
                },
            );
            Err(refuse(why).hint(format!("`belay status {name}` shows where it stands")))
        }
    }
}

/// The step that goes along: the one shown now, so that the operator refuses when it has changed.
fn step(ask: &Ask<'_>, release: &Release) -> Option<i32> {
    if ask.step.is_some() || !matches!(ask.verb, Verb::Promote | Verb::Approve) {
        return ask.step;
    }
    let index = release.status.as_ref().map_or(0, |status| status.step.index);
    i32::try_from(index)
        .ok()
        .map(|index| index + 1)
        .filter(|step| usize::try_from(*step).is_ok_and(|s| s <= release.spec.steps.len()))
}

fn patch(ask: &Ask<'_>, release: &Release, step: Option<i32>) -> Result<Value, Failure> {
    if release.spec.commands.len() >= MOST {
        return Err(Failure::new(
            Kind::Refused,
            format!("failed to {} {}", verb_words(ask.verb), release.name_any()),
        )
        .because(format!("it was given {MOST} commands already, which is the most"))
        .hint("change the template: a new release starts; or delete the Rollout, which ends this one"));
    }
    let mut command = json!({"verb": ask.verb});
    if let Some(step) = step {
        command["step"] = step.into();
    }
    if ask.full {
        command["full"] = true.into();
    }
    if let Some(reason) = &ask.order.reason {
        command["reason"] = reason.as_str().into();
    }
    let (path, value) = if release.spec.commands.is_empty() {
        ("/spec/commands", json!([command]))
    } else {
        ("/spec/commands/-", command)
    };
    Ok(json!([
        {"op": "test", "path": "/metadata/uid", "value": release.metadata.uid},
        {"op": "add", "path": path, "value": value},
    ]))
}

/// Waits for the operator's answer to the last command of `sent`.
async fn answer(
    session: &Session,
    cluster: &Cluster,
    sent: &Release,
) -> Result<Option<CommandStatus>, Failure> {
    let index = sent.spec.commands.len().saturating_sub(1);
    let name = sent.name_any();
    let asked = tokio::time::Instant::now();
    let mut pause = Duration::from_millis(100);
    while asked.elapsed() < ANSWER {
        let now = cluster.ask(format!("read the Release {name}"), cluster.releases().get_opt(&name)).await?;
        let Some(now) = now else { return Ok(None) };
        if let Some(answer) = now.status.as_ref().and_then(|status| status.commands.get(index)) {
            return Ok(Some(answer.clone()));
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = tokio::signal::ctrl_c() => {
                session.say("The command is written down and will be taken up.");
                return Err(super::follow::interrupted(&name));
            }
        }
        pause = (pause * 2).min(Duration::from_secs(1));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(name: &str, phase: &str, commands: &Value) -> Release {
        let revision = |name: &str| json!({"revision": name, "replicaSet": name});
        serde_json::from_value(json!({
            "apiVersion": "belay.dev/v1alpha1", "kind": "Release", "metadata": {"name": name, "uid": "u"},
            "spec": {"rollout": "web", "workload": {"kind": "Deployment", "name": "web", "uid": "w"},
                "replicas": 3, "from": revision("a"), "to": revision("b"), "attempt": 1,
                "steps": [{"weight": 5, "minDuration": "1m", "maxDuration": "2m"}, {"weight": 25, "minDuration": "1m", "maxDuration": "2m"}],
                "rollback": {}, "progressDeadline": "10m", "plannedLooks": 12, "commands": commands},
            "status": {"phase": phase, "step": {"index": 1}},
        }))
        .unwrap()
    }

    fn rollout() -> Rollout {
        serde_json::from_value(
            json!({"apiVersion": "belay.dev/v1alpha1", "kind": "Rollout", "metadata": {"name": "web"},
            "spec": {"workloadRef": {"kind": "Deployment", "name": "web"}}}),
        )
        .unwrap()
    }

    fn order(release: Option<&str>) -> Order {
        Order {
            name: None,
            release: release.map(Into::into),
            reason: Some("why".into()),
            dry_run: false,
            no_wait: false,
        }
    }

    fn ask(verb: Verb, order: &Order) -> Ask<'_> {
        Ask { verb, order, step: None, full: false }
    }

    #[test]
    fn a_command_is_bound_to_one_release() {
        let all = [release("web-2", "Progressing", &json!([])), release("web-1", "RolledBack", &json!([]))];
        let find =
            |verb, bound, all| target(&ask(verb, &order(bound)), &rollout(), all).map(ResourceExt::name_any);
        assert_eq!(find(Verb::Abort, None, &all).unwrap(), "web-2");
        let failure = find(Verb::Abort, Some("web-1"), &all).unwrap_err();
        assert_eq!((failure.kind, failure.why.as_deref()), (Kind::Refused, Some("web-2 runs now")));
        assert_eq!(find(Verb::Retry, None, &all).unwrap_err().kind, Kind::Refused);
        assert_eq!(find(Verb::Retry, None, &all[1..]).unwrap(), "web-1");
        assert_eq!(find(Verb::Abort, None, &all[1..]).unwrap_err().kind, Kind::Refused);
        assert_eq!(find(Verb::Pause, None, &[]).unwrap_err().kind, Kind::Refused);
    }

    #[test]
    fn the_step_goes_along_and_the_list_is_appended_to() {
        let order = order(None);
        let (first, later) = (
            release("r", "Progressing", &json!([])),
            release("r", "Progressing", &json!([{"verb": "pause"}])),
        );
        let promote = ask(Verb::Promote, &order);
        assert_eq!(
            patch(&promote, &first, step(&promote, &first)).unwrap(),
            json!([{"op": "test", "path": "/metadata/uid", "value": "u"},
                {"op": "add", "path": "/spec/commands", "value": [{"verb": "promote", "step": 2, "reason": "why"}]}])
        );
        let pause = ask(Verb::Pause, &order);
        let second = patch(&pause, &later, step(&pause, &later)).unwrap();
        assert_eq!(
            second[1],
            json!({"op": "add", "path": "/spec/commands/-", "value": {"verb": "pause", "reason": "why"}})
        );
        let full = release("r", "Progressing", &Value::Array(vec![json!({"verb": "pause"}); MOST]));
        assert_eq!(patch(&pause, &full, None).unwrap_err().kind, Kind::Refused);
    }
}
