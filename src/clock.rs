//! The only reader of time and of randomness.

use std::hash::{BuildHasher, Hasher};
use std::ops::Add;
use std::time::Duration;

use jiff::Timestamp;

/// The time now, in whole microseconds: what is written to the API server reads back as the same.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
pub fn now() -> Timestamp {
    let now = Timestamp::now();
    now.round(jiff::Unit::Microsecond).unwrap_or(now)
}

/// A moment of a clock that nobody sets: the time since a start that only this machine knows. Two moments of one
/// process can be compared, those of two processes mean nothing to each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(Duration);

impl Moment {
    /// The moment that is this long after the start.
    pub const fn new(since_start: Duration) -> Self {
        Self(since_start)
    }

    /// The time from an earlier moment to this one; zero if it is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, time: Duration) -> Self {
        Self(self.0.saturating_add(time))
    }
}

/// The moment now. On Linux the clock goes on while the machine sleeps: a lease does not wait for it.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
pub fn monotonic() -> Moment {
    use rustix::time::{ClockId, clock_gettime};
    #[cfg(target_os = "linux")]
    let clock = ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    let clock = ClockId::Monotonic;
    let time = clock_gettime(clock);
    // Both are positive and within range for a clock that starts with the machine.
    let (seconds, nanos) =
        (u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0));
    Moment(Duration::new(seconds, nanos))
}

/// A number that no other process has, nor this one again.
pub fn token() -> u64 {
    // Seeded from the operating system's randomness, and stirred for each.
    let mut hasher = std::hash::RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_monotonic_clock_goes_forward_and_tokens_differ() {
        let (a, b) = (monotonic(), monotonic());
        assert!(a <= b && a > Moment::default());
        assert_eq!(a.since(a + Duration::from_secs(1)), Duration::ZERO);
        assert_eq!((a + Duration::from_secs(1)).since(a), Duration::from_secs(1));
        assert_ne!(token(), token());
    }
}
