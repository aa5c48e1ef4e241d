//! The main loop.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use kube::Client;
use serde_json::Value;
use tokio::sync::mpsc;
use tracing::{debug, error, info, warn};

use super::brake::{BrakeView, discover};
use super::lease::Lease;
use super::queue::{Ended, Queue};
use super::writes::{Writes, chain};
use super::{Metrics, OperatorError, Options};
use crate::analysis::query::{self, Target};
use crate::analysis::{Plan, Sample, Side};
use crate::api::Release;
use crate::clock::now;
use crate::cluster::http::Http;
use crate::cluster::{Resource, client, watching_client};
use crate::decide::{Decision, Identity, Memory, Observation, decide};
use crate::observe::{Cache, Key, Kind, News, watch, watch_brake, watch_lease};
use crate::server;

/// Rollouts that are written to at the same time.
const CONCURRENCY: usize = 16;
/// News and reports that wait; more than this and the watches wait.
const BACKLOG: usize = 4096;
/// Longest time for one look, all pods together.
const LOOK_DEADLINE: Duration = Duration::from_secs(20);
/// How long passes may go on at the end: what is left of them then is for whoever takes over.
const HANDOVER: Duration = Duration::from_millis(500);
/// How long running writes are waited for at the end.
const GRACE: Duration = Duration::from_secs(12);

/// What the tasks beside the main loop report.
pub(super) enum Report {
    /// The API server answered a write.
    Written(Resource, Box<Value>),
    /// An object is gone.
    Buried(Resource, Identity),
    /// A pass ended.
    Ended { key: Key, ended: Ended },
    /// A look was taken.
    Looked { key: Key, release: String, sample: Box<Sample> },
}

struct Loop {
    client: Client,
    http: Arc<Http>,
    lease: Arc<Lease>,
    /// Tenures of other processes that were reckoned with.
    others: u64,
    metrics: Arc<Metrics>,
    instance: Arc<str>,
    reports: mpsc::Sender<Report>,
    cache: Cache,
    queue: Queue,
    memory: BTreeMap<Key, Memory>,
    /// What is remembered, and when to wake, if all writes of the present pass succeed.
    pending: BTreeMap<Key, (Option<Memory>, Option<Timestamp>)>,
    samples: BTreeMap<Key, (String, Sample)>,
    looking: BTreeSet<Key>,
    brake: BrakeView,
}

/// Runs the operator until the process is asked to end.
pub async fn run(options: Options) -> Result<(), OperatorError> {
    let config = options.target.config().await?;
    let watching = watching_client(config.clone())?;
    let client = client(config)?;
    let http = Arc::new(Http::new());
    let state = Arc::new(server::State::default());
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let pages = serve_pages(&options, &state, stopped).await?;

    let brake = discover(&client, &options).await?;
    let (news_in, mut news) = mpsc::channel(BACKLOG);
    let mut watches = tokio::task::JoinSet::new();
    for kind in Kind::ALL {
        watches.spawn(watch(watching.clone(), options.namespace.clone(), kind, news_in.clone()));
    }
    if brake.served {
        for policy in [true, false] {
            watches.spawn(watch_brake(watching.clone(), policy, options.brake.clone(), news_in.clone()));
        }
    }
    let (namespace, name) = (options.lease_namespace.clone(), options.lease_name.clone());
    watches.spawn(watch_lease(watching.clone(), namespace.clone(), name.clone(), news_in.clone()));
    drop(news_in);

    let (reports_in, mut reports) = mpsc::channel(BACKLOG);
    let lease = Lease::new(client.clone(), state.metrics.clone(), namespace, name, &options.instance);
    let mut main = Loop {
        client,
        http,
        lease: Arc::new(lease),
        others: 0,
        metrics: state.metrics.clone(),
        instance: options.instance.as_str().into(),
        reports: reports_in,
        cache: Cache::default(),
        queue: Queue::default(),
        memory: BTreeMap::new(),
        pending: BTreeMap::new(),
        samples: BTreeMap::new(),
        looking: BTreeSet::new(),
        brake,
    };
    main.judge_brake();
    info!(instance = %options.instance, namespace = options.namespace.as_deref().unwrap_or("*"), "operator starts");

    let mut asked = std::pin::pin!(asked_to_end()?);
    let mut ending = false;
    loop {
        if main.cache.synced() && !state.ready.swap(true, Ordering::Relaxed) {
            info!("all watches are listed");
        }
        if !ending {
            main.start_passes();
        } else if main.queue.busy() == 0 {
            break;
        }
        let timer = main.until_next_timer();
        tokio::select! {
            // Reports first: a decision must see the writes of the one before it.
            biased;
            Some(report) = reports.recv() => main.take_report(report),
            () = &mut asked, if !ending => {
                info!("asked to end; finishing the writes that run");
                ending = true;
                let lease = main.lease.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(HANDOVER).await;
                    lease.close();
                    tokio::time::sleep(GRACE).await;
                    error!("writes did not end in time");
                    std::process::exit(1);
                });
            }
            item = news.recv() => match item {
                Some(item) => main.take_news(item),
                None => break,
            },
            () = tokio::time::sleep(timer) => main.queue.due(now()),
        }
    }
    state.ready.store(false, Ordering::Relaxed);
    watches.abort_all();
    if let Err(error) = main.lease.release().await {
        warn!(error = %chain(&error), "the lease was not given back; it lapses by itself");
    }
    // The receiver is gone if no pages were served.
    stop.send_replace(true);
    if let Some(pages) = pages {
        pages.abort();
    }
    info!("operator ends");
    Ok(())
}

