//! `bellhop events`: what a plugin's events are called, what a WorkflowTrigger may set, and what a workflow gets.

use super::client::Access;
use super::output::{Cell, Format, Screen, Tone, clean, document, print, table, wrap};
use crate::api::{Definitions, PluginEvent};
use crate::plugin::{WholeEvent, whole_events};
use anyhow::Context;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Options of `bellhop events`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The TriggerPlugin; `kubectl get triggerplugins` lists them
    plugin: String,

    /// Show this event alone
    #[arg(long, value_name = "NAME")]
    event: Option<String>,

    /// Print a document, or the names of the events, instead of text
    #[arg(short, long, value_enum)]
    output: Option<Format>,

    #[command(flatten)]
    access: Access,
}

/// What is read of a plugin's spec.
#[derive(Debug, Deserialize)]
struct Events {
    #[serde(default)]
    definitions: Definitions,
    events: Vec<PluginEvent>,
}

/// What is shown of a plugin: nothing of how it reads a callback.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    plugin: String,
    display_name: String,
    events: Vec<ShownEvent>,
}

#[derive(Debug, Serialize)]
struct ShownEvent {
    name: String,
    title: String,
    parameters: BTreeMap<String, ShownParameter>,
    variables: BTreeMap<String, ShownVariable>,
}

#[derive(Debug, Serialize)]
struct ShownParameter {
    schema: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
}

#[derive(Debug, Serialize)]
struct ShownVariable {
    #[serde(rename = "type")]
    type_: &'static str,
    schema: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
}

/// Prints the events.
///
/// # Errors
/// There is no such plugin or event; the API server refused or did not answer.
pub async fn run(options: &Options) -> anyhow::Result<()> {
    let plugin = options.access.cluster().await?.get("TriggerPlugin", &options.plugin).await?;
    let spec = Events::deserialize(&plugin.data["spec"])
        .with_context(|| format!("the events of the TriggerPlugin {}", options.plugin))?;
    let mut shown = Shown {
        plugin: options.plugin.clone(),
        display_name: plugin.data["spec"]["displayName"].as_str().unwrap_or_default().to_owned(),
        events: spec.shown(),
    };
    let names: Vec<_> = shown.events.iter().map(|event| event.name.clone()).collect();
    if let Some(wanted) = &options.event {
        shown.events.retain(|event| event.name == *wanted);
        if shown.events.is_empty() {
            let message = format!("the plugin {} has no event {wanted}; it has {}", options.plugin, names.join(", "));
            return Err(super::exit::Exit::NotFound(message).into());
        }
    }
    print(&match options.output {
        None => render(&shown, Screen::stdout()),
        Some(format) => document(format, &shown, &names)?,
    })?;
    Ok(())
}

impl Events {
    /// The events with what they take from definitions. A reference that leads nowhere is what the plugin's condition
    /// tells of; here it is left out.
    fn shown(&self) -> Vec<ShownEvent> {
        whole_events(&self.definitions, &self.events).0.iter().map(ShownEvent::from).collect()
    }
}

impl From<&WholeEvent<'_>> for ShownEvent {
    fn from(whole: &WholeEvent<'_>) -> Self {
        let parameters = whole.parameters.iter().map(|(name, parameter)| {
            let description = parameter.description.map(str::to_owned);
            ((*name).to_owned(), ShownParameter { schema: parameter.schema.value.clone(), description })
        });
        let variables = whole.variables.iter().map(|(name, variable)| {
            let type_ = variable.value.type_.as_str();
            let mut schema = variable.value.schema.clone().unwrap_or_default();
            schema.insert("type".to_owned(), type_.into());
            ((*name).to_owned(), ShownVariable { type_, schema, description: variable.value.description.clone() })
        });
        Self {
            name: whole.event.name.clone(),
            title: whole.event.title.clone(),
            parameters: parameters.collect(),
            variables: variables.collect(),
        }
    }
}

