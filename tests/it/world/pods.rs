//! ReplicaSet controller, garbage collector, scheduler and kubelet: who makes pods, and what becomes of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::clock::whole_second;
use super::deployments::{controller, int, is_deleting, text, write_status};
use super::server::{Server, Sort};

/// How the pods of one image behave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fate {
    /// Ready after two seconds.
    Good,
    /// Ready after so many seconds.
    Slow(i64),
    /// Exits after so many seconds.
    Crash(i64),
    /// Ready, then killed for its memory after so many seconds.
    OutOfMemory(i64),
    /// Ready, then unready after so many seconds.
    LosesReadiness(i64),
    /// Ready and unready in turns of so many seconds.
    Flaps(i64),
    /// Runs, but is never ready.
    NeverReady,
    /// No node takes it.
    Unschedulable,
}

/// Seconds that a good pod takes to become ready.
const START: i64 = 2;
/// Milliseconds that a Job takes.
const JOB: i64 = 4000;
/// Milliseconds from the wish to delete a pod to its end.
const GRACE: i64 = 1000;

/// What is known of a pod besides its object.
#[derive(Clone, Debug)]
pub struct Life {
    /// When it was created, in milliseconds of the world.
    pub born: i64,
    /// When it was asked to end.
    pub ending: Option<i64>,
    pub image: String,
    /// Nothing changes by itself before this.
    sleeps_until: i64,
}

/// The node, and the controllers that make pods.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// By name.
    pub lives: BTreeMap<String, Life>,
    /// By image; good if it is not in here.
    fates: BTreeMap<String, Fate>,
    /// How many objects had come and gone when garbage was last collected.
    collected: u64,
    /// Whether the pods of Jobs fail.
    pub jobs_fail: bool,
    /// When Jobs that still run were first seen, by name.
    jobs: BTreeMap<String, i64>,
}

impl Node {
    /// From now on the pods of an image behave like this; without an image, all behave well.
    pub fn set_fate(&mut self, image: Option<&str>, fate: Fate) {
        match image {
            Some(image) => drop(self.fates.insert(image.to_owned(), fate)),
            None => self.fates.clear(),
        }
        for life in self.lives.values_mut() {
            life.sleeps_until = 0;
        }
    }

    fn fate(&self, image: &str) -> Fate {
        self.fates.get(image).copied().unwrap_or(Fate::Good)
    }

    /// The ReplicaSet controller.
    pub fn replica_sets(server: &mut Server) -> bool {
        let before = server.audit.len();
        let sets: Vec<Arc<Value>> = server.all(Sort::ReplicaSet).cloned().collect();
        for rs in sets {
            let uid = text(&rs, "/metadata/uid");
            let mut mine: Vec<Arc<Value>> = server
                .all(Sort::Pod)
                .filter(|p| controller(p).is_some_and(|o| o["uid"] == uid) && !is_deleting(p))
                .cloned()
                .collect();
            let wanted = usize::try_from(int(&rs, "/spec/replicas")).unwrap();
            if !is_deleting(&rs) {
                for _ in mine.len()..wanted {
                    create_pod(server, &rs);
                }
                // Unready ones go first, then the youngest.
                mine.sort_by_key(|p| {
                    (is_ready(p), std::cmp::Reverse(text(p, "/metadata/creationTimestamp").to_owned()))
                });
                for pod in mine.iter().take(mine.len().saturating_sub(wanted)) {
                    drop(server.delete(
                        "replicaset-controller",
                        Sort::Pod,
                        text(pod, "/metadata/name"),
                        None,
                    ));
                }
            }
            let live = || {
                let pods = server.all(Sort::Pod);
                pods.filter(|p| controller(p).is_some_and(|o| o["uid"] == uid) && !is_deleting(p))
            };
            let (total, ready) = (live().count(), live().filter(|p| is_ready(p)).count());
            let status = json!({
                "observedGeneration": rs["metadata"]["generation"],
                "replicas": total, "readyReplicas": ready, "availableReplicas": ready,
            });
            write_status(server, "replicaset-controller", Sort::ReplicaSet, &rs, status);
        }
        server.audit.len() != before
    }

    /// The garbage collector: what has owners, and none of them is there.
    pub fn garbage(&mut self, server: &mut Server) -> bool {
        let (_, gone) = server.version();
        if std::mem::replace(&mut self.collected, gone) == gone {
            return false;
        }
        let uids: std::collections::BTreeSet<String> = server.uids().into_iter().map(str::to_owned).collect();
        let mut lost = Vec::new();
        for sort in [Sort::Release, Sort::ReplicaSet, Sort::Job, Sort::Pod, Sort::Service, Sort::Slice] {
            for object in server.all(sort).filter(|o| !is_deleting(o)) {
                let owners = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
                let gone = owners.is_some_and(|owners| {
                    !owners.is_empty() && owners.iter().all(|o| !uids.contains(text(o, "/uid")))
                });
                if gone {
                    lost.push((sort, text(object, "/metadata/name").to_owned()));
                }
            }
        }
        for (sort, name) in &lost {
            drop(server.delete("garbage-collector", *sort, name, None));
        }
        !lost.is_empty()
    }

