//! The certificates of the webhook: what there is, and what to do about it next.
//!
//! Purpose: [`next`], a pure function of what is kept, whom the API server trusts, and the time. A certificate is
//! renewed when a third of its life is left. A new authority is trusted beside the old one for a while before a
//! certificate is issued by it, and the old one for a while after: whatever operators and API servers have not heard
//! of yet, their calls succeed.
//! May touch: nothing but time that it is given. Must never: make a key, do I/O.

use std::collections::BTreeSet;
use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// How long certificates last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// The one that is served.
    pub serving: SignedDuration,
    /// The authority that issues it.
    pub authority: SignedDuration,
    /// How long to wait until every operator and every API server has surely heard of a change.
    pub settle: SignedDuration,
}

impl Default for Life {
    fn default() -> Self {
        Self {
            serving: SignedDuration::from_hours(30 * 24),
            authority: SignedDuration::from_hours(365 * 24),
            settle: SignedDuration::from_mins(10),
        }
    }
}

/// A private key in PEM. It is shown to nobody.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(pub String);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// Who issues certificates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Authority {
    /// Its name, of which there is no other.
    pub name: String,
    /// Since when it is there.
    pub made_at: Timestamp,
    /// Until when its certificate is valid.
    pub not_after: Timestamp,
    /// Since when the API server is known to be told of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trusted_at: Option<Timestamp>,
    /// Its certificate in PEM.
    pub certificate: String,
    /// Its key.
    pub key: Key,
}

/// The certificate that is served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Serving {
    /// The name of its authority.
    pub issuer: String,
    /// The host names that it is for.
    pub names: BTreeSet<String>,
    /// Since when it is there.
    pub made_at: Timestamp,
    /// Until when it is valid.
    pub not_after: Timestamp,
    /// The certificate in PEM.
    pub certificate: String,
    /// Its key.
    pub key: Key,
}

/// All that is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// Those to trust, the newest last.
    pub authorities: Vec<Authority>,
    /// What is served.
    pub serving: Option<Serving>,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make a new authority, beside those that are there.
    Add,
    /// Note that the API server is told of the newest authority now.
    Trust,
    /// Issue a new certificate by the authority with this index.
    Issue(usize),
    /// [`Chain::forget`] the authorities that are used no more.
    Forget,
    /// Nothing until then.
    Wait(Timestamp),
}

impl Chain {
    /// The certificates of all authorities in PEM: what the API server is to trust.
    pub fn bundle(&self) -> String {
        self.authorities.iter().map(|a| a.certificate.as_str()).collect()
    }

    /// Notes that the API server is told of the newest authority.
    pub fn trust(&mut self, now: Timestamp) {
        if let Some(newest) = self.authorities.last_mut() {
            newest.trusted_at = Some(now);
        }
    }

    /// Leaves the newest authority and the one that issued what is served.
    pub fn forget(&mut self) {
        let needed: Vec<bool> = (0..self.authorities.len()).map(|i| self.needs(i)).collect();
        let mut needed = needed.into_iter();
        self.authorities.retain(|_| needed.next().unwrap_or(true));
    }

    fn needs(&self, index: usize) -> bool {
        let issued = self.serving.as_ref().is_some_and(|s| s.issuer == self.authorities[index].name);
        index + 1 == self.authorities.len() || issued
    }
}

/// When to renew what was made and ends at these times.
fn renew_at(made_at: Timestamp, not_after: Timestamp) -> Timestamp {
    not_after - not_after.duration_since(made_at) / 3
}

