//! Finds the Rollout and the Release that a person means.

use kube::ResourceExt;
use kube::api::ListParams;

use super::failure::{Failure, Kind};
use super::session::Cluster;
use crate::api::{Release, Rollout};

/// All Rollouts of the namespace, by name.
pub async fn rollouts(cluster: &Cluster) -> Result<Vec<Rollout>, Failure> {
    let what = format!("list the Rollouts in namespace {}", cluster.namespace);
    let mut items = cluster.ask(what, cluster.rollouts().list(&ListParams::default())).await?.items;
    items.sort_by_key(ResourceExt::name_any);
    Ok(items)
}

/// The Rollout of this name, or that governs the workload of this name; without a name, the only one.
pub async fn rollout(cluster: &Cluster, name: Option<&str>) -> Result<Rollout, Failure> {
    choose(rollouts(cluster).await?, name, &cluster.namespace)
}

fn choose(mut all: Vec<Rollout>, name: Option<&str>, namespace: &str) -> Result<Rollout, Failure> {
    let Some(name) = name.map(bare) else {
        let tried = "failed to find out which Rollout you mean";
        if all.len() > 1 {
            let names: Vec<String> = all.iter().map(ResourceExt::name_any).collect();
            return Err(Failure::new(Kind::Usage, tried)
                .because(format!("namespace {namespace} has {}: {}", all.len(), names.join(", ")))
                .hint("say which one, as the first argument"));
        }
        return all.pop().ok_or_else(|| {
            Failure::new(Kind::NotFound, tried)
                .because(format!("there is none in namespace {namespace}"))
                .hint("`belay list -A` shows those of all namespaces; -n chooses a namespace")
                .hint("`belay init DEPLOYMENT` writes one")
        });
    };
    if let Some(at) = all.iter().position(|rollout| rollout.name_any() == name) {
        return Ok(all.swap_remove(at));
    }
    if let Some(at) = all.iter().position(|rollout| rollout.spec.workload_ref.name == name) {
        return Ok(all.swap_remove(at));
    }
    let known: Vec<String> = all.iter().map(ResourceExt::name_any).collect();
    let mut failure = Failure::new(Kind::NotFound, format!("failed to find the Rollout of {name}")).because(
        if known.is_empty() {
            format!("there is no Rollout in namespace {namespace}")
        } else {
            format!("namespace {namespace} has {}", known.join(", "))
        },
    );
    failure = failure.hint(format!("`belay init {name}` writes a Rollout for a Deployment that exists"));
    Err(failure.hint("`belay list -A` shows those of all namespaces"))
}

/// `deployment/web` and `rollout/web` are `web`.
pub fn bare(name: &str) -> &str {
    match name.split_once('/') {
        Some((
            "deploy" | "deployment" | "deployments" | "deployment.apps" | "deployments.apps" | "rollout"
            | "rollouts" | "rollout.belay.dev" | "rollouts.belay.dev" | "release" | "releases"
            | "release.belay.dev" | "releases.belay.dev",
            rest,
        )) => rest,
        _ => name,
    }
}

/// The Releases of a Rollout, the newest first.
pub async fn releases(cluster: &Cluster, rollout: &str) -> Result<Vec<Release>, Failure> {
    let what = format!("list the Releases in namespace {}", cluster.namespace);
    let mut items = cluster.ask(what, cluster.releases().list(&ListParams::default())).await?.items;
    items.retain(|release| release.spec.rollout == rollout);
    items.sort_by_key(|release| {
        std::cmp::Reverse((release.metadata.creation_timestamp.clone(), release.spec.attempt))
    });
    Ok(items)
}

/// Whether nothing more happens in it.
pub fn is_final(release: &Release) -> bool {
    release.status.as_ref().is_some_and(|status| status.phase.is_final())
}

/// The release that runs, or else the last one: the one its Rollout names, or else the newest.
pub fn present<'a>(rollout: &Rollout, releases: &'a [Release]) -> Option<&'a Release> {
    let named = rollout.status.as_ref().and_then(|status| status.release.as_deref());
    releases
        .iter()
        .find(|release| !is_final(release))
        .or_else(|| releases.iter().find(|release| Some(release.name_any().as_str()) == named))
        .or_else(|| releases.first())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::RolloutSpec;
    use serde_json::json;

    fn rollout(name: &str, workload: &str) -> Rollout {
        let spec: RolloutSpec =
            serde_json::from_value(json!({"workloadRef": {"kind": "Deployment", "name": workload}})).unwrap();
        Rollout::new(name, spec)
    }

    #[test]
    fn a_rollout_is_found_by_its_own_name_then_by_its_workload() {
        let all = || vec![rollout("web", "front"), rollout("other", "web")];
        assert_eq!(choose(all(), Some("deploy/web"), "shop").unwrap().spec.workload_ref.name, "front");
        assert_eq!(choose(all(), Some("front"), "shop").unwrap().name_any(), "web");
        assert_eq!(choose(all(), None, "shop").unwrap_err().kind, Kind::Usage);
        assert_eq!(choose(Vec::new(), None, "shop").unwrap_err().kind, Kind::NotFound);
        let failure = choose(all(), Some("api"), "shop").unwrap_err();
        assert_eq!(failure.why.as_deref(), Some("namespace shop has web, other"));
    }
}
