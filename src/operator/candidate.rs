//! Who writes: the rules by which several processes agree on one. Pure.
//!
//! Purpose: from the records of the Lease that were seen, and when, to the next request about it and to the right
//! to write. May touch: nothing but JSON. Must never: read a clock, or do I/O.
//!
//! # The rules
//!
//! A tenure begins when a process writes itself into the Lease with a number that is one higher than the last, its
//! *epoch*. The write carries the `resourceVersion` of the record that it goes on from, so of several processes
//! that try only one succeeds, and each knows which record it replaced.
//!
//! - The holder may write until [`DURATION`] − [`MARGIN`] (2.5 s) after it **sent** the request that took or renewed
//!   the lease. While it has something to write it renews every [`RENEWAL`] (1 s), so a slow write is not cut off;
//!   at rest it lets the lease lapse, and nothing is asked.
//! - Another process may take the lease when the record has stood still for [`DURATION`] (3 s) since it **saw** it
//!   change, and [`GRACE`] (1 s) have passed since then and since it first wanted to write. The grace is for the last
//!   holder: what makes the other want to write makes it want to write as well, and it need not wait. So the lease
//!   does not go back and forth, and a process that is gone is replaced within 4 s and a request.
//! - A lease that was given back (no holder) is taken at once.
//!
//! # Why two never write at the same time
//!
//! The record that the other one sees was written after it was sent; so its 3 s begin later than the holder's 2.5 s,
//! by whatever clock, and the grace comes on top. Both are measured as a time that passed, each by its own monotonic
//! clock, never as a time of day: clocks may be set apart as far as they like, and a watch that lags only makes the
//! other wait longer. The one assumption is that they *run* alike: 2.5 s of the slowest clock must be over before
//! 3 s of the fastest, which holds as long as each is within 9 % of the true time (within 20 % with the grace). What
//! it does not cover is a clock that stands still while others go on, as that of a virtual machine that is put aside
//! and resumed as if no time had passed.
//!
//! A process that was stopped for longer than its tenure finds its deadline passed when it goes on. Whatever it
//! decided in that tenure it drops, even if it gets the lease again: a pass is bound to the tenure that it began in
//! (see [`Ticket`]).
//!
//! Somebody who deletes the Lease while it is held ends the tenure: the holder stops when it sees that, and those
//! who knew it was held wait as if it still were. Only a process that never saw the record would not.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::act::Hold;
use crate::clock::Moment;

/// How long a record entitles its holder. Whole seconds, as the Lease has it.
pub const DURATION: Duration = Duration::from_secs(3);
/// The holder stops writing this long before that: clocks that run up to 9 % too slow or too fast are no harm.
pub const MARGIN: Duration = Duration::from_millis(500);
/// How long a process that could take a lapsed lease leaves it to its last holder.
pub const GRACE: Duration = Duration::from_secs(1);
/// The lease is renewed after this time, while something is being written.
pub const RENEWAL: Duration = Duration::from_secs(1);
/// A write is started only with this much time left; with less the lease is renewed first.
const START: Duration = Duration::from_secs(1);
/// Longest duration that is believed of another process's record.
const LONGEST: u64 = 3600;

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Write: the lease is held for long enough.
    Fine(Hold),
    /// Renew it.
    Renew,
    /// Take it.
    Acquire,
    /// Read it: what was seen last is known to be out of date.
    Look,
    /// Another process has it, or had it last and may still want it: nothing before then.
    Wait(Moment),
    /// What was decided is void: the tenure it was decided in is over. Decide anew.
    Lost,
}

/// What a pass of decisions is bound to: it may begin in the tenure that was known when it was decided, or in the
/// one that this process took right after that; and it ends with the tenure that it began to write in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    known: u64,
    bound: Option<u64>,
}

impl Ticket {
    /// Whether anything may have been written by it.
    pub fn is_bound(&self) -> bool {
        self.bound.is_some()
    }
}

/// What a request about the lease is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// To learn the record.
    Look,
    /// To take or renew the lease.
    Hold,
    /// To give it back.
    Release,
}

/// A request about the lease.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// What it is for.
    pub purpose: Purpose,
    /// How.
    pub method: http::Method,
    /// Where.
    pub path: String,
    /// The Lease, unless it is read.
    pub body: Option<Value>,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Done: the record as it is now.
    Record(Value),
    /// There is no such Lease.
    Absent,
    /// Somebody else was quicker: nothing was written.
    Conflict,
    /// It failed, or nobody knows.
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Hash)]
enum Known {
    /// Nothing was seen yet.
    Nothing,
    /// There is none; one that was held was deleted, and counts until then.
    Absent(Option<Moment>),
    There(Record),
}

#[derive(Clone, Debug, PartialEq, Hash)]
struct Record {
    /// As it was read: what others put there is written back.
    object: Arc<Value>,
    version: String,
    /// Empty when it was given back.
    holder: String,
    epoch: u64,
    /// When it ceases to count, by what it says itself, since it was seen to change.
    lapses: Moment,
}

