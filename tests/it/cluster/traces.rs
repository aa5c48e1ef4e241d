//! The simulator's stand-ins against the real cluster: the same scenarios on both, and the states that can be observed
//! follow each other in the same way.

use belay::api::release::Verb;
use serde_json::{Value, json};

use super::record::Recorder;
use super::scene::{Plan, Scene, int, text};
use crate::world::trace::{Trace, of_objects, simulated};
use crate::world::{Act, Fate, Line, When};

/// Steps that are short enough for a real cluster, and long enough to be seen.
fn spec() -> Value {
    let steps = [(10, "3s"), (25, "3s"), (50, "3s")];
    super::scene::steps(&steps)
}

/// Plays a script on a real cluster and returns what was seen.
async fn real(purpose: &str, script: &[Line]) -> Option<Trace> {
    let plan = Plan { replicas: 5, spec: spec(), ..Plan::default() };
    let mut scene = Scene::start(purpose, plan).await?;
    let recorder = Recorder::start(&scene.namespace).await;
    let mut crashes = None;
    for (when, act) in script {
        wait(&scene, *when).await;
        match act {
            Act::Fate(image, Fate::Crash(seconds)) => crashes = Some((*image, format!("{seconds}s"))),
            Act::Image(image) => {
                let crash = crashes.as_ref().filter(|(bad, _)| bad == image).map_or("", |(_, after)| after);
                // Every image is the sample program with another version; the first one is what is there already.
                let version = image.trim_start_matches('v');
                // In the order in which the first ones stand there.
                let env = [("LINGER", "0s"), ("VERSION", version), ("CRASH", crash)];
                let env = if version == "1" { &env[..2] } else { &env[..] };
                set_env(&scene, env).await;
            }
            Act::Scale(replicas) => scene.scale(u32::try_from(*replicas).unwrap()).await,
            Act::Command(verb, _, _) => {
                let name = text(scene.releases().await.last().unwrap(), "/metadata/name");
                let verb = if *verb == Verb::Abort { "abort" } else { "promote" };
                scene.command(&name, json!({"verb": verb, "reason": "because"})).await;
            }
            other => panic!("{other:?} is not played on a real cluster"),
        }
    }
    super::eventually(super::PATIENCE, "every release has ended, and the Rollout is at rest", async || {
        let ended =
            |r: &Value| ["Promoted", "RolledBack", "Superseded"].contains(&text(r, "/status/phase").as_str());
        let releases = scene.releases().await;
        let (rollout, workload) = (scene.rollout().await, scene.workload().await);
        // A change that was just made may not have its release yet.
        let revision = belay::decide::revision(&workload["spec"]["template"]);
        let known = releases.iter().any(|r| text(r, "/spec/to/revision") == revision)
            || text(&rollout, "/status/stable/revision") == revision;
        let at_rest = ["Stable", "Rejected"].contains(&text(&rollout, "/status/phase").as_str());
        if known && at_rest && releases.iter().all(ended) {
            Ok(())
        } else {
            Err(rollout["status"].to_string())
        }
    })
    .await;
    super::scene::while_nothing_happens(2).await;
    scene.operator.assert_healthy().await;
    let kinds = ["Rollout", "Release", "Deployment", "ReplicaSet"];
    let seen: Vec<(String, Value)> =
        kinds.iter().flat_map(|k| recorder.of(k).into_iter().map(|o| ((*k).to_owned(), o))).collect();
    Some(of_objects(seen.iter().map(|(kind, object)| (kind.as_str(), object))))
}

/// The whole list of settings: those that are not named are gone.
async fn set_env(scene: &Scene, env: &[(&str, &str)]) {
    let env: Vec<Value> = env.iter().map(|(n, v)| json!({"name": n, "value": v})).collect();
    let patch = json!([{"op": "replace", "path": "/spec/template/spec/containers/0/env", "value": env}]);
    let patch: json_patch::Patch = serde_json::from_value(patch).unwrap();
    let api = scene.namespace.deployments(&scene.namespace.env.alice);
    api.patch("web", &kube::api::PatchParams::default(), &kube::api::Patch::Json::<()>(patch)).await.unwrap();
}

async fn wait(scene: &Scene, when: When) {
    let what = format!("{when:?}");
    super::eventually(super::PATIENCE, &what, async || {
        let releases = scene.releases().await;
        let Some(release) = releases.last() else {
            return if matches!(when, When::After(_)) { Ok(()) } else { Err("no release".to_owned()) };
        };
        let is = match when {
            When::After(_) => true,
            When::Reached(index) => {
                int(release, "/status/step/index") == i64::from(index)
                    && release.pointer("/status/step/runningSince").is_some()
            }
            When::Phase(phase) => text(release, "/status/phase") == format!("{phase:?}"),
            When::HandedOver => false,
        };
        if is { Ok(()) } else { Err(super::scene::brief(release)) }
    })
    .await;
}

async fn same(purpose: &str, script: Vec<Line>) {
    let Some(real) = real(purpose, &script).await else { return };
    let simulated = simulated(5, &spec(), script);
    assert_eq!(real, simulated, "{purpose}: real on the left, simulated on the right");
}

const V2: Line = (When::After(0), Act::Image("v2"));

#[tokio::test]
async fn a_good_release_looks_the_same() {
    same("tracegood", vec![V2]).await;
}

#[tokio::test]
async fn a_crash_looks_the_same() {
    same("tracecrash", vec![(When::After(0), Act::Fate("v2", Fate::Crash(1))), V2]).await;
}

#[tokio::test]
async fn an_abort_looks_the_same() {
    let abort = Act::Command(Verb::Abort, None, false);
    same("traceabort", vec![V2, (When::Reached(1), abort)]).await;
}

#[tokio::test]
async fn a_change_back_looks_the_same() {
    same("traceback", vec![V2, (When::Reached(1), Act::Image("v1"))]).await;
}

#[tokio::test]
async fn a_superseding_change_looks_the_same() {
    same("tracesuper", vec![V2, (When::Reached(1), Act::Image("v3"))]).await;
}

#[tokio::test]
async fn a_workload_that_is_scaled_looks_the_same() {
    same("tracescale", vec![V2, (When::Reached(1), Act::Scale(8))]).await;
}
