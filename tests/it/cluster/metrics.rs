//! Guards on real numbers: the pods' own pages, a real Prometheus, and sources that fail in every way.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use serde_json::{Value, json};

use super::load::Load;
use super::record::Recorder;
use super::scene::{Plan, Scene, brief, int, text, while_nothing_happens};
use super::{PATIENCE, eventually};

fn guarded(metrics: &Value, more: &Value) -> Plan {
    let mut analysis = json!({
        "interval": "1s", "warmUp": "1s", "metrics": metrics,
        "guards": [{"name": "errors", "ratio": {
            "bad": {"metric": "http_requests_total", "match": "code=~\"5..\""},
            "total": {"metric": "http_requests_total"},
            "tolerate": "1.5x + 5%",
        }}],
    });
    json_patch::merge(&mut analysis, more);
    let spec = json!({
        "strategy": {"canary": {"steps": [{"weight": 50, "minDuration": "2s", "maxDuration": "60s"}]}},
        "analysis": analysis,
    });
    let annotations = json!({"prometheus.io/scrape": "true", "prometheus.io/port": "8080", "prometheus.io/path": "/metrics"});
    let deployment = json!({"spec": {"template": {"metadata": {"annotations": annotations}}}});
    Plan { replicas: 2, spec, deployment, env: Vec::new() }
}

fn pods() -> Value {
    json!({"pods": {"port": 8080}})
}

/// A Service before the pods, and a load on it.
async fn loaded(scene: &Scene) -> Load {
    let address = super::releases::service(scene).await;
    Load::start(&address, 80)
}

async fn bad_is_caught(purpose: &str, metrics: Value) {
    let Some(mut scene) = Scene::start(purpose, guarded(&metrics, &json!({}))).await else { return };
    let load = loaded(&scene).await;
    let stable = scene.stable().await;
    let uids = scene.uids_of(&stable).await;
    let recorder = Recorder::start(&scene.namespace).await;
    scene.set_env(&[("VERSION", "2"), ("ERROR_RATE", "0.3")]).await;
    let name = scene.new_release(0).await;
    let release = scene.release_is(&name, "RolledBack").await;
    assert_eq!(text(&release, "/status/reason"), "GuardFailed", "{}", brief(&release));
    eprintln!("{}", text(&release, "/status/message"));
    recorder.assert_untouched(&uids, None);
    let totals = load.stop().await;
    assert!(totals.bad.keys().all(|v| v != "1"), "{totals:?}");
    scene.operator.assert_healthy().await;
}

async fn good_is_proven(purpose: &str, metrics: Value) {
    let Some(mut scene) = Scene::start(purpose, guarded(&metrics, &json!({}))).await else { return };
    let load = loaded(&scene).await;
    scene.set_env(&[("VERSION", "2")]).await;
    let name = scene.new_release(0).await;
    let release = scene.release_is(&name, "Promoted").await;
    let way = release["status"]["timeline"].to_string();
    assert!(way.contains("prove"), "{way}");
    load.stop().await;
    scene.operator.assert_healthy().await;
}

fn prometheus() -> Value {
    json!({"prometheus": {"url": "http://10.99.0.2:9090"}})
}

#[tokio::test]
async fn a_bad_version_is_caught_by_its_pods_pages() {
    bad_is_caught("podsbad", pods()).await;
}

#[tokio::test]
async fn a_good_version_is_proven_by_its_pods_pages() {
    good_is_proven("podsgood", pods()).await;
}

#[tokio::test]
async fn a_bad_version_is_caught_by_prometheus() {
    if prometheus_is_there().await {
        bad_is_caught("prombad", prometheus()).await;
    }
}

#[tokio::test]
async fn a_good_version_is_proven_by_prometheus() {
    if prometheus_is_there().await {
        good_is_proven("promgood", prometheus()).await;
    }
}

async fn prometheus_is_there() -> bool {
    let there =
        super::load::get("10.99.0.2:9090", "/-/ready", "prometheus").await.is_ok_and(|(s, _)| s == 200);
    if !there {
        eprintln!("SKIPPED: no Prometheus at 10.99.0.2:9090; start the cluster with --with-prometheus");
    }
    there
}

