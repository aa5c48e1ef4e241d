//! The rows on latency (A8): log-normal latencies in native buckets of schema 3, the canary slower by a factor.

use super::engine::Latency;
use super::errors::Scale;
use super::random::{Random, Table};
use super::row::{Row, count};
use super::stream::repeat;

/// Median latency in seconds and standard deviation of its logarithm: the 99th percentile is 3.2 times the median.
const MEDIAN: f64 = 0.1;
const SPREAD: f64 = 0.5;
/// Eight buckets to each doubling; the edges are 2^(k/8) s, from 2 ms to 16 s.
const SCHEMA: i32 = 3;
const EDGES: std::ops::RangeInclusive<i32> = -72..=32;

/// Upper edges of the buckets, in seconds.
pub fn edges() -> Vec<f64> {
    EDGES.map(|k| (f64::from(k) / f64::from(1 << SCHEMA)).exp2()).collect()
}

/// Φ by Abramowitz & Stegun 26.2.17, within 7.5e-8.
fn normal_below(x: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * x.abs());
    let poly = t
        * (0.319_381_530
            + t * (-0.356_563_782 + t * (1.781_477_937 + t * (-1.821_255_978 + t * 1.330_274_429))));
    let above = (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt() * poly;
    if x > 0.0 { 1.0 - above } else { above }
}

/// One version's requests in the buckets: Poisson in each, as of requests that come at random.
pub struct Histogram {
    edges: Vec<f64>,
    buckets: Vec<Table>,
}

impl Histogram {
    /// `requests` a look on average, whose latencies are `slower` times those of stable.
    pub fn new(requests: f64, slower: f64) -> Self {
        let edges = edges();
        let below = |edge: f64| normal_below((edge / (MEDIAN * slower)).ln() / SPREAD);
        let mut before = 0.0;
        let buckets = edges
            .iter()
            .map(|edge| {
                let share = below(*edge) - before;
                before = below(*edge);
                Table::poisson(requests * share)
            })
            .collect();
        Self { edges, buckets }
    }

    /// Adds a look's requests to the cumulative counts up to each edge.
    pub fn serve(&self, random: &mut Random, cumulative: &mut Vec<(f64, f64)>) {
        if cumulative.is_empty() {
            *cumulative = self.edges.iter().map(|edge| (*edge, 0.0)).collect();
        }
        let mut sum = 0.0;
        for (bucket, up_to) in self.buckets.iter().zip(cumulative) {
            sum += bucket.draw(random);
            up_to.1 += sum;
        }
    }
}

/// The look at which the guard fails. Stable has been there for a minute, from which the watched edges are chosen.
fn run(canary: &Histogram, stable: &Histogram, random: &mut Random) -> Option<u32> {
    let mut guard = Latency::new(360);
    let (mut slow, mut usual) = (Vec::new(), Vec::new());
    for _ in 0..12 {
        stable.serve(random, &mut usual);
    }
    canary.serve(random, &mut slow);
    guard.look(&slow, &usual);
    (1..=360).find(|_| {
        canary.serve(random, &mut slow);
        stable.serve(random, &mut usual);
        guard.look(&slow, &usual)
    })
}

/// The delays in seconds.
fn delays(scale: Scale, slower: f64) -> Vec<Option<u32>> {
    let (canary, stable) = (Histogram::new(250.0, slower), Histogram::new(4750.0, 1.0));
    repeat(scale.seed, &format!("latency x{slower}"), scale.pods, |random| {
        run(&canary, &stable, random).map(|look| 5 * look)
    })
}

pub fn a8(scale: Scale) -> Vec<Row> {
    let stopped = |delays: &[Option<u32>]| count(delays.iter().flatten().count());
    let what =
        |slower: f64, what: &str| format!("latency x{slower}, native buckets, tolerance 1.19x: {what}");
    let slightly = stopped(&delays(scale, 1.1));
    let (slow, slower) = (delays(scale, 1.3), delays(scale, 1.5));
    let missed = scale.pods - stopped(&slow);
    vec![
        Row::none("A8.false.x1.1", &what(1.1, "rolled back"), slightly, scale.pods, 400),
        Row::at_least("A8.found.x1.3", &what(1.3, "found"), missed, scale.pods, 99.0),
        Row::median("A8.delay.x1.3", &what(1.3, "median delay"), &slow, 60),
        Row::median("A8.delay.x1.5", &what(1.5, "median delay"), &slower, 25),
    ]
}
