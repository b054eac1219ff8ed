//! The definitions as a reference for people: `docs/api.md`.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Map, Value};
use std::fmt::Write;

const HEAD: &str = "\
# API reference

Every field of every kind. Written from the CustomResourceDefinitions by `make crds`, so a change is made in `src/api`.
[reference.md](reference.md) says what the conditions and their reasons mean, [plugins.md](plugins.md) how a TriggerPlugin
is written.

In the tables, `[]` is an entry of a list and `{}` a value of a map. A field that is *required* must be set wherever the
object that holds it is. `kubectl explain` shows the same in a terminal: `kubectl explain subscriptions.bellhop.dev.spec`.
";

/// Writes the reference of these definitions as Markdown.
pub fn to_markdown(crds: &[CustomResourceDefinition]) -> String {
    let mut page = HEAD.to_owned();
    page.push('\n');
    for crd in crds {
        let kind = &crd.spec.names.kind;
        line(&mut page, &format!("- [{kind}](#{})", kind.to_lowercase()));
    }
    for crd in crds {
        write_kind(&mut page, &serde_json::to_value(crd).expect("a definition is JSON"));
    }
    page
}

fn write_kind(page: &mut String, crd: &Value) {
    let (spec, names) = (&crd["spec"], &crd["spec"]["names"]);
    line(page, &format!("\n## {}", text(&names["kind"])));
    for version in array(&spec["versions"]) {
        let schema = &version["schema"]["openAPIV3Schema"];
        line(page, &format!("\n{}.\n", prose(&schema["description"]).trim_end_matches('.')));
        line(page, "| | |\n|---|---|");
        let mut fact = |name: &str, value: String| {
            if !value.is_empty() {
                line(page, &format!("| {name} | {value} |"));
            }
        };
        fact("API version", code(&format!("{}/{}", text(&spec["group"]), text(&version["name"]))));
        fact("Resource", code(&format!("{}.{}", text(&names["plural"]), text(&spec["group"]))));
        fact("Scope", if spec["scope"] == "Namespaced" { "namespace" } else { "cluster" }.to_owned());
        fact("Short names", codes(array(&names["shortNames"])));
        fact("Categories", codes(array(&names["categories"])));
        fact("Field selectors", codes(array(&version["selectableFields"]).iter().map(|field| &field["jsonPath"])));
        let rules = rules(schema);
        if !rules.is_empty() {
            line(page, "\nRules of the whole object:\n");
            for rule in rules {
                line(page, &format!("- {rule}"));
            }
        }
        for part in ["spec", "status"] {
            line(page, &format!("\n### {} {part}\n", text(&names["kind"])));
            let schema = &schema["properties"][part];
            line(page, &format!("{}\n", prose(&schema["description"])));
            if !schema["default"].is_null() {
                line(page, &format!("Where it is left out: {}.\n", code(&schema["default"].to_string())));
            }
            line(page, "| Field | Type | Default | Meaning and limits |\n|---|---|---|---|");
            write_fields(page, schema, "");
        }
        line(page, &format!("\n### {} columns\n", text(&names["kind"])));
        line(page, &format!("What `kubectl get {}` prints.\n", text(&names["plural"])));
        line(page, "| Column | Type | Value | |\n|---|---|---|---|");
        for column in array(&version["additionalPrinterColumns"]) {
            let wide = if column["priority"].as_i64().unwrap_or(0) > 0 { "with `-o wide`" } else { "" };
            let (name, type_, path) = (text(&column["name"]), text(&column["type"]), text(&column["jsonPath"]));
            line(page, &format!("| {name} | {type_} | {} | {wide} |", code(path)));
        }
    }
}

