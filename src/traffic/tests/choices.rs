//! Requests that are chosen, copied, or kept on a version; and the routers that cannot.

use serde_json::json;

use super::super::{Can, Match, Test, Wanted, patch, read};
use super::golden::{ACTION, alb};
use super::*;

const EXPERIMENTAL: Can = Can { session_persistence: true, mirror_percent: true };

fn exact(name: &str, value: &str) -> Test {
    Test { name: name.to_owned(), value: Wanted::Exact(value.to_owned()) }
}

fn regex(name: &str, value: &str) -> Test {
    Test { name: name.to_owned(), value: Wanted::Regex(value.to_owned()) }
}

fn header(test: Test) -> Match {
    Match { headers: vec![test], ..Match::default() }
}

fn chosen(weight: i32, matches: Vec<Match>) -> Ask {
    Ask { matches, ..ask(weight) }
}

fn http_route() -> Value {
    object(
        Router::HttpRoute,
        &json!({"rules": [
            {
                "name": "front",
                "matches": [{"path": {"type": "PathPrefix", "value": "/"}}, {"method": "POST"}],
                "timeouts": {"request": "3s"},
                "backendRefs": [{"name": "web", "port": 80, "weight": 1}],
            },
            {"backendRefs": [{"name": "api", "port": 80}]},
        ]}),
    )
}

fn virtual_service() -> Value {
    object(
        Router::VirtualService,
        &json!({"http": [
            {"match": [{"uri": {"prefix": "/old"}}], "route": [{"destination": {"host": "old"}}]},
            {"name": "front", "timeout": "3s", "route": [{"destination": {"host": "web", "subset": "v1"}}]},
        ]}),
    )
}

fn ingress_route() -> Value {
    object(
        Router::IngressRoute,
        &json!({"routes": [
            {"kind": "Rule", "match": "Host(`a`)", "services": [{"name": "web", "port": 80}]},
            {"kind": "Rule", "match": "Host(`a`) && PathPrefix(`/api`)", "services": [{"name": "api", "port": 80}]},
        ]}),
    )
}

/// In, again, out, and given back.
fn in_and_out(router: Router, route: &Value, can: Can, ask_for: &Ask) -> Value {
    let original = recorded(router, route);
    let seen = |route| Seen { can, ..Seen::route(route) };
    let now = apply(route, &ops(patch(router, &seen(route), ask_for).unwrap())).unwrap();
    assert_eq!(patch(router, &seen(&now), ask_for).unwrap(), None, "a second time changes nothing");
    let split = read(router, &seen(&now), "web", "web-canary").unwrap();
    assert_eq!(split.canary, Some(ask_for.weight));
    assert_eq!(split.matched, !ask_for.matches.is_empty());
    assert_eq!(split.mirrored, ask_for.mirror.is_some());
    assert!(!split.sessions, "its own sessions are not the owner's");
    // Rolled back in one write: nothing goes to the canary, in whatever way.
    let off = apply(&now, &ops(patch(router, &seen(&now), &ask(0)).unwrap())).unwrap();
    let split = read(router, &seen(&off), "web", "web-canary").unwrap();
    assert_eq!((split.canary, split.matched, split.mirrored), (Some(0), false, false));
    assert!(!off.to_string().contains("belay-web-canary"), "{off}");
    for from in [&now, &off] {
        assert_eq!(returned(router, from, &original), *route);
    }
    now
}

