//! A workload under a Rollout with an operator: what most tests start from.

use std::time::Duration;

use kube::Client;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::operator::Operator;
use super::{Env, Namespace, PATIENCE, deployment, eventually};

/// The sample program.
pub const IMAGE: &str = "node.local/sample:1";
const BELAY: &str = "belay.dev/v1alpha1";

/// A Deployment `web`, its Rollout `web`, and the operator.
pub struct Scene {
    // Dropped in this order: the operator first.
    pub operator: Operator,
    pub namespace: Namespace,
}

/// How a scene starts.
pub struct Plan {
    /// Stable pods.
    pub replicas: u32,
    /// The Rollout's spec, without `workloadRef`.
    pub spec: Value,
    /// Added to the Deployment, as a JSON merge patch.
    pub deployment: Value,
    /// The program's settings at the start.
    pub env: Vec<(&'static str, &'static str)>,
}

impl Default for Plan {
    fn default() -> Self {
        Self { replicas: 3, spec: steps(&[(10, "2s"), (50, "2s")]), deployment: json!({}), env: Vec::new() }
    }
}

/// The part of a Rollout's spec that says: these weights, each for this long.
pub fn steps(steps: &[(i32, &str)]) -> Value {
    let steps: Vec<Value> = steps.iter().map(|(w, min)| json!({"weight": w, "minDuration": min})).collect();
    json!({"strategy": {"canary": {"steps": steps}}})
}

impl Plan {
    /// The same with more in the Rollout's spec.
    pub fn with(mut self, more: &Value) -> Self {
        json_patch::merge(&mut self.spec, more);
        self
    }
}

impl Scene {
    /// Everything there, the first revision complete, and the Rollout at rest. None without a cluster.
    pub async fn start(purpose: &str, plan: Plan) -> Option<Self> {
        let env = Env::get().await?;
        let namespace = env.namespace(purpose).await;
        create_workload(&namespace, "web", &plan).await;
        let operator = Operator::start(&env, &namespace.name).await;
        let scene = Self { operator, namespace };
        scene.create_rollout("web", "web", &plan.spec).await;
        scene.rollout_is("web", "Stable").await;
        Some(scene)
    }

    /// Creates a Rollout as alice.
    pub async fn create_rollout(&self, name: &str, workload: &str, spec: &Value) {
        let object = rollout(name, workload, spec);
        self.namespace.apply(&self.namespace.env.alice, "alice", &object).await.unwrap();
    }

    fn admin(&self) -> &Client {
        &self.namespace.env.admin
    }

    fn alice(&self) -> &Client {
        &self.namespace.env.alice
    }

    /// An object, or `Value::Null`.
    pub async fn get(&self, version: &str, kind: &str, name: &str) -> Value {
        let found = self.namespace.api(self.admin(), version, kind).get_opt(name).await.unwrap();
        found.map_or(Value::Null, |o| serde_json::to_value(o).unwrap())
    }

    /// All objects of a kind in the namespace.
    pub async fn list(&self, version: &str, kind: &str) -> Vec<Value> {
        let list =
            self.namespace.api(self.admin(), version, kind).list(&ListParams::default()).await.unwrap();
        list.items.into_iter().map(|o| serde_json::to_value::<DynamicObject>(o).unwrap()).collect()
    }

    /// The Deployment `web`.
    pub async fn workload(&self) -> Value {
        self.get("apps/v1", "Deployment", "web").await
    }

    /// The Rollout `web`.
    pub async fn rollout(&self) -> Value {
        self.get(BELAY, "Rollout", "web").await
    }

    /// The Releases, oldest first.
    pub async fn releases(&self) -> Vec<Value> {
        let mut all = self.list(BELAY, "Release").await;
        all.sort_by_key(|r| {
            (text(r, "/metadata/creationTimestamp"), text(r, "/spec/to/revision"), int(r, "/spec/attempt"))
        });
        all
    }

    /// A Release by its name.
    pub async fn release(&self, name: &str) -> Value {
        self.get(BELAY, "Release", name).await
    }

    /// The pods of a ReplicaSet that are not on their way out.
    pub async fn pods_of(&self, replica_set: &str) -> Vec<Value> {
        let mut pods = self.list("v1", "Pod").await;
        pods.retain(|p| {
            text(p, "/metadata/ownerReferences/0/name") == replica_set
                && p.pointer("/metadata/deletionTimestamp").is_none()
        });
        pods
    }

    /// The uids of the pods of a ReplicaSet, sorted.
    pub async fn uids_of(&self, replica_set: &str) -> Vec<String> {
        let mut uids: Vec<String> =
            self.pods_of(replica_set).await.iter().map(|p| text(p, "/metadata/uid")).collect();
        uids.sort();
        uids
    }

    /// The ReplicaSet that serves, as the Rollout has it.
    pub async fn stable(&self) -> String {
        text(&self.rollout().await, "/status/stable/replicaSet")
    }

