//! Opens the way to a source: reads the Secrets that it names, and builds what is sent along from them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::secrets::{SecretValue, Secrets};
use crate::analysis::source::{Access, Credentials, SecretKey};
use crate::cluster::http;
use crate::cluster::tls::Trust;

/// What one look sends along, and whom it trusts.
pub(super) struct Way {
    /// For the client.
    pub(super) access: http::Access,
    /// What an answer may repeat and no message may: the values, and the header made of them.
    hidden: Vec<String>,
    /// The Secret with the credentials, if some are sent.
    secret: Option<String>,
}

impl Way {
    /// The way to a source; `headers` hold no credentials.
    pub(super) async fn open(
        secrets: &dyn Secrets,
        namespace: &str,
        access: &Access,
        headers: &[(String, String)],
    ) -> Result<Self, String> {
        let trust = match &access.authorities {
            _ if access.insecure => Trust::everybody(),
            None => Trust::new(None, access.server_name.as_deref()),
            Some(SecretKey { secret, key }) => {
                let [authorities] = read(secrets, namespace, secret, [key]).await?;
                Trust::new(Some(authorities.bytes()), access.server_name.as_deref())
            }
        };
        let mut way = Self { access: http::Access::new(trust), hidden: Vec::new(), secret: None };
        for (name, value) in headers {
            let access = way.access.header(name, value);
            way.access = access.ok_or_else(|| format!("the header {name} cannot be sent"))?;
        }
        let Some(credentials) = &access.credentials else { return Ok(way) };
        let secret = credentials.secret();
        let value = match credentials {
            Credentials::Bearer(SecretKey { key, .. }) => {
                let [token] = read(secrets, namespace, secret, [key]).await?;
                let token = text(&token, secret, key)?;
                way.hidden.push(token.to_owned());
                format!("Bearer {token}")
            }
            Credentials::Basic { user, password, .. } => {
                let [user_value, password_value] = read(secrets, namespace, secret, [user, password]).await?;
                let user_value = text(&user_value, secret, user)?;
                let password_value = text(&password_value, secret, password)?;
                if user_value.contains(':') {
                    return Err(format!(
                        "the key {user} of the Secret {secret} must have no colon (RFC 7617)"
                    ));
                }
                let pair = STANDARD.encode(format!("{user_value}:{password_value}"));
                way.hidden.extend([password_value.to_owned(), pair.clone()]);
                format!("Basic {pair}")
            }
        };
        way.hidden.retain(|value| !value.is_empty());
        // The longest first: one may be a part of the other.
        way.hidden.sort_by_key(|value| std::cmp::Reverse(value.len()));
        let access = way.access.authorization(value.as_bytes());
        way.access = access.ok_or_else(|| format!("what is in the Secret {secret} cannot be sent"))?;
        way.secret = Some(secret.to_owned());
        Ok(way)
    }

    /// A text of the other side as messages may show it: it may have sent our credentials back.
    pub(super) fn shown(&self, text: &str) -> String {
        self.hidden.iter().fold(text.to_owned(), |text, value| text.replace(value.as_str(), "***"))
    }

    /// What a status other than success means for whoever set the source up; empty when it says enough itself.
    pub(super) fn meaning(&self, status: u16) -> String {
        match (status, &self.secret) {
            (401, None) => " (unauthorized): it wants credentials; set auth".to_owned(),
            (401, Some(secret)) => {
                format!(" (unauthorized): it does not take the credentials in the Secret {secret}")
            }
            (403, None) => " (forbidden): it wants credentials; set auth".to_owned(),
            (403, Some(secret)) => {
                format!(" (forbidden): the credentials in the Secret {secret} may not do this")
            }
            (300..=399, _) => {
                " (a redirect, which is not followed): set the address that it leads to".to_owned()
            }
            _ => String::new(),
        }
    }
}

async fn read<const N: usize>(
    secrets: &dyn Secrets,
    namespace: &str,
    name: &str,
    keys: [&String; N],
) -> Result<[SecretValue; N], String> {
    let keys = keys.map(String::as_str);
    let values = secrets.read(namespace, name, &keys).await.map_err(|error| error.to_string())?;
    values.try_into().map_err(|_| format!("the Secret {name} was not read as a whole"))
}

/// The text of a value, without the line break that editors leave at its end.
fn text<'a>(value: &'a SecretValue, secret: &str, key: &str) -> Result<&'a str, String> {
    let text = std::str::from_utf8(value.bytes()).map(|text| text.trim_end_matches(['\r', '\n']));
    match text {
        Ok(text) if !text.is_empty() && !text.contains(char::is_control) => Ok(text),
        Ok("") => Err(format!("the key {key} of the Secret {secret} is empty")),
        _ => Err(format!("the key {key} of the Secret {secret} is no text of one line")),
    }
}
