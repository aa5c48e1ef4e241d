//! Many releases at once while everything between the operator and its API server goes wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use kube::api::{DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};

use super::chaos::{Chaos, all_faults};
use super::load::Load;
use super::operator::Operator;
use super::record::{Recorder, version};
use super::scene::{Plan, Scene, brief, create_workload, int, kind_of, steps, text, timeline};
use super::{Env, Namespace, eventually};

const BELAY: &str = "belay.dev/v1alpha1";
/// Workloads side by side, two pods each.
const WORKLOADS: usize = 9;
/// How long one release may take when a part of all requests fails.
const LONG: Duration = Duration::from_secs(240);

/// A change, and how its release ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Change {
    Good,
    CrashesAtStart,
    CrashesLater,
    /// Never ready, and a person aborts it.
    Aborted,
    /// Never ready, and changed again.
    Superseded,
    /// Answers with errors.
    Erroneous,
}

impl Change {
    fn env(self) -> Vec<(&'static str, &'static str)> {
        match self {
            Self::Good => Vec::new(),
            Self::CrashesAtStart => vec![("CRASH", "start")],
            Self::CrashesLater => vec![("CRASH", "2s")],
            Self::Aborted | Self::Superseded => vec![("READY", "false")],
            Self::Erroneous => vec![("ERROR_RATE", "0.3")],
        }
    }

    /// The phase and the reason of the end; where several reasons are right, the first letters of all.
    fn end(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::Good => ("Promoted", &["Promoted"]),
            Self::CrashesAtStart | Self::CrashesLater => ("RolledBack", &["CanaryCrashed"]),
            Self::Aborted => ("RolledBack", &["Aborted"]),
            Self::Superseded => ("Superseded", &["Superseded"]),
            // It may be seen to fail before its guard has the proof.
            Self::Erroneous => ("RolledBack", &["GuardFailed"]),
        }
    }
}

/// A release that has ended.
struct Ended {
    change: Change,
    release: Value,
    stable: Vec<String>,
}

/// One workload and those who change it.
struct Workload<'a> {
    namespace: &'a Namespace,
    name: &'a str,
}

