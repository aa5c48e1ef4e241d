//! The only reader of time.

use jiff::Timestamp;

/// The time now, in whole microseconds: what is written to the API server reads back as the same.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
pub fn now() -> Timestamp {
    let now = Timestamp::now();
    now.round(jiff::Unit::Microsecond).unwrap_or(now)
}
