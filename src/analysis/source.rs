//! Where the numbers come from, read once and checked.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::api::metrics::{Auth, Header, Metrics, PodMetrics, PrometheusMetrics, Scheme, Tls};

/// The time after which Prometheus itself forgets a series.
const DEFAULT_LOOK_BACK: Duration = Duration::from_secs(300);
const MOST_HEADERS: usize = 10;
const PROMETHEUS: &str = "spec.analysis.metrics.prometheus";
/// The header of a tenant.
const TENANT: &str = "X-Scope-OrgID";

/// Where the numbers come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The metrics page of each pod.
    Pods(PodSource),
    /// A server with Prometheus' HTTP API.
    Prometheus(PrometheusSource),
}

/// The metrics page of each pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodSource {
    /// Port of the page.
    pub port: u16,
    /// Path of the page, with its slash.
    pub path: String,
    /// Whether it is served over TLS.
    pub secure: bool,
    /// Who asks, and whom to trust.
    pub access: Access,
}

/// A server with Prometheus' HTTP API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrometheusSource {
    /// Base address without a slash at its end and without credentials.
    pub url: String,
    /// The label that holds the pod's name.
    pub pod_label: String,
    /// The label that holds the namespace, if it is to be matched.
    pub namespace_label: Option<String>,
    /// Samples older than this are no data.
    pub look_back: Duration,
    /// Headers of every query; no credentials.
    pub headers: Vec<(String, String)>,
    /// Who asks, and whom to trust.
    pub access: Access,
}

/// Who asks, and whom to trust.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Access {
    /// Who asks; nobody in particular if there is none.
    pub credentials: Option<Credentials>,
    /// The key of a Secret with the authorities to trust, instead of the system's.
    pub authorities: Option<SecretKey>,
    /// The name that the server's certificate must have, instead of the address's.
    pub server_name: Option<String>,
    /// Whether whoever answers is trusted.
    pub insecure: bool,
}

impl Access {
    /// The names of the Secrets that are read for it.
    pub fn secrets(&self) -> BTreeSet<&str> {
        let credentials = self.credentials.iter().map(Credentials::secret);
        credentials.chain(self.authorities.iter().map(|key| key.secret.as_str())).collect()
    }
}

/// Where the credentials are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// User and password.
    Basic {
        /// Name of the Secret.
        secret: String,
        /// Key of the user's name.
        user: String,
        /// Key of the password.
        password: String,
    },
    /// A token.
    Bearer(SecretKey),
}

impl Credentials {
    /// Name of the Secret.
    pub fn secret(&self) -> &str {
        match self {
            Self::Basic { secret, .. } => secret,
            Self::Bearer(token) => &token.secret,
        }
    }
}

/// A key of a Secret in the Rollout's namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretKey {
    /// Name of the Secret.
    pub secret: String,
    /// The key.
    pub key: String,
}

