//! From effects to requests: pure, so that every byte that is sent can be tested.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::api::{self, FINALIZER};
use crate::cluster::Resource;
use crate::decide::{Announcement, Effect, Identity, Loan, Marks, Reason, Subject};

/// Longest note of an event, as the API server has it.
const NOTE: usize = 1000;

/// What is done to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// POST.
    Create,
    /// PATCH with a JSON Patch.
    Patch,
    /// DELETE.
    Delete,
    /// GET.
    Read,
}

/// One request to the API server.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// What is done.
    pub verb: Verb,
    /// To what kind.
    pub resource: Resource,
    /// In which namespace.
    pub namespace: String,
    /// To which object; empty when one is created.
    pub name: String,
    /// Whether only its status is written.
    pub status: bool,
    /// The object, the patch, or the delete options.
    pub body: Value,
}

impl Request {
    /// As HTTP.
    pub fn to_http(&self) -> Result<http::Request<Vec<u8>>, http::Error> {
        let mut path =
            format!("{}/namespaces/{}/{}", self.resource.path(), self.namespace, self.resource.plural());
        if !self.name.is_empty() {
            path.push('/');
            path.push_str(&self.name);
        }
        if self.status {
            path.push_str("/status");
        }
        let (method, content) = match self.verb {
            Verb::Create => (http::Method::POST, "application/json"),
            Verb::Patch => (http::Method::PATCH, "application/json-patch+json"),
            Verb::Delete => (http::Method::DELETE, "application/json"),
            Verb::Read => (http::Method::GET, "application/json"),
        };
        if matches!(self.verb, Verb::Create | Verb::Patch) {
            path.push_str("?fieldManager=");
            path.push_str(api::FIELD_MANAGER);
        }
        http::Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::CONTENT_TYPE, content)
            .header(http::header::ACCEPT, "application/json")
            .body(if self.body.is_null() { Vec::new() } else { self.body.to_string().into_bytes() })
    }
}

/// A JSON Patch in the making. Every patch tests the uid first: another object of the same name is not meant.
struct Patch(Vec<Value>);

impl Patch {
    fn of(id: &Identity) -> Self {
        Self(vec![json!({"op": "test", "path": "/metadata/uid", "value": id.uid})])
    }

    fn test(mut self, path: &str, value: impl Into<Value>) -> Self {
        self.0.push(json!({"op": "test", "path": path, "value": value.into()}));
        self
    }

    fn unchanged(self, id: &Identity) -> Self {
        let version = id.resource_version.clone();
        self.test("/metadata/resourceVersion", version)
    }

    fn add(mut self, path: &str, value: impl Into<Value>) -> Self {
        self.0.push(json!({"op": "add", "path": path, "value": value.into()}));
        self
    }

    fn remove(mut self, path: &str) -> Self {
        self.0.push(json!({"op": "remove", "path": path}));
        self
    }

    fn and(mut self, ops: &[Value]) -> Self {
        self.0.extend_from_slice(ops);
        self
    }

    /// What a release writes on an object that it borrows.
    fn marks(self, marks: &Marks) -> Self {
        let annotates = marks.borrow.is_some() || marks.stopped.is_some();
        self.when(annotates && !marks.has_annotations, |p| p.add("/metadata/annotations", json!({})))
            .when(marks.borrow.is_some() && !marks.has_labels, |p| p.add("/metadata/labels", json!({})))
            .each(marks.borrow.as_ref(), |p, (release, loan)| {
                p.add(&label(api::RELEASE_LABEL), release.as_str())
                    .add(&annotation(api::BORROWED_ANNOTATION), loan.as_str())
            })
            .each(marks.stopped.as_ref(), |p, why| p.add(&annotation(api::STOPPED_ANNOTATION), why.as_str()))
    }

