//! One route of each kind, before and after, with the numbers worked out by hand.

use serde_json::{Value, json};

use super::*;

/// Walks a route through a release and back, and checks the lists at a pointer on the way.
fn walk(router: Router, route: &Value, at: &str, expected: &[(i32, Value)]) {
    let original = recorded(router, route);
    assert_eq!(share(router, route), None);
    let mut now = route.clone();
    for (weight, list) in expected {
        now = patched(router, &now, &ask(*weight)).unwrap();
        assert_eq!(now.pointer(at).unwrap(), list, "at weight {weight}");
        assert_eq!(share(router, &now), Some(*weight));
        let again = super::super::patch(router, &Seen::route(&now), &ask(*weight)).unwrap();
        assert_eq!(again, None, "at weight {weight}");
    }
    assert_eq!(returned(router, &now, &original), *route);
}

#[test]
fn http_route() {
    let route = object(
        Router::HttpRoute,
        &json!({
            "hostnames": ["shop.example"],
            "rules": [
                {
                    "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
                    "filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": []}}],
                    "backendRefs": [
                        {"group": "", "kind": "Service", "name": "web", "port": 80, "weight": 1, "filters": []},
                    ],
                    "fieldOfTomorrow": {"a": 1},
                },
                {"backendRefs": [{"name": "api", "port": 80}]},
                {"backendRefs": [
                    {"name": "web", "namespace": "elsewhere", "port": 80, "weight": 5},
                    {"name": "old", "port": 80, "weight": 10},
                    {"name": "web", "port": 8080, "weight": 90},
                ]},
            ],
        }),
    );
    let both = |stable: i32, canary: i32| {
        json!([
            {"group": "", "kind": "Service", "name": "web", "port": 80, "weight": stable, "filters": []},
            {"group": "", "kind": "Service", "name": "web-canary", "port": 80, "weight": canary, "filters": []},
        ])
    };
    walk(
        Router::HttpRoute,
        &route,
        "/spec/rules/0/backendRefs",
        &[(0, both(1, 0)), (5, both(95, 5)), (50, both(50, 50)), (100, both(0, 100)), (0, both(100, 0))],
    );
    // 5 + 10 + 90: by 5 it is 1 : 2 : 18, times 50 it is 50 : 100 : 900.
    let three = |elsewhere: i32, old: i32, stable: i32, canary: i32| {
        json!([
            {"name": "web", "namespace": "elsewhere", "port": 80, "weight": elsewhere},
            {"name": "old", "port": 80, "weight": old},
            {"name": "web", "port": 8080, "weight": stable},
            {"name": "web-canary", "port": 8080, "weight": canary},
        ])
    };
    walk(
        Router::HttpRoute,
        &route,
        "/spec/rules/2/backendRefs",
        &[
            (0, three(5, 10, 90, 0)),
            (1, three(50, 100, 891, 9)),
            (25, three(50, 100, 675, 225)),
            (100, three(50, 100, 0, 900)),
        ],
    );
    // Two writes of two fields: their old values are tested, and nothing else but the uid.
    let ops = ops(super::super::patch(Router::HttpRoute, &Seen::route(&route), &ask(10)).unwrap());
    let paths: Vec<_> =
        ops.iter().map(|op| (op["op"].as_str().unwrap(), op["path"].as_str().unwrap())).collect();
    assert_eq!(
        paths,
        [
            ("test", "/metadata/uid"),
            ("test", "/spec/rules/0/backendRefs"),
            ("replace", "/spec/rules/0/backendRefs"),
            ("test", "/spec/rules/2/backendRefs"),
            ("replace", "/spec/rules/2/backendRefs"),
        ]
    );
}

#[test]
fn grpc_route() {
    let route = object(
        Router::GrpcRoute,
        &json!({"rules": [{
            "matches": [{"method": {"service": "shop.Cart"}}],
            "backendRefs": [{"name": "web", "port": 9000}],
        }]}),
    );
    let both = |stable: i32, canary: i32| {
        json!([
            {"name": "web", "port": 9000, "weight": stable},
            {"name": "web-canary", "port": 9000, "weight": canary},
        ])
    };
    walk(
        Router::GrpcRoute,
        &route,
        "/spec/rules/0/backendRefs",
        &[(0, both(1, 0)), (1, both(99, 1)), (99, both(1, 99))],
    );
}

