//! The brake as a webhook, on an API server without admission policies: `hack/cluster policies off`.
//!
//! The configuration of the webhook is one for the whole cluster, so these tests run one at a time, by themselves, at
//! the very end of `hack/test`. Without such a server each prints `SKIPPED` and passes, unless
//! `BELAY_REQUIRE_WEBHOOK=1` is set.

use std::sync::Arc;
use std::time::{Duration, Instant};

use belay::api::{BRAKE_WEBHOOK, BrakeForm};
use belay::install::{self, Options};
use belay::webhook::chain::Chain;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::examples::run_as;
use super::operator::{Operator, own_kubeconfig};
use super::scene::{Plan, Scene, brief, create_workload, rollout, steps, text};
use super::writes::{self, Expect, Write};
use super::{Env, Namespace, PATIENCE, eventually, hold, resource};

/// Where the operator of a test answers, and where another one does that nobody calls.
const ADDRESS: &str = "127.0.0.1:19443";
const OTHER: &str = "127.0.0.1:19444";
const REGISTRATION: &str = "admissionregistration.k8s.io/v1";
const CONFIGURATION: &str = "MutatingWebhookConfiguration";
const SECRET: &str = "belay-webhook";
/// What the API server says when nobody answers.
const REFUSED: &str = "failed calling webhook \"needs-the-belay-operator.brake.belay.dev\"";

/// Everything of an installation with the webhook but its operator. Without it nothing that is governed could be
/// changed in the rest of the cluster, so it goes with the test.
struct Installed {
    env: Env,
}

impl Installed {
    /// An API server without policies, and an installation without certificates.
    async fn get() -> Option<Self> {
        match Self::connect().await {
            Ok(env) => {
                let installed = Self { env };
                installed.prepare().await;
                Some(installed)
            }
            Err(reason) => {
                let required = std::env::var_os("BELAY_REQUIRE_WEBHOOK").is_some_and(|v| v == "1");
                assert!(!required, "an API server without policies is required here: {reason}");
                eprintln!("SKIPPED: {reason}");
                None
            }
        }
    }

    async fn connect() -> Result<Env, String> {
        let admin = super::connected(&super::kubeconfig()?, None, &[]).await?;
        let asked = install::server_supports_policies(&admin);
        match tokio::time::timeout(Duration::from_secs(10), asked).await {
            Ok(Ok(false)) => {}
            Ok(Ok(true)) => return Err("the API server has policies; hack/cluster policies off".to_owned()),
            Ok(Err(error)) => return Err(format!("the API server cannot be asked: {error}")),
            Err(_) => return Err("the API server does not answer within 10 seconds".to_owned()),
        }
        let (alice, gitops) = (super::user("alice").await?, super::user("gitops").await?);
        Ok(Env { admin, alice, gitops, belay: super::user("belay").await? })
    }

    async fn prepare(&self) {
        match self.secrets().delete(SECRET, &DeleteParams::default()).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => panic!("{error}"),
        }
        let options = Options {
            brake: BrakeForm::Webhook,
            webhook_url: Some(format!("https://{ADDRESS}")),
            ..Options::default()
        };
        let mut objects = install::objects(&options);
        // The tests are the operator.
        let pods = ["Deployment", "Service", "PodDisruptionBudget"];
        objects.retain(|o| !pods.contains(&o["kind"].as_str().unwrap()));
        install::apply(&self.env.admin, &objects, false).await.unwrap();
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.env.admin.clone(), "belay-system")
    }

    /// What the operators keep.
    async fn chain(&self) -> Chain {
        let secret = self.secrets().get(SECRET).await.unwrap();
        serde_json::from_slice(&secret.data.unwrap()["chain.json"].0).unwrap()
    }

    async fn configuration(&self) -> DynamicObject {
        let kind = resource(REGISTRATION, CONFIGURATION);
        let api: Api<DynamicObject> = Api::all_with(self.env.admin.clone(), &kind);
        api.get(BRAKE_WEBHOOK).await.unwrap()
    }

    /// Whether a client that trusts what the API server is told to trust gets through to an operator.
    async fn handshake(&self, address: &str) -> std::io::Result<()> {
        let configuration = self.configuration().await;
        let bundle = configuration.data["webhooks"][0]["clientConfig"]["caBundle"].clone();
        let bundle: ByteString = serde_json::from_value(bundle).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&bundle.0) {
            roots.add(certificate.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from("127.0.0.1").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.map(|_| ())
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        super::delete_blocking("", &resource(REGISTRATION, CONFIGURATION), BRAKE_WEBHOOK);
    }
}

