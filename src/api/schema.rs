//! Fragments of OpenAPI schema that the derive cannot express.

use schemars::{Schema, SchemaGenerator, json_schema};

/// A Go duration that is not negative. The small units are there because none at all is written as `0ns`.
pub(super) fn duration(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 32,
        "x-kubernetes-validations": [{
            "rule": "self.matches('^([0-9]+([.][0-9]+)?(ns|us|µs|ms|s|m|h))+$')",
            "message": "write a duration with units, not negative, such as 90s or 2m30s",
        }],
    })
}

/// Values of a template's arguments, by name.
pub(super) fn arguments(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 20,
        "additionalProperties": {"type": "string", "maxLength": 1024},
    })
}

/// Guards whose texts may hold arguments, so that only the guard with its arguments filled in can be checked.
pub(super) fn guards_with_arguments(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "minItems": 1,
        "maxItems": 10,
        "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
    })
}

/// A `PodSpec` as it is written, so that fields of a newer Kubernetes survive.
pub(super) fn pod_spec(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// Conditions as every Kubernetes API has them: one per type.
pub(super) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "description": "What holds true of the object now, one entry per type.",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": {"type": "string", "maxLength": 316},
                "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
                "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
                "lastTransitionTime": {"type": "string", "format": "date-time"},
                "reason": {"type": "string", "maxLength": 1024},
                "message": {"type": "string", "maxLength": 32768},
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use kube::CustomResourceExt;
    use kube::core::Duration;
    use serde_json::json;

    use crate::api::Rollout;
    use crate::api::validate::validate;

    /// What a Rollout says goes into a Release as this program writes it: `0s` as `0ns`.
    #[test]
    fn what_is_read_is_taken_again_as_it_is_written() {
        let crd = serde_json::to_value(Rollout::crd()).unwrap();
        let said = |duration: &str| {
            let steps = json!([{"weight": 5, "minDuration": duration}]);
            let object = json!({
                "apiVersion": "belay.dev/v1alpha1", "kind": "Rollout", "metadata": {"name": "web"},
                "spec": {
                    "workloadRef": {"kind": "Deployment", "name": "web"},
                    "strategy": {"canary": {"steps": steps}},
                },
            });
            validate(&crd, &object)
        };
        for read in ["0s", "90s", "2m30s", "1.5h", "0.25ms", "0.5us", "7ns"] {
            assert_eq!(said(read), [], "{read}");
            let written = read.parse::<Duration>().unwrap().to_string();
            assert_eq!(said(&written), [], "{read} is written as {written}");
        }
        assert_eq!(said("0ns"), []);
        for wrong in ["", "90", "-5s", "5 s", "s", "1d"] {
            assert_eq!(said(wrong).len(), 1, "{wrong}");
        }
    }
}