/// One row for each property, each followed by the rows of what it holds.
fn write_fields(page: &mut String, schema: &Value, path: &str) {
    let required: Vec<&str> = array(&schema["required"]).iter().map(text).collect();
    let none = Map::new();
    for (name, property) in schema["properties"].as_object().unwrap_or(&none) {
        let path = format!("{path}{name}");
        let default = match &property["default"] {
            Value::Null if required.contains(&name.as_str()) => "*required*".to_owned(),
            Value::Null => String::new(),
            value => code(&value.to_string()),
        };
        let mut meaning = vec![prose(&property["description"])];
        let limits = limits(property);
        if !limits.is_empty() {
            meaning.push(format!("Limits: {}.", limits.join(", ")));
        }
        meaning.extend(rules(property));
        let meaning = meaning.join("<br>");
        line(page, &format!("| {} | {} | {default} | {meaning} |", code(&path), type_of(property)));
        let (inner, suffix) = contained(property);
        write_fields(page, inner, &format!("{path}{suffix}."));
    }
}

/// The schema of what a property holds, and how a path into it goes on.
fn contained(property: &Value) -> (&Value, &'static str) {
    match (&property["items"], &property["additionalProperties"]) {
        (items @ Value::Object(_), _) => (items, "[]"),
        (_, values @ Value::Object(_)) => (values, "{}"),
        _ => (property, ""),
    }
}

fn type_of(schema: &Value) -> String {
    match (text(&schema["type"]), contained(schema)) {
        ("array", (items, "[]")) => format!("list of {}", type_of(items)),
        ("object", (values, "{}")) => format!("map to {}", type_of(values)),
        ("object", _) if schema["x-kubernetes-preserve-unknown-fields"] == true => "any object".to_owned(),
        (type_, _) => type_.to_owned(),
    }
}

/// What the API server refuses otherwise, in words; of a list or a map, also the limits of what it holds.
fn limits(schema: &Value) -> Vec<String> {
    let mut limits = Vec::new();
    let values = array(&schema["enum"]);
    if !values.is_empty() {
        limits.push(format!("one of {}", codes(values)));
    }
    for (least, most, unit) in [
        ("minimum", "maximum", ""),
        ("minLength", "maxLength", " characters"),
        ("minItems", "maxItems", " entries"),
        ("minProperties", "maxProperties", " entries"),
    ] {
        match (number(&schema[least]), number(&schema[most])) {
            (Some(least), Some(most)) => limits.push(format!("{least} to {most}{unit}")),
            (Some(least), None) => limits.push(format!("at least {least}{unit}")),
            (None, Some(most)) => limits.push(format!("at most {most}{unit}")),
            (None, None) => {}
        }
    }
    for (name, words) in [("pattern", "matches"), ("format", "format")] {
        if let Some(value) = schema[name].as_str() {
            limits.push(format!("{words} {}", code(value)));
        }
    }
    match text(&schema["x-kubernetes-list-type"]) {
        "set" => limits.push("no entry twice".to_owned()),
        "map" => {
            limits
                .push(format!("no two entries with the same {}", codes(array(&schema["x-kubernetes-list-map-keys"]))));
        }
        _ => {}
    }
    let choices = array(&schema["oneOf"]);
    if !choices.is_empty() {
        // What the derive makes of a Rust enum with content: each choice requires its one field.
        limits.push(format!("exactly one of {}", codes(choices.iter().flat_map(|choice| array(&choice["required"])))));
    }
    if schema["nullable"] == true {
        limits.push("may be null".to_owned());
    }
    let (inner, suffix) = contained(schema);
    if !suffix.is_empty() {
        limits.extend(self::limits(inner).iter().map(|limit| format!("each: {limit}")));
    }
    limits
}

/// The validation rules of a schema, with what the API server answers.
fn rules(schema: &Value) -> Vec<String> {
    let rules = array(&schema["x-kubernetes-validations"]);
    rules.iter().map(|rule| format!("Rule {}: \"{}\"", code(text(&rule["rule"])), prose(&rule["message"]))).collect()
}

