//! `install`, `uninstall` and `crds`.

use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};

use super::args::{Crds, Format, Install, Uninstall};
use super::failure::{Exit, Failure, Kind};
use super::seams::{self, InstallOptions};
use super::session::{Cluster, Session};
use super::version::OPERATOR_SELECTOR;
use crate::api::{OPERATOR_NAMESPACE, Release, Rollout};
use crate::report::objects::ObjectsReport;
use crate::report::{seconds, yaml};

fn options(session: &Session, image: Option<String>) -> InstallOptions {
    let namespace = session.global.namespace.clone().unwrap_or_else(|| OPERATOR_NAMESPACE.to_owned());
    InstallOptions { namespace, image }
}

/// Applies the manifests, or prints them.
pub async fn install(session: &Session, args: &Install) -> Result<Exit, Failure> {
    let options = options(session, args.image.clone());
    let manifests = seams::manifests(&options);
    if args.dry_run {
        if session.global.output == Format::Json {
            let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": manifests});
            session.out(&format!("{list:#}\n"))?;
        } else {
            session.out(&seams::manifests_yaml(&manifests)?)?;
        }
        return Ok(Exit::OK);
    }
    let cluster = session.cluster().await?;
    let (objects, warning) = seams::apply(&cluster.client, &options).await?;
    if let Some(warning) = warning {
        session.say(warning);
    }
    if !args.no_wait {
        session.say("Waiting for the operator to be available ...");
        available(&cluster, &options.namespace).await?;
    }
    let message =
        format!("Installed. `{} init DEPLOYMENT` writes a Rollout for a Deployment.", session.program);
    session.print(&ObjectsReport { objects, message })?;
    Ok(Exit::OK)
}

async fn available(cluster: &Cluster, namespace: &str) -> Result<(), Failure> {
    let patience = Duration::from_secs(120);
    let begun = tokio::time::Instant::now();
    let api: Api<Deployment> = Api::namespaced(cluster.client.clone(), namespace);
    loop {
        let found = cluster
            .ask("look for the operator", api.list(&ListParams::default().labels(OPERATOR_SELECTOR)))
            .await?;
        let ready = found.items.iter().any(|deployment| {
            let status = deployment.status.clone().unwrap_or_default();
            status.observed_generation == deployment.metadata.generation
                && status.available_replicas.unwrap_or(0) > 0
        });
        if ready {
            return Ok(());
        }
        if begun.elapsed() > patience {
            return Err(Failure::new(Kind::TimedOut, "failed to see the operator become available")
                .because(format!("it was not within {}; the manifests are applied", seconds(patience)))
                .hint(format!(
                    "kubectl -n {namespace} get pods shows what it waits for; is the image reachable?"
                ))
                .hint("`belay doctor` checks the installation"));
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
            _ = tokio::signal::ctrl_c() => {
                return Err(Failure::new(Kind::Interrupted, "the manifests are applied; the operator is starting")
                    .hint("`belay doctor` checks it"));
            }
        }
    }
}

/// Ends the releases, then removes everything that was installed.
pub async fn uninstall(session: &Session, args: &Uninstall) -> Result<Exit, Failure> {
    let cluster = session.cluster().await?;
    let options = options(session, None);
    if !args.yes {
        if !std::io::stdin().is_terminal() {
            return Err(Failure::new(Kind::Usage, "failed to ask whether to remove Belay")
                .because("there is no terminal")
                .hint("`belay uninstall --yes` does not ask"));
        }
        let what = if args.keep_crds {
            "Running releases are ended."
        } else {
            "Rollouts and history are deleted, running releases ended."
        };
        let question = format!("Remove Belay from {}? {what} Workloads go on serving.", cluster.server);
        if !session.confirm(&question)? {
            session.say("Nothing was changed.");
            return Ok(Exit::ERROR);
        }
    }
    if args.keep_crds {
        end_releases_only(session, &cluster, args.timeout).await?;
    } else {
        delete_rollouts(session, &cluster, args.timeout).await?;
    }
    let done = seams::remove(&cluster.client, &options, args.keep_crds).await?;
    session.print(&ObjectsReport {
        objects: done,
        message: "Removed. Workloads go on serving.".to_owned(),
    })?;
    Ok(Exit::OK)
}

