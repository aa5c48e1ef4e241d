//! What is between callers and pods: Services' endpoint slices, a gateway that takes routes up in its own time, and the
//! admission that leaves what a release borrows as it is.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use belay::api::OPERATOR_USER;
use belay::install::hold::Held;
use serde_json::{Value, json};

use super::deployments::{int, is_deleting, text, write_status};
use super::pods::is_ready;
use super::server::{Refusal, Server, Sort, refuse};

/// Milliseconds from a change of a route to the gateway's answer, unless a script says otherwise.
const LAG: i64 = 500;

/// What the hold makes of a write of somebody else to an object that a release borrows.
pub fn hold(by: &str, sort: Sort, old: &Value, new: &mut Value) -> Result<(), Refusal> {
    static HELD: LazyLock<Vec<Held>> = LazyLock::new(belay::install::hold::kinds);
    let kind = if sort == Sort::Service { "Service" } else { "HTTPRoute" };
    let held = HELD.iter().find(|held| held.kind == kind).unwrap();
    let patch = belay::install::hold::patch(held, OPERATOR_USER, by, old, new);
    json_patch::patch(new, &patch).or_else(|error| refuse(500, error.to_string()))
}

/// The live pods that a selector of a Service finds.
pub fn found<'a>(server: &'a Server, selector: &'a Value) -> impl Iterator<Item = &'a Arc<Value>> {
    let wanted = selector.as_object().filter(|labels| !labels.is_empty());
    let pods = server.all(Sort::Pod).filter(|pod| !is_deleting(pod));
    pods.filter(move |pod| {
        wanted.is_some_and(|w| w.iter().all(|(k, v)| pod["metadata"]["labels"].get(k) == Some(v)))
    })
}

/// The controller of endpoint slices. True when anything was written.
pub fn slices(server: &mut Server) -> bool {
    const ME: &str = "endpointslice-controller";
    let before = server.audit.len();
    let services: Vec<Arc<Value>> = server.all(Sort::Service).cloned().collect();
    for service in services.iter().filter(|s| !is_deleting(s)) {
        let pods = found(server, &service["spec"]["selector"]);
        let endpoints: Vec<Value> = pods
            .filter(|pod| pod.pointer("/status/podIP").is_some())
            .map(|pod| json!({"addresses": [pod["status"]["podIP"]], "conditions": {"ready": is_ready(pod)}}))
            .collect();
        let name = text(service, "/metadata/name");
        let mut labels = service["metadata"]["labels"].as_object().cloned().unwrap_or_default();
        labels.insert("kubernetes.io/service-name".to_owned(), json!(name));
        let slice = format!("{name}-slice");
        let uid = &service["metadata"]["uid"];
        match server.get(Sort::Slice, &slice).cloned() {
            Some(known) if known["metadata"]["ownerReferences"][0]["uid"] != *uid => {
                drop(server.delete(ME, Sort::Slice, &slice, None));
            }
            Some(known) => {
                if known["endpoints"] != json!(endpoints) || known["metadata"]["labels"] != json!(labels) {
                    drop(server.update(ME, Sort::Slice, &slice, false, |s| {
                        s["endpoints"] = json!(endpoints);
                        s["metadata"]["labels"] = json!(labels);
                    }));
                }
            }
            None => {
                let owner = json!({
                    "apiVersion": "v1", "kind": "Service", "name": name, "uid": uid, "controller": true,
                });
                let object = json!({
                    "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                    "metadata": {"name": slice, "labels": labels, "ownerReferences": [owner]},
                    "endpoints": endpoints,
                });
                server.create(ME, Sort::Slice, object).unwrap();
            }
        }
    }
    server.audit.len() != before
}

/// A gateway. What its routes' status says it has seen is what it does.
#[derive(Clone, Debug)]
pub struct Gateway {
    /// Milliseconds from a change to its answer; nothing: it answers no more.
    pub lag: Option<i64>,
    /// Since when it has something to answer, by the route's uid.
    waits: BTreeMap<String, i64>,
}

impl Default for Gateway {
    fn default() -> Self {
        Self { lag: Some(LAG), waits: BTreeMap::new() }
    }
}

impl Gateway {
    /// Takes up what is due. True when it did.
    pub fn tick(&mut self, server: &mut Server) -> bool {
        let Some(lag) = self.lag else { return false };
        let before = server.audit.len();
        let routes: Vec<Arc<Value>> = server.all(Sort::Route).cloned().collect();
        for route in routes {
            let uid = text(&route, "/metadata/uid").to_owned();
            let answer = answer(server, &route);
            if route["status"] == answer {
                self.waits.remove(&uid);
                continue;
            }
            let since = *self.waits.entry(uid.clone()).or_insert(server.now);
            if server.now >= since + lag {
                self.waits.remove(&uid);
                write_status(server, "gateway", Sort::Route, &route, answer);
            }
        }
        server.audit.len() != before
    }

    /// When it answers next.
    pub fn next_event(&self) -> Option<i64> {
        let since = self.waits.values().min()?;
        Some(since + self.lag?)
    }
}

/// The status of a route that is taken up as it is.
fn answer(server: &Server, route: &Value) -> Value {
    let rules = route["spec"]["rules"].as_array().into_iter().flatten();
    let mut backends = rules.filter_map(|rule| rule["backendRefs"].as_array()).flatten();
    let resolved = backends.all(|b| server.get(Sort::Service, text(b, "/name")).is_some());
    let condition = |kind: &str, status: bool, reason: &str| {
        json!({
            "type": kind, "status": if status { "True" } else { "False" }, "reason": reason,
            "observedGeneration": int(route, "/metadata/generation"),
        })
    };
    json!({"parents": [{
        "parentRef": {"name": "gateway"}, "controllerName": "example.com/gateway",
        "conditions": [
            condition("Accepted", true, "Accepted"),
            condition("ResolvedRefs", resolved, if resolved { "ResolvedRefs" } else { "BackendNotFound" }),
        ],
    }]})
}
