//! `analyze`: the guards of a Rollout, tried on two halves of the pods that serve.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use super::args::Analyze;
use super::failure::{Exit, Failure, Kind};
use super::find;
use super::session::{Cluster, Session};
use crate::analysis::query::{SecretError, SecretValue, Secrets, Target, sample};
use crate::analysis::{
    GuardPlan, KnownTemplate, Plan, Side, Verdict, explain, explanation_text, fold, verdict, with_templates,
};
use crate::api::Rollout;
use crate::api::evidence::{AnalysisState, GuardState};
use crate::api::template::{AnalysisTemplate, ClusterAnalysisTemplate, Template, TemplateKind, TemplateRef};
use crate::clock;
use crate::cluster::http::Http;
use crate::cluster::through::Through;
use crate::decide::{INTERVAL_SECONDS, Reason, canary_pods, secs, steps};
use crate::report::analyze::{AnalyzeReport, AnalyzedGuard, StepProof};
use crate::report::seconds;

/// Between two words about the progress.
const NEWS: Duration = Duration::from_secs(30);

/// Looks at two halves of the pods for a while, and tells what the guards saw.
pub async fn run(session: &Session, args: &Analyze) -> Result<Exit, Failure> {
    let cluster = session.cluster().await?;
    let rollout = find::rollout(&cluster, args.name.as_deref()).await?;
    let plan = plan(&cluster, &rollout, args.time).await?;
    let (targets, stable) = halves(&cluster, &rollout).await?;
    let through = targets
        .iter()
        .filter_map(|target| Some((target.ip?, (target.namespace.clone(), target.name.clone()))));
    let through: BTreeMap<IpAddr, (String, String)> = through.collect();
    let http = Http::new().through(Through::new(cluster.client.clone(), through));
    session.say(&format!(
        "Looking every {} for {}; nothing is changed. Ctrl-C ends it early.",
        seconds(plan.interval),
        seconds(args.time)
    ));
    let (state, looked) = watch(session, &http, &plan, &targets, args.time).await;
    let report = report(&rollout, &plan, &state, &targets, looked, stable);
    session.print(&report)?;
    Ok(match (report.sees(), report.would_roll_back()) {
        (_, true) => Exit::NOT_PROMOTED,
        (false, _) => Exit::ERROR,
        _ => Exit::OK,
    })
}

/// The guards as a release of this length would have them.
async fn plan(cluster: &Cluster, rollout: &Rollout, time: Duration) -> Result<Plan, Failure> {
    let name = rollout.name_any();
    let unusable = |why: String| {
        Failure::new(Kind::Failed, format!("failed to use the guards of {name}"))
            .because(why)
            .hint("`belay lint` checks a file with a Rollout")
    };
    let Some(written) = &rollout.spec.analysis else {
        return Err(unusable("it has none: a release advances by time only".to_owned()));
    };
    let mut known = Vec::new();
    for reference in &written.templates {
        known.extend(template(cluster, reference).await?);
    }
    let analysis = with_templates(written, &known).map_err(|error| unusable(error.to_string()))?;
    let interval = analysis.interval.as_ref().map_or(INTERVAL_SECONDS as f64, secs).max(1.0);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturates, and is raised to 12"
    )]
    let looks = (time.as_secs_f64() / interval).ceil() as u32;
    let plan = Plan::resolve(&analysis, looks).map_err(|error| unusable(error.in_full()))?;
    if plan.guards.is_empty() {
        return Err(unusable("it has none: a release advances by time only".to_owned()));
    }
    if !plan.measures() {
        return Err(unusable("they are checks, which ask for one version and compare nothing".to_owned()));
    }
    Ok(plan)
}

