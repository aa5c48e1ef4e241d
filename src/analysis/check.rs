//! The checks among the guards, read once: what is asked, when, and what its runs say.
//!
//! A check is no statistics: each run passes, fails, or has no answer. One failure more than is allowed rolls the
//! release back, enough passes in a step prove it safe there, and without an answer the release is held. In a
//! [`GuardState`] that is evidence at its ceiling or at 1, so that whatever reads evidence reads checks, too.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use jsonpath_rust::parser::model::{JpQuery, Segment, Selector};
use jsonpath_rust::parser::parse_json_path;
use jsonpath_rust::query::js_path_process;
use k8s_openapi::api::core::v1::PodSpec;
use kube::core::Duration as Written;
use serde::Deserialize;
use serde_json::{Value, json};

use super::condition::{Condition, ConditionError};
use super::evidence::CEILING;
use super::source::{self, Access, SourceError};
use super::{GuardPlan, Measured, Plan, fold};
use crate::api::check::{CelCheck, JobCheck, WebCheck, WebMethod};
use crate::api::evidence::{AnalysisState, CheckState, GuardState};

const DEFAULT_INTERVAL: Duration = Duration::from_secs(30);
const DEFAULT_DEADLINE: Duration = Duration::from_secs(600);
/// Milliseconds.
const DAY: u64 = 86_400_000;
/// Bytes of a Job's `PodSpec`, as JSON.
const LARGEST_TEMPLATE: usize = 16 << 10;
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
/// What a web check without a condition holds its answer against.
const SUCCESS: &str = "status >= 200 && status < 300";
/// Characters of what a run saw that are kept.
pub const LONGEST_RESULT: usize = 200;
/// Characters of a reason that are kept.
const LONGEST_REASON: usize = 500;
/// Bytes of a path into an answer.
const LONGEST_PATH: usize = 256;

/// A check.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckPlan {
    /// What is asked.
    pub asks: Asks,
    /// Time between two runs.
    pub interval: Duration,
    /// Runs of a release that may fail.
    pub failure_limit: u32,
    /// Runs that must pass in a step.
    pub successes: u32,
}

/// What a check asks.
#[derive(Clone, Debug, PartialEq)]
pub enum Asks {
    /// An address.
    Web(Box<WebPlan>),
    /// What the other guards say.
    Cel(Condition),
    /// A Job.
    Job(Box<JobPlan>),
}

/// A Job that is run.
#[derive(Clone, Debug, PartialEq)]
pub struct JobPlan {
    /// The `PodSpec`.
    pub template: Value,
    /// Time that a run may take.
    pub deadline: Duration,
    /// Whether it runs again and again; else only until it has passed often enough in a step.
    pub repeated: bool,
}

/// An address that is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct WebPlan {
    /// The address with its placeholders.
    pub url: String,
    /// How it is asked.
    pub method: WebMethod,
    /// Headers; no credentials.
    pub headers: Vec<(String, String)>,
    /// Who asks, and whom to trust.
    pub access: Access,
    /// Which part of the answer is the result.
    pub path: Option<JsonPath>,
    /// What must hold of the answer.
    pub condition: Condition,
    /// Time that the answer may take.
    pub timeout: Duration,
}

/// A path into an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonPath {
    text: String,
    query: JpQuery,
}

/// Why a check cannot be used: the field below the guard, and what is wrong with it.
#[derive(thiserror::Error, Clone, Debug, PartialEq)]
pub enum CheckError {
    /// A condition that cannot be read.
    #[error("{field}")]
    Condition {
        /// The field.
        field: &'static str,
        /// What is wrong.
        #[source]
        source: ConditionError,
    },
    /// Headers, credentials or trust that do not go together.
    #[error(transparent)]
    Source(SourceError),
    /// Another field.
    #[error("{field}: {problem}")]
    Field {
        /// The field.
        field: &'static str,
        /// What is wrong.
        problem: String,
    },
}

