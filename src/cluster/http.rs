//! A small HTTP client for metrics: every request has a deadline, every answer a largest size.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, Request, Response, Uri, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::through::Through;
use super::tls::{Trust, TrustError, connector};

/// Connections that idle longer are closed: the pods of a release come and go.
const IDLE: Duration = Duration::from_secs(60);

/// Ways to trust whose connections are kept; of more, the one that was not used for longest is given up.
const MOST_TRUSTS: usize = 32;

type Secure = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// The client. Cheap to clone; clones share their connections. Redirects are not followed.
#[derive(Clone, Debug)]
pub struct Http {
    plain: Client<HttpConnector, Full<Bytes>>,
    /// One per way to trust, so that a connection serves only those who trust like whoever made it. The one that
    /// was used last is last.
    secure: Arc<Mutex<Vec<(Trust, Secure)>>>,
    /// Another way than the network, where it leads there.
    through: Option<Arc<Through>>,
}

/// What is sent along with a request, and whom it trusts.
#[derive(Clone, Debug, Default)]
pub struct Access {
    headers: Vec<(HeaderName, HeaderValue)>,
    trust: Trust,
}

impl Access {
    /// Sends nothing along.
    pub fn new(trust: Trust) -> Self {
        Self { headers: Vec::new(), trust }
    }

    /// Sends a header along; nothing when name or value cannot stand in a request.
    pub fn header(mut self, name: &str, value: &str) -> Option<Self> {
        self.headers.push((name.parse().ok()?, value.parse().ok()?));
        Some(self)
    }

    /// Sends credentials along, which are not shown; nothing when they cannot stand in a request.
    pub fn authorization(mut self, value: &[u8]) -> Option<Self> {
        let mut value = HeaderValue::from_bytes(value).ok()?;
        value.set_sensitive(true);
        self.headers.push((header::AUTHORIZATION, value));
        Some(self)
    }
}

/// The bounds of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Time for everything, from the connection to the last byte.
    pub deadline: Duration,
    /// Bytes of the body.
    pub body: usize,
}

/// An answer, whatever its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// What the server says the body is, such as `text/plain; version=0.0.4`; empty if it says nothing.
    pub content_type: String,
    /// The whole body.
    pub body: Bytes,
}

