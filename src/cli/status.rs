//! `status` and `list`.

use kube::{Api, ResourceExt};

use super::args::{Format, List, Status};
use super::failure::{Exit, Failure};
use super::session::{Cluster, Session};
use super::{find, follow};
use crate::api::{Release, Rollout};
use crate::clock;
use crate::report::release::ReleaseReport;
use crate::report::rollout::{ListItem, ListReport, RolloutReport, StatusListReport, StatusReport};
use crate::report::{release_text, seconds};

/// Shows where workloads stand; with `--watch` or `--wait`, follows one.
pub async fn run(session: &Session, args: &Status) -> Result<Exit, Failure> {
    let cluster = session.cluster().await?;
    if args.wait {
        return wait(session, &cluster, args).await;
    }
    if args.watch {
        return watch(session, &cluster, args).await;
    }
    if let Some(name) = &args.name {
        session.print(&one(&cluster, Some(name)).await?)?;
        return Ok(Exit::OK);
    }
    let mut items = Vec::new();
    for rollout in find::rollouts(&cluster).await? {
        items.push(picture(&cluster, &rollout).await?);
    }
    session.print(&StatusListReport { items })?;
    Ok(Exit::OK)
}

async fn one(cluster: &Cluster, name: Option<&str>) -> Result<StatusReport, Failure> {
    let rollout = find::rollout(cluster, name).await?;
    picture(cluster, &rollout).await
}

async fn picture(cluster: &Cluster, rollout: &Rollout) -> Result<StatusReport, Failure> {
    let releases = find::releases(cluster, &rollout.name_any()).await?;
    let release = find::present(rollout, &releases).map(|release| ReleaseReport::new(release, clock::now()));
    Ok(StatusReport { rollout: rollout.into(), release })
}

/// Follows the running release to its end; without one, the outcome is that of the last.
async fn wait(session: &Session, cluster: &Cluster, args: &Status) -> Result<Exit, Failure> {
    let rollout = find::rollout(cluster, args.name.as_deref()).await?;
    let releases = find::releases(cluster, &rollout.name_any()).await?;
    let Some(release) = find::present(&rollout, &releases) else {
        session.say("There was no release yet; nothing is on its way.");
        session.print(&picture(cluster, &rollout).await?)?;
        return Ok(Exit::OK);
    };
    follow::to_end(session, cluster, &release.name_any(), args.timeout).await
}

/// Prints the picture again whenever it changes: in a terminal over the old one, else one line per change.
async fn watch(session: &Session, cluster: &Cluster, args: &Status) -> Result<Exit, Failure> {
    // The name is settled once: a second Rollout that appears later does not end the watch.
    let name = find::rollout(cluster, args.name.as_deref()).await?.name_any();
    let plain = session.global.output != Format::Text || !session.paints();
    let mut last = None;
    loop {
        let report = one(cluster, Some(&name)).await?;
        let mut shown = serde_json::to_value(&report).unwrap_or_default();
        // The clock is not a change: in a pipe it would make a line each second.
        if let Some(release) = shown.get_mut("release").and_then(serde_json::Value::as_object_mut) {
            release.remove("at");
            release.remove("tookSeconds");
            if let Some(step) = release.get_mut("step").and_then(serde_json::Value::as_object_mut) {
                step.remove("elapsedSeconds");
            }
        }
        let changed = last.as_ref() != Some(&shown);
        if session.global.output == Format::Text && plain {
            if changed {
                let line = report.release.as_ref().map_or_else(
                    || crate::report::rollout::phase_words(report.rollout.phase).to_owned(),
                    release_text::line,
                );
                session.out(&format!("{}  {}  {line}\n", timestamp(), report.rollout.name))?;
            }
        } else if plain {
            if changed {
                session.print(&report)?;
            }
        } else {
            // Home, then clear what is below: no flicker.
            session.out("\x1b[H\x1b[J")?;
            session.print(&report)?;
        }
        last = Some(shown);
        tokio::select! {
            () = tokio::time::sleep(std::time::Duration::from_secs(1)) => {}
            _ = tokio::signal::ctrl_c() => return Ok(Exit::OK),
        }
    }
}

/// The present moment for plain lines, to the second in UTC.
pub(super) fn timestamp() -> String {
    clock::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Lists the Rollouts.
pub async fn list(session: &Session, args: &List) -> Result<Exit, Failure> {
    let cluster = session.cluster().await?;
    let all = args.all_namespaces;
    let (rollouts, releases): (Api<Rollout>, Api<Release>) = if all {
        (Api::all(cluster.client.clone()), Api::all(cluster.client.clone()))
    } else {
        (cluster.rollouts(), cluster.releases())
    };
    let listed = find::list(&cluster, "list the Rollouts", &rollouts).await?;
    let releases = find::list(&cluster, "list the Releases", &releases).await?.items;
    for (namespace, name, why) in &listed.unreadable {
        session.say(&format!("Rollout {namespace}/{name} cannot be read by this version of belay: {why}"));
    }
    let mut rollouts = listed.items;
    rollouts.sort_by_key(|rollout| (rollout.namespace(), rollout.name_any()));
    let items = rollouts
        .iter()
        .map(|rollout| {
            let running = releases.iter().find(|release| {
                release.namespace() == rollout.namespace()
                    && release.spec.rollout == rollout.name_any()
                    && !find::is_final(release)
            });
            let report = running.map(|release| ReleaseReport::new(release, clock::now()));
            ListItem {
                rollout: RolloutReport::from(rollout),
                release_phase: report.as_ref().map(|report| report.phase),
                step: report.as_ref().map(release_text::step_words),
                weight: report.and_then(|report| report.weight).map(|weight| weight.reached),
            }
        })
        .collect();
    session.print(&ListReport { all_namespaces: all, items })?;
    Ok(Exit::OK)
}

/// `within 30m`, or nothing.
pub(super) fn within(limit: Option<std::time::Duration>) -> String {
    limit.map_or(String::new(), |limit| format!(" within {}", seconds(limit)))
}
