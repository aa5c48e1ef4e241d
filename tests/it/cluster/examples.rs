//! The files in `examples/`, run as their headers say: each applied as it stands, by a person with the rights to
//! edit, and each `belay` line of the header run by the real program, with the exit code that it promises.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use kube::api::ListParams;
use serde_json::{Value, json};

use super::load::Load;
use super::operator::Operator;
use super::scene::{Scene, brief, int, text, timeline};
use super::{Env, PATIENCE, checks, eventually, sources};

/// Where the cluster's Prometheus answers an operator that runs beside it.
const PROMETHEUS: &str = "http://127.0.0.1:9090";

/// The groups of the routers' own kinds.
const ROUTERS: [&str; 4] =
    ["gateway.networking.k8s.io", "networking.istio.io", "traefik.io", "split.smi-spec.io"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// An example in a namespace of its own, with an operator.
pub struct Example {
    /// Where it runs.
    pub scene: Scene,
    /// Lines of the header that are still to be run.
    lines: std::vec::IntoIter<String>,
}

impl Example {
    /// Applies the file and waits until its first revision serves. None without a cluster.
    pub async fn start(file: &str, change: impl Fn(String) -> String) -> Option<Self> {
        let env = Env::get().await?;
        let purpose = file.trim_end_matches(".yaml");
        let namespace = env.namespace(&format!("ex-{purpose}")).await;
        let path = format!("examples/{file}");
        let yaml = std::fs::read_to_string(root().join(&path)).unwrap();
        let header: Vec<&str> = yaml.lines().take_while(|l| l.starts_with('#')).collect();
        assert!(
            header.iter().any(|l| l.trim_start_matches("# ") == format!("  kubectl apply -f {path}")),
            "{header:?}"
        );
        let lines: Vec<String> = header
            .iter()
            .filter_map(|l| l.strip_prefix("#   "))
            .filter(|l| l.starts_with("belay "))
            .map(ToOwned::to_owned)
            .collect();
        let operator = Operator::start(&env, &namespace.name).await;
        let scene = Scene { operator, namespace };
        for object in crate::manifests::documents(&change(yaml)) {
            // A router's own kinds are not in the roles of Kubernetes: who administers the router applies those.
            let (client, who) = match text(&object, "/apiVersion").split_once('/') {
                Some((group, _)) if ROUTERS.contains(&group) => (&env.admin, "platform"),
                _ => (&env.alice, "alice"),
            };
            scene.namespace.apply(client, who, &object).await.unwrap();
        }
        scene.rollout_is("web", "Stable").await;
        Some(Self { scene, lines: lines.into_iter() })
    }

    /// Runs the next `belay` line of the header and returns what it printed; the exit code must be the one that
    /// the line promises, or 0.
    pub async fn next(&mut self, command: &str) -> String {
        let line = self.lines.next().unwrap_or_else(|| panic!("the header has no line for {command}"));
        let (line, promise) = line.split_once("  #").unwrap_or((&line, ""));
        assert!(line.starts_with(&format!("belay {command}")), "{line} instead of {command}");
        let expected =
            promise.split_once("exit code ").map_or(0, |(_, code)| code[..1].parse::<i32>().unwrap());
        let script = format!("{} --namespace {}", line.trim_end(), self.scene.namespace.name);
        let (code, output) = run("sh", &["-c", &script]).await;
        assert_eq!(code, expected, "{script}\n{output}");
        output
    }

    /// Waits until the only release satisfies `is`.
    pub async fn release_where(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let name = self.scene.new_release(0).await;
        self.scene.release_where(&name, what, is).await
    }

    /// The end: every line was run, the last release is in this phase, and the operator is well.
    pub async fn ends(mut self, phase: &str) -> Value {
        let left: Vec<String> = self.lines.collect();
        assert!(left.is_empty(), "lines that were not run: {left:?}");
        let release = self.scene.releases().await.pop().unwrap();
        assert_eq!(text(&release, "/status/phase"), phase, "{}", brief(&release));
        self.scene.operator.assert_healthy().await;
        release
    }

    /// Requests through the Service, from pods that answer.
    async fn load(&self, per_second: u32) -> Load {
        let ip = text(&self.scene.get("v1", "Service", "web").await, "/spec/clusterIP");
        let address = format!("{ip}:80");
        eventually(PATIENCE, "the Service answers", async || super::load::get(&address, "/", "load").await)
            .await;
        Load::start(&address, per_second)
    }
}

/// Runs a program as alice, with `belay` in its path: exit code, and everything that it printed.
async fn run(program: &str, args: &[&str]) -> (i32, String) {
    run_as("alice", program, args).await
}

/// The same as any user.
pub async fn run_as(user: &str, program: &str, args: &[&str]) -> (i32, String) {
    let belay = Path::new(env!("CARGO_BIN_EXE_belay")).parent().unwrap();
    let mut path = vec![belay.to_owned()];
    path.extend(std::env::var_os("PATH").iter().flat_map(std::env::split_paths));
    let done = tokio::process::Command::new(program)
        .args(args)
        .current_dir(root())
        .env("PATH", std::env::join_paths(path).unwrap())
        .env("KUBECONFIG", kubeconfig_of(user))
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let done = tokio::time::timeout(PATIENCE * 2, done)
        .await
        .unwrap_or_else(|_| panic!("{program} {args:?} does not end"));
    let done = done.unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    (done.status.code().unwrap_or(-1), said)
}

fn kubeconfig_of(user: &str) -> PathBuf {
    let given = super::kubeconfig().unwrap();
    let folder = std::env::var_os("BELAY_KUBECONFIG_DIR").map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| given.parent().unwrap().to_owned());
    let found = [format!("{user}.kubeconfig"), user.to_owned()]
        .into_iter()
        .map(|n| folder.join(n))
        .find(|p| p.is_file());
    found.unwrap_or_else(|| panic!("{} has no kubeconfig of the user {user}", folder.display()))
}

