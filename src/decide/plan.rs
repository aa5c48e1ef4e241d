//! From a Rollout's spec to the resolved, immutable plan of one release.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::core::Duration;
use serde_json::{Value, json};

use super::observation::{Observation, Workload};
use super::reason::Reason;
use crate::analysis::{self, with_templates};
use crate::api::release::{PlannedRoute, PlannedStep, PlannedTraffic, WorkloadIdentity};
use crate::api::rollout::{Revision, RolloutSpec};
use crate::api::strategy::{BlueGreen, Step, Strategy};
use crate::api::{self, Release, ReleaseSpec, Rollout};

/// Default `minDuration` of a step: 1 minute.
const MIN_SECONDS: u64 = 60;
/// Default `maxDuration` of a step: 30 minutes.
const MAX_SECONDS: u64 = 30 * 60;
/// Default time between two looks: 5 seconds.
pub const INTERVAL_SECONDS: u64 = 5;
/// Default steps in percent.
const WEIGHTS: [i32; 3] = [5, 25, 50];
/// Default bake of a blue-green release: 10 minutes.
const BAKE_SECONDS: u64 = 10 * 60;
/// Default number of finished releases that are kept.
const HISTORY: i32 = 10;

/// Seconds of a duration; a negative one, which the API server refuses, counts as none.
pub fn secs(duration: &Duration) -> f64 {
    if duration.is_negative() { 0.0 } else { std::time::Duration::from(*duration).as_secs_f64() }
}

fn from_secs(seconds: u64) -> Duration {
    std::time::Duration::from_secs(seconds).into()
}

/// How many finished releases are kept.
pub(super) fn history_limit(spec: &RolloutSpec) -> usize {
    usize::try_from(spec.history_limit.unwrap_or(HISTORY).max(1)).unwrap_or(1)
}

/// The steps with every default filled in.
pub fn steps(spec: &RolloutSpec) -> Vec<PlannedStep> {
    let strategy = spec.strategy.clone().unwrap_or_default();
    if let Some(blue_green) = &strategy.blue_green {
        return switch(blue_green);
    }
    let canary = strategy.canary.unwrap_or_default();
    let mut steps: Vec<PlannedStep> = if canary.steps.is_empty() {
        WEIGHTS.iter().map(|w| planned(&default_step(*w))).collect()
    } else {
        canary.steps.iter().map(planned).collect()
    };
    if canary.traffic.is_some() {
        steps.push(bake(canary.bake.unwrap_or_else(|| from_secs(0))));
    }
    steps
}

fn default_step(weight: i32) -> Step {
    Step {
        weight,
        replicas: None,
        min_duration: None,
        max_duration: None,
        pause: false,
        matches: Vec::new(),
        mirror: None,
    }
}

/// The last step with traffic: all of it, and the old version stands by.
fn bake(duration: Duration) -> PlannedStep {
    PlannedStep {
        weight: 100,
        replicas: None,
        min_duration: duration,
        max_duration: duration,
        pause: false,
        bake: true,
        matches: Vec::new(),
        mirror: None,
    }
}

/// Blue-green: a look at the new version without users, then all of them.
fn switch(blue_green: &BlueGreen) -> Vec<PlannedStep> {
    let preview = blue_green.preview.unwrap_or_else(|| from_secs(0));
    let look = PlannedStep {
        weight: 0,
        replicas: blue_green.preview_replicas,
        min_duration: preview,
        max_duration: preview,
        pause: blue_green.pause_before_switch,
        bake: false,
        matches: Vec::new(),
        mirror: None,
    };
    let mut bake = bake(blue_green.bake.unwrap_or_else(|| from_secs(BAKE_SECONDS)));
    // No step before it compares the versions: the proof, where there are guards, comes here.
    if secs(&bake.max_duration) < MAX_SECONDS as f64 {
        bake.max_duration = from_secs(MAX_SECONDS);
    }
    vec![look, bake]
}

