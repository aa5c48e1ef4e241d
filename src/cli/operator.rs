//! `operator`.

use std::time::Duration;

use super::args::Operator;
use super::failure::{Exit, Failure};
use super::session::Session;
use crate::operator::{Options, WebhookOptions, run as operate};
use crate::webhook::chain::Life;

/// Runs the operator until it is told to stop.
pub async fn run(session: &Session, args: &Operator) -> Result<Exit, Failure> {
    operate(Options {
        target: session.target(),
        namespace: session.global.namespace.clone(),
        listen: (!args.no_listen).then_some(args.listen),
        lease_namespace: args.lease_namespace.clone(),
        lease_name: args.lease_name.clone(),
        brake: args.brake.clone(),
        brake_webhook: args.brake_webhook.clone(),
        webhook: args.webhook_listen.map(|listen| WebhookOptions { listen, life: life(args) }),
        instance: args.instance.clone().unwrap_or_else(instance),
    })
    .await?;
    Ok(Exit::OK)
}

fn life(args: &Operator) -> Life {
    let usual = Life::default();
    let chosen = |flag: Option<Duration>, usual| flag.and_then(|f| f.try_into().ok()).unwrap_or(usual);
    Life {
        serving: chosen(args.webhook_certificate_life, usual.serving),
        authority: chosen(args.webhook_authority_life, usual.authority),
        settle: chosen(args.webhook_settle, usual.settle),
    }
}

/// A name that no other process has: two with one name would both take the Lease for theirs.
fn instance() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}-{}", host.trim(), std::process::id())
}
