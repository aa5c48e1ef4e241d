//! The figures of the decision engine: the acceptance table by simulation, and other tools on the same streams.
//!
//! `cargo bench --bench decisions [-- --quick] [-- --seed N] [-- FILTER]`. Writes `target/bench/decisions.json` when all
//! of it ran; the exit code is 1 when a row does not hold.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark stops where something is wrong, and says what it measures"
)]

#[path = "../../tests/it/decisions/edges.rs"]
mod edges;
#[path = "../../tests/it/decisions/engine.rs"]
mod engine;
#[path = "../../tests/it/decisions/errors.rs"]
mod errors;
#[path = "../../tests/it/decisions/latency.rs"]
mod latency;
#[path = "../../tests/it/decisions/peers.rs"]
mod peers;
#[path = "../../tests/it/decisions/pods.rs"]
mod pods;
#[path = "../../tests/it/decisions/random.rs"]
mod random;
#[path = "../../tests/it/decisions/rollouts.rs"]
mod rollouts;
#[path = "../../tests/it/decisions/row.rs"]
mod row;
#[path = "../../tests/it/decisions/stream.rs"]
mod stream;

mod shown;

use std::hint::black_box;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use engine::{Confidence, Counts, Engine, STANDARD};
use errors::Scale;
use row::Row;

const SEED: u64 = 20_261_124;
const FULL: Scale =
    Scale { seed: SEED, boundary: 20_000, runs: 10_000, pods: 4_000, pod_looks: 360, rollouts: 20_000 };
const QUICK: Scale =
    Scale { seed: SEED, boundary: 2_000, runs: 500, pods: 100, pod_looks: 360, rollouts: 500 };

type Part = (&'static str, fn(Scale) -> Vec<Row>);

const PARTS: [Part; 13] = [
    ("A3", errors::a3),
    ("A4", errors::a4),
    ("A5", errors::a5),
    ("A6", errors::a6),
    ("A7", errors::a7),
    ("A8", latency::a8),
    ("A9", pods::a9),
    ("A10", pods::a10),
    ("A11", errors::a11),
    ("A12", rollouts::a12),
    ("A13", edges::a13),
    ("A14", edges::a14),
    ("cost", cost),
];

/// One guard, one look: the best of several rounds, since anything else that runs here only adds to it.
fn cost(_: Scale) -> Vec<Row> {
    let look = Counts { canary_bad: 3.0, canary_total: 250.0, stable_bad: 47.0, stable_total: 4750.0 };
    let fresh = Engine::new(STANDARD, Confidence::Standard, 360);
    let round = || {
        let mut engine = fresh.clone();
        let start = Instant::now();
        for _ in 0..100_000 {
            engine.look(black_box(&look));
        }
        black_box(engine.evidence());
        start.elapsed().as_secs_f64() * 1e9 / 100_000.0
    };
    let best = (0..20).map(|_| round()).fold(f64::MAX, f64::min);
    vec![Row::figure("cost", "one guard, one look, three kinds of evidence (ns)", best, 1000.0)]
}

fn main() -> ExitCode {
    let (mut scale, mut quick, mut filter) = (FULL, false, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            // cargo says so itself.
            "--bench" => {}
            "--quick" => (scale, quick) = (Scale { seed: scale.seed, ..QUICK }, true),
            "--seed" => scale.seed = arguments.next().unwrap_or_default().parse().unwrap(),
            other => filter = Some(other.to_owned()),
        }
    }
    println!("seed {}, {} runs a row, {} on the boundary", scale.seed, scale.runs, scale.boundary);
    if quick {
        println!("quick: a row is missed only when chance does not explain it");
    }
    let mut rows = Vec::new();
    for (name, part) in PARTS {
        if filter.as_ref().is_some_and(|filter| filter != name) {
            continue;
        }
        println!("{name} ...");
        let start = Instant::now();
        let found = part(scale);
        for row in found.iter().filter(|row| row.bound.is_some()) {
            println!("{}", shown::row(row, quick));
        }
        println!("{name} took {:.1} s", start.elapsed().as_secs_f64());
        rows.extend(found);
    }
    println!("{}", shown::compared(&rows));
    if filter.is_none() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
        std::fs::create_dir_all(&folder).unwrap();
        let text = serde_json::to_string_pretty(&shown::json(&rows, quick)).unwrap();
        std::fs::write(folder.join("decisions.json"), text + "\n").unwrap();
        println!("wrote target/bench/decisions.json");
    }
    let bounded = rows.iter().filter(|row| row.bound.is_some());
    let (held, missed): (Vec<&Row>, Vec<&Row>) = bounded.partition(|row| shown::holds(row, quick));
    println!("{} rows hold, {} missed", held.len(), missed.len());
    if missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
