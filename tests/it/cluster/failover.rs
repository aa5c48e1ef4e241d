//! Two operators, of which one writes: the other takes over when it is killed, asked to end, or stopped, and what
//! the first one still believes does no harm.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use kube::Client;
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::figures::figure;
use super::operator::Operator;
use super::record::{Recorder, version};
use super::scene::{Plan, create_workload, int, rollout, steps, text, timeline};
use super::{Env, Namespace, PATIENCE, deployment, eventually};

/// Fail-overs under releases, and in how many namespaces side by side.
const FAILOVERS: usize = 100;
const PAIRS: usize = 3;
/// Workloads whose releases follow one another, in each namespace.
const WORKLOADS: [&str; 2] = ["web-0", "web-1"];
/// A Rollout that has nothing to do but to answer to a change of its spec.
const IDLE: &str = "idle";
/// What a fail-over and a handover may take in the bench. In a test the machine may have any load.
const GENEROUS: Duration = Duration::from_secs(20);

/// A write that the API server has done for one of the operators.
#[derive(Clone, Debug)]
struct Write {
    operator: usize,
    at: Instant,
    version: u64,
    method: String,
    resource: String,
    name: String,
    /// For a Lease: who is in it now, and its epoch.
    lease: Option<(String, i64)>,
}

type Writes = Arc<Mutex<Vec<Write>>>;

/// A proxy before the API server that takes down what is written through it. It adds the operator's credentials.
struct Tap {
    task: tokio::task::JoinHandle<()>,
    kubeconfig: PathBuf,
}

#[derive(Clone)]
struct Forward {
    client: Client,
    operator: usize,
    writes: Writes,
}

impl Tap {
    async fn start(operator: usize, writes: &Writes) -> Self {
        let client = super::connected(&super::operator::own_kubeconfig(), None, &[]).await.unwrap();
        let forward = Forward { client, operator, writes: writes.clone() };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .fallback(async |State(forward): State<Forward>, request: Request| {
                // On a task of its own: what is under way when the operator dies is written down all the same.
                tokio::spawn(forward.one(request)).await.unwrap()
            })
            .with_state(forward);
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let kubeconfig =
            std::env::temp_dir().join(format!("belay-tap-{}-{}", std::process::id(), address.port()));
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "tap",
            "clusters": [{"name": "tap", "cluster": {"server": format!("http://{address}")}}],
            "users": [{"name": "tap", "user": {}}],
            "contexts": [{"name": "tap", "context": {"cluster": "tap", "user": "tap"}}],
        });
        std::fs::write(&kubeconfig, config.to_string()).unwrap();
        Self { task, kubeconfig }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.task.abort();
        drop(std::fs::remove_file(&self.kubeconfig));
    }
}

impl Forward {
    async fn one(self, request: Request) -> Response {
        let (head, body) = request.into_parts();
        let (method, path) = (head.method.as_str().to_owned(), head.uri.path().to_owned());
        // An operator that is killed in the middle of a request has not made it.
        let Ok(body) = axum::body::to_bytes(body, 8 << 20).await else { return failed("half a request") };
        let mut onward =
            http::Request::builder().method(head.method).uri(head.uri.path_and_query().unwrap().as_str());
        for name in [http::header::CONTENT_TYPE, http::header::ACCEPT] {
            if let Some(value) = head.headers.get(&name) {
                onward = onward.header(name, value);
            }
        }
        let onward = onward.body(kube::client::Body::from(body.to_vec())).unwrap();
        let (mut head, body) = match self.client.send(onward).await {
            Ok(answer) => answer.into_parts(),
            Err(error) => return failed(&error.to_string()),
        };
        head.headers.remove(http::header::TRANSFER_ENCODING);
        if method == "GET" || !head.status.is_success() {
            return Response::from_parts(head, Body::new(body));
        }
        let Ok(body) = axum::body::to_bytes(Body::new(body), 8 << 20).await else {
            return failed("half an answer");
        };
        self.note(method, &path, &serde_json::from_slice(&body).unwrap());
        Response::from_parts(head, Body::from(body))
    }

