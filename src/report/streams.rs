//! Streams of counts that no release recorded, and what a guard would have said of them.

use serde::Serialize;

use super::guard::Proof;
use super::text::{count, evidence, plural, table};
use super::{Report, Scene};
use crate::analysis::{Judge, Judged, NEEDED_SAFE, Said};
use crate::api::evidence::Counts;

/// One look of one stream, as one line of JSON.
#[derive(Serialize, Clone, Copy, Debug, PartialEq)]
pub struct LookLine<'a> {
    stream: &'a str,
    look: u64,
    ln_e_strict: [f64; 6],
    ln_e_margin: [f64; 6],
    wealth_strict: f64,
    wealth_margin: f64,
    safe: f64,
    verdict: &'static str,
}

impl<'a> LookLine<'a> {
    /// The line of a look.
    pub fn new(stream: &'a str, look: u64, judged: &Judged) -> Self {
        Self {
            stream,
            look,
            ln_e_strict: judged.log_strict,
            ln_e_margin: judged.log_margin,
            wealth_strict: judged.strict,
            wealth_margin: judged.margin,
            safe: judged.safe,
            verdict: match judged.said {
                Said::Rollback => "rollback",
                Said::Advance => "advance",
                Said::Hold => "hold",
            },
        }
    }
}

/// All streams.
#[derive(Serialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct StreamsReport {
    /// What the guard tolerates.
    pub tolerate: String,
    /// Looks over which the stakes were spread.
    pub planned_looks: u32,
    /// The streams, in the order of their first lines.
    pub streams: Vec<StreamReport>,
}

/// One stream.
#[derive(Serialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct StreamReport {
    /// Its name.
    pub stream: String,
    /// Its looks.
    pub looks: u32,
    /// Sums of its counts.
    pub totals: Counts,
    /// The first look at which both keys of a rollback were turned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rolled_back_at: Option<u64>,
    /// The first look at which it was proven safe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proven_safe_at: Option<u64>,
    /// Evidence that the canary is worse, after the last look.
    pub worse: Proof,
    /// Evidence that it is beyond the tolerance.
    pub beyond_tolerance: Proof,
    /// Evidence that it is safe.
    pub safe: Proof,
}

impl StreamReport {
    /// A stream without looks.
    pub fn new(stream: &str, judge: &Judge) -> Self {
        let [strict, margin] = judge.needed();
        Self {
            stream: stream.to_owned(),
            looks: 0,
            totals: Counts::default(),
            rolled_back_at: None,
            proven_safe_at: None,
            worse: Proof::new(1.0, strict),
            beyond_tolerance: Proof::new(1.0, margin),
            safe: Proof::new(1.0, NEEDED_SAFE),
        }
    }

    /// One more look.
    pub fn take(&mut self, look: u64, counts: &Counts, judged: &Judged) {
        self.looks = self.looks.saturating_add(1);
        self.totals.canary_bad += counts.canary_bad;
        self.totals.canary_total += counts.canary_total;
        self.totals.stable_bad += counts.stable_bad;
        self.totals.stable_total += counts.stable_total;
        match judged.said {
            Said::Rollback => _ = self.rolled_back_at.get_or_insert(look),
            Said::Advance => _ = self.proven_safe_at.get_or_insert(look),
            Said::Hold => {}
        }
        self.worse = Proof::new(judged.strict, self.worse.needs);
        self.beyond_tolerance = Proof::new(judged.margin, self.beyond_tolerance.needs);
        self.safe = Proof::new(judged.safe, self.safe.needs);
    }
}

impl Report for StreamsReport {
    const KIND: &'static str = "Streams";

    fn text(&self, scene: &Scene) -> String {
        let proof = |proof: &Proof| format!("{} of {}", evidence(proof.value), count(proof.needs));
        let at = |look: Option<u64>| look.map(|look| format!("look {look}")).unwrap_or_default();
        let rows: Vec<Vec<String>> = self
            .streams
            .iter()
            .map(|stream| {
                vec![
                    stream.stream.clone(),
                    stream.looks.to_string(),
                    format!("{} of {}", count(stream.totals.canary_bad), count(stream.totals.canary_total)),
                    format!("{} of {}", count(stream.totals.stable_bad), count(stream.totals.stable_total)),
                    proof(&stream.worse),
                    proof(&stream.beyond_tolerance),
                    proof(&stream.safe),
                    at(stream.rolled_back_at),
                    at(stream.proven_safe_at),
                ]
            })
            .collect();
        let head = [
            "STREAM",
            "LOOKS",
            "CANARY",
            "STABLE",
            "WORSE",
            "BEYOND TOLERANCE",
            "SAFE",
            "ROLLED BACK AT",
            "PROVEN SAFE AT",
        ];
        format!(
            "{} tolerating {}, planned for {} looks each\n{}",
            plural(self.streams.len(), "stream"),
            self.tolerate,
            self.planned_looks,
            table(scene, 0, &head, &rows)
        )
    }

    fn names(&self) -> Vec<String> {
        self.streams.iter().map(|stream| format!("stream/{}", stream.stream)).collect()
    }
}
