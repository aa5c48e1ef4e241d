//! From counter values to counts: per-series deltas of one pod.

use std::collections::BTreeMap;

use super::{Reading, SeriesKey};
use crate::api::evidence::PodCounters;

/// Series that one pod and guard may have, bad and all each.
pub(super) const MAX_SERIES: usize = 200;

/// No counter of events is larger: beyond it a page lies, and sums of lies would not be finite.
const MOST: f64 = 1e18;

/// What a pod's counters grew by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Growth {
    pub(super) bad: f64,
    pub(super) total: f64,
}

/// Why a reading cannot be used.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Unusable {
    /// No series of the counter of all events.
    NoTotal,
    /// A value that no counter can have: the series and the value.
    Value(SeriesKey, f64),
    /// More series than are remembered.
    TooMany,
}

/// The new counters of a pod, and their growth since `known`; no growth for a pod not seen before, whose values
/// are the start.
///
/// A series that a known pod did not have counts from 0. A series that is absent now keeps its last value, so that
/// it cannot count again when it comes back. A value below the last one means that the counter began again at 0.
pub(super) fn advance(
    known: Option<&PodCounters>,
    reading: &Reading,
) -> Result<(PodCounters, Option<Growth>), Unusable> {
    if reading.total.is_empty() {
        return Err(Unusable::NoTotal);
    }
    let values = reading.bad.iter().chain(&reading.total);
    if let Some((series, value)) = values.into_iter().find(|(_, value)| !(0.0..=MOST).contains(*value)) {
        return Err(Unusable::Value(series.clone(), *value));
    }
    let mut counters = known.cloned().unwrap_or_default();
    let bad = grow(&mut counters.bad, &reading.bad)?;
    let total = grow(&mut counters.total, &reading.total)?;
    let growth = Growth { bad, total };
    if !(bad.is_finite() && total.is_finite()) {
        return Err(Unusable::Value("the sum".to_owned(), bad + total));
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