    /// What has no version of its own is no write of an object that is there: a review, or a deletion that is done.
    fn note(&self, method: String, path: &str, object: &Value) {
        let Ok(version) = text(object, "/metadata/resourceVersion").parse() else { return };
        let resource =
            path.split("/namespaces/").nth(1).and_then(|p| p.split('/').nth(1)).unwrap_or_default();
        let lease = (resource == "leases")
            .then(|| (text(object, "/spec/holderIdentity"), int(object, "/spec/leaseTransitions")));
        self.writes.lock().unwrap().push(Write {
            operator: self.operator,
            at: Instant::now(),
            version,
            method,
            resource: resource.to_owned(),
            name: text(object, "/metadata/name"),
            lease,
        });
    }
}

fn failed(why: &str) -> Response {
    Response::builder().status(502).body(Body::from(why.to_owned())).unwrap()
}

/// Everything that is wrong with the order of these writes, which is that of their versions: a write by an operator
/// between another's acquisition and its own next one, or one that was made twice.
fn breaches(writes: &[Write]) -> Vec<String> {
    let mut sorted: Vec<&Write> = writes.iter().collect();
    sorted.sort_by_key(|w| w.version);
    let mut found = Vec::new();
    let mut holder: Option<(usize, &str, i64)> = None;
    let mut last = 0;
    let mut created: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    for write in sorted {
        if let Some((name, epoch)) = &write.lease {
            let other = holder.is_none_or(|(operator, n, _)| operator != write.operator || n != name);
            if !name.is_empty() && other && *epoch <= last {
                found.push(format!("the epoch did not grow with a new holder: {write:?}"));
            }
            last = last.max(*epoch);
            holder = (!name.is_empty()).then_some((write.operator, name.as_str(), *epoch));
            continue;
        }
        if holder.is_none_or(|(operator, ..)| operator != write.operator) {
            found.push(format!("{holder:?} has the lease, and {write:?}"));
        }
        if write.method == "POST" && write.resource != "events" {
            *created.entry((&write.resource, &write.name)).or_default() += 1;
        }
    }
    found.extend(
        created.iter().filter(|(_, n)| **n > 1).map(|(what, n)| format!("{what:?} was created {n} times")),
    );
    found
}

/// How an operator is taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum How {
    Kill,
    Stop,
    Term,
}

/// Two operators that govern one namespace.
struct Pair {
    // Dropped in this order: the operators first.
    operators: [Operator; 2],
    _taps: [Tap; 2],
    namespace: Namespace,
    writes: Writes,
    pokes: u32,
}

impl Pair {
    async fn start(env: &Env, workloads: &[&str]) -> Self {
        let namespace = env.namespace("failover").await;
        let plan = Plan { replicas: 2, ..Plan::default() };
        let idle = deployment(IDLE, 0, super::scene::IMAGE);
        namespace.apply(&env.alice, "alice", &idle).await.unwrap();
        namespace.apply(&env.alice, "alice", &rollout(IDLE, IDLE, &json!({}))).await.unwrap();
        for name in workloads {
            create_workload(&namespace, name, &plan).await;
            let rollout = rollout(name, name, &steps(&[(34, "1s"), (50, "1s")]));
            namespace.apply(&env.alice, "alice", &rollout).await.unwrap();
        }
        let writes = Writes::default();
        let taps = [Tap::start(0, &writes).await, Tap::start(1, &writes).await];
        let operators = [
            Operator::start_with(env, &namespace.name, taps[0].kubeconfig.clone()).await,
            Operator::start_with(env, &namespace.name, taps[1].kubeconfig.clone()).await,
        ];
        let pair = Self { operators, _taps: taps, namespace, writes, pokes: 0 };
        for name in workloads.iter().chain([&IDLE]) {
            pair.stable(name).await;
        }
        pair
    }

    async fn stable(&self, name: &str) {
        stable(&self.namespace, name).await;
    }

    /// Gives whoever writes something to write.
    async fn poke(&mut self) {
        self.pokes += 1;
        let seconds = format!("{}s", 10 + self.pokes);
        let spec = json!({"spec": steps(&[(50, &seconds)])});
        let api = self.namespace.api(&self.namespace.env.alice, "belay.dev/v1alpha1", "Rollout");
        api.patch(IDLE, &PatchParams::default(), &Patch::Merge(&spec)).await.unwrap();
    }

