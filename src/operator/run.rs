//! The main loop.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use jiff::SignedDuration;
use kube::Client;
use tokio::sync::mpsc;
use tracing::{debug, error, info, warn};

use super::brake::{BrakeView, discover};
use super::candidate::Ticket;
use super::core::{Checks, Core, Look, Pass, Report};
use super::lease::Lease;
use super::secrets::ClusterSecrets;
use super::writes::{Writes, chain};
use super::{Metrics, OperatorError, Options};
use crate::analysis::query;
use crate::analysis::{CheckRun, Sample};
use crate::api::router::Router;
use crate::clock::now;
use crate::cluster::http::Http;
use crate::cluster::{client, watching_client};
use crate::install::webhook::SERVICE;
use crate::observe::{Key, Kind, News, watch, watch_brake, watch_lease};
use crate::server;
use crate::webhook::{self, Webhook};

/// News and reports that wait; more than this and the watches wait.
const BACKLOG: usize = 4096;
/// Longest time for one look, all pods together.
const LOOK_DEADLINE: Duration = Duration::from_secs(20);
/// How long passes may go on at the end: what is left of them then is for whoever takes over.
const HANDOVER: Duration = Duration::from_millis(500);
/// How long running writes are waited for at the end.
const GRACE: Duration = Duration::from_secs(12);

struct Loop {
    client: Client,
    watching: Client,
    namespace: Option<String>,
    news: mpsc::Sender<News>,
    watches: tokio::task::JoinSet<()>,
    /// The kinds of routes that are watched. They stay watched: a Rollout that named one may name it again.
    routers: BTreeSet<Router>,
    http: Arc<Http>,
    secrets: Arc<ClusterSecrets>,
    lease: Arc<Lease>,
    /// Tenures of other processes that were reckoned with.
    metrics: Arc<Metrics>,
    instance: Arc<str>,
    reports: mpsc::Sender<Report>,
    core: Core,
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
    for (part, name) in brake.parts() {
        watches.spawn(watch_brake(watching.clone(), part, name, news_in.clone()));
    }
    let (namespace, name) = (options.lease_namespace.clone(), options.lease_name.clone());
    watches.spawn(watch_lease(watching.clone(), namespace.clone(), name.clone(), news_in.clone()));
    let webhook = serve_webhook(&options, &client, &watching, brake.user(), &state).await?;

    let (reports_in, mut reports) = mpsc::channel(BACKLOG);
    let lease = Lease::new(client.clone(), state.metrics.clone(), namespace, name, &options.instance);
    let secrets = Arc::new(ClusterSecrets::new(client.clone(), brake.user()));
    let mut main = Loop {
        client,
        watching,
        namespace: options.namespace.clone(),
        news: news_in,
        watches,
        routers: BTreeSet::new(),
        http,
        secrets,
        lease: Arc::new(lease),
        metrics: state.metrics.clone(),
        instance: options.instance.as_str().into(),
        reports: reports_in,
        core: Core::default(),
        brake,
    };
    main.judge_brake();
    info!(instance = %options.instance, namespace = options.namespace.as_deref().unwrap_or("*"), "operator starts");

    let mut asked = std::pin::pin!(asked_to_end()?);
    let mut ending = false;
    loop {
        if main.core.cache().synced() && !state.ready.swap(true, Ordering::Relaxed) {
            info!("all watches are listed");
        }
        if !ending {
            main.start_passes();
        } else if main.core.queue().busy() == 0 {
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
                webhook.iter().for_each(Webhook::stop);
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
            // What is due is taken up at the top of the loop.
            () = tokio::time::sleep(timer) => {}
        }
    }
    state.ready.store(false, Ordering::Relaxed);
    main.watches.abort_all();
    if let Err(error) = main.lease.release().await {
        warn!(error = %chain(&error), "the lease was not given back; it lapses by itself");
    }
    if let Some(webhook) = webhook {
        webhook.stopped().await;
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

/// Answers the API server as its webhook, if that is wanted.
async fn serve_webhook(
    options: &Options,
    client: &Client,
    watching: &Client,
    operator_user: &str,
    state: &server::State,
) -> Result<Option<Webhook>, OperatorError> {
    let Some(webhook) = &options.webhook else { return Ok(None) };
    let served = webhook::start(webhook::Setup {
        client: client.clone(),
        watching: watching.clone(),
        listen: webhook.listen,
        namespace: options.lease_namespace.clone(),
        secret: SERVICE.to_owned(),
        configuration: options.brake_webhook.clone(),
        operator_user: operator_user.to_owned(),
        life: webhook.life,
    })
    .await?;
    info!(address = %served.address, "the webhook is served");
    // Nobody else sets it.
    drop(state.webhook.set(served.ready.clone()));
    Ok(Some(served))
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
            self.core.set_brake(brake, now());
        }
    }

    fn until_next_timer(&self) -> Duration {
        let far = SignedDuration::from_secs(3600);
        let left = self.core.queue().next().map_or(far, |at| at.duration_since(now()));
        Duration::try_from(left.clamp(SignedDuration::ZERO, far)).unwrap_or_default()
    }

