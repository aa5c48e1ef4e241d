//! Fragments of OpenAPI schema that the derive cannot express.

use schemars::{Schema, SchemaGenerator, json_schema};

/// A Go duration that is not negative.
pub(super) fn duration(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 32,
        "x-kubernetes-validations": [{
            "rule": "self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$')",
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
