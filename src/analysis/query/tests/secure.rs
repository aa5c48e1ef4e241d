//! Sources that ask who asks, over TLS: what they see, whom Belay trusts, and that no value is ever shown.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::analysis::source::{Credentials, SecretKey};

/// What must appear nowhere.
const CANARY: &str = "canary-7f3a9c-secret";

/// Secrets of the namespace `shop` that a test changes.
#[derive(Default)]
struct Held(Mutex<BTreeMap<(String, String), Vec<u8>>>);

impl Held {
    fn set(&self, name: &str, key: &str, value: &str) {
        self.0.lock().unwrap().insert((name.to_owned(), key.to_owned()), value.as_bytes().to_vec());
    }
}

impl Secrets for Held {
    fn read<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
        keys: &'a [&'a str],
    ) -> BoxFuture<'a, Result<Vec<SecretValue>, SecretError>> {
        assert_eq!(namespace, "shop", "the Rollout's own");
        let held = self.0.lock().unwrap();
        let value = |key: &&str| {
            let found = held.get(&(name.to_owned(), (*key).to_owned())).cloned();
            let missing = SecretError::NoKey { name: name.to_owned(), key: (*key).to_owned() };
            found.map(SecretValue::new).ok_or(missing)
        };
        let values: Result<Vec<_>, _> = keys.iter().map(value).collect();
        async move { values }.boxed()
    }
}

/// An authority, and what it signs.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// TLS for a server of these names, valid from 2020 until the first day of a year.
    fn tls(&self, names: &[&str], until: i32) -> TlsAcceptor {
        let mut params =
            CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// A server over TLS on all loopback addresses; it keeps what it was asked, and counts its connections.
#[derive(Clone, Default)]
struct Server {
    asked: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
}

impl Server {
    async fn start(&self, tls: TlsAcceptor, reply: fn(&str) -> (u16, String)) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, server) = (tls.clone(), server.clone());
                tokio::spawn(async move {
                    let Ok(stream) = tls.accept(stream).await else { return };
                    server.connections.fetch_add(1, Ordering::SeqCst);
                    let service = service_fn(async |request: Request<Incoming>| {
                        let (head, body) = request.into_parts();
                        let body = body.collect().await.unwrap().to_bytes();
                        let mut text = format!("{} {}\r\n", head.method, head.uri);
                        for (name, value) in &head.headers {
                            let _ = write!(text, "{name}: {}\r\n", value.to_str().unwrap());
                        }
                        let _ = write!(text, "\r\n{}", String::from_utf8_lossy(&body));
                        let (status, body) = reply(&text);
                        server.asked.lock().unwrap().push(text);
                        Response::builder().status(status).body(Full::new(Bytes::from(body)))
                    });
                    // The client closes it, or the test ends.
                    drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
                });
            }
        });
        address
    }
}

fn token(secret: &str) -> Credentials {
    Credentials::Bearer(SecretKey { secret: secret.to_owned(), key: "token".to_owned() })
}

fn authorities() -> SecretKey {
    SecretKey { secret: "ca".to_owned(), key: "ca.crt".to_owned() }
}

fn pods_of(address: SocketAddr, access: Access) -> Plan {
    let source = PodSource { port: address.port(), path: "/metrics".to_owned(), secure: true, access };
    Plan { source: Some(Source::Pods(source)), ..plan(&[("errors", "1x")]) }
}

fn prometheus_of(address: SocketAddr, access: Access) -> Plan {
    let Plan { source: Some(Source::Prometheus(source)), .. } = from_prometheus(address.port()) else {
        unreachable!("it is one")
    };
    let url = format!("https://localhost:{}", address.port());
    let source = PrometheusSource { url, access, ..source };
    Plan { source: Some(Source::Prometheus(source)), ..plan(&[("errors", "1x")]) }
}

fn good(_: &str) -> (u16, String) {
    (200, GOOD.to_owned())
}

/// Says what it was sent, as error pages of proxies do.
fn parrot(request: &str) -> (u16, String) {
    (401, format!("<p>you sent {request}</p>"))
}

