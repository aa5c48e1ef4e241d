//! Carries effects out: one write at a time, each with its preconditions, the outcome back as data.
//!
//! Purpose: lower an [`Effect`] to one HTTP request and send it with a deadline, while the lease is held.
//! May touch: `api`, `decide`'s types, `cluster`. Must never: decide, retry by itself, or send without a deadline or
//! after the [`Fence`] fell.

mod fence;
mod request;
#[cfg(test)]
mod tests;

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use serde_json::Value;
use thiserror::Error;

use crate::clock;
use crate::decide::Effect;
pub use fence::{Fence, Hold};
pub use request::{Request, Verb, request};

/// Longest time for one write.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// What became of a write.
#[derive(Debug)]
pub enum Outcome {
    /// The API server's answer: the object as it is now, if it answered with one.
    Done(Option<Value>),
}

/// Why a write was not done, or may not have been.
#[derive(Debug, Error)]
pub enum ActError {
    /// What was read is out of date: observe again.
    #[error("the object has changed since it was read")]
    Conflict(#[source] Box<kube::Error>),
    /// The API server refused.
    #[error("the API server refused")]
    Refused(#[source] Box<kube::Error>),
    /// Another process may write by now: nothing was sent.
    #[error("the lease was lost before the write was sent")]
    Fenced,
    /// The lease was lost while the write was under way: it may or may not have been done.
    #[error("the lease was lost before the write was answered")]
    GivenUp,
    /// No answer in time: it may or may not have been done.
    #[error("no answer within {} s", DEADLINE.as_secs())]
    Deadline,
    /// The request could not be made or sent.
    #[error("the request failed")]
    Failed(#[source] Box<kube::Error>),
}

impl ActError {
    /// Whether the object is not there.
    pub fn is_not_found(&self) -> bool {
        let Self::Conflict(error) = self else { return false };
        matches!(&**error, kube::Error::Api(status) if status.code == 404)
    }

    /// Whether only a fresh look is needed.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict(_))
    }

    /// Whether the lease was lost.
    pub fn is_lost(&self) -> bool {
        matches!(self, Self::Fenced | Self::GivenUp)
    }
}

/// Sends one effect, while the fence stands. `instance` names this process in events.
pub async fn send(
    client: &kube::Client,
    effect: &Effect,
    now: jiff::Timestamp,
    instance: &str,
    fence: &Fence,
) -> Result<Outcome, ActError> {
    let request = request(effect, now, instance);
    let http = request.to_http().map_err(|e| ActError::Failed(Box::new(kube::Error::HttpError(e))))?;
    let answer =
        while_it_stands(fence, tokio::time::timeout(DEADLINE, client.request::<Value>(http))).await?;
    judge(answer.map_err(|_| ActError::Deadline)?)
}

/// What an answer of the API server means.
pub fn judge(answer: kube::Result<Value>) -> Result<Outcome, ActError> {
    match answer {
        Ok(value) => Ok(Outcome::Done((value["kind"] != "Status").then_some(value))),
        Err(kube::Error::Api(status)) => {
            let code = status.code;
            let invalid = status.details.as_ref().is_some_and(|d| !d.causes.is_empty());
            let error = Box::new(kube::Error::Api(status));
            match code {
                // A failed `test` of a JSON Patch is answered with 422, a missed precondition with 409. An object
                // that is not valid is answered with 422, too, but with the fields: no fresh look mends it. Something
                // to delete that is not there is out of date: only the watch is believed that it is gone.
                422 if invalid => Err(ActError::Refused(error)),
                404 | 409 | 422 => Err(ActError::Conflict(error)),
                _ => Err(ActError::Refused(error)),
            }
        }
        Err(error) => Err(ActError::Failed(Box::new(error))),
    }
}

/// The outcome of `work`, which is not taken a step further once the fence has fallen.
///
/// This process may be stopped for any time at any point, also between two steps of a request: while a connection
/// is made for it, say. So the clock is looked at before each. What is left is the moment in which a request that
/// was handed over to its connection is on its way to the kernel; for that each write has its own preconditions.
async fn while_it_stands<T>(fence: &Fence, work: impl Future<Output = T>) -> Result<T, ActError> {
    let (mut work, mut fallen) = (pin!(work), pin!(fence.fallen()));
    let mut begun = false;
    poll_fn(|context| {
        if !fence.stands(clock::monotonic()) {
            return Poll::Ready(Err(if begun { ActError::GivenUp } else { ActError::Fenced }));
        }
        begun = true;
        if let Poll::Ready(outcome) = work.as_mut().poll(context) {
            return Poll::Ready(Ok(outcome));
        }
        fallen.as_mut().poll(context).map(|()| Err(ActError::GivenUp))
    })
    .await
}