    /// The Job controller: each Job takes some seconds, and passes or fails.
    pub fn jobs(&mut self, server: &mut Server) -> bool {
        let before = server.audit.len();
        let all: Vec<Arc<Value>> = server.all(Sort::Job).cloned().collect();
        self.jobs.retain(|name, _| all.iter().any(|job| text(job, "/metadata/name") == name));
        for job in all.iter().filter(|job| job.get("status").is_none_or(Value::is_null)) {
            let name = text(job, "/metadata/name").to_owned();
            let born = *self.jobs.entry(name).or_insert(server.now);
            if server.now >= born + JOB {
                let kind = if self.jobs_fail { "Failed" } else { "Complete" };
                let condition = json!({"type": kind, "status": "True", "reason": "BackoffLimitExceeded"});
                write_status(server, "job-controller", Sort::Job, job, json!({"conditions": [condition]}));
            }
        }
        server.audit.len() != before
    }

    /// The kubelet: pods start, get ready, fail and end.
    pub fn kubelet(&mut self, server: &mut Server) -> bool {
        let before = server.audit.len();
        let now = server.now;
        let pods: Vec<Arc<Value>> = server.all(Sort::Pod).cloned().collect();
        for pod in pods {
            let name = text(&pod, "/metadata/name").to_owned();
            let image = text(&pod, "/spec/containers/0/image").to_owned();
            let new = Life { born: now, ending: None, image, sleeps_until: 0 };
            let life = self.lives.entry(name.clone()).or_insert(new);
            if is_deleting(&pod) {
                let since = *life.ending.get_or_insert(now);
                if now >= since + GRACE {
                    server.remove_pod(&name);
                    self.lives.remove(&name);
                }
                continue;
            }
            if now < life.sleeps_until {
                continue;
            }
            let life = life.clone();
            let next = self.next_of(&life, now).unwrap_or(i64::MAX);
            self.lives.get_mut(&name).unwrap().sleeps_until = next;
            let status = status(&pod, &life, self.fate(&life.image), now);
            write_status(server, "kubelet", Sort::Pod, &pod, status);
        }
        server.audit.len() != before
    }

    /// When the next pod or Job changes by itself.
    pub fn next_event(&self, now: i64) -> Option<i64> {
        let jobs = self.jobs.values().map(|born| born + JOB).filter(|at| *at > now);
        self.lives.values().filter_map(|life| self.next_of(life, now)).chain(jobs).min()
    }

    fn next_of(&self, life: &Life, now: i64) -> Option<i64> {
        let after = |seconds: i64| life.born + seconds * 1000;
        let mut times = vec![after(START)];
        match self.fate(&life.image) {
            Fate::Slow(s) | Fate::Crash(s) | Fate::OutOfMemory(s) | Fate::LosesReadiness(s) => {
                times.push(after(s));
            }
            Fate::Flaps(s) => times.push(life.born + ((now - life.born) / (s * 1000) + 1) * s * 1000),
            Fate::Good | Fate::NeverReady | Fate::Unschedulable => {}
        }
        times.extend(life.ending.map(|t| t + GRACE));
        times.into_iter().filter(|t| *t > now).min()
    }
}

pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

fn create_pod(server: &mut Server, rs: &Value) {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "generateName": format!("{}-", text(rs, "/metadata/name")),
            "labels": rs["spec"]["template"]["metadata"]["labels"],
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": rs["metadata"]["name"],
                "uid": rs["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "spec": rs["spec"]["template"]["spec"],
    });
    pod["status"] = json!({"phase": "Pending"});
    server.create("replicaset-controller", Sort::Pod, pod).unwrap();
}

/// An address of its own.
fn address(pod: &Value) -> String {
    let number = text(pod, "/metadata/uid").strip_prefix("uid").and_then(|n| n.parse::<u32>().ok());
    std::net::Ipv4Addr::from((10 << 24) + number.unwrap()).to_string()
}

fn status(pod: &Value, life: &Life, fate: Fate, now: i64) -> Value {
    let after = |seconds: i64| now >= life.born + seconds * 1000;
    let at = |ms: i64| json!(whole_second(ms).to_string());
    if fate == Fate::Unschedulable && pod.pointer("/status/startTime").is_none() {
        return json!({
            "phase": "Pending",
            "conditions": [{
                "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                "message": "0/3 nodes are available: insufficient memory", "lastTransitionTime": at(life.born),
            }],
        });
    }
    let ended = match fate {
        Fate::Crash(s) if after(s) => Some(json!({"reason": "Error", "exitCode": 1})),
        Fate::OutOfMemory(s) if after(s) => Some(json!({"reason": "OOMKilled", "exitCode": 137})),
        _ => None,
    };
    let ready = match fate {
        Fate::NeverReady | Fate::Unschedulable => false,
        Fate::Slow(s) => after(s),
        Fate::LosesReadiness(s) => after(START) && !after(s),
        Fate::Flaps(s) => after(START) && (now - life.born) / (s * 1000) % 2 == 0,
        Fate::Good | Fate::Crash(_) | Fate::OutOfMemory(_) => after(START) && ended.is_none(),
    };
    let known = pod.pointer("/status/conditions").and_then(Value::as_array);
    let known = known.into_iter().flatten().find(|c| c["type"] == "Ready");
    let value = if ready { "True" } else { "False" };
    let changed = match known {
        Some(condition) if condition["status"] == value => condition["lastTransitionTime"].clone(),
        Some(_) => at(now),
        None => at(life.born),
    };
    let state = match ended {
        Some(ended) => json!({"terminated": ended}),
        None => json!({"running": {}}),
    };
    // The count stands still as long as the container does not come back.
    json!({
        "phase": "Running",
        "podIP": address(pod),
        "startTime": at(life.born),
        "conditions": [
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": at(life.born)},
            {"type": "Ready", "status": value, "lastTransitionTime": changed},
        ],
        "containerStatuses": [{"name": "app", "restartCount": 0, "ready": ready, "state": state}],
    })
}