async fn operator(env: &Env, namespace: &str, flags: &[&str]) -> Operator {
    let flags = [&["--webhook-listen", ADDRESS], flags].concat();
    Operator::start_flagged(env, namespace, own_kubeconfig(), &flags).await
}

/// A workload under a Rollout, at rest, with an operator whose webhook is in force.
async fn scene(installed: &Installed, purpose: &str, plan: Plan, flags: &[&str]) -> Scene {
    let namespace = installed.env.namespace(purpose).await;
    create_workload(&namespace, "web", &plan).await;
    let operator = operator(&installed.env, &namespace.name, flags).await;
    writes::in_force(&installed.env, &namespace.name).await;
    let scene = Scene { operator, namespace };
    scene.create_rollout("web", "web", &plan.spec).await;
    scene.rollout_is("web", "Stable").await;
    scene
}

fn condition(rollout: &Value) -> Value {
    let conditions = rollout["status"]["conditions"].as_array().unwrap();
    conditions.iter().find(|c| c["type"] == "BrakeEngaged").cloned().unwrap_or_default()
}

#[tokio::test]
async fn the_webhook_does_to_each_write_what_the_rules_say() {
    let Some(installed) = Installed::get().await else { return };
    let ns = installed.env.namespace("webhook").await;
    let mut operator = operator(&installed.env, &ns.name, &[]).await;
    writes::in_force(&installed.env, &ns.name).await;
    writes::compare(&ns, Expect::Judged).await;
    hold::in_force(&ns).await;
    hold::compare(&ns, Expect::Judged).await;
    hold::hold_the_largest(&ns).await;
    operator.assert_healthy().await;
}

#[tokio::test]
async fn without_an_operator_changes_are_refused_and_nothing_else() {
    let Some(installed) = Installed::get().await else { return };
    let ns = installed.env.namespace("down").await;
    let mut operator = operator(&installed.env, &ns.name, &[]).await;
    writes::in_force(&installed.env, &ns.name).await;
    ns.governed("web", 1, writes::OLD).await;
    operator.kill();
    writes::compare(&ns, Expect::Refused(REFUSED)).await;
    // Of what a release has borrowed only what would change it; and no other Service or route.
    hold::compare(&ns, Expect::Refused("failed calling webhook \"needs-the-belay-operator.hold-")).await;

    // What a person sees.
    let kubectl = async |arguments: &[&str]| {
        run_as("alice", "kubectl", &[&["-n", ns.name.as_str()], arguments].concat()).await
    };
    let (code, said) = kubectl(&["set", "image", "deployment/web", "app=node.local/sample:2"]).await;
    assert_eq!(code, 1, "{said}");
    let told = format!(
        "Internal error occurred: {REFUSED}: failed to call webhook: Post \"https://{ADDRESS}/brake?timeout=5s\": \
         dial tcp {ADDRESS}: connect: connection refused"
    );
    assert!(said.contains(&told), "{said}");
    for harmless in [
        &["scale", "deployment/web", "--replicas=2"][..],
        &["label", "deployment/web", "team=shop"],
        &["annotate", "deployment/web", "a=b"],
        &["rollout", "pause", "deployment/web"],
        &["rollout", "resume", "deployment/web"],
        &["delete", "deployment/web"],
    ] {
        let (code, said) = kubectl(harmless).await;
        assert_eq!(code, 0, "{harmless:?}: {said}");
    }
}

#[tokio::test]
async fn a_good_release_is_promoted_and_a_bad_one_is_rolled_back() {
    let Some(installed) = Installed::get().await else { return };
    let plan = Plan { spec: steps(&[(30, "3s"), (50, "1s")]), ..Plan::default() };
    let mut scene = scene(&installed, "releases", plan, &[]).await;
    let engaged = condition(&scene.rollout().await);
    assert_eq!((&engaged["status"], &engaged["reason"]), (&json!("True"), &json!("WebhookInPlace")));

    let ns = scene.namespace.name.clone();
    let (code, said) = run_as("alice", "belay", &["-n", &ns, "release", "web", "--env", "VERSION=2"]).await;
    assert_eq!(code, 0, "{said}");
    let name = scene.new_release(0).await;
    let done = scene.release_is(&name, "Promoted").await;
    assert_eq!(text(&done, "/status/phase"), "Promoted");

    let (_, said) = run_as("admin", "belay", &["-n", &ns, "doctor"]).await;
    assert!(said.contains("the brake is the webhook zz-brake.belay.dev"), "{said}");
    assert!(said.contains("the operator makes and renews them"), "{said}");

    scene.set_env(&[("CRASH", "start")]).await;
    let name = scene.new_release(1).await;
    // The author of a command is stamped by the webhook, too.
    let answer = scene.command(&name, json!({"verb": "pause", "by": "somebody else"})).await;
    assert!(answer["accepted"].is_boolean(), "{answer}");
    let done = scene.release_is(&name, "RolledBack").await;
    assert_eq!(text(&done, "/spec/commands/0/by"), "alice", "{}", brief(&done));
    scene.operator.assert_healthy().await;
}