#[test]
fn http_requests_by_header_cookie_and_query() {
    let both = Match {
        headers: vec![exact("X-Beta", "yes")],
        cookies: vec![exact("group", "a.b")],
        query: vec![regex("v", "[23]")],
    };
    let asked = chosen(10, vec![both, header(regex("X-Team", "qa-.*"))]);
    let now = in_and_out(Router::HttpRoute, &http_route(), Can::default(), &asked);
    let both = json!([
        {"type": "Exact", "name": "X-Beta", "value": "yes"},
        {"type": "RegularExpression", "name": "Cookie", "value": r"^(.*;\s*)?group=a\.b(;.*)?$"},
    ]);
    let query = json!([{"type": "RegularExpression", "name": "v", "value": "[23]"}]);
    let team = json!([{"type": "RegularExpression", "name": "X-Team", "value": "qa-.*"}]);
    let path = json!({"type": "PathPrefix", "value": "/"});
    // After the owner's rules, which win where both fit equally; without the name, which is unique.
    assert_eq!(
        now["spec"]["rules"][2],
        json!({
            "matches": [
                {"path": path, "headers": both, "queryParams": query},
                {"path": path, "headers": team},
                {"method": "POST", "headers": both, "queryParams": query},
                {"method": "POST", "headers": team},
            ],
            "timeouts": {"request": "3s"},
            "backendRefs": [{"name": "web-canary", "port": 80, "weight": 1}],
        })
    );
    assert_eq!(now["spec"]["rules"][0]["backendRefs"][1]["weight"], 10);
    assert_eq!(now["spec"]["rules"][0]["name"], "front");
}

#[test]
fn the_expression_for_a_cookie_finds_it_among_others() {
    let asked = chosen(0, vec![Match { cookies: vec![exact("group", "a.b")], ..Match::default() }]);
    let now = patched(Router::HttpRoute, &http_route(), &asked).unwrap();
    let test = &now["spec"]["rules"][2]["matches"][0]["headers"][0]["value"];
    let expression = ::regex::Regex::new(test.as_str().unwrap()).unwrap();
    for (cookies, fits) in [
        ("group=a.b", true),
        ("x=1; group=a.b", true),
        ("x=1;group=a.b; y=2", true),
        ("group=axb", false),
        ("subgroup=a.b", false),
        ("group=a.bc", false),
        ("x=group", false),
    ] {
        assert_eq!(expression.is_match(cookies), fits, "{cookies}");
    }
}

#[test]
fn a_match_that_a_rule_has_already_is_refused() {
    let mut route = http_route();
    route["spec"]["rules"][0]["matches"][0]["headers"] = json!([{"name": "x-beta", "value": "no"}]);
    let refused = |route: &Value, router, matches| patched(router, route, &chosen(0, matches)).unwrap_err();
    let asked = vec![header(exact("X-Beta", "yes"))];
    assert!(matches!(refused(&route, Router::HttpRoute, asked), Refusal::Match { .. }));
    let cookies = Match { cookies: vec![exact("a", "1"), exact("b", "2")], ..Match::default() };
    assert!(matches!(refused(&http_route(), Router::HttpRoute, vec![cookies]), Refusal::Match { .. }));
    let query = Match { query: vec![exact("a", "1")], ..Match::default() };
    let mut grpc = http_route();
    grpc["kind"] = json!("GRPCRoute");
    assert!(matches!(refused(&grpc, Router::GrpcRoute, vec![query]), Refusal::Match { .. }));
    assert!(matches!(
        refused(&http_route(), Router::HttpRoute, vec![Match::default()]),
        Refusal::Match { why: "it has no condition", .. }
    ));
    let many = (0..40).map(|n| header(exact("X-User", &n.to_string()))).collect();
    assert_eq!(
        refused(&http_route(), Router::HttpRoute, many),
        Refusal::TooMany { what: "matches in a rule", have: 80, most: 64 }
    );
    let some: Vec<_> = (0..32).map(|n| header(exact("X-User", &n.to_string()))).collect();
    let mut route = http_route();
    let front = route["spec"]["rules"][0].clone();
    route["spec"]["rules"].as_array_mut().unwrap().push(front);
    // Twice 2 of the owner's, and twice 64.
    assert_eq!(
        refused(&route, Router::HttpRoute, some),
        Refusal::TooMany { what: "matches", have: 132, most: 128 }
    );
}

