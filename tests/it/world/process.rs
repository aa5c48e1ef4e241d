//! One operator process: the real main loop's memory, fed by its own, possibly late, view of the server's log.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use belay::act::{self, ActError, Hold};
use belay::api::{BrakeForm, OPERATOR_USER};
use belay::clock::Moment;
use belay::decide::{Brake, Effect};
use belay::observe::{Key, Kind, News};
use belay::operator::candidate::{Answer, Candidate, Step, Ticket};
use belay::operator::{Core, Ended, Look, Pass, Report, judge};
use jiff::Timestamp;
use serde_json::Value;

use super::clock;
use super::server::{NAMESPACE, Refusal, Server, Sort};

/// The name of the Lease.
pub const LEASE: &str = "belay";
/// Most requests about the lease for one write.
const TRIES: usize = 6;

/// What goes wrong with one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The process is killed before it is sent.
    CrashBefore,
    /// The process is killed after it was done.
    CrashAfter,
    /// It is done so many times, and no answer comes.
    Lost(u8),
    /// It is refused with this code.
    Refused(u16),
}

impl Fault {
    /// Every one.
    pub const ALL: [Self; 11] = [
        Self::CrashBefore,
        Self::CrashAfter,
        Self::Lost(0),
        Self::Lost(1),
        Self::Lost(2),
        Self::Refused(403),
        Self::Refused(404),
        Self::Refused(409),
        Self::Refused(429),
        Self::Refused(500),
        Self::Refused(504),
    ];
}

/// The writes that are left of a pass.
#[derive(Clone, Debug)]
struct Flight {
    key: Key,
    effects: VecDeque<Effect>,
}

/// An operator process.
#[derive(Clone, Debug)]
pub struct Process {
    /// As events name it.
    pub name: String,
    core: Core,
    candidate: Candidate,
    /// Of the pass that is under way.
    ticket: Ticket,
    /// The tenure in which the next request may be sent, once it was made sure of.
    entitled: Option<Hold>,
    /// How much of the log it has been told, by kind.
    seen: BTreeMap<Sort, usize>,
    flight: Option<Flight>,
    /// Looks under way, and since when in milliseconds of the world.
    looks: VecDeque<(i64, Key, Look)>,
    /// Checks that run: their Rollout, the uid of their Release, and their guard.
    checks: VecDeque<(Key, String, String)>,
    /// Milliseconds that its clock is ahead.
    pub skew: i64,
    /// How fast its monotonic clock runs, in per mille.
    pub rate: u32,
    /// It does nothing, and does not know it.
    pub frozen: bool,
    /// Kinds whose watches tell it nothing.
    pub deaf: BTreeSet<Sort>,
    /// Kinds that are not listed yet.
    unlisted: BTreeSet<Sort>,
    /// What the last pass gave as reasons and wanted to write, for messages.
    pub reasons: Vec<String>,
}

/// What became of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// There was nothing to send.
    Nothing,
    /// A request was sent, and the process goes on.
    Yes,
    /// The process is dead.
    Died,
}

impl Process {
    /// Starts and lists every kind, as of the log's positions in `at`; of kinds that are not in there, as of now.
    pub fn start(name: &str, server: &Server, at: &BTreeMap<Sort, usize>, skew: i64) -> Self {
        let candidate = Candidate::new(NAMESPACE.to_owned(), LEASE.to_owned(), name.to_owned());
        let mut process = Self {
            name: name.to_owned(),
            core: Core::default(),
            ticket: candidate.ticket(),
            entitled: None,
            candidate,
            rate: 1000,
            seen: BTreeMap::new(),
            flight: None,
            looks: VecDeque::new(),
            checks: VecDeque::new(),
            skew,
            frozen: false,
            deaf: BTreeSet::new(),
            unlisted: BTreeSet::new(),
            reasons: Vec::new(),
        };
        let now = process.time(server.now);
        for sort in Sort::WATCHED {
            match at.get(&sort).copied().unwrap_or(server.log.len()) {
                // The watch of routes begins when a Rollout is known that names one: they are listed last.
                0 if sort == Sort::Route => drop(process.unlisted.insert(sort)),
                until => process.list(server, sort, until),
            }
        }
        // No Rollout of this world names a template.
        for kind in [Kind::Templates, Kind::ClusterTemplates] {
            process.core.take_news(News::Begin(kind), now);
            process.core.take_news(News::Finish(kind), now);
        }
        process.core.set_brake(brake(server), now);
        process
    }

    /// Lists one kind, as of a position in the log.
    fn list(&mut self, server: &Server, sort: Sort, until: usize) {
        let (now, kind) = (self.time(server.now), sort.watched().unwrap());
        let mut objects: BTreeMap<&str, &Arc<Value>> = BTreeMap::new();
        for entry in server.log[..until].iter().filter(|e| e.sort == sort) {
            let name = entry.object["metadata"]["name"].as_str().unwrap();
            if entry.deleted {
                objects.remove(name);
            } else {
                objects.insert(name, &entry.object);
            }
        }
        self.core.take_news(News::Begin(kind), now);
        for object in objects.into_values() {
            self.core.take_news(News::Put(kind, Box::new((**object).clone())), now);
        }
        self.core.take_news(News::Finish(kind), now);
        self.seen.insert(sort, until);
    }