    /// Takes off what a borrowed object carries of its release. What came to it since it was seen would be left on it,
    /// so it must be unchanged. Maps that only Belay filled go, too: the object is what it was.
    fn returned(self, loan: &Loan) -> Self {
        self.each(loan.annotation.as_ref(), |p, text| {
            let key = annotation(api::BORROWED_ANNOTATION);
            p.test(&key, text.as_str()).remove(&key)
        })
        .when(loan.release.is_some(), |p| p.remove(&label(api::RELEASE_LABEL)))
        .when(loan.stopped.is_some(), |p| p.remove(&annotation(api::STOPPED_ANNOTATION)))
        .when(loan.held_writes.is_some(), |p| p.remove(&annotation(api::HELD_WRITES_ANNOTATION)))
    }

    fn each<T>(self, value: Option<T>, then: impl FnOnce(Self, T) -> Self) -> Self {
        match value {
            Some(value) => then(self, value),
            None => self,
        }
    }

    fn when(self, condition: bool, then: impl FnOnce(Self) -> Self) -> Self {
        if condition { then(self) } else { self }
    }
}

fn label(key: &str) -> String {
    format!("/metadata/labels/{}", escape(key))
}

fn annotation(key: &str) -> String {
    format!("/metadata/annotations/{}", escape(key))
}

fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

fn patch(resource: Resource, id: &Identity, patch: Patch) -> Request {
    Request {
        verb: Verb::Patch,
        resource,
        namespace: id.namespace.clone(),
        name: id.name.clone(),
        status: false,
        body: Value::Array(patch.0),
    }
}

fn status(resource: Resource, id: &Identity, status: Value) -> Request {
    Request { status: true, ..patch(resource, id, Patch::of(id).unchanged(id).add("/status", status)) }
}

fn create(resource: Resource, namespace: &str, object: Value) -> Request {
    Request {
        verb: Verb::Create,
        resource,
        namespace: namespace.to_owned(),
        name: String::new(),
        status: false,
        body: object,
    }
}

fn delete(resource: Resource, id: &Identity) -> Request {
    Request {
        verb: Verb::Delete,
        resource,
        namespace: id.namespace.clone(),
        name: id.name.clone(),
        status: false,
        body: json!({
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": id.uid},
            "propagationPolicy": "Background",
        }),
    }
}

fn read(resource: Resource, id: &Identity) -> Request {
    Request {
        verb: Verb::Read,
        resource,
        namespace: id.namespace.clone(),
        name: id.name.clone(),
        status: false,
        body: Value::Null,
    }
}

