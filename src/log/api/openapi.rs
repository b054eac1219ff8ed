//! What `kubectl explain` reads, and what the API server merges into its own documents.

use super::{GROUP, KIND, RESOURCE, SUBSCRIPTIONS, VERSION};
use crate::log::model::Request;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

/// Beginning of the names of the schemas: the group, backwards.
const PREFIX: &str = "dev.bellhop.log.v1alpha1";

/// `/openapi/v2`.
pub fn version_2() -> Value {
    json!({
        "swagger": "2.0", "info": info(), "paths": paths(|name| json!({"schema": reference("#/definitions", name)})),
        "definitions": schemas("#/definitions"),
    })
}

/// `/openapi/v3`: which documents there are.
pub fn documents() -> Value {
    let url = format!("/openapi/v3/apis/{GROUP}/{VERSION}?hash={}", env!("CARGO_PKG_VERSION"));
    json!({"paths": {format!("apis/{GROUP}/{VERSION}"): {"serverRelativeURL": url}}})
}

/// `/openapi/v3/apis/<group>/<version>`.
pub fn version_3() -> Value {
    let content =
        |name: &str| json!({"content": {"application/json": {"schema": reference("#/components/schemas", name)}}});
    json!({
        "openapi": "3.0.0", "info": info(), "paths": paths(content),
        "components": {"schemas": schemas("#/components/schemas")},
    })
}

fn info() -> Value {
    json!({"title": "Bellhop's request log", "version": VERSION})
}

fn reference(place: &str, name: &str) -> Value {
    json!({"$ref": format!("{place}/{PREFIX}.{name}")})
}

fn kind(kind: &str) -> Value {
    json!({"group": GROUP, "version": VERSION, "kind": kind})
}

/// kubectl looks for the kind of a resource among these.
fn paths(answer: impl Fn(&str) -> Value) -> Value {
    let operation = |action: &str, of: &str, result: &str| {
        let mut answer = answer(result);
        answer["description"] = json!("OK");
        json!({
            "operationId": format!("{action}{of}"), "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": kind(of), "responses": {"200": answer},
        })
    };
    let base = format!("/apis/{GROUP}/{VERSION}");
    let namespaced = format!("{base}/namespaces/{{namespace}}/{RESOURCE}");
    json!({
        format!("{base}/{RESOURCE}"): {"get": operation("list", KIND, "RequestList")},
        &namespaced: {"get": operation("list", KIND, "RequestList")},
        format!("{namespaced}/{{name}}"): {"get": operation("get", KIND, KIND)},
        format!("{namespaced}/{{name}}/replay"): {"post": operation("post", "Replay", "Replay")},
        format!("{base}/namespaces/{{namespace}}/{SUBSCRIPTIONS}/{{name}}/send"): {
            "post": operation("post", "Send", "Send"),
        },
    })
}

fn schemas(place: &str) -> Value {
    let of = |name: &str, description: &str, fields: Value| {
        let text = |description: &str| json!({"type": "string", "description": description});
        let mut properties = json!({
            "apiVersion": text(&format!("{GROUP}/{VERSION}")), "kind": text(name),
            "metadata": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                         "description": "Name, namespace and times, as of every object."},
        });
        for (field, schema) in fields.as_object().into_iter().flatten() {
            properties[field] = schema.clone();
        }
        json!({
            "type": "object", "description": description, "properties": properties,
            "x-kubernetes-group-version-kind": [kind(name)],
        })
    };
    let replay_spec = json!({"type": "object", "description": "What is delivered again.", "properties": {
        "trigger": {"type": "string", "description": "To this WorkflowTrigger alone; left out: to all that fired."},
        "deadLetters": {"type": "boolean", "description": "Only what has become a dead letter."},
    }});
    let text = |description: &str| json!({"type": "string", "description": description});
    let send_spec = json!({"type": "object", "description": "What is sent; what is left out is that of the sample.",
        "properties": {
            "event": text("The event whose sample is sent."),
            "headers": {"type": "object", "additionalProperties": {"type": "string"},
                        "description": "Headers, in place of the sample's of the same name."},
            "query": text("The query without the question mark."),
            "body": text("The body."),
            "bodyBase64": text("The body as base64, if it is no text."),
    }});
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "description": "What is done."});
    json!({
        format!("{PREFIX}.{KIND}"): of(KIND, "One HTTP request to a callback URL, and what came of it.", request()),
        format!("{PREFIX}.RequestList"): of("RequestList", "Requests, the newest first.", json!({
            "items": {"type": "array", "items": reference(place, KIND)},
        })),
        format!("{PREFIX}.Replay"): of("Replay", "The wish to deliver a request again.", json!({
            "spec": replay_spec, "status": open,
        })),
        format!("{PREFIX}.Send"): of("Send", "The wish to send a request that is made up to a Subscription.", json!({
            "spec": send_spec, "status": open,
        })),
    })
}

/// The fields of a request, from the types.
fn request() -> Value {
    let settings = SchemaSettings::openapi3().with(|settings| settings.inline_subschemas = true);
    let schema = settings.into_generator().into_root_schema_for::<Request>();
    let mut fields = schema.as_value()["properties"].clone();
    for own in ["apiVersion", "kind", "metadata"] {
        fields.as_object_mut().map(|fields| fields.remove(own));
    }
    plain(&mut fields);
    fields
}

/// Takes out what Kubernetes' schemas do not have: kubectl says "object" or "string" of what is there.
fn plain(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.remove("nullable");
            if let Some(format) = fields.get("format").and_then(Value::as_str)
                && format.starts_with("uint")
            {
                fields.remove("format");
            }
            fields.values_mut().for_each(plain);
        }
        Value::Array(items) => items.iter_mut().for_each(plain),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every `$ref` of a document.
    fn references(document: &Value, found: &mut Vec<String>) {
        match document {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        for document in [version_2(), version_3()] {
            let mut found = Vec::new();
            references(&document, &mut found);
            assert!(found.len() >= 4, "{found:?}");
            for reference in found {
                let pointer = reference.strip_prefix('#').unwrap();
                assert!(document.pointer(pointer).is_some(), "{reference}");
            }
        }
        let (path, there) =
            documents()["paths"].as_object().unwrap().iter().next().map(|(p, v)| (p.clone(), v.clone())).unwrap();
        assert_eq!(path, "apis/log.bellhop.dev/v1alpha1");
        assert!(
            there["serverRelativeURL"].as_str().unwrap().starts_with("/openapi/v3/apis/log.bellhop.dev/v1alpha1?hash=")
        );
    }
}
