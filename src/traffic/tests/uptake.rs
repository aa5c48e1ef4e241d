//! What routers say of the generation that they serve.

use serde_json::json;

use super::super::{Uptake, taken_up};
use super::*;

fn condition(kind: &str, status: &str, generation: i64) -> Value {
    json!({"type": kind, "status": status, "reason": "Because", "observedGeneration": generation})
}

fn parent(name: &str, accepted: &Value, resolved: &Value) -> Value {
    json!({"parentRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": name},
        "conditions": [accepted, resolved]})
}

fn http(parents: &[Value]) -> Uptake {
    let mut route = object(Router::HttpRoute, &json!({"parentRefs": [{"name": "edge"}, {"name": "inner"}]}));
    route["metadata"]["generation"] = json!(7);
    route["status"] = json!({"parents": parents});
    taken_up(Router::HttpRoute, &Seen::route(&route))
}

fn no(uptake: &Uptake) -> &str {
    match uptake {
        Uptake::No(why) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_gateway_must_have_seen_and_accepted_the_generation() {
    let good = |name| parent(name, &condition("Accepted", "True", 7), &condition("ResolvedRefs", "True", 7));
    assert_eq!(http(&[good("edge")]), Uptake::Yes);
    assert_eq!(http(&[good("edge"), good("inner")]), Uptake::Yes);
    assert_eq!(no(&http(&[])), "no Gateway has answered");
    assert_eq!(no(&http(&[good("gone")])), "no Gateway has answered");
    let old = parent("inner", &condition("Accepted", "True", 7), &condition("ResolvedRefs", "True", 6));
    assert_eq!(no(&http(&[good("edge"), old])), "Gateway inner has not seen the latest change");
    let unresolved =
        parent("edge", &condition("Accepted", "True", 7), &condition("ResolvedRefs", "False", 7));
    assert_eq!(no(&http(&[unresolved])), "Gateway edge says ResolvedRefs is not true: Because");
    let half = json!({"parentRef": {"name": "edge"}, "conditions": [condition("Accepted", "True", 8)]});
    assert_eq!(no(&http(&[half])), "Gateway edge has not said ResolvedRefs");
    let mut silent = good("edge");
    silent["conditions"][0].as_object_mut().unwrap().remove("observedGeneration");
    assert_eq!(http(&[silent]), Uptake::Unknown);
    // Parents without a section and in the route's namespace are the same, written out or not.
    let mut written = good("edge");
    written["parentRef"]["namespace"] = json!("shop");
    assert_eq!(http(&[written.clone()]), Uptake::Yes);
    written["parentRef"]["sectionName"] = json!("https");
    assert_eq!(no(&http(&[written])), "no Gateway has answered");
}

#[test]
fn istio_says_it_only_where_its_status_is_on() {
    let mut route = object(Router::VirtualService, &json!({}));
    route["metadata"]["generation"] = json!(7);
    let mut uptake = |status: Value| {
        route["status"] = status;
        taken_up(Router::VirtualService, &Seen::route(&route))
    };
    assert_eq!(uptake(Value::Null), Uptake::Unknown);
    let reconciled = |status: &str| json!([{"type": "Reconciled", "status": status}]);
    assert_eq!(uptake(json!({"observedGeneration": 7, "conditions": reconciled("True")})), Uptake::Yes);
    assert!(
        no(&uptake(json!({"observedGeneration": 6, "conditions": reconciled("True")}))).contains("latest")
    );
    assert!(
        no(&uptake(json!({"observedGeneration": 7, "conditions": reconciled("False")}))).contains("proxies")
    );
    assert_eq!(uptake(json!({"conditions": reconciled("True")})), Uptake::Unknown);
}

#[test]
fn the_others_do_not_say() {
    for router in Router::ALL {
        if ![Router::HttpRoute, Router::GrpcRoute, Router::VirtualService].contains(&router) {
            let route = object(router, &json!({}));
            assert_eq!(taken_up(router, &Seen::route(&route)), Uptake::Unknown);
        }
    }
}
