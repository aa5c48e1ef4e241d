//! The crash breaker: needs no metrics, looks at the canary's pods as they are.

use jiff::Timestamp;

use super::observation::{Pod, ReplicaSet};
use super::reason::Reason;

/// Reasons of a waiting container that a version does not recover from by itself.
const FATAL_WAITING: [&str; 8] = [
    "CrashLoopBackOff",
    "ImagePullBackOff",
    "ErrImagePull",
    "ErrImageNeverPull",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
];

/// Longest text of Kubernetes that is repeated in a reason.
const DETAIL: usize = 300;

/// What the breaker looks at.
pub(super) struct Canary<'a> {
    /// The canary's ReplicaSet.
    pub replica_set: Option<&'a ReplicaSet>,
    /// The canary's pods.
    pub pods: Vec<&'a Pod>,
    /// The stable pods, to tell a bad version from a bad hour.
    pub stable: Vec<&'a Pod>,
    /// Canary pods wanted.
    pub wanted: i32,
    /// Restarts that are tolerated in all.
    pub max_restarts: i32,
    /// Seconds a pod may take to become ready.
    pub deadline_seconds: i64,
    /// Since when the wanted number is wanted.
    pub since: Option<Timestamp>,
    /// Longest time in seconds that a stable pod was unready in this release.
    pub longest_stable_unready: f64,
    /// Whether what the watches tell is complete. While it is not, the stable pods' share in what happened to all
    /// (a node that could not report, say) may only come later.
    pub sees: bool,
}

/// What the breaker found.
#[derive(Debug, PartialEq)]
pub(super) enum Health {
    /// Nothing is wrong, and when to look again for a deadline.
    Fine(Option<Timestamp>),
    /// The cluster cannot run it: hold, and when to look again.
    Hold(Reason, Option<Timestamp>),
    /// The version fails.
    Failed(Reason),
}

/// Looks at the canary.
pub(super) fn health(canary: &Canary<'_>, now: Timestamp) -> Health {
    let live: Vec<&Pod> = canary.pods.iter().copied().filter(|p| !p.deleting && !p.disrupted).collect();
    if let Some(reason) = live.iter().find_map(|p| waiting_or_killed(p)) {
        return Health::Failed(reason);
    }
    if let Some(reason) = restarts(&live, canary.max_restarts) {
        return Health::Failed(reason);
    }
    if let Some(reason) = lost_readiness(canary, &live, now) {
        return Health::Failed(reason);
    }
    deadline(canary, &live, now)
}

fn waiting_or_killed(pod: &Pod) -> Option<Reason> {
    for container in &pod.containers {
        if let Some((reason, message)) = &container.waiting
            && FATAL_WAITING.contains(&reason.as_str())
        {
            // What ended the container before says more than that it waits.
            let detail = match &container.last_terminated {
                Some((why, code)) if reason == "CrashLoopBackOff" => {
                    format!("container {} ended with {why}, exit code {code}", container.name)
                }
                _ => format!("container {}: {}", container.name, cut(message)),
            };
            return Some(Reason::Crash { cause: reason.clone(), pod: pod.name.clone(), detail });
        }
        for ended in [&container.terminated, &container.last_terminated].into_iter().flatten() {
            if ended.0 == "OOMKilled" {
                return Some(Reason::Crash {
                    cause: "OOMKilled".to_owned(),
                    pod: pod.name.clone(),
                    detail: format!("container {} used more memory than its limit", container.name),
                });
            }
        }
    }
    None
}

fn restarts(live: &[&Pod], tolerated: i32) -> Option<Reason> {
    // A container that just failed counts before its restart is counted.
    let ends = |p: &Pod| -> i32 {
        p.containers
            .iter()
            .map(|c| c.restarts + i32::from(c.terminated.as_ref().is_some_and(|(_, code)| *code != 0)))
            .sum()
    };
    let total: i32 = live.iter().map(|p| ends(p)).sum();
    if total <= tolerated {
        return None;
    }
    let pod = live.iter().max_by_key(|p| (ends(p), std::cmp::Reverse(&p.name)))?;
    let ended = pod.containers.iter().find_map(|c| {
        c.terminated.as_ref().or(c.last_terminated.as_ref()).map(|(why, code)| (&c.name, why, code))
    });
    let detail = match ended {
        Some((name, why, code)) => {
            format!(
                "container {name} ended with {why}, exit code {code}; restarts in all: {total}, tolerated: {tolerated}"
            )
        }
        None => format!("restarts in all: {total}, tolerated: {tolerated}"),
    };
    Some(Reason::Crash { cause: "Restarted".to_owned(), pod: pod.name.clone(), detail })
}

