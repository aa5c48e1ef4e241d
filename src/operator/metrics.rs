//! The operator's own figures, in OpenMetrics.

use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::act::Hold;
use crate::api::Release;
use crate::clock;

/// Labels of a request to the API server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Write {
    /// The effect's name, or `Lease`.
    pub effect: &'static str,
    /// `done`, `conflict` or `failed`.
    pub outcome: &'static str,
}

/// Labels of a release.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    namespace: String,
    release: String,
}

/// Labels of a guard's evidence.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Evidence {
    namespace: String,
    release: String,
    guard: String,
    key: &'static str,
}

/// Label of a kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Named {
    kind: &'static str,
}

/// Label of a phase.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Phase {
    phase: String,
}

/// All figures.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    writes: Family<Write, Counter>,
    write_seconds: Histogram,
    decision_seconds: Histogram,
    reaction_seconds: Histogram,
    looks: Counter,
    watch_troubles: Counter,
    unreadable: Family<Named, Gauge>,
    queue: Gauge,
    leader: Gauge,
    epoch: Gauge,
    lost: Counter,
    /// What the lease was last; whether it still lasts is a question of time.
    hold: Mutex<Option<Hold>>,
    releases: Family<Phase, Gauge>,
    weight: Family<Of, Gauge<f64, AtomicU64>>,
    step_age: Family<Of, Gauge<i64, AtomicI64>>,
    evidence: Family<Evidence, Gauge<f64, AtomicU64>>,
    memory: Gauge,
}

