//! What is known of the brake: whether the server offers it, whether it is there, whether it lets us through.

use kube::Client;
use serde_json::Value;

use super::{OperatorError, Options};
use crate::act;
use crate::api::{self, BrakeForm};
use crate::decide::Brake;
use crate::observe::Part;

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
    /// Whether the API server serves policies.
    served: bool,
    name: String,
    webhook_name: String,
    /// Whether the webhook is looked at: where it may be the brake.
    webhook_watched: bool,
    user: Option<String>,
    policy: Seen,
    binding: Seen,
    webhook: Seen,
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
        webhook_name: options.brake_webhook.clone(),
        webhook_watched: !served || options.webhook.is_some(),
        user: whoami(client).await,
        policy: Seen::NotYet,
        binding: Seen::NotYet,
        webhook: Seen::NotYet,
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
    /// The objects to watch, by part and name.
    pub fn parts(&self) -> Vec<(Part, String)> {
        let mut parts = Vec::new();
        if self.served {
            parts.extend([(Part::Policy, self.name.clone()), (Part::Binding, self.name.clone())]);
        }
        if self.webhook_watched {
            parts.push((Part::Webhook, self.webhook_name.clone()));
        }
        parts
    }

    /// Whose writes are not braked: ours.
    pub fn user(&self) -> &str {
        self.user.as_deref().unwrap_or(api::OPERATOR_USER)
    }

    /// Learns of an object.
    pub fn set(&mut self, part: Part, object: Option<Box<Value>>) {
        let seen = match part {
            Part::Policy => &mut self.policy,
            Part::Binding => &mut self.binding,
            Part::Webhook => &mut self.webhook,
        };
        *seen = object.into();
    }

    /// None until all objects were looked at. Of two forms the policy counts: it needs no operator.
    pub fn judge(&self) -> Option<Brake> {
        let policy = if self.served { self.judge_policy()? } else { Err(NOT_SERVED.to_owned()) };
        let webhook = if self.webhook_watched { Some(self.judge_webhook()?) } else { None };
        Some(match (policy, webhook) {
            (Ok(()), _) => Brake::Engaged(BrakeForm::Policy),
            (Err(_), Some(Ok(()))) => Brake::Engaged(BrakeForm::Webhook),
            // What is there and does not work tells more than what is not there.
            (Err(_), Some(Err(why))) if matches!(self.webhook, Seen::There(_)) => {
                Brake::Missing(BrakeForm::Webhook, why)
            }
            (Err(why), _) if self.served => Brake::Missing(BrakeForm::Policy, why),
            (Err(why), Some(Err(webhook))) => {
                Brake::Missing(BrakeForm::Webhook, format!("{why}, and {webhook}"))
            }
            (Err(why), None) => Brake::Missing(BrakeForm::Policy, why),
        })
    }

    fn judge_policy(&self) -> Option<Result<(), String>> {
        let missing =
            |what: &str| Some(Err(format!("the {what} {} does not exist; run belay install", self.name)));
        let policy = match (&self.policy, &self.binding) {
            (Seen::NotYet, _) | (_, Seen::NotYet) => return None,
            (Seen::Absent, _) => return missing("MutatingAdmissionPolicy"),
            (_, Seen::Absent) => return missing("MutatingAdmissionPolicyBinding"),
            (Seen::There(policy), Seen::There(_)) => policy,
        };
        Some(self.exempts(policy, "policy", &self.name))
    }

    fn judge_webhook(&self) -> Option<Result<(), String>> {
        let name = &self.webhook_name;
        let configuration = match &self.webhook {
            Seen::NotYet => return None,
            Seen::Absent => {
                return Some(Err(format!(
                    "the MutatingWebhookConfiguration {name} does not exist; run belay install"
                )));
            }
            Seen::There(configuration) => configuration,
        };
        let brake = configuration["webhooks"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|hook| hook["name"].as_str().is_some_and(|n| n.ends_with(api::BRAKE)));
        Some(match brake {
            None => Err(format!("the webhook configuration {name} holds no brake; run belay install")),
            Some(brake) if brake["failurePolicy"] != "Fail" => Err(format!(
                "the webhook {name} lets changes pass while no operator answers (failurePolicy); run belay install"
            )),
            Some(brake) if !brake["clientConfig"]["caBundle"].is_string() => Err(format!(
                "the webhook {name} does not know whom to trust yet, so that changes are refused; the operator writes \
                 it, see its log"
            )),
            Some(brake) => self.exempts(brake, "webhook", name),
        })
    }

    /// Its own writes must pass, else no change could be let go.
    fn exempts(&self, brake: &Value, what: &str, name: &str) -> Result<(), String> {
        match &self.user {
            Some(user) if !brake.to_string().contains(user.as_str()) => Err(format!(
                "the {what} {name} does not exempt this operator ({user}), which could not let a change go; run belay install"
            )),
            _ => Ok(()),
        }
    }
}