/// Seconds that a pod which was ready has been unready.
pub(super) fn unready_seconds(pod: &Pod, now: Timestamp) -> Option<f64> {
    let (changed, started) = (pod.ready_changed_at?, pod.started_at?);
    // A pod that never was ready has its condition from the first seconds of its life.
    let was_ready = changed.duration_since(started).as_secs_f64() > 2.0;
    (!pod.ready && !pod.deleting && !pod.disrupted && was_ready)
        .then(|| now.duration_since(changed).as_secs_f64().max(0.0))
}

fn lost_readiness(canary: &Canary<'_>, live: &[&Pod], now: Timestamp) -> Option<Reason> {
    if !canary.sees {
        return None;
    }
    let stable_now = canary
        .stable
        .iter()
        .filter_map(|p| unready_seconds(p, now))
        .fold(canary.longest_stable_unready, f64::max);
    live.iter().find_map(|pod| {
        // A pod that started this very moment is judged by the deadline, not here.
        let unready = unready_seconds(pod, now)?;
        (unready >= stable_now && pod.containers.iter().all(|c| c.waiting.is_none())).then(|| Reason::Crash {
            cause: "ReadinessLost".to_owned(),
            pod: pod.name.clone(),
            detail: "it was ready and is not any more, for longer than any stable pod in this release"
                .to_owned(),
        })
    })
}

fn deadline(canary: &Canary<'_>, live: &[&Pod], now: Timestamp) -> Health {
    let ready = i32::try_from(live.iter().filter(|p| p.ready).count()).unwrap_or(i32::MAX);
    if ready >= canary.wanted {
        return Health::Fine(None);
    }
    let unschedulable = live.iter().find_map(|p| p.unschedulable.as_deref());
    let refused = canary.replica_set.and_then(|rs| rs.failure.as_deref());
    // A pod that goes, or whose node is away, is soon replaced; the new one gets its own time.
    let lost = i32::try_from(canary.pods.len() - live.len()).unwrap_or(i32::MAX);
    if refused.is_none() && live.iter().all(|p| p.ready) && ready.saturating_add(lost) >= canary.wanted {
        return Health::Fine(None);
    }
    // Each pod has its own time from its creation; a pod that cannot even be created has it from the step.
    let first = live.iter().filter(|p| !p.ready).filter_map(|p| p.created_at).min().or(canary.since);
    let Some(first) = first else { return Health::Fine(None) };
    let end = first + jiff::SignedDuration::from_secs(canary.deadline_seconds);
    if now >= end {
        let detail = match (unschedulable.or(refused), live.iter().find(|p| !p.ready)) {
            (Some(text), _) => cut(text),
            (None, Some(pod)) => format!("pod {} never became ready", pod.name),
            (None, None) => "its pods were not created".to_owned(),
        };
        return Health::Failed(Reason::ProgressDeadline { seconds: canary.deadline_seconds, detail });
    }
    match unschedulable.or(refused) {
        Some(text) => Health::Hold(Reason::Unschedulable { detail: cut(text) }, Some(end)),
        None => Health::Fine(Some(end)),
    }
}

fn cut(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(DETAIL).collect()
}

