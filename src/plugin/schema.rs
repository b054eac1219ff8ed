//! JSON schemas of parameters and variables.

use super::error::{Mistake, nearest};
use jsonschema::{PatternOptions, Validator};
use serde_json::{Map, Value, json};

/// A compiled JSON schema.
pub(crate) struct Schema {
    validator: Validator,
    properties: Vec<String>,
}

impl std::fmt::Debug for Schema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Schema").field("properties", &self.properties).finish_non_exhaustive()
    }
}

impl Schema {
    /// Compiles the schema of one value, the value of `field`.
    ///
    /// # Errors
    /// Where the schema is wrong, and how.
    pub(crate) fn compile(field: &str, schema: &Map<String, Value>) -> Result<Self, Mistake> {
        let properties = schema.get("properties").and_then(Value::as_object);
        let properties = properties.map(|fields| fields.keys().cloned().collect()).unwrap_or_default();
        let schema = Value::Object(schema.clone());
        if let Err(error) = jsonschema::meta::validate(&schema) {
            let at = dotted(field, error.instance_path().as_str());
            return Err(Mistake::new(at, format!("is no JSON schema: {}", short(&error.to_string()))));
        }
        // Values are a tenant's: a pattern must not be able to backtrack.
        let options = jsonschema::options()
            .should_validate_formats(true)
            .with_pattern_options(PatternOptions::regex().size_limit(1 << 20))
            .offline();
        let validator = options
            .build(&schema)
            .map_err(|error| Mistake::new(field, format!("is no JSON schema: {}", short(&error.to_string()))))?;
        Ok(Self { validator, properties })
    }

    /// Compiles the schema of an object of parameters. Where it lists its properties and does not speak of others,
    /// there are no others: a misspelt parameter must not be ignored.
    ///
    /// # Errors
    /// As [`Schema::compile`]; a schema of something other than an object is a mistake too.
    pub(crate) fn compile_parameters(field: &str, schema: &Map<String, Value>) -> Result<Self, Mistake> {
        let mut schema = schema.clone();
        if schema.get("type").is_some_and(|kind| kind != "object") {
            return Err(Mistake::new(format!("{field}.type"), "parameters are an object: write `object`"));
        }
        schema.insert("type".to_owned(), json!("object"));
        let open =
            ["additionalProperties", "patternProperties", "unevaluatedProperties", "$ref", "allOf", "anyOf", "oneOf"];
        if !open.iter().any(|keyword| schema.contains_key(*keyword)) {
            schema.insert("additionalProperties".to_owned(), json!(false));
        }
        Self::compile(field, &schema)
    }

    /// Names of the properties that the schema lists.
    pub(crate) fn properties(&self) -> &[String] {
        &self.properties
    }

    /// Checks a value, the value of `field`.
    ///
    /// # Errors
    /// Every place where the value does not fit, at most 20 of them.
    pub(crate) fn check(&self, field: &str, value: &Value) -> Result<(), Vec<Mistake>> {
        let mut mistakes: Vec<Mistake> = Vec::new();
        for error in self.validator.iter_errors(value).take(20) {
            let at = dotted(field, error.instance_path().as_str());
            if let jsonschema::error::ValidationErrorKind::AdditionalProperties { unexpected } = error.kind() {
                mistakes.extend(unexpected.iter().map(|name| unknown(&at, name, self.properties())));
            } else if let jsonschema::error::ValidationErrorKind::Required { property } = error.kind() {
                let name = property.as_str().unwrap_or_default();
                mistakes.push(Mistake::new(format!("{at}.{name}"), "is required"));
            } else {
                mistakes.push(Mistake::new(at, short(&error.to_string())));
            }
        }
        if mistakes.is_empty() { Ok(()) } else { Err(mistakes) }
    }
}

/// The mistake of setting a parameter that there is not.
pub(crate) fn unknown(field: &str, name: &str, known: &[String]) -> Mistake {
    let hint = nearest(name, known.iter().map(String::as_str)).map(|n| format!("did you mean `{n}`? "));
    let there = if known.is_empty() { "there are none".to_owned() } else { format!("there are: {}", known.join(", ")) };
    Mistake::new(format!("{field}.{name}"), format!("unknown parameter; {}{there}", hint.unwrap_or_default()))
}

/// `field` with a JSON pointer behind it, written as Kubernetes does.
fn dotted(field: &str, pointer: &str) -> String {
    let mut path = field.to_owned();
    for part in pointer.split('/').skip(1) {
        let part = part.replace("~1", "/").replace("~0", "~");
        if part.parse::<usize>().is_ok() {
            path.push_str(&format!("[{part}]"));
        } else {
            path.push('.');
            path.push_str(&part);
        }
    }
    path
}

fn short(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(300).collect()
}
