//! What happened in a namespace, event by event: tests judge the whole way, not only where it ended.

use std::sync::{Arc, Mutex};

use futures::StreamExt;
use kube::api::DynamicObject;
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::Value;
use tokio::task::JoinHandle;

use super::scene::{int, kind_of, text};
use super::{Namespace, PATIENCE, eventually};

/// The states that the objects of a namespace went through.
pub struct Recorder {
    seen: Arc<Mutex<Vec<Value>>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Recorder {
    /// Starts to watch ReplicaSets, pods, Releases and Deployments, and returns when the first lists are in.
    pub async fn start(namespace: &Namespace) -> Self {
        let seen: Arc<Mutex<Vec<Value>>> = Arc::default();
        let kinds = [
            ("apps/v1", "ReplicaSet"),
            ("v1", "Pod"),
            ("belay.dev/v1alpha1", "Release"),
            ("belay.dev/v1alpha1", "Rollout"),
            ("apps/v1", "Deployment"),
        ];
        let mut tasks = Vec::new();
        for (version, kind) in kinds {
            let api = namespace.api(&namespace.env.admin, version, kind);
            let seen = seen.clone();
            tasks.push(tokio::spawn(async move {
                let mut events =
                    watcher(api, watcher::Config::default()).default_backoff().touched_objects().boxed();
                while let Some(event) = events.next().await {
                    if let Ok(object) = event {
                        let mut value = serde_json::to_value::<DynamicObject>(object).unwrap();
                        value["kind"] = kind.into();
                        seen.lock().unwrap().push(value);
                    }
                }
            }));
        }
        let recorder = Self { seen, tasks };
        eventually(PATIENCE, "the recorder has seen the Deployment", async || {
            let any = recorder.of("Deployment").len();
            if any > 0 { Ok(()) } else { Err("nothing") }
        })
        .await;
        recorder
    }

    /// Every state of every object of a kind, in the order in which they happened.
    pub fn of(&self, kind: &str) -> Vec<Value> {
        let mut all: Vec<Value> =
            self.seen.lock().unwrap().iter().filter(|o| kind_of(o) == kind).cloned().collect();
        all.sort_by_key(version);
        all
    }

    /// The states of the ReplicaSet with this name.
    pub fn replica_set(&self, name: &str) -> Vec<Value> {
        self.of("ReplicaSet").into_iter().filter(|o| text(o, "/metadata/name") == name).collect()
    }

    /// The version of the world at which the canary was let go.
    pub fn handover(&self, canary: &str) -> Option<u64> {
        let states = self.replica_set(canary);
        let let_go = states
            .iter()
            .find(|rs| rs.pointer("/metadata/ownerReferences/0/kind").is_none_or(|k| k != "Rollout"));
        let_go.map(version)
    }

    /// Asserts that no pod with one of these uids was deleted, unready or restarted before the version `until`.
    pub fn assert_untouched(&self, uids: &[String], until: Option<u64>) {
        self.assert_untouched_from(uids, 0, until);
    }

    /// The same, of what happened after the version `from`.
    pub fn assert_untouched_from(&self, uids: &[String], from: u64, until: Option<u64>) {
        for pod in self.of("Pod") {
            let uid = text(&pod, "/metadata/uid");
            let now = version(&pod);
            if !uids.contains(&uid) || now < from || until.is_some_and(|v| now > v) {
                continue;
            }
            let name = text(&pod, "/metadata/name");
            assert!(
                pod.pointer("/metadata/deletionTimestamp").is_none(),
                "stable pod {name} was deleted: {pod:#}"
            );
            assert!(super::scene::is_ready(&pod), "stable pod {name} was unready: {pod:#}");
            assert_eq!(super::scene::restarts(&pod), 0, "stable pod {name} was restarted");
        }
    }

    /// The numbers of pods that the canary was asked to have, without repetitions.
    pub fn sizes(&self, canary: &str) -> Vec<i64> {
        let mut sizes: Vec<i64> =
            self.replica_set(canary).iter().map(|rs| int(rs, "/spec/replicas")).collect();
        sizes.dedup();
        sizes
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// The version of an object: of etcd, so that objects of all kinds compare.
pub fn version(object: &Value) -> u64 {
    text(object, "/metadata/resourceVersion").parse().unwrap()
}
