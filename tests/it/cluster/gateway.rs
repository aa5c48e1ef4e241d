//! The gateway of the local cluster: what a route says is what Envoy does.

use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::load::{Load, Target, Totals, get};
use super::scene::{IMAGE, int, text};
use super::{Env, Namespace, PATIENCE, deployment, eventually};

/// Where Envoy answers for the Gateway `belay-test/edge`.
pub const ADDRESS: &str = "10.99.0.2:16080";
const V1: &str = "gateway.networking.k8s.io/v1";

/// Whether the cluster has a gateway; without one a test is skipped.
pub async fn gateway_is_there() -> bool {
    let there = get("127.0.0.1:8002", "/ready", "envoy").await.is_ok_and(|(status, _)| status == 200);
    if !there {
        eprintln!("SKIPPED: no Envoy is ready; start the cluster with --with-gateway");
    }
    there
}

/// A route `web` on the Gateway for a host: every request to Services by their weights, but those below
/// `/only/SERVICE` to that one.
pub fn http_route(host: &str, backends: &[(&str, u32)]) -> Value {
    let backend = |(name, weight): &(&str, u32)| json!({"name": name, "port": 80, "weight": weight});
    let only = |(name, _): &(&str, u32)| {
        json!({
            "matches": [{"path": {"type": "PathPrefix", "value": format!("/only/{name}")}}],
            "backendRefs": [{"name": name, "port": 80}],
        })
    };
    let mut rules = vec![json!({"backendRefs": backends.iter().map(backend).collect::<Vec<_>>()})];
    rules.extend(backends.iter().map(only));
    json!({
        "apiVersion": V1,
        "kind": "HTTPRoute",
        "metadata": {"name": "web"},
        "spec": {
            "parentRefs": [{"name": "edge", "namespace": "belay-test"}],
            "hostnames": [host],
            "rules": rules,
        },
    })
}

/// Waits until the router says that it has taken up a route as it is.
pub async fn taken_up(namespace: &Namespace, name: &str) {
    let api = namespace.api(&namespace.env.admin, V1, "HTTPRoute");
    eventually(PATIENCE, "the route is taken up", async || {
        let route = serde_json::to_value(api.get(name).await.unwrap()).unwrap();
        let holds = |kind: &str| {
            let conditions = route.pointer("/status/parents/0/conditions").and_then(Value::as_array);
            conditions.into_iter().flatten().any(|c| {
                c["type"] == kind
                    && c["status"] == "True"
                    && int(c, "/observedGeneration") == int(&route, "/metadata/generation")
            })
        };
        if holds("Accepted") && holds("ResolvedRefs") { Ok(()) } else { Err(route["status"].to_string()) }
    })
    .await;
}

/// Two versions as Deployments and Services of their own, and a route with these weights that Envoy follows. The
/// host of the route.
async fn two_versions(namespace: &Namespace, weights: [u32; 2]) -> String {
    let alice = &namespace.env.alice;
    for version in ["1", "2"] {
        let name = format!("web-{version}");
        let mut object = deployment(&name, 2, IMAGE);
        object["spec"]["template"]["spec"]["containers"][0]["env"] =
            json!([{"name": "VERSION", "value": version}]);
        namespace.apply(alice, "alice", &object).await.unwrap();
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}]},
        });
        namespace.apply(alice, "alice", &service).await.unwrap();
    }
    let host = format!("{}.test", namespace.name);
    let route = http_route(&host, &[("web-1", weights[0]), ("web-2", weights[1])]);
    namespace.apply(&namespace.env.admin, "tests", &route).await.unwrap();
    taken_up(namespace, "web").await;
    // Both Services have pods that Envoy knows.
    for version in ["1", "2"] {
        eventually(PATIENCE, "Envoy reaches the pods", async || {
            match get(ADDRESS, &format!("/only/web-{version}"), &host).await {
                Ok((200, body)) if body.trim() == version => Ok(()),
                other => Err(other),
            }
        })
        .await;
    }
    host
}

fn load(host: &str, per_second: u32, keep_alive: bool) -> Load {
    let target = Target { address: ADDRESS.to_owned(), host: host.to_owned(), keep_alive };
    Load::start_to(target, per_second)
}

async fn sent(load: &Load, count: u64) -> Totals {
    eventually(PATIENCE, &format!("{count} requests were sent"), async || {
        let so_far = load.so_far();
        if so_far.requests >= count { Ok(so_far) } else { Err(so_far) }
    })
    .await
}

