//! What `lint` says about traffic: what will happen and is easily overlooked, and routes and Services of the same files
//! that a release could not use. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::checks::{Found, error, note};
use crate::api::Rollout;
use crate::api::release::{PlannedRoute, PlannedStep, PlannedTraffic};
use crate::api::router::Router;
use crate::api::strategy::Step;
use crate::decide::{planned_traffic, pods_for, steps, wanted};
use crate::report::seconds;
use crate::traffic::{self, Ask, Seen};

/// The objects of the files that may carry traffic, by kind, namespace and name.
pub type Objects = BTreeMap<(String, String, String), Value>;

const CANARY: &str = "spec.strategy.canary";
const BLUE_GREEN: &str = "spec.strategy.blueGreen";

/// Whether an object is one that carries traffic.
pub fn carries(kind: &str, api: &str) -> bool {
    let group = api.split_once('/').map_or("", |(group, _)| group);
    (kind == "Service" && api == "v1")
        || Router::ALL.iter().any(|router| router.kind() == kind && router.group() == group)
}

/// Checks the traffic of a Rollout, if it has any. `replicas`: the pods of its workload, if known.
pub fn check(rollout: &Rollout, replicas: Option<u32>, objects: &Objects, found: &mut Vec<Found>) {
    let namespace = rollout.metadata.namespace.clone().unwrap_or_default();
    let Some(plan) = planned_traffic(&rollout.spec, &namespace) else { return };
    let strategy = rollout.spec.strategy.clone().unwrap_or_default();
    let of = if strategy.blue_green.is_some() { BLUE_GREEN } else { CANARY };
    let own = strategy.canary.as_ref().map(|canary| canary.steps.as_slice()).unwrap_or_default();
    bake(rollout, found);
    mirrors(own, found);
    if let Some(pods) = replicas.and_then(|pods| i32::try_from(pods).ok()).filter(|pods| *pods > 0) {
        sizes(own, of, pods, found);
        if let Some(preview) = strategy.blue_green.as_ref().and_then(|blue_green| blue_green.preview_replicas)
            && preview < pods
        {
            let message = format!(
                "{preview} of {pods} pods are looked at; the others come between the preview and the switch"
            );
            found.push(note("preview-replicas", &format!("{BLUE_GREEN}.previewReplicas"), message, ""));
        }
    }
    // Without a namespace in the file, kubectl's is meant, which may be the route's.
    let elsewhere = |route: &&PlannedRoute| !namespace.is_empty() && route.namespace != namespace;
    for planned in plan.routes.iter().filter(elsewhere) {
        found.push(error(
            "route-elsewhere",
            format!("{of}.traffic"),
            format!(
                "{} {}/{} is in another namespace than the Service {}",
                planned.router.kind(),
                planned.namespace,
                planned.name,
                plan.service
            ),
            "name a route in the namespace of the Rollout: one elsewhere means Services of its own namespace",
        ));
    }
    same_ports(&plan, &namespace, objects, found);
    for planned in plan.routes.iter().filter(|route| route.namespace == namespace) {
        let key = (planned.router.kind().to_owned(), namespace.clone(), planned.name.clone());
        if let Some(object) = objects.get(&key) {
            route(&plan, planned, object, &steps(&rollout.spec), of, found);
        }
    }
}

/// A bake finds what guards find.
fn bake(rollout: &Rollout, found: &mut Vec<Found>) {
    let guarded =
        rollout.spec.analysis.as_ref().is_some_and(|a| !a.guards.is_empty() || !a.templates.is_empty());
    let strategy = rollout.spec.strategy.clone().unwrap_or_default();
    let (bake, field) = match (&strategy.blue_green, &strategy.canary) {
        (Some(blue_green), _) => (blue_green.bake, format!("{BLUE_GREEN}.bake")),
        (None, canary) => (canary.as_ref().and_then(|canary| canary.bake), format!("{CANARY}.bake")),
    };
    let bake = bake.map(Duration::from).filter(|bake| !bake.is_zero());
    if let Some(bake) = bake.filter(|_| !guarded) {
        let message = format!(
            "the old version stands by for {}, and without guards only crashing or unready pods bring it back by itself",
            seconds(bake)
        );
        let help = "add spec.analysis.guards, or watch it: `belay abort` is one write back";
        found.push(note("bake-without-guards", &field, message, help));
    }
}

