//! Each fault that a release would stumble over, from objects as the API server has them.

use serde_json::json;

use super::*;
use CheckResult::{Broken, Warning};

fn rollout(strategy: &Value) -> Rollout {
    serde_json::from_value(json!({
        "apiVersion": "belay.dev/v1alpha1", "kind": "Rollout",
        "metadata": {"name": "web", "namespace": "shop", "uid": "u1"},
        "spec": {"workloadRef": {"kind": "Deployment", "name": "web"}, "strategy": strategy},
    }))
    .unwrap()
}

fn canary() -> Rollout {
    rollout(&json!({"canary": {"service": "web", "traffic": {"httpRoutes": [{"name": "web"}]}}}))
}

fn http_route() -> Value {
    let condition = |of: &str| json!({"type": of, "status": "True", "observedGeneration": 1});
    let parent = json!({"name": "edge"});
    json!({
        "metadata": {"name": "web", "namespace": "shop", "generation": 1},
        "spec": {"parentRefs": [parent], "rules": [{"backendRefs": [{"name": "web", "port": 80, "weight": 1}]}]},
        "status": {"parents": [{"parentRef": parent, "conditions": [condition("Accepted"), condition("ResolvedRefs")]}]},
    })
}

fn service(selector: &Value) -> Value {
    json!({"metadata": {"name": "web"}, "spec": {"selector": selector, "ports": [{"port": 80}]}})
}

fn good() -> Read {
    Read {
        labels: Some([("app".to_owned(), "web".to_owned())].into()),
        services: [
            ("web".to_owned(), Some(service(&json!({"app": "web"})))),
            ("web-canary".to_owned(), None),
        ]
        .into(),
        routes: vec![Found::There(http_route())],
        ..Read::default()
    }
}

/// What is not as it should be: result and detail.
fn faults(rollout: &Rollout, read: &Read) -> Vec<(CheckResult, String)> {
    let plan = planned_traffic(&rollout.spec, "shop").unwrap();
    let checks = judge("shop/web", rollout, &plan, read);
    assert!(checks.iter().all(|check| check.result == CheckResult::Ok || check.cure.is_some()), "{checks:?}");
    let faults = checks.into_iter().filter(|check| check.result != CheckResult::Ok);
    faults.map(|check| (check.result, check.detail)).collect()
}

fn with(change: impl FnOnce(&mut Read)) -> Vec<(CheckResult, String)> {
    let mut read = good();
    change(&mut read);
    faults(&canary(), &read)
}

fn set(read: &mut Read, name: &str, service: Value) {
    read.services.insert(name.to_owned(), Some(service));
}

fn change_route(read: &mut Read, change: impl FnOnce(&mut Value)) {
    let Found::There(route) = &mut read.routes[0] else { panic!() };
    change(route);
}

#[test]
fn what_is_as_it_should_be_is_no_fault() {
    assert_eq!(with(|_| {}), []);
    // During a release, everything is borrowed by it, and the route names the canary.
    let running = with(|read| {
        read.running = Some("web-1".to_owned());
        let mut pinned = service(&json!({"app": "web", "pod-template-hash": "1"}));
        pinned["metadata"]["labels"] = json!({"belay.dev/release": "web-1"});
        set(read, "web", pinned);
        set(read, "web-canary", json!({"metadata": {"ownerReferences": [{"uid": "u1"}]}}));
        change_route(read, |route| {
            route["metadata"]["labels"] = json!({"belay.dev/release": "web-1"});
            route["spec"]["rules"][0]["backendRefs"] = json!([
                {"name": "web", "port": 80, "weight": 80}, {"name": "web-canary", "port": 80, "weight": 20},
            ]);
        });
    });
    assert_eq!(running, []);
}

fn pinned() -> Value {
    service(&json!({"app": "web", "pod-template-hash": "1"}))
}

fn marked(mut object: Value) -> Value {
    object["metadata"]["labels"] = json!({"belay.dev/release": "web-1"});
    object
}

