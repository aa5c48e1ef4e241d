//! Requests at a constant rate, through a Service or a router, counted by the version that answers.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderValue, Method, Request, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use jiff::Timestamp;
use tokio::task::{JoinHandle, JoinSet};

/// Longest time for one request.
const DEADLINE: Duration = Duration::from_secs(5);
/// Most requests a second: the machine does other things too.
const MOST: u32 = 500;

/// Stands for a version where the answer has none: it is the router's own.
pub const ROUTER: &str = "router";

/// Where requests go, and how.
#[derive(Clone, Debug)]
pub struct Target {
    /// Host and port to connect to.
    pub address: String,
    /// What the requests call the host.
    pub host: String,
    /// Whether a connection serves one request after another; else each has its own.
    pub keep_alive: bool,
}

/// What became of the requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// All of them.
    pub requests: u64,
    /// Answered with anything but 200, by version.
    pub bad: BTreeMap<String, u64>,
    /// Answered, by version.
    pub answered: BTreeMap<String, u64>,
    /// Answered, by status.
    pub statuses: BTreeMap<u16, u64>,
    /// When a version answered last.
    pub last: BTreeMap<String, Timestamp>,
    /// Not answered, and why: the first few.
    pub failed: Vec<String>,
}

impl Totals {
    /// How many were not answered.
    pub fn unanswered(&self) -> u64 {
        self.requests - self.answered.values().sum::<u64>()
    }

    /// How many were answered with 500 or above.
    pub fn server_errors(&self) -> u64 {
        self.statuses.range(500..).map(|(_, count)| count).sum()
    }

    /// How many a version answered.
    pub fn by(&self, version: &str) -> u64 {
        self.answered.get(version).copied().unwrap_or(0)
    }

    fn count(&mut self, answer: Result<Answer, String>) {
        self.requests += 1;
        match answer {
            Ok(Answer { status, version, .. }) => {
                if status != 200 {
                    *self.bad.entry(version.clone()).or_default() += 1;
                }
                *self.statuses.entry(status).or_default() += 1;
                self.last.insert(version.clone(), belay::clock::now());
                *self.answered.entry(version).or_default() += 1;
            }
            Err(error) if self.failed.len() < 20 => self.failed.push(error),
            Err(_) => {}
        }
    }
}

/// A load that runs until it is stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    totals: Arc<Mutex<Totals>>,
    task: JoinHandle<()>,
}

impl Load {
    /// Starts to send `per_second` requests a second to an address, each on a connection of its own.
    pub fn start(address: &str, per_second: u32) -> Self {
        let target = Target { address: address.to_owned(), host: "load".to_owned(), keep_alive: false };
        Self::start_to(target, per_second)
    }

    /// The same to any target.
    pub fn start_to(target: Target, per_second: u32) -> Self {
        assert!((1..=MOST).contains(&per_second), "{per_second} requests a second");
        let (stop, totals) = (Arc::new(AtomicBool::new(false)), Arc::<Mutex<Totals>>::default());
        let task = tokio::spawn(run(target, per_second, stop.clone(), totals.clone()));
        Self { stop, totals, task }
    }

    /// What has ended so far.
    pub fn so_far(&self) -> Totals {
        self.totals.lock().unwrap().clone()
    }

    /// Stops it and counts.
    pub async fn stop(self) -> Totals {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
        self.totals.lock().unwrap().clone()
    }
}

/// Requests that wait for their answers are at most those of one deadline.
async fn run(target: Target, per_second: u32, stop: Arc<AtomicBool>, totals: Arc<Mutex<Totals>>) {
    let client = client(target.keep_alive);
    let mut open = JoinSet::new();
    let mut clock = tokio::time::interval(Duration::from_secs(1) / per_second);
    while !stop.load(Ordering::Relaxed) {
        clock.tick().await;
        let (client, target, totals) = (client.clone(), target.clone(), totals.clone());
        open.spawn(async move {
            let answer = exchange(&client, Method::GET, &target, "/").await;
            totals.lock().unwrap().count(answer);
        });
        while open.try_join_next().is_some() {}
    }
    while open.join_next().await.is_some() {}
}

type Http = Client<HttpConnector, Empty<Bytes>>;

fn client(keep_alive: bool) -> Http {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let idle = if keep_alive { MOST as usize } else { 0 };
    Client::builder(TokioExecutor::new()).pool_max_idle_per_host(idle).build(connector)
}

/// What one request got.
struct Answer {
    status: u16,
    version: String,
    body: String,
}

async fn exchange(client: &Http, method: Method, target: &Target, path: &str) -> Result<Answer, String> {
    let exchange = async {
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", target.address));
        request = request.header(header::HOST, &target.host);
        if !target.keep_alive {
            request = request.header(header::CONNECTION, "close");
        }
        let request = request.body(Empty::new()).map_err(|e| chain(&e))?;
        let response = client.request(request).await.map_err(|e| chain(&e))?;
        let version = response.headers().get("x-version").map(HeaderValue::as_bytes);
        let version = version.map_or(ROUTER.into(), String::from_utf8_lossy).into_owned();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.map_err(|e| chain(&e))?.to_bytes();
        Ok(Answer { status, version, body: String::from_utf8_lossy(&body).into_owned() })
    };
    tokio::time::timeout(DEADLINE, exchange).await.unwrap_or_else(|_| Err("no answer in time".to_owned()))
}

