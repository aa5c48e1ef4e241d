//! Checks on the real cluster, and a smoke test for them to ask.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

/// A smoke test that says how many of its cases failed.
pub struct Smoke {
    /// Where it answers.
    pub address: SocketAddr,
    /// What it says.
    pub failed: Arc<AtomicU32>,
    /// The first line of each request.
    pub asked: Arc<Mutex<Vec<String>>>,
}

impl Smoke {
    /// Starts one that says that all is well.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (failed, asked) = (Arc::<AtomicU32>::default(), Arc::<Mutex<Vec<String>>>::default());
        let smoke = Self { address, failed: failed.clone(), asked: asked.clone() };
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
                let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
                asked.lock().unwrap().extend(head.first().cloned());
                let body = format!(r#"{{"failed": {}}}"#, failed.load(Ordering::Relaxed));
                let answer = format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
                drop(stream.write_all(answer.as_bytes()));
            }
        });
        smoke
    }
}