/// The Service that serves the workload, where the strategy names one.
pub(super) fn service_of(strategy: &Strategy) -> Option<String> {
    let active = strategy.blue_green.as_ref().map(|b| b.active_service.clone());
    active.or_else(|| strategy.canary.as_ref().and_then(|c| c.service.clone()))
}

/// The name of the Service that Belay makes for the canary.
pub(super) fn canary_service(service: &str) -> String {
    format!("{service}-canary")
}

/// What splits the traffic, if it does not go by pods.
pub fn traffic(spec: &RolloutSpec, namespace: &str) -> Option<PlannedTraffic> {
    let strategy = spec.strategy.as_ref()?;
    let written = match (&strategy.blue_green, &strategy.canary) {
        (Some(blue_green), _) => blue_green.traffic.as_ref(),
        (None, canary) => Some(canary.as_ref()?.traffic.as_ref()?),
    };
    let routes: Vec<PlannedRoute> = written
        .iter()
        .flat_map(|traffic| traffic.routes())
        .map(|(router, route)| PlannedRoute {
            router,
            namespace: route.namespace.clone().unwrap_or_else(|| namespace.to_owned()),
            name: route.name.clone(),
        })
        .collect();
    let service = service_of(strategy)?;
    let preview = strategy.blue_green.as_ref().and_then(|b| b.preview_service.clone());
    let own = (!routes.is_empty()).then(|| canary_service(&service));
    Some(PlannedTraffic { preview: preview.is_some(), canary_service: preview.or(own), service, routes })
}

fn planned(step: &Step) -> PlannedStep {
    let min = step.min_duration.unwrap_or_else(|| match &step.max_duration {
        // A step that may last 20 s at most lasts no longer at least.
        Some(max) if secs(max) < MIN_SECONDS as f64 => *max,
        _ => from_secs(MIN_SECONDS),
    });
    let max = step
        .max_duration
        .unwrap_or_else(|| if secs(&min) > MAX_SECONDS as f64 { min } else { from_secs(MAX_SECONDS) });
    PlannedStep {
        weight: step.weight,
        replicas: step.replicas,
        min_duration: min,
        max_duration: max,
        pause: step.pause,
        bake: false,
        matches: step.matches.clone(),
        mirror: step.mirror,
    }
}