    /// Changes settings of the program as alice, as `kubectl set env` does.
    pub async fn set_env(&self, env: &[(&str, &str)]) {
        let env: Vec<Value> = env.iter().map(|(n, v)| json!({"name": n, "value": v})).collect();
        self.change(&json!({"spec": {"template": {"spec": {"containers": [{"name": "app", "env": env}]}}}}))
            .await;
    }

    /// A strategic merge patch of the Deployment as alice.
    pub async fn change(&self, patch: &Value) {
        let api = self.namespace.deployments(self.alice());
        api.patch("web", &PatchParams::default(), &Patch::Strategic(patch)).await.unwrap();
    }

    /// A merge patch of any object as alice.
    pub async fn merge(&self, version: &str, kind: &str, name: &str, patch: &Value) -> kube::Result<()> {
        let api = self.namespace.api(self.alice(), version, kind);
        api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(|_| ())
    }

    /// Scales the Deployment through its scale subresource as alice.
    pub async fn scale(&self, replicas: u32) {
        let api = self.namespace.deployments(self.alice());
        let patch = json!({"spec": {"replicas": replicas}});
        api.patch_scale("web", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    }

    /// Deletes an object as the administrator.
    pub async fn delete(&self, version: &str, kind: &str, name: &str) {
        self.namespace.api(self.admin(), version, kind).delete(name, &DeleteParams::default()).await.unwrap();
    }

    /// Gives a command to a release as alice, by a plain JSON patch, and returns what became of it.
    pub async fn command(&self, release: &str, command: Value) -> Value {
        let before = self.release(release).await;
        let count = before.pointer("/spec/commands").and_then(Value::as_array).map_or(0, Vec::len);
        let patch = if count == 0 {
            json!([{"op": "add", "path": "/spec/commands", "value": [command]}])
        } else {
            json!([{"op": "add", "path": "/spec/commands/-", "value": command}])
        };
        let patch: json_patch::Patch = serde_json::from_value(patch).unwrap();
        let api = self.namespace.api(self.alice(), BELAY, "Release");
        api.patch(release, &PatchParams::default(), &Patch::Json::<()>(patch)).await.unwrap();
        eventually(PATIENCE, "the command is taken up", async || {
            let release = self.release(release).await;
            let taken = release.pointer(&format!("/status/commands/{count}")).cloned();
            taken.ok_or_else(|| brief(&release))
        })
        .await
    }

    /// Waits for a phase of a Rollout.
    pub async fn rollout_is(&self, name: &str, phase: &str) -> Value {
        eventually(PATIENCE, &format!("Rollout {name} is {phase}"), async || {
            let rollout = self.get(BELAY, "Rollout", name).await;
            let current =
                int(&rollout, "/status/observedGeneration") == int(&rollout, "/metadata/generation");
            if text(&rollout, "/status/phase") == phase && current {
                return Ok(rollout);
            }
            Err(rollout["status"].to_string())
        })
        .await
    }

    /// Waits for the release of the Deployment's present template, started after `known` others.
    pub async fn new_release(&self, known: usize) -> String {
        eventually(PATIENCE, "a release starts", async || {
            let releases = self.releases().await;
            if releases.len() > known {
                // One may have ended, and the next begun, within the second that objects are dated by.
                let at = |release: &Value| text(release, "/metadata/creationTimestamp");
                let mut newest = releases.iter().filter(|r| at(r) == at(releases.last().unwrap()));
                let present = match newest.clone().count() {
                    1 => None,
                    _ => Some(belay::decide::revision(&self.workload().await["spec"]["template"])),
                };
                let of_present = |r: &&Value| Some(text(r, "/spec/to/revision")) == present;
                let found = newest.clone().rfind(of_present).or(newest.next_back());
                return Ok(text(found.unwrap(), "/metadata/name"));
            }
            Err(format!("{} releases; {}", releases.len(), self.rollout().await["status"]))
        })
        .await
    }

    /// Waits for the release of the present template when there may be any number of finished ones, of which the
    /// oldest are pruned.
    pub async fn started_by_now(&self, round: usize) -> String {
        eventually(PATIENCE, &format!("the release of round {round} starts"), async || {
            let (rollout, workload) = (self.rollout().await, self.workload().await);
            let name = text(&rollout, "/status/release");
            let revision = belay::decide::revision(&workload["spec"]["template"]);
            if name.contains(&revision) { Ok(name) } else { Err(rollout["status"].to_string()) }
        })
        .await
    }

    /// Waits until a release satisfies `is`.
    pub async fn release_where(&self, name: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        eventually(PATIENCE, &format!("{name}: {what}"), async || {
            let release = self.release(name).await;
            if is(&release) { Ok(release) } else { Err(brief(&release)) }
        })
        .await
    }

    /// Waits for a phase of a release. Another final phase fails at once.
    pub async fn release_is(&self, name: &str, phase: &str) -> Value {
        let finals = ["Promoted", "RolledBack", "Superseded"];
        let release = self
            .release_where(name, &format!("phase {phase}"), |r| {
                let now = text(r, "/status/phase");
                now == phase || finals.contains(&now.as_str())
            })
            .await;
        assert_eq!(text(&release, "/status/phase"), phase, "{}", brief(&release));
        release
    }

    /// Waits until a release is at a step (from 1) with all its pods ready and its clock running.
    pub async fn at_step(&self, name: &str, step: i64) -> Value {
        self.release_where(name, &format!("at step {step}"), |r| {
            int(r, "/status/step/index") == step - 1 && r.pointer("/status/step/runningSince").is_some()
        })
        .await
    }

    /// Waits until the Deployment satisfies `is`.
    pub async fn workload_where(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        eventually(PATIENCE, what, async || {
            let workload = self.workload().await;
            if is(&workload) {
                Ok(workload)
            } else {
                Err(format!(
                    "{}",
                    json!([
                        workload["metadata"]["labels"],
                        workload["spec"]["paused"],
                        workload["spec"]["replicas"],
                        workload["status"]
                    ])
                ))
            }
        })
        .await
    }

    /// Belay's events about an object: reason, type and note, oldest first.
    pub async fn events(&self, name: &str) -> Vec<(String, String, String)> {
        let mut all = self.list("events.k8s.io/v1", "Event").await;
        all.retain(|e| {
            text(e, "/regarding/name") == name && text(e, "/regarding/apiVersion").starts_with("belay.dev/")
        });
        all.sort_by_key(|e| text(e, "/eventTime"));
        all.iter().map(|e| (text(e, "/reason"), text(e, "/type"), text(e, "/note"))).collect()
    }
}

/// Creates a Deployment as alice and waits until it is available.
pub async fn create_workload(namespace: &Namespace, name: &str, plan: &Plan) {
    let mut object = deployment(name, plan.replicas, IMAGE);
    let mut env = std::collections::BTreeMap::from([("VERSION", "1"), ("LINGER", "0s")]);
    env.extend(plan.env.iter().copied());
    let env: Vec<Value> = env.iter().map(|(n, v)| json!({"name": n, "value": v})).collect();
    let container = &mut object["spec"]["template"]["spec"]["containers"][0];
    container["env"] = json!(env);
    container["resources"] = json!({"requests": {"cpu": "1m"}});
    json_patch::merge(&mut object, &plan.deployment);
    namespace.apply(&namespace.env.alice, "alice", &object).await.unwrap();
    eventually(PATIENCE, "the first revision is available", async || {
        let found = namespace.deployments(&namespace.env.admin).get(name).await.unwrap();
        let ready = found.data.pointer("/status/availableReplicas").and_then(Value::as_u64).unwrap_or(0);
        if ready == u64::from(plan.replicas) { Ok(()) } else { Err(found.data["status"].to_string()) }
    })
    .await;
}

/// A Rollout.
pub fn rollout(name: &str, workload: &str, spec: &Value) -> Value {
    let mut object = json!({
        "apiVersion": BELAY,
        "kind": "Rollout",
        "metadata": {"name": name},
        "spec": {"workloadRef": {"kind": "Deployment", "name": workload}},
    });
    json_patch::merge(&mut object["spec"], spec);
    object
}

/// A text in an object; empty when absent.
pub fn text(object: &Value, pointer: &str) -> String {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// A number in an object; 0 when absent.
pub fn int(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or_default()
}

/// The kind of an object.
pub fn kind_of(object: &Value) -> &str {
    object["kind"].as_str().unwrap_or_default()
}

/// Whether a pod is ready.
pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// How often a pod's containers were restarted.
pub fn restarts(pod: &Value) -> i64 {
    let containers = pod.pointer("/status/containerStatuses").and_then(Value::as_array);
    containers.into_iter().flatten().map(|c| int(c, "/restartCount")).sum()
}

/// The codes of a release's timeline, with the step of those that start one.
pub fn timeline(release: &Value) -> Vec<String> {
    let entries = release.pointer("/status/timeline").and_then(Value::as_array);
    entries
        .into_iter()
        .flatten()
        .map(|e| match text(e, "/reason").as_str() {
            "StepStarted" => format!("StepStarted {}", int(e, "/step")),
            other => other.to_owned(),
        })
        .collect()
}

/// A release in a few words, for messages.
pub fn brief(release: &Value) -> String {
    let status = &release["status"];
    json!({
        "name": text(release, "/metadata/name"),
        "phase": status["phase"], "reason": status["reason"], "message": status["message"],
        "step": status["step"], "weight": status["weight"], "commands": status["commands"],
        "timeline": timeline(release),
    })
    .to_string()
}

/// A pause where a test wants to see that nothing happens.
pub async fn while_nothing_happens(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}
