//! The simulator: a deterministic cluster in memory that runs the operator's own code.
//!
//! The API server stores raw JSON and keeps a log; each operator process has its own, possibly late, view of that log
//! and feeds it to the real [`belay::operator::Core`], which decides with the real [`belay::decide::decide`]; what it
//! wants is lowered by the real [`belay::act::request`] and applied as JSON Patch. Deployment and ReplicaSet
//! controllers, kubelet, autoscaler, GitOps, people and the metrics' truth are here. Nothing is random in here: whoever
//! drives a [`World`] chooses what happens next, so a history is a value that can be cloned and continued differently.

mod clock;
mod deployments;
mod exhaustive;
mod floor;
mod network;
mod oracle;
mod outcome;
mod pods;
mod process;
mod random;
mod replay;
mod routed;
mod scenarios;
mod script;
mod server;
mod shares;
mod stale;
pub mod trace;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use belay::analysis::{CheckRun, PodSample, Reading, Sample};
use belay::operator::{Look, Report};
use serde_json::{Value, json};

use network::Gateway;
use oracle::Oracle;
pub use pods::Fate;
use pods::Node;
use process::{Fault, Process, Sent};
pub use script::{Act, Line, When};
use server::{Server, Sort};

/// What is true of each version, whatever the metrics source says.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    /// Share of bad requests by image; 0.1 % if it is not in here.
    pub bad: BTreeMap<String, f64>,
    /// Since when the source does not answer.
    pub down_since: Option<i64>,
    /// Whether checks of addresses fail.
    pub checks_fail: bool,
    /// Whether checks of addresses get no answer.
    pub checks_silent: bool,
}

/// Requests per second and pod.
const RATE: f64 = 50.0;
/// Every so many milliseconds the autoscaler looks.
const AUTOSCALE: i64 = 15_000;
/// Turns without an end that are taken for a loop.
const TURNS: usize = 500;

/// The world.
#[derive(Clone, Debug)]
pub struct World {
    pub server: Server,
    pub node: Node,
    pub gateway: Gateway,
    pub truth: Truth,
    pub processes: Vec<Process>,
    pub oracle: Oracle,
    /// What is still to happen.
    pub script: VecDeque<Line>,
    /// When the last line of the script happened.
    pub since: i64,
    /// How many pods the load needs, if an autoscaler is to look at it.
    pub load: Option<i64>,
    /// When somebody last changed the number of pods.
    pub scaled_at: i64,
    /// Image, milliseconds between two writes, and when the next is due.
    pub gitops: Option<(&'static str, i64, i64)>,
    /// Requests that operators have sent.
    pub requests: usize,
    /// The fault of the next request.
    pub fault: Option<Fault>,
    /// Controllers act after every single write, not after every pass.
    pub eager: bool,
    /// Nobody starts a process that died.
    pub abandoned: bool,
    /// Where copies of the world just before each request go.
    pub snapshots: Option<Vec<World>>,
    serial: usize,
    next_autoscale: i64,
    /// The server's version when the controllers last had nothing to do.
    settled_at: (u64, u64),
}

impl World {
    /// A Rollout with this spec beside a workload of `replicas` pods of image `v1`, the first revision stable and
    /// everything quiet.
    pub fn stable_with(replicas: i64, spec: &Value, autoscaler: Option<Value>) -> Self {
        let mut world = Self {
            server: Server::default(),
            node: Node::default(),
            gateway: Gateway::default(),
            truth: Truth::default(),
            processes: Vec::new(),
            oracle: Oracle::default(),
            script: VecDeque::new(),
            since: 0,
            load: None,
            scaled_at: i64::MIN / 2,
            gitops: None,
            requests: 0,
            fault: None,
            eager: false,
            abandoned: false,
            snapshots: None,
            serial: 0,
            next_autoscale: 0,
            settled_at: (0, 0),
        };
        world.server.create("alice", Sort::Deployment, script::deployment("v1", replicas)).unwrap();
        if let Some(object) = autoscaler {
            world.server.create("alice", Sort::Autoscaler, object).unwrap();
        }
        script::network(&mut world.server, spec);
        world.advance(10);
        let mut rollout = json!({
            "apiVersion": "belay.dev/v1alpha1", "kind": "Rollout", "metadata": {"name": "web"},
            "spec": {"workloadRef": {"kind": "Deployment", "name": "web"}},
        });
        json_patch::merge(&mut rollout["spec"], spec);
        world.server.create("alice", Sort::Rollout, rollout).unwrap();
        world.start_process(0);
        world.advance(10);
        assert_eq!(world.rollout_phase(), "Stable", "{:?}", world.server.rollout());
        world.oracle.begin(&world.server);
        world.requests = 0;
        world
    }

