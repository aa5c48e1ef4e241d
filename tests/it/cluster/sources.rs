//! Sources that want to know who asks: pods that serve their page over TLS for whoever has a token, and a Prometheus
//! behind a proxy that wants user, password and tenant.
//!
//! Each test goes the way of whoever sets it up: first nothing is permitted and the release is held with the reason,
//! then what the reason asks for is done. No value of a Secret may be seen anywhere on this way.

use std::convert::Infallible;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use belay::install::{self, Options};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio_rustls::TlsAcceptor;

use super::examples::run_as;
use super::load::Load;
use super::scene::{Plan, Scene, brief, text};
use super::{PATIENCE, eventually};

/// What must appear nowhere.
const CANARY: &str = "canary-51c2e07b-secret";
const PROMETHEUS: &str = "10.99.0.2:9090";

fn guarded(metrics: &Value) -> Plan {
    let spec = json!({
        "strategy": {"canary": {"steps": [{"weight": 50, "minDuration": "2s", "maxDuration": "60s"}]}},
        "analysis": {
            "interval": "1s", "warmUp": "1s", "metrics": metrics,
            "guards": [{"name": "errors", "ratio": {
                "bad": {"metric": "http_requests_total", "match": "code=~\"5..\""},
                "total": {"metric": "http_requests_total"},
                "tolerate": "1.5x + 5%",
            }}],
        },
    });
    let annotations = json!({"prometheus.io/scrape": "true", "prometheus.io/port": "8080"});
    let deployment = json!({"spec": {"template": {"metadata": {"annotations": annotations}}}});
    Plan { replicas: 2, spec, deployment, env: Vec::new() }
}

/// An authority's certificate, and a certificate of this name with its key, all in PEM.
pub struct Pki {
    pub authority: String,
    certificate: rcgen::Certificate,
    key: KeyPair,
}

/// A certificate of this name and whoever signed it.
pub fn pki(name: &str) -> Pki {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer_key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&issuer_key).unwrap().pem();
    let issuer = Issuer::new(params, issuer_key);
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    Pki { authority, certificate, key }
}

impl Scene {
    /// Makes or changes a Secret.
    pub async fn secret(&self, name: &str, data: Value) {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data,
        });
        self.namespace.apply(&self.namespace.env.alice, "alice", &secret).await.unwrap();
    }

    /// Does what `belay lint` says, as whoever administers the namespace: the right to edit is not enough.
    pub async fn let_it_read(&self, secrets: &[&str]) {
        let yaml = install::secret_reader(&Options::default(), Some(&self.namespace.name), "web", secrets);
        self.namespace.apply_yaml(&self.namespace.env.admin, "admin", &yaml).await.unwrap();
    }

    /// Waits until the release is held for want of data, for a reason with these words.
    async fn held_because(&self, release: &str, words: &str) {
        let held =
            |r: &Value| text(r, "/status/reason") == "NoData" && text(r, "/status/message").contains(words);
        self.release_where(release, words, held).await;
    }

    /// Waits until `belay doctor` says this to a user; a right that was granted counts a moment later.
    async fn doctor_says(&self, user: &str, words: &str) {
        eventually(PATIENCE, words, async || {
            let said = run_as(user, "belay", &["doctor", "--namespace", &self.namespace.name]).await.1;
            assert!(!said.contains(CANARY), "{said}");
            if said.contains(words) { Ok(()) } else { Err(said) }
        })
        .await;
    }

    /// Objects, events and log have none of the values, in the clear or as they are sent.
    async fn assert_nothing_leaked(&self, release: &str, values: &[&str]) {
        let objects = json!([
            self.rollout().await,
            self.release(release).await,
            self.list("events.k8s.io/v1", "Event").await,
            self.list("coordination.k8s.io/v1", "Lease").await,
        ])
        .to_string();
        assert!(objects.contains("NoData"), "{objects}");
        assert!(!self.operator.logged("no data").is_empty(), "each look tells the log why");
        for value in values {
            assert!(!objects.contains(value), "{value} in {objects}");
            let lines = self.operator.logged(value);
            assert!(lines.is_empty(), "{value} in {lines:?}");
        }
    }
}

async fn loaded(scene: &Scene) -> Load {
    let address = super::releases::service(scene).await;
    Load::start(&address, 80)
}

