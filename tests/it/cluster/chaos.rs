//! A proxy before the API server that answers badly on purpose: everything that stands between an operator and its
//! API server, on one bad day. It speaks HTTP/1.1 by hand, so that it can break off wherever it likes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::kill::Dice;

/// What is done to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Answered late.
    Late,
    /// 429 with `Retry-After`.
    BusyFor,
    /// 429 without.
    Busy,
    /// 500.
    Broken,
    /// 503.
    Unavailable,
    /// Never forwarded; the connection is closed.
    Dropped,
    /// Forwarded and done; its answer never arrives.
    AnswerLost,
    /// The connection is reset.
    Reset,
    /// Accepted, then silence.
    Silent,
    /// The answer comes in small pieces.
    Slow,
    /// The answer ends in the middle of its JSON, and says that this was all.
    Truncated,
    /// A watch that ends in the middle of an event.
    WatchCut,
    /// A watch that says 410 Gone.
    WatchGone,
    /// A watch that is refused with 410 Gone.
    WatchRefused,
    /// A watch that says nothing any more.
    WatchSilent,
}

/// What happens to single requests, and how often in one deck of cards.
const SINGLE: [(Fault, usize); 11] = [
    (Fault::Late, 6),
    (Fault::BusyFor, 3),
    (Fault::Busy, 3),
    (Fault::Broken, 3),
    (Fault::Unavailable, 3),
    (Fault::Dropped, 3),
    (Fault::AnswerLost, 6),
    (Fault::Reset, 3),
    (Fault::Silent, 1),
    (Fault::Slow, 3),
    (Fault::Truncated, 3),
];

/// The same for watches.
const WATCH: [(Fault, usize); 9] = [
    (Fault::WatchCut, 10),
    (Fault::WatchGone, 3),
    (Fault::WatchRefused, 2),
    (Fault::WatchSilent, 1),
    (Fault::Reset, 1),
    (Fault::Unavailable, 1),
    (Fault::Busy, 1),
    (Fault::Silent, 1),
    (Fault::Late, 2),
];

/// All that can happen.
pub fn all_faults() -> Vec<Fault> {
    let mut all: Vec<Fault> = SINGLE.iter().chain(&WATCH).map(|(fault, _)| *fault).collect();
    all.sort_unstable();
    all.dedup();
    all
}

#[derive(Default)]
struct Counts {
    requests: BTreeMap<String, u32>,
    faults: BTreeMap<Fault, u32>,
}

struct Shared {
    client: Client,
    dice: Mutex<Dice>,
    /// The faults to come, single ones and those of watches. Each deck has all, so that all happen.
    decks: Mutex<[Vec<Fault>; 2]>,
    counts: Mutex<Counts>,
    /// Faults per thousand single requests, and per thousand watches.
    single: AtomicU64,
    watches: AtomicU64,
    /// Counts the changes of the weather: watches that run break off, and what is silent, too.
    weather: watch::Receiver<u64>,
}

/// The proxy. It adds the operator's credentials.
pub struct Chaos {
    shared: Arc<Shared>,
    weather: watch::Sender<u64>,
    task: tokio::task::JoinHandle<()>,
    /// A kubeconfig that leads to it.
    pub kubeconfig: PathBuf,
}

impl Chaos {
    /// Starts it; nothing bad happens yet.
    pub async fn start() -> Self {
        let client = super::connected(&super::operator::own_kubeconfig(), None, &[]).await.unwrap();
        let (weather, weather_out) = watch::channel(0);
        let shared = Arc::new(Shared {
            client,
            dice: Mutex::new(Dice::new()),
            decks: Mutex::default(),
            counts: Mutex::default(),
            single: AtomicU64::new(0),
            watches: AtomicU64::new(0),
            weather: weather_out,
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepting = shared.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = accepting.clone();
                tokio::spawn(async move { drop(connection(&stream, &shared).await) });
            }
        });
        let kubeconfig = super::proxy::write_kubeconfig(address);
        Self { shared, weather, task, kubeconfig }
    }

    /// From now on so many of a thousand single requests go wrong, and so many watches.
    pub fn rage(&self, single: u64, watches: u64) {
        self.shared.single.store(single, Ordering::Relaxed);
        self.shared.watches.store(watches, Ordering::Relaxed);
        self.weather.send_modify(|changes| *changes += 1);
    }

    /// From now on nothing goes wrong, and what is silent breaks off.
    pub fn calm(&self) {
        self.rage(0, 0);
    }

    /// What was asked since the last call: method and resource; watches as `WATCH`.
    pub fn take(&self) -> BTreeMap<String, u32> {
        std::mem::take(&mut self.shared.counts.lock().unwrap().requests)
    }

    /// What went wrong so far.
    pub fn faults(&self) -> BTreeMap<Fault, u32> {
        self.shared.counts.lock().unwrap().faults.clone()
    }
}

