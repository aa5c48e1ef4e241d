//! What is known of the brake: whether the server offers it, whether it is there, whether it lets us through.

use kube::Client;
use serde_json::Value;

use super::{OperatorError, Options};
use crate::act;
use crate::decide::Brake;

/// What is known of an object of the brake.
pub(super) enum Seen {
    NotYet,
    Absent,
    There(Box<Value>),
}

impl From<Option<Box<Value>>> for Seen {
    fn from(object: Option<Box<Value>>) -> Self {
        object.map_or(Self::Absent, Self::There)
    }
}

/// What is known of the brake.
pub(super) struct BrakeView {
    pub served: bool,
    name: String,
    user: Option<String>,
    pub policy: Seen,
    pub binding: Seen,
}

/// Asks once what the server offers and who we are to it.
pub(super) async fn discover(client: &Client, options: &Options) -> Result<BrakeView, OperatorError> {
    let ask = |error: kube::Error| OperatorError::Discovery(Box::new(error));
    let groups = client.list_api_group_resources("admissionregistration.k8s.io/v1").await.map_err(ask)?;
    let served = groups.resources.iter().any(|r| r.name == "mutatingadmissionpolicies");
    match client.list_api_group_resources("belay.dev/v1alpha1").await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 404 => return Err(OperatorError::NotInstalled),
        Err(error) => return Err(ask(error)),
    }
    Ok(BrakeView {
        served,
        name: options.brake.clone(),
        user: whoami(client).await,
        policy: Seen::NotYet,
        binding: Seen::NotYet,
    })
}

/// The user name that our requests have; admission policies exempt it by name.
async fn whoami(client: &Client) -> Option<String> {
    let body = serde_json::json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let request = http::Request::post("/apis/authentication.k8s.io/v1/selfsubjectreviews")
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(body.to_string().into_bytes())
        .ok()?;
    let answer = tokio::time::timeout(act::DEADLINE, client.request::<Value>(request)).await.ok()?.ok()?;
    answer.pointer("/status/userInfo/username")?.as_str().map(str::to_owned)
}

impl BrakeView {
    /// None until both objects were looked at.
    pub fn judge(&self) -> Option<Brake> {
        if !self.served {
            return Some(Brake::Missing(
                "this API server does not serve MutatingAdmissionPolicy (it needs Kubernetes 1.36)"
                    .to_owned(),
            ));
        }
        let missing = |what: &str| {
            Some(Brake::Missing(format!("the {what} {} does not exist; run belay install", self.name)))
        };
        let policy = match (&self.policy, &self.binding) {
            (Seen::NotYet, _) | (_, Seen::NotYet) => return None,
            (Seen::Absent, _) => return missing("MutatingAdmissionPolicy"),
            (_, Seen::Absent) => return missing("MutatingAdmissionPolicyBinding"),
            (Seen::There(policy), Seen::There(_)) => policy,
        };
        if let Some(user) = &self.user
            && !policy.to_string().contains(user.as_str())
        {
            return Some(Brake::Missing(format!(
                "the policy {} does not exempt this operator ({user}), which could not let a change go; run belay install",
                self.name
            )));
        }
        Some(Brake::Engaged)
    }
}