#[cfg(test)]
mod tests {
    use super::super::observation::Container;
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).expect("in range")
    }

    fn pod(name: &str, ready: bool, changed: i64) -> Pod {
        Pod {
            name: name.into(),
            ready,
            created_at: Some(at(0)),
            started_at: Some(at(0)),
            ready_changed_at: Some(at(changed)),
            containers: vec![Container { name: "app".into(), ..Container::default() }],
            ..Pod::default()
        }
    }

    fn canary<'a>(pods: &'a [Pod], stable: &'a [Pod]) -> Canary<'a> {
        Canary {
            replica_set: None,
            pods: pods.iter().collect(),
            stable: stable.iter().collect(),
            wanted: i32::try_from(pods.len()).expect("few"),
            max_restarts: 0,
            deadline_seconds: 600,
            since: Some(at(0)),
            longest_stable_unready: 0.0,
            sees: true,
        }
    }

    fn look(pods: &[Pod], stable: &[Pod], now: i64) -> Health {
        health(&canary(pods, stable), at(now))
    }

    fn cause(health: Health) -> String {
        match health {
            Health::Failed(Reason::Crash { cause, .. }) => cause,
            other => panic!("not a crash: {other:?}"),
        }
    }

    #[test]
    fn every_fatal_waiting_reason_fails_at_once() {
        for reason in FATAL_WAITING {
            let mut p = pod("a", false, 0);
            p.containers[0].waiting = Some((reason.into(), "why".into()));
            assert_eq!(cause(look(&[p], &[], 1)), reason);
        }
        let mut creating = pod("a", false, 0);
        creating.containers[0].waiting = Some(("ContainerCreating".into(), String::new()));
        assert_eq!(look(&[creating], &[], 1), Health::Fine(Some(at(600))));
    }

    #[test]
    fn an_exit_counts_before_its_restart_does() {
        let mut p = pod("a", false, 0);
        p.containers[0].terminated = Some(("Error".into(), 1));
        assert_eq!(cause(look(&[p.clone()], &[], 1)), "Restarted");
        p.containers[0].terminated = Some(("Completed".into(), 0));
        assert_eq!(look(&[p.clone()], &[], 1), Health::Fine(Some(at(600))));
        p.containers[0].restarts = 1;
        assert_eq!(cause(look(&[p], &[], 1)), "Restarted");
    }

    #[test]
    fn out_of_memory_is_named_as_such() {
        let mut p = pod("a", true, 3);
        p.containers[0].last_terminated = Some(("OOMKilled".into(), 137));
        p.containers[0].restarts = 1;
        assert_eq!(cause(look(&[p], &[], 9)), "OOMKilled");
    }

    #[test]
    fn an_evicted_pod_is_not_the_versions_fault() {
        let mut p = pod("a", false, 0);
        p.disrupted = true;
        p.containers[0].terminated = Some(("Error".into(), 137));
        // However long the step is: its successor has its own time.
        assert_eq!(look(&[p], &[], 1000), Health::Fine(None));
    }

    #[test]
    fn readiness_lost_with_the_node_is_not_the_versions_fault() {
        let mut p = pod("a", false, 30);
        assert_eq!(cause(look(&[p.clone()], &[pod("s", true, 3)], 1000)), "ReadinessLost");
        p.disrupted = true;
        assert_eq!(look(&[p.clone()], &[pod("s", true, 3)], 1000), Health::Fine(None));
        assert_eq!(
            unready_seconds(&p, at(1000)),
            None,
            "nor a measure of how long stable pods may be unready"
        );
    }

    #[test]
    fn a_pod_that_went_does_not_excuse_one_that_cannot_be_made() {
        let mut gone = pod("a", false, 0);
        gone.disrupted = true;
        let refused = ReplicaSet { failure: Some("exceeded quota".into()), ..ReplicaSet::default() };
        let canary = Canary { replica_set: Some(&refused), ..canary(std::slice::from_ref(&gone), &[]) };
        assert!(matches!(health(&canary, at(599)), Health::Hold(Reason::Unschedulable { .. }, _)));
        assert!(matches!(health(&canary, at(600)), Health::Failed(Reason::ProgressDeadline { .. })));
    }

    #[test]
    fn readiness_lost_fails_unless_stable_pods_lose_it_too() {
        let canary = pod("a", false, 30);
        assert_eq!(cause(look(std::slice::from_ref(&canary), &[pod("s", true, 3)], 31)), "ReadinessLost");
        let stable = pod("s", false, 25);
        assert!(matches!(look(&[canary], &[stable], 31), Health::Fine(_)));
        // Never ready yet: the deadline judges.
        assert!(matches!(look(&[pod("a", false, 1)], &[], 31), Health::Fine(_)));
    }

    #[test]
    fn readiness_lost_is_judged_only_when_the_stable_pods_are_seen_too() {
        let pods = [pod("a", false, 30)];
        let look = |sees| health(&Canary { sees, ..canary(&pods, &[]) }, at(31));
        assert!(matches!(look(false), Health::Fine(_)));
        assert_eq!(cause(look(true)), "ReadinessLost");
    }

    #[test]
    fn unschedulable_holds_until_the_deadline() {
        let mut p = pod("a", false, 0);
        p.started_at = None;
        p.unschedulable = Some("0/3 nodes are available".into());
        assert!(
            matches!(look(std::slice::from_ref(&p), &[], 599), Health::Hold(Reason::Unschedulable { .. }, Some(t)) if t == at(600))
        );
        assert!(matches!(look(&[p], &[], 600), Health::Failed(Reason::ProgressDeadline { .. })));
    }
}
