//! The calls from the command line into the other parts of the program, with their errors turned into failures.

use kube::Client;
use serde_json::Value;

use super::args::Operator;
use super::failure::{Exit, Failure, Kind};
use super::session::Session;
use crate::api::Release;
use crate::api::rollout::Confidence;
pub use crate::api::validate::FieldError;
use crate::report::objects::ObjectReport;
use crate::report::release::{Evidence, Needs};
use crate::{analysis, api, install, operator as controller};

/// The present moment.
pub fn now() -> jiff::Timestamp {
    crate::clock::now()
}

/// What `install` can be told.
#[derive(Clone, Debug)]
pub struct InstallOptions {
    /// Namespace of the operator.
    pub namespace: String,
    /// Image of the operator; `None` for that of this version.
    pub image: Option<String>,
}

/// The manifests of an installation, in the order in which they are applied.
pub fn manifests(chosen: &InstallOptions) -> Vec<Value> {
    install::objects(&options(chosen))
}

fn options(chosen: &InstallOptions) -> install::Options {
    let mut options = install::Options::in_namespace(&chosen.namespace);
    if let Some(image) = &chosen.image {
        options.image.clone_from(image);
    }
    options
}

/// The manifests as one YAML text.
pub fn manifests_yaml(objects: &[Value]) -> Result<String, Failure> {
    install::render_yaml(objects).map_err(|error| failed("failed to print the manifests", &error))
}

/// The files of `manifests/`: name and content.
pub fn files() -> Result<Vec<(&'static str, String)>, Failure> {
    install::files().map_err(|error| failed("failed to make the manifests", &error))
}

/// Installs what the server can take; gives back what became of each object, and a warning.
pub async fn apply(
    client: &Client,
    chosen: &InstallOptions,
) -> Result<(Vec<ObjectReport>, Option<&'static str>), Failure> {
    let done = install::install(client, &options(chosen), false)
        .await
        .map_err(|error| failed("failed to install", &error).hint("the command can be run again; `belay doctor` checks what is there"))?;
    let warning = (!done.policies).then_some(install::WITHOUT_POLICIES);
    Ok((rows(&done.outcomes), warning))
}

/// Removes an installation; gives back what became of each object.
pub async fn remove(
    client: &Client,
    chosen: &InstallOptions,
    keep_crds: bool,
) -> Result<Vec<ObjectReport>, Failure> {
    let mut objects = manifests(chosen);
    if keep_crds {
        objects.retain(|object| object["kind"] != "CustomResourceDefinition");
    }
    let done = install::remove(client, &objects)
        .await
        .map_err(|error| failed("failed to remove the installation", &error).hint("the command can be run again"))?;
    Ok(rows(&done))
}

fn rows(outcomes: &[install::Outcome]) -> Vec<ObjectReport> {
    let word = |change| match change {
        install::Change::Created => "created",
        install::Change::Changed => "changed",
        install::Change::Unchanged => "unchanged",
        install::Change::Removed => "removed",
        install::Change::Absent => "was not there",
    };
    outcomes
        .iter()
        .map(|outcome| {
            let parts: Vec<&str> = outcome.object.split('/').collect();
            let (kind, namespace, name) = match parts.as_slice() {
                [kind, namespace, name] => (*kind, Some((*namespace).to_owned()), *name),
                [kind, name] => (*kind, None, *name),
                _ => (outcome.object.as_str(), None, ""),
            };
            ObjectReport {
                kind: kind.to_owned(),
                name: name.to_owned(),
                namespace,
                done: word(outcome.change).to_owned(),
            }
        })
        .collect()
}

/// Checks an object against schema and rules of its definition.
pub fn validate(crd: &Value, object: &Value) -> Vec<FieldError> {
    api::validate::validate(crd, object)
}

/// The digest of a pod template.
pub fn revision(template: &Value) -> String {
    crate::decide::revision(template)
}

/// Runs the operator until it is told to stop.
pub async fn operator(session: &Session, args: &Operator) -> Result<Exit, Failure> {
    let options = controller::Options {
        target: crate::cluster::Target {
            kubeconfig: session.global.kubeconfig.clone(),
            context: session.global.context.clone(),
        },
        namespace: session.global.namespace.clone(),
        listen: Some(args.listen),
        lease_namespace: args.lease_namespace.clone(),
        lease_name: args.lease_name.clone(),
        brake: args.brake.clone(),
        instance: format!("{}-{}", hostname(), std::process::id()),
    };
    controller::run(options).await.map(|()| Exit::OK).map_err(|error| failed("the operator ended", &error))
}

/// The pod's name inside a cluster.
fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "belay".to_owned() } else { name.to_owned() }
}

fn failed(what: &str, error: &dyn std::error::Error) -> Failure {
    let mut why = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        why = format!("{why}: {error}");
        cause = error.source();
    }
    Failure::new(Kind::Failed, what).because(why)
}

/// What the reports ask the decision engine.
pub struct Engine;

impl Evidence for Engine {
    fn needs(&self, confidence: Confidence, guards: usize) -> Needs {
        let (strict, margin) = analysis::needs(confidence, guards);
        Needs { strict, margin, safe: analysis::NEEDED_SAFE }
    }

    fn words(&self, release: &Release, guard: &str) -> Option<String> {
        let written = release.spec.analysis.as_ref()?;
        let plan = analysis::Plan::resolve(written, release.spec.planned_looks).ok()?;
        let guard = plan.guards.iter().find(|g| g.name == guard)?;
        let status = release.status.as_ref()?;
        let state = status.analysis.as_ref()?.guards.iter().find(|g| g.name == guard.name)?;
        let headline = headline(release, state);
        Some(analysis::explanation_text(&analysis::explain(state, guard, &plan), &headline))
    }
}

/// What became of it, when this guard decided it.
fn headline(release: &Release, guard: &api::evidence::GuardState) -> String {
    let Some(status) = &release.status else { return String::new() };
    let decided = status.reason.as_deref() == Some("GuardFailed")
        && status.message.as_deref().is_some_and(|m| m.starts_with(&format!("guard {}:", guard.name)));
    match (&status.started_at, &status.finished_at) {
        (Some(from), Some(to)) if decided => {
            let seconds = to.0.duration_since(from.0).as_secs();
            format!("Rolled back after {}.", crate::decide::seconds(seconds))
        }
        _ => String::new(),
    }
}
