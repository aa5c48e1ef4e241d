//! What a command reports when it could not do its work: what was tried, why it failed, what to do next.
//!
//! The one place where library errors become messages and exit codes.

use std::fmt::Write as _;
use std::process::ExitCode;

use serde_json::json;

/// The exit code of a command that was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit(pub u8);

impl Exit {
    /// Done, or promoted.
    pub const OK: Self = Self(0);
    /// Something is wrong, and has been said.
    pub const ERROR: Self = Self(1);
    /// The release did not become stable.
    pub const NOT_PROMOTED: Self = Self(4);
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.0)
    }
}

/// What kind of failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The command line does not make sense.
    Usage,
    /// Something failed that has no kind of its own.
    Failed,
    /// The thing spoken of does not exist.
    NotFound,
    /// The user may not do this.
    Forbidden,
    /// The cluster did not answer.
    Unreachable,
    /// The cluster or the operator said no.
    Refused,

    /// It took too long.
    TimedOut,
    /// The user interrupted.
    Interrupted,
    /// The reader of standard output went away: nothing to say, and nobody to say it to.
    BrokenPipe,
}

impl Kind {
    /// The exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Usage => 64,
            Self::Interrupted => 130,
            Self::BrokenPipe => 0,
            _ => 1,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::Failed => "failed",
            Self::NotFound => "notFound",
            Self::Forbidden => "forbidden",
            Self::Unreachable => "unreachable",
            Self::Refused => "refused",

            Self::TimedOut => "timedOut",
            Self::Interrupted => "interrupted",
            Self::BrokenPipe => "brokenPipe",
        }
    }
}

/// What was tried, why it failed, and what to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What kind of failure it is; decides the exit code.
    pub kind: Kind,
    /// What was tried: "failed to …".
    pub what: String,
    /// Why it failed.
    pub why: Option<String>,
    /// What to do next. Commands of this program stand in backquotes.
    pub hints: Vec<String>,
}

impl Failure {
    /// A failure without a cause or hints.
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), why: None, hints: Vec::new() }
    }

    /// Adds why it failed.
    #[must_use]
    pub fn because(mut self, why: impl Into<String>) -> Self {
        self.why = Some(why.into());
        self
    }

    /// Adds what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// A failure to read or write something on this machine.
    pub fn io(what: impl Into<String>, error: &std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self::new(Kind::BrokenPipe, what);
        }
        Self::new(Kind::Failed, what).because(error.to_string())
    }

    /// A failure of a request to the cluster.
    pub fn cluster(what: impl Into<String>, error: &kube::Error) -> Self {
        let what = what.into();
        let kube::Error::Api(status) = error else {
            return Self::new(Kind::Unreachable, what)
                .because(chain(error))
                .hint("`belay doctor` checks the connection; --context chooses another cluster");
        };
        let message = status.message.trim();
        let why = if message.is_empty() { status.reason.clone() } else { message.to_owned() };
        match status.code {
            401 => Self::new(Kind::Forbidden, what)
                .because("the cluster does not accept your credentials")
                .hint("log in to the cluster again, or choose another --context"),
            403 => Self::new(Kind::Forbidden, what)
                .because(why)
                .hint("ask for a role that allows this; the ClusterRoles belay-view and belay-edit are meant for it"),
            // Without the definition the server knows no such path, and answers in plain text.
            404 if message.contains("page not found") || message.contains("could not find the requested resource") => {
                Self::new(Kind::NotFound, what)
                    .because("the cluster does not know Belay's resources")
                    .hint("`belay install` installs them")
            }
            404 => Self::new(Kind::NotFound, what).because(why),
            409 => Self::new(Kind::Refused, what)
                .because(why)
                .hint("somebody changed the object at the same moment; try again"),
            422 | 400 => Self::new(Kind::Refused, what).because(why),
            429 | 503 | 504 => Self::new(Kind::Unreachable, what)
                .because(format!("the cluster is overloaded or starting: {why}"))
                .hint("try again in a moment"),
            _ => Self::new(Kind::Failed, what).because(why),
        }
    }

    /// For people. `program` is how this program was called.
    pub fn text(&self, program: &str, color: bool) -> String {
        let mut text = String::new();
        let (red, bold, off) = if color { ("\x1b[1;31m", "\x1b[1m", "\x1b[0m") } else { ("", "", "") };
        let label = if self.kind == Kind::Interrupted { "interrupted" } else { "error" };
        let _ = writeln!(text, "{red}{label}:{off} {}", called(&self.what, program));
        if let Some(why) = &self.why {
            let _ = writeln!(text, "  {bold}why:{off} {}", indent(&called(why, program), "       "));
        }
        for hint in &self.hints {
            let _ = writeln!(text, "  {bold}next:{off} {}", indent(&called(hint, program), "        "));
        }
        text
    }

    /// For programs: one JSON object.
    pub fn json(&self, program: &str) -> serde_json::Value {
        json!({
            "schemaVersion": crate::report::SCHEMA_VERSION,
            "kind": "Error",
            "error": {
                "kind": self.kind.name(),
                "code": self.kind.code(),
                "what": called(&self.what, program),
                "why": self.why.as_ref().map(|why| called(why, program)),
                "next": self.hints.iter().map(|hint| called(hint, program)).collect::<Vec<_>>(),
            },
        })
    }
}

