//! `operator`.

use super::args::Operator;
use super::failure::{Exit, Failure};
use super::seams;
use super::session::Session;

/// Runs the operator.
pub async fn run(session: &Session, args: &Operator) -> Result<Exit, Failure> {
    seams::operator(session, args).await
}
