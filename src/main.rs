//! The program: everything else is in the library.

use std::process::ExitCode;

use belay::cli;

fn main() -> ExitCode {
    let cli = match cli::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    cli::logging::start(&cli);
    cli::run(cli)
}
