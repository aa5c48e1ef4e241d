//! Follows a release to its end: a live bar in a terminal, lines with times in a pipe.

use std::time::Duration;

use futures::StreamExt;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kube::runtime::{WatchStreamExt, watcher};
use tokio::time::Instant;

use super::failure::{Exit, Failure, Kind};
use super::session::{Cluster, Session};
use super::status::{timestamp, within};
use crate::api::{Release, ReleasePhase};
use crate::clock;
use crate::report::release::ReleaseReport;
use crate::report::release_text;

/// Follows the release until it is final, then explains it. The exit code is the outcome.
pub async fn to_end(
    session: &Session,
    cluster: &Cluster,
    name: &str,
    limit: Option<Duration>,
) -> Result<Exit, Failure> {
    let deadline = limit.map(|limit| Instant::now() + limit);
    let api = cluster.releases();
    let mut changes = std::pin::pin!(watcher::watch_object(api, name).default_backoff());
    let mut screen = Screen::new(session);
    let mut seen: Option<Release> = None;
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            change = changes.next() => match change {
                Some(Ok(Some(release))) => {
                    let report = ReleaseReport::new(&release, clock::now());
                    screen.show(&report);
                    if report.finished {
                        screen.end();
                        session.print(&report)?;
                        return Ok(outcome(report.phase));
                    }
                    seen = Some(release);
                }
                Some(Ok(None)) => {
                    screen.end();
                    return Err(Failure::new(Kind::NotFound, format!("failed to follow the release {name}"))
                        .because(if seen.is_some() { "it was deleted" } else { "it does not exist" })
                        .hint("`belay list` and `belay history` show what there is"));
                }
                // The watch starts again by itself; an error that stays is met by the deadline or by the user.
                Some(Err(error)) => {
                    screen.trouble(&Failure::new(Kind::Unreachable, error.to_string()).what);
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                None => return Err(Failure::new(Kind::Unreachable, format!("failed to follow the release {name}"))),
            },
            _ = tick.tick() => {
                if let Some(release) = &seen {
                    screen.clock(&ReleaseReport::new(release, clock::now()));
                }
            }
            _ = tokio::signal::ctrl_c() => {
                screen.end();
                return Err(interrupted(name));
            }
            () = expired(deadline) => {
                screen.end();
                return Err(Failure::new(Kind::TimedOut, format!("failed to see the end of the release {name}{}", within(limit)))
                    .because("the time is over; the release goes on")
                    .hint("follow it with `belay status --wait`, or end it with `belay abort`"));
            }
        }
    }
}

/// What the user reads after Ctrl-C.
pub(super) fn interrupted(name: &str) -> Failure {
    Failure::new(Kind::Interrupted, format!("the release {name} goes on"))
        .hint("follow it with `belay status --wait`, or end it with `belay abort`")
}

/// Ends at the deadline; never without one.
pub(super) async fn expired(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// The exit code of an outcome.
pub(super) fn outcome(phase: ReleasePhase) -> Exit {
    if phase == ReleasePhase::Promoted { Exit::OK } else { Exit::NOT_PROMOTED }
}

/// What is shown while a release runs.
struct Screen<'a> {
    session: &'a Session,
    bar: Option<ProgressBar>,
    events: usize,
    phase: Option<ReleasePhase>,
    trouble: String,
}

impl<'a> Screen<'a> {
    fn new(session: &'a Session) -> Self {
        let bar = session.live.then(|| {
            let bar = ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("{spinner} [{bar:24}] {msg}") {
                bar.set_style(style.progress_chars("=> "));
            }
            bar
        });
        Self { session, bar, events: 0, phase: None, trouble: String::new() }
    }

    /// Something changed: new entries of the timeline become lines.
    fn show(&mut self, report: &ReleaseReport) {
        // The timeline is bounded: when the oldest entries have gone, only the last is surely new.
        let from = if report.timeline.len() < self.events {
            report.timeline.len().saturating_sub(1)
        } else {
            self.events
        };
        for event in report.timeline.iter().skip(from) {
            let at = event.at.strftime("%Y-%m-%dT%H:%M:%SZ");
            self.line(&format!("{at}  {}", release_text::event_words(event)));
        }
        if report.timeline.is_empty() && self.phase != Some(report.phase) {
            self.line(&format!("{}  {}", timestamp(), release_text::line(report)));
        }
        self.events = report.timeline.len();
        self.phase = Some(report.phase);
        self.trouble.clear();
        self.clock(report);
    }

    /// Only time has passed.
    fn clock(&self, report: &ReleaseReport) {
        let Some(bar) = &self.bar else { return };
        bar.set_length(report.steps.len() as u64);
        bar.set_position(report.steps.iter().filter(|step| step.passed).count() as u64);
        bar.set_message(release_text::line(report));
        bar.tick();
    }

    fn trouble(&mut self, what: &str) {
        if self.trouble != what {
            self.line(&format!("{}  the connection was lost, trying again: {what}", timestamp()));
            what.clone_into(&mut self.trouble);
        }
    }

    fn line(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => self.session.say(line),
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
