//! Tests on a real API server.
//!
//! The cluster is the one that `KUBECONFIG` names, as `hack/cluster exec` sets it; a kubeconfig of the
//! person who runs the tests is never used by itself. Without a cluster each test prints `SKIPPED` and passes,
//! unless `CI` or `BELAY_REQUIRE_CLUSTER=1` is set.

mod alone;
mod bad_input;
mod blue_green;
mod both;
mod brake;
mod caught;
mod changes;
mod chaos;
mod checks;
mod commands;
mod crash;
mod crds;
mod examples;
mod failover;
mod faults;
mod figures;
mod gateway;
mod hold;
mod hostile;
mod install;
mod kill;
mod load;
mod metrics;
mod operator;
mod outage;
mod proxy;
mod record;
mod releases;
mod rest;
mod routed;
mod routes;
mod scene;
mod sources;
mod traces;
mod webhook;
mod writes;

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use belay::api::ROLLOUT_LABEL;
use http::Request;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams,
    PostParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

/// How long anything in the cluster may take. Limits are in states, not in seconds: this one is only there so
/// that a test ends.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A cluster with our custom resources, roles and policies, and a client per user.
#[derive(Clone)]
pub struct Env {
    /// May do anything.
    pub admin: Client,
    /// A person who deploys.
    pub alice: Client,
    /// Another writer of the same objects.
    pub gitops: Client,
    /// The operator's own account, with the rights that we install and no others.
    pub belay: Client,
}

impl Env {
    /// The cluster, or `None` when there is none and a test may be skipped.
    pub async fn get() -> Option<Self> {
        let found = Self::connect().await;
        match found {
            Ok(env) => {
                env.prepare().await;
                Some(env)
            }
            Err(reason) => {
                let required = std::env::var_os("CI").is_some()
                    || std::env::var_os("BELAY_REQUIRE_CLUSTER").is_some_and(|v| v == "1");
                assert!(!required, "a cluster is required here: {reason}");
                eprintln!("SKIPPED: {reason}");
                None
            }
        }
    }

    async fn connect() -> Result<Self, String> {
        let admin = connected(&kubeconfig()?, None, &[]).await?;
        match tokio::time::timeout(Duration::from_secs(10), admin.apiserver_version()).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(format!("the API server cannot be reached: {error}")),
            Err(_) => return Err("the API server does not answer within 10 seconds".to_owned()),
        }
        if !belay::install::server_supports_policies(&admin).await.map_err(|e| e.to_string())? {
            return Err("the API server has no MutatingAdmissionPolicy, which Kubernetes 1.36 has".to_owned());
        }
        Ok(Self {
            admin,
            alice: user("alice").await?,
            gitops: user("gitops").await?,
            belay: user("belay").await?,
        })
    }

    /// Custom resources, roles and policies, once per process. Several processes may do it at once: all apply
    /// the same.
    async fn prepare(&self) {
        // The outcome is kept, so that a cluster that takes nothing fails every test at once.
        static PREPARED: OnceCell<Result<(), String>> = OnceCell::const_new();
        let prepared = PREPARED.get_or_init(|| async {
            let options = belay::install::Options::default();
            let objects: Vec<Value> = belay::install::objects(&options)
                .into_iter()
                // The tests are the operator.
                .filter(|o| o["kind"] != "Deployment" && o["kind"] != "Service")
                .collect();
            belay::install::apply(&self.admin, &objects, false).await.map_err(|e| format!("{e}: {e:?}"))?;
            let waited = belay::install::wait_for_brake(&self.admin, &options).await;
            waited.map_err(|e| e.to_string())
        });
        if let Err(error) = prepared.await {
            panic!("the cluster cannot be prepared: {error}");
        }
    }

    /// A namespace of its own for one test, gone when the value is dropped.
    pub async fn namespace(&self, purpose: &str) -> Namespace {
        let namespace = json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "generateName": format!("it-{purpose}-"),
                "labels": {"app.kubernetes.io/managed-by": "belay-tests"},
            },
        });
        // An object that is yet to be named has no place in the typed client.
        let request = Request::post("/api/v1/namespaces").header("content-type", "application/json");
        let request = request.body(namespace.to_string().into_bytes()).unwrap();
        let created: Value = self.admin.request(request).await.unwrap();
        let name = created["metadata"]["name"].as_str().unwrap().to_owned();
        let namespace = Namespace { name, env: self.clone() };
        for (user, role) in [("alice", "edit"), ("gitops", "edit")] {
            namespace.grant(user, role).await;
        }
        // The authorizer learns of a new grant by a watch of its own.
        for client in [&self.alice, &self.gitops] {
            eventually(PATIENCE, "the grant counts", async || may_deploy(client, &namespace.name).await)
                .await;
        }
        namespace
    }
}