/// What one run of a check said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckRun {
    /// The guard's name.
    pub guard: String,
    /// When it began.
    pub at: Timestamp,
    /// Whether it passed; or why there is no answer.
    pub passed: Result<bool, String>,
    /// What was seen; no secret.
    pub seen: String,
    /// Of a job: which run it is, from 1. Each counts once, in this order.
    pub number: Option<u32>,
}

/// What the placeholders of an address stand for.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Names {
    /// `{{revision}}`: the revision that is let out.
    pub revision: String,
    /// `{{namespace}}`
    pub namespace: String,
    /// `{{rollout}}`
    pub rollout: String,
    /// `{{release}}`
    pub release: String,
}

/// The placeholders of an address.
pub const PLACEHOLDERS: [&str; 4] = ["revision", "namespace", "rollout", "release"];

impl Names {
    fn of(&self, placeholder: &str) -> Option<&str> {
        Some(match placeholder {
            "revision" => &self.revision,
            "namespace" => &self.namespace,
            "rollout" => &self.rollout,
            "release" => &self.release,
            _ => return None,
        })
    }

    /// A text with its placeholders filled in; or what in it is none.
    pub fn fill(&self, text: &str) -> Result<String, String> {
        let mut whole = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let (name, after) =
                after.split_once("}}").ok_or_else(|| "a placeholder is not closed with }}".to_owned())?;
            whole.push_str(before);
            whole.push_str(self.of(name.trim()).ok_or_else(|| {
                format!("{:?} is no placeholder; there are {}", name.trim(), PLACEHOLDERS.join(", "))
            })?);
            rest = after;
        }
        whole.push_str(rest);
        Ok(whole)
    }
}

fn field<T>(field: &'static str, problem: impl Into<String>) -> Result<T, CheckError> {
    Err(CheckError::Field { field, problem: problem.into() })
}

impl CheckPlan {
    /// Reads a check of an address.
    pub fn web(check: &WebCheck) -> Result<Self, CheckError> {
        let names = ["a"; 4].map(str::to_owned);
        let [revision, namespace, rollout, release] = names;
        let filled = Names { revision, namespace, rollout, release }.fill(&check.url);
        let filled = filled.or_else(|problem| field("web.url", problem))?;
        source::reachable(&filled).or_else(|problem| field("web.url", problem))?;
        let secure = check.url.starts_with("https://");
        let access = source::access("web", check.auth.as_ref(), check.tls.as_ref(), secure);
        let text = check.condition.as_deref().unwrap_or(SUCCESS);
        let condition = Condition::read(text, &["status", "result"])
            .map_err(|source| CheckError::Condition { field: "web.condition", source })?;
        let web = WebPlan {
            url: check.url.clone(),
            method: check.method.unwrap_or_default(),
            headers: source::headers("web", &check.headers, None).map_err(CheckError::Source)?,
            access: access.map_err(CheckError::Source)?,
            path: check.json_path.as_deref().map(JsonPath::read).transpose()?,
            condition,
            timeout: within(
                "web.timeout",
                check.timeout.as_ref(),
                DEFAULT_TIMEOUT,
                100,
                30_000,
                "100ms to 30s",
            )?,
        };
        let limits = (check.failure_limit, check.successes);
        Self::new(Asks::Web(Box::new(web)), "web.interval", check.interval.as_ref(), limits)
    }

    /// Reads a check of what the other guards say.
    pub fn cel(check: &CelCheck) -> Result<Self, CheckError> {
        let condition = Condition::read(&check.condition, &["guards", "checks"])
            .map_err(|source| CheckError::Condition { field: "cel.condition", source })?;
        let limits = (check.failure_limit, check.successes);
        Self::new(Asks::Cel(condition), "cel.interval", check.interval.as_ref(), limits)
    }

