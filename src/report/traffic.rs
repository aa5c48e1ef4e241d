//! The traffic of a release that a router or a Service's selector carries: what is split, and who gets what.

use std::fmt::Write as _;

use serde::Serialize;

use super::release::{PresentStep, ReleaseReport, StepReport};
use super::text::plural;
use crate::api::Release;
use crate::api::release::PlannedRoute;
use crate::api::router::Router;
use crate::api::strategy::{Match, Test};

/// What carries the traffic of a release, and the share that the new version has of it.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct TrafficReport {
    /// The Service that users reach.
    pub service: String,
    /// The Service that selects the new version while the release runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary_service: Option<String>,
    /// Whether that is the user's own, to look at the new version with; else Belay makes it, and deletes it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub preview: bool,
    /// What is changed to give the new version its share.
    pub switch: Switch,
    /// The routes that are split; none where the Service's selector is switched.
    pub routes: Vec<RouteReport>,
    /// The share that the new version has now, in percent: the most that any of the routes gives it.
    pub weight: i32,
    /// Writes of others to what the release borrows, that were held since it began.
    pub held_writes: i32,
}

/// What is changed to give the new version its share.
#[derive(Serialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum Switch {
    /// The selector of the Service: all or nothing.
    Selector,
    /// The weights of routes.
    Routes,
}

/// A route.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RouteReport {
    /// What it is: the kind, but `NginxIngress` and `ALBIngress` for the two that are an Ingress.
    pub router: Router,
    /// Its kind.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl From<&PlannedRoute> for RouteReport {
    fn from(of: &PlannedRoute) -> Self {
        Self {
            router: of.router,
            kind: of.router.kind().to_owned(),
            namespace: of.namespace.clone(),
            name: of.name.clone(),
        }
    }
}

impl TrafficReport {
    /// The traffic of a release, if it does not go by pods.
    pub fn of(release: &Release) -> Option<Self> {
        let plan = release.spec.traffic.as_ref()?;
        let status = release.status.as_ref().and_then(|status| status.traffic.clone()).unwrap_or_default();
        Some(Self {
            service: plan.service.clone(),
            canary_service: plan.canary_service.clone(),
            preview: plan.preview,
            switch: if plan.routes.is_empty() { Switch::Selector } else { Switch::Routes },
            routes: plan.routes.iter().map(RouteReport::from).collect(),
            weight: status.weight,
            held_writes: status.held_writes,
        })
    }

    /// `Service web, split by HTTPRoute shop/web; the canary is behind web-canary`.
    pub(super) fn words(&self) -> String {
        let mut words = match self.switch {
            Switch::Selector => format!("Service {}, switched by its selector", self.service),
            Switch::Routes => {
                let name = |route: &RouteReport| format!("{} {}/{}", route.kind, route.namespace, route.name);
                let routes: Vec<String> = self.routes.iter().map(name).collect();
                format!("Service {}, split by {}", self.service, routes.join(", "))
            }
        };
        if let Some(canary) = &self.canary_service {
            let whose = if self.preview { "the new version can be looked at" } else { "the canary is" };
            let _ = write!(words, "; {whose} behind {canary}");
        }
        words
    }

    /// What others wanted, if they did.
    pub(super) fn held(&self) -> Option<String> {
        let held = usize::try_from(self.held_writes).ok().filter(|held| *held > 0)?;
        let were = if held == 1 { "was" } else { "were" };
        Some(format!("{} of others to what the release borrows {were} held back", plural(held, "write")))
    }

    /// `20 % of the traffic, of 20 % wanted (1 canary pod beside 4 stable)`.
    pub(super) fn weight_words(&self, report: &ReleaseReport) -> Option<String> {
        let weight = report.weight.as_ref()?;
        let canary = plural(usize::try_from(weight.canary_pods).unwrap_or_default(), "canary pod");
        let pods = format!("({canary} beside {} stable)", weight.stable_pods);
        let step = report.present();
        Some(match step {
            Some(step) if step.is_preview() && self.weight == 0 => {
                format!("0 % of the traffic: the new version is looked at without users {pods}")
            }
            Some(step) if step.bake && self.weight == weight.desired => {
                format!("{} % of the traffic; the old version stands by {pods}", self.weight)
            }
            _ => format!("{} % of the traffic, of {} % wanted {pods}", self.weight, weight.desired),
        })
    }
}

impl StepReport {
    /// Whether the new version runs without users, to be looked at before the switch.
    pub fn is_preview(&self) -> bool {
        self.weight == 0
    }

    /// What the step is, where it is more than a weight.
    pub(super) fn role(&self) -> &'static str {
        match self.bake {
            true => " (bake)",
            false if self.is_preview() => " (preview)",
            false => "",
        }
    }

    /// Who meets the new version whatever the weight, if anybody does.
    pub(super) fn chosen(&self) -> Option<String> {
        let mut parts = Vec::new();
        if !self.matches.is_empty() {
            let all: Vec<String> = self.matches.iter().map(match_words).collect();
            parts.push(format!("requests with {} all go to the new version", all.join(", or ")));
        }
        if let Some(percent) = self.mirror {
            parts.push(format!(
                "copies of {percent} % of stable's requests go there, too, and its answers are dropped"
            ));
        }
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

/// `header x-beta=yes and cookie beta`.
fn match_words(of: &Match) -> String {
    let words = |what: &'static str| {
        move |test: &Test| match (&test.value, &test.regex) {
            (_, Some(regex)) => format!("{what} {}~{regex}", test.name),
            (value, None) => format!("{what} {}={}", test.name, value.as_deref().unwrap_or_default()),
        }
    };
    let headers = of.headers.iter().map(words("header"));
    let cookies = of.cookies.iter().map(words("cookie"));
    let all: Vec<String> = headers.chain(cookies).chain(of.query.iter().map(words("query"))).collect();
    all.join(" and ")
}

impl ReleaseReport {
    /// The plan of the step that it is at.
    pub(super) fn present(&self) -> Option<&StepReport> {
        let number = self.step.as_ref().map(|PresentStep { number, .. }| *number)?;
        self.steps.iter().find(|step| step.number == number)
    }
}
