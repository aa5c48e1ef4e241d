//! What happens in a world besides its controllers: people, other programs, and the truth about each version.

use belay::api::ReleasePhase;
use belay::api::release::Verb;
use serde_json::{Value, json};

use super::World;
use super::deployments::{int, text};
use super::oracle::owner_kind;
use super::pods::Fate;
use super::server::{Refusal, Server, Sort, child};

/// When the next thing of a script happens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum When {
    /// So many seconds after the one before.
    After(i64),
    /// When the weight of a step, from 0, is reached.
    Reached(u32),
    /// When the latest release is in this phase.
    Phase(ReleasePhase),
    /// When the canary was let go.
    HandedOver,
}

/// Something that somebody does.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// `kubectl set image`.
    Image(&'static str),
    /// Another manager applies its manifest: this image, not paused, no labels of Belay's.
    Apply(&'static str),
    /// `kubectl scale`.
    Scale(i64),
    /// `kubectl rollout resume`.
    Unpause,
    /// A command to the latest release.
    Command(Verb, Option<i32>, bool),
    /// A merge patch of the Rollout's spec.
    EditRollout(Value),
    DeleteRollout,
    DeleteDeployment,
    /// The latest one.
    DeleteRelease,
    /// Whether somebody's finalizer keeps the canary's ReplicaSet when it is deleted.
    KeepCanary(bool),
    /// How pods of an image behave from now on.
    Fate(&'static str, Fate),
    /// The share of bad requests of an image from now on, in per mille.
    Bad(&'static str, u32),
    /// Whether the metrics source answers.
    Source(bool),
    /// What checks of addresses say from now on; nothing: they get no answer.
    Checks(Option<bool>),
    /// Whether the pods of Jobs fail from now on.
    JobsFail(bool),
    /// `minReplicas` of the autoscaler.
    Floor(Option<i64>),
    /// What the autoscaler measures: how many pods the load needs.
    Load(i64),
    /// Whether the policies are there.
    Brake(bool),
    /// Seconds that the gateway takes for a change; nothing: it answers no more.
    Gateway(Option<i64>),
    /// The route, the workload's Service: deleted, or made again from its manifest.
    DeleteRoute,
    MakeRoute,
    DeleteService,
    MakeService,
    /// A GitOps program that applies this image every so many seconds; nothing: it stops.
    GitOps(Option<(&'static str, i64)>),
}

/// Something with its time.
pub type Line = (When, Act);

/// A pod template of one container.
pub fn template(image: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "app", "image": image}]},
    })
}

/// The manifest of the Deployment, as it stands in a repository.
pub fn deployment(image: &str, replicas: i64) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "progressDeadlineSeconds": 600,
            "template": template(image),
        },
    })
}

/// An autoscaler of the Deployment.
pub fn autoscaler(min: i64, max: i64) -> Value {
    json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "web"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "minReplicas": min, "maxReplicas": max,
        },
    })
}

/// The manifest of a Service of the workload.
pub fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "labels": {"team": "shop"}},
        "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
    })
}

/// The manifest of the route, with a rule that has nothing to do with the workload.
pub fn route() -> Value {
    let path = |path: &str| json!([{"path": {"type": "PathPrefix", "value": path}}]);
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "web", "annotations": {"example.com/owner": "shop"}},
        "spec": {
            "parentRefs": [{"name": "gateway"}],
            "rules": [
                {"matches": path("/old"), "filters": [{"type": "RequestRedirect", "requestRedirect": {"port": 8443}}]},
                {"matches": path("/"), "backendRefs": [{"group": "", "kind": "Service", "name": "web", "port": 80, "weight": 1}]},
            ],
        },
    })
}

/// Makes the Services and the route that a Rollout's spec names.
pub fn network(server: &mut Server, spec: &Value) {
    let (canary, blue_green) = (&spec["strategy"]["canary"], &spec["strategy"]["blueGreen"]);
    for name in [&canary["service"], &blue_green["activeService"], &blue_green["previewService"]] {
        if let Some(name) = name.as_str() {
            server.create("alice", Sort::Service, service(name)).unwrap();
        }
    }
    if canary.get("traffic").is_some() || blue_green.get("traffic").is_some() {
        server.create("alice", Sort::Route, route()).unwrap();
    }
}

