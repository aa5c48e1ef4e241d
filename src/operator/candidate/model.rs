//! A small model checker: the interleavings of two and three candidates before a model of the API server, with
//! clocks that run apart, watches that lag, processes that leave, and requests and replies that are late or lost.
//!
//! A process that is stopped, or killed, is one whose turn does not come: all ways include those. Nothing here is
//! fair: a process may be slow for as long as it likes, and what it believes to hold counts against it all the same.

use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use super::*;

/// The step of the true time.
const TICK: Duration = Duration::from_secs(1);

/// A request under way, and its reply once the server has answered.
#[derive(Clone, Debug)]
struct Flight {
    request: Arc<Request>,
    sent: Moment,
    reply: Option<Answer>,
}

#[derive(Clone, Debug)]
struct Process {
    candidate: Candidate,
    /// Its clock: set apart from the true one, and faster or slower.
    offset: Duration,
    per_mille: u32,
    /// Whether it has given the lease back and ended.
    gone: bool,
    pass: Option<Pass>,
    flight: Option<Flight>,
    /// A request that it has given up, and that may arrive all the same.
    stray: Option<Arc<Request>>,
    /// What its watch told last.
    watched: u64,
}

/// A pass, with what was true when it was decided.
#[derive(Clone, Copy, Debug, Hash)]
struct Pass {
    ticket: Ticket,
    /// The tenures that others have begun by then, as the server has it.
    others: u64,
    /// Where it wrote, which is where its ticket is bound.
    wrote_in: Option<u64>,
}

#[derive(Clone, Debug)]
struct World {
    now: u32,
    version: u64,
    lease: Option<Arc<Value>>,
    /// Tenures that the server has seen begin, by process.
    begun: Vec<u64>,
    processes: Vec<Process>,
    /// How many processes may still leave, and requests be slow.
    faults: u8,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Action {
    Tick,
    /// The process asks what to do and does it; a request is answered at once.
    Next(usize),
    /// The same, but the request takes its time.
    Slow(usize),
    /// The process renews what it has.
    Keep(usize),
    /// The process ends its pass.
    End(usize),
    /// A request reaches the server.
    Arrive(usize),
    /// A reply reaches the process.
    Reply(usize),
    /// The watch tells what there is now.
    Watch(usize),
    /// The process hears nothing of its request, which was lost or comes later.
    GiveUp(usize),
    /// A request that was given up arrives.
    Stray(usize),
    Leave(usize),
}

impl Process {
    fn new(index: usize, per_mille: u32) -> Self {
        Self {
            candidate: Candidate::new("ns".into(), "belay".into(), format!("p{index}")),
            offset: Duration::from_secs(1000 * index as u64 * index as u64),
            per_mille,
            gone: false,
            pass: None,
            flight: None,
            stray: None,
            watched: 0,
        }
    }

    fn clock(&self, now: u32) -> Moment {
        Moment::new(self.offset + TICK * now * self.per_mille / 1000)
    }
}

impl World {
    fn new(rates: &[u32], faults: u8) -> Self {
        let processes = rates.iter().enumerate().map(|(i, rate)| Process::new(i, *rate)).collect();
        Self { now: 0, version: 1, lease: None, begun: vec![0; rates.len()], processes, faults }
    }

    fn actions(&self) -> Vec<Action> {
        let mut actions = vec![Action::Tick];
        for (i, p) in self.processes.iter().enumerate() {
            if p.flight.as_ref().is_some_and(|f| f.reply.is_none()) {
                actions.push(Action::Arrive(i));
            }
            if p.stray.is_some() {
                actions.push(Action::Stray(i));
            }
            if p.gone {
                continue;
            }
            if p.watched < self.version {
                actions.push(Action::Watch(i));
            }
            if p.pass.is_some() {
                actions.push(Action::End(i));
            }
            match &p.flight {
                Some(flight) if flight.reply.is_some() => actions.push(Action::Reply(i)),
                Some(_) => {}
                None => {
                    actions.push(Action::Next(i));
                    let at = p.clock(self.now);
                    if p.candidate.hold(at).is_some_and(|h| at.since(h.sent) >= RENEWAL) {
                        actions.push(Action::Keep(i));
                    }
                    if self.faults > 0 {
                        actions.extend([Action::Slow(i), Action::Leave(i)]);
                    }
                }
            }
            if p.flight.is_some() && p.stray.is_none() {
                actions.push(Action::GiveUp(i));
            }
        }
        actions
    }