    /// Reads a check that runs a Job.
    pub fn job(check: &JobCheck) -> Result<Self, CheckError> {
        const AT: &str = "job.template";
        if check.template.to_string().len() > LARGEST_TEMPLATE {
            return field(AT, format!("larger than {LARGEST_TEMPLATE} bytes"));
        }
        let spec = PodSpec::deserialize(&check.template);
        let spec = spec.or_else(|error| field(AT, format!("is no PodSpec: {error}")))?;
        if spec.containers.is_empty() {
            return field(AT, "needs containers");
        }
        if spec.restart_policy.is_some_and(|policy| policy != "Never") {
            return field(
                AT,
                "restartPolicy: Never, or nothing; a run that fails is told, and not tried again",
            );
        }
        let job = JobPlan {
            template: check.template.clone(),
            deadline: within(
                "job.deadline",
                check.deadline.as_ref(),
                DEFAULT_DEADLINE,
                1000,
                DAY,
                "1s to 24h",
            )?,
            repeated: check.interval.is_some(),
        };
        let limits = (check.failure_limit, check.successes);
        let new = Self::new(Asks::Job(Box::new(job)), "job.interval", None, limits)?;
        let interval =
            within("job.interval", check.interval.as_ref(), DEFAULT_INTERVAL, 5000, DAY, "5s to 24h")?;
        Ok(Self { interval, ..new })
    }

    fn new(
        asks: Asks,
        at: &'static str,
        interval: Option<&Written>,
        (failure_limit, successes): (Option<i32>, Option<i32>),
    ) -> Result<Self, CheckError> {
        let number = |name, number: Option<i32>, default: u32, least: u32| match number.map(u32::try_from) {
            None => Ok(default),
            Some(Ok(number)) if (least..=1000).contains(&number) => Ok(number),
            Some(_) => field(name, format!("{least} to 1000")),
        };
        Ok(Self {
            interval: within(at, interval, DEFAULT_INTERVAL, 5000, 3_600_000, "5s to 1h")?,
            failure_limit: number("failureLimit", failure_limit, 0, 0)?,
            successes: number("successes", successes, 1, 1)?,
            asks,
        })
    }

    /// The address that it asks, if it does.
    pub fn asks_web(&self) -> Option<&WebPlan> {
        match &self.asks {
            Asks::Web(web) => Some(web),
            Asks::Cel(_) | Asks::Job(_) => None,
        }
    }

    /// The Job that it runs, if it does.
    pub fn runs_job(&self) -> Option<&JobPlan> {
        match &self.asks {
            Asks::Job(job) => Some(job),
            Asks::Web(_) | Asks::Cel(_) => None,
        }
    }

    /// When it is to run next.
    fn due(&self, state: Option<&CheckState>) -> When {
        let Some((state, last)) = state.and_then(|state| Some((state, state.last_at.as_ref()?.0))) else {
            return When::Now;
        };
        if self.runs_job().is_some_and(|job| !job.repeated) {
            if state.passed_in_step >= self.successes {
                return When::Never;
            }
            // One that had no answer is not tried again and again without a pause.
            if state.no_data.is_none() {
                return When::Now;
            }
        }
        last.checked_add(self.interval).map_or(When::Never, When::At)
    }
}

/// When a check is to run.
enum When {
    Now,
    At(Timestamp),
    Never,
}

fn within(
    at: &'static str,
    written: Option<&Written>,
    default: Duration,
    least: u64,
    most: u64,
    said: &str,
) -> Result<Duration, CheckError> {
    let Some(written) = written else { return Ok(default) };
    if written.is_negative() {
        return field(at, said);
    }
    let time = Duration::from(*written);
    let range = Duration::from_millis(least)..=Duration::from_millis(most);
    if range.contains(&time) { Ok(time) } else { field(at, said) }
}

impl JsonPath {
    /// Reads a path; one that could select much more than there is, is refused.
    fn read(text: &str) -> Result<Self, CheckError> {
        const FIELD: &str = "web.jsonPath";
        if text.len() > LONGEST_PATH {
            return field(FIELD, format!("longer than {LONGEST_PATH} bytes"));
        }
        if text.matches("..").count() > 1 || text.matches('?').count() > 1 || text.matches('(').count() > 8 {
            return field(FIELD, "at most one .., one filter and eight brackets");
        }
        match std::panic::catch_unwind(|| parse_json_path(text)) {
            Ok(Ok(query)) => Ok(Self { text: text.to_owned(), query }),
            _ => field(
                FIELD,
                format!("{text:?} is no JSONPath, such as $.checks.database or $.items[*].ready"),
            ),
        }
    }

