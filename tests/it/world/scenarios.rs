//! The small world: every kind of thing that happens to a release, one scenario each.

use belay::api::ReleasePhase;
use belay::api::release::Verb;
use serde_json::{Value, json};

use super::World;
use super::pods::Fate;
use super::script::{Act, Line, When, autoscaler};

/// A scenario: where it starts, what happens, and how long it is watched afterwards.
pub struct Scenario {
    pub name: String,
    pub replicas: i64,
    pub spec: Value,
    pub autoscaler: Option<Value>,
    pub script: Vec<Line>,
    /// Seconds after the last line.
    pub tail: i64,
    /// Whether the size of the workload changes, so that fewer pods may be ready for a while.
    pub resized: bool,
    /// Whether how long it takes depends on when looks are taken, so that histories differ in more than their end.
    pub timed: bool,
    /// Whether somebody acts at the very moment when the operator does, so that either may be first.
    pub raced: bool,
    /// Of its histories with a fault or an old view one in so many is played; with `BELAY_WHOLE` all are.
    pub share: usize,
}

impl Scenario {
    pub fn new(name: &str, script: Vec<Line>) -> Self {
        Self {
            name: name.to_owned(),
            replicas: 5,
            spec: plain(),
            autoscaler: None,
            script,
            tail: 120,
            resized: false,
            timed: false,
            raced: false,
            share: 1,
        }
    }

    /// Whether the next history is to be played.
    pub fn has_turn(&self, turn: &mut usize) -> bool {
        *turn += 1;
        (*turn).is_multiple_of(self.share) || std::env::var_os("BELAY_WHOLE").is_some()
    }

    pub fn spec(self, spec: Value) -> Self {
        Self { spec, ..self }
    }

    pub fn tail(self, tail: i64) -> Self {
        Self { tail, ..self }
    }

    pub fn timed(self) -> Self {
        Self { timed: true, ..self }
    }

    pub fn resized(self) -> Self {
        Self { resized: true, ..self }
    }

    /// The world at its start.
    pub fn world(&self) -> World {
        let mut world = World::stable_with(self.replicas, &self.spec, self.autoscaler.clone());
        world.oracle.guards_capacity = !self.resized;
        world.script = self.script.clone().into();
        world.since = world.server.now;
        world
    }
}

/// Three steps of ten seconds, no guards.
pub fn plain() -> Value {
    steps(&json!([
        {"weight": 10, "minDuration": "10s"}, {"weight": 25, "minDuration": "10s"}, {"weight": 50, "minDuration": "10s"},
    ]))
}

fn steps(steps: &Value) -> Value {
    json!({"strategy": {"canary": {"steps": steps}}})
}

/// Two steps with a guard on errors, and a look every five seconds.
pub fn guarded() -> Value {
    let mut spec = steps(&json!([
        {"weight": 10, "minDuration": "10s", "maxDuration": "10m"},
        {"weight": 50, "minDuration": "10s", "maxDuration": "10m"},
    ]));
    let counter = |metric: &str| json!({"metric": metric});
    spec["analysis"] = json!({
        "warmUp": "0s",
        "metrics": {"pods": {"port": 8080}},
        "guards": [{
            "name": "errors",
            "ratio": {"bad": counter("bad"), "total": counter("all"), "tolerate": "1.2x + 0.1%"},
        }],
    });
    spec
}

/// Two steps with a check of an address every five seconds, of which one run may fail, and one of the other check.
pub fn checked() -> Value {
    let mut spec = steps(&json!([
        {"weight": 10, "minDuration": "10s", "maxDuration": "10m"},
        {"weight": 50, "minDuration": "10s", "maxDuration": "10m"},
    ]));
    let web = json!({"url": "http://web/check", "interval": "5s", "failureLimit": 1, "successes": 2});
    let cel = json!({"condition": "checks.smoke.passed >= checks.smoke.failed", "interval": "5s"});
    spec["analysis"] =
        json!({"guards": [{"name": "smoke", "web": web}, {"name": "more-pass-than-fail", "cel": cel}]});
    spec
}

/// Two steps with a Job as their gate, of which one run may fail.
pub fn gated() -> Value {
    let mut spec = steps(&json!([
        {"weight": 10, "minDuration": "10s", "maxDuration": "10m"},
        {"weight": 50, "minDuration": "10s", "maxDuration": "10m"},
    ]));
    let job = json!({"template": {"containers": [{"name": "test", "image": "test:1"}]}, "failureLimit": 1});
    spec["analysis"] = json!({"guards": [{"name": "gate", "job": job}]});
    spec
}

/// A second step that waits for a person.
pub fn approved() -> Value {
    steps(&json!([{"weight": 10, "minDuration": "10s"}, {"weight": 50, "minDuration": "10s", "pause": true}]))
}

