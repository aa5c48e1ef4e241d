//! Routers: what share of the traffic a route gives to a canary, and the write that changes it.
//!
//! Purpose: for each kind of route, read the split ([`read`]), compute the one guarded write that brings it to what
//! a release asks ([`patch`]), and the one that gives the route back ([`give_back`]).
//! May touch: raw JSON; nothing else of the crate. Must never: read a clock, do I/O, or decide a weight.
//!
//! Routes are raw JSON from end to end, so fields that Belay does not know survive. A patch tests the uid and the
//! old value of every field that it changes, and nothing else: a change of another field by somebody else does not
//! make it fail, one of the same field does, and then the next pass looks again.
//!
//! Stable and canary together keep the share that stable had: a rule that sends 30 % to stable and 70 % elsewhere
//! sends 3 % to the canary at weight 10. Each rule of a route that names the stable Service is split; the others
//! are left alone.

mod alb;
mod dialect;
mod gateway;
mod istio;
mod nginx;
mod ops;
mod refusal;
mod rules;
mod smi;
#[cfg(test)]
mod tests;
mod traefik;
mod weights;

use serde_json::Value;

pub use crate::api::router::Router;
pub use refusal::Refusal;

/// The name of the object that a release makes beside the route, of the same kind; nothing for most routers.
/// Both names are in it: two Rollouts may share an Ingress.
pub fn companion(router: Router, route: &str, canary: &str) -> Option<String> {
    (router == Router::NginxIngress).then(|| format!("{route}-{canary}"))
}

fn form_of(router: Router) -> Form {
    match router {
        Router::HttpRoute => Form::Rules(&gateway::HTTP),
        Router::GrpcRoute => Form::Rules(&gateway::GRPC),
        Router::VirtualService => Form::Rules(&istio::Istio),
        Router::TraefikService => Form::Rules(&traefik::Weighted),
        Router::IngressRoute => Form::Rules(&traefik::Routes),
        Router::TrafficSplit => Form::Rules(&smi::Smi),
        Router::NginxIngress => Form::Nginx,
        Router::AlbIngress => Form::Alb,
    }
}

/// How a router is worked: most have lists of backends in their spec.
enum Form {
    Rules(&'static dyn dialect::Dialect),
    Nginx,
    Alb,
}

/// What was read of a route.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The route, as it is.
    pub route: &'a Value,
    /// The companion, if the router has one and it exists. The caller passes only what the release owns: it is
    /// changed and deleted here without another look at whose it is.
    pub companion: Option<&'a Value>,
    /// What the server's version of the kind can say.
    pub can: Can,
}

impl<'a> Seen<'a> {
    /// A route without a companion, of a kind without optional fields.
    pub fn route(route: &'a Value) -> Self {
        Self { route, companion: None, can: Can::default() }
    }
}

/// Fields that not every version of the Gateway API has: the API server would drop them without a word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Can {
    /// `sessionPersistence` of a rule.
    pub session_persistence: bool,
    /// `percent` of a mirror.
    pub mirror_percent: bool,
}

impl Can {
    /// Reads it from the CustomResourceDefinition of the router's kind, for the version that is written.
    pub fn of(definition: &Value, version: &str) -> Self {
        let versions = definition["spec"]["versions"].as_array().map_or(&[][..], Vec::as_slice);
        let Some(rule) = versions
            .iter()
            .find(|v| v["name"] == version)
            .map(|v| &v["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["rules"]["items"])
        else {
            return Self::default();
        };
        let mirror = &rule["properties"]["filters"]["items"]["properties"]["requestMirror"];
        Self {
            session_persistence: rule["properties"]["sessionPersistence"].is_object(),
            mirror_percent: mirror["properties"]["percent"].is_object(),
        }
    }
}

/// What a release asks of a route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// The Service that the route names.
    pub stable: String,
    /// The temporary Service of the canary. It has the ports of the stable one: they are taken from its backend.
    pub canary: String,
    /// The canary's part of what stable had, in percent from 0 to 100. At 0 the backend is there, and unused.
    pub weight: i32,
    /// Requests that all go to the canary, whatever the weight: any of these. Empty: none.
    pub matches: Vec<Match>,
    /// Copies of so many percent of stable's requests, from 1 to 100, go to the canary; its answers are dropped.
    pub mirror: Option<i32>,
    /// A client stays on the version that it met first for so many seconds. Only while both versions get traffic:
    /// sessions take precedence over weights (GEP-1619), and nobody may be kept on a canary that is rolled back.
    pub sticky: Option<u32>,
}

impl Ask {
    fn sticky(&self) -> Option<u32> {
        self.sticky.filter(|_| (1..100).contains(&self.weight))
    }
}

/// A kind of request: all of these hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Match {
    /// Headers, by name.
    pub headers: Vec<Test>,
    /// Cookies, by name.
    pub cookies: Vec<Test>,
    /// Parameters of the query, by name.
    pub query: Vec<Test>,
}

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Test {
    /// The name.
    pub name: String,
    /// The value.
    pub value: Wanted,
}

