//! The operator as a webhook: brake, stamp and hold for API servers without admission policies.
//!
//! Purpose: answer the API server over HTTPS by the rules of [`crate::install::brake`],
//! [`crate::install::stamp`] and [`crate::install::hold`], with certificates that are made and renewed here. Every operator answers, whether it
//! holds the lease or not.
//! May touch: one Secret, one `MutatingWebhookConfiguration`, one port. Must never: know anything of releases, or
//! let a private key out.

pub mod chain;
mod keep;
pub mod keys;
pub mod review;
mod serve;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kube::Client;
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::error;

use chain::Life;

/// How the webhook runs.
#[derive(Clone)]
pub struct Setup {
    /// For single requests.
    pub client: Client,
    /// For watches.
    pub watching: Client,
    /// Where it is served.
    pub listen: SocketAddr,
    /// The operator's namespace: of the Secret, and of the Service whose name the certificate has.
    pub namespace: String,
    /// The Secret that keeps the certificates. It must be there; it may be empty.
    pub secret: String,
    /// The `MutatingWebhookConfiguration` that is told whom to trust, when it is there.
    pub configuration: String,
    /// The user whose writes are not braked.
    pub operator_user: String,
    /// How long certificates last.
    pub life: Life,
}

/// A webhook that is served.
#[derive(Debug)]
pub struct Webhook {
    /// Where.
    pub address: SocketAddr,
    /// Whether it has a certificate, and so can answer.
    pub ready: Arc<AtomicBool>,
    stop: watch::Sender<bool>,
    serving: JoinHandle<()>,
    keeping: JoinHandle<()>,
}

/// Why the webhook is not served, or its certificates are not kept.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WebhookError {
    /// The port cannot be had.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// This build cannot serve TLS.
    #[error("TLS cannot be served")]
    Tls(#[source] rustls::Error),
    /// A certificate cannot be made, or what was kept is none.
    #[error(transparent)]
    Keys(#[from] keys::KeysError),
    /// There is no Secret to keep certificates in.
    #[error("the Secret {0} does not exist; run belay install")]
    NoSecret(String),
    /// The API server refused, or cannot be asked.
    #[error("cannot {action} {object}")]
    Request {
        /// What was tried.
        action: &'static str,
        /// On what.
        object: String,
        /// Why not.
        #[source]
        source: Box<kube::Error>,
    },
    /// The API server did not answer in time.
    #[error("cannot {action} {object}: no answer within {seconds} s")]
    Deadline {
        /// What was tried.
        action: &'static str,
        /// On what.
        object: String,
        /// How long it was waited for.
        seconds: u64,
    },
}

/// Serves it, and keeps its certificates, until [`Webhook::stop`].
///
/// # Errors
/// Fails when the port cannot be had. Without a certificate it runs, and refuses connections until there is one.
pub async fn start(setup: Setup) -> Result<Webhook, WebhookError> {
    let listen = |source| WebhookError::Listen { address: setup.listen, source };
    let listener = tokio::net::TcpListener::bind(setup.listen).await.map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;
    let certificate = Arc::new(serve::Certificate::default());
    let ready = Arc::new(AtomicBool::new(false));
    let (stop, stopped) = watch::channel(false);
    let tls = serve::tls(certificate.clone()).map_err(WebhookError::Tls)?;
    let serving = tokio::spawn(serve::serve(listener, tls, setup.operator_user.clone().into(), stopped));
    let (is_ready, kept) = (ready.clone(), certificate);
    let keeping = tokio::spawn(keep::keep(setup, move |key| {
        kept.set(key);
        is_ready.store(true, Ordering::Relaxed);
    }));
    Ok(Webhook { address, ready, stop, serving, keeping })
}

impl Webhook {
    /// Says that the process is to end: goes on answering for some seconds, while the API servers learn of it.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Waits until it has ended after [`Self::stop`].
    pub async fn stopped(self) {
        self.keeping.abort();
        if let Err(error) = self.serving.await {
            error!(%error, "the webhook did not end well");
        }
    }
}