    pub fn start_process(&mut self, skew: i64) {
        let process = self.new_process(skew, &BTreeMap::new());
        self.processes.push(process);
    }

    fn new_process(&mut self, skew: i64, at: &BTreeMap<Sort, usize>) -> Process {
        self.serial += 1;
        Process::start(&format!("belay-{}", self.serial), &self.server, at, skew)
    }

    /// A process dies, and another one takes its place, which lists everything, as of `at` where that says so.
    pub fn restart(&mut self, index: usize, at: &BTreeMap<Sort, usize>) {
        let skew = self.processes[index].skew;
        self.processes[index] = self.new_process(skew, at);
    }

    fn died(&mut self, index: usize) {
        if self.abandoned {
            self.processes.remove(index);
        } else {
            self.restart(index, &BTreeMap::new());
        }
    }

    pub fn rollout_phase(&self) -> String {
        let rollout = self.server.get(Sort::Rollout, "web");
        rollout.map(|r| deployments::text(r, "/status/phase").to_owned()).unwrap_or_default()
    }

    /// All controllers of Kubernetes act until none has anything to do. True when any did.
    pub fn controllers(&mut self) -> bool {
        for turn in 0..TURNS {
            let moved = self.node.kubelet(&mut self.server)
                | self.node.jobs(&mut self.server)
                | self.gateway.tick(&mut self.server);
            if !moved && self.settled_at == self.server.version() {
                // Nobody wrote anything since they had nothing to do.
                return turn > 0;
            }
            let moved = moved
                | deployments::sync(&mut self.server)
                | Node::replica_sets(&mut self.server)
                | network::slices(&mut self.server)
                | self.node.garbage(&mut self.server);
            self.judge();
            if !moved {
                self.settled_at = self.server.version();
                self.oracle.settled(&self.server, self.scaled_at);
                return turn > 0;
            }
        }
        panic!("the controllers do not settle");
    }

    /// What was written since the last call is judged.
    pub fn judge(&mut self) {
        let writes = std::mem::take(&mut self.server.audit);
        for write in &writes {
            self.oracle.judge(&self.server, &self.truth, write);
        }
    }

    /// A process makes sure that it may send its next request, and does not come to send it yet.
    pub fn entitle(&mut self, index: usize) {
        if self.processes[index].busy() {
            self.processes[index].hold_lease(&mut self.server);
            self.judge();
        }
    }

    /// A process sends its next request. True when it had one.
    pub fn send(&mut self, index: usize) -> bool {
        if !self.processes[index].busy() {
            return false;
        }
        if !self.processes[index].hold_lease(&mut self.server) {
            self.judge();
            return true;
        }
        self.judge();
        if self.processes[index].may_send(self.server.now) {
            self.oracle.one_writes(&self.server, &self.processes[index].name);
        }
        if let Some(mut snapshots) = self.snapshots.take() {
            snapshots.push(self.clone());
            self.snapshots = Some(snapshots);
        }
        self.requests += 1;
        let fault = self.fault.take();
        let sent = self.processes[index].send(&mut self.server, fault);
        self.judge();
        if sent == Sent::Died {
            self.died(index);
        }
        true
    }

    /// A process takes its oldest look.
    pub fn look(&mut self, index: usize) -> bool {
        let Some((_, key, look)) = self.processes[index].take_look() else { return false };
        let at = self.processes[index].time(self.server.now);
        let sample = Box::new(self.measure(&look, at));
        let report = Report::Looked { key, release: look.release, sample };
        self.processes[index].looked(report, self.server.now);
        true
    }

    /// A process runs its oldest check.
    pub fn check(&mut self, index: usize) -> bool {
        let Some((key, release, guard)) = self.processes[index].take_check() else { return false };
        let at = self.processes[index].time(self.server.now);
        let Truth { checks_fail, checks_silent, .. } = self.truth;
        let passed = if checks_silent { Err("connection refused".to_owned()) } else { Ok(!checks_fail) };
        let run = CheckRun { guard, at, passed, seen: "status 200".to_owned(), number: None };
        self.processes[index].looked(Report::Checked { key, release, run }, self.server.now);
        true
    }