/// Why a source cannot be used: the field, and what is wrong with it.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
pub enum SourceError {
    /// Not exactly one source.
    #[error("spec.analysis.metrics: exactly one of pods and prometheus; remove the other")]
    TwoSources,
    /// A port that is none.
    #[error("spec.analysis.metrics.pods.port: {0} is not between 1 and 65535")]
    Port(i32),
    /// A path that is none.
    #[error("spec.analysis.metrics.pods.path: must start with a slash and have no spaces")]
    Path,
    /// An address that cannot be used.
    #[error("spec.analysis.metrics.prometheus.url: {0}")]
    Url(&'static str),
    /// An age outside its bounds.
    #[error("spec.analysis.metrics.prometheus.lookBack: 1s to 5m")]
    LookBack,
    /// A tenant that cannot be sent.
    #[error(
        "spec.analysis.metrics.prometheus.tenant: 1 to 150 of letters, digits and !-_.*'()|, as Mimir has it"
    )]
    Tenant,
    /// A header that cannot be sent.
    #[error("{of}.headers[{name}]: {reason}")]
    Header {
        /// Of what: the path of the field above.
        of: &'static str,
        /// Its name.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Too many headers.
    #[error("{0}.headers: at most {MOST_HEADERS}")]
    TooManyHeaders(&'static str),
    /// Not exactly one way to say who asks.
    #[error("{0}.auth: exactly one of basic and bearer; remove the other")]
    TwoWays(&'static str),
    /// TLS settings where there is no TLS.
    #[error("{0}.tls: only with https; say https, or remove tls")]
    NotSecure(&'static str),
    /// Trust in everybody and in somebody.
    #[error(
        "{0}.tls: insecureSkipVerify trusts everybody, so caSecretRef and serverName mean \
         nothing; remove it, or them"
    )]
    TrustsAll(&'static str),
}

impl Source {
    /// Reads a source, fills in the defaults and checks it.
    pub fn resolve(metrics: &Metrics) -> Result<Self, SourceError> {
        match (&metrics.pods, &metrics.prometheus) {
            (Some(pods), None) => pod_source(pods).map(Self::Pods),
            (None, Some(prometheus)) => prometheus_source(prometheus).map(Self::Prometheus),
            _ => Err(SourceError::TwoSources),
        }
    }

    /// Who asks, and whom to trust.
    pub fn access(&self) -> &Access {
        match self {
            Self::Pods(pods) => &pods.access,
            Self::Prometheus(prometheus) => &prometheus.access,
        }
    }

    /// The names of the Secrets that a look reads, in the Rollout's namespace.
    pub fn secrets(&self) -> BTreeSet<&str> {
        self.access().secrets()
    }

    /// Whether what is sent and answered can be read on the way.
    pub fn is_in_the_clear(&self) -> bool {
        match self {
            Self::Pods(pods) => !pods.secure,
            Self::Prometheus(prometheus) => !prometheus.url.starts_with("https://"),
        }
    }
}

fn pod_source(pods: &PodMetrics) -> Result<PodSource, SourceError> {
    let port = u16::try_from(pods.port).ok().filter(|port| *port > 0).ok_or(SourceError::Port(pods.port))?;
    let path = pods.path.clone().unwrap_or_else(|| "/metrics".to_owned());
    if !path.starts_with('/') || path.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(SourceError::Path);
    }
    let secure = pods.scheme.unwrap_or_default() == Scheme::Https;
    let access = access("spec.analysis.metrics.pods", pods.auth.as_ref(), pods.tls.as_ref(), secure)?;
    Ok(PodSource { port, path, secure, access })
}

fn prometheus_source(prometheus: &PrometheusMetrics) -> Result<PrometheusSource, SourceError> {
    let url = address(&prometheus.url)?;
    let look_back = match &prometheus.look_back {
        None => DEFAULT_LOOK_BACK,
        Some(look_back) if look_back.is_negative() => return Err(SourceError::LookBack),
        Some(look_back) => Duration::from(*look_back),
    };
    if !(Duration::from_secs(1)..=DEFAULT_LOOK_BACK).contains(&look_back) {
        return Err(SourceError::LookBack);
    }
    let namespace_label = prometheus.namespace_label.as_deref().unwrap_or("namespace");
    let secure = url.starts_with("https://");
    Ok(PrometheusSource {
        pod_label: prometheus.pod_label.clone().unwrap_or_else(|| "pod".to_owned()),
        namespace_label: (!namespace_label.is_empty()).then(|| namespace_label.to_owned()),
        look_back,
        headers: headers(PROMETHEUS, &prometheus.headers, prometheus.tenant.as_deref())?,
        access: access(PROMETHEUS, prometheus.auth.as_ref(), prometheus.tls.as_ref(), secure)?,
        url: url.to_owned(),
    })
}

/// Whether an address can be asked; or why not, without the address, which may hold a password.
pub(super) fn reachable(url: &str) -> Result<(), &'static str> {
    let authority = url
        .strip_prefix("http://")
        .or_else(|| url.strip_prefix("https://"))
        .ok_or("must start with http:// or https://")?;
    let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.is_empty() {
        return Err("the host is missing");
    }
    if authority.contains('@') {
        return Err("user and password in the address are not supported; use `auth`");
    }
    if url.parse::<http::Uri>().is_err() { Err("is no address that can be asked") } else { Ok(()) }
}

