//! The pods' own metrics pages.

use std::net::IpAddr;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use jiff::Timestamp;

use super::access::Way;
use super::reading::{self, is_counted, is_wanted};
use super::secrets::Secrets;
use super::{Answer, Form, Series, Target, parse_page};
use crate::analysis::source::PodSource;
use crate::analysis::{Plan, Reading};
use crate::cluster::http::{Http, Limits};

/// Pages that are read at the same time.
const AT_ONCE: usize = 16;
const LIMITS: Limits = Limits { deadline: Duration::from_secs(3), body: 2 << 20 };
/// `OpenMetrics` first: only there a page that was cut off is known as such.
const ACCEPT: &str = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.8,\
    text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
/// Values that the page itself says are older than this are no data, in seconds: as Prometheus has it.
const OLD: f64 = 300.0;
/// Values from further in the future than this are no data, in seconds: clocks differ, but not by so much.
const AHEAD: f64 = 120.0;

/// What every page of a look has in common.
struct Look<'a> {
    http: &'a Http,
    way: &'a Way,
    plan: &'a Plan,
    source: &'a PodSource,
    now: Timestamp,
}

/// One answer per target, in their order.
pub(super) async fn scrape(
    http: &Http,
    secrets: &dyn Secrets,
    plan: &Plan,
    source: &PodSource,
    targets: &[&Target],
    now: Timestamp,
) -> Result<Vec<Answer>, String> {
    let Some(first) = targets.first() else { return Ok(Vec::new()) };
    let way = &Way::open(secrets, &first.namespace, &source.access, &[]).await?;
    let look = &Look { http, way, plan, source, now };
    // Boxed, so that the caller's future stays `Send` for every lifetime of the targets.
    let pages: Vec<BoxFuture<'_, Answer>> = targets.iter().map(|target| page(look, target).boxed()).collect();
    Ok(stream::iter(pages).buffered(AT_ONCE).collect().await)
}

async fn page(look: &Look<'_>, target: &Target) -> Answer {
    match readings(look, target.ip).await {
        Ok(readings) => (readings, None),
        Err(reason) => (vec![None; look.plan.guards.len()], Some(format!("pod {}: {reason}", target.name))),
    }
}

async fn readings(look: &Look<'_>, ip: Option<IpAddr>) -> Result<Vec<Option<Reading>>, String> {
    let Look { http, way, plan, source, now } = look;
    let scheme = if source.secure { "https" } else { "http" };
    let url = match ip {
        Some(IpAddr::V4(ip)) => format!("{scheme}://{ip}:{}{}", source.port, source.path),
        Some(IpAddr::V6(ip)) => format!("{scheme}://[{ip}]:{}{}", source.port, source.path),
        None => return Err("it has no address yet".to_owned()),
    };
    let answer = http.get(&url, ACCEPT, &way.access, LIMITS).await.map_err(|error| error.in_full())?;
    if !answer.is_success() {
        return Err(format!("{url} answered {}{}", answer.status, way.meaning(answer.status)));
    }
    let page = parse_page(
        &answer.body,
        Form::of(&answer.content_type),
        |name| is_wanted(plan, name),
        |series| is_counted(plan, series),
    )
    .map_err(|error| way.shown(&format!("{url}: {error}")))?;
    if let Some(reason) = misdated(&page, *now) {
        return Err(format!("{url}: {reason}"));
    }
    Ok(reading::readings(plan, &page))
}

/// What is wrong with the times on a page, if it has any.
fn misdated(page: &[Series], now: Timestamp) -> Option<String> {
    let now = now.as_millisecond() as f64 / 1000.0;
    page.iter().find_map(|series| {
        let age = now - series.at?;
        match age {
            _ if (-AHEAD..=OLD).contains(&age) => None,
            ..0.0 => Some(format!("its value of {} is of {:.0} s in the future", series.name, -age)),
            _ => Some(format!("its value of {} is {age:.0} s old", series.name)),
        }
    })
}