    fn act(&mut self, action: Action) {
        let now = self.now;
        match action {
            Action::Tick => self.now += 1,
            Action::Arrive(i) => self.arrive(i),
            Action::Stray(i) => {
                let request = self.processes[i].stray.take().unwrap();
                self.serve(i, &request);
            }
            Action::Watch(i) => {
                self.processes[i].watched = self.version;
                let at = self.processes[i].clock(now);
                self.processes[i].candidate.learn(self.lease.as_deref(), at);
            }
            Action::Next(i) => {
                self.next(i);
                self.finish(i);
            }
            Action::Slow(i) => {
                self.faults -= 1;
                self.next(i);
            }
            Action::Keep(i) => {
                let p = &mut self.processes[i];
                let at = p.clock(now);
                let epoch = p.candidate.hold(at).unwrap().epoch;
                let step = p.candidate.keep(epoch, at);
                p.send(step, at);
                self.finish(i);
            }
            Action::End(i) => self.processes[i].pass = None,
            Action::Reply(i) => self.reply(i),
            Action::GiveUp(i) => {
                let p = &mut self.processes[i];
                let at = p.clock(now);
                let flight = p.flight.take().unwrap();
                p.candidate.answered(flight.request.purpose, flight.sent, &Answer::Unknown, at);
                p.stray = flight.reply.is_none().then_some(flight.request);
            }
            Action::Leave(i) => {
                self.faults -= 1;
                let p = &mut self.processes[i];
                let at = p.clock(now);
                p.pass = None;
                match p.candidate.release(Timestamp::UNIX_EPOCH) {
                    Some(request) => {
                        p.flight = Some(Flight { request: Arc::new(request), sent: at, reply: None });
                    }
                    None => p.gone = true,
                }
            }
        }
    }

    fn arrive(&mut self, i: usize) {
        if let Some(request) = self.processes[i].flight.as_ref().map(|f| f.request.clone()) {
            let reply = self.serve(i, &request);
            self.processes[i].flight.as_mut().unwrap().reply = Some(reply);
        }
    }

    fn reply(&mut self, i: usize) {
        let p = &mut self.processes[i];
        let at = p.clock(self.now);
        let Some(flight) = p.flight.take() else { return };
        p.candidate.answered(flight.request.purpose, flight.sent, &flight.reply.unwrap(), at);
        if flight.request.purpose == Purpose::Release {
            p.gone = true;
        }
    }

    /// The request of a process is answered at once.
    fn finish(&mut self, i: usize) {
        self.arrive(i);
        self.reply(i);
    }

    fn next(&mut self, i: usize) {
        let others = self.others(i);
        let p = &mut self.processes[i];
        let at = p.clock(self.now);
        let mut pass = p.pass.unwrap_or(Pass { ticket: p.candidate.ticket(), others, wrote_in: None });
        let step = p.candidate.evaluate(&mut pass.ticket, at);
        p.pass = Some(pass);
        match step {
            Step::Fine(hold) => {
                assert!(pass.wrote_in.is_none_or(|e| e == hold.epoch), "a pass wrote in two tenures");
                assert_eq!(pass.others, others, "another process has had the lease since this was decided");
                p.pass = Some(Pass { wrote_in: Some(hold.epoch), ..pass });
            }
            Step::Lost => p.pass = None,
            step => p.send(step, at),
        }
    }

