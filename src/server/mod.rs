//! The operator's HTTP pages: probes and figures.
//!
//! Purpose: `/healthz`, `/readyz`, `/metrics`. May touch: anything. Must never: change anything.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::operator::Metrics;

/// What the pages tell.
#[derive(Debug, Default)]
pub struct State {
    /// The first listing of every kind is complete.
    pub ready: AtomicBool,
    /// Whether the webhook has a certificate; nothing when it is not served.
    pub webhook: OnceLock<Arc<AtomicBool>>,
    /// The main loop ended though nobody asked for it.
    pub broken: AtomicBool,
    /// The figures.
    pub metrics: Arc<Metrics>,
}

/// Serves the pages until `stop` is done.
pub async fn serve(
    listener: TcpListener,
    state: Arc<State>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let (health, ready, metrics) = (state.clone(), state.clone(), state);
    let pages = Router::new()
        .route(
            "/healthz",
            get(async move || verdict(!health.broken.load(Ordering::Relaxed), "main loop ended")),
        )
        .route(
            "/readyz",
            get(async move || {
                let webhook = ready.webhook.get().is_none_or(|w| w.load(Ordering::Relaxed));
                verdict(
                    ready.ready.load(Ordering::Relaxed) && webhook,
                    if webhook { "watches not listed yet" } else { "the webhook has no certificate yet" },
                )
            }),
        )
        .route(
            "/metrics",
            get(async move || {
                let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                ([(header::CONTENT_TYPE, kind)], metrics.metrics.render())
            }),
        );
    axum::serve(listener, pages).with_graceful_shutdown(stop).await
}

fn verdict(good: bool, trouble: &'static str) -> impl IntoResponse {
    if good { (StatusCode::OK, "ok\n") } else { (StatusCode::SERVICE_UNAVAILABLE, trouble) }
}