/// Does it. What is refused is refused, as to a person.
pub fn act(world: &mut World, act: &Act) {
    if matches!(
        act,
        Act::Unpause | Act::Brake(false) | Act::DeleteRollout | Act::DeleteDeployment | Act::DeleteRelease
    ) {
        world.oracle.guards_brake = false;
    }
    if matches!(act, Act::Unpause | Act::Brake(false) | Act::DeleteDeployment | Act::DeleteService) {
        world.oracle.shares.guards_callers = false;
    }
    let server = &mut world.server;
    match act {
        Act::Image(image) => {
            drop(edit(server, "alice", |d| d["spec"]["template"] = template(image)));
        }
        Act::Apply(image) => drop(apply(server, image)),
        Act::Scale(replicas) => {
            world.scaled_at = world.server.now;
            drop(scale(&mut world.server, "alice", *replicas));
        }
        Act::Unpause => drop(edit(server, "alice", |d| drop(members(&mut d["spec"]).remove("paused")))),
        Act::Command(verb, step, full) => command(world, *verb, *step, *full),
        Act::EditRollout(patch) => {
            drop(server.update("alice", Sort::Rollout, "web", false, |r| {
                json_patch::merge(&mut r["spec"], patch);
            }));
        }
        Act::DeleteRollout => drop(server.delete("alice", Sort::Rollout, "web", None)),
        Act::DeleteDeployment => drop(server.delete("alice", Sort::Deployment, "web", None)),
        Act::DeleteRelease => {
            if let Some(release) = server.releases().last() {
                let name = release.metadata.name.clone().unwrap();
                drop(server.delete("alice", Sort::Release, &name, None));
            }
        }
        Act::KeepCanary(keep) => {
            let sets = server.all(Sort::ReplicaSet).filter(|rs| owner_kind(rs) == "Rollout");
            let names: Vec<String> = sets.map(|rs| text(rs, "/metadata/name").to_owned()).collect();
            for name in names {
                let kept = if *keep { json!(["example.com/kept"]) } else { json!([]) };
                drop(server.update("alice", Sort::ReplicaSet, &name, false, |rs| {
                    rs["metadata"]["finalizers"] = kept;
                }));
            }
        }
        Act::Fate(image, fate) => world.node.set_fate(Some(image), *fate),
        Act::Bad(image, share) => {
            world.truth.bad.insert((*image).to_owned(), f64::from(*share) / 1000.0);
        }
        Act::Source(up) => {
            world.truth.down_since = if *up { None } else { Some(world.server.now) };
        }
        Act::Checks(says) => {
            (world.truth.checks_fail, world.truth.checks_silent) = (*says == Some(false), says.is_none());
        }
        Act::JobsFail(fail) => world.node.jobs_fail = *fail,
        Act::Floor(min) => {
            drop(server.update("alice", Sort::Autoscaler, "web", false, |a| match min {
                Some(min) => a["spec"]["minReplicas"] = json!(min),
                None => drop(members(&mut a["spec"]).remove("minReplicas")),
            }));
        }
        Act::Load(pods) => world.load = Some(*pods),
        Act::Brake(there) => server.braked = *there,
        Act::Gateway(lag) => world.gateway.lag = lag.map(|seconds| seconds * 1000),
        Act::DeleteRoute => drop(server.delete("alice", Sort::Route, "web", None)),
        Act::MakeRoute => drop(server.create("alice", Sort::Route, route())),
        Act::DeleteService => drop(server.delete("alice", Sort::Service, "web", None)),
        Act::MakeService => drop(server.create("alice", Sort::Service, service("web"))),
        Act::GitOps(wish) => {
            world.gitops = wish.map(|(image, every)| (image, every * 1000, world.server.now));
        }
    }
}

fn members(value: &mut Value) -> &mut serde_json::Map<String, Value> {
    value.as_object_mut().unwrap()
}

/// A change of the Deployment by a person or a program.
pub fn edit(server: &mut Server, by: &str, change: impl FnOnce(&mut Value)) -> Result<Value, Refusal> {
    server.update(by, Sort::Deployment, "web", false, change)
}

