//! Finds the Rollout and the Release that a person means.

use kube::{Api, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::failure::{Failure, Kind};
use super::session::Cluster;
use crate::api::{Release, Rollout};

/// What a list holds, object by object: one that a newer version wrote must not hide the others.
#[derive(Debug)]
pub struct Listed<T> {
    /// Those that can be read.
    pub items: Vec<T>,
    /// Namespace and name of those that cannot, and why.
    pub unreadable: Vec<(String, String, String)>,
}

impl<T: DeserializeOwned> Listed<T> {
    fn new(list: &Value) -> Self {
        let mut listed = Self { items: Vec::new(), unreadable: Vec::new() };
        for object in list["items"].as_array().into_iter().flatten() {
            match T::deserialize(object) {
                Ok(item) => listed.items.push(item),
                Err(error) => {
                    let text =
                        |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
                    listed.unreadable.push((text("namespace"), text("name"), error.to_string()));
                }
            }
        }
        listed
    }
}

/// Lists the objects of ours that an API has.
pub async fn list<T: DeserializeOwned + kube::Resource>(
    cluster: &Cluster,
    what: &str,
    api: &Api<T>,
) -> Result<Listed<T>, Failure> {
    let request = http::Request::get(api.resource_url()).body(Vec::new());
    let request = async { cluster.client.request::<Value>(request.map_err(kube::Error::HttpError)?).await };
    Ok(Listed::new(&cluster.ask(what, request).await?))
}

/// All Rollouts of the namespace that can be read, by name.
pub async fn rollouts(cluster: &Cluster) -> Result<Vec<Rollout>, Failure> {
    Ok(listed(cluster).await?.items)
}

async fn listed(cluster: &Cluster) -> Result<Listed<Rollout>, Failure> {
    let what = format!("list the Rollouts in namespace {}", cluster.namespace);
    let mut all = list(cluster, &what, &cluster.rollouts()).await?;
    all.items.sort_by_key(ResourceExt::name_any);
    Ok(all)
}

/// The Rollout of this name, or that governs the workload of this name; without a name, the only one.
pub async fn rollout(cluster: &Cluster, name: Option<&str>) -> Result<Rollout, Failure> {
    let all = listed(cluster).await?;
    if let Some((_, name, why)) = all.unreadable.iter().find(|(_, known, _)| name.map(bare) == Some(known)) {
        return Err(Failure::new(Kind::Failed, format!("failed to read the Rollout {name}"))
            .because(why.clone())
            .hint("use the version of belay that wrote it; `belay version` compares the versions"));
    }
    choose(all.items, name, &cluster.namespace)
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
    // One of another Rollout that cannot be read must not keep anybody from an abort.
    let mut items = list(cluster, &what, &cluster.releases()).await?.items;
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
    fn one_that_cannot_be_read_does_not_hide_the_others() {
        let newer = json!({"metadata": {"namespace": "shop", "name": "web"}, "spec": {"bake": "1h"}});
        let list = json!({"items": [newer, serde_json::to_value(rollout("api", "api")).unwrap()]});
        let listed = Listed::<Rollout>::new(&list);
        assert_eq!(listed.items.len(), 1);
        let (namespace, name, why) = &listed.unreadable[0];
        assert_eq!((namespace.as_str(), name.as_str()), ("shop", "web"));
        assert!(!why.is_empty());
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
