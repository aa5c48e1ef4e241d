//! Service Mesh Interface: the backends of a `TrafficSplit`.

use serde_json::{Value, json};

use super::dialect::{Dialect, Place};

/// `split.smi-spec.io`, from v1alpha2 on.
pub(super) struct Smi;

impl Dialect for Smi {
    fn router(&self) -> &'static str {
        "an SMI TrafficSplit"
    }

    fn places(&self) -> &'static [Place] {
        &[Place { at: "/spec", list: "backends", many: false, requests: false }]
    }

    fn named<'a>(&self, backend: &'a Value, _: &str) -> Option<&'a str> {
        backend["service"].as_str()
    }

    fn rename(&self, backend: &mut Value, service: &str) {
        backend["service"] = json!(service);
    }

    // The specification has no limit; its integers are of 32 bits in the implementations.
    fn most(&self) -> i64 {
        1_000_000
    }

    fn cure(&self) -> &'static str {
        "have `spec.backends` name it"
    }
}
