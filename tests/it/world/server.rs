//! The API server of the world: raw JSON objects, one revision per write, optimistic concurrency, uids, finalizers,
//! generations, field managers, and the brake as admission. What it does is what the real one does, as far as
//! Belay or the controllers rely on it.

use std::collections::BTreeMap;
use std::sync::Arc;

use belay::api::router::Router;
use belay::api::{OPERATOR_USER, RELEASE_LABEL, Release, Rollout};
use belay::cluster::Resource;
use belay::install::brake;
use belay::observe::Kind;
use serde_json::{Map, Value, json};

/// The one namespace.
pub const NAMESPACE: &str = "shop";

/// A kind of object, as the server stores it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sort {
    Rollout,
    Release,
    Deployment,
    ReplicaSet,
    Pod,
    Autoscaler,
    Service,
    Slice,
    Route,
    Job,
    Lease,
    Event,
}

impl From<Resource> for Sort {
    fn from(resource: Resource) -> Self {
        match resource {
            Resource::Rollouts => Self::Rollout,
            Resource::Releases => Self::Release,
            Resource::Deployments => Self::Deployment,
            Resource::ReplicaSets => Self::ReplicaSet,
            Resource::Autoscalers => Self::Autoscaler,
            Resource::Services => Self::Service,
            Resource::Routes(_) => Self::Route,
            Resource::Jobs => Self::Job,
            Resource::Events => Self::Event,
        }
    }
}

impl Sort {
    /// As the operator's watches name it.
    pub fn watched(self) -> Option<Kind> {
        Some(match self {
            Self::Rollout => Kind::Rollouts,
            Self::Release => Kind::Releases,
            Self::Deployment => Kind::Deployments,
            Self::ReplicaSet => Kind::ReplicaSets,
            Self::Pod => Kind::Pods,
            Self::Autoscaler => Kind::Autoscalers,
            Self::Service => Kind::Services,
            Self::Slice => Kind::Slices,
            Self::Route => Kind::Routes(Router::HttpRoute),
            Self::Job => Kind::Jobs,
            Self::Lease | Self::Event => return None,
        })
    }

    /// The kinds that the operator watches.
    pub const WATCHED: [Self; 10] = [
        Self::Rollout,
        Self::Release,
        Self::Deployment,
        Self::ReplicaSet,
        Self::Pod,
        Self::Autoscaler,
        Self::Service,
        Self::Slice,
        Self::Route,
        Self::Job,
    ];

    /// Whether it has a status that is written by itself.
    fn has_status(self) -> bool {
        !matches!(self, Self::Lease | Self::Event)
    }

    /// What `metadata.generation` counts: changes of the spec.
    fn counts_generations(self) -> bool {
        matches!(self, Self::Rollout | Self::Release | Self::Deployment | Self::ReplicaSet | Self::Route)
    }
}

/// Why a request was refused: the status code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: u16,
    pub message: String,
}

pub fn refuse<T>(code: u16, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { code, message: message.into() })
}

/// A write that happened.
#[derive(Clone, Debug)]
pub struct Write {
    /// Who.
    pub by: String,
    pub sort: Sort,
    pub name: String,
    pub before: Option<Arc<Value>>,
    /// Nothing when it was deleted.
    pub after: Option<Arc<Value>>,
    /// Milliseconds of the world.
    pub at: i64,
}

/// What a watch tells.
#[derive(Clone, Debug)]
pub struct Entry {
    pub sort: Sort,
    pub object: Arc<Value>,
    pub deleted: bool,
}

/// The server.
#[derive(Clone, Debug)]
pub struct Server {
    objects: BTreeMap<(Sort, String), Arc<Value>>,
    /// Everything that watches tell, oldest first.
    pub log: Vec<Entry>,
    /// Every write, for those who judge it.
    pub audit: Vec<Write>,
    /// Whether the brake's policy is there.
    pub braked: bool,
    /// Milliseconds of the world, as it is now.
    pub now: i64,
    revision: u64,
    serial: u64,
    /// How many objects are gone.
    gone: u64,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            log: Vec::new(),
            audit: Vec::new(),
            braked: true,
            now: 0,
            revision: 100,
            serial: 0,
            gone: 0,
        }
    }
}

