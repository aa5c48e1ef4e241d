//! Random histories: one seed decides everything. In safety mode faults go on for ever and the invariants hold at every
//! step; then the faults stop, and everything must converge and go quiet.
//!
//! `BELAY_SEEDS=N` plays N of them, `BELAY_SEED=S` only that one, with a line per step.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use belay::api::release::Verb;
use serde_json::json;

use super::World;
use super::deployments::{self, int};
use super::exhaustive::side_by_side;
use super::network;
use super::oracle::is_final;
use super::pods::{Fate, Node};
use super::process::Fault;
use super::routed;
use super::scenarios::{approved, guarded, plain, with};
use super::script::{Act, act, autoscaler};
use super::server::Sort;

/// A small generator of random numbers (xorshift64).
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        // The seeds are small numbers; their bits are spread first (splitmix64).
        let mut z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        Self((z ^ (z >> 31)) | 1)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap() % bound
    }

    fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }

    fn number(&mut self, below: usize) -> i64 {
        i64::try_from(self.below(below)).unwrap()
    }
}

/// One history.
struct History {
    dice: Dice,
    world: World,
    told: bool,
    /// People do what nobody should: they unpause, delete, and take the brake away.
    rude: bool,
}

const IMAGES: [&str; 4] = ["v1", "v2", "v3", "v4"];

impl History {
    fn new(seed: u64, told: bool) -> Self {
        let mut dice = Dice::new(seed);
        let held = with(plain(), "rollback", json!({"automatic": false}));
        let restoring = with(plain(), "rollback", json!({"automatic": true, "restoreTemplate": true}));
        let pruned = with(plain(), "historyLimit", json!(1));
        let by_pods = [plain(), plain(), guarded(), approved(), held, restoring, pruned];
        let spec = if dice.one_in(4) { dice.pick(&routed::specs()) } else { dice.pick(&by_pods) };
        let spec = with(spec, "progressDeadline", json!("60s"));
        let scaler = dice.one_in(3).then(|| autoscaler(2, 9));
        let replicas = if scaler.is_some() { 4 } else { dice.number(9) };
        let mut world = World::stable_with(replicas, &spec, scaler);
        world.oracle.guards_capacity = false;
        for image in &IMAGES[1..] {
            let fates = [
                Fate::Good,
                Fate::Good,
                Fate::Good,
                Fate::Slow(15),
                Fate::Crash(0),
                Fate::Crash(15),
                Fate::OutOfMemory(5),
                Fate::LosesReadiness(8),
                Fate::Flaps(9),
                Fate::NeverReady,
                Fate::Unschedulable,
            ];
            world.node.set_fate(Some(image), dice.pick(&fates));
            world.truth.bad.insert((*image).to_owned(), if dice.one_in(3) { 0.05 } else { 0.001 });
        }
        let others = dice.below(3);
        for _ in 0..others {
            let skew = dice.number(8000) - 4000;
            world.oracle.skew = 8.0;
            world.start_process(skew);
        }
        for process in &mut world.processes {
            process.rate = 950 + u32::try_from(dice.below(101)).unwrap();
        }
        let rude = dice.one_in(3);
        Self { dice, world, told, rude }
    }

    fn tell(&self, what: impl FnOnce() -> String) {
        if self.told {
            eprintln!("{:>9} ms  {}", self.world.server.now, what());
        }
    }

    /// Anything that can happen, happens.
    fn step(&mut self) {
        match self.dice.below(100) {
            0..25 => self.process(),
            25..45 => self.cluster(),
            45..58 => self.time(),
            58..66 => self.person(),
            66..69 => self.trouble(),
            _ => self.turn(),
        }
    }

    /// A process hears a little, thinks, sends one request, or looks.
    fn process(&mut self) {
        let index = self.dice.below(self.world.processes.len());
        if self.world.processes[index].frozen {
            return;
        }
        match self.dice.below(8) {
            0..3 => {
                let sort = self.dice.pick(&Sort::WATCHED);
                let most = 1 + self.dice.below(4);
                let world = &mut self.world;
                world.processes[index].hear(&world.server, sort, most);
                self.tell(|| format!("{index} hears of {sort:?}"));
            }
            3 => {
                let now = self.world.server.now;
                self.world.processes[index].think(now);
            }
            4..7 => self.send(index),
            _ => drop(self.world.look(index)),
        }
    }

    fn send(&mut self, index: usize) {
        if self.dice.one_in(8) {
            self.world.fault = Some(self.dice.pick(&Fault::ALL));
        }
        let effect = self.world.processes[index].next_effect().map(|e| format!("{e:?}"));
        if let Some(effect) = effect {
            let fault = self.world.fault;
            self.tell(|| format!("{index} sends {} {fault:?}", &effect[..effect.len().min(1600)]));
        }
        self.world.send(index);
        self.world.fault = None;
    }

    /// A whole undisturbed turn of one process.
    fn turn(&mut self) {
        let index = self.dice.below(self.world.processes.len());
        if self.world.processes[index].frozen {
            return;
        }
        let world = &mut self.world;
        if !world.processes[index].busy() {
            world.processes[index].hear_all(&world.server);
            world.processes[index].think(world.server.now);
        }
        while self.world.processes.get(index).is_some_and(super::process::Process::busy) {
            self.send(index);
        }
        self.world.look(index);
    }