/// Deletes every Rollout; its finalizer gives back everything that was borrowed.
async fn delete_rollouts(session: &Session, cluster: &Cluster, patience: Duration) -> Result<(), Failure> {
    let all: Api<Rollout> = Api::all(cluster.client.clone());
    let listed = cluster.ask("list the Rollouts", all.list(&ListParams::default())).await;
    let rollouts = match listed {
        Ok(list) => list.items,
        // Without the definition there is nothing to end.
        Err(failure) if failure.kind == Kind::NotFound => return Ok(()),
        Err(failure) => return Err(failure),
    };
    for rollout in &rollouts {
        let (name, namespace) = (rollout.name_any(), rollout.namespace().unwrap_or_default());
        session.say(&format!("Deleting the Rollout {namespace}/{name} ..."));
        let api: Api<Rollout> = Api::namespaced(cluster.client.clone(), &namespace);
        let deleted = cluster
            .ask(format!("delete the Rollout {name}"), api.delete(&name, &DeleteParams::default()))
            .await;
        match deleted {
            Err(failure) if failure.kind != Kind::NotFound => return Err(failure),
            _ => {}
        }
    }
    wait_until(cluster, patience, "the Rollouts to go away", async || {
        let left = cluster.ask("list the Rollouts", all.list(&ListParams::default())).await?.items;
        Ok(left
            .iter()
            .map(|rollout| format!("{}/{}", rollout.namespace().unwrap_or_default(), rollout.name_any()))
            .collect())
    })
    .await
}

/// With the definitions the Rollouts stay, so that each running release has to be ended by a command first.
async fn end_releases_only(session: &Session, cluster: &Cluster, patience: Duration) -> Result<(), Failure> {
    let all: Api<Release> = Api::all(cluster.client.clone());
    let running = async || -> Result<Vec<String>, Failure> {
        let list = match cluster.ask("list the Releases", all.list(&ListParams::default())).await {
            Ok(list) => list.items,
            Err(failure) if failure.kind == Kind::NotFound => Vec::new(),
            Err(failure) => return Err(failure),
        };
        Ok(list
            .iter()
            .filter(|release| !super::find::is_final(release))
            .map(|release| format!("{}/{}", release.namespace().unwrap_or_default(), release.name_any()))
            .collect())
    };
    for release in running().await? {
        session.say(&format!("Aborting the release {release} ..."));
        let (namespace, name) = release.split_once('/').unwrap_or(("", &release));
        let there = Cluster { namespace: namespace.to_owned(), ..cluster.clone() };
        super::commands::abort_for_uninstall(&there, name).await?;
    }
    wait_until(cluster, patience, "the releases to end", running).await
}

async fn wait_until(
    _: &Cluster,
    patience: Duration,
    what: &str,
    left: impl AsyncFn() -> Result<Vec<String>, Failure>,
) -> Result<(), Failure> {
    let begun = tokio::time::Instant::now();
    loop {
        let left = left().await?;
        if left.is_empty() {
            return Ok(());
        }
        if begun.elapsed() > patience {
            return Err(Failure::new(Kind::TimedOut, format!("failed to wait for {what}"))
                .because(format!("left after {}: {}", seconds(patience), left.join(", ")))
                .hint("`belay doctor` checks whether the operator runs: it gives back what a release has borrowed")
                .hint("nothing was removed; run the command again, with a longer --timeout if needed"));
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
            _ = tokio::signal::ctrl_c() => {
                return Err(Failure::new(Kind::Interrupted, "nothing was removed yet").hint("run the command again to go on"));
            }
        }
    }
}

/// Prints the definitions of the custom resources.
pub fn crds(session: &Session, args: &Crds) -> Result<Exit, Failure> {
    if let Some(folder) = &args.write {
        return write_files(session, folder);
    }
    let all = crate::install::crds();
    match session.global.output {
        Format::Json => {
            let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": all});
            session.out(&format!("{list:#}\n"))?;
        }
        Format::Name => {
            for crd in &all {
                let name = crd["metadata"]["name"].as_str().unwrap_or_default();
                session.out(&format!("customresourcedefinition/{name}\n"))?;
            }
        }
        Format::Text | Format::Yaml => {
            let texts: Vec<String> = all.iter().map(yaml).collect::<Result<_, _>>()?;
            session.out(&texts.join("---\n"))?;
        }
    }
    Ok(Exit::OK)
}

/// Writes all manifests of this version into a folder.
fn write_files(session: &Session, folder: &Path) -> Result<Exit, Failure> {
    for (name, text) in seams::files()? {
        let path = folder.join(name);
        std::fs::write(&path, text)
            .map_err(|error| Failure::io(format!("failed to write {}", path.display()), &error))?;
        session.say(&format!("wrote {}", path.display()));
    }
    Ok(Exit::OK)
}