/// Looks that the evidence is planned for: the horizon over the interval, at least 12.
pub fn planned_looks(steps: &[PlannedStep], interval_seconds: f64) -> u32 {
    let horizon: f64 = steps.iter().map(|s| secs(&s.max_duration)).sum();
    let looks = (horizon / interval_seconds.max(1.0)).ceil().clamp(12.0, 1_000_000.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 12..=1e6")]
    {
        looks as u32
    }
}

/// The name of a Release.
pub(super) fn release_name(rollout: &str, revision: &str, attempt: i32) -> String {
    if attempt > 1 { format!("{rollout}-{revision}-{attempt}") } else { format!("{rollout}-{revision}") }
}

/// A change that is out already, past the brake.
pub(super) struct Out {
    /// The workload's own ReplicaSet of it.
    pub replica_set: String,
    /// Its share of the workload's pods in percent.
    pub share: i32,
}

/// The Release that brings the workload's present template live, from the first step or from what is out.
pub(super) fn release(
    observation: &Observation,
    workload: &Workload,
    stable: &Revision,
    attempt: i32,
    out: Option<&Out>,
) -> Result<Release, Reason> {
    let rollout = &observation.rollout;
    let spec = &rollout.spec;
    let mut steps = steps(spec);
    if let Some(out) = out {
        // It is watched where it was caught, for as long as the first step would have watched it.
        steps.truncate(1);
        for step in &mut steps {
            step.weight = out.share.clamp(1, 100);
        }
    }
    let interval =
        spec.analysis.as_ref().and_then(|a| a.interval.as_ref()).map_or(INTERVAL_SECONDS as f64, secs);
    let planned_looks = planned_looks(&steps, interval);
    let invalid = |detail| Reason::InvalidPlan { detail };
    let analysis = spec.analysis.as_ref().map(|written| with_templates(written, &observation.templates));
    let analysis = analysis.transpose().map_err(|error| invalid(error.to_string()))?;
    if let Some(analysis) = &analysis {
        analysis::Plan::resolve(analysis, planned_looks).map_err(|error| invalid(error.in_full()))?;
    }
    let namespace = rollout.metadata.namespace.as_deref().unwrap_or_default();
    // What went past the brake is out by pods.
    let traffic = traffic(spec, namespace).filter(|_| out.is_none());
    if let Some(detail) = traffic.as_ref().and_then(|plan| super::traffic::refuse(observation, plan, &steps))
    {
        return Err(invalid(detail));
    }
    let deadline = spec.progress_deadline.unwrap_or_else(|| {
        from_secs(u64::try_from(workload.progress_deadline_seconds.clamp(1, 86_400 * 7)).unwrap_or(600))
    });
    let rollout_name = rollout.metadata.name.clone().unwrap_or_default();
    Ok(Release {
        metadata: ObjectMeta {
            name: Some(release_name(&rollout_name, &workload.revision, attempt)),
            namespace: rollout.metadata.namespace.clone(),
            labels: Some([(api::ROLLOUT_LABEL.to_owned(), rollout_name.clone())].into()),
            owner_references: Some(vec![owner(rollout)]),
            ..ObjectMeta::default()
        },
        spec: ReleaseSpec {
            rollout: rollout_name,
            workload: WorkloadIdentity {
                kind: workload.kind.as_str().to_owned(),
                name: workload.id.name.clone(),
                uid: workload.id.uid.clone(),
            },
            replicas: workload.replicas,
            from: stable.clone(),
            to: Revision {
                revision: workload.revision.clone(),
                replica_set: out.map_or_else(
                    || format!("{}-{}", workload.id.name, workload.revision),
                    |out| out.replica_set.clone(),
                ),
                images: workload.images(),
            },
            attempt,
            steps,
            traffic,
            analysis,
            rollback: spec.rollback.clone().unwrap_or_default(),
            progress_deadline: deadline,
            planned_looks,
            unbraked: out.is_some(),
            commands: Vec::new(),
        },
        status: None,
    })
}

/// The Rollout as the controller of what Belay makes for it.
pub(super) fn owner(rollout: &Rollout) -> OwnerReference {
    OwnerReference {
        api_version: format!("{}/{}", api::GROUP, api::VERSION),
        kind: "Rollout".to_owned(),
        name: rollout.metadata.name.clone().unwrap_or_default(),
        uid: rollout.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The canary's ReplicaSet: the workload's template as raw JSON, so that fields of a newer API survive. Its
/// controller is the Rollout, so the Deployment controller passes it by.
pub(super) fn canary(rollout: &Rollout, release: &Release, workload: &Workload, replicas: i32) -> Value {
    let hash = &release.spec.to.revision;
    let mut template = workload.template.clone();
    let metadata = child(&mut template, "metadata");
    child(metadata, "labels")[api::POD_TEMPLATE_HASH] = json!(hash);
    let labels = template["metadata"]["labels"].clone();
    let mut selector = workload.selector.clone();
    child(&mut selector, "matchLabels")[api::POD_TEMPLATE_HASH] = json!(hash);
    json!({
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": release.spec.to.replica_set,
            "namespace": workload.id.namespace,
            "labels": labels,
            "annotations": {
                api::RELEASE_ANNOTATION: release.metadata.name.clone().unwrap_or_default(),
                api::DESIRED_REPLICAS_ANNOTATION: replicas.to_string(),
            },
            "ownerReferences": [owner(rollout)],
        },
        "spec": {
            "replicas": replicas,
            "minReadySeconds": workload.min_ready_seconds,
            "selector": selector,
            "template": template,
        },
    })
}

/// The object under a key, made if it is absent or null.
fn child<'a>(value: &'a mut Value, key: &str) -> &'a mut Value {
    if !value.is_object() {
        *value = json!({});
    }
    let slot = &mut value[key];
    if !slot.is_object() {
        *slot = json!({});
    }
    slot
}
