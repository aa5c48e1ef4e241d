//! One process acts at a time. The lease is taken when there is something to write and lapses at rest, so at
//! rest no request is made; whoever has to write next takes it.

use jiff::{SignedDuration, Timestamp};
use kube::Client;
use serde_json::{Value, json};
use thiserror::Error;

/// How long a lease lasts.
const DURATION: SignedDuration = SignedDuration::from_secs(15);
/// It is renewed when less than this is left: a write that was just sent ends before the lease does.
const MARGIN: SignedDuration = SignedDuration::from_secs(5);
/// Longest time for one request about the lease.
const DEADLINE: std::time::Duration = std::time::Duration::from_secs(4);

/// Why the lease is not held.
#[derive(Debug, Error)]
pub enum LeaseError {
    /// Another process holds it.
    #[error("held by {holder}")]
    Held {
        /// Who.
        holder: String,
        /// When to ask again.
        until: Timestamp,
    },
    /// It could not be read or written.
    #[error("the lease cannot be read or written")]
    Request(#[source] Box<kube::Error>),
    /// No answer in time.
    #[error("no answer about the lease within {} s", DEADLINE.as_secs())]
    Deadline,
}

/// What to do about a lease.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Write it: ours, free, or not renewed for its whole duration.
    Take,
    /// Somebody else has it.
    Wait(Timestamp),
}

/// This process's share in the lease.
#[derive(Debug)]
pub struct Lease {
    namespace: String,
    name: String,
    me: String,
    /// The last that was seen of it.
    seen: Option<Value>,
    /// When the record last changed before our eyes: another process's clock is not trusted.
    changed_at: Option<Timestamp>,
    held_until: Option<Timestamp>,
}

impl Lease {
    /// A lease that is not held yet.
    pub fn new(namespace: String, name: String, me: String) -> Self {
        Self { namespace, name, me, seen: None, changed_at: None, held_until: None }
    }

    /// Whether it is held at this time.
    pub fn held(&self, now: Timestamp) -> bool {
        self.held_until.is_some_and(|t| now < t)
    }

    /// Makes sure that it is held for long enough to write something.
    pub async fn ensure(&mut self, client: &Client, now: Timestamp) -> Result<(), LeaseError> {
        if self.held_until.is_some_and(|t| now + MARGIN < t) {
            return Ok(());
        }
        // What we wrote last is usually still true; if it is not, the write below is refused.
        if !self.is_mine() {
            self.read(client, now).await?;
        }
        match self.evaluate(now) {
            Step::Wait(until) => {
                Err(LeaseError::Held { holder: self.holder().unwrap_or_default().to_owned(), until })
            }
            Step::Take => self.write(client, now, true).await,
        }
    }

    /// Lets it go, so that the next process need not wait.
    pub async fn release(&mut self, client: &Client, now: Timestamp) -> Result<(), LeaseError> {
        if !self.held(now) {
            return Ok(());
        }
        self.held_until = None;
        self.write(client, now, false).await
    }

    fn holder(&self) -> Option<&str> {
        self.seen.as_ref()?.pointer("/spec/holderIdentity")?.as_str().filter(|h| !h.is_empty())
    }

    fn is_mine(&self) -> bool {
        self.holder() == Some(self.me.as_str())
    }

    fn evaluate(&self, now: Timestamp) -> Step {
        if self.holder().is_none() || self.is_mine() {
            return Step::Take;
        }
        let seconds = self
            .seen
            .as_ref()
            .and_then(|l| l.pointer("/spec/leaseDurationSeconds"))
            .and_then(Value::as_i64)
            .unwrap_or(DURATION.as_secs())
            .clamp(1, 3600);
        let until = self.changed_at.unwrap_or(now) + SignedDuration::from_secs(seconds);
        if now >= until { Step::Take } else { Step::Wait(until) }
    }

    fn learn(&mut self, lease: Option<Value>, now: Timestamp) {
        let version = |l: &Option<Value>| l.as_ref().map(|l| l["metadata"]["resourceVersion"].clone());
        if version(&self.seen) != version(&lease) || self.changed_at.is_none() {
            self.changed_at = Some(now);
        }
        self.seen = lease;
    }