#[tokio::test]
async fn without_numbers_it_neither_promotes_nor_rolls_back() {
    let mut plan = guarded(&pods(), &json!({}));
    plan.env = vec![("METRICS", "off")];
    let Some(mut scene) = Scene::start("nodata", plan).await else { return };
    scene.set_env(&[("VERSION", "2")]).await;
    let name = scene.new_release(0).await;
    no_data(&scene, &name).await;
    while_nothing_happens(8).await;
    let release = scene.release(&name).await;
    assert_eq!(text(&release, "/status/reason"), "NoData", "{}", brief(&release));
    assert_eq!(int(&release, "/status/step/index"), 0);
    assert!(release.pointer("/status/step/runningSince").is_none(), "its clock stands");
    let told = scene.events(&name).await;
    let held = told.iter().filter(|(reason, ..)| reason == "Held").count();
    assert_eq!(held, 1, "told once: {told:?}");
    scene.operator.assert_healthy().await;
}

#[tokio::test]
async fn without_numbers_it_rolls_back_after_the_bound_that_was_set() {
    let bound = json!({"onNoData": {"after": "4s", "then": "rollback"}});
    let mut plan = guarded(&pods(), &bound);
    plan.env = vec![("METRICS", "off")];
    let Some(mut scene) = Scene::start("bound", plan).await else { return };
    scene.set_env(&[("VERSION", "2")]).await;
    let name = scene.new_release(0).await;
    let release = scene.release_is(&name, "RolledBack").await;
    assert_eq!(text(&release, "/status/reason"), "NoData", "{}", brief(&release));
    let message = text(&release, "/status/message");
    assert!(
        message.starts_with("no data from the metrics source for longer than onNoData.after: "),
        "{message}"
    );
    scene.operator.assert_healthy().await;
}

/// Waits until a release is held for want of data, and returns what it says.
async fn no_data(scene: &Scene, name: &str) -> String {
    let release = scene.release_where(name, "no data", |r| text(r, "/status/reason") == "NoData").await;
    text(&release, "/status/message")
}

#[tokio::test]
async fn pages_that_are_no_metrics_hold_and_say_why() {
    let Some(mut scene) = Scene::start("pages", guarded(&pods(), &json!({}))).await else { return };
    let load = loaded(&scene).await;
    for (round, page) in ["html", "huge", "nan", "error", "slow"].into_iter().enumerate() {
        scene.set_env(&[("VERSION", &format!("2-{page}")), ("METRICS", page)]).await;
        let name = scene.new_release(round).await;
        no_data(&scene, &name).await;
        let told = if page == "nan" { "is NaN" } else { "no canary pod could be measured" };
        // The first look may come before the pod's first request, when there is no series yet to be wrong.
        let says = |r: &Value| text(r, "/status/message").contains(told);
        scene.release_where(&name, &format!("{page}: {told}"), says).await;
        scene.operator.assert_healthy().await;
    }
    scene.set_env(&[("VERSION", "3"), ("METRICS", "on")]).await;
    let name = scene.new_release(5).await;
    scene.release_is(&name, "Promoted").await;
    load.stop().await;
    scene.operator.assert_healthy().await;
}

/// A server that pretends to be Prometheus.
#[derive(Clone)]
struct Fake {
    mode: Arc<Mutex<&'static str>>,
    pods: Arc<Mutex<Vec<String>>>,
    started: Instant,
}