/// The base address without the slash at its end.
fn address(url: &str) -> Result<&str, SourceError> {
    let url = url.trim_end_matches('/');
    reachable(url).map_err(SourceError::Url)?;
    if url.contains(['?', '#']) {
        return Err(SourceError::Url("must have neither `?` nor `#`; /api/v1/query is appended to it"));
    }
    Ok(url)
}

/// Headers as they are sent. `of`: the path of the field above, for messages.
pub(super) fn headers(
    of: &'static str,
    headers: &[Header],
    tenant: Option<&str>,
) -> Result<Vec<(String, String)>, SourceError> {
    if headers.len() > MOST_HEADERS {
        return Err(SourceError::TooManyHeaders(of));
    }
    let mut all: Vec<(String, String)> = Vec::with_capacity(headers.len() + 1);
    if let Some(tenant) = tenant {
        let fits = |c: char| c.is_ascii_alphanumeric() || "!-_.*'()|".contains(c);
        if !(1..=150).contains(&tenant.len()) || !tenant.chars().all(fits) {
            return Err(SourceError::Tenant);
        }
        all.push((TENANT.to_owned(), tenant.to_owned()));
    }
    for Header { name, value } in headers {
        let fail = |reason| Err(SourceError::Header { of, name: name.clone(), reason });
        let well_formed = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
            && name.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !well_formed {
            return fail("not the name of a header");
        }
        let printable = value.chars().all(|c| (' '..='~').contains(&c)) && value.trim() == value;
        if !printable {
            return fail("its value must be printable ASCII");
        }
        if let Some(reason) = refused(&name.to_ascii_lowercase()) {
            return fail(reason);
        }
        if all.iter().any(|(other, _)| other.eq_ignore_ascii_case(name)) {
            return fail("it is there twice (`tenant` is X-Scope-OrgID)");
        }
        all.push((name.clone(), value.clone()));
    }
    Ok(all)
}

/// Why a header of this name, in lower case, is not sent.
fn refused(name: &str) -> Option<&'static str> {
    match name {
        "authorization" | "proxy-authorization" | "cookie" => {
            Some("whoever may read the Rollout would read these credentials; use `auth` with a Secret")
        }
        "host" | "accept" | "connection" | "keep-alive" | "te" | "trailer" | "transfer-encoding"
        | "upgrade" | "expect" => Some("the request itself sets it; remove it"),
        _ if name.starts_with("content-") || name.starts_with("accept-") => {
            Some("the request itself sets it; remove it")
        }
        _ => None,
    }
}

