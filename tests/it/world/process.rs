//! One operator process: the real main loop's memory, fed by its own, possibly late, view of the server's log.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use belay::act::{self, ActError};
use belay::api::{BrakeForm, OPERATOR_USER};
use belay::decide::{Brake, Effect};
use belay::observe::{Key, News};
use belay::operator::{Core, Ended, Look, Pass, Report, judge};
use jiff::Timestamp;
use serde_json::Value;

use super::clock;
use super::server::{Refusal, Server, Sort};

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
    /// How much of the log it has been told, by kind.
    seen: BTreeMap<Sort, usize>,
    flight: Option<Flight>,
    /// Looks under way, and since when in milliseconds of the world.
    looks: VecDeque<(i64, Key, Look)>,
    /// Milliseconds that its clock is ahead.
    pub skew: i64,
    /// It does nothing, and does not know it.
    pub frozen: bool,
    /// Kinds whose watches tell it nothing.
    pub deaf: BTreeSet<Sort>,
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
        let mut process = Self {
            name: name.to_owned(),
            core: Core::default(),
            seen: BTreeMap::new(),
            flight: None,
            looks: VecDeque::new(),
            skew,
            frozen: false,
            deaf: BTreeSet::new(),
            reasons: Vec::new(),
        };
        let now = process.time(server.now);
        for sort in Sort::WATCHED {
            let kind = sort.watched().unwrap();
            let until = at.get(&sort).copied().unwrap_or(server.log.len());
            let mut objects: BTreeMap<&str, &Arc<Value>> = BTreeMap::new();
            for entry in server.log[..until].iter().filter(|e| e.sort == sort) {
                let name = entry.object["metadata"]["name"].as_str().unwrap();
                if entry.deleted {
                    objects.remove(name);
                } else {
                    objects.insert(name, &entry.object);
                }
            }
            process.core.take_news(News::Begin(kind), now);
            for object in objects.into_values() {
                process.core.take_news(News::Put(kind, Box::new((**object).clone())), now);
            }
            process.core.take_news(News::Finish(kind), now);
            process.seen.insert(sort, until);
        }
        process.core.set_brake(brake(server), now);
        process
    }

    /// What its clock says.
    pub fn time(&self, now: i64) -> Timestamp {
        clock::time(now + self.skew)
    }

    /// Is told the next entries of one kind, at most `most`. True when there were any.
    pub fn hear(&mut self, server: &Server, sort: Sort, most: usize) -> bool {
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
        let Some(Pass { key, effects, look, reasons, .. }) = self.core.next_pass(self.time(now)) else {
            return false;
        };
        self.reasons = reasons.iter().map(ToString::to_string).collect();
        self.reasons.extend(effects.iter().map(|e| e.name().to_owned()));
        if let Some(look) = look {
            self.looks.push_back((now, key.clone(), look));
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

    /// Gives up the pass: another process writes until then.
    pub fn yield_until(&mut self, now: i64, until: i64) {
        if let Some(flight) = self.flight.take() {
            let ended = Ended::NotLeader(self.time(until));
            self.core.take_report(Report::Ended { key: flight.key, ended }, self.time(now));
        }
    }

    /// Sends the next request of the pass, with a fault if there is one.
    pub fn send(&mut self, server: &mut Server, fault: Option<Fault>) -> Sent {
        let now = self.time(server.now);
        let Some(flight) = &mut self.flight else { return Sent::Nothing };
        let Some(effect) = flight.effects.pop_front() else { return Sent::Nothing };
        let request = act::request(&effect, now, &self.name);
        let answer = match fault {
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
            self.core.take_report(report, now);
        }
        let Some(flight) = &self.flight else { return Sent::Yes };
        let ended = match ended {
            Err(ended) => Some(ended),
            Ok(()) => flight.effects.is_empty().then_some(Ended::Written),
        };
        if let Some(ended) = ended {
            let key = flight.key.clone();
            self.flight = None;
            self.core.take_report(Report::Ended { key, ended }, now);
        }
        Sent::Yes
    }

    /// The oldest look that is under way.
    pub fn take_look(&mut self) -> Option<(i64, Key, Look)> {
        self.looks.pop_front()
    }

    pub fn looked(&mut self, report: Report, now: i64) {
        self.core.take_report(report, self.time(now));
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
            server.delete(OPERATOR_USER, sort, &request.name, uid)?;
            Ok(serde_json::json!({"kind": "Status", "status": "Success"}))
        }
    }
}

fn api_error(refusal: &Refusal) -> kube::Error {
    let status = kube::core::Status::failure(&refusal.message, "").with_code(refusal.code);
    kube::Error::Api(Box::new(status))
}