fn line(page: &mut String, line: &str) {
    writeln!(page, "{line}").expect("a String can be written to");
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Schemas hold numbers as floats.
fn number(value: &Value) -> Option<String> {
    value.as_f64().map(|number| number.to_string())
}

/// In one line, because it may be a cell of a table.
fn prose(value: &Value) -> String {
    text(value).split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

fn code(text: &str) -> String {
    format!("`{}`", text.replace('|', "\\|"))
}

fn codes<'a>(values: impl IntoIterator<Item = &'a Value>) -> String {
    values.into_iter().map(|value| code(text(value))).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::all_crds;
    use serde_json::json;

    #[test]
    fn the_file_in_docs_is_what_the_types_say() {
        let file = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/api.md"));
        let same = file.is_ok_and(|file| file == to_markdown(&all_crds()));
        assert!(same, "docs/api.md is not what the types say; `make crds` writes it");
    }

    #[test]
    fn every_field_has_a_row_with_its_limits() {
        let page = to_markdown(&all_crds());
        for row in [
            "| `pluginRef.name` | string | *required* | Name of the object.<br>Limits: 1 to 253 characters. |",
            "| `mode` | string | `\"Published\"` | When the trigger fires: `Published` on every event that matches, `Draft` only while somebody listens, `Suspended` never.<br>Limits: one of `Published`, `Draft`, `Suspended`. |",
            "| `delivery.maxAttempts` | integer | `12` | Attempts before the delivery becomes a dead letter.<br>Limits: 1 to 100. |",
            "<br>Rule `!(has(self.format) && has(self.request))`: \"format is how a CloudEvent is written; leave it out beside request\"",
            "- Rule `self.spec == oldSelf.spec`: \"a Subscription cannot be changed: delete it and create a new one;",
            "| Short names | `bsub` |",
            "| Ready | string | `.status.conditions[?(@.type=='Ready')].status` |  |",
        ] {
            assert!(page.contains(row), "no {row} in\n{page}");
        }
    }

    #[test]
    fn nothing_that_a_schema_can_say_is_left_out() {
        const SHOWN: [&str; 23] = [
            "additionalProperties",
            "default",
            "description",
            "enum",
            "format",
            "items",
            "maxItems",
            "maxLength",
            "maxProperties",
            "maximum",
            "minItems",
            "minLength",
            "minimum",
            "nullable",
            "oneOf",
            "pattern",
            "properties",
            "required",
            "type",
            "x-kubernetes-list-map-keys",
            "x-kubernetes-list-type",
            "x-kubernetes-preserve-unknown-fields",
            "x-kubernetes-validations",
        ];
        fn walk(schema: &Value, path: &str) {
            for (keyword, value) in schema.as_object().expect("a schema is an object") {
                assert!(SHOWN.contains(&keyword.as_str()), "{path}: the reference does not show `{keyword}`: {value}");
            }
            for choice in array(&schema["oneOf"]) {
                assert!(choice.as_object().is_some_and(|choice| choice.keys().eq(["required"])), "{path}: {choice}");
            }
            for (name, property) in schema["properties"].as_object().into_iter().flatten() {
                walk(property, &format!("{path}.{name}"));
            }
            if let (inner, "[]" | "{}") = contained(schema) {
                walk(inner, path);
            }
        }
        for crd in all_crds() {
            let crd = serde_json::to_value(crd).expect("a definition is JSON");
            for part in ["spec", "status"] {
                let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"][part];
                walk(schema, &format!("{} {part}", crd["spec"]["names"]["kind"]));
            }
        }
    }

    #[test]
    fn what_is_inside_of_lists_and_maps_is_shown() {
        let schema = json!({"properties": {
            "a": {"type": "array", "items": {"type": "object", "properties": {
                "b": {"type": "object", "additionalProperties": {"type": "object", "required": ["c"], "properties": {
                    "c": {"type": "string", "description": "This\nor that.", "pattern": "x|y"},
                }}},
            }}},
            "d": {"type": "array", "maxItems": 2, "items": {"type": "string", "enum": ["p", "q"]}},
        }});
        let mut page = String::new();
        write_fields(&mut page, &schema, "");
        let lines: Vec<_> = page.lines().collect();
        assert_eq!(
            lines,
            [
                "| `a` | list of object |  |  |",
                "| `a[].b` | map to object |  |  |",
                "| `a[].b{}.c` | string | *required* | This or that.<br>Limits: matches `x\\|y`. |",
                "| `d` | list of string |  | <br>Limits: at most 2 entries, each: one of `p`, `q`. |",
            ]
        );
    }
}