#[tokio::test]
async fn pods_over_tls_see_the_token_and_keep_their_connections() {
    let (authority, held, server) = (Authority::new(), Held::default(), Server::default());
    let address = server.start(authority.tls(&["web.shop.svc"], 2100), good).await;
    held.set("ca", "ca.crt", &authority.pem);
    held.set("scraper", "token", &format!("{CANARY}\n"));
    let access = Access {
        credentials: Some(token("scraper")),
        authorities: Some(authorities()),
        server_name: Some("web.shop.svc".to_owned()),
        insecure: false,
    };
    let plan = pods_of(address, access);
    let http = Http::new();
    for look in 1..=3 {
        let measured = pods(sample(&http, &held, &plan, &targets(), at(0)).await);
        assert!(measured.iter().all(|pod| pod.guards[0].is_some()), "{measured:?}");
        assert_eq!(server.asked.lock().unwrap().len(), 4 * look);
        assert_eq!(server.connections.load(Ordering::SeqCst), 4, "one for each pod, for all looks");
    }
    let authorization = format!("authorization: Bearer {CANARY}\r\n");
    assert!(server.asked.lock().unwrap().iter().all(|request| request.contains(&authorization)));
    // Another authority counts at once, and what is open for the old one is not used.
    held.set("ca", "ca.crt", &Authority::new().pem);
    let reason = problem(sample(&http, &held, &plan, &targets(), at(0)).await);
    assert!(reason.contains("invalid peer certificate"), "{reason}");
    // So does another token.
    held.set("ca", "ca.crt", &authority.pem);
    held.set("scraper", "token", "second");
    pods(sample(&http, &held, &plan, &targets(), at(0)).await);
    assert!(server.asked.lock().unwrap().last().unwrap().contains("authorization: Bearer second\r\n"));
}

#[tokio::test]
async fn whom_it_does_not_trust_it_tells_nothing() {
    let (authority, held) = (Authority::new(), Held::default());
    held.set("ca", "ca.crt", &authority.pem);
    held.set("ca", "key", "-----BEGIN PRIVATE KEY-----\nY2FuYXJ5\n-----END PRIVATE KEY-----\n");
    held.set("ca", "none", CANARY);
    held.set("scraper", "token", CANARY);
    let at_key = |key: &str| Some(SecretKey { secret: "ca".to_owned(), key: key.to_owned() });
    let name = Some("web.shop.svc".to_owned());
    for (until, access, said) in [
        (2100, Access { server_name: name.clone(), ..Access::default() }, ""),
        (
            2100,
            Access { authorities: at_key("ca.crt"), ..Access::default() },
            "certificate not valid for name",
        ),
        (
            2100,
            Access {
                authorities: at_key("ca.crt"),
                server_name: Some("other".to_owned()),
                ..Access::default()
            },
            "certificate not valid for name \"other\"",
        ),
        (
            2021,
            Access { authorities: at_key("ca.crt"), server_name: name.clone(), ..Access::default() },
            "expired",
        ),
        (2100, Access { authorities: at_key("none"), ..Access::default() }, "holds no certificate in PEM"),
        (2100, Access { authorities: at_key("key"), ..Access::default() }, "holds no certificate in PEM"),
        (
            2100,
            Access { authorities: at_key("missing"), ..Access::default() },
            "the Secret ca has no key missing",
        ),
    ] {
        let server = Server::default();
        let address = server.start(authority.tls(&["web.shop.svc"], until), good).await;
        let plan = pods_of(address, Access { credentials: Some(token("scraper")), ..access });
        let sample = sample(&Http::new(), &held, &plan, &targets(), at(0)).await;
        let shown = format!("{sample:?}");
        let reason = problem(sample);
        assert!(reason.contains(said), "{said}: {reason}");
        assert!(!shown.contains(CANARY) && !shown.contains("Y2FuYXJ5"), "{shown}");
        assert!(server.asked.lock().unwrap().is_empty(), "{said}: it was asked");
    }
    let server = Server::default();
    let address = server.start(authority.tls(&["elsewhere"], 2021), good).await;
    let plan = pods_of(address, Access { insecure: true, ..Access::default() });
    pods(sample(&Http::new(), &held, &plan, &targets(), at(0)).await);
}