#[test]
fn istio_requests_by_header_cookie_and_query() {
    let asked = chosen(
        5,
        vec![Match {
            headers: vec![exact("X-Beta", "yes")],
            cookies: vec![regex("group", "a|b")],
            query: vec![exact("v", "2")],
        }],
    );
    let now = in_and_out(Router::VirtualService, &virtual_service(), Can::default(), &asked);
    // Before its rule: the first that fits is it.
    assert_eq!(
        now["spec"]["http"][1],
        json!({
            "name": "front",
            "timeout": "3s",
            "match": [{
                "headers": {"x-beta": {"exact": "yes"}, "cookie": {"regex": r"^(.*;\s*)?group=(?:a|b)(;.*)?$"}},
                "queryParams": {"v": {"exact": "2"}},
            }],
            "route": [{"destination": {"host": "web-canary"}, "weight": 1}],
        })
    );
    assert_eq!(now["spec"]["http"][2]["route"][1]["weight"], 5);
}

#[test]
fn connections_cannot_be_chosen() {
    let route =
        object(Router::VirtualService, &json!({"tcp": [{"route": [{"destination": {"host": "web"}}]}]}));
    let asked = chosen(0, vec![header(exact("a", "b"))]);
    let refusal = patched(Router::VirtualService, &route, &asked).unwrap_err();
    assert!(refusal.to_string().contains("in rules for connections"), "{refusal}");
}

#[test]
fn traefik_requests_by_header_cookie_and_query() {
    let both = Match {
        headers: vec![exact("X-Beta", "yes")],
        cookies: vec![exact("group", "a")],
        query: vec![regex("v", "[23]")],
    };
    let asked = chosen(10, vec![both, header(exact("X-Team", "qa"))]);
    let now = in_and_out(Router::IngressRoute, &ingress_route(), Can::default(), &asked);
    // The owner's rule has 9 characters, and so the priority 9; the longer rule keeps going first.
    assert_eq!(
        now["spec"]["routes"][0],
        json!({
            "kind": "Rule",
            "match": "(Host(`a`)) && (Header(`X-Beta`, `yes`) && \
                HeaderRegexp(`Cookie`, `^(.*;\\s*)?group=a(;.*)?$`) && QueryRegexp(`v`, `^(?:[23])$`) || \
                Header(`X-Team`, `qa`))",
            "priority": 10,
            "services": [{"name": "web-canary", "port": 80, "weight": 1}],
        })
    );
    let mut route = ingress_route();
    route["spec"]["routes"][1]["priority"] = json!(10);
    let refused = |route: &Value, ask: &Ask| patched(Router::IngressRoute, route, ask).unwrap_err();
    assert!(matches!(refused(&route, &asked), Refusal::Match { .. }), "which goes first is open");
    route["spec"]["routes"][1]["priority"] = json!(11);
    route["spec"]["routes"][0]["syntax"] = json!("v2");
    assert!(matches!(refused(&route, &asked), Refusal::Match { .. }));
    let quote = chosen(0, vec![header(exact("X-Beta", "`) || Path(`/"))]);
    assert!(matches!(refused(&ingress_route(), &quote), Refusal::Match { .. }));
}

