//! `release`: changes a workload's template and follows the release to its end.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use kube::core::DynamicObject;
use serde_json::Value;
use tokio::time::Instant;

use super::args::Release as Args;
use super::failure::{Exit, Failure, Kind};
use super::session::{Cluster, Session};
use super::template::{self, Change};
use super::{find, follow};
use crate::api::{Release, Rollout, RolloutPhase};
use crate::report::change::{ChangeReport, differences};

/// The field manager of writes on behalf of a person.
pub(super) const MANAGER: &str = "belay-cli";
/// How long the operator has to start a release.
const START: Duration = Duration::from_secs(30);

/// Changes images and variables, then follows.
pub async fn run(session: &Session, args: &Args) -> Result<Exit, Failure> {
    if args.images.is_empty() && args.env.is_empty() {
        return Err(Failure::new(Kind::Usage, "failed to change the workload")
            .because("there is neither --image nor --env")
            .hint("`belay release web --image web=registry.example/web:1.2`"));
    }
    let images: Vec<_> =
        args.images.iter().map(|text| template::image_arg(text)).collect::<Result<_, _>>()?;
    let env: Vec<_> = args.env.iter().map(|text| template::env_arg(text)).collect::<Result<_, _>>()?;
    let cluster = session.cluster().await?;
    let rollout = find::rollout(&cluster, Some(&args.workload)).await?;
    let deployment = workload(&cluster, &rollout).await?;
    let change = template::change(&deployment.data_with_metadata(), &images, &env)?;
    let mut report = ChangeReport {
        workload: rollout.spec.workload_ref.name.clone(),
        namespace: cluster.namespace.clone(),
        rollout: rollout.name_any(),
        written: false,
        message: "Nothing to change: the template is so already.".to_owned(),
        differences: differences(&change.before, &change.after),
    };
    if change.patch.is_empty() {
        session.print(&report)?;
        return Ok(Exit::OK);
    }
    not_vetoed(&rollout, &change)?;
    if args.dry_run {
        "Nothing was written.".clone_into(&mut report.message);
        session.print(&report)?;
        return Ok(Exit::OK);
    }
    braked(&rollout)?;
    let before = find::releases(&cluster, &rollout.name_any()).await?;
    write(&cluster, &rollout, &change).await?;
    report.written = true;
    if args.follow.no_wait {
        report.message = format!(
            "The release starts now; follow it with: {} status {} --wait",
            session.program,
            rollout.name_any()
        );
        session.print(&report)?;
        return Ok(Exit::OK);
    }
    started(session, &cluster, &rollout, &before, args.follow.timeout).await
}

/// The raw Deployment that the Rollout governs.
pub(super) async fn workload(cluster: &Cluster, rollout: &Rollout) -> Result<DynamicObject, Failure> {
    let name = &rollout.spec.workload_ref.name;
    cluster.ask(format!("read the Deployment {name}"), cluster.raw::<Deployment>().get(name)).await
}

/// Access to a raw object as one JSON value.
pub(super) trait Whole {
    /// Spec and metadata in one value.
    fn data_with_metadata(&self) -> Value;
}

