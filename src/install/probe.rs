//! Whether brake and stamp are in force, asked of the API server itself.
//!
//! Purpose: neither a policy nor a webhook says anything about itself, so each is tried out: a write that it must
//! change, sent as a dry run. `belay install` waits for it, `belay doctor` reports it.
//! May touch: a Kubernetes client; one Deployment of its own without pods. Must never: touch another object.

use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::Duration;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::apply::{EFFECT_DEADLINE, POLL, api_of, deadline, is_not_found};
use super::{Error, FIELD_MANAGER, Options, labels, reference};
use crate::api::release::{Command, PlannedStep, Verb, WorkloadIdentity};
use crate::api::rollout::{Revision, Rollback};
use crate::api::{self, BrakeForm, Release, ReleaseSpec};

/// The Deployment on which the brake is tried out: no replicas, there for a moment only.
const PROBE: &str = "belay-brake-probe";

/// Whether brake or stamp did to a write what it must.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Engaged {
    /// It did.
    Yes,
    /// The write went through as it was sent: policy or webhook is not there or not yet loaded.
    No,
    /// The write was refused, as by a policy whose expressions fail or a webhook that does not answer; with the
    /// server's words.
    Refused(String),
}

/// Waits until brake and stamp are in force in the API server that answers, in the form that was chosen: the other
/// one may be there, too, and is to go. Needs the right to create and delete a Deployment in the operator's namespace,
/// and to create Releases.
///
/// # Errors
/// Fails when they are not within a minute, or when the server does not answer.
pub async fn wait_for_brake(client: &Client, options: &Options) -> Result<(), Error> {
    let started = Instant::now();
    let namespace = &options.namespace;
    loop {
        let brake = try_brake(client, namespace, Some(options.brake)).await?;
        let (policy, found) = match brake {
            Engaged::Yes => {
                (super::policies::STAMP, try_stamp(client, namespace, Some(options.brake)).await?)
            }
            other => (api::BRAKE, other),
        };
        let state = match found {
            Engaged::Yes => return Ok(()),
            Engaged::No => "writes pass it untouched".to_owned(),
            Engaged::Refused(message) => message,
        };
        if started.elapsed() > EFFECT_DEADLINE {
            let object = match options.brake {
                BrakeForm::Policy => format!("MutatingAdmissionPolicy/{policy}"),
                BrakeForm::Webhook => format!("MutatingWebhookConfiguration/{}", api::BRAKE_WEBHOOK),
            };
            return Err(Error::NotInEffect { object, state, seconds: EFFECT_DEADLINE.as_secs() });
        }
        sleep(POLL).await;
    }
}

/// Tries the brake: changes the template of a governed Deployment in a dry run. The Deployment is our own, has
/// no replicas, and is deleted afterwards.
///
/// # Errors
/// Fails when the Deployment cannot be made, or the server does not answer.
pub async fn brake_engaged(client: &Client, namespace: &str) -> Result<Engaged, Error> {
    try_brake(client, namespace, None).await
}

/// The annotation of a write that asks who judges it. With [`ASK_WEBHOOK`] the webhook is called even if it has nothing
/// to do; whenever it is called, it leaves [`ANSWERED`].
pub const ASKED: &str = "belay.dev/asked";
/// See [`ASKED`].
pub const ASK_WEBHOOK: &str = "webhook";
/// See [`ASKED`].
pub const ANSWERED: &str = "answered";

/// The condition by which the API server calls the webhook in any case.
pub(super) fn asked_cel() -> String {
    let annotations = "object.metadata.annotations";
    format!(
        "(has({annotations}) && '{ASKED}' in {annotations} && {annotations}['{ASKED}'] == '{ASK_WEBHOOK}')"
    )
}

/// Writes the question into a probe. Of the policy it is asked by not calling the webhook, which has nothing to do
/// where a policy was faster.
fn ask(mut probe: Value, form: Option<BrakeForm>) -> Value {
    let asked = match form {
        Some(BrakeForm::Webhook) => ASK_WEBHOOK,
        Some(BrakeForm::Policy) => "policy",
        None => return probe,
    };
    probe["metadata"]["annotations"] = json!({ASKED: asked});
    probe
}

/// Whether the one that was asked has done it.
fn is_by(object: &DynamicObject, form: Option<BrakeForm>) -> bool {
    let answered =
        object.metadata.annotations.as_ref().and_then(|a| a.get(ASKED)).is_some_and(|a| a == ANSWERED);
    form.is_none_or(|form| answered == (form == BrakeForm::Webhook))
}

