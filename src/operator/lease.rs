//! The lease by which one process writes at a time: carries out what [`Candidate`] says, and tells the writes under
//! way how long it lasts.
//!
//! Purpose: one request about the Lease at a time, each with a deadline. May touch: the clock, the API server.
//! Must never: decide who may write; [`super::candidate`] has the rules.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::Client;
use serde_json::Value;
use thiserror::Error;
use tokio::sync::watch;

use super::Metrics;
use super::candidate::{Answer, Candidate, Purpose, Request, Step, Ticket};
use crate::act::{Fence, Hold};
use crate::clock::{monotonic, now, token};

/// Longest time for one request about the lease: one that takes longer is worth little.
const DEADLINE: Duration = Duration::from_secs(2);
/// Most requests for one pass: more is a struggle with others, and the pass is decided anew.
const REQUESTS: usize = 6;

/// Why nothing may be written.
#[derive(Debug, Error)]
pub enum LeaseError {
    /// Another process has the lease, or had it last.
    #[error("held by {holder}")]
    Held {
        /// Who.
        holder: String,
        /// When to ask again.
        after: Duration,
    },
    /// The tenure in which the writes were decided is over.
    #[error("the tenure in which this was decided is over")]
    Lost,
    /// It could not be read or written.
    #[error("the lease cannot be read or written")]
    Request(#[source] Box<kube::Error>),
    /// No answer in time.
    #[error("no answer about the lease within {} s", DEADLINE.as_secs())]
    Deadline,
    /// This process is about to end.
    #[error("this process ends")]
    Closed,
    /// Others were quicker, again and again.
    #[error("the lease changes too fast")]
    Contended,
}

/// This process's share in the lease.
pub struct Lease {
    client: Client,
    metrics: Arc<Metrics>,
    candidate: Mutex<Candidate>,
    hold: watch::Sender<Option<Hold>>,
    /// Held during a request: the next one is to know its outcome.
    turn: tokio::sync::Mutex<()>,
    closed: AtomicBool,
}

impl Lease {
    /// A lease that is not held yet. `instance` names this process; the Lease has it with a number that is new with
    /// each process, so that two that were given one name do not take each other for themselves.
    pub fn new(
        client: Client,
        metrics: Arc<Metrics>,
        namespace: String,
        name: String,
        instance: &str,
    ) -> Self {
        let me = format!("{instance}_{:016x}", token());
        Self {
            client,
            metrics,
            candidate: Mutex::new(Candidate::new(namespace, name, me)),
            hold: watch::Sender::new(None),
            turn: tokio::sync::Mutex::default(),
            closed: AtomicBool::new(false),
        }
    }

    fn candidate(&self) -> MutexGuard<'_, Candidate> {
        // What a thread that panicked left is whole: nothing panics between two of its changes.
        self.candidate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until no request is under way. Not for long: many may wait while the API server does not answer.
    async fn turn(&self) -> Result<tokio::sync::MutexGuard<'_, ()>, LeaseError> {
        tokio::time::timeout(DEADLINE, self.turn.lock()).await.map_err(|_| LeaseError::Deadline)
    }

    /// Tells the writes under way what the candidate has now.
    fn publish(&self, candidate: &Candidate) {
        let hold = candidate.hold(monotonic());
        self.metrics.lease(hold);
        self.hold.send_replace(hold);
    }

    /// Takes in what the watch saw, and returns whether the lease is free.
    pub fn learn(&self, seen: Option<&Value>) -> bool {
        let mut candidate = self.candidate();
        candidate.learn(seen, monotonic());
        self.publish(&candidate);
        candidate.is_free()
    }

    /// For a pass that is decided now.
    pub fn ticket(&self) -> Ticket {
        self.candidate().ticket()
    }

    /// How many tenures of other processes were seen: what was remembered before the last of them is void.
    pub fn others(&self) -> u64 {
        self.candidate().others()
    }

