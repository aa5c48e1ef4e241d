//! Whether what is known is what is: a watch that is interrupted tells nothing, and its silence looks like peace.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::cache::Kind;
use crate::decide::Sight;

/// After an interruption the controllers and kubelets, too, need a moment until what happened meanwhile is written:
/// as long as the interruption was, and at most this long. A kubelet repeats a report that failed after 10 s.
const SETTLE: SignedDuration = SignedDuration::from_secs(15);

/// The state of the watches.
#[derive(Clone, Debug, Default)]
pub(super) struct Watches {
    lost: BTreeMap<Kind, Timestamp>,
    clear_at: Option<Timestamp>,
}

impl Watches {
    /// The watch of a kind is interrupted.
    pub fn lost(&mut self, kind: Kind, now: Timestamp) {
        self.lost.entry(kind).or_insert(now);
    }

    /// The watch of a kind is answered. True if it was interrupted before.
    pub fn found(&mut self, kind: Kind, now: Timestamp) -> bool {
        let Some(since) = self.lost.remove(&kind) else { return false };
        let settle = now.duration_since(since).clamp(SignedDuration::ZERO, SETTLE);
        self.clear_at = self.clear_at.max(Some(now + settle));
        true
    }

    /// What decisions need to know of it.
    pub fn sight(&self) -> Sight {
        Sight { lost_since: self.lost.values().min().copied(), clear_at: self.clear_at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).expect("in range")
    }

    #[test]
    fn sight_is_clear_when_every_watch_is_back_and_what_happened_has_settled() {
        let mut watches = Watches::default();
        assert!(watches.sight().is_clear(at(0)), "never interrupted");
        watches.lost(Kind::Pods, at(10));
        watches.lost(Kind::Releases, at(11));
        watches.lost(Kind::Pods, at(12));
        assert_eq!(watches.sight().lost_since, Some(at(10)), "the second error is the same interruption");
        assert!(watches.found(Kind::Pods, at(14)));
        assert!(!watches.sight().is_clear(at(100)), "the other one is still away");
        assert!(watches.found(Kind::Releases, at(15)));
        assert!(!watches.sight().is_clear(at(18)));
        assert!(watches.sight().is_clear(at(19)), "4 s more after 4 s, not 5 s after the first");
        assert!(!watches.found(Kind::Pods, at(30)), "asked for anew, as every minute");
        assert!(watches.sight().is_clear(at(30)));
    }

    #[test]
    fn a_long_interruption_settles_within_a_bound() {
        let mut watches = Watches::default();
        watches.lost(Kind::Pods, at(0));
        watches.found(Kind::Pods, at(3600));
        assert!(!watches.sight().is_clear(at(3614)));
        assert!(watches.sight().is_clear(at(3615)));
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_blind() {
        let mut watches = Watches::default();
        watches.lost(Kind::Pods, at(3600));
        watches.found(Kind::Pods, at(0));
        assert!(watches.sight().is_clear(at(0)));
    }
}