/// Who asks, and whom to trust. `of`: the path of the field above, for messages.
pub(super) fn access(
    of: &'static str,
    auth: Option<&Auth>,
    tls: Option<&Tls>,
    secure: bool,
) -> Result<Access, SourceError> {
    let key = |name: &str, key: Option<&str>, default: &str| SecretKey {
        secret: name.to_owned(),
        key: key.unwrap_or(default).to_owned(),
    };
    let credentials = auth.map(|auth| match (&auth.basic, &auth.bearer) {
        (Some(basic), None) => {
            let from = &basic.secret_ref;
            Ok(Credentials::Basic {
                secret: from.name.clone(),
                user: from.username_key.clone().unwrap_or_else(|| "username".to_owned()),
                password: from.password_key.clone().unwrap_or_else(|| "password".to_owned()),
            })
        }
        (None, Some(bearer)) => {
            let from = &bearer.secret_ref;
            Ok(Credentials::Bearer(key(&from.name, from.key.as_deref(), "token")))
        }
        _ => Err(SourceError::TwoWays(of)),
    });
    if tls.is_some() && !secure {
        return Err(SourceError::NotSecure(of));
    }
    let tls = tls.cloned().unwrap_or_default();
    if tls.insecure_skip_verify && (tls.ca_secret_ref.is_some() || tls.server_name.is_some()) {
        return Err(SourceError::TrustsAll(of));
    }
    Ok(Access {
        credentials: credentials.transpose()?,
        authorities: tls.ca_secret_ref.map(|from| key(&from.name, from.key.as_deref(), "ca.crt")),
        server_name: tls.server_name,
        insecure: tls.insecure_skip_verify,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn resolve(metrics: Value) -> Result<Source, SourceError> {
        Source::resolve(&serde_json::from_value(metrics).unwrap())
    }

    #[test]
    fn pods_are_asked_in_the_clear_and_as_nobody_unless_it_is_said() {
        let source = resolve(json!({"pods": {"port": 8080}})).unwrap();
        let plain =
            PodSource { port: 8080, path: "/metrics".to_owned(), secure: false, access: Access::default() };
        assert_eq!(source, Source::Pods(plain));
        assert!(source.is_in_the_clear() && source.secrets().is_empty());
        let source = resolve(json!({"pods": {
            "port": 8443, "path": "/m", "scheme": "https",
            "tls": {"caSecretRef": {"name": "ca"}, "serverName": "web.shop.svc"},
            "auth": {"bearer": {"secretRef": {"name": "scraper"}}},
        }}))
        .unwrap();
        let key = |secret: &str, key: &str| SecretKey { secret: secret.to_owned(), key: key.to_owned() };
        assert_eq!(
            source.access(),
            &Access {
                credentials: Some(Credentials::Bearer(key("scraper", "token"))),
                authorities: Some(key("ca", "ca.crt")),
                server_name: Some("web.shop.svc".to_owned()),
                insecure: false,
            }
        );
        assert!(!source.is_in_the_clear());
        assert_eq!(source.secrets().into_iter().collect::<Vec<_>>(), ["ca", "scraper"]);
    }

    #[test]
    fn a_server_gets_its_tenant_and_headers_and_knows_who_asks() {
        let source = resolve(json!({"prometheus": {
            "url": "https://mimir.monitoring/prometheus/", "tenant": "team-a", "lookBack": "2m",
            "headers": [{"name": "X-Team", "value": "a b"}],
            "auth": {"basic": {"secretRef": {"name": "mimir", "usernameKey": "user"}}},
            "tls": {"caSecretRef": {"name": "mimir", "key": "ca"}},
        }}))
        .unwrap();
        assert_eq!(source.secrets().into_iter().collect::<Vec<_>>(), ["mimir"]);
        let Source::Prometheus(server) = source else { panic!("{source:?}") };
        assert_eq!(server.url, "https://mimir.monitoring/prometheus");
        assert_eq!(server.look_back, Duration::from_secs(120));
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(server.headers, [pair("X-Scope-OrgID", "team-a"), pair("X-Team", "a b")]);
        let basic = Credentials::Basic {
            secret: "mimir".to_owned(),
            user: "user".to_owned(),
            password: "password".to_owned(),
        };
        assert_eq!(server.access.credentials, Some(basic));
    }

    #[test]
    fn addresses_that_cannot_be_used_are_not_shown() {
        for (url, said) in [
            ("ftp://host", "must start with http"),
            ("http:///path", "host is missing"),
            ("http://me:hunter2@host", "user and password"),
            ("http://host?x=hunter2", "neither"),
        ] {
            let error = resolve(json!({"prometheus": {"url": url}})).unwrap_err().to_string();
            assert!(error.contains(said) && !error.contains("hunter2"), "{said}: {error}");
        }
    }
}