    /// The first write but of the Lease by an operator (any when `None`) since then.
    async fn write_since(&self, since: Instant, by: Option<usize>) -> Write {
        eventually(PATIENCE, &format!("a write by {by:?}"), async || {
            let writes = self.writes.lock().unwrap();
            let mut after = writes.iter().filter(|w| w.at > since && w.lease.is_none());
            after.find(|w| by.is_none_or(|b| b == w.operator)).cloned().ok_or_else(|| writes.last().cloned())
        })
        .await
    }

    /// Takes the operator that writes out, and tells how long it took until the other one wrote.
    async fn fail(&mut self, how: How, delay: Duration) -> Duration {
        let begun = Instant::now();
        self.poke().await;
        let leader = self.write_since(begun, None).await.operator;
        tokio::time::sleep(delay).await;
        let gone = Instant::now();
        let pid = self.operators[leader].pid();
        eprintln!("{}: {how:?} of {leader}, process {pid}, after poke {}", self.namespace.name, self.pokes);
        match how {
            How::Kill => self.operators[leader].kill(),
            How::Stop => self.operators[leader].signal("STOP"),
            How::Term => self.operators[leader].signal("TERM"),
        }
        self.poke().await;
        let taken = self.write_since(gone, Some(1 - leader)).await.at.duration_since(gone);
        match how {
            How::Kill => {}
            How::Stop => {
                // It wakes while the other one writes.
                self.operators[leader].signal("CONT");
                self.poke().await;
                return taken;
            }
            How::Term => {
                let operator = &mut self.operators[leader];
                let code =
                    eventually(PATIENCE, "it ends", async || operator.exit_code().ok_or("it runs")).await;
                assert_eq!(code, 0);
            }
        }
        self.operators[leader].start_again();
        self.operators[leader].wait_until_ready().await;
        taken
    }

    fn assert_sound(&self) {
        let breaches = breaches(&self.writes.lock().unwrap());
        assert!(
            breaches.is_empty(),
            "{} breaches, of which the first: {:#?}",
            breaches.len(),
            &breaches[..1]
        );
    }

    async fn assert_healthy(&mut self) {
        for operator in &mut self.operators {
            operator.assert_healthy().await;
        }
    }
}

async fn stable(namespace: &Namespace, name: &str) {
    let api = namespace.api(&namespace.env.admin, "belay.dev/v1alpha1", "Rollout");
    eventually(PATIENCE, &format!("Rollout {name} is Stable"), async || {
        let object = serde_json::to_value(api.get(name).await.unwrap()).unwrap();
        let status = object["status"].to_string();
        if text(&object, "/status/phase") == "Stable" { Ok(()) } else { Err(status) }
    })
    .await;
}

/// Changes a workload again and again, each time when the release of the last change has ended, until told to stop.
async fn keep_releasing(place: &Place, name: &str, stop: &AtomicBool) -> usize {
    let mut round = 0;
    while !stop.load(Ordering::Relaxed) {
        round += 1;
        let version = format!("{name}-{round}");
        let env = json!([{"name": "VERSION", "value": version}]);
        let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "app", "env": env}]}}}});
        let api = place.api(&place.env.alice, "apps/v1", "Deployment");
        api.patch(name, &PatchParams::default(), &Patch::Strategic(&patch)).await.unwrap();
        let releases = place.api(&place.env.admin, "belay.dev/v1alpha1", "Release");
        let revision = {
            let workload = serde_json::to_value(api.get(name).await.unwrap()).unwrap();
            belay::decide::revision(&workload["spec"]["template"])
        };
        eventually(PATIENCE, &format!("release {round} of {name} ends"), async || {
            let all = releases.list(&ListParams::default()).await.unwrap();
            let all = all.items.into_iter().map(|r| serde_json::to_value(r).unwrap());
            let this = all.filter(|r| text(r, "/spec/rollout") == name);
            let this: Vec<Value> = this.filter(|r| text(r, "/spec/to/revision") == revision).collect();
            match this.last().map(|r| text(r, "/status/phase")) {
                Some(phase) if phase == "Promoted" => Ok(()),
                Some(phase) if phase == "RolledBack" || phase == "Superseded" => panic!("{phase}"),
                other => Err(other),
            }
        })
        .await;
    }
    round
}

/// A namespace that somebody else owns.
struct Place {
    name: String,
    env: Env,
}

