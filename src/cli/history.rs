//! `history` and `explain`.

use kube::ResourceExt;

use super::args::{Explain, Format, History};
use super::failure::{Exit, Failure, Kind};
use super::find;
use super::session::{Cluster, Session};
use crate::api::Release;
use crate::clock;
use crate::report::history::HistoryReport;
use crate::report::release::ReleaseReport;
use crate::report::svg;

/// Lists the releases of a Rollout.
pub async fn history(session: &Session, args: &History) -> Result<Exit, Failure> {
    let cluster = session.cluster().await?;
    let rollout = find::rollout(&cluster, args.name.as_deref()).await?;
    let releases = find::releases(&cluster, &rollout.name_any()).await?;
    let items = releases
        .iter()
        .take(args.limit.unwrap_or(usize::MAX))
        .map(|release| ReleaseReport::new(release, clock::now()).into())
        .collect();
    session.print(&HistoryReport {
        rollout: rollout.name_any(),
        namespace: rollout.namespace().unwrap_or_default(),
        items,
    })?;
    Ok(Exit::OK)
}

/// Tells the story of a release.
pub async fn explain(session: &Session, args: &Explain) -> Result<Exit, Failure> {
    let cluster = session.cluster().await?;
    let release = meant(&cluster, args.name.as_deref(), "explain").await?;
    let report = ReleaseReport::in_full(&release, clock::now());
    if session.global.output == Format::Svg {
        session.out(&svg::svg(&report))?;
    } else {
        session.print(&report)?;
    }
    Ok(Exit::OK)
}

/// The Release of this name, or the running or last one of the Rollout or workload of this name. `verb` completes
/// "failed to … a release".
pub(super) async fn meant(cluster: &Cluster, name: Option<&str>, verb: &str) -> Result<Release, Failure> {
    if let Some(name) = name.map(find::bare) {
        let found = cluster.ask(format!("read the Release {name}"), cluster.releases().get_opt(name)).await?;
        if let Some(release) = found {
            return Ok(release);
        }
    }
    let rollout = find::rollout(cluster, name).await.map_err(|failure| match name {
        Some(name) if failure.kind == Kind::NotFound => {
            Failure { what: format!("failed to find a Release or Rollout {name}"), ..failure }
                .hint("`belay history` shows the releases of a Rollout")
        }
        _ => failure,
    })?;
    let releases = find::releases(cluster, &rollout.name_any()).await?;
    find::present(&rollout, &releases).cloned().ok_or_else(|| {
        Failure::new(Kind::NotFound, format!("failed to {verb} a release of {}", rollout.name_any()))
            .because("there was none yet")
            .hint(format!("`belay status {}` shows where it stands", rollout.name_any()))
    })
}
