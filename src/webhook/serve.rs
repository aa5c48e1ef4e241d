//! HTTPS for the API server.
//!
//! Purpose: connections, each request with a largest size and a deadline; the answers are those of
//! [`super::review`]. May touch: the network. Must never: judge a write itself, or keep anything of a request.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::debug;

use super::review::{self, Answer};

/// Largest question: the object before and after the write, each of at most 3 MiB, and what is around them.
const BODY: usize = 7 * 1024 * 1024;
/// Time for one question, from its first byte to the answer: less than the API server waits.
const DEADLINE: Duration = Duration::from_secs(4);
/// Time for a handshake.
const HANDSHAKE: Duration = Duration::from_secs(4);
/// Connections that idle longer are closed. The API server closes its own after 90 s; if we were first, a question
/// could meet a connection that is being closed.
const IDLE: Duration = Duration::from_secs(180);
/// Connections at the same time.
const CONNECTIONS: usize = 128;
/// Questions that are read and answered at the same time; more wait for their turn, within their deadline.
const QUESTIONS: usize = 8;
/// So long it goes on answering when the process is asked to end: until no API server is sent here any more.
const LINGER: Duration = Duration::from_secs(4);
/// And so long answers under way are waited for then.
const GRACE: Duration = Duration::from_secs(4);

/// The certificate that is served now; another can take its place at any time.
#[derive(Debug, Default)]
pub(super) struct Certificate(RwLock<Option<Arc<CertifiedKey>>>);

impl Certificate {
    /// Serves this one from now on.
    pub fn set(&self, key: Arc<CertifiedKey>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(key);
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// TLS with a certificate that may change.
pub(super) fn tls(certificate: Arc<Certificate>) -> Result<TlsAcceptor, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// What every connection needs.
#[derive(Clone)]
struct Shared {
    tls: TlsAcceptor,
    operator_user: Arc<str>,
    turns: Arc<Semaphore>,
    stopped: watch::Receiver<bool>,
}

/// Serves until some seconds after `stopped`.
pub(super) async fn serve(
    listener: TcpListener,
    tls: TlsAcceptor,
    operator_user: Arc<str>,
    stopped: watch::Receiver<bool>,
) {
    let shared = Shared { tls, operator_user, turns: Arc::new(Semaphore::new(QUESTIONS)), stopped };
    let mut stopped = shared.stopped.clone();
    let mut connections = JoinSet::new();
    let mut end = pin!(async move {
        asked_to_end(&mut stopped).await;
        sleep(LINGER).await;
    });
    loop {
        tokio::select! {
            () = &mut end => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((stream, _)) => drop(connections.spawn(connection(stream, shared.clone()))),
                Err(error) => {
                    // Out of files, say: it may pass.
                    debug!(%error, "a connection was not accepted");
                    sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    drop(listener);
    // What is not done by then is cut off with the set.
    drop(timeout(GRACE, async { while connections.join_next().await.is_some() {} }).await);
}

/// Also when nobody is left who could ask.
async fn asked_to_end(stopped: &mut watch::Receiver<bool>) {
    drop(stopped.wait_for(|stopped| *stopped).await);
}

async fn connection(stream: TcpStream, shared: Shared) {
    let stream = match timeout(HANDSHAKE, shared.tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return debug!(%error, "no TLS"),
        Err(_) => return debug!("no TLS in time"),
    };
    let mut stopped = shared.stopped.clone();
    let service = service_fn(async |request| respond(request, &shared).await);
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE)
            .serve_connection(TokioIo::new(stream), service)
    );
    let done = tokio::select! {
        done = connection.as_mut() => done,
        // The next question is asked on another connection, soon of another operator.
        () = asked_to_end(&mut stopped) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = done {
        debug!(%error, "a connection broke");
    }
}

async fn respond(request: Request<Incoming>, shared: &Shared) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let answer = timeout(DEADLINE, async {
        let _turn = shared.turns.acquire().await;
        let body = Limited::new(request.into_body(), BODY).collect().await;
        body.map(|body| review::answer(&path, &shared.operator_user, &body.to_bytes()))
    });
    let (status, kind, text) = match answer.await {
        Ok(Ok(Answer::Review(review))) => (StatusCode::OK, "application/json", review.to_string()),
        Ok(Ok(Answer::Unreadable(why))) => (StatusCode::BAD_REQUEST, "text/plain", format!("belay: {why}\n")),
        Ok(Err(error)) => {
            let why =
                format!("belay: the request cannot be read, it may have at most {BODY} bytes: {error}\n");
            (StatusCode::PAYLOAD_TOO_LARGE, "text/plain", why)
        }
        Err(_) => {
            let why = format!("belay: no answer within {} s\n", DEADLINE.as_secs());
            (StatusCode::SERVICE_UNAVAILABLE, "text/plain", why)
        }
    };
    debug!(%path, status = status.as_u16(), "asked by the API server");
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    Ok(response)
}
