//! A proxy before the API server that counts what an operator asks: others use the same API server.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use kube::Client;
use serde_json::json;

type Counts = BTreeMap<String, u32>;

/// The proxy. It adds the operator's credentials.
pub struct Proxy {
    counts: Arc<Mutex<Counts>>,
    task: tokio::task::JoinHandle<()>,
    /// A kubeconfig that leads to it.
    pub kubeconfig: PathBuf,
}

#[derive(Clone)]
struct Forward {
    client: Client,
    counts: Arc<Mutex<Counts>>,
}

impl Proxy {
    /// Starts it.
    pub async fn start() -> Self {
        let client = super::connected(&super::operator::own_kubeconfig(), None, &[]).await.unwrap();
        let counts: Arc<Mutex<Counts>> = Arc::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let forward = Forward { client, counts: counts.clone() };
        let router = Router::new().fallback(forward_one).with_state(forward);
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { counts, task, kubeconfig: write_kubeconfig(address) }
    }

    /// What was asked since the last call: method and resource; watches as `WATCH`.
    pub fn take(&self) -> Counts {
        std::mem::take(&mut *self.counts.lock().unwrap())
    }
}

/// A kubeconfig that leads to a proxy at this address.
pub fn write_kubeconfig(address: std::net::SocketAddr) -> PathBuf {
    let path = std::env::temp_dir().join(format!("belay-proxy-{}-{}", std::process::id(), address.port()));
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "proxy",
        "clusters": [{"name": "proxy", "cluster": {"server": format!("http://{address}")}}],
        "users": [{"name": "proxy", "user": {}}],
        "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
    });
    std::fs::write(&path, config.to_string()).unwrap();
    path
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        drop(std::fs::remove_file(&self.kubeconfig));
    }
}

async fn forward_one(State(forward): State<Forward>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let query = head.uri.query().unwrap_or_default();
    let watch = query.split('&').any(|q| q == "watch=true" || q == "watch=1");
    let method = if watch { "WATCH" } else { head.method.as_str() };
    let key = format!("{method} {}", resource(head.uri.path()));
    *forward.counts.lock().unwrap().entry(key).or_default() += 1;
    let body = axum::body::to_bytes(body, 8 << 20).await.unwrap();
    let mut onward =
        http::Request::builder().method(head.method).uri(head.uri.path_and_query().unwrap().as_str());
    for name in [http::header::CONTENT_TYPE, http::header::ACCEPT] {
        if let Some(value) = head.headers.get(&name) {
            onward = onward.header(name, value);
        }
    }
    let onward = onward.body(kube::client::Body::from(body.to_vec())).unwrap();
    match forward.client.send(onward).await {
        Ok(answer) => {
            let (mut head, body) = answer.into_parts();
            head.headers.remove(http::header::TRANSFER_ENCODING);
            Response::from_parts(head, Body::new(body))
        }
        Err(error) => Response::builder().status(502).body(Body::from(error.to_string())).unwrap(),
    }
}

/// The plural in a path, with the subresource.
pub fn resource(path: &str) -> String {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match parts.iter().position(|p| *p == "namespaces") {
        Some(at) if parts.len() > at + 2 => {
            let status = if parts.get(at + 4) == Some(&"status") { "/status" } else { "" };
            format!("{}{status}", parts[at + 2])
        }
        _ => parts.last().copied().unwrap_or_default().to_owned(),
    }
}