impl Server {
    pub fn get(&self, sort: Sort, name: &str) -> Option<&Arc<Value>> {
        self.objects.get(&(sort, name.to_owned()))
    }

    /// All objects of a kind, by name.
    pub fn all(&self, sort: Sort) -> impl Iterator<Item = &Arc<Value>> {
        let from = (sort, String::new());
        self.objects.range(from..).take_while(move |((s, _), _)| *s == sort).map(|(_, object)| object)
    }

    /// A number that grows with every write, and one that grows with every object that comes or goes.
    pub fn version(&self) -> (u64, u64) {
        (self.revision, self.gone + self.serial)
    }

    pub fn uids(&self) -> std::collections::BTreeSet<&str> {
        self.objects.values().filter_map(|o| o["metadata"]["uid"].as_str()).collect()
    }

    fn fresh(&mut self, prefix: &str) -> String {
        self.serial += 1;
        format!("{prefix}{}", self.serial)
    }

    pub fn create(&mut self, by: &str, sort: Sort, mut object: Value) -> Result<Value, Refusal> {
        let suffix = self.fresh("");
        let meta = child(&mut object, "metadata");
        if meta.get("name").is_none() {
            let name = format!("{}{suffix}", meta["generateName"].as_str().unwrap_or("unnamed-"));
            meta["name"] = json!(name);
        }
        let name = meta["name"].as_str().unwrap_or_default().to_owned();
        if self.get(sort, &name).is_some() {
            return refuse(409, format!("{sort:?} {name} already exists"));
        }
        meta["namespace"] = json!(NAMESPACE);
        meta["uid"] = json!(format!("uid{suffix}"));
        meta["creationTimestamp"] = json!(super::clock::whole_second(self.now).to_string());
        if sort.counts_generations() {
            meta["generation"] = json!(1);
        }
        if sort.has_status()
            && let Some(members) = object.as_object_mut()
            && matches!(sort, Sort::Rollout | Sort::Release)
        {
            members.remove("status");
        }
        if sort == Sort::Release {
            stamp(by, None, &mut object);
        }
        manage(by, None, &mut object);
        Ok(self.store(by, sort, &name, None, object))
    }

    /// A JSON Patch, of the object or of its status only.
    pub fn patch(
        &mut self,
        by: &str,
        sort: Sort,
        name: &str,
        status: bool,
        patch: &Value,
    ) -> Result<Value, Refusal> {
        let Ok(patch) = serde_json::from_value::<json_patch::Patch>(patch.clone()) else {
            return refuse(400, "not a JSON Patch");
        };
        let Some(old) = self.get(sort, name).cloned() else { return refuse(404, format!("no {name}")) };
        let mut new = (*old).clone();
        if let Err(error) = json_patch::patch(&mut new, &patch) {
            return refuse(422, error.to_string());
        }
        self.write(by, sort, name, &old, new, status)
    }

    /// A read, a change and a write, which nobody comes between.
    pub fn update(
        &mut self,
        by: &str,
        sort: Sort,
        name: &str,
        status: bool,
        change: impl FnOnce(&mut Value),
    ) -> Result<Value, Refusal> {
        let Some(old) = self.get(sort, name).cloned() else { return refuse(404, format!("no {name}")) };
        let mut new = (*old).clone();
        change(&mut new);
        self.write(by, sort, name, &old, new, status)
    }

    /// A write of the whole object over the version that it was read as.
    pub fn replace(&mut self, by: &str, sort: Sort, name: &str, new: Value) -> Result<Value, Refusal> {
        let Some(old) = self.get(sort, name).cloned() else { return refuse(404, format!("no {name}")) };
        if new["metadata"]["resourceVersion"] != old["metadata"]["resourceVersion"] {
            return refuse(409, "the object has been modified");
        }
        self.write(by, sort, name, &old, new, false)
    }