#[tokio::test]
async fn requests_are_split_by_the_weights() {
    let Some(env) = Env::get().await else { return };
    if !gateway_is_there().await {
        return;
    }
    let namespace = env.namespace("split").await;
    let host = two_versions(&namespace, [80, 20]).await;
    for keep_alive in [true, false] {
        let load = load(&host, 250, keep_alive);
        sent(&load, 1000).await;
        let totals = load.stop().await;
        assert!(totals.failed.is_empty() && totals.bad.is_empty(), "{totals:?}");
        assert_eq!(totals.by("1") + totals.by("2"), totals.requests, "{totals:?}");
        // Each request is a draw of its own: five standard deviations, exceeded once in 1.7 million runs.
        let requests = totals.requests as f64;
        let (share, deviation) = (totals.by("2") as f64 / requests, (0.2 * 0.8 / requests).sqrt());
        assert!((share - 0.2).abs() < 5.0 * deviation, "keep-alive {keep_alive}: {share} in {totals:?}");
    }
}

#[tokio::test]
async fn a_weight_of_zero_ends_it() {
    let Some(env) = Env::get().await else { return };
    if !gateway_is_there().await {
        return;
    }
    let namespace = env.namespace("zero").await;
    let host = two_versions(&namespace, [50, 50]).await;
    let load = load(&host, 200, true);
    sent(&load, 100).await;
    let zero = json!([
        {"op": "test", "path": "/spec/rules/0/backendRefs/1/weight", "value": 50},
        {"op": "replace", "path": "/spec/rules/0/backendRefs/1/weight", "value": 0},
    ]);
    let zero: json_patch::Patch = serde_json::from_value(zero).unwrap();
    let api = namespace.api(&env.admin, V1, "HTTPRoute");
    api.patch("web", &PatchParams::default(), &Patch::Json::<()>(zero)).await.unwrap();
    let written = belay::clock::now();
    taken_up(&namespace, "web").await;
    let told = belay::clock::now();
    // At 50 % the chance that 200 in a row miss it is none.
    let mut seen = load.so_far();
    eventually(PATIENCE, "the second version gets nothing", async || {
        let now = load.so_far();
        if now.by("2") != seen.by("2") {
            seen = now.clone();
        }
        if now.by("1") >= seen.by("1") + 200 { Ok(()) } else { Err(now) }
    })
    .await;
    let totals = load.stop().await;
    assert!(totals.failed.is_empty() && totals.bad.is_empty(), "{totals:?}");
    assert_eq!(totals.by("2"), seen.by("2"), "{totals:?}");
    let after = |t: Timestamp| totals.last["2"].duration_since(t).as_millis();
    eprintln!(
        "the last answer came {} ms after the write, {} ms after the status",
        after(written),
        after(told)
    );
}

#[tokio::test]
async fn the_resources_of_other_routers_are_there() {
    let Some(env) = Env::get().await else { return };
    if !gateway_is_there().await {
        return;
    }
    let namespace = env.namespace("routers").await;
    let weighted = |kind: &str| json!([{"name": "web-1", "port": 80, "kind": kind, "weight": 1}]);
    let routers = [
        (
            "gateway.networking.k8s.io/v1",
            "GRPCRoute",
            json!({"rules": [{"backendRefs": [{"name": "web-1", "port": 80, "weight": 80}]}]}),
            "/spec/rules/0/backendRefs/0/weight",
        ),
        (
            "networking.istio.io/v1",
            "VirtualService",
            json!({"hosts": ["web"], "http": [{"route": [{"destination": {"host": "web-1"}, "weight": 80}]}]}),
            "/spec/http/0/route/0/weight",
        ),
        (
            "networking.istio.io/v1",
            "DestinationRule",
            json!({"host": "web", "subsets": [{"name": "one", "labels": {"app": "web-1"}}]}),
            "/spec/subsets/0/name",
        ),
        (
            "traefik.io/v1alpha1",
            "TraefikService",
            json!({"weighted": {"services": weighted("Service")}}),
            "/spec/weighted/services/0/weight",
        ),
        (
            "traefik.io/v1alpha1",
            "IngressRoute",
            json!({"routes": [{"kind": "Rule", "match": "Host(`web`)", "services": weighted("TraefikService")}]}),
            "/spec/routes/0/services/0/weight",
        ),
        (
            "split.smi-spec.io/v1alpha4",
            "TrafficSplit",
            json!({"service": "web", "backends": [{"service": "web-1", "weight": 80}]}),
            "/spec/backends/0/weight",
        ),
    ];
    for (version, kind, spec, pointer) in routers {
        let object = json!({"apiVersion": version, "kind": kind, "metadata": {"name": "web"}, "spec": spec});
        let applied = namespace.apply(&env.admin, "tests", &object).await;
        let applied = serde_json::to_value(applied.unwrap_or_else(|e| panic!("{kind}: {e}"))).unwrap();
        // A field that the schema does not know would have been refused, or dropped.
        assert_eq!(applied.pointer(pointer), object.pointer(pointer), "{kind}");
        assert_eq!(text(&applied, "/metadata/name"), "web");
    }
}
