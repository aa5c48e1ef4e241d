//! Where log lines go and how they look: standard error, as text, or as JSON for the operator.

use tracing_subscriber::EnvFilter;

use super::args::{Cli, Command, LogFormat};

/// Starts logging. `BELAY_LOG` overrides the level, in the syntax of `tracing_subscriber::EnvFilter`.
pub fn start(cli: &Cli) {
    let operator = matches!(cli.command, Command::Operator(_));
    let level = match (operator, cli.global.verbose, cli.global.quiet) {
        (true, _, true) => "error",
        (true, 0, _) => "info",
        // A failed request is told once, as the command's own failure.
        (false, _, true) | (false, 0, _) => "off",
        (_, 1, _) => "belay=debug,warn",
        _ => "belay=trace,kube=debug,info",
    };
    let filter = EnvFilter::try_from_env("BELAY_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let lines =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(operator);
    let json = matches!(&cli.command, Command::Operator(args) if args.log_format == LogFormat::Json);
    // A subscriber that is already there (in tests) stays.
    let _ = if json {
        tracing::subscriber::set_global_default(lines.json().finish())
    } else {
        tracing::subscriber::set_global_default(lines.with_ansi(false).finish())
    };
}