#[tokio::test]
async fn pods_that_serve_their_page_over_tls_for_whoever_has_the_token() {
    let Pki { authority, certificate, key } = pki("web.shop.svc");
    let metrics = json!({"pods": {
        "port": 8443, "scheme": "https",
        "tls": {"caSecretRef": {"name": "metrics-ca"}, "serverName": "web.shop.svc"},
        "auth": {"bearer": {"secretRef": {"name": "metrics-token"}}},
    }});
    let mut plan = guarded(&metrics);
    plan.env = vec![
        ("METRICS", "openmetrics"),
        ("METRICS_CERT", certificate.pem().leak()),
        ("METRICS_KEY", key.serialize_pem().leak()),
        ("METRICS_TOKEN", CANARY),
    ];
    let Some(mut scene) = Scene::start("podtls", plan).await else { return };
    let load = loaded(&scene).await;
    scene.secret("metrics-ca", json!({"ca.crt": authority})).await;
    scene.secret("metrics-token", json!({"token": "not the token"})).await;
    scene.set_env(&[("VERSION", "2")]).await;
    let name = scene.new_release(0).await;
    let role =
        "system:serviceaccount:belay-system:belay may not read the Secret metrics-ca: create in namespace";
    scene.held_because(&name, role).await;
    scene.doctor_says("alice", "may not read the Secret metrics-token").await;
    // Who may not ask for others in the whole cluster may ask in a namespace of his own, or is told nothing.
    scene.namespace.grant("nobody", "view").await;
    scene.doctor_says("nobody", "whether the operator may read the Secret metrics-token is not known").await;
    scene.namespace.grant("nobody", "admin").await;
    scene.doctor_says("nobody", "may not read the Secret metrics-token").await;
    scene.let_it_read(&["metrics-ca"]).await;
    scene.held_because(&name, "may not read the Secret metrics-token").await;
    scene.let_it_read(&["metrics-ca", "metrics-token"]).await;
    scene
        .held_because(&name, "answered 401 (unauthorized): it does not take the credentials in the Secret")
        .await;
    scene.doctor_says("alice", "the operator may read the Secret metrics-token").await;
    // Rotated: it counts within a minute.
    scene.secret("metrics-token", json!({"token": format!("{CANARY}\n")})).await;
    let goes_on = |r: &Value| text(r, "/status/reason") != "NoData";
    scene.release_where(&name, "the new token counts", goes_on).await;
    let release = scene.release_is(&name, "Promoted").await;
    let way = release["status"]["timeline"].to_string();
    assert!(way.contains("prove"), "{}", brief(&release));
    load.stop().await;
    // The Deployment has the token in its own settings, so only what Belay wrote is looked at.
    let lines = scene.operator.logged(CANARY);
    assert!(lines.is_empty(), "{lines:?}");
    let events = json!(scene.list("events.k8s.io/v1", "Event").await).to_string();
    assert!(events.contains("may not read the Secret") && !events.contains(CANARY), "{events}");
    assert!(!release["status"].to_string().contains(CANARY), "{release}");
    scene.operator.assert_healthy().await;
}

/// A proxy before Prometheus: TLS, user, password and tenant. Whoever is refused gets back what was sent, as the
/// error pages of some proxies do.
pub async fn gate(pki: &Pki, user: &str, password: &str) -> std::net::SocketAddr {
    let authorization = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pki.key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![pki.certificate.der().clone()], key)
        .unwrap();
    let tls = TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let onward: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (tls, onward, authorization) = (tls.clone(), onward.clone(), authorization.clone());
            tokio::spawn(async move {
                let Ok(stream) = tls.accept(stream).await else { return };
                let service = service_fn(move |request: Request<Incoming>| {
                    pass(request, onward.clone(), authorization.clone())
                });
                // The client closes it, or the test ends.
                drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
            });
        }
    });
    address
}

async fn pass(
    request: Request<Incoming>,
    onward: Client<HttpConnector, Full<Bytes>>,
    authorization: String,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let answer =
        |status: u16, body: Bytes| Ok(Response::builder().status(status).body(Full::new(body)).unwrap());
    let (head, body) = request.into_parts();
    let header =
        |name: &str| head.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    if header("authorization") != authorization || header("x-scope-orgid") != "team-a" {
        let text = format!("you are {:?}", header("authorization"));
        return answer(401, Bytes::from(text));
    }
    let body = body.collect().await.unwrap().to_bytes();
    let uri = format!("http://{PROMETHEUS}{}", head.uri.path());
    let request =
        Request::post(uri).header("content-type", header("content-type")).body(Full::new(body)).unwrap();
    let answered = onward.request(request).await.unwrap();
    let status = answered.status().as_u16();
    answer(status, answered.into_body().collect().await.unwrap().to_bytes())
}

#[tokio::test]
async fn a_prometheus_that_wants_user_password_and_tenant_over_tls() {
    let there = super::load::get(PROMETHEUS, "/-/ready", "prometheus").await.is_ok_and(|(s, _)| s == 200);
    if !there {
        eprintln!("SKIPPED: no Prometheus at {PROMETHEUS}; start the cluster with --with-prometheus");
        return;
    }
    let pki = pki("prometheus.monitoring");
    let pair = STANDARD.encode(format!("belay:{CANARY}"));
    let wrong = STANDARD.encode(format!("belay:{CANARY}-wrong"));
    let address = gate(&pki, "belay", CANARY).await;
    let metrics = json!({"prometheus": {
        "url": format!("https://{address}"), "tenant": "team-a", "lookBack": "1m",
        "auth": {"basic": {"secretRef": {"name": "prometheus", "usernameKey": "user"}}},
        "tls": {"caSecretRef": {"name": "prometheus", "key": "ca"}, "serverName": "prometheus.monitoring"},
    }});
    let Some(mut scene) = Scene::start("promtls", guarded(&metrics)).await else { return };
    let load = loaded(&scene).await;
    let secret = |password: &str| json!({"user": "belay", "password": password, "ca": pki.authority});
    scene.secret("prometheus", secret(&format!("{CANARY}-wrong"))).await;
    scene.set_env(&[("VERSION", "2")]).await;
    let name = scene.new_release(0).await;
    scene.held_because(&name, "may not read the Secret prometheus").await;
    scene.let_it_read(&["prometheus"]).await;
    let refused =
        "answered 401 (unauthorized): it does not take the credentials in the Secret prometheus: you are";
    scene.held_because(&name, refused).await;
    scene.assert_nothing_leaked(&name, &[CANARY, &pair, &wrong]).await;
    scene.secret("prometheus", secret(CANARY)).await;
    let goes_on = |r: &Value| text(r, "/status/reason") != "NoData";
    scene.release_where(&name, "the new password counts", goes_on).await;
    let release = scene.release_is(&name, "Promoted").await;
    assert!(release["status"]["timeline"].to_string().contains("prove"), "{}", brief(&release));
    load.stop().await;
    scene.operator.assert_healthy().await;
}