fn render(shown: &Shown, screen: Screen) -> String {
    if !screen.terminal {
        return table(screen, &[], &shown.events.iter().flat_map(lines).collect::<Vec<_>>());
    }
    let mut text = String::new();
    for event in &shown.events {
        if !text.is_empty() {
            text.push('\n');
        }
        // Writing to a String does not fail.
        let _ = writeln!(text, "{}   {}", screen.paint(Tone::Strong, &clean(&event.name)), clean(&event.title));
        let rows = lines(event);
        let widths = |at: usize| rows.iter().map(|row| console::measure_text_width(&row[at].0)).max().unwrap_or(0);
        let (name, type_) = (widths(2), widths(3).min(40));
        for (header, kind) in [("parameters", "parameter"), ("variables", "variable")] {
            for (at, row) in rows.iter().filter(|row| row[1].0 == kind).enumerate() {
                if at == 0 {
                    let _ = writeln!(text, "  {}", screen.paint(Tone::Faint, header));
                }
                describe(&mut text, screen, (name, type_), row);
            }
        }
    }
    text
}

/// One parameter or variable: name and type, then default and description in the space that is left.
fn describe(text: &mut String, screen: Screen, (name, type_): (usize, usize), row: &[Cell]) {
    let [_, _, of, kind, default, description] = row else { return };
    let default = if default.0.is_empty() { String::new() } else { format!("default {}", default.0) };
    let rest: Vec<_> = [default.as_str(), &description.0].into_iter().filter(|part| !part.is_empty()).collect();
    let indent = 4 + name + 3 + type_ + 3;
    let pad = |text: &str, width: usize| " ".repeat(width.saturating_sub(console::measure_text_width(text)));
    let head = format!("    {}{}   {}{}   ", of.0, pad(&of.0, name), kind.0, pad(&kind.0, type_));
    let lines = wrap(&clean(&rest.join("; ")), screen.width.saturating_sub(indent).max(30));
    let _ = writeln!(text, "{}", format!("{head}{}", lines[0]).trim_end());
    for line in lines.iter().skip(1) {
        let _ = writeln!(text, "{}{line}", " ".repeat(indent));
    }
}

/// Event, `parameter` or `variable`, name, type, default, description; an event without any of them is a line too.
fn lines(event: &ShownEvent) -> Vec<Vec<Cell>> {
    let line =
        |kind: &str, name: &str, type_: String, default: Option<&Value>, description: &Option<String>| -> Vec<Cell> {
            vec![
                event.name.as_str().into(),
                kind.into(),
                name.into(),
                type_.into(),
                default.map(Value::to_string).unwrap_or_default().into(),
                description.clone().unwrap_or_default().into(),
            ]
        };
    let parameters = event
        .parameters
        .iter()
        .map(|(name, of)| line("parameter", name, type_of(&of.schema), of.schema.get("default"), &of.description));
    let variables =
        event.variables.iter().map(|(name, of)| line("variable", name, type_of(&of.schema), None, &of.description));
    let mut lines: Vec<_> = parameters.chain(variables).collect();
    if lines.is_empty() {
        lines.push(line("event", "", String::new(), None, &Some(event.title.clone())));
    }
    lines
}

/// The type of a JSON schema, in a few words: `array of string`, `one of "a", "b"`.
pub fn type_of(schema: &Map<String, Value>) -> String {
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        let values: Vec<_> =
            values.iter().map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)).collect();
        return format!("one of {}", values.join(", "));
    }
    let type_ = match schema.get("type") {
        Some(Value::String(type_)) => type_.clone(),
        Some(Value::Array(types)) => types.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" or "),
        _ => "any".to_owned(),
    };
    match (schema.get("items").and_then(Value::as_object), schema.get("format").and_then(Value::as_str)) {
        (Some(items), _) if type_ == "array" => format!("array of {}", type_of(items)),
        (_, Some(format)) => format!("{type_} ({format})"),
        _ => type_,
    }
}

#[cfg(test)]
mod tests {
    use super::super::output::screens::{COLOURS, PIPE, TERMINAL};
    use super::*;
    use serde_json::json;