impl Record {
    fn read(object: &Value, seen: Moment) -> Self {
        let spec = &object["spec"];
        let seconds = spec["leaseDurationSeconds"].as_u64().unwrap_or(DURATION.as_secs());
        Self {
            version: object["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned(),
            holder: spec["holderIdentity"].as_str().unwrap_or_default().to_owned(),
            epoch: spec["leaseTransitions"].as_u64().unwrap_or(0),
            lapses: seen + Duration::from_secs(seconds.clamp(1, LONGEST)),
            object: Arc::new(object.clone()),
        }
    }

    /// Whether this is what came after the other. Versions of one object are numbers that grow; if ever they are
    /// not, any other one is taken for news.
    fn follows(&self, other: &Self) -> bool {
        match (self.version.parse::<u64>(), other.version.parse::<u64>()) {
            (Ok(this), Ok(other)) => this > other,
            _ => self.version != other.version,
        }
    }
}

/// A wish to write that waits for its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Wish {
    since: Moment,
    /// When to ask again; a wish that is not repeated then has gone away.
    until: Moment,
}

/// One process that may write.
#[derive(Clone, Debug, PartialEq, Hash)]
pub struct Candidate {
    namespace: String,
    name: String,
    /// No other process has this name.
    me: String,
    known: Known,
    /// Whether the server is known to have another record than `known`, or may have.
    doubtful: bool,
    hold: Option<Hold>,
    wish: Option<Wish>,
    /// The highest epoch that was ever seen.
    highest: u64,
    /// Epoch and holder of the last tenure that is known; the holder is empty if it was over when it was seen.
    owner: Option<(u64, String)>,
    /// Tenures that this process knows of, and how many of them were others'.
    tenures: u64,
    others: u64,
    /// Whether the last of them is its own, and whether the one before that was.
    mine: bool,
    mine_before: bool,
}

impl Candidate {
    /// A process that has seen nothing yet. `me` must be a name that no other process has or had.
    pub fn new(namespace: String, name: String, me: String) -> Self {
        Self {
            namespace,
            name,
            me,
            known: Known::Nothing,
            doubtful: false,
            hold: None,
            wish: None,
            highest: 0,
            owner: None,
            tenures: 0,
            others: 0,
            // Nobody has written before the first tenure, so nothing is to be learnt from anybody.
            mine: true,
            mine_before: true,
        }
    }

    /// Takes in what was seen of the Lease, by the watch or by a request. In any order: what is older than what is
    /// known is left out.
    pub fn learn(&mut self, seen: Option<&Value>, at: Moment) {
        let Some(object) = seen else { return self.learn_absence(at) };
        let record = Record::read(object, at);
        if let Known::There(known) = &self.known
            && !record.follows(known)
        {
            return;
        }
        self.doubtful = false;
        // To give a lease back, or to renew it, does not begin a tenure.
        let goes_on = self.owner.as_ref().is_some_and(|(epoch, owner)| {
            *epoch == record.epoch && (record.holder.is_empty() || record.holder == *owner)
        });
        if !goes_on {
            self.owner = Some((record.epoch, record.holder.clone()));
            self.tenures += 1;
            self.mine_before = self.mine;
            self.mine = record.holder == self.me;
            self.others += u64::from(!self.mine);
        }
        self.highest = self.highest.max(record.epoch);
        if self.hold.is_some_and(|h| record.holder != self.me || record.epoch != h.epoch) {
            self.hold = None;
        }
        self.known = Known::There(record);
    }

    fn learn_absence(&mut self, at: Moment) {
        self.doubtful = false;
        self.hold = None;
        self.known = match &self.known {
            Known::Absent(until) => Known::Absent(*until),
            Known::There(record) if !record.holder.is_empty() && record.holder != self.me => {
                Known::Absent(Some(record.lapses.max(at + DURATION)))
            }
            Known::There(_) | Known::Nothing => Known::Absent(None),
        };
    }

    /// For a pass that is decided now.
    pub fn ticket(&self) -> Ticket {
        Ticket { known: self.tenures, bound: None }
    }

    /// How many tenures of other processes are known. When it grows, what was remembered is out of date.
    pub fn others(&self) -> u64 {
        self.others
    }

    /// The tenure that this process has now.
    pub fn hold(&self, at: Moment) -> Option<Hold> {
        self.hold.filter(|h| h.lasts(at))
    }

    /// Who is in the Lease; empty when nobody is.
    pub fn holder(&self) -> &str {
        if let Known::There(record) = &self.known { &record.holder } else { "" }
    }

    /// Whether the lease may be taken with no wait.
    pub fn is_free(&self) -> bool {
        match &self.known {
            Known::Nothing => false,
            Known::Absent(until) => until.is_none(),
            Known::There(record) => record.holder.is_empty() || record.holder == self.me,
        }
    }

    /// What to do for a pass that has something to write.
    pub fn evaluate(&mut self, ticket: &mut Ticket, at: Moment) -> Step {
        let Some(hold) = self.hold(at) else { return self.without(*ticket, at) };
        let fits = match ticket.bound {
            Some(epoch) => epoch == hold.epoch,
            // The tenure that this process took after its own: nobody else has written in between.
            None => ticket.known == self.tenures || (ticket.known + 1 == self.tenures && self.mine_before),
        };
        if !fits {
            return Step::Lost;
        }
        if hold.deadline.since(at) < START {
            return self.renew();
        }
        ticket.bound = Some(hold.epoch);
        Step::Fine(hold)
    }

