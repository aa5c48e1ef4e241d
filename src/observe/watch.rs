//! The watches: the only requests that are made at rest.

use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use http::{Request, Response};
use kube::api::{ApiResource, DynamicObject};
use kube::client::Body;
use kube::runtime::utils::{Backoff, ResetTimerBackoff};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use serde_json::Value;
use tokio::sync::mpsc;
use tower::BoxError;

use super::cache::Kind;
use crate::api;

/// Seconds after which a watch is asked for anew: a half-open connection is found out within this time.
const WATCH_SECONDS: u32 = 60;
/// Longest time until a list or a watch begins to answer. A full page of pods takes a busy API server some seconds.
const ANSWER: Duration = Duration::from_secs(30);
/// Errors that are this far apart have nothing to do with each other.
const CALM: Duration = Duration::from_secs(60);

/// What the brake is made of, in either form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The policy.
    Policy,
    /// The binding that puts the policy in force.
    Binding,
    /// The configuration of the webhook.
    Webhook,
}

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
    /// An object that the brake is made of; `None` when it is gone.
    Brake(Part, Option<Box<Value>>),
    /// The Lease; `None` when there is none.
    Lease(Option<Box<Value>>),
    /// The watch of a kind is interrupted, and why; it goes on trying.
    Lost(Kind, String),
    /// The watch of a kind is answered: from here on it tells everything, also what it missed.
    Found(Kind),
    /// Another watch has trouble; it goes on trying.
    Trouble(String),
}

/// Waits longer after each error, but never so long that a canary goes unseen for more than some seconds after the
/// API server is back. (The usual backoff goes to 30 s.)
#[derive(Debug, Default)]
struct Waits(u32);

impl Iterator for Waits {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let wait = Duration::from_millis(400) * 2_u32.pow(self.0.min(4));
        self.0 = self.0.saturating_add(1);
        Some(wait.min(Duration::from_secs(5)))
    }
}

impl Backoff for Waits {
    fn reset(&mut self) {
        self.0 = 0;
    }
}

fn waits() -> ResetTimerBackoff<Waits> {
    ResetTimerBackoff::new(Waits::default(), CALM)
}

/// The client of one watch. It tells when the watch is answered, which no event does as long as nothing happens, and
/// it waits for the beginning of an answer for a bounded time.
fn telling(client: Client, kind: Kind, news: mpsc::Sender<News>) -> Client {
    let service = tower::service_fn(move |request: Request<Body>| {
        let (client, news) = (client.clone(), news.clone());
        async move {
            let query = request.uri().query().unwrap_or_default();
            let watch = query.split('&').any(|part| part == "watch=true");
            let answer: Response<Body> = tokio::time::timeout(ANSWER, client.send(request)).await??;
            if watch && answer.status().is_success() {
                // The receiver is gone only when the process ends.
                drop(news.send(News::Found(kind)).await);
            }
            Ok::<_, BoxError>(answer)
        }
    });
    Client::new(service, "default")
}

fn resource(kind: Kind) -> ApiResource {
    let (group, version, kind, plural) = match kind {
        Kind::Rollouts => ("belay.dev", "v1alpha1", "Rollout", "rollouts"),
        Kind::Releases => ("belay.dev", "v1alpha1", "Release", "releases"),
        Kind::Deployments => ("apps", "v1", "Deployment", "deployments"),
        Kind::ReplicaSets => ("apps", "v1", "ReplicaSet", "replicasets"),
        Kind::Pods => ("", "v1", "Pod", "pods"),
        Kind::Templates => ("belay.dev", "v1alpha1", "AnalysisTemplate", "analysistemplates"),
        Kind::ClusterTemplates => {
            ("belay.dev", "v1alpha1", "ClusterAnalysisTemplate", "clusteranalysistemplates")
        }
        Kind::Jobs => ("batch", "v1", "Job", "jobs"),
        Kind::Autoscalers => ("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"),
        Kind::Services => ("", "v1", "Service", "services"),
        Kind::Slices => ("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices"),
        Kind::Routes(router) => (router.group(), router.version(), router.kind(), router.plural()),
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
    let client = telling(client, kind, news.clone());
    let api: Api<DynamicObject> = match &namespace {
        // Of no namespace, whichever is governed.
        Some(namespace) if kind != Kind::ClusterTemplates => {
            Api::namespaced_with(client, namespace, &resource(kind))
        }
        _ => Api::all_with(client, &resource(kind)),
    };
    let mut config = watcher::Config::default().timeout(WATCH_SECONDS).page_size(500);
    match kind {
        // They bear the labels of their Service.
        Kind::Slices => config = config.labels(api::RELEASE_LABEL),
        // A cluster may have very many Jobs that are nobody's check.
        Kind::Jobs => config = config.labels(api::GUARD_LABEL),
        _ => {}
    }
    // What managed which field is a third of an object and nobody here asks for it.
    let stream = watcher(api, config).backoff(waits()).modify(|object| {
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
            Err(error) => News::Lost(kind, error.to_string()),
        };
        if news.send(item).await.is_err() {
            return;
        }
    }
}

/// Watches one part of the brake.
pub async fn watch_brake(client: Client, part: Part, name: String, news: mpsc::Sender<News>) {
    let (kind, plural) = match part {
        Part::Policy => ("MutatingAdmissionPolicy", "mutatingadmissionpolicies"),
        Part::Binding => ("MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings"),
        Part::Webhook => ("MutatingWebhookConfiguration", "mutatingwebhookconfigurations"),
    };
    let api = Api::all_with(client, &named("admissionregistration.k8s.io", "v1", kind, plural));
    watch_one(api, kind, &name, news, |object| News::Brake(part, object)).await;
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
    let mut stream = pin!(watcher(api, config).backoff(waits()));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_begin_again() {
        let mut waits = Waits::default();
        let millis: Vec<u128> = (0..6).filter_map(|_| waits.next()).map(|wait| wait.as_millis()).collect();
        assert_eq!(millis, [400, 800, 1600, 3200, 5000, 5000]);
        waits.reset();
        assert_eq!(waits.next(), Some(Duration::from_millis(400)));
        waits.0 = u32::MAX;
        assert_eq!(waits.next(), Some(Duration::from_secs(5)));
    }
}
