//! How a history ended, in words that two histories can be compared by, and whether it has come to rest.

use std::fmt::Write as _;

use super::World;
use super::deployments::{int, text};
use super::oracle::{is_final, owner_kind};
use super::server::Sort;

impl World {
    /// What a user would call the outcome.
    pub fn outcome(&self) -> String {
        let mut out = String::new();
        if let Some(rollout) = self.server.rollout() {
            let status = rollout.status.unwrap_or_default();
            let vetoed: Vec<_> = status.vetoed.iter().map(|v| (&v.revision, &v.reason)).collect();
            let stable = status.stable.as_ref().map(|s| (&s.revision, &s.replica_set));
            let _ = writeln!(out, "rollout {:?} stable {stable:?} vetoed {vetoed:?}", status.phase);
        } else {
            let _ = writeln!(out, "no rollout");
        }
        if let Some(d) = self.workload() {
            let revision = belay::decide::revision(&d["spec"]["template"]);
            let _ = writeln!(
                out,
                "workload {revision} paused {} replicas {} labels {}",
                d["spec"]["paused"] == true,
                d["spec"]["replicas"],
                d["metadata"]["labels"],
            );
        } else {
            let _ = writeln!(out, "no workload");
        }
        for rs in self.server.all(Sort::ReplicaSet).filter(|rs| int(rs, "/spec/replicas") > 0) {
            let name = text(rs, "/metadata/name");
            let _ = writeln!(out, "set {name} {} of {}", rs["spec"]["replicas"], owner_kind(rs));
        }
        for release in self.server.releases() {
            let name = release.metadata.name.clone().unwrap_or_default();
            let s = release.status.unwrap_or_default();
            let steps: Vec<_> = s.timeline.iter().map(|e| (e.reason.as_str(), e.step)).collect();
            let answers: Vec<_> = s.commands.iter().map(|c| c.accepted).collect();
            let _ = writeln!(out, "release {name} {:?} {:?} {steps:?} {answers:?}", s.phase, s.reason);
        }
        for job in self.server.all(Sort::Job).filter(|job| job.pointer("/status/conditions").is_none()) {
            let _ = writeln!(out, "job {} runs", text(job, "/metadata/name"));
        }
        if let Some(scaler) = self.server.get(Sort::Autoscaler, "web") {
            let (min, notes) = (&scaler["spec"]["minReplicas"], &scaler["metadata"]["annotations"]);
            let _ = writeln!(out, "floor {min} {notes}");
        }
        for object in [Sort::Service, Sort::Route].into_iter().flat_map(|sort| self.server.all(sort)) {
            let (meta, spec) = (&object["metadata"], &object["spec"]);
            let (selector, rules) = (&spec["selector"], &spec["rules"][1]["backendRefs"]);
            let (name, labels, notes) = (&meta["name"], &meta["labels"], &meta["annotations"]);
            let _ = writeln!(out, "{name} {labels} {notes} {selector} {rules}");
        }
        out
    }

    /// How often each object was made and deleted by Belay, and how many pods each ReplicaSet ever had.
    pub fn counts(&self) -> String {
        format!("{:?}\n{:?}", self.oracle.counts, self.oracle.pods)
    }

    /// Panics with everything that broke.
    pub fn assert_sound(&self, what: &str) {
        let breaches = &self.oracle.breaches;
        let shown = &breaches[..breaches.len().min(10)];
        assert!(breaches.is_empty(), "{what}: {} breaches: {shown:#?}\n{}", breaches.len(), self.outcome());
    }

    /// A release with guards that is held goes on looking; nothing else does anything for ever.
    pub fn is_measured(&self) -> bool {
        self.server.releases().iter().any(|r| !is_final(r) && r.spec.analysis.is_some())
    }

    /// Lets an hour go by, in which Belay writes nothing and wants to be woken at no time.
    pub fn assert_quiet(&mut self, what: &str) {
        self.gitops = None;
        self.advance(60);
        if self.is_measured() {
            return;
        }
        let before = self.oracle.writes;
        self.advance(3600);
        assert_eq!(self.oracle.writes, before, "{what}: it goes on writing\n{}", self.outcome());
        for process in &self.processes {
            let (name, reasons) = (&process.name, &process.reasons);
            let what = format!("{what}: {name} wants to wake: {reasons:?}");
            assert_eq!(process.next_timer(), None, "{what}\n{}", self.outcome());
        }
        if self.server.releases().iter().all(is_final) {
            let borrowed = self.oracle.floor.borrowed(&self.server);
            let borrowed = borrowed.or_else(|| self.oracle.shares.borrowed(&self.server));
            assert_eq!(borrowed, None, "{what}: what was borrowed did not go back\n{}", self.outcome());
        }
    }
}
