//! The time of the world: milliseconds since its beginning.

use jiff::{SignedDuration, Timestamp};

/// A moment, with the nanoseconds that clocks have and the API server does not keep.
pub fn time(ms: i64) -> Timestamp {
    Timestamp::new(1_800_000_000, 123_456_789).unwrap() + SignedDuration::from_millis(ms)
}

/// The first whole millisecond of the world that is not before `at`.
pub fn millis(at: Timestamp) -> i64 {
    i64::try_from(at.duration_since(time(0)).as_micros().div_euclid(1000)).unwrap() + 1
}

/// A moment as Kubernetes writes it: whole seconds.
pub fn whole_second(ms: i64) -> Timestamp {
    Timestamp::from_second(time(ms).as_second()).unwrap()
}