impl Drop for Chaos {
    fn drop(&mut self) {
        self.task.abort();
        drop(std::fs::remove_file(&self.kubeconfig));
    }
}

impl Shared {
    fn below(&self, bound: u64) -> u64 {
        self.dice.lock().unwrap().below(bound)
    }

    fn choose(&self, watch: bool) -> Option<Fault> {
        let rate = if watch { &self.watches } else { &self.single }.load(Ordering::Relaxed);
        if self.below(1000) >= rate {
            return None;
        }
        let table: &[(Fault, usize)] = if watch { &WATCH } else { &SINGLE };
        let mut decks = self.decks.lock().unwrap();
        let deck = &mut decks[usize::from(watch)];
        if deck.is_empty() {
            deck.extend(table.iter().flat_map(|(fault, times)| vec![*fault; *times]));
        }
        let at = usize::try_from(self.below(deck.len() as u64)).unwrap();
        let fault = deck.swap_remove(at);
        *self.counts.lock().unwrap().faults.entry(fault).or_default() += 1;
        Some(fault)
    }

    /// Half-open: most often something on the way closes it after some seconds; else nobody ever does.
    async fn silence(&self) {
        let for_ever = self.below(4) == 0;
        self.pause(if for_ever { 600_000 } else { 8_000 }).await;
    }

    /// A pause that ends at once when the weather changes.
    async fn pause(&self, millis: u64) {
        let mut weather = self.weather.clone();
        weather.mark_unchanged();
        drop(tokio::time::timeout(Duration::from_millis(millis), weather.changed()).await);
    }
}

/// Why a connection ends.
type Ended = std::io::Result<()>;

async fn connection(stream: &TcpStream, shared: &Shared) -> Ended {
    let mut buffer = Vec::new();
    while let Some(request) = read_request(stream, &mut buffer).await? {
        let watch = request.target.contains("watch=true");
        let path = request.target.split('?').next().unwrap_or_default();
        let method = if watch { "WATCH" } else { request.method.as_str() };
        let key = format!("{method} {}", super::proxy::resource(path));
        *shared.counts.lock().unwrap().requests.entry(key).or_default() += 1;
        let fault = shared.choose(watch);
        match fault {
            Some(Fault::Late) => shared.pause(50 + shared.below(1200)).await,
            Some(Fault::Busy) => write_status(stream, 429, "").await?,
            Some(Fault::BusyFor) => write_status(stream, 429, "retry-after: 1\r\n").await?,
            Some(Fault::Broken) => write_status(stream, 500, "").await?,
            Some(Fault::Unavailable) => write_status(stream, 503, "").await?,
            Some(Fault::WatchRefused) => write_status(stream, 410, "").await?,
            Some(Fault::Dropped) => return Ok(()),
            Some(Fault::Reset) => return stream.set_zero_linger(),
            Some(Fault::Silent) => {
                shared.silence().await;
                return Ok(());
            }
            _ => {}
        }
        let answered = [Fault::Busy, Fault::BusyFor, Fault::Broken, Fault::Unavailable, Fault::WatchRefused];
        if !fault.is_some_and(|fault| answered.contains(&fault)) {
            forward(stream, shared, request, fault).await?;
        }
    }
    Ok(())
}

async fn forward(stream: &TcpStream, shared: &Shared, request: Asked, fault: Option<Fault>) -> Ended {
    let mut onward = http::Request::builder().method(request.method.as_str()).uri(&request.target);
    for (name, value) in &request.headers {
        onward = onward.header(name, value);
    }
    let onward = onward.body(Body::from(request.body)).unwrap();
    let Ok(answer) = shared.client.send(onward).await else { return write_status(stream, 502, "").await };
    let status = answer.status().as_u16();
    match fault {
        Some(Fault::AnswerLost) => {
            drop(answer.into_body().collect().await);
            broken_off()
        }
        Some(Fault::Truncated | Fault::Slow) => {
            let Ok(whole) = answer.into_body().collect().await else { return broken_off() };
            let whole = whole.to_bytes();
            let part = if fault == Some(Fault::Truncated) { &whole[..whole.len() / 2] } else { &whole[..] };
            write_all(stream, head(status, &format!("content-length: {}\r\n", part.len())).as_bytes())
                .await?;
            // At most a hundred pieces, so that a large answer, too, takes two seconds.
            let piece = if fault == Some(Fault::Slow) { part.len() / 100 + 1 } else { part.len().max(1) };
            for piece in part.chunks(piece) {
                write_all(stream, piece).await?;
                if fault == Some(Fault::Slow) {
                    shared.pause(20).await;
                }
            }
            Ok(())
        }
        _ => stream_on(stream, shared, status, answer.into_body(), fault).await,
    }
}