/// A value that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// This value.
    Exact(String),
    /// A value that the expression matches as a whole, in the router's own dialect.
    Regex(String),
}

/// What a route does with the canary now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// The canary's part of what stable and canary have together, in percent, rounded up: the most of any rule.
    /// Nothing when no rule names the canary beside stable.
    pub canary: Option<i32>,
    /// How many rules name the stable Service.
    pub rules: usize,
    /// Whether requests of some kind all go to the canary.
    pub matched: bool,
    /// Whether requests are copied to the canary.
    pub mirrored: bool,
    /// Whether the owner of the route asked for sessions: a client that has one may stay with the canary at weight
    /// 0 until its backend, or its pod, is gone.
    pub sessions: bool,
}

/// One write. After it the route is read again: where two are needed, the second comes from the next call.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// A JSON Patch of the route.
    Route(Vec<Value>),
    /// The companion to create; the caller adds labels and its owner.
    Create(Value),
    /// A JSON Patch of the companion.
    Companion(Vec<Value>),
    /// The companion is to be deleted.
    Delete,
}

/// Whether a router has taken up the present state of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Uptake {
    /// It says so.
    Yes,
    /// It says that it has not, or cannot: why.
    No(String),
    /// It does not say. Time alone is left to go by.
    Unknown,
}

/// What the route does with the canary now.
pub fn read(router: Router, seen: &Seen<'_>, stable: &str, canary: &str) -> Result<Split, Refusal> {
    match form_of(router) {
        Form::Rules(dialect) => rules::read(dialect, seen.route, stable, canary),
        Form::Nginx => nginx::read(seen, stable, canary),
        Form::Alb => alb::read(seen.route, stable, canary),
    }
}

/// The write that brings the route to what is asked; nothing when it is already so. A canary that is not there is
/// added, at weight 0 as well. Weight 0 without matches and mirror is never refused: what somebody broke meanwhile
/// so that it cannot be divided loses the canary altogether.
pub fn patch(router: Router, seen: &Seen<'_>, ask: &Ask) -> Result<Option<Write>, Refusal> {
    if !(0..=100).contains(&ask.weight) {
        return Err(Refusal::Share { what: "a weight", value: ask.weight });
    }
    if let Some(percent) = ask.mirror.filter(|percent| !(1..=100).contains(percent)) {
        return Err(Refusal::Share { what: "a mirror", value: percent });
    }
    let empty = |one: &Match| one.headers.is_empty() && one.cookies.is_empty() && one.query.is_empty();
    if ask.matches.iter().any(empty) {
        let why = "it has no condition";
        return Err(Refusal::Match { at: "the route".to_owned(), name: "all requests".to_owned(), why });
    }
    match form_of(router) {
        Form::Rules(dialect) => rules::patch(dialect, seen, ask),
        Form::Nginx => nginx::patch(seen, ask),
        Form::Alb => alb::patch(seen.route, ask),
    }
}

/// What a release may change of the route, as it is before: JSON pointers with their values, to be recorded at its
/// start. Refused when a release could not be sure to give it back: the route names the canary already.
pub fn borrowed(router: Router, seen: &Seen<'_>, stable: &str, canary: &str) -> Result<Value, Refusal> {
    match form_of(router) {
        Form::Rules(dialect) => rules::borrowed(dialect, seen.route, stable, canary),
        Form::Nginx => nginx::borrowed(seen, stable, canary),
        Form::Alb => alb::borrowed(seen.route, stable, canary),
    }
}

/// The write that takes the canary out again; nothing when it is not there. What is as the release left it becomes
/// what `original` recorded, to the byte. What somebody else changed meanwhile stays: such a rule only loses the
/// canary, whose weight goes to stable. Never refused: it also serves without a record, or with a stale one.
pub fn give_back(
    router: Router,
    seen: &Seen<'_>,
    original: &Value,
    stable: &str,
    canary: &str,
) -> Option<Write> {
    match form_of(router) {
        Form::Rules(dialect) => rules::give_back(dialect, seen.route, original, stable, canary),
        Form::Nginx => seen.companion.map(|_| Write::Delete),
        Form::Alb => alb::give_back(seen.route, original, stable, canary),
    }
}

/// Whether the router has taken up the route as it is now.
pub fn taken_up(router: Router, seen: &Seen<'_>) -> Uptake {
    match router {
        Router::HttpRoute | Router::GrpcRoute => gateway::taken_up(seen.route),
        Router::VirtualService => istio::taken_up(seen.route),
        // Their status has nothing that belongs to a generation.
        Router::NginxIngress
        | Router::TraefikService
        | Router::IngressRoute
        | Router::AlbIngress
        | Router::TrafficSplit => Uptake::Unknown,
    }
}
