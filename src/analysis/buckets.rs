//! Histograms: which edges are watched, and how many events were slower than each.

use std::collections::BTreeMap;

use super::SeriesKey;
use crate::api::evidence::{Shifted, Stream};

/// Shares of stable's events that are to be slower than the watched edges.
const TAILS: [f64; 8] = [0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002];
/// Edges that are this close to each other, relatively, are the same: one may be the other printed with fewer digits.
const SAME: f64 = 1e-6;
/// The finest native histogram that there is, and the coarsest.
const SCHEMAS: std::ops::RangeInclusive<i32> = -4..=8;

/// One series of a histogram at one time.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Buckets {
    /// Upper edge and the number of events up to it, ascending; without the infinite one.
    pub upper: Vec<(f64, f64)>,
    /// All events; nothing when the infinite bucket is missing.
    pub total: Option<f64>,
    /// Of a native histogram: its edges are the powers of 2^(2^-schema), and those that are not listed have no events of
    /// their own.
    pub schema: Option<i32>,
}

impl Buckets {
    /// A classic histogram from its buckets by their `le`.
    pub fn classic(by_edge: impl IntoIterator<Item = (f64, f64)>) -> Self {
        let mut buckets = Self::default();
        for (edge, count) in by_edge {
            if edge == f64::INFINITY {
                buckets.total = Some(count);
            } else {
                buckets.upper.push((edge, count));
            }
        }
        buckets.upper.sort_by(|a, b| a.0.total_cmp(&b.0));
        buckets
    }

    /// A native histogram from its buckets as `(lower, upper, events)`.
    pub fn native(total: f64, mut each: Vec<(f64, f64, f64)>) -> Self {
        each.sort_by(|a, b| a.1.total_cmp(&b.1));
        let schema = each.iter().find(|(low, high, _)| *low > 0.0 && high > low).map(|(low, high, _)| {
            let schema = -(high / low).log2().log2();
            // Out of bounds is out of bounds after rounding too.
            #[expect(clippy::cast_possible_truncation, reason = "a float to int cast saturates")]
            let schema = schema.round() as i32;
            schema
        });
        let mut sum = 0.0;
        let upper = each
            .into_iter()
            .map(|(_, high, events)| {
                sum += events;
                (high, sum)
            })
            .collect();
        Self { upper, total: Some(total), schema: schema.or(Some(*SCHEMAS.end())) }
    }

    /// Why it cannot be used, if so.
    pub(super) fn problem(&self) -> Option<String> {
        let Some(total) = self.total else { return Some("has no bucket with le=\"+Inf\"".to_owned()) };
        if let Some(schema) = self.schema.filter(|schema| !SCHEMAS.contains(schema)) {
            return Some(format!("has buckets of an unknown layout (schema {schema})"));
        }
        let mut before = 0.0;
        for (edge, count) in self.upper.iter().copied().chain([(f64::INFINITY, total)]) {
            if edge.is_nan() || !(0.0..=super::counters::MOST).contains(&count) {
                return Some(format!("bucket le={edge} is {count}"));
            }
            // Sums of native buckets are rounded.
            if count < before * (1.0 - 1e-9) {
                return Some(format!(
                    "bucket le={edge} has {count}, less than the smaller one with {before}"
                ));
            }
            before = count;
        }
        None
    }

    /// Events up to `edge`; nothing when it is no edge of this layout.
    fn up_to(&self, edge: f64) -> Option<f64> {
        let close = |other: f64| (other - edge).abs() <= SAME * edge.abs();
        if let Some(schema) = self.schema {
            let index = edge.log2() * f64::from(schema).exp2();
            let is_edge = (index - index.round()).abs() < 1e-3;
            let below = self.upper.iter().rev().find(|(upper, _)| *upper <= edge || close(*upper));
            return is_edge.then(|| below.map_or(0.0, |(_, count)| *count));
        }
        self.upper.iter().find(|(upper, _)| close(*upper)).map(|(_, count)| *count)
    }