impl Workload<'_> {
    async fn get(&self, version: &str, kind: &str, name: &str) -> Value {
        let found = self.namespace.api(&self.namespace.env.admin, version, kind).get_opt(name).await.unwrap();
        found.map_or(Value::Null, |o| serde_json::to_value::<DynamicObject>(o).unwrap())
    }

    async fn stable_pods(&self) -> Vec<String> {
        let rollout = self.get(BELAY, "Rollout", self.name).await;
        let set = text(&rollout, "/status/stable/replicaSet");
        let pods = self.namespace.api(&self.namespace.env.admin, "v1", "Pod");
        let of_app = kube::api::ListParams::default().labels(&format!("app={}", self.name));
        let all = pods.list(&of_app).await.unwrap().items.into_iter();
        let all = all.map(|o| serde_json::to_value::<DynamicObject>(o).unwrap());
        all.filter(|p| text(p, "/metadata/ownerReferences/0/name") == set)
            .filter(|p| p.pointer("/metadata/deletionTimestamp").is_none())
            .map(|p| text(&p, "/metadata/uid"))
            .collect()
    }

    /// Changes the settings of the program as alice; returns the name that its release will have.
    async fn change(&self, change: Change, number: usize) -> String {
        let number = number.to_string();
        let mut env = vec![("VERSION", number.as_str()), ("LINGER", "0s")];
        env.extend(change.env());
        let env: Vec<Value> = env.iter().map(|(n, v)| json!({"name": n, "value": v})).collect();
        // All settings are replaced: what an earlier change set is gone.
        let patch = json!([{"op": "add", "path": "/spec/template/spec/containers/0/env", "value": env}]);
        let patch: json_patch::Patch = serde_json::from_value(patch).unwrap();
        let api = self.namespace.deployments(&self.namespace.env.alice);
        let changed = api.patch(self.name, &PatchParams::default(), &Patch::Json::<()>(patch)).await.unwrap();
        let changed = serde_json::to_value(changed).unwrap();
        format!("{}-{}", self.name, belay::decide::revision(&changed["spec"]["template"]))
    }

    async fn release_where(&self, name: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        loop {
            let release = self.get(BELAY, "Release", name).await;
            if is(&release) {
                return release;
            }
            assert!(started.elapsed() < LONG, "{name}: not {what}: {}", brief(&release));
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
    }

    async fn abort(&self, release: &str) {
        let patch = json!([{"op": "add", "path": "/spec/commands", "value": [{"verb": "abort", "reason": "enough"}]}]);
        let patch: json_patch::Patch = serde_json::from_value(patch).unwrap();
        let api = self.namespace.api(&self.namespace.env.alice, BELAY, "Release");
        api.patch(release, &PatchParams::default(), &Patch::Json::<()>(patch)).await.unwrap();
    }

    /// One change after the other, each to its end.
    async fn live(&self, changes: &[Change]) -> Vec<Ended> {
        let mut ended = Vec::new();
        for (number, change) in changes.iter().enumerate() {
            let stable = self.stable_pods().await;
            assert_eq!(stable.len(), 2, "{}: stable pods before change {number}", self.name);
            let name = self.change(*change, number * 2 + 2).await;
            let mut expected = vec![(*change, name.clone())];
            match change {
                Change::Aborted => {
                    self.release_where(&name, "begun", |r| text(r, "/status/phase") == "Progressing").await;
                    self.abort(&name).await;
                }
                Change::Superseded => {
                    self.release_where(&name, "begun", |r| text(r, "/status/phase") == "Progressing").await;
                    expected.push((Change::Good, self.change(Change::Good, number * 2 + 3).await));
                }
                _ => {}
            }
            for (change, name) in expected {
                let finals = ["Promoted", "RolledBack", "Superseded"];
                let is = |r: &Value| finals.contains(&text(r, "/status/phase").as_str());
                let release = self.release_where(&name, "ended", is).await;
                ended.push(Ended { change, release, stable: stable.clone() });
            }
            self.at_rest().await;
        }
        ended
    }

    async fn at_rest(&self) {
        eventually(LONG, &format!("{} is at rest", self.name), async || {
            tokio::time::sleep(Duration::from_millis(400)).await;
            let status = self.get(BELAY, "Rollout", self.name).await["status"].clone();
            let resting = ["Stable", "Rejected"].contains(&text(&status, "/phase").as_str());
            if resting { Ok(()) } else { Err(status) }
        })
        .await;
    }
}

/// The most pods that a canary of two steps, 10 and 50 % beside two pods, may have: worked out by hand.
fn permitted(release: Option<&Value>, steps: usize) -> i64 {
    match release.map_or(0, |r| int(r, "/status/step/index")) {
        0 if steps == 2 => 1,
        _ => 2,
    }
}

