//! Requests through a Service at a constant rate, each on a connection of its own, counted by version.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::{JoinHandle, JoinSet};

/// Longest time for one request.
const DEADLINE: Duration = Duration::from_secs(5);

/// What became of the requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// All of them.
    pub requests: u64,
    /// Answered with anything but 200, by version.
    pub bad: BTreeMap<String, u64>,
    /// Answered, by version.
    pub answered: BTreeMap<String, u64>,
    /// Not answered, and why: the first few.
    pub failed: Vec<String>,
}

/// A load that runs until it is stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Totals>,
}

impl Load {
    /// Starts to send `per_second` requests a second.
    pub fn start(address: &str, per_second: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(run(address.to_owned(), per_second, stop.clone()));
        Self { stop, task }
    }

    /// Stops it and counts.
    pub async fn stop(self) -> Totals {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

async fn run(address: String, per_second: u32, stop: Arc<AtomicBool>) -> Totals {
    let totals = Arc::new(Mutex::new(Totals::default()));
    let mut open = JoinSet::new();
    let mut clock = tokio::time::interval(Duration::from_secs(1) / per_second);
    while !stop.load(Ordering::Relaxed) {
        clock.tick().await;
        let (address, totals) = (address.clone(), totals.clone());
        open.spawn(async move {
            let answer = get(&address, "/", "load").await;
            let mut totals = totals.lock().unwrap();
            totals.requests += 1;
            match answer {
                Ok((status, body)) => {
                    let version = body.lines().next().unwrap_or_default().to_owned();
                    if status != 200 {
                        *totals.bad.entry(version.clone()).or_default() += 1;
                    }
                    *totals.answered.entry(version).or_default() += 1;
                }
                Err(error) if totals.failed.len() < 20 => totals.failed.push(error),
                Err(_) => {}
            }
        });
        while open.try_join_next().is_some() {}
    }
    while open.join_next().await.is_some() {}
    Arc::try_unwrap(totals).unwrap().into_inner().unwrap()
}

/// One GET on a connection of its own: status and body.
pub async fn get(address: &str, path: &str, host: &str) -> Result<(u16, String), String> {
    ask("GET", address, path, host).await
}

/// One POST without a body on a connection of its own: status and body.
pub async fn post(address: &str, path: &str) -> Result<(u16, String), String> {
    ask("POST", address, path, "test").await
}

async fn ask(method: &str, address: &str, path: &str, host: &str) -> Result<(u16, String), String> {
    let ask = async {
        let stream = TcpStream::connect(address).await.map_err(|e| format!("connect: {e}"))?;
        let request = format!("{method} {path} HTTP/1.0\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        // So short that a fresh connection takes it at once.
        let sent = stream.try_write(request.as_bytes()).map_err(|e| format!("write: {e}"))?;
        assert_eq!(sent, request.len());
        let mut answer = Vec::new();
        let mut part = [0; 4096];
        loop {
            stream.readable().await.map_err(|e| format!("read: {e}"))?;
            match stream.try_read(&mut part) {
                Ok(0) => break,
                Ok(count) => answer.extend_from_slice(&part[..count]),
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(format!("read: {e}")),
            }
        }
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok());
        let status = status.ok_or_else(|| format!("no answer: {answer:.80}"))?;
        Ok((status, answer.split_once("\r\n\r\n").map(|(_, b)| b.to_owned()).unwrap_or_default()))
    };
    tokio::time::timeout(DEADLINE, ask).await.unwrap_or_else(|_| Err("no answer in time".to_owned()))
}
