//! `history` and `explain`.

use kube::ResourceExt;

use super::args::{Explain, History};
use super::failure::{Exit, Failure, Kind};
use super::find;
use super::session::Session;
use crate::clock;
use crate::report::history::HistoryReport;
use crate::report::release::ReleaseReport;

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
    if let Some(name) = args.name.as_deref().map(find::bare) {
        let found = cluster.ask(format!("read the Release {name}"), cluster.releases().get_opt(name)).await?;
        if let Some(release) = found {
            session.print(&ReleaseReport::new(&release, clock::now()))?;
            return Ok(Exit::OK);
        }
    }
    let rollout =
        find::rollout(&cluster, args.name.as_deref()).await.map_err(|failure| match &args.name {
            Some(name) if failure.kind == Kind::NotFound => {
                Failure { what: format!("failed to find a Release or Rollout {name}"), ..failure }
                    .hint("`belay history` shows the releases of a Rollout")
            }
            _ => failure,
        })?;
    let releases = find::releases(&cluster, &rollout.name_any()).await?;
    let Some(release) = find::present(&rollout, &releases) else {
        return Err(Failure::new(
            Kind::NotFound,
            format!("failed to explain a release of {}", rollout.name_any()),
        )
        .because("there was none yet")
        .hint(format!("`belay status {}` shows where it stands", rollout.name_any())));
    };
    session.print(&ReleaseReport::new(release, clock::now()))?;
    Ok(Exit::OK)
}
