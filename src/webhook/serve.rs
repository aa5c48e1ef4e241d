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
    /// The process is to end: the next question is to be asked of another operator.
    stopped: watch::Receiver<bool>,
    /// Nothing new is taken any more.
    closing: watch::Receiver<bool>,
}

/// Serves until some seconds after `stopped`.
pub(super) async fn serve(
    listener: TcpListener,
    tls: TlsAcceptor,
    operator_user: Arc<str>,
    stopped: watch::Receiver<bool>,
) {
    let (close, closing) = watch::channel(false);
    let turns = Arc::new(Semaphore::new(QUESTIONS));
    let shared = Shared { tls, operator_user, turns, stopped, closing };
    let mut stopped = shared.stopped.clone();
    let mut connections = JoinSet::new();
    let mut end = pin!(async move {
        said(&mut stopped).await;
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
    close.send_replace(true);
    // What is not done by then is cut off with the set.
    drop(timeout(GRACE, async { while connections.join_next().await.is_some() {} }).await);
}

/// Waits until it is said, or nobody is left who could.
async fn said(what: &mut watch::Receiver<bool>) {
    drop(what.wait_for(|said| *said).await);
}

async fn connection(stream: TcpStream, shared: Shared) {
    let stream = match timeout(HANDSHAKE, shared.tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return debug!(%error, "no TLS"),
        Err(_) => return debug!("no TLS in time"),
    };
    let mut closing = shared.closing.clone();
    let service = service_fn(async |request| respond(request, &shared).await);
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE)
            .serve_connection(TokioIo::new(stream), service)
    );
    let done = tokio::select! {
        done = connection.as_mut() => done,
        () = said(&mut closing) => {
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
    if *shared.stopped.borrow() {
        // Closed by us at any other moment, the connection could break under a question.
        response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::super::chain::{Authority, Life, Serving};
    use super::super::keys;
    use super::*;
    use crate::api::{OPERATOR_USER, ROLLOUT_LABEL};
    use crate::clock::now;
    use hyper::client::conn::http1 as client;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, ServerName};
    use serde_json::{Value, json};
    use std::net::SocketAddr;
    use tokio_rustls::TlsConnector;
    use tokio_rustls::client::TlsStream;

    struct Server {
        address: SocketAddr,
        certificate: Arc<Certificate>,
        stop: watch::Sender<bool>,
        done: tokio::task::JoinHandle<()>,
    }

    async fn server() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let certificate = Arc::new(Certificate::default());
        let tls = tls(certificate.clone()).unwrap();
        let (stop, stopped) = watch::channel(false);
        let done = tokio::spawn(serve(listener, tls, OPERATOR_USER.into(), stopped));
        Server { address, certificate, stop, done }
    }

    fn issued() -> (Authority, Serving) {
        let life = Life::default();
        let authority = keys::authority(&life, now()).unwrap();
        let serving = keys::serving(&authority, &["127.0.0.1".to_owned()].into(), &life, now()).unwrap();
        (authority, serving)
    }

    async fn connect(server: &Server, trusted: &Authority) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(trusted.certificate.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(server.address).await?;
        let name = ServerName::try_from("127.0.0.1").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    async fn ask(stream: TlsStream<TcpStream>, path: &str, body: Vec<u8>) -> (u16, bool, String) {
        let (mut sender, connection) = client::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::post(path).header("host", "belay").body(Full::new(Bytes::from(body))).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        let closes = answer.headers().get(header::CONNECTION).is_some_and(|c| c == "close");
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, closes, String::from_utf8(body.to_vec()).unwrap())
    }

    fn question() -> Vec<u8> {
        let deployment = |image: &str| {
            json!({
                "metadata": {"labels": {ROLLOUT_LABEL: "web"}},
                "spec": {"template": {"spec": {"containers": [{"image": image}]}}},
            })
        };
        let review = json!({
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": {
                "uid": "1-2-3",
                "kind": {"group": "apps", "version": "v1", "kind": "Deployment"},
                "operation": "UPDATE",
                "userInfo": {"username": "alice"},
                "oldObject": deployment("a"),
                "object": deployment("b"),
            },
        });
        review.to_string().into_bytes()
    }

    #[tokio::test]
    async fn a_question_is_answered_and_what_is_no_question_is_refused() {
        let server = server().await;
        let (authority, serving) = issued();
        server.certificate.set(keys::certified(&serving).unwrap());
        let asked = async |body| ask(connect(&server, &authority).await.unwrap(), "/brake", body).await;
        let (status, closes, body) = asked(question()).await;
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, closes), (200, false));
        assert_eq!(body["response"]["patchType"], "JSONPatch");
        let (status, _, body) = asked(b"what?".to_vec()).await;
        assert_eq!(status, 400);
        assert!(body.contains("not JSON"), "{body}");
        let (status, _, body) = asked(vec![b' '; BODY + 1]).await;
        assert_eq!(status, 413);
        assert!(body.contains("at most"), "{body}");
    }

    #[tokio::test]
    async fn another_certificate_is_served_without_a_restart() {
        let server = server().await;
        let ((first, serving_first), (second, serving_second)) = (issued(), issued());
        assert!(connect(&server, &first).await.is_err(), "there is none yet");
        server.certificate.set(keys::certified(&serving_first).unwrap());
        let open = connect(&server, &first).await.unwrap();
        server.certificate.set(keys::certified(&serving_second).unwrap());
        assert!(connect(&server, &first).await.is_err());
        assert!(connect(&server, &second).await.is_ok());
        assert_eq!(ask(open, "/brake", question()).await.0, 200, "what is open stays open");
    }

    #[tokio::test]
    async fn asked_to_end_it_answers_for_a_while_and_sends_the_next_question_elsewhere() {
        let server = server().await;
        let (authority, serving) = issued();
        server.certificate.set(keys::certified(&serving).unwrap());
        let idle = connect(&server, &authority).await.unwrap();
        server.stop.send_replace(true);
        let (status, closes, _) = ask(idle, "/brake", question()).await;
        assert_eq!((status, closes), (200, true));
        let (status, closes, _) =
            ask(connect(&server, &authority).await.unwrap(), "/brake", question()).await;
        assert_eq!((status, closes), (200, true));
        timeout(Duration::from_secs(60), server.done).await.expect("it ends").unwrap();
    }
}