    /// What to do while something is being written in the tenure `epoch`: [`Step::Wait`] until the next renewal.
    pub fn keep(&self, epoch: u64, at: Moment) -> Step {
        match self.hold(at).filter(|h| h.epoch == epoch) {
            None => Step::Lost,
            Some(hold) if at.since(hold.sent) < RENEWAL => Step::Wait(hold.sent + RENEWAL),
            Some(_) => self.renew(),
        }
    }

    fn renew(&self) -> Step {
        if self.doubtful { Step::Look } else { Step::Renew }
    }

    fn without(&mut self, ticket: Ticket, at: Moment) -> Step {
        self.hold = None;
        if ticket.bound.is_some() || ticket.known != self.tenures {
            return Step::Lost;
        }
        let lapses = match &self.known {
            _ if self.doubtful => return Step::Look,
            Known::Nothing => return Step::Look,
            Known::Absent(None) => return Step::Acquire,
            Known::There(record) if record.holder.is_empty() || record.holder == self.me => {
                return Step::Acquire;
            }
            Known::Absent(Some(until)) => *until,
            Known::There(record) => record.lapses,
        };
        let since = self.wish.filter(|w| at <= w.until + GRACE).map_or(at, |w| w.since);
        let until = lapses.max(since) + GRACE;
        self.wish = Some(Wish { since, until });
        if at >= until { Step::Acquire } else { Step::Wait(until) }
    }

    /// The request of a step; `now` is for people who read the Lease. None for a step that needs none.
    pub fn request(&self, step: Step, now: Timestamp) -> Option<Request> {
        match step {
            Step::Fine(_) | Step::Wait(_) | Step::Lost => None,
            Step::Look => Some(Request {
                purpose: Purpose::Look,
                method: http::Method::GET,
                path: self.path(true),
                body: None,
            }),
            Step::Renew => Some(self.write(Purpose::Hold, &self.me, None, now)),
            Step::Acquire => {
                Some(self.write(Purpose::Hold, &self.me, Some(self.highest.saturating_add(1)), now))
            }
        }
    }

    /// The request that gives the lease back, if it is this process that is in it. Nothing may be written from then on.
    pub fn release(&mut self, now: Timestamp) -> Option<Request> {
        self.hold = None;
        let Known::There(record) = &self.known else { return None };
        (record.holder == self.me && !self.doubtful).then(|| self.write(Purpose::Release, "", None, now))
    }

    fn write(&self, purpose: Purpose, holder: &str, epoch: Option<u64>, now: Timestamp) -> Request {
        let time = format!("{now:.6}");
        let (method, path, mut lease) = match &self.known {
            Known::There(record) => (http::Method::PUT, self.path(true), Value::clone(&record.object)),
            Known::Nothing | Known::Absent(_) => (
                http::Method::POST,
                self.path(false),
                json!({
                    "apiVersion": "coordination.k8s.io/v1",
                    "kind": "Lease",
                    "metadata": {"name": self.name, "namespace": self.namespace},
                }),
            ),
        };
        let mut spec = lease["spec"].as_object().cloned().unwrap_or_default();
        spec.insert("holderIdentity".to_owned(), json!(holder));
        spec.insert("leaseDurationSeconds".to_owned(), json!(DURATION.as_secs()));
        spec.insert("renewTime".to_owned(), json!(time));
        if let Some(epoch) = epoch {
            spec.insert("acquireTime".to_owned(), json!(time));
            spec.insert("leaseTransitions".to_owned(), json!(epoch));
        }
        lease["spec"] = Value::Object(spec);
        Request { purpose, method, path, body: Some(lease) }
    }

    fn path(&self, named: bool) -> String {
        let base = format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases", self.namespace);
        if named { format!("{base}/{}", self.name) } else { base }
    }

    /// Takes in the answer to a request that was sent at `sent`.
    pub fn answered(&mut self, purpose: Purpose, sent: Moment, answer: &Answer, at: Moment) {
        match (purpose, answer) {
            (Purpose::Look, Answer::Record(record)) => {
                self.learn(Some(record), at);
                self.doubtful = false;
            }
            (Purpose::Look, Answer::Absent) => self.learn_absence(at),
            (_, Answer::Record(record)) => {
                self.learn(Some(record), at);
                // Something newer may have been seen before the answer came.
                if let Known::There(known) = &self.known
                    && known.version == record["metadata"]["resourceVersion"]
                    && purpose == Purpose::Hold
                {
                    let deadline = sent + DURATION.saturating_sub(MARGIN);
                    self.hold = Some(Hold { epoch: known.epoch, sent, deadline });
                    self.wish = None;
                }
            }
            // It may have been done all the same: look before the next try.
            (_, Answer::Absent | Answer::Conflict | Answer::Unknown) => self.doubtful = true,
        }
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
