//! The pods' own metrics pages.

use std::net::IpAddr;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};

use super::reading::{self, is_wanted};
use super::{Answer, Target, parse_page};
use crate::analysis::{Plan, Reading};
use crate::cluster::http::{Http, Limits};

/// Pages that are read at the same time.
const AT_ONCE: usize = 16;
const LIMITS: Limits = Limits { deadline: Duration::from_secs(3), body: 2 << 20 };
const ACCEPT: &str = "text/plain;version=0.0.4;q=1,*/*;q=0.1";

/// One answer per target, in their order.
pub(super) async fn scrape(
    http: &Http,
    plan: &Plan,
    targets: &[&Target],
    port: u16,
    path: &str,
) -> Vec<Answer> {
    // Boxed, so that the caller's future stays `Send` for every lifetime of the targets.
    let pages: Vec<BoxFuture<'_, Answer>> =
        targets.iter().map(|target| page(http, plan, target, port, path).boxed()).collect();
    stream::iter(pages).buffered(AT_ONCE).collect().await
}

async fn page(http: &Http, plan: &Plan, target: &Target, port: u16, path: &str) -> Answer {
    match readings(http, plan, target.ip, port, path).await {
        Ok(readings) => (readings.into_iter().map(Some).collect(), None),
        Err(reason) => (vec![None; plan.guards.len()], Some(format!("pod {}: {reason}", target.name))),
    }
}

async fn readings(
    http: &Http,
    plan: &Plan,
    ip: Option<IpAddr>,
    port: u16,
    path: &str,
) -> Result<Vec<Reading>, String> {
    let url = match ip {
        Some(IpAddr::V4(ip)) => format!("http://{ip}:{port}{path}"),
        Some(IpAddr::V6(ip)) => format!("http://[{ip}]:{port}{path}"),
        None => return Err("it has no address yet".to_owned()),
    };
    let answer = http.get(&url, ACCEPT, LIMITS).await.map_err(|error| error.in_full())?;
    if !answer.is_success() {
        return Err(format!("{url} answered {}", answer.status));
    }
    let page =
        parse_page(&answer.body, |name| is_wanted(plan, name)).map_err(|error| format!("{url}: {error}"))?;
    Ok(reading::readings(plan, &page))
}