/// Judges the whole way of one release.
fn assert_sound(recorder: &Recorder, of: &BTreeMap<String, Vec<Value>>, ended: &Ended) {
    let Ended { change, release, stable } = ended;
    let name = text(release, "/metadata/name");
    let (phase, reasons) = change.end();
    assert_eq!(text(release, "/status/phase"), phase, "{change:?}: {}", brief(release));
    assert!(reasons.contains(&text(release, "/status/reason").as_str()), "{change:?}: {}", brief(release));
    assert_eq!(int(release, "/spec/attempt"), 1, "{}", brief(release));

    let canary = text(release, "/spec/to/replicaSet");
    let sets = recorder.replica_set(&canary);
    let uids: BTreeSet<String> = sets.iter().map(|rs| text(rs, "/metadata/uid")).collect();
    // A release that a person ends at once may never have had one.
    let least = usize::from(!matches!(change, Change::Aborted | Change::Superseded));
    assert!((least..=1).contains(&uids.len()), "{canary} was made {} times: {}", uids.len(), brief(release));
    let releases = of.get(&name).cloned().unwrap_or_default();
    let steps = release["spec"]["steps"].as_array().unwrap().len();
    let mut stopped = false;
    for rs in sets.iter().filter(|rs| text(rs, "/metadata/ownerReferences/0/kind") == "Rollout") {
        let written = releases.iter().rfind(|r| version(r) < version(rs));
        let (size, most) = (int(rs, "/spec/replicas"), permitted(written, steps));
        assert!(size <= most, "{canary} had {size} pods when {most} were permitted: {}", brief(release));
        assert!(!stopped || size == 0, "{canary} rose again: {}", brief(release));
        stopped |= size == 0;
    }

    let entries = release["status"]["timeline"].as_array().unwrap();
    let times: Vec<String> = entries.iter().map(|e| text(e, "/at")).collect();
    assert!(times.is_sorted(), "{times:?}");
    let way = timeline(release);
    if *change == Change::Good {
        let mut expected = vec!["ReleaseStarted".to_owned()];
        for step in 2..=steps {
            expected.extend(["StepPassed".to_owned(), format!("StepStarted {step}")]);
        }
        expected.extend(["StepPassed", "Promoting", "Promoted"].map(ToOwned::to_owned));
        let held = ["OutOfSight", "NoData", "Unschedulable"];
        let way: Vec<&String> = way.iter().filter(|code| !held.contains(&code.as_str())).collect();
        assert_eq!(way, expected.iter().collect::<Vec<_>>(), "{}", brief(release));
    } else {
        assert!(!way.contains(&"Promoting".to_owned()), "{}", brief(release));
    }

    // They are untouched as long as they are the stable ones: to the handover, or to the end.
    let until = recorder.handover(&canary).filter(|_| *change == Change::Good);
    let until = until.unwrap_or_else(|| version(release));
    let from = releases.first().map_or(0, version);
    recorder.assert_untouched_from(stable, from, Some(until));
}

fn plan(steps: Value) -> Plan {
    let mut spec = steps;
    json_patch::merge(&mut spec, &json!({"historyLimit": 100}));
    Plan { replicas: 2, spec, ..Plan::default() }
}

fn guarded_plan() -> Plan {
    let counter = |more: Value| {
        let mut counter = json!({"metric": "http_requests_total"});
        json_patch::merge(&mut counter, &more);
        counter
    };
    plan(json!({
        "strategy": {"canary": {"steps": [{"weight": 50, "minDuration": "2s", "maxDuration": "60s"}]}},
        "analysis": {
            "interval": "1s", "warmUp": "1s", "metrics": {"pods": {"port": 8080}},
            "guards": [{"name": "errors", "ratio": {
                "bad": counter(json!({"match": "code=~\"5..\""})), "total": counter(json!({})),
                "tolerate": "1.5x + 5%",
            }}],
        },
    }))
}

/// A Service before the pods of a workload, and a load on it.
async fn loaded(namespace: &Namespace, name: &str) -> Load {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}]},
    });
    let service = namespace.apply(&namespace.env.alice, "alice", &service).await.unwrap();
    let address = service.data["spec"]["clusterIP"].as_str().unwrap().to_owned();
    Load::start(&format!("{address}:80"), 40)
}

/// What each workload goes through. Together more than fifty releases.
fn lives() -> Vec<Vec<Change>> {
    use Change::{Aborted, CrashesAtStart, CrashesLater, Good, Superseded};
    let turns = [Good, CrashesAtStart, Superseded, Aborted, CrashesLater];
    (0..WORKLOADS).map(|first| (0..5).map(|turn| turns[(first + turn) % 5]).collect()).collect()
}

