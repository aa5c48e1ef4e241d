//! What a canary and stable answer, look by look: the truth of a simulated release, and draws from it.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use super::engine::Counts;
use super::random::{Random, Table};

/// Requests of both versions are drawn as well where a look has fewer of them than this.
const FEW: f64 = 50.0;

/// The truth during one look: requests a second and share of bad ones, of each version.
#[derive(Clone, Copy, Debug)]
pub struct Truth {
    pub canary: (f64, f64),
    pub stable: (f64, f64),
}

/// A kind of release, as often as one likes.
pub struct Scenario {
    /// Short, and part of the rows' ids.
    pub name: String,
    /// Seconds between two looks.
    pub interval: u32,
    /// Looks before the fault begins; 0 when it is there from the start.
    pub late: usize,
    tables: Vec<Table>,
    /// Of each look the tables of canary's and stable's bad requests, and the requests.
    looks: Vec<[(usize, Requests); 2]>,
}

#[derive(Clone, Copy)]
enum Requests {
    Fixed(f64),
    /// The table of the good ones.
    Drawn(usize),
}

impl Scenario {
    /// A release of `minutes` whose truth at each look is `truth`; looks count from 1.
    pub fn new(name: &str, interval: u32, minutes: u32, truth: impl Fn(u32) -> Truth) -> Self {
        let (mut tables, mut known) = (Vec::new(), BTreeMap::new());
        let mut table = |kind: u32, first: f64, second: f64| {
            *known.entry((kind, first.to_bits(), second.to_bits())).or_insert_with(|| {
                tables.push(match kind {
                    #[expect(
                        clippy::cast_possible_truncation,
                        clippy::cast_sign_loss,
                        reason = "requests of a look"
                    )]
                    0 => Table::binomial(first as u32, second),
                    _ => Table::poisson(first),
                });
                tables.len() - 1
            })
        };
        let looks = (1..=minutes * 60 / interval).map(|number| {
            let truth = truth(number);
            [truth.canary, truth.stable].map(|(per_second, bad)| {
                let requests = (per_second * f64::from(interval)).round();
                if requests >= FEW {
                    (table(0, requests, bad), Requests::Fixed(requests))
                } else {
                    // Poisson requests of which each is bad on its own: bad and good ones are Poisson each.
                    let mean = per_second * f64::from(interval);
                    (table(1, mean * bad, 0.0), Requests::Drawn(table(1, mean * (1.0 - bad), 0.0)))
                }
            })
        });
        let looks = looks.collect();
        Self { name: name.to_owned(), interval, late: 0, tables, looks }
    }

    /// The set-up of the table: canary 50 and stable 950 requests a second, looks every 5 s, 30 minutes.
    pub fn standard(name: &str, rates: impl Fn(u32) -> (f64, f64)) -> Self {
        Self::new(name, 5, 30, |number| {
            let (canary, stable) = rates(number);
            Truth { canary: (50.0, canary), stable: (950.0, stable) }
        })
    }

    /// A release whose canary is worse from the start.
    pub fn fault(name: &str, stable: f64, canary: f64) -> Self {
        Self::standard(name, |_| (canary, stable))
    }

    /// A release whose canary becomes worse after ten minutes.
    pub fn late_fault(name: &str, stable: f64, canary: f64) -> Self {
        const LATE: u32 = 120;
        let rates = |number| (if number > LATE { canary } else { stable }, stable);
        Self { late: LATE as usize, ..Self::standard(name, rates) }
    }

    /// What one release sees.
    pub fn draw(&self, random: &mut Random) -> Vec<Counts> {
        let mut version = |(bad, requests): (usize, Requests)| {
            let bad = self.tables[bad].draw(random);
            match requests {
                Requests::Fixed(all) => (bad, all),
                Requests::Drawn(good) => (bad, bad + self.tables[good].draw(random)),
            }
        };
        self.looks
            .iter()
            .map(|[canary, stable]| {
                let ((canary_bad, canary_total), (stable_bad, stable_total)) =
                    (version(*canary), version(*stable));
                Counts { canary_bad, canary_total, stable_bad, stable_total }
            })
            .collect()
    }
}

/// The results of `runs` runs in their order, made on two threads. Each run has a generator of its own.
pub fn repeat<T: Send>(seed: u64, name: &str, runs: u32, one: impl Fn(&mut Random) -> T + Sync) -> Vec<T> {
    let (next, results) = (AtomicU32::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut mine = Vec::new();
                loop {
                    let run = next.fetch_add(1, Ordering::Relaxed);
                    if run >= runs {
                        break;
                    }
                    mine.push((run, one(&mut Random::of_run(seed, name, run))));
                }
                results.lock().unwrap().append(&mut mine);
            });
        }
    });
    let mut results = results.into_inner().unwrap();
    results.sort_unstable_by_key(|(run, _)| *run);
    results.into_iter().map(|(_, result)| result).collect()
}