/// The files under a folder, relative to `examples/`.
fn files(folder: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path.strip_prefix(root().join("examples")).unwrap().display().to_string());
        }
    }
}

#[test]
fn every_example_has_a_test_and_lints_clean() {
    let mut found = Vec::new();
    files(&root().join("examples"), &mut found);
    assert!(found.len() > 5, "{found:?}");
    let tests = concat!(include_str!("examples.rs"), include_str!("routes.rs"));
    for file in found {
        let started = [
            format!("Example::start(\"{file}\""),
            format!("guarded(\"{file}\""),
            format!("Routed::start(\"{file}\""),
            format!("\"examples/{file}\""),
        ];
        assert!(started.iter().any(|s| tests.contains(s.as_str())), "examples/{file} has no test");
        if Path::new(&file).extension().is_some_and(|e| e == "yaml") {
            let lint = std::process::Command::new(env!("CARGO_BIN_EXE_belay"))
                .args(["lint", &format!("examples/{file}")])
                .current_dir(root())
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&lint.stdout);
            assert!(lint.status.success() && said.contains("1 Rollout in 1 file"), "{file}: {said}");
        }
    }
}

#[tokio::test]
async fn minimal() {
    let Some(mut example) = Example::start("minimal.yaml", |yaml| yaml).await else { return };
    example.next("release").await;
    example.next("promote").await;
    let said = example.next("status").await;
    assert!(said.contains("romoted"), "{said}");
    example.next("release").await;
    let release = example.ends("RolledBack").await;
    assert_eq!(text(&release, "/status/reason"), "CanaryCrashed", "{}", brief(&release));
}

#[tokio::test]
async fn canary() {
    let Some(mut example) = Example::start("canary.yaml", |yaml| yaml).await else { return };
    example.next("release").await;
    example
        .release_where("step 3 waits for a person", |r| {
            text(r, "/status/reason") == "AwaitingApproval" && int(r, "/status/step/index") == 2
        })
        .await;
    let said = example.next("status").await;
    assert!(said.contains("3/3"), "{said}");
    example.next("approve").await;
    example.next("status").await;
    let release = example.ends("Promoted").await;
    let way = timeline(&release);
    assert!(["StepStarted 2", "StepStarted 3"].iter().all(|s| way.iter().any(|w| w == s)), "{way:?}");
    assert!(release["status"]["commands"].to_string().contains("true"), "{}", release["status"]["commands"]);
}

#[tokio::test]
async fn by_hand() {
    let Some(mut example) = Example::start("by-hand.yaml", |yaml| yaml).await else { return };
    example.next("release").await;
    let held = example
        .release_where("it is held for a person", |r| text(r, "/status/reason") == "RollbackWanted")
        .await;
    assert_eq!(text(&held, "/status/phase"), "Paused");
    example.next("status").await;
    example.next("abort").await;
    example.next("status").await;
    let release = example.ends("RolledBack").await;
    assert_eq!(text(&release, "/status/message"), "aborted by alice: seen enough");
}

