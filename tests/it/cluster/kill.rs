//! The operator is killed at any moment and started again: the same end, no step skipped, none repeated.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::PATIENCE;
use super::operator::Operator;
use super::record::Recorder;
use super::scene::{Plan, Scene, brief, int, steps, text, timeline};

/// A small generator of random numbers, so that a run can be repeated.
pub struct Dice(u64);

impl Dice {
    /// From `BELAY_TEST_SEED`, or new; the seed is printed.
    pub fn new() -> Self {
        let given = std::env::var_os("BELAY_TEST_SEED").and_then(|s| s.to_str()?.parse().ok());
        let seed = given.unwrap_or_else(|| u64::from(std::process::id()));
        eprintln!("BELAY_TEST_SEED={seed}");
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below the bound.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn is_final(release: &Value) -> bool {
    ["Promoted", "RolledBack", "Superseded"].contains(&text(release, "/status/phase").as_str())
}

/// What the objects that the operator writes look like now, one mark per kind of write.
fn marks(recorder: &Recorder, canary: &str) -> BTreeSet<String> {
    let mut marks = BTreeSet::new();
    for r in recorder.of("Release") {
        marks.insert(format!(
            "release {} {} {}",
            text(&r, "/metadata/name"),
            text(&r, "/status/phase"),
            int(&r, "/status/step/index")
        ));
    }
    for rs in recorder.replica_set(canary) {
        let owner = text(&rs, "/metadata/ownerReferences/0/kind");
        marks.insert(format!("canary {} {owner}", int(&rs, "/spec/replicas")));
    }
    for d in recorder.of("Deployment") {
        marks.insert(format!(
            "workload {} {}",
            d["spec"]["paused"], d["metadata"]["labels"]["belay.dev/release"]
        ));
    }
    marks
}

/// Starts a change and kills the operator whenever something new is written. Returns the release and the kills.
async fn killed_at_each_write(
    scene: &mut Scene,
    recorder: &Recorder,
    known: usize,
    env: &[(&str, &str)],
) -> (Value, u32) {
    let mut seen = marks(recorder, "");
    scene.set_env(env).await;
    let started = Instant::now();
    let mut kills = 0;
    loop {
        assert!(
            started.elapsed() < PATIENCE,
            "the release does not end; {:?}",
            scene.rollout().await["status"]
        );
        let releases = scene.releases().await;
        let canary = releases.get(known).map(|r| text(r, "/spec/to/replicaSet")).unwrap_or_default();
        let now = marks(recorder, &canary);
        if now.difference(&seen).next().is_some() {
            scene.operator.restart().await;
            kills += 1;
            seen.extend(now);
        }
        if let Some(release) = releases.get(known).filter(|r| is_final(r)) {
            return (release.clone(), kills);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn killed_at_random(
    scene: &mut Scene,
    dice: &mut Dice,
    known: usize,
    env: &[(&str, &str)],
) -> (Value, u32) {
    scene.set_env(env).await;
    let started = Instant::now();
    let mut kills = 0;
    loop {
        assert!(
            started.elapsed() < PATIENCE,
            "the release does not end; {:?}",
            scene.rollout().await["status"]
        );
        tokio::time::sleep(Duration::from_millis(150 + dice.below(1800))).await;
        scene.operator.restart().await;
        kills += 1;
        if let Some(release) = scene.releases().await.get(known).filter(|r| is_final(r)) {
            return (release.clone(), kills);
        }
    }
}

fn plan() -> Plan {
    Plan { spec: steps(&[(20, "2s"), (40, "2s"), (50, "2s")]), ..Plan::default() }
}

const WAY: [&str; 8] = [
    "ReleaseStarted",
    "StepPassed",
    "StepStarted 2",
    "StepPassed",
    "StepStarted 3",
    "StepPassed",
    "Promoting",
    "Promoted",
];

async fn assert_promoted(scene: &Scene, recorder: &Recorder, release: &Value, stable: &[String]) {
    assert_eq!(timeline(release), WAY, "{}", brief(release));
    let canary = text(release, "/spec/to/replicaSet");
    let handover = recorder.handover(&canary).expect("it was handed over");
    recorder.assert_untouched(stable, Some(handover));
    let sizes = recorder.sizes(&canary);
    assert!(sizes.is_sorted(), "the weight fell and rose: {sizes:?}");
    let workload = scene
        .workload_where("let go and complete", |w| {
            w.pointer("/spec/paused").is_none()
                && w["metadata"]["labels"].get("belay.dev/release").is_none()
                && int(w, "/status/replicas") == 3
                && int(w, "/status/updatedReplicas") == 3
        })
        .await;
    assert_eq!(int(&workload, "/status/availableReplicas"), 3);
    scene.rollout_is("web", "Stable").await;
}

async fn assert_rolled_back(scene: &Scene, recorder: &Recorder, release: &Value, stable: &[String]) {
    assert_eq!(text(release, "/status/phase"), "RolledBack", "{}", brief(release));
    recorder.assert_untouched(stable, None);
    let canary = text(release, "/spec/to/replicaSet");
    let sizes = recorder.sizes(&canary);
    let fell = sizes.iter().position(|s| *s == 0).unwrap_or(sizes.len());
    assert!(sizes[fell..].iter().all(|s| *s == 0), "the weight rose again after the rollback: {sizes:?}");
    let rollout = scene.rollout_is("web", "Rejected").await;
    let vetoed = rollout["status"]["vetoed"].as_array().unwrap();
    assert!(vetoed.iter().any(|v| v["revision"] == release["spec"]["to"]["revision"]), "{vetoed:?}");
    assert!(scene.get("apps/v1", "ReplicaSet", &canary).await.is_null());
    assert_eq!(scene.workload().await["spec"]["paused"], true);
}

#[tokio::test]
async fn killed_after_each_kind_of_write() {
    let Some(mut scene) = Scene::start("killwrite", plan()).await else { return };
    let stable = scene.uids_of(&scene.stable().await).await;
    let recorder = Recorder::start(&scene.namespace).await;
    let (release, good) = killed_at_each_write(&mut scene, &recorder, 0, &[("VERSION", "2")]).await;
    assert_promoted(&scene, &recorder, &release, &stable).await;

    let stable = scene.uids_of(&scene.stable().await).await;
    let recorder = Recorder::start(&scene.namespace).await;
    let (release, bad) =
        killed_at_each_write(&mut scene, &recorder, 1, &[("VERSION", "3"), ("CRASH", "3s")]).await;
    assert_rolled_back(&scene, &recorder, &release, &stable).await;
    eprintln!("killed {good} times in a promotion, {bad} times in a rollback");
    assert!(good + bad >= 10, "{good} and {bad} kills only");
}

#[tokio::test]
async fn killed_at_random_moments() {
    let Some(mut scene) = Scene::start("killrandom", plan()).await else { return };
    let mut dice = Dice::new();
    let (mut kills, mut round) = (0, 0);
    while kills < 20 {
        let stable = scene.uids_of(&scene.stable().await).await;
        let recorder = Recorder::start(&scene.namespace).await;
        let version = (round + 2).to_string();
        let bad = round % 2 == 1;
        let env = [("VERSION", version.as_str()), ("CRASH", if bad { "2s" } else { "" })];
        let (release, killed) = killed_at_random(&mut scene, &mut dice, round, &env).await;
        kills += killed;
        if bad {
            assert_rolled_back(&scene, &recorder, &release, &stable).await;
        } else {
            assert_promoted(&scene, &recorder, &release, &stable).await;
        }
        round += 1;
    }
    eprintln!("killed {kills} times in {round} releases");
}

#[tokio::test]
async fn the_clock_of_a_step_survives() {
    let plan = Plan { replicas: 1, spec: steps(&[(50, "20s")]), ..Plan::default() };
    let Some(mut scene) = Scene::start("killclock", plan).await else { return };
    scene.set_env(&[("VERSION", "2")]).await;
    let name = scene.new_release(0).await;
    scene.at_step(&name, 1).await;
    let started = Instant::now();
    tokio::time::sleep(Duration::from_secs(14)).await;
    scene.operator.restart().await;
    let release = scene.release_where(&name, "passed the step", |r| int(r, "/status/step/index") == 1).await;
    let took = started.elapsed().as_secs_f64();
    assert!((19.0..33.0).contains(&took), "the step of 20 s took {took} s: {}", brief(&release));
    scene.operator.assert_healthy().await;
}

#[tokio::test]
async fn two_operators_take_turns_and_trust_what_is_written() {
    let plan = Plan { replicas: 3, spec: steps(&[(20, "4s"), (40, "4s"), (50, "4s")]), ..Plan::default() };
    let Some(mut scene) = Scene::start("turns", plan).await else { return };
    let mut second = Operator::start(&scene.namespace.env, &scene.namespace.name).await;
    let stable = scene.uids_of(&scene.stable().await).await;
    let recorder = Recorder::start(&scene.namespace).await;
    scene.set_env(&[("VERSION", "2")]).await;
    let name = scene.new_release(0).await;
    scene.at_step(&name, 1).await;
    // Whoever writes is frozen in the middle of a step, and thawed when the other one has gone a step further: it
    // remembers a step that is passed.
    for step in [2, 3] {
        let writer = scene.operator.lease_holder().await;
        let frozen = if writer == scene.operator.pid() { &scene.operator } else { &second };
        frozen.signal("STOP");
        scene.at_step(&name, step).await;
        frozen.signal("CONT");
    }
    let release = scene.release_is(&name, "Promoted").await;
    assert_promoted(&scene, &recorder, &release, &stable).await;
    scene.operator.assert_healthy().await;
    second.assert_healthy().await;
}

#[tokio::test]
async fn asked_to_end_it_gives_the_lease_back_and_another_goes_on() {
    let plan = Plan { replicas: 2, spec: steps(&[(50, "6s")]), ..Plan::default() };
    let Some(mut scene) = Scene::start("asked", plan).await else { return };
    scene.set_env(&[("VERSION", "2")]).await;
    let name = scene.new_release(0).await;
    scene.at_step(&name, 1).await;
    assert_eq!(scene.operator.lease_holder().await, scene.operator.pid());
    scene.operator.signal("TERM");
    let started = Instant::now();
    let code = loop {
        assert!(started.elapsed() < PATIENCE, "the operator does not end");
        if let Some(code) = scene.operator.exit_code() {
            break code;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(code, 0);
    assert_eq!(scene.operator.lease_holder().await, 0, "nobody has to wait for it to lapse");
    let mut other = Operator::start(&scene.namespace.env, &scene.namespace.name).await;
    scene.release_is(&name, "Promoted").await;
    other.assert_healthy().await;
}