async fn template(cluster: &Cluster, reference: &TemplateRef) -> Result<Option<KnownTemplate>, Failure> {
    let (kind, name) = (reference.kind.unwrap_or_default(), reference.name.clone());
    let what = format!("read the {kind} {name}");
    let found: Option<(i64, Template)> = match kind {
        TemplateKind::AnalysisTemplate => {
            let api: Api<AnalysisTemplate> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
            let found = cluster.ask(what, api.get_opt(&name)).await?;
            found.map(|found| (found.metadata.generation.unwrap_or(0), found.spec.template))
        }
        TemplateKind::ClusterAnalysisTemplate => {
            let api: Api<ClusterAnalysisTemplate> = Api::all(cluster.client.clone());
            let found = cluster.ask(what, api.get_opt(&name)).await?;
            found.map(|found| (found.metadata.generation.unwrap_or(0), found.spec.template))
        }
    };
    Ok(found.map(|(generation, spec)| KnownTemplate { kind, name, generation, spec: Ok(spec) }))
}

/// The ready pods of the workload in two halves by chance, and how many the workload wants.
async fn halves(cluster: &Cluster, rollout: &Rollout) -> Result<(Vec<Target>, i32), Failure> {
    let name = rollout.spec.workload_ref.name.clone();
    let tried = format!("failed to compare two halves of the pods of {name}");
    let releases = find::releases(cluster, &rollout.name_any()).await?;
    if let Some(running) = releases.iter().find(|release| !find::is_final(release)) {
        return Err(Failure::new(Kind::Failed, tried)
            .because(format!("the release {} runs, and its guards are at work", running.name_any()))
            .hint(format!("`belay explain {}` shows what they see", running.name_any())));
    }
    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let deployment = cluster.ask(format!("read the Deployment {name}"), deployments.get(&name)).await?;
    let spec = deployment.spec.unwrap_or_default();
    let labels = spec.selector.match_labels.unwrap_or_default();
    let selector: Vec<String> = labels.iter().map(|(label, value)| format!("{label}={value}")).collect();
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let params = ListParams::default().labels(&selector.join(",")).limit(500);
    let pods = cluster.ask(format!("list the pods of {name}"), pods.list(&params)).await?;
    let mut targets: Vec<Target> = pods.items.iter().filter_map(target).collect();
    if targets.len() < 2 {
        return Err(Failure::new(Kind::Failed, tried)
            .because(format!("it has {} ready, and each half needs one", targets.len()))
            .hint(format!(
                "`kubectl scale deployment {name} --replicas=2`, or wait until its pods are ready"
            )));
    }
    shuffle(&mut targets, clock::token());
    let half = targets.len() / 2;
    for target in targets.iter_mut().take(half) {
        target.side = Side::Canary;
    }
    Ok((targets, spec.replicas.unwrap_or(1)))
}

/// A ready pod.
fn target(pod: &Pod) -> Option<Target> {
    let status = pod.status.as_ref()?;
    let ready = status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
    if !ready || pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    Some(Target {
        uid: pod.uid()?,
        name: pod.name_any(),
        namespace: pod.namespace()?,
        ip: status.pod_ip.as_ref()?.parse().ok(),
        side: Side::Stable,
        started_at: status.start_time.as_ref()?.0,
    })
}

/// By a linear congruential generator (Knuth's MMIX constants): fair enough to part pods.
fn shuffle(targets: &mut [Target], mut seed: u64) {
    targets.sort_by(|a, b| a.uid.cmp(&b.uid));
    for last in (1..targets.len()).rev() {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let bound = u64::try_from(last + 1).unwrap_or(1);
        targets.swap(last, usize::try_from((seed >> 33) % bound).unwrap_or(0));
    }
}

/// No Secret is read for this: credentials would go to the API server.
struct NoSecrets;

impl Secrets for NoSecrets {
    fn read<'a>(
        &'a self,
        _: &'a str,
        name: &'a str,
        _: &'a [&'a str],
    ) -> BoxFuture<'a, Result<Vec<SecretValue>, SecretError>> {
        let reason = "a source with credentials cannot be asked through the API server".to_owned();
        let name = name.to_owned();
        async move { Err(SecretError::Unreachable { name, reason }) }.boxed()
    }
}