    /// What its clock says.
    pub fn time(&self, now: i64) -> Timestamp {
        clock::time(now + self.skew)
    }

    /// What its monotonic clock says: it begins at another time in each process, and nobody sets it.
    fn moment(&self, now: i64) -> Moment {
        let begun =
            i64::try_from(self.name.len() + self.name.bytes().map(usize::from).sum::<usize>()).unwrap();
        let micros = (now + begun) * i64::from(self.rate);
        Moment::new(std::time::Duration::from_micros(micros.unsigned_abs()))
    }

    /// Is told how the Lease looks.
    pub fn hear_of_lease(&mut self, server: &Server) {
        let at = self.moment(server.now);
        self.candidate.learn(server.get(Sort::Lease, LEASE).map(|l| &**l), at);
        if self.candidate.is_free() {
            self.core.lease_is_free(self.time(server.now));
        }
    }

    /// Makes sure that it may write, as the operator does before each write. False: the pass has ended.
    pub fn hold_lease(&mut self, server: &mut Server) -> bool {
        if self.entitled.is_some() {
            // It did, and was stopped since then without knowing it.
            return true;
        }
        for _ in 0..TRIES {
            let at = self.moment(server.now);
            let ended = match self.candidate.evaluate(&mut self.ticket, at) {
                Step::Fine(hold) => {
                    self.entitled = Some(hold);
                    return true;
                }
                Step::Wait(until) => {
                    let wait = i64::try_from(until.since(at).as_millis()).unwrap() + 1;
                    Some(Ended::NotLeader(self.time(server.now + wait)))
                }
                Step::Lost => Some(Ended::Stale),
                step @ (Step::Renew | Step::Acquire | Step::Look) => {
                    self.ask_for_lease(server, step);
                    None
                }
            };
            if let Some(ended) = ended {
                self.end_pass(ended, server.now);
                return false;
            }
        }
        self.end_pass(Ended::Failed, server.now);
        false
    }

    fn ask_for_lease(&mut self, server: &mut Server, step: Step) {
        let at = self.moment(server.now);
        let Some(request) = self.candidate.request(step, self.time(server.now)) else { return };
        let answer = match (request.method.as_str(), request.body) {
            ("GET", _) => {
                server.get(Sort::Lease, LEASE).map_or(Answer::Absent, |l| Answer::Record((**l).clone()))
            }
            ("POST", Some(body)) => record(server.create(&self.name, Sort::Lease, body)),
            (_, body) => record(server.replace(&self.name, Sort::Lease, LEASE, body.unwrap_or_default())),
        };
        self.candidate.answered(request.purpose, at, &answer, at);
    }

    /// Whether the fence stands that is looked at when a request is sent: the tenure lasts, by its own clock.
    pub fn may_send(&self, now: i64) -> bool {
        let at = self.moment(now);
        self.candidate.hold(at).is_some_and(|hold| self.entitled.is_some_and(|e| e.epoch == hold.epoch))
    }

    fn end_pass(&mut self, ended: Ended, now: i64) {
        if let Some(flight) = self.flight.take() {
            self.report(Report::Ended { key: flight.key, ended }, now);
        }
    }

    fn report(&mut self, report: Report, now: i64) {
        self.core.others_wrote(self.candidate.others());
        self.core.take_report(report, self.time(now));
    }

    /// Is told the next entries of one kind, at most `most`. True when there were any.
    pub fn hear(&mut self, server: &Server, sort: Sort, most: usize) -> bool {
        if self.unlisted.remove(&sort) {
            self.list(server, sort, server.log.len());
            return true;
        }
        let now = self.time(server.now);
        let kind = sort.watched().unwrap();
        let from = self.seen[&sort];
        let mut heard = 0;
        let mut upto = from;
        for entry in &server.log[from..] {
            upto += 1;
            if entry.sort != sort {
                continue;
            }
            let object = Box::new((*entry.object).clone());
            let news = if entry.deleted { News::Remove(kind, object) } else { News::Put(kind, object) };
            self.core.take_news(news, now);
            heard += 1;
            if heard == most {
                break;
            }
        }
        self.seen.insert(sort, upto);
        heard > 0
    }

    /// Is told everything.
    pub fn hear_all(&mut self, server: &Server) -> bool {
        let now = self.time(server.now);
        self.core.set_brake(brake(server), now);
        self.hear_of_lease(server);
        let kinds: Vec<Sort> = Sort::WATCHED.into_iter().filter(|s| !self.deaf.contains(s)).collect();
        kinds.into_iter().fold(false, |any, sort| self.hear(server, sort, usize::MAX) | any)
    }

    /// Whether a pass is under way.
    pub fn busy(&self) -> bool {
        self.flight.is_some()
    }

