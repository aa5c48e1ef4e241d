//! `install`, `uninstall` and `crds`.

use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use kube::api::ListParams;

use super::args::{BrakeChoice, Crds, Format, Install, Uninstall};
use super::failure::{Exit, Failure, Kind};
use super::session::{Cluster, Session};
use super::version::OPERATOR_SELECTOR;
use crate::api::{BrakeForm, OPERATOR_NAMESPACE};
use crate::install::{self, Change, Options, Outcome};
use crate::report::objects::{ObjectReport, ObjectsReport};
use crate::report::seconds;

fn options(session: &Session) -> Options {
    let namespace = session.global.namespace.clone().unwrap_or_else(|| OPERATOR_NAMESPACE.to_owned());
    Options::in_namespace(&namespace)
}

/// Applies the manifests, or prints them.
pub async fn install(session: &Session, args: &Install) -> Result<Exit, Failure> {
    let mut options = options(session);
    if let Some(image) = &args.image {
        options.image.clone_from(image);
    }
    options.webhook_url.clone_from(&args.webhook_url);
    if args.dry_run {
        // Nobody is asked: what is printed is the same on every machine.
        options.brake = chosen(args.brake).unwrap_or(BrakeForm::Policy);
        let manifests = install::objects(&options);
        if session.global.output == Format::Json {
            let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": manifests});
            session.out(&format!("{list:#}\n"))?;
        } else {
            session.out(&install::render_yaml(&manifests)?)?;
        }
        return Ok(Exit::OK);
    }
    let cluster = session.cluster().await?;
    options.brake = match chosen(args.brake) {
        Some(form) => form,
        None => install::best_form(&cluster.client).await?,
    };
    let mut done = install::install(&cluster.client, &options).await?;
    if options.brake == BrakeForm::Webhook {
        session.say(&format!("note: {}", install::WITH_WEBHOOK));
    }
    if !args.no_wait {
        session.say("Waiting for the operator to be available ...");
        available(&cluster, &options.namespace).await?;
        if options.brake == BrakeForm::Webhook {
            install::wait_for_brake(&cluster.client, &options).await?;
            done.extend(install::remove_other_form(&cluster.client, &options).await?);
        }
    }
    let message =
        format!("Installed. `{} init DEPLOYMENT` writes a Rollout for a Deployment.", session.program);
    session.print(&ObjectsReport { objects: rows(done), message })?;
    Ok(Exit::OK)
}

fn chosen(choice: BrakeChoice) -> Option<BrakeForm> {
    match choice {
        BrakeChoice::Auto => None,
        BrakeChoice::Policy => Some(BrakeForm::Policy),
        BrakeChoice::Webhook => Some(BrakeForm::Webhook),
    }
}

fn rows(done: Vec<Outcome>) -> Vec<ObjectReport> {
    done.into_iter()
        .map(|outcome| {
            // `Kind/name` or `Kind/namespace/name`.
            let parts: Vec<&str> = outcome.object.split('/').collect();
            let (kind, namespace, name) = match parts.as_slice() {
                [kind, namespace, name] => (*kind, Some((*namespace).to_owned()), *name),
                [kind, name] => (*kind, None, *name),
                _ => ("", None, outcome.object.as_str()),
            };
            let done = match outcome.change {
                Change::Created => "created",
                Change::Changed => "configured",
                Change::Unchanged => "unchanged",
                Change::Removed => "removed",
                Change::Absent => "was not there",
            };
            ObjectReport { kind: kind.to_owned(), name: name.to_owned(), namespace, done: done.to_owned() }
        })
        .collect()
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
    let options = options(session);
    if !args.yes {
        if !std::io::stdin().is_terminal() {
            return Err(Failure::new(Kind::Usage, "failed to ask whether to remove Belay")
                .because("there is no terminal")
                .hint("`belay uninstall --yes` does not ask"));
        }
        let question = format!(
            "Remove Belay from {}? Running releases are ended, Rollouts and history deleted. Workloads go on serving.",
            cluster.server
        );
        if !session.confirm(&question)? {
            session.say("Nothing was changed.");
            return Ok(Exit::ERROR);
        }
    }
    let ending = install::end_releases(&cluster.client, args.timeout, |progress| {
        session.say(&format!("Ending {} ...", progress.left.join(", ")));
    });
    tokio::select! {
        ended = ending => ended?,
        _ = tokio::signal::ctrl_c() => {
            return Err(Failure::new(Kind::Interrupted, "the Rollouts are being deleted; nothing else was removed yet")
                .hint("run the command again to go on"));
        }
    }
    let mut objects = install::all_objects(&options);
    if args.keep_crds {
        objects.retain(|object| object["kind"] != "CustomResourceDefinition");
    }
    let done = install::remove(&cluster.client, &objects).await?;
    session.print(&ObjectsReport {
        objects: rows(done),
        message: "Removed. Workloads go on serving.".to_owned(),
    })?;
    Ok(Exit::OK)
}

/// Prints the definitions of the custom resources.
pub fn crds(session: &Session, args: &Crds) -> Result<Exit, Failure> {
    if let Some(folder) = &args.write {
        return write_files(session, folder);
    }
    let all = install::crds();
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
        Format::Text | Format::Yaml | Format::Jsonl | Format::Svg => {
            session.out(&install::render_yaml(&all)?)?;
        }
    }
    Ok(Exit::OK)
}

/// Writes all manifests of this version into a folder.
fn write_files(session: &Session, folder: &Path) -> Result<Exit, Failure> {
    for (name, text) in install::files()? {
        let path = folder.join(name);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)
                .map_err(|error| Failure::io(format!("failed to make {}", folder.display()), &error))?;
        }
        std::fs::write(&path, text)
            .map_err(|error| Failure::io(format!("failed to write {}", path.display()), &error))?;
        session.say(&format!("wrote {}", path.display()));
    }
    Ok(Exit::OK)
}