    fn write(
        &mut self,
        by: &str,
        sort: Sort,
        name: &str,
        old: &Arc<Value>,
        mut new: Value,
        status: bool,
    ) -> Result<Value, Refusal> {
        if status {
            let mut only = (**old).clone();
            only["status"] = new["status"].take();
            new = only;
        } else if sort.has_status() {
            match old.get("status") {
                Some(status) => new["status"] = status.clone(),
                None => drop(new.as_object_mut().and_then(|m| m.remove("status"))),
            }
            self.admit(by, sort, old, &mut new)?;
        }
        for kept in ["uid", "creationTimestamp", "deletionTimestamp", "generation", "resourceVersion"] {
            match old["metadata"].get(kept) {
                Some(value) => new["metadata"][kept] = value.clone(),
                None => drop(new["metadata"].as_object_mut().and_then(|m| m.remove(kept))),
            }
        }
        tidy(&mut new);
        if sort.counts_generations() && new["spec"] != old["spec"] {
            new["metadata"]["generation"] = json!(old["metadata"]["generation"].as_i64().unwrap_or(0) + 1);
        }
        if !status {
            manage(by, Some(old), &mut new);
        }
        if new == **old {
            return Ok(new);
        }
        Ok(self.store(by, sort, name, Some(old.clone()), new))
    }

    /// The admission policies, and the rules of the schemas that Belay relies on.
    fn admit(&self, by: &str, sort: Sort, old: &Value, new: &mut Value) -> Result<(), Refusal> {
        match sort {
            Sort::Deployment if self.braked => {
                let patch = brake::patch(OPERATOR_USER, by, old, new);
                json_patch::patch(new, &patch).or_else(|e| refuse(500, e.to_string()))
            }
            Sort::Release => {
                stamp(by, Some(old), new);
                let (before, after) = (commands(old), commands(new));
                let appended = after.len() >= before.len() && after[..before.len()] == *before;
                if !appended || after.len() > before.len() + 1 || after.len() > 50 {
                    return refuse(422, "spec.commands is append-only");
                }
                Ok(())
            }
            Sort::Service | Sort::Route if self.braked => super::network::hold(by, sort, old, new),
            _ => Ok(()),
        }
    }

    /// Background deletion, with the uid as a precondition.
    pub fn delete(&mut self, by: &str, sort: Sort, name: &str, uid: Option<&str>) -> Result<(), Refusal> {
        let Some(old) = self.get(sort, name).cloned() else { return refuse(404, format!("no {name}")) };
        if uid.is_some_and(|uid| old["metadata"]["uid"] != uid) {
            return refuse(409, "the uid in the precondition is another one");
        }
        // A pod has its grace period, everything else waits for its finalizers only.
        let waits = sort == Sort::Pod || has_finalizers(&old);
        if !waits {
            self.bury(by, sort, name, &old);
        } else if old["metadata"].get("deletionTimestamp").is_none() {
            let mut new = (*old).clone();
            new["metadata"]["deletionTimestamp"] = json!(super::clock::whole_second(self.now).to_string());
            self.store(by, sort, name, Some(old), new);
        }
        Ok(())
    }

    /// The kubelet's last word about a pod.
    pub fn remove_pod(&mut self, name: &str) {
        if let Some(old) = self.get(Sort::Pod, name).cloned() {
            self.bury("kubelet", Sort::Pod, name, &old);
        }
    }

