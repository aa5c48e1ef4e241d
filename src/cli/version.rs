//! `version`.

use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use kube::api::ListParams;

use super::args::Version;
use super::failure::{Exit, Failure};
use super::session::Session;
use crate::report::version::VersionReport;

/// The label that every Kubernetes tool uses for a version.
pub(super) const VERSION_LABEL: &str = "app.kubernetes.io/version";
/// The label by which the operator's Deployment is found.
pub(super) const OPERATOR_SELECTOR: &str = "app.kubernetes.io/name=belay";

/// Prints the versions. A cluster that does not answer is no failure: the client's version is known.
pub async fn run(session: &Session, args: &Version) -> Result<Exit, Failure> {
    let mut report = VersionReport {
        client: env!("CARGO_PKG_VERSION").to_owned(),
        operator: None,
        operator_image: None,
        note: None,
    };
    if !args.client {
        match operator(session, &args.operator_namespace).await {
            Ok(Some(found)) => {
                report.operator =
                    found.metadata.labels.as_ref().and_then(|labels| labels.get(VERSION_LABEL)).cloned();
                report.operator_image = found
                    .spec
                    .and_then(|spec| spec.template.spec)
                    .and_then(|pod| pod.containers.into_iter().next())
                    .and_then(|container| container.image);
            }
            Ok(None) => report.note = Some(format!("none in namespace {}", args.operator_namespace)),
            Err(failure) => report.note = Some(failure.why.unwrap_or(failure.what)),
        }
    }
    session.print(&report)?;
    Ok(Exit::OK)
}

async fn operator(session: &Session, namespace: &str) -> Result<Option<Deployment>, Failure> {
    let cluster = session.cluster().await?;
    let api: Api<Deployment> = Api::namespaced(cluster.client.clone(), namespace);
    let params = ListParams::default().labels(OPERATOR_SELECTOR);
    Ok(cluster.ask("look for the operator", api.list(&params)).await?.items.into_iter().next())
}
