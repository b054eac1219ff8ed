//! The parameters of a plugin, as somebody types them: text becomes what the schema wants.

use super::super::events::type_of;
use serde_json::{Map, Value};

/// The parameters that a plugin's schema lists.
pub struct Parameters {
    properties: Map<String, Value>,
    required: Vec<String>,
}

impl Parameters {
    /// Reads the schema of a Subscription's parameters.
    pub fn new(schema: Option<&Map<String, Value>>) -> Self {
        let properties = schema.and_then(|schema| schema.get("properties")).and_then(Value::as_object);
        let required = schema.and_then(|schema| schema.get("required")).and_then(Value::as_array);
        Self {
            properties: properties.cloned().unwrap_or_default(),
            required: required.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect(),
        }
    }

    /// Names of those that have to be set, in the order of the schema.
    pub fn required(&self) -> &[String] {
        &self.required
    }

    /// All names, the required ones first.
    pub fn names(&self) -> Vec<&str> {
        let optional = self.properties.keys().filter(|name| !self.required.contains(name));
        self.required.iter().chain(optional).map(String::as_str).collect()
    }

    /// The schema of one parameter; an empty one, where it is not listed.
    pub fn schema(&self, name: &str) -> Map<String, Value> {
        self.properties.get(name).and_then(Value::as_object).cloned().unwrap_or_default()
    }

    /// Reads `name=value`.
    ///
    /// # Errors
    /// There is no `=`, or the value is none of the parameter's type. Whether the parameter exists is not looked at here.
    pub fn parse(&self, text: &str) -> Result<(String, Value), String> {
        let (name, value) = text.split_once('=').ok_or_else(|| format!("--parameter {text}: write NAME=VALUE"))?;
        let value = read(&self.schema(name), value).map_err(|wrong| format!("--parameter {name}: {wrong}"))?;
        Ok((name.to_owned(), value))
    }
}

/// Reads a value of the schema's type. A list of plain values may be written with commas.
///
/// # Errors
/// What was expected.
pub fn read(schema: &Map<String, Value>, text: &str) -> Result<Value, String> {
    let json = || serde_json::from_str::<Value>(text);
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        let spelt = |value: &&Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned) == text;
        return values.iter().find(spelt).cloned().ok_or_else(|| format!("`{text}` is not {}", type_of(schema)));
    }
    let wrong = || format!("`{text}` is no {}", type_of(schema));
    match schema.get("type").and_then(Value::as_str) {
        Some("string") => Ok(text.into()),
        Some("integer" | "number") => json().ok().filter(Value::is_number).ok_or_else(wrong),
        Some("boolean") => json().ok().filter(Value::is_boolean).ok_or_else(wrong),
        Some("object") => json().ok().filter(Value::is_object).ok_or_else(wrong),
        Some("array") if text.trim_start().starts_with('[') => json().map_err(|_| wrong()),
        Some("array") => {
            let items = schema.get("items").and_then(Value::as_object).cloned().unwrap_or_default();
            let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
            parts.map(|part| read(&items, part)).collect::<Result<_, _>>().map(Value::Array)
        }
        // Several types, or none: text, unless it is JSON of another kind.
        _ => Ok(json().ok().filter(|value| !value.is_string()).unwrap_or_else(|| text.into())),
    }
}
