//! What entitles a write: a tenure of the lease that lasts.
//!
//! Purpose: stop a write whose process is not the one that writes any more, before it is sent and while it is under
//! way. May touch: the clock. Must never: take or renew the lease itself.

use tokio::sync::watch;

use crate::clock::{self, Moment};

/// A tenure of the lease, as its holder has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hold {
    /// Which tenure. It grows with each: two processes never have the same.
    pub epoch: u64,
    /// When the request was sent that took or renewed it.
    pub sent: Moment,
    /// From then on nothing may be written, unless it is renewed. Before anybody else may take the lease.
    pub deadline: Moment,
}

impl Hold {
    /// Whether it lasts.
    pub fn lasts(&self, now: Moment) -> bool {
        now < self.deadline
    }
}

/// The right to write in one tenure. It ends with it; renewals make it last longer.
#[derive(Clone, Debug)]
pub struct Fence {
    epoch: u64,
    hold: watch::Receiver<Option<Hold>>,
}

impl Fence {
    /// The right to write in the tenure `epoch`, as long as `hold` says that it lasts.
    pub fn new(epoch: u64, hold: watch::Receiver<Option<Hold>>) -> Self {
        Self { epoch, hold }
    }

    /// The tenure.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether something may be written at this moment.
    pub fn stands(&self, now: Moment) -> bool {
        self.hold.borrow().is_some_and(|h| h.epoch == self.epoch && h.lasts(now))
    }

    /// Done when nothing may be written any more.
    pub async fn fallen(&self) {
        let mut hold = self.hold.clone();
        loop {
            let now = clock::monotonic();
            let present = *hold.borrow_and_update();
            let Some(present) = present.filter(|h| h.epoch == self.epoch && h.lasts(now)) else { return };
            tokio::select! {
                changed = hold.changed() => if changed.is_err() { return },
                // The timer stands still while the machine sleeps; the clock above does not.
                () = tokio::time::sleep(present.deadline.since(now)) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn hold(epoch: u64, left: Duration) -> Hold {
        let sent = clock::monotonic();
        Hold { epoch, sent, deadline: sent + left }
    }

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn it_stands_in_its_own_tenure_and_to_the_deadline() {
        let first = hold(4, LONG);
        let (sender, receiver) = watch::channel(Some(first));
        let fence = Fence::new(4, receiver);
        assert!(fence.stands(first.sent));
        assert!(!fence.stands(first.deadline));
        sender.send_replace(Some(hold(5, LONG)));
        assert!(!fence.stands(first.sent), "another tenure is not the one that the write was decided in");
        sender.send_replace(None);
        assert!(!fence.stands(first.sent));
    }

    #[tokio::test]
    async fn it_falls_at_the_deadline_and_a_renewal_puts_it_off() {
        let (sender, receiver) = watch::channel(Some(hold(1, Duration::from_millis(5))));
        Fence::new(1, receiver.clone()).fallen().await;
        sender.send_replace(Some(hold(2, LONG)));
        let fence = Fence::new(2, receiver);
        let waits = tokio::spawn(async move { fence.fallen().await });
        sender.send_replace(Some(hold(2, LONG + LONG)));
        tokio::task::yield_now().await;
        assert!(!waits.is_finished());
        sender.send_replace(Some(hold(3, LONG)));
        waits.await.unwrap();
    }
}
