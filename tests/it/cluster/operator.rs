//! The operator under test: the real program, as a child process with the operator's own credentials.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::{Env, PATIENCE, resource};

/// Lines of the log that are kept, and that are printed when a test fails.
const KEPT: usize = 4000;
const PRINTED: usize = 60;

/// What the process said.
#[derive(Default)]
struct Log {
    lines: VecDeque<String>,
    count: usize,
    panics: Vec<String>,
    address: Option<String>,
}

impl Log {
    fn take(&mut self, line: String) {
        self.count += 1;
        if line.contains("panicked") {
            self.panics.push(line.clone());
        }
        if line.contains("probes and figures are served")
            && let Ok(entry) = serde_json::from_str::<Value>(&line)
        {
            let address = entry.pointer("/fields/address").or_else(|| entry.get("address"));
            self.address = address.and_then(Value::as_str).map(ToOwned::to_owned);
        }
        if self.lines.len() == KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }
}

/// An operator that governs one namespace.
pub struct Operator {
    child: Option<Child>,
    namespace: String,
    kubeconfig: PathBuf,
    flags: Vec<String>,
    env: Env,
    log: Arc<Mutex<Log>>,
}

impl Operator {
    /// Starts it with the kubeconfig of the operator's account, and waits until it knows all objects.
    pub async fn start(env: &Env, namespace: &str) -> Self {
        Self::start_with(env, namespace, own_kubeconfig()).await
    }

    /// Starts it with a kubeconfig of the test's own.
    pub async fn start_with(env: &Env, namespace: &str, kubeconfig: PathBuf) -> Self {
        Self::start_flagged(env, namespace, kubeconfig, &[]).await
    }

    /// The same with more flags.
    pub async fn start_flagged(env: &Env, namespace: &str, kubeconfig: PathBuf, flags: &[&str]) -> Self {
        keep_others_out(env, namespace).await;
        let mut operator = Self {
            child: None,
            namespace: namespace.to_owned(),
            kubeconfig,
            flags: flags.iter().map(ToString::to_string).collect(),
            env: env.clone(),
            log: Arc::default(),
        };
        operator.spawn();
        operator.wait_until_ready().await;
        operator
    }

    fn spawn(&mut self) {
        self.log.lock().unwrap().address = None;
        let mut child = Command::new(env!("CARGO_BIN_EXE_belay"))
            .args(["operator", "--namespace", &self.namespace, "--listen", "127.0.0.1:0"])
            .args(["--lease-name", &lease_name(&self.namespace), "--log-format", "json"])
            .args(&self.flags)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("BELAY_LOG", "belay=debug")
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        for stream in [Box::new(out) as Box<dyn Read + Send>, Box::new(err)] {
            let log = self.log.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    log.lock().unwrap().take(line);
                }
            });
        }
        self.child = Some(child);
    }

    /// Waits until it knows all objects, and can answer as a webhook if it is one.
    pub async fn wait_until_ready(&mut self) {
        let started = Instant::now();
        loop {
            assert!(self.is_running(), "the operator ended by itself");
            if self.page("/readyz").await.is_ok_and(|(status, _)| status == 200) {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "the operator does not become ready");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Kills the process with no warning.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself; the wait tells no more.
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// Starts it again after [`Self::kill`]; does not wait. The lease of the process that was killed is taken away,
    /// as its lapse would do some seconds later.
    pub async fn restart(&mut self) {
        self.kill();
        self.drop_lease().await;
        self.spawn();
    }

    /// Starts it again when it is no more; does not wait, and leaves the lease as it is.
    pub fn start_again(&mut self) {
        self.kill();
        self.spawn();
    }

    async fn drop_lease(&self) {
        let api: Api<DynamicObject> = Api::namespaced_with(
            self.env.admin.clone(),
            "belay-system",
            &resource("coordination.k8s.io/v1", "Lease"),
        );
        match api.delete(&lease_name(&self.namespace), &DeleteParams::default()).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => panic!("the lease cannot be deleted: {error}"),
        }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").args(["-s", signal, &self.pid().to_string()]).status().unwrap();
        assert!(status.success(), "SIG{signal} was not sent");
    }

    /// The process that holds the lease, or held it last.
    pub async fn lease_holder(&self) -> u32 {
        let api: Api<DynamicObject> = Api::namespaced_with(
            self.env.admin.clone(),
            "belay-system",
            &resource("coordination.k8s.io/v1", "Lease"),
        );
        let lease = api.get(&lease_name(&self.namespace)).await.unwrap();
        let holder = lease.data.pointer("/spec/holderIdentity").and_then(Value::as_str).unwrap_or_default();
        // HOST-PID, and a number that no other process has.
        let process = holder.split('_').next().unwrap_or_default();
        process.rsplit('-').next().and_then(|pid| pid.parse().ok()).unwrap_or_default()
    }

    /// Whether the process runs.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|c| c.try_wait().unwrap().is_none())
    }

    /// The exit code, once the process has ended by itself.
    pub fn exit_code(&mut self) -> Option<i32> {
        self.child.as_mut()?.try_wait().unwrap()?.code()
    }

    /// A page of the operator: status and body.
    pub async fn page(&self, path: &str) -> Result<(u16, String), String> {
        let address = self.log.lock().unwrap().address.clone();
        let address = address.ok_or("the operator has not said where it listens")?;
        super::load::get(&address, path, "operator").await
    }

    /// Lines of the log so far, over all restarts.
    pub fn lines(&self) -> usize {
        self.log.lock().unwrap().count
    }

    /// The lines of the kept log that contain the text.
    pub fn logged(&self, text: &str) -> Vec<String> {
        self.log.lock().unwrap().lines.iter().filter(|l| l.contains(text)).cloned().collect()
    }

    /// Asserts that it runs, answers, and never panicked.
    pub async fn assert_healthy(&mut self) {
        assert!(self.is_running(), "the operator ended by itself");
        assert_eq!(self.page("/healthz").await.map(|(status, _)| status), Ok(200));
        let panics = self.log.lock().unwrap().panics.clone();
        assert!(panics.is_empty(), "the operator panicked: {panics:?}");
    }

    fn print(&self) {
        let log = self.log.lock().unwrap();
        let skipped = log.lines.len().saturating_sub(PRINTED);
        eprintln!("--- the last lines of the operator of {} ({} in all)", self.namespace, log.count);
        for line in log.lines.iter().skip(skipped) {
            eprintln!("{line}");
        }
        eprintln!("---");
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            self.print();
        }
        // Nobody is left who would take the Rollouts' finalizers off, and the namespace is to go.
        super::free_rollouts_blocking(&self.namespace);
        let name = lease_name(&self.namespace);
        super::delete_blocking("belay-system", &resource("coordination.k8s.io/v1", "Lease"), &name);
    }
}

