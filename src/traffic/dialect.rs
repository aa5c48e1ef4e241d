//! What tells one router's lists of backends from another's.

use serde_json::Value;

use super::{Can, Match, Refusal};

/// The Services of a release, and the namespace they and the route are in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names<'a> {
    pub stable: &'a str,
    pub canary: &'a str,
    pub namespace: &'a str,
}

impl<'a> Names<'a> {
    pub fn of(route: &'a Value, stable: &'a str, canary: &'a str) -> Self {
        Self { stable, canary, namespace: route["metadata"]["namespace"].as_str().unwrap_or_default() }
    }
}

/// Where a kind has its rules.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// JSON pointer to an array of rules, or to the one rule there is.
    pub at: &'static str,
    /// The list of backends within a rule.
    pub list: &'static str,
    /// Whether there is an array of rules.
    pub many: bool,
    /// Whether its rules see requests, with headers and all, or only connections.
    pub requests: bool,
}

/// How one kind of route writes its backends.
pub(super) trait Dialect: Sync {
    /// The name in messages.
    fn router(&self) -> &'static str;

    /// Where its rules are.
    fn places(&self) -> &'static [Place];

    /// The name of the Service in the route's namespace that a backend stands for; nothing for any other.
    fn named<'a>(&self, backend: &'a Value, namespace: &str) -> Option<&'a str>;

    /// Makes a copy of the stable backend one of another Service.
    fn rename(&self, backend: &mut Value, service: &str);

    /// The weight that a backend has in effect, if what is written (nothing, or 0) does not say it.
    fn implied(&self, written: Option<i64>, alone: bool) -> i64 {
        let _ = alone;
        written.unwrap_or(1)
    }

    /// The greatest weight.
    fn most(&self) -> i64;

    /// What a route should have that has no backend for the stable Service.
    fn cure(&self) -> &'static str;

    /// What only this kind can object to.
    fn object_to(&self, route: &Value) -> Result<(), Refusal> {
        let _ = route;
        Ok(())
    }

    /// Limits of the kind that a changed route must keep.
    fn check(&self, route: &Value) -> Result<(), Refusal> {
        let _ = route;
        Ok(())
    }

    /// A copy of a rule that takes only requests of these kinds; its list of backends is replaced afterwards.
    /// `beside` are all rules.
    fn matched(&self, at: &str, rule: &Value, beside: &[Value], matches: &[Match]) -> Result<Value, Refusal> {
        let _ = (at, rule, beside, matches);
        Err(Refusal::Unable {
            router: self.router(),
            what: "choose requests by header, cookie or query",
            cure: "release by weight, or use the Gateway API or Istio",
        })
    }

    /// Takes off what [`Self::matched`] changes, so that a rule and its copy can be compared.
    fn unmatch(&self, rule: &mut Value) {
        let _ = rule;
    }

    /// Whether such a copy stands before the rule it was made from, or after all others.
    fn copies_first(&self) -> bool {
        true
    }

    /// Adds a mirror to a rule. `to` is a backend of the canary.
    fn mirror(&self, at: &str, rule: &mut Value, to: &Value, percent: i32, can: Can) -> Result<(), Refusal> {
        let _ = (at, rule, to, percent, can);
        Err(Refusal::Unable {
            router: self.router(),
            what: "mirror requests to the canary",
            cure: "release by weight, or use the Gateway API or Istio",
        })
    }

    /// Takes the mirror to the canary off a rule.
    fn unmirror(&self, rule: &mut Value, names: Names<'_>) {
        let _ = (rule, names);
    }

    /// Keeps clients on their version. `name` is the one of the session: only Belay uses it.
    fn stick(&self, rule: &mut Value, name: &str, seconds: u32, can: Can) -> Result<(), Refusal> {
        let _ = (rule, name, seconds, can);
        Err(Refusal::Unable {
            router: self.router(),
            what: "keep clients on the version that they met first",
            cure: "release without sessions, or configure them yourself",
        })
    }

    /// Takes off what [`Self::stick`] added.
    fn unstick(&self, rule: &mut Value, name: &str) {
        let _ = (rule, name);
    }

    /// Whether a rule has sessions, once those of Belay are off.
    fn sessions(&self, rule: &Value) -> bool {
        let _ = rule;
        false
    }
}

/// The name of the sessions that Belay adds: nobody else's.
pub(super) fn session(canary: &str) -> String {
    format!("belay-{canary}")
}
