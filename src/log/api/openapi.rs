//! What `kubectl explain` reads, and what the API server merges into its own documents.

use super::{GROUP, KIND, RESOURCE, SUBSCRIPTIONS, VERSION};
use crate::log::model::Request;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

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
    fields.as_object_mut().into_iter().flatten().for_each(|(_, field)| plain(field));
    fields
}

/// What a schema is made of here. The API server merges the documents of all groups into one and reads that by the rules of
/// Swagger 2.0. A single word that these do not know, such as `oneOf`, and it answers 503 to everybody who wants the
/// document, whatever for; `kubectl apply` of a `List` is one of them.
const WORDS: [&str; 7] = ["additionalProperties", "description", "enum", "format", "items", "properties", "type"];

/// Says a schema in these words: of "one of these texts" the texts, of "this or null" this, and of what has no common type
/// only its description.
fn plain(schema: &mut Value) {
    let Some(fields) = schema.as_object_mut() else { return };
    for word in ["anyOf", "oneOf"] {
        if let Some(Value::Array(choices)) = fields.remove(word) {
            choose(fields, choices);
        }
    }
    if let Some(Value::Array(types)) = fields.get("type").cloned() {
        match types.iter().filter(|of| *of != "null").collect::<Vec<_>>().as_slice() {
            [only] => fields.insert("type".to_owned(), (*only).clone()),
            _ => fields.remove("type"),
        };
    }
    let unsigned = fields.get("format").and_then(Value::as_str).is_some_and(|format| format.starts_with("uint"));
    fields.retain(|word, _| WORDS.contains(&word.as_str()) && !(unsigned && word == "format"));
    fields.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten().for_each(|(_, of)| plain(of));
    fields.get_mut("items").into_iter().for_each(plain);
    fields.get_mut("additionalProperties").into_iter().for_each(plain);
}

/// Puts what these choices have in common into the schema that they belong to.
fn choose(fields: &mut Map<String, Value>, mut choices: Vec<Value>) {
    choices.retain(|choice| choice["type"] != "null");
    if let [Value::Object(only)] = choices.as_slice() {
        only.iter().for_each(|(word, value)| {
            fields.entry(word.clone()).or_insert_with(|| value.clone());
        });
        return;
    }
    let texts = choices.iter().map(|choice| match (&choice["const"], &choice["enum"]) {
        (Value::String(text), _) => Some(vec![json!(text)]),
        (_, Value::Array(texts)) => Some(texts.clone()),
        _ => None,
    });
    if let Some(texts) = texts.collect::<Option<Vec<_>>>() {
        fields.insert("type".to_owned(), json!("string"));
        fields.insert("enum".to_owned(), texts.concat().into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

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

    /// The words of a schema and of those in it.
    fn words(schema: &Value, found: &mut BTreeSet<String>) {
        let Some(fields) = schema.as_object() else { return };
        found.extend(fields.keys().cloned());
        schema["properties"].as_object().into_iter().flatten().for_each(|(_, of)| words(of, found));
        words(&schema["items"], found);
        words(&schema["additionalProperties"], found);
    }

    #[test]
    fn schemas_have_no_word_that_would_spoil_the_document_of_all_kinds() {
        let mut found = BTreeSet::new();
        version_2()["definitions"].as_object().unwrap().values().for_each(|schema| words(schema, &mut found));
        let extensions = ["x-kubernetes-group-version-kind", "x-kubernetes-preserve-unknown-fields"];
        let known: BTreeSet<_> = WORDS.into_iter().chain(extensions).chain(["$ref"]).map(str::to_owned).collect();
        assert!(found.contains("enum") && found.is_subset(&known), "{found:?}");
    }

    #[test]
    fn what_swagger_cannot_say_is_said_more_simply() {
        let fields = request();
        assert_eq!(fields["outcome"]["type"], "string");
        assert!(fields["outcome"]["enum"].as_array().unwrap().contains(&json!("DeadLettered")), "{fields}");
        assert_eq!(fields["note"]["type"], "string");
        let trigger = &fields["events"]["items"]["properties"]["triggers"]["items"]["properties"];
        assert_eq!(trigger["delivery"]["properties"]["state"]["enum"], json!(["Pending", "Delivered", "DeadLettered"]));
        assert!(trigger["delivery"]["description"].is_string(), "{trigger}");
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
