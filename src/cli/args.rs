//! The command line as clap sees it: every command, flag, help text and example.
//!
//! May touch: clap. Must never: do I/O, or know what a command does.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use super::examples;

/// Safe deployments for plain Kubernetes workloads.
#[derive(Parser, Debug)]
#[command(
    name = "belay",
    version,
    about = "Safe deployments for plain Kubernetes workloads: steps, evidence, and a way back",
    long_about = "Belay holds every change to a plain Deployment on a rope: it lets the change out step by step \
                  while health holds, and catches it by itself when it does not.",
    after_help = examples::BELAY,
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    max_term_width = 100
)]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// What holds for every command.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Everywhere")]
pub struct Global {
    /// Kubeconfig file to use instead of $KUBECONFIG or ~/.kube/config
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig to use instead of its current one
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// Namespace to work in; default: that of the context
    #[arg(short, long, global = true, value_name = "NAME")]
    pub namespace: Option<String>,
    /// text, json, yaml or name; json is a stable format with schemaVersion v1. Also svg for explain, and jsonl for
    /// replay --looks
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        default_value_t = Format::Text,
        value_name = "FORMAT",
        hide_possible_values = true
    )]
    pub output: Format,
    /// Longest time that one request to the cluster may take
    #[arg(long, global = true, default_value = "15s", value_parser = duration, value_name = "TIME")]
    pub request_timeout: Duration,
    /// Print without colours, also without a terminal or with `NO_COLOR` set
    #[arg(long, global = true)]
    pub no_color: bool,
    /// Say more about what is done; twice for every request
    #[arg(short, long, global = true, action = clap::ArgAction::Count, conflicts_with = "quiet")]
    pub verbose: u8,
    /// Print the answer and errors only, no progress
    #[arg(short, long, global = true)]
    pub quiet: bool,
}

/// How an answer is printed.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// Stable, for programs.
    Json,
    /// The same as `json`, as YAML.
    Yaml,
    /// Only `kind/name`, one a line.
    Name,
    /// One JSON object a line: `replay --looks`.
    Jsonl,
    /// A picture: `explain`.
    Svg,
}

/// What can be done.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Install Belay into the cluster, or print its manifests
    #[command(after_help = examples::INSTALL)]
    Install(Install),
    /// Remove Belay from the cluster; workloads go on serving
    #[command(after_help = examples::UNINSTALL)]
    Uninstall(Uninstall),
    /// Check the cluster, Belay and every Rollout, and say how to fix what is wrong
    #[command(after_help = examples::DOCTOR)]
    Doctor(Doctor),
    /// Write a Rollout for a Deployment that exists
    #[command(after_help = examples::INIT)]
    Init(Init),
    /// Check files with Rollouts, without a cluster
    #[command(after_help = examples::LINT)]
    Lint(Lint),
    /// Change a workload's images or environment and follow the release
    #[command(after_help = examples::RELEASE)]
    Release(Release),
    /// Show where a workload stands
    #[command(after_help = examples::STATUS)]
    Status(Status),
    /// List the Rollouts
    #[command(after_help = examples::LIST)]
    List(List),
    /// List the releases of a Rollout
    #[command(after_help = examples::HISTORY)]
    History(History),
    /// Tell the whole story of a release, with the evidence
    #[command(after_help = examples::EXPLAIN)]
    Explain(Explain),
    /// Try a Rollout's guards now, without a release, on two halves of the pods that serve
    #[command(after_help = examples::ANALYZE)]
    Analyze(Analyze),
    /// Tell what would have happened with other guards
    #[command(after_help = examples::REPLAY)]
    Replay(Replay),
    /// Leave the present step now, or with --full all steps
    #[command(after_help = examples::PROMOTE)]
    Promote(Promote),
    /// Hold the release at its weight
    #[command(after_help = examples::PAUSE)]
    Pause(Order),
    /// Let a paused release go on
    #[command(after_help = examples::RESUME)]
    Resume(Order),
    /// Roll the release back now
    #[command(after_help = examples::ABORT)]
    Abort(Order),
    /// Let a step that waits for a person go on; time and guards still apply
    #[command(after_help = examples::APPROVE)]
    Approve(Approve),
    /// Try a rejected change again
    #[command(after_help = examples::RETRY)]
    Retry(Order),
    /// Put the stable, or an earlier, pod template back
    #[command(after_help = examples::UNDO)]
    Undo(Undo),
    /// Run the operator; the installed Deployment does this
    #[command(after_help = examples::OPERATOR)]
    Operator(Operator),
    /// Print the custom resource definitions
    #[command(after_help = examples::CRDS)]
    Crds(Crds),
    /// Print the completion script of a shell
    #[command(after_help = examples::COMPLETION)]
    Completion(Completion),
    /// Print the version of this program and of the operator in the cluster
    #[command(after_help = examples::VERSION)]
    Version(Version),
}