    /// The counts up to each of `edges`, then all; the edge that this layout has not, if there is one.
    pub(super) fn read(&self, edges: &[f64]) -> Result<Vec<f64>, f64> {
        let mut counts = Vec::with_capacity(edges.len() + 1);
        for edge in edges {
            counts.push(self.up_to(*edge).ok_or(*edge)?);
        }
        counts.push(self.total.unwrap_or(0.0));
        Ok(counts)
    }
}

/// What slower means to a guard.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Slower {
    /// So many times as long.
    Times(f64),
    /// More events beyond the same edge.
    Share,
}

/// Chooses the edges of a release, from what the pods have counted since they began: of each version its series.
///
/// Watched are those edges whose share of slower events of stable is nearest to 50, 20, 10, 5, 2, 1, 0.5 and 0.2 %, of
/// the edges that both versions have.
pub(super) fn choose(
    canary: &[BTreeMap<SeriesKey, Buckets>],
    stable: &[BTreeMap<SeriesKey, Buckets>],
    slower: Slower,
) -> Result<Vec<Stream>, String> {
    let of_stable: Vec<&Buckets> = stable.iter().flat_map(|pod| pod.values()).collect();
    let all: Vec<&Buckets> =
        canary.iter().flat_map(|pod| pod.values()).chain(of_stable.iter().copied()).collect();
    let total: f64 = of_stable.iter().filter_map(|buckets| buckets.total).sum();
    if total <= 0.0 {
        return Err("stable has no events yet to choose the watched times from".to_owned());
    }
    let edges = common_edges(&all);
    let tail = |edge: f64| {
        let fast: f64 = of_stable.iter().filter_map(|buckets| buckets.up_to(edge)).sum();
        ((total - fast) / total).clamp(0.0, 1.0)
    };
    let shares: Vec<(f64, f64)> = edges.iter().map(|edge| (*edge, tail(*edge))).collect();
    if shares.is_empty() {
        return Err(
            "the versions have no bucket edge in common, so their times cannot be compared".to_owned()
        );
    }
    let coarsest = all.iter().filter_map(|buckets| buckets.schema).min();
    let streams: Vec<Stream> = watched(&shares)
        .into_iter()
        .filter_map(|edge| match slower {
            Slower::Share => Some(Stream { edge: Some(edge), ..Stream::default() }),
            Slower::Times(times) => {
                let shifted = match coarsest {
                    // Between whole buckets of a native histogram there is an edge, listed or not.
                    Some(schema) => exactly(edge / whole_buckets(times, schema)),
                    None => shift(&shares, edge, times)?,
                };
                Some(Stream { edge: Some(edge), shifted: Some(shifted), ..Stream::default() })
            }
        })
        .collect();
    if streams.is_empty() {
        let largest = shares.last().map_or(0.0, |(edge, _)| *edge);
        return Err(format!(
            "the buckets do not tell stable's events apart: {:.1} % of them are slower than the largest edge {largest}",
            100.0 * tail(largest)
        ));
    }
    Ok(streams)
}

/// The factor of a latency tolerance, rounded down to whole buckets of a native histogram, at least one.
pub fn whole_buckets(times: f64, schema: i32) -> f64 {
    let per_doubling = f64::from(schema).exp2();
    let buckets = (times.log2() * per_doubling + 1e-9).floor().max(1.0);
    (buckets / per_doubling).exp2()
}

fn exactly(at: f64) -> Shifted {
    Shifted { at, low: at, high: at, weight: 0.0 }
}

/// Edges above 0 that all series have.
fn common_edges(all: &[&Buckets]) -> Vec<f64> {
    let mut edges: Vec<f64> = all
        .iter()
        .flat_map(|b| b.upper.iter().map(|(edge, _)| *edge))
        .filter(|e| *e > 0.0 && e.is_finite())
        .collect();
    edges.sort_by(f64::total_cmp);
    edges.dedup_by(|b, a| *b - *a <= SAME * *a);
    edges.retain(|edge| all.iter().all(|buckets| buckets.up_to(*edge).is_some()));
    edges
}

