//! Carries objects into a cluster by server-side apply.
//!
//! Purpose: apply in order, tell what changed, and wait until custom resources are served.
//! May touch: a Kubernetes client. Must never: retry without end, or write an object that it was not given.

use std::time::Duration;

use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use super::{Error, FIELD_MANAGER, reference};

/// How long the API server may take to answer one request.
pub(super) const REQUEST_DEADLINE: Duration = Duration::from_secs(15);
/// How long custom resources may take to be served, and policies to be in force.
pub(super) const EFFECT_DEADLINE: Duration = Duration::from_secs(60);
/// Between two looks at something that takes effect within a second.
pub(super) const POLL: Duration = Duration::from_millis(200);

/// What became of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// `Kind/name`, or `Kind/namespace/name`.
    pub object: String,
    /// What the write changed; in a dry run, what it would have.
    pub change: Change,
}

/// What a write changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was not there.
    Created,
    /// It was there and differed.
    Changed,
    /// It was there just so.
    Unchanged,
    /// It is gone.
    Removed,
    /// It was not there, so there was nothing to remove.
    Absent,
}

/// Applies the objects in the order given, taking over fields that others own, and waits until the custom
/// resources among them are served. A dry run asks the API server what it would do, and changes nothing.
///
/// Whether policies are in force is another question: [`super::wait_for_policies`].
///
/// # Errors
/// Stops at the first object that is refused, or not answered for within 15 seconds. Safe to run again.
pub async fn apply(client: &Client, objects: &[Value], dry_run: bool) -> Result<Vec<Outcome>, Error> {
    let mut outcomes = Vec::with_capacity(objects.len());
    let mut absent_namespaces = Vec::new();
    for object in objects {
        let name = reference(object);
        let namespace = object["metadata"]["namespace"].as_str();
        let change = if dry_run && namespace.is_some_and(|n| absent_namespaces.contains(&n)) {
            // A dry run cannot put anything into a namespace that it has not made.
            Change::Created
        } else {
            apply_one(client, object, dry_run).await?
        };
        if change == Change::Created && object["kind"] == "Namespace" {
            absent_namespaces.extend(object["metadata"]["name"].as_str());
        }
        outcomes.push(Outcome { object: name, change });
    }
    if !dry_run {
        for crd in objects.iter().filter(|o| o["kind"] == "CustomResourceDefinition") {
            wait_until_established(client, crd).await?;
        }
    }
    Ok(outcomes)
}

/// Whether the API server has MutatingAdmissionPolicy in `admissionregistration.k8s.io/v1`.
///
/// # Errors
/// Fails when the server cannot be asked. A server that does not have the group is an answer: no.
pub async fn server_supports_policies(client: &Client) -> Result<bool, Error> {
    let group = "admissionregistration.k8s.io/v1";
    let request = client.list_api_group_resources(group);
    match deadline("read", group, request).await {
        Ok(list) => Ok(list.resources.iter().any(|r| r.name == "mutatingadmissionpolicies")),
        Err(Error::Request { source, .. }) if is_not_found(&source) => Ok(false),
        Err(error) => Err(error),
    }
}

async fn apply_one(client: &Client, object: &Value, dry_run: bool) -> Result<Change, Error> {
    let (api, name) = api_of(client, object)?;
    let what = reference(object);
    let mut before = deadline("read", &what, api.get_opt(&name)).await?;
    if before.as_ref().is_some_and(|b| b.metadata.deletion_timestamp.is_some()) {
        // Left over from a removal that has not come to its end: nothing new can be put into it.
        if dry_run {
            return Ok(Change::Created);
        }
        wait_until_gone(&api, &name, &what).await?;
        before = None;
    }
    let params = PatchParams { dry_run, ..PatchParams::apply(FIELD_MANAGER).force() };
    let after = deadline("apply", &what, api.patch(&name, &params, &Patch::Apply(object))).await?;
    let after = content(after);
    Ok(match before.map(content) {
        None => Change::Created,
        Some(before) if before == after => Change::Unchanged,
        Some(_) => Change::Changed,
    })
}

/// What an object says, without what the server notes about each write.
fn content(mut object: DynamicObject) -> DynamicObject {
    object.metadata.managed_fields = None;
    object.metadata.resource_version = None;
    object.metadata.generation = None;
    if let Value::Object(members) = &mut object.data {
        members.remove("status");
    }
    object
}

async fn wait_until_established(client: &Client, crd: &Value) -> Result<(), Error> {
    let (api, name) = api_of(client, crd)?;
    let what = reference(crd);
    let started = Instant::now();
    loop {
        let found = deadline("read", &what, api.get_opt(&name)).await?;
        let conditions = found.map(|f| f.data["status"]["conditions"].clone()).unwrap_or_default();
        let conditions = conditions.as_array().map(Vec::as_slice).unwrap_or_default();
        if conditions.iter().any(|c| c["type"] == "Established" && c["status"] == "True") {
            return Ok(());
        }
        if started.elapsed() > EFFECT_DEADLINE {
            let messages: Vec<&str> = conditions.iter().filter_map(|c| c["message"].as_str()).collect();
            let state = if messages.is_empty() { "no condition".to_owned() } else { messages.join("; ") };
            return Err(Error::NotInEffect { object: what, state, seconds: EFFECT_DEADLINE.as_secs() });
        }
        sleep(POLL).await;
    }
}

/// Waits until an object that is being deleted is gone, or another of its name has taken its place.
pub(super) async fn wait_until_gone(api: &Api<DynamicObject>, name: &str, what: &str) -> Result<(), Error> {
    let started = Instant::now();
    let deleting = |object: DynamicObject| object.metadata.deletion_timestamp.is_some();
    while deadline("read", what, api.get_opt(name)).await?.is_some_and(deleting) {
        if started.elapsed() > EFFECT_DEADLINE {
            return Err(Error::StillThere { object: what.to_owned(), seconds: EFFECT_DEADLINE.as_secs() });
        }
        sleep(POLL).await;
    }
    Ok(())
}

/// The resource of an object, in its namespace if it has one, and its name.
pub(super) fn api_of(client: &Client, object: &Value) -> Result<(Api<DynamicObject>, String), Error> {
    let text = |pointer| object.pointer(pointer).and_then(Value::as_str);
    let (Some(version), Some(kind), Some(name)) =
        (text("/apiVersion"), text("/kind"), text("/metadata/name"))
    else {
        return Err(Error::NotAnObject { object: reference(object) });
    };
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    // Every kind that is installed has a plural by the rules of English: no need to ask the server for it.
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    let api = match text("/metadata/namespace") {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    Ok((api, name.to_owned()))
}

/// One request, answered within [`REQUEST_DEADLINE`] or given up.
pub(super) async fn deadline<T>(
    action: &'static str,
    object: &str,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, Error> {
    match timeout(REQUEST_DEADLINE, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(source)) => {
            Err(Error::Request { action, object: object.to_owned(), source: Box::new(source) })
        }
        Err(_) => {
            Err(Error::Deadline { action, object: object.to_owned(), seconds: REQUEST_DEADLINE.as_secs() })
        }
    }
}

/// Whether the server said that there is no such thing.
pub(super) fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}