/// What GitOps does: the manifest by force, whatever is there, but for the number of pods.
pub fn apply(server: &mut Server, image: &str) -> Result<Value, Refusal> {
    apply_network(server, "gitops");
    edit(server, "gitops", |d| {
        let labels = members(child(&mut d["metadata"], "labels"));
        labels.retain(|key, _| !key.starts_with("belay.dev/"));
        labels.insert("app".to_owned(), json!("web"));
        d["spec"]["template"] = template(image);
        d["spec"]["paused"] = json!(false);
    })
}

/// The manifests of Services and routes by force, as far as they are there.
pub fn apply_network(server: &mut Server, by: &str) {
    for (sort, manifest) in
        [(Sort::Service, service("web")), (Sort::Service, service("preview")), (Sort::Route, route())]
    {
        drop(server.update(by, sort, text(&manifest, "/metadata/name"), false, |object| {
            object["spec"] = manifest["spec"].clone();
            for map in ["labels", "annotations"] {
                if let Some(present) = object["metadata"][map].as_object_mut() {
                    present.retain(|key, _| !key.starts_with("belay.dev/"));
                }
            }
        }));
    }
}

/// The scale subresource, which the brake does not look at.
pub fn scale(server: &mut Server, by: &str, replicas: i64) -> Result<Value, Refusal> {
    let braked = std::mem::replace(&mut server.braked, false);
    let scaled = edit(server, by, |d| d["spec"]["replicas"] = json!(replicas));
    server.braked = braked;
    scaled
}

fn command(world: &mut World, verb: Verb, step: Option<i32>, full: bool) {
    let Some(release) = world.server.releases().pop() else { return };
    let mut command = json!({"verb": verb, "reason": "because"});
    if let Some(step) = step {
        command["step"] = json!(step);
    }
    if full {
        command["full"] = json!(true);
    }
    let name = release.metadata.name.clone().unwrap();
    let written = world.server.update("alice", Sort::Release, &name, false, |r| {
        let list = &mut r["spec"]["commands"];
        if !list.is_array() {
            *list = json!([]);
        }
        list.as_array_mut().unwrap().push(command);
    });
    if written.is_ok() && verb == Verb::Retry {
        world.oracle.may_return(&release.spec.to.revision);
    }
}

/// The autoscaler's controller: the load over all pods that the selector finds, the canary's included.
pub fn autoscale(world: &mut World) -> bool {
    let (Some(load), Some(scaler), Some(deployment)) =
        (world.load, world.server.get(Sort::Autoscaler, "web"), world.server.get(Sort::Deployment, "web"))
    else {
        return false;
    };
    let present = deployment["spec"]["replicas"].as_i64().unwrap_or(1);
    let pods = world.server.all(Sort::Pod).filter(|p| super::pods::is_ready(p)).count();
    let pods = i64::try_from(pods).unwrap().max(1);
    let (min, max) = (
        scaler["spec"]["minReplicas"].as_i64().unwrap_or(1),
        scaler["spec"]["maxReplicas"].as_i64().unwrap_or(i64::MAX),
    );
    // Within a tenth of the target nothing is done.
    let off = (load * 10 - pods * 10).abs() > pods;
    let wanted = if off {
        (present * load).div_euclid(pods) + i64::from((present * load) % pods > 0)
    } else {
        present
    };
    let wanted = wanted.clamp(min, max);
    if present == 0 || wanted == present {
        return false;
    }
    world.scaled_at = world.server.now;
    scale(&mut world.server, "horizontal-pod-autoscaler", wanted).is_ok()
}

/// Whether it is time for a line.
pub fn is_time(world: &World, when: When, since: i64) -> bool {
    let release = || world.server.latest_release();
    match when {
        When::After(seconds) => world.server.now >= since + seconds * 1000,
        When::Reached(index) => release().is_some_and(|r| {
            int(r, "/status/step/index") == i64::from(index)
                && r.pointer("/status/step/runningSince").is_some()
                && ["Progressing", "Paused"].contains(&text(r, "/status/phase"))
        }),
        When::Phase(phase) => release().is_some_and(|r| text(r, "/status/phase") == format!("{phase:?}")),
        When::HandedOver => release().is_some_and(|release| {
            let rs = world.server.get(Sort::ReplicaSet, text(release, "/spec/to/replicaSet"));
            rs.is_some_and(|rs| {
                super::deployments::controller(rs).is_none_or(|o| text(o, "/kind") == "Deployment")
            })
        }),
    }
}