#[test]
fn virtual_service() {
    let route = object(
        Router::VirtualService,
        &json!({
            "hosts": ["shop.example"],
            "http": [
                {"match": [{"uri": {"prefix": "/old"}}], "redirect": {"uri": "/"}},
                {"route": [{"destination": {"host": "web.shop.svc.cluster.local", "subset": "v1",
                    "port": {"number": 80}}, "headers": {"request": {"set": {"a": "b"}}}}]},
            ],
            "tls": [{"match": [{"sniHosts": ["shop.example"]}], "route": [{"destination": {"host": "other"}}]}],
            "tcp": [{"route": [{"destination": {"host": "web"}, "weight": 60}, {"destination": {"host": "web.b"},
                "weight": 40}]}],
        }),
    );
    let both = |stable: i32, canary: i32| {
        json!([
            {"destination": {"host": "web.shop.svc.cluster.local", "subset": "v1", "port": {"number": 80}},
                "headers": {"request": {"set": {"a": "b"}}}, "weight": stable},
            {"destination": {"host": "web-canary.shop.svc.cluster.local", "port": {"number": 80}},
                "headers": {"request": {"set": {"a": "b"}}}, "weight": canary},
        ])
    };
    // Alone and without a number stable has everything; beside a canary it would have nothing.
    walk(
        Router::VirtualService,
        &route,
        "/spec/http/1/route",
        &[(0, both(100, 0)), (10, both(90, 10)), (100, both(0, 100)), (0, both(100, 0))],
    );
    // 60 : 40 is 3 : 2, and 300 : 200 has whole percents of 3.
    walk(
        Router::VirtualService,
        &route,
        "/spec/tcp/0/route",
        &[(
            10,
            json!([
                {"destination": {"host": "web"}, "weight": 270},
                {"destination": {"host": "web.b"}, "weight": 200},
                {"destination": {"host": "web-canary"}, "weight": 30},
            ]),
        )],
    );
}

#[test]
fn traefik_service() {
    let route = object(
        Router::TraefikService,
        &json!({"weighted": {
            "services": [
                {"name": "web", "port": 80},
                {"name": "inner", "kind": "TraefikService"},
                {"name": "web", "kind": "TraefikService", "weight": 2},
            ],
            "fieldOfTomorrow": true,
        }}),
    );
    walk(
        Router::TraefikService,
        &route,
        "/spec/weighted/services",
        &[(
            20,
            json!([
                {"name": "web", "port": 80, "weight": 80},
                {"name": "inner", "kind": "TraefikService", "weight": 100},
                {"name": "web", "kind": "TraefikService", "weight": 200},
                {"name": "web-canary", "port": 80, "weight": 20},
            ]),
        )],
    );
}

#[test]
fn ingress_route() {
    let route = object(
        Router::IngressRoute,
        &json!({"entryPoints": ["websecure"], "routes": [
            {"kind": "Rule", "match": "Host(`shop.example`)",
                "services": [{"name": "web", "port": "http", "passHostHeader": true}], "middlewares": []},
            {"kind": "Rule", "match": "Host(`api.example`)", "services": [{"name": "api", "port": 80}]},
        ]}),
    );
    walk(
        Router::IngressRoute,
        &route,
        "/spec/routes/0/services",
        &[(
            30,
            json!([
                {"name": "web", "port": "http", "passHostHeader": true, "weight": 70},
                {"name": "web-canary", "port": "http", "passHostHeader": true, "weight": 30},
            ]),
        )],
    );
}

#[test]
fn traffic_split() {
    let route = object(
        Router::TrafficSplit,
        &json!({"service": "front", "backends": [{"service": "web", "weight": 50}, {"service": "b", "weight": 50}]}),
    );
    walk(
        Router::TrafficSplit,
        &route,
        "/spec/backends",
        &[(
            5,
            json!([
                {"service": "web", "weight": 95},
                {"service": "b", "weight": 100},
                {"service": "web-canary", "weight": 5},
            ]),
        )],
    );
}

/// The owner's own spelling, spaces and all.
pub const ACTION: &str = r#"{ "type": "forward", "forwardConfig": { "targetGroups": [
    {"serviceName": "web", "servicePort": "80"} ],
    "targetGroupStickinessConfig": {"enabled": false} } }"#;

pub fn alb(action: &str) -> Value {
    let mut route = object(
        Router::AlbIngress,
        &json!({"rules": [{"http": {"paths": [{"path": "/", "pathType": "Prefix",
            "backend": {"service": {"name": "split", "port": {"name": "use-annotation"}}}}]}}]}),
    );
    route["metadata"]["annotations"] = json!({
        "alb.ingress.kubernetes.io/actions.split": action,
        "alb.ingress.kubernetes.io/actions.gone": r#"{"type":"fixed-response","fixedResponseConfig":{}}"#,
        "alb.ingress.kubernetes.io/scheme": "internal",
    });
    route
}