    /// Tenures of other processes that the server has seen begin.
    fn others(&self, i: usize) -> u64 {
        self.begun.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, n)| n).sum()
    }

    /// The API server: a write counts only if it goes on from what there is.
    fn serve(&mut self, i: usize, request: &Request) -> Answer {
        let there = self.lease.as_ref().map(|l| l["metadata"]["resourceVersion"].clone());
        let body = match (&request.body, there) {
            (None, None) => return Answer::Absent,
            (None, Some(_)) => return Answer::Record(Value::clone(self.lease.as_ref().unwrap())),
            (Some(_), Some(_)) if request.method == http::Method::POST => return Answer::Conflict,
            (Some(_), None) if request.method == http::Method::PUT => return Answer::Absent,
            (Some(body), Some(version)) if body["metadata"]["resourceVersion"] != version => {
                return Answer::Conflict;
            }
            (Some(body), _) => body,
        };
        let epoch = |lease: &Value| lease["spec"]["leaseTransitions"].as_u64().unwrap_or(0);
        let before = self.lease.as_deref().map_or(0, epoch);
        assert!(epoch(body) >= before, "the epoch fell");
        if epoch(body) > before {
            assert_eq!(epoch(body), before + 1);
            self.begun[i] += 1;
        }
        self.version += 1;
        let mut lease = body.clone();
        lease["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.lease = Some(Arc::new(lease.clone()));
        Answer::Record(lease)
    }

    /// Who may write now.
    fn writers(&self) -> Vec<usize> {
        let holds = |p: &Process| !p.gone && p.candidate.hold(p.clock(self.now)).is_some();
        (0..self.processes.len()).filter(|i| holds(&self.processes[*i])).collect()
    }

    /// What is wrong with this state.
    fn breach(&self) -> Option<String> {
        let writers = self.writers();
        if writers.len() > 1 {
            return Some(format!("{writers:?} may write at the same time"));
        }
        let writer = &self.processes[*writers.first()?];
        let lease = self.lease.as_deref()?;
        let own = lease["spec"]["holderIdentity"] == writer.candidate.me;
        (!own).then(|| format!("{writers:?} may write, and the Lease has {}", lease["spec"]))
    }

    /// What tells this state from others: times as they are seen from now, versions and epochs as they compare.
    fn key(&self) -> u64 {
        let mut h = DefaultHasher::new();
        let holder = self.lease.as_ref().map(|l| l["spec"]["holderIdentity"].as_str());
        (self.faults, holder).hash(&mut h);
        for (i, p) in self.processes.iter().enumerate() {
            let at = p.clock(self.now);
            let ago = |m: Moment| at.since(m).min(DURATION);
            let c = &p.candidate;
            let version = |lease: &Value| lease["metadata"]["resourceVersion"].as_str()?.parse::<u64>().ok();
            let epoch = |lease: &Value| lease["spec"]["leaseTransitions"].as_u64();
            let known = if let Known::There(record) = &c.known { Some(record) } else { None };
            let hold = c.hold(at);
            let ticket = p.pass.map(|s| s.ticket);
            let request = p.flight.as_ref().map(|f| &f.request);
            let reply = p.flight.as_ref().and_then(|f| f.reply.as_ref());
            let lease = if let Some(Answer::Record(lease)) = reply { Some(lease) } else { None };
            let bodies = [request, p.stray.as_ref()].map(|r| r.and_then(|r| r.body.as_ref()));
            let [sent, stray] = bodies;
            let versions = [
                Some(self.version),
                known.map(|r| r.version.parse().unwrap()),
                sent.and_then(version),
                stray.and_then(version),
                lease.and_then(version),
            ];
            let epochs = [
                self.lease.as_deref().and_then(epoch),
                known.map(|r| r.epoch),
                hold.map(|h| h.epoch),
                Some(c.highest),
                c.owner.as_ref().map(|o| o.0),
                ticket.and_then(|t| t.bound),
                sent.and_then(epoch),
                stray.and_then(epoch),
                lease.and_then(epoch),
            ];
            (ranks(versions), ranks(epochs), p.watched < self.version, p.gone).hash(&mut h);
            (c.doubtful, c.mine, c.mine_before, c.owner.as_ref().map(|o| &o.1)).hash(&mut h);
            match &c.known {
                Known::Nothing => 0.hash(&mut h),
                Known::Absent(_) => 1.hash(&mut h),
                Known::There(r) if r.holder.is_empty() || r.holder == c.me => (2, &r.holder).hash(&mut h),
                // When it lapsed more than the grace ago, the lease can be had.
                Known::There(r) => {
                    (3, &r.holder, r.lapses.since(at), at.since(r.lapses).min(GRACE)).hash(&mut h);
                }
            }
            hold.map(|t| ago(t.sent)).hash(&mut h);
            let wish = c.wish.filter(|w| at <= w.until + GRACE);
            wish.map(|w| (at.since(w.since).min(GRACE), at.since(w.until), w.until.since(at))).hash(&mut h);
            let pass = p.pass.map(|s| {
                let behind = (c.tenures - s.ticket.known).min(2);
                (behind, s.others == self.others(i), s.wrote_in)
            });
            pass.map(|p| (p.0, p.1, p.2.is_some())).hash(&mut h);
            request.map(|r| (r.purpose, r.method.as_str())).hash(&mut h);
            let reply = reply.map(std::mem::discriminant);
            (p.flight.as_ref().map(|f| ago(f.sent)), reply).hash(&mut h);
            p.stray.as_ref().map(|r| (r.purpose, r.method.as_str())).hash(&mut h);
        }
        h.finish()
    }
}