    /// What it selects of a value: the one value, a list where there can be several, or why there is nothing.
    pub fn select(&self, value: &Value) -> Result<Value, String> {
        let found = js_path_process(&self.query, value).map_err(|_| format!("{self} cannot be followed"))?;
        let mut found: Vec<Value> = found.into_iter().map(|found| found.val().clone()).collect();
        if !self.is_singular() {
            return Ok(Value::Array(found));
        }
        found.pop().ok_or_else(|| format!("the answer has nothing at {self}"))
    }

    fn is_singular(&self) -> bool {
        let one =
            |segment: &Segment| matches!(segment, Segment::Selector(Selector::Name(_) | Selector::Index(_)));
        self.query.segments.iter().all(one)
    }
}

impl std::fmt::Display for JsonPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

/// What is remembered after runs of checks, and after the conditions that are due at `now` were held against it. Pure.
///
/// A run that is not newer than the last one of its guard is left out. One that began before `step`, the beginning of
/// the present step, passed nothing in it.
pub fn fold_checks(
    state: &AnalysisState,
    plan: &Plan,
    runs: &[CheckRun],
    step: Option<Timestamp>,
    now: Timestamp,
) -> AnalysisState {
    let mut next = state.clone();
    next.guards = fold::guards_of(state, plan);
    for (guard, state) in plan.guards.iter().zip(&mut next.guards) {
        let Measured::Check(check) = &guard.measured else { continue };
        for run in runs.iter().filter(|run| run.guard == guard.name) {
            take(state, check, run, step);
        }
    }
    let mut variables = None;
    for (index, guard) in plan.guards.iter().enumerate() {
        let Measured::Check(check) = &guard.measured else { continue };
        let Asks::Cel(condition) = &check.asks else { continue };
        if matches!(check.due(next.guards[index].checks.as_ref()), When::At(due) if due > now) {
            continue;
        }
        let known = variables.get_or_insert_with(|| Variables::of(plan, &next.guards));
        let Some(run) = known.ask(&guard.name, condition, now) else { continue };
        take(&mut next.guards[index], check, &run, step);
    }
    next
}

/// The checks that are due.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Due<'a> {
    /// Those that ask an address.
    pub web: Vec<&'a str>,
    /// Those that run a Job, and which run is next.
    pub jobs: Vec<(&'a str, u32)>,
    /// When the next one of any kind is.
    pub next: Option<Timestamp>,
}

/// The checks that are due at `now`.
pub fn due<'a>(state: &AnalysisState, plan: &'a Plan, now: Timestamp) -> Due<'a> {
    let mut all = Due::default();
    for guard in &plan.guards {
        let Measured::Check(check) = &guard.measured else { continue };
        let known = state.guards.iter().find(|known| known.name == guard.name);
        let known = known.and_then(|known| known.checks.as_ref());
        match (check.due(known), &check.asks) {
            (When::At(due), _) if due > now => all.next = Some(all.next.map_or(due, |next| next.min(due))),
            (When::Now | When::At(_), Asks::Web(_)) => all.web.push(&guard.name),
            (When::Now | When::At(_), Asks::Job(_)) => {
                all.jobs.push((&guard.name, known.map_or(0, |known| known.ended).saturating_add(1)));
            }
            (When::Never, _) | (_, Asks::Cel(_)) => {}
        }
    }
    all
}

