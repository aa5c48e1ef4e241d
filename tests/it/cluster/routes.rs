//! The examples with traffic, run as their headers say. Of the routers that have no data plane here, the routes are
//! watched: before, while they are split, and after a promotion and after an abort, on a real API server.

use serde_json::{Value, json};

use super::blue_green::borrowed;
use super::examples::{Example, run_as};
use super::gateway::{ADDRESS, gateway_is_there};
use super::load::{get, version_for};
use super::scene::{Scene, text, timeline};
use super::{PATIENCE, eventually};

/// A route by version, kind and name.
type Route = (&'static str, &'static str, &'static str);

const GATEWAY: &str = "gateway.networking.k8s.io/v1";
const INGRESS: &str = "networking.k8s.io/v1";

/// An example whose routes are looked at.
struct Routed {
    example: Example,
    routes: &'static [Route],
    before: Vec<Value>,
}

impl Routed {
    /// Applies the file. None without a cluster, or without the custom resources of the routers.
    async fn start(file: &str, routes: &'static [Route]) -> Option<Self> {
        if routes.iter().any(|(version, ..)| *version != INGRESS) && !gateway_is_there().await {
            return None;
        }
        let example = Example::start(file, |yaml| yaml).await?;
        assert_init_finds_it(&example).await;
        let before = Self::look(&example, routes).await;
        Some(Self { example, routes, before })
    }

    /// All that is borrowed, or may be: Services first, then the routes.
    async fn look(example: &Example, routes: &[Route]) -> Vec<Value> {
        let mut all = vec![borrowed(&example.scene.get("v1", "Service", "web").await)];
        for (version, kind, name) in routes {
            all.push(borrowed(&example.scene.get(version, kind, name).await));
        }
        all
    }

    /// The object now.
    async fn route(&self, index: usize) -> Value {
        let (version, kind, name) = self.routes[index];
        self.example.scene.get(version, kind, name).await
    }

    /// The first lines of the header: a release that waits at 20 %, and says so.
    async fn release(&mut self) -> Value {
        self.example.next("release").await;
        let held = self.waits_for_a_person().await;
        let said = self.example.next("status").await;
        assert!(
            said.contains("20 % of the traffic, of 20 % wanted (1 canary pod beside 2 stable)"),
            "{said}"
        );
        assert!(said.contains("the canary is behind web-canary"), "{said}");
        held
    }

    /// The release of the Deployment's present template, once it waits for a person.
    async fn waits_for_a_person(&self) -> Value {
        let name = text(&self.example.scene.releases().await.pop().unwrap_or_default(), "/metadata/name");
        let name = if name.is_empty() { self.example.scene.new_release(0).await } else { name };
        self.example
            .scene
            .release_where(&name, "waits for a person", |r| text(r, "/status/reason") == "AwaitingApproval")
            .await
    }

    /// The last lines of the header: to the end. Then everything is as it was.
    async fn promote(&mut self) {
        self.example.next("approve").await;
        let said = self.example.next("status").await;
        assert!(said.contains("Promoted after"), "{said}");
        self.assert_as_before().await;
    }

    /// Another version, which gets its share and is taken back. Then everything is as it was.
    async fn abort(self, split: impl AsyncFn(&Self)) {
        let scene = &self.example.scene;
        scene.set_env(&[("VERSION", "3")]).await;
        let name = scene.new_release(1).await;
        scene
            .release_where(&name, "waits for a person", |r| text(r, "/status/reason") == "AwaitingApproval")
            .await;
        split(&self).await;
        scene.command(&name, json!({"verb": "abort"})).await;
        scene.release_is(&name, "RolledBack").await;
        self.assert_as_before().await;
        self.example.ends("RolledBack").await;
    }

    async fn assert_as_before(&self) {
        let after = Self::look(&self.example, self.routes).await;
        for (before, after) in self.before.iter().zip(&after) {
            assert_eq!(after, before);
        }
        assert!(self.example.scene.get("v1", "Service", "web-canary").await.is_null());
    }

    /// Runs the whole of it, with what the routes are while they are split; then a second version, which is taken back.
    async fn there_and_back(self, split: impl AsyncFn(&Self)) {
        let routed = self.there(&split).await;
        routed.abort(split).await;
    }

    /// Runs the whole of it, with what the routes are while they are split.
    async fn all_the_way(self, split: impl AsyncFn(&Self)) {
        self.there(split).await.example.ends("Promoted").await;
    }

    async fn there(mut self, split: impl AsyncFn(&Self)) -> Self {
        self.release().await;
        split(&self).await;
        let pinned = self.example.scene.get("v1", "Service", "web").await;
        assert_eq!(
            pinned["spec"]["selector"]["pod-template-hash"].as_str().map(str::is_empty),
            Some(false),
            "who bypasses the router meets the old version only: {pinned}"
        );
        self.promote().await;
        self
    }
}

/// `init` finds by itself the routes that the example names.
async fn assert_init_finds_it(example: &Example) {
    let own = example.scene.rollout().await["spec"]["strategy"].clone();
    let (field, strategy) =
        if own["blueGreen"].is_object() { ("blueGreen", "blue-green") } else { ("canary", "auto") };
    let namespace = example.scene.namespace.name.clone();
    let args = ["init", "web", "--strategy", strategy, "-n", &namespace, "-q"];
    let (code, said) = run_as("admin", "belay", &args).await;
    assert_eq!(code, 0, "{said}");
    let written: Value = serde_saphyr::from_str(&said).unwrap();
    assert_eq!(written["spec"]["strategy"][field]["traffic"], own[field]["traffic"], "{said}");
    let lint = run_as("admin", "sh", &["-c", &format!("belay {} | belay lint -", args.join(" "))]).await;
    assert_eq!(lint.0, 0, "{}", lint.1);
}

/// A part of an object.
fn part(object: &Value, pointer: &str) -> Value {
    object.pointer(pointer).cloned().unwrap_or_default()
}

#[tokio::test]
async fn an_http_route() {
    let ways = &[(GATEWAY, "HTTPRoute", "web")];
    let Some(routed) = Routed::start("routed-httproute.yaml", ways).await else { return };
    let backend =
        |name, weight| json!({"group": "", "kind": "Service", "name": name, "port": 80, "weight": weight});
    routed
        .there_and_back(async |routed| {
            let list = part(&routed.route(0).await, "/spec/rules/0/backendRefs");
            assert_eq!(list, json!([backend("web", 80), backend("web-canary", 20)]));
        })
        .await;
}

#[tokio::test]
async fn a_grpc_route() {
    let ways = &[(GATEWAY, "GRPCRoute", "web")];
    let Some(routed) = Routed::start("routed-grpcroute.yaml", ways).await else { return };
    let backend =
        |name, weight| json!({"group": "", "kind": "Service", "name": name, "port": 80, "weight": weight});
    routed
        .all_the_way(async |routed| {
            let route = routed.route(0).await;
            let list = part(&route, "/spec/rules/0/backendRefs");
            assert_eq!(list, json!([backend("web", 80), backend("web-canary", 20)]));
            assert_eq!(part(&route, "/spec/rules/1/backendRefs"), json!([backend("health", 1)]));
        })
        .await;
}

#[tokio::test]
async fn a_virtual_service() {
    let ways = &[("networking.istio.io/v1", "VirtualService", "web")];
    let Some(routed) = Routed::start("routed-istio.yaml", ways).await else { return };
    let to = |host, weight| json!({"destination": {"host": host, "port": {"number": 80}}, "weight": weight});
    routed
        .all_the_way(async |routed| {
            let rule = part(&routed.route(0).await, "/spec/http/0");
            assert_eq!(rule, json!({"timeout": "5s", "route": [to("web", 80), to("web-canary", 20)]}));
        })
        .await;
}

#[tokio::test]
async fn an_ingress_of_nginx() {
    let ways = &[(INGRESS, "Ingress", "web"), (INGRESS, "Ingress", "web-web-canary")];
    let Some(routed) = Routed::start("routed-nginx.yaml", ways).await else { return };
    routed
        .there_and_back(async |routed| {
            assert_eq!(borrowed(&routed.route(0).await), routed.before[1], "the owner's Ingress stays");
            let companion = routed.route(1).await;
            let note = |name: &str| {
                companion["metadata"]["annotations"][format!("nginx.ingress.kubernetes.io/{name}")].clone()
            };
            assert_eq!((note("canary"), note("canary-weight")), (json!("true"), json!("20")), "{companion}");
            let rule = part(&companion, "/spec/rules/0");
            assert_eq!(rule["host"], "shop.example");
            assert_eq!(part(&rule, "/http/paths/0/backend/service/name"), "web-canary");
            assert_eq!(part(&companion, "/spec/ingressClassName"), "nginx");
        })
        .await;
}

#[tokio::test]
async fn both_forms_of_traefik() {
    const TRAEFIK: &str = "traefik.io/v1alpha1";
    let ways = &[(TRAEFIK, "IngressRoute", "web"), (TRAEFIK, "TraefikService", "weighted")];
    let Some(routed) = Routed::start("routed-traefik.yaml", ways).await else { return };
    let service = |name, weight| json!({"name": name, "port": 80, "weight": weight});
    let both = json!([service("web", 80), service("web-canary", 20)]);
    routed
        .all_the_way(async |routed| {
            let route = routed.route(0).await;
            assert_eq!(part(&route, "/spec/routes/0/services"), both);
            let other = json!([{"kind": "TraefikService", "name": "weighted"}]);
            assert_eq!(part(&route, "/spec/routes/1/services"), other);
            assert_eq!(part(&routed.route(1).await, "/spec/weighted/services"), both);
        })
        .await;
}

#[tokio::test]
async fn an_ingress_of_the_aws_load_balancer() {
    let ways = &[(INGRESS, "Ingress", "web")];
    let Some(routed) = Routed::start("routed-alb.yaml", ways).await else { return };
    routed
        .there_and_back(async |routed| {
            let route = routed.route(0).await;
            let action = text(&route, "/metadata/annotations/alb.ingress.kubernetes.io~1actions.split");
            let action: Value = serde_json::from_str(&action).unwrap();
            let group = |name, weight| json!({"serviceName": name, "servicePort": 80, "weight": weight});
            let groups = json!([group("web", 80), group("web-canary", 20)]);
            assert_eq!(part(&action, "/forwardConfig/targetGroups"), groups);
            assert_eq!(route["spec"], routed.before[1]["spec"]);
        })
        .await;
}

#[tokio::test]
async fn a_traffic_split() {
    let ways = &[("split.smi-spec.io/v1alpha4", "TrafficSplit", "web")];
    let Some(routed) = Routed::start("routed-smi.yaml", ways).await else { return };
    let backend = |name, weight| json!({"service": name, "weight": weight});
    routed
        .all_the_way(async |routed| {
            let spec = part(&routed.route(0).await, "/spec");
            let backends = json!([backend("web", 80), backend("web-canary", 20)]);
            assert_eq!(spec, json!({"service": "web", "backends": backends}));
        })
        .await;
}

/// Waits until so many requests in a row are answered by a version.
async fn answered(version: &str, ask: impl AsyncFn() -> Result<String, String>) {
    eventually(PATIENCE, &format!("answers of version {version}"), async || {
        for _ in 0..20 {
            let by = ask().await?;
            if by != version {
                return Err(by);
            }
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn chosen_users_meet_the_new_version() {
    let ways = &[(GATEWAY, "HTTPRoute", "web")];
    let Some(mut routed) = Routed::start("ab-test.yaml", ways).await else { return };
    routed.example.next("release").await;
    routed.waits_for_a_person().await;
    let said = routed.example.next("status").await;
    let chosen = "requests with header x-beta=yes, or cookie beta=yes all go to the new version";
    assert!(said.contains(chosen), "{said}");
    let with =
        |header: (&'static str, &'static str)| async move || version_for(ADDRESS, "ab.example", header).await;
    answered("2", with(("x-beta", "yes"))).await;
    answered("2", with(("cookie", "a=b; beta=yes"))).await;
    // One in a hundred of the others: twenty in a row miss it at once or soon.
    answered("1", with(("x-beta", "no"))).await;
    routed.promote().await;
    routed.example.ends("Promoted").await;
}

/// Waits until the Service at an address is answered by one version alone.
async fn behind(example: &Example, service: &str, version: &str) {
    let ip = text(&example.scene.get("v1", "Service", service).await, "/spec/clusterIP");
    answered(version, async || {
        let (_, body) = get(&format!("{ip}:80"), "/", "test").await?;
        Ok(body.lines().next().unwrap_or_default().to_owned())
    })
    .await;
}

#[tokio::test]
async fn blue_green() {
    let Some(mut example) = Example::start("blue-green.yaml", |yaml| yaml).await else { return };
    let services = async |example: &Example| {
        let [web, preview] = ["web", "web-preview"].map(|name| example.scene.get("v1", "Service", name));
        [borrowed(&web.await), borrowed(&preview.await)]
    };
    let before = services(&example).await;
    example.next("release").await;
    example.release_where("it waits for a person", |r| text(r, "/status/reason") == "AwaitingApproval").await;
    let said = example.next("status").await;
    assert!(said.contains("1/2 (preview)") && said.contains("looked at without users"), "{said}");
    behind(&example, "web-preview", "2").await;
    behind(&example, "web", "1").await;
    example.next("approve").await;
    example.next("status").await;
    assert_eq!(services(&example).await, before);
    let release = example.ends("Promoted").await;
    assert!(timeline(&release).contains(&"StepStarted 2".to_owned()), "{:?}", timeline(&release));
}

#[tokio::test]
async fn blue_green_through_a_route() {
    let ways = &[(GATEWAY, "HTTPRoute", "web")];
    let Some(mut routed) = Routed::start("blue-green-route.yaml", ways).await else { return };
    routed.example.next("release").await;
    routed.waits_for_a_person().await;
    let said = routed.example.next("status").await;
    assert!(said.contains("1/2 (preview)") && said.contains("looked at without users"), "{said}");
    let backend =
        |name, weight| json!({"group": "", "kind": "Service", "name": name, "port": 80, "weight": weight});
    let list = part(&routed.route(0).await, "/spec/rules/0/backendRefs");
    assert_eq!(list, json!([backend("web", 1), backend("web-canary", 0)]));
    answered("1", async || version_for(ADDRESS, "blue-green.example", ("x-beta", "no")).await).await;
    routed.promote().await;
    routed.example.ends("Promoted").await;
}

/// Who may not list a router's routes is told so, and gets a Rollout that goes by pods.
async fn assert_init_tells_what_it_may_not_see(scene: &Scene) {
    let rule = |group: &str, resource: &str| json!({"apiGroups": [group], "resources": [resource], "verbs": ["get", "list"]});
    let rules =
        [rule("apps", "deployments"), rule("", "services"), rule("autoscaling", "horizontalpodautoscalers")];
    let reader = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "reader"}, "rules": rules,
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "nobody-reads"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "nobody"}],
    });
    for object in [reader, binding] {
        scene.namespace.apply(&scene.namespace.env.admin, "tests", &object).await.unwrap();
    }
    eventually(PATIENCE, "init says what it may not see", async || {
        let (code, said) = run_as("nobody", "belay", &["init", "web", "-n", &scene.namespace.name]).await;
        let told = said.lines().find(|line| line.starts_with("# Not looked for")).unwrap_or_default();
        if code == 0 && told.contains("HTTPRoute") && !said.contains("traffic:") { Ok(()) } else { Err(said) }
    })
    .await;
}