impl Answer {
    /// Whether the status is a 2xx.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// The start of a text in one line, for messages.
pub fn excerpt(text: &str, characters: usize) -> String {
    let words = text.split_whitespace().take(characters).collect::<Vec<_>>();
    words.join(" ").chars().take(characters).collect()
}

/// Why there is no answer. Addresses are shown without user, password and query.
#[derive(thiserror::Error, Debug)]
pub enum HttpError {
    /// The address cannot be used.
    #[error("{0} is not an address that starts with http:// or https://")]
    Address(String),
    /// The address has user and password in it.
    #[error("{0}: user and password in the address are not supported")]
    Credentials(String),
    /// It is not known whom to trust.
    #[error("{address} cannot be trusted")]
    Trust {
        /// The address.
        address: String,
        /// Why not.
        #[source]
        source: TrustError,
    },
    /// It could not be asked through the API server.
    #[error("failed to ask {address} through the API server: {reason}")]
    Through {
        /// The address.
        address: String,
        /// Why.
        reason: String,
    },
    /// Time is over.
    #[error("{address} did not answer within {} s", deadline.as_secs_f64())]
    Deadline {
        /// The address.
        address: String,
        /// The time it had.
        deadline: Duration,
    },
    /// No connection, or it broke.
    #[error("failed to reach {address}")]
    Connection {
        /// The address.
        address: String,
        /// What broke.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The body broke off.
    #[error("failed to read the answer of {address}")]
    Body {
        /// The address.
        address: String,
        /// What broke.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The body is larger than allowed.
    #[error("the answer of {address} is larger than {limit} bytes")]
    TooLarge {
        /// The address.
        address: String,
        /// The most that is read.
        limit: usize,
    },
}

impl HttpError {
    /// The error and its causes in one line.
    pub fn in_full(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

impl Default for Http {
    fn default() -> Self {
        Self::new()
    }
}

impl Http {
    /// A client without connections.
    pub fn new() -> Self {
        Self { plain: builder().build(HttpConnector::new()), secure: Arc::default(), through: None }
    }

    /// The same client on another way, where that leads.
    #[must_use]
    pub fn through(self, through: Through) -> Self {
        Self { through: Some(Arc::new(through)), ..self }
    }

    /// Gets `url`; `accept` says in which form.
    pub async fn get(
        &self,
        url: &str,
        accept: &'static str,
        access: &Access,
        limits: Limits,
    ) -> Result<Answer, HttpError> {
        self.ask(Method::GET, url, accept, access, limits).await
    }

    /// Asks `url` with a method, and without a body; `accept` says in which form.
    pub async fn ask(
        &self,
        method: Method,
        url: &str,
        accept: &'static str,
        access: &Access,
        limits: Limits,
    ) -> Result<Answer, HttpError> {
        let uri = parse(url)?;
        let request = Request::builder().method(method).uri(uri.clone()).header(header::ACCEPT, accept);
        self.send(&uri, request, Full::default(), access, limits).await
    }

    /// Posts the fields of a form to `url`.
    pub async fn post_form(
        &self,
        url: &str,
        form: &[(&str, &str)],
        access: &Access,
        limits: Limits,
    ) -> Result<Answer, HttpError> {
        let uri = parse(url)?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(uri.clone())
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        let body = form
            .iter()
            .map(|(key, value)| format!("{}={}", percent_encoded(key), percent_encoded(value)))
            .collect::<Vec<_>>()
            .join("&");
        self.send(&uri, request, Full::from(body), access, limits).await
    }

    async fn send(
        &self,
        uri: &Uri,
        request: http::request::Builder,
        body: Full<Bytes>,
        access: &Access,
        limits: Limits,
    ) -> Result<Answer, HttpError> {
        let address = || shown(uri);
        let request = access
            .headers
            .iter()
            .fold(request, |request, (name, value)| request.header(name, value))
            .header(header::USER_AGENT, concat!("belay/", env!("CARGO_PKG_VERSION")))
            .body(body)
            .map_err(|_| HttpError::Address(address()))?;
        if let Some((through, path)) = self.through.as_ref().and_then(|way| Some((way, way.path(uri)?))) {
            return through_server(through, &path, request, limits, &address()).await;
        }
        let exchange = async {
            let response = if uri.scheme_str() == Some("https") {
                let client = self.trusting(&access.trust);
                let client = client.map_err(|source| HttpError::Trust { address: address(), source })?;
                client.request(request).await
            } else {
                self.plain.request(request).await
            };
            let response = response
                .map_err(|error| HttpError::Connection { address: address(), source: Box::new(error) })?;
            let (status, content_type) = head(&response);
            let body = Limited::new(response.into_body(), limits.body).collect().await.map_err(|error| {
                if error.is::<LengthLimitError>() {
                    HttpError::TooLarge { address: address(), limit: limits.body }
                } else {
                    HttpError::Body { address: address(), source: error }
                }
            })?;
            Ok(Answer { status, content_type, body: body.to_bytes() })
        };
        tokio::time::timeout(limits.deadline, exchange)
            .await
            .unwrap_or_else(|_| Err(HttpError::Deadline { address: address(), deadline: limits.deadline }))
    }

    /// The connections that trust like this.
    fn trusting(&self, trust: &Trust) -> Result<Secure, TrustError> {
        let mut all = self.secure.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = all.iter().position(|(other, _)| other == trust).map(|index| all.remove(index).1);
        let client = match kept {
            Some(client) => client,
            None => builder().build(connector(trust)?),
        };
        if all.len() >= MOST_TRUSTS {
            all.remove(0);
        }
        all.push((trust.clone(), client.clone()));
        Ok(client)
    }
}

/// The status, and what the body is said to be.
fn head<B>(response: &Response<B>) -> (u16, String) {
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    (response.status().as_u16(), kind.unwrap_or_default().to_owned())
}

/// Asks by way of the API server. Credentials of the source would be taken for the user's own there, so none are sent.
async fn through_server(
    through: &Through,
    path: &str,
    request: Request<Full<Bytes>>,
    limits: Limits,
    address: &str,
) -> Result<Answer, HttpError> {
    let failed = |reason: String| HttpError::Through { address: address.to_owned(), reason };
    let (mut parts, body) = request.into_parts();
    if parts.headers.contains_key(header::AUTHORIZATION) {
        return Err(failed("a source with auth cannot be asked through the API server".to_owned()));
    }
    parts.uri = path.parse().map_err(|_| failed("its path cannot stand in an address".to_owned()))?;
    // The body is there already; collecting it cannot fail.
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let exchange = async {
        let response = through.send(Request::from_parts(parts, body)).await;
        let response = response.map_err(|error| failed(error.to_string()))?;
        let (status, content_type) = head(&response);
        let body = Limited::new(response.into_body(), limits.body).collect().await;
        let body = body.map_err(|error| failed(error.to_string()))?.to_bytes();
        Ok(Answer { status, content_type, body })
    };
    tokio::time::timeout(limits.deadline, exchange).await.unwrap_or_else(|_| {
        Err(HttpError::Deadline { address: address.to_owned(), deadline: limits.deadline })
    })
}

fn builder() -> hyper_util::client::legacy::Builder {
    let mut builder = Client::builder(TokioExecutor::new());
    builder.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE).pool_max_idle_per_host(2);
    builder
}

fn parse(url: &str) -> Result<Uri, HttpError> {
    // What cannot be read may hold a password anywhere, so nothing of it is shown but the scheme.
    let uri: Uri = url.parse().map_err(|_| HttpError::Address("what was given".to_owned()))?;
    let authority = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    if !matches!(uri.scheme_str(), Some("http" | "https")) || authority.is_empty() {
        return Err(HttpError::Address(shown(&uri)));
    }
    if authority.contains('@') {
        return Err(HttpError::Credentials(shown(&uri)));
    }
    Ok(uri)
}

/// An address as messages may show it: without user, password and query.
fn shown(uri: &Uri) -> String {
    let scheme = uri.scheme_str().map(|scheme| format!("{scheme}://")).unwrap_or_default();
    let port = uri.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{scheme}{}{port}{}", uri.host().unwrap_or_default(), uri.path())
}

/// Everything but the unreserved characters of RFC 3986 as `%XX`.
fn percent_encoded(text: &str) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.push(char::from(HEX[usize::from(byte >> 4)]));
            encoded.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodes_forms() {
        assert_eq!(percent_encoded("a{b=~\"5..|é\"} +"), "a%7Bb%3D~%225..%7C%C3%A9%22%7D%20%2B");
    }

    #[test]
    fn shows_no_secret() {
        for url in [
            "http://me:hunter2@host/path?token=hunter2",
            "ftp://me:hunter2@host/",
            "http://me:hunter2@ho st/",
        ] {
            let error = parse(url).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
        assert!(matches!(parse("http://a:b@h/"), Err(HttpError::Credentials(_))));
        assert!(matches!(parse("file:///etc/passwd"), Err(HttpError::Address(_))));
        assert!(matches!(parse("/metrics"), Err(HttpError::Address(_))));
        let uri = parse("https://host:9090/a?secret=1").unwrap();
        assert_eq!(shown(&uri), "https://host:9090/a");
    }
}