async fn is_quiet(chaos: &Chaos) {
    eventually(LONG, "it goes quiet", async || {
        chaos.take();
        tokio::time::sleep(Duration::from_secs(10)).await;
        let mut asked = chaos.take();
        asked.retain(|key, _| !key.starts_with("WATCH "));
        if asked.is_empty() { Ok(()) } else { Err(asked) }
    })
    .await;
}

#[tokio::test]
async fn fifty_releases_come_to_their_ends_while_everything_goes_wrong() {
    let Some(env) = Env::get().await else { return };
    let started = Instant::now();
    let namespace = env.namespace("faults").await;
    let two = plan(steps(&[(10, "1s"), (50, "1s")]));
    let guarded = guarded_plan();
    let names: Vec<String> = (0..WORKLOADS).map(|i| format!("web-{i}")).collect();
    let all: Vec<(&str, &Plan)> =
        names.iter().map(|n| (n.as_str(), &two)).chain([("guarded", &guarded)]).collect();
    for (name, plan) in &all {
        create_workload(&namespace, name, plan).await;
    }
    let chaos = Chaos::start().await;
    let operator = Operator::start_with(&env, &namespace.name, chaos.kubeconfig.clone()).await;
    let mut scene = Scene { operator, namespace };
    for (name, plan) in &all {
        scene.create_rollout(name, name, &plan.spec).await;
        scene.rollout_is(name, "Stable").await;
    }
    let recorder = Recorder::start(&scene.namespace).await;
    let load = loaded(&scene.namespace, "guarded").await;
    eprintln!("ready after {:?}", started.elapsed());
    chaos.take();
    chaos.rage(140, 500);

    let begun = Instant::now();
    let mut lives = lives();
    lives.push(vec![Change::Erroneous, Change::Good, Change::Erroneous]);
    let workloads: Vec<Workload<'_>> =
        all.iter().map(|(name, _)| Workload { namespace: &scene.namespace, name }).collect();
    let futures = workloads.iter().zip(&lives).map(|(workload, changes)| workload.live(changes));
    let ended: Vec<Ended> = futures::future::join_all(futures).await.into_iter().flatten().collect();
    let took = begun.elapsed();
    chaos.calm();
    let asked = chaos.take();
    let requests: u32 = asked.values().sum();
    eprintln!("{} releases in {took:?}, {requests} requests: {asked:?}", ended.len());
    eprintln!("went wrong: {:?}", chaos.faults());
    assert!(ended.len() > 50, "{} releases", ended.len());
    let missing: Vec<_> = all_faults().into_iter().filter(|f| !chaos.faults().contains_key(f)).collect();
    assert!(missing.is_empty(), "did not happen: {missing:?}");

    is_quiet(&chaos).await;
    load.stop().await;
    let mut of: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for state in recorder.of("Release") {
        assert_eq!(kind_of(&state), "Release");
        of.entry(text(&state, "/metadata/name")).or_default().push(state);
    }
    let known: BTreeSet<String> = ended.iter().map(|e| text(&e.release, "/metadata/name")).collect();
    assert_eq!(
        of.keys().cloned().collect::<BTreeSet<_>>(),
        known,
        "no release but those that were asked for"
    );
    for ended in &ended {
        assert_sound(&recorder, &of, ended);
    }
    let left = scene.list("apps/v1", "ReplicaSet").await;
    let strays: Vec<&Value> =
        left.iter().filter(|rs| text(rs, "/metadata/ownerReferences/0/kind") == "Rollout").collect();
    assert!(strays.is_empty(), "canaries are left: {strays:?}");
    // At rest or not, it asks for what is worth asking: about thirty requests for a release when all goes well.
    let each = f64::from(requests) / ended.len() as f64;
    assert!(each < 150.0, "{each:.0} requests for a release: {asked:?}");
    scene.operator.assert_healthy().await;
    eprintln!("all in {:?}", started.elapsed());
}