fn buckets() -> Histogram {
    Histogram::new([0.0001, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0])
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            registry: Mutex::new(Registry::with_prefix("belay")),
            writes: Family::default(),
            write_seconds: buckets(),
            decision_seconds: buckets(),
            reaction_seconds: buckets(),
            looks: Counter::default(),
            watch_troubles: Counter::default(),
            unreadable: Family::default(),
            queue: Gauge::default(),
            leader: Gauge::default(),
            epoch: Gauge::default(),
            lost: Counter::default(),
            hold: Mutex::default(),
            releases: Family::default(),
            weight: Family::default(),
            step_age: Family::default(),
            evidence: Family::default(),
            memory: Gauge::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&self) {
        let Ok(mut r) = self.registry.lock() else { return };
        r.register("api_writes", "Requests that write, by effect and outcome", self.writes.clone());
        let seconds = |r: &mut Registry, name: &str, help: &str, h: &Histogram| {
            r.register_with_unit(name, help, Unit::Seconds, h.clone());
        };
        seconds(&mut r, "api_write", "Time of a write, from sending to answer", &self.write_seconds);
        seconds(&mut r, "decision", "Time of one decision", &self.decision_seconds);
        seconds(
            &mut r,
            "rollback_reaction",
            "Time from the watch event or sample to the answer of the write that takes the weight away",
            &self.reaction_seconds,
        );
        r.register("looks", "Looks at metrics", self.looks.clone());
        r.register("watch_troubles", "Watches that were interrupted", self.watch_troubles.clone());
        let help = "Objects of our own kinds that this version cannot read and leaves alone";
        r.register("unreadable_objects", help, self.unreadable.clone());
        r.register("queue_length", "Rollouts that wait for a decision", self.queue.clone());
        r.register("leader", "1 while this process holds the lease; it lapses at rest", self.leader.clone());
        r.register("lease_epoch", "Number of the last tenure of this process", self.epoch.clone());
        let help = "Passes that were given up because the lease was lost";
        r.register("lease_lost", help, self.lost.clone());
        r.register("releases", "Releases by phase", self.releases.clone());
        r.register("release_weight_percent", "Share of the new version", self.weight.clone());
        r.register_with_unit("release_step_age", "Time in this step", Unit::Seconds, self.step_age.clone());
        r.register("release_evidence", "Evidence of a guard, an e-value", self.evidence.clone());
        let help = "Memory of this process that is in RAM";
        r.register_with_unit("process_resident_memory", help, Unit::Bytes, self.memory.clone());
    }

    /// A write was answered.
    pub fn write(&self, effect: &'static str, outcome: &'static str, seconds: f64) {
        self.writes.get_or_create(&Write { effect, outcome }).inc();
        self.write_seconds.observe(seconds);
    }

    /// A decision was made.
    pub fn decision(&self, seconds: f64) {
        self.decision_seconds.observe(seconds);
    }

    /// The weight was taken away this long after the reason for it arrived.
    pub fn reaction(&self, seconds: f64) {
        self.reaction_seconds.observe(seconds);
    }

    /// A look was taken.
    pub fn look(&self) {
        self.looks.inc();
    }

    /// A watch was interrupted.
    pub fn trouble(&self) {
        self.watch_troubles.inc();
    }

    /// How many Rollouts and Releases cannot be read.
    pub fn unreadable(&self, (rollouts, releases): (usize, usize)) {
        for (kind, number) in [("Rollout", rollouts), ("Release", releases)] {
            let number = i64::try_from(number).unwrap_or(i64::MAX);
            self.unreadable.get_or_create(&Named { kind }).set(number);
        }
    }

    /// How many wait.
    pub fn queue(&self, length: usize) {
        self.queue.set(i64::try_from(length).unwrap_or(i64::MAX));
    }

    /// What this process holds the lease by.
    pub fn lease(&self, hold: Option<Hold>) {
        if let Some(hold) = hold {
            self.epoch.set(i64::try_from(hold.epoch).unwrap_or(i64::MAX));
        }
        if let Ok(mut last) = self.hold.lock() {
            *last = hold;
        }
    }

    /// A pass was given up because the lease was lost.
    pub fn lost(&self) {
        self.lost.inc();
    }

    /// What the releases look like now.
    pub fn releases<'a>(&self, releases: impl Iterator<Item = &'a Release>, now: jiff::Timestamp) {
        self.releases.clear();
        self.weight.clear();
        self.step_age.clear();
        self.evidence.clear();
        for release in releases {
            let status = release.status.clone().unwrap_or_default();
            self.releases.get_or_create(&Phase { phase: format!("{:?}", status.phase) }).inc();
            if status.phase.is_final() {
                continue;
            }
            let namespace = release.metadata.namespace.clone().unwrap_or_default();
            let name = release.metadata.name.clone().unwrap_or_default();
            let of = Of { namespace: namespace.clone(), release: name.clone() };
            let reached = status.weight.as_ref().map_or(0, |w| w.reached);
            self.weight.get_or_create(&of).set(f64::from(reached));
            if let Some(entered) = &status.step.entered_at {
                self.step_age.get_or_create(&of).set(now.duration_since(entered.0).as_secs());
            }
            for guard in status.analysis.iter().flat_map(|a| &a.guards) {
                for (key, value) in [("strict", guard.strict), ("margin", guard.margin), ("safe", guard.safe)]
                {
                    let labels = Evidence {
                        namespace: namespace.clone(),
                        release: name.clone(),
                        guard: guard.name.clone(),
                        key,
                    };
                    self.evidence.get_or_create(&labels).set(value);
                }
            }
        }
    }

    /// Everything as text.
    pub fn render(&self) -> String {
        self.memory.set(resident_bytes());
        let held = self.hold.lock().is_ok_and(|hold| hold.is_some_and(|h| h.lasts(clock::monotonic())));
        self.leader.set(i64::from(held));
        let mut text = String::new();
        if let Ok(registry) = self.registry.lock()
            && prometheus_client::encoding::text::encode(&mut text, &registry).is_err()
        {
            // Writing to a string does not fail; if it ever does, half a page is worse than none.
            text.clear();
        }
        text
    }
}

/// Memory of this process that is in RAM, in bytes; 0 where the kernel does not tell.
fn resident_bytes() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|l| l.trim().trim_end_matches("kB").trim().parse::<i64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_leader_is_who_holds_the_lease_when_it_is_asked() {
        let metrics = Metrics::default();
        assert!(metrics.render().contains("belay_leader 0\n"));
        let sent = clock::monotonic();
        let hold = |left| Some(Hold { epoch: 7, sent, deadline: sent + left });
        metrics.lease(hold(Duration::from_secs(3600)));
        assert!(metrics.render().contains("belay_leader 1\n"));
        metrics.lease(hold(Duration::ZERO));
        metrics.lost();
        let lapsed = metrics.render();
        assert!(lapsed.contains("belay_leader 0\n") && lapsed.contains("belay_lease_lost_total 1\n"));
        assert!(lapsed.contains("belay_lease_epoch 7\n"), "{lapsed}");
    }
}