async fn serve_pages(
    options: &Options,
    state: &Arc<server::State>,
    mut stopped: tokio::sync::watch::Receiver<bool>,
) -> Result<Option<tokio::task::JoinHandle<()>>, OperatorError> {
    let Some(address) = options.listen else { return Ok(None) };
    let listen = |source| OperatorError::Listen { address, source };
    let listener = tokio::net::TcpListener::bind(address).await.map_err(listen)?;
    info!(address = %listener.local_addr().map_err(listen)?, "probes and figures are served");
    let state = state.clone();
    Ok(Some(tokio::spawn(async move {
        let stop = async move {
            // An error means that the sender is gone: the process ends.
            if stopped.changed().await.is_err() {}
        };
        if let Err(error) = server::serve(listener, state, stop).await {
            error!(%error, "pages are not served any more");
        }
    })))
}

/// Done when the process receives SIGTERM or SIGINT.
fn asked_to_end() -> Result<impl Future<Output = ()>, OperatorError> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut term = signal(SignalKind::terminate()).map_err(OperatorError::Signal)?;
    let mut int = signal(SignalKind::interrupt()).map_err(OperatorError::Signal)?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    })
}

impl Loop {
    fn judge_brake(&mut self) {
        if let Some(brake) = self.brake.judge() {
            let keys = self.cache.set_brake(brake);
            self.enqueue(keys);
        }
    }

    fn enqueue(&mut self, keys: Vec<Key>) {
        let since = now();
        for key in keys {
            self.queue.add(key, since);
        }
    }

    fn until_next_timer(&self) -> Duration {
        let far = SignedDuration::from_secs(3600);
        let left = self.queue.next().map_or(far, |at| at.duration_since(now()));
        Duration::try_from(left.clamp(SignedDuration::ZERO, far)).unwrap_or_default()
    }

    fn take_news(&mut self, news: News) {
        let keys = match news {
            News::Begin(kind) => {
                self.cache.begin(kind);
                Vec::new()
            }
            News::Put(kind, object) => self.cache.put(kind, &object),
            News::Remove(kind, object) => {
                let keys = self.cache.remove(kind, &object);
                if kind == Kind::Rollouts {
                    self.forget(&object);
                }
                keys
            }
            News::Finish(kind) => self.cache.finish(kind),
            News::Brake(policy, object) => {
                if policy {
                    self.brake.policy = object.into();
                } else {
                    self.brake.binding = object.into();
                }
                self.judge_brake();
                Vec::new()
            }
            News::Lease(object) => {
                if self.lease.learn(object.as_deref()) {
                    self.queue.lease_is_free(now());
                }
                Vec::new()
            }
            News::Trouble(text) => {
                self.metrics.trouble();
                warn!(watch = %text, "a watch was interrupted; it goes on");
                Vec::new()
            }
        };
        self.enqueue(keys);
    }

    fn forget(&mut self, rollout: &Value) {
        let id = crate::observe::identity(rollout);
        let key = (id.namespace, id.name);
        self.memory.remove(&key);
        self.samples.remove(&key);
    }

    fn take_report(&mut self, report: Report) {
        match report {
            Report::Written(resource, object) => {
                let keys = self.cache.written(resource, &object);
                self.enqueue(keys);
            }
            Report::Buried(resource, id) => self.cache.buried(resource, &id),
            Report::Ended { key, ended } => self.end_pass(&key, ended),
            Report::Looked { key, release, sample } => {
                self.looking.remove(&key);
                self.metrics.look();
                if let Err(reason) = &sample.outcome {
                    debug!(namespace = %key.0, rollout = %key.1, %reason, "no data");
                }
                self.samples.insert(key.clone(), (release, *sample));
                self.enqueue(vec![key]);
            }
        }
    }

    /// Drops what is remembered if another process wrote since: what is written counts.
    fn reckon_with_others(&mut self) {
        let others = self.lease.others();
        if others != self.others {
            self.others = others;
            self.memory.clear();
            for (memory, _) in self.pending.values_mut() {
                *memory = None;
            }
        }
    }