fn mirrors(own: &[Step], found: &mut Vec<Found>) {
    for (i, _) in own.iter().enumerate().filter(|(_, step)| step.mirror.is_some()) {
        let message =
            "copies are made of every request, those that write included: an order would be placed twice"
                .to_owned();
        let help = "mirror only where requests may be done twice, or where the new version writes elsewhere";
        found.push(note("mirror-writes", &format!("{CANARY}.steps[{i}].mirror"), message, help));
    }
}

/// Pods that are to carry more than their share, and a lone pod.
fn sizes(own: &[Step], of: &str, pods: i32, found: &mut Vec<Found>) {
    if pods == 1 {
        let message =
            "the workload has one pod: each version has one, and takes its whole share with it when it goes"
                .to_owned();
        found.push(note("one-pod", of, message, "run two pods or more"));
    }
    for (i, step) in own.iter().enumerate() {
        let Some(replicas) = step.replicas.filter(|_| step.weight < 100) else { continue };
        let field = format!("{CANARY}.steps[{i}].replicas");
        let needed = pods_for(pods, step.weight);
        if replicas < needed {
            let message = format!(
                "{} % of the traffic goes to {replicas} of the new version's pods, and {needed} of {pods} carry that today",
                step.weight
            );
            found.push(note("too-few-pods", &field, message, "leave replicas out, or lower the weight"));
        } else if replicas > pods {
            let message = format!("{replicas} pods are more than the workload's {pods}; {pods} are made");
            found.push(note("too-many-pods", &field, message, ""));
        }
    }
}

/// A preview that is in the same files has the ports of what is live.
fn same_ports(plan: &PlannedTraffic, namespace: &str, objects: &Objects, found: &mut Vec<Found>) {
    let Some(preview) = plan.canary_service.as_ref().filter(|_| plan.preview) else { return };
    let ports = |name: &str| {
        let service = objects.get(&("Service".to_owned(), namespace.to_owned(), name.to_owned()))?;
        let ports = service["spec"]["ports"].as_array()?;
        Some(ports.iter().map(|port| port["port"].as_i64().unwrap_or_default()).collect::<Vec<_>>())
    };
    let (Some(active), Some(looked_at)) = (ports(&plan.service), ports(preview)) else { return };
    if let Some(port) = active.iter().find(|port| !looked_at.contains(port)) {
        let field = format!("{BLUE_GREEN}.previewService");
        let message = format!("Service {preview} lacks the port {port} of Service {}", plan.service);
        let help = "give it the same ports";
        // The route sends to the port that it has for the Service.
        found.push(if plan.routes.is_empty() {
            note("preview-ports", &field, message, help)
        } else {
            error("preview-ports", field, message, help)
        });
    }
}

