//! Other writers: before a release, in the middle of one, and at its end.

use serde_json::json;

use super::super::{borrowed, patch, read};
use super::golden::{ACTION, alb};
use super::*;

fn http_route(rules: &Value) -> Value {
    object(Router::HttpRoute, &json!({"rules": rules}))
}

fn refused(router: Router, route: &Value) -> Refusal {
    let refusal = borrowed(router, &Seen::route(route), "web", "web-canary").unwrap_err();
    assert!(!refusal.cure().is_empty());
    refusal
}

#[test]
fn routes_that_cannot_be_released_with_are_refused_at_the_start() {
    let web = json!({"name": "web", "port": 80});
    let canary = json!({"name": "web-canary", "port": 80});
    let rule = |backends: &Value| json!({"backendRefs": backends});
    let not_named =
        |rules: &Value| matches!(refused(Router::HttpRoute, &http_route(rules)), Refusal::NotNamed { .. });
    assert!(not_named(&json!([rule(&json!([{"name": "api", "port": 80}]))])));
    assert!(not_named(&json!([])));
    assert!(not_named(&json!([rule(&json!([{"name": "web", "namespace": "elsewhere"}]))])));
    assert!(not_named(&json!([rule(&json!([{"name": "web", "kind": "ServiceImport", "group": "x"}]))])));
    assert!(not_named(&json!([rule(&json!([{"name": "web", "weight": 0}]))])), "out of service");
    let foreign =
        |rules: &Value| matches!(refused(Router::HttpRoute, &http_route(rules)), Refusal::Foreign { .. });
    assert!(foreign(&json!([rule(&json!([web, canary]))])));
    assert!(foreign(&json!([rule(&json!([web])), rule(&json!([canary]))])));
    assert!(foreign(&json!([rule(&json!([web])), rule(&json!([canary, {"name": "api"}]))])));
    let mirror = json!([{"type": "RequestMirror", "requestMirror": {"backendRef": canary}}]);
    assert!(foreign(&json!([{"backendRefs": [web], "filters": mirror}])));
    let twice = http_route(&json!([rule(&json!([web, {"name": "web", "port": 81}]))]));
    assert!(matches!(refused(Router::HttpRoute, &twice), Refusal::Twice { .. }));
    let text = http_route(&json!([rule(&json!([{"name": "web", "weight": "1"}]))]));
    assert_eq!(
        refused(Router::HttpRoute, &text).to_string(),
        "/spec/rules/0/backendRefs is not understood: the weight \"1\""
    );
    assert!(matches!(refused(Router::HttpRoute, &http_route(&json!({}))), Refusal::Unreadable { .. }));
    let fine =
        http_route(&json!([rule(&json!([{"name": "web", "weight": 99_991}, {"name": "a", "weight": 1}]))]));
    assert!(matches!(refused(Router::HttpRoute, &fine), Refusal::TooFine { most: 1_000_000, .. }));
    let full: Vec<_> =
        (0..16).map(|n| json!({"name": if n == 0 { "web".into() } else { format!("s{n}") }})).collect();
    assert!(matches!(
        refused(Router::HttpRoute, &http_route(&json!([rule(&json!(full))]))),
        Refusal::TooMany { what: "backends in a rule", have: 17, most: 16 }
    ));
    let subsets = object(
        Router::VirtualService,
        &json!({"http": [{"route": [
            {"destination": {"host": "web", "subset": "a"}, "weight": 50},
            {"destination": {"host": "web.shop.svc.cluster.local", "subset": "b"}, "weight": 50},
        ]}]}),
    );
    assert!(matches!(refused(Router::VirtualService, &subsets), Refusal::Twice { .. }));
}

#[test]
fn an_alb_ingress_must_split_all_that_goes_to_stable() {
    let mut route = alb(ACTION);
    route["spec"]["defaultBackend"] = json!({"service": {"name": "web", "port": {"number": 80}}});
    assert!(matches!(refused(Router::AlbIngress, &route), Refusal::Unreadable { .. }));
    let mut route = alb(ACTION);
    let mut path = route["spec"]["rules"][0]["http"]["paths"][0].clone();
    path["backend"]["service"] = json!({"name": "web", "port": {"number": 80}});
    route["spec"]["rules"][0]["http"]["paths"].as_array_mut().unwrap().push(path);
    let refusal = refused(Router::AlbIngress, &route);
    assert!(refusal.to_string().starts_with("/spec/rules/0/http/paths/1/backend"), "{refusal}");
    let groups: Vec<_> = (0..5)
        .map(|n| json!({"serviceName": if n == 0 { "web".into() } else { format!("s{n}") }, "servicePort": 80, "weight": 1}))
        .collect();
    let action = json!({"type": "forward", "forwardConfig": {"targetGroups": groups}}).to_string();
    assert!(matches!(refused(Router::AlbIngress, &alb(&action)), Refusal::TooMany { have: 6, most: 5, .. }));
    assert!(matches!(refused(Router::AlbIngress, &alb("{")), Refusal::NotNamed { .. }));
}