/// The place of each number among them.
fn ranks<const N: usize>(numbers: [Option<u64>; N]) -> [usize; N] {
    numbers.map(|n| {
        if n.is_none() { N } else { numbers.iter().filter(|other| other.is_some() && **other < n).count() }
    })
}

impl Process {
    fn send(&mut self, step: Step, at: Moment) {
        let request = self.candidate.request(step, Timestamp::UNIX_EPOCH);
        self.flight = request.map(|request| Flight { request: Arc::new(request), sent: at, reply: None });
    }
}

/// What an exploration found.
struct Explored {
    states: usize,
    depth: usize,
    breach: Option<(String, Vec<Action>)>,
}

/// Goes through all states that can be reached with at most `depth` actions, and looks at each with `check`.
fn explore(start: World, depth: usize, check: &dyn Fn(&World) -> Option<String>) -> Explored {
    let mut seen = HashSet::from([start.key()]);
    // How each state was reached: the one before it, and the action.
    let mut ways: Vec<(usize, Action)> = Vec::new();
    let mut level = vec![(start, usize::MAX)];
    for reached in 0..depth {
        let mut next = Vec::new();
        for (world, from) in &level {
            for action in world.actions() {
                let mut after = world.clone();
                after.act(action);
                if !seen.insert(after.key()) {
                    continue;
                }
                ways.push((*from, action));
                let here = ways.len() - 1;
                if let Some(breach) = check(&after) {
                    let way = way_to(&ways, here);
                    return Explored { states: seen.len(), depth: reached + 1, breach: Some((breach, way)) };
                }
                next.push((after, here));
            }
        }
        if next.is_empty() {
            return Explored { states: seen.len(), depth: reached + 1, breach: None };
        }
        level = next;
    }
    Explored { states: seen.len(), depth, breach: None }
}

fn way_to(ways: &[(usize, Action)], end: usize) -> Vec<Action> {
    let mut way: Vec<Action> =
        std::iter::successors(ways.get(end), |step| ways.get(step.0)).map(|s| s.1).collect();
    way.reverse();
    way
}

#[expect(clippy::print_stderr, reason = "how much was explored is worth a line")]
fn tell(what: &str) {
    eprintln!("{what}");
}