#[test]
fn alb_ingress() {
    let route = alb(ACTION);
    let original = recorded(Router::AlbIngress, &route);
    let path = "/metadata/annotations/alb.ingress.kubernetes.io~1actions.split";
    assert_eq!(original, json!({path: ACTION}));
    let mut now = route.clone();
    for (weight, stable, canary) in [(0, 1, 0), (10, 90, 10), (100, 0, 100)] {
        now = patched(Router::AlbIngress, &now, &ask(weight)).unwrap();
        let action: Value = serde_json::from_str(now.pointer(path).unwrap().as_str().unwrap()).unwrap();
        assert_eq!(
            action,
            json!({"type": "forward", "forwardConfig": {
                "targetGroups": [
                    {"serviceName": "web", "servicePort": "80", "weight": stable},
                    {"serviceName": "web-canary", "servicePort": "80", "weight": canary},
                ],
                "targetGroupStickinessConfig": {"enabled": false},
            }})
        );
        assert_eq!(share(Router::AlbIngress, &now), Some(weight));
        assert_eq!(super::super::patch(Router::AlbIngress, &Seen::route(&now), &ask(weight)).unwrap(), None);
    }
    assert_eq!(returned(Router::AlbIngress, &now, &original), route);
}

#[test]
fn nginx_ingress() {
    let mut route = object(
        Router::NginxIngress,
        &json!({
            "ingressClassName": "nginx",
            "tls": [{"hosts": ["shop.example"], "secretName": "shop"}],
            "rules": [
                {"host": "shop.example", "http": {"paths": [
                    {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "web",
                        "port": {"number": 80}}}},
                    {"path": "/api", "pathType": "Prefix", "backend": {"service": {"name": "api",
                        "port": {"number": 80}}}},
                ]}},
                {"host": "api.example", "http": {"paths": [
                    {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "api",
                        "port": {"number": 80}}}},
                ]}},
            ],
        }),
    );
    route["metadata"]["annotations"] = json!({
        "nginx.ingress.kubernetes.io/affinity": "cookie",
        "nginx.ingress.kubernetes.io/session-cookie-name": "seat",
        "nginx.ingress.kubernetes.io/rewrite-target": "/",
        "kubectl.kubernetes.io/last-applied-configuration": "{}",
    });
    let router = Router::NginxIngress;
    assert_eq!(recorded(router, &route), json!({}));
    let Some(Write::Create(companion)) = super::super::patch(router, &Seen::route(&route), &ask(0)).unwrap()
    else {
        panic!("the companion is created first")
    };
    assert_eq!(
        companion,
        json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "Ingress",
            "metadata": {"name": "route-web-canary", "namespace": "shop", "annotations": {
                "nginx.ingress.kubernetes.io/affinity": "cookie",
                "nginx.ingress.kubernetes.io/session-cookie-name": "seat",
                "nginx.ingress.kubernetes.io/canary": "true",
                "nginx.ingress.kubernetes.io/canary-weight": "0",
            }},
            "spec": {
                "ingressClassName": "nginx",
                "rules": [{"host": "shop.example", "http": {"paths": [
                    {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "web-canary",
                        "port": {"number": 80}}}},
                ]}}],
            },
        })
    );
    assert_eq!(
        super::super::companion(router, "route", "web-canary").as_deref(),
        companion["metadata"]["name"].as_str()
    );
    // As the server has it, with what the caller added.
    let mut companion = companion;
    companion["metadata"]["uid"] = json!("u-2");
    companion["metadata"]["labels"] = json!({"belay.dev/release": "web-1"});
    let seen = |companion| Seen { companion: Some(companion), ..Seen::route(&route) };
    assert_eq!(super::super::patch(router, &seen(&companion), &ask(0)).unwrap(), None);
    let Some(Write::Companion(ops)) = super::super::patch(router, &seen(&companion), &ask(10)).unwrap()
    else {
        panic!("the companion is changed")
    };
    let path = "/metadata/annotations/nginx.ingress.kubernetes.io~1canary-weight";
    assert_eq!(
        ops,
        [
            json!({"op": "test", "path": "/metadata/uid", "value": "u-2"}),
            json!({"op": "test", "path": path, "value": "0"}),
            json!({"op": "replace", "path": path, "value": "10"}),
        ]
    );
    let companion = apply(&companion, &ops).unwrap();
    let split = super::super::read(router, &seen(&companion), "web", "web-canary").unwrap();
    assert_eq!((split.canary, split.rules, split.sessions), (Some(10), 1, true));
    let back = |seen: &Seen<'_>| super::super::give_back(router, seen, &json!({}), "web", "web-canary");
    assert_eq!(back(&seen(&companion)), Some(Write::Delete));
    assert_eq!(back(&Seen::route(&route)), None);
}