/// The request that carries an effect out.
#[expect(clippy::too_many_lines, reason = "one arm per effect; a table reads best in one piece")]
pub fn request(effect: &Effect, now: Timestamp, instance: &str) -> Request {
    const OWNER: &str = "/metadata/ownerReferences/0/uid";
    const PIN: &str = "/spec/selector/pod-template-hash";
    let release_label = label(api::RELEASE_LABEL);
    let braked_label = label(api::BRAKED_LABEL);
    match effect {
        Effect::AddFinalizer { rollout, present } => {
            let all: Vec<&str> = present.iter().map(String::as_str).chain([FINALIZER]).collect();
            let ops = Patch::of(rollout).unchanged(rollout).add("/metadata/finalizers", json!(all));
            patch(Resource::Rollouts, rollout, ops)
        }
        Effect::RemoveFinalizer { rollout, present } => {
            let rest: Vec<&String> = present.iter().filter(|f| *f != FINALIZER).collect();
            let ops = Patch::of(rollout).unchanged(rollout).add("/metadata/finalizers", json!(rest));
            patch(Resource::Rollouts, rollout, ops)
        }
        Effect::MarkWorkload { workload, rollout, has_labels } => {
            let ops = Patch::of(workload)
                .when(!has_labels, |p| p.unchanged(workload).add("/metadata/labels", json!({})))
                .add(&label(api::ROLLOUT_LABEL), rollout.as_str());
            patch(Resource::Deployments, workload, ops)
        }
        Effect::UnmarkWorkload { workload, generation, marked, held, braked, unpause } => {
            let ops = Patch::of(workload)
                .unchanged(workload)
                .test("/metadata/generation", *generation)
                .when(*marked, |p| p.remove(&label(api::ROLLOUT_LABEL)))
                .when(*held, |p| p.remove(&release_label))
                .when(*braked, |p| p.remove(&braked_label))
                .when(*unpause, |p| p.remove("/spec/paused"));
            patch(Resource::Deployments, workload, ops)
        }
        Effect::HoldWorkload { workload, generation, revision, pause } => {
            let ops = Patch::of(workload)
                .test("/metadata/generation", *generation)
                .add(&release_label, revision.as_str())
                .when(*pause, |p| p.add("/spec/paused", true));
            patch(Resource::Deployments, workload, ops)
        }
        Effect::FreeWorkload { workload, generation, held, braked, paused } => {
            let ops = Patch::of(workload)
                .test("/metadata/generation", *generation)
                .when(*held, |p| p.remove(&release_label))
                .when(*braked, |p| p.remove(&braked_label))
                .when(*paused, |p| p.remove("/spec/paused"));
            patch(Resource::Deployments, workload, ops)
        }
        Effect::RestoreTemplate { workload, generation, template, held, braked, paused } => {
            let ops = Patch::of(workload)
                .test("/metadata/generation", *generation)
                .add("/spec/template", template.clone())
                .when(*held, |p| p.remove(&release_label))
                .when(*braked, |p| p.remove(&braked_label))
                .when(*paused, |p| p.remove("/spec/paused"));
            patch(Resource::Deployments, workload, ops)
        }
        Effect::CreateRelease(release) => {
            let namespace = release.metadata.namespace.clone().unwrap_or_default();
            create(Resource::Releases, &namespace, json!(release))
        }
        Effect::RecordRelease { release, status: value } => status(Resource::Releases, release, json!(value)),
        Effect::PruneRelease { release } => delete(Resource::Releases, release),
        Effect::RecordRollout { rollout, status: value } => status(Resource::Rollouts, rollout, json!(value)),
        Effect::CreateCanary { object } => {
            let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
            create(Resource::ReplicaSets, namespace, object.clone())
        }
        Effect::ScaleCanary { replica_set, from, to, owner_uid } => {
            let ops = Patch::of(replica_set)
                .test(OWNER, owner_uid.as_str())
                .test("/spec/replicas", *from)
                .add("/spec/replicas", *to);
            patch(Resource::ReplicaSets, replica_set, ops)
        }
        Effect::StopCanary { replica_set, reason, has_annotations, owner_uid } => {
            let ops = Patch::of(replica_set)
                .test(OWNER, owner_uid.as_str())
                .when(!has_annotations, |p| p.add("/metadata/annotations", json!({})))
                .add(&annotation(api::STOPPED_ANNOTATION), reason.as_str())
                .add("/spec/replicas", 0);
            patch(Resource::ReplicaSets, replica_set, ops)
        }
        Effect::HandOver { replica_set, replicas, max, has_annotations, owner_uid } => {
            let ops = Patch::of(replica_set)
                .test(OWNER, owner_uid.as_str())
                .test("/spec/replicas", *replicas)
                // Not what was seen counts, but what is so when it arrives. None of none are not written down.
                .when(*replicas > 0, |p| p.test("/status/availableReplicas", *replicas))
                .when(!has_annotations, |p| p.add("/metadata/annotations", json!({})))
                .add(&annotation(api::DESIRED_REPLICAS_ANNOTATION), replicas.to_string())
                .add(&annotation(api::MAX_REPLICAS_ANNOTATION), max.to_string())
                .remove("/metadata/ownerReferences");
            patch(Resource::ReplicaSets, replica_set, ops)
        }
        Effect::DeleteReplicaSet { replica_set } => delete(Resource::ReplicaSets, replica_set),
        Effect::RunJob { object } => {
            let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
            create(Resource::Jobs, namespace, object.clone())
        }
        Effect::DeleteJob { job } => {
            // Not one that has ended since: how it ended is still to be read.
            let mut request = delete(Resource::Jobs, job);
            request.body["preconditions"]["resourceVersion"] = json!(job.resource_version);
            request
        }
        Effect::HoldFloor { autoscaler, min, floor, has_annotations } => {
            let before = min.map_or_else(|| "none".to_owned(), |m| m.to_string());
            let ops = Patch::of(autoscaler)
                .when(min.is_some(), |p| p.test("/spec/minReplicas", *min))
                .when(!has_annotations, |p| p.unchanged(autoscaler).add("/metadata/annotations", json!({})))
                .add(&annotation(api::HELD_FLOOR_ANNOTATION), format!("{before}/{floor}"))
                .add("/spec/minReplicas", *floor);
            patch(Resource::Autoscalers, autoscaler, ops)
        }
        Effect::ReturnFloor { autoscaler, held, present, min } => {
            let key = annotation(api::HELD_FLOOR_ANNOTATION);
            let ops = Patch::of(autoscaler)
                .test(&key, held.as_str())
                .when(present.is_some(), |p| p.test("/spec/minReplicas", *present))
                .remove(&key)
                .when(matches!(min, Some(Some(_))), |p| p.add("/spec/minReplicas", min.flatten()))
                .when(matches!(min, Some(None)) && present.is_some(), |p| p.remove("/spec/minReplicas"));
            patch(Resource::Autoscalers, autoscaler, ops)
        }
        Effect::CreateService { object } => {
            let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
            create(Resource::Services, namespace, object.clone())
        }
        Effect::DeleteService { service } => delete(Resource::Services, service),
        Effect::PinService { service, from, to, marks } => {
            let ops = Patch::of(service)
                .when(marks.unchanged, |p| p.unchanged(service))
                .when(from.is_some(), |p| p.test(PIN, from.clone()))
                .add(PIN, to.as_str())
                .marks(marks);
            patch(Resource::Services, service, ops)
        }
        Effect::UnpinService { service, from } => {
            patch(Resource::Services, service, Patch::of(service).test(PIN, from.as_str()).remove(PIN))
        }
        Effect::ReturnService { service, pin, loan } => {
            let ops = Patch::of(service)
                .unchanged(service)
                .returned(loan)
                .when(pin.is_some(), |p| p.test(PIN, pin.clone()).remove(PIN));
            patch(Resource::Services, service, ops)
        }
        Effect::SplitRoute { router, route, ops, marks, .. } => {
            let ops = Patch::of(route).when(marks.unchanged, |p| p.unchanged(route)).and(ops).marks(marks);
            patch(Resource::Routes(*router), route, ops)
        }
        Effect::CreateRoute { router, object } => {
            let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
            create(Resource::Routes(*router), namespace, object.clone())
        }
        Effect::DeleteRoute { router, route } => delete(Resource::Routes(*router), route),
        Effect::ReturnRoute { router, route, ops, loan } => {
            let ops = Patch::of(route).unchanged(route).and(ops).returned(loan);
            patch(Resource::Routes(*router), route, ops)
        }
        Effect::Confirm { subject, id, .. } => read(
            match subject {
                Subject::Workload => Resource::Deployments,
                Subject::Release => Resource::Releases,
                Subject::Rollout => Resource::Rollouts,
                Subject::ReplicaSet => Resource::ReplicaSets,
                Subject::Service => Resource::Services,
                Subject::Route(router) => Resource::Routes(*router),
            },
            id,
        ),
        Effect::Announce(announcement) => {
            create(Resource::Events, &announcement.regarding.id.namespace, event(announcement, now, instance))
        }
    }
}

fn event(announcement: &Announcement, now: Timestamp, instance: &str) -> Value {
    let Announcement { regarding, warning, kind, action, reason } = announcement;
    json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"generateName": format!("{}-", regarding.id.name), "namespace": regarding.id.namespace},
        "eventTime": format!("{now:.6}"),
        "reportingController": "belay.dev/operator",
        "reportingInstance": instance,
        "type": if *warning { "Warning" } else { "Normal" },
        "reason": kind,
        "action": action,
        "note": note(reason),
        "regarding": {
            "apiVersion": format!("{}/{}", api::GROUP, api::VERSION),
            "kind": regarding.kind,
            "namespace": regarding.id.namespace,
            "name": regarding.id.name,
            "uid": regarding.id.uid,
            "resourceVersion": regarding.id.resource_version,
        },
    })
}

fn note(reason: &Reason) -> String {
    reason.to_string().chars().take(NOTE).collect()
}