#[tokio::test]
async fn a_server_sees_user_and_tenant_and_what_it_repeats_is_not_shown() {
    let (authority, held, server) = (Authority::new(), Held::default(), Server::default());
    held.set("ca", "ca.crt", &authority.pem);
    held.set("prometheus", "username", "belay");
    held.set("prometheus", "password", CANARY);
    let access = |credentials| Access {
        credentials: Some(credentials),
        authorities: Some(authorities()),
        server_name: None,
        insecure: false,
    };
    let basic = Credentials::Basic {
        secret: "prometheus".to_owned(),
        user: "username".to_owned(),
        password: "password".to_owned(),
    };
    let address = server.start(authority.tls(&["localhost"], 2100), parrot).await;
    let sample = sample(&Http::new(), &held, &prometheus_of(address, access(basic)), &targets(), at(0)).await;
    // printf 'belay:canary-7f3a9c-secret' | base64
    let pair = "YmVsYXk6Y2FuYXJ5LTdmM2E5Yy1zZWNyZXQ=";
    let request = server.asked.lock().unwrap()[0].clone();
    assert!(request.contains(&format!("authorization: Basic {pair}\r\n")), "{request}");
    assert!(request.contains("x-scope-orgid: team-a\r\n"), "{request}");
    let shown = format!("{sample:?}");
    assert!(!shown.contains(CANARY) && !shown.contains(pair), "{shown}");
    let reason = problem(sample);
    assert!(
        reason.contains(
            "answered 401 (unauthorized): it does not take the credentials in the Secret prometheus"
        ),
        "{reason}"
    );
    assert!(reason.contains("<p>you sent POST"), "what it says helps: {reason}");
}

#[tokio::test]
async fn a_secret_that_cannot_be_sent_is_named_and_not_shown() {
    let held = Held::default();
    held.set("s", "empty", "\n");
    held.set("s", "lines", &format!("{CANARY}\n{CANARY}"));
    held.set("s", "colon", &format!("{CANARY}:x"));
    held.set("s", "token", CANARY);
    let bearer = |key: &str| Credentials::Bearer(SecretKey { secret: "s".to_owned(), key: key.to_owned() });
    let basic = |user: &str| Credentials::Basic {
        secret: "s".to_owned(),
        user: user.to_owned(),
        password: "token".to_owned(),
    };
    for (credentials, said) in [
        (bearer("empty"), "the key empty of the Secret s is empty"),
        (bearer("lines"), "the key lines of the Secret s is no text of one line"),
        (bearer("missing"), "the Secret s has no key missing"),
        (basic("colon"), "the key colon of the Secret s must have no colon (RFC 7617)"),
    ] {
        let access = Access { credentials: Some(credentials), ..Access::default() };
        let plan = pods_of(SocketAddr::from(([127, 0, 0, 1], 1)), access);
        let sample = sample(&Http::new(), &held, &plan, &targets(), at(0)).await;
        assert!(!format!("{sample:?}").contains(CANARY), "{sample:?}");
        assert_eq!(problem(sample), said);
    }
    // Nobody to ask: nothing is read.
    let access = Access { credentials: Some(bearer("missing")), ..Access::default() };
    let plan = pods_of(SocketAddr::from(([127, 0, 0, 1], 1)), access);
    let young = [Target { started_at: at(-1), ..target(1, Side::Canary) }];
    assert_eq!(pods(sample(&Http::new(), &held, &plan, &young, at(0)).await).len(), 1);
}

#[tokio::test]
async fn a_check_sends_its_token_and_shows_it_nowhere() {
    let held = Held::default();
    held.set("smoke", "token", CANARY);
    let port = serve(move |_, request| {
        let known = request.contains(&format!("authorization: Bearer {CANARY}\r\n"));
        Reply::Say(if known { 200 } else { 401 }, format!(r#"{{"echo": "{CANARY}"}}"#).into_bytes())
    });
    let web = serde_json::json!({
        "url": format!("http://127.0.0.1:{port}/"), "jsonPath": "$.echo",
        "condition": "status == 200 && result != ''",
        "auth": {"bearer": {"secretRef": {"name": "smoke"}}},
    });
    let plan = crate::analysis::tests::plan_of(&serde_json::json!([{"name": "smoke", "web": web}]));
    let names = crate::analysis::check::Names { namespace: "shop".to_owned(), ..Default::default() };
    let run = super::super::check(&Http::new(), &held, &plan, "smoke", &names, at(0)).await;
    assert_eq!(run.passed, Ok(true));
    assert_eq!(run.seen, r#"status 200, result "***""#);
}
