//! The rows on pods: bursts of errors (A9) and pods that differ (A10), through `fold` as in production.

use super::engine::{Heard, Pods};
use super::errors::Scale;
use super::random::Random;
use super::row::{Row, count};
use super::stream::repeat;

/// Releases of pods that fail 1 % of their requests, 50 requests a second to the canary and 950 to stable, looks
/// every 5 s.
#[derive(Clone, Copy, Debug)]
pub struct Release {
    pub canary: u32,
    pub stable: u32,
    /// How many times more often the canary fails.
    pub times: f64,
    /// Standard deviation of the logarithm of the pods' own rates.
    pub spread: f64,
    /// Mean number of errors of a burst; 1: each on its own.
    pub burst: f64,
    pub looks: u32,
}

impl Release {
    const HEALTHY: Self = Self { canary: 2, stable: 10, times: 1.0, spread: 0.0, burst: 1.0, looks: 360 };

    /// The look at which it is rolled back, and what became of the engine.
    pub fn run(self, random: &mut Random) -> (Option<u32>, Pods) {
        let mut rates = |pods: u32, times: f64| -> Vec<f64> {
            (0..pods)
                .map(|_| {
                    // The mean of the log-normal factor is 1.
                    let factor = (self.spread * random.normal() - self.spread * self.spread / 2.0).exp();
                    0.01 * times * factor / self.burst
                })
                .collect()
        };
        let (canary_rates, stable_rates) = (rates(self.canary, self.times), rates(self.stable, 1.0));
        let mut canary = vec![[0.0, 0.0]; canary_rates.len()];
        let mut stable = vec![[0.0, 0.0]; stable_rates.len()];
        let mut pods = Pods::new(self.looks);
        pods.look(&counters(&canary), &counters(&stable));
        for number in 1..=self.looks {
            self.serve(random, &mut canary, &canary_rates, 250 / self.canary);
            self.serve(random, &mut stable, &stable_rates, 4750 / self.stable);
            pods.look(&counters(&canary), &counters(&stable));
            if pods.heard() == Heard::Rollback {
                return (Some(number), pods);
            }
        }
        (None, pods)
    }

    /// Five seconds of requests. A burst that is longer than the requests of a look comes with requests of its own,
    /// as when clients try again.
    fn serve(self, random: &mut Random, pods: &mut [[f64; 2]], rates: &[f64], requests: u32) {
        for (pod, rate) in pods.iter_mut().zip(rates) {
            let starts = random.binomial(requests, *rate);
            let bad = random.bursts(starts, self.burst);
            pod[0] += bad;
            pod[1] += f64::from(requests).max(bad);
        }
    }
}

fn counters(pods: &[[f64; 2]]) -> Vec<[Option<f64>; 2]> {
    pods.iter().map(|pod| pod.map(Some)).collect()
}

/// The seconds to the rollback of each release.
fn delays(scale: Scale, name: &str, release: Release) -> Vec<Option<u32>> {
    let release = Release { looks: scale.pod_looks, ..release };
    repeat(scale.seed, name, scale.pods, |random| release.run(random).0.map(|look| 5 * look))
}

fn stopped(delays: &[Option<u32>]) -> u32 {
    count(delays.iter().flatten().count())
}

pub fn a9(scale: Scale) -> Vec<Row> {
    let mut rows = Vec::new();
    for burst in [5.0, 20.0] {
        let name = format!("bursts of {burst}");
        let delays = delays(scale, &name, Release { burst, ..Release::HEALTHY });
        let what = format!("healthy, errors in {name}: rolled back");
        let learnt = repeat(scale.seed, &name, scale.pods.min(50), |random| {
            Release { burst, looks: 120, ..Release::HEALTHY }.run(random).1.dispersion()
        });
        rows.push(Row::share(&format!("A9.false.{burst}"), &what, stopped(&delays), scale.pods, 1.0));
        let mean = learnt.iter().sum::<f64>() / learnt.len() as f64;
        let what = format!("errors in {name}: dispersion learnt in ten minutes (mean)");
        rows.push(Row::peer(&format!("belay.dispersion.{burst}"), what, Some(mean)));
    }
    let delays = delays(scale, "x3 in bursts", Release { times: 3.0, burst: 5.0, ..Release::HEALTHY });
    let missed = scale.pods - stopped(&delays);
    rows.push(Row::at_least("A9.found", "x3, errors in bursts of 5: found", missed, scale.pods, 99.0));
    rows.push(Row::median("A9.delay", "x3, errors in bursts of 5: median delay", &delays, 240));
    rows
}

/// Two canary pods and ten stable ones, and the by-pods default of one canary beside 19.
pub fn a10(scale: Scale) -> Vec<Row> {
    let mut rows = Vec::new();
    for (canary, stable) in [(2, 10), (1, 19)] {
        let unequal = Release { canary, stable, spread: 0.3, ..Release::HEALTHY };
        let healthy = delays(scale, &format!("{canary} of {stable} unequal"), unequal);
        let what = format!("pods with sd 0.3, {canary} canary and {stable} stable");
        let wrong = stopped(&healthy);
        rows.push(Row::share(
            &format!("A10.false.{canary}+{stable}"),
            &format!("{what}, healthy: rolled back"),
            wrong,
            scale.pods,
            1.0,
        ));
        let worse =
            delays(scale, &format!("{canary} of {stable} unequal x10"), Release { times: 10.0, ..unequal });
        let missed = scale.pods - stopped(&worse);
        let id = |kind: &str| format!("A10.{kind}.{canary}+{stable}");
        rows.push(Row::at_least(&id("found"), &format!("{what}, x10: found"), missed, scale.pods, 100.0));
        rows.push(Row::median(&id("delay"), &format!("{what}, x10: median delay"), &worse, 20));
    }
    rows
}