/// Whether the user of a client may create what a person who deploys creates: of Kubernetes and of ours.
async fn may_deploy(client: &Client, namespace: &str) -> Result<(), String> {
    for (group, kind) in [("apps", "deployments"), ("belay.dev", "rollouts")] {
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {"namespace": namespace, "verb": "create", "group": group, "resource": kind}},
        });
        let request = Request::post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews")
            .header("content-type", "application/json")
            .body(review.to_string().into_bytes())
            .unwrap();
        let answer: Value = client.request(request).await.map_err(|e| e.to_string())?;
        if answer["status"]["allowed"] != true {
            return Err(format!("{kind}: {}", answer["status"]));
        }
    }
    Ok(())
}

/// The kubeconfig of the cluster that the tests may use.
fn kubeconfig() -> Result<PathBuf, String> {
    let path = std::env::var_os("KUBECONFIG").filter(|p| !p.is_empty());
    path.map(PathBuf::from).ok_or_else(|| {
        "KUBECONFIG is not set; run the tests with `hack/cluster exec -- cargo test`".to_owned()
    })
}

/// A client with the credentials of one of the users that the tests know.
async fn user(user: &str) -> Result<Client, String> {
    if let Some(folder) = std::env::var_os("BELAY_KUBECONFIG_DIR") {
        let folder = PathBuf::from(folder);
        for name in [format!("{user}.kubeconfig"), user.to_owned()] {
            if folder.join(&name).is_file() {
                return connected(&folder.join(&name), None, &[]).await;
            }
        }
    }
    acting_as(if user == "belay" { belay::api::OPERATOR_USER } else { user }, &[]).await
}

/// A client of the administrator that acts as a user of any name and groups.
pub async fn acting_as(user: &str, groups: &[&str]) -> Result<Client, String> {
    connected(&kubeconfig()?, Some(user), groups).await
}

async fn connected(kubeconfig: &Path, user: Option<&str>, groups: &[&str]) -> Result<Client, String> {
    let unusable = |error: &dyn std::fmt::Display| format!("{} is not usable: {error}", kubeconfig.display());
    let file = Kubeconfig::read_from(kubeconfig).map_err(|e| unusable(&e))?;
    let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .map_err(|e| unusable(&e))?;
    config.auth_info.impersonate = user.map(ToOwned::to_owned);
    if !groups.is_empty() {
        config.auth_info.impersonate_groups = Some(groups.iter().map(ToString::to_string).collect());
    }
    Client::try_from(config).map_err(|e| unusable(&e))
}

/// The resource of a kind.
pub fn resource(version: &str, kind: &str) -> ApiResource {
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

/// A namespace for one test.
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// The cluster it is in.
    pub env: Env,
}

impl Namespace {
    /// The objects of a kind in this namespace, as `client` may see them.
    pub fn api(&self, client: &Client, version: &str, kind: &str) -> Api<DynamicObject> {
        Api::namespaced_with(client.clone(), &self.name, &resource(version, kind))
    }

    /// The Deployments of this namespace, as `client` may see them.
    pub fn deployments(&self, client: &Client) -> Api<DynamicObject> {
        self.api(client, "apps/v1", "Deployment")
    }

    /// Applies every document of a YAML stream as `client` with field manager `manager`.
    pub async fn apply_yaml(
        &self,
        client: &Client,
        manager: &str,
        yaml: &str,
    ) -> kube::Result<Vec<DynamicObject>> {
        let mut applied = Vec::new();
        for document in crate::manifests::documents(yaml) {
            applied.push(self.apply(client, manager, &document).await?);
        }
        Ok(applied)
    }

    /// Applies one object by server-side apply, by force.
    pub async fn apply(&self, client: &Client, manager: &str, object: &Value) -> kube::Result<DynamicObject> {
        let text = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap();
        let api = self.api(client, text("/apiVersion"), text("/kind"));
        let params = PatchParams::apply(manager).force().validation_strict();
        api.patch(text("/metadata/name"), &params, &Patch::Apply(object)).await
    }