/// A route of the same files, as a release would find it.
fn route(
    plan: &PlannedTraffic,
    planned: &PlannedRoute,
    object: &Value,
    steps: &[PlannedStep],
    of: &str,
    found: &mut Vec<Found>,
) {
    let canary = plan.canary_service.clone().unwrap_or_default();
    let mut object = object.clone();
    // Written without a namespace, it goes where the Rollout goes.
    object["metadata"]["namespace"] = planned.namespace.clone().into();
    let seen = Seen::route(&object);
    let ask = |step: &PlannedStep| Ask {
        stable: plan.service.clone(),
        canary: canary.clone(),
        weight: step.weight,
        matches: wanted(&step.matches),
        mirror: step.mirror,
        sticky: None,
    };
    let refused = traffic::borrowed(planned.router, &seen, &plan.service, &canary)
        .err()
        .or_else(|| steps.iter().find_map(|step| traffic::patch(planned.router, &seen, &ask(step)).err()));
    if let Some(refusal) = refused {
        let message = format!("{} {}: {refusal}", planned.router.kind(), planned.name);
        found.push(error("route", format!("{of}.traffic"), message, &refusal.cure()));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn codes(strategy: &Value, pods: Option<u32>, objects: &[Value]) -> Vec<(&'static str, String)> {
        let rollout: Rollout = serde_json::from_value(json!({
            "apiVersion": "belay.dev/v1alpha1", "kind": "Rollout", "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"workloadRef": {"kind": "Deployment", "name": "web"}, "strategy": strategy},
        }))
        .unwrap();
        let text = |object: &Value, at: &str| object.pointer(at).unwrap().as_str().unwrap().to_owned();
        let key = |object: &Value| (text(object, "/kind"), "shop".to_owned(), text(object, "/metadata/name"));
        let objects = objects.iter().map(|object| (key(object), object.clone())).collect();
        let mut found = Vec::new();
        check(&rollout, pods, &objects, &mut found);
        found.into_iter().map(|found| (found.code, format!("{}: {}", found.field, found.message))).collect()
    }

    fn routed(more: &Value) -> Value {
        let mut canary = json!({"service": "web", "traffic": {"httpRoutes": [{"name": "web"}]}});
        json_patch::merge(&mut canary, more);
        json!({"canary": canary})
    }

    fn http_route(service: &str) -> Value {
        json!({"kind": "HTTPRoute", "metadata": {"name": "web"},
            "spec": {"rules": [{"backendRefs": [{"name": service, "port": 80}]}]}})
    }

    fn service(name: &str, port: i32) -> Value {
        json!({"kind": "Service", "metadata": {"name": name}, "spec": {"ports": [{"port": port}]}})
    }

    #[test]
    fn what_is_plain_has_nothing_to_say() {
        assert_eq!(codes(&routed(&json!({})), Some(4), &[http_route("web")]), []);
        assert_eq!(codes(&json!({"canary": {}}), Some(1), &[]), [], "by pods");
        assert_eq!(codes(&routed(&json!({"bake": "0s"})), None, &[]), []);
    }

    #[test]
    fn each_note_names_its_field() {
        let found = codes(&routed(&json!({"bake": "10m"})), None, &[]);
        assert_eq!(found[0].0, "bake-without-guards");
        assert!(
            found[0].1.starts_with("spec.strategy.canary.bake: the old version stands by for 10m"),
            "{found:?}"
        );
        let found = codes(&json!({"blueGreen": {"activeService": "web", "bake": "1m"}}), None, &[]);
        assert!(found[0].1.starts_with("spec.strategy.blueGreen.bake: "), "{found:?}");

        let steps = json!({"steps": [
            {"weight": 50, "replicas": 1}, {"weight": 60, "replicas": 6}, {"weight": 70, "replicas": 99}, {"weight": 80, "mirror": 100},
        ]});
        let found = codes(&routed(&steps), Some(10), &[]);
        assert_eq!(
            found.iter().map(|found| found.0).collect::<Vec<_>>(),
            ["mirror-writes", "too-few-pods", "too-many-pods"]
        );
        assert!(found[0].1.starts_with("spec.strategy.canary.steps[3].mirror: "), "{found:?}");
        let said = "spec.strategy.canary.steps[0].replicas: 50 % of the traffic goes to 1 of the new version's pods, and \
                    5 of 10 carry that today";
        assert_eq!(found[1].1, said);

        assert_eq!(codes(&routed(&json!({})), Some(1), &[])[0].0, "one-pod");
        let preview = json!({"blueGreen": {"activeService": "web", "previewReplicas": 1}});
        assert_eq!(codes(&preview, Some(3), &[])[0].0, "preview-replicas");
    }

    #[test]
    fn routes_and_services_of_the_same_files_are_looked_at() {
        let found = codes(&routed(&json!({})), None, &[http_route("api")]);
        assert_eq!(found[0].0, "route");
        assert!(found[0].1.contains("HTTPRoute web: no rule sends traffic to the Service web"), "{found:?}");
        let elsewhere = json!({"traffic": {"httpRoutes": [{"name": "web", "namespace": "edge"}]}});
        assert_eq!(codes(&routed(&elsewhere), None, &[])[0].0, "route-elsewhere");
        let mut strategy = json!({"blueGreen": {"activeService": "web", "previewService": "preview"}});
        let services = [service("web", 80), service("preview", 8080)];
        assert_eq!(codes(&strategy, None, &services)[0].0, "preview-ports");
        strategy["blueGreen"]["traffic"] = json!({"httpRoutes": [{"name": "web"}]});
        let found = codes(&strategy, None, &services);
        assert!(found[0].1.contains("lacks the port 80"), "{found:?}");
        assert_eq!(codes(&strategy, None, &[service("web", 80), service("preview", 80)]), []);
    }

    #[test]
    fn objects_that_carry_traffic_are_known_by_kind_and_group() {
        assert!(carries("Service", "v1") && carries("HTTPRoute", "gateway.networking.k8s.io/v1beta1"));
        assert!(carries("Ingress", "networking.k8s.io/v1"));
        assert!(!carries("Service", "serving.knative.dev/v1") && !carries("Ingress", "example.org/v1"));
    }
}
