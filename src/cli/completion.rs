//! `completion`.

use super::args::Completion;
use super::failure::{Exit, Failure};
use super::session::Session;

/// Prints the completion script of a shell.
pub fn run(session: &Session, args: &Completion) -> Result<Exit, Failure> {
    // kubectl completes its plugins through another program; the script is always for `belay` itself.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::command("belay"), "belay", &mut script);
    session.out(&String::from_utf8_lossy(&script))?;
    Ok(Exit::OK)
}
