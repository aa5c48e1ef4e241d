//! The operator: watches in, decisions, writes out.
//!
//! Purpose: wiring. One task owns all that is known and decides; writes and scrapes run beside it and report
//! back in order. May touch: anything. Must never: decide something itself.

mod brake;
pub mod candidate;
mod core;
mod lease;
mod metrics;
mod queue;
mod run;
mod secrets;
mod writes;

use std::net::SocketAddr;

use thiserror::Error;

pub use core::{Core, Look, Pass, Report, judge};
pub use lease::{Lease, LeaseError};
pub use metrics::Metrics;
pub use queue::{Ended, Queue};
pub use run::run;

use crate::cluster::{ClientError, Target};

/// The usual name of the lease.
pub const LEASE: &str = "belay";

/// How the operator runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// The cluster.
    pub target: Target,
    /// The one namespace to govern; all when absent.
    pub namespace: Option<String>,
    /// Where probes and figures are served; nowhere when absent.
    pub listen: Option<SocketAddr>,
    /// Namespace of the lease.
    pub lease_namespace: String,
    /// Name of the lease.
    pub lease_name: String,
    /// The name of the brake's policy and binding.
    pub brake: String,
    /// The name of the webhook configuration that is the brake where there are no policies.
    pub brake_webhook: String,
    /// How the webhook is served; not at all when absent.
    pub webhook: Option<WebhookOptions>,
    /// This process, as leases and events name it.
    pub instance: String,
}

/// How the operator serves the webhook.
#[derive(Clone, Debug)]
pub struct WebhookOptions {
    /// Where.
    pub listen: SocketAddr,
    /// How long its certificates last.
    pub life: crate::webhook::chain::Life,
}

/// Why the operator ended.
#[derive(Debug, Error)]
pub enum OperatorError {
    /// No cluster.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The pages cannot be served.
    #[error("cannot serve probes and figures on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The webhook cannot be served.
    #[error("cannot serve the webhook")]
    Webhook(#[from] crate::webhook::WebhookError),
    /// Signals cannot be received.
    #[error("signals cannot be received")]
    Signal(#[source] std::io::Error),
    /// The API server cannot be reached at start.
    #[error("the API server cannot be asked what it serves")]
    Discovery(#[source] Box<kube::Error>),
    /// The custom resources are not installed.
    #[error("the custom resources of belay.dev are not installed; run belay install")]
    NotInstalled,
}
