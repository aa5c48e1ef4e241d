//! From raw objects to the few fields that decisions need. Total: a field that is missing or of another type is
//! as if it were absent.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use crate::api;
use crate::api::template::{Template, TemplateKind};
use crate::decide::{
    Autoscaler, Container, Identity, Job, JobEnd, KnownTemplate, Owner, Pod, ReplicaSet, Workload,
    WorkloadKind, revision,
};

pub(super) fn text(value: &Value, pointer: &str) -> Option<String> {
    value.pointer(pointer).and_then(Value::as_str).map(str::to_owned)
}

fn number(value: &Value, pointer: &str) -> Option<i32> {
    value.pointer(pointer).and_then(Value::as_i64).and_then(|n| i32::try_from(n).ok())
}

fn long(value: &Value, pointer: &str) -> Option<i64> {
    value.pointer(pointer).and_then(Value::as_i64)
}

pub(super) fn time(value: &Value, pointer: &str) -> Option<Timestamp> {
    value.pointer(pointer).and_then(Value::as_str).and_then(|t| t.parse().ok())
}

pub(super) fn entry(value: &Value, map: &str, key: &str) -> Option<String> {
    value.pointer(map).and_then(|m| m.get(key)).and_then(Value::as_str).map(str::to_owned)
}

fn conditions(value: &Value) -> impl Iterator<Item = &Value> {
    value.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten()
}

fn condition<'a>(value: &'a Value, kind: &str) -> Option<&'a Value> {
    conditions(value).find(|c| c["type"] == kind)
}

/// Who an object is.
pub fn identity(object: &Value) -> Identity {
    Identity {
        namespace: text(object, "/metadata/namespace").unwrap_or_default(),
        name: text(object, "/metadata/name").unwrap_or_default(),
        uid: text(object, "/metadata/uid").unwrap_or_default(),
        resource_version: text(object, "/metadata/resourceVersion").unwrap_or_default(),
    }
}

pub(super) fn controller(object: &Value) -> Option<Owner> {
    let owners = object.pointer("/metadata/ownerReferences")?.as_array()?;
    let owner = owners.iter().find(|o| o["controller"] == true)?;
    Some(Owner {
        kind: text(owner, "/kind").unwrap_or_default(),
        name: text(owner, "/name").unwrap_or_default(),
        uid: text(owner, "/uid").unwrap_or_default(),
    })
}

/// A Deployment.
pub fn deployment(object: &Value) -> Workload {
    let replicas = number(object, "/spec/replicas").unwrap_or(1);
    let template = object.pointer("/spec/template").cloned().unwrap_or_default();
    Workload {
        kind: WorkloadKind::Deployment,
        id: identity(object),
        generation: long(object, "/metadata/generation").unwrap_or(0),
        observed_generation: long(object, "/status/observedGeneration").unwrap_or(0),
        deleting: object.pointer("/metadata/deletionTimestamp").is_some(),
        rollout_label: entry(object, "/metadata/labels", api::ROLLOUT_LABEL),
        release_label: entry(object, "/metadata/labels", api::RELEASE_LABEL),
        braked: entry(object, "/metadata/labels", api::BRAKED_LABEL).is_some(),
        has_labels: object.pointer("/metadata/labels").is_some_and(Value::is_object),
        replicas,
        paused: object.pointer("/spec/paused").and_then(Value::as_bool).unwrap_or(false),
        selector: object.pointer("/spec/selector").cloned().unwrap_or_default(),
        revision: revision(&template),
        template,
        progress_deadline_seconds: long(object, "/spec/progressDeadlineSeconds").unwrap_or(600),
        min_ready_seconds: long(object, "/spec/minReadySeconds").unwrap_or(0),
        surge: surge(object, replicas),
        total: number(object, "/status/replicas").unwrap_or(0),
        updated: number(object, "/status/updatedReplicas").unwrap_or(0),
        available: number(object, "/status/availableReplicas").unwrap_or(0),
    }
}

/// `maxSurge` in pods: a percentage is rounded up; the default is 25 %.
fn surge(object: &Value, replicas: i32) -> i32 {
    if object.pointer("/spec/strategy/type").and_then(Value::as_str) == Some("Recreate") {
        return 0;
    }
    let percent = |p: i64| {
        let pods = i64::from(replicas).saturating_mul(p).saturating_add(99) / 100;
        i32::try_from(pods).unwrap_or(i32::MAX)
    };
    match object.pointer("/spec/strategy/rollingUpdate/maxSurge") {
        Some(Value::Number(n)) => n.as_i64().and_then(|n| i32::try_from(n).ok()).unwrap_or(0),
        Some(Value::String(s)) => s.trim_end_matches('%').parse().map_or(0, percent),
        _ => percent(25),
    }
}

/// A ReplicaSet.
pub fn replica_set(object: &Value) -> ReplicaSet {
    let template = object.pointer("/spec/template").cloned().unwrap_or_default();
    let replicas = number(object, "/spec/replicas").unwrap_or(1);
    let failure = condition(object, "ReplicaFailure").filter(|c| c["status"] == "True");
    ReplicaSet {
        id: identity(object),
        deleting: object.pointer("/metadata/deletionTimestamp").is_some(),
        owner: controller(object),
        hash: entry(object, "/metadata/labels", api::POD_TEMPLATE_HASH),
        revision: revision(&template),
        template: Some(template),
        has_annotations: object.pointer("/metadata/annotations").is_some_and(Value::is_object),
        release: entry(object, "/metadata/annotations", api::RELEASE_ANNOTATION),
        stopped: entry(object, "/metadata/annotations", api::STOPPED_ANNOTATION),
        desired_annotation: entry(object, "/metadata/annotations", api::DESIRED_REPLICAS_ANNOTATION),
        replicas,
        total: number(object, "/status/replicas").unwrap_or(0),
        available: number(object, "/status/availableReplicas").unwrap_or(0),
        failure: failure.and_then(|c| text(c, "/message")),
    }
}

