//! Which Rollouts are to be decided, and when. Pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use crate::observe::Key;

/// Most passes with writes of one Rollout within [`WINDOW`]; more is a loop, not progress.
const PASSES: u32 = 40;
/// See [`PASSES`].
const WINDOW: SignedDuration = SignedDuration::from_secs(10);

/// The work to be done. One pass per Rollout at a time.
#[derive(Clone, Debug, Default)]
pub struct Queue {
    ready: BTreeMap<Key, Timestamp>,
    order: BTreeSet<(Timestamp, Key)>,
    busy: BTreeSet<Key>,
    again: BTreeMap<Key, Timestamp>,
    timers: BTreeMap<Key, Timestamp>,
    /// Those that wait for the lease.
    leaseless: BTreeSet<Key>,
    failures: BTreeMap<Key, u32>,
    writes: BTreeMap<Key, (Timestamp, u32)>,
}

/// How a pass ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Nothing was to be written.
    Idle,
    /// All writes succeeded.
    Written,
    /// What was read was out of date.
    Stale,
    /// A write failed.
    Failed,
    /// Another process holds the lease until then.
    NotLeader(Timestamp),
}

impl Queue {
    /// Something about this Rollout changed at `since`.
    pub fn add(&mut self, key: Key, since: Timestamp) {
        if self.busy.contains(&key) {
            self.again.entry(key).or_insert(since);
        } else if !self.ready.contains_key(&key) {
            self.order.insert((since, key.clone()));
            self.ready.insert(key, since);
        }
    }

    /// Moves what is due to the work to be done.
    pub fn due(&mut self, now: Timestamp) {
        let due: Vec<Key> =
            self.timers.iter().filter(|(_, at)| **at <= now).map(|(k, _)| k.clone()).collect();
        for key in due {
            self.timers.remove(&key);
            self.add(key, now);
        }
    }

    /// The lease may be taken: whoever waits for it need not wait any longer.
    pub fn lease_is_free(&mut self, now: Timestamp) {
        for key in std::mem::take(&mut self.leaseless) {
            self.timers.remove(&key);
            self.add(key, now);
        }
    }

    /// The next Rollout to decide and since when it waits, if fewer than `limit` are being worked on.
    pub fn take(&mut self, limit: usize) -> Option<(Key, Timestamp)> {
        if self.busy.len() >= limit {
            return None;
        }
        let (since, key) = self.order.pop_first()?;
        self.ready.remove(&key);
        self.leaseless.remove(&key);
        self.busy.insert(key.clone());
        Some((key, since))
    }

    /// A pass ended, and wants another at `wake`.
    pub fn done(&mut self, key: &Key, ended: Ended, wake: Option<Timestamp>, now: Timestamp) {
        self.busy.remove(key);
        let mut wake = wake;
        let mut again = self.again.remove(key);
        match ended {
            Ended::Idle => {
                self.failures.remove(key);
            }
            Ended::Written => {
                self.failures.remove(key);
                // Our own writes are taken in at once: decide on what they made of the world.
                again = again.or(Some(now));
                let window = self.writes.entry(key.clone()).or_insert((now, 0));
                if now.duration_since(window.0) > WINDOW {
                    *window = (now, 0);
                }
                window.1 += 1;
                if window.1 > PASSES {
                    again = None;
                    wake = Some(now + WINDOW);
                }
            }
            Ended::Stale | Ended::Failed => {
                let failures = self.failures.entry(key.clone()).or_insert(0);
                let base: i64 = if ended == Ended::Stale { 50 } else { 500 };
                let millis = (base << (*failures).min(8)).min(10_000);
                *failures = failures.saturating_add(1);
                // A watch event may come sooner, but must not turn a refusal into a busy loop.
                if ended == Ended::Failed {
                    again = None;
                }
                wake = Some(now + SignedDuration::from_millis(millis));
            }
            Ended::NotLeader(until) => {
                again = None;
                wake = Some(until);
                self.leaseless.insert(key.clone());
            }
        }
        match wake {
            Some(at) => self.timers.insert(key.clone(), at),
            None => self.timers.remove(key),
        };
        if let Some(since) = again {
            self.add(key.clone(), since);
        }
    }