    fn path(&self, named: bool) -> String {
        let base = format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases", self.namespace);
        if named { format!("{base}/{}", self.name) } else { base }
    }

    async fn read(&mut self, client: &Client, now: Timestamp) -> Result<(), LeaseError> {
        match send(client, http::Method::GET, self.path(true), None).await {
            Ok(lease) => self.learn(Some(lease), now),
            Err(LeaseError::Request(e)) if is_code(&e, 404) => self.learn(None, now),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn write(&mut self, client: &Client, now: Timestamp, hold: bool) -> Result<(), LeaseError> {
        let time = format!("{now:.6}");
        let mine = self.is_mine();
        let (method, path, mut lease) = match &self.seen {
            Some(lease) => (http::Method::PUT, self.path(true), lease.clone()),
            None => (
                http::Method::POST,
                self.path(false),
                json!({
                    "apiVersion": "coordination.k8s.io/v1",
                    "kind": "Lease",
                    "metadata": {"name": self.name, "namespace": self.namespace},
                    "spec": {},
                }),
            ),
        };
        let spec = &mut lease["spec"];
        spec["holderIdentity"] = json!(if hold { self.me.as_str() } else { "" });
        spec["leaseDurationSeconds"] = json!(DURATION.as_secs());
        spec["renewTime"] = json!(time);
        if !mine {
            spec["acquireTime"] = json!(time);
            spec["leaseTransitions"] = json!(spec["leaseTransitions"].as_i64().unwrap_or(0) + 1);
        }
        match send(client, method, path, Some(lease)).await {
            Ok(lease) => {
                self.learn(Some(lease), now);
                self.held_until = hold.then(|| now + DURATION);
                Ok(())
            }
            Err(error) => {
                // Whatever became of it, look before the next try.
                self.held_until = None;
                self.seen = None;
                if matches!(&error, LeaseError::Request(e) if is_code(e, 409)) {
                    let until = now + SignedDuration::from_millis(500);
                    return Err(LeaseError::Held { holder: "another process".to_owned(), until });
                }
                Err(error)
            }
        }
    }
}

fn is_code(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

async fn send(
    client: &Client,
    method: http::Method,
    path: String,
    body: Option<Value>,
) -> Result<Value, LeaseError> {
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::CONTENT_TYPE, "application/json")
        .header(http::header::ACCEPT, "application/json")
        .body(body.map(|b| b.to_string().into_bytes()).unwrap_or_default())
        .map_err(|e| LeaseError::Request(Box::new(kube::Error::HttpError(e))))?;
    match tokio::time::timeout(DEADLINE, client.request::<Value>(request)).await {
        Err(_) => Err(LeaseError::Deadline),
        Ok(answer) => answer.map_err(|e| LeaseError::Request(Box::new(e))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    fn lease(holder: &str, version: &str) -> Value {
        json!({
            "metadata": {"resourceVersion": version},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15},
        })
    }

    fn me() -> Lease {
        Lease::new("belay-system".into(), "belay".into(), "me".into())
    }

    #[test]
    fn a_free_lease_and_ones_own_are_taken() {
        let mut mine = me();
        assert_eq!(mine.evaluate(at(0)), Step::Take);
        for holder in ["", "me"] {
            mine.learn(Some(lease(holder, "1")), at(0));
            assert_eq!(mine.evaluate(at(0)), Step::Take);
        }
    }

    #[test]
    fn anothers_is_taken_only_after_it_stood_still_for_its_whole_duration() {
        let mut mine = me();
        mine.learn(Some(lease("other", "1")), at(100));
        assert_eq!(mine.evaluate(at(100)), Step::Wait(at(115)));
        mine.learn(Some(lease("other", "1")), at(110));
        assert_eq!(mine.evaluate(at(114)), Step::Wait(at(115)), "reading it again changes nothing");
        mine.learn(Some(lease("other", "2")), at(114));
        assert_eq!(mine.evaluate(at(115)), Step::Wait(at(129)), "it was renewed");
        assert_eq!(mine.evaluate(at(129)), Step::Take);
    }
}