fn assert_sound(
    rates: &[u32],
    faults: u8,
    depth: usize,
    check: &dyn Fn(&World) -> Option<String>,
) -> Explored {
    let found = explore(World::new(rates, faults), depth, check);
    let (states, deep) = (found.states, found.depth);
    tell(&format!("clocks at {rates:?} ‰, {faults} faults: {states} states, {deep} actions deep"));
    if let Some((breach, way)) = &found.breach {
        panic!("{breach}, after {way:?}");
    }
    found
}

/// The process that is alone gets the lease within the duration, the grace and one tick, by its own clock.
fn starves(world: &World, i: usize) -> Option<String> {
    let mut world = world.clone();
    for (j, other) in world.processes.iter_mut().enumerate() {
        other.gone |= j != i;
        (other.flight, other.stray) = (None, None);
    }
    if world.processes[i].gone {
        return None;
    }
    world.act(Action::Watch(i));
    let begun = world.processes[i].clock(world.now);
    loop {
        // Twice: a pass that is void is followed by another.
        for _ in 0..4 {
            world.next(i);
            world.finish(i);
            if world.processes[i].pass.is_some_and(|p| p.wrote_in.is_some()) {
                return None;
            }
        }
        let waited = world.processes[i].clock(world.now).since(begun);
        if waited > DURATION + GRACE + TICK {
            return Some(format!(
                "{i} is alone and has waited {waited:?}: {:?}",
                world.processes[i].candidate
            ));
        }
        world.act(Action::Tick);
    }
}

#[test]
fn two_with_clocks_that_run_apart_never_write_at_the_same_time() {
    // To the end: no further state can be reached.
    let found = assert_sound(&[950, 1050], 0, usize::MAX, &World::breach);
    assert!(found.states > 10_000, "the model does not move");
}

#[test]
fn with_requests_that_are_late_lost_or_done_unheard_neither() {
    assert_sound(&[950, 1050], 2, 7, &World::breach);
    assert_sound(&[1050, 950], 1, 9, &World::breach);
}

#[test]
fn three_neither() {
    assert_sound(&[950, 1000, 1050], 1, 6, &World::breach);
    assert_sound(&[1000, 1000, 1000], 0, 8, &World::breach);
}

#[test]
fn nor_on_long_ways_that_chance_chooses() {
    let (mut writes, mut faults) = (0, 0);
    for seed in 1..=2000_u64 {
        let mut dice = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut below = |bound: usize| {
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            usize::try_from(dice % bound as u64).unwrap()
        };
        let rates: Vec<u32> =
            (0..2 + below(2)).map(|_| 950 + 50 * u32::try_from(below(3)).unwrap()).collect();
        let mut world = World::new(&rates, 20);
        for _ in 0..150 {
            let actions = world.actions();
            // Time goes on in a quarter of the steps, or nothing would ever lapse, and few leave, or soon all are gone.
            let action = if below(4) == 0 { Action::Tick } else { actions[below(actions.len())] };
            if matches!(action, Action::Leave(_)) && below(20) > 0 {
                continue;
            }
            world.act(action);
            assert_eq!(world.breach(), None, "seed {seed}, after {action:?}");
            writes += usize::from(!world.writers().is_empty());
        }
        faults += 20 - usize::from(world.faults);
        for i in 0..world.processes.len() {
            assert_eq!(starves(&world, i), None, "seed {seed}");
        }
    }
    tell(&format!("2000 ways of 150 steps, {writes} of them with a writer, {faults} faults"));
    assert!(writes > 50_000 && faults > 5000, "{writes} and {faults} only");
}

#[test]
fn one_that_is_alone_gets_the_lease_in_time() {
    let check = |world: &World| starves(world, 0).or_else(|| starves(world, 1));
    assert_sound(&[950, 1050], 1, 7, &check);
}

#[test]
fn clocks_that_run_too_far_apart_are_found_out() {
    let found = explore(World::new(&[500, 2000], 0), usize::MAX, &World::breach);
    assert!(found.breach.is_some(), "the model finds nothing, whatever the rules");
}