#[tokio::test]
async fn restore_template() {
    let Some(mut example) = Example::start("restore-template.yaml", |yaml| yaml).await else { return };
    example.next("release").await;
    let restored = |w: &Value| {
        w.pointer("/spec/paused").is_none() && !w["spec"]["template"].to_string().contains("CRASH")
    };
    example.scene.workload_where("the stable template is back", restored).await;
    example.scene.rollout_is("web", "Stable").await;
    example.ends("RolledBack").await;
}

#[tokio::test]
async fn an_autoscaler() {
    let Some(mut example) = Example::start("hpa.yaml", |yaml| yaml).await else { return };
    let floor = async |scene: &Scene| {
        let hpa = scene.get("autoscaling/v2", "HorizontalPodAutoscaler", "web").await;
        (int(&hpa, "/spec/minReplicas"), hpa["metadata"]["annotations"].to_string())
    };
    example.next("release").await;
    example.release_where("it waits for a person", |r| text(r, "/status/reason") == "AwaitingApproval").await;
    let (held, notes) = floor(&example.scene).await;
    assert_eq!(held, 4, "{notes}");
    example.next("approve").await;
    example.next("status").await;
    eventually(PATIENCE, "the floor is given back", async || {
        let (held, notes) = floor(&example.scene).await;
        if held == 2 && !notes.contains("belay.dev") { Ok(()) } else { Err((held, notes)) }
    })
    .await;
    example.ends("Promoted").await;
}

/// Under load: the good version is proven and promoted, the bad one is proven worse and rolled back.
async fn guarded(file: &str, change: impl Fn(String) -> String) {
    let Some(example) = Example::start(file, change).await else { return };
    judged(example).await;
}

async fn judged(mut example: Example) {
    let load = example.load(60).await;
    let namespace = example.scene.namespace.name.clone();
    if example.scene.get("belay.dev/v1alpha1", "Rollout", "web").await["spec"]["analysis"]["metrics"]["pods"]
        .is_object()
    {
        // Its guards, tried beforehand by somebody who may ask pods through the API server.
        let tried = run_as(
            "admin",
            "belay",
            &["analyze", "web", "--for", "8s", "-o", "json", "-q", "-n", &namespace],
        )
        .await;
        assert_eq!(tried.0, 0, "{}", tried.1);
        let json: Value = serde_json::from_str(&tried.1).unwrap();
        for guard in json["guards"].as_array().unwrap() {
            assert!(int(guard, "/looks") > 1 && guard["wouldRollBack"] == false, "{guard}");
            assert!(int(guard, "/proof/0/seconds") > 0, "{guard}");
        }
        assert_eq!(
            (json["canary"].as_array().unwrap().len(), json["stable"].as_array().unwrap().len()),
            (2, 2)
        );
    }
    example.next("release").await;
    let good = example.scene.releases().await.pop().unwrap();
    assert!(int(&good, "/status/analysis/guards/0/looks") > 0, "{}", good["status"]["analysis"]);
    example.next("release").await;
    let said = example.next("explain").await;
    assert!(said.contains("errors"), "{said}");
    eprintln!("{said}");
    let totals = load.stop().await;
    assert!(totals.failed.is_empty(), "{totals:?}");
    assert!(totals.bad.keys().all(|version| version == "3"), "{totals:?}");
    let release = example.ends("RolledBack").await;
    assert_eq!(text(&release, "/status/reason"), "GuardFailed", "{}", brief(&release));
}

#[tokio::test]
async fn a_guard_from_the_pods() {
    guarded("guard-pods.yaml", |yaml| yaml).await;
}

/// The errors and the times of a slow version: the second guard of the template sends it back.
#[tokio::test]
async fn guards_from_a_template() {
    guarded("guard-template.yaml", |yaml| yaml).await;
}

#[tokio::test]
async fn a_guard_from_prometheus() {
    guarded("guard-prometheus.yaml", |yaml| {
        let changed = yaml.replace("http://prometheus.monitoring:9090\n", &format!("{PROMETHEUS}\n"));
        assert_ne!(changed, yaml, "the file names the address that is replaced");
        changed
    })
    .await;
}

