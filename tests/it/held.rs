//! One object of each kind that a release borrows: as its owner keeps it, and as a release has it. And that the hold
//! covers whatever a release writes of it.

use belay::api::router::Router;
use belay::install::hold::{self, Part};
use belay::traffic::{self, Ask, Match, Seen, Test, Wanted, Write};
use serde_json::{Value, json};

/// One object.
pub struct Sample {
    /// The version and the kind.
    pub kind: (&'static str, &'static str),
    /// As its owner keeps it.
    pub manifest: Value,
    /// What a release makes of its own part of it: a merge patch.
    pub borrowed: Value,
    /// What somebody else wants of that part: a merge patch.
    pub wanted: Value,
    /// A merge patch of something that a release does not borrow.
    pub other: Value,
    /// The manifest as small as its schema takes it, without the part, where that may be missing.
    pub bare: Option<Value>,
    /// Where the part is: JSON pointers, of annotations without the end of their names.
    pub parts: &'static [&'static str],
    /// A merge patch of its status, where that is written by itself.
    pub status: Option<Value>,
}

const ALB: &str = "/metadata/annotations/alb.ingress.kubernetes.io~1actions.";
const NGINX: &str = "/metadata/annotations/nginx.ingress.kubernetes.io~1canary";

/// All kinds.
pub fn samples() -> Vec<Sample> {
    vec![
        service(),
        gateway("HTTPRoute"),
        gateway("GRPCRoute"),
        virtual_service(),
        ingress(),
        traefik_service(),
        ingress_route(),
        traffic_split(),
    ]
}

fn object((version, kind): (&str, &str), spec: &Value) -> Value {
    json!({
        "apiVersion": version, "kind": kind,
        "metadata": {"name": "row", "labels": {"app": "row"}, "annotations": {"team": "shop"}},
        "spec": spec,
    })
}

/// A patch of one field of the spec.
fn spec(field: &str, value: &Value) -> Value {
    json!({"spec": {field: value}})
}

fn service() -> Sample {
    let kind = ("v1", "Service");
    let ports = json!([{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}]);
    Sample {
        manifest: object(kind, &json!({"selector": {"app": "row", "example.com/tier": "a"}, "ports": ports})),
        borrowed: spec("selector", &json!({"pod-template-hash": "abc"})),
        wanted: spec(
            "selector",
            &json!({"app": "other", "pod-template-hash": null, "example.com/zone": "b"}),
        ),
        other: spec("sessionAffinity", &json!("ClientIP")),
        bare: Some(object(kind, &json!({"ports": ports}))),
        parts: &["/spec/selector"],
        status: Some(json!({"status": {"conditions": [condition()]}})),
        kind,
    }
}

fn condition() -> Value {
    json!({
        "type": "Accepted", "status": "True", "reason": "Accepted", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    })
}

fn gateway(kind: &'static str) -> Sample {
    let kind = ("gateway.networking.k8s.io/v1", kind);
    let rules = |backends: &[(&str, u32)]| {
        let backends: Vec<Value> = backends
            .iter()
            .map(|(name, weight)| json!({"name": name, "port": 80, "weight": weight}))
            .collect();
        json!([{"backendRefs": backends}])
    };
    // No such Gateway: nobody writes a status.
    let parents = json!([{"name": "none"}]);
    let status = json!([{
        "parentRef": {"name": "none"}, "controllerName": "example.com/none", "conditions": [condition()],
    }]);
    Sample {
        manifest: object(kind, &json!({"parentRefs": parents, "rules": rules(&[("web", 1)])})),
        borrowed: spec("rules", &rules(&[("web", 90), ("web-canary", 10)])),
        wanted: spec("rules", &rules(&[("other", 1)])),
        other: spec("hostnames", &json!(["example.com"])),
        bare: Some(object(kind, &json!({"parentRefs": parents}))),
        parts: &["/spec/rules"],
        status: Some(json!({"status": {"parents": status}})),
        kind,
    }
}