impl Whole for DynamicObject {
    fn data_with_metadata(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// A change that would slip past the brake is not made.
pub(super) fn braked(rollout: &Rollout) -> Result<(), Failure> {
    let name = rollout.name_any();
    let tried = format!("failed to change the workload of {name} safely");
    let status = rollout.status.clone().unwrap_or_default();
    let condition = status.conditions.iter().find(|condition| condition.type_ == "BrakeEngaged");
    match condition {
        Some(condition) if condition.status == "True" => Ok(()),
        Some(condition) => Err(Failure::new(Kind::Refused, tried)
            .because(format!("the brake is not engaged: {}", condition.message))
            .hint("`belay doctor` says how to engage it; until then a change would go out all at once")),
        None => Err(Failure::new(Kind::Refused, tried)
            .because("the operator has not looked at this Rollout yet, so that the brake may not be engaged")
            .hint("`belay doctor` checks whether the operator runs")),
    }
}

/// A revision that was rejected would wait for ever.
fn not_vetoed(rollout: &Rollout, change: &Change) -> Result<(), Failure> {
    let revision = crate::decide::revision(&change.after);
    let vetoed =
        rollout.status.iter().flat_map(|status| &status.vetoed).find(|veto| veto.revision == revision);
    vetoed.map_or(Ok(()), |veto| Err(rejected(rollout, Some(&veto.release))))
}

fn rejected(rollout: &Rollout, by: Option<&str>) -> Failure {
    let name = rollout.name_any();
    let by = by.map_or(String::new(), |release| format!(" by {release}"));
    Failure::new(Kind::Refused, format!("failed to release this change of {name}"))
        .because(format!("exactly this template was rejected before{by}"))
        .hint(format!("`belay explain {name}` tells why"))
        .hint(format!("`belay retry {name}` lifts the veto and starts a new attempt"))
}

/// Writes the change.
pub(super) async fn write(cluster: &Cluster, rollout: &Rollout, change: &Change) -> Result<(), Failure> {
    let name = &rollout.spec.workload_ref.name;
    let patch: json_patch::Patch =
        serde_json::from_value(Value::Array(change.patch.clone())).map_err(|error| {
            Failure::new(Kind::Failed, "failed to write the change").because(error.to_string())
        })?;
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..Default::default() };
    let (api, patch) = (cluster.raw::<Deployment>(), Patch::<DynamicObject>::Json(patch));
    let sent = cluster.ask(format!("change the Deployment {name}"), api.patch(name, &params, &patch)).await;
    sent.map(|_| ()).map_err(|failure| {
        if failure.kind == Kind::Refused {
            failure.hint("if somebody changed it at the same moment, run the command again")
        } else {
            failure
        }
    })
}

/// Waits for the release that a change starts, and follows it.
pub(super) async fn started(
    session: &Session,
    cluster: &Cluster,
    rollout: &Rollout,
    before: &[Release],
    limit: Option<Duration>,
) -> Result<Exit, Failure> {
    let name = rollout.name_any();
    let begun = Instant::now();
    let mut told = false;
    loop {
        let releases = find::releases(cluster, &name).await?;
        let new = releases
            .iter()
            .find(|release| !before.iter().any(|known| known.name_any() == release.name_any()));
        if let Some(new) = new {
            let left = limit.map(|limit| limit.saturating_sub(begun.elapsed()));
            return follow::to_end(session, cluster, &new.name_any(), left).await;
        }
        let now = cluster.ask(format!("read the Rollout {name}"), cluster.rollouts().get(&name)).await?;
        let status = now.status.clone().unwrap_or_default();
        let settled = begun.elapsed() > Duration::from_secs(3);
        match status.phase {
            Some(RolloutPhase::Rejected) if settled => return Err(rejected(&now, status.release.as_deref())),
            Some(RolloutPhase::Stable) if settled && complete(cluster, &now).await? => {
                session.say("No release was needed: this is the template that serves already.");
                return Ok(Exit::OK);
            }
            Some(RolloutPhase::Held) if !told => {
                session.say("The change waits, because the Rollout is paused (spec.paused).");
                told = true;
            }
            _ => {}
        }
        let held = status.phase == Some(RolloutPhase::Held);
        let patience = limit.unwrap_or(if held { Duration::MAX } else { START });
        if begun.elapsed() > patience {
            return Err(Failure::new(Kind::TimedOut, format!("failed to see a release of {name} start"))
                .because(format!(
                    "there was none within {}; the change is written",
                    crate::report::seconds(patience)
                ))
                .hint(format!(
                    "`belay status {name}` shows where it stands; `belay doctor` checks the operator"
                )));
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(500)) => {}
            _ = tokio::signal::ctrl_c() => {
                return Err(Failure::new(Kind::Interrupted, format!("the change of {name} is written; its release goes on"))
                    .hint(format!("follow it with `belay status {name} --wait`, or end it with `belay abort {name}`")));
            }
        }
    }
}

/// Whether the Deployment runs, unpaused and fully, the template that it asks for.
async fn complete(cluster: &Cluster, rollout: &Rollout) -> Result<bool, Failure> {
    let object = workload(cluster, rollout).await?.data_with_metadata();
    let seen = object["status"]["observedGeneration"] == object["metadata"]["generation"];
    let paused = object["spec"]["paused"].as_bool().unwrap_or(false);
    let all = object["status"]["updatedReplicas"] == object["spec"]["replicas"];
    Ok(seen && !paused && all)
}