    fn take_news(&mut self, news: News) {
        match news {
            News::Brake(part, object) => {
                self.brake.set(part, object);
                self.judge_brake();
            }
            News::Lost(kind, text) => {
                self.metrics.trouble();
                warn!(watch = ?kind, error = %text, "a watch was interrupted; it goes on");
                self.core.take_news(News::Lost(kind, text), now());
            }
            News::Lease(object) => {
                if self.lease.learn(object.as_deref()) {
                    self.core.lease_is_free(now());
                }
            }
            News::Trouble(text) => {
                self.metrics.trouble();
                warn!(watch = %text, "a watch was interrupted; it goes on");
            }
            news => {
                let names = matches!(
                    news,
                    News::Put(Kind::Rollouts | Kind::Releases, _)
                        | News::Finish(Kind::Rollouts | Kind::Releases)
                );
                self.core.take_news(news, now());
                if names {
                    self.watch_routes();
                }
            }
        }
    }

    /// Watches the kinds of routes that are named, once they are: others need not even be installed.
    fn watch_routes(&mut self) {
        for router in self.core.cache().routers() {
            if self.routers.insert(router) {
                info!(kind = router.kind(), "routes are watched from now on");
                let (client, namespace) = (self.watching.clone(), self.namespace.clone());
                self.watches.spawn(watch(client, namespace, Kind::Routes(router), self.news.clone()));
            }
        }
    }

    fn take_report(&mut self, report: Report) {
        if let Report::Looked { key, sample, .. } = &report {
            self.metrics.look();
            if let Err(reason) = &sample.outcome {
                debug!(namespace = %key.0, rollout = %key.1, %reason, "no data");
            }
        }
        self.core.others_wrote(self.lease.others());
        self.core.take_report(report, now());
    }

    fn start_passes(&mut self) {
        let mut any = false;
        loop {
            // The ticket first: what is learnt in between makes it void.
            let ticket = self.lease.ticket();
            self.core.others_wrote(self.lease.others());
            let begun = Instant::now();
            let Some(pass) = self.core.next_pass(now()) else { break };
            self.metrics.decision(begun.elapsed().as_secs_f64());
            any = true;
            self.start_pass(pass, ticket);
        }
        if any {
            self.metrics.releases(self.core.cache().releases(), now());
        }
        self.metrics.queue(self.core.queue().len());
        self.metrics.unreadable(self.core.cache().unreadable());
    }

    fn start_pass(&mut self, pass: Pass, ticket: Ticket) {
        let Pass { key, since, release, reasons, effects, look, checks } = pass;
        for reason in &reasons {
            debug!(namespace = %key.0, rollout = %key.1, reason = reason.code(), "decided: {reason}");
        }
        if let Some(look) = look {
            self.look(key.clone(), look);
        }
        if let Some(checks) = checks {
            self.check(&key, checks);
        }
        if effects.is_empty() {
            return;
        }
        let writes = Writes {
            client: self.client.clone(),
            lease: self.lease.clone(),
            ticket,
            metrics: self.metrics.clone(),
            instance: self.instance.clone(),
            reports: self.reports.clone(),
            release,
            key,
            since,
        };
        tokio::spawn(writes.carry_out(effects));
    }

    /// Runs checks beside the main loop: one that is slow holds up neither a look nor another check.
    fn check(&self, key: &Key, checks: Checks) {
        let (plan, names) = (Arc::new(checks.plan), Arc::new(checks.names));
        for guard in checks.guards {
            let (http, secrets, reports) = (self.http.clone(), self.secrets.clone(), self.reports.clone());
            let (key, release, plan, names) =
                (key.clone(), checks.release.clone(), plan.clone(), names.clone());
            tokio::spawn(async move {
                let at = now();
                let run = query::check(&http, &*secrets, &plan, &guard, &names, at);
                let run = tokio::time::timeout(query::LONGEST_RUN, run).await.unwrap_or_else(|_| CheckRun {
                    guard,
                    at,
                    passed: Err(format!("the check took longer than {} s", query::LONGEST_RUN.as_secs())),
                    seen: String::new(),
                    number: None,
                });
                if let Err(reason) = &run.passed {
                    debug!(namespace = %key.0, rollout = %key.1, guard = %run.guard, %reason, "no answer");
                }
                // The main loop is gone only when the process ends.
                drop(reports.send(Report::Checked { key, release, run }).await);
            });
        }
    }

    /// Takes a look beside the main loop.
    fn look(&self, key: Key, look: Look) {
        let (http, secrets, reports) = (self.http.clone(), self.secrets.clone(), self.reports.clone());
        tokio::spawn(async move {
            let (at, Look { release, plan, targets }) = (now(), look);
            let look =
                tokio::time::timeout(LOOK_DEADLINE, query::sample(&http, &*secrets, &plan, &targets, at));
            let sample = look.await.unwrap_or_else(|_| Sample {
                at,
                outcome: Err(format!("the look took longer than {} s", LOOK_DEADLINE.as_secs())),
            });
            // The main loop is gone only when the process ends.
            drop(reports.send(Report::Looked { key, release, sample: Box::new(sample) }).await);
        });
    }
}
