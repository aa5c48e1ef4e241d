//! `operator`.

use super::args::Operator;
use super::failure::{Exit, Failure};
use super::seams;
use super::session::Session;

/// Runs the operator.
pub async fn run(session: &Session, args: &Operator) -> Result<Exit, Failure> {
    let cluster = session.cluster().await?;
    seams::operator(args, session.global.namespace.clone(), cluster.client).await
}