    /// Decides, if there is anything to decide and no pass is under way. True when it did.
    pub fn think(&mut self, now: i64) -> bool {
        if self.flight.is_some() {
            return false;
        }
        self.ticket = self.candidate.ticket();
        self.core.others_wrote(self.candidate.others());
        let Some(Pass { key, effects, look, checks, reasons, .. }) = self.core.next_pass(self.time(now))
        else {
            return false;
        };
        self.reasons = reasons.iter().map(ToString::to_string).collect();
        self.reasons.extend(effects.iter().map(|e| e.name().to_owned()));
        if let Some(look) = look {
            self.looks.push_back((now, key.clone(), look));
        }
        if let Some(checks) = checks {
            let each = checks.guards.into_iter().map(|guard| (key.clone(), checks.release.clone(), guard));
            self.checks.extend(each);
        }
        if !effects.is_empty() {
            self.flight = Some(Flight { key, effects: effects.into() });
        }
        true
    }

    /// The next request, for messages.
    pub fn next_effect(&self) -> Option<&Effect> {
        self.flight.as_ref()?.effects.front()
    }

    /// Sends the next request of the pass, with a fault if there is one.
    pub fn send(&mut self, server: &mut Server, fault: Option<Fault>) -> Sent {
        let now = self.time(server.now);
        let fenced = !self.may_send(server.now);
        self.entitled = None;
        let Some(flight) = &mut self.flight else { return Sent::Nothing };
        let Some(effect) = flight.effects.pop_front() else { return Sent::Nothing };
        let request = act::request(&effect, now, &self.name);
        let answer = match fault {
            _ if fenced => Err(ActError::Fenced),
            Some(Fault::CrashBefore) => return Sent::Died,
            Some(Fault::CrashAfter) => {
                drop(execute(server, &request));
                return Sent::Died;
            }
            Some(Fault::Lost(times)) => {
                for _ in 0..times {
                    drop(execute(server, &request));
                }
                Err(ActError::Deadline)
            }
            Some(Fault::Refused(code)) => {
                act::judge(Err(api_error(&Refusal { code, message: "injected".to_owned() })))
            }
            None => act::judge(execute(server, &request).map_err(|refusal| api_error(&refusal))),
        };
        let (report, ended) = judge(&effect, request.resource, answer);
        if let Some(report) = report {
            self.report(report, server.now);
        }
        let done = self.flight.as_ref().is_none_or(|f| f.effects.is_empty());
        match ended {
            Err(ended) => self.end_pass(ended, server.now),
            Ok(()) if done => self.end_pass(Ended::Written, server.now),
            Ok(()) => {}
        }
        Sent::Yes
    }

    /// The oldest look that is under way.
    pub fn take_look(&mut self) -> Option<(i64, Key, Look)> {
        self.looks.pop_front()
    }

    /// The oldest check that runs.
    pub fn take_check(&mut self) -> Option<(Key, String, String)> {
        self.checks.pop_front()
    }

    pub fn looked(&mut self, report: Report, now: i64) {
        self.report(report, now);
    }

    /// When it wants to wake, in milliseconds of the world.
    pub fn next_timer(&self) -> Option<i64> {
        self.core.queue().next().map(|at| clock::millis(at) - self.skew)
    }
}

fn brake(server: &Server) -> Brake {
    if server.braked {
        Brake::Engaged(BrakeForm::Policy)
    } else {
        Brake::Missing(BrakeForm::Policy, "the policy does not exist".to_owned())
    }
}

fn execute(server: &mut Server, request: &act::Request) -> Result<Value, Refusal> {
    let sort = Sort::from(request.resource);
    match request.verb {
        act::Verb::Create => server.create(OPERATOR_USER, sort, request.body.clone()),
        act::Verb::Patch => server.patch(OPERATOR_USER, sort, &request.name, request.status, &request.body),
        act::Verb::Read => match server.get(sort, &request.name) {
            Some(object) => Ok((**object).clone()),
            None => super::server::refuse(404, "not there"),
        },
        act::Verb::Delete => {
            let uid = request.body.pointer("/preconditions/uid").and_then(Value::as_str);
            let version = request.body.pointer("/preconditions/resourceVersion");
            let object = server.get(sort, &request.name);
            if object.is_some_and(|o| version.is_some_and(|seen| *seen != o["metadata"]["resourceVersion"])) {
                return super::server::refuse(409, "the version in the precondition is another one");
            }
            server.delete(OPERATOR_USER, sort, &request.name, uid)?;
            // What a finalizer keeps is the answer.
            let kept = server.get(sort, &request.name).map(|object| (**object).clone());
            Ok(kept.unwrap_or_else(|| serde_json::json!({"kind": "Status", "status": "Success"})))
        }
    }
}

fn record(answer: Result<Value, Refusal>) -> Answer {
    match answer {
        Ok(record) => Answer::Record(record),
        Err(refusal) if refusal.code == 404 => Answer::Absent,
        Err(_) => Answer::Conflict,
    }
}

fn api_error(refusal: &Refusal) -> kube::Error {
    let status = kube::core::Status::failure(&refusal.message, "").with_code(refusal.code);
    kube::Error::Api(Box::new(status))
}
