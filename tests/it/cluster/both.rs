//! The brake in both of its forms on one API server: each writes what the rules say, and both together no more.

use std::time::Duration;

use belay::api::{BrakeForm, OPERATOR_USER};
use belay::install::{self, Options};
use belay::webhook::chain::Life;
use belay::webhook::{self, Setup};
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};

use super::writes::{self, Expect, Write};
use super::{Env, Namespace, PATIENCE, eventually, hold, resource};

#[tokio::test]
async fn the_policy_does_to_each_write_what_the_rules_say() {
    let Some(env) = Env::get().await else { return };
    let ns = env.namespace("policy").await;
    writes::compare(&ns, Expect::Judged).await;
}

/// A webhook configuration of this test's own, for its namespace only.
struct Configuration {
    name: String,
    api: Api<DynamicObject>,
}

impl Configuration {
    /// Puts it there. It calls for every write of a governed Deployment, not only for those that the policy left
    /// something to do about: both do the work.
    async fn apply(ns: &Namespace, address: std::net::SocketAddr) -> Self {
        let options = Options {
            brake: BrakeForm::Webhook,
            webhook_url: Some(format!("https://{address}")),
            ..Options::default()
        };
        let mut object = install::objects(&options)
            .into_iter()
            .find(|o| o["kind"] == "MutatingWebhookConfiguration")
            .unwrap();
        let name = format!("zz-{}.belay.dev", ns.name);
        object["metadata"]["name"] = json!(name);
        for hook in object["webhooks"].as_array_mut().unwrap() {
            hook["namespaceSelector"] = json!({"matchLabels": {"kubernetes.io/metadata.name": ns.name}});
            let conditions = hook["matchConditions"].as_array_mut().unwrap();
            conditions.retain(|c| c["name"] != "needed");
        }
        let kind = resource("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration");
        let api: Api<DynamicObject> = Api::all_with(ns.env.admin.clone(), &kind);
        api.patch(&name, &PatchParams::apply("tests").force(), &Patch::Apply(&object)).await.unwrap();
        Self { name, api }
    }

    async fn trusts_somebody(&self) {
        eventually(PATIENCE, "the configuration says whom to trust", async || {
            let found = self.api.get(&self.name).await.unwrap();
            let bundle = &found.data["webhooks"][0]["clientConfig"]["caBundle"];
            if bundle.is_string() { Ok(()) } else { Err(found.data["webhooks"].to_string()) }
        })
        .await;
    }
}

impl Drop for Configuration {
    fn drop(&mut self) {
        let kind = resource("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration");
        super::delete_blocking("", &kind, &self.name);
    }
}

#[tokio::test]
async fn both_together_do_what_one_does() {
    let Some(env) = Env::get().await else { return };
    let ns = env.namespace("both").await;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "certificates"}});
    ns.apply(&env.admin, "tests", &secret).await.unwrap();
    let setup = Setup {
        client: env.admin.clone(),
        watching: env.admin.clone(),
        listen: "127.0.0.1:0".parse().unwrap(),
        namespace: ns.name.clone(),
        secret: "certificates".to_owned(),
        configuration: format!("zz-{}.belay.dev", ns.name),
        operator_user: OPERATOR_USER.to_owned(),
        life: Life::default(),
    };
    let served = webhook::start(setup).await.unwrap();
    let configuration = Configuration::apply(&ns, served.address).await;
    configuration.trusts_somebody().await;
    writes::in_force(&env, &ns.name).await;
    writes::compare(&ns, Expect::Judged).await;
    hold::in_force(&ns).await;
    hold::compare(&ns, Expect::Judged).await;

    // It was asked all the while: without it nothing governed can be written.
    served.stop();
    tokio::time::timeout(Duration::from_secs(30), served.stopped()).await.unwrap();
    ns.governed("web", 0, writes::OLD).await;
    let label: Value = json!({"metadata": {"labels": {"team": "shop"}}});
    let refused =
        writes::perform(&ns.deployments(&env.alice), "web", &Write::Merge(label), false).await.unwrap_err();
    assert!(refused.to_string().contains("needs-the-belay-operator.brake.belay.dev"), "{refused}");
}
