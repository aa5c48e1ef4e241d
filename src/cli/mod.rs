//! The command line: `belay`, and the same program as `kubectl belay`.
//!
//! Purpose: one file per command; each reads, asks the cluster, and prints a report. May touch: everything.
//! Must never: be used by another module, or decide what the operator decides.
//! Standard output is for data; progress and errors go to standard error.

pub mod args;
mod commands;
mod examples;
pub mod failure;
pub mod logging;
pub mod session;
mod sources;

mod analyze;
mod completion;
mod doctor;
mod find;
mod follow;
mod history;
mod init;
mod install;
mod lint;
mod operator;
mod release;
mod replay;
mod routes;
mod status;
mod template;
mod traffic;
mod undo;
mod version;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

use args::{Cli, Command, Format};
use failure::{Exit, Failure, Kind};
use session::Session;

use crate::report::Rendering;

/// How this program was called: a kubectl plugin is called `kubectl-belay` and used as `kubectl belay`.
fn program(arg0: Option<&OsString>) -> &'static str {
    let stem = arg0.and_then(|path| Path::new(path).file_stem()).and_then(|stem| stem.to_str());
    if stem == Some("kubectl-belay") { "kubectl belay" } else { "belay" }
}

/// The command line with its help texts as `program` is used.
pub fn command(program: &'static str) -> clap::Command {
    let mut command = Cli::command();
    if program == "belay" {
        return command;
    }
    let renamed = |command: clap::Command| match command.get_after_help().map(ToString::to_string) {
        Some(help) => command.after_help(
            help.replace("\n  belay ", &format!("\n  {program} "))
                .replace("| belay ", &format!("| {program} ")),
        ),
        None => command,
    };
    command = renamed(command.bin_name(program).display_name(program)).mut_subcommands(renamed);
    command
}

/// Parses the command line. Prints help, versions and usage errors itself.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, ExitCode> {
    let args: Vec<OsString> = args.into_iter().collect();
    command(program(args.first()))
        .try_get_matches_from(args)
        .and_then(|matches| Cli::from_arg_matches(&matches))
        .map_err(|error| {
            // Help into a closed pipe is nothing to report.
            let _ = error.print();
            if error.use_stderr() { ExitCode::from(Kind::Usage.code()) } else { ExitCode::SUCCESS }
        })
}

/// Runs a command and reports its failure.
pub fn run(cli: Cli) -> ExitCode {
    let called = program(std::env::args_os().next().as_ref());
    let session = Session::new(cli.global, called.to_owned());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(dispatch(&session, cli.command)),
        Err(error) => Err(Failure::io("failed to start", &error)),
    };
    match done {
        Ok(exit) => exit.into(),
        Err(failure) => {
            session.fail(&failure);
            ExitCode::from(failure.kind.code())
        }
    }
}

async fn dispatch(session: &Session, command: Command) -> Result<Exit, Failure> {
    suits(session.global.output, &command)?;
    match command {
        Command::Install(args) => install::install(session, &args).await,
        Command::Uninstall(args) => install::uninstall(session, &args).await,
        Command::Doctor(args) => doctor::run(session, &args).await,
        Command::Init(args) => init::run(session, &args).await,
        Command::Lint(args) => lint::run(session, &args),
        Command::Release(args) => Box::pin(release::run(session, &args)).await,
        Command::Status(args) => status::run(session, &args).await,
        Command::List(args) => status::list(session, &args).await,
        Command::History(args) => history::history(session, &args).await,
        Command::Explain(args) => history::explain(session, &args).await,
        Command::Analyze(args) => Box::pin(analyze::run(session, &args)).await,
        Command::Replay(args) => replay::run(session, &args).await,
        Command::Promote(args) => commands::promote(session, &args).await,
        Command::Pause(args) => commands::pause(session, &args).await,
        Command::Resume(args) => commands::resume(session, &args).await,
        Command::Abort(args) => commands::abort(session, &args).await,
        Command::Approve(args) => commands::approve(session, &args).await,
        Command::Retry(args) => commands::retry(session, &args).await,
        Command::Undo(args) => Box::pin(undo::run(session, &args)).await,
        Command::Operator(args) => operator::run(session, &args).await,
        Command::Crds(args) => install::crds(session, &args),
        Command::Completion(args) => completion::run(session, &args),
        Command::Version(args) => version::run(session, &args).await,
    }
}

/// Two formats are those of one command each.
fn suits(format: Format, command: &Command) -> Result<(), Failure> {
    let (name, of) = match (format, command) {
        (Format::Svg, Command::Explain(_)) => return Ok(()),
        (Format::Jsonl, Command::Replay(args)) if args.looks.is_some() => return Ok(()),
        (Format::Svg, _) => ("svg", "explain"),
        (Format::Jsonl, _) => ("jsonl", "replay --looks"),
        _ => return Ok(()),
    };
    Err(Failure::new(Kind::Usage, "failed to find out how to print the answer")
        .because(format!("-o {name} is a format of `belay {of}` alone"))
        .hint("use -o text, json, yaml or name"))
}

impl From<Format> for Rendering {
    fn from(format: Format) -> Self {
        match format {
            Format::Text => Self::Text,
            // The two formats of one command are written by it.
            Format::Json | Format::Jsonl | Format::Svg => Self::Json,
            Format::Yaml => Self::Yaml,
            Format::Name => Self::Names,
        }
    }
}
