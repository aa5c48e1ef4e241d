//! From counter values to counts: per-series deltas of one pod.

use std::collections::BTreeMap;

use super::SeriesKey;
use super::buckets::Buckets;
use crate::api::evidence::PodCounters;

/// Series that one pod and guard may have, bad and all each.
pub(super) const MAX_SERIES: usize = 200;

/// No counter of events is larger: beyond it a page lies, and sums of lies would not be finite.
pub(super) const MOST: f64 = 1e18;

/// Why a reading cannot be used.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Unusable {
    /// No series of the counter of all events.
    NoTotal,
    /// A value that no counter can have: the series and the value.
    Value(SeriesKey, f64),
    /// A histogram that is none: the series, and what is wrong with it.
    Buckets(SeriesKey, String),
    /// A histogram without an edge that the release is measured by.
    NoEdge(f64),
    /// A reading of another kind than the guard's.
    Kind,
    /// More series than are remembered.
    TooMany,
}

/// A pod's counters now, and what they grew by; no growth for a pod not seen before, whose values are the start.
pub(super) type Advanced<T> = Result<(PodCounters, Option<T>), Unusable>;

/// Growth of the bad and of all events.
///
/// A series that a known pod did not have counts from 0. A series that is absent now keeps its last value, so that
/// it cannot count again when it comes back. A value below the last one means that the counter began again at 0.
pub(super) fn advance(
    known: Option<&PodCounters>,
    bad: &BTreeMap<SeriesKey, f64>,
    total: &BTreeMap<SeriesKey, f64>,
) -> Advanced<[f64; 2]> {
    if total.is_empty() {
        return Err(Unusable::NoTotal);
    }
    if let Some((series, value)) = bad.iter().chain(total).find(|(_, value)| !(0.0..=MOST).contains(*value)) {
        return Err(Unusable::Value(series.clone(), *value));
    }
    let mut counters = known.cloned().unwrap_or_default();
    let growth = [grow(&mut counters.bad, bad)?, grow(&mut counters.total, total)?];
    if growth.iter().any(|x| !x.is_finite()) {
        return Err(Unusable::Value("the sum".to_owned(), growth[0] + growth[1]));
    }
    Ok((counters, known.map(|_| growth)))
}

/// Growth of a histogram up to each of `edges`, then of all. Series come, go and begin again as with [`advance`].
pub(super) fn advance_buckets(
    known: Option<&PodCounters>,
    series: &BTreeMap<SeriesKey, Buckets>,
    edges: &[f64],
) -> Advanced<Vec<f64>> {
    if series.is_empty() {
        return Err(Unusable::NoTotal);
    }
    let mut counters = known.cloned().unwrap_or_default();
    let mut growth = vec![0.0; edges.len() + 1];
    for (name, buckets) in series {
        if let Some(problem) = buckets.problem() {
            return Err(Unusable::Buckets(name.clone(), problem));
        }
        let counts = buckets.read(edges).map_err(Unusable::NoEdge)?;
        let before = counters.buckets.insert(digest(name), counts.clone());
        // One bucket below its last value: the whole histogram began again.
        let before =
            before.filter(|old| old.len() == counts.len() && old.iter().zip(&counts).all(|(a, b)| a <= b));
        for (index, count) in counts.iter().enumerate() {
            growth[index] += count - before.as_ref().map_or(0.0, |before| before[index]);
        }
        if counters.buckets.len() > MAX_SERIES {
            return Err(Unusable::TooMany);
        }
    }
    Ok((counters, known.map(|_| growth)))
}

fn grow(known: &mut BTreeMap<String, f64>, values: &BTreeMap<SeriesKey, f64>) -> Result<f64, Unusable> {
    let mut growth = 0.0;
    for (series, value) in values {
        let before = known.insert(digest(series), *value).unwrap_or(0.0);
        growth += if *value < before { *value } else { *value - before };
        if known.len() > MAX_SERIES {
            return Err(Unusable::TooMany);
        }
    }
    Ok(growth)
}

/// Eleven characters that stand for a series: the 64-bit FNV-1a hash (draft-eastlake-fnv). Labels can be long, and
/// the counters are kept in an object that must stay small; two of 200 series meet once in 10^15.
fn digest(series: &str) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let hash = series.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (0..11)
        .map(|index| char::from(ALPHABET[usize::from((hash >> (6 * index)).to_le_bytes()[0] & 63)]))
        .collect()
}
