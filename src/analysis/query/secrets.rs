//! The Secrets that a source needs: how they are asked for, and what is said when one cannot be read.
//!
//! Purpose: keep values out of everything that is printed. Must never: hold a value longer than a look; that is
//! for whoever implements [`Secrets`].

use std::fmt;

use futures::future::BoxFuture;

/// A value out of a Secret. It is shown nowhere: there is no `Display`, and `Debug` says `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue(Vec<u8>);

impl SecretValue {
    /// Takes a value.
    pub fn new(value: Vec<u8>) -> Self {
        Self(value)
    }

    /// The value, for the one place that sends it.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Why a Secret cannot be used. No message has anything of its values.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
pub enum SecretError {
    /// It may not be read.
    #[error(
        "{account} may not read the Secret {name}: create in namespace {namespace} a Role that allows `get` on \
         secrets with resourceNames: [{name}], and a RoleBinding of it to that account (`belay lint` prints both)"
    )]
    Forbidden {
        /// Who asked, as Kubernetes names it.
        account: String,
        /// Where.
        namespace: String,
        /// Name of the Secret.
        name: String,
    },
    /// It is not there.
    #[error("there is no Secret {name} in namespace {namespace}")]
    Missing {
        /// Where.
        namespace: String,
        /// Name of the Secret.
        name: String,
    },
    /// A key is not in it.
    #[error("the Secret {name} has no key {key}")]
    NoKey {
        /// Name of the Secret.
        name: String,
        /// The key.
        key: String,
    },
    /// A value is too large.
    #[error("the key {key} of the Secret {name} is larger than {limit} bytes")]
    TooLarge {
        /// Name of the Secret.
        name: String,
        /// The key.
        key: String,
        /// The most that is read.
        limit: usize,
    },
    /// The API server gave no answer that can be used.
    #[error("failed to read the Secret {name}: {reason}")]
    Unreachable {
        /// Name of the Secret.
        name: String,
        /// Why.
        reason: String,
    },
}

/// Whoever can read Secrets.
pub trait Secrets: Send + Sync {
    /// The values of these keys, in their order, of one Secret.
    fn read<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
        keys: &'a [&'a str],
    ) -> BoxFuture<'a, Result<Vec<SecretValue>, SecretError>>;
}