    /// Forgets a Rollout that is gone.
    pub fn forget(&mut self, key: &Key) {
        self.busy.remove(key);
        self.again.remove(key);
        self.timers.remove(key);
        self.leaseless.remove(key);
        self.failures.remove(key);
        self.writes.remove(key);
    }

    /// When the next timer is due.
    pub fn next(&self) -> Option<Timestamp> {
        self.timers.values().min().copied()
    }

    /// Rollouts that wait for a pass.
    pub fn len(&self) -> usize {
        self.ready.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }

    /// Rollouts that are being worked on.
    pub fn busy(&self) -> usize {
        self.busy.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    fn key(name: &str) -> Key {
        ("shop".into(), name.into())
    }

    #[test]
    fn one_pass_at_a_time_and_nothing_is_missed() {
        let mut queue = Queue::default();
        queue.add(key("a"), at(1));
        queue.add(key("a"), at(2));
        assert_eq!(queue.take(9), Some((key("a"), at(1))), "it waits since the first event");
        queue.add(key("a"), at(3));
        assert_eq!(queue.take(9), None, "it is being worked on");
        queue.done(&key("a"), Ended::Idle, None, at(4));
        assert_eq!(queue.take(9), Some((key("a"), at(3))), "the event during the pass counts");
        queue.done(&key("a"), Ended::Idle, None, at(5));
        assert_eq!((queue.take(9), queue.next()), (None, None));
    }

    #[test]
    fn first_come_first_served_within_the_limit() {
        let mut queue = Queue::default();
        queue.add(key("b"), at(1));
        queue.add(key("a"), at(2));
        assert_eq!(queue.take(1).map(|t| t.0), Some(key("b")));
        assert_eq!(queue.take(1), None);
    }

    #[test]
    fn failures_wait_longer_and_longer_but_not_for_ever() {
        let mut queue = Queue::default();
        let mut last = SignedDuration::ZERO;
        for _ in 0..20 {
            queue.add(key("a"), at(0));
            assert!(queue.take(1).is_some());
            queue.add(key("a"), at(0));
            queue.done(&key("a"), Ended::Failed, None, at(0));
            assert!(queue.is_empty(), "an event does not cut the wait short");
            let wait = queue.next().expect("a timer").duration_since(at(0));
            assert!(wait >= last && wait <= SignedDuration::from_secs(10));
            last = wait;
        }
        assert_eq!(last, SignedDuration::from_secs(10));
    }

    #[test]
    fn who_waits_for_the_lease_goes_on_as_soon_as_it_is_free() {
        let mut queue = Queue::default();
        for name in ["a", "b"] {
            queue.add(key(name), at(0));
        }
        assert_eq!(
            (queue.take(9).map(|t| t.0), queue.take(9).map(|t| t.0)),
            (Some(key("a")), Some(key("b")))
        );
        queue.done(&key("a"), Ended::NotLeader(at(4)), None, at(0));
        queue.done(&key("b"), Ended::Idle, Some(at(9)), at(0));
        queue.due(at(1));
        assert_eq!(queue.take(9), None);
        queue.lease_is_free(at(1));
        assert_eq!(queue.take(9), Some((key("a"), at(1))));
        assert_eq!((queue.take(9), queue.next()), (None, Some(at(9))), "b has nothing to write");
        queue.done(&key("a"), Ended::Idle, None, at(2));
        queue.lease_is_free(at(3));
        assert!(queue.is_empty());
    }

    #[test]
    fn a_loop_of_writes_is_slowed_down() {
        let mut queue = Queue::default();
        queue.add(key("a"), at(0));
        for _ in 0..PASSES {
            assert!(queue.take(1).is_some());
            queue.done(&key("a"), Ended::Written, None, at(0));
        }
        assert!(queue.take(1).is_some());
        queue.done(&key("a"), Ended::Written, None, at(0));
        assert_eq!(queue.take(1), None);
        queue.due(at(9));
        assert_eq!(queue.take(1), None);
        queue.due(at(10));
        assert!(queue.take(1).is_some());
    }
}
