//! Whether a resource is built as the definition says.

use crate::api::trigger_plugin_schema;
use crate::plugin::{Mistake, keeps_rule, nearest};
use jsonschema::error::{TypeKind, ValidationErrorKind};
use serde_json::{Map, Value, json};

/// What the definition says of a resource.
pub struct Structure {
    /// Every mistake.
    pub mistakes: Vec<Mistake>,
    /// Fields that were repaired, so that whatever is found there has its cause in a mistake that is told.
    repaired: Vec<String>,
    /// Fields that the definition does not have.
    unknown: Vec<String>,
}

impl Structure {
    /// Checks a resource, and repairs it as far as it can be, so that the rest of it can be looked at.
    pub fn check(resource: &mut Value) -> Self {
        let schema = trigger_plugin_schema();
        let mut structure = Self { mistakes: Vec::new(), repaired: Vec::new(), unknown: Vec::new() };
        let Ok(validator) = jsonschema::validator_for(&schema) else { return structure };
        let mut repairs = Vec::new();
        for error in validator.iter_errors(resource) {
            let at = error.instance_path().as_str().to_owned();
            let said = error.schema_path().as_str();
            // What the keyword belongs to.
            let here = said.rsplit_once('/').map_or("", |(schema, _)| schema);
            let here = schema.pointer(here).unwrap_or(&Value::Null);
            structure.tell(&at, here, error.instance(), error.kind(), &error.to_string(), &mut repairs);
        }
        structure.rules(&schema, resource, "");
        for repair in repairs {
            structure.repaired.push(dotted(repair.path()));
            repair.apply(&schema, resource);
        }
        structure
    }

    /// Whether what is found at a field is no wonder.
    pub fn explains(&self, field: &str) -> bool {
        let below = |at: &str, field: &str| {
            field.strip_prefix(at).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        self.repaired.iter().any(|repaired| below(repaired, field) || below(field, repaired))
    }

    /// Whether the definition does not have a field, so that its name is what is wrong.
    pub fn is_unknown(&self, field: &str) -> bool {
        self.unknown.iter().any(|unknown| unknown == field)
    }

    fn add(&mut self, at: &str, problem: impl Into<String>) {
        self.mistakes.push(Mistake::new(dotted(at), problem));
    }

    fn tell(
        &mut self,
        at: &str,
        schema: &Value,
        found: &Value,
        kind: &ValidationErrorKind,
        message: &str,
        repairs: &mut Vec<Repair>,
    ) {
        let properties: Vec<&str> = keys(&schema["properties"]).collect();
        match kind {
            ValidationErrorKind::AdditionalProperties { unexpected } => {
                for name in unexpected {
                    let hint = nearest(name, properties.iter().copied());
                    let hint = hint.map(|near| format!("did you mean `{near}`? ")).unwrap_or_default();
                    let place = format!("{at}/{}", escaped(name));
                    self.add(&place, format!("unknown field; {hint}here are: {}", properties.join(", ")));
                    self.unknown.push(dotted(&place));
                    repairs.push(Repair::Remove(place));
                }
            }
            ValidationErrorKind::Required { property } => {
                let name = property.as_str().unwrap_or_default();
                let place = format!("{at}/{}", escaped(name));
                self.add(&place, "is required");
                repairs.push(Repair::Blank(place));
            }
            ValidationErrorKind::OneOfNotValid { .. } | ValidationErrorKind::OneOfMultipleValid { .. } => {
                let set: Vec<&str> = keys(found).filter(|key| properties.contains(key)).collect();
                let instead = if set.is_empty() { "none is".to_owned() } else { format!("{} are", set.join(" and ")) };
                self.add(at, format!("set exactly one of {}; {instead} set", properties.join(", ")));
                repairs.push(Repair::Blank(at.to_owned()));
            }
            ValidationErrorKind::Type { kind } => {
                let expected = match kind {
                    TypeKind::Single(one) => one.to_string(),
                    TypeKind::Multiple(several) => several
                        .iter()
                        .map(|one| one.to_string())
                        .filter(|one| one != "null")
                        .collect::<Vec<_>>()
                        .join(" or "),
                };
                let hint = match found {
                    Value::Bool(_) | Value::Number(_) if expected == "string" => "; put it into quotes",
                    _ => "",
                };
                self.add(at, format!("expected {}, found {}{hint}", article(&expected), article(type_of(found))));
                repairs.push(Repair::Replace(at.to_owned()));
            }
            ValidationErrorKind::Enum { options } => {
                let options: Vec<&str> = options.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
                let hint = nearest(found.as_str().unwrap_or_default(), options.iter().copied());
                let hint = hint.map(|near| format!("did you mean `{near}`? ")).unwrap_or_default();
                self.add(at, format!("{found} is none of the values; {hint}there are: {}", options.join(", ")));
                repairs.push(Repair::Replace(at.to_owned()));
            }
            _ => {
                let message: String = message.lines().next().unwrap_or_default().chars().take(300).collect();
                self.add(at, message);
                repairs.push(Repair::Replace(at.to_owned()));
            }
        }
    }

    /// The definition's own rules, of a value and of everything in it.
    fn rules(&mut self, schema: &Value, value: &Value, at: &str) {
        for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
            let text = |key: &str| rule[key].as_str().unwrap_or_default();
            if !value.is_null() && !keeps_rule(text("rule"), value) {
                self.add(at, if text("message").is_empty() { text("rule") } else { text("message") });
            }
        }
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    let below = schema["properties"].get(name).unwrap_or(&schema["additionalProperties"]);
                    self.rules(below, value, &format!("{at}/{}", escaped(name)));
                }
            }
            Value::Array(items) => {
                for (number, item) in items.iter().enumerate() {
                    self.rules(&schema["items"], item, &format!("{at}/{number}"));
                }
            }
            _ => {}
        }
    }
}