async fn watch(
    session: &Session,
    http: &Http,
    plan: &Plan,
    targets: &[Target],
    time: Duration,
) -> (AnalysisState, Duration) {
    let begun = clock::monotonic();
    let mut state = AnalysisState::default();
    let mut ticks = tokio::time::interval(plan.interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut told = Duration::ZERO;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            // Without a handler there is no early end; the time ends it all the same.
            Ok(()) = tokio::signal::ctrl_c() => return (state, clock::monotonic().since(begun)),
        }
        let look = sample(http, &NoSecrets, plan, targets, clock::now()).await;
        state = fold(&state, plan, &look);
        let looked = clock::monotonic().since(begun);
        if looked >= time {
            return (state, looked);
        }
        if looked.saturating_sub(told) >= NEWS {
            told = looked;
            let trouble = state.no_data_reason.as_deref().map(|why| format!("; {why}")).unwrap_or_default();
            session.say(&format!("{}: {} looks with data{trouble}", seconds(looked), state.looks));
        }
    }
}

fn report(
    rollout: &Rollout,
    plan: &Plan,
    state: &AnalysisState,
    targets: &[Target],
    looked: Duration,
    replicas: i32,
) -> AnalyzeReport {
    let names = |side| targets.iter().filter(|t| t.side == side).map(|t| t.name.clone()).collect();
    let guard = |guard: &GuardPlan| {
        let known = state.guards.iter().find(|known| known.name == guard.name).cloned().unwrap_or_default();
        let explained = explain(&known, guard, plan);
        let seen = known.looks > 0;
        AnalyzedGuard {
            name: guard.name.clone(),
            tolerate: guard.tolerated.to_string(),
            looks: known.looks,
            no_data: state.no_data_reason.clone().filter(|_| !seen),
            would_roll_back: explained.failed(),
            dispersion: explained.dispersion,
            spread: explained.spread,
            words: seen
                .then(|| explanation_text(&explained, "").split_whitespace().collect::<Vec<_>>().join(" ")),
            proof: proof(rollout, guard, &known, replicas),
        }
    };
    AnalyzeReport {
        rollout: rollout.name_any(),
        namespace: rollout.namespace().unwrap_or_default(),
        looked_seconds: looked.as_secs(),
        canary: names(Side::Canary),
        stable: names(Side::Stable),
        skewed: match verdict(state, plan) {
            Verdict::Skewed { canary, all, expected } => {
                Some(Reason::Skewed { canary, all, expected }.to_string())
            }
            _ => None,
        },
        guards: plan.guards.iter().filter(|guard| guard.is_measured()).map(guard).collect(),
    }
}

/// How long the proof takes in each step, at the traffic that was seen: all requests are shared between the canary's
/// pods and the workload's.
fn proof(rollout: &Rollout, guard: &GuardPlan, known: &GuardState, replicas: i32) -> Vec<StepProof> {
    let time = known.recent.last().map_or(0.0, |look| look.second);
    if time <= 0.0 || known.streams.is_empty() {
        return Vec::new();
    }
    let planned = steps(&rollout.spec);
    // Of many pods a part is measured.
    let measured = known.counters.len().max(1) as f64;
    let whole = f64::from(replicas.max(1)) / measured;
    let in_step = |weight: i32| {
        let canary = f64::from(canary_pods(replicas, weight));
        let share = canary / (canary + f64::from(replicas.max(1)));
        let each = known.streams.iter().map(|stream| {
            let bad = stream.totals.canary_bad + stream.totals.stable_bad;
            let events = stream.totals.canary_total + stream.totals.stable_total;
            let all = whole * events / time;
            let rate = if events > 0.0 { bad / events } else { 0.0 };
            guard.expected_seconds_to_proof(rate, all * share, all * (1.0 - share))
        });
        each.collect::<Option<Vec<f64>>>()?.into_iter().reduce(f64::max)
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, and saturates")]
    planned
        .iter()
        .map(|step| StepProof {
            weight: step.weight,
            seconds: in_step(step.weight).map(|seconds| seconds.ceil() as u64),
            at_most_seconds: secs(&step.max_duration) as u64,
        })
        .collect()
}
