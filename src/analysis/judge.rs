//! One guard of yes/no events, held against looks one by one: for streams of counts that no release recorded.
//!
//! The same code that judges a release ([`take`]), without its Release: a `belay replay --looks` of somebody's own
//! numbers says what Belay would have said.

use super::evidence::{Bounds, NEEDED_SAFE, Rule, take};
use super::plan::MIN_PLANNED_LOOKS;
use super::{Tolerance, needs};
use crate::api::analysis::Confidence;
use crate::api::evidence::{GuardState, Look};

/// The only guard of a release.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judge {
    bounds: Bounds,
    planned_looks: u32,
    needed_strict: f64,
    needed_margin: f64,
}

/// What a look said, and what there is after it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judged {
    /// Logarithms of what this look multiplies each bet on "worse than stable" by, before the cap.
    pub log_strict: [f64; 6],
    /// Logarithms of what this look multiplies each bet on "beyond the tolerance" by, before the cap.
    pub log_margin: [f64; 6],
    /// Evidence that the canary is worse than stable.
    pub strict: f64,
    /// Evidence that it is beyond the tolerance.
    pub margin: f64,
    /// Evidence that it is safe.
    pub safe: f64,
    /// What follows from that.
    pub said: Said,
}

/// What follows from the evidence after a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// Both keys are turned.
    Rollback,
    /// Proven safe.
    Advance,
    /// Neither.
    Hold,
}

impl Judge {
    /// The guard "canary at most `tolerance`". The stakes are spread over `planned_looks`, raised to 12 as in a release.
    pub fn new(tolerance: Tolerance, confidence: Confidence, planned_looks: u32) -> Self {
        let (needed_strict, needed_margin) = needs(confidence, 1);
        let planned_looks = planned_looks.max(MIN_PLANNED_LOOKS);
        Self { bounds: Bounds::tolerate(tolerance), planned_looks, needed_strict, needed_margin }
    }

    /// What a rollback needs: of the evidence that it is worse, and that it is beyond the tolerance.
    pub fn needed(&self) -> [f64; 2] {
        [self.needed_strict, self.needed_margin]
    }

    /// Looks over which the stakes are spread.
    pub fn planned_looks(&self) -> u32 {
        self.planned_looks
    }

    /// Takes one more look of one stream into `state`.
    pub fn take(&self, state: &mut GuardState, look: &Look) -> Judged {
        take(state, &Rule::Events(self.bounds), self.planned_looks, look);
        let counts = look.counts.first().copied().unwrap_or_default();
        let [strict, margin, _] = self.bounds.said(look, &counts, &counts);
        let said = if state.strict >= self.needed_strict && state.margin >= self.needed_margin {
            Said::Rollback
        } else if state.safe >= NEEDED_SAFE {
            Said::Advance
        } else {
            Said::Hold
        };
        Judged {
            log_strict: strict.log_growth(),
            log_margin: margin.log_growth(),
            strict: state.strict,
            margin: state.margin,
            safe: state.safe,
            said,
        }
    }
}