/// Commands in backquotes, as the user has to type them.
pub fn called(text: &str, program: &str) -> String {
    if program == "belay" { text.to_owned() } else { text.replace("`belay ", &format!("`{program} ")) }
}

fn indent(text: &str, by: &str) -> String {
    text.trim_end().replace('\n', &format!("\n{by}"))
}

/// The causes of an error, outermost first, each said once.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut parts: Vec<String> = vec![error.to_string()];
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !parts.iter().any(|part| part.contains(&text)) {
            parts.push(text);
        }
        next = cause.source();
    }
    parts.join(": ")
}

impl From<crate::install::Error> for Failure {
    fn from(error: crate::install::Error) -> Self {
        use crate::install::Error;
        match &error {
            Error::Request { action, object, source } => {
                Self::cluster(format!("failed to {action} {object}"), source)
            }
            Error::Deadline { .. } => {
                Self::new(Kind::Unreachable, "failed to reach the cluster").because(chain(&error))
            }
            Error::StillEnding { .. } | Error::StillThere { .. } | Error::NotInEffect { .. } => {
                Self::new(Kind::TimedOut, "failed to finish")
                    .because(chain(&error))
                    .hint("run the same command again; what is done stays done")
            }
            _ => Self::new(Kind::Failed, "failed to make the manifests").because(chain(&error)),
        }
    }
}

impl From<crate::operator::OperatorError> for Failure {
    fn from(error: crate::operator::OperatorError) -> Self {
        let failure = Self::new(Kind::Failed, "failed to run the operator").because(chain(&error));
        match error {
            crate::operator::OperatorError::NotInstalled => failure.hint("`belay install` installs them"),
            _ => failure,
        }
    }
}

impl From<crate::report::RenderError> for Failure {
    fn from(error: crate::report::RenderError) -> Self {
        Self::new(Kind::Failed, "failed to print the answer").because(chain(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_definition_is_told_from_a_missing_object() {
        let api = |code, message: &str| {
            kube::Error::Api(Box::new(kube::core::Status {
                code,
                message: message.to_owned(),
                ..Default::default()
            }))
        };
        let missing = Failure::cluster("failed to list the Rollouts", &api(404, "404 page not found\n"));
        assert_eq!(missing.hints, ["`belay install` installs them"]);
        let absent = Failure::cluster("failed to read x", &api(404, "rollouts \"x\" not found"));
        assert_eq!(absent.why.as_deref(), Some("rollouts \"x\" not found"));
        assert_eq!(absent.kind.code(), 1);
    }

    #[test]
    fn hints_name_the_program_as_it_was_called() {
        let failure = Failure::new(Kind::Usage, "failed to x").hint("`belay list` shows them");
        assert_eq!(
            failure.text("kubectl belay", false),
            "error: failed to x\n  next: `kubectl belay list` shows them\n"
        );
    }
}
