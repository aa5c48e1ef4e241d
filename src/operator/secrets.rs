//! The Secrets of metrics sources, read from the API server when a look needs them.
//!
//! Purpose: one GET of one name, in the Rollout's namespace, kept for at most a minute. May touch: the API server.
//! Must never: list or watch Secrets, keep keys that were not asked for, put a value or the API server's own words
//! into an error.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{GetParams, Request};
use kube::{Client, Resource as _};

use crate::analysis::query::{SecretError, SecretValue, Secrets};
use crate::clock::now;

/// So long a value is used before it is read again: after that a rotated one counts.
const KEPT: SignedDuration = SignedDuration::from_secs(60);
/// Most Secrets that are kept.
const MOST: usize = 100;
/// Most bytes of a value: a bundle of authorities is the largest of them.
const LARGEST: usize = 256 * 1024;
const DEADLINE: Duration = Duration::from_secs(5);

/// Namespace, name and keys.
type Key = (String, String, Vec<String>);

/// Reads Secrets as the operator's account.
pub struct ClusterSecrets {
    client: Client,
    /// How Kubernetes names the account; for messages.
    account: String,
    kept: Mutex<Kept>,
}

impl ClusterSecrets {
    /// None is read yet. `account`: whose client it is.
    pub fn new(client: Client, account: &str) -> Self {
        Self { client, account: account.to_owned(), kept: Mutex::default() }
    }

    async fn fetch(&self, (namespace, name, keys): &Key) -> Result<Vec<SecretValue>, SecretError> {
        let unreachable =
            |reason: &str| SecretError::Unreachable { name: name.clone(), reason: reason.to_owned() };
        // Not through the typed `Api`: that logs the whole text of an answer that it cannot decode.
        let request = Request::new(Secret::url_path(&(), Some(namespace))).get(name, &GetParams::default());
        let request = request.map_err(|_| unreachable("its name cannot stand in an address"))?;
        let text = match tokio::time::timeout(DEADLINE, self.client.request_text(request)).await {
            Ok(Ok(text)) => text,
            Ok(Err(kube::Error::Api(status))) if status.code == 403 => {
                return Err(SecretError::Forbidden {
                    account: self.account.clone(),
                    namespace: namespace.clone(),
                    name: name.clone(),
                });
            }
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => {
                return Err(SecretError::Missing { namespace: namespace.clone(), name: name.clone() });
            }
            // What the API server or the decoder says of a Secret may have a piece of it.
            Ok(Err(kube::Error::Api(status))) => {
                return Err(unreachable(&format!("the API server answered {}", status.code)));
            }
            Ok(Err(_)) => return Err(unreachable("the API server cannot be reached")),
            Err(_) => {
                return Err(unreachable(&format!(
                    "the API server did not answer within {} s",
                    DEADLINE.as_secs()
                )));
            }
        };
        let secret: Secret =
            serde_json::from_str(&text).map_err(|_| unreachable("what the API server sent is no Secret"))?;
        let mut data = secret.data.unwrap_or_default();
        keys.iter()
            .map(|key| match data.remove(key) {
                None => Err(SecretError::NoKey { name: name.clone(), key: key.clone() }),
                Some(value) if value.0.len() > LARGEST => {
                    Err(SecretError::TooLarge { name: name.clone(), key: key.clone(), limit: LARGEST })
                }
                Some(value) => Ok(SecretValue::new(value.0)),
            })
            .collect()
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Secrets for ClusterSecrets {
    fn read<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
        keys: &'a [&'a str],
    ) -> BoxFuture<'a, Result<Vec<SecretValue>, SecretError>> {
        async move {
            let key = (namespace.to_owned(), name.to_owned(), keys.iter().map(ToString::to_string).collect());
            let kept = self.kept().get(&key, now());
            if let Some(values) = kept {
                return Ok(values);
            }
            // A failure is not kept: a Role that is created counts at the next look.
            let values = self.fetch(&key).await?;
            self.kept().put(key, values.clone(), now());
            Ok(values)
        }
        .boxed()
    }
}

/// The values that were read within the last minute.
#[derive(Debug, Default)]
struct Kept(BTreeMap<Key, (Timestamp, Vec<SecretValue>)>);

impl Kept {
    fn get(&mut self, key: &Key, now: Timestamp) -> Option<Vec<SecretValue>> {
        // A clock that was set back makes nothing younger.
        self.0.retain(|_, (at, _)| (SignedDuration::ZERO..KEPT).contains(&now.duration_since(*at)));
        self.0.get(key).map(|(_, values)| values.clone())
    }