#[test]
fn nginx_requests_by_one_header_and_one_cookie() {
    let router = Router::NginxIngress;
    let route = object(
        router,
        &json!({"rules": [{"http": {"paths": [{"path": "/", "pathType": "Prefix",
            "backend": {"service": {"name": "web", "port": {"number": 80}}}}]}}]}),
    );
    let cookie = Match { cookies: vec![exact("beta", "always")], ..Match::default() };
    let asked = chosen(10, vec![header(exact("X-Beta", "yes")), cookie.clone()]);
    let Some(Write::Create(mut companion)) = patch(router, &Seen::route(&route), &asked).unwrap() else {
        panic!("the companion is created")
    };
    assert_eq!(
        companion["metadata"]["annotations"],
        json!({
            "nginx.ingress.kubernetes.io/canary": "true",
            "nginx.ingress.kubernetes.io/canary-weight": "10",
            "nginx.ingress.kubernetes.io/canary-by-header": "X-Beta",
            "nginx.ingress.kubernetes.io/canary-by-header-value": "yes",
            "nginx.ingress.kubernetes.io/canary-by-cookie": "beta",
        })
    );
    companion["metadata"]["uid"] = json!("u-2");
    companion["metadata"]["annotations"]["owner"] = json!("somebody");
    let seen = Seen { companion: Some(&companion), ..Seen::route(&route) };
    assert!(read(router, &seen, "web", "web-canary").unwrap().matched);
    let off = apply(&companion, &ops(patch(router, &seen, &ask(0)).unwrap())).unwrap();
    assert_eq!(
        off["metadata"]["annotations"],
        json!({
            "nginx.ingress.kubernetes.io/canary": "true",
            "nginx.ingress.kubernetes.io/canary-weight": "0",
            "owner": "somebody",
        })
    );
    let two = header(exact("a", "b"));
    for matches in [
        vec![two.clone(), two],
        vec![Match { query: vec![exact("a", "b")], ..Match::default() }],
        vec![Match { cookies: vec![exact("beta", "yes")], ..Match::default() }],
        vec![Match { headers: vec![exact("a", "b")], ..cookie }],
    ] {
        assert!(matches!(
            patch(router, &Seen::route(&route), &chosen(0, matches)),
            Err(Refusal::Unable { .. })
        ));
    }
}