fn virtual_service() -> Sample {
    let kind = ("networking.istio.io/v1", "VirtualService");
    let routes = |hosts: &[(&str, u32)]| {
        let routes: Vec<Value> = hosts
            .iter()
            .map(|(host, weight)| json!({"destination": {"host": host}, "weight": weight}))
            .collect();
        json!([{"route": routes}])
    };
    let tcp = json!([{"route": [{"destination": {"host": "other"}}]}]);
    Sample {
        manifest: object(kind, &json!({"hosts": ["web"], "http": routes(&[("web", 100)])})),
        borrowed: spec("http", &routes(&[("web", 90), ("web-canary", 10)])),
        wanted: json!({"spec": {"http": null, "tcp": tcp}}),
        other: spec("hosts", &json!(["web", "example.com"])),
        bare: Some(json!({"apiVersion": kind.0, "kind": kind.1, "metadata": {"name": "row"}})),
        parts: &["/spec/http", "/spec/tls", "/spec/tcp"],
        status: Some(json!({"status": {"observedGeneration": "7"}})),
        kind,
    }
}

/// Of both routers that read Ingresses.
fn ingress() -> Sample {
    let kind = ("networking.k8s.io/v1", "Ingress");
    let backend = json!({"service": {"name": "web", "port": {"name": "use-annotation"}}});
    let path = json!({"path": "/", "pathType": "Prefix", "backend": backend});
    let rules = json!([{"host": "example.com", "http": {"paths": [path]}}]);
    let action = |groups: &[(&str, u32)]| {
        let groups: Vec<Value> = groups
            .iter()
            .map(|(name, weight)| json!({"serviceName": name, "servicePort": 80, "weight": weight}))
            .collect();
        json!({"type": "forward", "forwardConfig": {"targetGroups": groups}}).to_string()
    };
    let annotations = |alb: &str, nginx: Value| {
        json!({"metadata": {"annotations": {
            "alb.ingress.kubernetes.io/actions.web": alb,
            "nginx.ingress.kubernetes.io/canary-weight": nginx,
        }}})
    };
    let mut manifest = object(kind, &json!({"ingressClassName": "none", "rules": rules}));
    manifest["metadata"]["annotations"]["alb.ingress.kubernetes.io/actions.web"] =
        json!(action(&[("web", 100)]));
    let mut wanted = annotations(&action(&[("other", 1)]), Value::Null);
    wanted["metadata"]["annotations"]["nginx.ingress.kubernetes.io/canary-by-header"] = json!("x-canary");
    Sample {
        borrowed: annotations(&action(&[("web", 90), ("web-canary", 10)]), json!("10")),
        wanted,
        other: json!({"metadata": {"annotations": {"nginx.ingress.kubernetes.io/rewrite-target": "/x"}}}),
        bare: Some(json!({
            "apiVersion": kind.0, "kind": kind.1, "metadata": {"name": "row"}, "spec": manifest["spec"],
        })),
        manifest,
        parts: &[ALB, NGINX],
        status: Some(json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}})),
        kind,
    }
}

fn traefik_service() -> Sample {
    let kind = ("traefik.io/v1alpha1", "TraefikService");
    let services = |backends: &[(&str, u32)]| {
        let services: Vec<Value> = backends
            .iter()
            .map(|(name, weight)| json!({"name": name, "port": 80, "weight": weight}))
            .collect();
        json!({"services": services})
    };
    Sample {
        manifest: object(kind, &json!({"weighted": services(&[("web", 1)])})),
        borrowed: spec("weighted", &services(&[("web", 90), ("web-canary", 10)])),
        wanted: spec("weighted", &services(&[("other", 1)])),
        other: spec("mirroring", &json!({"name": "web", "port": 80})),
        bare: Some(object(kind, &json!({}))),
        parts: &["/spec/weighted"],
        status: None,
        kind,
    }
}