/// Flags of `install`.
#[derive(Args, Debug)]
pub struct Install {
    /// Print the manifests instead of applying them
    #[arg(long)]
    pub dry_run: bool,
    /// Image of the operator
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
    /// What holds changes back: admission policies, or a webhook of the operator for API servers without them; auto
    /// asks the API server, and is policy with --dry-run
    #[arg(long, value_enum, default_value_t = BrakeChoice::Auto, value_name = "FORM")]
    pub brake: BrakeChoice,
    /// Where the API server finds the webhook of an operator that runs outside of the cluster
    #[arg(long, value_name = "URL", hide = true)]
    pub webhook_url: Option<String>,
    /// Return without waiting until the operator is available
    #[arg(long)]
    pub no_wait: bool,
}

/// What the brake is made of.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrakeChoice {
    /// By what the API server offers.
    Auto,
    /// Admission policies.
    Policy,
    /// A webhook of the operator.
    Webhook,
}

/// Flags of `uninstall`.
#[derive(Args, Debug)]
pub struct Uninstall {
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// Leave the custom resource definitions
    #[arg(long)]
    pub keep_crds: bool,
    /// How long to wait for running releases to end
    #[arg(long, default_value = "2m", value_parser = duration, value_name = "TIME")]
    pub timeout: Duration,
}

/// Flags of `doctor`.
#[derive(Args, Debug)]
pub struct Doctor {
    /// Look at the Rollouts of all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Namespace in which the operator runs
    #[arg(long, value_name = "NAME", default_value = crate::api::OPERATOR_NAMESPACE)]
    pub operator_namespace: String,
}

/// Flags of `init`.
#[derive(Args, Debug)]
pub struct Init {
    /// The Deployment
    #[arg(value_name = "DEPLOYMENT")]
    pub deployment: String,
    /// Write to this file instead of stdout
    #[arg(long, value_name = "FILE", conflicts_with = "apply")]
    pub write: Option<PathBuf>,
    /// Overwrite the file if it exists
    #[arg(long, requires = "write")]
    pub force: bool,
    /// Create the Rollout in the cluster
    #[arg(long)]
    pub apply: bool,
    /// How a change gets its users: auto splits the routes that were found, and goes by pods without any
    #[arg(long, value_name = "STRATEGY", value_enum, default_value_t = StrategyChoice::Auto)]
    pub strategy: StrategyChoice,
}

/// How a change gets its users.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum StrategyChoice {
    /// A canary through routes where there are any, else by pods.
    Auto,
    /// A canary by pods.
    Pods,
    /// At full size beside the old version, then one switch.
    BlueGreen,
}

/// Flags of `lint`.
#[derive(Args, Debug)]
pub struct Lint {
    /// YAML files; `-` reads standard input
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// Pods of the workload, to see which weights whole pods can reach; default: those of a Deployment in the
    /// same files
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub replicas: Option<u32>,
}

/// Flags of `release`.
#[derive(Args, Debug)]
pub struct Release {
    /// The Deployment, or its Rollout
    #[arg(value_name = "WORKLOAD")]
    pub workload: String,
    /// New image of a container; the container may be left out when there is only one
    #[arg(long = "image", value_name = "[CONTAINER=]IMAGE")]
    pub images: Vec<String>,
    /// Environment variable to set, `KEY-` to remove it; before a colon the container, needed when there are several
    #[arg(long = "env", value_name = "[CONTAINER:]KEY=VALUE")]
    pub env: Vec<String>,
    /// Show what would change, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// How the release is followed
    #[command(flatten)]
    pub follow: Follow,
}

/// How a release is followed.
#[derive(Args, Debug, Clone)]
pub struct Follow {
    /// Follow the release to its end (default)
    #[arg(long, overrides_with = "no_wait")]
    pub wait: bool,
    /// Return as soon as the change is written
    #[arg(long)]
    pub no_wait: bool,
    /// Stop following after this time; the release goes on
    #[arg(long, value_parser = duration, value_name = "TIME")]
    pub timeout: Option<Duration>,
}