impl Place {
    fn api(&self, client: &Client, version: &str, kind: &str) -> Api<DynamicObject> {
        Api::namespaced_with(client.clone(), &self.name, &super::resource(version, kind))
    }
}

/// A small generator of random numbers, so that a run can be repeated.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Every release that was seen: its way in order, and no more canary pods than its steps permit until it was handed
/// over.
fn assert_releases(recorder: &Recorder) -> usize {
    let mut last: BTreeMap<String, Value> = BTreeMap::new();
    for release in recorder.of("Release") {
        last.insert(text(&release, "/metadata/name"), release);
    }
    for (name, release) in &last {
        assert_eq!(
            timeline(release),
            ["ReleaseStarted", "StepPassed", "StepStarted 2", "StepPassed", "Promoting", "Promoted"],
            "{name}"
        );
        let canary = text(release, "/spec/to/replicaSet");
        let handover = recorder.handover(&canary).expect("it was handed over");
        let states = recorder.replica_set(&canary).into_iter().filter(|rs| version(rs) <= handover);
        let sizes: Vec<i64> = states.map(|rs| int(&rs, "/spec/replicas")).collect();
        assert!(sizes.is_sorted() && sizes.iter().all(|s| *s <= 2), "{name}: {sizes:?}");
    }
    last.len()
}

async fn fail_over_under_releases(env: &Env, times: usize, seed: u64) -> BTreeMap<How, Vec<Duration>> {
    let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut pair = Pair::start(env, &WORKLOADS).await;
    let recorder = Recorder::start(&pair.namespace).await;
    let stop = AtomicBool::new(false);
    let theirs = Place { name: pair.namespace.name.clone(), env: env.clone() };
    let releases = futures::future::join_all(WORKLOADS.map(|name| keep_releasing(&theirs, name, &stop)));
    let mut taken: BTreeMap<How, Vec<Duration>> = BTreeMap::new();
    let failures = async {
        for _ in 0..times {
            let how = match dice.below(10) {
                0..3 => How::Kill,
                3..6 => How::Stop,
                _ => How::Term,
            };
            let delay = Duration::from_millis(dice.below(400));
            taken.entry(how).or_default().push(pair.fail(how, delay).await);
            pair.assert_sound();
        }
        stop.store(true, Ordering::Relaxed);
    };
    let (rounds, ()) = futures::join!(releases, failures);
    let rounds: usize = rounds.into_iter().sum();
    for name in WORKLOADS {
        pair.stable(name).await;
    }
    pair.assert_sound();
    assert_eq!(assert_releases(&recorder), rounds, "each change has one release");
    let writes = pair.writes.lock().unwrap().len();
    eprintln!("{}: {rounds} releases, {writes} writes, {times} fail-overs", pair.namespace.name);
    pair.assert_healthy().await;
    taken
}