const NOT_SERVED: &str = "this API server does not serve MutatingAdmissionPolicy (Kubernetes 1.36 does)";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::install;

    const POLICY: Brake = Brake::Engaged(BrakeForm::Policy);
    const WEBHOOK: Brake = Brake::Engaged(BrakeForm::Webhook);

    fn view(served: bool, webhook_watched: bool) -> BrakeView {
        BrakeView {
            served,
            name: api::BRAKE.to_owned(),
            webhook_name: api::BRAKE_WEBHOOK.to_owned(),
            webhook_watched,
            user: Some(api::OPERATOR_USER.to_owned()),
            policy: Seen::NotYet,
            binding: Seen::NotYet,
            webhook: Seen::NotYet,
        }
    }

    fn installed(form: BrakeForm, kind: &str) -> Option<Box<Value>> {
        let options = install::Options { brake: form, ..install::Options::default() };
        install::objects(&options).into_iter().find(|o| o["kind"] == kind).map(Box::new)
    }

    fn policy(view: &mut BrakeView) {
        view.set(Part::Policy, installed(BrakeForm::Policy, "MutatingAdmissionPolicy"));
        view.set(Part::Binding, installed(BrakeForm::Policy, "MutatingAdmissionPolicyBinding"));
    }

    /// As it is installed, with the authority that the operator writes.
    fn webhook() -> Value {
        let mut webhook = *installed(BrakeForm::Webhook, "MutatingWebhookConfiguration").unwrap();
        webhook["webhooks"][0]["clientConfig"]["caBundle"] = "QQ==".into();
        webhook
    }

    fn missing(brake: Option<Brake>) -> (BrakeForm, String) {
        match brake {
            Some(Brake::Missing(form, why)) => (form, why),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn nothing_is_said_before_all_was_seen() {
        let mut view = view(true, true);
        assert_eq!(view.judge(), None);
        policy(&mut view);
        assert_eq!(view.judge(), None);
        view.set(Part::Webhook, None);
        assert_eq!(view.judge(), Some(POLICY));
    }

    #[test]
    fn either_form_is_enough_and_the_policy_is_told_of_both() {
        let mut both = view(true, true);
        policy(&mut both);
        both.set(Part::Webhook, Some(Box::new(webhook())));
        assert_eq!(both.judge(), Some(POLICY));
        both.set(Part::Binding, None);
        assert_eq!(both.judge(), Some(WEBHOOK));
        let mut old = view(false, true);
        old.set(Part::Webhook, Some(Box::new(webhook())));
        assert_eq!(old.judge(), Some(WEBHOOK));
    }

    #[test]
    fn what_is_missing_is_said_with_what_to_do() {
        let mut new = view(true, false);
        new.set(Part::Policy, None);
        new.set(Part::Binding, None);
        let (form, why) = missing(new.judge());
        assert_eq!(form, BrakeForm::Policy);
        assert!(
            why.contains("MutatingAdmissionPolicy brake.belay.dev does not exist; run belay install"),
            "{why}"
        );
        let mut old = view(false, true);
        old.set(Part::Webhook, None);
        let (form, why) = missing(old.judge());
        assert_eq!(form, BrakeForm::Webhook);
        assert!(
            why.contains("1.36") && why.contains("zz-brake.belay.dev does not exist; run belay install"),
            "{why}"
        );
    }

    #[test]
    fn a_webhook_that_is_no_brake_is_none() {
        type Spoil = fn(&mut Value);
        let cases: [(Spoil, &str); 4] = [
            (|w| w["webhooks"][0]["failurePolicy"] = "Ignore".into(), "failurePolicy"),
            (|w| w["webhooks"][0]["clientConfig"]["caBundle"] = Value::Null, "whom to trust"),
            (|w| w["webhooks"] = Value::Array(Vec::new()), "holds no brake"),
            (|w| w["webhooks"][0]["matchConditions"] = Value::Null, "does not exempt this operator"),
        ];
        for (spoil, words) in cases {
            let mut view = view(false, true);
            let mut webhook = webhook();
            spoil(&mut webhook);
            view.set(Part::Webhook, Some(Box::new(webhook)));
            let (form, why) = missing(view.judge());
            assert_eq!(form, BrakeForm::Webhook);
            assert!(why.contains(words), "{why}");
        }
    }
}