pub fn with(mut spec: Value, field: &str, value: Value) -> Value {
    spec[field] = value;
    spec
}

/// What the release that somebody deleted left behind is kept, and so is the Rollout.
pub const KEPT: &str = "release and rollout deleted, the canary kept";

pub const V2: Line = (When::After(1), Act::Image("v2"));

pub fn after(seconds: i64, act: Act) -> Line {
    (When::After(seconds), act)
}

pub fn command(verb: Verb) -> Act {
    Act::Command(verb, None, false)
}

/// All of them; with `BELAY_SCENARIO` only those whose names contain it.
pub fn all() -> Vec<Scenario> {
    let mut all = every();
    all.extend(super::routed::all());
    if let Some(wanted) = std::env::var_os("BELAY_SCENARIO") {
        all.retain(|s| s.name.contains(&*wanted.to_string_lossy()));
        assert!(!all.is_empty(), "no scenario has a name like that");
    }
    all
}

#[expect(clippy::too_many_lines, reason = "a list reads best in one piece")]
fn every() -> Vec<Scenario> {
    let mut all =
        vec![
            Scenario::new("good", vec![V2]),
            Scenario::new("good with guards", vec![V2]).spec(guarded()).tail(600).timed(),
            Scenario::new("bad", vec![after(0, Act::Bad("v2", 50)), V2]).spec(guarded()).tail(300).timed(),
            Scenario::new("slow", vec![after(0, Act::Fate("v2", Fate::Slow(20))), V2]).tail(200),
            Scenario::new(
                "no data for a while",
                vec![V2, (When::Reached(0), Act::Source(false)), after(100, Act::Source(true))],
            )
            .spec(guarded())
            .tail(700)
            .timed(),
            Scenario::new("good with checks", vec![V2]).spec(checked()).tail(300).timed(),
            Scenario::new("checks fail", vec![V2, (When::Reached(1), Act::Checks(Some(false)))])
                .spec(checked())
                .tail(300)
                .timed(),
            Scenario::new(
                "checks without an answer",
                vec![V2, (When::Reached(0), Act::Checks(None)), after(100, Act::Checks(Some(true)))],
            )
            .spec(checked())
            .tail(300)
            .timed(),
            Scenario::new("good with a job", vec![V2]).spec(gated()).tail(300).timed(),
            Scenario::new("a job fails", vec![V2, (When::Reached(1), Act::JobsFail(true))])
                .spec(gated())
                .tail(300)
                .timed(),
            Scenario::new("abort while a job runs", vec![V2, (When::Reached(0), command(Verb::Abort))])
                .spec(gated())
                .tail(300)
                .timed(),
            Scenario::new("no data for too long", vec![V2, (When::Reached(0), Act::Source(false))])
                .spec(bounded())
                .tail(300)
                .timed(),
            Scenario::new(
                "approval",
                vec![V2, (When::Reached(1), Act::Fate("v3", Fate::Good)), after(60, command(Verb::Approve))],
            )
            .spec(approved()),
            Scenario::new(
                "pause and resume",
                vec![V2, (When::Reached(1), command(Verb::Pause)), after(50, command(Verb::Resume))],
            ),
            Scenario::new(
                "promote to the end",
                vec![V2, (When::Reached(0), Act::Command(Verb::Promote, Some(1), true))],
            ),
            Scenario::new(
                "promote one step",
                vec![V2, (When::Reached(1), Act::Command(Verb::Promote, Some(2), false))],
            ),
            Scenario::new(
                "a command for another step",
                vec![V2, (When::Reached(1), Act::Command(Verb::Promote, Some(1), false))],
            ),
            Scenario::new(
                "rollout edited",
                vec![
                    V2,
                    (
                        When::Reached(1),
                        Act::EditRollout(json!({"strategy": {"canary": {"steps": [{"weight": 5}]}}})),
                    ),
                ],
            ),
            Scenario::new(
                "rollout paused at rest",
                vec![
                    after(0, Act::EditRollout(json!({"paused": true}))),
                    V2,
                    after(60, Act::EditRollout(json!({"paused": false}))),
                ],
            ),
            Scenario::new(
                "retry",
                vec![
                    after(0, Act::Fate("v2", Fate::Crash(1))),
                    V2,
                    after(30, Act::Fate("v2", Fate::Good)),
                    after(1, command(Verb::Retry)),
                ],
            ),
            Scenario::new(
                "rejected, then another change",
                vec![after(0, Act::Fate("v2", Fate::Crash(1))), V2, after(30, Act::Image("v3"))],
            ),
            Scenario::new("template restored", vec![after(0, Act::Fate("v2", Fate::Crash(1))), V2])
                .spec(with(plain(), "rollback", json!({"restoreTemplate": true}))),
            Scenario::new(
                "failure held, then aborted",
                vec![
                    // In the second step, however long a takeover takes.
                    after(0, Act::Fate("v2", Fate::Crash(20))),
                    V2,
                    after(60, command(Verb::Abort)),
                ],
            )
            .spec(with(plain(), "rollback", json!({"automatic": false}))),
            Scenario::new("back to an older revision", vec![V2, after(120, Act::Image("v1"))]),
            Scenario::new("unpaused past the brake", vec![V2, (When::Reached(1), Act::Unpause)]),
            Scenario::new(
                "applied again by gitops",
                vec![after(0, Act::GitOps(Some(("v2", 2)))), after(100, Act::GitOps(None))],
            ),
            Scenario::new(
                "a bad version applied again by gitops",
                vec![
                    after(0, Act::Fate("v2", Fate::Crash(1))),
                    after(0, Act::GitOps(Some(("v2", 2)))),
                    after(60, Act::GitOps(None)),
                ],
            ),
            Scenario::new("release deleted", vec![V2, (When::Reached(1), Act::DeleteRelease)]),
            Scenario::new(
                KEPT,
                vec![
                    V2,
                    (When::Reached(1), Act::KeepCanary(true)),
                    after(0, Act::DeleteRelease),
                    after(0, Act::DeleteRollout),
                    after(30, Act::KeepCanary(false)),
                ],
            ),
            Scenario::new("deployment deleted", vec![V2, (When::Reached(1), Act::DeleteDeployment)])
                .resized(),
            Scenario { autoscaler: Some(autoscaler(2, 10)), ..Scenario::new("autoscaler at rest", vec![V2]) },
            Scenario {
                autoscaler: Some(autoscaler(2, 10)),
                ..Scenario::new(
                    "autoscaler under load",
                    vec![after(0, Act::Load(5)), V2, (When::Reached(1), Act::Load(8))],
                )
                .tail(200)
                .timed()
                .resized()
            },
            Scenario {
                autoscaler: Some(autoscaler(2, 10)),
                ..Scenario::new(
                    "autoscaler under the same load",
                    vec![
                        after(0, Act::Load(5)),
                        V2,
                        (When::Reached(1), Act::Load(5)),
                        after(60, command(Verb::Approve)),
                    ],
                )
                .spec(approved())
                .timed()
            },
            Scenario {
                autoscaler: Some(autoscaler(2, 10)),
                ..Scenario::new(
                    "a floor that somebody changes",
                    vec![V2, (When::Reached(1), Act::Floor(Some(3)))],
                )
            },
        ];
    for (what, fate) in [
        ("crash at once", Fate::Crash(1)),
        ("crash later", Fate::Crash(20)),
        ("out of memory", Fate::OutOfMemory(5)),
        ("readiness lost", Fate::LosesReadiness(8)),
        ("readiness flaps", Fate::Flaps(7)),
        ("never ready", Fate::NeverReady),
        ("unschedulable", Fate::Unschedulable),
    ] {
        let spec = with(plain(), "progressDeadline", json!("60s"));
        all.push(Scenario::new(what, vec![after(0, Act::Fate("v2", fate)), V2]).spec(spec));
    }
    for index in 0..3 {
        let at = |what: &str, act: Act| {
            Scenario::new(&format!("{what} at step {}", index + 1), vec![V2, (When::Reached(index), act)])
        };
        all.push(at("abort", command(Verb::Abort)));
        all.push(at("another change", Act::Image("v3")));
        all.push(at("change back", Act::Image("v1")));
        all.push(at("scaled up", Act::Scale(8)).resized());
        all.push(at("scaled down", Act::Scale(2)).resized());
        all.push(at("rollout deleted", Act::DeleteRollout));
    }
    for (what, act) in [
        ("abort", command(Verb::Abort)),
        ("another change", Act::Image("v3")),
        ("change back", Act::Image("v1")),
    ] {
        let name = format!("{what} while it is handed over");
        let script = vec![V2, (When::Phase(ReleasePhase::Promoting), act)];
        all.push(Scenario { raced: true, ..Scenario::new(&name, script) });
    }
    for (what, act) in
        [("scaled", Act::Scale(7)), ("scaled down", Act::Scale(3)), ("another change", Act::Image("v3"))]
    {
        let name = format!("{what} right after the handover");
        all.push(Scenario::new(&name, vec![V2, (When::HandedOver, act)]).tail(200).resized());
    }
    all
}

/// With a bound of a minute for missing data.
fn bounded() -> Value {
    let mut spec = guarded();
    spec["analysis"]["onNoData"] = json!({"action": "hold", "after": "1m", "then": "rollback"});
    spec
}
