//! How many canary pods a step takes and what share they have, by pods or by a router.

use std::net::IpAddr;

use super::capacity::{canary_pods, pods_for, share};
use super::caught;
use super::drive::{Run, count};
use super::effect::{Effect, Expect, Subject};
use super::pass::{Pass, identity};
use super::plan;
use super::reason::Reason;
use super::traffic::{Stand, Traffic};
use crate::api::ReleasePhase;
use crate::api::release::Weight;

impl<'a> Run<'a> {
    /// Canary pods wanted now.
    pub fn wanted(&self) -> i32 {
        if self.caught() {
            return self.canary.map_or(0, |rs| rs.replicas);
        }
        let all = self.workload.replicas;
        let Some(step) = self.release.spec.steps.get(self.index()) else { return all };
        match (&self.release.spec.traffic, step.replicas) {
            (None, _) => canary_pods(all, step.weight),
            (Some(_), Some(replicas)) if step.weight < 100 => replicas.min(all),
            (Some(_), _) if step.weight == 0 => all,
            (Some(_), _) => pods_for(all, step.weight),
        }
    }

    /// The share that the present step asks for, in percent.
    fn asked(&self) -> i32 {
        let last = self.release.spec.steps.last().map_or(0, |s| s.weight);
        self.release.spec.steps.get(self.index()).map_or(last, |s| s.weight)
    }

    /// Addresses of the ready canary pods.
    pub fn ready_addresses(&self, pass: &Pass<'_>) -> Vec<IpAddr> {
        let pods = self.pods(pass).into_iter().filter(|pod| pod.ready && !pod.deleting);
        pods.filter_map(|pod| pod.ip).collect()
    }

    /// Moves the traffic towards what the step asks for: up when all pods for it are ready, down at once when none is.
    /// With `hold` it does not grow. None where weight goes by pods.
    pub fn shift(&mut self, pass: &mut Pass<'a>, hold: bool) -> Option<Stand> {
        let traffic = Traffic::of(pass.obs, self.release)?;
        if self.canary.is_none() || self.caught() {
            return Some(Stand::Waiting("there is no canary yet".to_owned()));
        }
        let (ready, wanted, now) = (self.ready(pass), self.wanted(), traffic.weight());
        let target = if ready == 0 {
            0
        } else if ready >= wanted && !hold {
            self.asked()
        } else {
            now.min(self.asked())
        };
        let stand = traffic.shift(self, pass, target);
        let reached = target == self.asked() && traffic.weight() == target;
        Some(match stand {
            Stand::There if !reached => Stand::Waiting("the canary's pods are not ready".to_owned()),
            stand => stand,
        })
    }

    pub fn step_started(&self) -> Reason {
        let (stable, pods) = (self.workload.replicas, self.wanted());
        Reason::StepStarted {
            step: self.index() + 1,
            of: self.release.spec.steps.len(),
            weight: self.release.spec.steps.get(self.index()).map_or(100, |s| s.weight),
            reachable: if self.release.spec.traffic.is_some() { self.asked() } else { share(stable, pods) },
            pods,
            stable,
        }
    }

    /// Writes down what share is wanted and reached.
    pub fn weigh(&mut self, pass: &Pass<'_>) {
        let (wanted, stable) = (self.wanted(), count(&self.stable_pods(pass)));
        let steps = self.release.spec.steps.len();
        self.working.status.progress = Some(format!("{}/{steps}", (self.index() + 1).min(steps)));
        // Of a change that went past the brake nobody asked for what is out.
        let out = self.caught().then(|| caught::weight(pass, self.workload, self.canary));
        let asked = self.asked();
        let routed = Traffic::of(pass.obs, self.release).map(|traffic| traffic.weight());
        let by_pods = if routed.is_some() { asked } else { share(self.workload.replicas, wanted) };
        self.working.status.weight = Some(Weight {
            desired: out.unwrap_or(asked),
            reachable: out.unwrap_or(by_pods),
            reached: routed.unwrap_or_else(|| share(stable, self.ready(pass))),
            canary_pods: wanted,
            stable_pods: stable,
        });
    }

    /// Brings the number of canary pods to what the step wants.
    pub fn scale(&mut self, pass: &mut Pass<'_>) {
        self.weigh(pass);
        if self.caught() {
            return;
        }
        let wanted = self.wanted();
        let traffic = Traffic::of(pass.obs, self.release);
        if let Some(traffic) = &traffic
            && let Err(reason) = traffic.prepare(pass, self.passed_all(), self.canary)
            && self.canary.is_none()
        {
            self.hold(pass, reason);
            return;
        }
        match self.canary {
            None => self.create(pass, wanted),
            Some(rs) if rs.deleting => {}
            // No more weight on what may have failed meanwhile; less at any time.
            Some(rs) if rs.replicas < wanted && !pass.sees() => {}
            Some(rs) if rs.replicas != wanted => {
                // More weight only after it is written that the step before was passed.
                self.working.record_if_due(pass, self.release);
                if rs.replicas > wanted
                    && let Some(traffic) = &traffic
                {
                    // The weight goes first, and old views of the workload and the step do not count.
                    if !traffic.is_down_to(self.asked(), &mut self.working, pass) {
                        return;
                    }
                    pass.confirm_workload(self.workload);
                    self.working.confirm(pass, self.release);
                }
                pass.push(Effect::ScaleCanary {
                    replica_set: rs.id.clone(),
                    from: rs.replicas,
                    to: wanted,
                    owner_uid: pass.owner_uid(),
                });
            }
            Some(_) => {}
        }
    }

    fn create(&mut self, pass: &mut Pass<'_>, wanted: i32) {
        if pass.remove_leftovers(self.workload, None) {
            return;
        }
        let first = self.release.status.as_ref().is_none_or(|s| s.phase == ReleasePhase::Pending);
        self.working.record_if_due(pass, self.release);
        if !first {
            // It was there before. Was it taken away because the release ended?
            pass.confirm(Subject::Release, identity(&self.release.metadata), Expect::Unchanged);
        }
        pass.push(Effect::CreateCanary {
            object: plan::canary(&pass.obs.rollout, self.release, self.workload, wanted),
        });
        if first {
            let reason = Reason::ReleaseStarted {
                from: self.release.spec.from.revision.clone(),
                to: self.release.spec.to.revision.clone(),
            };
            pass.announce(Some(self.release), "ReleaseStarted", false, "Step1", reason);
        }
    }
}