    /// Makes sure that the lease is held for long enough to write something of this pass.
    pub async fn ensure(&self, ticket: &mut Ticket) -> Result<Fence, LeaseError> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(LeaseError::Closed);
        }
        if let Some(outcome) = self.outcome(ticket).1 {
            return outcome;
        }
        let _turn = self.turn().await?;
        for _ in 0..REQUESTS {
            match self.outcome(ticket) {
                (_, Some(outcome)) => return outcome,
                (step, None) => self.take_step(step).await?,
            }
        }
        Err(LeaseError::Contended)
    }

    /// What is to be done for a pass, and what that means to it unless a request comes first.
    fn outcome(&self, ticket: &mut Ticket) -> (Step, Option<Result<Fence, LeaseError>>) {
        let mut candidate = self.candidate();
        let at = monotonic();
        let step = candidate.evaluate(ticket, at);
        let outcome = match step {
            Step::Fine(hold) => Some(Ok(Fence::new(hold.epoch, self.hold.subscribe()))),
            Step::Wait(until) => {
                Some(Err(LeaseError::Held { holder: candidate.holder().to_owned(), after: until.since(at) }))
            }
            Step::Lost => Some(Err(LeaseError::Lost)),
            Step::Renew | Step::Acquire | Step::Look => None,
        };
        (step, outcome)
    }

    /// Renews the lease for as long as this future is asked; done when the tenure is over.
    pub async fn keep(self: Arc<Self>, epoch: u64) {
        loop {
            let at = monotonic();
            let step = self.candidate().keep(epoch, at);
            match step {
                Step::Lost => return,
                Step::Wait(until) => tokio::time::sleep(until.since(at)).await,
                _ => {
                    // On a task of its own: it is not cut off when the write that it is for is answered.
                    let renewal = tokio::spawn(self.clone().renew(epoch));
                    let renewed = renewal.await.is_ok_and(|r| r.is_ok());
                    if !renewed {
                        // The API server is in trouble. The tenure may last long enough for another try.
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        }
    }

    async fn renew(self: Arc<Self>, epoch: u64) -> Result<(), LeaseError> {
        let _turn = self.turn().await?;
        let step = self.candidate().keep(epoch, monotonic());
        self.take_step(step).await
    }

    /// Begins no further write: this process ends, and another is to go on soon.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// Gives the lease back, so that the next process need not wait.
    pub async fn release(&self) -> Result<(), LeaseError> {
        let _turn = self.turn().await?;
        let request = {
            let mut candidate = self.candidate();
            let request = candidate.release(now());
            self.publish(&candidate);
            request
        };
        match request {
            Some(request) => self.ask(request).await,
            None => Ok(()),
        }
    }

    async fn take_step(&self, step: Step) -> Result<(), LeaseError> {
        let request = self.candidate().request(step, now());
        match request {
            Some(request) => self.ask(request).await,
            None => Ok(()),
        }
    }

    async fn ask(&self, request: Request) -> Result<(), LeaseError> {
        let purpose = request.purpose;
        // The tenure counts from before it can have begun.
        let sent = monotonic();
        let outcome = match tokio::time::timeout(DEADLINE, send(&self.client, request)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(LeaseError::Deadline),
        };
        let answer = outcome.as_ref().map_or(&Answer::Unknown, |answer| answer);
        let mut candidate = self.candidate();
        candidate.answered(purpose, sent, answer, monotonic());
        self.publish(&candidate);
        drop(candidate);
        if purpose != Purpose::Look {
            let outcome = match answer {
                Answer::Record(_) => "done",
                Answer::Absent | Answer::Conflict => "conflict",
                Answer::Unknown => "failed",
            };
            self.metrics.write("Lease", outcome, monotonic().since(sent).as_secs_f64());
        }
        outcome.map(|_| ())
    }
}

async fn send(client: &Client, request: Request) -> Result<Answer, LeaseError> {
    let request = http::Request::builder()
        .method(request.method)
        .uri(request.path)
        .header(http::header::CONTENT_TYPE, "application/json")
        .header(http::header::ACCEPT, "application/json")
        .body(request.body.map(|b| b.to_string().into_bytes()).unwrap_or_default())
        .map_err(|e| LeaseError::Request(Box::new(kube::Error::HttpError(e))))?;
    match client.request::<Value>(request).await {
        Ok(record) => Ok(Answer::Record(record)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Answer::Absent),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(Answer::Conflict),
        Err(error) => Err(LeaseError::Request(Box::new(error))),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use axum::Router;
    use axum::body::to_bytes;
    use axum::extract::Request as Asked;
    use axum::http::StatusCode;
    use serde_json::json;

    use super::*;

    #[derive(Default)]
    struct State {
        lease: Option<Value>,
        /// What the next requests are answered with; 200 for what is right.
        codes: VecDeque<u16>,
        /// Methods and holders.
        asked: Vec<String>,
    }

    /// An API server that keeps one Lease.
    #[derive(Clone, Default)]
    struct Server(Arc<Mutex<State>>);

    impl Server {
        fn refusing(codes: &[u16]) -> Self {
            let server = Self::default();
            server.0.lock().unwrap().codes.extend(codes);
            server
        }

        async fn answer(self, request: Asked) -> (StatusCode, String) {
            let (head, body) = request.into_parts();
            let body = to_bytes(body, 1 << 20).await.unwrap();
            let mut state = self.0.lock().unwrap();
            let sent: Value = serde_json::from_slice(&body).unwrap_or_default();
            let holder = sent.pointer("/spec/holderIdentity").and_then(Value::as_str).unwrap_or_default();
            state.asked.push(format!("{} {}", head.method, holder.split('_').next().unwrap_or_default()));
            let refusal = state.codes.pop_front().filter(|code| *code != 200);
            let code = refusal.or((head.method == "GET" && state.lease.is_none()).then_some(404));
            if let Some(code) = code {
                let status = json!({"kind": "Status", "status": "Failure", "message": "no", "code": code});
                return (StatusCode::from_u16(code).unwrap(), status.to_string());
            }
            if head.method != "GET" {
                let mut lease = sent;
                lease["metadata"]["resourceVersion"] = json!(state.asked.len().to_string());
                state.lease = Some(lease);
            }
            (StatusCode::OK, state.lease.clone().unwrap().to_string())
        }

        fn lease(&self) -> Arc<Lease> {
            let server = self.clone();
            let router = Router::new().fallback(move |request: Asked| server.clone().answer(request));
            let client = Client::new(router, "default");
            Arc::new(Lease::new(client, Arc::default(), "ns".into(), "belay".into(), "me"))
        }

        fn asked(&self) -> Vec<String> {
            std::mem::take(&mut self.0.lock().unwrap().asked)
        }
    }

    async fn ensure(lease: Arc<Lease>) -> Result<Fence, LeaseError> {
        let mut ticket = lease.ticket();
        lease.ensure(&mut ticket).await
    }

    #[tokio::test]
    async fn one_request_serves_all_passes_that_wait_for_it() {
        let server = Server::default();
        let lease = server.lease();
        let passes = (0..5).map(|_| tokio::spawn(ensure(lease.clone())));
        for pass in futures::future::join_all(passes).await {
            assert_eq!(pass.unwrap().unwrap().epoch(), 1);
        }
        assert_eq!(server.asked(), ["GET ", "POST me"]);
    }

    #[tokio::test]
    async fn given_back_the_fence_has_fallen_and_the_lease_is_free() {
        let server = Server::default();
        let lease = server.lease();
        let fence = ensure(lease.clone()).await.unwrap();
        assert_eq!(fence.epoch(), 1);
        lease.release().await.unwrap();
        assert!(!fence.stands(monotonic()));
        assert_eq!(server.asked(), ["GET ", "POST me", "PUT "]);
        lease.release().await.unwrap();
        lease.close();
        assert!(matches!(ensure(lease.clone()).await, Err(LeaseError::Closed)));
        assert_eq!(server.asked(), [""; 0], "it is not given back twice, nor taken any more");
        assert!(lease.metrics.render().contains("belay_leader 0\n"));
    }

    #[tokio::test]
    async fn a_refusal_is_an_error_and_whoever_was_slower_looks_again() {
        let server = Server::refusing(&[200, 403]);
        let lease = server.lease();
        assert!(matches!(ensure(lease.clone()).await, Err(LeaseError::Request(_))));
        assert_eq!(server.asked(), ["GET ", "POST me"]);
        let server = Server::refusing(&[200, 409]);
        let lease = server.lease();
        assert!(ensure(lease).await.is_ok());
        assert_eq!(server.asked(), ["GET ", "POST me", "GET ", "POST me"]);
        let server = Server::refusing(&[200, 409, 200, 409, 200, 409, 200, 409]);
        assert!(matches!(ensure(server.lease()).await, Err(LeaseError::Contended)));
    }

    #[tokio::test]
    async fn it_is_renewed_while_somebody_keeps_it_and_keeping_ends_with_the_tenure() {
        let server = Server::default();
        let lease = server.lease();
        // Longer than a tenure that nobody renews. On a machine that stands still for seconds it may lapse all the same.
        let (fence, kept) = loop {
            let fence = ensure(lease.clone()).await.unwrap();
            let kept = tokio::spawn(lease.clone().keep(fence.epoch()));
            server.asked();
            while server.0.lock().unwrap().asked.len() < 3 && !kept.is_finished() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            if !kept.is_finished() {
                break (fence, kept);
            }
        };
        assert_eq!(server.asked(), ["PUT me", "PUT me", "PUT me"]);
        let other = json!({"metadata": {"resourceVersion": "99"}, "spec": {"holderIdentity": "other", "leaseTransitions": 1000}});
        assert!(!lease.learn(Some(&other)));
        kept.await.unwrap();
        assert!(!fence.stands(monotonic()));
        assert_eq!(lease.others(), 1);
        assert!(matches!(ensure(lease).await, Err(LeaseError::Held { holder, .. }) if holder == "other"));
    }
}
