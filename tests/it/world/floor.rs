//! The floor of an autoscaler, which a release borrows: whether it does what it is borrowed for, and goes back.

use belay::api::OPERATOR_USER;
use serde_json::Value;

use super::deployments::int;
use super::oracle::{is_final, owner_kind};
use super::server::{Server, Sort, Write};

/// Where Belay notes what the floor was, and what it made of it.
const HELD: &str = "belay.dev/held-min-replicas";

/// What is known of it.
#[derive(Clone, Debug, Default)]
pub struct Floor {
    /// What it may be when nothing is borrowed: what somebody else set last. If that is what Belay holds it at, also
    /// what it was before, for nobody can tell the two apart.
    wanted: Vec<Value>,
    /// Somebody else changed it.
    changed: bool,
}

impl Floor {
    /// As it is before any release.
    pub fn begin(server: &Server) -> Self {
        let wanted = server.get(Sort::Autoscaler, "web").map(|a| of(a));
        Self { wanted: wanted.into_iter().collect(), changed: false }
    }

    /// Takes in a write of the autoscaler.
    pub fn written(&mut self, write: &Write, autoscaler: &Value) {
        let wanted = of(autoscaler);
        if write.by == OPERATOR_USER || write.before.as_ref().is_some_and(|b| of(b) == wanted) {
            return;
        }
        let held = autoscaler["metadata"]["annotations"][HELD].as_str().and_then(|held| held.split_once('/'));
        let before = held.filter(|(_, floor)| floor.parse::<i64>().ok() == wanted.as_i64());
        let before = before.map(|(before, _)| before.parse::<i64>().map_or(Value::Null, Value::from));
        self.wanted = before.into_iter().chain([wanted]).collect();
        self.changed = true;
    }

    /// Line 1: while a canary takes load off stable's pods, the autoscaler leaves as many as there were at the start.
    /// What is wrong with a write of the workload.
    pub fn lost(&self, server: &Server, write: &Write) -> Option<String> {
        let (before, after) = (write.before.as_ref()?, write.after.as_ref()?);
        let (was, is) = (int(before, "/spec/replicas"), int(after, "/spec/replicas"));
        if self.changed || write.by != "horizontal-pod-autoscaler" || is >= was {
            return None;
        }
        let mut canaries = server.all(Sort::ReplicaSet).filter(|rs| owner_kind(rs) == "Rollout");
        if !canaries.any(|rs| int(rs, "/spec/replicas") > 0) {
            return None;
        }
        let running = server.releases().into_iter().find(|r| !is_final(r))?;
        let start = i64::from(running.spec.replicas);
        (is < start)
            .then(|| format!("the autoscaler left {is} pods of the {start} that a release started with"))
    }

    /// Line 9: when no release runs, it is what others want. What is wrong with it.
    pub fn borrowed(&self, server: &Server) -> Option<String> {
        let autoscaler = server.get(Sort::Autoscaler, "web")?;
        let held = autoscaler["metadata"]["annotations"].get(HELD);
        let back = held.is_none() && self.wanted.contains(&of(autoscaler));
        (!back).then(|| format!("floor {} held {held:?}, not {:?}", of(autoscaler), self.wanted))
    }
}

fn of(autoscaler: &Value) -> Value {
    autoscaler["spec"]["minReplicas"].clone()
}