async fn fake_answer(State(fake): State<Fake>) -> Response {
    let mode = *fake.mode.lock().unwrap();
    let answer =
        |status: u16, body: String| Response::builder().status(status).body(Body::from(body)).unwrap();
    let vector = |value: &dyn Fn(u32) -> String| {
        let now = belay::clock::now().as_second();
        let shift = match mode {
            "past" => -3600,
            "future" => 3600,
            _ => 0,
        };
        let other = if mode == "other" { "x" } else { "" };
        let pods = fake.pods.lock().unwrap().clone();
        let asked = now + shift;
        let sampled = (asked - if mode == "stale" { 3600 } else { 1 }).to_string();
        let series: Vec<Value> = (0..).zip(&pods).flat_map(|(i, pod)| {
            let pod = format!("{pod}{other}");
            [
                json!({"metric": {"__name__": "http_requests_total", "pod": pod, "code": "200"}, "value": [asked, value(i)]}),
                json!({"metric": {"belay_sampled": "at", "pod": pod}, "value": [asked, sampled]}),
            ]
        }).collect();
        json!({"status": "success", "data": {"resultType": "vector", "result": series}}).to_string()
    };
    match mode {
        "500" => answer(500, "overloaded".to_owned()),
        "html" => answer(200, "<html>sign in</html>".to_owned()),
        "huge" => answer(200, " ".repeat(10 << 20)),
        "nan" => answer(200, vector(&|_| "NaN".to_owned())),
        "infinite" => answer(200, vector(&|_| "+Inf".to_owned())),
        "negative" => answer(200, vector(&|_| "-5".to_owned())),
        "empty" => answer(
            200,
            json!({"status": "success", "data": {"resultType": "vector", "result": []}}).to_string(),
        ),
        "silent" => {
            tokio::time::sleep(Duration::from_secs(60)).await;
            answer(200, String::new())
        }
        _ => answer(200, vector(&|i| (fake.started.elapsed().as_secs() * 40 + u64::from(i)).to_string())),
    }
}

#[tokio::test]
async fn a_metrics_server_that_fails_in_any_way_holds_until_it_is_back() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let fake = Fake { mode: Arc::new(Mutex::new("500")), pods: Arc::default(), started: Instant::now() };
    let router = Router::new().fallback(fake_answer).with_state(fake.clone());
    let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let metrics = json!({"prometheus": {"url": url}});
    let mut plan = guarded(&metrics, &json!({}));
    // No errors are counted: all series are bad only if the guard says so.
    plan.spec["analysis"]["guards"][0]["ratio"]["bad"] = json!({"metric": "http_errors_total"});
    let Some(mut scene) = Scene::start("fake", plan).await else { return };
    scene.set_env(&[("VERSION", "2")]).await;
    let name = scene.new_release(0).await;
    let ways = [
        ("500", "answered 500: overloaded"),
        ("html", "did not answer with the JSON of a query"),
        ("huge", "is larger than 4194304 bytes"),
        ("nan", "is NaN"),
        ("infinite", "is inf"),
        ("negative", "is -5"),
        ("empty", "has no series of http_requests_total"),
        ("past", "s behind the operator's"),
        ("future", "s ahead of the operator's"),
        ("stale", "the sample of http_requests_total is 3600 s old"),
        // As if there were none: what is of other pods is none of these pods'.
        ("other", "has no series of http_requests_total"),
        ("silent", "did not answer within"),
    ];
    let mut held = 0;
    for (mode, words) in ways {
        let told = scene.operator.logged(words).len();
        *fake.mode.lock().unwrap() = mode;
        let pods = scene.list("v1", "Pod").await;
        *fake.pods.lock().unwrap() = pods.iter().map(|p| text(p, "/metadata/name")).collect();
        // Each look tells the log why; the status is not written for every other word.
        eventually(PATIENCE, &format!("{mode} is told"), async || {
            let more = scene.operator.logged(words).len() > told;
            if more { Ok(()) } else { Err(brief(&scene.release(&name).await)) }
        })
        .await;
        let message = no_data(&scene, &name).await;
        assert!(message.len() < 600, "{message}");
        assert_eq!(int(&scene.release(&name).await, "/status/step/index"), 0);
        held = scene.events(&name).await.iter().filter(|(reason, ..)| reason == "Held").count();
        scene.operator.assert_healthy().await;
    }
    assert_eq!(held, 1, "one outage is told once");
    *fake.mode.lock().unwrap() = "good";
    scene
        .release_where(&name, "goes on", |r| {
            ["CollectingEvidence", "StepTime"].contains(&text(r, "/status/reason").as_str())
        })
        .await;
    // It dies in the middle: held again, at the weight it has, and told again.
    server.abort();
    no_data(&scene, &name).await;
    let release = scene.release(&name).await;
    assert_eq!(int(&release, "/status/step/index"), 0);
    assert_eq!(int(&release, "/status/weight/canaryPods"), 2, "{}", brief(&release));
    assert!(release.pointer("/status/step/runningSince").is_none(), "its clock stands");
    let told = scene.events(&name).await;
    assert_eq!(told.iter().filter(|(reason, ..)| reason == "Held").count(), 2, "{told:?}");
    scene.operator.assert_healthy().await;
}
