//! `operator`.

use super::args::Operator;
use super::failure::{Exit, Failure};
use super::session::Session;
use crate::operator::{Options, run as operate};

/// The name of the operator's Lease.
pub(super) const LEASE: &str = "belay";
/// The name of the brake's policy and of its binding.
const BRAKE: &str = "brake.belay.dev";

/// Runs the operator until it is told to stop.
pub async fn run(session: &Session, args: &Operator) -> Result<Exit, Failure> {
    operate(Options {
        target: session.target(),
        namespace: session.global.namespace.clone(),
        listen: (!args.no_listen).then_some(args.listen),
        lease_namespace: args.lease_namespace.clone(),
        lease_name: LEASE.to_owned(),
        brake: BRAKE.to_owned(),
        instance: args.instance.clone(),
    })
    .await?;
    Ok(Exit::OK)
}