/// A change of what was read, and what is said of it.
type Fault = (fn(&mut Read), CheckResult, &'static str);

const FAULTS: &[Fault] = &[
    (|read| drop(read.services.insert("web".to_owned(), None)), Broken, "its Service web does not exist"),
    (|read| set(read, "web", service(&json!({}))), Broken, "has no selector"),
    (|read| set(read, "web", service(&json!({"app": "api"}))), Broken, "does not select the pods"),
    (|read| set(read, "web", pinned()), Broken, "selects one revision by pod-template-hash=1"),
    (|read| set(read, "web", marked(pinned())), Warning, "still marked as borrowed by web-1"),
    (|read| set(read, "web-canary", service(&json!({}))), Broken, "a Service web-canary is there already"),
    (
        |read| set(read, "web-canary", json!({"metadata": {"ownerReferences": [{"uid": "u1"}]}})),
        Warning,
        "the Service web-canary of a release is still there",
    ),
    (|read| read.routes = vec![Found::Gone], Broken, "HTTPRoute shop/web does not exist"),
    (
        |read| read.routes = vec![Found::NotServed(vec!["gateway.networking.k8s.io/v1beta1".to_owned()])],
        Broken,
        "not served as gateway.networking.k8s.io/v1: gateway.networking.k8s.io/v1beta1",
    ),
    (
        |read| change_route(read, |route| route["spec"]["rules"][0]["backendRefs"][0]["name"] = json!("api")),
        Broken,
        "no rule sends traffic to the Service web",
    ),
    (
        |read| {
            change_route(read, |route| {
                let list = route["spec"]["rules"][0]["backendRefs"].as_array_mut().unwrap();
                list.push(json!({"name": "web-canary", "port": 80}));
            });
        },
        Broken,
        "names the Service web-canary",
    ),
    (
        |read| change_route(read, |route| route["metadata"]["generation"] = json!(2)),
        Broken,
        "has not seen the latest change",
    ),
    (
        |read| change_route(read, |route| *route = marked(route.clone())),
        Warning,
        "HTTPRoute shop/web is still marked as borrowed by web-1",
    ),
];

#[test]
fn each_fault_is_named() {
    for (change, result, words) in FAULTS {
        let found = with(change);
        assert_eq!(found.len(), 1, "{words}: {found:?}");
        assert!(found[0].0 == *result && found[0].1.contains(words), "{words}: {found:?}");
    }
}

#[test]
fn a_route_elsewhere_and_an_ingress_of_another_router_are_named() {
    let elsewhere = json!({"httpRoutes": [{"name": "web", "namespace": "edge"}]});
    let elsewhere = rollout(&json!({"canary": {"service": "web", "traffic": elsewhere}}));
    assert!(faults(&elsewhere, &good())[0].1.contains("HTTPRoute edge/web is in another namespace"));

    let nginx =
        rollout(&json!({"canary": {"service": "web", "traffic": {"nginxIngresses": [{"name": "web"}]}}}));
    let paths = json!([{"path": "/", "backend": {"service": {"name": "web", "port": {"number": 80}}}}]);
    let ingress = json!({"metadata": {"name": "web", "namespace": "shop"},
        "spec": {"ingressClassName": "alb", "rules": [{"http": {"paths": paths}}]}});
    let read = Read { routes: vec![Found::There(ingress)], ..good() };
    let found = faults(&nginx, &read);
    assert!(found[0].1.contains("is not of the router that it is named under"), "{found:?}");
}

#[test]
fn steps_that_a_router_cannot_make_are_named() {
    let steps = json!([{"weight": 5, "mirror": 100}]);
    let smi = json!({"service": "web", "steps": steps, "traffic": {"trafficSplits": [{"name": "web"}]}});
    let split = json!({"metadata": {"name": "web", "namespace": "shop"},
        "spec": {"service": "web", "backends": [{"service": "web", "weight": 1}]}});
    let read = Read { routes: vec![Found::There(split)], ..good() };
    let found = faults(&rollout(&json!({"canary": smi})), &read);
    assert!(found[0].1.contains("cannot mirror requests to the canary"), "{found:?}");
}

#[test]
fn a_preview_has_the_ports_of_what_is_live() {
    let blue_green = |traffic: bool| {
        let mut strategy = json!({"activeService": "web", "previewService": "preview"});
        if traffic {
            strategy["traffic"] = json!({"httpRoutes": [{"name": "web"}]});
        }
        rollout(&json!({"blueGreen": strategy}))
    };
    let mut read = good();
    set(&mut read, "preview", service(&json!({"app": "web"})));
    assert_eq!(faults(&blue_green(false), &Read { routes: Vec::new(), ..read }), []);
    let mut read = good();
    let mut other = service(&json!({"app": "web"}));
    other["spec"]["ports"] = json!([{"port": 8080}]);
    set(&mut read, "preview", other);
    let found = faults(&blue_green(true), &read);
    assert_eq!(found, [(Broken, "Service preview lacks ports that Service web has".to_owned())]);
    read.routes.clear();
    assert_eq!(faults(&blue_green(false), &read)[0].0, Warning);
}
