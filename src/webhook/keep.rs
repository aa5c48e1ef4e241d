//! Keeps the certificates: in the Secret, in the configuration, and in what is served.
//!
//! Purpose: carry out [`super::chain::next`]. Every operator does; the Secret's version decides whose write counts,
//! and who was late reads again. At rest only two watches are open.
//! May touch: one Secret, one configuration. Must never: put a key anywhere but into the Secret.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt, watcher};
use rustls::sign::CertifiedKey;
use serde_json::json;
use tracing::{debug, info, warn};

use super::chain::{Chain, Serving, Step, next};
use super::{Setup, WebhookError, keys};
use crate::api::FIELD_MANAGER;
use crate::clock::now;

/// The one key of the Secret.
const DATA: &str = "chain.json";
/// Longest time for one request.
const DEADLINE: Duration = Duration::from_secs(10);
/// Between two tries; doubled while they fail.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Longest sleep before the clock is looked at again: it may have been set.
const LONGEST: Duration = Duration::from_secs(3600);
/// Seconds after which a watch is asked for anew.
const WATCH_SECONDS: u32 = 60;
/// Steps in one pass: more would be a mistake in them.
const STEPS: usize = 8;

/// Keeps them as long as it is polled; `serve` is called with each new certificate.
pub(super) async fn keep(setup: Setup, serve: impl Fn(Arc<CertifiedKey>) + Send) {
    let mut served: Option<Serving> = None;
    let mut news = pin!(news(&setup));
    let mut retry = RETRY.0;
    loop {
        let due = match pass(&setup, &mut served, &serve).await {
            Ok(until) => {
                retry = RETRY.0;
                until
            }
            Err(error) => {
                let text = chain_of(&error);
                if is_conflict(&error) && retry < RETRY.1 {
                    debug!(error = %text, "another operator was faster; everything is read again");
                } else {
                    warn!(error = %text, "the certificates of the webhook cannot be kept; it is tried again");
                }
                let pause = retry;
                retry = (retry * 2).min(RETRY.1);
                now() + pause
            }
        };
        loop {
            let left = due.duration_since(now()).max(SignedDuration::ZERO);
            if left.is_zero() {
                break;
            }
            tokio::select! {
                Some(()) = news.next() => break,
                () = tokio::time::sleep(Duration::try_from(left).unwrap_or(LONGEST).min(LONGEST)) => {}
            }
        }
    }
}

/// Says when the Secret or the configuration has changed.
fn news(setup: &Setup) -> impl Stream<Item = ()> + Send + use<> {
    let secrets: Api<PartialObjectMeta<Secret>> = Api::namespaced(setup.watching.clone(), &setup.namespace);
    let configurations: Api<PartialObjectMeta<MutatingWebhookConfiguration>> =
        Api::all(setup.watching.clone());
    let named = |name: &str| {
        watcher::Config::default().timeout(WATCH_SECONDS).fields(&format!("metadata.name={name}"))
    };
    let secret = changes(watcher(secrets, named(&setup.secret)));
    stream::select(secret, changes(watcher(configurations, named(&setup.configuration))))
}

fn changes<T: Send>(
    events: impl Stream<Item = watcher::Result<watcher::Event<T>>> + Send,
) -> impl Stream<Item = ()> + Send {
    events.default_backoff().filter_map(async |event| match event {
        Ok(watcher::Event::Init | watcher::Event::InitApply(_)) => None,
        Ok(_) => Some(()),
        Err(error) => {
            warn!(%error, "a watch of the webhook was interrupted; it goes on");
            None
        }
    })
}

/// Reads everything anew and does what is to be done. Returns until when there is nothing.
async fn pass(
    setup: &Setup,
    served: &mut Option<Serving>,
    serve: &impl Fn(Arc<CertifiedKey>),
) -> Result<Timestamp, WebhookError> {
    let secrets: Api<Secret> = Api::namespaced(setup.client.clone(), &setup.namespace);
    let configurations: Api<MutatingWebhookConfiguration> = Api::all(setup.client.clone());
    for _ in 0..STEPS {
        // In this order: if the configuration is still the same when it is written, then nobody has written a later
        // state of the Secret into it.
        let configuration =
            ask("read", &setup.configuration, configurations.get_opt(&setup.configuration)).await?;
        let mut secret = ask("read", &setup.secret, secrets.get_opt(&setup.secret))
            .await?
            .ok_or_else(|| WebhookError::NoSecret(setup.secret.clone()))?;
        let mut chain = read(&secret);
        let names = names(setup, configuration.as_ref());
        let trusted = configuration.as_ref().is_none_or(|c| trusts(c, &chain));
        let step = next(&chain, &names, trusted, &setup.life, now());
        if let Some(until) = carried_out(&mut chain, step, &names, setup)? {
            if *served != chain.serving
                && let Some(serving) = &chain.serving
            {
                serve(keys::certified(serving)?);
                info!(issuer = %serving.issuer, until = %serving.not_after, "the webhook serves a new certificate");
                served.clone_from(&chain.serving);
            }
            if let Some(configuration) = &configuration
                && tell(&configurations, configuration, &chain).await?
            {
                // Who is trusted has changed.
                continue;
            }
            return Ok(until);
        }
        info!(?step, "a step in the life of the webhook's certificates");
        let data = serde_json::to_vec(&chain).unwrap_or_default();
        secret.data.get_or_insert_default().insert(DATA.to_owned(), ByteString(data));
        let params = PostParams { dry_run: false, field_manager: Some(FIELD_MANAGER.to_owned()) };
        ask("update", &setup.secret, secrets.replace(&setup.secret, &params, &secret)).await?;
    }
    Ok(now() + RETRY.0)
}