    /// Gives a user one of the cluster's roles in this namespace.
    pub async fn grant(&self, user: &str, role: &str) {
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": format!("{user}-{role}")},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
        });
        self.apply(&self.env.admin, "tests", &binding).await.unwrap();
    }

    /// A Deployment of the sample program, created by alice. Its pods get ready where there is a node.
    pub async fn deployment(&self, name: &str, replicas: u32, image: &str) -> DynamicObject {
        let object = deployment(name, replicas, image);
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        self.deployments(&self.env.alice).create(&PostParams::default(), &object).await.unwrap()
    }

    /// The same, governed: with the label that the operator would put on it, put there as the operator.
    pub async fn governed(&self, name: &str, replicas: u32, image: &str) -> DynamicObject {
        self.deployment(name, replicas, image).await;
        let label = json!({"metadata": {"labels": {ROLLOUT_LABEL: name}}});
        self.as_belay(name, &label).await
    }

    /// A merge patch of a Deployment by the operator's account.
    pub async fn as_belay(&self, name: &str, patch: &Value) -> DynamicObject {
        let params = PatchParams { field_manager: Some("belay".to_owned()), ..PatchParams::default() };
        self.deployments(&self.env.belay).patch(name, &params, &Patch::Merge(patch)).await.unwrap()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if std::env::var_os("BELAY_KEEP_NAMESPACES").is_some() {
            eprintln!("kept: namespace {}", self.name);
            return;
        }
        delete_blocking("", &resource("v1", "Namespace"), &self.name);
    }
}

/// Deletes an object, also on failure, when the test's own runtime is no more.
fn delete_blocking(namespace: &str, kind: &ApiResource, name: &str) {
    let (namespace, kind, object) = (namespace.to_owned(), kind.clone(), name.to_owned());
    let what = format!("{} {name}", kind.kind);
    blocking(&what, async move |client| {
        let api: Api<DynamicObject> = if namespace.is_empty() {
            Api::all_with(client, &kind)
        } else {
            Api::namespaced_with(client, &namespace, &kind)
        };
        match api.delete(&object, &DeleteParams::background()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            other => other.map(|_| ()),
        }
    });
}

/// Takes the finalizers off all Rollouts of a namespace whose operator is gone.
fn free_rollouts_blocking(namespace: &str) {
    let what = format!("a Rollout of {namespace}");
    let namespace = namespace.to_owned();
    blocking(&what, async move |client| {
        let kind = resource("belay.dev/v1alpha1", "Rollout");
        let api: Api<DynamicObject> = Api::namespaced_with(client, &namespace, &kind);
        let none = json!({"metadata": {"finalizers": null}});
        for rollout in api.list(&ListParams::default()).await? {
            let name = rollout.metadata.name.unwrap_or_default();
            match api.patch(&name, &PatchParams::default(), &Patch::Merge(&none)).await {
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                other => drop(other?),
            }
        }
        Ok(())
    });
}

/// Cleans up as the administrator, on a thread and a runtime of its own; `what` is left behind if that fails.
fn blocking<F>(what: &str, work: F)
where
    F: AsyncFnOnce(Client) -> kube::Result<()> + Send + 'static,
{
    let thread = std::thread::spawn(move || -> Result<(), String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(|e| e.to_string())?.block_on(async {
            let client = connected(&kubeconfig()?, None, &[]).await?;
            let done = tokio::time::timeout(Duration::from_secs(20), work(client)).await;
            done.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
        })
    });
    if let Ok(Err(error)) = thread.join() {
        eprintln!("{what} is left behind: {error}");
    }
}

/// A plain Deployment of the sample program, as a person would write it.
pub fn deployment(name: &str, replicas: u32, image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "containers": [{
                        "name": "app",
                        "image": image,
                        "imagePullPolicy": "IfNotPresent",
                        "ports": [{"name": "http", "containerPort": 8080}],
                        "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 1},
                    }],
                },
            },
        },
    })
}

/// Asks `look` until it answers with something, and fails with what it last saw.
///
/// `look` returns `Ok(value)` when it is so, else `Err(what was seen instead)`.
pub async fn eventually<T, E: Debug>(
    deadline: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let started = Instant::now();
    loop {
        match look().await {
            Ok(value) => return value,
            Err(seen) => {
                assert!(started.elapsed() < deadline, "not within {deadline:?}: {what}; last seen: {seen:?}");
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
