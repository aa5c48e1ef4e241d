//! `operator`.

use super::args::Operator;
use super::failure::{Exit, Failure};
use super::session::Session;
use crate::operator::{Options, run as operate};

/// Runs the operator until it is told to stop.
pub async fn run(session: &Session, args: &Operator) -> Result<Exit, Failure> {
    operate(Options {
        target: session.target(),
        namespace: session.global.namespace.clone(),
        listen: (!args.no_listen).then_some(args.listen),
        lease_namespace: args.lease_namespace.clone(),
        lease_name: args.lease_name.clone(),
        brake: args.brake.clone(),
        instance: args.instance.clone().unwrap_or_else(instance),
    })
    .await?;
    Ok(Exit::OK)
}

/// A name that no other process has: two with one name would both take the Lease for theirs.
fn instance() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}-{}", host.trim(), std::process::id())
}
