//! Checks on the real cluster, and a smoke test for them to ask.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::scene::{IMAGE, Plan, Scene, brief, steps, text};
use super::{PATIENCE, eventually};

/// A smoke test that says how many of its cases failed.
pub struct Smoke {
    /// Where it answers.
    pub address: SocketAddr,
    /// What it says.
    pub failed: Arc<AtomicU32>,
    /// The first line of each request.
    pub asked: Arc<Mutex<Vec<String>>>,
}

impl Smoke {
    /// Starts one that says that all is well.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (failed, asked) = (Arc::<AtomicU32>::default(), Arc::<Mutex<Vec<String>>>::default());
        let smoke = Self { address, failed: failed.clone(), asked: asked.clone() };
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
                let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
                asked.lock().unwrap().extend(head.first().cloned());
                let body = format!(r#"{{"failed": {}}}"#, failed.load(Ordering::Relaxed));
                let answer = format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
                drop(stream.write_all(answer.as_bytes()));
            }
        });
        smoke
    }
}

/// The Jobs of a Release, each with how it ended.
pub async fn jobs(scene: &Scene, release: &str) -> Vec<String> {
    let mut all = Vec::new();
    for job in scene.list("batch/v1", "Job").await {
        if text(&job, "/metadata/ownerReferences/0/name") == release {
            let conditions =
                job.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
            let ended = conditions.filter(|c| c["status"] == "True").map(|c| text(c, "/type"));
            let ended =
                ended.filter(|end| ["Complete", "Failed"].contains(&end.as_str())).collect::<String>();
            all.push(format!("{} {ended}", text(&job, "/metadata/name")));
        }
    }
    all.sort();
    all
}

/// One step with a Job of these arguments as its gate.
fn gated(args: &Value) -> Plan {
    let container = json!({"name": "test", "image": IMAGE, "args": args});
    let job = json!({"template": {"containers": [container]}, "deadline": "5m"});
    let guards = json!({"analysis": {"guards": [{"name": "gate", "job": job}]}});
    Plan { replicas: 2, spec: steps(&[(50, "1s")]), env: vec![("VERSION", "1")], ..Plan::default() }
        .with(&guards)
}

#[tokio::test]
async fn a_job_that_fails_rolls_back() {
    // It knows no such command, and exits with 1.
    let plan = gated(&json!(["$(BELAY_ROLLOUT)-$(BELAY_NAMESPACE)-$(BELAY_REVISION)"]));
    let Some(mut scene) = Scene::start("job-fails", plan).await else { return };
    scene.set_env(&[("VERSION", "2")]).await;
    let name = scene.new_release(0).await;
    let release = scene.release_is(&name, "RolledBack").await;
    assert_eq!(text(&release, "/status/reason"), "GuardFailed", "{}", brief(&release));
    let message = text(&release, "/status/message");
    assert!(message.contains("gate") && message.contains("failed 1 (0 may)"), "{message}");
    assert_eq!(jobs(&scene, &name).await, [format!("{name}-gate-1-1 Failed")]);
    scene.operator.assert_healthy().await;
}

/// A Job that still runs when its release is over is deleted, and its pod with it.
#[tokio::test]
async fn a_job_ends_with_its_release() {
    let plan = gated(&json!(["load", "--url", "http://127.0.0.1:1/", "--rps", "1", "--duration", "30m"]));
    let Some(mut scene) = Scene::start("job-ends", plan).await else { return };
    scene.set_env(&[("VERSION", "2")]).await;
    let name = scene.new_release(0).await;
    let of_job = |pod: &Value| text(pod, "/metadata/ownerReferences/0/kind") == "Job";
    eventually(PATIENCE, "the Job's pod runs", async || {
        let pods: Vec<Value> = scene.list("v1", "Pod").await.into_iter().filter(of_job).collect();
        let runs = pods.iter().any(|pod| text(pod, "/status/phase") == "Running");
        if runs { Ok(()) } else { Err(pods) }
    })
    .await;
    // The way back from a change is one of the ways a release ends.
    scene.set_env(&[("VERSION", "1")]).await;
    eventually(PATIENCE, "neither the Job nor its pod is there", async || {
        let (jobs, pods) = (jobs(&scene, &name).await, scene.list("v1", "Pod").await);
        if jobs.is_empty() && !pods.iter().any(of_job) { Ok(()) } else { Err((jobs, pods.len())) }
    })
    .await;
    let release = scene.get("belay.dev/v1alpha1", "Release", &name).await;
    assert_eq!(text(&release, "/status/phase"), "Superseded", "{}", brief(&release));
    scene.operator.assert_healthy().await;
}
