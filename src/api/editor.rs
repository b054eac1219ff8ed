//! The JSON schema of a TriggerPlugin, for editors and for `bellhop plugin lint`.

use super::{GROUP, all_crds};
use serde_json::{Map, Value, json};

/// The JSON schema (draft 2020-12) of a TriggerPlugin as a person writes it: the definition's, with `apiVersion` and `kind`,
/// and without room for unknown fields. The definition's own rules stay in it as `x-kubernetes-validations`.
pub fn trigger_plugin_schema() -> Value {
    let crds = all_crds();
    let crd = crds.iter().find(|crd| crd.spec.names.kind == "TriggerPlugin");
    let version = crd.and_then(|crd| crd.spec.versions.first());
    let schema = version.and_then(|version| version.schema.as_ref()?.open_api_v3_schema.as_ref());
    let mut schema = serde_json::to_value(schema).unwrap_or_default();
    strict(&mut schema);
    let metadata = json!({
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": {
                "description": "Name of the TriggerPlugin, which Subscriptions refer to.",
                "type": "string", "minLength": 1, "maxLength": 63,
                "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
            },
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "annotations": {"type": "object", "additionalProperties": {"type": "string"}}
        }
    });
    schema["properties"]["apiVersion"] = json!({"type": "string", "enum": [format!("{GROUP}/v1alpha1")]});
    schema["properties"]["kind"] = json!({"type": "string", "enum": ["TriggerPlugin"]});
    schema["properties"]["metadata"] = metadata;
    // Bellhop writes it; a file that was taken from a cluster may have it.
    schema["properties"]["status"] = json!({"type": "object"});
    schema["required"] = json!(["apiVersion", "kind", "metadata", "spec"]);
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("TriggerPlugin");
    schema
}

/// Writes what OpenAPI has of its own as JSON schema has it, and refuses unknown fields.
fn strict(schema: &mut Value) {
    let Value::Object(fields) = schema else { return };
    let open = fields.remove("x-kubernetes-preserve-unknown-fields") == Some(Value::Bool(true));
    if fields.remove("nullable") == Some(Value::Bool(true)) {
        nullable(fields);
    }
    if fields.contains_key("properties") && !open && !fields.contains_key("additionalProperties") {
        fields.insert("additionalProperties".to_owned(), json!(false));
    }
    for map in ["properties", "patternProperties"] {
        if let Some(Value::Object(schemas)) = fields.get_mut(map) {
            schemas.values_mut().for_each(strict);
        }
    }
    for one in ["items", "additionalProperties", "not"] {
        fields.get_mut(one).into_iter().for_each(strict);
    }
    for list in ["oneOf", "anyOf", "allOf"] {
        if let Some(Value::Array(schemas)) = fields.get_mut(list) {
            schemas.iter_mut().for_each(strict);
        }
    }
}

fn nullable(fields: &mut Map<String, Value>) {
    if let Some(kind) = fields.get_mut("type").filter(|kind| kind.is_string()) {
        *kind = json!([kind.take(), "null"]);
    }
    if let Some(Value::Array(values)) = fields.get_mut("enum") {
        values.push(Value::Null);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_fields_are_refused_and_parameters_are_free() {
        let schema = trigger_plugin_schema();
        let validator = jsonschema::validator_for(&schema).unwrap();
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/bellhop-plugins/plugins/github.yaml");
        let plugin: Value = serde_saphyr::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        let mut free = plugin.clone();
        free["spec"]["parameters"]["anything"] = json!(1);
        free["spec"]["webhook"] = Value::Null;
        assert!(validator.is_valid(&free), "{:?}", validator.iter_errors(&free).next());
        let mut wrong = plugin.clone();
        wrong["spec"]["callback"]["evnt"] = json!("x");
        assert!(!validator.is_valid(&wrong));
        let mut wrong = plugin;
        wrong["metadata"]["name"] = json!("GitHub");
        assert!(!validator.is_valid(&wrong));
    }
}
