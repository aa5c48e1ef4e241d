//! The Deployment controller, after its source: adoption, pause, scaling, saturation, rolling update, clean-up.

use std::cmp::Reverse;
use std::sync::Arc;

use belay::decide::revision;
use serde_json::{Value, json};

use super::server::{NAMESPACE, Server, Sort, child};

const ME: &str = "deployment-controller";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAX: &str = "deployment.kubernetes.io/max-replicas";

pub fn int(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The controller's owner reference.
pub fn controller(object: &Value) -> Option<&Value> {
    object.pointer("/metadata/ownerReferences")?.as_array()?.iter().find(|o| o["controller"] == true)
}

pub fn is_deleting(object: &Value) -> bool {
    object["metadata"].get("deletionTimestamp").is_some()
}

/// Whether the labels of `object` are those of a selector's `matchLabels`.
pub fn selected(object: &Value, selector: &Value) -> bool {
    let wanted = selector["matchLabels"].as_object();
    wanted.into_iter().flatten().all(|(key, value)| object["metadata"]["labels"].get(key) == Some(value))
}

/// A Deployment while it is synced.
struct Sync {
    deployment: Arc<Value>,
    replicas: i64,
    surge: i64,
    unavailable: i64,
}

fn spec_replicas(rs: &Value) -> i64 {
    int(rs, "/spec/replicas")
}

fn available(rs: &Value) -> i64 {
    int(rs, "/status/availableReplicas")
}

fn annotation(rs: &Value, key: &str) -> Option<i64> {
    rs["metadata"]["annotations"].get(key)?.as_str()?.parse().ok()
}

fn age(rs: &Value) -> (String, String) {
    (text(rs, "/metadata/creationTimestamp").to_owned(), text(rs, "/metadata/name").to_owned())
}

/// Whether a ReplicaSet's template is that of a Deployment, but for the label that tells its pods apart.
fn same_template(of_set: &Value, of_deployment: &Value) -> bool {
    let labels = |template: &Value| -> Vec<(String, Value)> {
        let labels = template.pointer("/metadata/labels").and_then(Value::as_object);
        let labels = labels.into_iter().flatten().filter(|(key, _)| *key != "pod-template-hash");
        labels.map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    of_set["spec"] == of_deployment["spec"]
        && of_set["metadata"]["annotations"] == of_deployment["metadata"]["annotations"]
        && labels(of_set) == labels(of_deployment)
}

/// Writes a status, if it is another one.
pub fn write_status(server: &mut Server, by: &str, sort: Sort, object: &Value, status: Value) {
    if object["status"] != status {
        let name = text(object, "/metadata/name");
        drop(server.update(by, sort, name, true, |o| o["status"] = status));
    }
}

/// One sync of every Deployment. True when anything was written.
pub fn sync(server: &mut Server) -> bool {
    let before = server.audit.len();
    let all: Vec<Arc<Value>> = server.all(Sort::Deployment).cloned().collect();
    for deployment in all.into_iter().filter(|d| !is_deleting(d)) {
        one(server, &deployment);
    }
    server.audit.len() != before
}

fn one(server: &mut Server, deployment: &Arc<Value>) {
    let replicas = int(deployment, "/spec/replicas");
    let share = |pointer: &str, round_up: i64| match deployment.pointer(pointer) {
        Some(Value::Number(n)) => n.as_i64().unwrap_or(0),
        Some(Value::String(s)) => {
            (replicas * s.trim_end_matches('%').parse::<i64>().unwrap_or(25) + round_up) / 100
        }
        _ => (replicas * 25 + round_up) / 100,
    };
    let surge = share("/spec/strategy/rollingUpdate/maxSurge", 99);
    let mut unavailable = share("/spec/strategy/rollingUpdate/maxUnavailable", 0);
    if surge == 0 && unavailable == 0 {
        unavailable = 1;
    }
    let sync = Sync { deployment: deployment.clone(), replicas, surge, unavailable };
    sync.adopt(server);
    let paused = deployment["spec"]["paused"] == true;
    if paused || sync.is_scaling(server) {
        sync.scale(server);
        if paused {
            sync.clean_up(server);
        }
    } else {
        sync.roll(server);
    }
    sync.status(server);
}

impl Sync {
    fn uid(&self) -> &str {
        text(&self.deployment, "/metadata/uid")
    }

    fn own(&self, server: &Server) -> Vec<Arc<Value>> {
        let mine = |rs: &&Arc<Value>| controller(rs).is_some_and(|o| o["uid"] == self.uid());
        let mut own: Vec<Arc<Value>> = server.all(Sort::ReplicaSet).filter(mine).cloned().collect();
        own.sort_by_key(|rs| age(rs));
        own
    }

    /// The new ReplicaSet and the old ones, oldest first. Of several new ones the oldest counts.
    fn parted(&self, server: &Server) -> (Option<Arc<Value>>, Vec<Arc<Value>>) {
        let own = self.own(server);
        let template = &self.deployment["spec"]["template"];
        let new = own.iter().find(|rs| same_template(&rs["spec"]["template"], template));
        let new = new.cloned();
        let uid = new.as_ref().map(|rs| rs["metadata"]["uid"].clone());
        let old = own.into_iter().filter(|rs| Some(&rs["metadata"]["uid"]) != uid.as_ref()).collect();
        (new, old)
    }

    fn adopt(&self, server: &mut Server) {
        let orphans: Vec<String> = server
            .all(Sort::ReplicaSet)
            .filter(|rs| controller(rs).is_none() && !is_deleting(rs))
            .filter(|rs| selected(rs, &self.deployment["spec"]["selector"]))
            .map(|rs| text(rs, "/metadata/name").to_owned())
            .collect();
        for name in orphans {
            let owner = json!({
                "apiVersion": "apps/v1", "kind": "Deployment", "name": self.deployment["metadata"]["name"],
                "uid": self.uid(), "controller": true, "blockOwnerDeletion": true,
            });
            let adopted = server.update(ME, Sort::ReplicaSet, &name, false, |rs| {
                rs["metadata"]["ownerReferences"] = json!([owner]);
            });
            adopted.unwrap();
        }
    }

    fn is_scaling(&self, server: &Server) -> bool {
        self.own(server)
            .iter()
            .filter(|rs| spec_replicas(rs) > 0)
            .filter_map(|rs| annotation(rs, DESIRED))
            .any(|desired| desired != self.replicas)
    }

    /// Writes size and annotations, as `scaleReplicaSet` does.
    fn size(&self, server: &mut Server, rs: &Value, to: i64) -> bool {
        let most = self.replicas + self.surge;
        let same = spec_replicas(rs) == to
            && annotation(rs, DESIRED) == Some(self.replicas)
            && annotation(rs, MAX) == Some(most);
        if same {
            return false;
        }
        let written = server.update(ME, Sort::ReplicaSet, text(rs, "/metadata/name"), false, |rs| {
            rs["spec"]["replicas"] = json!(to);
            let notes = child(&mut rs["metadata"], "annotations");
            notes[DESIRED] = json!(self.replicas.to_string());
            notes[MAX] = json!(most.to_string());
        });
        written.is_ok()
    }

    /// `scaleReplicaSetAndRecordEvent`: nothing where the size is right.
    fn resize(&self, server: &mut Server, rs: &Value, to: i64) -> bool {
        spec_replicas(rs) != to && self.size(server, rs, to)
    }

    fn scale(&self, server: &mut Server) {
        let (new, old) = self.parted(server);
        let all: Vec<Arc<Value>> = old.iter().cloned().chain(new.clone()).collect();
        let active: Vec<Arc<Value>> = all.into_iter().filter(|rs| spec_replicas(rs) > 0).collect();
        if active.len() <= 1 {
            let one = active.first().or(new.as_ref()).or(old.last());
            if let Some(rs) = one {
                self.resize(server, rs, self.replicas);
            }
            return;
        }
        if new.as_ref().is_some_and(|rs| self.saturated(rs)) {
            for rs in old.iter().filter(|rs| spec_replicas(rs) > 0) {
                self.resize(server, rs, 0);
            }
            return;
        }
        self.proportionally(server, active);
    }

    fn saturated(&self, rs: &Value) -> bool {
        spec_replicas(rs) == self.replicas
            && annotation(rs, DESIRED) == Some(self.replicas)
            && available(rs) == self.replicas
    }

    fn proportionally(&self, server: &mut Server, mut active: Vec<Arc<Value>>) {
        let total: i64 = active.iter().map(|rs| spec_replicas(rs)).sum();
        let allowed = if self.replicas > 0 { self.replicas + self.surge } else { 0 };
        let to_add = allowed - total;
        // Larger ones first; of equal ones the newer when growing, the older when shrinking.
        if to_add > 0 {
            active.sort_by_key(|rs| (Reverse(spec_replicas(rs)), Reverse(age(rs))));
        } else {
            active.sort_by_key(|rs| (Reverse(spec_replicas(rs)), age(rs)));
        }
        let mut added = 0;
        let mut sizes = Vec::new();
        for rs in &active {
            let share = self.share(rs, to_add, added);
            added += share;
            sizes.push(spec_replicas(rs) + share);
        }
        sizes[0] = (sizes[0] + to_add - added).max(0);
        for (rs, size) in active.iter().zip(sizes) {
            self.size(server, rs, size);
        }
    }

    fn share(&self, rs: &Value, to_add: i64, added: i64) -> i64 {
        if to_add == 0 || to_add == added {
            return 0;
        }
        let present = spec_replicas(rs);
        let fraction = if self.replicas == 0 {
            -present
        } else {
            let annotated = annotation(rs, MAX).filter(|m| *m > 0);
            let most = annotated.unwrap_or_else(|| int(&self.deployment, "/status/replicas")).max(1);
            let exact = (present * (self.replicas + self.surge)) as f64 / most as f64;
            #[expect(clippy::cast_possible_truncation, reason = "a number of pods")]
            let rounded = exact.round() as i64;
            rounded - present
        };
        let left = to_add - added;
        if to_add > 0 { fraction.min(left) } else { fraction.max(left) }
    }

    fn roll(&self, server: &mut Server) {
        let (new, old) = self.parted(server);
        let Some(new) = new else {
            self.create(server, &old);
            return;
        };
        let total: i64 = old.iter().map(|rs| spec_replicas(rs)).sum::<i64>() + spec_replicas(&new);
        let present = spec_replicas(&new);
        let wanted = if present > self.replicas {
            self.replicas
        } else {
            let room = (self.replicas + self.surge - total).max(0);
            present + room.min(self.replicas - present)
        };
        if self.resize(server, &new, wanted) {
            return;
        }
        if self.shrink_old(server, &new, &old, total) {
            return;
        }
        if int(&self.deployment, "/status/updatedReplicas") == self.replicas {
            self.clean_up(server);
        }
    }

    fn create(&self, server: &mut Server, old: &[Arc<Value>]) {
        let present: i64 = old.iter().map(|rs| spec_replicas(rs)).sum();
        let replicas = (self.replicas + self.surge - present).clamp(0, self.replicas);
        // The controller's own hash is another one than Belay's.
        let hash = format!("k{}", revision(&self.deployment["spec"]["template"]));
        let name = format!("{}-{hash}", text(&self.deployment, "/metadata/name"));
        let mut template = self.deployment["spec"]["template"].clone();
        child(child(&mut template, "metadata"), "labels")["pod-template-hash"] = json!(hash);
        let mut selector = self.deployment["spec"]["selector"].clone();
        child(&mut selector, "matchLabels")["pod-template-hash"] = json!(hash);
        let mut notes = self.deployment["metadata"]["annotations"].clone();
        if !notes.is_object() {
            notes = json!({});
        }
        notes[DESIRED] = json!(self.replicas.to_string());
        notes[MAX] = json!((self.replicas + self.surge).to_string());
        let object = json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {
                "name": name, "namespace": NAMESPACE, "labels": template["metadata"]["labels"], "annotations": notes,
                "ownerReferences": [{
                    "apiVersion": "apps/v1", "kind": "Deployment", "name": self.deployment["metadata"]["name"],
                    "uid": self.uid(), "controller": true, "blockOwnerDeletion": true,
                }],
            },
            "spec": {"replicas": replicas, "selector": selector, "template": template},
        });
        // A collision with a name that is taken is told in the real one's status; here it is left for the next sync.
        drop(server.create(ME, Sort::ReplicaSet, object));
    }

    fn shrink_old(&self, server: &mut Server, new: &Value, old: &[Arc<Value>], total: i64) -> bool {
        let least = self.replicas - self.unavailable;
        let room = total - least - (spec_replicas(new) - available(new));
        if room <= 0 || old.iter().all(|rs| spec_replicas(rs) == 0) {
            return false;
        }
        let mut moved = false;
        let mut done = 0;
        // Unhealthy ones first.
        for rs in old {
            let unhealthy = spec_replicas(rs) - available(rs);
            let fewer = unhealthy.min(room - done);
            if fewer > 0 {
                done += fewer;
                moved |= self.resize(server, rs, spec_replicas(rs) - fewer);
            }
        }
        let (_, old) = self.parted(server);
        let serving: i64 = old.iter().map(|rs| available(rs)).sum::<i64>() + available(new);
        let mut spare = serving - least;
        for rs in &old {
            let fewer = spec_replicas(rs).min(spare);
            if fewer > 0 {
                spare -= fewer;
                moved |= self.resize(server, rs, spec_replicas(rs) - fewer);
            }
        }
        moved
    }

    fn clean_up(&self, server: &mut Server) {
        let limit = int(&self.deployment, "/spec/revisionHistoryLimit");
        let limit = usize::try_from(if limit == 0 { 10 } else { limit }).unwrap();
        let (_, old) = self.parted(server);
        let empty =
            |rs: &&Arc<Value>| spec_replicas(rs) == 0 && int(rs, "/status/replicas") == 0 && !is_deleting(rs);
        let old: Vec<&Arc<Value>> = old.iter().filter(empty).collect();
        for rs in old.iter().take(old.len().saturating_sub(limit)) {
            let (name, uid) = (text(rs, "/metadata/name"), text(rs, "/metadata/uid"));
            drop(server.delete(ME, Sort::ReplicaSet, name, Some(uid)));
        }
    }

    fn status(&self, server: &mut Server) {
        let (new, old) = self.parted(server);
        let sum = |pointer: &str| -> i64 { old.iter().chain(&new).map(|rs| int(rs, pointer)).sum() };
        let status = json!({
            "observedGeneration": self.deployment["metadata"]["generation"],
            "replicas": sum("/status/replicas"),
            "updatedReplicas": new.as_ref().map_or(0, |rs| int(rs, "/status/replicas")),
            "readyReplicas": sum("/status/readyReplicas"),
            "availableReplicas": sum("/status/availableReplicas"),
        });
        write_status(server, ME, Sort::Deployment, &self.deployment, status);
    }
}
