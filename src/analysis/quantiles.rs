//! How long requests take, as intervals that hold at all times: what the watched edges of a histogram tell.

use crate::api::evidence::{Counts, GuardState};

/// The quantiles that people ask for.
pub const ASKED: [f64; 3] = [0.5, 0.95, 0.99];
/// For bands that hold at all sample sizes together with 99 %.
const C: f64 = 9.28;

/// A quantile of both versions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantile {
    /// Which: 0.95 is the time that 95 of 100 requests take at most.
    pub q: f64,
    /// Of the canary.
    pub canary: Between,
    /// Of stable.
    pub stable: Between,
}

/// Between which edges a quantile is, in the metric's unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Between {
    /// The lower edge; 0 when none is ruled out.
    pub low: f64,
    /// The upper edge; nothing when none is large enough.
    pub high: Option<f64>,
}

/// The quantiles of a histogram guard, from all that was counted at its edges; empty without events of both versions.
///
/// The distribution function is within `0.85·√((ln(1 + ln t) + C)/t)` of what t events showed, at all t together
/// (Howard & Ramdas 2022, arXiv 1906.09712, with C = 9.28 for an error of 1 %).
pub fn quantiles(guard: &GuardState) -> Vec<Quantile> {
    let edges: Vec<(f64, Counts)> =
        guard.streams.iter().filter_map(|stream| Some((stream.edge?, stream.totals))).collect();
    let of = |read: fn(&Counts) -> (f64, f64)| -> Option<Vec<(f64, f64)>> {
        // Share of events up to each edge.
        edges
            .iter()
            .map(|(edge, counts)| {
                let (slower, all) = read(counts);
                (all >= 1.0).then(|| (*edge, 1.0 - slower / all))
            })
            .collect()
    };
    let canary = |counts: &Counts| (counts.canary_bad, counts.canary_total);
    let stable = |counts: &Counts| (counts.stable_bad, counts.stable_total);
    let (Some(up_to_canary), Some(up_to_stable), Some((_, totals))) = (of(canary), of(stable), edges.first())
    else {
        return Vec::new();
    };
    let (canary, stable) = (band(totals.canary_total), band(totals.stable_total));
    ASKED
        .into_iter()
        .map(|q| Quantile {
            q,
            canary: between(&up_to_canary, q, canary),
            stable: between(&up_to_stable, q, stable),
        })
        .collect()
}

/// How far the distribution function may be from what `t` events showed.
fn band(t: f64) -> f64 {
    0.85 * ((t.ln().max(0.0).ln_1p() + C) / t.max(1.0)).sqrt()
}

fn between(up_to: &[(f64, f64)], q: f64, band: f64) -> Between {
    Between {
        low: up_to.iter().rev().find(|(_, share)| share + band < q).map_or(0.0, |(edge, _)| *edge),
        high: up_to.iter().find(|(_, share)| share - band >= q).map(|(edge, _)| *edge),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::evidence::Stream;

    fn guard(canary: &[(f64, f64)], stable: &[(f64, f64)], all: f64) -> GuardState {
        let streams = canary.iter().zip(stable).map(|((edge, canary_bad), (_, stable_bad))| Stream {
            edge: Some(*edge),
            totals: Counts {
                canary_bad: *canary_bad,
                canary_total: all,
                stable_bad: *stable_bad,
                stable_total: all,
            },
            ..Stream::default()
        });
        GuardState { streams: streams.collect(), ..GuardState::default() }
    }

    #[test]
    fn a_quantile_is_between_the_edges_that_the_band_leaves() {
        // 10,000 events: 0.85·√((ln(1 + 9.2103) + 9.28)/10000) = 0.85·√(11.6035/10000) = 0.028954.
        assert!((band(10_000.0) - 0.028_954).abs() < 1e-6, "{}", band(10_000.0));
        let canary = [(0.1, 6000.0), (0.25, 800.0), (0.5, 300.0), (1.0, 100.0)];
        let stable = [(0.1, 4000.0), (0.25, 100.0), (0.5, 10.0), (1.0, 1.0)];
        let found = quantiles(&guard(&canary, &stable, 10_000.0));
        let of = |q: f64| *found.iter().find(|found| found.q.to_bits() == q.to_bits()).unwrap();
        // 40 % are up to 0.1 s, and 92 % up to 0.25 s.
        assert_eq!(of(0.5).canary, Between { low: 0.1, high: Some(0.25) });
        assert_eq!(of(0.5).stable, Between { low: 0.0, high: Some(0.1) });
        // 92 % and 97 % are within the band of 95 %, 99 % is not.
        assert_eq!(of(0.95).canary, Between { low: 0.25, high: Some(1.0) });
        assert_eq!(of(0.95).stable, Between { low: 0.1, high: Some(0.25) });
        assert_eq!(of(0.99).canary, Between { low: 0.25, high: None });
    }

    #[test]
    fn without_events_there_is_none() {
        assert!(quantiles(&guard(&[(0.1, 0.0)], &[(0.1, 0.0)], 0.0)).is_empty());
        assert!(quantiles(&GuardState::default()).is_empty());
    }
}