#[test]
fn http_requests_are_copied() {
    let mirrored = |percent| Ask { mirror: Some(percent), ..ask(0) };
    let now = in_and_out(Router::HttpRoute, &http_route(), EXPERIMENTAL, &mirrored(25));
    assert_eq!(
        now["spec"]["rules"][0]["filters"],
        json!([{"type": "RequestMirror",
            "requestMirror": {"backendRef": {"name": "web-canary", "port": 80}, "percent": 25}}])
    );
    // All of them need no field that not every version has.
    let now = in_and_out(Router::HttpRoute, &http_route(), Can::default(), &mirrored(100));
    assert!(now["spec"]["rules"][0]["filters"][0]["requestMirror"]["percent"].is_null());
    let refusal = patched(Router::HttpRoute, &http_route(), &mirrored(25)).unwrap_err();
    assert!(refusal.to_string().contains("no `percent`"), "{refusal}");
    // The owner's filters stay, an empty list of them as well.
    for filters in
        [json!([]), json!([{"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "log"}}}])]
    {
        let mut route = http_route();
        route["spec"]["rules"][0]["filters"] = filters.clone();
        let now = in_and_out(Router::HttpRoute, &route, EXPERIMENTAL, &mirrored(25));
        let count = filters.as_array().unwrap().len();
        assert_eq!(now["spec"]["rules"][0]["filters"].as_array().unwrap().len(), count + 1);
    }
}

#[test]
fn istio_requests_are_copied() {
    let asked = Ask { mirror: Some(25), ..ask(0) };
    let now = in_and_out(Router::VirtualService, &virtual_service(), Can::default(), &asked);
    let rule = &now["spec"]["http"][1];
    assert_eq!(rule["mirror"], json!({"host": "web-canary"}));
    assert_eq!(rule["mirrorPercentage"], json!({"value": 25}));
    let mut route = virtual_service();
    route["spec"]["http"][1]["mirrors"] = json!([{"destination": {"host": "log"}}]);
    let refused = patched(Router::VirtualService, &route, &asked);
    assert!(matches!(refused, Err(Refusal::Unable { .. })), "{refused:?}");
}

#[test]
fn clients_are_kept_only_while_both_versions_serve() {
    let sticky = |weight| Ask { sticky: Some(3661), ..ask(weight) };
    let now = in_and_out(Router::HttpRoute, &http_route(), EXPERIMENTAL, &sticky(20));
    assert_eq!(
        now["spec"]["rules"][0]["sessionPersistence"],
        json!({"sessionName": "belay-web-canary", "type": "Cookie", "absoluteTimeout": "1h1m1s"})
    );
    let seen = Seen { can: EXPERIMENTAL, ..Seen::route(&now) };
    for weight in [0, 100] {
        let then = apply(&now, &ops(patch(Router::HttpRoute, &seen, &sticky(weight)).unwrap())).unwrap();
        assert!(then["spec"]["rules"][0]["sessionPersistence"].is_null(), "at weight {weight}");
    }
    assert!(matches!(patched(Router::HttpRoute, &http_route(), &sticky(20)), Err(Refusal::Unable { .. })));
    // Who has sessions already keeps their own, and is told.
    let mut route = http_route();
    route["spec"]["rules"][0]["sessionPersistence"] = json!({"sessionName": "seat"});
    let now = patched(Router::HttpRoute, &route, &sticky(20)).unwrap();
    assert_eq!(now["spec"]["rules"][0]["sessionPersistence"], json!({"sessionName": "seat"}));
    assert!(read(Router::HttpRoute, &Seen::route(&now), "web", "web-canary").unwrap().sessions);

    let route =
        object(Router::TraefikService, &json!({"weighted": {"services": [{"name": "web", "port": 80}]}}));
    let now = in_and_out(Router::TraefikService, &route, Can::default(), &sticky(20));
    assert_eq!(
        now["spec"]["weighted"]["sticky"],
        json!({"cookie": {"name": "belay-web-canary", "maxAge": 3661}})
    );
}

#[test]
fn what_a_router_cannot_do_is_refused_with_a_way_out() {
    let split = object(Router::TrafficSplit, &json!({"backends": [{"service": "web", "weight": 1}]}));
    let traefik =
        object(Router::TraefikService, &json!({"weighted": {"services": [{"name": "web", "port": 80}]}}));
    let matches = vec![header(exact("a", "b"))];
    let mirror = Ask { mirror: Some(100), ..ask(10) };
    let sticky = Ask { sticky: Some(60), ..ask(10) };
    for (router, route, ask) in [
        (Router::TrafficSplit, &split, chosen(10, matches.clone())),
        (Router::TrafficSplit, &split, mirror.clone()),
        (Router::TrafficSplit, &split, sticky.clone()),
        (Router::TraefikService, &traefik, chosen(10, matches.clone())),
        (Router::TraefikService, &traefik, mirror.clone()),
        (Router::IngressRoute, &ingress_route(), mirror.clone()),
        (Router::IngressRoute, &ingress_route(), sticky.clone()),
        (Router::VirtualService, &virtual_service(), sticky.clone()),
        (Router::AlbIngress, &alb(ACTION), chosen(10, matches)),
        (Router::AlbIngress, &alb(ACTION), mirror),
        (Router::AlbIngress, &alb(ACTION), sticky),
    ] {
        let refusal = patched(router, route, &ask).unwrap_err();
        assert!(matches!(refusal, Refusal::Unable { .. }), "{router:?}: {refusal}");
        assert!(!refusal.cure().is_empty());
    }
}

#[test]
fn optional_fields_are_read_from_the_definition() {
    let rule = json!({"properties": {
        "sessionPersistence": {"type": "object"},
        "filters": {"items": {"properties": {"requestMirror": {"properties": {"percent": {"type": "integer"}}}}}},
    }});
    let version = |name: &str, rule: &Value| {
        json!({"name": name, "schema": {"openAPIV3Schema": {"properties": {"spec": {"properties":
            {"rules": {"items": rule}}}}}}})
    };
    let definition = json!({"spec": {"versions": [version("v1beta1", &json!({})), version("v1", &rule)]}});
    assert_eq!(Can::of(&definition, "v1"), EXPERIMENTAL);
    assert_eq!(Can::of(&definition, "v1beta1"), Can::default());
    assert_eq!(Can::of(&definition, "v2"), Can::default());
}