#[tokio::test]
async fn a_guard_from_a_prometheus_that_wants_to_know_who_asks() {
    let pki = sources::pki("127.0.0.1");
    let address = sources::gate(&pki, "belay", "open sesame").await;
    let change = |yaml: String| {
        let changed = yaml.replace("https://prometheus.monitoring:9090\n", &format!("https://{address}\n"));
        assert_ne!(changed, yaml, "the file names the address that is replaced");
        changed
    };
    let Some(example) = Example::start("guard-prometheus-secure.yaml", change).await else { return };
    // As the header's lines for kubectl do.
    let secret = json!({"username": "belay", "password": "open sesame", "ca.crt": pki.authority});
    example.scene.secret("prometheus", secret).await;
    example.scene.let_it_read(&["prometheus"]).await;
    judged(example).await;
}

#[tokio::test]
async fn a_pipeline_gets_the_outcome_as_exit_code() {
    let Some(mut example) = Example::start("restore-template.yaml", |yaml| yaml).await else { return };
    let script = "examples/ci/release.sh";
    let namespace = example.scene.namespace.name.clone();
    let pipeline = async |file: &str, change: &str| {
        run(script, &[file, "web", "--env", change, "--namespace", &namespace]).await
    };
    let (code, said) = pipeline("tests/it/cluster/mod.rs", "VERSION=2").await;
    assert_eq!(code, 1, "a file that is not a Rollout: {said}");
    assert!(example.scene.releases().await.is_empty());
    assert_eq!(run(script, &["only-one"]).await.0, 64);

    let (code, said) = pipeline("examples/restore-template.yaml", "CRASH=start").await;
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("exit code 1"), "the evidence is told: {said}");
    example.scene.rollout_is("web", "Stable").await;
    example
        .scene
        .merge(
            "belay.dev/v1alpha1",
            "Rollout",
            "web",
            &json!({"spec": {"strategy": {"canary": {"steps": [{"weight": 50, "minDuration": "1s"}]}}}}),
        )
        .await
        .unwrap();
    let (code, said) = pipeline("examples/restore-template.yaml", "VERSION=2").await;
    assert_eq!(code, 0, "{said}");
    let pods = example.scene.namespace.api(&example.scene.namespace.env.admin, "v1", "Pod");
    let pods = pods.list(&ListParams::default().labels("app=web")).await.unwrap();
    assert!(pods.items.iter().any(|p| p.data.to_string().contains(r#""value":"2""#)));
    example.scene.operator.assert_healthy().await;
}

/// The errors are as stable's all the time; the smoke test passes for the first change and fails for the second.
#[tokio::test]
async fn checks_beside_a_guard() {
    let smoke = checks::Smoke::start();
    let change = |yaml: String| {
        let changed = yaml.replace("http://smoke.{{namespace}}:8080/", &format!("http://{}/", smoke.address));
        assert_ne!(changed, yaml, "the file names the address that is replaced");
        changed
    };
    let Some(mut example) = Example::start("guard-checks.yaml", change).await else { return };
    let load = example.load(60).await;
    example.next("release").await;
    let good = example.scene.releases().await.pop().unwrap();
    let checks = good["status"]["analysis"]["guards"][1]["checks"].clone();
    assert!(int(&checks, "/passed") >= 4 && int(&checks, "/failed") == 0, "{checks}");
    assert_eq!(text(&checks, "/lastResult"), "status 200, result 0");
    let asked = smoke.asked.lock().unwrap().clone();
    let name = text(&good, "/metadata/name");
    let revision = text(&good, "/spec/to/revision");
    let line = format!("GET /run?release={name}&revision={revision} HTTP/1.1");
    assert!(asked.iter().all(|asked| *asked == line) && !asked.is_empty(), "{line}: {asked:?}");

    let jobs = checks::jobs(&example.scene, &name).await;
    assert_eq!(jobs, [format!("{name}-requests-1-1 Complete"), format!("{name}-requests-2-2 Complete")]);

    smoke.failed.store(3, std::sync::atomic::Ordering::Relaxed);
    example.next("release").await;
    let said = example.next("explain").await;
    assert!(said.contains("Check smoke: passed 0 of 2, failed 2 (1 may)"), "{said}");
    assert!(said.contains("status 200, result 3"), "{said}");
    eprintln!("{said}");
    load.stop().await;
    let release = example.ends("RolledBack").await;
    assert_eq!(text(&release, "/status/reason"), "GuardFailed", "{}", brief(&release));
}