/// How a resource is changed, at a JSON pointer, so that it can be read.
enum Repair {
    Remove(String),
    /// Put something there that can be read.
    Blank(String),
    /// Remove it if it need not be there.
    Replace(String),
}

impl Repair {
    fn path(&self) -> &str {
        match self {
            Repair::Remove(path) | Repair::Blank(path) | Repair::Replace(path) => path,
        }
    }

    fn apply(&self, schema: &Value, resource: &mut Value) {
        let path = self.path();
        let Some((parent, key)) = path.rsplit_once('/') else { return };
        let (above, key) = (schema_at(schema, parent), unescaped(key));
        let required = above["required"].as_array().is_some_and(|names| names.iter().any(|name| *name == *key));
        let blank = blank(schema_at(schema, path));
        let remove = matches!(self, Repair::Remove(_)) || matches!(self, Repair::Replace(_)) && !required;
        match resource.pointer_mut(parent) {
            Some(Value::Object(fields)) if remove => drop(fields.remove(&key)),
            Some(Value::Object(fields)) => drop(fields.insert(key, blank)),
            Some(Value::Array(items)) => {
                key.parse::<usize>()
                    .ok()
                    .and_then(|at| items.get_mut(at))
                    .into_iter()
                    .for_each(|item| *item = blank.clone());
            }
            _ => {}
        }
    }
}

/// The schema of the value at a JSON pointer.
fn schema_at<'a>(schema: &'a Value, pointer: &str) -> &'a Value {
    pointer.split('/').skip(1).fold(schema, |schema, part| {
        let property = schema["properties"].get(unescaped(part));
        let items = || schema.get("items").filter(|_| part.parse::<usize>().is_ok());
        property.or_else(items).unwrap_or(&schema["additionalProperties"])
    })
}

/// Something that a value with this schema can be read from.
fn blank(schema: &Value) -> Value {
    if let Some(default) = schema.get("default") {
        return default.clone();
    }
    if let Some(first) = schema["enum"].get(0) {
        return first.clone();
    }
    let kind = schema["type"].as_str().or(schema["type"][0].as_str());
    match kind {
        Some("string") => json!(""),
        Some("boolean") => json!(false),
        Some("integer" | "number") => schema.get("minimum").cloned().unwrap_or(json!(0)),
        Some("array") => json!([]),
        _ => {
            let one = schema["oneOf"][0]["required"].as_array();
            let names = schema["required"].as_array().into_iter().chain(one).flatten().filter_map(Value::as_str);
            names.map(|name| (name.to_owned(), blank(&schema["properties"][name]))).collect::<Map<_, _>>().into()
        }
    }
}

fn keys(value: &Value) -> impl Iterator<Item = &str> {
    value.as_object().into_iter().flat_map(Map::keys).map(String::as_str)
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn article(kind: &str) -> String {
    match kind {
        "null" => "nothing".to_owned(),
        _ if kind.starts_with(['a', 'i', 'o']) => format!("an {kind}"),
        _ => format!("a {kind}"),
    }
}

fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

fn unescaped(part: &str) -> String {
    part.replace("~1", "/").replace("~0", "~")
}

/// A JSON pointer as Kubernetes writes fields.
fn dotted(pointer: &str) -> String {
    let mut path = String::new();
    for part in pointer.split('/').skip(1) {
        match part.parse::<usize>() {
            Ok(index) => path.push_str(&format!("[{index}]")),
            Err(_) => {
                let dot = if path.is_empty() { "" } else { "." };
                path.push_str(&format!("{dot}{}", unescaped(part)));
            }
        }
    }
    path
}
