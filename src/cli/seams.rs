//! The calls into other parts of the program. What this version does not contain fails with
//! [`Kind::NotBuilt`]; nothing here pretends.

use kube::Client;
use kube::core::DynamicObject;
use serde_json::Value;

use super::args::Operator;
use super::failure::{Exit, Failure, Kind};
use crate::api::Release;
use crate::api::rollout::Confidence;
use crate::report::release::{Evidence, Needs};

/// The present moment.
pub fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

/// What `install` can be told.
#[derive(Clone, Debug)]
pub struct InstallOptions {
    /// Namespace of the operator.
    pub namespace: String,
    /// Image of the operator; `None` for that of this version.
    pub image: Option<String>,
}

/// The manifests of an installation, in the order in which they are applied.
pub fn manifests(_: &InstallOptions) -> Result<Vec<DynamicObject>, Failure> {
    Err(absent("make the manifests"))
}

/// The manifests as one YAML text.
pub fn manifests_yaml(_: &[DynamicObject]) -> Result<String, Failure> {
    Err(absent("print the manifests"))
}

/// Applies the manifests; gives back kind, name, namespace and what was done, one each.
pub async fn apply(
    _: &Client,
    _: &[DynamicObject],
) -> Result<Vec<(String, String, Option<String>, String)>, Failure> {
    std::future::ready(()).await;
    Err(absent("apply the manifests"))
}

/// Removes an installation; gives back as [`apply`].
pub async fn remove(
    _: &Client,
    _: &InstallOptions,
    _keep_crds: bool,
) -> Result<Vec<(String, String, Option<String>, String)>, Failure> {
    std::future::ready(()).await;
    Err(absent("remove the installation"))
}

/// A field that a schema or one of its rules refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// Such as `spec.strategy.canary.steps[0].weight`.
    pub path: String,
    /// What is wrong and what to do.
    pub message: String,
}

/// Checks an object against schema and rules of its definition. `None`: this version cannot.
pub fn validate(_crd: &Value, _object: &Value) -> Option<Vec<FieldError>> {
    None
}

/// The digest of a pod template. `None`: this version cannot.
pub fn revision(_template: &Value) -> Option<String> {
    None
}

/// Runs the operator until it is told to stop. `namespace`: only this one.
pub async fn operator(_: &Operator, _namespace: Option<String>, _: Client) -> Result<Exit, Failure> {
    std::future::ready(()).await;
    Err(absent("run the operator"))
}

/// What the reports ask the decision engine.
pub struct Engine;

impl Evidence for Engine {
    fn needs(&self, confidence: Confidence, guards: usize) -> Needs {
        let (strict, margin) = match confidence {
            Confidence::Careful => (1000.0, 20.0),
            Confidence::Standard => (100.0, 10.0),
            Confidence::Fast => (20.0, 5.0),
        };
        // Each guard has an equal share of the allowed error.
        Needs { strict: strict * guards.max(1) as f64, margin, safe: 20.0 }
    }

    fn words(&self, _: &Release, _guard: &str) -> Option<String> {
        None
    }
}

fn absent(what: &str) -> Failure {
    Failure::new(Kind::NotBuilt, format!("failed to {what}")).because("it is not built into this version")
}