/// Flags of `status`.
#[derive(Args, Debug)]
pub struct Status {
    /// The Rollout or its workload; default: all in the namespace
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// Follow the changes until interrupted
    #[arg(short, long, conflicts_with = "wait")]
    pub watch: bool,
    /// Follow the running release to its end; the exit code is its outcome
    #[arg(long)]
    pub wait: bool,
    /// Stop waiting after this time; the release goes on
    #[arg(long, value_parser = duration, value_name = "TIME")]
    pub timeout: Option<Duration>,
}

/// Flags of `list`.
#[derive(Args, Debug)]
pub struct List {
    /// The Rollouts of all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
}

/// Flags of `history`.
#[derive(Args, Debug)]
pub struct History {
    /// The Rollout or its workload; may be left out when the namespace has one
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// At most this many, the newest first
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
}

/// Flags of `explain`.
#[derive(Args, Debug)]
pub struct Explain {
    /// The Release, or a Rollout or workload, whose running or last release is meant; may be left out when the
    /// namespace has one Rollout
    #[arg(value_name = "RELEASE")]
    pub name: Option<String>,
}

/// Flags of `analyze`.
#[derive(Args, Debug)]
pub struct Analyze {
    /// The Rollout or its workload; may be left out when the namespace has one
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// How long to look
    #[arg(long = "for", value_name = "TIME", default_value = "5m", value_parser = duration)]
    pub time: Duration,
}

/// Flags of `replay`.
#[derive(Args, Debug)]
pub struct Replay {
    /// The Release, or a Rollout or workload, whose running or last release is meant; may be left out when the
    /// namespace has one Rollout
    #[arg(value_name = "RELEASE")]
    pub name: Option<String>,
    /// Read the Release from this YAML or JSON file instead of the cluster; `-` reads standard input
    #[arg(short, long, value_name = "FILE", conflicts_with = "name")]
    pub file: Option<PathBuf>,
    /// Another tolerance, as it is written for the guard: `1.5x + 0.2%`, a limit `0.5%`, a factor `0.9x`. With --looks
    /// by default 1.2x + 0.1%
    #[arg(long, value_name = "TOLERANCE")]
    pub tolerate: Option<String>,
    /// Only this guard; needed with --tolerate when the release has several
    #[arg(long, value_name = "NAME")]
    pub guard: Option<String>,
    /// How much evidence a rollback needs; default that of the release, with --looks standard
    #[arg(long, value_enum, value_name = "LEVEL")]
    pub confidence: Option<ConfidenceChoice>,
    /// Time between two looks: a whole multiple of the release's own
    #[arg(long, value_parser = duration, value_name = "TIME")]
    pub interval: Option<Duration>,
    /// Judge streams of counts instead of a release: CSV with the columns stream,look,c,nc,s,ns; `-` reads standard
    /// input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["name", "file", "guard", "interval"])]
    pub looks: Option<PathBuf>,
    /// With --looks: looks over which the stakes are spread, at least 12; default: those of the longest stream
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub planned_looks: Option<u32>,
    /// With --looks: judge by the counts alone, without the columns dispersion and spread
    #[arg(long)]
    pub raw: bool,
}

/// How much evidence a rollback needs.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfidenceChoice {
    /// 1000 and 20.
    Careful,
    /// 100 and 10.
    Standard,
    /// 20 and 5.
    Fast,
}

/// Flags that all commands to a release share.
#[derive(Args, Debug, Clone)]
pub struct Order {
    /// The Rollout or its workload; may be left out when the namespace has one
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// Only this release; refused when another one runs
    #[arg(long, value_name = "RELEASE")]
    pub release: Option<String>,
    /// Why, in your own words; kept in the release's history
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub reason: Option<String>,
    /// Print what would be sent, and send nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Return without waiting for the operator's answer
    #[arg(long)]
    pub no_wait: bool,
}

/// Flags of `promote`.
#[derive(Args, Debug)]
pub struct Promote {
    /// What all commands share.
    #[command(flatten)]
    pub order: Order,
    /// Skip all remaining steps
    #[arg(long)]
    pub full: bool,
    /// The step to leave, from 1; refused when the release is at another one. Default: the present step
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=22))]
    pub step: Option<i32>,
}