/// A pod.
pub fn pod(object: &Value) -> Pod {
    let ready = condition(object, "Ready");
    let scheduled = condition(object, "PodScheduled");
    let disruption = condition(object, "DisruptionTarget").is_some_and(|c| c["status"] == "True");
    let reason = text(object, "/status/reason").unwrap_or_default();
    let gone = ["Evicted", "Preempting", "Preempted", "NodeLost", "NodeShutdown", "Terminated", "Shutdown"];
    let mut containers = Vec::new();
    for list in ["/status/initContainerStatuses", "/status/containerStatuses"] {
        let statuses = object.pointer(list).and_then(Value::as_array).into_iter().flatten();
        containers.extend(statuses.map(container));
    }
    Pod {
        name: text(object, "/metadata/name").unwrap_or_default(),
        uid: text(object, "/metadata/uid").unwrap_or_default(),
        owner_uid: controller(object).map(|o| o.uid).unwrap_or_default(),
        ip: text(object, "/status/podIP").and_then(|ip| ip.parse().ok()),
        created_at: time(object, "/metadata/creationTimestamp"),
        started_at: time(object, "/status/startTime"),
        deleting: object.pointer("/metadata/deletionTimestamp").is_some(),
        disrupted: disruption || gone.contains(&reason.as_str()) || node_is_silent(object, ready),
        ready: ready.is_some_and(|c| c["status"] == "True"),
        ready_changed_at: ready.and_then(|c| time(c, "/lastTransitionTime")),
        unschedulable: scheduled
            .filter(|c| c["status"] == "False" && c["reason"] == "Unschedulable")
            .map(|c| text(c, "/message").unwrap_or_default()),
        containers,
    }
}

/// The node controller sets `Ready` alone to false when a node is silent; the kubelet gives a reason and sets
/// `ContainersReady` with it, or names the readiness gates.
fn node_is_silent(object: &Value, ready: Option<&Value>) -> bool {
    let unready = ready.is_some_and(|c| c["status"] == "False" && c["reason"] != "ReadinessGatesNotReady");
    unready && condition(object, "ContainersReady").is_some_and(|c| c["status"] == "True")
}

fn container(status: &Value) -> Container {
    let ended = |at: &str| {
        let state = status.pointer(at)?;
        Some((text(state, "/reason").unwrap_or_default(), number(state, "/exitCode").unwrap_or(0)))
    };
    Container {
        name: text(status, "/name").unwrap_or_default(),
        restarts: number(status, "/restartCount").unwrap_or(0),
        waiting: status.pointer("/state/waiting").map(|state| {
            (text(state, "/reason").unwrap_or_default(), text(state, "/message").unwrap_or_default())
        }),
        terminated: ended("/state/terminated"),
        last_terminated: ended("/lastState/terminated"),
    }
}

/// A template.
pub fn template(kind: TemplateKind, object: &Value) -> KnownTemplate {
    KnownTemplate {
        kind,
        name: identity(object).name,
        generation: long(object, "/metadata/generation").unwrap_or(0),
        spec: Template::deserialize(&object["spec"]).map_err(|error| error.to_string()),
    }
}

/// A Job of a check.
pub fn job(object: &Value) -> Job {
    let release = controller(object).filter(|owner| owner.kind == "Release").unwrap_or_default();
    Job {
        id: identity(object),
        owner_uid: release.uid,
        release: release.name,
        guard: entry(object, "/metadata/labels", api::GUARD_LABEL).unwrap_or_default(),
        run: entry(object, "/metadata/annotations", api::RUN_ANNOTATION)
            .and_then(|run| run.parse().ok())
            .unwrap_or(0),
        created_at: time(object, "/metadata/creationTimestamp"),
        deleting: object.pointer("/metadata/deletionTimestamp").is_some(),
        ended: job_end(object),
    }
}

/// What the Job controller says of a Job that is over. That it was late is no failure of what it checks.
fn job_end(object: &Value) -> Option<JobEnd> {
    let name = identity(object).name;
    let is = |kind: &str| condition(object, kind).filter(|c| c["status"] == "True");
    if is("Complete").is_some() {
        return Some(JobEnd { passed: Ok(true), seen: format!("Job {name} completed") });
    }
    let failed = is("Failed")?;
    let reason = text(failed, "/reason").unwrap_or_default();
    let message = text(failed, "/message").unwrap_or_default();
    let seen = format!("Job {name} failed: {reason}: {message}");
    let passed = if reason == "DeadlineExceeded" {
        Err(format!("Job {name} was not done by its deadline"))
    } else {
        Ok(false)
    };
    Some(JobEnd { passed, seen })
}

/// An autoscaler, and the kind and name of what it scales.
pub fn autoscaler(object: &Value) -> (String, String, Autoscaler) {
    let kind = text(object, "/spec/scaleTargetRef/kind").unwrap_or_default();
    let name = text(object, "/spec/scaleTargetRef/name").unwrap_or_default();
    let view = Autoscaler {
        id: identity(object),
        min: number(object, "/spec/minReplicas"),
        max: number(object, "/spec/maxReplicas").unwrap_or(i32::MAX),
        held: entry(object, "/metadata/annotations", api::HELD_FLOOR_ANNOTATION),
        has_annotations: object.pointer("/metadata/annotations").is_some_and(Value::is_object),
    };
    (kind, name, view)
}
