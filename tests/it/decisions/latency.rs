//! The rows on latency (A8): log-normal latencies in native buckets of schema 3, the canary slower by a factor.

use super::engine::{Latency, latency_look};
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

/// The look at which the guard fails, or that the engine cannot judge histograms yet.
fn run(canary: &Histogram, stable: &Histogram, random: &mut Random) -> Result<Option<u32>, ()> {
    let mut guard = Latency;
    let (mut slow, mut usual) = (Vec::new(), Vec::new());
    for number in 1..=360 {
        canary.serve(random, &mut slow);
        stable.serve(random, &mut usual);
        match latency_look(&mut guard, &slow, &usual) {
            None => return Err(()),
            Some(true) => return Ok(Some(number)),
            Some(false) => {}
        }
    }
    Ok(None)
}

/// The delays in seconds, or that the row is pending.
fn delays(scale: Scale, slower: f64) -> Option<Vec<Option<u32>>> {
    let (canary, stable) = (Histogram::new(250.0, slower), Histogram::new(4750.0, 1.0));
    let runs = repeat(scale.seed, &format!("latency x{slower}"), scale.runs, |random| {
        run(&canary, &stable, random).map(|stop| stop.map(|look| 5 * look))
    });
    runs.into_iter().collect::<Result<_, _>>().ok()
}

pub fn a8(scale: Scale) -> Vec<Row> {
    let mut rows = Vec::new();
    for (slower, bound) in [(1.1, None), (1.3, Some(60)), (1.5, Some(25))] {
        let what = format!("latency x{slower}, native buckets of 1.19x");
        let id = |kind: &str| format!("A8.{kind}.x{slower}");
        let delays = delays(scale, slower);
        let stopped = |delays: &[Option<u32>]| count(delays.iter().flatten().count());
        match (bound, delays) {
            (None, None) => rows.push(Row::pending(&id("false"), &format!("{what}: rolled back (%)"), 0.0)),
            (Some(bound), None) => {
                if slower < 1.5 {
                    rows.push(Row::pending(&id("found"), &format!("{what}: found (%)"), 99.0));
                }
                rows.push(Row::pending(&id("delay"), &format!("{what}: median delay (s)"), f64::from(bound)));
            }
            (None, Some(delays)) => {
                let wrong = stopped(&delays);
                rows.push(Row::none(&id("false"), &format!("{what}: rolled back"), wrong, scale.runs, 400));
            }
            (Some(bound), Some(delays)) => {
                if slower < 1.5 {
                    let missed = scale.runs - stopped(&delays);
                    rows.push(Row::at_least(
                        &id("found"),
                        &format!("{what}: found"),
                        missed,
                        scale.runs,
                        99.0,
                    ));
                }
                rows.push(Row::median(&id("delay"), &format!("{what}: median delay"), &delays, bound));
            }
        }
    }
    rows
}
