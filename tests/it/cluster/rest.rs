//! What the operator asks of the API server: at rest nothing but its watches, and little in a release.

use serde_json::{Value, json};

use super::figures::figure;
use super::operator::Operator;
use super::proxy::Proxy;
use super::scene::{Plan, Scene, brief, create_workload, steps, text, while_nothing_happens};
use super::{Env, PATIENCE, deployment, eventually};

const ROLLOUTS: usize = 50;

#[tokio::test]
async fn at_rest_nothing_is_asked_but_the_watches() {
    let Some(env) = Env::get().await else { return };
    let namespace = env.namespace("rest").await;
    let proxy = Proxy::start().await;
    for i in 0..ROLLOUTS {
        let name = format!("web-{i}");
        let object = deployment(&name, 0, super::scene::IMAGE);
        namespace.apply(&env.alice, "alice", &object).await.unwrap();
        let rollout = super::scene::rollout(&name, &name, &json!({}));
        namespace.apply(&env.alice, "alice", &rollout).await.unwrap();
    }
    let operator = Operator::start_with(&env, &namespace.name, proxy.kubeconfig.clone()).await;
    let mut scene = Scene { operator, namespace };
    eventually(PATIENCE, "all are at rest", async || {
        let all = scene.list("belay.dev/v1alpha1", "Rollout").await;
        let resting = all.iter().filter(|r| text(r, "/status/phase") == "Stable").count();
        if resting == ROLLOUTS { Ok(()) } else { Err(resting) }
    })
    .await;
    eprintln!("to take over {ROLLOUTS} workloads: {:?}", proxy.take());
    while_nothing_happens(3).await;
    let (settled, lines) = (proxy.take(), scene.operator.lines());
    eprintln!("in the 3 seconds after it: {settled:?}");
    while_nothing_happens(60).await;
    let asked = proxy.take();
    eprintln!("in 60 seconds at rest: {asked:?}");
    let requests: u32 = asked.iter().filter(|(k, _)| !k.starts_with("WATCH ")).map(|(_, n)| n).sum();
    figure("idle.requests_per_min", f64::from(requests));
    assert!(asked.keys().all(|k| k.starts_with("WATCH ")), "{asked:?}");
    let spoken = scene.operator.lines() - lines;
    assert!(spoken < 50, "{spoken} lines of log in a minute at rest");
    scene.operator.assert_healthy().await;
}

#[tokio::test]
async fn a_whole_release_asks_little() {
    let Some(env) = Env::get().await else { return };
    let namespace = env.namespace("asks").await;
    let proxy = Proxy::start().await;
    let plan = Plan { replicas: 5, spec: steps(&[(10, "2s"), (30, "2s"), (50, "2s")]), ..Plan::default() };
    create_workload(&namespace, "web", &plan).await;
    let operator = Operator::start_with(&env, &namespace.name, proxy.kubeconfig.clone()).await;
    let mut scene = Scene { operator, namespace };
    scene.create_rollout("web", "web", &plan.spec).await;
    scene.rollout_is("web", "Stable").await;
    while_nothing_happens(2).await;
    proxy.take();
    scene.set_env(&[("VERSION", "2")]).await;
    let name = scene.new_release(0).await;
    let release = scene.release_is(&name, "Promoted").await;
    while_nothing_happens(3).await;
    let asked = proxy.take();
    let of = |is: fn(&str) -> bool| asked.iter().filter(|(k, _)| is(k)).map(|(_, n)| n).sum::<u32>();
    let leases = of(|k| k.ends_with(" leases"));
    let rest = of(|k| !k.starts_with("WATCH ") && !k.ends_with(" leases"));
    eprintln!("a release of 3 steps and 5 pods: {rest} requests and {leases} about the lease: {asked:?}");
    figure("release.api_requests", f64::from(rest));
    figure("release.lease_requests", f64::from(leases));
    assert!(rest <= 22, "{rest} requests: {asked:?}; {}", brief(&release));
    scene.operator.assert_healthy().await;
}

#[tokio::test]
async fn a_brake_that_is_not_there_is_told() {
    let Some(env) = Env::get().await else { return };
    let namespace = env.namespace("nobrake").await;
    create_workload(&namespace, "web", &Plan::default()).await;
    let flags = ["--brake", "no-such-brake.belay.dev"];
    let operator =
        Operator::start_flagged(&env, &namespace.name, super::operator::own_kubeconfig(), &flags).await;
    let mut scene = Scene { operator, namespace };
    scene.create_rollout("web", "web", &json!({})).await;
    let rollout = scene.rollout_is("web", "Stable").await;
    let conditions = rollout["status"]["conditions"].as_array().unwrap();
    let brake: &Value = conditions.iter().find(|c| c["type"] == "BrakeEngaged").unwrap();
    assert_eq!(brake["status"], "False");
    assert!(text(brake, "/message").contains("run belay install"), "{brake}");
    let told = scene.events("web").await;
    assert!(told.iter().any(|(reason, kind, _)| reason == "BrakeMissing" && kind == "Warning"), "{told:?}");
    scene.operator.assert_healthy().await;
}