/// What to do about the chain next. `names` are the hosts that the API server calls; `trusted` is whether it is told
/// to trust the newest authority.
pub fn next(chain: &Chain, names: &BTreeSet<String>, trusted: bool, life: &Life, now: Timestamp) -> Step {
    let Some(newest) = chain.authorities.last() else { return Step::Add };
    let newest_renewal = renew_at(newest.made_at, newest.not_after);
    if now >= newest_renewal {
        return Step::Add;
    }
    let last = chain.authorities.len() - 1;
    let valid = |serving: &&Serving| now < serving.not_after;
    let Some(serving) = chain.serving.as_ref().filter(valid) else { return Step::Issue(last) };
    let issuer = chain.authorities.iter().position(|a| a.name == serving.issuer && now < a.not_after);
    let Some(issuer) = issuer else { return Step::Issue(last) };

    let settled_at = newest.trusted_at.map(|at| at + life.settle);
    if trusted && settled_at.is_none() {
        return Step::Trust;
    }
    let by = if trusted && settled_at.is_some_and(|at| now >= at) { last } else { issuer };
    // An authority that ends soon can issue nothing that lasts longer.
    let lasts_longer = chain.authorities[by].not_after > serving.not_after;
    let renewal = renew_at(serving.made_at, serving.not_after);
    if by != issuer || serving.names != *names || (now >= renewal && lasts_longer) {
        return Step::Issue(by);
    }

    let mut wake = newest_renewal.min(serving.not_after);
    if lasts_longer {
        wake = wake.min(renewal);
    }
    if let Some(settled_at) = settled_at.filter(|_| issuer != last && trusted) {
        // If it is not trusted, then what makes it so is an event of its own.
        wake = wake.min(settled_at);
    }
    if (0..last).any(|i| !chain.needs(i)) {
        let forgotten_at = serving.made_at + life.settle;
        if now >= forgotten_at {
            return Step::Forget;
        }
        wake = wake.min(forgotten_at);
    }
    Step::Wait(wake)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIFE: Life = Life {
        serving: SignedDuration::from_secs(300),
        authority: SignedDuration::from_secs(3000),
        settle: SignedDuration::from_secs(60),
    };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn names() -> BTreeSet<String> {
        ["belay-webhook.belay-system.svc".to_owned()].into()
    }

    /// Does a step as the operator does, without real keys.
    fn done(chain: &mut Chain, step: Step, names: &BTreeSet<String>, life: &Life, now: Timestamp) {
        match step {
            Step::Add => chain.authorities.push(Authority {
                name: format!("authority of {now}"),
                made_at: now,
                not_after: now + life.authority,
                trusted_at: None,
                certificate: format!("{now} "),
                key: Key(String::new()),
            }),
            Step::Issue(by) => {
                let by = &chain.authorities[by];
                chain.serving = Some(Serving {
                    issuer: by.name.clone(),
                    names: names.clone(),
                    made_at: now,
                    not_after: (now + life.serving).min(by.not_after),
                    certificate: String::new(),
                    key: Key(String::new()),
                });
            }
            Step::Trust => chain.trust(now),
            Step::Forget => chain.forget(),
            Step::Wait(_) => {}
        }
    }

    /// Steps until there is nothing to do, and returns until when.
    fn settle(chain: &mut Chain, trusted: bool, now: Timestamp) -> Timestamp {
        for _ in 0..10 {
            match next(chain, &names(), trusted, &LIFE, now) {
                Step::Wait(at) => return at,
                step => done(chain, step, &names(), &LIFE, now),
            }
        }
        panic!("it does not come to rest: {chain:?}");
    }

    #[test]
    fn the_first_certificate_is_there_at_once() {
        let mut chain = Chain::default();
        assert_eq!(settle(&mut chain, false, at(0)), at(200), "renewed when a third of 300 s is left");
        assert_eq!(chain.authorities.len(), 1);
        assert_eq!(chain.serving.unwrap().issuer, chain.authorities[0].name);
    }

    #[test]
    fn a_certificate_is_renewed_by_the_same_authority() {
        let mut chain = Chain::default();
        settle(&mut chain, true, at(0));
        assert_eq!(next(&chain, &names(), true, &LIFE, at(199)), Step::Wait(at(200)));
        assert_eq!(next(&chain, &names(), true, &LIFE, at(200)), Step::Issue(0));
    }

    #[test]
    fn another_host_name_is_a_reason_for_another_certificate() {
        let mut chain = Chain::default();
        settle(&mut chain, true, at(0));
        let other = ["127.0.0.1".to_owned()].into();
        assert_eq!(next(&chain, &other, true, &LIFE, at(1)), Step::Issue(0));
    }

    #[test]
    fn a_new_authority_issues_only_when_it_is_trusted_for_a_while_and_the_old_one_goes_last() {
        let mut chain = Chain::default();
        settle(&mut chain, true, at(0));
        let serving = chain.serving.as_mut().unwrap();
        (serving.made_at, serving.not_after) = (at(1900), at(2900));
        assert_eq!(next(&chain, &names(), true, &LIFE, at(2000)), Step::Add);
        done(&mut chain, Step::Add, &names(), &LIFE, at(2000));
        assert!(matches!(next(&chain, &names(), false, &LIFE, at(2100)), Step::Wait(_)), "not trusted yet");
        assert_eq!(next(&chain, &names(), true, &LIFE, at(2200)), Step::Trust);
        done(&mut chain, Step::Trust, &names(), &LIFE, at(2200));
        assert_eq!(next(&chain, &names(), true, &LIFE, at(2259)), Step::Wait(at(2260)));
        assert!(matches!(next(&chain, &names(), false, &LIFE, at(2260)), Step::Wait(_)), "trusted no more");
        assert_eq!(next(&chain, &names(), true, &LIFE, at(2260)), Step::Issue(1));
        done(&mut chain, Step::Issue(1), &names(), &LIFE, at(2260));
        assert_eq!(chain.authorities.len(), 2, "both are trusted");
        assert_eq!(next(&chain, &names(), true, &LIFE, at(2319)), Step::Wait(at(2320)));
        assert_eq!(next(&chain, &names(), true, &LIFE, at(2320)), Step::Forget);
        done(&mut chain, Step::Forget, &names(), &LIFE, at(2320));
        assert_eq!(chain.authorities.len(), 1);
        assert_eq!(chain.serving.as_ref().unwrap().issuer, chain.authorities[0].name);
    }

    #[test]
    fn after_a_long_absence_it_begins_anew_at_once() {
        let mut chain = Chain::default();
        settle(&mut chain, true, at(0));
        settle(&mut chain, false, at(100_000));
        let serving = chain.serving.as_ref().unwrap();
        assert!(serving.not_after > at(100_000));
        assert_eq!(Some(&serving.issuer), chain.authorities.last().map(|a| &a.name));
    }

    #[test]
    fn a_key_is_not_shown() {
        let mut chain = Chain::default();
        settle(&mut chain, true, at(0));
        chain.authorities[0].key = Key("hidden".to_owned());
        chain.serving.as_mut().unwrap().key = Key("hidden".to_owned());
        assert!(!format!("{chain:?}").contains("hidden"));
    }

    proptest! {
        /// Two operators that hear of changes late, an API server that hears of them late, and any pauses between:
        /// what any operator serves, the API server trusts.
        #[test]
        fn at_no_time_is_a_call_refused(
            pauses in prop::collection::vec(1_i64..40, 50..400),
            lags in prop::collection::vec(0_i64..55, 8),
        ) {
            let mut chain = Chain::default();
            let mut now = at(1_000_000);
            // Every state with the time since when it is so, and what the API server was told.
            let mut history: Vec<(Timestamp, Chain)> = Vec::new();
            let mut told: Vec<(Timestamp, String)> = Vec::new();
            for pause in pauses {
                let trusts = told.last().map(|(_, bundle)| bundle.clone()).unwrap_or_default();
                for step in 0.. {
                    let trusted = chain.authorities.last().is_some_and(|a| trusts.contains(&a.certificate));
                    prop_assert!(step < 8, "it does not come to rest: {chain:?}");
                    match next(&chain, &names(), trusted, &LIFE, now) {
                        Step::Wait(at) => {
                            prop_assert!(at > now, "it would spin");
                            break;
                        }
                        step => done(&mut chain, step, &names(), &LIFE, now),
                    }
                    history.push((now, chain.clone()));
                }
                // Every third time the API server cannot be told.
                if pause % 3 != 0 && told.last().map(|(_, b)| b.as_str()) != Some(&chain.bundle()) {
                    told.push((now, chain.bundle()));
                }
                now += SignedDuration::from_secs(pause);
                if told.is_empty() {
                    continue;
                }
                let first = told[0].0;
                for (i, lag) in lags.iter().enumerate() {
                    let served_at = (now - SignedDuration::from_secs(*lag)).max(first);
                    let told_at = (now - SignedDuration::from_secs(lags[(i + 1) % lags.len()])).max(first);
                    let served = &history.iter().rfind(|(t, _)| *t <= served_at).unwrap().1;
                    let trusted = &told.iter().rfind(|(t, _)| *t <= told_at).unwrap().1;
                    let serving = served.serving.as_ref().unwrap();
                    let issuer = served.authorities.iter().find(|a| a.name == serving.issuer).unwrap();
                    prop_assert!(trusted.contains(&issuer.certificate), "{} is not in {trusted}", issuer.certificate);
                    prop_assert!(now < serving.not_after, "expired");
                }
            }
        }
    }
}
