//! Takes an installation out of a cluster, and leaves the workloads serving.
//!
//! Purpose: two steps, in this order: [`end_releases`] while the operator still runs, then [`remove`].
//! May touch: a Kubernetes client. Must never: touch a workload, or take a finalizer off by force.

use std::time::Duration;

use kube::Client;
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, PartialObjectMeta};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::apply::{Change, Outcome, api_of, deadline, is_not_found, wait_until_gone};
use super::{Error, reference};
use crate::api::Rollout;

/// Between two looks at Rollouts that end: the operator gives back what it borrowed meanwhile.
const POLL: Duration = Duration::from_millis(500);

/// What is left to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The Rollouts that still have something to give back, `namespace/name`.
    pub left: Vec<String>,
    /// Since when it is waited for.
    pub waited: Duration,
}

/// Deletes all Rollouts and waits until the operator, which must run, has ended their releases and given back
/// what they borrowed: weight 0, canary gone, brake released. `progress` is called whenever fewer are left.
///
/// # Errors
/// Fails when some are left after `limit`. Nothing is lost: run it again, or look at the operator.
pub async fn end_releases(
    client: &Client,
    limit: Duration,
    mut progress: impl FnMut(&Progress),
) -> Result<(), Error> {
    let started = Instant::now();
    let all: Api<PartialObjectMeta<Rollout>> = Api::all(client.clone());
    let mut before = None;
    loop {
        let list = match deadline("read", "Rollouts", all.list(&ListParams::default())).await {
            Ok(list) => list.items,
            // The kind itself is gone, and every Rollout with it.
            Err(Error::Request { source, .. }) if is_not_found(&source) => return Ok(()),
            Err(error) => return Err(error),
        };
        for rollout in list.iter().filter(|r| r.metadata.deletion_timestamp.is_none()) {
            delete_rollout(client, &rollout.metadata).await?;
        }
        let left: Vec<String> = list.iter().map(|r| name_of(&r.metadata)).collect();
        if left.is_empty() {
            return Ok(());
        }
        let waited = started.elapsed();
        if before.as_ref() != Some(&left) {
            progress(&Progress { left: left.clone(), waited });
            before = Some(left.clone());
        }
        if waited > limit {
            return Err(Error::StillEnding { left: left.join(", "), seconds: limit.as_secs() });
        }
        sleep(POLL).await;
    }
}

/// Removes the objects in reverse order, each gone before the next, so that nothing acts on half an
/// installation. What is not there is reported as such.
///
/// # Errors
/// Stops at the first object that cannot be removed. Safe to run again.
pub async fn remove(client: &Client, objects: &[Value]) -> Result<Vec<Outcome>, Error> {
    let mut outcomes = Vec::with_capacity(objects.len());
    for object in objects.iter().rev() {
        let change = remove_one(client, object).await?;
        outcomes.push(Outcome { object: reference(object), change });
    }
    Ok(outcomes)
}

async fn remove_one(client: &Client, object: &Value) -> Result<Change, Error> {
    let (api, name) = api_of(client, object)?;
    let what = reference(object);
    match deadline("delete", &what, api.delete(&name, &DeleteParams::foreground())).await {
        Ok(_) => {}
        Err(Error::Request { source, .. }) if is_not_found(&source) => return Ok(Change::Absent),
        Err(error) => return Err(error),
    }
    wait_until_gone(&api, &name, &what).await?;
    Ok(Change::Removed)
}

async fn delete_rollout(client: &Client, metadata: &ObjectMeta) -> Result<(), Error> {
    let (namespace, name) =
        (metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default());
    let api: Api<PartialObjectMeta<Rollout>> = Api::namespaced(client.clone(), namespace);
    let what = format!("Rollout/{}", name_of(metadata));
    match deadline("delete", &what, api.delete(name, &DeleteParams::default())).await {
        Err(Error::Request { source, .. }) if is_not_found(&source) => Ok(()),
        answer => answer.map(|_| ()),
    }
}

fn name_of(metadata: &ObjectMeta) -> String {
    let (namespace, name) = (metadata.namespace.as_deref(), metadata.name.as_deref());
    format!("{}/{}", namespace.unwrap_or_default(), name.unwrap_or_default())
}