#[tokio::test]
async fn certificates_are_renewed_in_the_middle_of_a_release_and_no_write_is_refused() {
    let Some(installed) = Installed::get().await else { return };
    let plan = Plan { replicas: 1, spec: steps(&[(50, "30m")]), ..Plan::default() };
    let flags = [
        ["--webhook-certificate-life", "30s"],
        ["--webhook-authority-life", "60s"],
        ["--webhook-settle", "5s"],
    ];
    let mut scene = scene(&installed, "rotation", plan, flags.as_flattened()).await;
    scene.set_env(&[("VERSION", "2")]).await;
    let release = scene.new_release(0).await;
    scene.at_step(&release, 1).await;

    let api = scene.namespace.deployments(&scene.namespace.env.alice);
    let resume = Write::Merge(json!({"spec": {"paused": false}}));
    let before = installed.chain().await;
    let first = before.authorities[0].name.clone();
    let (started, mut most, mut calls) = (Instant::now(), 0, 0);
    loop {
        let written = writes::perform(&api, "web", &resume, false).await.unwrap();
        assert_eq!(written["spec"]["paused"], true, "the webhook was asked");
        installed.handshake(ADDRESS).await.unwrap();
        calls += 1;
        let chain = installed.chain().await;
        most = most.max(chain.authorities.len());
        let serving = chain.serving.as_ref().unwrap();
        if chain.authorities.iter().all(|a| a.name != first) {
            assert_ne!(serving.certificate, before.serving.as_ref().unwrap().certificate);
            break;
        }
        assert!(started.elapsed() < 2 * PATIENCE, "not renewed: {chain:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(most, 2, "for a while both authorities are trusted");
    assert!(calls > 20, "{calls} calls");
    assert!(scene.operator.logged("PRIVATE KEY").is_empty(), "a key is in the log");
    scene.operator.assert_healthy().await;
}

#[tokio::test]
async fn an_operator_that_starts_again_takes_the_same_authority_up() {
    let Some(installed) = Installed::get().await else { return };
    let ns = installed.env.namespace("restart").await;
    let mut operator = operator(&installed.env, &ns.name, &[]).await;
    writes::in_force(&installed.env, &ns.name).await;
    let secret = installed.secrets().get(SECRET).await.unwrap();
    let configuration = installed.configuration().await;
    operator.restart().await;
    operator.wait_until_ready().await;
    installed.handshake(ADDRESS).await.unwrap();
    writes::in_force(&installed.env, &ns.name).await;
    let same = installed.secrets().get(SECRET).await.unwrap();
    assert_eq!(same.metadata.resource_version, secret.metadata.resource_version);
    let same = installed.configuration().await;
    assert_eq!(same.metadata.resource_version, configuration.metadata.resource_version);
}

#[tokio::test]
async fn two_operators_that_start_at_once_agree_on_one_authority() {
    let Some(installed) = Installed::get().await else { return };
    let ns = installed.env.namespace("two").await;
    let start = |address: &'static str| {
        let (env, name) = (installed.env.clone(), ns.name.clone());
        async move { Operator::start_flagged(&env, &name, own_kubeconfig(), &["--webhook-listen", address]).await }
    };
    let (mut one, mut other) = tokio::join!(start(ADDRESS), start(OTHER));
    eventually(PATIENCE, "both serve what the API server trusts", async || {
        installed.handshake(ADDRESS).await.map_err(|e| e.to_string())?;
        installed.handshake(OTHER).await.map_err(|e| e.to_string())
    })
    .await;
    assert_eq!(installed.chain().await.authorities.len(), 1);
    one.assert_healthy().await;
    other.assert_healthy().await;
}

/// The operator in pods under its own account, called by its Service.
struct Pods<'a> {
    installed: &'a Installed,
    ns: Namespace,
}

