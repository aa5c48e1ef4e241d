//! `undo`: puts the stable, or an earlier, pod template back.

use k8s_openapi::api::apps::v1::ReplicaSet;
use kube::api::ListParams;
use kube::core::DynamicObject;
use kube::{Resource, ResourceExt};

use super::args::Undo;
use super::failure::{Exit, Failure, Kind};
use super::release::{Whole, braked, started, workload, write};
use super::session::Session;
use super::{find, template};
use crate::api::{Rollout, RolloutPhase};
use crate::report::change::{ChangeReport, differences};

const REVISION: &str = "deployment.kubernetes.io/revision";

/// Puts a template back.
pub async fn run(session: &Session, args: &Undo) -> Result<Exit, Failure> {
    let cluster = session.cluster().await?;
    let rollout = find::rollout(&cluster, args.name.as_deref()).await?;
    let deployment = workload(&cluster, &rollout).await?;
    let what = format!("list the ReplicaSets in namespace {}", cluster.namespace);
    let owned: Vec<DynamicObject> = cluster
        .ask(what, cluster.raw::<ReplicaSet>().list(&ListParams::default()))
        .await?
        .items
        .into_iter()
        .filter(|set| {
            set.owner_references().iter().any(|owner| Some(&owner.uid) == deployment.uid().as_ref())
        })
        .collect();
    let (set, resting) = choose(&rollout, &deployment, &owned, args.to_revision)?;
    let whole = set.data_with_metadata();
    let template = template::of_replica_set(&whole).ok_or_else(|| {
        Failure::new(Kind::Failed, format!("failed to read the template of {}", set.name_any()))
    })?;
    let change = template::replace(&deployment.data_with_metadata(), &template);
    let number = revision(set).map_or(String::new(), |number| format!(" (revision {number})"));
    let mut report = ChangeReport {
        workload: rollout.spec.workload_ref.name.clone(),
        namespace: cluster.namespace.clone(),
        rollout: rollout.name_any(),
        written: false,
        message: format!("Nothing to change: the template is that of {}{number} already.", set.name_any()),
        differences: differences(&change.before, &change.after),
    };
    if change.patch.is_empty() {
        session.print(&report)?;
        return Ok(Exit::OK);
    }
    let then = if resting {
        "A release starts, in steps like every change."
    } else {
        "It is the template that serves: no release is needed; one that runs ends, and its canary goes away."
    };
    report.message = if args.dry_run {
        format!("Nothing was written. With the template of {}{number}: {then}", set.name_any())
    } else {
        format!("The template of {}{number} is back. {then}", set.name_any())
    };
    if args.dry_run {
        session.print(&report)?;
        return Ok(Exit::OK);
    }
    if resting {
        braked(&rollout)?;
    }
    let before = find::releases(&cluster, &rollout.name_any()).await?;
    write(&cluster, &rollout, &change).await?;
    report.written = true;
    if args.wait && resting {
        session.say(&report.message);
        return started(session, &cluster, &rollout, &before, args.timeout).await;
    }
    session.print(&report)?;
    Ok(Exit::OK)
}

/// The ReplicaSet whose template comes back, and whether that is a new change.
fn choose<'a>(
    rollout: &Rollout,
    deployment: &DynamicObject,
    sets: &'a [DynamicObject],
    wanted: Option<i64>,
) -> Result<(&'a DynamicObject, bool), Failure> {
    let name = rollout.name_any();
    let tried = format!("failed to undo the change of {name}");
    let status = rollout.status.clone().unwrap_or_default();
    let stable = status.stable.as_ref().map(|stable| stable.replica_set.clone());
    let is_stable = |set: &DynamicObject| Some(set.name_any()) == stable;
    if let Some(wanted) = wanted {
        let mut numbers: Vec<i64> = sets.iter().filter_map(revision).collect();
        numbers.sort_unstable();
        let found = sets.iter().find(|set| revision(set) == Some(wanted)).ok_or_else(|| {
            let known = numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            Failure::new(Kind::NotFound, tried.clone())
                .because(format!("there is no revision {wanted}; there are: {known}"))
                .hint(format!(
                    "kubectl rollout history deployment/{} shows them",
                    rollout.spec.workload_ref.name
                ))
        })?;
        return Ok((found, !is_stable(found)));
    }
    let on_its_way = matches!(
        status.phase,
        Some(RolloutPhase::Releasing | RolloutPhase::Rejected | RolloutPhase::Held | RolloutPhase::Unguarded)
    );
    if on_its_way {
        let found = sets.iter().find(|set| is_stable(set));
        return found.map(|set| (set, false)).ok_or_else(|| {
            Failure::new(Kind::NotFound, tried)
                .because("the ReplicaSet of the stable revision is not there")
                .hint("--to-revision chooses another one")
        });
    }
    // The canary of a release has no number before it is handed over; then the controller gives it one.
    let current = revision_of(deployment.meta().annotations.as_ref()).unwrap_or(i64::MAX);
    let previous = sets.iter().filter(|set| !is_stable(set) && revision(set).is_some_and(|n| n < current));
    previous.max_by_key(|set| revision(set)).map(|set| (set, true)).ok_or_else(|| {
        Failure::new(Kind::NotFound, tried).because("there is no template before the present one")
    })
}

fn revision(set: &DynamicObject) -> Option<i64> {
    revision_of(set.meta().annotations.as_ref())
}

fn revision_of(annotations: Option<&std::collections::BTreeMap<String, String>>) -> Option<i64> {
    annotations?.get(REVISION)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(name: &str, number: i64) -> DynamicObject {
        serde_json::from_value(
            json!({"metadata": {"name": name, "annotations": {REVISION: number.to_string()}}}),
        )
        .unwrap()
    }

    fn rollout(phase: &str) -> Rollout {
        serde_json::from_value(
            json!({"apiVersion": "belay.dev/v1alpha1", "kind": "Rollout", "metadata": {"name": "web"},
            "spec": {"workloadRef": {"kind": "Deployment", "name": "web"}},
            "status": {"phase": phase, "stable": {"revision": "c", "replicaSet": "web-c"}}}),
        )
        .unwrap()
    }

    #[test]
    fn at_rest_the_one_before_and_else_the_stable_one() {
        let sets = [object("web-a", 3), object("web-b", 1), object("web-c", 4)];
        let pick = |phase, wanted| {
            choose(&rollout(phase), &object("web", 4), &sets, wanted)
                .map(|(set, resting)| (set.name_any(), resting))
        };
        assert_eq!(pick("Stable", None).unwrap(), ("web-a".to_owned(), true));
        assert_eq!(pick("Rejected", None).unwrap(), ("web-c".to_owned(), false));
        assert_eq!(pick("Releasing", Some(1)).unwrap(), ("web-b".to_owned(), true));
        let failure = pick("Stable", Some(9)).unwrap_err();
        assert_eq!(failure.why.as_deref(), Some("there is no revision 9; there are: 1, 3, 4"));
    }
}