/// Flags of `approve`.
#[derive(Args, Debug)]
pub struct Approve {
    /// What all commands share.
    #[command(flatten)]
    pub order: Order,
    /// The step to approve, from 1; refused when the release is at another one. Default: the present step
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=22))]
    pub step: Option<i32>,
}

/// Flags of `undo`.
#[derive(Args, Debug)]
pub struct Undo {
    /// The Rollout or its workload; may be left out when the namespace has one
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// The Deployment's revision to go back to, as in `kubectl rollout history`
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    pub to_revision: Option<i64>,
    /// Show what would change, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Follow the release that this starts; the exit code is its outcome
    #[arg(long)]
    pub wait: bool,
    /// Stop following after this time; the release goes on
    #[arg(long, value_parser = duration, value_name = "TIME", requires = "wait")]
    pub timeout: Option<Duration>,
}

/// Flags of `operator`. The namespace is the global one; without it, all are watched.
#[derive(Args, Debug, Clone)]
pub struct Operator {
    /// Address of the probes and of the operator's own metrics
    #[arg(long, default_value = "0.0.0.0:8080", value_name = "ADDRESS")]
    pub listen: std::net::SocketAddr,
    /// Serve neither probes nor metrics
    #[arg(long, conflicts_with = "listen")]
    pub no_listen: bool,
    /// Namespace of the Lease by which several operators agree on one
    #[arg(long, env = "POD_NAMESPACE", default_value = crate::api::OPERATOR_NAMESPACE, value_name = "NAME")]
    pub lease_namespace: String,
    /// Name of that Lease
    #[arg(long, default_value = crate::operator::LEASE, value_name = "NAME")]
    pub lease_name: String,
    /// The name of this operator in the Lease and in events; default: host and process
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pub instance: Option<String>,
    /// Name of the admission policy and binding that hold changes back
    #[arg(long, default_value = crate::api::BRAKE, value_name = "NAME")]
    pub brake: String,
    /// Address on which API servers without admission policies call for the brake, by HTTPS; default: nowhere
    #[arg(long, value_name = "ADDRESS")]
    pub webhook_listen: Option<std::net::SocketAddr>,
    /// Name of the webhook configuration that is the brake there
    #[arg(long, default_value = crate::api::BRAKE_WEBHOOK, value_name = "NAME")]
    pub brake_webhook: String,
    /// How long a certificate of the webhook lasts; it is renewed when a third of that is left
    #[arg(long, value_parser = duration, value_name = "TIME", hide = true)]
    pub webhook_certificate_life: Option<Duration>,
    /// How long the authority lasts that issues them
    #[arg(long, value_parser = duration, value_name = "TIME", hide = true)]
    pub webhook_authority_life: Option<Duration>,
    /// How long a new authority is trusted before it issues, and an old one after
    #[arg(long, value_parser = duration, value_name = "TIME", hide = true)]
    pub webhook_settle: Option<Duration>,
    /// How log lines look
    #[arg(long, value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT")]
    pub log_format: LogFormat,
}

/// How log lines look.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Flags of `crds`.
#[derive(Args, Debug)]
pub struct Crds {
    /// Write all manifests of this version, roles and policies included, into this folder instead
    #[arg(long, value_name = "FOLDER")]
    pub write: Option<PathBuf>,
}

/// Flags of `completion`.
#[derive(Args, Debug)]
pub struct Completion {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    pub shell: Shell,
}

/// Flags of `version`.
#[derive(Args, Debug)]
pub struct Version {
    /// Do not ask the cluster
    #[arg(long)]
    pub client: bool,
    /// Namespace in which the operator runs
    #[arg(long, value_name = "NAME", default_value = crate::api::OPERATOR_NAMESPACE)]
    pub operator_namespace: String,
}

/// A Go duration, as in the custom resources, that is longer than nothing.
fn duration(text: &str) -> Result<Duration, String> {
    let parsed: kube::core::Duration =
        text.parse().map_err(|_| "write it as `30s`, `2m` or `1h30m`".to_owned())?;
    if parsed.is_negative() || Duration::from(parsed).is_zero() {
        return Err("must be longer than 0".to_owned());
    }
    Ok(parsed.into())
}

fn reason(text: &str) -> Result<String, String> {
    let count = text.chars().count();
    if count > 500 { Err(format!("at most 500 characters, this has {count}")) } else { Ok(text.to_owned()) }
}