/// An error and what caused it.
fn chain(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |&e| e.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// One GET on a connection of its own: status and body.
pub async fn get(address: &str, path: &str, host: &str) -> Result<(u16, String), String> {
    ask(Method::GET, address, path, host).await
}

/// The version that answers one GET with a header, on a connection of its own.
pub async fn version_for(
    address: &str,
    host: &str,
    (name, value): (&'static str, &'static str),
) -> Result<String, String> {
    let request = Request::get(format!("http://{address}/"))
        .header(header::HOST, host)
        .header(header::CONNECTION, "close")
        .header(name, value);
    let request = request.body(Empty::<Bytes>::new()).map_err(|e| chain(&e))?;
    let answer = tokio::time::timeout(DEADLINE, client(false).request(request)).await;
    let response = answer.map_err(|_| "no answer in time".to_owned())?.map_err(|e| chain(&e))?;
    let version = response.headers().get("x-version").map(HeaderValue::as_bytes);
    Ok(version.map_or(ROUTER.into(), String::from_utf8_lossy).into_owned())
}

/// One POST without a body on a connection of its own: status and body.
pub async fn post(address: &str, path: &str) -> Result<(u16, String), String> {
    ask(Method::POST, address, path, "test").await
}

async fn ask(method: Method, address: &str, path: &str, host: &str) -> Result<(u16, String), String> {
    let target = Target { address: address.to_owned(), host: host.to_owned(), keep_alive: false };
    let answer = exchange(&client(false), method, &target, path).await?;
    Ok((answer.status, answer.body))
}

/// A server that answers every third request with 503 in its own name, the others as version 7, and counts
/// connections.
async fn server() -> (String, Arc<Mutex<u32>>) {
    use http::StatusCode;
    let connections = Arc::<Mutex<u32>>::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let accepted = connections.clone();
    let asked = Arc::<Mutex<u32>>::default();
    let answer = async move |headers: http::HeaderMap| {
        assert_eq!(headers["host"], "shop.test");
        let mut asked = asked.lock().unwrap();
        *asked += 1;
        if *asked % 3 == 0 {
            return (StatusCode::SERVICE_UNAVAILABLE, [("x-other", "1")], "nobody there");
        }
        (StatusCode::OK, [("x-version", "7")], "7\n")
    };
    let router = axum::Router::new().fallback(answer);
    tokio::spawn(async move {
        use axum::serve::ListenerExt;
        let listener = listener.tap_io(move |_| *accepted.lock().unwrap() += 1);
        axum::serve(listener, router).await.unwrap();
    });
    (address, connections)
}

#[tokio::test]
async fn a_connection_serves_one_request_or_several() {
    let (address, connections) = server().await;
    for (keep_alive, at_most) in [(false, 30), (true, 29)] {
        let target = Target { address: address.clone(), host: "shop.test".to_owned(), keep_alive };
        *connections.lock().unwrap() = 0;
        let client = client(keep_alive);
        for _ in 0..30 {
            exchange(&client, Method::GET, &target, "/").await.unwrap();
        }
        let connections = *connections.lock().unwrap();
        assert!(connections <= at_most && (keep_alive || connections == 30), "{connections}");
    }
}

#[tokio::test]
async fn every_request_is_counted_once() {
    let (address, _) = server().await;
    let target = Target { address, host: "shop.test".to_owned(), keep_alive: true };
    let began = belay::clock::now();
    let load = Load::start_to(target, 300);
    super::eventually(super::PATIENCE, "60 requests", async || {
        let so_far = load.so_far();
        if so_far.requests >= 60 { Ok(()) } else { Err(so_far) }
    })
    .await;
    let totals = load.stop().await;
    let third = totals.requests / 3;
    assert_eq!((totals.by(ROUTER), totals.by("7")), (third, totals.requests - third), "{totals:?}");
    assert_eq!((totals.server_errors(), totals.unanswered()), (third, 0), "{totals:?}");
    assert_eq!(totals.bad, BTreeMap::from([(ROUTER.to_owned(), third)]));
    let now = belay::clock::now();
    assert!(totals.last.len() == 2 && totals.last.values().all(|t| (began..=now).contains(t)), "{totals:?}");

    // A port that nobody listens on any more.
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let load = Load::start(&closed.to_string(), 300);
    super::eventually(super::PATIENCE, "30 requests", async || {
        let so_far = load.so_far();
        if so_far.requests >= 30 { Ok(()) } else { Err(so_far) }
    })
    .await;
    let totals = load.stop().await;
    assert_eq!((totals.unanswered(), totals.server_errors()), (totals.requests, 0), "{totals:?}");
    assert!(totals.failed.len() == 20 && totals.failed[0].contains("refused"), "{totals:?}");
}