/// Does a step to the chain; none, and until when, if there is none to do.
fn carried_out(
    chain: &mut Chain,
    step: Step,
    names: &BTreeSet<String>,
    setup: &Setup,
) -> Result<Option<Timestamp>, WebhookError> {
    match step {
        Step::Wait(until) => return Ok(Some(until)),
        Step::Add => chain.authorities.push(keys::authority(&setup.life, now())?),
        Step::Trust => chain.trust(now()),
        Step::Issue(by) => {
            if let Some(by) = chain.authorities.get(by) {
                chain.serving = Some(keys::serving(by, names, &setup.life, now())?);
            }
        }
        Step::Forget => chain.forget(),
    }
    Ok(None)
}

/// What the Secret keeps. What cannot be read is as good as nothing: it begins anew.
fn read(secret: &Secret) -> Chain {
    let Some(data) = secret.data.as_ref().and_then(|data| data.get(DATA)) else { return Chain::default() };
    let Ok(chain) = serde_json::from_slice::<Chain>(&data.0) else {
        warn!("what the webhook's Secret keeps cannot be read; new certificates are made");
        return Chain::default();
    };
    if !chain.authorities.iter().all(keys::is_usable) {
        warn!("the webhook's Secret keeps an authority that cannot be used; new certificates are made");
        return Chain::default();
    }
    match &chain.serving {
        Some(serving) if keys::certified(serving).is_err() => {
            warn!("the webhook's Secret keeps no usable certificate; a new one is made");
            Chain { serving: None, ..chain }
        }
        _ => chain,
    }
}

/// The host names that the API server calls: of our Service, and whatever the configuration names.
fn names(setup: &Setup, configuration: Option<&MutatingWebhookConfiguration>) -> BTreeSet<String> {
    let mut names = BTreeSet::from([format!("{}.{}.svc", crate::install::webhook::SERVICE, setup.namespace)]);
    let hooks = configuration.and_then(|c| c.webhooks.as_deref()).unwrap_or_default();
    for client in hooks.iter().map(|hook| &hook.client_config) {
        if let Some(service) = &client.service {
            names.insert(format!("{}.{}.svc", service.name, service.namespace));
        }
        let url = client.url.as_ref().and_then(|url| url.parse::<http::Uri>().ok());
        if let Some(host) = url.as_ref().and_then(http::Uri::host) {
            names.insert(host.trim_matches(['[', ']']).to_owned());
        }
    }
    names
}

/// Whether all webhooks of the configuration trust the newest authority.
fn trusts(configuration: &MutatingWebhookConfiguration, chain: &Chain) -> bool {
    let Some(newest) = chain.authorities.last() else { return false };
    let hooks = configuration.webhooks.as_deref().unwrap_or_default();
    hooks.iter().all(|hook| {
        let bundle = hook.client_config.ca_bundle.as_ref().map(|b| String::from_utf8_lossy(&b.0));
        bundle.is_some_and(|b| b.contains(&newest.certificate))
    })
}

/// Writes whom to trust into the configuration, if it says something else; whether it was written.
async fn tell(
    configurations: &Api<MutatingWebhookConfiguration>,
    configuration: &MutatingWebhookConfiguration,
    chain: &Chain,
) -> Result<bool, WebhookError> {
    let bundle = ByteString(chain.bundle().into_bytes());
    let hooks = configuration.webhooks.as_deref().unwrap_or_default();
    let mut operations = vec![
        json!({"op": "test", "path": "/metadata/resourceVersion", "value": configuration.metadata.resource_version}),
    ];
    for (index, hook) in hooks.iter().enumerate() {
        if hook.client_config.ca_bundle.as_ref() != Some(&bundle) {
            let path = format!("/webhooks/{index}/clientConfig/caBundle");
            operations.push(json!({"op": "add", "path": path, "value": bundle}));
        }
    }
    if operations.len() == 1 {
        return Ok(false);
    }
    let name = configuration.metadata.name.as_deref().unwrap_or_default();
    let patch: json_patch::Patch = serde_json::from_value(json!(operations)).unwrap_or_default();
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    ask("patch", name, configurations.patch(name, &params, &Patch::Json::<()>(patch))).await?;
    info!(authorities = chain.authorities.len(), "the API server is told whom to trust");
    Ok(true)
}

async fn ask<T>(
    action: &'static str,
    object: &str,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, WebhookError> {
    match tokio::time::timeout(DEADLINE, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(source)) => {
            Err(WebhookError::Request { action, object: object.to_owned(), source: Box::new(source) })
        }
        Err(_) => {
            Err(WebhookError::Deadline { action, object: object.to_owned(), seconds: DEADLINE.as_secs() })
        }
    }
}

/// Somebody else was faster: an updated Secret, or a `test` that failed.
fn is_conflict(error: &WebhookError) -> bool {
    let WebhookError::Request { source, .. } = error else { return false };
    matches!(&**source, kube::Error::Api(status) if matches!(status.code, 409 | 422))
}

/// An error with its causes.
fn chain_of(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