/// Per share of [`TAILS`] the edge that is nearest to it.
fn watched(shares: &[(f64, f64)]) -> Vec<f64> {
    let mut edges: Vec<f64> = TAILS
        .iter()
        .filter_map(|target| {
            let usable = shares.iter().filter(|(_, tail)| *tail > 0.0 && *tail < 0.999);
            let distance = |tail: f64| (tail / target).ln().abs();
            usable.min_by(|a, b| distance(a.1).total_cmp(&distance(b.1))).map(|(edge, _)| *edge)
        })
        .collect();
    if edges.is_empty() {
        // All of stable's events are faster than some edge: one that is slower will be seen there.
        edges.extend(shares.iter().find(|(_, tail)| *tail <= 0.0).map(|(edge, _)| *edge));
    }
    edges.sort_by(f64::total_cmp);
    edges.dedup_by(|b, a| b.to_bits() == a.to_bits());
    edges
}

/// The point `edge / times`, between its neighbours among the edges: the logarithm of the share of slower events is
/// taken as linear in the logarithm of the time. Below the smallest edge times are taken as evenly spread.
fn shift(shares: &[(f64, f64)], edge: f64, times: f64) -> Option<Shifted> {
    let at = edge / times;
    let same = |x: f64| (x - at).abs() <= SAME * at;
    if let Some((exact, _)) = shares.iter().find(|(x, _)| same(*x)) {
        return Some(exactly(*exact));
    }
    let (high, share_high) = *shares.iter().find(|(x, _)| *x > at)?;
    let Some((low, share_low)) = shares.iter().rev().find(|(x, _)| *x < at).copied() else {
        return Some(Shifted { at, low: 0.0, high, weight: 1.0 - at / high });
    };
    let part = (at / low).ln() / (high / low).ln();
    let weight = if share_low <= share_high {
        0.0
    } else if share_high > 0.0 {
        let share = (share_low.ln() + part * (share_high / share_low).ln()).exp();
        (share - share_high) / (share_low - share_high)
    } else {
        1.0 - part
    };
    Some(Shifted { at, low, high, weight })
}

/// The edges whose counts are needed for these streams, ascending.
pub(super) fn edges_of(streams: &[Stream]) -> Vec<f64> {
    let mut edges: Vec<f64> = streams
        .iter()
        .flat_map(|stream| {
            let shifted = stream.shifted.map(|s| [s.low, s.high]);
            stream.edge.into_iter().chain(shifted.into_iter().flatten())
        })
        .filter(|edge| *edge > 0.0)
        .collect();
    edges.sort_by(f64::total_cmp);
    edges.dedup_by(|b, a| b.to_bits() == a.to_bits());
    edges
}

/// From the growth at `edges` (then of all) to the events of one stream: all, slower than its edge, and slower than
/// its shifted point.
pub(super) fn events(stream: &Stream, edges: &[f64], growth: &[f64]) -> [f64; 3] {
    let all = growth.last().copied().unwrap_or(0.0);
    let beyond = |edge: f64| {
        if edge <= 0.0 {
            return all;
        }
        let index = edges.iter().position(|other| other.to_bits() == edge.to_bits());
        let up_to = index.and_then(|index| growth.get(index)).copied().unwrap_or(all);
        (all - up_to).max(0.0)
    };
    let bad = stream.edge.map_or(0.0, beyond);
    let shifted =
        stream.shifted.map_or(bad, |s| beyond(s.high) + s.weight * (beyond(s.low) - beyond(s.high)));
    // Exact in the packed record.
    [all, bad, (shifted * 1024.0).round() / 1024.0]
}