/// What `doctor` says of a Rollout, as a person of the namespace sees it.
#[tokio::test]
async fn the_doctor_names_what_a_release_would_stumble_over() {
    let ways = &[(GATEWAY, "HTTPRoute", "web")];
    let Some(routed) = Routed::start("routed-httproute.yaml", ways).await else { return };
    let scene = &routed.example.scene;
    let namespace = scene.namespace.name.clone();
    let says = async |result: &str, words: &str| {
        eventually(PATIENCE, words, async || {
            let (_, said) = run_as("admin", "belay", &["doctor", "-n", &namespace, "-o", "json"]).await;
            let report: Value = serde_json::from_str(&said).unwrap_or_default();
            let all = report["checks"].as_array().cloned().unwrap_or_default();
            let found = all.iter().find(|check| text(check, "/detail").contains(words));
            match found {
                Some(check) if check["result"] == result => Ok(check.clone()),
                _ => Err(said),
            }
        })
        .await
    };
    assert_init_tells_what_it_may_not_see(scene).await;
    says("ok", "Service web selects its pods").await;
    says("ok", &format!("HTTPRoute {namespace}/web can be split, and its router has taken it up")).await;
    says("ok", "may change its Services and routes").await;
    says("ok", "other writers are kept from what a release borrows").await;

    let admin = &scene.namespace.env.admin;
    let taken = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web-canary"},
        "spec": {"selector": {"app": "other"}, "ports": [{"port": 80}]}});
    scene.namespace.apply(admin, "tests", &taken).await.unwrap();
    says("broken", "a Service web-canary is there already").await;
    let pin = json!({"spec": {"selector": {"pod-template-hash": "0123456789"}}});
    scene.merge("v1", "Service", "web", &pin).await.unwrap();
    let pinned = says("broken", "selects one revision by pod-template-hash").await;
    assert!(
        text(&pinned, "/cure").contains(r#""op":"remove","path":"/spec/selector/pod-template-hash""#),
        "{pinned}"
    );
    let mut route = routed.route(0).await;
    route["spec"]["rules"][0]["backendRefs"][0]["name"] = json!("another");
    for field in ["managedFields", "resourceVersion"] {
        route["metadata"].as_object_mut().unwrap().remove(field);
    }
    scene.namespace.apply(admin, "tests", &route).await.unwrap();
    says("broken", "no rule sends traffic to the Service web").await;
    scene.delete(GATEWAY, "HTTPRoute", "web").await;
    says("broken", &format!("HTTPRoute {namespace}/web does not exist")).await;
}
