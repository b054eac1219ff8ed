//! JSON schema fragments that the derive cannot make.

use schemars::{Schema, SchemaGenerator, json_schema};

/// Any JSON object: its own schema is checked by Bellhop, not by the API server.
pub fn free_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// Any JSON value.
pub fn free_value(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"x-kubernetes-preserve-unknown-fields": true})
}

/// A duration as Go and Kubernetes write it.
pub fn duration(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "pattern": "^([0-9]+(\\.[0-9]+)?(ms|s|m|h))+$"})
}

/// The time that somebody waits who expects an answer at once, or nothing.
pub fn deadline(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "pattern": "^([0-9]+(\\.[0-9]+)?(ms|s))+$",
        "maxLength": 16,
        "x-kubernetes-validations": [{
            "rule": "duration(self) >= duration('100ms') && duration(self) <= duration('10s')",
            "message": "must be from 100ms to 10s",
        }],
    })
}