fn lease_name(namespace: &str) -> String {
    format!("belay-{namespace}")
}

/// The kubeconfig of the operator's account, beside the one that the tests were given.
pub fn own_kubeconfig() -> PathBuf {
    let given = super::kubeconfig().unwrap();
    let folder = std::env::var_os("BELAY_KUBECONFIG_DIR").map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| given.parent().unwrap().to_owned());
    let names = ["belay.kubeconfig", "belay"];
    let found = names.iter().map(|n| folder.join(n)).find(|p| p.is_file());
    found.unwrap_or_else(|| panic!("{} has no kubeconfig of the user belay", folder.display()))
}

/// An operator that is installed in the cluster governs all namespaces, and two operators with two leases would both
/// write. So the API server refuses what an operator that runs in a pod writes to the namespaces of these tests.
async fn keep_others_out(env: &Env, namespace: &str) {
    const NAME: &str = "own-operator.tests.belay.dev";
    const LABEL: &str = "tests.belay.dev/own-operator";
    static DONE: OnceCell<()> = OnceCell::const_new();
    let apply = async |version: &str, kind: &str, object: Value| {
        let api: Api<DynamicObject> = Api::all_with(env.admin.clone(), &resource(version, kind));
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        api.patch(&name, &PatchParams::apply("tests").force(), &Patch::Apply(&object)).await.unwrap();
    };
    DONE.get_or_init(|| async {
        let version = "admissionregistration.k8s.io/v1";
        let policy = json!({
            "apiVersion": version, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": NAME},
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": {
                    "namespaceSelector": {"matchLabels": {LABEL: "true"}},
                    "resourceRules": [{
                        "apiGroups": ["belay.dev", "apps", "autoscaling", "events.k8s.io"], "apiVersions": ["*"],
                        "resources": ["*/*"], "operations": ["CREATE", "UPDATE", "DELETE"],
                    }],
                },
                "matchConditions": [{
                    "name": "operators",
                    "expression": format!("request.userInfo.username == '{}'", belay::api::OPERATOR_USER),
                }],
                "validations": [{
                    "expression": "!has(request.userInfo.extra) || !('authentication.kubernetes.io/pod-name' in request.userInfo.extra)",
                    "message": "this namespace has an operator of its own",
                }],
            },
        });
        let binding = json!({
            "apiVersion": version, "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": NAME},
            "spec": {"policyName": NAME, "validationActions": ["Deny"]},
        });
        apply(version, "ValidatingAdmissionPolicy", policy).await;
        apply(version, "ValidatingAdmissionPolicyBinding", binding).await;
        // The API server takes new policies up within a second or so.
        tokio::time::sleep(Duration::from_secs(2)).await;
    })
    .await;
    let label = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": {LABEL: "true"}}});
    apply("v1", "Namespace", label).await;
}