async fn try_brake(client: &Client, namespace: &str, form: Option<BrakeForm>) -> Result<Engaged, Error> {
    let deployment = ask(probe_deployment(namespace), form);
    let (api, name) = api_of(client, &deployment)?;
    let what = reference(&deployment);
    let apply = PatchParams::apply(FIELD_MANAGER).force();
    deadline("apply", &what, api.patch(&name, &apply, &Patch::Apply(&deployment))).await?;
    let change = json!({"spec": {"template": {"metadata": {"annotations": {"belay.dev/probe": "changed"}}}}});
    let params = PatchParams { dry_run: true, ..PatchParams::default() };
    let answer = deadline("change", &what, api.patch(&name, &params, &Patch::Merge(&change))).await;
    let deleted = deadline("delete", &what, api.delete(&name, &DeleteParams::background())).await;
    let engaged = judged(answer, |object| object.data["spec"]["paused"] == true && is_by(object, form))?;
    match deleted {
        // Somebody who probes at the same moment may have been faster.
        Err(Error::Request { source, .. }) if is_not_found(&source) => Ok(engaged),
        deleted => deleted.map(|_| engaged),
    }
}

/// Tries the stamp: creates a Release with a command of somebody else's in a dry run.
///
/// # Errors
/// Fails when the server does not answer.
pub async fn stamp_engaged(client: &Client, namespace: &str) -> Result<Engaged, Error> {
    try_stamp(client, namespace, None).await
}

async fn try_stamp(client: &Client, namespace: &str, form: Option<BrakeForm>) -> Result<Engaged, Error> {
    let release = ask(probe_release(namespace), form);
    let (api, _): (Api<DynamicObject>, _) = api_of(client, &release)?;
    let what = reference(&release);
    let object: DynamicObject =
        serde_json::from_value(release.clone()).map_err(|_| Error::NotAnObject { object: what.clone() })?;
    let params = PostParams { dry_run: true, ..PostParams::default() };
    let answer = deadline("create", &what, api.create(&params, &object)).await;
    judged(answer, |created| {
        let by = &created.data["spec"]["commands"][0]["by"];
        by.as_str().is_some_and(|by| by != NOBODY) && is_by(created, form)
    })
}

/// An author whom no request has.
const NOBODY: &str = "belay.dev/nobody";

fn judged(
    answer: Result<DynamicObject, Error>,
    engaged: impl FnOnce(&DynamicObject) -> bool,
) -> Result<Engaged, Error> {
    match answer {
        Ok(object) if engaged(&object) => Ok(Engaged::Yes),
        Ok(_) => Ok(Engaged::No),
        Err(Error::Request { source, .. }) if is_not_yet(&source) => Ok(Engaged::Refused(source.to_string())),
        Err(error) => Err(error),
    }
}

/// Refusals that pass when the API server has learnt of a new kind or a new policy: it answers 503 to writes that a
/// policy covers while the policy's machinery does not know the kind yet.
fn is_not_yet(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 404 | 422 | 429 | 500 | 503))
}

fn probe_deployment(namespace: &str) -> Value {
    let mut labels = labels();
    labels[api::ROLLOUT_LABEL] = PROBE.into();
    let selector = json!({"belay.dev/probe": "brake"});
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": PROBE, "namespace": namespace, "labels": labels},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": selector},
            "template": {
                "metadata": {"labels": selector},
                "spec": {
                    "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
                    "containers": [{
                        "name": "none",
                        "image": "node.local/none",
                        "securityContext": {
                            "allowPrivilegeEscalation": false,
                            "capabilities": {"drop": ["ALL"]},
                        },
                    }],
                },
            },
        },
    })
}

/// A Release that the schema takes; written with the type, so that it cannot fall behind.
fn probe_release(namespace: &str) -> Value {
    let revision =
        |name: &str| Revision { revision: name.to_owned(), replica_set: name.to_owned(), images: Vec::new() };
    let moment = Duration::from(std::time::Duration::from_secs(1));
    let command =
        Command { verb: Verb::Abort, step: None, full: false, reason: None, by: Some(NOBODY.to_owned()) };
    let spec = ReleaseSpec {
        rollout: "probe".to_owned(),
        workload: WorkloadIdentity {
            kind: "Deployment".to_owned(),
            name: PROBE.to_owned(),
            uid: PROBE.to_owned(),
        },
        replicas: 1,
        from: revision("before"),
        to: revision("after"),
        attempt: 1,
        steps: vec![PlannedStep {
            weight: 1,
            replicas: None,
            min_duration: moment,
            max_duration: moment,
            pause: false,
            bake: false,
            matches: Vec::new(),
            mirror: None,
        }],
        traffic: None,
        analysis: None,
        rollback: Rollback::default(),
        progress_deadline: moment,
        planned_looks: 12,
        unbraked: false,
        commands: vec![command],
    };
    let mut release = Release::new("belay-stamp-probe", spec);
    release.metadata.namespace = Some(namespace.to_owned());
    json!(release)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_is_a_release_that_the_schema_takes() {
        let crd = super::super::crd_of("Release").unwrap();
        assert_eq!(api::validate::validate(&crd, &probe_release("here")), []);
    }
}