fn longest(taken: &[Duration]) -> f64 {
    taken.iter().max().map_or(0.0, Duration::as_secs_f64)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_fail_overs_and_no_double_write() {
    let Some(env) = Env::get().await else { return };
    let given = std::env::var_os("BELAY_TEST_SEED").and_then(|s| s.to_str()?.parse().ok());
    let seed: u64 = given.unwrap_or_else(|| u64::from(std::process::id()));
    eprintln!("BELAY_TEST_SEED={seed}");
    let shares = (0..PAIRS).map(|i| FAILOVERS / PAIRS + usize::from(i < FAILOVERS % PAIRS));
    let pairs = shares.zip(0..).map(|(times, i)| fail_over_under_releases(&env, times, seed + i));
    let mut all: BTreeMap<How, Vec<Duration>> = BTreeMap::new();
    for taken in futures::future::join_all(pairs).await {
        for (how, times) in taken {
            all.entry(how).or_default().extend(times);
        }
    }
    for (how, taken) in &all {
        eprintln!("{how:?}: {} times, at most {:.2} s", taken.len(), longest(taken));
    }
    assert_eq!(all.values().map(Vec::len).sum::<usize>(), FAILOVERS);
    figure("failover.count", FAILOVERS as f64);
}

#[tokio::test]
async fn the_other_one_takes_over_in_time() {
    let Some(env) = Env::get().await else { return };
    let mut pair = Pair::start(&env, &[]).await;
    let mut taken: BTreeMap<How, Vec<Duration>> = BTreeMap::new();
    for how in [How::Kill, How::Term, How::Stop, How::Term, How::Kill, How::Stop, How::Kill, How::Term] {
        taken.entry(how).or_default().push(pair.fail(how, Duration::ZERO).await);
        pair.assert_sound();
    }
    for (how, times) in &taken {
        eprintln!("{how:?}: {times:.2?}");
        assert!(times.iter().all(|t| *t < GENEROUS), "{how:?}: {times:?}");
    }
    figure("failover_s.max", longest(&taken[&How::Kill]));
    figure("handover_s.max", longest(&taken[&How::Term]));
    pair.assert_healthy().await;
}

#[tokio::test]
async fn one_that_was_stopped_for_longer_than_the_lease_writes_nothing_until_it_has_it_again() {
    let Some(env) = Env::get().await else { return };
    let mut pair = Pair::start(&env, &[]).await;
    let begun = Instant::now();
    pair.poke().await;
    let leader = pair.write_since(begun, None).await.operator;
    pair.operators[leader].signal("STOP");
    let stopped = Instant::now();
    pair.poke().await;
    pair.write_since(stopped, Some(1 - leader)).await;
    // There is something to write for whoever wakes up, and the other one is there to do it.
    pair.operators[leader].signal("CONT");
    for _ in 0..5 {
        let since = Instant::now();
        pair.poke().await;
        pair.write_since(since, Some(1 - leader)).await;
    }
    let first = pair.writes.lock().unwrap().iter().filter(|w| w.at > stopped && w.operator == leader).count();
    assert_eq!(first, 0, "it writes nothing, and does not take the lease from one that uses it");
    // The other one goes; now it is its turn, in a tenure of its own.
    pair.operators[1 - leader].signal("TERM");
    let since = Instant::now();
    pair.poke().await;
    let write = pair.write_since(since, Some(leader)).await;
    let acquired = pair
        .writes
        .lock()
        .unwrap()
        .iter()
        .any(|w| w.operator == leader && w.at > since && w.lease.is_some() && w.version < write.version);
    assert!(acquired, "it has the lease again before it writes");
    pair.assert_sound();
    let figures = pair.operators[leader].page("/metrics").await.unwrap().1;
    let epoch = figures.lines().find_map(|l| l.strip_prefix("belay_lease_epoch ")).map(str::parse::<u32>);
    assert!(epoch.is_some_and(|e| e.is_ok_and(|e| e > 2)), "{figures}");
    assert!(figures.contains("belay_leader ") && figures.contains("belay_lease_lost_total "), "{figures}");
    pair.operators[leader].assert_healthy().await;
}

#[test]
fn the_order_of_writes_tells_a_breach() {
    let write = |operator, version, lease: Option<(&str, i64)>| Write {
        operator,
        at: Instant::now(),
        version,
        method: "PATCH".to_owned(),
        resource: if lease.is_some() { "leases" } else { "releases" }.to_owned(),
        name: "r".to_owned(),
        lease: lease.map(|(holder, epoch)| (holder.to_owned(), epoch)),
    };
    let good = [
        write(1, 9, None),
        write(0, 1, Some(("a", 1))),
        write(0, 2, None),
        write(0, 3, Some(("a", 1))),
        write(0, 4, None),
        write(0, 5, Some(("", 1))),
        write(1, 7, Some(("b", 2))),
    ];
    assert_eq!(breaches(&good), Vec::<String>::new());
    let late = [&good[..], &[write(0, 8, None)]].concat();
    assert_eq!(breaches(&late).len(), 1, "after the other one's acquisition");
    let free = [&good[..], &[write(0, 6, None)]].concat();
    assert_eq!(breaches(&free).len(), 1, "after it gave it back");
    let same = [&good[..], &[write(0, 10, Some(("c", 2)))]].concat();
    assert_eq!(breaches(&same).len(), 1, "the same epoch for another holder");
    let mut twice = [write(1, 10, None), write(1, 11, None)];
    for w in &mut twice {
        "POST".clone_into(&mut w.method);
    }
    assert_eq!(breaches(&[&good[..], &twice[..]].concat()).len(), 1, "one object was created twice");
}