    fn store(
        &mut self,
        by: &str,
        sort: Sort,
        name: &str,
        before: Option<Arc<Value>>,
        mut new: Value,
    ) -> Value {
        self.revision += 1;
        new["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        let deleted = new["metadata"].get("deletionTimestamp").is_some();
        if deleted && !has_finalizers(&new) && sort != Sort::Pod {
            let last = Arc::new(new.clone());
            self.bury(by, sort, name, &last);
            return new;
        }
        let object = Arc::new(new.clone());
        self.objects.insert((sort, name.to_owned()), object.clone());
        self.tell(sort, object.clone(), before.as_deref(), false);
        self.note(by, sort, name, before, Some(object));
        new
    }

    fn bury(&mut self, by: &str, sort: Sort, name: &str, old: &Arc<Value>) {
        self.revision += 1;
        self.gone += 1;
        self.objects.remove(&(sort, name.to_owned()));
        let mut last = (**old).clone();
        last["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        self.note(by, sort, name, Some(old.clone()), None);
        self.tell(sort, Arc::new(last), Some(old), true);
    }

    /// What the operator's watches tell of a write. That of slices selects on a label: a slice that loses it is gone
    /// for them, and comes back with it.
    fn tell(&mut self, sort: Sort, object: Arc<Value>, before: Option<&Value>, deleted: bool) {
        let told =
            |object: &Value| sort != Sort::Slice || object["metadata"]["labels"].get(RELEASE_LABEL).is_some();
        let there = !deleted && told(&object);
        if there || before.is_some_and(told) {
            self.log.push(Entry { sort, object, deleted: !there });
        }
    }

    fn note(
        &mut self,
        by: &str,
        sort: Sort,
        name: &str,
        before: Option<Arc<Value>>,
        after: Option<Arc<Value>>,
    ) {
        let write = Write { by: by.to_owned(), sort, name: name.to_owned(), before, after, at: self.now };
        self.audit.push(write);
    }

    /// All Releases, decoded, oldest first.
    pub fn releases(&self) -> Vec<Release> {
        let mut all: Vec<&Arc<Value>> = self.all(Sort::Release).collect();
        all.sort_by_key(|o| born(o));
        all.into_iter().map(|o| serde_json::from_value((**o).clone()).unwrap()).collect()
    }

    /// The Release that was made last.
    pub fn latest_release(&self) -> Option<&Arc<Value>> {
        self.all(Sort::Release).max_by_key(|o| born(o))
    }

    /// The Rollout `web`, decoded.
    pub fn rollout(&self) -> Option<Rollout> {
        self.get(Sort::Rollout, "web").map(|o| serde_json::from_value((**o).clone()).unwrap())
    }
}

/// When an object was made, as a number that grows.
fn born(object: &Value) -> u64 {
    object["metadata"]["uid"].as_str().and_then(|uid| uid.strip_prefix("uid")?.parse().ok()).unwrap_or(0)
}

/// The object under a key, made if it is absent.
pub fn child<'a>(value: &'a mut Value, key: &str) -> &'a mut Value {
    let slot = &mut value[key];
    if !slot.is_object() {
        *slot = json!({});
    }
    slot
}

fn has_finalizers(object: &Value) -> bool {
    object.pointer("/metadata/finalizers").and_then(Value::as_array).is_some_and(|f| !f.is_empty())
}

fn commands(release: &Value) -> &[Value] {
    release.pointer("/spec/commands").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// `by` of every new command is the user of the request.
fn stamp(by: &str, old: Option<&Value>, new: &mut Value) {
    let known = old.map_or(0, |o| commands(o).len());
    let list = new.pointer_mut("/spec/commands").and_then(Value::as_array_mut);
    for command in list.into_iter().flatten().skip(known) {
        command["by"] = json!(by);
    }
}

/// Empty maps and lists of the metadata are not stored.
fn tidy(object: &mut Value) {
    let Some(meta) = object["metadata"].as_object_mut() else { return };
    for key in ["labels", "annotations"] {
        if meta.get(key).and_then(Value::as_object).is_some_and(Map::is_empty) {
            meta.remove(key);
        }
    }
    for key in ["finalizers", "ownerReferences"] {
        if meta.get(key).and_then(Value::as_array).is_some_and(Vec::is_empty) {
            meta.remove(key);
        }
    }
}

/// Notes who manages what: the top-level fields of spec that each writer set last. Coarser than the real one.
fn manage(by: &str, old: Option<&Value>, new: &mut Value) {
    let null = Value::Null;
    let before = old.map_or(&null, |o| &o["spec"]);
    let fields: Vec<String> = new["spec"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, value)| before.get(key.as_str()) != Some(*value))
        .map(|(key, _)| key.clone())
        .collect();
    if fields.is_empty() {
        return;
    }
    let mut entries: Vec<Value> =
        old.and_then(|o| o.pointer("/metadata/managedFields")?.as_array().cloned()).unwrap_or_default();
    for entry in &mut entries {
        if let Some(owned) = entry["fieldsV1"]["f:spec"].as_object_mut() {
            owned.retain(|key, _| !fields.iter().any(|f| key == &format!("f:{f}")));
        }
    }
    entries
        .retain(|e| e["manager"] != by && e["fieldsV1"]["f:spec"].as_object().is_some_and(|m| !m.is_empty()));
    let mine: Map<String, Value> = fields.into_iter().map(|f| (format!("f:{f}"), json!({}))).collect();
    entries.push(json!({"manager": by, "operation": "Update", "fieldsV1": {"f:spec": mine}}));
    new["metadata"]["managedFields"] = json!(entries);
}
