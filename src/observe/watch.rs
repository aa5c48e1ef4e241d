//! The watches: the only requests that are made at rest.

use std::pin::pin;

use futures::StreamExt;
use kube::api::{ApiResource, DynamicObject};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use serde_json::Value;
use tokio::sync::mpsc;

use super::cache::Kind;

/// Seconds after which a watch is asked for anew: a half-open connection is found out within this time.
const WATCH_SECONDS: u32 = 60;

/// What a watch tells.
#[derive(Debug)]
pub enum News {
    /// A listing begins.
    Begin(Kind),
    /// An object is there.
    Put(Kind, Box<Value>),
    /// An object is gone.
    Remove(Kind, Box<Value>),
    /// A listing is complete.
    Finish(Kind),
    /// The brake's policy or its binding: true for the policy; `None` when it is gone.
    Brake(bool, Option<Box<Value>>),
    /// The Lease; `None` when there is none.
    Lease(Option<Box<Value>>),
    /// A watch has trouble; it goes on trying.
    Trouble(String),
}

fn resource(kind: Kind) -> ApiResource {
    let (group, version, kind, plural) = match kind {
        Kind::Rollouts => ("belay.dev", "v1alpha1", "Rollout", "rollouts"),
        Kind::Releases => ("belay.dev", "v1alpha1", "Release", "releases"),
        Kind::Deployments => ("apps", "v1", "Deployment", "deployments"),
        Kind::ReplicaSets => ("apps", "v1", "ReplicaSet", "replicasets"),
        Kind::Pods => ("", "v1", "Pod", "pods"),
        Kind::Autoscalers => ("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"),
    };
    named(group, version, kind, plural)
}

fn named(group: &str, version: &str, kind: &str, plural: &str) -> ApiResource {
    let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version,
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    }
}

/// Watches one kind until the receiver is gone.
pub async fn watch(client: Client, namespace: Option<String>, kind: Kind, news: mpsc::Sender<News>) {
    let api: Api<DynamicObject> = match &namespace {
        Some(namespace) => Api::namespaced_with(client, namespace, &resource(kind)),
        None => Api::all_with(client, &resource(kind)),
    };
    let config = watcher::Config::default().timeout(WATCH_SECONDS).page_size(500);
    // What managed which field is a third of an object and nobody here asks for it.
    let stream = watcher(api, config).default_backoff().modify(|object| {
        object.metadata.managed_fields = None;
    });
    let mut stream = pin!(stream);
    while let Some(event) = stream.next().await {
        let item = match event {
            Ok(watcher::Event::Init) => News::Begin(kind),
            Ok(watcher::Event::InitApply(object) | watcher::Event::Apply(object)) => {
                News::Put(kind, Box::new(raw(&object)))
            }
            Ok(watcher::Event::Delete(object)) => News::Remove(kind, Box::new(raw(&object))),
            Ok(watcher::Event::InitDone) => News::Finish(kind),
            Err(error) => News::Trouble(format!("{kind:?}: {error}")),
        };
        if news.send(item).await.is_err() {
            return;
        }
    }
}

/// Watches the brake's policy (`policy`) or its binding.
pub async fn watch_brake(client: Client, policy: bool, name: String, news: mpsc::Sender<News>) {
    let (kind, plural) = if policy {
        ("MutatingAdmissionPolicy", "mutatingadmissionpolicies")
    } else {
        ("MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings")
    };
    let api = Api::all_with(client, &named("admissionregistration.k8s.io", "v1", kind, plural));
    watch_one(api, kind, &name, news, |object| News::Brake(policy, object)).await;
}

/// Watches the Lease by which several operators agree on one.
pub async fn watch_lease(client: Client, namespace: String, name: String, news: mpsc::Sender<News>) {
    let api =
        Api::namespaced_with(client, &namespace, &named("coordination.k8s.io", "v1", "Lease", "leases"));
    watch_one(api, "Lease", &name, news, News::Lease).await;
}

/// Watches one object by its name.
async fn watch_one(
    api: Api<DynamicObject>,
    kind: &str,
    name: &str,
    news: mpsc::Sender<News>,
    tell: impl Fn(Option<Box<Value>>) -> News,
) {
    let config = watcher::Config::default().timeout(WATCH_SECONDS).fields(&format!("metadata.name={name}"));
    let mut stream = pin!(watcher(api, config).default_backoff());
    let mut found = None;
    while let Some(event) = stream.next().await {
        let item = match event {
            Ok(watcher::Event::Init) => {
                found = None;
                continue;
            }
            Ok(watcher::Event::InitApply(object)) => {
                found = Some(Box::new(raw(&object)));
                continue;
            }
            Ok(watcher::Event::InitDone) => tell(found.take()),
            Ok(watcher::Event::Apply(object)) => tell(Some(Box::new(raw(&object)))),
            Ok(watcher::Event::Delete(_)) => tell(None),
            Err(error) => News::Trouble(format!("{kind}: {error}")),
        };
        if news.send(item).await.is_err() {
            return;
        }
    }
}

fn raw(object: &DynamicObject) -> Value {
    // Metadata and data were read from JSON, so they go back to JSON.
    serde_json::to_value(object).unwrap_or_default()
}