fn ingress_route() -> Sample {
    let kind = ("traefik.io/v1alpha1", "IngressRoute");
    let routes = |backends: &[(&str, u32)]| {
        let services: Vec<Value> = backends
            .iter()
            .map(|(name, weight)| json!({"name": name, "port": 80, "weight": weight}))
            .collect();
        json!([{"kind": "Rule", "match": "Host(`example.com`)", "services": services}])
    };
    Sample {
        manifest: object(kind, &json!({"routes": routes(&[("web", 1)])})),
        borrowed: spec("routes", &routes(&[("web", 90), ("web-canary", 10)])),
        wanted: spec("routes", &routes(&[("other", 1)])),
        other: spec("entryPoints", &json!(["web"])),
        // Its schema wants the routes.
        bare: None,
        parts: &["/spec/routes"],
        status: None,
        kind,
    }
}

fn traffic_split() -> Sample {
    let kind = ("split.smi-spec.io/v1alpha4", "TrafficSplit");
    let backends = |backends: &[(&str, u32)]| {
        let list: Vec<Value> =
            backends.iter().map(|(name, weight)| json!({"service": name, "weight": weight})).collect();
        json!(list)
    };
    Sample {
        manifest: object(kind, &json!({"service": "web", "backends": backends(&[("web", 1)])})),
        borrowed: spec("backends", &backends(&[("web", 90), ("web-canary", 10)])),
        wanted: spec("backends", &backends(&[("other", 1)])),
        other: spec("service", &json!("example")),
        // Its schema wants the backends.
        bare: None,
        parts: &["/spec/backends"],
        status: None,
        kind,
    }
}

/// The sample of a router, and its companion.
fn of(router: Router) -> (Value, Option<Value>) {
    let found = samples().into_iter().find(|sample| sample.kind.1 == router.kind());
    let mut route = found.unwrap().manifest;
    route["metadata"]["namespace"] = json!("shop");
    if router != Router::NginxIngress {
        return (route, None);
    }
    route["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["port"] = json!({"number": 80});
    let ask = Ask { stable: "web".to_owned(), canary: "web-canary".to_owned(), ..Ask::default() };
    let Ok(Some(Write::Create(companion))) = traffic::patch(router, &Seen::route(&route), &ask) else {
        panic!("no companion for {route}");
    };
    (route, Some(companion))
}

#[test]
fn the_hold_covers_whatever_a_release_writes_of_a_route() {
    let header = Test { name: "x-canary".to_owned(), value: Wanted::Exact("always".to_owned()) };
    let matches = vec![Match { headers: vec![header], ..Match::default() }];
    for router in Router::ALL {
        let held = hold::kinds().into_iter().find(|held| held.kind == router.kind()).unwrap();
        assert_eq!((held.group, held.plural), (router.group(), router.plural()));
        let (route, companion) = of(router);
        let mut writes = 0;
        for (weight, matches, mirror, sticky) in [
            (0, vec![], None, None),
            (10, vec![], None, None),
            (10, matches.clone(), None, None),
            (0, vec![], Some(5), None),
            (50, vec![], None, Some(60)),
        ] {
            let ask = Ask {
                stable: "web".to_owned(),
                canary: "web-canary".to_owned(),
                weight,
                matches,
                mirror,
                sticky,
            };
            let seen = Seen { companion: companion.as_ref(), ..Seen::route(&route) };
            let ops = match traffic::patch(router, &seen, &ask) {
                Ok(Some(Write::Route(ops) | Write::Companion(ops))) => ops,
                Ok(Some(other)) => panic!("{router:?}: {other:?}"),
                // Nothing to do, or more than this router can.
                Ok(None) | Err(_) => continue,
            };
            for op in ops.iter().filter(|op| op["op"] != "test") {
                let path = op["path"].as_str().unwrap();
                let covered = held.parts.iter().any(|part| match part {
                    Part::Spec(field) => {
                        let rest = path.strip_prefix(&format!("/spec/{field}"));
                        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                    }
                    Part::Annotations(prefix) => {
                        path.starts_with(&format!("/metadata/annotations/{}", prefix.replace('/', "~1")))
                    }
                    Part::Selector => false,
                });
                assert!(covered, "{router:?} writes {path}, which is not held");
                writes += 1;
            }
        }
        assert!(writes > 0, "{router:?}: nothing was written");
    }
}