#[test]
fn an_nginx_ingress_must_be_the_owners() {
    let rules = |service: &str| {
        json!({"rules": [{"http": {"paths": [{"path": "/", "pathType": "Prefix",
            "backend": {"service": {"name": service, "port": {"number": 80}}}}]}}]})
    };
    let router = Router::NginxIngress;
    assert!(matches!(refused(router, &object(router, &rules("api"))), Refusal::NotNamed { .. }));
    assert!(matches!(refused(router, &object(router, &rules("web-canary"))), Refusal::Foreign { .. }));
    let mut canary = object(router, &rules("web"));
    canary["metadata"]["annotations"] = json!({"nginx.ingress.kubernetes.io/canary": "true"});
    assert!(matches!(refused(router, &canary), Refusal::Unreadable { .. }));
    // When the owner takes stable out of it during a release, the canary goes as well.
    let companion = object(router, &rules("web-canary"));
    let route = object(router, &rules("api"));
    let seen = Seen { companion: Some(&companion), ..Seen::route(&route) };
    assert_eq!(patch(router, &seen, &ask(0)).unwrap(), Some(Write::Delete));
    assert!(matches!(patch(router, &seen, &ask(1)), Err(Refusal::NotNamed { .. })));
    // When somebody takes the mark off the companion, it is put on again: without it both would claim the path.
    let route = object(router, &rules("web"));
    let seen = Seen { companion: Some(&companion), ..Seen::route(&route) };
    assert!(matches!(read(router, &seen, "web", "web-canary"), Err(Refusal::Foreign { .. })));
    assert!(matches!(patch(router, &seen, &ask(0)).unwrap(), Some(Write::Companion(_))));
}

#[test]
fn numbers_that_are_none_are_refused() {
    let route = http_route(&json!([{"backendRefs": [{"name": "web"}]}]));
    for ask in [ask(-1), ask(101), Ask { mirror: Some(0), ..ask(0) }, Ask { mirror: Some(101), ..ask(0) }] {
        assert!(matches!(patched(Router::HttpRoute, &route, &ask), Err(Refusal::Share { .. })));
    }
}

#[test]
fn what_others_changed_meanwhile_stays() {
    let router = Router::HttpRoute;
    let rule = |path: &str, backends: &Value| json!({"matches": [{"path": {"value": path}}], "backendRefs": backends});
    let route = http_route(&json!([
        rule("/a", &json!([{"name": "web", "port": 80, "weight": 1}])),
        rule(
            "/b",
            &json!([{"name": "web", "port": 80, "weight": 3}, {"name": "api", "port": 80, "weight": 1}])
        ),
    ]));
    let original = recorded(router, &route);
    let now = patched(router, &route, &ask(10)).unwrap();
    let back = |change: &dyn Fn(&mut Value)| {
        let (mut now, mut expected) = (now.clone(), route.clone());
        change(&mut now);
        change(&mut expected);
        (returned(router, &now, &original), expected)
    };

    let (is, expected) = back(&|route| route["spec"]["hostnames"] = json!(["a.example"]));
    assert_eq!(is, expected, "another field");
    let (is, expected) = back(&|route| route["spec"]["rules"][0]["timeouts"] = json!({"request": "1s"}));
    assert_eq!(is, expected, "another field of a rule, and its weight is again 1");
    let (is, expected) = back(&|route| route["spec"]["rules"].as_array_mut().unwrap().swap(0, 1));
    assert_eq!(is, expected, "rules moved");
    let (is, expected) =
        back(&|route| route["spec"]["rules"].as_array_mut().unwrap().insert(0, json!({"name": "new"})));
    assert_eq!(is, expected, "a rule before the others");
    let (is, expected) = back(&|route| {
        route["spec"]["rules"].as_array_mut().unwrap().remove(0);
    });
    assert_eq!(is, expected, "a rule less");
    let (is, expected) = back(&|route| route["spec"]["rules"][0]["backendRefs"][0]["port"] = json!(8080));
    assert_eq!(is, expected, "another port, and its weight is again 1");

    // Other proportions are somebody's will: only the canary's part goes to stable.
    let mut changed = now.clone();
    changed["spec"]["rules"][1]["backendRefs"][1]["weight"] = json!(700);
    assert_eq!(now["spec"]["rules"][1]["backendRefs"][1]["weight"], 100);
    let is = returned(router, &changed, &original);
    assert_eq!(
        is["spec"]["rules"][1]["backendRefs"],
        json!([{"name": "web", "port": 80, "weight": 300}, {"name": "api", "port": 80, "weight": 700}])
    );
    assert_eq!(is["spec"]["rules"][0], route["spec"]["rules"][0]);
    // And a route that somebody has put back already is not touched.
    let write = super::super::give_back(router, &Seen::route(&route), &original, "web", "web-canary");
    assert_eq!(write, None);
}