    fn end_pass(&mut self, key: &Key, ended: Ended) {
        self.reckon_with_others();
        let (memory, wake) = self.pending.remove(key).unwrap_or_default();
        // What was decided on may not have happened: then only what is written counts. The looks since are not
        // lost, the counters go on from the last one that is written.
        match memory.filter(|_| matches!(ended, Ended::Idle | Ended::Written)) {
            Some(memory) => self.memory.insert(key.clone(), memory),
            None => self.memory.remove(key),
        };
        self.queue.done(key, ended, wake, now());
    }

    fn start_passes(&mut self) {
        if !self.cache.synced() {
            return;
        }
        self.queue.due(now());
        let mut any = false;
        while let Some((key, since)) = self.queue.take(CONCURRENCY) {
            any = true;
            self.start_pass(key, since);
        }
        if any {
            self.metrics.releases(self.cache.releases(), now());
        }
        self.metrics.queue(self.queue.len());
    }

    fn start_pass(&mut self, key: Key, since: Timestamp) {
        let Some(mut observation) = self.cache.observe(&key) else {
            self.queue.forget(&key);
            return;
        };
        // The ticket first: what is learnt in between makes it void.
        let ticket = self.lease.ticket();
        self.reckon_with_others();
        observation.memory = self.memory.get(&key).cloned();
        let running = running(&observation).and_then(|r| r.metadata.uid.clone());
        observation.sample = self
            .samples
            .remove(&key)
            .filter(|(release, _)| Some(release) == running.as_ref())
            .map(|(_, sample)| sample);
        let begun = Instant::now();
        let decision = decide(&observation, now());
        self.metrics.decision(begun.elapsed().as_secs_f64());
        for reason in &decision.reasons {
            debug!(namespace = %key.0, rollout = %key.1, reason = reason.code(), "decided: {reason}");
        }
        if decision.sample {
            self.look(&key, &observation);
        }
        let Decision { effects, memory, wake_at, .. } = decision;
        self.pending.insert(key.clone(), (memory, wake_at));
        if effects.is_empty() {
            self.end_pass(&key, Ended::Idle);
            return;
        }
        let pass = Writes {
            client: self.client.clone(),
            lease: self.lease.clone(),
            ticket,
            metrics: self.metrics.clone(),
            instance: self.instance.clone(),
            reports: self.reports.clone(),
            release: running_name(&observation),
            key,
            since,
        };
        tokio::spawn(pass.carry_out(effects));
    }

    /// Takes a look beside the main loop, one at a time per Rollout.
    fn look(&mut self, key: &Key, observation: &Observation) {
        if self.looking.contains(key) {
            return;
        }
        let Some((release, plan, targets)) = look_at(observation) else { return };
        self.looking.insert(key.clone());
        let (http, reports, key) = (self.http.clone(), self.reports.clone(), key.clone());
        tokio::spawn(async move {
            let at = now();
            let look = tokio::time::timeout(LOOK_DEADLINE, query::sample(&http, &plan, &targets, at));
            let sample = look.await.unwrap_or_else(|_| Sample {
                at,
                outcome: Err(format!("the look took longer than {} s", LOOK_DEADLINE.as_secs())),
            });
            // The main loop is gone only when the process ends.
            drop(reports.send(Report::Looked { key, release, sample: Box::new(sample) }).await);
        });
    }
}

fn running(observation: &Observation) -> Option<&Release> {
    observation.releases.iter().find(|r| r.status.as_ref().is_none_or(|s| !s.phase.is_final()))
}

fn running_name(observation: &Observation) -> String {
    running(observation).and_then(|r| r.metadata.name.clone()).unwrap_or_default()
}

/// The pods to measure for the running release.
fn look_at(observation: &Observation) -> Option<(String, Plan, Vec<Target>)> {
    let release = running(observation)?;
    let plan = Plan::resolve(release.spec.analysis.as_ref()?, release.spec.planned_looks).ok()?;
    let canary = observation.replica_sets.iter().find(|rs| rs.id.name == release.spec.to.replica_set)?;
    let namespace = observation.rollout.metadata.namespace.clone().unwrap_or_default();
    let targets = observation
        .pods
        .iter()
        .filter(|pod| pod.ready && !pod.deleting)
        .filter_map(|pod| {
            Some(Target {
                uid: pod.uid.clone(),
                name: pod.name.clone(),
                namespace: namespace.clone(),
                ip: pod.ip,
                side: if pod.owner_uid == canary.id.uid { Side::Canary } else { Side::Stable },
                started_at: pod.ready_changed_at?,
            })
        })
        .collect();
    Some((release.metadata.uid.clone()?, plan, targets))
}