    fn put(&mut self, key: Key, values: Vec<SecretValue>, now: Timestamp) {
        if self.0.len() >= MOST
            && let Some(oldest) = self.0.iter().min_by_key(|(_, (at, _))| *at).map(|(key, _)| key.clone())
        {
            self.0.remove(&oldest);
        }
        self.0.insert(key, (now, values));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::Response;
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn key(name: &str) -> Key {
        ("shop".to_owned(), name.to_owned(), vec!["token".to_owned()])
    }

    fn values(text: &str) -> Vec<SecretValue> {
        vec![SecretValue::new(text.as_bytes().to_vec())]
    }

    #[test]
    fn a_value_is_kept_for_a_minute_and_of_many_the_oldest_is_given_up() {
        let mut kept = Kept::default();
        kept.put(key("a"), values("1"), at(0));
        assert_eq!(kept.get(&key("a"), at(59)), Some(values("1")));
        assert_eq!(kept.get(&("other".to_owned(), "a".to_owned(), vec!["token".to_owned()]), at(1)), None);
        assert_eq!(kept.get(&("shop".to_owned(), "a".to_owned(), vec!["key".to_owned()]), at(1)), None);
        assert_eq!(kept.get(&key("a"), at(60)), None);
        kept.put(key("a"), values("1"), at(0));
        assert_eq!(kept.get(&key("a"), at(-1)), None, "the clock was set back");
        for i in 0..=i64::try_from(MOST).unwrap() {
            kept.put(key(&format!("{:03}", 200 - i)), values("1"), at(i / 2));
        }
        assert_eq!(kept.0.len(), MOST);
        assert!(
            !kept.0.contains_key(&key("199")) || !kept.0.contains_key(&key("200")),
            "one of the oldest two"
        );
        assert!(kept.0.contains_key(&key("100")));
        assert!(format!("{kept:?}").contains("[***]"));
    }

    /// An API server that gives these answers, one after another, and then the last for ever.
    fn server(answers: &[(u16, Value)]) -> (ClusterSecrets, Arc<Mutex<Vec<String>>>) {
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let (seen, answers) = (asked.clone(), answers.to_vec());
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let mut seen = seen.lock().unwrap();
            seen.push(format!("{} {}", request.method(), request.uri()));
            let (status, body) = answers[(seen.len() - 1).min(answers.len() - 1)].clone();
            async move {
                let body = Body::from(body.to_string().into_bytes());
                Ok::<_, std::convert::Infallible>(Response::builder().status(status).body(body).unwrap())
            }
        });
        (ClusterSecrets::new(Client::new(service, "default"), "system:serviceaccount:x:belay"), asked)
    }

    fn secret(data: &Value) -> (u16, Value) {
        (200, json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "auth"}, "data": data}))
    }

    fn status(code: u16) -> (u16, Value) {
        let status = json!({
            "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code,
            "reason": "Whatever", "message": "canary-secret",
        });
        (code, status)
    }

    #[tokio::test]
    async fn one_name_is_got_once_and_only_the_keys_that_are_wanted() {
        // "hunter2" and "me" in base64.
        let (secrets, asked) =
            server(&[secret(&json!({"password": "aHVudGVyMg==", "username": "bWU=", "z": ""}))]);
        for _ in 0..3 {
            let read = secrets.read("shop", "auth", &["username", "password"]).await.unwrap();
            assert_eq!(read, [SecretValue::new(b"me".to_vec()), SecretValue::new(b"hunter2".to_vec())]);
            assert_eq!(format!("{read:?}"), "[***, ***]");
        }
        assert_eq!(*asked.lock().unwrap(), ["GET /api/v1/namespaces/shop/secrets/auth"]);
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_named_and_tried_again() {
        let large = "A".repeat(LARGEST / 3 * 4 + 8);
        let (secrets, asked) = server(&[
            status(403),
            status(404),
            status(500),
            secret(&json!({"token": {"canary-secret": 1}})),
            secret(&json!({"other": "bWU="})),
            secret(&json!({"token": large})),
            secret(&json!({"token": "bWU="})),
        ]);
        for said in [
            "system:serviceaccount:x:belay may not read the Secret auth: create in namespace shop a Role that \
             allows `get` on secrets with resourceNames: [auth], and a RoleBinding",
            "there is no Secret auth in namespace shop",
            "failed to read the Secret auth: the API server answered 500",
            "what the API server sent is no Secret",
            "the Secret auth has no key token",
            "the key token of the Secret auth is larger than 262144 bytes",
        ] {
            let error = secrets.read("shop", "auth", &["token"]).await.unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(shown.contains(said) && !shown.contains("canary-secret"), "{said}: {shown}");
        }
        secrets.read("shop", "auth", &["token"]).await.unwrap();
        assert_eq!(asked.lock().unwrap().len(), 7);
    }
}