    /// One controller of Kubernetes, or all of them.
    fn cluster(&mut self) {
        let world = &mut self.world;
        match self.dice.below(8) {
            6 => drop(network::slices(&mut world.server)),
            7 => drop(world.gateway.tick(&mut world.server)),
            0 => drop(deployments::sync(&mut world.server)),
            1 => drop(Node::replica_sets(&mut world.server)),
            2 => drop(world.node.garbage(&mut world.server)),
            3 => drop(world.node.kubelet(&mut world.server)),
            _ => drop(world.controllers()),
        }
        world.judge();
    }

    fn time(&mut self) {
        let now = self.world.server.now;
        let event = self.world.next_event().filter(|_| !self.dice.one_in(3));
        let most = if self.dice.one_in(10) { 60_000 } else { 4000 };
        let later = now + 1 + self.dice.number(most);
        self.world.server.now = event.map_or(later, |t| t.min(later));
    }

    fn person(&mut self) {
        let verbs = [Verb::Promote, Verb::Pause, Verb::Resume, Verb::Abort, Verb::Approve, Verb::Retry];
        let image = self.dice.pick(&IMAGES);
        let deed = match self.dice.below(if self.rude { 20 } else { 14 }) {
            0..4 => Act::Image(image),
            4 => Act::Apply(image),
            5..7 => Act::Scale(self.dice.number(9)),
            7..10 => {
                let step = self.dice.one_in(2).then(|| i32::try_from(1 + self.dice.below(3)).unwrap());
                Act::Command(self.dice.pick(&verbs), step, self.dice.one_in(4))
            }
            10 => Act::Source(self.dice.one_in(2)),
            11 => Act::EditRollout(json!({"paused": self.dice.one_in(3)})),
            12 => Act::Floor(self.dice.one_in(2).then(|| 1 + self.dice.number(6))),
            13 => Act::Load(1 + self.dice.number(8)),
            14..16 => Act::Unpause,
            16 => Act::DeleteRelease,
            17 => Act::Brake(self.dice.one_in(2)),
            18 => Act::DeleteRollout,
            _ => Act::DeleteDeployment,
        };
        self.tell(|| format!("somebody does {deed:?}"));
        act(&mut self.world, &deed);
        self.world.judge();
    }

    /// Processes freeze, die, and start with old views.
    fn trouble(&mut self) {
        let index = self.dice.below(self.world.processes.len());
        match self.dice.below(5) {
            0 => {
                let process = &mut self.world.processes[index];
                process.frozen = !process.frozen;
                let frozen = process.frozen;
                self.tell(|| format!("{index} is frozen: {frozen}"));
            }
            1 => {
                self.tell(|| format!("{index} is killed"));
                self.world.restart(index, &BTreeMap::new());
            }
            2 => {
                let sort = self.dice.pick(&Sort::WATCHED);
                let entries = self.world.server.log.len();
                let at = entries - self.dice.below(entries.min(30));
                self.tell(|| format!("{index} is killed, and starts with {sort:?} as of {at} of {entries}"));
                self.world.restart(index, &BTreeMap::from([(sort, at)]));
            }
            3 => {
                self.world.entitle(index);
                self.world.processes[index].frozen = true;
                self.tell(|| format!("{index} is frozen with a request in its hands"));
            }
            _ => {
                let world = &mut self.world;
                world.processes[index].hear_of_lease(&world.server);
                self.tell(|| format!("{index} hears of the lease"));
            }
        }
    }

    /// The faults stop, people repair what they can, and time goes by.
    fn heal(&mut self) {
        let world = &mut self.world;
        for process in &mut world.processes {
            process.frozen = false;
        }
        world.node.set_fate(None, Fate::Good);
        world.truth.down_since = None;
        world.load = None;
        world.server.braked = true;
        world.advance(5000);
    }
}

fn play(seed: u64, told: bool) {
    let mut history = History::new(seed, told);
    let steps = 60 + history.dice.below(240);
    let what = format!("seed {seed} (BELAY_SEED={seed} shows every step)");
    for _ in 0..steps {
        history.step();
        history.world.assert_sound(&what);
    }
    history.heal();
    let rude = history.rude;
    let mut world = history.world;
    world.assert_sound(&what);
    world.assert_quiet(&what);
    let running = world.server.releases().into_iter().filter(|r| !is_final(r)).count();
    assert!(running <= 1, "{what}: {running} releases run");
    if let Some(d) = world.workload() {
        let wanted = int(d, "/spec/replicas");
        let ready = world.server.all(Sort::Pod).filter(|p| super::pods::is_ready(p)).count();
        assert!(i64::try_from(ready).unwrap() >= wanted, "{what}: {ready} of {wanted}\n{}", world.outcome());
    }
    if world.server.rollout().is_none() {
        let left = world.outcome();
        assert!(!left.contains("belay.dev/rollout") && !left.contains("of Rollout"), "{what}: {left}");
    }
    assert!(rude || world.server.rollout().is_some(), "{what}: the Rollout is gone");
}

#[test]
fn whatever_the_seed_the_contract_holds_and_everything_comes_to_rest() {
    let number = |name: &str| std::env::var_os(name).and_then(|n| n.to_str()?.parse::<u64>().ok());
    if let Some(seed) = number("BELAY_SEED") {
        play(seed, true);
        return;
    }
    let seeds: Vec<u64> = (0..number("BELAY_SEEDS").unwrap_or(1000)).collect();
    let played = AtomicUsize::new(0);
    side_by_side(&seeds, |seed| {
        play(*seed, false);
        played.fetch_add(1, Ordering::Relaxed);
    });
    eprintln!("{} random histories", played.into_inner());
}