    /// The metrics of the pods that are asked for.
    fn measure(&self, look: &Look, at: jiff::Timestamp) -> Sample {
        if self.truth.down_since.is_some() {
            return Sample { at, outcome: Err("connection refused".to_owned()) };
        }
        let measured = look.targets.iter().map(|target| {
            let live = self.server.get(Sort::Pod, &target.name).filter(|p| pods::is_ready(p));
            let reading = live.map(|pod| {
                let image = deployments::text(pod, "/spec/containers/0/image");
                let born = self.node.lives.get(&target.name).map_or(self.server.now, |l| l.born);
                let total = ((self.server.now - born) as f64 / 1000.0 * RATE).floor();
                let bad = (total * self.truth.bad.get(image).copied().unwrap_or(0.001)).floor();
                Reading::Ratio {
                    bad: [("bad".to_owned(), bad)].into(),
                    total: [("all".to_owned(), total)].into(),
                }
            });
            let problem = reading.is_none().then(|| "connection refused".to_owned());
            PodSample {
                uid: target.uid.clone(),
                name: target.name.clone(),
                side: target.side,
                started_at: target.started_at,
                guards: vec![reading; look.plan.guards.len()],
                problem,
            }
        });
        Sample { at, outcome: Ok(measured.collect()) }
    }

    /// One operator hears, thinks, writes and looks, all at once. True when it did anything.
    fn turn(&mut self, index: usize) -> bool {
        if self.processes[index].frozen {
            return false;
        }
        let mut moved = false;
        if !self.processes[index].busy() {
            moved |= self.processes[index].hear_all(&self.server);
            moved |= self.processes[index].think(self.server.now);
        }
        while index < self.processes.len() && self.send(index) {
            moved = true;
            if self.eager {
                self.controllers();
            }
        }
        moved | (index < self.processes.len() && (self.look(index) | self.check(index)))
    }

    /// People and programs do what is due now.
    fn people(&mut self) -> bool {
        let mut moved = false;
        while let Some((when, line)) = self.script.front().cloned()
            && script::is_time(self, when, self.since)
        {
            self.script.pop_front();
            self.since = self.server.now;
            script::act(self, &line);
            moved = true;
        }
        if let Some((image, every, due)) = self.gitops
            && self.server.now >= due
        {
            self.gitops = Some((image, every, self.server.now + every));
            drop(script::apply(&mut self.server, image));
            moved = true;
        }
        if self.load.is_some() && self.server.now >= self.next_autoscale {
            self.next_autoscale = self.server.now + AUTOSCALE;
            moved |= script::autoscale(self);
        }
        self.judge();
        moved
    }

    /// Everybody takes turns until nothing changes at this time.
    pub fn settle(&mut self) {
        for _ in 0..TURNS {
            let mut moved = self.people();
            moved |= self.controllers();
            for index in 0..self.processes.len() {
                moved |= index < self.processes.len() && self.turn(index);
            }
            if !moved {
                return;
            }
        }
        let reasons: Vec<&Vec<String>> = self.processes.iter().map(|p| &p.reasons).collect();
        panic!("does not go quiet at {} ms: {reasons:?}", self.server.now);
    }

    /// When anybody does anything by itself next.
    pub fn next_event(&self) -> Option<i64> {
        let now = self.server.now;
        let script = match self.script.front() {
            Some((When::After(seconds), _)) => Some(self.since + seconds * 1000),
            // Its time comes with somebody else's doing.
            _ => None,
        };
        let timers = self.processes.iter().filter(|p| !p.frozen).filter_map(Process::next_timer);
        let gitops = self.gitops.map(|(_, _, due)| due);
        let autoscale = self.load.map(|_| self.next_autoscale);
        let all = timers.chain(script).chain(gitops).chain(autoscale);
        let all = all.chain(self.node.next_event(now)).chain(self.gateway.next_event());
        all.filter(|t| *t > now).min()
    }

    /// Time goes by until the next event, at most until `end`.
    pub fn step_to(&mut self, end: i64) {
        self.server.now = self.next_event().map_or(end, |t| t.min(end));
        self.settle();
    }

    /// Lets seconds go by; everybody wakes up when they asked for it.
    pub fn advance(&mut self, seconds: i64) {
        let end = self.server.now + seconds * 1000;
        self.settle();
        while self.server.now < end {
            self.step_to(end);
        }
    }

    /// Plays the script to its end, and `tail` more seconds. At most ten hours.
    pub fn play(&mut self, tail: i64) {
        self.settle();
        let limit = self.server.now + 36_000_000;
        while !self.script.is_empty() {
            assert!(
                self.server.now < limit,
                "its time never came: {:?}; {}",
                self.script.front(),
                self.outcome()
            );
            self.step_to(self.server.now + 1000);
        }
        let end = self.since + tail * 1000;
        self.settle();
        while self.server.now < end {
            self.step_to(end);
        }
    }

    /// The Deployment, if it is there.
    pub fn workload(&self) -> Option<&Arc<Value>> {
        self.server.get(Sort::Deployment, "web")
    }
}