    fn shown() -> Shown {
        let events = json!([
            {"name": "push", "title": "Push",
                "parameters": {
                    "branches": {"schema": {"type": "array", "items": {"type": "string"}, "default": ["main"]},
                        "match": "true", "description": "Globs of branches, such as release/*; one of them has to match"},
                    "kind": {"schema": {"enum": ["branch", "tag"]}, "match": "true"},
                },
                "variables": {
                    "ref": {"type": "string", "value": "body.ref", "description": "The full name of what was pushed"},
                    "commits": {"type": "array", "value": "body.commits", "schema": {"items": {"type": "object"}}},
                }},
            {"name": "ping", "title": "Ping"},
        ]);
        let spec: Events = serde_json::from_value(json!({"events": events})).unwrap();
        let events = spec.shown();
        Shown { plugin: "gitea".to_owned(), display_name: "Gitea".to_owned(), events }
    }

    #[test]
    fn a_terminal_shows_what_may_be_set_and_what_is_given() {
        assert_eq!(
            render(&shown(), TERMINAL),
            "push   Push\n\
             \x20 parameters\n\
             \x20   branches   array of string      default [\"main\"]; Globs of branches, such as\n\
             \x20                                   release/*; one of them has to match\n\
             \x20   kind       one of branch, tag\n\
             \x20 variables\n\
             \x20   commits    array of object\n\
             \x20   ref        string               The full name of what was pushed\n\
             \n\
             ping   Ping\n"
        );
        assert!(render(&shown(), COLOURS).starts_with("\u{1b}[1mpush\u{1b}[0m   Push\n"));
    }

    #[test]
    fn a_pipe_gets_a_line_for_each_parameter_and_variable() {
        assert_eq!(
            render(&shown(), PIPE),
            "push\tparameter\tbranches\tarray of string\t[\"main\"]\tGlobs of branches, such as release/*; one of them \
             has to match\n\
             push\tparameter\tkind\tone of branch, tag\t\t\n\
             push\tvariable\tcommits\tarray of object\t\t\n\
             push\tvariable\tref\tstring\t\tThe full name of what was pushed\n\
             ping\tevent\t\t\t\tPing\n"
        );
    }

    #[test]
    fn documents_tell_schemas_and_no_expressions() {
        let yaml = document(Format::Yaml, &shown(), &[]).unwrap();
        assert!(yaml.contains("branches:") && !yaml.contains("body."), "{yaml}");
        let json: Value = serde_json::from_str(&document(Format::Json, &shown(), &[]).unwrap()).unwrap();
        let variables = &json["events"][0]["variables"];
        assert_eq!(
            (&variables["ref"]["type"], &variables["ref"]["schema"]),
            (&json!("string"), &json!({"type": "string"}))
        );
        assert_eq!(variables["commits"]["schema"], json!({"type": "array", "items": {"type": "object"}}));
        assert_eq!(json["events"][0]["parameters"]["kind"]["schema"]["enum"], json!(["branch", "tag"]));
    }

    #[test]
    fn what_an_event_takes_from_definitions_is_shown_as_its_own() {
        let spec = json!({
            "definitions": {
                "parameters": {"globs": {"schema": {"type": "array"}, "match": "glob(value, of)", "description": "Globs"}},
                "sets": {"common": {"variables": {"sender": {"type": "string", "value": "body.sender"}}}},
            },
            "events": [{"name": "push", "title": "Push", "includes": ["common"],
                "parameters": {"branches": {"use": "globs", "of": "body.ref"}}}],
        });
        let events = serde_json::from_value::<Events>(spec).unwrap().shown();
        let shown = Shown { plugin: "gitea".to_owned(), display_name: "Gitea".to_owned(), events };
        let lines = "push\tparameter\tbranches\tarray\t\tGlobs\npush\tvariable\tsender\tstring\t\t\n";
        assert_eq!(render(&shown, PIPE), lines);
    }

    #[test]
    fn types_are_told_in_words() {
        let of = |schema: Value| type_of(schema.as_object().unwrap());
        assert_eq!(of(json!({"type": "string", "format": "uri"})), "string (uri)");
        assert_eq!(of(json!({"type": "array", "items": {"enum": [1, "b"]}})), "array of one of 1, b");
        assert_eq!(of(json!({"type": ["string", "null"]})), "string or null");
        assert_eq!(of(json!({})), "any");
    }
}