/// Takes in one run.
fn take(guard: &mut GuardState, check: &CheckPlan, run: &CheckRun, step: Option<Timestamp>) {
    let state = guard.checks.get_or_insert_default();
    let at = fold::microseconds(run.at);
    match run.number {
        Some(number) if number != state.ended.saturating_add(1) => return,
        Some(number) => state.ended = number,
        None if state.last_at.as_ref().is_some_and(|last| at <= last.0) => return,
        None => {}
    }
    state.last_at = Some(at.into());
    let passed = match &run.passed {
        Ok(passed) => *passed,
        Err(reason) => {
            state.no_data = Some(reason.chars().take(LONGEST_REASON).collect());
            state.no_data_since.get_or_insert_with(|| at.into());
            return;
        }
    };
    (state.no_data, state.no_data_since) = (None, None);
    state.last = passed;
    state.last_result = Some(run.seen.chars().take(LONGEST_RESULT).collect());
    if passed {
        state.passed = state.passed.saturating_add(1);
        // Kubernetes tells when a Job began in whole seconds.
        let in_step = step.is_none_or(|step| at.as_second() >= step.as_second());
        state.passed_in_step = state.passed_in_step.saturating_add(u32::from(in_step));
    } else {
        state.failed = state.failed.saturating_add(1);
    }
    guard.looks = guard.looks.saturating_add(1);
    if state.passed_in_step >= check.successes {
        guard.safe = CEILING;
    }
    if state.failed > check.failure_limit {
        (guard.strict, guard.margin) = (CEILING, CEILING);
    }
}

/// What a condition over the other guards is asked of.
struct Variables {
    guards: Value,
    checks: Value,
    /// A guard that has said nothing yet.
    silent: bool,
}

impl Variables {
    fn of(plan: &Plan, states: &[GuardState]) -> Self {
        let mut all = Self { guards: json!({}), checks: json!({}), silent: false };
        for (guard, state) in plan.guards.iter().zip(states) {
            let silent = state.looks == 0;
            // Numbers that mean nothing yet would fail a condition at the first look.
            match &guard.measured {
                Measured::Check(check) if matches!(check.asks, Asks::Cel(_)) => continue,
                Measured::Check(_) if silent => all.checks[&guard.name] = json!({}),
                Measured::Check(_) => all.checks[&guard.name] = of_check(state),
                _ if silent => all.guards[&guard.name] = json!({}),
                _ => all.guards[&guard.name] = of_guard(guard, state),
            }
            all.silent |= silent;
        }
        all
    }

    /// Asks them; nothing while it cannot be told because a guard has not said anything yet.
    fn ask(&self, guard: &str, condition: &Condition, now: Timestamp) -> Option<CheckRun> {
        let passed = condition.holds(&[("guards", &self.guards), ("checks", &self.checks)]);
        if passed.is_err() && self.silent {
            return None;
        }
        let seen = format!("{condition}: {}", passed.as_ref().is_ok_and(|holds| *holds));
        let passed = passed.map_err(|why| format!("the condition cannot be evaluated: {why}"));
        Some(CheckRun { guard: guard.to_owned(), at: now, passed, seen, number: None })
    }
}

fn of_check(state: &GuardState) -> Value {
    let known = state.checks.clone().unwrap_or_default();
    json!({
        "passed": known.passed, "failed": known.failed, "passedInStep": known.passed_in_step, "last": known.last,
    })
}

fn of_guard(guard: &GuardPlan, state: &GuardState) -> Value {
    let mut numbers: BTreeMap<&str, f64> =
        [("worse", state.strict), ("evidence", state.margin), ("safe", state.safe)].into();
    let [canary, stable] = match (&guard.measured, &state.gauge) {
        (Measured::Gauge { .. }, Some(gauge)) if gauge.differences > 0 => {
            gauge.totals.map(|sum| Some(sum / f64::from(gauge.differences)))
        }
        _ => {
            let worst = super::explain::worst(state);
            let totals = state.streams.get(worst).map(|stream| stream.totals).unwrap_or_default();
            let share = |bad: f64, all: f64| (all > 0.0).then(|| bad / all);
            [share(totals.canary_bad, totals.canary_total), share(totals.stable_bad, totals.stable_total)]
        }
    };
    numbers.extend(canary.map(|canary| ("canary", canary)));
    numbers.extend(stable.map(|stable| ("stable", stable)));
    if let (Some(canary), Some(stable)) = (canary, stable.filter(|stable| *stable > 0.0)) {
        numbers.insert("ratio", canary / stable);
    }
    let mut value = json!(numbers);
    value["looks"] = state.looks.into();
    value
}