impl Pods<'_> {
    async fn get(&self, version: &str, kind: &str, name: &str) -> Value {
        let found = self.ns.api(&self.ns.env.admin, version, kind).get_opt(name).await.unwrap();
        found.map_or(Value::Null, |o| serde_json::to_value(o).unwrap())
    }

    /// The operator's pods that are ready and not on their way out.
    async fn operators(&self) -> Vec<String> {
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.ns.env.admin.clone(), "belay-system", &resource("v1", "Pod"));
        let list = api.list(&ListParams::default().labels("app.kubernetes.io/name=belay")).await.unwrap();
        let living = list.items.into_iter().filter(|p| p.metadata.deletion_timestamp.is_none());
        living
            .filter(|p| super::scene::is_ready(&serde_json::to_value(p).unwrap()))
            .filter_map(|p| p.metadata.name)
            .collect()
    }

    async fn phase_is(&self, phase: &str) -> Value {
        eventually(PATIENCE, &format!("the Rollout is {phase}"), async || {
            let rollout = self.get("belay.dev/v1alpha1", "Rollout", "web").await;
            if text(&rollout, "/status/phase") == phase {
                Ok(rollout)
            } else {
                Err(rollout["status"].to_string())
            }
        })
        .await
    }
}

#[tokio::test]
async fn operators_in_pods_answer_by_their_service_and_one_may_go() {
    let Some(installed) = Installed::get().await else { return };
    // By the server's offer, without being told.
    let (code, said) = run_as("admin", "belay", &["install", "--image", "node.local/belay:dev"]).await;
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("the brake is a webhook of the operator"), "{said}");
    let pods = Pods { installed: &installed, ns: installed.env.namespace("pods").await };
    eventually(PATIENCE, "both operators are ready", async || {
        let ready = pods.operators().await;
        if ready.len() == 2 { Ok(()) } else { Err(ready) }
    })
    .await;

    let plan = Plan { replicas: 2, spec: steps(&[(50, "1s")]), ..Plan::default() };
    create_workload(&pods.ns, "web", &plan).await;
    pods.ns.apply(&pods.ns.env.alice, "alice", &rollout("web", "web", &plan.spec)).await.unwrap();
    let stable = pods.phase_is("Stable").await;
    assert_eq!(condition(&stable)["reason"], "WebhookInPlace");
    let (code, said) =
        run_as("alice", "belay", &["-n", &pods.ns.name, "release", "web", "--env", "VERSION=2"]).await;
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("Promoted after"), "{said}");

    // A drain of a node: one operator goes while changes are made.
    pods.ns.governed("other", 0, writes::OLD).await;
    let api = pods.ns.deployments(&pods.ns.env.alice);
    let image = |tag: u32| {
        let containers = json!([{"name": "app", "image": format!("node.local/sample:{tag}")}]);
        Write::Strategic(json!({"spec": {"template": {"spec": {"containers": containers}}}}))
    };
    let going = pods.operators().await.remove(0);
    let all: Api<DynamicObject> =
        Api::namespaced_with(pods.ns.env.admin.clone(), "belay-system", &resource("v1", "Pod"));
    all.delete(&going, &DeleteParams::default()).await.unwrap();
    let (started, mut tag) = (Instant::now(), 2);
    loop {
        let written = writes::perform(&api, "other", &image(tag), false).await.unwrap();
        assert_eq!(written["spec"]["paused"], true);
        // Belay lets it go, so that the next one is a change that needs the brake again.
        pods.ns.as_belay("other", &json!({"spec": {"paused": null}})).await;
        tag += 1;
        if all.get_opt(&going).await.unwrap().is_none() && pods.operators().await.len() == 2 {
            break;
        }
        assert!(started.elapsed() < PATIENCE, "{going} does not go");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(tag > 10, "{tag} changes");

    let (code, said) = run_as("admin", "belay", &["uninstall", "--yes"]).await;
    assert_eq!(code, 0, "{said}");
    let kind = resource(REGISTRATION, CONFIGURATION);
    let left: Api<DynamicObject> = Api::all_with(pods.installed.env.admin.clone(), &kind);
    assert!(left.get_opt(BRAKE_WEBHOOK).await.unwrap().is_none());
    let left = installed.secrets().get_opt(SECRET).await.unwrap();
    assert!(left.is_none(), "its certificates are left behind");
}
