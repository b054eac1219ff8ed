//! Values that fit a schema.

use serde_json::{Map, Value, json};

/// Deepest object: descriptions refer to themselves.
const DEEPEST: usize = 8;

/// A payload that fits a schema of an OpenAPI description, with every property that the schema has and no null where
/// something else fits.
pub fn payload(description: &Value, schema: &Value) -> Value {
    made(description, schema, 0)
}

/// A value that a parameter with this schema takes, and that no payload matches by chance.
pub fn parameter(schema: &Map<String, Value>) -> Value {
    match schema.get("type").and_then(Value::as_str) {
        Some("array") => {
            let items = schema.get("items").and_then(Value::as_object).cloned().unwrap_or_default();
            json!([parameter(&items)])
        }
        Some("boolean") => json!(true),
        Some("integer" | "number") => schema.get("minimum").cloned().unwrap_or(json!(0)),
        _ => schema.get("enum").and_then(|values| values.get(0)).cloned().unwrap_or_else(|| json!("zzz")),
    }
}

fn made(description: &Value, schema: &Value, depth: usize) -> Value {
    if let Some(path) = schema.get("$ref").and_then(Value::as_str) {
        let target = description.pointer(path.trim_start_matches('#')).unwrap_or(&Value::Null);
        return made(description, target, depth);
    }
    for (alternatives, all) in [("oneOf", false), ("anyOf", false), ("allOf", true)] {
        let Some(parts) = schema.get(alternatives).and_then(Value::as_array) else { continue };
        let mut parts = parts.iter().map(|part| made(description, part, depth));
        if !all {
            return parts.find(|value| !value.is_null()).unwrap_or(Value::Null);
        }
        let mut whole = Map::new();
        for (name, value) in parts.filter_map(|part| part.as_object().cloned()).flatten() {
            // What comes later narrows what came before, and often says nothing but what is narrower.
            let known = whole.entry(name).or_insert(Value::Null);
            if known.is_null() {
                *known = value;
            }
        }
        return Value::Object(whole);
    }
    if let Some(first) = schema.get("enum").and_then(|values| values.get(0)) {
        return first.clone();
    }
    let types = &schema["type"];
    let type_ =
        types.as_str().or_else(|| types.as_array()?.iter().filter_map(Value::as_str).find(|name| *name != "null"));
    match type_ {
        Some("string") => json!("refs/heads/something"),
        Some("integer") => json!(7),
        Some("number") => json!(7),
        Some("boolean") => json!(true),
        Some("array") if depth < DEEPEST => json!([made(description, &schema["items"], depth + 1)]),
        Some("array") => json!([]),
        Some("null") => Value::Null,
        None if schema.get("properties").is_none() => Value::Null,
        _ if depth < DEEPEST => {
            let properties = schema["properties"].as_object().cloned().unwrap_or_default();
            let fields = properties.iter().map(|(name, schema)| (name.clone(), made(description, schema, depth + 1)));
            Value::Object(fields.collect())
        }
        _ => json!({}),
    }
}
