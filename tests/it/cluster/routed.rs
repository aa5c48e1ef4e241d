//! Releases whose traffic a router splits, on real Envoy, under load: kept connections and fresh ones.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::blue_green::borrowed;
use super::figures::{add, bench, figure, quantile};
use super::gateway::{ADDRESS, gateway_is_there, http_route, taken_up};
use super::hold::in_force;
use super::load::{Load, Target, Totals};
use super::releases::service;
use super::scene::{IMAGE, Plan, Scene, int, text, timeline, while_nothing_happens};
use super::{PATIENCE, deployment, eventually, resource};

pub const GATEWAY: &str = "gateway.networking.k8s.io/v1";

/// A workload, its Service and its route, with a load through the router and one past it.
pub struct Routed {
    pub scene: Scene,
    host: String,
    pub stable: Vec<String>,
    before: [Value; 2],
    loads: Vec<Load>,
}

pub fn plan(steps: &Value, bake: &str) -> Plan {
    Plan {
        replicas: 4,
        spec: json!({"strategy": {"canary": {
            "service": "web", "traffic": {"httpRoutes": [{"name": "web"}]}, "steps": steps, "bake": bake,
        }}}),
        // They go on serving while router and Service forget them.
        deployment: json!({"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 10}}}}),
        env: vec![("LINGER", "3s"), ("VERSION", "1")],
    }
}

impl Routed {
    /// None without a gateway.
    pub async fn start(purpose: &str, plan: Plan) -> Option<Self> {
        let scene = Scene::start(purpose, plan).await?;
        if !gateway_is_there().await {
            return None;
        }
        let address = service(&scene).await;
        let host = format!("{}.test", scene.namespace.name);
        let route = http_route(&host, &[("web", 1)]);
        scene.namespace.apply(&scene.namespace.env.admin, "platform", &route).await.unwrap();
        taken_up(&scene.namespace, "web").await;
        let before = [scene.get("v1", "Service", "web").await, scene.get(GATEWAY, "HTTPRoute", "web").await];
        let loads = vec![
            Load::start_to(through(&host, true), 60),
            Load::start_to(through(&host, false), 40),
            Load::start(&address, 20),
        ];
        let stable = scene.uids_of(&scene.stable().await).await;
        Some(Self { scene, host, stable, before, loads })
    }

    /// Changes the version.
    pub async fn change(&self, env: &[(&str, &str)]) {
        let all: Vec<(&str, &str)> = [("LINGER", "3s")].iter().chain(env).copied().collect();
        self.scene.set_env(&all).await;
    }

    /// Waits until users of the router have met a version so many times.
    pub async fn met(&self, version: &str, times: u64) {
        eventually(PATIENCE, &format!("version {version} is met"), async || {
            let met = self.loads[..2].iter().map(|load| load.so_far().by(version)).min().unwrap();
            if met >= times { Ok(()) } else { Err(met) }
        })
        .await;
    }

    /// What each load got, through the router with kept and with fresh connections, and past it.
    pub async fn stop(self) -> (Scene, Vec<Totals>) {
        let mut all = Vec::new();
        for load in self.loads {
            all.push(load.stop().await);
        }
        (self.scene, all)
    }

    /// The route and the Service are what they were, and nothing temporary is left.
    pub async fn assert_given_back(&self) {
        let scene = &self.scene;
        let after = [scene.get("v1", "Service", "web").await, scene.get(GATEWAY, "HTTPRoute", "web").await];
        for (before, after) in self.before.iter().zip(&after) {
            assert_eq!(borrowed(after), borrowed(before));
        }
        assert!(scene.get("v1", "Service", "web-canary").await.is_null());
    }
}

fn through(host: &str, keep_alive: bool) -> Target {
    Target { address: ADDRESS.to_owned(), host: host.to_owned(), keep_alive }
}

/// Nothing failed, and each load sent enough to tell.
pub fn assert_nothing_lost(totals: &[Totals]) {
    for totals in totals {
        add("traffic.requests", totals.requests as f64);
        add("traffic.failed_requests", (totals.unanswered() + totals.server_errors()) as f64);
        assert!(totals.failed.is_empty() && totals.bad.is_empty() && totals.requests > 100, "{totals:?}");
    }
}

#[tokio::test]
async fn a_good_version_gets_all_traffic_bakes_and_is_handed_over() {
    let steps = json!([{"weight": 10, "minDuration": "4s"}, {"weight": 50, "minDuration": "4s"}]);
    let Some(routed) = Routed::start("routed-good", plan(&steps, "6s")).await else { return };
    routed.change(&[("VERSION", "2")]).await;
    let scene = &routed.scene;
    let name = scene.new_release(0).await;
    let first = scene.release_where(&name, "at 10 %", |r| int(r, "/status/weight/reached") == 10).await;
    let canary = text(&first, "/spec/to/replicaSet");
    assert_eq!(scene.uids_of(&canary).await.len(), 1, "a quarter of the pods for a tenth of the traffic");
    let second = scene.release_where(&name, "at 50 %", |r| int(r, "/status/weight/reached") == 50).await;
    assert_eq!(int(&second, "/status/weight/canaryPods"), 2);
    scene.release_is(&name, "Baking").await;
    assert_eq!(scene.uids_of(&scene.stable().await).await, routed.stable, "the old version stands by");
    let tested = scene.uids_of(&canary).await;
    let release = scene.release_is(&name, "Promoted").await;
    assert_eq!(
        timeline(&release),
        [
            "ReleaseStarted",
            "StepPassed",
            "StepStarted 2",
            "StepPassed",
            "StepStarted 3",
            "StepPassed",
            "Promoting",
            "Promoted"
        ]
    );
    assert_eq!(scene.uids_of(&canary).await, tested, "the promoted pods are the tested pods");
    routed.assert_given_back().await;
    let (mut scene, totals) = routed.stop().await;
    assert_nothing_lost(&totals);
    assert!(totals[..2].iter().all(|t| t.by("2") > 20), "{totals:?}");
    scene.operator.assert_healthy().await;
}

#[tokio::test]
async fn an_abort_takes_the_weight_first_and_the_pods_after_it() {
    let steps = json!([{"weight": 20, "minDuration": "10m"}]);
    let Some(routed) = Routed::start("routed-back", plan(&steps, "10s")).await else { return };
    routed.change(&[("VERSION", "2")]).await;
    let scene = &routed.scene;
    let name = scene.new_release(0).await;
    scene.release_where(&name, "at 20 %", |r| int(r, "/status/weight/reached") == 20).await;
    routed.met("2", 20).await;
    scene.command(&name, json!({"verb": "abort", "reason": "not ours"})).await;
    let release = scene.release_is(&name, "RolledBack").await;
    assert_eq!(text(&release, "/status/reason"), "Aborted");
    routed.assert_given_back().await;
    assert_eq!(scene.uids_of(&scene.stable().await).await, routed.stable, "stable was never touched");
    assert!(scene.get("apps/v1", "ReplicaSet", &text(&release, "/spec/to/replicaSet")).await.is_null());
    let (mut scene, totals) = routed.stop().await;
    assert_nothing_lost(&totals);
    assert_eq!(totals[2].by("2"), 0, "who bypasses the router never meets the canary");
    scene.operator.assert_healthy().await;
}

/// What a GitOps tool does: it applies what is in its repository every two seconds, by force.
struct Gitops {
    wanted: Arc<Mutex<Vec<Value>>>,
    task: JoinHandle<()>,
}

impl Gitops {
    fn start(scene: &Scene, wanted: Vec<Value>) -> Self {
        let wanted = Arc::new(Mutex::new(wanted));
        let (name, env) = (scene.namespace.name.clone(), scene.namespace.env.clone());
        let shared = wanted.clone();
        let task = tokio::spawn(async move {
            let params = PatchParams::apply("gitops").force();
            loop {
                let all = shared.lock().unwrap().clone();
                for object in all {
                    let (version, kind) = (text(&object, "/apiVersion"), text(&object, "/kind"));
                    let api: Api<DynamicObject> =
                        Api::namespaced_with(env.admin.clone(), &name, &resource(&version, &kind));
                    api.patch("web", &params, &Patch::Apply(&object)).await.unwrap();
                }
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
        });
        Self { wanted, task }
    }

    /// A commit: the workload's environment.
    fn commit(&self, env: &[(&str, &str)]) {
        let env: Vec<Value> = env.iter().map(|(n, v)| json!({"name": n, "value": v})).collect();
        let mut wanted = self.wanted.lock().unwrap();
        let workload = wanted.iter_mut().find(|o| o["kind"] == "Deployment").unwrap();
        workload["spec"]["template"]["spec"]["containers"][0]["env"] = json!(env);
    }
}

#[tokio::test]
async fn a_gitops_writer_does_not_get_between() {
    let steps = json!([{"weight": 20, "minDuration": "6s"}]);
    let plan = plan(&steps, "4s");
    let mut workload = deployment("web", plan.replicas, IMAGE);
    json_patch::merge(&mut workload, &plan.deployment);
    let Some(routed) = Routed::start("routed-gitops", plan).await else { return };
    in_force(&routed.scene.namespace).await;
    let scene = &routed.scene;
    let mut service = scene.get("v1", "Service", "web").await;
    service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"selector": service["spec"]["selector"], "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
    });
    let route = http_route(&routed.host, &[("web", 1)]);
    let gitops = Gitops::start(scene, vec![route, service, workload]);
    gitops.commit(&[("LINGER", "3s"), ("VERSION", "2")]);
    let good = scene.new_release(0).await;
    let release = scene.release_is(&good, "Promoted").await;
    assert!(int(&release, "/status/traffic/heldWrites") > 0, "{}", release["status"]["traffic"]);

    gitops.commit(&[("LINGER", "3s"), ("VERSION", "3"), ("CRASH", "8s")]);
    let bad = scene.new_release(1).await;
    let release = scene.release_is(&bad, "RolledBack").await;
    assert_eq!(text(&release, "/status/reason"), "CanaryCrashed");

    gitops.commit(&[("LINGER", "3s"), ("VERSION", "4")]);
    let overtaken = scene.new_release(2).await;
    scene.release_where(&overtaken, "at 20 %", |r| int(r, "/status/weight/reached") == 20).await;
    gitops.commit(&[("LINGER", "3s"), ("VERSION", "5")]);
    scene.release_is(&overtaken, "Superseded").await;
    let last = scene.new_release(3).await;
    scene.release_is(&last, "Promoted").await;
    // What is in the repository is what is in the cluster: applying it again changes nothing.
    let all = || async {
        let (service, route) =
            (scene.get("v1", "Service", "web").await, scene.get(GATEWAY, "HTTPRoute", "web").await);
        [&service, &route].map(|o| json!([o["spec"], o["metadata"]["labels"], o["metadata"]["annotations"]]))
    };
    assert_eq!(
        routed.before.each_ref().map(|o| json!([
            o["spec"],
            o["metadata"]["labels"],
            o["metadata"]["annotations"]
        ])),
        all().await
    );
    let versions = || async {
        let mut versions = Vec::new();
        for (api, kind) in [("v1", "Service"), (GATEWAY, "HTTPRoute"), ("apps/v1", "Deployment")] {
            versions.push(int(&scene.get(api, kind, "web").await, "/metadata/generation"));
        }
        versions
    };
    let before = versions().await;
    while_nothing_happens(5).await;
    assert_eq!(versions().await, before);
    gitops.task.abort();
    let (mut scene, totals) = routed.stop().await;
    // The bad version crashes with requests in hand.
    for totals in &totals {
        assert!(totals.unanswered() + totals.server_errors() <= 40, "{totals:?}");
    }
    scene.operator.assert_healthy().await;
}

/// Two-sided, at 0.1 %: a right split is beyond it once in a thousand draws of each weight.
const QUANTILE: f64 = 3.291;

#[tokio::test]
async fn the_measured_split_is_the_weight_that_was_asked_for() {
    let weights = [10, 25, 60];
    let steps: Vec<Value> =
        weights.iter().map(|w| json!({"weight": w, "minDuration": "1s", "pause": true})).collect();
    let Some(routed) = Routed::start("routed-split", plan(&json!(steps), "1s")).await else { return };
    routed.change(&[("VERSION", "2")]).await;
    let scene = &routed.scene;
    let name = scene.new_release(0).await;
    for (index, weight) in weights.into_iter().enumerate() {
        scene
            .release_where(&name, &format!("at {weight} % for a while"), |r| {
                int(r, "/status/weight/reached") == weight && r.pointer("/status/step/runningSince").is_some()
            })
            .await;
        let load = Load::start_to(through(&routed.host, index % 2 == 0), 250);
        let share = f64::from(u32::try_from(weight).unwrap()) / 100.0;
        eventually(PATIENCE, "5,000 requests were sent", async || {
            let sent = load.so_far().requests;
            if sent >= 5000 { Ok(()) } else { Err(sent) }
        })
        .await;
        let totals = load.stop().await;
        let (sent, met) = (totals.requests as f64, totals.by("2") as f64);
        let deviation = (sent * share * (1.0 - share)).sqrt();
        let z = (met - sent * share) / deviation;
        eprintln!("{weight} %: {met} of {sent} requests, {z:.2} standard deviations off");
        assert!(z.abs() <= QUANTILE, "{weight} %: {totals:?}");
        assert_nothing_lost(&[totals]);
        scene.command(&name, json!({"verb": "promote", "step": index + 1})).await;
    }
    scene.release_is(&name, "Promoted").await;
    routed.assert_given_back().await;
    let (mut scene, totals) = routed.stop().await;
    assert_nothing_lost(&totals);
    scene.operator.assert_healthy().await;
}

/// When the operator decided to take the traffic away, and how long the write took, as it says itself.
fn taken_away(scene: &Scene, release: &str) -> (Timestamp, f64) {
    let lines = scene.operator.logged("the canary's traffic is gone");
    let lines = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let of: Vec<Value> = lines.filter(|line| line["fields"]["release"] == release).collect();
    assert_eq!(of.len(), 1, "one write takes the traffic away: {of:?}");
    let (written, took) = (text(&of[0], "/timestamp"), of[0]["fields"]["reaction_seconds"].as_f64().unwrap());
    let written: Timestamp = written.parse().unwrap();
    (written - SignedDuration::from_secs_f64(took), took)
}

#[tokio::test]
async fn a_rollback_at_any_step_loses_nothing() {
    let steps = json!([
        {"weight": 10, "minDuration": "1s", "pause": true}, {"weight": 50, "minDuration": "1s", "pause": true},
    ]);
    let Some(routed) = Routed::start("routed-any", plan(&steps, "10m")).await else { return };
    let rounds = if bench().is_some() { 4 } else { 1 };
    let scene = &routed.scene;
    let (mut writes, mut silences) = (Vec::new(), Vec::new());
    for (round, depth) in (0..rounds * 3).map(|n| (n, n % 3)) {
        let version = format!("2-{round}");
        routed.change(&[("VERSION", &version)]).await;
        let name = scene.new_release(round).await;
        for passed in 0..=depth {
            let weight = [10, 50, 100][passed];
            scene.release_where(&name, "at its weight", |r| int(r, "/status/weight/reached") == weight).await;
            if passed < depth {
                scene.command(&name, json!({"verb": "promote", "step": passed + 1})).await;
            }
        }
        routed.met(&version, 20).await;
        scene.command(&name, json!({"verb": "abort", "reason": "at any step"})).await;
        scene.release_is(&name, "RolledBack").await;
        routed.assert_given_back().await;
        let (decided, took) = taken_away(scene, &name);
        let last = routed.loads[..2].iter().filter_map(|load| load.so_far().last.get(&version).copied());
        let silence = last.max().unwrap().duration_since(decided).as_secs_f64().max(0.0);
        eprintln!("at step {}: written after {took:.3} s, silent after {silence:.3} s", depth + 1);
        writes.push(took);
        silences.push(silence);
        assert_eq!(scene.uids_of(&scene.stable().await).await, routed.stable, "stable was never touched");
    }
    let (mut scene, totals) = routed.stop().await;
    assert_nothing_lost(&totals);
    assert!(totals[2].answered.keys().all(|v| v == "1"), "who bypasses the router never meets a canary");
    for (name, values) in [
        ("traffic.decision_to_route_write_s.p99", &mut writes),
        ("traffic.decision_to_silence_s.p99", &mut silences),
    ] {
        values.sort_by(f64::total_cmp);
        figure(name, quantile(values, 99));
    }
    scene.operator.assert_healthy().await;
}