/// Passes the answer on piece by piece, as a watch needs it.
async fn stream_on(
    stream: &TcpStream,
    shared: &Shared,
    status: u16,
    body: Body,
    fault: Option<Fault>,
) -> Ended {
    write_all(stream, head(status, "transfer-encoding: chunked\r\n").as_bytes()).await?;
    if fault == Some(Fault::WatchSilent) {
        shared.silence().await;
        return Ok(());
    }
    // In bad weather no watch lasts for long, so that many are asked for.
    let ends_after =
        if shared.watches.load(Ordering::Relaxed) > 0 { 200 + shared.below(8000) } else { 3_600_000 };
    let end = shared.pause(ends_after);
    let mut end = std::pin::pin!(end);
    let mut pieces = body.into_data_stream();
    loop {
        let piece = tokio::select! {
            piece = pieces.next() => piece,
            () = &mut end => match fault {
                Some(Fault::WatchGone) => {
                    let event = json!({"type": "ERROR", "object": status_object(410)}).to_string() + "\n";
                    chunk(stream, event.as_bytes()).await?;
                    break;
                }
                Some(Fault::Late) | None => break,
                _ => {
                    // The next event begins, and that is all.
                    chunk(stream, b"{\"type\":\"MODIFIED\",\"object\":{\"kind\":").await?;
                    return broken_off();
                }
            },
        };
        match piece {
            Some(Ok(piece)) => chunk(stream, &piece).await?,
            Some(Err(_)) => return broken_off(),
            None => break,
        }
    }
    write_all(stream, b"0\r\n\r\n").await
}

fn broken_off() -> Ended {
    Err(std::io::ErrorKind::ConnectionAborted.into())
}

/// A request, read by hand.
struct Asked {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// The next request of a connection; none when it was closed between two.
async fn read_request(stream: &TcpStream, buffer: &mut Vec<u8>) -> std::io::Result<Option<Asked>> {
    let head_end = loop {
        if let Some(at) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            break at;
        }
        if !read_more(stream, buffer).await? {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&buffer[..head_end]).into_owned();
    buffer.drain(..head_end + 4);
    let mut lines = head.split("\r\n");
    let first: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
    let all: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_lowercase(), value.trim().to_owned()))
        .collect();
    let value = |name: &str| all.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
    assert!(value("transfer-encoding").is_none(), "the operator knows the length of what it sends");
    let length: usize = value("content-length").and_then(|v| v.parse().ok()).unwrap_or(0);
    while buffer.len() < length {
        if !read_more(stream, buffer).await? {
            return Ok(None);
        }
    }
    let body = buffer.drain(..length).collect();
    let headers = all.into_iter().filter(|(name, _)| ["content-type", "accept"].contains(&name.as_str()));
    Ok(Some(Asked {
        method: first[0].to_owned(),
        target: first.get(1).copied().unwrap_or_default().to_owned(),
        headers: headers.collect(),
        body,
    }))
}

async fn read_more(stream: &TcpStream, buffer: &mut Vec<u8>) -> std::io::Result<bool> {
    let mut part = vec![0; 16384];
    loop {
        stream.readable().await?;
        match stream.try_read(&mut part) {
            Ok(0) => return Ok(false),
            Ok(count) => {
                buffer.extend_from_slice(&part[..count]);
                return Ok(true);
            }
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
}

async fn write_all(stream: &TcpStream, mut bytes: &[u8]) -> Ended {
    while !bytes.is_empty() {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

async fn chunk(stream: &TcpStream, bytes: &[u8]) -> Ended {
    if bytes.is_empty() {
        return Ok(());
    }
    write_all(stream, format!("{:x}\r\n", bytes.len()).as_bytes()).await?;
    write_all(stream, bytes).await?;
    write_all(stream, b"\r\n").await
}

fn head(status: u16, more: &str) -> String {
    format!("HTTP/1.1 {status} As Told\r\ncontent-type: application/json\r\n{more}\r\n")
}

async fn write_status(stream: &TcpStream, code: u16, more: &str) -> Ended {
    let body = status_object(code).to_string();
    let head = head(code, &format!("content-length: {}\r\n{more}", body.len()));
    write_all(stream, (head + &body).as_bytes()).await
}

fn status_object(code: u16) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "on purpose", "reason": if code == 410 { "Expired" } else { "InternalError" }, "code": code,
    })
}