#[test]
fn another_proportion_in_the_middle_is_kept_from_then_on() {
    let router = Router::HttpRoute;
    let route = http_route(&json!([{"backendRefs": [
        {"name": "web", "weight": 1},
        {"name": "api", "weight": 1},
    ]}]));
    let mut now = patched(router, &route, &ask(10)).unwrap();
    now["spec"]["rules"][0]["backendRefs"] = json!([
        {"name": "web", "weight": 45},
        {"name": "api", "weight": 150},
        {"name": "web-canary", "weight": 5},
    ]);
    assert_eq!(patch(router, &Seen::route(&now), &ask(10)).unwrap(), None, "it is a tenth of both");
    // 50 : 150 is 1 : 3.
    let now = patched(router, &now, &ask(25)).unwrap();
    assert_eq!(
        now["spec"]["rules"][0]["backendRefs"],
        json!([
            {"name": "web", "weight": 75},
            {"name": "api", "weight": 300},
            {"name": "web-canary", "weight": 25},
        ])
    );
}

#[test]
fn weights_that_leave_no_room_still_let_the_canary_be_taken_out_or_be_all() {
    let router = Router::HttpRoute;
    let list = |web: i32, canary: i32| json!([{"name": "web", "weight": web}, {"name": "api", "weight": 999_999}, {"name": "web-canary", "weight": canary}]);
    let now = http_route(&json!([{"backendRefs": list(6, 1)}]));
    assert_eq!(share(router, &now), Some(15), "a seventh, rounded up");
    assert!(matches!(patched(router, &now, &ask(10)), Err(Refusal::TooFine { .. })));
    for (weight, web, canary) in [(0, 7, 0), (100, 0, 7)] {
        let now = patched(router, &now, &ask(weight)).unwrap();
        assert_eq!(now["spec"]["rules"][0]["backendRefs"], list(web, canary));
    }
}

#[test]
fn a_route_that_somebody_took_out_of_service_stays_so() {
    let router = Router::HttpRoute;
    let route = http_route(&json!([{"backendRefs": [{"name": "web", "weight": 1}]}]));
    let original = recorded(router, &route);
    let mut now = patched(router, &route, &ask(10)).unwrap();
    for backend in now["spec"]["rules"][0]["backendRefs"].as_array_mut().unwrap() {
        backend["weight"] = json!(0);
    }
    let back = returned(router, &now, &original);
    assert_eq!(back["spec"]["rules"][0]["backendRefs"], json!([{"name": "web", "weight": 0}]));
}

#[test]
fn a_copied_rule_whose_original_changed_goes_back_to_stable() {
    // The copy can then not be told from a rule of which somebody took stable out. Lost traffic is worse than a
    // rule too many.
    let router = Router::HttpRoute;
    let route = http_route(&json!([{"backendRefs": [{"name": "web", "weight": 1}]}]));
    let original = recorded(router, &route);
    let header =
        super::super::Test { name: "a".to_owned(), value: super::super::Wanted::Exact("b".to_owned()) };
    let matches = vec![super::super::Match { headers: vec![header], ..Default::default() }];
    let mut now = patched(router, &route, &Ask { matches, ..ask(10) }).unwrap();
    now["spec"]["rules"][0]["timeouts"] = json!({"request": "1s"});
    assert!(matches!(patched(router, &now, &ask(10)), Err(Refusal::Foreign { .. })));
    for back in [patched(router, &now, &ask(0)).unwrap(), returned(router, &now, &original)] {
        let rules = back["spec"]["rules"].as_array().unwrap();
        assert_eq!(rules.len(), 2);
        assert_eq!(rules[1]["backendRefs"], json!([{"name": "web", "weight": 1}]));
    }
}

#[test]
fn weights_of_nothing_are_refused_until_somebody_gets_traffic() {
    let router = Router::HttpRoute;
    let route = http_route(
        &json!([{"backendRefs": [{"name": "web", "weight": 0}, {"name": "web-canary", "weight": 0}]}]),
    );
    assert!(matches!(patched(router, &route, &ask(10)), Err(Refusal::NoWeight { .. })));
    assert_eq!(patch(router, &Seen::route(&route), &ask(0)).unwrap(), None);
}

#[test]
fn an_action_that_somebody_rewrote_keeps_their_words() {
    let router = Router::AlbIngress;
    let route = alb(ACTION);
    let original = recorded(router, &route);
    let mut now = patched(router, &route, &ask(10)).unwrap();
    let key = "alb.ingress.kubernetes.io/actions.split";
    let text = now["metadata"]["annotations"][key].as_str().unwrap().replace("false", "true");
    now["metadata"]["annotations"][key] = json!(text);
    let back = returned(router, &now, &original);
    let action: Value = serde_json::from_str(back["metadata"]["annotations"][key].as_str().unwrap()).unwrap();
    assert_eq!(
        action["forwardConfig"],
        json!({
            "targetGroups": [{"serviceName": "web", "servicePort": "80"}],
            "targetGroupStickinessConfig": {"enabled": true},
        })
    );
}
